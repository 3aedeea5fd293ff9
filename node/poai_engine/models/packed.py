"""The integer model laid out for the compiled engine: weights in the order in which `tile` reads them.

A model is a mapping of arrays by name, so that it can be made in memory or mapped from a file without a copy. Under a
matrix's GGUF name lie its weights, uint8, shape (P, K / 4, PANEL, 4): panels of outputs, fours of inputs, outputs of a
panel, inputs of a four; both padded with zeros. A weight q is stored as q + 128, since processors multiply unsigned
bytes by signed ones. The rest is held together, as hundreds of small arrays would cost a
start a tenth of a second: `k`, int32, one value a matrix; `multipliers`, int32, one matrix after the other; `gains`,
int32, shape (2 L + 1, D); `embedding`, int16 or int32, shape (V, D); `angles`, int32, shape (2, positions,
head_dim / 2); `root`, 32 bytes. Matrices and gains come in the order of the page's `get_tensor_shapes`, a tied head
last.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poai_engine.kernels.tile import FOUR, PANEL
from poai_engine.models.exact_model import (
    ExactMatrix,
    compute_named_root,
    compute_tensor_digest,
    read_matrix_row,
    read_tensors,
)
from poai_spec.basics.notation import Hash32
from poai_spec.model.fixed_point import cos_sin
from poai_spec.model.integer_model import Architecture, compute_attention_scale, get_tensor_shapes, read_architecture
from poai_spec.model.weights import GgufFile, GgufTensor

SAY_EVERY = 64
"""Tensors between two lines of progress: some seconds with TinyLlama."""

Say = Callable[[str], None]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A linear map of K inputs and O outputs.

    Attributes:
        k: exponent shared by the rows.
        outputs: O.
        multipliers: float64, shape (O,), integers.
        q: uint8, shape (P, K / 4, PANEL, 4): q + 128.
    """

    k: int
    outputs: int
    multipliers: NDArray[np.float64]
    q: NDArray[np.uint8]


