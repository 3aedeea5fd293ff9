# # Fixed point  [generated from specs/model/fixed-point.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The arithmetic of the forward pass: a few functions on integers that stand for real numbers. `QF` means fixed point with
# F fractional bits: the integer `x` stands for `x / 2^F`. Every function here is exact, on integers of any size; the
# bounds that let an engine use 64-bit words are stated in [inference](inference.md) and tested.

# Real constants and tables (powers of two, cosines, logarithms) are the nearest integers, computed by integer algorithms
# of this page, never by a floating-point library, and pinned by their digests.


from collections.abc import Sequence
from functools import cache
from math import gcd, isqrt

from poai_spec.basics.notation import Hash32, int32_le, tagged_hash


# ## Constants

# | name | value | meaning |
# | --- | --- | --- |
# | `LOG2E` | 1512775 | log2(e) in Q20, rounded to nearest |
# | `LOG2E_128` | floor(log2(e) * 2^128) | the same with 128 fractional bits, for the attention constant |
# | `EXP2_ONE` | 2^30 | 1 in Q30, the format of `exp2_neg` |
# | `GUARD_BITS` | 192 | fractional bits while a table is made; the result keeps 30 at most |
# | `TRANSFORM_SIZE` | 64 | values that a Walsh-Hadamard transform mixes at most: it divides common widths, and adds 6 bits |


LOG2E = 1_512_775
LOG2E_128 = 490_923_683_258_796_565_746_369_346_286_093_237_521
EXP2_ONE = 1 << 30
GUARD_BITS = 192
TRANSFORM_SIZE = 64


# ## Rounding and bounds

# ### `round_shift`


def round_shift(x: int, n: int) -> int:
    """Return x / 2^n rounded to nearest, halves up; for n <= 0 the exact left shift.

    `>>` is the arithmetic shift (toward minus infinity), so -3 / 2 gives -1 and 3 / 2 gives 2.
    """
    if n > 0:
        return (x + (1 << (n - 1))) >> n
    return x << -n


# ### `div_round`


def div_round(a: int, b: int) -> int:
    """Return a / b rounded to nearest, halves up, for b > 0; the division is floor division."""
    return (2 * a + b) // (2 * b)


# ### `clamp`


def clamp(x: int, n: int) -> int:
    """Return x limited to -2^n .. 2^n - 1; `clamp(x, 31)` saturates to int32."""
    return max(-(1 << n), min((1 << n) - 1, x))


# ### `bit_length`


def bit_length(x: int) -> int:
    """Return the number of bits of x >= 0; 0 has none."""
    return x.bit_length()


# The floor square root is the standard library's `math.isqrt`: `isqrt(x)` is the largest r with r * r <= x, for x >= 0. A
# float64 square root may be one off; compare r * r and (r + 1) * (r + 1) with x, as integers.

# ```pycon
# >>> from poai_spec.model.fixed_point import clamp, div_round, round_shift
# >>> [round_shift(x, 1) for x in (-3, -2, -1, 0, 1, 2, 3)]
# [-1, -1, 0, 0, 1, 1, 2]
# >>> [div_round(x, 2) for x in (-3, -2, -1, 0, 1, 2, 3)]
# [-1, -1, 0, 0, 1, 1, 2]
# >>> clamp(200, 7), clamp(-200, 7)
# (127, -128)


# ## Walsh-Hadamard transform

# ### `get_transform_size`


def get_transform_size(width: int) -> int:
    """Return B, how many values of a row of `width` are transformed together: a power of two that divides the width."""
    return gcd(width, TRANSFORM_SIZE)


# ### `walsh_hadamard`

# A row is cut into runs of B values. Value i of a run becomes the sum of its values j, each with the sign
# `(-1)^popcount(i & j)` (Sylvester's order). The transform is its own inverse up to the factor B, so a sum of products of
# two transformed rows is B times that of the rows themselves. Only additions: it is exact, and a value grows to B times
# its size at most. The loop is the fast form, log2(B) rounds of sums and differences.


