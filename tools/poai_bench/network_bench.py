"""A real testnet, measured: `poai bench network`.

Every node is a `poaid run`, a process of its own, and all go by this machine's one clock. They are started and watched
as by `poaid testnet`; when all agree, their histograms are read, and pooled over nodes and rounds. A histogram counts
by bucket, so means are exact, medians are interpolated in their bucket, and the bucket of the largest value is known.
The limits that a node is to keep are bounds of buckets, so whether they are kept is known for certain.
"""

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import linear_regression, median
from typing import Any
from urllib.request import ProxyHandler, build_opener

import trio
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from poai_bench.engine_bench import find_model
from poai_bench.flags import BENCH_PERIOD
from poai_bench.measure import Say, Spread, describe_machine, read_memory
from poai_bench.replay_bench import choose_models
from poai_engine.engines.exact import count_processors
from poaid.api.asking import TIMEOUT_S, read_running
from poaid.errors import NodeError
from poaid.models import load_engine, locate_model
from poaid.network_file import Network
from poaid.testnet.local import (
    LocalTestnet,
    LocalTestnetPlan,
    choose_target,
    get_base_network,
    make_network,
    measure_rate,
)
from poaid.testnet.summary import Summary

NODES = {"mini": 8}
"""Processes of other models fill the memory sooner: `OTHER_NODES`."""
OTHER_NODES = 3
BLOCKS, QUICK_BLOCKS = 30, 10
ROUNDS, QUICK_ROUNDS = 3, 1
GROWTH_BLOCKS = 1_000
"""Blocks over which memory is watched. Bounded caches, of 512 blocks, fill in the first half; the second one counts."""
GROWTH_MODEL, GROWTH_NODES = "mini", 3
GROWTH_SAMPLES = 10
GROWTH_BLOCK_SECONDS = 0.03
"""What a block would take one node alone: less than it takes to the others, so many side blocks come, too."""
MEGABYTE = 1e6

PREFIX = "poai_"
OVERHEAD, WAIT, BATCH = "import_overhead_seconds", "verify_wait_seconds", "mining_batch_seconds"
TIMES = {
    WAIT: "wait for the model",
    "replay_seconds": "replay",
    OVERHEAD: "import beside the replay",
    "db_commit_seconds": "commit",
    BATCH: "batch of the miner",
}
"""The histograms, as people call them: the first three together are what a block takes at a hop."""
MEDIAN_LIMITS = {OVERHEAD: 0.02}
"""Seconds: an import is to be a small part of a forward pass, which takes SmolLM2 some 0.1 on a core."""
LARGEST_LIMITS = {WAIT: 1.5, BATCH: 1.5}
"""Seconds: a batch is cut to one, and a block that has come waits for no more than the batch that runs."""


@dataclass(frozen=True)
class Buckets:
    """A histogram.

    Attributes:
        bounds: upper ends, seconds, ascending; the last is infinite.
        counts: how many values are in each bucket, not added up.
        seconds: sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float

    def __add__(self, other: "Buckets") -> "Buckets":
        assert self.bounds == other.bounds, "nodes of one version have the same buckets"
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Buckets(self.bounds, counts, self.seconds + other.seconds)

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def get_bucket(self, index: int) -> tuple[float, float]:
        """Return the ends of a bucket."""
        return (self.bounds[index - 1] if index else 0.0), self.bounds[index]

    def find_median(self) -> tuple[float, int]:
        """Return the median, as if a bucket's values lay evenly in it, and the index of its bucket."""
        rank, below = self.count / 2, 0
        for index, count in enumerate(self.counts):
            if count and below + count >= rank:
                low, high = self.get_bucket(index)
                return (low if high == math.inf else low + (high - low) * (rank - below) / count), index
            below += count
        raise NodeError("the nodes have measured nothing: give more --blocks")

    def find_largest(self) -> int:
        """Return the index of the last bucket that has a value."""
        return max(index for index, count in enumerate(self.counts) if count)


