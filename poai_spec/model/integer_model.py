# # Integer model  [generated from specs/model/integer-model.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# From a GGUF file to the integers that the forward pass uses, once when a model is loaded. Each matrix row is transformed
# ([walsh_hadamard](fixed-point.md#walsh_hadamard)) and becomes int8 values and one multiplier; norm gains and embedding rows become fixed-point vectors. Everything that the arithmetic does
# not cover is refused here, with the key or tensor that is the reason, so that a model which loads runs the same bits
# everywhere.

# Accepted: the `llama` architecture (RMSNorm, rotary attention with grouped keys, SwiGLU), without rope scaling, biases,
# experts or sliding windows.

# A file with several faults is refused for the first one that `make_integer_model` meets: the metadata in the order of
# `read_architecture`, then presence and shape of each tensor in the order of `get_tensor_shapes`, then a tensor that has no
# place, then the contents of one tensor after another in the same order, a tied head once more at the end. In a tensor
# the type comes first, then its length, then a value that is not finite, then row maxima or gains.


from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

from poai_spec.model.fixed_point import LOG2E_128, bit_length, clamp, div_round, round_shift, walsh_hadamard
from poai_spec.basics.notation import Hash32, Invalid, int8_bytes, int32_le, tagged_hash, uint32_le
from poai_spec.model.weights import Float32, GgufFile, GgufTensor, decode_tensor


# ## Constants

# | name | value | why |
# | --- | --- | --- |
# | `MAX_INNER` | 2^15 | columns of a matrix: `acc * M_o` stays exact in float64 and every shift in int64 |
# | `MAX_WIDTH` | 2^14 | width D: the sum of squares of RMSNorm stays in int64 |
# | `MAX_HEAD_DIM` | 2^12 | head dimension: scores stay in int64 |
# | `MAX_LAYERS` | 256 | L: the longest trace has an entry more; a forged count must not become a list of tensors |
# | `MAX_VOCABULARY` | 2^24 | V: the sum of the scoring stays in int64 with room |
# | `ROW_MAXIMUM_BITS` | 38 | a row maximum `m_o` has at most 38 bits, that is, transformed weights below 2^14 |
# | `GAIN_LIMIT` | 128 | norm gains stay below it in magnitude; seen in practice: 3.3 |
# | `MULTIPLIER_BITS` | 26 | `M_o * 127` has at most 26 bits |


MAX_INNER = 1 << 15
MAX_WIDTH = 1 << 14
MAX_HEAD_DIM = 1 << 12
MAX_LAYERS = 256
MAX_VOCABULARY = 1 << 24
ROW_MAXIMUM_BITS = 38
GAIN_LIMIT = 128
MULTIPLIER_BITS = 26


# ## Types

# ### `Architecture`


@dataclass(frozen=True)
class Architecture:
    """The numbers that shape the forward pass.

    Attributes:
        layer_count: transformer blocks, L.
        width: residual width, D.
        head_count: query heads, H.
        kv_head_count: key and value heads; divides H.
        head_dim: width of a head, even; H * head_dim need not be D.
        ffn_width: inner width of the feed-forward part, F.
        vocabulary_size: token ids, V.
        rope_base: base of the rotary frequencies.
        epsilon: added to the mean square in RMSNorm.
    """

    layer_count: int
    width: int
    head_count: int
    kv_head_count: int
    head_dim: int
    ffn_width: int
    vocabulary_size: int
    rope_base: Float32
    epsilon: Float32


# ### `Matrix`


@dataclass(frozen=True)
class Matrix:
    """A linear map: row o, column i of the transformed weights is `rows[o][i] * multipliers[o] * 2^(-k - 24)`, nearly.

    Attributes:
        name: the GGUF tensor that it comes from.
        k: exponent shared by the rows of the tensor.
        multipliers: M_o, one a row, 0 .. 528,416.
        rows: int8 values, -127 .. 127.
    """

    name: str
    k: int
    multipliers: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]


# ### `Layer`


@dataclass(frozen=True)
class Layer:
    """One transformer block; gains are Q16."""

    attn_norm: tuple[int, ...]
    attn_q: Matrix
    attn_k: Matrix
    attn_v: Matrix
    attn_output: Matrix
    ffn_norm: tuple[int, ...]
    ffn_gate: Matrix
    ffn_up: Matrix
    ffn_down: Matrix


# ### `IntegerModel`


