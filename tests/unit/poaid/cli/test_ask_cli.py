"""`poaid status`, `peers` and `balance`: what a node's own application answers, and what a database says without it."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from poai_engine.models.gguf_file import read_vocabulary
from poai_spec.basics.containers import compute_block_hash
from poaid.amounts import format_count, format_duration, format_rate
from poaid.api import asking
from poaid.api.asking import Running, make_url, read_running
from poaid.api.rest import make_app
from poaid.cli.ask import describe_address_book, describe_peers, describe_status
from poaid.keys import compute_address, format_address, make_key, write_plain_key
from poaid.metrics import Metrics
from poaid.ports import RUNNING_FILE
from poaid.store.database import Database, StoredPeer
from poaid.view import PeerView, StatusView
from tests.harness.memory_view import MemoryView
from tests.harness.node import MINER, Run
from tests.unit.poaid.api.test_rest import serving
from tests.unit.poaid.conftest import MinedChain

MINER_TEXT = format_address(MINER)
ONE = "0x" + "00" * 19 + "01"

pytestmark = pytest.mark.sockets


@pytest.fixture
def view(mined: MinedChain, mini_path: Path) -> MemoryView:
    return MemoryView(mined.judge, mined.headers, mined.blocks, read_vocabulary(mini_path), MINER, height=6)


@asynccontextmanager
async def showing(view: MemoryView) -> AsyncIterator[int]:
    """Serve a view; the block gets the port."""
    async with serving(make_app(view, Metrics())) as port:
        yield port


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[int]:
    """Answer every connection with the same bytes; the block gets the port."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def run_aside(run: Run, *arguments: object) -> tuple[int, str, str]:
    """Run `poaid` beside a server of this process."""
    return await trio.to_thread.run_sync(partial(run, *arguments))


def get_rows(out: str) -> dict[str, str]:
    """Return the rows that a command printed, by their first word."""
    return {name: rest.strip() for name, _, rest in (line.partition(" ") for line in out.splitlines())}


def write_running(folder: Path, pid: int, port: int, host: str = "127.0.0.1") -> None:
    (folder / RUNNING_FILE).write_text(json.dumps({"pid": pid, "host": host, "http_port": port}))


def make_dead_pid() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


# A node that answers


@pytest.mark.trio
async def test_status_of_a_node(view: MemoryView, run: Run) -> None:
    async with showing(view) as port:
        status, out, err = await run_aside(run, "status", "--http-port", port)
    assert (status, err) == (0, "")
    rows = get_rows(out)
    assert rows["network"] == f"quick, id {view.get_status()['network_id'][2:10]}"
    assert rows["activity"] == "mining"
    assert rows["height"].startswith("6, ")
    assert rows["head"] == view.get_status()["head"]
    assert rows["miner"] == MINER_TEXT
    assert rows["balance"] == "30 POAI"
    assert rows["peers"] == "2"
    assert rows["listening"] == "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWSelf"
    assert not {"sync", "pruned", "assumed"} & rows.keys()


@pytest.mark.trio
async def test_json_is_what_the_api_says(view: MemoryView, run: Run) -> None:
    async with showing(view) as port:
        for command, expected in (
            (("status",), view.get_status()),
            (("peers",), view.get_peers()),
            (("balance",), view.get_account(MINER)),
            (("balance", ONE), view.get_account(bytes.fromhex(ONE[2:]))),
        ):
            status, out, err = await run_aside(run, *command, "--http-port", port, "--json")
            assert (status, err) == (0, "")
            assert json.loads(out) == expected


@pytest.mark.trio
async def test_the_running_file_leads_to_the_node(view: MemoryView, run: Run, tmp_path: Path) -> None:
    async with showing(view) as port:
        write_running(tmp_path, os.getpid(), port, "0.0.0.0")  # noqa: S104
        status, out, err = await run_aside(run, "balance", "--data-dir", tmp_path)
    assert (status, err) == (0, "")
    assert get_rows(out) == {"address": MINER_TEXT, "balance": "30 POAI", "mined": "6 blocks", "nonce": "0"}


