"""Where a whole pass in Python integers would take hours: the specification recomputes a sample of it.

The array engine gives every step of a pass. For each step 64 outputs, drawn by the DRBG, are computed anew by the
functions of the page `inference` from the engine's values of the step before; so an error anywhere in the engine is
found with the probability that it touches one of them, and none can hide behind an earlier one. The weights are
sampled in the same way: rows of every tensor are decoded and quantised anew from the bytes of the file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from poai_engine.models.exact_model import ExactMatrix, ExactModel
from poai_spec.basics.notation import tagged_hash
from poai_spec.model.engine import Evaluation
from poai_spec.model.fixed_point import bit_length, clamp, div_round, round_shift, walsh_hadamard
from poai_spec.model.inference import (
    ACTIVATION_Q,
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
from poai_spec.model.integer_model import MULTIPLIER_BITS, Matrix, get_tensor, quantise_matrix, read_gains
from poai_spec.model.loss import compute_layer_entry, compute_output_entry
from poai_spec.model.weights import TENSOR_TYPES, GgufFile, GgufTensor, decode_tensor
from poai_tools.vectors.cases import derive
from poai_tools.vectors.steps import StepKind, get_values

SAMPLES = 64
"""Outputs of every step."""
SAMPLED_ROWS = 4
"""Rows of every matrix, besides one with the largest multiplier, which decides the exponent."""
Rows = Sequence[Row]
At = tuple[int, int]


class SpotCheckError(Exception):
    """The array engine and the specification differ; the message says where."""


def check_steps(model: ExactModel, tokens: Sequence[int], scored: Sequence[int], steps: Sequence[StepKind],
                evaluation: Evaluation) -> int:  # fmt: skip
    """Recompute a sample of every step and the whole trace; return the number of values compared.

    Raises:
        SpotCheckError: a value differs.
    """
    checker = _Checker(model, tokens, scored)
    count = sum(checker.check(step) for step in steps)
    last = model.architecture.layer_count + 1
    for number in range(1, last):
        entry = compute_layer_entry(number, checker.known[number, "residual"][-1])
        _compare(f"trace entry {number}", entry, evaluation.trace[number - 1])
    scales, quantised = checker.known[last, "scales"], checker.known[last, "quantised"]
    _compare("the output entry", compute_output_entry(scales, quantised, evaluation.nlls), evaluation.trace[-1])
    return count


def _compare(where: str, spec: object, engine: object) -> None:
    if spec != engine:
        raise SpotCheckError(f"{where}: the specification gives {spec}, the array engine {engine}")


class _Checker:
    """Recomputes steps in order; `known` holds the engine's values of those already seen."""

    def __init__(self, model: ExactModel, tokens: Sequence[int], scored: Sequence[int]) -> None:
        self.model, self.a, self.tokens, self.scored = model, model.architecture, tokens, scored
        self.known: dict[tuple[int, str], Rows] = {}
        self.seed = tagged_hash("PoAI/vector-sample/1", np.asarray([*tokens, *scored], "<u4").tobytes()).hex()[:16]

    def check(self, step: StepKind) -> int:
        """Compare a sample of a step; return how many values."""
        self.known[step.layer, step.name] = rows = [tuple(get_values(row)) for row in step.rows]
        compute = self._recipe(step.layer, step.name)
        places = self._draw(f"{step.layer}/{step.name}", rows)
        for t, i in places:
            _compare(f"layer {step.layer}, {step.name}, row {t}, value {i}", compute(t, i), rows[t][i])
        return len(places)

    def _draw(self, name: str, rows: Rows) -> list[At]:
        drbg = derive("inference", f"sample/{self.seed}/{name}")
        chosen = sorted(drbg.below(len(rows)) for _ in range(SAMPLES if rows else 0))
        return [(t, drbg.below(len(rows[t]))) for t in chosen if rows[t]]

    def _recipe(self, n: int, name: str) -> Callable[[int, int], int]:
        """Return what computes value i of row t of a step."""
        known, blk = self.known, f"blk.{n - 1}."
        before = known.get((n - 1, "embedding" if n == 1 else "residual"), [])
        recipes: Mapping[str, Callable[[int, int], int]] = {
            "embedding": lambda t, i: int(self.model.embedding[self.tokens[t], i]),
            "attn_norm": _by_row(lambda t: self._norm(blk + "attn_norm.weight", before[t])),
            "q": lambda t, i: self._rotated(blk + "attn_q.weight", known[n, "attn_norm"][t], t, i),
            "k": lambda t, i: self._rotated(blk + "attn_k.weight", known[n, "attn_norm"][t], t, i),
            "v": lambda t, i: clamp(self._linear(blk + "attn_v.weight", known[n, "attn_norm"][t], i), VALUE_LIMIT),
            "scores": lambda t, i: self._score(n, t, i),
            "attn": lambda t, i: self._mixed(n, t, i),
            "attn_residual": lambda t, i: self._added(before[t][i], blk + "attn_output.weight", known[n, "attn"][t], i),
            "ffn_norm": _by_row(lambda t: self._norm(blk + "ffn_norm.weight", known[n, "attn_residual"][t])),
            "gate": lambda t, i: self._linear(blk + "ffn_gate.weight", known[n, "ffn_norm"][t], i),
            "up": lambda t, i: self._linear(blk + "ffn_up.weight", known[n, "ffn_norm"][t], i),
            "act": lambda t, i: swiglu(known[n, "gate"][t][i], known[n, "up"][t][i]),
            "residual": lambda t, i: self._added(
                known[n, "attn_residual"][t][i], blk + "ffn_down.weight", known[n, "act"][t], i
            ),
            "output_norm": _by_row(lambda t: self._norm("output_norm.weight", before[t])),
            "scales": lambda t, i: quantise_row(known[n, "output_norm"][t])[0][i],
            "quantised": lambda t, i: quantise_row(known[n, "output_norm"][t])[1][i],
            "logits": lambda s, v: self._linear(self.model.head, known[n, "output_norm"][self.scored[s] - 1], v),
            "nlls": lambda _, s: compute_nll(known[n, "logits"][s], self.tokens[self.scored[s]]),
        }
        return recipes[name]

    def _norm(self, name: str, x: Row) -> Row:
        return rms_norm(x, tuple(self.model.gains[name].tolist()), self.a.epsilon)

    def _linear(self, name: str, x: Row, i: int, q_out: int = ACTIVATION_Q) -> int:
        return linear(_take_rows(self.model.matrices[name], [i]), x, q_out)[0]

    def _added(self, residual: int, name: str, x: Row, i: int) -> int:
        return add_rows((residual,), (self._linear(name, x, i, RESIDUAL_Q),))[0]

    def _rotated(self, name: str, x: Row, t: int, i: int) -> int:
        """Rotate one pair: the head's other elements are left at 0."""
        j = i % self.a.head_dim
        pair = linear(_take_rows(self.model.matrices[name], [i - j % 2, i - j % 2 + 1]), x)
        head = [0] * self.a.head_dim
        head[j - j % 2 : j - j % 2 + 2] = pair
        return rotate(tuple(head), t, self.a)[j]

    def _part(self, n: int, name: str, t: int, head: int) -> Row:
        return self.known[n, name][t][head * self.a.head_dim : (head + 1) * self.a.head_dim]

    def _score(self, n: int, row: int, j: int) -> int:
        t, h = divmod(row, self.a.head_count)
        kv = h // (self.a.head_count // self.a.kv_head_count)
        return compute_scores(self._part(n, "q", t, h), [self._part(n, "k", j, kv)], self.model.attention_scale)[0]

    def _mixed(self, n: int, t: int, i: int) -> int:
        h, j = divmod(i, self.a.head_dim)
        kv = h // (self.a.head_count // self.a.kv_head_count)
        column = [(self._part(n, "v", p, kv)[j],) for p in range(t + 1)]
        return mix_values(self.known[n, "scores"][t * self.a.head_count + h], column)[0]


