"""What came of a testnet: whether its nodes agree, who mined what, and how fast blocks went from node to node.

Pure: it reads what the nodes have said over HTTP. Times are milliseconds since 1970 of one machine's clock.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from poai_spec.basics.notation import Height, Milliseconds
from poaid.view import BlockView, QuizView, StatusView


@dataclass
class Observed:
    """What is seen of a node.

    Attributes:
        name: for people, `node 0`.
        url: where it answers, without a slash at the end.
        status: as it last said; None before its first answer.
        head: the head's block; None before it was asked for.
        quiz: the head's quiz; None for genesis.
        chain: its blocks from height 1 on, read at the end.
    """

    name: str
    url: str
    status: StatusView | None = None
    head: BlockView | None = None
    quiz: QuizView | None = None
    chain: list[BlockView] = field(default_factory=list)


class NodeSummary(TypedDict):
    """A node at the end."""

    name: str
    miner: str
    height: int
    head: str
    mined: int  # own blocks, wherever they are now
    on_chain: int  # own blocks of the chain
    reorgs: int
    balance: str  # wei


class BlockSummary(TypedDict):
    """A block of the chain."""

    height: int
    hash: str
    time: int
    miner: str  # the node's name, or the account of nobody here
    loss: int  # bits in Q16
    quiz: str | None
    received: dict[str, int]  # when each node had it replayed, by the node's name


class Propagation(TypedDict):
    """From a block's miner to another node's chain, its replay there included."""

    count: int
    median_ms: int
    p95_ms: int


class Summary(TypedDict):
    """What `--json` writes."""

    network_id: str
    model: str
    blocks_wanted: int
    agree: bool
    stopped: bool  # by a signal, before they could agree
    difference: str | None  # what differs, in one line; None if nothing does
    seconds: float
    nodes: list[NodeSummary]
    blocks: list[BlockSummary]
    side_blocks: int  # own blocks of all nodes that are not on the chain
    reorgs: int
    propagation: Propagation | None  # None: no block went from one node to another


def find_difference(nodes: Sequence[Observed], height: Height) -> str | None:
    """Return why the nodes do not agree on the block of a height, the last that is mined; None if they do."""
    for node in nodes:
        if node.status is None:
            return f"{node.name} has not answered yet"
        if node.status["height"] < height:
            return f"{node.name} is at height {node.status['height']} of {height}"
    heads = {node.status["head"]: node.name for node in reversed(nodes) if node.status is not None}
    if len(heads) > 1:
        (head, name), (other, other_name) = sorted(heads.items(), key=lambda item: item[1])[:2]
        return f"{name} and {other_name} have different blocks at height {height}: {head[:18]} and {other[:18]}"
    return None


def is_one_head(nodes: Sequence[Observed]) -> bool:
    """Whether every node has answered, and all name the same head."""
    heads = {node.status["head"] if node.status else None for node in nodes}
    return len(heads) == 1 and None not in heads


def compute_percentile(values: Sequence[Milliseconds], percent: int) -> Milliseconds:
    """Return the least of the values that so many percent of them do not exceed; 1 <= percent <= 100."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def get_miner_name(address: str, nodes: Sequence[Observed]) -> str:
    """Return the name of the node whose account this is, or the account itself."""
    return next((node.name for node in nodes if node.status and node.status["miner"] == address), address)


def make_summary(
    nodes: Sequence[Observed], height: Height, model: str, network_id: str, seconds: float, *, stopped: bool = False
) -> Summary:
    """Return what came of a run, whole or cut short.

    Args:
        nodes: with their last status and their chains.
        height: of the last block that was to be mined.
        model: its name.
        network_id: in hexadecimal.
        seconds: that it took.
        stopped: whether a signal ended it.
    """
    difference = find_difference(nodes, height)
    blocks = _describe_chain(nodes)
    known = [_describe_node(node, blocks) for node in nodes if node.status is not None]
    return Summary(
        network_id=network_id,
        model=model,
        blocks_wanted=height,
        agree=difference is None,
        stopped=stopped,
        difference=difference,
        seconds=round(seconds, 1),
        nodes=known,
        blocks=blocks,
        side_blocks=max(0, sum(node["mined"] - node["on_chain"] for node in known)),
        reorgs=sum(node["reorgs"] for node in known),
        propagation=_measure_propagation(blocks),
    )


def _describe_chain(nodes: Sequence[Observed]) -> list[BlockSummary]:
    """Return the longest chain; a node that has another block at a height received none of it."""
    longest = max((node.chain for node in nodes), key=len, default=[])
    received: dict[str, dict[str, int]] = {block["hash"]: {} for block in longest}
    for node in nodes:
        for block in node.chain:
            if block["hash"] in received and block["received"] is not None:
                received[block["hash"]][node.name] = block["received"]
    return [
        BlockSummary(
            height=block["height"],
            hash=block["hash"],
            time=block["time"],
            miner=get_miner_name(block["miner"], nodes),
            loss=block["loss"],
            quiz=block["quiz"],
            received=received[block["hash"]],
        )
        for block in longest
    ]


def _describe_node(node: Observed, blocks: Sequence[BlockSummary]) -> NodeSummary:
    status = node.status
    assert status is not None, "the caller has looked"
    return NodeSummary(
        name=node.name,
        miner=status["miner"],
        height=status["height"],
        head=status["head"],
        mined=status["mined"],
        on_chain=Counter(block["miner"] for block in blocks)[node.name],
        reorgs=status["reorgs"],
        balance=status["balance"],
    )


def _measure_propagation(blocks: Sequence[BlockSummary]) -> Propagation | None:
    times = [
        at - block["received"][block["miner"]]
        for block in blocks
        if block["miner"] in block["received"]
        for name, at in block["received"].items()
        if name != block["miner"]
    ]
    if not times:
        return None
    return Propagation(count=len(times), median_ms=compute_percentile(times, 50), p95_ms=compute_percentile(times, 95))
