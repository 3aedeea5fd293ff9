"""The data directory: one network, one process, damage said in one line, and a process killed at any instant."""

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import rlp

from poai_spec.basics.containers import compute_block_hash
from poai_spec.basics.notation import Height, SpecError
from poai_spec.chain.block import Judge, make_genesis, make_judge
from poai_spec.chain.upgrades import Upgrade, get_rules, make_change
from poai_spec.execution.state import Account, encode_account
from poai_spec.proof.work import check_engine
from poaid.chain.chain_state import ChainState
from poaid.chain.verify import BlockError, verify_store
from poaid.errors import NodeError
from poaid.layout import decode_header
from poaid.models import get_pinned_model
from poaid.network_file import Network, Planned, check_network
from poaid.store import database as store_module
from poaid.store.database import FILE_NAME, Database, StoredBlock, StoredPeer, find_first_difference
from tests.harness.importing import MINERS, Made, grow, grow_line, make_easy_network, make_root
from tests.harness.node import BLOCKS, MINER, PACES, FakeClock, change, ignore, mine, read_data, run_sql
from tests.unit.poaid.conftest import MinedChain

COMMAND = str(Path(sys.executable).with_name("poaid"))

pytestmark = pytest.mark.sockets


def refuse(data_dir: Path, network: Network) -> list[str]:
    """Return what opening the folder for mining and for reading says; both fail with one line."""
    messages = []
    attempts = (partial(Database.create_or_open, data_dir, network, "mini"), partial(Database.open, data_dir))
    for attempt in attempts:
        with pytest.raises(NodeError) as caught:
            attempt()
        messages.append(str(caught.value))
        assert "\n" not in messages[-1]
    return messages


