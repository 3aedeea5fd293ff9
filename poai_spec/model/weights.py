# # Weights: GGUF tensors to integers  [generated from specs/model/weights.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# A model comes as a GGUF file, llama.cpp's container; [the appendix](#appendix-the-gguf-file) says all that a reader needs.
# This page begins where the reader ends, with named tensors as raw bytes, and defines the *integer* value of every
# element. What a reader refuses has no code here, since the manifest names its one file by SHA-256.

# Every block-quantised value is an exact multiple of 2^-24: the scales are F16, which are integers times 2^-24, and
# everything else in a block is an integer. So `W = 2^24 * w` is computed exactly, never through floating point. (A float32
# dequantiser rounds: gguf's own gives other values in 4.2 % of the entries of random Q4_K blocks.) F32 and BF16 are
# rounded to that grid.


from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from poai_spec.model.fixed_point import round_shift
from poai_spec.basics.notation import Invalid


# ## Types

# ### `Float32`


@dataclass(frozen=True)
class Float32:
    """An IEEE 754 binary32 number of the GGUF metadata, held by its 32 bits and read exactly.

    Attributes:
        bits: the bit pattern as an unsigned integer.
    """

    bits: int

    def as_ratio(self) -> tuple[int, int]:
        """Return (numerator, denominator), the exact value; the denominator is a power of two, not reduced.

        Raises:
            Invalid: `weights/not-finite`.
        """
        significand, exponent = split_float(self.bits, 8, 23)
        return significand << max(exponent, 0), 1 << max(-exponent, 0)


# ### `GgufTensor`


@dataclass(frozen=True)
class GgufTensor:
    """A tensor as it lies in the file.

    Attributes:
        name: such as `blk.0.attn_q.weight`.
        type: GGML's name of the type, such as `Q4_K`.
        shape: (rows, columns) for a matrix, (length,) for a vector: GGUF's dimensions in reverse order.
        data: the bytes, rows one after another.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    data: bytes | memoryview


# ### `GgufFile`


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF reader hands over.

    Attributes:
        metadata: the key-value pairs without arrays, of which the reader refuses some (appendix).
        tensors: by name.
    """

    metadata: Mapping[str, "int | bool | str | Float32"]
    tensors: Mapping[str, GgufTensor]


# ## Floating-point formats, read as integers

# ### `split_float`


def split_float(bits: int, exponent_bits: int, mantissa_bits: int) -> tuple[int, int]:
    """Return (significand, exponent) with value = significand * 2^exponent, for any IEEE 754 binary format.

    Raises:
        Invalid: `weights/not-finite` for infinities and NaNs.
    """
    mantissa = bits & ((1 << mantissa_bits) - 1)
    exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1)
    sign = -1 if bits >> (mantissa_bits + exponent_bits) else 1
    if exponent == (1 << exponent_bits) - 1:
        raise Invalid("weights/not-finite", f"a float of the file is infinite or not a number (bits {bits:#x})")
    if exponent:
        mantissa += 1 << mantissa_bits
    return sign * mantissa, max(exponent, 1) - ((1 << (exponent_bits - 1)) - 1) - mantissa_bits


# ### `read_f16`


def read_f16(data: bytes) -> int:
    """Return an F16 (2 bytes, little-endian) times 2^24: exact, below 2^40 in magnitude."""
    significand, exponent = split_float(int.from_bytes(data, "little"), 5, 10)
    return significand << (exponent + 24)


# ### `read_f32`


def read_f32(data: bytes) -> int:
    """Return an F32 (4 bytes, little-endian) times 2^24, rounded to nearest, halves up."""
    significand, exponent = split_float(int.from_bytes(data, "little"), 8, 23)
    return round_shift(significand, -(exponent + 24))


# ### `read_bf16`


def read_bf16(data: bytes) -> int:
    """Return a BF16 (2 bytes, little-endian) times 2^24, rounded to nearest, halves up."""
    return read_f32(b"\0\0" + data)


# ## Blocks

