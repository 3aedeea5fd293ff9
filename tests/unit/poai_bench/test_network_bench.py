"""The bench of the network: what it reads, concludes and prints; one small testnet is real."""

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from poai_bench import network_bench
from poai_bench.network_bench import Buckets, Memory, compute_slope, describe, pool, read_buckets
from poai_tools import cli
from poaid.errors import NodeError
from poaid.metrics import Metrics
from poaid.testnet.local import LocalTestnet
from poaid.testnet.summary import Propagation, Summary
from poaid.view import StatusView

BOUNDS = (0.01, 0.02, 0.05, math.inf)

pytestmark = pytest.mark.sockets


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["bench", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def make_buckets(*counts: int) -> Buckets:
    return Buckets(BOUNDS, counts, 1.5)


def render(metrics: Metrics) -> str:
    """Return what a node at genesis with these metrics answers."""
    status = {
        "height": 0, "head_time": 0, "work": "0", "target": "0x1", "spacing": 1000, "peer_count": 0, "orphans": 0,
        "waiting": 0, "side_blocks": 0, "sync": None, "activity": "idle", "version": "", "network": "",
        "network_id": "", "profile": "",
    }  # fmt: skip
    return metrics.render(cast(StatusView, status)).decode()


def make_summary(median_ms: int | None) -> Summary:
    found = None if median_ms is None else Propagation(count=4, median_ms=median_ms, p95_ms=2 * median_ms)
    return cast(Summary, {"propagation": found})


# Histograms.


@pytest.mark.parametrize(
    ("counts", "value", "index", "largest"),
    [
        ((4, 0, 0, 0), 0.005, 0, 0),
        ((1, 2, 1, 0), 0.015, 1, 2),
        ((2, 0, 2, 0), 0.01, 0, 2),
        ((0, 0, 4, 1), 0.02 + 0.03 * 2.5 / 4, 2, 3),
        ((0, 0, 1, 2), 0.05, 3, 3),
    ],
)
def test_median_and_largest(counts: tuple[int, ...], value: float, index: int, largest: int) -> None:
    buckets = make_buckets(*counts)
    assert buckets.find_median()[0] == pytest.approx(value)
    assert buckets.find_median()[1] == index
    assert buckets.find_largest() == largest


def test_what_was_never_measured_has_no_median() -> None:
    with pytest.raises(NodeError, match="give more --blocks"):
        make_buckets(0, 0, 0, 0).find_median()


def test_the_metrics_of_a_node_are_read() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.015, 0.016):
        metrics.import_overhead_seconds.observe(seconds)
    metrics.reorg(2)
    found = read_buckets(render(metrics))
    assert found.keys() == network_bench.TIMES.keys()
    overhead = found[network_bench.OVERHEAD]
    assert overhead.count == 3
    assert overhead.seconds == pytest.approx(0.035)
    assert {overhead.get_bucket(n): count for n, count in enumerate(overhead.counts) if count} == {
        (0.0025, 0.005): 1, (0.01, 0.02): 2}  # fmt: skip
    assert overhead.bounds[-1] == math.inf


def test_every_limit_is_a_bound_of_its_histogram() -> None:
    found = read_buckets(render(Metrics()))
    for name, limit in (network_bench.MEDIAN_LIMITS | network_bench.LARGEST_LIMITS).items():
        assert limit in found[name].bounds, name


def test_nodes_are_pooled() -> None:
    node = dict.fromkeys(network_bench.TIMES, make_buckets(1, 2, 0, 0))
    pooled = pool([node, node, node])
    assert set(pooled.values()) == {Buckets(BOUNDS, (3, 6, 0, 0), 4.5)}


@pytest.mark.parametrize(
    ("name", "counts", "kept"),
    [
        (network_bench.OVERHEAD, (0, 3, 2, 0), True),
        (network_bench.OVERHEAD, (0, 2, 3, 0), False),
        ("replay_seconds", (0, 2, 3, 0), None),
        (network_bench.WAIT, (0, 2, 3, 0), True),
        (network_bench.WAIT, (0, 2, 3, 1), False),
        (network_bench.BATCH, (0, 2, 3, 1), False),
    ],
)
def test_limits(name: str, counts: tuple[int, ...], kept: bool | None) -> None:
    found = describe(name, make_buckets(*counts))
    assert found["kept"] is kept
    assert found["mean"] == pytest.approx(1.5 / sum(counts))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# Propagation and memory.


def test_propagation_over_the_rounds() -> None:
    found = network_bench.describe_propagation([make_summary(30), make_summary(10), make_summary(20)])
    assert found["count"] == 12
    assert found["median_ms"] == {"median": 20, "low": 10, "high": 30, "count": 3}
    assert found["p95_ms"]["median"] == 40


