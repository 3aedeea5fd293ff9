"""Generator against solver: one answer each, uniform choices, and no solver that swallows nonsense."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poai_spec.proof import lexicon as words
from poai_spec.basics.drbg import Drbg
from poai_spec.proof.lexicon import PIECES, Lexicon, read_lexicon, split_pieces
from poai_spec.basics.notation import Invalid
from poai_spec.proof.questions import (
    FAMILIES,
    GENERATORS,
    SHAPES,
    SLOTS,
    SYLLOGISMS,
    Question,
    compute_longest_question,
    generate_question,
)
from poai_spec.proof.solvers import solve

CheckUniform = Callable[..., None]
QUANTIFIERS = ("All", "Some", "No")


def draw(seed: int, count: int, family: str | None = None) -> list[Question]:
    drbg = Drbg(seed.to_bytes(32, "big"))
    if family is None:
        return [generate_question(drbg) for _ in range(count)]
    texts = [GENERATORS[family](drbg) for _ in range(count)]
    return [Question(family, split_pieces(prompt), split_pieces(answer)) for prompt, answer in texts]


def numbers(question: Question) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", question.text)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_is_the_solvers(family: str) -> None:
    for question in draw(1, 1000, family):
        assert solve(question.prompt) == question.answer, question.text
        assert {*question.pieces} <= {*PIECES}
        assert split_pieces(question.text + "\n") == question.pieces
        assert question.prompt[-1] != "\n"


def test_every_piece_is_used_and_no_other() -> None:
    assert {piece for question in draw(2, 30_000) for piece in question.pieces} == set(PIECES)


def test_answers_are_digits_or_one_word_with_its_space() -> None:
    for question in draw(3, 3000):
        digits = all(piece in "0123456789" for piece in question.answer)
        assert digits or (len(question.answer) == 1 and re.fullmatch(" [A-Za-z]+", question.answer[0]))
        assert digits == (question.prompt[-1] == " "), "the space before a number belongs to the prompt"


def test_all_syllogism_forms_have_the_answer_they_are_listed_under() -> None:
    for answer, forms in SYLLOGISMS.items():
        for form in forms:
            assert solve(split_pieces(form.format(a="dogs", b="cars", c="birds"))) == (f" {answer}",)
    every = [form for group in SYLLOGISMS.values() for form in group]
    assert len(set(every)) == len(every)


def brute_force(first: str, second: str, asked: str) -> set[str]:
    """Decide a syllogism by trying all ways to put four individuals into three classes."""
    answers = set()
    for people in product(range(8), repeat=4):
        sets = [{i for i, person in enumerate(people) if person >> bit & 1} for bit in range(3)]
        truth = {"All": lambda x, y: x <= y, "Some": lambda x, y: bool(x & y), "No": lambda x, y: not x & y}

        def holds(
            sentence: str, sets: list[set[int]] = sets, truth: dict[str, Callable[[set[int], set[int]], bool]] = truth
        ) -> bool:
            quantifier, x, _, y = sentence.split()
            return truth[quantifier](sets["abc".index(x)], sets["abc".index(y)])

        if all(sets) and holds(first) and holds(second):
            _, quantifier, x, *negation, y = asked.split()
            left, right = sets["abc".index(x)], sets["abc".index(y)]
            right = set(range(4)) - right if negation else right
            answers.add("yes" if (left <= right if quantifier == "all" else bool(left & right)) else "no")
    return answers


def test_syllogism_solver_agrees_with_brute_force_on_every_pair_of_premises() -> None:
    """All 3 x 2 x 3 x 2 premises and 3 conclusions; four individuals tell apart every model that matters."""
    names = {"a": "birds", "b": "cars", "c": "dogs"}
    sides = (("a", "b"), ("b", "a")), (("b", "c"), ("c", "b"))
    decided: Counter[int] = Counter()
    for q1, (x1, y1), q2, (x2, y2) in product(QUANTIFIERS, sides[0], QUANTIFIERS, sides[1]):
        for asked in ("Are all a c", "Are any a c", "Are any a not c"):
            expected = brute_force(f"{q1} {x1} are {y1}", f"{q2} {x2} are {y2}", asked)
            ask = " ".join(names.get(word, word) for word in asked.split())
            text = f"{q1} {names[x1]} are {names[y1]}. {q2} {names[x2]} are {names[y2]}. {ask}?"
            decided[len(expected)] += 1
            if len(expected) == 1:
                assert solve(split_pieces(text)) == (f" {expected.pop()}",), text
            else:
                with pytest.raises(Invalid, match="solvers/not-one-answer"):
                    solve(split_pieces(text))
    assert decided[1] > 20
    assert decided[2] > 20


NONSENSE = {
    "": "unreadable",
    "12 + 5 =": "unreadable",
    "12 + 5 = 17": "unreadable",
    "012 + 5 = ": "unreadable",
    "12 ** 5 = ": "unreadable",
    "12345 + 5 = ": "unreadable",
    "99999999999 // 3 = ": "unreadable",
    "-1 + 5 = ": "unreadable",
    "٣ + 5 = ": "unreadable",
    "5 - 12 = ": "not-one-answer",
    "5 // 0 = ": "not-one-answer",
    "5 % 0 = ": "not-one-answer",
    "1, 2, 5, ": "not-one-answer",
    "9, 3, 1, ": "not-one-answer",
    "0, 0, 7, ": "not-one-answer",
    "Tom is older than Ben. Max is older than Ben. Who is oldest?": "not-one-answer",
    "Tom is older than Ben. Ben is older than Tom. Who is oldest?": "not-one-answer",
    "Tom is older than Tom. Ben is older than Tom. Who is oldest?": "not-one-answer",
    "Tom is older than Ben. Ben is older than Max. Who is tallest?": "not-one-answer",
    "Tom is older than Ben. Ben is older than Max. Who is older?": "not-one-answer",
    "Tom is older than Ben. Ben is taller than Max. Who is oldest?": "not-one-answer",
    "Tom is oldest than Ben. Ben is older than Max. Who is oldest?": "not-one-answer",
    "Some dogs are birds. Some birds are cars. Are any dogs cars?": "not-one-answer",
    "All dogs are birds. No dogs are birds. Are any dogs birds?": "not-one-answer",
    "All dogs are birds. All cars are stars. Are any dogs cars?": "not-one-answer",
    "Of cat, dog, cow and bird the odd one is": "not-one-answer",
    "Of cat, dog, red and blue the odd one is": "not-one-answer",
    "Of cat, dog, cow and purple the odd one is purple": "unreadable",
    "One days after Monday is": "unreadable",
    "Two day after Monday is": "unreadable",
    "Four days after Monday is": "unreadable",
    "One day after May is": "not-one-answer",
    "Three letters after y is": "not-one-answer",
    "One letter before a is": "not-one-answer",
    "Next: three, two, one,": "not-one-answer",
    "Next: eight, nine, ten,": "not-one-answer",
    "Who are you?": "unreadable",
}


@pytest.mark.parametrize(("text", "rule"), NONSENSE.items())
def test_nonsense_has_no_answer(text: str, rule: str) -> None:
    with pytest.raises(Invalid) as caught:
        solve((text,))
    assert caught.value.code == f"solvers/{rule}"


def test_cycles_pass_the_end_of_the_week_and_year() -> None:
    assert solve(("Two days after Saturday is",)) == (" Monday",)
    assert solve(("Three months before February is",)) == (" November",)
    assert solve(("Next: November, December, January,",)) == (" February",)


@given(st.lists(st.sampled_from(PIECES), max_size=18) | st.text(max_size=30).map(lambda text: [text]))
@example(["9" * 5000, " +", " ", "1", " =", " "])
def test_a_solver_answers_or_refuses(pieces: list[str]) -> None:
    try:
        answer = solve(pieces)
    except Invalid:
        return
    assert answer
    assert set(answer) <= set(PIECES) or len(answer) == len([piece for piece in answer if piece.isdigit()])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_solver_reads_the_whole_prompt(family: str) -> None:
    """Prompts of equal length and different answers are never confused."""
    changed = noticed = 0
    pool = draw(4, 400, family)
    for one, two in pairwise(pool):
        if len(one.prompt) == len(two.prompt) and one.answer != two.answer:
            changed += 1
            noticed += solve(two.prompt) != one.answer
    assert noticed == changed > 20


def test_each_choice_within_a_family_is_uniform(check_uniform: CheckUniform) -> None:
    for family, first, second in (
        ("addition", range(1000), range(1000)),
        ("multiplication", range(100), range(100)),
        ("division", range(1000), range(1, 100)),
        ("modulo", range(1000), range(1, 100)),
    ):
        terms = [numbers(question)[:2] for question in draw(5, 12_000, family)]
        check_uniform(Counter(a for a, _ in terms), first)
        check_uniform(Counter(b for _, b in terms), second)
    pairs = [numbers(question)[:2] for question in draw(6, 12_000, "subtraction")]
    check_uniform(Counter(a // 50 for a, _ in pairs), range(20), {k: 50 * k + 25 for k in range(20)})
    check_uniform(Counter(b // 50 for _, b in pairs), range(20), {k: 975 - 50 * k for k in range(20)})
    terms = [numbers(question) for question in draw(7, 12_000, "arithmetic_sequence")]
    check_uniform(Counter(a for a, *_ in terms), range(100))
    check_uniform(Counter(b - a for a, b, *_ in terms), range(1, 100))
    terms = [numbers(question) for question in draw(8, 3_000, "geometric_sequence")]
    check_uniform(Counter((a, b // a) for a, b, *_ in terms), list(product(range(1, 10), range(2, 10))))


def test_each_puzzle_and_place_is_equally_likely(check_uniform: CheckUniform) -> None:
    texts = [question.text for question in draw(9, 20_000, "ordering")]
    told = [re.findall(r"(\w+) is (\w+) than (\w+)", text) for text in texts]
    scale_words = [word for scale in words.SCALES for word in scale]
    check_uniform(Counter(left for (left, _, _), _ in told), words.NAMES)
    check_uniform(Counter(text.split()[-1] for text in texts), words.NAMES)
    check_uniform(Counter(word for (_, word, _), _ in told), scale_words[::2])
    check_uniform(Counter(re.findall(r"is (\w+)\?", text)[0] for text in texts), scale_words[1::2])
    places = Counter(
        (text.split()[-1] in one, text.split()[-1] == one[0] or text.split()[-1] == two[0])
        for text, (one, two) in zip(texts, told, strict=True)
    )
    check_uniform(places, list(product((False, True), repeat=2)))

    texts = [question.text for question in draw(10, 16_000, "syllogism")]
    forms = [re.sub("|".join(words.CLASSES), "?", text) for text in texts]
    cells = [f"{form.format(a='?', b='?', c='?')} {answer}" for answer, group in SYLLOGISMS.items() for form in group]
    check_uniform(Counter(forms), sorted(set(cells)), Counter(cells))
    check_uniform(Counter(text.split()[-1] for text in texts), ("yes", "no"))

    for family, size in (("odd_one_out", 4), ("alphabetical_order", 3)):
        texts = [question.text for question in draw(11, 24_000, family)]
        options = [re.findall(r"\w+", text)[1 : size + 2] for text in texts]
        options = [[word for word in group if word != "and"] for group in options]
        assert {len(set(group)) for group in options} == {size}
        check_uniform(Counter(g.index(t.split()[-1]) for g, t in zip(options, texts, strict=True)), range(size))
        for place in range(size):
            check_uniform(Counter(group[place] for group in options), words.WORDS)


def test_each_step_and_list_is_equally_likely(check_uniform: CheckUniform) -> None:
    for family, items in (("days", words.DAYS), ("months", words.MONTHS)):
        cells = list(product(("One", "Two", "Three"), ("after", "before"), items))
        steps = [question.text.split() for question in draw(12, 6_000, family)]
        check_uniform(Counter((step[0], step[2], step[3]) for step in steps), cells)
    steps = [question.text.split() for question in draw(13, 12_000, "letters")]
    for number, count in (("One", 1), ("Two", 2), ("Three", 3)):
        starts = [(step[2], step[3]) for step in steps if step[0] == number]
        places = [("after", letter) for letter in words.LETTERS[:-count]]
        places += [("before", letter) for letter in words.LETTERS[count:]]
        check_uniform(Counter(starts), places)
    check_uniform(Counter(step[0] for step in steps), ("One", "Two", "Three"))
    lists = (*words.CYCLES, *words.SERIES)
    runs = [tuple(re.findall(r"\w+", question.text)[1:4]) for question in draw(14, 12_000, "word_list")]
    shares = {
        (items * 2)[i : i + 3]: 1 / size
        for items in lists
        for size in [len(items) if items in words.CYCLES else len(items) - 3]
        for i in range(size)
    }
    check_uniform(Counter(runs), list(shares), shares)


def test_families_are_equally_likely(check_uniform: CheckUniform) -> None:
    check_uniform(Counter(question.family for question in draw(15, 15_000)), FAMILIES)


def test_the_longest_question_is_found_and_reached(plain_lexicon: Lexicon) -> None:
    """Where words of a slot are equally long the bound is exact: some question of a large draw reaches it."""
    pool = draw(16, 60_000)
    for lexicon, longest in (
        (plain_lexicon, 18),
        (read_lexicon("smollm2-135m"), 19),
        (read_lexicon("tinyllama-1.1b"), 22),
    ):
        lengths = [sum(len(lexicon.ids[piece]) for piece in question.pieces) for question in pool]
        assert compute_longest_question(lexicon) == longest == max(lengths)


@given(st.lists(st.integers(1, 5), min_size=len(PIECES), max_size=len(PIECES)), st.integers(0, 2**32))
def test_no_question_is_longer_than_the_bound(lengths: list[int], seed: int) -> None:
    lexicon = Lexicon({piece: (0,) * n for piece, n in zip(PIECES, lengths, strict=True)})
    longest = compute_longest_question(lexicon)
    assert all(sum(len(lexicon.ids[piece]) for piece in question.pieces) <= longest for question in draw(seed, 60))


def fits(question: Question, shape: tuple[str, ...]) -> bool:
    """Whether the question can be had from the shape by choosing pieces for slots and leaving pieces out."""
    rest = iter(shape)
    return all(any(piece in SLOTS.get(slot, (slot,)) for slot in rest) for piece in question.pieces)


def test_every_question_is_a_shape_with_pieces_chosen_and_left_out() -> None:
    """So the bound holds for every lexicon, whatever the lengths of its pieces."""
    shapes = [(*split_pieces(shape), "\n") for shape in SHAPES]
    for question in draw(17, 20_000):
        assert any(fits(question, shape) for shape in shapes), question.text
    assert set(SLOTS) <= {piece for shape in shapes for piece in shape}
