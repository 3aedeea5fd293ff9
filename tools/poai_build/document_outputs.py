"""The outputs of commands in documents: run anew, and written in the place of the old ones.

A fence marked `console` may hold lines `$ poai ...`, each with its output below.
`python -m poai_build.document_outputs` writes what the commands print now; a test compares.
"""

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from poai_tools.cli import app
from poai_tools.spec.cli import fail
from poai_tools.spec.places import NO_CHECKOUT, find_checkout

DOCUMENTS = ("docs/blocks-in-hex.md", "docs/tutorial.md")
FENCE = re.compile(r"^```console\n.*?^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ poai (.*)\n(?:(?!\$ |```).*\n)*", re.MULTILINE)
"""A command, and the lines up to the next one or to the fence's end."""


def run(arguments: str) -> str:
    """Return what a `poai` command prints, without spaces at the ends of lines."""
    output = StringIO()
    with redirect_stdout(output):
        app(shlex.split(arguments), standalone_mode=False)
    return "".join(line.rstrip() + "\n" for line in output.getvalue().splitlines())


def refresh(document: str) -> str:
    """Return a document with the outputs that its commands have now."""
    return FENCE.sub(lambda fence: COMMAND.sub(lambda c: f"$ poai {c[1]}\n{run(c[1])}", fence[0]), document)


def main() -> None:
    """Write the documents of the checkout around this folder."""
    root = find_checkout(Path.cwd())
    if root is None:
        fail(NO_CHECKOUT, 2)
    for name in DOCUMENTS:
        path = root / name
        path.write_text(refresh(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
