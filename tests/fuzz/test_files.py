"""Files that somebody gave to the user: chains, networks, lexicons, corpora, keys, models."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from coincurve import PrivateKey

from poai_engine.models.corpus_maker import read_lines
from poai_engine.models.gguf_file import read_gguf, read_vocabulary
from poai_engine.models.lexicon_maker import format_lexicon
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import keccak256
from poai_spec.chain.block import make_judge
from poai_spec.chain.upgrades import UpgradeList
from poai_spec.proof.corpus import MIN_CORPUS_ITEMS, Corpus, CorpusItem
from poai_spec.proof.lexicon import PIECES, Lexicon, check_lexicon, parse_lexicon
from poaid import keys
from poaid.chain.chain_file import MAGIC, ChainReader
from poaid.chain.chain_state import ChainState
from poaid.chain.file_import import ChainImport
from poaid.keys import decrypt_key, encrypt_key, read_plain_key
from poaid.network_file import CORPUS_SUFFIX, check_network, format_network, get_network
from poaid.store.database import Database
from tests.harness.corpus import make_corpus_manifest
from tests.harness.driving import drive, judge
from tests.harness.forge import STRING, UINT32, Forgery, text
from tests.harness.importing import StubEngine, grow_line, make_easy_network, make_root
from tests.harness.mutation import NUMBERS, break_json, break_one, broken, make_text

NAME = Path("chain")


# Chain files


def record(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def make_chain_file(rng: Random) -> bytes:
    """Draw a chain file: some records are broken, one is gone or comes twice; trailer and checksum may be right."""
    network = make_easy_network()
    assert isinstance(network.questions, Lexicon)
    lexicon, upgrades = format_lexicon("mini", network.questions).encode(), encode(UpgradeList(()))
    records = [encode(network.config), b"lexicon", b"mini", lexicon, upgrades, *make_blocks()[: rng.randint(0, 5)]]
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(records))
        records[at : at + 1] = [broken(rng, records[at], 2)] if rng.randrange(4) else [records[at]] * rng.choice((0, 2))
        if not records:
            break
    whole = MAGIC + b"".join(map(record, records)) + struct.pack("<IQ", 0, max(0, len(records) - 5))
    whole += keccak256(whole)
    return broken(rng, whole, 2) if rng.randrange(3) == 0 else whole


@cache
def make_blocks() -> list[bytes]:
    """Return five blocks, one on top of the other."""
    return [made.data for made in grow_line(make_root(), 5)]


def read_chain(data: bytes) -> None:
    reader = ChainReader(BytesIO(data), NAME)
    reader.read_network()
    for _ in reader.read_blocks():
        pass


def test_chain_files() -> None:
    seen = drive("chain file", make_chain_file, 200, lambda data: judge(lambda: read_chain(data)))
    assert "NodeError" in seen


def import_chain(data: bytes, folder: Path) -> None:
    """Do what `poaid import` does, with a stub for the model."""
    reader = ChainReader(BytesIO(data), NAME)
    network = reader.read_network()
    now = network.config.genesis_timestamp + 10**9
    with Database.create_or_open(folder, network, "mini") as store:
        judge_of = make_judge(network.config, network.questions, StubEngine(network.config))
        ChainImport(ChainState(store, network.config, now), judge_of, lambda: now).run(reader.read_blocks())


def test_imports(tmp_path: Path) -> None:
    """What was stored before a fault is a chain that can be opened again."""

    def run(data: bytes) -> str:
        with TemporaryDirectory(dir=tmp_path) as name:
            folder = Path(name) / "chain"
            outcome = judge(lambda: import_chain(data, folder))
            if folder.exists():
                with Database.open(folder) as store:
                    config = store.read_network().config
                    assert (
                        ChainState(store, config, config.genesis_timestamp + 10**9).head.height == store.read_height()
                    )
        return outcome

    drive("chain file, imported", make_chain_file, 60, run, long=100)


# Networks


def break_network(text: str) -> Callable[[Random], bytes]:
    """Return what draws a network file with lines changed, gone or repeated, and odd values in them."""

    def make(rng: Random) -> bytes:
        lines = text.splitlines()
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(lines))
            key, odd = lines[at].partition(" = ")[0], rng.choice(ODD_TOML)
            change = [f"{key} = {odd}"]
            others: list[list[str]] = [[], [lines[at]] * 2, [f"{'x' * 400} = {odd}", lines[at]]]
            lines[at : at + 1] = rng.choice((change, change, change, *others))
        data = "\n".join(lines).encode()
        return broken(rng, data, 2) if rng.randrange(4) == 0 else data

    return make


ODD_TOML = (
    "0", "-1", "1", "2", "true", "nan", "-inf", "1.5", '""', '"0x"', '"0x00"', f'"0x{"ff" * 33}"', '"é"', '"\\u0000"',
    "[]", "[[]]", "[[0, 1]]", "[[1, 0]]", "[[0]]", "[0, 1]", "[true]", "{}", "{a = 1}", "1979-05-27", "0x10",
    "4294967296", "18446744073709551616", "9" * 5_000, "0x" + "f" * 4_000, f"[[0x{'f' * 4_000}, 1]]",
    f'"{"a" * 5_000}"', f'"{"a" * 300}.lexicon.json"', f'"{"é" * 120}"', '"../x"', '"/"', '"x\\u0000"', '"mini"',
    "[" * 200 + "]" * 200, f"[{', '.join(['[0, 1]'] * 400)}]", '["/ip4/192.0.2.1/tcp/1/p2p/Q"]', '["\\n"]',
)  # fmt: skip


def read_network_file(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    network = get_network(str(path))
    assert check_network(network) is network
    assert format_network(network)


def test_network_files(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    texts = break_network(format_network(make_easy_network()))
    seen = drive("network TOML", texts, 300, lambda data: judge(lambda: read_network_file(data, path)))
    assert {"NodeError", "parameters/range"} & set(seen)


def test_lexicons() -> None:
    network = make_easy_network()
    assert isinstance(network.questions, Lexicon)
    value = json.loads(format_lexicon("mini", network.questions))
    few = {**value, "pieces": {piece: value["pieces"][piece] for piece in PIECES[:3]}}
    changed, edited = break_json((value, few)), break_one([format_lexicon("mini", network.questions).encode()])

    def make(rng: Random) -> bytes:
        return (changed if rng.randrange(2) else edited)(rng)

    def read(data: bytes) -> None:
        check_lexicon(parse_lexicon(data), network.config.model)

    seen = drive("lexicon JSON", make, 300, lambda data: judge(lambda: read(data)))
    assert {"lexicon/not-json", "lexicon/keys"} < set(seen)


def make_corpus() -> Corpus:
    return Corpus((13,), tuple(CorpusItem((3 + number // 500, 4 + number % 500), (5,)) for number in range(1_000)))


def test_corpora(tmp_path: Path) -> None:
    """As the file beside a network file."""
    corpus, path = make_corpus(), tmp_path / "net.toml"
    manifest = make_corpus_manifest("mini", corpus)
    beside = path.with_name("net" + CORPUS_SUFFIX)

    def read(data: bytes) -> None:
        beside.write_bytes(data)
        get_network(str(path))

    network = make_easy_network()
    config = replace(network.config, model=manifest)
    path.write_text(format_network(replace(network, config=config, questions=corpus, questions_name=beside.name)))
    seen = drive("corpus", break_one([encode(corpus)]), 30, lambda data: judge(lambda: read(data)))
    assert {"NodeError", "corpus/digest"} & set(seen)


def test_corpus_texts(tmp_path: Path) -> None:
    """The folder of `--test-corpus`."""
    good = "".join(f"What comes after {n}?\t{n + 1}\n" for n in range(MIN_CORPUS_ITEMS + 2)).encode()
    path = tmp_path / "questions.txt"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        assert len(read_lines(tmp_path)) >= MIN_CORPUS_ITEMS

    seen = drive("corpus text", break_one([good]), 100, lambda data: judge(lambda: read(data)))
    assert set(seen) == {"accepted", "CorpusError"}


# Keys


@pytest.fixture
def _cheap() -> Iterator[None]:
    """Limits at which a forged keystore costs milliseconds; the real ones are bounds of the same kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "MAX_SCRYPT_BYTES", 1 << 16)
        patch.setattr(keys, "MAX_PBKDF2_ROUNDS", 100)
        yield


