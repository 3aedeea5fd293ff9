"""The way into the chain: one replay for equal blocks, children behind parents, and what each failure costs whom."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Invalid, Malformed, SpecError
from poai_spec.chain.networking import MAX_BLOCK_BYTES
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import Account
from poai_spec.proof.work import get_quiz
from poai_tools.vectors.chains import Alteration
from poaid.chain import admission as importer_module
from poaid.chain.admission import BusyError, Sender
from poaid.chain.chain_state import HeadChange
from poaid.chain.tree import Hashes
from poaid.chain.worker import Turn
from poaid.errors import NodeError
from poaid.store.database import Database, StoredPeer
from tests.harness.importing import (
    BACKWARDS,
    DEARER,
    MINERS,
    SHORT,
    SWAPPED,
    Made,
    Rig,
    grow,
    grow_line,
    make_easy_judge,
    make_easy_network,
    make_rig,
    make_root,
    running,
)

pytestmark = pytest.mark.trio


class Watched:
    """A peer whose imports are written down.

    Attributes:
        results: of each block: whether it was new, or the error's code.
        charged: seconds that were charged, once for each failed replay.
        may_replay: what it is told.
    """

    def __init__(self, rig: Rig, name: bytes = b"peer") -> None:
        self.rig, self.may_replay = rig, True
        self.results, self.charged = list[object](), list[float]()
        self.sender = Sender(name, Turn.UNPROVEN, lambda: self.may_replay, self.charged.append)

    async def send(self, data: bytes) -> object:
        try:
            result: object = await self.rig.importer.import_block(data, self.sender, "gossip")
        except SpecError as error:
            result = error.code
        except BusyError:
            result = "busy"
        self.results.append(result)
        return result


def read_metric(rig: Rig, name: str, **labels: str) -> float | None:
    return rig.importer.metrics.registry.get_sample_value(f"poai_{name}", labels)


# --- Who waits for whom ---


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[Rig]:
    """A rig whose verifier does not run: a block that comes to its replay stays there."""
    network = make_easy_network()
    with Database.create_or_open(tmp_path, network, "mini") as store:
        yield make_rig(store, make_easy_judge(), network.config.genesis_timestamp + 10**9)


async def race(rig: Rig, *sent: tuple[Watched, Made]) -> None:
    """Let blocks come one after another, each as far as it gets without the model; then let the model run."""
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as senders:
            for watched, made in sent:
                senders.start_soon(watched.send, made.data)
                await wait_all_tasks_blocked()
            nursery.start_soon(rig.importer.verifier.run)
        nursery.cancel_scope.cancel()


async def test_equal_blocks_from_two_senders_run_the_model_once(paused: Rig) -> None:
    made, first, second = grow(make_root()), Watched(paused, b"1"), Watched(paused, b"2")
    await race(paused, (first, made), (second, made), (first, made))
    assert (first.results, second.results) == ([True, False], [False])
    assert len(paused.asked) == 1


async def test_equal_false_blocks_cost_one_replay_and_blame_both(paused: Rig) -> None:
    made, first, second = grow(make_root(), alteration=BACKWARDS), Watched(paused, b"1"), Watched(paused, b"2")
    await race(paused, (first, made), (second, made))
    assert (first.results, second.results) == (["work/trace"], ["fork-choice/known-invalid"])
    assert (len(first.charged), len(second.charged), len(paused.asked)) == (1, 0, 1)


async def test_children_wait_for_their_parents_replay(paused: Rig) -> None:
    line, peers = grow_line(make_root(), 4), [Watched(paused, bytes([n])) for n in range(4)]
    await race(paused, *zip(peers, line, strict=True))
    assert [peer.results for peer in peers] == [[True]] * 4
    assert paused.chain.head.hash == line[-1].hash


async def test_a_child_that_waited_for_a_false_parent_falls_with_it(paused: Rig) -> None:
    false = grow(make_root(), alteration=DEARER)
    forger, victim = Watched(paused, b"1"), Watched(paused, b"2")
    await race(paused, (forger, false), (victim, grow(false)))
    assert (forger.results, victim.results) == (["work/loss"], ["fork-choice/invalid-ancestor"])


async def test_a_child_before_its_parent_does_not_wait(paused: Rig) -> None:
    line, peer = grow_line(make_root(), 2), Watched(paused)
    assert await peer.send(line[1].data) == "fork-choice/unknown-parent"
    paused.receive_headers(line[:1])
    assert await peer.send(line[1].data) == "fork-choice/parent-not-replayed"
    assert paused.chain.tree.count_waiting() == 2


async def run_until_done(rig: Rig, *sent: tuple[Watched, Made]) -> None:
    """Let the verifier run until these have an answer."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.importer.verifier.run)
        for watched, made in sent:
            await watched.send(made.data)
        nursery.cancel_scope.cancel()


