"""The page in a real browser: what it shows, how it follows the node, and that it stays on its origin.

It runs against the server over a chain in memory. The tests that only read take any node: `page` needs a URL.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from os import geteuid
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, expect, sync_playwright

from poai_engine.gguf_file import read_vocabulary
from poai_spec.block import Judge
from poaid.http import make_app, serve_http
from poaid.metrics import Metrics
from poaid.models import load_engine
from poaid.store import Store
from poaid.view import Event
from tests.node.memory_view import MemoryView
from tests.node.support import MINER, PACES, FakeClock, Remembering, make_quick_network, mine, read_data

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
START = 22
"""Height at which each test begins; two blocks are left to arrive."""
TIMEOUT_MS = 15_000
PHONE = 360
WIDTHS = (PHONE, 768, 1280)


@dataclass
class ShownNode:
    """A node in another thread.

    Attributes:
        url: where its page is.
        view: what it shows; changed only through `call`.
        token: of its trio run.
    """

    url: str
    view: MemoryView
    token: trio.lowlevel.TrioToken

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function in the node's thread."""
        trio.from_thread.run_sync(function, *arguments, trio_token=self.token)


class RunningServer:
    """The HTTP server in a thread, which can be stopped and started again on the same port."""

    def __init__(self, view: MemoryView) -> None:
        self.view, self.port = view, 0
        self.start()

    def start(self) -> None:
        self._ready: list[tuple[int, trio.lowlevel.TrioToken, trio.CancelScope]] = []
        started = __import__("threading").Event()

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                app = make_app(self.view, Metrics())
                urls = await nursery.start(serve_http, app, "127.0.0.1", self.port)
                port = int(urls[0].rpartition(":")[2])
                self._ready.append((port, trio.lowlevel.current_trio_token(), nursery.cancel_scope))
                started.set()

        self.thread = Thread(target=trio.run, args=(run,))
        self.thread.start()
        assert started.wait(30)
        self.port, self.token, self._scope = self._ready[0]

    def stop(self) -> None:
        trio.from_thread.run_sync(self._scope.cancel, trio_token=self.token)
        self.thread.join()
