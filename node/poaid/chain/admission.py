"""Blocks from anywhere to the chain: checked, replayed in the verifier's thread, and accepted."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from poai_spec.basics.containers import Block, compute_block_hash
from poai_spec.basics.encoding import decode
from poai_spec.basics.notation import Hash32, Height, Malformed, Milliseconds, SpecError
from poai_spec.chain.block import Judge, Model, get_model, replay_block
from poai_spec.chain.networking import check_gossip_size
from poai_spec.chain.upgrades import Rules
from poai_spec.model.engine import Evaluation
from poai_spec.proof.work import MemoEngine, check_evaluation
from poaid.chain.chain_state import NOBODY, ChainState, Checked, HeadChange
from poaid.chain.tree import Branch, Entry
from poaid.chain.worker import Turn, Verifier
from poaid.metrics import Metrics, Source

T = TypeVar("T")

MAX_REMEMBERED = 512
"""Blocks whose losses and time of arrival are kept for people: the page shows twenty."""


class BusyError(Exception):
    """The model does not run for this peer now: its address prefix has used up its time."""


@dataclass(frozen=True)
class Sender:
    """Whom a block comes from.

    Attributes:
        key: the identity that the fork choice's limits count by.
        turn: its place in the verifier.
        may_replay: whether the model may run for it now.
        charge: told how many seconds it ran in vain.
    """

    key: bytes = NOBODY
    turn: Turn = Turn.PROVEN
    may_replay: Callable[[], bool] = lambda: True
    charge: Callable[[float], None] = lambda _: None


class Importer:
    """The one way into the chain.

    Args:
        chain: the chain.
        judge: the network's.
        verifier: runs the model.
        metrics: counts.
        get_time: the local clock, ms since 1970.

    Attributes:
        get_time: as given.
        busy: blocks that are being admitted, by hash, and what ends when they are.
        on_head: called with every change of the head.
        nlls: losses of the scored tokens of the last blocks, bits in Q16, by block hash.
        received: when the last blocks were here whole, ms since 1970, by block hash.
    """

    def __init__(
        self,
        chain: ChainState,
        judge: Judge,
        verifier: Verifier,
        metrics: Metrics,
        get_time: Callable[[], Milliseconds],
    ) -> None:
        self.chain, self.judge, self.verifier, self.metrics, self.get_time = chain, judge, verifier, metrics, get_time
        self._memos: dict[Height, MemoEngine] = {}
        self.busy: dict[Hash32, trio.Event] = {}
        self.on_head: list[Callable[[HeadChange], None]] = []
        self.nlls: dict[Hash32, tuple[int, ...]] = {}
        self.received: dict[Hash32, Milliseconds] = {}

    def tick(self) -> None:
        """Set the clock that headers are compared with."""
        self.chain.tree.tick(self.get_time())

    def has_model(self, entry: Entry) -> bool:
        """Tell whether a block can be judged: the model of its height is loaded."""
        return self.chain.tree.get_rules(entry.height).since in self.judge.models

    def check_size(self, data: bytes, rules: Rules) -> None:
        """Refuse what is too large for a block of some rules, before it waits for anything.

        Raises:
            Malformed: `networking/block-size`.
        """
        try:
            check_gossip_size(data, rules)
        except Malformed as error:
            self.metrics.block_rejected(error)
            raise

    async def import_block(
        self, data: bytes, sender: Sender, source: Source, evaluation: Evaluation | None = None
    ) -> bool:
        """Take a block in; return whether it counts from now on.

        Args:
            data: its encoding.
            sender: whom it comes from.
            source: for the metrics.
            evaluation: what the model gives for its header, where that is known; else the model runs.

        Returns:
            False for a block that counted before, or whose header had to make room for others during the replay.

        Raises:
            SpecError: the first rule that it breaks; what follows for the tree has been done.
            BusyError: its sender has used up its time; the block's header is kept.
            NodeError: the database cannot be written.
        """
        try:
            block = decode(Block, data)
            async with _Turnstile(self.busy, compute_block_hash(block.header)):
                while (event := self.busy.get(block.header.core.parent_hash)) is not None:
                    await event.wait()  # gossip brings a block before its parent's replay has ended
                return await self._import(block, data, sender, source, evaluation)
        except SpecError as error:
            self.metrics.block_rejected(error)
            raise

    async def _import(
        self, block: Block, data: bytes, sender: Sender, source: Source, evaluation: Evaluation | None
    ) -> bool:
        """Check, replay, accept; return whether it counts from now on."""
        start = time.perf_counter()
        self.tick()
        checked = self.chain.check_block(block, data, sender.key)
        if checked is None:
            return False
        start_of_replay = time.perf_counter()
        try:
            if evaluation is None:
                evaluation = await self.replay(checked, sender)
            else:
                check_evaluation(evaluation, block.header, block.trace)
        except SpecError as error:
            self.chain.refuse(checked, error)
            raise
        start += time.perf_counter() - start_of_replay
        self.accept(checked, evaluation)
        if checked.entry.replayed:
            self.metrics.block_imported(source)
            self.metrics.import_overhead_seconds.observe(time.perf_counter() - start)
        return checked.entry.replayed

    def accept(self, checked: Checked, evaluation: Evaluation | None) -> None:
        """Count a block whose replay was true; without an evaluation it is assumed valid.

        Raises:
            Invalid: `state/root`, of a block far from the head.
            NodeError: the database cannot be written.
        """
        start = time.perf_counter()
        change = self.chain.accept(checked, assumed=evaluation is None)
        self.metrics.db_commit_seconds.observe(time.perf_counter() - start)
        _remember(self.received, checked.entry.hash, self.get_time())
        if evaluation is not None:
            self.remember(checked.entry.hash, evaluation)
        if change is not None:
            if change.depth:
                self.metrics.reorg(change.depth)
            for notify in self.on_head:
                notify(change)

    def remember(self, block_hash: Hash32, evaluation: Evaluation) -> None:
        """Keep the losses of a block for people."""
        _remember(self.nlls, block_hash, evaluation.nlls)

    async def replay(self, checked: Checked, sender: Sender) -> Evaluation:
        """Run the model on a block at the cost of its sender; return what it gave."""

        def check() -> None:
            if not sender.may_replay():  # neighbours may have used up the time since the block came
                raise BusyError

        def settle(measured: tuple[Evaluation | SpecError, float]) -> None:
            self.metrics.replay_seconds.observe(measured[1])
            if isinstance(measured[0], SpecError):
                sender.charge(measured[1])

        judge, parent = self._get_replay_judge(checked.entry.height), checked.entry.parent
        assert parent is not None, "genesis is replayed"
        work = partial(replay_block, checked.block, Branch(parent), judge)
        check()
        result, _ = await self.verifier.do(sender.turn, partial(measure, work), check, settle)
        if isinstance(result, SpecError):
            raise result
        return result

    def _get_replay_judge(self, height: Height) -> Judge:
        """Return the judge whose engine, for the rules of a height, remembers what it replayed.

        Raises:
            NotYet: `block/model-missing`.
        """
        rules = self.chain.tree.get_rules(height)
        model = get_model(self.judge, rules)
        memo = self._memos.get(rules.since)
        if memo is None or memo.engine is not model.engine:
            memo = self._memos[rules.since] = MemoEngine(model.engine)
        return Judge(self.judge.config, self.judge.upgrades, {rules.since: Model(model.questions, memo)})


def measure(work: Callable[[], T]) -> tuple[T | SpecError, float]:
    """Run the model and time it, whether what it is asked about is true or not."""
    start = time.perf_counter()
    result: T | SpecError
    try:
        result = work()
    except SpecError as error:
        result = error
    return result, time.perf_counter() - start


def _remember(kept: dict[Hash32, T], key: Hash32, value: T) -> None:
    kept[key] = value
    while len(kept) > MAX_REMEMBERED:
        del kept[next(iter(kept))]


class _Turnstile:
    """An async context that only one holder of a key is in at a time."""

    def __init__(self, busy: dict[Hash32, trio.Event], key: Hash32) -> None:
        self.busy, self._key = busy, key

    async def __aenter__(self) -> None:
        while (event := self.busy.get(self._key)) is not None:
            await event.wait()
        self.busy[self._key] = trio.Event()

    async def __aexit__(self, *_: object) -> None:
        self.busy.pop(self._key).set()
