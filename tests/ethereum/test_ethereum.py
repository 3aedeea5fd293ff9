"""Ethereum's own tests on the pages: a spread of its state tests here, all of them with `make ethereum-tests`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rlp

from poai_spec.basics.notation import Invalid, keccak256
from poai_spec.execution.execution import get_intrinsic_gas
from poai_spec.execution.gas import MAX_INIT_BYTES
from poai_spec.execution.transaction import (
    MAX_U64,
    Transaction,
    compute_transaction_hash,
    decode_transaction,
    get_sender,
)
from poai_spec.execution.trie import RlpError, check_proof, compute_trie_root, decode_rlp, make_proof
from tests.ethereum.archive import MISSING, find_folder, read_files
from tests.ethereum.run import choose, read_cases, read_listed
from tests.ethereum.state_tests import run_case, to_bytes

SAMPLE, LARGE_SAMPLE, PARTS = 400, 4000, 8
UNPROTECTED = "valid in Ethereum, refused here: signed for any chain (EIP-155 is required)"

pytestmark = pytest.mark.sockets


@pytest.fixture(scope="module")
def folder() -> Path:
    found = find_folder()
    if found is None:
        pytest.skip(MISSING)
    return found


def test_a_spread_of_state_tests(folder: Path) -> None:
    cases = choose(folder, SAMPLE)
    assert len(cases) >= SAMPLE
    assert {name: fault for name, test, post in cases if (fault := run_case(test, post))} == {}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_large_spread_of_state_tests(folder: Path, part: int) -> None:
    """In parts, so that several processes share them."""
    cases = choose(folder, LARGE_SAMPLE)
    assert len(cases) >= LARGE_SAMPLE
    assert {name: fault for name, test, post in cases[part::PARTS] if (fault := run_case(test, post))} == {}


def test_the_adapter_sees_a_wrong_result(folder: Path) -> None:
    _, test, post = next(case for case in choose(folder, SAMPLE) if "expectException" not in case[2])
    assert run_case(test, {**post, "hash": "0x" + bytes(32).hex()}).startswith("root ")
    assert run_case(test, {**post, "logs": "0x" + bytes(32).hex()}) == "other logs"
    assert run_case(test, {**post, "expectException": "x"}) == "refused by nothing, expected x"


def test_every_listed_case_exists(folder: Path) -> None:
    assert read_listed().keys() <= {name for name, _, _ in read_cases(folder)}


def is_accepted(tx: Transaction) -> bool:
    """Say whether a well-formed transaction passes the checks that need no state."""
    fits = tx.to or len(tx.data) <= MAX_INIT_BYTES
    payable = tx.max_priority_fee <= tx.max_fee and tx.gas * tx.max_fee < 2**256
    return bool(fits and payable and tx.nonce < MAX_U64 and tx.gas >= get_intrinsic_gas(tx))


def judge(encoded: bytes) -> tuple[str, bytes, bytes]:
    """Return the code that refuses a transaction of chain 1, its sender and its hash."""
    try:
        tx = decode_transaction(encoded)
        sender = get_sender(tx, chain_id=1)
    except Invalid as error:
        return error.code, b"", b""
    return ("" if is_accepted(tx) else "execution"), sender, compute_transaction_hash(encoded)


def test_transactions(folder: Path) -> None:
    accepted = refused = unprotected = 0
    for file, tests in read_files(folder, "TransactionTests").items():
        for name, test in tests.items():
            code, sender, tx_hash = judge(to_bytes(test["txbytes"]))
            wanted = test["result"].get("Cancun")
            if wanted is None:
                continue
            if code == "transaction/unprotected" and "exception" not in wanted:
                unprotected += 1
                continue
            assert bool(code) == ("exception" in wanted), (file, name, code)
            accepted, refused = accepted + (not code), refused + bool(code)
            if not code:
                assert (sender, tx_hash) == (to_bytes(wanted["sender"]), to_bytes(wanted["hash"])), name
    assert (accepted, refused, unprotected) == (17, 99, 33), UNPROTECTED


def to_key(text: str | None) -> bytes:
    """Return a key or value of the trie tests: hex, or text as it is."""
    return to_bytes(text) if text and text.startswith("0x") else (text or "").encode()


def read_tries(folder: Path) -> Iterator[tuple[str, dict[bytes, bytes], bytes]]:
    for file, tests in read_files(folder, "TrieTests").items():
        for name, test in tests.items() if "nextprev" not in file else ():
            given = test["in"].items() if isinstance(test["in"], dict) else test["in"]
            hashed = "secure" in file.lower()
            entries = {keccak256(to_key(k)) if hashed else to_key(k): to_key(v) for k, v in given}
            yield f"{file}:{name}", entries, to_bytes(test["root"])


def test_tries(folder: Path) -> None:
    count = 0
    for name, entries, root in read_tries(folder):
        assert compute_trie_root(entries) == root, name
        for key, value in entries.items():
            assert check_proof(root, key, make_proof(entries, key)) == value, name
        count += 1
    assert count == 25


def to_item(given: Any) -> Any:
    """Return what an RLP test encodes, as bytes and lists."""
    if isinstance(given, list):
        return [to_item(part) for part in given]
    if isinstance(given, str) and given.startswith("#"):
        given = int(given[1:])
    return given.encode() if isinstance(given, str) else given.to_bytes((given.bit_length() + 7) // 8, "big")


def test_rlp(folder: Path) -> None:
    valid = invalid = 0
    for name, test in (row for tests in read_files(folder, "RLPTests").values() for row in tests.items()):
        encoded = to_bytes(test["out"])
        if test["in"] == "INVALID":
            with pytest.raises(RlpError):
                decode_rlp(encoded)
            invalid += 1
        elif test["in"] != "VALID":
            assert decode_rlp(encoded, depth=32) == to_item(test["in"]), name
            assert rlp.encode(to_item(test["in"])) == encoded, name
            valid += 1
    assert (valid, invalid) == (28, 26)


def test_deep_lists_are_refused_without_recursion() -> None:
    deep = b""
    for _ in range(100):
        deep = bytes(rlp.encode([deep])) if len(deep) < 56 else b"\xf8" + bytes([len(deep)]) + deep
    with pytest.raises(RlpError, match="too deep"):
        decode_rlp(deep)
    with pytest.raises(RlpError):
        decode_rlp(b"\xc1" * 10**6)


def test_a_missing_archive_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POAI_ETHEREUM_TESTS", str(tmp_path))
    assert find_folder() is None


def test_an_unpacked_checkout_is_read(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of ethereum/tests itself: one file a test, one entry a fork."""
    name, test, _ = next(iter(read_cases(folder)))
    path = tmp_path / "GeneralStateTests" / test["file"]
    path.parent.mkdir(parents=True)
    content = {key: value for key, value in test.items() if key not in ("file", "name")}
    path.write_text(json.dumps({test["name"]: content, "old": {**content, "post": {"London": []}}}))
    monkeypatch.setenv("POAI_ETHEREUM_TESTS", str(tmp_path))
    again = find_folder()
    assert again == tmp_path
    assert next(case[0] for case in read_cases(again)) == name