def test_a_new_folder_holds_the_network(network: Network, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with Database.create_or_open(folder, network, "a model") as store:
        assert store.read_network() == network
    with Database.open(folder) as store:
        assert store.read_network() == network
        assert store.read_text("model") == "a model"
        assert (store.read_height(), list(store.read_chain()), store.read_state()) == (0, [], {})
        assert list(ChainState(store, network.config, 0).headers) == [make_genesis(network.config).header]
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_reopened_it_goes_on(mined: MinedChain, network: Network, judge: Judge, tmp_path: Path) -> None:
    clock = FakeClock()
    for part in (PACES[:1], PACES[1:5], PACES[5:]):
        with Database.create_or_open(tmp_path, network, "mini") as store:
            mine(store, judge, clock, part)
    with Database.open(tmp_path) as store:
        verify_store(store, judge, clock.now, ignore)
        assert read_data(store) == mined.data  # as mined in one go
        assert store.read_state() == mined.state == {MINER: Account(balance=BLOCKS * 5 * 10**18)}


def test_a_block_that_breaks_a_rule_is_not_stored(mined: MinedChain, copy_of: Callable[[], Path]) -> None:
    folder = copy_of()
    with Database.open(folder) as store:
        chain = ChainState(store, mined.network.config, mined.now)
        last = mined.blocks[-1]
        with pytest.raises(SpecError, match="work/trace-digest"):
            chain.append(replace(last, trace=last.trace[::-1]), mined.now)
        other = replace(last, header=replace(last.header, core=replace(last.header.core, version=2)))
        with pytest.raises(SpecError, match="header/version"):
            chain.append(other, mined.now)
        assert (len(chain.headers), store.read_height()) == (BLOCKS + 1, BLOCKS)
        verify_store(store, mined.judge, mined.now, ignore)


def test_another_network_is_refused(mined: MinedChain) -> None:
    other = replace(mined.network, config=replace(mined.network.config, genesis_timestamp=1))
    with pytest.raises(
        NodeError, match=r"network [0-9a-f]{8}, the flags name [0-9a-f]{8} \(genesis_timestamp \d+ there, 1 here\)"
    ):
        Database.create_or_open(mined.folder, other, "mini")
    Database.create_or_open(mined.folder, mined.network, "mini").close()  # nothing was locked or lost


def test_no_chain(network: Network, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"holds no chain .*make one with `poaid mine"):
        Database.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    assert "give a --data-dir that can be written" in refuse(file, network)[0]
    assert "give a --data-dir that can be written" in refuse(file / "below", network)[0]
    assert "File name too long" in refuse(tmp_path / ("x" * 300), network)[0]
    (tmp_path / FILE_NAME).mkdir()
    assert "unable to open database file; check the disk's space and the permissions" in refuse(tmp_path, network)[0]
    assert file.read_bytes() == b"kept"


def test_a_full_disk_keeps_what_is_stored(
    mined: MinedChain, copy_of: Callable[[], Path], network: Network, judge: Judge
) -> None:
    folder = copy_of()
    with Database.open(folder) as store:
        pages = store.query("PRAGMA page_count")[0][0]
        store.query(f"PRAGMA max_page_count = {pages}")  # what SQLite says then is what it says of a full disk
        with pytest.raises(NodeError, match=r"database or disk is full; check the disk's space"):
            mine(store, judge, FakeClock(mined.now), [900] * 50)
        height = store.read_height()
    assert height >= BLOCKS
    with Database.open(folder) as store:
        verify_store(store, judge, mined.now + 10**6, ignore)
        assert store.read_height() == height


@pytest.mark.parametrize("version", [b"1", b"4", b"", b"\xff"])
def test_another_schema_is_refused(copy_of: Callable[[], Path], network: Network, version: bytes) -> None:
    folder = copy_of()
    run_sql(folder, "UPDATE meta SET value = ? WHERE key = 'schema_version'", version)
    assert all("this program writes 3: use its version" in message for message in refuse(folder, network))


def test_a_foreign_database_is_refused_and_kept(network: Network, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("CREATE TABLE music (title TEXT)")
    assert all("no such table: meta; the file is damaged" in message for message in refuse(tmp_path, network))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("music",)]


def test_mining_on_false_accounts_or_blocks_is_refused(mined: MinedChain, copy_of: Callable[[], Path]) -> None:
    damages: list[tuple[str, list[bytes], str]] = [
        ("DELETE FROM accounts", [], "the accounts in .* are not the last block's: run `poaid verify`"),
        ("UPDATE accounts SET data = ?", [encode_account(Account(balance=1))], "are not the last block's"),
        ("DELETE FROM headers WHERE height = 3", [], "run `poaid verify`"),
        ("DELETE FROM headers WHERE height = 8", [], "does not end at its heaviest block: run `poaid verify`"),
        ("DELETE FROM chain WHERE height = 8", [], "does not end at its heaviest block: run `poaid verify`"),
        ("UPDATE headers SET data = ? WHERE height = 2", [mined.data[4][:216]], "run `poaid verify`"),
        ("UPDATE headers SET data = ? WHERE height = 2", [change(mined.data[1][:216], 215, 1)], "run `poaid verify`"),
        ("UPDATE headers SET data = ? WHERE height = 2", [b"short"], "run `poaid verify`"),
    ]
    for statement, values, message in damages:
        folder = copy_of()
        run_sql(folder, statement, *values)
        with Database.open(folder) as store, pytest.raises(NodeError, match=message) as caught:
            ChainState(store, mined.network.config, mined.now)
        assert "\n" not in str(caught.value)


# Branches, undo records, peers

FIRST = grow(make_root())
LINE = [FIRST, *grow_line(FIRST, 2, miner=MINERS[2])]
RIVAL = grow_line(FIRST, 2, miner=MINERS[1])
SIDE = grow(LINE[1])


def make_stored(made: Made, parent: Made, *, assumed: bool = False) -> StoredBlock:
    """Return a block as the chain stores it."""
    rows = {**parent.state, **made.state}
    changes = [(a, parent.state.get(a), made.state.get(a)) for a in rows if parent.state.get(a) != made.state.get(a)]
    return StoredBlock(made.hash, made.block.header.core.height, made.data, tuple(changes), assumed)


def fill(folder: Path) -> None:
    """Store three blocks in a row, the second assumed valid, and one beside the third; and two peers."""
    with Database.create_or_open(folder, make_easy_network(), "mini") as store:
        root = make_root()
        for height, (parent, made) in enumerate(pairwise([root, *LINE])):
            store.commit([make_stored(made, parent, assumed=height == 1)], height, [made.hash], made.state)
        store.commit([make_stored(SIDE, LINE[1])], 3, (), {})
        store.write_peers([StoredPeer("Q1", "/one", 5, 0), StoredPeer("Q2", "/two", 9, 7)])


def reorganise(store: Database) -> None:
    """Make the rival branch the chain: the accounts go back to the first block's and up again."""
    before, after = LINE[2].state, RIVAL[1].state
    accounts = {a: after.get(a) for a in {**before, **after} if before.get(a) != after.get(a)}
    blocks = [make_stored(RIVAL[0], LINE[0]), make_stored(RIVAL[1], RIVAL[0])]
    store.commit(blocks, 1, [made.hash for made in RIVAL], accounts)


def test_branches_and_their_undo_records(tmp_path: Path) -> None:
    fill(tmp_path)
    with Database.open(tmp_path) as store:
        assert [row.block_hash for row in store.read_chain()] == [made.hash for made in LINE]
        assert (store.read_head(), store.read_height(), store.read_state()) == (LINE[2].hash, 3, LINE[2].state)
        reorganise(store)
    with Database.open(tmp_path) as store:
        made = [LINE[0], *RIVAL]
        assert [row.block_hash for row in store.read_chain()] == [block.hash for block in made]
        assert read_data(store) == [block.data for block in made]
        assert (store.read_head(), store.read_height(), store.read_state()) == (RIVAL[1].hash, 3, RIVAL[1].state)
        headers = {row.block_hash: row for row in store.read_headers()}
        assert {h: (row.data, row.assumed) for h, row in headers.items()} == {
            block.hash: (block.data[:216], block is LINE[1]) for block in (*LINE, SIDE, *RIVAL)
        }
        for parent, block in ((LINE[0], LINE[1]), (LINE[1], LINE[2]), (LINE[1], SIDE), (RIVAL[0], RIVAL[1])):
            assert store.read_block(block.hash) == block.data
            assert store.read_changes(block.hash) == make_stored(block, parent).changes
        unknown = b"\7" * 32
        assert (store.read_block(unknown), store.read_changes(unknown), store.has_body(unknown)) == (None, None, False)


def test_headers_come_behind_their_parents(tmp_path: Path) -> None:
    fill(tmp_path)
    with Database.open(tmp_path) as store:
        reorganise(store)
        known = {make_root().hash}
        for row in store.read_headers():
            assert decode_header(row.data).core.parent_hash in known
            known.add(row.block_hash)


def test_pruning_takes_bodies_of_all_branches_and_no_header(tmp_path: Path) -> None:
    fill(tmp_path)
    with Database.open(tmp_path) as store:
        count = len(list(store.read_headers()))
        assert (store.prune(0), store.prune(1), store.read_bodies_from()) == (0, 0, 1)
        assert (store.prune(3), store.read_bodies_from()) == (2, 3)
        assert (store.prune(3), store.prune(2), store.read_bodies_from()) == (0, 0, 3)
        assert [row.body is None for row in store.read_chain()] == [True, True, False]
        assert store.read_changes(LINE[1].hash) is None
        reorganise(store)  # new bodies below the horizon
        assert store.read_bodies_from() == 2
        assert (store.prune(4), store.read_bodies_from()) == (4, 4)
        assert len(list(store.read_headers())) == count + 2
    with Database.open(tmp_path) as store:
        assert store.read_bodies_from() == 4


def test_the_address_book_is_replaced_as_a_whole(tmp_path: Path) -> None:
    fill(tmp_path)
    with Database.open(tmp_path) as store:
        assert store.read_peers() == [StoredPeer("Q2", "/two", 9, 7), StoredPeer("Q1", "/one", 5, 0)]
        store.write_peers([StoredPeer("Q3", "", 0, 8)])
        assert store.read_peers() == [StoredPeer("Q3", "", 0, 8)]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x80",
        rlp.encode([[bytes(20), b""]]),
        rlp.encode([[bytes(19), b"", b""]]),
        rlp.encode([[[], b"", b""]]),
        rlp.encode([[bytes(20), [], b""]]),
        rlp.encode([[bytes(20), b"", b"\1"]]),
        rlp.encode([[bytes(20), b"", b""]]) + b"\0",
    ],
)
def test_a_damaged_undo_record_is_said_in_one_line(tmp_path: Path, record: bytes) -> None:
    fill(tmp_path)
    run_sql(tmp_path, "UPDATE bodies SET changes = ? WHERE height = 2", record)
    with (
        Database.open(tmp_path) as store,
        pytest.raises(NodeError, match=r"does not decode; .*restore a copy") as caught,
    ):
        store.read_changes(LINE[1].hash)
    assert "\n" not in str(caught.value)


