"""Keys and addresses of accounts, as Ethereum has them, and the two kinds of file that hold a key.

A keystore is encrypted with a password; Ethereum's wallets read and write the same format. A plain key is 64
hexadecimal digits, for a node that starts with nobody at the keyboard. Both are made with mode 0600, so that only their
owner reads them, and never overwritten: the account of a lost key is lost. No message and no log has a key in it.

Two libraries that look made for keystores do not do. eth-keyfile caps pycryptodome below the version in
constraints.txt. `hashlib.scrypt` (OpenSSL) refuses n = 2^18 with r = 1, which the definition's own test vector has;
pycryptodome's scrypt takes it.

References: Web3 Secret Storage Definition, version 3 (ethereum.org); EIP-55; Ethereum yellow paper, appendix F;
RFC 7914 (scrypt); RFC 8018 (PBKDF2).
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from coincurve import PrivateKey
from Crypto.Cipher import AES
from Crypto.Protocol.KDF import scrypt

from poai_spec.basics.notation import Address, Hash32, keccak256
from poaid.errors import NodeError, UsageError

MINER_KEY_NAME = "miner.key"
"""The plain key in a data directory."""
IDENTITY_FILE = "p2p.key"
"""The secret of the node's peer identity, in a data directory."""

SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 18, 8, 1
"""What scrypt costs in new keystores: 256 MiB and about a second for each password tried; geth's default."""
MAX_SCRYPT_BYTES = 512 << 20
"""Memory 128 * n * r that a keystore may ask for: twice geth's default, and still there on a small machine."""
MAX_SCRYPT_R = 32
"""Block size in units of 128 bytes; wallets use 8, the definition's vector 1."""
MAX_SCRYPT_P = 16
"""Runs of the memory-hard part; wallets use 1 to 8. With the memory above it bounds the time, to half a minute."""
MAX_PBKDF2_ROUNDS = 10_000_000
"""Some three seconds; wallets write 262,144."""
MAX_DKLEN = (2**32 - 1) * 32
"""RFC 7914's and RFC 8018's own limit. Only the first 32 bytes are used, and only they are computed."""
MAX_FILE_BYTES = 1 << 16
"""A keystore has 500 bytes and a plain key 65."""

_VERSION = 3
_DERIVED_BYTES = 32
_TYPE_NAMES = {dict: "an object", str: "a text", int: "an integer"}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_PLAIN_KEY = re.compile(rb"[0-9a-fA-F]{64}")

T = TypeVar("T")


def make_key() -> PrivateKey:
    """Return a new secp256k1 key from the system's random numbers."""
    return PrivateKey()


def compute_address(key: PrivateKey) -> Address:
    """Return the account of a key: the last 20 bytes of the Keccak-256 of the public point, x || y big-endian."""
    return keccak256(key.public_key.format(compressed=False)[1:])[-20:]


def format_address(address: Address) -> str:
    """Return `0x...` with EIP-55's checksum: a letter is a capital where the digits' hash has a digit of 8 or more."""
    digits = address.hex()
    marks = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(d.upper() if mark >= "8" else d for d, mark in zip(digits, marks, strict=False))


def parse_address(text: str, what: str = "--miner-address") -> Address:
    """Return the 20 bytes of an `0x...` address.

    Args:
        text: letters all small, all capital, or with EIP-55's checksum.
        what: the flag that it was given with, for the message.

    Raises:
        UsageError: not 40 hexadecimal digits after 0x, or a wrong checksum.
    """
    if not _ADDRESS.fullmatch(text):
        raise UsageError(f"{what} {text!r} is no address: give 0x and 40 hexadecimal digits")
    digits = text.removeprefix("0x")
    address = bytes.fromhex(digits)
    if digits not in (digits.lower(), digits.upper()) and text != format_address(address):
        raise UsageError(
            f"{what} {text!r} has a wrong checksum, so a digit or letter is wrong: copy it again "
            "(EIP-55 is in small and capital letters; with small letters only nothing is checked)"
        )
    return address


def encrypt_key(key: PrivateKey, password: bytes, scrypt_n: int = SCRYPT_N) -> str:
    """Return the JSON text of a new keystore.

    Args:
        key: what it holds.
        password: UTF-8, as other wallets take it.
        scrypt_n: a power of two; only tests have a reason for less than the default.
    """
    salt, iv = secrets.token_hex(32), secrets.token_bytes(16)
    kdf_params = {"dklen": _DERIVED_BYTES, "n": scrypt_n, "p": SCRYPT_P, "r": SCRYPT_R, "salt": salt}
    derived = _derive_scrypt(password, kdf_params)
    ciphertext = _apply_cipher(derived, iv, key.secret)
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": iv.hex()},
        "ciphertext": ciphertext.hex(),
        "kdf": "scrypt",
        "kdfparams": kdf_params,
        "mac": _compute_mac(derived, ciphertext).hex(),
    }
    document = {"address": compute_address(key).hex(), "crypto": crypto, "id": str(uuid.uuid4()), "version": _VERSION}
    return json.dumps(document)


