"""A testnet on a terminal: a table that lives, the last quiz, and the summary; lines where there is no terminal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from poai_spec.basics.notation import Height
from poai_spec.proof.difficulty import compute_quizzes
from poaid.amounts import format_count, format_poai
from poaid.testnet.summary import NodeSummary, Observed, Propagation, Summary, get_miner_name, is_one_head
from poaid.view import BlockView, QuizView

HASH_DIGITS = 8
"""Of a hash in the table: enough to tell a few heads apart."""
WIDE = 110
"""Columns from which the table also says where each node's page is."""
PICTURE_WIDTH = 80
"""Columns of the recorded picture: those of a terminal."""
FOREIGN_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich names fonts on another host; without them a browser takes its own."""
STYLES = {"mining": "green", "done": "bold green", "syncing": "yellow", "stalled": "red"}


@dataclass(frozen=True)
class Frame:
    """What one picture of a testnet shows.

    Attributes:
        nodes: what is seen of them.
        model: its name.
        network_id: in hexadecimal, with 0x.
        blocks: height of the last block.
        seconds: since the start.
        ended: whether the nodes are stopped, so that their pages are gone.
    """

    nodes: Sequence[Observed]
    model: str
    network_id: str
    blocks: Height
    seconds: float
    ended: bool = False


def shorten(block_hash: str) -> str:
    """Return the first digits of a hash."""
    return block_hash.removeprefix("0x")[:HASH_DIGITS]


def format_seconds(seconds: float) -> str:
    """Return minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def format_loss(loss: int) -> str:
    """Return a loss, bits in Q16, as bits."""
    return f"{loss / 65536:.2f}"


def get_activity(node: Observed, blocks: Height) -> str:
    """Return what a node does, in a word."""
    status = node.status
    if status is None:
        return "starting"
    if status["height"] >= blocks and status["activity"] in ("idle", "mining"):
        return "done"  # what still runs is the rest of a batch
    return "waiting" if status["activity"] == "idle" else status["activity"]


def make_frame(frame: Frame, width: int) -> RenderableType:
    """Return the whole picture for a terminal of so many columns, 80 or more."""
    parts: list[RenderableType] = [make_header(frame)]
    if width < WIDE and not frame.ended:
        parts.append(Text(f"page of {frame.nodes[0].name}: {frame.nodes[0].url}", "dim"))
    parts.append(make_table(frame, width))
    for n, node in enumerate(_get_heads(frame.nodes)):
        assert node.head is not None, "it is one of the heads"
        parts.append(Text(describe_block(node.head, frame.nodes), "bold", no_wrap=True, overflow="ellipsis"))
        if n == 0 and node.quiz is not None:
            parts[-1:] = [Text(), parts[-1], *make_quiz(node.quiz)]
    return Group(*parts)


def make_header(frame: Frame) -> Text:
    """Return the lines above the table."""
    statuses = [node.status for node in frame.nodes if node.status is not None]
    top = max((status["height"] for status in statuses), default=0)
    text = Text()
    text.append("PoAI testnet ", "bold")
    text.append(f"{frame.network_id[2:10]}: {len(frame.nodes)} nodes, model {frame.model}, ")
    text.append(f"block {top} of {frame.blocks}, {format_seconds(frame.seconds)}\n")
    if statuses:
        rate = sum(status["quizzes_per_second"] for status in statuses)
        best = max(statuses, key=lambda status: status["height"])
        quizzes = compute_quizzes(int(best["target"], 16))
        text.append(f"a block takes {quizzes} quizzes on average; {rate:.1f}/s in all; ")
    return text.append_text(_describe_agreement(frame.nodes))


def _describe_agreement(nodes: Sequence[Observed]) -> Text:
    heights = {node.status["height"] if node.status else None for node in nodes}
    if None in heights:
        return Text("nodes are starting", "yellow")
    if is_one_head(nodes):
        return Text(f"all agree at height {heights.pop()}", "green")
    return Text("a fork" if len(heights) == 1 else "a block is on its way", "yellow")


