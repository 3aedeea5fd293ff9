"""What libp2p announces and does not keep: the library's own class breaking each bound, and ours holding it.

The rows of decision 0010. When a test of the library fails, its remedy can go.
"""

import struct
from contextlib import suppress
from typing import Any, cast

import pytest
import trio
from Crypto.PublicKey import RSA
from Crypto.Util.asn1 import DerSequence
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyType
from libp2p.crypto.pb import crypto_pb2
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.discovery.mdns.listener import PeerListener
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.protocol_muxer.multiselect import MULTISELECT_PROTOCOL_ID, Multiselect
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.noise.exceptions import NoiseFailure
from libp2p.security.noise.messages import NoiseHandshakePayload
from libp2p.security.noise.pb import noise_pb2
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_SYN,
    TYPE_DATA,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)
from libp2p.utils import encode_varint_prefixed
from libp2p.utils.varint import encode_uvarint
from zeroconf import ServiceInfo, Zeroconf

from poai_spec.basics.notation import Malformed
from poaid.net.libp2p import gossip as libp2p_gossip
from poaid.net.libp2p import session as libp2p_session
from poaid.net.libp2p.gossip import MESHSUB, check_counts
from poaid.net.libp2p.host import get_peer_id
from poaid.net.libp2p.session import GO_AWAY_S, Communicator, Listener, Session, Stream, check_handshake
from poaid.net.libp2p.streams import BROKEN, CLOSE_TIMEOUT_S
from poaid.net.transport import Transport, keep_nothing
from tests.unit.poaid.net.test_transport import (
    ECHO,
    PATIENCE_S,
    TOPIC,
    Stranger,
    ends,
    message,
    networks,
    plain,
    stranger,
    until,
)

pytestmark = [pytest.mark.sockets, pytest.mark.trio]

WINDOW = 256 * 1024
PEER = ID(b"peer")


# Yamux.


