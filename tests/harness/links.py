"""Links between nodes that a test can delay, cut and mend: TCP forwarders, which need neither root nor namespaces.

A node dials its peer's link in the peer's place. What is cut looks as a lost network does from the end of a connection:
bytes are held back, or the connection breaks; a new one is taken and nothing comes. Packets are lost one by one in
`tests/harness/switch.py`.
"""

from contextlib import suppress
from typing import Any

import trio

CHUNK_BYTES = 65_536


class Link:
    """Forwards connections to a port of this machine.

    Args:
        target: the port.
        delay_s: what each chunk takes.

    Attributes:
        port: where it listens, once it is served.
    """

    def __init__(self, target: int, delay_s: float) -> None:
        self._target, self._delay_s = target, delay_s
        self._whole, self._scopes = trio.Event(), set[trio.CancelScope]()
        self._whole.set()
        self.port = 0

    def cut(self, *, broken: bool) -> None:
        """Carry nothing from now on; `broken` ends the connections, else they are only silent."""
        self._whole = trio.Event()
        for scope in self._scopes if broken else ():
            scope.cancel()

    def mend(self) -> None:
        """Carry on, with what was held back first."""
        self._whole.set()

    async def serve(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections, for ever."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._take, listeners)

    async def _take(self, near: trio.SocketStream) -> None:
        """Join a connection with a new one to the target, until either ends."""
        with trio.CancelScope() as scope, suppress(OSError, trio.BrokenResourceError):
            self._scopes.add(scope)
            async with near:
                await self._whole.wait()
                async with await trio.open_tcp_stream("127.0.0.1", self._target) as far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, far, near, scope)
                    await self._pump(near, far, scope)
        self._scopes.discard(scope)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await source.receive_some(CHUNK_BYTES):
                await trio.sleep(self._delay_s)
                await self._whole.wait()
                await sink.send_all(data)
        scope.cancel()
