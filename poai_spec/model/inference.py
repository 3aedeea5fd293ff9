# # Inference: the W8A8 profile  [generated from specs/model/inference.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The forward pass of a Llama-architecture model in exact integer arithmetic: int8 weights and activations, both under a
# Walsh-Hadamard transform, one rounding per step, no floating point. Every machine, library, batch size and number of threads computes the same bits,
# because there is nothing to round differently. Floating-point inference cannot offer that: the order of additions is
# part of its result.

# The residual stream is Q14, everything else Q16 unless said. One token is one row; no row's numbers depend on another
# row except through attention to earlier positions. So batching, caching of prefixes and incremental decoding cannot
# change a bit.

# The code below is meant to be read. Fast engines may compute in any way that gives these integers; the
# [bounds](#bounds) say which machine words suffice.


from collections.abc import Iterator, Sequence
from math import isqrt
from typing import TypeAlias

from poai_spec.model.engine import Evaluation
from poai_spec.model.fixed_point import (
    EXP2_ONE,
    LOG2E,
    bit_length,
    clamp,
    cos_sin,
    div_round,
    exp2_neg,
    get_transform_size,
    log2_fixed,
    round_shift,
    walsh_hadamard,
)
from poai_spec.model.integer_model import Architecture, IntegerModel, Layer, Matrix
from poai_spec.model.loss import compute_layer_entry, compute_output_entry
from poai_spec.basics.notation import Hash32
from poai_spec.model.weights import Float32


# ## Constants

# | name | value | unit | meaning |
# | --- | --- | --- | --- |
# | `RESIDUAL_Q` | 14 | bits | format of the residual stream; with 16, SmolLM2's first position came near the end of int32 |
# | `ACTIVATION_Q` | 16 | bits | format of everything else |
# | `TRANSFORM_BITS` | 14 | bits | magnitude of a value before its transform: int16 holds it, and with 64 of them 21 bits |
# | `ACTIVATION_LIMIT` | 127 | | magnitude of a quantised activation |
# | `SCALE_STEPS` | 4 .. 7 | 1/4 | a row's scale in quarters of a power of two, f; four of them to an octave |
# | `ROTATED_LIMIT` | 20 | bits | q and k after rotation, Q12: below 256 |
# | `VALUE_LIMIT` | 24 | bits | v, Q16: below 256 |


Row: TypeAlias = tuple[int, ...]
Scale: TypeAlias = tuple[int, int, int]  # (e1, e2, f): f / 4 * 2^(e1 + e2)
RESIDUAL_Q = 14
ACTIVATION_Q = 16
TRANSFORM_BITS = 14
ACTIVATION_LIMIT = 127
SCALE_STEPS = range(4, 8)
ROTATED_LIMIT = 20
VALUE_LIMIT = 24


# ## Linear maps

# ### `choose_scale`

# The smallest scale of the form `f / 4 * 2^e2` that keeps every value within 127. One power of two a row would waste up to
# half of the range; eighths of an octave gain little more.


def choose_scale(largest: int) -> tuple[int, int]:
    """Return (e2, f) with `4 * largest <= 127 * f * 2^e2`: the smallest e2 >= 0, then the smallest f in 4 .. 7.

    Args:
        largest: the largest magnitude of a transformed row, 0 .. 2^20; e2 is then at most 13.
    """
    e2 = 0
    while 4 * largest > ACTIVATION_LIMIT * SCALE_STEPS[-1] << e2:
        e2 += 1
    return e2, next(f for f in SCALE_STEPS if 4 * largest <= ACTIVATION_LIMIT * f << e2)


# ### `quantise_row`

# Rounded to 14 bits, transformed, and rounded once more to int8. The transform spreads an outlier over its run of 64
# values; without it one large value would leave few bits to all others.


def quantise_row(x: Row) -> tuple[Scale, Row]:
    """Return ((e1, e2, f), a): the transform of x is about `a * f * 2^(e1 + e2 - 2)`, every a in -127 .. 127."""
    e1 = max(0, bit_length(max(abs(v) for v in x)) - TRANSFORM_BITS)
    z = walsh_hadamard(tuple(round_shift(v, e1) for v in x))
    e2, f = choose_scale(max(abs(v) for v in z))
    return (e1, e2, f), tuple(div_round(4 * v, f << e2) for v in z)


