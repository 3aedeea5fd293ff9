"""The reference engine: the specification's own forward pass, slow and obvious."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from poai_spec.basics.notation import Hash32
from poai_spec.model.engine import Evaluation
from poai_spec.model.inference import run_model, run_steps
from poai_spec.model.integer_model import compute_integer_model_root, make_integer_model
from poai_spec.model.weights import GgufFile


class ReferenceEngine:
    """A loaded model; satisfies `poai_spec.model.engine.Engine`. For poai-mini: a quiz takes seconds.

    Args:
        gguf: a validated model file.

    Raises:
        Invalid: `integer-model/...` or `weights/...`: the model is outside the specified arithmetic.
    """

    profile = b"w8a8"

    def __init__(self, gguf: GgufFile) -> None:
        self.model = make_integer_model(gguf)
        self.layer_count = self.model.architecture.layer_count

    @cached_property
    def integer_model_root(self) -> Hash32:
        """The Keccak root of the loaded integers."""
        return compute_integer_model_root(self.model)

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run sequences one after another; see `poai_spec.model.engine.Engine`."""
        return [run_model(self.model, ids, positions) for ids, positions in zip(tokens, scored, strict=True)]

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        """Run one sequence, yielding each trace entry as it is known; see `poai_spec.model.engine.Engine`."""
        return run_steps(self.model, tokens, scored)
