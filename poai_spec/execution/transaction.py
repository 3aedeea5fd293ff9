# # Transaction  [generated from specs/execution/transaction.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# What an account's owner signs: a transfer, a call of a contract, or a new contract. The formats are Ethereum's (EIP-2718): the
# first byte tells the type, a list of RLP follows.

# | type | first byte | what it adds |
# | --- | --- | --- |
# | 0 | 0xc0 .. 0xff, of the list itself | one gas price; signed for one chain (EIP-155) |
# | 1 | 0x01 | a list of what it will touch (EIP-2930) |
# | 2 | 0x02 | a highest fee and a highest tip instead of a price (EIP-1559) |


from dataclasses import dataclass
from typing import Any, TypeAlias

import rlp

from poai_spec.basics.notation import Address, Hash32, Invalid, Wei, keccak256
from poai_spec.execution.precompiles import CURVE_ORDER, recover_address
from poai_spec.execution.trie import RlpError, decode_rlp
from poai_spec.execution.world import Slot


# ## Constants


MAX_U64, MAX_U256 = 2**64 - 1, 2**256 - 1
FIELDS_OF_TYPE = {0: 9, 1: 11, 2: 12}  # items of the RLP list


# ## Types


AccessList: TypeAlias = tuple[tuple[Address, tuple[Slot, ...]], ...]


# ### `Transaction`


@dataclass(frozen=True)
class Transaction:
    """A signed transaction.

    Attributes:
        kind: 0, 1 or 2.
        chain_id: the network that it is signed for.
        nonce: how many the sender sent before.
        max_priority_fee: wei a gas for the miner, at most; the gas price for types 0 and 1.
        max_fee: wei a gas in all, at most; the gas price for types 0 and 1.
        gas: that it may use.
        to: the callee; empty for a new contract.
        value: wei.
        data: input, or init code.
        access_list: addresses and slots that are warm from the start.
        y_parity: of the signature, 0 or 1.
        r: of the signature.
        s: of the signature, in the lower half.
    """

    kind: int
    chain_id: int
    nonce: int
    max_priority_fee: Wei
    max_fee: Wei
    gas: int
    to: Address
    value: Wei
    data: bytes
    access_list: AccessList = ()
    y_parity: int = 0
    r: int = 0
    s: int = 0


# ## Encoding

# ### `list_fields`


def list_fields(tx: Transaction) -> list[Any]:
    """Return what a transaction's RLP list holds before the signature."""
    fees: list[Any] = [tx.max_priority_fee, tx.max_fee] if tx.kind == 2 else [tx.max_fee]
    head = [tx.nonce, *fees, tx.gas, tx.to, tx.value, tx.data]
    if tx.kind == 0:
        return head
    listed = [[address, [slot.to_bytes(32, "big") for slot in slots]] for address, slots in tx.access_list]
    return [tx.chain_id, *head, listed]


# ### `encode_transaction`


def encode_transaction(tx: Transaction) -> bytes:
    """Return a signed transaction as it travels and lies in blocks."""
    v = tx.y_parity if tx.kind else 35 + 2 * tx.chain_id + tx.y_parity
    fields = bytes(rlp.encode([*list_fields(tx), v, tx.r, tx.s]))
    return bytes([tx.kind]) + fields if tx.kind else fields


# ### `compute_signing_hash`


def compute_signing_hash(tx: Transaction) -> Hash32:
    """Return what the sender signs: for type 0 with the chain in the place of the signature (EIP-155)."""
    if tx.kind == 0:
        return keccak256(bytes(rlp.encode([*list_fields(tx), tx.chain_id, 0, 0])))
    return keccak256(bytes([tx.kind]) + bytes(rlp.encode(list_fields(tx))))


# ### `compute_transaction_hash`


def compute_transaction_hash(encoded: bytes) -> Hash32:
    """Return the hash by which a transaction is known: of its whole encoding."""
    return keccak256(encoded)


# ## Decoding

# Integers have no leading zeros and fit their width: gas, nonce and chain 64 bits, fees and values 256. Nothing may be
# left over. The work grows with the bytes alone, so the limit on a body's bytes bounds it.

# ### `read_integer`


def read_integer(item: Any, limit: int) -> int:
    """Return an integer of an RLP list.

    Raises:
        Invalid: `transaction/integer`.
    """
    if not isinstance(item, bytes) or item.startswith(b"\0") or int.from_bytes(item, "big") > limit:
        raise Invalid("transaction/integer", "an integer is a list, begins with a zero byte, or is too large")
    return int.from_bytes(item, "big")


# ### `read_bytes`


def read_bytes(item: Any) -> bytes:
    """Return a string of an RLP list.

    Raises:
        Invalid: `transaction/data`.
    """
    if not isinstance(item, bytes):
        raise Invalid("transaction/data", "a list stands where bytes belong")
    return item


# ### `read_recipient`


def read_recipient(item: Any) -> Address:
    """Return a callee: 20 bytes, or none.

    Raises:
        Invalid: `transaction/recipient`.
    """
    if not isinstance(item, bytes) or len(item) not in (0, 20):
        raise Invalid("transaction/recipient", "neither 20 bytes nor none")
    return item


# ### `read_access_list`


def read_access_list(item: Any) -> AccessList:
    """Return an access list.

    Raises:
        Invalid: `transaction/access-list`.
    """
    entries: list[Any] = item if isinstance(item, list) else [b""]
    if not all(map(is_access_entry, entries)):
        raise Invalid("transaction/access-list", "not a list of addresses of 20 bytes with lists of slots of 32")
    return tuple((a, tuple(int.from_bytes(slot, "big") for slot in slots)) for a, slots in entries)


