"""A client whose forward pass is wrong in one layer: the layer and the step are named."""

import sys
from pathlib import Path
from typing import Any

import pytest

from poai_tools.vectors.bisect import describe, get_expected, locate
from poai_tools.vectors.check import FAILED, CaseResult, CommittedCase, SpecAnswerer, judge, read_file
from poai_tools.vectors.client import BAD_REQUEST, NOT_IMPLEMENTED, Answer, Client

VECTORS = Path(__file__).parents[3] / "test_vectors"
RUNS = {case.id: case for case in read_file(VECTORS / "inference" / "run.json")}
STEPS = {case.id: case for case in read_file(VECTORS / "inference" / "steps.json")}
BROKEN = """
import json, sys
from dataclasses import replace
import poai_tools.vectors.suites
from poai_tools.vectors import models
from poai_tools.vectors.serve import answer
model = models.get_engine("mini").model
layers = list(model.layers)
matrix = getattr(layers[LAYER], MATRIX)
matrix = replace(matrix, multipliers=tuple(m + 9000 for m in matrix.multipliers))
layers[LAYER] = replace(layers[LAYER], **{MATRIX: matrix})
object.__setattr__(model, "layers", tuple(layers))
for line in sys.stdin:
    r = json.loads(line)
    print(json.dumps({"id": r["id"]} | answer(r["suite"], r["function"], r["input"])), flush=True)
"""

pytestmark = pytest.mark.sockets


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("layer", "matrix", "step"), [(0, "attn_v", "v"), (1, "ffn_up", "up"), (2, "attn_output", "attn_residual")]
)
def test_a_client_broken_in_one_layer_is_located(layer: int, matrix: str, step: str) -> None:
    case = RUNS["mini-twelve"]
    body = f"LAYER, MATRIX = {layer}, {matrix!r}\n{BROKEN}"
    with Client([sys.executable, "-c", body], timeout=60) as client:
        result = judge(case, client.ask(case.suite, case.function, case.id, case.input))
        assert result.status == FAILED
        detail = locate(result, client, list(STEPS.values())).detail
    assert detail.startswith(f"{result.detail}; first difference: layer {layer + 1}, step {step} (step ")
    assert "in the first row value " in detail


def change(number: int, **fields: Any) -> Answer:
    """Return the answer of a client whose step `number` of nano's pass has other fields."""
    steps = list(STEPS["nano-six"].output["steps"])
    steps[number] = steps[number] | fields
    return Answer(output={"steps": steps})


EXPECTED = STEPS["nano-six"].output
COUNT = len(EXPECTED["steps"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Answer(output=EXPECTED), "all steps are equal"),
        (
            change(0, digest="0x"),
            f"first difference: layer 0, step embedding (step 1 of {COUNT})",
        ),
        (change(1, first=[]), "layer 1, step attn_norm (step 2 of 18), in the first row value 0: expected "),
        (change(1, last=None), "in the last row: expected ["),
        (change(2, layer=7), "layer 1, step q (step 3 of 18), layer: expected 1, found 7"),
        (change(2, step="k"), 'step: expected "q", found "k"'),
        (Answer(output={"steps": EXPECTED["steps"][:4]}), "steps end before layer 1, step v (step 5 of 18)"),
        (Answer(output={"steps": [7]}), "layer 0, step embedding (step 1 of 18), layer: expected 0, found null"),
        (Answer(output=[]), "no list"),
        (Answer(output={"steps": {}}), "no list"),
        (Answer(code=NOT_IMPLEMENTED), "the client does not implement inference/steps"),
        (Answer(code=BAD_REQUEST), "client/bad-request is the answer of inference/steps"),
        (Answer(fault="it died"), "no steps to compare: it died"),
    ],
)
def test_what_a_client_answers_is_described(found: Answer, words: str) -> None:
    assert words in describe(EXPECTED, found)


class WrongFrom(SpecAnswerer):
    """A client whose step `number` is wrong from a position on, in values that are not shown, or in one that is."""

    def __init__(self, number: int, position: int, *, shown: bool) -> None:
        self.number, self.position, self.shown, self.asked = number, position, shown, 0

    def ask(self, suite: str, function: str, case_id: str, data: Any) -> Answer:
        self.asked += 1
        output = super().ask(suite, function, case_id, data).output
        if len(data["tokens"]) > self.position:
            step = output["steps"][self.number]
            step["digest"] = "0x" + "00" * 32
            if self.shown and len(data["tokens"]) == self.position + 1:
                step["last"] = [*step["last"][:2], step["last"][2] + 1, *step["last"][3:]]
        return Answer(output=output)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("number", "position", "shown"),
    [(0, 7, True), (0, 7, False), (4, 3, True), (20, 2, False), (9, 11, False), (3, 1, True)],
)
def test_the_position_of_a_difference_is_found_where_only_the_digest_differs(
    number: int, position: int, shown: bool
) -> None:
    case = STEPS["mini-twelve"]
    client = WrongFrom(number, position, shown=shown)
    detail = locate(CaseResult(case, FAILED, "wrong"), client, list(STEPS.values())).detail
    where = f" at position {position if position > 1 else '0 or 1'}"
    assert detail.endswith(f"{where}, in values that are not shown") is not shown
    assert f"{where}, in the last row value 2: expected " in detail or not shown
    assert client.asked <= 1 + 4


def test_only_failed_passes_are_located() -> None:
    case = RUNS["nano-one"]
    other = CommittedCase("drbg", "below", "a", (), {}, "valid", {}, None)
    with Client(["false"], timeout=1) as client:
        for result in (CaseResult(case, "passed"), CaseResult(other, FAILED, "no")):
            assert locate(result, client, []) == result


def test_steps_that_are_not_committed_are_computed() -> None:
    case = RUNS["nano-all"]
    steps = get_expected(case, [])["steps"]
    assert [step["step"] for step in steps] == [step["step"] for step in EXPECTED["steps"]]
    assert steps[-1]["first"] == [int(nll) for nll in case.output["nlls"][: len(steps[-1]["first"])]]
