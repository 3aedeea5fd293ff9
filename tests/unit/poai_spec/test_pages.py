"""Lints of the specification's pages: headings, names, rejection codes, sizes, integers only, examples."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from poai_tools.spec.compile import mask
from poai_tools.spec.pages import CODE, Fence, RaiseSite, find_codes_in_table, find_fences, find_raises, list_pages
from tests.harness.examples import run_examples

ROOT = Path(__file__).parents[3]
SPECS = ROOT / "specs"
PATHS = {"README": SPECS / "README.md"} | list_pages(SPECS)
TEXTS = {page: path.read_text("utf-8") for page, path in PATHS.items()}
PAGES = sorted(TEXTS)
MODULES = {stem: ast.parse(mask(text, f"specs/{stem}.md")) for stem, text in TEXTS.items()}
LANGUAGES = {"python", "pycon", "text", "json", "console"}
INTEGER_MATH = {"comb", "gcd", "isqrt", "lcm", "prod"}
BANNED_IMPORTS = {"math", "cmath", "decimal", "fractions", "numpy", "os", "random", "secrets", "statistics", "time"}

Definition = ast.FunctionDef | ast.ClassDef
every_page = pytest.mark.parametrize("page", PAGES)


def definitions(page: str) -> list[Definition]:
    return [node for node in MODULES[page].body if isinstance(node, Definition)]


def first_line(node: Definition) -> int:
    """Line of the first decorator, or of the `def` itself."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def python_fences(page: str) -> list[Fence]:
    return [fence for fence in find_fences(TEXTS[page]) if fence.language == "python"]


def raise_sites() -> list[tuple[str, RaiseSite]]:
    return [(page, site) for page in PAGES for site in find_raises(mask(TEXTS[page], page))]


@every_page
def test_fences_are_ones_that_the_compiler_sees(page: str) -> None:
    for number, line in enumerate(TEXTS[page].splitlines(), 1):
        if line.lstrip(" >").startswith(("```", "~~~")):
            assert line.startswith("```"), f"{page}.md:{number}: an indented fence would not be compiled"
            assert not line.startswith("````"), f"{page}.md:{number}: three backticks"
    for fence in find_fences(TEXTS[page]):
        assert fence.language in LANGUAGES, f"{page}.md:{fence.line}: language {fence.language!r}"


@every_page
def test_no_line_break_but_newline(page: str) -> None:
    assert TEXTS[page].splitlines() == TEXTS[page].removesuffix("\n").split("\n"), "page numbers would shift"


@every_page
def test_each_definition_stands_under_its_heading(page: str) -> None:
    headings = [line for line in TEXTS[page].splitlines() if re.fullmatch(r"### `\w+`", line)]
    assert headings == [f"### `{node.name}`" for node in definitions(page)]
    heading_of_line = {fence.line + 1: fence.heading for fence in python_fences(page)}
    for node in definitions(page):
        where = f"{page}.md:{node.lineno}: {node.name}"
        assert first_line(node) in heading_of_line, f"{where} is not the first line of its fence"
        assert heading_of_line[first_line(node)] == f"### `{node.name}`", where


def test_names_are_unique_across_pages() -> None:
    names: Counter[str] = Counter()
    for module in MODULES.values():
        for node in module.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
            names.update([node.name] if isinstance(node, Definition) else [])
    # A type variable carries no meaning across modules.
    assert [name for name, count in names.items() if count > 1 and name != "T"] == []


def test_every_raise_names_its_code_as_a_literal() -> None:
    bad = [f"{page}.md:{site.line}" for page, site in raise_sites() if not CODE.fullmatch(site.code)]
    assert bad == [], "a rejection needs a literal code `page/rule`"


def test_every_code_is_raised_in_one_place() -> None:
    sites: dict[str, list[str]] = {}
    for page, site in raise_sites():
        sites.setdefault(site.code, []).append(f"{page}.md:{site.line}")
    assert {code: places for code, places in sites.items() if len(places) > 1} == {}


@every_page
def test_table_lists_exactly_the_codes_of_the_page(page: str) -> None:
    raised = {site.code: site.kind for _, site in raise_sites() if site.code.partition("/")[0] == page}
    assert find_codes_in_table(TEXTS[page]) == raised


def test_every_code_begins_with_a_page() -> None:
    assert [f"{page}: {s.code}" for page, s in raise_sites() if s.code.partition("/")[0] not in PAGES] == []


@every_page
def test_page_is_short(page: str) -> None:
    assert len(TEXTS[page].splitlines()) < 620