# ### `is_access_entry`


def is_access_entry(entry: Any) -> bool:
    """Say whether an entry of an access list is an address of 20 bytes and a list of slots of 32."""
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], list):
        return False
    known = isinstance(entry[0], bytes) and len(entry[0]) == 20
    return known and all(isinstance(slot, bytes) and len(slot) == 32 for slot in entry[1])


# ### `decode_list`


def decode_list(encoded: bytes) -> tuple[int, list[Any]]:
    """Return the type of a transaction and the items of its list.

    Raises:
        Invalid: `transaction/type` or `transaction/encoding`.
    """
    kind = 0 if encoded[:1] >= b"\xc0" else encoded[0] if encoded else -1
    if kind not in FIELDS_OF_TYPE or (kind == 0 and encoded[:1] < b"\xc0"):
        raise Invalid("transaction/type", f"the first byte is {encoded[:1].hex() or 'missing'}, not of type 0, 1 or 2")
    try:
        items = decode_rlp(encoded[1:] if kind else encoded)
    except RlpError:
        items = b""
    if isinstance(items, bytes) or len(items) != FIELDS_OF_TYPE[kind]:
        raise Invalid("transaction/encoding", f"no RLP list of {FIELDS_OF_TYPE[kind]} items")
    return kind, list(items)


# ### `decode_transaction`

# The chain of type 0 is in its `v`, 35 + 2 * chain + parity; a `v` of 27 or 28, valid on any chain, is refused.


def decode_transaction(encoded: bytes) -> Transaction:
    """Return the transaction in its encoding. It is well formed; `get_sender` looks at its signature.

    Raises:
        Invalid: `transaction/...`, the first in the order of the encoding.
    """
    kind, items = decode_list(encoded)
    chain_id = read_integer(items.pop(0), MAX_U64) if kind else 0
    nonce = read_integer(items.pop(0), MAX_U64)
    tip = read_integer(items.pop(0), MAX_U256)
    max_fee = read_integer(items.pop(0), MAX_U256) if kind == 2 else tip
    gas = read_integer(items.pop(0), MAX_U64)
    to = read_recipient(items.pop(0))
    value = read_integer(items.pop(0), MAX_U256)
    data = read_bytes(items.pop(0))
    access_list = read_access_list(items.pop(0)) if kind else ()
    v, r, s = (read_integer(item, MAX_U256) for item in items)
    if kind == 0:
        chain_id, v = divmod(v - 35, 2)
        if not 0 <= chain_id <= MAX_U64:
            raise Invalid("transaction/unprotected", "the signature holds for any chain, or for one beyond 64 bits")
    if v > 1:
        raise Invalid("transaction/parity", f"{v} is neither 0 nor 1")
    return Transaction(kind, chain_id, nonce, tip, max_fee, gas, to, value, data, access_list, v, r, s)


# ## Signature

# ### `get_sender`

# A signature with `s` in the upper half is another form of the one in the lower half, by which a stranger could change a
# transaction's hash (EIP-2).


def get_sender(tx: Transaction, chain_id: int) -> Address:
    """Return who signed a transaction for this chain.

    Args:
        tx: the transaction.
        chain_id: of the network.

    Raises:
        Invalid: `transaction/chain-id` or `transaction/signature`.
    """
    if tx.chain_id != chain_id:
        raise Invalid("transaction/chain-id", f"signed for chain {tx.chain_id}, this is {chain_id}")
    low = 2 * tx.s <= CURVE_ORDER
    sender = recover_address(compute_signing_hash(tx), tx.y_parity, tx.r, tx.s) if low else None
    if sender is None:
        raise Invalid("transaction/signature", "no key can have made it, or its s is in the upper half")
    return sender


# ```pycon
# >>> from poai_spec.execution.transaction import decode_transaction, encode_transaction, get_sender
# >>> example = bytes.fromhex(  # the example of EIP-155
# ...     "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc21"
# ...     "95fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
# ... )
# >>> tx = decode_transaction(example)
# >>> tx.chain_id, tx.nonce, tx.gas, tx.value == 10**18, encode_transaction(tx) == example
# (1, 9, 21000, True, True)
# >>> get_sender(tx, chain_id=1).hex()
# '9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f'


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `transaction/type` | Invalid | the first byte is of no type that there is |
# | `transaction/encoding` | Invalid | no RLP list of as many items as the type has |
# | `transaction/integer` | Invalid | an integer begins with a zero byte, is too large, or is a list |
# | `transaction/data` | Invalid | the input is a list |
# | `transaction/recipient` | Invalid | the callee has neither 20 bytes nor none |
# | `transaction/access-list` | Invalid | no list of addresses with lists of slots |
# | `transaction/unprotected` | Invalid | type 0 and signed for no chain |
# | `transaction/parity` | Invalid | the signature's parity is neither 0 nor 1 |
# | `transaction/chain-id` | Invalid | signed for another chain |
# | `transaction/signature` | Invalid | no key can have made the signature, or it is in its second form |

# ## Rationale

# - **Widths are checked when it is decoded.** With unbounded integers nine of the 149 invalid transactions in Ethereum's tests
#   are accepted.
# - **No type 3** (blobs): there is no data layer here. **Type 4** (EIP-7702) may come with an upgrade.
# - **Type 0 needs a chain**: a transaction for any chain could be taken from one network to another.
