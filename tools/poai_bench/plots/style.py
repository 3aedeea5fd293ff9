"""One look for every plot and diagram: colours, sizes, and SVG files whose bytes depend on what is drawn alone.

Lengths are CSS pixels. A picture is 700 pixels wide, what a page of a repository leaves for one, and stands on a light
card of its own, so that it can be read on a dark page, too. The colours are told apart by people who confuse some of
them, and by their lightness where they are side by side.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poai_engine.errors import ModelError

NEED_MATPLOTLIB = "plots need matplotlib: pip install 'poai[bench]', or leave --plots out"
WIDTH = 700
POINT = 0.75  # of a pixel: matplotlib's lengths are points, 72 an inch, a browser's pixels 96
CARD, LINE, FAINT, INK = "#fffefb", "#dedbd2", "#5a626d", "#1a1e24"
OURS, OTHER, GREEN, PURPLE, AMBER, SKY = "#1f56b5", "#cc5500", "#0b8a62", "#9a4f96", "#d99a00", "#4fa8dc"
"""`OURS` is the protocol's in every plot, `OTHER` what it is compared with."""
SMALL, NORMAL, LARGE = 12.5 * POINT, 14 * POINT, 16 * POINT
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": SMALL,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2,
    "figure.facecolor": "none",
    "path.simplify": False,  # it leaves out lines without length, and so dots
    "svg.hashsalt": "PoAI",
    "svg.fonttype": "path",
}
"""Letters are paths, so that a picture looks the same with any browser's fonts."""
NUMBER, DOT = re.compile(r"-?\d+\.\d{2,}"), re.compile(r"M (\S+) (\S+)\s+L \1 \2\s")
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def check_matplotlib() -> Any:
    """Return `matplotlib`, with the modules that plots use.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415  the extra is optional
        import matplotlib.figure  # noqa: PLC0415
        import matplotlib.patches  # noqa: PLC0415
        import matplotlib.path  # noqa: PLC0415
    except ImportError as error:
        raise ModelError(NEED_MATPLOTLIB) from error
    return mpl


@contextmanager
def use_style() -> Iterator[None]:
    """Make and save figures in the one look."""
    mpl = check_matplotlib()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def make_figure(height: float, width: float = WIDTH) -> Any:
    """Return an empty figure of a size in pixels, on its card."""
    mpl = check_matplotlib()
    figure = mpl.figure.Figure(figsize=(width / 96, height / 96), layout="constrained")
    figure.get_layout_engine().set(w_pad=12 / 96, h_pad=10 / 96, wspace=0.04, hspace=0.04)
    card = mpl.patches.FancyBboxPatch(
        (0.5 / width, 0.5 / height), 1 - 1 / width, 1 - 1 / height,
        boxstyle=mpl.patches.BoxStyle("Round", pad=0, rounding_size=10 / width),
        mutation_aspect=width / height, transform=figure.transFigure, facecolor=CARD, edgecolor=LINE, zorder=-10,
    )  # fmt: skip
    figure.add_artist(card)
    card.set_clip_on(False)
    return figure


def make_canvas(height: float, width: float = WIDTH) -> tuple[Any, Any]:
    """Return a figure, and axes over all of it whose unit is a pixel, with y downwards, and which show nothing."""
    figure = make_figure(height, width)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def draw_rectangle(
    axes: Any, x: float, y: float, width: float, height: float, colour: str, *, edge: str | None = None,
    round_corners: bool = True,
) -> None:  # fmt: skip
    """Draw a filled rectangle; sharp corners take a third of the bytes, which counts where there are hundreds."""
    patches = check_matplotlib().patches
    how = {"facecolor": colour, "edgecolor": edge, "linewidth": 1 if edge else 0}
    if round_corners:
        style = patches.BoxStyle("Round", pad=0, rounding_size=min(4, width / 4))
        axes.add_patch(patches.FancyBboxPatch((x, y), width, height, style, **how))
    else:
        axes.add_patch(patches.Rectangle((x, y), width, height, **how))


def write(axes: Any, x: float, y: float, text: str, colour: str = INK, **how: Any) -> Any:
    """Write a line of text, its middle at height `y`."""
    return axes.text(x, y, text, **({"color": colour, "size": SMALL, "va": "center"} | how))


def label_line(axes: Any, x: float, y: float, text: str, colour: str, **how: Any) -> None:
    """Write beside a line what it is, in its colour."""
    offset = how.pop("offset", (0, 0))
    axes.annotate(
        text, (x, y), (offset[0] * POINT, offset[1] * POINT), textcoords="offset points",
        color=colour, fontsize=SMALL, **how,
    )  # fmt: skip


def write_svg(figure: Any, path: Path, title: str) -> None:
    """Write a figure; equal figures give equal bytes.

    Args:
        figure: made under `use_style`, and written under it.
        path: the file.
        title: what the picture shows, for those who cannot see it.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Title": title, **NO_METADATA})
    lines = (line.strip() for line in _shorten_paths(out.getvalue()).splitlines())
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _shorten_paths(svg: str) -> str:
    """Cut the coordinates of paths to hundredths, and write a dot, a line without length, in a third of the bytes.

    The eye sees no more, and the last bit of a logarithm is not the same on every machine.
    """
    svg = re.sub(r' d="[^"]*"|translate\([^)]*\)', lambda path: NUMBER.sub(_round(2), path[0]), svg)
    return DOT.sub(lambda dot: NUMBER.sub(_round(1), f"M{dot[1]} {dot[2]}h0"), svg)


def _round(digits: int) -> Callable[[re.Match[str]], str]:
    return lambda number: f"{float(number[0]):.{digits}f}"
