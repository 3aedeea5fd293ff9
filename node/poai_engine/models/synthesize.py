"""Make models whose weights come from a seed: for tests, vectors and networks that need no download.

Three models exist. `mini` (3 layers, width 64) is small enough for a forward pass on Python integers and uses every
tensor type that is accepted. `micro` (2 layers, width 32, the same vocabulary) is what a small network changes its
model to. `tinyllama-shape` has the shape and the tensor types of TinyLlama-1.1B in Q4_K_M.

The recipe, so that anyone can make the same bytes: one SHAKE-128 stream over `PoAI/synthetic-model/1/NAME` gives the
data of all tensors in file order. Then the fields that set the magnitude are overwritten, each from the bytes already
there, so that weights have a standard deviation near 2^L (L per tensor, see `SHAPES`):

- an F16 scale r becomes a number in [2^e, 2^(e+1)) with the low bits of r as its mantissa; the top bit of r stays its
  sign where the type is symmetric, the scale of K-quants and of types with a minimum is positive, a minimum m of
  Q4_1 and Q5_1 negative. e = L + `_SCALES[type]`.
- in F32, F16 and BF16 matrices the exponent becomes L - 1 or L, by its lowest bit; sign and mantissa stay.
- gains (vectors) become 3/4 + (u mod 2^16) / 2^17, with u the 4 bytes as an integer, little-endian.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from Crypto.Hash import SHAKE128
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_writer import GGUFWriter

from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import BYTE, CONTROL, NORMAL, UNKNOWN
from poai_spec.proof.lexicon import PIECES

# type -> (byte offset in the block, exponent relative to L, sign: 0 random, 1 positive, -1 negative) of each F16 scale
_SCALES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "Q4_0": ((0, -3, 0),),
    "Q4_1": ((0, -3, 1), (2, 0, -1)),
    "Q5_0": ((0, -4, 0),),
    "Q5_1": ((0, -4, 1), (2, 0, -1)),
    "Q8_0": ((0, -7, 0),),
    "Q4_K": ((0, -9, 1), (2, -6, 1)),
    "Q5_K": ((0, -10, 1), (2, -6, 1)),
    "Q6_K": ((208, -11, 0),),
}
# type -> (integer type, bits of the mantissa, bias of the exponent, bits of the exponent)
_FLOATS: dict[str, tuple[str, int, int, int]] = {
    "F32": ("<u4", 23, 127, 8), "F16": ("<u2", 10, 15, 5), "BF16": ("<u2", 7, 127, 8),
}  # fmt: skip


@dataclass(frozen=True)
class _Tensor:
    """One tensor to make: rows * columns values of `type` with standard deviation near 2^level; 0 rows: gains."""

    name: str
    type: str
    rows: int
    columns: int
    level: int


@dataclass(frozen=True)
class _Shape:
    """A model to make.

    Attributes:
        vocabulary_size: number of tokens; 0 for no more than the lexicon needs.
        types: layer -> tensor types of q, k, v, output, gate, up, down.
        levels: L of token_embd, output, and of q, k, v, output, gate, up, down in every layer.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    context: int
    vocabulary_size: int
    embedding_type: str
    output_type: str
    types: tuple[tuple[str, ...], ...]
    levels: tuple[int, ...]


def _q4_k_m(layers: int) -> tuple[tuple[str, ...], ...]:
    """Return the types that llama.cpp's Q4_K_M gives: v and down are Q6_K in the layers that need more bits."""
    more = [i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2 for i in range(layers)]
    q6 = ["Q6_K" if m else "Q4_K" for m in more]
    return tuple(("Q4_K", "Q4_K", v, "Q4_K", "Q4_K", "Q4_K", v) for v in q6)


SHAPES = {
    "mini": _Shape(
        layers=3, width=64, heads=4, kv_heads=2, inner=256, context=256, vocabulary_size=0,
        embedding_type="Q8_0", output_type="Q5_1",
        types=(
            ("F16", "F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K"),
            ("Q4_0", "Q5_0", "Q4_1", "Q5_1", "Q5_0", "Q5_1", "Q5_K"),
            ("Q5_0", "Q8_0", "Q5_1", "BF16", "Q8_0", "Q4_0", "Q6_K"),
        ),
        levels=(-4, -2, -2, -3, -3, -4, -3, -3, -5),
    ),
    "micro": _Shape(
        layers=2, width=32, heads=2, kv_heads=1, inner=96, context=256, vocabulary_size=0,
        embedding_type="Q8_0", output_type="Q8_0",
        types=(
            ("Q8_0", "Q4_0", "Q5_0", "Q4_1", "Q5_1", "Q8_0", "Q4_0"),
            ("F16", "BF16", "Q8_0", "Q8_0", "Q4_1", "Q5_0", "Q5_1"),
        ),
        levels=(-4, -2, -2, -3, -3, -4, -3, -3, -5),
    ),
    "tinyllama-shape": _Shape(
        layers=22, width=2048, heads=32, kv_heads=4, inner=5632, context=2048, vocabulary_size=32_000,
        embedding_type="Q4_K", output_type="Q6_K", types=_q4_k_m(22),
        levels=(-6, -5, -5, -5, -5, -6, -5, -5, -6),
    ),
}  # fmt: skip
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece spells a space


