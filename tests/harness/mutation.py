"""Hostile inputs: valid values, broken in the ways in which decoders break.

Everything is drawn from a `random.Random`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from random import Random
from typing import Any

from ssz.sedes import Boolean, ByteList, ByteVector, List, UInt

from poai_spec.basics.encoding import encode

MOST_EDITS = 3
LONGEST_DRAWN = 3
"""Items of a list that is drawn: the limits are reached by `repeat`, not by drawing."""
NEAR = 48
"""Bytes from the beginning in which every fourth edit falls: versions, counts and first offsets stand there."""
LONGEST_NOISE = 600
REPEATS = (*[1] * 12, *[2] * 4, 33, 33, 64, 600)
"""Up to above `MAX_HEADERS`; most inputs stay short, since a long one costs as much time as hundreds of them."""
POOL = 64
"""Valid values of a kind that are edited: enough for every shape of short lists."""
NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 12, 16, 31, 32, 33, 36, 64, 127, 128, 216, 255, 256, 512, 513, 8_452, 2**15, 2**16 - 1, 2**20,
    2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
"""Lengths, offsets and counts at which something begins or ends."""


# Values of a container


def make_value(rng: Random, kind: Any, item: type | None = None) -> Any:
    """Draw a value of an SSZ type or container class; lists are short."""
    if isinstance(kind, type):
        return kind(*(make_value(rng, f.metadata["sedes"], f.metadata["item"]) for f in fields(kind)))
    if isinstance(kind, UInt):
        most = 2**kind.num_bits - 1
        return min(rng.choice(NUMBERS), most) if rng.randrange(2) else rng.randint(0, most)
    if isinstance(kind, Boolean):
        return rng.randrange(2) == 1
    if isinstance(kind, ByteVector):
        return rng.randbytes(kind.max_length)
    if isinstance(kind, ByteList):
        return rng.randbytes(rng.randint(0, min(kind.max_length, 40)))
    assert isinstance(kind, List), kind
    length = rng.randint(0, min(kind.max_length, LONGEST_DRAWN))
    return tuple(make_value(rng, item or kind.element_sedes) for _ in range(length))


def make_pool(kind: type) -> list[bytes]:
    """Return encodings of values of a container class, the same in every run."""
    rng = Random(kind.__name__)
    return [encode(make_value(rng, kind)) for _ in range(POOL)]


# Edits of bytes


def _spot(rng: Random, data: bytes) -> int:
    """Draw a position: often near the beginning, every other time a multiple of four, where lengths and offsets are."""
    at = rng.randint(0, len(data) if rng.randrange(4) else min(len(data), NEAR))
    return at - at % 4 if rng.randrange(2) else at


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    start = _spot(rng, data)
    length = rng.choice((1, 2, 4, 8, 20, 32, 216)) if rng.randrange(2) else rng.randint(0, LONGEST_NOISE)
    return start, min(len(data), start + length)


def flip(rng: Random, data: bytes) -> bytes:
    """Turn over one bit."""
    if not data:
        return data
    at = min(_spot(rng, data), len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def put_number(rng: Random, data: bytes) -> bytes:
    """Write a number, little-endian, over what is there: often one near the length of something."""
    size, at = rng.choice((1, 4, 4, 4, 8)), _spot(rng, data)
    near = len(data) + rng.randint(-5, 5)
    old = int.from_bytes(data[at : at + size], "little")
    number = rng.choice((*NUMBERS, near, near - at, old + 1, old - 1, old + 4, old - 4))
    return data[:at] + (number & ((1 << 8 * size) - 1)).to_bytes(size, "little") + data[at + size :]


def cut(rng: Random, data: bytes) -> bytes:
    """Leave the end out."""
    return data[: _spot(rng, data)]


def delete(rng: Random, data: bytes) -> bytes:
    """Leave a span out."""
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def repeat(rng: Random, data: bytes) -> bytes:
    """Repeat a span, up to lists of a length that is above their limit."""
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice(REPEATS) + data[end:]


def insert(rng: Random, data: bytes) -> bytes:
    """Put in bytes that are drawn."""
    at = _spot(rng, data)
    return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]


def swap(rng: Random, data: bytes) -> bytes:
    """Let two neighbouring spans change places."""
    start, middle = _span(rng, data)
    end = min(len(data), middle + max(1, middle - start))
    return data[:start] + data[middle:end] + data[start:middle] + data[end:]


EDITS: Sequence[Callable[[Random, bytes], bytes]] = (
    flip, flip, put_number, put_number, cut, delete, repeat, insert, swap,
)  # fmt: skip


def broken(rng: Random, valid: bytes, most: int = MOST_EDITS) -> bytes:
    """Edit valid bytes; about one input in four is left whole, and a few are only noise."""
    if rng.randrange(32) == 31:
        return rng.randbytes(rng.randint(0, LONGEST_NOISE))
    for _ in range(rng.randint(0, most)):
        valid = rng.choice(EDITS)(rng, valid)
    return valid


def break_one(pool: Sequence[bytes], most: int = MOST_EDITS) -> Callable[[Random], bytes]:
    """Return what draws one of several valid inputs and edits it; every eighth is one's head and another's tail."""

    def make(rng: Random) -> bytes:
        data = rng.choice(pool)
        if rng.randrange(8) == 7:
            data = cut(rng, data) + rng.choice(pool)[rng.randint(0, len(data)) :]
        return broken(rng, data, most)

    return make


# Edits of JSON and TOML values

ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 2**256, 10**400, -0.0, 0.5, 1e300, float("inf"), float("nan"),
    "", "0", "0x", "0x00", "é", "\ud800", "\0", "\n", "\x1b[31m", "a" * 5_000, "1" * 5_000, [], [[]], [0], [None], {},
    {"": 0}, [[0, 1], [2]], ["a"], [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]],
)  # fmt: skip
ODD_KEYS = ("", "a" * 300, "\n", "\ud800", "__proto__")
MOST_CHARACTERS = 9
"""Of a text that is drawn."""


def make_text(rng: Random) -> str:
    """Draw a short text of any characters, half surrogate pairs among them."""
    most = rng.choice((127, 127, 0x7FF, 0x10FFFF))
    return "".join(chr(rng.randint(0, most)) for _ in range(rng.randint(0, MOST_CHARACTERS)))


def odd_json(rng: Random, value: Any) -> Any:
    """Return a JSON value with one place changed: another value there, a key gone, new or renamed, an item twice."""
    if isinstance(value, dict) and value and rng.randrange(6):
        return _odd_object(rng, value)
    if isinstance(value, list) and value and rng.randrange(4):
        at = rng.randrange(len(value))
        item = odd_json(rng, value[at])
        return rng.choice(([*value, item], [*value[:at], *value[at + 1 :]], [*value[:at], item, *value[at + 1 :]]))
    if isinstance(value, str) and rng.randrange(2):
        return broken(rng, value.encode("utf-8", "replace"), 2).decode("utf-8", "replace")
    if type(value) is int and rng.randrange(2):
        return value + rng.choice((1, -1, 2, -2))
    return rng.choice(ODD_VALUES)


def _odd_object(rng: Random, value: dict[str, Any]) -> dict[str, Any]:
    key = rng.choice(sorted(value))
    change = rng.randrange(10)
    if change < 2:
        rest = {name: part for name, part in value.items() if name != key}
        return rest | {make_text(rng): value[key]} if change else rest
    if change == 2:
        return value | {rng.choice(ODD_KEYS): rng.choice(ODD_VALUES)}
    return value | {key: odd_json(rng, value[key])}


def dump(value: Any) -> bytes:
    """Return JSON as a careless program writes it: with `NaN`, and with half a surrogate pair escaped."""
    return json.dumps(value).encode()


def break_json(values: Sequence[Any]) -> Callable[[Random], bytes]:
    """Return what draws one of several JSON texts: whole, changed in one or two places, or its bytes edited."""

    def make(rng: Random) -> bytes:
        value = rng.choice(values)
        change = rng.randrange(4)
        for _ in range(change % 3):
            value = odd_json(rng, value)
        return broken(rng, dump(value)) if change == 3 else dump(value)

    return make
