"""One process of `poai bench engine`: the exact engine, llama.cpp or NumPy's sgemm, alone in its memory.

Times are taken here, around the batch and nothing else: not around the messages, and for llama.cpp not around filling
its batch and scoring its logits. What both engines find is handed back, so that the bench sees that they did the same.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from poai_bench.measure import get_peak_memory, serve
from poai_engine.engines.exact import open_engine
from poai_engine.engines.llama_log import silence
from poai_engine.errors import ModelError

Quizzes = Sequence[Sequence[int]]
NEED_LLAMA = "llama.cpp is not installed: pip install 'poai[llama]', or leave the comparison out with --no-llama"
NATS = np.log(2) / 2**16  # of one unit of a loss, which is in bits, Q16
CELLS = 256
"""llama.cpp rounds each sequence's part of the key and value cache up to this many positions."""
SGEMM_SHAPES = ((1024, 1024, 1024), (2048, 1024, 2048), (1024, 4096, 1024))
"""Rows, inner and columns. The best of them counts as the peak; larger ones were no faster."""


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

    def _fill(self, tokens: Quizzes, scored: Quizzes) -> None:
        row, batch = 0, self.batch
        for sequence, ids in enumerate(tokens):
            wanted = {t - 1 for t in scored[sequence]}
            for position, token in enumerate(ids):
                batch.token[row], batch.pos[row] = token, position
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
                batch.logits[row] = position in wanted
                row += 1
        batch.n_tokens = row

    def _get_logits(self, rows: int) -> NDArray[np.float32]:
        """Return the logits of the last batch, in the order in which they were asked for."""
        found = self.library.llama_get_logits(self.context)
        return np.ctypeslib.as_array(found, (rows, self.vocabulary_size)).copy()


class SgemmRunner:
    """NumPy's float32 matrix product."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        rng = np.random.default_rng(0)
        self.factors = [
            (rng.random((rows, inner), np.float32), rng.random((columns, inner), np.float32).T)
            for rows, inner, columns in SGEMM_SHAPES
        ]

    def run(self) -> float:
        """Return the best rate over the shapes, floating-point operations a second."""
        rates: list[float] = []
        with threadpool_limits(self.threads, "blas"):
            for a, b in self.factors:
                start = perf_counter()
                a @ b
                rates.append(2.0 * a.shape[0] * a.shape[1] * b.shape[1] / (perf_counter() - start))
        return max(rates)


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
            self.runner = SgemmRunner(threads)
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

    def sgemm(self) -> dict[str, Any]:
        """Measure the peak."""
        return {"rate": self.runner.run()}


def main() -> None:
    """Answer requests."""
    session = Session()
    serve({"load": session.load, "prepare": session.prepare, "run": session.run, "sgemm": session.sgemm})


if __name__ == "__main__":
    main()
