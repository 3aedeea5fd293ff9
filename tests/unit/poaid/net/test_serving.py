"""Answers to requests: bit for bit what the page's encoder makes of the same headers and blocks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Hash32
from poai_spec.chain.networking import (
    MAX_BLOCKS,
    MAX_BLOCKS_BYTES,
    MAX_HEADERS,
    Blocks,
    BlocksRequest,
    Headers,
    HeadersRequest,
    check_blocks,
    check_headers,
)
from poaid.chain.admission import Sender
from poaid.net.serving import answer_blocks, answer_headers
from tests.harness.importing import MINERS, Made, Rig, grow_line, make_root, running

pytestmark = pytest.mark.trio

LINE = grow_line(make_root(), 8)
SIDE = grow_line(LINE[2], 3, miner=MINERS[1])
ZEROS = bytes(32)


async def import_all(rig: Rig, blocks: list[Made]) -> None:
    for made in blocks:
        await rig.importer.import_block(made.data, Sender(b"peer"), "gossip")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Rig]:
    """A node with a chain of eight blocks and a branch of three beside it."""
    async with running(folder) as rig:
        rig.receive_headers(LINE)
        await import_all(rig, [*LINE[:3], *SIDE, *LINE[3:]])
        assert rig.chain.head.hash == LINE[-1].hash
        assert all(rig.chain.tree.entries[made.hash].replayed for made in SIDE)
        yield rig


def ask_headers(rig: Rig, locator: list[Hash32], stop: Hash32 = ZEROS, count: int = MAX_HEADERS) -> list[int] | None:
    """Return the heights of the headers of the main chain that are given, after comparing them bit for bit."""
    request = HeadersRequest(tuple(locator), stop, count)
    answer = answer_headers(rig.chain, request)
    if answer is None:
        return None
    heights = [header.core.height for header in decode(Headers, answer).headers]
    expected = Headers(tuple(LINE[height - 1].block.header for height in heights))
    assert answer == encode(expected)
    check_headers(request, expected)
    return heights


async def test_headers_follow_the_first_common_block(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        genesis, unknown = rig.chain.tree.genesis.hash, b"\7" * 32
        assert ask_headers(rig, [genesis]) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert ask_headers(rig, [LINE[5].hash]) == [7, 8]
        assert ask_headers(rig, [LINE[7].hash]) == []
        assert ask_headers(rig, [SIDE[2].hash, SIDE[1].hash, LINE[2].hash, genesis]) == [4, 5, 6, 7, 8]
        assert ask_headers(rig, [unknown, LINE[1].hash, LINE[6].hash]) == [3, 4, 5, 6, 7, 8]  # the locator's order
        assert ask_headers(rig, [unknown]) is None
        assert ask_headers(rig, [SIDE[0].hash]) is None


async def test_headers_end_at_stop_or_count(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        locator = [LINE[1].hash]
        assert ask_headers(rig, locator, count=3) == [3, 4, 5]
        assert ask_headers(rig, locator, count=1) == [3]
        assert ask_headers(rig, locator, stop=LINE[4].hash) == [3, 4, 5]
        assert ask_headers(rig, locator, stop=LINE[2].hash, count=2) == [3]
        assert ask_headers(rig, locator, stop=LINE[6].hash, count=2) == [3, 4]
        for elsewhere in (SIDE[1].hash, LINE[0].hash, LINE[1].hash):  # beside the chain, below, the common block
            assert ask_headers(rig, locator, stop=elsewhere) == [3, 4, 5, 6, 7, 8]


async def test_waiting_headers_are_not_given(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await import_all(rig, LINE[:5])
        rig.receive_headers(LINE[5:])
        assert ask_headers(rig, [LINE[2].hash]) == [4, 5]
        assert ask_headers(rig, [LINE[6].hash]) is None


def ask_blocks(rig: Rig, hashes: list[Hash32]) -> Blocks:
    request = BlocksRequest(tuple(hashes))
    answer = answer_blocks(rig.chain, request)
    blocks = decode(Blocks, answer)
    assert answer == encode(blocks)
    assert len(answer) <= MAX_BLOCKS_BYTES
    check_blocks(request, blocks)
    return blocks


async def test_blocks_come_in_the_order_of_the_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        asked = [LINE[6], SIDE[2], LINE[0], LINE[3]]
        expected = Blocks(tuple(made.block for made in asked), ())
        assert answer_blocks(rig.chain, BlocksRequest(tuple(made.hash for made in asked))) == encode(expected)


async def test_unknown_waiting_and_genesis_are_lacking(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await import_all(rig, LINE[:3])
        rig.receive_headers([LINE[3]])
        genesis, unknown = rig.chain.tree.genesis.hash, b"\7" * 32
        hashes = [unknown, LINE[1].hash, LINE[3].hash, genesis, LINE[0].hash]
        assert ask_blocks(rig, hashes) == Blocks((LINE[1].block, LINE[0].block), (unknown, LINE[3].hash, genesis))
        assert ask_blocks(rig, [unknown]) == Blocks((), (unknown,))


async def test_pruned_and_assumed_are_lacking(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await import_all(rig, LINE[:3])
        checked = rig.chain.check_block(LINE[3].block, LINE[3].data, b"peer")
        assert checked is not None
        rig.importer.accept(checked, None)
        await import_all(rig, LINE[4:6])
        assert rig.chain.prune(4) == 1
        hashes = [made.hash for made in LINE[:6]]
        expected = Blocks(tuple(LINE[n].block for n in (1, 2, 4, 5)), (hashes[0], hashes[3]))
        assert ask_blocks(rig, hashes) == expected


async def test_as_many_blocks_as_a_request_may_name(tmp_path: Path) -> None:
    line = grow_line(LINE[-1], MAX_BLOCKS - len(LINE))
    async with running(tmp_path) as rig:
        await import_all(rig, [*LINE, *line])
        blocks = ask_blocks(rig, [made.hash for made in [*LINE, *line]])
        assert (len(blocks.blocks), blocks.lacking) == (MAX_BLOCKS, ())
