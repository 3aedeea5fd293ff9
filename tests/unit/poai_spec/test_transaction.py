"""The pages `transaction` and `execution`: round trips, and one defect for every code."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st

from poai_spec.basics.notation import Invalid, keccak256
from poai_spec.execution.execution import check_transaction, compute_gas_price, get_intrinsic_gas, process_transaction
from poai_spec.execution.precompiles import CURVE_ORDER
from poai_spec.execution.state import Account
from poai_spec.execution.transaction import (
    FIELDS_OF_TYPE,
    MAX_U64,
    MAX_U256,
    Transaction,
    compute_signing_hash,
    decode_transaction,
    encode_transaction,
    get_sender,
)
from poai_spec.execution.world import World
from tests.harness.evm import CONTRACT, MINER, OTHER, SENDER, Accounts, get_owner, make_environment, make_key, make_world

CHAIN = 1337
u64, u256 = st.integers(0, MAX_U64), st.integers(0, MAX_U256)
addresses = st.binary(min_size=20, max_size=20)
access_lists = st.lists(st.tuples(addresses, st.lists(u256, max_size=3).map(tuple)), max_size=3).map(tuple)


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    kind = draw(st.integers(0, 2))
    fee = draw(u256)
    return Transaction(
        kind, draw(u64), draw(u64), draw(u256) if kind == 2 else fee, fee, draw(u64), draw(addresses | st.just(b"")),
        draw(u256), draw(st.binary(max_size=60)), draw(access_lists) if kind else (), draw(st.integers(0, 1)),
        draw(u256), draw(u256),
    )  # fmt: skip


@given(transactions())
def test_round_trip(tx: Transaction) -> None:
    assert decode_transaction(encode_transaction(tx)) == tx


def sign(tx: Transaction, number: int = 7) -> Transaction:
    signature = make_key(number).sign_recoverable(compute_signing_hash(tx), hasher=None)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    return replace(tx, y_parity=signature[64], r=r, s=s)


@settings(deadline=None, max_examples=50)
@given(transactions(), st.integers(1, 2**128))
def test_the_sender_is_who_signed(tx: Transaction, number: int) -> None:
    assert get_sender(sign(tx, number), tx.chain_id) == get_owner(make_key(number))


def make_items(kind: int) -> list[Any]:
    """Return the items of a good transaction's list."""
    tx = sign(Transaction(kind, CHAIN, 3, 5, 5, 50_000, OTHER, 9, b"data", ((OTHER, (1,)),) if kind else ()))
    encoded = encode_transaction(tx)
    items: list[Any] = rlp.decode(encoded[1:] if kind else encoded)
    return items


def decode_items(kind: int, items: list[Any]) -> Transaction:
    fields = bytes(rlp.encode(items))
    return decode_transaction(bytes([kind]) + fields if kind else fields)


INTEGERS = {  # places in the list, and bits
    0: {0: 64, 1: 256, 2: 64, 4: 256, 6: 256, 7: 256, 8: 256},
    1: {0: 64, 1: 64, 2: 256, 3: 64, 5: 256, 8: 256, 9: 256, 10: 256},
    2: {0: 64, 1: 64, 2: 256, 3: 256, 4: 64, 6: 256, 9: 256, 10: 256, 11: 256},
}


