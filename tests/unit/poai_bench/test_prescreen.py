"""A cheaper pass does not predict what the trace commits to."""

from math import log2
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from poai_bench import prescreen
from poai_bench.prescreen import judge, judge_layers


def test_judging_a_guess() -> None:
    exact = np.arange(28).reshape(2, 14)  # two positions: a scale of three numbers and eleven values
    guess = exact.copy()
    guess[0, 5] += 1  # one value wrong
    guess[1, 2] += 1  # a wrong scale spoils the row
    verdict = judge("", [guess, exact], [exact, exact], 0, cheaper=True)
    assert verdict.m == (10 + 0 + 22) / 44
    assert verdict.bits == 0  # of the quiz that is guessed as a whole
    assert verdict.quartiles == pytest.approx((0.75 * 10 / 11, (10 / 11 + 1) / 2, 1))
    assert verdict.clustering == pytest.approx(np.var([10 / 11, 0, 1, 1]) / (32 / 44 * 12 / 44 / 11))
    assert (verdict.whole_rows, verdict.whole_quizzes) == (2, 1)
    assert judge("", [exact], [exact], 0, cheaper=True).bits == 0
    alone = judge("", [guess], [exact], 0, cheaper=True)
    assert alone.bits == pytest.approx(-11 * log2(10 / 11) - 11 * log2(0.5 / 11))
    assert alone.row_bits == pytest.approx(-11 * log2(10 / 11))
    assert judge("", [guess], [exact], 1, cheaper=True).m == 0


def test_judging_a_guess_of_residuals() -> None:
    exact = np.arange(40).reshape(4, 10)  # four blocks
    guess = exact.copy()
    guess[0, :5] += 1
    guess[2, 0] += 1
    found = judge_layers([guess, guess + 1], [exact, exact])
    assert (found.first, found.whole_rows, found.bits) == (0.25, 2, 0)
    assert found.late == pytest.approx(19 / 40)


@pytest.mark.model
@pytest.mark.slow
def test_no_cheaper_pass_predicts_smollm2(smollm2_path: Path) -> None:
    result = prescreen.run(str(smollm2_path), smollm2_path, quizzes=2)
    assert (result["positions"], result["width"], len(result["passes"])) == (64, 576, 6)
    for entry in result["passes"]:
        assert 0.01 < entry["m"] < 0.75, entry
        assert entry["bits"] > 256, entry
        assert entry["layers"]["bits"] > 256, entry
        assert entry["whole_rows"] == entry["whole_quizzes"] == entry["layers"]["whole_rows"] == 0, entry
    assert [entry["cheaper"] for entry in result["passes"]] == [True] * 5 + [False]
    console = Console(record=True, width=140)
    prescreen.print_report(result, console)
    assert "4-bit activations" in console.export_text()
