"""The exact pass in arrays: the page `inference`, equal to it bit for bit, with NumPy or with torch on a CPU or a GPU.

Products of int8 matrices are those of `products`; attention runs in float64, where its sums stay below 2^53; everything
else is int64. Rows of all sequences of a batch go through the linear maps together. Head rows are computed only where a
token is scored.

Weights are kept on a device of torch as they are, a byte each; for NumPy as float32, four bytes each. CUDA: unmeasured.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from poai_engine.engines.devices import NUMPY, Array, Device, fetch, get_device, open_torch
from poai_engine.engines.products import Weights, check_doubles, multiply, products_are_exact, put_weights
from poai_engine.models.decode import Ints
from poai_engine.models.exact_model import ExactMatrix, ExactModel, compute_exact_root, load_exact_model
from poai_engine.models.packed import PackedMatrix, PackedModel, Say, make_angles, unpack_weights
from poai_engine.models.weight_cache import open_packed_model
from poai_spec.basics.notation import Hash32
from poai_spec.model.engine import Evaluation
from poai_spec.model.fixed_point import EXP2_ONE, LOG2E, get_transform_size, log2_fixed, make_exp2_table
from poai_spec.model.inference import (
    ACTIVATION_LIMIT,
    ACTIVATION_Q,
    RESIDUAL_Q,
    ROTATED_LIMIT,
    SCALE_STEPS,
    TRANSFORM_BITS,
    VALUE_LIMIT,
)
from poai_spec.model.integer_model import get_tensor_shapes
from poai_spec.model.loss import compute_layer_entry, compute_output_entry
from poai_spec.model.weights import GgufFile

MAX_BATCH_ROWS = 2_048
"""Token rows run at once: larger batches are cut, so scratch memory does not grow with the batch."""


MAX_SCALE_EXPONENT = 20
"""Every e2 is below it: 4 * 2^20 <= 127 * 5 * 2^13; beyond that, room for smaller limits than 127."""


@cache
def _get_tables(device: Device) -> tuple[Array, Array, Array]:
    """Return the table of `exp2_neg`, its steps, and the powers of two up to 2^62."""
    table = np.asarray(make_exp2_table(), np.int64)
    return device.put(table), device.put(table[:-1] - table[1:]), device.put(np.int64(1) << np.arange(63))


def round_shift(x: Array, n: Array | int) -> Array:
    """`poai_spec.model.fixed_point.round_shift` on arrays of int64."""
    if isinstance(n, int):
        return (x + (1 << (n - 1))) >> n if n > 0 else x << -n
    xp = get_device(x).xp
    right, left = xp.clip(n, 0, 62), xp.clip(-n, 0, 62)
    return ((x << left) + ((1 << right) >> 1)) >> right


def div_round(a: Array, b: Array) -> Array:
    """`poai_spec.model.fixed_point.div_round` on arrays of int64, or on integers."""
    return (2 * a + b) // (2 * b)


def bit_length(x: Array) -> Array:
    """Bit lengths of integers 0 .. 2^63 - 1: how many powers of two they reach."""
    device = get_device(x)
    return device.xp.sum(device.xp.astype(x[..., None] >= _get_tables(device)[2], device.xp.int64), axis=-1)


def exp2_neg(d: Array) -> Array:
    """`poai_spec.model.fixed_point.exp2_neg` on arrays of int64."""
    device = get_device(d)
    table, steps, _ = _get_tables(device)
    fraction, k = d & 0xFFFF, device.xp.clip(d >> 16, 0, 31)  # the largest entry, 2^30, is 0 after a shift by 31
    j = fraction >> 8
    return (table[j] - ((steps[j] * (fraction & 255) + 128) >> 8)) >> k


def isqrt(x: Array) -> Array:
    """Floor square roots of integers 0 .. 2^62: the float64 root, corrected by exact comparisons."""
    xp = get_device(x).xp
    r = xp.astype(xp.sqrt(xp.astype(x, xp.float64)), xp.int64)
    r = r - xp.astype(r * r > x, xp.int64)
    return r + xp.astype((r + 1) * (r + 1) <= x, xp.int64)


@dataclass(eq=False)
class LoadedMatrix:
    """A linear map on a device.

    Attributes:
        k: exponent shared by the rows, plus log2 of the transforms' factor.
        multipliers: int64, shape (O,).
        weights: shape (O, K).
    """

    k: int
    multipliers: Array
    weights: Weights


def load_matrix(matrix: ExactMatrix | PackedMatrix, inputs: int, device: Device) -> LoadedMatrix:
    """Put a matrix of so many inputs on a device."""
    q = unpack_weights(matrix.q, matrix.outputs, inputs) if isinstance(matrix, PackedMatrix) else matrix.q
    multipliers = device.put(matrix.multipliers.astype(np.int64))
    k = matrix.k + get_transform_size(inputs).bit_length() - 1
    return LoadedMatrix(k, multipliers, put_weights(device.put(q)))


class ArrayEngine:
    """A loaded model; satisfies `poai_spec.model.engine.Engine`.

    Args:
        model: a validated model file, or its packed integers.
        threads: CPU threads of the products; None leaves the library's default.
        device: where to compute.
        count_saturations: keep `saturations`, the number of values cut by each clamp; slower.
        say: takes a line where the device's fast products cannot be used.

    Raises:
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
        ModelError: the device does not multiply exactly, or its memory is too small for the model.
    """

    profile = b"w8a8"

    def __init__(
        self,
        model: GgufFile | PackedModel,
        threads: int | None = None,
        *,
        device: Device = NUMPY,
        count_saturations: bool = False,
        say: Say = lambda _: None,
    ) -> None:
        self._integers = load_exact_model(model) if isinstance(model, GgufFile) else model
        self.architecture = a = self._integers.architecture
        self.layer_count = a.layer_count
        self.threads, self.device = threads, device
        self.saturations: Counter[str] | None = Counter() if count_saturations else None
        check_doubles(device)
        if not products_are_exact(device):
            say(f"fast products are not exact with {device}: float64 is used, which is slower")
        self._tables: dict[int, tuple[Array, Array]] = {}
        shapes = get_tensor_shapes(a, tied=self._integers.head == "token_embd.weight")
        numerator, denominator = a.epsilon.as_ratio()
        epsilons = [div_round(numerator << (28 - 2 * s), denominator) for s in range(-8, 9)]
        with device.computing(threads):
            self._epsilons = device.put(np.asarray(epsilons, np.int64))
            self._gains = {name: device.put(gain.astype(np.int64)) for name, gain in self._integers.gains.items()}
            matrices = self._integers.matrices.items()
            self._matrices = {name: load_matrix(matrix, shapes[name][1], device) for name, matrix in matrices}

    @property
    def model(self) -> ExactModel:
        """The integers of a model file, in memory; an engine made of packed integers has none in this form."""
        assert isinstance(self._integers, ExactModel)
        return self._integers

    @cached_property
    def integer_model_root(self) -> Hash32:
        """The Keccak root of the loaded integers."""
        return self._integers.root if isinstance(self._integers, PackedModel) else compute_exact_root(self._integers)

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run a batch of sequences of equal length; see `poai_spec.model.engine.Engine`."""
        if not tokens:
            return []
        size = max(1, MAX_BATCH_ROWS // len(tokens[0]))
        return [
            evaluation
            for at in range(0, len(tokens), size)
            for evaluation in self._run(tokens[at : at + size], scored[at : at + size])
        ]

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        """Run one sequence, yielding each trace entry as it is known; see `poai_spec.model.engine.Engine`."""
        trace: list[Hash32] = []
        for number, rows in enumerate(self._run_blocks([tokens]), 1):
            trace.append(compute_layer_entry(number, rows[0, -1].tolist()))
            yield trace[-1]
        yield self._finish(rows, [tokens], [scored], [trace])[0]

    def _run(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        traces: list[list[Hash32]] = [[] for _ in tokens]
        for number, rows in enumerate(self._run_blocks(tokens), 1):
            for trace, last in zip(traces, rows[:, -1].tolist(), strict=True):
                trace.append(compute_layer_entry(number, last))
        return self._finish(rows, tokens, scored, traces)

    def _run_blocks(self, tokens: Sequence[Sequence[int]]) -> Iterator[Array]:
        """Yield the residual stream after each block, on the device."""
        rows = self.device.put(self._integers.embedding[np.asarray(tokens, np.int64)].astype(np.int64))
        for n in range(self.layer_count):
            with self.device.computing(self.threads):
                rows = self._block(n, rows)
            yield rows

    def residuals(self, tokens: Sequence[Sequence[int]]) -> Iterator[Ints]:
        """Yield the residual stream after each block, shape (B, T, D), int64 in Q14."""
        yield from map(fetch, self._run_blocks(tokens))

    def logits(self, tokens: Sequence[int], positions: Sequence[int]) -> Ints:
        """Return the logits after some positions of one sequence, shape (len(positions), V), Q16."""
        *_, rows = self._run_blocks([tokens])
        with self.device.computing(self.threads):
            return fetch(self._head(self._norm("output_norm.weight", rows[0])[list(positions)]))

    # One block. Shapes: B sequences, T positions, D width, H heads, d head_dim.

    def _block(self, n: int, x: Array) -> Array:
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

    def _clip(self, name: str, x: Array, bits: int) -> Array:
        xp, low, high = self.device.xp, -(1 << bits), (1 << bits) - 1
        if self.saturations is not None:
            self.saturations[name] += int(xp.sum(xp.astype((x < low) | (x > high), xp.int64)))
        return xp.clip(x, low, high)

    def _linear(self, name: str, quantised: tuple[Array, Array], q_out: int = ACTIVATION_Q) -> Array:
        """Multiply, scale and round; the page's bounds hold every step in int64."""
        matrix, (scales, a) = self._matrices[name], quantised
        shift = matrix.k + 24 + ACTIVATION_Q - q_out + 2 - scales[:, 0:1] - scales[:, 1:2]
        products = multiply(a, matrix.weights) * matrix.multipliers * scales[:, 2:]
        return self._clip("linear", round_shift(products, shift), 31)

    def _norm(self, name: str, x: Array) -> Array:
        xp = self.device.xp
        s = xp.clip(bit_length(xp.max(xp.abs(x), axis=1, keepdims=True)) - 24, -8, 8)
        xs = round_shift(x, s)
        mean = xp.sum(xs * xs, axis=1, keepdims=True) // x.shape[1] + self._epsilons[s + 8]
        r = isqrt(mean << 12)
        inv = xp.where(r > 0, (1 << 53) // xp.clip(r, 1, None), 0)
        return round_shift(round_shift(xs * inv, 31) * self._gains[name], 16)

    def _rotate(self, x: Array, length: int) -> Array:
        a = self.architecture
        pairs = x.reshape(-1, length, x.shape[1] // a.head_dim, a.head_dim // 2, 2)
        cos, sin = self._angles(length)
        even = pairs[..., 0] * cos - pairs[..., 1] * sin
        odd = pairs[..., 0] * sin + pairs[..., 1] * cos
        turned = round_shift(self.device.xp.stack([even, odd], axis=-1), 19)
        return self._clip("rotated", turned, ROTATED_LIMIT).reshape(x.shape)

    def _angles(self, length: int) -> tuple[Array, Array]:
        """Return cosines and sines, Q15, shape (length, 1, head_dim / 2); kept for each length that occurs."""
        if length not in self._tables:
            cos, sin = make_angles(self.architecture, length).astype(np.int64)[:, :, None]
            self._tables[length] = self.device.put(cos), self.device.put(sin)
        return self._tables[length]

    def _attend(self, q: Array, k: Array, v: Array, batch: int, length: int) -> Array:
        """Weighted sums in float64: below T * 2^40, so exact."""
        a, xp = self.architecture, self.device.xp
        v5 = xp.permute_dims(v.reshape(batch, length, a.kv_head_count, 1, a.head_dim), (0, 2, 3, 1, 4))
        scores = self._scores(q, k, batch, length)
        at = xp.arange(length, device=self.device.where)
        future = at[:, None] < at[None, :]
        largest = xp.max(xp.where(future, -(1 << 62), scores), axis=-1, keepdims=True)
        p = xp.where(future, 0, round_shift(exp2_neg(xp.clip(largest - scores, 0, None)), 14))
        mixed = xp.astype(xp.astype(p, xp.float64) @ xp.astype(v5, xp.float64), xp.int64)
        o = div_round(mixed, xp.sum(p, axis=-1, keepdims=True))
        return xp.permute_dims(o, (0, 3, 1, 2, 4)).reshape(batch * length, a.head_count * a.head_dim)

    def _scores(self, q: Array, k: Array, batch: int, length: int) -> Array:
        """Return base-2 scores, Q16, shape (B, KV, H / KV, T, T); dot products in float64, below hd * 2^40: exact."""
        a, xp = self.architecture, self.device.xp
        group = a.head_count // a.kv_head_count
        q5 = xp.permute_dims(q.reshape(batch, length, a.kv_head_count, group, a.head_dim), (0, 2, 3, 1, 4))
        k5 = xp.permute_dims(k.reshape(batch, length, a.kv_head_count, 1, a.head_dim), (0, 2, 3, 4, 1))
        dots = xp.astype(xp.astype(q5, xp.float64) @ xp.astype(k5, xp.float64), xp.int64)
        return round_shift(round_shift(dots, 8) * self._integers.attention_scale, 24)

    def _swiglu(self, g: Array, u: Array) -> Array:
        xp, one = self.device.xp, EXP2_ONE
        t = exp2_neg(round_shift(xp.abs(g) * LOG2E, 20))
        sigma = div_round(xp.where(g >= 0, one, t) << 16, one + t)
        return self._clip("act", round_shift(round_shift(g * sigma, 16) * u, 16), 31)

    # The end of the pass.

    def _head(self, normed: Array) -> Array:
        return self._linear(self._integers.head, quantise_rows(normed))

    def _finish(
        self,
        rows: Array,
        tokens: Sequence[Sequence[int]],
        scored: Sequence[Sequence[int]],
        traces: list[list[Hash32]],
    ) -> list[Evaluation]:
        length = rows.shape[1]
        with self.device.computing(self.threads):
            normed = self._norm("output_norm.weight", rows.reshape(-1, rows.shape[2]))
            wanted = [b * length + t - 1 for b, positions in enumerate(scored) for t in positions]
            targets = self.device.put(np.asarray([tokens[b][t] for b, ts in enumerate(scored) for t in ts], np.int64))
            nlls = iter(compute_nlls(self._head(normed[wanted]), targets) if wanted else [])
            scales, quantised = map(fetch, quantise_rows(normed))
        scales, a = scales.reshape(-1, length, 3), quantised.reshape(tuple(rows.shape))
        evaluations = []
        for b, trace in enumerate(traces):
            ours = tuple(next(nlls) for _ in scored[b])
            trace.append(compute_output_entry(scales[b].tolist(), a[b].tolist(), ours))
            evaluations.append(Evaluation(ours, tuple(trace)))
        return evaluations


def open_torch_engine(
    path: Path, kind: str, digest: Hash32 | None = None, say: Say = lambda _: None, root: Hash32 | None = None
) -> ArrayEngine:
    """Return an engine with a model file's kept weights on a device of torch, ready to run.

    Args:
        path: a GGUF file.
        kind: `cuda` or `cpu`.
        digest: the SHA-256 of the network's model; None takes any file.
        say: takes lines about what takes long at the first start, or is slower than it should be.
        root: the network's integer-model root; None takes any.

    Raises:
        ModelError: there is no such device, it does not serve, or the file cannot be read, is damaged, or another one.
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """
    device = open_torch(kind)  # first: a refusal should not come after minutes of converting weights
    return ArrayEngine(open_packed_model(path, digest, say, root), device=device, say=say)


def walsh_hadamard(x: Array) -> Array:
    """`poai_spec.model.fixed_point.walsh_hadamard` on rows, shape (R, K)."""
    xp, shape, distance = get_device(x).xp, tuple(x.shape), 1
    while distance < get_transform_size(shape[1]):
        pairs = xp.reshape(x, (shape[0], -1, 2, distance))
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        x = xp.stack([left + right, left - right], axis=2)
        distance *= 2
    return xp.reshape(x, shape)


@cache
def _get_limits(device: Device, limit: int) -> Array:
    """Return four times the largest magnitude that each scale takes, ascending."""
    return device.put(np.asarray([limit * f << e2 for e2 in range(MAX_SCALE_EXPONENT) for f in SCALE_STEPS]))


def quantise_rows(x: Array, limit: int = ACTIVATION_LIMIT) -> tuple[Array, Array]:
    """`poai_spec.model.inference.quantise_row` on rows.

    Args:
        x: int64, shape (R, K).
        limit: magnitude of a value; other ones than the page's are for measurements.

    Returns:
        The scales (e1, e2, f), int64, shape (R, 3), and the values, int8, shape (R, K).
    """
    device = get_device(x)
    xp = device.xp
    e1 = xp.clip(bit_length(xp.max(xp.abs(x), axis=1)) - TRANSFORM_BITS, 0, None)
    z = walsh_hadamard(round_shift(x, e1[:, None]))
    largest = xp.max(xp.abs(z), axis=1)
    step = xp.sum(xp.astype(4 * largest[:, None] > _get_limits(device, limit), xp.int64), axis=1)
    e2, f = step // len(SCALE_STEPS), SCALE_STEPS[0] + step % len(SCALE_STEPS)
    return xp.stack([e1, e2, f], axis=1), xp.astype(div_round(4 * z, (f << e2)[:, None]), xp.int8)


def compute_nlls(logits: Array, targets: Array) -> list[int]:
    """`poai_spec.model.inference.compute_nll` on rows: logits of shape (R, V), Q16; bits in Q16."""
    device = get_device(logits)
    distances = round_shift((device.xp.max(logits, axis=1, keepdims=True) - logits) * LOG2E, 20)
    sums = device.xp.sum(exp2_neg(distances), axis=1).tolist()
    ours = distances[device.xp.arange(len(targets), device=device.where), targets].tolist()
    return [log2_fixed(total) - (30 << 16) + d for total, d in zip(sums, ours, strict=True)]
