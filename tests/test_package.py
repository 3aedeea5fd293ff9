"""The distributions: what they hold, and that an installed wheel works where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
CODE = {
    "poai_spec": "poai_spec",
    "node/poai_engine": "poai_engine",
    "node/poaid": "poaid",
    "tools/poai_bench": "poai_bench",
    "tools/poai_build": "poai_build",
    "tools/poai_tools": "poai_tools",
}
"""Folder in the repository -> package in the wheel."""
BUILD = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
PATIENCE_S = 300

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says what the distributions should hold"),
]


def list_files() -> list[str]:
    """Return the files that git tracks, or would: no ignored ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return [name for name in names if (ROOT / name).is_file()]


def name_in_wheel(name: str) -> str | None:
    """Return where a file of the repository is installed; None if it is not."""
    path = PurePosixPath(name)
    if path.parts[0] == "specs" and path.suffix == ".md":
        return f"poai_spec/pages/{path.relative_to('specs')}"
    if path.suffix == ".json" and path.parts[0] == "test_vectors" and path.parts[1] != "clients":
        return f"poai_tools/{name}"
    return next((f"{CODE[str(p)]}/{path.relative_to(p)}" for p in path.parents if str(p) in CODE), None)


@dataclass(frozen=True)
class Built:
    """Both distributions of the working tree."""

    source: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the source distribution from a copy of the repository, and the wheel from that, as `make release` does."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    for name in list_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([*BUILD, str(out), str(tree)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Built(*out.glob("*.tar.gz"), *out.glob("*.whl"))


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, an empty home and an empty folder to run in."""

    folder: Path
    home: Path

    def run(self, *words: str) -> str:
        """Run a command from the empty folder; return what it printed."""
        command = [str(self.folder / "bin" / words[0]), *words[1:]]
        environment = {"HOME": str(self.home), "PATH": os.defpath, "LANG": "C.UTF-8"}
        work = self.home / "work"
        work.mkdir(exist_ok=True)
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel alone; the packages that it needs are those of this interpreter."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        str(folder / "bin" / "python"),
    ]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(built.wheel)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # The path alone: the .pth files in there, and so the editable install of the checkout, are not read.
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(folder, tmp_path_factory.mktemp("home"))


@pytest.mark.slow
def test_the_source_distribution_holds_the_repository(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or name.startswith("poai.egg-info/")}
    assert names - made == set(list_files())


@pytest.mark.slow
def test_the_wheel_holds_packages_pages_and_vectors(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(names) == sorted(filter(None, map(name_in_wheel, list_files())))


@pytest.mark.slow
def test_the_pages_are_at_hand(installed: Installed) -> None:
    place = installed.run("poai", "spec", "where", "difficulty/target").split()[0]
    page, _, number = place.rpartition(":")
    assert Path(page).is_relative_to(installed.folder)
    lines = Path(page).read_text("utf-8").splitlines()
    assert '"difficulty/target"' in lines[int(number) - 1]


@pytest.mark.slow
def test_the_vectors_are_at_hand(installed: Installed) -> None:
    assert "│ drbg" in installed.run("poai", "vectors", "check", "--suite", "drbg")


@pytest.mark.slow
def test_nodes_mine_and_agree(installed: Installed) -> None:
    shown = installed.run("poaid", "testnet", "--model", "mini", "--nodes", "2", "--blocks", "2")
    assert "All 2 nodes agree at height" in shown


def test_fragments_of_news_are_well_named() -> None:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