# ### `linear`

# `acc * M_o * f` carries the row's scale, the transforms' factor B, format Q_in, and the weights' 2^(-k - 24); one shift
# brings it to Q_out.


def linear(matrix: Matrix, x: Row, q_out: int = ACTIVATION_Q) -> Row:
    """Multiply a Q16 row by a matrix: quantise, sum exactly, scale each output once, saturate to int32.

    Args:
        matrix: O rows of K int8 values.
        x: K values, Q16.
        q_out: fractional bits of the result.

    Returns:
        O values in `q_out` fractional bits.
    """
    (e1, e2, f), a = quantise_row(x)
    shift = matrix.k + 24 - e1 - e2 + ACTIVATION_Q - q_out + 2 + bit_length(get_transform_size(len(x))) - 1
    sums = (sum(map(int.__mul__, a, row)) for row in matrix.rows)
    return tuple(clamp(round_shift(s * m * f, shift), 31) for s, m in zip(sums, matrix.multipliers, strict=True))


# ## RMSNorm

# ### `rms_norm`

# The row is first scaled so that its largest value has 24 bits; the mean square then has full precision whatever the
# row's size. `r` is 2^6 times the root mean square, `inv` its reciprocal.


def rms_norm(x: Row, gains: Row, epsilon: Float32) -> Row:
    """Return x / sqrt(mean(x^2) + epsilon) * gain.

    Args:
        x: D values of the residual, Q14.
        gains: D values, Q16, below 2^23 in magnitude (`check_gain`).
        epsilon: the exact float32 of the file.

    Returns:
        D values, Q16, below 2^30 + 2^10 in magnitude, so int32: a value is at most sqrt(D) <= 2^7 times the root mean
            square, and a gain below 2^7.

    Reference: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
    """
    s = max(-8, bit_length(max(abs(v) for v in x)) - 24)
    xs = tuple(round_shift(v, s) for v in x)
    numerator, denominator = epsilon.as_ratio()
    mean = sum(v * v for v in xs) // len(x) + div_round(numerator << (28 - 2 * s), denominator)
    r = isqrt(mean << 12)
    inv = (1 << 53) // r if r else 0
    return tuple(round_shift(round_shift(v * inv, 31) * g, 16) for v, g in zip(xs, gains, strict=True))


# ## Attention

# ### `rotate`

# Rotary position embedding on interleaved pairs (2i, 2i+1), one rounding for each sum. Products are Q31; the shift by 19
# leaves Q12.


