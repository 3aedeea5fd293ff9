"""The peer-to-peer network: libp2p behind a small surface, with its faults mended in `libp2p/`.

A `Transport` dials, listens, gossips and asks; what messages mean is its owner's business, told through `Handlers`.
Peers are named by their base-58 peer ids.

py-libp2p 0.8 is used as it is but for the following, each of which lets a stranger end the process or fill its memory,
or loses messages; `tests/unit/poaid/net/test_transport.py` shows each of them, without the remedy and with it:

- Whatever a peer sends that the library cannot read (protobuf, keys, names of protocols) escapes from a task and ends
  the whole host: `Host` contains every stream, `Pubsub` reads RPCs itself.
- A connection's slot is given back when the host ends, not when the connection does, so that a node that has been
  dialled `MAX_CONNECTIONS` times is deaf; and opening a stream dials a peer that has just been sent away: `Swarm`.
- Plaintext connections, where a peer id is a mere claim, and other ways to talk than the page's: `make_host`.
- A validator may only say yes or no, its time includes the wait for a slot, a failure is remembered for 300 s, and a
  message is marked as seen after its validation, so that one runs for every forwarder: `Pubsub.push_msg` knows three
  verdicts, and which messages are in flight.
- Messages without origin and number (StrictNoSign) look all alike to the message cache and to the check for
  equivocation: `MessageCache` goes by the page's message id, `GossipSub` leaves the check out.
- A peer that has left the mesh is not told of messages for as long as it must not come back: `GossipSub` tells it.
- Control messages have no bounds: a peer chooses how many messages it is sent again, and for how many topics and
  years it is not to be asked: `trim` cuts them. `GossipSub` forgets what grows, and takes no addresses from peers.
- It knows no addresses of peers that come over IPv6: `Swarm` learns them, since false work is counted by prefix.
- The defaults are made for other uses: a heartbeat every 120 s, queues of 32, no scores: see `make_router`.
- Lengths and counts that peers choose are compared after what they announce was read, or never: `libp2p/session.py`,
  and `check_counts` for gossip.

Where an exception goes: what the library raises is in `FAULTS` and ends that peer's task. The owner's handlers run as
tasks of `Transport.run` (`Owner`): a bug of ours is told to `on_bug`, which counts it, and costs no peer anything; a
full disk ends the network.
"""

import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.custom_types import TProtocol
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.discovery.mdns.listener import PeerListener
from libp2p.discovery.mdns.mdns import MDNSDiscovery, create_mdns_discovery
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.peer.peerstore import PeerStore
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr

from poai_spec.basics.notation import SpecError
from poai_spec.chain.networking import RESPONSE_TIMEOUT_MS, encode_frame
from poaid.errors import NodeError
from poaid.net.handlers import Handlers, Owner, PeerError
from poaid.net.libp2p.gossip import Pubsub, make_router
from poaid.net.libp2p.host import DIAL_TIMEOUT_S, make_host
from poaid.net.libp2p.streams import (
    CLOSE_TIMEOUT_S,
    FAULTS,
    closing,
    contained,
    describe,
    explain_dial,
    linger,
    read_frame,
    shielded,
)

MAX_ANNOUNCED = 8
"""Addresses of one announcement by mDNS: a datagram has room for a thousand, and one is kept."""


