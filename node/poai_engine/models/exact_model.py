"""The integer model in NumPy arrays: the page `integer-model`, equal to it bit for bit.

Tensors are decoded a few thousand rows at a time, so loading needs little more memory than the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from Crypto.Hash import keccak
from numpy.typing import NDArray

from poai_engine.models.decode import Ints, decode_rows
from poai_spec.basics.notation import Hash32, int32_le, keccak256, uint32_le
from poai_spec.model.fixed_point import bit_length, get_transform_size
from poai_spec.model.integer_model import (
    MULTIPLIER_BITS,
    ROW_MAXIMUM_BITS,
    Architecture,
    check_gain,
    check_maximum,
    check_tensors,
    compute_attention_scale,
    compute_root_of_digests,
    get_tensor,
    get_tensor_shapes,
    read_architecture,
)
from poai_spec.model.weights import GgufFile, GgufTensor, check_layout

CHUNK_ELEMENTS = 1 << 22
"""Elements decoded at once: 32 MiB of int64, a compromise between memory and NumPy's per-call cost."""


@dataclass(frozen=True, eq=False)
class ExactMatrix:
    """A linear map; the row o, column i stands for `q[o, i] * multipliers[o] * 2^(-k - 24)`.

    Attributes:
        name: the GGUF tensor that it comes from.
        k: exponent shared by the rows.
        multipliers: int32, shape (O,).
        q: int8, shape (O, K).
    """

    name: str
    k: int
    multipliers: NDArray[np.int32]
    q: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class ExactModel:
    """The integers of a model.

    Attributes:
        architecture: the shape.
        embedding: int32, shape (V, D), Q14.
        matrices: by GGUF name; the head is `output.weight` or, tied, `token_embd.weight`.
        gains: by GGUF name, int32, shape (D,), Q16.
        head: name of the head's matrix.
        attention_scale: log2(e) / sqrt(head_dim), Q24.
    """

    architecture: Architecture
    embedding: NDArray[np.int32]
    matrices: dict[str, ExactMatrix]
    gains: dict[str, NDArray[np.int32]]
    head: str
    attention_scale: int


def read_tensors(gguf: GgufFile, a: Architecture) -> Iterator[tuple[str, NDArray[np.int32] | ExactMatrix]]:
    """Yield the integers of a model file, one tensor at a time: the embedding, then gains and matrices by GGUF name.

    The head comes last, `output.weight` or, tied, `token_embd.weight` as a matrix.

    Raises:
        Invalid: `integer-model/...` or `weights/...`, the same as `integer_model.make_integer_model`, also
            where a file has several faults: tensors are read in the page's order.
    """
    check_tensors(gguf, a)
    tied = "output.weight" not in gguf.tensors
    yield "token_embd.weight", _read_embedding(get_tensor(gguf, "token_embd.weight"))
    for name, shape in get_tensor_shapes(a, tied=tied).items():
        if len(shape) == 1:
            yield name, _read_gains(gguf.tensors[name])
        elif name != "token_embd.weight":
            yield name, _read_matrix(gguf.tensors[name])
    if tied:
        yield "token_embd.weight", _read_matrix(gguf.tensors["token_embd.weight"])


def load_exact_model(gguf: GgufFile) -> ExactModel:
    """Return the integers of a model file; errors as for `read_tensors`."""
    a = read_architecture(gguf)
    (_, embedding), *rest = read_tensors(gguf, a)
    assert not isinstance(embedding, ExactMatrix)
    matrices = {name: value for name, value in rest if isinstance(value, ExactMatrix)}
    gains = {name: value for name, value in rest if not isinstance(value, ExactMatrix)}
    return ExactModel(a, embedding, matrices, gains, rest[-1][0], compute_attention_scale(a.head_dim))


