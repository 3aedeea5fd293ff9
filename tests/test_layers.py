"""The layers of the code, read from its imports."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each package may import those before it.
LAYERS = {
    "poai_spec": ROOT / "poai_spec",
    "poai_engine": ROOT / "node" / "poai_engine",
    "poaid": ROOT / "node" / "poaid",
    "poai_bench": ROOT / "tools" / "poai_bench",
    "poai_tools": ROOT / "tools" / "poai_tools",
    "poai_build": ROOT / "tools" / "poai_build",
}
PACKAGE_FILES = sorted(path for folder in LAYERS.values() for path in folder.rglob("*.py"))
# Any path below a home, scratch or work directory of the machine that the file was written on.
FOREIGN_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|Users)/\w")

pytestmark = pytest.mark.sockets


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.module or ""


def imported_roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_one_way(package: str) -> None:
    allowed = set(list(LAYERS)[: list(LAYERS).index(package) + 1])
    files = sorted(LAYERS[package].rglob("*.py"))
    assert files
    for path in files:
        assert imported_roots(path) & LAYERS.keys() <= allowed, path.relative_to(ROOT)


LIBP2P_FILES = [
    "net/libp2p/gossip.py", "net/libp2p/host.py", "net/libp2p/session.py", "net/libp2p/streams.py", "net/transport.py",
]  # fmt: skip


@pytest.mark.parametrize(("library", "files"), [("sqlite3", ["store/database.py"]), ("libp2p", LIBP2P_FILES)])
def test_few_files_import(library: str, files: list[str]) -> None:
    found = [path for path in PACKAGE_FILES if library in imported_roots(path)]
    assert found == [LAYERS["poaid"] / name for name in files]


TEST_FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "tests").rglob("*.py")}
OPENERS = {
    "multiprocessing", "playwright", "poai_tools.vectors.client", "poaid.testnet.local", "socket", "subprocess",
    "urllib.request",
}  # fmt: skip
"""Modules that open sockets or start processes."""


def opens_sockets(path: Path) -> bool:
    """Tell whether a test file imports one of those, itself or by another file of the tests."""
    todo, seen = [path], set[Path]()
    while todo:
        seen.add(here := todo.pop())
        for name in imported_modules(here):
            if any(name == opener or name.startswith(f"{opener}.") for opener in OPENERS):
                return True
            if name in TEST_FILES and TEST_FILES[name] not in seen:
                todo.append(TEST_FILES[name])
    return False


def test_what_opens_sockets_or_starts_processes_is_marked() -> None:
    """So that `-m 'not sockets'` leaves the rest; `tests/e2e/conftest.py` marks that folder."""
    files = [path for path in TEST_FILES.values() if path.name.startswith("test_") and path.parent.name != "e2e"]
    found = {path for path in files if opens_sockets(path)}
    assert len(found) > 20
    for path in sorted(found):
        assert "pytest.mark.sockets" in path.read_text("utf-8"), f"{path.relative_to(ROOT)}: mark it `sockets`"


PRIVATE_MEMBERS = 43
"""Private members that tests reach for: of libraries, of classes whose inside a test is about. It only goes down."""


def find_private_members(path: Path) -> Iterator[str]:
    """Yield what a test file takes, or replaces, of the inside of other classes and modules."""
    names: list[str]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Attribute(ast.Name("self" | "cls")):
                names = []
            case ast.Attribute(_, name):
                names = [name]
            case ast.ImportFrom(_, aliases):
                names = [alias.name for alias in aliases]
            case ast.Call(ast.Attribute(_, "setattr"), [_, ast.Constant(str(name)), *_]):
                names = [name]
            case _:
                names = []
        yield from (f"{path.relative_to(ROOT)}: {n}" for n in names if re.match(r"_[a-zA-Z]", n))


def test_tests_reach_for_no_more_private_members() -> None:
    found = [member for path in sorted(TEST_FILES.values()) for member in find_private_members(path)]
    assert len(found) <= PRIVATE_MEMBERS, "give the package a public way instead:\n" + "\n".join(found)


def tracked_files() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    return [ROOT / name.decode() for name in names if name and (ROOT / name.decode()).is_file()]


@pytest.mark.parametrize("folder", ["poai_spec", "node", "tools", "tests"])
def test_no_handler_catches_everything(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                kinds = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)} if node.type else {""}
                assert not kinds & {"", "Exception", "BaseException"}, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_file_names_a_path_of_its_authors_machine() -> None:
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found = FOREIGN_PATH.search(content.decode("utf-8"))
            assert found is None, f"{path.relative_to(ROOT)}: {found}"
