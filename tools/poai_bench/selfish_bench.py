"""What withholding blocks gains, as tables: `poai bench selfish`.

For our rule, and for "first seen" with several advantages: the share of the chain of SM1, of the best of its stubborn
variations, and of the best strategy there is, all computed; and of that best strategy when it is played with random
hashes and the page's own tie rule, as a check.
"""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from poai_bench.measure import Say
from poai_bench.selfish_optimum import evaluate, find_optimum, find_threshold, make_process
from poai_bench.selfish_simulation import BLOCKS, SM1, STRATEGIES, Rule, simulate

SHARES: tuple[float, ...] = (0.10, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45)
QUICK_SHARES: tuple[float, ...] = (0.20, 0.30)
QUICK_BLOCKS = 20_000
MODELS = ((Rule.OURS, 0.0), (Rule.FIRST_SEEN, 0.0), (Rule.FIRST_SEEN, 0.5), (Rule.FIRST_SEEN, 1.0))


def run(shares: Sequence[float] = SHARES, blocks: int = BLOCKS, say: Say = lambda _: None) -> dict[str, Any]:
    """Compute and play every rule and share; equal arguments give equal results.

    Args:
        shares: the attacker's parts of the hash rate, each below a half.
        blocks: that a simulation finds.
        say: takes one line of progress.

    Returns:
        `thresholds`: by rule, the share from which on withholding gains; `results`: by rule and share.
    """
    thresholds, results = [], []
    for rule, advantage in MODELS:
        say(describe(rule.value, advantage))
        found = {"rule": rule.value, "advantage": advantage}
        thresholds.append(found | {"threshold": find_threshold(rule, advantage)})
        results += [found | _measure(rule, share, advantage, blocks) for share in shares]
    return {"bench": "selfish", "blocks": blocks, "thresholds": thresholds, "results": results}


def _measure(rule: Rule, share: float, advantage: float, blocks: int) -> dict[str, Any]:
    process = make_process(rule, share, advantage)
    revenues = {strategy: evaluate(process, strategy) for strategy in STRATEGIES}
    stubborn = max(STRATEGIES, key=lambda strategy: revenues[strategy])
    optimum, policy = find_optimum(process)
    return {
        "share": share, "sm1": revenues[SM1], "stubborn": revenues[stubborn], "stubborn_strategy": str(stubborn),
        "optimum": optimum, "simulated": simulate(rule, policy, share, advantage, blocks),
    }  # fmt: skip


def describe(rule: str, advantage: float) -> str:
    """Return the name of a rule, with the advantage where it counts."""
    return f"{rule}, {advantage:.0%}" if rule == Rule.FIRST_SEEN.value else rule


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as tables."""
    thresholds = Table("ties", "gains from a hash share of", title="Where withholding blocks begins to gain")
    for row in result["thresholds"]:
        thresholds.add_row(describe(row["rule"], row["advantage"]), f"{row['threshold']:.1%}")
    columns = ("ties", "hash share", "SM1", "named", "", "best", "played")
    table = Table(
        *columns,
        title="Share of the chain's blocks: SM1, the best named strategy, the best of all, and that one played",
    )
    for row in result["results"]:
        named = f"{row['stubborn']:.1%}", row["stubborn_strategy"]
        shown = (f"{row[key]:.1%}" for key in ("optimum", "simulated"))
        name = describe(row["rule"], row["advantage"])
        table.add_row(name, f"{row['share']:.0%}", f"{row['sm1']:.1%}", *named, *shown)
    return [thresholds, table]
