"""Peers of the plain library that lie: what a node's own network code would never send, on real sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.pubsub.pb import rpc_pb2

from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Hash32, Milliseconds, keccak256, uint64_le
from poai_spec.basics.parameters import PROTOCOL_VERSION
from poai_spec.chain.block import make_genesis
from poai_spec.chain.networking import (
    BLOCKS_PROTOCOL,
    GOODBYE_PROTOCOL,
    HEADERS_PROTOCOL,
    STATUS_PROTOCOL,
    Blocks,
    BlocksRequest,
    Headers,
    HeadersRequest,
    Result,
    Status,
    encode_frame,
    encode_response,
    get_blocks_topic,
)
from poai_spec.chain.upgrades import get_fork_hash
from poai_spec.execution.state import State, process_header
from poai_tools.vectors.chains import MINER, make_core, seal_header
from poaid.net.libp2p.gossip import MESHSUB
from poaid.net.libp2p.streams import FAULTS
from tests.harness.processes import Made
from tests.unit.poaid.net.test_transport import Stranger, frame_rpc, stranger

Answer = Callable[[bytes], Awaitable[bytes | None]]
"""What a liar says to a request; with None it resets the stream."""
MUCH_WORK = 2**200
"""More than any chain here has."""


@dataclass
class Forger:
    """A chain of headers that may end in invented ones.

    Attributes:
        made: a node, for the rules.
        chain: its headers, genesis first.
        state: the accounts after the last one.
    """

    made: Made
    chain: list[Header] = field(default_factory=list)
    state: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chain = [make_genesis(self.made.node.rules.config).header]

    def follow(self, blocks: Sequence[Block]) -> "Forger":
        """Append true blocks."""
        for block in blocks:
            self.state = process_header(self.state, block.header.core)
            self.chain.append(block.header)
        return self

    def invent(self, count: int, name: bytes = b"", pace: Milliseconds = 1_000) -> "Forger":
        """Append headers that pass every rule for headers, but whose loss and trace digest are made up."""
        config = self.made.node.rules.config
        for _ in range(count):
            core = make_core(self.chain, self.state, config, self.chain[-1].core.timestamp + pace, MINER)
            digest = keccak256(name + uint64_le(len(self.chain)))
            self.chain.append(seal_header(Header(core, 1, digest), self.chain, config))
            self.state = process_header(self.state, core)
        return self

    @property
    def head(self) -> Hash32:
        return compute_block_hash(self.chain[-1])

    async def answer_headers(self, payload: bytes) -> bytes:
        """Answer as an honest node would, from this chain."""
        request = decode(HeadersRequest, payload)
        places = {compute_block_hash(header): height for height, header in enumerate(self.chain)}
        start = next(places[h] for h in request.locator if h in places) + 1
        return encode_response(Result.OK, Headers(tuple(self.chain[start : start + request.count])))


async def lack(payload: bytes) -> bytes:
    """Hold no block at all."""
    return encode_response(Result.OK, Blocks((), decode(BlocksRequest, payload).hashes))


async def reset(_: bytes) -> None:
    """Give no answer, at once."""


class Liar:
    """A peer that claims what it is told to, and answers as it is told to.

    Attributes:
        answers: by protocol; what has none is refused with `NOT_AT_HAND`.
        asked: how often each protocol was asked.
        goodbyes: how often it was sent away.
    """

    def __init__(self, peer: Stranger, victim: Made) -> None:
        self.peer, self.victim = peer, victim
        self.answers: dict[str, Answer] = {BLOCKS_PROTOCOL: lack}
        self.asked: dict[str, int] = {}
        self.goodbyes = 0
        for protocol in (STATUS_PROTOCOL, HEADERS_PROTOCOL, BLOCKS_PROTOCOL, GOODBYE_PROTOCOL):
            peer.host.set_stream_handler(TProtocol(protocol), self._make_handler(protocol))
        self.claim(victim.head, 0)

    @property
    def peer_id(self) -> str:
        return self.peer.peer_id

    def is_banned(self) -> bool:
        """Whether the victim has banned it."""
        return self.victim.node.peers.is_banned(self.peer_id, 0)

    def claim(self, head: Hash32, height: int, work: int = MUCH_WORK) -> None:
        """Choose what it says of itself."""
        self.status = Status(
            PROTOCOL_VERSION,
            self.victim.node.network_id,
            get_fork_hash(self.victim.node.chain.tree.get_rules(height)),
            0,
            head,
            height,
            work,
            1,
            0,
        )

    async def connect(self) -> None:
        """Dial the victim."""
        await self.peer.connect(self.victim.node.network)

    async def tell_status(self, **changes: object) -> bytes:
        """Send its status; return the payload of the answer."""
        return await self.ask(STATUS_PROTOCOL, encode(replace(self.status, **changes)))  # type: ignore[arg-type]

    async def ask(self, protocol: str, payload: bytes) -> bytes:
        """Send a request; return the payload of the answer."""
        stream = await self.send(protocol, encode_frame(payload))
        length = int.from_bytes(await read_exactly(stream, 4), "little")
        answer = await read_exactly(stream, length)
        await stream.reset()
        return answer

    async def send(self, protocol: str, data: bytes) -> INetStream:
        """Open a stream and write bytes on it."""
        stream = await self.peer.open(self.victim.node.network, protocol)
        await stream.write(data)
        return stream

    async def gossip(self, *blocks: bytes) -> None:
        """Publish messages, each in an RPC of its own."""
        topic = get_blocks_topic(self.victim.node.chain.tree.get_rules(1))
        messages = [rpc_pb2.Message(data=data, topicIDs=[topic]) for data in blocks]
        await self.send(MESHSUB[0], b"".join(map(frame_rpc, messages)))

    def _make_handler(self, protocol: str) -> Callable[[INetStream], Awaitable[None]]:
        async def handle(stream: INetStream) -> None:
            self.asked[protocol] = self.asked.get(protocol, 0) + 1
            try:
                length = int.from_bytes(await read_exactly(stream, 4), "little")
                payload = await read_exactly(stream, length)
                if protocol == GOODBYE_PROTOCOL:
                    self.goodbyes += 1
                    return
                answer = await self._answer(protocol, payload)
                await (stream.reset() if answer is None else stream.write(encode_frame(answer)))
            except (*FAULTS, EOFError):  # the victim has left
                return

        return handle

    async def _answer(self, protocol: str, payload: bytes) -> bytes | None:
        if protocol in self.answers:
            return await self.answers[protocol](payload)
        if protocol == STATUS_PROTOCOL:
            return encode_response(Result.OK, self.status)
        return encode_response(Result.NOT_AT_HAND)


async def read_exactly(stream: INetStream, size: int) -> bytes:
    """Read so many bytes of a stream."""
    data = b""
    while len(data) < size:
        part = await stream.read(size - len(data))
        if not part:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += part
    return data


@asynccontextmanager
async def lying(victim: Made) -> AsyncIterator[Liar]:
    """Run a liar that is not connected yet."""
    async with stranger() as peer:
        yield Liar(peer, victim)
