"""What a node shows over HTTP: JSON, Prometheus' metrics, server-sent events, and the page that is made of them.

It reads only (GET and HEAD), and is bound to this machine unless the user says otherwise. Pages of other origins cannot
use it: there is no CORS; a `Host` that is a foreign name (DNS rebinding) is refused; and so is every request that a
browser marks as made by another site's page, which could otherwise start forward passes with the address of an image or
a frame. One thing only may come from elsewhere: a link to the page itself, opened in a tab.
"""

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from importlib import resources
from urllib.parse import urlsplit

import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poaid.errors import UsageError
from poaid.keys import parse_address
from poaid.metrics import Metrics
from poaid.view import Activity, Event, HealthView, NodeView

MAX_EVENT_CLIENTS = 32
"""Open event streams: each holds a socket and a queue. A browser tab has one."""
MAX_QUIZZES = 8
"""Requests for a quiz under way: each may wait for a forward pass, and all of them hold back the miner."""
MAX_BLOCKS = 100
"""Blocks in one list: 80 KB."""
DEFAULT_BLOCKS = 20
MAX_NUMBER = 2**64 - 1
"""Heights are uint64."""
HEARTBEAT = 15.0
"""Seconds without an event before a comment is sent: proxies drop streams that are silent for a minute or half."""
RETRY_MS = 2_000
"""When a browser opens a lost stream again."""

SECURITY_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}

ASSETS = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "plot.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

PATHS = "/, /health, /status, /blocks, /blocks/ID, /quiz/HEIGHT, /address/ADDRESS, /peers, /events, /metrics"

UNKNOWN_HOST = (
    "this host name is not known here: use localhost or the machine's IP address, or start the node with "
    "--http-allow-host"
)

Endpoint = Callable[[Request], Awaitable[Response]]


def parse_number(name: str, text: str, least: int, most: int) -> int:
    """Return a decimal number of a request.

    Raises:
        HTTPException: 400, no decimal digits or outside the bounds.
    """
    if not re.fullmatch(r"[0-9]{1,20}", text) or not least <= int(text) <= most:
        raise HTTPException(400, f"{name} is not a number from {least} to {most}: {text[:80]!r}")
    return int(text)


