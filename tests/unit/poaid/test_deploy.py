"""What lies in deploy/: whatever reads a file here finds it as it should be, and every name in it exists."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml

import poai_tools.cli
import poaid.cli.main
from poai_engine.models.gguf_file import read_vocabulary
from poaid.metrics import PREFIX, Metrics
from poaid.view import Activity, StatusView
from tests.harness.memory_view import MemoryView
from tests.harness.node import MINER
from tests.unit.poaid.conftest import MinedChain

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
NAME = re.compile(rf"\b{PREFIX}_\w+")
MATCHER = re.compile(rf"({PREFIX}_\w+?)(?:_bucket)?\{{(\w+)=\"([^\"]*)\"\}}")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "counter": ("",)}
METRICS = {
    metric.name + suffix: metric for metric in Metrics().describe() for suffix in SUFFIXES[metric.kind]
}  # with the names that a query has
CONTEXT = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]

pytestmark = pytest.mark.sockets


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text("utf-8"))


def find_program(*names: str) -> str:
    """Return the first program of these that is there; skip the test if none is."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{' and '.join(names)} not installed")
    return found


def call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def get_rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


@pytest.fixture
def status(mined: MinedChain, mini_path: Path) -> StatusView:
    view = MemoryView(mined.judge, mined.headers, mined.blocks, read_vocabulary(mini_path), MINER, height=8)
    return view.get_status()


@pytest.mark.parametrize("rule", get_rules(), ids=lambda rule: rule["alert"])
def test_the_exporter_has_what_an_alert_asks_for(rule: dict[str, Any], status: StatusView) -> None:
    names = set(NAME.findall(rule["expr"]))
    assert names or rule["expr"].startswith("up{")
    assert names - METRICS.keys() == set()
    for name, label, value in MATCHER.findall(rule["expr"]):
        metric = next(found for found in METRICS.values() if found.name == name)
        assert label in (*metric.labels, "le")
        assert label != "activity" or value in get_args(Activity)
        if label == "le":
            assert f'{name}_bucket{{le="{value}"}}'.encode() in Metrics().render(status)


