"""Strategies for hostile inputs: valid values, broken in the ways in which decoders break."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from ssz.sedes import Boolean, ByteList, ByteVector, List, UInt

MOST_EDITS = 3
LONGEST_DRAWN = 3
"""Items of a list that is drawn: the limits are reached by `repeat`, not by drawing."""
MOST_REPEATS = 600
"""Above `MAX_HEADERS`, so that lists of any length below `MAX_CORPUS_ITEMS` are passed."""
NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 12, 16, 31, 32, 33, 36, 64, 127, 128, 216, 255, 256, 512, 513, 8_452, 2**15, 2**16 - 1, 2**20,
    2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
"""Lengths, offsets and counts at which something begins or ends."""


# Values of a container


def values_of(kind: Any, item: type | None = None) -> SearchStrategy[Any]:
    """Return a strategy for the values of an SSZ type or container class; lists are short."""
    if isinstance(kind, type):
        return st.builds(kind, *(values_of(f.metadata["sedes"], f.metadata["item"]) for f in fields(kind)))
    if isinstance(kind, UInt):
        most = 2**kind.num_bits - 1
        return st.one_of(st.integers(0, most), st.sampled_from([n for n in NUMBERS if n <= most]))
    if isinstance(kind, Boolean):
        return st.booleans()
    if isinstance(kind, ByteVector):
        return st.binary(min_size=kind.max_length, max_size=kind.max_length)
    if isinstance(kind, ByteList):
        return st.binary(max_size=min(kind.max_length, 40))
    assert isinstance(kind, List), kind
    items = values_of(item or kind.element_sedes)
    return st.lists(items, max_size=min(kind.max_length, LONGEST_DRAWN)).map(tuple)


# Edits of bytes


def _spot(draw: DrawFn, data: bytes) -> int:
    """Draw a position, every other time a multiple of four, where lengths and offsets stand."""
    at = draw(st.integers(0, len(data)))
    return at - at % 4 if draw(st.booleans()) else at


def _span(draw: DrawFn, data: bytes) -> tuple[int, int]:
    start = _spot(draw, data)
    return start, min(len(data), start + draw(st.sampled_from((1, 2, 4, 8, 20, 32, 216)) | st.integers(0, 600)))


def flip(draw: DrawFn, data: bytes) -> bytes:
    """Turn over one bit."""
    if not data:
        return data
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]


def put_number(draw: DrawFn, data: bytes) -> bytes:
    """Write a number, little-endian, over what is there: often one near the length of something."""
    size, at = draw(st.sampled_from((1, 4, 4, 4, 8))), _spot(draw, data)
    near = len(data) + draw(st.integers(-5, 5))
    old = int.from_bytes(data[at : at + size], "little")
    number = draw(st.sampled_from((*NUMBERS, near, near - at, old + 1, old - 1, old + 4, old - 4)))
    written: bytes = (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    return data[:at] + written + data[at + size :]


def cut(draw: DrawFn, data: bytes) -> bytes:
    """Leave the end out."""
    return data[: _spot(draw, data)]


def delete(draw: DrawFn, data: bytes) -> bytes:
    """Leave a span out."""
    start, end = _span(draw, data)
    return data[:start] + data[end:]


def repeat(draw: DrawFn, data: bytes) -> bytes:
    """Repeat a span, up to lists of a length that is above their limit."""
    start, end = _span(draw, data)
    return data[:end] + data[start:end] * draw(st.sampled_from((1, 1, 1, 33, 64, MOST_REPEATS))) + data[end:]


def insert(draw: DrawFn, data: bytes) -> bytes:
    """Put in bytes that are drawn."""
    at = _spot(draw, data)
    return data[:at] + draw(st.binary(min_size=1, max_size=40)) + data[at:]


def swap(draw: DrawFn, data: bytes) -> bytes:
    """Let two neighbouring spans change places."""
    start, middle = _span(draw, data)
    end = min(len(data), middle + max(1, middle - start))
    return data[:start] + data[middle:end] + data[start:middle] + data[end:]


EDITS: Sequence[Callable[[DrawFn, bytes], bytes]] = (
    flip,
    flip,
    put_number,
    put_number,
    cut,
    delete,
    repeat,
    insert,
    swap,
)


@st.composite
def broken(draw: DrawFn, valid: SearchStrategy[bytes], most: int = MOST_EDITS) -> bytes:
    """Draw valid bytes and edit them; about one input in four is left whole, and a few are only noise."""
    if draw(st.integers(0, 31)) == 31:
        return draw(st.binary(max_size=600))
    data = draw(valid)
    for _ in range(draw(st.integers(0, most))):
        data = draw(st.sampled_from(EDITS))(draw, data)
    return data


# Edits of JSON and TOML values

ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 2**256, 10**400, -0.0, 0.5, 1e300, float("inf"), float("nan"),
    "", "0", "0x", "0x00", "é", "\ud800", "\0", "\n", "\x1b[31m", "a" * 5_000, "1" * 5_000, [], [[]], [0], [None], {},
    {"": 0}, [[0, 1], [2]], ["a"], [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]],
)  # fmt: skip


@st.composite
def odd_json(draw: DrawFn, value: Any) -> Any:
    """Draw a JSON value with one place changed: another value there, a key gone, new or renamed, an item twice."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        return _odd_object(draw, value)
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        item = draw(odd_json(value[at]))
        return draw(
            st.sampled_from(([*value, item], [*value[:at], *value[at + 1 :]], [*value[:at], item, *value[at + 1 :]]))
        )
    if isinstance(value, str) and draw(st.booleans()):
        return draw(broken(st.just(value.encode()), 2)).decode("utf-8", "replace")
    if type(value) is int and draw(st.booleans()):
        return value + draw(st.sampled_from((1, -1, 2, -2)))
    return draw(st.sampled_from(ODD_VALUES))


def _odd_object(draw: DrawFn, value: dict[str, Any]) -> dict[str, Any]:
    key = draw(st.sampled_from(sorted(value)))
    rest = {name: part for name, part in value.items() if name != key}
    change = draw(st.integers(0, 9))
    if change == 0:
        return rest
    if change == 1:
        return rest | {draw(st.text(max_size=9)): value[key]}
    if change == 2:
        return value | {
            draw(st.sampled_from(("", "a" * 300, "\n", "\ud800", "__proto__"))): draw(st.sampled_from(ODD_VALUES))
        }
    return value | {key: draw(odd_json(value[key]))}
