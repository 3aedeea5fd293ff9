"""Vectors of the page `drbg`: the stream, and uniform integers by rejection."""

from typing import Any

from poai_spec.basics.drbg import Drbg
from poai_tools.vectors.cases import Case, CaseFile, derive_seed
from poai_tools.vectors.kinds import HASH32, UINT64, Array, Integer, RecordKind
from poai_tools.vectors.registry import Function, register

COUNT = Integer(0, 2**10)

NEXT_UINT64 = register(
    Function(
        suite="drbg",
        name="next_uint64",
        page="drbg",
        summary="the first `count` 64-bit integers of a seed's stream",
        input=RecordKind({"seed": HASH32, "count": COUNT}),
        output=RecordKind({"values": Array(UINT64)}),
        run=lambda i: {"values": _draw(i["seed"], i["count"])},
    )
)
BELOW = register(
    Function(
        suite="drbg",
        name="below",
        page="drbg",
        summary="`count` uniform integers below `n`, drawn one after another",
        input=RecordKind({"seed": HASH32, "n": Integer(1, 2**64), "count": COUNT}),
        output=RecordKind({"values": Array(UINT64)}),
        run=lambda i: {"values": _draw_below(i["seed"], i["n"], i["count"])},
    )
)


def _draw(seed: bytes, count: int) -> tuple[int, ...]:
    drbg = Drbg(seed)
    return tuple(drbg.next_uint64() for _ in range(count))


def _draw_below(seed: bytes, n: int, count: int) -> tuple[int, ...]:
    drbg = Drbg(seed)
    return tuple(drbg.below(n) for _ in range(count))


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_next_uint64(), _below()]


def _next_uint64() -> CaseFile:
    cases: list[Case] = [
        Case("zero-seed", "a seed of zeros; more than one block of four integers", {"seed": bytes(32), "count": 9})
    ]
    for n in range(4):
        case_id = f"seed-{n}"
        seed = derive_seed("drbg", case_id)
        cases.append(Case(case_id, "a derived seed", {"seed": seed, "count": 4 * n + 1}))
    return CaseFile(
        NEXT_UINT64, "Seeds are Keccak(Keccak('PoAI/vectors/1') || 'drbg/' || id), unless said.", tuple(cases)
    )


def _below() -> CaseFile:
    rejecting = {"quarter-rejected": 3 * 2**62, "half-rejected": 2**63 + 1}
    bounds = {"one": 1, "two": 2, "ten": 10, "prime": 65537} | rejecting | {"all": 2**64}
    cases = tuple(_bound_case(name, n) for name, n in bounds.items())
    flags = {
        "rejection": (
            "a quarter or half of the draws are rejected",
            "a client that takes `x mod n` at once is biased, and differs here",
        )
    }
    return CaseFile(BELOW, "Seeds are Keccak(Keccak('PoAI/vectors/1') || 'drbg/' || id).", cases, flags)


def _bound_case(name: str, n: int) -> Case:
    case_id = f"n-{name}"
    values: dict[str, Any] = {"seed": derive_seed("drbg", case_id), "n": n, "count": 12}
    return Case(case_id, f"bound {n}", values, ("rejection",) if name.endswith("rejected") else ())
