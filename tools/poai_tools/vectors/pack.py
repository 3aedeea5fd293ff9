"""The release archive of the vectors: the same bytes whenever and wherever it is packed.

A zip file without compression, because compressed bytes depend on the version of zlib. Paths are in order, times are
1980-01-01, modes 0644, and no name of a user or a machine goes in. Links out of the archive lead to the repository.
"""

import hashlib
import io
import posixpath
import re
import tomllib
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import poai_spec
from poai_engine.engines.exact import ExactEngine
from poai_tools.spec.places import VECTORS
from poai_tools.vectors.disk import format_json, list_files, read_json, write_bytes
from poai_tools.vectors.errors import VectorsError

FOLDERS = ("specs", VECTORS)
SINGLE = (
    "LICENSE",
    "docs/img/quiz-to-block.svg",
    "docs/implementing.md",
    "docs/mutants.md",
    "docs/rejection-codes.md",
    "docs/vectors-versioning.md",
)
LINK = re.compile(r"^```.*?^```|`+[^`]+`+|(\]\()([^)\s#]+)([^)\s]*\))", re.DOTALL | re.MULTILINE)
"""A fenced block or code, which hold no links, or the end of a link: `](`, its target, anchor and `)`."""
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


def link_outside(name: str, text: str, names: Collection[str], repository: str) -> str:
    """Return a page of the archive with its links to files outside it turned into links to the repository."""

    def turn(match: re.Match[str]) -> str:
        start, target, end = match.groups()
        if start is None or ":" in target:  # code, or a whole address
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if path in names or any(other.startswith(f"{path}/") for other in names):
            return match[0]
        return f"{start}{repository}/blob/v{poai_spec.__version__}/{path}{end}"

    return LINK.sub(turn, text)


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
    repository = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
    for name in content:
        if name.endswith(".md"):
            content[name] = link_outside(name, content[name].decode(), content, repository).encode()
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
