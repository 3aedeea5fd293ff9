"""The numeric suites: poai-nano, the two probes, the spot check, committed results."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poai_engine.engines.reference import ReferenceEngine
from poai_engine.errors import ModelError
from poai_engine.models.exact_model import compute_exact_root, load_exact_model
from poai_engine.models.gguf_file import sha256_file
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import read_manifest
from poai_spec.model.inference import run_model
from poai_spec.model.loss import compute_layer_entry
from poai_tools.spec.pages import find_codes_in_table, list_pages
from poai_tools.vectors import model_kinds, models, spot_check
from poai_tools.vectors.kinds import KindError
from poai_tools.vectors.nano import make_nano_document
from poai_tools.vectors.registry import FUNCTIONS, call
from poai_tools.vectors.steps import STEPS, StepKind, compute_step_digest, get_values, run_spec_steps
from poai_tools.vectors.suites import SUITES, load_all

load_all()

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "test_vectors"
PASSES: list[tuple[str, list[int], list[int]]] = [
    ("nano", [7], []),
    ("nano", [3, 1, 4, 1, 5, 9, 2, 6], [1, 2, 7]),
    ("nano", [0, 15], [1]),
    ("mini", [1, 260, 904, 5, 17], [2, 4]),
    ("mini", [600], []),
]


def read_committed(suite: str, function: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((VECTORS / suite / f"{function}.json").read_text("utf-8"))
    return document


def test_nano_is_the_committed_file() -> None:
    assert json.loads((VECTORS / "models" / "nano.json").read_text("utf-8")) == make_nano_document()


def test_mini_is_the_committed_file() -> None:
    found = sha256_file(VECTORS / "models" / "poai-mini.gguf").hex()
    assert found == read_manifest("mini")["gguf_sha256"].removeprefix("0x")


@pytest.mark.parametrize(("model", "tokens", "scored"), PASSES)
def test_both_probes_give_the_same_steps(model: str, tokens: list[int], scored: list[int]) -> None:
    reference = ReferenceEngine(models.get_gguf(model))
    ours = list(run_spec_steps(reference.model, tokens, scored))
    theirs, evaluation = models.get_exact(model).observe(tokens, scored)
    assert [(step.layer, step.name) for step in theirs] == [(step.layer, step.name) for step in ours]
    for a, b in zip(ours, theirs, strict=True):
        assert [get_values(row) for row in b.rows] == [get_values(row) for row in a.rows], (a.layer, a.name)
        assert compute_step_digest(a) == compute_step_digest(b)
    assert evaluation == run_model(reference.model, tokens, scored)


@pytest.mark.parametrize(("model", "tokens", "scored"), PASSES)
def test_steps_end_in_what_the_pass_gives(model: str, tokens: list[int], scored: list[int]) -> None:
    """The steps are the specification's own pass: their residuals hash to its trace."""
    reference = ReferenceEngine(models.get_gguf(model))
    steps = list(run_spec_steps(reference.model, tokens, scored))
    found = run_model(reference.model, tokens, scored)
    entries = [compute_layer_entry(s.layer, get_values(s.rows[-1])) for s in steps if s.name == "residual"]
    assert tuple(entries) == found.trace[:-1]
    assert tuple(get_values(steps[-1].rows[0])) == found.nlls


def test_a_probed_engine_is_an_ordinary_one_afterwards() -> None:
    engine = models.get_exact("nano")
    steps, first = engine.observe([1, 2, 3], [2])
    count = len(steps)
    assert engine.evaluate([[1, 2, 3]], [[2]]) == [first]
    assert len(steps) == count


def spoil(step: StepKind) -> StepKind:
    """Return a step with every value one too large."""
    return replace(step, rows=[np.asarray(row) + 1 for row in step.rows])


@pytest.mark.parametrize("name", STEPS)
def test_the_spot_check_finds_a_wrong_step(name: str) -> None:
    engine, tokens, scored = models.get_exact("mini"), [1, 300, 40, 900, 7], [2, 4]
    steps, evaluation = engine.observe(tokens, scored)
    assert spot_check.check_steps(engine.model, tokens, scored, steps, evaluation) > 40 * 32
    at = max(n for n, step in enumerate(steps) if step.name == name and step.layer != 2)
    wrong = [*steps[:at], spoil(steps[at]), *steps[at + 1 :]]
    with pytest.raises(spot_check.SpotCheckError, match=re.escape(name)):
        spot_check.check_steps(engine.model, tokens, scored, wrong, evaluation)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_the_spot_check_finds_a_wrong_trace(at: int) -> None:
    engine, tokens, scored = models.get_exact("mini"), [1, 300, 40], [2]
    steps, evaluation = engine.observe(tokens, scored)
    trace = (*evaluation.trace[:at], bytes(32), *evaluation.trace[at + 1 :])
    with pytest.raises(spot_check.SpotCheckError, match=r"trace entry|output entry"):
        spot_check.check_steps(engine.model, tokens, scored, steps, replace(evaluation, trace=trace))


@pytest.mark.parametrize("part", ["q", "multipliers", "k", "gains", "embedding"])
def test_the_spot_check_finds_wrong_weights(part: str) -> None:
    gguf, model = models.get_gguf("mini"), models.get_exact("mini").model
    assert spot_check.check_weights("mini", gguf, model) > 100
    name = "blk.1.ffn_up.weight"
    matrix = model.matrices[name]
    wrong = {
        "q": lambda: replace(model, matrices=model.matrices | {name: replace(matrix, q=-matrix.q)}),
        "multipliers": lambda: replace(
            model, matrices=model.matrices | {name: replace(matrix, multipliers=matrix.multipliers + 1)}
        ),
        "k": lambda: replace(model, matrices=model.matrices | {name: replace(matrix, k=matrix.k + 1)}),
        "gains": lambda: replace(model, gains={n: gains + 1 for n, gains in model.gains.items()}),
        "embedding": lambda: replace(model, embedding=model.embedding + 1),
    }[part]()
    with pytest.raises(spot_check.SpotCheckError):
        spot_check.check_weights("mini", gguf, wrong)