@pytest.mark.trio
async def test_no_proxy_is_asked(view: MemoryView, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with showing(view) as port:
        assert (await run_aside(run, "status", "--http-port", port))[0] == 0


@pytest.mark.trio
async def test_peers_of_a_node(view: MemoryView, run: Run) -> None:
    async with showing(view) as port:
        status, out, _ = await run_aside(run, "peers", "--http-port", port)
        assert status == 0
        lines = [line.split() for line in out.splitlines()]
        assert lines[0] == ["HEIGHT", "WORK", "SCORE", "SINCE", "DIALLED", "BY", "PEER"]
        assert lines[1][:5] == ["6", "192", "12.5", "84", "min"]
        assert lines[1][-1] == "/ip4/198.51.100.7/tcp/4001/p2p/" + view.peers[0]["peer_id"]
        assert lines[2][:5] == ["?", "?", "-3", "14", "s"]
        assert len({line.index("/ip") for line in out.splitlines()[1:]}) == 1, "columns are aligned"
        view.peers = []
        assert (await run_aside(run, "peers", "--http-port", port))[:2] == (0, "no peers\n")
        assert (await run_aside(run, "peers", "--http-port", port, "--json"))[:2] == (0, "[]\n")


@pytest.mark.trio
async def test_what_peers_say_of_themselves_is_no_markup(view: MemoryView, run: Run) -> None:
    view.peers = [PeerView(**{**view.peers[0], "address": "/ip4/[red]\x1b[31m\n/tcp/1"})]
    async with showing(view) as port:
        _, out, _ = await run_aside(run, "peers", "--http-port", port)
    assert len(out.splitlines()) == 2
    assert "/ip4/[red]?[31m /tcp/1" in out


@pytest.mark.trio
async def test_balance_needs_an_account(view: MemoryView, run: Run) -> None:
    view.changes["miner"] = "0x" + "00" * 20
    async with showing(view) as port:
        status, out, err = await run_aside(run, "balance", "--http-port", port)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "name one, `poaid balance ADDRESS`" in err
        _, out, _ = await run_aside(run, "status", "--http-port", port)
        assert not {"miner", "balance"} & get_rows(out).keys()


def test_balance_of_no_address(run: Run) -> None:
    status, out, err = run("balance", "0x12")
    assert (status, out) == (2, "")
    assert err.startswith("error: the ADDRESS '0x12' is no address")


# Answers that are none

HTML = b"<!doctype html>"
DEEP = b"[" * 100_000


def make_answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n" + body


@pytest.mark.trio
@pytest.mark.parametrize("command", ["status", "peers", "balance"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "no node answers at URL ("),
        (b"\x13/multistream/1.0.0\n", "no node answers at URL ("),
        (make_answer(HTML), "what answers at URL is no poaid of this version"),
        (make_answer(b"\xff"), "what answers at URL is no poaid of this version"),
        (make_answer(DEEP), "what answers at URL is no poaid of this version"),
        (make_answer(b'{"height": 1}'), "what answers at URL is no poaid of this version"),
        (make_answer(b"[1]"), "what answers at URL is no poaid of this version"),
        (make_answer(b"null"), "what answers at URL is no poaid of this version"),
        (make_answer(HTML, b"404 Not Found"), "what answers at URL is no poaid of this version"),
        (make_answer(b"[]", b"500 Oh"), "what answers at URL is no poaid of this version"),
        (make_answer(b'{"error": "too many"}', b"503 Busy"), "URL: too many\n"),
    ],
)
async def test_another_program_answers(run: Run, command: str, answer: bytes, message: str) -> None:
    async with answering(answer) as port:
        status, out, err = await run_aside(run, command, "--http-port", port)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("error: " + message.replace("URL", f"http://127.0.0.1:{port}")), err


@pytest.mark.trio
async def test_an_answer_without_end_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_ANSWER_BYTES", 100)
    async with answering(make_answer(b"[" + b" " * 100 + b"]")) as port:
        status, _, err = await run_aside(run, "peers", "--http-port", port)
    assert status == 1
    assert "is no poaid of this version" in err


@pytest.mark.trio
async def test_nobody_answers(run: Run) -> None:
    async with answering(b"") as port:
        pass
    status, out, err = await run_aside(run, "status", "--http-port", port)
    assert (status, out) == (1, "")
    assert err == (
        f"error: no node answers at http://127.0.0.1:{port} (Connection refused): start one with `poaid run`, "
        "or give the --http-port of one that runs\n"
    )


