"""The integer profile against float64 and llama.cpp, on SmolLM2."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from poai_bench import fidelity
from poai_bench.float_pass import FloatModel, compute_final_rows, score
from poai_engine.engines.array import ArrayEngine
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import read_gguf


def test_scores() -> None:
    """Logits 0, 0 and ln 2: probabilities 1/4, 1/4, 1/2."""
    logits = np.log([[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]])
    scores = score(logits, [0, 1, 2])
    assert np.allclose(scores.nlls, [np.log(4), np.log(2)])
    assert scores.best.tolist() == [2, 2]


def test_float_pass_of_a_small_model(mini_path: Path) -> None:
    """poai-mini has other weights and other sizes: the two passes still agree to a few per cent of the rows' size."""
    gguf = read_gguf(mini_path)
    tokens = [3, 14, 15, 92, 65, 35, 89, 79]
    (final,) = compute_final_rows(FloatModel(gguf), [tokens])
    engine, model = ArrayEngine(gguf), FloatModel(gguf)
    exact = engine.logits(tokens, range(len(tokens))) / 2**16
    logits = final @ model.decode(model.head).T
    assert np.abs(exact - logits).max() < 0.1 * np.abs(logits).max()
    assert np.corrcoef(exact.ravel(), logits.ravel())[0, 1] > 0.995


def test_without_llama(monkeypatch: pytest.MonkeyPatch, mini_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    with pytest.raises(ModelError, match=r"pip install 'poai\[llama\]'"):
        fidelity.run("mini", mini_path)


@pytest.mark.model
@pytest.mark.llama
@pytest.mark.slow
def test_fidelity_on_smollm2(smollm2_path: Path) -> None:
    result = fidelity.run(str(smollm2_path), smollm2_path)
    assert result["tokens"] >= 2_000
    exact, llama = result["exact"], result["llama_cpp"]
    assert exact["mean_difference"] <= 0.12  # measured: 0.10
    assert result["types"].keys() == {"Q4_0", "Q4_1", "Q8_0"}
    assert result["types"]["Q4_1"] == llama
    assert llama["mean_difference"] <= 0.12  # measured: 0.075; a wrong oracle would be far from both
    assert exact["agreement"] >= 0.92
    assert llama["agreement"] >= 0.92
    assert abs(exact["mean_nll"] - result["float64_mean_nll"]) < 0.02
    assert set(result["saturations"]) >= {"linear", "rotated", "attn_v", "residual", "act"}
    assert not any(result["saturations"].values())
    console = Console(record=True, width=120)
    fidelity.print_report(result, console)
    assert f"{exact['mean_difference']:.4f}" in console.export_text()
