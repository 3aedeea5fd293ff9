"""Unsigned gossip over libp2p of the topics that the network names: three verdicts, bounds on what a peer can ask."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Set
from typing import Any

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import MessageTooLarge
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub as LibraryGossipSub
from libp2p.pubsub.mcache import CacheEntry
from libp2p.pubsub.mcache import MessageCache as LibraryMessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub as LibraryPubsub
from libp2p.pubsub.score import ScoreParams, TopicScoreParams
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from poai_spec.basics.notation import Malformed
from poai_spec.chain.networking import (
    HEARTBEAT_MS,
    MAX_GOSSIP_BYTES,
    MESH_DEGREE,
    MESH_DEGREE_HIGH,
    MESH_DEGREE_LOW,
    SEEN_MS,
    Verdict,
    compute_message_id,
)
from poaid.net.handlers import Handlers, Owner
from poaid.net.libp2p.streams import contained, describe, linger, shielded

MAX_RPC_MESSAGES = 64
"""Gossip messages in one RPC: what answers a request for lost ones has fewer than ten."""
MAX_RPC_PARTS = 64
"""Of every other kind in one RPC: subscriptions, IHAVE, IWANT, GRAFT, PRUNE and so on, each with its fields. A peer
that takes part in ten topics sends ten."""
MAX_LISTED_IDS = 2_000
"""Message ids in all IHAVE, IWANT or IDONTWANT of one RPC, of all topics: of ours a peer announces some twenty."""
MAX_CONTROL_IDS = 32
"""Message ids in one control message: the message cache holds those of five heartbeats."""
MAX_FORWARDERS = 16
"""Peers that are remembered to have sent a message that is being judged: a mesh has 12."""
MAX_QUEUED_RPCS = 256
"""Outgoing RPCs that wait for a slow peer, two for each message; the library's 32 are too few for a burst."""
PRUNE_BACK_OFF_S = 60
"""Gossipsub v1.1's: how long a pruned peer stays out of the mesh; also the longest that a peer may demand."""

