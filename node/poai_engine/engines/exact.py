"""The exact engine: the page `inference` in compiled integer loops, equal to it bit for bit.

The rows of all sequences of a chunk lie side by side; sequences may differ in length. A chunk is as many sequences as
fit `CHUNK_ROWS`, so scratch memory does not grow with the batch. Threads run chunks of their own where there are
enough, and share the rows of one chunk otherwise: either way `threads` is the number that compute, the caller's too.

A `Cache` keeps the keys and values of sequences, so that they can be extended by any number of tokens at a time. No
row's numbers depend on which rows run beside it, so whatever the order, each token's logits have the same bits.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poai_engine.errors import ModelError
from poai_engine.kernels import steps as kernels
from poai_engine.kernels.code_cache import take_notices
from poai_engine.kernels.tile import FOUR, PANEL, TILE_ROWS, WIDE_PANEL
from poai_engine.models.packed import PackedModel, Say, freeze, make_angles, pack_model, pack_weights
from poai_engine.models.weight_cache import open_packed_model
from poai_spec.basics.notation import Hash32, tagged_hash, uint32_le, uint64_le
from poai_spec.model.engine import Evaluation
from poai_spec.model.fixed_point import div_round, get_transform_size, log2_fixed
from poai_spec.model.inference import ACTIVATION_Q, RESIDUAL_Q
from poai_spec.model.integer_model import MAX_INNER, Architecture
from poai_spec.model.weights import GgufFile

CHUNK_ROWS = 512
"""Token rows that one thread runs at once: a layer's inputs then stay in a core's second-level cache."""

HEAD_ROWS = 64
"""Rows of logits made at once; with 32,000 tokens they take 8 MiB."""

Int32 = NDArray[np.int32]
Quantised: TypeAlias = tuple[NDArray[np.int8], NDArray[np.uint8], NDArray[np.float64], Int32]
"""Rows as `kernels.quantise_rows` writes them: values, scales, factors, and what sums start from."""


def make_quantised(rows: int, columns: int) -> Quantised:
    """Return room for quantised rows, padded to whole tiles; what is not written is 0."""
    height = _round_up(rows, TILE_ROWS)
    a, scales = np.zeros((height, _round_up(columns, FOUR)), np.int8), np.zeros((height, 3), np.uint8)
    return a, scales, np.zeros(height), np.zeros(height, np.int32)


def cut_quantised(quantised: Quantised, rows: slice) -> Quantised:
    """Return some rows, from a tile's first, padded to whole tiles."""
    a, scales, factors, starts = quantised
    padded = slice(rows.start, _round_up(rows.stop, TILE_ROWS))
    return a[padded], scales[padded], factors[padded], starts[padded]


class Cache:
    """Keys and values of some sequences, and how many tokens of each they cover.

    Args:
        a: the model's shape.
        sequences: how many; they are told apart by their number.
        capacity: tokens that each can grow to.
    """

    def __init__(self, a: Architecture, sequences: int, capacity: int) -> None:
        places, kv = sequences * capacity + WIDE_PANEL, a.kv_head_count * a.head_dim
        self.capacity, self.lengths = capacity, [0] * sequences
        self.layers = [(np.zeros((kv, places)), np.zeros((places, kv))) for _ in range(a.layer_count)]


