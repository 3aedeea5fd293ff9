"""Keys, addresses and key files: the official vectors, every refusal, and files that were changed."""

import errno
import hashlib
import io
import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from coincurve import PrivateKey
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from poai_spec.basics.notation import keccak256
from poaid.cli import main as cli
from poaid.cli.keys import generate_key
from poaid.errors import NodeError, UsageError
from poaid.keys import (
    IDENTITY_FILE,
    MAX_FILE_BYTES,
    MINER_KEY_NAME,
    compute_address,
    decrypt_key,
    encrypt_key,
    format_address,
    get_keystore_name,
    load_identity,
    load_or_make_miner_key,
    make_key,
    parse_address,
    read_keystore,
    read_password,
    read_plain_key,
    write_keystore,
    write_plain_key,
)
from tests.harness.node import Run

PASSWORD = b"testpassword"
KEY_HEX = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
KEY = PrivateKey(bytes.fromhex(KEY_HEX))
ADDRESS = "008aeeda4d805471df9b2a5b0f38a0c3bcba786b"
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
LIGHT_N = 16
"""Scrypt in a moment."""

# The test vectors of the Web3 Secret Storage Definition.
PBKDF2_VECTOR = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
SCRYPT_VECTOR = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "p": 8,
            "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}

pytestmark = pytest.mark.sockets


def seal(kdf: str = "scrypt", secret: str = KEY_HEX, dklen: int = 32, iv: str = "ff" * 16) -> dict[str, Any]:
    """Return a keystore's document, made without the code under test, with a key derivation that costs nothing."""
    salt = bytes(range(32))
    params: dict[str, Any] = {"dklen": dklen, "salt": salt.hex()}
    if kdf == "scrypt":
        params |= {"n": LIGHT_N, "p": 1, "r": 8}
        derived = hashlib.scrypt(PASSWORD, salt=salt, n=LIGHT_N, r=8, p=1, dklen=dklen)
    else:
        params |= {"c": 2, "prf": "hmac-sha256"}
        derived = hashlib.pbkdf2_hmac("sha256", PASSWORD, salt, 2, dklen)
    counters = b"".join(((int(iv, 16) + i) % 2**128).to_bytes(16, "big") for i in range(2))
    stream = AES.new(derived[:16], AES.MODE_ECB).encrypt(counters)
    ciphertext = bytes(a ^ b for a, b in zip(bytes.fromhex(secret), stream, strict=True))
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": iv},
        "ciphertext": ciphertext.hex(),
        "kdf": kdf,
        "kdfparams": params,
        "mac": keccak256(derived[16:32] + ciphertext).hex(),
    }
    return {"address": ADDRESS, "crypto": crypto, "version": 3}


def to_json(document: object) -> bytes:
    return json.dumps(document).encode()


def refuse(data: bytes, password: bytes = PASSWORD) -> str:
    """Return the message with which a keystore is refused."""
    with pytest.raises(NodeError) as caught:
        decrypt_key(data, password)
    assert str(caught.value).isprintable()
    assert KEY_HEX not in str(caught.value)
    return str(caught.value)


# Addresses


def test_the_address_of_a_key() -> None:
    assert compute_address(KEY).hex() == ADDRESS
    # Key 1 is the generator of the curve.
    assert (
        format_address(compute_address(PrivateKey(bytes(31) + b"\1"))) == "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
    )


@pytest.mark.parametrize(
    "text",  # EIP-55's own
    [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_checksums(text: str) -> None:
    address = bytes.fromhex(text[2:])
    assert format_address(address) == text
    for spelling in (text, text.lower(), "0x" + text[2:].upper()):
        assert parse_address(spelling) == address
    letters = [i for i in range(2, 42) if text[i].isalpha()]
    for i in letters:
        wrong = text[:i] + text[i].swapcase() + text[i + 1 :]
        with pytest.raises(UsageError, match=f"^--pay '{wrong}' has a wrong checksum"):
            parse_address(wrong, "--pay")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "12" * 20,
        "0x" + "1" * 39,
        "0x" + "1" * 41,
        "0x" + "zz" * 20,
        "0X" + "11" * 20,
        "0x" + "1 " * 20,
        "0x" + "11" * 20 + "\n",
        "0x" + "١" * 40,
    ],
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert str(caught.value) == f"--miner-address {text!r} is no address: give 0x and 40 hexadecimal digits"


# Keystores


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(PBKDF2_VECTOR, id="pbkdf2"),
        pytest.param(SCRYPT_VECTOR, id="scrypt", marks=pytest.mark.slow),
    ],
)
def test_official_vectors(vector: dict[str, Any]) -> None:
    assert decrypt_key(to_json(vector), PASSWORD).secret.hex() == KEY_HEX
    assert refuse(to_json(vector), PASSWORD + b" ") == "the password is wrong, or the file is damaged: its MAC differs"


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
@pytest.mark.parametrize("dklen", [32, 33, 64, 200])
def test_another_writer(kdf: str, dklen: int) -> None:
    assert decrypt_key(to_json(seal(kdf, dklen=dklen)), PASSWORD).secret.hex() == KEY_HEX


