"""Models as the node finds them: pinned ones, and a file of the user's own with llama.cpp's tokenizer."""

from dataclasses import replace
from pathlib import Path

import pytest

from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import sha256_file
from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import get_model_manifest
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.lexicon import compute_lexicon_digest, read_lexicon
from poai_spec.proof.work import check_engine
from poaid.errors import NodeError
from poaid.models import get_known_model, get_pinned_model, load_engine, locate_model
from poaid.network_file import Network, get_network, write_network


def test_a_pinned_model_by_name_and_by_path(mini_path: Path, tmp_path: Path) -> None:
    assert get_known_model("mini") == get_pinned_model("mini") == get_known_model(str(mini_path))
    assert get_known_model("mini").manifest == get_model_manifest("mini")
    with pytest.raises(Invalid, match="parameters/model-unpinned"):
        get_known_model("tinyllama")


def test_how_a_network_finds_its_model_again(
    network: Network, mini_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate_model(None, network.config.model) == "mini"
    assert locate_model("smollm2", network.config.model) == "smollm2"
    monkeypatch.chdir(mini_path.parent)
    assert locate_model(mini_path.name, network.config.model) == str(mini_path)
    with pytest.raises(ModelError, match=r"no model 'none\.gguf'"):
        locate_model("none.gguf", network.config.model)
    other = replace(network.config, model=replace(network.config.model, gguf_sha256=b"\x07" * 32))
    with pytest.raises(ModelError, match=f"no pinned one: give --model PATH, the file with SHA-256 {'07' * 32}"):
        locate_model(None, other.model)


def test_another_file_is_not_the_networks_model(network: Network, mini_path: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(mini_path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"changed\.gguf is not this network's model \(SHA-256 465be937"):
        load_engine(str(changed), get_rules(network.config, (), 0), 1)
    # A config that names the right file, but another root for its weights.
    other = replace(network.config, model=replace(network.config.model, integer_model_root=bytes(32)))
    with pytest.raises(Invalid, match="work/engine"):
        load_engine("mini", get_rules(other, (), 0), 1)


def rename_model(source: Path, target: Path, name: str) -> None:
    """Write a copy of a model with another `general.name`: the same weights under another SHA-256."""
    data, old = source.read_bytes(), b"poai-mini"
    assert data.count(old) == 1
    assert len(name) == len(old)
    target.write_bytes(data.replace(old, name.encode()))


@pytest.mark.llama
def test_a_model_of_ones_own(mini_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer of poai-mini gives the lexicon that is pinned; kept for the next start, made anew if damaged."""
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(tmp_path / "models"))
    own = tmp_path / "own.gguf"
    rename_model(mini_path, own, "my-modeli")
    digest = sha256_file(own)
    known = get_known_model(str(own))
    assert known.lexicon == read_lexicon("mini")
    assert known.manifest == replace(get_model_manifest("mini"), gguf_sha256=digest)
    assert known.manifest.questions_digest == compute_lexicon_digest(known.lexicon)
    assert known.lexicon_name == digest.hex()

    kept = tmp_path / "models" / "manifests"
    names = [f"{digest.hex()}.{ending}" for ending in ("lexicon.json", "w8a8-2.ssz")]
    assert sorted(path.name for path in kept.iterdir()) == names
    with monkeypatch.context() as patch:
        patch.setattr("poaid.models.make_lexicon", lambda path: pytest.fail("made twice"))
        assert get_known_model(str(own)) == known
    for path in kept.iterdir():
        good = path.read_bytes()
        path.write_bytes(good[:-3])
        assert get_known_model(str(own)) == known
        assert path.read_bytes() == good

    network = get_network("minimal", str(own))
    check_engine(load_engine(str(own), get_rules(network.config, (), 0), 1), get_rules(network.config, (), 0))
    write_network(network, tmp_path / "net.toml")
    assert (tmp_path / "net.lexicon.json").is_file()
    assert get_network(str(tmp_path / "net.toml")).config == network.config


@pytest.mark.llama
def test_a_model_folder_that_cannot_be_written(
    mini_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(tmp_path / "file"))
    own = tmp_path / "own.gguf"
    rename_model(mini_path, own, "my-modeli")
    with pytest.raises(NodeError, match="set POAI_MODEL_DIR to a folder that can be written"):
        get_known_model(str(own))
