"""Ask a running node over its HTTP API, and find out whether one runs in a data directory."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

from poaid.errors import NodeError
from poaid.ports import HTTP_PORT_OFFSET, P2P_PORT, RUNNING_FILE
from poaid.view import StatusView

T = TypeVar("T")

TIMEOUT_S = 5.0
"""A node answers within milliseconds; one whose machine is busy with a forward pass, within a second."""
MAX_ANSWER_BYTES = 4 << 20
"""A list of peers has 300 bytes a peer, and a node some dozens of them."""
DEFAULT_HTTP_PORT = P2P_PORT + HTTP_PORT_OFFSET
LOCAL_HOST = "127.0.0.1"

_ANY_HOST = {"0.0.0.0": LOCAL_HOST, "::": "::1"}  # noqa: S104 - compared with, not bound
"""A server that listens on all addresses is asked at its own machine's."""


class UnreachableError(NodeError):
    """Nothing that is a node answers at a URL."""


@dataclass(frozen=True)
class Running:
    """What a node that runs, or ran, has left in its data directory.

    Attributes:
        pid: its process.
        host: where its HTTP server listens.
        http_port: 0 for no server.
    """

    pid: int
    host: str
    http_port: int

    def is_alive(self) -> bool:
        """Whether there is a process of this number; a file whose process was killed is stale."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):  # another user's; no process at all has so large a number
            return self.pid < 1 << 31
        return True

    @property
    def url(self) -> str:
        """Where to ask it."""
        return make_url(self.host, self.http_port)


def read_running(data_dir: Path) -> Running | None:
    """Return what `running.json` says; None where there is none, or one that was cut short when it was written."""
    try:
        data = json.loads((data_dir / RUNNING_FILE).read_bytes())
        running = Running(data["pid"], data["host"], data["http_port"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    numbers = type(running.pid) is int and running.pid > 0 and type(running.http_port) is int
    return running if numbers and isinstance(running.host, str) else None


def make_url(host: str, port: int) -> str:
    """Return the URL of a node's HTTP server as this machine reaches it."""
    host = _ANY_HOST.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def ask(url: str, path: str) -> Any:
    """Return what a node answers, from JSON; never through a proxy.

    Args:
        url: of the node's server.
        path: such as `/status`.

    Raises:
        UnreachableError: nothing answers there, or what answers is no node.
        NodeError: the node refuses; the message is its own.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url + path, timeout=TIMEOUT_S) as answer:
            data = answer.read(MAX_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise _get_refusal(url, error) from error
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError; ValueError: no port or no host
        reason = getattr(error, "reason", error)
        raise UnreachableError(f"no node answers at {url} ({getattr(reason, 'strerror', None) or reason})") from error
    try:
        if len(data) <= MAX_ANSWER_BYTES:
            return json.loads(data)
    except (ValueError, RecursionError):
        pass
    raise UnreachableError(make_stranger_line(url))


def ask_status(url: str) -> StatusView:
    """Return a node's status; see `ask`."""
    return check_answer(StatusView, url, ask(url, "/status"))


def check_answer(kind: type[T], url: str, answer: Any) -> T:
    """Return an answer that has all the keys that it should have.

    Raises:
        UnreachableError: it has not, so another program, or another version, answers.
    """
    if not isinstance(answer, dict) or not kind.__annotations__.keys() <= answer.keys():
        raise UnreachableError(make_stranger_line(url))
    return answer  # type: ignore[return-value]


def _get_refusal(url: str, error: urllib.error.HTTPError) -> NodeError:
    """Return the error that a node answers with; any other server's is no node's."""
    try:
        return NodeError(f"{url}: {json.loads(error.read(MAX_ANSWER_BYTES))['error']}")
    except (OSError, HTTPException, ValueError, RecursionError, KeyError, TypeError):
        return UnreachableError(make_stranger_line(url))


def make_stranger_line(url: str) -> str:
    """Return what is said of another program, or another version, behind a URL."""
    return f"what answers at {url} is no poaid of this version"
