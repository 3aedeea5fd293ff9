"""Vectors of the page `lexicon`: reading a lexicon file, its digest, cutting a text, and the ids of its pieces."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poai_spec.proof.lexicon import (
    PIECES,
    check_lexicon,
    compute_lexicon_digest,
    get_tokens,
    parse_lexicon,
    split_pieces,
)
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.engines import LEXICONS, get_lexicon
from poai_tools.vectors.kinds import HASH32, TEXT, UINT32, Array, Hex, RecordKind, Text, require
from poai_tools.vectors.network import get_manifest
from poai_tools.vectors.records import MODEL_MANIFEST
from poai_tools.vectors.registry import Function, register

PIECE = Text(PIECES, "piece")
LEXICON_NAME = Text(LEXICONS)


def _check_lexicon(i: Mapping[str, Any]) -> dict[str, Any]:
    check_lexicon(get_lexicon(i["lexicon"]), i["model_manifest"])
    return {}


def _split_pieces_of(i: Mapping[str, Any]) -> dict[str, Any]:
    pieces = split_pieces(i["text"])
    require("".join(pieces) == i["text"], "text: not made of pieces")
    return {"pieces": pieces}


PARSE_LEXICON = register(
    Function(
        suite="lexicon",
        name="parse_lexicon",
        page="lexicon",
        summary="the digest of a lexicon file: `text` in UTF-8, followed by the bytes `tail`",
        input=RecordKind({"text": TEXT, "tail": Hex(64, exact=False)}),
        output=RecordKind({"digest": HASH32}),
        run=lambda i: {"digest": compute_lexicon_digest(parse_lexicon(i["text"].encode("utf-8") + i["tail"]))},
    )
)
CHECK_LEXICON = register(
    Function(
        suite="lexicon",
        name="check_lexicon",
        page="lexicon",
        summary="refuse a pinned lexicon that is not the one of a model manifest",
        input=RecordKind({"lexicon": LEXICON_NAME, "model_manifest": MODEL_MANIFEST}),
        output=RecordKind({}),
        run=_check_lexicon,
    )
)
SPLIT_PIECES = register(
    Function(
        suite="lexicon",
        name="split_pieces",
        page="lexicon",
        summary="the pieces of a text that is made of pieces",
        input=RecordKind({"text": TEXT}),
        output=RecordKind({"pieces": Array(TEXT)}),
        run=_split_pieces_of,
    )
)
GET_TOKENS = register(
    Function(
        suite="lexicon",
        name="get_tokens",
        page="lexicon",
        summary="the token ids of pieces, in a lexicon of specs/manifests",
        input=RecordKind({"lexicon": LEXICON_NAME, "pieces": Array(PIECE)}),
        output=RecordKind({"tokens": Array(UINT32)}),
        run=lambda i: {"tokens": get_tokens(get_lexicon(i["lexicon"]), i["pieces"])},
    )
)


TWO_RULES = ("two rules are broken", "a client that checks in another order gives another code")


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_parse_lexicon(), _check_lexicon_file(), _split_pieces(), _get_tokens()]


def _write(pieces: Any, **changes: Any) -> dict[str, Any]:
    text = json.dumps({"format": 1, "model": "x", "pieces": pieces} | changes, separators=(",", ":"))
    return {"text": text, "tail": b""}


def _parse_lexicon() -> CaseFile:
    table = {piece: [i] for i, piece in enumerate(PIECES)}
    plain = Case("plain", "piece n has the id n", _write(table))
    last = PIECES[-1]
    reverse = _write(dict(reversed(table.items())))
    long = _write(table | {last: [2**32 - 1, 0, 2**32 - 1], " ": [7, 7, 7]})
    text = json.dumps(json.loads(plain.input["text"]), indent="\t").replace("\n", "\r\n")
    spaced = {"text": f"\n {text} \n", "tail": b""}
    cases = [
        plain,
        Case("reversed", "the order of the file does not matter", reverse),
        Case("several-ids", "several ids a piece, the largest id", long),
        Case("white-space", "white space between the values", spaced),
        Case("escaped-key", "a key written with an escape is the same key", _replace(plain, '" yes"', '"\\u0020yes"')),
        Case("surrogate-pair", "a name with an escaped surrogate pair", _replace(plain, '"x"', '"\\ud83d\\ude00"')),
        Case("brackets-in-text", "brackets in a string do not nest", _replace(plain, '"x"', '"[[[[[[[[[\\"[[[[[[[[["')),
        Case("delete-in-text", "U+007F is no control character of JSON's", _replace(plain, '"x"', '"\x7f\u2028"')),
        Case("escapes", "every short escape, and one of a NUL", _replace(plain, '"x"', r'"\"\\\/\b\f\n\r\t\u0000"')),
        Case("escape-capitals", "hexadecimal digits in capitals", _replace(plain, '"\\n"', r'"\u000A"')),
        Case("shared-beginning", "one piece's ids begin another's", _write(table | {last: [0, 1]})),
    ]
    cases += [_make_bad(plain, *row) for row in _list_bad(table)]
    cases += [make_negative(PARSE_LEXICON, plain, *row, flags=("two-rules",)) for row in _list_twice_bad(table)]
    flags = {
        "two-rules": TWO_RULES,
        "strict": (
            "a number or a boolean that a lax parser takes for an unsigned integer",
            "a client that takes it reads a lexicon that others refuse",
        ),
    }
    return CaseFile(PARSE_LEXICON, "One table by hand, changed in one place.", tuple(cases), flags)


def _replace(base: Case, old: str, new: str) -> dict[str, Any]:
    """Return the input of a case with one part of its text replaced."""
    text = base.input["text"].replace(old, new)
    assert text != base.input["text"]
    return {"text": text, "tail": b""}


def _make_bad(base: Case, case_id: str, comment: str, values: Mapping[str, Any]) -> Case:
    flags = ("strict",) if case_id.startswith("strict-") else ()
    return make_negative(PARSE_LEXICON, base, case_id, comment, values, flags)


NOT_JSON = (
    ("list-comma", "a comma before the end of a list", "[0,]"),
    ("list-comma-first", "a comma at the beginning of a list", "[,0]"),
    ("number-dot", "no digit after the point", "1."),
    ("number-no-integer", "no digit before the point", ".5"),
    ("number-e", "no digit of an exponent", "1e"),
    ("number-e-sign", "a sign without an exponent", "1e+"),
    ("number-plus", "a number with a plus", "+1"),
    ("number-minus", "a minus without a number", "-"),
    ("number-minus-zero-digits", "a zero in front, after a minus", "-01"),
    ("number-hexadecimal", "a hexadecimal number", "0x1"),
    ("number-underscore", "an underscore between digits", "1_000"),
    ("number-arabic", "digits of another script", "\u0661"),
    ("word-infinity", "Infinity is no JSON", "Infinity"),
    ("word-true-capital", "True is no JSON", "True"),
    ("word-cut", "a word that is cut off", "nul"),
    ("word-undefined", "undefined is no JSON", "undefined"),
    ("comment", "a comment", "0/**/"),
    ("comment-line", "a comment to the end of a line", "0//\n"),
    ("form-feed", "a form feed is no white space", "\f0"),
    ("vertical-tab", "and neither is a vertical tab", "\v0"),
    ("line-separator", "nor U+2028", "\u20280"),
)
"""Name, comment, and what stands for an id."""
BAD_STRINGS = (
    ("string-tab", "a tab in a string", '"\t"'),
    ("string-newline", "a newline in a string", '"\n"'),
    ("string-nul", "a zero byte in a string", '"\0"'),
    ("string-unit-separator", "the last control character in a string", '"\x1f"'),
    ("escape-x", "an escape of other languages", r'"\x41"'),
    ("escape-v", "another one", r'"\v"'),
    ("escape-quote", "an escaped single quote", r'"\'"'),
    ("escape-capital-u", "an escape of eight digits", r'"\U00000041"'),
    ("escape-plus", "a plus among the digits of an escape", r'"\u+041"'),
    ("escape-underscore", "an underscore among them", r'"\u0_41"'),
    ("escape-space", "a space among them", r'"\u 041"'),
    ("escape-short", "an escape of three digits", r'"\u041"'),
    ("escape-newline", "an escaped newline", '"\\\n"'),
    ("low-surrogate", "the second half of a pair alone", r'"\udc00"'),
    ("two-high-surrogates", "two first halves", r'"\ud83d\ud83d"'),
    ("surrogates-reversed", "a pair in the wrong order", r'"\ude00\ud83d"'),
    ("surrogate-then-letter", "a first half and a letter", r'"\ud83da"'),
    ("string-open", "a string without an end", '"x'),
)
"""Name, comment, and what stands for the string "x"."""


def _insert(plain: str, token: str) -> str:
    """Return the text with a token in the place of the last id."""
    return plain.replace('" z":[237]', f'" z":[{token}]')


def _list_bad(table: dict[str, list[int]]) -> list[tuple[str, str, dict[str, Any]]]:
    good, plain = table, _write(table)["text"]
    shorter = {piece: ids for piece, ids in table.items() if piece != " yes"}
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("not-utf-8", "a byte that UTF-8 never has", {"tail": b"\xff"}),
        ("empty", "no bytes", {"text": ""}),
        ("cut-off", "the last brace is missing", {"text": plain[:-1]}),
        ("trailing-comma", "a comma before the last brace", {"text": plain[:-1] + ",}"}),
        ("two-values", "a second value after the first", {"text": plain + "{}"}),
        ("byte-order-mark", "U+FEFF in front", {"text": "\ufeff" + plain}),
        ("single-quotes", "no JSON strings", {"text": plain.replace('"', "'")}),
        ("leading-zero", "no JSON number", {"text": plain.replace('" z":[237]', '" z":[0237]')}),
        *((name, comment, {"text": _insert(plain, token)}) for name, comment, token in NOT_JSON),
        *((name, comment, {"text": plain.replace('"x"', string)}) for name, comment, string in BAD_STRINGS),
        ("nul-at-end", "a zero byte after the last brace", {"tail": b"\0"}),
        ("space-of-unicode", "a no-break space after the last brace", {"text": plain + "\u00a0"}),
        ("no-comma", "no comma between two members", {"text": plain.replace(',"model"', ' "model"')}),
        ("no-colon", "no colon after a key", {"text": plain.replace('"model":', '"model" ')}),
        ("two-commas", "two commas", {"text": plain.replace(',"model"', ',,"model"')}),
        ("bare-key", "a key without quotes", {"text": plain.replace('"model"', "model")}),
        ("number-key", "a number as key", {"text": plain.replace('"model"', "1")}),
        ("overlong-utf-8", "a slash in two bytes", {"text": "", "tail": b'"\xc0\xaf"'}),
        ("surrogate-utf-8", "a surrogate in three bytes", {"text": "", "tail": b'"\xed\xa0\x80"'}),
        ("above-unicode", "U+110000 in four bytes", {"text": "", "tail": b'"\xf4\x90\x80\x80"'}),
        (
            "repeated-deep",
            "a key twice in an object where ids are expected",
            {"text": plain.replace('"\\n":[0]', '"\\n":[{"a":1,"a":2}]')},
        ),
        (
            "repeated-above",
            "a key that two objects have is not repeated, but no id",
            {"text": plain.replace('"\\n":[0]', '"\\n":[{"a":1},{"a":2}]')},
        ),
        (
            "repeated-in-unknown",
            "a key twice below a key that the format has not",
            {"text": plain.replace('"format":1', '"extra":{"a":1,"a":1},"format":1')},
        ),
        ("eleven-digits", "an id of eleven digits", {"text": plain.replace('" z":[237]', '" z":[10000000000]')}),
        ("repeated-piece", "a piece twice, with the same ids", {"text": plain.replace('"1":[3]', '"1":[3],"1":[3]')}),
        ("repeated-key", "`format` twice", {"text": plain.replace('"format":1', '"format":1,"format":1')}),
        ("a-list", "a list where an object is expected", {"text": "[]"}),
        ("key-missing", "no `model`", {"text": plain.replace('"model":"x",', "")}),
        ("key-unknown", "a key that the format has not", _write(good, extra=1)),
        ("format-2", "another format", _write(good, format=2)),
        ("format-text", "the format as a string", _write(good, format="1")),
        ("strict-format-true", "true for 1", _write(good, format=True)),
        ("strict-format-fraction", "1.0 for 1", {"text": plain.replace('"format":1', '"format":1.0')}),
        ("model-number", "the model's name is a number", _write(good, model=7)),
        ("pieces-list", "the pieces are a list", _write(list(good))),
        ("unknown-piece", "a word that no question uses", _write({**good, " purple": [999]})),
        ("unknown-case", "a piece in capitals", _write({**shorter, " YES": good[" yes"]} | {" yes": [999]})),
        ("missing-piece", "one piece left out", _write(shorter)),
        ("no-ids", "an empty list of ids", _write({**good, " yes": []})),
        ("ids-number", "a number for a list", _write({**good, " yes": 999})),
        ("ids-nested", "a list in the list", _write({**good, " yes": [[999]]})),
        ("ids-text", "an id as a string", _write({**good, " yes": ["999"]})),
        ("ids-null", "no id", _write({**good, " yes": [None]})),
        ("negative-id", "below zero", _write({**good, " yes": [-1]})),
        ("id-of-33-bits", "2^32", _write({**good, " yes": [2**32]})),
        ("strict-boolean-id", "true for 1", _write({**good, " yes": [True]})),
        ("strict-fraction-id", "999.0", _write({**good, " yes": [999.0]})),
        ("strict-exponent-id", "1e3", {"text": plain.replace('" yes":[', '" yes":[1e3,')}),
        ("strict-minus-zero-id", "-0 for 0", {"text": plain.replace('"\\n":[0]', '"\\n":[-0]')}),
        ("strict-format-exponent", "1e0 for 1", {"text": plain.replace('"format":1', '"format":1e0')}),
        ("id-of-many-digits", "an id of 5,000 digits", {"text": plain.replace('" z":[237]', f'" z":[{"9" * 5000}]')}),
        ("not-a-number-id", "NaN is no JSON", {"text": plain.replace('" z":[237]', '" z":[NaN]')}),
        ("infinite-id", "-Infinity is no JSON", {"text": plain.replace('" z":[237]', '" z":[-Infinity]')}),
        ("sixteen-deep", "JSON as deep as it may be", {"text": plain.replace("[237]", "[" * 14 + "237" + "]" * 14)}),
        ("seventeen-deep", "one deeper", {"text": plain.replace("[237]", "[" * 15 + "237" + "]" * 15)}),
        ("hundred-thousand-deep", "deeper than a recursive parser's stack", {"text": "[" * 10**5}),
        ("half-a-pair", "half of a surrogate pair", {"text": plain.replace('"x"', '"\\ud83d"')}),
        (
            "escaped-repetition",
            "a piece twice, once with an escape",
            {"text": plain.replace('"1":[3]', '"1":[3],"\\u0031":[3]')},
        ),
        ("model-fraction", "the model's name is 1.5", {"text": plain.replace('"x"', "1.5")}),
        ("same-ids", "two pieces with equal ids", _write({**good, " yes": good[" no"]})),
    ]
    return rows


def _list_twice_bad(table: dict[str, list[int]]) -> list[tuple[str, str, dict[str, Any]]]:
    shorter = {piece: ids for piece, ids in table.items() if piece != " yes"}
    return [
        ("format-and-unknown", "another format, and a word too many", _write({**table, " purple": [999]}, format=2)),
        ("unknown-and-missing", "a word that no question uses in place of one", _write({**shorter, " purple": [999]})),
        (
            "repeated-and-cut-off",
            "`format` twice, and no end",
            {"text": _write(table)["text"].replace('"format":1', '"format":1,"format":1')[:-1]},
        ),
        (
            "repeated-and-key",
            "a piece twice, and no `model`",
            {"text": _write(table)["text"].replace('"model":"x",', "").replace('"1":[3]', '"1":[3],"1":[3]')},
        ),
        (
            "same-and-no-ids",
            "two pieces with equal ids, and a later one without",
            _write({**table, " no": table[" yes"], PIECES[-1]: []}),
        ),
        ("missing-and-no-ids", "one piece left out, another empty", _write({**shorter, " no": []})),
    ]


def _check_lexicon_file() -> CaseFile:
    bases = {
        name: Case(
            name.replace(".", "-"),
            "the pinned lexicon and manifest",
            {"lexicon": name, "model_manifest": get_manifest(name)},
        )
        for name in LEXICONS
    }
    cases = list(bases.values())
    mini = bases["mini"].input["model_manifest"]
    highest = max(token for ids in get_lexicon("mini").ids.values() for token in ids)
    other = replace(mini, questions_digest=bytes([mini.questions_digest[0] ^ 1]) + mini.questions_digest[1:])
    small = replace(mini, vocabulary_size=highest)
    cases += [
        make_negative(CHECK_LEXICON, bases["mini"], "id-outside", "one id fewer", {"model_manifest": small}),
        make_negative(CHECK_LEXICON, bases["mini"], "digest-bit", "one bit differs", {"model_manifest": other}),
        make_negative(CHECK_LEXICON, bases["mini"], "other-lexicon", "another model's lexicon", {
            "lexicon": "smollm2-135m",
            "model_manifest": replace(mini, vocabulary_size=49152),
        }),
        make_negative(CHECK_LEXICON, bases["mini"], "both", "an id outside, and another digest", {
            "model_manifest": replace(other, vocabulary_size=highest)
        }, ("two-rules",)),
    ]  # fmt: skip
    how = "The manifests of specs/manifests (a root that is not computed yet is 32 zeros), changed in one place."
    return CaseFile(CHECK_LEXICON, how, tuple(cases), {"two-rules": TWO_RULES})


def _split_pieces() -> CaseFile:
    texts = {
        "sum": "12 + 5 = 17\n",
        "division": "946 // 47 = 20\n",
        "remainder": "946 % 47 = 6\n",
        "product": "99 * 0 = 0\n",
        "difference": "623 - 573 = 50\n",
        "sequence": "3, 7, 11, 15\n",
        "syllogism": "All dogs are birds. No birds are cars. Are any dogs not cars? yes\n",
        "ordering": "Tom is older than Ben. Max is younger than Ben. Who is oldest? Tom\n",
        "odd-one": "Of cat, red, dog and cow the odd one is red\n",
        "step": "Three letters before z is w\n",
        "list": "Next: two, three, four, five\n",
        "prompt": "12 + 5 = ",
        "empty": "",
        "two-lines": "1 + 1 = 2\nOne day after Monday is Tuesday\n",
        "spaces": "  7  ",
    }
    cases = tuple(Case(name, "a text and its pieces", {"text": text}) for name, text in texts.items())
    return CaseFile(SPLIT_PIECES, "Chosen by hand.", cases)


def _get_tokens() -> CaseFile:
    cases = []
    for name in LEXICONS:
        slug = name.replace(".", "-")
        cases.append(Case(f"{slug}-all", "every piece, in order", {"lexicon": name, "pieces": PIECES}))
        pieces = derive("lexicon", f"{slug}-drawn").sample(PIECES, 20)
        cases.append(Case(f"{slug}-drawn", "20 pieces in random order", {"lexicon": name, "pieces": pieces}))
    cases.append(Case("none", "no piece", {"lexicon": "mini", "pieces": ()}))
    return CaseFile(GET_TOKENS, "`NAME-drawn` is sample(PIECES, 20) of the id's DRBG.", tuple(cases))
