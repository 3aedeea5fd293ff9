"""Replay a data directory from genesis: every stored byte is checked by the specification's own functions.

The rules are those of the page `block`, in its order. Only the replays are taken together in batches, because an engine
is faster that way; a fault in a replay is still reported before any fault of a later block.
"""

from collections.abc import Callable

from poai_spec.block import Judge, check_contents, make_genesis, process_block
from poai_spec.containers import Block, Header, compute_block_hash
from poai_spec.encoding import decode
from poai_spec.header import check_header_alone, check_header_in_chain
from poai_spec.notation import Hash32, Height, Milliseconds, NotYet, SpecError
from poai_spec.quiz import Quiz
from poai_spec.state import State
from poai_spec.work import check_evaluation, get_quiz
from poaid.errors import NodeError
from poaid.store import Store

BATCH_BLOCKS = 16


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


def verify_store(store: Store, judge: Judge, now: Milliseconds, report: Callable[[Height], None]) -> State:
    """Check every block of a store and the stored accounts.

    Args:
        store: the data directory.
        judge: its network, questions and model.
        now: the local clock, ms since 1970.
        report: called with the height of each block that passed.

    Returns:
        The accounts after the last block.

    Raises:
        BlockError: the first block that breaks a rule.
        NodeError: the index or the stored accounts do not match the blocks.
    """
    replay = _Replay(judge, now, report)
    try:
        for height, block_hash, data in store.read_blocks():
            replay.add(height, block_hash, data)
    finally:
        replay.flush()  # a fault in an earlier block's replay comes first, also when a later block has just failed
    _check_accounts(store, replay.state)
    return replay.state


class _Replay:
    """A chain that grows block by block; replays wait until a batch is full."""

    def __init__(self, judge: Judge, now: Milliseconds, report: Callable[[Height], None]) -> None:
        self.judge, self.now, self.report = judge, now, report
        self.chain: list[Header] = [make_genesis(judge.config).header]
        self.state: State = {}
        self.pending: list[tuple[Block, Hash32, Quiz]] = []

    def add(self, height: Height, block_hash: Hash32, data: bytes) -> None:
        """Apply every rule but the replay to the next stored block."""
        if height != len(self.chain):
            raise NodeError(f"block {len(self.chain)} is missing from the store, which goes on with block {height}")
        config = self.judge.config
        try:
            block = decode(Block, data)
            check_header_alone(block.header)
            check_header_in_chain(block.header, self.chain, config, self.now)
            check_contents(block, config)
            self.state = process_block(self.state, block)
        except SpecError as error:
            raise BlockError(height, error) from error
        self.pending.append((block, block_hash, get_quiz(block.header.core, self.chain, config, self.judge.questions)))
        self.chain.append(block.header)
        if len(self.pending) == BATCH_BLOCKS:
            self.flush()

    def flush(self) -> None:
        """Replay the blocks that wait, and compare what passes with the index."""
        pending, self.pending = self.pending, []
        quizzes = [quiz for _, _, quiz in pending]
        evaluations = self.judge.engine.evaluate([q.tokens for q in quizzes], [q.scored for q in quizzes])
        for (block, block_hash, _), evaluation in zip(pending, evaluations, strict=True):
            height = block.header.core.height
            try:
                check_evaluation(evaluation, block.header, block.trace)
            except SpecError as error:
                raise BlockError(height, error) from error
            if compute_block_hash(block.header) != block_hash:
                raise NodeError(f"block {height} is valid, but the index has another hash for it: {block_hash.hex()}")
            self.report(height)


def _check_accounts(store: Store, state: State) -> None:
    stored = store.read_state()
    for address in sorted(stored.keys() | state.keys()):
        if stored.get(address) != state.get(address):
            raise NodeError(f"the blocks are valid, but the stored account 0x{address.hex()} is not what they give")
