"""The steps of the pass as compiled loops: the page `inference` in machine integers, equal to it bit for bit.

Each function works on some rows and touches nothing else, holds no lock while it runs, and allocates a row's worth of
scratch at most. Shapes: R rows, D width, K inner width padded to even, T positions, V vocabulary, d head_dim.

Where float64 stands in for integers every value is an integer below 2^53, so that nothing is rounded, or the
quotient of two such, whose floor is proven where it is taken.
"""

import math
from typing import Any

import numpy as np

from poai_engine.kernels.code_cache import compile_kept, is_kept
from poai_engine.kernels.tile import PANEL, SEGMENT, TILE_ROWS, WIDE_PANEL, multiply_tile, multiply_wide_tile
from poai_spec.model.fixed_point import LOG2E, make_exp2_table
from poai_spec.model.inference import ACTIVATION_BITS, ROTATED_LIMIT

TILE_SHA256 = "877cc578da3007c129cc1e79bfa7f5ba417987c379eb90f73c96130b767345e0"
"""Of `tile.py`, held by a test: whoever changes that file changes this one, and no kept code reads another layout."""

_TABLE = np.asarray(make_exp2_table(), np.int32)
_STEPS = _TABLE[:-1] - _TABLE[1:]
_INT32_MAX = float(2**31 - 1)
_INT32_MIN = -float(2**31)


compiled = compile_kept
"""Numba makes code anew when this file changes, and knows of no other: hence `TILE_SHA256`."""


def are_kept() -> bool:
    """Tell whether an earlier start has compiled these functions."""
    return is_kept(multiply)


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
def quantise(values: Any, a: Any) -> Any:
    """`poai_spec.model.inference.quantise_row`: write the row to `a` and return its exponent."""
    largest = np.int64(0)
    for i in range(len(values)):
        largest = max(largest, abs(values[i]))
    e = max(0, count_bits(largest) - ACTIVATION_BITS)
    half = np.int64(1) << (e - 1) if e > 0 else np.int64(0)
    for i in range(len(values)):
        a[i] = (values[i] + half) >> e
    return e


