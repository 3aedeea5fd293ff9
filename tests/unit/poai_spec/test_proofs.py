"""Proofs about the fixed-point functions, by z3 where a formula covers all inputs and by trying all if there are few.

z3 works on the page's own functions: they are run on its integer terms. Shifts are given to it as what they mean for
integers of any size, `x << n = x * 2^n` and `x >> n = floor(x / 2^n)`.
"""

from itertools import pairwise
from math import isqrt

import pytest
import z3
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.model.fixed_point import (
    EXP2_ONE,
    LOG2E,
    LOG2E_128,
    div_round,
    exp2_neg,
    log2_fixed,
    make_exp2_table,
    round_shift,
)
from poai_spec.model.inference import SCALE_STEPS, choose_scale, compute_nll
from poai_spec.model.integer_model import compute_attention_scale


class Term:
    """A z3 integer with Python's operators; `//` and `>>` are floor division by a positive number."""

    def __init__(self, term: z3.ArithRef) -> None:
        self.term = term

    def __add__(self, other: "Term | int") -> "Term":
        return Term(self.term + get_term(other))

    def __sub__(self, other: "Term | int") -> "Term":
        return Term(self.term - get_term(other))

    def __mul__(self, other: "Term | int") -> "Term":
        return Term(self.term * get_term(other))

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: "Term | int") -> "Term":
        return Term(self.term / get_term(other))  # z3's integer division is floor division for positive divisors

    def __rshift__(self, n: int) -> "Term":
        return self // (1 << n)

    def __lshift__(self, n: int) -> "Term":
        return self * (1 << n)


def get_term(x: "Term | int") -> z3.ArithRef:
    return x.term if isinstance(x, Term) else z3.IntVal(x)


def prove(claim: z3.BoolRef, *assumptions: z3.BoolRef) -> None:
    """Fail unless the claim follows: its negation has no solution."""
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*assumptions, z3.Not(claim))
    assert solver.check() == z3.unsat, solver.model() if solver.check() == z3.sat else "undecided"


def test_the_prover_refutes_what_is_false() -> None:
    x, y = z3.Ints("x y")
    with pytest.raises(AssertionError):
        prove(round_shift(Term(x), 4).term < round_shift(Term(y), 4).term, x < y)  # type: ignore[arg-type, attr-defined]


@pytest.mark.parametrize("n", range(-40, 65))
def test_round_shift_is_monotone_and_nearest(n: int) -> None:
    x, y = z3.Ints("x y")
    rx, ry = (round_shift(Term(v), n).term for v in (x, y))  # type: ignore[arg-type, attr-defined]
    prove(rx <= ry, x <= y)
    if n > 0:  # x / 2^n - 1/2 < r <= x / 2^n + 1/2: nearest, halves up
        prove(z3.And(2 * x - 2**n < 2 * rx * 2**n, 2 * rx * 2**n <= 2 * x + 2**n))
    else:
        prove(rx == x * 2**-n)


def test_div_round_is_nearest_and_monotone() -> None:
    """With the quotient q of the page's floor division: 2 b q <= 2 a + b < 2 b (q + 1); all claims follow from that."""
    a, b, c, d, p, q, v = z3.Ints("a b c d p q v")
    term = div_round(Term(a), Term(b)).term  # type: ignore[arg-type, attr-defined]
    assert str(z3.simplify(term)) == str(z3.simplify((2 * a + b) / (2 * b)))

    def quotient(a: z3.ArithRef, b: z3.ArithRef, q: z3.ArithRef) -> z3.BoolRef:
        return z3.And(b > 0, 2 * b * q <= 2 * a + b, 2 * a + b < 2 * b * (q + 1))

    prove(z3.And(2 * a - b < 2 * b * q, 2 * b * q <= 2 * a + b), quotient(a, b, q))  # nearest, halves up
    prove(p <= q, quotient(a, b, p), quotient(c, b, q), a <= c)  # monotone in a
    prove(p >= q, quotient(a, b, p), quotient(a, d, q), a >= 0, b <= d)  # falling in b for a >= 0
    prove(p <= q, quotient(a, b, p), quotient(a, d, q), a < 0, b <= d)  # rising in b for a < 0
    # A weighted mean stays among the values: attention outputs below 2^24, int8 weights within 127.
    prove(z3.And(-v <= q, q <= v), quotient(a, b, q), -v * b <= a, a <= v * b, v >= 0)


