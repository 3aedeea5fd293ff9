"""The retarget simulation: no gain on our rule, the known attacks on the others, and how fast difficulty follows."""

from random import Random

import pytest

from poai_bench.retarget_simulation import (
    BITCOIN,
    BLOCKS,
    HONEST,
    KNOWN_ATTACKS,
    NO_FORWARD,
    OURS,
    PERIOD,
    SPACING,
    SimulatedNetwork,
    StampStrategy,
    compute_gain,
    follow_hash_rate,
    make_table,
    measure_convergence,
    measure_difficulty,
    play,
    run,
    search,
)
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.difficulty import check_period_forward, check_target, compute_median_time

TENTH = 0.1


def best(network: SimulatedNetwork, hash_share: float = 1.0) -> tuple[StampStrategy, float]:
    strategy, gain, tried = search(network, hash_share=hash_share, periods=40, length=1, climbs=100)
    assert tried > 40
    return strategy, gain


@pytest.mark.parametrize("max_future", [0.0, TENTH])
@pytest.mark.parametrize("hash_share", [1.0, 0.6])
def test_no_strategy_gains_a_hundredth_on_our_rule(max_future: float, hash_share: float) -> None:
    assert best(SimulatedNetwork(OURS, max_future), hash_share)[1] <= 1.01


def test_the_whole_gain_on_our_rule_is_the_clock_limit_once() -> None:
    assert best(SimulatedNetwork(OURS, TENTH))[1] == pytest.approx(1 + TENTH / 40, abs=1e-3)
    assert best(SimulatedNetwork(OURS, 1.0))[1] > 1.01, "the search sees it when the clock limit is too large"


def test_the_search_finds_the_time_warp_on_bitcoins_rule() -> None:
    assert best(SimulatedNetwork(BITCOIN, 0.0))[1] > 5


def test_the_search_finds_the_gain_that_the_forward_rule_prevents() -> None:
    strategy, gain = best(SimulatedNetwork(NO_FORWARD, 0.0))
    assert gain > 1.5
    assert compute_gain(SimulatedNetwork(OURS, 0.0), strategy, 40, 1.0) <= 1.01


def test_a_minority_gains_nothing_under_any_rule_that_shares_its_ends() -> None:
    for rule in (OURS, NO_FORWARD):
        for attack in KNOWN_ATTACKS:
            assert compute_gain(SimulatedNetwork(rule, TENTH), attack, 40, 0.3) <= 1.01


@pytest.mark.parametrize("strategy", [HONEST, *KNOWN_ATTACKS, StampStrategy((0.25, "high", -3.0), "low", "low", 3)])
@pytest.mark.parametrize("hash_share", [1.0, 0.6])
def test_every_stamp_played_is_legal(strategy: StampStrategy, hash_share: float) -> None:
    network = SimulatedNetwork(OURS, TENTH)
    chain, elapsed = play(network, strategy, 20, hash_share)
    for height in range(1, len(chain)):
        core, ancestors = chain[height].core, chain[:height]
        check_target(core, ancestors, get_rules(network.config, (), 0))
        check_period_forward(core, ancestors, get_rules(network.config, (), 0))
        assert core.timestamp > compute_median_time(ancestors)
    assert max(header.core.timestamp for header in chain) <= elapsed + network.config.max_future


def test_true_stamps_keep_the_spacing() -> None:
    chain, elapsed = play(SimulatedNetwork(OURS, TENTH), HONEST, 20)
    assert elapsed == pytest.approx((len(chain) - 1) * SPACING)
    assert len(chain) == 20 * BLOCKS + 2


def test_difficulty_follows_a_tenfold_change_within_two_retargets() -> None:
    retargets, elapsed = measure_convergence(10.0)
    assert retargets == 2
    assert elapsed == pytest.approx(0.1 + 0.4, abs=1 / BLOCKS)
    retargets, elapsed = measure_convergence(0.1)
    assert retargets == 2
    assert elapsed == pytest.approx(10 + 2.5, abs=1 / BLOCKS)


def test_a_wrong_start_is_followed_fourfold_a_period() -> None:
    expected = follow_hash_rate(SimulatedNetwork(OURS, 0.0), 1000.0, settled=0, blocks=6 * BLOCKS)
    assert expected[::BLOCKS] == pytest.approx([0.001 * 4**n for n in range(5)] + [1], rel=1e-3)


def test_random_blocks_spread_around_the_spacing() -> None:
    plays = [follow_hash_rate(SimulatedNetwork(OURS, 0.0), 1.0, 3, 4 * BLOCKS, Random(seed)) for seed in range(40)]
    assert plays[0] == follow_hash_rate(SimulatedNetwork(OURS, 0.0), 1.0, 3, 4 * BLOCKS, Random(0))
    last = sorted(play[-1] for play in plays)
    assert last[2] < 0.9
    assert last[-3] > 1.1
    assert last[len(last) // 2] == pytest.approx(1, abs=0.2)


def test_difficulty_under_the_time_warp_falls_without_bound() -> None:
    path = measure_difficulty(SimulatedNetwork(BITCOIN, 0.0), KNOWN_ATTACKS[0], 20, 1.0)
    assert (path[0], len(path)) == (1, 21)
    assert path[10] < 1e-3
    assert path[20] < path[10] / 1000
    assert set(measure_difficulty(SimulatedNetwork(OURS, 0.0), HONEST, 5, 1.0)) == {1}


def test_a_search_is_repeatable_and_its_figures_make_a_table() -> None:
    figures = run(periods=10, length=1, climbs=5, hash_shares=(1.0,), max_futures=(TENTH,))
    assert figures == run(periods=10, length=1, climbs=5, hash_shares=(1.0,), max_futures=(TENTH,))
    assert [row["rule"] for row in figures["searches"]] == [OURS, NO_FORWARD, BITCOIN]
    assert all(row["work_gain"] == pytest.approx(1) for row in figures["searches"])
    assert make_table(figures).row_count == 3
    assert PERIOD == BLOCKS * SPACING
