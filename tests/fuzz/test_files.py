"""Files that somebody gave to the user: chains, networks, lexicons, corpora, keys, models."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from coincurve import PrivateKey
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from poai_engine.corpus_maker import read_lines
from poai_engine.gguf_file import read_gguf, read_vocabulary
from poai_engine.lexicon_maker import format_lexicon
from poai_spec.block import Judge
from poai_spec.corpus import MIN_CORPUS_ITEMS, Corpus, CorpusItem
from poai_spec.encoding import encode
from poai_spec.lexicon import PIECES, Lexicon, check_lexicon, parse_lexicon
from poai_spec.notation import keccak256
from poaid import keys
from poaid.chain import Chain
from poaid.chain_file import MAGIC, ChainReader
from poaid.chain_import import ChainImport
from poaid.keys import decrypt_key, encrypt_key, read_plain_key
from poaid.networks import CORPUS_SUFFIX, check_network, format_network, get_network
from poaid.store import Store
from tests.engine.forge import STRING, UINT32, Forgery, text
from tests.fuzz.driving import drive, judge
from tests.fuzz.mutation import NUMBERS, broken, odd_json
from tests.node.importing import StubEngine, grow_line, make_easy_network, make_root
from tests.support_corpus import make_corpus_manifest

NAME = Path("chain")


def dump(value: Any) -> bytes:
    """Return JSON as a careless program writes it: with `NaN`, and with half a surrogate pair escaped."""
    return json.dumps(value).encode()


# Chain files


def record(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


@st.composite
def chain_files(draw: DrawFn) -> bytes:
    """Draw a chain file: some records are broken, one is gone or comes twice; trailer and checksum may be right."""
    network = make_easy_network()
    assert isinstance(network.questions, Lexicon)
    lexicon = format_lexicon("mini", network.questions).encode()
    records = [encode(network.config), b"lexicon", b"mini", lexicon]
    records += [made.data for made in grow_line(make_root(), draw(st.integers(0, 5)))]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(records) - 1))
        change = draw(st.integers(0, 3))
        new = [draw(broken(st.just(records[at]), 2))] if change else draw(st.sampled_from(([], [records[at]] * 2)))
        records[at : at + 1] = new
    blocks = max(0, len(records) - 4)
    whole = MAGIC + b"".join(map(record, records)) + struct.pack("<IQ", 0, blocks)
    whole += keccak256(whole)
    return draw(broken(st.just(whole), 2)) if draw(st.integers(0, 2)) == 0 else whole


def read_chain(data: bytes) -> None:
    reader = ChainReader(BytesIO(data), NAME)
    reader.read_network()
    for _ in reader.read_blocks():
        pass


def test_chain_files() -> None:
    seen = drive("chain file", chain_files(), 200, lambda data: judge(lambda: read_chain(data)))
    assert "NodeError" in seen


def import_chain(data: bytes, folder: Path) -> None:
    """Do what `poaid import` does, with a stub for the model."""
    reader = ChainReader(BytesIO(data), NAME)
    network = reader.read_network()
    now = network.config.genesis_timestamp + 10**9
    with Store.create_or_open(folder, network, "mini") as store:
        judge_of = Judge(network.config, network.questions, StubEngine(network.config))
        ChainImport(Chain(store, network.config, now), judge_of, lambda: now).run(reader.read_blocks())


def test_imports(tmp_path: Path) -> None:
    """What was stored before a fault is a chain that can be opened again."""

    def run(data: bytes) -> str:
        with TemporaryDirectory(dir=tmp_path) as name:
            folder = Path(name) / "chain"
            outcome = judge(lambda: import_chain(data, folder))
            if folder.exists():
                with Store.open(folder) as store:
                    config = store.read_network().config
                    assert Chain(store, config, config.genesis_timestamp + 10**9).head.height == store.read_height()
        return outcome

    drive("chain file, imported", chain_files(), 60, run)


# Networks


@st.composite
def network_texts(draw: DrawFn, text: str) -> bytes:
    """Draw a network file with lines changed, gone, repeated or moved, and odd values in them."""
    lines = text.splitlines()
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition(" = ")[0]
        odd = draw(st.sampled_from(ODD_TOML))
        change = draw(
            st.sampled_from(
                (
                    [f"{key} = {odd}"],
                    [f"{key} = {odd}"],
                    [f"{key} = {odd}"],
                    [],
                    [lines[at]] * 2,
                    [f"{'x' * 400} = {odd}", lines[at]],
                )
            )
        )
        lines[at : at + 1] = change
        if not lines:
            break
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return draw(broken(st.just(data), 2)) if draw(st.integers(0, 3)) == 0 else data


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
    texts = network_texts(format_network(make_easy_network()))
    seen = drive("network TOML", texts, 300, lambda data: judge(lambda: read_network_file(data, path)))
    assert {"NodeError", "parameters/range"} & set(seen)


def test_lexicons() -> None:
    network = make_easy_network()
    assert isinstance(network.questions, Lexicon)
    value = json.loads(format_lexicon("mini", network.questions))
    few = {**value, "pieces": {piece: value["pieces"][piece] for piece in PIECES[:3]}}
    written = st.one_of(odd_json(value), odd_json(few), st.just(value)).map(dump)
    files = st.one_of(written, broken(st.just(format_lexicon("mini", network.questions).encode())))

    def read(data: bytes) -> None:
        check_lexicon(parse_lexicon(data), network.config.model)

    seen = drive("lexicon JSON", files, 300, lambda data: judge(lambda: read(data)))
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
    seen = drive("corpus", broken(st.just(encode(corpus))), 30, lambda data: judge(lambda: read(data)))
    assert {"NodeError", "corpus/digest"} & set(seen)


def test_corpus_texts(tmp_path: Path) -> None:
    """The folder of `--test-corpus`."""
    good = "".join(f"What comes after {n}?\t{n + 1}\n" for n in range(MIN_CORPUS_ITEMS + 2)).encode()
    path = tmp_path / "questions.txt"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        assert len(read_lines(tmp_path)) >= MIN_CORPUS_ITEMS

    seen = drive("corpus text", broken(st.just(good)), 100, lambda data: judge(lambda: read(data)))
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
    values = st.sampled_from((scrypt, pbkdf2)).flatmap(lambda value: st.just(value) | odd_json(value)).map(dump)
    files = st.one_of(values, broken(st.just(dump(scrypt))))

    def read(data: bytes) -> None:
        found = decrypt_key(data, password)
        if "address" in json.loads(data):  # without it nothing covers the initialisation vector
            assert found.secret == key.secret

    drive("keystore", files, 300, lambda data: judge(lambda: read(data)))


def test_plain_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_plain_key(path)

    drive("plain key", broken(st.just(b"12" * 32 + b"\n")), 150, lambda data: judge(lambda: read(data)))


# Models


@st.composite
def models(draw: DrawFn) -> bytes:
    """Draw a small model file in which counts, types, keys and tensors are forged, before or after they are joined."""
    forgery = Forgery()
    for _ in range(draw(st.integers(0, 2))):
        change = draw(st.integers(0, 5))
        number = draw(st.sampled_from(NUMBERS))
        if change == 0:
            forgery.tensor_count = number
        elif change == 1:
            forgery.key_count = number
        elif change == 2:
            at = draw(st.integers(0, len(forgery.keys) - 1))
            name, kind, raw = forgery.keys[at]
            forgery.keys[at] = (
                draw(broken(st.just(name), 1)),
                draw(st.sampled_from((kind, kind, number % 14))),
                draw(broken(st.just(raw), 2)),
            )
        elif change == 3:
            kind, offset = draw(st.integers(0, 40)), draw(st.sampled_from((0, 4_144, 32, number)))
            shape = tuple(draw(st.lists(st.sampled_from((1, 4, 32, 259, number)), min_size=0, max_size=5)))
            forgery.tensors.append((draw(st.binary(max_size=70)), shape, kind, offset))
        elif change == 4:
            forgery.set(b"general.alignment", UINT32, struct.pack("<I", number % 2**32))
        else:
            forgery.set(draw(st.binary(max_size=9)), STRING, text(draw(st.binary(max_size=9))))
    data = forgery.build()
    return draw(broken(st.just(data), 2)) if draw(st.integers(0, 1)) else data


@pytest.mark.parametrize("read", [read_gguf, read_vocabulary])
def test_models(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "model.gguf"

    def run(data: bytes) -> str:
        path.write_bytes(data)
        return judge(partial(read, path))

    drive(f"GGUF {read.__name__}", models(), 200, run)