def rotate(x: Row, position: int, a: Architecture) -> Row:
    """Rotate the heads of q or k to a position.

    Args:
        x: heads * head_dim values, Q16.
        position: index of the token, from 0.
        a: for head_dim and the frequency base.

    Returns:
        As many values, Q12, limited to 21 bits with sign.

    Reference: Su et al., RoFormer, 2021.
    """
    base, out = a.rope_base.as_ratio(), []
    for at in range(0, len(x), 2):
        c, s = cos_sin(position, at % a.head_dim // 2, a.head_dim, *base)
        out.append(clamp(round_shift(x[at] * c - x[at + 1] * s, 19), ROTATED_LIMIT))
        out.append(clamp(round_shift(x[at] * s + x[at + 1] * c, 19), ROTATED_LIMIT))
    return tuple(out)


# ### `compute_scores`


def compute_scores(q: Row, keys: Sequence[Row], scale: int) -> Row:
    """Return the base-2 scores of one query head: q . k / sqrt(head_dim) * log2(e), Q16.

    Args:
        q: head_dim values, Q12.
        keys: one row of head_dim values a position, Q12.
        scale: the model's attention scale, Q24.
    """
    dots = (sum(map(int.__mul__, q, k)) for k in keys)
    return tuple(round_shift(round_shift(dot, 8) * scale, 24) for dot in dots)


# ### `mix_values`


def mix_values(scores: Row, values: Sequence[Row]) -> Row:
    """Return the softmax-weighted mean of the values of one head.

    Args:
        scores: one a position, base 2, Q16.
        values: one row of head_dim values a position, Q16.

    Returns:
        head_dim values, Q16.
    """
    largest = max(scores)
    p = tuple(round_shift(exp2_neg(largest - score), 14) for score in scores)  # Q16
    total = sum(p)
    return tuple(div_round(sum(map(int.__mul__, p, column)), total) for column in zip(*values, strict=True))


# ### `attend`

# Causal: position t sees the positions 0 .. t. Query head h uses the KV head h // (H / KV).


def attend(queries: Sequence[Row], keys: Sequence[Row], values: Sequence[Row], model: IntegerModel) -> list[Row]:
    """Return the attention output of every position, heads side by side.

    Args:
        queries: T rows of H * head_dim values, Q12, rotated.
        keys: T rows of KV * head_dim values, Q12, rotated.
        values: T rows of KV * head_dim values, Q16.
        model: for the shape and the attention scale.

    Returns:
        T rows of H * head_dim values, Q16.
    """
    a, rows = model.architecture, []
    for t, query in enumerate(queries):
        row: Row = ()
        for h in range(a.head_count):
            kv = h // (a.head_count // a.kv_head_count)
            ours, theirs = slice(h * a.head_dim, (h + 1) * a.head_dim), slice(kv * a.head_dim, (kv + 1) * a.head_dim)
            scores = compute_scores(query[ours], [k[theirs] for k in keys[: t + 1]], model.attention_scale)
            row += mix_values(scores, [v[theirs] for v in values[: t + 1]])
        rows.append(row)
    return rows


# ## Feed-forward

# ### `swiglu`

# `silu(g) = g * sigmoid(g)`, with `sigmoid(g) = 1 / (1 + 2^-d)` for g >= 0 and `2^-d / (1 + 2^-d)` below, `d` the
# magnitude of g in base-2 units.


def swiglu(g: int, u: int) -> int:
    """Return silu(g) * u; all in Q16, saturated to int32.

    Reference: Shazeer, GLU Variants Improve Transformer, 2020.
    """
    t = exp2_neg(round_shift(abs(g) * LOG2E, 20))  # Q30
    sigma = div_round((EXP2_ONE if g >= 0 else t) << 16, EXP2_ONE + t)  # Q16
    return clamp(round_shift(round_shift(g * sigma, 16) * u, 16), 31)


# ## The model

# ### `add_rows`


def add_rows(x: Row, y: Row) -> Row:
    """Return the residual plus a block's contribution, Q14, saturated to int32."""
    return tuple(clamp(a + b, 31) for a, b in zip(x, y, strict=True))


# ### `run_attention`


def run_attention(model: IntegerModel, layer: Layer, rows: Sequence[Row]) -> list[Row]:
    """Return the residual after the attention half of a block; T rows of D values, Q14."""
    a = model.architecture
    normed = [rms_norm(x, layer.attn_norm, a.epsilon) for x in rows]
    queries = [rotate(linear(layer.attn_q, h), t, a) for t, h in enumerate(normed)]
    keys = [rotate(linear(layer.attn_k, h), t, a) for t, h in enumerate(normed)]
    values = [tuple(clamp(v, VALUE_LIMIT) for v in linear(layer.attn_v, h)) for h in normed]
    outputs = attend(queries, keys, values, model)
    return [add_rows(x, linear(layer.attn_output, o, RESIDUAL_Q)) for x, o in zip(rows, outputs, strict=True)]


# ### `run_ffn`


def run_ffn(model: IntegerModel, layer: Layer, x: Row) -> Row:
    """Return the residual after the feed-forward half of a block; D values, Q14."""
    h = rms_norm(x, layer.ffn_norm, model.architecture.epsilon)
    gate, up = linear(layer.ffn_gate, h), linear(layer.ffn_up, h)
    act = tuple(swiglu(g, u) for g, u in zip(gate, up, strict=True))
    return add_rows(x, linear(layer.ffn_down, act, RESIDUAL_Q))


# ### `run_block`


def run_block(model: IntegerModel, layer: Layer, rows: Sequence[Row]) -> list[Row]:
    """Return the residual after one transformer block; T rows of D values, Q14."""
    return [run_ffn(model, layer, x) for x in run_attention(model, layer, rows)]


# ## Scoring

# ### `compute_nll`

# `S` counts at least 2^30 for the largest logit, so `log2_fixed(S) >= 30 << 16` and the result is never negative.


def compute_nll(logits: Row, target: int) -> int:
    """Return the negative log-likelihood of token `target`, in bits, Q16.

    Args:
        logits: V values, Q16, natural units.
        target: token id, 0 .. V - 1.
    """
    largest = max(logits)
    distances = [round_shift((largest - logit) * LOG2E, 20) for logit in logits]
    return log2_fixed(sum(exp2_neg(d) for d in distances)) - (30 << 16) + distances[target]


# ### `run_steps`

# The whole pass. The last normalised rows of *all* positions go into the output entry in the quantised form that enters
# the head; only the scored ones go through the head.


def run_steps(model: IntegerModel, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
    """Run one sequence: yield the trace entry of each block in turn, and the evaluation last.

    Args:
        model: the integers of the model.
        tokens: T token ids.
        scored: ascending positions t, 1 <= t < T; the token at t is scored by the logits at t - 1.
    """
    rows, trace = [model.embedding[token] for token in tokens], []
    for number, layer in enumerate(model.layers, 1):
        rows = run_block(model, layer, rows)
        trace.append(compute_layer_entry(number, rows[-1]))
        yield trace[-1]
    normed = [rms_norm(x, model.output_norm, model.architecture.epsilon) for x in rows]
    nlls = tuple(compute_nll(linear(model.head, normed[t - 1]), tokens[t]) for t in scored)
    scales, quantised = zip(*map(quantise_row, normed), strict=True)
    trace.append(compute_output_entry(scales, quantised, nlls))
    yield Evaluation(nlls, tuple(trace))


# ### `run_model`


def run_model(model: IntegerModel, tokens: Sequence[int], scored: Sequence[int]) -> Evaluation:
    """Run one sequence to its end; arguments as for `run_steps`."""
    *_, last = run_steps(model, tokens, scored)
    assert isinstance(last, Evaluation)
    return last


# ## Bounds

# Inputs are int32, gains below 2^23 in magnitude, `M_o` at most 528,416. D is the width, K the inner width of a matrix, T the number of positions, V the vocabulary, hd the
# head dimension, at most 2^14, 2^15, 2^11, 2^24 and 2^12. Where a rounding follows, its half is included. The tests run
# the functions above on interval-valued integers and hold every line of the table, and every other intermediate result
# to int64. "Exact" means that every integer up to the bound is a float64, that is, the bound is at most 2^53.

# | step | worst case | int64 | float64 exact |
# | --- | --- | --- | --- |
# | `W` of F16 and of the block types | 2^52 | yes | yes |
# | the transform `V` of such a row | 2^58 | yes | no |
# | `127 * V`, doubled, plus `m_o`, once `check_maximum` has passed | 2^46 | yes | yes |
# | `x` before its transform, plus the half | 2^31 + 2^17 | yes | yes |
# | `z`, a transformed value | 2^20 | yes | yes |
# | `4 * z`, doubled, plus `f << e2` | 2^23 + 2^16 | yes | yes |
# | `acc` | K * 2^14 | yes | yes |
# | `acc * M_o * f`, right shift | K * 2^36 + 2^59 | yes | no |
# | `acc * M_o * f`, left shift | K * 2^46 | yes | no |
# | sum of `xs^2` | D * 2^48 | yes | no |
# | `mean << 12` | 2^61 | yes | no |
# | `xs * inv` | sqrt(D) * 2^48 + 2^30 | yes | no |
# | normalised value times gain | sqrt(D) * 2^40 | yes | yes |
# | rotation sum | 2^47 | yes | yes |
# | `q . k` | hd * 2^40 + 2^7 | yes | yes |
# | score times scale | 3 * sqrt(hd) * 2^55 | yes | no |
# | sum of `p * v`, doubled, plus sum of `p` | T * (2^41 + 2^16) | yes | yes |
# | `abs(g) * LOG2E` | 2^52 | yes | yes |
# | dividend of sigma | 2^47 + 2^31 | yes | yes |
# | `g * sigma` | 2^47 + 2^15 | yes | yes |
# | times `u` | 2^62 + 2^15 | yes | no |
# | residual plus a block's contribution | 2^32 | yes | yes |
# | `(max - logit) * LOG2E` | 2^53 | yes | yes |
# | `S` | V * 2^30 | yes | yes for V <= 2^23 |
# | mantissa squared in `log2_fixed` | 2^62 | yes | no |
# | negative log-likelihood | 2^33 | yes | yes |

# `linear` can be had in doubles after all. With p = `acc * M_o * f`, below 2^52 in magnitude, and n the shift, it is the
# clamp of `floor(p * 2^-n + 1/2)`. For n <= 53 the sum is exact. For a larger n both are 0: `p * 2^-n` is below 1/2 in
# magnitude, so the sum, rounded or not, lies between 0 and 1. For n < 0 an exact p is multiplied by a power of two, which
# is exact at any size, and a sum that the half rounds is clamped. In int32, `floor(u / f)` with
# `u = (8 z + (f << e2)) >> (e2 + 1)` is the quotient of `quantise_row`, and the division by f is
# `((u + 128 f) * (65536 // f + 1) >> 16) - 128`.

# Three places are outside the table. F32 and BF16 weights have no bound before
# [check_maximum](integer-model.md#check_maximum) refuses them, and the dividend of a block type's row may leave int64; an
# engine cuts matrices to 2^38 in magnitude where they are decoded, which changes no row that is accepted. The
# epsilon of `rms_norm` is one of 17 constants, one a value of `s`; they are below 2^44, but their dividends are not below
# 2^63. And `(x << 30) >> n` in `log2_fixed` is `x >> (n - 30)` for the sums of `compute_nll`, where n >= 30.

# In float32 a sum of products is exact while it stays below 2^24 in magnitude, in any order.

# ## Rationale

# - **Eight bits, transformed.** Products of int8 are what processors are fastest at: one instruction multiplies and adds
#   64 pairs (`vpdpbusd`, `sdot`, tensor cores), four times as many as of int16 without it. Plain 8-bit activations lose too
#   much to outliers; the transform spreads them, and is additions, hence exact. Against a float64 pass of the same file,
#   2,033 tokens with SmolLM2-135M, prototypes of the variants; `poai bench fidelity` measures the profile itself:

#   | pass | mean difference of a token's loss, nats | shift of the mean | same top token | values cut |
#   | --- | --- | --- | --- | --- |
#   | 12-bit activations, not transformed | 0.0862 +- 0.0022 | +0.004 | 94.4 % | 0 |
#   | 8-bit, not transformed | 0.39 | +0.085 | 76.9 % | |
#   | 8-bit, transformed, a power of two a row | 0.1164 +- 0.0036 | +0.005 | 92.7 % | 631 |
#   | **8-bit, transformed, quarters of an octave** | **0.0984 +- 0.0026** | +0.007 | 93.5 % | **0** |
#   | 8-bit, transformed, eighths of an octave | 0.0965 +- 0.0025 | +0.002 | 94.0 % | 0 |
#   | llama.cpp Q4_1 | 0.0728 | -0.001 | 95.1 % | |

# - **Scales of four steps an octave.** A power of two wastes up to half of the range of int8. Rounding the scale up to a
#   quarter of an octave keeps every value within 127, so nothing has to be cut, and still multiplies by a small integer.
#   Eighths gain little.
# - **Rounded to 14 bits before the transform.** The input fits int16 and the result 21 bits, so 64 values at a time are
#   int32 additions on any machine; six bits below what int8 keeps, this rounding costs nothing that can be measured.
# - **One exponent a row, from its own maximum.** A calibrated scale would need data to calibrate on, and a shared one would
#   tie a token's bits to its neighbours.
# - **Base-2 scores.** Folding log2(e) into the attention scale leaves softmax with `exp2_neg` alone.
# - **Interleaved pairs.** GGUF stores the rows of q and k permuted so that rotation acts on neighbours.
