"""Two plots of the retarget simulation: how difficulty follows the hash rate, and what false stamps gain."""

from random import Random
from typing import Any

from poai_bench.plots.style import FAINT, GREEN, LINE, OTHER, OURS, PURPLE, label_line, make_figure
from poai_bench.retarget_simulation import BITCOIN, BLOCKS, NO_FORWARD, SimulatedNetwork, follow_hash_rate
from poai_bench.retarget_simulation import OURS as OUR_RULE
from poai_spec.basics.parameters import MAX_FUTURE_SHARE

CHANGES = ((10.0, 3, "hash rate x 10", OURS, (0.06, 0.06)), (0.1, 3, "hash rate / 10", GREEN, (0.06, 17.0)),
           (1000.0, 0, "a start 1,000 times too easy", PURPLE, (2.15, 0.006)))  # fmt: skip
"""Hash rate that is there over the one that the target is for, periods before, label, colour, the label's place."""
PERIODS, PLAYS = 8, 200
BAND = "#e6e8ec"


def draw_convergence(plays: int = PLAYS) -> Any:
    """Draw the expected time of each block after a change, by our rule and Bitcoin's, with the spread of our rule.

    Args:
        plays: with blocks that come at random; nine tenths of them lie in the band.
    """
    figure = make_figure(420)
    axes = figure.subplots()
    periods = [block / BLOCKS for block in range(PERIODS * BLOCKS)]
    for factor, settled, label, colour, place in CHANGES:
        bands = _measure_band(factor, settled, len(periods), plays)
        axes.fill_between(periods, *bands, color=BAND, linewidth=0, step="post", zorder=0)
        for rule, how in ((BITCOIN, {"color": OTHER, "lw": 1.2, "ls": (0, (4, 2))}), (OUR_RULE, {"color": colour})):
            expected = follow_hash_rate(SimulatedNetwork(rule, 0.0), factor, settled, len(periods))
            axes.step(periods, expected, where="post", **how)
        label_line(axes, *place, label, colour, fontweight="bold", va="center")
    biased = follow_hash_rate(SimulatedNetwork(BITCOIN, 0.0), 1.0, 3, 1)[0]
    bias = f"dashed: Bitcoin's rule, which counts {BLOCKS - 1} of {BLOCKS} intervals and settles at {biased:.2f}"
    label_line(axes, PERIODS, 3.2, bias, OTHER, ha="right")
    label_line(axes, PERIODS, 0.36, "grey: 9 of 10 random plays", FAINT, ha="right")
    _set_up(axes)
    return figure


def _set_up(axes: Any) -> None:
    axes.set(xlim=(0, PERIODS), ylim=(0.0007, 30), yscale="log")
    axes.set_xlabel(f"periods of {BLOCKS} blocks since the change")
    axes.set_title("Time to a block, in units of the intended one")
    axes.set_xticks(range(PERIODS + 1))
    axes.set_yticks([10.0**power for power in range(-3, 2)], ["0.001", "0.01", "0.1", "1", "10"])
    axes.yaxis.minorticks_off()
    axes.grid(axis="x", color=LINE)


def _measure_band(factor: float, settled: int, blocks: int, plays: int) -> tuple[list[float], list[float]]:
    """Return what a twentieth of the plays with random block times stays below, and above, block by block."""
    network = SimulatedNetwork(OUR_RULE, 0.0)
    found = [follow_hash_rate(network, factor, settled, blocks, Random(n)) for n in range(plays)]  # noqa: S311
    ordered = [sorted(of_block) for of_block in zip(*found, strict=True)]
    return [values[plays // 20] for values in ordered], [values[-1 - plays // 20] for values in ordered]


RULES = {OUR_RULE: ("our rule", OURS), NO_FORWARD: ("ours, but periods\nmay run backwards", PURPLE),
         BITCOIN: ("Bitcoin's rule", OTHER)}  # fmt: skip
CLOCK_LIMIT = 1 / MAX_FUTURE_SHARE
"""What a network may have at most, in periods."""


def draw_time_warp(result: dict[str, Any]) -> Any:
    """Draw what the best strategies found do: difficulty over a play by all hash rate, and blocks gained by share."""
    found = [row for row in result["searches"] if row["max_future"] == CLOCK_LIMIT]
    figure = make_figure(400)
    path, gains = figure.subplots(1, 2, width_ratios=(1.35, 1))
    for rule, (_, colour) in reversed(RULES.items()):
        rows = sorted((row for row in found if row["rule"] == rule), key=lambda row: row["hash_share"])
        difficulty, gain = rows[-1]["difficulty"], rows[-1]["gain"]
        path.plot(range(len(difficulty)), difficulty, color=colour)
        gains.plot([row["hash_share"] for row in rows], [row["gain"] for row in rows], "o-", color=colour, markersize=5)
        label_line(gains, 1, gain, f"x {gain:.{4 if gain < 2 else 1}f}", colour, offset=(8, 5))
    _label_rules(path)
    path.set(yscale="log", xlim=(0, result["periods"]), ylim=(1e-13, 30), xlabel="periods of false stamps")
    path.set_title("Difficulty, from 1 at the start")
    gains.set(yscale="log", ylim=(0.9, 40), xlim=(0.25, 1.3), xlabel="share of the hash rate")
    gains.set_title("Blocks gained")
    gains.set_yticks([1, 2, 5, 10, 20], ["x 1", "x 2", "x 5", "x 10", "x 20"])
    shares = sorted({row["hash_share"] for row in found})
    gains.set_xticks(shares, [f"{share:.0%}" for share in shares])
    for axes in (path, gains):
        axes.yaxis.minorticks_off()
        axes.grid(axis="y", color=LINE)
    return figure


def _label_rules(axes: Any) -> None:
    for place, (label, colour) in zip(((43, 8), (33, 2e-4), (30, 8e-12)), RULES.values(), strict=True):
        label_line(axes, *place, label, colour, fontweight="bold", va="center")
