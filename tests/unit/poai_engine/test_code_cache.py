"""Compiled code that is kept: damaged, missing, or without room, it is compiled anew, in one line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from poai_engine.kernels.code_cache import compile_kept, take_notices
sys.path.insert(0, sys.argv[1])
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
import kept_function
print(kept_function.add(2, 3), int(kept_function.add.stats.cache_hits.total()), sep="|", end="|")
print(*take_notices(), sep="|")
"""
FUNCTION = """
from poai_engine.kernels.code_cache import compile_kept
@compile_kept
def add(a, b):
    return a + b
"""

pytestmark = pytest.mark.sockets


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module whose one function is kept."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "kept_function.py").write_text(FUNCTION)
    assert execute(folder) == ["5", "0", ""]
    assert execute(folder) == ["5", "1", ""]
    shutil.copytree(folder / "code", folder / "whole")
    return folder


@pytest.fixture
def folder(made: Path) -> Path:
    """The same, as it was made."""
    shutil.rmtree(made / "code")
    shutil.copytree(made / "whole", made / "code")
    return made


def execute(folder: Path, *flags: str, **environment: str) -> list[str]:
    """Run the function in a process; return its result, how often kept code was taken, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *flags], capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "code"), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.rstrip("\n").split("|")


def flip(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "a bit flipped": flip,
    "something else": lambda data: b"#!/bin/sh\n",
}


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_code_is_compiled_anew(folder: Path, suffix: str, damage: str) -> None:
    (file,) = (folder / "code").rglob(f"*.{suffix}")
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    value, hits, *said = execute(folder)
    assert (value, hits) == ("5", "0")
    assert said == [f"{file.parent}: kept code is damaged: it is compiled anew"]
    assert execute(folder) == ["5", "1", ""]


def test_code_of_another_signature_is_not_taken(folder: Path) -> None:
    """As a full disk leaves it: an index that is new, and code that is old."""
    (file,) = (folder / "code").rglob("*.nbc")
    program = PROGRAM.replace("add(2, 3)", "add(2.5, 2.5)").replace("print(kept", "print('%g' % kept", 1)
    old = file.read_bytes()
    for index in (folder / "code").rglob("*.nbi"):
        index.unlink()
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "code")},
    )  # fmt: skip
    assert done.stdout.startswith("5|0|"), done
    assert file.read_bytes() != old
    file.write_bytes(old)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "code")},
    )  # fmt: skip
    assert done.stdout.startswith("5|0|"), done


def test_a_full_disk_costs_a_line(folder: Path) -> None:
    for file in (folder / "code").rglob("*.nb?"):
        file.unlink()
    value, hits, *said = execute(folder, "full")
    assert (value, hits) == ("5", "0")
    (line,) = said
    assert "cannot keep the compiled code (File too large): it is compiled at each start; set NUMBA_CACHE_DIR" in line
    assert execute(folder) == ["5", "0", ""]


def test_a_debugging_switch_of_numbas_is_not_followed(folder: Path) -> None:
    line = "NUMBA_DISABLE_JIT is ignored: the engine runs as compiled code only"
    assert execute(folder, NUMBA_DISABLE_JIT="1") == ["5", "1", line]
