"""The mining loop on a fake clock: stamps, nonces, batches, and blocks that every engine agrees on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from poai_engine.engines.reference import ReferenceEngine
from poai_engine.models.gguf_file import read_gguf
from poai_spec.basics.containers import Header, HeaderCore, compute_block_hash
from poai_spec.basics.notation import Invalid, Milliseconds
from poai_spec.basics.parameters import Config
from poai_spec.chain.block import Judge, check_block, make_genesis, make_judge
from poai_spec.chain.body import EMPTY_BODY, EMPTY_BODY_ROOT
from poai_spec.chain.header import check_median_time
from poai_spec.chain.production import choose_timestamp
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import Account, compute_state_root
from poai_spec.model.loss import compute_l_hat, compute_trace_digest
from poai_spec.proof.difficulty import check_period_forward, compute_target
from poai_spec.proof.quiz import generate_quiz
from poai_spec.proof.work import get_quiz_seed
from poaid.chain.verify import verify_store
from poaid.errors import NodeError
from poaid.network_file import Network
from poaid.produce import attempts as miner
from poaid.produce.attempts import MAX_BATCH, Attempt, mine_block, run_attempts, start_template
from poaid.store.database import Database
from tests.harness.engines import Remembering
from tests.harness.node import MINER, PACES, START, FakeClock, ignore, mine
from tests.unit.poaid.conftest import MinedChain

SUBSIDY = 5 * 10**18


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(miner, "time", clock)
    return clock


def make_chain(network: Network, stamps: list[Milliseconds]) -> list[Header]:
    """Return headers of which only height and stamp matter, genesis first."""
    genesis = make_genesis(network.config).header
    cores = [replace(genesis.core, height=n, timestamp=stamp) for n, stamp in enumerate(stamps, 1)]
    return [genesis, *(Header(core, 0, bytes(32)) for core in cores)]


# Stamps


def test_the_stamp_is_the_clocks(network: Network) -> None:
    assert choose_timestamp(make_chain(network, []), get_rules(network.config, (), 0), START) == START
    assert (
        choose_timestamp(make_chain(network, [START, START + 5]), get_rules(network.config, (), 0), START + 9)
        == START + 9
    )


def test_a_clock_behind_gets_the_earliest_stamp(network: Network) -> None:
    config = network.config
    assert choose_timestamp(make_chain(network, []), get_rules(config, (), 0), 0) == config.genesis_timestamp + 1
    # Height 2 ends no period of two blocks: genesis and block 1, of which the later is the median.
    assert choose_timestamp(make_chain(network, [START]), get_rules(config, (), 0), START - 99) == START + 1
    # Height 3 does: it must lie above block 1 too, which here is later than the median.
    assert choose_timestamp(make_chain(network, [START + 50, START]), get_rules(config, (), 0), 0) == START + 51
    assert (
        choose_timestamp(make_chain(network, [START + 50, START, START + 60]), get_rules(config, (), 0), 0)
        == START + 51
    )
    twelve = make_chain(network, [START + n for n in range(1, 13)])
    assert choose_timestamp(twelve, get_rules(config, (), 0), 0) == max(
        START + 7 + 1, START + 11 + 1
    )  # median of 2..12; block 11


@pytest.mark.parametrize("period", [1, 2, 3, 5, 12])
def test_the_chosen_stamp_is_the_earliest_that_passes(network: Network, period: int) -> None:
    """Whatever the ancestors' stamps: the choice passes both rules, and one millisecond less fails one of them."""
    config = replace(network.config, retarget_blocks=period)
    stamps = [START + (n * n * 37) % 101 for n in range(40)]
    for height in range(1, 40):
        chain = make_chain(network, stamps[: height - 1])
        stamp = choose_timestamp(chain, get_rules(config, (), 0), 0)
        assert obeys(stamp, chain, config)
        assert not obeys(stamp - 1, chain, config)


def obeys(stamp: Milliseconds, chain: list[Header], config: Config) -> bool:
    core = replace(chain[-1].core, timestamp=stamp, height=len(chain))
    try:
        check_median_time(core, chain)
        check_period_forward(core, chain, get_rules(config, (), 0))
    except Invalid:
        return False
    return True


# Templates and attempts


