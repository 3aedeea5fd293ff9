"""The data directory: one SQLite database, one writer.

Everything that a node needs to go on, and that `poaid verify` needs to check it, lies in `chain.sqlite3`: the network's
config and lexicon or corpus, every block that was replayed, which of them are the chain, the accounts after its last
one, and how to take each block's changes back. Whatever changes together is one transaction, synced before it counts:
a process killed at any instant leaves the last acknowledged block and its state together.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Self

import rlp
import structlog

from poai_engine.models.lexicon_maker import format_lexicon
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Address, Hash32, Height, Milliseconds, SpecError
from poai_spec.basics.parameters import Config, compute_network_id
from poai_spec.chain.upgrades import Upgrade, UpgradeList
from poai_spec.execution.state import Account, State, encode_account
from poai_spec.proof.corpus import Corpus, Questions
from poai_spec.proof.lexicon import parse_lexicon
from poaid.errors import NodeError
from poaid.layout import split_block
from poaid.network_file import Network, Planned, check_network, describe_difference

log = structlog.get_logger()

FILE_NAME = "chain.sqlite3"
SCHEMA_VERSION = 3
LOCK_TIMEOUT_S = 1.0
"""How long to wait for another process to let go of the database before saying that it is in use."""
MAX_PRUNED = 1_024
"""Bodies that one call drops, a few tens of milliseconds; a node that calls twice a minute never falls behind."""
PRUNED_BELOW = "pruned_below"
"""The one value in `meta` that changes: no body at or above this height was ever dropped, eight bytes, big-endian."""

MAX_INTEGER = 2**63 - 1
"""SQLite's."""
ADDRESS_BYTES = 20

_DISK = "check the disk's space and the permissions"
_HINTS = {
    sqlite3.SQLITE_BUSY: "another poaid uses it",
    sqlite3.SQLITE_FULL: _DISK,
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_READONLY: _DISK,
    sqlite3.SQLITE_CANTOPEN: _DISK,
}

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE headers (hash BLOB PRIMARY KEY, height INTEGER NOT NULL, data BLOB NOT NULL, assumed INTEGER NOT NULL)
    STRICT;