# Each function takes the bytes of one block and returns its elements as integers `W = 2^24 * w`. `d` and `m` are F16
# scales (already times 2^24), `q` small integers. Nibbles: the low halves of the bytes come first, then the high halves.

# ### `nibbles`


def nibbles(data: bytes) -> list[int]:
    """Return the low four bits of every byte, then the high four bits of every byte."""
    return [byte & 15 for byte in data] + [byte >> 4 for byte in data]


# ### `fifth_bits`


def fifth_bits(data: bytes) -> list[int]:
    """Return the 32 bits of 4 bytes, lowest first, each as 0 or 16: the fifth bit of Q5_0 and Q5_1."""
    word = int.from_bytes(data, "little")
    return [(word >> j & 1) << 4 for j in range(8 * len(data))]


# ### `decode_q4_0`


def decode_q4_0(block: bytes) -> list[int]:
    """d[2] q[16]: w = d * (q - 8)."""
    d = read_f16(block[0:2])
    return [d * (q - 8) for q in nibbles(block[2:])]


# ### `decode_q4_1`


def decode_q4_1(block: bytes) -> list[int]:
    """d[2] m[2] q[16]: w = d * q + m."""
    d, m = read_f16(block[0:2]), read_f16(block[2:4])
    return [d * q + m for q in nibbles(block[4:])]


# ### `decode_q5_0`


def decode_q5_0(block: bytes) -> list[int]:
    """d[2] high[4] q[16]: w = d * (q + high - 16)."""
    d, high = read_f16(block[0:2]), fifth_bits(block[2:6])
    return [d * (q + h - 16) for q, h in zip(nibbles(block[6:]), high, strict=True)]


# ### `decode_q5_1`


def decode_q5_1(block: bytes) -> list[int]:
    """d[2] m[2] high[4] q[16]: w = d * (q + high) + m."""
    d, m, high = read_f16(block[0:2]), read_f16(block[2:4]), fifth_bits(block[4:8])
    return [d * (q + h) + m for q, h in zip(nibbles(block[8:]), high, strict=True)]


# ### `decode_q8_0`


def decode_q8_0(block: bytes) -> list[int]:
    """d[2] q[32], q signed: w = d * q."""
    d = read_f16(block[0:2])
    return [d * (q - 256 if q > 127 else q) for q in block[2:]]


# ### `unpack_k_scales`


def unpack_k_scales(packed: bytes) -> list[tuple[int, int]]:
    """Return the 8 pairs (scale, minimum), 6 bits each, that Q4_K and Q5_K pack into 12 bytes."""
    columns = list(zip(packed[:4], packed[4:8], packed[8:], strict=True))
    low = [(scale & 63, minimum & 63) for scale, minimum, _ in columns]
    high = [((rest & 15) | (scale >> 6 << 4), (rest >> 4) | (minimum >> 6 << 4)) for scale, minimum, rest in columns]
    return low + high


# ### `decode_q4_k`

# Sub-block `s` of 32 elements takes the low (s even) or high (s odd) nibbles of the 32 bytes that it shares with its
# neighbour.