def make_tokens(size: int) -> list[tuple[str, int]]:
    """Return text and type of each token: specials, bytes, every prefix of every lexicon piece, then filler.

    With every prefix a token, SentencePiece's merging always ends in the whole piece: the symbol on the left is a
    prefix, and with its neighbour a longer one, so that merge stays possible until the piece is one symbol. A newline
    is its byte token, as in Llama's vocabulary.
    """
    tokens = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    tokens += [(f"<0x{value:02X}>", BYTE) for value in range(256)]
    spelled = [piece.replace(" ", _SPACE) for piece in PIECES if piece != "\n"]
    texts = dict.fromkeys(piece[:end] for piece in spelled for end in range(1, len(piece) + 1))
    filler = max(0, size - len(tokens) - len(texts))
    tokens += [(text, NORMAL) for text in texts] + [(f"{_SPACE}#{i:05d}", NORMAL) for i in range(filler)]
    return tokens


def _plan(shape: _Shape, vocabulary_size: int) -> Iterator[_Tensor]:
    """Yield the tensors in file order."""
    width, inner, kv = shape.width, shape.inner, shape.width // shape.heads * shape.kv_heads
    sizes = ((width, width), (kv, width), (kv, width), (width, width), (inner, width), (inner, width), (width, inner))
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    yield _Tensor("token_embd.weight", shape.embedding_type, vocabulary_size, width, shape.levels[0])
    for layer, types in enumerate(shape.types):
        yield _Tensor(f"blk.{layer}.attn_norm.weight", "F32", 0, width, 0)
        yield _Tensor(f"blk.{layer}.ffn_norm.weight", "F32", 0, width, 0)
        for name, kind, (rows, columns), level in zip(names, types, sizes, shape.levels[2:], strict=True):
            yield _Tensor(f"blk.{layer}.{name}.weight", kind, rows, columns, level)
    yield _Tensor("output_norm.weight", "F32", 0, width, 0)
    yield _Tensor("output.weight", shape.output_type, vocabulary_size, width, shape.levels[1])


def _n_bytes(tensor: _Tensor) -> int:
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.type]]
    return int(max(tensor.rows, 1) * tensor.columns // block * size)


def _set_scale(bits: Any, exponent: int, sign: int) -> Any:
    """Return F16 bit patterns in [2^exponent, 2^(exponent + 1)); see the module's recipe."""
    top = (exponent + 15) << 10 if exponent >= -14 else 1 << (exponent + 24)  # below 2^-14, F16 is subnormal
    low = bits & (0x3FF if exponent >= -14 else top - 1)
    signs = bits & 0x8000 if sign == 0 else (0x8000 if sign < 0 else 0)
    return (low | top | signs).astype("<u2")


def _data(tensor: _Tensor, stream: Any) -> Any:
    """Return a tensor's bytes: the next of the stream, with the magnitudes set."""
    raw = np.frombuffer(bytearray(stream.read(_n_bytes(tensor))), np.uint8)
    if not tensor.rows:
        gains = np.float32(0.75) + (raw.view("<u4") & 0xFFFF).astype("<f4") / np.float32(1 << 17)
        return gains.astype("<f4").view(np.uint8)
    if tensor.type in _FLOATS:
        kind, mantissa, bias, exponent_bits = _FLOATS[tensor.type]
        bits = raw.view(kind)
        low = bits & ((1 << (mantissa + 1)) - 1) & ~np.array(1 << mantissa, kind)
        exponent = (bias + tensor.level - 1 + ((bits >> mantissa) & 1)) << mantissa
        bits[:] = low | exponent | (bits & (1 << (mantissa + exponent_bits)))
        return raw
    blocks = raw.reshape(-1, GGML_QUANT_SIZES[GGMLQuantizationType[tensor.type]][1])
    for offset, relative, sign in _SCALES[tensor.type]:
        scales = np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<u2")
        blocks[:, offset : offset + 2] = _set_scale(scales, tensor.level + relative, sign).view(np.uint8)
    return raw


def _make_writer(name: str, shape: _Shape, tokens: list[tuple[str, int]]) -> GGUFWriter:
    """Return a writer that holds the metadata."""
    writer = GGUFWriter(None, "llama")
    writer.add_name(f"poai-{name}")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-float(i) if kind == NORMAL else 0.0 for i, (_, kind) in enumerate(tokens)])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    return writer


def _write(name: str, path: Path) -> None:
    shape = SHAPES[name]
    tokens = make_tokens(shape.vocabulary_size)
    writer = _make_writer(name, shape, tokens)
    plan = list(_plan(shape, len(tokens)))
    for tensor in plan:
        dimensions = (tensor.rows, tensor.columns) if tensor.rows else (tensor.columns,)
        kind = GGMLQuantizationType[tensor.type]
        writer.add_tensor_info(tensor.name, dimensions, np.dtype(np.float32), _n_bytes(tensor), kind)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        stream = SHAKE128.new(f"PoAI/synthetic-model/1/{name}".encode())
        for tensor in plan:
            writer.write_tensor_data(_data(tensor, stream))
    finally:
        writer.close()


def synthesize(name: str, path: Path) -> None:
    """Write a synthetic model to `path`; the same bytes every time, and the whole file or none.

    Raises:
        ModelError: unknown name, or the file cannot be written.
    """
    if name not in SHAPES:
        raise ModelError(f"no synthetic model {name!r}: the names are {', '.join(SHAPES)}")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(name, part)
        part.replace(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror}): free space or choose another place") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
