"""Logs on standard error: for people on a terminal, one JSON object a line otherwise."""

import logging
import sys
from enum import StrEnum

import structlog


class LogFormat(StrEnum):
    """How log lines look; `auto` is `human` on a terminal and `json` elsewhere."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # What these say of peers is said in the node's own words, or is of use to their authors only.
    for name in ("libp2p", "zeroconf", "multiaddr", "hypercorn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
