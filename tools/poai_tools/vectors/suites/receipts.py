"""Vectors of the page `receipts`: bloom filters and encodings."""

from typing import Any

from poai_spec.execution.receipts import Receipt, compute_bloom, encode_receipt
from poai_spec.execution.world import Log
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.kinds import BOOLEAN, UINT64, Hex, Integer, RecordKind
from poai_tools.vectors.records import LOGS, read_logs
from poai_tools.vectors.registry import Function, register

COMPUTE_BLOOM = register(
    Function(
        suite="receipts",
        name="compute_bloom",
        page="receipts",
        summary="the bloom filter of events: addresses and topics",
        input=RecordKind({"logs": LOGS}),
        output=RecordKind({"bloom": Hex(256)}),
        run=lambda i: {"bloom": compute_bloom(read_logs(i["logs"]))},
    )
)


def _encode(i: dict[str, Any]) -> dict[str, Any]:
    return {"encoded": encode_receipt(Receipt(i["kind"], i["success"], i["cumulative_gas"], read_logs(i["logs"])))}


ENCODE_RECEIPT = register(
    Function(
        suite="receipts",
        name="encode_receipt",
        page="receipts",
        summary="a receipt as the trie holds it",
        input=RecordKind({"kind": Integer(0, 2), "success": BOOLEAN, "cumulative_gas": UINT64, "logs": LOGS}),
        output=RecordKind({"encoded": Hex(65_536, exact=False)}),
        run=_encode,
    )
)
TOKEN, TOPIC = bytes(range(20)), bytes(range(32))
EVENTS: dict[str, list[Log]] = {
    "none": [],
    "address-only": [Log(TOKEN, (), b"")],
    "data-counts-for-nothing": [Log(TOKEN, (), b"data")],
    "four-topics": [Log(TOKEN, (TOPIC, TOPIC[::-1], bytes(32), b"\xff" * 32), bytes(64))],
    "twice": [Log(TOKEN, (TOPIC,), b"\x00"), Log(TOKEN, (TOPIC,), b"\x7f")],
    "many": [Log(bytes([n]) * 20, (bytes([n]) * 32,), bytes([n]) * n) for n in range(60)],
}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    blooms = tuple(Case(name, f"{len(logs)} events", {"logs": _list(logs)}) for name, logs in EVENTS.items())
    rows = [
        ("type-0", 0, True, 21_000, "none"), ("type-1", 1, True, 21_000, "none"),
        ("failed", 2, False, 30_000, "none"), ("large-gas", 0, True, 2**64 - 1, "twice"),
        ("no-gas", 2, True, 0, "four-topics"), ("many", 2, True, 1, "many"),
    ]  # fmt: skip
    receipts = tuple(
        Case(
            name, "one receipt", {"kind": kind, "success": success, "cumulative_gas": gas, "logs": _list(EVENTS[logs])}
        )
        for name, kind, success, gas, logs in rows
    )
    return [CaseFile(COMPUTE_BLOOM, "Chosen by hand.", blooms), CaseFile(ENCODE_RECEIPT, "Chosen by hand.", receipts)]


def _list(logs: list[Log]) -> list[dict[str, Any]]:
    return [log._asdict() for log in logs]
