# # Networking  [generated from specs/chain/networking.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# What nodes say to each other: the topic that blocks travel on, the requests that a node answers, how bytes are delimited
# and bounded, and what follows for a peer whose message breaks a rule. It stands on libp2p (TCP, Noise, Yamux, identify)
# and on gossipsub. What a block has to pass is on the page [block](block.md), what a node keeps on the page
# [fork-choice](fork-choice.md). A peer's identity is an Ed25519 or a secp256k1 key: others can be costly to read.


import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TypeVar

from ssz.sedes import ByteVector, List, bytes32, uint32, uint64, uint256

from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import decode, encode, get_sedes, ssz_field
from poai_spec.basics.notation import Hash32, Height, Invalid, Malformed, Milliseconds, NotYet, SpecError, Work
from poai_spec.basics.notation import uint32_le
from poai_spec.basics.parameters import MAX_TRACE
from poai_spec.chain.upgrades import FORK_HASH_BYTES, Rules, get_fork_hash
from poai_spec.proof.work import get_trace_length

T = TypeVar("T")


# ## Names

# Protocol ids do not name the network: a peer of another one must learn why it is refused. Topics do, by the fork hash of
# a block's rules (page [upgrades](upgrades.md)): messages of two networks, or lists of upgrades, never meet.


STATUS_PROTOCOL = "/poai/status/1"
HEADERS_PROTOCOL = "/poai/headers/1"
BLOCKS_PROTOCOL = "/poai/blocks/1"
GOODBYE_PROTOCOL = "/poai/goodbye/1"


# ### `get_blocks_topic`


def get_blocks_topic(rules: Rules) -> str:
    """Return the gossip topic of the blocks that follow some rules."""
    return f"/poai/{get_fork_hash(rules).hex()}/blocks/1"


# ### `check_topic`

# A node joins the topic of a coming upgrade one epoch of blocks early, so that the mesh stands when the first block comes,
# and leaves the old one an epoch after.


def check_topic(topic: str, rules: Rules) -> None:
    """Refuse a block on the topic of other rules than those of its own height.

    Raises:
        Malformed: `networking/topic`.
    """
    if topic != get_blocks_topic(rules):
        raise Malformed("networking/topic", f"a block of {get_blocks_topic(rules)} on {topic:.80}")


# ## Limits

# ### Sizes

# Each is exact, so that no valid message exceeds it. The limit of a frame is its message's, and `RESULT_BYTES` more in a
# response. A request for status has a `Status` in it, too.

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `MAX_LOCATOR` | 64 | hashes | ten in a row, 53 that are ever twice as far apart, genesis: enough for 2^54 blocks |
# | `LOCATOR_DENSE` | 10 | hashes | forks are short: the exact common block is mostly among the last ten |
# | `MAX_HEADERS` | 512 | headers | 108 KiB; a mainnet year is 103 requests |
# | `MAX_BLOCKS` | 32 | blocks | replaying them takes seconds, fetching them less than one |
# | `HEADER_BYTES` | 216 | bytes | page [containers](../basics/containers.md) |
# | `BLOCK_OVERHEAD_BYTES` | 12 | bytes | of a block's encoding: three offsets; the body is empty |
# | `MAX_BLOCK_BYTES` | 8,452 | bytes | header, overhead, a trace of `MAX_TRACE` digests: under any rules |
# | `MAX_GOSSIP_BYTES` | 1,048,576 | bytes | one RPC of gossipsub with all it carries; the default of go-libp2p |
# | `MAX_STATUS_BYTES` | 136 | bytes | fixed |
# | `MAX_HEADERS_REQUEST_BYTES` | 2,088 | bytes | offset, `stop`, `count`, a full locator |
# | `MAX_HEADERS_BYTES` | 110,596 | bytes | offset and `MAX_HEADERS` headers |
# | `MAX_BLOCKS_REQUEST_BYTES` | 1,028 | bytes | offset and `MAX_BLOCKS` hashes |
# | `MAX_BLOCKS_BYTES` | 270,600 | bytes | two offsets, `MAX_BLOCKS` offsets and largest blocks: lacking ones take less |
# | `MAX_GOODBYE_BYTES` | 4 | bytes | fixed |
# | `RESULT_BYTES` | 1 | bytes | the first byte of a response |


