"""Vectors of the page `fixed-point`: rounding, powers of two, logarithms, rotary angles, tables."""

from collections.abc import Callable, Iterable
from math import isqrt
from typing import Any

from poai_spec.model.fixed_point import (
    bit_length,
    clamp,
    compute_frequency,
    compute_pi,
    compute_table_digest,
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
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.defects import NOT_FINITE_FLAG, refuse_not_finite
from poai_tools.vectors.kinds import HASH32, INT32, INT64, UINT32, Array, Integer, KindError, RecordKind
from poai_tools.vectors.registry import Function, register

SUITE = "fixed_point"
DERIVATION = "Chosen boundaries; random numbers are draws of the DRBG whose seed derives from 'fixed_point/' || id."
BITS62 = Integer(0, 2**62 - 1)
HEAD_DIM = Integer(2, 256)
BIG = Integer(0, 2**1024)
"""Roots, pi and frequencies have 192 fractional bits and more."""
FLAGS = {
    "halves": (
        "the exact result lies halfway between two integers",
        "a client that rounds halves to even, away from zero or toward zero differs here",
    ),
    "negative": (
        "a negative number is divided or shifted",
        "a client whose division or shift rounds toward zero differs here",
    ),
    "boundary": (
        "an end of a range: the largest, the smallest, or the first where another rule begins",
        "a client with a wrong comparison or too narrow an integer differs here",
    ),
    **NOT_FINITE_FLAG,
    "internal": (
        "an intermediate value of the page's own algorithm",
        "a client that makes its tables in another way may leave the function out",
    ),
}


def _register(
    name: str, summary: str, fields: dict[str, Any], output: dict[str, Any], run: Callable[[Any], Any]
) -> Function:
    return register(Function(SUITE, name, "fixed-point", summary, RecordKind(fields), RecordKind(output), run))


ROUND_SHIFT = _register(
    "round_shift", "each x / 2^n, rounded to nearest, halves up; n <= 0: the exact left shift",
    {"x": Array(INT64), "n": Integer(-62, 63)}, {"y": Array(INT64)},
    lambda i: {"y": [round_shift(x, i["n"]) for x in i["x"]]},
)  # fmt: skip
DIV_ROUND = _register(
    "div_round", "each a / b, rounded to nearest, halves up; b > 0",
    {"a": Array(INT64), "b": Integer(1, 2**62)}, {"y": Array(INT64)},
    lambda i: {"y": [div_round(a, i["b"]) for a in i["a"]]},
)  # fmt: skip
CLAMP = _register(
    "clamp", "each x limited to -2^n .. 2^n - 1",
    {"x": Array(INT64), "n": Integer(0, 62)}, {"y": Array(INT64)},
    lambda i: {"y": [clamp(x, i["n"]) for x in i["x"]]},
)  # fmt: skip
WALSH_HADAMARD = _register(
    "walsh_hadamard", "each run of gcd(width, 64) values times Sylvester's matrix, not normalised",
    {"x": Array(INT32, 1)}, {"y": Array(INT64)},
    lambda i: {"y": walsh_hadamard(i["x"])},
)  # fmt: skip
BIT_LENGTH = _register(
    "bit_length", "number of bits of each x >= 0",
    {"x": Array(BITS62)}, {"y": Array(Integer(0, 62))},
    lambda i: {"y": [bit_length(x) for x in i["x"]]},
)  # fmt: skip
ISQRT = _register(
    "isqrt", "floor of the square root of each x >= 0",
    {"x": Array(BITS62)}, {"y": Array(Integer(0, 2**31 - 1))},
    lambda i: {"y": [isqrt(x) for x in i["x"]]},
)  # fmt: skip
EXP2_NEG = _register(
    "exp2_neg", "about 2^-d in Q30 for each d >= 0 in Q16",
    {"d": Array(BITS62)}, {"y": Array(Integer(0, 2**30))},
    lambda i: {"y": [exp2_neg(d) for d in i["d"]]},
)  # fmt: skip
LOG2_FIXED = _register(
    "log2_fixed", "about log2(x) in Q16 for each plain integer x > 0",
    {"x": Array(Integer(1, 2**62 - 1))}, {"y": Array(UINT32)},
    lambda i: {"y": [log2_fixed(x) for x in i["x"]]},
)  # fmt: skip
COS_SIN = _register(
    "cos_sin", "nearest Q15 integers of cos and sin of position * base^(-2 pair / head_dim); base: the bits of an F32",
    {"position": Integer(0, 2**16 - 1), "pair": Integer(0, 127), "head_dim": HEAD_DIM, "base": UINT32},
    {"cos": Integer(-(2**15), 2**15), "sin": Integer(-(2**15), 2**15)},
    lambda i: dict(zip(("cos", "sin"), _cos_sin(**i), strict=True)),
)  # fmt: skip
INTEGER_ROOT = _register(
    "integer_root", "floor of the n-th root of x >= 0",
    {"x": BIG, "n": Integer(1, 2**12)}, {"root": BIG},
    lambda i: {"root": integer_root(i["x"], i["n"])},
)  # fmt: skip
PI = _register("pi", "pi with 192 fractional bits", {}, {"value": BIG}, lambda _: {"value": compute_pi()})
FREQUENCY = _register(
    "frequency", "floor of base^(-2 pair / head_dim) * 2^192; base: the bits of an F32",
    {"pair": Integer(0, 127), "head_dim": HEAD_DIM, "base": UINT32}, {"value": BIG},
    lambda i: {"value": compute_frequency(i["pair"], i["head_dim"], *_read_base(i["base"], i["pair"], i["head_dim"]))},
)  # fmt: skip
EXP2_TABLE = _register(
    "exp2_table", "the 257 entries T[j] = 2^(30 - j/256), rounded, and their digest",
    {}, {"digest": HASH32, "values": Array(INT32)},
    lambda _: {"digest": compute_table_digest(make_exp2_table()), "values": make_exp2_table()},
)  # fmt: skip
ROTARY_TABLE = _register(
    "rotary_table", "digest of cos and sin, in turn, for each position below `positions` and each pair; the last eight",
    {"positions": Integer(1, 64), "head_dim": HEAD_DIM, "base": UINT32},
    {"digest": HASH32, "last": Array(INT32)},
    lambda i: _rotary_table(**i),
)  # fmt: skip
TABLE_DIGEST = _register(
    "table_digest", "digest of a table of int32",
    {"values": Array(INT32)}, {"digest": HASH32},
    lambda i: {"digest": compute_table_digest(i["values"])},
)  # fmt: skip


def _read_base(bits: int, pair: int, head_dim: int) -> tuple[int, int]:
    """Return numerator and denominator of a base that the functions are defined for."""
    numerator, denominator = Float32(bits).as_ratio()
    if head_dim % 2 or pair >= head_dim // 2 or numerator < denominator:
        raise KindError("input: head_dim is even, pair below its half, base 1 or more")
    return numerator, denominator


def _cos_sin(position: int, pair: int, head_dim: int, base: int) -> tuple[int, int]:
    return cos_sin(position, pair, head_dim, *_read_base(base, pair, head_dim))


def _rotary_table(positions: int, head_dim: int, base: int) -> dict[str, Any]:
    angles = [_cos_sin(p, i, head_dim, base) for p in range(positions) for i in range(head_dim // 2)]
    flat = tuple(value for pair in angles for value in pair)
    return {"digest": compute_table_digest(flat), "last": flat[-8:]}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    rounding = [_round_shift(), _div_round(), _clamp(), _walsh_hadamard(), _bit_length(), _isqrt()]
    functions = [_exp2_table(), _exp2_neg(), _log2_fixed(), _integer_root(), _pi(), _frequency(), _cos_sin_file()]
    return [*rounding, *functions, _rotary_table_file(), _table_digest()]


def _file(function: Function, cases: Iterable[Case]) -> CaseFile:
    listed = tuple(cases)
    used = {flag for case in listed for flag in case.flags}
    return CaseFile(function, DERIVATION, listed, {name: text for name, text in FLAGS.items() if name in used})


def _random(case_id: str, count: int, bits: int, *, signed: bool = True) -> list[int]:
    """Return integers whose lengths are spread over 1 .. bits."""
    drbg = derive(SUITE, case_id)
    found = []
    for _ in range(count):
        size = drbg.between(1, bits)
        magnitude = drbg.below(1 << size)
        found.append(-magnitude if signed and drbg.below(2) else magnitude)
    return found


def _round_shift() -> CaseFile:
    near = (-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5)
    cases = [Case(f"right-{n}", f"halves around zero, n = {n}", _halves(n), ("halves", "negative")) for n in (1, 2, 16)]
    cases += [
        Case("none", "n = 0 changes nothing", {"x": [*near, -(2**63), 2**63 - 1], "n": 0}, ("boundary",)),
        Case("left", "a left shift is exact", {"x": near, "n": -3}, ("negative",)),
        Case("left-far", "to the ends of int64", {"x": [-1, 0, 1], "n": -62}, ("boundary",)),
        Case("all-bits", "everything is shifted out", {"x": [-(2**62), -1, 0, 1, 2**62 - 1, 2**62], "n": 63},
             ("boundary", "halves")),
        Case("half-overflows", "x plus the half does not fit int64 for the last; the quotient does",
             {"x": [-(2**63), 2**63 - 1], "n": 16}, ("boundary",)),
    ]  # fmt: skip
    for n in (1, 8, 19, 24, 31, 40):
        cases.append(Case(f"random-{n}", "random numbers", {"x": _random(f"random-{n}", 12, 62), "n": n}))
    return _file(ROUND_SHIFT, cases)


def _halves(n: int) -> dict[str, Any]:
    half = 1 << (n - 1)
    return {"x": sorted({sign * odd * half + by for sign in (-1, 1) for odd in (1, 3) for by in (-1, 0, 1)}), "n": n}


def _div_round() -> CaseFile:
    cases = [
        Case(f"by-{b}", "halves and thirds around zero", {"a": list(range(-7, 8)), "b": b}, ("halves", "negative"))
        for b in (1, 2, 3, 4)
    ]
    top = 2**60
    ends = {"a": [-top, 1 - top, top - 1, top], "b": 127}
    cases += [
        Case("large", "the bound of the weights' dividend", ends, ("boundary",)),
        Case("large-divisor", "a quotient of one half and its neighbours",
             {"a": [-(2**60) - 1, -(2**60), 1 - 2**60, 2**60 - 1, 2**60], "b": 2**61}, ("halves", "boundary")),
    ]  # fmt: skip
    for b in (127, 254, 2**30 + 12345, 3 * 2**38 + 1):
        cases.append(Case(f"random-by-{b}", "random numbers", {"a": _random(f"random-by-{b}", 12, 60), "b": b}))
    return _file(DIV_ROUND, cases)


def _clamp() -> CaseFile:
    cases = []
    for n in (0, 7, 20, 24, 31):
        ends = [-(2**63), -(2**n) - 1, -(2**n), 1 - 2**n, 0, 2**n - 1, 2**n, 2**63 - 1]
        cases.append(Case(f"to-{n}-bits", "around both ends", {"x": ends, "n": n}, ("boundary",)))
    return _file(CLAMP, cases)


def _walsh_hadamard() -> CaseFile:
    """Widths with runs of every size, some of several; single values show the signs one row at a time."""
    low, high = -(2**31), 2**31 - 1
    cases = [Case(f"unit-{i}", f"value {i} of 64 alone: its signs", {"x": [int(i == j) for j in range(64)]})
             for i in (0, 1, 2, 4, 8, 16, 32, 63)]  # fmt: skip
    cases.append(Case("ends", "64 values of one sign: the largest sum", {"x": [low] * 64}, ("boundary",)))
    cases.append(Case("alternating", "both ends in turn", {"x": [low, high] * 64}, ("boundary",)))
    for width in (1, 2, 3, 4, 12, 24, 48, 96, 64, 320):
        case_id, size = f"width-{width}", get_transform_size(width)
        x = [max(low, min(high, v)) for v in _random(case_id, width, 31)]
        cases.append(Case(case_id, f"{width // size} runs of {size}", {"x": x}))
    return _file(WALSH_HADAMARD, cases)


def _bit_length() -> CaseFile:
    powers = sorted({2**k + by for k in (0, 1, 10, 11, 23, 24, 31, 32, 52, 53, 61) for by in (-1, 0, 1)})
    return _file(BIT_LENGTH, [Case("powers", "zero, and around powers of two", {"x": powers}, ("boundary",))])


def _isqrt() -> CaseFile:
    roots = (1, 2, 3, 2**15, 2**26 - 1, 2**26, 2**26 + 1, 2**30, 2**31 - 1)
    around = sorted({root * root + by for root in roots for by in (-1, 0, 1)})
    return _file(ISQRT, [
        Case("squares", "around squares: a float64 root rounds the wrong way for some", {"x": around}, ("boundary",)),
        Case("ends", "zero, and the largest", {"x": [0, 1, 2, 3, 2**62 - 1]}, ("boundary",)),
        Case("random", "random numbers", {"x": _random("random", 20, 62, signed=False)}),
    ])  # fmt: skip


def _exp2_neg() -> CaseFile:
    one = 1 << 16
    steps = sorted({j * 256 + by for j in (0, 1, 127, 128, 255) for by in (0, 1, 127, 128, 255)})
    ends = [30 * one, 31 * one - 1, 31 * one, 31 * one + 1, 32 * one, 64 * one, 2**32, 2**48 + 5, 2**53, 2**62 - 1]
    return _file(EXP2_NEG, [
        Case("whole", "whole exponents: powers of two", {"d": [k * one for k in range(33)]}, ("boundary",)),
        Case("steps", "at and between entries of the table", {"d": steps}, ("boundary",)),
        Case("ends", "where the result becomes 0, and far beyond", {"d": ends}, ("boundary",)),
        Case("random", "random numbers below 31",
             {"d": [d % (31 * one) for d in _random("random", 40, 32, signed=False)]}),
    ])  # fmt: skip


def _log2_fixed() -> CaseFile:
    powers = sorted({max(1, 2**k + by) for k in (0, 1, 2, 29, 30, 31, 40, 53, 61) for by in (-1, 0, 1)})
    sums = [2**30 + by for by in (0, 1, 2, 3, 2**14, 2**29, 2**30 - 1)]
    return _file(LOG2_FIXED, [
        Case("small", "1 to 20", {"x": list(range(1, 21))}),
        Case("powers", "around powers of two; below 2^30 the mantissa is shifted left, above right", {"x": powers},
             ("boundary",)),
        Case("sums", "what scoring sums to: 2^30 and a little more", {"x": sums}, ("boundary",)),
        Case("ends", "the largest", {"x": [2**54, 2**62 - 1]}, ("boundary",)),
        Case("random", "random numbers", {"x": [x + 1 for x in _random("random", 40, 61, signed=False)]}),
    ])  # fmt: skip


def _integer_root() -> CaseFile:
    cases = [
        Case(f"root-{n}", "at a power, and around it", {"x": base**n + by, "n": n}, ("internal", "boundary"))
        for n, base, by in ((1, 7, 0), (2, 1000, -1), (3, 1000, 0), (64, 5000, 1), (256, 15, -1))
    ]
    return _file(INTEGER_ROOT, [Case("zero", "0", {"x": 0, "n": 3}, ("internal",)), *cases])


def _pi() -> CaseFile:
    return _file(PI, [Case("pi", "Machin's formula, 16 extra bits cut at the end", {}, ("internal",))])


BASES = {"10000": 0x461C4000, "500000": 0x48F42400, "100000": 0x47C35000, "1": 0x3F800000, "uneven": 0x461C4321}
"""Bits of the F32 bases: three of real models, the smallest accepted, one with an odd mantissa."""


def _frequency() -> CaseFile:
    cases = []
    for name, base in BASES.items():
        values = {"pair": 3, "head_dim": 8, "base": base}
        cases.append(Case(f"base-{name}", f"a base of {name}", values, ("internal",)))
    first = {"pair": 0, "head_dim": 64, "base": BASES["10000"]}
    start = Case("pair-0", "the first pair: exactly 1", first, ("internal",))
    return _file(FREQUENCY, [start, *cases, *refuse_not_finite(FREQUENCY, start, "base")])


def _cos_sin_file() -> CaseFile:
    cases = []
    places = {
        "origin": (0, 0),
        "one": (1, 0),
        "quarter": (11, 0),
        "slow": (63, 31),
        "far": (2047, 1),
        "last": (65535, 7),
    }
    for name, (position, pair) in places.items():
        values = {"position": position, "pair": pair, "head_dim": 64, "base": BASES["10000"]}
        flags = ("boundary",) if name in ("origin", "last") else ()
        cases.append(Case(name, f"position {position}, pair {pair}", values, flags))
    for name, base in BASES.items():
        case_id = f"base-{name}"
        position = derive(SUITE, case_id).below(2048)
        values = {"position": position, "pair": 5, "head_dim": 16, "base": base}
        cases.append(Case(case_id, f"a base of {name}", values))
    smallest = {"position": 7, "pair": 0, "head_dim": 2, "base": BASES["10000"]}
    cases += [
        Case("head-dim-2", "one pair only", smallest, ("boundary",)),
        *refuse_not_finite(COS_SIN, cases[1], "base"),
    ]
    return _file(COS_SIN, cases)


def _exp2_table() -> CaseFile:
    return _file(EXP2_TABLE, [Case("table", "the page pins the digest", {})])


def _rotary_table_file() -> CaseFile:
    pinned = {"positions": 64, "head_dim": 64, "base": BASES["10000"]}
    nano = {"positions": 32, "head_dim": 4, "base": BASES["10000"]}
    smollm2 = {"positions": 64, "head_dim": 64, "base": BASES["100000"]}
    first = Case("pinned", "the page pins the digest", pinned)
    return _file(ROTARY_TABLE, [
        first,
        Case("nano", "for poai-nano", nano),
        Case("smollm2", "for SmolLM2-135M, whose base is 100000", smollm2),
        *refuse_not_finite(ROTARY_TABLE, first, "base"),
    ])  # fmt: skip


def _table_digest() -> CaseFile:
    return _file(TABLE_DIGEST, [
        Case("empty", "no entry: the tag alone", {"values": []}),
        Case("ends", "both ends of int32", {"values": [-(2**31), -1, 0, 1, 2**31 - 1]}, ("boundary",)),
    ])  # fmt: skip
