"""`poai model`: what it prints, how it fails, and that the committed manifests are what it writes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poai_engine.models import lexicon_maker
from poai_engine.models.gguf_file import read_gguf, read_vocabulary
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import get_model_manifest, get_preset, read_manifest
from poai_spec.proof.lexicon import check_lexicon, read_lexicon
from poai_tools import cli, manifest

Run = Callable[..., tuple[int, str, str]]
MINI_DIGEST = read_manifest("mini")["gguf_sha256"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `poai` with arguments in an empty model folder: exit status, standard output, standard error."""
    monkeypatch.setenv("POAI_MODEL_DIR", str(tmp_path / "models"))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poai", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


def test_info_of_mini(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("model", "info", "mini")
    assert status == 0
    lines = {line[:28].rstrip(): line[29:] for line in out.splitlines()}
    assert lines["file"] == str(tmp_path / "models" / "poai-mini.gguf")
    assert lines["sha256"] == MINI_DIGEST
    assert lines["pinned as"] == "mini"
    assert lines["accepted"] == "True"
    status, out, _ = run("model", "info", "mini", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["integer_model_root"] == read_manifest("mini")["integer_model_root"]
    assert facts["tensors"] == {"BF16": 2, "F16": 1, "F32": 8, "Q4_0": 3, "Q4_1": 2, "Q4_K": 1, "Q5_0": 3, "Q5_1": 4,
                                "Q5_K": 1, "Q6_K": 1, "Q8_0": 4}  # fmt: skip
    assert facts["architecture"] | {"vocabulary": 0} == {
        "layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn_width": 256, "vocabulary": 0,
        "rope_base": facts["architecture"]["rope_base"], "epsilon": facts["architecture"]["epsilon"],
    }  # fmt: skip
    assert facts["saturated_embedding_entries"] == 0
    assert (facts["accepted"], facts["reason"]) == (True, None)


def test_info_of_a_refused_file(run: Run, mini_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(mini_path.read_bytes()[:1000])
    status, out, err = run("model", "info", path)
    assert (status, out.split()) == (1, ["file", str(path), "accepted", "False"])
    assert err.startswith(f"error: {path}: ends inside an array of")
    assert err.count("\n") == 1
    data = mini_path.read_bytes()
    path.write_bytes(data.replace(b"llama.rope.freq_base", b"llama.rope.something"))
    status, out, err = run("model", "info", path, "--json")
    facts = json.loads(out)
    assert (status, facts["accepted"], facts["bytes"]) == (1, False, len(data))
    assert facts["reason"].startswith("integer-model/unknown-key")
    assert err == f"error: {facts['reason']}\n"


def test_a_missing_model_and_wrong_usage(run: Run) -> None:
    status, out, err = run("model", "lexicon", "nowhere.gguf")
    assert (status, out) == (1, "")
    assert err == (
        "error: no model 'nowhere.gguf': give the path of a GGUF file or one of mini, micro, smollm2, tinyllama, "
        "tinyllama-shape\n"
    )
    assert run("model", "synthesize", "huge", "x.gguf")[0] == 2
    assert run("model", "fetch", "gpt5")[0] == 2
    assert run("model", "info")[0] == 2
    assert run("model", "unknown")[0] == 2


def test_synthesize_prints_the_digest(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "m.gguf"
    assert run("model", "synthesize", "mini", out) == (0, f"{MINI_DIGEST}  {out}\n", "")
    status, _, err = run("model", "synthesize", "mini", out / "x")
    assert (status, err.count("\n")) == (1, 1)
    assert "cannot be written" in err


def test_fetch_prints_the_path(run: Run, tmp_path: Path) -> None:
    assert run("model", "fetch", "mini") == (0, f"{tmp_path / 'models' / 'poai-mini.gguf'}\n", "")


def test_llama_cpp_never_sees_a_file_that_did_not_pass(
    run: Run, mini_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def see(path: Path) -> Any:
        raise AssertionError(f"llama.cpp was given {path}")

    monkeypatch.setattr(lexicon_maker, "make_lexicon", see)
    path = tmp_path / "repeated.gguf"
    path.write_bytes(mini_path.read_bytes().replace(b"<0x01>", b"<0x00>"))
    for command in (["lexicon", path], ["manifest", "x", path]):
        status, _, err = run("model", *command)
        assert status == 1
        assert "is empty, repeated" in err


@pytest.mark.llama
def test_the_pinned_manifest_of_mini_is_made_again(run: Run, mini_path: Path, tmp_path: Path) -> None:
    status, _, _ = run("model", "manifest", "mini", mini_path, "--out", tmp_path)
    assert status == 0
    check_equal_to_pinned("mini", tmp_path)
    status, out, _ = run("model", "lexicon", mini_path, "--name", "mini")
    assert out == (tmp_path / "mini.lexicon.json").read_text()


@pytest.mark.slow
@pytest.mark.llama
@pytest.mark.model
def test_the_pinned_manifest_of_smollm2_is_made_again(run: Run, smollm2_path: Path, tmp_path: Path) -> None:
    status, _, _ = run("model", "manifest", "smollm2-135m", smollm2_path, "--out", tmp_path)
    assert status == 0
    check_equal_to_pinned("smollm2-135m", tmp_path)


def check_equal_to_pinned(name: str, folder: Path) -> None:
    pinned = Path(__file__).parents[3] / "specs" / "manifests"
    for file in (f"{name}.json", f"{name}.lexicon.json"):
        assert (folder / file).read_text() == (pinned / file).read_text()


def test_a_vocabulary_alone_keeps_the_digests_of_the_weights(mini_path: Path) -> None:
    known = read_manifest("tinyllama-1.1b")
    made = manifest.pin_vocabulary(mini_path, "tinyllama-1.1b", read_lexicon("mini"))
    kept = ("name", "title", "file", "sources", "gguf_bytes", "gguf_sha256", "integer_model_root", "layer_count")
    assert {key: made[key] for key in kept} == {key: known[key] for key in kept}
    assert made["vocabulary_size"] == read_manifest("mini")["vocabulary_size"] != known["vocabulary_size"]


@pytest.mark.parametrize("name", ["mini", "micro", "smollm2-135m", "tinyllama-1.1b", "tinyllama-shape"])
def test_manifests_are_complete_and_fit_their_lexicons(name: str) -> None:
    data = read_manifest(name)
    assert data["name"] == name
    assert json.loads(manifest.format_manifest(data)) == data
    keys = ["name", "title", "file", "sources", "gguf_bytes", "gguf_sha256", "integer_model_root", "layer_count",
            "position_cost", "pair_cost", "scored_cost",
            "lexicon_digest", "vocabulary_size", "add_bos", "bos_id", "salt_ranges"]  # fmt: skip
    assert list(data) == keys
    if data["integer_model_root"] is not None:
        check_lexicon(read_lexicon(name), get_model_manifest(name))


def test_presets() -> None:
    assert get_preset("minimal").model.layer_count == 3
    assert get_preset("testnet").model.gguf_sha256.hex().startswith("b179c952")


def test_tinyllama_is_pinned_only_with_its_root() -> None:
    """Replace this test by `get_preset("mainnet")` once the root is in the manifest."""
    data = read_manifest("tinyllama-1.1b")
    assert data["gguf_sha256"].startswith("9fecc3b3")
    assert (data["gguf_bytes"], data["layer_count"], data["vocabulary_size"]) == (668_788_096, 22, 32_000)
    assert (data["add_bos"], data["bos_id"], data["salt_ranges"]) == (True, 1, [[259, 31_999]])
    assert data["integer_model_root"] is None
    with pytest.raises(Invalid, match="parameters/model-unpinned"):
        get_preset("mainnet")


@pytest.mark.slow
@pytest.mark.model
def test_info_of_smollm2(run: Run, smollm2_path: Path) -> None:
    status, out, _ = run("model", "info", smollm2_path, "--json")
    facts = json.loads(out)
    assert (status, facts["pinned_as"], facts["accepted"]) == (0, "smollm2", True)
    assert facts["integer_model_root"] == read_manifest("smollm2-135m")["integer_model_root"]
    assert facts["row_maximum_bits"] == [26, 30]
    assert len(read_gguf(smollm2_path).tensors) == sum(facts["tensors"].values())
    assert sum(facts["tokens"].values()) == len(read_vocabulary(smollm2_path).tokens)
