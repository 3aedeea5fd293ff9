"""The exact engine: the page `inference` in NumPy, equal to it bit for bit and some thousand times faster.

Large products run as float32 BLAS calls within the bound that makes them exact (`products`); attention runs in float64,
where its sums stay below 2^53; everything else is int64. Rows of all sequences of a batch go through the linear maps
together. Head rows are computed only where a token is scored.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from poai_engine.decode import Ints
from poai_engine.exact_model import ExactMatrix, ExactModel, compute_exact_root, load_exact_model
from poai_engine.products import FloatMatrix, multiply
from poai_spec.engine import Evaluation
from poai_spec.fixed_point import LOG2E, cos_sin, log2_fixed, make_exp2_table
from poai_spec.inference import ACTIVATION_BITS, ACTIVATION_Q, RESIDUAL_Q, ROTATED_LIMIT, VALUE_LIMIT
from poai_spec.loss import compute_layer_entry, compute_output_entry
from poai_spec.notation import Hash32
from poai_spec.weights import GgufFile

MAX_BATCH_ROWS = 2_048
"""Token rows run at once: larger batches are cut, so scratch memory does not grow with the batch."""

_EXP2 = np.asarray(make_exp2_table(), np.int64)
_EXP2_STEP = _EXP2[:-1] - _EXP2[1:]


def round_shift(x: Ints, n: Ints | int) -> Ints:
    """`poai_spec.fixed_point.round_shift` on arrays; n >= 0."""
    n = np.asarray(n, np.int64)
    half = np.where(n > 0, np.int64(1) << np.maximum(n - 1, 0), 0)
    return np.asarray((x + half) >> n, np.int64)


def div_round(a: Ints, b: Ints) -> Ints:
    """`poai_spec.fixed_point.div_round` on arrays."""
    return np.asarray((2 * a + b) // (2 * b), np.int64)


def bit_length(x: Ints) -> Ints:
    """Bit lengths of integers 0 .. 2^53: float64 holds them exactly, so `frexp` gives the exponent."""
    return np.asarray(np.frexp(x.astype(np.float64))[1], np.int64)


def exp2_neg(d: Ints) -> Ints:
    """`poai_spec.fixed_point.exp2_neg` on arrays."""
    fraction, k = d & 0xFFFF, np.minimum(d >> 16, 31)
    j = fraction >> 8
    value = _EXP2[j] - ((_EXP2_STEP[j] * (fraction & 255) + 128) >> 8)
    return np.asarray(np.where(k >= 31, 0, value >> k), np.int64)


def isqrt(x: Ints) -> Ints:
    """Floor square roots of integers 0 .. 2^62: the float64 root, corrected by exact comparisons."""
    r = np.sqrt(x.astype(np.float64)).astype(np.int64)
    r -= r * r > x
    r += (r + 1) * (r + 1) <= x
    return np.asarray(r, np.int64)


class ArrayEngine:
    """A loaded model; satisfies `poai_spec.engine.Engine`.

    Args:
        gguf: a validated model file.
        threads: BLAS threads; None leaves the library's default.
        count_saturations: keep `saturations`, the number of values cut by each clamp; slower.

    Raises:
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """

    profile = b"w8a12"

    def __init__(self, gguf: GgufFile, threads: int | None = None, *, count_saturations: bool = False) -> None:
        self.model: ExactModel = load_exact_model(gguf)
        self.architecture = self.model.architecture
        self.layer_count = self.architecture.layer_count
        self.threads = threads
        self.saturations: Counter[str] | None = Counter() if count_saturations else None
        self._tables: dict[int, tuple[Ints, Ints]] = {}
        self._floats = {name: FloatMatrix.of(matrix) for name, matrix in self.model.matrices.items()}

    @cached_property
    def integer_model_root(self) -> Hash32:
        """The Keccak root of the loaded integers."""
        return compute_exact_root(self.model)

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run a batch of sequences of equal length; see `poai_spec.engine.Engine`."""
        if not tokens:
            return []
        size = max(1, MAX_BATCH_ROWS // len(tokens[0]))
        return [
            evaluation
            for at in range(0, len(tokens), size)
            for evaluation in self._run(tokens[at : at + size], scored[at : at + size])
        ]

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        """Run one sequence, yielding each trace entry as it is known; see `poai_spec.engine.Engine`."""
        trace: list[Hash32] = []
        residuals = self.residuals([tokens])
        for number, rows in enumerate(residuals, 1):
            trace.append(compute_layer_entry(number, rows[0, -1].tolist()))
            yield trace[-1]
        yield self._finish(rows, [tokens], [scored], [trace])[0]

    def _run(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        traces: list[list[Hash32]] = [[] for _ in tokens]
        for number, rows in enumerate(self.residuals(tokens), 1):
            for trace, last in zip(traces, rows[:, -1].tolist(), strict=True):
                trace.append(compute_layer_entry(number, last))
        return self._finish(rows, tokens, scored, traces)

    def residuals(self, tokens: Sequence[Sequence[int]]) -> Iterator[Ints]:
        """Yield the residual stream after each block, shape (B, T, D), int64 in Q14."""
        rows = self.model.embedding[np.asarray(tokens, np.int64)].astype(np.int64)
        for n in range(self.layer_count):
            with threadpool_limits(self.threads, "blas"):
                rows = self._block(n, rows)
            yield rows

    def logits(self, tokens: Sequence[int], positions: Sequence[int]) -> Ints:
        """Return the logits after some positions of one sequence, shape (len(positions), V), Q16."""
        *_, rows = self.residuals([tokens])
        with threadpool_limits(self.threads, "blas"):
            return self._head(self._norm("output_norm.weight", rows[0])[list(positions)])

    # One block. Shapes: B sequences, T positions, D width, H heads, d head_dim.

    def _block(self, n: int, x: Ints) -> Ints:
        blk = f"blk.{n}."
        batch, length, width = x.shape
        h = self._norm(blk + "attn_norm.weight", x.reshape(-1, width))
        quantised = quantise_rows(h)
        q = self._rotate(self._linear(blk + "attn_q.weight", quantised), length)
        k = self._rotate(self._linear(blk + "attn_k.weight", quantised), length)
        v = self._clip("attn_v", self._linear(blk + "attn_v.weight", quantised), VALUE_LIMIT)
        o = self._attend(q, k, v, batch, length)
        flat = x.reshape(-1, width) + self._linear(blk + "attn_output.weight", quantise_rows(o), RESIDUAL_Q)
        flat = self._clip("residual", flat, 31)
        quantised = quantise_rows(self._norm(blk + "ffn_norm.weight", flat))
        gate, up = (self._linear(f"{blk}{name}.weight", quantised) for name in ("ffn_gate", "ffn_up"))
        act = self._swiglu(gate, up)
        flat = flat + self._linear(blk + "ffn_down.weight", quantise_rows(act), RESIDUAL_Q)
        return self._clip("residual", flat, 31).reshape(x.shape)

    def _clip(self, name: str, x: Ints, bits: int) -> Ints:
        low, high = -(1 << bits), (1 << bits) - 1
        if self.saturations is not None:
            self.saturations[name] += int(((x < low) | (x > high)).sum())
        return np.clip(x, low, high)

    def _linear(self, name: str, quantised: tuple[Ints, NDArray[np.float32]], q_out: int = ACTIVATION_Q) -> Ints:
        """Multiply, scale and round in float64: `acc * M_o` plus its half is below 2^53 (K <= 2^15), so exact."""
        matrix, (e, a) = self.model.matrices[name], quantised
        product = multiply(a, self._floats[name]) * matrix.multipliers.astype(np.float64)
        return self._clip("linear", self._scale(product, matrix, e, q_out), 31)

    @staticmethod
    def _scale(product: NDArray[np.float64], matrix: ExactMatrix, e: Ints, q_out: int) -> Ints:
        shift = (matrix.k + 24 + ACTIVATION_Q - q_out - e)[:, None]
        product += np.where(shift > 0, np.ldexp(0.5, np.maximum(shift, 0)), 0.0)
        scaled = np.floor(np.ldexp(product, -shift))  # a power of two: exact; beyond int64 only before the clamp
        return np.clip(scaled, -(2.0**40), 2.0**40).astype(np.int64)

    def _norm(self, name: str, x: Ints) -> Ints:
        numerator, denominator = self.architecture.epsilon.as_ratio()
        s = np.maximum(bit_length(np.abs(x).max(axis=1)) - 24, -8)[:, None]
        xs = np.where(s > 0, round_shift(x, np.maximum(s, 0)), x << np.maximum(-s, 0))
        epsilons = np.asarray([_epsilon(numerator, denominator, n) for n in range(-8, 9)], np.int64)
        mean = (xs * xs).sum(axis=1, keepdims=True) // x.shape[1] + epsilons[s + 8]
        r = isqrt(mean << 12)
        inv = np.where(r > 0, (np.int64(1) << 53) // np.maximum(r, 1), 0)
        return round_shift(round_shift(xs * inv, 31) * self.model.gains[name].astype(np.int64), 16)

    def _rotate(self, x: Ints, length: int) -> Ints:
        a = self.architecture
        pairs = x.reshape(-1, length, x.shape[1] // a.head_dim, a.head_dim // 2, 2)
        cos, sin = self._angles(length)
        even = pairs[..., 0] * cos - pairs[..., 1] * sin
        odd = pairs[..., 0] * sin + pairs[..., 1] * cos
        turned = round_shift(np.stack([even, odd], axis=-1), 19)
        return self._clip("rotated", turned, ROTATED_LIMIT).reshape(x.shape)

    def _angles(self, length: int) -> tuple[Ints, Ints]:
        """Return cosines and sines, Q15, shape (length, 1, head_dim / 2); kept for each length that occurs."""
        if length not in self._tables:
            d, base = self.architecture.head_dim, self.architecture.rope_base.as_ratio()
            table = [[cos_sin(p, i, d, *base) for i in range(d // 2)] for p in range(length)]
            angles = np.asarray(table, np.int64).reshape(length, 1, d // 2, 2)
            self._tables[length] = (angles[..., 0].copy(), angles[..., 1].copy())
        return self._tables[length]

    def _attend(self, q: Ints, k: Ints, v: Ints, batch: int, length: int) -> Ints:
        """Weighted sums in float64: below T * 2^40, so exact."""
        a = self.architecture
        v5 = v.reshape(batch, length, a.kv_head_count, 1, a.head_dim).transpose(0, 2, 3, 1, 4).astype(np.float64)
        scores = self._scores(q, k, batch, length)
        future = np.triu(np.ones((length, length), bool), 1)
        largest = np.where(future, np.iinfo(np.int64).min, scores).max(axis=-1, keepdims=True)
        p = np.where(future, 0, round_shift(exp2_neg(np.maximum(largest - scores, 0)), 14))
        total = p.sum(axis=-1, keepdims=True)
        mixed = div_round((p.astype(np.float64) @ v5).astype(np.int64), total)
        return mixed.transpose(0, 3, 1, 2, 4).reshape(batch * length, a.head_count * a.head_dim)

    def _scores(self, q: Ints, k: Ints, batch: int, length: int) -> Ints:
        """Return base-2 scores, Q16, shape (B, KV, H / KV, T, T); dot products in float64, below hd * 2^40: exact."""
        a = self.architecture
        group = a.head_count // a.kv_head_count
        q5 = q.reshape(batch, length, a.kv_head_count, group, a.head_dim).transpose(0, 2, 3, 1, 4).astype(np.float64)
        k5 = k.reshape(batch, length, a.kv_head_count, 1, a.head_dim).transpose(0, 2, 3, 4, 1).astype(np.float64)
        dots = (q5 @ k5).astype(np.int64)
        return round_shift(round_shift(dots, 8) * self.model.attention_scale, 24)

    def _swiglu(self, g: Ints, u: Ints) -> Ints:
        t = exp2_neg(round_shift(np.abs(g) * LOG2E, 20))
        one = np.int64(1 << 30)
        sigma = div_round(np.where(g >= 0, one, t) << 16, one + t)
        return self._clip("act", round_shift(round_shift(g * sigma, 16) * u, 16), 31)

    # The end of the pass.

    def _head(self, normed: Ints) -> Ints:
        return self._linear(self.model.head, quantise_rows(normed))

    def _finish(
        self,
        rows: Ints,
        tokens: Sequence[Sequence[int]],
        scored: Sequence[Sequence[int]],
        traces: list[list[Hash32]],
    ) -> list[Evaluation]:
        length = rows.shape[1]
        with threadpool_limits(self.threads, "blas"):
            normed = self._norm("output_norm.weight", rows.reshape(-1, rows.shape[2]))
            wanted = [b * length + t - 1 for b, positions in enumerate(scored) for t in positions]
            targets = [tokens[b][t] for b, positions in enumerate(scored) for t in positions]
            nlls = iter(compute_nlls(self._head(normed[wanted]), np.asarray(targets, np.int64)) if wanted else [])
        exponents, quantised = quantise_rows(normed)
        e, a = exponents.reshape(-1, length), quantised.astype(np.int16).reshape(rows.shape)
        evaluations = []
        for b, trace in enumerate(traces):
            ours = tuple(next(nlls) for _ in scored[b])
            trace.append(compute_output_entry(e[b].tolist(), a[b].tolist(), ours))
            evaluations.append(Evaluation(ours, tuple(trace)))
        return evaluations


def _epsilon(numerator: int, denominator: int, s: int) -> int:
    """The page's eps' for a row scaled by s."""
    return (2 * (numerator << (28 - 2 * s)) + denominator) // (2 * denominator)


def quantise_rows(x: Ints) -> tuple[Ints, NDArray[np.float32]]:
    """`poai_spec.inference.quantise_row` on rows: exponents, shape (R,), and values as float32, shape (R, K)."""
    e = np.maximum(bit_length(np.abs(x).max(axis=1)) - ACTIVATION_BITS, 0)
    return e, round_shift(x, e[:, None]).astype(np.float32)


def compute_nlls(logits: Ints, targets: Ints) -> list[int]:
    """`poai_spec.inference.compute_nll` on rows: logits of shape (R, V), Q16; bits in Q16."""
    distances = round_shift((logits.max(axis=1, keepdims=True) - logits) * LOG2E, 20)
    sums = exp2_neg(distances).sum(axis=1).tolist()
    ours = distances[np.arange(len(targets)), targets].tolist()
    return [log2_fixed(total) - (30 << 16) + d for total, d in zip(sums, ours, strict=True)]
