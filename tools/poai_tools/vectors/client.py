"""A foreign program as a client: JSON objects, one a line, on its standard input and output.

The program is not trusted to do anything right. It may die, hang, never read, write garbage, endless lines or several
answers; whatever it does, `ask` returns before its time-out with an answer or with a fault in one line. After a fault
that leaves the two sides out of step the program is killed and started again for the next request, at most
`MAX_RESTARTS` times; from then on every request is answered by a fault at once.

Before its first request a program is asked for a function that there is not, `START`; whatever it answers, it runs and
speaks the protocol, and the time it took to start counts against no case. A program that fails this at its first start
is not asked anything else.

One thread and non-blocking pipes: while a request is written and its answer awaited, standard output and standard
error are read, so no full pipe can stop either side. Every program is the leader of its own process group, which is
killed when it is given up, and with it every process that has its mark in its environment: a child may have left
the group, and lost its parent (found in /proc, so on Linux only).
"""

import contextlib
import json
import os
import re
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn

from poai_tools.vectors.errors import VectorsError

MAX_ANSWER = 8 * 2**20
"""Bytes of the longest answer line; the committed ones are below 1 MiB."""
MAX_RESTARTS = 16
"""How often a program that failed is started again in one run."""
ERROR_TAIL = 2**16
"""Bytes of standard error that are kept: a Go program's panic stands above the stacks of its goroutines."""
SHOWN_ERRORS = 20
"""Lines of standard error that are shown of a program that does not start."""
START_TIME = 120.0
"""Seconds that a program has to start: `cargo run` and `go run` compile it first."""
START: dict[str, Any] = {"id": "start", "suite": "client", "function": "start", "input": {}}
"""What every program is asked first; as for any function that is not there, `client/not-implemented` is the answer."""
MAX_DIGITS = 400
"""Digits of an integer in a line; no kind of the vectors has more than 78, and Python refuses from 4,301 on."""
MAX_KILL_ROUNDS = 100
"""How often processes with a program's mark are looked for: one that forks all the time could go on for ever."""
MARK = "POAI_CLIENT"
"""The environment variable by which a program's processes are found."""
CLOSING_TIME = 0.5
"""Seconds that a program has for ending by itself when its input ends."""
CHUNK = 2**16
MESSAGE = re.compile(rb"(\w+\.)*\w*(Error|Exception)\b|panic\b|fatal\b|thread '.*' panicked|error\b", re.ASCII)
"""How a line begins that says what is wrong, in Python, JavaScript, Java, Go and Rust."""
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
        timeout: seconds for one answer.
        max_restarts: how often it may be started again.
        start_time: seconds for the answer to `START`.
    """

    def __init__(
        self,
        command: Sequence[str],
        timeout: float,
        max_restarts: int = MAX_RESTARTS,
        start_time: float = START_TIME,
    ) -> None:
        self.command = list(command)
        self.timeout = timeout
        self.start_time = start_time
        self.restarts_left = max_restarts
        self.timed_out = False  # whether the last fault was a time-out
        self._process: subprocess.Popen[bytes] | None = None
        self._started = False
        self._mark = secrets.token_hex(16)
        self._last_id: str | None = None  # of the answer that was taken last
        self._stray: str | None = None  # what came after it
        self._output = bytearray()
        self._errors = bytearray()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, suite: str, function: str, case_id: str, data: Any) -> Answer:
        """Send one request and return its answer; never raises for what the program does once it has started.

        Args:
            suite: of the request.
            function: of the request.
            case_id: of the request; no two in a row have the same.
            data: the input.

        Raises:
            VectorsError: the program cannot be started at all, or does not speak the protocol.
        """
        request = {"id": case_id, "suite": suite, "function": function, "input": data}
        self.timed_out = False
        answer = self._ask_once(request)
        if answer is None:  # what came belongs to the request before, which `take_stray` blames
            answer = self._ask_once(request)
        if answer is None:
            answer = Answer(fault="the client answers what nobody asked for")
        self._last_id = case_id if answer.fault is None else None
        return answer

    def take_stray(self) -> str | None:
        """Return what was wrong after the answer to the last but one request, or, once closed, the last; else None."""
        stray, self._stray = self._stray, None
        return stray

    def _ask_once(self, request: dict[str, Any]) -> Answer | None:
        """Return the answer; None if the program went on after the answer before, and was stopped for it."""
        if self._process is None and self._started:
            if not self.restarts_left:
                return Answer(fault="not asked: the client failed too often")
            self.restarts_left -= 1
        try:
            process = self._process or self._start()
            if self._find_stray(process):
                return None
            line = self._exchange(process, request, self.timeout)
            if self._last_id is not None and _get_id(line) == self._last_id != request["id"]:
                self._blame(line)
                return None
            answer = _read_answer(line, request["id"])
            if self._output.strip():
                _refuse(f"more than one line came as the answer; the second: {_quote(self._output)}")
        except _FaultError as fault:
            self._kill()
            return Answer(fault=str(fault))
        return answer

    def close(self) -> None:
        """End the program: close its input, wait a moment, kill it and all that it started."""
        process = self._process
        if process is None:
            return
        assert process.stdin
        with contextlib.suppress(OSError):
            process.stdin.close()
        deadline = time.monotonic() + CLOSING_TIME
        while not _has_ended(process) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._find_stray(process):
            self._kill()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the program and ask it for `START`.

        Raises:
            VectorsError: it failed at its first start.
            _FaultError: it failed at a later one.
        """
        is_first = not self._started
        process = self._launch()
        try:
            line = self._exchange(process, START, self.start_time)
            answer = _read_answer(line, START["id"])
            if answer.fault is not None:
                _refuse(answer.fault)
        except _FaultError as fault:
            self._kill()
            if not is_first:
                raise _FaultError(f"the client did not start again: {fault}") from fault
            raise VectorsError(self._describe_start(str(fault)), status=2) from fault
        return process

    def _describe_start(self, fault: str) -> str:
        """Return why the program is not examined, with what it said itself."""
        lines = bytes(self._errors).decode("utf-8", "replace").splitlines()
        lines = ["".join(c if c.isprintable() else "?" for c in line.expandtabs()) for line in lines if line.strip()]
        said = "".join(f"\n  {line[:200]}" for line in lines[:SHOWN_ERRORS])
        more = f"\n  ... and {len(lines) - SHOWN_ERRORS} lines more" if len(lines) > SHOWN_ERRORS else ""
        told = f"; its standard error:{said}{more}" if lines else ""
        return f"the client does not start: {fault.partition('; standard error')[0]}{told}"

    def _launch(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self.command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True,
                env=os.environ | {MARK: self._mark},
            )  # fmt: skip
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
        """Kill the process group and what left it, reap the leader, close the pipes."""
        process, self._process = self._process, None
        if process is None:
            return
        # The leader is not reaped yet, so its number, the group's too, cannot have passed to another process.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _kill_marked(self._mark)
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream
            with contextlib.suppress(OSError):
                stream.close()

    def _find_stray(self, process: subprocess.Popen[bytes]) -> bool:
        """Tell whether the program wrote after its last answer; it is then stopped: its next line answers nothing."""
        assert process.stdout
        with contextlib.suppress(BlockingIOError):
            self._output += os.read(process.stdout.fileno(), CHUNK)
        found = bool(self._output.strip())
        if found:
            self._blame(self._output)
        self._output.clear()
        return found

    def _blame(self, line: bytes | bytearray) -> None:
        """Keep what was written after an answer, for the request that it belongs to; stop the program."""
        self._stray = f"the client wrote another line after its answer: {_quote(line)}"
        self._last_id = None
        self._kill()

    def _exchange(self, process: subprocess.Popen[bytes], data: dict[str, Any], seconds: float) -> bytes:
        """Write a request and return the next line, reading both outputs meanwhile."""
        request, deadline = json.dumps(data).encode() + b"\n", time.monotonic() + seconds
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
                    self._fail_late(seconds, unread=len(pending) > 0)
                for key, _ in events:
                    if key.fileobj is stdin:
                        pending = _write_some(stdin, pending)
                        if not pending:
                            selector.unregister(stdin)
                    elif key.fileobj is stderr:
                        self._read_errors(stderr, selector)
                    elif (line := self._read_line(process, stdout)) is not None:
                        return line

    def _fail_late(self, seconds: float, *, unread: bool) -> NoReturn:
        self.timed_out = True
        where = " (it did not read the whole request)" if unread else ""
        raise _FaultError(f"no answer within {seconds:g} s{where}{self._last_error()}")

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
            how = _describe_end(process)
            self._drain_errors(process)
            raise _FaultError(f"{how} without an answer{self._last_error()}")
        self._output += data
        end = self._output.find(b"\n", at)
        if (end if end >= 0 else len(self._output)) > MAX_ANSWER:
            raise _FaultError(f"a line of more than {MAX_ANSWER:,} bytes: {_quote(self._output)}")
        if end < 0:
            return None
        line = bytes(self._output[:end])
        del self._output[: end + 1]
        return line

    def _drain_errors(self, process: subprocess.Popen[bytes]) -> None:
        """Read what is left of the standard error of a program that has ended."""
        assert process.stderr
        with contextlib.suppress(BlockingIOError, ValueError):  # ValueError: it is closed, all was read
            while data := os.read(process.stderr.fileno(), CHUNK):
                self._errors += data
                del self._errors[:-ERROR_TAIL]

    def _last_error(self) -> str:
        line = find_message(bytes(self._errors))
        return f"; standard error says {_quote(line)}" if line else ""