def walsh_hadamard(row: Sequence[int]) -> tuple[int, ...]:
    """Return each run of B values times Sylvester's matrix of order B, not normalised.

    Reference: Fino and Algazi, Unified Matrix Treatment of the Fast Walsh-Hadamard Transform, 1976.
    """
    out, distance = list(row), 1
    while distance < get_transform_size(len(out)):
        for i in range(len(out)):
            if not i & distance:
                out[i], out[i + distance] = out[i] + out[i + distance], out[i] - out[i + distance]
        distance *= 2
    return tuple(out)


# ```pycon
# >>> from poai_spec.model.fixed_point import walsh_hadamard
# >>> walsh_hadamard((5, 1, 0, 0)), walsh_hadamard((6, 4, 6, 4))
# ((6, 4, 6, 4), (20, 4, 0, 0))
# >>> walsh_hadamard((5, 1, 7))
# (5, 1, 7)


# ## Powers of two

# ### `make_exp2_table`

# `T[j]` is the nearest integer to 2^(30 - j/256). The floor of twice that number is an integer root, the 256th root of
# 2^(31*256 - j); adding one and halving rounds it.


@cache
def make_exp2_table() -> tuple[int, ...]:
    """Return T, 257 entries: T[j] = 2^(30 - j/256) rounded to nearest, Q30."""
    table = []
    for j in range(257):
        root = integer_root(1 << (31 * 256 - j), 256)  # floor(2 * 2^(30 - j/256))
        table.append((root + 1) >> 1)
    return tuple(table)


# ### `integer_root`


