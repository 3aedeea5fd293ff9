"""Vectors of the page `inference`: each function alone, whole passes, and every step of a pass."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from poai_engine.engines.reference import ReferenceEngine
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import Hash32
from poai_spec.basics.parameters import make_config, read_manifest
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.inference import (
    compute_nll,
    compute_scores,
    linear,
    mix_values,
    quantise_row,
    rms_norm,
    rotate,
    swiglu,
)
from poai_spec.model.integer_model import Architecture, Matrix, compute_attention_scale
from poai_spec.model.loss import compute_trace_digest
from poai_spec.model.weights import Float32, GgufFile
from poai_spec.proof.lexicon import read_lexicon
from poai_spec.proof.quiz import generate_quiz
from poai_tools.vectors import model_kinds, models, spot_check
from poai_tools.vectors.cases import SLOW, Case, CaseFile, derive, derive_seed
from poai_tools.vectors.defects import NOT_FINITE_FLAG, refuse_not_finite
from poai_tools.vectors.kinds import (
    HASH32,
    INT8,
    INT32,
    SAFE_INTEGER,
    UINT8,
    UINT32,
    UINT64,
    Array,
    Integer,
    Kind,
    KindError,
    RecordKind,
    Text,
    find_fault,
)
from poai_tools.vectors.network import get_manifest
from poai_tools.vectors.registry import Function, register
from poai_tools.vectors.steps import FIRST_VALUES, STEPS, StepKind, compute_step_digest, get_values, run_spec_steps

SUITE = "inference"
DERIVATION = (
    "Chosen boundaries; random numbers and tokens are draws of the DRBG whose seed derives from 'inference/' || id. "
    "A quiz is that of the page `quiz` with this seed and the numbers of the preset testnet."
)
FLAGS = {
    **NOT_FINITE_FLAG,
    "extreme": (
        "values at the ends of int32, or as large as earlier steps allow",
        "a client whose integers or doubles are too narrow differs here",
    ),
    "saturation": (
        "a result is cut to its range",
        "a client that wraps around, or cuts elsewhere, differs here",
    ),
    "halves": (
        "a rounding meets an exact half",
        "a client that rounds halves otherwise than up differs here",
    ),
    "zero": (
        "a row or a sum of zeros",
        "a client that takes a logarithm of it or divides by it fails here",
    ),
    "quiz": (
        "the tokens of a whole quiz, as a miner runs it",
        "a client that agrees on short sequences only differs here: attention over many positions, large angles",
    ),
    SLOW: (
        "the model has 1.1 billion weights and is made on demand: 700 MB on disk, minutes",
        "left out unless `--slow` is given",
    ),
}

ROW = Array(INT32, 1)
ROWS = Array(ROW, 1)
SCORES = Array(Integer(-SAFE_INTEGER, SAFE_INTEGER), 1)
STEP_VALUES = Array(Integer(-SAFE_INTEGER, SAFE_INTEGER))
Q_OUT = Integer(0, 32)
PASS = {"model": models.MODEL, "tokens": Array(UINT32, 1), "scored": Array(UINT32)}
STEP_NAME: dict[str, Kind] = {"layer": UINT32, "step": Text(STEPS)}
MAX_HEAD_DIM = 256


def _register(
    name: str, summary: str, fields: dict[str, Any], output: dict[str, Any], run: Callable[[Any], Any]
) -> Function:
    return register(Function(SUITE, name, "inference", summary, RecordKind(fields), RecordKind(output), run))


QUANTISE_ROW = _register(
    "quantise_row", "scale (e1, e2, f) and int8 values of a row's transform",
    {"x": ROW}, {"e1": UINT8, "e2": UINT8, "f": UINT8, "a": Array(Integer(-127, 127))},
    lambda i: _quantise(i["x"]),
)  # fmt: skip
LINEAR = _register(
    "linear", "a Q16 row times a matrix of K columns, in q_out fractional bits",
    {"k": Integer(-12, 26), "multipliers": ROW, "rows": Array(Array(INT8, 1), 1), "x": ROW, "q_out": Q_OUT},
    {"y": Array(INT32)},
    lambda i: {"y": _linear(**i)},
)  # fmt: skip
RMS_NORM = _register(
    "rms_norm", "x / sqrt(mean(x^2) + epsilon) * gain; x in Q14, gains and result in Q16, epsilon the bits of an F32",
    {"x": ROW, "gains": ROW, "epsilon": UINT32}, {"y": Array(Integer(-SAFE_INTEGER, SAFE_INTEGER))},
    lambda i: {"y": _rms_norm(**i)},
)  # fmt: skip
ROTATE = _register(
    "rotate", "the heads of q or k turned to a position; Q16 to Q12; base: the bits of an F32",
    {"x": ROW, "position": Integer(0, 2**16 - 1), "head_dim": Integer(2, MAX_HEAD_DIM), "base": UINT32},
    {"y": Array(INT32)},
    lambda i: {"y": _rotate(**i)},
)  # fmt: skip
COMPUTE_SCORES = _register(
    "compute_scores", "base-2 scores of one query head against the keys of some positions; Q12 to Q16",
    {"q": ROW, "keys": ROWS, "scale": UINT32}, {"scores": SCORES},
    lambda i: {"scores": _compute_scores(**i)},
)  # fmt: skip
MIX_VALUES = _register(
    "mix_values", "softmax-weighted mean of the values of some positions; Q16",
    {"scores": SCORES, "values": ROWS}, {"y": Array(INT32)},
    lambda i: {"y": _mix_values(**i)},
)  # fmt: skip
SWIGLU = _register(
    "swiglu", "silu(g) * u for each pair; Q16",
    {"g": ROW, "u": ROW}, {"y": Array(INT32)},
    lambda i: {"y": _swiglu(**i)},
)  # fmt: skip
COMPUTE_NLL = _register(
    "compute_nll", "negative log-likelihood of token `target`, bits in Q16, from the logits in Q16",
    {"logits": ROW, "target": UINT32}, {"nll": UINT64},
    lambda i: {"nll": _compute_nll(**i)},
)  # fmt: skip
RUN = _register(
    "run", "a whole pass: the scored negative log-likelihoods, their sum, the trace and its digest",
    PASS, {"nlls": Array(UINT64), "loss": UINT64, "trace": Array(HASH32), "trace_digest": HASH32},
    lambda i: _run(**i),
)  # fmt: skip
RUN_INLINE = _register(
    "run_inline", "as `run`, with a model that is given in the input as in weights/make_integer_model",
    {"gguf": model_kinds.GGUF} | {key: kind for key, kind in PASS.items() if key != "model"},
    {"nlls": Array(UINT64), "loss": UINT64, "trace": Array(HASH32), "trace_digest": HASH32},
    lambda i: _run_with(models.make_engine(model_kinds.make_gguf(i["gguf"])), i["tokens"], i["scored"]),
)  # fmt: skip
STEP_DIGESTS = _register(
    "steps", "every step of a pass: digest, and the first values of its first and its last row",
    PASS, {"steps": Array(RecordKind({**STEP_NAME, "digest": HASH32, "first": STEP_VALUES, "last": STEP_VALUES}))},
    lambda i: {"steps": [_show_digest(step) for step in _compute_steps(**i)]},
)  # fmt: skip
ALL_VALUES = _register(
    "step_values", "every step of a pass with all its values",
    PASS, {"steps": Array(RecordKind({**STEP_NAME, "rows": Array(STEP_VALUES)}))},
    lambda i: {"steps": [_show_values(step) for step in _compute_steps(**i)]},
)  # fmt: skip


def _require(holds: bool, message: str) -> None:
    """Refuse an input that the page's function is not defined for."""
    if not holds:
        raise KindError(f"input: {message}")


