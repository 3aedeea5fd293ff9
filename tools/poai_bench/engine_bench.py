"""How fast the exact engine runs quizzes, beside llama.cpp in the same run: `poai bench engine`.

The engines run in processes of their own and take turns, batch by batch, on the same quizzes, so that whatever else
the machine does falls on all. llama.cpp runs in several of its types: the model's file as it is, and requantised by
llama.cpp to those that its kernels are fastest at. The comparison is with the best of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.table import Table

from poai_bench.engine_worker import LLAMA_TYPES, load_llama_library, requantise
from poai_bench.flags import UBATCH
from poai_bench.measure import Say, Spread, Worker, describe_machine
from poai_engine.engines.exact import count_processors
from poai_engine.models.gguf_file import read_gguf, read_vocabulary
from poai_engine.models.model_names import SYNTHETIC_MODELS
from poai_engine.models.model_store import fetch_model, get_model_path, resolve_model
from poai_engine.models.weight_cache import get_cache_dir
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
PROMPT = 32
"""Tokens of a quiz that are read before the others are decoded one at a time."""
DECODE_BATCHES = (1, 4)


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
    decoding: list[dict[str, Any]] = []
    for model in models or choose_models():
        path = find_model(model, say)
        read_vocabulary(path)  # llama.cpp ends the process on some files that this refuses
        files = list_types(path, say) if plan.llama else {}
        for threads in plan.threads:
            with ExitStack() as stack:
                say(f"{model}, threads {threads}: loading")
                engines = Engines(stack, path, files, threads, plan)
                quizzes, where = make_quizzes(model), {"model": model, "threads": threads}
                for batch in plan.batches:
                    say(f"{model}, threads {threads}, batch {batch}")
                    results.append(where | {"batch": batch} | engines.measure(quizzes, batch))
                for batch in (size for size in plan.batches if size in DECODE_BATCHES):
                    say(f"{model}, threads {threads}, batch {batch}: decoding")
                    decoding.append(where | {"batch": batch} | engines.measure_decoding(quizzes, batch))
    return {"bench": "engine", "machine": machine, "plan": asdict(plan), "results": results, "decoding": decoding}


def list_types(path: Path, say: Say) -> dict[str, Path]:
    """Return the files that llama.cpp runs, by type: the model's own, and requantised ones, made on first use."""
    own, folder = describe_type(path), get_cache_dir() / "llama.cpp"
    folder.mkdir(parents=True, exist_ok=True)
    files = {own: path}
    for kind in LLAMA_TYPES:
        if kind != own:
            say(f"{path.name} in llama.cpp's {kind}")
            files[kind] = requantise(path, kind, folder, count_processors())
    return files


def describe_type(path: Path) -> str:
    """Return the type that most of a file's weights have."""
    sizes: Counter[str] = Counter()
    for tensor in read_gguf(path).tensors.values():
        sizes[tensor.type] += tensor.shape[0] * tensor.shape[-1]
    return sizes.most_common(1)[0][0]


