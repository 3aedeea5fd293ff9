"""How a command of either program ends: with its own status, with one line, or stopped by a signal."""

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from poai_engine.errors import make_line
from poaid.entry import say_stopped
from poaid.errors import EXPECTED, find_expected, get_exit_status


class Commands(TyperGroup):
    """Commands that a signal may stop; typer alone would say `Aborted.` and end with 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise typer.Exit(say_stopped(stop)) from None


def run_app(app: typer.Typer, arguments: Sequence[str], program: str) -> None:
    """Run a command; what is expected to go wrong ends it with one line."""
    try:
        app(list(arguments), prog_name=program)
    except (*EXPECTED, ExceptionGroup) as error:
        expected = find_expected(error)
        if expected is None:
            raise
        print(f"error: {make_line(str(expected))}", file=sys.stderr)
        sys.exit(get_exit_status(expected))