def read_buckets(text: str) -> dict[str, Buckets]:
    """Return the histograms of `TIMES` in what `/metrics` answers."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix(PREFIX)
        if name not in TIMES:
            continue
        sums = {float(s.labels["le"]): int(s.value) for s in family.samples if s.name.endswith("_bucket")}
        bounds = tuple(sorted(sums))
        counts = tuple(sums[bound] - (sums[bounds[n - 1]] if n else 0) for n, bound in enumerate(bounds))
        seconds = next(s.value for s in family.samples if s.name.endswith("_sum"))
        found[name] = Buckets(bounds, counts, seconds)
    return found


def pool(found: Sequence[dict[str, Buckets]]) -> dict[str, Buckets]:
    """Add up what several nodes have measured."""
    first, *others = found
    return {name: sum((other[name] for other in others), first[name]) for name in TIMES}


def describe(name: str, buckets: Buckets) -> dict[str, Any]:
    """Return what is known of a histogram's values, seconds; an infinite end is None."""
    value, index = buckets.find_median()
    inside, largest = buckets.get_bucket(index), buckets.get_bucket(buckets.find_largest())
    kept: bool | None = None
    if name in MEDIAN_LIMITS:
        kept = inside[1] <= MEDIAN_LIMITS[name]
    elif name in LARGEST_LIMITS:
        kept = largest[1] <= LARGEST_LIMITS[name]
    ends = [[low, None if high == math.inf else high] for low, high in (inside, largest)]
    return {
        "count": buckets.count, "mean": buckets.seconds / buckets.count, "median": value,
        "median_bucket": ends[0], "largest_bucket": ends[1], "kept": kept,
        "buckets": [[None if b == math.inf else b, n] for b, n in zip(buckets.bounds, buckets.counts, strict=True)],
    }  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """What a process has, bytes; None where the kernel does not tell.

    Attributes:
        height: of the node's head then.
        rss: resident, shared pages and mapped files included.
        peak: the most that was resident so far.
        pss: the same, with each page divided by the number of processes that have it.
    """

    height: int
    rss: int | None
    peak: int | None
    pss: int | None


def get_memory(data_dir: Path, height: int) -> Memory:
    """Return the memory of the node that runs in a data directory."""
    running = read_running(data_dir)
    folder = Path("/proc") / str(running.pid if running is not None else 0)
    status, pages = folder / "status", folder / "smaps_rollup"
    return Memory(height, read_memory(status, "VmRSS"), read_memory(status, "VmHWM"), read_memory(pages, "Pss"))


class Watch:
    """Looks at the nodes of a testnet while they run, and once more when they agree.

    Args:
        net: not yet started.
        folders: the nodes' data directories.
        step: blocks between two looks at a node's memory.

    Attributes:
        samples: a node's memory, each `step` blocks or when it was first seen to be higher.
        last: every node's memory when they agree.
        buckets: every node's histograms then.
    """

    def __init__(self, net: LocalTestnet, folders: Sequence[Path], step: int) -> None:
        self._net, self._folders, self._step = net, folders, step
        self.samples: list[list[Memory]] = [[] for _ in folders]
        self.last: list[Memory] = []
        self.buckets: list[dict[str, Buckets]] = []
        net.show, net.on_agreed = self.look, self.finish

    def look(self) -> None:
        """Note the memory of nodes that have come a step further."""
        for node, folder, samples in zip(self._net.nodes, self._folders, self.samples, strict=True):
            height = node.status["height"] if node.status is not None else 0
            if height // self._step > (samples[-1].height // self._step if samples else 0):
                samples.append(get_memory(folder, height))

    async def finish(self) -> None:
        """Read the histograms and the memory of all; what goes wrong is the testnet's fault."""
        try:
            for node, folder in zip(self._net.nodes, self._folders, strict=True):
                text = await trio.to_thread.run_sync(fetch_metrics, node.url)
                self.buckets.append(read_buckets(text))
                assert node.status is not None, "they agree"
                self.last.append(get_memory(folder, node.status["height"]))
        except OSError as error:
            self._net.fault = f"a node does not tell its metrics: {error}"
        self.look()


def fetch_metrics(url: str) -> str:
    """Return a node's metrics in Prometheus' text format; never through a proxy."""
    with build_opener(ProxyHandler({})).open(f"{url}/metrics", timeout=TIMEOUT_S) as answer:
        text: str = answer.read().decode("utf-8")
    return text


