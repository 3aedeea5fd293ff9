"""Catching up: headers first, checked by all that needs no model; then a sample of replays; then the blocks in order.

The heaviest waiting branch is followed (`BlockTree.get_heaviest_waiting`), and peers that claim more work than the
chain has are asked for headers, several at a time: claims are free, and who stays silent costs a second. A header alone
decides its quiz, loss and trace digest, so a few headers, drawn by local chance in proportion to their work over the
whole claimed segment, are replayed before any block is fetched: a cheap true beginning under a forged heavy end is
caught at once. Page: `networking`, Synchronising.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, takewhile
from typing import TypeVar

import structlog
import trio

from poai_spec.basics.containers import Block, compute_block_hash
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Hash32, Invalid, Malformed, NotYet, SpecError
from poai_spec.basics.parameters import UINT256_MAX
from poai_spec.chain.block import check_contents
from poai_spec.chain.networking import (
    BLOCKS_PROTOCOL,
    HEADERS_PROTOCOL,
    MAX_BLOCKS,
    MAX_BLOCKS_BYTES,
    MAX_FRUITLESS,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    RESULT_BYTES,
    SAMPLE_BLOCKS,
    Blocks,
    BlocksRequest,
    Headers,
    HeadersRequest,
    Reason,
    check_blocks,
    check_headers,
    decode_response,
)
from poai_spec.model.engine import Evaluation
from poaid.chain.admission import BusyError, Importer, Sender, measure
from poaid.chain.chain_state import ChainState
from poaid.chain.evaluation import Task, evaluate, get_entry_quiz
from poaid.chain.tree import Entry
from poaid.chain.verify import check_replay
from poaid.layout import encode_header
from poaid.net.handlers import PeerError
from poaid.net.peers import PAUSE_S, Peer, Peers
from poaid.produce.attempts import choose_batch_size
from poaid.view import SyncView

IDLE_S = 5.0
"""Pause while nothing can be done; news of any peer end it."""
EXPIRY_S = 600.0
"""How long a waiting branch is kept whose blocks nobody serves: ten times the interval of status messages."""
MAX_ASKED = 8
"""Peers that are asked for the same at once, at most: a sixth of the strangers that may be connected. The answers of
eight have 0.9 MB of headers."""
HEAD_START_S = 1.0
"""How long a peer is waited for before the next one is asked, too: 512 headers come in it at 0.9 Mbit/s. On a slower
line the first, which had the line for itself at first, still ends in time at 0.3 Mbit/s with eight at once."""
MAX_GOALS = 4
"""Branches that are tried, the heaviest first, when the blocks of one cannot be had."""
HEADERS_A_TURN = 64
"""Headers that are kept before other tasks have their turn: 3 ms, of `poaid.net.handlers.TURN_BUDGET_S`."""
RATE_WINDOW_S = 30.0
"""The time over which the speed of the replay is measured."""

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """How sync reaches peers: the node's request with its bookkeeping.

    Attributes:
        request: peer, protocol, payload, most bytes of the response; returns the response's payload.
        blame: a peer broke a rule.
        sender: a peer as the importer sees it.
        part: say goodbye to a peer.
    """

    request: Callable[[Peer, str, bytes, int], Awaitable[bytes]]
    blame: Callable[[str, SpecError], None]
    sender: Callable[[Peer], Sender]
    part: Callable[[str, Reason], None]


@dataclass(eq=False)
class _Asking:
    """Some peers are being asked for headers; `successful` once any of them has brought new ones."""

    ended: trio.Event = field(default_factory=trio.Event)
    successful: bool = False


class Sync:
    """Brings the chain to the heaviest branch that can be had.

    Args:
        importer: takes the blocks.
        peers: whom to ask.
        ask: how.
        assume_valid: hash of a block whose ancestors need no replay.

    Attributes:
        batch: blocks that are asked for and replayed together.
    """

    def __init__(self, importer: Importer, peers: Peers, ask: Ask, assume_valid: Hash32 | None = None) -> None:
        self._importer, self._peers, self._ask, self._assume_valid = importer, peers, ask, assume_valid
        self._wake = trio.Event()
        self._sampled: dict[Hash32, Evaluation] = {}
        self._sampled_ends: dict[Hash32, None] = {}
        self._unserved: dict[Hash32, float] = {}
        self.batch = 1
        self._replayed: list[tuple[float, int]] = []
        self._asked = set[str]()  # for headers, and have not answered yet
        self.goal: Entry | None = None
        self.stalled = False
        self.on_progress: Callable[[], None] = lambda: None

    @property
    def _chain(self) -> ChainState:
        return self._importer.chain

    def wake(self) -> None:
        """Look again: a peer has come, has told its head, or has sent a header whose block is missing."""
        self._wake.set()

    def get_view(self) -> SyncView | None:
        """Return how far it is; None while nothing is missing."""
        goal = self.goal
        if goal is None or goal.replayed:
            return None
        height, rate = goal.get_replayed_ancestor().height, self._get_rate()
        left = goal.height - height
        return {
            "height": height,
            "goal": goal.height,
            "blocks_left": left,
            "seconds_left": left / rate if rate else None,
        }

    async def run(self) -> None:
        """Follow the heaviest branch, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                if await self.step(nursery):
                    await trio.lowlevel.checkpoint()
                    continue
                with trio.move_on_after(IDLE_S):
                    await self._wake.wait()

    async def step(self, nursery: trio.Nursery) -> bool:
        """Do one thing that helps; return whether there was any."""
        self._expire()
        if await self._look_for_headers(nursery):
            return True
        goals = list(islice(self._chain.tree.iterate_heaviest_waiting(), MAX_GOALS))
        for goal in goals:
            if goal.hash in self._chain.tree.entries and not goal.replayed:  # still, gossip goes on meanwhile
                self.goal = goal
                if await self.fetch_blocks(goal):
                    self.stalled = False
                    return True
        self.goal = None
        self.stalled = any(goal.work > self._chain.head.work and goal.hash in self._unserved for goal in goals)
        return False

    # Headers.

    async def _look_for_headers(self, nursery: trio.Nursery) -> bool:
        """Ask for headers; return whether any came at once. Blocks do not wait for the rest, which goes on aside."""
        claimants = [peer for peer in self.choose_for_headers() if peer.peer_id not in self._asked]
        claimants = claimants[: MAX_ASKED - len(self._asked)]
        if not claimants:
            return False
        patience = 0.0 if self._asked else HEAD_START_S
        asking = _Asking()
        self._asked.update(peer.peer_id for peer in claimants)
        nursery.start_soon(self._ask_for_headers, claimants, asking)
        with trio.move_on_after(patience):
            await asking.ended.wait()
        return asking.successful

    async def _ask_for_headers(self, claimants: Sequence[Peer], asking: _Asking) -> None:
        asking.successful = await race(claimants, self.fetch_headers) is not None
        self._asked.difference_update(peer.peer_id for peer in claimants)
        asking.ended.set()
        self.wake()

    def choose_for_headers(self) -> list[Peer]:
        """Return the peers whose heads are not known here and claim as much work as the chain has, or more.

        A claim costs nothing, whatever its size: who has made good on one comes first, who has failed to comes last,
        and among others chance decides.
        """
        tree, now = self._chain.tree, trio.current_time()
        found = [
            peer
            for peer in self._peers.connected.values()
            if peer.status is not None
            and peer.status.work >= tree.head.work
            and peer.status.head not in tree.entries
            and peer.status.head != peer.fruitless
            and peer.not_before <= now
        ]
        return sorted(
            found,
            key=lambda p: (p.failures, p.outrun, not p.proven, p.last_header is None, not p.outbound, _toss()),
        )

    async def fetch_headers(self, peer: Peer) -> bool:
        """Ask for the next headers and keep what passes; return whether any was new."""
        assert peer.status is not None, "chosen by it"
        claimed = peer.status.head
        start = self._chain.tree.entries.get(peer.last_header or b"", self._chain.head)
        request = HeadersRequest(tuple(self._chain.tree.make_locator(start)), bytes(32), MAX_HEADERS)
        try:
            payload = await self._ask.request(peer, HEADERS_PROTOCOL, encode(request), MAX_HEADERS_BYTES + RESULT_BYTES)
            headers = await trio.to_thread.run_sync(_read_headers, request, payload)
            new = await self._keep_headers(peer, headers)
        except (PeerError, NotYet) as error:
            _put_off(peer, error)
            return False
        except SpecError as error:
            self._ask.blame(peer.peer_id, error)
            peer.fruitless = claimed
            return False
        if claimed in self._chain.tree.entries:
            peer.failures = 0
        elif len(headers.headers) < MAX_HEADERS:  # it has no more, whatever it claims; one at a time would be endless
            peer.fruitless = claimed
            peer.fail(trio.current_time())
        if not new and claimed not in self._chain.tree.entries:
            peer.fruitless, peer.last_header = claimed, None
            peer.fruitless_in_a_row += 1
            if peer.fruitless_in_a_row == MAX_FRUITLESS:
                self._ask.part(peer.peer_id, Reason.USELESS)
        elif new:
            peer.fruitless_in_a_row = 0
        return new

    async def _keep_headers(self, peer: Peer, headers: Headers) -> bool:
        """Keep headers in order, up to the first that cannot be; return whether any was new."""
        tree, new = self._chain.tree, False
        self._importer.tick()
        for index, header in enumerate(headers.headers):
            if index % HEADERS_A_TURN == 0:
                await trio.lowlevel.checkpoint()
            known = len(tree.entries)
            entry = tree.receive_header(encode_header(header), peer.key)
            if entry is None:
                break  # its parent was dropped meanwhile, to make room
            peer.last_header = entry.hash
            new |= len(tree.entries) > known
        return new

    # Blocks.

    def _list_missing(self, goal: Entry) -> list[Entry]:
        """Return the waiting blocks from the fork to `goal`, ascending."""
        missing, entry = list[Entry](), goal
        while not entry.replayed:
            missing.append(entry)
            assert entry.parent is not None, "genesis is replayed"
            entry = entry.parent
        return missing[::-1]

    async def fetch_blocks(self, goal: Entry) -> bool:
        """Replay a sample, then fetch and import the next blocks; return whether that brought the chain forward."""
        missing = list(takewhile(self._importer.has_model, self._list_missing(goal)))
        if not missing:
            return False  # the node says which model it waits for
        if len(missing) > SAMPLE_BLOCKS and not await self._replay_sample(missing):
            return True
        wanted = missing[: min(self.batch, MAX_BLOCKS)]
        served = await race(self._choose_for_blocks(wanted[0])[:MAX_ASKED], partial(self._request_blocks, wanted))
        if served is not None:
            self._unserved.pop(goal.hash, None)
            return await self._import(served[0], wanted, served[1])
        self._unserved.setdefault(goal.hash, trio.current_time())
        return not await self._replay_sample(missing)  # a branch without blocks may be one without work

    def _choose_for_blocks(self, first: Entry) -> list[Peer]:
        """Return whom to ask for a block: who sent its header, who has proven itself, the others; who failed last."""
        now = trio.current_time()
        found = [
            peer for peer in self._peers.connected.values() if first.hash not in peer.lacking and peer.not_before <= now
        ]
        return sorted(
            found, key=lambda peer: (peer.failures, peer.outrun, peer.key != first.peer, not peer.proven, _toss())
        )

    async def _request_blocks(self, wanted: Sequence[Entry], peer: Peer) -> list[Block]:
        """Ask a peer for blocks; return those from the first on, without a gap; none after a failure."""
        request = BlocksRequest(tuple(entry.hash for entry in wanted))
        try:
            payload = await self._ask.request(peer, BLOCKS_PROTOCOL, encode(request), MAX_BLOCKS_BYTES + RESULT_BYTES)
            answer = await trio.to_thread.run_sync(_read_blocks, request, payload)
        except (PeerError, NotYet) as error:
            _put_off(peer, error)
            return []
        except SpecError as error:
            self._ask.blame(peer.peer_id, error)
            return []
        peer.add_lacking(answer.lacking)
        if len(answer.blocks) + len(answer.lacking) < len(wanted):
            peer.fail(trio.current_time())
        else:
            peer.failures = 0
        pairs = zip(wanted, answer.blocks, strict=False)
        return [block for _, block in takewhile(lambda pair: compute_block_hash(pair[1].header) == pair[0].hash, pairs)]

    async def _import(self, peer: Peer, wanted: Sequence[Entry], blocks: Sequence[Block]) -> bool:
        """Replay fetched blocks in one batch and import them in order; return whether any counted.

        The model runs for those alone whose contents are what their headers commit to, up to the first that is not: a
        failure that costs nothing to find must not come behind one that costs a pass.
        """
        pairs = list(zip(wanted, blocks, strict=False))
        whole = list(takewhile(lambda pair: self._has_its_contents(pair[1]), pairs))
        sender, start, seconds = self._ask.sender(peer), time.monotonic(), 0.0
        try:
            async with peer.conduct.replaying:  # gossip's of the same peer waits, too
                evaluations, seconds = await self._evaluate([entry for entry, _ in whole], sender)
                for entry, block in pairs[: len(whole) + 1]:  # the one that is not whole is refused without the model
                    await self._import_one(entry, block, sender, evaluations.get(entry.hash))
                    await trio.lowlevel.checkpoint()
        except BusyError:
            peer.not_before = trio.current_time() + PAUSE_S
            return False
        except SpecError as error:
            sender.charge(seconds)  # whatever the rule is: the model ran before it was asked
            self._ask.blame(peer.peer_id, error)
            return not isinstance(error, NotYet)  # a fault has changed the tree: look again
        peer.proven = True
        self.batch = min(MAX_BLOCKS, choose_batch_size(len(pairs), time.monotonic() - start, UINT256_MAX))
        self._note_rate(len(pairs))
        self.on_progress()
        return True

    def _has_its_contents(self, block: Block) -> bool:
        """Whether body and trace list are what the header commits to; the importer says what is wrong with them."""
        try:
            check_contents(block, self._chain.tree.get_rules(block.header.core.height))
        except (Invalid, Malformed):
            return False
        return True

    async def _import_one(self, entry: Entry, block: Block, sender: Sender, evaluation: Evaluation | None) -> None:
        data = encode(block)
        if evaluation is None and self._is_assumed(entry):
            checked = self._chain.check_block(block, data, sender.key)
            if checked is not None:
                self._importer.accept(checked, None)
            return
        await self._importer.import_block(data, sender, "sync", evaluation)
        self._sampled.pop(entry.hash, None)

    def _is_assumed(self, entry: Entry) -> bool:
        """Whether `--assume-valid` names a block of the heaviest known branch on top of this one."""
        named = self._chain.tree.entries.get(self._assume_valid or b"")
        if named is None or self.goal is None:
            return False
        return entry.leads_to(named) and named.leads_to(self.goal)

    # Replays.

    async def _evaluate(self, entries: Sequence[Entry], sender: Sender) -> tuple[dict[Hash32, Evaluation], float]:
        """Run the model for headers that were not replayed yet, in one batch; those assumed valid are left out.

        Returns:
            The evaluations by block hash, those of an earlier sample too, and the seconds that the model ran. None but
            the earlier ones if a quiz has no loss, which only the profile llama.cpp knows: the time is charged then.

        Raises:
            BusyError: the sender has used up its time.
        """

        def check() -> None:
            if not sender.may_replay():
                raise BusyError

        found = {entry.hash: self._sampled[entry.hash] for entry in entries if entry.hash in self._sampled}
        rest = [entry for entry in entries if entry.hash not in found and not self._is_assumed(entry)]
        if not rest:
            return found, 0.0
        judge = self._importer.judge
        tasks = [Task(entry.height, get_entry_quiz(entry, judge)) for entry in rest]
        work = partial(measure, partial(evaluate, judge, tasks))
        evaluations, seconds = await self._importer.verifier.do(sender.turn, work, check)
        if isinstance(evaluations, SpecError):
            sender.charge(seconds)
            return found, 0.0  # each is replayed by itself
        return found | {entry.hash: evaluation for entry, evaluation in zip(rest, evaluations, strict=True)}, seconds

    async def _replay_sample(self, missing: Sequence[Entry]) -> bool:
        """Replay some headers of a segment, once for each end; a false one is marked invalid.

        What is found is kept for the import, so that a sample costs nothing where the branch is true.

        Returns:
            Whether all were true.
        """
        if missing[-1].hash in self._sampled_ends or self._is_assumed(missing[-1]):
            return True
        self._sampled_ends[missing[-1].hash] = None
        works = [entry.work - (entry.parent or entry).work for entry in missing]  # without decoding a header
        drawn = {entry.hash: entry for entry in random.choices(missing, works, k=SAMPLE_BLOCKS)}  # noqa: S311
        peer = next((p for p in self._peers.connected.values() if p.key == missing[-1].peer), None)
        if peer is None:  # nobody can be charged; who still has this branch sends its headers again
            self._drop_branch(missing[-1])
            return False
        sender = self._ask.sender(peer)
        for entry in drawn.values():
            try:
                async with peer.conduct.replaying:
                    evaluations, seconds = await self._evaluate([entry], sender)
            except BusyError:
                self._drop_branch(missing[-1])  # what cannot be checked must not be waited for
                return False
            if (evaluation := evaluations.get(entry.hash)) is None:
                continue
            try:
                check_replay(entry.header, None, evaluation)  # the trace list itself has not come yet
            except Invalid as error:
                sender.charge(seconds)
                self._chain.tree.mark_invalid(entry.hash)
                self._ask.blame(entry.peer.decode("ascii"), error)
                return False
            self._sampled[entry.hash] = evaluation
        return True

    # Bookkeeping.

    def _drop_branch(self, end: Entry) -> None:
        """Forget what waits of a branch, which gossip may have replayed in part."""
        for first in self._list_missing(end)[:1]:
            self._chain.tree.drop(first)

    def _expire(self) -> None:
        """Forget waiting branches that nobody serves, and samples of blocks that are no longer waiting."""
        tree, now = self._chain.tree, trio.current_time()
        for block_hash, since in list(self._unserved.items()):
            entry = tree.entries.get(block_hash)
            if entry is None or entry.replayed:
                del self._unserved[block_hash]
            elif now - since > EXPIRY_S:
                log.warning("Nobody serves the blocks of a heavier branch: forgotten", height=entry.height)
                del self._unserved[block_hash]
                self._drop_branch(entry)
        for kept in (self._sampled, self._sampled_ends):
            for block_hash in [h for h in kept if h not in tree.entries or tree.entries[h].replayed]:
                del kept[block_hash]

    def _note_rate(self, count: int) -> None:
        now = trio.current_time()
        self._replayed.append((now, count))
        self._replayed = [(at, n) for at, n in self._replayed if now - at <= RATE_WINDOW_S]

    def _get_rate(self) -> float:
        """Return blocks a second over the last while; 0 before there is a measure."""
        if len(self._replayed) < 2:
            return 0.0
        seconds = self._replayed[-1][0] - self._replayed[0][0]
        return sum(n for _, n in self._replayed[1:]) / seconds if seconds > 0 else 0.0


