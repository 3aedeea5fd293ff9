"""`poai explain`: one block, for somebody who sees one for the first time or whose program makes other ones."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape

from poai_engine.errors import ModelError
from poaid.errors import NodeError, UsageError

if TYPE_CHECKING:
    from poai_engine.models.gguf_file import Vocabulary
    from poai_spec.basics.notation import Milliseconds
    from poai_tools.explain.checks import ExplainedBlock, Place
    from poai_tools.explain.source import Found, KnownChain


class Source(NamedTuple):
    """A block that was found.

    Attributes:
        found: its bytes.
        place: where it stands; None if its parent is not known.
        model: where the model was found before; None if nobody said.
        now: the clock, ms since 1970.
    """

    found: Found
    place: Place | None
    model: str | None
    now: Milliseconds


def explain_block(
    block: Annotated[
        str | None,
        typer.Argument(
            help="Height, hash or its beginning, genesis, or the file of a block or header, SSZ or hexadecimal.  "
            "[default: the last one]"
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory that the block is in, or stands on.")] = None,
    chain_file: Annotated[Path | None, typer.Option(help="The same, of a file of `poaid export`.")] = None,
    vector: Annotated[
        str | None, typer.Option(help="Conformance vector, such as block/check_block/ninth or chain/verify_chain/long.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Preset or network file, if only genesis is known.")] = None,
    model: Annotated[str | None, typer.Option(help="mini, smollm2, tinyllama, or the path of a GGUF file.")] = None,
    as_hex: Annotated[bool, typer.Option("--hex", help="Only the bytes, annotated.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
    replay: Annotated[bool, typer.Option("--replay/--no-replay", help="Run the model, if it is at hand.")] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for the model.  [default: all]")] = None,
) -> None:
    """Explain a block: every field, how it was made, and each rule; exit 1 if one is broken."""
    from poai_tools.explain.checks import ExplainedBlock
    from poai_tools.explain.explanation import explain
    from poai_tools.explain.report import print_dump, print_explanation
    from poai_tools.explain.source import decode_found

    if as_hex and as_json:
        raise UsageError("give --hex or --json, not both")
    source = _find_source(block, data_dir, chain_file, vector, network, model)
    header, whole = decode_found(source.found)
    subject = ExplainedBlock(header, whole, source.place, source.now)
    if as_hex:
        print_dump(subject, source.found.data)
        return
    subject, vocabulary = _run_model(subject, model, source.model, threads, replay=replay)
    explanation = explain(subject, source.found.data, source.found.origin, vocabulary)
    if as_json:
        print(json.dumps(asdict(explanation), indent=1))
    else:
        print_explanation(explanation)
    if explanation.verdict is not None:
        raise typer.Exit(1)


# Finding the block and its model.


def _find_source(
    block: str | None, data_dir: Path | None, chain_file: Path | None, vector: str | None, network: str | None,
    model: str | None,
) -> Source:  # fmt: skip
    from poai_tools.explain.source import open_chain_file, open_data_dir, open_networks

    flags = {"--data-dir": data_dir, "--chain-file": chain_file, "--vector": vector, "--network": network}
    given = [flag for flag, value in flags.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} both say where the block stands: give one of them")
    if vector is not None:
        return _find_case(vector, block)
    if data_dir is not None:
        return _find_in([open_data_dir(data_dir)], block)
    if chain_file is not None:
        return _find_in([open_chain_file(chain_file)], block)
    return _find_in(open_networks(network, model), block)


def _find_case(vector: str, block: str | None) -> Source:
    from poai_tools.explain.source import read_case
    from poai_tools.vectors.errors import VectorsError
    from poai_tools.vectors.kinds import KindError

    try:
        case = read_case(vector, block)
    except VectorsError as error:
        raise NodeError(str(error)) from error
    except KindError as error:
        raise NodeError(f"{error}: run `poai vectors generate`") from error
    return Source(case.found, case.place, None, case.now)


def _find_in(known: list[KnownChain], block: str | None) -> Source:
    """Return a block of the first chain, or one of a file that stands on any of them."""
    from poai_tools.explain.source import decode_found, is_reference, read_file
    from poaid.produce.attempts import get_time

    chain = known[0]
    reference = block if block is not None else str(len(chain.main) - 1)
    found = chain.find(reference) if is_reference(reference) else read_file(Path(reference))
    header, whole = decode_found(found)
    for chain in known:
        if place := chain.find_place(header, whole):
            return Source(found, place, chain.model, get_time())
    return Source(found, None, None, get_time())


def _run_model(
    subject: ExplainedBlock, model: str | None, stored: str | None, threads: int | None, *, replay: bool
) -> tuple[ExplainedBlock, Vocabulary | None]:
    """Return the subject with what the model gives for its quiz, and the model's vocabulary; None if it was not run.

    Raises:
        ModelError: the file that the user named cannot be used.
    """
    from poai_engine.models.gguf_file import read_vocabulary
    from poai_engine.models.model_store import resolve_model
    from poai_tools.explain.explanation import find_quiz
    from poaid.models import load_engine, locate_model

    quiz = find_quiz(subject)
    if subject.place is None or quiz is None:
        return subject, None
    if not replay:
        return replace(subject, no_replay="left out by --no-replay"), None
    rules = subject.place.network.get_rules(len(subject.place.chain))
    try:
        name = locate_model(model or stored, rules.model)
        vocabulary = read_vocabulary(resolve_model(name))
        with Console(stderr=True).status(f"running the model {escape(name)}"):
            engine = load_engine(name, rules, threads, 0, lambda line: print(line, file=sys.stderr))
            (evaluation,) = engine.evaluate([quiz.tokens], [quiz.scored])
    except ModelError as error:
        if model is not None:
            raise
        return replace(subject, no_replay=f"the model is not at hand: {error}"), None
    return replace(subject, evaluation=evaluation), vocabulary
