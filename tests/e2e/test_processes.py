"""Real `poaid` processes: killed in the middle, refused, and asked over HTTP."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from poai_spec.chain.block import make_judge
from poai_spec.chain.upgrades import get_rules
from poaid.models import load_engine
from poaid.network_file import write_network
from poaid.store.database import Database
from tests.harness.processes import PATIENCE_S, fill, get_free_port, make_vector_network, read_chain

POAID = str(Path(sys.executable).with_name("poaid"))


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "vectors.toml"
    write_network(make_vector_network(), path)
    return path


class Process:
    """A `poaid run` process that is asked over HTTP."""

    def __init__(self, data_dir: Path, network_file: Path, *flags: str) -> None:
        self.p2p_port, self.http_port = get_free_port(), get_free_port()
        self.log = data_dir.with_suffix(".log")
        command = [
            POAID, "--data-dir", str(data_dir), "--network", str(network_file), "--model", "mini", "--threads", "1",
            "--p2p-host", "127.0.0.1", "--p2p-port", str(self.p2p_port), "--http-port", str(self.http_port),
            "--no-mdns", "--log-format", "json", *flags,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def wait_for(self, path: str, key: str, least: int) -> Any:
        """Ask until a number is large enough; return the whole answer."""
        deadline, answer = time.monotonic() + PATIENCE_S, None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text("utf-8")
            try:
                answer = self.get(path)
            except OSError:  # not up yet
                answer = None
            if answer is not None and answer[key] >= least:
                return answer
            time.sleep(0.05)
        raise AssertionError(f"{path} {key} did not reach {least}: {answer}\n{self.log.read_text('utf-8')}")

    @property
    def address(self) -> str:
        return str(self.get("/status")["addresses"][0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Interrupt it as Ctrl-C does; return its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=PATIENCE_S)


@contextmanager
def started(data_dir: Path, network_file: Path, *flags: str) -> Iterator[Process]:
    process = Process(data_dir, network_file, *flags)
    try:
        yield process
    finally:
        process.kill()


def verify(data_dir: Path) -> str:
    done = subprocess.run(
        [POAID, "verify", "--data-dir", str(data_dir)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.slow
def test_killed_while_it_syncs_it_goes_on(tmp_path: Path, network_file: Path, mini_path: Path) -> None:
    """SIGKILL at several heights of a sync: the last block that it showed is there, and the rest comes."""
    network = make_vector_network()
    judge = make_judge(
        network.config, network.questions, load_engine(str(mini_path), get_rules(network.config, (), 0), 1)
    )
    with Database.create_or_open(tmp_path / "old", network, "mini") as store:
        fill(store, judge, read_chain())
    with started(tmp_path / "old", network_file, "--no-mine") as old:
        old.wait_for("/status", "height", 200)
        flags, shown = ("--no-mine", "--peer-multiaddr", old.address), 0
        for height in (1, 40, 90):
            with started(tmp_path / "new", network_file, *flags) as new:
                status = new.wait_for("/status", "height", height)
                assert status["height"] >= shown
                shown = status["height"]
        with started(tmp_path / "new", network_file, *flags) as new:
            status = new.wait_for("/status", "height", 200)
            assert status["head"] == old.get("/status")["head"]
            assert new.stop() == 0
    assert verify(tmp_path / "new").startswith("200 blocks of network ")


@pytest.mark.slow
def test_killed_while_it_mines_it_goes_on(tmp_path: Path, network_file: Path) -> None:
    shown = 0
    for height in (3, 6, 9):
        with started(tmp_path / "miner", network_file) as miner:
            status = miner.wait_for("/status", "height", height)
            assert status["height"] >= shown
            shown = status["height"]
    assert int(verify(tmp_path / "miner").split()[0]) >= shown


def test_three_miners_agree(tmp_path: Path, network_file: Path) -> None:
    with (
        started(tmp_path / "a", network_file, "--stop-height", "12") as a,
        started(tmp_path / "b", network_file, "--stop-height", "12") as b,
    ):
        a.wait_for("/status", "uptime", 0)
        flags = ("--stop-height", "12", "--peer-multiaddr", a.address)
        with started(tmp_path / "c", network_file, *flags, "--peer-multiaddr", wait_for_address(b)) as c:
            nodes = (a, b, c)
            for node in nodes:
                node.wait_for("/status", "height", 12)
            deadline = time.monotonic() + PATIENCE_S
            while len({node.get("/blocks/12")["hash"] for node in nodes}) > 1:
                assert time.monotonic() < deadline, "three tips"
                time.sleep(0.1)
            balances = [node.get(f"/address/{a.get('/status')['miner']}")["balance"] for node in nodes]
            assert len(set(balances)) == 1
            assert [node.stop() for node in nodes] == [0, 0, 0]


def wait_for_address(node: Process) -> str:
    node.wait_for("/status", "uptime", 0)
    return node.address


@pytest.mark.slow
def test_a_taken_port_and_a_bad_peer_are_said_in_one_line(tmp_path: Path, network_file: Path) -> None:
    with started(tmp_path / "first", network_file, "--no-mine") as first:
        first.wait_for("/status", "uptime", 0)
        command = [POAID, "--data-dir", str(tmp_path / "x"), "--network", str(network_file), "--model", "mini",
                   "--no-mdns", "--p2p-host", "127.0.0.1", "--p2p-port"]  # fmt: skip
        for flags, status, message in (
            ([str(first.p2p_port)], 1, "Address already in use; give another --p2p-port"),
            ([str(get_free_port()), "--http-port", str(first.http_port)], 1, "give another --http-port"),
            ([str(get_free_port()), "--peer-multiaddr", "/ip4/127.0.0.1"], 2, "cannot be dialled"),
        ):
            done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
            last = json.loads(done.stderr.splitlines()[-1])  # the log's format, to the last line
            assert (done.returncode, last["level"], message in last["event"]) == (status, "critical", True), done.stderr
            assert "Traceback" not in done.stderr
