"""How much work a miner saves who sorts quizzes and runs the model once for each common beginning.

The states of a causal model at position t depend on tokens 0 .. t only, so what two quizzes have in common at their
start needs to be computed once. Generating quizzes is cheap, so a miner can generate very many, sort them and walk
through them in order, keeping the states of the last one. The salt (page quiz) is there to make this worthless.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import Config
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.lexicon import Lexicon
from poai_spec.proof.quiz import generate_quiz


def count_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def measure_prefix_saving(quizzes: Iterable[Sequence[int]]) -> float:
    """Return the share of all tokens that a miner need not compute who sorts the quizzes first.

    The share of a sorted walk is the largest that any order and any cache reaches: it computes every distinct
    beginning exactly once.

    Args:
        quizzes: the token sequences, a constant begin-of-sequence token left out (every miner keeps its state).
    """
    ordered = sorted(tuple(tokens) for tokens in quizzes)
    total = sum(map(len, ordered))
    saved = sum(count_common(a, b) for a, b in pairwise(ordered))
    return saved / total if total else 0.0


def generate_token_sequences(config: Config, lexicon: Lexicon, count: int) -> list[tuple[int, ...]]:
    """Return the tokens, without BOS, of `count` quizzes; seed i is Keccak("prefix saving" || uint64_le(i))."""
    first = int(config.model.add_bos)
    seeds = (keccak256(b"prefix saving" + uint64_le(i)) for i in range(count))
    return [generate_quiz(seed, get_rules(config, (), 0), lexicon).tokens[first:] for seed in seeds]
