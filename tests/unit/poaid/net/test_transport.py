"""`Transport` against hosts of the plain library on loopback: what strangers may do, and what must get through.

Where `transport` mends the library, a test shows the library as it comes, too: when it fails, a remedy can go.
"""

import socket
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from itertools import count
from typing import Any, cast

import libp2p
import pytest
import trio
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IOException
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import MessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils import encode_varint_prefixed
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from poai_spec.basics.notation import Malformed, SpecError
from poai_spec.chain.networking import MAX_GOSSIP_BYTES, Verdict, compute_message_id, encode_frame
from poaid.errors import NodeError
from poaid.net import transport as network
from poaid.net.handlers import PeerError, Refusal
from poaid.net.libp2p import gossip as libp2p_gossip
from poaid.net.libp2p import host as libp2p_host
from poaid.net.libp2p import streams as libp2p_streams
from poaid.net.libp2p.gossip import MESHSUB
from poaid.net.transport import Transport

pytestmark = [pytest.mark.sockets, pytest.mark.trio]

TOPIC, ECHO, SINK = "/poai/abcd0123/blocks/1", "/test/echo/1", "/test/sink/1"
LIMIT = 100
"""Most bytes of a request to `ECHO`."""
PATIENCE_S = 60.0
"""What a test waits for something at most; it takes milliseconds on an idle machine."""
SEEDS = count(1)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.005)


async def stay() -> None:
    """Wait to be ended by what runs beside."""
    await trio.sleep(PATIENCE_S)


class Owner:
    """Handlers that write down what they are told, and echo requests."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.addresses: list[str] = []
        self.disconnected: list[str] = []
        self.gossip: list[bytes] = []
        self.forwarders: list[str] = []
        self.requests: list[bytes] = []
        self.faults: list[tuple[str, str]] = []
        self.discovered: list[str] = []
        self.refused: list[str] = []
        self.bugs: list[Exception] = []
        self.verdicts: dict[bytes, Verdict] = {}
        self.judge: Callable[[bytes], Awaitable[None]] | None = None
        self.answer: Callable[[bytes], Awaitable[bytes | None]] | None = None

    async def on_connected(self, peer: str, address: str, *, outbound: bool) -> None:
        self.connected.append(peer)
        self.addresses.append(f"{'out' if outbound else 'in'} {address}")

    def on_disconnected(self, peer: str) -> None:
        self.disconnected.append(peer)

    async def on_gossip(self, peer: str, topic: str, data: bytes) -> Verdict:
        self.gossip.append(data)
        self.forwarders.append(peer)
        if self.judge is not None:
            await self.judge(data)
        return self.verdicts.get(data, Verdict.ACCEPT)

    async def on_request(self, peer: str, protocol: str, payload: bytes) -> bytes | None:
        self.requests.append(payload)
        if self.answer is not None:
            return await self.answer(payload)
        return None if protocol == SINK else payload

    def on_fault(self, peer: str, error: SpecError) -> None:
        self.faults.append((peer, error.code))

    def on_discovered(self, address: str) -> None:
        self.discovered.append(address)

    def on_refused(self, reason: Refusal) -> None:
        self.refused.append(reason)

    def on_bug(self, error: Exception) -> None:
        self.bugs.append(error)


def make_network(owner: Owner, **changes: Any) -> Transport:
    arguments: dict[str, Any] = {
        "seed": next(SEEDS).to_bytes(32, "big"), "host": "127.0.0.1", "port": 0,
        "topics": {TOPIC}, "joined": {TOPIC}, "limits": {ECHO: LIMIT, SINK: LIMIT}, "handlers": owner,
    }  # fmt: skip
    return Transport(**(arguments | changes))


@asynccontextmanager
async def networks(number: int) -> AsyncIterator[list[tuple[Transport, Owner]]]:
    """Run some networks that do not know of each other."""
    async with AsyncExitStack() as stack:
        pairs = []
        for _ in range(number):
            owner = Owner()
            pairs.append((make_network(owner), owner))
            await stack.enter_async_context(pairs[-1][0].run())
        yield pairs


async def link(one: Transport, other: Transport) -> None:
    """Connect two networks, and wait until each sends the other what it accepts."""
    await one.connect(other.addresses[0])
    for here, there in ((one, other), (other, one)):
        await here.router.wait_for_mesh(ID.from_string(there.peer_id), TOPIC, PATIENCE_S)
        await here.pubsub.wait_for_peer(ID.from_string(there.peer_id), PATIENCE_S)


class Stranger:
    """A host of the plain library that says whatever it is told to."""

    def __init__(self, host: IHost, *, listens: bool = True) -> None:
        self.host = host
        self.received: list[rpc_pb2.RPC] = []
        self.streams: list[INetStream] = []
        for protocol in MESHSUB if listens else ():
            host.set_stream_handler(protocol, self._receive)

    @property
    def peer_id(self) -> str:
        return str(self.host.get_id())

    @property
    def address(self) -> str:
        return str(self.host.get_addrs()[0])

    async def connect(self, victim: Transport | IHost) -> ID:
        address = victim.addresses[0] if isinstance(victim, Transport) else str(victim.get_addrs()[0])
        info = info_from_p2p_addr(Multiaddr(address))
        with trio.fail_after(PATIENCE_S):
            await self.host.connect(info)
        return info.peer_id

    async def open(self, victim: Transport | IHost, protocol: str) -> INetStream:
        with trio.fail_after(PATIENCE_S):
            return await self.host.new_stream(await self.connect(victim), [TProtocol(protocol)])

    async def open_raw(self, victim: Transport | IHost) -> INetStream:
        """Open a stream without saying what for."""
        return await cast("Swarm", self.host.get_network()).new_stream(await self.connect(victim))

    async def _receive(self, stream: INetStream) -> None:
        self.streams.append(stream)
        try:
            while True:
                rpc = rpc_pb2.RPC()
                rpc.ParseFromString(await read_varint_prefixed_bytes_limited(stream, 1 << 24))
                self.received.append(rpc)
        except (IOException, SwarmException):
            pass


def make_host(**options: Any) -> IHost:
    return libp2p.new_host(key_pair=create_new_key_pair(next(SEEDS).to_bytes(32, "big")), **options)


@asynccontextmanager
async def running(host: IHost, address: str = "/ip4/127.0.0.1/tcp/0") -> AsyncIterator[IHost]:
    async with host.run([Multiaddr(address)]):
        try:
            yield host
        finally:
            with trio.move_on_after(3) as scope:
                scope.shield = True
                await host.close()


@asynccontextmanager
async def stranger(*, listens: bool = True) -> AsyncIterator[Stranger]:
    """Run a stranger; one that does not listen takes no gossip, and so is no peer of the gossip's."""
    async with running(make_host()) as host:
        yield Stranger(host, listens=listens)


@asynccontextmanager
async def plain(*, validator: Any = None, **options: Any) -> AsyncIterator[tuple[IHost, Pubsub]]:
    """Run a host with gossip as the library comes."""
    host = make_host(**options)
    router = GossipSub(MESHSUB, 6, 4, 12, heartbeat_interval=1)
    pubsub = Pubsub(host, router)
    async with running(host), background_trio_service(pubsub), background_trio_service(router):
        await pubsub.wait_until_ready()
        await pubsub.subscribe(TOPIC)
        if validator is not None:
            pubsub.set_topic_validator(TOPIC, validator, is_async_validator=False)
        yield host, pubsub