def run_testnet(network: Network, model: str, nodes: int, blocks: int, step: int) -> tuple[Summary, Watch]:
    """Run nodes to a height; return what came of it and what was seen meanwhile.

    Raises:
        NodeError: they did not agree, or a signal has ended them.
    """
    with tempfile.TemporaryDirectory(prefix="poai-bench-") as text:
        folder = Path(text)
        net = LocalTestnet(LocalTestnetPlan(folder, network, model, nodes, blocks, max(1, count_processors() // nodes)))
        watch = Watch(net, [folder / f"node-{n}" for n in range(nodes)], step)
        trio.run(net.run)
        if net.signal is not None:
            raise NodeError(f"signal {net.signal} has ended the testnet before its end: measure again")
        if net.fault is not None:
            raise NodeError(net.fault)
        return net.get_summary(), watch


def get_rate(network: Network, model: str) -> float:
    """Return quizzes a second on the whole machine; the model is unmapped again, else it would count in every PSS."""
    return measure_rate(load_engine(model, network.get_rules(), None), network.get_rules(), network.questions)


def prepare_network(model: str, block_seconds: float | None) -> tuple[Network, str]:
    """Return a network whose target stays, and how its nodes find the model.

    Args:
        model: name or path.
        block_seconds: what a block takes; None for what `poaid testnet` gives it.
    """
    base = get_base_network(model)
    base = replace(base, config=replace(base.config, retarget_blocks=BENCH_PERIOD))
    source = locate_model(model, base.config.model)
    rate = get_rate(base, source)
    if block_seconds is None:
        return make_network(base, choose_target(rate, base.config)), source
    return make_network(base, 2**256 // max(4, round(rate * block_seconds))), source


def run(
    models: Sequence[str], nodes: int | None, blocks: int, rounds: int, growth_blocks: int, say: Say
) -> dict[str, Any]:
    """Measure testnets one after another.

    Args:
        models: names or paths; none for mini, and SmolLM2 if its file is there.
        nodes: of each testnet; None for `NODES`.
        blocks: height at which a testnet ends.
        rounds: testnets of each model.
        growth_blocks: blocks over which memory is watched; 0 leaves that out.
        say: takes one line of progress.

    Returns:
        `results`: by model, propagation, times and memory; `growth`: memory over many blocks, or None.

    Raises:
        ModelError: a model's file is missing or damaged.
        NodeError: nodes did not agree, or a signal has ended them.
    """
    machine = describe_machine()
    results = [measure(model, nodes or NODES.get(model, OTHER_NODES), blocks, rounds, say)
               for model in models or choose_models()]  # fmt: skip
    growth = measure_growth(nodes or GROWTH_NODES, growth_blocks, say) if growth_blocks else None
    return {"bench": "network", "machine": machine, "results": results, "growth": growth}


def measure(model: str, nodes: int, blocks: int, rounds: int, say: Say) -> dict[str, Any]:
    """Run some testnets of a model; return its propagation, times and memory."""
    find_model(model, say)
    summaries, buckets, watch = list[Summary](), list[dict[str, Buckets]](), None
    for number in range(rounds):
        say(f"{model}: {nodes} nodes, {blocks} blocks, round {number + 1} of {rounds}")
        network, source = prepare_network(model, None)
        summary, watch = run_testnet(network, source, nodes, blocks, step=blocks)
        summaries.append(summary)
        buckets += watch.buckets
    assert watch is not None, "at least one round"
    times = pool(buckets)
    return {
        "model": model, "nodes": nodes, "blocks": blocks, "rounds": rounds,
        "propagation": describe_propagation(summaries),
        "times": {name: describe(name, times[name]) for name in TIMES},
        "memory": [asdict(memory) for memory in watch.last],
        "side_blocks": sum(summary["side_blocks"] for summary in summaries),
        "seconds": [summary["seconds"] for summary in summaries],
    }  # fmt: skip


def describe_propagation(summaries: Iterable[Summary]) -> dict[str, Any]:
    """Return how long blocks took from their miner's chain to another node's, ms: spreads over the rounds.

    Raises:
        NodeError: in some round, no block went from one node to another.
    """
    found = [summary["propagation"] for summary in summaries]
    known = [propagation for propagation in found if propagation is not None]
    if len(known) < len(found):
        raise NodeError("no block went from one node to another: give more --blocks and at least 2 --nodes")
    return {
        "count": sum(each["count"] for each in known),
        "median_ms": asdict(Spread.of(each["median_ms"] for each in known)),
        "p95_ms": asdict(Spread.of(each["p95_ms"] for each in known)),
    }


def measure_growth(nodes: int, blocks: int, say: Say) -> dict[str, Any]:
    """Run a testnet of many quick blocks; return each node's memory on the way, and how much a block adds."""
    say(f"{GROWTH_MODEL}: {nodes} nodes, {blocks} blocks, for their memory")
    find_model(GROWTH_MODEL, say)
    network, source = prepare_network(GROWTH_MODEL, GROWTH_BLOCK_SECONDS)
    summary, watch = run_testnet(network, source, nodes, blocks, max(1, blocks // GROWTH_SAMPLES))
    return {
        "model": GROWTH_MODEL, "nodes": nodes, "blocks": blocks, "seconds": summary["seconds"],
        "side_blocks": summary["side_blocks"],
        "samples": [[asdict(memory) for memory in samples] for samples in watch.samples],
        "bytes_a_block": [compute_slope(samples, blocks // 2) for samples in watch.samples],
    }  # fmt: skip


def compute_slope(samples: Iterable[Memory], start: int) -> float | None:
    """Return the bytes that a block adds from a height on, by least squares; None for fewer than two samples there."""
    known = [(m.height, m.rss) for m in samples if m.rss is not None and m.height >= start]
    if len({height for height, _ in known}) < 2:
        return None
    return linear_regression(*zip(*known, strict=True)).slope


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as tables."""
    results = result["results"]
    tables = [_make_propagation_table(results), _make_times_table(results), _make_memory_table(results)]
    return tables if result["growth"] is None else [*tables, _make_growth_table(result["growth"])]


def _make_propagation_table(results: Iterable[dict[str, Any]]) -> Table:
    columns = ("model", "nodes", "blocks", "pairs", "median, ms (rounds)", "95 % within, ms (rounds)", "side blocks")
    table = Table(*columns, title="From a block's miner to another node's chain")
    for row in results:
        found = row["propagation"]
        spreads = (f"{s['median']:.0f} ({s['low']:.0f}-{s['high']:.0f})" for s in (found["median_ms"], found["p95_ms"]))
        numbers = row["nodes"], row["rounds"] * row["blocks"], found["count"]
        table.add_row(row["model"], *map(str, numbers), *spreads, str(row["side_blocks"]))
    return table


def _make_times_table(results: Iterable[dict[str, Any]]) -> Table:
    columns = ("model", "what", "times", "mean, ms", "median, ms", "median's bucket", "largest's bucket", "limit")
    table = Table(*columns, title="In the nodes")
    for row in results:
        for name, found in row["times"].items():
            numbers = f"{found['mean'] * 1000:.1f}", f"{found['median'] * 1000:.1f}"
            buckets = (_format_bucket(found[key]) for key in ("median_bucket", "largest_bucket"))
            limit = _format_limit(name, kept=found["kept"])
            table.add_row(row["model"], TIMES[name], f"{found['count']:,}", *numbers, *buckets, limit)
    return table


def _format_bucket(ends: Sequence[float | None]) -> str:
    low, high = ("" if end is None else f"{end * 1000:g}" for end in ends)
    return f"{low}-{high}" if high else f"over {low}"


def _format_limit(name: str, *, kept: bool | None) -> str:
    if kept is None:
        return ""
    which, limit = ("median", MEDIAN_LIMITS[name]) if name in MEDIAN_LIMITS else ("largest", LARGEST_LIMITS[name])
    return f"{which} {limit * 1000:g}: {'kept' if kept else 'NOT KEPT'}"


def _make_memory_table(results: Iterable[dict[str, Any]]) -> Table:
    table = Table("model", "nodes", "RSS, MB", "highest peak, MB", "PSS, MB", title="Memory of a node")
    for row in results:
        nodes = row["memory"]
        values = {key: [node[key] for node in nodes if node[key] is not None] for key in ("rss", "peak", "pss")}
        shown = (
            _format_memory(median(values["rss"]) if values["rss"] else None),
            _format_memory(max(values["peak"], default=None)),
            _format_memory(median(values["pss"]) if values["pss"] else None),
        )
        table.add_row(row["model"], str(row["nodes"]), *shown)
    return table


def _format_memory(value: float | None) -> str:
    return "-" if value is None else f"{value / MEGABYTE:.1f}"


def _make_growth_table(growth: dict[str, Any]) -> Table:
    names = (f"node {n}, MB" for n in range(growth["nodes"]))
    table = Table("height", *names, title=f"RSS over {growth['blocks']:,} blocks of {growth['model']}")
    for samples in zip(*growth["samples"], strict=False):
        table.add_row(str(samples[0]["height"]), *(_format_memory(sample["rss"]) for sample in samples))
    slopes = (None if slope is None else slope * 1000 for slope in growth["bytes_a_block"])
    table.add_row(f"from {growth['blocks'] // 2} on, per 1,000 blocks", *map(_format_memory, slopes))
    return table
