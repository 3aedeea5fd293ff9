"""The release archive of the vectors: the same bytes whenever and wherever it is packed.

A zip file without compression, because compressed bytes depend on the version of zlib. Paths are in order, times are
1980-01-01, modes 0644, and no name of a user or a machine goes in.
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import poai_spec
from poai_engine.exact import ExactEngine
from poai_tools.places import VECTORS
from poai_tools.vectors.disk import format_json, list_files, read_json, write_bytes
from poai_tools.vectors.errors import VectorsError

FOLDERS = ("specs", VECTORS)
SINGLE = ("LICENSE", "docs/implementing.md", "docs/vectors-versioning.md")
TIME = (1980, 1, 1, 0, 0, 0)
MODEL_FIELDS = ("gguf_sha256", "integer_model_root", "lexicon_digest")


def collect(root: Path) -> dict[str, bytes]:
    """Return the archive's files but the manifest, by path, in order.

    Raises:
        VectorsError: a file is missing.
    """
    paths = [root / name for name in SINGLE]
    for folder in FOLDERS:
        paths += list_files(root / folder)
    content = {}
    for path in paths:
        try:
            content[path.relative_to(root).as_posix()] = path.read_bytes()
        except OSError as error:
            raise VectorsError(f"{path} cannot be read ({error.strerror}): restore it") from error
    if f"{VECTORS}/codes.json" not in content:
        raise VectorsError(f"{root / VECTORS} holds no vectors: run `poai vectors generate`")
    return dict(sorted(content.items()))


def make_manifest(root: Path, content: dict[str, bytes]) -> dict[str, Any]:
    """Return `manifest.json`: version, profile, pinned models, and the SHA-256 of every file."""
    models = {}
    for path in sorted((root / "specs" / "manifests").glob("*.json")):
        if not path.name.endswith(".lexicon.json"):
            manifest = read_json(path)
            models[manifest["name"]] = {field: manifest[field] for field in MODEL_FIELDS}
    return {
        "format": 1,
        "version": poai_spec.__version__,
        "profile": ExactEngine.profile.decode(),
        "models": models,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    }


def make_archive(root: Path) -> bytes:
    """Return the archive of a checkout.

    Raises:
        VectorsError: a file is missing.
    """
    content = collect(root)
    manifest = format_json(make_manifest(root, content)).encode()
    folder = f"poai-vectors-{poai_spec.__version__}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"manifest.json": manifest, **content}.items():
            entry = zipfile.ZipInfo(f"{folder}/{name}", TIME)
            entry.create_system = 3  # Unix, so that the mode counts
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def write_archive(root: Path, path: Path) -> str:
    """Write the archive; return its SHA-256."""
    data = make_archive(root)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()
