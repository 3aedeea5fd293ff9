"""Vectors of the pages `questions`, `solvers` and `quiz`: questions, answers, tokens, scored positions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poai_spec.basics.containers import HeaderCore
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange, make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.questions import FAMILIES, SYLLOGISMS, Question, compute_longest_question, generate_question
from poai_spec.proof.quiz import (
    check_longest_question,
    compute_quiz_seed,
    draw_salt,
    generate_quiz,
    get_quiz_name,
    get_quiz_text,
    select_scored,
)
from poai_spec.proof.solvers import solve
from poai_tools.vectors.cases import Case, CaseFile, derive_seed
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.engines import LEXICONS, get_lexicon
from poai_tools.vectors.kinds import BOOLEAN, HASH32, TEXT, UINT32, Array, Integer, RecordKind, Text, require
from poai_tools.vectors.network import get_manifest, make_network, require_config
from poai_tools.vectors.records import HEADER_CORE, MODEL_MANIFEST, TOKEN_RANGE
from poai_tools.vectors.registry import Function, register

LENGTH = Integer(1, 2048)
LEXICON_NAME = Text(LEXICONS)


def _generate_question(i: Mapping[str, Any]) -> dict[str, Any]:
    question = generate_question(Drbg(i["seed"]))
    return {
        "family": question.family,
        "prompt": "".join(question.prompt),
        "answer": "".join(question.answer),
        "pieces": question.pieces,
    }


def _make_config(values: Mapping[str, Any]) -> Config:
    """Return a config with the numbers of an input; the rest does not matter to the function."""
    names = ("quiz_tokens", "salt_tokens", "scored_tokens")
    config = replace(make_network(), **{name: values[name] for name in names if name in values})
    return replace(config, model=values.get("model_manifest", config.model))


def _draw_salt(i: Mapping[str, Any]) -> dict[str, Any]:
    require(all(span.first <= span.last for span in i["salt_ranges"]), "salt_ranges: a range without ids")
    manifest = replace(make_network().model, salt_ranges=i["salt_ranges"])
    return {"salt": draw_salt(Drbg(i["seed"]), i["count"], manifest)}


def _select_scored(i: Mapping[str, Any]) -> dict[str, Any]:
    answers = list(i["answers"])
    require(answers == sorted(set(answers)), "answers: not ascending")
    require(i["scored_tokens"] < i["quiz_tokens"], "scored_tokens: as many as the quiz has")
    return {"scored": select_scored(answers, get_rules(_make_config(i), (), 0))}


def _generate_quiz(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(_make_config(i))
    quiz = generate_quiz(i["quiz_seed"], get_rules(_make_config(i), (), 0), get_lexicon(i["lexicon"]))
    return {
        "tokens": quiz.tokens,
        "scored": quiz.scored,
        "salt": quiz.salt,
        "name": get_quiz_name(quiz.salt),
        "text": get_quiz_text(quiz),
    }


def _check_longest_question(i: Mapping[str, Any]) -> dict[str, Any]:
    config, lexicon = _make_config(i), get_lexicon(i["lexicon"])
    check_longest_question(
        get_rules(replace(config, model=replace(config.model, add_bos=i["add_bos"])), (), 0), lexicon
    )
    return {"longest": compute_longest_question(lexicon)}


GENERATE_QUESTION = register(
    Function(
        suite="quiz",
        name="generate_question",
        page="questions",
        summary="the first question of a DRBG's stream",
        input=RecordKind({"seed": HASH32}),
        output=RecordKind({"family": Text(FAMILIES), "prompt": TEXT, "answer": TEXT, "pieces": Array(TEXT)}),
        run=_generate_question,
    )
)
SOLVE = register(
    Function(
        suite="quiz",
        name="solve",
        page="solvers",
        summary="the one answer of a prompt, with the space before a word",
        input=RecordKind({"prompt": TEXT}),
        output=RecordKind({"answer": TEXT}),
        run=lambda i: {"answer": "".join(solve((i["prompt"],)))},
    )
)
COMPUTE_QUIZ_SEED = register(
    Function(
        suite="quiz",
        name="compute_quiz_seed",
        page="quiz",
        summary="the quiz seed of a header core, from the network id and the epoch key",
        input=RecordKind({"network_id": HASH32, "epoch_key": HASH32, "core": HEADER_CORE}),
        output=RecordKind({"quiz_seed": HASH32}),
        run=lambda i: {"quiz_seed": compute_quiz_seed(i["network_id"], i["epoch_key"], i["core"])},
    )
)
DRAW_SALT = register(
    Function(
        suite="quiz",
        name="draw_salt",
        page="quiz",
        summary="the first `count` salt ids of a DRBG's stream",
        input=RecordKind({"seed": HASH32, "count": Integer(0, 2048), "salt_ranges": Array(TOKEN_RANGE, least=1)}),
        output=RecordKind({"salt": Array(UINT32)}),
        run=_draw_salt,
    )
)
SELECT_SCORED = register(
    Function(
        suite="quiz",
        name="select_scored",
        page="quiz",
        summary="the scored positions, from the positions of answer tokens (ascending)",
        input=RecordKind({"answers": Array(Integer(1, 4096)), "quiz_tokens": LENGTH, "scored_tokens": LENGTH}),
        output=RecordKind({"scored": Array(UINT32)}),
        run=_select_scored,
    )
)
GENERATE_QUIZ = register(
    Function(
        suite="quiz",
        name="generate_quiz",
        page="quiz",
        summary="the quiz of a seed: tokens, scored positions, salt and its name, and the text",
        input=RecordKind(
            {
                "quiz_seed": HASH32,
                "quiz_tokens": LENGTH,
                "salt_tokens": Integer(0, 2048),
                "scored_tokens": LENGTH,
                "model_manifest": MODEL_MANIFEST,
                "lexicon": LEXICON_NAME,
            }
        ),
        output=RecordKind(
            {"tokens": Array(UINT32), "scored": Array(UINT32), "salt": Array(UINT32), "name": TEXT, "text": TEXT}
        ),
        run=_generate_quiz,
    )
)
CHECK_LONGEST_QUESTION = register(
    Function(
        suite="quiz",
        name="check_longest_question",
        page="quiz",
        summary="the most tokens that a question can take; refuse quizzes without room for it",
        input=RecordKind(
            {"quiz_tokens": LENGTH, "salt_tokens": Integer(0, 2048), "add_bos": BOOLEAN, "lexicon": LEXICON_NAME}
        ),
        output=RecordKind({"longest": UINT32}),
        run=_check_longest_question,
    )
)


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [
        _generate_question_file(),
        _solve_file(),
        _quiz_seed_file(),
        _salt_file(),
        _scored_file(),
        _generate_quiz_file(),
        _longest_question_file(),
    ]


def _list_questions() -> dict[str, tuple[bytes, Question]]:
    """Return (seed, question) of many streams: four of each family, and each form of syllogism."""
    found: dict[str, tuple[bytes, Question]] = {}
    counts = dict.fromkeys(FAMILIES, 0)
    forms = {_strip(form) for rows in SYLLOGISMS.values() for form in rows}
    counter = 0
    while min(counts.values()) < 4 or forms:
        seed = derive_seed("quiz", f"question/{counter}")
        question = generate_question(Drbg(seed))
        counter += 1
        form = _strip("".join(question.prompt)) if question.family == "syllogism" else ""
        if counts[question.family] < 4 or form in forms:
            forms.discard(form)
            name = f"{question.family.replace('_', '-')}-{counts[question.family]}"
            counts[question.family] += 1
            found[name] = (seed, question)
    return dict(sorted(found.items(), key=lambda item: (FAMILIES.index(item[1][1].family), len(item[0]), item[0])))


def _strip(form: str) -> str:
    """Return a syllogism with its classes replaced by the order in which they occur."""
    frame = {"All", "Some", "No", "Are", "are", "all", "any", "not"}
    names: dict[str, str] = {}
    words = form.replace(".", " .").replace("?", " ?").split()
    kept = {*frame, ".", "?"}
    return " ".join(word if word in kept else names.setdefault(word, f"#{len(names)}") for word in words)


def _generate_question_file() -> CaseFile:
    cases = tuple(Case(name, q.text, {"seed": seed}) for name, (seed, q) in _list_questions().items())
    how = "Seeds are Keccak(Keccak('PoAI/vectors/1') || 'quiz/question/' || counter), the first that give each family."
    return CaseFile(GENERATE_QUESTION, how, cases)


def _solve_file() -> CaseFile:
    cases = [
        Case(name, f"a question of the family {question.family}", {"prompt": "".join(question.prompt)})
        for name, (_, question) in _list_questions().items()
    ]
    cases += [Case(name, comment, {"prompt": prompt}) for name, (prompt, comment) in MORE_PROMPTS.items()]
    by_id = {case.id: case for case in cases}
    for base, name, prompt, comment in BAD_PROMPTS:
        cases.append(make_negative(SOLVE, by_id[base], name, comment, {"prompt": prompt}, ("wording",)))
    wording = ("a prompt that no generator makes", "a client that reads it loosely accepts what has no one answer")
    how = "The prompts of generate_question, and prompts by hand."
    return CaseFile(SOLVE, how, tuple(cases), {"wording": wording})


MORE_PROMPTS = {
    "equal-terms": ("7, 7, 7, ", "difference 0 and ratio 1 agree"),
    "zeros": ("0, 0, 0, ", "no ratio, difference 0"),
    "largest-sum": ("9999 + 9999 = ", "four digits are the most"),
    "zero-difference": ("5 - 5 = ", "not negative"),
    "below-zero": ("9, 5, 1, ", "the next term is -3, though a result of `-` may not be negative"),
    "no-step": ("9, 6, 3, ", "a falling sequence"),
    "same-word": ("Of cat, cat and dog the first in the alphabet is", "a word twice is one answer"),
    "same-relation": ("Tom is older than Ben. Tom is older than Ben. Who is oldest?", "told twice"),
    "december": ("One month after December is", "a cycle"),
    "sunday-back": ("Three days before Monday is", "a cycle"),
    "over-the-end": ("Next: Saturday, Sunday, Monday,", "a cycle"),
}
BAD_PROMPTS = (
    ("zero-difference", "negative", "5 - 6 = ", "no answer: negative numbers are not asked"),
    ("division-0", "by-zero", "5 // 0 = ", "no answer"),
    ("modulo-0", "modulo-zero", "5 % 0 = ", "no answer"),
    ("largest-sum", "five-digits", "10000 + 1 = ", "numbers have at most four digits"),
    ("largest-sum", "leading-zero", "01 + 1 = ", "no number begins with a zero but 0"),
    ("largest-sum", "no-space-at-end", "1 + 1 =", "the space belongs to the prompt"),
    ("largest-sum", "newline-at-end", "1 + 1 = \n", "one character too many"),
    ("largest-sum", "empty", "", "no text"),
    ("largest-sum", "other-digits", "\u0661 + 1 = ", "digits are 0 to 9"),
    ("equal-terms", "no-rule", "1, 2, 5, ", "neither a difference nor a ratio"),
    ("equal-terms", "fraction", "4, 6, 9, ", "a ratio that is no integer"),
    ("ordering-0", "open-order", "Tom is older than Ben. Max is older than Ben. Who is oldest?", "two can be"),
    ("ordering-0", "contradiction", "Tom is older than Ben. Ben is older than Tom. Who is oldest?", "nobody can be"),
    ("ordering-0", "of-oneself", "Tom is older than Tom. Tom is older than Ben. Who is oldest?", "nobody can be"),
    ("ordering-0", "two-scales", "Tom is older than Ben. Ben is taller than Max. Who is oldest?", "another scale"),
    ("ordering-0", "comma", "Tom is older than Ben, Ben is older than Max. Who is oldest?", "a comma for a stop"),
    ("syllogism-0", "open-conclusion", "Some dogs are birds. Some birds are cars. Are any dogs cars?", "yes and no"),
    ("syllogism-0", "no-model", "All dogs are birds. No dogs are birds. Are all dogs birds?", "false premises"),
    ("syllogism-0", "four-classes", "All dogs are birds. All cars are boats. Are all dogs birds?", "three at most"),
    ("odd-one-out-0", "no-odd", "Of cat, dog, cow and bear the odd one is", "all of one category"),
    ("odd-one-out-0", "two-pairs", "Of cat, dog, red and blue the odd one is", "two and two"),
    ("alphabetical-order-0", "capital-unread", "of cat, red and dog the first in the alphabet is", "a small letter"),
    ("days-0", "no-day", "One day after May is", "a month is no day"),
    ("days-0", "plural-one", "One days after Monday is", "one day"),
    ("days-0", "singular-two", "Two day after Monday is", "two days"),
    ("days-0", "four-days", "Four days after Monday is", "counts to three"),
    ("letters-0", "past-z", "Two letters after y is", "letters are no cycle"),
    ("letters-0", "before-a", "One letter before a is", "letters are no cycle"),
    ("word-list-0", "end-of-series", "Next: Saturn, Uranus, Neptune,", "planets are no cycle"),
    ("word-list-0", "no-list", "Next: one, three, five,", "not in a row"),
)


def _quiz_seed_file() -> CaseFile:
    base = HeaderCore(
        version=1,
        height=5,
        parent_hash=b"\x22" * 32,
        timestamp=1_767_225_605_000,
        target=2**255,
        miner=b"\x33" * 20,
        body_root=b"\x44" * 32,
        state_root=b"\x55" * 32,
        nonce=7,
    )
    changes: dict[str, dict[str, Any]] = {
        "base": {},
        "version": {"version": 2},
        "height": {"height": 6},
        "parent-hash": {"parent_hash": bytes.fromhex("23" * 32)},
        "timestamp": {"timestamp": base.timestamp + 1},
        "target": {"target": base.target - 1},
        "miner": {"miner": bytes(20)},
        "body-root": {"body_root": bytes(32)},
        "state-root": {"state_root": bytes(32)},
        "nonce": {"nonce": 2**64 - 1},
        "largest": {"height": 2**64 - 1, "timestamp": 2**64 - 1, "target": 2**256 - 1, "nonce": 2**64 - 1},
    }
    network, key = derive_seed("quiz", "seed/network-id"), derive_seed("quiz", "seed/epoch-key")
    cases = [
        Case(
            name, "every field changes the seed", {"network_id": network, "epoch_key": key, "core": replace(base, **c)}
        )
        for name, c in changes.items()
    ]
    cases.append(Case("other-network", "another id", {"network_id": bytes(32), "epoch_key": key, "core": base}))
    cases.append(Case("other-epoch", "another key", {"network_id": network, "epoch_key": bytes(32), "core": base}))
    how = "By hand; id and key are Keccak(Keccak('PoAI/vectors/1') || 'quiz/seed/network-id' and '.../epoch-key')."
    return CaseFile(COMPUTE_QUIZ_SEED, how, tuple(cases))


def _salt_file() -> CaseFile:
    ranges = {
        "one-range": [(259, 904)],
        "one-id": [(5, 5)],
        "three-ranges": [(3, 4), (6, 6), (10, 13)],
        "large": [(17, 49151)],
        "many": [(10 * n, 10 * n + n % 7) for n in range(40)],
    }
    cases = []
    for name, spans in ranges.items():
        salt_ranges = tuple(TokenRange(first, last) for first, last in spans)
        values = {"seed": derive_seed("quiz", f"salt/{name}"), "count": 12, "salt_ranges": salt_ranges}
        cases.append(Case(name, f"{len(spans)} ranges", values))
    how = "Ranges by hand; seeds are Keccak(Keccak('PoAI/vectors/1') || 'quiz/salt/' || id)."
    return CaseFile(DRAW_SALT, how, tuple(cases))


def _scored_file() -> CaseFile:
    rows: dict[str, tuple[list[int], int, int]] = {
        "enough": ([12, 13, 20, 21, 30], 32, 4),
        "exactly": ([12, 13, 20, 21], 32, 4),
        "too-few": ([12, 13], 32, 4),
        "none": ([], 32, 4),
        "last-is-answer": ([12, 31], 32, 4),
        "run-at-the-end": ([29, 30, 31], 32, 5),
        "cut-off": ([12, 31, 32, 33], 32, 3),
        "all-cut-off": ([32, 33, 40], 32, 2),
        "first-at-the-edge": ([32], 32, 1),
        "one": ([9, 10], 64, 1),
        "eight": ([14, 15, 25, 40, 41, 42, 55, 56, 62], 64, 8),
    }
    few = ("fewer answers than scored positions", "a client that pads otherwise scores other tokens")
    cut = ("answers behind the end of the sequence", "a client that counts them scores too few positions")
    cases = []
    for name, (answers, quiz, scored) in rows.items():
        inside = [a for a in answers if a < quiz]
        flags = ("few",) * (len(inside) < scored) + ("cut",) * (len(inside) < len(answers))
        values = {"answers": answers, "quiz_tokens": quiz, "scored_tokens": scored}
        cases.append(Case(name, f"{len(inside)} answers, {scored} scored", values, flags))
    return CaseFile(SELECT_SCORED, "Chosen by hand.", tuple(cases), {"few": few, "cut": cut})


NETWORKS = {"minimal": "mini", "testnet": "smollm2-135m", "mainnet": "tinyllama-1.1b"}


def _generate_quiz_file() -> CaseFile:
    cases = [
        _quiz_case(f"{preset}-{n}", f"the numbers of {preset}", make_config(preset, get_manifest(model)), model)
        for preset, model in NETWORKS.items()
        for n in range(6)
    ]
    small = make_config("minimal", get_manifest("mini"))
    no_bos: ModelManifest = replace(small.model, add_bos=False, bos_id=0)
    variants = {
        "no-bos": replace(small, model=no_bos),
        "no-salt": replace(small, salt_tokens=0),
        "many-scored": replace(small, scored_tokens=24),
        "long": replace(small, quiz_tokens=300, salt_tokens=20, scored_tokens=100),
    }
    for name, config in variants.items():
        cases += [_quiz_case(f"{name}-{n}", f"minimal, {name}", config, "mini") for n in range(2)]
    several = make_config("testnet", get_manifest("tinyllama-1.1b"))
    cases += [_quiz_case(f"several-ids-{n}", "pieces of several ids", several, "tinyllama-1.1b") for n in range(2)]
    how = "Seeds are Keccak(Keccak('PoAI/vectors/1') || 'quiz/quiz/' || id); numbers and manifests of presets, changed."
    return CaseFile(GENERATE_QUIZ, how, tuple(cases))


def _quiz_case(case_id: str, comment: str, config: Config, lexicon: str) -> Case:
    values = {
        "quiz_seed": derive_seed("quiz", f"quiz/{case_id}"),
        "quiz_tokens": config.quiz_tokens,
        "salt_tokens": config.salt_tokens,
        "scored_tokens": config.scored_tokens,
        "model_manifest": config.model,
        "lexicon": lexicon,
    }
    return Case(case_id, comment, values)


def _longest_question_file() -> CaseFile:
    cases = []
    for name in LEXICONS:
        longest = compute_longest_question(get_lexicon(name))
        for bos in (False, True):
            suffix = "bos" if bos else "no-bos"
            tokens, case_id = longest + 6 + bos, f"{name.replace('.', '-')}-{suffix}"
            values = {"quiz_tokens": tokens, "salt_tokens": 6, "add_bos": bos, "lexicon": name}
            base = Case(case_id, f"{longest} tokens just fit", values, ("boundary",))
            short, changes = f"{case_id}-short", {"quiz_tokens": tokens - 1}
            bad = make_negative(CHECK_LONGEST_QUESTION, base, short, "one token fewer", changes, ("boundary",))
            cases += [base, bad]
    boundary = (
        "the longest question just fits, or just does not",
        "a client that forgets BOS or newline is off by one",
    )
    return CaseFile(CHECK_LONGEST_QUESTION, "Chosen by hand.", tuple(cases), {"boundary": boundary})