MAX_LOCATOR = 64
LOCATOR_DENSE = 10
MAX_HEADERS = 512
MAX_BLOCKS = 32
HEADER_BYTES = 216
BLOCK_OVERHEAD_BYTES = 2 * 4 + 4
MAX_BLOCK_BYTES = HEADER_BYTES + BLOCK_OVERHEAD_BYTES + MAX_TRACE * 32
MAX_GOSSIP_BYTES = 1_048_576
MAX_STATUS_BYTES = 136
MAX_HEADERS_REQUEST_BYTES = 4 + 32 + 4 + MAX_LOCATOR * 32
MAX_BLOCKS_REQUEST_BYTES = 4 + MAX_BLOCKS * 32
MAX_GOODBYE_BYTES = 4
MAX_HEADERS_BYTES = 4 + MAX_HEADERS * HEADER_BYTES
MAX_BLOCKS_BYTES = 2 * 4 + MAX_BLOCKS * (4 + MAX_BLOCK_BYTES)
RESULT_BYTES = 1


# ### Times and gossip

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `RESPONSE_TIMEOUT_MS` | 10,000 | ms | from opening a stream to its last byte: the largest response at 27 kB/s |
# | `VALIDATION_TIMEOUT_MS` | 30,000 | ms | from the start of a message's checks; a queue of some thirty replays of mainnet |
# | `STATUS_INTERVAL_MS` | 60,000 | ms | how often status is asked again: finds what gossip lost |
# | `HEARTBEAT_MS` | 1,000 | ms | gossipsub's default, as are the next four |
# | `SEEN_MS` | 120,000 | ms | how long a message id is remembered |
# | `MESH_DEGREE` | 6 | peers | aimed at in the mesh of a topic |
# | `MESH_DEGREE_LOW` | 4 | peers | below it the mesh is filled |
# | `MESH_DEGREE_HIGH` | 12 | peers | above it the mesh is pruned |


RESPONSE_TIMEOUT_MS: Milliseconds = 10_000
VALIDATION_TIMEOUT_MS: Milliseconds = 30_000
STATUS_INTERVAL_MS: Milliseconds = 60_000
HEARTBEAT_MS: Milliseconds = 1_000
SEEN_MS: Milliseconds = 120_000
MESH_DEGREE = 6
MESH_DEGREE_LOW = 4
MESH_DEGREE_HIGH = 12


# ### Rates

# Three buckets of tokens: each begins full and fills evenly. The first two belong to a peer id, whatever connections it
# has had, and an address prefix has no more of them than it may have connections: peer ids and connections are free. A
# request without a token is answered `TOO_MANY_REQUESTS`; a gossip message without one is dropped before it is decoded.
# Neither is a fault.

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `REQUEST_BURST` | 20 | requests | of all protocols, a peer |
# | `REQUEST_REFILL_MS` | 500 | ms a request | 1,024 headers or 64 blocks a second: more than a node can replay |
# | `GOSSIP_BURST` | 32 | messages | a peer; what piles up while a connection stalls |
# | `GOSSIP_REFILL_MS` | 250 | ms a message | four times the fastest preset's blocks |
# | `REPLAYS_PER_PEER` | 1 | replays | in flight: a peer's second block waits for the first's verdict |
# | `MAX_FRUITLESS` | 3 | heads | an honest peer's head may change once while its headers are asked for |
# | `SAMPLE_BLOCKS` | 8 | replays | with a tenth of the claimed work true, 10^-8 of forged segments pass |
# | `REPLAY_BUDGET_MS` | 20,000 | ms | of failed replays, an address prefix; the third bucket |
# | `REPLAY_BUDGET_PERIOD_MS` | 3,600,000 | ms | to fill it: 180 prefixes are needed to fill one verifier |
# | `IPV4_PREFIX_BITS` | 24 | bits | the smallest range that is routed by itself |
# | `IPV6_PREFIX_BITS` | 48 | bits | the most that one site is given (RFC 6177) |

