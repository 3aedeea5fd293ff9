"""Every line of the table "Bounds" of the page `inference`, by the page's own functions on intervals.

The functions run at the largest sizes that the page `integer-model` accepts (D = 2^14, K = 2^15, hd = 2^12, V = 2^24)
and T = 2^11, and at smaller ones. An `Interval` with `times` stands for many values of a row, so no loop is long, and
nothing is extrapolated. Inputs are any int32; they are split by the bit length of the largest value, which decides the
shifts.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import isqrt
from pathlib import Path
from types import ModuleType

import pytest

from poai_spec.model import fixed_point

from poai_spec.model import inference

from poai_spec.model import integer_model

from poai_spec.model import weights
from poai_spec.model.fixed_point import TRANSFORM_SIZE, cos_sin, get_transform_size
from poai_spec.model.integer_model import (
    MAX_HEAD_DIM,
    MAX_INNER,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ROW_MAXIMUM_BITS,
    Architecture,
    Matrix,
)
from poai_spec.basics.parameters import MAX_QUIZ_TOKENS
from poai_spec.model.weights import Float32
from tests.harness.interval import PATCHES, Interval, Recorder, Row, recording, row

PAGE = Path(__file__).parents[3] / "specs" / "model" / "inference.md"
LIMITS = {"D": MAX_WIDTH, "K": MAX_INNER, "T": MAX_QUIZ_TOKENS, "hd": MAX_HEAD_DIM, "V": MAX_VOCABULARY}
LARGEST_F16 = 65504 << 24
LARGEST_M = 528_416
INT32 = Interval(-(2**31), 2**31 - 1)
EPSILONS = [Float32(0x3F7FFFFF), Float32(0x3727C5AC), Float32(1)]  # just below 1, 1e-5, the smallest


@dataclass(frozen=True)
class Run:
    """What one family of worst cases gave, at some sizes."""

    name: str
    sizes: dict[str, int]
    recorder: Recorder


def int32_rows(bits: int, count: int) -> Iterator[Row]:
    """Yield all rows of int32 values whose largest magnitude has `bits` bits, by sign of the value that has it."""
    most = min((1 << bits) - 1, 2**31 - 1)
    rest = Interval(-min(most + 1, 2**31) if bits == 32 else -most, most)
    if bits < 32:
        yield row(Interval(1 << bits >> 1, most), rest, count)
    yield row(Interval(rest.low, -(1 << bits >> 1)), rest, count)


def run_decoders() -> Iterator[Run]:
    with recording() as recorder:
        for low, high in ((0, 127), (128, 255)):  # signed and unsigned readings of a byte
            block = (Interval(low, high),) * 210
            for elements, size, decode in weights.TENSOR_TYPES.values():
                if elements > 1:
                    assert len(decode(block[:size])) == elements  # type: ignore[arg-type]
    yield Run("decode", {}, recorder)


def run_transforms() -> Iterator[Run]:
    """The page's own transform: of a run of weights, and of one of activations rounded to 14 bits."""
    for name, most in (("weights", 1 << 52), ("activations", 1 << inference.TRANSFORM_BITS)):
        with recording() as recorder:
            found = fixed_point.walsh_hadamard([Interval(-most, most)] * TRANSFORM_SIZE)  # type: ignore[list-item]
        assert {v.ends for v in found} == {(-TRANSFORM_SIZE * most, TRANSFORM_SIZE * most)}  # type: ignore[attr-defined]
        yield Run(name, {}, recorder)


def run_quantisation() -> Iterator[Run]:
    """Of transformed rows, as far as they are not refused; the last one is."""
    with recording() as recorder:
        for bits in range(ROW_MAXIMUM_BITS + 1):
            most = (1 << bits) - 1
            rows = [row(Interval(1 << bits >> 1, most), Interval(-most, most), 7), (0, 0)]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(integer_model, "walsh_hadamard", lambda row: row)
                matrix = integer_model.quantise_matrix("t", rows)  # type: ignore[arg-type]
            largest, zero = matrix.multipliers
            assert isinstance(largest, Interval)
            assert largest.high <= LARGEST_M
            assert zero == 0
    yield Run("quantise", {}, recorder)


