"""What the commands of both programs share: help, version, and how they end: with a status, a line, or by a signal."""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from poai_engine.errors import make_line
from poaid.errors import EXPECTED, find_expected, get_exit_status
from poaid.process.entry import say_stopped
from poaid.process.logs import say_fatal


class Commands(TyperGroup):
    """Commands that a signal may stop; typer alone would say `Aborted.` and end with 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise typer.Exit(say_stopped(stop)) from None


def make_program(name: str, text: str) -> typer.Typer:
    """Return a program without commands.

    Help is plain text: rich's panels leave a third of 80 columns for what a flag means.

    Args:
        name: of the program.
        text: its help.
    """
    app = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"{name} {version('poai')}")
            raise typer.Exit

    @app.callback(help=text)
    def start(
        _: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
        ] = False,
    ) -> None: ...

    return app


def run_app(
    app: typer.Typer, arguments: Sequence[str], program: str, complete: Callable[[list[str]], list[str]] = list
) -> None:
    """Run a command; what is expected to go wrong ends it with one line.

    Args:
        app: the program.
        arguments: as they were given.
        program: its name.
        complete: adds to the arguments what they mean.
    """
    try:
        app(complete(list(arguments)), prog_name=program)
    except (*EXPECTED, ExceptionGroup) as error:
        expected = find_expected(error)
        if expected is None:
            raise
        say_fatal(make_line(str(expected)))
        sys.exit(get_exit_status(expected))