class _Guard:
    """Middleware: refuses what other sites send through a browser, and adds the security headers to each answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self.hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        if scope["type"] != "http":  # the server's own start and stop; there is no route for a websocket
            await self.app(scope, receive, send)
            return
        refusal = self._judge(Headers(scope=scope), scope["path"])
        await (refusal or self.app)(scope, receive, send_guarded)

    def _judge(self, headers: Headers, path: str) -> Response | None:
        host = headers.get("host", "")
        if not self._is_known(host):
            return _fail(400, UNKNOWN_HOST)
        how = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
        opened = path == "/" and how == ("navigate", "document")  # a frame's is `iframe`, though it navigates, too
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") and not opened
        origin = headers.get(
            "origin"
        )  # older browsers, and all of them over plain HTTP to another machine, say no more
        if foreign or (origin is not None and origin.partition("://")[2] != host):
            return _fail(403, "a page of another site may not read this node: open its own page")
        return None

    def _is_known(self, host: str) -> bool:
        """Tell whether no foreign name can stand behind a `Host`: an IP address cannot be rebound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.hosts or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _fail(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {
        404: f"there is no such path here; a node has {PATHS}",
        405: "this node is only read here: use GET",
    }
    by_router = error.detail in ("Not Found", "Method Not Allowed")
    return _fail(error.status_code, texts[error.status_code] if by_router else error.detail, error.headers)


async def _on_bug(_: Request, __: Exception) -> Response:
    """Answer in JSON; Starlette raises the error again, so that the server logs it."""
    return _fail(500, "the node failed on this request: see its log")


HEALTH_CODES: dict[Activity, int] = {"mining": 200, "idle": 200, "syncing": 206, "stalled": 503}
"""HTTP status of `/health`, as Ethereum's beacon nodes have it: ready, still catching up, not able to."""


class _Api:
    """The answers that are data."""

    def __init__(self, view: NodeView, metrics: Metrics) -> None:
        self.view, self.metrics = view, metrics
        self.quizzes = 0  # requests under way

    async def health(self, _: Request) -> Response:
        status = self.view.get_status()
        health = HealthView(
            activity=status["activity"],
            reason=status["reason"],
            height=status["height"],
            peer_count=status["peer_count"],
        )
        return JSONResponse(health, HEALTH_CODES[status["activity"]])

    async def status(self, _: Request) -> Response:
        return JSONResponse(self.view.get_status())

    async def blocks(self, request: Request) -> Response:
        top, count = request.query_params.get("top"), request.query_params.get("count", str(DEFAULT_BLOCKS))
        height = None if top is None else parse_number("top", top, 0, MAX_NUMBER)
        return JSONResponse(self.view.list_blocks(height, parse_number("count", count, 1, MAX_BLOCKS)))

    async def block(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        if not re.fullmatch(r"head|0x[0-9a-fA-F]{64}|[0-9]{1,20}", reference):
            raise HTTPException(400, "this is no block: give a height, a hash (0x and 64 hexadecimal digits) or head")
        block = self.view.get_block(reference)
        if block is None:
            raise HTTPException(404, f"block {reference} is not known: the head is {self.view.get_status()['height']}")
        return JSONResponse(block)

    async def quiz(self, request: Request) -> Response:
        height = parse_number("height", request.path_params["height"], 0, MAX_NUMBER)
        if self.quizzes >= MAX_QUIZZES:
            raise HTTPException(503, "too many quizzes are being computed: try again", {"Retry-After": "2"})
        self.quizzes += 1
        try:
            quiz = await self.view.get_quiz(height)
        finally:
            self.quizzes -= 1
        if quiz is None:
            head = self.view.get_status()["height"]
            raise HTTPException(404, f"there is no quiz of height {height}: give a height from 1 to {head}")
        return JSONResponse(quiz)

    async def address(self, request: Request) -> Response:
        try:
            address = parse_address(request.path_params["address"], "in the path,")
        except UsageError as error:
            raise HTTPException(400, str(error)) from error
        return JSONResponse(self.view.get_account(address))

    async def peers(self, _: Request) -> Response:
        return JSONResponse(self.view.get_peers())

    async def prometheus(self, _: Request) -> Response:
        text = self.metrics.render(self.view.get_status())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


class _Events:
    """The ASGI application behind `/events`: a stream for each client, while there is room.

    It is no Starlette `StreamingResponse`: that takes an asynchronous generator, which trio cannot close in time.
    """

    def __init__(self, view: NodeView) -> None:
        self.view = view
        self.clients = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.clients >= MAX_EVENT_CLIENTS:
            message = f"{MAX_EVENT_CLIENTS} event streams are open: close one, or read /status instead"
            await _fail(503, message, {"Retry-After": "10"})(scope, receive, send)
            return
        self.clients += 1
        try:
            await self._answer(scope["method"], receive, send)
        finally:
            self.clients -= 1

    async def _answer(self, method: str, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if method == "GET":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_gone, receive, nursery.cancel_scope)
                await self._stream(send)
                nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _stream(self, send: Send) -> None:
        """Send the present state, then each event, until the node ends the channel."""

        async def write(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        with self.view.subscribe() as channel:
            await write(f"retry: {RETRY_MS}\n\n")
            await write(format_event(Event("status", self.view.get_status())))
            await write(format_event(Event("head", self.view.get_block("head"))))
            while True:
                text = ": still here\n\n"
                with trio.move_on_after(HEARTBEAT):
                    try:
                        text = format_event(await channel.receive())
                    except trio.EndOfChannel:
                        return
                await write(text)


def format_event(event: Event) -> str:
    """Return an event as a browser's `EventSource` reads it; JSON has no line ends of its own."""
    data = json.dumps(event.data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {event.name}\ndata: {data}\n\n"


def _make_asset_route(path: str, name: str) -> Route:
    content = (resources.files("poaid") / "api" / "web" / name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=ASSETS[name])

    return Route(path, answer)


def make_app(view: NodeView, metrics: Metrics, hosts: Collection[str] = ()) -> Starlette:
    """Return the application that shows a node.

    Args:
        view: the node.
        metrics: its metrics.
        hosts: names under which it may be asked, beside `localhost` and IP addresses: the host that it is bound to.
    """
    api = _Api(view, metrics)
    data: dict[str, Endpoint] = {
        "/health": api.health,
        "/status": api.status,
        "/blocks": api.blocks,
        "/blocks/{reference}": api.block,
        "/quiz/{height}": api.quiz,
        "/address/{address}": api.address,
        "/peers": api.peers,
        "/metrics": api.prometheus,
    }
    routes = [
        _make_asset_route("/", "index.html"),
        *(_make_asset_route(f"/static/{name}", name) for name in ASSETS if name != "index.html"),
        *(Route(path, endpoint) for path, endpoint in data.items()),
        Route("/events", _Events(view), methods=["GET"]),
    ]
    return _guard(routes, hosts)


def make_metrics_app(view: NodeView, metrics: Metrics, hosts: Collection[str] = ()) -> Starlette:
    """Return an application that serves `/metrics` alone, for a collector that shall see nothing else."""
    return _guard([Route("/metrics", _Api(view, metrics).prometheus)], hosts)


def _guard(routes: list[Route], hosts: Collection[str]) -> Starlette:
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, hosts=hosts)],
        exception_handlers={HTTPException: _on_http_error, 500: _on_bug},
    )
    app.router.redirect_slashes = False
    return app
