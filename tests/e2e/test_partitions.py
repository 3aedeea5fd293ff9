"""Nodes that are divided, mine apart and meet again; and a long branch that gives way to a heavier one.

`tests/soak/test_partitions.py` does the first with real processes, lost packets and a hundred partitions.
"""

import gc
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import trio
from structlog.testing import capture_logs

from poai_spec.basics.containers import Block
from poai_spec.basics.notation import Address, Hash32, Milliseconds, tagged_hash
from poai_spec.chain.block import make_genesis
from poai_spec.execution.state import State, process_header
from poaid.net.libp2p.host import SILENCE_S
from poaid.network_file import Network, check_network
from poaid.produce.attempts import get_time, mine_block
from tests.harness.links import Link
from tests.harness.processes import PATIENCE_S, Made, Maker, make_vector_network, running, until

NODES = 5
ROUNDS = 2
INTERVAL_S = 15.0
"""Between blocks, as the rules aim at; the first twenty, which is all that is mined, come much faster."""
DIALLED = 2
"""Peers that a node dials, if there are so many before it."""
MAX_FUTURE: Milliseconds = 2_000
MOST_DELAY_S = 0.05
LEAD = 2
"""Blocks that the lightest part mines while it is apart; each other part one more."""
DEEP = 110
"""Blocks that a reorganisation replaces at least."""
SUBSIDY = 5 * 10**18

pytestmark = pytest.mark.trio


def make_slow_network() -> Network:
    """Return the vectors' network with a period of twenty blocks, each of some hundred quizzes at first."""
    network = make_vector_network()
    config = replace(
        network.config, retarget_blocks=20, spacing=int(INTERVAL_S * 1000), max_future=MAX_FUTURE,
        initial_target=2**256 // 100,
    )  # fmt: skip
    return check_network(replace(network, name="slow", config=config))


def make_fast_network() -> Network:
    """Return the vectors' network where every quiz wins for ever."""
    network = make_vector_network()
    config = replace(
        network.config, retarget_blocks=2**40, max_future=7_200_000, initial_target=2**256 - 1, max_target=2**256 - 1
    )
    return check_network(replace(network, name="fast", config=config))


def choose_tip(*tips: Hash32) -> Hash32:
    """Return which of some blocks of equal work is the head: `get_head` on the page `fork-choice`."""
    ordered = sorted(tips)
    return min(ordered, key=lambda tip: tagged_hash("PoAI/tie/1", *ordered, tip))


def get_miner(number: int) -> Address:
    return bytes([0x40 + number]) * 20


def set_clock(made: Made, ahead: Milliseconds) -> None:
    """Set the clock of a node that does not run yet."""
    made.node.importer.get_time = made.node.mining.get_time = lambda: get_time() + ahead


@dataclass
class Web:
    """Nodes, and the links by which they reach each other.

    Attributes:
        nodes: each has dialled those just before it.
        links: by the numbers of the dialling and the dialled node.
    """

    nodes: list[Made]
    links: dict[tuple[int, int], Link]

    def divide(self, parts: Sequence[Sequence[int]], rng: random.Random) -> None:
        """Cut all links between parts; every second one breaks the connections."""
        part_of = {node: number for number, part in enumerate(parts) for node in part}
        for (one, other), link in self.links.items():
            if part_of[one] != part_of[other]:
                link.cut(broken=rng.random() < 0.5)

    def join(self) -> None:
        """Mend all links."""
        for link in self.links.values():
            link.mend()

    def are_one(self) -> bool:
        """Tell whether all nodes have the same last block."""
        return len({made.head for made in self.nodes}) == 1


