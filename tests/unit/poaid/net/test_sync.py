"""The sync, step by step: what gossip may change while it waits."""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from poai_spec.basics.encoding import decode
from poai_spec.basics.notation import Hash32, SpecError
from poai_spec.chain.block import make_judge
from poai_spec.chain.networking import Blocks, BlocksRequest, Result, Status, encode_response
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import Account
from poai_spec.model.engine import Evaluation
from poai_spec.proof.work import get_quiz
from poaid.chain.admission import Sender
from poaid.net.handlers import PeerError
from poaid.net.peers import Peer, Peers
from poaid.net.sync import Ask, Sync, race
from poaid.store.database import Database
from tests.harness.importing import (
    BACKWARDS,
    MINERS,
    SHORT,
    SWAPPED,
    Made,
    StubEngine,
    grow,
    grow_line,
    make_easy_judge,
    make_easy_network,
    make_rig,
    make_root,
)

pytestmark = pytest.mark.trio


def fail(*arguments: object) -> None:
    raise AssertionError(f"nobody is asked for this: {arguments}")


async def test_a_goal_that_gossip_brings_meanwhile_is_left(tmp_path: Path) -> None:
    """The heavier of two branches is looked at first; before its sample is replayed, the other one has come."""
    network, judge = make_easy_network(), make_easy_judge()
    heavy, light = grow_line(make_root(), 2), grow(make_root(), miner=MINERS[1])
    quiz = get_quiz(
        light.block.header.core, light.chain[:-1], get_rules(judge.config, (), 0), judge.models[0].questions
    )
    (evaluation,) = judge.models[0].engine.evaluate([quiz.tokens], [quiz.scored])
    request = cast(Callable[[Peer, str, bytes, int], Awaitable[bytes]], fail)
    ask = Ask(request, fail, lambda peer: Sender(peer.key), fail)
    peers = Peers()
    peers.connected["peer"] = Peer("peer", "", outbound=False, connected_at=0.0, not_before=inf)  # sent the headers
    with Database.create_or_open(tmp_path, network, "mini") as store:
        rig = make_rig(store, judge, network.config.genesis_timestamp + 10**9)
        rig.receive_headers([*heavy, light])
        sync = Sync(rig.importer, peers, ask)
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as steps:
                steps.start_soon(sync.step, nursery)
                await wait_all_tasks_blocked()
                assert sync.goal is not None
                assert sync.goal.hash == heavy[-1].hash
                assert await rig.importer.import_block(light.data, Sender(), "gossip", evaluation)
                nursery.start_soon(rig.importer.verifier.run)
            nursery.cancel_scope.cancel()
        assert rig.chain.head.hash == light.hash
        assert sync.goal is None


class BatchEngine(StubEngine):
    """Counts the quizzes that are run in batches, which is how sync asks."""

    passes = 0

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        self.passes += len(tokens)
        return super().evaluate(tokens, scored)


class Fetching:
    """A sync whose one peer has sent headers, and answers for their blocks.

    Attributes:
        charged: seconds that the peer was charged.
        blamed: the rules that it broke.
    """

    def __init__(self, folder: Path, served: Sequence[Made], assume_valid: Hash32 | None = None) -> None:
        network = make_easy_network()
        self.engine = BatchEngine(network.config)
        self.charged, self.blamed, self.served = list[float](), list[str](), {made.hash: made for made in served}
        self._store = Database.create_or_open(folder, network, "mini")
        judge = make_judge(network.config, network.questions, self.engine)
        self.rig = make_rig(self._store, judge, network.config.genesis_timestamp + 10**9)
        peers = Peers()
        peers.connected["peer"] = Peer("peer", "", outbound=False, connected_at=0.0)
        self.sync = Sync(
            self.rig.importer, peers, Ask(self._answer, self._blame, self._make_sender, fail), assume_valid
        )
        self.sync.batch = 8

    async def _answer(self, _: Peer, __: str, payload: bytes, ___: int) -> bytes:
        wanted = decode(BlocksRequest, payload).hashes
        blocks = tuple(self.served[h].block for h in wanted if h in self.served)
        return encode_response(Result.OK, Blocks(blocks, tuple(h for h in wanted if h not in self.served)))

    def _blame(self, _: str, error: SpecError) -> None:
        self.blamed.append(error.code)

    def _make_sender(self, peer: Peer) -> Sender:
        return Sender(peer.key, charge=self.charged.append)

    async def step(self) -> bool:
        """Let the sync do one thing, with a running verifier."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.rig.importer.verifier.run)
            moved = await self.sync.step(nursery)
            nursery.cancel_scope.cancel()
        return moved

    def close(self) -> None:
        self._store.close()


@pytest.mark.parametrize(
    ("false", "code", "passes"),
    [
        ({"alteration": SWAPPED}, "work/trace-digest", 0),
        ({"alteration": SHORT}, "work/trace-length", 0),
        ({"alteration": BACKWARDS}, "work/trace", 2),
        ({"state": {MINERS[0]: Account(balance=1)}}, "state/root", 2),
    ],
    ids=["trace-digest", "trace-length", "trace", "state"],
)
@pytest.mark.parametrize("first", [False, True])
async def test_contents_come_before_the_model_and_every_failure_behind_it_is_charged(
    tmp_path: Path, false: dict[str, Any], code: str, passes: int, first: bool
) -> None:
    """A false block behind two true ones, or as the first: what costs nothing to find is found before a pass.

    Args:
        false: what is false in it.
        code: the rule that it breaks.
        passes: how many, for it and the one after it, before that is found.
        first: whether it is the first.
    """
    before = grow_line(make_root(), 0 if first else 2)
    bad = grow(before[-1] if before else make_root(), **false)
    line = [*before, bad, *grow_line(bad, 1)]
    fetching = Fetching(tmp_path, line)
    fetching.rig.receive_headers(line)
    assert await fetching.step()
    assert fetching.blamed == [code]
    expected = len(before) + passes
    assert fetching.engine.passes == expected
    assert fetching.rig.chain.head.height == len(before)
    assert len(fetching.charged) == 1
    assert (fetching.charged[0] > 0) == (expected > 0)
    fetching.close()


async def test_a_branch_shorter_than_the_named_block_is_not_assumed(tmp_path: Path) -> None:
    """It has the named block's beginning and ends below its height: nothing of it may be looked up there."""
    trunk = grow_line(make_root(), 3)
    long, short = grow_line(trunk[-1], 3), grow(trunk[-1], miner=MINERS[1])
    fetching = Fetching(tmp_path, [], assume_valid=long[-1].hash)
    fetching.rig.receive_headers([*trunk, *long, short])
    assert not await fetching.step()
    assert fetching.blamed == []
    assert fetching.engine.passes > 0, "the short branch is sampled"
    fetching.close()


