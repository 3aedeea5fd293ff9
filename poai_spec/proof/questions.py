# # Questions  [generated from specs/proof/questions.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# What the model is asked. A question is one line of text: a prompt and its one correct answer, as in `12 + 5 = 17`. There
# are fifteen families, all equally likely, and within a family every choice is uniform. This page generates questions with
# their answers; the page [solvers](solvers.md) finds the answer from the prompt alone, by other means, and a test compares
# the two on hundreds of thousands of questions. The two pages share the word lists of the [lexicon](lexicon.md) and nothing
# else.


from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poai_spec.basics.drbg import Drbg
from poai_spec.proof.lexicon import (
    CATEGORIES,
    CLASSES,
    CYCLES,
    DAYS,
    LETTERS,
    LIST_WORDS,
    MONTHS,
    NAMES,
    SCALES,
    SERIES,
    WORDS,
    Lexicon,
    split_pieces,
)


# ## Constants

# | name | value | why |
# | --- | --- | --- |
# | `MAX_TERM` | 999 | operands of sums and differences, dividends |
# | `MAX_FACTOR` | 99 | factors, divisors, and first terms and differences of sequences |
# | `MAX_RATIO` | 9 | first terms and ratios of geometric sequences |

# They keep every question within 18 tokens where each piece is one token, so that one fits even the shortest quiz.


MAX_TERM = 999
MAX_FACTOR = 99
MAX_RATIO = 9


# ## Types

# ### `Question`

# The answer is what is scored: the digits of a number, or a word together with the space before it. The space between `=`
# and a number belongs to the prompt. The newline that ends the line belongs to neither.


@dataclass(frozen=True)
class Question:
    """One line of a quiz.

    Attributes:
        family: name of the generator, one of `FAMILIES`.
        prompt: pieces up to the answer.
        answer: pieces of the one correct answer.
    """

    family: str
    prompt: tuple[str, ...]
    answer: tuple[str, ...]

    @property
    def pieces(self) -> tuple[str, ...]:
        """The whole line, with the newline that ends it."""
        return (*self.prompt, *self.answer, "\n")

    @property
    def text(self) -> str:
        """The line as people read it, without its newline."""
        return "".join(self.prompt + self.answer)


# ## Families

# Each generator returns the text of the prompt and of the answer. The draws are made in the order of the lines, and within
# a line from left to right.

# ### `generate_addition`


def generate_addition(drbg: Drbg) -> tuple[str, str]:
    """`12 + 5 = 17`: both terms uniform in 0 .. 999."""
    a, b = drbg.between(0, MAX_TERM), drbg.between(0, MAX_TERM)
    return f"{a} + {b} = ", f"{a + b}"


# ### `generate_subtraction`


def generate_subtraction(drbg: Drbg) -> tuple[str, str]:
    """`12 - 5 = 7`: two numbers uniform in 0 .. 999, the larger one first, so the result is never negative."""
    a, b = drbg.between(0, MAX_TERM), drbg.between(0, MAX_TERM)
    return f"{max(a, b)} - {min(a, b)} = ", f"{abs(a - b)}"


# ### `generate_multiplication`


def generate_multiplication(drbg: Drbg) -> tuple[str, str]:
    """`12 * 5 = 60`: both factors uniform in 0 .. 99."""
    a, b = drbg.between(0, MAX_FACTOR), drbg.between(0, MAX_FACTOR)
    return f"{a} * {b} = ", f"{a * b}"


# ### `generate_division`


def generate_division(drbg: Drbg) -> tuple[str, str]:
    """`17 // 5 = 3`: division without its remainder; dividend uniform in 0 .. 999, divisor in 1 .. 99."""
    a, b = drbg.between(0, MAX_TERM), drbg.between(1, MAX_FACTOR)
    return f"{a} // {b} = ", f"{a // b}"


# ### `generate_modulo`


def generate_modulo(drbg: Drbg) -> tuple[str, str]:
    """`17 % 5 = 2`: remainder of the division; dividend uniform in 0 .. 999, divisor in 1 .. 99."""
    a, b = drbg.between(0, MAX_TERM), drbg.between(1, MAX_FACTOR)
    return f"{a} % {b} = ", f"{a % b}"