def test_the_template_follows_from_the_chain(mined: MinedChain) -> None:
    config = mined.network.config
    for height in range(1, len(mined.headers)):
        ancestors = mined.headers[:height]
        before = {MINER: Account(balance=(height - 1) * SUBSIDY)} if height > 1 else {}
        core = start_template(ancestors, before, get_rules(config, (), 0), MINER, mined.now)
        assert core == HeaderCore(
            version=1,
            height=height,
            parent_hash=compute_block_hash(ancestors[-1]),
            timestamp=mined.now,
            target=compute_target(ancestors, get_rules(config, (), 0)),
            miner=MINER,
            body_root=EMPTY_BODY_ROOT,
            state_root=compute_state_root({MINER: Account(balance=height * SUBSIDY)}),
            nonce=0,
        )
        found = mined.headers[height].core
        assert replace(core, timestamp=found.timestamp, nonce=found.nonce) == found


def test_attempts_are_what_the_specification_says(mined: MinedChain) -> None:
    config, ancestors = mined.network.config, mined.headers[:4]
    template = replace(start_template(ancestors, mined.state, get_rules(config, (), 0), MINER, mined.now), nonce=2**63)
    attempts = run_attempts(template, ancestors, mined.judge, 5)
    assert [attempt.header.core for attempt in attempts] == [replace(template, nonce=2**63 + n) for n in range(5)]
    for attempt in attempts:
        header, quiz = attempt.header, attempt.quiz
        assert quiz == generate_quiz(
            get_quiz_seed(header.core, ancestors, get_rules(config, (), 0)),
            get_rules(config, (), 0),
            mined.judge.models[0].questions,
        )
        assert attempt.evaluation == mined.judge.models[0].engine.evaluate([quiz.tokens], [quiz.scored])[0]
        assert header.loss == sum(attempt.evaluation.nlls)
        assert header.trace_digest == compute_trace_digest(attempt.evaluation.trace)
        assert attempt.l_hat == compute_l_hat(quiz.seed, header.loss, header.trace_digest)
        assert attempt.wins == (attempt.l_hat < template.target)
        block = attempt.block
        assert (block.header, block.body, block.trace) == (header, EMPTY_BODY, attempt.evaluation.trace)
    assert len({attempt.quiz.seed for attempt in attempts}) == 5


def test_a_winner_lies_below_the_target(mined: MinedChain) -> None:
    attempt = run_attempts(
        start_template(mined.headers[:1], {}, get_rules(mined.network.config, (), 0), MINER, mined.now),
        mined.headers[:1],
        mined.judge,
        1,
    )[0]

    def with_target(target: int) -> Attempt:
        return replace(
            attempt,
            block=replace(
                attempt.block, header=replace(attempt.header, core=replace(attempt.header.core, target=target))
            ),
        )

    assert not with_target(attempt.l_hat - 1).wins
    assert not with_target(attempt.l_hat).wins
    assert with_target(attempt.l_hat + 1).wins


# Batches


def mine_batches(network: Network, judge: Judge) -> Iterator[list[Attempt]]:
    return mine_block([make_genesis(network.config).header], {}, judge, MINER)


def make_hopeless(network: Network, judge: Judge) -> tuple[Network, Judge]:
    config = replace(network.config, initial_target=1)
    return replace(network, config=config), replace(judge, config=config)


def test_batches_double_and_use_each_nonce_once(network: Network, judge: Judge, clock: FakeClock) -> None:
    network, judge = make_hopeless(network, judge)
    batches = mine_batches(network, judge)
    sizes, nonces, stamps = [], [], []
    for batch in (next(batches) for _ in range(8)):
        sizes.append(len(batch))
        nonces += [attempt.header.core.nonce for attempt in batch]
        assert len({attempt.header.core.timestamp for attempt in batch}) == 1
        stamps.append(batch[0].header.core.timestamp)
        assert not any(attempt.wins for attempt in batch)
    assert sizes == [1, 2, 4, 8, 16, 32, 32, 32]
    assert max(sizes) == MAX_BATCH
    assert nonces == list(range(127))
    assert stamps == [START + 700 * n for n in range(1, 9)]  # the clock, read anew for each batch