@pytest.mark.usefixtures("_cheap")
def test_keystores() -> None:
    key, password = PrivateKey(bytes(31) + b"\1"), b"secret"
    scrypt = json.loads(encrypt_key(key, password, scrypt_n=2))
    pbkdf2 = {**scrypt, "crypto": {**scrypt["crypto"], "kdf": "pbkdf2", "kdfparams": {
        "c": 1, "dklen": 32, "prf": "hmac-sha256", "salt": "00" * 32}}}  # fmt: skip

    def read(data: bytes) -> None:
        found = decrypt_key(data, password)
        if "address" in json.loads(data):  # without it nothing covers the initialisation vector
            assert found.secret == key.secret

    drive("keystore", break_json((scrypt, pbkdf2)), 300, lambda data: judge(lambda: read(data)))


def test_plain_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_plain_key(path)

    drive("plain key", break_one([b"12" * 32 + b"\n"]), 150, lambda data: judge(lambda: read(data)))


# Models


def make_model(rng: Random) -> bytes:
    """Draw a small model file in which counts, types, keys and tensors are forged, before or after they are joined."""
    forgery = Forgery()
    for _ in range(rng.randrange(3)):
        rng.choice(FORGERIES)(rng, forgery, rng.choice(NUMBERS))
    data = forgery.build()
    return broken(rng, data, 2) if rng.randrange(2) else data


def forge_count(rng: Random, forgery: Forgery, number: int) -> None:
    if rng.randrange(2):
        forgery.tensor_count = number
    else:
        forgery.key_count = number


def forge_key(rng: Random, forgery: Forgery, number: int) -> None:
    at = rng.randrange(len(forgery.keys))
    name, kind, raw = forgery.keys[at]
    forgery.keys[at] = (broken(rng, name, 1), rng.choice((kind, kind, number % 14)), broken(rng, raw, 2))


def forge_tensor(rng: Random, forgery: Forgery, number: int) -> None:
    shape = tuple(rng.choice((1, 4, 32, 259, number)) for _ in range(rng.randrange(6)))
    offset = rng.choice((0, 4_144, 32, number))
    forgery.tensors.append((rng.randbytes(rng.randint(0, 70)), shape, rng.randint(0, 40), offset))


def forge_alignment(rng: Random, forgery: Forgery, number: int) -> None:
    forgery.set(b"general.alignment", UINT32, struct.pack("<I", number % 2**32))


def add_key(rng: Random, forgery: Forgery, number: int) -> None:
    forgery.set(rng.randbytes(rng.randint(0, 9)), STRING, text(make_text(rng).encode("utf-8", "replace")))


FORGERIES = (forge_count, forge_count, forge_key, forge_tensor, forge_alignment, add_key)


@pytest.mark.parametrize("read", [read_gguf, read_vocabulary])
def test_models(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "model.gguf"

    def run(data: bytes) -> str:
        path.write_bytes(data)
        return judge(partial(read, path))

    drive(f"GGUF {read.__name__}", make_model, 200, run)