def test_after_a_failure_nothing_is_written(tmp_path: Path) -> None:
    """A statement that fails in the middle leaves the rest undone, and so do later calls: they could build on it."""
    fill(tmp_path)
    with Database.open(tmp_path) as store:
        before = dump(store)
        store.query("CREATE TEMP TRIGGER fault BEFORE INSERT ON accounts BEGIN SELECT RAISE(ABORT, 'fault'); END")
        with pytest.raises(NodeError, match="fault"):
            reorganise(store)
        store.query("DROP TRIGGER fault")
        writes: list[Callable[[], object]] = [
            partial(reorganise, store), partial(store.prune, 3), partial(store.write_peers, [])
        ]  # fmt: skip
        for write in writes:
            with pytest.raises(NodeError, match="fault"):
                write()
        assert dump(store) == before
    with Database.open(tmp_path) as store:
        reorganise(store)
        assert dump(store) != before


# Damaged files


@pytest.mark.parametrize("size", [100, 5_000, 200_000])
def test_random_bytes(network: Network, tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / FILE_NAME).write_bytes(data)
    for message in refuse(tmp_path, network):
        assert "file is not a database; the file is damaged: restore a copy or start a new --data-dir" in message
    assert (tmp_path / FILE_NAME).read_bytes() == data