@pytest.mark.parametrize(
    "address", [None, ADDRESS, ADDRESS.upper(), "0x" + ADDRESS, format_address(compute_address(KEY))]
)
def test_spellings_of_the_address(address: str | None) -> None:
    document = seal() | {"address": address}
    if address is None:
        del document["address"]
    assert decrypt_key(to_json(document), PASSWORD).secret.hex() == KEY_HEX


@settings(max_examples=50, deadline=None)
@given(st.integers(1, ORDER - 1), st.binary(max_size=80))
def test_round_trip(secret: int, password: bytes) -> None:
    key = PrivateKey(secret.to_bytes(32, "big"))
    text = encrypt_key(key, password, LIGHT_N)
    assert decrypt_key(text.encode(), password).secret == key.secret
    assert key.secret.hex() not in text
    assert refuse(text.encode(), password + b"x").startswith("the password is wrong")


def test_what_a_new_keystore_says() -> None:
    first, second = (json.loads(encrypt_key(KEY, PASSWORD, LIGHT_N)) for _ in range(2))
    assert (first["version"], first["address"]) == (3, ADDRESS)
    crypto, other = first["crypto"], second["crypto"]
    assert (crypto["cipher"], crypto["kdf"]) == ("aes-128-ctr", "scrypt")
    assert crypto["kdfparams"] | {"salt": None} == {"dklen": 32, "n": LIGHT_N, "p": 1, "r": 8, "salt": None}
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first["id"])
    assert len({first["id"], second["id"]}) == 2
    assert len({crypto["cipherparams"]["iv"], other["cipherparams"]["iv"]}) == 2
    assert len({crypto["kdfparams"]["salt"], other["kdfparams"]["salt"]}) == 2


