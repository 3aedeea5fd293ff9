"""The page docs/rejection-codes.md: the tables of all pages, each code with the definition that raises it.

Run by `make spec`: `python -m poai_build.code_table specs docs/rejection-codes.md`.
"""

import re
import sys
from pathlib import Path

from poai_tools.spec.compile import mask
from poai_tools.spec.pages import find_code_rows, find_raises

READING_ORDER = re.compile(r"^\| \d+ \| \[[^\]]+\]\(([a-z/-]+\.md)\)", re.MULTILINE)
HEAD = """\
# Rejection codes

Written by `make spec` from the tables of the pages; edit those.

A block, a message or a file that breaks a rule is refused with a code, which is the same in every implementation that
passes the [vectors](../test_vectors/README.md). It begins with the page that owns the rule, and is raised in one place.
The class says what follows:

| class | what follows |
| --- | --- |
| [`Invalid`](../specs/basics/notation.md#invalid) | never valid: the hash is marked, the sender is blamed |
| [`Malformed`](../specs/basics/notation.md#malformed) | not well formed: the sender is blamed, nothing is marked |
| [`NotYet`](../specs/basics/notation.md#notyet) | may become valid later: nobody is blamed |

`poai spec where CODE` prints the line that raises a code, and `poai explain BLOCK` the checks that a block has passed.
"""


def make_section(specs: Path, name: str) -> str:
    """Return the table of a page's codes under a heading; empty for a page without codes."""
    page = specs / name
    text = page.read_text("utf-8")
    owners = {site.code: site.owner for site in find_raises(mask(text, page.name))}
    rows = [
        f"| `{code}` | {kind} | [`{owners[code]}`](../specs/{name}#{owners[code].lower()}) | {meaning} |"
        for code, kind, meaning in find_code_rows(text)
    ]
    head = f"\n## {page.stem}\n\n| code | class | raised by | meaning |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(rows) + "\n" if rows else ""


def make_code_table(specs: Path) -> str:
    """Return the page, in the reading order of specs/README.md."""
    order = READING_ORDER.findall((specs / "README.md").read_text("utf-8"))
    return HEAD + "".join(make_section(specs, name) for name in order)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(make_code_table(source), "utf-8")