CREATE INDEX headers_by_height ON headers (height);
CREATE TABLE bodies (hash BLOB PRIMARY KEY, height INTEGER NOT NULL, data BLOB NOT NULL, changes BLOB NOT NULL) STRICT;
CREATE INDEX bodies_by_height ON bodies (height);
CREATE TABLE chain (height INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE accounts (address BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE peers (id TEXT PRIMARY KEY, address TEXT NOT NULL, seen INTEGER NOT NULL, banned_until INTEGER NOT NULL)
    STRICT;
"""

Changes = tuple[tuple[Address, Account | None, Account | None], ...]
"""What a block did to the accounts: each one's address, what it was before, None if untouched, and what it is after."""


@dataclass(frozen=True)
class StoredBlock:
    """A block on its way into the database.

    Attributes:
        block_hash: its hash.
        height: its height.
        data: its encoding.
        changes: undo and redo record.
        assumed: whether `--assume-valid` spared it the replay.
    """

    block_hash: Hash32
    height: Height
    data: bytes
    changes: Changes
    assumed: bool = False


class StoredHeader(NamedTuple):
    """A replayed header of any branch, as it lies in the database."""

    block_hash: Hash32
    data: bytes
    assumed: bool


class ChainRow(NamedTuple):
    """A block of the chain; `body` is what follows the header in its encoding, None if it was pruned."""

    height: Height
    block_hash: Hash32
    header: bytes
    body: bytes | None


class StoredPeer(NamedTuple):
    """An entry of the address book; times in ms since 1970, 0 for never."""

    peer_id: str
    address: str
    seen: Milliseconds
    banned_until: Milliseconds


class Database:
    """An open data directory; a context manager. Use `create_or_open` or `open`.

    Attributes:
        path: the database file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._failure: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    @classmethod
    def create_or_open(cls, data_dir: Path, network: Network, model: str) -> Self:
        """Open a data directory for a network, made if it is not there.

        Args:
            data_dir: the folder.
            network: a folder of another network is refused.
            model: name or path under which the model was found, kept for `poaid verify`.

        Raises:
            NodeError: the folder belongs to another network, is in use, unreadable or damaged.
        """
        path = data_dir / FILE_NAME
        with _one_line(path):
            data_dir.mkdir(parents=True, exist_ok=True)
            store = cls(path, _connect(path))
        try:
            if store._is_empty():  # new, or its maker was killed before the first commit
                store._initialise(network, model)
            store._check_version()
            store._check_network(network)
        except NodeError:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, data_dir: Path) -> Self:
        """Open a data directory that exists.

        Raises:
            NodeError: there is none, or it is in use, unreadable, damaged or of another schema version.
        """
        path = data_dir / FILE_NAME
        with _one_line(path):
            if not path.is_file():
                raise NodeError(_no_chain(path))
            store = cls(path, _connect(path))
        try:
            store._check_version()
        except NodeError:
            store.close()
            raise
        return store

    @classmethod
    def is_made(cls, data_dir: Path) -> bool:
        """Whether a data directory holds a chain; an empty database is what a kill before the first commit leaves.

        Raises:
            NodeError: its database is in use or unreadable.
        """
        path = data_dir / FILE_NAME
        with _one_line(path):
            if not path.exists():
                return False
            store = cls(path, _connect(path))
        with store:
            return not store._is_empty()

    def _is_empty(self) -> bool:
        return self.query("SELECT count(*) FROM sqlite_schema") == [(0,)]

    def _check_version(self) -> None:
        if self._is_empty():
            raise NodeError(_no_chain(self.path))
        version = self.read_meta("schema_version")
        if version != str(SCHEMA_VERSION).encode():
            raise NodeError(
                f"{self.path} has schema version {version!r}, this program writes {SCHEMA_VERSION}: use its version, "
                "or take the chain along: `poaid export` with that version, `poaid import` with this one"
            )

    def _check_network(self, network: Network) -> None:
        stored = self.read_network()
        found, wanted = compute_network_id(stored.config), compute_network_id(network.config)
        if found != wanted:
            raise NodeError(
                f"{self.path.parent} belongs to network {found.hex()[:8]}, the flags name {wanted.hex()[:8]} "
                f"({describe_difference(stored.config, network.config)}): leave out --network, --model, --target and "
                "--test-corpus, or give another --data-dir"
            )
        if stored.upgrades != network.upgrades:
            self._change_upgrades(stored, network)

    def _change_upgrades(self, stored: Network, network: Network) -> None:
        """Follow another list of upgrades: forget every block that the first difference concerns.

        Raises:
            NodeError: such a block's undo record was pruned.
        """
        first, height = find_first_difference(stored.upgrades, network.upgrades), self.read_height()
        undone: dict[Address, Account | None] = {}
        for block_hash in self._list_hashes_down(first):
            changes = self.read_changes(block_hash)
            if changes is None:
                raise NodeError(
                    f"{self.path.parent} cannot go back to block {first - 1}, from which the list of upgrades differs: "
                    "what is below was pruned; give another --data-dir"
                )
            undone |= {address: before for address, before, _ in changes}
        kept = [(address, encode_account(account)) for address, account in undone.items() if account is not None]
        with self._transaction() as transaction:
            if first <= height:
                transaction.execute("DELETE FROM chain WHERE height >= ?", (first,))
                transaction.execute("DELETE FROM headers WHERE hash NOT IN (SELECT hash FROM chain)")
                transaction.execute("DELETE FROM bodies WHERE hash NOT IN (SELECT hash FROM chain)")
            transaction.executemany("DELETE FROM accounts WHERE address = ?", [(address,) for address in undone])
            transaction.executemany("INSERT INTO accounts VALUES (?, ?)", kept)
            transaction.execute("DELETE FROM meta WHERE key LIKE 'upgrade%'")
            transaction.executemany("INSERT INTO meta VALUES (?, ?)", encode_planned(network.planned).items())
        log.warning(
            "The list of upgrades has changed: blocks under other rules are forgotten", first_difference=first,
            forgotten=max(height - first + 1, 0), height=min(height, first - 1),
        )  # fmt: skip

    def _list_hashes_down(self, lowest: Height) -> list[Hash32]:
        rows = self.query("SELECT hash FROM chain WHERE height >= ? ORDER BY height DESC", (min(lowest, MAX_INTEGER),))
        return [self._blob(block_hash) for (block_hash,) in rows]

    def _initialise(self, network: Network, model: str) -> None:
        rows = {
            "schema_version": str(SCHEMA_VERSION).encode(),
            "network_name": _encode_name(network.name),
            "config": encode(network.config),
            **_encode_questions(network.questions, network.questions_name),
            "questions_name": _encode_name(network.questions_name),
            "model": _encode_name(model),
            **encode_planned(network.planned),
            PRUNED_BELOW: bytes(8),
        }
        with self._transaction() as transaction:
            for statement in _SCHEMA.split(";")[:-1]:
                transaction.execute(statement)
            transaction.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())

    def read_meta(self, key: str) -> bytes:
        """Return one of the values written at the start.

        Raises:
            NodeError: it is not there.
        """
        rows = self.query("SELECT value FROM meta WHERE key = ?", (key,))
        if not rows:
            raise NodeError(f"{self.path} has no {key!r}: it was not made by poaid, or is damaged; restore a copy")
        return self._blob(rows[0][0])

    def read_text(self, key: str) -> str:
        """Return one of the texts written at the start.

        Raises:
            NodeError: it is not there, or no text.
        """
        try:
            return self.read_meta(key).decode()
        except UnicodeDecodeError as error:
            raise NodeError(f"{self.path}: {key!r} is damaged; restore a copy") from error

    def read_network(self) -> Network:
        """Return the network as it was stored, checked.

        Raises:
            NodeError: the stored bytes are damaged.
        """
        name, questions_name = self.read_text("network_name"), self.read_text("questions_name")
        try:
            config = decode(Config, self.read_meta("config"))
            questions = self._read_questions(config.model.corpus, "")
            return check_network(Network(name, config, questions, questions_name, planned=self._read_planned()))
        except SpecError as error:
            raise NodeError(f"{self.path}: the stored network is damaged: {error}; restore a copy") from error

    def _read_questions(self, is_corpus: bool, prefix: str) -> Questions:
        if is_corpus:
            return decode(Corpus, self.read_meta(prefix + "corpus"))
        return parse_lexicon(self.read_meta(prefix + "lexicon"))

    def _read_planned(self) -> tuple[Planned, ...]:
        planned = []
        for upgrade in decode(UpgradeList, self.read_meta("upgrades")).upgrades:
            questions, name, prefix = None, "", f"upgrade {upgrade.height} "
            for manifest in upgrade.change.model:
                questions, name = self._read_questions(manifest.corpus, prefix), self.read_text(prefix + "name")
            planned.append(Planned(upgrade, questions, name))
        return tuple(planned)

    def read_height(self) -> Height:
        """Return the height of the last block; 0 when there is only genesis, which is not stored."""
        return int(self.query("SELECT coalesce(max(height), 0) FROM chain")[0][0])

    def read_headers(self) -> Iterator[StoredHeader]:
        """Yield the replayed headers of all branches, parents first."""
        for block_hash, data, assumed in self.query("SELECT hash, data, assumed FROM headers ORDER BY height, rowid"):
            yield StoredHeader(self._blob(block_hash), self._blob(data), bool(assumed))

    def read_head(self) -> Hash32 | None:
        """Return the hash of the chain's last block; None when there is only genesis."""
        rows = self.query("SELECT hash FROM chain ORDER BY height DESC LIMIT 1")
        return self._blob(rows[0][0]) if rows else None

    def read_chain(self) -> Iterator[ChainRow]:
        """Yield the blocks of the chain, ascending.

        One query a block: a reader that stops half-way leaves none open, which would keep the database locked.
        """
        sql = (
            "SELECT chain.height, chain.hash, headers.data, bodies.data FROM chain LEFT JOIN headers USING (hash) "
            "LEFT JOIN bodies USING (hash) WHERE chain.height >= ? ORDER BY chain.height LIMIT 1"
        )
        first = -(1 << 63)
        while rows := self.query(sql, (first,)):
            height, block_hash, header, body = rows[0]
            yield ChainRow(
                height, self._blob(block_hash), self._blob(header), None if body is None else self._blob(body)
            )
            first = height + 1

    def read_block(self, block_hash: Hash32) -> bytes | None:
        """Return the encoding of a block; None if it is not stored, or pruned."""
        sql = "SELECT headers.data, bodies.data FROM headers JOIN bodies USING (hash) WHERE hash = ?"
        rows = self.query(sql, (block_hash,))
        return self._blob(rows[0][0]) + self._blob(rows[0][1]) if rows else None

    def has_body(self, block_hash: Hash32) -> bool:
        """Tell whether a block is stored whole."""
        return bool(self.query("SELECT 1 FROM bodies WHERE hash = ?", (block_hash,)))

    def read_changes(self, block_hash: Hash32) -> Changes | None:
        """Return a block's undo and redo record; None if it is not stored, or pruned.

        Raises:
            NodeError: the record is damaged.
        """
        rows = self.query("SELECT changes FROM bodies WHERE hash = ?", (block_hash,))
        return _decode_changes(self._blob(rows[0][0]), self.path) if rows else None

    def read_bodies_from(self) -> Height:
        """Return the lowest height from which every block of the chain is stored whole; 1 unless pruned.

        The search goes down from the prune horizon, so it ends at once but after a reorganisation below it.
        """
        sql = (
            "SELECT height FROM chain WHERE height < ? AND NOT EXISTS (SELECT 1 FROM bodies WHERE hash = chain.hash) "
            "ORDER BY height DESC LIMIT 1"
        )
        rows = self.query(sql, (self._read_pruned_below(),))
        return self._integer(rows[0][0]) + 1 if rows else 1

    def _read_pruned_below(self) -> Height:
        return min(int.from_bytes(self.read_meta(PRUNED_BELOW), "big"), MAX_INTEGER)

    def read_state(self) -> State:
        """Return the accounts after the last block.

        Raises:
            NodeError: an account's encoding is damaged.
        """
        return {
            self._blob(address): _decode_account(self._blob(data), self.path)
            for address, data in self.query("SELECT address, data FROM accounts")
        }

    def commit(
        self,
        blocks: Sequence[StoredBlock],
        fork: Height,
        chain: Sequence[Hash32],
        accounts: Mapping[Address, Account | None],
    ) -> None:
        """Store replayed blocks, and the change of the head that they made, in one transaction.

        Args:
            blocks: new ones, parents first.
            fork: height of the last block that stays; all above it leave the chain.
            chain: hashes of the blocks that come in their place, ascending.
            accounts: those that the change of the head touches, as they are after it; None for one that is no more.

        Raises:
            NodeError: nothing was written, and nothing will be: a later block could stand on one that is missing.
        """
        headers = [(b.block_hash, b.height, split_block(b.data)[0], int(b.assumed)) for b in blocks]
        bodies = [(b.block_hash, b.height, split_block(b.data)[1], encode_changes(b.changes)) for b in blocks]
        kept = [(address, encode_account(account)) for address, account in accounts.items() if account is not None]
        with self._transaction() as transaction:
            transaction.executemany("INSERT OR REPLACE INTO headers VALUES (?, ?, ?, ?)", headers)
            transaction.executemany("INSERT OR REPLACE INTO bodies VALUES (?, ?, ?, ?)", bodies)
            transaction.execute("DELETE FROM chain WHERE height > ?", (fork,))
            transaction.executemany("INSERT INTO chain VALUES (?, ?)", enumerate(chain, fork + 1))
            gone = [(address,) for address, account in accounts.items() if account is None]
            transaction.executemany("DELETE FROM accounts WHERE address = ?", gone)
            transaction.executemany("INSERT OR REPLACE INTO accounts VALUES (?, ?)", kept)

    def prune(self, below: Height) -> int:
        """Drop bodies and undo records below a height, of any branch, the lowest first, some `MAX_PRUNED` at a time.

        Returns:
            How many; 0 when none is left.
        """
        lowest = "SELECT height FROM bodies WHERE height < ? ORDER BY height LIMIT ?"
        rows = self.query(f"SELECT max(height) FROM ({lowest})", (below, MAX_PRUNED))  # noqa: S608  constants
        if rows[0][0] is None:
            return 0
        last = self._integer(rows[0][0])
        horizon = max(self._read_pruned_below(), last + 1)
        with self._transaction() as transaction:
            transaction.execute("UPDATE meta SET value = ? WHERE key = ?", (horizon.to_bytes(8, "big"), PRUNED_BELOW))
            return transaction.execute("DELETE FROM bodies WHERE height <= ?", (last,)).rowcount

    def read_peers(self) -> list[StoredPeer]:
        """Return the address book, the peers seen last first."""
        rows = self.query("SELECT id, address, seen, banned_until FROM peers ORDER BY seen DESC, id")
        return [StoredPeer(*row) for row in rows]

    def write_peers(self, peers: Sequence[StoredPeer]) -> None:
        """Replace the address book."""
        with self._transaction() as transaction:
            transaction.execute("DELETE FROM peers")
            transaction.executemany("INSERT INTO peers VALUES (?, ?, ?, ?)", peers)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Change what belongs together. After a failure nothing is changed any more, whoever still tries to.

        `BEGIN` is said because sqlite3 begins nothing before a CREATE: a kill in between would leave half.
        """
        if self._failure is not None:
            raise NodeError(self._failure)
        try:
            with _one_line(self.path), self._connection as connection:
                connection.execute("BEGIN")
                yield connection
        except NodeError as error:
            self._failure = str(error)
            raise

    def _blob(self, value: object) -> bytes:
        if not isinstance(value, bytes):  # SQLite keeps to its types when it writes, and does not look when it reads
            raise NodeError(f"{self.path}: a stored value is no bytes; the file is damaged: restore a copy")
        return value

    def _integer(self, value: object) -> int:
        if not isinstance(value, int):
            raise NodeError(f"{self.path}: a stored value is no number; the file is damaged: restore a copy")
        return value

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement outside of a transaction; return its rows."""
        with _one_line(self.path):
            return self._connection.execute(sql, values).fetchall()


def _encode_name(name: str) -> bytes:
    """Return a name that may come from a file's, whose bytes can be any.

    Raises:
        NodeError: it is no UTF-8.
    """
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise NodeError(f"{name!a} is a name that is not UTF-8: rename the file or folder, or give another") from error


def _encode_questions(questions: Questions, name: str, prefix: str = "") -> dict[str, bytes]:
    if isinstance(questions, Corpus):
        return {prefix + "corpus": encode(questions)}
    return {prefix + "lexicon": format_lexicon(name, questions).encode()}


def encode_planned(planned: Sequence[Planned]) -> dict[str, bytes]:
    """Return a network's upgrades as rows of `meta`: the list, and of each new model the questions and their name."""
    rows = {"upgrades": encode(UpgradeList(tuple(p.upgrade for p in planned)))}
    for p in planned:
        if p.questions is not None:
            prefix = f"upgrade {p.upgrade.height} "
            rows |= {prefix + "name": p.questions_name.encode()}
            rows |= _encode_questions(p.questions, p.questions_name, prefix)
    return rows


def find_first_difference(old: Sequence[Upgrade], new: Sequence[Upgrade]) -> Height:
    """Return the height of the first block whose rules differ under two lists, which do."""
    for pair in zip_longest(old, new):
        if pair[0] != pair[1]:
            return min(upgrade.height for upgrade in pair if upgrade is not None)
    raise AssertionError("the lists are equal")


def _no_chain(path: Path) -> str:
    folder = path.parent
    return f"{folder} holds no chain ({FILE_NAME}): make one with `poaid mine --data-dir {folder}`"


def _connect(path: Path) -> sqlite3.Connection:
    """Open with an exclusive lock, held until the connection is closed: one process a data directory."""
    connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)
    with ExitStack() as on_failure:
        on_failure.callback(connection.close)
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        connection.commit()
        on_failure.pop_all()
    return connection


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn the ways in which a database can fail into one line that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite's own message quotes damaged text
        raise NodeError(f"{path}: the file is damaged: restore a copy or start a new --data-dir") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # without the extended part
        hint = _HINTS.get(code, "the file is damaged: restore a copy or start a new --data-dir")
        raise NodeError(f"{path}: {error}; {hint}") from error
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}; give a --data-dir that can be written") from error


