# # Lexicon  [generated from specs/proof/lexicon.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# A model reads token ids, and two tokenizers that differ in one corner case split the chain. So no tokenizer takes part in
# consensus. Questions are made of *pieces*, short strings of one fixed list, and every model pins the token ids of each
# piece in a file. The ids of a text are the ids of its pieces, one after another. That file, the lexicon, is made once, by
# the model's own tokenizer, and from then on it is data whose digest is part of the network id.

# The pieces are cut where the tokenizers of today's models cut anyway (a word takes the space before it, a digit stands
# alone), so that the model sees the text as it would see it anywhere else. Where a model would have merged two pieces,
# nothing breaks: ids are scored, and text is for people.


import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate
from typing import Any

from poai_spec.basics.notation import Hash32, Invalid, tagged_hash, uint32_le
from poai_spec.basics.parameters import ModelManifest


# ## Words

# The vocabulary of the [questions](questions.md). Most words are a single token in the vocabularies of SmolLM2 and Llama 2,
# which keeps questions short. No word of a category fits another one: no `orange`, no `gold`.


NAMES = ("Tom", "Ben", "Sam", "Max", "Tim", "Dan", "John", "Paul", "Peter", "David", "Mark", "Mary", "Anna", "Alice")

# (more, most, less, least): "A is older than B" and "B is younger than A" say the same.
SCALES = (
    ("older", "oldest", "younger", "youngest"),
    ("taller", "tallest", "shorter", "shortest"),
    ("faster", "fastest", "slower", "slowest"),
    ("richer", "richest", "poorer", "poorest"),
)

CLASSES = ("dogs", "birds", "horses", "trees", "cars", "books", "houses", "boats", "stones", "plants", "roads", "stars")

CATEGORIES = (
    ("cat", "dog", "horse", "cow", "bird", "bear"),
    ("red", "blue", "green", "black", "white", "yellow"),
    ("apple", "bread", "rice", "milk", "corn", "meat"),
    ("hand", "foot", "head", "eye", "nose", "ear"),
    ("table", "chair", "bed", "door", "window", "floor"),
    ("car", "bus", "train", "ship", "boat", "plane"),
    ("mother", "father", "brother", "sister", "son", "daughter"),
    ("rain", "snow", "wind", "cloud", "sun", "storm"),
)
WORDS = tuple(word for category in CATEGORIES for word in category)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
SEASONS = ("spring", "summer", "autumn", "winter")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
PLANETS = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")

# Lists that people know by heart; after the last item of a cycle comes its first.
CYCLES = (DAYS, MONTHS, SEASONS)
SERIES = (NUMBERS, ORDINALS, PLANETS)


# ## Pieces

# A piece is one of: a newline; a space before a digit; a digit; a punctuation mark; an operator with the space before it; a
# word that begins a line; a word with the space before it. `PIECES` lists all of them, each once, in the order that the
# digest uses. A comparative or a class occurs only inside a line, a name in both places.


OPERATORS = (" +", " -", " *", " //", " %", " =")
LINE_STARTS = ("All", "Some", "No", "Of", "Next", "One", "Two", "Three", *NAMES)
FRAME_WORDS = (
    *("All", "Some", "No", "Are", "Who", "all", "any", "are", "not", "yes", "no", "is", "than", "and", "the", "odd"),
    *("in", "alphabet", "day", "days", "month", "months", "letter", "letters", "after", "before"),
)
SCALE_WORDS = tuple(word for scale in SCALES for word in scale)
LIST_WORDS = tuple(word for items in (*CYCLES, *SERIES) for word in items)
INNER_WORDS = (*FRAME_WORDS, *NAMES, *SCALE_WORDS, *CLASSES, *WORDS, *LIST_WORDS, *LETTERS)

PIECES: tuple[str, ...] = tuple(
    dict.fromkeys(
        (*"\n ", *"0123456789", *",.:?", *OPERATORS, *LINE_STARTS, *(" " + word for word in INNER_WORDS)),
    )
)


# ```pycon
# >>> from poai_spec.proof.lexicon import PIECES, split_pieces
# >>> len(PIECES)
# 238
# >>> PIECES[0], PIECES[1], PIECES[2], PIECES[-1]
# ('\n', ' ', '0', ' z')


# How the text of a question is cut: each character belongs to exactly one piece, and no choice is left. A letter or an
# operator takes the space before it, a digit does not.


PIECE_PATTERN = re.compile(r" ?[A-Za-z]+| [-+*/%=]+|[0-9]| |[,.:?\n]")


# ### `split_pieces`


def split_pieces(text: str) -> tuple[str, ...]:
    """Return the pieces of a text that is made of pieces; joined, they give the text back."""
    return tuple(PIECE_PATTERN.findall(text))


# ```pycon
# >>> split_pieces("12 + 5 = 17\n")
# ('1', '2', ' +', ' ', '5', ' =', ' ', '1', '7', '\n')
# >>> split_pieces("All dogs are birds.")
# ('All', ' dogs', ' are', ' birds', '.')


