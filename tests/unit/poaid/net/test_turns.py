"""How long a message of a peer keeps the event loop to itself, for every kind of message at its limits.

Measured is the CPU time of the thread between two moments at which other tasks may run, so neither a busy machine nor a
slow disk counts; of some runs the best, because a cold cache is nobody's message. A machine may be three times as slow
as the one that the figures in `docs/performance.md` are from before the bound is met.
"""

import gc
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.yamux.yamux import FLAG_SYN, TYPE_DATA, TYPE_PING, TYPE_WINDOW_UPDATE, YAMUX_HEADER_FORMAT
from libp2p.tools.anyio_service.trio_manager import TrioManager
from libp2p.utils.varint import encode_varint_prefixed

from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Hash32, Malformed, SpecError
from poai_spec.chain.networking import (
    BLOCKS_PROTOCOL,
    GOODBYE_PROTOCOL,
    HEADERS_PROTOCOL,
    MAX_BLOCKS,
    MAX_BLOCKS_BYTES,
    MAX_GOSSIP_BYTES,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_LOCATOR,
    RESULT_BYTES,
    STATUS_PROTOCOL,
    Blocks,
    BlocksRequest,
    Goodbye,
    Headers,
    HeadersRequest,
    Result,
    get_blocks_topic,
)
from poaid.chain.admission import Sender
from poaid.chain.judges import Models
from poaid.net.handlers import TURN_BUDGET_S
from poaid.net.libp2p.gossip import MAX_LISTED_IDS, MAX_RPC_MESSAGES, MAX_RPC_PARTS, MESHSUB, check_counts
from poaid.net.libp2p.session import Session
from poaid.net.libp2p.streams import BROKEN
from poaid.net.peers import Peer, Peers
from poaid.net.sync import Ask, Sync
from poaid.net.transport import Transport
from poaid.node import Node, Options
from poaid.store.database import Database
from tests.harness import importing
from tests.harness.importing import Made, grow_line, make_easy_judge, make_easy_network, make_root
from tests.unit.poaid.net.test_libp2p_limits import PARTS, Wire
from tests.unit.poaid.net.test_transport import (
    ECHO,
    PATIENCE_S,
    TOPIC,
    Owner,
    Stranger,
    make_network,
    message,
    networks,
    stranger,
)

RUNS = 5
PEER = ID.from_string("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")
LAYERS = 255
"""Of the model: one fewer than are allowed at most, so that blocks have 8,420 bytes."""

pytestmark = pytest.mark.sockets


class Turns(trio.abc.Instrument):
    """Measures the longest turn of any task, in seconds of CPU time."""

    def __init__(self) -> None:
        self.longest, self._start = 0.0, time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._start = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, time.thread_time() - self._start)


def measure(*messages: Callable[[], Awaitable[object]]) -> float:
    """Return the longest turn of the best run; each run gets a message of its own."""
    found = []
    gc.disable()
    try:
        for one in messages:
            turns = Turns()
            trio.run(one, instruments=[turns])
            found.append(turns.longest)
    finally:
        gc.enable()
    return min(found)


# Gossip.


class Stream:
    """A stream with bytes to be read; what is written to it is thrown away."""

    def __init__(self, data: bytes) -> None:
        self._data, self._taken = data, 0

    async def read(self, size: int) -> bytes:
        self._taken += size
        return self._data[self._taken - size : self._taken]

    async def write(self, data: bytes) -> None: ...