# A replay begins only while its sender's prefix has some budget left. One that fails takes its duration from the budget;
# one that ends well costs nothing. While others wait too, at least every second replay is for a peer that has delivered a
# true block since it connected.


REQUEST_BURST = 20
REQUEST_REFILL_MS: Milliseconds = 500
GOSSIP_BURST = 32
GOSSIP_REFILL_MS: Milliseconds = 250
REPLAYS_PER_PEER = 1
SAMPLE_BLOCKS = 8
MAX_FRUITLESS = 3
REPLAY_BUDGET_MS: Milliseconds = 20_000
REPLAY_BUDGET_PERIOD_MS: Milliseconds = 3_600_000
IPV4_PREFIX_BITS = 24
IPV6_PREFIX_BITS = 48


# ### Penalties

# A peer's score is the sum of its penalties ([get_penalty](#get_penalty)) and halves every `PENALTY_HALF_LIFE_MS`.
# At `BAN_SCORE` the peer is sent away with `FAULT` and not heard again for `BAN_MS`.

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `BAN_SCORE` | 100 | points | the scale of the others |
# | `INVALID_PENALTY` | 50 | points | the second one bans: a peer checks before it forwards |
# | `MALFORMED_PENALTY` | 25 | points | the fourth one bans; a bug, or a message of a later version |
# | `PENALTY_HALF_LIFE_MS` | 600,000 | ms | one malformed message every ten minutes never bans |
# | `BAN_MS` | 3,600,000 | ms | peer ids are free: longer hits only those who share an address later |
# | `FALSE_WORK` | two | codes | cost a replay to find, and its forger a few hashes: one bans |


BAN_SCORE = 100
INVALID_PENALTY = 50
MALFORMED_PENALTY = 25
PENALTY_HALF_LIFE_MS: Milliseconds = 600_000
BAN_MS: Milliseconds = 3_600_000
FALSE_WORK = frozenset({"work/trace", "work/loss"})


# ## Messages

# All are SSZ containers, encoded as on the page [encoding](../basics/encoding.md). What each asks of the one who answers is under
# [Answering](#answering).

# ### `Status`


@dataclass(frozen=True)
class Status:
    """What a node says about itself; request and response of `STATUS_PROTOCOL`.

    Attributes:
        version: the version of this page that it speaks, `PROTOCOL_VERSION`.
        network_id: its network.
        fork_hash: the hash of its fork id (page upgrades).
        fork_next: the next height of its fork id; 0 for none.
        head: block hash of its head.
        height: the head's height.
        work: replayed work of the head's chain, in multiplications; below 2^256 for whatever can be computed.
        bodies_from: it holds every block of its chain from this height on.
        assumed: blocks of its chain up to this height were assumed valid, not replayed; 0 for none.
    """

    version: int = ssz_field(uint32)
    network_id: Hash32 = ssz_field(bytes32)
    fork_hash: bytes = ssz_field(ByteVector(FORK_HASH_BYTES))
    fork_next: Height = ssz_field(uint64)
    head: Hash32 = ssz_field(bytes32)
    height: Height = ssz_field(uint64)
    work: Work = ssz_field(uint256)
    bodies_from: Height = ssz_field(uint64)
    assumed: Height = ssz_field(uint64)


# ### `HeadersRequest`


@dataclass(frozen=True)
class HeadersRequest:
    """Ask for the headers after the last common block.

    Attributes:
        locator: block hashes of the asker's chain, the highest first.
        stop: the last block of interest; zeros for as many as fit.
        count: how many headers at most, 1 to `MAX_HEADERS`.
    """

    locator: tuple[Hash32, ...] = ssz_field(List(bytes32, MAX_LOCATOR))
    stop: Hash32 = ssz_field(bytes32)
    count: int = ssz_field(uint32)


