"""Negative cases: a valid case with a defect, and the JSON pointers of the fields in which the two differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from poai_tools.vectors.cases import Case
from poai_tools.vectors.registry import Function

NOT_FINITE = {
    "infinite": 0x7F800000,
    "minus-infinite": 0xFF800000,
    "quiet-nan": 0x7FC00000,
    "signalling-nan": 0x7F800001,
    "minus-nan": 0xFFFFFFFF,
}
"""Bits of F32 values that stand for no number."""
NOT_FINITE_FLAG = {
    "not-finite": (
        "a float32 is an infinity or no number",
        "a client that reads its exponent like any other computes with 2^128",
    )
}


def find_pointers(base: Any, data: Any, where: str = "") -> list[str]:
    """Return the JSON pointers of the smallest values in which two JSON values differ.

    Lists are compared item by item if their lengths are equal and some items are; else the whole list differs.
    """
    if isinstance(base, dict) and isinstance(data, dict) and base.keys() == data.keys():
        return [p for key in base for p in find_pointers(base[key], data[key], f"{where}/{key}")]
    if isinstance(base, list) and isinstance(data, list) and len(base) == len(data):
        equal = sum(x == y for x, y in zip(base, data, strict=True))
        if equal or all(isinstance(x, dict | list) for x in base):
            pairs = enumerate(zip(base, data, strict=True))
            return [p for n, (x, y) in pairs for p in find_pointers(x, y, f"{where}/{n}")]
    return [] if base == data else [where]


def repair(base: Any, data: Any, pointers: Sequence[str]) -> Any:
    """Return a copy of `data` with the values of `base` at some JSON pointers."""
    for pointer in pointers:
        data = _put(base, data, pointer.split("/")[1:])
    return data


def _put(base: Any, data: Any, path: Sequence[str]) -> Any:
    if not path:
        return base
    if isinstance(data, list):
        index = int(path[0])
        return [*data[:index], _put(base[index], data[index], path[1:]), *data[index + 1 :]]
    return {**data, path[0]: _put(base[path[0]], data[path[0]], path[1:])}


def make_negative(
    function: Function,
    base: Case,
    case_id: str,
    comment: str,
    changes: Mapping[str, Any],
    flags: tuple[str, ...] = (),
) -> Case:
    """Return the negative case that differs from `base` in some input fields; the defect's pointers are found."""
    values = {**base.input, **changes}
    pointers = find_pointers(function.input.to_json(base.input), function.input.to_json(values))
    assert pointers, f"{case_id} equals its base"
    return Case(case_id, comment, values, flags, base.id, tuple(pointers))


def refuse_not_finite(function: Function, base: Case, field: str) -> list[Case]:
    """Return one negative case for each kind of float32 that is no number, in the place of an input field."""
    comment, flags = "a float32 that is not finite", tuple(NOT_FINITE_FLAG)
    return [
        make_negative(function, base, f"{field}-{name}", comment, {field: bits}, flags)
        for name, bits in NOT_FINITE.items()
    ]
