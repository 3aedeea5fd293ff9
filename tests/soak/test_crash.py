"""Processes that are killed at random instants, and what a disk can do to their files.

A block counts as acknowledged once its line is in the log. After each kill the database opens as it is, every
acknowledged block lies on its chain, and SQLite finds it whole; now and then every block is replayed. The short form
kills five times each; `make soak` kills `5 * POAI_SOAK` times.
"""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.basics.containers import compute_block_hash
from poai_spec.chain.block import Judge, make_judge
from poai_spec.chain.upgrades import get_rules
from poaid.chain.chain_file import export_chain
from poaid.chain.chain_state import ChainState
from poaid.chain.verify import verify_store
from poaid.errors import NodeError
from poaid.models import load_engine
from poaid.network_file import Network, check_network, write_network
from poaid.produce.attempts import get_time
from poaid.store.database import FILE_NAME, Database
from tests.harness.driving import ACCEPTED, SOAK
from tests.harness.driving import judge as judge_line
from tests.harness.node import change, ignore
from tests.harness.processes import PATIENCE_S, fill, make_vector_network, read_chain
from tests.harness.soak import Poaid, make_run_arguments, read_blocks, started

KILLS = 5 * max(SOAK, 1)
KILLS_OF_A_FOLDER = 20
"""Then every block is replayed and a new folder begun: a chain of thousands takes longer to load than to kill."""
EARLY = 0.25
"""Share of the kills that come at any time from the first instant of the process on; the others: while it stores."""
LONGEST_START_S, LONGEST_WAIT_S = 1.5, 0.2
"""Until an early kill, and from the last thing that was waited for to another one."""
MOST_BLOCKS = 40
"""That a miner has logged before it is killed: a fifth of a second of its work."""
MOST_CHANGES = 10
"""Of the write-ahead log that are seen before an import is killed: one or two when it is opened, then batches."""
WAL = FILE_NAME + "-wal"
WAL_HEADER, FRAME = 32, 24 + 4_096
"""Bytes of SQLite's write-ahead log: its header, and a page behind a header of its own."""

pytestmark = [pytest.mark.sockets, pytest.mark.slow]


def make_fast_network() -> Network:
    """Return the vectors' network where every quiz wins for ever: some hundred blocks a second to be killed in."""
    network = make_vector_network()
    config = replace(
        network.config, retarget_blocks=2**40, max_future=7_200_000, initial_target=2**256 - 1, max_target=2**256 - 1
    )
    return check_network(replace(network, name="fast", config=config))


@pytest.fixture(scope="module", autouse=True)
def _only_mini(mini_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))
        yield


@pytest.fixture(scope="module")
def judge(mini_path: Path) -> Judge:
    network = make_fast_network()
    return make_judge(
        network.config, network.questions, load_engine(str(mini_path), get_rules(network.config, (), 0), 1)
    )


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "fast.toml"
    write_network(make_fast_network(), path)
    return path


def check_folder(folder: Path, acknowledged: dict[int, str]) -> int:
    """Check a folder that a killed process left; return its height, 0 if the kill came before the first commit."""
    if not acknowledged and judge_line(lambda: Database.open(folder).close()) != ACCEPTED:
        with pytest.raises(NodeError, match="holds no chain"):
            Database.open(folder)
        return 0
    with Database.open(folder) as store:
        assert store.query("PRAGMA integrity_check") == [("ok",)]
        chain = ChainState(store, store.read_network().config, get_time())
        stored = {height: chain.tree.get_main(height).hash.hex() for height in range(1, chain.head.height + 1)}
        lost = {
            height for height, block_hash in acknowledged.items() if not stored.get(height, "").startswith(block_hash)
        }
        assert not lost, f"acknowledged and lost: {sorted(lost)} of {len(stored)}"
    return len(stored)


def verify(folder: Path, judge: Judge) -> None:
    with Database.open(folder) as store:
        verify_store(store, judge, get_time(), ignore)


# Kills