def test_a_round_without_propagation_is_said() -> None:
    with pytest.raises(NodeError, match="2 --nodes"):
        network_bench.describe_propagation([make_summary(30), make_summary(None)])


def test_slope() -> None:
    line = [Memory(height, 1_000_000 + 700 * height, None, None) for height in (100, 203, 300)]
    full = [Memory(10, 0, None, None), *line]
    assert compute_slope(line, 0) == compute_slope(full, 100) == pytest.approx(700)
    assert compute_slope([Memory(100, None, None, None), Memory(200, 5, None, None)], 0) is None
    assert compute_slope(line, 300) is None


def test_memory_of_no_process(tmp_path: Path) -> None:
    assert network_bench.get_memory(tmp_path, 7) == Memory(7, None, None, None)


def make_result() -> dict[str, Any]:
    memory = {"height": 10, "rss": 200_000_000, "peak": None, "pss": 90_500_000}
    return {
        "bench": "network", "machine": {},
        "results": [{
            "model": "mini", "nodes": 3, "blocks": 10, "rounds": 2, "side_blocks": 1, "seconds": [9.0, 8.0],
            "propagation": network_bench.describe_propagation([make_summary(30), make_summary(10)]),
            "times": {name: describe(name, make_buckets(1, 2, 0, 1)) for name in network_bench.TIMES},
            "memory": [memory, memory, memory],
        }],
        "growth": {
            "model": "mini", "nodes": 2, "blocks": 20, "seconds": 4.0, "side_blocks": 3,
            "samples": [[memory], [memory]], "bytes_a_block": [1024.0, None],
        },
    }  # fmt: skip


def test_a_kept_result_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_text(json.dumps(make_result()))
    code, output = run("show", file, "--markdown")
    assert code == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line.startswith("|")]
    assert ["mini", "3", "20", "8", "20 (10-30)", "40 (20-60)", "1"] in rows
    assert ["mini", "import beside the replay", "4", "375.0", "15.0", "10-20", "over 50", "median 20: kept"] in rows
    assert [row[-1] for row in rows if row[1:2] == ["wait for the model"]] == ["largest 1500: NOT KEPT"]
    assert ["mini", "3", "200.0", "-", "90.5"] in rows
    assert ["10", "200.0", "200.0"] in rows
    assert ["from 10 on, per 1,000 blocks", "1.0", "-"] in rows


# The command.


@pytest.mark.parametrize(
    "flags", [("--nodes", 1), ("--nodes", 33), ("--blocks", 0), ("--blocks", 513), ("--rounds", 0)]
)
def test_wrong_usage(flags: tuple[object, ...]) -> None:
    assert run("network", *flags)[0] == 2


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ((), ([], None, 30, 3, 1_000)),
        (("--quick",), (["mini"], 3, 10, 1, 0)),
        (("--quick", "--model", "smollm2", "--nodes", 2, "--growth-blocks", 40), (["smollm2"], 2, 10, 1, 40)),
        (("--blocks", 7, "--rounds", 2, "--growth-blocks", 0), ([], None, 7, 2, 0)),
    ],
)
def test_what_is_measured(flags: tuple[object, ...], given: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def note(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments[:-1])
        return make_result()

    monkeypatch.setattr(network_bench, "run", note)
    assert run("network", *flags)[0] == 0
    assert calls == [given]


@pytest.mark.slow
def test_a_real_testnet(tmp_path: Path) -> None:
    file = tmp_path / "r"
    flags = ("--quick", "--nodes", 2, "--blocks", 3, "--growth-blocks", 20)
    assert run("network", *flags, "--json", file)[0] == 0
    result = json.loads(file.read_text())
    (row,) = result["results"]
    assert row["propagation"]["count"] == 3
    assert row["times"][network_bench.WAIT]["count"] >= 3, "each block is verified by the other node"
    assert row["times"][network_bench.OVERHEAD]["count"] >= 6
    assert len(row["memory"]) == 2
    growth = result["growth"]
    assert growth["side_blocks"] >= 0
    for samples in growth["samples"]:
        heights = [sample["height"] for sample in samples]
        assert heights == sorted(set(heights))
        assert heights[-1] == 20
    if Path("/proc/self/smaps_rollup").exists():
        memory = row["memory"][0]
        assert 20e6 < memory["pss"] < memory["rss"] <= memory["peak"] < 2e9


def test_what_ends_a_testnet_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(net: Any) -> None:
        net.fault = "node 1 ended with exit status 1"

    monkeypatch.setattr(LocalTestnet, "run", die)
    with pytest.raises(NodeError, match="node 1 ended"):
        run("network", "--quick")