# ### `Headers`


@dataclass(frozen=True)
class Headers:
    """Headers of the responder's chain, ascending, each the parent of the next; none if nothing is newer."""

    headers: tuple[Header, ...] = ssz_field(List(get_sedes(Header), MAX_HEADERS), item=Header)


# ### `BlocksRequest`


@dataclass(frozen=True)
class BlocksRequest:
    """Ask for blocks by their hashes: 1 to `MAX_BLOCKS`, none twice."""

    hashes: tuple[Hash32, ...] = ssz_field(List(bytes32, MAX_BLOCKS))


# ### `Blocks`


@dataclass(frozen=True)
class Blocks:
    """Blocks in the order in which they were asked for. What is neither here nor lacking may be asked for again.

    Attributes:
        blocks: the blocks.
        lacking: the asked hashes whose blocks the responder does not hold: pruned, not replayed, or unknown.
    """

    blocks: tuple[Block, ...] = ssz_field(List(get_sedes(Block), MAX_BLOCKS), item=Block)
    lacking: tuple[Hash32, ...] = ssz_field(List(bytes32, MAX_BLOCKS))


# ### `Goodbye`


@dataclass(frozen=True)
class Goodbye:
    """The last message before a connection is closed; `reason` is a `Reason` or a number that is not known yet."""

    reason: int = ssz_field(uint32)


# ### `Reason`


class Reason(IntEnum):
    """Why a node says goodbye."""

    SHUTTING_DOWN = 1
    OTHER_NETWORK = 2
    FAULT = 3
    TOO_MANY_PEERS = 4
    USELESS = 5
    OTHER_RULES = 6


# ### `Result`


class Result(IntEnum):
    """The first byte of a response."""

    OK = 0
    NOT_UNDERSTOOD = 1
    TOO_MANY_REQUESTS = 2
    OTHER_NETWORK = 3
    NOT_AT_HAND = 4
    OTHER_RULES = 5


# ## Frames

# Every request and every response is one frame, and a stream carries one request and its response; `Goodbye` has no
# response. The length alone delimits: neither side waits for the other to close its half of a stream, and bytes behind
# the frame are not read. A frame that ends early is no message; the stream is reset, and nobody is blamed for a broken
# connection.

# ### `encode_frame`


def encode_frame(payload: bytes) -> bytes:
    """Return a payload behind its length: uint32, little-endian."""
    return uint32_le(len(payload)) + payload


# ### `check_frame_length`


def check_frame_length(length: int, limit: int) -> None:
    """Refuse a frame before its payload is read.

    Args:
        length: the first four bytes of the frame, little-endian.
        limit: of the message that is expected: its `MAX_..._BYTES`, for a response `RESULT_BYTES` more.

    Raises:
        Malformed: `networking/frame-length`.
    """
    if length > limit:
        raise Malformed("networking/frame-length", f"a frame of {length} bytes, {limit} are allowed here")


# ### `encode_response`

# | result | name | when |
# | --- | --- | --- |
# | 0 | `OK` | the message follows |
# | 1 | `NOT_UNDERSTOOD` | the request is Malformed; its sender is blamed |
# | 2 | `TOO_MANY_REQUESTS` | no token; ask later |
# | 3 | `OTHER_NETWORK` | the status names another network |
# | 4 | `NOT_AT_HAND` | no block of the locator is on the responder's chain |
# | 5 | `OTHER_RULES` | `check_fork_id` refuses the status: one side lacks an upgrade that the other has passed |


def encode_response(result: Result, message: Status | Headers | Blocks | None = None) -> bytes:
    """Return the payload of a response: the result, and behind `OK` the message's encoding; else no message."""
    assert (result == Result.OK) == (message is not None), "a message goes with OK, and with nothing else"
    return bytes([result]) + (b"" if message is None else encode(message))


