"""Drawn, mutated and simplified inputs are of their kind, and simplifying ends."""

from typing import Any

import pytest

from poai_spec.basics.drbg import Drbg
from poai_tools.vectors.draw import draw, mutate, simplify
from poai_tools.vectors.kinds import (
    ADDRESS,
    BOOLEAN,
    INT64,
    TEXT,
    UINT8,
    UINT256,
    Array,
    Hex,
    Integer,
    Kind,
    KindError,
    OneOf,
    Optional,
    RecordKind,
    Table,
    Text,
)

EVERYTHING = RecordKind(
    {
        "small": UINT8,
        "large": UINT256,
        "signed": INT64,
        "negative": Integer(-9, -3),
        "fixed": ADDRESS,
        "bytes": Hex(40, exact=False),
        "choice": Text(("a", "b", "c")),
        "text": TEXT,
        "flag": BOOLEAN,
        "list": Array(RecordKind({"n": UINT8, "m": Optional(UINT8)})),
        "table": Table(UINT8),
        "one": OneOf({"n": UINT8, "text": TEXT}),
    }
)


def test_drawn_values_are_of_their_kind() -> None:
    drbg = Drbg(bytes(32))
    for _ in range(300):
        EVERYTHING.from_json(draw(EVERYTHING, drbg), "")


def test_boundaries_are_drawn() -> None:
    drbg = Drbg(bytes(32))
    drawn = {draw(INT64, drbg) for _ in range(500)}
    assert {str(-(2**63)), str(2**63 - 1), "0", "1", "-1"} <= drawn


def test_the_same_seed_draws_the_same() -> None:
    assert draw(EVERYTHING, Drbg(b"s" * 32)) == draw(EVERYTHING, Drbg(b"s" * 32)) != draw(EVERYTHING, Drbg(bytes(32)))


def test_mutations_are_of_their_kind_and_change_every_field() -> None:
    drbg = Drbg(bytes(32))
    value = draw(EVERYTHING, drbg)
    changed = set()
    for _ in range(400):
        other = mutate(EVERYTHING, value, drbg)
        EVERYTHING.from_json(other, "")
        changed |= {key for key in value if other[key] != value[key]}
    assert changed == EVERYTHING.fields.keys()


@pytest.mark.parametrize("least", [1, 2])
def test_a_mutation_leaves_its_argument_alone(least: int) -> None:
    kind = Array(UINT8, least)
    value = [5, 6, 7]
    for n in range(50):
        mutate(kind, value, Drbg(bytes([n] * 32)))
    assert value == [5, 6, 7]


def shrink(kind: Kind, value: Any, wanted: Any) -> Any:
    """Simplify as long as `wanted` holds."""
    for _ in range(2000):
        for simpler in simplify(kind, value):
            try:
                kind.from_json(simpler, "")
            except KindError:
                continue
            if wanted(simpler):
                value = simpler
                break
        else:
            return value
    raise AssertionError("simplifying does not end")


SMALLEST = {
    "small": 0, "large": "0", "signed": "0", "negative": -3, "fixed": "0x" + "00" * 20, "bytes": "0x", "choice": "a",
    "text": "", "flag": False, "list": [], "table": {},
}  # fmt: skip


def test_anything_simplifies_to_the_smallest() -> None:
    for n in range(10):
        found = shrink(EVERYTHING, draw(EVERYTHING, Drbg(bytes([n] * 32))), lambda _: True)
        assert found.pop("one") in ({"n": 0}, {"text": ""})
        assert found == SMALLEST


def test_a_condition_is_kept() -> None:
    kind = RecordKind({"n": UINT256, "m": INT64, "list": Array(UINT8), "data": Hex(64, exact=False)})
    value = {"n": str(2**255), "m": str(-(2**63)), "list": [1, 200, 9, 4], "data": "0x0102ff04"}
    found = shrink(
        kind,
        value,
        lambda v: int(v["n"]) > 1000 and int(v["m"]) < -77 and 9 in v["list"] and "ff" in v["data"],
    )
    assert found == {"n": "1001", "m": "-78", "list": [9], "data": "0xff"}
