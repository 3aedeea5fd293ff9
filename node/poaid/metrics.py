"""The numbers of a node for Prometheus, at `/metrics`; `grafana/dashboard.json` draws them.

Counters and histograms are attributes or methods that the node calls where something happens. Gauges are not kept: each
scrape reads them from the node's own status, so there is one source for both. Every label takes its values from a fixed
set, so a peer cannot make series; all of them exist from the start, since a rate needs a zero to begin at.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from poai_spec.basics.notation import SpecError
from poaid.net.handlers import Refusal
from poaid.view import Activity, StatusView

PREFIX = "poai"

Source = Literal["gossip", "sync", "mined"]
Verdict = Literal["accept", "ignore", "reject"]
Protocol = Literal["status", "headers", "blocks", "goodbye"]
Result = Literal["ok", "failed", "refused"]
"""How a request that this node sent ended: answered; too late or a broken stream; the peer said no."""

REPLAY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 5, 10, 30, 60)
"""Seconds: a forward pass takes 0.05 for SmolLM2 on two cores, some 10 for TinyLlama on a small machine.

1.5 is a bound because no block is to wait longer for a batch of the miner's."""
OVERHEAD_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1)
"""Seconds: checks, accounts and one commit, milliseconds unless the disk is slow; more than 0.02 is too much."""
PROPAGATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
"""Seconds: one replay a hop. It compares two clocks, so a negative time lies in the first bucket."""
REORG_BUCKETS = (1, 2, 3, 5, 8, 13, 21, 55, 144)
"""Blocks left behind; a network that is in order rarely passes 3."""


BLOCK_CODES = (
    "body/root", "body/transactions-not-active",
    "difficulty/period-not-forward", "difficulty/target",
    "encoding/undecodable",
    "fork-choice/invalid-ancestor", "fork-choice/known-invalid", "fork-choice/lighter",
    "fork-choice/parent-not-replayed", "fork-choice/too-many-headers", "fork-choice/unknown-parent",
    "header/future", "header/height", "header/median-time", "header/parent", "header/version",
    "llama-profile/nan",
    "networking/block-size",
    "state/root",
    "work/l-hat", "work/loss", "work/trace", "work/trace-digest", "work/trace-length",
)  # fmt: skip
"""The rules that a block may break."""


