"""The sync, step by step: what gossip may change while it waits."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from poai_spec.work import get_quiz
from poaid.importer import Sender
from poaid.peers import Peer, Peers
from poaid.store import Store
from poaid.sync import Ask, Sync
from tests.node.importing import MINERS, grow, grow_line, make_easy_judge, make_easy_network, make_rig, make_root

pytestmark = pytest.mark.trio


def fail(*arguments: object) -> None:
    raise AssertionError(f"nobody is connected: {arguments}")


async def test_a_goal_that_gossip_brings_meanwhile_is_left(tmp_path: Path) -> None:
    """The heavier of two branches is looked at first; before its sample is replayed, the other one has come."""
    network, judge = make_easy_network(), make_easy_judge()
    heavy, light = grow_line(make_root(), 2), grow(make_root(), miner=MINERS[1])
    quiz = get_quiz(light.block.header.core, light.chain[:-1], judge.config, judge.questions)
    (evaluation,) = judge.engine.evaluate([quiz.tokens], [quiz.scored])
    ask = Ask(cast(Callable[[Peer, str, bytes, int], Awaitable[bytes]], fail), fail, fail, fail)  # type: ignore[arg-type]
    with Store.create_or_open(tmp_path, network, "mini") as store:
        rig = make_rig(store, judge, network.config.genesis_timestamp + 10**9)
        rig.receive_headers([*heavy, light])
        sync = Sync(rig.importer, Peers(), ask)
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
