"""Vectors of the page `state`: the encoding of accounts, the root of a state, and the credit of a subsidy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poai_spec.basics.containers import HeaderCore
from poai_spec.basics.drbg import Drbg
from poai_spec.chain.header import make_genesis_header
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
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import ADDRESS, HASH32, UINT128, Hex, RecordKind, require
from poai_tools.vectors.network import make_network
from poai_tools.vectors.records import ACCOUNT, ACCOUNTS, HEADER_CORE, list_accounts, read_state
from poai_tools.vectors.registry import Function, register


def _read(accounts: Any) -> State:
    state = read_state(accounts)
    require(len(state) == len(accounts), "accounts: an address occurs twice")
    return state


def _process_credit(i: Mapping[str, Any]) -> dict[str, Any]:
    state = process_credit(_read(i["accounts"]), i["address"], i["amount"])
    return {"accounts": list_accounts(state), "root": compute_state_root(state)}


def _process_header(i: Mapping[str, Any]) -> dict[str, Any]:
    state = process_header(_read(i["accounts"]), i["core"])
    return {"accounts": list_accounts(state), "root": compute_state_root(state)}


def _check_state_root(i: Mapping[str, Any]) -> dict[str, Any]:
    check_state_root(_read(i["accounts"]), i["core"])
    return {}


ENCODE_ACCOUNT = register(
    Function(
        suite="state",
        name="encode_account",
        page="state",
        summary="the RLP of an account",
        input=RecordKind({"account": ACCOUNT}),
        output=RecordKind({"rlp": Hex(110, exact=False)}),
        run=lambda i: {"rlp": encode_account(i["account"])},
    )
)
COMPUTE_STATE_ROOT = register(
    Function(
        suite="state",
        name="compute_state_root",
        page="state",
        summary="the root of a state, whatever the order of its accounts",
        input=RecordKind({"accounts": ACCOUNTS}),
        output=RecordKind({"root": HASH32}),
        run=lambda i: {"root": compute_state_root(_read(i["accounts"]))},
    )
)
PROCESS_CREDIT = register(
    Function(
        suite="state",
        name="process_credit",
        page="state",
        summary="the state after an amount was added to an account; accounts by ascending address",
        input=RecordKind({"accounts": ACCOUNTS, "address": ADDRESS, "amount": UINT128}),
        output=RecordKind({"accounts": ACCOUNTS, "root": HASH32}),
        run=_process_credit,
    )
)
PROCESS_HEADER = register(
    Function(
        suite="state",
        name="process_header",
        page="state",
        summary="the state after a block; accounts by ascending address",
        input=RecordKind({"accounts": ACCOUNTS, "core": HEADER_CORE}),
        output=RecordKind({"accounts": ACCOUNTS, "root": HASH32}),
        run=_process_header,
    )
)
CHECK_STATE_ROOT = register(
    Function(
        suite="state",
        name="check_state_root",
        page="state",
        summary="refuse a header core that commits to another state than `accounts`",
        input=RecordKind({"accounts": ACCOUNTS, "core": HEADER_CORE}),
        output=RecordKind({}),
        run=_check_state_root,
    )
)
POAI = 10**18


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_encode_account(), _state_root(), _credit(), _header(), _check()]


def _encode_account() -> CaseFile:
    accounts = {
        "untouched": Account(),
        "one-wei": Account(balance=1),
        "byte-127": Account(balance=127),
        "byte-128": Account(balance=128),
        "two-bytes": Account(balance=256),
        "subsidy": Account(balance=5 * POAI),
        "nonce": Account(nonce=1, balance=5 * POAI),
        "large-nonce": Account(nonce=2**64 - 1),
        "largest-balance": Account(balance=2**256 - 1),
        "zero-roots": Account(storage_root=bytes(32), code_hash=bytes(32)),
    }
    cases = tuple(
        Case(name, "integers big-endian without leading zeros", {"account": a}) for name, a in accounts.items()
    )
    return CaseFile(ENCODE_ACCOUNT, "Chosen by hand.", cases)


def _draw_accounts(drbg: Drbg, count: int) -> list[dict[str, Any]]:
    rows = [(bytes(drbg.below(256) for _ in range(20)), drbg.next_uint64()) for _ in range(count)]
    return [{"address": address} | vars(Account(balance=balance)) for address, balance in rows]


def _account(address: int, balance: int) -> dict[str, Any]:
    return {"address": address.to_bytes(20, "big")} | vars(Account(balance=balance))


def _state_root() -> CaseFile:
    drawn = _draw_accounts(derive("state", "drawn"), 40)
    lists: dict[str, list[dict[str, Any]]] = {
        "empty": [],
        "zero-address": [_account(0, 5 * POAI)],
        "two": [_account(1, 1), _account(2, 2)],
        "two-reversed": [_account(2, 2), _account(1, 1)],
        "zero-balance": [_account(1, 0)],
        "other-fields": [
            {"address": b"\x01" * 20, "nonce": 7, "balance": 1, "storage_root": b"\x02" * 32, "code_hash": b"\x03" * 32}
        ],
        "extension": [_account(n, (n + 1) * 10**18) for n in (0, 5, 15)],
        "sixteen": [_account(n, n + 1) for n in range(16)],
        "drawn-3": drawn[:3],
        "drawn-17": drawn[:17],
        "drawn-40": drawn,
        "drawn-40-reversed": drawn[::-1],
    }
    cases = [Case(name, f"{len(rows)} accounts", {"accounts": rows}) for name, rows in lists.items()]
    how = "By hand; drawn ones: 20 integers below 256, then a 64-bit balance, of the DRBG of `state/drawn`."
    return CaseFile(COMPUTE_STATE_ROOT, how, tuple(cases))


def _credit() -> CaseFile:
    drawn = _draw_accounts(derive("state", "credit"), 3)
    rows: dict[str, tuple[list[dict[str, Any]], bytes, int]] = {
        "first": ([], b"\x11" * 20, 5 * POAI),
        "known": (drawn, drawn[1]["address"], 5 * POAI),
        "new": (drawn, b"\x11" * 20, 1),
        "nothing-to-new": (drawn, b"\x11" * 20, 0),
        "nothing-to-known": (drawn, drawn[0]["address"], 0),
        "above-uint64": ([_account(1, 2**64 - 1)], (1).to_bytes(20, "big"), 1),
        "above-uint128": ([_account(1, 2**200)], (1).to_bytes(20, "big"), 5),
        "to-the-largest": ([_account(1, 2**256 - 6)], (1).to_bytes(20, "big"), 5),
        "keeps-the-rest": (
            [{"address": bytes(20), "nonce": 9, "balance": 1, "storage_root": b"\x02" * 32, "code_hash": b"\x03" * 32}],
            bytes(20),
            2,
        ),
    }
    zero = ("an amount of zero", "a client that touches the account has an empty account more, and another root")
    cases = [
        Case(
            name,
            f"{amount} wei",
            {"accounts": accounts, "address": address, "amount": amount},
            ("zero",) if amount == 0 else (),
        )
        for name, (accounts, address, amount) in rows.items()
    ]
    how = "By hand; accounts as in compute_state_root, of the DRBG of `state/credit`."
    return CaseFile(PROCESS_CREDIT, how, tuple(cases), {"zero": zero})


def _make_core(height: int, miner: bytes = b"\x11" * 20, **changes: Any) -> HeaderCore:
    return replace(make_genesis_header(make_network()).core, height=height, miner=miner, **changes)


def _header() -> CaseFile:
    rows = {
        "first-block": ([], _make_core(1)),
        "second-block": ([_account(0x11, POAI)], _make_core(2)),
        "same-miner": ([{"address": b"\x11" * 20} | vars(Account(balance=5 * POAI))], _make_core(2)),
        "zero-address": ([], _make_core(1, bytes(20))),
        "after-halving": ([], _make_core(210_001)),
        "no-subsidy": ([_account(5, 1)], _make_core(13_230_001)),
        "genesis": ([], _make_core(0)),
    }
    zero = ("a block without a subsidy", "a client that touches the miner's account has another root")
    cases = [
        Case(
            name,
            f"height {core.height}",
            {"accounts": accounts, "core": core},
            ("zero",) if core.height in (0, 13_230_001) else (),
        )
        for name, (accounts, core) in rows.items()
    ]
    return CaseFile(PROCESS_HEADER, "Chosen by hand.", tuple(cases), {"zero": zero})


def _check() -> CaseFile:
    empty = Case("empty", "no account", {"accounts": [], "core": _make_core(0, state_root=EMPTY_TRIE_ROOT)})
    accounts = _draw_accounts(derive("state", "check"), 5)
    root = compute_state_root(_read(accounts))
    five = Case("five", "five accounts", {"accounts": accounts, "core": _make_core(3, state_root=root)})
    poorer = [*accounts[:4], {**accounts[4], "balance": accounts[4]["balance"] - 1}]
    rows: list[tuple[Case, str, str, dict[str, Any]]] = [
        (empty, "zeros-for-empty", "zeros are not the empty root", {"core": _make_core(0, state_root=bytes(32))}),
        (empty, "code-hash", "another constant", {"core": _make_core(0, state_root=EMPTY_CODE_HASH)}),
        (five, "bit", "the last bit", {"core": _make_core(3, state_root=root[:-1] + bytes([root[-1] ^ 1]))}),
        (five, "one-wei-less", "another balance", {"accounts": poorer}),
        (five, "one-account-less", "an account is missing", {"accounts": accounts[:4]}),
    ]
    cases = [empty, five, *(make_negative(CHECK_STATE_ROOT, *row) for row in rows)]
    how = "By hand; accounts as in compute_state_root, of the DRBG of `state/check`."
    return CaseFile(CHECK_STATE_ROOT, how, tuple(cases))
