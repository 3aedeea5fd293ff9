"""Engines around a real one: one that counts, and one that remembers."""

from collections.abc import Iterator, Sequence

from poai_spec.basics.notation import Hash32
from poai_spec.model.engine import Engine, Evaluation


class CountingEngine:
    """An engine that counts how often it is asked.

    Attributes:
        passes: quizzes that were run, step by step or in a batch.
        steps_taken: trace entries that it was made to compute.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.profile, self.integer_model_root = engine.profile, engine.integer_model_root
        self.layer_count = engine.layer_count
        self.passes = self.steps_taken = 0

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        self.passes += len(tokens)
        self.steps_taken += len(tokens) * (self.layer_count + 1)
        return self.engine.evaluate(tokens, scored)

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        self.passes += 1
        for step in self.engine.steps(tokens, scored):
            self.steps_taken += 1
            yield step


class Remembering:
    """The real engine, asked only once for each quiz: tests verify the same blocks again and again."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.profile, self.integer_model_root = engine.profile, engine.integer_model_root
        self.layer_count = engine.layer_count
        self.known: dict[tuple[tuple[int, ...], tuple[int, ...]], Evaluation] = {}

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        quizzes = [(tuple(ids), tuple(positions)) for ids, positions in zip(tokens, scored, strict=True)]
        new = [quiz for quiz in quizzes if quiz not in self.known]
        self.known |= zip(new, self.engine.evaluate([q[0] for q in new], [q[1] for q in new]), strict=True)
        return [self.known[quiz] for quiz in quizzes]

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        evaluation = self.evaluate([tokens], [scored])[0]
        yield from evaluation.trace[:-1]
        yield evaluation
