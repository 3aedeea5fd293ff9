"""The profile llama.cpp in vectors: passes are run and compared only where the fingerprint is the one in the case."""

from collections.abc import Mapping, Sequence
from functools import cache

from poai_engine.engines.llama import LlamaEngine, LlamaSettings, get_fingerprint
from poai_engine.errors import ModelError
from poai_engine.models.model_store import resolve_model
from poai_spec.model.engine import Evaluation
from poai_tools.vectors.engines import STORED
from poai_tools.vectors.kinds import TEXT, KindError, RecordKind, find_fault
from poai_tools.vectors.network import get_manifest

MODELS = ("mini", "smollm2-135m")
MADE_ON = {
    "library": "llama-cpp-python 0.3.36",
    "machine": "x86_64",
    "features": "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | AVX512 = 1 | "
    "AVX512_VBMI = 1 | AVX512_VNNI = 1 | AVX512_BF16 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1",
    "compiler": "GCC: (Debian 12.2.0-14+deb12u1) 12.2.0",
    "libc": "glibc 2.36",
    "settings": "threads 1, gpu_layers 0, graph_tokens None, flash_attention False, repack False, memory_map False, "
    "cache_type F16, all_logits False",
}
"""The fingerprint of the machine and build that made the committed cases."""
FINGERPRINT = RecordKind(dict.fromkeys(MADE_ON, TEXT))


@cache
def get_own() -> dict[str, str] | ModelError:
    try:
        return get_fingerprint(LlamaSettings())
    except ModelError as error:  # llama-cpp-python is not installed, or another version
        return error


def find_difference(fingerprint: Mapping[str, str]) -> str | None:
    """Return why a pass with this fingerprint cannot be compared here, or None."""
    own = get_own()
    if isinstance(own, ModelError):
        return str(own)
    changed = [key for key in own if own[key] != fingerprint.get(key)]
    if not changed:
        return None
    return f"the profile llama.cpp is compared on equal machines only; here differs: {', '.join(changed)}"


@cache
def _get_engine(model: str) -> LlamaEngine:
    return LlamaEngine(resolve_model(STORED[model]), get_manifest(model))


def run(model: str, tokens: Sequence[int], scored: Sequence[int], fingerprint: Mapping[str, str]) -> Evaluation:
    """Run a pass with llama.cpp.

    Raises:
        KindError: not a sequence that the model can run.
        ModelError: the model or llama.cpp is not at hand, or the fingerprint is another machine's.
    """
    if fault := find_fault(tokens, scored, get_manifest(model).vocabulary_size):
        raise KindError(fault)
    if reason := find_difference(fingerprint):
        raise ModelError(reason)
    (evaluation,) = _get_engine(model).evaluate([tokens], [scored])
    return evaluation
