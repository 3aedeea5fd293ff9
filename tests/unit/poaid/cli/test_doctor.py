"""`poaid doctor`: each check on a healthy machine, and on one where just that is wrong."""

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from poai_engine.models.gguf_file import read_vocabulary
from poai_spec.basics.notation import Hash32
from poai_spec.chain.block import Judge, make_judge
from poai_spec.model.engine import Evaluation
from poaid import doctor
from poaid.api.rest import make_app
from poaid.doctor import Doctor, Finding, Inspected, Level
from poaid.metrics import Metrics
from poaid.network_file import NETWORK_FILE, write_network
from poaid.ports import RUNNING_FILE
from poaid.store.database import FILE_NAME, Database
from tests.harness.memory_view import MemoryView
from tests.harness.node import MINER, MINIMAL_ID, FakeClock, Run, change
from tests.unit.poaid.api.test_rest import serving
from tests.unit.poaid.conftest import MinedChain

MINIMAL = ("--network", "minimal", "--model", "mini", "--threads", 1)

pytestmark = pytest.mark.sockets


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure with a clock of its own, which one batch and another take past the end."""
    monkeypatch.setattr(doctor, "time", FakeClock(seconds=0.5))


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two ports that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


@contextmanager
def occupied() -> Iterator[int]:
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104
        yield server.getsockname()[1]


def examine(ports: tuple[int, int], data_dir: Path | None = None, *names: str | None) -> dict[str, Finding]:
    """Return the findings by name; `names` are network and model."""
    network, model = (*names, None, None)[:2]
    subject = Inspected(data_dir, network, model, *ports, threads=1)
    return {finding.name: finding for finding in Doctor(subject, lambda _: None).examine()}


def get_failed(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if finding.level is Level.FAILED]


# All is well


def test_a_healthy_machine(run: Run, ports: tuple[int, int]) -> None:
    status, out, _ = run("doctor", *MINIMAL, "--p2p-port", ports[0], "--http-port", ports[1])
    assert status == 0, out
    lines = [line.split(None, 1) for line in out.splitlines()]
    assert all(len(line) == 2 for line in lines)
    names = ("python", "cache", "peer port", "http port", "clock", "mdns", "network", "model", "engine", "speed")
    assert all(line.startswith(name) for line, name in zip(out.splitlines(), names, strict=True))
    same = "a quiz gives the same in a batch, step by step, and on the reference engine"
    assert out.splitlines()[8] == f"engine     ok       {same}"


def test_a_healthy_data_directory(mined: MinedChain, copy_of: Callable[[], Path], ports: tuple[int, int]) -> None:
    folder = copy_of()
    findings = examine(ports, folder)
    assert get_failed(findings) == []
    assert findings["data dir"].text == f"{folder} belongs to network quick"
    assert findings["network"].text.startswith("quick, id ")
    assert findings["model"].text.startswith("mini: SHA-256 ")
    assert findings["clock"].level is Level.UNKNOWN, "nobody to ask"


def test_a_data_directory_that_is_not_there_yet(ports: tuple[int, int], tmp_path: Path) -> None:
    findings = examine(ports, tmp_path / "a" / "b", "minimal", "mini")
    assert get_failed(findings) == []
    assert findings["data dir"].text.endswith("holds no chain yet; a new one can be made")
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_a_data_directory_whose_maker_was_killed_before_the_first_commit(
    ports: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).touch()
    findings = examine(ports, tmp_path, "minimal", "mini")
    assert get_failed(findings) == []
    assert findings["data dir"].text.endswith("holds no chain yet; a new one can be made")


def test_a_stale_running_file(copy_of: Callable[[], Path], ports: tuple[int, int]) -> None:
    folder = copy_of()
    (folder / RUNNING_FILE).write_text(json.dumps({"pid": 2**31 - 1, "host": "127.0.0.1", "http_port": 1}))
    assert "; running.json is stale: process 2147483647 is gone" in examine(ports, folder)["data dir"].text


# The machine


def test_an_old_python() -> None:
    assert doctor.check_python((3, 11, 0)).level is Level.OK
    found = doctor.check_python((3, 10, 9))
    assert (found.level, found.text.endswith(": install 3.11 or later")) == (Level.FAILED, True)


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(
    ("free", "level"),
    [(0, Level.FAILED), ((256 << 20) - 1, Level.FAILED), (256 << 20, Level.WARNING), (2 << 30, Level.OK)],
)
def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    asked: list[Path] = []

    def measure(path: Path) -> Usage:
        asked.append(path)
        return Usage(free)

    monkeypatch.setattr(shutil, "disk_usage", measure)
    found = doctor.check_disk("disk", tmp_path / "not" / "there", "move away")
    assert (found.level, asked) == (level, [tmp_path])
    assert (level is Level.FAILED) == found.text.endswith("256 MiB are needed: make room, or move away")


def test_a_folder_that_cannot_be_written(
    ports: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert get_failed(examine(ports, tmp_path, "minimal", "mini")) == ["data dir"]
    found = doctor.check_disk("cache", tmp_path, "set X")
    assert (found.level, found.text) == (Level.WARNING, f"{tmp_path} cannot be written: set X")


def test_a_file_in_place_of_the_folder(ports: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert get_failed(examine(ports, tmp_path / "file", "minimal", "mini")) == ["data dir"]


@pytest.mark.parametrize(("name", "flag", "index"), [("peer port", "--p2p-port", 0), ("http port", "--http-port", 1)])
def test_a_port_in_use(ports: tuple[int, int], name: str, flag: str, index: int) -> None:
    with occupied() as port:
        findings = examine((port, ports[1]) if index == 0 else (ports[0], port), None, "minimal", "mini")
    assert get_failed(findings) == [name]
    assert findings[name].text == f"{port}: Address already in use; give another {flag}"


def test_no_multicast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_mdns().level is Level.OK

    def refuse(*_: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    found = doctor.check_mdns()
    assert found.level is Level.WARNING
    assert found.text.startswith("no multicast (No such device): ")


# The data directory


def test_a_data_directory_that_is_locked(copy_of: Callable[[], Path], ports: tuple[int, int]) -> None:
    folder = copy_of()
    with Database.open(folder):
        findings = examine(ports, folder, "minimal", "mini")
    assert get_failed(findings) == ["data dir"]
    assert findings["data dir"].text.endswith("another poaid uses it")


def test_a_damaged_data_directory(run: Run, copy_of: Callable[[], Path], ports: tuple[int, int]) -> None:
    folder = copy_of()
    (folder / FILE_NAME).write_bytes(b"no database, but as long as the header of one would have to be" * 9)
    flags = ("--p2p-port", ports[0], "--http-port", ports[1])
    status, out, _ = run("doctor", "--data-dir", folder, *MINIMAL, *flags)
    assert status == 1
    (line,) = [line for line in out.splitlines() if "FAILED" in line]
    assert line.startswith("data dir   FAILED   ")


def test_a_data_directory_of_another_network(copy_of: Callable[[], Path], ports: tuple[int, int]) -> None:
    findings = examine(ports, copy_of(), "minimal", "mini")
    assert get_failed(findings) == ["network"]
    assert f"the flags name {MINIMAL_ID} (epoch_blocks " in findings["network"].text


@pytest.mark.trio
async def test_a_node_runs(mined: MinedChain, mini_path: Path, tmp_path: Path, ports: tuple[int, int]) -> None:
    view = MemoryView(mined.judge, mined.headers, mined.blocks, read_vocabulary(mini_path), MINER, height=6)
    with occupied() as p2p_port:
        view.changes["addresses"] = [f"/ip4/192.0.2.1/tcp/{p2p_port}/p2p/12D3KooWSelf"]
        async with serving(make_app(view, Metrics())) as port:
            (tmp_path / RUNNING_FILE).write_text(
                json.dumps({"pid": os.getpid(), "host": "127.0.0.1", "http_port": port})
            )
            findings = await trio.to_thread.run_sync(partial(examine, (p2p_port, port), tmp_path))
    assert get_failed(findings) == []
    user = f"a node, process {os.getpid()}, uses {tmp_path}"
    assert findings["data dir"] == Finding("data dir", Level.WARNING, f"{user}: stop it before you start another there")
    assert findings["peer port"].text == f"{p2p_port} is used by the node that runs here"
    assert findings["http port"].text == f"{port} is used by the node that runs here"
    assert findings["clock"].level is Level.WARNING, "the last block is of another year"
    assert findings["network"].level is Level.UNKNOWN
    assert findings["network"].text.startswith(f"no network '{tmp_path / NETWORK_FILE}'")


@pytest.mark.trio
async def test_model_and_speed_of_a_node_that_runs(
    mined: MinedChain, mini_path: Path, tmp_path: Path, ports: tuple[int, int]
) -> None:
    view = MemoryView(mined.judge, mined.headers, mined.blocks, read_vocabulary(mini_path), MINER, height=6)
    write_network(mined.network, tmp_path / NETWORK_FILE)
    async with serving(make_app(view, Metrics())) as port:
        (tmp_path / RUNNING_FILE).write_text(json.dumps({"pid": os.getpid(), "host": "127.0.0.1", "http_port": port}))
        findings = await trio.to_thread.run_sync(partial(examine, (ports[0], port), tmp_path))
        view.changes["network_id"] = "0x" + "ab" * 32
        others = await trio.to_thread.run_sync(partial(examine, (ports[0], port), tmp_path))
    assert [findings[name].level for name in ("network", "model", "engine", "speed")] == [Level.OK] * 4
    assert findings["network"].text.startswith("quick, id ")
    assert findings["speed"].text.endswith(", as the node that runs here measures")
    assert findings["speed"].text.startswith("15.4")
    assert others["network"].level is Level.UNKNOWN
    assert "is not the network of the node that runs there" in others["network"].text


def test_findings_as_json(run: Run, ports: tuple[int, int]) -> None:
    status, out, _ = run("doctor", "--model", "mini", "--p2p-port", ports[0], "--http-port", ports[1], "--json")
    findings = json.loads(out)
    assert status == 0
    assert {tuple(finding) for finding in findings} == {("name", "level", "text")}
    assert [finding["name"] for finding in findings][-2:] == ["engine", "speed"]


@pytest.mark.parametrize(("http_port", "text"), [(0, ": stop it before "), (1, ", but no node answers at http://")])
def test_a_node_that_cannot_be_asked(tmp_path: Path, ports: tuple[int, int], http_port: int, text: str) -> None:
    running = {"pid": os.getpid(), "host": "127.0.0.1", "http_port": http_port}
    (tmp_path / RUNNING_FILE).write_text(json.dumps(running))
    found = examine(ports, tmp_path)["data dir"]
    assert (found.level, text in found.text) == (Level.WARNING, True), found.text


# The clock


@pytest.mark.parametrize(
    ("head_time", "peers", "level", "text"),
    [
        (1_000_000, 2, Level.OK, "the last block is 0 s old, as peers have it"),
        (980_000, 2, Level.OK, "the last block is 20 s old, as peers have it"),
        (979_999, 2, Level.WARNING, "the last block is 20 s old, one should come every 1.0 s: the clock is ahead, or"),
        (979_999, 0, Level.UNKNOWN, "the node has no peers to compare it with; the last block is 20 s old"),
        (1_000_001, 0, Level.WARNING, "the last block is 0.001 s ahead of it: see that the clock is synchronised"),
    ],
)
def test_the_clock_beside_a_node(
    mined: MinedChain, mini_path: Path, head_time: int, peers: int, level: Level, text: str
) -> None:
    view = MemoryView(mined.judge, mined.headers, mined.blocks, read_vocabulary(mini_path), MINER, height=6)
    view.changes = {"head_time": head_time, "peer_count": peers}
    found = doctor.check_live_clock(view.get_status(), 1_000_000)
    assert (found.level, found.text[: len(text)]) == (level, text)


@pytest.mark.parametrize(
    ("head_time", "level", "text"),
    [
        (990_000, Level.UNKNOWN, "no node runs to compare it with; it is not behind the last stored block, 10 s old"),
        (1_000_400, Level.WARNING, "the last block is 0.4 s ahead of it"),
        (1_000_401, Level.FAILED, "the last stored block is 0.4 s ahead of the clock: set the clock"),
    ],
)
def test_the_clock_beside_a_database(head_time: int, level: Level, text: str) -> None:
    found = doctor.check_stored_clock(head_time, 400, 1_000_000)
    assert (found.level, found.text[: len(text)]) == (level, text)


# Network and model


@pytest.mark.parametrize(
    ("network", "model", "message"),
    [
        ("odd", None, "no network 'odd'"),
        ("mainnet", None, "parameters/model-unpinned: "),
        ("minimal", "odd", "no model 'odd': give the path of a GGUF file"),
    ],
)
def test_no_network(ports: tuple[int, int], network: str, model: str | None, message: str) -> None:
    findings = examine(ports, None, network, model)
    assert get_failed(findings) == ["network"]
    assert findings["network"].text.startswith(message)
    assert not {"model", "engine", "speed"} & findings.keys()


def test_a_model_that_is_missing(ports: tuple[int, int]) -> None:
    findings = examine(ports, None, "testnet")
    assert get_failed(findings) == ["model"]
    assert "is missing: run `poai model fetch smollm2`" in findings["model"].text


def test_another_model_file(mini_path: Path, copy_of: Callable[[], Path], ports: tuple[int, int]) -> None:
    folder, data = copy_of(), mini_path.read_bytes()
    (folder / "other.gguf").write_bytes(change(data, len(data) - 1, 1))
    findings = examine(ports, folder, None, str(folder / "other.gguf"))
    assert get_failed(findings) == ["model"]
    assert " is not this network's model (SHA-256 " in findings["model"].text


def test_another_integer_root(mined: MinedChain, tmp_path: Path, ports: tuple[int, int]) -> None:
    config = mined.network.config
    other = replace(config, model=replace(config.model, integer_model_root=bytes(32)))
    write_network(replace(mined.network, config=other), tmp_path / "other.toml")
    findings = examine(ports, None, str(tmp_path / "other.toml"))
    assert get_failed(findings) == ["model"]
    assert findings["model"].text.startswith("work/engine: ")


class Broken:
    """An engine that is wrong in one of its two ways, or in both alike."""

    def __init__(self, judge: Judge, *, batch: bool, steps: bool) -> None:
        self._engine, self._batch, self._steps = judge.models[0].engine, batch, steps
        self.profile, self.integer_model_root = self._engine.profile, self._engine.integer_model_root
        self.layer_count = self._engine.layer_count

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        true = self._engine.evaluate(tokens, scored)
        return [replace(e, nlls=(*e.nlls[:-1], e.nlls[-1] + 1)) for e in true] if self._batch else true

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        (evaluation,) = self._engine.evaluate([tokens], [scored])
        *entries, _ = self._engine.steps(tokens, scored)
        yield from entries
        yield replace(evaluation, nlls=(*evaluation.nlls[:-1], evaluation.nlls[-1] + 1)) if self._steps else evaluation


@pytest.mark.parametrize(
    ("batch", "steps", "text"),
    [
        (False, True, "a quiz in a batch and the same quiz step by step differ: "),
        (True, False, "a quiz in a batch and the same quiz step by step differ: "),
        (True, True, "the engine and the reference engine differ: "),
    ],
)
def test_an_engine_that_is_wrong(mined: MinedChain, mini_path: Path, batch: bool, steps: bool, text: str) -> None:
    judge = make_judge(
        mined.judge.config, mined.judge.models[0].questions, Broken(mined.judge, batch=batch, steps=steps)
    )
    found = doctor.check_engine(judge, mini_path)
    assert (found.level, found.text[: len(text)]) == (Level.FAILED, text)


def test_a_large_model_is_not_run_on_the_reference_engine(
    mined: MinedChain, mini_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MAX_REFERENCE_BYTES", 1)
    found = doctor.check_engine(mined.judge, mini_path)
    assert (found.level, found.text) == (Level.OK, "a quiz gives the same in a batch and step by step")


def test_speed(mined: MinedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "time", FakeClock(seconds=0.3))  # a batch takes 0.3 s, and 0.3 s pass between two
    found = doctor.check_speed(mined.judge, 2**256 // 32)
    # Start at 0.3 s; batches of 1, 2, 4 and 7 quizzes end at 0.9, 1.5, 2.1 and 2.7 s.
    assert (found.level, found.text) == (Level.OK, "5.83 quizzes/s, alone a block every 5.3 s")
