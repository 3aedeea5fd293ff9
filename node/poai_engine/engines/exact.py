"""The exact engine: the page `inference` in compiled integer loops, equal to it bit for bit.

The rows of all sequences of a chunk lie side by side; sequences may differ in length. A chunk is as many sequences as
fit `CHUNK_ROWS`, so scratch memory does not grow with the batch. Threads run chunks of their own where there are
enough, and share the rows of one chunk otherwise: either way `threads` is the number that compute, the caller's too.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from poai_engine.errors import ModelError
from poai_engine.kernels import steps as kernels
from poai_engine.kernels.code_cache import take_notices
from poai_engine.kernels.tile import PANEL, SEGMENT, TILE_ROWS, WIDE_PANEL
from poai_engine.models.packed import PackedMatrix, PackedModel, Say, make_angles, pack_model, pack_weights
from poai_engine.models.weight_cache import open_packed_model
from poai_spec.basics.notation import Hash32, tagged_hash, uint32_le, uint64_le
from poai_spec.model.engine import Evaluation
from poai_spec.model.fixed_point import div_round, log2_fixed
from poai_spec.model.inference import ACTIVATION_Q, RESIDUAL_Q, VALUE_LIMIT
from poai_spec.model.weights import GgufFile

CHUNK_ROWS = 256
"""Token rows that one thread runs at once: a layer's int16 inputs then stay in a core's second-level cache."""

HEAD_ROWS = 64
"""Rows of logits made at once; with 32,000 tokens they take 8 MiB."""

Int32 = NDArray[np.int32]


class Chunk:
    """Sequences that run together, and everything that is written while they do. R rows in all.

    Attributes:
        tokens: token ids of each sequence.
        scored: scored positions of each sequence.
        ends: the row behind each sequence's last.
        starts: int32, shape (R,): the row at which each row's sequence starts.
        positions: int32, shape (R,): each row's place in its sequence.
        x: int32, shape (R, D): the residual, Q14.
    """

    def __init__(self, model: PackedModel, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> None:
        self.tokens, self.scored = tokens, scored
        lengths = np.asarray([len(ids) for ids in tokens])
        if lengths.min() < 1 or any(not 1 <= t < len(ids) for ids, ts in zip(tokens, scored, strict=True) for t in ts):
            raise ValueError("a sequence without tokens, or a scored position outside 1 .. T - 1")
        ends = np.cumsum(lengths)
        self.ends: list[int] = ends.tolist()
        self.starts = np.repeat(ends - lengths, lengths).astype(np.int32)
        rows = len(self.starts)
        self.positions = (np.arange(rows) - self.starts).astype(np.int32)
        self.x = model.embedding[np.concatenate([np.asarray(ids, np.int64) for ids in tokens])].astype(np.int32)
        a = model.architecture
        heads, kv = a.head_count * a.head_dim, a.kv_head_count * a.head_dim
        self._widest = max(2 * matrix.q.shape[1] for matrix in model.matrices.values())
        self._inputs = np.empty(_round_up(rows) * self._widest, np.int16)
        self.exponents = np.empty(rows, np.int32)
        self.q, self.k, self.v = (np.empty((rows, width), np.int32) for width in (heads, kv, kv))
        self.rotated = np.zeros((rows + TILE_ROWS, heads))  # a sequence's last tile may begin at any row
        self.keys, self.values = np.zeros((kv, rows + WIDE_PANEL)), np.zeros((rows + WIDE_PANEL, kv))
        self.gate, self.up = (np.empty((rows, a.ffn_width), np.int32) for _ in range(2))

    def get_inputs(self, rows: slice, matrix: PackedMatrix) -> NDArray[np.int16]:
        """Return room for the quantised inputs of some rows, padded to whole tiles; each part has its own place."""
        height, width = _round_up(rows.stop - rows.start), 2 * matrix.q.shape[1]
        return self._inputs[rows.start * self._widest :][: height * width].reshape(height, width)

    def cut(self, parts: int) -> list[slice]:
        """Return the rows in as many parts, each but the last of whole tiles; some may be empty."""
        size = _round_up(-(-len(self.x) // parts))
        return [slice(min(n * size, len(self.x)), min((n + 1) * size, len(self.x))) for n in range(parts)]


class ExactEngine:
    """A loaded model; satisfies `poai_spec.model.engine.Engine`.

    Args:
        model: a validated model file, or its packed integers.
        threads: threads that compute; None for one a processor.

    Raises:
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """

    profile = b"w8a12"

    def __init__(self, model: GgufFile | PackedModel, threads: int | None = None) -> None:
        self.model = pack_model(model) if isinstance(model, GgufFile) else model
        self.architecture = self.model.architecture
        self.layer_count = self.architecture.layer_count
        self.integer_model_root = self.model.root
        self.threads = threads or count_processors()
        self._pool = ThreadPoolExecutor(self.threads, "poai-engine")
        numerator, denominator = self.architecture.epsilon.as_ratio()
        self._epsilons = np.asarray([div_round(numerator << (28 - 2 * s), denominator) for s in range(-8, 9)])
        self._angles = self.model.angles
        self._growing = Lock()

    def warm_up(self, say: Say = lambda _: None) -> None:
        """Run two tokens, so that everything is compiled and every weight is in memory; say so if it takes long."""
        if not kernels.are_kept():
            say("compiling the engine for this processor, once: some ten seconds")
        self.evaluate([[0, 0]], [[1]])
        for line in take_notices():
            say(line)

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run a batch of sequences, of any lengths; see `poai_spec.model.engine.Engine`."""
        bounds = self._cut([len(ids) for ids in tokens])
        results: list[list[Evaluation]] = [[] for _ in bounds]

        def run(n: int, threads: int) -> None:
            start, stop = bounds[n]
            results[n] = self._run(Chunk(self.model, tokens[start:stop], scored[start:stop]), threads)

        def run_every(part: int) -> None:
            for n in range(part, len(bounds), self.threads):
                run(n, 1)

        self._prepare(max(map(len, tokens), default=0))
        if len(bounds) < self.threads:
            for n in range(len(bounds)):
                run(n, self.threads)
        else:
            self._share(self.threads, run_every)
        return [evaluation for result in results for evaluation in result]

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        """Run one sequence, yielding each trace entry as it is known; see `poai_spec.model.engine.Engine`."""
        chunk, trace = self._start(tokens, scored), list[Hash32]()
        for n in range(self.layer_count):
            self._run_layer(n, chunk, self.threads)
            trace.append(hash_layer(n + 1, chunk.x[-1]))
            yield trace[-1]
        yield self._finish(chunk, [trace], self.threads)[0]

    def residuals(self, tokens: Sequence[int]) -> Iterator[Int32]:
        """Yield the residual stream of one sequence after each block, shape (T, D), Q14; valid until the next one."""
        chunk = self._start(tokens)
        for n in range(self.layer_count):
            self._run_layer(n, chunk, self.threads)
            yield chunk.x

    def logits(self, tokens: Sequence[int], positions: Sequence[int]) -> Int32:
        """Return the logits after some positions of one sequence, shape (len(positions), V), Q16."""
        chunk = self._start(tokens)
        for n in range(self.layer_count):
            self._run_layer(n, chunk, self.threads)
        inputs, exponents = self._norm_output(chunk, self.threads)
        return self._multiply_head(inputs, exponents, np.asarray(positions, np.int64), self.threads)

    # Threads.

    def _cut(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Cut a batch into runs of sequences: about one a thread at least, none of too many rows."""
        limit = min(CHUNK_ROWS, -(-sum(lengths) // self.threads))
        bounds, rows = [0], 0
        for n, length in enumerate(lengths):
            if n > bounds[-1] and rows + length > limit:
                bounds.append(n)
                rows = 0
            rows += length
        return list(pairwise([*bounds, len(lengths)])) if lengths else []

    def _share(self, parts: int, work: Callable[[int], None]) -> None:
        """Do `work(0)` here and the other parts in the pool; an error of any part is raised."""
        others = [self._pool.submit(work, part) for part in range(1, parts)]
        try:
            work(0)
        finally:
            wait(others)
        for other in others:
            other.result()

    def _share_rows(self, chunk: Chunk, threads: int, work: Callable[[slice], None]) -> None:
        parts = [rows for rows in chunk.cut(threads) if rows.stop > rows.start]
        self._share(len(parts), lambda part: work(parts[part]))

    # The pass.

    def _start(self, tokens: Sequence[int], scored: Sequence[int] = ()) -> Chunk:
        self._prepare(len(tokens))
        return Chunk(self.model, [tokens], [scored])

    def _prepare(self, length: int) -> None:
        """Check the products once, and make the angles, Q15, of as many positions."""
        check_products()
        with self._growing:  # compiled code checks no bounds: the table never gets shorter
            if self._angles.shape[1] < length:
                self._angles = make_angles(self.architecture, length)

    def _run(self, chunk: Chunk, threads: int) -> list[Evaluation]:
        traces: list[list[Hash32]] = [[] for _ in chunk.tokens]
        for n in range(self.layer_count):
            self._run_layer(n, chunk, threads)
            for trace, end in zip(traces, chunk.ends, strict=True):
                trace.append(hash_layer(n + 1, chunk.x[end - 1]))
        return self._finish(chunk, traces, threads)

    def _run_layer(self, n: int, chunk: Chunk, threads: int) -> None:
        """Run a block; every row needs the keys and values of earlier ones, so all are made before the second half."""
        self._share_rows(chunk, threads, lambda rows: self._project(f"blk.{n}.", chunk, rows))
        self._share_rows(chunk, threads, lambda rows: self._finish_layer(f"blk.{n}.", chunk, rows))

    def _project(self, blk: str, chunk: Chunk, rows: slice) -> None:
        """Make queries, keys and values of some rows."""
        matrices, positions = self.model.matrices, chunk.positions[rows]
        e = chunk.exponents[rows]
        inputs = chunk.get_inputs(rows, matrices[blk + "attn_q.weight"])
        kernels.norm_rows(chunk.x[rows], self.model.gains[blk + "attn_norm.weight"], self._epsilons, inputs, e)
        self._multiply(blk + "attn_q.weight", inputs, e, chunk.q[rows])
        self._multiply(blk + "attn_k.weight", inputs, e, chunk.k[rows])
        self._multiply(blk + "attn_v.weight", inputs, e, chunk.v[rows], limit=VALUE_LIMIT)
        kernels.rotate_rows(chunk.q[rows], positions, *self._angles, chunk.rotated[rows])
        kernels.rotate_rows(chunk.k[rows], positions, *self._angles, chunk.keys.T[rows])
        chunk.values[rows] = chunk.v[rows]

    def _finish_layer(self, blk: str, chunk: Chunk, rows: slice) -> None:
        """Run attention and the feed-forward part on some rows."""
        matrices, e, x = self.model.matrices, chunk.exponents[rows], chunk.x[rows]
        out = chunk.q[rows]  # the queries themselves are in `rotated` by now
        queries, first = chunk.rotated[rows.start :], rows.start
        scale, d = self.model.attention_scale, self.architecture.head_dim
        kernels.attend_rows(queries, chunk.keys, chunk.values, chunk.starts[rows], first, scale, d, out)
        inputs = chunk.get_inputs(rows, matrices[blk + "attn_output.weight"])
        kernels.quantise_rows(out, inputs, e)
        self._multiply(blk + "attn_output.weight", inputs, e, x, add=True)
        inputs = chunk.get_inputs(rows, matrices[blk + "ffn_gate.weight"])
        kernels.norm_rows(x, self.model.gains[blk + "ffn_norm.weight"], self._epsilons, inputs, e)
        self._multiply(blk + "ffn_gate.weight", inputs, e, chunk.gate[rows])
        self._multiply(blk + "ffn_up.weight", inputs, e, chunk.up[rows])
        inputs = chunk.get_inputs(rows, matrices[blk + "ffn_down.weight"])
        kernels.swiglu_rows(chunk.gate[rows], chunk.up[rows], inputs, e)
        self._multiply(blk + "ffn_down.weight", inputs, e, x, add=True)

    def _multiply(
        self, name: str, inputs: NDArray[np.int16], e: Int32, out: Int32, limit: int = 31, *, add: bool = False
    ) -> None:
        """Multiply; `add` goes to the residual, Q14, everything else is Q16."""
        matrix = self.model.matrices[name]
        shift = matrix.k + 24 + ACTIVATION_Q - (RESIDUAL_Q if add else ACTIVATION_Q)
        kernels.multiply(inputs, e, matrix.q, matrix.multipliers, shift, limit, add, out)

    # The end of the pass.

    def _norm_output(self, chunk: Chunk, threads: int) -> tuple[NDArray[np.int16], Int32]:
        """Return the head's inputs at every row: shape (R, D) and exponents, shape (R,)."""
        inputs, exponents = np.empty(chunk.x.shape, np.int16), np.empty(len(chunk.x), np.int32)
        gains = self.model.gains["output_norm.weight"]

        def work(rows: slice) -> None:
            kernels.norm_rows(chunk.x[rows], gains, self._epsilons, inputs[rows], exponents[rows])

        self._share_rows(chunk, threads, work)
        return inputs, exponents

    def _multiply_head(self, inputs: NDArray[np.int16], e: Int32, at: NDArray[np.int64], threads: int) -> Int32:
        """Return the logits of some rows."""
        matrix = self.model.matrices[self.model.head]
        chosen = np.zeros((_round_up(len(at)), 2 * matrix.q.shape[1]), np.int16)
        chosen[: len(at), : inputs.shape[1]] = inputs[at]
        logits = np.empty((len(at), matrix.outputs), np.int32)
        size = _round_up(-(-len(at) // threads))

        def work(part: int) -> None:
            rows = slice(part * size, min((part + 1) * size, len(at)))
            if rows.stop > rows.start:
                padded = chosen[rows.start : _round_up(rows.stop)]
                self._multiply(self.model.head, padded, e[at[rows]], logits[rows])

        self._share(threads, work)
        return logits

    def _finish(self, chunk: Chunk, traces: list[list[Hash32]], threads: int) -> list[Evaluation]:
        inputs, exponents = self._norm_output(chunk, threads)
        evaluations, nlls, start = [], iter(self._score(chunk, inputs, exponents, threads)), 0
        for trace, positions, end in zip(traces, chunk.scored, chunk.ends, strict=True):
            ours = tuple(next(nlls) for _ in positions)
            trace.append(hash_output(exponents[start:end], inputs[start:end], ours))
            evaluations.append(Evaluation(ours, tuple(trace)))
            start = end
        return evaluations

    def _score(self, chunk: Chunk, inputs: NDArray[np.int16], e: Int32, threads: int) -> Iterator[int]:
        """Yield the scored negative log-likelihoods, bits in Q16."""
        starts = [0, *chunk.ends]
        wanted = [starts[n] + t - 1 for n, positions in enumerate(chunk.scored) for t in positions]
        targets = [chunk.tokens[n][t] for n, positions in enumerate(chunk.scored) for t in positions]
        for at in range(0, len(wanted), HEAD_ROWS):
            rows = np.asarray(wanted[at : at + HEAD_ROWS], np.int64)
            logits = self._multiply_head(inputs, e, rows, threads)
            yield from compute_nlls(logits, np.asarray(targets[at : at + HEAD_ROWS], np.int64))


def open_engine(
    path: Path,
    threads: int | None = None,
    digest: Hash32 | None = None,
    say: Say = lambda _: None,
    root: Hash32 | None = None,
) -> ExactEngine:
    """Return an engine with a model file's kept weights. Compiled code is fetched or made by its first run.

    Args:
        path: a GGUF file.
        threads: threads that compute; None for one a processor.
        digest: the SHA-256 of the network's model; None takes any file.
        say: takes lines about what takes long at the first start.
        root: the network's integer-model root; None takes any.

    Raises:
        ModelError: the file cannot be read, is damaged, or is another one.
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """
    return ExactEngine(open_packed_model(path, digest, say, root), threads)


def count_processors() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def check_products() -> None:
    """Compare compiled products with NumPy's int64, at the bound of int32 and at random: once a process.

    Raises:
        ModelError: they differ, which no miner and no verifier must go on with.
    """
    rng, columns = np.random.default_rng(0), SEGMENT + 2
    a, q = rng.integers(-2048, 2049, (TILE_ROWS, columns)), rng.integers(-127, 128, (PANEL + 1, columns))
    a[0], q[0] = 2048, -127
    out, multipliers = np.zeros((TILE_ROWS, len(q)), np.int32), np.ones(len(q))
    e = np.zeros(TILE_ROWS, np.int32)
    kernels.multiply(a.astype(np.int16), e, pack_weights(q.astype(np.int8)), multipliers, 4, 31, False, out)
    if not np.array_equal(out, (a @ q.T + 8) >> 4):
        raise ModelError(
            "the compiled products are wrong on this processor: report it with its name and Numba's version"
        )


def _round_up(rows: int) -> int:
    return -(-rows // TILE_ROWS) * TILE_ROWS


def compute_nlls(logits: NDArray[np.signedinteger], targets: NDArray[np.int64]) -> list[int]:
    """`poai_spec.model.inference.compute_nll` on rows: logits of shape (R, V), Q16; bits in Q16."""
    sums, distances = np.empty(len(logits), np.int64), np.empty(len(logits), np.int64)
    kernels.score_rows(logits, targets, sums, distances)
    return [log2_fixed(total) - (30 << 16) + d for total, d in zip(sums.tolist(), distances.tolist(), strict=True)]


def hash_layer(layer: int, row: Int32) -> Hash32:
    """`poai_spec.model.loss.compute_layer_entry` of a row, without a Python integer for each value."""
    return tagged_hash("PoAI/trace/1", uint32_le(layer), row.astype("<i4").tobytes())


def hash_output(exponents: Int32, inputs: NDArray[np.int16], nlls: Sequence[int]) -> Hash32:
    """`poai_spec.model.loss.compute_output_entry` of a sequence's rows, without a Python integer for each value."""
    rows = np.empty(len(inputs), [("e", "<u4"), ("a", "<i2", inputs.shape[1:])])
    rows["e"], rows["a"] = exponents, inputs
    return tagged_hash("PoAI/trace-output/1", rows.tobytes(), *map(uint64_le, nlls))
