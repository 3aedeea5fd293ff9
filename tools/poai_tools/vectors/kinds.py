"""The kinds of values in vectors: each knows its JSON form, its JSON Schema and its name in the signature table.

Bytes are lowercase hexadecimal after `0x`; integers that can pass 2^53 are decimal strings; fields are always named.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON parser keeps exact (ECMAScript's Number.MAX_SAFE_INTEGER)."""


_HALF_PAIR = re.compile("[\ud800-\udfff]")
"""What an escape of JSON may stand for, and UTF-8 cannot."""


class KindError(Exception):
    """A JSON value is not of the kind that its place asks for; the message says where and why."""


def require(condition: bool, message: str) -> None:
    """Refuse an input that has a function's form but is outside its domain, such as a list that must ascend.

    Raises:
        KindError: the condition does not hold.
    """
    if not condition:
        raise KindError(message)


def find_fault(tokens: Sequence[int], scored: Sequence[int], vocabulary_size: int) -> str | None:
    """Return why a sequence and its scored positions are outside the domain of a pass, or None."""
    if max(tokens) >= vocabulary_size or len(tokens) > 2048:
        return "a token is not in the vocabulary, or too many"
    if any(x >= y for x, y in pairwise(scored)) or not all(1 <= t < len(tokens) for t in scored):
        return "scored is not ascending in 1 .. T - 1"
    return None


class Kind(Protocol):
    """A set of values with a JSON form."""

    @property
    def name(self) -> str:
        """How the signature table calls it."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its JSON form."""
        ...

    def to_json(self, value: Any) -> Any:
        """Return a value's JSON form; the value is of this kind."""
        ...

    def from_json(self, data: Any, where: str) -> Any:
        """Return the value of a JSON form.

        Raises:
            KindError: it is of another kind; the message begins with `where`.
        """
        ...


@dataclass(frozen=True)
class Integer:
    """An integer in `low .. high`: a JSON number if the whole range is safe, else a decimal string."""

    low: int
    high: int

    @property
    def is_text(self) -> bool:
        return self.low < -SAFE_INTEGER or self.high > SAFE_INTEGER

    @property
    def name(self) -> str:
        form = " (decimal string)" if self.is_text else ""
        return f"integer {_show_bound(self.low)}..{_show_bound(self.high)}{form}"

    def schema(self) -> dict[str, Any]:
        if self.is_text:
            return {"type": "string", "pattern": "^(0|-?[1-9][0-9]*)$"}
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def to_json(self, value: Any) -> Any:
        return str(value) if self.is_text else int(value)

    def from_json(self, data: Any, where: str) -> Any:
        if self.is_text:
            if not isinstance(data, str) or not re.fullmatch(r"0|-?[1-9][0-9]{0,400}", data):
                raise KindError(f"{where}: expected an integer as a decimal string")
            data = int(data)
        if type(data) is not int or not self.low <= data <= self.high:
            raise KindError(f"{where}: expected an integer in {self.low}..{self.high}")
        return data


def _show_bound(n: int) -> str:
    """Return a bound, near a large power of two as such."""
    size, sign = abs(n), "-" if n < 0 else ""
    for power, rest in ((size, ""), (size + 1, " - 1")):
        if power >= 2**16 and power & (power - 1) == 0:
            text = f"{sign}2^{power.bit_length() - 1}"
            return f"{sign}(2^{power.bit_length() - 1} - 1)" if sign and rest else text + rest
    return str(n)


@dataclass(frozen=True)
class Hex:
    """Bytes; `size` of them, or any number up to `size` where `exact` is False."""

    size: int
    exact: bool = True

    @property
    def name(self) -> str:
        return f"{self.size} bytes" if self.exact else f"up to {self.size} bytes"

    def schema(self) -> dict[str, Any]:
        count = f"{{{self.size}}}" if self.exact else "*"
        return {"type": "string", "pattern": f"^0x([0-9a-f][0-9a-f]){count}$"}

    def to_json(self, value: Any) -> Any:
        return "0x" + bytes(value).hex()

    def from_json(self, data: Any, where: str) -> Any:
        if not isinstance(data, str) or not re.fullmatch(r"0x([0-9a-f][0-9a-f])*", data):
            raise KindError(f"{where}: expected lowercase hexadecimal bytes after 0x")
        value = bytes.fromhex(data[2:])
        if len(value) > self.size or (self.exact and len(value) != self.size):
            raise KindError(f"{where}: expected {self.name}, found {len(value)}")
        return value


@dataclass(frozen=True)
class Text:
    """A string; one of `choices` if there are any. A long list of choices takes a `title` for the signature table."""

    choices: tuple[str, ...] = ()
    title: str = ""

    @property
    def name(self) -> str:
        return self.title or (" | ".join(self.choices) if self.choices else "text")

    def schema(self) -> dict[str, Any]:
        return {"type": "string"} | ({"enum": list(self.choices)} if self.choices else {})

    def to_json(self, value: Any) -> Any:
        return str(value)

    def from_json(self, data: Any, where: str) -> Any:
        if not isinstance(data, str) or (self.choices and data not in self.choices):
            raise KindError(f"{where}: expected {self.name}")
        if _HALF_PAIR.search(data):
            raise KindError(f"{where}: half of a surrogate pair, which no text has")
        return data