def frame_rpc(*messages: rpc_pb2.Message, **fields: Any) -> bytes:
    return encode_varint_prefixed(rpc_pb2.RPC(publish=messages, **fields).SerializeToString())


def message(data: bytes, **fields: Any) -> rpc_pb2.Message:
    return rpc_pb2.Message(data=data, topicIDs=[TOPIC], **fields)


async def ends(stream: INetStream) -> None:
    """Wait until a stream is closed or reset by the other side."""
    with trio.fail_after(PATIENCE_S):
        try:
            while await stream.read(4096):
                pass
        except IOException:
            pass


# What a stranger sends.


async def send_garbage_rpc(peer: Stranger, victim: Transport | IHost) -> INetStream:
    stream = await peer.open(victim, MESHSUB[0])
    await stream.write(encode_varint_prefixed(b"\xff" * 40))
    return stream


async def send_garbage_key(peer: Stranger, victim: Transport | IHost) -> INetStream:
    stream = await peer.open(victim, MESHSUB[0])
    fields = {"from_id": b"\x01\x02", "seqno": bytes(8), "signature": b"no signature", "key": b"\xff\xff\xff"}
    await stream.write(frame_rpc(message(b"block", **fields)))
    return stream


async def send_garbage_protocol(peer: Stranger, victim: Transport | IHost) -> INetStream:
    stream = await peer.open_raw(victim)
    await stream.write(encode_varint_prefixed(b"/multistream/1.0.0\n"))
    await stream.write(encode_varint_prefixed(b"\xff\xfe\n"))
    return stream


ATTACKS = [send_garbage_rpc, send_garbage_key, send_garbage_protocol]
Attack = Callable[[Stranger, Transport | IHost], Awaitable[INetStream]]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_library_ends_on_garbage(attack: Attack) -> None:
    async def run() -> None:
        async with stranger() as peer, plain() as (host, _):
            await attack(peer, host)
            await stay()

    with pytest.raises(BaseExceptionGroup):
        await run()


@pytest.mark.parametrize("attack", ATTACKS)
async def test_garbage_costs_its_sender_a_stream(attack: Attack) -> None:
    async with networks(2) as [(victim, owner), (honest, _)], stranger() as peer:
        stream = await attack(peer, victim)
        if attack is not send_garbage_protocol:
            await until(lambda: owner.faults)
            assert owner.faults == [(peer.peer_id, "encoding/undecodable")]
        if attack is not send_garbage_key:
            await ends(stream)
        await link(honest, victim)
        await honest.publish(TOPIC, b"block")
        await until(lambda: owner.gossip == [b"block"])


@pytest.mark.parametrize(
    "data",
    [
        encode_varint_prefixed(bytes(MAX_GOSSIP_BYTES + 1))[:64],
        b"\xff" * 16,
        frame_rpc(*[message(bytes([index])) for index in range(libp2p_gossip.MAX_RPC_MESSAGES + 1)]),
    ],
    ids=["too large", "endless length", "too many messages"],
)
async def test_an_rpc_beyond_the_limits_is_a_fault(data: bytes) -> None:
    async with networks(1) as [(victim, owner)], stranger() as peer:
        stream = await peer.open(victim, MESHSUB[0])
        await stream.write(data)
        await until(lambda: owner.faults)
        assert (owner.faults, owner.gossip) == ([(peer.peer_id, "encoding/undecodable")], [])
        await ends(stream)


async def test_an_rpc_of_the_largest_size_passes() -> None:
    async with networks(1) as [(victim, owner)], stranger() as peer:
        stream = await peer.open(victim, MESHSUB[0])
        overhead = len(rpc_pb2.RPC(publish=[message(bytes(1_000_000))]).SerializeToString()) - 1_000_000
        data = bytes(MAX_GOSSIP_BYTES - overhead)
        await stream.write(frame_rpc(message(data)))
        await until(lambda: owner.gossip)
        assert (owner.gossip == [data], owner.faults) == (True, [])


async def test_a_new_gossip_stream_takes_the_place_of_the_old_one() -> None:
    async with networks(1) as [(victim, owner)], stranger() as peer:
        streams = [await peer.open(victim, MESHSUB[0]) for _ in range(5)]
        for stream in streams[:-1]:
            await ends(stream)
        await streams[-1].write(frame_rpc(message(b"block")))
        await until(lambda: owner.gossip == [b"block"])


async def test_messages_of_other_topics_are_not_shown() -> None:
    async with networks(1) as [(victim, owner)], stranger() as peer:
        stream = await peer.open(victim, MESHSUB[0])
        others = [rpc_pb2.Message(data=b"1", topicIDs=topics) for topics in ([], ["/other"], [TOPIC, "/other"])]
        await stream.write(frame_rpc(*others, message(b"2")))
        await until(lambda: owner.gossip)
        assert owner.gossip == [b"2"]


# A bug in the owner's handlers is told to the owner: no peer is blamed for it, and the network goes on.


class BugError(KeyError):
    """Of a class that a stranger's bytes could cause, too."""


async def fail(_: bytes) -> None:
    raise BugError("Connection closed")  # the library takes what is called so for the end of a connection


@pytest.mark.parametrize("attack", ["gossip", "request"])
async def test_a_bug_of_the_owners_is_told_and_costs_nobody_anything(attack: str) -> None:
    async with stranger() as peer, networks(1) as [(victim, owner)]:
        if attack == "gossip":
            owner.judge = fail
            await (await peer.open(victim, MESHSUB[0])).write(frame_rpc(message(b"block")))
        else:
            owner.answer = fail
            stream = await peer.open(victim, ECHO)
            await stream.write(encode_frame(b"question"))
            await ends(stream)
        await until(lambda: owner.bugs)
        owner.judge = owner.answer = None
        stream = await peer.open(victim, ECHO)
        await stream.write(encode_frame(b"question"))
        assert await stream.read(12) == encode_frame(b"question")
        assert ([type(bug) for bug in owner.bugs], owner.faults) == ([BugError], [])


@pytest.mark.parametrize("handler", ["on_connected", "on_disconnected", "on_fault"])
async def test_a_bug_in_what_the_owner_is_told_is_told(handler: str) -> None:
    async def fail_later(*_: Any, **__: Any) -> None:
        raise BugError

    def fail_now(*_: Any) -> None:
        raise BugError

    async with networks(1) as [(victim, owner)]:
        async with stranger() as peer:
            setattr(owner, handler, fail_later if handler == "on_connected" else fail_now)
            if handler == "on_fault":
                await send_garbage_rpc(peer, victim)
            else:
                await peer.connect(victim)
                await until(lambda: owner.connected or owner.bugs)
                await victim.disconnect(peer.peer_id)
            await until(lambda: owner.bugs)
        assert [type(bug) for bug in owner.bugs] == [BugError]


