"""`poai bench llama-bits` on poai-mini: what it compares, and what it refuses to compare."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poai_bench import llama_bits
from poai_bench.llama_bits import VARIANTS, compare_with
from poai_engine.errors import ModelError
from poai_tools import cli

pytestmark = pytest.mark.llama
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mini_path: Path) -> Run:
    """Run `poai bench llama-bits` with poai-mini: exit status, standard output, standard error."""
    monkeypatch.setenv("POAI_MODEL_DIR", str(mini_path.parent))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poai", "bench", "llama-bits", "--model", "mini", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def result(mini_path: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POAI_MODEL_DIR", str(mini_path.parent))
        return llama_bits.run("mini", mini_path, 3)


def test_running_again_changes_nothing_and_another_cache_does(result: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in result["variants"]}
    assert list(rows) == [variant.name for variant in VARIANTS]
    again, cache = rows["nothing (run again)"], rows["key and value cache in F32"]
    assert (again["other_bits"], again["other_loss"], again["largest_loss"], again["largest_logit"]) == (0, 0, 0, 0)
    assert cache["other_bits"] == cache["quizzes"] == 3
    assert cache["largest_logit"] > 0
    assert len({evaluation["entry"] for evaluation in result["evaluations"]}) == 3


def test_another_result_is_compared_quiz_by_quiz(result: dict[str, Any]) -> None:
    other = json.loads(json.dumps(result))
    assert compare_with(result, other, "x")["variants"][-1] == {
        "name": "x (equal fingerprint)", "quizzes": 3, "other_bits": 0, "other_loss": 0, "largest_loss": 0.0,
        "largest_logit": None,
    }  # fmt: skip
    other["evaluations"][1]["entry"] = "00" * 32
    other["evaluations"][2]["nlls"][0] += 1 << 15
    other["fingerprint"]["libc"] = "musl"
    row = compare_with(result, other, "x")["variants"][-1]
    assert (row["name"], row["other_bits"], row["other_loss"], row["largest_loss"]) == ("x (libc: musl)", 1, 1, 0.5)


@pytest.mark.parametrize(
    "other", [[], {}, {"model": "m"}, {"model": 1, "evaluations": [{}], "fingerprint": {}}, "text", None]
)
def test_what_is_no_result_is_refused(result: dict[str, Any], other: Any) -> None:
    with pytest.raises(ModelError, match="x is no result of `poai bench llama-bits --json`"):
        compare_with(result, other, "x")


def test_a_result_of_other_quizzes_is_refused(result: dict[str, Any]) -> None:
    other = result | {"evaluations": result["evaluations"][:2]}
    with pytest.raises(ModelError, match="of another model or number of quizzes"):
        compare_with(result, other, "x")


def test_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_bits, "VARIANTS", VARIANTS[:1])
    file = tmp_path / "result.json"
    status, out, _ = run("--quizzes", 2, "--json", file)
    assert status == 0
    assert "0 of 2" in out
    status, out, _ = run("--quizzes", 2, "--compare", file)
    assert (status, "equal" in out) == (0, True)
    (tmp_path / "bad.json").write_text("{")
    for bad in (tmp_path / "absent.json", tmp_path / "bad.json"):
        status, _, err = run("--quizzes", 1, "--compare", bad)
        assert (status, "is no result of --json" in err) == (1, True)