def test_values_of_a_row_stay_within_127() -> None:
    """`choose_scale` gives s = f << e2 with 4 |z| <= 127 s; then no `div_round(4 * z, s)` leaves -127 .. 127."""
    z, s, q = z3.Ints("z s q")
    quotient = z3.And(s > 0, 2 * s * q <= 8 * z + s, 8 * z + s < 2 * s * (q + 1))
    prove(z3.And(q >= -127, q <= 127), quotient, 4 * z >= -127 * s, 4 * z <= 127 * s)
    for largest in (*range(3000), *(n + by for n in (1 << 14, 1 << 17, 1 << 20) for by in (-1, 0))):
        e2, f = choose_scale(largest)
        assert 4 * largest <= 127 * f << e2
        smaller = [(127 * g << e) for e in range(14) for g in SCALE_STEPS if g << e < f << e2]
        assert all(4 * largest > limit for limit in smaller), "not the smallest that fits"


def test_one_round_of_the_transform() -> None:
    """Sums and differences never make the largest value smaller, and double the sum of products; so do all rounds."""
    a, b, c, d = z3.Ints("a b c d")
    for value in (a, b, -a, -b):
        prove(z3.Or(a + b >= value, -a - b >= value, a - b >= value, b - a >= value))
    prove((a + b) * (c + d) + (a - b) * (c - d) == 2 * (a * c + b * d))


@pytest.mark.parametrize("n", range(54, 61))
def test_long_shifts_of_a_product_give_zero(n: int) -> None:
    """What an engine's float64 form rests on: 2^52 is the bound of `acc * M_o * f`."""
    p = z3.Int("p")
    prove(round_shift(Term(p), n).term == 0, p > -(2**52), p < 2**52)  # type: ignore[arg-type, attr-defined]


@pytest.fixture(scope="module")
def powers() -> list[int]:
    """`exp2_neg` of every d with a result above 0."""
    return [exp2_neg(d) for d in range(31 << 16)]


def test_exp2_neg_never_increases_and_fits_int32(powers: list[int]) -> None:
    assert all(x >= y for x, y in pairwise(powers))
    assert powers[0] == EXP2_ONE
    assert powers[-1] >= exp2_neg(31 << 16) == exp2_neg(1 << 60) == 0
    table = make_exp2_table()
    assert max(table) < 2**31
    assert all(0 <= (x - y) * 255 + 128 < 2**31 for x, y in pairwise(table))


def test_error_of_exp2_neg(powers: list[int]) -> None:
    """|exp2_neg(d) / 2^30 - 2^(-d / 2^16)| < 2^-20 for every d.

    The real power is enclosed in Q96: 2^(-1/2^16) is 1/2 under 16 square roots, off by 2 units in the last place at
    most (a root of a number near 1 halves what came before and cuts off one unit), and each further power adds these
    and one of its own, together less than 2^18 for d < 2^16. Above, every 2^16 halve the power and its error.
    """
    step = 1 << 95
    for _ in range(16):
        step = isqrt(step << 96)
    enclosure, power, worst = 1 << 18, 1 << 96, 0
    for f in range(1 << 16):
        for k in range(31):
            error = abs((powers[(k << 16) + f] << 66) - (power >> k))
            worst = max(worst, error)
        power = power * step >> 96
    assert abs(power - (1 << 95)) < enclosure
    assert worst + enclosure + 1 < 1 << 76
    assert EXP2_ONE >> 31 < 1 << 10  # from d = 31 on the result is 0 and the power is below 2^-30


def test_exp2_table_is_the_nearest() -> None:
    """(T - 1/2)^256 < 2^(30 * 256 - j) < (T + 1/2)^256, in integers."""
    table = make_exp2_table()
    assert len(table) == 257
    for j, entry in enumerate(table):
        assert (2 * entry - 1) ** 256 < 1 << (31 * 256 - j) < (2 * entry + 1) ** 256


def step_of_log2(mantissa: int) -> tuple[int, int]:
    """One round of the loop of `log2_fixed`, as the proofs below have it."""
    shifted = mantissa * mantissa >> 30
    return shifted >> 31, shifted >> (shifted >> 31)


