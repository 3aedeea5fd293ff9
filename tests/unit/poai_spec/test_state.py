"""State: Ethereum's account encoding and trie, and who is credited."""

from copy import deepcopy
from dataclasses import replace

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st

from poai_spec.chain.block import make_genesis
from poai_spec.basics.notation import Invalid, keccak256
from poai_spec.execution.state import (
    EMPTY_CODE_HASH,
    Account,
    State,
    check_state_root,
    compute_state_root,
    encode_account,
    process_credit,
    process_header,
)
from poai_spec.execution.trie import EMPTY_TRIE_ROOT
from tests.harness.spec import get_config

POAI = 10**18
ALICE, BOB = b"a" * 20, b"b" * 20
ADDRESSES = st.binary(min_size=20, max_size=20)
STATES = st.dictionaries(ADDRESSES, st.builds(Account, nonce=st.integers(0, 9), balance=st.integers(0, 2**90)))


def to_nibbles(key: bytes) -> list[int]:
    return [nibble for byte in key for nibble in (byte >> 4, byte & 15)]


def compact(nibbles: list[int], *, leaf: bool) -> bytes:
    flag = 2 * leaf + len(nibbles) % 2
    digits = [flag, *nibbles] if len(nibbles) % 2 else [flag, 0, *nibbles]
    return bytes(16 * high + low for high, low in zip(digits[::2], digits[1::2], strict=True))


def make_node(items: dict[tuple[int, ...], bytes]) -> list[object]:
    """Build a trie node from scratch (yellow paper, appendix D), independently of the `trie` package."""
    keys = list(items)
    if len(keys) == 1:
        return [compact(list(keys[0]), leaf=True), items[keys[0]]]
    shared = 0
    while len({key[shared] for key in keys}) == 1:
        shared += 1
    if shared:
        return [compact(list(keys[0][:shared]), leaf=False), refer({key[shared:]: items[key] for key in keys})]
    children = [refer({key[1:]: items[key] for key in keys if key[0] == nibble}) for nibble in range(16)]
    return [*children, b""]


def refer(items: dict[tuple[int, ...], bytes]) -> object:
    if not items:
        return b""
    node = make_node(items)
    encoded = rlp.encode(node)
    return node if len(encoded) < 32 else keccak256(encoded)


def compute_root_by_hand(state: State) -> bytes:
    items = {tuple(to_nibbles(keccak256(address))): encode_account(account) for address, account in state.items()}
    return keccak256(rlp.encode(make_node(items))) if items else keccak256(rlp.encode(b""))


def test_ethereums_constants() -> None:
    assert EMPTY_TRIE_ROOT.hex() == "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    assert EMPTY_CODE_HASH.hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert compute_state_root({}) == EMPTY_TRIE_ROOT


def test_the_encoding_of_an_account_is_ethereums() -> None:
    assert encode_account(Account()).hex() == f"f8448080a0{EMPTY_TRIE_ROOT.hex()}a0{EMPTY_CODE_HASH.hex()}"
    assert encode_account(Account(nonce=128, balance=1024))[2:7].hex() == "8180820400"
    assert rlp.decode(encode_account(Account(1, 5 * POAI)))[:2] == [b"\x01", (5 * POAI).to_bytes(8, "big")]


@settings(max_examples=60, deadline=None)
@given(STATES)
def test_the_root_is_that_of_a_trie_built_by_hand(state: State) -> None:
    assert compute_state_root(state) == compute_root_by_hand(state)
    assert compute_state_root(dict(reversed(list(state.items())))) == compute_state_root(state)


@given(STATES, ADDRESSES, st.integers(0, 2**70))
def test_a_credit_changes_one_account_and_no_argument(state: State, address: bytes, amount: int) -> None:
    before = deepcopy(state)
    after = process_credit(state, address, amount)
    assert state == before
    if amount == 0:
        assert after == before
        return
    assert after[address] == replace(
        before.get(address, Account()), balance=before.get(address, Account()).balance + amount
    )
    assert {a: x for a, x in after.items() if a != address} == {a: x for a, x in before.items() if a != address}


@pytest.mark.parametrize(
    ("height", "balance"),
    [(1, 5 * POAI), (210_001, 5 * POAI // 2), (63 * 210_000, 1), (63 * 210_000 + 1, None), (0, None)],
)
def test_the_miner_is_credited_with_the_subsidy_of_the_height(height: int, balance: int | None) -> None:
    core = replace(make_genesis(get_config()).header.core, height=height, miner=ALICE)
    state = process_header({BOB: Account(balance=7)}, core)
    assert state == {BOB: Account(balance=7)} | ({} if balance is None else {ALICE: Account(balance=balance)})


def test_two_blocks_add_up_and_the_zero_address_is_no_exception() -> None:
    core = replace(make_genesis(get_config()).header.core, height=3, miner=bytes(20))
    state = process_header(process_header({}, core), core)
    assert state == {bytes(20): Account(balance=10 * POAI)}


def test_the_root_of_the_state_before_the_block_is_refused() -> None:
    core = replace(make_genesis(get_config()).header.core, height=1, miner=ALICE)
    after = process_header({}, core)
    check_state_root(after, replace(core, state_root=compute_state_root(after)))
    with pytest.raises(Invalid) as error:
        check_state_root(after, core)
    assert error.value.code == "state/root"
