"""Read GGUF files that may be hostile.

A GGUF file comes from strangers, and the obvious readers trust it: `gguf.GGUFReader` returns short arrays past the end
of the file without a word, so a forged count of 2^60 keeps it busy for ever, and llama.cpp aborts the whole process on
a vocabulary that repeats a token. Hence this module: it keeps the library's reader, checks every count before it is
used, refuses what the project cannot compute, and reports each refusal as one line. llama.cpp is given only files that
passed `read_gguf` and `read_vocabulary`.

Tensor data are read-only views of the memory-mapped file; a 668 MB model takes no memory until its pages are read.
Only the header, the key-value pairs and the tensor table are parsed (a few milliseconds); arrays of strings are
skipped, and decoded by `read_vocabulary` alone.
"""

import hashlib
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.gguf_reader import GGUFReader, ReaderField

from poai_engine.errors import ModelError
from poai_spec.model.weights import Float32, GgufFile, GgufTensor

ACCEPTED_TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
ACCEPTED_TOKENIZERS = ("llama", "gpt2")

# Limits. Each is far above any model of the accepted architecture and far below what makes a reader slow.
MAX_KEYS = 4_096  # real files hold 20 to 60
MAX_TENSORS = 8_192  # 256 layers (the longest trace) of 12 tensors are 3,072
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MAX_STRING_BYTES = 1 << 20  # chat templates, the longest strings, have some 10 KB
MAX_NAME_BYTES = 64  # GGML_MAX_NAME, which bounds tensor names
MAX_ARRAY_ITEMS = 1 << 21  # over all arrays together; a vocabulary of 256,000 with its merges, types and scores has 1 M
MAX_ALIGNMENT = 1 << 16
MAX_ELEMENTS = 1 << 40  # of one tensor; keeps every product below 2^63

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
TOKEN_TYPE_NAMES = {1: "normal", 2: "unknown", 3: "control", 4: "user-defined", 5: "unused", 6: "byte"}

