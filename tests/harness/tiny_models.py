"""Random tiny models as in-memory GGUF files: every tensor type, every shape that the arithmetic accepts."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from poai_spec.model.fixed_point import get_transform_size
from poai_spec.model.weights import TENSOR_TYPES, Float32, GgufFile, GgufTensor

LARGEST_SCALE = {  # log2 of a block scale with which no weight can reach the refused magnitude of 2^14
    "Q4_0": 10, "Q4_1": 9, "Q5_0": 9, "Q5_1": 8, "Q8_0": 6, "Q4_K": 3, "Q5_K": 2, "Q6_K": 1,
    "F16": 13, "BF16": 13, "F32": 13,
}  # fmt: skip
SCALE_OFFSETS = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def float32(value: float) -> Float32:
    return Float32(struct.unpack("<I", struct.pack("<f", value))[0])


def random_tensor(rng: np.random.Generator, name: str, kind: str, shape: tuple[int, ...], loudness: str) -> GgufTensor:
    """Make a tensor of random blocks; `loudness` sets the size of its scales."""
    elements, size, _ = TENSOR_TYPES[kind]
    blocks = int(np.prod(shape)) // elements
    largest = LARGEST_SCALE[kind] - (get_transform_size(shape[-1]).bit_length() - 1)
    exponents: Callable[[int], Any] = {
        "quiet": lambda n: rng.integers(-24, -12, n),
        "normal": lambda n: rng.integers(largest - 18, largest - 13, n),
        "loud": lambda n: rng.integers(largest - 6, largest, n),
        "mixed": lambda n: rng.integers(-24, largest, n),
    }[loudness]
    if elements == 1:
        values = rng.uniform(-1, 1, blocks) * 2.0 ** exponents(blocks)
        values *= rng.random(blocks) > 0.1
        raw = {
            "F16": lambda: values.astype("<f2").tobytes(),
            "BF16": lambda: (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes(),
            "F32": lambda: values.astype("<f4").tobytes(),
        }[kind]()
        return GgufTensor(name, kind, shape, raw)
    data = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    for offset in SCALE_OFFSETS.get(kind, (0,)):
        scales = rng.choice([-1.0, 1.0], blocks) * 2.0 ** exponents(blocks)
        data[:, offset : offset + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
    return GgufTensor(name, kind, shape, data.tobytes())


def zero_some_rows(rng: np.random.Generator, tensor: GgufTensor) -> GgufTensor:
    """Set every scale of some rows to zero (all bytes: zero in every type)."""
    rows = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape[0], -1).copy()
    rows[rng.random(len(rows)) < 0.3] = 0
    return GgufTensor(tensor.name, tensor.type, tensor.shape, rows.tobytes())


@st.composite
def tiny_models(draw: st.DrawFn) -> GgufFile:
    """Draw a model of 1 or 2 layers: tied or separate head, GQA 1..4, odd widths, quiet to saturating weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    unit = draw(st.sampled_from([1, 1, 32, 256]))
    kinds = [kind for kind, (elements, _, _) in TENSOR_TYPES.items() if unit % elements == 0]
    kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 4))
    if unit == 1:
        width, head_dim, ffn = draw(st.integers(1, 13)), 2 * draw(st.integers(1, 5)), draw(st.integers(1, 17))
    else:
        heads = kv_heads * group
        kv_heads, group = (kv_heads, group) if unit % (2 * heads) == 0 else (1, 2)
        width, head_dim, ffn = unit, unit // (kv_heads * group), unit
    vocabulary, heads = draw(st.integers(3, 9)), kv_heads * group
    matrices = {"token_embd": (vocabulary, width)}
    if draw(st.booleans()):
        matrices["output"] = (vocabulary, width)
    layers = draw(st.integers(1, 2))
    for n in range(layers):
        matrices |= {
            f"blk.{n}.attn_q": (heads * head_dim, width),
            f"blk.{n}.attn_k": (kv_heads * head_dim, width),
            f"blk.{n}.attn_v": (kv_heads * head_dim, width),
            f"blk.{n}.attn_output": (width, heads * head_dim),
            f"blk.{n}.ffn_gate": (ffn, width),
            f"blk.{n}.ffn_up": (ffn, width),
            f"blk.{n}.ffn_down": (width, ffn),
        }
    norms = ["output_norm", *(f"blk.{n}.{part}_norm" for n in range(layers) for part in ("attn", "ffn"))]
    loudness = draw(st.sampled_from(["quiet", "normal", "normal", "loud", "mixed"]))
    tensors = {}
    for name, shape in matrices.items():
        kind = draw(st.sampled_from(kinds))
        tensor = random_tensor(rng, f"{name}.weight", kind, shape, loudness)
        tensors[tensor.name] = zero_some_rows(rng, tensor) if draw(st.booleans()) else tensor
    gain = draw(st.sampled_from([0.01, 1.0, 120.0]))
    for name in norms:
        values = (rng.uniform(-1, 1, width) * gain).astype("<f4")
        tensors[f"{name}.weight"] = GgufTensor(f"{name}.weight", "F32", (width,), values.tobytes())
    metadata: dict[str, int | bool | str | Float32] = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.feed_forward_length": ffn,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": head_dim,
        "llama.attention.value_length": head_dim,
        "llama.attention.layer_norm_rms_epsilon": float32(draw(st.sampled_from([1e-30, 1e-6, 1e-5, 0.5]))),
        "llama.rope.freq_base": float32(draw(st.sampled_from([1.0, 10000.0, 500000.0]))),
    }
    return GgufFile(metadata, tensors)


@st.composite
def batches(draw: st.DrawFn, gguf: GgufFile) -> tuple[list[list[int]], list[list[int]]]:
    """Draw tokens and scored positions of up to 5 sequences of equal length for a model."""
    vocabulary = gguf.tensors["token_embd.weight"].shape[0]
    length = draw(st.integers(2, 6))
    ids = st.lists(st.integers(0, vocabulary - 1), min_size=length, max_size=length)
    positions = st.sets(st.integers(1, length - 1), min_size=1).map(sorted)
    tokens = draw(st.lists(ids, min_size=1, max_size=5))
    return tokens, [draw(positions) for _ in tokens]
