"""A plot of the supply and the subsidy over the years, one of `poai bench plots`."""

from typing import Any

from poai_bench.plots.style import OTHER, OURS, make_figure
from poai_spec.basics.parameters import HALVING_BLOCKS, PRESET_CHANGES
from poai_spec.proof.economics import compute_subsidy, compute_supply

ERAS = 8
"""Halvings that the plot shows: later ones cannot be told from the limit."""
POINTS_PER_ERA = 50
POAI = 10**18
YEAR_MS = 31_557_600_000
"""365.25 days."""
TITLE = "Supply and subsidy of PoAI over the years"


def compute_points(spacing_ms: int) -> list[tuple[float, float, float]]:
    """Return years since genesis, supply and subsidy, POAI, at evenly spaced heights; blocks come as they should."""
    heights = range(1, ERAS * HALVING_BLOCKS + 2, HALVING_BLOCKS // POINTS_PER_ERA)
    return [(h * spacing_ms / YEAR_MS, compute_supply(h) / POAI, compute_subsidy(h) / POAI) for h in heights]


def draw_supply() -> Any:
    """Draw both, each with an axis of its own, for mainnet's spacing of blocks."""
    years, supply, subsidy = zip(*compute_points(PRESET_CHANGES["mainnet"]["spacing"]), strict=True)
    figure = make_figure(320)
    left = figure.subplots()
    right = left.twinx()
    left.plot(years, [amount / 10**6 for amount in supply], color=OURS)
    left.set_ylim(0, compute_supply(2**64 - 1) / POAI / 10**6 * 1.05)
    left.set_ylabel("supply, millions of POAI", color=OURS)
    right.step(years, subsidy, where="post", color=OTHER)
    right.set_ylim(0, subsidy[0] * 1.05)
    right.set_ylabel("subsidy of a block, POAI", color=OTHER)
    left.set_xlim(0, years[-1])
    left.set_xlabel("years after genesis, with a block in 600 s")
    left.grid(visible=True)
    return figure
