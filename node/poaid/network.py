"""The peer-to-peer network: libp2p behind a small surface. The only file that imports it.

A `Network` dials, listens, gossips and asks; what messages mean is its owner's business, told through `Handlers`. Peers
are named by their base-58 peer ids.

py-libp2p 0.8 is used as it is but for the following, each of which lets a stranger end the process or fill its memory,
or loses messages; `tests/node/test_network.py` shows each of them, without the remedy and with it:

- Whatever a peer sends that the library cannot read (protobuf, keys, names of protocols) escapes from a task and ends
  the whole host: `_Host` contains every stream, `_Pubsub` reads RPCs itself.
- A connection's slot is given back when the host ends, not when the connection does, so that a node that has been
  dialled `MAX_CONNECTIONS` times is deaf; and opening a stream dials a peer that has just been sent away: `_Swarm`.
- Plaintext connections, where a peer id is a mere claim, and other ways to talk than the page's: `_make_host`.
- A validator may only say yes or no, its time includes the wait for a slot, a failure is remembered for 300 s, and a
  message is marked as seen after its validation, so that one runs for every forwarder: `_Pubsub.push_msg` knows three
  verdicts, and which messages are in flight.
- Messages without origin and number (StrictNoSign) look all alike to the message cache and to the check for
  equivocation: `_MessageCache` goes by the page's message id, `_GossipSub` leaves the check out.
- A peer that has left the mesh is not told of messages for as long as it must not come back: `_GossipSub` tells it.
- Control messages have no bounds: a peer chooses how many messages it is sent again, and for how many topics and
  years it is not to be asked: `_trim` cuts them. `_GossipSub` forgets what grows, and takes no addresses from peers.
- The defaults are made for other uses: a heartbeat every 120 s, queues of 32, no scores: see `_make_router`.

Where an exception goes: what a peer can cause is in `FAULTS` and ends that peer's task. What the owner's handlers raise
is a bug, or a full disk; they run as tasks of `Network.run` (`_Owner`), which ends with it.
"""

import errno
import ipaddress
import logging
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IMuxedConn, INetConn, INetStream, INetwork, INotifee, IRawConnection
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.discovery.mdns.mdns import MDNSDiscovery, create_mdns_discovery
from libp2p.exceptions import BaseLibp2pError, ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import RateLimitError, SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.peer.peerstore import PeerStore, PeerStoreError
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import CacheEntry, MessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.score import ScoreParams, TopicScoreParams
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.utils.address_validation import expand_wildcard_address
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

T = TypeVar("T")

MAX_CONNECTIONS = 64
"""In and out: a mesh needs 12; more cost memory and file descriptors, and bring blocks no sooner."""
MAX_INBOUND = 48
"""Of these, how many strangers may take: the others are left for peers that this node has chosen to dial."""
MAX_HANDSHAKES = 256
"""Inbound connections, with those that have not yet said who they are: each of these has `DIAL_TIMEOUT_S` to do so."""
MAX_CONNECTIONS_PER_PEER = 2
"""Both may dial at the same time."""
MAX_STREAMS_PER_PEER = 32
"""That a peer may have open here: gossip, ping, identify, and requests, of which it has use for two or three."""
MAX_RPC_MESSAGES = 64
"""Gossip messages in one RPC: what answers a request for lost ones has fewer than ten."""
MAX_CONTROL_IDS = 32
"""Message ids in one control message: the message cache holds those of five heartbeats."""
MAX_FORWARDERS = 16
"""Peers that are remembered to have sent a message that is being judged: a mesh has 12."""
MAX_QUEUED_RPCS = 256
"""Outgoing RPCs that wait for a slow peer, two for each message; the library's 32 are too few for a burst."""
DIAL_TIMEOUT_S = 10.0
"""From dialling, or being dialled, to a connection that is ready."""
CLOSE_TIMEOUT_S = 3.0
"""What closing anything may take: a peer that does not answer is left."""
LINGER_BYTES = 4_096
"""Read at a time of what a peer still sends on a stream that is done with, and thrown away."""
PRUNE_BACK_OFF_S = 60
"""Gossipsub v1.1's: how long a pruned peer stays out of the mesh; also the longest that a peer may demand."""

