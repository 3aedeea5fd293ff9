"""A node with SmolLM2 among forgers from several address prefixes, beside an honest miner.

A replay takes a tenth of a second and more here, so queues, turns and budgets matter by themselves. Every forged block
is true but for the last entry of its trace: the most that a forger can make a verifier do.
"""

import resource
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import trio

from poai_engine.models.model_store import get_model_path
from poai_spec.basics.containers import Block, Header
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Address
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.networking import HEADERS_PROTOCOL
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import process_header
from poai_spec.model.loss import compute_trace_digest
from poai_spec.proof.work import get_quiz
from poai_tools.vectors.chains import make_core, wins
from poaid.chain.admission import Importer, Sender
from poaid.chain.worker import Turn, Verifier, run_timed
from poaid.models import load_engine
from poaid.net import peers
from poaid.net.addresses import get_prefix
from poaid.net.peers import Peer, Peers
from poaid.produce.attempts import get_time
from poaid.testnet.local import get_base_network, make_network
from tests.harness.liars import Forger, Liar, lying
from tests.harness.processes import LOOK_S, Made, Maker, running, until
from tests.unit.poaid.net.test_transport import SOURCE

SMOLLM2 = get_model_path("smollm2")
"""Looked up before this package's tests see the small model alone."""
TARGET = 2**254
"""Every fourth quiz wins at first."""
MINER: Address = b"\x51" * 20
SOURCES = ("127.0.21.1", "127.0.22.1", "127.0.23.1")
"""Where the forgers come from; the honest miner has 127.0.0.1."""
PREFIXES = {get_prefix(f"/ip4/{source}") for source in SOURCES}
FORGERS_PER_PREFIX = 3
"""Two send blocks, one headers."""
BURST = 2
"""Forged blocks that each sends: the first one bans it, the second must not be replayed."""
HEADERS = 20
"""Invented headers, more than a sample."""
PACE_S, PACE_PASSES = 2.0, 12
"""How long an honest block has until the next one may be mined: at least, and in forward passes beside all others."""
WAITING, HEAD_START_S = 3, 1.0
"""An honest block is published when so many false ones wait for the model, or so many seconds after they were sent."""
BAN_PATIENCE_S = 3.0
"""How long a forger stays when nobody replays what it sent."""


@dataclass
class Job:
    """A verification, by trio's clock in seconds; `started` is infinite for one that has not begun."""

    turn: Turn
    asked: float
    started: float = float("inf")


@dataclass
class Record:
    """What was seen of the besieged node.

    Attributes:
        jobs: verifications, in the order in which they were asked for.
        in_flight: replays of gossip now, by sender.
        most_in_flight: the most at a time, by sender.
        began: when the siege did, by trio's clock.
        charges: seconds of failed replays, by address prefix and in order.
        lags: blocks that the node was behind the miner, at each look.
        forgers: how many have sent something.
        pass_s: the longest that a forward pass has taken a forger, with all that runs beside it.
    """

    began: float = field(default_factory=trio.current_time)
    jobs: list[Job] = field(default_factory=list)
    in_flight: Counter[bytes] = field(default_factory=Counter)
    most_in_flight: dict[bytes, int] = field(default_factory=dict)
    charges: list[tuple[str, float]] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)
    forgers: int = 0
    pass_s: float = 0.0

    def get_charged(self, prefix: str) -> list[float]:
        return [seconds for charged, seconds in self.charges if charged == prefix]

    def count_overtaken(self) -> list[int]:
        """Return for each verification of a proven peer's block how many of strangers began while it waited.

        As many may as there were blocks of proven peers that it waited for, and one more.
        """
        overtaken = []
        for job in self.jobs:
            if job.turn is Turn.PROVEN:
                begun = Counter(other.turn for other in self.jobs if job.asked < other.started < job.started)
                overtaken.append(begun[Turn.UNPROVEN] - begun[Turn.PROVEN])
        return overtaken


