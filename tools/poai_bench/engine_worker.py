"""One process of `poai bench engine`: the exact engine, llama.cpp, or the processor's peak, alone in its memory.

Times are taken here, around the batch and nothing else: not around the messages, and for llama.cpp not around filling
its batch and scoring its logits. What both engines find is handed back, so that the bench sees that they did the same.
"""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poai_bench.measure import get_peak_memory, serve
from poai_engine.engines.exact import open_engine
from poai_engine.engines.llama_log import silence
from poai_engine.errors import ModelError
from poai_engine.kernels import steps as kernels
from poai_engine.kernels.tile import FOUR, get_tile

Quizzes = Sequence[Sequence[int]]
NEED_LLAMA = "llama.cpp is not installed: pip install 'poai[llama]', or leave the comparison out with --no-llama"
NATS = np.log(2) / 2**16  # of one unit of a loss, which is in bits, Q16
CELLS = 256
"""llama.cpp rounds each sequence's part of the key and value cache up to this many positions."""
PEAK_SECONDS = 0.1
"""Of one measurement of the peak, about."""
LLAMA_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7}
"""llama.cpp's numbers of the types that a model is requantised to (`llama_ftype`)."""


class Runner(Protocol):
    """What runs batches of quizzes of equal length."""

    def prepare(self, batch: int, length: int, scored: int) -> None:
        """Get ready for batches of a size."""

    def run(self, tokens: Quizzes, scored: Quizzes) -> tuple[float, float]:
        """Return the seconds that a batch takes, and the mean loss of its scored tokens, nats."""


class ExactRunner:
    """The exact engine; its time includes scoring and the hashes of the trace."""

    def __init__(self, path: Path, threads: int) -> None:
        self.engine = open_engine(path, threads)

    def prepare(self, batch: int, length: int, scored: int) -> None:
        """Do nothing: the engine takes batches of any size."""

    def run(self, tokens: Quizzes, scored: Quizzes) -> tuple[float, float]:
        """Run a batch; see `Runner`."""
        start = perf_counter()
        evaluations = self.engine.evaluate(tokens, scored)
        seconds = perf_counter() - start
        return seconds, float(np.mean([nll for found in evaluations for nll in found.nlls])) * NATS

    def decode(self, tokens: Quizzes, prompt: int) -> float:
        """Return the seconds for all tokens behind the prompts, one of each sequence at a time, with its logits."""
        cache = self.engine.make_cache(len(tokens), len(tokens[0]))
        self.engine.extend(cache, [ids[:prompt] for ids in tokens])
        start = perf_counter()
        for t in range(prompt, len(tokens[0])):
            self.engine.extend(cache, [ids[t : t + 1] for ids in tokens])
        return perf_counter() - start


class LlamaRunner:
    """llama.cpp through its C interface, with the library's defaults for speed; see the page Performance.

    A batch is one call of `llama_decode`, each quiz a sequence of its own, logits only where a token is scored.
    """

    def __init__(self, path: Path, threads: int, ubatch: int) -> None:
        self.library = load_llama_library()
        self.threads, self.ubatch = threads, ubatch
        parameters = self.library.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = self.library.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise ModelError(f"llama.cpp cannot load {path.name}")
        self.vocabulary_size = self.library.llama_vocab_n_tokens(self.library.llama_model_get_vocab(self.model))
        self.context: Any = None
        self.batch: Any = None

    def prepare(self, batch: int, length: int, scored: int) -> None:
        """Make a context and a batch of the size."""
        if self.context:
            self.library.llama_batch_free(self.batch)
            self.library.llama_free(self.context)
        parameters = self.library.llama_context_default_params()
        parameters.n_ctx = batch * -(-length // CELLS) * CELLS
        parameters.n_batch, parameters.n_ubatch = batch * length, min(self.ubatch, batch * length)
        parameters.n_seq_max, parameters.n_outputs_max = batch, batch * scored
        parameters.n_threads = parameters.n_threads_batch = self.threads
        self.context = self.library.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise ModelError(f"llama.cpp makes no context for {batch} quizzes: choose smaller batches with --batch")
        self.batch = self.library.llama_batch_init(batch * length, 0, 1)

    def run(self, tokens: Quizzes, scored: Quizzes) -> tuple[float, float]:
        """Run a batch; see `Runner`."""
        self._fill(tokens, scored)
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), False)
        start = perf_counter()
        status = self.library.llama_decode(self.context, self.batch)
        self.library.llama_synchronize(self.context)
        seconds = perf_counter() - start
        if status:
            raise ModelError(f"llama.cpp does not run a batch of {len(tokens)} quizzes (status {status})")
        targets = [tokens[n][t] for n, positions in enumerate(scored) for t in positions]
        return seconds, compute_mean_loss(self._get_logits(len(targets)), np.asarray(targets))

    def decode(self, tokens: Quizzes, prompt: int) -> float:
        """Return the seconds for all tokens behind the prompts, one of each sequence at a time, with its logits."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), False)
        last = [[prompt] for _ in tokens]
        self._decode([ids[:prompt] for ids in tokens], last, 0)
        start = perf_counter()
        for t in range(prompt, len(tokens[0])):
            self._decode([ids[t : t + 1] for ids in tokens], [[1]] * len(tokens), t)
            self._get_logits(len(tokens))
        return perf_counter() - start

    def _decode(self, tokens: Quizzes, scored: Quizzes, first: int) -> None:
        self._fill(tokens, scored, first)
        if self.library.llama_decode(self.context, self.batch):
            raise ModelError("llama.cpp does not decode one token at a time")
        self.library.llama_synchronize(self.context)

    def _fill(self, tokens: Quizzes, scored: Quizzes, first: int = 0) -> None:
        row, batch = 0, self.batch
        for sequence, ids in enumerate(tokens):
            wanted = {first + t - 1 for t in scored[sequence]}
            for position, token in enumerate(ids, first):
                batch.token[row], batch.pos[row] = token, position
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
                batch.logits[row] = position in wanted
                row += 1
        batch.n_tokens = row

    def _get_logits(self, rows: int) -> NDArray[np.float32]:
        """Return the logits of the last batch, in the order in which they were asked for."""
        found = self.library.llama_get_logits(self.context)
        return np.ctypeslib.as_array(found, (rows, self.vocabulary_size)).copy()


class PeakRunner:
    """The processor's products of bytes, and nothing else."""

    def __init__(self, threads: int) -> None:
        self.threads, tile = threads, get_tile()
        self.has_instruction = tile.product != "pairs"
        self.operations = 2 * FOUR * tile.lanes * tile.rows * tile.vectors
        self.values, self.count = np.ones(64, np.int32), 1000
        self.pool = ThreadPoolExecutor(threads)

    def run(self) -> float | None:
        """Return operations a second, an addition and a multiplication each; None where there is no instruction."""
        if not self.has_instruction:
            return None
        kernels.repeat(self.values, 1)
        while self._time() < PEAK_SECONDS:
            self.count *= 2
        return self.threads * self.count * self.operations / min(self._time() for _ in range(3))

    def _time(self) -> float:
        start = perf_counter()
        list(self.pool.map(lambda _: kernels.repeat(self.values, self.count), range(self.threads)))
        return perf_counter() - start


