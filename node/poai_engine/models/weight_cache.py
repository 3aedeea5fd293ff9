"""Packed models kept on disk, so that only the first start converts a model's weights.

A kept model is an uncompressed .npz archive: `numpy.load` reads it too. It is mapped, not read: processes that run the
same model share its pages.

What is mapped decides which blocks are valid, so it is never believed. When a version of this program first maps an
archive, it computes the integer-model root from all that was mapped, compares it with the network's, and notes the
archive's SHA-256 beside it. Each later start computes that digest, and compares some rows with the model file. A note
or archive that others could have written counts for nothing: then the root is computed each time. Whatever is wrong,
the archive is made anew.
"""

import hashlib
import mmap
import os
import re
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from random import SystemRandom
from typing import IO, Any

import numpy as np
import platformdirs
from numpy.lib import format as npy
from numpy.typing import NDArray

from poai_engine.errors import ModelError
from poai_engine.kernels.tile import FOUR, PANEL
from poai_engine.models.gguf_file import check_digest, read_gguf
from poai_engine.models.packed import PackedModel, Say, check_arrays, check_row, pack_model, pack_tensors
from poai_spec.basics.notation import Hash32
from poai_spec.model.integer_model import Architecture, read_architecture
from poai_spec.model.weights import Float32

KEPT_POSITIONS = 128
"""Positions whose angles are kept: those of any preset's quiz. To make them takes 0.1 s for 64."""

PART_PREFIX = "poai-"
ABANDONED_SECONDS = 86_400
"""Age at which nobody writes to a `.part` file any more; a conversion takes minutes."""

CACHE_DIR_VARIABLE = "POAI_CACHE_DIR"
CACHE_VERSION = f"w8a8-1.{PANEL}.{FOUR}"
"""Profile, its version and the layout of the weights: another one is another file."""

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a zip member: lengths of the name and of the extra field behind the fixed 30 bytes (APPNOTE.TXT 4.3.7)."""
_ARRAY_HEADER = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': '(?P<kind>[<|](?:[iu][1248]|f[48]))', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9, ]*)\), \} *\n",
    re.DOTALL,
)
"""Of numpy.lib.format, as it writes it; its reader evaluates a damaged one as Python's source text."""
_DAMAGE = (OSError, ValueError, KeyError, struct.error, zipfile.BadZipFile, NotImplementedError)
_WRITABLE_BY_OTHERS = 0o022


def get_cache_dir() -> Path:
    """Return the folder of kept models: `$POAI_CACHE_DIR`, else the platform's place for a user's caches."""
    override = os.environ.get(CACHE_DIR_VARIABLE)
    return Path(override).absolute() if override else platformdirs.user_cache_path("poai", appauthor=False) / "weights"