# ## Types

# ### `Lexicon`


@dataclass(frozen=True)
class Lexicon:
    """The token ids of every piece, for one model.

    Attributes:
        ids: from each piece of `PIECES` to its token ids, at least one.
    """

    ids: Mapping[str, tuple[int, ...]]


# ### `get_tokens`


def get_tokens(lexicon: Lexicon, pieces: Iterable[str]) -> tuple[int, ...]:
    """Return the token ids of the pieces, one after another."""
    ids = lexicon.ids
    return tuple(token for piece in pieces for token in ids[piece])


# ### `compute_lexicon_digest`


def compute_lexicon_digest(lexicon: Lexicon) -> Hash32:
    """Return the hash of all pieces and their ids, the `questions_digest` of a model manifest.

    Hashed, after the tag: for each piece in the order of `PIECES` the length of its UTF-8 encoding in bytes (uint32),
    the encoding, the number of its ids (uint32), and each id (uint32); all integers little-endian.
    """
    parts = []
    for piece in PIECES:
        text, ids = piece.encode("utf-8"), lexicon.ids[piece]
        parts += [uint32_le(len(text)), text, uint32_le(len(ids)), *map(uint32_le, ids)]
    return tagged_hash("PoAI/lexicon/1", *parts)


# ## Files

# `specs/manifests/NAME.lexicon.json` is the JSON object `{"format": 1, "model": NAME, "pieces": {piece: [id, ...], ...}}`, in
# UTF-8. Reading is strict: whoever runs a network of their own writes such a file, and a slip in it would not show before
# two nodes disagree. Parsers of JSON differ, so this decides:

# - The bytes are UTF-8 without a byte order mark and one JSON text of RFC 8259, nested at most 16 deep (the outermost
#   object is 1 deep). `NaN` and `Infinity` are not JSON. A string that holds half of a surrogate pair is not JSON here. The
#   whole text is read before anything else is asked, so `lexicon/not-json` comes before every other code.
# - No object, at any depth, has a key twice; keys are compared after their escapes are resolved.
# - A number is written in digits and nothing else: no sign, no fraction, no exponent, not `-0`. Another spelling is JSON,
#   and has the code of the place where it stands: `lexicon/format` or `lexicon/ids`. So has a number above 2^32 - 1, of
#   however many digits; a reader need not look at the value of more than ten.
# - White space, the order of keys and the length of the file mean nothing.


LEXICON_FORMAT = 1
MAX_NESTING = 16
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
PLAIN_NUMBER = re.compile(r"[0-9]{1,10}")


# ### `parse_lexicon`


def parse_lexicon(data: bytes) -> Lexicon:
    """Return the lexicon in a JSON file.

    Raises:
        Invalid: `lexicon/not-json`, `lexicon/duplicate-key`, `lexicon/keys`, `lexicon/format`, or what `check_pieces`
            finds; the first that applies, in this order.
    """
    try:
        text = decode_json_text(data)
    except ValueError as error:
        raise Invalid("lexicon/not-json", f"the lexicon is not JSON in UTF-8: {error}") from error
    value = json.loads(text, object_pairs_hook=refuse_duplicates, parse_int=read_number, parse_float=read_number)
    if not isinstance(value, dict) or set(value) != {"format", "model", "pieces"}:
        raise Invalid("lexicon/keys", 'expected an object with "format", "model" and "pieces", and nothing else')
    number, pieces = value["format"], value["pieces"]
    strict = type(number) is int and isinstance(value["model"], str) and isinstance(pieces, dict)
    if not strict or number != LEXICON_FORMAT:
        raise Invalid("lexicon/format", '"format" is 1, "model" a string and "pieces" an object')
    check_pieces(pieces)
    return Lexicon({piece: tuple(pieces[piece]) for piece in PIECES})


# ### `decode_json_text`

# Python's parser takes `NaN`, recurses as deep as the text is nested, and keeps half a surrogate pair as a character that
# no UTF-8 has; each of the three ends here.


def decode_json_text(data: bytes) -> str:
    """Return the text of JSON in UTF-8.

    Raises:
        ValueError: the bytes are not what the list above calls JSON.
    """
    text = data.decode("utf-8")
    steps = ((c in "[{") - (c in "]}") for c in JSON_STRING.sub("", text))
    if any(depth > MAX_NESTING for depth in accumulate(steps)):
        raise ValueError(f"nested more than {MAX_NESTING} deep")
    value = json.loads(text, object_pairs_hook=list, parse_int=str, parse_constant=int)  # int("NaN") is a ValueError
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return text


# ### `read_number`


def read_number(text: str) -> int | None:
    """Return a number written in digits alone; None, which no rule accepts, for others and long ones."""
    return int(text) if PLAIN_NUMBER.fullmatch(text) else None


