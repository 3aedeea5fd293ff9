"""What peers send on a gossip stream: frames of protobuf, below the messages that the node sees."""

import logging
from collections.abc import Callable
from random import Random

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import IncompleteReadError as EndError
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service.trio_manager import TrioManager
from libp2p.utils.varint import encode_varint_prefixed

from poai_spec.basics.notation import Malformed
from poaid.net.libp2p.gossip import MESHSUB
from tests.harness.driving import ACCEPTED, WIRE, drive
from tests.harness.mutation import break_one, broken
from tests.unit.poaid.net.test_transport import TOPIC, Owner, make_network, message

PEER = ID.from_string("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")
MOST_FRAMES = 4
MOST_MESSAGES = 1_000
"""That one reader has judged before another takes its place."""

pytestmark = pytest.mark.sockets


class Stream:
    """A stream with bytes to be read; what is written to it is thrown away."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, size: int) -> bytes:
        part, self._data = self._data[:size], self._data[size:]
        return part

    async def write(self, data: bytes) -> None: ...


def make_rpcs() -> list[bytes]:
    """Return an RPC of each kind, without its length."""
    ids, rpc = [bytes([n]) * 32 for n in range(40)], rpc_pb2.RPC
    controls = [
        rpc_pb2.ControlMessage(ihave=[rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=ids)]),
        rpc_pb2.ControlMessage(iwant=[rpc_pb2.ControlIWant(messageIDs=ids[:3])]),
        rpc_pb2.ControlMessage(idontwant=[rpc_pb2.ControlIDontWant(messageIDs=ids[:2])]),
        rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft(topicID=TOPIC)]),
        rpc_pb2.ControlMessage(
            prune=[rpc_pb2.ControlPrune(topicID=TOPIC, peers=[rpc_pb2.PeerInfo(peerID=b"x")], backoff=2**60)]
        ),
    ]
    subscriptions = [
        rpc.SubOpts(subscribe=flag, topicid=topic) for flag in (True, False) for topic in (TOPIC, "/other")
    ]
    rpcs = [rpc(control=control) for control in controls]
    rpcs += [rpc(publish=[message(b"block")]), rpc(publish=[message(b"a"), message(b"b", seqno=b"1", signature=b"s")])]
    rpcs += [rpc(subscriptions=subscriptions), rpc(subscriptions=subscriptions[:1], control=controls[0])]
    return [one.SerializeToString() for one in rpcs]


def make_streams() -> Callable[[Random], bytes]:
    """Return what draws some frames, one behind the other: the content is edited, or the whole."""
    rpcs = make_rpcs()
    edited = break_one(rpcs)

    def make(rng: Random) -> bytes:
        frames = [encode_varint_prefixed(edited(rng)) for _ in range(rng.randint(1, MOST_FRAMES))]
        return broken(rng, b"".join(frames), 1)

    return make


class Reader:
    """A node's gossip with one peer, which does not run: it reads what it is given."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.network = make_network(self.owner)
        self.pubsub, router = self.network.pubsub, self.network.router
        self.pubsub._manager = TrioManager(self.pubsub)  # not started: subscriptions have no consequence
        router.max_ihave_messages_per_second = router.max_iwant_requests_per_second = float("inf")  # read them all
        self.pubsub.peers[PEER] = Stream(b"")  # type: ignore[assignment]
        router.add_peer(PEER, MESHSUB[1])

    async def read(self, stream: Stream) -> str:
        """Read a stream as the node does; return with what it ended, `ACCEPTED` if that was its end."""
        async with self.network.owner.run():
            try:
                while True:
                    await self.pubsub.read_rpc(stream, PEER)  # type: ignore[arg-type]
            except EndError:
                await trio.testing.wait_all_tasks_blocked()  # messages are judged
            except Malformed as error:
                return error.code
        return ACCEPTED


def test_gossip_streams(caplog: pytest.LogCaptureFixture) -> None:
    """They end at the first RPC that cannot be read; no other exception comes out, and little is kept."""
    caplog.set_level(logging.CRITICAL, "libp2p")  # as in a node
    readers = [Reader()]

    def take(data: bytes) -> str:
        reader = readers[0]
        outcome = trio.run(reader.read, Stream(data))
        assert len(reader.pubsub.peer_topics) <= 1
        assert not reader.pubsub.in_flight
        assert not reader.owner.bugs
        if len(reader.owner.gossip) > MOST_MESSAGES:  # what was seen is remembered by the clock, not by number
            readers[0] = Reader()
        return outcome

    drive("gossip stream", make_streams(), 100, take, long=WIRE)
