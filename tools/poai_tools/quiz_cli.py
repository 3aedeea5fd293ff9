"""`poai quiz`: show a quiz, and what the model makes of it."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from poaid.errors import UsageError

if TYPE_CHECKING:
    from poai_engine.models.gguf_file import Vocabulary
    from poai_spec.basics.notation import Hash32
    from poai_spec.model.engine import Evaluation
    from poai_spec.proof.quiz import Quiz
    from poaid.network_file import Network

BITS = 1 << 16  # losses are Q16


def parse_seed(text: str | None) -> Hash32:
    """Return the 32 bytes of `--seed`, shorter ones filled up with zeros on the left; random without one.

    Raises:
        UsageError: no hexadecimal digits, or more than 64.
    """
    if text is None:
        return secrets.token_bytes(32)
    try:
        return int(text, 16).to_bytes(32, "big")
    except (ValueError, OverflowError):
        raise UsageError(f"--seed {text!r}: give up to 64 hexadecimal digits") from None


def show_quiz(
    network: Annotated[str, typer.Option(help="Preset or network file: the shape of the quiz.")] = "local",
    model: Annotated[str | None, typer.Option(help="mini, smollm2, tinyllama, or the path of a GGUF file.")] = None,
    seed: Annotated[str | None, typer.Option(help="Quiz seed, hexadecimal.  [default: random]")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.  [default: all; profile llama.cpp: 1]")
    ] = None,
    gpu_layers: Annotated[
        int, typer.Option(min=0, help="Not 0: run on a GPU; in the profile llama.cpp so many blocks.")
    ] = 0,
    test_corpus: Annotated[
        Path | None, typer.Option(help="Folder of *.txt files, a line question<TAB>answer each: the quizzes' source.")
    ] = None,
) -> None:
    """Show a quiz: questions, answers, tokens, the model's loss on each scored token, loss, digest and l_hat."""
    from poai_engine.models.gguf_file import read_vocabulary
    from poai_engine.models.model_store import resolve_model
    from poai_spec.proof.quiz import generate_quiz, get_quiz_name
    from poaid.models import load_engine, locate_model
    from poaid.network_file import get_network

    net, quiz_seed, console = get_network(network, model, corpus=test_corpus), parse_seed(seed), Console()
    quiz = generate_quiz(quiz_seed, net.get_rules(), net.questions)
    source = locate_model(model, net.config.model)
    with Console(stderr=True).status(f"loading the model {escape(source)}"):
        engine = load_engine(source, net.get_rules(), threads, gpu_layers, lambda line: print(line, file=sys.stderr))
    evaluation = engine.evaluate([quiz.tokens], [quiz.scored])[0]
    vocabulary = read_vocabulary(resolve_model(source))
    texts = [text.decode("utf-8", "replace") for text in vocabulary.tokens]
    console.print(f"[bold]quiz[/] {get_quiz_name(quiz.salt)}   [dim]seed 0x{quiz_seed.hex()}[/]", soft_wrap=True)
    console.print(_describe_questions(quiz, vocabulary), soft_wrap=True)
    console.print(describe_tokens(quiz, evaluation, texts))
    console.print(_describe_result(quiz, evaluation, net), soft_wrap=True)


def _describe_questions(quiz: Quiz, vocabulary: Vocabulary) -> Text:
    from poai_engine.models.corpus_maker import get_text

    lines = [("".join(question.prompt), "".join(question.answer)) for question in quiz.questions]
    lines += [(get_text(vocabulary, item.prompt), get_text(vocabulary, item.answer)) for item in quiz.items]
    out = Text()
    for prompt, answer in lines:
        out.append("  " + prompt).append(answer, "bold green").append("\n")
    return out


def describe_tokens(quiz: Quiz, evaluation: Evaluation, texts: list[str]) -> Table:
    table = Table("position", "token", "text", "loss, bits", "probability", title="scored tokens", title_justify="left")
    for position, nll in zip(quiz.scored, evaluation.nlls, strict=True):
        token = quiz.tokens[position]
        text = Text(repr(texts[token]))  # not a str: rich would read "[...]" in a token as mark-up
        row = (str(position), str(token), text, f"{nll / BITS:.3f}", f"{2.0 ** -(nll / BITS):.3%}")
        table.add_row(*row)
    return table


def _describe_result(quiz: Quiz, evaluation: Evaluation, net: Network) -> Text:
    from poai_spec.model.loss import compute_l_hat, compute_trace_digest

    digest = compute_trace_digest(evaluation.trace)
    l_hat, target = compute_l_hat(quiz.seed, evaluation.loss, digest), net.config.initial_target
    verdict = "wins" if l_hat < target else "does not win"
    rows = {
        "tokens": " ".join(map(str, quiz.tokens)),
        "loss": f"{evaluation.loss} ({evaluation.loss / BITS:.3f} bits)",
        "trace digest": f"0x{digest.hex()}",
        "l_hat": f"0x{l_hat:064x}",
        "initial target": f"0x{target:064x}: {verdict}",
    }
    return Text("\n").join(Text.assemble((f"{name:15}", "bold"), value) for name, value in rows.items())
