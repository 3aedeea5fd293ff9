"""What the benches of speed share: processes of their own for what is measured, medians with spread, peak memory."""

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Self

from rich.table import Table

from poai_engine.errors import ModelError, make_line
from poai_spec.basics.notation import SpecError

Say = Callable[[str], None]
BUSY = 0.5
"""Load average from which on a machine is not quiet."""
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Taken out of a worker's environment: every engine gets its number of threads as an argument."""


def make_rate_table(what: str, results: Iterable[dict[str, Any]]) -> Table:
    """Return rates with their spread as a table whose first column is `what`."""
    table = Table(what, "a second, one core", "lowest", "highest")
    for row in results:
        rates = row["per_second"], row["spread"]["low"], row["spread"]["high"]
        table.add_row(row["what"], *(f"{rate:,.{0 if rate > 100 else 2}f}" for rate in rates))
    return table


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: of all.
        low: the smallest.
        high: the largest.
        count: how many.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Summarise at least one value."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1], len(ordered))


class Worker:
    """A process that answers requests, one line of JSON each; a context manager.

    Args:
        module: run as `python -m module`; its main function is `serve` with its handlers.
        environment: variables to add.
    """

    def __init__(self, module: str, environment: dict[str, str] | None = None) -> None:
        kept = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept | (environment or {}),
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # interrupted in the middle of a batch
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def ask(self, request: str, **values: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            ModelError: what the worker says is wrong, or it ended.
        """
        line = ""
        with suppress(BrokenPipeError):
            self._requests.write(json.dumps({"request": request, **values}) + "\n")
            self._requests.flush()
            line = self._answers.readline()
        if not line:
            raise ModelError(f"a measuring process ended with status {self._process.wait()}: too little memory?")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ModelError(answer["error"])
        return answer


def serve(handlers: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests from standard input until it ends; what libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        values = json.loads(line)
        try:
            answer = handlers[values.pop("request")](**values)
        except (ModelError, SpecError, OSError) as error:
            answer = {"error": make_line(str(error))}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def get_peak_memory() -> int:
    """Return the most memory that was resident in this process so far, bytes; mapped files count.

    Linux's `ru_maxrss` begins with the parent's at the fork, so the kernel's own counter is read there.
    """
    found = read_memory(Path("/proc/self/status"), "VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_memory(file: Path, field: str) -> int | None:
    """Return a field of a file such as `/proc/self/status`, bytes; None where the kernel has no such file or field."""
    with suppress(OSError):
        for line in file.read_text("ascii").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def describe_machine() -> dict[str, Any]:
    """Return what a figure is measured on, and how busy that was in the minute before."""
    found: dict[str, Any] = {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                found["processor"] = line.partition(":")[2].strip()
                break
    found |= {"load_average": os.getloadavg()[0], "python": platform.python_version()}
    for package in ("numpy", "numba", "pycryptodome", "llama-cpp-python"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def warn_if_busy(say: Say) -> None:
    """Say so if other work, or an earlier bench, ran in the last minute."""
    load = os.getloadavg()[0]
    if load > BUSY:
        say(f"this machine is busy (load {load:.1f}): figures for a document need a quiet one; wait a minute")
