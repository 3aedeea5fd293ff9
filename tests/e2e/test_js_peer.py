"""A peer on js-libp2p, written from the pages, among `poaid` processes: two libraries and two sets of rules agree.

Needs Node 20 or later and npm; where it was not done yet, it runs `npm ci` in `tests/e2e/js_peer` and in the client.
"""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from poai_spec.chain.networking import BAN_SCORE, Reason, Result
from poaid.network_file import write_network
from tests.e2e.test_processes import Process, started, verify, wait_for_address
from tests.harness.processes import PATIENCE_S, make_vector_network

ROOT = Path(__file__).parents[2]
PEER = Path(__file__).with_name("js_peer")
CLIENT = ROOT / "test_vectors" / "clients" / "javascript"
MIN_NODE = 20
"""The oldest major version of Node that js-libp2p 3 runs on."""
INSTALL_S = 120
INITIAL_TARGET = 2**250
"""Every 64th quiz of poai-mini wins: a block takes about a second, which is the network's spacing."""
FOLLOWED = 50
"""Blocks that the peer follows while they are mined."""
GOSSIPED = 3
"""Blocks that must have come by gossip: some come by sync, where one overtakes its parent."""

pytestmark = pytest.mark.slow


def _get_node_version() -> int:
    """Return the major version of Node; 0 if it or npm is not there."""
    if not (shutil.which("node") and shutil.which("npm")):
        return 0
    shown = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(shown.removeprefix("v").partition(".")[0])


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if _get_node_version() < MIN_NODE:
        pytest.skip(f"no Node {MIN_NODE} or later with npm: install both to test the js-libp2p peer")
    for folder in (CLIENT, PEER):
        if (folder / "node_modules").exists():
            continue
        done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_S)
        if done.returncode:
            pytest.skip(f"`npm ci` failed: run it in {folder.relative_to(ROOT)} where a package registry is at hand")


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vectors' network, but with blocks that take longer than their gossip from the first one on."""
    network, path = make_vector_network(), tmp_path_factory.mktemp("network") / "slow.toml"
    write_network(replace(network, config=replace(network.config, initial_target=INITIAL_TARGET)), path)
    return path


class JsPeer:
    """A `node peer.js` process and what it has said; `log` gets both, line by line."""

    def __init__(self, log: Path, network_file: Path, *flags: str) -> None:
        self.log = log
        command = ["node", str(PEER / "peer.js"), "--network", str(network_file), *flags]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All that it has said so far."""
        lines = self.log.read_text("utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the events of a name whose fields have these values."""
        wanted = {"event": event, **fields}
        return [said for said in self.events if wanted.items() <= said.items()]

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for such an event; return the first."""
        until(lambda: bool(self.find(event, **fields)), f"{event} {fields} in {self.log}")
        return self.find(event, **fields)[0]

    @property
    def address(self) -> str:
        return str(self.wait_for("listening")["address"])

    @property
    def peer_id(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def head(self) -> str | None:
        """Hash of its head; None while that is genesis."""
        heads = self.find("head")
        return str(heads[-1]["hash"]) if heads else None


@contextmanager
def started_js(log: Path, network_file: Path, *flags: str) -> Iterator[JsPeer]:
    peer = JsPeer(log, network_file, *flags)
    try:
        yield peer
        peer.process.terminate()
        assert peer.process.wait(timeout=PATIENCE_S) == 0, log.read_text("utf-8")
    finally:
        peer.process.kill()
        peer.process.wait()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.05)


def wait_for_height(node: Process, height: int) -> None:
    """Wait for a height that may be far, as long as there is progress."""
    for reached in [*range(0, height, 5), height]:
        node.wait_for("/status", "height", reached)


def read_log(node: Process, event: str) -> list[dict[str, Any]]:
    """Return the lines of a node's log that begin with an event."""
    lines = map(json.loads, node.log.read_text("utf-8").splitlines())
    return [line for line in lines if line["event"].startswith(event)]


