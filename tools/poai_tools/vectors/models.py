"""The models that vectors name, and which engine computes them.

nano and mini are small enough for the specification itself. The larger ones are run by the array engine; the
specification recomputes a sample of every step (`spot_check`).
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from poai_engine.engines.reference import ReferenceEngine
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import read_gguf, sha256_file
from poai_engine.models.model_names import MANIFESTS
from poai_engine.models.model_store import fetch_model, get_model_path, resolve_model
from poai_spec.basics.parameters import read_manifest
from poai_spec.model.weights import GgufFile
from poai_tools.vectors import llama
from poai_tools.vectors.kinds import Text
from poai_tools.vectors.nano import make_nano
from poai_tools.vectors.probe import ProbedEngine

SMALL = ("nano", "mini")
LARGE = {manifest: name for name, manifest in MANIFESTS.items() if manifest not in SMALL}
"""Name in the vectors (the manifest's) -> name in the model folder."""
MODEL = Text((*SMALL, *LARGE))
ENGINES = ("reference", "exact")
AnyEngine: TypeAlias = ReferenceEngine | ProbedEngine
_given: dict[str, Path] = {}
_chosen: dict[str, str] = {}


def choose_engine(name: str | None) -> None:
    """Run all models with one engine, `reference` or `exact`; None: each with its own.

    The reference engine refuses the large models: a pass would take hours.
    """
    assert name is None or name in ENGINES
    _chosen.clear()
    if name is not None:
        _chosen["engine"] = name


def use_file(path: Path) -> str:
    """Take a large model from a file instead of the model folder; return the model's name.

    Raises:
        ModelError: no file, or not one that a manifest pins.
    """
    digest = sha256_file(path)
    for name in LARGE:
        if bytes.fromhex(str(read_manifest(name)["gguf_sha256"]).removeprefix("0x")) == digest:
            _given[name] = path
            return name
    raise ModelError(
        f"{path} has SHA-256 {digest.hex()}, which none of {', '.join(LARGE)} has: give one of their files"
    )


def find_missing(data: Mapping[str, Any]) -> str | None:
    """Return why a case cannot be run here, from its input in JSON form; None if it can.

    tinyllama-shape is made where it is missing; its cases are marked slow. Cases with a fingerprint are run where it is
    equal.
    """
    model = data.get("model")
    if "fingerprint" in data and (reason := llama.find_difference(data["fingerprint"])):
        return reason
    if model not in LARGE or model in _given or model == "tinyllama-shape":
        return None
    path = get_model_path(LARGE[model])
    if path.is_file():
        return None
    return f"{model} is not at hand: run `poai model fetch {LARGE[model]}`"


def get_path(name: str) -> Path:
    """Return the GGUF file of any model but nano.

    Raises:
        ModelError: it has not been fetched.
    """
    if name == "tinyllama-shape" and name not in _given:
        return fetch_model(name, lambda _: None)
    return _given.get(name) or resolve_model(LARGE.get(name, name))


def is_large(name: str) -> bool:
    """Tell whether a model is run by the array engine and spot-checked."""
    return name in LARGE


@cache
def get_gguf(name: str) -> GgufFile:
    """Return a model as a GGUF reader hands it over."""
    return make_nano() if name == "nano" else read_gguf(get_path(name))


@cache
def _get_reference(name: str) -> ReferenceEngine:
    return ReferenceEngine(get_gguf(name))


@cache
def _get_small(name: str) -> ProbedEngine:
    return ProbedEngine(get_gguf(name))


@lru_cache(maxsize=1)
def _get_large(name: str) -> ProbedEngine:
    return ProbedEngine(get_gguf(name))


def get_exact(name: str) -> ProbedEngine:
    """Return the fast engines with a model; of the large ones only the last is kept."""
    return _get_large(name) if is_large(name) else _get_small(name)


def make_engine(gguf: GgufFile) -> AnyEngine:
    """Return a model that is given inline, in the chosen engine, by default the reference.

    Raises:
        Invalid: `integer-model/...` or `weights/...`.
    """
    return ProbedEngine(gguf) if _chosen.get("engine") == "exact" else ReferenceEngine(gguf)


def get_engine(name: str) -> AnyEngine:
    """Return a model loaded into the engine that computes its vectors.

    Raises:
        ModelError: the model is not at hand, or too large for the chosen engine.
    """
    engine = _chosen.get("engine", "exact" if is_large(name) else "reference")
    if engine == "reference" and is_large(name):
        raise ModelError(f"{name} would take the reference engine hours: leave --engine out, or take mini")
    return _get_reference(name) if engine == "reference" else get_exact(name)