class Transport:
    """One libp2p host.

    Args:
        seed: 32 bytes, the secret of the peer identity (Ed25519).
        host: the IP address to listen on.
        port: the TCP port; 0 lets the system choose.
        topics: the gossip topics that there are.
        joined: those to take part in; `join` changes it.
        limits: the protocols that are served, with the most bytes of a request each.
        handlers: the owner.
        local_name: eight characters that name the network to mDNS; None for no mDNS.

    Attributes:
        host: libp2p's, with the counts of streams.
        swarm: its connections.
        pubsub: gossip.
        router: the mesh.
        owner: runs the handlers.
    """

    def __init__(
        self,
        *,
        seed: bytes,
        host: str,
        port: int,
        topics: Set[str],
        joined: Set[str],
        limits: dict[str, int],
        handlers: Handlers,
        local_name: str | None = None,
    ) -> None:
        self._listen = Multiaddr(f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{port}")
        self._address = (host, port)
        self._limits, self._handlers, self._local_name = limits, handlers, local_name
        self.owner = Owner(handlers.on_bug)
        self.host = make_host(seed, handlers, self.owner)
        self.swarm = self.host.swarm
        self.router = make_router()
        self.pubsub = Pubsub(self.host, self.router, handlers, self.owner, topics)
        self._joined = joined
        self._ended: dict[ID, trio.Event] = {}  # of those that the owner knows to be connected

    @property
    def peer_id(self) -> str:
        """The own peer id."""
        return str(self.host.get_id())

    @property
    def addresses(self) -> list[str]:
        """Multiaddrs to dial, with the peer id; where it listens everywhere, loopback first, then every interface."""
        found = [part for address in self.host.get_transport_addrs() for part in _expand(address)]
        return [f"{address}/p2p/{self.peer_id}" for address in dict.fromkeys(found)]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen and take part until the block is left.

        Raises:
            NodeError: the port is taken.
            BaseExceptionGroup: with what a handler has raised, unless it may.
        """
        _check_port(*self._address)
        self.swarm.register_notifee(_Notifee(self._on_opened, self._on_closed))
        for protocol in self._limits:
            self.host.set_stream_handler(TProtocol(protocol), partial(self._serve, protocol))
        stop, stopped = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery, self.owner.run():
            await nursery.start(self._run_host, stop, stopped)
            try:
                async with background_trio_service(self.pubsub), background_trio_service(self.router):
                    await self.pubsub.wait_until_ready()
                    for topic in self._joined:
                        await self.pubsub.subscribe(topic)
                    self.owner.start(self._discover)
                    yield
            finally:
                stop.set()
                with shielded():
                    await stopped.wait()

    async def _run_host(
        self, stop: trio.Event, stopped: trio.Event, *, task_status: Any = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run libp2p until it is told to stop: cancelled, it would leave its port and its connections open."""
        try:
            with trio.CancelScope() as scope:
                scope.shield = True
                async with self.host.run(listen_addrs=[self._listen]):
                    if not self.swarm.listeners:
                        raise NodeError(f"cannot listen on {self._listen}; give another --p2p-host or --p2p-port")
                    task_status.started()
                    await stop.wait()
                    scope.deadline = trio.current_time() + CLOSE_TIMEOUT_S
                    await self.host.close()
        finally:
            self.pubsub.seen_messages.stop()
            stopped.set()

    async def connect(self, address: str) -> str:
        """Dial a multiaddr that ends with a peer id; return the peer id.

        Raises:
            PeerError: nobody answers there, or somebody else.
        """
        where = address.partition("/p2p/")[0]
        try:
            info = info_from_p2p_addr(Multiaddr(address))
            if not self.swarm.is_connected(info.peer_id):
                self.swarm.forget(info.peer_id)  # dial this address, and now
            with trio.fail_after(DIAL_TIMEOUT_S):
                await self.host.connect(PeerInfo(info.peer_id, info.addrs))
        except trio.TooSlowError as error:
            raise PeerError(f"{where} did not answer within {DIAL_TIMEOUT_S:.0f} s") from error
        except FAULTS as error:
            self.owner.see(error)
            raise PeerError(f"{where} cannot be reached: {explain_dial(error)}") from error
        return str(info.peer_id)

    async def disconnect(self, peer: str) -> None:
        """Close all connections of a peer."""
        with suppress(*FAULTS), trio.move_on_after(CLOSE_TIMEOUT_S):
            await self.host.disconnect(ID.from_string(peer))

    async def join(self, topics: Set[str]) -> None:
        """Take part in these topics, and in no others."""
        with contained():
            for topic in topics - set(self.pubsub.topic_ids):
                await self.pubsub.subscribe(topic)
            for topic in set(self.pubsub.topic_ids) - topics:
                await self.pubsub.unsubscribe(topic)

    async def publish(self, topic: str, data: bytes) -> None:
        """Send a message to a topic."""
        with contained():
            await self.pubsub.publish(topic, data)

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
                stream = await self.host.new_stream(ID.from_string(peer), [TProtocol(protocol)])
                async with closing(stream):
                    await stream.write(encode_frame(payload))
                    if limit is not None:
                        answer = await read_frame(stream, limit)
                    else:  # wait until it has been read: who hangs up right after writing may not be heard
                        answer = b""
                        with suppress(*FAULTS):
                            await stream.read(1)
        except trio.TooSlowError as error:
            raise PeerError(f"no answer to {protocol} within {RESPONSE_TIMEOUT_MS / 1000:g} s") from error
        except FAULTS as error:
            self.owner.see(error)
            raise PeerError(f"no answer to {protocol}: {describe(error)}") from error
        self.owner.start(linger, stream)
        return answer

    async def _serve(self, protocol: str, stream: INetStream) -> None:
        """Read one request and answer it; what the owner's handler raises is not caught here."""
        peer = str(stream.muxed_conn.peer_id)
        with contained(partial(self._blame, peer)), trio.move_on_after(RESPONSE_TIMEOUT_MS / 1000):
            async with closing(stream):
                payload = await read_frame(stream, self._limits[protocol])
                answer = await self.owner.ask(self._handlers.on_request, peer, protocol, payload)
                if answer is not None:
                    await stream.write(encode_frame(answer))
        await linger(stream)

    def _blame(self, peer: str, error: Exception) -> None:
        if isinstance(error, SpecError):
            self.owner.tell(self._handlers.on_fault, peer, error)
        self.owner.see(error)

    # Connections.

    async def _on_opened(self, connection: INetConn) -> None:
        peer_id = connection.muxed_conn.peer_id
        if peer_id in self._ended or connection.is_closed:
            return
        self._ended[peer_id] = trio.Event()
        outbound = str(getattr(connection, "direction", "")).lower().endswith("outbound")
        address = next((str(a) for a in connection.get_transport_addresses()), "")
        self.owner.start(self._attend, str(peer_id), address, outbound, self._ended[peer_id])

    async def _on_closed(self, connection: INetConn) -> None:
        peer_id = connection.muxed_conn.peer_id
        if not self.swarm.is_connected(peer_id):
            self.swarm.forget(peer_id)
            if peer_id in self._ended:
                self._ended.pop(peer_id).set()

    async def _attend(self, peer: str, address: str, outbound: bool, ended: trio.Event) -> None:
        """Tell the owner of a connection, and of its end, in this order."""
        told = trio.Event()

        async def tell() -> None:
            told.set()
            await self._handlers.on_connected(peer, address, outbound=outbound)

        self.owner.start(tell)
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
            for address in info.addrs[:MAX_ANNOUNCED]:
                with suppress(trio.RunFinishedError):
                    found = f"{address}/p2p/{info.peer_id}"
                    token.run_sync_soon(self.owner.tell, self._handlers.on_discovered, found)

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
                with shielded():
                    await trio.to_thread.run_sync(_stop_mdns, mdns, abandon_on_cancel=True)  # type: ignore[call-arg]

    def _make_mdns(self) -> MDNSDiscovery:
        addresses = self.addresses
        public = [address for address in addresses if "/127.0.0.1/" not in address and "/::1/" not in address]
        mdns = create_mdns_discovery(
            self.swarm, port=self._address[1], listen_addrs=public or addresses,
            private_network_fingerprint=self._local_name,
        )  # fmt: skip
        keep_nothing(mdns.listener)
        return mdns


class _Nothing(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None: ...


class _NoPeerStore(PeerStore):
    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None: ...


def keep_nothing(listener: PeerListener) -> None:
    """Have mDNS's listener pass on what it hears, and remember none of it: names and peer ids are free.

    It forgets them only where it runs as a task of trio's, which would block the loop; and threads would write to the
    swarm's store of peers.
    """
    listener.peerstore = _NoPeerStore()
    listener.discovered_services, listener.meta_query_services = _Nothing(), _Nothing()


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
