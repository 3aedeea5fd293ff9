"""`poaid verify --sample`: which blocks are drawn, what is still checked for all, and what is found only when drawn."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from poai_spec.basics.notation import Hash32
from poai_spec.chain.block import make_judge
from poai_spec.chain.upgrades import get_multiplications
from poai_spec.model.engine import Evaluation
from poai_spec.proof.difficulty import compute_quizzes
from poaid.chain import verify
from poaid.chain.verify import BlockError, draw_sample, verify_store
from poaid.errors import NodeError
from poaid.store.database import Database
from tests.harness.node import BLOCKS, AlteredStore, Row, Run, change, ignore, run_sql
from tests.unit.poaid.chain.test_verify import MIDDLE, false_traces, forge, make_row
from tests.unit.poaid.conftest import MinedChain

ALL = range(1, BLOCKS + 1)


class Counted(Random):
    """Gives 0, 1, 2, ... times a unit of work: as many draws as there are units take each once."""

    def __init__(self, unit: int = 1) -> None:
        super().__init__(0)
        self.next, self.unit = 0, unit

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert (stop, step) == (None, 1)
        assert 0 <= self.next < start, "a unit of the work"
        self.next += self.unit
        return self.next - self.unit


class Counting:
    """An engine that remembers how many quizzes each call had."""

    def __init__(self, mined: MinedChain) -> None:
        self._engine = mined.judge.models[0].engine
        self.profile, self.integer_model_root = self._engine.profile, self._engine.integer_model_root
        self.layer_count, self.calls = self._engine.layer_count, list[int]()

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        self.calls.append(len(tokens))
        return self._engine.evaluate(tokens, scored)

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        yield from self._engine.steps(tokens, scored)


@pytest.fixture
def altered(mined: MinedChain) -> Iterator[AlteredStore]:
    with AlteredStore.open(mined.folder) as store:
        yield store


def find_fault(store: AlteredStore, mined: MinedChain, rows: dict[int, Row], sample: Collection[int]) -> BlockError:
    store.rows = rows
    with pytest.raises(BlockError) as caught:
        verify_store(store, mined.judge, mined.now, ignore, sample)
    return caught.value


# Drawing


def test_blocks_are_drawn_in_proportion_to_their_work(mined: MinedChain, altered: AlteredStore) -> None:
    cost = get_multiplications(mined.network.get_rules())
    quizzes = {header.core.height: compute_quizzes(header.core.target) for header in mined.headers[1:]}
    assert len(set(quizzes.values())) > 2
    drawn = draw_sample(altered, sum(quizzes.values()), Counted(cost))
    assert Counter(drawn) == quizzes


def test_a_draw_may_repeat_itself(altered: AlteredStore) -> None:
    drawn = draw_sample(altered, 100, Random(7))
    assert len(drawn) == 100
    assert set(drawn) == set(ALL)


def test_nothing_is_drawn_of_an_empty_chain(mined: MinedChain, tmp_path: Path) -> None:
    with Database.create_or_open(tmp_path, mined.network, "mini") as store:
        assert draw_sample(store, 3, Random(7)) == []


def test_a_header_that_is_none_is_left_to_the_checks(mined: MinedChain, altered: AlteredStore) -> None:
    altered.rows = {5: (bytes(32), b"short")}
    drawn = set(draw_sample(altered, 100, Random(7)))
    assert drawn == set(ALL) - {5}
    assert find_fault(altered, mined, altered.rows, drawn).height == 5


# Checking


@pytest.mark.parametrize("sample", [(), (1,), (BLOCKS,), (2, 3, 7), ALL])
@pytest.mark.parametrize("pending", [1, 3, 1_000])
def test_only_drawn_blocks_are_replayed(
    mined: MinedChain, altered: AlteredStore, monkeypatch: pytest.MonkeyPatch, sample: Sequence[int], pending: int
) -> None:
    monkeypatch.setattr(verify, "MAX_PENDING", pending)
    engine, passed = Counting(mined), list[int]()
    state = verify_store(
        altered,
        make_judge(mined.judge.config, mined.judge.models[0].questions, engine),
        mined.now,
        passed.append,
        sample,
    )
    assert (sum(engine.calls), passed, state) == (len(sample), list(ALL), mined.state)


def test_replays_are_taken_together(mined: MinedChain, altered: AlteredStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BATCH_BLOCKS", 2)
    engine = Counting(mined)
    verify_store(
        altered,
        make_judge(mined.judge.config, mined.judge.models[0].questions, engine),
        mined.now,
        ignore,
        (1, 4, 5, 8),
    )
    assert [count for count in engine.calls if count] == [2, 2]


def test_a_forgery_is_found_when_it_is_drawn(mined: MinedChain, altered: AlteredStore) -> None:
    forged = forge(mined, BLOCKS, false_traces(mined.blocks[-1], 1))
    altered.rows = {BLOCKS: make_row(forged)}
    assert verify_store(altered, mined.judge, mined.now, ignore, range(1, BLOCKS)) == mined.state, "it is not drawn"
    for sample in (ALL, {BLOCKS}, {1, BLOCKS}):
        fault = find_fault(altered, mined, altered.rows, sample)
        assert (fault.height, fault.code) == (BLOCKS, "work/trace")


def test_every_other_rule_is_checked_for_every_block(mined: MinedChain, altered: AlteredStore) -> None:
    for height in ALL:
        data, sample = mined.data[height - 1], set(ALL) - {height}
        fault = find_fault(altered, mined, {height: (bytes(32), change(data, len(data) - 1, 1))}, sample)
        assert (fault.height, fault.code) == (height, "work/trace-digest")
        assert find_fault(altered, mined, {height: (bytes(32), change(data, 0, 1))}, sample).code == "header/version"
        altered.rows = {height: (bytes(32), data)}
        with pytest.raises(NodeError, match=f"^block {height} is valid, but the index has another hash"):
            verify_store(altered, mined.judge, mined.now, ignore, sample)


def test_a_replay_fault_comes_before_a_later_cheap_fault(mined: MinedChain, altered: AlteredStore) -> None:
    forged = forge(mined, MIDDLE, false_traces(mined.blocks[MIDDLE - 1], 2))
    rows: dict[int, Row] = {MIDDLE: make_row(forged), MIDDLE + 1: (bytes(32), b"")}
    assert find_fault(altered, mined, rows, {MIDDLE}).height == MIDDLE
    assert find_fault(altered, mined, rows, {1}).height == MIDDLE + 1


def test_pruned_blocks_are_drawn_too(mined: MinedChain, copy_of: Callable[[], Path]) -> None:
    folder, engine = copy_of(), Counting(mined)
    run_sql(folder, "DELETE FROM bodies")
    with Database.open(folder) as store:
        assert set(draw_sample(store, 100, Random(7))) == set(ALL)
        verify_store(
            store, make_judge(mined.judge.config, mined.judge.models[0].questions, engine), mined.now, ignore, {2, 5}
        )
    assert sum(engine.calls) == 2


# The command


def test_the_command_says_what_a_sample_proves(mined: MinedChain, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poaid.cli.main.SystemRandom", Counted)
    status, out, err = run("verify", "--data-dir", mined.folder, "--sample", 10, "--threads", 1)
    assert (status, err) == (0, "")
    first, second, third = out.splitlines()
    assert first.endswith(" keep every rule that needs no replay; 1 account")
    assert second == "10 random replays of 1 block found no fault"
    assert third == "a chain that is forged in a tenth of its work passes with probability 0.90^10 = 35 %"


@pytest.mark.parametrize("sample", ["0", "-1", "100001", "x"])
def test_no_sample(mined: MinedChain, run: Run, sample: str) -> None:
    status, out, _ = run("verify", "--data-dir", mined.folder, "--sample", sample)
    assert (status, out) == (2, "")


def test_a_sample_of_no_blocks(mined: MinedChain, run: Run, tmp_path: Path) -> None:
    with Database.create_or_open(tmp_path, mined.network, "mini"):
        pass
    status, out, _ = run("verify", "--data-dir", tmp_path, "--sample", 3, "--threads", 1)
    assert (status, out.splitlines()[1:]) == (0, ["there is no block to replay"])
