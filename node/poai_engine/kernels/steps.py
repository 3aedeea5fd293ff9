"""The steps of the pass as compiled loops: the page `inference` in machine integers, equal to it bit for bit.

`project_rows` and `finish_rows` are the two halves of a block; between them every row has to wait for the keys and
values of earlier ones. Each function works on some rows and touches nothing else, holds no lock while it runs, and
allocates a few rows' worth of scratch at most. Shapes: R rows, D width, K inner width padded to FOUR, T positions,
V vocabulary, d head_dim.

Where float64 stands in for integers every value is an integer below 2^53 times a power of two, so that nothing is
rounded, or the quotient of two such, whose floor is proven where it is taken.
"""

import math
from typing import Any

import numpy as np

from poai_engine.kernels.code_cache import compile_kept, is_kept
from poai_engine.kernels.lanes import add_lanes, measure_row, round_row, scale_lanes, transform_row
from poai_engine.kernels.tile import (
    FOUR,
    PANEL,
    TILE_ROWS,
    WIDE_PANEL,
    get_bias,
    multiply_line,
    multiply_tile,
    multiply_wide_tile,
    repeat_products,
)
from poai_spec.model.fixed_point import LOG2E, TRANSFORM_SIZE, make_exp2_table
from poai_spec.model.inference import ACTIVATION_LIMIT, ROTATED_LIMIT, SCALE_STEPS, TRANSFORM_BITS, VALUE_LIMIT

EMITTED_SHA256 = "b10032a64e4fc19c09922f1124008d5878060dd4d7e859ac6b13cd066ce94c10"
"""Of `lanes.py` and `tile.py`, held by a test: a change of them is one of this file, so no kept code is of others."""

_TABLE = np.asarray(make_exp2_table(), np.int32)
_STEPS = _TABLE[:-1] - _TABLE[1:]
_INT32_MAX = float(2**31 - 1)
_INT32_MIN = -float(2**31)
BIAS = get_bias()
"""What a row's sums start from, for each unit of its sum."""
_LEAST_STEP, _MOST_STEP = SCALE_STEPS[0], SCALE_STEPS[-1]


compiled = compile_kept
"""Numba makes code anew when this file changes, and knows of no other: hence `EMITTED_SHA256`."""


def are_kept() -> bool:
    """Tell whether an earlier start has compiled these functions."""
    return is_kept(finish_rows)


@compiled
def count_bits(x: Any) -> Any:
    """`poai_spec.model.fixed_point.bit_length`."""
    n = 0
    while x > 0:
        x >>= 1
        n += 1
    return n


@compiled
def exp2_neg(d: Any) -> Any:
    """`poai_spec.model.fixed_point.exp2_neg`."""
    d = min(d, 31 << 16)
    fraction = d & 0xFFFF
    j = fraction >> 8
    value = np.int64(_TABLE[j]) - ((np.int64(_STEPS[j]) * (fraction & 255) + 128) >> 8)
    return value >> (d >> 16) if d < 31 << 16 else 0


@compiled
def take_root(x: Any) -> Any:
    """Floor square root of 0 .. 2^62: the float64 root, corrected by exact comparisons."""
    r = np.int64(math.sqrt(np.float64(x)))
    while r * r > x:
        r -= 1
    while (r + 1) * (r + 1) <= x:
        r += 1
    return r


@compiled
def transform_short(x: Any, e: Any, z: Any) -> Any:
    """`transform_row` of a row whose runs are shorter than `TRANSFORM_SIZE`; x and z int32, shape (K',)."""
    one = 1 if e > 0 else 0
    for i in range(len(x)):
        z[i] = ((x[i] >> (e - one)) + one) >> one
    distance = 1
    while distance < math.gcd(len(x), TRANSFORM_SIZE):
        for i in range(len(x)):
            if i & distance == 0:
                left, right = z[i], z[i + distance]
                z[i], z[i + distance] = left + right, left - right
        distance *= 2
    largest = np.int64(0)
    for i in range(len(x)):
        largest = max(largest, abs(np.int64(z[i])))
    return largest


@compiled
def round_short(z: Any, e: Any, f: Any, a: Any) -> Any:
    """`round_row` of a row of any width; a: int8, shape (>= K',)."""
    total = np.int64(0)
    for i in range(len(z)):
        a[i] = (8 * np.int64(z[i]) + (f << e)) // (2 * (f << e))
        total += a[i]
    return total


