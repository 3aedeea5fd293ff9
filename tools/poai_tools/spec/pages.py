"""What stands on a spec page: definitions, rejection codes, examples. Shared by `poai spec where` and by the lints.

Every function here takes either the markdown of a page or the module that the compiler made of it; both have the same
line numbers, so each line number leads to the page.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ERROR_CLASSES = ("SpecError", "Invalid", "Malformed", "NotYet")
CODE = re.compile(r"[a-z0-9-]+/[a-z0-9-]+")
TABLE_ROW = re.compile(r"\| `([^`]+)` \| (\w+) \| (.*) \|")


@dataclass(frozen=True)
class RaiseSite:
    """One place that builds a rejection.

    Attributes:
        code: the rule, or an empty string where the first argument is no literal.
        kind: the error class.
        line: line number in the page, from 1.
        owner: the top-level function or class around it.
    """

    code: str
    kind: str
    line: int
    owner: str


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page.

    Attributes:
        language: the word after the three backticks.
        line: line number of the opening fence, from 1.
        lines: the lines inside.
        heading: the nearest heading above.
    """

    language: str
    line: int
    lines: tuple[str, ...]
    heading: str


def list_pages(specs: Path) -> dict[str, Path]:
    """Return the pages with rules, by name: `quiz` is `specs/proof/quiz.md`. A room's README is no page of its own."""
    return {path.stem: path for path in sorted(specs.glob("*/*.md")) if path.name != "README.md"}


def find_raises(source: str) -> Iterator[RaiseSite]:
    """Yield every call of an error class in a compiled page."""
    for top in ast.parse(source).body:
        for node in ast.walk(top):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ERROR_CLASSES:
                first = node.args[0] if node.args else None
                literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
                code = first.value if literal else ""  # type: ignore[union-attr]
                yield RaiseSite(str(code), node.func.id, node.lineno, getattr(top, "name", ""))


def find_fences(markdown: str) -> Iterator[Fence]:
    """Yield the fenced blocks of a page that the compiler accepts."""
    heading, opened = "", 0
    lines = markdown.splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("```") and opened:
            yield Fence(lines[opened - 1][3:].strip(), opened, tuple(lines[opened : number - 1]), heading)
            opened = 0
        elif line.startswith("```"):
            opened = number
        elif line.startswith("#") and not opened:
            heading = line


def extract_examples(markdown: str) -> str:
    """Return the lines inside a page's `pycon` fences where they stand, and blank lines for all others."""
    lines = [""] * len(markdown.splitlines())
    for fence in find_fences(markdown):
        if fence.language == "pycon":
            lines[fence.line : fence.line + len(fence.lines)] = fence.lines
    return "\n".join(lines) + "\n"


def get_defined_names(node: ast.stmt) -> list[str]:
    """Return the names that a top-level statement defines: of a function, a class, or constants and types."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    return [part.id for target in targets for part in ast.walk(target)
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]  # fmt: skip


def find_definitions(markdown: str) -> dict[str, str]:
    """Return every name that the page's Python defines at its top level, with the heading above it."""
    return {
        name: fence.heading.replace("`", "").lstrip("# ")
        for fence in find_fences(markdown)
        if fence.language == "python"
        for node in ast.parse("\n".join(fence.lines)).body
        for name in get_defined_names(node)
    }


def find_code_rows(markdown: str) -> list[tuple[str, str, str]]:
    """Return the rows of the page's table of rejection codes: code, class, meaning."""
    _, _, section = markdown.partition("\n## Rejection codes\n")
    rows = re.split(r"\n## ", section)[0].splitlines()
    return [(match[1], match[2], match[3]) for match in map(TABLE_ROW.match, rows) if match]


def find_codes_in_table(markdown: str) -> dict[str, str]:
    """Return the page's table of rejection codes as code and class; empty when the page has none."""
    return {code: kind for code, kind, _ in find_code_rows(markdown)}