def make_claimant(name: str, work: int, network_id: Hash32) -> Peer:
    """Return a peer that claims a head which nobody knows."""
    peer = Peer(name, "/ip4/192.0.2.7/tcp/4001", outbound=False, connected_at=0.0)
    peer.note_status(Status(1, network_id, bytes(4), 0, name.encode().ljust(32), 9, work, 1, 0), 0.0)
    return peer


async def test_who_fails_to_make_good_on_a_claim_is_asked_last(tmp_path: Path) -> None:
    """Peers that are equal otherwise: who has failed is asked last, who has proven itself first."""
    network, judge = make_easy_network(), make_easy_judge()
    asked: list[str] = []

    async def refuse(peer: Peer, *_: object) -> bytes:
        asked.append(peer.peer_id)
        raise PeerError("no answer")

    peers = Peers()
    for name, work in (("honest", 10), ("liar", 2**200), ("other", 5)):
        peers.connected[name] = make_claimant(name, work, bytes(32))
    peers.connected["other"].fail(-1_000.0)
    peers.connected["honest"].proven = True
    with Database.create_or_open(tmp_path, network, "mini") as store:
        rig = make_rig(store, judge, network.config.genesis_timestamp + 10**9)
        sync = Sync(rig.importer, peers, Ask(refuse, fail, fail, fail))  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            assert not await sync.step(nursery)
            assert asked == ["honest", "liar", "other"]
            assert not await sync.step(nursery), "all are left alone for a while"
        assert asked == ["honest", "liar", "other"]
        assert not any(peer.not_before <= trio.current_time() for peer in peers.connected.values())


async def test_strangers_are_asked_in_no_order_that_they_could_choose(tmp_path: Path) -> None:
    network, judge = make_easy_network(), make_easy_judge()
    peers = Peers()
    peers.connected = {name: make_claimant(name, work, bytes(32)) for name, work in (("a", 2**200), ("b", 9), ("c", 5))}
    with Database.create_or_open(tmp_path, network, "mini") as store:
        rig = make_rig(store, judge, network.config.genesis_timestamp + 10**9)
        sync = Sync(rig.importer, peers, Ask(fail, fail, fail, fail))  # type: ignore[arg-type]
        assert {sync.choose_for_headers()[0].peer_id for _ in range(100)} == {"a", "b", "c"}
        peers.connected["a"].outrun = True
        peers.connected["b"].last_header = bytes(32)
        assert [peer.peer_id for peer in sync.choose_for_headers()] == ["b", "c", "a"]


# Asking several.


def make_race(seconds: dict[str, tuple[float, str]]) -> tuple[list[Peer], Callable[[Peer], Awaitable[str]], list[str]]:
    """Return peers, what asks them, and who was asked: each takes some seconds for its answer."""
    asked: list[str] = []

    async def ask(peer: Peer) -> str:
        asked.append(f"{peer.peer_id} at {trio.current_time() - start:g}")
        pause, answer = seconds[peer.peer_id]
        await trio.sleep(pause)
        return answer

    start = trio.current_time()
    return [make_claimant(name, 1, bytes(32)) for name in seconds], ask, asked


async def test_the_silent_cost_a_head_start_each(autojump_clock: MockClock) -> None:
    peers, ask, asked = make_race({"a": (10, ""), "b": (10, ""), "c": (0.5, "headers"), "d": (0, "late")})
    assert await race(peers, ask) == (peers[2], "headers")
    assert asked == ["a at 0", "b at 1", "c at 2"]
    assert trio.current_time() == 2.5
    assert [peer.outrun for peer in peers] == [True, True, False, False]


async def test_who_is_merely_slow_may_still_win(autojump_clock: MockClock) -> None:
    peers, ask, asked = make_race({"a": (1.5, "headers"), "b": (1, "too late"), "c": (0, "not asked")})
    peers[0].outrun = True
    assert await race(peers, ask) == (peers[0], "headers")
    assert asked == ["a at 0", "b at 1"]
    assert [peer.outrun for peer in peers] == [False, False, False]


async def test_who_fails_at_once_costs_nothing(autojump_clock: MockClock) -> None:
    peers, ask, asked = make_race({"a": (0, ""), "b": (0.25, ""), "c": (0, "headers")})
    assert await race(peers, ask) == (peers[2], "headers")
    assert asked == ["a at 0", "b at 0", "c at 0.25"]


async def test_nobody_has_an_answer(autojump_clock: MockClock) -> None:
    peers, ask, _ = make_race({"a": (10, ""), "b": (3, "")})
    assert await race(peers, ask) is None
    assert trio.current_time() == 10
    assert [peer.outrun for peer in peers] == [False, False]
    assert await race([], ask) is None