def make_table(frame: Frame, width: int) -> Table:
    """Return a row for each node."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("node", "height", "head", "activity", "quiz/s", "peers", "mined", "reorgs", "loss", "POAI"):
        text = name in ("node", "head", "activity")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    with_page = width >= WIDE and not frame.ended
    if with_page:
        table.add_column("page", no_wrap=True)
    for node in frame.nodes:
        page = [node.url] if with_page else []
        table.add_row(*_make_row(node, frame.blocks), *page)
    return table


def _make_row(node: Observed, blocks: Height) -> list[RenderableType]:
    activity, status, head = get_activity(node, blocks), node.status, node.head
    word = Text(activity, STYLES.get(activity, "yellow"))
    if status is None:
        return [node.name, "", "", word]
    return [
        node.name,
        str(status["height"]),
        shorten(status["head"]),
        word,
        f"{status['quizzes_per_second']:.1f}",
        str(status["peer_count"]),
        str(status["mined"]),
        str(status["reorgs"]),
        format_loss(head["loss"]) if head and head["height"] else "",
        format_poai(int(status["balance"])).removesuffix(" POAI"),
    ]


def _get_heads(nodes: Sequence[Observed]) -> list[Observed]:
    """Return a node for each head beside genesis, the highest first."""
    heads: dict[str, Observed] = {}
    for node in nodes:
        if node.head is not None and node.head["height"]:
            heads.setdefault(node.head["hash"], node)
    return sorted(heads.values(), key=lambda node: -node.head["height"] if node.head else 0)


def describe_block(block: BlockView, nodes: Sequence[Observed]) -> str:
    """Return a block in a line: height, hash, miner and quiz."""
    miner = get_miner_name(block["miner"], nodes)
    return f"block {block['height']} {shorten(block['hash'])} by {miner}, quiz {block['quiz']}"


def make_quiz(quiz: QuizView) -> list[Text]:
    """Return what the model read, the answers marked, and the loss of each of them."""
    lines = [_mark_answer(line, answer) for line, answer in _pair(quiz)]
    parts = ", ".join(f"{text} {format_loss(loss)}" for text, loss in _group_losses(quiz))
    line = f"  loss {format_loss(quiz['loss'])} bits: {parts}"
    return [*lines, Text(line, "dim", no_wrap=True, overflow="ellipsis")]


def _group_losses(quiz: QuizView) -> list[tuple[str, int]]:
    """Return the scored tokens, those that stand side by side as one text, and their losses."""
    groups: list[tuple[str, int]] = []
    last = None
    for token in quiz["scored"]:
        text, loss = token["text"], token["loss"] or 0
        if groups and token["position"] - 1 == last:
            text, loss = groups[-1][0] + text, groups.pop()[1] + loss
        groups.append((text, loss))
        last = token["position"]
    return [(" ".join(text.split()) or repr(text), loss) for text, loss in groups]


def _pair(quiz: QuizView) -> list[tuple[str, str]]:
    """Return each line that the model read with its answer, empty where the quiz ends before it."""
    lines = quiz["text"].rstrip("\n").split("\n")
    return list(zip(lines, [*quiz["answers"], *[""] * len(lines)], strict=False))


def _mark_answer(line: str, answer: str) -> Text:
    answer = answer.strip()
    text = Text("  ", no_wrap=True, overflow="ellipsis")
    if not answer or not line.endswith(answer):
        return text.append(line)
    return text.append(line[: -len(answer)]).append(answer, "bold green")


def make_summary_view(summary: Summary) -> RenderableType:
    """Return the summary for people."""
    wanted, count = summary["blocks_wanted"], len(summary["nodes"])
    text = Text()
    if summary["agree"]:
        text.append(f"All {count} nodes agree at height {wanted}", "bold green")
        text.append(f" after {format_seconds(summary['seconds'])}: {summary['nodes'][0]['head'][:34]}...\n")
    else:
        text.append(*(("Stopped", "bold yellow") if summary["stopped"] else ("No agreement", "bold red")))
        text.append(f" after {format_seconds(summary['seconds'])}: {summary['difference']}\n")
    for node in summary["nodes"]:
        text.append(f"  {_describe_node(node)}\n")
    text.append(
        f"  {format_count(len(summary['blocks']), 'block')} of the chain, "
        f"{format_count(summary['side_blocks'], 'side block')}, "
        f"{format_count(summary['reorgs'], 'reorganisation')}\n"
    )
    text.append(f"  {_describe_propagation(summary['propagation'])}")
    return text


def _describe_node(node: NodeSummary) -> str:
    return (
        f"{node['name']}: {format_count(node['on_chain'], 'block')} of the chain, {format_poai(int(node['balance']))}, "
        f"tip {node['height']} {shorten(node['head'])}"
    )


def _describe_propagation(propagation: Propagation | None) -> str:
    if propagation is None:
        return "no block went from one node to another"
    return (
        f"from miner to others, replay included: median {propagation['median_ms']} ms, "
        f"95 % within {propagation['p95_ms']} ms"
    )


class Screen:
    """Shows frames: in place on a terminal, elsewhere a line for each new block.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._known = console, set[str]()
        self._live = (
            Live(console=console, auto_refresh=False, vertical_overflow="crop") if console.is_terminal else None
        )

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, frame: Frame) -> None:
        """Show a frame."""
        if self._live is not None:
            self._live.update(make_frame(frame, self._console.width), refresh=True)
            return
        for node in frame.nodes:
            head = node.head
            if head is not None and head["height"] and head["hash"] not in self._known:
                self._known.add(head["hash"])
                line = f"{format_seconds(frame.seconds)} {describe_block(head, frame.nodes)}"
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def save_picture(frame: Frame, summary: Summary, path: str) -> None:
    """Write the last frame and the summary as an SVG file.

    Raises:
        OSError: it cannot be written.
    """
    console = Console(record=True, width=PICTURE_WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    for part in (make_frame(frame, PICTURE_WIDTH), Text(), make_summary_view(summary)):
        console.print(part)
    Path(path).write_text(FOREIGN_FONT.sub("", console.export_svg(title="poaid testnet")), "utf-8")
