"""One process of `poai bench determinism`: one engine, compiled for one processor or over one BLAS kernel.

Reads a JSON object from standard input (`model`: path of a GGUF file; `tokens`, `scored`: the sequences; `engine`:
`exact` or `array`; `rows`: threads, batch size and whether the weights are made from the file, for each row) and writes
one line of JSON for each row. It imports neither the node nor anything that draws tables, so that it also runs in a
bare Python of another architecture under emulation.
"""

import json
import platform
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from numba.core.registry import cpu_target
from threadpoolctl import threadpool_info

from poai_engine.engines.array import ArrayEngine
from poai_engine.engines.exact import ExactEngine
from poai_engine.engines.products import products_are_exact
from poai_engine.kernels.tile import get_tile
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.weight_cache import get_cache_dir, open_packed_model
from poai_spec.basics.notation import Hash32, tagged_hash, uint64_le
from poai_spec.model.engine import Evaluation


def compute_digest(root: Hash32, evaluations: Sequence[Evaluation]) -> Hash32:
    """Return a digest of everything that an engine gives: the integers of its model, all losses and all traces."""
    parts = [uint64_le(nll) for found in evaluations for nll in found.nlls]
    return tagged_hash("PoAI/determinism/1", root, *parts, *(entry for found in evaluations for entry in found.trace))


def run_batches(engine: Any, request: dict[str, Any], batch: int) -> list[Evaluation]:
    """Run all sequences, `batch` at a time."""
    tokens, scored = request["tokens"], request["scored"]
    return [
        evaluation
        for at in range(0, len(tokens), batch)
        for evaluation in engine.evaluate(tokens[at : at + batch], scored[at : at + batch])
    ]


def get_target() -> str:
    """Return the processor that Numba hands to LLVM, and how the integer tiles are computed."""
    _, processor, _ = cpu_target.target_context.codegen().magic_tuple()
    return f"{processor} {get_tile()}"


def get_blas() -> str:
    """Return the kernel that the BLAS library has chosen, or the library's name where it has no such choice."""
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    name = str(blas[0].get("architecture") or blas[0]["internal_api"]) if blas else "none"
    return name if products_are_exact() else f"{name}, float64"


def open_exact(path: Path, threads: int, *, fresh: bool) -> tuple[ExactEngine, str]:
    """Return an engine, and where its weights came from: `fresh`, `made` and kept, `mapped`, or `memory`."""
    if fresh:
        return ExactEngine(read_gguf(path), threads), "fresh"
    before = set(get_cache_dir().glob("*.npz"))
    engine = ExactEngine(open_packed_model(path), threads)
    after = set(get_cache_dir().glob("*.npz"))
    return engine, "made" if after - before else "mapped" if after else "memory"


@cache
def open_array(path: Path) -> ArrayEngine:
    """Return an engine, loaded once: this one keeps nothing on disk."""
    return ArrayEngine(read_gguf(path))


def run_row(request: dict[str, Any], threads: int, batch: int, *, fresh: bool) -> dict[str, Any]:
    """Load the model, run it, and say what did the work."""
    start, path = perf_counter(), Path(request["model"])
    engine: ExactEngine | ArrayEngine
    if request["engine"] == "exact":
        engine, weights = open_exact(path, threads, fresh=fresh)
    else:
        engine, weights = open_array(path), "fresh"
        engine.threads = threads
    evaluations = run_batches(engine, request, batch)
    return {
        "engine": request["engine"],
        "machine": platform.machine(),
        "kernel": get_target() if request["engine"] == "exact" else get_blas(),
        "weights": weights,
        "threads": threads,
        "batch": batch,
        "digest": compute_digest(engine.integer_model_root, evaluations).hex(),
        "seconds": perf_counter() - start,
    }


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    for threads, batch, fresh in request["rows"]:
        print(json.dumps(run_row(request, threads, batch, fresh=fresh)), flush=True)


if __name__ == "__main__":
    main()
