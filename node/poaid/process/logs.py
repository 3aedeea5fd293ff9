"""Logs on standard error: for people on a terminal, one JSON object a line otherwise."""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from poaid.amounts import format_poai
from poaid.errors import UsageError
from poaid.process.seldom import Seldom
from poaid.process.streams import LogStream, get_log_stream, make_plain_notice


class LogFormat(StrEnum):
    """How log lines look; `auto` is `human` on a terminal and `json` elsewhere."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is worth a line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


SHORT_DIGITS = 8
"""Of a hash on a terminal: what people tell blocks apart by."""
_HASH = re.compile(r"0x[0-9a-f]{64}")


class _CurrentStderr:
    """Whatever is standard error when a line is written: rich puts its own in place while it shows a bar."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _LogFile:
    """A processor that writes each event to the end of a file, too, and hands it on; a full disk drops lines."""

    def __init__(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"--log-file {path} cannot be written: {error.strerror}") from error
        self._stream = LogStream(descriptor)
        self._stream.make_notice = _make_json_notice

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        line = str(_render_json(logger, name, dict(event)))
        self._stream.write(f"{line}\n".encode("utf-8", "backslashreplace"))
        return event


_render_json = structlog.processors.JSONRenderer()


def _shorten(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Write numbers and hashes as people read them; a file or a pipe has them whole."""
    for key, value in event.items():
        if isinstance(value, str) and _HASH.fullmatch(value):
            event[key] = value[2 : 2 + SHORT_DIGITS]
        elif isinstance(value, float):
            event[key] = f"{value:.3f}"
    if "balance" in event:
        event["balance"] = format_poai(int(event["balance"]))
    if "quiz" in event and str(event["event"]).endswith(str(event["quiz"])):
        del event["quiz"]  # the line ends with it
    return event


class _Accepting(logging.Handler):
    """Says that a connection could not be taken: trio writes a traceback ten times a second while it cannot."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._seldom = Seldom()

    def emit(self, record: logging.LogRecord) -> None:
        if (times := self._seldom.count(record.name)) is not None:
            reason = str(record.exc_info[1]) if record.exc_info else record.getMessage()
            structlog.get_logger().error(
                "No connection can be taken: raise the limit of open files (ulimit -n), or lower what else uses them",
                reason=reason, tries=times,
            )  # fmt: skip


def configure_logs(
    log_format: LogFormat = LogFormat.AUTO,
    level: LogLevel = LogLevel.INFO,
    file: Path | None = None,
    *,
    fatal: bool = False,
) -> None:
    """Set up structlog for this process.

    Args:
        log_format: of standard error.
        level: what is below it is not logged.
        file: takes every line, too, as JSON.
        fatal: whether what ends the program is logged as well, where the log is JSON; else it is a line of its own.

    Raises:
        UsageError: the file cannot be written.
    """
    human = log_format is LogFormat.HUMAN or (log_format is LogFormat.AUTO and sys.stderr.isatty())
    last: list[Processor] = (
        [_shorten, _escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())] if human else [_render_json]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            *([_LogFile(file)] if file is not None else []),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _CurrentStderr())),
    )
    if (stream := get_log_stream()) is not None:
        stream.make_notice = make_plain_notice if human else _make_json_notice
    # What these say of peers is said in the node's own words, or is of use to their authors only.
    for name in ("libp2p", "zeroconf", "multiaddr", "hypercorn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _fatal.logged = fatal and (not human or file is not None)
    sys.excepthook = _log_bug if _fatal.logged else sys.__excepthook__
    accepting = logging.getLogger("trio.serve_listeners")  # of the peers' port and of the HTTP server's
    accepting.handlers, accepting.propagate = [_Accepting()], False


class _Fatal:
    """Whether what ends the program goes to the log."""

    logged = False


_fatal = _Fatal()


def say_fatal(line: str) -> None:
    """Say why the program ends."""
    if _fatal.logged:
        structlog.get_logger().critical(line)
    else:
        print(f"error: {line}", file=sys.stderr)


def _log_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an exception that nobody expected, with its traceback, as Python would print it."""
    structlog.get_logger().critical("The program ends because of a bug in it", exc_info=(kind, error, trace))


def _make_json_notice(count: int) -> str:
    """Return the line that says how many were dropped, as the lines around it are."""
    event = {"event": make_plain_notice(count).strip(), "dropped": count, "level": "warning"}
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps(event | {"timestamp": now}) + "\n"


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Write control characters of texts as escapes: a terminal would obey what a peer or a file has put there."""
    for key, value in event.items():
        if isinstance(value, str):
            kept = "\n" if key == "exception" else ""
            event[key] = "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in value)
    return event
