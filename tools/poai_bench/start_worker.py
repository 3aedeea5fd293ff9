"""One start of an engine in a fresh process: `poai bench start`. Imports stand where they are timed."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from poai_bench.measure import serve


def start(
    kind: str, model: str, threads: int, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Import, load and run one quiz; return the seconds of each."""
    if kind == "exact":
        return _start_exact(Path(model), threads, tokens, scored)
    return _start_llama(Path(model), threads, tokens)


def _start_exact(
    model: Path, threads: int, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]
) -> dict[str, Any]:
    begin = perf_counter()
    from poai_engine.engines.exact import open_engine  # noqa: PLC0415

    imported = perf_counter()
    engine = open_engine(model, threads)
    loaded = perf_counter()
    engine.evaluate(tokens, scored)
    return {"import": imported - begin, "load": loaded - imported, "quiz": perf_counter() - loaded}


def _start_llama(model: Path, threads: int, tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
    begin = perf_counter()
    from llama_cpp import Llama  # noqa: PLC0415  checked by the bench

    imported = perf_counter()
    sizes = {"n_ctx": 256, "n_threads": threads, "n_threads_batch": threads}
    llama = Llama(str(model), n_gpu_layers=0, verbose=False, **sizes)
    loaded = perf_counter()
    llama.eval(list(tokens[0]))
    return {"import": imported - begin, "load": loaded - imported, "quiz": perf_counter() - loaded}


if __name__ == "__main__":
    serve({"start": start})