DAMAGED = "hexadecimal digits: the file is damaged, restore a copy"
MISSING = object()
CHANGES: list[tuple[str, object, str]] = [
    ("version", MISSING, "it is no keystore: 'version' is missing or not an integer"),
    ("version", "3", "it is no keystore: 'version' is missing or not an integer"),
    ("version", 3.0, "it is no keystore: 'version' is missing or not an integer"),
    ("version", True, "it is no keystore: 'version' is missing or not an integer"),
    ("version", 1, "it is a keystore of version 1: only version 3 can be read"),
    ("version", 10**100, f"it is a keystore of version 1{'0' * 39}: only version 3 can be read"),
    ("crypto", MISSING, "it is no keystore: 'crypto' is missing or not an object"),
    ("crypto", [], "it is no keystore: 'crypto' is missing or not an object"),
    ("crypto.cipher", MISSING, "it is no keystore: 'cipher' is missing or not a text"),
    ("crypto.cipher", "aes-128-cbc", "'cipher' is 'aes-128-cbc': only aes-128-ctr can be read"),
    ("crypto.cipher", "x\n\x1b" * 99, r"'cipher' is 'x\n\x1bx\n\x1b"),
    ("crypto.cipherparams", "", "it is no keystore: 'cipherparams' is missing or not an object"),
    ("crypto.cipherparams.iv", "00" * 15, f"'iv' is not 32 {DAMAGED}"),
    ("crypto.cipherparams.iv", "0x" + "00" * 16, f"'iv' is not 32 {DAMAGED}"),
    ("crypto.cipherparams.iv", "fe" * 16, f"'address' is '{ADDRESS}', but the key in it is of 0x"),
    ("crypto.ciphertext", "00" * 31, f"'ciphertext' is not 64 {DAMAGED}"),
    ("crypto.ciphertext", "00" * 32, "the password is wrong, or the file is damaged: its MAC differs"),
    ("crypto.ciphertext", "zz" * 32, f"'ciphertext' is not 64 {DAMAGED}"),
    ("crypto.ciphertext", 5, "it is no keystore: 'ciphertext' is missing or not a text"),
    ("crypto.mac", "00" * 32, "the password is wrong, or the file is damaged: its MAC differs"),
    ("crypto.mac", "00 " * 32, f"'mac' is not 64 {DAMAGED}"),
    ("crypto.mac", "", f"'mac' is not 64 {DAMAGED}"),
    ("crypto.kdf", MISSING, "it is no keystore: 'kdf' is missing or not a text"),
    ("crypto.kdf", "argon2id", "'kdf' is 'argon2id': only scrypt and pbkdf2 can be read"),
    ("crypto.kdf", "pbkdf2", "it is no keystore: 'prf' is missing or not a text"),
    ("crypto.kdfparams", MISSING, "it is no keystore: 'kdfparams' is missing or not an object"),
    ("crypto.kdfparams.salt", "0", f"'salt' is not {DAMAGED}"),
    ("crypto.kdfparams.salt", "", "the password is wrong, or the file is damaged: its MAC differs"),
    ("crypto.kdfparams.dklen", 31, "'dklen' is 31: only 32 to 137438953440 can be read"),
    ("crypto.kdfparams.n", 1, "'n' is 1: only 2 to 524288 can be read"),
    ("crypto.kdfparams.n", 15, "scrypt with n = 15, r = 8, p = 1: N must be a power of 2"),
    ("crypto.kdfparams.n", 1 << 20, "'n' is 1048576: only 2 to 524288 can be read"),
    ("crypto.kdfparams.n", 16.0, "it is no keystore: 'n' is missing or not an integer"),
    ("crypto.kdfparams.r", 0, "'r' is 0: only 1 to 32 can be read"),
    ("crypto.kdfparams.r", 33, "'r' is 33: only 1 to 32 can be read"),
    ("crypto.kdfparams.p", 0, "'p' is 0: only 1 to 16 can be read"),
    ("crypto.kdfparams.p", 17, "'p' is 17: only 1 to 16 can be read"),
    ("address", 5, "it is no keystore: 'address' is missing or not a text"),
    ("address", "00" * 20, f"'address' is '{'00' * 20}', but the key in it is of 0x008AeEda4D805471dF9b2A5B0f38A0C3b"),
]
PBKDF2_CHANGES: list[tuple[str, object, str]] = [
    ("crypto.kdfparams.prf", "hmac-sha512", "'prf' is 'hmac-sha512': only hmac-sha256 can be read"),
    ("crypto.kdfparams.c", 0, "'c' is 0: only 1 to 10000000 can be read"),
    ("crypto.kdfparams.c", 10_000_001, "'c' is 10000001: only 1 to 10000000 can be read"),
    ("crypto.kdfparams.c", MISSING, "it is no keystore: 'c' is missing or not an integer"),
    ("crypto.kdfparams.dklen", 16, "'dklen' is 16: only 32 to 137438953440 can be read"),
    ("crypto.kdfparams.salt", "é", f"'salt' is not {DAMAGED}"),
]


@pytest.mark.parametrize(
    ("kdf", "path", "value", "message"),
    [("scrypt", *change) for change in CHANGES] + [("pbkdf2", *change) for change in PBKDF2_CHANGES],
)
def test_keystores_that_are_refused(kdf: str, path: str, value: object, message: str) -> None:
    document = seal(kdf)
    *parents, name = path.split(".")
    section = document
    for parent in parents:
        section = section[parent]
    assert name in section
    if value is MISSING:
        del section[name]
    else:
        section[name] = value
    assert refuse(to_json(document)).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is no keystore: not JSON (Expecting value"),
        (b"\xff\xfe", "it is no keystore: not JSON ("),
        (KEY_HEX.encode(), "it is no keystore: not JSON ("),
        (b"[" * 50_000, "it is no keystore: not JSON ("),
        (b"1" * 5_000, "it is no keystore: not JSON ("),
        (b"[]", "it is no keystore: the JSON is no object"),
        (b"3", "it is no keystore: the JSON is no object"),
        (b"{}", "it is no keystore: 'version' is missing or not an integer"),
        (b'{"version": 3}', "it is no keystore: 'crypto' is missing or not an object"),
    ],
)
def test_no_keystores(data: bytes, message: str) -> None:
    assert refuse(data).startswith(message)


