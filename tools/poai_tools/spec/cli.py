"""`poai spec`: compile the pages, and find the line of a rule.

Imports nothing of `poai_spec`, so `python -m poai_tools.spec.cli compile` repairs a generated package that no longer
imports.
"""

import ast
import difflib
import sys
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Annotated, NoReturn

import typer

from poai_tools.spec.compile import compile_specs, generate, page_name
from poai_tools.spec.pages import find_raises
from poai_tools.spec.places import NO_CHECKOUT, find_checkout, find_pages

app = typer.Typer(help="Compile the specification and look things up in it.", no_args_is_help=True)


def fail(message: str, status: int) -> NoReturn:
    """Print one line to standard error and end: status 1 is a failed check, 2 wrong usage."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(status)


def check_syntax(root: Path) -> None:
    """Raise ValueError with page, line and reason when a page's Python does not parse."""
    for name, content in generate(root / "specs").items():
        if not name.endswith(".py"):
            continue
        try:
            ast.parse(content)
        except SyntaxError as error:
            raise ValueError(f"specs/{page_name(PurePath(name))}:{error.lineno}: {error.msg}") from error


@app.command("compile")
def compile_command(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if poai_spec/ is out of date.")] = False,
) -> None:
    """Write the package poai_spec from the pages in specs/."""
    root = find_checkout(Path.cwd())
    if root is None:
        fail(NO_CHECKOUT, 2)
    try:
        check_syntax(root)
        stale = compile_specs(root, check=check)
    except ValueError as error:
        fail(str(error), 1)
    if check and stale:
        fail(f"out of date: {', '.join(f'poai_spec/{name}' for name in stale)}; run `make spec` and commit", 1)
    print(f"written: {', '.join(f'poai_spec/{name}' for name in stale)}" if stale else "poai_spec is up to date")


def shorten(path: Path) -> Path:
    """Return a path as it is named from the current folder; one that lies elsewhere stays whole."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def find_rules(package: Path) -> dict[str, str]:
    """Return every rejection code with `PATH:line` of its page and the heading of the definition that raises it."""
    rules, pages = {}, find_pages(package)
    for module in sorted(package.rglob("*.py")):
        page = shorten(pages / page_name(module.relative_to(package)))
        for site in find_raises(module.read_text("utf-8")):
            if site.code:
                rules[site.code] = f"{page}:{site.line}  {site.owner} ({site.kind})"
    return rules


@app.command()
def where(code: Annotated[str, typer.Argument(help="A rejection code, such as difficulty/target.")]) -> None:
    """Print the page and line that raise CODE, and the definition that they belong to."""
    package = find_spec("poai_spec")
    if package is None or package.origin is None:
        fail("poai_spec is not installed: run `make venv`", 1)
    rules = find_rules(Path(package.origin).parent)
    if code not in rules:
        near = difflib.get_close_matches(code, rules, n=3, cutoff=0.3)
        fail(f"no rule is called {code!r}; the nearest: {', '.join(near) or 'none'}", 2)
    print(rules[code])


if __name__ == "__main__":
    app()
