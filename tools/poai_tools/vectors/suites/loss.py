"""Vectors of the page `loss`: trace entries, their digest, and the number that is compared with the target."""

from collections.abc import Sequence
from typing import Any

from poai_spec.basics.drbg import Drbg
from poai_spec.model.loss import (
    compute_l_hat,
    compute_layer_entry,
    compute_output_entry,
    compute_trace_digest,
    is_below_target,
)
from poai_tools.vectors.cases import Case, CaseFile, derive, derive_seed
from poai_tools.vectors.kinds import BOOLEAN, HASH32, INT32, UINT8, UINT32, UINT64, UINT256, Array, Integer, RecordKind
from poai_tools.vectors.registry import Function, register

ENTRY = Integer(-127, 127)
SCALE = {"e1": UINT8, "e2": UINT8, "f": UINT8}

COMPUTE_LAYER_ENTRY = register(
    Function(
        suite="loss",
        name="compute_layer_entry",
        page="loss",
        summary="the trace entry of a transformer block, from the last position's residual row (Q14)",
        input=RecordKind({"layer": UINT32, "row": Array(INT32)}),
        output=RecordKind({"entry": HASH32}),
        run=lambda i: {"entry": compute_layer_entry(i["layer"], i["row"])},
    )
)
COMPUTE_OUTPUT_ENTRY = register(
    Function(
        suite="loss",
        name="compute_output_entry",
        page="loss",
        summary="the last trace entry, from the head's quantised input rows and the scored losses (bits in Q16)",
        input=RecordKind(
            {"positions": Array(RecordKind({**SCALE, "row": Array(ENTRY)})), "nlls": Array(UINT64)},
        ),
        output=RecordKind({"entry": HASH32}),
        run=lambda i: {"entry": _compute_output_entry(i["positions"], i["nlls"])},
    )
)
COMPUTE_TRACE_DIGEST = register(
    Function(
        suite="loss",
        name="compute_trace_digest",
        page="loss",
        summary="the header's commitment to a list of trace entries",
        input=RecordKind({"trace": Array(HASH32)}),
        output=RecordKind({"digest": HASH32}),
        run=lambda i: {"digest": compute_trace_digest(i["trace"])},
    )
)
COMPUTE_L_HAT = register(
    Function(
        suite="loss",
        name="compute_l_hat",
        page="loss",
        summary="the number that must stay below the target",
        input=RecordKind({"quiz_seed": HASH32, "loss": UINT64, "trace_digest": HASH32}),
        output=RecordKind({"l_hat": UINT256}),
        run=lambda i: {"l_hat": compute_l_hat(i["quiz_seed"], i["loss"], i["trace_digest"])},
    )
)
IS_BELOW_TARGET = register(
    Function(
        suite="loss",
        name="is_below_target",
        page="loss",
        summary="whether a pass wins",
        input=RecordKind({"l_hat": UINT256, "target": UINT256}),
        output=RecordKind({"wins": BOOLEAN}),
        run=lambda i: {"wins": is_below_target(i["l_hat"], i["target"])},
    )
)
WIDE = {"wide": ("a loss above 2^53", "a client that keeps losses in doubles hashes another number")}


def _compute_output_entry(positions: Sequence[dict[str, Any]], nlls: Sequence[int]) -> bytes:
    return compute_output_entry([(p["e1"], p["e2"], p["f"]) for p in positions], [p["row"] for p in positions], nlls)


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_layer_entry(), _output_entry(), _trace_digest(), _l_hat(), _is_below_target()]


def _layer_entry() -> CaseFile:
    rows = {
        "page": (1, (16384, -1)),
        "empty": (1, ()),
        "extremes": (2, (0, 1, -1, 2**31 - 1, -(2**31))),
        "layer-256": (256, (5,)),
    }
    cases = [
        Case(name, "two's complement, little-endian", {"layer": layer, "row": row})
        for name, (layer, row) in rows.items()
    ]
    for layer in (1, 2, 30):
        drbg = derive("loss", f"row-{layer}")
        row = tuple(drbg.below(2**32) - 2**31 for _ in range(16))
        cases.append(Case(f"row-{layer}", "16 drawn values", {"layer": layer, "row": row}))
    return CaseFile(COMPUTE_LAYER_ENTRY, "`row-N`: 16 integers below 2^32 of the id's DRBG, less 2^31.", tuple(cases))


