# # Receipts  [generated from specs/execution/receipts.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# What came of a transaction: success, gas, and the events that contracts announced. Receipts are not sent; each node makes
# them, and a block commits to their root. A wallet that has a header can be shown one receipt by a path of the trie.


from collections.abc import Sequence
from dataclasses import dataclass

import rlp

from poai_spec.basics.notation import keccak256
from poai_spec.execution.world import Log


# ## Constants


BLOOM_BYTES = 256  # of a bloom filter


# ## Types

# ### `Receipt`


@dataclass(frozen=True)
class Receipt:
    """The outcome of a transaction.

    Attributes:
        kind: its type.
        success: whether what it did stays.
        cumulative_gas: used by it and those before it in the block.
        logs: events, in order.
    """

    kind: int
    success: bool
    cumulative_gas: int
    logs: tuple[Log, ...]


# ## Functions

# ### `compute_bloom`

# Each address and each topic sets three of 2048 bits, taken from its Keccak; a filter that lacks one of them shows that
# nothing of that kind was announced.


def compute_bloom(logs: Sequence[Log]) -> bytes:
    """Return the bloom filter of events, 256 bytes.

    Reference: Ethereum yellow paper, section 4.3.1.
    """
    bits = 0
    for entry in {part for log in logs for part in (log.address, *log.topics)}:
        digest = keccak256(entry)
        for at in (0, 2, 4):
            bits |= 1 << (int.from_bytes(digest[at : at + 2], "big") & 2047)
    return bits.to_bytes(BLOOM_BYTES, "big")


# ### `encode_receipt`


def encode_receipt(receipt: Receipt) -> bytes:
    """Return a receipt as the trie holds it: its type, unless that is 0, and RLP of status, gas, bloom, logs."""
    logs = [[log.address, list(log.topics), log.data] for log in receipt.logs]
    fields = [int(receipt.success), receipt.cumulative_gas, compute_bloom(receipt.logs), logs]
    kind = bytes([receipt.kind]) if receipt.kind else b""
    return kind + bytes(rlp.encode(fields))


# ```pycon
# >>> from poai_spec.execution.receipts import Receipt, compute_bloom, encode_receipt
# >>> from poai_spec.execution.world import Log
# >>> bloom = compute_bloom([Log(bytes(20), (), b"")])
# >>> bloom.hex().strip("0")[:5], sum(byte.bit_count() for byte in bloom)
# ('80000', 3)
# >>> encode_receipt(Receipt(2, True, 21000, ())).hex()[:16]
# '02f9010801825208'


# ## Rationale

# - **Ethereum's form to the byte**, so that its tools check a receipt's proof.
