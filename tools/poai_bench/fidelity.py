"""How close the integer profile stays to the model: its losses, and llama.cpp's, against a float64 pass of the file.

Exports: `run`, `print_report`. The tokens are quizzes of the model's own lexicon and a text in several languages.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from poai_bench.engine_bench import list_types
from poai_bench.flags import FIDELITY_QUIZZES
from poai_bench.float_pass import FloatScores, compute_float_scores, score
from poai_engine.engines.array import ArrayEngine, compute_nlls
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import Vocabulary, read_gguf, read_vocabulary
from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.quiz import generate_quiz
from poaid.models import get_known_model

CHUNK_TOKENS = 256
NATS = np.log(2) / 2**16  # of one unit of a loss, which is in bits, Q16
NEED_LLAMA = "this compares with llama.cpp, which is not installed: pip install 'poai[llama]'"

Say = Callable[[str], None]


@dataclass(frozen=True)
class FidelityRow:
    """One way to run the model against the float64 pass.

    Attributes:
        mean_difference: mean |difference of the negative log-likelihood| per token, nats.
        standard_error: of that mean; a single token that goes another way moves the mean by thousandths.
        median_difference: the median of the same, nats.
        largest_difference: the largest one, nats.
        mean_nll: mean negative log-likelihood, nats.
        agreement: share of positions whose most likely token is the float64 pass's.
    """

    mean_difference: float
    standard_error: float
    median_difference: float
    largest_difference: float
    mean_nll: float
    agreement: float


def load_llama(path: Path) -> Any:
    """Open a model with llama.cpp: one thread, one batch, every logit kept.

    The file has passed `read_gguf` and `read_vocabulary`: llama.cpp ends the process on some that do not.

    Raises:
        ModelError: llama-cpp-python is not installed, or refuses the file.
    """
    try:
        from llama_cpp import Llama  # noqa: PLC0415  the extra is optional
    except ImportError as error:
        raise ModelError(NEED_LLAMA) from error
    threads = {"n_threads": 1, "n_threads_batch": 1}
    sizes = {"n_ctx": CHUNK_TOKENS, "n_batch": CHUNK_TOKENS, "n_ubatch": CHUNK_TOKENS}
    try:
        return Llama(str(path), n_gpu_layers=0, logits_all=True, verbose=False, **sizes, **threads)
    except (ValueError, OSError) as error:
        raise ModelError(f"llama.cpp cannot load {path.name}: {error}") from error


def make_sequences(llama: Any, model: str, vocabulary: Vocabulary, quizzes: int) -> list[list[int]]:
    """Return the token ids to measure on: quizzes, then the text in chunks, each with BOS where the model has one."""
    known = get_known_model(model)
    config = make_config("testnet", known.manifest)
    seeds = (keccak256(b"fidelity" + uint64_le(i)) for i in range(quizzes))
    sequences = [list(generate_quiz(seed, get_rules(config, (), 0), known.lexicon).tokens) for seed in seeds]
    text = (files("poai_bench") / "fidelity_text.txt").read_bytes()
    ids = llama.tokenize(text, add_bos=False, special=False)
    bos = [vocabulary.bos_id] if vocabulary.add_bos else []
    room = CHUNK_TOKENS - len(bos)
    return sequences + [bos + ids[at : at + room] for at in range(0, len(ids), room) if len(ids) - at > 1]


def score_exactly(engine: ArrayEngine, ids: Sequence[int]) -> FloatScores:
    """Return the exact pass's scores of one sequence; its own losses, in nats."""
    logits = engine.logits(ids, range(len(ids) - 1))
    nlls = compute_nlls(logits, np.asarray(ids[1:], np.int64))
    return FloatScores(np.asarray(nlls) * NATS, logits.argmax(axis=1))


def score_with_llama(llama: Any, ids: Sequence[int]) -> FloatScores:
    """Return llama.cpp's scores of one sequence."""
    llama.reset()
    llama.eval(list(ids))
    return score(llama.scores[: len(ids) - 1], ids)


def run_llama(path: Path, sequences: list[list[int]], kind: str, say: Say) -> list[FloatScores]:
    """Return llama.cpp's scores of all sequences with a file."""
    say(f"llama.cpp, {kind}")
    llama = load_llama(path)
    scores = [score_with_llama(llama, ids) for ids in sequences]
    llama.close()
    return scores


