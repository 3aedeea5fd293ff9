"""Every intermediate value of a forward pass, step by step, from the functions of the page `inference`.

A pass of L blocks over T tokens is the list of these steps; each has rows of integers:

    layer 0       embedding                                    T rows of D, Q14
    layer 1 .. L  attn_norm                                    T rows of D, Q16
                  q, k (rotated)                               T rows of H * head_dim and KV * head_dim, Q12
                  v                                            T rows of KV * head_dim, Q16
                  scores                                       for each position t, each head: t + 1 scores, Q16
                  attn (heads side by side)                    T rows of H * head_dim, Q16
                  attn_residual                                T rows of D, Q14
                  ffn_norm, gate, up, act                      T rows of D, then of F, Q16
                  residual                                     T rows of D, Q14
    layer L + 1   output_norm                                  T rows of D, Q16
                  scales, quantised                            T rows of (e1, e2, f), and of D: what the head multiplies
                  logits                                       a row of V for each scored position, Q16
                  nlls                                         one row: bits in Q16
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from poai_engine.models.decode import Ints
from poai_spec.basics.notation import Hash32, tagged_hash
from poai_spec.model.fixed_point import clamp
from poai_spec.model.inference import (
    RESIDUAL_Q,
    VALUE_LIMIT,
    Row,
    add_rows,
    compute_nll,
    compute_scores,
    linear,
    mix_values,
    quantise_row,
    rms_norm,
    rotate,
    swiglu,
)
from poai_spec.model.integer_model import IntegerModel, Layer

FIRST_VALUES = 8
"""Values of a row that are given beside a step's digest."""
BLOCK_STEPS = (
    "attn_norm", "q", "k", "v", "scores", "attn", "attn_residual", "ffn_norm", "gate", "up", "act", "residual",
)  # fmt: skip
LAST_STEPS = ("output_norm", "scales", "quantised", "logits", "nlls")
STEPS = ("embedding", *BLOCK_STEPS, *LAST_STEPS)


@dataclass(frozen=True)
class StepKind:
    """What one step of a pass gives.

    Attributes:
        layer: 0 for the embedding, 1 .. L for the blocks, L + 1 for what follows.
        name: one of `STEPS`.
        rows: its integers.
    """

    layer: int
    name: str
    rows: Sequence[Sequence[int] | Ints] | Ints


def compute_step_digest(step: StepKind) -> Hash32:
    """Return the digest of a step: all its rows one after another, each value as int64, little-endian."""
    return tagged_hash("PoAI/vector-step/1", *(np.asarray(row, "<i8").tobytes() for row in step.rows))


def get_values(row: Sequence[int] | Ints) -> list[int]:
    """Return a row as Python integers."""
    return row.tolist() if isinstance(row, np.ndarray) else list(row)


def run_spec_steps(model: IntegerModel, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[StepKind]:
    """Run one sequence by the specification's functions; arguments as for `poai_spec.model.inference.run_steps`."""
    rows = [model.embedding[token] for token in tokens]
    yield StepKind(0, "embedding", rows)
    for number, layer in enumerate(model.layers, 1):
        for name, values in _run_block(model, layer, rows):
            yield StepKind(number, name, values)
        rows = values
    last = len(model.layers) + 1
    normed = [rms_norm(x, model.output_norm, model.architecture.epsilon) for x in rows]
    yield StepKind(last, "output_norm", normed)
    scales, quantised = zip(*map(quantise_row, normed), strict=True)
    yield StepKind(last, "scales", scales)
    yield StepKind(last, "quantised", quantised)
    logits = [linear(model.head, normed[t - 1]) for t in scored]
    yield StepKind(last, "logits", logits)
    yield StepKind(last, "nlls", [[compute_nll(row, tokens[t]) for row, t in zip(logits, scored, strict=True)]])


def _run_block(model: IntegerModel, layer: Layer, rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the steps of one block, `poai_spec.model.inference.run_block` taken apart."""
    a = model.architecture
    normed = [rms_norm(x, layer.attn_norm, a.epsilon) for x in rows]
    yield "attn_norm", normed
    queries = [rotate(linear(layer.attn_q, h), t, a) for t, h in enumerate(normed)]
    yield "q", queries
    keys = [rotate(linear(layer.attn_k, h), t, a) for t, h in enumerate(normed)]
    yield "k", keys
    values = [tuple(clamp(v, VALUE_LIMIT) for v in linear(layer.attn_v, h)) for h in normed]
    yield "v", values
    scores = [
        compute_scores(_head(query, h, a.head_dim), [_head(k, _kv(model, h), a.head_dim) for k in keys[: t + 1]],
                       model.attention_scale)
        for t, query in enumerate(queries)
        for h in range(a.head_count)
    ]  # fmt: skip
    yield "scores", scores
    outputs = [_mix(model, scores[t * a.head_count : (t + 1) * a.head_count], values) for t in range(len(rows))]
    yield "attn", outputs
    rows = [add_rows(x, linear(layer.attn_output, o, RESIDUAL_Q)) for x, o in zip(rows, outputs, strict=True)]
    yield "attn_residual", rows
    normed = [rms_norm(x, layer.ffn_norm, a.epsilon) for x in rows]
    yield "ffn_norm", normed
    gate, up = [linear(layer.ffn_gate, h) for h in normed], [linear(layer.ffn_up, h) for h in normed]
    yield "gate", gate
    yield "up", up
    act = [tuple(swiglu(g, u) for g, u in zip(*pair, strict=True)) for pair in zip(gate, up, strict=True)]
    yield "act", act
    yield "residual", [add_rows(x, linear(layer.ffn_down, h, RESIDUAL_Q)) for x, h in zip(rows, act, strict=True)]


def _kv(model: IntegerModel, h: int) -> int:
    """Return the KV head that query head h uses."""
    return h // (model.architecture.head_count // model.architecture.kv_head_count)


def _head(row: Row, h: int, head_dim: int) -> Row:
    return row[h * head_dim : (h + 1) * head_dim]


def _mix(model: IntegerModel, scores: Sequence[Row], values: Sequence[Row]) -> Row:
    """Return the attention output of one position from its scores, one row a head."""
    row: Row = ()
    for h, ours in enumerate(scores):
        theirs = [_head(v, _kv(model, h), model.architecture.head_dim) for v in values[: len(ours)]]
        row += mix_values(ours, theirs)
    return row
