# # Solvers  [generated from specs/proof/solvers.md by `poai spec compile`: edit the page]

# Status: informative, version 1.

# How it is known that each question has exactly one correct answer. A solver gets the prompt's text and nothing else: no
# seed, no family, no word of the [generator](questions.md) but the public lists. It does not compute *the* answer; it
# collects *every* answer that is right, by trying all arrangements, all models or all rules, and `solve` refuses a prompt
# that has none or more than one. Consensus does not need this page to validate a block; it is here because "each question
# has one correct answer" is a claim, and this is its check.


import re
from collections.abc import Callable, Sequence
from itertools import compress, permutations, product
from typing import TypeVar

from poai_spec.proof.lexicon import CATEGORIES, CYCLES, DAYS, LETTERS, MONTHS, SCALES, SERIES
from poai_spec.basics.notation import Invalid

T = TypeVar("T")


# ## Numbers

# ### `solve_arithmetic`


def solve_arithmetic(left: str, operator: str, right: str) -> set[str]:
    """Return the result of `left operator right`; no answer where it would be negative or divide by zero.

    The quotient and the remainder are searched for by their definition, a = q * b + r with 0 <= r < b.
    """
    a, b = int(left), int(right)
    if operator in ("//", "%"):
        pairs = [(q, a - q * b) for q in range(a + 1) if 0 <= a - q * b < b]
        return {str(q if operator == "//" else r) for q, r in pairs}
    result = {"+": a + b, "-": a - b, "*": a * b}[operator]
    return {str(result)} if result >= 0 else set()


# ### `solve_number_sequence`


