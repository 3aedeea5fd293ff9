"""Two plots of `poai bench engine`: the rates beside those of llama.cpp's best type, and over the batch."""

from collections.abc import Iterable
from typing import Any

from poai_bench.engine_bench import group
from poai_bench.plots.style import FAINT, LINE, OTHER, OURS, label_line, make_figure

ENGINES = {"exact": ("exact", OURS), "best": ("llama.cpp", OTHER)}
BAR = 0.36


def draw_rates(result: dict[str, Any]) -> Any:
    """Draw the rates as bars, a panel for each model; the whiskers span all rounds."""
    models = group(result["results"], "model")
    figure = make_figure(90 + 44 * max(map(len, models.values())))
    for axes, (model, rows) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        for number, (key, name, colour) in enumerate(_list_measured(rows)):
            places = [place + (number - 0.5) * (BAR + 0.04) for place in range(len(rows))]
            _draw_bars(axes, rows, key, places, colour, name)
        labels = [f"{_count(row['threads'], 'thread')}, batch {row['batch']}" for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(left=False)
        axes.set(ylim=(len(rows) - 0.45, -0.55), xlabel="tokens a second")
        axes.set_xlim(0, 1.18 * max(_get_spread(row, key)["high"] for row in rows for key, *_ in _list_measured(rows)))
        axes.set_title(model)
    return figure


def draw_batches(result: dict[str, Any]) -> Any:
    """Draw the rates over the batch, a line for each engine and number of threads."""
    models = group(result["results"], "model")
    figure = make_figure(340)
    for axes, (model, rows) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        for key, name, colour in _list_measured(rows):
            for threads, chosen in group(rows, "threads").items():
                axes.plot(
                    [row["batch"] for row in chosen],
                    [_get_rate(row, key) for row in chosen],
                    "o-",
                    color=colour,
                    markersize=4,
                )
                text = f"{name}, {_count(threads, 'thread')}"
                label_line(
                    axes, chosen[-1]["batch"], _get_rate(chosen[-1], key), text, colour, offset=(0, 11), ha="right"
                )
        batches = sorted({row["batch"] for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.xaxis.minorticks_off()
        axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
        axes.grid(axis="y", color=LINE)
        axes.set_xlabel("quizzes a batch")
        axes.set_title(f"{model}, tokens a second")
    return figure


def _draw_bars(axes: Any, rows: list[dict[str, Any]], key: str, places: list[float], colour: str, name: str) -> None:
    spreads = [_get_spread(row, key) for row in rows]
    below, above = ([abs(spread["median"] - spread[end]) for spread in spreads] for end in ("low", "high"))
    whiskers = {"ecolor": FAINT, "elinewidth": 1}
    axes.barh(places, [_get_rate(row, key) for row in rows], BAR, xerr=(below, above), color=colour, error_kw=whiskers)
    names = [f" {name}", *[""] * (len(rows) - 1)]  # beside the first bar, for all
    for place, row, spread, shown in zip(places, rows, spreads, names, strict=True):
        label_line(axes, spread["high"], place, f"{_get_rate(row, key):.0f}{shown}", colour, offset=(5, 0), va="center")


def _get_rate(row: dict[str, Any], key: str) -> float:
    """Return tokens a second, the median."""
    return float(row["exact"] if key == "exact" else row["best"]["tokens_per_second"])


def _get_spread(row: dict[str, Any], key: str) -> dict[str, float]:
    spread: dict[str, float] = row["spread"]["exact" if key == "exact" else row["best"]["type"]]
    return spread


def _list_measured(rows: list[dict[str, Any]]) -> Iterable[tuple[str, str, str]]:
    """Return key, name and colour of the engines that were measured."""
    return [(key, *how) for key, how in ENGINES.items() if all(row[key] is not None for row in rows)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