async def test_a_sender_that_gives_up_makes_way(paused: Rig) -> None:
    """Validation has a time limit: whoever waits behind it goes on, and nothing is left of the one that left."""
    line, first, other = grow_line(make_root(), 2), Watched(paused, b"1"), Watched(paused, b"2")
    async with trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def give_up() -> None:
            with impatient:
                await first.send(line[0].data)

        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(other.send, line[1].data)
        await wait_all_tasks_blocked()
        impatient.cancel()
        await wait_all_tasks_blocked()
        assert other.results == ["fork-choice/parent-not-replayed"]
        assert (paused.importer.busy, paused.importer.verifier.count_waiting()) == ({}, 0)
    await run_until_done(paused, (other, line[0]), (other, line[1]))
    assert (first.results, other.results[1:], len(paused.asked)) == ([], [True, True], 2)


async def test_a_header_that_makes_room_during_the_replay_does_not_count(paused: Rig) -> None:
    made, peer = grow(make_root()), Watched(paused)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(race, paused, (peer, made))
        while made.hash not in paused.chain.tree.entries:
            await trio.lowlevel.checkpoint()
        paused.chain.tree.drop(paused.chain.tree.entries[made.hash])
    assert peer.results == [False]
    assert (paused.chain.head.height, paused.store.read_height(), list(paused.store.read_headers())) == (0, 0, [])
    assert read_metric(paused, "blocks_imported_total", source="gossip") == 0
    await run_until_done(paused, (peer, made))
    assert paused.chain.head.hash == made.hash


# --- What a fault costs ---


@pytest.mark.parametrize(
    ("alteration", "code", "marks", "charges"),
    [
        (BACKWARDS, "work/trace", True, True),
        (DEARER, "work/loss", True, True),
        (SHORT, "work/trace-length", True, False),
        (SWAPPED, "work/trace-digest", False, False),
    ],
)
async def test_a_false_block(tmp_path: Path, alteration: Alteration, code: str, marks: bool, charges: bool) -> None:
    made = grow(make_root(), alteration=alteration)
    async with running(tmp_path) as rig:
        peer = Watched(rig)
        assert await peer.send(made.data) == code
        assert (made.hash in rig.chain.tree.invalid, made.hash in rig.chain.tree.entries) == (marks, not marks)
        assert (len(peer.charged), len(rig.asked)) == (int(charges), int(charges))
        assert all(seconds > 0 for seconds in peer.charged)
        assert await peer.send(made.data) == ("fork-choice/known-invalid" if marks else code)
        assert read_metric(rig, "blocks_rejected_total", code=code) == (1 if marks else 2)
        assert (rig.chain.head.height, list(rig.store.read_headers())) == (0, [])


async def test_a_false_state_root_marks_and_runs_nothing(tmp_path: Path) -> None:
    made = grow(make_root(), state={MINERS[0]: Account(balance=1)})
    async with running(tmp_path) as rig:
        peer = Watched(rig)
        assert await peer.send(made.data) == "state/root"
        assert made.hash in rig.chain.tree.invalid
        assert (peer.charged, rig.asked) == ([], [])


async def test_a_malformed_copy_does_not_hurt_the_true_block(tmp_path: Path) -> None:
    made = grow(make_root())
    swapped = encode(replace(made.block, trace=made.block.trace[::-1]))
    async with running(tmp_path) as rig:
        peer = Watched(rig)
        assert await peer.send(swapped) == "work/trace-digest"
        assert await peer.send(made.data) is True


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "encoding/undecodable"),
        (bytes(300), "encoding/undecodable"),
    ],
)
async def test_what_is_no_block_leaves_no_trace(tmp_path: Path, data: bytes, code: str) -> None:
    async with running(tmp_path) as rig:
        peer = Watched(rig)
        assert await peer.send(data) == code
        tree = rig.chain.tree
        assert (len(tree.entries), len(tree.orphans), len(tree.invalid), peer.charged) == (1, 0, 0, [])


async def test_what_is_too_large_for_its_rules_is_refused_before_it_waits(tmp_path: Path) -> None:
    made = grow(make_root())
    async with running(tmp_path) as rig:
        rig.importer.check_size(made.data, rig.chain.tree.get_rules(1))
        for data in (made.data + bytes(1), bytes(MAX_BLOCK_BYTES + 1)):
            with pytest.raises(Malformed, match="networking/block-size"):
                rig.importer.check_size(data, rig.chain.tree.get_rules(1))


# --- Budgets ---


async def test_a_busy_sender_keeps_its_header_and_others_go_on(tmp_path: Path) -> None:
    made = grow(make_root())
    async with running(tmp_path) as rig:
        spent, other = Watched(rig, b"1"), Watched(rig, b"2")
        spent.may_replay = False
        assert await spent.send(made.data) == "busy"
        assert rig.asked == []
        assert not rig.chain.tree.entries[made.hash].replayed
        assert rig.importer.busy == {}
        assert await other.send(made.data) is True
        assert await spent.send(made.data) is False  # it counts already: no replay is asked for


