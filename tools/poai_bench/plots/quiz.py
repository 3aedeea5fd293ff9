"""The diagram from quiz to block: names and sizes are those of the pages, the quiz is one of the preset testnet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from poai_bench.plots.style import FAINT, INK, LINE, OURS, POINT, PURPLE, SMALL, draw_rectangle, make_canvas, write
from poai_spec.basics.containers import Header, HeaderCore
from poai_spec.basics.encoding import encode, get_sedes
from poai_spec.basics.parameters import PRESET_MODELS, Config, get_preset, read_manifest
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.header import make_genesis_header
from poai_spec.chain.production import make_template
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.lexicon import Lexicon, read_lexicon
from poai_spec.proof.quiz import Quiz
from poai_spec.proof.work import get_quiz, get_trace_length

PRESET = "testnet"
NONCE = 1
"""Of the quiz that is drawn, in block 1: its questions are of several families."""
HEIGHT = 1006
LEFT, RIGHT, FORWARD, BACK = 40, 640, 16, 674
"""Where boxes begin and end; left of them runs the seed on to the hash, right of them goes back who lost. Pixels."""
MIDDLE, WIDE = (LEFT + RIGHT) / 2, RIGHT - LEFT
THIRD = (WIDE - 2 * 18) / 3
THIRDS = tuple(LEFT + THIRD / 2 + number * (THIRD + 18) for number in range(3))
"""Middles of three boxes side by side, and the width of each."""
HIGH = 46
CALM, COOL, VIOLET = "#f3f2ec", "#dfe8f7", "#eadcf0"
LETTER = 0.602 * 12.5
"""Width of a letter of DejaVu Sans Mono, pixels."""
NAMES = {"timestamp": "time", "parent_hash": "parent hash", "body_root": "body root", "state_root": "state root",
         "trace_digest": "trace digest", "core": "header core"}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a question as a quiz holds it.

    Attributes:
        text: its letters.
        scored: whether a loss of it counts.
        cut: whether it lies beyond the quiz's last token.
    """

    text: str
    scored: bool
    cut: bool


def get_size(kind: type, name: str | None = None) -> int:
    """Return the bytes of a container of fixed size, or of a field of it."""
    sedes = kind if name is None else next(f for f in fields(kind) if f.name == name).metadata["sedes"]
    return int(get_sedes(sedes).get_fixed_size())


def make_quiz(config: Config, lexicon: Lexicon) -> Quiz:
    """Return the quiz of block 1 with the nonce `NONCE`, of a miner without a name, one spacing after genesis."""
    genesis = make_genesis_header(config)
    rules = get_rules(config, (), 1)
    template = make_template([genesis], {}, rules, bytes(20), config.genesis_timestamp + config.spacing)
    core = replace(template, nonce=NONCE)
    return get_quiz(core, [genesis], get_rules(config, (), 0), lexicon)


def split_questions(quiz: Quiz, lexicon: Lexicon, config: Config) -> Iterator[list[Piece]]:
    """Yield the questions of a quiz in pieces, the last one whole."""
    position = len(quiz.salt) + int(config.model.add_bos)
    for question in quiz.questions:
        line = []
        for text in question.pieces:
            places = range(position, position + len(lexicon.ids[text]))
            position = places.stop
            scored = not set(quiz.scored).isdisjoint(places)
            line.append(Piece(text.rstrip("\n"), scored, places.start >= config.quiz_tokens))
        yield line


def draw_quiz_to_block() -> Any:
    """Draw the way from a header core to a block, in the order in which a miner goes it."""
    config, manifest = get_preset(PRESET), PRESET_MODELS[PRESET]
    figure, axes = make_canvas(HEIGHT)
    _draw_core(axes)
    _draw_seed(axes)
    _draw_quiz(axes, config, read_lexicon(manifest))
    _draw_pass(axes, str(read_manifest(manifest)["title"]), get_trace_length(get_rules(config, (), 0)))
    _draw_hash(axes, config)
    _draw_block(axes, config)
    return figure


def _draw_core(axes: Any) -> None:
    _write_head(axes, 32, "Header core", f"{get_size(HeaderCore)} bytes, all that a miner can vary")
    _draw_fields(axes, 44, {f.name: get_size(HeaderCore, f.name) for f in fields(HeaderCore)})
    _draw_bracket(axes, 98, RIGHT - 1, THIRDS[2])


