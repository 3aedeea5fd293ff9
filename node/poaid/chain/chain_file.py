"""A chain as one file: `poaid export` writes it, `poaid import` reads it, any other program can do both.

    magic       "PoAI chain 2" and a line feed
    records     each a length, uint32 little-endian, and as many bytes:
                the network's config, SSZ
                the kind of its questions, `lexicon` or `corpus`
                their name, UTF-8
                the lexicon's JSON, or the corpus in SSZ
                the list of upgrades, SSZ, and for each of them that changes the model: kind, name and questions
                each block of the chain from height 1 on, SSZ
    end         a record of length 0
    trailer     the number of blocks, uint64 little-endian, and the Keccak-256 of everything before this hash

The blocks prove themselves, so the hash is no signature: it tells a damaged copy from a whole one. Nothing in the file
says how large it is, so that it can be read as it comes.

Exports: `ChainReader`, `FileRecord`, `export_chain`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from Crypto.Hash import keccak

from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Height, SpecError, uint32_le, uint64_le
from poai_spec.basics.parameters import PRESET_CHANGES, Config, ModelManifest, make_config
from poai_spec.chain.networking import MAX_BLOCK_BYTES
from poai_spec.chain.upgrades import MAX_UPGRADES, UpgradeList
from poai_spec.proof.corpus import Corpus, Questions
from poai_spec.proof.lexicon import parse_lexicon
from poaid.errors import NodeError
from poaid.network_file import (
    MAX_CORPUS_BYTES,
    MAX_FILE_BYTES,
    MAX_NAME_BYTES,
    Network,
    Planned,
    check_network,
    is_file_name,
)
from poaid.store.database import Database

MAGIC = b"PoAI chain 2\n"
MAX_CONFIG_BYTES = MAX_FILE_BYTES
"""As of a network file: a config has some 200 bytes, more only where the model's salt has many ranges."""
MAX_UPGRADES_BYTES = MAX_UPGRADES * MAX_FILE_BYTES
"""A config's size each."""
MAX_KIND_BYTES = 7
MAX_QUESTION_BYTES = {"lexicon": MAX_FILE_BYTES, "corpus": MAX_CORPUS_BYTES}
LENGTH_BYTES, COUNT_BYTES, DIGEST_BYTES = 4, 8, 32


class FileRecord(NamedTuple):
    """A block's encoding, and how many bytes of the file end with it."""

    data: bytes
    end: int