def test_a_slow_machine_gets_small_batches(network: Network, judge: Judge, clock: FakeClock) -> None:
    network, judge = make_hopeless(network, judge)
    batches = mine_batches(network, judge)
    sizes = []
    for seconds in (0.125, 0.125, 0.5, 2.0, 8.0, 8.0, 64.0, 0.375, 0.875, 1.0, 0.0):
        clock.seconds = seconds
        sizes.append(len(next(batches)))
    assert sizes == [1, 2, 4, 6, 2, 1, 1, 1, 2, 1, 1]
    assert len(next(batches)) == 2  # a stop watch that did not move is no reason to stop


def test_the_winner_ends_the_batch(network: Network, judge: Judge, clock: FakeClock) -> None:
    config = replace(network.config, initial_target=2**256 // 24)
    batches = list(mine_batches(replace(network, config=config), replace(judge, config=config)))
    flat = [attempt for batch in batches for attempt in batch]
    assert len(batches) >= 3
    assert [attempt.wins for attempt in flat] == [False] * (len(flat) - 1) + [True]
    assert [attempt.header.core.nonce for attempt in flat] == list(range(len(flat)))


def test_the_batch_does_not_change_the_attempt(network: Network, judge: Judge) -> None:
    ancestors = [make_genesis(network.config).header]
    template = start_template(ancestors, {}, get_rules(network.config, (), 0), MINER, START)
    engine = judge.models[0].engine
    fresh = make_judge(judge.config, network.questions, engine.engine if isinstance(engine, Remembering) else engine)
    together = run_attempts(template, ancestors, fresh, 6)
    alone = [run_attempts(replace(template, nonce=n), ancestors, fresh, 1)[0] for n in range(6)]
    assert together == alone


# Blocks


def test_a_mined_block_passes_with_the_other_engine(
    network: Network, judge: Judge, clock: FakeClock, mini_path: Path
) -> None:
    config = replace(network.config, initial_target=2**255)
    ancestors = [make_genesis(config).header]
    *_, last = mine_block(ancestors, {}, replace(judge, config=config), MINER)
    reference = make_judge(config, network.questions, ReferenceEngine(read_gguf(mini_path)))
    after = check_block(last[-1].block, ancestors, {}, reference, clock.now)
    assert after == {MINER: Account(balance=SUBSIDY)}
    quiz = last[-1].quiz
    assert reference.models[0].engine.evaluate([quiz.tokens], [quiz.scored]) == [last[-1].evaluation]


def test_fifty_blocks(network: Network, judge: Judge, tmp_path: Path) -> None:
    """Minimal's rules, a clock that runs fast and slow by turns: every block is valid, every subsidy there."""
    config = replace(network.config, epoch_blocks=4, retarget_blocks=4, max_future=400, initial_target=2**254)
    fifty, clock = replace(network, config=config), FakeClock()
    judge = replace(judge, config=config)
    with Database.create_or_open(tmp_path, fifty, "mini") as store:
        paces = [(100, 450, 1_500, 300)[n // 5 % 4] for n in range(50)]
        chain = mine(store, judge, clock, paces)
        assert chain.state == {MINER: Account(balance=50 * SUBSIDY)}
        assert store.read_height() == 50
        assert verify_store(store, judge, clock.now, ignore) == chain.state
    targets = [header.core.target for header in chain.headers]
    changes = [height for height in range(1, 51) if targets[height] != targets[height - 1]]
    assert all(height % 4 == 2 and height >= 6 for height in changes)
    assert any(targets[height] < targets[height - 1] for height in changes)
    assert any(targets[height] > targets[height - 1] for height in changes)
    stamps = [header.core.timestamp for header in chain.headers]
    assert stamps == sorted(set(stamps))
    assert len({compute_block_hash(header) for header in chain.headers}) == 51


def test_mining_is_deterministic(mined: MinedChain, network: Network, judge: Judge, tmp_path: Path) -> None:
    with Database.create_or_open(tmp_path, network, "elsewhere") as store:
        assert list(mine(store, judge, FakeClock(), PACES).headers) == mined.headers


def test_a_clock_set_back_is_said_in_one_line(mined: MinedChain, copy_of: Callable[[], Path]) -> None:
    """A stamp above the median may be too far ahead of a clock that was set back: the block is not mined."""
    with Database.open(copy_of()) as store:
        with pytest.raises(NodeError, match=r"the clock is \d+ s behind"):
            mine(store, mined.judge, FakeClock(mined.headers[1].core.timestamp), [1])
        assert store.read_height() == len(mined.blocks)
