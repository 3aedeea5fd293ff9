"""What changes llama.cpp's bits: the profile's quizzes with other settings, or against another machine's results.

Exports: `run`, `compare_with`, `print_report`. The table of the page llama-profile is this module's output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from poai_bench.flags import LLAMA_BITS_QUIZZES
from poai_engine.engines.llama import LlamaEngine, LlamaSettings, get_fingerprint, score_rows
from poai_engine.errors import ModelError
from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.engine import Evaluation
from poai_spec.proof.quiz import Quiz, generate_quiz
from poaid.models import get_known_model

BITS = 1 << 16  # losses are Q16

Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """A way to run the quizzes that differs from the profile.

    Attributes:
        name: for people.
        settings: llama.cpp's settings.
        together: quizzes in one batch.
    """

    name: str
    settings: LlamaSettings
    together: int = 1


VARIANTS = (
    Variant("nothing (run again)", LlamaSettings()),
    *(Variant(f"{n} threads", LlamaSettings(threads=n)) for n in (2, 3, 8)),
    *(Variant(f"graphs of {n} positions at most", LlamaSettings(graph_tokens=n)) for n in (32, 7, 1)),
    *(Variant(f"{n} quizzes in a batch", LlamaSettings(), n) for n in (2, 4)),
    Variant("flash attention", LlamaSettings(flash_attention=True)),
    Variant("weights repacked for the CPU", LlamaSettings(repack=True)),
    Variant("file mapped into memory", LlamaSettings(memory_map=True)),
    Variant("key and value cache in F32", LlamaSettings(cache_type="F32")),
    Variant("logits of all positions", LlamaSettings(all_logits=True)),
)


@dataclass(frozen=True)
class BitDifference:
    """How the results of one variant differ from the profile's.

    Attributes:
        name: the variant's.
        quizzes: number of quizzes compared.
        other_bits: quizzes whose trace entry differs.
        other_loss: quizzes whose loss, in Q16, differs.
        largest_loss: largest difference of a loss, bits.
        largest_logit: largest difference of a scored logit; None where the logits are not at hand.
    """

    name: str
    quizzes: int
    other_bits: int
    other_loss: int
    largest_loss: float
    largest_logit: float | None


def make_quizzes(model: str, count: int) -> list[Quiz]:
    """Return quizzes of the preset testnet with a model's lexicon."""
    known = get_known_model(model)
    config = make_config("testnet", known.manifest)
    return [
        generate_quiz(keccak256(b"llama bits" + uint64_le(i)), get_rules(config, (), 0), known.lexicon)
        for i in range(count)
    ]


def run_variant(
    model: str, path: Path, variant: Variant, quizzes: Sequence[Quiz]
) -> tuple[list[NDArray[np.float32]], list[Evaluation]]:
    """Return the scored logits and the evaluation of each quiz."""
    engine = LlamaEngine(path, get_known_model(model).manifest, variant.settings)
    logits = []
    for at in range(0, len(quizzes), variant.together):
        some = quizzes[at : at + variant.together]
        logits += engine.compute_logits([q.tokens for q in some], [[t - 1 for t in q.scored] for q in some])
    engine.close()
    targets = ([quiz.tokens[t] for t in quiz.scored] for quiz in quizzes)
    return logits, [score_rows(rows, wanted) for rows, wanted in zip(logits, targets, strict=True)]


def describe_difference(name: str, ours: Sequence[Evaluation], others: Sequence[Evaluation]) -> BitDifference:
    """Compare evaluations of the same quizzes."""
    losses = [abs(a.loss - b.loss) for a, b in zip(ours, others, strict=True)]
    other_bits = sum(a.trace != b.trace for a, b in zip(ours, others, strict=True))
    return BitDifference(name, len(losses), other_bits, sum(d > 0 for d in losses), max(losses) / BITS, None)


def run(model: str, path: Path, count: int = LLAMA_BITS_QUIZZES, say: Say = lambda _: None) -> dict[str, Any]:
    """Run the quizzes with the profile's settings and with each variant.

    Args:
        model: its name or path, for its lexicon.
        path: its GGUF file.
        count: number of quizzes.
        say: takes one line of progress.

    Returns:
        `model`, `fingerprint`, `evaluations` (the profile's trace entry and negative log-likelihoods of each quiz) and
        `variants` (a `BitDifference` each).

    Raises:
        ModelError: llama-cpp-python is missing or of another version, or refuses the file.
    """
    quizzes = make_quizzes(model, count)
    say("the profile")
    logits, evaluations = run_variant(model, path, Variant("the profile", LlamaSettings()), quizzes)
    variants = []
    for variant in VARIANTS:
        say(variant.name)
        rows, found = run_variant(model, path, variant, quizzes)
        largest = max(float(np.abs(a - b).max()) for a, b in zip(logits, rows, strict=True))
        difference = describe_difference(variant.name, evaluations, found)
        variants.append(vars(difference) | {"largest_logit": largest})
    return {
        "bench": "llama-bits",
        "model": path.name,
        "fingerprint": get_fingerprint(LlamaSettings()),
        "evaluations": [{"entry": e.trace[0].hex(), "nlls": e.nlls} for e in evaluations],
        "variants": variants,
    }


def compare_with(result: dict[str, Any], other: Any, name: str) -> dict[str, Any]:
    """Add another machine's or build's result as a variant.

    Raises:
        ModelError: it is no result of this measurement, or of another model or number of quizzes.
    """
    try:
        same = other["model"] == result["model"] and len(other["evaluations"]) == len(result["evaluations"])
        pairs = [(e["entry"], tuple(map(int, e["nlls"]))) for e in other["evaluations"]]
        changed = [f"{k}: {v}" for k, v in other["fingerprint"].items() if v != result["fingerprint"][k]]
        theirs = [Evaluation(nlls, (bytes.fromhex(entry),)) for entry, nlls in pairs]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{name} is no result of `poai bench llama-bits --json` ({error!r})") from error
    if not same:
        raise ModelError(f"{name} is of another model or number of quizzes: give the same options")
    ours = [Evaluation(tuple(e["nlls"]), (bytes.fromhex(e["entry"]),)) for e in result["evaluations"]]
    title = f"{name} ({'; '.join(changed) or 'equal fingerprint'})"
    return result | {"variants": [*result["variants"], vars(describe_difference(title, ours, theirs))]}


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print what `run` or `compare_with` returned."""
    console = console or Console()
    for key, value in result["fingerprint"].items():
        console.print(f"{key:11} {value}", highlight=False, soft_wrap=True)
    table = Table("changed", "quizzes with other bits", "with another loss", "largest loss, bits", "largest logit")
    table.title = f"{result['model']}: {len(result['evaluations'])} quizzes, compared with the profile llama.cpp"
    for row in result["variants"]:
        logit = "-" if row["largest_logit"] is None else f"{row['largest_logit']:.2g}"
        counts = f"{row['other_bits']} of {row['quizzes']}", str(row["other_loss"])
        table.add_row(row["name"], *counts, f"{row['largest_loss']:.2g}", logit)
    console.print(table)
