"""What peers send to a node: headers, gossip, requests, answers to its own requests."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
import trio

from poai_spec.basics.containers import Block, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import SpecError
from poai_spec.chain.networking import (
    BLOCKS_PROTOCOL,
    GOODBYE_PROTOCOL,
    HEADERS_PROTOCOL,
    MAX_BLOCKS_BYTES,
    MAX_BLOCKS_REQUEST_BYTES,
    MAX_GOODBYE_BYTES,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_HEADERS_REQUEST_BYTES,
    MAX_STATUS_BYTES,
    RESULT_BYTES,
    STATUS_PROTOCOL,
    Blocks,
    BlocksRequest,
    Goodbye,
    Headers,
    HeadersRequest,
    Result,
    Status,
    check_blocks,
    check_frame_length,
    check_headers,
    decode_response,
    encode_frame,
)
from poai_spec.chain.upgrades import get_rules
from poaid.chain.admission import Sender
from poaid.chain.header_check import check_encoded_header
from poaid.chain.judges import Models
from poaid.layout import HEADER_BYTES
from poaid.net.peers import Peer, Peers
from poaid.node import Node, Options
from poaid.store.database import Database
from tests.harness.driving import ACCEPTED, VALIDATOR, WIRE, check_line, drive, judge
from tests.harness.importing import (
    Made,
    Rig,
    grow_line,
    make_easy_judge,
    make_easy_network,
    make_forest,
    make_root,
    running,
)
from tests.harness.mutation import break_one, make_pool

PEER = "12D3KooWStranger"
BATCH = 12
"""Messages that one rig takes before the next one starts from genesis again: a chain grows and forks meanwhile."""


@cache
def make_line() -> tuple[Made, ...]:
    """Return a chain of twelve blocks, four epochs."""
    return tuple(grow_line(make_root(), 12))


# Headers


def test_headers_are_checked_in_a_chain() -> None:
    line = make_line()
    chain, config = list(line[5].chain), make_easy_network().config
    hashes = [compute_block_hash(header) for header in chain]
    now = chain[-1].core.timestamp + 10_000
    successors = [line[6], *grow_line(line[5], 1, pace=700)]
    pool = [made.data[:HEADER_BYTES] for made in (*successors * 8, *line)]
    seen = drive(
        "header in a chain",
        break_one(pool, 2),
        300,
        lambda data: judge(lambda: check_encoded_header(data, chain, hashes, get_rules(config, (), 0), now)),
        long=VALIDATOR,
    )
    assert {"encoding/undecodable", "header/version", "header/parent"} < set(seen)


# Gossip


def make_messages() -> Callable[[Random], list[bytes]]:
    """Return what draws messages: true and false blocks, and edited ones, some of which get a known parent back."""
    parents = [bytes(32), *(made.hash for made in make_forest()[:12]), make_root().hash]
    blocks = [made.data for made in make_forest()]
    edited = break_one(blocks, 2)

    def make_one(rng: Random) -> bytes:
        if rng.randrange(2):
            return rng.choice(blocks[:10])
        block = edited(rng)  # sealed, it gets behind the first check
        return block[:12] + rng.choice(parents) + block[44:] if rng.randrange(4) == 0 else block

    return lambda rng: [make_one(rng) for _ in range(rng.randint(1, BATCH))]


async def gossip(rig: Rig, data: bytes) -> str:
    """Take a message in; return what became of it. What was accepted is stored as it came."""
    try:
        new = await rig.importer.import_block(data, Sender(b"peer"), "gossip")
    except SpecError as error:
        check_line(error)
        return error.code
    if new:
        assert rig.store.read_block(compute_block_hash(decode(Block, data).header)) == data
    return ACCEPTED if new else "known before"


def test_gossip(tmp_path: Path) -> None:
    """In batches, since an order of messages is an input, too; whatever comes, the stored chain can be loaded again."""

    async def take(folder: Path, messages: list[bytes]) -> list[str]:
        async with running(folder) as rig:
            seen = [await gossip(rig, data) for data in messages]
            head = rig.chain.head.hash
        async with running(folder) as rig:
            assert rig.chain.head.hash == head
        return seen

    def run(messages: list[bytes]) -> list[str]:
        with TemporaryDirectory(dir=tmp_path) as folder:
            return trio.run(take, Path(folder), messages)

    seen = drive("gossip", make_messages(), 40, run, long=VALIDATOR)
    assert {"encoding/undecodable", "fork-choice/unknown-parent"} < set(seen)


# Requests


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node of twelve blocks that does not run: it answers, and nothing else."""
    network, judge_of = make_easy_network(), make_easy_judge()
    with Database.create_or_open(tmp_path / "node", network, "mini") as store:
        node = Node(
            store, network, Models.hold(network, judge_of), Options(None, "127.0.0.1", 4001, mdns=False), bytes(32)
        )

        async def fill() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.verifier.run)
                for made in make_line():
                    await node.importer.import_block(made.data, Sender(), "gossip")
                nursery.cancel_scope.cancel()

        trio.run(fill)
        yield node


def ask(node: Node, protocol: str, payload: bytes) -> bytes | None:
    """Ask as a stranger who has a whole bucket of tokens and no fault yet."""

    async def run() -> bytes | None:
        node.peers = Peers([])
        node.peers.connected[PEER] = Peer(PEER, "/ip4/192.0.2.1/tcp/4001", False, 0.0)
        return await node.on_request(PEER, protocol, payload)

    return trio.run(run)


