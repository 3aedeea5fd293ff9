"""How well a cheaper pass predicts what the trace commits to.

A miner who could guess the trace digest of a quiz from a cheaper pass would run the honest one only where the guess
wins. The digest covers a residual row after every block, and the quantised rows at the head's input, so the guess has
to hit every entry of all of them. This module runs cheaper passes over quizzes, rounds their rows as the page
`inference` does, and counts:

- m, the share of entries at the head's input that a pass predicts exactly (scale and value);
- the bits that a whole quiz would take if the entries of a position were hit independently, each with that position's
  own share: the least over the quizzes, and the least of one position;
- how the shares of positions spread: quartiles, and their variance over that of independent entries (1 if misses did
  not cluster);
- the rows of one position, and the quizzes, that it predicts as a whole;
- the same of the residual rows that the layers' entries hash: the shares after the first block and from the middle on,
  whole rows, and the bits of the cheapest layer.

Misses are *not* independent: those of one position come together. So the bits are a figure for comparing passes, not a
proof. What speaks directly are the whole rows: a quiz is all its rows, so a pass that predicts none of some thousand
rows is far from a quiz.

The passes: floating point with the file's weights; with the transformed int8 ones, in float32 and with activations in
bfloat16; the profile with 4-bit activations; the profile without the one block whose absence spoils the least. The last
pass rounds every row as the profile does, in float32; it multiplies as much as the honest pass, so it saves nothing,
and shows how little a slip is forgiven.

Exports: `run`, `print_report`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from poai_bench.flags import PRESCREEN_QUIZZES
from poai_bench.float_pass import FloatModel, Floats, compute_final_rows
from poai_engine.engines.array import ArrayEngine
from poai_engine.engines.array import quantise_rows as quantise
from poai_engine.models.gguf_file import read_gguf
from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.inference import ACTIVATION_LIMIT, ACTIVATION_Q, RESIDUAL_Q, rms_norm
from poai_spec.proof.quiz import generate_quiz
from poaid.models import get_known_model

ROUNDED = "all roundings of the rows, float32"
SCALE = 3
"""Entries of a row before its values: e1, e2 and f."""
Entries = NDArray[np.int64]  # per position the scale and the D values, shape (T, SCALE + D)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Layers:
    """How well a pass predicts the residual rows of the last position.

    Attributes:
        first: share of the entries after the first block.
        late: share of the entries after the blocks from the middle on.
        whole_rows: rows predicted as a whole.
        bits: `-sum log2` of the shares of one layer's entries, the least of all layers that a quiz has.
    """

    first: float
    late: float
    whole_rows: int
    bits: float


@dataclass(frozen=True)
class Prediction:
    """How well one pass predicts.

    Attributes:
        name: what it leaves out.
        cheaper: whether it saves work; the last pass does not, and is there for comparison.
        m: share of entries at the head's input predicted exactly.
        bits: `-sum of width * log2(share of the position)`, the least of all quizzes; no entry counts as half of one.
        row_bits: the same of the best position of all.
        quartiles: of the shares of positions.
        clustering: variance of the shares over that of independent entries.
        whole_rows: number of rows predicted as a whole.
        whole_quizzes: number of quizzes predicted as a whole.
        layers: of the residual rows.
    """

    name: str
    cheaper: bool
    m: float
    bits: float
    row_bits: float
    quartiles: Sequence[float]
    clustering: float
    whole_rows: int
    whole_quizzes: int
    layers: Layers | None = None


def quantise_rows(units: NDArray[np.int64]) -> Entries:
    """Quantise rows in Q16 as the page does."""
    scales, values = quantise(units)
    return np.concatenate([scales, values.astype(np.int64)], axis=1)


def compute_exact_entries(engine: ArrayEngine, tokens: tuple[int, ...]) -> tuple[Entries, Entries]:
    """Return what the honest pass commits to: the head's input, and the last residual row of each block, (L, D)."""
    residuals = [rows[0] for rows in engine.residuals([tokens])]
    gain, epsilon = tuple(engine.model.gains["output_norm.weight"].tolist()), engine.architecture.epsilon
    normed = [rms_norm(tuple(row), gain, epsilon) for row in residuals[-1].tolist()]
    return quantise_rows(np.asarray(normed, np.int64)), np.asarray([rows[-1] for rows in residuals])


def to_units(x: Floats, fraction: int) -> NDArray[np.int64]:
    """Round floats to fixed point."""
    return np.asarray(np.floor(x.astype(np.float64) * 2**fraction + 0.5), np.int64)


def predict_entries(finals: Sequence[Floats]) -> list[Entries]:
    """Return what a floating-point pass would commit to."""
    return [quantise_rows(to_units(x, ACTIVATION_Q)) for x in finals]


