"""Reading and writing files; imports nothing that takes time, so that a check begins at once."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from poai_tools.vectors.errors import VectorsError

FindMissing = Callable[[Mapping[str, Any]], str | None]
"""From a case's input to the reason why it cannot be run here, such as a model that is not at hand."""


def format_json(value: Any) -> str:
    """Return the text of a JSON file: indent 1, ASCII, fields in the order in which they were made."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        VectorsError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise VectorsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise VectorsError(f"{path} is no JSON ({error}): restore it, or run `poai vectors generate`") from error


def list_files(root: Path) -> list[Path]:
    """Return the files below a folder in order; hidden ones and what package managers and Python leave are left out."""
    skipped = {"node_modules", "__pycache__"}
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part in skipped or part.startswith(".") for part in path.relative_to(root).parts)
    )


def write(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        VectorsError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(part).chmod(0o644)
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError as error:
        raise VectorsError(f"{path} cannot be written: {error.strerror}") from error