def verify_folder(folder: Path, mined: MinedChain) -> bool:
    """Do what `poaid verify` does but for loading the model; return whether all blocks are still there."""
    with Database.open(folder) as store:
        network = store.read_network()
        store.read_text("model")
        check_engine(mined.judge.models[0].engine, get_rules(network.config, (), 0))
        verify_store(
            store, make_judge(network.config, network.questions, mined.judge.models[0].engine), mined.now, ignore
        )
        return store.read_height() == BLOCKS


def test_a_truncated_file(mined: MinedChain, copy_of: Callable[[], Path]) -> None:
    folder = copy_of()
    whole = (folder / FILE_NAME).read_bytes()
    for size in [*range(1, 4_096, 512), *range(4_096, len(whole), 4_096), len(whole) - 1]:
        (folder / FILE_NAME).write_bytes(whole[:size])
        with pytest.raises(NodeError) as caught:
            verify_folder(folder, mined)
        assert "\n" not in str(caught.value), size
        assert not isinstance(caught.value, BlockError)
    (folder / FILE_NAME).write_bytes(b"")  # what a process killed in its first millisecond leaves
    with pytest.raises(NodeError, match="holds no chain"):
        verify_folder(folder, mined)


def test_damaged_bytes_anywhere_in_the_file(mined: MinedChain, copy_of: Callable[[], Path]) -> None:
    """Each run either finds everything intact (the byte is used by nothing) or ends with one line."""
    folder, rng, found = copy_of(), random.Random(6), Counter[str]()
    whole = (folder / FILE_NAME).read_bytes()
    heads = [page + offset for page in range(0, len(whole), 4_096) for offset in range(0, 100, 9)]
    anywhere = [rng.randrange(len(whole)) for _ in range(300)]
    told = [3_648, 3_811, 3_852, 12_297, 12_298, 13_612, 20_488]  # a type or a name that SQLite takes as it is
    for position in [*heads, *anywhere, *told]:
        (folder / FILE_NAME).write_bytes(change(whole, position, rng.choice([1, 16, 128, 255])))
        try:
            assert verify_folder(folder, mined)
            found["intact"] += 1
        except (NodeError, SpecError) as error:
            assert "\n" not in str(error)  # noqa: PT017  either is right
            found[type(error).__name__] += 1
    assert found["intact"] >= 50
    assert found["NodeError"] >= 50
    assert found["BlockError"] >= 5


# Processes


