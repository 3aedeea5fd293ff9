"""The same model in floating point: what the integer profile is measured against, and what a cheating miner might run.

Exports: `FloatModel`, `compute_final_rows`, `compute_float_scores`, `score`. In float64 this is the oracle of
`poai bench fidelity`: the exact weights of the file, real square roots, exponentials and angles, nothing quantised. It
works layer by layer over all sequences, so no more than one layer is held as floats.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poai_engine.engines.array import quantise_rows, walsh_hadamard
from poai_engine.models.decode import decode_rows
from poai_engine.models.exact_model import ExactModel
from poai_spec.model.fixed_point import get_transform_size
from poai_spec.model.inference import ACTIVATION_Q
from poai_spec.model.integer_model import check_tensors, read_architecture
from poai_spec.model.weights import GgufFile

Floats: TypeAlias = NDArray[Any]  # float32 or float64, as the pass was asked for
CHUNK_ROWS = 8_192
"""Rows of a matrix decoded at once."""
NORMS = ("attn_norm", "ffn_norm")
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class FloatScores:
    """What a pass predicts for the tokens 1 .. T - 1 of a sequence.

    Attributes:
        nlls: negative log-likelihood of each token, nats, shape (T - 1,).
        best: the most likely token in its place, shape (T - 1,).
    """

    nlls: NDArray[np.float64]
    best: NDArray[np.int64]


class FloatModel:
    """A model in floating point.

    Args:
        gguf: a validated model file.
        dtype: the arithmetic, np.float64 or np.float32.
        integers: take the transformed int8 weights of the integer profile instead of the file's own.
        limit: round what enters a matrix as the profile does, to integers of this magnitude (the profile's is 127).
        bfloat16: round what enters a matrix to bfloat16, as a processor's or GPU's fast product does.
    """

    def __init__(
        self,
        gguf: GgufFile,
        dtype: type[np.floating[Any]] = np.float64,
        *,
        integers: ExactModel | None = None,
        limit: int | None = None,
        bfloat16: bool = False,
    ) -> None:
        assert integers or not (limit or bfloat16), "rows are rounded where they are transformed"
        self.gguf, self.dtype, self.integers, self.limit, self.bfloat16 = gguf, dtype, integers, limit, bfloat16
        self.architecture = read_architecture(gguf)
        check_tensors(gguf, self.architecture)
        self.head = "output.weight" if "output.weight" in gguf.tensors else "token_embd.weight"

    def decode(self, name: str) -> Floats:
        """Return a tensor as floats; a vector has one row. With `integers`: a matrix transformed, over the factor."""
        if self.integers and name in self.integers.matrices:
            matrix = self.integers.matrices[name]
            scales = np.ldexp(matrix.multipliers / get_transform_size(matrix.q.shape[1]), -matrix.k - 24)
            return (matrix.q * scales[:, None]).astype(self.dtype)
        return np.concatenate([part.astype(self.dtype) for _, _, part in _chunks(self.gguf, name)])

    def embed(self, sequences: Sequence[Sequence[int]]) -> list[Floats]:
        """Return the residual before the first block, shape (T, D) a sequence."""
        wanted = np.unique(np.concatenate([np.asarray(ids, np.int64) for ids in sequences]))
        parts = []
        for start, stop, part in _chunks(self.gguf, "token_embd.weight"):
            parts.append(part[wanted[(wanted >= start) & (wanted < stop)] - start].astype(self.dtype))
        embedding = np.concatenate(parts)
        return [embedding[np.searchsorted(wanted, ids)] for ids in sequences]

    def blocks(self) -> Iterator["FloatBlock"]:
        """Yield the transformer blocks in order."""
        for n in range(self.architecture.layer_count):
            yield FloatBlock(self, n)

    def finish(self, x: Floats) -> Floats:
        """Return the head's input for the residual after the last block, shape (T, D)."""
        return self.normalise(x, self.decode("output_norm.weight")[0])

    def normalise(self, x: Floats, gain: Floats) -> Floats:
        """RMSNorm of rows."""
        numerator, denominator = self.architecture.epsilon.as_ratio()
        scale = np.sqrt(np.mean(x * x, axis=1, keepdims=True) + self.dtype(numerator / denominator))
        return np.asarray(x / scale * gain)

    def prepare(self, x: Floats) -> Floats:
        """Return what a matrix multiplies: rows as they are, or transformed, and rounded as was asked for."""
        if self.integers is None:
            return x
        if self.limit:
            units = np.floor(x.astype(np.float64) * 2**ACTIVATION_Q + 0.5).astype(np.int64)
            scales, a = quantise_rows(units, self.limit)
            return np.asarray(
                np.ldexp(a * scales[:, 2:], scales[:, :1] + scales[:, 1:2] - 2 - ACTIVATION_Q), self.dtype
            )
        z = np.asarray(walsh_hadamard(x), self.dtype)
        return round_to_bfloat16(z) if self.bfloat16 else z


def round_to_bfloat16(x: Floats) -> Floats:
    """Round float32 values to eight significant bits, halves away from zero."""
    bits = x.astype(np.float32).view(np.uint32) + np.uint32(0x8000)
    return np.asarray((bits & np.uint32(0xFFFF0000)).view(np.float32), x.dtype)


def compute_final_rows(
    model: FloatModel,
    sequences: Sequence[Sequence[int]],
    skipped: int | None = None,
    see: Callable[[list[Floats]], None] = lambda _: None,
) -> list[Floats]:
    """Return the head's input at every position, shape (T, D) a sequence.

    Args:
        model: the pass.
        sequences: token ids.
        skipped: a block, from 0, that is left out.
        see: is told the residuals after each block.
    """
    rows = model.embed(sequences)
    for n, block in enumerate(model.blocks()):
        if n != skipped:
            rows = [block.run(x) for x in rows]
        see(rows)
    return [model.finish(x) for x in rows]


def compute_float_scores(gguf: GgufFile, sequences: Sequence[Sequence[int]]) -> list[FloatScores]:
    """Return what the float64 pass predicts for every token but the first of each sequence."""
    model = FloatModel(gguf)
    finals, head = compute_final_rows(model, sequences), model.decode(model.head)
    return [score(x[:-1] @ head.T, ids) for x, ids in zip(finals, sequences, strict=True)]


def score(logits: Floats, tokens: Sequence[int]) -> FloatScores:
    """Turn logits after the tokens 0 .. T - 2, shape (T - 1, V), into scores; float64 throughout."""
    wide = logits.astype(np.float64)
    largest = wide.max(axis=1)
    targets = wide[np.arange(len(wide)), np.asarray(tokens[1:], np.int64)]
    sums = np.exp(wide - largest[:, None]).sum(axis=1)
    return FloatScores(np.log(sums) + largest - targets, wide.argmax(axis=1))


def _chunks(gguf: GgufFile, name: str) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    tensor = gguf.tensors[name]
    count = tensor.shape[0] if len(tensor.shape) == 2 else 1
    for start in range(0, count, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, count)
        yield start, stop, np.ldexp(decode_rows(tensor, start, stop).astype(np.float64), -24)  # below 2^53: exact


class FloatBlock:
    """One transformer block in floating point."""

    def __init__(self, model: FloatModel, n: int) -> None:
        self.model = model
        self.weights = {name: model.decode(f"blk.{n}.{name}.weight") for name in (*NORMS, *MATRICES)}

    def _linear(self, x: Floats, name: str) -> Floats:
        return np.asarray(self.model.prepare(x) @ self.weights[name].T)

    def run(self, x: Floats) -> Floats:
        """Return the residual after the block, shape (T, D)."""
        a, w, linear = self.model.architecture, self.weights, self._linear
        h = self.model.normalise(x, w["attn_norm"][0])
        q = self._rotate(self._split(linear(h, "attn_q"), a.head_count))
        k = self._rotate(self._split(linear(h, "attn_k"), a.kv_head_count))
        v = self._split(linear(h, "attn_v"), a.kv_head_count)
        x = x + linear(self._attend(q, k, v), "attn_output")
        h = self.model.normalise(x, w["ffn_norm"][0])
        gate, up = linear(h, "ffn_gate"), linear(h, "ffn_up")
        with np.errstate(over="ignore"):  # an infinite exponential gives the limit, 0
            act = gate / (1 + np.exp(-gate)) * up
        return np.asarray(x + linear(act, "ffn_down"))

    def _split(self, x: Floats, heads: int) -> Floats:
        return x.reshape(len(x), heads, self.model.architecture.head_dim).transpose(1, 0, 2)

    def _rotate(self, x: Floats) -> Floats:
        """Turn the pairs (2i, 2i + 1) of each head by position * base^(-2i/d); x has shape (heads, T, d)."""
        numerator, denominator = self.model.architecture.rope_base.as_ratio()
        d = x.shape[2]
        steps = (numerator / denominator) ** (-np.arange(0, d, 2) / d)
        angles = np.arange(x.shape[1])[:, None] * steps
        cos, sin = np.cos(angles).astype(self.model.dtype), np.sin(angles).astype(self.model.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)

    def _attend(self, q: Floats, k: Floats, v: Floats) -> Floats:
        group = len(q) // len(k)
        length = q.shape[1]
        scores = q @ np.repeat(k, group, axis=0).transpose(0, 2, 1) / self.model.dtype(np.sqrt(q.shape[2]))
        scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (p / p.sum(axis=2, keepdims=True)) @ np.repeat(v, group, axis=0)
        return np.asarray(mixed.transpose(1, 0, 2).reshape(length, -1))
