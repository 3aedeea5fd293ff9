"""What lies on a node's own machine and may be damaged, or come from elsewhere: its folder, caches, vectors, flags."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from poai_engine.errors import ModelError
from poai_engine.models import weight_cache
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE, open_packed_model
from poai_tools.vectors import check
from poai_tools.vectors.check import SpecAnswerer, find_case_files, find_reason_to_skip, read_file
from poaid.api.asking import read_running
from poaid.chain.chain_state import ChainState
from poaid.chain.verify import verify_store
from poaid.cli.run import parse_hash
from poaid.keys import IDENTITY_FILE, format_address, load_identity, parse_address
from poaid.net.addresses import get_prefix, is_public
from poaid.network_file import parse_target
from poaid.ports import RUNNING_FILE
from poaid.store.database import FILE_NAME, Database, StoredPeer
from tests.fuzz.test_lines import MAX_CASE, QUICK_SUITES, VECTORS
from tests.harness.driving import ACCEPTED, drive, judge
from tests.harness.importing import grow_line, make_easy_judge, make_easy_network, make_root
from tests.harness.mutation import NUMBERS, break_json, break_one, broken, make_text
from tests.harness.node import ignore

# The database

COLUMNS = (
    ("meta", "value"), ("headers", "hash"), ("headers", "height"), ("headers", "data"), ("headers", "assumed"),
    ("bodies", "hash"), ("bodies", "height"), ("bodies", "data"), ("bodies", "changes"), ("chain", "height"),
    ("chain", "hash"), ("accounts", "address"), ("accounts", "data"), ("peers", "id"), ("peers", "address"),
    ("peers", "seen"), ("peers", "banned_until"),
)  # fmt: skip

pytestmark = pytest.mark.sockets


@dataclass(frozen=True)
class Change:
    """A row of the database in which one value is edited, as `seed` draws it."""

    table: str
    column: str
    row: int
    seed: int


def make_changes(rng: Random) -> list[Change]:
    return [Change(*rng.choice(COLUMNS), rng.randrange(12), rng.getrandbits(32)) for _ in range(rng.randint(0, 2))]


def edit(value: Any, rng: Random) -> Any:
    if isinstance(value, bytes):
        return broken(rng, value, 2)
    if isinstance(value, int):
        return rng.choice(NUMBERS) & 2**63 - 1
    return make_text(rng).encode("utf-8", "replace").decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a node with five blocks and a peer."""
    network, line = make_easy_network(), grow_line(make_root(), 5)
    now = network.config.genesis_timestamp + 10**9
    with Database.create_or_open(tmp_path / "node", network, "mini") as store:
        chain = ChainState(store, network.config, now)
        for made in line:
            chain.append(made.block, now)
        store.write_peers([StoredPeer("12D3KooWPeer", "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWPeer", 1, 0)])
    return tmp_path / "node"


def read_folder(folder: Path) -> None:
    """Do what `poaid run` and `poaid verify` do with a folder."""
    with Database.open(folder) as store:
        network, now = store.read_network(), make_easy_network().config.genesis_timestamp + 10**9
        ChainState(store, network.config, now)
        store.read_peers()
        verify_store(store, make_easy_judge(), now, ignore)


def test_database_rows(folder: Path) -> None:
    file = folder / FILE_NAME
    whole = file.read_bytes()

    def run(changes: list[Change]) -> str:
        file.write_bytes(whole)
        with Database.open(folder) as store:
            for change in changes:
                rowid = f"WHERE rowid = (SELECT rowid FROM {change.table} LIMIT 1 OFFSET {change.row})"  # noqa: S608
                for (old,) in store.query(f"SELECT {change.column} FROM {change.table} {rowid}"):  # noqa: S608
                    new = edit(old, Random(change.seed))
                    sql = f"UPDATE OR IGNORE {change.table} SET {change.column} = ? {rowid}"  # noqa: S608
                    store.query(sql, (new,))
            store._connection.commit()
        return judge(lambda: read_folder(folder))

    drive("database rows", make_changes, 40, run, long=50)


