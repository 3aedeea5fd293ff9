"""The HTTP server in a thread of its own, over a node's view: what a browser is pointed at."""

import threading
from collections.abc import Callable

import trio

from poaid.api.rest import make_app
from poaid.api.server import serve_http
from poaid.metrics import Metrics
from tests.harness.memory_view import MemoryView

START_TIMEOUT = 30
"""Seconds."""


class ShownNode:
    """A server that can go away and come back on the same port.

    Attributes:
        view: what it shows; while the server runs, changed only through `call`.
        port: chosen at the first start.
    """

    def __init__(self, view: MemoryView) -> None:
        self.view, self.port = view, 0
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return once connections are taken."""
        started = threading.Event()

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                app = make_app(self.view, Metrics())
                urls = await nursery.start(serve_http, app, "127.0.0.1", self.port)
                self.port = int(urls[0].rpartition(":")[2])
                self._token, self._scope = trio.lowlevel.current_trio_token(), nursery.cancel_scope
                started.set()

        self._thread = threading.Thread(target=trio.run, args=(run,))
        self._thread.start()
        assert started.wait(START_TIMEOUT)

    def stop(self) -> None:
        """Return once the port is free."""
        if self._thread is not None:
            self.call(self._scope.cancel)
            self._thread.join()
            self._thread = None

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function in the server's thread."""
        trio.from_thread.run_sync(function, *arguments, trio_token=self._token)
