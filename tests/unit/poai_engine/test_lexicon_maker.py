"""Making a lexicon: with small tokenizers that misbehave, and with the real ones where they are at hand."""

import builtins
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_engine.models.gguf_file import Vocabulary, get_salt_ranges
from poai_engine.models.lexicon_maker import (
    LexiconError,
    Tokenizer,
    format_lexicon,
    make_lexicon,
    make_lexicon_with,
    measure_natural_share,
    open_tokenizer,
)
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange, make_config
from poai_spec.proof.lexicon import PIECES, parse_lexicon, read_lexicon


def make_tokenizer(joined: Sequence[str] = (), lost: str = "") -> Tokenizer:
    """A greedy tokenizer over the pieces and `joined`, longest match first; it forgets the piece `lost`."""
    table = sorted({*PIECES, *joined, "0"}, key=len, reverse=True)

    def tokenise(text: str) -> list[int]:
        ids = []
        while text:
            i = next(i for i, token in enumerate(table) if text.startswith(token))
            ids += [] if table[i] == lost else [i]
            text = text[len(table[i]) :]
        return ids

    return Tokenizer(tokenise, lambda ids: "".join(table[i] for i in ids).encode())


def make_testnet() -> Config:
    return make_config(
        "testnet",
        ModelManifest(bytes(32), bytes(32), bytes(32), False, 1, 49152, False, 0, 1, 1, 1, (TokenRange(17, 49151),)),
    )


def test_a_well_behaved_tokenizer_gives_one_token_a_piece() -> None:
    tokenizer = make_tokenizer()
    lexicon = make_lexicon_with(tokenizer)
    assert {len(ids) for ids in lexicon.ids.values()} == {1}
    assert measure_natural_share(tokenizer, make_testnet(), lexicon, 30) == 1.0


@pytest.mark.slow
def test_a_tokenizer_that_joins_pieces_lowers_the_natural_share() -> None:
    tokenizer = make_tokenizer(joined=[" is older"])
    lexicon = make_lexicon_with(tokenizer)
    share = measure_natural_share(tokenizer, make_testnet(), lexicon, 200)
    assert 0.5 < share < 1


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (make_tokenizer(joined=["0 yes"]), "joins '0' with ' yes'"),
        (make_tokenizer(lost=" yes"), "do not turn back into ' yes'"),
        (Tokenizer(make_tokenizer().tokenise, lambda ids: b"?"), "do not turn back"),
        (Tokenizer(lambda text: [9] * len(text), lambda ids: b""), "do not turn back"),
    ],
    ids=["joined anchor", "nothing left", "other text", "length only"],
)
def test_a_tokenizer_without_faithful_ids_is_refused(tokenizer: Tokenizer, reason: str) -> None:
    with pytest.raises(LexiconError, match=reason) as caught:
        make_lexicon_with(tokenizer)
    assert "\n" not in str(caught.value)


def test_the_file_reads_back_and_has_one_piece_a_line() -> None:
    lexicon = make_lexicon_with(make_tokenizer())
    text = format_lexicon("x", lexicon)
    assert parse_lexicon(text.encode()) == lexicon
    assert len(text.splitlines()) == len(PIECES) + 6
    assert json.loads(text)["model"] == "x"


@pytest.mark.parametrize("name", ["smollm2-135m", "tinyllama-1.1b"])
def test_committed_files_are_written_by_the_tool(name: str) -> None:
    path = Path(__file__).parents[3] / "specs" / "manifests" / f"{name}.lexicon.json"
    assert path.read_text("utf-8") == format_lexicon(name, read_lexicon(name))


@given(st.lists(st.integers(0, 6), max_size=60))
def test_salt_ranges_hold_exactly_the_normal_tokens_and_never_touch(types: list[int]) -> None:
    ranges = get_salt_ranges(Vocabulary("llama", (b"",) * len(types), tuple(types), False, 0))
    assert [i for first, last in ranges for i in range(first, last + 1)] == [i for i, t in enumerate(types) if t == 1]
    assert all(first <= last for first, last in ranges)
    assert all(b[0] - a[1] > 1 for a, b in pairwise(ranges))


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_llama(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("llama_cpp"):
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_llama)
    with pytest.raises(LexiconError, match=r"pip install 'poai\[llama\]'"):
        make_lexicon(Path("model.gguf"))


@pytest.mark.llama
def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the extra `llama` is not installed")
    with pytest.raises(LexiconError, match=r"nowhere\.gguf") as caught:
        make_lexicon(tmp_path / "nowhere.gguf")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.llama
@pytest.mark.model
def test_the_committed_lexicon_is_what_smollm2s_own_tokenizer_says(smollm2_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the extra `llama` is not installed")
    tokenizer = open_tokenizer(smollm2_path)
    lexicon = read_lexicon("smollm2-135m")
    assert make_lexicon_with(tokenizer) == lexicon
    assert measure_natural_share(tokenizer, make_testnet(), lexicon, 500) == 1.0