def make_requests(node: Node, protocol: str) -> list[bytes]:
    """Return valid requests, most of which name blocks that the node has."""
    rng, known = Random(protocol), [made.hash for made in make_line()]
    if protocol == STATUS_PROTOCOL:
        return [encode(node.make_status())] * 8 + make_pool(Status)
    if protocol == GOODBYE_PROTOCOL:
        return make_pool(Goodbye)
    if protocol == BLOCKS_PROTOCOL:
        asked = [(*rng.sample(known, rng.randint(1, 12)), *[rng.randbytes(32)] * rng.randrange(2)) for _ in range(64)]
        return [encode(BlocksRequest(hashes)) for hashes in asked]
    stops = (*known, bytes(32), rng.randbytes(32))
    locators = [tuple(rng.choices((*known, rng.randbytes(32)), k=rng.randint(1, 4))) for _ in range(64)]
    return [encode(HeadersRequest(hashes, rng.choice(stops), rng.randint(1, MAX_HEADERS))) for hashes in locators]


LIMITS = {
    STATUS_PROTOCOL: (MAX_STATUS_BYTES, MAX_STATUS_BYTES),
    HEADERS_PROTOCOL: (MAX_HEADERS_REQUEST_BYTES, MAX_HEADERS_BYTES),
    BLOCKS_PROTOCOL: (MAX_BLOCKS_REQUEST_BYTES, MAX_BLOCKS_BYTES),
    GOODBYE_PROTOCOL: (MAX_GOODBYE_BYTES, 0),
}
"""The longest request and answer of each protocol, bytes."""


@pytest.mark.parametrize("protocol", [STATUS_PROTOCOL, HEADERS_PROTOCOL, BLOCKS_PROTOCOL])
def test_requests(node: Node, protocol: str) -> None:
    kinds: dict[str, type] = {STATUS_PROTOCOL: Status, HEADERS_PROTOCOL: Headers, BLOCKS_PROTOCOL: Blocks}
    asked = {HEADERS_PROTOCOL: HeadersRequest, BLOCKS_PROTOCOL: BlocksRequest}

    def run(payload: bytes) -> str:
        outcome = judge(lambda: check_frame_length(len(payload), LIMITS[protocol][0]))
        if outcome != ACCEPTED:  # the network refuses it before the node sees it
            return outcome
        answer = ask(node, protocol, payload)
        assert answer is not None
        assert len(answer) <= LIMITS[protocol][1] + RESULT_BYTES
        outcome = judge(lambda: decode_response(kinds[protocol], answer))
        if outcome == ACCEPTED and protocol in asked:  # whoever asked accepts the answer
            check = check_headers if protocol == HEADERS_PROTOCOL else check_blocks
            check(decode(asked[protocol], payload), decode_response(kinds[protocol], answer))
        return outcome if outcome == ACCEPTED else Result(answer[0]).name

    seen = drive(f"request {protocol}", break_one(make_requests(node, protocol)), 150, run, long=WIRE)
    assert Result.NOT_UNDERSTOOD.name in seen


def test_goodbyes(node: Node) -> None:
    def run(payload: bytes) -> str:
        return judge(lambda: ask(node, GOODBYE_PROTOCOL, payload))

    drive(f"request {GOODBYE_PROTOCOL}", break_one(make_requests(node, GOODBYE_PROTOCOL)), 100, run, long=WIRE)


def test_blocks_as_an_answer() -> None:
    """They fit what was asked for, or are refused with one code."""
    line, rng = make_line(), Random(0)
    request = BlocksRequest(tuple(made.hash for made in line[:6]))
    chosen = [line[:6], *(rng.choices(line[:8], k=rng.randint(0, 7)) for _ in range(32))]
    chosen += [sorted(made, key=line.index) for made in chosen]
    answers = [encode(Blocks(tuple(one.block for one in made), ())) for made in chosen]

    def take(data: bytes) -> str:
        return judge(lambda: check_blocks(request, decode(Blocks, data)))

    assert "networking/blocks-response" in drive("answer Blocks", break_one(answers), 100, take, long=WIRE)


def test_headers_as_an_answer() -> None:
    """The same of headers."""
    line = make_line()
    wanted = HeadersRequest((line[0].hash, make_root().hash), line[9].hash, 6)
    parts = [line[start:end] for start in range(7) for end in range(start, 13)]
    answers = [encode(Headers(tuple(made.block.header for made in part))) for part in parts]

    def take(data: bytes) -> str:
        return judge(lambda: check_headers(wanted, decode(Headers, data)))

    assert "networking/headers-response" in drive("answer Headers", break_one(answers), 150, take, long=WIRE)


def test_frames() -> None:
    """A length is refused before anything is read, and nothing above its limit passes."""
    frames = [encode_frame(bytes(length)) for length in (0, 1, 4, MAX_STATUS_BYTES - 1, MAX_STATUS_BYTES)]

    def run(data: bytes) -> str:
        length = int.from_bytes(data[:4], "little")
        outcome = judge(lambda: check_frame_length(length, MAX_STATUS_BYTES))
        assert (outcome == ACCEPTED) == (length <= MAX_STATUS_BYTES)
        return outcome

    drive("frame", break_one(frames), 200, run, long=WIRE)