@pytest.fixture(scope="module")
def rng() -> random.Random:
    """Instants: the same list in every run, though not at the same work, which is what a long run is for."""
    return random.Random(SOAK)


def wait_for_an_instant(poaid: Poaid, rng: random.Random, wait_for_work: Callable[[], None]) -> None:
    """Return at a random instant of a process's life."""
    early = rng.random() < EARLY
    if not early:
        wait_for_work()
    poaid.wait(rng.uniform(0.0, LONGEST_START_S if early else LONGEST_WAIT_S))


def test_a_killed_miner_loses_nothing(tmp_path: Path, network_file: Path, judge: Judge, rng: random.Random) -> None:
    """SIGKILL from the first millisecond on; the next start goes on from the same folder."""
    left, blocks = KILLS, 0
    while left:
        folder, log = tmp_path / f"killed-{left}", tmp_path / f"killed-{left}.log"
        for _ in range(min(left, KILLS_OF_A_FOLDER)):
            left -= 1
            with started(log, *make_run_arguments(folder, network_file)) as poaid:
                wait_for_an_instant(poaid, rng, partial(poaid.wait_for_blocks, rng.randrange(1, MOST_BLOCKS)))
                assert poaid.process.exitcode is None, poaid.text
            check_folder(folder, read_blocks(log.read_text("utf-8")))
        with started(log, *make_run_arguments(folder, network_file)) as poaid:
            poaid.wait_for_blocks(3)
        blocks += check_folder(folder, read_blocks(log.read_text("utf-8")))
        verify(folder, judge)
        assert "Traceback" not in log.read_text("utf-8")
        shutil.rmtree(folder)
    print(f"{KILLS} kills of a miner, {blocks} blocks, none lost")


def test_a_killed_import_goes_on(tmp_path: Path, judge: Judge, mini_path: Path, rng: random.Random) -> None:
    """What is stored is a beginning of the file, never shorter than before; the last run brings the rest."""
    network, blocks = make_vector_network(), read_chain()
    ours = make_judge(network.config, network.questions, judge.models[0].engine)
    with Database.create_or_open(tmp_path / "whole", network, "mini") as store:
        fill(store, ours, blocks)
        export_chain(store, tmp_path / "chain")
    hashes = {height: compute_block_hash(block.header).hex() for height, block in enumerate(blocks, 1)}
    left = KILLS
    while left:
        folder, log, height = tmp_path / f"import-{left}", tmp_path / f"import-{left}.log", 0
        arguments = ("import", "--data-dir", folder, "--threads", 1, tmp_path / "chain")
        while left and height < len(blocks):
            with started(log, *arguments) as poaid:
                wait_for_an_instant(
                    poaid, rng, partial(poaid.wait_for_changes, folder / WAL, rng.randrange(1, MOST_CHANGES))
                )
                assert poaid.process.exitcode in (None, 0), poaid.text
                left -= poaid.process.exitcode is None
            height = check_folder(folder, {n: hashes[n] for n in range(1, height + 1)})
        with started(log, *arguments) as poaid:
            assert poaid.wait(PATIENCE_S), poaid.text
            assert poaid.process.exitcode == 0, poaid.text
            assert poaid.text.endswith("the chain ends at height 200\n")
        assert check_folder(folder, hashes) == len(blocks)
        verify(folder, ours)
        shutil.rmtree(folder)
    print(f"{KILLS} kills of an import, nothing lost")


# Damaged logs


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, network_file: Path) -> Path:
    """The folder of a miner that was killed after some thirty blocks; the last of them are in the log alone."""
    folder = tmp_path_factory.mktemp("killed")
    with started(folder.with_suffix(".log"), *make_run_arguments(folder, network_file)) as poaid:
        poaid.wait_for_blocks(30)
    assert (folder / WAL).stat().st_size > WAL_HEADER + 30 * FRAME
    return folder