# ### `decode_response`


def decode_response(kind: type[T], payload: bytes) -> T:
    """Return the message of class `kind` (`Status`, `Headers` or `Blocks`) in a response's payload.

    Raises:
        Malformed: `networking/response`; `encoding/undecodable`, if what follows `OK` is no such message.
        NotYet: `networking/refused`.
    """
    if not payload or payload[0] not in set(Result) or (payload[0] != Result.OK and len(payload) > RESULT_BYTES):
        raise Malformed("networking/response", f"{len(payload)} bytes from {payload[:RESULT_BYTES].hex()} on")
    if payload[0] != Result.OK:
        raise NotYet("networking/refused", f"result {payload[0]}, {Result(payload[0]).name}")
    return decode(kind, payload[RESULT_BYTES:])


# ## Gossip

# Gossipsub 1.1 or later. A message's data is the encoding of one `Block`, published by its miner and forwarded by whoever
# accepted it. The policy is StrictNoSign: a message has no `from`, `seqno`, `signature` or `key`, and one that has is
# refused. A block proves itself; a signature would name the miner's host, and make one block many messages.

# ### `compute_message_id`


def compute_message_id(topic: str, data: bytes) -> bytes:
    """Return `SHA-256(topic || 0x00 || data)`, by which gossipsub tells messages apart; `topic` as UTF-8."""
    return hashlib.sha256(topic.encode("utf-8") + b"\0" + data).digest()


# ### `check_gossip_size`


def check_gossip_size(data: bytes, rules: Rules) -> None:
    """Refuse what is too large for a block before it is decoded; the topic tells the rules.

    Raises:
        Malformed: `networking/block-size`.
    """
    if len(data) > (most := get_block_bytes(rules)):
        raise Malformed("networking/block-size", f"{len(data)} bytes, a block of these rules has {most}")


# ### `get_block_bytes`


def get_block_bytes(rules: Rules) -> int:
    """Return the length of the encoding of every block that follows some rules: its body is empty."""
    return HEADER_BYTES + BLOCK_OVERHEAD_BYTES + 32 * get_trace_length(rules)


# ### `Verdict`


class Verdict(StrEnum):
    """What gossipsub is told about a message."""

    ACCEPT = "accept"
    REJECT = "reject"
    IGNORE = "ignore"


# ### `get_verdict`

# Data passes `check_gossip_size`, `decode`, `check_topic` and `receive_block` (page [fork-choice](fork-choice.md)), and is
# forwarded only then, after the replay. A verdict is the error's class; what took longer than `VALIDATION_TIMEOUT_MS` is
# ignored. All that a block can meet:

# | codes | class | verdict | points |
# | --- | --- | --- | --- |
# | `networking/block-size` `networking/topic` `encoding/undecodable` `body/root` `work/trace-digest` | Malformed | reject | 25 |
# | `header/version` `body/transactions-not-active` `header/parent` `header/height` `header/median-time` | Invalid | reject | 50 |
# | `difficulty/target` `difficulty/period-not-forward` `work/l-hat` `work/trace-length` `state/root` | Invalid | reject | 50 |
# | `fork-choice/known-invalid` `fork-choice/invalid-ancestor` | Invalid | reject | 50 |
# | `work/trace` `work/loss` | Invalid | reject | 100 |
# | `header/future` `fork-choice/unknown-parent` `fork-choice/too-many-headers` | NotYet | ignore | 0 |
# | `fork-choice/parent-not-replayed` `fork-choice/lighter` `block/model-missing` | NotYet | ignore | 0 |


def get_verdict(error: SpecError | None) -> Verdict:
    """Return what becomes of a message that broke a rule, or none: forward it, blame for it, or drop it."""
    if error is None:
        return Verdict.ACCEPT
    return Verdict.REJECT if isinstance(error, Invalid | Malformed) else Verdict.IGNORE


# ### `get_penalty`

# The same for gossip, requests and responses.