@every_page
def test_code_is_at_most_120_wide(page: str) -> None:
    code = [(f.line + n, line) for f in python_fences(page) for n, line in enumerate(f.lines, 1)]
    assert [f"{page}.md:{number}" for number, line in code if len(line) > 120] == []


@every_page
def test_functions_are_short(page: str) -> None:
    functions = [node for node in ast.walk(MODULES[page]) if isinstance(node, ast.FunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > 40} == {}


@every_page
def test_docstrings(page: str) -> None:
    wanted: list[Definition] = [node for node in definitions(page) if not node.name.startswith("_")]
    for cls in [node for node in wanted if isinstance(node, ast.ClassDef)]:
        methods = [node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        # The properties of a protocol are described under the class's `Attributes:`.
        wanted += [node for node in methods if ast.unparse(node.body[-1]) != "..." or not node.decorator_list]
    assert [node.name for node in wanted if not ast.get_docstring(node)] == []


def find_float(node: ast.AST) -> str:
    """Say what about a node could bring in a float, or return an empty string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
        return "literal"
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div):
        return "division"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        # A path is joined with text; a number is not divided by it.
        text = isinstance(node.right, ast.JoinedStr) or isinstance(getattr(node.right, "value", None), str)
        return "" if text else "division"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and isinstance(node.right, ast.UnaryOp):
        return "negative power"
    return node.id if isinstance(node, ast.Name) and node.id in {"float", "complex"} else ""


def find_bad_imports(node: ast.AST) -> set[str]:
    """Return the imported names that normative code does without."""
    if isinstance(node, ast.ImportFrom) and node.module == "math":
        return {alias.name for alias in node.names} - INTEGER_MATH
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return {name.partition(".")[0] for name in names} & BANNED_IMPORTS


@every_page
def test_integers_only(page: str) -> None:
    for node in ast.walk(MODULES[page]):
        where = f"{page}.md:{getattr(node, 'lineno', 0)}"
        assert find_float(node) == "", f"{where}: {ast.unparse(node)}"
        assert find_bad_imports(node) == set(), where


@pytest.mark.parametrize(
    "code", ["1.5", "x / 2", "x /= 2", "float(x)", "2 ** -x", "import math", "from math import log"]
)
def test_the_lint_finds_floats(code: str) -> None:
    nodes = list(ast.walk(ast.parse(code)))
    assert any(find_float(node) or find_bad_imports(node) for node in nodes)


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in TEXTS[page]])
def test_examples(page: str) -> None:
    assert run_examples(TEXTS[page], f"specs/{page}.md") > 0


READING_ORDER = re.findall(r"^\| \d+ \| \[[a-z0-9-]+\]\([a-z]+/([a-z0-9-]+)\.md\) \|", TEXTS["README"], re.MULTILINE)


@pytest.mark.parametrize("room", sorted({path.parent.name for page, path in PATHS.items() if page != "README"}))
def test_a_room_lists_its_pages_in_reading_order(room: str) -> None:
    text = (SPECS / room / "README.md").read_text("utf-8")
    listed = re.findall(r"^- \[[a-z0-9-]+\]\(([a-z0-9-]+)\.md\): ", text, re.MULTILINE)
    assert listed == [page for page in READING_ORDER if PATHS[page].parent.name == room]


def test_readme_lists_every_page_once() -> None:
    assert len(READING_ORDER) == len(set(READING_ORDER))
    assert set(READING_ORDER) == set(PAGES) - {"README"}


@every_page
def test_pages_import_only_from_pages_above(page: str) -> None:
    above = set(READING_ORDER[: READING_ORDER.index(page)] if page in READING_ORDER else [])
    for node in ast.walk(MODULES[page]):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("poai_spec."):
            room, _, name = node.module.removeprefix("poai_spec.").replace("_", "-").partition(".")
            for other in [name] if name else [alias.name.replace("_", "-") for alias in node.names]:
                assert room == PATHS[other].parent.name, f"{page}.md:{node.lineno}"
                assert other in above, f"{page}.md:{node.lineno}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README"])
def test_page_says_its_status(page: str) -> None:
    status = re.search(rf"^\| \d+ \| \[{page}\].*\| (\w+) \|$", TEXTS["README"], re.MULTILINE)
    assert status is not None
    assert f"\nStatus: {status[1]}, version 1.\n" in TEXTS[page]


@every_page
def test_links_lead_somewhere(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose)
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (PATHS[page].parent / target).exists()] == []
