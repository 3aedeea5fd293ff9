"""The peer-to-peer network: libp2p behind a small surface. The only file that imports it.

A `Network` dials, listens, gossips and asks; what messages mean is its owner's business, told through `Handlers`. Peers
are named by their base-58 peer ids.

py-libp2p 0.8 is used as it is but for the following, each of which lets a stranger end the process, or loses messages:

- Whatever a peer sends that the library cannot read (protobuf, keys, records) escapes from a task and ends the whole
  host: `_Pubsub` reads RPCs itself and catches what libraries raise there, and so do the handlers of streams.
- A validator may only say yes or no, its time includes the wait for a slot, a failure is remembered for 300 s, and a
  message is marked as seen after its validation, so that one runs for every forwarder: `_Pubsub.push_msg` knows three
  verdicts, and which messages are in flight.
- Messages without origin and number (StrictNoSign) look all alike to the message cache and to the check for
  equivocation: `_MessageCache` goes by the page's message id, `_GossipSub` leaves the check out.
- The defaults are made for other uses: a heartbeat every 120 s, queues of 32, no scores: see `_make_router`.
"""

import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Protocol

import libp2p
import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.discovery.mdns.mdns import MDNSDiscovery, create_mdns_discovery
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import RateLimitError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import CacheEntry, MessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.score import ScoreParams, TopicScoreParams
from libp2p.pubsub.utils import maybe_consume_signed_record
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from poai_spec.networking import (
    HEARTBEAT_MS,
    MAX_GOSSIP_BYTES,
    MESH_DEGREE,
    MESH_DEGREE_HIGH,
    MESH_DEGREE_LOW,
    RESPONSE_TIMEOUT_MS,
    SEEN_MS,
    Verdict,
    check_frame_length,
    compute_message_id,
    encode_frame,
)
from poai_spec.notation import Malformed, SpecError
from poaid.errors import NodeError

MAX_CONNECTIONS = 64
"""In and out: a mesh needs 12; more cost memory and file descriptors, and bring blocks no sooner."""
MAX_STREAMS_PER_PEER = 16
"""Requests of one peer that are answered at a time; it has no use for more than two or three."""
MAX_RPC_MESSAGES = 64
"""Gossip messages in one RPC: what answers a request for lost ones has fewer than ten."""
DIAL_TIMEOUT_S = 10.0
"""From dialling to a connection that is ready."""
CLOSE_TIMEOUT_S = 3.0
"""What closing everything may take: a peer that does not answer is left."""
PRUNE_BACK_OFF_S = 60
"""Gossipsub v1.1's: how long a pruned peer stays out of the mesh."""

