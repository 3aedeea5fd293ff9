"""What other libraries would write, said in the node's own words and not without end."""

import errno
import json
import os
from collections.abc import Iterator

import pytest
import structlog
import trio
from trio.testing import MockClock

from poaid.process.logs import LogFormat, configure_logs
from poaid.process.seldom import MAX_KINDS, REPEAT_S, Seldom


class FullListener(trio.abc.Listener[trio.SocketStream]):
    """A listener of a process that has no file descriptor left."""

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def json_logs() -> Iterator[None]:
    configure_logs(LogFormat.JSON)
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("json_logs")
def test_a_connection_that_cannot_be_taken_is_said_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    async def serve() -> None:
        async def attend(_: trio.SocketStream) -> None: ...

        with trio.move_on_after(2.5 * REPEAT_S):
            await trio.serve_listeners(attend, [FullListener()])

    trio.run(serve, clock=MockClock(autojump_threshold=0))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 3
    assert {line["event"].partition(":")[0] for line in lines} == {"No connection can be taken"}
    assert all("Too many open files" in line["reason"] for line in lines)
    assert lines[0]["tries"] == 1
    assert 500 < lines[1]["tries"] <= 600


def test_kinds_are_counted_apart_and_bounded() -> None:
    async def main() -> None:
        seldom = Seldom()
        assert (seldom.count("a"), seldom.count("b"), seldom.count("a"), seldom.count("a")) == (1, 1, None, None)
        await trio.sleep(REPEAT_S)
        assert seldom.count("a") == 3
        said = [seldom.count(f"what peer {number} chose") for number in range(10 * MAX_KINDS)]
        assert said.count(1) == MAX_KINDS  # "a" has its place, and all that had none share one line
        assert seldom.count("a") is None
        await trio.sleep(REPEAT_S)
        assert seldom.count("new") == 1

    trio.run(main, clock=MockClock(autojump_threshold=0))
