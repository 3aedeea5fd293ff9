"""Nodes find the same chain: late joiners, forks, other networks, pruned peers, liars and those who hold back."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from poai_spec.basics.notation import Address
from poaid.net.peers import Bucket
from tests.harness.processes import Maker, make_vector_network, read_chain, running, until

MINER: Address = b"\x31" * 20
OTHER: Address = b"\x32" * 20
SUBSIDY = 5 * 10**18

pytestmark = pytest.mark.trio


async def test_a_late_joiner_syncs_two_hundred_blocks(maker: Maker) -> None:
    old = maker.make(blocks=read_chain())
    new = maker.make(peers=[old])
    async with running(old, new):
        await until(lambda: new.head == old.head, "the late joiner has the chain")
        assert new.height == 200
        assert new.node.chain.state == old.node.chain.state
        assert new.node.sync.get_view() is None
        assert all(row.body is not None for row in new.store.read_chain())


async def test_two_halves_merge_to_the_heavier_chain(maker: Maker) -> None:
    """Two pairs mine apart from a common chain, then meet: one tip, and only its blocks pay."""
    common = read_chain()[:20]
    left, right = maker.make(blocks=common, miner=MINER), maker.make(blocks=common, miner=OTHER)
    async with running(left, right):
        await until(lambda: min(left.height, right.height) >= 24, "both halves have mined")
        assert left.head != right.head
        left.node.learn(right.address, wanted=True)
        left.node.mining.stop_height = right.node.mining.stop_height = max(left.height, right.height) + 3
        await until(lambda: left.head == right.head, "one tip")
        height = left.height
    state = left.node.chain.state
    assert state == right.node.chain.state
    assert sum(account.balance for account in state.values()) == height * SUBSIDY
    mined = [left.node.chain.headers[h].core.miner for h in range(21, height + 1)]
    for miner in (MINER, OTHER):
        assert (state[miner].balance if miner in state else 0) == mined.count(miner) * SUBSIDY
    assert left.node.reorgs + right.node.reorgs >= 1


async def test_what_gossip_drops_is_asked_for(maker: Maker) -> None:
    """Blocks that come faster than the rate allows are dropped; the last one would be missed for a minute."""
    miner = maker.make(miner=MINER, blocks=read_chain()[:5], stop_height=5)
    other = maker.make(peers=[miner], blocks=read_chain()[:5])
    async with running(miner, other):
        await until(lambda: bool(other.node.peers.connected), "they are connected")
        for peer in other.node.peers.connected.values():
            peer.conduct.gossip = Bucket(0, 1e9)  # nothing is heard from now on
        miner.node.mining.stop_height = 12
        await until(lambda: miner.height == 12, "the miner is done")
        await until(lambda: other.head == miner.head, "the other one has asked")


async def test_another_network_is_refused_with_a_reason(maker: Maker) -> None:
    config = replace(maker.network.config, genesis_timestamp=maker.network.config.genesis_timestamp + 1)
    other = Maker(maker.folder / "other", replace(make_vector_network(), config=config), maker.judge.models[0].engine)
    ours = maker.make(blocks=read_chain()[:3])
    theirs = other.make(peers=[ours])
    with capture_logs() as logs:
        async with running(ours, theirs):
            await until(lambda: sum("network" in line["event"] for line in logs) >= 2, "both sides say why")
            await until(lambda: not ours.node.peers.connected, "the connection is closed")
    lines = [line["event"] for line in logs]
    ids = [made.node.network_id.hex()[:8] for made in (theirs, ours)]
    assert any(
        line.startswith(f"Peer refused: it is on network {ids[0]}, this is {ids[1]}; both need") for line in lines
    )
    assert any(line.startswith("Refused by a peer of another network; both need the same") for line in lines)
    assert theirs.height == 0


async def test_a_pruned_node_serves_headers_and_says_what_it_lacks(maker: Maker) -> None:
    blocks = read_chain()
    pruned = maker.make(blocks=blocks)
    assert pruned.node.chain.prune(50) == 149  # below height 150
    whole, new = maker.make(blocks=blocks[:180]), maker.make(peers=[pruned])
    async with running(pruned, whole, new):
        await until(lambda: new.node.sync.stalled, "nobody serves the first blocks")
        peer = new.node.peers.connected[pruned.node.network.peer_id]
        assert peer.status is not None
        assert peer.status.bodies_from == 150
        assert blocks[0].header.core.height == 1
        assert new.node.chain.tree.count_waiting() == 200
        assert new.height == 0
        new.node.learn(whole.address, wanted=True)
        await until(lambda: new.head == pruned.head, "the rest comes from both")


async def test_a_branch_below_the_prune_horizon(maker: Maker) -> None:
    """A pruned node follows a heavier branch that forks where it has no undo records any more."""
    common = read_chain()[:10]
    long = maker.make(blocks=read_chain())
    short = maker.make(blocks=common, miner=MINER)
    async with running(short):
        await until(lambda: short.height >= 20, "a branch of its own")
    again = maker.make(peers=[long], data_dir=maker.folder / "node-2")
    assert again.height >= 20
    assert again.node.chain.prune(2) >= 17
    async with running(long, again):
        await until(lambda: again.head == long.head, "the heavier branch")
        assert again.node.chain.state == long.node.chain.state


async def test_assume_valid_skips_replays_and_says_so(maker: Maker) -> None:
    blocks = read_chain()
    old = maker.make(blocks=blocks)
    named = old.node.chain.tree.get_main(150).hash
    new = maker.make(peers=[old], assume_valid=named)
    async with running(old, new):
        await until(lambda: new.head == old.head, "the chain is there")
        assert sorted(new.node.chain.assumed.values()) == list(range(1, 151))
        assert new.node.make_status().assumed == 150
        third = maker.make(peers=[new])
        await_third = running(third)
        async with await_third:
            await until(lambda: third.node.sync.stalled, "what was not replayed is not served")
            assert third.height == 0
