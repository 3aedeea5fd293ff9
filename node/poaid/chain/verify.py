"""Replay a data directory from genesis: every stored byte is checked by the specification's own functions.

The rules are those of the page `block`, in its order. Only the replays are taken together in batches, because an engine
is faster that way; a fault in a replay is still reported before any fault of a later block.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from random import Random
from typing import NamedTuple

from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import decode
from poai_spec.basics.notation import Hash32, Height, Invalid, Milliseconds, NotYet, SpecError, Work
from poai_spec.chain.block import Judge, check_contents, get_judge_rules, get_model, make_genesis, process_block
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.header import check_header_alone, check_header_in_chain
from poai_spec.chain.upgrades import Rules, get_rules
from poai_spec.execution.state import State
from poai_spec.model.engine import Evaluation
from poai_spec.model.loss import compute_trace_digest
from poai_spec.proof.difficulty import compute_work
from poai_spec.proof.quiz import Quiz
from poai_spec.proof.work import check_evaluation, get_quiz
from poaid.chain.evaluation import Task, evaluate
from poaid.errors import NodeError
from poaid.store.database import ChainRow, Database

BATCH_BLOCKS = 16
MAX_PENDING = 4_096
"""Blocks that wait while the sample that they are not part of fills a batch: 5 MB."""


class BlockError(NodeError):
    """A stored block is not valid.

    Attributes:
        height: where it lies.
        code: the rule that it breaks, as `page/rule`.
    """

    def __init__(self, height: Height, error: SpecError) -> None:
        verdict = "cannot be judged yet (check the clock):" if isinstance(error, NotYet) else "breaks the rule"
        super().__init__(f"block {height} {verdict} {error.code}: {error.detail}")
        self.height = height
        self.code = error.code


def draw_sample(store: Database, draws: int, random: Random) -> list[Height]:
    """Draw blocks of a store's chain, each time anew, in proportion to the work that they claim.

    Whoever forges a tenth of a chain's work, in few blocks or many, is missed by a draw with probability 0.9.

    Args:
        store: the data directory.
        draws: how many.
        random: unpredictable for whoever made the chain.

    Returns:
        The heights in the order of the draws; none if there is no block.
    """
    heights, sums, network = list[Height](), list[Work](), store.read_network()
    for row in store.read_chain():
        with suppress(SpecError):  # no header: `verify_store` says so
            target = decode(Header, row.header).core.target
            work = compute_work(target, get_rules(network.config, network.upgrades, row.height))
            sums.append(work + (sums[-1] if sums else 0))
            heights.append(row.height)
    return [heights[bisect_right(sums, random.randrange(sums[-1]))] for _ in range(draws if sums else 0)]


def verify_store(
    store: Database,
    judge: Judge,
    now: Milliseconds,
    report: Callable[[Height], None],
    sample: Collection[Height] | None = None,
) -> State:
    """Check every block of a store and the stored accounts.

    Args:
        store: the data directory.
        judge: its network, questions and model.
        now: the local clock, ms since 1970.
        report: called with the height of each block that passed.
        sample: heights of the blocks that are replayed; None for all. Every other rule is checked for all.

    Returns:
        The accounts after the last block.

    Raises:
        BlockError: the first block that breaks a rule.
        NodeError: the index or the stored accounts do not match the blocks.
    """
    replay = _Replay(judge, now, report, sample)
    try:
        for row in store.read_chain():
            replay.add(row)
    finally:
        replay.flush()  # a fault in an earlier block's replay comes first, also when a later block has just failed
    _check_accounts(store, replay.state)
    return replay.state


class _Pending(NamedTuple):
    """A block that waits: `trace` is None if it was pruned, `drawn` says whether it is replayed."""

    header: Header
    trace: tuple[Hash32, ...] | None
    block_hash: Hash32
    drawn: bool


class _Replay:
    """A chain that grows block by block; replays wait until a batch is full."""

    def __init__(
        self, judge: Judge, now: Milliseconds, report: Callable[[Height], None], sample: Collection[Height] | None
    ) -> None:
        self.judge, self.now, self.report, self.sample = judge, now, report, sample
        self.chain: list[Header] = [make_genesis(judge.config).header]
        self.state: State = {}
        self.pending: list[_Pending] = []
        self.tasks: list[Task] = []

    def add(self, row: ChainRow) -> None:
        """Apply every rule but the replay to the next stored block; of a pruned one, those for its header."""
        if row.height != len(self.chain):
            raise NodeError(f"block {len(self.chain)} is missing from the store, which goes on with block {row.height}")
        rules = get_judge_rules(self.judge, row.height)
        try:
            block = None if row.body is None else decode(Block, row.header + row.body)
            header = decode(Header, row.header) if block is None else block.header
            check_header_alone(header)
            check_header_in_chain(header, self.chain, rules, self.now)
            if block is not None:
                check_contents(block, rules)
            self.state = process_block(self.state, block or Block(header, EMPTY_BODY, ()))
        except SpecError as error:
            raise BlockError(row.height, error) from error
        drawn = self.sample is None or row.height in self.sample
        if drawn:
            self.tasks.append(Task(row.height, self._get_quiz(header, rules)))
        self.pending.append(_Pending(header, None if block is None else block.trace, row.block_hash, drawn))
        self.chain.append(header)
        if len(self.tasks) == BATCH_BLOCKS or len(self.pending) == MAX_PENDING:
            self.flush()

    def _get_quiz(self, header: Header, rules: Rules) -> Quiz:
        try:
            return get_quiz(header.core, self.chain, rules, get_model(self.judge, rules).questions)
        except NotYet as error:
            raise NodeError(f"block {header.core.height} cannot be replayed: {error.detail}") from error

    def flush(self) -> None:
        """Replay the blocks that wait, and compare what passes with the index."""
        pending, self.pending = self.pending, []
        tasks, self.tasks = self.tasks, []
        evaluations = iter(evaluate(self.judge, tasks))
        for header, trace, block_hash, drawn in pending:
            height = header.core.height
            try:
                if drawn:
                    check_replay(header, trace, next(evaluations))
            except SpecError as error:
                raise BlockError(height, error) from error
            if compute_block_hash(header) != block_hash:
                raise NodeError(f"block {height} is valid, but the index has another hash for it: {block_hash.hex()}")
            self.report(height)


def check_replay(header: Header, trace: Sequence[Hash32] | None, evaluation: Evaluation) -> None:
    """Compare what a header claims with what the model gives.

    Args:
        header: claims loss and trace digest.
        trace: the list that it commits to; None if it is not at hand, then the digest alone is compared.
        evaluation: the model's.

    Raises:
        Invalid: `work/trace`, `work/loss`.
    """
    if trace is None and compute_trace_digest(evaluation.trace) != header.trace_digest:
        raise Invalid("work/trace", "the header commits to another trace than the model gives")
    check_evaluation(evaluation, header, evaluation.trace if trace is None else trace)


def _check_accounts(store: Database, state: State) -> None:
    stored = store.read_state()
    for address in sorted(stored.keys() | state.keys()):
        if stored.get(address) != state.get(address):
            raise NodeError(f"the blocks are valid, but the stored account 0x{address.hex()} is not what they give")