def _draw_seed(axes: Any) -> None:
    size = get_size(Header, "trace_digest")
    inputs = (("network id", "hash of all parameters"), ("epoch key", "from the last epoch's end"),
              ("core hash", "hash of the header core"))  # fmt: skip
    for x, (name, what) in zip(THIRDS, inputs, strict=True):
        _draw_box(axes, x, 122, THIRD, name, what)
        axes.plot([x, x], [122 + HIGH, 182], color=FAINT, linewidth=1)
    axes.plot([THIRDS[0], THIRDS[2]], [182, 182], color=FAINT, linewidth=1)
    _draw_arrow(axes, (MIDDLE, 182), (MIDDLE, 196))
    _draw_box(axes, MIDDLE, 196, WIDE - THIRD, "quiz seed", f"Keccak-256 of the three, {size} bytes")
    axes.plot([LEFT + THIRD / 2, FORWARD, FORWARD], [219, 219, 722], color=FAINT, linewidth=1)
    _draw_arrow(axes, (FORWARD, 722), (LEFT + THIRD / 2, 722))
    _draw_arrow(axes, (MIDDLE, 196 + HIGH), (MIDDLE, 264))


def _draw_quiz(axes: Any, config: Config, lexicon: Lexicon) -> None:
    quiz = make_quiz(config, lexicon)
    what = f"{config.quiz_tokens} tokens, of which {config.scored_tokens} are scored"
    _write_head(axes, 284, "Quiz", what)
    cell, salt = WIDE / config.quiz_tokens, config.salt_tokens
    for place in range(config.quiz_tokens):
        colour = OURS if place in quiz.scored else VIOLET if place < salt else COOL
        draw_rectangle(axes, LEFT + place * cell + 0.75, 294, cell - 1.5, 22, colour)
    write(axes, LEFT, 332, f"salt, {salt} random tokens", PURPLE)
    write(axes, RIGHT, 332, "questions with their answers, the last one cut off", OURS, ha="right")
    for number, line in enumerate(split_questions(quiz, lexicon, config)):
        _write_question(axes, 356 + 18 * number, line)
    _draw_arrow(axes, (MIDDLE, 462), (MIDDLE, 484))


def _write_question(axes: Any, y: float, line: list[Piece]) -> None:
    x = float(LEFT)
    for piece in line:
        how = {"family": "DejaVu Sans Mono", "weight": "bold" if piece.scored else "normal"}
        colour = OURS if piece.scored else "#c4c6c8" if piece.cut else INK
        write(axes, x, y, piece.text, colour, **how)
        x += LETTER * len(piece.text)


def _draw_pass(axes: Any, model: str, entries: int) -> None:
    layers, size = entries - 1, get_size(Header, "trace_digest")
    _write_head(axes, 504, "Forward pass", f"{model}: {layers} layers, integers only")
    step = (WIDE - 110) / layers
    for layer in range(layers):
        x = LEFT + layer * step
        draw_rectangle(axes, x + 1.5, 516, step - 3, 40, COOL)
        draw_rectangle(axes, x + step / 2 - 3, 566, 6, 6, OURS)
    draw_rectangle(axes, RIGHT - 100, 516, 100, 40, COOL)
    write(axes, RIGHT - 50, 536, "head", INK, ha="center")
    draw_rectangle(axes, RIGHT - 53, 566, 6, 6, OURS)
    write(axes, LEFT, 590, f"trace: an entry of {size} bytes from each, {entries} in all", OURS)
    write(axes, RIGHT, 590, "losses of the scored tokens", INK, ha="right")


