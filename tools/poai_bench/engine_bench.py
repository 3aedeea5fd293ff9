"""How fast the exact engine runs quizzes, beside llama.cpp in the same run: `poai bench engine`.

The engines run in processes of their own and take turns, batch by batch, on the same quizzes, so that whatever else
the machine does falls on both.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.table import Table

from poai_bench.engine_worker import load_llama_library
from poai_bench.flags import UBATCH
from poai_bench.measure import Say, Spread, Worker, describe_machine
from poai_engine.models.gguf_file import read_gguf, read_vocabulary
from poai_engine.models.model_names import SYNTHETIC_MODELS
from poai_engine.models.model_store import fetch_model, get_model_path, resolve_model
from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.integer_model import Architecture, read_architecture
from poai_spec.proof.quiz import Quiz, generate_quiz
from poaid.models import get_known_model

BATCHES, QUICK_BATCHES = (1, 4, 16, 64), (1, 4)
ROUNDS, QUICK_ROUNDS = 5, 3
QUICK_SECONDS = 2.0
"""Of one combination: once they are over, no further round begins."""


@dataclass(frozen=True)
class BenchPlan:
    """What to measure.

    Attributes:
        threads: counts of threads.
        batches: quizzes a batch.
        rounds: measurements of each combination.
        seconds: after as many, a combination gets no further round; None for no limit.
        llama: whether llama.cpp runs beside.
        ubatch: tokens that llama.cpp computes at once.
    """

    threads: Sequence[int]
    batches: Sequence[int] = BATCHES
    rounds: int = ROUNDS
    seconds: float | None = None
    llama: bool = True
    ubatch: int = UBATCH


def choose_models() -> list[str]:
    """Return the models whose file is there: SmolLM2, else mini; and TinyLlama's shape."""
    first = "smollm2" if get_model_path("smollm2").is_file() else "mini"
    return [first, *(["tinyllama-shape"] if get_model_path("tinyllama-shape").is_file() else [])]


def find_model(name_or_path: str, say: Say) -> Path:
    """Return a model's file; a synthetic one is made on first use."""
    if name_or_path in SYNTHETIC_MODELS:
        if not get_model_path(name_or_path).is_file():
            say(f"making {get_model_path(name_or_path)}" + (" (668 MB)" if name_or_path != "mini" else ""))
        return fetch_model(name_or_path, say)
    return resolve_model(name_or_path)


def make_quizzes(model: str) -> Iterator[Quiz]:
    """Yield quizzes of the testnet's size in the model's own tokens."""
    known, number = get_known_model(model), 0
    config = make_config("testnet", known.manifest)
    while True:
        yield generate_quiz(keccak256(b"poai bench" + uint64_le(number)), get_rules(config, (), 0), known.lexicon)
        number += 1


def take(quizzes: Iterator[Quiz], count: int) -> dict[str, Any]:
    """Return the next quizzes as a worker takes them."""
    taken = [next(quizzes) for _ in range(count)]
    return {"tokens": [quiz.tokens for quiz in taken], "scored": [quiz.scored for quiz in taken]}


def count_operations(a: Architecture, length: int, scored: int) -> int:
    """Return the floating-point operations that a quiz needs: two for each multiply-add.

    Counted are the linear maps of every position, the head at the scored ones, and in the attention the products with
    the keys and the values of the positions up to each one's own.
    """
    heads, kv = a.head_count * a.head_dim, a.kv_head_count * a.head_dim
    linear = a.width * (2 * heads + 2 * kv) + 3 * a.width * a.ffn_width
    attention = 2 * heads * length * (length + 1) // 2
    return 2 * (a.layer_count * (length * linear + attention) + scored * a.width * a.vocabulary_size)


def run(models: Sequence[str], plan: BenchPlan, say: Say) -> dict[str, Any]:
    """Measure models one after another.

    Returns:
        `results`, one entry for each model, number of threads and batch; rates are medians, tokens a second.

    Raises:
        ModelError: a model's file is missing or damaged, or llama.cpp is not installed.
    """
    if plan.llama:
        load_llama_library()
    machine = describe_machine()
    results: list[dict[str, Any]] = []
    for model in models or choose_models():
        path = find_model(model, say)
        read_vocabulary(path)  # llama.cpp ends the process on some files that this refuses
        for threads in plan.threads:
            results += _measure(model, path, threads, plan, say)
    return {"bench": "engine", "machine": machine, "plan": asdict(plan), "results": results}


