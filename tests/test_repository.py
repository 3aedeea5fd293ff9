"""Files that say the same thing twice agree."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import poai_spec

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

pytestmark = pytest.mark.sockets


def test_the_specification_has_the_version_of_the_distribution() -> None:
    assert poai_spec.__version__ == PROJECT["version"] == version("poai")


def test_constraints_are_names_and_exact_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*", line)] == []
    assert pins == sorted(set(pins))


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *EXTRAS["llama"], *EXTRAS["dev"]])
def test_constraints_satisfy_the_requirement(text: str) -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    requirement = Requirement(text)
    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), "run `make constraints`"


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(targets)
    shown = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, check=True, text=True)
    assert [line.split()[1] for line in shown.stdout.splitlines()] == targets


def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "-C", str(ROOT), "VENV=" + str(tmp_path / "venv"), f"PYTHON={old}", "venv"]
    result = subprocess.run(command, capture_output=True, check=False, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[0].startswith("Python 3.9.2 is too old: PoAI needs 3.11 or later")
    assert not (tmp_path / "venv").exists()


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/adr/README.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documented_targets_exist(name: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = re.findall(r"(?:^\$ |`)make ([a-z-]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    assert set(named) <= set(targets)


def test_every_decision_is_in_the_index() -> None:
    files = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md") if path.name != "0000-template.md")
    index = (ROOT / "docs" / "adr" / "README.md").read_text("utf-8")
    assert re.findall(r"^- \[.*\]\((.*)\)$", index, re.MULTILINE) == files
    for number, name in enumerate(files, 1):
        assert name.startswith(f"{number:04}-"), "numbered without gaps"
