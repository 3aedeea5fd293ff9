"""What the documents say of the repository is so: commands, examples, links, tests, limits, packages."""

import ast
import re
import shlex
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import poai_tools.cli
import poaid.cli.main
from poai_tools.spec.pages import CODE, find_fences
from tests.harness.examples import run_examples

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
THREATS = (DOCS / "threat-model.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGES = {str(path.relative_to(ROOT)): path.read_text("utf-8")
         for path in sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "specs").rglob("*.md")])}  # fmt: skip
TOOLS = {"poai": poai_tools.cli.app, "poaid": poaid.cli.main.app}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
SOURCES = sorted(path for folder in ("poai_spec", "node") for path in (ROOT / folder).rglob("*.py"))

pytestmark = pytest.mark.sockets


def find_tests() -> set[str]:
    """Return the names of all tests, and of the modules that they are in."""
    names = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names.add(path.stem)
        tree = ast.walk(ast.parse(path.read_text("utf-8")))
        names |= {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return names


def compute(node: ast.expr, known: dict[str, object]) -> object:
    """Return the value of an expression of numbers and earlier constants; None if it is another."""
    code = compile(ast.Expression(node), "constant", "eval")
    if not set(code.co_names) <= known.keys() or any(isinstance(part, ast.Call) for part in ast.walk(node)):
        return None
    return eval(code, {"__builtins__": {}}, known)  # noqa: S307 - our own source, names and numbers only


def find_constants() -> dict[str, set[object]]:
    """Return the values of all constants of the specification and the node: a name may stand in several modules."""
    values: defaultdict[str, set[object]] = defaultdict(set)
    for path in SOURCES:
        known: dict[str, object] = {}
        for node in ast.parse(path.read_text("utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            value = getattr(node, "value", None)
            parts = value.elts if isinstance(value, ast.Tuple) and len(names) > 1 else [value]
            for name, part in zip(names, parts, strict=False):
                if isinstance(name, ast.Name) and isinstance(part, ast.expr):
                    found = compute(part, known)
                    if isinstance(found, int | float):
                        known[name.id] = found
                        values[name.id].add(found)
    values["MAX_BLOCK_BYTES"].add(8_452)  # of a constant that another page gives; `test_networking` computes it
    return values


def get_anchor(heading: str) -> str:
    """Return the fragment that leads to a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", THREATS))
    assert len(named) > 100
    assert sorted(named - find_tests()) == []


def test_every_limit_has_its_value() -> None:
    named = re.findall(r"`([A-Z][A-Z0-9_]{3,})` ([\d,]+)", THREATS)
    constants = find_constants()
    assert len(named) > 30
    assert [pair for pair in named if int(pair[1].replace(",", "")) not in constants[pair[0]]] == []


def test_a_wrong_limit_would_be_noticed() -> None:
    constants = find_constants()
    assert constants["MAX_ORPHANS"] == {256}
    assert constants["MAX_STRING_BYTES"] == {1 << 20}
    assert constants["NO_SUCH_LIMIT"] == set()


def test_every_rejection_code_exists() -> None:
    pages = {path.stem for path in (ROOT / "specs").rglob("*.md")}
    named = {code for code in re.findall(r"`([a-z-]+/[a-z0-9-]+)`", THREATS) if code.partition("/")[0] in pages}
    text = "".join(path.read_text("utf-8") for path in (ROOT / "poai_spec").rglob("*.py"))
    assert len(named) > 5
    assert all(CODE.fullmatch(code) for code in named)
    assert sorted(code for code in named if f'"{code}"' not in text) == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    prose = re.sub(r"^```.*?^```", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", prose):
        file = (ROOT / name).parent / target if target else ROOT / name
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(get_anchor, headings), f"{target}#{anchor}"


def find_commands(text: str) -> list[list[str]]:
    """Return the words of each command `poai` or `poaid` in the console fences of a page, without its comment."""
    fences = "\n".join("\n".join(fence.lines) for fence in find_fences(text) if fence.language == "console")
    lines = re.findall(r"(?:^\$|&&) (poaid? [^&\n]*)", fences.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line.partition(" | ")[0], comments=True) for line in lines]


def find_unknown(words: list[str]) -> list[str]:
    """Return the commands and options of a command line that its program does not have."""
    tool, *rest = words
    command = typer.main.get_command(TOOLS[tool])
    if rest and rest[0].startswith("-"):
        rest.insert(0, "run")  # `poaid` alone
    while hasattr(command, "commands") and rest:
        name = rest.pop(0)
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]


@pytest.mark.parametrize("name", PAGES)
def test_commands_exist(name: str) -> None:
    assert [(words, unknown) for words in find_commands(PAGES[name]) if (unknown := find_unknown(words))] == []


def test_an_unknown_command_would_be_noticed() -> None:
    text = (
        "```console\n$ poai bench speed && poaid --no-such \\\n    --target=5  # easy\n$ poai quiz --model mini\n```\n"
    )
    assert [find_unknown(words) for words in find_commands(text)] == [["speed"], ["--no-such"], []]


@pytest.mark.parametrize("name", ["docs/economics.md", "docs/why-integers.md"])
def test_examples(name: str) -> None:
    assert run_examples(PAGES[name], name) > 0


def test_every_package_is_in_its_table() -> None:
    text = (DOCS / "dependencies.md").read_text("utf-8")
    run, extras = text.partition("## Extras")[::2]
    rows = re.findall(r"^\| ([\w-]+) \|", run, re.MULTILINE)
    wanted = [Requirement(line).name for line in PROJECT["dependencies"]]
    assert [canonicalize_name(row) for row in rows if row not in ("package", "---")] == [
        *map(canonicalize_name, wanted)
    ]
    listed = dict(re.findall(r"^\| ([\w-]+) \| ([\w, ]+) \|", extras.partition("## Audit")[0], re.MULTILINE))
    found = {
        Requirement(line).name: set[str]() for lines in PROJECT["optional-dependencies"].values() for line in lines
    }
    for extra, lines in PROJECT["optional-dependencies"].items():
        for line in lines:
            found[Requirement(line).name].add(extra)
    assert {name: set(where.split(", ")) for name, where in listed.items() if name != "package"} == found


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith(("docs/", "specs/"))])
def test_figures_of_accuracy_stand_in_one_place(name: str) -> None:
    figures = re.findall(r"[0-9.]+ nats?\b", PAGES[name])
    assert not figures or name == "docs/why-integers.md", f"{name} has {figures}: link to docs/why-integers.md instead"


def test_the_accuracy_is_given() -> None:
    assert re.findall(r"[0-9.]+ nats", PAGES["docs/why-integers.md"])


def find_defined(path: Path) -> set[str]:
    """Return the names that a file defines: methods as `Class.method`, of a page what its headings name."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"^(?:### `|(?:async )?function )(\w+)", text, re.MULTILINE))
    top = [node for node in ast.parse(text).body if isinstance(node, DEFINITIONS)]
    methods = {
        f"{node.name}.{part.name}"
        for node in top
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, DEFINITIONS)
    }
    return {node.name for node in top} | methods


MAP = re.findall(r"^\| [^|]+ \| \[([^]]+)\]\(([^)]+)\) \| `([\w.]+)` \|$", PAGES["README.md"], re.MULTILINE)


@pytest.mark.parametrize(("shown", "file", "name"), MAP)
def test_the_map_leads_to_what_it_names(shown: str, file: str, name: str) -> None:
    assert shown == file
    assert name in find_defined(ROOT / file)


def test_the_map_has_what_is_asked_first() -> None:
    asked = {"Node.on_gossip", "compute_target", "Database.commit", "View.get_status"}
    assert asked <= {name for _, _, name in MAP}
    assert "Node.no_such" not in find_defined(ROOT / "node/poaid/node.py")


def test_folders_of_the_readme_are_those_of_the_repository() -> None:
    named = set(re.findall(r"^\| `(\w+)/` \|", PAGES["README.md"], re.MULTILINE))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True).stdout.split()
    assert named | {"newsfragments"} == {name.split("/")[0] for name in tracked if "/" in name and name[0] != "."}


RELIABILITY = PAGES["docs/reliability.md"]
SUMMED = re.findall(r"^\| \[[^]]+\]\(#([\w-]+)\) \| (\d+|none) \| (\d*) \|$", RELIABILITY, re.MULTILINE)
SECTIONS = {get_anchor(part.partition("\n")[0]): part for part in re.split(r"^## ", RELIABILITY, flags=re.MULTILINE)}


def count_defects(section: str) -> int:
    """Return the rows of a section's tables that name a defect: all, but where the third cell of four is "none"."""
    tables = re.findall(r"^\| (?:---|[^\n]*)\n\| --- \|.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    rows = [row.strip("| ").split(" | ") for table in tables for row in table.splitlines()]
    return sum(not (len(row) >= 3 and row[2].startswith("none")) for row in rows)


PROSE = {"bytes", "kills-and-disks", "partitions", "found-by-measuring", "a-siege"}
"""Sections whose tables list what was tried, or that tell of their defects outside of tables."""


@pytest.mark.parametrize(("anchor", "found", "mended"), SUMMED)
def test_defects_are_counted_from_their_tables(anchor: str, found: str, mended: str) -> None:
    assert anchor in SECTIONS
    if anchor not in PROSE:
        assert count_defects(SECTIONS[anchor]) == int(found) == int(mended)


def test_tests_that_keep_something_mended_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", RELIABILITY))
    assert len(named) > 10
    assert sorted(named - find_tests()) == []
