"""Packed models kept on disk, so that only the first start converts a model's weights.

A kept model is an uncompressed .npz archive: `numpy.load` reads it too. It is mapped, not read: processes that run the
same model share its pages. Every member's CRC-32 is checked when it is opened; a damaged archive is made anew.
"""

import io
import mmap
import os
import struct
import tempfile
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.lib import format as npy
from numpy.typing import NDArray

from poai_engine.gguf_file import check_digest, read_gguf
from poai_engine.packed import PackedModel, Say, pack_model, pack_tensors
from poai_engine.tile import FOUR, PANEL
from poai_spec.integer_model import Architecture, read_architecture
from poai_spec.notation import Hash32
from poai_spec.weights import Float32

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


def get_cache_dir() -> Path:
    """Return the folder of kept models: `$POAI_CACHE_DIR`, else the platform's place for a user's caches."""
    override = os.environ.get(CACHE_DIR_VARIABLE)
    return Path(override).absolute() if override else platformdirs.user_cache_path("poai", appauthor=False) / "weights"


def open_packed_model(path: Path, digest: Hash32 | None = None, say: Say = lambda _: None) -> PackedModel:
    """Return a model file's integers, mapped from the cache; the first time they are made, which takes a while.

    Args:
        path: a GGUF file.
        digest: the SHA-256 of the network's model; None takes any file.
        say: takes one line of progress, or of what is wrong with the cache.

    Raises:
        ModelError: the file cannot be read, is damaged, or is another one.
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """
    kept = get_cache_dir() / f"{check_digest(path, digest).hex()}.{CACHE_VERSION}.npz"
    try:
        return _map(kept)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError as error:
        say(f"{kept} cannot be read ({error.strerror}): it is made anew")
    except (OSError, ValueError, KeyError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        say(f"{kept} is damaged ({error}): it is made anew")
    gguf = read_gguf(path)
    a = read_architecture(gguf)
    try:
        _write(kept, a, pack_tensors(gguf, a, KEPT_POSITIONS, say))
        return _map(kept)
    except OSError as error:
        say(f"{kept.parent} cannot keep the weights ({error.strerror}): set {CACHE_DIR_VARIABLE} to another folder")
        return pack_model(gguf)


def _describe(a: Architecture) -> NDArray[np.int64]:
    """Return an architecture as numbers; the floats as their bits."""
    numbers = a.layer_count, a.width, a.head_count, a.kv_head_count, a.head_dim, a.ffn_width, a.vocabulary_size
    return np.asarray([*numbers, a.rope_base.bits, a.epsilon.bits], np.int64)


def _write(kept: Path, a: Architecture, tensors: Any) -> None:
    """Write an archive under another name, and give it its own once it is whole and on disk."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(".part", PART_PREFIX, kept.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for member, array in (("architecture", _describe(a)), *tensors):
                    with archive.open(member + ".npy", "w", force_zip64=True) as out:
                        npy.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp's 0600 would keep other users of the folder out
            os.fsync(file.fileno())
        Path(name).replace(kept)
    finally:
        Path(name).unlink(missing_ok=True)
    _tidy(kept)


def _tidy(kept: Path) -> None:
    """Remove other versions of a kept model, and what a process that was killed has left half written."""
    for old in kept.parent.glob(f"{kept.name.partition('.')[0]}.*.npz"):
        if old != kept:
            old.unlink(missing_ok=True)
    for part in kept.parent.glob(f"{PART_PREFIX}*.part"):
        with suppress(FileNotFoundError):  # another process has just finished it
            if part.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                part.unlink()


def _map(kept: Path) -> PackedModel:
    """Map an archive and check it.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError, KeyError, struct.error, zipfile.BadZipFile, NotImplementedError: it is damaged.
    """
    with kept.open("rb") as file, zipfile.ZipFile(file) as archive:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        arrays = {info.filename.removesuffix(".npy"): _get_array(view, info) for info in archive.infolist()}
    layers, width, heads, kv_heads, head_dim, ffn, vocabulary, base, epsilon = arrays.pop("architecture").tolist()
    floats = Float32(base), Float32(epsilon)
    return PackedModel(Architecture(layers, width, heads, kv_heads, head_dim, ffn, vocabulary, *floats), arrays)


def _get_array(view: memoryview, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Return a member as an array over the mapping; a small one that is not aligned is copied."""
    name, extra = _LOCAL_HEADER.unpack(view[info.header_offset :][: _LOCAL_HEADER.size])
    data = view[info.header_offset + 30 + name + extra :][: info.file_size]
    if zlib.crc32(data) != info.CRC or len(data) != info.file_size:
        raise ValueError(f"{info.filename} does not have its checksum")
    head = io.BytesIO(data[: min(len(data), 1 << 12)])
    npy.read_magic(head)
    shape, by_columns, kind = npy.read_array_header_1_0(head)
    if by_columns:
        raise ValueError(f"{info.filename} is in column order")
    array = np.frombuffer(data, kind, offset=head.tell()).reshape(shape)
    return array if array.flags.aligned or array.nbytes > 1 << 20 else array.copy()
