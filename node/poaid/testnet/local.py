"""A testnet on one machine: several `poaid run`, each a process of its own, watched over HTTP until they agree.

The nodes are told of each other before they start, and each waits for its first peer, so that all begin at about the
same time; one that started alone would have mined half of a short chain before the next one is up.
"""

import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from poai_engine.errors import make_line
from poai_spec.basics.notation import Height, Target, tagged_hash
from poai_spec.basics.parameters import Config, compute_network_id
from poai_spec.chain.upgrades import Rules
from poai_spec.model.engine import Engine
from poai_spec.proof.corpus import Questions
from poai_spec.proof.quiz import generate_quiz
from poaid.api.asking import LOCAL_HOST, ask, make_url
from poaid.errors import NodeError
from poaid.keys import load_identity
from poaid.net.libp2p.host import get_peer_id
from poaid.network_file import Network, check_network, get_network, write_network
from poaid.process.entry import get_end_signals
from poaid.produce.attempts import get_time
from poaid.testnet.summary import Observed, Summary, find_difference, make_summary

NETWORK_FILE = "testnet.toml"
SMALL_NETWORK_MODEL = "mini"
"""The model that gets the numbers of the network `minimal`; every other one gets those of the testnet."""
BLOCK_SECONDS = 4.0
"""What a block is to take at first: well above the second or so that batch and replay take, so that forks are few."""
MEASURE_SECONDS = 1.0
"""How long the speed is measured that the first target is computed from: it is not to be exact."""
MEASURE_BATCH = 4
LOOK_S = 0.25
"""Between two looks at a node, and two pictures."""
START_S = 120.0
"""What the nodes may take until all answer: two seconds each on a fast machine, with many on few processors more."""
SETTLE_S = 60.0
"""How long all may take to agree once one has the last block: as long as a lost block takes to be asked for."""
READ_S = 5.0
"""What reading all chains at the end may take; a thousand blocks take one."""
STOP_S = 5.0
"""How long a node may take to stop before it is killed."""
BLOCKS_A_PAGE = 100
"""As many as a node lists at once."""
LOG_LINES = 3
"""Of a node that has died: enough for an error and what led to it."""
TRACE_FRAME = " |+-^~"
"""What Python draws around and under the lines of a trace."""
MAX_LOG_TAIL = 16_384
"""Bytes read from the end of a log."""


def measure_rate(engine: Engine, rules: Rules, questions: Questions) -> float:
    """Return quizzes a second on the whole machine; compiled code is made, and kept, on the way."""
    seeds = [tagged_hash("PoAI/testnet-measure/1", bytes([n])) for n in range(MEASURE_BATCH)]
    quizzes = [generate_quiz(seed, rules, questions) for seed in seeds]
    tokens, scored = [quiz.tokens for quiz in quizzes], [quiz.scored for quiz in quizzes]
    engine.evaluate(tokens, scored)
    end, best = time.perf_counter() + MEASURE_SECONDS, math.inf
    while (start := time.perf_counter()) < end:
        engine.evaluate(tokens, scored)
        best = min(best, time.perf_counter() - start)  # what else the machine does now is not to count
    return MEASURE_BATCH / best


