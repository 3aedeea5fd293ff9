"""Results of benches in files: what `--json` writes, and what is read again to draw, show or compare.

Exports: `write_result`, `read_result`, `DAMAGED`.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from poai_engine.errors import ModelError

DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What comes of working with a result that lacks something, or has something else there."""


def write_result(result: dict[str, Any], file: Path) -> None:
    """Write a result as JSON.

    Raises:
        ModelError: the file cannot be written.
    """
    try:
        file.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise ModelError(f"{file} cannot be written ({error.strerror}): choose another place with --json") from error


def read_result(file: Path, benches: Collection[str]) -> dict[str, Any]:
    """Return a result that `write_result` wrote.

    Args:
        file: where it is.
        benches: those whose results are wanted.

    Raises:
        ModelError: no such file, no JSON, or the result of another bench.
    """
    try:
        result = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no result of --json: {error}") from error
    if not isinstance(result, dict) or result.get("bench") not in list(benches):
        raise ModelError(f"{file} is no result of one of: {', '.join(benches)}")
    return result