@compiled
def quantise(x: Any, z: Any, a: Any, scale: Any) -> Any:
    """`poai_spec.model.inference.quantise_row`.

    Args:
        x: int32, shape (K',), contiguous.
        z: int32, shape (K',), scratch.
        a: int8, shape (>= K',), contiguous, receives the row.
        scale: uint8, shape (3,), receives (e1, e2, f).

    Returns:
        `f * 2^(e1 + e2)` as float64, and the sum of a.
    """
    width = len(x)
    whole = width % TRANSFORM_SIZE == 0
    if whole:
        largest = measure_row(x, 0, width)
    else:
        largest = np.int64(0)
        for i in range(width):
            largest = max(largest, abs(np.int64(x[i])))
    e1 = max(0, count_bits(largest) - TRANSFORM_BITS)
    largest = 4 * (transform_row(x, 0, width, e1, z) if whole else transform_short(x, e1, z))
    e2 = 0
    while largest > (ACTIVATION_LIMIT * _MOST_STEP) << e2:
        e2 += 1
    f = _LEAST_STEP
    while largest > (ACTIVATION_LIMIT * f) << e2:
        f += 1
    scale[0], scale[1], scale[2] = e1, e2, f
    total = round_row(z, width, e2, f, a, 0) if whole else round_short(z, e2, f, a)
    return math.ldexp(float(f), e1 + e2), total


@compiled
def quantise_rows(x: Any, a: Any, scales: Any, factors: Any, starts: Any) -> None:
    """`poai_spec.model.inference.quantise_row` on rows.

    Args:
        x: int32, shape (R, K').
        a: int8, shape (>= R, K), receives the quantised rows.
        scales: uint8, shape (>= R, 3), receives their (e1, e2, f).
        factors: float64, shape (>= R,), receives `f * 2^(e1 + e2)`.
        starts: int32, shape (>= R,), receives what the sums of their products start from.
    """
    z = np.empty(x.shape[1], np.int32)
    for r in range(len(x)):
        factors[r], total = quantise(x[r], z, a[r], scales[r])
        starts[r] = BIAS * total


