"""The picture of the code's rooms, from the imports: `python -m poai_build.rooms docs/img/rooms.svg`.

Rooms are the folders of `node/poaid`; below them lie the packages that they use, above them those that use them. Each
row may import what is below it, and an arrow says that it does. An import against the order is no picture but an error.
"""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from poai_bench.plots.style import (
    FAINT,
    INK,
    LINE,
    OURS,
    draw_rectangle,
    make_canvas,
    use_style,
    write,
    write_svg,
)
from poai_engine.errors import ModelError

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "poai_spec": "poai_spec",
    "poai_engine": "node/poai_engine",
    "poaid": "node/poaid",
    "poai_bench": "tools/poai_bench",
    "poai_tools": "tools/poai_tools",
    "poai_build": "tools/poai_build",
}
"""Each may import those before it."""
ROOMS = {
    "process": "signals, streams, logs",
    "store": "the database",
    "state": "accounts at the head",
    "chain": "admission, replay, the tree of headers",
    "produce": "templates and mining",
    "net": "libp2p, peers, serving, sync",
    "api": "JSON, events, the page",
    "testnet": "several nodes at once",
    "cli": "the command poaid",
}
"""Of `poaid`, each with what is in it. A room may import those before it, and any the modules beside the rooms."""
KNOWN = {("state", "chain")}
"""Against the order: the accounts move along the chain's tree of headers, and the chain keeps them in step."""
TITLE = "The packages and the rooms of poaid, and which imports which"
Arrows = set[tuple[str, str]]


def read_imports(path: Path) -> set[str]:
    """Return the modules that a file imports, inside functions, too."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def find_package_arrows(root: Path) -> Arrows:
    """Return which package imports which."""
    return {
        (package, imported)
        for package, folder in PACKAGES.items()
        for path in (root / folder).rglob("*.py")
        for imported in {name.partition(".")[0] for name in read_imports(path)} & PACKAGES.keys()
        if imported != package
    }


def find_room_arrows(root: Path) -> Arrows:
    """Return which room of `poaid` imports which."""
    folder = root / PACKAGES["poaid"]
    return {
        (room, parts[1])
        for room in ROOMS
        for path in (folder / room).rglob("*.py")
        for parts in (name.split(".") for name in read_imports(path))
        if parts[0] == "poaid" and len(parts) > 1 and parts[1] in ROOMS and parts[1] != room
    }


def find_unnamed(root: Path) -> list[str]:
    """Return the folders of `poaid` with Python in them that `ROOMS` does not have."""
    folders = {path.parent.name for path in (root / PACKAGES["poaid"]).glob("*/__init__.py")}
    return sorted(folders - ROOMS.keys())


def find_against(arrows: Arrows, order: Iterable[str]) -> Arrows:
    """Return the arrows that lead to what comes later in an order."""
    place = {name: number for number, name in enumerate(order)}
    return {(a, b) for a, b in arrows if place[b] > place[a]}


LEFT, RIGHT = 40, 660
ROW, HIGH = 62, 40
"""From a room to the next one, and the height of a box. Pixels."""
BOX = 290
COOL = "#dfe8f7"


def draw_rooms(root: Path) -> Any:
    """Draw the rooms, each above what it imports, with a lane a room for the arrows that lead to it.

    Raises:
        ModelError: a folder has no place in the picture, or an import goes against the order.
    """
    packages, rooms = find_package_arrows(root), find_room_arrows(root)
    if unnamed := find_unnamed(root):
        raise ModelError(f"no place in the picture: {', '.join(unnamed)}; add to ROOMS in tools/poai_build/rooms.py")
    if wrong := find_against(packages, PACKAGES) | (find_against(rooms, ROOMS) - KNOWN):
        raise ModelError("against the order: " + ", ".join(f"{a} imports {b}" for a, b in sorted(wrong)))
    height = 112 + ROW * (len(ROOMS) + len(PACKAGES))
    figure, axes = make_canvas(height)
    end = _draw_column(axes, 32, "poaid, room by room", ROOMS, rooms)
    what = {
        "poai_spec": "the rules, compiled from specs/",
        "poai_engine": "model files, kernels, engines",
        "poaid": "the rooms above, and node.py",
        "poai_bench": "measurements, plots",
        "poai_tools": "the command poai",
        "poai_build": "documents, releases",
    }
    _draw_column(axes, end + 34, "All packages", what, packages)
    return figure


def _draw_column(axes: Any, top: float, title: str, boxes: dict[str, str], arrows: Arrows) -> float:
    """Draw boxes, those that import above those that are imported; return where they end."""
    write(axes, LEFT, top, title, OURS, weight="bold")
    write(axes, RIGHT, top, "a dot imports what its line's arrow meets", FAINT, ha="right")
    order = list(reversed(boxes))
    middle = {name: top + 44 + ROW * row for row, name in enumerate(order)}
    for name, what in boxes.items():
        draw_rectangle(axes, LEFT, middle[name] - HIGH / 2, BOX, HIGH, COOL, edge=LINE)
        write(axes, LEFT + 12, middle[name] - 8, name, INK, weight="bold")
        write(axes, LEFT + 12, middle[name] + 9, what, FAINT)
    met = [name for name in order if any(b == name for _, b in arrows)]
    for number, name in enumerate(met):
        users = sorted(middle[a] for a, b in arrows if b == name)
        x = LEFT + BOX + 30 + (RIGHT - LEFT - BOX - 30) * number / max(1, len(met) - 1)
        y = middle[name] + HIGH / 2 - 8
        axes.plot([x, x], [min(users) - 6, max(y, *users)], color=OURS, linewidth=1.2)
        for user in users:
            axes.plot([LEFT + BOX, x], [user - 6, user - 6], color=LINE, linewidth=0.8, zorder=0)
            axes.plot([x], [user - 6], "o", color=OURS, markersize=4)
        arrow = {
            "arrowstyle": "-|>,head_width=0.22,head_length=0.42",
            "color": OURS,
            "lw": 1.2,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate("", (LEFT + BOX, y), (x, y), arrowprops=arrow)
    return max(middle.values()) + HIGH / 2


def draw(root: Path, path: Path) -> None:
    """Write the picture of a repository.

    Raises:
        ModelError: as `draw_rooms`, or matplotlib is not installed.
    """
    with use_style():
        write_svg(draw_rooms(root), path, TITLE)


if __name__ == "__main__":
    try:
        draw(ROOT, Path(sys.argv[1]))
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