@given(st.integers(1, 2**62 - 1))
def test_the_proved_step_is_the_step_of_the_page(x: int) -> None:
    n = x.bit_length() - 1
    mantissa, bits = (x << 30) >> n, 0
    for _ in range(16):
        bit, mantissa = step_of_log2(mantissa)
        bits = 2 * bits + bit
    assert log2_fixed(x) == (n << 16) + bits
    if n >= 30:
        assert (x << 30) >> n == x >> (n - 30)  # what an engine with 64-bit words does


def test_log2_fixed_never_decreases() -> None:
    """A larger mantissa gives a larger next bit, or the same bit and no smaller mantissa.

    So the 16 bits are ordered as the mantissas are; between two powers of two the mantissa is floor(x * 2^30 / 2^n),
    which does not decrease, and at a power of two the integer part takes over, as 16 bits stay below 2^16.
    """
    # A mantissa m is in 2^30 .. 2^31 - 1. Its square is below 2^62 (the line of the table), and squares are ordered.
    m, n = z3.Ints("m n")
    are_mantissas = z3.And(m >= 2**30, m < 2**31, n >= 2**30, n < 2**31)
    prove(z3.And(m * m >= 2**60, m * m < 2**62, m * m <= n * n), are_mantissas, m <= n)
    # Squares s <= t as 64-bit words: the bits and next mantissas that they give.
    s, t = z3.BitVecs("s t", 64)

    def follow(square: z3.BitVecRef) -> tuple[z3.BitVecRef, z3.BitVecRef]:
        shifted = z3.LShR(square, 30)
        return z3.LShR(shifted, 31), z3.LShR(shifted, z3.LShR(shifted, 31))

    ranges = [z3.And(z3.ULE(2**60, v), z3.ULT(v, 2**62)) for v in (s, t)]
    (bit_s, next_s), (bit_t, next_t) = follow(s), follow(t)
    prove(z3.And(z3.ULE(bit_s, 1), z3.ULE(2**30, next_s), z3.ULT(next_s, 2**31)), *ranges)
    prove(z3.Or(z3.ULT(bit_s, bit_t), z3.And(bit_s == bit_t, z3.ULE(next_s, next_t))), *ranges, z3.ULE(s, t))


def test_nll_is_never_negative() -> None:
    """S >= 2^30, log2_fixed does not decrease, and the target's own distance is at least 0."""
    assert exp2_neg(0) == EXP2_ONE  # the largest logit's term of S; no term is negative
    assert log2_fixed(EXP2_ONE) == 30 << 16
    x = z3.Int("x")
    prove(round_shift(Term(x) * LOG2E, 20).term >= 0, x >= 0)  # type: ignore[arg-type, attr-defined]
    assert compute_nll((7,), 0) == 0


def test_log2e() -> None:
    """LOG2E_128 = floor(log2(e) * 2^128), from the series of e and by squaring; the page only states the number.

    log2(e) is 1 and a fraction; each bit of it tells whether the square of e / 2, or of its remainder, reaches 2.
    e is enclosed between two rationals that agree in all bits.
    """
    bits = 700
    e_low, term = 0, 1 << bits
    for n in range(1, 200):
        e_low += term
        term //= n
    results = []
    for e in (e_low, e_low + (1 << 10)):  # the series cuts off less than 200 units and lacks a tail below one
        mantissa, digits = e >> 1, 1  # e = 2^1 * mantissa
        for _ in range(128):
            mantissa = mantissa * mantissa >> bits
            bit = mantissa >> (bits + 1)
            mantissa >>= bit
            digits = 2 * digits + bit
        results.append(digits)
    assert results[0] == results[1] == LOG2E_128
    assert LOG2E == (LOG2E_128 + (1 << 107)) >> 108


def test_attention_scale_is_the_nearest() -> None:
    """(C - 1/2)^2 <= log2(e)^2 * 2^48 / head_dim < (C + 1/2)^2; log2(e) is between LOG2E_128 and its successor."""
    for head_dim in range(2, 4097, 2):
        c = compute_attention_scale(head_dim)
        assert (2 * c - 1) ** 2 * head_dim << 206 <= LOG2E_128**2
        assert (2 * c + 1) ** 2 * head_dim << 206 > (LOG2E_128 + 1) ** 2
