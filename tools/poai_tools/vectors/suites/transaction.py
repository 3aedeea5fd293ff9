"""Vectors of the page `transaction`: decoding, hashes and senders, with one defect for every code."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import coincurve
import rlp

from poai_spec.execution.precompiles import CURVE_ORDER
from poai_spec.execution.transaction import (
    Transaction,
    compute_signing_hash,
    compute_transaction_hash,
    decode_transaction,
    encode_transaction,
    get_sender,
)
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import ADDRESS, HASH32, UINT8, UINT64, UINT256, Array, Hex, RecordKind
from poai_tools.vectors.registry import Function, register

ENCODED = Hex(65_536, exact=False)
ACCESS_LIST = Array(RecordKind({"address": ADDRESS, "slots": Array(UINT256)}))
FIELDS = RecordKind({
    "kind": UINT8, "chain_id": UINT64, "nonce": UINT64, "max_priority_fee": UINT256, "max_fee": UINT256, "gas": UINT64,
    "to": Hex(20, exact=False), "value": UINT256, "data": ENCODED, "access_list": ACCESS_LIST, "y_parity": UINT8,
    "r": UINT256, "s": UINT256,
})  # fmt: skip
CHAIN, OTHER = 1337, bytes(range(20))


def _decode(i: Mapping[str, Any]) -> dict[str, Any]:
    tx = decode_transaction(i["encoded"])
    listed = [{"address": address, "slots": slots} for address, slots in tx.access_list]
    fields = {**vars(tx), "access_list": listed}
    return {
        "transaction": fields,
        "hash": compute_transaction_hash(i["encoded"]),
        "signing_hash": compute_signing_hash(tx),
    }


DECODE_TRANSACTION = register(
    Function(
        suite="transaction",
        name="decode_transaction",
        page="transaction",
        summary="the fields of a transaction, its hash, and what its sender signed",
        input=RecordKind({"encoded": ENCODED}),
        output=RecordKind({"transaction": FIELDS, "hash": HASH32, "signing_hash": HASH32}),
        run=_decode,
    )
)
GET_SENDER = register(
    Function(
        suite="transaction",
        name="get_sender",
        page="transaction",
        summary="who signed a transaction for a chain",
        input=RecordKind({"encoded": ENCODED, "chain_id": UINT64}),
        output=RecordKind({"sender": ADDRESS}),
        run=lambda i: {"sender": get_sender(decode_transaction(i["encoded"]), i["chain_id"])},
    )
)


def sign(tx: Transaction) -> Transaction:
    """Return a transaction signed by the key 1; RFC 6979 makes the signature the same everywhere."""
    key = coincurve.PrivateKey((1).to_bytes(32, "big"))
    signature = key.sign_recoverable(compute_signing_hash(tx), hasher=None)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    return replace(tx, y_parity=signature[64], r=r, s=s)


LISTED = ((OTHER, (0, 2**256 - 1)), (bytes(20), ()))
TRANSACTIONS = {
    "type-0": Transaction(0, CHAIN, 3, 7, 7, 50_000, OTHER, 9, b"data"),
    "type-1": Transaction(1, CHAIN, 3, 7, 7, 50_000, OTHER, 9, b"data", LISTED),
    "type-2": Transaction(2, CHAIN, 3, 5, 7, 50_000, OTHER, 9, b"data", LISTED),
    "type-0-zeros": Transaction(0, CHAIN, 0, 0, 0, 0, OTHER, 0, b""),
    "type-2-zeros": Transaction(2, CHAIN, 0, 0, 0, 0, OTHER, 0, b""),
    "creation": Transaction(2, CHAIN, 1, 5, 7, 100_000, b"", 9, bytes(300)),
    "largest-numbers": Transaction(2, CHAIN, 2**64 - 1, 2**256 - 1, 2**256 - 1, 2**64 - 1, OTHER, 2**256 - 1, b"\x7f"),
    "one-byte-of-data": Transaction(1, CHAIN, 1, 1, 1, 21_016, OTHER, 1, b"\x80"),
    "chain-1": Transaction(0, 1, 9, 20 * 10**9, 20 * 10**9, 21_000, b"\x35" * 20, 10**18, b""),
    "largest-chain": Transaction(0, 2**64 - 1, 0, 1, 1, 21_000, OTHER, 0, b""),
}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_decoding(), _senders()]


def _cut(kind: int, encoded: bytes) -> list[Any]:
    items: list[Any] = rlp.decode(encoded[1:] if kind else encoded)
    return items


def _put(place: int, value: Any) -> Callable[[list[Any]], Any]:
    return lambda items: items.__setitem__(place, value)


DEFECTS: list[tuple[str, str, str, Callable[[list[Any]], Any]]] = [
    ("type-0", "too-few", "eight items", lambda items: items.pop()),
    ("type-1", "too-many", "twelve items", lambda items: items.append(b"")),
    ("type-2", "zero-first", "a nonce with a zero byte first", _put(1, b"\x00\x03")),
    ("type-0", "zero-byte", "a zero as a byte", _put(4, b"\x00")),
    ("type-1", "integer-is-a-list", "a list for the gas", _put(3, [])),
    ("type-2", "gas-65-bits", "gas beyond 64 bits", _put(4, b"\x01" + bytes(8))),
    ("type-0", "nonce-65-bits", "a nonce beyond 64 bits", _put(0, b"\x01" + bytes(8))),
    ("type-1", "chain-65-bits", "a chain beyond 64 bits", _put(0, b"\x01" + bytes(8))),
    ("type-2", "tip-257-bits", "a tip beyond 256 bits", _put(2, b"\x01" + bytes(32))),
    ("type-2", "fee-257-bits", "a fee beyond 256 bits", _put(3, b"\x01" + bytes(32))),
    ("type-1", "value-257-bits", "a value beyond 256 bits", _put(5, b"\x01" + bytes(32))),
    ("type-2", "r-257-bits", "r beyond 256 bits", _put(10, b"\x01" + bytes(32))),
    ("type-0", "recipient-19", "19 bytes", _put(3, bytes(19))),
    ("type-2", "recipient-21", "21 bytes", _put(5, bytes(21))),
    ("type-1", "data-is-a-list", "a list for the data", _put(6, [b"data"])),
    ("type-1", "list-is-a-string", "no list", _put(7, b"")),
    ("type-1", "entry-is-a-string", "an entry that is no list", _put(7, [b""])),
    ("type-2", "entry-of-three", "an entry of three items", _put(8, [[OTHER, [], b""]])),
    ("type-2", "entry-address-19", "an address of 19 bytes", _put(8, [[OTHER[:19], []]])),
    ("type-2", "slot-31", "a slot of 31 bytes", _put(8, [[OTHER, [bytes(31)]]])),
    ("type-0", "v-27", "valid on any chain", _put(6, b"\x1b")),
    ("type-0", "v-34", "no chain", _put(6, b"\x22")),
    ("type-0", "v-of-65-bits", "a chain beyond 64 bits", _put(6, (35 + 2**65).to_bytes(9, "big"))),
    ("type-1", "parity-2", "a parity of 2", _put(8, b"\x02")),
    ("type-2", "parity-27", "a parity of 27", _put(9, b"\x1b")),
]


def _decoding() -> CaseFile:
    signed = {name: encode_transaction(sign(tx)) for name, tx in TRANSACTIONS.items()}
    bases = {name: Case(name, f"type {TRANSACTIONS[name].kind}", {"encoded": data}) for name, data in signed.items()}
    cases = list(bases.values())
    for base, name, comment, change in DEFECTS:
        kind = TRANSACTIONS[base].kind
        items = _cut(kind, signed[base])
        change(items)
        fields = bytes(rlp.encode(items))
        encoded = bytes([kind]) + fields if kind else fields
        cases.append(make_negative(DECODE_TRANSACTION, bases[base], name, comment, {"encoded": encoded}))
    good = signed["type-2"]
    raw = {
        "nothing": b"", "type-3": b"\x03" + good[1:], "type-127": b"\x7f" + good[1:], "type-byte-0": b"\x00" + good[1:],
        "a-string-first": b"\xbf" + good[1:], "left-over": good + b"\x00", "cut": good[:-1], "no-list": b"\x02\x80",
        "longer-length": good[:1] + b"\xf9\x00" + good[2:], "deep": b"\x02" + b"\xc1" * 60 + b"\xc0",
    }  # fmt: skip
    for name, encoded in raw.items():
        cases.append(make_negative(DECODE_TRANSACTION, bases["type-2"], name, "other bytes", {"encoded": encoded}))
    how = "By hand; signed by the private key 1 as RFC 6979 says, with s in the lower half."
    return CaseFile(DECODE_TRANSACTION, how, tuple(cases))


def _senders() -> CaseFile:
    bases = {
        name: Case(name, f"type {tx.kind}", {"encoded": encode_transaction(sign(tx)), "chain_id": tx.chain_id})
        for name, tx in TRANSACTIONS.items()
    }
    cases = list(bases.values())
    for name in ("type-0", "type-1", "type-2"):
        tx = sign(TRANSACTIONS[name])
        changes: dict[str, dict[str, Any]] = {
            "upper-half": {"encoded": replace(tx, s=CURVE_ORDER - tx.s, y_parity=1 - tx.y_parity)},
            "r-zero": {"encoded": replace(tx, r=0)},
            "s-zero": {"encoded": replace(tx, s=0)},
            "r-is-the-order": {"encoded": replace(tx, r=CURVE_ORDER)},
            "no-point": {"encoded": replace(tx, r=5)},  # 5^3 + 7 has no square root
        }
        for defect, change in changes.items():
            values = {"encoded": encode_transaction(change["encoded"])}
            cases.append(make_negative(GET_SENDER, bases[name], f"{name}-{defect}", defect, values))
        cases.append(make_negative(GET_SENDER, bases[name], f"{name}-chain", "another chain", {"chain_id": CHAIN + 1}))
    return CaseFile(GET_SENDER, "As in decode_transaction.", tuple(cases))
