"""The worked client in JavaScript, written from the pages alone, agrees with every vector; broken, it is located.

Needs Node 20 and npm; a machine without them says so. `npm ci` installs the client's one dependency.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "test_vectors" / "clients" / "javascript"

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="Node 20 and npm are not installed"),
]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of test_vectors with the client installed: nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("vectors") / "test_vectors"
    shutil.copytree(ROOT / "test_vectors", folder, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(ROOT / "specs", folder.parent / "specs")
    command = ["npm", "ci", "--no-audit", "--no-fund", "--prefix", str(folder / "clients" / "javascript")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def check(vectors: Path, *options: str) -> subprocess.CompletedProcess[str]:
    client = f"node {vectors / 'clients' / 'javascript' / 'main.js'}"
    command = [str(Path(sys.executable).parent / "poai"), "vectors", "check", "--client", client, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("suite", ["drbg", "header", "weights"])
def test_the_client_passes_a_suite(vectors: Path, suite: str) -> None:
    done = check(vectors, "--suite", suite)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_the_client_passes_every_vector(vectors: Path) -> None:
    done = check(vectors)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_a_client_broken_in_one_step_is_located(vectors: Path) -> None:
    source = vectors / "clients" / "javascript" / "inference.js"
    text = source.read_text("utf-8")
    start = text.index("function swiglu(")
    broken = text[:start] + text[start:].replace("<< 16n", "<< 15n", 1)
    assert broken != text
    try:
        source.write_text(broken, "utf-8")
        done = check(vectors, "--suite", "inference", "--bisect")
    finally:
        source.write_text(text, "utf-8")
    assert done.returncode == 1
    assert "layer 1, step act" in done.stdout, done.stdout[-3000:]