# The database


def test_status_of_a_database(mined: MinedChain, copy_of: Callable[[], Path], run: Run) -> None:
    folder, key = copy_of(), make_key()
    write_plain_key(key, folder / "miner.key")
    status, out, err = run("status", "--data-dir", folder)
    assert (status, err) == (0, f"note: no node runs in {folder}; this is what the database holds\n")
    rows = get_rows(out)
    assert rows["activity"] == f"idle: no node runs in {folder}"
    assert rows["head"] == "0x" + compute_block_hash(mined.headers[-1]).hex()
    assert (rows["miner"], rows["balance"]) == (format_address(compute_address(key)), "0 POAI")
    status, out, _ = run("status", "--data-dir", folder, "--json")
    assert json.loads(out).keys() == StatusView.__annotations__.keys()


def test_a_database_says_what_a_node_would_say(mined: MinedChain, copy_of: Callable[[], Path], run: Run) -> None:
    stored = json.loads(run("status", "--data-dir", copy_of(), "--json")[1])
    node = MemoryView(mined.judge, mined.headers, mined.blocks, None, MINER, height=8).get_status()  # type: ignore[arg-type]
    for key in ("network", "network_id", "profile", "model", "height", "head", "head_time", "genesis", "work", "epoch"):
        assert stored[key] == node[key], key
    assert int(stored["target"], 16) == int(node["target"], 16)


def test_balance_in_a_database(copy_of: Callable[[], Path], run: Run) -> None:
    folder = copy_of()
    status, out, err = run("balance", MINER_TEXT, "--data-dir", folder)
    assert (status, err.startswith("note: no node runs in ")) == (0, True)
    assert get_rows(out) == {"address": MINER_TEXT, "balance": "40 POAI", "mined": "8 blocks", "nonce": "0"}
    assert get_rows(run("balance", ONE, "--data-dir", folder)[1])["balance"] == "0 POAI"
    status, out, err = run("balance", "--data-dir", folder)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert not (folder / "miner.key").exists(), "asking makes no key"


def test_peers_in_a_database(copy_of: Callable[[], Path], run: Run) -> None:
    folder = copy_of()
    with Database.open(folder) as store:
        store.write_peers([StoredPeer("12D3KooWA", "/ip4/192.0.2.9/tcp/1/p2p/12D3KooWA", 1_000, 0)])
    status, out, err = run("peers", "--data-dir", folder)
    assert (status, err.count("\n")) == (0, 1)
    assert out.splitlines()[1].endswith("/ip4/192.0.2.9/tcp/1/p2p/12D3KooWA")
    assert json.loads(run("peers", "--data-dir", folder, "--json")[1])[0]["seen"] == 1_000


@pytest.mark.parametrize("command", ["status", "peers", "balance"])
def test_no_database_either(run: Run, tmp_path: Path, command: str) -> None:
    status, out, err = run(command, "--data-dir", tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: no node runs in {tmp_path}; {tmp_path} holds no chain")


def test_a_stale_running_file_is_said(copy_of: Callable[[], Path], run: Run) -> None:
    folder, pid = copy_of(), make_dead_pid()
    write_running(folder, pid, 1)
    status, out, err = run("status", "--data-dir", folder)
    assert status == 0
    assert err.startswith(f"note: {folder / RUNNING_FILE} is stale: process {pid} is gone, no node runs; ")
    assert get_rows(out)["height"].startswith("8, ")


def test_a_node_without_http(copy_of: Callable[[], Path], run: Run) -> None:
    folder = copy_of()
    write_running(folder, os.getpid(), 0)
    with Database.open(folder):
        status, out, err = run("status", "--data-dir", folder)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: the node of process {os.getpid()} has no HTTP server (--http-port 0); ")
    assert "another poaid uses it" in err


@pytest.mark.trio
async def test_a_node_that_does_not_answer(copy_of: Callable[[], Path], run: Run) -> None:
    folder = copy_of()
    async with answering(b"") as port:
        write_running(folder, os.getpid(), port)
        status, out, err = await run_aside(run, "status", "--data-dir", folder)
    assert (status, get_rows(out)["height"][:2]) == (0, "8,")
    assert err.startswith(f"note: process {os.getpid()}: no node answers at http://127.0.0.1:{port} (")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"{}", b"\xff", DEEP, b'{"pid": 1, "host": "h"}',
        b'{"pid": "1", "host": "h", "http_port": 1}',
        b'{"pid": 0, "host": "h", "http_port": 1}', b'{"pid": true, "host": "h", "http_port": 1}',
        b'{"pid": 1, "host": 1, "http_port": 1}', b'{"pid": 1, "host": "h", "http_port": "1"}',
    ],
)  # fmt: skip
def test_a_damaged_running_file_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / RUNNING_FILE).write_bytes(data)
    assert read_running(tmp_path) is None


