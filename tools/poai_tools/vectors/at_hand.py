"""Which models are at hand: a case on another one is skipped with the line that says how to get it."""

import sys
from collections.abc import Mapping
from typing import Any

from poai_engine.model_store import fetch_model, get_model_path
from poai_engine.synthesize import SYNTHETIC_MODELS
from poai_tools.vectors.engines import STORED


def find_missing(data: Mapping[str, Any]) -> str | None:
    """Return why a case with this input cannot be run here, or None; a synthetic model is made first."""
    name = STORED.get(str(data.get("model")))
    if name is None or get_model_path(name).is_file():
        return None
    if name in SYNTHETIC_MODELS:
        fetch_model(name, lambda line: print(line, file=sys.stderr))
        return None
    return f"{data['model']} is not at hand: run `poai model fetch {name}`"
