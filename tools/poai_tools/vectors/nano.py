"""poai-nano: one block, width 8, 16 tokens. Small enough to print every number, so it is given in JSON, not as a file.

The recipe: the DRBG of seed `Keccak(Keccak("PoAI/vectors/1") || "models/nano")` gives the tensors in the order of
`SHAPES`, one draw an element. Matrices are F16 with random sign and magnitude in [1/8, 1/2); the embedding is F32 with
random sign and magnitude in [1/4, 1); gains are F32 in [1/2, 2).
"""

import struct
from functools import cache
from typing import Any

from poai_spec.basics.drbg import Drbg
from poai_spec.model.integer_model import make_integer_model
from poai_spec.model.weights import Float32, GgufFile, GgufTensor
from poai_tools.vectors.cases import derive
from poai_tools.vectors.model_kinds import GGUF, INTEGER_MODEL, show_gguf, show_model

WIDTH, VOCABULARY, FFN, HEADS, KV_HEADS, HEAD_DIM = 8, 16, 16, 2, 1, 4
SHAPES: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (VOCABULARY, WIDTH),
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (HEADS * HEAD_DIM, WIDTH),
    "blk.0.attn_k.weight": (KV_HEADS * HEAD_DIM, WIDTH),
    "blk.0.attn_v.weight": (KV_HEADS * HEAD_DIM, WIDTH),
    "blk.0.attn_output.weight": (WIDTH, HEADS * HEAD_DIM),
    "blk.0.ffn_norm.weight": (WIDTH,),
    "blk.0.ffn_gate.weight": (FFN, WIDTH),
    "blk.0.ffn_up.weight": (FFN, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, FFN),
    "output_norm.weight": (WIDTH,),
    "output.weight": (VOCABULARY, WIDTH),
}
METADATA: dict[str, int | bool | str | Float32] = {
    "general.architecture": "llama",
    "general.name": "poai-nano",
    "llama.block_count": 1,
    "llama.context_length": 32,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": FFN,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": Float32(0x3727C5AC),  # 1e-5
    "llama.rope.dimension_count": HEAD_DIM,
    "llama.rope.freq_base": Float32(0x461C4000),  # 10000
    "llama.vocab_size": VOCABULARY,
}


def _draw_f16(drbg: Drbg) -> bytes:
    bits = drbg.below(1 << 12)  # sign, lowest bit of the exponent, mantissa
    return struct.pack("<H", (bits >> 11) << 15 | (12 + (bits >> 10 & 1)) << 10 | bits & 1023)


def _draw_f32(drbg: Drbg, exponent: int, *, signed: bool) -> bytes:
    bits = drbg.below(1 << 25)  # sign, lowest bit of the exponent, mantissa
    sign = bits >> 24 if signed else 0
    return struct.pack("<I", sign << 31 | (exponent + (bits >> 23 & 1)) << 23 | bits & 0x7FFFFF)


def _make_tensor(name: str, shape: tuple[int, ...], drbg: Drbg) -> GgufTensor:
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    if len(shape) == 1:
        return GgufTensor(name, "F32", shape, b"".join(_draw_f32(drbg, 126, signed=False) for _ in range(count)))
    if name == "token_embd.weight":
        return GgufTensor(name, "F32", shape, b"".join(_draw_f32(drbg, 125, signed=True) for _ in range(count)))
    return GgufTensor(name, "F16", shape, b"".join(_draw_f16(drbg) for _ in range(count)))


@cache
def make_nano() -> GgufFile:
    """Return the model as a GGUF reader would."""
    drbg = derive("models", "nano")
    return GgufFile(METADATA, {name: _make_tensor(name, shape, drbg) for name, shape in SHAPES.items()})


def make_nano_document() -> dict[str, Any]:
    """Return `test_vectors/models/nano.json`: the model as in a file, and its integers."""
    return {
        "format": 1,
        "name": "poai-nano",
        "derivation": "Weights are draws of the DRBG with seed Keccak(Keccak('PoAI/vectors/1') || 'models/nano').",
        "gguf": GGUF.to_json(show_gguf(make_nano())),
        "integer_model": INTEGER_MODEL.to_json(show_model(make_integer_model(make_nano()))),
    }
