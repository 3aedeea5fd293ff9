"""`poaid doctor`: look at all that a node needs, and say what to do where something is missing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from poai_engine.errors import make_line
from poaid.api.asking import DEFAULT_HTTP_PORT
from poaid.cli.options import Model, Threads
from poaid.ports import P2P_PORT

if TYPE_CHECKING:
    from poaid.doctor import Finding

NAME_WIDTH = 11
LEVEL_WIDTH = 9


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the chain.  [default: none is examined]")] = None,
    network: Annotated[
        str | None, typer.Option(help="As for `poaid run`.  [default: the data directory's, else local]")
    ] = None,
    model: Model = None,
    p2p_port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port for peers.")] = P2P_PORT,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of page and API.")] = DEFAULT_HTTP_PORT,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of findings: name, level, text.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Compute the root of all kept weights, too, whatever was noted of them.")
    ] = False,
) -> None:
    """Examine machine, data directory, network and model; exit 1 if something would keep a node from running."""
    from poaid.doctor import Doctor, Inspected, Level

    subject = Inspected(data_dir, network, model, p2p_port, http_port, threads, full)
    findings = []
    for finding in Doctor(subject, lambda line: print(line, file=sys.stderr)).examine():
        findings.append(finding)
        if not as_json:
            show(finding)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    if any(finding.level is Level.FAILED for finding in findings):
        raise typer.Exit(1)


def show(finding: Finding) -> None:
    """Print a finding as one line."""
    from poaid.doctor import Level

    styles = {Level.OK: "green", Level.WARNING: "yellow", Level.UNKNOWN: "yellow", Level.FAILED: "bold red"}
    level = (finding.level.ljust(LEVEL_WIDTH), styles[finding.level])
    line = Text.assemble(finding.name.ljust(NAME_WIDTH), level, make_line(finding.text))
    Console(highlight=False).print(line, soft_wrap=True)