def _measure(model: str, path: Path, threads: int, plan: BenchPlan, say: Say) -> Iterator[dict[str, Any]]:
    """Yield the result of each batch, all with one number of threads and one set of processes."""
    quizzes, architecture = make_quizzes(model), read_architecture(read_gguf(path))
    with ExitStack() as stack:
        workers = {
            kind: stack.enter_context(Worker("poai_bench.engine_worker"))
            for kind in ("exact", *(["llama_cpp"] if plan.llama else []), "sgemm")
        }
        say(f"{model}, threads {threads}: loading")
        loads = {
            kind: worker.ask("load", kind=kind, threads=threads, model=str(path.absolute()), ubatch=plan.ubatch)
            for kind, worker in workers.items()
        }
        sgemm = workers.pop("sgemm")
        for batch in plan.batches:
            say(f"{model}, threads {threads}, batch {batch}")
            result = {"model": model, "threads": threads, "batch": batch}
            result |= _measure_batch(workers, sgemm, quizzes, batch, plan, architecture)
            yield result | {"load_seconds": {kind: loads[kind]["seconds"] for kind in workers}}


def _measure_batch(
    workers: dict[str, Worker], sgemm: Worker, quizzes: Iterator[Quiz], batch: int, plan: BenchPlan, a: Architecture
) -> dict[str, Any]:
    """Let the workers take turns on the same quizzes."""
    first = take(quizzes, 1)
    for worker in workers.values():
        worker.ask("prepare", batch=batch, **first)
    answers: dict[str, list[dict[str, Any]]] = {kind: [] for kind in workers}
    peaks, start = [], monotonic()
    for number in range(plan.rounds):
        if number and plan.seconds is not None and monotonic() - start > plan.seconds:
            break
        peaks.append(sgemm.ask("sgemm")["rate"])
        request = take(quizzes, batch)
        for kind, worker in workers.items():
            answers[kind].append(worker.ask("run", **request))
    length, scored = len(first["tokens"][0]), len(first["scored"][0])
    rates = {kind: Spread.of(batch * length / answer["seconds"] for answer in found) for kind, found in answers.items()}
    llama = rates["llama_cpp"].median if plan.llama else None
    operations = rates["exact"].median / length * count_operations(a, length, scored)
    return {
        "exact": rates["exact"].median,
        "llama_cpp": llama,
        "ratio": rates["exact"].median / llama if llama else None,
        "tokens_a_quiz": length,
        "quizzes_a_second": {kind: rate.median / length for kind, rate in rates.items()},
        "spread": {kind: asdict(rate) for kind, rate in rates.items()},
        "operations_a_second": operations,
        "sgemm_peak": max(peaks),
        "sgemm_share": operations / max(peaks),
        "peak_memory": {kind: max(answer["peak_memory"] for answer in found) for kind, found in answers.items()},
        "mean_loss": {kind: sum(answer["loss"] for answer in found) / len(found) for kind, found in answers.items()},
    }


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as tables: the rates of each model, and memory."""
    tables = [_make_rates(model, rows) for model, rows in group(result["results"], "model").items()]
    memory = Table("model", "threads", "exact, MB", "llama.cpp, MB", title="Peak memory, with the largest batch")
    for model, rows in group(result["results"], "model").items():
        for threads, of_threads in group(rows, "threads").items():
            peaks = (_show_memory(of_threads[-1]["peak_memory"].get(kind)) for kind in ("exact", "llama_cpp"))
            memory.add_row(model, str(threads), *peaks)
    return [*tables, memory]


def _make_rates(model: str, rows: list[dict[str, Any]]) -> Table:
    table = Table("threads", "batch", "exact", "llama.cpp", "ratio", "quizzes/s", "of sgemm's peak")
    table.title = f"{model}, quizzes of {rows[0]['tokens_a_quiz']} tokens, tokens a second: median (lowest-highest)"
    for row in rows:
        both = [_show_rate(row["spread"].get(kind)) for kind in ("exact", "llama_cpp")]
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        share, quizzes = f"{row['sgemm_share']:.0%}", f"{row['quizzes_a_second']['exact']:.2f}"
        table.add_row(str(row["threads"]), str(row["batch"]), *both, ratio, quizzes, share)
    return table


def group(rows: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    """Return rows by the value of a key, in their order."""
    return {value: [row for row in rows if row[key] == value] for value in dict.fromkeys(row[key] for row in rows)}


def _show_rate(rate: dict[str, float] | None) -> str:
    return "-" if rate is None else f"{rate['median']:.0f} ({rate['low']:.0f}-{rate['high']:.0f})"


def _show_memory(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"
