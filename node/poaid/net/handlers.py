"""What a network tells its owner, and how: as tasks of the network's own, so that a bug in a handler is seen.

A bug of ours that a message meets is no reason to blame its sender, nor to end the node, which a stranger could then do
again and again: it is told to the owner, who writes it down and counts it, and the message has no consequence.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, Protocol, TypeVar

import trio

from poai_spec.basics.notation import SpecError
from poai_spec.chain.networking import Verdict

T = TypeVar("T")

Refusal = Literal["prefix", "full", "displaced", "own identity"]
"""Why an inbound connection was closed: its address prefix had its share; all places were taken; a stranger from a
prefix with fewer connections got its place; it has proven to be who this node is."""


TURN_BUDGET_S = 0.020
"""How long one message of a peer may keep the event loop from everything else, however it is made. A node has 64 peers:
if all of them send their worst at once, a block waits 1.3 s, as long as for a batch of the miner's. What takes longer
runs in a worker thread, or lets others go on in between; `tests/unit/poaid/net/test_turns.py` measures every kind."""

BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What Python raises where code is wrong. A full disk or a damaged database is none, and ends the node."""


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

    async def on_gossip(self, peer: str, topic: str, data: bytes) -> Verdict:
        """Judge a message on one of the topics; of equal ones only the first is shown while it is judged."""
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

    def on_bug(self, error: Exception) -> None:
        """Code of ours was wrong; what it was about has no consequence."""
        ...


class Owner:
    """Runs the owner's handlers as tasks of `Network.run`: what they raise ends it, unless it is one of `BUGS`.

    In a task of libp2p's it would be taken for a peer's fault, or for the end of a connection.

    Args:
        on_bug: told what is wrong with our code.
    """

    def __init__(self, on_bug: Callable[[Exception], None]) -> None:
        self._on_bug = on_bug
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
            self._nursery.start_soon(self._run, function, *args)

    async def _run(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        with self._seeing_bugs():
            await function(*args)

    @contextmanager
    def _seeing_bugs(self) -> Iterator[None]:
        try:
            yield
        except* BUGS as group:
            for error in iterate_leaves(group):
                self._on_bug(error)

    def see(self, error: Exception) -> None:
        """Tell of an error that surfaced in the library if it is a bug of ours: raised in our code, not in theirs."""
        if is_ours(error):
            self._on_bug(error)

    def tell(self, handler: Callable[..., None], *args: Any) -> None:
        """Call a handler that does not wait."""

        async def call() -> None:
            handler(*args)

        self.start(call)

    async def ask(self, handler: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call a handler and return its answer; never return if it raises what ends the network.

        Raises:
            SpecError: the handler has raised it.
            PeerError: the handler has met a bug.
        """
        answers: list[T | SpecError] = []
        answered, scope = trio.Event(), trio.CancelScope()

        async def call() -> None:
            with scope:
                with self._seeing_bugs():
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
        if not answers:
            raise PeerError("a bug of ours has prevented the answer")
        answer = answers[0]
        if isinstance(answer, SpecError):
            raise answer
        return answer


def is_ours(error: BaseException) -> bool:
    """Whether an error says that our code is wrong: one of `BUGS`, raised in a module of ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return isinstance(error, BUGS) and module.partition(".")[0] in ("poaid", "poai_engine", "poai_spec")


def iterate_leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """Yield the errors in a group."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from iterate_leaves(error)
        else:
            yield error