def test_every_alert_is_explained() -> None:
    rows = re.findall(r"^\| `(Poai\w+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE)
    assert rows == [rule["alert"] for rule in get_rules()]


def test_questions_of_the_document_can_be_asked() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8").partition("Useful questions")[2].partition("## ")[0]
    assert set(NAME.findall(text)) - METRICS.keys() == set()


def test_prometheus_takes_its_files() -> None:
    call(find_program("promtool"), "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_alerts_fire(tmp_path: Path) -> None:
    """Prometheus' own unit test of rules: each alert in the state that it is for, and none in good order."""
    tool = find_program("promtool")
    rules = shutil.copy(DEPLOY / "prometheus" / "alerts.yml", tmp_path)
    call(tool, "check", "rules", rules)
    (tmp_path / "test.yml").write_text(yaml.safe_dump(make_rule_tests()), "utf-8")
    call(tool, "test", "rules", tmp_path / "test.yml")


def make_rule_tests() -> dict[str, Any]:
    """Return promtool's input: one series or two that should make an alert fire, and a node that is well."""
    bad = {
        "PoaiDown": {"up": "0+0x60"},
        "PoaiStalled": {'poai_activity{activity="stalled"}': "1+0x60"},
        "PoaiNoPeers": {"poai_peers": "0+0x60"},
        "PoaiNoBlocks": {
            "poai_head_timestamp_seconds": "0+0x60", "poai_spacing_seconds": "15+0x60", "poai_height": "9+0x60",
        },
        "PoaiManyReorgs": {"poai_reorg_depth_blocks_sum": "0+1x60", "poai_height": "0+2x60"},
        "PoaiDeepReorg": {
            "poai_reorg_depth_blocks_count": "0+1x60", 'poai_reorg_depth_blocks_bucket{le="5.0"}': "0+0x60",
        },
        "PoaiBlocksRefused": {'poai_blocks_rejected_total{code="work/trace"}': "0+1x60"},
        "PoaiSlowDisk": {
            'poai_db_commit_seconds_bucket{le="0.25"}': "0+0x60", 'poai_db_commit_seconds_bucket{le="1.0"}': "0+9x60",
            'poai_db_commit_seconds_bucket{le="+Inf"}': "0+9x60",
        },
        "PoaiFewDescriptors": {"poai_process_open_fds": "900+0x60", "poai_process_max_fds": "1000+0x60"},
    }  # fmt: skip
    good = {
        "up": "1+0x60", 'poai_activity{activity="stalled"}': "0+0x60", "poai_peers": "3+0x60",
        "poai_head_timestamp_seconds": "0+60x60", "poai_spacing_seconds": "15+0x60", "poai_height": "0+4x60",
        "poai_reorg_depth_blocks_sum": "0+0x60", "poai_reorg_depth_blocks_count": "0+0x60",
        'poai_reorg_depth_blocks_bucket{le="5.0"}': "0+0x60", 'poai_blocks_rejected_total{code="work/trace"}': "0+0x60",
        "poai_process_open_fds": "90+0x60", "poai_process_max_fds": "1000+0x60",
    }  # fmt: skip
    assert list(bad) == [rule["alert"] for rule in get_rules()]
    tests = []
    for series, firing in [*((series, name) for name, series in bad.items()), (good, None)]:
        inputs = [{"series": name_series(name), "values": values} for name, values in series.items()]
        fires = [{"eval_time": "60m", "alertname": alert, "exp_alerts": []} for alert in bad if alert != firing]
        expected = [{"expr": f'count(ALERTS{{alertstate="firing",alertname="{firing}"}})', "eval_time": "60m",
                     "exp_samples": [{"labels": "{}", "value": 1}]}] if firing else []  # fmt: skip
        tests.append({"interval": "1m", "input_series": inputs, "alert_rule_test": fires, "promql_expr_test": expected})
    return {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}


def name_series(text: str) -> str:
    """Return a series with the labels that a scrape adds."""
    name, _, labels = text.partition("{")
    return f'{name}{{job="poai",instance="node1:8001"{"," if labels else ""}{labels or "}"}'


def test_the_unit_can_be_read(tmp_path: Path) -> None:
    """systemd's own check, with a program in the place of `/opt/poai/bin/poaid`, which is not here."""
    text = (DEPLOY / "poaid.service").read_text("utf-8")
    assert text.count("/opt/poai/bin/poaid") == 1
    unit = tmp_path / "poaid.service"
    unit.write_text(text.replace("/opt/poai/bin/poaid", "/bin/true"), "utf-8")
    call(find_program("systemd-analyze"), "verify", "--man=no", unit)


def test_compose_takes_its_file() -> None:
    docker = find_program("docker-compose", "docker")
    words = [docker] if docker.endswith("-compose") else [docker, "compose"]
    if subprocess.run([*words, "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose not installed")
    call(*words, "-f", DEPLOY / "compose.yaml", "config", "--quiet")


def get_flags(name: str, words: list[str]) -> list[str]:
    """Return the options of a command line that its program does not have."""
    command: Any = typer.main.get_command({"poai": poai_tools.cli.app, "poaid": poaid.cli.main.app}[name])
    words = list(words)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("--") and word not in known]


def test_commands_in_the_containers_exist() -> None:
    services = read_yaml("compose.yaml")["services"]
    commands = [("poaid", services[f"node{n}"]["command"]) for n in (1, 2, 3)]
    commands.append((services["model"]["entrypoint"][0], services["model"]["entrypoint"][1:]))
    last = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    commands.append(("poaid", json.loads(last[0])))
    assert [get_flags(name, words) for name, words in commands] == [[], [], [], [], []]


def test_prometheus_asks_the_nodes_that_there_are() -> None:
    services = read_yaml("compose.yaml")["services"]
    targets = read_yaml("prometheus/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"{name}:8001" for name in services if name.startswith("node")]
    for name in (target.removesuffix(":8001") for target in targets):
        command = services[name]["command"]
        assert command[command.index("--http-allow-host") + 1] == name


def test_grafana_finds_dashboard_and_source() -> None:
    grafana = read_yaml("compose.yaml")["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    folder = read_yaml("grafana/provisioning/dashboards/poai.yml")["providers"][0]["options"]["path"]
    source = next(host for host, inside in mounts.items() if inside == folder)
    assert (DEPLOY / source / "dashboard.json").is_file()
    address = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"][0]["url"]
    assert address.split("/")[2].split(":")[0] in read_yaml("compose.yaml")["services"]


def test_the_context_has_all_that_the_wheel_is_made_of() -> None:
    """Whatever setuptools takes lies below a name that `.dockerignore` lets through."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {path.split("/")[0] for path in project["tool"]["setuptools"]["package-dir"].values()}
    files = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    assert folders | files <= set(CONTEXT)
    assert [name for name in CONTEXT if not (ROOT / name).exists()] == []


def test_the_container_runs_as_nobody_and_keeps_its_data_in_one_place() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    last = text.rpartition("\nFROM ")[2]
    assert "\nUSER poai\n" in last
    assert "pip install" not in last
    assert set(re.findall(r"\w+_DIR=(/[^/\s]*)", last)) == {"/data"}


@pytest.mark.skipif(sys.platform != "linux", reason="for Linux")
def test_settings_of_the_service_are_flags() -> None:
    data = tomllib.loads((DEPLOY / "poaid.toml").read_text("utf-8"))
    assert get_flags("poaid", ["run", *(f"--{key}" for key in data)]) == []
