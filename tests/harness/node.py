"""A fake clock, a network whose rules all act within a few blocks, and a miner on both."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from poai_spec.basics.notation import Address, Hash32, Height
from poai_spec.basics.parameters import compute_network_id, get_preset
from poai_spec.chain.block import Judge
from poaid.chain.chain_state import ChainState
from poaid.layout import HEADER_BYTES
from poaid.network_file import Network, check_network, get_network
from poaid.produce import attempts as miner
from poaid.store.database import FILE_NAME, ChainRow, Database

Run = Callable[..., tuple[int, str, str]]
"""What the fixture `run` gives: the arguments of `poaid` to exit status, standard output and standard error."""

MINER: Address = bytes.fromhex("22" * 20)
MINIMAL_ID = compute_network_id(get_preset("minimal")).hex()[:8]
"""Of the network `minimal`, as logs and messages show it."""
BLOCKS = 8
START = 1_770_000_000_000
PACES = (200, 200, 200, 100, 100, 400, 400, 900)
"""Milliseconds that pass with each batch of quizzes, block by block: difficulty rises, and falls again."""


@dataclass
class FakeClock:
    """Stands for the module `time` in `poaid.produce.attempts`.

    Attributes:
        now: the wall clock, ms since 1970.
        pace: how far each look at the wall clock moves it, ms.
        seconds: how far each look at the stop watch moves it, seconds.
    """

    now: int = START
    pace: int = 700
    seconds: float = 0.1
    watch: float = field(default=0.0, init=False)

    def time_ns(self) -> int:
        self.now += self.pace
        return self.now * 1_000_000

    def perf_counter(self) -> float:
        self.watch += self.seconds
        return self.watch


def make_quick_network() -> Network:
    """Return a network with poai-mini where epoch and difficulty period are two blocks long."""
    network = get_network("minimal", "mini")
    config = replace(
        network.config,
        epoch_blocks=2,
        retarget_blocks=2,
        spacing=1_000,
        max_future=200,
        initial_target=2**256 // 32,
        genesis_seed=b"\5" * 32,  # with it the eight blocks' targets rise, fall and rise
    )
    return check_network(replace(network, name="quick", config=config))


def mine(store: Database, judge: Judge, clock: FakeClock, paces: Sequence[int]) -> ChainState:
    """Mine a block for each pace and store it; return the chain."""
    chain = ChainState(store, judge.config, clock.now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miner, "time", clock)
        for pace in paces:
            clock.pace = pace
            *_, last = miner.mine_block(chain.headers, chain.state, judge, MINER)
            chain.append(last[-1].block, clock.now)
    return chain


Row = tuple[Hash32, bytes] | None


class AlteredStore(Database):
    """A store that gives other rows than are in the database: a fault for each of a thousand runs, without the disk.

    Attributes:
        rows: by height: hash and data, or None for a row that is not there.
        meta: values by key.
    """

    rows: dict[int, Row]
    meta: dict[str, bytes]

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        self.rows, self.meta = {}, {}

    def read_chain(self) -> Iterator[ChainRow]:
        for row in super().read_chain():
            altered = self.rows.get(row.height, (row.block_hash, row.header + (row.body or b"")))
            if altered is not None:
                block_hash, data = altered
                yield ChainRow(row.height, block_hash, data[:HEADER_BYTES], data[HEADER_BYTES:])

    def read_meta(self, key: str) -> bytes:
        return self.meta[key] if key in self.meta else super().read_meta(key)


def change(data: bytes, position: int, mask: int) -> bytes:
    """Return the data with some bits of one byte turned over."""
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def read_data(store: Database) -> list[bytes]:
    """Return the encodings of the chain's blocks."""
    return [row.header + (row.body or b"") for row in store.read_chain()]


def ignore(_: Height) -> None:
    """Take a report of progress."""


def run_sql(data_dir: Path, statement: str, *values: object) -> None:
    """Run a statement on a data directory that nobody uses."""
    with closing(sqlite3.connect(data_dir / FILE_NAME)) as connection, connection:
        assert connection.execute(statement, values).rowcount != 0, statement
