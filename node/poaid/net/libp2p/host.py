"""Connections of libp2p: who may connect, how many, and for how long; streams that end badly end alone."""

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import trio
from libp2p.abc import IMuxedConn, INetStream, IRawConnection
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm as LibrarySwarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore, PeerStoreError
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from poaid.net.addresses import get_prefix, is_public
from poaid.net.handlers import Handlers, Owner, Refusal
from poaid.net.libp2p.session import Chooser, Listener, Upgrader
from poaid.net.libp2p.streams import CLOSE_TIMEOUT_S, FAULTS, contained, shielded

MAX_CONNECTIONS = 64
"""In and out: a mesh needs 12; more cost memory and file descriptors, and bring blocks no sooner."""
MAX_INBOUND = 48
"""Of these, how many strangers may take: the others are left for peers that this node has chosen to dial."""
MAX_HANDSHAKES = 256
"""Inbound connections, with those that have not yet said who they are: each of these has `DIAL_TIMEOUT_S` to do so."""
MAX_PER_PREFIX = 4
"""Of these, from one public address prefix: twelve prefixes are needed to fill the places of strangers. More nodes in
one house or company find others to connect to."""
MAX_PER_LOCAL_PREFIX = 128
"""The same for addresses that the internet does not carry, half of all: a testnet has many nodes on one machine, and
behind a proxy all strangers seem to come from it. They lose their places to strangers from elsewhere, too."""
MAX_CONNECTIONS_PER_PEER = 2
"""Both may dial at the same time."""
MAX_STREAMS_PER_PEER = 32
"""That a peer may have open here: gossip, ping, identify, and requests, of which it has use for two or three."""
DIAL_TIMEOUT_S = 10.0
"""From dialling, or being dialled, to a connection that is ready."""
CONNECT_TIMEOUT_S = 4.0
"""From dialling to a TCP connection: the kernel asks at once, after 1 s and after 3 s, then ever more rarely: who has
dialled into a cut network would not notice for long that it is whole again."""
MAX_RESOLVED = 4
"""Addresses of a name that are dialled: more would not be reached within `CONNECT_TIMEOUT_S`."""
_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}
SILENCE_S, PROBE_AFTER_S, PROBE_EVERY_S = 10, 5, 1
"""A connection ends when its other side's kernel has been silent for so long: a request would have failed by then. An
idle one is probed from the second on, every third. TCP itself would wait for a quarter of an hour; and when a network
that was cut is whole again, it tries again only after as long a time as the cut has lasted, or twice that."""


def get_peer_id(seed: bytes) -> str:
    """Return the peer id of an identity."""
    return str(ID.from_pubkey(create_new_key_pair(seed).public_key))


def make_host(seed: bytes, handlers: Handlers, owner: Owner) -> "Host":
    """Return a host that speaks what the page `networking` says, and nothing else."""
    keys = create_new_key_pair(seed)
    peer_id, store = ID.from_pubkey(keys.public_key), PeerStore()
    store.add_key_pair(peer_id, keys)
    upgrader = Upgrader(keys, lambda peer_id, error: owner.tell(handlers.on_fault, str(peer_id), error))
    return Host(Swarm(peer_id, store, upgrader, lambda reason: owner.tell(handlers.on_refused, reason)), owner)


class _NoAutoConnector(AutoConnector):
    """Dials nobody: whom to dial is the owner's decision."""

    async def maybe_connect(self) -> None: ...

    def record_disconnect(self, peer_id: ID) -> None: ...