class Engines:
    """The processes that take turns, all with one number of threads.

    Args:
        stack: closes them.
        path: the model's file, for the exact engine.
        files: what llama.cpp runs, by type.
        threads: of each engine.
        plan: what to measure.
    """

    def __init__(self, stack: ExitStack, path: Path, files: dict[str, Path], threads: int, plan: BenchPlan) -> None:
        self.plan, self.architecture, self.types = plan, read_architecture(read_gguf(path)), list(files)
        kinds = {"exact": ("exact", path)} | {kind: ("llama_cpp", file) for kind, file in files.items()}
        self.workers: dict[str, Worker] = {}
        self.load_seconds: dict[str, float] = {}
        for name, (kind, file) in kinds.items():
            worker = self.workers[name] = stack.enter_context(Worker("poai_bench.engine_worker"))
            answer = worker.ask("load", kind=kind, threads=threads, model=str(file.absolute()), ubatch=plan.ubatch)
            self.load_seconds[name] = answer["seconds"]
        self.peak = stack.enter_context(Worker("poai_bench.engine_worker"))
        self.peak.ask("load", kind="peak", threads=threads)

    def _rounds(self) -> Iterator[int]:
        start = monotonic()
        for number in range(self.plan.rounds):
            if number and self.plan.seconds is not None and monotonic() - start > self.plan.seconds:
                return
            yield number

    def _compare(self, rates: dict[str, Spread]) -> dict[str, Any]:
        """Return what is told of all engines' rates; the ratio is that of the medians, to the best of llama.cpp's."""
        types = {kind: rates[kind].median for kind in self.types}
        best = max(types, key=types.__getitem__) if types else None
        return {
            "exact": rates["exact"].median,
            "llama_cpp": types or None,
            "best": {"type": best, "tokens_per_second": types[best]} if best else None,
            "ratio": rates["exact"].median / types[best] if best else None,
            "spread": {kind: asdict(rate) for kind, rate in rates.items()},
        }

    def measure(self, quizzes: Iterator[Quiz], batch: int) -> dict[str, Any]:
        """Let the engines take turns on the same quizzes."""
        first = take(quizzes, 1)
        for worker in self.workers.values():
            worker.ask("prepare", batch=batch, **first)
        answers: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self.workers}
        peaks = []
        for _ in self._rounds():
            peaks.append(self.peak.ask("peak")["rate"])
            request = take(quizzes, batch)
            for kind, worker in self.workers.items():
                answers[kind].append(worker.ask("run", **request))
        length, scored = len(first["tokens"][0]), len(first["scored"][0])
        rates = {kind: _get_rates(found, batch * length) for kind, found in answers.items()}
        operations = rates["exact"].median / length * count_operations(self.architecture, length, scored)
        peak = None if None in peaks else max(peaks)
        return self._compare(rates) | {
            "tokens_a_quiz": length,
            "quizzes_a_second": {kind: rate.median / length for kind, rate in rates.items()},
            "operations_a_second": operations,
            "peak": peak,
            "peak_share": operations / peak if peak else None,
            "load_seconds": self.load_seconds,
            "peak_memory": {kind: max(answer["peak_memory"] for answer in found) for kind, found in answers.items()},
            "mean_loss": {
                kind: sum(answer["loss"] for answer in found) / len(found) for kind, found in answers.items()
            },
        }

    def measure_decoding(self, quizzes: Iterator[Quiz], batch: int) -> dict[str, Any]:
        """Let the engines decode the second half of the same quizzes, one token of each at a time."""
        for worker in self.workers.values():
            worker.ask("prepare", batch=batch, **take(quizzes, batch))
        answers: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self.workers}
        count = 0
        for _ in self._rounds():
            tokens = take(quizzes, batch)["tokens"]
            count = batch * (len(tokens[0]) - PROMPT)
            for kind, worker in self.workers.items():
                answers[kind].append(worker.ask("decode", tokens=tokens, prompt=PROMPT))
        return self._compare({kind: _get_rates(found, count) for kind, found in answers.items()})


def _get_rates(answers: Sequence[dict[str, Any]], tokens: int) -> Spread:
    return Spread.of(tokens / answer["seconds"] for answer in answers)


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as tables: the rates of each model, read and decoded, and memory."""
    tables = [_make_rates(model, rows) for model, rows in group(result["results"], "model").items()]
    decoded = group(result.get("decoding", []), "model")
    tables += [_make_rates(model, rows, decoding=True) for model, rows in decoded.items()]
    memory = Table(
        "model", "threads", "exact, MB", "llama.cpp (best type), MB", title="Peak memory, with the largest batch"
    )
    for model, rows in group(result["results"], "model").items():
        for threads, of_threads in group(rows, "threads").items():
            last = of_threads[-1]
            best = last["best"]["type"] if last["best"] else None
            peaks = (_show_memory(last["peak_memory"].get(kind)) for kind in ("exact", best))
            memory.add_row(model, str(threads), *peaks)
    return [*tables, memory]


def _make_rates(model: str, rows: list[dict[str, Any]], *, decoding: bool = False) -> Table:
    types = list(rows[0]["llama_cpp"] or {})
    table = Table("threads", "batch", "exact", *types, "to the best")
    table.title = (
        f"{model}, one token of each at a time"
        if decoding
        else f"{model}, quizzes of {rows[0]['tokens_a_quiz']} tokens"
    )
    table.title += ", tokens a second: median (lowest-highest)"
    if not decoding:
        table.add_column("quizzes/s")
        table.add_column("of the int8 peak")
    for row in rows:
        rates = [_show_rate(row["spread"].get(kind)) for kind in ("exact", *types)]
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f} ({row['best']['type']})"
        cells = [str(row["threads"]), str(row["batch"]), *rates, ratio]
        if not decoding:
            share = "-" if row["peak_share"] is None else f"{row['peak_share']:.0%}"
            cells += [f"{row['quizzes_a_second']['exact']:.2f}", share]
        table.add_row(*cells)
    return table


def group(rows: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    """Return rows by the value of a key, in their order."""
    return {value: [row for row in rows if row[key] == value] for value in dict.fromkeys(row[key] for row in rows)}


def _show_rate(rate: dict[str, float] | None) -> str:
    return "-" if rate is None else f"{rate['median']:.0f} ({rate['low']:.0f}-{rate['high']:.0f})"


def _show_memory(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"
