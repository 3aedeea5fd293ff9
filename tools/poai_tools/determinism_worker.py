"""One process of `poai bench determinism`: the exact engine under one BLAS kernel, alone with what it imports.

Reads a JSON object from standard input (`model`: path of a GGUF file; `tokens`, `scored`: the sequences; `rows`: pairs
of threads and batch size) and writes one line of JSON for each row. It imports neither the node nor anything that draws
tables, so that it also runs in a bare Python of another architecture under emulation.
"""

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from threadpoolctl import threadpool_info

from poai_engine.exact import ExactEngine
from poai_engine.gguf_file import read_gguf
from poai_engine.products import products_are_exact
from poai_spec.engine import Evaluation
from poai_spec.notation import Hash32, tagged_hash, uint64_le


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


def run_row(request: dict[str, Any], threads: int, batch: int) -> dict[str, Any]:
    """Load the model afresh, run it, and say which kernel did the work."""
    start = perf_counter()
    engine = ExactEngine(read_gguf(Path(request["model"])), threads)
    evaluations = run_batches(engine, request, batch)
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {
        "machine": platform.machine(),
        "kernel": str(blas[0].get("architecture") or blas[0]["internal_api"]) if blas else "none",
        "products": "float32" if products_are_exact() else "int64",
        "threads": threads,
        "batch": batch,
        "digest": compute_digest(engine.integer_model_root, evaluations).hex(),
        "seconds": perf_counter() - start,
    }


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    for threads, batch in request["rows"]:
        print(json.dumps(run_row(request, threads, batch)), flush=True)


if __name__ == "__main__":
    main()
