"""`poai` as a whole: every command explains itself, and the installed script runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from poai_tools import cli

COMMAND = str(Path(sys.executable).with_name("poai"))

pytestmark = pytest.mark.sockets


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, groups too."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = list(walk(typer.main.get_command(cli.app)))


def test_the_commands_were_found() -> None:
    assert {(), ("quiz",), ("network", "new"), ("model", "info"), ("spec", "compile")} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["poai", *command, "--help"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert (caught.value.code, captured.err) == (0, "")
    assert " ".join(["Usage: poai", *command]) in " ".join(captured.out.split())


@pytest.mark.slow
def test_the_installed_script(mini_path: Path) -> None:
    environment = os.environ | {"POAI_MODEL_DIR": str(mini_path.parent)}

    def execute(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout, done.stderr

    status, out, err = execute("quiz", "--network", "minimal", "--model", "mini", "--seed", "1")
    assert (status, "error" in err) == (0, False)  # a first start says what takes long
    assert "l_hat          0x" in out
    assert execute("quiz", "--network", "minimal", "--model", "mini", "--seed", "1") == (0, out, "")
    status, out, err = execute("quiz", "--network", "none")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: no network 'none' (No such file or directory): give a file or one of mainnet")
    assert execute("quiz", "--odd")[0] == 2