def watch(victim: Made, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a node's verifications, replays and charges written down."""
    do, replay, charge = Verifier.do, Importer.replay, Peers.charge_replay

    async def watched_do(
        self: Verifier, turn: Turn, work: Callable[[], Any], check: Any = lambda: None, *rest: Any
    ) -> Any:
        if self is not victim.node.verifier:
            return await do(self, turn, work, check, *rest)
        job = Job(turn, trio.current_time())
        record.jobs.append(job)

        def begin() -> None:
            check()
            job.started = trio.current_time()

        return await do(self, turn, work, begin, *rest)

    async def watched_replay(self: Importer, checked: Any, sender: Sender) -> Any:
        record.in_flight[sender.key] += 1
        record.most_in_flight[sender.key] = max(record.most_in_flight.get(sender.key, 0), record.in_flight[sender.key])
        try:
            return await replay(self, checked, sender)
        finally:
            record.in_flight[sender.key] -= 1

    def watched_charge(self: Peers, peer: Peer, now: float, seconds: float) -> None:
        record.charges.append((get_prefix(peer.address), seconds))
        charge(self, peer, now, seconds)

    monkeypatch.setattr(Verifier, "do", watched_do)
    monkeypatch.setattr(Importer, "replay", watched_replay)
    monkeypatch.setattr(Peers, "charge_replay", watched_charge)


class Smithy:
    """Forges on the victim's present head.

    Args:
        maker: of the victim, for the rules and the model.
        victim: whose chain is followed.
        record: is told how long a forward pass takes.

    Attributes:
        strike: set when all forgers shall send what they have; then replaced.
    """

    def __init__(self, maker: Maker, victim: Made, record: Record) -> None:
        self._maker, self._victim, self._record = maker, victim, record
        self._forger = Forger(victim)
        self._names = count(1)
        self._lock = trio.Lock()
        self.strike = trio.Event()

    async def call(self) -> None:
        """Let all forgers send; return when some of it waits for the model, or when nothing of it will."""
        self.strike.set()
        self.strike = trio.Event()
        with trio.move_on_after(HEAD_START_S):
            await until(lambda: self._victim.node.verifier.count_waiting() >= WAITING, "false work waits")

    async def make_blocks(self) -> list[bytes]:
        """Return blocks that win, and whose trace is true but for its last entry."""
        async with self._lock:  # as fast as one core forges
            return await trio.to_thread.run_sync(self._make_blocks)

    def _make_blocks(self) -> list[bytes]:
        chain, config, judge = self._follow().chain, self._maker.judge.config, self._maker.judge
        core = make_core(chain, self._forger.state, config, get_time(), next(self._names).to_bytes(20, "big"))
        quiz = get_quiz(core, chain, get_rules(config, (), 0), judge.models[0].questions)
        (evaluation,), seconds = run_timed(partial(judge.models[0].engine.evaluate, [quiz.tokens], [quiz.scored]))
        self._record.pass_s = max(self._record.pass_s, seconds)
        traces = ((*evaluation.trace[:-1], number.to_bytes(32, "big")) for number in count())
        headers = ((Header(core, evaluation.loss, compute_trace_digest(trace)), trace) for trace in traces)
        winners = (Block(header, EMPTY_BODY, trace) for header, trace in headers if wins(header, chain, config))
        return [encode(block) for block in islice(winners, BURST)]

    def make_headers(self) -> Forger:
        """Return the victim's chain with invented headers on top."""
        known, forger = self._follow(), Forger(self._victim)
        forger.chain, forger.state = list(known.chain), dict(known.state)
        return forger.invent(HEADERS, next(self._names).to_bytes(20, "big"))

    def _follow(self) -> Forger:
        tree = self._victim.node.chain.tree
        for height in range(len(self._forger.chain), tree.head.height + 1):
            header = tree.get_main(height).header
            self._forger.state = process_header(self._forger.state, header.core)
            self._forger.chain.append(header)
        return self._forger


async def forge(smithy: Smithy, victim: Made, record: Record, stop: trio.Event, source: str, *, headers: bool) -> None:
    """Come with one peer id after the other, and send false work with each, until told to stop."""
    SOURCE.set(source)
    while not stop.is_set():
        async with lying(victim) as liar:
            await liar.connect()
            forger = smithy.make_headers() if headers else None
            blocks = [] if headers else await smithy.make_blocks()
            await smithy.strike.wait()
            record.forgers += not stop.is_set()
            with trio.move_on_after(0 if stop.is_set() else BAN_PATIENCE_S):
                await (liar.gossip(*blocks) if forger is None else claim(liar, forger))
                await until(liar.is_banned, "banned")


async def claim(liar: Liar, forger: Forger) -> None:
    """Claim invented headers, and give them when asked."""
    liar.answers[HEADERS_PROTOCOL] = forger.answer_headers
    liar.claim(forger.head, len(forger.chain) - 1)
    await liar.tell_status()


def make_maker(folder: Path) -> Maker:
    """Make nodes with SmolLM2 and one thread each."""
    rules = make_network(get_base_network(str(SMOLLM2), TARGET), TARGET)
    return Maker(folder, rules, load_engine(str(SMOLLM2), get_rules(rules.config, (), 0), 1))


async def mine(miner: Made, victim: Made, record: Record, blocks: int) -> None:
    """Let the honest miner find some blocks, and look how far the victim is behind."""
    for _ in range(blocks):
        height = miner.height
        miner.node.mining.stop_height = height + 1
        while miner.height == height:
            record.lags.append(miner.height - victim.height)
            await trio.sleep(LOOK_S)
        end = trio.current_time() + max(PACE_S, PACE_PASSES * record.pass_s)
        while trio.current_time() < end:
            record.lags.append(miner.height - victim.height)
            await trio.sleep(LOOK_S)


@asynccontextmanager
async def besieged(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Made, Made, Record]]:
    """Run a node and an honest miner, which has delivered a block, and let the forgers come; yield both."""
    victim = maker.make()
    miner = maker.make(peers=[victim], miner=MINER, stop_height=1)
    record = Record()
    watch(victim, record, monkeypatch)
    async with running(victim, miner):
        await until(lambda: victim.height == 1, "the first block is there")
        async with trio.open_nursery() as nursery:
            smithy, stop = Smithy(maker, victim, record), trio.Event()
            publish = miner.node.mining.publish

            async def publish_late(data: bytes) -> None:
                await smithy.call()
                await publish(data)

            miner.node.mining.publish = publish_late
            for source in SOURCES:
                for index in range(FORGERS_PER_PREFIX):
                    attack = partial(forge, smithy, victim, record, stop, source, headers=index == 0)
                    nursery.start_soon(attack)
            yield victim, miner, record
            stop.set()  # not cancelled: a host of the plain library would leave its sockets open
            smithy.strike.set()


def check_record(victim: Made, record: Record) -> None:
    """Compare what was seen with what is promised."""
    bans = victim.node.metrics.registry.get_sample_value("poai_bans_total")
    assert bans in (len(record.charges), len(record.charges) - 1), "each failed replay bans its sender, and no other"
    assert set(record.most_in_flight.values()) == {1}, "one replay in flight a peer"
    assert max(record.count_overtaken()) <= 1, "half of the verifier stays with proven peers"
    assert max(record.lags) <= 1
    for prefix in {prefix for prefix, _ in record.charges}:
        charged = record.get_charged(prefix)
        refilled = (trio.current_time() - record.began) / peers.BUDGET_REFILL_S
        assert sum(charged) <= peers.BUDGET_S + refilled + max(charged), prefix


def get_peak_memory() -> int:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