def transformed_rows(count: int, size: int) -> Iterator[Row]:
    """Yield all transformed rows of so many values in runs of `size`, by the scale that their largest value needs."""
    least, most, e2 = 0, size << inference.TRANSFORM_BITS, 0
    while least <= most:
        for f in inference.SCALE_STEPS:
            largest = min(inference.ACTIVATION_LIMIT * f * (1 << e2) // 4, most)
            if least <= largest:
                yield row(Interval(least, largest), Interval(-largest, largest), count)
            least = largest + 1
        e2 += 1


def run_linear() -> Iterator[Run]:
    """Of any input and any transformed row; the two are drawn apart, as the transform of intervals forgets too much."""
    for count in (1, 64, MAX_INNER):
        both = {"right": Recorder(), "left": Recorder()}
        weight_row = row(Interval(-127, 127), Interval(-127, 127), count)
        size = get_transform_size(count)
        for bits, z in product((14, 32), transformed_rows(count, size)):
            (e1, e2, _), _ = quantise_as(z, next(int32_rows(bits, count)))
            assert e1 == max(0, bits - inference.TRANSFORM_BITS)
            assert e2 <= 13
            for k, q_out in product({*range(-12, 27, 3), 25, 26}, (14, 16)):
                matrix = Matrix("t", k, (Interval(0, LARGEST_M),), (weight_row,))  # type: ignore[arg-type]
                side = "right" if k + 24 - e1 - e2 + 16 - q_out + 2 + size.bit_length() - 1 > 0 else "left"
                with recording(both[side]), pytest.MonkeyPatch.context() as patch:
                    patch.setattr(inference, "walsh_hadamard", lambda _, z=z: z)
                    for x in int32_rows(bits, count):
                        inference.linear(matrix, x, q_out)
        yield from (Run(side, {"K": count}, recorder) for side, recorder in both.items())


def quantise_as(z: Row, x: Row) -> tuple[inference.Scale, Row]:
    """Run the page's `quantise_row` with z in place of the transform."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "walsh_hadamard", lambda _: z)
        scale, a = inference.quantise_row(x)
    assert all(max(abs(end) for end in v.ends) <= inference.ACTIVATION_LIMIT for v in a)  # type: ignore[attr-defined]
    return scale, Row(a)


def run_norm() -> Iterator[Run]:
    gain = Interval(-(128 << 16) + 1, (128 << 16) - 1)
    for count in (1, 4, 1024, MAX_WIDTH):
        with recording() as recorder:
            for bits in range(33):
                for epsilon in EPSILONS:
                    for x in int32_rows(bits, count):
                        normed = inference.rms_norm(x, row(gain, gain, count), epsilon)
                        assert all(-(2**31) <= h.low <= h.high < 2**31 for h in normed)  # type: ignore[attr-defined]
        yield Run("norm", {"D": count}, recorder)


def make_architecture(head_dim: int) -> Architecture:
    return Architecture(1, 64, 1, 1, head_dim, 64, 64, Float32(0x461C4000), EPSILONS[1])


def run_rotation() -> Iterator[Run]:
    """At the angles of 64 positions of SmolLM2; `test_rotation_at_any_angle` is about all others."""
    with recording() as recorder:
        for position in range(64):
            inference.rotate((INT32,) * 64, position, make_architecture(64))  # type: ignore[arg-type]
    yield Run("rotate", {}, recorder)


def run_attention() -> Iterator[Run]:
    entry, value = Interval(-(2**20), 2**20 - 1), Interval(-(2**24), 2**24 - 1)
    for head_dim in (4, 64, MAX_HEAD_DIM):
        q, k = (row(entry, entry, head_dim) for _ in range(2))
        scale = integer_model.compute_attention_scale(head_dim)
        with recording() as recorder:
            (score,) = inference.compute_scores(q, [k], scale)
        yield Run("scores", {"hd": head_dim}, recorder)
        for count in (1, 64, MAX_QUIZ_TOKENS):
            scores, column = row(score, score, count), row(value, value, count)  # type: ignore[arg-type]
            with recording() as recorder:
                inference.mix_values(scores, [(v,) for v in column])
            yield Run("mix", {"T": count}, recorder)


def run_elementwise() -> Iterator[Run]:
    with recording() as recorder:
        for g in (Interval(0, 2**31 - 1), Interval(-(2**31), -1)):
            inference.swiglu(g, INT32)  # type: ignore[arg-type]
        inference.add_rows((INT32,), (Interval(*INT32.ends),))  # type: ignore[arg-type]
    yield Run("elements", {}, recorder)


def run_scoring() -> Iterator[Run]:
    for count in (2, 1000, 1 << 23, MAX_VOCABULARY):
        with recording() as recorder:
            nll = inference.compute_nll(row(INT32, INT32, count), 1)
            assert isinstance(nll, Interval)
            assert nll.low >= 0
        yield Run("nll", {"V": count}, recorder)


FAMILIES: dict[ModuleType, list[Callable[[], Iterator[Run]]]] = {
    weights: [run_decoders, run_transforms],
    integer_model: [run_quantisation],
    inference: [run_linear, run_norm, run_rotation, run_attention, run_elementwise, run_scoring],
}


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    found: list[Run] = []
    for module, families in FAMILIES.items():
        with pytest.MonkeyPatch.context() as patch:
            for name, replacement in PATCHES.items():
                if name in vars(module) or name in ("int", "max", "sum"):
                    patch.setattr(module, name, replacement, raising=False)
            patch.setattr(weights, "read_f16", lambda data: Interval(-LARGEST_F16, LARGEST_F16))
            for family in families:
                found += family()
    return found


# Line of the table: the run that reaches its worst case, the function, and the expressions that the line is about.
LINES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "`W` of F16 and of the block types": ("decode", "decode_", ()),
    "the transform `V` of such a row": ("weights", "walsh_hadamard", ()),
    "`127 * V`, doubled, plus `m_o`, once `check_maximum` has passed": (
        "quantise",
        "quantise_matrix",
        ("127 * v", "div_round(127 * v, m)"),
    ),
    "`x` before its transform, plus the half": ("right", "quantise_row", ("round_shift(v, e1)",)),
    "`z`, a transformed value": ("activations", "walsh_hadamard", ()),
    "`4 * z`, doubled, plus `f << e2`": ("right", "quantise_row", ("4 * v", "div_round(4 * v, f << e2)")),
    "`acc`": ("right", "linear", ("sum(map(int.__mul__, a, row))",)),
    "`acc * M_o * f`, right shift": ("right", "linear", ("s * m", "s * m * f", "round_shift(s * m * f, shift)")),
    "`acc * M_o * f`, left shift": ("left", "linear", ("s * m", "s * m * f", "round_shift(s * m * f, shift)")),
    "sum of `xs^2`": ("norm", "rms_norm", ("sum(v * v for v in xs)",)),
    "`mean << 12`": ("norm", "rms_norm", ("mean << 12",)),
    "`xs * inv`": ("norm", "rms_norm", ("v * inv", "round_shift(v * inv, 31)")),
    "normalised value times gain": (
        "norm",
        "rms_norm",
        ("round_shift(v * inv, 31) * g", "round_shift(round_shift(v * inv, 31) * g, 16)"),
    ),
    "rotation sum": (
        "rotate",
        "rotate",
        (
            "x[at] * c",
            "x[at] * c - x[at + 1] * s",
            "round_shift(x[at] * c - x[at + 1] * s, 19)",
            "x[at] * s + x[at + 1] * c",
            "round_shift(x[at] * s + x[at + 1] * c, 19)",
        ),
    ),
    "`q . k`": ("scores", "compute_scores", ("sum(map(int.__mul__, q, k))", "round_shift(dot, 8)")),
    "score times scale": (
        "scores",
        "compute_scores",
        ("round_shift(dot, 8) * scale", "round_shift(round_shift(dot, 8) * scale, 24)"),
    ),
    "sum of `p * v`, doubled, plus sum of `p`": (
        "mix",
        "mix_values",
        ("sum(map(int.__mul__, p, column))", "div_round(sum(map(int.__mul__, p, column)), total)", "sum(p)"),
    ),
    "`abs(g) * LOG2E`": ("elements", "swiglu", ("abs(g) * LOG2E", "round_shift(abs(g) * LOG2E, 20)")),
    "dividend of sigma": (
        "elements",
        "swiglu",
        ("div_round((EXP2_ONE if g >= 0 else t) << 16, EXP2_ONE + t)",),
    ),
    "`g * sigma`": ("elements", "swiglu", ("g * sigma", "round_shift(g * sigma, 16)")),
    "times `u`": (
        "elements",
        "swiglu",
        ("round_shift(g * sigma, 16) * u", "round_shift(round_shift(g * sigma, 16) * u, 16)"),
    ),
    "residual plus a block's contribution": ("elements", "add_rows", ("a + b",)),
    "`(max - logit) * LOG2E`": (
        "nll",
        "compute_nll",
        ("(largest - logit) * LOG2E", "round_shift((largest - logit) * LOG2E, 20)"),
    ),
    "`S`": ("nll", "compute_nll", ("sum(exp2_neg(d) for d in distances)",)),
    "negative log-likelihood": (
        "nll",
        "compute_nll",
        ("log2_fixed(sum(exp2_neg(d) for d in distances)) - (30 << 16) + distances[target]",),
    ),
}
PROVED = {"mantissa squared in `log2_fixed`"}  # z3, in test_proofs


def read_table() -> dict[str, list[str]]:
    """Return the cells behind each line's name."""
    section = PAGE.read_text("utf-8").partition("\n## Bounds\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    assert cells[0] == ["step", "worst case", "int64", "float64 exact"]
    return {name: rest for name, *rest in cells[2:]}


TABLE = read_table()


def compute_bound(formula: str, sizes: dict[str, int]) -> int:
    """Evaluate a formula of the table, such as `sqrt(D) * 2^48 + 2^30`."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name):
                return sizes[name]
            case ast.Call(func=ast.Name(id="sqrt"), args=[argument]):
                root = isqrt(value(argument))
                assert root * root == value(argument), "take squares as sizes"
                return root
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return int(value(left) ** value(right))
        raise AssertionError(ast.dump(node))

    return value(ast.parse(formula.replace("^", "**"), mode="eval").body)


def test_every_line_of_the_table_is_measured() -> None:
    assert set(TABLE) == set(LINES) | PROVED


@pytest.mark.parametrize("line", LINES)
def test_worst_case(line: str, runs: list[Run]) -> None:
    name, function, expressions = LINES[line]
    formula = TABLE[line][0]
    seen = set()
    for run in [run for run in runs if run.name == name]:
        found = {
            expression: largest
            for (where, expression), largest in run.recorder.largest.items()
            if (where == function and expression in expressions) or (not expressions and where.startswith(function))
        }
        assert set(expressions) <= set(found), "the page's code has changed: name its expressions anew"
        assert max(found.values()) <= compute_bound(formula, run.sizes), (run.sizes, found)
        if all(LIMITS[size] == value for size, value in run.sizes.items()):
            seen.add(tuple(run.sizes))
            assert 2 * max(found.values()) > compute_bound(formula, run.sizes), "the bound is twice what is needed"
    assert seen, "no run at the largest sizes"


@pytest.mark.parametrize("line", TABLE)
def test_machine_words(line: str) -> None:
    """The columns say what follows from the bound at the largest sizes."""
    formula, int64, float64 = TABLE[line]
    assert (int64 == "yes") == (compute_bound(formula, LIMITS) < 2**63)
    condition = re.fullmatch(r"yes for (\w+) <= (2\^\d+)", float64)
    if condition:
        name, limit = condition[1], compute_bound(condition[2], {})
        assert (
            compute_bound(formula, LIMITS | {name: limit}) <= 2**53 < compute_bound(formula, LIMITS | {name: 2 * limit})
        )
        assert limit < LIMITS[name]
    else:
        assert (float64 == "yes") == (compute_bound(formula, LIMITS) <= 2**53)
        assert float64 in ("yes", "no")


def test_every_intermediate_result_fits_int64(runs: list[Run]) -> None:
    worst = max((value, key) for run in runs for key, value in run.recorder.largest.items())
    assert worst[0] < 2**63, worst
    assert sum(len(run.recorder.largest) for run in runs) > 400


# What plain intervals cannot see.


def test_normalised_rows_of_any_width() -> None:
    """`xs * inv` stays within its bound for every D up to 2^14, not only for squares.

    Let X be the largest |xs| and y = (sum of xs^2) / D. For s = -8 every xs is a multiple of 256 and D <= 2^14, so
    y >= X^2 / D >= 4; for s > -8 X >= 2^23, so y is larger still. Hence floor(y) >= 4/5 y. And r >= isqrt(4 << 12) and
    that is 128, so r >= 128/129 * 2^6 sqrt(mean). Together X * inv <= X * 2^53 / r <= 129/128 * sqrt(5/4) * sqrt(D) *
    2^47, which is less than 1.13 * sqrt(D) * 2^47. Below, the steps as exact inequalities.
    """
    assert 4 * MAX_WIDTH <= 2**16  # s = -8: X >= 256
    assert 4 * MAX_WIDTH <= (2**23) ** 2  # s > -8
    assert all(5 * floor >= 4 * (floor + 1) for floor in range(4, 100))  # floor(y) >= 4/5 y, as y < floor(y) + 1
    assert isqrt(4 << 12) == 128
    assert 129**2 * 5 * 100**2 < 113**2 * 128**2 * 4  # 129/128 * sqrt(5/4) < 1.13
    for width in (1, 2, 3, 5, 576, 2048, 13107, MAX_WIDTH - 1, MAX_WIDTH):  # the worst rows: one value, all others 0
        for x in (1, 2, 3, 255, 256, 2**15, 2**16 - 1, 2**16, 2**24 - 1, 2**30 + 1, 2**31):
            (h, *_) = inference.rms_norm((-x, *[0] * (width - 1)), (1 << 16,) * width, Float32(1))
            assert (100 * h) ** 2 <= 113**2 * width * 2**32
            assert h * h * 4 > width * 2**32


def test_rotation_at_any_angle() -> None:
    """Cosine and sine are within 1/2 of a point of the circle, so |c| + |s| <= sqrt(2) * (2^15 + 1)."""
    for position in range(0, 2048, 37):
        for i in range(32):
            c, s = cos_sin(position, i, 64, 10000, 1)
            assert c * c + s * s <= (2**15 + 1) ** 2
    assert 2**31 * isqrt(2 * (2**15 + 1) ** 2) + 2**18 < compute_bound(TABLE["rotation sum"][0], {})


def test_scores_of_any_head_dimension() -> None:
    for head_dim in range(2, MAX_HEAD_DIM + 1, 2):
        worst = head_dim * 2**32 * integer_model.compute_attention_scale(head_dim) + 2**23
        assert worst**2 <= 9 * head_dim * 2**110


@pytest.mark.parametrize("width", [1, 2, 255, 256, 13_108, 15_421, MAX_WIDTH - 1, MAX_WIDTH])
def test_rms_norms_result_fits_int32(width: int) -> None:
    """The bound of its docstring, for one value among zeros, which is as far above the root mean square as can be."""
    gains = (2**23 - 1,) + (0,) * (width - 1)
    largest = 0
    for value in (1, 2, 3, 2**15, 2**16 + 1, 2**23 - 1, 2**24 + 1, 2**31 - 1, -(2**31)):
        x = (value,) + (0,) * (width - 1)
        largest = max(largest, abs(inference.rms_norm(x, gains, Float32(1))[0]))
    assert largest < 2**30 + 2**10
    assert largest > 2**29 or width < MAX_WIDTH // 4