def list_damages(wal: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield a write-ahead log cut or changed at its seams and at random."""
    seams = [0, WAL_HEADER, *(WAL_HEADER + number * FRAME for number in range(1, (len(wal) - WAL_HEADER) // FRAME))]
    places = [seam + step for seam in rng.sample(seams, 20) for step in (-1, 0, 1, 23, 24)]
    places += [rng.randrange(len(wal)) for _ in range(20 * max(SOAK, 1))]
    for place in (min(max(place, 0), len(wal) - 1) for place in places):
        yield wal[:place]
        yield change(wal, place, 1 << rng.randrange(8))
        yield wal[:place] + bytes(len(wal) - place)  # space that was given to the file and never written
        yield wal[:place] + rng.randbytes(min(FRAME, len(wal) - place)) + wal[place + FRAME :]


def test_a_damaged_log_costs_the_blocks_behind_the_damage(killed: Path, tmp_path: Path, judge: Judge) -> None:
    """It opens with the blocks up to some height, or says in one line that there is no chain, if that was all."""
    rng, copy, found = random.Random(7), tmp_path / "copy", Counter[str]()
    whole = (killed / WAL).read_bytes()
    shutil.copytree(killed, copy)
    with Database.open(copy) as store:
        hashes = [row.block_hash for row in store.read_chain()]
    main = (killed / FILE_NAME).read_bytes()
    for number, wal in enumerate(list_damages(whole, rng)):
        (copy / FILE_NAME).write_bytes(main)
        (copy / WAL).write_bytes(wal)

        def read(number: int = number) -> None:
            with Database.open(copy) as store:
                config = store.read_network().config
                assert ChainState(store, config, get_time()).head.height == store.read_height()
                assert [row.block_hash for row in store.read_chain()] == hashes[: store.read_height()]
                found["blocks"] += store.read_height()
                if number % 40 == 0:
                    verify_store(store, judge, get_time(), ignore)

        found[judge_line(read)] += 1
    assert set(found) <= {"accepted", "NodeError", "blocks"}
    assert found["accepted"] > 100
    assert found["blocks"] < found["accepted"] * len(hashes), "no damage cost anything"


# Disks


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user who may not write what others own: root may write anything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_said_in_one_line(killed: Path) -> None:
    with TemporaryDirectory(prefix="poai-") as name:  # pytest's own folders are closed to other users
        folder = Path(name) / "data"
        shutil.copytree(killed, folder)
        Database.open(folder).close()
        files = [folder, *folder.iterdir()]
        Path(name).chmod(0o755)
        for path in files:
            path.chmod(0o555 if path.is_dir() else 0o444)
        network = make_fast_network()
        with as_nobody():
            for attempt in (partial(Database.open, folder), partial(Database.create_or_open, folder, network, "mini")):
                with pytest.raises(NodeError, match="check the disk's space and the permissions") as caught:
                    attempt()
                assert "\n" not in str(caught.value)
            with pytest.raises(NodeError, match="give a --data-dir that can be written"):
                Database.create_or_open(folder / "new", network, "mini")
        for path in files:
            path.chmod(0o755)


def test_a_full_disk_stops_the_node_with_one_line(tmp_path: Path, network_file: Path, judge: Judge) -> None:
    """No file may grow beyond a limit, which the log of the database reaches first; with room it goes on."""
    folder, log = tmp_path / "full", tmp_path / "full.log"
    with started(log, *make_run_arguments(folder, network_file)) as poaid:
        poaid.wait_for_blocks(3)
    with started(log, *make_run_arguments(folder, network_file), largest_file=1 << 20) as poaid:
        assert poaid.wait(PATIENCE_S), "it goes on without a place to store blocks: " + poaid.text[-2_000:]
        assert poaid.process.exitcode == 1
        last = poaid.text.splitlines()[-1]
        assert json.loads(last)["level"] == "critical"
        assert "check the disk's space and the permissions" in last
        assert "Traceback" not in poaid.text
    height = check_folder(folder, read_blocks(log.read_text("utf-8")))
    with started(log, *make_run_arguments(folder, network_file)) as poaid:
        poaid.wait_for_blocks(3)
    assert check_folder(folder, read_blocks(log.read_text("utf-8"))) >= height + 3
    verify(folder, judge)
