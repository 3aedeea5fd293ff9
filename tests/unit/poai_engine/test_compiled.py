"""Each compiled step against the page's function that it stands for, on any input that the page allows.

Sizes and the kind of input come from Hypothesis; the values from a seed, as a row of them is long. Where the page
states a bound (`specs/model/inference.md`, "Bounds") a case lies at it.
"""

import subprocess
import sys
from hashlib import sha256
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from poai_bench import equality
from poai_engine.engines.exact import Quantised, compute_nlls, make_quantised
from poai_engine.kernels import lanes, tile
from poai_engine.kernels import steps as kernels
from poai_engine.kernels.tile import PANEL, TILE_ROWS, WIDE_PANEL
from poai_engine.models.packed import make_angles, pack_weights
from poai_spec.basics.parameters import MAX_QUIZ_TOKENS
from poai_spec.model import fixed_point, inference
from poai_spec.model.inference import RESIDUAL_Q, ROTATED_LIMIT, VALUE_LIMIT
from poai_spec.model.integer_model import (
    MAX_HEAD_DIM,
    MAX_INNER,
    MAX_WIDTH,
    Architecture,
    IntegerModel,
    Matrix,
    compute_attention_scale,
)
from poai_spec.model.weights import Float32
from poai_tools.cli import app

CASES = settings(max_examples=200, deadline=None)
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
seeds = st.integers(0, 2**32 - 1)
bases = st.sampled_from(equality.BASES)
epsilons = st.sampled_from(equality.EPSILONS)

pytestmark = pytest.mark.sockets


def round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def make_room(rows: int, columns: int) -> Quantised:
    """Return room for quantised rows as the engine makes it, but full of old values."""
    a, scales, factors, starts = make_quantised(rows, columns)
    a[:, :columns], scales[:], factors[:], starts[:] = -127, 255, 0.1, 1 << 30
    return a, scales, factors, starts


def check_quantised(rows: list[tuple[int, ...]], found: Quantised) -> None:
    """Compare quantised rows with the page's, and what follows from them."""
    a, scales, factors, starts = found
    for n, row in enumerate(rows):
        (e1, e2, f), values = inference.quantise_row(row)
        assert scales[n].tolist() == [e1, e2, f]
        assert a[n].tolist() == [*values, *[0] * (a.shape[1] - len(row))]
        assert (factors[n], starts[n]) == (f << e1 + e2, kernels.BIAS * sum(values))


# RMSNorm and quantisation.


def check_norm(x: NDArray[np.int64], gains: NDArray[np.int64], epsilon: Float32) -> None:
    numerator, denominator = epsilon.as_ratio()
    scaled = [fixed_point.div_round(numerator << (28 - 2 * s), denominator) for s in range(-8, 9)]
    room = make_room(*x.shape)
    kernels.norm_rows(x.astype(np.int32), gains.astype(np.int32), np.asarray(scaled), *room)
    page_gains = tuple(gains.tolist())
    check_quantised([inference.rms_norm(tuple(row), page_gains, epsilon) for row in x.tolist()], room)


widths = st.integers(1, 70) | st.sampled_from([64, 128, 192, 448])  # rows of short runs, and of whole ones


@given(seeds, st.integers(1, 9), widths, epsilons)
@CASES
def test_norm(seed: int, rows: int, width: int, epsilon: Float32) -> None:
    rng = np.random.default_rng(seed)
    x, gains = equality.draw_inputs(rng, rows, width), equality.draw_values(rng, (width,), equality.LARGEST_GAIN)
    check_norm(x, gains, epsilon)


@pytest.mark.parametrize("value", [INT32_MIN, INT32_MAX, 1 << 30, (1 << 24) - 1, 1, 0])
@pytest.mark.parametrize("epsilon", equality.EPSILONS)
def test_norm_at_the_bounds(value: int, epsilon: Float32) -> None:
    x, gains = np.full((2, MAX_WIDTH), value), np.full(MAX_WIDTH, equality.LARGEST_GAIN)
    x[1, 1:] = 0
    check_norm(x, gains, epsilon)


@given(seeds, st.integers(1, 9), widths)
@CASES
def test_quantisation(seed: int, rows: int, width: int) -> None:
    x = equality.draw_inputs(np.random.default_rng(seed), rows, width)
    room = make_room(rows, width)
    kernels.quantise_rows(x.astype(np.int32), *room)
    check_quantised([tuple(row) for row in x.tolist()], room)


