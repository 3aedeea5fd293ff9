"""Where a client's forward pass first leaves ours: its steps, compared layer by layer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from poai_engine.errors import ModelError
from poai_tools.vectors.check import FAILED, Answerer, CaseResult, CommittedCase, SpecAnswerer
from poai_tools.vectors.client import NOT_IMPLEMENTED, Answer
from poai_tools.vectors.compare import find_difference, look_up

SUITE, STEPS = "inference", "steps"
PASSES = ("run", "steps", "step_values")
"""Functions whose input is that of `steps`: a model, tokens, scored positions."""


def locate(result: CaseResult, client: Answerer, committed: Sequence[CommittedCase]) -> CaseResult:
    """Return the result of a failed forward pass with the first step that differs in its detail.

    Args:
        result: of any case; all but failed passes come back as they are.
        client: whose pass failed.
        committed: all cases; the steps of a pass among them need not be computed.
    """
    case = result.case
    if result.status != FAILED or case.suite != SUITE or case.function not in PASSES:
        return result
    found = client.ask(SUITE, STEPS, f"{case.path}/steps", case.input)
    try:
        expected = get_expected(case, committed)
    except ModelError as error:
        return replace(result, detail=f"{result.detail}; the steps cannot be compared: {error}")
    return replace(result, detail=f"{result.detail}; {describe(expected, found)}")


def get_expected(case: CommittedCase, committed: Sequence[CommittedCase]) -> Any:
    """Return the output of `steps` on the input of a pass.

    Raises:
        ModelError: it is not committed, and the model is not at hand.
    """
    for other in committed:
        if (other.suite, other.function, other.input) == (SUITE, STEPS, case.input) and other.output is not None:
            return other.output
    return SpecAnswerer().ask(SUITE, STEPS, case.id, case.input).output


def describe(expected: Any, found: Answer) -> str:
    """Return which step of a pass differs first."""
    if found.fault is not None:
        return f"no steps to compare: {found.fault}"
    if found.code is not None:
        lacks = "the client does not implement" if found.code == NOT_IMPLEMENTED else f"{found.code} is the answer of"
        return f"no steps to compare: {lacks} {SUITE}/{STEPS}"
    steps = expected["steps"]
    theirs = found.output.get("steps") if isinstance(found.output, dict) else None
    if not isinstance(theirs, list):
        return 'no steps to compare: the answer has no list "steps"'
    for number, step in enumerate(steps):
        place = f"layer {step['layer']}, step {step['step']} (step {number + 1} of {len(steps)})"
        if number >= len(theirs):
            return f"the client's steps end before {place}"
        if find_difference(step, theirs[number]) is not None:
            return f"first difference: {place}{_show_values(step, theirs[number])}"
    return "all steps are equal: the difference is in what is made of them (loss, trace, digest)"


def _show_values(step: dict[str, Any], theirs: Any) -> str:
    """Return the first value that differs, or what else does."""
    for part, words in (
        ("layer", "layer"),
        ("step", "step"),
        ("first", "in the first row"),
        ("last", "in the last row"),
    ):
        their = theirs.get(part) if isinstance(theirs, dict) else None
        pointer = find_difference(step[part], their)
        if pointer is not None:
            at = f" value {pointer[1:]}" if pointer else ""
            return f", {words}{at}: expected {look_up(step[part], pointer)}, found {look_up(their, pointer)}"
    return ": the values shown are equal, the digest of all differs"
