"""The metrics, and that the dashboard asks for nothing else."""

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from poai_engine.models.gguf_file import read_vocabulary
from poai_spec.basics.notation import Invalid
from poai_tools.spec.pages import list_pages
from poaid.metrics import BLOCK_CODES, PREFIX, Metrics, Protocol, Result, Source, Verdict
from poaid.net.handlers import Refusal
from poaid.view import StatusView
from tests.harness.memory_view import MemoryView
from tests.harness.node import MINER
from tests.unit.poaid.conftest import MinedChain

ROOT = Path(__file__).parents[3]
NAME = re.compile(rf"\b{PREFIX}_\w+")
ON_LINUX = Path("/proc/self/stat").exists()  # the process's own numbers come from there


@pytest.fixture
def status(mined: MinedChain, mini_path: Path) -> StatusView:
    view = MemoryView(mined.judge, mined.headers, mined.blocks, read_vocabulary(mini_path), MINER, height=8)
    return view.get_status()


def read(text: bytes) -> dict[tuple[str, ...], float]:
    """Return the samples by name and the values of their labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def touch(metrics: Metrics) -> None:
    """Let everything that can happen to a node happen once."""
    metrics.quizzes.inc(4)
    metrics.blocks_mined.inc()
    metrics.bans.inc()
    for source in get_args(Source):
        metrics.block_imported(source)
    for verdict in get_args(Verdict):
        metrics.gossip(verdict)
    for reason in get_args(Refusal):
        metrics.connection_refused(reason)
    for protocol in get_args(Protocol):
        for result in get_args(Result):
            metrics.request(protocol, result)
    metrics.block_rejected(Invalid("difficulty/target", "3 is not 4"))
    metrics.reorg(2)
    for histogram in (
        metrics.replay_seconds,
        metrics.import_overhead_seconds,
        metrics.propagation_seconds,
        metrics.mining_batch_seconds,
        metrics.verify_wait_seconds,
        metrics.db_commit_seconds,
    ):
        histogram.observe(0.3)


def test_gauges_are_read_from_the_status(status: StatusView) -> None:
    status["sync"] = {"height": 8, "goal": 20, "blocks_left": 12, "seconds_left": None}
    samples = read(Metrics().render(status))
    assert samples["poai_height",] == 8
    assert samples["poai_head_timestamp_seconds",] == status["head_time"] / 1000
    assert samples["poai_work_quizzes",] == int(status["work"])
    assert samples["poai_target_ratio",] == int(status["target"], 16) / 2**256
    assert samples["poai_spacing_seconds",] == 1
    assert samples["poai_peers",] == 2
    assert samples["poai_sync_blocks_left",] == 12


def test_activity_is_one_of_its_series(status: StatusView) -> None:
    metrics = Metrics()
    metrics.render(status)
    status["activity"] = "stalled"
    samples = read(metrics.render(status))
    series = {labels[0]: value for (name, *labels), value in samples.items() if name == "poai_activity"}
    assert series == {"mining": 0, "syncing": 0, "stalled": 1, "idle": 0}


def test_what_happened_once_is_counted_once(status: StatusView) -> None:
    metrics = Metrics()
    touch(metrics)
    samples = read(metrics.render(status))
    assert samples["poai_quizzes_total",] == 4
    assert samples["poai_blocks_imported_total", "gossip"] == 1
    assert samples["poai_blocks_rejected_total", "difficulty/target"] == 1
    assert samples["poai_gossip_messages_total", "reject"] == 1
    assert samples["poai_requests_total", "headers", "failed"] == 1
    assert samples["poai_reorgs_total",] == 1
    assert samples["poai_reorg_depth_blocks_sum",] == 2
    assert samples["poai_replay_seconds_count",] == 1
    assert samples["poai_replay_seconds_bucket", "0.25"] == 0
    assert samples["poai_replay_seconds_bucket", "0.5"] == 1


def test_every_series_is_there_before_anything_happens(status: StatusView) -> None:
    metrics = Metrics()
    untouched = read(metrics.render(status)).keys()
    touch(metrics)
    assert read(metrics.render(status)).keys() - untouched == set()


def test_the_rules_that_a_block_may_break_are_those_of_the_pages() -> None:
    """A counter that begins at 1 hides its first count from `rate`."""
    pages = list_pages(ROOT / "specs")
    judging = "body", "difficulty", "encoding", "fork-choice", "header", "state", "work"
    raised = re.compile(r'(?:Invalid|Malformed|NotYet)\(\s*"([a-z-]+/[a-z0-9-]+)"')
    found = {code for page in judging for code in raised.findall(pages[page].read_text("utf-8"))}
    others = {"llama-profile/nan", "networking/block-size"}  # of pages that say more than how a block is judged
    assert set(BLOCK_CODES) == found - {"work/engine", "difficulty/cost"} | others
    assert list(BLOCK_CODES) == sorted(set(BLOCK_CODES))


def test_every_name_begins_with_the_project(status: StatusView) -> None:
    assert [name for name, *_ in read(Metrics().render(status)) if not name.startswith("poai_")] == []


def test_two_nodes_in_one_process_count_apart(status: StatusView) -> None:
    first, second = Metrics(), Metrics()
    first.bans.inc()
    assert read(second.render(status))["poai_bans_total",] == 0


def read_dashboard() -> dict[str, Any]:
    data = (resources.files("poaid") / "grafana" / "dashboard.json").read_text("utf-8")
    return dict(json.loads(data))


def get_expressions() -> Iterator[tuple[str, str]]:
    for panel in read_dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("title", "expression"), list(get_expressions()))
def test_the_exporter_has_what_a_panel_asks_for(title: str, expression: str, status: StatusView) -> None:
    metrics = Metrics()
    touch(metrics)
    names = set(NAME.findall(expression))
    assert names, f"{title}: no metric in {expression}"
    if not ON_LINUX:
        names = {name for name in names if not name.startswith(f"{PREFIX}_process_")}
    assert names <= {name for name, *_ in read(metrics.render(status))}, title


def test_the_dashboard_shows_every_metric(status: StatusView) -> None:
    shown = set(NAME.findall(json.dumps(read_dashboard())))
    families = text_string_to_metric_families(Metrics().render(status).decode())
    names = {family.name for family in families if "_process_" not in family.name}
    assert {name for name in names if not any(text.startswith(name) for text in shown)} == set()


def test_the_dashboard_leaves_the_data_source_to_its_user() -> None:
    dashboard = read_dashboard()
    assert "datasource" in [variable["name"] for variable in dashboard["templating"]["list"]]
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}, panel["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
