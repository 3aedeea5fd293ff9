"""The integer model laid out for the compiled engine: weights int8, in the order in which `tile` reads them.

A model is a mapping of arrays by name, so that it can be made in memory or mapped from a file without a copy. For a
matrix NAME there are `NAME/q`, int8, shape (P, K / 2, PANEL, 2) (panels of outputs, pairs of inputs, outputs of a
panel, inputs of a pair; both padded with zeros), `NAME/multipliers`, int32, and `NAME/k`, one int32; a gain has its own
name. The other names are `embedding`, `angles` and `root`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poai_engine.exact_model import ExactMatrix, compute_named_root, compute_tensor_digest, read_tensors
from poai_engine.tile import PANEL
from poai_spec.fixed_point import cos_sin
from poai_spec.integer_model import Architecture, compute_attention_scale, read_architecture
from poai_spec.notation import Hash32
from poai_spec.weights import GgufFile

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
        q: int8, shape (P, K / 2, PANEL, 2).
    """

    k: int
    outputs: int
    multipliers: NDArray[np.float64]
    q: NDArray[np.int8]


class PackedModel:
    """A model ready to run.

    Args:
        architecture: the shape.
        arrays: what `pack_tensors` yields.

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
        self.architecture = architecture
        self.embedding, self.angles, self.root = arrays["embedding"], arrays["angles"], arrays["root"].tobytes()
        names = [name.removesuffix("/k") for name in arrays if name.endswith("/k")]
        self.matrices = {name: _get_matrix(arrays, name) for name in names}
        self.gains = {name: array for name, array in arrays.items() if name.endswith("_norm.weight")}
        self.head = "output.weight" if "output.weight" in self.matrices else "token_embd.weight"
        self.attention_scale = compute_attention_scale(architecture.head_dim)


def _get_matrix(arrays: Arrays, name: str) -> PackedMatrix:
    multipliers = arrays[name + "/multipliers"]
    return PackedMatrix(
        int(arrays[name + "/k"][0]), len(multipliers), multipliers.astype(np.float64), arrays[name + "/q"]
    )


def pack_weights(q: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return a matrix of shape (O, K) in panels."""
    outputs, inputs = q.shape
    panels, pairs = -(-outputs // PANEL), -(-inputs // 2)
    packed = np.zeros((panels, pairs, PANEL, 2), np.int8)
    for panel in range(panels):
        block = np.zeros((PANEL, 2 * pairs), np.int8)
        rows = q[panel * PANEL : (panel + 1) * PANEL]
        block[: len(rows), :inputs] = rows
        packed[panel] = block.reshape(PANEL, pairs, 2).transpose(1, 0, 2)
    return packed


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
    count = len(gguf.tensors)
    for n, (name, value) in enumerate(read_tensors(gguf, a)):
        if n % SAY_EVERY == 0:
            say(f"converting weights to integers: {n} of {count} tensors")
        digests.append((name, compute_tensor_digest(name, value)))
        if isinstance(value, ExactMatrix):
            yield f"{name}/q", pack_weights(value.q)
            yield f"{name}/multipliers", value.multipliers
            yield f"{name}/k", np.asarray([value.k], np.int32)
        else:
            yield ("embedding", narrow(value)) if name == "token_embd.weight" else (name, value)
    yield "angles", make_angles(a, positions)
    yield "root", np.frombuffer(compute_named_root(a, digests), np.uint8)


def pack_model(gguf: GgufFile) -> PackedModel:
    """Return a model in memory; errors as for `pack_tensors`."""
    a = read_architecture(gguf)
    return PackedModel(a, dict(pack_tensors(gguf, a)))
