"""Random inputs of a kind, mutations of given ones, and simpler ones; all in JSON form."""

from collections.abc import Callable, Iterator
from typing import Any

from poai_spec.basics.drbg import Drbg
from poai_tools.vectors.kinds import Array, Boolean, Hex, Integer, Kind, OneOf, Optional, RecordKind, Table, Text

LONGEST_LIST = 8
LONGEST_BYTES = 256
TEXTS = ("", "a", "0", " ", "Q", "é", "a b")


def draw(kind: Kind, drbg: Drbg) -> Any:
    """Return a value of a kind; boundary values come often, short lists more often than long ones.

    Raises:
        TypeError: there is no generator for this kind: its values come by mutation only.
    """
    for known, generate in _DRAW.items():
        if isinstance(kind, known):
            return generate(kind, drbg)
    raise TypeError(f"no generator for {type(kind).__name__}")


def _draw_integer(kind: Integer, drbg: Drbg) -> Any:
    low, high = kind.low, kind.high
    shape = drbg.below(4)
    if shape == 0:
        value = drbg.choice((low, low + 1, high - 1, high, 0, 1, -1, 2))
    elif shape == 1:
        value = (1 << drbg.below(max(high, -low).bit_length() + 1)) + drbg.between(-1, 1)
        value *= drbg.choice((1, -1)) if low < 0 else 1
    elif shape == 2:
        value = low + drbg.below(min(high - low, 255) + 1)
    else:
        value = low + _draw_bits(drbg, drbg.between(1, (high - low).bit_length() or 1))
    return kind.to_json(min(max(value, low), high))


def _draw_bits(drbg: Drbg, count: int) -> int:
    value = 0
    for _ in range(0, count, 64):
        value = value << 64 | drbg.next_uint64()
    return value & ((1 << count) - 1)


def _draw_hex(kind: Hex, drbg: Drbg) -> Any:
    size = kind.size if kind.exact else drbg.below(min(kind.size, drbg.choice((2, 32, LONGEST_BYTES))) + 1)
    fill = drbg.choice((0, 255, None, None))
    return kind.to_json(bytes([fill] * size) if fill is not None else bytes(drbg.below(256) for _ in range(size)))


def _draw_text(kind: Text, drbg: Drbg) -> Any:
    return drbg.choice(kind.choices or TEXTS)


def _draw_array(kind: Array, drbg: Drbg) -> Any:
    count = kind.least + drbg.below(drbg.choice((2, 4, LONGEST_LIST)) + 1)
    return [draw(kind.item, drbg) for _ in range(count if kind.most is None else min(count, kind.most))]


def _draw_record(kind: RecordKind, drbg: Drbg) -> Any:
    return {key: draw(field, drbg) for key, field in kind.fields.items()}


def _draw_optional(kind: Optional, drbg: Drbg) -> Any:
    return None if drbg.below(4) == 0 else draw(kind.item, drbg)


def _draw_table(kind: Table, drbg: Drbg) -> Any:
    return {drbg.choice(TEXTS): draw(kind.item, drbg) for _ in range(drbg.below(4))}


def _draw_one_of(kind: OneOf, drbg: Drbg) -> Any:
    key = drbg.choice(tuple(kind.fields))
    return {key: draw(kind.fields[key], drbg)}


_DRAW: dict[type, Callable[[Any, Drbg], Any]] = {
    Integer: _draw_integer,
    Hex: _draw_hex,
    Text: _draw_text,
    Boolean: lambda _, drbg: drbg.below(2) == 1,
    Array: _draw_array,
    RecordKind: _draw_record,
    Optional: _draw_optional,
    Table: _draw_table,
    OneOf: _draw_one_of,
}


def mutate(kind: Kind, value: Any, drbg: Drbg) -> Any:
    """Return a value with one place changed."""
    if isinstance(kind, RecordKind | Table | OneOf) and value and (isinstance(kind, RecordKind) or drbg.below(4)):
        key = drbg.choice(tuple(value))
        below = kind.item if isinstance(kind, Table) else kind.fields[key]
        return value | {key: mutate(below, value[key], drbg)}
    if isinstance(kind, Table) and value:
        gone = drbg.choice(tuple(value))
        return {key: item for key, item in value.items() if key != gone}
    if isinstance(kind, Array) and value:
        return _mutate_list(kind, value, drbg)
    if isinstance(kind, Optional) and value is not None and drbg.below(8):
        return mutate(kind.item, value, drbg)
    return _mutate_leaf(kind, value, drbg)