def count_bits(shares: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return `-width * log2(share)`; none of `width` entries counts as half of one."""
    return np.asarray(-width * np.log2(np.maximum(shares, 0.5 / width)))


def judge(name: str, predicted: list[Entries], exact: list[Entries], first: int, *, cheaper: bool) -> Prediction:
    """Compare, from position `first` on (the state of a constant BOS can be kept, so it counts for nothing)."""
    found = []
    for ours, theirs in zip(predicted, exact, strict=True):
        equal = ours[first:] == theirs[first:]
        found.append(equal[:, SCALE:] & equal[:, :SCALE].all(axis=1, keepdims=True))
    hits = np.asarray(found)
    shares, width, m = hits.mean(axis=2), hits.shape[2], float(hits.mean())
    bits = np.asarray([count_bits(quiz, width) for quiz in shares])
    quartiles = np.quantile(shares, (0.25, 0.5, 0.75)).tolist()
    spread = float(shares.var() / (m * (1 - m) / width)) if 0 < m < 1 else 1.0
    whole = np.all(hits, axis=2)
    return Prediction(
        name, cheaper, m, float(bits.sum(axis=1).min()), float(bits.min()), quartiles, spread,
        int(whole.sum()), int(whole.all(axis=1).sum()),
    )  # fmt: skip


def judge_layers(predicted: list[Entries], exact: list[Entries]) -> Layers:
    """Compare the last residual rows of all blocks, (L, D) a quiz."""
    hits = np.asarray(np.stack(predicted) == np.stack(exact))
    shares, width = hits.mean(axis=2), hits.shape[2]
    bits = min(float(count_bits(quiz, width).min()) for quiz in shares)
    late = shares[:, shares.shape[1] // 2 :]
    return Layers(float(shares[:, 0].mean()), float(late.mean()), int(hits.all(axis=2).sum()), bits)


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


def compute_rows(
    model: FloatModel, sequences: Sequence[Sequence[int]], skipped: int | None
) -> tuple[list[Floats], list[Entries]]:
    """Return a pass's head inputs, and what it would hash after each block, (L, D) a sequence."""
    lasts: list[list[Floats]] = []
    finals = compute_final_rows(model, sequences, skipped, lambda rows: lasts.append([x[-1] for x in rows]))
    return finals, [to_units(np.asarray(of_one), RESIDUAL_Q) for of_one in zip(*lasts, strict=True)]


def run(model: str, path: Path, quizzes: int = PRESCREEN_QUIZZES, say: Say = lambda _: None) -> dict[str, Any]:
    """Measure one model.

    Args:
        model: its name or path, for its lexicon.
        path: its GGUF file.
        quizzes: number of testnet quizzes.
        say: takes one line of progress.

    Returns:
        `positions` that count in a quiz, `width`, `layers`, `quizzes`, and `passes`, a list of `Prediction`.
    """
    gguf, known = read_gguf(path), get_known_model(model)
    config = make_config("testnet", known.manifest)
    seeds = (keccak256(b"prescreen" + uint64_le(i)) for i in range(quizzes))
    sequences = [generate_quiz(seed, get_rules(config, (), 0), known.lexicon).tokens for seed in seeds]
    engine, first = ArrayEngine(gguf), int(config.model.add_bos)
    exact, exact_layers = zip(*(compute_exact_entries(engine, tokens) for tokens in sequences), strict=True)
    integers = engine.model
    rounded = FloatModel(gguf, np.float32, integers=integers, limit=ACTIVATION_LIMIT)
    say("looking for the block that matters least")
    least = find_least_block(rounded, sequences[0], exact[0])
    passes = []
    for name, cheap_model, skipped in (
        ("float32, the file's weights", FloatModel(gguf, np.float32), None),
        ("float32, int8 weights", FloatModel(gguf, np.float32, integers=integers), None),
        ("bfloat16 activations, int8 weights", FloatModel(gguf, np.float32, integers=integers, bfloat16=True), None),
        ("4-bit activations", FloatModel(gguf, np.float32, integers=integers, limit=7), None),
        (f"block {least + 1} left out", rounded, least),
        (ROUNDED, rounded, None),
    ):
        say(name)
        finals, residuals = compute_rows(cheap_model, sequences, skipped)
        verdict = judge(name, predict_entries(finals), list(exact), first, cheaper=name != ROUNDED)
        passes.append(asdict(verdict) | {"layers": asdict(judge_layers(residuals, list(exact_layers)))})
    return {
        "model": path.name,
        "quizzes": quizzes,
        "positions": config.quiz_tokens - first,
        "width": engine.architecture.width,
        "layers": engine.layer_count,
        "passes": passes,
    }


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print what `run` returned."""
    console = console or Console()
    rows, quizzes = result["quizzes"] * result["positions"], result["quizzes"]
    table = Table(
        "pass", "m", "bits a quiz", "bits a row", "quartiles", "clustering", f"rows of\n{rows}", f"of {quizzes}"
    )
    table.title = f"{result['model']}: entries at the head predicted, {result['positions']} x {result['width']} a quiz"
    residual = Table(
        "pass", "after block 1", "from the middle on", "bits a layer", f"rows of {quizzes * result['layers']}"
    )
    residual.title = "entries of the layers' residual rows predicted"
    for p in result["passes"]:
        name = p["name"] if p["cheaper"] else f"{p['name']}\n(saves no work)"
        quartiles = " ".join(f"{share:.2f}" for share in p["quartiles"])
        table.add_row(name, f"{p['m']:.4f}", f"{p['bits']:,.0f}", f"{p['row_bits']:,.0f}", quartiles,
                      f"{p['clustering']:.0f}", str(p["whole_rows"]), str(p["whole_quizzes"]))  # fmt: skip
        of = p["layers"]
        residual.add_row(name, f"{of['first']:.3%}", f"{of['late']:.3%}", f"{of['bits']:,.0f}", str(of["whole_rows"]))
    console.print(table)
    console.print(residual)
    console.print("bits: as if the entries of a row were hit independently; they are not, so this only compares passes")