@compiled
def norm_rows(x: Any, gains: Any, epsilons: Any, a: Any, e: Any) -> None:
    """`poai_spec.model.inference.rms_norm`, then `quantise_row`.

    Args:
        x: int32, shape (R, D), the residual, Q14.
        gains: int32, shape (D,), Q16.
        epsilons: int64, 17 values: eps' for s = -8 .. 8.
        a: int16, shape (>= R, K), receives the quantised rows.
        e: int32, shape (R,), receives their exponents.
    """
    width = x.shape[1]
    h = np.empty(width, np.int64)
    for r in range(len(x)):
        largest = np.int64(0)
        for i in range(width):
            largest = max(largest, abs(np.int64(x[r, i])))
        s = max(-8, count_bits(largest) - 24)
        half, right, left = np.int64(1) << (s - 1) if s > 0 else np.int64(0), max(s, 0), max(-s, 0)
        total = np.int64(0)
        for i in range(width):
            h[i] = ((np.int64(x[r, i]) << left) + half) >> right
            total += h[i] * h[i]
        root = take_root((total // width + epsilons[s + 8]) << 12)
        inverse = (np.int64(1) << 53) // root if root > 0 else np.int64(0)
        for i in range(width):
            normed = (h[i] * inverse + (np.int64(1) << 30)) >> 31
            h[i] = (normed * gains[i] + (np.int64(1) << 15)) >> 16
        e[r] = quantise(h, a[r])


@compiled
def quantise_rows(x: Any, a: Any, e: Any) -> None:
    """`poai_spec.model.inference.quantise_row` on rows: x int32, shape (R, K'); a and e as in `norm_rows`."""
    row = np.empty(x.shape[1], np.int64)
    for r in range(len(x)):
        for i in range(len(row)):
            row[i] = x[r, i]
        e[r] = quantise(row, a[r])


@compiled
def scale_row(sums: Any, multipliers: Any, n: int, limit: int, add: bool, out: Any) -> None:
    """Scale a row's sums by `M_o / 2^n`, round and clamp; `sums * M_o` and its half are exact in float64.

    A left shift multiplies by a power of two, which float64 does exactly at any size; the clamp comes before int32.
    """
    factor, half = math.ldexp(1.0, -n), math.ldexp(0.5, n) if n > 0 else 0.0
    low, high = -math.ldexp(1.0, limit), math.ldexp(1.0, limit) - 1.0
    for o in range(len(out)):
        y = min(max(np.floor((sums[o] * multipliers[o] + half) * factor), low), high)
        if add:
            y = min(max(y + out[o], _INT32_MIN), _INT32_MAX)
        out[o] = np.int32(y)


@compiled
def add_tile(sums: Any, tile: Any, fresh: bool) -> None:
    """Add a tile to the sums of the segments before it."""
    if fresh:
        sums[:] = 0.0
    for r in range(len(sums)):
        for o in range(sums.shape[1]):
            sums[r, o] += tile[r, o]


@compiled
def multiply(a: Any, e: Any, q: Any, multipliers: Any, shift: int, limit: int, add: bool, out: Any) -> None:
    """`poai_spec.model.inference.linear` on quantised rows.

    Args:
        a: int16, shape (>= R rounded up to TILE_ROWS, K).
        e: int32, shape (R,).
        q: int8, shape (P, K / 2, PANEL, 2), the packed weights.
        multipliers: float64, shape (O,), integers.
        shift: right shift of a row whose exponent is 0.
        limit: bits of the result without sign.
        add: add to what is in `out` and saturate to int32, instead of replacing it.
        out: int32, shape (R, O).
    """
    rows, columns = len(out), a.shape[1]
    flat_a, flat_q = a.reshape(-1), q.reshape(-1)
    tile, sums = np.empty((TILE_ROWS, PANEL), np.int32), np.empty((TILE_ROWS, PANEL))
    for panel in range(len(q)):
        outputs = slice(panel * PANEL, min((panel + 1) * PANEL, out.shape[1]))
        for top in range(0, rows, TILE_ROWS):
            for start in range(0, columns, SEGMENT):
                pairs, at = min(SEGMENT, columns - start) // 2, (panel * columns + start) * PANEL
                multiply_tile(flat_a, top * columns + start, columns, flat_q, at, pairs, tile)
                if columns > SEGMENT:
                    add_tile(sums, tile, start == 0)
            for r in range(min(TILE_ROWS, rows - top)):
                n, row = shift - e[top + r], out[top + r, outputs]
                if columns > SEGMENT:
                    scale_row(sums[r], multipliers[outputs], n, limit, add, row)
                else:
                    scale_row(tile[r], multipliers[outputs], n, limit, add, row)


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
    pairs, bound = cos.shape[1], np.int64(1) << ROTATED_LIMIT
    half = np.int64(1) << 18
    for r in range(len(x)):
        t = positions[r]
        for head in range(0, x.shape[1], 2 * pairs):
            for i in range(pairs):
                even, odd = np.int64(x[r, head + 2 * i]), np.int64(x[r, head + 2 * i + 1])
                c, s = np.int64(cos[t, i]), np.int64(sin[t, i])
                first = (even * c - odd * s + half) >> 19
                second = (even * s + odd * c + half) >> 19
                out[r, head + 2 * i] = min(max(first, -bound), bound - 1)
                out[r, head + 2 * i + 1] = min(max(second, -bound), bound - 1)


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
def attend_rows(q: Any, keys: Any, values: Any, starts: Any, first: int, scale: int, d: int, out: Any) -> None:
    """`inference.attend` for some rows of a chunk; sums in float64, below d * 2^40 and T * 2^40, so exact.

    The quotient's denominator is at most 2 T 2^16 <= 2^28 and its magnitude at most 2^VALUE_LIMIT, so one that is no
    integer is further from the next one than float64's spacing: its floor is not changed by rounding.

    Args:
        q: float64, shape (>= R + TILE_ROWS - 1, H * d), Q12: tiles begin where sequences do.
        keys: float64, shape (KV * d, chunk rows + WIDE_PANEL), Q12: one row a component.
        values: float64, shape (chunk rows + WIDE_PANEL, KV * d), Q16; rows behind the last are read, not used.
        starts: int32, shape (R,): the chunk row at which each row's sequence starts.
        first: the chunk row of q's first row.
        scale: the model's attention scale, Q24.
        d: head_dim.
        out: int32, shape (R, H * d), Q16.
    """
    rows, heads = len(starts), q.shape[1] // d
    group, stride = heads // (len(keys) // d), q.shape[1]
    flat_q, flat_keys, flat_values = q.reshape(-1), keys.reshape(-1), values.reshape(-1)
    longest = -(-(first + rows - starts.min()) // WIDE_PANEL) * WIDE_PANEL
    scores, tile = np.zeros((TILE_ROWS, longest)), np.empty((TILE_ROWS, WIDE_PANEL))
    totals = np.empty(TILE_ROWS)
    top = 0
    while top < rows:
        start = starts[top]
        height = 1
        while height < TILE_ROWS and top + height < rows and starts[top + height] == start:
            height += 1
        length = first + top + height - start
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
def swiglu_rows(gate: Any, up: Any, a: Any, e: Any) -> None:
    """`poai_spec.model.inference.swiglu`, then `quantise_row`; gate and up int32, shape (R, F), Q16; a and e as there.

    Sigma is a floor of integers below 2^48 over at most 2^32: an inexact quotient of magnitude up to 2^16 is at least
    2^-32 from an integer, and float64's spacing there is 2^-37.
    """
    width = gate.shape[1]
    act = np.empty(width, np.int64)
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
        e[r] = quantise(act, a[r])


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