@dataclass(frozen=True)
class IntegerModel:
    """A loaded model.

    Attributes:
        architecture: its shape.
        embedding: V rows of D, Q14.
        layers: L blocks.
        output_norm: gains of the last RMSNorm, Q16.
        head: from the last residual to V logits; a tied head is the linear rule on `token_embd.weight`.
        attention_scale: log2(e) / sqrt(head_dim), Q24.
    """

    architecture: Architecture
    embedding: tuple[tuple[int, ...], ...]
    layers: tuple[Layer, ...]
    output_norm: tuple[int, ...]
    head: Matrix
    attention_scale: int


# ## Reading the architecture

# ### Known metadata keys

# Keys under `llama.` that this page knows. Any other one may change the arithmetic and is refused; the neutral ones are
# accepted with exactly the value given.


METADATA_KEYS = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
)
NEUTRAL_METADATA = {"expert_count": 0, "expert_used_count": 0, "rope.scaling.type": "none"}
DEFAULT_ROPE_BASE = Float32(0x461C4000)  # 10000.0


# ### `get_count`


def get_count(gguf: GgufFile, key: str, default: int | None = None) -> int:
    """Return the positive integer `llama.KEY`, or the default where the key is absent.

    Raises:
        Invalid: `integer-model/metadata`.
    """
    value = gguf.metadata.get(f"llama.{key}", default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Invalid("integer-model/metadata", f"llama.{key} is {value!r}, expected a positive integer")
    return value


# ### `get_float`


def get_float(gguf: GgufFile, key: str, default: Float32 | None = None) -> Float32:
    """Return the positive F32 `llama.KEY`, or the default where the key is absent.

    Raises:
        Invalid: `integer-model/metadata-float`, `weights/not-finite`.
    """
    value = gguf.metadata.get(f"llama.{key}", default)
    if not isinstance(value, Float32) or value.as_ratio()[0] <= 0:
        raise Invalid("integer-model/metadata-float", f"llama.{key} is {value!r}, expected a positive F32")
    return value


# ### `check_metadata`


def check_metadata(gguf: GgufFile) -> None:
    """Refuse another architecture and every key whose effect is not specified.

    Raises:
        Invalid: `integer-model/architecture`, `integer-model/unknown-key`.
    """
    name = gguf.metadata.get("general.architecture")
    if name != "llama":
        raise Invalid("integer-model/architecture", f"general.architecture is {name!r}, only 'llama' is specified")
    for key, value in gguf.metadata.items():
        short = key.removeprefix("llama.")
        if short == key or short in METADATA_KEYS:
            continue
        neutral = NEUTRAL_METADATA.get(short)
        if type(value) is not type(neutral) or value != neutral:
            raise Invalid("integer-model/unknown-key", f"{key} is {value!r}: it may change the arithmetic")


# ### `read_architecture`

# A vocabulary without tokens, that is an embedding without rows or dimensions, is refused as a count that is not positive.


def read_architecture(gguf: GgufFile) -> Architecture:
    """Return the model's shape from the metadata and the embedding's rows.

    Raises:
        Invalid: `integer-model/...`.
    """
    check_metadata(gguf)
    width, heads = get_count(gguf, "embedding_length"), get_count(gguf, "attention.head_count")
    head_dim = get_count(gguf, "attention.key_length", width // heads)
    architecture = Architecture(
        layer_count=get_count(gguf, "block_count"),
        width=width,
        head_count=heads,
        kv_head_count=get_count(gguf, "attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn_width=get_count(gguf, "feed_forward_length"),
        vocabulary_size=(*get_tensor(gguf, "token_embd.weight").shape, 0)[0],
        rope_base=get_float(gguf, "rope.freq_base", DEFAULT_ROPE_BASE),
        epsilon=get_float(gguf, "attention.layer_norm_rms_epsilon"),
    )
    for key, expected in (
        ("attention.value_length", head_dim),
        ("rope.dimension_count", head_dim),
        ("vocab_size", architecture.vocabulary_size),
    ):
        if (found := get_count(gguf, key, expected)) != expected:
            raise Invalid("integer-model/mismatch", f"llama.{key} is {found}, expected {expected}")
    check_architecture(architecture)
    return architecture


# ### `check_architecture`


def check_architecture(a: Architecture) -> None:
    """Refuse shapes outside the bounds that the arithmetic is proved for.

    Raises:
        Invalid: `integer-model/bounds`.
    """
    numerator, denominator = a.rope_base.as_ratio()
    bounds = {
        f"{a.layer_count} blocks are more than {MAX_LAYERS}": a.layer_count <= MAX_LAYERS,
        f"width {a.width} is above {MAX_WIDTH}": a.width <= MAX_WIDTH,
        f"head_dim {a.head_dim} is odd or above {MAX_HEAD_DIM}": a.head_dim % 2 == 0 and a.head_dim <= MAX_HEAD_DIM,
        f"{a.head_count} heads share {a.kv_head_count} KV heads unevenly": a.head_count % a.kv_head_count == 0,
        f"heads together are wider than {MAX_INNER}": a.head_count * a.head_dim <= MAX_INNER,
        f"ffn_width {a.ffn_width} is above {MAX_INNER}": a.ffn_width <= MAX_INNER,
        f"vocabulary {a.vocabulary_size} is above {MAX_VOCABULARY}": a.vocabulary_size <= MAX_VOCABULARY,
        "rope.freq_base is below 1": numerator >= denominator,
        "epsilon is 1 or more": a.epsilon.as_ratio()[0] < a.epsilon.as_ratio()[1],
    }
    for reason, holds in bounds.items():
        if not holds:
            raise Invalid("integer-model/bounds", reason)


# ## Reading the tensors

# ### `get_tensor_shapes`


def get_tensor_shapes(a: Architecture, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that the file must hold; it may hold no other."""
    attention, kv = a.head_count * a.head_dim, a.kv_head_count * a.head_dim
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (a.vocabulary_size, a.width)}
    for n in range(a.layer_count):
        shapes |= {
            f"blk.{n}.attn_norm.weight": (a.width,),
            f"blk.{n}.attn_q.weight": (attention, a.width),
            f"blk.{n}.attn_k.weight": (kv, a.width),
            f"blk.{n}.attn_v.weight": (kv, a.width),
            f"blk.{n}.attn_output.weight": (a.width, attention),
            f"blk.{n}.ffn_norm.weight": (a.width,),
            f"blk.{n}.ffn_gate.weight": (a.ffn_width, a.width),
            f"blk.{n}.ffn_up.weight": (a.ffn_width, a.width),
            f"blk.{n}.ffn_down.weight": (a.width, a.ffn_width),
        }
    shapes["output_norm.weight"] = (a.width,)
    if not tied:
        shapes["output.weight"] = (a.vocabulary_size, a.width)
    return shapes


# ### `get_tensor`


def get_tensor(gguf: GgufFile, name: str) -> GgufTensor:
    """Return a tensor of the file.

    Raises:
        Invalid: `integer-model/tensor-missing`.
    """
    if name not in gguf.tensors:
        raise Invalid("integer-model/tensor-missing", f"the file has no tensor {name}")
    return gguf.tensors[name]


# ### `check_tensors`


def check_tensors(gguf: GgufFile, a: Architecture) -> None:
    """Refuse a file with a tensor missing, of another shape, or that this page does not know (a bias, say).

    Raises:
        Invalid: `integer-model/tensor-missing`, `integer-model/tensor-shape`, `integer-model/tensor-unknown`.
    """
    shapes = get_tensor_shapes(a, tied="output.weight" not in gguf.tensors)
    for name, shape in shapes.items():
        if (found := get_tensor(gguf, name).shape) != shape:
            raise Invalid("integer-model/tensor-shape", f"{name} has shape {found}, expected {shape}")
    if unknown := sorted(gguf.tensors.keys() - shapes.keys()):
        raise Invalid("integer-model/tensor-unknown", f"{unknown[0]} has no place in this architecture")


# ### `quantise_matrix`

# A row of weights W is transformed first, exactly: V. An outlier among 64 weights then costs each of them a little
# precision and no longer all but itself all of it. With `m_o` the largest magnitude of V,
# `q = round(127 V / m_o)` fills the int8 range in every row; the multipliers carry `m_o / 127` with a common exponent. `k = 26 - bit_length(largest m_o)` makes `M_o * 127` at most 26 bits long, so
# that `acc * M_o` plus the rounding half stays below 2^53 for up to 2^15 columns. A row of zeros has `M_o = 0`; a matrix
# of zeros has k = 26. A matrix has at least one row and one column, since `decode_tensor` refuses others.


def quantise_matrix(name: str, weights: list[list[int]]) -> Matrix:
    """Transform the rows W (integers, 2^24 * w) and quantise them to int8 with one multiplier a row.

    Raises:
        Invalid: `integer-model/row-maximum`.
    """
    transformed = [walsh_hadamard(row) for row in weights]
    maxima = [max(abs(v) for v in row) for row in transformed]
    check_maximum(name, max(maxima))
    k = MULTIPLIER_BITS - bit_length(max(maxima))
    return Matrix(
        name=name,
        k=k,
        multipliers=tuple(div_round(m << max(k, 0), 127 << max(-k, 0)) for m in maxima),
        rows=tuple(
            tuple(div_round(127 * v, m) if m else 0 for v in row) for row, m in zip(transformed, maxima, strict=True)
        ),
    )


# ### `check_maximum`


def check_maximum(name: str, maximum: int) -> None:
    """Refuse a matrix whose largest transformed magnitude (integer, 2^24 * v) is 2^38 or more.

    No transformed row is smaller than its largest weight (the mean of its squares over a run is the sum of the
    weights'), so every W of a matrix that passes is below 2^38 too.

    Raises:
        Invalid: `integer-model/row-maximum`.
    """
    if bit_length(maximum) > ROW_MAXIMUM_BITS:
        raise Invalid("integer-model/row-maximum", f"{name} holds a transformed weight of magnitude 2^14 or more")


# ### `read_matrix`


def read_matrix(gguf: GgufFile, name: str) -> Matrix:
    """Return a matrix of the file, quantised."""
    return quantise_matrix(name, decode_tensor(get_tensor(gguf, name)))


# ### `read_gains`


def read_gains(gguf: GgufFile, name: str) -> tuple[int, ...]:
    """Return the gains of a norm in Q16, rounded half up from W.

    Raises:
        Invalid: `integer-model/gain`.
    """
    gains = tuple(round_shift(w, 8) for w in decode_tensor(get_tensor(gguf, name))[0])
    check_gain(name, max(abs(gain) for gain in gains))
    return gains


# ### `check_gain`


def check_gain(name: str, largest: int) -> None:
    """Refuse a norm whose largest gain (magnitude, Q16) is 128 or more.

    Raises:
        Invalid: `integer-model/gain`.
    """
    if largest >= GAIN_LIMIT << 16:
        raise Invalid("integer-model/gain", f"{name} has a gain of magnitude {GAIN_LIMIT} or more")


# ### `read_layer`


def read_layer(gguf: GgufFile, n: int) -> Layer:
    """Return transformer block n, 0 .. L - 1."""
    blk = f"blk.{n}."
    return Layer(
        attn_norm=read_gains(gguf, blk + "attn_norm.weight"),
        attn_q=read_matrix(gguf, blk + "attn_q.weight"),
        attn_k=read_matrix(gguf, blk + "attn_k.weight"),
        attn_v=read_matrix(gguf, blk + "attn_v.weight"),
        attn_output=read_matrix(gguf, blk + "attn_output.weight"),
        ffn_norm=read_gains(gguf, blk + "ffn_norm.weight"),
        ffn_gate=read_matrix(gguf, blk + "ffn_gate.weight"),
        ffn_up=read_matrix(gguf, blk + "ffn_up.weight"),
        ffn_down=read_matrix(gguf, blk + "ffn_down.weight"),
    )


# ### `compute_attention_scale`


def compute_attention_scale(head_dim: int) -> int:
    """Return log2(e) / sqrt(head_dim) in Q24, rounded: scores are in base 2, so softmax needs only `exp2_neg`."""
    return (isqrt(4 * LOG2E_128**2 // head_dim) + (1 << 104)) >> 105


# ### `make_integer_model`


def make_integer_model(gguf: GgufFile) -> IntegerModel:
    """Return the integers of a model.

    Raises:
        Invalid: `integer-model/...` or `weights/...`, with the key, tensor or value that is refused.
    """
    a = read_architecture(gguf)
    check_tensors(gguf, a)
    embedding = decode_tensor(get_tensor(gguf, "token_embd.weight"))
    return IntegerModel(
        architecture=a,
        embedding=tuple(tuple(clamp(round_shift(w, 10), 31) for w in row) for row in embedding),
        layers=tuple(read_layer(gguf, n) for n in range(a.layer_count)),
        output_norm=read_gains(gguf, "output_norm.weight"),
        head=read_matrix(gguf, "output.weight" if "output.weight" in gguf.tensors else "token_embd.weight"),
        attention_scale=compute_attention_scale(a.head_dim),
    )


# ## The root

# The root names the integers. Each tensor has a digest of its own, so two implementations that disagree find the tensor;
# the root hashes the digests in the order of the tensors' names, with the numbers of the architecture.

# ### `compute_matrix_digest`


def compute_matrix_digest(matrix: Matrix) -> Hash32:
    """Hash name, rows, columns, k (int32), multipliers (int32) and the int8 values, row by row."""
    return tagged_hash(
        "PoAI/integer-matrix/1",
        uint32_le(len(matrix.name)) + matrix.name.encode("ascii"),
        uint32_le(len(matrix.rows)) + uint32_le(len(matrix.rows[0])),
        int32_le((matrix.k,)) + int32_le(matrix.multipliers),
        *(int8_bytes(row) for row in matrix.rows),
    )


# ### `compute_vectors_digest`


def compute_vectors_digest(name: str, vectors: Iterable[tuple[int, ...]]) -> Hash32:
    """Hash name and fixed-point values (int32) of norm gains (one vector) or of the embedding (V vectors)."""
    return tagged_hash(
        "PoAI/integer-vectors/1",
        uint32_le(len(name)) + name.encode("ascii"),
        *(int32_le(vector) for vector in vectors),
    )


# ### `compute_integer_model_root`

# Digests are ordered by tensor name as bytes. The embedding's is named `token_embd.weight`; a tied head is a matrix of
# the same name, and its digest comes right after the embedding's.


def compute_integer_model_root(model: IntegerModel) -> Hash32:
    """Return the Keccak root of a model's integers; the model manifest pins it."""
    named = [("token_embd.weight", compute_vectors_digest("token_embd.weight", model.embedding))]
    named += [(model.head.name, compute_matrix_digest(model.head))]
    named += [("output_norm.weight", compute_vectors_digest("output_norm.weight", [model.output_norm]))]
    for n, layer in enumerate(model.layers):
        for part, value in vars(layer).items():
            name = f"blk.{n}.{part}.weight"
            if isinstance(value, Matrix):
                named.append((name, compute_matrix_digest(value)))
            else:
                named.append((name, compute_vectors_digest(name, [value])))
    ordered = sorted(named, key=lambda pair: pair[0].encode("ascii"))
    return compute_root_of_digests(model.architecture, [digest for _, digest in ordered])


# ### `compute_root_of_digests`


def compute_root_of_digests(a: Architecture, digests: list[Hash32]) -> Hash32:
    """Hash the architecture (nine uint32; the two floats by their bits) and the tensors' digests in order."""
    numbers = (a.layer_count, a.width, a.head_count, a.kv_head_count, a.head_dim, a.ffn_width, a.vocabulary_size)
    header = b"".join(uint32_le(n) for n in (*numbers, a.rope_base.bits, a.epsilon.bits))
    return tagged_hash("PoAI/integer-model/1", header, *digests)


# ```pycon
# >>> from poai_spec.model.integer_model import compute_attention_scale, quantise_matrix
# >>> matrix = quantise_matrix("toy", [[1 << 22, -(1 << 21)], [0, 0]])
# >>> matrix.k, matrix.multipliers, matrix.rows
# (3, (396312, 0), ((42, 127), (0, 0)))
# >>> compute_attention_scale(64)
# 3025551


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `integer-model/architecture` | Invalid | not a llama model |
# | `integer-model/unknown-key` | Invalid | a `llama.` key whose effect is not specified (rope scaling, experts, windows) |
# | `integer-model/metadata` | Invalid | a count that is absent or no positive integer |
# | `integer-model/metadata-float` | Invalid | rope base or epsilon absent, no F32, or not positive |
# | `integer-model/mismatch` | Invalid | value length, rope dimension or vocabulary size contradict the rest |
# | `integer-model/bounds` | Invalid | a shape outside the proved bounds |
# | `integer-model/tensor-missing` | Invalid | a tensor that the architecture needs is not in the file |
# | `integer-model/tensor-shape` | Invalid | a tensor of another shape |
# | `integer-model/tensor-unknown` | Invalid | a tensor that the architecture has no place for |
# | `integer-model/row-maximum` | Invalid | a matrix with a transformed weight of 2^14 or more |
# | `integer-model/gain` | Invalid | a norm gain of 128 or more |

# ## Rationale

# - **One multiplier a row, one exponent a tensor.** Rows differ in scale by orders of magnitude; a shared multiplier would
#   waste bits. A shared exponent keeps the shift uniform over a product, which is what vector units want.
# - **26 bits.** With 2^15 columns `acc * M_o` plus half is below 2^53: the epilogue is exact in a float64, that is in a
#   JavaScript number, and much faster in vector code than int64.
# - **The transform is part of the weights.** It costs a load, not a pass: rows are stored transformed, and the pass
#   transforms only its activations. In a block of 64 it needs no multiplication and no random signs.
# - **The embedding is not quantised to int8.** It is a table look-up; rounding it to Q14 costs nothing.
# - **Unknown keys are refused.** A file whose new key llama.cpp honours and this page ignores would run, with other
#   numbers than its authors meant.
