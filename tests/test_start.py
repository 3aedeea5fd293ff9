"""What the two commands import before they do anything: their help, and `poai spec where`, answer at once."""

import json
import shlex
import subprocess
import sys

import pytest

from poai_bench import flags
from poai_engine.models import model_names, synthesize
from poai_spec.basics import parameters
from poaid.chain.admission import MAX_REMEMBERED

HEAVY = {
    "Crypto.Cipher", "aioquic", "array_api_compat", "coincurve", "dns", "eth_utils", "gguf",
    "huggingface_hub", "hypercorn", "libp2p", "llama_cpp", "llvmlite", "matplotlib", "multiaddr",
    "numba", "numpy", "prometheus_client", "rlp", "sqlite3", "ssz", "starlette",
    "torch", "trie", "trio",
}  # fmt: skip
"""Imports that take tens of milliseconds to a second, and that no flag and no help text needs."""
SHOW_ALL_HELP = """
import contextlib, io, json, sys
import typer
from {program} import app

def walk(part, path):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        top.main([*path, "--help"], prog_name="p")
    assert "Usage" in out.getvalue(), path
    yield " ".join(path)
    for name, below in getattr(part, "commands", {{}}).items():
        yield from walk(below, [*path, name])

top = typer.main.get_command(app)
shown = list(walk(top, []))
print(json.dumps([shown, sorted(sys.modules)]))
"""

RUN_POAI = """
import contextlib, sys
from poai_tools.cli import main
with contextlib.suppress(SystemExit):
    main()
print(*sys.modules)
"""

pytestmark = pytest.mark.sockets


def run(script: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def find_heavy(modules: list[str]) -> set[str]:
    return HEAVY & set(modules)


@pytest.mark.parametrize(("program", "some"), [("poaid.cli.main", "run"), ("poai_tools.cli", "bench engine")])
def test_the_help_of_every_command_imports_nothing_that_takes_time(program: str, some: str) -> None:
    shown, modules = json.loads(run(SHOW_ALL_HELP.format(program=program))[-1])
    assert some in shown
    assert find_heavy(modules) == set()


def test_spec_where_imports_nothing_that_takes_time() -> None:
    lines = run(RUN_POAI, "spec", "where", "difficulty/target")
    assert lines[0].startswith("specs/proof/difficulty.md:")
    assert find_heavy(lines[-1].split()) == set()


def test_a_check_of_a_client_begins_at_once() -> None:
    """No suite is imported: the cases are read, and the client is asked."""
    client = f"{shlex.quote(sys.executable)} -S -c 'import sys; [print(flush=True) for line in sys.stdin]'"
    modules = run(RUN_POAI, "vectors", "check", "--suite", "block", "--client", client)[-1].split()
    assert find_heavy(modules) == set()
    assert "poai_tools.vectors.suites.block" not in modules


def test_a_check_of_the_specification_imports_a_suite_when_its_turn_has_come() -> None:
    modules = run(RUN_POAI, "vectors", "check", "--suite", "drbg")[-1].split()
    assert find_heavy(modules) == set()
    assert {name for name in modules if name.startswith("poai_tools.vectors.suites.")} == {
        "poai_tools.vectors.suites.drbg"
    }


def test_flags_have_the_numbers_of_what_they_are_about() -> None:
    """They are written down a second time, since what has them takes time to import."""
    assert flags.MAX_QUIZ_TOKENS == parameters.MAX_QUIZ_TOKENS
    assert flags.MAX_BENCH_BLOCKS == MAX_REMEMBERED
    assert tuple(synthesize.SHAPES) == model_names.SYNTHETIC_MODELS


def test_heavy_imports_are_seen() -> None:
    assert find_heavy(run("import sys, poaid.node; print(*sys.modules)")[-1].split()) >= {"libp2p", "trio", "ssz"}