async def test_a_bug_between_the_library_and_the_owner_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_gossip, "PRUNE_BACK_OFF_S", "no number")
    async with networks(1) as [(victim, owner)], stranger() as peer:
        stream = await peer.open(victim, MESHSUB[0])
        prune = rpc_pb2.ControlPrune(topicID=TOPIC)
        await stream.write(frame_rpc(control=rpc_pb2.ControlMessage(prune=[prune])))
        await ends(stream)
        await until(lambda: owner.bugs)
        assert ([type(bug) for bug in owner.bugs], owner.faults) == ([TypeError], [])


async def test_a_full_disk_ends_the_network() -> None:
    async def lose(_: bytes) -> None:
        raise NodeError("the disk is full")

    async def run() -> None:
        async with stranger() as peer, networks(1) as [(victim, owner)]:
            owner.judge = lose
            await (await peer.open(victim, MESHSUB[0])).write(frame_rpc(message(b"block")))
            await stay()

    with pytest.raises(BaseExceptionGroup) as caught:
        await run()
    assert caught.value.subgroup(NodeError) is not None


async def test_library_ends_when_a_validator_raises() -> None:
    def validate(_: ID, __: rpc_pb2.Message) -> bool:
        raise BugError

    async def run() -> None:
        async with plain(validator=validate) as (_, pubsub):
            pubsub.manager.run_task(pubsub.publish, TOPIC, b"block")
            await stay()

    with pytest.raises(BaseExceptionGroup):
        await run()


async def test_library_ends_when_a_handler_of_streams_raises() -> None:
    async def serve(stream: INetStream) -> None:
        int((await stream.read(10)).decode())

    async def run() -> None:
        async with stranger() as peer, plain() as (host, _):
            host.set_stream_handler(TProtocol(ECHO), serve)
            await (await peer.open(host, ECHO)).write(b"not a number")
            await stay()

    with pytest.raises(BaseExceptionGroup):
        await run()


# Requests.


async def test_a_request_is_answered() -> None:
    async with networks(2) as [(here, _), (there, owner)]:
        peer = await here.connect(there.addresses[0])
        assert await here.request(peer, ECHO, b"x" * LIMIT, LIMIT) == b"x" * LIMIT
        assert await here.request(peer, ECHO, b"", 0) == b""
        assert await here.request(peer, SINK, b"farewell", None) == b""
        await until(lambda: owner.requests[2:] == [b"farewell"])


async def test_many_requests_leave_no_streams() -> None:
    async with networks(2) as [(here, _), (there, _)]:
        peer = await here.connect(there.addresses[0])
        for number in range(300):
            payload = number.to_bytes(2, "big")
            assert await here.request(peer, ECHO, payload, LIMIT) == payload
        await until(lambda: max(count_streams(here), count_streams(there)) <= 4)


def count_streams(net: Transport) -> int:
    """How many streams the muxer keeps; two each are for gossip."""
    return sum(len(cast("Any", connection.muxed_conn).streams) for connection in net.swarm.get_connections())


async def test_streams_that_the_other_side_never_ends_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_streams, "CLOSE_TIMEOUT_S", 0.05)
    async with networks(1) as [(victim, _)], stranger() as peer:
        streams = [await peer.open(victim, ECHO) for _ in range(20)]
        for stream in streams:
            await stream.write(encode_frame(b"question"))
            assert await stream.read(4) == encode_frame(b"question")[:4]
        await until(lambda: count_streams(victim) <= 2)


async def test_streams_that_an_answerer_never_ends_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_streams, "CLOSE_TIMEOUT_S", 0.05)

    async def answer(stream: INetStream) -> None:
        await stream.write(encode_frame(b"answer"))
        await ends(stream)

    async with networks(1) as [(here, _)], stranger() as peer:
        peer.host.set_stream_handler(TProtocol(ECHO), answer)
        await here.connect(peer.address)
        for _ in range(20):
            assert await here.request(peer.peer_id, ECHO, b"question", LIMIT) == b"answer"
        await until(lambda: count_streams(here) <= 2)


async def test_an_unknown_protocol_is_no_answer() -> None:
    async with networks(2) as [(here, _), (there, _)]:
        peer = await here.connect(there.addresses[0])
        with pytest.raises(PeerError):
            await here.request(peer, "/test/unknown/1", b"", LIMIT)


async def test_a_peer_that_is_not_connected_is_not_dialled_by_a_request() -> None:
    async with networks(2) as [(here, owner), (there, _)]:
        peer = await here.connect(there.addresses[0])
        await here.disconnect(peer)
        await until(lambda: owner.disconnected)
        with pytest.raises(PeerError):
            await here.request(peer, ECHO, b"", LIMIT)
        assert owner.connected == [peer]


async def test_a_frozen_peer_costs_the_time_of_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RESPONSE_TIMEOUT_MS", 100)
    reset = trio.Event()

    async def freeze(stream: INetStream) -> None:
        await stream.read(4)
        await ends(stream)
        reset.set()

    async with networks(1) as [(here, _)], stranger() as peer:
        peer.host.set_stream_handler(TProtocol(ECHO), freeze)
        await here.connect(peer.address)
        with pytest.raises(PeerError, match=r"within 0\.1 s"):
            await here.request(peer.peer_id, ECHO, b"question", LIMIT)
        with trio.fail_after(PATIENCE_S):
            await reset.wait()