@pytest.mark.parametrize("secret", [0, ORDER, 2**256 - 1])
def test_a_keystore_of_no_key(secret: int) -> None:
    message = refuse(to_json(seal(secret=f"{secret:064x}")))
    assert message == "what it holds is no key of secp256k1: restore a copy"


def give_the_key_or_refuse(data: bytes) -> None:
    try:
        key = decrypt_key(data, PASSWORD)
    except NodeError:
        return
    assert key.secret.hex() == KEY_HEX


DOCUMENTS = [to_json(seal(kdf)) for kdf in ("scrypt", "pbkdf2")]


@pytest.mark.parametrize("data", DOCUMENTS, ids=["scrypt", "pbkdf2"])
def test_every_bit_flipped(data: bytes) -> None:
    """A flipped bit never gives another key, and no other exception than the one for people."""
    for i in range(8 * len(data)):
        changed = bytearray(data)
        changed[i // 8] ^= 1 << i % 8
        give_the_key_or_refuse(bytes(changed))


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.data())
def test_a_byte_replaced(data: bytes, draw: st.DataObject) -> None:
    position, byte = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(0, 255))
    give_the_key_or_refuse(data[:position] + bytes([byte]) + data[position + 1 :])


# Files


def test_names_as_geth_gives_them() -> None:
    name = get_keystore_name(compute_address(KEY), 1_770_000_000_012_345_678)
    assert name == f"UTC--2026-02-02T02-40-00.012345678Z--{ADDRESS}"


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