def find_message(errors: bytes) -> bytes:
    """Return the line of a program's standard error that says what is wrong, else the last one.

    Node.js writes the error above its own version, Python below the stack; Go and Rust begin with "panic", and Rust
    writes the message into the next line.
    """
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    for number in range(len(lines) - 1, -1, -1):
        if MESSAGE.match(lines[number]):
            says_below = lines[number].startswith(b"thread ") and lines[number].endswith(b":")
            return b" ".join(lines[number : number + 2]) if says_below else lines[number]
    return lines[-1] if lines else b""


def _kill_marked(mark: str) -> None:
    """Kill every process that has a mark in its environment, until there is none."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(MAX_KILL_ROUNDS):
        found = [pid for pid in _list_processes() if wanted in _read_environment(pid)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _list_processes() -> list[int]:
    proc = Path("/proc")
    return [int(path.name) for path in proc.iterdir() if path.name.isdigit()] if proc.is_dir() else []


def _read_environment(pid: int) -> list[bytes]:
    """Return a process's variables; none of one that has ended, is a zombie, or belongs to somebody else."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


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


def _refuse(fault: str) -> NoReturn:
    raise _FaultError(fault)


class LineError(ValueError):
    """A line is no JSON, or JSON that the protocol has no use for; the message says why."""


