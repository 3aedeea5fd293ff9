"""A network that is divided at random, again and again, and each time becomes one.

Real `poaid run` processes mine poai-mini in network namespaces of their own. Between them every tenth packet is lost,
each link has a delay of its own, and the clocks differ by as much as the protocol allows. In each round the nodes are
divided into two or three parts for some time, and then joined; they have to show the same tip within two block
intervals. The short form has one round; `make soak` has `POAI_SOAK // 2`.
"""

import json
import multiprocessing
import random
import resource
import statistics
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, takewhile
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

import pytest
import trio

from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.basics.notation import keccak256
from poai_spec.chain.block import make_judge
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.engine import Engine, Evaluation
from poaid.chain import judges
from poaid.chain.verify import verify_store
from poaid.keys import IDENTITY_FILE, write_whole
from poaid.models import load_engine
from poaid.net.libp2p.host import SILENCE_S, get_peer_id
from poaid.network_file import Network, check_network, get_network, write_network
from poaid.produce.attempts import get_time
from poaid.store.database import Database
from tests.e2e.test_partitions import make_fast_network, reorganise
from tests.harness.driving import SOAK
from tests.harness.node import ignore
from tests.harness.processes import Maker
from tests.harness.soak import Poaid, started
from tests.harness.switch import Switch, enter, find_obstacle, get_address