# ### `refuse_duplicates`


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; parsers differ in which of two equal keys wins, so a repeated key is refused.

    Raises:
        Invalid: `lexicon/duplicate-key`.
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Invalid("lexicon/duplicate-key", "a key of the lexicon file is repeated")
    return result


# ### `check_pieces`

# Each of the four rules is applied to the whole table before the next one.


def check_pieces(pieces: Mapping[str, Any]) -> None:
    """Refuse a table that does not give each piece of `PIECES`, and nothing else, token ids of its own.

    Raises:
        Invalid: `lexicon/unknown-piece`, `lexicon/missing-piece`, `lexicon/ids`, `lexicon/same-ids`.
    """
    if unknown := sorted(pieces.keys() - set(PIECES)):
        raise Invalid("lexicon/unknown-piece", f"{unknown[0]!r:.80} is not a piece")
    if missing := [piece for piece in PIECES if piece not in pieces]:
        raise Invalid("lexicon/missing-piece", f"{missing[0]!r} has no token ids")
    if wrong := [piece for piece in PIECES if not is_id_list(pieces[piece])]:
        raise Invalid("lexicon/ids", f"{wrong[0]!r}: expected a list of one or more integers in 0 .. 2^32 - 1")
    owners: dict[tuple[int, ...], str] = {}
    for piece in PIECES:
        if (owner := owners.setdefault(tuple(pieces[piece]), piece)) != piece:
            raise Invalid("lexicon/same-ids", f"{owner!r} and {piece!r} have the same token ids")


# ### `is_id_list`


def is_id_list(value: Any) -> bool:
    """Tell whether a JSON value is a list of one or more unsigned 32-bit integers."""
    return isinstance(value, list) and bool(value) and all(type(i) is int and 0 <= i < 2**32 for i in value)


# ### `check_lexicon`


def check_lexicon(lexicon: Lexicon, model: ModelManifest) -> None:
    """Refuse a lexicon that is not the model's.

    Raises:
        Invalid: `lexicon/id-range`, `lexicon/digest`.
    """
    highest = max(token for ids in lexicon.ids.values() for token in ids)
    if highest >= model.vocabulary_size:
        raise Invalid("lexicon/id-range", f"token {highest}, but the vocabulary has {model.vocabulary_size}")
    digest = compute_lexicon_digest(lexicon)
    if digest != model.questions_digest:
        raise Invalid("lexicon/digest", f"digest {digest.hex()}, but the manifest says {model.questions_digest.hex()}")


# ### `read_lexicon`


def read_lexicon(name: str) -> Lexicon:
    """Return the lexicon of a pinned model: `mini`, `smollm2-135m`, `tinyllama-shape` or `tinyllama-1.1b`.

    Raises:
        Invalid: as `parse_lexicon`.
    """
    return parse_lexicon((files("poai_spec") / "manifests" / f"{name}.lexicon.json").read_bytes())


# ## How a lexicon is made

# Not part of consensus: whoever makes a model manifest does this once, and the result is pinned. The ids of a piece are
# `tokenise("0" + piece)` without `tokenise("0")`, which must be its beginning; both without a begin-of-sequence token and
# without reading the text of control tokens as such. The digit in front is there because a SentencePiece model puts a space
# before a text that stands alone. A piece is refused where that prefix is missing, where no ids remain, or where the ids do
# not turn back into the piece. `poai model lexicon FILE` does this and reports the share of quizzes whose text, tokenised
# as a whole, gives the same ids.

# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `lexicon/not-json` | Invalid | the file is not JSON in UTF-8, or nested more than 16 deep |
# | `lexicon/duplicate-key` | Invalid | a key occurs twice in one object |
# | `lexicon/keys` | Invalid | keys missing or unknown |
# | `lexicon/format` | Invalid | not format 1, `model` no string, or `pieces` no object |
# | `lexicon/unknown-piece` | Invalid | a string that no question uses |
# | `lexicon/missing-piece` | Invalid | a piece without ids |
# | `lexicon/ids` | Invalid | ids that are no list, empty, or no unsigned 32-bit integers |
# | `lexicon/same-ids` | Invalid | two pieces with the same ids: the model could not tell them apart |
# | `lexicon/id-range` | Invalid | an id outside the model's vocabulary |
# | `lexicon/digest` | Invalid | another lexicon than the one that the network id covers |

# ## Rationale

# - **Why not pin a tokenizer?** It would have to be specified to the last rule of Unicode normalisation and merge order, for
#   each kind of model, and reproduced by every client. A table of some 250 rows says the same and cannot be misread.
# - **Why a space piece before digits?** SmolLM2 and Llama 2 both cut ` 5` into a space and a digit. Words carry their
#   space because both have tokens such as ` is`.
# - **Why "0" as the anchor?** SmolLM2 has tokens that join a newline with what follows, Llama 2 one for almost every
#   anchor that ends in a letter; no known vocabulary joins a digit with what comes after it. See the ADR on anchors.
# - **Why a digest of our own and not one of the JSON file?** The file may be reformatted; the network must not change.