async def respond(data: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Return what becomes of a request that is answered with these bytes and the end of the stream."""

    async def answer(stream: INetStream) -> None:
        await stream.read(4)
        await stream.write(data)
        await stream.close()

    async with networks(1) as [(here, owner)], stranger() as peer:
        peer.host.set_stream_handler(TProtocol(ECHO), answer)
        await here.connect(peer.address)
        try:
            return repr(await here.request(peer.peer_id, ECHO, b"", LIMIT)), owner.faults
        except PeerError:
            return "PeerError", owner.faults
        except Malformed as error:
            return error.code, owner.faults


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (encode_frame(bytes(LIMIT + 1)), "networking/frame-length"),
        (b"\xff\xff\xff\xff", "networking/frame-length"),
        (encode_frame(b"answer") + b"more", "b'answer'"),
        (encode_frame(b"answer")[:-1], "PeerError"),
        (b"\x01\x00", "PeerError"),
        (b"", "PeerError"),
    ],
)
async def test_bad_responses(data: bytes, outcome: str) -> None:
    assert await respond(data) == (outcome, [])


async def test_a_request_above_the_limit_is_a_fault() -> None:
    async with networks(1) as [(victim, owner)], stranger() as peer:
        stream = await peer.open(victim, ECHO)
        await stream.write(encode_frame(bytes(LIMIT + 1))[:4])
        await ends(stream)
        await until(lambda: owner.faults)
        assert (owner.faults, owner.requests) == ([(peer.peer_id, "networking/frame-length")], [])


async def test_a_truncated_request_is_nobodys_fault() -> None:
    async with networks(1) as [(victim, owner)], stranger() as peer:
        stream = await peer.open(victim, ECHO)
        await stream.write(encode_frame(b"question")[:-1])
        await stream.close()
        await ends(stream)
        assert (owner.faults, owner.requests) == ([], [])


async def test_a_request_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RESPONSE_TIMEOUT_MS", 200)
    async with networks(1) as [(victim, owner)], stranger() as peer, trio.open_nursery() as nursery:
        stream = await peer.open(victim, ECHO)
        await stream.write(encode_frame(bytes(LIMIT))[:4])

        async def drip() -> None:
            while True:
                await trio.sleep(0.01)
                try:
                    await stream.write(b"\0")
                except IOException:
                    return

        nursery.start_soon(drip)
        await ends(stream)
        assert (owner.faults, owner.requests) == ([], [])
        nursery.cancel_scope.cancel()


async def test_a_refused_request_is_a_fault() -> None:
    async def refuse(_: bytes) -> bytes:
        raise Malformed("encoding/undecodable", "by the owner")

    async with networks(1) as [(victim, owner)], stranger() as peer:
        owner.answer = refuse
        stream = await peer.open(victim, ECHO)
        await stream.write(encode_frame(b"question"))
        await ends(stream)
        await until(lambda: owner.faults)
        assert owner.faults == [(peer.peer_id, "encoding/undecodable")]


async def test_a_peer_has_so_many_streams_and_no_more() -> None:
    async with networks(2) as [(victim, owner), (honest, _)], stranger() as peer:
        streams = [await peer.open_raw(victim) for _ in range(300)]
        async with trio.open_nursery() as nursery:
            for stream in streams[libp2p_host.MAX_STREAMS_PER_PEER :]:
                nursery.start_soon(ends, stream)
        await honest.connect(victim.addresses[0])
        assert await honest.request(victim.peer_id, ECHO, b"question", LIMIT) == b"question"
        for stream in streams:
            await stream.reset()
        await until(lambda: victim.host.open_streams[peer.host.get_id()] <= 1)
        stream = await peer.open(victim, ECHO)
        await stream.write(encode_frame(b"still there"))
        await until(lambda: owner.requests == [b"question", b"still there"])


# Connections.


async def test_who_connects_and_never_speaks_is_dropped() -> None:
    async with networks(2) as [(victim, owner), (honest, _)], AsyncExitStack() as stack:
        victim.swarm.connection_config.inbound_upgrade_timeout = 0.3
        port = int(victim.addresses[0].split("/")[4])
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(libp2p_host.MAX_CONNECTIONS + 1)]
        for stream in silent:
            stack.push_async_callback(stream.aclose)
        await honest.connect(victim.addresses[0])
        for stream in silent:
            with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        assert owner.connected == [honest.peer_id]


async def test_events_come_once_though_both_dial() -> None:
    async with networks(2) as [(here, owner), (there, other)]:
        for times in (1, 2, 3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.connect, there.addresses[0])
                nursery.start_soon(there.connect, here.addresses[0])
            await until(lambda: len(owner.connected) == len(other.connected) == times)  # noqa: B023
            await here.disconnect(there.peer_id)
            await until(lambda: len(owner.disconnected) == len(other.disconnected) == times)  # noqa: B023
        assert owner.connected == owner.disconnected == [there.peer_id] * 3
        assert other.connected == other.disconnected == [here.peer_id] * 3


async def test_gossip_survives_the_end_of_one_of_two_connections() -> None:
    async with networks(2) as [(here, owner), (there, other)]:
        await link(here, there)
        await there.swarm.dial_addr(Multiaddr(here.addresses[0]), ID.from_string(here.peer_id))
        first, _ = here.swarm.get_connections(ID.from_string(there.peer_id))
        await first.close()
        await until(lambda: len(there.swarm.get_connections()) == 1)
        for net in (here, there):
            await net.publish(TOPIC, b"lost: its stream has gone with the connection")
        for net, peer in ((here, there), (there, here)):
            await net.pubsub.wait_for_peer(ID.from_string(peer.peer_id), PATIENCE_S)
            await net.router.wait_for_mesh(ID.from_string(peer.peer_id), TOPIC, PATIENCE_S)
        await here.publish(TOPIC, b"here")
        await there.publish(TOPIC, b"there")
        await until(lambda: b"here" in other.gossip and b"there" in owner.gossip)
        assert owner.disconnected == other.disconnected == []


async def test_a_subscription_survives_the_end_of_the_stream_to_the_subscriber() -> None:
    async with networks(1) as [(here, _)], stranger() as peer:
        stream = await peer.open(here, MESHSUB[0])
        await stream.write(frame_rpc(subscriptions=[subscribe()]))
        await here.router.wait_for_mesh(peer.host.get_id(), TOPIC, PATIENCE_S)
        await until(lambda: peer.streams)
        await peer.streams[0].reset()
        await here.publish(TOPIC, b"lost")
        await until(lambda: len(peer.streams) == 2)
        await here.router.wait_for_mesh(peer.host.get_id(), TOPIC, PATIENCE_S)
        await here.publish(TOPIC, b"block")
        await until(lambda: b"block" in get_published(peer))


async def test_addresses_and_directions() -> None:
    async with networks(2) as [(here, owner), (there, other)]:
        await here.connect(there.addresses[0])
        await until(lambda: owner.addresses and other.addresses)
        assert owner.addresses == ["out " + there.addresses[0].partition("/p2p/")[0]]
        assert other.addresses[0].startswith("in /ip4/127.0.0.1/tcp/")


async def test_who_was_sent_away_is_not_dialled_again() -> None:
    async with networks(2) as [(here, owner), (there, other)]:
        await link(here, there)
        await there.disconnect(here.peer_id)
        await until(lambda: owner.disconnected and other.disconnected)
        here.swarm.peerstore.add_addrs(ID.from_string(there.peer_id), [Multiaddr(there.addresses[0])], 60)
        here.swarm.auto_connector._recent_disconnects.clear()
        await here.swarm.auto_connector.maybe_connect()
        await here.pubsub.ensure_peer_stream(ID.from_string(there.peer_id))
        assert here.swarm.get_total_connections() == there.swarm.get_total_connections() == 0
        assert (len(owner.connected), len(other.connected)) == (1, 1)


@pytest.mark.parametrize("by", ["opening a stream", "filling up"])
async def test_library_dials_whom_it_remembers(by: str) -> None:
    async with stranger() as peer, plain() as (host, _):
        await host.connect(info_from_p2p_addr(Multiaddr(peer.address)))
        await host.disconnect(peer.host.get_id())
        swarm = cast("Swarm", host.get_network())
        await until(lambda: not swarm.get_connections())
        if by == "opening a stream":
            await host.new_stream(peer.host.get_id(), MESHSUB)
        else:
            swarm.auto_connector._recent_disconnects.clear()
            await swarm.auto_connector.maybe_connect()
        await until(swarm.get_connections)


async def test_a_failed_dial_says_so_and_may_be_tried_at_once() -> None:
    async with networks(1) as [(here, _)]:
        owner = Owner()
        there = make_network(owner)
        port = get_free_port()
        with pytest.raises(PeerError) as caught:
            await here.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{there.peer_id}")
        assert str(caught.value) == f"/ip4/127.0.0.1/tcp/{port} cannot be reached: Connection refused"
        for bad in ("", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/xyz", "no address"):
            with pytest.raises(PeerError):
                await here.connect(bad)
        async with there.run():
            assert await here.connect(there.addresses[0]) == there.peer_id


async def test_somebody_else_at_an_address_is_refused() -> None:
    async with networks(2) as [(here, _), (there, _)]:
        other = make_network(Owner()).peer_id
        with pytest.raises(PeerError, match=r"^/ip4/127\.0\.0\.1/tcp/[0-9]+ cannot be reached: another peer is there$"):
            await here.connect(there.addresses[0].partition("/p2p/")[0] + f"/p2p/{other}")


async def test_a_copy_of_the_own_identity_is_refused_and_told_of() -> None:
    """Noise is content with it: it has the key. The two would never hear of each other's blocks."""
    seed, owner = bytes([7]) * 32, Owner()
    victim = make_network(owner, seed=seed)
    async with victim.run(), running(libp2p.new_host(create_new_key_pair(seed))) as copy:
        where = Multiaddr(victim.addresses[0].partition("/p2p/")[0])
        with suppress(SwarmException), trio.move_on_after(PATIENCE_S):
            await copy.get_network().dial_addr(where, copy.get_id())
        await until(lambda: owner.refused == ["own identity"])
        assert owner.connected == []


async def test_the_systems_resolver_is_asked_for_names() -> None:
    """`localhost` is a name of /etc/hosts, of which no DNS server knows."""
    async with networks(2) as [(here, _), (there, _)]:
        named = there.addresses[0].replace("/ip4/127.0.0.1/", "/dns4/localhost/")
        assert await here.connect(named) == there.peer_id
        unknown = named.replace("/localhost/", "/nobody.invalid/")
        other = make_network(Owner()).peer_id
        with pytest.raises(
            PeerError, match=r"^/dns4/nobody\.invalid/tcp/[0-9]+ cannot be reached: its name is not known"
        ):
            await here.connect(unknown.partition("/p2p/")[0] + f"/p2p/{other}")


async def test_who_hangs_up_at_once_is_named() -> None:
    async with networks(1) as [(here, _)], trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, trio.SocketStream.aclose, 0, host="127.0.0.1"))
        port, other = listener.socket.getsockname()[1], make_network(Owner()).peer_id
        with pytest.raises(PeerError, match=r"cannot be reached: it hung up before it had proven who it is$"):
            await here.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{other}")
        nursery.cancel_scope.cancel()