def _quantise(x: tuple[int, ...]) -> dict[str, Any]:
    scale, a = quantise_row(x)
    return dict(zip(("e1", "e2", "f"), scale, strict=True)) | {"a": a}


def _linear(k: int, multipliers: Sequence[int], rows: Sequence[tuple[int, ...]], x: tuple[int, ...],
            q_out: int) -> tuple[int, ...]:  # fmt: skip
    _require(len(multipliers) == len(rows) and {len(row) for row in rows} == {len(x)}, "the shapes do not fit")
    return linear(Matrix("", k, tuple(multipliers), tuple(rows)), x, q_out)


def _rms_norm(x: tuple[int, ...], gains: tuple[int, ...], epsilon: int) -> tuple[int, ...]:
    number = Float32(epsilon)
    numerator, denominator = number.as_ratio()
    _require(len(x) == len(gains) and 0 < numerator < denominator, "as many gains as values, 0 < epsilon < 1")
    return rms_norm(x, gains, number)


def _rotate(x: tuple[int, ...], position: int, head_dim: int, base: int) -> tuple[int, ...]:
    number = Float32(base)
    numerator, denominator = number.as_ratio()
    _require(head_dim % 2 == 0 and len(x) % head_dim == 0 and numerator >= denominator, "whole even heads, base >= 1")
    return rotate(x, position, Architecture(1, len(x), len(x) // head_dim, 1, head_dim, 1, 1, number, number))


def _compute_scores(q: tuple[int, ...], keys: Sequence[tuple[int, ...]], scale: int) -> tuple[int, ...]:
    _require({len(key) for key in keys} == {len(q)}, "a key is not as long as the query")
    _require(max(map(abs, (*q, *(v for key in keys for v in key)))) <= 2**20, "q and k have 21 bits")
    return compute_scores(q, keys, scale)


def _mix_values(scores: tuple[int, ...], values: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    _require(len(scores) == len(values) and len({len(row) for row in values}) == 1, "the shapes do not fit")
    return mix_values(scores, values)


def _swiglu(g: Sequence[int], u: Sequence[int]) -> list[int]:
    _require(len(g) == len(u), "as many g as u")
    return [swiglu(*pair) for pair in zip(g, u, strict=True)]


def _compute_nll(logits: tuple[int, ...], target: int) -> int:
    _require(target < len(logits), "target is no token")
    return compute_nll(logits, target)


def _check_pass(engine: models.AnyEngine, tokens: Sequence[int], scored: Sequence[int]) -> None:
    fault = find_fault(tokens, scored, engine.model.architecture.vocabulary_size)
    _require(fault is None, str(fault))


def _run(model: str, tokens: Sequence[int], scored: Sequence[int]) -> dict[str, Any]:
    return _run_with(models.get_engine(model), tokens, scored)


def _run_with(engine: models.AnyEngine, tokens: Sequence[int], scored: Sequence[int]) -> dict[str, Any]:
    _check_pass(engine, tokens, scored)
    (found,) = engine.evaluate([tokens], [scored])
    digest: Hash32 = compute_trace_digest(found.trace)
    return {"nlls": found.nlls, "loss": found.loss, "trace": found.trace, "trace_digest": digest}


def _compute_steps(model: str, tokens: Sequence[int], scored: Sequence[int]) -> Iterable[StepKind]:
    """Return the steps by the specification, or by the exact engine, for large models with a spot check."""
    engine = models.get_engine(model)
    _check_pass(engine, tokens, scored)
    if isinstance(engine, ReferenceEngine):
        return run_spec_steps(engine.model, tokens, scored)
    steps, evaluation = engine.observe(tokens, scored)
    if models.is_large(model):
        spot_check.check_steps(engine.model, tokens, scored, steps, evaluation)
    return steps


def _show_digest(step: StepKind) -> dict[str, Any]:
    ends = [get_values(step.rows[at])[:FIRST_VALUES] if len(step.rows) else [] for at in (0, -1)]
    found = {"layer": step.layer, "step": step.name, "digest": compute_step_digest(step)}
    return found | dict(zip(("first", "last"), ends, strict=True))


def _show_values(step: StepKind) -> dict[str, Any]:
    return {"layer": step.layer, "step": step.name, "rows": [get_values(row) for row in step.rows]}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    linear_maps = [_quantise_row(), _linear_file(), _rms_norm_file()]
    attention = [_rotate_file(), _scores(), _mix()]
    return [*linear_maps, *attention, _swiglu_file(), _nll(), _step_values(), _steps(), _runs(), _inline_runs()]


def _file(function: Function, cases: Iterable[Case]) -> CaseFile:
    listed = tuple(cases)
    used = {flag for case in listed for flag in case.flags}
    return CaseFile(function, DERIVATION, listed, {name: text for name, text in FLAGS.items() if name in used})


# The functions alone.

LOW, HIGH = -(2**31), 2**31 - 1
EPSILON, TINY, LARGE_EPSILON = 0x3727C5AC, 0x00000001, 0x3F7FFFFF  # 1e-5, 2^-149, the largest below 1
BASE = 0x461C4000  # 10000


def _signed(drbg: Drbg, bits: int) -> int:
    return drbg.between(-(1 << bits), (1 << bits) - 1)


def _row(case_id: str, count: int, bits: int, part: str = "") -> tuple[int, ...]:
    """Return random values of up to `bits` bits and a sign."""
    drbg = derive(SUITE, case_id + part)
    return tuple(_signed(drbg, bits) for _ in range(count))


def _quantise_row() -> CaseFile:
    """Rows around each decision: e1 at 2^14, the scale at each of its steps, runs of 1, 2, 4 and 64 values."""
    cases = [
        Case("zero", "a zero row has the scale (0, 0, 4)", {"x": (0, 0, 0)}, ("zero",)),
        Case("small", "127 with f = 4 stays as it is", {"x": (127, -127, 1, -1, 0)}),
        Case("next-step", "128 needs f = 5: div_round(4 * x, 5)", {"x": (128, -127, 3, -3, 1, -1, 0)}),
        Case("fourteen-bits", "2^14 needs 15 bits, so e1 = 1", {"x": (1 << 14, -(1 << 14), 3, -3, 1, -1, 5)},
             ("halves",)),
        Case("below", "2^14 - 1 has e1 = 0", {"x": ((1 << 14) - 1, 3, -3, 1, -1)}),
        Case("rounds-up", "2^15 - 1 has e1 = 1 and rounds to 2^14", {"x": ((1 << 15) - 1, 0, 1 - (1 << 15))},
             ("halves",)),
        Case("ends", "both ends of int32: -2^31 alone has 32 bits", {"x": (LOW, HIGH, 0, 1 << 20, -(1 << 20))},
             ("extreme", "halves")),
        Case("high-end", "without -2^31", {"x": (HIGH, -HIGH, 1 << 19, -(1 << 19), 7)}, ("extreme", "halves")),
        Case("outlier", "one value among 64: the transform spreads it", {"x": (0,) * 5 + (100_000,) + (0,) * 58}),
        Case("largest", "64 values of one sign: the largest sum, e2 = 13", {"x": (LOW,) * 64}, ("extreme",)),
        Case("signs", "the pattern of a transformed value: all in one place",
             {"x": tuple(HIGH * (-1) ** (bin(i & 37).count("1")) for i in range(64))}, ("extreme",)),
    ]  # fmt: skip
    steps = [(f << e2) * 127 // 4 + d for e2 in (0, 1, 5) for f in (4, 5, 6, 7) for d in (0, 1)]
    cases += [
        Case(f"step-{x}", "the largest value of a scale, or one more", {"x": (x, x // 2, -x)})
        for x in sorted(set(steps))
    ]
    cases += [Case(f"random-{n}", "random values", {"x": _row(f"random-{n}", 16, n)}) for n in (9, 14, 18, 24, 31)]
    cases += [
        Case(f"width-{width}", f"{width} values, transformed {math.gcd(width, 64)} at a time",
             {"x": _row(f"width-{width}", width, 17)})
        for width in (1, 2, 6, 12, 40, 96, 192)
    ]  # fmt: skip
    return _file(QUANTISE_ROW, cases)


def _matrix_input(case_id: str, shape: tuple[int, int], k: int, bits: int, q_out: int = 16) -> dict[str, Any]:
    drbg = derive(SUITE, case_id)
    rows, columns = shape
    return {
        "k": k,
        "multipliers": [drbg.between(0, 528_416) for _ in range(rows)],
        "rows": [[drbg.between(-127, 127) for _ in range(columns)] for _ in range(rows)],
        "x": _row(case_id, columns, bits, "/x"),
        "q_out": q_out,
    }


def _linear_file() -> CaseFile:
    full = {"multipliers": (528_416, 528_416), "rows": ((127,) * 64, (-127,) * 64)}
    cases = [
        Case("unit", "a row with k = 1, two values", {"k": 1, "multipliers": (264_208,), "rows": ((127, -64),),
                                                      "x": (65_536, 65_536), "q_out": 16}),
        Case("zero", "a row of zeros", _matrix_input("zero", (3, 4), 5, 0) | {"x": (0, 0, 0, 0)}, ("zero",)),
        Case("halves", "the shifted product is an exact half", {"k": -11, "multipliers": (1, 1, 3, 3),
             "rows": ((64, 64), (-64, -64), (64, 64), (-64, -64)), "x": (32, 0), "q_out": 16}, ("halves",)),
        Case("shift-60", "the largest right shift: a double does not hold the product and its half together",
             {"k": 26, "multipliers": (528_416, 528_416), "rows": ((127,) * 64, (-127,) * 64), "x": (1,) + (0,) * 63,
              "q_out": 14}, ("halves",)),
        *(Case(f"shift-{k + 32}", f"a right shift by {k + 32}", {
            "k": k, "multipliers": (528_416, 1, 528_416), "rows": ((127,) * 64, (1,) * 64, (-127,) * 64),
            "x": (127,) + (0,) * 63, "q_out": 16}) for k in (22, 21, 20, 19)),
        Case("saturates", "both ends of int32", full | {"k": -12, "x": (HIGH,) * 64, "q_out": 16},
             ("extreme", "saturation")),
        Case("left-shift", "the shift is negative", full | {"k": -12, "x": (HIGH,) * 64, "q_out": 14},
             ("extreme", "saturation")),
        Case("left-shift-small", "a negative shift without saturation", {
            "k": -12, "multipliers": (3, 1), "rows": ((1, 0), (0, -1)), "x": (LOW, HIGH), "q_out": 16}, ("extreme",)),
        Case("long", "8,320 products of the largest values: with 128 added to a weight the sum passes 2^27",
             {"k": 3, "multipliers": (528_416,), "rows": ((127,) * 8320,),
              "x": tuple(HIGH if i % 64 == 0 else 0 for i in range(8320)), "q_out": 16}, ("extreme",)),
    ]  # fmt: skip
    for n, (k, bits) in enumerate(((3, 17), (5, 12), (26, 20), (0, 31), (-6, 22))):
        case_id = f"random-{n}"
        cases.append(Case(case_id, f"random, k = {k}", _matrix_input(case_id, (6, 24), k, bits)))
    residual = _matrix_input("to-residual", (6, 24), 4, 17, 14)
    return _file(LINEAR, [*cases, Case("to-residual", "to Q14, as for the residual", residual)])


def _rms_norm_file() -> CaseFile:
    ones = (65_536,) * 4
    cases = [
        Case("zero", "a zero row: only epsilon is left", {"x": (0,) * 4, "gains": ones, "epsilon": EPSILON}, ("zero",)),
        Case("zero-tiny", "and an epsilon that rounds to 0: the reciprocal is 0",
             {"x": (0,) * 4, "gains": ones, "epsilon": TINY}, ("zero",)),
        Case("one", "a single value", {"x": (-1,), "gains": (65_536,), "epsilon": TINY}),
        Case("ends", "both ends of int32", {"x": (LOW, HIGH, LOW, HIGH), "gains": ones, "epsilon": EPSILON},
             ("extreme",)),
        Case("peak", "one large value among zeros", {"x": (HIGH,) + (0,) * 63, "gains": (65_536,) * 64,
             "epsilon": EPSILON}, ("extreme",)),
        Case("gains", "the largest gains, both signs", {"x": (1 << 20, -(1 << 20), 5, -5),
             "gains": (8_388_607, -8_388_607, 8_388_607, 1), "epsilon": EPSILON}, ("extreme",)),
        Case("gains-long", "the largest gains show the last bit of a row of 256",
             {"x": _row("gains-long", 256, 31), "gains": (8_388_607,) * 256, "epsilon": EPSILON}, ("extreme",)),
        Case("floor", "the mean is cut, not rounded: 65536 / 10", {"x": (1,) + (0,) * 9, "gains": (8_388_607,) * 10,
             "epsilon": TINY}, ("extreme",)),
        Case("floor-odd", "and so is 5 * 65536 / 7", {"x": (1, 2) + (0,) * 5, "gains": (8_388_607,) * 7,
             "epsilon": TINY}, ("extreme",)),
        Case("large-epsilon", "an epsilon of nearly 1", {"x": (1, -2, 3, 100), "gains": ones,
             "epsilon": LARGE_EPSILON}),
    ]  # fmt: skip
    for bits in (3, 10, 14, 16, 23, 24, 25, 30):
        case_id = f"random-{bits}-bits"
        values = {"x": _row(case_id, 12, bits), "gains": _row(case_id, 12, 18, "/gains"), "epsilon": EPSILON}
        cases.append(Case(case_id, "the row is scaled to 24 bits", values))
    peak = {"x": (1,) + (0,) * 255, "gains": (65_536,) * 256, "epsilon": 0x29000000}
    cases += [
        Case("epsilon-half-up", "one among 256, an epsilon of 2^-45: half a unit of the mean, rounded up", peak,
             ("extreme",)),
        *refuse_not_finite(RMS_NORM, cases[2], "epsilon"),
    ]  # fmt: skip
    return _file(RMS_NORM, cases)


def _rotate_file() -> CaseFile:
    ends = {"x": (LOW, LOW, HIGH, HIGH, LOW, HIGH, 0, 0), "position": 5, "head_dim": 4, "base": BASE}
    cases = [
        Case("origin", "position 0 only changes the format", {"x": (8, -8, 7, -7, 9, -9, 24, -24), "position": 0,
             "head_dim": 4, "base": BASE}, ("halves",)),
        Case("ends", "both ends of int32 are cut to 21 bits", ends, ("extreme", "saturation")),
    ]  # fmt: skip
    for n, (position, dim) in enumerate(((1, 2), (1, 8), (63, 4), (2047, 16), (7, 64))):
        case_id = f"random-{n}"
        values = {"x": _row(case_id, 2 * dim, 19), "position": position, "head_dim": dim, "base": BASE}
        cases.append(Case(case_id, f"two heads of {dim}", values))
    return _file(ROTATE, [*cases, *refuse_not_finite(ROTATE, cases[0], "base")])


def _scores() -> CaseFile:
    top, low = (1 << 20) - 1, -(1 << 20)
    widest = {"q": (low,) * 64, "keys": ((low,) * 64, (top,) * 64, (0,) * 64), "scale": compute_attention_scale(64)}
    cases = [
        Case("ends", "the largest scores of 64 elements", widest, ("extreme",)),
        Case("halves", "q . k is an exact half of 2^8", {"q": (128, 0), "keys": ((1, 0), (-1, 0), (3, 0), (-3, 0)),
             "scale": 1 << 24}, ("halves",)),
    ]  # fmt: skip
    for dim in (2, 4, 64, 80):
        case_id = f"random-{dim}"
        keys = [_row(case_id, dim, 14, f"/{n}") for n in range(5)]
        values = {"q": _row(case_id, dim, 14), "keys": keys, "scale": compute_attention_scale(dim)}
        cases.append(Case(case_id, f"heads of {dim}, five positions", values))
    return _file(COMPUTE_SCORES, cases)


def _mix() -> CaseFile:
    top, low = (1 << 24) - 1, -(1 << 24)
    far = 31 << 16
    cases = [
        Case("one", "one position: its value", {"scores": (-5,), "values": ((3, -3, top, low),)}),
        Case("equal", "two equal scores: the mean, halves up", {"scores": (7, 7), "values": ((1, -1, 2), (0, 0, 1))},
             ("halves",)),
        Case("far", "a score 31 below counts nothing, one nearly 31 below rounds to nothing", {
            "scores": (0, -far, 1 - far, -(17 << 16), 1 - (17 << 16)),
            "values": ((0,), (top,), (top,), (top,), (top,))}, ("extreme",)),
        Case("ends", "scores as far apart as they can be", {"scores": (-(2**40), 2**40, 2**40),
             "values": ((top,), (low,), (top,))}, ("extreme",)),
    ]  # fmt: skip
    for n in (2, 5, 17):
        case_id = f"random-{n}"
        values = [_row(case_id, 4, 17, f"/{t}") for t in range(n)]
        cases.append(Case(case_id, f"{n} positions", {"scores": _row(case_id, n, 18), "values": values}))
    return _file(MIX_VALUES, cases)


def _swiglu_file() -> CaseFile:
    g = (0, 1, -1, 65_536, -65_536, 11 << 16, -(11 << 16), HIGH, LOW, HIGH, LOW)
    u = (65_536, 65_536, 65_536, 65_536, 65_536, 3, 65_536, 65_536, HIGH, HIGH, LOW)
    steep = tuple(sign * n << 14 for n in range(1, 24, 3) for sign in (1, -1))
    random = {"g": _row("random", 32, 19, "/g"), "u": _row("random", 32, 19, "/u")}
    return _file(SWIGLU, [
        Case("ends", "zero, units, both ends of int32", {"g": g, "u": u}, ("extreme", "saturation")),
        Case("curve", "along the curve, u = 1", {"g": steep, "u": (65_536,) * len(steep)}),
        Case("random", "random values", random),
    ])  # fmt: skip


def _nll() -> CaseFile:
    cases = [
        Case("one", "one token: 0", {"logits": (5,), "target": 0}, ("zero",)),
        Case("two-equal", "two equal tokens: one bit", {"logits": (-9, -9), "target": 1}),
        Case("three-equal", "three: log2(3), cut", {"logits": (0, 0, 0), "target": 2}),
        Case("certain", "the other token is too far to count", {"logits": (22 << 16, 0), "target": 0}, ("zero",)),
        Case("hopeless", "and the other way round", {"logits": (22 << 16, 0), "target": 1}),
        Case("ends", "logits at both ends of int32: the largest result", {"logits": (LOW, HIGH), "target": 0},
             ("extreme",)),
    ]  # fmt: skip
    for count, bits in ((16, 17), (64, 19), (300, 18)):
        case_id = f"random-{count}"
        target = derive(SUITE, case_id + "/target").below(count)
        cases.append(Case(case_id, f"{count} tokens", {"logits": _row(case_id, count, bits), "target": target}))
    return _file(COMPUTE_NLL, cases)


# Whole passes.


def _draw_tokens(model: str, case_id: str, length: int) -> tuple[int, ...]:
    vocabulary = 16 if model == "nano" else int(read_manifest(model)["vocabulary_size"])
    drbg = derive(SUITE, case_id)
    return tuple(drbg.below(vocabulary) for _ in range(length))


def _pass(model: str, name: str, comment: str, length: int, scored: Sequence[int]) -> Case:
    case_id = f"{model.replace('.', '-')}-{name}"
    tokens = _draw_tokens(model, case_id, length)
    flags = (SLOW,) if model == "tinyllama-shape" else ()
    return Case(case_id, comment, {"model": model, "tokens": tokens, "scored": tuple(scored)}, flags)


def _quiz(model: str, n: int = 0) -> Case:
    """Return a pass over a quiz."""
    case_id = f"{model.replace('.', '-')}-quiz-{n}"
    config = make_config("testnet", get_manifest(model))
    quiz = generate_quiz(derive_seed(SUITE, case_id), get_rules(config, (), 0), read_lexicon(model))
    flags = ("quiz", SLOW) if model == "tinyllama-shape" else ("quiz",)
    return Case(case_id, "a quiz", {"model": model, "tokens": quiz.tokens, "scored": quiz.scored}, flags)


def _step_values() -> CaseFile:
    return _file(ALL_VALUES, [
        _pass("nano", "one", "one token, nothing scored", 1, ()),
        _pass("nano", "two", "two tokens, the second scored", 2, (1,)),
        _pass("nano", "six", "six tokens, three scored", 6, (1, 3, 5)),
    ])  # fmt: skip


def _steps() -> CaseFile:
    cases = [
        _pass("nano", "six", "six tokens", 6, (1, 3, 5)),
        _pass("mini", "one", "one token", 1, ()),
        _pass("mini", "twelve", "twelve tokens, four scored", 12, (2, 5, 9, 11)),
    ]
    large = ("smollm2-135m", "tinyllama-shape", "tinyllama-1.1b")
    return _file(STEP_DIGESTS, [*cases, *(_pass(m, "twelve", "twelve tokens", 12, (3, 7, 11)) for m in large)])


def _runs() -> CaseFile:
    nano = [
        _pass("nano", "one", "one token, nothing scored: no term, two trace entries", 1, ()),
        _pass("nano", "unscored", "several tokens, nothing scored", 5, ()),
        _pass("nano", "all", "every position but the first scored", 16, range(1, 16)),
        _pass("nano", "last", "only the last position scored", 7, (6,)),
        _pass("nano", "long", "longer than its context length, which is not looked at", 40, (39,)),
        Case("nano-repeated", "one token again and again",
             {"model": "nano", "tokens": (3,) * 8, "scored": tuple(range(1, 8))}),
        Case("nano-ends", "the first and the last token id", {"model": "nano", "tokens": (0, 15, 0), "scored": (1, 2)}),
    ]  # fmt: skip
    mini = [
        _pass("mini", "twelve", "the tokens of no quiz", 12, (2, 5, 9, 11)),
        _pass("mini", "all", "every position but the first scored", 9, range(1, 9)),
        *(_quiz("mini", n) for n in range(3)),
    ]
    large = [_quiz(name) for name in ("smollm2-135m", "tinyllama-shape", "tinyllama-1.1b")]
    return _file(RUN, [*nano, *mini, *large])


def _inline_runs() -> CaseFile:
    """Return passes of nano with other tensors: what saturates inside a block is seen in no function alone."""
    nano = models.get_gguf("nano")
    values = _draw_f16s("values-saturate", 8 * 4, 25)
    outputs = _draw_f16s("values-saturate", 8 * 8, 10)
    changes = {
        "values-saturate": ("weights of v near 2^10: v is cut to 25 bits", {"attn_v": values, "attn_output": outputs}),
        "attention-saturates": ("weights of attn_output near 2^9: the residual is cut to int32 after the attention",
                                {"attn_v": values, "attn_output": _draw_f16s("attention-saturates", 8 * 8, 24)}),
        "ffn-saturates": ("gate and up near 2^10, down near 2^9: the residual is cut to int32 after the feed-forward",
                          {"ffn_gate": _draw_f16s("ffn-saturates/gate", 16 * 8, 25),
                           "ffn_up": _draw_f16s("ffn-saturates/up", 16 * 8, 25),
                           "ffn_down": _draw_f16s("ffn-saturates", 8 * 16, 24)}),
    }  # fmt: skip
    cases = [_inline("nano", "nano as it is", nano, ())]
    for case_id, (comment, datas) in changes.items():
        tensors = {f"blk.0.{name}.weight": data for name, data in datas.items()}
        changed = {name: replace(t, data=tensors[name]) for name, t in nano.tensors.items() if name in tensors}
        cases.append(_inline(case_id, comment, replace(nano, tensors={**nano.tensors, **changed}), ("saturation",)))
    return _file(RUN_INLINE, cases)


def _draw_f16s(part: str, count: int, exponent: int) -> bytes:
    """Return F16 numbers of one biased exponent, with random signs and mantissas."""
    drbg = derive(SUITE, part)
    return b"".join(
        ((drbg.below(2) << 15) | (exponent << 10) | drbg.below(1024)).to_bytes(2, "little") for _ in range(count)
    )


def _inline(case_id: str, comment: str, gguf: GgufFile, flags: tuple[str, ...]) -> Case:
    drbg = derive(SUITE, f"inline-{case_id}")
    tokens = tuple(drbg.below(16) for _ in range(5))
    return Case(case_id, comment, {"gguf": model_kinds.show_gguf(gguf), "tokens": tokens, "scored": (1, 4)}, flags)
