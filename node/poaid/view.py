"""What the outside may see of a running node: the one interface between the node and its HTTP server.

Every number that can pass 2^53 is a decimal string, every hash and address lowercase hexadecimal with 0x, every time
milliseconds since 1970, as in the conformance vectors.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict

from poai_spec.notation import Address, Height

if TYPE_CHECKING:
    import trio

Activity = Literal["mining", "syncing", "stalled", "idle"]


class SyncView(TypedDict):
    """How far a node is behind what its peers claim."""

    height: int  # last replayed block of the branch that is followed
    goal: int  # height of the branch's claimed tip
    blocks_left: int
    seconds_left: float | None  # at the rate measured so far; None before there is one


class StatusView(TypedDict):
    """`/status`."""

    version: str
    network: str  # a preset's name or a file's stem
    network_id: str
    profile: str
    model: str
    activity: Activity
    reason: str | None  # why it is not mining; None while it is
    height: int
    head: str
    head_time: int
    genesis: str
    work: str
    target: str  # 0x..., of the block that is being mined
    epoch: int
    spacing: int  # intended ms between blocks
    miner: str
    balance: str  # wei
    quizzes_per_second: float
    peer_count: int
    peer_id: str | None  # None: no network
    addresses: list[str]  # multiaddrs, with the peer id
    mined: int  # own blocks since the start, wherever they are now
    reorgs: int  # head changes since the start that left a block behind
    side_blocks: int  # replayed blocks that are not ancestors of the head
    orphans: int
    waiting: int  # headers that passed every check but the replay
    bodies_from: int  # lowest height from which every body is stored, 1 unless pruned
    assumed: int  # blocks that were not replayed, by --assume-valid
    sync: SyncView | None
    uptime: float  # seconds


class BlockView(TypedDict):
    """A block in lists and at `/blocks/ID`."""

    height: int
    hash: str
    parent: str
    time: int
    target: str
    work: str  # of this block
    miner: str
    subsidy: str  # wei
    nonce: str
    loss: int  # bits in Q16
    l_hat: str | None  # None for genesis
    trace_digest: str
    state_root: str
    quiz: str | None  # the quiz's name; None for genesis
    replayed: bool
    on_chain: bool  # an ancestor of the head, or the head
    has_body: bool
    received: int | None  # when this process first had the whole block; None if before its start


class ScoredTokenView(TypedDict):
    """A token whose loss counts."""

    position: int
    text: str
    token: int
    loss: int | None  # bits in Q16; None while not computed
    answer: bool  # whether it belongs to an answer; False for one that fills up


class QuizView(TypedDict):
    """`/quiz/HEIGHT`."""

    height: int
    hash: str
    name: str
    text: str  # everything the model reads, cut where the quiz is cut
    answers: list[str]
    scored: list[ScoredTokenView]
    loss: int  # the header's, bits in Q16
    pieces: NotRequired[list[str]]  # text of every token that the model reads, the salt included, by position


class AccountView(TypedDict):
    """`/address/ADDRESS`."""

    address: str
    balance: str  # wei
    nonce: int
    blocks: int  # of the chain that it mined


class PeerView(TypedDict):
    """An element of `/peers`."""

    peer_id: str
    address: str
    outbound: bool
    height: int | None  # as it last said; None before its status
    work: str | None
    score: float
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
