"""The command `poai`. Wrong usage exits with 2, a failed check with 1 and one line that says what to do."""

import sys

from poai_bench import bench_cli
from poai_tools import model_cli, network_cli, quiz_cli
from poai_tools.explain import cli as explain_cli
from poai_tools.spec import cli as spec_cli
from poai_tools.vectors import cli as vectors_cli
from poaid.process.commands import make_program, run_app

app = make_program("poai", "Tools of Proof of AI: the specification, its vectors, and models.")
app.add_typer(bench_cli.app, name="bench")
app.add_typer(model_cli.app, name="model")
app.add_typer(network_cli.app, name="network")
app.add_typer(spec_cli.app, name="spec")
app.add_typer(vectors_cli.app, name="vectors")
app.command("explain")(explain_cli.explain_block)
app.command("quiz")(quiz_cli.show_quiz)


def main() -> None:
    """Run `poai`."""
    run_app(app, sys.argv[1:], "poai")