def _end_when_silent(stream: ReadWriteCloser) -> None:
    """Have the kernel end a connection whose other side is gone; what a system does not have is left out."""
    if not isinstance(stream, TrioTCPStream):
        return
    settings = {
        "TCP_USER_TIMEOUT": SILENCE_S * 1000,
        "TCP_KEEPIDLE": PROBE_AFTER_S,
        "TCP_KEEPALIVE": PROBE_AFTER_S,  # macOS's name
        "TCP_KEEPINTVL": PROBE_EVERY_S,
        "TCP_KEEPCNT": (SILENCE_S - PROBE_AFTER_S) // PROBE_EVERY_S,
    }
    with suppress(OSError):  # the connection has ended
        stream.stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in settings.items():
            if hasattr(socket, name):
                stream.stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _learn_address(stream: ReadWriteCloser) -> str:
    """Return the multiaddr of the other end of a TCP stream, and have the library know it.

    The library knows none where a socket names its peer by more than host and port, as those of IPv6 do.
    """
    if isinstance(stream, TrioTCPStream):
        with suppress(OSError):  # the connection has ended
            stream._cached_remote_address = stream.stream.socket.getpeername()[:2]
    found = stream.get_remote_address()
    return "" if found is None else f"/ip{ipaddress.ip_address(found[0]).version}/{found[0]}/tcp/{found[1]}"


class _TCP(TCP):
    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Dial, and learn the peer's address while the socket is open."""
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                connection = await self._dial_any(maddr)
        except trio.TooSlowError as error:
            raise OpenConnectionError(f"{maddr} did not answer within {CONNECT_TIMEOUT_S:.0f} s") from error
        if isinstance(connection, RawConnection):
            _learn_address(connection.stream)
            _end_when_silent(connection.stream)
        return connection

    async def _dial_any(self, address: Multiaddr) -> IRawConnection:
        """Dial an address, or all that its name stands for, one after another.

        The library asks a DNS server, which knows nothing of the names of this machine and its network (`/etc/hosts`,
        `localhost`, containers); here the system's own resolver is asked, in a thread.
        """
        found = await _resolve(address)
        for candidate in found[:-1]:
            with suppress(*FAULTS):
                return await super().dial(candidate)
        return await super().dial(found[-1])


