"""The array engine with a probe: the same pass, every intermediate value kept, to be compared with `steps`."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from poai_engine.engines.array import ArrayEngine, quantise_rows
from poai_engine.engines.devices import Array
from poai_engine.engines.exact import ExactEngine
from poai_spec.model.engine import Evaluation
from poai_spec.model.inference import ACTIVATION_Q
from poai_spec.model.weights import GgufFile
from poai_tools.vectors.steps import StepKind

_LINEAR = {"ffn_gate": "gate", "ffn_up": "up"}


class ProbedEngine(ArrayEngine):
    """Both fast engines: the array engine while `observe` shows its intermediate values, the exact one otherwise."""

    _steps: list[StepKind] | None = None
    _layer = 0

    def __init__(self, gguf: GgufFile) -> None:
        super().__init__(gguf)
        self._gguf = gguf

    @cached_property
    def _exact(self) -> ExactEngine:
        return ExactEngine(self._gguf)

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run a batch; see `poai_spec.model.engine.Engine`."""
        return self._exact.evaluate(tokens, scored) if self._steps is None else super().evaluate(tokens, scored)

    def observe(self, tokens: Sequence[int], scored: Sequence[int]) -> tuple[list[StepKind], Evaluation]:
        """Run one sequence; return its steps, in the order of `run_spec_steps`, and the evaluation."""
        self._steps, self._layer = [], 0
        try:
            self._keep("embedding", self.model.embedding[np.asarray(tokens, np.int64)].astype(np.int64))
            self._layer = 1
            (evaluation,) = self.evaluate([tokens], [scored])
            steps = self._steps
        finally:
            self._steps = None
        last = self.layer_count + 1
        at = next(n for n, step in enumerate(steps) if step.name == "output_norm")
        scales, quantised = quantise_rows(np.asarray(steps[at].rows))
        steps[at + 1 : at + 1] = [StepKind(last, "scales", scales),
                                  StepKind(last, "quantised", quantised.astype(np.int64))]  # fmt: skip
        if not scored:
            steps.append(StepKind(last, "logits", []))
        return [*steps, StepKind(last, "nlls", [evaluation.nlls])], evaluation

    def _keep(self, name: str, rows: Sequence[Array] | Array) -> None:
        if self._steps is not None:
            self._steps.append(StepKind(self._layer, name, rows))

    def _block(self, n: int, x: Array) -> Array:
        rows = super()._block(n, x)
        self._keep("residual", rows[0])
        self._layer += 1
        return rows

    def _norm(self, name: str, x: Array) -> Array:
        h = super()._norm(name, x)
        part = name.removesuffix(".weight").rpartition(".")[2]
        if part == "ffn_norm":
            self._keep("attn_residual", x)
        self._keep(part, h)
        return h

    def _linear(self, name: str, quantised: tuple[Array, Array], q_out: int = ACTIVATION_Q) -> Array:
        y = super()._linear(name, quantised, q_out)
        part = name.removesuffix(".weight").rpartition(".")[2]
        if name == self.model.head:
            self._keep("logits", y)
        elif part in _LINEAR:
            self._keep(_LINEAR[part], y)
        return y

    def _attend(self, q: Array, k: Array, v: Array, batch: int, length: int) -> Array:
        for name, rows in (("q", q), ("k", k), ("v", v)):
            self._keep(name, rows)
        o = super()._attend(q, k, v, batch, length)
        self._keep("attn", o)
        return o

    def _scores(self, q: Array, k: Array, batch: int, length: int) -> Array:
        scores = super()._scores(q, k, batch, length)
        heads = scores[0].reshape(-1, length, length)
        self._keep("scores", [heads[h, t, : t + 1] for t in range(length) for h in range(len(heads))])
        return scores

    def _swiglu(self, g: Array, u: Array) -> Array:
        act = super()._swiglu(g, u)
        self._keep("act", act)
        return act