def test_database_files(folder: Path) -> None:
    file = folder / FILE_NAME

    def run(data: bytes) -> str:
        file.write_bytes(data)
        return judge(lambda: read_folder(folder))

    drive("database file", break_one([file.read_bytes()], 2), 40, run, long=50)


# The folder's other files


def test_running_files(tmp_path: Path) -> None:
    """One that is damaged is as good as none; what is read has a URL, and can be asked whether it is alive."""

    def run(data: bytes) -> str:
        (tmp_path / RUNNING_FILE).write_bytes(data)
        running = read_running(tmp_path)
        if running is None:
            return "none"
        assert running.url.startswith("http://")
        running.is_alive()
        return ACCEPTED

    drive(RUNNING_FILE, break_json([{"pid": 2**22, "host": "127.0.0.1", "http_port": 8001}]), 150, run)


def test_identities(tmp_path: Path) -> None:
    file = tmp_path / IDENTITY_FILE
    file.touch(0o600)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        assert len(load_identity(tmp_path)) == 32

    drive("peer identity", break_one([b"0a" * 32 + b"\n"]), 100, lambda data: judge(lambda: read(data)))
    file.unlink()
    (tmp_path / f"{IDENTITY_FILE}.part").touch()  # a start was killed while it made one
    read_again = load_identity(tmp_path)
    assert read_again == load_identity(tmp_path)


# Kept weights


def test_kept_weights(tmp_path: Path, mini_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged archive is made anew, which is left out here: it would take most of the time."""
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path))
    model = open_packed_model(mini_path)
    (file,) = tmp_path.glob("*.npz")
    whole = file.read_bytes()

    def make_anew(_: Path) -> None:
        raise ModelError("made anew")

    monkeypatch.setattr(weight_cache, "read_architecture", make_anew)

    def read(data: bytes) -> None:
        file.unlink()  # the one before may still be mapped
        file.write_bytes(data)
        assert open_packed_model(mini_path).root == model.root

    edges = make_edges(whole)
    drive("kept weights", edges, 30, lambda data: judge(lambda: read(data)), long=50)


def make_edges(whole: bytes) -> Callable[[Random], bytes]:
    """Return what edits the beginning or the end of an archive, where its headers and directory stand, or leaves it."""

    def make(rng: Random) -> bytes:
        if rng.randrange(8) == 0:
            return whole
        length = rng.choice((64, 256, 4_096))
        if rng.randrange(2):
            return whole[:-length] + broken(rng, whole[-length:])
        return broken(rng, whole[:length]) + whole[length:]

    return make


# Vectors


def test_vector_files(tmp_path: Path) -> None:
    """As `poai vectors check` reads and runs them."""
    files = [file for suite in QUICK_SUITES for file in find_case_files(VECTORS / suite)]
    documents = [json.loads(file.read_bytes()) for file in files]
    for document in documents:
        document["cases"] = [case for case in document["cases"] if len(json.dumps(case)) < MAX_CASE][:3]
    path, ours = tmp_path / "cases.json", SpecAnswerer()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for case in read_file(path):
            if find_reason_to_skip(case, slow=True, find_missing=lambda _: None) is None:
                check.judge(case, ours.ask(case.suite, case.function, case.id, case.input))

    drive("vector file", break_json(documents), 150, lambda data: judge(lambda: read(data)))


# Flags


def test_flags() -> None:
    """The values of flags that are read by this program and not by its command-line library."""
    address = format_address(bytes(range(20)))
    texts = [address, address.lower(), "00" * 32, "0x" + "11" * 32, "500", "0x" + "f" * 64, "/ip4/192.0.2.1/tcp/1"]
    edited = break_one([text.encode() for text in texts], 2)

    def make(rng: Random) -> str:
        return edited(rng).decode("utf-8", "replace")[:300]

    def run(text: str) -> list[str]:
        assert isinstance(get_prefix(text), str)
        is_public(text)
        return [judge(partial(parse, text)) for parse in (parse_address, parse_hash, parse_target)]

    drive("values of flags", make, 200, run)