# ### `generate_arithmetic_sequence`

# Three terms fix an arithmetic or a geometric sequence, and no three terms are both unless they are equal, which differences
# from 1 and ratios from 2 exclude.


def generate_arithmetic_sequence(drbg: Drbg) -> tuple[str, str]:
    """`3, 7, 11, 15`: first term uniform in 0 .. 99, difference in 1 .. 99."""
    first, step = drbg.between(0, MAX_FACTOR), drbg.between(1, MAX_FACTOR)
    return f"{first}, {first + step}, {first + 2 * step}, ", f"{first + 3 * step}"


# ### `generate_geometric_sequence`


def generate_geometric_sequence(drbg: Drbg) -> tuple[str, str]:
    """`3, 6, 12, 24`: first term uniform in 1 .. 9, ratio in 2 .. 9."""
    first, ratio = drbg.between(1, MAX_RATIO), drbg.between(2, MAX_RATIO)
    return f"{first}, {first * ratio}, {first * ratio**2}, ", f"{first * ratio**3}"


# ### `generate_ordering`


def generate_ordering(drbg: Drbg) -> tuple[str, str]:
    """`Tom is older than Ben. Max is younger than Ben. Who is oldest? Tom`.

    Three names in an order that is drawn, each neighbouring pair told once, in either direction, the two in either
    order; asked is who stands at one of the two ends.
    """
    people = drbg.sample(NAMES, 3)
    more, most, less, least = drbg.choice(SCALES)
    told = []
    for high, low in drbg.shuffled([(people[0], people[1]), (people[1], people[2])]):
        told.append(drbg.choice((f"{high} is {more} than {low}", f"{low} is {less} than {high}")))
    asked, answer = drbg.choice(((most, people[0]), (least, people[2])))
    return f"{told[0]}. {told[1]}. Who is {asked}?", f" {answer}"


# Syllogisms ask what follows, which is a question of logic, not of dogs. As in Aristotle, every class has members. The
# answer is `yes` where the conclusion is true whenever the premises are, and `no` where it is false whenever they are;
# forms in which the premises leave it open are not asked. The answer is drawn before the form, so half of all answers are
# `yes`. The names in the comments are the traditional ones of the moods that the forms come from.


SYLLOGISMS = {
    "yes": (
        "All {a} are {b}. All {b} are {c}. Are all {a} {c}?",  # Barbara
        "All {a} are {b}. All {b} are {c}. Are any {a} {c}?",  # Barbari
        "Some {a} are {b}. All {b} are {c}. Are any {a} {c}?",  # Darii
        "All {b} are {a}. All {b} are {c}. Are any {a} {c}?",  # Darapti
        "Some {b} are {a}. All {b} are {c}. Are any {a} {c}?",  # Datisi
        "All {a} are {b}. No {b} are {c}. Are any {a} not {c}?",  # Celaront
        "Some {a} are {b}. No {b} are {c}. Are any {a} not {c}?",  # Ferio
        "Some {a} are {b}. No {c} are {b}. Are any {a} not {c}?",  # Festino
    ),
    "no": (
        "All {a} are {b}. All {b} are {c}. Are any {a} not {c}?",  # against Barbara
        "All {a} are {b}. No {b} are {c}. Are any {a} {c}?",  # against Celarent
        "All {a} are {b}. No {b} are {c}. Are all {a} {c}?",  # against Celaront
        "All {a} are {b}. No {c} are {b}. Are any {a} {c}?",  # against Cesare
        "No {a} are {b}. All {c} are {b}. Are any {a} {c}?",  # against Camestres
        "Some {a} are {b}. No {b} are {c}. Are all {a} {c}?",  # against Ferio
        "Some {a} are {b}. No {c} are {b}. Are all {a} {c}?",  # against Festino
        "No {b} are {c}. Some {b} are {a}. Are all {a} {c}?",  # against Ferison
    ),
}


# ### `generate_syllogism`