def _refuse_constant(name: str) -> NoReturn:
    raise LineError(f"has {name}, which is no JSON")


def _read_integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise LineError(f"has an integer of {len(text.lstrip('-')):,} digits, more than {MAX_DIGITS}")
    return int(text)


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LineError(f"has the field {json.dumps(twice[:60])} twice in one object")
    return found


def parse_line(line: bytes) -> Any:
    """Return the value of a line of JSON.

    Raises:
        LineError: no JSON, not UTF-8, a field twice, nested too deeply, an integer of too many digits, or a number
            that is not finite.
    """
    try:
        return json.loads(
            line.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_int=_read_integer,
            object_pairs_hook=_read_object,
        )
    except RecursionError as error:
        raise LineError("is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise LineError("is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise LineError("is no JSON") from error


def _get_id(line: bytes) -> Any:
    """Return the id of an answer; None where there is none."""
    try:
        answer = parse_line(line)
    except LineError:
        return None
    return answer.get("id") if isinstance(answer, dict) else None


def _read_answer(line: bytes, case_id: str) -> Answer:
    try:
        answer = parse_line(line)
    except LineError as error:
        raise _FaultError(f"the answer {error}: {_quote(line)}") from error
    if not isinstance(answer, dict):
        raise _FaultError(f"the answer is no JSON object: {_quote(line)}")
    if answer.get("id") != case_id:
        raise _FaultError(f"the answer has another id than the request: {_quote(line)}")
    if answer.keys() == {"id", "output"}:
        return Answer(output=answer["output"])
    if answer.keys() == {"id", "code"} and isinstance(answer["code"], str):
        return Answer(code=answer["code"])
    return Answer(fault=f'an answer has "id" and either "output" or "code" (text), not: {_quote(line)}')