class Wire:
    """A secured connection whose other side says what it is told to, and hears nothing."""

    is_initiator = False

    def __init__(self, *frames: bytes) -> None:
        self.data, self.taken, self.closed = b"".join(frames), 0, False

    async def read(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        part = self.data[self.taken : self.taken + size]
        self.taken += len(part)
        return part

    async def write(self, _: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        self.closed = True


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack(YAMUX_HEADER_FORMAT, 0, kind, flags, stream_id, length) + body


def data_frame(stream_id: int, size: int, flags: int = 0) -> bytes:
    return frame(TYPE_DATA, flags, stream_id, size, bytes(size))


async def run_session(session: Yamux) -> int:
    """Run a session until its wire is at an end; return the most that it has kept unread."""
    most = 0
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with suppress(*BROKEN):
                    while True:
                        await session.accept_stream()

            async def watch() -> None:
                nonlocal most
                while not session.is_closed:
                    most = max(most, sum(map(len, session.stream_buffers.values())))
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

            nursery.start_soon(accept)
            nursery.start_soon(watch)
            nursery.start_soon(session.handle_incoming)
    return most


PIECE = WINDOW // 4
FLOODS = {
    "one stream": [data_frame(1, PIECE, FLAG_SYN), *[data_frame(1, PIECE)] * 20],
    "first frames": [data_frame(1 + 2 * n, WINDOW + 1, FLAG_SYN) for n in range(20)],
    "an own stream": [data_frame(2, PIECE)] * 20,
    "many streams": [data_frame(1 + 2 * n, WINDOW, FLAG_SYN) for n in range(20)],
}


async def flood(kind: type[Yamux], name: str) -> tuple[int, Wire, list[Malformed]]:
    wire, faults = Wire(*FLOODS[name]), list[Malformed]()
    more: tuple[Any, ...] = (lambda _, error: faults.append(error),) if kind is Session else ()
    session = kind(cast("Any", wire), PEER, *more)
    if name == "an own stream":
        await session.open_stream()
    return await run_session(session), wire, faults


@pytest.mark.parametrize("name", FLOODS)
async def test_library_keeps_whatever_is_sent(name: str) -> None:
    most, wire, _ = await flood(Yamux, name)
    assert most > 4 * WINDOW
    assert wire.taken == len(wire.data)


@pytest.mark.parametrize("name", FLOODS)
async def test_a_session_ends_at_the_first_byte_beyond_a_window(name: str) -> None:
    most, wire, faults = await flood(Session, name)
    assert most <= (libp2p_session.MAX_UNREAD_BYTES if name == "many streams" else WINDOW)
    assert wire.taken <= most + 12 * 5 + 12, "nothing is read of the frame that was one too many"
    assert (wire.closed, [fault.code for fault in faults]) == (True, ["encoding/undecodable"])


async def test_a_session_takes_a_full_window() -> None:
    wire, faults = Wire(data_frame(1, WINDOW, FLAG_SYN)), list[Malformed]()
    assert await run_session(Session(cast("Any", wire), PEER, lambda _, error: faults.append(error))) == WINDOW
    assert faults == []


@pytest.mark.parametrize(
    "frames",
    [
        [frame(TYPE_DATA, 0, 9, WINDOW + 1)],
        [b"\1" + frame(TYPE_DATA, 0, 1, 0)[1:]],
        [frame(7, 0, 1, 0)],
        [frame(TYPE_WINDOW_UPDATE, FLAG_SYN, 2, 0)],
        [frame(TYPE_WINDOW_UPDATE, FLAG_SYN, 1, 0)] * 2,
        [frame(TYPE_WINDOW_UPDATE, FLAG_SYN, 1 + 2 * n, 0) for n in range(libp2p_session.MAX_SESSION_STREAMS + 1)],
    ],
    ids=["of no stream", "version", "type", "our number", "number in use", "streams"],
)
async def test_frames_that_end_a_session(frames: list[bytes]) -> None:
    wire, faults = Wire(*frames, data_frame(1, 10)), list[Malformed]()
    await run_session(Session(cast("Any", wire), PEER, lambda _, error: faults.append(error)))
    assert ([fault.code for fault in faults], wire.taken < len(wire.data)) == (["encoding/undecodable"], True)


async def read_all(stream: YamuxStream, times: int) -> int:
    """Read a full window again and again; return how large it has become."""
    conn = stream.conn
    conn.streams[1], conn.stream_buffers[1], conn.stream_events[1] = stream, bytearray(), trio.Event()
    for _ in range(times):
        size = stream.recv_window
        conn.stream_buffers[1] += bytes(size)
        stream.recv_window = 0
        assert len(await stream.read(size)) == size
    return stream.recv_window


async def test_library_lets_windows_grow() -> None:
    session = Yamux(cast("Any", Wire()), PEER)
    session._rtt = PATIENCE_S  # it grows with readings that follow each other within four round trips
    assert await read_all(YamuxStream(1, session, is_initiator=False), 12) == 16 * 1024 * 1024


async def test_windows_do_not_grow() -> None:
    session = Session(cast("Any", Wire()), PEER, lambda _, __: None)
    assert await read_all(Stream(1, session, is_initiator=False), 12) == WINDOW


async def reset_unread(session: Yamux, stream: YamuxStream) -> int:
    """Reset a stream with something unread that both sides have closed before; return what is kept."""
    session.streams[1], session.stream_buffers[1], session.stream_events[1] = stream, bytearray(9), trio.Event()
    stream.recv_closed = True
    await stream.close()
    await stream.reset()
    return sum(map(len, session.stream_buffers.values()))


async def test_library_keeps_what_is_unread_of_a_stream_that_is_reset() -> None:
    session = Yamux(cast("Any", Wire()), PEER)
    assert await reset_unread(session, YamuxStream(1, session, is_initiator=False)) == 9


async def test_nothing_is_kept_of_a_stream_that_is_reset() -> None:
    session = Session(cast("Any", Wire()), PEER, lambda _, __: None)
    assert await reset_unread(session, Stream(1, session, is_initiator=False)) == 0


class FullWire(Wire):
    """One whose other side reads nothing."""

    async def write(self, _: bytes) -> None:
        await trio.sleep_forever()


async def close_in_time(kind: type[Yamux]) -> bool:
    """Close a session as its owner does; return whether its connection is closed then."""
    wire = FullWire()
    wired = cast(Any, wire)
    session = Session(wired, PEER, lambda *_: None) if kind is Session else Yamux(wired, PEER, is_initiator=False)
    with trio.move_on_after(CLOSE_TIMEOUT_S):
        await session.close()
    return wire.closed


@pytest.mark.usefixtures("autojump_clock")
async def test_library_leaves_a_connection_open_whose_other_side_does_not_read() -> None:
    assert not await close_in_time(Yamux)


@pytest.mark.usefixtures("autojump_clock")
async def test_a_session_ends_though_the_other_side_does_not_read() -> None:
    assert await close_in_time(Session)


@pytest.mark.usefixtures("autojump_clock")
async def test_a_session_ends_though_its_closing_is_given_up() -> None:
    wire = FullWire()
    with trio.move_on_after(GO_AWAY_S / 2):
        await Session(cast(Any, wire), PEER, lambda *_: None).close()
    assert wire.closed


async def overrun(peer: Stranger, victim: Transport | IHost) -> trio.Event:
    """Send more than a window on a stream whose reader waits for the end of a negotiation."""
    stream = await peer.open_raw(victim)
    session = cast("Any", stream.muxed_conn)
    await session._write_frame(data_frame(stream.muxed_stream.stream_id, WINDOW))  # type: ignore[attr-defined]
    with suppress(*BROKEN):
        for _ in range(8):
            await session._write_frame(data_frame(stream.muxed_stream.stream_id, WINDOW))  # type: ignore[attr-defined]
    return cast("trio.Event", session.event_closed)


async def test_who_overruns_a_window_is_disconnected_and_blamed() -> None:
    async with networks(2) as [(victim, owner), (honest, _)], stranger() as peer:
        closed = await overrun(peer, victim)
        with trio.fail_after(PATIENCE_S):
            await closed.wait()
        await until(lambda: peer.peer_id in owner.disconnected)
        assert owner.faults == [(peer.peer_id, "encoding/undecodable")]
        await honest.connect(victim.addresses[0])
        assert await honest.request(victim.peer_id, ECHO, b"question", 100) == b"question"


# mDNS.


class Neighbour:
    """Stands for zeroconf: a service that announces a peer."""

    def __init__(self, number: int) -> None:
        self.peer_id = get_peer_id(number.to_bytes(32, "big"))

    def get_service_info(self, kind: str, name: str, **_: Any) -> ServiceInfo:
        return ServiceInfo(kind, name, 4001, properties={"dnsaddr": f"/ip4/192.0.2.1/tcp/4001/p2p/{self.peer_id}"})


def hear(listener: PeerListener) -> int:
    """Have a listener hear of ten peers; return how much of it is remembered."""
    listener.service_name, listener.ttl, listener.retry_attempts = "own", 120, 1
    heard, kind = list[str](), "_p2p-abcd0123._udp.local."
    peerDiscovery.register_peer_discovered_handler(remember := lambda info: heard.append(str(info.peer_id)))
    for number in range(10):
        listener.add_service(cast("Zeroconf", Neighbour(number)), kind, f"{number}.{kind}")
    peerDiscovery.unregister_peer_discovered_handler(remember)
    assert len(heard) == 10
    return len(listener.discovered_services) + len(listener.peerstore.peers_with_addrs())


async def test_library_remembers_every_neighbour() -> None:
    listener = object.__new__(PeerListener)
    listener.peerstore, listener.discovered_services = PeerStore(), {}
    assert hear(listener) == 20


async def test_no_neighbour_is_remembered_by_the_library() -> None:
    listener = object.__new__(PeerListener)
    keep_nothing(listener)
    assert hear(listener) == 0


# Negotiation.


class Reader:
    """A stranger's bytes, and how many of them were taken."""

    def __init__(self, data: bytes) -> None:
        self.data, self.taken = data, 0

    async def read(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        part = self.data[self.taken : self.taken + size]
        self.taken += len(part)
        return part

    async def write(self, _: bytes) -> None:
        await trio.lowlevel.checkpoint()


LONG = 1 << 22


async def negotiate(muxer: Multiselect, data: bytes) -> tuple[int, int]:
    """Return how much of a stranger's data was taken, and how long the longest error text is."""
    reader, longest = Reader(data), 0
    try:
        await muxer.negotiate(MultiselectCommunicator(cast("Any", reader)))
    except MultiselectError as error:
        causes: list[BaseException | None] = [error, error.__cause__, error.__context__]
        causes += [cause.__cause__ for cause in causes if cause is not None]
        longest = max(len(str(cause)) for cause in causes if cause is not None)
    return reader.taken, longest


GREETING = encode_varint_prefixed(f"{MULTISELECT_PROTOCOL_ID}\n".encode())
LONG_MESSAGE = encode_uvarint(LONG) + bytes(LONG)


async def test_library_reads_whatever_length_it_is_told_and_repeats_it() -> None:
    taken, longest = await negotiate(Multiselect(), LONG_MESSAGE)
    assert taken == len(LONG_MESSAGE)
    assert longest > LONG


@pytest.mark.parametrize("before", [b"", GREETING])
async def test_a_negotiation_ends_at_a_length_that_is_too_large(before: bytes) -> None:
    taken, longest = await negotiate(Listener(), before + LONG_MESSAGE)
    assert taken == len(before) + len(encode_uvarint(LONG))
    assert longest < 200


async def test_a_negotiation_takes_the_longest_message() -> None:
    text = "x" * (libp2p_session.MAX_NEGOTIATION_BYTES - 1)
    reader = Reader(encode_varint_prefixed(f"{text}\n".encode()))
    assert await Communicator(cast("Any", reader)).read() == text


MANY_MESSAGES = GREETING + encode_varint_prefixed(b"ls\n") * 1_000


async def test_library_negotiates_for_ever() -> None:
    assert (await negotiate(Multiselect(), MANY_MESSAGES))[0] == len(MANY_MESSAGES)


async def test_a_negotiation_has_so_many_messages() -> None:
    taken, _ = await negotiate(Listener(), MANY_MESSAGES)
    assert taken == len(GREETING) + 4 * (libp2p_session.MAX_NEGOTIATION_MESSAGES - 1)


@pytest.mark.parametrize("greet", [False, True])
async def test_a_stranger_with_a_long_message_is_hung_up_on_before_noise(greet: bool) -> None:
    async with networks(1) as [(victim, owner)]:
        stream = await trio.open_tcp_stream("127.0.0.1", int(victim.addresses[0].split("/")[4]))
        with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            await stream.send_all((GREETING if greet else b"") + encode_uvarint(1 << 28))
            while await stream.receive_some():
                pass
        await stream.aclose()
        assert owner.connected == []


# Noise.


def make_handshake(kind: KeyType, key: bytes) -> bytes:
    public = crypto_pb2.PublicKey(key_type=kind.value, data=key)
    return noise_pb2.NoiseHandshakePayload(
        identity_key=public.SerializeToString(), identity_sig=b"signature"
    ).SerializeToString()


IMPORT_KEY = RSA.import_key
RSA_KEY = DerSequence([(1 << 8_191) | 1, 65_537]).encode()
"""Of twice the 4,096 bits that the library announces as its limit."""


async def test_library_reads_a_key_before_it_compares_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[int]()

    def import_key(data: bytes) -> RSA.RsaKey:
        read.append(len(data))
        return IMPORT_KEY(data)

    monkeypatch.setattr(RSA, "import_key", import_key)
    with pytest.raises(ValueError, match="Failed to deserialize public key"):
        NoiseHandshakePayload.deserialize(make_handshake(KeyType.RSA, RSA_KEY))
    assert read == [len(RSA_KEY)]


@pytest.mark.parametrize(
    "payload",
    [
        make_handshake(KeyType.RSA, RSA_KEY),
        make_handshake(KeyType.Ed25519, bytes(33)),
        make_handshake(KeyType.Ed25519, bytes(libp2p_session.MAX_HANDSHAKE_BYTES)),
        noise_pb2.NoiseHandshakePayload(identity_sig=b"signature").SerializeToString(),
    ],
    ids=["RSA", "length", "size", "no key"],
)
async def test_a_costly_key_is_refused_before_it_is_read(payload: bytes) -> None:
    with pytest.raises(NoiseFailure):
        check_handshake(payload)


async def test_keys_of_two_kinds_are_taken() -> None:
    check_handshake(make_handshake(KeyType.Ed25519, create_new_key_pair(bytes(32)).public_key.to_bytes()))
    check_handshake(make_handshake(KeyType.Secp256k1, bytes(33)))


# Gossip.


def wrap(number: int, data: bytes) -> bytes:
    """Return a protobuf field that has a length."""
    return encode_uvarint(number << 3 | 2) + encode_uvarint(len(data)) + data


def control(part: bytes, number: int) -> bytes:
    return wrap(3, part * number)


MANY = 5_001
PARTS: dict[str, bytes] = {
    "RPC.subscriptions": wrap(1, b"") * MANY,
    "RPC.publish": wrap(2, b"") * MANY,
    "RPC.control": wrap(3, b"") * MANY,
    "RPC.senderRecord": wrap(4, b"") * MANY,
    "unknown": b"\x78\x00" * MANY,
    "Message.topicIDs": wrap(2, wrap(4, b"") * MANY),
    "Message.data": wrap(2, wrap(2, b"") * MANY),
    "ControlMessage.ihave": control(wrap(1, b""), MANY),
    "ControlMessage.iwant": control(wrap(2, b""), MANY),
    "ControlMessage.graft": control(wrap(3, b""), MANY),
    "ControlMessage.prune": control(wrap(4, b""), MANY),
    "ControlMessage.idontwant": control(wrap(5, b""), MANY),
    "ControlMessage.extensions": control(wrap(6, b""), MANY),
    "ControlMessage.observe": control(wrap(7, b""), MANY),
    "ControlIHave.messageIDs": control(wrap(1, wrap(2, b"") * MANY), 1),
    "ControlIWant.messageIDs": control(wrap(2, wrap(1, b"") * MANY), 1),
    "ControlIDontWant.messageIDs": control(wrap(5, wrap(1, b"") * MANY), 1),
    "ControlPrune.peers": control(wrap(4, wrap(2, b"") * MANY), 1),
    "ControlPrune.backoff": control(wrap(4, b"\x18\x00" * MANY), 1),
    "ids of many parts": control(wrap(2, wrap(1, b"") * 500), 11),
}


async def test_every_repeated_field_is_among_the_parts() -> None:
    found = set[str]()
    todo = [rpc_pb2.RPC.DESCRIPTOR]
    for descriptor in todo:
        for field in descriptor.fields:
            if field.is_repeated:
                found.add(field.full_name.removeprefix("pubsub.pb."))
            if field.message_type is not None:
                todo.append(field.message_type)
    assert found - {"ControlMessage.unobserve"} <= PARTS.keys()


@pytest.mark.parametrize("name", PARTS)
async def test_an_rpc_has_so_many_parts(name: str) -> None:
    rpc_pb2.RPC.FromString(PARTS[name])  # the library can read it
    with pytest.raises(Malformed) as caught:
        check_counts(PARTS[name])
    assert name.partition(" ")[0] in caught.value.detail or name == "ids of many parts"


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05\x00", b"\xff" * 11, b"\x0b\x0c", b"\x09\x00", b"\x12\x02\x0a\x05"]
)
async def test_what_is_no_protobuf_is_refused_by_its_marks(data: bytes) -> None:
    with pytest.raises(Malformed):
        check_counts(data)


def make_full_rpc() -> bytes:
    """Return an RPC with as many parts as are allowed."""
    ids = [number.to_bytes(32, "big") for number in range(libp2p_gossip.MAX_LISTED_IDS)]
    parts = libp2p_gossip.MAX_RPC_PARTS
    return rpc_pb2.RPC(
        publish=[message(bytes([index])) for index in range(libp2p_gossip.MAX_RPC_MESSAGES)],
        subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)] * parts,
        control=rpc_pb2.ControlMessage(
            ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=ids)],
            iwant=[rpc_pb2.ControlIWant(messageIDs=ids)],
            idontwant=[rpc_pb2.ControlIDontWant(messageIDs=ids)],
            graft=[rpc_pb2.ControlGraft(topicID=TOPIC)] * parts,
            prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=1)] * parts,
        ),
    ).SerializeToString()