class ChainReader:
    """Reads a chain file from its beginning to its end, once: first `read_network`, then `read_blocks`.

    Either may raise an `OSError`: the disk's, or of a path that is no file.

    Args:
        file: at its first byte.
        path: its name, for messages and for a network that has no other.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._hash, self._position = keccak.new(digest_bits=256), 0

    def read_network(self) -> Network:
        """Return the network that the blocks belong to, checked; named as a preset if it is one, else as the file.

        Raises:
            NodeError: the file is another one, cut short or damaged.
        """
        found = self._file.read(len(MAGIC))
        if not MAGIC.startswith(found):
            raise NodeError(f"{self._path} is no chain file: make one with `poaid export`")
        if found != MAGIC:
            raise self._cut("its first line")
        self._count(found)
        config_data = self._read_record(MAX_CONFIG_BYTES, "the config")
        try:
            config = decode(Config, config_data)
            questions, name = self._read_questions(config.model)
            planned = tuple(self._read_planned())
            return check_network(Network(self._name(config), config, questions, name, planned=planned))
        except SpecError as error:
            raise self._fault(f"the network in it breaks the rule {error.code}: {error.detail:.400}") from error
        except UnicodeDecodeError as error:
            raise self._fault("the questions' name is no UTF-8") from error

    def _read_questions(self, model: ModelManifest) -> tuple[Questions, str]:
        kind = self._read_record(MAX_KIND_BYTES, "the kind of questions").decode("ascii", "replace")
        name = self._read_record(MAX_NAME_BYTES, "the questions' name")
        if kind not in MAX_QUESTION_BYTES:
            raise self._fault(f"its questions are neither a lexicon nor a corpus, but {kind!r}")
        data = self._read_record(MAX_QUESTION_BYTES[kind], f"the {kind}")
        if not is_file_name(name.decode("utf-8", "replace")):
            raise self._fault("the questions' name has a path in it, or characters that cannot be shown")
        if model.corpus != (kind == "corpus"):
            raise self._fault(f"it has a {kind}, and its config wants the other kind of questions")
        return decode(Corpus, data) if kind == "corpus" else parse_lexicon(data), name.decode("utf-8")

    def _read_planned(self) -> Iterator[Planned]:
        data = self._read_record(MAX_UPGRADES_BYTES, "the list of upgrades")
        for upgrade in decode(UpgradeList, data).upgrades:
            questions, name = None, ""
            for model in upgrade.change.model:
                questions, name = self._read_questions(model)
            yield Planned(upgrade, questions, name)

    def _name(self, config: Config) -> str:
        presets = (name for name in PRESET_CHANGES if make_config(name, config.model) == config)
        return next(presets, self._path.stem)

    def read_blocks(self) -> Iterator[FileRecord]:
        """Yield the blocks in order, unchecked, and check the trailer behind them.

        Raises:
            NodeError: the file is cut short, damaged, or goes on behind its end.
        """
        count: Height = 0
        while data := self._read_record(MAX_BLOCK_BYTES, f"block {count + 1}"):
            count += 1
            yield FileRecord(data, self._position)
        said = int.from_bytes(self._take(COUNT_BYTES, "the trailer"), "little")
        if said != count:
            raise self._fault(f"it has {count} blocks, and says that it has {said}")
        if self._read(DIGEST_BYTES, "the trailer") != self._hash.digest():
            raise self._fault("its checksum is another one")
        if self._file.read(1):
            raise self._fault("it goes on behind its end")

    def _read_record(self, limit: int, what: str) -> bytes:
        length = int.from_bytes(self._take(LENGTH_BYTES, what), "little")
        if length > limit:
            raise self._fault(f"{what} has {length:,} bytes, more than the {limit:,} that are allowed")
        return self._take(length, what)

    def _take(self, size: int, what: str) -> bytes:
        """Read what the checksum covers."""
        data = self._read(size, what)
        self._count(data)
        return data

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self._position += len(data)

    def _read(self, size: int, what: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._cut(what)
        return data

    def _cut(self, what: str) -> NodeError:
        return NodeError(f"{self._path} ends within {what}: it was cut short, get a whole copy")

    def _fault(self, what: str) -> NodeError:
        return NodeError(f"{self._path} is damaged: {what}; get another copy")


def export_chain(store: Database, path: Path) -> Height:
    """Write the chain of a data directory to a new file, whole or not at all; return how many blocks it has.

    Raises:
        NodeError: the file is there already or cannot be written, or bodies were pruned.
    """
    first = store.read_bodies_from()
    if first > 1:
        raise NodeError(
            f"{store.path.parent} is pruned: it holds whole blocks from height {first:,} on only, and a chain file "
            "needs all; export from a node that was never run with --prune-depth"
        )
    if path.exists():
        raise NodeError(f"{path} exists, and is not overwritten: give another name")
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        with part.open("xb") as file:
            count = _write_chain(store, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise NodeError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def _write_chain(store: Database, file: BinaryIO) -> Height:
    checksum, count = keccak.new(digest_bits=256), 0

    def write(data: bytes) -> None:
        checksum.update(data)
        file.write(data)

    def write_record(data: bytes) -> None:
        write(uint32_le(len(data)) + data)

    def write_questions(model: ModelManifest, name: str, prefix: str) -> None:
        kind = "corpus" if model.corpus else "lexicon"
        for data in (kind.encode(), name.encode(), store.read_meta(prefix + kind)):
            write_record(data)

    network = store.read_network()
    write(MAGIC)
    write_record(encode(network.config))
    write_questions(network.config.model, network.questions_name, "")
    write_record(store.read_meta("upgrades"))
    for planned in network.planned:
        for model in planned.upgrade.change.model:
            write_questions(model, planned.questions_name, f"upgrade {planned.upgrade.height} ")
    for row in store.read_chain():
        count += 1
        if row.height != count or row.body is None:
            raise NodeError(f"block {count} is missing from {store.path}: run `poaid verify`")
        write_record(row.header + row.body)
    write(uint32_le(0) + uint64_le(count))
    file.write(checksum.digest())
    return count