def generate_syllogism(drbg: Drbg) -> tuple[str, str]:
    """`All dogs are birds. All birds are cars. Are all dogs cars? yes`: answer, form and three classes uniform."""
    answer = drbg.choice(("yes", "no"))
    form = drbg.choice(SYLLOGISMS[answer])
    a, b, c = drbg.sample(CLASSES, 3)
    return form.format(a=a, b=b, c=c), f" {answer}"


# ### `generate_odd_one_out`


def generate_odd_one_out(drbg: Drbg) -> tuple[str, str]:
    """`Of cat, red, dog and cow the odd one is red`: three words of one category, one of another, in random order."""
    category, other = drbg.sample(CATEGORIES, 2)
    odd = drbg.choice(other)
    w = drbg.shuffled([*drbg.sample(category, 3), odd])
    return f"Of {w[0]}, {w[1]}, {w[2]} and {w[3]} the odd one is", f" {odd}"


# ### `generate_alphabetical_order`


def generate_alphabetical_order(drbg: Drbg) -> tuple[str, str]:
    """`Of dog, red and cat the first in the alphabet is cat`: three distinct words of any categories."""
    w = drbg.sample(WORDS, 3)
    return f"Of {w[0]}, {w[1]} and {w[2]} the first in the alphabet is", f" {min(w)}"


# ### `generate_step`

# Shared by the three families that count forwards or backwards.


def generate_step(drbg: Drbg, unit: str, items: Sequence[str], *, cycle: bool) -> tuple[str, str]:
    """One to three steps after or before an item; in a cycle the first item follows the last."""
    count = drbg.between(1, 3)
    start = drbg.below(len(items) if cycle else len(items) - count)
    earlier, later = items[start], items[(start + count) % len(items)]
    number, unit = ("One", "Two", "Three")[count - 1], unit if count == 1 else f"{unit}s"
    word, given, answer = drbg.choice((("after", earlier, later), ("before", later, earlier)))
    return f"{number} {unit} {word} {given} is", f" {answer}"


# ### `generate_days`


def generate_days(drbg: Drbg) -> tuple[str, str]:
    """`Two days after Monday is Wednesday`."""
    return generate_step(drbg, "day", DAYS, cycle=True)


# ### `generate_months`


def generate_months(drbg: Drbg) -> tuple[str, str]:
    """`Two months after May is July`."""
    return generate_step(drbg, "month", MONTHS, cycle=True)


# ### `generate_letters`


def generate_letters(drbg: Drbg) -> tuple[str, str]:
    """`Two letters after c is e`; never past `a` or `z`."""
    return generate_step(drbg, "letter", LETTERS, cycle=False)


# ### `generate_word_list`


def generate_word_list(drbg: Drbg) -> tuple[str, str]:
    """`Next: two, three, four, five`: a list that people know, uniform, and a place in it, uniform."""
    items = drbg.choice((*CYCLES, *SERIES))
    start = drbg.below(len(items) if items in CYCLES else len(items) - 3)
    a, b, c, d = (items[(start + i) % len(items)] for i in range(4))
    return f"Next: {a}, {b}, {c},", f" {d}"


# ## One question

# `FAMILIES` lists the names in the order in which the draw counts them.


GENERATORS: dict[str, Callable[[Drbg], tuple[str, str]]] = {
    "addition": generate_addition,
    "subtraction": generate_subtraction,
    "multiplication": generate_multiplication,
    "division": generate_division,
    "modulo": generate_modulo,
    "arithmetic_sequence": generate_arithmetic_sequence,
    "geometric_sequence": generate_geometric_sequence,
    "ordering": generate_ordering,
    "syllogism": generate_syllogism,
    "odd_one_out": generate_odd_one_out,
    "alphabetical_order": generate_alphabetical_order,
    "days": generate_days,
    "months": generate_months,
    "letters": generate_letters,
    "word_list": generate_word_list,
}
FAMILIES = tuple(GENERATORS)


# ### `generate_question`


def generate_question(drbg: Drbg) -> Question:
    """Return the next question of a stream: its family is drawn first, uniform over `FAMILIES`."""
    family = drbg.choice(FAMILIES)
    prompt, answer = GENERATORS[family](drbg)
    return Question(family, split_pieces(prompt), split_pieces(answer))


