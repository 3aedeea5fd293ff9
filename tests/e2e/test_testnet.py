"""`poaid testnet` with real nodes of poai-mini: they agree, or end with one clear line, and no process stays."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from poaid.testnet.summary import Summary
from tests.harness.processes import PATIENCE_S

POAID = str(Path(sys.executable).with_name("poaid"))
END_S = 4 * PATIENCE_S
"""The longest that a whole run may take; on a quiet machine all take ten seconds."""

pytestmark = pytest.mark.slow


def start(folder: Path, *flags: object) -> subprocess.Popen[str]:
    command = [POAID, "testnet", "--model", "mini", "--data-dir", folder, *flags]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def find_processes(folder: Path) -> list[str]:
    """Return the command lines of processes that name the folder."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A testnet's folder; when the test ends, none of its processes runs."""
    yield tmp_path / "testnet"
    assert find_processes(tmp_path / "testnet") == []


@pytest.fixture
def endless(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A testnet that has mined a block, of far more than a test waits for."""
    with start(folder, "--blocks", 100_000, "--target", 5) as process:
        assert process.stderr is not None
        lines = list(takewhile(lambda line: not re.match(r"\d+:\d\d block \d+ ", line), process.stderr))
        assert process.poll() is None, lines
        assert len([line for line in find_processes(folder) if "--p2p-port" in line]) == 3
        yield process


def test_three_nodes_agree(folder: Path, tmp_path: Path) -> None:
    files = ("--json", tmp_path / "summary.json", "--record", tmp_path / "picture.svg")
    out, err = (process := start(folder, "--blocks", 5, *files)).communicate(timeout=END_S)
    assert process.returncode == 0, out + err
    summary: Summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert (summary["agree"], summary["difference"], summary["stopped"]) == (True, None, False)
    assert {node["head"] for node in summary["nodes"]} == {summary["blocks"][-1]["hash"]}
    assert [block["height"] for block in summary["blocks"]] == [1, 2, 3, 4, 5]
    assert sum(node["on_chain"] for node in summary["nodes"]) == 5
    assert sum(int(node["balance"]) for node in summary["nodes"]) == 25 * 10**18
    assert {block["miner"] for block in summary["blocks"]} <= {"node 0", "node 1", "node 2"}
    assert summary["propagation"] is not None
    assert summary["propagation"]["count"] == 10
    assert out.startswith("All 3 nodes agree at height 5 after ")
    assert (tmp_path / "picture.svg").read_text("utf-8").startswith("<svg")
    for n in range(3):
        verified = subprocess.run(
            [POAID, "verify", "--data-dir", folder / f"node-{n}"], capture_output=True, text=True, check=False
        )
        assert verified.returncode == 0, verified.stderr
        assert verified.stdout.startswith("5 blocks of network ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(endless: subprocess.Popen[str], folder: Path, number: signal.Signals) -> None:
    endless.send_signal(number)
    out, err = endless.communicate(timeout=PATIENCE_S)
    assert endless.returncode == 128 + number, err
    assert out.startswith("Stopped after ")
    assert err.endswith("stopped before the end\n")


def test_nodes_end_with_a_testnet_that_is_killed(endless: subprocess.Popen[str], folder: Path) -> None:
    """Nothing that a process could still do when it gets SIGKILL: its nodes notice that their input has ended."""
    endless.kill()
    endless.communicate(timeout=PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while find_processes(folder) and time.monotonic() < end:
        time.sleep(0.1)
    assert not find_processes(folder)
    for n in range(3):
        assert "the process that started this node has ended" in (folder / f"node-{n}.log").read_text("utf-8")


def test_a_node_that_dies_ends_all(endless: subprocess.Popen[str], folder: Path) -> None:
    os.kill(json.loads((folder / "node-1" / "running.json").read_text("utf-8"))["pid"], signal.SIGKILL)
    out, err = endless.communicate(timeout=PATIENCE_S)
    assert endless.returncode == 1
    assert f"error: node 1 was ended by signal 9; its log {folder / 'node-1.log'} ends with: " in err
    assert err.splitlines()[-1].startswith("error: ")
    assert f"  chains and logs: {folder}; " in out