@compiled
def norm_rows(x: Any, gains: Any, epsilons: Any, a: Any, scales: Any, factors: Any, starts: Any) -> None:
    """`poai_spec.model.inference.rms_norm`, then `quantise_row`.

    Args:
        x: int32, shape (R, D), the residual, Q14.
        gains: int32, shape (D,), Q16.
        epsilons: int64, 17 values: eps' for s = -8 .. 8.
        a: as in `quantise_rows`, like the others.
        scales: the same.
        factors: the same.
        starts: the same.
    """
    width = x.shape[1]
    wide, h, z = np.empty(width, np.int64), np.empty(width, np.int32), np.empty(width, np.int32)
    for r in range(len(x)):
        largest = np.int64(0)
        for i in range(width):
            largest = max(largest, abs(np.int64(x[r, i])))
        s = max(-8, count_bits(largest) - 24)
        half, right, left = np.int64(1) << (s - 1) if s > 0 else np.int64(0), max(s, 0), max(-s, 0)
        total = np.int64(0)
        for i in range(width):
            wide[i] = ((np.int64(x[r, i]) << left) + half) >> right
            total += wide[i] * wide[i]
        root = take_root((total // width + epsilons[s + 8]) << 12)
        inverse = (np.int64(1) << 53) // root if root > 0 else np.int64(0)
        for i in range(width):
            normed = (wide[i] * inverse + (np.int64(1) << 30)) >> 31
            h[i] = (normed * gains[i] + (np.int64(1) << 15)) >> 16
        factors[r], total = quantise(h, z, a[r], scales[r])
        starts[r] = BIAS * total


@compiled
def scale_row(sums: Any, multipliers: Any, factor: Any, limit: Any, add: bool, out: Any) -> None:
    """Scale a row's sums, round and clamp: `clamp(floor(sums * M_o * factor + 1/2))`, where factor is `f * 2^-n`.

    For n <= 53 the sum with 1/2 is exact in float64, as `sums * M_o * f` is below 2^52. For larger n the scaled value
    is below 1/2 in magnitude: rounded or not the sum is between 0 and 1, and its floor 0. For n < 0 a sum that is
    rounded is 2^52 or more, and clamped.
    """
    for o in range(len(out)):
        y = min(max(np.floor(sums[o] * multipliers[o] * factor + 0.5), -limit), limit - 1.0)
        if add:
            y = min(max(y + out[o], _INT32_MIN), _INT32_MAX)
        out[o] = np.int32(y)


@compiled
def multiply(a: Any, factors: Any, starts: Any, matrix: Any, limit: Any, add: bool, out: Any) -> None:
    """`poai_spec.model.inference.linear` on quantised rows.

    Args:
        a: int8, shape (>= R rounded up to TILE_ROWS, K).
        factors: float64, shape (R,).
        starts: int32, shape (>= R rounded up to TILE_ROWS,).
        matrix: the packed weights, uint8, shape (P, K / FOUR, PANEL, FOUR); the multipliers, float64, shape (O,),
            integers; and the power of two by which a row of factor 1 is scaled.
        limit: the result stays below it, float64.
        add: add to what is in `out` and saturate to int32, instead of replacing it.
        out: int32, shape (R, O).
    """
    q, multipliers, unit = matrix
    rows, outputs, columns = len(out), out.shape[1], a.shape[1]
    flat_a, flat_q, flat_out = a.reshape(-1), q.reshape(-1), out.reshape(-1)
    tile = np.empty((TILE_ROWS, PANEL), np.int32)
    flat_tile = tile.reshape(-1)
    for panel in range(len(q)):
        at, first = panel * columns * PANEL, panel * PANEL
        for top in range(0, rows, TILE_ROWS):
            height = min(TILE_ROWS, rows - top)
            if height == 1:
                multiply_line(flat_a, top * columns, columns, starts, top, flat_q, at, columns // FOUR, flat_tile)
            else:
                multiply_tile(flat_a, top * columns, columns, starts, top, flat_q, at, columns // FOUR, flat_tile)
            for r in range(height):
                factor, to = factors[top + r] * unit, (top + r) * outputs + first
                if outputs - first < PANEL:
                    scale_row(tile[r], multipliers[first:], factor, limit, add, out[top + r, first:])
                elif add:
                    add_lanes(flat_tile, r * PANEL, multipliers, first, factor, limit, PANEL, flat_out, to)
                else:
                    scale_lanes(flat_tile, r * PANEL, multipliers, first, factor, limit, PANEL, flat_out, to)


@compiled
def rotate_rows(x: Any, positions: Any, cos: Any, sin: Any, out: Any) -> None:
    """`poai_spec.model.inference.rotate`.

    Args:
        x: int32, shape (R, heads * d), Q16.
        positions: int32, shape (R,).
        cos: int32, shape (T, d / 2), Q15.
        sin: the same.
        out: float64, shape (R, heads * d), receives integers, Q12.
    """
    for r in range(len(x)):
        rotate_row(x[r], cos[positions[r]], sin[positions[r]], out[r])


@compiled
def rotate_row(x: Any, cos: Any, sin: Any, out: Any) -> None:
    """`poai_spec.model.inference.rotate` of one row, with the angles of its position."""
    pairs, bound = len(cos), np.int64(1) << ROTATED_LIMIT
    half = np.int64(1) << 18
    for head in range(0, len(x), 2 * pairs):
        for i in range(pairs):
            even, odd = np.int64(x[head + 2 * i]), np.int64(x[head + 2 * i + 1])
            c, s = np.int64(cos[i]), np.int64(sin[i])
            first = (even * c - odd * s + half) >> 19
            second = (even * s + odd * c + half) >> 19
            out[head + 2 * i] = min(max(first, -bound), bound - 1)
            out[head + 2 * i + 1] = min(max(second, -bound), bound - 1)


@compiled
def weigh(scores: Any, length: int) -> Any:
    """Replace the first `length` scores of a row, Q16, by softmax weights, Q16, the others by 0; return their sum."""
    largest = scores[0]
    for j in range(length):
        largest = max(largest, scores[j])
    total = np.int64(0)
    for j in range(length):
        p = (exp2_neg(np.int64(largest - scores[j])) + (np.int64(1) << 13)) >> 14
        scores[j] = p
        total += p
    scores[length:] = 0.0
    return total


@compiled
def attend_rows(q: Any, keys: Any, values: Any, starts: Any, places: Any, scale: int, d: int, out: Any) -> None:
    """`inference.attend` for some rows of a chunk; sums in float64, below d * 2^40 and T * 2^40, so exact.

    The quotient's denominator is at most 2 T 2^16 <= 2^28 and its magnitude at most 2^VALUE_LIMIT, so one that is no
    integer is further from the next one than float64's spacing: its floor is not changed by rounding.

    Args:
        q: float64, shape (>= R + TILE_ROWS - 1, H * d), Q12: tiles begin where sequences do.
        keys: float64, shape (KV * d, places + WIDE_PANEL), Q12: one row a component.
        values: float64, shape (places + WIDE_PANEL, KV * d), Q16; rows behind the last are read, not used.
        starts: int32, shape (R,): the place of the first key and value of each row's sequence.
        places: int32, shape (R,): the place of the row's own key and value; those of its sequence lie between.
        scale: the model's attention scale, Q24.
        d: head_dim.
        out: int32, shape (R, H * d), Q16.
    """
    rows, heads = len(starts), q.shape[1] // d
    group, stride = heads // (len(keys) // d), q.shape[1]
    flat_q, flat_keys, flat_values = q.reshape(-1), keys.reshape(-1), values.reshape(-1)
    longest = 0
    for r in range(rows):
        longest = max(longest, places[r] - starts[r] + 1)
    longest = -(-longest // WIDE_PANEL) * WIDE_PANEL
    scores, tile = np.zeros((TILE_ROWS, longest)), np.empty((TILE_ROWS, WIDE_PANEL))
    totals = np.empty(TILE_ROWS)
    top = 0
    while top < rows:
        start = starts[top]
        height = 1
        while (
            height < TILE_ROWS
            and top + height < rows
            and starts[top + height] == start
            and places[top + height] == places[top] + height
        ):
            height += 1
        length = places[top] + height - start
        for head in range(heads):
            kv = head // group * d
            for j in range(0, length, WIDE_PANEL):
                at = kv * keys.shape[1] + start + j
                multiply_wide_tile(flat_q, top * stride + head * d, stride, flat_keys, at, keys.shape[1], d, tile)
                for r in range(height):
                    for o in range(WIDE_PANEL):
                        dot = (np.int64(tile[r, o]) + 128) >> 8
                        scores[r, j + o] = np.float64((dot * scale + (np.int64(1) << 23)) >> 24)
            for r in range(height):
                totals[r] = weigh(scores[r], length - height + r + 1)
            for i in range(0, d, WIDE_PANEL):
                at = start * values.shape[1] + kv + i
                multiply_wide_tile(scores.reshape(-1), 0, longest, flat_values, at, values.shape[1], length, tile)
                for r in range(height):
                    for o in range(min(WIDE_PANEL, d - i)):
                        quotient = (2.0 * tile[r, o] + totals[r]) / (2.0 * totals[r])
                        out[top + r, head * d + i + o] = np.int32(np.floor(quotient))
        top += height


@compiled
def swiglu_rows(gate: Any, up: Any, a: Any, scales: Any, factors: Any, starts: Any) -> None:
    """`poai_spec.model.inference.swiglu`, then `quantise_row`; gate and up int32, shape (R, F), Q16; the rest as there.

    Sigma is a floor of integers below 2^48 over at most 2^32: an inexact quotient of magnitude up to 2^16 is at least
    2^-32 from an integer, and float64's spacing there is 2^-37.
    """
    width = gate.shape[1]
    act, z = np.empty(width, np.int32), np.empty(width, np.int32)
    one = np.int64(1) << 30
    for r in range(len(gate)):
        for i in range(width):
            g = np.int64(gate[r, i])
            t = exp2_neg((abs(g) * LOG2E + (np.int64(1) << 19)) >> 20)
            top = np.float64((one if g >= 0 else t) << 17) + np.float64(one + t)
            sigma = np.int64(np.floor(top / np.float64((one + t) << 1)))
            silu = (g * sigma + (np.int64(1) << 15)) >> 16
            y = (silu * np.int64(up[r, i]) + (np.int64(1) << 15)) >> 16
            act[i] = min(max(y, -(np.int64(1) << 31)), (np.int64(1) << 31) - 1)
        factors[r], total = quantise(act, z, a[r], scales[r])
        starts[r] = BIAS * total


@compiled
def project_rows(
    x: Any,
    gains: Any,
    epsilons: Any,
    positions: Any,
    angles: Any,
    matrices: Any,
    scratch: Any,
    products: Any,
    places: Any,
    rotated: Any,
    keys: Any,
    values: Any,
) -> None:
    """The first half of a block on some rows: norm, queries, keys and values, rotation.

    Args:
        x: int32, shape (R, D), the residual, Q14.
        gains: int32, shape (D,), Q16.
        epsilons: as in `norm_rows`.
        positions: int32, shape (R,).
        angles: int32, shape (2, T, d / 2): cosines and sines, Q15.
        matrices: those of q, k and v, each as in `multiply`.
        scratch: a, scales, factors and starts, as in `quantise_rows`.
        products: int32, three, shapes (R, H * d), (R, KV * d) and (R, KV * d): receive what is multiplied.
        places: int32, shape (R,): where the rows' keys and values go.
        rotated: float64, shape (R, H * d), receives the queries, Q12.
        keys: float64, shape (KV * d, places), receives keys, Q12.
        values: float64, shape (places, KV * d), receives values, Q16.
    """
    a, scales, factors, starts = scratch
    norm_rows(x, gains, epsilons, a, scales, factors, starts)
    q, k, v = products
    full = math.ldexp(1.0, 31)
    multiply(a, factors, starts, matrices[0], full, False, q)
    multiply(a, factors, starts, matrices[1], full, False, k)
    multiply(a, factors, starts, matrices[2], math.ldexp(1.0, VALUE_LIMIT), False, v)
    rotate_rows(q, positions, angles[0], angles[1], rotated)
    key = np.empty(k.shape[1])
    for r in range(len(x)):
        rotate_row(k[r], angles[0, positions[r]], angles[1, positions[r]], key)
        for i in range(len(key)):
            keys[i, places[r]] = key[i]
            values[places[r], i] = v[r, i]


@compiled
def finish_rows(
    rotated: Any,
    keys: Any,
    values: Any,
    origins: Any,
    places: Any,
    scale: int,
    d: int,
    x: Any,
    gains: Any,
    epsilons: Any,
    matrices: Any,
    scratch: Any,
    wide: Any,
    products: Any,
) -> None:
    """The second half of a block on some rows: attention and its output, norm, feed-forward.

    Args:
        rotated: the queries, as in `attend_rows`, like the next six.
        keys: the same.
        values: the same.
        origins: the same, `starts` there.
        places: the same.
        scale: the same.
        d: the same.
        x: int32, shape (R, D), the residual, Q14: what is added to.
        gains: as in `project_rows`, like the next.
        epsilons: the same.
        matrices: those of attn_output, ffn_gate, ffn_up and ffn_down, each as in `multiply`.
        scratch: as in `project_rows`, for rows of D.
        wide: rows of attn_output's and of ffn_down's inputs: int8, two.
        products: int32, three, shapes (R, H * d), (R, F) and (R, F).
    """
    a, scales, factors, starts = scratch
    out, gate, up = products
    full = math.ldexp(1.0, 31)
    attend_rows(rotated, keys, values, origins, places, scale, d, out)
    quantise_rows(out, wide[0], scales, factors, starts)
    multiply(wide[0], factors, starts, matrices[0], full, True, x)
    norm_rows(x, gains, epsilons, a, scales, factors, starts)
    multiply(a, factors, starts, matrices[1], full, False, gate)
    multiply(a, factors, starts, matrices[2], full, False, up)
    swiglu_rows(gate, up, wide[1], scales, factors, starts)
    multiply(wide[1], factors, starts, matrices[3], full, True, x)


@compiled
def score_rows(logits: Any, targets: Any, sums: Any, distances: Any) -> None:
    """The sum and the target's distance of `poai_spec.model.inference.compute_nll`.

    Args:
        logits: int32, shape (R, V), Q16.
        targets: int64, shape (R,).
        sums: int64, shape (R,), receives sum_j exp2_neg(d_j).
        distances: int64, shape (R,), receives d of the target.
    """
    for r in range(len(logits)):
        largest = np.int64(logits[r, 0])
        for i in range(logits.shape[1]):
            largest = max(largest, np.int64(logits[r, i]))
        total = np.int64(0)
        for i in range(logits.shape[1]):
            total += exp2_neg(((largest - np.int64(logits[r, i])) * LOG2E + (np.int64(1) << 19)) >> 20)
        sums[r] = total
        distances[r] = ((largest - np.int64(logits[r, targets[r]])) * LOG2E + (np.int64(1) << 19)) >> 20


@compiled
def repeat(values: Any, count: Any) -> Any:
    """`repeat_products`, for measuring."""
    return repeat_products(values, count)
