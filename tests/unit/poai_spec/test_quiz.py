"""Quizzes: the layout, the scored positions, and a hundred thousand of them against the solvers."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.basics.containers import HeaderCore, compute_core_hash
from poai_spec.basics.drbg import Drbg
from poai_spec.proof.lexicon import Lexicon, get_tokens, read_lexicon
from poai_spec.basics.notation import Invalid, keccak256, uint64_le
from poai_spec.basics.parameters import Config, TokenRange, check_config
from poai_spec.proof.questions import FAMILIES, generate_question
from poai_spec.proof.quiz import (
    Quiz,
    check_longest_question,
    compute_quiz_seed,
    draw_salt,
    generate_quiz,
    get_quiz_name,
    get_quiz_text,
    select_scored,
)
from poai_spec.proof.solvers import solve
from poai_spec.chain.upgrades import get_rules

CheckUniform = Callable[..., None]
MakeNetwork = Callable[..., Config]
CORE = HeaderCore(1, 7, bytes(32), 1_767_225_600_000, 2**250, bytes(20), bytes(32), bytes(32), 42)


def get_seed(i: int) -> bytes:
    return keccak256(b"tests/spec/test_quiz" + uint64_le(i))


@pytest.fixture(params=["testnet", "mainnet", "minimal"])
def network(
    request: pytest.FixtureRequest, make_network: MakeNetwork, plain_lexicon: Lexicon
) -> tuple[Config, Lexicon]:
    if request.param == "testnet":
        lexicon = read_lexicon("smollm2-135m")
        return make_network("testnet", lexicon), lexicon
    if request.param == "mainnet":
        lexicon = read_lexicon("tinyllama-1.1b")
        return make_network("mainnet", lexicon, add_bos=True, salt=((259, 31999),)), lexicon
    return make_network("minimal", plain_lexicon, add_bos=True, salt=((3, 9), (20, 299), (400, 511))), plain_lexicon


def check_quiz(quiz: Quiz, config: Config, lexicon: Lexicon) -> None:
    """Check everything that the page says about a quiz, by other means than the page's."""
    bos = 1 if config.model.add_bos else 0
    start = bos + config.salt_tokens
    assert len(quiz.tokens) == config.quiz_tokens
    assert quiz.tokens[:start] == (config.model.bos_id,) * bos + quiz.salt
    assert all(any(span.first <= t <= span.last for span in config.model.salt_ranges) for t in quiz.salt)
    answers, position = [], start
    for question in quiz.questions:
        assert position < config.quiz_tokens, "a question that begins after the end"
        assert solve(question.prompt) == question.answer
        for pieces, is_answer in ((question.prompt, False), (question.answer, True), (("\n",), False)):
            for piece in pieces:
                for token in lexicon.ids[piece]:
                    if position < config.quiz_tokens:
                        assert quiz.tokens[position] == token
                        answers += [position] * is_answer
                    position += 1
    assert position >= config.quiz_tokens
    count = config.scored_tokens
    missing = max(0, count - len(answers))
    rest = [p for p in range(start, config.quiz_tokens) if p not in answers]
    assert quiz.scored == tuple(sorted(answers[:count] + rest[len(rest) - missing :]))
    assert len(set(quiz.scored)) == count
    assert min(quiz.scored) >= max(1, start)


def test_layout_and_scored_positions(network: tuple[Config, Lexicon]) -> None:
    config, lexicon = network
    check_config(config)
    check_longest_question(get_rules(config, (), 0), lexicon)
    for i in range(400):
        check_quiz(generate_quiz(get_seed(i), get_rules(config, (), 0), lexicon), config, lexicon)


@pytest.mark.slow
def test_a_hundred_thousand_quizzes(make_network: MakeNetwork, check_uniform: CheckUniform) -> None:
    lexicon = read_lexicon("smollm2-135m")
    config = make_network("testnet", lexicon)
    seen: set[bytes] = set()
    families: Counter[str] = Counter()
    verdicts: Counter[tuple[str, ...]] = Counter()
    places: Counter[int] = Counter()
    for i in range(100_000):
        quiz = generate_quiz(get_seed(i), get_rules(config, (), 0), lexicon)
        check_quiz(quiz, config, lexicon)
        seen.add(b"".join(token.to_bytes(4, "little") for token in quiz.tokens))
        for question in quiz.questions:
            families[question.family] += 1
            if question.family == "syllogism":
                verdicts[question.answer] += 1
            elif question.family == "odd_one_out":
                options = [piece for piece in question.prompt[1:9] if piece not in (",", " and")]
                places[options.index(question.answer[0])] += 1
    assert len(seen) == 100_000, "two seeds share a quiz"
    check_uniform(families, FAMILIES)
    check_uniform(verdicts, [(" yes",), (" no",)])
    check_uniform(places, range(4))


def test_both_ways_of_scoring_occur(network: tuple[Config, Lexicon]) -> None:
    """Otherwise the tests above would leave one of them out."""
    config, lexicon = network
    whole: Counter[bool] = Counter()
    for i in range(400):
        quiz = generate_quiz(get_seed(i), get_rules(config, (), 0), lexicon)
        whole[config.quiz_tokens - 1 in quiz.scored] += 1
    assert min(whole[True], whole[False]) > 0