@pytest.mark.parametrize(("kind", "place"), [(kind, place) for kind, places in INTEGERS.items() for place in places])
def test_integers_have_one_form_and_a_width(kind: int, place: int) -> None:
    bits = INTEGERS[kind][place]
    for wrong in (b"\x00", b"\x00\x01", (1 << bits).to_bytes(33, "big").lstrip(b"\0"), [], [b"\x01"]):
        items = make_items(kind)
        items[place] = wrong
        with pytest.raises(Invalid) as refused:
            decode_items(kind, items)
        assert refused.value.code == "transaction/integer"
    items = make_items(kind)
    items[place] = ((1 << bits) - 1).to_bytes(bits // 8, "big")
    if place != len(items) - 3:  # the parity
        decode_items(kind, items)


def put(place: int, value: Any) -> Callable[[list[Any]], None]:
    def change(items: list[Any]) -> None:
        items[place] = value

    return change


DEFECTS: list[tuple[int, str, Callable[[list[Any]], Any]]] = [
    (1, "transaction/recipient", put(4, bytes(19))),
    (2, "transaction/recipient", put(5, bytes(21))),
    (0, "transaction/recipient", put(3, [OTHER])),
    (0, "transaction/data", put(5, [])),
    (2, "transaction/data", put(7, [b""])),
    (0, "transaction/encoding", lambda items: items.pop()),
    (1, "transaction/encoding", lambda items: items.append(b"")),
    (2, "transaction/encoding", lambda items: items.append(b"")),
    (0, "transaction/unprotected", put(6, b"\x1b")),
    (0, "transaction/unprotected", put(6, b"\x1c")),
    (0, "transaction/unprotected", put(6, b"\x22")),
    (0, "transaction/unprotected", put(6, (35 + 2**65).to_bytes(9, "big"))),
    (1, "transaction/parity", put(8, b"\x02")),
    (2, "transaction/parity", put(9, b"\x1b")),
    (1, "transaction/access-list", put(7, b"")),
    (1, "transaction/access-list", put(7, [b""])),
    (1, "transaction/access-list", put(7, [[OTHER]])),
    (1, "transaction/access-list", put(7, [[OTHER, [], []]])),
    (1, "transaction/access-list", put(7, [[OTHER[:19], []]])),
    (1, "transaction/access-list", put(7, [[[OTHER], []]])),
    (2, "transaction/access-list", put(8, [[OTHER, b""]])),
    (2, "transaction/access-list", put(8, [[OTHER, [bytes(31)]]])),
    (2, "transaction/access-list", put(8, [[OTHER, [[bytes(32)]]]])),
]


@pytest.mark.parametrize(("kind", "code", "change"), DEFECTS)
def test_one_defect(kind: int, code: str, change: Callable[[list[Any]], Any]) -> None:
    items = make_items(kind)
    decode_items(kind, items)
    change(items)
    with pytest.raises(Invalid) as refused:
        decode_items(kind, items)
    assert refused.value.code == code


@pytest.mark.parametrize("encoded", [b"", b"\x00", b"\x03\xc0", b"\x04", b"\x7f", b"\x80", b"\xbf"])
def test_types_that_there_are_not(encoded: bytes) -> None:
    with pytest.raises(Invalid, match=r"first byte"):
        decode_transaction(encoded)


@pytest.mark.parametrize("encoded", [b"\x01", b"\x02\x80", b"\x02\xc1", b"\xc0", b"\x01\xc0", b"\xf8\xff"])
def test_what_is_no_list(encoded: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        decode_transaction(encoded)
    assert refused.value.code == "transaction/encoding"


@given(st.binary(max_size=100), st.sampled_from([b"", b"\x01", b"\x02"]))
def test_any_bytes_decode_or_are_refused(rest: bytes, kind: bytes) -> None:
    try:
        tx = decode_transaction(kind + rest)
    except Invalid:
        return
    assert encode_transaction(tx) == kind + rest


@pytest.mark.parametrize("kind", FIELDS_OF_TYPE)
def test_signatures(kind: int) -> None:
    tx = sign(Transaction(kind, CHAIN, 0, 5, 5, 21_000, OTHER, 1, b""))
    assert get_sender(tx, CHAIN) == get_owner(make_key(7))
    with pytest.raises(Invalid, match="chain") as refused:
        get_sender(tx, CHAIN + 1)
    assert refused.value.code == "transaction/chain-id"
    upper = replace(tx, s=CURVE_ORDER - tx.s, y_parity=1 - tx.y_parity)
    for bad in (upper, replace(tx, r=0), replace(tx, s=0), replace(tx, r=CURVE_ORDER), replace(tx, r=MAX_U256)):
        with pytest.raises(Invalid) as refused:
            get_sender(bad, CHAIN)
        assert refused.value.code == "transaction/signature"


def test_a_megabyte_of_hostile_lists_is_refused_in_time_that_grows_with_it() -> None:
    """Lists in lists end at RLP_DEPTH; a megabyte of empty ones, or of good slots, is a second's work at most."""
    items = make_items(1)
    slots = [bytes(32)] * 31_000
    hostile: list[list[Any]] = [[[]] * 10**6, [[OTHER, slots]]]
    for listed in hostile:
        items[7] = b"\xc0"
        wide = b"".join([b"\xc0"] * 10**6) if listed[0] == [] else bytes(rlp.encode(listed))
        body = wide if listed[0] != [] else b"\xfa" + len(wide).to_bytes(3, "big") + wide
        head = b"".join(bytes(rlp.encode(item)) for item in items[:7]) + body
        head += b"".join(bytes(rlp.encode(item)) for item in items[8:])
        encoded = b"\x01\xfa" + len(head).to_bytes(3, "big") + head
        started = time.process_time()
        try:
            tx = decode_transaction(encoded)
        except Invalid as refused:
            assert refused.code == "transaction/access-list"
        else:
            assert get_intrinsic_gas(tx) == 21_000 + 4 * 16 + 2400 + 1900 * 31_000
        assert time.process_time() - started < 3


# Execution


def make_tx(**changes: Any) -> Transaction:
    plain = Transaction(2, CHAIN, 0, 3, 20, 21_000, OTHER, 1_000, b"")
    return replace(plain, **changes)


def process(tx: Transaction, world: World, gas_left: int = 30_000_000) -> Any:
    environment = make_environment(gas_price=compute_gas_price(tx, 7))
    return process_transaction(world, environment, tx, gas_left)


def test_a_transfer_moves_money_and_pays() -> None:
    world = make_world(balance=10**9)
    outcome = process(make_tx(), world)
    assert (outcome.gas_used, outcome.success, outcome.logs, outcome.contract) == (21_000, True, (), b"")
    assert world.get_changes().accounts == {
        SENDER: Account(1, 10**9 - 1_000 - 21_000 * 10), OTHER: Account(0, 1_000), MINER: Account(0, 21_000 * 3),
    }  # fmt: skip


def test_price_is_base_fee_and_tip_up_to_the_highest() -> None:
    assert [compute_gas_price(make_tx(max_fee=fee), 7) for fee in (7, 9, 10, 20)] == [7, 9, 10, 10]


REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("gas-limit", {"gas": 30_000_001}),
    ("fees", {"max_priority_fee": 21}),
    ("base-fee", {"max_fee": 6, "max_priority_fee": 6}),
    ("init-code", {"to": b"", "data": bytes(49_153), "gas": 10**7}),
    ("intrinsic-gas", {"gas": 20_999}),
    ("intrinsic-gas", {"data": b"\x01", "gas": 21_015}),
    ("intrinsic-gas", {"data": b"\x00", "gas": 21_003}),
    ("intrinsic-gas", {"access_list": ((OTHER, (1, 2)),), "gas": 21_000 + 2400 + 3800 - 1}),
    ("intrinsic-gas", {"to": b"", "data": bytes(33), "gas": 53_000 + 4 * 33 + 3}),
    ("nonce", {"nonce": 1}),
    ("nonce", {"nonce": MAX_U64}),
    ("balance", {"value": 10**20}),
]


@pytest.mark.parametrize(("rule", "changes"), REFUSALS)
def test_refused_transactions_leave_no_trace(rule: str, changes: dict[str, Any]) -> None:
    world = make_world()
    with pytest.raises(Invalid) as refused:
        process(make_tx(**changes), world)
    assert refused.value.code == f"execution/{rule}"
    assert (world.journal, world.accounts) == ([], {})


def test_refusals_by_the_senders_account() -> None:
    for account, nonce, rule in (
        (Account(MAX_U64, 10**20), MAX_U64, "nonce-end"),
        (Account(0, 10**20, code_hash=keccak256(b"\x00")), 0, "sender-code"),
        (Account(5, 10**20), 4, "nonce"),
        (Account(0, 21_000 * 20 + 999), 0, "balance"),
    ):
        with pytest.raises(Invalid) as refused:
            process(make_tx(nonce=nonce), World(Accounts({SENDER: account})))
        assert refused.value.code == f"execution/{rule}"
    assert process(make_tx(), World(Accounts({SENDER: Account(0, 21_000 * 20 + 1_000)}))).success


def test_limits_are_inclusive() -> None:
    check_transaction(make_tx(gas=50_000, max_priority_fee=20), 20, 50_000)
    largest = make_tx(to=b"", data=bytes(49_152), gas=53_000 + 4 * 49_152 + 2 * 1_536)
    check_transaction(largest, 7, largest.gas)


def test_the_refund_is_a_fifth_at_most_and_none_where_it_fails() -> None:
    clear = bytes.fromhex("5f5f55") * 1 + bytes.fromhex("5f600155") + bytes.fromhex("5f600255")
    for code, cleared, success in ((clear, 3, True), (clear + b"\xfe", 0, False)):
        world = make_world({CONTRACT: code})
        world.reader.slots |= {(CONTRACT, n): 9 for n in range(3)}  # type: ignore[attr-defined]
        outcome = process(make_tx(to=CONTRACT, value=0, gas=60_000), world)
        assert outcome.success is success
        used = 21_000 + 3 * 5_000 + 2 + 2 + 2 + 3 + 2 + 3
        assert outcome.gas_used == (used - min(4_800 * cleared, used // 5) if success else 60_000)


def test_a_failed_transaction_pays_and_counts() -> None:
    world = make_world({CONTRACT: bytes.fromhex("6001600155fe")}, balance=10**9)
    outcome = process(make_tx(to=CONTRACT, gas=100_000), world)
    assert (outcome.success, outcome.gas_used, outcome.halted) == (False, 100_000, "no such instruction")
    assert world.get_changes().accounts[SENDER] == Account(1, 10**9 - 10**6)
    assert CONTRACT not in world.get_changes().accounts and not any(world.settled.values())


def test_a_contract_is_made() -> None:
    code = bytes.fromhex("60015ff3")  # returns one zero byte
    world = make_world()
    outcome = process(make_tx(to=b"", data=code, gas=100_000), world)
    assert outcome.success and world.get_account(outcome.contract) == Account(1, 1_000, code_hash=keccak256(b"\0"))
    assert outcome.gas_used == 53_000 + 3 * 16 + 4 * 0 + 16 + 2 + 3 + 2 + 3 + 200
