"""Vectors of the page `corpus`: digests, what is refused, and quizzes that draw from a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import uint32_le
from poai_spec.basics.parameters import Config, ModelManifest, make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.corpus import (
    Corpus,
    CorpusItem,
    check_questions,
    compute_corpus_digest,
    compute_longest_item,
)
from poai_spec.proof.quiz import check_longest_question, generate_quiz
from poai_tools.vectors.cases import Case, CaseFile, derive_seed
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.engines import get_lexicon
from poai_tools.vectors.kinds import BOOLEAN, HASH32, UINT32, Array, Hex, Integer, OneOf, RecordKind, require
from poai_tools.vectors.network import get_manifest, make_network, require_config
from poai_tools.vectors.records import MODEL_MANIFEST
from poai_tools.vectors.registry import Function, register
from poai_tools.vectors.suites.quiz import LENGTH, LEXICON_NAME

SUITE = "corpus"
DATA = Hex(2**16, exact=False)
"""A corpus file."""


def _read(data: bytes) -> Corpus:
    """Decode a corpus for a function that assumes a checked one."""
    corpus = decode(Corpus, data)
    full = corpus.items and corpus.line_end and all(item.prompt and item.answer for item in corpus.items)
    require(bool(full), "corpus: no items, or a part without tokens")
    return corpus


def _check_questions(i: Mapping[str, Any]) -> dict[str, Any]:
    kind, value = i["source"]
    check_questions(decode(Corpus, value) if kind == "corpus" else get_lexicon(value), i["model_manifest"])
    return {}


def _make_config(i: Mapping[str, Any], model: ModelManifest) -> Config:
    numbers = {key: i[key] for key in ("quiz_tokens", "salt_tokens", "scored_tokens") if key in i}
    return replace(make_network(), model=model, **numbers)


def _generate_quiz(i: Mapping[str, Any]) -> dict[str, Any]:
    config = _make_config(i, i["model_manifest"])
    require_config(config)
    quiz = generate_quiz(i["quiz_seed"], get_rules(config, (), 0), _read(i["corpus"]))
    return {"tokens": quiz.tokens, "scored": quiz.scored, "salt": quiz.salt, "items": quiz.items}


def _check_longest(i: Mapping[str, Any]) -> dict[str, Any]:
    corpus = _read(i["corpus"])
    check_longest_question(
        get_rules(_make_config(i, replace(make_network().model, add_bos=i["add_bos"])), (), 0), corpus
    )
    return {"longest": compute_longest_item(corpus)}


COMPUTE_CORPUS_DIGEST = register(
    Function(
        suite=SUITE,
        name="compute_corpus_digest",
        page="corpus",
        summary="the digest of a corpus file, the SSZ of a Corpus",
        input=RecordKind({"corpus": DATA}),
        output=RecordKind({"digest": HASH32}),
        run=lambda i: {"digest": compute_corpus_digest(decode(Corpus, i["corpus"]))},
    )
)
CHECK_QUESTIONS = register(
    Function(
        suite=SUITE,
        name="check_questions",
        page="corpus",
        summary="refuse a corpus file, or a pinned lexicon, that is not the one of a model manifest",
        input=RecordKind(
            {"source": OneOf({"corpus": DATA, "lexicon": LEXICON_NAME}), "model_manifest": MODEL_MANIFEST}
        ),
        output=RecordKind({}),
        run=_check_questions,
    )
)
GENERATE_QUIZ = register(
    Function(
        suite=SUITE,
        name="generate_quiz",
        page="quiz",
        summary="the quiz of a seed with a corpus's questions: tokens, scored positions, salt and the items drawn",
        input=RecordKind(
            {
                "quiz_seed": HASH32,
                "quiz_tokens": LENGTH,
                "salt_tokens": Integer(0, 2048),
                "scored_tokens": LENGTH,
                "model_manifest": MODEL_MANIFEST,
                "corpus": DATA,
            }
        ),
        output=RecordKind(
            {
                "tokens": Array(UINT32),
                "scored": Array(UINT32),
                "salt": Array(UINT32),
                "items": Array(RecordKind({"prompt": Array(UINT32), "answer": Array(UINT32)})),
            }
        ),
        run=lambda i: _show_items(_generate_quiz(i)),
    )
)
CHECK_LONGEST_QUESTION = register(
    Function(
        suite=SUITE,
        name="check_longest_question",
        page="quiz",
        summary="the tokens of a corpus's longest line; refuse quizzes without room for it",
        input=RecordKind({"quiz_tokens": LENGTH, "salt_tokens": Integer(0, 2048), "add_bos": BOOLEAN, "corpus": DATA}),
        output=RecordKind({"longest": UINT32}),
        run=_check_longest,
    )
)


def _show_items(output: dict[str, Any]) -> dict[str, Any]:
    return output | {"items": [vars(item) for item in output["items"]]}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_digests(), _checks(), _quizzes(), _longest()]


PAGE = Corpus((13,), (CorpusItem((5, 6), (7,)), CorpusItem((5, 6, 2), (8, 9))))
SMALL = Corpus(
    (3, 4),
    tuple(CorpusItem((n, 256 + n, n), tuple(range(500, 501 + n % 3))) for n in range(9)),
)


def _make_large(count: int = 1000) -> Corpus:
    """Return a corpus of short items whose prompts begin others, and whose ids pass a byte."""
    prompts = sorted({(a, *rest) for a in range(1, 904, 43) for rest in ((), *((b,) for b in range(0, 900, 17)))})
    items = tuple(CorpusItem(prompt, (n % 905,)) for n, prompt in enumerate(prompts[:count]))
    assert len(items) == count
    return Corpus((904,), items)


def _digests() -> CaseFile:
    data = encode(PAGE)
    bases = {
        "page": ("the example of the page", PAGE),
        "nine": ("nine items", SMALL),
        "no-items": ("decodes; only check_questions refuses it", Corpus((1,), ())),
        "empty-parts": ("decodes; only check_questions refuses it", Corpus((), (CorpusItem((), ()),))),
    }
    cases = {name: Case(name, comment, {"corpus": encode(value)}) for name, (comment, value) in bases.items()}
    bad = {
        "no-bytes": ("no bytes", b""),
        "cut-off": ("the last byte is missing", data[:-1]),
        "one-more": ("one byte too many", data + b"\0"),
        "offset": ("the items begin one byte early", data[:4] + uint32_le(11) + data[8:]),
        "gap": ("four bytes behind the offsets", uint32_le(12) + uint32_le(16) + bytes(4) + data[8:]),
        "long-prompt": ("2,049 ids", encode_long(2049)),
    }  # fmt: skip
    cases["longest-prompt"] = Case("longest-prompt", "2,048 ids", {"corpus": encode_long(2048)})
    negative = [
        make_negative(COMPUTE_CORPUS_DIGEST, base, name, comment, {"corpus": changed})
        for name, (comment, changed) in bad.items()
        for base in [cases["longest-prompt" if name == "long-prompt" else "page"]]
    ]  # fmt: skip
    return CaseFile(COMPUTE_CORPUS_DIGEST, "Chosen by hand.", (*cases.values(), *negative))


def encode_long(count: int) -> bytes:
    """Return the SSZ of a corpus with one prompt of `count` ids, also where that is more than the type allows."""
    item = b"".join(map(uint32_le, (8, 8 + 4 * count, *[7] * count, 9)))
    return b"".join(map(uint32_le, (8, 12, 1, 4))) + item


def _manifest(source: Corpus, /, **changes: Any) -> ModelManifest:
    values: dict[str, Any] = {"corpus": True, "questions_digest": compute_corpus_digest(source)} | changes
    return replace(get_manifest("mini"), **values)


def _source(source: Corpus, /, **changes: Any) -> dict[str, Any]:
    return {"source": ("corpus", encode(source)), "model_manifest": _manifest(source, **changes)}


def _replace_items(corpus: Corpus, at: int, *items: CorpusItem) -> Corpus:
    return replace(corpus, items=(*corpus.items[:at], *items, *corpus.items[at + len(items) :]))


def _swap(corpus: Corpus, at: int) -> Corpus:
    return _replace_items(corpus, at, *reversed(corpus.items[at : at + 2]))


def _checks() -> CaseFile:
    large = _make_large()
    base = Case("thousand", "the fewest items, some prompts beginning others", _source(large))
    mini = {"source": ("lexicon", "mini"), "model_manifest": get_manifest("mini")}
    lexicon = Case("lexicon", "a lexicon where the manifest says so", mini)
    item, digest = large.items[500], compute_corpus_digest(large)
    changed: dict[str, tuple[str, dict[str, Any]]] = {
        "few": ("999 items", _source(_make_large(999))),
        "no-prompt": ("the first prompt is empty", _source(_replace_items(large, 0, CorpusItem((), (1,))))),
        "no-answer": ("an answer is empty", _source(_replace_items(large, 500, replace(item, answer=())))),
        "no-line-end": ("no line end", _source(replace(large, line_end=()))),
        "prompt-id": ("an id is the vocabulary's size", _source(
            _replace_items(large, 999, CorpusItem((905,), (1,))))),
        "answer-id": ("an id is the vocabulary's size", _source(
            _replace_items(large, 500, replace(item, answer=(1, 905))))),
        "line-end-id": ("an id is the vocabulary's size", _source(replace(large, line_end=(905,)))),
        "swapped": ("two items exchanged", _source(_swap(large, 500))),
        "swapped-first": ("the first two: a prompt behind one that it begins", _source(_swap(large, 0))),
        "swapped-last": ("the last two items exchanged", _source(_swap(large, 998))),
        "repeated": ("a prompt twice, with two answers", _source(
            _replace_items(large, 501, replace(item, answer=(1, 2))))),
        "digest": ("one bit of the digest", _source(large, questions_digest=bytes([digest[0] ^ 1]) + digest[1:])),
        "manifest-of-lexicon": ("a corpus where the manifest says lexicon", _source(large, corpus=False)),
    }  # fmt: skip
    twice: dict[str, tuple[str, dict[str, Any]]] = {
        "kind-and-few": ("999 items, and the manifest says lexicon", _source(_make_large(999), corpus=False)),
        "few-and-empty": ("999 items without a line end", _source(replace(_make_large(999), line_end=()))),
        "empty-and-id": ("no line end, and an id outside", _source(replace(large, line_end=()), vocabulary_size=904)),
        "id-and-order": ("an id outside, and two items exchanged", _source(_swap(large, 5), vocabulary_size=904)),
        "order-and-digest": ("two items exchanged, and another digest", _source(
            _swap(large, 5), questions_digest=digest)),
    }  # fmt: skip
    kind = {"model_manifest": replace(get_manifest("mini"), corpus=True)}
    cases = [
        base, lexicon,
        *(make_negative(CHECK_QUESTIONS, base, name, *row) for name, row in changed.items()),
        make_negative(CHECK_QUESTIONS, lexicon, "manifest-of-corpus", "a lexicon where it says corpus", kind),
        *(make_negative(CHECK_QUESTIONS, base, name, *row, ("two-rules",)) for name, row in twice.items()),
    ]  # fmt: skip
    two = ("two rules are broken", "a client that checks in another order gives another code")
    how = "Prompts (a) and (a, b) in order, a from 1 in steps of 43, b from 0 in steps of 17; answers count up."
    return CaseFile(CHECK_QUESTIONS, how, tuple(cases), {"two-rules": two})


def _quizzes() -> CaseFile:
    small = make_config("minimal", get_manifest("mini"))
    rows: Sequence[tuple[str, str, Corpus, Config]] = (
        ("nine", "nine items", SMALL, small),
        ("page", "two items", PAGE, small),
        ("long", "nine items, a long quiz", SMALL, replace(small, quiz_tokens=200, scored_tokens=40)),
        ("no-bos", "without BOS and salt", SMALL,
         replace(small, salt_tokens=0, model=replace(small.model, add_bos=False, bos_id=0))),
    )  # fmt: skip
    cases = [
        Case(f"{name}-{n}", comment, {
            "quiz_seed": derive_seed(SUITE, f"quiz/{name}-{n}"), "quiz_tokens": config.quiz_tokens,
            "salt_tokens": config.salt_tokens, "scored_tokens": config.scored_tokens, "model_manifest": config.model,
            "corpus": encode(corpus),
        })
        for name, comment, corpus, config in rows
        for n in range(3)
    ]  # fmt: skip
    how = "Seeds are Keccak(Keccak('PoAI/vectors/1') || 'corpus/quiz/' || id); so few items make no network."
    return CaseFile(GENERATE_QUIZ, how, tuple(cases))


def _longest() -> CaseFile:
    cases = []
    for name, corpus in (("page", PAGE), ("nine", SMALL)):
        longest = compute_longest_item(corpus)
        for bos in (False, True):
            tokens = longest + 6 + bos
            values = {"quiz_tokens": tokens, "salt_tokens": 6, "add_bos": bos, "corpus": encode(corpus)}
            base = Case(f"{name}-{'bos' if bos else 'no-bos'}", f"{longest} tokens just fit", values)
            short = {"quiz_tokens": tokens - 1}
            cases += [base, make_negative(CHECK_LONGEST_QUESTION, base, f"{base.id}-short", "one token fewer", short)]
    return CaseFile(CHECK_LONGEST_QUESTION, "Chosen by hand.", tuple(cases))
