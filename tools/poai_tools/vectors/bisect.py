"""Where a client's forward pass first leaves ours: its steps, compared layer by layer, then position by position.

A pass is causal: what it gives at a position depends on the tokens up to there alone. So where a step's digest differs
and the values shown do not, the same step on shorter and shorter beginnings of the tokens finds the position.
"""

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
    number = find_step(expected, found)
    where = ""
    if number is not None and not _show_values(expected["steps"][number], found.output["steps"][number]):
        where = locate_position(case, client, number)
    return replace(result, detail=f"{result.detail}; {describe(expected, found)}{where}")


def find_step(expected: Any, found: Answer) -> int | None:
    """Return the number of the first step that differs; None where there is nothing to compare, or no difference."""
    theirs = found.output.get("steps") if isinstance(found.output, dict) else None
    if not isinstance(theirs, list):
        return None
    pairs = enumerate(zip(expected["steps"], theirs, strict=False))
    return next((n for n, (ours, their) in pairs if find_difference(ours, their) is not None), None)


def locate_position(case: CommittedCase, client: Answerer, number: int) -> str:
    """Return the position at which a step of a pass first differs, as a part of a line."""
    tokens, shown = case.input["tokens"], ""
    equal, different = 1, len(tokens)
    while different - equal > 1:
        length = (equal + different) // 2
        data = case.input | {"tokens": tokens[:length], "scored": _cut_scored(case.input["scored"], length)}
        ours = SpecAnswerer().ask(SUITE, STEPS, case.id, data).output["steps"][number]
        found = client.ask(SUITE, STEPS, f"{case.path}/steps/{length}", data)
        theirs = found.output.get("steps") if isinstance(found.output, dict) else None
        if not isinstance(theirs, list) or number >= len(theirs):
            return f" (no steps for the first {length} tokens to find the position)"
        if find_difference(ours, theirs[number]) is None:
            equal = length
        else:
            different, shown = length, _show_values(ours, theirs[number])
    position = f"{different - 1}" if different > 2 else "0 or 1"
    return f" at position {position}{shown or ', in values that are not shown'}"


def _cut_scored(scored: Sequence[int], length: int) -> list[int]:
    """Return the scored positions of a beginning of the tokens; one at least."""
    return [t for t in scored if t < length] or [length - 1]


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
    return ""