def integer_root(x: int, n: int) -> int:
    """Return the floor of the n-th root of x >= 0, n >= 1."""
    root = 0
    for bit in reversed(range(x.bit_length() // n + 1)):
        if (root + (1 << bit)) ** n <= x:
            root += 1 << bit
    return root


# ### `exp2_neg`

# Linear interpolation in the table. The error is below 2^-20 of the result's unit 1, and the function never increases
# with `d` (the tests try every one).


def exp2_neg(d: int) -> int:
    """Return about 2^-d for d >= 0 in Q16; the result is in Q30, 0 for d >= 31.

    All intermediate values but d fit int32.
    """
    table, fraction, k = make_exp2_table(), d & 0xFFFF, d >> 16
    if k >= 31:
        return 0
    j = fraction >> 8
    step = ((table[j] - table[j + 1]) * (fraction & 255) + 128) >> 8
    return (table[j] - step) >> k


# ```pycon
# >>> from poai_spec.model.fixed_point import exp2_neg
# >>> exp2_neg(0) == 2**30, exp2_neg(1 << 16) == 2**29, exp2_neg(31 << 16)
# (True, True, 0)


# ## Logarithm

# ### `log2_fixed`

# The classical shift-and-square loop. The loop *is* the definition: it cuts at 30 bits each time and is not always the
# floor of the real logarithm.


def log2_fixed(x: int) -> int:
    """Return about log2(x) for x > 0, in Q16; x is a plain integer below 2^62."""
    n = bit_length(x) - 1
    mantissa, result = (x << 30) >> n, n
    for _ in range(16):
        mantissa = (mantissa * mantissa) >> 30
        bit = mantissa >> 31
        mantissa >>= bit
        result = 2 * result + bit
    return result


# ```pycon
# >>> from poai_spec.model.fixed_point import log2_fixed
# >>> log2_fixed(1), log2_fixed(1024) == 10 << 16, log2_fixed(3)
# (0, True, 103872)


# ## Rotary angles

# ### `compute_pi`


@cache
def compute_pi() -> int:
    """Return pi with `GUARD_BITS` fractional bits, by Machin's formula 16 arctan(1/5) - 4 arctan(1/239)."""
    extra = 16
    one = 1 << (GUARD_BITS + extra)
    total = 0
    for factor, n in ((16, 5), (-4, 239)):
        term, k = one // n, 0
        while term:
            total += factor * (term // (2 * k + 1)) * (-1) ** k
            term //= n * n
            k += 1
    return total >> extra


# ### `compute_frequency`

# The angle step of pair `i` is `base^(-2i/d)`: the d-th root of a rational, so integers suffice. `base` is a float32,
# that is `numerator / denominator` exactly. Of an accepted model (`check_architecture`) it is at least 1 and finite, and d
# is the head dimension: even, 2 .. 4096.


@cache
def compute_frequency(i: int, d: int, numerator: int, denominator: int) -> int:
    """Return floor(base^(-2i/d) * 2^GUARD_BITS), base = numerator / denominator >= 1, d even, 0 <= i < d/2."""
    scaled = (denominator ** (2 * i) << (GUARD_BITS * d)) // numerator ** (2 * i)
    return integer_root(scaled, d)


# ### `cos_sin`

# The angle is reduced modulo 2 pi and both series are summed with `GUARD_BITS` bits. The error of the sum is below
# 2^-150 for positions below 2^16; the rounding could only be in doubt within that distance of a half, which the assertion
# excludes. Positions are those of a quiz, 0 .. 2047. Only how the pair is defined is normative: any method that gives the
# nearest integers will do.


@cache
def cos_sin(position: int, i: int, d: int, numerator: int, denominator: int) -> tuple[int, int]:
    """Return the nearest Q15 integers of cos and sin of `position * base^(-2i/d)`; 32768 occurs, so not int16.

    Args:
        position: 0 .. 2^16 - 1.
        i: number of the pair, 0 .. d/2 - 1.
        d: head dimension, even.
        numerator: of the base, which is at least 1.
        denominator: of the base.
    """
    angle = position * compute_frequency(i, d, numerator, denominator) % (2 * compute_pi())
    sums, term, k = [0, 0], 1 << GUARD_BITS, 0
    while term:
        sums[k % 2] += term if k % 4 < 2 else -term
        k += 1
        term = (term * angle >> GUARD_BITS) // k
    for value in sums:
        doubt = (value + (1 << (GUARD_BITS - 16))) % (1 << (GUARD_BITS - 15))
        assert min(doubt, (1 << (GUARD_BITS - 15)) - doubt) > 1 << 64
    return round_shift(sums[0], GUARD_BITS - 15), round_shift(sums[1], GUARD_BITS - 15)


# ```pycon
# >>> from poai_spec.model.fixed_point import cos_sin
# >>> cos_sin(0, 0, 64, 10000, 1), cos_sin(1, 0, 64, 10000, 1)
# ((32768, 0), (17705, 27573))


# ## Pinned digests

# ### `compute_table_digest`


def compute_table_digest(values: tuple[int, ...]) -> Hash32:
    """Return the digest by which a table is pinned: the entries as int32, little-endian."""
    return tagged_hash("PoAI/table/1", int32_le(values))


# | table | digest |
# | --- | --- |
# | `make_exp2_table()` | `ee5367201d0b899a33eedc233bac33bdf61b4ce02d58dcd7eec3291c15a5f9df` |
# | `cos_sin(p, i, 64, 10000, 1)` for p = 0 .. 63, i = 0 .. 31, cosine before sine | `bf8f9f43e0e601d130d05a07bf45b0dd4e59f69da7dc596faac262d9cc418b0a` |

# ```pycon
# >>> from poai_spec.model.fixed_point import compute_table_digest, make_exp2_table
# >>> compute_table_digest(make_exp2_table()).hex()
# 'ee5367201d0b899a33eedc233bac33bdf61b4ce02d58dcd7eec3291c15a5f9df'
# >>> angles = [cos_sin(p, i, 64, 10000, 1) for p in range(64) for i in range(32)]
# >>> compute_table_digest(tuple(x for pair in angles for x in pair)).hex()
# 'bf8f9f43e0e601d130d05a07bf45b0dd4e59f69da7dc596faac262d9cc418b0a'


# ## Rationale

# - **Halves up, everywhere.** One rounding rule that a shift can do. Ties to even would cost engines a compare per
#   element and nobody could see the difference in the losses.
# - **A table of 257 entries**, not a polynomial: int32 arithmetic, no question about the order of operations, and small
#   enough for the first-level cache.