async def come_and_go(victim: Transport | IHost, times: int) -> None:
    for _ in range(times):
        async with stranger() as peer:
            await peer.connect(victim)


async def test_library_is_deaf_after_so_many_connections() -> None:
    config = ConnectionConfig(max_connections=3, high_watermark=3, low_watermark=0, min_connections=0)
    async with plain(connection_config=config) as (host, _), stranger() as late:
        await come_and_go(host, 3)
        await until(lambda: not host.get_network().get_connections())
        with pytest.raises(SwarmException):
            await late.connect(host)


async def test_connections_that_have_ended_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_host, "MAX_HANDSHAKES", 3)
    async with networks(1) as [(victim, owner)]:
        await come_and_go(victim, 4)
        await until(lambda: len(owner.disconnected) == 4)


async def test_newcomers_beyond_the_limit_are_refused_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_host, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(libp2p_host, "MAX_INBOUND", 2)
    async with networks(6) as [(victim, owner), *others]:
        for net, _ in others[:2]:
            await net.connect(victim.addresses[0])
        await until(lambda: len(owner.connected) == 2)
        for net, other in others[2:4]:
            with suppress(PeerError):
                await net.connect(victim.addresses[0])
            await until(lambda: len(other.disconnected) == len(other.connected))  # noqa: B023
        await victim.connect(others[4][0].addresses[0])
        await until(lambda: len(set(owner.connected)) - len(set(owner.disconnected)) == 3)
        for net in (others[0][0], others[1][0]):
            assert await net.request(victim.peer_id, ECHO, b"here", LIMIT) == b"here"
        assert await victim.request(others[4][0].peer_id, ECHO, b"there", LIMIT) == b"there"


# Address prefixes. On Linux the whole of 127.0.0.0/8 is this machine, so a test may come from many of them.

MANY_PREFIXES = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only 127.0.0.1 is this machine here")
SOURCE: ContextVar[str | None] = ContextVar("SOURCE", default=None)
"""Where the library dials from."""


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat loopback as what the internet carries, and let the library dial from `SOURCE`."""
    dial_from_source(monkeypatch)
    monkeypatch.setattr(libp2p_host, "is_public", lambda _: True)


def dial_from_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that dials do it from `SOURCE`, where that is set."""
    dial = trio.open_tcp_stream

    async def dial_from(host: str, port: int) -> trio.SocketStream:
        return await dial(host, port, local_address=SOURCE.get())

    monkeypatch.setattr(trio, "open_tcp_stream", dial_from)


async def dial_raw(victim: Transport, source: str, count: int, stack: AsyncExitStack) -> list[trio.SocketStream]:
    """Open connections that never say a word."""
    SOURCE.set(source)
    port = int(victim.addresses[0].split("/")[4])
    streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(count)]
    SOURCE.set(None)
    for stream in streams:
        stack.push_async_callback(stream.aclose)
    return streams


async def is_closed(stream: trio.SocketStream) -> bool:
    """Whether the other side has closed a connection; an open one says at once how it wants to be talked to."""
    with trio.fail_after(PATIENCE_S):
        try:
            return not await stream.receive_some()
        except trio.BrokenResourceError:
            return True


@pytest.mark.usefixtures("public")
@MANY_PREFIXES
async def test_a_prefix_has_so_many_handshakes_and_no_more() -> None:
    """Twenty connections of one /24 never speak: four wait for their time-out, and strangers from elsewhere come in."""
    async with networks(2) as [(victim, owner), (honest, _)], AsyncExitStack() as stack:
        silent = await dial_raw(victim, "127.0.9.1", 10, stack) + await dial_raw(victim, "127.0.9.2", 10, stack)
        for stream in silent[libp2p_host.MAX_PER_PREFIX :]:
            assert await is_closed(stream)
        assert owner.refused == ["prefix"] * (20 - libp2p_host.MAX_PER_PREFIX)
        await honest.connect(victim.addresses[0])
        assert await honest.request(victim.peer_id, ECHO, b"question", LIMIT) == b"question"
        for stream in silent[: libp2p_host.MAX_PER_PREFIX]:
            await stream.aclose()
        await until(lambda: victim.swarm.prefixes == {"127.0.0.0/24": 1})
        [stream] = await dial_raw(victim, "127.0.9.1", 1, stack)
        await until(lambda: victim.swarm.prefixes["127.0.9.0/24"] == 1)
        await stream.aclose()