async def race(peers: Sequence[Peer], ask: Callable[[Peer], Awaitable[T]]) -> tuple[Peer, T] | None:
    """Ask one peer after the other, each `HEAD_START_S` after the one before or when that one has ended.

    The first useful answer ends it; whoever was asked before that peer is asked after it the next time.

    Returns:
        The peer, and its answer, which is true as a condition; None if nobody gave any.
    """
    won: list[tuple[Peer, T]] = []
    async with trio.open_nursery() as nursery:

        async def run(peer: Peer, ended: trio.Event) -> None:
            answer = await ask(peer)
            if answer and not won:
                won.append((peer, answer))
                nursery.cancel_scope.cancel()
            ended.set()

        for peer in peers:
            ended = trio.Event()
            nursery.start_soon(run, peer, ended)
            with trio.move_on_after(HEAD_START_S):
                await ended.wait()
            if won:
                break
    if not won:
        return None
    for slow in takewhile(lambda peer: peer is not won[0][0], peers):
        slow.outrun = True
    won[0][0].outrun = False
    return won[0]


def _toss() -> float:
    """Return what decides between peers that are equal: an order that a peer could choose would be chosen."""
    return random.random()  # noqa: S311


def _put_off(peer: Peer, error: PeerError | NotYet) -> None:
    """Leave a peer alone for a while; for longer each time, unless what keeps it waiting is here."""
    if isinstance(error, PeerError) or error.code == "networking/refused":
        peer.fail(trio.current_time())
    else:
        peer.not_before = trio.current_time() + PAUSE_S


def _read_headers(request: HeadersRequest, payload: bytes) -> Headers:
    headers = decode_response(Headers, payload)
    check_headers(request, headers)
    return headers


def _read_blocks(request: BlocksRequest, payload: bytes) -> Blocks:
    blocks = decode_response(Blocks, payload)
    check_blocks(request, blocks)
    return blocks
