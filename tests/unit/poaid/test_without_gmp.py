"""tools/fastecdsa in the place of fastecdsa: a node needs nothing of it, and what is called of it says so."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STAND_IN = ROOT / "tools" / "fastecdsa"
RUN = """
import sys
sys.path[:0] = sys.argv[1:3]
import fastecdsa
assert fastecdsa.__file__.startswith(sys.argv[1]), fastecdsa.__file__
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[3]]))
"""
CALLS = ["keys.gen_private_key(1)", "keys.get_public_key(1, 2)", "sec1.SEC1Encoder.decode_public_key(b'')"]

pytestmark = pytest.mark.sockets


@pytest.mark.slow
def test_two_nodes_agree_on_the_stand_in() -> None:
    """Real hosts on loopback, with Noise, in a process that has the stand-in in front of the real package."""
    test = ROOT / "tests" / "e2e" / "test_sync.py"
    command = [
        sys.executable,
        "-c",
        RUN,
        str(STAND_IN),
        str(ROOT),
        f"{test}::test_another_network_is_refused_with_a_reason",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("call", CALLS)
def test_what_is_called_of_it_says_so(call: str) -> None:
    path = "import sys; sys.path.insert(0, sys.argv[1])"
    script = f"{path}; from fastecdsa import keys; from fastecdsa.encoding import sec1; {call}"
    done = subprocess.run([sys.executable, "-c", script, STAND_IN], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("NotImplementedError: this is PoAI's stand-in for fastecdsa")


def test_it_has_the_version_of_the_constraints() -> None:
    found = tomllib.loads((STAND_IN / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert f"fastecdsa=={found.partition('+')[0]}" in lines
    assert version("libp2p") in next(line for line in lines if line.startswith("libp2p=="))