def _by_row(compute: Callable[[int], Row]) -> Callable[[int, int], int]:
    """Return a recipe for single values of rows that are computed whole; the last row is kept."""
    last: dict[int, Row] = {}

    def value(t: int, i: int) -> int:
        if t not in last:
            last.clear()
            last[t] = compute(t)
        return last[t][i]

    return value


def _take_rows(matrix: ExactMatrix, rows: Sequence[int]) -> Matrix:
    """Return some rows of a matrix as the specification's type."""
    multipliers = tuple(int(matrix.multipliers[i]) for i in rows)
    return Matrix(matrix.name, matrix.k, multipliers, tuple(tuple(matrix.q[i].tolist()) for i in rows))


def check_weights(name: str, gguf: GgufFile, model: ExactModel) -> int:
    """Recompute rows of every tensor from the bytes of the file; return the number of rows.

    Raises:
        SpotCheckError: a row, a multiplier or an exponent differs.
    """
    count = 0
    for tensor, gains in model.gains.items():
        _compare(tensor, read_gains(gguf, tensor), tuple(gains.tolist()))
        count += 1
    embedding = get_tensor(gguf, "token_embd.weight")
    for i in _draw_rows(name, "embedding", len(model.embedding)):
        (row,) = decode_tensor(_cut_row(embedding, i))
        _compare(f"embedding, row {i}", [clamp(round_shift(w, 10), 31) for w in row], model.embedding[i].tolist())
        count += 1
    for matrix in model.matrices.values():
        count += _check_matrix(name, get_tensor(gguf, matrix.name), matrix)
    return count


def _draw_rows(model: str, name: str, rows: int) -> Iterator[int]:
    drbg = derive("weights", f"sample/{model}/{name}")
    return iter([drbg.below(rows) for _ in range(SAMPLED_ROWS)])


def _check_matrix(model: str, tensor: GgufTensor, matrix: ExactMatrix) -> int:
    largest = int(matrix.multipliers.argmax())
    chosen = [largest, *_draw_rows(model, matrix.name, len(matrix.q))]
    for i in chosen:
        weights = decode_tensor(_cut_row(tensor, i))
        m, k = max(map(abs, walsh_hadamard(weights[0]))), matrix.k
        where = f"{matrix.name}, row {i}"
        _compare(f"{where}: values", quantise_matrix(matrix.name, weights).rows[0], tuple(matrix.q[i].tolist()))
        multiplier = div_round(m << max(k, 0), 127 << max(-k, 0))
        _compare(f"{where}: multiplier", multiplier, int(matrix.multipliers[i]))
        if i == largest:
            _compare(f"{where}: exponent", MULTIPLIER_BITS - bit_length(m), k)
    return len(chosen)


def _cut_row(tensor: GgufTensor, i: int) -> GgufTensor:
    """Return one row of a matrix as a tensor."""
    elements, size, _ = TENSOR_TYPES[tensor.type]
    length = tensor.shape[-1] // elements * size
    return GgufTensor(
        tensor.name, tensor.type, (1, tensor.shape[-1]), bytes(tensor.data[i * length : (i + 1) * length])
    )