ROUNDS = max(SOAK // 2, 1)
NODES = 7 if SOAK else 5
INTERVAL_S = 15.0
"""Between blocks, the testnet's; two of them may pass until there is one tip. The first period is faster."""
FASTER = 3 if SOAK else 10
"""How much faster."""
LOSS = 0.1
"""Share of the packets, each way."""
DELAYS_S = (0.005, 0.15)
"""Each way; drawn anew for each two nodes in each round."""
APART_S = (5.0, 45.0) if SOAK else (6.0, 6.0)
"""How long the parts are apart."""
TOGETHER_S = (1.0, 5.0)
"""From one tip to the next division."""
QUIZ_S = 0.02
"""What a quiz takes at least, as with a larger model on a core of one's own. Seven miners that keep two cores busy
would show how processes wait for each other."""
DEEP = 10
"""Blocks that the deepest reorganisation replaces, for each unit of `POAI_SOAK`."""
P2P_PORT = 4001
LOOK_S = 0.05
LAG_S = 3.0
"""How much later than it should a connection may end, on a busy machine."""
PATIENCE_S = 120.0
"""The longest that is waited for anything."""

pytestmark = [pytest.mark.sockets, pytest.mark.slow, pytest.mark.trio]


def make_divided_network() -> Network:
    """Return the testnet's rules with poai-mini and the target that the nodes' speed gives."""
    network, interval_ms = get_network("minimal", "mini"), int(INTERVAL_S * 1000)
    config = replace(
        network.config, epoch_blocks=20, retarget_blocks=10, spacing=interval_ms, max_future=interval_ms,
        initial_target=int(2**256 / (NODES * INTERVAL_S / QUIZ_S / FASTER)),
    )  # fmt: skip
    return check_network(replace(network, name="divided", config=config))


class SlowEngine:
    """Gives what another engine gives, a little later."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.profile, self.integer_model_root = engine.profile, engine.integer_model_root
        self.layer_count = engine.layer_count

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        time.sleep(QUIZ_S * len(tokens))
        return list(self._engine.evaluate(tokens, scored))

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[bytes | Evaluation]:
        time.sleep(QUIZ_S)
        yield from self._engine.steps(tokens, scored)


def prepare(node: int, port: Connection, ahead_ms: int) -> None:
    """Make a process that is to be a node one of its own network, clock and speed."""
    enter(node, port, ahead_ms)
    pytest.MonkeyPatch().setattr(judges, "load_engine", lambda *args, **named: SlowEngine(load_engine(*args, **named)))


@dataclass
class Member:
    """A node, seen through its log.

    Attributes:
        poaid: the process.
        folder: its data directory.
        peer_id: by which others know it.
        port: gives its network's other end.
        head: height and beginning of the hash of its last block.
        peers: the ids of those that it is connected to.
        depths: how many blocks each of its reorganisations has replaced.
    """

    poaid: Poaid
    folder: Path
    peer_id: str
    port: Connection
    head: tuple[int, str] = (0, "")
    peers: set[str] = field(default_factory=set)
    depths: list[int] = field(default_factory=list)
    _read: int = 0

    def look(self) -> None:
        """Read the lines that it has logged since the last look."""
        with self.poaid.log.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        lines = new[: new.rfind(b"\n") + 1]
        self._read += len(lines)
        for line in lines.decode().splitlines():
            assert line.startswith("{"), f"it has ended, or says what is no event: {self.poaid.text[-2_000:]}"
            event = json.loads(line)
            match event["event"]:
                case "Block mined!" | "New head":
                    self.head = event["height"], event["hash"]
                case "Reorganised":
                    self.depths.append(event["depth"])
                case "Peer connected":
                    self.peers.add(event["peer"])
                case "Peer disconnected":
                    self.peers.discard(event["peer"])
                case "Peer banned" | "A peer broke a rule":
                    raise AssertionError(line)


@contextmanager
def network_of(folder: Path, count: int) -> Iterator[list[Member]]:
    """Run nodes that each dial two others; their clocks lie apart by what the rules allow, evenly."""
    network = make_divided_network()
    write_network(network, folder / "divided.toml")
    seeds = [keccak256(b"node %d" % node) for node in range(count)]
    ids = [get_peer_id(seed) for seed in seeds]
    with ExitStack() as stack:
        members = []
        for node, seed in enumerate(seeds):
            data_dir = folder / f"node-{node}"
            data_dir.mkdir()
            write_whole(data_dir / IDENTITY_FILE, seed.hex() + "\n")
            dialled = [(node + step) % count for step in (1, 2)]
            arguments = [
                "run", "--data-dir", data_dir, "--network", folder / "divided.toml", "--model", "mini", "--threads", 1,
                "--no-mdns", "--p2p-host", get_address(node), "--p2p-port", P2P_PORT, "--http-port", 0,
                "--log-format", "json",
            ]  # fmt: skip
            for peer in dialled:
                arguments += ["--peer-multiaddr", f"/ip4/{get_address(peer)}/tcp/{P2P_PORT}/p2p/{ids[peer]}"]
            ahead_ms = network.config.max_future * (2 * node - count + 1) // (2 * (count - 1))
            ours, port = multiprocessing.Pipe()
            ready = partial(prepare, node, port, ahead_ms)
            poaid = stack.enter_context(started(data_dir.with_suffix(".log"), *arguments, prepare=ready))
            port.close()
            members.append(Member(poaid, data_dir, ids[node], ours))
        yield members


def are_one(members: Sequence[Member]) -> bool:
    """Tell whether all have the same last block."""
    return len({member.head for member in members}) == 1


def are_apart(parts: Sequence[Collection[Member]]) -> bool:
    """Tell whether no member knows of a connection to one in another part."""
    return not any(
        member.peers & {other.peer_id for part in parts if part is not own for other in part}
        for own in parts
        for member in own
    )


async def wait_until(members: Sequence[Member], what: str, condition: partial[bool]) -> float:
    """Return after how many seconds a condition is met."""
    start = trio.current_time()
    while True:
        for member in members:
            member.look()
        passed = trio.current_time() - start
        if condition():
            return passed
        assert passed < PATIENCE_S, f"not in {passed:.0f} s: {what}; {[member.head for member in members]}"
        await trio.sleep(LOOK_S)


def draw_parts(members: Sequence[Member], rng: random.Random) -> list[list[Member]]:
    """Return the nodes in two or three parts."""
    order = rng.sample(members, len(members))
    cuts = [0, *sorted(rng.sample(range(1, len(order)), rng.choice([1, 2]))), len(order)]
    return [order[first:last] for first, last in pairwise(cuts)]


@dataclass
class Round:
    """One division.

    Attributes:
        parts: nodes in each part.
        apart: seconds before it was healed.
        tips: different last blocks then.
        seconds: from there to one tip.
    """

    parts: tuple[int, ...]
    apart: float
    tips: int
    seconds: float


async def divide_and_join(members: Sequence[Member], switch: Switch, rng: random.Random) -> Round:
    """Divide the network, join it, and wait until it is one."""
    parts, apart = draw_parts(members, rng), rng.uniform(*APART_S)
    switch.set_delays(*DELAYS_S)
    switch.divide([[members.index(member) for member in part] for part in parts])
    await trio.sleep(apart)
    for member in members:
        member.look()
    if apart > 2 * SILENCE_S + LAG_S:  # what was sent to a silent peer may be as old as the silence was then
        assert are_apart(parts), "a connection outlives its network"
    tips = len({member.head for member in members})
    switch.join()
    seconds = await wait_until(members, "one tip", partial(are_one, members))
    return Round(tuple(map(len, parts)), apart, tips, seconds)


async def test_divided_nodes_become_one(tmp_path: Path, mini_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (obstacle := find_obstacle()) is not None:
        pytest.skip(obstacle)
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))
    rng, rounds = random.Random(SOAK), list[Round]()
    with network_of(tmp_path, NODES) as members:
        async with trio.open_nursery() as nursery:
            switch = Switch({node: recv_handle(member.port) for node, member in enumerate(members)}, LOSS, rng)
            switch.set_delays(*DELAYS_S)
            nursery.start_soon(switch.run)
            await wait_until(members, "connected", partial(lambda: all(len(member.peers) == 4 for member in members)))
            for _ in range(ROUNDS):
                rounds.append(await divide_and_join(members, switch, rng))
                if SOAK:
                    print(rounds[-1], flush=True)
                    await trio.sleep(rng.uniform(*TOGETHER_S))
            nursery.cancel_scope.cancel()
    height = verify_all(members, mini_path)
    report(rounds, members, switch, height)
    assert max(each.seconds for each in rounds) < 2 * INTERVAL_S
    assert not SOAK or max(each.tips for each in rounds) > 1, "no part has mined anything"


@pytest.mark.skipif(not SOAK, reason="`tests/e2e/test_partitions.py` has the short form")
async def test_a_deep_reorganisation(tmp_path: Path, mini_path: Path) -> None:
    network, depth = make_fast_network(), DEEP * SOAK
    maker = Maker(tmp_path, network, load_engine(str(mini_path), get_rules(network.config, (), 0), 1))
    seconds = await reorganise(maker, depth)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"a reorganisation of {depth} blocks took {seconds:.1f} s; both nodes and the test had {memory} MiB at most")


def verify_all(members: Sequence[Member], model: Path) -> int:
    """Replay what each has stored; return the height up to which all have the same blocks."""
    network = make_divided_network()
    judge = make_judge(network.config, network.questions, load_engine(str(model), get_rules(network.config, (), 0), 1))
    chains = []
    for member in members:
        with Database.open(member.folder) as store:
            verify_store(store, judge, get_time() + network.config.max_future, ignore)
            chains.append([row.block_hash for row in store.read_chain()])
    common = len(list(takewhile(lambda hashes: len(set(hashes)) == 1, zip(*chains, strict=False))))
    assert common > 0
    return common


def report(rounds: Sequence[Round], members: Sequence[Member], switch: Switch, height: int) -> None:
    """Print the figures of the page `reliability`."""
    times = sorted(each.seconds for each in rounds)
    forks = sum(each.tips > 1 for each in rounds)
    depths = [depth for member in members for depth in member.depths]
    print(
        f"{len(rounds)} divisions of {len(members)} nodes, {height} blocks, {switch.lost} packets lost, "
        f"{switch.carried} carried; {forks} times with several tips; one tip after {statistics.median(times):.1f} s in "
        f"the median, {times[int(0.9 * len(times))]:.1f} s in nine of ten, {times[-1]:.1f} s at most; "
        f"{len(depths)} reorganisations, the deepest of {max(depths, default=0)} blocks"
    )
