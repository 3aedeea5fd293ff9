"""How long an engine takes to be ready: `poai bench start`.

Every start is a process of its own. The exact engine's first start finds neither its weights nor its compiled code in
the caches, which lie in a folder made for the bench; later starts find both. llama.cpp reads the file each time. All of
them find the model's file in the system's page cache, and take turns.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from poai_bench.engine_bench import choose_models, find_model, make_quizzes, take
from poai_bench.engine_worker import load_llama_library
from poai_bench.measure import Say, Spread, Worker, describe_machine
from poai_engine.models.gguf_file import read_vocabulary
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE

ROUNDS, QUICK_ROUNDS = 5, 2
KINDS = ("cold", "cached", "llama_cpp")
PHASES = ("import", "load", "quiz")


def run(models: Sequence[str], threads: int, rounds: int, *, llama: bool, say: Say) -> dict[str, Any]:
    """Measure models one after another.

    Args:
        models: names or paths; none for those whose file is there.
        threads: of every engine.
        rounds: starts of each kind.
        llama: whether llama.cpp is started, too.
        say: takes one line of progress.

    Returns:
        `results`: by model, medians in seconds of the load: `cold`, `cached`, `llama_cpp` and `ratio`, cached to
        llama.cpp; and the phases' spreads.

    Raises:
        ModelError: a model's file is missing or damaged, or llama.cpp is not installed.
    """
    if llama:
        load_llama_library()
    machine = describe_machine()
    chosen = models or choose_models()
    results = [_measure(model, find_model(model, say), threads, rounds, llama, say) for model in chosen]
    return {"bench": "start", "machine": machine, "results": results}


def _measure(model: str, path: Path, threads: int, rounds: int, llama: bool, say: Say) -> dict[str, Any]:
    read_vocabulary(path)  # llama.cpp ends the process on some files that this refuses
    request = {"model": str(path.absolute()), "threads": threads, **take(make_quizzes(model), 1)}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS[: 3 if llama else 2]}
    for number in range(rounds):
        say(f"{model}: starts, round {number + 1} of {rounds}")
        with tempfile.TemporaryDirectory(prefix="poai-bench-") as folder:
            for kind, answers in found.items():
                answers.append(_start(kind, Path(folder), request))
    phases = {
        kind: {phase: asdict(Spread.of(answer[phase] for answer in answers)) for phase in PHASES}
        for kind, answers in found.items()
    }
    loads = {kind: phases[kind]["load"]["median"] for kind in found}
    ratio = loads["cached"] / loads["llama_cpp"] if llama else None
    return {"model": model, "threads": threads, "llama_cpp": None, **loads, "ratio": ratio, "phases": phases}


def _start(kind: str, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Start once; the caches of the exact engine lie in `folder`, which is empty at the first start."""
    environment = {CACHE_DIR_VARIABLE: str(folder / "weights"), "NUMBA_CACHE_DIR": str(folder / "code")}
    with Worker("poai_bench.start_worker", environment) as worker:
        return worker.ask("start", kind="llama_cpp" if kind == "llama_cpp" else "exact", **request)


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as a table."""
    table = Table("model", "start", "import, s", "load, s (lowest to highest)", "first quiz, s", "load, to llama.cpp's")
    names = {"cold": "exact, first", "cached": "exact, cached", "llama_cpp": "llama.cpp"}
    for row in result["results"]:
        for kind, phases in row["phases"].items():
            load = f"{phases['load']['median']:.2f} ({phases['load']['low']:.2f} to {phases['load']['high']:.2f})"
            ratio = f"{row[kind] / row['llama_cpp']:.2f}" if row["llama_cpp"] else "-"
            others = (f"{phases[phase]['median']:.2f}" for phase in ("import", "quiz"))
            table.add_row(row["model"], names[kind], next(others), load, next(others), ratio)
    return [table]
