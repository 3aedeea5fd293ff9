"""Random layer inputs through the page `inference` and through the exact engine: are all bits equal?

A case is a model of one block, drawn as integers, so that every value that the page allows can occur and not only what
some file would give: weights and multipliers up to their bounds, shifts to both sides, odd widths, shared heads. Its
embedding table is the input: token n stands for input row n, any int32 values. The page's own functions run the block,
the last norm, the head and the scoring; the engine has to give the same integers alone and in a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poai_engine.engines.exact import ExactEngine
from poai_engine.models.packed import PackedModel, make_angles, pack_weights
from poai_spec.model.engine import Evaluation
from poai_spec.model.inference import compute_nll, linear, quantise_row, rms_norm, run_block
from poai_spec.model.integer_model import (
    Architecture,
    IntegerModel,
    Layer,
    Matrix,
    compute_attention_scale,
    get_tensor_shapes,
)
from poai_spec.model.loss import compute_layer_entry, compute_output_entry
from poai_spec.model.weights import Float32

LARGEST_MULTIPLIER, LARGEST_GAIN = 528_416, (1 << 23) - 1
BASES = [Float32(0x3F800000), Float32(0x461C4000), Float32(0x48F42400)]
"""1, 10,000 and 500,000: few, as the page takes its time over an angle that it has not had yet."""
EPSILONS = [Float32(0x00000001), Float32(0x3727C5AC), Float32(0x3F7FFFFF)]
"""The smallest, 1e-5, and the largest below 1."""
EDGES = np.asarray([0, 1, -1, 16383, 16384, -16384, 1 << 23, (1 << 24) - 1, 1 << 30, (1 << 31) - 1, -(1 << 31)])
POSITIONS = 12
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LayerCase:
    """A model of one block, for both sides, and what to run on it.

    Attributes:
        page: for the page's functions.
        packed: the same integers for the exact engine.
        tokens: sequences; together every input row occurs once.
        threads: for the engine.
    """

    page: IntegerModel
    packed: PackedModel
    tokens: list[list[int]]
    threads: int


def draw_values(rng: np.random.Generator, shape: tuple[int, ...], largest: int) -> Ints:
    """Draw integers up to a magnitude: of any size, all small, or all at the ends."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice([-largest, largest, 0], shape, p=[0.45, 0.45, 0.1])
    values = rng.integers(-largest, largest + 1, shape)
    return values if kind < 3 else values >> rng.integers(0, largest.bit_length() + 1)


def draw_inputs(rng: np.random.Generator, rows: int, width: int) -> Ints:
    """Draw rows of int32 values, each of its own size; some have outliers or only values at the edges of steps."""
    sizes = rng.integers(0, 32, (rows, 1))
    x = rng.integers(-(1 << 31), 1 << 31, (rows, width)) >> sizes
    edges = rng.choice(EDGES, (rows, width))
    share = rng.choice([0.0, 0.0, 0.1, 1.0], (rows, 1))
    return np.where(rng.random((rows, width)) < share, edges, x)


def draw_matrix(rng: np.random.Generator, name: str, outputs: int, inputs: int) -> Matrix:
    """Draw weights; half of all matrices have real weights about 1, so that not everything saturates."""
    k = int(rng.integers(-12, 27) if rng.random() < 0.5 else rng.integers(-1, 7))
    multipliers = np.abs(draw_values(rng, (outputs,), LARGEST_MULTIPLIER))
    rows = draw_values(rng, (outputs, inputs), 127)
    return Matrix(name, k, tuple(multipliers.tolist()), tuple(map(tuple, rows.tolist())))


def draw_architecture(rng: np.random.Generator, vocabulary: int) -> Architecture:
    """Draw a shape; heads are narrower and wider than a tile of the engine, widths have short runs and whole ones."""
    width, ffn = (int(n) for n in rng.choice([*range(1, 14), 16, 48, 64, 64, 128], 2))
    kv_heads, group, head_dim = (
        int(rng.integers(1, 3)),
        int(rng.integers(1, 4)),
        2 * int(rng.choice([1, 2, 3, 5, 8, 9, 16])),
    )
    base, epsilon = BASES[rng.integers(3)], EPSILONS[rng.integers(3)]
    return Architecture(1, width, kv_heads * group, kv_heads, head_dim, ffn, vocabulary, base, epsilon)


