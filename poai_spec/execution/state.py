# # State  [generated from specs/execution/state.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Who owns what: a map from addresses to accounts, and the root that a header commits to. Accounts have Ethereum's shape
# and lie in Ethereum's Merkle-Patricia trie, so that a virtual machine can be added without a new state format. In
# version 1 only balances change, and only by the subsidy.


from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import rlp
from trie import HexaryTrie

from poai_spec.basics.containers import HeaderCore
from poai_spec.proof.economics import compute_subsidy
from poai_spec.basics.notation import Address, Hash32, Invalid, Wei, keccak256


# ## Constants

# | name | value | why |
# | --- | --- | --- |
# | `EMPTY_TRIE_ROOT` | `keccak256(rlp(b""))`, `56e81f17...63b421` | root of a trie without entries; every account's storage root |
# | `EMPTY_CODE_HASH` | `keccak256(b"")`, `c5d24601...a470` | hash of no code; every account's code hash |


EMPTY_TRIE_ROOT: Hash32 = keccak256(b"\x80")
EMPTY_CODE_HASH: Hash32 = keccak256(b"")


# ## Types

# ### `Account`


@dataclass(frozen=True)
class Account:
    """An account; the default is one that nothing has touched yet.

    Attributes:
        nonce: transactions sent; 0 in version 1.
        balance: wei.
        storage_root: root of the account's storage trie; `EMPTY_TRIE_ROOT` in version 1.
        code_hash: Keccak-256 of its code; `EMPTY_CODE_HASH` in version 1.
    """

    nonce: int = 0
    balance: Wei = 0
    storage_root: Hash32 = EMPTY_TRIE_ROOT
    code_hash: Hash32 = EMPTY_CODE_HASH


# A state holds the accounts that were touched. It is never changed in place: functions return a new one.


State: TypeAlias = Mapping[Address, Account]


# ## RLP and the trie

# The part of Ethereum's format that occurs here (yellow paper, appendices B to D; execution-specs, `trie.py`), complete.

# **RLP** encodes a *string* of bytes or a *list* of strings and lists. A string of one byte below 0x80 is that byte. Another
# string of n <= 55 bytes is the byte 0x80 + n and the string; a longer one is the byte 0xb7 + l, then n in l bytes,
# big-endian without leading zeros, then the string. A list is the encodings of its items, one after another, behind the
# same prefix for their total length, with 0xc0 for 0x80 and 0xf7 for 0xb7. An integer is the string of its bytes,
# big-endian without leading zeros; 0 is the empty string, whose encoding is 0x80.

# **The trie** of a set of entries with keys of 32 bytes. A key is read as 64 nibbles, the high half of a byte first. The
# node of a set whose keys agree in their first d nibbles, those being used up, is

# - a *leaf*, if there is one entry: the list of `path(rest of the key, 1)` and the value;
# - an *extension*, if the rests of all keys have a common beginning: the list of `path(the longest one, 0)` and the
#   reference to the node of the same set with these nibbles used up as well;
# - else a *branch*: a list of 17, at place x the reference to the node of the entries that go on with nibble x, that nibble
#   used up, or the empty string if there are none. The last place, for a key that ends here, is empty: keys have one
#   length.

# `path(nibbles, f)` packs two nibbles to a byte: for an odd number of them `2 f + 1` and the nibbles, else `2 f`, `0` and the
# nibbles. A *reference* is the Keccak-256 of the node's RLP. (Ethereum puts nodes of less than 32 bytes of RLP into their
# parent instead; no node of this trie is that short, since an account takes 70 and a reference 33.) The *root* is the
# Keccak-256 of the RLP of the node of all entries with nothing used up; a trie without entries has `EMPTY_TRIE_ROOT`.

# ## Functions

# ### `encode_account`


def encode_account(account: Account) -> bytes:
    """Return `rlp([nonce, balance, storage_root, code_hash])`, integers big-endian without leading zeros.

    Reference: Ethereum yellow paper, section 4.1 and appendix B.
    """
    fields = [account.nonce, account.balance, account.storage_root, account.code_hash]
    return bytes(rlp.encode(fields))


# ### `compute_state_root`


def compute_state_root(state: State) -> Hash32:
    """Return the root of the trie that maps `keccak256(address)` to the account's encoding.

    Reference: Ethereum yellow paper, appendix D.
    """
    trie = HexaryTrie({}, prune=True)
    for address, account in state.items():
        trie[keccak256(address)] = encode_account(account)
    return bytes(trie.root_hash)


# ```pycon
# >>> from poai_spec.execution.state import EMPTY_TRIE_ROOT, Account, compute_state_root
# >>> compute_state_root({}) == EMPTY_TRIE_ROOT
# True
# >>> EMPTY_TRIE_ROOT.hex()
# '56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421'
# >>> compute_state_root({bytes(20): Account(balance=5 * 10**18)}).hex()
# '8ccdf2379bbcc6e7d3e67b0069cb36631eac79e9ba5d37ed044933a27cac5089'


# Three accounts whose hashed addresses begin with 53, 421 and 42b: the root is a branch, with a leaf at 5 and, at 4, an
# extension by the nibble 2 to a branch with a leaf at 1 and one at b.

# ```pycon
# >>> from poai_spec.basics.notation import keccak256
# >>> three = {bytes(19) + bytes([n]): Account(balance=(n + 1) * 10**18) for n in (0, 5, 15)}
# >>> [keccak256(address).hex()[:3] for address in three]
# ['538', '421', '42b']
# >>> compute_state_root(three).hex()
# 'e3f2c26cbfa9c2b897141e26fdf1db62b7fcecda059f9d5627ea3a896666a620'


# ### `process_credit`


def process_credit(state: State, address: Address, amount: Wei) -> State:
    """Return the state after `amount` was added to an account; a zero amount touches none."""
    if amount == 0:
        return state
    account = state.get(address, Account())
    return {**state, address: replace(account, balance=account.balance + amount)}


# ### `process_header`


def process_header(state: State, core: HeaderCore) -> State:
    """Return the state after a block: its miner has been credited with the subsidy."""
    return process_credit(state, core.miner, compute_subsidy(core.height))


# ### `check_state_root`


def check_state_root(state: State, core: HeaderCore) -> None:
    """Refuse a header that commits to another state than the one after it, `state`.

    Raises:
        Invalid: `state/root`.
    """
    root = compute_state_root(state)
    if core.state_root != root:
        raise Invalid("state/root", f"block {core.height} has {core.state_root.hex()}, its chain gives {root.hex()}")


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `state/root` | Invalid | not the root of the state after this block; header and ancestors decide it |

# ## Rationale

# - **Keys are hashed.** An attacker who may choose addresses cannot make the trie deep.
# - **The trie is rebuilt for every block** here, because that is the shortest definition. A client keeps it and changes
#   one path; the root depends on the content alone, not on the order of changes.
# - **The zero address is an account like any other.** A miner who names it loses the money.
