"""The order of the suites is one in which a client can be built: what a function uses was asked for before it.

The definitions that `functions.json` names are followed through the source of `poai_spec`. Whatever is reached and is
itself tested by a suite has to belong to the same suite or to one before it.
"""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from poai_tools.vectors.registry import FUNCTIONS, get_definitions
from poai_tools.vectors.suites import NAMES, load_all

load_all()

ROOT = Path(__file__).parents[3]
Name = tuple[str, str]
"""A module of `poai_spec`, and a function, class or constant of it."""


@cache
def read_definitions() -> dict[Name, set[Name]]:
    """Return what each definition of the specification mentions, by its name."""
    found: dict[Name, set[Name]] = {}
    for path in (ROOT / "poai_spec").rglob("*.py"):
        body, module = ast.parse(path.read_text("utf-8")).body, path.stem
        known: dict[str, Name] = {}
        for node in body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("poai_spec."):
                source = str(node.module).rpartition(".")[2]
                known |= {alias.asname or alias.name: (source, alias.name) for alias in node.names}
            known |= {name: (module, name) for name in list_defined(node)}
        for node in body:
            mentioned = {known[n.id] for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in known}
            found |= {(module, name): mentioned for name in list_defined(node)}
    return found


def list_defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def follow(names: Iterable[Name]) -> set[Name]:
    """Return the definitions that can be reached from some."""
    reached: set[Name] = set()
    rest = list(names)
    while rest:
        name = rest.pop()
        if name not in reached and name in read_definitions():
            reached.add(name)
            rest += read_definitions()[name]
    return reached


def list_definitions(suite: str) -> set[Name]:
    """Return the definitions that a suite tests by name."""
    functions = [function for function in FUNCTIONS.values() if function.suite == suite]
    return {(f.page.replace("-", "_"), name) for f in functions for name in get_definitions(f)}


def find_needs(suite: str) -> dict[str, set[str]]:
    """Return the other suites that a suite needs, and what of each."""
    needs: dict[str, set[str]] = {}
    for other in set(NAMES) - {suite}:
        if used := follow(list_definitions(suite)) & (list_definitions(other) - list_definitions(suite)):
            needs[other] = {f"{module}.{name}" for module, name in used}
    runs_a_model = any("model" in f.input.fields for f in FUNCTIONS.values() if f.suite == suite)
    if runs_a_model and suite not in ("weights", "inference"):  # behind the protocol of the page engine
        needs |= {"weights": {"a model"}, "inference": {"a pass"}}
    return needs


@pytest.mark.parametrize("suite", NAMES)
def test_a_suite_needs_only_those_before_it(suite: str) -> None:
    before = NAMES[: NAMES.index(suite)]
    late = {other: used for other, used in find_needs(suite).items() if other not in before}
    assert not late, f"{suite} stands before what it needs: {late}"


def test_the_needs_are_found() -> None:
    assert {"ssz", "drbg", "lexicon"} <= find_needs("quiz").keys()
    assert "loss.compute_layer_entry" in find_needs("inference")["loss"]
    assert {"fork_choice", "block", "inference"} <= find_needs("chain").keys()
    assert find_needs("networking").keys() == {"ssz", "block"}, "of block only the length of a trace"


@pytest.mark.parametrize(
    ("document", "row"),
    [
        ("docs/implementing.md", r"^\| (?:\d+) \| (\w+) \|"),
        ("test_vectors/README.md", r"^\| \[(\w+)\]\(\1/README\.md\)"),
    ],
)
def test_the_documents_have_this_order(document: str, row: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    assert tuple(re.findall(row, text, re.MULTILINE)) == NAMES


def test_who_needs_no_model_and_who_little_is_said() -> None:
    """The sentence below the table of implementing.md."""
    number = {name: place for place, name in enumerate(NAMES, 1)}
    text = " ".join((ROOT / "docs" / "implementing.md").read_text("utf-8").split())
    assert f"1 to {number['weights'] - 1} need no model" in text
    first, last = number["difficulty"], number["header"]
    for suite in NAMES[first - 1 : last]:
        assert {n for n in find_needs(suite) if 6 <= number[n] <= 10} <= {"loss"}
    least = f"{number['networking']} needs no more than 3 and the length of a trace"
    assert f"{first} to {last} need of 6 to 10 only `loss`, and {least}" in text