async def test_an_rpc_of_as_many_parts_as_are_allowed_passes() -> None:
    check_counts(make_full_rpc())


async def test_library_touches_every_empty_part() -> None:
    touched = 0

    class Router(GossipSub):
        async def handle_iwant(self, *_: Any) -> None:
            nonlocal touched
            touched += 1

    router = Router(MESHSUB, 6, 4, 12)
    await router.handle_rpc(rpc_pb2.RPC.FromString(PARTS["ControlMessage.iwant"]), PEER)
    assert touched == MANY


@pytest.mark.parametrize("name", ["ControlMessage.iwant", "RPC.publish", "ControlIHave.messageIDs"])
async def test_too_many_parts_cost_their_sender_points(name: str) -> None:
    async with networks(1) as [(victim, owner)], stranger() as peer:
        stream = await peer.open(victim, MESHSUB[0])
        await stream.write(encode_varint_prefixed(PARTS[name]))
        await ends(stream)
        await until(lambda: owner.faults)
        assert owner.faults == [(peer.peer_id, "encoding/undecodable")]


async def test_library_does_not_mind_an_overrun() -> None:
    async with plain() as (host, _), stranger() as peer:
        closed = await overrun(peer, host)
        swarm = cast("Swarm", host.get_network())

        def kept() -> int:
            sessions = [cast("Any", one.muxed_conn) for one in swarm.get_connections()]
            return max((len(data) for one in sessions for data in one.stream_buffers.values()), default=0)

        await until(lambda: kept() > WINDOW)
        assert not closed.is_set()
