"""Logs on standard error: for people on a terminal, one JSON object a line otherwise."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO, cast

import structlog

from poaid.seldom import Seldom
from poaid.streams import get_log_stream, make_plain_notice


class LogFormat(StrEnum):
    """How log lines look; `auto` is `human` on a terminal and `json` elsewhere."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class _CurrentStderr:
    """Whatever is standard error when a line is written: rich puts its own in place while it shows a bar."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


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


def configure_logs(log_format: LogFormat = LogFormat.AUTO) -> None:
    """Set up structlog for this process."""
    human = log_format is LogFormat.HUMAN or (log_format is LogFormat.AUTO and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if human else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _CurrentStderr())),
    )
    if (stream := get_log_stream()) is not None:
        stream.make_notice = make_plain_notice if human else _make_json_notice
    # What these say of peers is said in the node's own words, or is of use to their authors only.
    for name in ("libp2p", "zeroconf", "multiaddr", "hypercorn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    accepting = logging.getLogger("trio.serve_listeners")  # of the peers' port and of the HTTP server's
    accepting.handlers, accepting.propagate = [_Accepting()], False


def _make_json_notice(count: int) -> str:
    """Return the line that says how many were dropped, as the lines around it are."""
    event = {"event": make_plain_notice(count).strip(), "dropped": count, "level": "warning"}
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps(event | {"timestamp": now}) + "\n"