def test_processes() -> None:
    assert Running(os.getpid(), "h", 1).is_alive()
    assert Running(1, "h", 1).is_alive()
    assert not Running(make_dead_pid(), "h", 1).is_alive()
    assert not Running(1 << 80, "h", 1).is_alive()


def test_urls() -> None:
    assert [make_url(host, 1) for host in ("localhost", "0.0.0.0", "::1", "::")] == [  # noqa: S104
        "http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "http://[::1]:1",
    ]  # fmt: skip


# Rows

SIX_MINUTES = "alone a block every 6.0 min"


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        ({"activity": "idle", "reason": "mining is off (--no-mine)"}, "activity", "idle: mining is off (--no-mine)"),
        ({"activity": "syncing", "reason": "syncing"}, "activity", "syncing"),
        ({"activity": "stalled", "reason": "stalled: nobody serves"}, "activity", "stalled: nobody serves"),
        ({"head_time": 10_000}, "height", "6, 90 s old"),
        ({"head_time": 103_000}, "height", "6, its time stamp is 3.0 s ahead of this clock"),
        ({"target": hex(2**256 // 1_000 - 1)}, "target", "1,000 quizzes a block on average"),
        ({"target": hex(2**256 // 720), "quizzes_per_second": 2.0}, "speed", "2.00 quizzes/s, " + SIX_MINUTES),
        ({"quizzes_per_second": 0.0}, "speed", "not measured"),
        ({"bodies_from": 1_001}, "pruned", "blocks before 1,001 are kept as headers only"),
        ({"assumed": 1}, "assumed", "1 block not replayed (--assume-valid)"),
        (
            {"sync": {"height": 120, "goal": 52_560, "blocks_left": 52_440, "seconds_left": 54_000.0}},
            "sync",
            "at 120 of 52,560: 52,440 blocks to replay, 15 h of replay left",
        ),
        (
            {"sync": {"height": 1, "goal": 2, "blocks_left": 1, "seconds_left": None}},
            "sync",
            "at 1 of 2: 1 block to replay, not yet measured",
        ),
    ],
)  # fmt: skip
def test_rows_of_a_status(view: MemoryView, changes: dict[str, object], name: str, text: str) -> None:
    view.changes = changes
    assert dict(describe_status(view.get_status(), 100_000))[name] == text


def test_rows_of_peers(view: MemoryView) -> None:
    assert [row[4] for row in describe_peers(view.peers).rows] == ["this node", "the peer"]


def test_rows_of_an_address_book() -> None:
    book = [StoredPeer("A", "/ip4/1", 40_000, 0), StoredPeer("B", "", 0, 220_000), StoredPeer("C", "/c", 200_000, 99)]
    assert describe_address_book(book, 100_000).rows == [
        ("60 s ago", "no", "/ip4/1"), ("never", "2.0 min", "/p2p/B"), ("0 s ago", "no", "/c"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.0123, "0.012 s"), (1, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119, "119 s"),
        (120, "2.0 min"), (7_199, "120 min"), (7_200, "2.0 h"), (54_000, "15 h"), (172_800, "2.0 days"),
        (86_400 * 5_000, "5,000 days"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_counts_and_rates() -> None:
    counts = [format_count(1, "block"), format_count(52_560, "block"), format_count(0, "quiz", "quizzes")]
    assert counts == ["1 block", "52,560 blocks", "0 quizzes"]
    assert format_rate(0.5, 5) == "0.50 quizzes/s, alone a block every 10 s"
