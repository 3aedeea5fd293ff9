"""An explanation of a block as people read it, and the annotated hex dump.

Lines are not broken, so that what is printed into a file does not depend on a terminal; the tables have short cells.
"""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poai_tools.explain.checks import Check, ExplainedBlock
from poai_tools.explain.explanation import BITS, Explanation, QuestionRow, QuizPart, Replay, list_fields
from poai_tools.explain.fields import format_dump, lay_out

INDENT = " " * 14
STYLES = {"holds": "green", "broken": "bold red", "not applied": "dim"}
VERDICTS = {"Invalid": "refused for ever", "Malformed": "refused as it was sent", "NotYet": "put off"}
"""By error class: what a node does with such a block."""


def make_printable(value: Any) -> Any:
    """Return an explanation with every control character of its texts as an escape.

    Names and questions come with a chain's file, and a terminal would obey what stands in them.
    """
    if isinstance(value, str):
        return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)
    if isinstance(value, list | tuple):
        parts = map(make_printable, value)
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {make_printable(key): make_printable(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: make_printable(getattr(value, f.name)) for f in fields(value)})
    return value


def print_dump(subject: ExplainedBlock, data: bytes) -> None:
    """Print the bytes of a block or header, each field with its value, or with its meaning where it has no other."""
    rows = make_printable(list_fields(subject, data))
    layout = lay_out(type(subject.block or subject.header), data)
    for line in format_dump(list(layout), [row.value or row.meaning for row in rows]):
        print(line)


def print_explanation(e: Explanation) -> None:
    """Print everything about a block."""
    e = make_printable(e)
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text.assemble((e.origin, "bold"), f": {e.kind} of {e.size:,} bytes"))
    console.print(f"hash {e.hash}")
    if e.network is not None:
        console.print(Text("network {name}, profile {profile}, questions {questions}".format(**e.network)))
        console.print(Text("rules: {rules}".format(**e.network)))
    _print_fields(console, e)
    _print_steps(console, e)
    if e.quiz is not None and e.replay is not None:
        _print_quiz(console, e.quiz)
        _print_replay(console, e.replay)
    _print_checks(console, e.checks)
    console.print()
    console.print(_describe_verdict(e))
    if e.network is None:
        console.print("Say with --data-dir, --chain-file or --network where it stands, and the rest is explained too.")


def _print_title(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, "bold"))


def _print_fields(console: Console, e: Explanation) -> None:
    _print_title(console, "Bytes: offset, field, type, hexadecimal; what they say, and what the field is")
    width = max(len(row.name) for row in e.fields)
    for row in e.fields:
        console.print(Text.assemble(f"{row.offset:5}  ", (f"{row.name:{width}}", "bold"), f"  {row.type:8} {row.hex}"))
        meaning = f"({row.meaning})" if row.value else row.meaning
        console.print(Text.assemble(" " * 7, row.value, " " * bool(row.value), (meaning, "dim")))


def _print_steps(console: Console, e: Explanation) -> None:
    _print_title(console, "Derivation: value, what it is made of, page")
    for step in e.steps:
        console.print(Text.assemble((f"{step.name:13}", "bold"), " ", step.value))
        console.print(Text(f"{INDENT}{step.how}  {step.page}".rstrip(), "dim"))


def _print_quiz(console: Console, quiz: QuizPart) -> None:
    _print_title(console, f"Quiz {quiz.name}")
    for question in quiz.questions:
        console.print(_describe_question(question))
    console.print(f"tokens {' '.join(map(str, quiz.tokens))}")
    table = Table("position", "token", "text", "", "loss, bits", box=SIMPLE_HEAD, pad_edge=False)
    for row in quiz.scored:
        loss = "not run" if row.nll is None else f"{row.nll / BITS:.3f}"
        text = Text("" if row.text is None else repr(row.text))  # a token may look like mark-up
        table.add_row(str(row.position), str(row.token), text, "answer" if row.is_answer else "fills up", loss)
    console.print(table)


def _describe_question(question: QuestionRow) -> Text:
    end = ("   (its end is cut off)", "dim") if question.cut else ""
    return Text.assemble("  ", question.prompt, (question.answer, "bold green"), end)


def _print_replay(console: Console, replay: Replay) -> None:
    """Print the loss and the digest that the model gives, and those entries of the trace that are not as claimed."""
    _print_title(console, "Replay: value as the model gives it")
    if replay.reason:
        console.print(Text(f"not run: {replay.reason}", "yellow"))
        return
    for number, row in enumerate(replay.rows):
        differs = row.claimed not in (None, row.computed)
        if number < 2 or differs:
            console.print(Text.assemble((f"{row.name:13}", "bold"), " ", row.computed or "nothing"))
            claim = f"{row.claimed} is claimed" if differs else "as claimed"
            console.print(Text(INDENT + claim, "yellow" if differs else "dim"))


def _print_checks(console: Console, checks: list[Check]) -> None:
    if not checks:
        return
    _print_title(console, "Rules, in the order of checks")
    for check in checks:
        outcome = Text(f"{check.outcome:11}", STYLES[check.outcome])
        console.print(Text.assemble(f"{check.number:2} ", outcome, f" {check.code:30} ", (check.page, "dim")))
        said = check.detail or f"refuses: {check.meaning}"
        console.print(Text(INDENT + " " + said, "red" if check.outcome == "broken" else "dim"))


def _describe_verdict(e: Explanation) -> Text:
    if not e.checks:
        return Text("Genesis follows from the config: every node makes it, none sends it, and no rule is applied.")
    if e.verdict is not None:
        word = Text(VERDICTS[e.verdict.kind].capitalize(), "bold red")
        return Text.assemble(word, f" by rule {e.verdict.number}, {e.verdict.code}: {e.verdict.meaning}.")
    rest = sum(check.outcome == "not applied" for check in e.checks)
    return Text(f"No rule is broken: {len(e.checks) - rest} hold, {rest} were not applied.")
