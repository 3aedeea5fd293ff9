"""What the two commands import before they do anything: their help, and `poai spec where`, answer at once."""

import json
import subprocess
import sys

import pytest

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
from {program}.cli import app

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


def run(script: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def find_heavy(modules: list[str]) -> set[str]:
    return HEAVY & set(modules)


@pytest.mark.parametrize(("program", "some"), [("poaid", "run")])
def test_the_help_of_every_command_imports_nothing_that_takes_time(program: str, some: str) -> None:
    shown, modules = json.loads(run(SHOW_ALL_HELP.format(program=program))[-1])
    assert some in shown
    assert find_heavy(modules) == set()


def test_heavy_imports_are_seen() -> None:
    assert find_heavy(run("import sys, poaid.node; print(*sys.modules)")[-1].split()) >= {"libp2p", "trio", "ssz"}
