"""Quizzes of blocks under several rules, run in as few batches as their models allow."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from poai_spec.basics.notation import Height
from poai_spec.chain.block import Judge, get_judge_rules, get_model
from poai_spec.model.engine import Evaluation
from poai_spec.proof.quiz import Quiz
from poai_spec.proof.work import get_quiz
from poaid.chain.tree import Branch, Entry


class Task(NamedTuple):
    """The quiz of a block, and the height whose rules it follows."""

    height: Height
    quiz: Quiz


def get_entry_quiz(entry: Entry, judge: Judge) -> Quiz:
    """Return the quiz of a kept block that is not genesis.

    Raises:
        NotYet: `block/model-missing`: the questions of its model are not at hand.
    """
    assert entry.parent is not None, "genesis has no quiz"
    rules = get_judge_rules(judge, entry.height)
    return get_quiz(entry.header.core, Branch(entry.parent), rules, get_model(judge, rules).questions)


def evaluate(judge: Judge, tasks: Sequence[Task]) -> list[Evaluation]:
    """Run quizzes in order, those of one set of rules in one batch.

    Raises:
        NotYet: `block/model-missing`.
        Invalid: `llama-profile/nan`, which only that profile has.
    """
    evaluations: list[Evaluation] = []
    for rules, group in groupby(tasks, lambda task: get_judge_rules(judge, task.height)):
        quizzes = [task.quiz for task in group]
        engine = get_model(judge, rules).engine
        evaluations += engine.evaluate([quiz.tokens for quiz in quizzes], [quiz.scored for quiz in quizzes])
    return evaluations
