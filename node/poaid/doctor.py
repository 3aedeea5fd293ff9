"""What can keep a node from running, looked at one by one: the machine, the data directory, the network, the model.

Nothing is changed and nothing is sent, but for a question to the node that runs in the data directory.
"""

import os
import platform
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from poai_engine.engines.reference import ReferenceEngine
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.model_store import resolve_model
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE, check_kept_model, get_cache_dir
from poai_spec.basics.containers import HeaderCore
from poai_spec.basics.notation import Milliseconds, SpecError, Target
from poai_spec.basics.parameters import Config, compute_network_id
from poai_spec.chain.block import Judge, get_judge_rules, get_model, make_genesis, make_judge
from poai_spec.chain.production import make_template
from poai_spec.model.llama_profile import LLAMA_PROFILE
from poai_spec.proof.difficulty import compute_quizzes, compute_target
from poaid.amounts import format_duration, format_rate
from poaid.api.asking import Running, ask_status, read_running
from poaid.api.stored_view import open_stored_view
from poaid.errors import NodeError
from poaid.models import load_engine, locate_model
from poaid.network_file import NETWORK_FILE, Network, check_network, describe_difference, get_network, read_network
from poaid.produce.attempts import MAX_TIMESTAMP, choose_batch_size, get_time, run_attempts
from poaid.store.database import Database
from poaid.view import StatusView

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 256 << 20
"""A year of mainnet is 80 MB of blocks; SQLite's log and a copy need as much again."""
LOW_FREE_BYTES = 2 << 30
"""TinyLlama's integer weights take 1.2 GB."""
MAX_REFERENCE_BYTES = 1 << 20
"""Model files up to this size run on the reference engine, too: poai-mini has 280 KB and takes some seconds."""
MEASURE_S = 2.0
"""How long the speed is measured: many batches of a small model, one or two of a large one."""
STALE_BLOCKS = 20
"""Intervals without a block after which something is wrong: with an honest clock one chance in 5 * 10^8."""
MDNS_GROUP = "224.0.0.251"
"""RFC 6762, section 3."""
MINER = bytes(19) + b"\1"
"""Whom the quizzes that are measured are for: nobody."""


class Level(StrEnum):
    """How a check ends."""

    OK = "ok"
    WARNING = "warning"
    UNKNOWN = "unknown"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Finding:
    """The result of a check: one line."""

    name: str
    level: Level
    text: str


@dataclass(frozen=True)
class Inspected:
    """What is examined; None where the user did not say.

    Attributes:
        data_dir: the folder of the chain.
        network: a preset's name or a network file.
        model: a pinned model's name or a path.
        p2p_port: where the node would listen for peers.
        http_port: where it would show itself.
        threads: of the model.
        full: whether all kept weights are examined.
    """

    data_dir: Path | None
    network: str | None
    model: str | None
    p2p_port: int
    http_port: int
    threads: int | None
    full: bool = False


@dataclass(frozen=True)
class Stored:
    """What the data directory's database says."""

    network: Network
    model: str
    head_time: Milliseconds | None
    target: Target


