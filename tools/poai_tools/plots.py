"""Plots of what `poai bench engine` found, as PNG files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from poai_engine.errors import ModelError
from poai_tools.engine_bench import group

NEED_MATPLOTLIB = "plots need matplotlib: pip install 'poai[bench]', or leave --plots out"
ENGINES = {"exact": ("exact", "#2b6cb0"), "llama_cpp": ("llama.cpp", "#a0aec0")}
NAMES = ("engine-bars.png", "engine-batch.png", "engine-threads.png")


def check_matplotlib() -> Any:
    """Return `matplotlib.figure`.

    Raises:
        ModelError: it is not installed.
    """
    try:
        from matplotlib import figure  # noqa: PLC0415  the extra is optional
    except ImportError as error:
        raise ModelError(NEED_MATPLOTLIB) from error
    return figure


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the rates as bars beside the peer's, over the batch and over the threads; one panel a model.

    Args:
        result: of `engine_bench.run`.
        folder: where the files go; made if it is not there.

    Returns:
        The files.

    Raises:
        ModelError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    figures, models = check_matplotlib(), group(result["results"], "model")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, draw_panel in zip(NAMES, (_draw_bars, _draw_batches, _draw_threads), strict=True):
        figure = figures.Figure(figsize=(6 * len(models), 3.6), layout="constrained")
        for axes, (model, rows) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
            draw_panel(axes, rows)
            axes.set_title(model)
            axes.set_ylabel("tokens a second")
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, fontsize="small")
            axes.spines[["top", "right"]].set_visible(False)
        files.append(folder / name)
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
    return files


def _measured(rows: list[dict[str, Any]]) -> Iterable[tuple[str, str, str]]:
    """Yield key, name and colour of the engines that were measured."""
    for key, (name, colour) in ENGINES.items():
        if all(row[key] is not None for row in rows):
            yield key, name, colour


def _draw_bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    for number, (key, name, colour) in enumerate(_measured(rows)):
        spreads = [row["spread"][key] for row in rows]
        below, above = ([abs(s["median"] - s[end]) for s in spreads] for end in ("low", "high"))
        places = [place + 0.4 * number for place in range(len(rows))]
        axes.bar(places, [row[key] for row in rows], 0.38, yerr=(below, above), label=name, color=colour, capsize=2)
    labels = [f"{row['threads']} x {row['batch']}" for row in rows]
    axes.set_xticks([place + 0.2 for place in range(len(rows))], labels, fontsize="small")
    axes.set_xlabel("threads x quizzes a batch; the whiskers span all rounds")


def _draw_batches(axes: Any, rows: list[dict[str, Any]]) -> None:
    for threads, chosen in group(rows, "threads").items():
        _draw_lines(axes, chosen, "batch", f"threads {threads}", "-" if threads == 1 else "--")
    _set_ticks(axes, rows, "batch", "quizzes a batch")


def _draw_threads(axes: Any, rows: list[dict[str, Any]]) -> None:
    styles = ("-", "--", "-.", ":")
    for number, (batch, chosen) in enumerate(group(rows, "batch").items()):
        _draw_lines(axes, chosen, "threads", f"batch {batch}", styles[number % len(styles)])
    _set_ticks(axes, rows, "threads", "threads")


def _draw_lines(axes: Any, rows: list[dict[str, Any]], over: str, what: str, style: str) -> None:
    for key, name, colour in _measured(rows):
        axes.plot(
            [row[over] for row in rows], [row[key] for row in rows], style, marker="o", markersize=3,
            color=colour, label=f"{name}, {what}",
        )  # fmt: skip


def _set_ticks(axes: Any, rows: list[dict[str, Any]], over: str, label: str) -> None:
    axes.set_xscale("log", base=2)
    ticks = sorted({row[over] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(label)
