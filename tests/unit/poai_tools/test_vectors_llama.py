"""Vectors of the profile llama.cpp: run where the fingerprint is equal, and skipped with a reason elsewhere."""

import sys
from pathlib import Path
from typing import Any

import pytest

from poai_engine.errors import ModelError
from poai_tools.vectors import files, llama
from poai_tools.vectors.check import SKIPPED, SpecAnswerer, find_reason_to_skip, read_file, run_cases
from poai_tools.vectors.models import find_missing
from poai_tools.vectors.serve import answer
from poai_tools.vectors.suites import llama_profile

FILE = Path(__file__).parents[3] / "test_vectors" / "llama_profile" / "run.json"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "get_own", lambda: llama.MADE_ON | {"libc": "musl 1.2", "machine": "riscv64"})


def test_every_case_says_where_it_was_made() -> None:
    cases = read_file(FILE)
    assert {case.input["model"] for case in cases} == set(llama.MODELS)
    assert all(case.input["fingerprint"] == llama.MADE_ON and case.result == "valid" for case in cases)
    assert all(len(case.output["trace"]) == 1 for case in cases)


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_they_are_skipped_with_what_differs() -> None:
    results = list(run_cases(read_file(FILE), SpecAnswerer(), slow=False, find_missing=find_missing))
    assert {result.status for result in results} == {SKIPPED}
    reason = "the profile llama.cpp is compared on equal machines only; here differs: machine, libc"
    assert {result.detail for result in results} == {reason}


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_generating_keeps_what_is_committed() -> None:
    made = dict(files.make_suite(FILE.parents[1], llama_profile.SUITE, slow=False, find_missing=find_missing))
    assert made["llama_profile/run.json"] == FILE.read_text()


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_our_client_does_not_answer() -> None:
    case = read_file(FILE)[0]
    assert answer("llama_profile", "run", case.input) == {"code": "client/not-implemented"}


def test_without_llama_cpp_they_are_skipped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setattr(llama, "get_own", llama.get_own.__wrapped__)
    reason = find_reason_to_skip(read_file(FILE)[0], slow=False, find_missing=find_missing)
    assert reason is not None
    assert "pip install 'poai[llama]'" in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": [905, 1]},
        {"tokens": [1] * 2049},
        {"scored": [0]},
        {"scored": [2, 1]},
        {"scored": [32]},
        {"scored": []},
    ],
)
def test_what_no_model_can_run_is_a_bad_request(changes: dict[str, Any]) -> None:
    data = read_file(FILE)[0].input | changes
    assert data["model"] == "mini"
    assert answer("llama_profile", "run", data) == {"code": "client/bad-request"}


@pytest.mark.llama
def test_a_pass_with_another_fingerprint_is_refused() -> None:
    with pytest.raises(ModelError, match="here differs: settings"):
        llama.run("mini", [1, 2, 3], [2], llama.get_own() | {"settings": "threads 64"})  # type: ignore[operator]
