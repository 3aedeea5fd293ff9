"""What peers send to a node: headers, gossip, requests, answers to its own requests."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from poai_spec.containers import Block, compute_block_hash
from poai_spec.encoding import decode, encode
from poai_spec.networking import (
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
from poai_spec.notation import SpecError
from poaid.header_check import HEADER_BYTES, check_encoded_header
from poaid.importer import Sender
from poaid.node import Node, Options
from poaid.peers import Peer, Peers
from poaid.store import Store
from tests.fuzz.driving import ACCEPTED, check_line, drive, judge
from tests.fuzz.mutation import broken, values_of
from tests.node.importing import (
    Made,
    Rig,
    grow_line,
    make_easy_judge,
    make_easy_network,
    make_forest,
    make_root,
    running,
)

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
    next_headers = st.sampled_from([made.data[:HEADER_BYTES] for made in (*line, *grow_line(line[5], 1, pace=700))])
    seen = drive(
        "header in a chain",
        st.one_of(next_headers, broken(next_headers, 2)),
        300,
        lambda data: judge(lambda: check_encoded_header(data, chain, hashes, config, now)),
    )
    assert {"encoding/undecodable", "header/version", "header/parent"} < set(seen)


# Gossip


def sealed(data: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Put parents right: an edited header whose parent is known again gets behind the first check."""
    parents = [bytes(32), *(made.hash for made in make_forest()[:12]), make_root().hash]

    @st.composite
    def seal(draw: DrawFn) -> bytes:
        block = draw(data)
        return block[:12] + draw(st.sampled_from(parents)) + block[44:] if draw(st.integers(0, 3)) == 0 else block

    return seal()


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
    blocks = st.sampled_from([made.data for made in make_forest()])
    message = st.one_of(st.sampled_from([made.data for made in make_forest()[:10]]), sealed(broken(blocks, 2)))

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

    seen = drive("gossip", st.lists(message, min_size=1, max_size=BATCH), 40, run)
    assert {"encoding/undecodable", "fork-choice/unknown-parent"} < set(seen)


# Requests


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node of twelve blocks that does not run: it answers, and nothing else."""
    network, judge_of = make_easy_network(), make_easy_judge()
    with Store.create_or_open(tmp_path / "node", network, "mini") as store:
        node = Node(store, network, judge_of, Options(None, "127.0.0.1", 4001, mdns=False), bytes(32))

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


def make_requests(node: Node) -> dict[str, SearchStrategy[bytes]]:
    """Return valid requests by protocol, most of which name blocks that the node has."""
    known = st.sampled_from([made.hash for made in make_line()])
    named = known | st.binary(min_size=32, max_size=32)
    headers = st.builds(
        HeadersRequest, st.lists(named, min_size=1, max_size=4).map(tuple), named | st.just(bytes(32)),
        st.integers(1, MAX_HEADERS),
    )  # fmt: skip
    blocks = st.lists(named, min_size=1, max_size=32, unique=True).map(lambda hashes: BlocksRequest(tuple(hashes)))
    status = st.one_of(st.just(node.make_status()), values_of(Status))
    return {
        STATUS_PROTOCOL: status.map(encode), HEADERS_PROTOCOL: headers.map(encode), BLOCKS_PROTOCOL: blocks.map(encode),
        GOODBYE_PROTOCOL: values_of(Goodbye).map(encode),
    }  # fmt: skip


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

    seen = drive(f"request {protocol}", broken(make_requests(node)[protocol]), 150, run)
    assert Result.NOT_UNDERSTOOD.name in seen


def test_goodbyes(node: Node) -> None:
    def run(payload: bytes) -> str:
        return judge(lambda: ask(node, GOODBYE_PROTOCOL, payload))

    drive("request " + GOODBYE_PROTOCOL, broken(make_requests(node)[GOODBYE_PROTOCOL]), 100, run)


def test_answers_to_a_request() -> None:
    """Headers and blocks that a peer answers with: they fit what was asked for, or are refused with one code."""
    line = make_line()
    request = BlocksRequest(tuple(made.hash for made in line[:6]))
    answers = st.lists(st.sampled_from(line[:8]), max_size=7).map(
        lambda made: encode(Blocks(tuple(one.block for one in made), ()))
    )
    whole = st.just(encode(Blocks(tuple(made.block for made in line[:6]), ())))

    def take_blocks(data: bytes) -> str:
        return judge(lambda: check_blocks(request, decode(Blocks, data)))

    assert "networking/blocks-response" in drive("answer Blocks", broken(answers | whole), 100, take_blocks)
    wanted = HeadersRequest((line[0].hash, make_root().hash), line[9].hash, 6)
    heads = st.tuples(st.integers(0, 6), st.integers(0, 12)).map(
        lambda ends: encode(Headers(tuple(made.block.header for made in line[ends[0] : ends[1]])))
    )

    def take_headers(data: bytes) -> str:
        return judge(lambda: check_headers(wanted, decode(Headers, data)))

    assert "networking/headers-response" in drive("answer Headers", broken(heads), 150, take_headers)


def test_frames() -> None:
    """A length is refused before anything is read, and nothing above its limit passes."""

    def run(data: bytes) -> str:
        length = int.from_bytes(data[:4], "little")
        outcome = judge(lambda: check_frame_length(length, MAX_STATUS_BYTES))
        assert (outcome == ACCEPTED) == (length <= MAX_STATUS_BYTES)
        return outcome

    drive("frame", broken(st.binary(max_size=MAX_STATUS_BYTES).map(encode_frame)), 200, run)