class Doctor:
    """Examines a subject.

    Args:
        subject: what to examine.
        say: takes lines about what takes long.
    """

    def __init__(self, subject: Inspected, say: Callable[[str], None]) -> None:
        self._subject, self._say = subject, say
        self._running: Running | None = None
        self._status: StatusView | None = None
        self._stored: Stored | None = None

    def examine(self) -> Iterator[Finding]:
        """Yield one finding after another, as soon as it is made."""
        subject = self._subject
        yield check_python(sys.version_info[:3])
        yield check_disk("cache", get_cache_dir(), f"set {CACHE_DIR_VARIABLE} to another folder")
        if subject.data_dir is not None:
            yield check_disk("disk", subject.data_dir, "give another --data-dir")
            yield self._check_folder(subject.data_dir)
        yield self._check_port("peer port", "0.0.0.0", subject.p2p_port, "--p2p-port")  # noqa: S104
        yield self._check_port("http port", "127.0.0.1", subject.http_port, "--http-port")
        yield self._check_clock(get_time())
        yield check_mdns()
        yield from self._examine_model()

    # The data directory.

    def _check_folder(self, folder: Path) -> Finding:
        """Look whether the folder can be used, and who uses it."""
        name, running = "data dir", read_running(folder)
        if running is not None and running.is_alive():
            return self._ask_running(name, folder, running)
        if not _is_writable(folder):
            return Finding(name, Level.FAILED, f"{folder} cannot be written: give another --data-dir")
        try:
            if not Database.is_made(folder):
                return Finding(name, Level.OK, f"{folder} holds no chain yet; a new one can be made")
            self._stored = _read_stored(folder)
        except (NodeError, SpecError) as error:
            return Finding(name, Level.FAILED, str(error))
        stale = f"; running.json is stale: process {running.pid} is gone" if running is not None else ""
        return Finding(name, Level.OK, f"{folder} belongs to network {self._stored.network.name}{stale}")

    def _ask_running(self, name: str, folder: Path, running: Running) -> Finding:
        """Say who uses the folder, and remember its status."""
        self._running = running
        user = f"a node, process {running.pid}, uses {folder}"
        try:
            self._status = ask_status(running.url) if running.http_port else None
        except NodeError as error:
            return Finding(name, Level.WARNING, f"{user}, but {error}: see its log")
        return Finding(name, Level.WARNING, f"{user}: stop it before you start another there")

    def _check_port(self, name: str, host: str, port: int, flag: str) -> Finding:
        fault = find_port_fault(host, port)
        if fault is None:
            return Finding(name, Level.OK, f"{port} is free")
        if self._is_own_port(port):
            return Finding(name, Level.OK, f"{port} is used by the node that runs here")
        return Finding(name, Level.FAILED, f"{port}: {fault}; give another {flag}")

    def _is_own_port(self, port: int) -> bool:
        addresses = self._status["addresses"] if self._status is not None else []
        own = self._running is not None and self._running.http_port == port
        return own or any(f"/tcp/{port}/" in f"{address}/" for address in addresses)

    # The clock.

    def _check_clock(self, now: Milliseconds) -> Finding:
        if self._status is not None:
            return check_live_clock(self._status, now)
        if self._stored is None or self._stored.head_time is None:
            return Finding("clock", Level.UNKNOWN, "there is no block and no running node to compare it with")
        return check_stored_clock(self._stored.head_time, self._stored.network.config.max_future, now)

    # The model.

    def _examine_model(self) -> Iterator[Finding]:
        subject = self._subject
        if self._running is not None and self._status is None and subject.network is None:
            yield Finding("model", Level.UNKNOWN, "not examined: the node that runs here does not say what it runs")
            return
        try:
            network, source = self._choose_network()
        except (NodeError, ModelError, SpecError) as error:
            by_node = self._status is not None and subject.network is None
            yield Finding("network", Level.UNKNOWN if by_node else Level.FAILED, str(error))
            return
        config, rules = network.config, network.get_rules()
        yield check_begin(network, get_time())
        if config.genesis_timestamp >= MAX_TIMESTAMP:
            return
        try:
            engine = load_engine(source, rules, subject.threads, say=self._say)
        except (ModelError, SpecError) as error:
            yield Finding("model", Level.FAILED, str(error))
            return
        digest, root = config.model.gguf_sha256.hex()[:16], config.model.integer_model_root.hex()[:16]
        yield Finding("model", Level.OK, f"{source}: SHA-256 {digest}... and integer root {root}... are the network's")
        if subject.full and config.profile != LLAMA_PROFILE:
            yield check_weights(resolve_model(source), config)
        judge = make_judge(config, network.questions, engine)
        yield check_engine(judge, resolve_model(source))
        yield self._check_speed(judge)

    def _check_speed(self, judge: Judge) -> Finding:
        """Return the speed of the node that mines here, else what is measured now."""
        status = self._status
        if status is not None and status["quizzes_per_second"]:
            rate = format_rate(status["quizzes_per_second"], compute_quizzes(int(status["target"], 16)))
            return Finding("speed", Level.OK, f"{rate}, as the node that runs here measures")
        return check_speed(judge, judge.config.initial_target if self._stored is None else self._stored.target)

    def _choose_network(self) -> tuple[Network, str]:
        """Return the network and where its model is: the data directory's, unless the user says otherwise."""
        subject, stored, status = self._subject, self._stored, self._status
        if status is not None and subject.data_dir is not None and subject.network is None:
            return read_running_network(subject.data_dir, status), subject.model or status["model"]
        if stored is None or subject.network is not None:
            network = get_network(subject.network or "local", subject.model)
            if stored is not None:
                _check_same(stored.network, network)
            return network, locate_model(subject.model, network.config.model)
        return stored.network, stored.model if subject.model is None else locate_model(
            subject.model, stored.network.config.model
        )