def requantise(path: Path, kind: str, folder: Path, threads: int) -> Path:
    """Return a model file in another of llama.cpp's types, made by llama.cpp; kept in a folder.

    Raises:
        ModelError: llama.cpp is not installed, or cannot convert the file.
    """
    made = folder / f"{path.stem}.{kind}.gguf"
    if not made.is_file():
        library, part = load_llama_library(), made.with_suffix(".part")
        parameters = library.llama_model_quantize_default_params()
        parameters.ftype, parameters.allow_requantize, parameters.nthread = LLAMA_TYPES[kind], True, threads
        if library.llama_model_quantize(str(path).encode(), str(part).encode(), ctypes.byref(parameters)):
            raise ModelError(f"llama.cpp cannot convert {path.name} to {kind}")
        part.replace(made)
    return made


def compute_mean_loss(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of the targets, nats."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(targets)), targets]))


def load_llama_library() -> Any:
    """Return llama-cpp-python's C interface, silent.

    Raises:
        ModelError: it is not installed.
    """
    try:
        from llama_cpp import llama_cpp as library  # noqa: PLC0415  the extra is optional
    except ImportError as error:
        raise ModelError(NEED_LLAMA) from error
    silence()
    library.llama_backend_init()
    return library


class Session:
    """What the process was asked to load."""

    def __init__(self) -> None:
        self.runner: Any = None

    def load(self, kind: str, threads: int, model: str = "", ubatch: int = 0) -> dict[str, Any]:
        """Load an engine; the seconds are those of the load alone."""
        start = perf_counter()
        if kind == "exact":
            self.runner = ExactRunner(Path(model), threads)
        elif kind == "llama_cpp":
            self.runner = LlamaRunner(Path(model), threads, ubatch)
        else:
            self.runner = PeakRunner(threads)
        return {"seconds": perf_counter() - start}

    def prepare(self, batch: int, tokens: Quizzes, scored: Quizzes) -> dict[str, Any]:
        """Get ready for a size of batch, and run one quiz that does not count."""
        self.runner.prepare(batch, len(tokens[0]), len(scored[0]))
        self.runner.run(tokens, scored)
        return {}

    def run(self, tokens: Quizzes, scored: Quizzes) -> dict[str, Any]:
        """Run a batch."""
        seconds, loss = self.runner.run(tokens, scored)
        return {"seconds": seconds, "loss": loss, "peak_memory": get_peak_memory()}

    def decode(self, tokens: Quizzes, prompt: int) -> dict[str, Any]:
        """Generate by the tokens given, one at a time."""
        return {"seconds": self.runner.decode(tokens, prompt)}

    def peak(self) -> dict[str, Any]:
        """Measure the peak."""
        return {"rate": self.runner.run()}


def main() -> None:
    """Answer requests."""
    session = Session()
    serve({name: getattr(session, name) for name in ("load", "prepare", "run", "decode", "peak")})


if __name__ == "__main__":
    main()
