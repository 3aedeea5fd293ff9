"""Logs on standard error: for people on a terminal, one JSON object a line otherwise."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO, cast

import structlog

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
            *([_escape] if human else []),
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


def _make_json_notice(count: int) -> str:
    """Return the line that says how many were dropped, as the lines around it are."""
    event = {"event": make_plain_notice(count).strip(), "dropped": count, "level": "warning"}
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps(event | {"timestamp": now}) + "\n"


def _escape(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Write control characters of texts as escapes: a terminal would obey what a peer or a file has put there."""
    return {key: _escape_text(value) if isinstance(value, str) else value for key, value in event.items()}


def _escape_text(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