class PackedModel:
    """A model ready to run.

    Args:
        architecture: the shape.
        arrays: what `pack_tensors` yields.

    Raises:
        KeyError, ValueError: the arrays are not those of this architecture.

    Attributes:
        architecture: the shape.
        embedding: int16 or int32, shape (V, D), Q14.
        matrices: by GGUF name.
        gains: by GGUF name, int32, shape (D,), Q16.
        head: name of the head's matrix.
        attention_scale: log2(e) / sqrt(head_dim), Q24.
        angles: int32, shape (2, positions, head_dim / 2): cosines and sines, Q15.
        root: the integer-model root.
    """

    def __init__(self, architecture: Architecture, arrays: Arrays) -> None:
        self.architecture = a = architecture
        self.embedding = get_checked(arrays, "embedding", (a.vocabulary_size, a.width), np.int16, np.int32)
        self.angles = get_checked(arrays, "angles", (2, None, a.head_dim // 2), np.int32)
        self.root = get_checked(arrays, "root", (32,), np.uint8).tobytes()
        tied = "output.weight" not in arrays
        shapes = get_tensor_shapes(a, tied=tied)
        self.head = "token_embd.weight" if tied else "output.weight"
        gains = get_checked(arrays, "gains", (2 * a.layer_count + 1, a.width), np.int32)
        self.gains = dict(zip((name for name in shapes if len(shapes[name]) == 1), gains, strict=True))
        names = [name for name in shapes if len(shapes[name]) == 2 and name != "token_embd.weight"]
        names += [self.head] if tied else []
        ends = list(accumulate(shapes[name][0] for name in names))
        multipliers = np.split(get_checked(arrays, "multipliers", (ends[-1],), np.int32).astype(np.float64), ends[:-1])
        exponents = get_checked(arrays, "k", (len(names),), np.int32)
        self.matrices = {
            name: PackedMatrix(
                int(k), shapes[name][0], ours, get_checked(arrays, name, get_packed_shape(shapes[name]), np.uint8)
            )
            for name, k, ours in zip(names, exponents, multipliers, strict=True)
        }
        self.attention_scale = compute_attention_scale(a.head_dim)


def get_checked(arrays: Arrays, name: str, shape: tuple[int | None, ...], *kinds: type) -> NDArray[Any]:
    """Return an array; compiled code reads it without looking at its bounds, so shape and type are checked here.

    Raises:
        KeyError: it is not there.
        ValueError: another shape, where None stands for any length, or type.
    """
    array = arrays[name]
    pairs = zip(array.shape, shape, strict=False)
    if array.dtype not in kinds or array.ndim != len(shape) or any(n not in (length, None) for length, n in pairs):
        raise ValueError(f"{name} has shape {array.shape} of {array.dtype}")
    return freeze(array)


def freeze(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written to: compiled code is made for one type of array, mapped or in memory."""
    view = array.view()
    view.flags.writeable = False
    return view


def get_packed_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the shape of a packed matrix of shape (O, K)."""
    outputs, inputs = shape
    return -(-outputs // PANEL), -(-inputs // FOUR), PANEL, FOUR


def pack_weights(q: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return a matrix of shape (O, K) in panels."""
    inputs = q.shape[1]
    packed = np.empty(get_packed_shape(q.shape), np.uint8)
    panels, fours = packed.shape[:2]
    for panel in range(panels):
        block = np.full((PANEL, FOUR * fours), 128, np.uint8)
        rows = q[panel * PANEL : (panel + 1) * PANEL]
        block[: len(rows), :inputs] = rows.view(np.uint8) ^ 128
        packed[panel] = block.reshape(PANEL, fours, FOUR).transpose(1, 0, 2)
    return packed


def unpack_weights(packed: NDArray[np.uint8], outputs: int, inputs: int) -> NDArray[np.int8]:
    """Return the matrix of shape (O, K) that `pack_weights` was given."""
    rows = packed.transpose(0, 2, 1, 3).reshape(packed.shape[0] * PANEL, -1)[:outputs, :inputs]
    return np.ascontiguousarray(rows ^ 128).view(np.int8)


def make_angles(a: Architecture, positions: int) -> NDArray[np.int32]:
    """Return cosines and sines of the first positions, Q15, shape (2, positions, head_dim / 2)."""
    base = a.rope_base.as_ratio()
    table = [[cos_sin(p, i, a.head_dim, *base) for i in range(a.head_dim // 2)] for p in range(positions)]
    return np.ascontiguousarray(np.asarray(table, np.int32).reshape(positions, a.head_dim // 2, 2).transpose(2, 0, 1))


def narrow(values: NDArray[np.int32]) -> NDArray[Any]:
    """Return values as int16 where they fit."""
    fits = values.min() >= -(2**15) and values.max() < 2**15
    return values.astype(np.int16) if fits else values


def pack_tensors(
    gguf: GgufFile, a: Architecture, positions: int = 0, say: Say = lambda _: None
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of a model one at a time, so that the whole need never be in memory.

    Args:
        gguf: a validated model file.
        a: its architecture.
        positions: of the angles; the engine makes more when it needs them.
        say: takes lines of progress.

    Raises:
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """
    digests: list[tuple[str, Hash32]] = []
    ks: list[int] = []
    multipliers, gains = list[NDArray[np.int32]](), list[NDArray[np.int32]]()
    count = len(gguf.tensors)
    for n, (name, value) in enumerate(read_tensors(gguf, a)):
        if n % SAY_EVERY == 0:
            say(f"converting weights to integers: {n} of {count} tensors")
        digests.append((name, compute_tensor_digest(name, value)))
        if isinstance(value, ExactMatrix):
            ks.append(value.k)
            multipliers.append(value.multipliers)
            yield name, pack_weights(value.q)
        elif name == "token_embd.weight":
            yield "embedding", narrow(value)
        else:
            gains.append(value)
    yield "k", np.asarray(ks, np.int32)
    yield "multipliers", np.concatenate(multipliers)
    yield "gains", np.stack(gains)
    yield "angles", make_angles(a, positions)
    yield "root", np.frombuffer(compute_named_root(a, digests), np.uint8)


def pack_model(gguf: GgufFile) -> PackedModel:
    """Return a model in memory; errors as for `pack_tensors`."""
    a = read_architecture(gguf)
    return PackedModel(a, dict(pack_tensors(gguf, a)))


def check_arrays(model: PackedModel, root: Hash32) -> None:
    """Compare everything that the engine computes with, padding and angles too, with an integer-model root.

    Raises:
        ValueError: it is another model's, or another packing's.
    """
    if model.root != root:
        raise ValueError("its root is another")
    a = model.architecture
    shapes = get_tensor_shapes(a, tied=model.head != "output.weight")
    digests = [("token_embd.weight", compute_tensor_digest("token_embd.weight", model.embedding.astype(np.int32)))]
    digests += [(name, compute_tensor_digest(name, gain)) for name, gain in model.gains.items()]
    for name, matrix in model.matrices.items():
        q = unpack_weights(matrix.q, *shapes[name])
        if not np.array_equal(pack_weights(q), matrix.q):
            raise ValueError(f"the padding of {name} is not zero")
        whole = ExactMatrix(name, matrix.k, matrix.multipliers.astype(np.int32), q)
        digests.append((name, compute_tensor_digest(name, whole)))
    if compute_named_root(a, digests) != root:
        raise ValueError("its weights are not those of its root")
    if not np.array_equal(model.angles, make_angles(a, model.angles.shape[1])):
        raise ValueError("its angles are wrong")


def check_row(matrix: PackedMatrix, tensor: GgufTensor, row: int) -> None:
    """Compare a row of a matrix with the tensor that it was made from.

    Raises:
        ValueError: they differ.
    """
    q, multiplier = read_matrix_row(tensor, row, matrix.k)
    panel, output = divmod(row, PANEL)
    kept = (matrix.q[panel, :, output].reshape(-1)[: len(q)] ^ 128).view(np.int8)
    if not np.array_equal(kept, q) or matrix.multipliers[row] != multiplier:
        raise ValueError(f"row {row} of {tensor.name} is not the model file's")