def open_packed_model(
    path: Path, digest: Hash32 | None = None, say: Say = lambda _: None, root: Hash32 | None = None
) -> PackedModel:
    """Return a model file's integers, mapped from the cache; the first time they are made, which takes a while.

    Args:
        path: a GGUF file.
        digest: the SHA-256 of the network's model; None takes any file.
        say: takes one line of progress, or of what is wrong with the cache.
        root: the network's integer-model root; a kept model with another one is made anew.

    Raises:
        ModelError: the file cannot be read, is damaged, or is another one.
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """
    kept = _get_kept(check_digest(path, digest))
    try:
        model = _open_kept(kept, root, say)
        _check_rows(model, path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError as error:
        say(f"{kept} cannot be read ({error.strerror}): it is made anew")
    except _DAMAGE as error:
        say(f"{kept} is damaged ({error}): it is made anew")
    else:
        return model
    gguf = read_gguf(path)
    a = read_architecture(gguf)
    try:
        _write(kept, a, pack_tensors(gguf, a, KEPT_POSITIONS, say))
        return _open_kept(kept, None, say)
    except _DAMAGE as error:
        why = error.strerror if isinstance(error, OSError) else error
        say(f"{kept.parent} cannot keep the weights ({why}): set {CACHE_DIR_VARIABLE} to another folder")
        return pack_model(gguf)


def check_kept_model(path: Path, digest: Hash32, root: Hash32) -> Path:
    """Compute the root of all that is mapped for a model file, whatever was noted of it; return the kept file.

    Raises:
        ModelError: it differs from the network's, or cannot be read; it is to be removed.
    """
    kept = _get_kept(check_digest(path, digest))
    try:
        check_arrays(_map(kept)[0], root)
    except FileNotFoundError as error:
        raise ModelError(f"{kept} is not there: the weights are converted at each start") from error
    except _DAMAGE as error:
        raise ModelError(f"{kept} is damaged ({error}): remove it, and {_get_note(kept).name} beside it") from error
    return kept


def _get_kept(digest: Hash32) -> Path:
    return get_cache_dir() / f"{digest.hex()}.{CACHE_VERSION}.npz"


def _get_note(kept: Path) -> Path:
    """Return the file that says with which digest, and by which version, a kept model was found right."""
    return kept.with_suffix(".checked")


def _open_kept(kept: Path, root: Hash32 | None, say: Say) -> PackedModel:
    """Map a kept model and check it, at length unless this version has done so before.

    Raises:
        OSError and others, as `_map`; ValueError: its integers are others than the root says.
    """
    model, digest, own = _map(kept)
    if root is not None and model.root != root:
        raise ValueError("its root is not the network's")
    note, wanted = _get_note(kept), f"{metadata.version('poai')} {digest}\n"
    if not own or _read_note(note) != wanted:
        check_arrays(model, model.root)
        try:
            _write_whole(note, lambda file: file.write(wanted.encode()))
        except OSError as error:
            say(f"{note} cannot be written ({error.strerror}): the kept weights are checked at each start")
    return model


def _read_note(note: Path) -> str | None:
    """Return a note of this user's; None where there is none."""
    try:
        with note.open("rb") as file:
            return file.read(200).decode("ascii", "replace") if _is_own(file) else None
    except OSError:
        return None


def _is_own(file: IO[bytes]) -> bool:
    """Whether nobody else but the superuser can have written a file."""
    found = os.fstat(file.fileno())
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & _WRITABLE_BY_OTHERS


def _check_rows(model: PackedModel, path: Path) -> None:
    """Compare a row of every matrix, drawn anew at each start, with the model file."""
    gguf, random = read_gguf(path), SystemRandom()
    for name, matrix in model.matrices.items():
        check_row(matrix, gguf.tensors[name], random.randrange(matrix.outputs))


def _describe(a: Architecture) -> NDArray[np.int64]:
    """Return an architecture as numbers; the floats as their bits."""
    numbers = a.layer_count, a.width, a.head_count, a.kv_head_count, a.head_dim, a.ffn_width, a.vocabulary_size
    return np.asarray([*numbers, a.rope_base.bits, a.epsilon.bits], np.int64)


def _write(kept: Path, a: Architecture, tensors: Any) -> None:
    """Write an archive."""

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for member, array in (("architecture", _describe(a)), *tensors):
                with archive.open(member + ".npy", "w", force_zip64=True) as out:
                    npy.write_array(out, np.ascontiguousarray(array), allow_pickle=False)

    _write_whole(kept, write)
    _tidy(kept)


def _write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name, and give it its own once it is whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(".part", PART_PREFIX, path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp's 0600 would keep other users of the folder out
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _tidy(kept: Path) -> None:
    """Remove other versions of a kept model, and what a process that was killed has left half written."""
    for old in kept.parent.glob(f"{kept.name.partition('.')[0]}.*"):
        if old.suffix in (".npz", ".checked") and old not in (kept, _get_note(kept)):
            old.unlink(missing_ok=True)
    for part in kept.parent.glob(f"{PART_PREFIX}*.part"):
        with suppress(FileNotFoundError):  # another process has just finished it
            if part.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                part.unlink()


def _map(kept: Path) -> tuple[PackedModel, str, bool]:
    """Map an archive; return the model, the SHA-256 of all that was mapped, and whether it is this user's own.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError, KeyError, struct.error, zipfile.BadZipFile, NotImplementedError: it is damaged.
    """
    with kept.open("rb") as file, zipfile.ZipFile(file) as archive:
        own = _is_own(file)
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        arrays = {info.filename.removesuffix(".npy"): _get_array(view, info) for info in archive.infolist()}
    numbers = arrays.pop("architecture").reshape(-1)
    layers, width, heads, kv_heads, head_dim, ffn, vocabulary, base, epsilon = numbers.tolist()
    floats = Float32(base), Float32(epsilon)
    architecture = Architecture(layers, width, heads, kv_heads, head_dim, ffn, vocabulary, *floats)
    return PackedModel(architecture, arrays), hashlib.sha256(view).hexdigest(), own


def _get_array(view: memoryview, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Return a member as an array over the mapping; a small one that is not aligned is copied."""
    name, extra = _LOCAL_HEADER.unpack(view[info.header_offset :][: _LOCAL_HEADER.size])
    data = view[info.header_offset + 30 + name + extra :][: info.file_size]
    head = _ARRAY_HEADER.match(data[: min(len(data), 1 << 12)])
    if head is None:
        raise ValueError(f"{info.filename} does not begin as an array")
    shape = [int(length) for length in head["shape"].replace(b",", b" ").split()]
    array = np.frombuffer(data, head["kind"].decode(), offset=head.end()).reshape(shape)
    return array if array.flags.aligned or array.nbytes > 1 << 20 else array.copy()