def test_salt_is_drawn_first_and_questions_follow_on_the_same_stream(network: tuple[Config, Lexicon]) -> None:
    config, lexicon = network
    quiz = generate_quiz(get_seed(0), get_rules(config, (), 0), lexicon)
    drbg = Drbg(get_seed(0))
    assert draw_salt(drbg, config.salt_tokens, config.model) == quiz.salt
    assert tuple(generate_question(drbg) for _ in quiz.questions) == quiz.questions


def test_salt_is_uniform_over_ranges_laid_end_to_end(
    make_network: MakeNetwork, plain_lexicon: Lexicon, check_uniform: CheckUniform
) -> None:
    model = replace(
        make_network("testnet", plain_lexicon).model,
        salt_ranges=(TokenRange(5, 5), TokenRange(7, 9), TokenRange(20, 25)),
    )
    salt = draw_salt(Drbg(bytes(32)), 20_000, model)
    check_uniform(Counter(salt), [5, 7, 8, 9, 20, 21, 22, 23, 24, 25])
    drbg = Drbg(bytes(32))
    ids = [5, 7, 8, 9, 20, 21, 22, 23, 24, 25]
    assert salt[:50] == tuple(ids[drbg.below(10)] for _ in range(50))


def test_every_field_of_the_core_the_key_and_the_network_change_the_seed() -> None:
    base = compute_quiz_seed(bytes(32), bytes(32), CORE)
    changed = {
        compute_quiz_seed(b"\1" + bytes(31), bytes(32), CORE),
        compute_quiz_seed(bytes(32), b"\1" + bytes(31), CORE),
    }
    for field in fields(HeaderCore):
        value = getattr(CORE, field.name)
        other = value + 1 if isinstance(value, int) else b"\1" + value[1:]
        change: dict[str, Any] = {field.name: other}
        changed.add(compute_quiz_seed(bytes(32), bytes(32), replace(CORE, **change)))
    assert len(changed) == 2 + len(fields(HeaderCore))
    assert base not in changed
    tag = keccak256(b"PoAI/quiz/1")
    network_id, key = b"n" * 32, b"k" * 32
    expected = keccak256(tag + network_id + key + compute_core_hash(CORE))
    assert compute_quiz_seed(network_id, key, CORE) == expected


@given(
    answers=st.sets(st.integers(9, 90)).map(sorted),
    scored=st.integers(1, 54),
)
def test_scored_positions_are_answers_first_then_the_highest(
    make_network: MakeNetwork, plain_lexicon: Lexicon, answers: list[int], scored: int
) -> None:
    config = replace(make_network("testnet", plain_lexicon, add_bos=True), scored_tokens=scored)
    check_config(config)
    result = select_scored(answers, get_rules(config, (), 0))
    inside = [position for position in answers if position < 64]
    assert len(result) == scored
    assert list(result) == sorted(set(result))
    assert min(result) >= 9
    if len(inside) >= scored:
        assert list(result) == inside[:scored]
    else:
        assert set(inside) <= set(result)
        free = [position for position in range(64) if position not in inside]
        assert set(result) - set(inside) == set(free[len(free) - (scored - len(inside)) :])


def test_without_salt_and_bos_position_zero_is_still_not_scored(
    make_network: MakeNetwork, plain_lexicon: Lexicon
) -> None:
    config = replace(make_network("testnet", plain_lexicon), salt_tokens=0, scored_tokens=63)
    check_config(config)
    quiz = generate_quiz(get_seed(0), get_rules(config, (), 0), plain_lexicon)
    assert quiz.scored == tuple(range(1, 64))
    with pytest.raises(Invalid, match="parameters/quiz-length"):
        check_config(replace(config, scored_tokens=64))


def test_the_longest_question_must_fit_exactly(make_network: MakeNetwork, plain_lexicon: Lexicon) -> None:
    config = make_network("minimal", plain_lexicon, add_bos=True)
    check_longest_question(get_rules(replace(config, quiz_tokens=18 + 6 + 1), (), 0), plain_lexicon)
    check_longest_question(get_rules(replace(config, quiz_tokens=18 + 1, salt_tokens=0), (), 0), plain_lexicon)
    for small in (replace(config, quiz_tokens=24), replace(config, quiz_tokens=64, salt_tokens=46)):
        with pytest.raises(Invalid) as caught:
            check_longest_question(get_rules(small, (), 0), plain_lexicon)
        assert caught.value.code == "quiz/question-too-long"
    without_bos = replace(config, quiz_tokens=24, model=replace(config.model, add_bos=False))
    check_longest_question(get_rules(without_bos, (), 0), plain_lexicon)


def test_a_quiz_for_people(make_network: MakeNetwork, plain_lexicon: Lexicon) -> None:
    assert get_quiz_name((0x1A2B, 0xFF, 0x1FFFF)) == "1a2b-00ff-1ffff"
    config = make_network("testnet", plain_lexicon)
    quiz = generate_quiz(get_seed(3), get_rules(config, (), 0), plain_lexicon)
    lines = get_quiz_text(quiz).splitlines()
    assert lines == [question.text for question in quiz.questions]
    tokens = [token for question in quiz.questions for token in get_tokens(plain_lexicon, question.pieces)]
    assert tuple(tokens[: 64 - 8]) == quiz.tokens[8:]
