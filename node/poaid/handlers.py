"""What a network tells its owner, and how: as tasks of the network's own, so that a bug in a handler is seen."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol, TypeVar

import trio

from poai_spec.networking import Verdict
from poai_spec.notation import SpecError

T = TypeVar("T")

Refusal = Literal["prefix", "full", "displaced"]
"""Why an inbound connection was closed: its address prefix had its share; all places were taken; a stranger from a
prefix with fewer connections got its place."""


class PeerError(Exception):
    """A peer did not do what was asked: no connection, no answer in time, or an answer cut short."""


class Handlers(Protocol):
    """What a network tells its owner."""

    async def on_connected(self, peer: str, address: str, *, outbound: bool) -> None:
        """A peer's first connection is open; runs in a task of its own."""
        ...

    def on_disconnected(self, peer: str) -> None:
        """A peer's last connection is closed."""
        ...

    async def on_gossip(self, peer: str, data: bytes) -> Verdict:
        """Judge a message; of equal ones only the first is shown while it is judged."""
        ...

    async def on_request(self, peer: str, protocol: str, payload: bytes) -> bytes | None:
        """Return the payload of the response to a request; None for no response."""
        ...

    def on_fault(self, peer: str, error: SpecError) -> None:
        """A peer's bytes broke a rule of the page `networking`, or could not be read at all."""
        ...

    def on_discovered(self, address: str) -> None:
        """mDNS has found a peer of this network; the address ends with its peer id."""
        ...

    def on_refused(self, reason: Refusal) -> None:
        """An inbound connection was closed to bound how many there are."""
        ...


class Owner:
    """Runs the owner's handlers as tasks of `Network.run`, so that what they raise ends it.

    In a task of libp2p's it would be taken for a peer's fault, or for the end of a connection.
    """

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run tasks until the block is left."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()

    def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task, unless the network has ended."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    def tell(self, handler: Callable[..., None], *args: Any) -> None:
        """Call a handler that does not wait."""

        async def call() -> None:
            handler(*args)

        self.start(call)

    async def ask(self, handler: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call a handler and return its answer; never return if it raises anything but a SpecError."""
        answers: list[T | SpecError] = []
        answered, scope = trio.Event(), trio.CancelScope()

        async def call() -> None:
            with scope:
                try:
                    answers.append(await handler(*args))
                except SpecError as error:
                    answers.append(error)
                answered.set()

        self.start(call)
        try:
            await answered.wait()
        finally:
            scope.cancel()
        answer = answers[0]
        if isinstance(answer, SpecError):
            raise answer
        return answer