@dataclass(frozen=True)
class Boolean:
    """true or false."""

    name = "boolean"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def to_json(self, value: Any) -> Any:
        return bool(value)

    def from_json(self, data: Any, where: str) -> Any:
        if not isinstance(data, bool):
            raise KindError(f"{where}: expected true or false")
        return data


@dataclass(frozen=True)
class Array:
    """A list of values of one kind, at least `least` of them and at most `most`; a tuple in Python."""

    item: Kind
    least: int = 0
    most: int | None = None

    @property
    def name(self) -> str:
        least = f", at least {self.least}" if self.least else ""
        return f"list of {self.item.name}" + least + (f", at most {self.most}" if self.most is not None else "")

    def schema(self) -> dict[str, Any]:
        limits = {"minItems": self.least or None, "maxItems": self.most}
        found = {"type": "array", "items": self.item.schema()}
        return found | {key: limit for key, limit in limits.items() if limit is not None}

    def to_json(self, value: Any) -> Any:
        return [self.item.to_json(item) for item in value]

    def from_json(self, data: Any, where: str) -> Any:
        if not isinstance(data, list):
            raise KindError(f"{where}: expected a list")
        if len(data) < self.least:
            raise KindError(f"{where}: expected at least {self.least} items, found {len(data)}")
        if self.most is not None and len(data) > self.most:
            raise KindError(f"{where}: expected at most {self.most} items, found {len(data)}")
        return tuple(self.item.from_json(item, f"{where}/{n}") for n, item in enumerate(data))


@dataclass(frozen=True)
class RecordKind:
    """Named fields, all of them present; a dictionary in Python."""

    fields: Mapping[str, Kind]

    @property
    def name(self) -> str:
        return "{" + ", ".join(f"{key}: {kind.name}" for key, kind in self.fields.items()) + "}"

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {key: kind.schema() for key, kind in self.fields.items()},
            "required": list(self.fields),
            "additionalProperties": False,
        }

    def to_json(self, value: Any) -> Any:
        return {key: kind.to_json(value[key]) for key, kind in self.fields.items()}

    def from_json(self, data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise KindError(f"{where}: expected an object")
        if odd := sorted(map(str, data.keys() ^ self.fields.keys())):
            raise KindError(f"{where}: {'unknown' if odd[0] in data else 'missing'} field {odd[0]!r}")
        return {key: kind.from_json(data[key], f"{where}/{key}") for key, kind in self.fields.items()}


@dataclass(frozen=True)
class Optional:
    """A value of a kind, or null (None in Python)."""

    item: Kind

    @property
    def name(self) -> str:
        return f"{self.item.name} or null"

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.item.schema(), {"type": "null"}]}

    def to_json(self, value: Any) -> Any:
        return None if value is None else self.item.to_json(value)

    def from_json(self, data: Any, where: str) -> Any:
        return None if data is None else self.item.from_json(data, where)


@dataclass(frozen=True)
class Table:
    """An object whose field names are data, with values of one kind; a dictionary in Python."""

    item: Kind

    @property
    def name(self) -> str:
        return f"object of {self.item.name}"

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.item.schema()}

    def to_json(self, value: Any) -> Any:
        return {key: self.item.to_json(item) for key, item in value.items()}

    def from_json(self, data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise KindError(f"{where}: expected an object")
        return {key: self.item.from_json(item, f"{where}/{key}") for key, item in data.items()}


@dataclass(frozen=True)
class OneOf:
    """An object with exactly one of several fields, its name saying what the value is; (name, value) in Python."""

    fields: Mapping[str, Kind]

    @property
    def name(self) -> str:
        return " or ".join(f"{{{key}: {kind.name}}}" for key, kind in self.fields.items())

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [RecordKind({key: kind}).schema() for key, kind in self.fields.items()]}

    def to_json(self, value: Any) -> Any:
        key, item = value
        return {key: self.fields[key].to_json(item)}

    def from_json(self, data: Any, where: str) -> Any:
        if not isinstance(data, dict) or len(data) != 1 or not data.keys() <= self.fields.keys():
            raise KindError(f"{where}: expected an object with one of the fields {', '.join(self.fields)}")
        ((key, item),) = data.items()
        return key, self.fields[key].from_json(item, f"{where}/{key}")


UINT8 = Integer(0, 2**8 - 1)
UINT32 = Integer(0, 2**32 - 1)
UINT64 = Integer(0, 2**64 - 1)
UINT128 = Integer(0, 2**128 - 1)
UINT256 = Integer(0, 2**256 - 1)
INT8 = Integer(-(2**7), 2**7 - 1)
INT32 = Integer(-(2**31), 2**31 - 1)
INT64 = Integer(-(2**63), 2**63 - 1)
HASH32 = Hex(32)
ADDRESS = Hex(20)
BOOLEAN = Boolean()
TEXT = Text()