MESHSUB = [TProtocol("/meshsub/1.2.0"), TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0")]

FAULTS = (
    BaseLibp2pError,
    RateLimitError,
    DecodeError,
    MultiaddrError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    OSError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What libp2p and the libraries under it raise on a stranger's bytes, or when a connection ends at any moment."""


class PeerError(Exception):
    """A peer did not do what was asked: no connection, no answer in time, or an answer cut short."""


class Handlers(Protocol):
    """What a network tells its owner."""

    async def on_connected(self, peer: str, address: str, *, outbound: bool) -> None:
        """A peer's first connection is open; runs in a task of its own."""
        ...

    def on_disconnected(self, peer: str) -> None:
        """A peer's last connection is closed."""
        ...

    async def on_gossip(self, peer: str, data: bytes) -> Verdict:
        """Judge a message; of equal ones only the first is shown while it is judged."""
        ...

    async def on_request(self, peer: str, protocol: str, payload: bytes) -> bytes | None:
        """Return the payload of the response to a request; None for no response."""
        ...

    def on_fault(self, peer: str, error: SpecError) -> None:
        """A peer's bytes broke a rule of the page `networking`, or could not be read at all."""
        ...

    def on_discovered(self, address: str) -> None:
        """mDNS has found a peer of this network; the address ends with its peer id."""
        ...


class Network:
    """One libp2p host.

    Args:
        seed: 32 bytes, the secret of the peer identity (Ed25519).
        host: the IP address to listen on.
        port: the TCP port; 0 lets the system choose.
        topic: the gossip topic to take part in.
        limits: the protocols that are served, with the most bytes of a request each.
        handlers: the owner.
        local_name: eight characters that name the network to mDNS; None for no mDNS.
    """

    def __init__(
        self,
        *,
        seed: bytes,
        host: str,
        port: int,
        topic: str,
        limits: dict[str, int],
        handlers: Handlers,
        local_name: str | None = None,
    ) -> None:
        self._listen = Multiaddr(f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{port}")
        self._address = (host, port)
        self._topic, self._limits, self._handlers, self._local_name = topic, limits, handlers, local_name
        config = ConnectionConfig(
            max_connections=MAX_CONNECTIONS, high_watermark=MAX_CONNECTIONS,
            low_watermark=0, min_connections=0,  # whom to dial is the owner's decision
            max_connections_per_peer=2,  # both may dial at the same time
            dial_timeout=DIAL_TIMEOUT_S,
        )  # fmt: skip
        self._host = libp2p.new_host(
            key_pair=create_new_key_pair(seed), listen_addrs=[self._listen], connection_config=config
        )
        self._router = _make_router()
        self._pubsub = _Pubsub(self._host, self._router, handlers, topic)
        self._serving: dict[str, int] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def peer_id(self) -> str:
        """The own peer id."""
        return str(self._host.get_id())

    @property
    def addresses(self) -> list[str]:
        """Multiaddrs to dial, with the peer id; loopback first where it listens everywhere."""
        found = [str(address) for address in self._host.get_addrs()]
        local = [address.replace("/0.0.0.0/", "/127.0.0.1/") for address in found]
        return sorted(dict.fromkeys(local), key=lambda address: "/127.0.0.1/" not in address)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen and take part until the block is left.

        Raises:
            NodeError: the port is taken.
        """
        _check_port(*self._address)
        self._host.get_network().register_notifee(_Notifee(self._on_opened, self._on_closed))
        for protocol in self._limits:
            self._host.set_stream_handler(TProtocol(protocol), partial(self._serve, protocol))
        async with self._host.run(listen_addrs=[self._listen]), trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                async with background_trio_service(self._pubsub), background_trio_service(self._router):
                    await self._pubsub.wait_until_ready()
                    await self._pubsub.subscribe(self._topic)
                    async with self._discover():
                        yield
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                    scope.shield = True  # else the port stays open
                    await self._host.close()
                nursery.cancel_scope.cancel()

    async def connect(self, address: str) -> str:
        """Dial a multiaddr that ends with a peer id; return the peer id.

        Raises:
            PeerError: nobody answers there, or somebody else.
        """
        try:
            info = info_from_p2p_addr(Multiaddr(address))
            with trio.fail_after(DIAL_TIMEOUT_S):
                await self._host.connect(PeerInfo(info.peer_id, info.addrs))
        except trio.TooSlowError as error:
            raise PeerError(f"{address} did not answer within {DIAL_TIMEOUT_S:.0f} s") from error
        except FAULTS as error:
            raise PeerError(f"{address} cannot be reached: {_describe(error)}") from error
        return str(info.peer_id)

    async def disconnect(self, peer: str) -> None:
        """Close all connections of a peer."""
        with suppress(*FAULTS), trio.move_on_after(CLOSE_TIMEOUT_S):
            await self._host.disconnect(ID.from_string(peer))

    async def publish(self, data: bytes) -> None:
        """Send a message to the topic."""
        with _contained(lambda _: None):
            await self._pubsub.publish(self._topic, data)

    async def request(self, peer: str, protocol: str, payload: bytes, limit: int | None) -> bytes:
        """Ask a peer and return the payload of its response.

        Args:
            peer: a connected peer.
            protocol: what to ask.
            payload: the request.
            limit: the most bytes of a response's payload; None if there is none.

        Raises:
            PeerError: no answer in time, or a connection that ended.
            Malformed: `networking/frame-length`.
        """
        try:
            with trio.fail_after(RESPONSE_TIMEOUT_MS / 1000):
                stream = await self._host.new_stream(ID.from_string(peer), [TProtocol(protocol)])
                async with _closing(stream):
                    await stream.write(encode_frame(payload))
                    return b"" if limit is None else await _read_frame(stream, limit)
        except trio.TooSlowError as error:
            raise PeerError(f"no answer to {protocol} within {RESPONSE_TIMEOUT_MS // 1000} s") from error
        except FAULTS as error:
            raise PeerError(f"no answer to {protocol}: {_describe(error)}") from error

    async def _serve(self, protocol: str, stream: INetStream) -> None:
        peer = str(stream.muxed_conn.peer_id)
        if self._serving.get(peer, 0) >= MAX_STREAMS_PER_PEER:
            await stream.reset()
            return
        self._serving[peer] = self._serving.get(peer, 0) + 1
        try:
            with _contained(lambda error: self._blame(peer, error)), trio.move_on_after(RESPONSE_TIMEOUT_MS / 1000):
                async with _closing(stream):
                    payload = await _read_frame(stream, self._limits[protocol])
                    answer = await self._handlers.on_request(peer, protocol, payload)
                    if answer is not None:
                        await stream.write(encode_frame(answer))
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    def _blame(self, peer: str, error: Exception) -> None:
        if isinstance(error, SpecError):
            self._handlers.on_fault(peer, error)

    # Connections.

    async def _on_opened(self, connection: INetConn) -> None:
        peer_id, nursery = connection.muxed_conn.peer_id, self._nursery
        if nursery is None or len(self._host.get_network().get_connections(peer_id)) > 1:
            return
        outbound = str(getattr(connection, "direction", "")).lower().endswith("outbound")
        address = next((str(a) for a in connection.get_transport_addresses()), "")
        nursery.start_soon(partial(self._handlers.on_connected, str(peer_id), address, outbound=outbound))

    async def _on_closed(self, connection: INetConn) -> None:
        peer_id = connection.muxed_conn.peer_id
        if not any(not c.is_closed for c in self._host.get_network().get_connections(peer_id)):
            self._handlers.on_disconnected(str(peer_id))

    @asynccontextmanager
    async def _discover(self) -> AsyncIterator[None]:
        """Announce this node on the local network and report others. Zeroconf blocks: it runs in threads."""
        if self._local_name is None:
            yield
            return
        try:
            mdns = await trio.to_thread.run_sync(self._make_mdns)
        except OSError as error:
            logging.getLogger(__name__).warning("no mDNS here: %s", error)
            yield
            return
        token = trio.lowlevel.current_trio_token()

        def report(info: PeerInfo) -> None:
            for address in info.addrs:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._handlers.on_discovered, f"{address}/p2p/{info.peer_id}")

        peerDiscovery.register_peer_discovered_handler(report)
        try:
            await trio.to_thread.run_sync(mdns.broadcaster.register)
            yield
        finally:
            peerDiscovery.unregister_peer_discovered_handler(report)
            with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                scope.shield = True
                await trio.to_thread.run_sync(_stop_mdns, mdns, abandon_on_cancel=True)  # type: ignore[call-arg]

    def _make_mdns(self) -> MDNSDiscovery:
        return create_mdns_discovery(
            self._host.get_network(), port=self._address[1], private_network_fingerprint=self._local_name,
            host=self._host,
        )  # fmt: skip


def _stop_mdns(mdns: MDNSDiscovery) -> None:
    mdns.broadcaster.unregister()
    mdns.listener.stop()
    mdns.zeroconf.close()


def _check_port(host: str, port: int) -> None:
    """Refuse a port that is in use: libp2p would share it silently (SO_REUSEPORT).

    Raises:
        NodeError: it is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise NodeError(f"port {port} on {host}: {error.strerror}; give another --p2p-port") from error


# Streams.


@asynccontextmanager
async def _closing(stream: INetStream) -> AsyncIterator[None]:
    """Close a stream whatever happens: 256 that are left open block the next one. A failure resets it."""
    done = False
    try:
        yield
        done = True
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
            scope.shield = True
            await (stream.close() if done else stream.reset())


async def _read_frame(stream: INetStream, limit: int) -> bytes:
    """Read a frame's payload.

    Raises:
        Malformed: `networking/frame-length`.
        EOFError: the stream ended before the frame did.
    """
    length = int.from_bytes(await _read_exactly(stream, 4), "little")
    check_frame_length(length, limit)
    return await _read_exactly(stream, length)


async def _read_exactly(stream: INetStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = await stream.read(size - len(data))
        if not part:
            raise PeerError(f"the stream ended after {len(data)} of {size} bytes")
        data += part
    return bytes(data)


@contextmanager
def _contained(report: Callable[[Exception], None]) -> Iterator[None]:
    """Keep what a peer causes from ending more than the peer's own task."""
    try:
        yield
    except* (*FAULTS, PeerError, SpecError) as group:
        for error in _leaves(group):
            report(error)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _describe(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


# Gossip.


class _Notifee(INotifee):
    """Passes on what opens and closes."""

    def __init__(
        self, opened: Callable[[INetConn], Awaitable[None]], closed: Callable[[INetConn], Awaitable[None]]
    ) -> None:
        self._opened, self._closed = opened, closed

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        await self._opened(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        await self._closed(conn)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...


def _get_message_id(message: rpc_pb2.Message) -> bytes:
    return compute_message_id(message.topicIDs[0] if message.topicIDs else "", message.data)


class _MessageCache(MessageCache):
    """Goes by the page's message id; the library's goes by origin and number, which unsigned messages do not have."""

    def put(self, msg: rpc_pb2.Message) -> None:
        message_id = _get_message_id(msg)
        if message_id not in self.msgs:
            self.msgs[message_id] = msg
            self.history[0].append(CacheEntry(message_id, msg.topicIDs))


class _GossipSub(GossipSub):
    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:  # noqa: ARG002
        """Unsigned messages have no origin that could say two things."""
        return True


def _make_router() -> _GossipSub:
    """Return gossipsub with the page's settings.

    Peers are rated by the owner, who disconnects them; here an invalid message costs its forwarder its place in the
    mesh, and repeated ones its gossip. What is switched off would do harm: the adaptive mode slows the heartbeat to
    30 s after some churn, the spam protection drops the node's own bursts, and the diversity of IP addresses cannot be
    had on one machine.
    """
    scores = ScoreParams(
        p2_first_message_deliveries=TopicScoreParams(weight=0.5, cap=20, decay=0.95),
        p4_invalid_messages=TopicScoreParams(weight=20, cap=50, decay=0.99),
        gossip_threshold=-30, publish_threshold=-60, graylist_threshold=-100,
    )  # fmt: skip
    router = _GossipSub(
        protocols=MESHSUB,
        degree=MESH_DEGREE, degree_low=MESH_DEGREE_LOW, degree_high=MESH_DEGREE_HIGH,
        heartbeat_interval=HEARTBEAT_MS // 1000, prune_back_off=PRUNE_BACK_OFF_S, score_params=scores,
        adaptive_gossip_enabled=False, spam_protection_enabled=False, eclipse_protection_enabled=False,
    )  # fmt: skip
    router.mcache = _MessageCache(3, 5)
    return router


class _Pubsub(Pubsub):
    """Gossip of one topic, unsigned, that no peer can end."""

    def __init__(self, host: Any, router: GossipSub, handlers: Handlers, topic: str) -> None:
        super().__init__(
            host, router,
            strict_signing=False, msg_id_constructor=_get_message_id, seen_ttl=SEEN_MS // 1000,
            max_inbound_rpc_size=MAX_GOSSIP_BYTES, allowed_topics={topic},
        )  # fmt: skip
        assert router.scorer is not None, "`_make_router` sets one"
        self._handlers, self._topic, self._scorer = handlers, topic, router.scorer
        self._in_flight: set[bytes] = set()

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Read RPCs until the stream ends; one that cannot be read ends it, and is the peer's fault."""
        peer = stream.muxed_conn.peer_id
        while self.manager.is_running:
            data = await read_varint_prefixed_bytes_limited(stream, self.max_inbound_rpc_size)
            try:
                rpc = rpc_pb2.RPC()
                rpc.ParseFromString(data)
                if len(rpc.publish) > MAX_RPC_MESSAGES or not maybe_consume_signed_record(rpc, self.host, peer):
                    raise ValueError("too many messages, or a false record")
                await self._handle_rpc(rpc, peer)
            except FAULTS as error:
                self._handlers.on_fault(str(peer), Malformed("encoding/undecodable", f"gossip: {_describe(error)}"))
                await stream.reset()
                self._handle_dead_peer(peer)
                return

    async def _handle_rpc(self, rpc: rpc_pb2.RPC, peer: ID) -> None:
        for message in rpc.publish:
            if list(message.topicIDs) == [self._topic]:
                self.manager.run_task(self.push_msg, peer, message)
        for subscription in rpc.subscriptions[: self.max_subscriptions_per_peer]:
            self.handle_subscription(peer, subscription)
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer)

    async def stream_handler(self, stream: INetStream) -> None:
        """Read a peer's stream; whatever ends it ends nothing else."""
        peer = stream.muxed_conn.peer_id
        with _contained(lambda _: None):
            await self.continuously_read_stream(stream)
        with _contained(lambda _: None):
            await stream.reset()
        self._handle_dead_peer(peer)

    async def publish(self, topic_id: str | list[str], data: bytes) -> None:
        """Send an own message: it was judged before, and bears neither origin nor number."""
        topics = [topic_id] if isinstance(topic_id, str) else topic_id
        message = rpc_pb2.Message(data=data, topicIDs=topics)
        self.seen_messages.add(_get_message_id(message))
        await self.router.publish(self.my_id, message)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Have a message judged, once however many forward it, and do what the verdict says."""
        message_id, peer = _get_message_id(msg), str(msg_forwarder)
        if message_id in self._in_flight or self.seen_messages.has(message_id):
            return
        if msg.from_id or msg.seqno or msg.signature or msg.key:
            self._handlers.on_fault(peer, Malformed("encoding/undecodable", "a signed message where none is wanted"))
            return
        self._in_flight.add(message_id)
        try:
            verdict = await self._handlers.on_gossip(peer, msg.data)
        finally:
            self._in_flight.discard(message_id)
        if verdict is Verdict.IGNORE:
            return
        self.seen_messages.add(message_id)
        if verdict is Verdict.REJECT:
            self._scorer.on_invalid_message(msg_forwarder, self._topic)
            return
        self._scorer.on_first_delivery(msg_forwarder, self._topic)
        with _contained(lambda _: None):
            await self.router.publish(msg_forwarder, msg)
