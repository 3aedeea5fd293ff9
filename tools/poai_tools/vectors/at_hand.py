"""Which models are at hand: a case on another one is skipped with the line that says how to get it."""

from collections.abc import Mapping
from typing import Any

from poai_engine.model_store import MANIFESTS, get_model_path

FETCHED = {manifest: name for name, manifest in MANIFESTS.items() if manifest in ("smollm2-135m", "tinyllama-1.1b")}
"""Model in a case -> name for `poai model fetch`. The others are in `test_vectors/models/` or made on demand."""


def find_missing(data: Mapping[str, Any]) -> str | None:
    """Return why a case with this input cannot be run here, or None."""
    name = FETCHED.get(str(data.get("model")))
    if name is None or get_model_path(name).is_file():
        return None
    return f"{data['model']} is not at hand: run `poai model fetch {name}`"