# ```pycon
# >>> from poai_spec.basics.drbg import Drbg
# >>> from poai_spec.proof.questions import generate_question
# >>> drbg = Drbg(bytes(32))
# >>> for _ in range(6):
# ...     print(generate_question(drbg).text)
# Next: four, five, six, seven
# 946 % 47 = 6
# 713 + 126 = 839
# 456 % 26 = 14
# 623 - 573 = 50
# 266 // 92 = 2
# >>> question = generate_question(drbg)
# >>> question.prompt
# ('Of', ' cat', ',', ' dog', ',', ' plane', ' and', ' cow', ' the', ' odd', ' one', ' is')
# >>> question.answer
# (' plane',)


# ## The longest question

# A network is refused where its longest question does not fit into a quiz (page [quiz](quiz.md)), so its length has to be
# known for every lexicon. Every question has the *shape* of one of the lines below or a shorter one: a slot of the shape
# holds a representative (`9`, `Tom`, ` cat`, ...), and `SLOTS` lists what may stand there. The bound takes the most tokens
# that each slot can have.


SHAPES = (
    *("999 + 999 = 9999", "999 - 999 = 999", "99 * 99 = 9999", "999 // 99 = 999", "999 % 99 = 99"),
    *("99, 999, 999, 999", "9, 99, 999, 9999"),
    "Tom is older than Ben. Ben is older than Ben. Who is oldest? Ben",
    "All dogs are dogs. All dogs are dogs. Are any dogs not dogs? yes",
    "Of cat, cat, cat and cat the odd one is cat",
    "Of cat, cat and cat the first in the alphabet is cat",
    *("Three days after Monday is Monday", "Three months after May is May", "Three letters after x is x"),
    "Next: zero, zero, zero, zero",
)


# ### `with_spaces`


def with_spaces(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words as pieces inside a line."""
    return tuple(f" {word}" for word in words)



SLOTS: dict[str, Sequence[str]] = {
    "9": "0123456789",
    "Tom": NAMES,
    " Ben": with_spaces(NAMES),
    " older": with_spaces([word for scale in SCALES for word in (scale[0], scale[2])]),
    " oldest": with_spaces([word for scale in SCALES for word in (scale[1], scale[3])]),
    "All": ("All", "Some", "No"),
    " All": (" All", " Some", " No"),
    " dogs": with_spaces(CLASSES),
    " any": (" all", " any"),
    " yes": (" yes", " no"),
    " cat": with_spaces(WORDS),
    "Three": ("One", "Two", "Three"),
    " days": (" day", " days"),
    " months": (" month", " months"),
    " letters": (" letter", " letters"),
    " after": (" after", " before"),
    " Monday": with_spaces(DAYS),
    " May": with_spaces(MONTHS),
    " x": with_spaces(LETTERS),
    " zero": with_spaces(LIST_WORDS),
}


# ### `compute_longest_question`


def compute_longest_question(lexicon: Lexicon) -> int:
    """Return an upper bound, in tokens, on the length of a question with its newline.

    It is reached unless a shape's longest words cannot all differ, as its words must.
    """
    longest = 0
    for shape in SHAPES:
        pieces = (*split_pieces(shape), "\n")
        lengths = [max(len(lexicon.ids[choice]) for choice in SLOTS.get(piece, (piece,))) for piece in pieces]
        longest = max(longest, sum(lengths))
    return longest


# ## Rationale

# - **Why questions at all?** Any text that nobody can foresee would cost the same work. Questions give the work a reading:
#   the loss of an answer says how well the model knows it, a test that anyone can follow.
# - **Why an independent solver?** A generator that is wrong about its own answer agrees with itself. Two programs that share
#   no step agree only where both are right.
# - **Why such short questions?** A quiz is a fixed number of tokens. Short questions put more answers, and more variety, into
#   the same work.
# - **Why no negative numbers?** A minus sign after `=` would be another piece, and tokenizers differ about it.
# - **Uniform operands, not uniform answers.** Products near zero are more frequent than others; that is arithmetic, and
#   nothing depends on it, because the salt alone already makes every quiz new.