def decode_q4_k(block: bytes) -> list[int]:
    """d[2] m[2] scales[12] q[128], 8 sub-blocks of 32: w = d * scale * q - m * minimum."""
    d, m, values = read_f16(block[0:2]), read_f16(block[2:4]), []
    for s, (scale, minimum) in enumerate(unpack_k_scales(block[4:16])):
        chunk = block[16 + 32 * (s // 2) : 48 + 32 * (s // 2)]
        values += [d * scale * (byte >> 4 * (s % 2) & 15) - m * minimum for byte in chunk]
    return values


# ### `decode_q5_k`


def decode_q5_k(block: bytes) -> list[int]:
    """d[2] m[2] scales[12] high[32] q[128]: as Q4_K; bit s of high[i] is the fifth bit of element i of sub-block s."""
    d, m, values = read_f16(block[0:2]), read_f16(block[2:4]), []
    for s, (scale, minimum) in enumerate(unpack_k_scales(block[4:16])):
        chunk = block[48 + 32 * (s // 2) : 80 + 32 * (s // 2)]
        for byte, high in zip(chunk, block[16:48], strict=True):
            q = (byte >> 4 * (s % 2) & 15) + (high >> s & 1) * 16
            values.append(d * scale * q - m * minimum)
    return values


# ### `decode_q6_k`

# Two halves of 128 elements; in each, quarter `t` of 32 elements takes its low four bits from `low`, its high two bits
# from bits 2t, 2t+1 of `high`, and one signed scale for every 16 elements.


def decode_q6_k(block: bytes) -> list[int]:
    """low[128] high[64] scales[16] d[2], scales signed: w = d * scale * (q - 32)."""
    d, values = read_f16(block[208:]), []
    for half in range(2):
        low, high = block[64 * half :], block[128 + 32 * half :]
        for t in range(4):
            for i in range(32):
                scale = block[192 + 8 * half + 2 * t + i // 16]
                q = (low[32 * (t % 2) + i] >> 4 * (t // 2) & 15) | (high[i] >> 2 * t & 3) << 4
                values.append(d * (scale - 256 if scale > 127 else scale) * (q - 32))
    return values


# ## Tensor types

# | type | elements | bytes | exact |
# | --- | --- | --- | --- |
# | F32 | 1 | 4 | rounded to 2^-24 |
# | F16 | 1 | 2 | yes |
# | BF16 | 1 | 2 | rounded to 2^-24 |
# | Q4_0, Q4_1 | 32 | 18, 20 | yes |
# | Q5_0, Q5_1 | 32 | 22, 24 | yes |
# | Q8_0 | 32 | 34 | yes |
# | Q4_K, Q5_K, Q6_K | 256 | 144, 176, 210 | yes |


BlockDecoder: TypeAlias = Callable[[bytes], list[int]]
TENSOR_TYPES: dict[str, tuple[int, int, BlockDecoder]] = {
    "F32": (1, 4, lambda block: [read_f32(block)]),
    "F16": (1, 2, lambda block: [read_f16(block)]),
    "BF16": (1, 2, lambda block: [read_bf16(block)]),
    "Q4_0": (32, 18, decode_q4_0),
    "Q4_1": (32, 20, decode_q4_1),
    "Q5_0": (32, 22, decode_q5_0),
    "Q5_1": (32, 24, decode_q5_1),
    "Q8_0": (32, 34, decode_q8_0),
    "Q4_K": (256, 144, decode_q4_k),
    "Q5_K": (256, 176, decode_q5_k),
    "Q6_K": (256, 210, decode_q6_k),
}


# ### `check_layout`


def check_layout(tensor: GgufTensor) -> None:
    """Refuse a tensor whose type is unknown, that has no element, or whose bytes do not fit its shape.

    Raises:
        Invalid: `weights/type`, `weights/shape`.
    """
    if tensor.type not in TENSOR_TYPES:
        raise Invalid("weights/type", f"{tensor.name} is {tensor.type}; accepted: {', '.join(TENSOR_TYPES)}")
    elements, size, _ = TENSOR_TYPES[tensor.type]
    rows, columns = 0, 0  # of a tensor that is neither matrix nor vector
    if len(tensor.shape) in (1, 2):
        rows, columns = (1, *tensor.shape)[-2:]
    expected = rows * (columns // elements) * size
    if columns % elements or not expected or len(tensor.data) != expected:
        raise Invalid("weights/shape", f"{tensor.name}: {tensor.shape} {tensor.type} in {len(tensor.data)} bytes")


# ### `decode_tensor`


def decode_tensor(tensor: GgufTensor) -> list[list[int]]:
    """Return the rows of a tensor as integers W = 2^24 * w; a vector has one row.

    Raises:
        Invalid: `weights/type`, `weights/shape`, `weights/not-finite`.
    """
    check_layout(tensor)
    _, size, decode_block = TENSOR_TYPES[tensor.type]
    data, columns = bytes(tensor.data), tensor.shape[-1]
    blocks = [decode_block(data[at : at + size]) for at in range(0, len(data), size)]
    flat = [value for block in blocks for value in block]
    return [flat[at : at + columns] for at in range(0, len(flat), columns)]


# ```pycon
# >>> from poai_spec.model.weights import GgufTensor, decode_tensor
# >>> half, two = bytes.fromhex("0038"), bytes.fromhex("0040")
# >>> decode_tensor(GgufTensor("a", "F16", (2, 2), half + two + two + half)) == [[2**23, 2**25], [2**25, 2**23]]
# True
# >>> row = decode_tensor(GgufTensor("b", "Q4_0", (1, 32), half + bytes([0x8F] * 16)))[0]
# >>> row[0] == 7 * 2**23, row[16]
# (True, 0)


# ## Appendix: the GGUF file

# `47 47 55 46 03 00 00 00` are the first eight bytes of today's files: the letters GGUF and version 3. All numbers are
# little-endian and stand one after another, without gaps. A *string* is its length in bytes (uint64) and that many bytes
# of UTF-8. A reader refuses what does not end where it should, before it takes memory for it.

# | part | contents |
# | --- | --- |
# | header | magic `GGUF` (4 bytes); version (uint32), 2 or 3, which differ in nothing here; number of tensors (uint64); number of keys (uint64) |
# | keys, so many | key (string); number of the value's type (uint32); the value |
# | tensor table, so many rows | name (string, 1 to 64 bytes); number of dimensions (uint32), 1 to 4; each dimension (uint64), the one of a row's columns first; number of the tensor's type (uint32); offset (uint64) |
# | padding | up to a multiple of the alignment, counted from the file's beginning; any bytes |
# | tensor data | each tensor at its offset, counted from here; each offset is a multiple of the alignment |

# The alignment is the uint32 `general.alignment`, a power of two, or 32 without that key. `shape` is the dimensions in
# reverse order. A tensor takes as many bytes as its elements over the elements of a block, times the bytes of one: what
# follows up to the next tensor is padding and means nothing. No two tensors share a byte. Keys and tensors are found by
# name; a reader refuses a key or a name that occurs twice.

# | value's type | number | bytes | read as |
# | --- | --- | --- | --- |
# | UINT8, INT8 | 0, 1 | 1 | an integer |
# | UINT16, INT16 | 2, 3 | 2 | an integer |
# | UINT32, INT32 | 4, 5 | 4 | an integer |
# | FLOAT32 | 6 | 4 | `Float32`, by its bits |
# | BOOL | 7 | 1 | 0 is false, 1 is true, another byte is refused |
# | STRING | 8 | | a string |
# | ARRAY | 9 | | type of the items (uint32), their number (uint64), the items; read over |
# | UINT64, INT64 | 10, 11 | 8 | an integer |
# | FLOAT64 | 12 | 8 | refused, whatever the key: no rule here is about such a number |

# An integer is an integer, whatever its width: `llama.block_count` as UINT8 or INT64 is the same count. An array is left
# out where its key begins with `general.`, `tokenizer.` or `quantize.`, and refused under any other: no rule is about a
# list, and one may stand for a key that has a rule (head counts, one a layer). An array of arrays is refused.

# | tensor's type | number | | tensor's type | number |
# | --- | --- | --- | --- | --- |
# | F32 | 0 | | Q8_0 | 8 |
# | F16 | 1 | | Q4_K | 12 |
# | Q4_0 | 2 | | Q5_K | 13 |
# | Q4_1 | 3 | | Q6_K | 14 |
# | Q5_0 | 6 | | BF16 | 30 |
# | Q5_1 | 7 | | | |

# Any other number is a type that this page does not define: `weights/type`, if the rest of the file is read at all.

# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `weights/type` | Invalid | a tensor type that has no integer definition here |
# | `weights/shape` | Invalid | neither vector nor matrix, no element, rows that are no whole number of blocks, or a length that does not match |
# | `weights/not-finite` | Invalid | an infinity or NaN among scales or values |

# ## Rationale

# The grid of 2^-24 is not a choice but what the format already is. Fixing the values there, before any further
# quantisation, means that two implementations can compare their reading of a file block by block; the `weights` vectors
# do so for each type.
