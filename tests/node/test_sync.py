"""The sync, step by step: what gossip may change while it waits."""

from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from poai_spec.networking import Status
from poai_spec.notation import Hash32
from poai_spec.work import get_quiz
from poaid.importer import Sender
from poaid.network import PeerError
from poaid.peers import Peer, Peers
from poaid.store import Store
from poaid.sync import Ask, Sync
from tests.node.importing import MINERS, grow, grow_line, make_easy_judge, make_easy_network, make_rig, make_root

pytestmark = pytest.mark.trio


def fail(*arguments: object) -> None:
    raise AssertionError(f"nobody is asked for this: {arguments}")


async def test_a_goal_that_gossip_brings_meanwhile_is_left(tmp_path: Path) -> None:
    """The heavier of two branches is looked at first; before its sample is replayed, the other one has come."""
    network, judge = make_easy_network(), make_easy_judge()
    heavy, light = grow_line(make_root(), 2), grow(make_root(), miner=MINERS[1])
    quiz = get_quiz(light.block.header.core, light.chain[:-1], judge.config, judge.questions)
    (evaluation,) = judge.engine.evaluate([quiz.tokens], [quiz.scored])
    request = cast(Callable[[Peer, str, bytes, int], Awaitable[bytes]], fail)
    ask = Ask(request, fail, lambda peer: Sender(peer.key), fail)
    peers = Peers()
    peers.connected["peer"] = Peer("peer", "", outbound=False, connected_at=0.0, not_before=inf)  # sent the headers
    with Store.create_or_open(tmp_path, network, "mini") as store:
        rig = make_rig(store, judge, network.config.genesis_timestamp + 10**9)
        rig.receive_headers([*heavy, light])
        sync = Sync(rig.importer, peers, ask)
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as steps:
                steps.start_soon(sync._step)
                await wait_all_tasks_blocked()
                assert sync.goal is not None
                assert sync.goal.hash == heavy[-1].hash
                assert await rig.importer.import_block(light.data, Sender(), "gossip", evaluation)
                nursery.start_soon(rig.importer.verifier.run)
            nursery.cancel_scope.cancel()
        assert rig.chain.head.hash == light.hash
        assert sync.goal is None


def make_claimant(name: str, work: int, network_id: Hash32) -> Peer:
    """Return a peer that claims a head which nobody knows."""
    peer = Peer(name, "/ip4/192.0.2.7/tcp/4001", outbound=False, connected_at=0.0)
    peer.note_status(Status(1, network_id, name.encode().ljust(32), 9, work, 1, 0), 0.0)
    return peer


async def test_who_fails_to_make_good_on_a_claim_is_asked_last(tmp_path: Path) -> None:
    """Whoever claims most is asked first, and does not answer: the next one is asked in the same step."""
    network, judge = make_easy_network(), make_easy_judge()
    asked: list[str] = []

    async def refuse(peer: Peer, *_: object) -> bytes:
        asked.append(peer.peer_id)
        raise PeerError("no answer")

    peers = Peers()
    for name, work in (("honest", 10), ("liar", 2**200), ("other", 5)):
        peers.connected[name] = make_claimant(name, work, bytes(32))
    with Store.create_or_open(tmp_path, network, "mini") as store:
        rig = make_rig(store, judge, network.config.genesis_timestamp + 10**9)
        sync = Sync(rig.importer, peers, Ask(refuse, fail, fail, fail))  # type: ignore[arg-type]
        assert await sync._step()  # there is another one to ask
        assert asked == ["liar", "honest"]
        assert not await sync._step()
        assert asked == ["liar", "honest", "other"]
        for peer in peers.connected.values():
            peer.not_before = 0.0
        peers.connected["other"].failures = 0
        peers.connected["honest"].proven = True
        await sync._step()
        assert asked[3:] == ["other", "honest"]
