"""Turns at the model: kinds of peers alternate, mining waits, callers may leave, failures come back."""

import threading
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from poaid.chain.worker import Turn, Verifier

pytestmark = pytest.mark.trio

P, U, M = Turn.PROVEN, Turn.UNPROVEN, Turn.MINING


async def run_in_order(verifier: Verifier, turns: list[Turn]) -> list[str]:
    """Let callers queue up before the verifier runs; return the order in which their functions ran."""
    order = list[str]()
    async with trio.open_nursery() as callers:
        for number, turn in enumerate(turns):
            callers.start_soon(verifier.do, turn, lambda name=f"{turn.name[0]}{number}": order.append(name))
            await wait_all_tasks_blocked()  # whoever came first waits first
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verifier.run)
            await until_idle(verifier)
            nursery.cancel_scope.cancel()
    return order


async def until_idle(verifier: Verifier) -> None:
    """Wait for a job that is the last of all."""
    await verifier.do(Turn.MINING, lambda: None)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([U, U, U, P, P, P], "P3 U0 P4 U1 P5 U2"),
        ([P, P, P, P, U], "P0 U4 P1 P2 P3"),
        ([U, U, U, U, P], "P4 U0 U1 U2 U3"),
        ([M, M, U, P, M, U], "P3 U2 U5 M0 M1 M4"),
        ([P, P], "P0 P1"),
    ],
)
async def test_proven_and_unproven_take_turns_and_mining_comes_last(turns: list[Turn], expected: str) -> None:
    assert " ".join(await run_in_order(Verifier(), turns)) == expected


async def test_what_a_function_returns_or_raises_reaches_its_caller() -> None:
    verifier, found = Verifier(), list[object]()

    def fail() -> None:
        raise ZeroDivisionError("from the thread")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.run)
        found.append(await verifier.do(P, lambda: threading.current_thread() is threading.main_thread()))
        with pytest.raises(ZeroDivisionError, match="from the thread"):
            await verifier.do(P, fail)
        found.append(await verifier.do(U, lambda: "and it goes on"))
        nursery.cancel_scope.cancel()
    assert found == [False, "and it goes on"]


async def test_a_cancelled_caller_takes_its_job_back() -> None:
    verifier, ran = Verifier(), list[str]()
    async with trio.open_nursery() as callers:
        scope = trio.CancelScope()

        async def leave() -> None:
            with scope:
                await verifier.do(P, lambda: ran.append("left"))

        callers.start_soon(leave)
        callers.start_soon(verifier.do, P, lambda: ran.append("stayed"))
        await wait_all_tasks_blocked()
        assert verifier.count_waiting() == 2
        scope.cancel()
        await wait_all_tasks_blocked()
        assert verifier.count_waiting() == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verifier.run)
            await until_idle(verifier)
            nursery.cancel_scope.cancel()
    assert ran == ["stayed"]


async def test_a_caller_that_leaves_during_its_job_does_not_free_the_thread() -> None:
    """The model cannot be stopped: the next job begins when it has ended."""
    verifier, events = Verifier(), list[str]()
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(30)
        events.append("first ends")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.run)
        async with trio.open_nursery() as callers:
            callers.start_soon(verifier.do, P, work)
            await trio.to_thread.run_sync(begun.wait, 30)
            callers.cancel_scope.cancel()
        nursery.start_soon(verifier.do, P, lambda: events.append("second"))
        await wait_all_tasks_blocked()
        assert events == []
        may_end.set()
        await until_idle(verifier)
        nursery.cancel_scope.cancel()
    assert events == ["first ends", "second"]


async def test_a_check_right_before_the_turn_comes_in_its_place() -> None:
    """It runs where the caller does, and when the turn comes: what others have used up until then counts."""
    verifier, order, budget = Verifier(), list[str](), [2]

    def use(name: str) -> Callable[[], None]:
        def work() -> None:
            order.append(name)
            budget[0] -= 1

        return work

    def check() -> None:
        assert threading.current_thread() is threading.main_thread()
        if budget[0] <= 0:
            raise LookupError

    async def expect_refusal() -> None:
        with pytest.raises(LookupError):
            await verifier.do(U, use("never"), check)
        order.append("refused")

    async with trio.open_nursery() as callers:
        callers.start_soon(verifier.do, U, use("U0"), check)
        await wait_all_tasks_blocked()
        callers.start_soon(expect_refusal)
        callers.start_soon(verifier.do, P, use("P"))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verifier.run)
            await until_idle(verifier)
            nursery.cancel_scope.cancel()
    assert order == ["P", "U0", "refused"]


async def test_a_job_is_settled_before_the_next_one_begins_even_if_its_caller_has_left() -> None:
    verifier, events = Verifier(), list[str]()
    begun, may_end = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        may_end.wait(30)
        return "result"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.run)
        async with trio.open_nursery() as callers:
            callers.start_soon(verifier.do, P, work, lambda: None, events.append)
            await trio.to_thread.run_sync(begun.wait, 30)
            callers.cancel_scope.cancel()
        nursery.start_soon(verifier.do, P, lambda: None, lambda: events.append("next"))
        await wait_all_tasks_blocked()
        may_end.set()
        await until_idle(verifier)
        nursery.cancel_scope.cancel()
    assert events == ["result", "next"]


async def test_the_wait_of_verifications_is_told() -> None:
    waits = list[float]()
    await run_in_order(Verifier(waits.append), [P, U, M])
    assert len(waits) == 2
    assert min(waits) >= 0