class Description(NamedTuple):
    """What a metric is."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Metrics:
    """The metrics of one node, in a registry of their own.

    Attributes:
        registry: all of them, as Prometheus's client keeps them.
        quizzes: forward passes for mining.
        blocks_mined: own blocks.
        replay_seconds: one forward pass that checks a block.
        import_overhead_seconds: everything else that an imported block takes, the commit included.
        propagation_seconds: from a gossiped block's time stamp to its receipt.
        mining_batch_seconds: one batch of quizzes; no block waits longer for the model.
        verify_wait_seconds: how long a block waited for the model.
        db_commit_seconds: one transaction, with its fsync.
        bans: peers banned.
        bugs: errors of our own code that a message met.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of creation beside each series: nobody reads it
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self._make_chain_metrics()
        self._make_network_metrics()
        self._gauges = dict(self._make_gauges())
        self._activity = Gauge(
            f"{PREFIX}_activity", "1 for what the node is doing.", ["activity"], registry=self.registry
        )
        self._info = Gauge(
            f"{PREFIX}_build_info",
            "Always 1; version and network are its labels.",
            ["version", "network", "network_id", "profile"],
            registry=self.registry,
        )

    def _make_chain_metrics(self) -> None:
        self.quizzes = self._count("quizzes", "Quizzes run for mining.")
        self.blocks_mined = self._count("blocks_mined", "Blocks mined by this node.")
        self.mining_batch_seconds = self._time("mining_batch", "A batch of quizzes.", REPLAY_BUCKETS)
        self.verify_wait_seconds = self._time("verify_wait", "A block's wait for the model.", REPLAY_BUCKETS)
        self.replay_seconds = self._time("replay", "A forward pass that checks a block.", REPLAY_BUCKETS)
        self.import_overhead_seconds = self._time(
            "import_overhead", "What importing a block takes beside its forward pass.", OVERHEAD_BUCKETS
        )
        self.db_commit_seconds = self._time("db_commit", "A transaction of the store.", OVERHEAD_BUCKETS)
        self.propagation_seconds = self._time(
            "propagation", "From a gossiped block's time stamp to its receipt.", PROPAGATION_BUCKETS
        )
        self._imported = self._count("blocks_imported", "Blocks that became part of the tree.", "source")
        self._rejected = self._count(
            "blocks_rejected", "Blocks refused, by the rule that they broke (docs/rejection-codes.md).", "code"
        )
        self._reorgs = self._count("reorgs", "Head changes that left a block behind.")
        self._reorg_depth = Histogram(
            f"{PREFIX}_reorg_depth_blocks",
            "Blocks that a head change left behind.",
            buckets=REORG_BUCKETS,
            registry=self.registry,
        )
        for source in get_args(Source):
            self._imported.labels(source)
        for code in BLOCK_CODES:
            self._rejected.labels(code)

    def _make_network_metrics(self) -> None:
        self.bans = self._count("bans", "Peers banned.")
        self.bugs = self._count("bugs", "Errors of the program's own that a peer's message met; 0 unless it has a bug.")
        self._gossip = self._count("gossip_messages", "Gossiped messages, by what became of them.", "verdict")
        self._refused = self._count("connections_refused", "Inbound connections closed for their number.", "reason")
        self._requests = self._count("requests", "Requests sent to peers.", "protocol", "result")
        for verdict in get_args(Verdict):
            self._gossip.labels(verdict)
        for reason in get_args(Refusal):
            self._refused.labels(reason)
        for protocol in get_args(Protocol):
            for result in get_args(Result):
                self._requests.labels(protocol, result)

    def _make_gauges(self) -> Iterator[tuple[str, Gauge]]:
        helps = {
            "height": "Height of the head.",
            "head_timestamp_seconds": "Time stamp of the head, seconds since 1970.",
            "work_quizzes": "Expected number of quizzes behind the head.",
            "target_ratio": "Share of all hashes that is below the target of the next block.",
            "spacing_seconds": "Intended time between blocks.",
            "peers": "Connected peers.",
            "orphans": "Blocks whose parent is not known.",
            "waiting_headers": "Headers that passed every check but the replay.",
            "side_blocks": "Replayed blocks that are not ancestors of the head.",
            "sync_blocks_left": "Blocks to replay before the node has caught up.",
        }
        for name, text in helps.items():
            yield name, Gauge(f"{PREFIX}_{name}", text, registry=self.registry)

    def _count(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)  # the library appends _total

    def _time(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{PREFIX}_{name}_seconds", text, buckets=buckets, registry=self.registry)

    def block_imported(self, source: Source) -> None:
        """Count a block that became part of the tree, by where it came from."""
        self._imported.labels(source).inc()

    def block_rejected(self, error: SpecError) -> None:
        """Count a refused block by the rule."""
        self._rejected.labels(error.code).inc()

    def reorg(self, depth: int) -> None:
        """Count a head change that left `depth` >= 1 blocks behind."""
        self._reorgs.inc()
        self._reorg_depth.observe(depth)

    def gossip(self, verdict: Verdict) -> None:
        """Count a gossiped message."""
        self._gossip.labels(verdict).inc()

    def connection_refused(self, reason: Refusal) -> None:
        """Count an inbound connection that was closed because of how many there are."""
        self._refused.labels(reason).inc()

    def request(self, protocol: Protocol, result: Result) -> None:
        """Count a request that this node sent."""
        self._requests.labels(protocol, result).inc()

    def describe(self) -> list[Description]:
        """Return what every metric is, by name; whether it has a value yet does not matter."""
        collectors = self.registry._names_to_collectors  # the library tells labels nowhere else
        return [
            Description(
                family.name + ("_total" if family.type == "counter" else ""), family.type,
                getattr(collectors.get(family.name), "_labelnames", ()), family.documentation,
            )
            for family in sorted(self.registry.collect(), key=lambda family: family.name)
        ]  # fmt: skip

    def render(self, status: StatusView) -> bytes:
        """Return all metrics in Prometheus' text format, the gauges as the status says."""
        values = {
            "height": status["height"],
            "head_timestamp_seconds": status["head_time"] / 1_000,
            "work_quizzes": int(status["work"]),
            "target_ratio": int(status["target"], 16) / 2**256,
            "spacing_seconds": status["spacing"] / 1_000,
            "peers": status["peer_count"],
            "orphans": status["orphans"],
            "waiting_headers": status["waiting"],
            "side_blocks": status["side_blocks"],
            "sync_blocks_left": status["sync"]["blocks_left"] if status["sync"] else 0,
        }
        for name, value in values.items():
            self._gauges[name].set(value)
        for activity in get_args(Activity):
            self._activity.labels(activity).set(activity == status["activity"])
        self._info.labels(status["version"], status["network"], status["network_id"], status["profile"]).set(1)
        return generate_latest(self.registry)
