"""Vectors of the page `economics`: what a block creates, and what all have created."""

from poai_spec.basics.parameters import HALVING_BLOCKS
from poai_spec.proof.economics import compute_subsidy, compute_supply
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.kinds import UINT64, UINT256, RecordKind
from poai_tools.vectors.registry import Function, register

COMPUTE_SUBSIDY = register(
    Function(
        suite="economics",
        name="compute_subsidy",
        page="economics",
        summary="what the block at a height creates, wei",
        input=RecordKind({"height": UINT64}),
        output=RecordKind({"amount": UINT256}),
        run=lambda i: {"amount": compute_subsidy(i["height"])},
    )
)
COMPUTE_SUPPLY = register(
    Function(
        suite="economics",
        name="compute_supply",
        page="economics",
        summary="what the blocks up to a height, included, created, wei",
        input=RecordKind({"height": UINT64}),
        output=RecordKind({"amount": UINT256}),
        run=lambda i: {"amount": compute_supply(i["height"])},
    )
)
FLAGS = {
    "halving": (
        "the last block of an era and the first of the next",
        "a client that counts eras from genesis pays half, or twice, in one block of 210,000",
    ),
    "inexact": (
        "from the 19th halving on the subsidy is no whole half of the one before",
        "a client that rounds to the nearest, or computes in a double, mints a few wei more",
    ),
}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    heights: dict[str, int] = {"genesis": 0, "first": 1, "second": 2}
    for era in (1, 2, 3, 18, 19, 20, 32, 61, 62, 63, 64, 65):
        heights[f"era-{era}-last"] = era * HALVING_BLOCKS
        heights[f"era-{era + 1}-first"] = era * HALVING_BLOCKS + 1
    heights["highest"] = 2**64 - 1
    for n in range(4):
        heights[f"drawn-{n}"] = derive("economics", f"drawn-{n}").below(63 * HALVING_BLOCKS)
    cases = tuple(Case(name, f"height {h}", {"height": h}, _flags(name, h)) for name, h in heights.items())
    how = "Ends of eras by hand; `drawn-N` is the first integer below 63 * 210,000 of the id's DRBG."
    return [CaseFile(function, how, cases, FLAGS) for function in (COMPUTE_SUBSIDY, COMPUTE_SUPPLY)]


def _flags(name: str, height: int) -> tuple[str, ...]:
    halving = name.startswith("era-")
    inexact = height > 19 * HALVING_BLOCKS
    return ("halving",) * halving + ("inexact",) * inexact
