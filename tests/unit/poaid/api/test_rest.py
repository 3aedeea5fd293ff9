"""The HTTP server: each route, what it refuses, the event stream, and the real server on a socket."""

import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.types import Message
from trio.testing import MockClock, wait_all_tasks_blocked

from poai_engine.models.gguf_file import read_vocabulary
from poaid.api import rest as http
from poaid.api import server as http_server
from poaid.api.rest import make_app, make_metrics_app
from poaid.api.server import open_listener, serve_http
from poaid.errors import NodeError
from poaid.metrics import Metrics
from poaid.view import Event
from tests.harness.memory_view import QUEUE, MemoryView
from tests.harness.node import MINER
from tests.unit.poaid.conftest import MinedChain

MINER_TEXT = "0x" + MINER.hex()

pytestmark = pytest.mark.sockets


@pytest.fixture
def view(mined: MinedChain, mini_path: Path) -> MemoryView:
    return MemoryView(mined.judge, mined.headers, mined.blocks, read_vocabulary(mini_path), MINER, height=6)


@pytest.fixture
def app(view: MemoryView) -> Starlette:
    return make_app(view, Metrics(), ("node.example",))


@dataclass
class Exchange:
    """A request to the application, and what came back so far.

    Attributes:
        status: 0 before the answer starts.
        leave: set by the test when the client goes away.
    """

    path: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    leave: trio.Event = field(default_factory=trio.Event)

    async def run(self, app: Starlette) -> None:
        path, _, query = self.path.partition("?")
        headers = {"host": "127.0.0.1:8001", **self.headers}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answer_headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
            self.ended = not message.get("more_body", False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert list(self.json) == ["error"]
        return str(self.json["error"])

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The events of a stream, without comments and the time to retry."""
        blocks = [block.split("\n") for block in self.body.decode().split("\n\n") if block.startswith("event: ")]
        return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def ask(app: Starlette, path: str, method: str = "GET", **headers: str) -> Exchange:
    exchange = Exchange(path, method, {name.replace("_", "-"): value for name, value in headers.items()})
    await exchange.run(app)
    assert exchange.ended
    return exchange


@pytest.mark.trio
async def test_status_is_the_views(app: Starlette, view: MemoryView) -> None:
    answer = await ask(app, "/status")
    assert answer.status == 200
    assert answer.json == view.get_status()
    assert answer.answer_headers["content-type"] == "application/json"


@pytest.mark.trio
@pytest.mark.parametrize(("activity", "code"), [("mining", 200), ("idle", 200), ("syncing", 206), ("stalled", 503)])
async def test_health_is_a_status_code(app: Starlette, view: MemoryView, activity: str, code: int) -> None:
    """What answers at all is alive; whether it is of use is in the code, so that no supervisor has to read JSON."""
    view.changes["activity"] = activity
    answer = await ask(app, "/health")
    assert answer.status == code
    assert answer.json == {"activity": activity, "reason": None, "height": 6, "peer_count": 2}


@pytest.mark.trio
@pytest.mark.parametrize(
    ("query", "heights"),
    [
        ("", [6, 5, 4, 3, 2, 1, 0]),
        ("?count=2", [6, 5]),
        ("?top=3&count=2", [3, 2]),
        ("?top=99&count=1", [6]),
        ("?top=0&count=100", [0]),
    ],
)
async def test_blocks_descend_from_the_top(app: Starlette, query: str, heights: list[int]) -> None:
    assert [block["height"] for block in (await ask(app, "/blocks" + query)).json] == heights


@pytest.mark.trio
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("count=0", "count is not a number from 1 to 100: '0'"),
        ("count=101", "count is not a number from 1 to 100: '101'"),
        ("count=", "count is not a number from 1 to 100: ''"),
        ("count=1_0", "count is not a number from 1 to 100: '1_0'"),
        ("top=-1", "top is not a number from 0 to 18446744073709551615: '-1'"),
        ("top=18446744073709551616", "top is not a number from 0 to 18446744073709551615: '18446744073709551616'"),
        ("top=%EF%BC%91", "top is not a number from 0 to 18446744073709551615: '１'"),  # int() would take it
    ],
)
async def test_a_number_that_is_none_is_named(app: Starlette, query: str, error: str) -> None:
    answer = await ask(app, f"/blocks?{query}")
    assert (answer.status, answer.error) == (400, error)


@pytest.mark.trio
async def test_a_block_is_found_in_three_ways(app: Starlette, view: MemoryView) -> None:
    block = view.get_block("head")
    assert block is not None
    for reference in ("head", "6", block["hash"]):
        assert (await ask(app, f"/blocks/{reference}")).json == block


@pytest.mark.trio
@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/blocks/7", 404, "block 7 is not known: the head is 6"),
        ("/blocks/0x" + "00" * 32, 404, f"block 0x{'00' * 32} is not known: the head is 6"),
        ("/blocks/tail", 400, "this is no block: give a height, a hash (0x and 64 hexadecimal digits) or head"),
        ("/blocks/0x12", 400, "this is no block: give a height, a hash (0x and 64 hexadecimal digits) or head"),
        ("/quiz/0", 404, "there is no quiz of height 0: give a height from 1 to 6"),
        ("/quiz/7", 404, "there is no quiz of height 7: give a height from 1 to 6"),
        ("/quiz/head", 400, "height is not a number from 0 to 18446744073709551615: 'head'"),
        ("/address/0x12", 400, "in the path, '0x12' is no address: give 0x and 40 hexadecimal digits"),
        ("/nothing", 404, f"there is no such path here; a node has {http.PATHS}"),
        ("/static/../view.py", 404, f"there is no such path here; a node has {http.PATHS}"),
        ("/status/", 404, f"there is no such path here; a node has {http.PATHS}"),
    ],
)
async def test_what_is_not_there_is_named(app: Starlette, path: str, status: int, error: str) -> None:
    answer = await ask(app, path)
    assert (answer.status, answer.error) == (status, error)


@pytest.mark.trio
async def test_a_quiz_has_its_answers_and_losses(app: Starlette, view: MemoryView, mined: MinedChain) -> None:
    quiz = (await ask(app, "/quiz/6")).json
    assert quiz == view.make_quiz(6)
    assert sum(token["loss"] for token in quiz["scored"]) == quiz["loss"] == mined.headers[6].loss


@pytest.mark.trio
async def test_an_account_has_what_its_blocks_paid(app: Starlette, view: MemoryView) -> None:
    account = (await ask(app, f"/address/{MINER_TEXT}")).json
    assert account["blocks"] == 6
    subsidies = [int((await ask(app, f"/blocks/{height}")).json["subsidy"]) for height in range(7)]
    assert int(account["balance"]) == sum(subsidies) > 0


@pytest.mark.trio
async def test_peers_are_the_views(app: Starlette, view: MemoryView) -> None:
    assert (await ask(app, "/peers")).json == view.peers


@pytest.mark.trio
async def test_metrics_are_plain_text(app: Starlette) -> None:
    answer = await ask(app, "/metrics")
    assert answer.answer_headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\npoai_height 6.0\n" in answer.body


@pytest.mark.trio
async def test_a_port_for_metrics_has_nothing_else(view: MemoryView) -> None:
    app = make_metrics_app(view, Metrics())
    assert b"poai_height" in (await ask(app, "/metrics")).body
    assert (await ask(app, "/status")).status == 404
    assert (await ask(app, "/metrics", host="evil.example")).status == 400


@pytest.mark.trio
@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in http.ASSETS if name != "index.html")])
async def test_the_page_and_its_parts_are_there(app: Starlette, path: str) -> None:
    answer = await ask(app, path)
    assert answer.status == 200
    assert answer.answer_headers["content-type"].startswith(("text/", "image/svg+xml"))
    assert len(answer.body) > 100


@pytest.mark.trio
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/status", "/events"])
async def test_nothing_can_be_written(app: Starlette, method: str, path: str) -> None:
    answer = await ask(app, path, method)
    assert (answer.status, answer.error) == (405, "this node is only read here: use GET")


@pytest.mark.trio
@pytest.mark.parametrize("path", ["/", "/status", "/blocks/tail", "/nothing"])
async def test_every_answer_has_the_security_headers(app: Starlette, path: str) -> None:
    headers = (await ask(app, path)).answer_headers
    assert {name: headers.get(name.lower()) for name in http.SECURITY_HEADERS} == http.SECURITY_HEADERS
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.trio
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8001", "127.0.0.1:8001", "[::1]:8001", "192.0.2.7:8001", "NODE.example:8001"]
)
async def test_its_own_names_are_known(app: Starlette, host: str) -> None:
    assert (await ask(app, "/status", host=host)).status == 200


@pytest.mark.trio
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8001", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a b"]
)
async def test_a_foreign_name_is_refused(app: Starlette, host: str) -> None:
    answer = await ask(app, "/status", host=host)
    assert (answer.status, answer.error) == (400, http.UNKNOWN_HOST)


WAYS = {
    "image": ("no-cors", "image"),
    "script": ("no-cors", "script"),
    "fetch": ("cors", "empty"),
    "fetch that reads nothing": ("no-cors", "empty"),
    "event source": ("cors", "empty"),
    "worker": ("same-origin", "worker"),
    "websocket": ("websocket", "websocket"),
    "iframe": ("navigate", "iframe"),
    "frame": ("navigate", "frame"),
    "object": ("navigate", "object"),
    "embed": ("navigate", "embed"),
    "link or window": ("navigate", "document"),
}
"""What a page can bring a browser to send, with the mode and destination that the browser then names."""


@pytest.mark.trio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/", "/quiz/3", "/events", "/status", "/static/page.js"])
async def test_another_sites_page_cannot_start_a_pass(app: Starlette, path: str, site: str, way: str) -> None:
    """Neither a pass nor an event stream, nor be a frame around the page: it may only be opened in a tab."""
    mode, dest = WAYS[way]
    answer = await ask(app, path, sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest=dest)
    if (path, dest) == ("/", "document"):
        assert answer.status == 200
    else:
        assert (answer.status, answer.error) == (
            403,
            "a page of another site may not read this node: open its own page",
        )


@pytest.mark.trio
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://[::1", "http://127.0.0.1:9999", "http://127.0.0.1"]
)
async def test_another_origin_is_refused_where_a_browser_says_no_more(app: Starlette, origin: str) -> None:
    assert (await ask(app, "/events", origin=origin)).status == 403


@pytest.mark.trio
async def test_its_own_page_and_whoever_types_the_address_are_answered(app: Starlette) -> None:
    assert (await ask(app, "/quiz/3", sec_fetch_site="same-origin", sec_fetch_mode="cors")).status == 200
    own = {"sec_fetch_site": "none", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert (await ask(app, "/quiz/3", **own)).status == 200
    assert (await ask(app, "/quiz/3", origin="http://127.0.0.1:8001")).status == 200


@pytest.mark.trio
async def test_only_so_many_quizzes_wait(app: Starlette, view: MemoryView) -> None:
    view.quiz_gate = trio.Event()
    waiting = [Exchange("/quiz/3") for _ in range(http.MAX_QUIZZES)]
    async with trio.open_nursery() as nursery:
        for exchange in waiting:
            nursery.start_soon(exchange.run, app)
        await wait_all_tasks_blocked()
        refused = await ask(app, "/quiz/3")
        view.quiz_gate.set()
    assert (refused.status, refused.error) == (503, "too many quizzes are being computed: try again")
    assert [exchange.status for exchange in waiting] == [200] * http.MAX_QUIZZES
    assert (await ask(app, "/quiz/3")).status == 200


@pytest.mark.trio
async def test_a_bug_is_told_and_raised(app: Starlette, view: MemoryView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "get_peers", lambda: 1 // 0)
    exchange = Exchange("/peers")
    with pytest.raises(ZeroDivisionError):
        await exchange.run(app)
    assert (exchange.status, exchange.error) == (500, "the node failed on this request: see its log")


# Events.


@asynccontextmanager
async def listening(app: Starlette, count: int = 1) -> AsyncIterator[list[Exchange]]:
    """Open event streams, which end with the block."""
    streams = [Exchange("/events") for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.run, app)
        await wait_all_tasks_blocked()
        yield streams
        for stream in streams:
            stream.leave.set()


@pytest.mark.trio
async def test_a_stream_begins_with_what_is(app: Starlette, view: MemoryView) -> None:
    async with listening(app) as [stream]:
        assert stream.answer_headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.body.startswith(b"retry: 2000\n\n")
        assert stream.events == [("status", view.get_status()), ("head", view.get_block("head"))]


@pytest.mark.trio
async def test_a_new_block_is_an_event(app: Starlette, view: MemoryView) -> None:
    async with listening(app, 2) as streams:
        view.set_height(7)
        await wait_all_tasks_blocked()
        new = [("head", view.get_block("7")), ("status", view.get_status()), ("quiz", view.make_quiz(7))]
        assert [stream.events[2:] for stream in streams] == [new, new]


@pytest.mark.trio
async def test_line_ends_in_data_stay_in_one_event(app: Starlette, view: MemoryView) -> None:
    async with listening(app) as [stream]:
        view.emit(Event("status", {"reason": "two\n\nevent: head\rlines"}))
        await wait_all_tasks_blocked()
        assert stream.events[-1] == ("status", {"reason": "two\n\nevent: head\rlines"})
        assert len(stream.events) == 3


@pytest.mark.trio
async def test_a_silent_stream_shows_that_it_lives(app: Starlette, autojump_clock: MockClock) -> None:
    async with listening(app) as [stream]:
        body = stream.body
        await trio.sleep(2 * http.HEARTBEAT + 1)
        assert stream.body == body + 2 * b": still here\n\n"


@pytest.mark.trio
async def test_a_stream_ends_with_its_node(app: Starlette, view: MemoryView) -> None:
    stream = Exchange("/events")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, app)
        await wait_all_tasks_blocked()
        view.close()
    assert stream.ended


@pytest.mark.trio
async def test_only_so_many_streams_are_open(app: Starlette) -> None:
    async with listening(app, http.MAX_EVENT_CLIENTS):
        refused = await ask(app, "/events")
        assert (refused.status, refused.answer_headers["retry-after"]) == (503, "10")
        assert refused.error == "32 event streams are open: close one, or read /status instead"
    async with listening(app) as [stream]:
        assert stream.status == 200  # those who left made room


@pytest.mark.trio
async def test_who_reads_slowly_loses_the_oldest(view: MemoryView) -> None:
    with view.subscribe() as channel:
        for number in range(QUEUE + 3):
            view.emit(Event("status", number))
        assert [channel.receive_nowait().data for _ in range(QUEUE)] == list(range(3, QUEUE + 3))


@pytest.mark.trio
async def test_the_head_of_a_stream_is_no_stream(app: Starlette) -> None:
    assert (await ask(app, "/events", "HEAD")).body == b""


# The real server.


@asynccontextmanager
async def serving(app: Starlette, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run the server on a free port, which is what the block gets."""
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_http, app, host, 0)
        yield int(urls[0].rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def fetch(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[str, bytes]:
    """Return head and body of an answer."""
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        data = b"".join([part async for part in stream])
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode(), body


@pytest.mark.trio
async def test_the_server_answers(app: Starlette, view: MemoryView) -> None:
    async with serving(app) as port:
        head, body = await fetch(port, "/status")
        assert head.startswith("HTTP/1.1 200")
        assert "server:" not in head.lower()
        assert json.loads(body) == view.get_status()
        head, body = await fetch(port, "/status", "HEAD")
        assert head.startswith("HTTP/1.1 200")
        assert body == b""


@pytest.mark.trio
async def test_the_server_streams_and_stops_at_once(app: Starlette, view: MemoryView) -> None:
    async with serving(app) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b"event: head" not in received:
            received += await stream.receive_some()
        view.set_height(7)
        while b"event: quiz" not in received:
            received += await stream.receive_some()
    await stream.aclose()


@pytest.mark.trio
async def test_a_client_that_leaves_makes_room(app: Starlette, view: MemoryView) -> None:
    async with serving(app) as port:
        for _ in range(http.MAX_EVENT_CLIENTS + 1):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                received = b""
                while b"event: head" not in received:
                    part = await stream.receive_some()
                    assert part, received
                    received += part
            while any(send.statistics().open_receive_channels == 2 for send, _ in view.readers):
                await trio.lowlevel.checkpoint()  # until the server has seen it


@pytest.mark.trio
async def test_a_client_that_takes_nothing_does_not_hold_up_the_stop(
    app: Starlette, view: MemoryView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "SEND_TIMEOUT_S", 0.2)
    with trio.fail_after(30):
        async with serving(app) as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await stream.send_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stream.receive_some(1)
            while all(send.statistics().current_buffer_used < QUEUE for send, _ in view.readers):
                view.emit(Event("status", "x" * 1_000_000))
                await wait_all_tasks_blocked()
        await stream.aclose()


@pytest.mark.trio
@pytest.mark.parametrize(
    "data", [b"", b"GET /status HTTP/1.1\r\nHost: local", b"GET / HTTP/1.1\r\nX: " + b"y" * 10_000]
)
async def test_a_request_that_does_not_end_is_cut_off(
    app: Starlette, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """However slowly its bytes come: the time is that of the whole head."""
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 0.2)
    with trio.fail_after(30):
        async with serving(app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip, stream)
                with suppress(trio.BrokenResourceError):
                    assert await stream.receive_some() == b""
                nursery.cancel_scope.cancel()
            assert (await fetch(port, "/status"))[0].startswith("HTTP/1.1 200")


async def drip(stream: trio.SocketStream) -> None:
    """Send a byte now and then."""
    with suppress(trio.BrokenResourceError):
        while True:
            await trio.sleep(0.02)
            await stream.send_all(b"a")


@pytest.mark.trio
async def test_a_head_without_end_is_refused(app: Starlette) -> None:
    async with serving(app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nX: " + b"y" * http_server.MAX_HEAD_BYTES)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 431")


@pytest.mark.trio
async def test_only_so_many_are_connected(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_CLIENTS", 3)
    with trio.fail_after(30):
        async with serving(app) as port:
            silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
            for _ in range(3):
                async with await trio.open_tcp_stream("127.0.0.1", port) as late:
                    assert await late.receive_some() == b""
            await silent[0].aclose()
            assert await answers(port)
            for stream in silent[1:]:
                await stream.aclose()


async def answers(port: int) -> bool:
    """Wait until there is room for a request; return whether it is answered."""
    while True:
        with suppress(trio.BrokenResourceError):
            head, _ = await fetch(port, "/status")
            if head:
                return head.startswith("HTTP/1.1 200")


@pytest.mark.trio
async def test_who_does_not_read_an_answer_is_cut_off(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are sent without end until the answers fill every buffer: the one place becomes free again."""
    monkeypatch.setattr(http_server, "SEND_TIMEOUT_S", 0.2)
    monkeypatch.setattr(http_server, "MAX_CLIENTS", 1)
    with trio.fail_after(60):
        async with serving(app) as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"GET /static/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
            assert await answers(port)
            await stream.aclose()


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: %s\r\nHTTP2-Settings: AAAA\r\n\r\n"


@pytest.mark.trio
@pytest.mark.parametrize(
    ("data", "status"), [(HTTP2, b"400"), (UPGRADE % b"h2c", b"200"), (UPGRADE % b"websocket", b"200")]
)
async def test_nothing_but_http_1_is_spoken(app: Starlette, data: bytes, status: bytes) -> None:
    """Hypercorn, as it comes, ends with an error that ends the node on the second, whose settings have four bytes."""
    async with serving(app) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + status)
        assert (await fetch(port, "/status"))[0].startswith("HTTP/1.1 200")


@pytest.mark.trio
async def test_library_ends_on_settings_that_cannot_be_read(app: Starlette) -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger("hypercorn")

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(serve, app, config)
            async with await trio.open_tcp_stream("127.0.0.1", int(urls[0].rpartition(":")[2])) as stream:
                await stream.send_all(UPGRADE % b"h2c")
                await trio.sleep(30)

    with pytest.raises(BaseExceptionGroup):
        await run()


@pytest.mark.trio
async def test_a_bug_is_logged(
    app: Starlette, view: MemoryView, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(view, "get_peers", lambda: 1 // 0)
    async with serving(app) as port:
        head, body = await fetch(port, "/peers")
        assert head.startswith("HTTP/1.1 500")
        assert json.loads(body) == {"error": "the node failed on this request: see its log"}
        assert (await fetch(port, "/status"))[0].startswith("HTTP/1.1 200")
    errors = [record for record in caplog.records if record.name == "poaid.api.rest"]
    assert [record.levelno for record in errors] == [logging.ERROR]
    assert errors[0].exc_info is not None
    assert errors[0].exc_info[0] is ZeroDivisionError


@pytest.mark.trio
async def test_nothing_is_logged_where_nothing_is_wrong(app: Starlette, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(app) as port:
        await fetch(port, "/status")
    assert [record.name for record in caplog.records if record.name.startswith(("hypercorn", "poaid"))] == []


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(NodeError, match=f"^port {port} is in use: give another --http-port$"):
            open_listener("127.0.0.1", port)


def test_a_foreign_address_is_named() -> None:
    with pytest.raises(NodeError, match=r"^192\.0\.2\.1 is no address of this machine: give another --http-host$"):
        open_listener("192.0.2.1", 0)


def test_a_forbidden_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(NodeError, match=r"^port 80 may not be used by this user: give an --http-port from 1024 on$"):
        open_listener("127.0.0.1", 80)