@pytest.mark.parametrize("value", [INT32_MIN, INT32_MAX, -INT32_MAX, 1 << 14, (1 << 14) - 1, -(1 << 14), 1, -1])
@pytest.mark.parametrize("width", [1, 12, 64, 320])
def test_quantisation_at_the_bounds(value: int, width: int) -> None:
    """Rows of one value, of one value and zeros, and of both signs in the pattern of each transformed value."""
    signs = [fixed_point.walsh_hadamard([*[0] * i, 1, *[0] * (width - i - 1)]) for i in range(min(width, 64))]
    x = [
        (value,) * width,
        (value, *[0] * (width - 1)),
        *(tuple(s * max(value, -INT32_MAX) for s in row) for row in signs),
    ]
    room = make_room(len(x), width)
    kernels.quantise_rows(np.asarray(x, np.int32), *room)
    check_quantised(x, room)


@pytest.mark.parametrize("f", inference.SCALE_STEPS)
def test_division_by_a_reciprocal(f: int) -> None:
    """`round_row` divides every u that can occur as its docstring says; the scaled value lies within 127.5 f."""
    for u in range(-128 * f, 128 * f):
        assert ((u + 128 * f) * (65536 // f + 1) >> 16) - 128 == u // f


@given(st.integers(0, 127 * 7 << 13), st.integers(0, 13), st.sampled_from(inference.SCALE_STEPS), st.booleans())
@CASES
def test_rounding_in_two_steps(z: int, e: int, f: int, negative: bool) -> None:
    """`floor(floor(n / 2^(e + 1)) / f)` is `floor(n / (2 f 2^e))`, the page's `div_round`."""
    z = min(z, 127 * f << e >> 2) * (-1 if negative else 1)
    u = (8 * z + (f << e)) >> (e + 1)
    assert -128 * f <= u < 128 * f
    assert u // f == fixed_point.div_round(4 * z, f << e)


# Products.


def check_product(x: NDArray[np.int64], matrix: Matrix, residual: NDArray[np.int64]) -> None:
    """Compare all three uses of a product: to Q16, to Q16 with the limit of v, and added to the residual."""
    room = make_room(*x.shape)
    kernels.quantise_rows(x.astype(np.int32), *room)
    a, _, factors, starts = room
    q, multipliers = pack_weights(np.asarray(matrix.rows, np.int8)), np.asarray(matrix.multipliers, np.float64)
    k = matrix.k + 2 + fixed_point.get_transform_size(x.shape[1]).bit_length() - 1
    found = [np.empty((len(x), len(matrix.rows)), np.int32) for _ in range(2)] + [residual.astype(np.int32)]
    ways = (31, False, 24), (VALUE_LIMIT, False, 24), (31, True, 24 + 16 - RESIDUAL_Q)
    for out, (limit, add, shift) in zip(found, ways, strict=True):
        kernels.multiply(a, factors, starts, (q, multipliers, 2.0 ** -(k + shift)), 2.0**limit, add, out)
    for n, row in enumerate(x.tolist()):
        y, addend = inference.linear(matrix, tuple(row)), inference.linear(matrix, tuple(row), RESIDUAL_Q)
        assert found[0][n].tolist() == list(y)
        assert found[1][n].tolist() == [fixed_point.clamp(v, VALUE_LIMIT) for v in y]
        assert found[2][n].tolist() == list(inference.add_rows(tuple(residual[n].tolist()), addend))


@given(seeds, st.integers(1, 2 * TILE_ROWS + 1), st.integers(1, 2 * PANEL + 1), widths)
@CASES
def test_products(seed: int, rows: int, outputs: int, inputs: int) -> None:
    """Of any k, so with shifts to both sides; odd K and partial panels and tiles among them."""
    rng = np.random.default_rng(seed)
    matrix = equality.draw_matrix(rng, "t", outputs, inputs)
    check_product(equality.draw_inputs(rng, rows, inputs), matrix, equality.draw_inputs(rng, rows, outputs))


@pytest.mark.parametrize("k", range(-12, 27, 2))
@pytest.mark.parametrize("inputs", [64, MAX_INNER - 1, MAX_INNER])
def test_products_at_the_bounds(k: int, inputs: int) -> None:
    """Every weight, activation and multiplier at its end, of both signs, from the largest left shift to the right."""
    x = np.stack([np.full(inputs, value) for value in (INT32_MAX, INT32_MIN, 2048)])
    matrix = Matrix("t", k, (equality.LARGEST_MULTIPLIER,) * 2, ((127,) * inputs, (-127,) * inputs))
    check_product(x, matrix, np.asarray([[INT32_MAX, INT32_MIN], [INT32_MIN, INT32_MAX], [0, -1]]))


# Attention.


@given(seeds, st.integers(1, 9), st.integers(1, 3), st.sampled_from([2, 4, 10, 16, 18]), bases)
@CASES
def test_rotation(seed: int, rows: int, heads: int, d: int, base: Float32) -> None:
    rng, a = np.random.default_rng(seed), Architecture(1, 1, heads, 1, d, 1, 1, base, equality.EPSILONS[1])
    x, positions = equality.draw_inputs(rng, rows, heads * d), rng.integers(0, 20, rows)
    out, across = np.zeros((rows, heads * d)), np.zeros((heads * d, rows))
    for place in (out, across.T):  # as queries lie, and as keys do
        kernels.rotate_rows(x.astype(np.int32), positions.astype(np.int32), *make_angles(a, 20), place)
    expected = [list(inference.rotate(tuple(x[n].tolist()), int(positions[n]), a)) for n in range(rows)]
    assert out.astype(np.int64).tolist() == expected
    assert across.T.astype(np.int64).tolist() == expected


def attend(
    q: NDArray[np.int64], k: NDArray[np.int64], v: NDArray[np.int64], lengths: list[int], d: int, cuts: list[int]
) -> NDArray[np.int32]:
    """Run the compiled attention on sequences side by side, in parts as threads would share them."""
    rows, width = q.shape
    queries = np.zeros((round_up(rows, TILE_ROWS) + TILE_ROWS, width))
    queries[:rows] = q
    keys, values = np.zeros((k.shape[1], rows + WIDE_PANEL)), np.zeros((rows + WIDE_PANEL, k.shape[1]))
    keys[:, :rows], values[:rows] = k.T, v
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths).astype(np.int32)
    places = np.arange(rows, dtype=np.int32)
    out, scale = np.empty((rows, width), np.int32), compute_attention_scale(d)
    for first, stop in zip([0, *cuts], [*cuts, rows], strict=True):
        part = slice(first, stop)
        kernels.attend_rows(queries[first:], keys, values, starts[part], places[part], scale, d, out[part])
    return out


def draw_heads(rng: np.random.Generator, rows: int, width: int, bits: int) -> NDArray[np.int64]:
    """Draw rows of values of `bits` bits and a sign; loud ones make softmax choose, quiet ones make it mix."""
    values = equality.draw_values(rng, (rows, width), 1 << bits) >> rng.integers(0, bits, (rows, 1))
    return np.asarray(np.minimum(values, (1 << bits) - 1), np.int64)


@given(
    seeds,
    st.lists(st.integers(1, 21), min_size=1, max_size=4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([2, 4, 10, 16, 18]),
    st.data(),
)
@CASES
def test_attention(seed: int, lengths: list[int], kv_heads: int, group: int, d: int, data: st.DataObject) -> None:
    """Sequences of any lengths side by side; parts of the rows may begin in the middle of one."""
    rng, rows, heads = np.random.default_rng(seed), sum(lengths), kv_heads * group
    q, k = draw_heads(rng, rows, heads * d, ROTATED_LIMIT), draw_heads(rng, rows, kv_heads * d, ROTATED_LIMIT)
    v = draw_heads(rng, rows, kv_heads * d, VALUE_LIMIT)
    cuts = sorted(data.draw(st.sets(st.integers(1, (rows - 1) // TILE_ROWS), max_size=2))) if rows > TILE_ROWS else []
    a = Architecture(1, 1, heads, kv_heads, d, 1, 1, equality.BASES[0], equality.EPSILONS[0])
    model = IntegerModel(a, (), (), (), Matrix("t", 0, (), ()), compute_attention_scale(d))
    found, start = attend(q, k, v, lengths, d, [cut * TILE_ROWS for cut in cuts]), 0
    for length in lengths:
        ours, theirs, values = ([tuple(row) for row in part[start : start + length].tolist()] for part in (q, k, v))
        assert found[start : start + length].tolist() == [
            list(o) for o in inference.attend(ours, theirs, values, model)
        ]
        start += length


@pytest.mark.parametrize("value", [-(1 << VALUE_LIMIT), (1 << VALUE_LIMIT) - 1])
def test_attention_over_the_longest_sequence(value: int) -> None:
    """All weights equal, all values at an end but one, which makes the mean no integer."""
    length, d = MAX_QUIZ_TOKENS, 2
    q, v = np.zeros((length, d), np.int64), np.full((length, d), value)
    v[0] = 0
    found = attend(q, q, v, [length], d, [])
    columns = [tuple(row) for row in v.tolist()]
    for t in (0, 1, 2, 1023, 1024, length - 1):
        assert found[t].tolist() == list(inference.mix_values((0,) * (t + 1), columns[: t + 1]))


@pytest.mark.parametrize("sign", [-1, 1])
def test_attention_of_the_widest_head(sign: int) -> None:
    d, least = MAX_HEAD_DIM, -(1 << ROTATED_LIMIT)
    q, k = np.full((3, d), least), np.full((3, d), least if sign > 0 else -least - 1)
    k[1] = 0
    v = np.arange(3 * d).reshape(3, d)
    scale = compute_attention_scale(d)
    keys, values = ([tuple(row) for row in part.tolist()] for part in (k, v))
    scores = inference.compute_scores(tuple(q[2].tolist()), keys, scale)
    assert attend(q, k, v, [3], d, [])[2].tolist() == list(inference.mix_values(scores, values))


# Feed-forward, scoring and the functions below them.

int32s = st.integers(INT32_MIN, INT32_MAX) | st.sampled_from(equality.EDGES.tolist()) | st.integers(-(2**21), 2**21)


@given(st.lists(st.tuples(int32s, int32s), min_size=1, max_size=60))
@CASES
def test_swiglu(pairs: list[tuple[int, int]]) -> None:
    gate, up = np.asarray(pairs, np.int32).T.copy()[:, None, :]
    room = make_room(1, len(pairs))
    kernels.swiglu_rows(gate, up, *room)
    check_quantised([tuple(inference.swiglu(g, u) for g, u in pairs)], room)


def test_swiglu_where_sigma_is_near_an_integer() -> None:
    """Every gate in Q16 from -32 to 32 in steps of 31, times one: the quotient is taken by a float64 division."""
    gates = range(-(32 << 16), 32 << 16, 31)
    gate = np.asarray(gates, np.int32)[:, None]
    room = make_room(len(gates), 1)
    kernels.swiglu_rows(gate, np.full_like(gate, 1 << 16), *room)
    check_quantised([(inference.swiglu(g, 1 << 16),) for g in gates], room)


@given(st.lists(int32s, min_size=1, max_size=300), st.data())
@CASES
def test_scoring(logits: list[int], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(logits) - 1))
    rows = np.asarray([logits, logits[::-1]], np.int32)
    expected = [inference.compute_nll(tuple(logits), target), inference.compute_nll(tuple(logits[::-1]), target)]
    assert compute_nlls(rows, np.asarray([target, target])) == expected


@given(st.integers(0, 2**34) | st.integers(0, 32 << 16))
@CASES
def test_powers_of_two(d: int) -> None:
    assert kernels.exp2_neg(d) == fixed_point.exp2_neg(d)


def test_powers_of_two_at_the_ends_of_every_table_step() -> None:
    ends = {(k << 16) + (j << 8) + n for k in range(33) for j in range(257) for n in (-1, 0, 1)}
    for d in (*sorted(ends - {-1}), 2**33 - 1, 2**33, 2**62):
        assert kernels.exp2_neg(d) == fixed_point.exp2_neg(d)


@given(st.integers(0, 2**31), st.sampled_from([-1, 0, 1]))
@CASES
@example(2**31, 0)
@example(2**31, -1)
@example(0, 0)
def test_square_roots_around_squares(root: int, offset: int) -> None:
    x = min(max(root * root + offset, 0), 2**62)
    assert kernels.take_root(x) == isqrt(x)


# Whole layers.


@given(seeds)
@settings(CASES, max_examples=400)
def test_layers_on_random_inputs(seed: int) -> None:
    assert equality.find_difference(equality.draw_case(seed)) is None


def test_the_bench_of_equality_counts_its_inputs() -> None:
    found = CliRunner().invoke(app, ["bench", "equality", "--cases", "50", "--seed", "7"])
    assert found.exit_code == 0, found.output
    assert "layer inputs: all bits equal" in found.stdout


def test_the_bench_of_equality_fails_at_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own residual, one value changed."""
    run_block = inference.run_block
    monkeypatch.setattr(equality, "run_block", lambda *parts: [(row[0] ^ 1, *row[1:]) for row in run_block(*parts)])
    found = CliRunner().invoke(app, ["bench", "equality", "--cases", "50"])
    assert found.exit_code == 1
    assert found.stderr == "case 0: the exact engine and the page differ in: residual\n"


def test_what_kept_code_was_compiled_with() -> None:
    """Numba keeps code by the time stamp of kernels.py alone: after a change of the others write their digest there."""
    emitted = b"".join(Path(str(module.__file__)).read_bytes() for module in (lanes, tile))
    assert sha256(emitted).hexdigest() == kernels.EMITTED_SHA256


NOWHERE = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
from poai_engine.kernels import steps as kernels
assert not kernels.are_kept()
assert kernels.count_bits(5) == 3
"""


def test_without_a_folder_to_write_to_nothing_is_kept() -> None:
    """Numba has a list of folders to try; an empty one stands for those that may not be written to."""
    subprocess.run([sys.executable, "-c", NOWHERE], check=True, timeout=300)