def count_blocks(node: Process, source: str) -> int:
    """Return how many blocks have come to a node by `gossip`, by `sync`, or were `mined` there."""
    with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode("utf-8")
    found = re.search(rf'^poai_blocks_imported_total{{source="{source}"}} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


def has_gossip(node: Process) -> bool:
    return count_blocks(node, "gossip") >= GOSSIPED


def test_it_follows_a_testnet_and_serves_what_it_has(network_file: Path, tmp_path: Path) -> None:
    """Fifty blocks of two miners reach it as they are mined; a fresh node gets all of them from it alone."""
    stop = ("--stop-height", str(FOLLOWED))
    with (
        started(tmp_path / "a", network_file, *stop) as a,
        started_js(tmp_path / "js.log", network_file, "--peer", wait_for_address(a)) as js,
        started(tmp_path / "b", network_file, *stop, "--peer-multiaddr", a.address) as b,
    ):
        for node in (a, b):
            wait_for_height(node, FOLLOWED)
        js.wait_for("head", height=FOLLOWED)
        until(lambda: {a.get("/status")["head"], b.get("/status")["head"]} == {js.head}, "one head")
        head = js.head
        assert js.find("fault") == []
        assert [a.stop(), b.stop()] == [0, 0]
        flags = ("--no-mine", "--peer-multiaddr", js.address)
        with started(tmp_path / "new", network_file, *flags) as new:
            wait_for_height(new, FOLLOWED)
            assert new.get("/status")["head"] == head
            assert count_blocks(new, "sync") == FOLLOWED
            assert new.stop() == 0
    assert verify(tmp_path / "new").startswith(f"{FOLLOWED} blocks of network ")


@pytest.mark.parametrize("flags", [(), ("--no-mesh",)], ids=["mesh", "announced"])
def test_blocks_pass_through_it_both_ways(network_file: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """What a node mines reaches another that is connected to it only by gossip; without a mesh by IHAVE and IWANT."""
    with started_js(tmp_path / "js.log", network_file, *flags) as js:
        for names in (("a", "b"), ("b", "a")):
            miner, other = (tmp_path / name for name in names)
            dial = ("--peer-multiaddr", js.address)
            with started(other, network_file, "--no-mine", *dial) as follower:
                wait_for_address(follower)
                with started(miner, network_file, *dial) as source:
                    until(partial(has_gossip, follower), f"{GOSSIPED} gossiped blocks in {follower.log}")
                    peers = [[peer["peer_id"] for peer in node.get("/peers")] for node in (source, follower)]
                    assert peers == [[js.peer_id]] * 2
        assert js.find("fault") == []


def test_a_false_block_bans_it(network_file: Path, tmp_path: Path) -> None:
    with started(tmp_path / "a", network_file, "--stop-height", "2") as a:
        wait_for_height(a, 2)
        flags = ("--peer", a.address, "--fault", "false-trace")
        with started_js(tmp_path / "js.log", network_file, *flags) as js:
            false = js.wait_for("false block")
            until(lambda: len(js.find("disconnected")) >= 2, "it is sent away, and again when it comes back")
            assert {line["rule"] for line in read_log(a, "Peer banned")} == {"work/trace"}
            assert a.get("/status")["height"] == 2
            assert a.get("/status")["head"] != false["hash"]


def test_it_bans_who_sends_a_false_block(network_file: Path, tmp_path: Path) -> None:
    with started_js(tmp_path / "js.log", network_file) as js:
        flags = ("--peer", js.address, "--fault", "false-trace")
        with started_js(tmp_path / "liar.log", network_file, *flags) as liar:
            fault = js.wait_for("fault")
            assert (fault["peer"], fault["code"], fault["points"]) == (liar.peer_id, "work/trace", BAN_SCORE)
            liar.wait_for("goodbye", peer=js.peer_id, reason=Reason.FAULT)
            assert js.find("head") == []


def test_a_status_of_another_network_is_refused(network_file: Path, tmp_path: Path) -> None:
    with started(tmp_path / "a", network_file, "--no-mine") as a:
        a.wait_for("/status", "uptime", 0)
        flags = ("--peer", a.address, "--fault", "other-network")
        with started_js(tmp_path / "js.log", network_file, *flags) as js:
            assert js.wait_for("refused")["result"] == Result.OTHER_NETWORK
            until(lambda: a.get("/peers") == [], "the connection is closed")
        assert read_log(a, "Peer refused: it is on network ") != []


def test_it_refuses_another_network(network_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(network_file.read_text("utf-8").replace("spacing = 1000", "spacing = 2000"), "utf-8")
    with started_js(tmp_path / "js.log", network_file) as js:
        flags = ("--no-mine", "--peer-multiaddr", js.address)
        with started(tmp_path / "a", other, *flags) as a:
            js.wait_for("other network")
            until(lambda: read_log(a, "Refused by a peer of another network") != [], "the node says why")
            until(lambda: read_log(a, "Peer says goodbye") != [], "it says goodbye")
            assert read_log(a, "Peer says goodbye")[0]["reason"] == "other network"
