"""Standard error that holds nobody up: what cannot be written is dropped, counted and said."""

import io
import json
import os
import pty
import termios
from collections.abc import Iterator
from typing import IO, Any

import pytest
import structlog

from poaid.process import logs
from poaid.process.logs import LogFormat, configure_logs
from poaid.process.streams import CHUNK_BYTES, LogStream, make_plain_notice

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], LogStream]]:
    """A pipe's reading end, and the stream at its other end."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader:
        yield reader, LogStream(writing)
    os.close(writing)


def fill(stream: LogStream) -> int:
    """Write until lines are dropped; return how many were not."""
    count = 0
    while not stream.dropped:
        stream.write(LINE)
        count += 1
    return count - 1


def read_all(reader: IO[bytes]) -> bytes:
    os.set_blocking(reader.fileno(), False)
    return b"".join(iter(lambda: reader.read(1 << 16) or b"", b""))


def test_a_reader_that_stalls_is_told_what_it_has_missed(pipe: tuple[IO[bytes], LogStream]) -> None:
    reader, stream = pipe
    written = fill(stream)
    assert written > 100
    for _ in range(41):
        assert stream.write(LINE) == len(LINE)
    assert (stream.dropped, stream.dropped_ever) == (42, 42)
    assert read_all(reader).splitlines(keepends=True)[:written] == [LINE] * written
    stream.write(b"again\n")
    assert read_all(reader).decode().endswith(make_plain_notice(42) + "again\n")
    assert (stream.dropped, stream.dropped_ever) == (0, 42)


def test_a_torn_line_is_ended_before_the_next(pipe: tuple[IO[bytes], LogStream]) -> None:
    reader, stream = pipe
    long = b"y" * (1 << 20) + b"\n"
    stream.write(long)  # a part of it fits
    assert stream.dropped == 1
    part = read_all(reader)
    assert 0 < len(part) < len(long)
    stream.write(b"next\n")
    assert read_all(reader).decode() == "\n" + make_plain_notice(1) + "next\n"


def test_a_reader_that_leaves_costs_nothing() -> None:
    reading, writing = os.pipe()
    stream = LogStream(writing)
    os.close(reading)
    stream.write(LINE * 3)
    assert stream.dropped == 3
    os.close(writing)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")  # noqa: PTH110
def test_a_full_disk_costs_nothing() -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        stream = LogStream(full.fileno())
        stream.write(LINE)
        assert stream.dropped == 1


def test_a_terminal_that_is_stopped_holds_up_nobody() -> None:
    """Ctrl-S; whatever has room in between, a write never waits."""
    master, terminal = pty.openpty()
    stream = LogStream(terminal)
    assert stream.isatty()
    termios.tcflow(terminal, termios.TCOOFF)
    stream.write(LINE * 50)
    assert stream.dropped > 0
    termios.tcflow(terminal, termios.TCOON)
    stream.write(b"again\n")
    assert b"again" in os.read(master, 1 << 16)
    os.close(master)
    os.close(terminal)


def test_what_an_encoding_lacks_is_escaped(pipe: tuple[IO[bytes], LogStream]) -> None:
    reader, stream = pipe
    raw: Any = stream
    text = io.TextIOWrapper(raw, "ascii", "backslashreplace", line_buffering=True)
    print("caf\xe9 \udcff", file=text)
    assert read_all(reader) == b"caf\\xe9 \\udcff\n"


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.HUMAN])
def test_the_notice_looks_like_the_log(
    log_format: LogFormat, pipe: tuple[IO[bytes], LogStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = pipe[1]
    monkeypatch.setattr(logs, "get_log_stream", lambda: stream)
    configure_logs(log_format)
    notice = stream.make_notice(7)
    assert notice.endswith("\n")
    if log_format is LogFormat.HUMAN:
        assert notice == make_plain_notice(7)
    else:
        assert json.loads(notice).keys() == {"event", "level", "timestamp", "dropped"}
        assert json.loads(notice)["dropped"] == 7


def test_a_terminal_does_not_obey_what_a_peer_has_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.HUMAN)
    structlog.get_logger().info("Peer \x1b[2J", reason="\x1b]0;title\x07", height=3)
    configure_logs(LogFormat.JSON)
    structlog.get_logger().info("Peer \x1b[2J")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\x07" not in err
    assert "\\x1b[2J" in err
    assert "height" in err


def test_a_chunk_fits_where_the_system_says_that_there_is_room() -> None:
    assert os.pathconf(".", "PC_PIPE_BUF") >= CHUNK_BYTES