MESHSUB = [TProtocol("/meshsub/1.2.0"), TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0")]
MESSAGE_ID_BYTES = 32


def _get_message_id(message: rpc_pb2.Message) -> bytes:
    return compute_message_id(message.topicIDs[0] if message.topicIDs else "", message.data)


class MessageCache(LibraryMessageCache):
    """Goes by the page's message id; the library's goes by origin and number, which unsigned messages do not have."""

    def put(self, msg: rpc_pb2.Message) -> None:
        message_id = _get_message_id(msg)
        if message_id not in self.msgs:
            self.msgs[message_id] = msg
            self.history[0].append(CacheEntry(message_id, msg.topicIDs))


class GossipSub(LibraryGossipSub):
    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:  # noqa: ARG002
        """Unsigned messages have no origin that could say two things."""
        return True

    async def leave(self, topic: str) -> None:
        """Leave a topic; the library goes through the mesh while peers that leave change it."""
        for peer_id in self.mesh.pop(topic, set()):
            self._add_back_off(peer_id, topic, True)
            await self.emit_prune(topic, peer_id, self.do_px, True)

    def gossip_heartbeat(self) -> defaultdict[ID, dict[str, list[bytes]]]:
        """Announce recent messages to some peers outside of the mesh; the library leaves out whom it may not graft."""
        assert self.pubsub is not None, "`Pubsub` attaches itself"
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


_LIMITS = {
    f"pubsub.pb.{name}": limit
    for limit, names in (
        (MAX_RPC_MESSAGES, ("RPC.publish",)),
        (1, ("RPC.control", "RPC.senderRecord")),
        (MAX_LISTED_IDS, ("ControlIHave.messageIDs", "ControlIWant.messageIDs", "ControlIDontWant.messageIDs")),
    )
    for name in names
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_counts(data: bytes) -> None:
    """Refuse an RPC that has too many parts of any kind, before one of them is looked at.

    Reads the protobuf's own marks only: at most the sum of all limits. A part of two bytes would otherwise cost as much
    as one that says something, and an RPC has room for half a million.

    Raises:
        Malformed: `encoding/undecodable`.
    """
    counts = Counter[str]()
    todo = [(rpc_pb2.RPC.DESCRIPTOR, 0, len(data))]
    for descriptor, start, end in todo:  # grows while it is read
        position = start
        while position < end:
            mark, position = _read_varint(data, position, end)
            field = descriptor.fields_by_number.get(mark >> 3)
            name = "unknown" if field is None else field.full_name
            counts[name] += 1
            if counts[name] > _LIMITS.get(name, MAX_RPC_PARTS):
                raise Malformed("encoding/undecodable", f"gossip: more than {counts[name] - 1} times {name} in an RPC")
            size, position = _read_size(mark & 7, data, position, end)
            if field is not None and field.message_type is not None and mark & 7 == _BYTES:
                todo.append((field.message_type, position, position + size))
            position += size


def _read_size(kind: int, data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return how many bytes a value has, and where it begins."""
    if kind == _BYTES:
        size, position = _read_varint(data, position, end)
    elif kind == _VARINT:
        size = _read_varint(data, position, end)[1] - position
    else:
        size = {_FIXED32: 4, _FIXED64: 8}.get(kind, end)
    if size > end - position:
        raise Malformed("encoding/undecodable", "gossip: no protobuf")
    return size, position


def _read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return an integer, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        value |= (data[position] & 127) << shift
        position += 1
        if data[position - 1] < 128:
            return value, position
    raise Malformed("encoding/undecodable", "gossip: no protobuf")


def trim(control: rpc_pb2.ControlMessage, topics: Set[str]) -> None:
    """Leave of a control message what is about the topics, one part each, and no more than a peer has use for."""
    for kind in ("extensions", "observe", "unobserve"):  # of gossipsub 1.3, which is not spoken
        control.ClearField(kind)
    for kind in ("ihave", "iwant", "idontwant", "graft", "prune"):
        parts = getattr(control, kind)
        first = {getattr(part, "topicID", ""): part for part in reversed(parts)}
        _keep(parts, [part for topic, part in first.items() if not topic or topic in topics])
        for ids in (part.messageIDs for part in parts if hasattr(part, "messageIDs")):
            _keep(ids, [one for one in dict.fromkeys(ids) if len(one) == MESSAGE_ID_BYTES][:MAX_CONTROL_IDS])
    for prune in control.prune:
        prune.backoff = min(prune.backoff, PRUNE_BACK_OFF_S)
        _keep(prune.peers, [])  # addresses to dial, chosen by a peer


def _keep(field: Any, items: Iterable[Any]) -> None:
    kept = list(items)
    del field[:]
    field.extend(kept)


def make_router() -> GossipSub:
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
    router = GossipSub(
        protocols=MESHSUB,
        degree=MESH_DEGREE, degree_low=MESH_DEGREE_LOW, degree_high=MESH_DEGREE_HIGH,
        heartbeat_interval=HEARTBEAT_MS // 1000, prune_back_off=PRUNE_BACK_OFF_S, score_params=scores,
        adaptive_gossip_enabled=False, spam_protection_enabled=False, eclipse_protection_enabled=False,
    )  # fmt: skip
    router.mcache = MessageCache(3, 5)
    return router


class Pubsub(LibraryPubsub):
    """Unsigned gossip that no peer can end, of the topics that are allowed.

    Attributes:
        scorer: what peers are worth to the mesh.
        in_flight: who has forwarded each message that is being judged.
    """

    def __init__(self, host: BasicHost, router: GossipSub, handlers: Handlers, owner: Owner, topics: Set[str]) -> None:
        super().__init__(
            host, router,
            strict_signing=False, msg_id_constructor=_get_message_id, seen_ttl=SEEN_MS // 1000,
            max_inbound_rpc_size=MAX_GOSSIP_BYTES, allowed_topics=topics,
        )  # fmt: skip
        assert router.scorer is not None, "`make_router` sets one"
        self._handlers, self._owner, self._topics, self.scorer = handlers, owner, topics, router.scorer
        self.in_flight: dict[bytes, list[ID]] = {}
        self._inbound: dict[ID, trio.CancelScope] = {}

    # Peers.

    async def stream_handler(self, stream: INetStream) -> None:
        """Read a peer's stream until it ends; a newer one takes the place of the one before it."""
        peer_id, scope = stream.muxed_conn.peer_id, trio.CancelScope()
        if peer_id in self._inbound:
            self._inbound[peer_id].cancel()
        self._inbound[peer_id] = scope
        with scope, contained(self._owner.see):
            await self.continuously_read_stream(stream)
        if self._inbound.get(peer_id) is scope:
            del self._inbound[peer_id]
        with contained(), shielded():
            await stream.reset()

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        if peer_id in self.peer_queues:
            self.peer_queues[peer_id]._queue.max_size = MAX_QUEUED_RPCS

    def _handle_dead_peer(self, peer_id: ID) -> None:
        """Forget the stream to a peer; and the peer, unless it is still connected, with its subscription."""
        stream = self.peers.get(peer_id)
        subscribed = [topic for topic in self._topics if peer_id in self.peer_topics.get(topic, ())]
        super()._handle_dead_peer(peer_id)
        if stream is not None:
            self._owner.start(linger, stream)
        if not self._peer_is_connected(peer_id):
            self.router.remove_peer(peer_id)
        elif subscribed:
            for topic in subscribed:
                self.peer_topics.setdefault(topic, set()).add(peer_id)
            self._peer_subscription_count[peer_id] = len(subscribed)

    # Messages.

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Read RPCs until the stream ends; one that cannot be read ends it, and is the peer's fault."""
        peer_id = stream.muxed_conn.peer_id
        while self.manager.is_running:
            try:
                await self.read_rpc(stream, peer_id)
            except Malformed as error:
                self._owner.tell(self._handlers.on_fault, str(peer_id), error)
                return

    async def read_rpc(self, stream: INetStream, peer_id: ID) -> None:
        """Read an RPC and do what it says.

        Raises:
            Malformed: `encoding/undecodable`.
        """
        try:
            data = await read_varint_prefixed_bytes_limited(stream, self.max_inbound_rpc_size)
            check_counts(data)
            rpc = rpc_pb2.RPC()
            rpc.ParseFromString(data)
        except (MessageTooLarge, ParseError, DecodeError) as error:
            raise Malformed("encoding/undecodable", f"gossip: {describe(error)}") from error
        await self._handle_rpc(rpc, peer_id)

    async def _handle_rpc(self, rpc: rpc_pb2.RPC, peer_id: ID) -> None:
        for message in rpc.publish:
            if len(message.topicIDs) == 1 and message.topicIDs[0] in self.topic_ids:
                self._owner.start(self.push_msg, peer_id, message)
        for subscription in rpc.subscriptions:
            self.handle_subscription(peer_id, subscription)
        if rpc.HasField("control"):
            rpc.ClearField("senderRecord")  # the peer's addresses: of no use here
            trim(rpc.control, self._topics)
            await self.router.handle_rpc(rpc, peer_id)

    async def publish(self, topic_id: str | list[str], data: bytes) -> None:
        """Send an own message: it was judged before, and bears neither origin nor number."""
        topics = [topic_id] if isinstance(topic_id, str) else topic_id
        message = rpc_pb2.Message(data=data, topicIDs=topics)
        self.seen_messages.add(_get_message_id(message))
        await self.router.publish(self.my_id, message)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Have a message judged, once however many forward it; ignored, it is the next forwarder's turn.

        A task of the owner's: a bug in `on_gossip` is told, and costs its sender nothing.
        """
        message_id = _get_message_id(msg)
        if self.seen_messages.has(message_id):
            return
        if msg.from_id or msg.seqno or msg.signature or msg.key:
            fault = Malformed("encoding/undecodable", "a signed message where none is wanted")
            self._handlers.on_fault(str(msg_forwarder), fault)
            return
        if message_id in self.in_flight:
            forwarders = self.in_flight[message_id]
            if msg_forwarder not in forwarders and len(forwarders) < MAX_FORWARDERS:
                forwarders.append(msg_forwarder)
            return
        self.in_flight[message_id] = [msg_forwarder]
        try:
            for forwarder in self.in_flight[message_id]:  # more may come while one is judged
                verdict = await self._handlers.on_gossip(str(forwarder), msg.topicIDs[0], msg.data)
                if verdict is not Verdict.IGNORE:
                    self.seen_messages.add(message_id)
                    await self._follow(verdict, forwarder, msg)
                    return
        finally:
            del self.in_flight[message_id]

    async def _follow(self, verdict: Verdict, forwarder: ID, message: rpc_pb2.Message) -> None:
        """Count a message for or against its forwarder, and pass it on if it was accepted."""
        connected = forwarder in self.peers
        if verdict is Verdict.REJECT:
            if connected:
                self.scorer.on_invalid_message(forwarder, message.topicIDs[0])
            return
        if connected:
            self.scorer.on_first_delivery(forwarder, message.topicIDs[0])
        with contained(self._owner.see):
            await self.router.publish(forwarder, message)