_AGAIN = "the file is damaged or forged: fetch or copy it again"


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer's part of a GGUF file.

    Attributes:
        model: `llama` (SentencePiece) or `gpt2` (byte-level BPE).
        tokens: the text of each id as stored: UTF-8 bytes, in the tokenizer's own spelling of spaces.
        types: the token type of each id, 1 (normal) to 6 (byte).
        add_bos: whether a sequence begins with `bos_id`.
        bos_id: id of the begin-of-sequence token.
    """

    model: str
    tokens: tuple[bytes, ...]
    types: tuple[int, ...]
    add_bos: bool
    bos_id: int


class _Reader(GGUFReader):  # type: ignore[misc]
    """`GGUFReader` that never reads past the end, loops on a forged count, or decodes long arrays.

    An array field has three parts: the item type, the count, and the items' raw bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array_items = 0
        super().__init__(path, "r")

    def error(self, message: str) -> ModelError:
        return ModelError(f"{self.path}: {message}")

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise self.error(f"ends at byte {len(self.data)}, but byte {end} is needed: {_AGAIN}")
        return super()._get(offset, dtype, count, override_order)

    def _get_str(self, offset: int) -> Any:
        length = int(self._get(offset, np.uint64)[0])
        if length > MAX_STRING_BYTES:
            raise self.error(f"a string at byte {offset} has {length} bytes, the limit is {MAX_STRING_BYTES}: {_AGAIN}")
        return super()._get_str(offset)

    def _build_fields(self, offs: int, count: int) -> int:
        if int(count) > MAX_KEYS:
            raise self.error(f"announces {count} metadata keys, the limit is {MAX_KEYS}: {_AGAIN}")
        return int(super()._build_fields(offs, int(count)))

    def _build_tensor_info(self, offs: int, count: int) -> Any:
        if int(count) > MAX_TENSORS:
            raise self.error(f"announces {count} tensors, the limit is {MAX_TENSORS}: {_AGAIN}")
        field = self.fields.get("general.alignment")
        if field is not None and field.types == [GGUFValueType.UINT32] and field.parts[-1][0] > MAX_ALIGNMENT:
            raise self.error(f"general.alignment is {field.parts[-1][0]}, the limit is {MAX_ALIGNMENT}: {_AGAIN}")
        return super()._build_tensor_info(offs, int(count))

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        item_type, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        self.array_items += int(count[0])
        if self.array_items > MAX_ARRAY_ITEMS:
            raise self.error(f"has an array of {count[0]} items, the limit is {MAX_ARRAY_ITEMS} in all: {_AGAIN}")
        kind, start = GGUFValueType(item_type[0]), orig_offs + 12
        if kind == GGUFValueType.ARRAY:
            raise self.error(f"has an array of arrays at byte {orig_offs}, which no supported model has")
        if kind == GGUFValueType.STRING:
            raw = self._get(start, np.uint8, self.end_of_strings(start, int(count[0])) - start)
        else:
            raw = self._get(start, np.uint8, np.dtype(self.gguf_scalar_to_np[kind]).itemsize * int(count[0]))
        return 12 + len(raw), [item_type, count, raw], [2], [GGUFValueType.ARRAY, kind]

    def end_of_strings(self, offset: int, count: int) -> int:
        """Return the offset behind `count` strings: a walk over their lengths, without touching their text."""
        data = memoryview(self.data)
        size = len(data)
        for _ in range(count):
            if offset + 8 > size:
                raise self.error(f"ends inside an array of {count} strings: {_AGAIN}")
            offset += 8 + int(struct.unpack_from("<Q", data, offset)[0])
        return offset

    def _get_tensor_info_field(self, orig_offs: int) -> ReaderField:
        """Read one row of the tensor table; refuse here whatever would overflow in the library's arithmetic."""
        length, name_bytes = self._get_str(orig_offs)
        name = bytes(name_bytes)
        label = repr(name[:MAX_NAME_BYTES].decode(errors="replace"))
        at = orig_offs + 8 + int(length[0])
        dimensions = int(self._get(at, np.uint32)[0])
        if not 0 < len(name) <= MAX_NAME_BYTES or not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.error(f"tensor name {label} or its {dimensions} dimensions are out of range: {_AGAIN}")
        shape = [int(n) for n in self._get(at + 4, np.uint64, dimensions)]
        number = int(self._get(at + 4 + 8 * dimensions, np.uint32)[0])
        offset = int(self._get(at + 8 + 8 * dimensions, np.uint64)[0])
        kind = GGMLQuantizationType(number).name if number in set(GGMLQuantizationType) else f"number {number}"
        if kind not in ACCEPTED_TYPES:
            raise self.error(f"tensor {label} has type {kind}: use a file whose tensors "
                             f"are of the types {', '.join(ACCEPTED_TYPES)}")  # fmt: skip
        if min(shape) < 1 or prod(shape) > MAX_ELEMENTS or offset > len(self.data):
            raise self.error(f"tensor {label}: shape {shape} or offset {offset} is out of range: {_AGAIN}")
        if shape[0] % GGML_QUANT_SIZES[GGMLQuantizationType(number)][0]:
            raise self.error(f"tensor {label}: rows of {shape[0]} are no whole number of {kind} blocks: {_AGAIN}")
        return super()._get_tensor_info_field(orig_offs)


