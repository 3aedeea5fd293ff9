"""The bytes of a container, field by field, with what the pages say of each; and the hex dump that is made of them.

Exports: `Field`, `lay_out`, `format_dump`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from inspect import getdoc
from typing import Any

from ssz.sedes import List, UInt

from poai_spec.basics.encoding import get_sedes

OFFSET_BYTES = 4
DUMP_WIDTH = 16
"""Bytes on a line of the dump, as in those of other programs."""
ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)
"""An entry under `Attributes:` in a docstring, with the lines that it goes on in."""


@dataclass(frozen=True)
class Field:
    """Some bytes of an encoding that have one meaning.

    Attributes:
        path: the way to it, such as `header.core.height` or `trace[0]`.
        offset: where it begins, from the first byte of all.
        type: its SSZ type; `offset` for the 4 bytes that lead to a part of variable size.
        data: its bytes.
        meaning: what the page says of it.
    """

    path: str
    offset: int
    type: str
    data: bytes
    meaning: str

    @property
    def name(self) -> str:
        """The last part of the path, of an offset the last two."""
        return ".".join(self.path.split(".")[-2 if self.type == "offset" else -1 :])

    @property
    def number(self) -> int:
        """The bytes as SSZ reads an integer."""
        return int.from_bytes(self.data, "little")


def lay_out(kind: type, data: bytes, path: str = "", start: int = 0) -> Iterator[Field]:
    """Yield the fields of a container in the order of their bytes.

    Args:
        kind: a container class of the pages.
        data: bytes that `poai_spec.basics.encoding.decode` accepts.
        path: goes before the name of each field.
        start: goes to the offset of each field.
    """
    meanings, at = read_meanings(kind), 0
    tails: list[tuple[str, Any]] = []
    begins: list[int] = []
    for f in fields(kind):
        sedes, name = f.metadata["sedes"], path + f.name
        if not get_sedes(sedes).is_fixed_sized:
            part = data[at : at + OFFSET_BYTES]
            yield Field(f"{name}.offset", start + at, "offset", part, f"offset of {f.name}, counted from byte {start}")
            tails.append((name, sedes))
            begins.append(int.from_bytes(part, "little"))
            at += OFFSET_BYTES
            continue
        end = at + get_sedes(sedes).get_fixed_size()
        yield from _lay_out_one(sedes, data[at:end], name, start + at, meanings[f.name])
        at = end
    for (name, sedes), begin, end in zip(tails, begins, [*begins, len(data)][1:], strict=True):
        yield from _lay_out_one(sedes, data[begin:end], name, start + begin, "")


def _lay_out_one(sedes: Any, data: bytes, name: str, start: int, meaning: str) -> Iterator[Field]:
    if isinstance(sedes, type):
        yield from lay_out(sedes, data, f"{name}.", start)
    elif isinstance(sedes, List):
        yield from _lay_out_list(sedes.element_sedes, data, name, start)
    else:
        yield Field(name, start, name_type(sedes), data, meaning)


def _lay_out_list(item: Any, data: bytes, name: str, start: int) -> Iterator[Field]:
    if not item.is_fixed_sized:  # byte lists, the only such items there are
        yield from _lay_out_byte_lists(data, name, start)
        return
    size = item.get_fixed_size()
    for at in range(0, len(data), size):
        yield Field(f"{name}[{at // size}]", start + at, name_type(item), data[at : at + size], "")


def _lay_out_byte_lists(data: bytes, name: str, start: int) -> Iterator[Field]:
    first = int.from_bytes(data[:OFFSET_BYTES], "little")
    begins = [int.from_bytes(data[at : at + OFFSET_BYTES], "little") for at in range(0, first, OFFSET_BYTES)]
    for number, at in enumerate(range(0, first, OFFSET_BYTES)):
        part = data[at : at + OFFSET_BYTES]
        yield Field(
            f"{name}[{number}].offset",
            start + at,
            "offset",
            part,
            f"offset of item {number}, counted from byte {start}",
        )
    for number, (begin, end) in enumerate(zip(begins, [*begins, len(data)][1:], strict=True)):
        yield Field(f"{name}[{number}]", start + begin, "bytes", data[begin:end], "")


def name_type(sedes: Any) -> str:
    """Return what the pages call a basic SSZ type of fixed size."""
    return f"uint{sedes.num_bits}" if isinstance(sedes, UInt) else f"bytes{sedes.get_fixed_size()}"


def read_meanings(kind: type) -> dict[str, str]:
    """Return what a container's docstring says of each field, in one line, without the stop at its end."""
    found = ATTRIBUTE.findall(getdoc(kind) or "")
    return {name: " ".join(text.split()).removesuffix(".") for name, text in found}


def format_dump(layout: Sequence[Field], notes: Sequence[str]) -> Iterator[str]:
    """Yield the lines of an annotated hex dump: offset, at most 16 bytes, and with a field's first ones its name.

    Args:
        layout: from `lay_out`.
        notes: what to say beside each field's name.
    """
    width = max(len(field.name) for field in layout)
    for field, note in zip(layout, notes, strict=True):
        for at in range(0, max(len(field.data), 1), DUMP_WIDTH):
            line = f"{field.offset + at:04x}  {field.data[at : at + DUMP_WIDTH].hex(' '):{3 * DUMP_WIDTH - 1}}"
            yield (f"{line}  {field.name:{width}}  {note}" if at == 0 else line).rstrip()
