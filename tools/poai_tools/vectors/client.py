"""A foreign program as a client: JSON objects, one a line, on its standard input and output.

The program is not trusted to do anything right. It may die, hang, never read, write garbage, endless lines or several
answers; whatever it does, `ask` returns before its time-out with an answer or with a fault in one line. After a fault
that leaves the two sides out of step the program is killed and started again for the next request, at most
`MAX_RESTARTS` times; from then on every request is answered by a fault at once.

One thread and non-blocking pipes: while a request is written and its answer awaited, standard output and standard
error are read, so no full pipe can stop either side. Every program is the leader of its own process group, which is
killed when it is given up.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, NoReturn

from poai_tools.vectors.errors import VectorsError

MAX_ANSWER = 8 * 2**20
"""Bytes of the longest answer line; the committed ones are below 1 MiB."""
MAX_RESTARTS = 16
"""How often a program that failed is started again in one run."""
ERROR_TAIL = 2000
"""Bytes of standard error that are kept."""
CLOSING_TIME = 0.5
"""Seconds that a program has for ending by itself when its input ends."""
CHUNK = 2**16
NOT_IMPLEMENTED = "client/not-implemented"
BAD_REQUEST = "client/bad-request"


@dataclass(frozen=True)
class Answer:
    """What came back for a request: exactly one of the three is set.

    Attributes:
        output: the output of a valid case, in JSON form.
        code: a rejection code, or one of the protocol's own (`client/...`).
        fault: what went wrong instead, in one line.
    """

    output: Any = None
    code: str | None = None
    fault: str | None = None


class _FaultError(Exception):
    """No usable answer; the program has to be started again."""


class Client:
    """A program that answers requests; use it as a context manager.

    Args:
        command: program and arguments.
        timeout: seconds for one answer, the start of the program included.
        max_restarts: how often it may be started again.
    """

    def __init__(self, command: Sequence[str], timeout: float, max_restarts: int = MAX_RESTARTS) -> None:
        self.command = list(command)
        self.timeout = timeout
        self.restarts_left = max_restarts
        self.timed_out = False  # whether the last fault was a time-out
        self._process: subprocess.Popen[bytes] | None = None
        self._started = False
        self._output = bytearray()
        self._errors = bytearray()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, suite: str, function: str, case_id: str, data: Any) -> Answer:
        """Send one request and return its answer; never raises for what the program does.

        Raises:
            VectorsError: the program cannot be started at all.
        """
        deadline = time.monotonic() + self.timeout
        request = {"id": case_id, "suite": suite, "function": function, "input": data}
        self.timed_out = False
        if self._process is None and self._started:
            if not self.restarts_left:
                return Answer(fault="not asked: the client failed too often")
            self.restarts_left -= 1
        try:
            process = self._process or self._start()
            self._check_silence(process)
            line = self._exchange(process, json.dumps(request).encode() + b"\n", deadline)
            return _read_answer(line, case_id)
        except _FaultError as fault:
            self._kill()
            return Answer(fault=str(fault))

    def close(self) -> None:
        """End the program: close its input, wait a moment, kill its process group."""
        if self._process is None:
            return
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        deadline = time.monotonic() + CLOSING_TIME
        while not _has_ended(self._process) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._kill()

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self.command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise VectorsError(f"the client {self.command[0]!r} cannot be started: {reason}", status=2) from error
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream
            os.set_blocking(stream.fileno(), False)
        self._started, self._process = True, process
        self._output.clear()
        self._errors.clear()
        return process

    def _kill(self) -> None:
        """Kill the process group, reap the leader, close the pipes."""
        process, self._process = self._process, None
        if process is None:
            return
        # The leader is not reaped yet, so its number, the group's too, cannot have passed to another process.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream
            with contextlib.suppress(OSError):
                stream.close()

    def _check_silence(self, process: subprocess.Popen[bytes]) -> None:
        """Refuse what was written before a request: then the next line would not be its answer."""
        assert process.stdout
        with contextlib.suppress(BlockingIOError):
            self._output += os.read(process.stdout.fileno(), CHUNK)
        if self._output.strip():
            raise _FaultError(f"the client wrote something that nobody asked for: {_quote(self._output)}")
        self._output.clear()

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes, deadline: float) -> bytes:
        """Write the request and return the next line, reading both outputs meanwhile."""
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin
        assert stdout
        assert stderr
        pending = memoryview(request)
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            if not stderr.closed:
                selector.register(stderr, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                events = selector.select(left) if left > 0 else []
                if not events:
                    self._fail_late(unread=len(pending) > 0)
                for key, _ in events:
                    if key.fileobj is stdin:
                        pending = _write_some(stdin, pending)
                        if not pending:
                            selector.unregister(stdin)
                    elif key.fileobj is stderr:
                        self._read_errors(stderr, selector)
                    elif (line := self._read_line(process, stdout)) is not None:
                        return line

    def _fail_late(self, *, unread: bool) -> NoReturn:
        self.timed_out = True
        where = " (it did not read the whole request)" if unread else ""
        raise _FaultError(f"no answer within {self.timeout:g} s{where}{self._last_error()}")

    def _read_errors(self, stderr: IO[bytes], selector: selectors.BaseSelector) -> None:
        data = os.read(stderr.fileno(), CHUNK)
        if not data:
            selector.unregister(stderr)
            stderr.close()
        self._errors += data
        del self._errors[:-ERROR_TAIL]

    def _read_line(self, process: subprocess.Popen[bytes], stdout: IO[bytes]) -> bytes | None:
        """Read what there is; return a line if it is whole."""
        at = len(self._output)
        data = os.read(stdout.fileno(), CHUNK)
        if not data:
            raise _FaultError(f"{_describe_end(process)} without an answer{self._last_error()}")
        self._output += data
        end = self._output.find(b"\n", at)
        if (end if end >= 0 else len(self._output)) > MAX_ANSWER:
            raise _FaultError(f"a line of more than {MAX_ANSWER:,} bytes: {_quote(self._output)}")
        if end < 0:
            return None
        line = bytes(self._output[:end])
        del self._output[: end + 1]
        return line

    def _last_error(self) -> str:
        lines = [line for line in bytes(self._errors).splitlines() if line.strip()]
        return f"; standard error ends with {_quote(lines[-1])}" if lines else ""


def _write_some(stdin: IO[bytes], pending: memoryview) -> memoryview:
    """Write what fits; a program that closed its input gets no more."""
    try:
        return pending[os.write(stdin.fileno(), pending[:CHUNK]) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        return pending[:0]


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Ask without reaping, so that the process group keeps its number."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _describe_end(process: subprocess.Popen[bytes]) -> str:
    """Say how a program ended that closed its output; it has a moment to end."""
    deadline = time.monotonic() + CLOSING_TIME
    while not _has_ended(process):
        if time.monotonic() > deadline:
            return "the client closed its output"
        time.sleep(0.01)
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert found
    how = "exit status" if found.si_code == os.CLD_EXITED else "signal"
    return f"the client ended ({how} {found.si_status})"


def _quote(data: bytes | bytearray) -> str:
    """Return the beginning of foreign bytes as printable ASCII in quotes."""
    text = json.dumps(bytes(data[:60]).decode("utf-8", "replace"))
    return text + ("..." if len(data) > 60 else "")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def parse_line(line: bytes) -> Any:
    """Return the value of a line of JSON.

    Raises:
        ValueError: no JSON, not UTF-8, too deep, an integer of thousands of digits, or a number that is not finite.
    """
    try:
        return json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("too deep") from error


def _read_answer(line: bytes, case_id: str) -> Answer:
    try:
        answer = parse_line(line)
    except ValueError as error:
        raise _FaultError(f"the answer is no JSON: {_quote(line)}") from error
    if not isinstance(answer, dict):
        raise _FaultError(f"the answer is no JSON object: {_quote(line)}")
    if answer.get("id") != case_id:
        raise _FaultError(f"the answer has another id than the request: {_quote(line)}")
    if answer.keys() == {"id", "output"}:
        return Answer(output=answer["output"])
    if answer.keys() == {"id", "code"} and isinstance(answer["code"], str):
        return Answer(code=answer["code"])
    return Answer(fault=f'an answer has "id" and either "output" or "code" (text), not: {_quote(line)}')