def test_a_failed_run_lets_go_of_the_folder(mined: MinedChain, copy_of: Callable[[], Path]) -> None:
    folder = copy_of()
    run_sql(folder, "UPDATE headers SET data = ? WHERE height = 2", mined.data[4][:216])
    for _ in range(2):
        with pytest.raises(BlockError, match="block 2") as caught:
            verify_folder(folder, mined)
        assert caught.tb  # still alive, with every frame and what they hold
        assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_one_process_a_folder(mined: MinedChain, copy_of: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of()
    with Database.open(folder):
        for command in (["mine", "--network", "minimal", "--model", "mini", "--blocks", "1"], ["verify"]):
            done = subprocess.run(
                [COMMAND, *command, "--data-dir", str(folder)], capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 1
            assert done.stderr == f"error: {folder / FILE_NAME}: database is locked; another poaid uses it\n"
            assert done.stdout == ""
        monkeypatch.setattr(store_module, "LOCK_TIMEOUT_S", 0.0)
        with pytest.raises(NodeError, match="another poaid uses it"):
            Database.open(folder)
    Database.open(folder).close()


def _make_and_die(folder: Path, network: Network, statements: int) -> None:
    """Start a data directory and get killed after a number of SQL statements."""
    left = statements

    def count(_: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    connect = store_module._connect

    def connect_traced(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_trace_callback(count)
        return connection

    store_module._connect = connect_traced
    Database.create_or_open(folder, network, "mini").close()
    os._exit(0)


def test_killed_at_every_statement_of_the_first_start(network: Network, judge: Judge, tmp_path: Path) -> None:
    fork, endings = multiprocessing.get_context("fork"), Counter[int]()
    for statements in range(40):
        folder = tmp_path / str(statements)
        process = fork.Process(target=_make_and_die, args=(folder, network, statements))
        process.start()
        process.join(60)
        endings[process.exitcode or 0] += 1
        clock = FakeClock()
        with Database.create_or_open(folder, network, "mini") as store:
            assert store.read_network() == network
            mine(store, judge, clock, [200])
            verify_store(store, judge, clock.now, ignore)
        if process.exitcode == 0:
            break
    assert endings == {-signal.SIGKILL: sum(endings.values()) - 1, 0: 1}
    assert endings[-signal.SIGKILL] >= 10


def dump(store: Database) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table."""
    tables = ("meta", "headers", "bodies", "chain", "accounts", "peers")
    return {table: sorted(store.query(f"SELECT * FROM {table}")) for table in tables}  # noqa: S608  constants


def prune_to_three(store: Database) -> None:
    store.prune(3)


def write_one_peer(store: Database) -> None:
    store.write_peers([StoredPeer("Q3", "", 0, 8)])


def _write_and_die(folder: Path, write: Callable[[Database], None], statements: int) -> None:
    """Write to a data directory and get killed after a number of SQL statements."""
    left = statements

    def count(_: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    store = Database.open(folder)
    store._connection.set_trace_callback(count)
    write(store)
    os._exit(0)


@pytest.mark.parametrize(("write", "least"), [(reorganise, 10), (prune_to_three, 4), (write_one_peer, 4)])
def test_killed_at_every_statement_of_a_write(tmp_path: Path, write: Callable[[Database], None], least: int) -> None:
    """All of it is there, or nothing; and all of it once COMMIT has returned."""
    whole = tmp_path / "whole"
    fill(whole)
    with Database.open(whole) as store:
        before = dump(store)
        write(store)
        after = dump(store)
    assert before != after
    fork = multiprocessing.get_context("fork")
    for statements in range(40):
        folder = tmp_path / str(statements)
        fill(folder)
        process = fork.Process(target=_write_and_die, args=(folder, write, statements))
        process.start()
        process.join(60)
        with Database.open(folder) as store:
            assert dump(store) == (after if process.exitcode == 0 else before)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert statements >= least


@pytest.mark.parametrize("lines", [1, 2, *(pytest.param(lines, marks=pytest.mark.slow) for lines in (3, 6, 11))])
def test_a_killed_miner_leaves_a_chain_that_verifies(tmp_path: Path, lines: int) -> None:
    """Killed as soon as it has logged so many lines: in the middle of the quizzes, or of storing a block."""
    network = ["--network", "minimal", "--model", "mini", "--target", "1000"]
    command = [COMMAND, "mine", *network, "--blocks", "100000", "--data-dir", str(tmp_path)]
    logged, stored = 0, 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            logged += 1
            stored += "Block mined!" in line
            if logged == lines:
                process.kill()
                break
        stored += sum("Block mined!" in line for line in process.stderr)
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run([COMMAND, "verify", "--data-dir", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    height = int(done.stdout.split()[0])
    assert stored <= height <= stored + 1  # what was logged is there; at most the block that was not logged yet


@pytest.mark.parametrize("odd", ["model", "network", "questions"])
def test_a_name_that_is_not_utf8_is_one_line(mined: MinedChain, tmp_path: Path, odd: str) -> None:
    """Names of files may have any bytes; Python stands surrogates for those that are no text."""
    name = os.fsdecode(b"m\xff.gguf")
    networks = {
        "model": mined.network,
        "network": replace(mined.network, name=name),
        "questions": replace(mined.network, questions_name=name),
    }
    with pytest.raises(NodeError, match=r"^'m\\udcff.gguf' is a name that is not UTF-8: rename the file or folder"):
        Database.create_or_open(tmp_path / "new", networks[odd], name if odd == "model" else "mini")
    Database.create_or_open(tmp_path / "new", mined.network, "mini").close()


# Another list of upgrades


def plan(network: Network, *heights: Height) -> Network:
    """Return the network with upgrades of the salt's length, 5 and 6 by turns."""
    upgrades = [Upgrade(height, make_change(salt_tokens=5 - n % 2)) for n, height in enumerate(heights)]
    return check_network(replace(network, planned=tuple(Planned(upgrade) for upgrade in upgrades)))


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        ((), (7,), 7),
        ((7,), (), 7),
        ((7, 9), (7,), 9),
        ((7, 9), (7, 8), 8),
        ((5,), (6,), 5),
        ((5,), (5, 2**64 - 1), 2**64 - 1),
    ],
)
def test_the_first_difference_of_two_lists(
    network: Network, old: tuple[int, ...], new: tuple[int, ...], first: Height
) -> None:
    assert find_first_difference(plan(network, *old).upgrades, plan(network, *new).upgrades) == first


@pytest.mark.parametrize("first", [1, 4, BLOCKS, BLOCKS + 1, 2**64 - 1])
def test_another_list_goes_back_to_the_last_block_before_the_first_difference(
    mined: MinedChain, copy_of: Callable[[], Path], network: Network, first: Height
) -> None:
    folder, kept = copy_of(), min(first - 1, BLOCKS)
    changed = plan(network, first)
    with Database.create_or_open(folder, changed, "mini") as store:
        assert store.read_network().upgrades == changed.upgrades
        assert [row.block_hash for row in store.read_chain()] == [
            compute_block_hash(header) for header in mined.headers[1 : kept + 1]
        ]
        chain = ChainState(store, network.config, mined.now, changed.upgrades)
        assert chain.head.height == kept
        verify_store(store, mined.judge, mined.now, ignore)
    with Database.create_or_open(folder, network, "mini") as store:
        assert store.read_network().upgrades == ()
        assert store.read_height() == kept


def test_what_was_pruned_cannot_be_taken_back(copy_of: Callable[[], Path], network: Network) -> None:
    folder = copy_of()
    with Database.open(folder) as store:
        store.prune(4)
    with pytest.raises(NodeError, match=r"cannot go back to block 1, .* pruned"):
        Database.create_or_open(folder, plan(network, 2), "mini").close()
    with Database.create_or_open(folder, plan(network, 5), "mini") as store:
        assert store.read_height() == 4


def test_a_list_with_a_model_is_stored_with_its_questions(network: Network, tmp_path: Path) -> None:
    micro = get_pinned_model("micro")
    planned = Planned(Upgrade(7, make_change(model=micro.manifest)), micro.lexicon, "micro")
    changed = check_network(replace(network, planned=(planned,)))
    with Database.create_or_open(tmp_path, changed, "mini") as store:
        assert store.read_network().planned == changed.planned