@asynccontextmanager
async def web_of(maker: Maker, count: int, rng: random.Random) -> AsyncIterator[Web]:
    """Run miners that do not mine yet; their clocks lie apart by what the rules allow, evenly."""
    async with trio.open_nursery() as nursery:
        web = Web([], {})
        for number in range(count):
            addresses = []
            for other, made in list(enumerate(web.nodes))[-DIALLED:]:
                link = web.links[number, other] = Link(made.node.options.p2p_port, rng.uniform(0, MOST_DELAY_S))
                await nursery.start(link.serve)
                addresses.append(f"/ip4/127.0.0.1/tcp/{link.port}/p2p/{made.node.network.peer_id}")
            made = maker.make(miner=get_miner(number), peer_multiaddrs=tuple(addresses), stop_height=0)
            set_clock(made, MAX_FUTURE * (2 * number - count + 1) // (2 * (count - 1)))
            web.nodes.append(made)
        async with running(*web.nodes):
            yield web
        nursery.cancel_scope.cancel()


def draw_parts(nodes: int, rng: random.Random) -> list[list[int]]:
    """Return the nodes in two or three parts."""
    order = rng.sample(range(nodes), nodes)
    cuts = [0, *sorted(rng.sample(range(1, nodes), rng.choice([1, 2]))), nodes]
    return [order[first:last] for first, last in pairwise(cuts)]


@pytest.mark.slow
async def test_parts_that_mined_apart_have_one_tip_within_two_intervals(maker: Maker) -> None:
    rng, network = random.Random(5), make_slow_network()
    maker = Maker(maker.folder / "slow", network, maker.judge.models[0].engine)
    with capture_logs() as logs:
        async with web_of(maker, NODES, rng) as web:
            count = 2 * len(web.links)
            await until(lambda: sum(len(made.node.peers.connected) for made in web.nodes) == count, "connected")
            for _ in range(ROUNDS):
                await divide_and_join(web, rng)
            for made in web.nodes:
                check_accounts(made, web.nodes[0])
    assert sum(line["event"] == "Reorganised" for line in logs) >= ROUNDS
    assert [line for line in logs if line["event"] in ("A peer broke a rule", "Peer banned")] == []


async def divide_and_join(web: Web, rng: random.Random) -> None:
    """Let parts mine branches of different lengths, then measure how long it takes until all have the longest."""
    parts, height = draw_parts(len(web.nodes), rng), web.nodes[0].height
    web.divide(parts, rng)
    for lead, part in enumerate(parts, LEAD):
        for number in part:
            web.nodes[number].node.mining.stop_height = height + lead
    ends = [(web.nodes[number], height + lead) for lead, part in enumerate(parts, LEAD) for number in part]
    await until(lambda: all(made.height >= end for made, end in ends), "each part has mined")
    assert len({made.head for made in web.nodes}) >= len(parts), "what is cut carries blocks"
    web.join()
    with trio.fail_after(2 * INTERVAL_S):
        await until(web.are_one, "one tip")
    assert web.nodes[0].height >= height + LEAD + len(parts) - 1


def check_accounts(made: Made, other: Made) -> None:
    """Compare a node's accounts with another's, and both with the subsidies of the chain's blocks."""
    state, headers = made.node.chain.state, made.node.chain.headers
    assert state == other.node.chain.state
    mined = [headers[height].core.miner for height in range(1, made.height + 1)]
    assert {miner: account.balance for miner, account in state.items()} == {
        miner: mined.count(miner) * SUBSIDY for miner in set(mined)
    }


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has other means")
async def test_the_kernel_ends_silent_connections(maker: Maker) -> None:
    """Both ends of a connection are set up so; `tests/soak/test_partitions.py` sees them end."""
    one = maker.make()
    other, port = maker.make(peers=[one]), one.node.options.p2p_port
    async with running(one, other):
        await until(lambda: bool(one.node.peers.connected), "they are connected")
        streams = [
            each for each in gc.get_objects() if isinstance(each, trio.SocketStream) and each.socket.fileno() >= 0
        ]
        ends = [each for each in streams if port in (each.socket.getsockname()[1], each.socket.getpeername()[1])]
        assert len(ends) == 2
        for end in ends:
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == SILENCE_S * 1000
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, every = (end.getsockopt(socket.IPPROTO_TCP, n) for n in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL))
            assert idle + every < SILENCE_S


async def mine_one_each(maker: Maker) -> list[Made]:
    """Return three nodes that are stopped, each with a block of its own on genesis."""
    apart = [maker.make(miner=get_miner(number), stop_height=1) for number in range(3)]
    folders = [made.store.path.parent for made in apart]
    async with running(*apart):
        await until(lambda: all(made.height == 1 for made in apart), "each has mined")
    return [maker.make(data_dir=folder) for folder in folders]


async def test_of_three_tips_of_equal_work_all_choose_one(maker: Maker) -> None:
    """The choice depends on all of them, and one that no peer has chosen is in nobody's status."""
    maker = Maker(maker.folder / "fast", make_fast_network(), maker.judge.models[0].engine)
    while True:
        nodes = await mine_one_each(maker)
        best = choose_tip(*(made.head for made in nodes))
        nodes.sort(key=lambda made: made.head != best)
        hub, left, right = nodes
        if choose_tip(hub.head, left.head) == left.head:  # it would stay with its own, unless it hears of the third
            break
        for made in nodes:
            made.store.close()
    async with running(hub, right):
        right.node.learn(hub.address, wanted=True)
        await until(lambda: len(hub.node.chain.tree.entries) == 3, "two tips")
        async with running(left):
            left.node.learn(hub.address, wanted=True)
            await until(lambda: {made.head for made in nodes} == {best}, "one tip")


def mine_branch(maker: Maker, count: int, miner: Address) -> list[Block]:
    """Return blocks that follow genesis."""
    state: State = {}
    blocks, chain = list[Block](), [make_genesis(maker.judge.config).header]
    for _ in range(count):
        *_, last = mine_block(chain, state, maker.judge, miner)
        blocks.append(last[-1].block)
        chain.append(blocks[-1].header)
        state = process_header(state, blocks[-1].header.core)
    return blocks


async def reorganise(maker: Maker, depth: int) -> float:
    """Mine two branches from genesis, each for a node of its own; let the nodes meet, and check what is left of one.

    Returns:
        The seconds from the first dial to the longer branch on both.
    """
    short = maker.make(blocks=mine_branch(maker, depth, get_miner(1)))
    long = maker.make(blocks=mine_branch(maker, depth + 10, get_miner(2)))
    check_accounts(short, short)
    with capture_logs() as logs:
        async with running(short, long):
            start = trio.current_time()
            short.node.learn(long.address, wanted=True)
            patience = PATIENCE_S + depth  # a second for each block: a tenth of that on a quiet machine
            await until(lambda: short.head == long.head, "the longer branch on both", patience)
            seconds = trio.current_time() - start
            check_accounts(short, long)
            assert get_miner(1) not in short.node.chain.state
            assert short.store.read_head() == long.head
    assert [line["depth"] for line in logs if line["event"] == "Reorganised"] == [depth]
    return seconds


@pytest.mark.slow
async def test_a_reorganisation_of_more_than_a_hundred_blocks(maker: Maker) -> None:
    """When two nodes meet that have mined alone, the shorter branch goes, and all that it had paid."""
    await reorganise(Maker(maker.folder / "fast", make_fast_network(), maker.judge.models[0].engine), DEEP)
