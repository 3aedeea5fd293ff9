"""The plot of `poai bench tree`: a block is a dot in its miner's colour, the chain runs straight, branches leave it."""

from itertools import count
from typing import Any

from poai_bench.block_tree import find_branches, list_miners
from poai_bench.plots.style import (
    AMBER,
    CARD,
    FAINT,
    GREEN,
    INK,
    NORMAL,
    OTHER,
    OURS,
    POINT,
    PURPLE,
    SKY,
    make_canvas,
    write,
)

COLOURS = (OURS, AMBER, GREEN, PURPLE, OTHER, SKY, INK, FAINT)
"""Of the miners, most blocks first; further ones share the last."""
COLUMNS, LEFT, STEP, LANE = 24, 44, 27, 23
"""Heights a row, where the first one lies, and how far apart heights and branches are, pixels."""
LEGEND_COLUMNS, LEGEND_LINE = 5, 24
BRANCH, CHAIN = {"color": FAINT, "linewidth": 1.2}, {"color": "#b4bac4", "linewidth": 5}

Place = tuple[float, float]


def draw_tree(result: dict[str, Any]) -> Any:
    """Draw the blocks of all branches by height, in rows from left to right like text."""
    lanes = assign_lanes(result)
    top = 74 + LEGEND_LINE * ((len(list_miners(result)) - 1) // LEGEND_COLUMNS)
    rows = _measure_rows(result["blocks"], lanes, top)
    figure, axes = make_canvas(rows[-1][1] + 10)
    places = {
        block["hash"]: (_get_x(block["height"]), rows[_get_row(block["height"])][0] + LANE * lanes[block["hash"]])
        for block in result["blocks"]
    }
    for block in result["blocks"]:
        _draw_link(axes, block, places)
    _draw_blocks(axes, result, places)
    _label(axes, result)
    for height in range(4, max(block["height"] for block in result["blocks"]) + 1, 4):
        write(axes, _get_x(height), rows[_get_row(height)][1] - 19, str(height), FAINT, size=10.5 * POINT, ha="center")
    return figure


def assign_lanes(result: dict[str, Any]) -> dict[str, int]:
    """Return the lane of each block: 0 for the chain, and for a branch the nearest one that is free over its length."""
    lanes = {block["hash"]: 0 for block in result["blocks"] if block["on_chain"]}
    taken = set[tuple[int, int]]()
    for branch in find_branches(result):
        heights = [block["height"] for block in branch]
        nearest = (n // 2 * (-1) ** n for n in count(2))  # 1, -1, 2, -2, ...
        lane = next(lane for lane in nearest if taken.isdisjoint((lane, height) for height in heights))
        taken |= {(lane, height) for height in heights}
        lanes |= {block["hash"]: lane for block in branch}
    return lanes


def _get_row(height: int) -> int:
    return (height - 1) // COLUMNS


def _get_x(height: int) -> float:
    return LEFT + (height - 1) % COLUMNS * STEP


def _measure_rows(blocks: list[dict[str, Any]], lanes: dict[str, int], top: float) -> list[tuple[float, float]]:
    """Return where the chain runs in each row, and where the row ends; the first begins at `top`."""
    rows, end = [], top
    for row in range(_get_row(max(block["height"] for block in blocks)) + 1):
        used = [lanes[block["hash"]] for block in blocks if _get_row(block["height"]) == row]
        middle = end + LANE * (0.8 - min(*used, 0))
        end = middle + LANE * (max(*used, 0) + 1) + 14
        rows.append((middle, end))
    return rows


def _draw_link(axes: Any, block: dict[str, Any], places: dict[str, Place]) -> None:
    """Draw the way from a block to its parent; where a row begins, it comes from the margin."""
    x, y = places[block["hash"]]
    how, order = (CHAIN, 1) if block["on_chain"] else (BRANCH, 2)
    parent = places.get(block["parent"])
    if parent is None or parent[0] > x:
        axes.plot([x - STEP * 0.7, x], [y, y], zorder=order, solid_capstyle="butt", **how)
        if parent is not None:
            axes.plot([parent[0], parent[0] + STEP * 0.7], [parent[1]] * 2, zorder=order, solid_capstyle="butt", **how)
    else:
        axes.plot([parent[0], x], [parent[1], y], zorder=order, **how)


def _draw_blocks(axes: Any, result: dict[str, Any], places: dict[str, Place]) -> None:
    colours = _choose_colours(result)
    for block in result["blocks"]:
        face, size = (colours[block["miner"]], 15) if block["on_chain"] else (CARD, 10)
        axes.plot(
            *places[block["hash"]], "o", markersize=size * POINT, markerfacecolor=face,
            markeredgecolor=colours[block["miner"]], markeredgewidth=1.8, zorder=3,
        )  # fmt: skip


def _choose_colours(result: dict[str, Any]) -> dict[str, str]:
    miners = list_miners(result)
    return dict(zip(miners, COLOURS + COLOURS[-1:] * len(miners), strict=False))


def _label(axes: Any, result: dict[str, Any]) -> None:
    on = sum(block["on_chain"] for block in result["blocks"])
    head = f"{on} blocks of the chain, {len(result['blocks']) - on} beside it"
    write(axes, LEFT - 20, 28, head, size=NORMAL, weight="bold")
    for number, (miner, colour) in enumerate(_choose_colours(result).items()):
        x, y = LEFT - 14 + number % LEGEND_COLUMNS * 130, 56 + LEGEND_LINE * (number // LEGEND_COLUMNS)
        axes.plot(x, y, "o", color=colour, markersize=11 * POINT)
        write(axes, x + 12, y, f"0x{miner[:8]}")
