"""The HTTP server: hypercorn, with bounds on how many connect and on how long each may take.

Hypercorn bounds a request's head itself: `KEEP_ALIVE_S` after a connection begins, or has had its last answer, the next
one has to be whole. What it lacks is here: a limit on connections, and on the time that a client may take to read.

Only HTTP/1 is spoken. A client that asked for HTTP/2 with settings that cannot be read would end the process, and one
that began to speak it and said no more would hold its connection for ever.
"""

import errno
import logging
import socket
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from poaid.errors import NodeError

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # libp2p brings these stubs, which go before trio's own types and lack the name

MAX_CLIENTS = 128
"""Connections at a time: room for all event streams, a dozen browsers and some collectors. More would take the file
descriptors that the chain and the peers need; a process often has 1,024."""
KEEP_ALIVE_S = 5.0
"""Without a whole request; hypercorn's default."""
MAX_HEAD_BYTES = 16_384
"""Of a request's line and headers; hypercorn's default, and several times what a browser sends."""
SEND_TIMEOUT_S = 10.0
"""For one piece of an answer, at most the 80 KB of a list of blocks. Hypercorn shields sends: without a limit a client
that takes nothing would also keep the node from stopping."""


class _Client:
    """A connection that ends when the other side takes too long to read."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self.socket = stream, stream.socket
        self.receive_some, self.send_eof, self.aclose = stream.receive_some, stream.send_eof, stream.aclose

    async def send_all(self, data: bytes) -> None:
        with trio.move_on_after(SEND_TIMEOUT_S):
            await self._stream.send_all(data)
            return
        await self.aclose()
        raise trio.BrokenResourceError("the client does not read")


class _Http1(H11Protocol):
    """Stays what it is, whatever a client would like to upgrade to; a server may ignore that."""

    async def _check_protocol(self, event: Any) -> None: ...

    async def _create_stream(self, request: Any) -> None:
        kept = {name: getattr(request, name) for name in ("method", "target", "http_version")}
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        await super()._create_stream(type(request)(headers=headers, **kept))


class _Connection(TCPServer):
    """Hypercorn's, without TLS and HTTP/2."""

    async def run(self) -> None:
        """Answer requests until the connection ends."""
        try:
            sock = cast(_Client, self.stream).socket
            names = (sock.getpeername()[:2], sock.getsockname()[:2])
            async with TaskGroup() as self._task_group:
                state = ConnectionState(self.state)
                self.protocol = _Http1(  # type: ignore[assignment]
                    self.app, self.config, self.context, self._task_group, state, False, *names, self.protocol_send
                )
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
                await self.idle_task.stop()  # or the place would be taken until then
        except OSError:  # the connection has ended
            pass
        finally:
            await self._close()


class _Server:
    """Has hypercorn answer each connection while there is room."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._context, self._count = ASGIWrapper(app), WorkerContext(None), 0  # type: ignore[arg-type]
        self._config = Config()
        self._config.errorlog = logging.getLogger("poaid.api.rest")
        self._config.errorlog.setLevel(logging.ERROR)
        self._config.include_server_header = False
        self._config.keep_alive_timeout = KEEP_ALIVE_S
        self._config.h11_max_incomplete_size = MAX_HEAD_BYTES

    async def attend(self, stream: trio.SocketStream) -> None:
        """Answer a connection's requests until it ends."""
        if self._count >= MAX_CLIENTS:
            await stream.aclose()
            return
        self._count += 1
        try:
            await _Connection(self._app, self._config, self._context, ConnectionState({}), _Client(stream))  # type: ignore[arg-type]
        finally:
            self._count -= 1


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that a taken port is known before the server starts.

    Raises:
        NodeError: the port is taken or may not be used, or the host is no address of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise NodeError(f"port {port} is in use: give another --http-port") from error
        if error.errno == errno.EACCES:
            raise NodeError(f"port {port} may not be used by this user: give an --http-port from 1024 on") from error
        raise NodeError(f"{host} is no address of this machine: give another --http-host") from error


async def serve_http(
    app: ASGIApp, host: str, port: int, task_status: "TaskStatus[list[str]]" = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled.

    Args:
        app: from `poaid.api.rest.make_app`.
        host: a name or address of this machine.
        port: 0 takes a free one.
        task_status: gets the URLs once connections are taken.

    Raises:
        NodeError: the address cannot be used.
    """
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(open_listener(host, port)))
    name, port = listener.socket.getsockname()[:2]
    task_status.started([f"http://{f'[{name}]' if ':' in name else name}:{port}"])
    await trio.serve_listeners(_Server(app).attend, [listener])