@pytest.mark.parametrize("suite", ["fixed_point", "weights", "inference"])
def test_committed_results_are_of_their_kinds(suite: str) -> None:
    """The schema alone does not say that a decimal string is in its range."""
    for file in SUITES[suite].make_files():
        for case in read_committed(suite, file.function.name)["cases"]:
            file.function.input.from_json(case["input"], case["id"])
            if case["result"] == "valid":
                file.function.output.from_json(case["output"], case["id"])


@pytest.mark.parametrize("page", ["weights", "integer-model"])
def test_every_code_of_the_pages_is_hit(page: str) -> None:
    table = find_codes_in_table(list_pages(ROOT / "specs")[page].read_text("utf-8"))
    names = [file.function.name for file in SUITES["weights"].make_files()]
    found = {case.get("code") for name in names for case in read_committed("weights", name)["cases"]}
    assert table.keys() <= found


def test_the_exact_engine_judges_models_as_the_page_does() -> None:
    function = FUNCTIONS["weights", "make_integer_model"]
    for case in read_committed("weights", "make_integer_model")["cases"]:
        gguf = model_kinds.make_gguf(function.input.from_json(case["input"], case["id"])["gguf"])
        try:
            found = compute_exact_root(load_exact_model(gguf)).hex()
        except Invalid as error:
            found = error.code
        assert found == (case.get("code") or case["output"]["model"]["root"].removeprefix("0x")), case["id"]


def test_roots_are_those_of_the_manifests() -> None:
    cases = {case["input"]["model"]: case for case in read_committed("weights", "tensor_digests")["cases"]}
    assert cases.keys() == set(models.MODEL.choices)
    for name in models.LARGE:
        if cases[name]["result"] != "pending":
            root = str(read_manifest(name)["integer_model_root"]).removeprefix("0x")
            assert cases[name]["output"]["root"] == f"0x{root}", name


def test_runs_and_steps_are_of_one_pass() -> None:
    """The step `nlls` of a pass over a quiz's tokens is what `run` gives: one model, two functions."""
    case = next(c for c in read_committed("inference", "run")["cases"] if c["id"] == "mini-quiz-0")
    outcome = call(FUNCTIONS["inference", "steps"], case["input"])
    assert outcome.output is not None
    assert outcome.output["steps"][-1]["first"] == [int(nll) for nll in case["output"]["nlls"]][:8]


@pytest.mark.parametrize(
    ("function", "data"),
    [
        ("linear", {"k": 1, "multipliers": [1], "rows": [[1, 2]], "x": [1], "q_out": 16}),
        ("rms_norm", {"x": [1], "gains": [1, 2], "epsilon": 0x3727C5AC}),
        ("rms_norm", {"x": [1], "gains": [1], "epsilon": 0}),
        ("rotate", {"x": [1, 2, 3], "position": 0, "head_dim": 2, "base": 0x461C4000}),
        ("compute_scores", {"q": [1], "keys": [[1], [1, 2]], "scale": 1}),
        ("mix_values", {"scores": [1, 2], "values": [[1]]}),
        ("swiglu", {"g": [1], "u": [1, 2]}),
        ("compute_nll", {"logits": [1], "target": 1}),
        ("run", {"model": "nano", "tokens": [16], "scored": []}),
        ("run", {"model": "nano", "tokens": [1, 2], "scored": [0]}),
        ("steps", {"model": "nano", "tokens": [1, 2, 3], "scored": [2, 1]}),
    ],
)
def test_inputs_without_meaning_are_refused(function: str, data: dict[str, Any]) -> None:
    with pytest.raises(KindError):
        call(FUNCTIONS["inference", function], data)


def test_a_file_that_no_manifest_pins_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"other")
    with pytest.raises(ModelError, match="give one of their files"):
        models.use_file(path)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("function", ["tensor_digests", "steps", "run"])
def test_smollm2_by_the_exact_engine_and_the_spot_check(
    function: str, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_given", {"smollm2-135m": smollm2_path})
    suite = "weights" if function == "tensor_digests" else "inference"
    cases = [c for c in read_committed(suite, function)["cases"] if c["input"]["model"] == "smollm2-135m"]
    assert cases
    for case in cases:
        assert call(FUNCTIONS[suite, function], case["input"]).output == case["output"]


RAGGED = {
    "quantise_matrix": {"weights": [[1, 2], [3]]},
    "vectors_digest": {"name": "a", "vectors": [[1, 2], [3]]},
    "matrix_digest": {"matrix": {"name": "a", "k": 1, "multipliers": [1, 1], "rows": [[1, 2], [3]]}},
}


@pytest.mark.parametrize("function", RAGGED)
def test_rows_of_unequal_lengths_are_outside_the_domain(function: str) -> None:
    with pytest.raises(KindError, match="unequal lengths"):
        call(FUNCTIONS["weights", function], RAGGED[function])


def test_a_matrix_has_a_multiplier_a_row() -> None:
    matrix = {"name": "a", "k": 1, "multipliers": [1], "rows": [[1, 2], [3, 4]]}
    with pytest.raises(KindError, match="as many multipliers as rows"):
        call(FUNCTIONS["weights", "matrix_digest"], {"matrix": matrix})