def read_running_network(folder: Path, status: StatusView) -> Network:
    """Return the network of the node that runs in a folder, from the file that it writes there.

    Raises:
        NodeError: there is no such file, or it is another network's.
    """
    network = check_network(read_network(folder / NETWORK_FILE))
    if "0x" + compute_network_id(network.config).hex() != status["network_id"]:
        raise NodeError(f"{folder / NETWORK_FILE} is not the network of the node that runs there: start it again")
    return replace(network, name=status["network"])


def _read_stored(folder: Path) -> Stored:
    with open_stored_view(folder) as view:
        head, chain = view.chain.head, view.chain
        head_time = head.header.core.timestamp if head.height else None
        target = compute_target(chain.headers, chain.tree.get_rules(head.height + 1))
        return Stored(view.network, view.store.read_text("model"), head_time, target)


def _check_same(stored: Network, named: Network) -> None:
    found, wanted = compute_network_id(stored.config).hex()[:8], compute_network_id(named.config).hex()[:8]
    if found != wanted:
        difference = describe_difference(stored.config, named.config)
        raise NodeError(f"the data directory belongs to network {found}, the flags name {wanted} ({difference})")


# The machine.


def check_python(version: tuple[int, int, int]) -> Finding:
    """Look at the interpreter: its version, and whether numbers of 64 bits are its own."""
    bits = 8 * struct.calcsize("P")
    found = f"{'.'.join(map(str, version))}, {bits} bits, {platform.system()} {platform.machine()}"
    if version[:2] < MIN_PYTHON:
        return Finding("python", Level.FAILED, f"{found}: install {'.'.join(map(str, MIN_PYTHON))} or later")
    return Finding("python", Level.OK if bits == 64 else Level.WARNING, found)


