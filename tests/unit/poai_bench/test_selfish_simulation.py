"""Withholding blocks: the game against closed forms and published figures, and the page's tie rule in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from poai_bench import selfish_bench, selfish_optimum
from poai_bench.selfish_optimum import evaluate, find_optimum, find_threshold, make_process
from poai_bench.selfish_simulation import (
    SM1,
    STRATEGIES,
    Action,
    Policy,
    Rule,
    State,
    Strategy,
    Tie,
    compute_selfish_revenue,
    compute_selfish_threshold,
    honest,
    simulate,
    wins_tie,
)
from poai_tools import cli

MODELS = [(Rule.OURS, 0.0), (Rule.FIRST_SEEN, 0.0), (Rule.FIRST_SEEN, 0.5), (Rule.FIRST_SEEN, 1.0)]
every_model = pytest.mark.parametrize(("rule", "advantage"), MODELS)


@pytest.fixture(autouse=True)
def _short_branches() -> Iterator[None]:
    """Enough for shares up to a third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfish_optimum, "MAX_BRANCH", 16)
        yield


def test_the_closed_form_gains_from_its_threshold_on() -> None:
    assert compute_selfish_threshold(0.5) == 1 / 4
    assert compute_selfish_threshold(0) == 1 / 3
    assert compute_selfish_threshold(1) == 0
    for advantage in (0.0, 0.25, 0.5, 0.75):
        share = compute_selfish_threshold(advantage)
        assert compute_selfish_revenue(share, advantage) == pytest.approx(share)
        assert compute_selfish_revenue(share - 0.01, advantage) < share - 0.01
        assert compute_selfish_revenue(share + 0.01, advantage) > share + 0.01


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3])
@pytest.mark.parametrize("advantage", [0.0, 0.5, 1.0])
def test_selfish_mining_gets_what_eyal_and_sirer_say(share: float, advantage: float) -> None:
    wanted = compute_selfish_revenue(share, advantage)
    assert evaluate(make_process(Rule.FIRST_SEEN, share, advantage), SM1) == pytest.approx(wanted, abs=2e-4)
    assert simulate(Rule.FIRST_SEEN, SM1, share, advantage, 40_000) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3])
def test_selfish_mining_under_our_rule_is_that_of_an_advantage_of_a_half(share: float) -> None:
    wanted = compute_selfish_revenue(share, 0.5)
    assert evaluate(make_process(Rule.OURS, share, 0.0), SM1) == pytest.approx(wanted, abs=2e-4)
    assert simulate(Rule.OURS, SM1, share, blocks=10_000) == pytest.approx(wanted, abs=0.02)


@every_model
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_honest_mining_gets_its_share(rule: Rule, advantage: float, share: float) -> None:
    assert evaluate(make_process(rule, share, advantage), honest) == pytest.approx(share)
    assert simulate(rule, honest, share, advantage, 20_000) == pytest.approx(share, abs=0.01)


def test_an_advantage_does_not_count_under_our_rule() -> None:
    played = {simulate(Rule.OURS, SM1, 0.3, advantage, 2_000) for advantage in (0.0, 0.5, 1.0)}
    assert len(played) == 1


def test_a_tie_is_the_pages_and_goes_either_way() -> None:
    random = Random(7)
    pairs = [(random.randbytes(32), random.randbytes(32)) for _ in range(400)]
    won = [wins_tie(ours, theirs) for ours, theirs in pairs]
    assert [wins_tie(theirs, ours) for ours, theirs in pairs] == [not each for each in won]
    assert 160 < sum(won) < 240


@every_model
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_what_is_computed_is_what_is_played(rule: Rule, advantage: float, strategy: Strategy) -> None:
    computed = evaluate(make_process(rule, 0.3, advantage), strategy)
    assert simulate(rule, strategy, 0.3, advantage, 10_000) == pytest.approx(computed, abs=0.025)


@pytest.mark.parametrize(("share", "published"), [(1 / 3, 0.33705), (0.35, 0.37077)])
def test_the_optimum_is_the_published_one(share: float, published: float) -> None:
    """Sapirshtein, Sompolinsky and Zohar, no advantage."""
    found, _ = find_optimum(make_process(Rule.FIRST_SEEN, share, 0.0))
    assert found == pytest.approx(published, abs=2e-3)
    assert found < published + 1e-4, "short branches are a lower bound"


@every_model
def test_no_named_strategy_passes_the_optimum_which_can_be_played(rule: Rule, advantage: float) -> None:
    process = make_process(rule, 0.3, advantage)
    optimum, policy = find_optimum(process)
    assert optimum >= max(evaluate(process, strategy) for strategy in STRATEGIES) - 1e-5
    assert evaluate(process, policy) == pytest.approx(optimum, abs=1e-5)
    assert simulate(rule, policy, 0.3, advantage, 10_000) == pytest.approx(optimum, abs=0.025)


@pytest.mark.parametrize(
    ("rule", "advantage", "published"),
    [(Rule.FIRST_SEEN, 0.0, 0.329), (Rule.FIRST_SEEN, 1.0, 0.0), (Rule.FIRST_SEEN, 0.5, 0.25), (Rule.OURS, 0.0, 0.232)],
)
def test_withholding_gains_from_these_shares_on(rule: Rule, advantage: float, published: float) -> None:
    """The same paper: 0.2321 where every miner chooses at random among equal tips, which for the attacker is alike."""
    assert find_threshold(rule, advantage) == pytest.approx(published, abs=5e-3)


def spy(policy: Policy, seen: set[tuple[Tie, Action]]) -> Policy:
    def choose(state: State) -> Action:
        seen.add((state.tie, policy(state)))
        return policy(state)

    return choose


def test_under_our_rule_the_best_strategy_comes_late_and_never_publishes_a_lost_tie() -> None:
    _, policy = find_optimum(make_process(Rule.OURS, 0.3, 0.0))
    assert policy(State(1, 2, Tie.LOST)) is Action.WAIT, "it goes on one behind, to tie late"
    assert policy(State(1, 1, Tie.WON)) is Action.MATCH
    seen: set[tuple[Tie, Action]] = set()
    simulate(Rule.OURS, spy(policy, seen), 0.3, blocks=5_000)
    assert (Tie.LOST, Action.MATCH) not in seen
    assert (Tie.WON, Action.MATCH) in seen


def test_the_command_is_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfish_optimum, "MAX_BRANCH", 6)
    monkeypatch.setattr(selfish_bench, "QUICK_BLOCKS", 300)
    found = []
    for name in ("one", "two"):
        result = CliRunner().invoke(cli.app, ["bench", "selfish", "--quick", "--json", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        found.append(json.loads((tmp_path / name).read_text()))
    assert found[0] == found[1]
    assert [row["share"] for row in found[0]["results"]] == [0.2, 0.3] * 4
    shown = CliRunner().invoke(cli.app, ["bench", "show", str(tmp_path / "one"), "--markdown"])
    assert "first seen, 50%" in shown.output
