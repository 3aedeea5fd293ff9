"""A cheaper pass does not predict what the trace commits to."""

from math import inf, log2
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from poai_bench import prescreen
from poai_bench.prescreen import judge


def test_judging_a_guess() -> None:
    exact = np.arange(24).reshape(2, 12)  # two positions: exponent and eleven values
    guess = exact.copy()
    guess[0, 3] += 1  # one value wrong
    guess[1, 0] += 1  # a wrong exponent spoils the row
    verdict = judge("", [guess, exact], [exact, exact], 0, cheaper=True)
    assert verdict.m == (10 + 0 + 22) / 44
    assert verdict.bits == pytest.approx(-22 * log2(verdict.m))
    assert (verdict.whole_rows, verdict.whole_quizzes) == (2, 1)
    assert judge("", [exact], [exact], 0, cheaper=True).bits == 0
    assert judge("", [guess], [exact], 1, cheaper=True).bits == inf


@pytest.mark.model
@pytest.mark.slow
def test_no_cheaper_pass_predicts_smollm2(smollm2_path: Path) -> None:
    result = prescreen.run(str(smollm2_path), smollm2_path, quizzes=2)
    assert (result["positions"], result["width"], len(result["passes"])) == (64, 576, 5)
    for entry in result["passes"]:
        assert 0.01 < entry["m"] < 0.75, entry  # measured: 0.05 to 0.50
        assert entry["bits"] > 256, entry
        assert entry["whole_rows"] == entry["whole_quizzes"] == 0, entry
    assert [entry["cheaper"] for entry in result["passes"]] == [True] * 4 + [False]
    console = Console(record=True, width=120)
    prescreen.print_report(result, console)
    assert "8-bit activations" in console.export_text()