def _get_existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def _is_writable(folder: Path) -> bool:
    place = _get_existing(folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def check_disk(name: str, folder: Path, hint: str) -> Finding:
    """Look at the free space where a folder is, or would be."""
    free = shutil.disk_usage(_get_existing(folder)).free
    text = f"{free / (1 << 30):,.1f} GiB free for {folder}"
    if free < MIN_FREE_BYTES:
        return Finding(name, Level.FAILED, f"{text}, {MIN_FREE_BYTES >> 20} MiB are needed: make room, or {hint}")
    if not _is_writable(folder):
        return Finding(name, Level.WARNING, f"{folder} cannot be written: {hint}")
    return Finding(name, Level.WARNING if free < LOW_FREE_BYTES else Level.OK, text)


def find_port_fault(host: str, port: int) -> str | None:
    """Return why nobody can listen at a port; None if one can."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return None


def check_mdns() -> Finding:
    """Look whether this machine can join the group in which peers of a local network announce themselves."""
    membership = socket.inet_aton(MDNS_GROUP) + bytes(4)  # on whatever interface the system chooses
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError as error:
        text = f"no multicast ({error.strerror}): peers of this network are not found by themselves, name one with"
        return Finding("mdns", Level.WARNING, f"{text} --peer-multiaddr")
    return Finding("mdns", Level.OK, "peers of the local network can be found")


# The clock.


def check_live_clock(status: StatusView, now: Milliseconds) -> Finding:
    """Compare the clock with the last block of a running node."""
    age, peers = now - status["head_time"], status["peer_count"]
    if age < 0:
        return _warn_of_future(-age)
    old = f"the last block is {format_duration(age / 1000)} old"
    if not peers:
        return Finding("clock", Level.UNKNOWN, f"the node has no peers to compare it with; {old}")
    if age > STALE_BLOCKS * status["spacing"]:
        pace = f"one should come every {format_duration(status['spacing'] / 1000)}"
        return Finding("clock", Level.WARNING, f"{old}, {pace}: the clock is ahead, or nobody mines")
    return Finding("clock", Level.OK, f"{old}, as peers have it")


def check_stored_clock(head_time: Milliseconds, max_future: Milliseconds, now: Milliseconds) -> Finding:
    """Compare the clock with the last stored block, which shows only whether it is behind.

    Args:
        head_time: the block's stamp.
        max_future: how far the network lets a stamp be ahead, ms.
        now: the local clock.
    """
    age = now - head_time
    if age < -max_future:
        text = f"the last stored block is {format_duration(-age / 1000)} ahead of the clock: set the clock"
        return Finding("clock", Level.FAILED, text)
    if age < 0:
        return _warn_of_future(-age)
    text = f"no node runs to compare it with; it is not behind the last stored block, {format_duration(age / 1000)} old"
    return Finding("clock", Level.UNKNOWN, text)


def _warn_of_future(ahead: Milliseconds) -> Finding:
    text = f"the last block is {format_duration(ahead / 1000)} ahead of it: see that the clock is synchronised (NTP)"
    return Finding("clock", Level.WARNING, text)


# The network.


def check_begin(network: Network, now: Milliseconds) -> Finding:
    """Look when the network begins."""
    name, config = f"{network.name}, id {compute_network_id(network.config).hex()[:8]}", network.config
    if config.genesis_timestamp >= MAX_TIMESTAMP:
        return Finding(
            "network", Level.FAILED, f"{name}: no time stamp is left after genesis, so no block can follow it"
        )
    if config.genesis_timestamp > now + config.max_future:
        begins = format_duration((config.genesis_timestamp - now) / 1000)
        return Finding("network", Level.WARNING, f"{name}, begins in {begins}: set the clock, or wait")
    return Finding("network", Level.OK, name)


# The engine.


def check_weights(path: Path, config: Config) -> Finding:
    """Compute the integer-model root of the weights that are kept of a model file."""
    try:
        kept = check_kept_model(path, config.model.gguf_sha256, config.model.integer_model_root)
    except ModelError as error:
        return Finding("weights", Level.FAILED, str(error))
    return Finding("weights", Level.OK, f"every one in {kept} is as the network's integer root says")


def check_engine(judge: Judge, path: Path) -> Finding:
    """Run one quiz in the two ways that the engine has, and a small model on the reference engine, too.

    Args:
        judge: passed `load_engine`.
        path: the model's file.
    """
    quizzes = run_attempts(_make_core(judge), [make_genesis(judge.config).header], judge, 1)
    if not quizzes:
        return Finding("engine", Level.UNKNOWN, "the first quiz has no loss, which this profile allows")
    quiz, evaluation = quizzes[0].quiz, quizzes[0].evaluation
    *entries, last = get_model(judge, get_judge_rules(judge, 1)).engine.steps(quiz.tokens, quiz.scored)
    if last != evaluation or entries != list(evaluation.trace[: len(entries)]):
        return _fail_engine("a quiz in a batch and the same quiz step by step")
    if judge.config.profile == LLAMA_PROFILE or path.stat().st_size > MAX_REFERENCE_BYTES:
        return Finding("engine", Level.OK, "a quiz gives the same in a batch and step by step")
    if ReferenceEngine(read_gguf(path)).evaluate([quiz.tokens], [quiz.scored]) != [evaluation]:
        return _fail_engine("the engine and the reference engine")
    return Finding("engine", Level.OK, "a quiz gives the same in a batch, step by step, and on the reference engine")


def _fail_engine(pair: str) -> Finding:
    hint = "do not mine or verify here; test the machine's memory, and report this with `poai bench determinism`"
    return Finding("engine", Level.FAILED, f"{pair} differ: {hint}")


def check_speed(judge: Judge, target: Target) -> Finding:
    """Measure the quizzes a second for `MEASURE_S`, in batches as the miner takes them."""
    chain, core, work = [make_genesis(judge.config).header], _make_core(judge), compute_quizzes(target)
    size, ran, start = 1, 0, time.perf_counter()
    while True:
        began = time.perf_counter()
        ran += len(run_attempts(core, chain, judge, size))
        now = time.perf_counter()
        if now - start >= MEASURE_S:
            return Finding("speed", Level.OK, format_rate(ran / (now - start), work))
        size = choose_batch_size(size, now - began, work)


def _make_core(judge: Judge) -> HeaderCore:
    """Return the template of a first block, the same at any time: its quizzes are as long as all others."""
    genesis = make_genesis(judge.config).header
    return make_template([genesis], {}, get_judge_rules(judge, 1), MINER, genesis.core.timestamp + 1)