def choose_target(rate: float, config: Config) -> Target:
    """Return the target with which a block takes `BLOCK_SECONDS`, or the spacing if that is less; never an easier one.

    Args:
        rate: quizzes a second of all nodes.
        config: its spacing, and the target that is not passed.
    """
    quizzes = max(1, round(rate * min(BLOCK_SECONDS, config.spacing / 1000)))
    return min(config.initial_target, 2**256 // quizzes)


def get_base_network(model: str, target: Target | None = None) -> Network:
    """Return the preset that a testnet with this model begins from.

    Raises:
        ModelError: the model is not at hand.
        Invalid: it is outside the arithmetic.
    """
    return get_network("minimal" if model == SMALL_NETWORK_MODEL else "local", model, target)


def make_network(base: Network, target: Target) -> Network:
    """Return a network of this moment that no other run is on."""
    config = replace(
        base.config, initial_target=target, genesis_timestamp=get_time(), genesis_seed=secrets.token_bytes(32)
    )
    return check_network(replace(base, name=Path(NETWORK_FILE).stem, config=config))


def choose_ports(count: int) -> list[int]:
    """Return free TCP ports, no two the same. Another program may still take one before it is used."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOCAL_HOST, 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


@dataclass(frozen=True)
class LocalTestnetPlan:
    """A testnet before its start.

    Attributes:
        folder: for everything that it writes.
        network: written there.
        model: as `--model` takes it.
        nodes: how many.
        blocks: height of the last block that is mined.
        threads: of each node.
    """

    folder: Path
    network: Network
    model: str
    nodes: int
    blocks: Height
    threads: int

    @property
    def network_id(self) -> str:
        """The network's id in hexadecimal."""
        return "0x" + compute_network_id(self.network.config).hex()


@dataclass
class Child:
    """A node's process.

    Attributes:
        observed: what is seen of it.
        command: starts it.
        log: the file of its output.
        process: None before the start.
    """

    observed: Observed
    command: list[str]
    log: Path
    process: trio.Process | None = None

    async def start(self) -> None:
        """Start it in a session of its own: signals reach it only from here.

        Its input is a pipe that ends with this process, however that ends.
        """
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                self.command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process and whatever it has started."""
        if self.process is not None and self.is_running():
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    async def wait(self) -> None:
        """Wait until it has ended."""
        if self.process is not None:
            await self.process.wait()

    def describe_end(self) -> str:
        """Return why it ended, as its log's last lines say, in one line."""
        assert self.process is not None, "it has ended"
        tail = self.log.read_bytes()[-MAX_LOG_TAIL:].decode("utf-8", "replace").splitlines()
        told = [line.strip(TRACE_FRAME) for line in tail if line.strip(TRACE_FRAME)]
        lines = " / ".join(make_line(line) for line in told[-LOG_LINES:])
        code = self.process.returncode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit status {code}"
        return f"{self.observed.name} {how}; its log {self.log} ends with: {lines or 'nothing'}"


def prepare(plan: LocalTestnetPlan) -> list[Child]:
    """Write the network file and the nodes' identities; return the nodes, not yet started.

    Raises:
        NodeError: the folder cannot be written.
    """
    network_file = plan.folder / NETWORK_FILE
    write_network(plan.network, network_file)
    folders = [plan.folder / f"node-{n}" for n in range(plan.nodes)]
    ports = choose_ports(2 * plan.nodes)
    addresses = []
    for folder, port in zip(folders, ports, strict=False):
        folder.mkdir()
        addresses.append(f"/ip4/{LOCAL_HOST}/tcp/{port}/p2p/{get_peer_id(load_identity(folder))}")
    children = []
    for n, folder in enumerate(folders):
        peers = addresses[:n] or addresses[1:2]  # node 0, too, has somebody to wait for
        command = make_command(plan, network_file, folder, ports[n], ports[plan.nodes + n], peers)
        observed = Observed(f"node {n}", make_url(LOCAL_HOST, ports[plan.nodes + n]))
        children.append(Child(observed, command, plan.folder / f"node-{n}.log"))
    return children


def make_command(
    plan: LocalTestnetPlan, network_file: Path, data_dir: Path, p2p_port: int, http_port: int, peers: Sequence[str]
) -> list[str]:
    """Return the `poaid run` of a node."""
    flags = {
        "--network": network_file, "--model": plan.model, "--data-dir": data_dir, "--threads": plan.threads,
        "--p2p-host": LOCAL_HOST, "--p2p-port": p2p_port, "--http-port": http_port,
        "--stop-height": plan.blocks, "--log-format": "json",
    }  # fmt: skip
    command = [sys.executable, "-m", "poaid", "run", "--no-mdns", "--until-input-ends"]
    for flag, value in (*flags.items(), *(("--peer-multiaddr", peer) for peer in peers)):
        command += [flag, str(value)]
    return command


async def fetch(node: Observed, path: str) -> Any:
    """Return what a node answers.

    Raises:
        NodeError: nothing, or that it refuses.
    """
    return await trio.to_thread.run_sync(ask, node.url, path, abandon_on_cancel=True)  # type: ignore[call-arg]


class LocalTestnet:
    """A running testnet.

    Args:
        plan: what to run.

    Attributes:
        show: called some times a second while the nodes run.
        on_agreed: called when they agree, before they are stopped.
        nodes: what is seen of them.
        fault: why it ended early, in one line; None if it did not.
        signal: the signal that ended it; None if none did.
    """

    def __init__(self, plan: LocalTestnetPlan) -> None:
        self.plan = plan
        self.show: Callable[[], None] = lambda: None
        self.on_agreed: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._children = prepare(plan)
        self._started = time.monotonic()
        self._seconds: float | None = None
        self.nodes = [child.observed for child in self._children]
        self.fault: str | None = None
        self.signal: int | None = None

    @property
    def seconds(self) -> float:
        """Time since the start, or the whole time once it has ended."""
        return self._seconds if self._seconds is not None else time.monotonic() - self._started

    @property
    def has_ended(self) -> bool:
        """Whether the nodes have been stopped, or are about to be."""
        return self._seconds is not None

    def get_summary(self) -> Summary:
        """Return what has come of it so far."""
        plan, stopped = self.plan, self.signal is not None
        return make_summary(self.nodes, plan.blocks, plan.model, plan.network_id, self.seconds, stopped=stopped)

    async def run(self) -> None:
        """Start the nodes, watch them until they agree, an error or a signal, and stop them."""
        with trio.open_signal_receiver(*get_end_signals()) as signals:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(self._watch_signals, signals, scope)
                    nursery.start_soon(self._draw)
                    try:
                        await self._watch()
                    finally:
                        self._seconds = self.seconds
                        with trio.CancelScope(shield=True):
                            await self._read_chains()
                            await stop(self._children)
                nursery.cancel_scope.cancel()

    async def _watch_signals(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            self.signal = number
            scope.cancel()

    async def _watch(self) -> None:
        """Return when the nodes agree, or with a fault."""
        async with trio.open_nursery() as nursery:
            for child in self._children:
                await child.start()
                nursery.start_soon(self._watch_process, child, nursery.cancel_scope)
            for node in self.nodes:
                nursery.start_soon(self._observe, node)
            self.fault = await wait_until_agreed(self.nodes, self.plan.blocks)
            if self.fault is None:
                await self.on_agreed()
            nursery.cancel_scope.cancel()

    async def _watch_process(self, child: Child, scope: trio.CancelScope) -> None:
        await child.wait()
        self.fault = child.describe_end()
        scope.cancel()

    async def _observe(self, node: Observed) -> None:
        while True:
            with suppress(NodeError):
                await observe(node)
            await trio.sleep(LOOK_S)

    async def _draw(self) -> None:
        while True:
            self.show()
            await trio.sleep(LOOK_S)

    async def _read_chains(self) -> None:
        """Ask all that still answer for their chains."""

        async def read(node: Observed) -> None:
            with suppress(NodeError):
                await read_chain(node)

        with trio.move_on_after(READ_S):
            async with trio.open_nursery() as nursery:
                for node in self.nodes:
                    nursery.start_soon(read, node)


async def wait_until_agreed(nodes: Sequence[Observed], blocks: Height) -> str | None:
    """Return None when all agree at the last height, or why they do not in the time that they have."""
    with trio.move_on_after(START_S):
        while any(node.status is None for node in nodes):
            await trio.sleep(LOOK_S)
    silent = [node.name for node in nodes if node.status is None]
    if silent:
        return f"{', '.join(silent)} did not answer within {START_S:.0f} s: see the log, and try fewer --nodes"
    while not any(node.status and node.status["height"] >= blocks for node in nodes):
        await trio.sleep(LOOK_S)
    with trio.move_on_after(SETTLE_S):
        while find_difference(nodes, blocks) is not None:
            await trio.sleep(LOOK_S)
    difference = find_difference(nodes, blocks)
    return None if difference is None else f"no agreement within {SETTLE_S:.0f} s: {difference}"


async def stop(children: Sequence[Child]) -> None:
    """End every process: with a word first, by force in the end."""
    for child in children:
        child.send(signal.SIGINT)
    with trio.move_on_after(STOP_S):
        for child in children:
            await child.wait()
    for child in children:
        child.send(signal.SIGKILL)
        await child.wait()


async def observe(node: Observed) -> None:
    """Look at a node's status, and at its head if that is a new one.

    Raises:
        NodeError: it does not answer; what was seen of it stays.
    """
    status = await fetch(node, "/status")
    if node.head is None or node.head["hash"] != status["head"]:
        head = await fetch(node, f"/blocks/{status['head']}")
        quiz = None
        if head["height"]:
            with suppress(NodeError):  # a fork may have replaced it meanwhile
                quiz = await fetch(node, f"/quiz/{head['height']}")
        node.head = head
        node.quiz = quiz if quiz is not None and quiz["hash"] == head["hash"] else None
    node.status = status


async def read_chain(node: Observed) -> None:
    """Read a node's whole chain and its last status.

    Raises:
        NodeError: it does not answer.
    """
    await observe(node)
    assert node.status is not None, "it has answered"
    blocks: list[Any] = []
    top = node.status["height"]
    while top > 0:
        blocks += await fetch(node, f"/blocks?top={top}&count={min(top, BLOCKS_A_PAGE)}")
        top -= BLOCKS_A_PAGE
    node.chain = blocks[::-1]
