"""`poai bench`: what is not the measurement itself."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poai_bench import fidelity, prescreen, retarget_simulation
from poai_bench.fidelity import FidelityRow
from poai_bench.prescreen import Layers, Prediction
from poai_tools import cli


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["bench", *arguments])
    return result.exit_code, result.output


def test_prefix(tmp_path: Path) -> None:
    file = tmp_path / "prefix.json"
    status, output = run("prefix", "--model", "mini", "--count", "300", "--json", str(file))
    assert status == 0
    result = json.loads(file.read_text())
    assert result["quizzes"] == 300
    assert result["saving"]["8"] < 0.02 < result["saving"]["0"]
    assert f"{result['saving']['0']:.2%}" in output


def test_retarget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setattr(retarget_simulation, "run", lambda **given: found | given | {
        "searches": [], "convergence": {}})  # fmt: skip
    file = tmp_path / "retarget.json"
    assert run("retarget", "--periods", "7", "--climbs", "1", "--json", str(file))[0] == 0
    assert json.loads(file.read_text())["periods"] == 7


def test_fidelity_and_prescreen_write_what_they_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini_path: Path
) -> None:
    comparison = vars(FidelityRow(0.0123, 0.0011, 0.01, 0.5, 3.25, 0.96))
    measured = {"model": "m", "tokens": 9, "float64_mean_nll": 3.2, "exact": comparison, "llama_cpp": comparison,
                "types": {"Q8_0": comparison}, "saturations": {"act": 2}}  # fmt: skip
    layers = vars(Layers(0.01, 0.001, 0, 100.0))
    passes = [vars(Prediction("a pass", True, 0.4321, 100.0, 9.0, [0.1, 0.2, 0.3], 2.0, 0, 0)) | {"layers": layers}]
    screened = {"model": "m", "quizzes": 2, "positions": 64, "width": 8, "layers": 3, "passes": passes}
    monkeypatch.setattr(fidelity, "run", lambda *given: measured)
    monkeypatch.setattr(prescreen, "run", lambda *given: screened)
    for name, result, shown in (("fidelity", measured, "0.0123"), ("prescreen", screened, "0.4321")):
        file = tmp_path / name
        status, output = run(name, "--model", str(mini_path), "--json", str(file))
        assert status == 0
        assert shown in output
        assert json.loads(file.read_text()) == result


@pytest.mark.parametrize("command", ["fidelity", "prescreen", "prefix", "retarget"])
def test_a_bad_place_for_the_result_is_refused_at_once(command: str, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent" / "file"):
        assert run(command, "--json", str(place))[0] == 2
