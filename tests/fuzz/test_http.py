"""Requests to a node's HTTP server: an answer of 2xx or 4xx, of a bounded length, whatever is asked."""

from pathlib import Path
from random import Random

import pytest
import trio
from starlette.applications import Starlette
from starlette.types import Message

from poai_engine.models.gguf_file import read_vocabulary
from poai_spec.chain.block import make_genesis, make_judge
from poai_spec.chain.upgrades import get_rules
from poaid.api.rest import MAX_BLOCKS, make_app
from poaid.metrics import Metrics
from poaid.models import load_engine
from tests.harness.driving import ACCEPTED, drive
from tests.harness.engines import Remembering
from tests.harness.memory_view import MemoryView
from tests.harness.mutation import NUMBERS, broken, make_text
from tests.harness.node import MINER
from tests.harness.processes import make_vector_network, read_chain

HEIGHT = 6
MAX_BODY = MAX_BLOCKS * 1_024 + (64 << 10)
"""Bytes: a list of the most blocks, or the page's largest file with room to spare."""
PATHS = (
    "/", "/status", "/blocks", "/blocks/head", "/blocks/3", "/quiz/2", "/peers", "/metrics", "/static/page.css",
    "/blocks/0x" + "00" * 32, "/address/0x" + MINER.hex(), "/static/../status", "//status", "/status/",
)  # fmt: skip
QUERIES = (
    b"",
    b"top=3",
    b"count=2",
    b"top=3&count=2",
    b"top=3&top=4",
    b"count=%32",
    b"x=%ff",
    b"count=\xff",
    b"&&=&=1;",
)
HEADERS = (
    (b"host", b"127.0.0.1:8001"), (b"host", b"[::1]"), (b"host", b"[::"), (b"host", b"evil.example"),
    (b"host", b"\xff@:]"), (b"accept-encoding", b"gzip"), (b"range", b"bytes=0-0,-1"), (b"content-length", b"-1"),
    (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"navigate"), (b"cookie", b"a=" + b"b" * 4_000),
    (b"upgrade", b"websocket"), (b"x-\xff", b"\xff"),
)  # fmt: skip
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "TRACE", "", "get", "G\u00e9T")

Request = tuple[str, str, bytes, list[tuple[bytes, bytes]]]
"""Method, path (decoded, as a server hands it on), query, headers."""

pytestmark = pytest.mark.sockets


def make_request(rng: Random) -> Request:
    path, change = rng.choice(PATHS), rng.randrange(6)
    if change == 0:
        path = broken(rng, path.encode(), 2).decode("utf-8", "replace")
    elif change == 1:
        kind, number = rng.choice(("/blocks/", "/quiz/", "/address/")), rng.choice(NUMBERS)
        long = "0" * 5_000, "1" * 5_000
        path = kind + rng.choice((str(number), f"-{number}", f"0x{number:064x}", "１", "head", *long))
    elif change == 2:
        path += make_text(rng).encode("utf-8", "replace").decode()  # a server hands on text
    query = rng.choice(QUERIES)
    if rng.randrange(2):
        query = broken(rng, query, 2)
    own = [] if rng.randrange(8) == 0 else [(b"host", b"localhost")]
    return rng.choice(METHODS), path, query, [*own, *rng.choices(HEADERS, k=rng.randrange(4))]


@pytest.fixture(scope="module")
def app(mini_path: Path) -> Starlette:
    """The application over seven blocks; its engine answers each quiz once."""
    network = make_vector_network()
    judge = make_judge(
        network.config, network.questions, Remembering(load_engine(str(mini_path), get_rules(network.config, (), 0), 1))
    )
    blocks = read_chain()[:HEIGHT]
    headers = [make_genesis(network.config).header, *(block.header for block in blocks)]
    view = MemoryView(judge, headers, blocks, read_vocabulary(mini_path), MINER, HEIGHT)
    return make_app(view, Metrics(), ())


async def ask(app: Starlette, request: Request) -> tuple[int, int]:
    """Return the status and the length of the answer's body."""
    method, path, query, headers = request
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path, "query_string": query,
        "headers": headers, "raw_path": path.encode(), "root_path": "", "client": ("127.0.0.1", 9), "server": None,
    }  # fmt: skip
    status, size = 0, 0

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, size
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            size += len(message["body"])

    await app(scope, receive, send)
    return status, size


def test_requests(app: Starlette) -> None:
    def run(request: Request) -> str:
        status, size = trio.run(ask, app, request)
        assert 200 <= status < 500, (status, request)
        assert size <= MAX_BODY
        return ACCEPTED if status < 300 else str(status)

    seen = drive("HTTP request", make_request, 300, run)
    assert {"400", "403", "404", "405"} <= set(seen)
