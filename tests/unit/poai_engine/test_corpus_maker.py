"""A corpus from text files: which lines are refused and how they are named, and what the good ones become."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from poai_engine.models import corpus_maker
from poai_engine.models.corpus_maker import CorpusError, Line, get_text, make_corpus, read_lines
from poai_engine.models.gguf_file import Vocabulary, read_vocabulary
from poai_engine.models.lexicon_maker import Tokenizer, open_tokenizer
from poai_spec.proof.corpus import check_questions
from tests.harness.corpus import make_corpus_manifest, write_corpus

GOOD = "".join(f"What comes after {n}?\t{n + 1}\n" for n in range(1000)).encode()


def write(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (folder / f"{name}.txt").write_bytes(data)
    return folder


def refuse(folder: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read_lines(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"no tab", "no tab between question and answer"),
        (b"a\tb\tc", "2 tabs"),
        (b"a\tb\t", "2 tabs"),
        (b"\tb", "empty question"),
        (b" \tb", "empty question"),
        (b"a\t", "empty answer"),
        (b"a \tb", "a space at an end of the question"),
        (b"a\t b", "a space at an end of the answer"),
        (b"a\xff\tb", "not UTF-8"),
        (b"\xed\xa0\x80\tb", "not UTF-8"),
        (b"a\0\tb", "control character U+0000 in the question"),
        (b"a\tb\x1b[2J", "control character U+001B in the answer"),
        ("\ufeffa\tb".encode(), "control character U+FEFF in the question"),
        ("a\u2028\tb".encode(), "a space at an end of the question"),
        ("a\u2028c\tb".encode(), "control character U+2028 in the question"),
        (b"a\rc\tb", "control character U+000D in the question"),
        (b"What comes after 7?\tnine", "asks the same as a.txt:8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, fault: str) -> None:
    folder = write(tmp_path, a=GOOD, b=b"one\ttwo\n\n" + line + b"\nthree\tfour\n")
    assert refuse(folder) == f"1 bad line, mend or remove it: b.txt:3: {fault}"


def test_several_bad_lines_are_named_at_once_but_not_without_end(tmp_path: Path) -> None:
    text = refuse(write(tmp_path, a=GOOD + b"x\n" * 3, z=b"y\n" * 9))
    assert text.startswith(
        "12 bad lines, mend or remove them: a.txt:1001: no tab between question and answer; a.txt:1002"
    )
    assert text.endswith("z.txt:7: no tab between question and answer; and 2 more")


@pytest.mark.parametrize("data", [GOOD[: GOOD.rindex(b"What")], b""])
def test_too_few_questions(tmp_path: Path, data: bytes) -> None:
    count = data.count(b"\n")
    assert refuse(write(tmp_path, a=data)).endswith(f"has {count} questions in its *.txt files; give it 1000 to 16384")


def test_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_maker, "MAX_CORPUS_ITEMS", 1000)
    assert len(read_lines(write(tmp_path, a=GOOD))) == 1000
    assert "has 1001 questions" in refuse(write(tmp_path, b=b"x\ty\n"))
    monkeypatch.setattr(corpus_maker, "MAX_TEXT_BYTES", len(GOOD))
    assert f"have over {len(GOOD)} bytes: give a smaller corpus" in refuse(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    assert "is no folder: give one that holds *.txt files" in refuse(tmp_path / "absent")
    (tmp_path / "file").write_bytes(GOOD)
    assert "is no folder" in refuse(tmp_path / "file")


def test_which_files_and_line_ends_count(tmp_path: Path) -> None:
    folder = write(tmp_path, a=GOOD.replace(b"\n", b"\r\n"), b=b"\n\r\nlast\tline")
    (folder / "notes.md").write_bytes(b"no question")
    (folder / ".hidden.txt").write_bytes(b"no question")
    (folder / "sub.txt").mkdir()
    lines = read_lines(folder)
    assert len(lines) == 1001
    assert lines[0] == Line("a.txt:1", "What comes after 0?", "1")
    assert lines[-1] == Line("b.txt:3", "last", "line")


LETTERS = Tokenizer(lambda text: list(text.encode()), bytes)
"""A tokenizer of one token a byte."""


def items(*lines: tuple[str, str]) -> list[Line]:
    return [Line(f"a.txt:{n}", *line) for n, line in enumerate(lines, 1)]


def test_prompts_ascend_whatever_the_order() -> None:
    lines = items(("b", "x"), ("a", "y"), ("ab", "z"))
    corpus = make_corpus(lines, LETTERS, 9)
    assert corpus.line_end == tuple(b"\n")
    assert [(bytes(item.prompt), bytes(item.answer)) for item in corpus.items] == [
        (b"a", b" y"), (b"ab", b" z"), (b"b", b" x")]  # fmt: skip
    assert make_corpus(lines[::-1], LETTERS, 9) == corpus


def test_a_line_that_is_too_long_is_named() -> None:
    lines = items(("abc", "de"), ("abcd", "de"))
    make_corpus(lines, LETTERS, 8)
    with pytest.raises(CorpusError, match=r"1 bad line, .*remove it: a\.txt:2: 8 tokens, a quiz has room for 7$"):
        make_corpus(lines, LETTERS, 7)


def test_a_line_that_the_tokenizer_does_not_keep_is_named() -> None:
    def lossy(text: str) -> list[int]:
        return list(text.replace("ü", "?").encode())

    def joining(text: str) -> list[int]:
        return [7, *text.encode()] if text.startswith("0;") else list(text.encode())

    for tokenise, bad, fault in (
        (lossy, "müde", "its tokens do not turn back into its text"),
        (joining, ";a", "the tokenizer joins its beginning with what stands before it"),
        (lambda text: list(text.replace("-", "").encode()), "-", "no tokens"),
    ):
        with pytest.raises(CorpusError, match=f"a.txt:2: {fault}$"):
            make_corpus(items(("fine", "x"), (bad, "x")), Tokenizer(tokenise, bytes), 99)


@pytest.mark.llama
def test_the_corpus_of_mini(tmp_path: Path, mini_path: Path) -> None:
    """Its own tokenizer, words that it has and bytes of those that it has not."""
    lines = read_lines(write_corpus(tmp_path))
    corpus = make_corpus(lines, open_tokenizer(mini_path), 60)
    check_questions(corpus, make_corpus_manifest("mini", corpus))
    vocabulary = read_vocabulary(mini_path)
    shown = {(get_text(vocabulary, item.prompt), get_text(vocabulary, item.answer)) for item in corpus.items}
    assert shown == {(line.question, f" {line.answer}") for line in lines}


@pytest.mark.llama
@pytest.mark.model
def test_the_corpus_of_smollm2(tmp_path: Path, smollm2_path: Path) -> None:
    lines = read_lines(write_corpus(tmp_path))
    corpus = make_corpus(lines, open_tokenizer(smollm2_path), 60)
    vocabulary = read_vocabulary(smollm2_path)
    shown = {(get_text(vocabulary, item.prompt), get_text(vocabulary, item.answer)) for item in corpus.items}
    assert shown == {(line.question, f" {line.answer}") for line in lines}
    assert make_corpus(lines[::-1], open_tokenizer(smollm2_path), 60) == corpus


def spell(model: str, tokens: Sequence[str], types: Sequence[int]) -> str:
    vocabulary = Vocabulary(model, tuple(token.encode() for token in tokens), tuple(types), False, 0)
    return get_text(vocabulary, range(len(tokens)))


def test_text_for_people() -> None:
    assert spell("gpt2", ["Ġna", "ÃŃ", "ve", "Ċ"], [1] * 4) == " naíve\n"
    assert spell("llama", ["\u2581na", "<0xC3>", "<0xAD>", "ve", "<s>"], [1, 6, 6, 1, 3]) == " naíve<s>"
    assert spell("llama", ["<0xC3>"], [6]) == "\ufffd"
