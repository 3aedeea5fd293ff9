"""Compiled code kept on disk: Numba's own files, with a digest, and never in the way of running a model.

Numba believes what it finds. A file that was cut, emptied or zeroed ended every command until somebody removed it, a
full disk ended it, too, and changed machine code would have been run. Here a file begins with the SHA-256 of what
follows, and of which function and signature it is; whatever cannot be read is compiled anew, and whatever cannot be
written is compiled at each start.
"""

import hashlib
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

_DIGEST_BYTES = 32
_notices: dict[str, None] = {}  # a set that keeps its order: each is said once, however many functions it concerns

if numba.config.DISABLE_JIT:
    numba.config.DISABLE_JIT = 0  # the functions are right only as compiled loops of machine integers
    _notices["NUMBA_DISABLE_JIT is ignored: the engine runs as compiled code only"] = None


def take_notices() -> list[str]:
    """Return what went wrong with kept code since the last call, a line each."""
    lines = list(_notices)
    _notices.clear()
    return lines


class _CheckedFile(IndexDataCacheFile):  # type: ignore[misc]
    """An index of a function's signatures, and a file of code for each."""

    def load(self, key: Any) -> Any:
        """Return the code of a signature; None if it is not there or damaged."""
        name = self._load_index().get(key)
        found = None if name is None else self._read(self._data_path(name))
        return found[1] if found is not None and found[0] == key else None

    def save(self, key: Any, data: Any) -> None:
        """Keep the code of a signature, if there is room."""
        try:
            super().save(key, (key, data))
        except OSError as error:
            where = f"{self._cache_path} cannot keep the compiled code ({error.strerror})"
            _notices[f"{where}: it is compiled at each start; set NUMBA_CACHE_DIR to another folder"] = None

    def _load_index(self) -> dict[Any, str]:
        stamp, overloads = self._read(self._index_path) or (None, {})
        return overloads if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        with self._open_for_write(self._index_path) as file:
            file.write(self._dump((self._source_stamp, overloads)))

    def _dump(self, obj: Any) -> bytes:
        data: bytes = super()._dump(obj)
        return hashlib.sha256(data).digest() + data

    def _read(self, path: str) -> Any:
        """Return what a file holds; None if it is not there or damaged."""
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                digest, data = file.read(_DIGEST_BYTES), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            _notices[f"{self._cache_path}: kept code cannot be read ({error.strerror}): it is compiled anew"] = None
            return None
        if hashlib.sha256(data).digest() != digest:
            _notices[f"{self._cache_path}: kept code is damaged: it is compiled anew"] = None
            return None
        return pickle.loads(data)  # noqa: S301


class _CheckedCache(FunctionCache):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # Numba's version is in the name: what another one has pickled is not even opened.
        name = f"{self._impl.filename_base}-{numba.__version__}-sha256"
        self._cache_file = _CheckedFile(self._cache_path, name, self._impl.locator.get_source_stamp())


def compile_kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that holds no lock while it runs; the code is kept on disk for the next start.

    Where neither the package's folder nor the user's cache can be written to, as in some containers, nothing is kept.
    """
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # "no locator available": Numba found no folder that it may write to
        dispatcher._cache = _CheckedCache(function)
    return dispatcher  # type: ignore[no-any-return]


def is_kept(dispatcher: Any) -> bool:
    """Tell whether an earlier start has compiled a function, for whatever signature."""
    cache = dispatcher._cache
    return cache.cache_path is not None and os.path.exists(cache._cache_file._index_path)  # noqa: PTH110
