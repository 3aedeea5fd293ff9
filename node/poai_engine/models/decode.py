"""GGUF blocks to integers, many rows at once: the page `weights` in NumPy, equal to it bit for bit.

Values are int64, W = 2^24 * w. Everything stays in integers; F32 and BF16 go through their exact significands.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from poai_spec.model.weights import TENSOR_TYPES, GgufTensor, split_float

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

MAX_LEFT_SHIFT = 38
"""An F32 with W >= 2^61 is cut at a shift of 38 so that int64 holds it: the page integer-model refuses the row, or
saturates the embedding, either way."""


def _f16(data: Bytes) -> Ints:
    """Read pairs of bytes (last axis) as F16 times 2^24; the axis keeps half its length."""
    bits = np.ascontiguousarray(data).view("<u2").astype(np.int64)
    exponent, mantissa = bits >> 10 & 31, bits & 1023
    _refuse_non_finite(bits[exponent == 31], 5, 10)
    magnitude = np.where(exponent > 0, mantissa + 1024, mantissa) << np.maximum(exponent - 1, 0)
    return np.asarray(np.where(bits >> 15 == 1, -magnitude, magnitude))


def _f32(data: Bytes) -> Ints:
    """Read groups of four bytes as F32 times 2^24, rounded half up."""
    return _round_f32(np.ascontiguousarray(data).view("<u4").astype(np.int64))


def _bf16(data: Bytes) -> Ints:
    return _round_f32(np.ascontiguousarray(data).view("<u2").astype(np.int64) << 16)


def _round_f32(bits: Ints) -> Ints:
    exponent, mantissa = bits >> 23 & 255, bits & 0x7FFFFF
    _refuse_non_finite(bits[exponent == 255], 8, 23)
    significand = np.where(exponent > 0, mantissa + 0x800000, mantissa)
    significand = np.where(bits >> 31 == 1, -significand, significand)
    shift = np.maximum(exponent, 1) - 150 + 24  # value * 2^24 = significand * 2^shift
    left = significand << np.clip(shift, 0, MAX_LEFT_SHIFT)
    down = np.clip(-shift, 1, 40)
    return np.asarray(np.where(shift >= 0, left, (significand + (np.int64(1) << (down - 1))) >> down))


def _refuse_non_finite(bits: Ints, exponent_bits: int, mantissa_bits: int) -> None:
    """Hand the first offender, if there is one, to the page's own function, which raises."""
    if bits.size:
        split_float(int(bits.flat[0]), exponent_bits, mantissa_bits)


def _nibbles(data: Bytes) -> Ints:
    return np.concatenate([data & 15, data >> 4], axis=-1).astype(np.int64)


def _fifth_bits(data: Bytes) -> Ints:
    return np.unpackbits(data, axis=-1, bitorder="little").astype(np.int64) << 4


def _q4_0(b: Bytes) -> Ints:
    return _f16(b[:, 0:2]) * (_nibbles(b[:, 2:18]) - 8)


def _q4_1(b: Bytes) -> Ints:
    return _f16(b[:, 0:2]) * _nibbles(b[:, 4:20]) + _f16(b[:, 2:4])


def _q5_0(b: Bytes) -> Ints:
    return _f16(b[:, 0:2]) * (_nibbles(b[:, 6:22]) + _fifth_bits(b[:, 2:6]) - 16)


def _q5_1(b: Bytes) -> Ints:
    return _f16(b[:, 0:2]) * (_nibbles(b[:, 8:24]) + _fifth_bits(b[:, 4:8])) + _f16(b[:, 2:4])


def _q8_0(b: Bytes) -> Ints:
    return _f16(b[:, 0:2]) * b[:, 2:34].view(np.int8).astype(np.int64)


def _k_scales(p: Bytes) -> tuple[Ints, Ints]:
    """Return scales and minima, 8 each a block."""
    low, middle, high = p[:, 0:4], p[:, 4:8], p[:, 8:12]
    scales = np.concatenate([low & 63, high & 15 | (low >> 6) << 4], axis=1)
    minima = np.concatenate([middle & 63, high >> 4 | (middle >> 6) << 4], axis=1)
    return scales.astype(np.int64), minima.astype(np.int64)


def _k_values(b: Bytes, q: Ints) -> Ints:
    """Scale q, shaped (blocks, 8, 32), of Q4_K or Q5_K."""
    scales, minima = _k_scales(b[:, 4:16])
    d, m = _f16(b[:, 0:2]) * scales, _f16(b[:, 2:4]) * minima
    return (d[:, :, None] * q - m[:, :, None]).reshape(len(b), 256)


def _k_nibbles(data: Bytes) -> Ints:
    chunks = data.reshape(len(data), 4, 1, 32)
    return np.concatenate([chunks & 15, chunks >> 4], axis=2).reshape(len(data), 8, 32).astype(np.int64)


def _q4_k(b: Bytes) -> Ints:
    return _k_values(b, _k_nibbles(b[:, 16:144]))


def _q5_k(b: Bytes) -> Ints:
    high = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[None, :, None] & 1
    return _k_values(b, _k_nibbles(b[:, 48:176]) + (high.astype(np.int64) << 4))


def _q6_k(b: Bytes) -> Ints:
    low, high = b[:, 0:128].reshape(-1, 2, 1, 2, 32), b[:, 128:192].reshape(-1, 2, 1, 32)
    shifts = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    q = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32) | (high >> 2 * shifts & 3) << 4
    scales = np.repeat(b[:, 192:208].view(np.int8).astype(np.int64), 16, axis=1)
    return np.asarray(_f16(b[:, 208:210]) * scales * (q.reshape(-1, 256).astype(np.int64) - 32))


_DECODERS: dict[str, Callable[[Bytes], Ints]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1,
    "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip


def decode_rows(tensor: GgufTensor, start: int, stop: int) -> Ints:
    """Return rows `start .. stop - 1` of a tensor as int64 W = 2^24 * w, shape (stop - start, columns).

    The tensor's type and shape have been checked (`poai_spec.model.weights.check_layout`). A vector is one row.

    Raises:
        Invalid: `weights/not-finite`.
    """
    elements, size, _ = TENSOR_TYPES[tensor.type]
    columns = tensor.shape[-1]
    row_bytes = columns // elements * size
    data = np.frombuffer(tensor.data, np.uint8, count=(stop - start) * row_bytes, offset=start * row_bytes)
    return _DECODERS[tensor.type](data.reshape(-1, size)).reshape(stop - start, columns)
