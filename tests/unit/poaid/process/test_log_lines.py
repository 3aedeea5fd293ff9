"""What a log says: to people, to programs, and to a file."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from poaid.errors import UsageError
from poaid.process.logs import LogFormat, LogLevel, configure_logs, say_fatal

HASH = "0x" + "ab" * 32
NUMBERS: dict[str, Any] = {"hash": HASH, "loss_bits": 12.34567, "balance": "5000000000000000000", "height": 3}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    configure_logs()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_programs_read_types_and_people_read_what_is_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log"
    configure_logs(LogFormat.HUMAN, file=file)
    structlog.get_logger().info("Generated quiz: a-b", quiz="a-b", **NUMBERS)
    (event,) = read(file)
    del event["timestamp"]
    assert event == {"event": "Generated quiz: a-b", "level": "info", "quiz": "a-b", **NUMBERS}
    line = capsys.readouterr().err
    assert "Generated quiz: a-b" in line
    for text in ("hash=abababab ", "loss_bits=12.346", "balance='5 POAI'", "height=3"):
        assert text.strip() in line
    assert "quiz=" not in line


@pytest.mark.parametrize("level", LogLevel)
def test_what_is_less_than_the_level_is_not_logged(level: LogLevel, tmp_path: Path) -> None:
    configure_logs(LogFormat.JSON, level, tmp_path / "log")
    log = structlog.get_logger()
    for name in LogLevel:
        getattr(log, name)("x")
    assert [event["level"] for event in read(tmp_path / "log")] == list(LogLevel)[list(LogLevel).index(level) :]


def test_a_file_is_continued(tmp_path: Path) -> None:
    for _ in range(2):
        configure_logs(LogFormat.JSON, file=tmp_path / "log")
        structlog.get_logger().info("x")
    assert len(read(tmp_path / "log")) == 2


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--log-file .* cannot be written: Is a directory"):
        configure_logs(file=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full")
def test_a_full_disk_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, file=Path("/dev/full"))
    structlog.get_logger().info("x")
    assert json.loads(capsys.readouterr().err)["event"] == "x"


def test_the_end_is_logged_where_the_log_is_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    say_fatal("no")
    assert capsys.readouterr().err == "error: no\n"
    configure_logs(LogFormat.JSON, fatal=True)
    say_fatal("no")
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["level"]) == ("no", "critical")
    configure_logs(LogFormat.HUMAN, fatal=True)
    say_fatal("no")
    assert capsys.readouterr().err == "error: no\n"


def _break() -> None:
    raise KeyError("a bug")


def test_a_bug_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, fatal=True)
    with pytest.raises(KeyError) as caught:
        _break()
    sys.excepthook(KeyError, caught.value, caught.tb)
    event = json.loads(capsys.readouterr().err)
    assert event["level"] == "critical"
    assert "in test_a_bug_is_one_line_of_json" in event["exception"]
    assert event["exception"].endswith("KeyError: 'a bug'")
