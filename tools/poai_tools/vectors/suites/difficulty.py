"""Vectors of the page `difficulty`: work, the next target, and the rules for time stamps that it needs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poai_spec.basics.containers import Header
from poai_spec.basics.parameters import Config
from poai_spec.chain.header import make_genesis_header
from poai_spec.chain.upgrades import get_rules, is_retarget_height
from poai_spec.model.integer_model import Architecture
from poai_spec.model.weights import Float32
from poai_spec.proof.difficulty import (
    check_cost,
    check_period_forward,
    check_target,
    compute_cost,
    compute_median_time,
    compute_next_target,
    compute_quizzes,
    compute_target,
)
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import BOOLEAN, UINT64, UINT256, Array, Integer, Kind, RecordKind
from poai_tools.vectors.network import make_network
from poai_tools.vectors.registry import Function, register

TARGET = Integer(1, 2**256 - 1)
BLOCKS = Integer(1, 2**32 - 1)
SPACING = Integer(4, 2**32 - 1)
NUMBERS: dict[str, Kind] = {"retarget_blocks": BLOCKS, "spacing": SPACING, "max_target": TARGET}
CHAIN = Array(RecordKind({"timestamp": UINT64, "target": TARGET}), least=1)
STAMPS = Array(UINT64, least=1)
EASIEST = 2**256 - 1


def _make_config(values: Mapping[str, Any]) -> Config:
    return replace(make_network(), **{key: values[key] for key in NUMBERS if key in values})


def _make_header(timestamp: int, target: int, height: int) -> Header:
    header = make_genesis_header(make_network())
    return replace(header, core=replace(header.core, timestamp=timestamp, target=target, height=height))


def _make_chain(rows: Any) -> tuple[Header, ...]:
    return tuple(_make_header(row["timestamp"], row["target"], height) for height, row in enumerate(rows))


def _with_targets(timestamps: Any) -> list[dict[str, int]]:
    return [{"timestamp": stamp, "target": 1} for stamp in timestamps]


def _check_target(i: Mapping[str, Any]) -> dict[str, Any]:
    core = _make_header(0, i["target"], len(i["chain"])).core
    check_target(core, _make_chain(i["chain"]), get_rules(_make_config(i), (), 0))
    return {}


def _check_period_forward(i: Mapping[str, Any]) -> dict[str, Any]:
    core = _make_header(i["timestamp"], 1, len(i["timestamps"])).core
    check_period_forward(core, _make_chain(_with_targets(i["timestamps"])), get_rules(_make_config(i), (), 0))
    return {}


COMPUTE_QUIZZES = register(
    Function(
        suite="difficulty",
        name="compute_quizzes",
        page="difficulty",
        summary="the expected number of quizzes behind a block",
        input=RecordKind({"target": TARGET}),
        output=RecordKind({"quizzes": UINT256}),
        run=lambda i: {"quizzes": compute_quizzes(i["target"])},
    )
)
COSTS: dict[str, Kind] = {"position_cost": UINT64, "pair_cost": UINT64, "scored_cost": UINT64}
SHAPE: dict[str, Kind] = {
    name: Integer(1, 2**24)
    for name in ("layer_count", "width", "head_count", "kv_head_count", "head_dim", "ffn_width", "vocabulary_size")
}


def _read_shape(i: Mapping[str, Any]) -> Architecture:
    return Architecture(**{name: i[name] for name in SHAPE}, rope_base=Float32(0), epsilon=Float32(0))


def _check_cost(i: Mapping[str, Any]) -> dict[str, Any]:
    check_cost(_read_shape(i), replace(make_network().model, **{name: i[name] for name in COSTS}))
    return {}


CHECK_COST = register(
    Function(
        suite="difficulty",
        name="check_cost",
        page="difficulty",
        summary="refuse multiplications that are not those of a model's shape",
        input=RecordKind({**SHAPE, **COSTS}),
        output=RecordKind({}),
        run=_check_cost,
    )
)
IS_RETARGET_HEIGHT = register(
    Function(
        suite="difficulty",
        name="is_retarget_height",
        page="upgrades",
        summary="whether the target may change at a height",
        input=RecordKind({"height": UINT64, "retarget_blocks": BLOCKS}),
        output=RecordKind({"changes": BOOLEAN}),
        run=lambda i: {"changes": is_retarget_height(i["height"], get_rules(_make_config(i), (), 0))},
    )
)
COMPUTE_NEXT_TARGET = register(
    Function(
        suite="difficulty",
        name="compute_next_target",
        page="difficulty",
        summary="the target after a period that claims `actual` milliseconds",
        input=RecordKind({"target": TARGET, "actual": Integer(-(2**64), 2**64), **NUMBERS}),
        output=RecordKind({"target": TARGET}),
        run=lambda i: {"target": compute_next_target(i["target"], i["actual"], get_rules(_make_config(i), (), 0))},
    )
)
COMPUTE_TARGET = register(
    Function(
        suite="difficulty",
        name="compute_target",
        page="difficulty",
        summary="the target of the block on top of a chain, genesis first",
        input=RecordKind({"chain": CHAIN, **NUMBERS}),
        output=RecordKind({"target": TARGET}),
        run=lambda i: {"target": compute_target(_make_chain(i["chain"]), get_rules(_make_config(i), (), 0))},
    )
)
CHECK_TARGET = register(
    Function(
        suite="difficulty",
        name="check_target",
        page="difficulty",
        summary="refuse a target that the chain does not give",
        input=RecordKind({"chain": CHAIN, "target": UINT256, **NUMBERS}),
        output=RecordKind({}),
        run=_check_target,
    )
)
COMPUTE_MEDIAN_TIME = register(
    Function(
        suite="difficulty",
        name="compute_median_time",
        page="difficulty",
        summary="the median stamp of a chain's last headers; stamps of all ancestors, genesis first",
        input=RecordKind({"timestamps": STAMPS}),
        output=RecordKind({"median": UINT64}),
        run=lambda i: {"median": compute_median_time(_make_chain(_with_targets(i["timestamps"])))},
    )
)
CHECK_PERIOD_FORWARD = register(
    Function(
        suite="difficulty",
        name="check_period_forward",
        page="difficulty",
        summary="refuse a block that ends a period but is not later than the one that began it",
        input=RecordKind({"timestamps": STAMPS, "timestamp": UINT64, "retarget_blocks": BLOCKS}),
        output=RecordKind({}),
        run=_check_period_forward,
    )
)
RULES = {
    "clamp": (
        "the claimed time lies beyond a quarter or four times the intended one",
        "a client that clamps the target instead of the time, or rounds the bound up, splits at a retarget",
    ),
    "bound": ("the target meets 1 or `max_target`", "a client without the bound has a target of 0, or one too easy"),
    "rounding": ("the division has a remainder", "a client that rounds otherwise than down, or in a double, differs"),
    "anchor": (
        "the first retarget, from block 1 to block 1 + R; genesis has a stamp far in the past",
        "a client that measures from genesis, or R - 1 intervals, differs here",
    ),
    "negative": ("stamps run backwards", "a client that keeps the difference unsigned takes it for centuries"),
    "wrap": ("an intermediate value passes 64 bits", "a client that computes it in 64 bits, signed or not, differs"),
    "even": ("an even number of stamps", "a client that takes the lower middle, or a mean, differs"),
    "boundary": ("equal values, or their neighbours", "a client with < for <=, or the reverse, differs"),
}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [
        _compute_quizzes(),
        _check_cost_file(),
        _is_retarget_height(),
        _compute_next_target(),
        _compute_target(),
        _check_target_file(),
        _compute_median_time(),
        _check_period_forward_file(),
    ]


def _pick(*names: str) -> dict[str, tuple[str, str]]:
    return {name: RULES[name] for name in names}


def _check_cost_file() -> CaseFile:
    shapes = {
        "mini": (3, 64, 4, 2, 16, 256, 905),
        "micro": (2, 32, 2, 1, 16, 96, 905),
        "smollm2": (30, 576, 9, 3, 64, 1536, 49_152),
        "tinyllama": (22, 2048, 32, 4, 64, 5632, 32_000),
        "wide-heads": (1, 8, 2, 1, 16, 16, 16),
    }
    cases = []
    for name, numbers in shapes.items():
        shape = dict(zip(SHAPE, numbers, strict=True))
        values = shape | vars(compute_cost(_read_shape(shape)))
        cases.append(Case(name, "its shape", values))
    for name in COSTS:
        for more in (-1, 1):
            case_id = f"{name.replace('_', '-')}-{'less' if more < 0 else 'more'}"
            values = {name: cases[0].input[name] + more}
            cases.append(make_negative(CHECK_COST, cases[0], case_id, "one too few or too many", values))
    return CaseFile(CHECK_COST, "Shapes of the pinned models, and one whose heads are wider than it.", tuple(cases))


def _compute_quizzes() -> CaseFile:
    targets = {
        "easiest": EASIEST,
        "just-below-easiest": EASIEST - 1,
        "half": 2**255,
        "half-less-one": 2**255 - 1,
        "third": 2**256 // 3,
        "minimal": 2**256 // 4,
        "testnet": 2**256 // 20,
        "mainnet": 2**256 // 1000,
        "two": 2,
        "hardest": 1,
    }
    cases = [Case(name, f"target {hex(t)}", {"target": t}) for name, t in targets.items()]
    for n in range(4):
        target = 1 + derive("difficulty", f"drawn-{n}").below(2**64) * 2 ** (48 * n)
        cases.append(Case(f"drawn-{n}", f"target {hex(target)}", {"target": target}))
    how = "By hand; `drawn-N` is 1 + 2^(48 N) times the first 64-bit integer of the id's DRBG."
    return CaseFile(COMPUTE_QUIZZES, how, tuple(cases))


def _is_retarget_height() -> CaseFile:
    cases = []
    for blocks, heights in ((4, range(12)), (1, range(5)), (2016, (2, 2016, 2017, 2018, 2019, 4033, 4034, 4035))):
        for height in heights:
            values = {"height": height, "retarget_blocks": blocks}
            cases.append(Case(f"r{blocks}-h{height}", f"height {height}, periods of {blocks}", values, ("anchor",)))
    return CaseFile(IS_RETARGET_HEIGHT, "Heights around the ends of periods.", tuple(cases), _pick("anchor"))


def _compute_next_target() -> CaseFile:
    expected = 4 * 1000
    rows: dict[str, tuple[int, int, int, tuple[str, ...]]] = {
        "as-intended": (2**250, expected, EASIEST, ()),
        "one-late": (2**250, expected + 1, EASIEST, ("rounding",)),
        "one-early": (2**250, expected - 1, EASIEST, ("rounding",)),
        "twice-as-fast": (2**250, expected // 2, EASIEST, ()),
        "odd-target": (2**250 // 3, 3333, EASIEST, ("rounding",)),
        "quarter": (2**250, expected // 4, EASIEST, ("clamp",)),
        "below-quarter": (2**250, expected // 4 - 1, EASIEST, ("clamp",)),
        "fourfold": (2**250, expected * 4, EASIEST, ("clamp",)),
        "above-fourfold": (2**250, expected * 4 + 1, EASIEST, ("clamp",)),
        "zero-time": (2**250, 0, EASIEST, ("clamp",)),
        "backwards": (2**250, -expected, EASIEST, ("clamp", "negative")),
        "to-the-easiest": (2**255, expected * 4, EASIEST, ("bound",)),
        "to-a-lower-maximum": (2**240, expected * 2, 2**240 + 1, ("bound",)),
        "to-one": (1, expected // 4, EASIEST, ("bound",)),
        "three-to-one": (3, expected // 4, EASIEST, ("bound",)),
        "from-one": (1, expected * 4, EASIEST, ()),
    }
    cases = [
        Case(name, f"{actual} ms of {expected}", _next(target, actual, 4, 1000, most), flags)
        for name, (target, actual, most, flags) in rows.items()
    ]
    odd = {"odd-period-low": (1, 7, 0), "odd-period-high": (1, 7, 100), "mainnet": (2016, 600_000, 1_000_000_007)}
    for name, (blocks, spacing, actual) in odd.items():
        values = _next(2**246 + 12345, actual, blocks, spacing, EASIEST)
        cases.append(Case(name, f"{actual} ms of {blocks} * {spacing}", values, ("rounding",)))
    most = 2**32 - 1
    wide = {
        "above-64-bits": ("the claimed time has 65 bits", 1000, 2**64),
        "period-of-64-bits": ("the largest stamp, the period a little less", 2**250, 2**64 - 1),
        "fourfold-of-66-bits": ("a quarter of the period less 1", 1000, most * most // 4 - 1),
    }
    for name, (comment, target, actual) in wide.items():
        values = _next(target, actual, most, most, EASIEST)
        cases.append(Case(name, f"{comment}; R = spacing = 2^32 - 1", values, ("wrap",)))
    for n in range(6):
        drbg = derive("difficulty", f"next-drawn-{n}")
        target, actual = drbg.below(2**64) << drbg.below(192), drbg.below(8 * expected)
        values = _next(max(target, 1), actual, 4, 1000, EASIEST)
        cases.append(Case(f"next-drawn-{n}", f"{actual} ms of {expected}", values))
    how = (
        "By hand; `next-drawn-N`: from the id's DRBG a 64-bit integer, shifted left by a number below 192, and a time."
    )
    return CaseFile(COMPUTE_NEXT_TARGET, how, tuple(cases), _pick("clamp", "bound", "rounding", "negative", "wrap"))


def _next(target: int, actual: int, blocks: int, spacing: int, most: int) -> dict[str, int]:
    return {"target": target, "actual": actual, "retarget_blocks": blocks, "spacing": spacing, "max_target": most}


def _rows(stamps: list[int], targets: list[int]) -> list[dict[str, int]]:
    return [{"timestamp": s, "target": t} for s, t in zip(stamps, targets, strict=True)]


def _chain_values(stamps: list[int], targets: list[int], most: int = EASIEST) -> dict[str, Any]:
    return {"chain": _rows(stamps, targets), "retarget_blocks": 4, "spacing": 1000, "max_target": most}


LONG = [0, 9_000_000, 9_000_900, 9_001_900, 9_003_100, 9_003_500, 9_004_400, 9_005_000, 9_006_100, 9_007_900]
"""Stamps of ten blocks: genesis long before the rest; the first period takes 3500 ms, the second 4400."""


def _targets(count: int) -> list[int]:
    """Targets that follow from `LONG`."""
    first = 2**250
    second = compute_next_target(
        first, 3500, get_rules(replace(make_network(), retarget_blocks=4, spacing=1000), (), 0)
    )
    return [first] * min(count, 6) + [second] * max(0, count - 6)


def _compute_target() -> CaseFile:
    cases = []
    for count in range(1, len(LONG) + 1):
        flags = ("anchor",) if count == 6 else ()
        values = _chain_values(LONG[:count], _targets(count))
        cases.append(Case(f"height-{count}", f"{count} ancestors, periods of 4", values, flags))
    backwards = [0, 9000, 9100, 9200, 9300, 8000]
    cases.append(
        Case("backwards", "block 5 before block 1", _chain_values(backwards, [2**250] * 6), ("clamp", "negative"))
    )
    slow = [0, 1000, 2000, 3000, 4000, 10**9]
    cases.append(Case("slow", "a period of 11 days", _chain_values(slow, [2**250] * 6, 2**251), ("clamp", "bound")))
    for name, stamps, comment in (
        ("stamps-of-64-bits", [5, 0, 2**64 - 1], "a period from 0 to 2^64 - 1"),
        ("stamps-of-64-bits-back", [5, 2**64 - 1, 0], "a period from 2^64 - 1 to 0"),
    ):
        values = {"chain": _rows(stamps, [1000] * 3), "retarget_blocks": 1, "spacing": 4, "max_target": EASIEST}
        cases.append(Case(name, comment, values, ("clamp", "wrap")))
    how = "Stamps and targets by hand; height-N has the first N headers of one chain."
    return CaseFile(COMPUTE_TARGET, how, tuple(cases), _pick("anchor", "clamp", "bound", "negative", "wrap"))


def _check_target_file() -> CaseFile:
    same = Case(
        "same", "no retarget: the parent's target", _chain_values(LONG[:5], _targets(5)) | {"target": _targets(5)[-1]}
    )
    changed = Case(
        "changed", "the first retarget", _chain_values(LONG[:6], _targets(6)) | {"target": _targets(7)[-1]}, ("anchor",)
    )
    cases = [same, changed]
    for base, name, target in (
        (same, "same-one-more", _targets(5)[-1] + 1),
        (same, "same-one-less", _targets(5)[-1] - 1),
        (same, "same-retargeted", _targets(7)[-1]),
        (same, "same-zero", 0),
        (changed, "changed-one-more", _targets(7)[-1] + 1),
        (changed, "changed-not", _targets(5)[-1]),
    ):
        cases.append(make_negative(CHECK_TARGET, base, name, "another target", {"target": target}))
    return CaseFile(CHECK_TARGET, "The chain of compute_target.", tuple(cases), _pick("anchor"))


def _compute_median_time() -> CaseFile:
    lists = {
        "one": [7],
        "two": [7, 9],
        "two-reversed": [9, 7],
        "three": [5, 1, 3],
        "four": [4, 1, 3, 2],
        "ten": [10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
        "eleven": [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5],
        "twelve": [100, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5],
        "twelve-low-first": [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110],
        "equal": [8] * 11,
        "wide": [2**63, 2**64 - 1, 2**63 + 1],
    }
    cases = [
        Case(name, f"{len(s)} stamps", {"timestamps": s}, ("even",) if len(s) % 2 == 0 and len(s) < 11 else ())
        for name, s in lists.items()
    ]
    for n in (11, 12, 13, 25):
        drbg = derive("difficulty", f"median-{n}")
        stamps = [1000 * i + drbg.below(5000) for i in range(n)]
        cases.append(Case(f"median-{n}", f"{n} stamps out of order", {"timestamps": stamps}))
    how = "By hand; `median-N`: stamp i is 1000 i plus an integer below 5000 of the id's DRBG."
    return CaseFile(COMPUTE_MEDIAN_TIME, how, tuple(cases), _pick("even"))


def _check_period_forward_file() -> CaseFile:
    def period(stamps: list[int], timestamp: int) -> dict[str, Any]:
        return {"timestamps": stamps, "timestamp": timestamp, "retarget_blocks": 4}

    stamps = [0, 5000, 100, 200, 300, 9000, 400, 500, 600]
    first = Case("first-end", "block 5, one above block 1", period(stamps[:5], 5001), ("boundary",))
    second = Case("second-end", "block 9, one above block 5", period(stamps, 9001), ("boundary",))
    every = Case(
        "every-block",
        "periods of one block",
        {"timestamps": [0, 50], "timestamp": 51, "retarget_blocks": 1},
        ("boundary",),
    )
    cases = [
        first,
        second,
        every,
        Case("inside", "block 4 ends no period", period(stamps[:4], 1)),
        Case("after-end", "block 6 ends no period", period(stamps[:6], 1)),
        Case("height-one", "block 1 begins the first period and ends none", period(stamps[:1], 0)),
        Case(
            "height-one-every-block",
            "block 1, periods of one block",
            {"timestamps": [50], "timestamp": 50, "retarget_blocks": 1},
        ),
        Case(
            "first-end-largest", "the largest stamp is above every other", period(stamps[:5], 2**64 - 1), ("boundary",)
        ),
    ]
    for base, name, timestamp in (
        (first, "first-end-equal", 5000),
        (first, "first-end-before", 1),
        (second, "second-end-equal", 9000),
        (second, "second-end-before", 8999),
        (every, "every-block-equal", 50),
    ):
        cases.append(
            make_negative(CHECK_PERIOD_FORWARD, base, name, "not above it", {"timestamp": timestamp}, ("boundary",))
        )
    return CaseFile(CHECK_PERIOD_FORWARD, "Chosen by hand.", tuple(cases), _pick("boundary"))
