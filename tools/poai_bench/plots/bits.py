"""Two plots of bits: the determinism matrix of the exact pass, and what changes the bits of llama.cpp."""

from collections.abc import Sequence
from typing import Any

from poai_bench.engine_bench import group
from poai_bench.plots.style import (
    CARD,
    FAINT,
    INK,
    LINE,
    NORMAL,
    OTHER,
    OURS,
    POINT,
    draw_rectangle,
    make_canvas,
    write,
)

REGISTERS = {"x86-64": "SSE2", "x86-64-v2": "SSE4.2", "x86-64-v3": "AVX2", "x86-64-v4": "AVX-512"}
"""What each of `determinism.TARGETS` that people know by another name adds."""
ENGINES = {"exact": "exact engine", "array": "array engine on BLAS", "reference": "the pages' own functions"}
TOP, ROW, HEAD = 92, 24, 34
LEFT, FIRST, RIGHT = 24, 246, 676
"""Where names, the first cells and the last ones lie, pixels."""
SQUARES, EMPTY = 260, "#dfe8f7"

Row = dict[str, Any]


def draw_determinism(result: dict[str, Any]) -> Any:
    """Draw a cell for each way to run the model, with the beginning of its digest: one colour a digest."""
    rows, digests = result["rows"], result["digests"]
    parts = {name: group(of_part, "kernel") for name, of_part in _split(rows).items()}
    ways = sorted({(row["threads"], row["batch"]) for row in rows})
    figure, axes = make_canvas(TOP + HEAD * len(parts) + ROW * sum(map(len, parts.values())) + 4)
    found = "one digest" if len(digests) == 1 else f"{len(digests)} digests"
    write(axes, LEFT, 28, f"{len(rows)} ways to run {result['model']}, {found}", size=NORMAL, weight="bold")
    _label_ways(axes, ways)
    y = float(TOP)
    for name, kernels in parts.items():
        write(axes, LEFT, y + HEAD - 20, name, FAINT)
        y += HEAD
        for kernel, of_kernel in kernels.items():
            write(axes, LEFT + 12, y + 4, _name_kernel(kernel))
            _draw_cells(axes, y - 6, ways, of_kernel, digests)
            y += ROW
    return figure


def _split(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows by engine and machine, under a name for each."""
    where = {rows[0]["machine"]: f", {rows[0]['machine']}", "any": ""}
    parts: dict[str, list[Row]] = {}
    for row in rows:
        name = ENGINES[row["engine"]] + where.get(row["machine"], f", {row['machine']} emulated")
        parts.setdefault(name, []).append(row)
    return parts


def _name_kernel(kernel: str) -> str:
    """Return a kernel's name, with the registers instead of the shape of its tiles where that is enough."""
    name, _, tile = kernel.partition(" ")
    if name not in REGISTERS:
        return kernel
    product = tile.partition(" ")[0]
    return f"{name}, {REGISTERS[name]}" + (f", {product}" if product == "vpdpbusd" else "")


def _label_ways(axes: Any, ways: Sequence[tuple[int, int]]) -> None:
    step = (RIGHT - FIRST) / len(ways)
    write(axes, LEFT, 62, "threads", FAINT)
    write(axes, LEFT, 82, "sequences a batch", FAINT)
    for number, (threads, batch) in enumerate(ways):
        x = FIRST + (number + 0.5) * step
        write(axes, x, 82, str(batch), FAINT, ha="center")
        if number == 0 or ways[number - 1][0] != threads:
            end = x + (sum(other == threads for other, _ in ways) - 1) * step
            write(axes, (x + end) / 2, 62, str(threads), FAINT, ha="center")
            axes.plot([x - step / 2 + 3, end + step / 2 - 3], [72, 72], color=LINE, linewidth=1)


def _draw_cells(
    axes: Any, y: float, ways: Sequence[tuple[int, int]], rows: Sequence[Row], digests: Sequence[str]
) -> None:
    """Draw the cells of one kernel; where a way was run twice, a digest that differs from the first of all is shown."""
    step = (RIGHT - FIRST) / len(ways)
    for number, way in enumerate(ways):
        found = [row["digest"] for row in rows if (row["threads"], row["batch"]) == way]
        if found:
            digest = max(found, key=digests.index)
            colour = OURS if digest == digests[0] else OTHER
            draw_rectangle(axes, FIRST + number * step + 1.5, y, step - 3, ROW - 4, colour, round_corners=False)
            how = {"size": 10 * POINT, "family": "DejaVu Sans Mono", "ha": "center"}
            write(axes, FIRST + (number + 0.5) * step, y + ROW / 2 - 2, digest[:4], CARD, **how)


def draw_llama_bits(result: dict[str, Any]) -> Any:
    """Draw a square for each quiz by what was changed: filled are as many as have other bits than the profile's."""
    variants, quizzes = result["variants"], len(result["evaluations"])
    figure, axes = make_canvas(TOP + ROW * len(variants) + 14)
    head = f"llama.cpp, {quizzes} quizzes: how many get other bits"
    write(axes, LEFT, 28, head, size=NORMAL, weight="bold")
    write(axes, LEFT, 66, "what is changed", FAINT)
    write(axes, FIRST + 30, 66, "quizzes with other bits", OTHER)
    write(axes, RIGHT, 62, "largest difference\nof a loss, bits", FAINT, ha="right")
    step = SQUARES / quizzes
    for number, row in enumerate(variants):
        y = TOP + number * ROW
        write(axes, LEFT, y + 8, row["name"])
        for quiz in range(quizzes):
            colour = OTHER if quiz < row["other_bits"] else EMPTY
            draw_rectangle(axes, FIRST + 30 + quiz * step, y, step - 3, 16, colour)
        largest = row["largest_loss"]
        write(axes, RIGHT, y + 8, f"{largest:.2g}", INK if largest else FAINT, ha="right")
    return figure
