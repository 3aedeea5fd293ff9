"""The bench of forgeries: its headers pass every check but the replay, and its figures follow from what it measures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from poai_bench import forgery_bench, header_bench
from poai_bench.forgery_bench import describe, forge_loss
from poai_bench.measure import Spread
from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE
from poai_spec.basics.containers import Header, compute_block_hash
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.work import get_quiz_seed
from poai_tools import cli
from poaid.chain.header_check import check_encoded_header
from poaid.layout import encode_header

CONFIG = get_preset("testnet")


def make_header() -> tuple[Header, list[Header]]:
    *chain, header = header_bench.make_chain(CONFIG, 3)
    return header, chain


def test_a_forged_loss_passes_all_checks_before_the_replay() -> None:
    header, chain = make_header()
    forged = forge_loss(header, get_quiz_seed(header.core, chain, get_rules(CONFIG, (), 0)))
    assert forged is not None
    hashes = [compute_block_hash(each) for each in chain]
    assert check_encoded_header(encode_header(forged), chain, hashes, get_rules(CONFIG, (), 0), 10**15)[0] == forged
    if forged.loss:
        before = Header(forged.core, forged.loss - 1, forged.trace_digest)
        with pytest.raises(Invalid) as error:
            check_encoded_header(encode_header(before), chain, hashes, get_rules(CONFIG, (), 0), 10**15)
        assert error.value.code == "work/l-hat"


def test_a_hard_target_is_not_met_by_a_few_tries() -> None:
    header, chain = make_header()
    hard = Header(replace(header.core, target=1), 0, header.trace_digest)
    assert forge_loss(hard, get_quiz_seed(hard.core, chain, get_rules(CONFIG, (), 0)), 10) is None


def test_figures_follow_from_the_measurements() -> None:
    hashes, layer, replay = Spread.of([11.0]), Spread.of([0.5]), Spread.of([4.0])
    row = describe("testnet", "smollm2", CONFIG, hashes, layer, replay)
    assert row["keccaks"] == pytest.approx(22), "20 for the target, and two for another core"
    assert row["forger_s"] == pytest.approx(2)
    assert (row["layer_ratio"], row["replay_ratio"]) == pytest.approx((4, 0.5))
    assert (row["blocks_a_budget"], row["headers_a_budget"]) == (40, 5)


def test_the_command(mini_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(forgery_bench, "PRESETS", (("minimal", ("mini",)), ("mainnet", ("tinyllama",))))
    monkeypatch.setattr(forgery_bench, "QUICK_TRIES", 50)
    result = CliRunner().invoke(cli.app, ["bench", "forgery", "--quick", "--json", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "r").read_text())["results"]
    assert (row["preset"], row["model"]) == ("minimal", "mini"), "a preset whose model is not there is left out"
    assert row["keccaks"] == pytest.approx(6)
    assert 0 < row["layer_s"]["median"] < row["replay_s"]["median"]
    assert CliRunner().invoke(cli.app, ["bench", "show", str(tmp_path / "r")]).exit_code == 0
