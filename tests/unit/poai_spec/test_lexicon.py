"""The lexicon: its pieces, its digest, and what a lexicon file may not say."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.proof import lexicon as page
from poai_spec.proof.lexicon import (
    PIECES,
    Lexicon,
    check_lexicon,
    compute_lexicon_digest,
    get_tokens,
    parse_lexicon,
    read_lexicon,
    split_pieces,
)
from poai_spec.basics.notation import Invalid, keccak256
from poai_spec.basics.parameters import Config

PINNED = {
    "smollm2-135m": "01e3d90b16a60cdd0e84f8cedd7690b33cef79abfaec8465717b61d5eb51d4be",
    "tinyllama-1.1b": "e2b8c8bcadaa429594818052567e985b6d7ecb200a128d4dca872b5e77605f04",
}


def test_pieces_are_distinct_and_each_splits_into_itself() -> None:
    assert len(set(PIECES)) == len(PIECES)
    assert all(split_pieces(piece) == (piece,) for piece in PIECES)


@given(st.lists(st.sampled_from([p for p in PIECES if not p[-1].isalpha() and p != " "]), max_size=12))
def test_split_gives_the_pieces_back_where_no_word_or_space_runs_on(pieces: list[str]) -> None:
    assert split_pieces("".join(pieces)) == tuple(pieces)


def test_words_belong_to_one_category_and_runs_of_lists_to_one_list() -> None:
    assert len(set(page.WORDS)) == len(page.WORDS)
    lists = [*page.SERIES, *(cycle + cycle[:2] for cycle in page.CYCLES)]
    runs = Counter(chain.from_iterable([items[i : i + 3] for i in range(len(items) - 2)] for items in lists))
    assert set(runs.values()) == {1}


def test_digest_is_over_lengths_texts_and_ids_in_order(plain_lexicon: Lexicon) -> None:
    data = b""
    for i, piece in enumerate(PIECES):
        data += len(piece).to_bytes(4, "little") + piece.encode() + b"\1\0\0\0" + (300 + i).to_bytes(4, "little")
    assert compute_lexicon_digest(plain_lexicon) == keccak256(keccak256(b"PoAI/lexicon/1") + data)


def test_digest_notices_a_moved_boundary(plain_lexicon: Lexicon) -> None:
    one = Lexicon({**plain_lexicon.ids, "\n": (1, 2), " ": (3,)})
    two = Lexicon({**plain_lexicon.ids, "\n": (1,), " ": (2, 3)})
    assert compute_lexicon_digest(one) != compute_lexicon_digest(two)


@pytest.mark.parametrize(("name", "digest"), PINNED.items())
def test_pinned_lexicons_read_and_keep_their_digest(name: str, digest: str) -> None:
    lexicon = read_lexicon(name)
    assert tuple(lexicon.ids) == PIECES
    assert compute_lexicon_digest(lexicon).hex() == digest


def test_tokens_of_a_text_are_those_of_its_pieces() -> None:
    lexicon = read_lexicon("smollm2-135m")
    assert get_tokens(lexicon, split_pieces("12 + 5")) == (33, 34, 1232, 216, 37)


def write(pieces: object, **changes: object) -> bytes:
    return json.dumps({"format": 1, "model": "x", "pieces": pieces} | changes).encode()


GOOD = {piece: [i] for i, piece in enumerate(PIECES)}
NESTED: list[object] = json.loads("[" * 14 + "]" * 14)
BAD_FILES = {
    "empty": (b"", "lexicon/not-json"),
    "not utf-8": (b'{"\xff": 1}', "lexicon/not-json"),
    "deep": (b"[" * 200_000, "lexicon/not-json"),
    "huge number": (b"9" * 10_000, "lexicon/keys"),
    "half a surrogate pair": (write(GOOD, model="\ud83d"), "lexicon/not-json"),
    "fault after a repeated key": (b'{"a":1,"a":NaN}', "lexicon/not-json"),
    "17 deep": (write({**GOOD, " yes": [NESTED]}), "lexicon/not-json"),
    "16 deep": (write({**GOOD, " yes": NESTED}), "lexicon/ids"),
    "brackets in a text": (write(GOOD, model="[" * 20 + '"\\', format=2), "lexicon/format"),
    "model a fraction": (write(GOOD, model=1.5), "lexicon/format"),
    "minus zero": (write(GOOD).replace(b'"\\n": [0]', b'"\\n": [-0]'), "lexicon/ids"),
    "zeros in front": (write(GOOD).replace(b'"\\n": [0]', b'"\\n": [00]'), "lexicon/not-json"),
    "same ids before no ids": (write({**GOOD, " no": GOOD[" yes"], " z": []}), "lexicon/ids"),
    "repeated piece": (write(GOOD).replace(b'"1": [3]', b'"0": [3]'), "lexicon/duplicate-key"),
    "a list": (b"[]", "lexicon/keys"),
    "key missing": (json.dumps({"format": 1, "pieces": GOOD}).encode(), "lexicon/keys"),
    "key unknown": (write(GOOD, extra=1), "lexicon/keys"),
    "format 2": (write(GOOD, format=2), "lexicon/format"),
    "format true": (write(GOOD, format=True), "lexicon/format"),
    "format 1.0": (write(GOOD, format=1.0), "lexicon/format"),
    "model no string": (write(GOOD, model=7), "lexicon/format"),
    "pieces a list": (write(list(GOOD)), "lexicon/format"),
    "unknown piece": (write({**GOOD, " purple": [7]}), "lexicon/unknown-piece"),
    "missing piece": (write({p: v for p, v in GOOD.items() if p != " yes"}), "lexicon/missing-piece"),
    "no ids": (write({**GOOD, " yes": []}), "lexicon/ids"),
    "ids a number": (write({**GOOD, " yes": 7}), "lexicon/ids"),
    "ids a text": (write({**GOOD, " yes": "7"}), "lexicon/ids"),
    "negative id": (write({**GOOD, " yes": [-1]}), "lexicon/ids"),
    "id of 33 bits": (write({**GOOD, " yes": [2**32]}), "lexicon/ids"),
    "boolean id": (write({**GOOD, " yes": [True]}), "lexicon/ids"),
    "fraction": (write({**GOOD, " yes": [1.0]}), "lexicon/ids"),
    "not a number": (write({**GOOD, " yes": [float("nan")]}), "lexicon/not-json"),
    "nested": (write({**GOOD, " yes": [[1]]}), "lexicon/ids"),
    "same ids": (write({**GOOD, " yes": [GOOD[" no"][0]]}), "lexicon/same-ids"),
}


@pytest.mark.parametrize(("data", "code"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_with_its_code(data: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_lexicon(data)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_good_file_reads_whatever_its_order() -> None:
    shuffled = dict(reversed(GOOD.items()))
    assert parse_lexicon(write(shuffled)) == parse_lexicon(write(GOOD))
    assert tuple(parse_lexicon(write(shuffled)).ids) == PIECES


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_refused_as_invalid(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse_lexicon(data)


def test_a_lexicon_must_be_the_models(make_network: Callable[..., Config], plain_lexicon: Lexicon) -> None:
    model = make_network("testnet", plain_lexicon).model
    check_lexicon(plain_lexicon, model)
    other = Lexicon({**plain_lexicon.ids, " yes": (7,)})
    outside = Lexicon({**plain_lexicon.ids, " yes": (model.vocabulary_size,)})
    for lexicon, code in ((other, "lexicon/digest"), (outside, "lexicon/id-range")):
        with pytest.raises(Invalid) as caught:
            check_lexicon(lexicon, model)
        assert caught.value.code == code
    check_lexicon(other, replace(model, questions_digest=compute_lexicon_digest(other)))