@pytest.mark.usefixtures("public")
@MANY_PREFIXES
async def test_a_prefix_has_so_many_connections_and_no_more() -> None:
    """Those that are ready count like those that are not, for as long as they last."""
    async with networks(1) as [(victim, owner)], AsyncExitStack() as stack:
        SOURCE.set("127.0.9.1")
        *crowd, (late, _) = await stack.enter_async_context(networks(libp2p_host.MAX_PER_PREFIX + 1))
        for net, _ in crowd:
            await net.connect(victim.addresses[0])
        await until(lambda: len(owner.connected) == libp2p_host.MAX_PER_PREFIX)
        with pytest.raises(PeerError):
            await late.connect(victim.addresses[0])
        assert owner.refused == ["prefix"]
        await crowd[0][0].disconnect(victim.peer_id)
        await until(lambda: victim.swarm.prefixes["127.0.9.0/24"] < libp2p_host.MAX_PER_PREFIX)
        await late.connect(victim.addresses[0])


@pytest.mark.usefixtures("public")
@MANY_PREFIXES
async def test_all_handshakes_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_host, "MAX_HANDSHAKES", 6)
    async with networks(1) as [(victim, owner)], AsyncExitStack() as stack:
        silent = [(await dial_raw(victim, f"127.0.{n}.1", 1, stack))[0] for n in range(1, 9)]
        for stream in silent[6:]:
            assert await is_closed(stream)
        assert owner.refused == ["full"] * 2


async def test_a_local_prefix_has_half_of_the_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes on one machine are no strangers; still they leave room."""
    monkeypatch.setattr(libp2p_host, "MAX_PER_LOCAL_PREFIX", 10)
    async with networks(1) as [(victim, owner)], AsyncExitStack() as stack:
        port = int(victim.addresses[0].split("/")[4])
        for _ in range(12):
            stack.push_async_callback((await trio.open_tcp_stream("127.0.0.1", port)).aclose)
        await until(lambda: owner.refused == ["prefix"] * 2)
        assert victim.swarm.prefixes == {"127.0.0.0/24": 10}


@pytest.mark.usefixtures("public")
@MANY_PREFIXES
async def test_a_newcomer_from_elsewhere_displaces_the_newest_of_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """All five places are taken by two prefixes; a third one gets a place, and of the three none loses its last."""
    monkeypatch.setattr(libp2p_host, "MAX_INBOUND", 5)
    async with networks(1) as [(victim, owner)], AsyncExitStack() as stack:

        async def come(source: str) -> str:
            SOURCE.set(source)
            [(net, _)] = await stack.enter_async_context(networks(1))
            with suppress(PeerError):
                await net.connect(victim.addresses[0])
            return net.peer_id

        first = [await come(source) for source in ("127.0.9.1", "127.0.9.2", "127.0.9.3", "127.0.8.1", "127.0.8.2")]
        await until(lambda: owner.connected == first)
        last = await come("127.0.7.1")
        await until(lambda: owner.disconnected == [first[2]])
        assert owner.refused == ["displaced"]
        other = await come("127.0.9.4")
        await until(lambda: owner.refused == ["displaced", "full"])
        await until(lambda: other not in owner.connected or other in owner.disconnected)
        await until(lambda: set(owner.connected) - set(owner.disconnected) == {*first[:2], *first[3:], last})
        assert len(victim.swarm.strangers) == 5


async def test_addresses_of_the_newer_ip_version_are_known() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    here, there = Owner(), Owner()
    net, other = make_network(here, host="::1"), make_network(there, host="::1")
    async with net.run(), other.run():
        await net.connect(other.addresses[0])
        await until(lambda: here.addresses and there.addresses)
        assert here.addresses == ["out " + other.addresses[0].partition("/p2p/")[0]]
        assert there.addresses[0].startswith("in /ip6/::1/tcp/")
        assert other.swarm.prefixes == {"::/48": 1}


async def test_library_does_not_know_addresses_of_the_newer_ip_version() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    async with running(make_host()) as host, running(make_host(), "/ip6/::1/tcp/0") as other:
        await host.connect(info_from_p2p_addr(other.get_addrs()[0]))
        [connection] = cast("Swarm", host.get_network()).get_connections(other.get_id())
        assert connection.get_transport_addresses() == []


def plaintext(host_seed: int) -> dict[str, Any]:
    keys = create_new_key_pair(host_seed.to_bytes(32, "big"))
    return {"sec_opt": {TProtocol(PLAINTEXT_PROTOCOL_ID): InsecureTransport(keys)}}


async def test_library_takes_anybodys_word_for_who_he_is() -> None:
    async with plain() as (host, _), running(libp2p.new_host(create_new_key_pair(bytes(32)), **plaintext(0))) as liar:
        await Stranger(liar).connect(host)


async def test_who_does_not_prove_who_he_is_is_refused() -> None:
    async with (
        networks(1) as [(victim, owner)],
        running(libp2p.new_host(create_new_key_pair(bytes(32)), **plaintext(0))) as liar,
    ):
        with pytest.raises(SwarmException):
            await Stranger(liar).connect(victim)
        assert owner.connected == []


# Listening.


def get_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_library_shares_a_port() -> None:
    port = get_free_port()
    address = [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]
    one, other = make_host(), make_host()
    async with one.run(address), other.run(address):
        assert len(one.get_addrs()) == len(other.get_addrs()) == 1
        await other.close()
        await one.close()


async def test_a_port_in_use_is_refused_and_free_again_at_once() -> None:
    port = get_free_port()
    for _ in range(2):
        async with make_network(Owner(), port=port).run():
            with pytest.raises(NodeError) as caught:
                async with make_network(Owner(), port=port).run():
                    pass
            assert str(caught.value) == f"port {port} on 127.0.0.1: Address already in use; give another --p2p-port"


async def test_cancelling_frees_the_port_and_ends_connections() -> None:
    port = get_free_port()
    async with networks(1) as [(other, owner)]:
        for times in (1, 2):
            net = make_network(Owner(), port=port)
            with trio.CancelScope() as scope:
                async with net.run():
                    await net.connect(other.addresses[0])
                    await until(lambda: len(owner.connected) == times)  # noqa: B023
                    scope.cancel()
                    await trio.sleep_forever()
            await until(lambda: len(owner.disconnected) == times)  # noqa: B023


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(NodeError, match="give another --p2p-host"):
        async with make_network(Owner(), host="198.51.100.7", port=0).run():
            pass


async def test_listening_everywhere_shows_addresses_to_dial() -> None:
    net = make_network(Owner(), host="0.0.0.0")  # noqa: S104
    async with net.run(), networks(1) as [(other, _)]:
        assert net.addresses[0].startswith("/ip4/127.0.0.1/tcp/")
        assert not any("0.0.0.0" in address for address in net.addresses)  # noqa: S104
        assert all(address.endswith(f"/p2p/{net.peer_id}") for address in net.addresses)
        for address in net.addresses:
            assert await other.connect(address) == net.peer_id
            await other.disconnect(net.peer_id)


async def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    owner = Owner()
    net = make_network(owner, host="::1")
    async with net.run(), networks(1) as [(other, _)]:
        assert net.addresses[0].startswith("/ip6/::1/tcp/")
        await other.connect(net.addresses[0])
        assert await other.request(net.peer_id, ECHO, b"question", LIMIT) == b"question"


@pytest.mark.slow
async def test_mdns_finds_a_neighbour() -> None:
    if not has_multicast():
        pytest.skip("multicast does not work here")
    one, other = Owner(), Owner()
    here, there = (make_network(owner, host="0.0.0.0", local_name="abcd0123") for owner in (one, other))  # noqa: S104
    started = trio.current_time()
    async with here.run(), there.run():
        assert trio.current_time() - started < 1, "registering goes on in the background"
        with trio.fail_after(15):
            await until(lambda: any(there.peer_id in address for address in one.discovered))
            await until(lambda: any(here.peer_id in address for address in other.discovered))
        found = next(address for address in one.discovered if there.peer_id in address)
        assert await here.connect(found) == there.peer_id


def has_multicast() -> bool:
    """Whether a datagram to mDNS's group comes back to this machine."""
    group = ("224.0.0.251", get_free_port())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(1)
        receiver.bind(("", group[1]))
        try:
            membership = socket.inet_aton(group[0]) + socket.inet_aton("0.0.0.0")  # noqa: S104
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            receiver.sendto(b"here", group)
            return receiver.recv(4) == b"here"
        except OSError:
            return False