def draw_case(seed: int) -> LayerCase:
    """Draw a case; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, POSITIONS + 1, rng.integers(1, 4))
    ids = rng.permutation(int(lengths.sum())).tolist()
    remaining = iter(ids)
    tokens = [list(islice(remaining, int(length))) for length in lengths]
    a = draw_architecture(rng, len(ids))
    inner, kv = a.head_count * a.head_dim, a.kv_head_count * a.head_dim
    shapes = {
        "attn_q": (inner, a.width), "attn_k": (kv, a.width), "attn_v": (kv, a.width), "attn_output": (a.width, inner),
        "ffn_gate": (a.ffn_width, a.width), "ffn_up": (a.ffn_width, a.width), "ffn_down": (a.width, a.ffn_width),
    }  # fmt: skip
    parts: dict[str, Any] = {name: draw_matrix(rng, f"blk.0.{name}.weight", *shape) for name, shape in shapes.items()}
    norms = [tuple(draw_values(rng, (a.width,), LARGEST_GAIN).tolist()) for _ in range(3)]
    inputs = tuple(map(tuple, draw_inputs(rng, len(ids), a.width).tolist()))
    page = IntegerModel(
        a, inputs, (Layer(attn_norm=norms[0], ffn_norm=norms[1], **parts),), norms[2],
        draw_matrix(rng, "output.weight", len(ids), a.width), compute_attention_scale(a.head_dim),
    )  # fmt: skip
    return LayerCase(page, pack(page), tokens, int(rng.integers(1, 4)))


def pack(model: IntegerModel) -> PackedModel:
    """Return the page's integers as the engine wants them."""
    (layer,), a = model.layers, model.architecture
    named = {part.name: part for part in (*vars(layer).values(), model.head) if isinstance(part, Matrix)}
    matrices = [named[name] for name in get_tensor_shapes(a, tied=False) if name in named]
    arrays = {matrix.name: pack_weights(np.asarray(matrix.rows, np.int8)) for matrix in matrices}
    rest = {
        "k": [matrix.k for matrix in matrices],
        "multipliers": [multiplier for matrix in matrices for multiplier in matrix.multipliers],
        "gains": [layer.attn_norm, layer.ffn_norm, model.output_norm],
        "embedding": model.embedding,
        "angles": make_angles(a, POSITIONS),
    }
    arrays |= {name: np.asarray(values, np.int32) for name, values in rest.items()}
    return PackedModel(a, arrays | {"root": np.zeros(32, np.uint8)})


def find_difference(case: LayerCase) -> str | None:
    """Run a case on both sides; return where they differ, None if nowhere."""
    model, engine = case.page, ExactEngine(case.packed, case.threads)
    scored = [list(range(1, len(ids))) for ids in case.tokens]
    batch = engine.evaluate(case.tokens, scored)
    for ids, found in zip(case.tokens, batch, strict=True):
        rows = run_block(model, model.layers[0], [model.embedding[token] for token in ids])
        if [residual.tolist() for residual in engine.residuals(ids)] != [[list(row) for row in rows]]:
            return "residual"
        normed = [rms_norm(row, model.output_norm, model.architecture.epsilon) for row in rows]
        logits = [linear(model.head, row) for row in normed]
        if engine.logits(ids, range(len(ids))).tolist() != [list(row) for row in logits]:
            return "logits"
        nlls = tuple(compute_nll(row, token) for row, token in zip(logits, ids[1:], strict=False))
        scales, quantised = zip(*map(quantise_row, normed), strict=True)
        entries = compute_layer_entry(1, rows[-1]), compute_output_entry(scales, quantised, nlls)
        if found != Evaluation(nlls, entries):
            return "evaluation in a batch"
    return None


def run(count: int, seed: int, say: Callable[[str], None]) -> int:
    """Compare at least `count` layer inputs; return how many were, or 0 after a difference, which `say` is told."""
    done, next_line = 0, count // 10
    while done < count:
        case = draw_case(seed)
        where = find_difference(case)
        if where is not None:
            say(f"case {seed}: the exact engine and the page differ in: {where}")
            return 0
        done, seed = done + sum(map(len, case.tokens)), seed + 1
        if done >= next_line:
            say(f"{done} layer inputs compared")
            next_line += count // 10
    return done
