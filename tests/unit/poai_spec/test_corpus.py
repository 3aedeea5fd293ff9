"""The page `corpus`: what is refused and in which order, and quizzes that draw from a corpus."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from poai_spec.proof.corpus import (
    MIN_CORPUS_ITEMS,
    Corpus,
    CorpusItem,
    check_corpus,
    check_questions,
    compute_corpus_digest,
    compute_longest_item,
)
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.encoding import decode, encode
from poai_spec.proof.lexicon import read_lexicon
from poai_spec.basics.notation import Invalid, Malformed, keccak256, uint64_le
from poai_spec.basics.parameters import ModelManifest, compute_network_id, get_preset
from poai_spec.proof.quiz import check_longest_question, draw_salt, generate_quiz, get_quiz_text
from poai_spec.chain.upgrades import get_rules

CONFIG = get_preset("minimal")
ITEMS = tuple(
    CorpusItem((300 + n // 30, 400 + n % 30), tuple(range(500, 501 + n % 3))) for n in range(MIN_CORPUS_ITEMS)
)
CORPUS = Corpus((13,), ITEMS)


def name(source: Corpus, /, **changes: Any) -> ModelManifest:
    values: dict[str, Any] = {"corpus": True, "questions_digest": compute_corpus_digest(source)} | changes
    return replace(CONFIG.model, **values)


def refuse(corpus: Corpus, model: ModelManifest | None = None) -> str:
    with pytest.raises(Invalid) as caught:
        check_questions(corpus, model or name(corpus))
    return caught.value.code


def test_a_thousand_items_are_enough() -> None:
    check_questions(CORPUS, name(CORPUS))
    check_questions(read_lexicon("mini"), CONFIG.model)


def test_the_file_is_the_encoding() -> None:
    data = encode(CORPUS)
    assert decode(Corpus, data) == CORPUS
    for bad in (data[:-1], data + b"\0", b"", data[:4] + b"\xff" + data[5:]):
        with pytest.raises(Malformed, match="encoding/undecodable"):
            decode(Corpus, bad)


@pytest.mark.parametrize(
    ("corpus", "code"),
    [
        (replace(CORPUS, items=ITEMS[1:]), "corpus/too-few"),
        (replace(CORPUS, line_end=()), "corpus/empty"),
        (replace(CORPUS, items=(CorpusItem((), (1,)), *ITEMS)), "corpus/empty"),
        (replace(CORPUS, items=(*ITEMS, CorpusItem((904,), ()))), "corpus/empty"),
        (replace(CORPUS, line_end=(905,)), "corpus/id-range"),
        (replace(CORPUS, items=(*ITEMS, CorpusItem((905,), (1,)))), "corpus/id-range"),
        (replace(CORPUS, items=(*ITEMS, CorpusItem((904,), (905,)))), "corpus/id-range"),
        (replace(CORPUS, items=ITEMS[::-1]), "corpus/order"),
        (replace(CORPUS, items=(*ITEMS, ITEMS[-1])), "corpus/order"),
        (replace(CORPUS, items=(*ITEMS, replace(ITEMS[-1], answer=(904,)))), "corpus/order"),
    ],
)
def test_a_bad_corpus_is_refused(corpus: Corpus, code: str) -> None:
    assert refuse(corpus) == code


def test_the_manifest_decides() -> None:
    assert refuse(CORPUS, CONFIG.model) == "corpus/kind"
    assert refuse(CORPUS, name(CORPUS, questions_digest=bytes(32))) == "corpus/digest"
    with pytest.raises(Invalid, match="corpus/kind"):
        check_questions(read_lexicon("mini"), replace(CONFIG.model, corpus=True))


@pytest.mark.parametrize(
    "other",
    [
        replace(CORPUS, line_end=(14,)),
        replace(CORPUS, items=(replace(ITEMS[0], answer=(501,)), *ITEMS[1:])),
        replace(CORPUS, items=(CorpusItem(ITEMS[0].prompt[:1], ITEMS[0].prompt[1:] + ITEMS[0].answer), *ITEMS[1:])),
        replace(CORPUS, items=(*ITEMS, CorpusItem((904,), (1,)))),
    ],
)
def test_another_corpus_is_another_network(other: Corpus) -> None:
    check_corpus(other, name(other))
    assert len({compute_network_id(replace(CONFIG, model=name(c))) for c in (CORPUS, other)}) == 2
    assert compute_network_id(replace(CONFIG, model=name(CORPUS, corpus=False))) != compute_network_id(
        replace(CONFIG, model=name(CORPUS))
    )


def test_a_quiz_is_bos_salt_and_lines_of_the_corpus() -> None:
    config = replace(CONFIG, model=name(CORPUS))
    for n in range(50):
        seed = keccak256(uint64_le(n))
        quiz, drbg = generate_quiz(seed, get_rules(config, (), 0), CORPUS), Drbg(seed)
        assert quiz.salt == draw_salt(drbg, config.salt_tokens, config.model)
        assert list(quiz.items) == [ITEMS[drbg.below(len(ITEMS))] for _ in quiz.items]
        line = [token for item in quiz.items for token in (*item.prompt, *item.answer, 13)]
        whole = [config.model.bos_id, *quiz.salt, *line]
        assert list(quiz.tokens) == whole[: config.quiz_tokens]
        last = len(quiz.items[-1].prompt + quiz.items[-1].answer) + 1
        assert len(whole) - last < config.quiz_tokens <= len(whole)
        assert all(500 <= quiz.tokens[at] <= 502 for at in quiz.scored)  # answers, as there are always enough
        assert (quiz.questions, get_quiz_text(quiz)) == ((), "")


def test_every_item_is_equally_likely() -> None:
    few = replace(CORPUS, items=ITEMS[:5])
    config = replace(CONFIG, model=name(few))
    drawn = Counter(
        item
        for n in range(2000)
        for item in generate_quiz(keccak256(uint64_le(n)), get_rules(config, (), 0), few).items[:1]
    )
    assert len(drawn) == 5
    assert all(abs(count - 400) < 90 for count in drawn.values())  # five standard deviations


def test_the_longest_line_has_to_fit() -> None:
    long = replace(CORPUS, line_end=(13, 13), items=(*ITEMS, CorpusItem((904, 1, 2), tuple(range(20)))))
    assert compute_longest_item(long) == 25
    room = CONFIG.quiz_tokens - CONFIG.salt_tokens - 1
    assert room == 25
    check_longest_question(get_rules(CONFIG, (), 0), long)
    with pytest.raises(Invalid, match="quiz/question-too-long"):
        check_longest_question(get_rules(replace(CONFIG, quiz_tokens=31), (), 0), long)
