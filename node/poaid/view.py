"""What the outside may see of a running node: the one interface between the node and its HTTP server.

Every number that can pass 2^53 is a decimal string, every hash and address lowercase hexadecimal with 0x, every time
milliseconds since 1970, as in the conformance vectors.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict

from poai_spec.basics.notation import Address, Height

if TYPE_CHECKING:
    import trio

Activity = Literal["mining", "syncing", "stalled", "idle"]


class SyncView(TypedDict):
    """How far a node is behind what its peers claim."""

    height: int  # last replayed block of the branch that is followed
    goal: int  # height of the branch's claimed tip
    blocks_left: int  # to be replayed
    seconds_left: float | None  # at the rate measured so far; null before there is one


class HealthView(TypedDict):
    """`/health`: the parts of the status that a supervisor decides by."""

    activity: Activity  # mining, syncing, stalled or idle
    reason: str | None  # why it is not mining; null while it is
    height: int  # of the head
    peer_count: int  # connected peers


class UpgradeView(TypedDict):
    """A change of the rules."""

    height: int  # of the first block that it holds for
    change: str  # what changes, in words
    passed: bool  # whether the head follows it
    model: str  # present, missing or hash wrong; empty where nobody looks for it now
    hint: str  # what to do if it is not present; else empty


class StatusView(TypedDict):
    """`/status`."""

    version: str  # of the program
    network: str  # a preset's name or a file's stem
    network_id: str  # 32 bytes; nodes of other ids are refused
    profile: str  # of the arithmetic
    model: str  # a pinned model's name, or a path
    activity: Activity  # mining, syncing, stalled or idle
    reason: str | None  # why it is not mining; null while it is
    height: int  # of the head
    head: str  # hash
    head_time: int  # the head's time stamp
    genesis: str  # hash
    work: str  # expected multiplications behind the head
    target: str  # 0x..., of the block that is being mined
    epoch: int  # of the block that is being mined
    spacing: int  # intended ms between blocks
    miner: str  # account that the blocks are mined for; zeros for none
    balance: str  # of that account, wei
    quizzes_per_second: float  # mined lately
    peer_count: int  # connected peers
    peer_id: str | None  # of this node; null while it has no network
    addresses: list[str]  # multiaddrs, with the peer id
    mined: int  # own blocks since the start, wherever they are now
    reorgs: int  # head changes since the start that left a block behind
    side_blocks: int  # replayed blocks that are not ancestors of the head
    orphans: int  # blocks whose parent is not known
    waiting: int  # headers that passed every check but the replay
    bodies_from: int  # lowest height from which every body is stored, 1 unless pruned
    assumed: int  # blocks that were not replayed, by --assume-valid
    sync: SyncView | None  # null while nothing is fetched
    fork: str  # 4 bytes: the rules that the head follows, as peers are told
    upgrades: list[UpgradeView]  # all that the network file plans, past and coming
    uptime: float  # seconds


class BlockView(TypedDict):
    """A block in lists and at `/blocks/ID`."""

    height: int  # 0 is genesis
    hash: str  # of the header
    parent: str  # hash
    time: int  # the header's stamp
    target: str  # 0x...
    work: str  # of this block
    miner: str  # account that got the subsidy
    subsidy: str  # wei
    nonce: str  # decimal
    loss: int  # bits in Q16
    l_hat: str | None  # what is compared with the target, 0x...; null for genesis
    trace_digest: str  # of the pass
    state_root: str  # of all accounts after this block
    quiz: str | None  # the quiz's name; null for genesis
    replayed: bool  # whether this node ran the pass itself
    on_chain: bool  # an ancestor of the head, or the head
    has_body: bool  # false where it was pruned
    received: int | None  # when this process first had the whole block; null if before its start


class ScoredTokenView(TypedDict):
    """A token whose loss counts."""

    position: int  # in the quiz
    text: str  # as the model's vocabulary has it
    token: int  # id
    loss: int | None  # bits in Q16; null while not computed
    answer: bool  # whether it belongs to an answer; false for one that fills up


class QuizView(TypedDict):
    """`/quiz/HEIGHT`."""

    height: int  # of the block
    hash: str  # of the block
    name: str  # eight groups of the salt
    text: str  # everything the model reads, cut where the quiz is cut
    answers: list[str]  # one for each question
    scored: list[ScoredTokenView]  # tokens whose loss counts
    loss: int  # the header's, bits in Q16
    pieces: NotRequired[list[str]]  # text of every token that the model reads, the salt included, by position


class AccountView(TypedDict):
    """`/address/ADDRESS`."""

    address: str  # lowercase
    balance: str  # wei
    nonce: int  # transactions sent
    blocks: int  # of the chain that it mined


class PeerView(TypedDict):
    """An element of `/peers`."""

    peer_id: str  # of libp2p
    address: str  # multiaddr, without the peer id
    outbound: bool  # whether this node dialled
    height: int | None  # as it last said; null before its status
    work: str | None  # as it last said
    score: float  # 0, or less after faults: a ban comes at a limit
    proven: bool  # has delivered a block that was replayed and true
    connected: float  # seconds


class Event(NamedTuple):
    """Something that the page shows at once: `head` (a BlockView), `status` (a StatusView), `quiz` (a QuizView)."""

    name: str
    data: Any


class NodeView(Protocol):
    """A node as its HTTP server sees it. Methods without `await` take well under a millisecond."""

    def get_status(self) -> StatusView: ...

    def get_block(self, reference: str) -> BlockView | None:
        """Return a block by height, 0x-hash or `head`; None if it is not known, also for text that is neither."""
        ...

    def list_blocks(self, top: Height | None, count: int) -> list[BlockView]:
        """Return blocks of the chain, descending from `top` (None: the head), at most `count`."""
        ...

    async def get_quiz(self, height: Height) -> QuizView | None:
        """Return the quiz of a block of the chain; its losses may need a forward pass, which waits for its turn."""
        ...

    def get_account(self, address: Address) -> AccountView: ...

    def get_peers(self) -> list[PeerView]: ...

    def subscribe(self) -> "trio.MemoryReceiveChannel[Event]":
        """Return a bounded channel of events; one who does not read in time loses the oldest, and close ends it."""
        ...