# Verdicts.


@asynccontextmanager
async def line() -> AsyncIterator[list[tuple[Transport, Owner]]]:
    """Run three networks of which the middle one knows both others."""
    async with networks(3) as pairs:
        await link(pairs[0][0], pairs[1][0])
        await link(pairs[1][0], pairs[2][0])
        yield pairs


async def test_accepted_messages_are_forwarded_and_own_ones_not_judged() -> None:
    async with line() as [(first, own), (_, middle), (_, last)]:
        for number in range(20):
            await first.publish(TOPIC, b"block %d" % number)
        await until(lambda: len(last.gossip) == 20)
        assert Counter(middle.gossip) == Counter(last.gossip) == Counter(b"block %d" % n for n in range(20))
        assert own.gossip == []


async def test_ignored_messages_are_not_forwarded_and_judged_again() -> None:
    async with line() as [(first, _), (_, middle), (_, last)]:
        middle.verdicts[b"early"] = Verdict.IGNORE
        await first.publish(TOPIC, b"early")
        await until(lambda: middle.gossip == [b"early"])
        await first.publish(TOPIC, b"next")
        await until(lambda: last.gossip == [b"next"])
        del middle.verdicts[b"early"]
        await first.publish(TOPIC, b"early")
        await until(lambda: last.gossip == [b"next", b"early"])
        assert middle.gossip == [b"early", b"next", b"early"]


async def test_rejected_messages_are_not_forwarded_and_not_judged_again() -> None:
    async with line() as [(first, _), (net, middle), (third, last)]:
        middle.verdicts[b"bad"] = Verdict.REJECT
        for data in (b"bad", b"bad", b"good"):
            await first.publish(TOPIC, data)
        await until(lambda: last.gossip == [b"good"])
        assert middle.gossip == [b"bad", b"good"]
        score = net.pubsub.scorer.score
        assert score(ID.from_string(first.peer_id), [TOPIC]) < 0 <= score(ID.from_string(third.peer_id), [TOPIC])


async def test_equal_messages_are_judged_once_and_the_next_forwarders_after_ignore() -> None:
    async with networks(1) as [(victim, owner)], stranger() as one, stranger() as other:
        streams = [await peer.open(victim, MESHSUB[0]) for peer in (one, other)]
        gate = trio.Event()
        owner.judge = lambda _: gate.wait()
        owner.verdicts[b"early"] = Verdict.IGNORE
        for stream in streams:
            await stream.write(frame_rpc(message(b"block"), message(b"early"), message(b"block")))
        await until(lambda: list(map(len, victim.pubsub.in_flight.values())) == [2, 2])
        gate.set()
        await until(lambda: not victim.pubsub.in_flight)
        assert Counter(owner.gossip) == {b"block": 1, b"early": 2}
        assert len({peer for peer, data in zip(owner.forwarders, owner.gossip, strict=True) if data == b"early"}) == 2


async def test_library_judges_once_for_every_forwarder() -> None:
    gate, judged = trio.Event(), []

    async def validate(forwarder: ID, _: rpc_pb2.Message) -> bool:
        judged.append(forwarder)
        await gate.wait()
        return True

    async with plain() as (_, pubsub):
        pubsub.strict_signing = False
        pubsub.set_topic_validator(TOPIC, validate, is_async_validator=True)
        async with trio.open_nursery() as nursery:
            for forwarder in (ID(b"one"), ID(b"other")):
                nursery.start_soon(pubsub.push_msg, forwarder, message(b"block"))
            await until(lambda: len(judged) == 2)
            gate.set()


async def test_own_messages_travel_unsigned_and_are_not_judged_when_they_come_back() -> None:
    async with networks(1) as [(here, owner)], stranger() as peer:
        stream = await peer.open(here, MESHSUB[0])
        await stream.write(frame_rpc(subscriptions=[subscribe()]))
        await here.router.wait_for_mesh(peer.host.get_id(), TOPIC, PATIENCE_S)
        await here.publish(TOPIC, b"block")
        await until(lambda: any(rpc.publish for rpc in peer.received))
        [sent] = [sent for rpc in peer.received for sent in rpc.publish]
        assert [field.name for field, _ in sent.ListFields()] == ["data", "topicIDs"]
        await stream.write(frame_rpc(sent, message(b"other")))
        await until(lambda: owner.gossip == [b"other"])


def subscribe() -> rpc_pb2.RPC.SubOpts:
    return rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)


# Control messages.


def make_id(data: bytes) -> bytes:
    return compute_message_id(TOPIC, data)


async def test_lost_messages_are_offered_and_asked_for() -> None:
    async with networks(1) as [(here, owner)], stranger() as peer:
        stream = await peer.open(here, MESHSUB[0])
        ihave = rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[make_id(b"block")])
        await stream.write(frame_rpc(control=rpc_pb2.ControlMessage(ihave=[ihave])))
        await until(lambda: any(rpc.control.iwant for rpc in peer.received))
        [iwant] = [iwant for rpc in peer.received for iwant in rpc.control.iwant]
        assert list(iwant.messageIDs) == [make_id(b"block")]
        await stream.write(frame_rpc(message(b"block")))
        await until(lambda: owner.gossip == [b"block"])


def announce(router: GossipSub) -> dict[ID, dict[str, list[bytes]]]:
    """Return what a heartbeat announces to a subscriber that has just left the mesh."""
    peer, pubsub = ID(b"peer"), Pubsub(make_host(), router)
    pubsub.seen_messages.stop()
    router.mesh[TOPIC], pubsub.peer_topics[TOPIC] = set(), {peer}
    router.peer_protocol[peer] = MESHSUB[0]
    router._add_back_off(peer, TOPIC, is_unsubscribe=False)
    router.mcache.put(message(b"block", from_id=b"f"))
    return router.gossip_heartbeat()


async def test_who_has_left_the_mesh_is_told_of_messages() -> None:
    assert announce(libp2p_gossip.make_router()) == {ID(b"peer"): {TOPIC: [make_id(b"block")]}}


async def test_library_does_not_tell_who_has_left_the_mesh() -> None:
    assert announce(GossipSub(MESHSUB, 6, 4, 12)) == {}


