# # Containers  [generated from specs/basics/containers.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The consensus objects: what a block is, how it is encoded and what its hashes are. A miner fills a `HeaderCore`, which
# alone decides the quiz; the `Header` adds what the forward pass gave; the `Block` message carries the header, the body
# and the list of trace entries that the header's digest commits to.


from dataclasses import dataclass

from ssz.sedes import ByteList, List, bytes32, uint32, uint64, uint256

from poai_spec.basics.encoding import bytes20, encode, ssz_field
from poai_spec.basics.notation import Address, Hash32, Height, Milliseconds, Target, tagged_hash
from poai_spec.basics.parameters import MAX_TRACE, MAX_TRANSACTION_BYTES, MAX_TRANSACTIONS


# ## Types

# ### `HeaderCore`

# 176 bytes; everything a miner can vary, so everything that the quiz depends on.


@dataclass(frozen=True)
class HeaderCore:
    """The part of a header that exists before the forward pass.

    Attributes:
        version: `PROTOCOL_VERSION`.
        height: the parent's height + 1; genesis has 0.
        parent_hash: block hash of the parent; the network id in genesis.
        timestamp: claimed time, ms since 1970.
        target: the difficulty target T that `l_hat` must stay below.
        miner: the account that the subsidy goes to.
        body_root: tagged hash of the body.
        state_root: root of the account trie after this block.
        nonce: free; each value is another quiz.
    """

    version: int = ssz_field(uint32)
    height: Height = ssz_field(uint64)
    parent_hash: Hash32 = ssz_field(bytes32)
    timestamp: Milliseconds = ssz_field(uint64)
    target: Target = ssz_field(uint256)
    miner: Address = ssz_field(bytes20)
    body_root: Hash32 = ssz_field(bytes32)
    state_root: Hash32 = ssz_field(bytes32)
    nonce: int = ssz_field(uint64)


# ### `Header`


@dataclass(frozen=True)
class Header:
    """A header core and what the forward pass of its quiz gave; 216 bytes.

    Attributes:
        core: the part that decides the quiz.
        loss: sum of the scored negative log-likelihoods, bits in Q16.
        trace_digest: hash of the trace list.
    """

    core: HeaderCore = ssz_field(HeaderCore)
    loss: int = ssz_field(uint64)
    trace_digest: Hash32 = ssz_field(bytes32)


# ### `Body`


@dataclass(frozen=True)
class Body:
    """What a block carries beside its header; version 1 allows no transactions.

    Attributes:
        transactions: opaque byte strings, reserved.
    """

    transactions: tuple[bytes, ...] = ssz_field(List(ByteList(MAX_TRANSACTION_BYTES), MAX_TRANSACTIONS))


# ### `Block`


@dataclass(frozen=True)
class Block:
    """The message that travels.

    Attributes:
        header: what the chain is made of.
        body: committed to by `header.core.body_root`.
        trace: the L + 1 trace entries, committed to by `header.trace_digest`.
    """

    header: Header = ssz_field(Header)
    body: Body = ssz_field(Body)
    trace: tuple[Hash32, ...] = ssz_field(List(bytes32, MAX_TRACE))


# ## Hashes

# ### `compute_core_hash`


def compute_core_hash(core: HeaderCore) -> Hash32:
    """Return the hash of a header core, from which the quiz seed is made."""
    return tagged_hash("PoAI/header-core/1", encode(core))


# ### `compute_block_hash`


def compute_block_hash(header: Header) -> Hash32:
    """Return the block hash: it covers every field of the header, so no field can be swapped."""
    return tagged_hash("PoAI/header/1", encode(header))


# ### `compute_body_root`


def compute_body_root(body: Body) -> Hash32:
    """Return the tagged hash of the body's encoding."""
    return tagged_hash("PoAI/body/1", encode(body))


# ## Rationale

# The prototype hashed height, parent and nonce only: the miner, the time, the target and the state could be swapped in a
# block that somebody else had mined. Here the quiz depends on every bit of the core and the block hash on every bit of
# the header.
