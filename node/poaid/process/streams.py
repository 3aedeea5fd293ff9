"""Standard streams that neither end a program nor hold it up.

A log line is never a condition for going on. Who reads the log may leave, fill its disk or stop reading, and a node
that waited for it would stand still, its answers to peers and to SIGTERM included. So what cannot be written now is
dropped and counted, and the count is said once there is room again.
"""

import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any

PATIENCE_S = 0.1
"""For a reader that is behind, before lines are dropped; while it stays behind there is none."""
CHUNK_BYTES = 512
"""Written at once: POSIX's least `PIPE_BUF`. A pipe that is said to be ready has room for so much."""


def make_plain_notice(count: int) -> str:
    """Return the line that says how many were dropped."""
    return f"{count} log lines were dropped: whoever reads the log did not take them\n"


class LogStream(io.RawIOBase):
    """The binary end of standard error: takes everything at once, and writes what can be written without waiting.

    Args:
        descriptor: of standard error.

    Attributes:
        dropped: lines that were dropped since the last one that was written.
        dropped_ever: lines that were dropped since the start.
        make_notice: returns the line that says so.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._target = descriptor, _reopen_terminal(descriptor)
        self._behind = self._torn = False
        self.dropped = self.dropped_ever = 0
        self.make_notice: Callable[[int], str] = make_plain_notice

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether people read it."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor, for processes that are to write to the same place."""
        return self._descriptor

    def write(self, data: Any) -> int:
        """Write or drop."""
        text = bytes(data)
        begin = b"\n" if self._torn else b""
        if self.dropped and self._send(begin + self.make_notice(self.dropped).encode("utf-8", "backslashreplace")):
            self.dropped, begin = 0, b""
        if self.dropped or not self._send(begin + text):
            self.dropped += text.count(b"\n")
            self.dropped_ever += text.count(b"\n")
        return len(text)

    def _send(self, data: bytes) -> bool:
        """Return whether all was written; what was written of it before a refusal stays."""
        at = 0
        while at < len(data):
            try:
                if not self._is_ready():
                    break
                at += os.write(self._target, data[at : at + CHUNK_BYTES])
            except OSError:  # the reader has left, the disk is full, or the descriptor is set not to wait
                break
        if at:
            self._torn = at < len(data) and data[at - 1 : at] != b"\n"
        return at == len(data)

    def _is_ready(self) -> bool:
        self._behind = not select.select([], [self._target], [], 0 if self._behind else PATIENCE_S)[1]
        return not self._behind


def _reopen_terminal(descriptor: int) -> int:
    """Return a descriptor of the same terminal that does not wait; other programs keep theirs as it is.

    A terminal that was stopped (Ctrl-S) may be said to be ready and then have room for a part of what is written.
    """
    try:
        return os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # it is none, or may not be opened
        return descriptor


def prepare_streams() -> None:
    """Make the standard streams fit for every environment.

    One that the starting process has closed leads nowhere: its number would go to the next file that is opened, and a
    library's message into the chain. A character that the encoding lacks is written as an escape.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number, which is this one
    sys.stdin = sys.stdin or _open_text(0, "r")
    sys.stdout = sys.stdout or _open_text(1, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    raw: Any = LogStream(2)
    sys.stderr = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)


def _open_text(number: int, mode: str) -> Any:
    return open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


def get_log_stream() -> LogStream | None:
    """Return what is behind standard error; None where it is not ours, as in tests or under a progress bar."""
    raw = getattr(sys.stderr, "buffer", None)
    return raw if isinstance(raw, LogStream) else None


def flush_output() -> OSError | None:
    """Write out what standard output still holds; return why that failed, and then send the rest nowhere."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter will try again at its end
        return error
    return None
