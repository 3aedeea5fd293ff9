"""Blocks of a chain file to the chain: every rule is checked and every block replayed, in batches.

The headers are read ahead, as many as the tree lets one sender have in waiting, so that the fork choice knows how much
work the file's chain claims before the first of its blocks is replayed. Blocks are accepted one by one and in order: at
a fault all that came before it is stored.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from poai_spec.basics.containers import Block
from poai_spec.basics.encoding import decode
from poai_spec.basics.notation import Height, Invalid, Milliseconds, SpecError
from poai_spec.chain.block import Judge
from poai_spec.model.engine import Evaluation
from poai_spec.proof.work import check_evaluation
from poaid.chain.chain_file import FileRecord
from poaid.chain.chain_state import NOBODY, ChainState
from poaid.chain.evaluation import Task, evaluate, get_entry_quiz
from poaid.chain.tree import Entry
from poaid.chain.verify import BATCH_BLOCKS, BlockError
from poaid.errors import NodeError
from poaid.layout import split_block


class _Waiting(NamedTuple):
    entry: Entry
    record: FileRecord


class ChainImport:
    """Takes the blocks of a file into a chain.

    Args:
        chain: the chain.
        judge: its network's.
        get_time: the local clock, ms since 1970.
        report: called with the height and the place in the file of each block that is done with.

    Attributes:
        new: blocks that were accepted.
        known: blocks that were there.
    """

    def __init__(
        self,
        chain: ChainState,
        judge: Judge,
        get_time: Callable[[], Milliseconds],
        report: Callable[[Height, int], None] = lambda *_: None,
    ) -> None:
        self._chain, self._judge, self._get_time, self._report = chain, judge, get_time, report
        self._last = chain.tree.genesis
        self._waiting: deque[_Waiting] = deque()
        self.new = self.known = 0

    def run(self, records: Iterator[FileRecord]) -> None:
        """Import blocks, from height 1 on, up to the first fault.

        Raises:
            BlockError: the first block that breaks a rule; those before it are stored.
            NodeError: the file's own fault, behind all blocks that could be read; or its chain has less work.
        """
        fault = self._read_ahead(records)
        while self._waiting:
            batch = list(islice(self._waiting, BATCH_BLOCKS))
            evaluations = self._evaluate(batch)
            for evaluation in evaluations:
                self._accept(self._waiting.popleft(), evaluation)
                fault = fault or self._read_ahead(records)  # the tree has room for one more
        if fault is not None:
            raise fault

    def _read_ahead(self, records: Iterator[FileRecord]) -> NodeError | None:
        """Keep headers while there is room; return the fault at which the file cannot be read on."""
        while not self._chain.tree.is_full(NOBODY):
            try:
                record = next(records, None)
                if record is None:
                    return None
                self._receive(record)
            except NodeError as error:
                return error
        return None

    def _receive(self, record: FileRecord) -> None:
        """Check a header and keep it, or count the block as known."""
        height, tree = self._last.height + 1, self._chain.tree
        tree.tick(self._get_time())
        try:
            entry = tree.receive_header(split_block(record.data)[0], NOBODY)
        except SpecError as error:
            raise BlockError(height, error) from error
        if entry is None or entry.parent is not self._last:
            raise NodeError(f"block {height} in the file does not stand on the block before it: the file is damaged")
        self._last = entry
        if entry.replayed:
            self.known += 1
            self._report(height, record.end)
        else:
            self._waiting.append(_Waiting(entry, record))

    def _evaluate(self, batch: Sequence[_Waiting]) -> list[Evaluation]:
        """Run the model for a batch; for its first block alone if some quiz of it has no loss (profile llama.cpp)."""
        try:
            tasks = [Task(waiting.entry.height, get_entry_quiz(waiting.entry, self._judge)) for waiting in batch]
            return evaluate(self._judge, tasks)
        except SpecError as error:  # a quiz without a loss, or a model that is not at hand
            if len(batch) == 1:
                raise BlockError(batch[0].entry.height, error) from error
        return self._evaluate(batch[:1])

    def _accept(self, waiting: _Waiting, evaluation: Evaluation) -> None:
        """Apply every rule in the order of the page `block`, and store what passes."""
        entry, record = waiting
        self._chain.tree.tick(self._get_time())
        try:
            block = decode(Block, record.data)
            checked = self._chain.check_block(block, record.data, NOBODY)
            assert checked is not None, "it was not replayed when it was received, and nobody else writes"
            try:
                check_evaluation(evaluation, block.header, block.trace)
            except Invalid as error:
                self._chain.refuse(checked, error)
                raise
            self._chain.accept(checked)
        except SpecError as error:
            if error.code == "fork-choice/lighter":
                work = f"the chain in the file has less work than this one, which it leaves before block {entry.height}"
                raise NodeError(f"{work}: nothing of it is needed") from error
            raise BlockError(entry.height, error) from error
        self.new += 1
        self._report(entry.height, record.end)