def _chunks(tensor: GgufTensor) -> Iterator[tuple[int, int, Ints]]:
    check_layout(tensor)
    rows, columns = tensor.shape
    step = max(1, CHUNK_ELEMENTS // columns)
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        yield start, stop, decode_rows(tensor, start, stop)


def _read_embedding(tensor: GgufTensor) -> NDArray[np.int32]:
    out = np.empty(tensor.shape, np.int32)
    for start, stop, w in _chunks(tensor):
        out[start:stop] = np.clip((w + 512) >> 10, -(2**31), 2**31 - 1)
    return out


def _read_matrix(tensor: GgufTensor) -> ExactMatrix:
    q, maxima = np.empty(tensor.shape, np.int8), np.empty(tensor.shape[0], np.int64)
    for start, stop, w in _chunks(tensor):
        v = transform_weights(w)
        maxima[start:stop] = np.abs(v).max(axis=1)
        q[start:stop] = quantise_weights(v, maxima[start:stop])
    check_maximum(tensor.name, int(maxima.max()))  # after all of the tensor was found finite
    k = MULTIPLIER_BITS - bit_length(int(maxima.max()))
    return ExactMatrix(tensor.name, k, compute_multipliers(maxima, k), q)


def compute_multipliers(maxima: NDArray[np.int64], k: int) -> NDArray[np.int32]:
    """Return div_round(m * 2^k, 127) for each row."""
    scaled = maxima << max(k, 0)
    divisor = 127 << max(-k, 0)
    return np.asarray((2 * scaled + divisor) // (2 * divisor), np.int32)


def read_matrix_row(tensor: GgufTensor, row: int, k: int) -> tuple[NDArray[np.int8], int]:
    """Return the weights and the multiplier of one row of a matrix whose exponent is known."""
    v = transform_weights(decode_rows(tensor, row, row + 1))
    maxima = np.abs(v).max(axis=1)
    return quantise_weights(v, maxima)[0], int(compute_multipliers(maxima, k)[0])


def transform_weights(w: Ints) -> Ints:
    """Return `poai_spec.model.fixed_point.walsh_hadamard` of each row.

    Weights beyond 2^38 are cut to it: they would not fit int64 later on, and no transformed row is smaller than its
    largest weight, so `check_maximum` refuses the matrix either way.
    """
    v, distance = np.clip(w, -(1 << ROW_MAXIMUM_BITS), 1 << ROW_MAXIMUM_BITS), 1
    while distance < get_transform_size(w.shape[1]):
        pairs = v.reshape(len(v), -1, 2, distance)
        left, right = pairs[:, :, 0].copy(), pairs[:, :, 1]
        pairs[:, :, 0] += right
        np.subtract(left, right, out=right)
        distance *= 2
    return v


def quantise_weights(w: Ints, maxima: Ints) -> NDArray[np.int8]:
    """Return div_round(127 * w, m) for each transformed row, 0 where m = 0.

    The quotient is estimated in float64 and corrected by one exact integer comparison: a float64 estimate of a
    number of magnitude at most 127 is off by less than 2^-40, so its rounding is off by one at most.
    """
    m = np.maximum(maxima, 1)[:, None]
    q = np.floor(127.0 * w / m + 0.5).astype(np.int64)
    rest = 254 * w + m - 2 * m * q  # in [0, 2m) when q is the floor of (254 w + m) / 2m
    q += (rest >= 2 * m).astype(np.int64) - (rest < 0)
    return np.asarray(q, np.int8)


def _read_gains(tensor: GgufTensor) -> NDArray[np.int32]:
    check_layout(tensor)
    gains = (decode_rows(tensor, 0, 1)[0] + 128) >> 8
    check_gain(tensor.name, int(np.abs(gains).max()))
    return np.asarray(gains, np.int32)


def _hash_tensor(tag: str, name: str, *parts: bytes | memoryview) -> Hash32:
    """The streaming form of `tagged_hash` over a tensor's name and contents; no copy of the weights is made."""
    state = keccak.new(digest_bits=256)
    for part in (keccak256(tag.encode()), uint32_le(len(name)), name.encode(), *parts):
        state.update(part)
    return state.digest()


def compute_tensor_digest(name: str, value: NDArray[np.int32] | ExactMatrix) -> Hash32:
    """Return the digest of an embedding, a gain or a matrix."""
    if not isinstance(value, ExactMatrix):
        return _hash_tensor("PoAI/integer-vectors/1", name, value.astype("<i4", copy=False).data.cast("B"))
    sizes = uint32_le(value.q.shape[0]) + uint32_le(value.q.shape[1]) + int32_le((value.k,))
    multipliers = value.multipliers.astype("<i4", copy=False).data.cast("B")
    return _hash_tensor("PoAI/integer-matrix/1", name, sizes, multipliers, value.q.data.cast("B"))


def compute_named_root(a: Architecture, digests: list[tuple[str, Hash32]]) -> Hash32:
    """Return the integer-model root of digests in the order of `read_tensors`; it takes them by name."""
    return compute_root_of_digests(a, [digest for _, digest in sort_digests(digests)])


def sort_digests(digests: list[tuple[str, Hash32]]) -> list[tuple[str, Hash32]]:
    """Return digests in the order in which the root takes them: by name; a tied head follows its embedding."""
    return sorted(digests, key=lambda pair: pair[0].encode())


def compute_tensor_digests(model: ExactModel) -> list[tuple[str, Hash32]]:
    """Return name and digest of every tensor, in the order in which the root takes them."""
    digests = [("token_embd.weight", compute_tensor_digest("token_embd.weight", model.embedding))]
    digests += [(name, compute_tensor_digest(name, gain)) for name, gain in model.gains.items()]
    digests += [(name, compute_tensor_digest(name, matrix)) for name, matrix in model.matrices.items()]
    return sort_digests(digests)


def compute_exact_root(model: ExactModel) -> Hash32:
    """Return the integer-model root, equal to `poai_spec.model.integer_model.compute_integer_model_root`."""
    return compute_named_root(model.architecture, compute_tensor_digests(model))