def decrypt_key(data: bytes, password: bytes) -> PrivateKey:
    """Return the key of a keystore.

    The MAC covers the ciphertext but not the initialisation vector; damage there shows only in the address, which
    other wallets may leave out.

    Args:
        data: JSON.
        password: UTF-8.

    Raises:
        NodeError: no keystore of version 3, an unknown algorithm, a value beyond its limit, the wrong password, or
            another key than the address says.
    """
    document = _parse_document(data)
    crypto = _get(document, "crypto", dict)
    _check_name(crypto, "cipher", "aes-128-ctr")
    iv = _get_hex(_get(crypto, "cipherparams", dict), "iv", 16)
    ciphertext, mac = _get_hex(crypto, "ciphertext", 32), _get_hex(crypto, "mac", 32)
    derived = _derive(password, crypto)
    if not hmac.compare_digest(_compute_mac(derived, ciphertext), mac):
        raise NodeError("the password is wrong, or the file is damaged: its MAC differs")
    try:
        key = PrivateKey(_apply_cipher(derived, iv, ciphertext))
    except ValueError as error:
        raise NodeError("what it holds is no key of secp256k1: restore a copy") from error
    if "address" in document:
        _check_address(_get(document, "address", str), key)
    return key


def _parse_document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5,000 digits, or nested too deep
        raise NodeError(f"it is no keystore: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise NodeError("it is no keystore: the JSON is no object")
    version = _get(document, "version", int)
    if version != _VERSION:
        raise NodeError(f"it is a keystore of version {version!r:.40}: only version {_VERSION} can be read")
    return document


def _get(section: dict[str, Any], name: str, kind: type[T]) -> T:
    value = section.get(name)
    if type(value) is not kind:  # True is an int to isinstance
        raise NodeError(f"it is no keystore: {name!r} is missing or not {_TYPE_NAMES[kind]}")
    return value


def _get_int(section: dict[str, Any], name: str, least: int, most: int) -> int:
    value = _get(section, name, int)
    if not least <= value <= most:
        raise NodeError(f"{name!r} is {value!r:.40}: only {least} to {most} can be read")
    return value


def _get_hex(section: dict[str, Any], name: str, length: int | None = None) -> bytes:
    text = _get(section, name, str)
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if value.hex() != text.lower() or (length is not None and len(value) != length):  # fromhex skips blanks
        size = "" if length is None else f"{2 * length} "
        raise NodeError(f"{name!r} is not {size}hexadecimal digits: the file is damaged, restore a copy")
    return value


def _check_name(section: dict[str, Any], name: str, known: str) -> None:
    value = _get(section, name, str)
    if value != known:
        raise NodeError(f"{name!r} is {value!r:.40}: only {known} can be read")


def _check_address(text: str, key: PrivateKey) -> None:
    found = compute_address(key)
    if text.lower().removeprefix("0x") != found.hex():
        raise NodeError(
            f"'address' is {text!r:.50}, but the key in it is of {format_address(found)}: the file is damaged, "
            "restore a copy"
        )


def _derive(password: bytes, crypto: dict[str, Any]) -> bytes:
    """Return the 32 bytes that a keystore's key derivation makes of the password."""
    kdf, params = _get(crypto, "kdf", str), _get(crypto, "kdfparams", dict)
    if kdf == "scrypt":
        return _derive_scrypt(password, params)
    if kdf == "pbkdf2":
        return _derive_pbkdf2(password, params)
    raise NodeError(f"'kdf' is {kdf!r:.40}: only scrypt and pbkdf2 can be read")


def _derive_scrypt(password: bytes, params: dict[str, Any]) -> bytes:
    salt = _get_hex(params, "salt")
    _get_int(params, "dklen", _DERIVED_BYTES, MAX_DKLEN)
    r, p = _get_int(params, "r", 1, MAX_SCRYPT_R), _get_int(params, "p", 1, MAX_SCRYPT_P)
    n = _get_int(params, "n", 2, MAX_SCRYPT_BYTES // (128 * r))
    try:
        return scrypt(password, salt, _DERIVED_BYTES, N=n, r=r, p=p)
    except ValueError as error:  # not a power of two, or no memory
        raise NodeError(f"scrypt with n = {n}, r = {r}, p = {p}: {error}") from error


def _derive_pbkdf2(password: bytes, params: dict[str, Any]) -> bytes:
    _check_name(params, "prf", "hmac-sha256")
    salt, rounds = _get_hex(params, "salt"), _get_int(params, "c", 1, MAX_PBKDF2_ROUNDS)
    _get_int(params, "dklen", _DERIVED_BYTES, MAX_DKLEN)
    return hashlib.pbkdf2_hmac("sha256", password, salt, rounds, _DERIVED_BYTES)


def _apply_cipher(derived: bytes, iv: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt with AES-128 in counter mode, which is its own inverse."""
    return AES.new(derived[:16], AES.MODE_CTR, nonce=b"", initial_value=iv).encrypt(data)


def _compute_mac(derived: bytes, ciphertext: bytes) -> Hash32:
    return keccak256(derived[16:32] + ciphertext)


def get_keystore_name(address: Address, time_ns: int) -> str:
    """Return the file name that geth gives a keystore.

    Args:
        address: of its key.
        time_ns: when it is made, nanoseconds since 1970.
    """
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"UTC--{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H-%M-%S}.{nanoseconds:09d}Z--{address.hex()}"


def write_keystore(key: PrivateKey, password: bytes, path: Path, scrypt_n: int = SCRYPT_N) -> None:
    """Write a new keystore with mode 0600; see `encrypt_key`.

    Raises:
        NodeError: the file is there already, or cannot be written.
    """
    _write_new(path, encrypt_key(key, password, scrypt_n) + "\n")


def read_keystore(path: Path, password: bytes) -> PrivateKey:
    """Return the key of a keystore file.

    Raises:
        NodeError: it cannot be read; or see `decrypt_key`.
    """
    data, _ = _read_small(path)
    try:
        return decrypt_key(data, password)
    except NodeError as error:
        raise NodeError(f"{path}: {error}") from error


def write_plain_key(key: PrivateKey, path: Path) -> None:
    """Write the key as 64 hexadecimal digits into a new file with mode 0600.

    Raises:
        NodeError: the file is there already, or cannot be written.
    """
    _write_new(path, key.secret.hex() + "\n")


def read_plain_key(path: Path) -> PrivateKey:
    """Return the key of a file that `write_plain_key` made.

    Raises:
        NodeError: it cannot be read, others than its owner may use it, or it holds no key.
    """
    digits = _PLAIN_KEY.fullmatch(read_private(path).strip())
    try:
        return PrivateKey(bytes.fromhex(digits[0].decode("ascii")) if digits else bytes(32))
    except ValueError as error:  # 0, or beyond the order of the curve
        raise NodeError(f"{path} holds no key: restore a copy, or move it away to get a new one") from error


def load_or_make_miner_key(data_dir: Path) -> Address:
    """Return the account of the data directory's own key, which is made, like the folder, if it is not there.

    Raises:
        NodeError: the folder cannot be made or written, or see `read_plain_key`.
    """
    path = data_dir / MINER_KEY_NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_whole(path, make_key().secret.hex() + "\n")
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}; give a --data-dir that can be written") from error
    return compute_address(read_plain_key(path))


def choose_miner(named: Address | None, data_dir: Path) -> Address:
    """Return the account that gets the subsidies: the one that is named, else that of the data directory's own key."""
    return load_or_make_miner_key(data_dir) if named is None else named


def read_password(path: Path) -> bytes:
    """Return the first line of a file without its end, as geth does.

    Raises:
        NodeError: it cannot be read, or the line is empty.
    """
    data, _ = _read_small(path)
    password = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not password:
        raise NodeError(f"{path} has no password: write it into the first line")
    return password


def write_whole(path: Path, text: str) -> None:
    """Write a secret into a file of mode 0600 that is there whole or not at all, also where its writer is killed.

    For files that a node makes for itself: where a half would lie, the next start would be refused.

    Raises:
        OSError: it cannot be put in its place.
        NodeError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # of a start that was killed
    _write_new(part, text)
    part.replace(path)


def _write_new(path: Path, text: str) -> None:
    """Write a file of mode 0600 that must not be there yet, synced; nothing is left of it after a failure."""
    try:
        with ExitStack() as on_failure:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            on_failure.callback(path.unlink)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            on_failure.pop_all()
    except FileExistsError as error:
        raise NodeError(f"{path} exists, and no key is ever overwritten: give another name") from error
    except OSError as error:
        raise NodeError(f"{path} cannot be written: {error.strerror}") from error


def read_private(path: Path) -> bytes:
    """Return the bytes of a file that its owner alone may use.

    Raises:
        NodeError: it cannot be read, others may use it, or it is too large for a key.
    """
    data, mode = _read_small(path)
    if mode & 0o077:
        raise NodeError(f"{path} is open to other users (mode {mode:04o}): run `chmod 600 {path}`")
    return data


def _read_small(path: Path) -> tuple[bytes, int]:
    """Return a file's bytes and its permissions."""
    try:
        with path.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode & 0o777, file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise NodeError(f"{path} is larger than {MAX_FILE_BYTES} bytes: that is no key and no password")
    return data, mode


def load_identity(data_dir: Path) -> bytes:
    """Return the secret of the node's peer identity, made at the first start; a file of mode 0600.

    Raises:
        NodeError: the file is damaged, open to other users, or cannot be read or written.
    """
    path = data_dir / IDENTITY_FILE
    try:
        if not path.exists():
            write_whole(path, secrets.token_hex(32) + "\n")
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}; give a --data-dir that can be written") from error
    try:
        seed = bytes.fromhex(read_private(path).decode("ascii"))
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise NodeError(f"{path} is damaged: restore it, or remove it to get a new peer identity")
    return seed
