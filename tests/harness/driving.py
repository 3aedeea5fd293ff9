"""What every fuzzer shares: how many inputs it draws, what it may meet, and the count of what it met.

Input number N of a seed is always the same one, so that a failure can be met again. The short form draws some hundreds
for each decoder, the same in every run; the long form, `make soak`, millions, of another seed each time. Plain edits
are drawn ten times as fast as by hypothesis.

    POAI_SOAK        how long: 200 gives the counts below; 0, the short form
    POAI_SOAK_S      the most seconds for each decoder
    POAI_SOAK_SEED, POAI_SOAK_FIRST    a seed, and the number of its first input: what a failure prints
"""

import gc
import os
import resource
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import TypeVar

from poai_engine.errors import ModelError
from poai_spec.basics.notation import SpecError
from poai_tools.vectors.errors import VectorsError
from poaid.errors import NodeError

T = TypeVar("T")

SOAK = int(os.environ.get("POAI_SOAK", "0"))
SOAK_S = float(os.environ.get("POAI_SOAK_S", "inf"))
SEED = int(os.environ.get("POAI_SOAK_SEED", secrets.randbelow(2**32) if SOAK else 0))
FIRST = int(os.environ.get("POAI_SOAK_FIRST", "0"))
WIRE, VALIDATOR, FILE = 50_000, 5_000, 500
"""Inputs for each unit of `POAI_SOAK`: with 200, 10^7 for what decodes a peer's bytes, 10^6 for what checks headers and
blocks, 10^5 for files and local requests."""
FAILURES = Path(__file__).parents[2] / "build" / "fuzz"

ACCEPTED = "accepted"
MAX_LINE = 1_000
"""Characters of an error's line: a path, a quoted value, and what to do. A terminal shows it in a few rows."""
WARM_UP = 2_000
"""Inputs before memory is compared: caches fill meanwhile."""
LOOK = 1_000
"""Inputs from one look at the memory to the next."""
MAX_BLOCKS_MORE = 300_000
"""Python objects (allocated blocks) that a decoder may keep after its warm-up: one for thirty of 10^7 inputs."""
MAX_BYTES_MORE = 256 << 20
"""Bytes by which the process may grow meanwhile: the largest input is about 1 MiB, and memory comes back in lumps."""


@dataclass
class Met:
    """What a decoder has met.

    Attributes:
        outcomes: how many inputs were accepted, and how many refused with each code.
        seconds: processor time of this process, the drawing of inputs included: what the machine does beside is not.
        slowest: the same of the slowest call.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: float = 0.0


met: dict[str, Met] = {}
"""By decoder; `conftest` prints the sums."""


def drive(
    decoder: str,
    make: Callable[[Random], T],
    examples: int,
    take: Callable[[T], str | list[str]],
    *,
    long: int = FILE,
) -> Counter[str]:
    """Give a decoder many inputs and return what became of them; at least one was accepted and one refused.

    Args:
        decoder: its name, for the count.
        make: draws an input.
        examples: how many, in the short form.
        take: does what the program does with an input; returns the outcome, or one for each part of a batch.
        long: how many for each unit of `POAI_SOAK`, in the long form.
    """
    seen = met.setdefault(decoder, Met())

    def run(data: T) -> None:
        start = time.process_time()
        outcome = take(data)
        seen.slowest = max(seen.slowest, time.process_time() - start)
        seen.outcomes.update([outcome] if isinstance(outcome, str) else outcome)

    start = time.process_time()
    try:
        _run(decoder, make, run, seen, long * SOAK or examples)
    finally:
        seen.seconds += time.process_time() - start
    assert seen.outcomes[ACCEPTED], f"{decoder}: nothing was accepted, so no deeper check was reached: {seen}"
    assert set(seen.outcomes) - {ACCEPTED}, f"{decoder}: nothing was refused"
    return seen.outcomes


def _run(decoder: str, make: Callable[[Random], T], run: Callable[[T], None], seen: Met, total: int) -> None:
    memory, end = _Memory(), time.monotonic() + SOAK_S
    for number in count(FIRST):
        if seen.outcomes.total() >= total or time.monotonic() > end:
            break
        data, passed = make(Random(f"{SEED} {decoder} {number}")), False
        try:
            run(data)
            passed = True
        finally:
            if not passed:  # it failed, or it took so long that somebody has stopped it
                print(_keep(decoder, number, data))
        memory.look(number - FIRST)


def _keep(decoder: str, number: int, data: object) -> str:
    """Keep an input that a decoder failed on; return where it lies and how to meet it again."""
    FAILURES.mkdir(parents=True, exist_ok=True)
    file = FAILURES / f"{''.join(c if c.isalnum() else '-' for c in decoder)}-{SEED}-{number}"
    file.write_bytes(data if isinstance(data, bytes) else repr(data).encode())
    again = f"POAI_SOAK_SEED={SEED} POAI_SOAK_FIRST={number} make soak SOAK=1"
    return f"{decoder}: input {number} is kept in {file}; the same again, with this test's name in TESTS: {again}"


class _Memory:
    """Holds a decoder to the memory that it had after its first inputs."""

    def __init__(self) -> None:
        self._blocks, self._bytes = 0, 0

    def look(self, number: int) -> None:
        """Compare, now and then."""
        if number == WARM_UP:
            gc.collect()
            self._blocks, self._bytes = sys.getallocatedblocks(), _get_peak()
        elif number > WARM_UP and number % LOOK == 0:
            blocks, size = sys.getallocatedblocks() - self._blocks, _get_peak() - self._bytes
            assert size <= MAX_BYTES_MORE, f"{size} bytes more than after {WARM_UP} inputs"
            if blocks > MAX_BLOCKS_MORE:
                gc.collect()
                blocks = sys.getallocatedblocks() - self._blocks
                assert blocks <= MAX_BLOCKS_MORE, f"{blocks} objects more than after {WARM_UP} inputs"


def _get_peak() -> int:
    """Return the most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def check_line(error: Exception) -> None:
    """Refuse an error that is not one line of a bounded length."""
    line = str(error)
    assert 0 < len(line) <= MAX_LINE, f"a line of {len(line)} characters: {line[:200]}"
    assert "\n" not in line, line


def judge(read: Callable[[], object]) -> str:
    """Read something hostile; return `ACCEPTED`, or the code or kind of the documented error that it ended with.

    Any other exception is a bug and goes on.
    """
    try:
        read()
    except (SpecError, NodeError, ModelError, VectorsError) as error:
        check_line(error)
        return error.code if isinstance(error, SpecError) else type(error).__name__
    return ACCEPTED
