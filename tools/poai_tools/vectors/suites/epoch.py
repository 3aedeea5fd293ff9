"""Vectors of the page `epoch`: which epoch a height is in, where its seed lies, and the key."""

from dataclasses import replace
from typing import Any

from poai_spec.basics.parameters import Config
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.epoch import compute_epoch_key, get_epoch, get_seed_height
from poai_tools.vectors.cases import Case, CaseFile, derive_seed
from poai_tools.vectors.kinds import HASH32, UINT64, Integer, RecordKind
from poai_tools.vectors.network import make_network
from poai_tools.vectors.registry import Function, register

POSITIVE = Integer(1, 2**32 - 1)

GET_EPOCH = register(
    Function(
        suite="epoch",
        name="get_epoch",
        page="epoch",
        summary="the epoch of a height",
        input=RecordKind({"height": UINT64, "epoch_blocks": POSITIVE}),
        output=RecordKind({"epoch": UINT64}),
        run=lambda i: {"epoch": get_epoch(i["height"], get_rules(_make_config(i), (), 0))},
    )
)
GET_SEED_HEIGHT = register(
    Function(
        suite="epoch",
        name="get_seed_height",
        page="epoch",
        summary="the height of the block whose hash is the seed of an epoch from 1 on",
        input=RecordKind({"epoch": POSITIVE, "epoch_blocks": POSITIVE}),
        output=RecordKind({"height": UINT64}),
        run=lambda i: {"height": get_seed_height(i["epoch"], get_rules(_make_config(i), (), 0))},
    )
)
COMPUTE_EPOCH_KEY = register(
    Function(
        suite="epoch",
        name="compute_epoch_key",
        page="epoch",
        summary="the key of an epoch from its seed",
        input=RecordKind({"seed": HASH32, "epoch": UINT64}),
        output=RecordKind({"key": HASH32}),
        run=lambda i: {"key": compute_epoch_key(i["seed"], i["epoch"])},
    )
)
WIDE = ("values above 2^32 or 2^53", "a client that keeps heights in 32 bits or in a double is wrong here")


def _make_config(values: dict[str, Any]) -> Config:
    return replace(make_network(), epoch_blocks=values["epoch_blocks"])


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_get_epoch(), _get_seed_height(), _compute_epoch_key()]


def _get_epoch() -> CaseFile:
    places = {
        "genesis": (0, 2016),
        "last-of-first": (2015, 2016),
        "first-of-second": (2016, 2016),
        "blocks-of-one": (7, 1),
        "testnet": (59, 20),
        "odd-length": (1000, 3),
        "far": (2**64 - 1, 2016),
        "above-double": (2**53 + 1, 2),
        "longest-epoch": (2**63, 2**32 - 1),
        "highest-of-one": (2**64 - 1, 1),
    }
    cases = [
        Case(name, f"height {h}, {n} blocks an epoch", {"height": h, "epoch_blocks": n}, _flags(h))
        for name, (h, n) in places.items()
    ]
    return CaseFile(GET_EPOCH, "Chosen by hand.", tuple(cases), {"wide": WIDE})


def _get_seed_height() -> CaseFile:
    places = {"first": (1, 2016), "second": (2, 2016), "one-block": (1, 1), "minimal": (5, 4), "far": (2**32 - 1,) * 2}
    cases = [
        Case(name, f"epoch {e}, {n} blocks an epoch", {"epoch": e, "epoch_blocks": n}, _flags(e * n))
        for name, (e, n) in places.items()
    ]
    return CaseFile(GET_SEED_HEIGHT, "Chosen by hand.", tuple(cases), {"wide": WIDE})


def _compute_epoch_key() -> CaseFile:
    cases = [Case(f"zero-seed-{e}", "a seed of zeros", {"seed": bytes(32), "epoch": e}) for e in (0, 1)]
    for epoch in (0, 1, 255, 256, 2**32, 2**53 + 1, 2**64 - 1):
        case_id = f"epoch-{epoch}"
        values = {"seed": derive_seed("epoch", case_id), "epoch": epoch}
        cases.append(Case(case_id, "a derived seed; the epoch as 8 bytes, little-endian", values, _flags(epoch)))
    return CaseFile(
        COMPUTE_EPOCH_KEY,
        "Seeds are Keccak(Keccak('PoAI/vectors/1') || 'epoch/' || id), unless said.",
        tuple(cases),
        {"wide": WIDE},
    )


def _flags(number: int) -> tuple[str, ...]:
    return ("wide",) if number >= 2**32 else ()