def _decode_account(data: bytes, path: Path) -> Account:
    message = f"{path}: a stored account does not decode; the file is damaged: restore a copy"
    try:
        nonce, balance, storage_root, code_hash = rlp.decode(data)
        account = Account(int.from_bytes(nonce, "big"), int.from_bytes(balance, "big"), storage_root, code_hash)
        again = encode_account(account)
    except (rlp.DecodingError, rlp.EncodingError, ValueError, TypeError) as error:
        raise NodeError(message) from error
    if again != data:  # leading zeros
        raise NodeError(message)
    return account


def encode_changes(changes: Changes) -> bytes:
    """Return `rlp([[address, before, after], ...])`; an account that is not there is the empty string."""
    return bytes(
        rlp.encode([[address, *(encode_account(a) if a else b"" for a in sides)] for address, *sides in changes])
    )


def _decode_changes(data: bytes, path: Path) -> Changes:
    try:
        decoded = rlp.decode(data)
        rows = [(address, before, after) for address, before, after in decoded]
        sound = isinstance(decoded, list) and all(isinstance(field, bytes) for row in rows for field in row)
    except (rlp.DecodingError, ValueError, TypeError):
        sound = False
    if not sound or any(len(address) != ADDRESS_BYTES for address, _, _ in rows):
        raise NodeError(f"{path}: a stored undo record does not decode; the file is damaged: restore a copy")
    return tuple(
        (address, *(_decode_account(side, path) if side else None for side in (before, after)))
        for address, before, after in rows
    )