MESHSUB = [TProtocol("/meshsub/1.2.0"), TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0")]
MESSAGE_ID_BYTES = 32

FAULTS = (
    BaseLibp2pError,
    RateLimitError,
    DecodeError,
    MultiaddrError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    trio.TooSlowError,
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
        self._host = _make_host(seed)
        self._swarm = self._host.swarm
        self._owner = _Owner()
        self._router = _make_router()
        self._pubsub = _Pubsub(self._host, self._router, handlers, self._owner, topic)
        self._ended: dict[ID, trio.Event] = {}  # of those that the owner knows to be connected

    @property
    def peer_id(self) -> str:
        """The own peer id."""
        return str(self._host.get_id())

    @property
    def addresses(self) -> list[str]:
        """Multiaddrs to dial, with the peer id; where it listens everywhere, loopback first, then every interface."""
        found = [part for address in self._host.get_transport_addrs() for part in _expand(address)]
        return [f"{address}/p2p/{self.peer_id}" for address in dict.fromkeys(found)]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen and take part until the block is left.

        Raises:
            NodeError: the port is taken.
            BaseExceptionGroup: with what a handler has raised, unless it may.
        """
        _check_port(*self._address)
        self._swarm.register_notifee(_Notifee(self._on_opened, self._on_closed))
        for protocol in self._limits:
            self._host.set_stream_handler(TProtocol(protocol), partial(self._serve, protocol))
        stop, stopped = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery, self._owner.run():
            await nursery.start(self._run_host, stop, stopped)
            try:
                async with background_trio_service(self._pubsub), background_trio_service(self._router):
                    await self._pubsub.wait_until_ready()
                    await self._pubsub.subscribe(self._topic)
                    self._owner.start(self._discover)
                    yield
            finally:
                stop.set()
                with _shielded():
                    await stopped.wait()

    async def _run_host(
        self, stop: trio.Event, stopped: trio.Event, *, task_status: Any = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run libp2p until it is told to stop: cancelled, it would leave its port and its connections open."""
        try:
            with trio.CancelScope() as scope:
                scope.shield = True
                async with self._host.run(listen_addrs=[self._listen]):
                    if not self._swarm.listeners:
                        raise NodeError(f"cannot listen on {self._listen}; give another --p2p-host or --p2p-port")
                    task_status.started()
                    await stop.wait()
                    scope.deadline = trio.current_time() + CLOSE_TIMEOUT_S
                    await self._host.close()
        finally:
            self._pubsub.seen_messages.stop()
            stopped.set()

    async def connect(self, address: str) -> str:
        """Dial a multiaddr that ends with a peer id; return the peer id.

        Raises:
            PeerError: nobody answers there, or somebody else.
        """
        try:
            info = info_from_p2p_addr(Multiaddr(address))
            if not self._swarm.is_connected(info.peer_id):
                self._swarm.forget(info.peer_id)  # dial this address, and now
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
        with _contained():
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
                    if limit is not None:
                        answer = await _read_frame(stream, limit)
                    else:  # wait until it has been read: who hangs up right after writing may not be heard
                        answer = b""
                        with suppress(*FAULTS):
                            await stream.read(1)
        except trio.TooSlowError as error:
            raise PeerError(f"no answer to {protocol} within {RESPONSE_TIMEOUT_MS / 1000:g} s") from error
        except FAULTS as error:
            raise PeerError(f"no answer to {protocol}: {_describe(error)}") from error
        self._owner.start(_linger, stream)
        return answer

    async def _serve(self, protocol: str, stream: INetStream) -> None:
        """Read one request and answer it; what the owner's handler raises is not caught here."""
        peer = str(stream.muxed_conn.peer_id)
        with _contained(partial(self._blame, peer)), trio.move_on_after(RESPONSE_TIMEOUT_MS / 1000):
            async with _closing(stream):
                payload = await _read_frame(stream, self._limits[protocol])
                answer = await self._owner.ask(self._handlers.on_request, peer, protocol, payload)
                if answer is not None:
                    await stream.write(encode_frame(answer))
        await _linger(stream)

    def _blame(self, peer: str, error: Exception) -> None:
        if isinstance(error, SpecError):
            self._owner.tell(self._handlers.on_fault, peer, error)

    # Connections.

    async def _on_opened(self, connection: INetConn) -> None:
        peer_id = connection.muxed_conn.peer_id
        if peer_id in self._ended or connection.is_closed:
            return
        self._ended[peer_id] = trio.Event()
        outbound = str(getattr(connection, "direction", "")).lower().endswith("outbound")
        address = next((str(a) for a in connection.get_transport_addresses()), "")
        self._owner.start(self._attend, str(peer_id), address, outbound, self._ended[peer_id])

    async def _on_closed(self, connection: INetConn) -> None:
        peer_id = connection.muxed_conn.peer_id
        if not self._swarm.is_connected(peer_id):
            self._swarm.forget(peer_id)
            if peer_id in self._ended:
                self._ended.pop(peer_id).set()

    async def _attend(self, peer: str, address: str, outbound: bool, ended: trio.Event) -> None:
        """Tell the owner of a connection, and of its end, in this order."""
        told = trio.Event()

        async def tell() -> None:
            told.set()
            await self._handlers.on_connected(peer, address, outbound=outbound)

        self._owner.start(tell)
        await told.wait()
        await ended.wait()
        self._handlers.on_disconnected(peer)

    # mDNS.

    async def _discover(self) -> None:
        """Announce this node on the local network and report others. Zeroconf blocks: it runs in threads."""
        if self._local_name is None:
            return
        token = trio.lowlevel.current_trio_token()

        def report(info: PeerInfo) -> None:
            for address in info.addrs:
                with suppress(trio.RunFinishedError):
                    found = f"{address}/p2p/{info.peer_id}"
                    token.run_sync_soon(self._owner.tell, self._handlers.on_discovered, found)

        mdns = None
        peerDiscovery.register_peer_discovered_handler(report)
        try:
            mdns = await trio.to_thread.run_sync(self._make_mdns)
            await trio.to_thread.run_sync(mdns.broadcaster.register, abandon_on_cancel=True)  # type: ignore[call-arg]
            await trio.sleep_forever()
        except OSError as error:
            logging.getLogger(__name__).warning("no mDNS here: %s", error)
        finally:
            peerDiscovery.unregister_peer_discovered_handler(report)
            if mdns is not None:
                with _shielded():
                    await trio.to_thread.run_sync(_stop_mdns, mdns, abandon_on_cancel=True)  # type: ignore[call-arg]

    def _make_mdns(self) -> MDNSDiscovery:
        addresses = self.addresses
        public = [address for address in addresses if "/127.0.0.1/" not in address and "/::1/" not in address]
        mdns = create_mdns_discovery(
            self._swarm, port=self._address[1], listen_addrs=public or addresses,
            private_network_fingerprint=self._local_name,
        )  # fmt: skip
        mdns.listener.peerstore = PeerStore()  # its threads write to it
        return mdns


class _Owner:
    """Runs the owner's handlers as tasks of `Network.run`, so that what they raise ends it.

    In a task of libp2p's it would be taken for a peer's fault, or for the end of a connection.
    """

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run tasks until the block is left."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()

    def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task, unless the network has ended."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    def tell(self, handler: Callable[..., None], *args: Any) -> None:
        """Call a handler that does not wait."""

        async def call() -> None:
            handler(*args)

        self.start(call)

    async def ask(self, handler: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call a handler and return its answer; never return if it raises anything but a SpecError."""
        answers: list[T | SpecError] = []
        answered, scope = trio.Event(), trio.CancelScope()

        async def call() -> None:
            with scope:
                try:
                    answers.append(await handler(*args))
                except SpecError as error:
                    answers.append(error)
                answered.set()

        self.start(call)
        try:
            await answered.wait()
        finally:
            scope.cancel()
        answer = answers[0]
        if isinstance(answer, SpecError):
            raise answer
        return answer


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
            option = "--p2p-host" if error.errno == errno.EADDRNOTAVAIL else "--p2p-port"
            raise NodeError(f"port {port} on {host}: {error.strerror}; give another {option}") from error


def _expand(address: Multiaddr) -> list[str]:
    """Return what a multiaddr that may stand for every interface stands for, loopback first."""
    text = str(address)
    for everywhere, loopback in (("/ip4/0.0.0.0/", "/ip4/127.0.0.1/"), ("/ip6/::/", "/ip6/::1/")):
        if text.startswith(everywhere):
            return [text.replace(everywhere, loopback), *map(str, expand_wildcard_address(address))]
    return [text]


# The host.


def _make_host(seed: bytes) -> "_Host":
    """Return a host that speaks what the page `networking` says, and nothing else."""
    keys = create_new_key_pair(seed)
    peer_id, store = ID.from_pubkey(keys.public_key), PeerStore()
    store.add_key_pair(peer_id, keys)
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    return _Host(_Swarm(peer_id, store, TransportUpgrader({NOISE: noise}, {TProtocol(YAMUX): Yamux})))


class _NoAutoConnector(AutoConnector):
    """Dials nobody: whom to dial is the owner's decision."""

    async def maybe_connect(self) -> None: ...

    def record_disconnect(self, peer_id: ID) -> None: ...


class _Swarm(Swarm):
    """Dials only whom it is told to, and gives a connection's slot back when the connection ends."""

    def __init__(self, peer_id: ID, store: PeerStore, upgrader: TransportUpgrader) -> None:
        config = ConnectionConfig(
            max_connections=MAX_CONNECTIONS, high_watermark=MAX_CONNECTIONS, low_watermark=0, min_connections=0,
            max_connections_per_peer=MAX_CONNECTIONS_PER_PEER,
            dial_timeout=DIAL_TIMEOUT_S,
            inbound_upgrade_timeout=DIAL_TIMEOUT_S, outbound_upgrade_timeout=DIAL_TIMEOUT_S,
        )  # fmt: skip
        super().__init__(
            peer_id, store, upgrader, [TCP()], connection_config=config, retry_config=RetryConfig(max_retries=0)
        )
        self.auto_connector = _NoAutoConnector(self, config.auto_connect_interval)
        self._inbound_limiter = trio.CapacityLimiter(MAX_HANDSHAKES)

    def is_connected(self, peer_id: ID) -> bool:
        """Whether there is an open connection."""
        return any(not connection.is_closed for connection in self.get_connections(peer_id))

    def forget(self, peer_id: ID) -> None:
        """Drop what is known of a peer: its addresses, and that dialling it has failed."""
        self.unblock_peer(peer_id)
        with suppress(PeerStoreError):
            self.peerstore.clear_peerdata(peer_id)

    async def new_stream(self, peer_id: ID) -> INetStream:
        """Open a stream to a connected peer; the library would dial one that is not."""
        if not self.is_connected(peer_id):
            raise SwarmException(f"{peer_id} is not connected")
        return await super().new_stream(peer_id)

    async def upgrade_inbound_raw_conn(self, raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
        """Take a connection and stay until it ends; the library's caller would stay, and hold its slot, for ever."""
        muxed = await super().upgrade_inbound_raw_conn(raw_conn, maddr)
        for connection in self.get_connections(muxed.peer_id):
            if isinstance(connection, SwarmConn) and connection.muxed_conn is muxed:
                if self.get_metrics()["inbound"] > MAX_INBOUND:
                    await connection.close()
                await connection.event_closed.wait()
        raise SwarmException("the connection has ended")


class _Host(BasicHost):
    """Survives what peers do to streams, and does not ask them who they are: nothing of the answer would be used."""

    def __init__(self, swarm: _Swarm) -> None:
        super().__init__(swarm, disable_identify_address_discovery=True)
        self.swarm = swarm
        self.multiselect.remove_handler(ID_PUSH)
        self._open: Counter[ID] = Counter()

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None: ...

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        """Serve a stream of a peer's; one that ends badly is reset."""
        peer_id, served = net_stream.muxed_conn.peer_id, False
        self._open[peer_id] += 1
        try:
            with _contained():
                if self._open[peer_id] <= MAX_STREAMS_PER_PEER:
                    await super()._swarm_stream_handler(net_stream)
                    served = True
        finally:
            self._open[peer_id] -= 1
            if not self._open[peer_id]:
                del self._open[peer_id]
        if not served:
            with _contained(), _shielded():
                await net_stream.reset()


# Streams.


@contextmanager
def _shielded() -> Iterator[None]:
    """Do something that must be done, but for no longer than `CLOSE_TIMEOUT_S`."""
    with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
        scope.shield = True
        yield


@asynccontextmanager
async def _closing(stream: INetStream) -> AsyncIterator[None]:
    """Close a stream whatever happens: 256 that are left open block the next one. A failure resets it."""
    done = False
    try:
        yield
        done = True
    finally:
        with suppress(*FAULTS), _shielded():
            await (stream.close() if done else stream.reset())


async def _linger(stream: INetStream) -> None:
    """Wait for the other end of a stream that was closed here, then drop it: libp2p keeps what is half open."""
    with _contained(), trio.move_on_after(CLOSE_TIMEOUT_S):
        while await stream.read(LINGER_BYTES):
            pass
    with _contained(), _shielded():
        await stream.reset()


async def _read_frame(stream: INetStream, limit: int) -> bytes:
    """Read a frame's payload.

    Raises:
        Malformed: `networking/frame-length`.
        PeerError: the stream ended before the frame did.
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
def _contained(report: Callable[[Exception], None] = lambda _: None) -> Iterator[None]:
    """Keep what a peer causes from ending more than the peer's own task; nothing of the owner's may run in it."""
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

    def gossip_heartbeat(self) -> defaultdict[ID, dict[str, list[bytes]]]:
        """Announce recent messages to some peers outside of the mesh; the library leaves out whom it may not graft."""
        assert self.pubsub is not None, "`_Pubsub` attaches itself"
        announced: defaultdict[ID, dict[str, list[bytes]]] = defaultdict(dict)
        for topic, mesh in self.mesh.items():
            ids = self.mcache.window(topic)[:MAX_CONTROL_IDS]
            if ids and topic in self.pubsub.peer_topics:
                for peer_id in self._get_in_topic_gossipsub_peers_from_minus(topic, self.degree, mesh):
                    announced[peer_id][topic] = ids
        return announced

    def _periodic_security_cleanup(self) -> None:
        """Forget, with every heartbeat, what the library keeps for ever."""
        super()._periodic_security_cleanup()
        self.recent_message_deliveries.clear()  # only the adaptive mode reads it
        now = time.time()
        for peers in self.back_off.values():
            for peer_id in [peer_id for peer_id, until in peers.items() if until <= now]:
                del peers[peer_id]


def _trim(control: rpc_pb2.ControlMessage, topic: str) -> None:
    """Leave of a control message what is about the topic, and no more than a peer has use for."""
    for kind in ("ihave", "iwant", "idontwant", "graft", "prune"):
        parts = getattr(control, kind)
        _keep(parts, [part for part in parts if getattr(part, "topicID", topic) == topic][:1])
        for ids in (part.messageIDs for part in parts if hasattr(part, "messageIDs")):
            _keep(ids, [one for one in dict.fromkeys(ids) if len(one) == MESSAGE_ID_BYTES][:MAX_CONTROL_IDS])
    for prune in control.prune:
        prune.backoff = min(prune.backoff, PRUNE_BACK_OFF_S)
        _keep(prune.peers, [])  # addresses to dial, chosen by a peer


def _keep(field: Any, items: Iterable[Any]) -> None:
    kept = list(items)
    del field[:]
    field.extend(kept)


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

    def __init__(self, host: BasicHost, router: _GossipSub, handlers: Handlers, owner: _Owner, topic: str) -> None:
        super().__init__(
            host, router,
            strict_signing=False, msg_id_constructor=_get_message_id, seen_ttl=SEEN_MS // 1000,
            max_inbound_rpc_size=MAX_GOSSIP_BYTES, allowed_topics={topic},
        )  # fmt: skip
        assert router.scorer is not None, "`_make_router` sets one"
        self._handlers, self._owner, self._topic, self._scorer = handlers, owner, topic, router.scorer
        self._in_flight: dict[bytes, list[ID]] = {}
        self._inbound: dict[ID, trio.CancelScope] = {}

    # Peers.

    async def stream_handler(self, stream: INetStream) -> None:
        """Read a peer's stream until it ends; a newer one takes the place of the one before it."""
        peer_id, scope = stream.muxed_conn.peer_id, trio.CancelScope()
        if peer_id in self._inbound:
            self._inbound[peer_id].cancel()
        self._inbound[peer_id] = scope
        with scope, _contained():
            await self.continuously_read_stream(stream)
        if self._inbound.get(peer_id) is scope:
            del self._inbound[peer_id]
        with _contained(), _shielded():
            await stream.reset()

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        if peer_id in self.peer_queues:
            self.peer_queues[peer_id]._queue.max_size = MAX_QUEUED_RPCS

    def _handle_dead_peer(self, peer_id: ID) -> None:
        """Forget the stream to a peer; and the peer, unless it is still connected, with its subscription."""
        stream, subscribed = self.peers.get(peer_id), peer_id in self.peer_topics.get(self._topic, ())
        super()._handle_dead_peer(peer_id)
        if stream is not None:
            self._owner.start(_linger, stream)
        if not self._peer_is_connected(peer_id):
            self.router.remove_peer(peer_id)
        elif subscribed:
            self.peer_topics.setdefault(self._topic, set()).add(peer_id)
            self._peer_subscription_count[peer_id] = 1

    # Messages.

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Read RPCs until the stream ends; one that cannot be read ends it, and is the peer's fault."""
        peer_id = stream.muxed_conn.peer_id
        while self.manager.is_running:
            error = await self._read_rpc(stream, peer_id)
            if error is not None:
                fault = Malformed("encoding/undecodable", f"gossip: {_describe(error)}")
                self._owner.tell(self._handlers.on_fault, str(peer_id), fault)
                return

    async def _read_rpc(self, stream: INetStream, peer_id: ID) -> Exception | None:
        """Read an RPC and do what it says; return what was wrong with it."""
        try:
            data = await read_varint_prefixed_bytes_limited(stream, self.max_inbound_rpc_size)
        except (MessageTooLarge, ParseError) as error:
            return error
        try:
            rpc = rpc_pb2.RPC()
            rpc.ParseFromString(data)
            await self._handle_rpc(rpc, peer_id)
        except FAULTS as error:
            return error
        return None

    async def _handle_rpc(self, rpc: rpc_pb2.RPC, peer_id: ID) -> None:
        if len(rpc.publish) > MAX_RPC_MESSAGES:
            raise ValueError(f"{len(rpc.publish)} messages at a time, {MAX_RPC_MESSAGES} are allowed")
        for message in rpc.publish:
            if list(message.topicIDs) == [self._topic]:
                self._owner.start(self.push_msg, peer_id, message)
        for subscription in rpc.subscriptions[: self.max_subscriptions_per_peer]:
            self.handle_subscription(peer_id, subscription)
        if rpc.HasField("control"):
            rpc.ClearField("senderRecord")  # the peer's addresses: of no use here
            _trim(rpc.control, self._topic)
            await self.router.handle_rpc(rpc, peer_id)

    async def publish(self, topic_id: str | list[str], data: bytes) -> None:
        """Send an own message: it was judged before, and bears neither origin nor number."""
        topics = [topic_id] if isinstance(topic_id, str) else topic_id
        message = rpc_pb2.Message(data=data, topicIDs=topics)
        self.seen_messages.add(_get_message_id(message))
        await self.router.publish(self.my_id, message)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Have a message judged, once however many forward it; ignored, it is the next forwarder's turn.

        A task of the owner's: what `on_gossip` raises ends the network.
        """
        message_id = _get_message_id(msg)
        if self.seen_messages.has(message_id):
            return
        if msg.from_id or msg.seqno or msg.signature or msg.key:
            fault = Malformed("encoding/undecodable", "a signed message where none is wanted")
            self._handlers.on_fault(str(msg_forwarder), fault)
            return
        if message_id in self._in_flight:
            forwarders = self._in_flight[message_id]
            if msg_forwarder not in forwarders and len(forwarders) < MAX_FORWARDERS:
                forwarders.append(msg_forwarder)
            return
        self._in_flight[message_id] = [msg_forwarder]
        try:
            for forwarder in self._in_flight[message_id]:  # more may come while one is judged
                verdict = await self._handlers.on_gossip(str(forwarder), msg.data)
                if verdict is not Verdict.IGNORE:
                    self.seen_messages.add(message_id)
                    await self._follow(verdict, forwarder, msg)
                    return
        finally:
            del self._in_flight[message_id]

    async def _follow(self, verdict: Verdict, forwarder: ID, message: rpc_pb2.Message) -> None:
        """Count a message for or against its forwarder, and pass it on if it was accepted."""
        connected = forwarder in self.peers
        if verdict is Verdict.REJECT:
            if connected:
                self._scorer.on_invalid_message(forwarder, self._topic)
            return
        if connected:
            self._scorer.on_first_delivery(forwarder, self._topic)
        with _contained():
            await self.router.publish(forwarder, message)