def fill_rpc(kind: str) -> bytes:
    """Return the largest RPC of one kind that is let through."""
    ids = [number.to_bytes(32, "big") for number in range(MAX_LISTED_IDS)]
    topic: dict[str, Any] = {"topicID": TOPIC}
    filled: dict[str, Callable[[], dict[str, Any]]] = {
        "ihave": lambda: {"ihave": [rpc_pb2.ControlIHave(**topic, messageIDs=ids)]},
        "iwant": lambda: {"iwant": [rpc_pb2.ControlIWant(messageIDs=ids)]},
        "idontwant": lambda: {"idontwant": [rpc_pb2.ControlIDontWant(messageIDs=ids)]},
        "graft": lambda: {"graft": [rpc_pb2.ControlGraft(**topic)] * MAX_RPC_PARTS},
        "prune": lambda: {
            "prune": [rpc_pb2.ControlPrune(**topic, peers=[rpc_pb2.PeerInfo(peerID=bytes(1_000))])] * MAX_RPC_PARTS
        },
    }
    if kind in filled:
        return rpc_pb2.RPC(control=rpc_pb2.ControlMessage(**filled[kind]())).SerializeToString()
    if kind == "all":
        parts = {name: value for make in filled.values() for name, value in make().items()}
        publish = [message(bytes([n]) * 8_000) for n in range(MAX_RPC_MESSAGES)]
        control = rpc_pb2.ControlMessage(**parts)
        return rpc_pb2.RPC(publish=publish[:40], control=control).SerializeToString()
    if kind == "subscriptions":
        flags = (n % 2 == 0 for n in range(MAX_RPC_PARTS))
        made = [rpc_pb2.RPC.SubOpts(subscribe=flag, topicid=TOPIC) for flag in flags]
        return rpc_pb2.RPC(subscriptions=made).SerializeToString()
    if kind == "one message":
        return rpc_pb2.RPC(publish=[message(bytes(MAX_GOSSIP_BYTES - 100))]).SerializeToString()
    size = MAX_GOSSIP_BYTES // MAX_RPC_MESSAGES - 100
    return rpc_pb2.RPC(publish=[message(bytes([n]) * size) for n in range(MAX_RPC_MESSAGES)]).SerializeToString()


RPCS = ("ihave", "iwant", "idontwant", "graft", "prune", "all", "subscriptions", "one message", "messages")


def make_reader(data: bytes) -> Callable[[], Awaitable[None]]:
    """Return what reads an RPC as the node does, from a peer that it knows."""
    network = make_network(Owner())
    pubsub, router = network.pubsub, network.router
    pubsub._manager = TrioManager(pubsub)  # not started
    pubsub.peers[PEER] = cast("Any", Stream(b""))
    router.add_peer(PEER, MESHSUB[1])
    pubsub.peer_topics[TOPIC] = {PEER}
    stream = cast("Any", Stream(encode_varint_prefixed(data)))

    async def read() -> None:
        async with network.owner.run():
            await pubsub.read_rpc(stream, PEER)
            await trio.testing.wait_all_tasks_blocked()  # messages are judged
        pubsub.seen_messages.stop()

    return read


@pytest.mark.parametrize("kind", RPCS)
def test_a_full_rpc(kind: str) -> None:
    data = fill_rpc(kind)
    assert len(data) <= MAX_GOSSIP_BYTES
    took = measure(*[make_reader(data) for _ in range(RUNS)])
    print(f"{kind}: {took * 1000:.1f} ms")
    assert took < TURN_BUDGET_S


# Blocks, requests and responses.


