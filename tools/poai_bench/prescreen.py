"""How well a cheaper pass predicts what the trace commits to.

A miner who could guess the trace digest of a quiz from a cheaper pass would run the honest one only where the guess
wins. The digest covers the quantised rows at the head's input, so the guess has to hit every entry of every row. This
module runs cheaper passes over quizzes, rounds their rows as the page `inference` does, and counts:

- m, the share of entries that a pass predicts exactly (exponent and value);
- `-positions * width * log2 m`, the bits that a whole quiz would take if misses were independent;
- the rows of one position, and the quizzes, that it predicts as a whole.

Misses are *not* independent: the residuals of one position are wrong together, and an exponent that is off spoils its
whole row. So the bits are a figure for comparing passes, not a proof. What speaks directly are the whole rows: a quiz
is all its rows, so a pass that predicts none of some hundred rows is far from a quiz.

The passes: floating point with the file's weights and with the int8 ones; the profile with 8-bit activations; the
profile without the one block whose absence spoils the least. The last pass rounds every row as the profile does, in
float32; it multiplies as much as the honest pass, so it saves nothing, and shows how little a slip is forgiven.

Exports: `run`, `print_report`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf, log2
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from poai_bench.flags import PRESCREEN_QUIZZES
from poai_bench.float_pass import FloatModel, Floats, compute_final_rows
from poai_engine.engines.array import ArrayEngine
from poai_engine.models.gguf_file import read_gguf
from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.inference import ACTIVATION_BITS, quantise_row, rms_norm
from poai_spec.proof.quiz import generate_quiz
from poaid.models import get_known_model

ROUNDED = "all roundings of the rows, float32"
Entries = NDArray[np.int64]  # per position the exponent and the D values, shape (T, 1 + D)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Prediction:
    """How well one pass predicts.

    Attributes:
        name: what it leaves out.
        cheaper: whether it saves work; the last pass does not, and is there for comparison.
        m: share of entries predicted exactly.
        bits: `-positions * width * log2 m` of one quiz.
        whole_rows: number of rows predicted as a whole.
        whole_quizzes: number of quizzes predicted as a whole.
    """

    name: str
    cheaper: bool
    m: float
    bits: float
    whole_rows: int
    whole_quizzes: int


def quantise_rows(rows: "list[list[int]]") -> Entries:
    """Quantise rows in Q16 as the page does."""
    return np.asarray([[e, *a] for e, a in (quantise_row(tuple(row)) for row in rows)], np.int64)


def compute_exact_entries(engine: ArrayEngine, tokens: tuple[int, ...]) -> Entries:
    """Return what the honest pass commits to."""
    *_, last = engine.residuals([tokens])
    gain, epsilon = tuple(engine.model.gains["output_norm.weight"].tolist()), engine.architecture.epsilon
    return quantise_rows([list(rms_norm(tuple(row), gain, epsilon)) for row in last[0].tolist()])


def predict_entries(finals: list[Floats]) -> list[Entries]:
    """Return what a floating-point pass would commit to."""
    return [quantise_rows(np.floor(x.astype(np.float64) * 2**16 + 0.5).astype(np.int64).tolist()) for x in finals]


def judge(name: str, predicted: list[Entries], exact: list[Entries], first: int, *, cheaper: bool) -> Prediction:
    """Compare, from position `first` on (the state of a constant BOS can be kept, so it counts for nothing)."""
    hits = []
    for ours, theirs in zip(predicted, exact, strict=True):
        equal = ours[first:] == theirs[first:]
        hits.append(equal[:, 1:] & equal[:, :1])
    m = float(np.mean(hits))
    whole = np.all(hits, axis=2)
    bits = -whole.shape[1] * len(hits[0][0]) * log2(m) if m else inf
    return Prediction(name, cheaper, m, bits, int(whole.sum()), int(whole.all(axis=1).sum()))


def run_without_each_block(model: FloatModel, tokens: tuple[int, ...]) -> list[Floats]:
    """Return the final rows of the passes that leave out one block each, for one sequence.

    They run side by side: the pass without block n parts from the whole one at block n.
    """
    (whole,) = model.embed([tokens])
    variants: list[Floats] = []
    for block in model.blocks():
        variants = [*(block.run(x) for x in variants), whole]
        whole = block.run(whole)
    return [model.finish(x) for x in variants]


def find_least_block(model: FloatModel, tokens: tuple[int, ...], exact: Entries) -> int:
    """Return the block, from 0, whose absence spoils the fewest entries of the first half of one quiz."""
    half = len(tokens) // 2
    variants, exact = predict_entries(run_without_each_block(model, tokens[:half])), exact[:half]
    return max(range(len(variants)), key=lambda n: judge("", [variants[n]], [exact], 0, cheaper=True).m)


def run(model: str, path: Path, quizzes: int = PRESCREEN_QUIZZES, say: Say = lambda _: None) -> dict[str, Any]:
    """Measure one model.

    Args:
        model: its name or path, for its lexicon.
        path: its GGUF file.
        quizzes: number of testnet quizzes.
        say: takes one line of progress.

    Returns:
        `positions` that count in a quiz, `width`, `quizzes`, and `passes`, a list of `Prediction`.
    """
    gguf, known = read_gguf(path), get_known_model(model)
    config = make_config("testnet", known.manifest)
    seeds = (keccak256(b"prescreen" + uint64_le(i)) for i in range(quizzes))
    sequences = [generate_quiz(seed, get_rules(config, (), 0), known.lexicon).tokens for seed in seeds]
    engine, first = ArrayEngine(gguf), int(config.model.add_bos)
    exact = [compute_exact_entries(engine, tokens) for tokens in sequences]
    integers = engine.model
    rounded = FloatModel(gguf, np.float32, integers=integers, activation_bits=ACTIVATION_BITS)
    say("looking for the block that matters least")
    least = find_least_block(rounded, sequences[0], exact[0])
    passes = []
    for name, cheap_model, skipped in (
        ("float32, the file's weights", FloatModel(gguf, np.float32), None),
        ("float32, int8 weights", FloatModel(gguf, np.float32, integers=integers), None),
        ("8-bit activations", FloatModel(gguf, np.float32, integers=integers, activation_bits=7), None),
        (f"block {least + 1} left out", rounded, least),
        (ROUNDED, rounded, None),
    ):
        say(name)
        predicted = predict_entries(compute_final_rows(cheap_model, sequences, skipped))
        passes.append(judge(name, predicted, exact, first, cheaper=name != ROUNDED))
    return {
        "model": path.name,
        "quizzes": quizzes,
        "positions": config.quiz_tokens - first,
        "width": engine.architecture.width,
        "passes": [asdict(prediction) for prediction in passes],
    }


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print what `run` returned."""
    console = console or Console()
    rows = result["quizzes"] * result["positions"]
    table = Table("pass", "m", "bits a quiz", f"whole rows\nof {rows}", f"whole quizzes\nof {result['quizzes']}")
    table.title = f"{result['model']}: entries of the trace predicted, {result['positions']} x {result['width']} a quiz"
    for entry in result["passes"]:
        p = Prediction(**entry)
        name = p.name if p.cheaper else f"{p.name}\n(saves no work)"
        table.add_row(name, f"{p.m:.4f}", f"{p.bits:,.0f}", str(p.whole_rows), str(p.whole_quizzes))
    console.print(table)
    console.print(
        "bits: -positions * width * log2 m, as if misses were independent; they are not, so this only compares passes"
    )