def _draw_hash(axes: Any, config: Config) -> None:
    half = (WIDE - 18) / 2
    left, right = LEFT + half / 2, RIGHT - half / 2
    size, of_loss, entries = (
        get_size(Header, "trace_digest"),
        get_size(Header, "loss"),
        get_trace_length(get_rules(config, (), 0)),
    )
    _draw_arrow(axes, (left, 602), (left, 622))
    _draw_arrow(axes, (right, 602), (right, 622))
    _draw_box(axes, left, 622, half, "trace digest", f"{size} bytes, Keccak-256 of {entries} entries")
    _draw_box(axes, right, 622, half, "loss", f"{of_loss} bytes, sum over {config.scored_tokens} tokens, in bits")
    for x in (left, right):
        axes.plot([x, x], [622 + HIGH, 684], color=FAINT, linewidth=1)
    axes.plot([left, right], [684, 684], color=FAINT, linewidth=1)
    _draw_arrow(axes, (MIDDLE, 684), (MIDDLE, 699))
    _draw_box(axes, MIDDLE, 699, WIDE - THIRD, "l_hat", f"Keccak-256 of seed, loss and digest, below 2^{8 * size}")
    _draw_arrow(axes, (MIDDLE, 699 + HIGH), (MIDDLE, 768))
    _draw_box(axes, MIDDLE, 768, THIRD, "l_hat < target ?", None, high=34)
    axes.plot([MIDDLE + THIRD / 2, BACK, BACK], [785, 785, 61], color=FAINT, linewidth=1)
    _draw_arrow(axes, (BACK, 61), (RIGHT, 61))
    write(axes, MIDDLE + THIRD / 2 + 12, 775, "no: the next nonce", FAINT)
    write(axes, MIDDLE + 10, 815, "yes", FAINT)
    _draw_arrow(axes, (MIDDLE, 802), (MIDDLE, 828))


def _draw_block(axes: Any, config: Config) -> None:
    header, entry, entries = (
        get_size(Header),
        get_size(Header, "trace_digest"),
        get_trace_length(get_rules(config, (), 0)),
    )
    _write_head(axes, 850, "Block", f"a header of {header} bytes, a body, and the trace that the header commits to")
    sizes = {f.name: get_size(Header, f.name) for f in fields(Header)}
    x = _draw_fields(axes, 862, sizes | {"body": len(encode(EMPTY_BODY)), "trace": entry * entries})["trace_digest"]
    _draw_bracket(axes, 916, x, (LEFT + x) / 2)
    what = f"{entry} bytes, Keccak-256 of the header: the parent in the next block's core"
    _draw_box(axes, MIDDLE, 940, WIDE, "block hash", what)


def _draw_fields(axes: Any, y: float, sizes: Mapping[str, int]) -> dict[str, float]:
    """Draw fields side by side, each as wide as its name needs; return where each ends."""
    names = {name: NAMES.get(name, name) for name in sizes}
    x, ends = float(LEFT), dict[str, float]()
    letter = WIDE / sum(len(name) + 3 for name in names.values())
    for name, shown in names.items():
        width = (len(shown) + 3) * letter
        draw_rectangle(axes, x + 1, y, width - 2, 34, VIOLET if name == "nonce" else COOL)
        write(axes, x + width / 2, y + 17, shown, INK, ha="center")
        write(axes, x + width / 2, y + 44, f"{sizes[name]} B", FAINT, ha="center")
        x += width
        ends[name] = x - 1
    return ends


def _draw_bracket(axes: Any, y: float, end: float, middle: float) -> None:
    """Gather what lies above, from the left to `end`, into an arrow of 24 pixels."""
    axes.plot([LEFT + 1, LEFT + 1, end, end], [y, y + 6, y + 6, y], color=FAINT, linewidth=1)
    _draw_arrow(axes, (middle, y + 6), (middle, y + 24))


def _draw_box(axes: Any, x: float, y: float, width: float, name: str, what: str | None, high: float = HIGH) -> None:
    """Draw a box from `y` downwards, `x` in its middle."""
    draw_rectangle(axes, x - width / 2, y, width, high, CALM, edge=LINE)
    write(axes, x, y + (high / 2 if what is None else 15), name, INK, ha="center", weight="bold")
    if what is not None:
        write(axes, x, y + 32, what, FAINT, ha="center")


def _draw_arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {"arrowstyle": "-|>,head_width=0.22,head_length=0.42", "color": FAINT, "lw": 1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=arrow)


def _write_head(axes: Any, y: float, name: str, what: str) -> None:
    text = write(axes, LEFT, y, name, OURS, weight="bold", size=16 * POINT)
    how = {"xycoords": text, "textcoords": "offset points", "color": FAINT, "fontsize": SMALL, "va": "bottom"}
    axes.annotate(what, (1, 0), (8, 0), **how)