def get_penalty(error: SpecError | None) -> int:
    """Return the points that a broken rule costs its sender; `BAN_SCORE` bans at once."""
    if isinstance(error, Invalid):
        return BAN_SCORE if error.code in FALSE_WORK else INVALID_PENALTY
    return MALFORMED_PENALTY if isinstance(error, Malformed) else 0


# ## Answering

# A node answers every request that a token was left for:

# - **Status** with its own. Both sides compare network ids, then fork ids by `check_fork_id`, and again when the own head
#   passes an upgrade: what does not fit is answered `OTHER_NETWORK` or `OTHER_RULES`, and ends with a `Goodbye`.
# - **Headers** from its chain, genesis to head: the first hash of the locator that lies on it, in the locator's order, is
#   the common block, and its successors follow in ascending order, until `stop` has been included, `count` is reached or
#   the head is. None if the common block is the head. Headers are never pruned.
# - **Blocks** that it holds, in the order of the request; of its chain it holds all from `bodies_from` on. It never
#   passes on as a block what it did not replay. It may answer a part, but at least one hash.

# ### `compute_locator_heights`

# The heights of the asker's best chain of headers at which it takes the locator's hashes.


def compute_locator_heights(height: Height) -> list[Height]:
    """Return the heights of a locator from `height` down: ten in a row, then ever wider apart, genesis last."""
    heights: list[Height] = []
    step = 1
    while height > 0 and len(heights) < MAX_LOCATOR - 1:
        heights.append(height)
        step *= 1 if len(heights) < LOCATOR_DENSE else 2
        height -= step
    return [*heights, 0]


# ### `check_headers_request`


def check_headers_request(request: HeadersRequest) -> None:
    """Refuse a request that cannot be answered.

    Raises:
        Malformed: `networking/headers-request`.
    """
    if not request.locator or not 1 <= request.count <= MAX_HEADERS:
        asked = f"{request.count} headers after one of {len(request.locator)} blocks"
        raise Malformed("networking/headers-request", f"{asked}: give a locator, and a count of 1..{MAX_HEADERS}")


# ### `check_headers`


def check_headers(request: HeadersRequest, headers: Headers) -> None:
    """Refuse headers that do not answer a request: too many, not linked, not from the locator on, or past `stop`.

    Raises:
        Malformed: `networking/headers-response`.
    """
    hashes = [compute_block_hash(header) for header in headers.headers]
    parents = [header.core.parent_hash for header in headers.headers]
    joined = not parents or parents[0] in request.locator
    if len(hashes) > request.count or not joined or parents[1:] != hashes[:-1] or request.stop in hashes[:-1]:
        raise Malformed("networking/headers-response", f"{len(hashes)} headers are not what was asked for")


# ### `check_blocks_request`


def check_blocks_request(request: BlocksRequest) -> None:
    """Refuse a request for nothing, or for a block twice.

    Raises:
        Malformed: `networking/blocks-request`.
    """
    asked, distinct = len(request.hashes), len(set(request.hashes))
    if asked == 0 or distinct < asked:
        raise Malformed("networking/blocks-request", f"{asked} hashes, {distinct} distinct: ask for each block once")


# ### `is_subsequence`


def is_subsequence(part: Iterable[Hash32], whole: Sequence[Hash32]) -> bool:
    """Whether `part` is `whole` with some items, or none, left out."""
    rest = iter(whole)
    return all(item in rest for item in part)


# ### `check_blocks`


def check_blocks(request: BlocksRequest, blocks: Blocks) -> None:
    """Refuse blocks that do not answer a request: not asked for, out of order, given and lacking, or nothing.

    Raises:
        Malformed: `networking/blocks-response`.
    """
    given = [compute_block_hash(block.header) for block in blocks.blocks]
    ordered = is_subsequence(given, request.hashes) and is_subsequence(blocks.lacking, request.hashes)
    if not ordered or set(given) & set(blocks.lacking) or not (given or blocks.lacking):
        found = f"{len(given)} blocks and {len(blocks.lacking)} lacking"
        raise Malformed("networking/blocks-response", f"{found} do not answer for {len(request.hashes)} hashes")


