"""Real `poaid` processes that are killed: each is forked from a server that has read the program once.

A process that is started anew takes two seconds to read its modules, and most of a kill's time would go there. From a
fork server it mines within half a second; what runs in it is the command itself, in a process of its own.
"""

import json
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE
from poaid.cli import main as cli
from tests.harness.processes import PATIENCE_S, get_free_port

_SERVER = multiprocessing.get_context("forkserver")
# What the commands import when they run: a process that has read it by itself has threads of NumPy's, and may then not
# enter a namespace of its own.
_SERVER.set_forkserver_preload(["poaid.cli.main", "poaid.cli.run", "poaid.models", "poaid.chain.verify", "poaid.node"])
LOOK_S = 0.01
"""How often a log is looked at."""


def _call(
    log: Path,
    environment: dict[str, str],
    arguments: Sequence[str],
    largest_file: int | None,
    prepare: Callable[[], None] | None,
) -> None:
    """Be `poaid` with these arguments, its output in a file."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if prepare is not None:
        prepare()
    sys.argv = ["poaid", *arguments]
    cli.main()


@dataclass
class Poaid:
    """A `poaid` process.

    Attributes:
        process: the process.
        log: what it and those before it have written.
        start: where its own part of the log begins, bytes.
    """

    process: ForkServerProcess
    log: Path
    start: int

    @property
    def text(self) -> str:
        """What it has written."""
        return self.log.read_bytes()[self.start :].decode()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, so long at most; tell whether it has ended."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def wait_for_blocks(self, count: int) -> None:
        """Wait until it has logged so many blocks."""
        for _ in range(int(PATIENCE_S / LOOK_S)):
            if len(read_blocks(self.text)) >= count:
                return
            assert not self.wait(LOOK_S), self.text
        raise AssertionError(f"not {count} blocks within {PATIENCE_S:.0f} s: {self.text[-2_000:]}")

    def wait_for_changes(self, file: Path, count: int) -> None:
        """Wait until a file was seen to be written to so often, or the process has ended."""
        last = _get_write_time(file)
        for _ in range(int(PATIENCE_S / LOOK_S)):
            last, before = _get_write_time(file), last
            count -= last != before
            if count <= 0 or self.wait(LOOK_S):
                return
        raise AssertionError(f"{file} did not change within {PATIENCE_S:.0f} s: {self.text[-2_000:]}")


def _cut_torn_line(log: Path) -> int:
    """Leave out what a kill has left of a line, which the next process would go on with; return the log's length."""
    whole = log.read_bytes().rfind(b"\n") + 1
    os.truncate(log, whole)
    return whole


def _get_write_time(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.exists() else None


@contextmanager
def started(
    log: Path, *arguments: object, largest_file: int | None = None, prepare: Callable[[], None] | None = None
) -> Iterator[Poaid]:
    """Start `poaid`; kill it at the end, if it still runs.

    Args:
        log: gets what it writes, behind what is there.
        arguments: of the command.
        largest_file: bytes that no file of it may exceed, as on a full disk.
        prepare: is called in the process before the command; can be pickled.
    """
    environment = {name: os.environ[name] for name in (MODEL_DIR_VARIABLE, CACHE_DIR_VARIABLE)}
    log.touch()
    start = _cut_torn_line(log)
    passed = (log, environment, tuple(map(str, arguments)), largest_file, prepare)
    process = _SERVER.Process(target=_call, args=passed)
    process.start()
    try:
        yield Poaid(process, log, start)
    finally:
        process.kill()
        process.join()
        process.close()


def make_run_arguments(data_dir: Path, network_file: Path) -> list[object]:
    """Return the arguments of a miner that nobody else hears of."""
    return [
        "run", "--data-dir", data_dir, "--network", network_file, "--model", "mini", "--threads", 1, "--no-mdns",
        "--p2p-host", "127.0.0.1", "--p2p-port", get_free_port(), "--http-port", 0, "--log-format", "json",
    ]  # fmt: skip


def read_blocks(text: str) -> dict[int, str]:
    """Return the blocks that a log acknowledges, height to hash; a torn last line is none."""
    blocks = dict[int, str]()
    for line in text.split("\n")[:-1]:
        event: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if event.get("event") in ("Block mined!", "New head"):
            blocks[event["height"]] = event["hash"].removeprefix("0x")
    return blocks
