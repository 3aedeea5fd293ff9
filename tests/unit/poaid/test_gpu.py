"""`--gpu-layers` in the profile w8a8: one line where there is no GPU; the same chain where torch computes."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from poai_engine.engines import array as array_engine
from poai_engine.engines.devices import Device, open_torch
from poai_spec.chain.block import make_judge
from poai_spec.chain.upgrades import get_rules
from poaid.chain.verify import verify_store
from poaid.cli import main as cli
from poaid.models import load_engine
from poaid.store.database import Database
from tests.harness.node import ignore
from tests.unit.poaid.conftest import MinedChain

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def mine_on_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run `poaid mine --gpu-layers 1`, which has to fail; return its error line."""
    arguments = ["mine", "--network", "minimal", "--blocks", "1", "--data-dir", str(tmp_path), "--gpu-layers", "1"]
    monkeypatch.setattr(sys, "argv", ["poaid", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert mine_on_gpu(tmp_path, monkeypatch, capsys) == (
        "error: a GPU needs torch, which is not installed: pip install 'poai[gpu]', or leave --gpu-layers out"
    )


@needs_torch
def test_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = mine_on_gpu(tmp_path, monkeypatch, capsys)
    assert line.startswith("error: torch ")
    assert line.endswith(" finds no GPU: install its build for your GPU, or leave --gpu-layers out")


@needs_torch
def test_a_chain_is_verified_by_torch(mined: MinedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the GPU if there is one, else the same code on the CPU."""
    import torch

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    asked: list[str] = []

    def open_what_is_there(wanted: str) -> Device:
        asked.append(wanted)
        return open_torch(kind)

    monkeypatch.setattr(array_engine, "open_torch", open_what_is_there)
    engine = load_engine("mini", get_rules(mined.network.config, (), 0), None, gpu_layers=1)
    judge = make_judge(mined.network.config, mined.network.questions, engine)
    with Database.open(mined.folder) as store:
        state = verify_store(store, judge, mined.now, ignore)
    assert asked == ["cuda"]
    assert state == mined.state