async def test_what_is_asked_for_is_sent_once() -> None:
    async with networks(1) as [(here, _)], stranger() as peer:
        stream = await peer.open(here, MESHSUB[0])
        await stream.write(frame_rpc(subscriptions=[subscribe()]))
        await here.router.wait_for_mesh(peer.host.get_id(), TOPIC, PATIENCE_S)
        await here.publish(TOPIC, b"block")
        wanted = rpc_pb2.ControlIWant(messageIDs=[make_id(b"block"), make_id(b"unknown")] * 100)
        await stream.write(frame_rpc(message(b"theirs"), control=rpc_pb2.ControlMessage(iwant=[wanted] * 10)))
        await until(lambda: len(get_published(peer)) == 2)
        await here.publish(TOPIC, b"last")
        await until(lambda: get_published(peer) == [b"block", b"block", b"last"])


def get_published(peer: Stranger) -> list[bytes]:
    return [sent.data for rpc in peer.received for sent in rpc.publish]


async def test_library_sends_as_often_as_it_is_asked() -> None:
    sent: list[rpc_pb2.RPC] = []

    class Router(GossipSub):
        def send_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, priority: bool = False) -> None:
            sent.append(rpc)

    router = Router(MESHSUB, 6, 4, 12)
    router.mcache.put(message(b"block", from_id=b"f", seqno=b"s"))
    router.pubsub = cast("Pubsub", object())
    await router.handle_iwant(rpc_pb2.ControlIWant(messageIDs=[b"fs"] * 100), ID(b"peer"))
    assert [len(rpc.publish) for rpc in sent] == [100]


async def test_control_messages_are_trimmed() -> None:
    other, ids = "/other", [make_id(bytes([index])) for index in range(libp2p_gossip.MAX_CONTROL_IDS + 1)]
    px = [rpc_pb2.PeerInfo(peerID=b"somebody to dial")]
    control = rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(topicID=topic, messageIDs=[b"short", *ids]) for topic in (other, TOPIC, TOPIC)],
        iwant=[rpc_pb2.ControlIWant(messageIDs=[ids[0], ids[0], ids[1]])] * 2,
        idontwant=[rpc_pb2.ControlIDontWant(messageIDs=[bytes(100), ids[0]])] * 2,
        graft=[rpc_pb2.ControlGraft(topicID=topic) for topic in (other, TOPIC, TOPIC)],
        prune=[rpc_pb2.ControlPrune(topicID=topic, backoff=1 << 63, peers=px) for topic in (other, TOPIC, TOPIC)],
    )
    libp2p_gossip.trim(control, {TOPIC})
    assert control == rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=ids[:-1])],
        iwant=[rpc_pb2.ControlIWant(messageIDs=ids[:2])],
        idontwant=[rpc_pb2.ControlIDontWant(messageIDs=ids[:1])],
        graft=[rpc_pb2.ControlGraft(topicID=TOPIC)],
        prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=libp2p_gossip.PRUNE_BACK_OFF_S)],
    )


# What is remembered.


async def test_unsigned_messages_are_told_apart() -> None:
    one, other = message(b"one"), message(b"other")
    cache, router = libp2p_gossip.MessageCache(3, 5), libp2p_gossip.make_router()
    for sent in (one, other, one):
        cache.put(sent)
        assert router._check_equivocation(sent)
    assert cache.window(TOPIC) == [make_id(b"one"), make_id(b"other")]
    assert (cache.get(make_id(b"one")), cache.get(make_id(b"other"))) == (one, other)
    for _ in range(5):
        cache.shift()
    assert cache.msgs == {}


async def test_library_takes_unsigned_messages_for_one() -> None:
    one, other = message(b"one"), message(b"other")
    cache, router = MessageCache(3, 5), GossipSub(MESHSUB, 6, 4, 12)
    for sent in (one, other):
        cache.put(sent)
    assert len(cache.msgs) == 1
    assert cache.get(make_id(b"one")) is None
    assert [router._check_equivocation(sent) for sent in (one, other)] == [True, False]


async def test_library_remembers_for_ever() -> None:
    router = GossipSub(MESHSUB, 6, 4, 12, adaptive_gossip_enabled=False, spam_protection_enabled=False)
    pubsub = Pubsub(make_host(), router)
    pubsub.seen_messages.stop()
    for number in range(100):
        prune = rpc_pb2.ControlPrune(topicID=str(number), backoff=1 << 63)
        await router.handle_prune(prune, ID(b"peer"))
        await router.publish(ID(b"peer"), message(b"block", seqno=bytes([number])))
    router.remove_peer(ID(b"peer"))
    router._periodic_security_cleanup()
    assert (len(router.back_off), len(router.recent_message_deliveries[TOPIC])) == (100, 100)


def count_items(root: object) -> int:
    """Count what is in the containers of the library's objects, and of `poaid`'s, that can be reached."""
    seen: set[int] = set()
    todo, total = [root], 0
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            parts = [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset | deque):
            parts = list(item)
        elif type(item).__module__.startswith(("libp2p", "poaid")) and hasattr(item, "__dict__"):
            parts = list(vars(item).values())
        else:
            continue
        total += len(parts)
        todo += parts
    return total


async def test_messages_leave_nothing_but_their_ids() -> None:
    async with networks(2) as [(here, _), (there, owner)]:
        await link(here, there)

        async def measure(first: int, last: int) -> list[int]:
            for number in range(first, last):
                await here.publish(TOPIC, number.to_bytes(2, "big"))
                if number % 50 == 49:
                    await until(lambda: len(owner.gossip) == number + 1)  # noqa: B023
            for net in (here, there):
                for _ in range(5):
                    net.router.mcache.shift()
                net.router._periodic_security_cleanup()
                net.router._prune_idontwant_entries()
            return [count_items(net) - 2 * net.pubsub.seen_messages.length() for net in (here, there)]

        before = await measure(0, 500)
        after = await measure(500, 2_000)
        assert all(last - first < 50 for first, last in zip(before, after, strict=True)), (before, after)
        assert len(owner.gossip) == 2_000


async def test_peers_leave_nothing() -> None:
    async with networks(1) as [(victim, owner)]:

        async def measure(times: int) -> int:
            for number in range(times):
                async with stranger(listens=number % 2 == 0) as peer:
                    await victim.connect(peer.address)
                    stream = await peer.open(victim, MESHSUB[0])
                    prune = rpc_pb2.ControlPrune(topicID=TOPIC, backoff=1)
                    control = rpc_pb2.ControlMessage(prune=[prune], idontwant=[rpc_pb2.ControlIDontWant()])
                    owner.verdicts[peer.peer_id.encode()] = Verdict.REJECT
                    data = peer.peer_id.encode()
                    await stream.write(frame_rpc(message(data), subscriptions=[subscribe()], control=control))
                    await until(lambda: owner.gossip[-1:] == [data])  # noqa: B023
            await until(lambda: len(owner.disconnected) == len(owner.connected))
            await until(lambda: not victim.pubsub.peers)
            for peers in victim.router.back_off.values():
                for peer_id in peers:
                    peers[peer_id] = 0
            victim.router._periodic_security_cleanup()
            return count_items(victim) - 2 * victim.pubsub.seen_messages.length()

        before = await measure(2)
        assert await measure(8) - before < 8
