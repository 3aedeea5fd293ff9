"""The appendix of the page `weights`: its tables against the `gguf` package, and a reader that knows nothing else."""

import re
import struct
from math import prod
from pathlib import Path

import gguf
import pytest

from poai_engine.models.gguf_file import ACCEPTED_TYPES, read_gguf
from poai_spec.model.weights import TENSOR_TYPES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "specs" / "model" / "weights.md").read_text("utf-8").partition("## Appendix: the GGUF file")[2]
MINI = ROOT / "test_vectors" / "models" / "poai-mini.gguf"


def read_value_types() -> dict[str, tuple[int, int | None]]:
    """Return number and bytes of each type of value, as the table says."""
    found = {}
    for names, numbers, size in re.findall(
        r"^\| ([A-Z0-9, ]+) \| ([\d, ]+) \| (\d*) ?\| [^|]+ \|$", TEXT, re.MULTILINE
    ):
        for name, number in zip(names.split(", "), numbers.split(", "), strict=True):
            found[name] = int(number), int(size) if size else None
    return found


def read_tensor_types() -> dict[str, int]:
    """Return the number of each tensor type, as the table with two columns of them says."""
    rows = re.findall(r"^\| (\w+) \| (\d+) \| \| (\w*) ?\| (\d*) ?\|", TEXT, re.MULTILINE)
    return {name: int(number) for row in rows for name, number in (row[:2], row[2:]) if name}


def test_the_tables_are_those_of_the_gguf_package() -> None:
    values = read_value_types()
    assert {name: number for name, (number, _) in values.items()} == {t.name: t.value for t in gguf.GGUFValueType}
    for name, (_, size) in values.items():
        kind = gguf.GGUFReader.gguf_scalar_to_np.get(gguf.GGUFValueType[name])
        assert size == (kind().itemsize if kind else None)
    types = read_tensor_types()
    assert types == {name: gguf.GGMLQuantizationType[name].value for name in ACCEPTED_TYPES}
    assert types.keys() == TENSOR_TYPES.keys()
    for name, (elements, size, _) in TENSOR_TYPES.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] == (elements, size)
    assert f"or {gguf.GGUF_DEFAULT_ALIGNMENT} without that key" in TEXT
    assert struct.pack("<II", gguf.GGUF_MAGIC, gguf.GGUF_VERSION) == bytes.fromhex("4747554603000000")
    assert "`47 47 55 46 03 00 00 00`" in TEXT


class Cursor:
    """A place in the bytes of a file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        assert self.at + size <= len(self.data)
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self) -> str:
        return self.take(self.number(8)).decode("utf-8")


def skip_value(cursor: Cursor, number: int) -> bytes:
    """Read a value by the table alone; return the bytes of a scalar."""
    types = {number: (name, size) for name, (number, size) in read_value_types().items()}
    name, size = types[number]
    if name == "STRING":
        return cursor.take(cursor.number(8))
    if name == "ARRAY":
        item, count = cursor.number(4), cursor.number(8)
        for _ in range(count):
            skip_value(cursor, item)
        return b""
    assert size is not None
    return cursor.take(size)


def test_a_reader_of_the_text_alone_finds_the_tensors() -> None:
    cursor, names = Cursor(MINI.read_bytes()), {number: name for name, number in read_tensor_types().items()}
    assert (cursor.take(4), cursor.number(4) in (2, 3)) == (b"GGUF", True)
    tensors, keys = cursor.number(8), cursor.number(8)
    alignment = 32
    for _ in range(keys):
        key = cursor.text()
        value = skip_value(cursor, cursor.number(4))
        if key == "general.alignment":
            alignment = int.from_bytes(value, "little")
    rows = []
    for _ in range(tensors):
        name = cursor.text()
        dimensions = [cursor.number(8) for _ in range(cursor.number(4))]
        rows.append((name, tuple(reversed(dimensions)), names[cursor.number(4)], cursor.number(8)))
    start = -(-cursor.at // alignment) * alignment
    known = read_gguf(MINI).tensors
    assert [row[0] for row in rows] == list(known)
    for name, shape, kind, offset in rows:
        elements, size, _ = TENSOR_TYPES[kind]
        data = cursor.data[start + offset : start + offset + prod(shape) // elements * size]
        assert offset % alignment == 0
        assert (known[name].shape, known[name].type, bytes(known[name].data)) == (shape, kind, data)


@pytest.mark.parametrize("word", ["general.", "tokenizer.", "quantize."])
def test_the_lists_that_are_left_out_are_those_of_the_nodes_reader(word: str) -> None:
    source = (ROOT / "node" / "poai_engine" / "models" / "gguf_file.py").read_text("utf-8")
    assert '("general.", "tokenizer.", "quantize.")' in source
    assert f"`{word}`" in TEXT