Write = Callable[[Path], None]
WRITERS: dict[str, Write] = {
    "keystore": lambda path: write_keystore(KEY, PASSWORD, path, LIGHT_N),
    "plain": lambda path: write_plain_key(KEY, path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_files_are_private_and_never_overwritten(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "key"
    before = os.umask(0)  # the mode must not lean on the user's mask
    try:
        write(path)
    finally:
        os.umask(before)
    assert get_mode(path) == 0o600
    content = path.read_bytes()
    with pytest.raises(NodeError) as caught:
        write(path)
    assert str(caught.value) == f"{path} exists, and no key is ever overwritten: give another name"
    assert path.read_bytes() == content
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NodeError, match="exists, and no key is ever overwritten"):
        write(link)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_files_that_cannot_be_written(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NodeError, match="cannot be written: No such file or directory"):
        write(tmp_path / "none" / "key")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NodeError, match="cannot be written: No space left on device"):
        write(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


def test_files_round_trip(tmp_path: Path) -> None:
    write_keystore(KEY, PASSWORD, tmp_path / "a", LIGHT_N)
    assert read_keystore(tmp_path / "a", PASSWORD).secret == KEY.secret
    with pytest.raises(NodeError, match=rf"^{re.escape(str(tmp_path / 'a'))}: the password is wrong"):
        read_keystore(tmp_path / "a", b"")
    write_plain_key(KEY, tmp_path / "b")
    assert (tmp_path / "b").read_text() == KEY_HEX + "\n"
    assert read_plain_key(tmp_path / "b").secret == KEY.secret


@pytest.mark.parametrize("read", [lambda path: read_keystore(path, PASSWORD), read_plain_key, read_password])
def test_files_that_cannot_be_read(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(NodeError, match=r"none cannot be read: No such file or directory$"):
        read(tmp_path / "none")
    with pytest.raises(NodeError, match=r"cannot be read: Is a directory$"):
        read(tmp_path)
    large = tmp_path / "large"
    large.touch(0o600)
    large.write_bytes(b"1" * (MAX_FILE_BYTES + 1))
    with pytest.raises(NodeError, match=r"is larger than 65536 bytes: that is no key and no password$"):
        read(large)


@pytest.mark.parametrize("content", [KEY_HEX, KEY_HEX.upper() + "\r\n", f" {KEY_HEX}\n\n"])
def test_plain_keys(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(content.encode())
    assert read_plain_key(tmp_path / "key").secret == KEY.secret


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        KEY_HEX[:-1],
        KEY_HEX + "0",
        KEY_HEX[:-1] + "g",
        KEY_HEX[:32] + "  " + KEY_HEX[34:],
        "0x" + KEY_HEX,
        "0" * 64,
        f"{ORDER:x}",
        "\0" * 64,
        "١" * 64,
    ],
)
def test_plain_keys_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content.encode())
    with pytest.raises(NodeError) as caught:
        read_plain_key(path)
    assert str(caught.value) == f"{path} holds no key: restore a copy, or move it away to get a new one"


@pytest.mark.parametrize(("content", "password"), [(b"pass word \r\nmore", b"pass word "), (b"\xff", b"\xff")])
def test_passwords(tmp_path: Path, content: bytes, password: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    assert read_password(tmp_path / "password") == password


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\nsecond line"])
def test_no_password(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(NodeError, match=r"password has no password: write it into the first line$"):
        read_password(tmp_path / "password")


# The data directory's key


def test_the_miner_key_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "chain"
    address = load_or_make_miner_key(folder)
    path = folder / MINER_KEY_NAME
    assert get_mode(path) == 0o600
    assert [file.name for file in folder.iterdir()] == ["miner.key"]
    assert load_or_make_miner_key(folder) == address == compute_address(read_plain_key(path))
    assert load_or_make_miner_key(tmp_path / "other") != address


KILLED_MAKING_A_KEY = """
import os, sys
from pathlib import Path
from poaid import keys
keys.os.fdopen = lambda *_, **__: os._exit(9)  # the file is there, and nothing in it
keys.load_or_make_miner_key(Path(sys.argv[1]))
"""


def test_a_start_that_was_killed_while_it_made_the_key_is_made_good(tmp_path: Path) -> None:
    program = [sys.executable, "-c", KILLED_MAKING_A_KEY, str(tmp_path)]
    assert subprocess.run(program, check=False).returncode == 9
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [0]
    assert load_or_make_miner_key(tmp_path) == load_or_make_miner_key(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [MINER_KEY_NAME]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644])
def test_a_miner_key_that_others_may_use(tmp_path: Path, mode: int) -> None:
    load_or_make_miner_key(tmp_path)
    path = tmp_path / MINER_KEY_NAME
    path.chmod(mode)
    with pytest.raises(NodeError) as caught:
        load_or_make_miner_key(tmp_path)
    assert str(caught.value) == f"{path} is open to other users (mode 0{mode:o}): run `chmod 600 {path}`"
    path.chmod(0o400)
    load_or_make_miner_key(tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_peer_identity_that_others_may_use(tmp_path: Path, mode: int) -> None:
    """Who has it speaks in this node's name, and can have it banned."""
    seed, path = load_identity(tmp_path), tmp_path / IDENTITY_FILE
    path.chmod(mode)
    with pytest.raises(NodeError) as caught:
        load_identity(tmp_path)
    assert str(caught.value) == f"{path} is open to other users (mode 0{mode:o}): run `chmod 600 {path}`"
    path.chmod(0o400)
    assert load_identity(tmp_path) == seed


def test_a_damaged_miner_key_is_kept(tmp_path: Path) -> None:
    load_or_make_miner_key(tmp_path)
    path = tmp_path / MINER_KEY_NAME
    path.write_text("half a k")
    with pytest.raises(NodeError, match="holds no key: restore a copy"):
        load_or_make_miner_key(tmp_path)
    assert path.read_text() == "half a k"


def test_a_data_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(NodeError, match=r"give a --data-dir that can be written$"):
            load_or_make_miner_key(folder)


# poaid generate-key


@pytest.fixture
def generate(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `poaid generate-key` in an empty folder, without a terminal."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command("generate-key")(generate_key)
    monkeypatch.setattr(cli, "app", app)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return lambda *arguments: run("generate-key", *arguments)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_bytes(PASSWORD + b"\n")
    return path


def test_generate_an_encrypted_key(generate: Run, password_file: Path) -> None:
    status, out, err = generate("--password-file", password_file)
    assert (status, err) == (0, "")
    (file,) = Path().iterdir()
    key = read_keystore(file, PASSWORD)
    address = compute_address(key)
    note = "encrypted: keep it and the password, neither can be made again"
    assert out == f"address: {format_address(address)}\nfile: {file} ({note})\n"
    assert re.fullmatch(r"UTC--\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{9}Z--" + address.hex(), file.name)
    assert get_mode(file) == 0o600
    params = json.loads(file.read_bytes())["crypto"]["kdfparams"]
    assert (params["n"], params["r"], params["p"]) == (262144, 8, 1)


def test_generate_a_plain_key(generate: Run) -> None:
    status, out, err = generate("--plain")
    assert (status, err) == (0, "")
    (file,) = Path().iterdir()
    key = read_plain_key(file)
    address = compute_address(key)
    assert file.name == f"{address.hex()}.key"
    assert out.splitlines() == [
        f"address: {format_address(address)}",
        f"file: {file} (not encrypted: whoever reads it owns the account)",
    ]


def test_the_private_key_is_shown_on_demand(generate: Run) -> None:
    _, out, _ = generate("--plain", "--show-private-key", "--out", "a.key")
    assert out.splitlines()[2:] == [f"private key: {read_plain_key(Path('a.key')).secret.hex()}"]


def test_generate_into_a_folder_or_file(generate: Run) -> None:
    Path("keys").mkdir()
    assert generate("--plain", "--out", "keys")[0] == 0
    (file,) = Path("keys").iterdir()
    assert generate("--plain", "--out", "keys/b")[0] == 0
    assert compute_address(read_plain_key(Path("keys/b"))) != compute_address(read_plain_key(file))
    content = Path("keys/b").read_bytes()
    assert generate("--plain", "--out", "keys/b") == (
        1,
        "",
        "error: keys/b exists, and no key is ever overwritten: give another name\n",
    )
    assert Path("keys/b").read_bytes() == content


def test_a_folder_that_is_named_as_one_is_made(generate: Run) -> None:
    assert generate("--plain", "--out", "new/keys/")[0] == 0
    (file,) = Path("new/keys").iterdir()
    assert file.suffix == ".key"
    assert Path("new/keys").stat().st_mode & 0o777 == 0o700
    assert generate("--plain", "--out", f"{file}/") == (
        1, "", f"error: {file}/ cannot be made: File exists; give another --out\n",
    )  # fmt: skip


def test_a_made_miner_key_is_the_data_directorys(generate: Run) -> None:
    Path("chain").mkdir()
    _, out, _ = generate("--plain", "--out", f"chain/{MINER_KEY_NAME}")
    assert out.startswith(f"address: {format_address(load_or_make_miner_key(Path('chain')))}\n")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "--password-file is missing, and there is no terminal to ask at: give it, or --plain"),
        (("--plain", "--password-file", "x"), 2, "--plain does not encrypt: leave out --plain or --password-file"),
        (("--password-file", "none"), 1, "none cannot be read: No such file or directory"),
        (("--password-file", os.devnull), 1, "/dev/null has no password: write it into the first line"),
        (("--plain", "--out", "none/key"), 1, "none/key cannot be written: No such file or directory"),
    ],
)
def test_errors_are_one_line(generate: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    assert generate(*arguments) == (status, "", f"error: {message}\n")
    assert list(Path().iterdir()) == []


def test_standard_input_may_be_closed(generate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = generate()
    assert (status, err.partition(",")[0]) == (2, "error: --password-file is missing")


def test_unknown_arguments(generate: Run) -> None:
    assert generate("--odd")[0] == 2
    assert generate("more")[0] == 2
    assert list(Path().iterdir()) == []


def test_a_terminal_is_asked_twice_and_shows_nothing(tmp_path: Path) -> None:
    """An empty password is asked for again, and so are two that differ."""
    terminal, end = pty.openpty()
    script = "import typer; from poaid.cli.keys import generate_key; typer.run(generate_key)"
    command = [sys.executable, "-c", script, "--out", str(tmp_path / "key")]
    # In a session of its own: otherwise it would ask at the terminal from which the tests were started.
    with subprocess.Popen(
        command, stdin=end, stdout=subprocess.PIPE, stderr=end, start_new_session=True, text=True
    ) as process:
        os.close(end)
        shown = ""
        for prompt, typed in [
            ("Password: ", ""),
            ("Password: ", "hidden"),
            ("Repeat for confirmation: ", "hiden"),
            ("Password: ", "hidden"),
            ("Repeat for confirmation: ", "hidden"),
        ]:
            new = ""
            while not new.endswith(prompt):
                new += os.read(terminal, 1024).decode()
            os.write(terminal, typed.encode() + b"\n")
            shown += new
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(terminal)
    assert process.returncode == 0
    assert "The two entered values do not match" in shown
    assert "hid" not in shown
    key = read_keystore(tmp_path / "key", b"hidden")
    assert out.startswith(f"address: {format_address(compute_address(key))}\nfile: {tmp_path / 'key'} (encrypted: ")


def test_keys_are_random() -> None:
    assert len({make_key().secret for _ in range(5)}) == 5
