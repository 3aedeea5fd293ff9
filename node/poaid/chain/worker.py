"""One worker thread for the model: verification goes first, mining takes what is left.

Half of it is kept for peers that have delivered a true block: while both kinds wait, they take turns. Nothing is taken
from the thread once it runs, so what is given to it is short: one replay, a batch that was cut to about a second.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")

MODEL_NICENESS = 5
"""Of the model's thread: an import takes milliseconds, and should not wait for a time slice of those that mine."""


class Turn(IntEnum):
    """Who waits for the model."""

    PROVEN = 0
    UNPROVEN = 1
    MINING = 2


@dataclass(eq=False)
class _Job:
    work: Callable[[], Any]
    check: Callable[[], None]
    settle: Callable[[Any], None]
    asked: float
    done: trio.Event = field(default_factory=trio.Event)
    result: outcome.Outcome[Any] | None = None


def run_timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what a function returns, and the seconds that it took: without the wait for its turn."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _run_aside(work: Callable[[], Any]) -> outcome.Outcome[Any]:
    """Run the model with less of the processor's favour than the thread that imports blocks and answers peers."""
    with suppress(OSError):  # only Linux has priorities of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), MODEL_NICENESS)
    return outcome.capture(work)


class Verifier:
    """Runs functions in one thread, one at a time; `run` has to be running.

    Args:
        on_wait: told how long each verification waited for its turn, seconds.
    """

    def __init__(self, on_wait: Callable[[float], None] = lambda _: None) -> None:
        self._queues: dict[Turn, deque[_Job]] = {turn: deque() for turn in Turn}
        self._last, self._wake, self._on_wait = Turn.UNPROVEN, trio.Event(), on_wait

    async def run(self) -> None:
        """Do one job after another, for ever."""
        while True:
            turn = self._choose()
            if turn is None:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            job = self._queues[turn].popleft()
            job.result = outcome.capture(job.check)
            if isinstance(job.result, outcome.Value):
                if turn is not Turn.MINING:
                    self._last = turn
                    self._on_wait(time.monotonic() - job.asked)
                job.result = await trio.to_thread.run_sync(_run_aside, job.work, abandon_on_cancel=True)  # type: ignore[call-arg]
                if isinstance(job.result, outcome.Value):
                    job.settle(job.result.value)
            job.done.set()

    async def do(
        self,
        turn: Turn,
        work: Callable[[], T],
        check: Callable[[], None] = lambda: None,
        settle: Callable[[T], None] = lambda _: None,
    ) -> T:
        """Have a function run when it is its turn; return what it returns, raise what it raises.

        A caller that is cancelled before that takes its job back.

        Args:
            turn: who waits.
            work: the function.
            check: called right before it, in the caller's thread; what it raises comes in its place.
            settle: called there with what it returns, before any other job runs, even if its caller has left meanwhile.
        """
        job = _Job(work, check, settle, time.monotonic())
        self._queues[turn].append(job)
        self._wake.set()
        try:
            await job.done.wait()
        finally:
            if job in self._queues[turn]:
                self._queues[turn].remove(job)
        assert job.result is not None
        result: T = job.result.unwrap()
        return result

    def count_waiting(self) -> int:
        """Return how many verifications wait."""
        return len(self._queues[Turn.PROVEN]) + len(self._queues[Turn.UNPROVEN])

    def _choose(self) -> Turn | None:
        other = Turn.UNPROVEN if self._last is Turn.PROVEN else Turn.PROVEN
        return next((turn for turn in (other, self._last, Turn.MINING) if self._queues[turn]), None)
