"""How a suite states its cases: an input, and what to say about it. The specification gives the result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import Hash32, tagged_hash
from poai_tools.vectors.registry import Function, call

SLOW = "slow"
"""The flag of a case that takes minutes: `check` and `generate` leave it out unless `--slow` is given."""
Keep = Callable[["Case", dict[str, Any]], dict[str, Any] | None]
"""From a case and its input in JSON form to the committed result of a case that is not computed now, or None."""


@dataclass(frozen=True)
class Case:
    """One case before its result is known.

    Attributes:
        id: a slug that never changes.
        comment: what it shows.
        input: decoded values, by field name.
        flags: names that the file's flag table explains.
        base: for a negative case, the id of the valid case of the same file that it was made from.
        defect: JSON pointers of the input fields that differ from the base's; nothing else differs.
    """

    id: str
    comment: str
    input: Mapping[str, Any]
    flags: tuple[str, ...] = ()
    base: str | None = None
    defect: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseFile:
    """All cases of one function, `test_vectors/SUITE/FUNCTION.json`.

    Attributes:
        function: what they call.
        derivation: how the inputs were made, in a sentence or two.
        cases: in the order of the file.
        flags: name -> (why such cases matter, what a client that fails them gets wrong).
    """

    function: Function
    derivation: str
    cases: tuple[Case, ...]
    flags: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def derive_seed(suite: str, case_id: str) -> Hash32:
    """Return the seed of a case's inputs: `Keccak(tag || suite || "/" || id)`, tag `PoAI/vectors/1`."""
    return tagged_hash("PoAI/vectors/1", f"{suite}/{case_id}".encode("ascii"))


def derive(suite: str, case_id: str) -> Drbg:
    """Return the random bits that a case's inputs are drawn from; never `random`."""
    return Drbg(derive_seed(suite, case_id))


def make_document(file: CaseFile, keep: Keep | None = None) -> dict[str, Any]:
    """Run the specification on every case and return the file's JSON document.

    Args:
        file: the cases.
        keep: gives the result fields of the cases that are not run (slow ones, models not at hand); None runs all.
    """
    function = file.function
    return {
        "format": 1,
        "suite": function.suite,
        "function": function.name,
        "page": function.page,
        "summary": function.summary,
        "derivation": file.derivation,
        "flags": {name: {"why": why, "effect": effect} for name, (why, effect) in file.flags.items()},
        "cases": [_make_case(function, case, keep) for case in file.cases],
    }


def _make_case(function: Function, case: Case, keep: Keep | None) -> dict[str, Any]:
    data = function.input.to_json(case.input)
    entry = {"id": case.id, "comment": case.comment, "flags": list(case.flags), "input": data}
    kept = keep(case, data) if keep else None
    if kept is not None:
        return entry | kept
    outcome = call(function, data)
    if outcome.result == "valid":
        return entry | {"result": "valid", "output": outcome.output}
    negative = {"code": outcome.code, "base": case.base, "defect": list(case.defect)}
    return entry | {"result": outcome.result} | negative
