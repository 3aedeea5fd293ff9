"""Vectors of the page `production`: the stamp, the core and the block that a maker makes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poai_spec.basics.containers import compute_block_hash, compute_core_hash
from poai_spec.basics.encoding import encode
from poai_spec.chain.production import choose_timestamp, compute_earliest_timestamp, make_block, make_template
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.engine import Evaluation
from poai_tools.vectors.cases import Case, CaseFile, derive, derive_seed
from poai_tools.vectors.chains import make_header_chain
from poai_tools.vectors.kinds import ADDRESS, HASH32, UINT64, Array, Hex, Integer, Kind, RecordKind
from poai_tools.vectors.network import make_network, make_upgrades, read_rules
from poai_tools.vectors.records import BALANCES, CONFIG, HEADER, HEADER_CORE, UPGRADES, read_state
from poai_tools.vectors.registry import Function, register

SUITE = "production"
PLACE: dict[str, Kind] = {"config": CONFIG, "upgrades": UPGRADES, "chain": Array(HEADER, least=1)}
STAMPS = [1000, 1100, 1200, 1300, 5000, 1400, 1500, 1600, 5100, 5200, 5300, 5400]
"""Block 5 ends the first period with a stamp far ahead of its neighbours'."""


def _register(name: str, summary: str, takes: Mapping[str, Kind], gives: Mapping[str, Kind], run: Any) -> Function:
    return register(Function(SUITE, name, "production", summary, RecordKind(takes), RecordKind(gives), run))


def _read_place(i: Mapping[str, Any]) -> Any:
    return read_rules({**i, "height": len(i["chain"])})


def _choose_timestamp(i: Mapping[str, Any]) -> dict[str, Any]:
    rules = _read_place(i)
    return {
        "earliest": compute_earliest_timestamp(i["chain"], rules),
        "timestamp": choose_timestamp(i["chain"], rules, i["now"]),
    }


def _make_template(i: Mapping[str, Any]) -> dict[str, Any]:
    core = make_template(i["chain"], read_state(i["accounts"]), _read_place(i), i["miner"], i["timestamp"])
    return {"core": core, "hash": compute_core_hash(core)}


def _make_block(i: Mapping[str, Any]) -> dict[str, Any]:
    block = make_block(i["core"], Evaluation(i["nlls"], i["trace"]))
    return {"data": encode(block), "hash": compute_block_hash(block.header)}


CHOOSE_TIMESTAMP = _register(
    "choose_timestamp", "the least stamp of the next block, and the one that a maker takes at a time",
    {**PLACE, "now": UINT64}, {"earliest": UINT64, "timestamp": UINT64}, _choose_timestamp,
)  # fmt: skip
MAKE_TEMPLATE = _register(
    "make_template", "the core of the next block, nonce 0, and its hash",
    {**PLACE, "accounts": BALANCES, "miner": ADDRESS, "timestamp": UINT64}, {"core": HEADER_CORE, "hash": HASH32},
    _make_template,
)  # fmt: skip
MAKE_BLOCK = _register(
    "make_block", "the block of a core and an evaluation, encoded",
    {"core": HEADER_CORE, "nlls": Array(Integer(0, 2**34 - 1)), "trace": Array(HASH32)},
    {"data": Hex(2**16, exact=False), "hash": HASH32}, _make_block,
)  # fmt: skip
MADE = "Headers as in the suite header: stamps by hand, loss and digest drawn, nonces the first that win."
FLAGS = {
    "clock": ("the clock is behind the chain", "a client that takes the clock's time makes blocks that nobody takes"),
    "boundary": ("a period ends, or rules change", "a client that looks at the median alone, or at the old rules, "
                 "makes blocks that nobody takes"),
}  # fmt: skip


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_stamps_file(), _templates_file(), _blocks_file()]


def _place(height: int, *, upgraded: bool = False) -> dict[str, Any]:
    config, upgrades = make_network(), make_upgrades() if upgraded else ()
    chain = make_header_chain(config, STAMPS, "production", upgrades)[:height]
    return {"config": config, "upgrades": upgrades, "chain": tuple(chain)}


def _stamps_file() -> CaseFile:
    start, cases = make_network().genesis_timestamp, []
    for height in (1, 2, 5, 6, 9, 12):
        flags = ("boundary",) if height % 4 == 1 else ()
        for name, now, more in (("early", 0, ("clock",)), ("late", 10**6, ())):
            values = _place(height) | {"now": start + now}
            cases.append(Case(f"height-{height}-{name}", f"clock {now} ms after genesis", values, (*flags, *more)))
    for height in (10, 12):
        values = _place(height, upgraded=True) | {"now": start}
        cases.append(Case(f"upgraded-{height}", "periods of 3 from block 9 on", values, ("boundary", "clock")))
    return CaseFile(CHOOSE_TIMESTAMP, MADE, tuple(cases), FLAGS)


def _templates_file() -> CaseFile:
    start, cases = make_network().genesis_timestamp, []
    accounts = ({"address": b"\x11" * 20, "balance": 5 * 10**18},)
    for height in (1, 2, 5, 6, 10):
        values = _place(height) | {"accounts": accounts, "miner": b"\x22" * 20, "timestamp": start + 6000}
        cases.append(Case(f"height-{height}", "another miner than before", values))
    for height in (3, 4, 9, 10):
        values = _place(height, upgraded=True) | {"accounts": (), "miner": b"\x11" * 20, "timestamp": start + 7000}
        cases.append(Case(f"upgraded-{height}", "across upgrades", values, ("boundary",)))
    return CaseFile(MAKE_TEMPLATE, MADE, tuple(cases), {"boundary": FLAGS["boundary"]})


def _blocks_file() -> CaseFile:
    place, drbg = _place(3), derive(SUITE, "evaluation")
    rules = get_rules(place["config"], (), 3)
    core = make_template(place["chain"], {}, rules, b"\x11" * 20, place["config"].genesis_timestamp + 6000)
    cases = []
    for name, entries, scored in (("mini", 4, 2), ("one", 1, 1), ("long", 31, 8)):
        trace = tuple(derive_seed(SUITE, f"{name}-{n}") for n in range(entries))
        nlls = tuple(drbg.below(2**34) for _ in range(scored))
        values = {"core": replace(core, nonce=entries), "nlls": nlls, "trace": trace}
        cases.append(Case(name, f"{entries} entries", values))
    return CaseFile(MAKE_BLOCK, "Drawn.", tuple(cases))