class Chunk:
    """Sequences, or the next tokens of some, that run together, and all that is written while they do. R rows in all.

    Attributes:
        tokens: token ids of each sequence.
        ends: the row behind each sequence's last.
        positions: int32, shape (R,): each row's place in its sequence.
        origins: int32, shape (R,): where the keys and values of each row's sequence begin.
        places: int32, shape (R,): where each row's own key and value are.
        x: int32, shape (R, D): the residual, Q14.
    """

    def __init__(self, model: PackedModel, tokens: Sequence[Sequence[int]], cache: Cache | None = None) -> None:
        a, lengths = model.architecture, np.asarray([len(ids) for ids in tokens])
        self.tokens = tokens
        ends = np.cumsum(lengths)
        self.ends: list[int] = ends.tolist()
        rows = self.ends[-1]
        done, origins = np.zeros_like(lengths), ends - lengths
        if cache is not None:
            done, origins = np.asarray(cache.lengths), np.arange(len(lengths)) * cache.capacity
        self.positions = (np.arange(rows) - np.repeat(ends - lengths - done, lengths)).astype(np.int32)
        self.origins = np.repeat(origins, lengths).astype(np.int32)
        self.places = self.origins + self.positions
        self.x = model.embedding[np.concatenate([np.asarray(ids, np.int64) for ids in tokens])].astype(np.int32)
        heads, kv = a.head_count * a.head_dim, a.kv_head_count * a.head_dim
        self.normed = make_quantised(rows, a.width)
        self.mixed, self.act = (make_quantised(rows, width)[0] for width in (heads, a.ffn_width))
        self.q, self.k, self.v = (np.empty((rows, width), np.int32) for width in (heads, kv, kv))
        self.rotated = np.zeros((rows + TILE_ROWS, heads))  # a sequence's last tile may begin at any row
        self.gate, self.up = (np.empty((rows, a.ffn_width), np.int32) for _ in range(2))
        self._layers = (
            cache.layers if cache else [(np.zeros((kv, rows + WIDE_PANEL)), np.zeros((rows + WIDE_PANEL, kv)))]
        )

    def get_keys_and_values(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return those of a block: without a cache all blocks use the same room, one after the other."""
        return self._layers[n % len(self._layers)]

    def cut(self, parts: int) -> list[slice]:
        """Return the rows in as many parts, each but the last of whole tiles; some may be empty."""
        size = _round_up(-(-len(self.x) // parts), TILE_ROWS)
        return [slice(min(n * size, len(self.x)), min((n + 1) * size, len(self.x))) for n in range(parts)]


class ExactEngine:
    """A loaded model; satisfies `poai_spec.model.engine.Engine`.

    Args:
        model: a validated model file, or its packed integers.
        threads: threads that compute; None for one a processor.

    Raises:
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """

    profile = b"w8a8"

    def __init__(self, model: GgufFile | PackedModel, threads: int | None = None) -> None:
        self.model = pack_model(model) if isinstance(model, GgufFile) else model
        self.architecture = a = self.model.architecture
        self.layer_count = a.layer_count
        self.integer_model_root = self.model.root
        self.threads = threads or count_processors()
        self._pool = ThreadPoolExecutor(self.threads, "poai-engine")
        numerator, denominator = a.epsilon.as_ratio()
        self._epsilons = np.asarray([div_round(numerator << (28 - 2 * s), denominator) for s in range(-8, 9)])
        self._angles = self.model.angles
        self._growing = Lock()
        heads = a.head_count * a.head_dim
        self._blocks = [
            (
                tuple(self._prepare_matrix(f"blk.{n}.attn_{part}.weight", a.width) for part in "qkv"),
                (
                    self._prepare_matrix(f"blk.{n}.attn_output.weight", heads, RESIDUAL_Q),
                    self._prepare_matrix(f"blk.{n}.ffn_gate.weight", a.width),
                    self._prepare_matrix(f"blk.{n}.ffn_up.weight", a.width),
                    self._prepare_matrix(f"blk.{n}.ffn_down.weight", a.ffn_width, RESIDUAL_Q),
                ),
            )
            for n in range(a.layer_count)
        ]
        self._head = self._prepare_matrix(self.model.head, a.width)

    def _prepare_matrix(self, name: str, inputs: int, q_out: int = ACTIVATION_Q) -> tuple[Any, Any, float]:
        """Return what `kernels.multiply` takes."""
        matrix = self.model.matrices[name]
        shift = matrix.k + 24 + ACTIVATION_Q - q_out + 2 + get_transform_size(inputs).bit_length() - 1
        return matrix.q, matrix.multipliers, 2.0**-shift

    def warm_up(self, say: Say = lambda _: None) -> None:
        """Run two tokens, so that everything is compiled and every weight is in memory; say so if it takes long."""
        if not kernels.are_kept():
            say("compiling the engine for this processor, once: some ten seconds")
        self.evaluate([[0, 0]], [[1]])
        for line in take_notices():
            say(line)

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run a batch of sequences, of any lengths; see `poai_spec.model.engine.Engine`."""
        check_sequences(tokens, scored)
        bounds = self._cut([len(ids) for ids in tokens])
        results: list[list[Evaluation]] = [[] for _ in bounds]

        def run(n: int, threads: int) -> None:
            start, stop = bounds[n]
            results[n] = self._run(Chunk(self.model, tokens[start:stop]), scored[start:stop], threads)

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
        check_sequences([tokens], [scored])
        chunk, trace = self._start(tokens), list[Hash32]()
        for n in range(self.layer_count):
            self._run_layer(n, chunk, self.threads)
            trace.append(hash_layer(n + 1, chunk.x[-1]))
            yield trace[-1]
        yield self._finish(chunk, [scored], [trace], self.threads)[0]

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
        return self._multiply_head(self._norm_output(chunk, self.threads), positions, self.threads)

    # Decoding.

    def make_cache(self, sequences: int, capacity: int) -> Cache:
        """Return room for so many sequences of up to `capacity` tokens, all empty."""
        self._prepare(capacity)
        return Cache(self.architecture, sequences, capacity)

    def extend(self, cache: Cache, tokens: Sequence[Sequence[int]]) -> Int32:
        """Run the next tokens of the sequences of a cache: many of a prompt, one of a generation, none of a sequence.

        Args:
            cache: from `make_cache`; it covers the tokens afterwards.
            tokens: of each sequence.

        Returns:
            The logits after the last token of each sequence that has one here, Q16, in order; shape (S, V).
        """
        lengths = [length + len(ids) for length, ids in zip(cache.lengths, tokens, strict=True)]
        if max(lengths, default=0) > cache.capacity or not any(tokens):
            raise ValueError(f"no token at all, or more than {cache.capacity} of a sequence")
        logits: list[Int32 | None] = [None] * len(tokens)
        while any(tokens):
            piece, tokens = take_rows(tokens)
            chunk = Chunk(self.model, piece, cache)
            for n in range(self.layer_count):
                self._run_layer(n, chunk, self.threads)
            cache.lengths = [length + len(ids) for length, ids in zip(cache.lengths, piece, strict=True)]
            ended = [n for n, ids in enumerate(piece) if ids and not tokens[n]]
            last = [chunk.ends[n] - 1 for n in ended]
            found = self._multiply_head(self._norm_output(chunk, self.threads), last, self.threads)
            for n, row in zip(ended, found, strict=True):
                logits[n] = row
        return np.stack([row for row in logits if row is not None])

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

    def _start(self, tokens: Sequence[int]) -> Chunk:
        self._prepare(len(tokens))
        return Chunk(self.model, [tokens])

    def _prepare(self, length: int) -> None:
        """Check the products once, and make the angles, Q15, of as many positions."""
        check_products()
        with self._growing:  # compiled code checks no bounds: the table never gets shorter
            if self._angles.shape[1] < length:
                self._angles = freeze(make_angles(self.architecture, length))

    def _run(self, chunk: Chunk, scored: Sequence[Sequence[int]], threads: int) -> list[Evaluation]:
        traces: list[list[Hash32]] = [[] for _ in chunk.tokens]
        for n in range(self.layer_count):
            self._run_layer(n, chunk, threads)
            for trace, end in zip(traces, chunk.ends, strict=True):
                trace.append(hash_layer(n + 1, chunk.x[end - 1]))
        return self._finish(chunk, scored, traces, threads)

    def _run_layer(self, n: int, chunk: Chunk, threads: int) -> None:
        """Run a block; every row needs the keys and values of earlier ones, so all are made before the second half."""
        self._share_rows(chunk, threads, lambda rows: self._project(n, chunk, rows))
        self._share_rows(chunk, threads, lambda rows: self._finish_layer(n, chunk, rows))

    def _project(self, n: int, chunk: Chunk, rows: slice) -> None:
        """Make queries, keys and values of some rows."""
        keys, values = chunk.get_keys_and_values(n)
        kernels.project_rows(
            chunk.x[rows], self.model.gains[f"blk.{n}.attn_norm.weight"], self._epsilons, chunk.positions[rows],
            self._angles, self._blocks[n][0], cut_quantised(chunk.normed, rows),
            (chunk.q[rows], chunk.k[rows], chunk.v[rows]), chunk.places[rows], chunk.rotated[rows], keys, values,
        )  # fmt: skip

    def _finish_layer(self, n: int, chunk: Chunk, rows: slice) -> None:
        """Run attention and the feed-forward part on some rows."""
        keys, values = chunk.get_keys_and_values(n)
        padded = slice(rows.start, _round_up(rows.stop, TILE_ROWS))
        kernels.finish_rows(
            chunk.rotated[rows.start :], keys, values, chunk.origins[rows], chunk.places[rows],
            self.model.attention_scale, self.architecture.head_dim, chunk.x[rows],
            self.model.gains[f"blk.{n}.ffn_norm.weight"], self._epsilons, self._blocks[n][1],
            cut_quantised(chunk.normed, rows), (chunk.mixed[padded], chunk.act[padded]),
            (chunk.q[rows], chunk.gate[rows], chunk.up[rows]),  # the queries themselves are in `rotated` by now
        )  # fmt: skip

    # The end of the pass.

    def _norm_output(self, chunk: Chunk, threads: int) -> Quantised:
        """Return the head's inputs at every row."""
        quantised, gains = make_quantised(len(chunk.x), self.architecture.width), self.model.gains["output_norm.weight"]

        def work(rows: slice) -> None:
            kernels.norm_rows(chunk.x[rows], gains, self._epsilons, *cut_quantised(quantised, rows))

        self._share_rows(chunk, threads, work)
        return quantised

    def _multiply_head(self, quantised: Quantised, at: Sequence[int], threads: int) -> Int32:
        """Return the logits of some rows."""
        chosen = make_quantised(len(at), self.architecture.width)
        for n in range(len(chosen)):
            chosen[n][: len(at)] = quantised[n][list(at)]
        logits = np.empty((len(at), self.architecture.vocabulary_size), np.int32)
        size = _round_up(-(-len(at) // threads), TILE_ROWS)

        def work(part: int) -> None:
            rows = slice(part * size, min((part + 1) * size, len(at)))
            if rows.stop > rows.start:
                a, _, factors, starts = cut_quantised(chosen, rows)
                kernels.multiply(a, factors, starts, self._head, 2.0**31, False, logits[rows])

        self._share(threads, work)
        return logits

    def _finish(
        self, chunk: Chunk, scored: Sequence[Sequence[int]], traces: list[list[Hash32]], threads: int
    ) -> list[Evaluation]:
        quantised = self._norm_output(chunk, threads)
        a, scales = quantised[0][:, : self.architecture.width], quantised[1]
        evaluations, nlls, start = [], iter(self._score(chunk, scored, quantised, threads)), 0
        for trace, positions, end in zip(traces, scored, chunk.ends, strict=True):
            ours = tuple(next(nlls) for _ in positions)
            trace.append(hash_output(scales[start:end], a[start:end], ours))
            evaluations.append(Evaluation(ours, tuple(trace)))
            start = end
        return evaluations

    def _score(
        self, chunk: Chunk, scored: Sequence[Sequence[int]], quantised: Quantised, threads: int
    ) -> Iterator[int]:
        """Yield the scored negative log-likelihoods, bits in Q16."""
        starts = [0, *chunk.ends]
        wanted = [starts[n] + t - 1 for n, positions in enumerate(scored) for t in positions]
        targets = [chunk.tokens[n][t] for n, positions in enumerate(scored) for t in positions]
        for at in range(0, len(wanted), HEAD_ROWS):
            logits = self._multiply_head(quantised, wanted[at : at + HEAD_ROWS], threads)
            yield from compute_nlls(logits, np.asarray(targets[at : at + HEAD_ROWS], np.int64))


def take_rows(tokens: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Return the first tokens of sequences, `CHUNK_ROWS` at most, and the others."""
    room, first, others = CHUNK_ROWS, list[Sequence[int]](), list[Sequence[int]]()
    for ids in tokens:
        first.append(ids[:room])
        others.append(ids[room:])
        room -= len(first[-1])
    return first, others


def check_sequences(tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> None:
    """Refuse a sequence without tokens, or a scored position outside 1 .. T - 1."""
    if any(not ids or any(not 1 <= t < len(ids) for t in ts) for ids, ts in zip(tokens, scored, strict=True)):
        raise ValueError("a sequence without tokens, or a scored position outside 1 .. T - 1")


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
    rng = np.random.default_rng(0)
    for rows, columns in ((1, MAX_INNER), (TILE_ROWS, MAX_INNER), (TILE_ROWS + 2, 12)):
        x, q = rng.integers(-127, 128, (rows, columns)), rng.integers(-127, 128, (PANEL + 1, columns))
        x[0], q[0], q[1] = 127, -127, 127
        a, _, factors, starts = make_quantised(rows, columns)
        a[:rows], factors[:], starts[:rows] = x, 1.0, kernels.BIAS * x.sum(axis=1)
        out, matrix = np.zeros((rows, len(q)), np.int32), (pack_weights(q.astype(np.int8)), np.ones(len(q)), 2.0**-4)
        kernels.multiply(a, factors, starts, matrix, 2.0**31, False, out)
        if not np.array_equal(out, (x @ q.T + 8) >> 4):
            raise ModelError(
                "the compiled products are wrong on this processor: report it with its name and Numba's version"
            )


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def compute_nlls(logits: NDArray[np.signedinteger], targets: NDArray[np.int64]) -> list[int]:
    """`poai_spec.model.inference.compute_nll` on rows: logits of shape (R, V), Q16; bits in Q16."""
    sums, distances = np.empty(len(logits), np.int64), np.empty(len(logits), np.int64)
    kernels.score_rows(logits, targets, sums, distances)
    return [log2_fixed(total) - (30 << 16) + d for total, d in zip(sums.tolist(), distances.tolist(), strict=True)]


def hash_layer(layer: int, row: Int32) -> Hash32:
    """`poai_spec.model.loss.compute_layer_entry` of a row, without a Python integer for each value."""
    return tagged_hash("PoAI/trace/1", uint32_le(layer), row.astype("<i4").tobytes())


def hash_output(scales: NDArray[np.uint8], inputs: NDArray[np.int8], nlls: Sequence[int]) -> Hash32:
    """`poai_spec.model.loss.compute_output_entry` of a sequence's rows, without a Python integer for each value."""
    rows = np.concatenate([scales, inputs.view(np.uint8)], axis=1)
    return tagged_hash("PoAI/trace-output/1", rows.tobytes(), *map(uint64_le, nlls))