def compare(ours: list[FloatScores], oracle: list[FloatScores]) -> FidelityRow:
    """Compare the scores of one pass with the float64 pass's."""
    nlls, wanted = (np.concatenate([part.nlls for part in scores]) for scores in (ours, oracle))
    best, wanted_best = (np.concatenate([part.best for part in scores]) for scores in (ours, oracle))
    differences = np.abs(nlls - wanted)
    return FidelityRow(
        mean_difference=float(differences.mean()),
        standard_error=float(differences.std() / np.sqrt(len(differences))),
        median_difference=float(np.median(differences)),
        largest_difference=float(differences.max()),
        mean_nll=float(nlls.mean()),
        agreement=float((best == wanted_best).mean()),
    )


def run(
    model: str, path: Path, threads: int | None = None, quizzes: int = FIDELITY_QUIZZES, say: Say = lambda _: None
) -> dict[str, Any]:
    """Measure one model.

    Args:
        model: its name or path, for its lexicon.
        path: its GGUF file.
        threads: BLAS threads of the exact engine.
        quizzes: number of quizzes; the text comes on top.
        say: takes one line of progress.

    Returns:
        `tokens` (predicted ones), `sequences`, `float64_mean_nll`, nats, `exact` and `llama_cpp` (a `FidelityRow` each;
        llama.cpp with the file as it is), `types` (one for each of llama.cpp's types, requantised), `nlls`
        (each token's loss by pass, nats to four decimals), and `saturations`, the number of values that each clamp of
        the exact pass cut.

    Raises:
        ModelError: a damaged file, or llama-cpp-python is missing.
        Invalid: the model is outside the arithmetic.
    """
    gguf, vocabulary = read_gguf(path), read_vocabulary(path)
    llama = load_llama(path)
    sequences = make_sequences(llama, model, vocabulary, quizzes)
    llama.close()
    files = list_types(path, say)
    own = next(kind for kind, file in files.items() if file == path)
    by_type = {kind: run_llama(file, sequences, kind, say) for kind, file in files.items()}
    say("float64")
    oracle = compute_float_scores(gguf, sequences)
    say("exact")
    engine = ArrayEngine(gguf, threads, count_saturations=True)
    ours = [score_exactly(engine, ids) for ids in sequences]
    assert engine.saturations is not None
    passes = {"float64": oracle, "exact": ours, "llama_cpp": by_type[own]}
    nlls = {name: [round(float(nll), 4) for part in scores for nll in part.nlls] for name, scores in passes.items()}
    return {
        "bench": "fidelity",
        "model": path.name,
        "sequences": len(sequences),
        "tokens": sum(len(ids) - 1 for ids in sequences),
        "float64_mean_nll": float(np.concatenate([part.nlls for part in oracle]).mean()),
        "exact": asdict(compare(ours, oracle)),
        "llama_cpp": asdict(compare(by_type[own], oracle)),
        "types": {kind: asdict(compare(theirs, oracle)) for kind, theirs in by_type.items()},
        "saturations": dict(engine.saturations),
        "nlls": nlls,
    }


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print what `run` returned."""
    console = console or Console()
    table = Table("pass", "mean |difference|", "median", "largest", "mean loss", "same best token")
    table.title = f"{result['model']}: {result['tokens']} tokens against float64, nats a token"
    table.add_row("float64", "-", "-", "-", f"{result['float64_mean_nll']:.4f}", "-")
    types = {f"llama.cpp, {kind}": found for kind, found in result["types"].items()}
    for name, found in ({"exact, w8a8": result["exact"]} | types).items():
        c = FidelityRow(**found)
        mean = f"{c.mean_difference:.4f} +- {c.standard_error:.4f}"
        differences = mean, f"{c.median_difference:.4f}", f"{c.largest_difference:.3f}"
        table.add_row(name, *differences, f"{c.mean_nll:.4f}", f"{c.agreement:.1%}")
    console.print(table)
    cut = {name: count for name, count in result["saturations"].items() if count}
    console.print(f"values cut by a clamp of the exact pass: {cut or 'none'}")