def solve_number_sequence(first: str, second: str, third: str) -> set[str]:
    """Return the next term under each rule (equal differences, equal ratios) that the three terms obey.

    Unlike a difference in `solve_arithmetic` it may be negative: after 9, 5, 1 comes -3, which no question asks for.
    """
    a, b, c = int(first), int(second), int(third)
    answers = set()
    if b - a == c - b:
        answers.add(str(c + (c - b)))
    if a > 0 and b % a == 0 and b * b == a * c:
        answers.add(str(c * (b // a)))
    return answers


# ## Puzzles

# ### `solve_ordering`


def solve_ordering(prompt: str) -> set[str]:
    """Return who can stand at the asked end in any order of the people that agrees with what is told."""
    told = re.findall(r"(\w+) is (\w+) than (\w+)\.", prompt)
    asked = prompt.rsplit(" ", 1)[1].rstrip("?")
    answers = set()
    for scale in SCALES:
        more, most, less, least = scale
        if asked not in (most, least) or any(word not in (more, less) for _, word, _ in told):
            continue
        for order in permutations(sorted({name for left, _, right in told for name in (left, right)})):
            if all((order.index(a) < order.index(b)) == (word == more) for a, word, b in told):
                answers.add(order[0] if asked == most else order[-1])
    return answers


# ### `solve_syllogism`

# A Venn diagram of three classes has seven regions inside; a model says which of them have members. There are 128 models,
# and each sentence is true or false in each of them.


def solve_syllogism(prompt: str) -> set[str]:
    """Return `yes` if the conclusion is true in some model of the premises, `no` if it is false in some."""
    premises = re.findall(r"(All|Some|No) (\w+) are (\w+)\.", prompt)
    question = re.findall(r"Are (all|any) (\w+) (not )?(\w+)\?", prompt)[0]
    classes = sorted({word for _, a, b in premises for word in (a, b)} | {question[1], question[3]})
    answers: set[str] = set()
    if len(classes) > 3:
        return answers
    for inhabited in get_subsets([set(region) for region in get_subsets(classes) if region]):
        if all(any(word in region for region in inhabited) for word in classes) and all(
            is_true(quantifier, a, b, inhabited) for quantifier, a, b in premises
        ):
            answers.add("yes" if is_concluded(question, inhabited) else "no")
    return answers


# ### `get_subsets`


def get_subsets(items: Sequence[T]) -> list[list[T]]:
    """Return every choice of some of the items, from none of them to all."""
    return [list(compress(items, chosen)) for chosen in product((False, True), repeat=len(items))]


# ### `is_true`


def is_true(quantifier: str, a: str, b: str, inhabited: Sequence[set[str]]) -> bool:
    """Say whether `quantifier a are b` holds where exactly these regions have members."""
    members = [b in region for region in inhabited if a in region]
    return {"All": all(members), "Some": any(members), "No": not any(members)}[quantifier]


# ### `is_concluded`


def is_concluded(question: tuple[str, str, str, str], inhabited: Sequence[set[str]]) -> bool:
    """Say whether `Are all|any a [not] b?` is answered by yes where exactly these regions have members."""
    quantifier, a, negation, b = question
    members = [(b in region) != bool(negation) for region in inhabited if a in region]
    return all(members) if quantifier == "all" else any(members)


# ### `solve_odd_one_out`


def solve_odd_one_out(*words: str) -> set[str]:
    """Return each word that is outside a category that holds all the others."""
    return {
        word for category in CATEGORIES for word in words
        if word not in category and all(other in category for other in words if other != word)
    }  # fmt: skip


# ### `solve_alphabetical_order`


def solve_alphabetical_order(*words: str) -> set[str]:
    """Return each word that no other precedes, letter by letter."""
    return {word for word in words if all(word <= other for other in words)}


# ## Lists

# ### `solve_step`


def solve_step(number: str, unit: str, direction: str, start: str) -> set[str]:
    """Count one item at a time, from December on to January and from Sunday on to Monday, but not past `z`."""
    items = {"day": DAYS, "month": MONTHS, "letter": LETTERS}[unit.rstrip("s")]
    neighbours = dict(zip(items, items[1:] + items[:1], strict=True))
    if unit.startswith("letter"):
        del neighbours["z"]
    if direction == "before":
        neighbours = {after: before for before, after in neighbours.items()}
    word: str | None = start
    for _ in range({"One": 1, "Two": 2, "Three": 3}[number]):
        word = neighbours.get(word) if word is not None else None
    return {word} if word is not None else set()


# ### `solve_word_list`


def solve_word_list(*given: str) -> set[str]:
    """Return what follows the three words wherever they stand in a row in a known list."""
    count = len(given)
    rows = [*SERIES, *(cycle + cycle[:count] for cycle in CYCLES)]
    return {row[i + count] for row in rows for i in range(len(row) - count) if row[i : i + count] == given}


# ## One question

# The patterns exclude each other, so their order does not matter. Numbers have at most four digits, so no prompt makes a
# solver search for long.


N = r"(0|[1-9][0-9]{0,3})"
W = r"([A-Za-z]+)"
TOLD = r"[A-Z][a-z]+ is [a-z]+ than [A-Z][a-z]+\. "
PREMISE = r"(?:All|Some|No) [a-z]+ are [a-z]+\. "
SOLVERS: tuple[tuple[str, Callable[..., set[str]]], ...] = (
    (rf"{N} (\+|-|\*|//|%) {N} = ", solve_arithmetic),
    (rf"{N}, {N}, {N}, ", solve_number_sequence),
    (rf"({TOLD}{TOLD}Who is [a-z]+\?)", solve_ordering),
    (rf"({PREMISE}{PREMISE}Are (?:all|any) [a-z]+ (?:not )?[a-z]+\?)", solve_syllogism),
    (rf"Of {W}, {W}, {W} and {W} the odd one is", solve_odd_one_out),
    (rf"Of {W}, {W} and {W} the first in the alphabet is", solve_alphabetical_order),
    (rf"(One) (day|month|letter) (after|before) {W} is", solve_step),
    (rf"(Two|Three) (days|months|letters) (after|before) {W} is", solve_step),
    (rf"Next: {W}, {W}, {W},", solve_word_list),
)


# ### `solve`


def solve(prompt: Sequence[str]) -> tuple[str, ...]:
    """Return the answer pieces of a prompt, given as pieces.

    Raises:
        Invalid: `solvers/unreadable`, `solvers/not-one-answer`.
    """
    text = "".join(prompt)
    matches = [(solver, match) for pattern, solver in SOLVERS if (match := re.fullmatch(pattern, text, re.ASCII))]
    if not matches:
        raise Invalid("solvers/unreadable", f"{text!r} is no question of any family")
    solver, match = matches[0]
    answers = solver(*match.groups())
    if len(answers) != 1:
        raise Invalid("solvers/not-one-answer", f"{text!r} has the answers {sorted(answers)}")
    answer = answers.pop()
    return tuple(answer) if answer.isdigit() else (f" {answer}",)


# ```pycon
# >>> from poai_spec.proof.lexicon import split_pieces
# >>> from poai_spec.proof.solvers import solve
# >>> solve(split_pieces("17 // 5 = "))
# ('3',)
# >>> solve(split_pieces("All dogs are birds. No birds are cars. Are any dogs cars?"))
# (' no',)
# >>> solve(split_pieces("Some dogs are birds. Some birds are cars. Are any dogs cars?"))
# Traceback (most recent call last):
# poai_spec.basics.notation.Invalid: solvers/not-one-answer: 'Some dogs are birds. Some birds are cars. Are any dogs cars?' has the answers ['no', 'yes']


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `solvers/unreadable` | Invalid | the text has the form of no family |
# | `solvers/not-one-answer` | Invalid | the question has no answer, or more than one |

# ## Rationale

# - **Sets of answers.** A solver that stops at the first answer cannot notice a second one. Collecting all of them turns
#   "exactly one" from a promise into a comparison.
# - **What "odd" and "next" mean.** People find a reason why any of four words is odd. The answer is unique with respect to
#   the categories and lists of the lexicon page, which is what the page defines the words to mean.
