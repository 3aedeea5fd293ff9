"""The page `fixed-point` against independent computations: exact fractions, and decimals of 80 digits."""

from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.model import fixed_point
from poai_spec.model.fixed_point import (
    GUARD_BITS,
    clamp,
    compute_frequency,
    compute_pi,
    cos_sin,
    div_round,
    exp2_neg,
    get_transform_size,
    integer_root,
    log2_fixed,
    make_exp2_table,
    round_shift,
    walsh_hadamard,
)
from poai_spec.model.weights import Float32

integers = st.integers(-(2**70), 2**70)
DIGITS = Context(prec=80)


def nearest(value: Fraction | Decimal) -> int:
    """Round to the nearest integer, halves up."""
    with localcontext(DIGITS):
        if isinstance(value, Fraction):
            return floor(value + Fraction(1, 2))
        return int((value + Decimal("0.5")).to_integral_value(ROUND_FLOOR))


@given(integers, st.integers(-40, 80))
def test_round_shift(x: int, n: int) -> None:
    assert round_shift(x, n) == nearest(x / Fraction(2) ** n)


@given(integers, st.integers(1, 2**40))
def test_div_round(a: int, b: int) -> None:
    assert div_round(a, b) == nearest(Fraction(a, b))


@given(integers, st.integers(1, 40))
def test_clamp(x: int, n: int) -> None:
    assert clamp(x, n) == sorted([-(2**n), x, 2**n - 1])[1]


@given(st.integers(0, 2**200), st.integers(1, 9))
def test_integer_root(x: int, n: int) -> None:
    root = integer_root(x, n)
    assert root**n <= x < (root + 1) ** n


def test_exp2_table() -> None:
    with localcontext(DIGITS):
        for j, entry in enumerate(make_exp2_table()):
            assert entry == nearest(Decimal(2) ** (Decimal(30) - Decimal(j) / 256))


@given(st.integers(0, 40 << 16))
def test_exp2_neg(d: int) -> None:
    with localcontext(DIGITS):
        assert abs(Decimal(exp2_neg(d)) / 2**30 - Decimal(2) ** (-Decimal(d) / 2**16)) < Decimal(2) ** -20


@given(st.integers(1, 2**62 - 1))
def test_log2_fixed(x: int) -> None:
    """Cut, not rounded: never above the real logarithm, and below it by less than 1.01 units."""
    with localcontext(DIGITS):
        exact = Decimal(x).ln() / Decimal(2).ln() * 2**16
        assert Decimal("-1e-60") < exact - log2_fixed(x) < Decimal("1.01")


def test_log2_fixed_is_not_always_the_floor() -> None:
    """The page says so: just above 2^(40 + j / 2^16) the result is still that of the step below."""
    with localcontext(DIGITS):
        steps = [(40 << 16) + j for j in range(1, 1 << 16, 997)]
        results = [log2_fixed(int(Decimal(2) ** (Decimal(step) / 2**16)) + 1) for step in steps]
    assert {step - result for step, result in zip(steps, results, strict=True)} == {1}


def compute_pi_by_decimals() -> Decimal:
    """Gauss and Legendre's iteration."""
    with localcontext(DIGITS):
        a, b, t, p = Decimal(1), 1 / Decimal(2).sqrt(), Decimal("0.25"), 1
        for _ in range(8):
            mean = (a + b) / 2
            b = (a * b).sqrt()
            t -= p * (a - mean) ** 2
            a, p = mean, 2 * p
        return (a + b) ** 2 / (4 * t)


PI = compute_pi_by_decimals()


def test_pi() -> None:
    assert str(PI).startswith("3.14159265358979323846264338327950288419716939937510")
    with localcontext(DIGITS):
        assert abs(Decimal(compute_pi()) / 2**GUARD_BITS - PI) < Decimal(2) ** -186


@pytest.mark.parametrize("d", [2, 6, 64, 128])
@pytest.mark.parametrize("base", [10_000.0, 500_000.0, 1.0, 1.5])
def test_frequency(d: int, base: float) -> None:
    numerator, denominator = base.as_integer_ratio()
    with localcontext(DIGITS):
        for i in range(0, d // 2, max(1, d // 8)):
            exact = (Decimal(numerator) / denominator) ** (Decimal(-2 * i) / d)
            assert (
                abs(Decimal(compute_frequency(i, d, numerator, denominator)) / 2**GUARD_BITS - exact)
                < Decimal(10) ** -55
            )


def cos_sin_by_decimals(angle: Decimal) -> tuple[Decimal, Decimal]:
    """Halve the angle until the series is short, then double it back by the addition theorems."""
    angle = (angle % (2 * PI)) / 2**20
    c = s = Decimal(0)
    term = Decimal(1)
    for k in range(12):
        c, s = (c + (-1) ** (k // 2) * term, s) if k % 2 == 0 else (c, s + (-1) ** (k // 2) * term)
        term = term * angle / (k + 1)
    for _ in range(20):
        c, s = c * c - s * s, 2 * s * c
    return c, s


@given(st.integers(0, 2047), st.integers(0, 31), st.sampled_from([0x461C4000, 0x48F42400, 0x47C35000]))
def test_cos_sin(position: int, i: int, bits: int) -> None:
    numerator, denominator = Float32(bits).as_ratio()
    with localcontext(DIGITS):
        angle = position * (Decimal(numerator) / denominator) ** (Decimal(-2 * i) / 64)
        c, s = cos_sin_by_decimals(angle)
        assert abs(c * c + s * s - 1) < Decimal(10) ** -50
        assert cos_sin(position, i, 64, numerator, denominator) == (nearest(c * 2**15), nearest(s * 2**15))


def test_cos_sin_refuses_to_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """An angle whose cosine is half-way between two Q15 numbers: the assertion fires instead of rounding by luck."""
    half_way = Decimal(20_001) / 2**16  # cos = 10000.5 / 2^15
    with localcontext(DIGITS):
        low, high = Decimal(0), PI
        for _ in range(260):
            middle = (low + high) / 2
            low, high = (middle, high) if cos_sin_by_decimals(middle)[0] > half_way else (low, middle)
        frequency = int(low * 2**GUARD_BITS)
    cos_sin.cache_clear()
    monkeypatch.setattr(fixed_point, "compute_frequency", lambda i, d, numerator, denominator: frequency)
    with pytest.raises(AssertionError):
        cos_sin(1, 0, 64, 7, 1)
    monkeypatch.setattr(fixed_point, "compute_frequency", lambda i, d, numerator, denominator: frequency + (1 << 66))
    assert cos_sin(1, 0, 64, 7, 1)[0] == 10_000
    cos_sin.cache_clear()


@given(st.sampled_from([1, 2, 3, 4, 12, 24, 64, 96, 192]), st.data())
def test_walsh_hadamard_is_the_matrix(width: int, data: st.DataObject) -> None:
    row = data.draw(st.lists(st.integers(-(2**58), 2**58), min_size=width, max_size=width))
    size, found = get_transform_size(width), walsh_hadamard(row)
    assert width % size == 0
    for at in range(0, width, size):
        run = row[at : at + size]
        for i in range(size):
            assert found[at + i] == sum((-1) ** (i & j).bit_count() * v for j, v in enumerate(run))
    assert walsh_hadamard(found) == tuple(size * v for v in row)


@pytest.mark.parametrize(
    ("width", "size"), [(1, 1), (2, 2), (3, 1), (48, 16), (64, 64), (128, 64), (576, 64), (1000, 8)]
)
def test_the_size_of_a_transform(width: int, size: int) -> None:
    assert get_transform_size(width) == size