def _open(path: Path) -> _Reader:
    """Parse header, metadata and tensor table; every fault is a `ModelError`."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file: give the path of a GGUF file, or run `poai model fetch`")
    try:
        with path.open("rb") as file:
            magic, version = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        if magic != b"GGUF" or version not in (2, 3):
            raise ModelError(f"{path}: not a little-endian GGUF file of version 2 or 3: give the path of one")
        return _Reader(path)
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not a readable GGUF file ({error!s:.200}): {_AGAIN}") from error


def _scalar(reader: _Reader, field: ReaderField) -> int | bool | str | Float32:
    """Return the value of a scalar field, exactly."""
    kind, raw = field.types[0], bytes(field.parts[-1])
    if kind == GGUFValueType.STRING:
        return raw.decode()
    if kind == GGUFValueType.FLOAT32:
        return Float32(int.from_bytes(raw, "little"))
    if kind == GGUFValueType.FLOAT64:
        raise reader.error(f"key {field.name!r} is a 64-bit float, which no supported model has")
    if kind == GGUFValueType.BOOL:
        if raw not in (b"\0", b"\1"):
            raise reader.error(f"key {field.name!r} is a truth value of {raw[0]}: {_AGAIN}")
        return raw == b"\1"
    return int(field.parts[-1][0])


def _metadata(reader: _Reader) -> dict[str, int | bool | str | Float32]:
    """Return the scalar keys; arrays are left out, and refused where they could change the computation."""
    found: dict[str, int | bool | str | Float32] = {}
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        if field.types[0] != GGUFValueType.ARRAY:
            found[name] = _scalar(reader, field)
        elif not name.startswith(("general.", "tokenizer.", "quantize.")):
            raise reader.error(f"key {name!r} is a list: models whose layers differ are not supported")
    return found


def _tensors(reader: _Reader) -> dict[str, GgufTensor]:
    """Return the tensors as views of the file, after a check that no two of them share a byte."""
    found, end, last = {}, 0, ""
    data = memoryview(reader.data).toreadonly()
    for tensor in sorted(reader.tensors, key=lambda item: (item.data_offset, item.n_bytes)):
        if tensor.data_offset < end or tensor.data_offset % int(reader.alignment):
            raise reader.error(f"tensor {tensor.name!r} is not aligned or overlaps {last!r}: {_AGAIN}")
        end, last = tensor.data_offset + tensor.n_bytes, tensor.name
        shape = tuple(int(n) for n in reversed(tensor.shape))
        found[tensor.name] = GgufTensor(tensor.name, tensor.tensor_type.name, shape, data[tensor.data_offset : end])
    return found


def read_gguf(path: Path) -> GgufFile:
    """Return the scalars and tensors of a GGUF file; the tensors' data are views of the mapped file.

    Raises:
        ModelError: no such file, not GGUF, damaged, or a tensor type that is not accepted.
    """
    reader = _open(path)
    try:
        return GgufFile(_metadata(reader), _tensors(reader))
    except UnicodeDecodeError as error:
        raise reader.error(f"a string is not UTF-8: {_AGAIN}") from error


def read_vocabulary(path: Path) -> Vocabulary:
    """Return the tokenizer's tables, checked for everything that makes llama.cpp abort.

    Raises:
        ModelError: damaged, no tokenizer of a supported kind, or a vocabulary that contradicts itself.
    """
    reader = _open(path)
    try:
        metadata = _metadata(reader)
    except UnicodeDecodeError as error:
        raise reader.error(f"a string is not UTF-8: {_AGAIN}") from error
    model = metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str) or model not in ACCEPTED_TOKENIZERS:
        raise reader.error(f"tokenizer.ggml.model is {model!r}: use a model whose tokenizer is llama or gpt2")
    tokens = _strings(reader, "tokenizer.ggml.tokens")
    types = tuple(_numbers(reader, "tokenizer.ggml.token_type", GGUFValueType.INT32, len(tokens)).tolist())
    if "tokenizer.ggml.scores" in reader.fields or model == "llama":
        _numbers(reader, "tokenizer.ggml.scores", GGUFValueType.FLOAT32, len(tokens))
    if model == "gpt2":
        _strings(reader, "tokenizer.ggml.merges")
    _check_tokens(reader, model, tokens, types)
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", model == "llama")  # llama.cpp's defaults
    bos_id = metadata.get("tokenizer.ggml.bos_token_id", 1)
    if type(add_bos) is not bool or type(bos_id) is not int or not 0 <= bos_id < len(tokens):
        raise reader.error(f"tokenizer.ggml.bos_token_id {bos_id!r} or add_bos_token {add_bos!r} is out of range")
    return Vocabulary(model, tokens, types, add_bos, bos_id)


def _array(reader: _Reader, name: str, kind: GGUFValueType) -> tuple[int, Any]:
    """Return count and raw bytes of an array of `kind`."""
    field = reader.fields.get(name)
    if field is None or field.types != [GGUFValueType.ARRAY, kind]:
        raise reader.error(f"key {name} is missing or no list of {kind.name}: use a GGUF file with its tokenizer")
    return int(field.parts[-2][0]), field.parts[-1]


def _strings(reader: _Reader, name: str) -> tuple[bytes, ...]:
    count, raw = _array(reader, name, GGUFValueType.STRING)
    data, offset, found = bytes(raw), 0, []
    for _ in range(count):
        start = offset + 8
        offset = start + int.from_bytes(data[offset:start], "little")
        found.append(data[start:offset])
    return tuple(found)


def _numbers(reader: _Reader, name: str, kind: GGUFValueType, length: int) -> Any:
    count, raw = _array(reader, name, kind)
    if count != length:
        raise reader.error(f"{name} has {count} items for {length} tokens: {_AGAIN}")
    return raw.view(reader.gguf_scalar_to_np[kind])


def _check_tokens(reader: _Reader, model: str, tokens: tuple[bytes, ...], types: tuple[int, ...]) -> None:
    embedding = next((t for t in reader.tensors if t.name == "token_embd.weight"), None)
    if embedding is not None and int(embedding.shape[-1]) != len(tokens):
        raise reader.error(f"{len(tokens)} tokens, but token_embd.weight has {embedding.shape[-1]} rows: {_AGAIN}")
    seen = {b""}
    for number, token in enumerate(tokens):
        if token in seen or b"\0" in token:  # llama.cpp reads a token up to its first NUL, which makes repetitions
            raise reader.error(f"token {number} {token[:64]!r} is empty, repeated or has a NUL byte: use another file")
        seen.add(token)
    if set(types) - set(TOKEN_TYPE_NAMES):
        raise reader.error(f"token types {sorted(set(types) - set(TOKEN_TYPE_NAMES))[:4]} are unknown: {_AGAIN}")
    bytes_found = {token for token, kind in zip(tokens, types, strict=True) if kind == BYTE}
    wanted = {b"<0x%02X>" % value for value in range(256)}
    if bytes_found - wanted or (model == "llama" and bytes_found != wanted):
        raise reader.error(f"{len(bytes_found)} byte tokens; <0x00> .. <0xFF>, each once, are needed: {_AGAIN}")


def get_salt_ranges(vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """Return the ids of normal type as ascending maximal ranges (first, last), both included."""
    ids = [i for i, kind in enumerate(vocabulary.types) if kind == NORMAL]
    firsts = [i for i in ids if i == 0 or vocabulary.types[i - 1] != NORMAL]
    lasts = [i for i in ids if i + 1 == len(vocabulary.types) or vocabulary.types[i + 1] != NORMAL]
    return list(zip(firsts, lasts, strict=True))


def sha256_file(path: Path) -> bytes:
    """Return the SHA-256 digest of a file.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}): give the path of a GGUF file") from error


def check_digest(path: Path, wanted: bytes | None) -> bytes:
    """Return the SHA-256 digest of a file, which has to be the one of the network's model; None takes any file.

    Raises:
        ModelError: the file cannot be read, or is another one.
    """
    found = sha256_file(path)
    if wanted is not None and found != wanted:
        raise ModelError(f"{path} is not this network's model (SHA-256 {wanted.hex()}): give another")
    return found