@pytest.fixture(scope="module", autouse=True)
def many_layers() -> Iterator[None]:
    """Have a model of many layers."""
    small = make_easy_network()
    model = replace(small.config.model, layer_count=LAYERS)
    large = replace(small, config=replace(small.config, model=model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "make_easy_network", lambda: large)
        yield


@pytest.fixture(scope="module")
def line() -> list[Made]:
    """As many blocks of nearly the largest size as a response has headers, and one more."""
    return grow_line(make_root(), MAX_HEADERS + 1)


@contextmanager
def open_node(folder: Path) -> Iterator[Node]:
    """A node that does not run: it answers, and nothing else."""
    network = importing.make_easy_network()
    with Database.create_or_open(folder / "node", network, "mini") as store:
        yield Node(
            store,
            network,
            Models.hold(network, make_easy_judge()),
            Options(None, "127.0.0.1", 4001, mdns=False),
            bytes(32),
        )


@pytest.fixture(scope="module")
def node(line: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that holds all blocks but the last."""
    with open_node(tmp_path_factory.mktemp("turns")) as node:
        for made in line[:-1]:
            node.chain.append(made.block, made.block.header.core.timestamp)
        yield node


def make_asking(node: Node, protocol: str, payload: bytes, answers: dict[str, bytes]) -> Callable[[], Awaitable[None]]:
    async def ask() -> None:
        node.peers = Peers()
        node.peers.connected[str(PEER)] = Peer(str(PEER), "/ip4/192.0.2.1/tcp/4001", False, 0.0)
        answers[protocol] = await node.on_request(str(PEER), protocol, payload) or b""

    return ask


def fill_request(node: Node, line: list[Made], kind: str) -> tuple[str, bytes]:
    unknown = tuple(bytes([n]) * 32 for n in range(MAX_LOCATOR - 1))
    genesis: Hash32 = node.chain.tree.get_main(0).hash
    if kind == "headers":
        return HEADERS_PROTOCOL, encode(HeadersRequest((*unknown, genesis), bytes(32), MAX_HEADERS))
    if kind == "headers, no common block":
        return HEADERS_PROTOCOL, encode(HeadersRequest((*unknown, b"x" * 32), bytes(32), MAX_HEADERS))
    if kind == "blocks":
        return BLOCKS_PROTOCOL, encode(BlocksRequest(tuple(made.hash for made in line[:MAX_BLOCKS])))
    if kind == "blocks, unknown":
        return BLOCKS_PROTOCOL, encode(BlocksRequest(unknown[:MAX_BLOCKS]))
    if kind == "status":
        return STATUS_PROTOCOL, encode(node.make_status())
    return GOODBYE_PROTOCOL, encode(Goodbye(1))


REQUESTS = ("status", "headers", "headers, no common block", "blocks", "blocks, unknown", "goodbye")


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request(kind: str, node: Node, line: list[Made]) -> None:
    answers = dict[str, bytes]()
    took = measure(*[make_asking(node, *fill_request(node, line, kind), answers)] * RUNS)
    print(f"{kind}: {took * 1000:.1f} ms")
    assert took < TURN_BUDGET_S
    if kind == "headers":
        assert len(answers[HEADERS_PROTOCOL]) == MAX_HEADERS_BYTES + RESULT_BYTES
    if kind == "blocks":
        assert len(answers[BLOCKS_PROTOCOL]) > 0.99 * MAX_BLOCKS_BYTES


def test_a_gossiped_block(node: Node, line: list[Made]) -> None:
    async def receive() -> None:
        node.peers = Peers()
        node.peers.connected[str(PEER)] = Peer(str(PEER), "/ip4/192.0.2.1/tcp/4001", False, 0.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.on_gossip, str(PEER), get_blocks_topic(node.chain.tree.get_rules(1)), line[-1].data)
            await trio.testing.wait_all_tasks_blocked()  # it waits for the model, which does not run here
            nursery.cancel_scope.cancel()

    took = measure(*[receive] * RUNS)
    print(f"block: {took * 1000:.1f} ms")
    assert took < TURN_BUDGET_S


async def fetch(node: Node, line: list[Made], turns: dict[str, float]) -> None:
    """Fetch the largest responses, and take in what is in them."""
    peer = Peer(str(PEER), "/ip4/192.0.2.1/tcp/4001", True, 0.0)
    answers = {
        HEADERS_PROTOCOL: encode(Headers(tuple(made.block.header for made in line[:-1]))),
        BLOCKS_PROTOCOL: encode(Blocks(tuple(made.block for made in line[:MAX_BLOCKS]), ())),
    }

    async def request(_: Peer, protocol: str, __: bytes, ___: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes([Result.OK]) + answers[protocol]

    def blame(_: str, error: SpecError) -> None:
        raise error

    ask = Ask(request, blame, lambda _: Sender(), lambda _, __: None)
    sync = Sync(node.importer, Peers(), ask, node.options.assume_valid)
    status = replace(node.make_status(), head=line[-2].hash, height=MAX_HEADERS, work=1 << 200)
    peer.note_status(status, 0.0)
    sync._peers.connected[str(PEER)] = peer
    sync.batch = MAX_BLOCKS

    async def fetch_headers() -> bool:
        return await sync.fetch_headers(peer)

    async def fetch_blocks() -> bool:
        sync.goal = node.chain.tree.entries[line[-2].hash]
        return await sync.fetch_blocks(sync.goal)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.verifier.run)
        for name, step in (("headers", fetch_headers), ("blocks", fetch_blocks)):
            instrument = Turns()
            trio.lowlevel.add_instrument(instrument)
            assert await step()
            await trio.lowlevel.checkpoint()  # the turn is at an end
            trio.lowlevel.remove_instrument(instrument)
            turns[name] = min(instrument.longest, turns.get(name, 1.0))
        nursery.cancel_scope.cancel()
    assert node.chain.head.height == MAX_BLOCKS


@pytest.mark.parametrize("assumed", [False, True])
def test_a_response(assumed: bool, line: list[Made], tmp_path: Path) -> None:
    turns = dict[str, float]()
    for run in range(RUNS):
        with open_node(tmp_path / str(run)) as node:
            node.options = replace(node.options, assume_valid=line[-2].hash if assumed else None)
            trio.run(fetch, node, line, turns)
    print({name: f"{took * 1000:.1f} ms" for name, took in turns.items()})
    assert max(turns.values()) < TURN_BUDGET_S


# Sessions.


def frames(kind: int, flags: int, count: int) -> bytes:
    return struct.pack(YAMUX_HEADER_FORMAT, 0, kind, flags, 1, 0) * count


FRAMES = 65_519 // 12
"""As many as a message of Noise's has room for."""


@pytest.mark.parametrize(("kind", "flags"), [(TYPE_DATA, 0), (TYPE_WINDOW_UPDATE, 0), (TYPE_PING, FLAG_SYN)])
def test_a_message_of_small_frames(kind: int, flags: int) -> None:
    def make() -> Callable[[], Awaitable[None]]:
        session = Session(cast("Any", Wire(frames(TYPE_DATA, FLAG_SYN, 1), frames(kind, flags, FRAMES))), PEER, fail)
        return session.handle_incoming

    assert measure(*[make() for _ in range(RUNS)]) < TURN_BUDGET_S


def fail(_: ID, error: SpecError) -> None:
    raise error


@pytest.mark.parametrize("name", PARTS)
def test_an_rpc_of_empty_parts_is_refused_within_a_turn(name: str) -> None:
    data = PARTS[name] * (MAX_GOSSIP_BYTES // len(PARTS[name]))

    async def check() -> None:
        with pytest.raises(Malformed):
            check_counts(data)

    assert measure(*[check] * RUNS) < TURN_BUDGET_S


# The library's own protocols, both sides of them in one loop: an upper bound for one.


async def speak(peer: Stranger, victim: Transport, protocol: str) -> None:
    """Connect, open a stream, say something and wait for the answer, or for the end of the stream."""
    with trio.fail_after(PATIENCE_S), suppress(*BROKEN):
        stream = await peer.open(victim, protocol)
        await stream.write(bytes(32))
        await stream.read(1)


@pytest.mark.parametrize("protocol", ["/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", ECHO])
def test_a_connection_and_a_stream(protocol: str) -> None:
    async def run() -> None:
        async with networks(1) as [(victim, _)], stranger() as peer:
            instrument = Turns()
            trio.lowlevel.add_instrument(instrument)
            await speak(peer, victim, protocol)
            await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(instrument)
            found.append(instrument.longest)

    found = list[float]()
    for _ in range(RUNS):
        trio.run(run)
    print(f"{protocol}: {min(found) * 1000:.1f} ms")
    assert min(found) < TURN_BUDGET_S