async def _resolve(address: Multiaddr) -> list[Multiaddr]:
    """Return the addresses that a multiaddr with a name stands for, `MAX_RESOLVED` at most; else itself.

    Raises:
        OpenConnectionError: the name is not known.
    """
    kind, host, port = str(address).split("/")[1], *str(address).split("/")[2:5:2]
    if kind not in _FAMILIES:
        return [address]
    try:
        known = await trio.socket.getaddrinfo(host, int(port), _FAMILIES[kind], socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OpenConnectionError(f"{host}: {error.strerror}") from error
    found = [f"/ip{6 if family == socket.AF_INET6 else 4}/{name[0]}/tcp/{port}" for family, _, _, _, name in known]
    return [Multiaddr(text) for text in list(dict.fromkeys(found))[:MAX_RESOLVED]]


class Swarm(LibrarySwarm):
    """Dials only whom it is told to, and gives a connection's slot back when the connection ends.

    No address prefix may take all places: each has a share of those that have not yet said who they are, and when the
    places of strangers are full, the prefix that has most of them loses its newest one to a newcomer.
    """

    def __init__(
        self, peer_id: ID, store: PeerStore, upgrader: TransportUpgrader, on_refused: Callable[[Refusal], None]
    ) -> None:
        config = ConnectionConfig(
            max_connections=MAX_CONNECTIONS, high_watermark=MAX_CONNECTIONS, low_watermark=0, min_connections=0,
            max_connections_per_peer=MAX_CONNECTIONS_PER_PEER,
            dial_timeout=DIAL_TIMEOUT_S,
            inbound_upgrade_timeout=DIAL_TIMEOUT_S, outbound_upgrade_timeout=DIAL_TIMEOUT_S,
        )  # fmt: skip
        super().__init__(
            peer_id, store, upgrader, [_TCP()], connection_config=config, retry_config=RetryConfig(max_retries=0)
        )
        self.auto_connector = _NoAutoConnector(self, config.auto_connect_interval)
        self._inbound_limiter = trio.CapacityLimiter(MAX_HANDSHAKES)
        self._on_refused = on_refused
        self.prefixes: Counter[str] = Counter()  # of all inbound connections
        self.strangers: list[tuple[str, SwarmConn]] = []  # prefix and connection of those that may stay, oldest first

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

    async def _handle_inbound_connection(self, read_write_closer: ReadWriteCloser, maddr: Multiaddr) -> None:
        """Take a connection, unless its address prefix has its share already or all places are taken."""
        _end_when_silent(read_write_closer)
        address = _learn_address(read_write_closer)
        prefix, most = get_prefix(address), MAX_PER_PREFIX if is_public(address) else MAX_PER_LOCAL_PREFIX
        if self.prefixes[prefix] >= most or not self._inbound_limiter.available_tokens:
            self._on_refused("prefix" if self.prefixes[prefix] >= most else "full")
            with suppress(*FAULTS), shielded():
                await read_write_closer.close()
            return
        self.prefixes[prefix] += 1
        try:
            await super()._handle_inbound_connection(read_write_closer, maddr)
        finally:
            self.prefixes[prefix] -= 1
            self.prefixes += Counter()  # without those that have none

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        """Take a connection into use, unless its other side has this node's own identity."""
        if muxed_conn.peer_id == self.get_peer_id():
            self._on_refused("own identity")
            with suppress(*FAULTS), trio.move_on_after(CLOSE_TIMEOUT_S):
                await muxed_conn.close()
            raise SwarmException("the peer has this node's own identity")
        return await super().add_conn(muxed_conn, direction)

    async def upgrade_inbound_raw_conn(self, raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
        """Take a connection and stay until it ends; the library's caller would stay, and hold its slot, for ever."""
        muxed = await super().upgrade_inbound_raw_conn(raw_conn, maddr)
        for connection in self.get_connections(muxed.peer_id):
            if isinstance(connection, SwarmConn) and connection.muxed_conn is muxed:
                await self._host_stranger(connection)
        raise SwarmException("the connection has ended")

    async def _host_stranger(self, connection: SwarmConn) -> None:
        """Give a stranger a place, if need be another one's, until the connection ends."""
        address = next((str(a) for a in connection.get_transport_addresses()), "")
        place = (get_prefix(address), connection)
        self.strangers.append(place)
        try:
            if len(self.strangers) > MAX_INBOUND:
                await self._displace_stranger()
            await connection.event_closed.wait()
        finally:
            if place in self.strangers:
                self.strangers.remove(place)

    async def _displace_stranger(self) -> None:
        """Close the newest connection of a prefix that has most of them; that may be the one that came last of all."""
        counts = Counter(prefix for prefix, _ in self.strangers)
        most = max(counts.values())
        place = next(place for place in reversed(self.strangers) if counts[place[0]] == most)
        self._on_refused("full" if place is self.strangers[-1] else "displaced")
        self.strangers.remove(place)
        with suppress(*FAULTS), trio.move_on_after(CLOSE_TIMEOUT_S):
            await place[1].close()


class Host(BasicHost):
    """Survives what peers do to streams, and does not ask them who they are: nothing of the answer would be used.

    Attributes:
        open_streams: how many each peer has opened and not ended.
    """

    def __init__(self, swarm: Swarm, owner: Owner) -> None:
        super().__init__(swarm, disable_identify_address_discovery=True)
        self.swarm, self._owner = swarm, owner
        self.multiselect.remove_handler(ID_PUSH)
        self.multiselect, self.multiselect_client = Listener(self.multiselect.handlers), Chooser()
        self.open_streams: Counter[ID] = Counter()

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None: ...

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        """Serve a stream of a peer's; one that ends badly is reset."""
        peer_id, served = net_stream.muxed_conn.peer_id, False
        self.open_streams[peer_id] += 1
        try:
            with contained(self._owner.see):
                if self.open_streams[peer_id] <= MAX_STREAMS_PER_PEER:
                    await super()._swarm_stream_handler(net_stream)
                    served = True
        finally:
            self.open_streams[peer_id] -= 1
            if not self.open_streams[peer_id]:
                del self.open_streams[peer_id]
        if not served:
            with contained(), shielded():
                await net_stream.reset()
