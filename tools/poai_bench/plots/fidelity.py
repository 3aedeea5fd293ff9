"""The plot of `poai bench fidelity`: each token's loss by two ways of running the model, against the float64 pass's."""

from typing import Any

import numpy as np

from poai_bench.plots.style import INK, LINE, OTHER, OURS, POINT, check_matplotlib, label_line, make_figure

PASSES = {"exact": ("exact integers", OURS), "llama_cpp": ("llama.cpp", OTHER)}
DOT = 2.6  # pixels across


def draw_fidelity(result: dict[str, Any]) -> Any:
    """Draw a panel for each pass; below, its differences from float64 on a scale of their own."""
    figure = make_figure(520)
    panels = figure.subplots(2, len(PASSES), sharex=True, sharey="row", height_ratios=(3, 1.35))
    oracle = np.array(result["nlls"]["float64"])
    end = float(np.ceil(max(max(losses) for losses in result["nlls"].values())))
    largest = max(result[key]["largest_difference"] for key in PASSES)
    for (above, below), (key, (name, colour)) in zip(panels.T, PASSES.items(), strict=True):
        losses = np.array(result["nlls"][key])
        above.plot([0, end], [0, end], color=LINE, linewidth=1, zorder=0)
        _draw_dots(above, oracle, losses, colour)
        above.set(xlim=(0, end), ylim=(0, end))
        above.set_title(name, color=colour)
        figures = (
            f"{result['tokens']:,} tokens\n"
            f"mean difference {result[key]['mean_difference']:.3f}\n"
            f"same best token {result[key]['agreement']:.1%}"
        )
        label_line(above, 0.04 * end, 0.96 * end, figures, INK, va="top", linespacing=1.5)
        below.axhline(0, color=LINE, linewidth=1, zorder=0)
        _draw_dots(below, oracle, losses - oracle, colour)
        below.set(ylim=(-1.1 * largest, 1.1 * largest))
        below.set_xlabel("loss by float64, nats")
    panels[0][0].set_ylabel("loss, nats")
    panels[1][0].set_ylabel("less float64's")
    return figure


def _draw_dots(axes: Any, x: Any, y: Any, colour: str) -> None:
    """Draw dots as one path of lines without length, which takes a fifth of the bytes that marks take."""
    mpl = check_matplotlib()
    points = np.repeat(np.column_stack([x, y]), 2, axis=0)
    codes = np.tile([mpl.path.Path.MOVETO, mpl.path.Path.LINETO], len(x))
    axes.add_patch(mpl.patches.PathPatch(
        mpl.path.Path(points, codes), facecolor="none", edgecolor=colour, alpha=0.6,
        linewidth=DOT * POINT, capstyle="round",
    ))  # fmt: skip