# ## Synchronising

# 1. **Status.** Whoever dials asks first, and both ask again every `STATUS_INTERVAL_MS`. A peer that claims more work
#    than the node's head has is asked for headers; so is the sender of a block or header without a known parent.
# 2. **Headers.** With the locator of the node's best chain of headers, then from the last header on, until fewer come
#    than were asked for. Each goes through `receive_header`; at `fork-choice/too-many-headers` asking pauses until
#    replays have made room. A claim is free, so several peers are asked, and the first answer that brings something new
#    wins: who made good on a claim is asked first, who failed to is asked last and after ever longer pauses, and the size
#    of a claim decides nothing. A peer whose heads bring nothing new, `MAX_FRUITLESS` times in a row, is useless:
#    `USELESS`, and the connection ends.
# 3. **Sample.** Of a segment of more than `SAMPLE_BLOCKS` headers to replay, or one whose blocks nobody serves, that many
#    are replayed first, drawn by local randomness, each with a probability in proportion to its work. A header decides its
#    quiz and commits to loss and trace, so neither state nor block is needed. One that is false is `on_invalid`, and its
#    sender is banned before the real prefix under a forged tail has been replayed. A branch whose sender has left is not
#    sampled but forgotten: there is no budget to charge, and who still has it sends it again.
# 4. **Blocks** of the heaviest claimed branch, ascending, `MAX_BLOCKS` a request, from any peers, each through
#    `receive_block`. Work counts only now. The blocks of a lighter branch are asked for again when it gets heavier. While
#    a branch's blocks cannot be had, others are tried, and mining goes on: who holds back one block must not stop it.

# With `--assume-valid HASH` a node skips `replay_block`, and nothing else, for HASH and its ancestors, once HASH is on its
# heaviest chain of headers. It blames nobody for what it skipped, does not serve those blocks, and names their height as
# `assumed`. A node that prunes keeps at least its last 288 blocks. If nobody serves the blocks of a heavier branch, it
# stays on its own and says so.

# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `networking/frame-length` | Malformed | a frame is longer than its message can be |
# | `networking/response` | Malformed | an empty response, an unknown result, or bytes behind a refusal |
# | `networking/refused` | NotYet | the peer answered with another result than `OK` |
# | `networking/headers-request` | Malformed | an empty locator, or a count of 0 or above 512 |
# | `networking/headers-response` | Malformed | headers that do not answer the request |
# | `networking/blocks-request` | Malformed | no hash, or one twice |
# | `networking/blocks-response` | Malformed | blocks that do not answer the request, or no answer at all |
# | `networking/block-size` | Malformed | a gossip message is larger than any block of its topic's rules |
# | `networking/topic` | Malformed | a block on the topic of other rules than those of its height |

# ## Rationale

# - **Lengths, not half-closed streams.** Libraries differ in what the end of a stream looks like, and a reset can look
#   the same; a length cannot be misread, and lets a reader refuse before it reads.
# - **SHA-256 for message ids.** They name messages between hosts, nothing of the chain depends on them, and every
#   libp2p has it. The default id, sender and sequence number, does not exist without signatures.
# - **Penalties follow the class**, so that a new rule needs no new number. Only false work has its own: it is the one
#   fault that costs more to find than to make.
# - **`fork-choice/known-invalid` is blamed like any fault.** Blocks are forwarded after the replay only, so an honest peer
#   has found what this node found.
# - **NotYet costs nothing**, or a clock that is off and a peer that is ahead would be punished. What it could be abused
#   for is bounded by rates and by the limits of the page [fork-choice](fork-choice.md).
# - **Failed replays are counted by address prefix**, because a ban only ends a peer id. A true block costs nothing, so
#   neighbours of a forger lose only while his budget is spent, and get the same blocks from others.
