"""Model files and integer models in the JSON form of vectors."""

from typing import Any

from poai_spec.model.integer_model import Architecture, IntegerModel, Layer, Matrix, compute_integer_model_root
from poai_spec.model.weights import Float32, GgufFile, GgufTensor
from poai_tools.vectors.kinds import (
    BOOLEAN,
    HASH32,
    INT8,
    INT32,
    TEXT,
    UINT32,
    Array,
    Hex,
    Integer,
    OneOf,
    RecordKind,
    Table,
)

TENSOR = RecordKind({"type": TEXT, "shape": Array(UINT32), "data": Hex(2**16, exact=False)})
SCALAR = OneOf({"integer": Integer(-(2**63), 2**64 - 1), "boolean": BOOLEAN, "text": TEXT, "float32": UINT32})
GGUF = RecordKind({"metadata": Table(SCALAR), "tensors": Table(TENSOR)})
"""What a GGUF reader hands over: scalar keys, a float32 by its bits; tensors, their shape as (rows, columns)."""
ARCHITECTURE = RecordKind(
    {
        "layer_count": UINT32,
        "width": UINT32,
        "head_count": UINT32,
        "kv_head_count": UINT32,
        "head_dim": UINT32,
        "ffn_width": UINT32,
        "vocabulary_size": UINT32,
        "rope_base": UINT32,
        "epsilon": UINT32,
    }
)
"""The two floats by their bits."""
VECTORS = Array(Array(INT32))
MATRIX = RecordKind({"name": TEXT, "k": INT32, "multipliers": Array(INT32, 1), "rows": Array(Array(INT8, 1), 1)})
LAYER = RecordKind(
    {
        "attn_norm": Array(INT32),
        "attn_q": MATRIX,
        "attn_k": MATRIX,
        "attn_v": MATRIX,
        "attn_output": MATRIX,
        "ffn_norm": Array(INT32),
        "ffn_gate": MATRIX,
        "ffn_up": MATRIX,
        "ffn_down": MATRIX,
    }
)
INTEGER_MODEL = RecordKind(
    {
        "architecture": ARCHITECTURE,
        "embedding": VECTORS,
        "layers": Array(LAYER),
        "output_norm": Array(INT32),
        "head": MATRIX,
        "attention_scale": UINT32,
        "root": HASH32,
    }
)


def make_gguf(value: dict[str, Any]) -> GgufFile:
    """Return the file that a value of the kind `GGUF` describes."""
    metadata = {key: Float32(item) if name == "float32" else item for key, (name, item) in value["metadata"].items()}
    tensors = {
        name: GgufTensor(name, tensor["type"], tensor["shape"], tensor["data"])
        for name, tensor in value["tensors"].items()
    }
    return GgufFile(metadata, tensors)


def show_gguf(gguf: GgufFile) -> dict[str, Any]:
    """Return a file as a value of the kind `GGUF`."""
    tensors = {name: {"type": t.type, "shape": t.shape, "data": t.data} for name, t in gguf.tensors.items()}
    return {"metadata": {key: _show_scalar(value) for key, value in gguf.metadata.items()}, "tensors": tensors}


def _show_scalar(value: int | bool | str | Float32) -> tuple[str, Any]:
    if isinstance(value, Float32):
        return "float32", value.bits
    name = {bool: "boolean", int: "integer", str: "text"}[type(value)]
    return name, value


def make_architecture(value: dict[str, Any]) -> Architecture:
    """Return the architecture of a value of the kind `ARCHITECTURE`."""
    floats = {name: Float32(value[name]) for name in ("rope_base", "epsilon")}
    return Architecture(**value | floats)


def show_architecture(a: Architecture) -> dict[str, Any]:
    """Return an architecture as a value of the kind `ARCHITECTURE`."""
    return vars(a) | {"rope_base": a.rope_base.bits, "epsilon": a.epsilon.bits}


def show_model(model: IntegerModel) -> dict[str, Any]:
    """Return an integer model, with its root, as a value of the kind `INTEGER_MODEL`."""
    return {
        "architecture": show_architecture(model.architecture),
        "embedding": model.embedding,
        "layers": [_show_layer(layer) for layer in model.layers],
        "output_norm": model.output_norm,
        "head": vars(model.head),
        "attention_scale": model.attention_scale,
        "root": compute_integer_model_root(model),
    }


def _show_layer(layer: Layer) -> dict[str, Any]:
    return {name: vars(part) if isinstance(part, Matrix) else part for name, part in vars(layer).items()}
