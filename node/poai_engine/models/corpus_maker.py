"""Make a test corpus from text files: once, when a network is founded; nothing here takes part in consensus.

A folder's `*.txt` files hold a line `question<TAB>answer` each, in UTF-8. Exports: `read_lines`, `make_corpus`,
`get_text`. Every bad line is named with its file and number, several in one message.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf.vocab import bytes_to_unicode

from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import BYTE, Vocabulary
from poai_engine.models.lexicon_maker import LexiconError, Tokenizer, tokenise_inside
from poai_spec.proof.corpus import MAX_CORPUS_ITEMS, MIN_CORPUS_ITEMS, Corpus, CorpusItem

MAX_TEXT_BYTES = 16 << 20
"""Of all files together: 1,024 bytes an item, many times what fits into a quiz."""
SHOWN_FAULTS = 10
"""Bad lines that a message names; it counts the rest."""


class CorpusError(ModelError):
    """The files are no corpus; the message is one line and says where and what to do."""


@dataclass(frozen=True)
class Line:
    """A good line of a file.

    Attributes:
        place: file name and line number, counted from 1.
        question: text before the tab.
        answer: text after it.
    """

    place: str
    question: str
    answer: str


def read_lines(folder: Path) -> list[Line]:
    """Return the lines of a folder's text files: names ending in `.txt` that begin with no dot, in order of name.

    Lines end with LF or CRLF; empty ones are left out.

    Raises:
        CorpusError: no such folder, no lines, too many, or bad ones.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} is no folder: give one that holds *.txt files, a line question<TAB>answer each")
    lines, faults, owners = list[Line](), list[str](), dict[str, str]()
    for place, data in _read_raw(folder):
        found = _parse_line(place, data)
        if isinstance(found, str):
            faults.append(f"{place}: {found}")
        elif found.question in owners:
            faults.append(f"{place}: asks the same as {owners[found.question]}")
        else:
            owners[found.question] = place
            lines.append(found)
    _refuse(faults)
    if not MIN_CORPUS_ITEMS <= len(lines) <= MAX_CORPUS_ITEMS:
        limits = f"{MIN_CORPUS_ITEMS} to {MAX_CORPUS_ITEMS}"
        raise CorpusError(f"{folder} has {len(lines)} questions in its *.txt files; give it {limits}")
    return lines


def _read_raw(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield place and bytes of every line that is not empty."""
    files = sorted(path for path in folder.glob("*.txt") if path.is_file() and not path.name.startswith("."))
    try:
        if sum(path.stat().st_size for path in files) > MAX_TEXT_BYTES:
            raise CorpusError(f"the *.txt files in {folder} have over {MAX_TEXT_BYTES} bytes: give a smaller corpus")
        for path in files:
            for number, data in enumerate(path.read_bytes().split(b"\n"), 1):
                if line := data.removesuffix(b"\r"):
                    yield f"{path.name}:{number}", line
    except OSError as error:
        raise CorpusError(f"{error.filename} cannot be read: {error.strerror}") from error


def _parse_line(place: str, data: bytes) -> Line | str:
    """Return a line, or what is wrong with it."""
    try:
        parts = data.decode("utf-8").split("\t")
    except UnicodeDecodeError:
        return "not UTF-8"
    if len(parts) != 2:
        return "no tab between question and answer" if len(parts) == 1 else f"{len(parts) - 1} tabs"
    for name, part in zip(("question", "answer"), parts, strict=True):
        if not part.strip():
            return f"empty {name}"
        if part != part.strip():
            return f"a space at an end of the {name}"
        if odd := next((c for c in part if not c.isprintable()), None):
            return f"control character U+{ord(odd):04X} in the {name}"
    return Line(place, *parts)


def _refuse(faults: Sequence[str]) -> None:
    """Refuse bad lines, if there are any, naming the first ones."""
    if faults:
        more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        count = "1 bad line, mend or remove it" if len(faults) == 1 else f"{len(faults)} bad lines, mend or remove them"
        raise CorpusError(f"{count}: {'; '.join(faults[:SHOWN_FAULTS])}{more}")


def make_corpus(lines: Sequence[Line], tokenizer: Tokenizer, room: int) -> Corpus:
    """Tokenise lines as the page `corpus` says.

    Args:
        lines: what `read_lines` gives.
        tokenizer: the model's.
        room: tokens that a quiz has for questions.

    Raises:
        CorpusError: lines are too long for a quiz, or do not turn back into their text.
    """
    line_end = tuple(tokenise_inside(tokenizer, "\n"))
    items, faults = list[CorpusItem](), list[str]()
    for line in lines:
        item = _make_item(line, tokenizer, line_end, room)
        if isinstance(item, str):
            faults.append(f"{line.place}: {item}")
        else:
            items.append(item)
    _refuse(faults)
    # No prompt comes twice: the questions differ, and their tokens turn back into them.
    return Corpus(line_end, tuple(sorted(items, key=lambda item: item.prompt)))


def _make_item(line: Line, tokenizer: Tokenizer, line_end: tuple[int, ...], room: int) -> CorpusItem | str:
    """Return a line's item, or what is wrong with it."""
    try:
        prompt, answer = (tuple(tokenise_inside(tokenizer, text)) for text in (line.question, f" {line.answer}"))
    except LexiconError:
        return "the tokenizer joins its beginning with what stands before it"
    if not prompt or not answer:
        return "no tokens"
    length = len(prompt) + len(answer) + len(line_end)
    if length > room:
        return f"{length} tokens, a quiz has room for {room}"
    text = f"{line.question} {line.answer}\n".encode()
    if tokenizer.detokenise((*prompt, *answer, *line_end)) != text:
        return "its tokens do not turn back into its text"
    return CorpusItem(prompt, answer)


def get_text(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    """Return what token ids say, for people; control tokens as they are spelled in the file."""
    if vocabulary.model == "gpt2":
        bytes_of = {char: value for value, char in bytes_to_unicode().items()}
        spelled = "".join(vocabulary.tokens[token].decode("utf-8", "replace") for token in ids)
        data = b"".join(bytes([bytes_of[char]]) if char in bytes_of else char.encode() for char in spelled)
    else:
        data = b"".join(
            bytes([int(vocabulary.tokens[token][3:-1], 16)])
            if vocabulary.types[token] == BYTE
            else vocabulary.tokens[token].replace("\u2581".encode(), b" ")
            for token in ids
        )
    return data.decode("utf-8", "replace")