def _output_entry() -> CaseFile:
    cases = [
        Case("page", "the example of the page", _make_output([(3, 9, 4)], [[127, -7]], [65536])),
        Case("no-loss", "nothing scored", _make_output([(0, 0, 4)], [[0]], [])),
        Case("extremes", "largest values", _make_output([(18, 13, 7)], [[127, -127, -1]], [2**64 - 1]), ("wide",)),
    ]
    for positions, width, scored in ((1, 4, 1), (3, 8, 2), (32, 4, 2)):
        case_id = f"drawn-{positions}-{width}-{scored}"
        drbg = derive("loss", case_id)
        scales = [(drbg.below(19), drbg.below(14), 4 + drbg.below(4)) for _ in range(positions)]
        rows = [[_draw_entry(drbg) for _ in range(width)] for _ in range(positions)]
        nlls = [drbg.below(2**34) for _ in range(scored)]
        cases.append(Case(case_id, f"{positions} positions of {width} values", _make_output(scales, rows, nlls)))
    how = (
        "`drawn-T-D-S`: from the id's DRBG T scales (e1 below 19, e2 below 14, f in 4..7), then T rows of D values "
        "-127..127, then S losses below 2^34."
    )
    return CaseFile(COMPUTE_OUTPUT_ENTRY, how, tuple(cases), WIDE)


def _draw_entry(drbg: Drbg) -> int:
    return drbg.between(-127, 127)


def _make_output(scales: list[tuple[int, int, int]], rows: list[list[int]], nlls: list[int]) -> dict[str, Any]:
    pairs = zip(scales, rows, strict=True)
    return {"positions": [dict(zip(SCALE, scale, strict=True)) | {"row": row} for scale, row in pairs], "nlls": nlls}


def _trace_digest() -> CaseFile:
    cases = []
    for count in (0, 1, 2, 4, 31):
        case_id = f"entries-{count}"
        trace = tuple(derive_seed("loss", f"{case_id}/{n}") for n in range(count))
        cases.append(Case(case_id, f"{count} entries", {"trace": trace}))
    return CaseFile(
        COMPUTE_TRACE_DIGEST, "Entry n is Keccak(Keccak('PoAI/vectors/1') || 'loss/' || id || '/' || n).", tuple(cases)
    )


def _l_hat() -> CaseFile:
    cases = [Case("zeros", "all zero", {"quiz_seed": bytes(32), "loss": 0, "trace_digest": bytes(32)})]
    for loss in (1, 65536, 2**32, 2**53 + 1, 2**64 - 1):
        case_id = f"loss-{loss}"
        seed, digest = derive_seed("loss", f"{case_id}/0"), derive_seed("loss", f"{case_id}/1")
        values = {"quiz_seed": seed, "loss": loss, "trace_digest": digest}
        cases.append(Case(case_id, f"loss {loss}", values, ("wide",) if loss > 2**53 else ()))
    how = "Seed and digest are Keccak(Keccak('PoAI/vectors/1') || 'loss/' || id || '/0' and '/1')."
    return CaseFile(COMPUTE_L_HAT, how, tuple(cases), WIDE)


def _is_below_target() -> CaseFile:
    most = 2**256 - 1
    pairs = {
        "below": (2**255 - 1, 2**255),
        "equal": (2**255, 2**255),
        "above": (2**255 + 1, 2**255),
        "zero": (0, 1),
        "easiest": (most - 1, most),
        "easiest-lost": (most, most),
        "last-bit": (2**200 + 1, 2**200 + 2),
    }
    cases = [
        Case(name, f"l_hat - target = {a - b}", {"l_hat": a, "target": b}, ("equal",) if a == b else ())
        for name, (a, b) in pairs.items()
    ]
    equal = ("equal numbers", "a client that takes <= accepts a block that all others refuse")
    return CaseFile(IS_BELOW_TARGET, "Chosen by hand.", tuple(cases), {"equal": equal})
