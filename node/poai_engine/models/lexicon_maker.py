"""Make the lexicon of a model with its own tokenizer: once, for a manifest; nothing here takes part in consensus.

Exports: `open_tokenizer`, `make_lexicon`, `make_lexicon_with`, `format_lexicon`,
`measure_natural_share`. llama.cpp aborts the process on some malformed files: hand it only files that
`poai_engine.models.gguf_file` has validated.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from poai_engine.engines.llama_log import silence
from poai_engine.errors import ModelError
from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import Config
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.lexicon import PIECES, Lexicon, get_tokens
from poai_spec.proof.quiz import generate_quiz

ANCHOR = "0"


class LexiconError(ModelError):
    """The lexicon cannot be made; the message is one line and says what to do."""


@dataclass(frozen=True)
class Tokenizer:
    """The two functions of a model's tokenizer that a lexicon needs.

    Attributes:
        tokenise: from text to ids, without begin-of-sequence token and without reading control tokens in the text.
        detokenise: from ids to the text's UTF-8 bytes, without a space added in front.
    """

    tokenise: Callable[[str], list[int]]
    detokenise: Callable[[Sequence[int]], bytes]


def open_tokenizer(path: Path) -> Tokenizer:
    """Load the vocabulary of a validated GGUF file with llama.cpp.

    Raises:
        LexiconError: llama-cpp-python is not installed, or refuses the file.
    """
    try:
        from llama_cpp import Llama  # noqa: PLC0415  the extra is optional
    except ImportError as error:
        message = "this needs llama.cpp's tokenizer, which is not installed: pip install 'poai[llama]'"
        raise LexiconError(message) from error
    silence()
    try:
        llama = Llama(str(path), vocab_only=True, verbose=False)
    except (ValueError, OSError) as error:
        raise LexiconError(f"llama.cpp cannot read the vocabulary of {path.name}: {error}") from error
    return Tokenizer(
        lambda text: list(llama.tokenize(text.encode("utf-8"), add_bos=False, special=False)),
        lambda ids: bytes(llama.detokenize(list(ids))),
    )


def tokenise_inside(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text that follows other text: `tokenise("0" + text)` minus `tokenise("0")`.

    Raises:
        LexiconError: the tokenizer joins the anchor with the text.
    """
    anchor, ids = tokenizer.tokenise(ANCHOR), tokenizer.tokenise(ANCHOR + text)
    if ids[: len(anchor)] != anchor:
        raise LexiconError(f"the tokenizer joins {ANCHOR!r} with {text[:20]!r}: this model cannot have a lexicon")
    return ids[len(anchor) :]


def make_lexicon(path: Path) -> Lexicon:
    """Make the lexicon of a validated GGUF file.

    Raises:
        LexiconError: llama-cpp-python is missing, or a piece has no ids that turn back into it.
    """
    return make_lexicon_with(open_tokenizer(path))


def make_lexicon_with(tokenizer: Tokenizer) -> Lexicon:
    """Make the lexicon of a tokenizer.

    Raises:
        LexiconError: a piece has no ids that turn back into it, or has another piece's.
    """
    ids, owners = {}, dict[tuple[int, ...], str]()
    for piece in PIECES:
        ids[piece] = tuple(tokenise_inside(tokenizer, piece))
        if not ids[piece] or tokenizer.detokenise(ids[piece]) != piece.encode("utf-8"):
            raise LexiconError(
                f"the ids {ids[piece]} do not turn back into {piece!r}: this model cannot have a lexicon"
            )
        if owners.setdefault(ids[piece], piece) != piece:
            raise LexiconError(
                f"{piece!r} and {owners[ids[piece]]!r} have the same ids: this model cannot have a lexicon"
            )
    return Lexicon(ids)


def format_lexicon(name: str, lexicon: Lexicon) -> str:
    """Return the content of `specs/manifests/NAME.lexicon.json`: one piece a line."""
    rows = [f"    {json.dumps(piece)}: {json.dumps(lexicon.ids[piece])}" for piece in PIECES]
    return f'{{\n  "format": 1,\n  "model": {json.dumps(name)},\n  "pieces": {{\n' + ",\n".join(rows) + "\n  }\n}\n"


def measure_natural_share(tokenizer: Tokenizer, config: Config, lexicon: Lexicon, count: int) -> float:
    """Return the share of quizzes whose whole question text the tokenizer turns into the same ids as the lexicon.

    Args:
        tokenizer: the model's own.
        config: the network whose quizzes are drawn; the salt, which is no text, is left out.
        lexicon: the model's.
        count: number of quizzes; quiz i has the seed Keccak("natural share" || uint64_le(i)).
    """
    equal = 0
    for i in range(count):
        quiz = generate_quiz(keccak256(b"natural share" + uint64_le(i)), get_rules(config, (), 0), lexicon)
        ids = [token for question in quiz.questions for token in get_tokens(lexicon, question.pieces)]
        text = "".join(f"{question.text}\n" for question in quiz.questions)
        equal += tokenise_inside(tokenizer, text) == ids
    return equal / count