def _mutate_leaf(kind: Kind, value: Any, drbg: Drbg) -> Any:
    if isinstance(kind, Integer) and drbg.below(2):
        near = int(value) + drbg.choice((1, -1, 2, -2, 10, -10))
        return kind.to_json(min(max(near, kind.low), kind.high))
    if isinstance(kind, Hex) and len(value) > 2 and drbg.below(2):
        data = bytearray.fromhex(value[2:])
        data[drbg.below(len(data))] ^= 1 << drbg.below(8)
        return kind.to_json(data)
    try:
        return draw(kind, drbg)
    except TypeError:
        return value


def _mutate_list(kind: Array, value: list[Any], drbg: Drbg) -> list[Any]:
    at = drbg.below(len(value))
    action = drbg.below(6)
    if action == 0:
        return [*value[:at], *value[at + 1 :]]
    if action == 1:
        return [*value[:at], value[at], *value[at:]]
    if action == 2:
        other = drbg.below(len(value))
        swapped = list(value)
        swapped[at], swapped[other] = value[other], value[at]
        return swapped
    return [*value[:at], mutate(kind.item, value[at], drbg), *value[at + 1 :]]


def simplify(kind: Kind, value: Any) -> Iterator[Any]:
    """Yield simpler values, the simplest first: shorter lists, smaller integers, fewer and plainer bytes."""
    for known, generate in _SIMPLIFY.items():
        if isinstance(kind, known):
            yield from generate(kind, value)


def _simplify_integer(kind: Integer, value: Any) -> Iterator[Any]:
    number, least = int(value), min(max(0, kind.low), kind.high)
    step = number - least
    if number < 0 <= kind.high + number:
        yield kind.to_json(-number)
    while step:
        yield kind.to_json(number - step)
        step = step // 2 if step > 0 else -(-step // 2)


def _simplify_hex(kind: Hex, value: Any) -> Iterator[Any]:
    data = bytes.fromhex(value[2:])
    if not kind.exact:
        for length in (0, len(data) // 2, len(data) - 1):
            if 0 <= length < len(data):
                yield kind.to_json(data[:length])
                yield kind.to_json(data[len(data) - length :])
    step = len(data)
    while step and any(data):
        for at in range(0, len(data), step):
            if any(data[at : at + step]):
                yield kind.to_json(data[:at] + bytes(len(data[at : at + step])) + data[at + step :])
        step //= 2


def _simplify_text(kind: Text, value: Any) -> Iterator[Any]:
    if kind.choices:
        yield from kind.choices[: kind.choices.index(value)]
    else:
        yield from dict.fromkeys(value[:n] for n in (0, len(value) // 2, len(value) - 1) if 0 <= n < len(value))


def _simplify_array(kind: Array, value: list[Any]) -> Iterator[Any]:
    step = len(value)
    while step:
        for at in range(0, len(value), step):
            yield [*value[:at], *value[at + step :]]
        step //= 2
    for at, item in enumerate(value):
        for simpler in simplify(kind.item, item):
            yield [*value[:at], simpler, *value[at + 1 :]]


def _simplify_record(kind: RecordKind, value: dict[str, Any]) -> Iterator[Any]:
    for key, field in kind.fields.items():
        for simpler in simplify(field, value[key]):
            yield value | {key: simpler}


def _simplify_optional(kind: Optional, value: Any) -> Iterator[Any]:
    if value is not None:
        yield None
        yield from simplify(kind.item, value)


def _simplify_table(kind: Table, value: dict[str, Any]) -> Iterator[Any]:
    for key in value:
        yield {other: item for other, item in value.items() if other != key}
    for key, item in value.items():
        for simpler in simplify(kind.item, item):
            yield value | {key: simpler}


def _simplify_one_of(kind: OneOf, value: dict[str, Any]) -> Iterator[Any]:
    for key, item in value.items():
        for simpler in simplify(kind.fields[key], item):
            yield {key: simpler}


_SIMPLIFY: dict[type, Callable[[Any, Any], Iterator[Any]]] = {
    Integer: _simplify_integer,
    Hex: _simplify_hex,
    Text: _simplify_text,
    Boolean: lambda _, value: iter((False,) if value else ()),
    Array: _simplify_array,
    RecordKind: _simplify_record,
    Optional: _simplify_optional,
    Table: _simplify_table,
    OneOf: _simplify_one_of,
}