async def test_a_budget_that_is_used_up_during_the_wait_counts(paused: Rig) -> None:
    """Else as many peers as fit behind one prefix begin at the same time."""
    false, true = grow(make_root(), alteration=BACKWARDS), grow(make_root(), miner=MINERS[1])
    forger, neighbour = Watched(paused, b"1"), Watched(paused, b"2")

    def charge(seconds: float) -> None:
        neighbour.may_replay = False

    forger.sender = replace(forger.sender, charge=charge)
    await race(paused, (forger, false), (neighbour, true))
    assert (forger.results, neighbour.results) == (["work/trace"], ["busy"])
    assert len(paused.asked) == 1


# --- What is known already ---


async def test_a_given_evaluation_spares_the_model(tmp_path: Path) -> None:
    line = grow_line(make_root(), 2)
    async with running(tmp_path) as rig:
        for number, made in enumerate(line, 1):
            quiz = get_quiz(
                made.block.header.core,
                made.chain[:-1],
                get_rules(rig.judge.config, (), 0),
                rig.judge.models[0].questions,
            )
            (evaluation,) = rig.judge.models[0].engine.evaluate([quiz.tokens], [quiz.scored])
            if number == 2:
                evaluation = replace(evaluation, trace=evaluation.trace[::-1])
                with pytest.raises(Invalid) as error:
                    await rig.importer.import_block(made.data, Sender(), "sync", evaluation)
                assert error.value.code == "work/trace"
                continue
            assert await rig.importer.import_block(made.data, Sender(), "sync", evaluation)
        assert rig.asked == []
        assert (rig.chain.head.hash, list(rig.chain.tree.invalid)) == (line[0].hash, [line[1].hash])
        assert read_metric(rig, "blocks_imported_total", source="sync") == 1


async def test_head_changes_are_told_and_counted(tmp_path: Path) -> None:
    line, rival = grow_line(make_root(), 2), grow_line(make_root(), 3, miner=MINERS[1])
    async with running(tmp_path) as rig:
        changes = list[HeadChange]()
        rig.importer.on_head.append(changes.append)
        peer = Watched(rig)
        for made in line:
            await peer.send(made.data)
        rig.receive_headers(rival)
        for made in rival:
            await peer.send(made.data)
        assert peer.results == [True] * 5
        genesis = rig.chain.tree.genesis
        assert [(change.old.height, change.depth) for change in changes][:2] == [(0, 0), (1, 0)]
        assert changes[-1].new.hash == rival[-1].hash
        assert next(change.fork for change in changes if change.depth) is genesis
        assert read_metric(rig, "reorgs_total") == sum(change.depth > 0 for change in changes) >= 1


async def test_what_is_remembered_for_people_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer_module, "MAX_REMEMBERED", 2)
    line = grow_line(make_root(), 3)
    async with running(tmp_path) as rig:
        peer = Watched(rig)
        for made in line:
            await peer.send(made.data)
        last = [made.hash for made in line[1:]]
        assert (list(rig.importer.nlls), list(rig.importer.received)) == (last, last)
        assert set(rig.importer.received.values()) == {rig.now}
        assert sum(rig.importer.nlls[last[-1]]) == line[-1].block.header.loss


# --- The disk ---


async def send_all(peer: Watched, blocks: Iterable[Made]) -> None:
    for made in blocks:
        await peer.send(made.data)


async def test_a_full_disk_ends_the_node_and_the_folder_opens_again(tmp_path: Path) -> None:
    """Nothing is written after the failure, also not when there is room again: a parent could be missing."""
    line = grow_line(make_root(), 60)
    async with running(tmp_path) as rig:
        peer = Watched(rig)
        for made in line[:5]:
            await peer.send(made.data)
        (pages,) = rig.store.query("PRAGMA page_count")[0]
        rig.store.query(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(NodeError, match="database or disk is full; check the disk's space"):
            await send_all(peer, line[5:])
        rig.store.query(f"PRAGMA max_page_count = {100 * pages}")
        stored = rig.store.read_height()
        with pytest.raises(NodeError, match="database or disk is full; check the disk's space"):
            await peer.send(line[rig.store.read_height() + 1].data)
        with pytest.raises(NodeError, match="database or disk is full"):
            rig.store.write_peers([StoredPeer("Q1", "/one", 0, 0)])
        assert rig.store.read_height() == stored < 60
    async with running(tmp_path) as rig:
        assert (rig.chain.head.height, rig.store.read_peers()) == (stored, [])
        assert list(Hashes(rig.chain.head))[1:] == [made.hash for made in line[:stored]]
        peer = Watched(rig)
        for made in line[stored:]:
            assert await peer.send(made.data) is True
