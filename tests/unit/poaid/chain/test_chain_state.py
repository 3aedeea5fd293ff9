"""Chain, importer and store together: the conformance vectors, and random trees in any order against the page."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import poai_spec.chain.fork_choice as page
from poai_spec.basics.containers import Block
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Hash32, Invalid, SpecError
from poai_spec.execution.state import Account, State, compute_state_root
from poai_spec.proof.work import get_quiz
from poai_tools.vectors.engines import get_judge
from poai_tools.vectors.network import LEXICON
from poai_tools.vectors.records import list_accounts
from poai_tools.vectors.registry import FUNCTIONS, Outcome, call
from poai_tools.vectors.suites import load_all
from poaid.chain import chain_state as chain_module
from poaid.chain.admission import Sender
from poaid.chain.chain_state import HeadChange
from poaid.chain.tree import Entry, Hashes, find_fork
from poaid.errors import NodeError
from poaid.network_file import Network
from poaid.store import database as store_module
from poaid.store.database import Database, encode_changes
from tests.harness.importing import (
    BACKWARDS,
    MINERS,
    Made,
    Rig,
    grow,
    grow_line,
    make_easy_network,
    make_forest,
    make_rig,
    make_root,
    running,
)
from tests.harness.node import run_sql

load_all()

VECTORS = Path(__file__).parents[4] / "test_vectors"


async def get_code(rig: Rig, data: bytes, peer: bytes = b"peer") -> str | None:
    """Import a block; return the code that it is refused by."""
    try:
        await rig.importer.import_block(data, Sender(peer), "gossip")
    except SpecError as error:
        return error.code
    return None


# --- The conformance vectors ---


async def play(rig: Rig, event: tuple[str, Any], blocks: tuple[Block, ...]) -> str | None:
    kind, value = event
    if kind == "tick":
        rig.now = value
        rig.chain.tree.tick(value)
        return None
    block, peer = blocks[value["block"]], value["peer"].encode("utf-8")
    if kind == "block":
        return await get_code(rig, encode(block), peer)
    try:
        rig.chain.tree.receive_header(encode(block.header), peer)
    except SpecError as error:
        return error.code
    return None


def check_store(rig: Rig) -> None:
    """Assert that the database has the chain of the tree, and the accounts after it."""
    assert [row.block_hash for row in rig.store.read_chain()] == list(Hashes(rig.chain.head))[1:]
    assert compute_state_root(rig.store.read_state()) == rig.chain.head.header.core.state_root


async def run_events(i: Mapping[str, Any], rig: Rig) -> dict[str, Any]:
    steps = []
    for event in i["events"]:
        code = await play(rig, event, i["blocks"])
        steps.append({"head": rig.chain.head.hash, "code": code})
        check_store(rig)
    return {"steps": steps}


async def on_event(i: Mapping[str, Any], rig: Rig) -> dict[str, Any]:
    for event in i["setup"]:
        await play(rig, event, i["blocks"])
    code = await play(rig, i["event"], i["blocks"])
    check_store(rig)
    return {"head": rig.chain.head.hash, "code": code}


async def import_blocks(i: Mapping[str, Any], rig: Rig) -> dict[str, Any]:
    codes = [await get_code(rig, data) for data in i["blocks"]]
    check_store(rig)
    head, state = rig.chain.head, rig.store.read_state()
    assert rig.chain.state == state
    tip = {"head": head.hash, "height": head.height, "work": head.work, "codes": codes}
    return tip | {"state_root": compute_state_root(state), "accounts": list_accounts(state)}


RUNS = {
    ("fork_choice", "run_events"): run_events,
    ("fork_choice", "on_event"): on_event,
    ("chain", "import_blocks"): import_blocks,
}


def list_cases() -> Iterator[Any]:
    for suite, name in RUNS:
        for case in json.loads((VECTORS / suite / f"{name}.json").read_text("utf-8"))["cases"]:
            yield pytest.param((suite, name), case, id=f"{name}-{case['id']}")


@pytest.mark.parametrize(("key", "case"), list(list_cases()))
def test_every_vector_gives_the_files_result(key: tuple[str, str], case: dict[str, Any], tmp_path: Path) -> None:
    codes = list[str | None]()

    def run(i: Mapping[str, Any]) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            judge = get_judge(i["config"], i["lexicon"], i["model"])
            network = Network("vectors", i["config"], judge.models[0].questions, LEXICON)
            async with running(tmp_path, network, judge, i["now"]) as rig:
                return await RUNS[key](i, rig)

        output = trio.run(main)
        codes.append(output.pop("code", None))
        return output

    found = call(replace(FUNCTIONS[key], run=run), case["input"])
    assert codes == [case.get("code")]
    if case["result"] == "valid" or "code" not in case:
        assert found == Outcome(case["result"], case.get("output"), None)


# --- Random trees, in any order, with restarts ---

KINDS = ("block",) * 9 + ("header", "restart", "prune", "look")
PEERS = (b"a", b"b")
Step = tuple[str, int, bytes]
steps = st.tuples(st.sampled_from(KINDS), st.integers(0, len(make_forest()) - 1), st.sampled_from(PEERS))


class Pair:
    """A rig and a store of the page that see the same events; the page computes every state from its parent's."""

    def __init__(self, rig: Rig, seen: Counter[str]) -> None:
        self.rig, self.seen = rig, seen
        self.page = page.make_store(rig.judge, rig.now)
        self.bodies: set[Hash32] = set()
        self.changes: list[HeadChange] = []
        rig.importer.on_head.append(self.changes.append)

    async def play(self, step: Step) -> None:
        kind, number, peer = step
        before = page.get_head(self.page)
        self.changes.clear()
        if kind in ("block", "header"):
            await getattr(self, f"play_{kind}")(make_forest()[number], peer)
        elif kind == "prune":
            self.prune(number % 5)
        elif kind == "look":
            assert self.rig.chain.state == self.page.kept[before].state
        else:
            self.restart()
        self.compare(before)

    async def play_block(self, made: Made, peer: bytes) -> None:
        self.page, error = page.receive_block(self.page, made.block, peer, self.rig.judge)
        known = made.hash in self.bodies
        code = await get_code(self.rig, made.data, peer)
        assert code == (error and error.code)
        if error is None and not known:
            self.bodies.add(made.hash)
        self.seen[code or ("again" if known else "counted")] += 1

    async def play_header(self, made: Made, peer: bytes) -> None:
        self.page, error = page.receive_header(self.page, made.block.header, peer, self.rig.judge)
        code = await play(self.rig, ("header", {"block": 0, "peer": peer.decode()}), (made.block,))
        assert code == (error and error.code)

    def prune(self, depth: int) -> None:
        below = self.rig.chain.head.height - depth
        heights = {h: kept.header.core.height for h, kept in self.page.kept.items()}
        dropped = {h for h in self.bodies if self.rig.store.has_body(h) and heights[h] < below}
        assert self.rig.chain.prune(depth) == len(dropped)
        assert not any(self.rig.store.has_body(h) for h in dropped)
        self.seen["pruned"] += bool(dropped)

    def restart(self) -> None:
        """Open the store again: what waits, orphans and invalid hashes are forgotten."""
        folder = self.rig.store.path.parent
        self.rig.store.close()
        self.rig.store = Database.create_or_open(folder, make_easy_network(), "mini")
        rig = make_rig(self.rig.store, self.rig.judge, self.rig.now)
        rig.importer.verifier = self.rig.importer.verifier
        self.rig.importer = rig.importer
        rig.importer.on_head.append(self.changes.append)
        kept = {h: replace(kept, peer=b"") for h, kept in self.page.kept.items() if kept.state is not None}
        self.page = page.Store(self.page.now, kept)
        self.seen["restarted"] += len(kept) > 3

    def compare(self, before: Hash32) -> None:
        head, chain, store = page.get_head(self.page), self.rig.chain, self.rig.store
        assert chain.head.hash == head
        check_store(self.rig)
        assert store.read_state() == self.page.kept[head].state
        replayed = {h for h, kept in self.page.kept.items() if kept.state is not None}
        assert {stored.block_hash for stored in store.read_headers()} | {chain.tree.genesis.hash} == replayed
        for block_hash in replayed - {chain.tree.genesis.hash}:
            self.compare_block(block_hash)
        missing = [h for h, row in enumerate(store.read_chain(), 1) if row.body is None]
        assert chain.get_bodies_from() == max(missing, default=0) + 1
        self.compare_change(before, head)

    def compare_block(self, block_hash: Hash32) -> None:
        """Compare the stored block, and its undo record with the states around it, unless they are pruned."""
        store, kept = self.rig.store, self.page.kept[block_hash]
        changes, data = store.read_changes(block_hash), store.read_block(block_hash)
        assert (changes is None) == (data is None) == (not store.has_body(block_hash))
        if changes is None or data is None:
            return
        parent = self.page.kept[kept.header.core.parent_hash].state
        assert parent is not None
        assert kept.state is not None
        assert {a: (old, new) for a, old, new in changes} == list_differences(parent, kept.state)
        assert decode(Block, data).header == kept.header

    def compare_change(self, before: Hash32, head: Hash32) -> None:
        if before == head:
            assert not self.changes
            return
        (change,) = self.changes
        chains = [page.get_chain(self.page, block_hash) for block_hash in (before, head)]
        shared = sum(a == b for a, b in zip(*chains, strict=False))
        assert (change.old.hash, change.new.hash) == (before, head)
        assert (change.fork.height, change.depth) == (shared - 1, len(chains[0]) - shared)
        self.seen[f"depth {min(change.depth, 2)}"] += 1


def list_differences(a: State, b: State) -> dict[bytes, Any]:
    return {address: (a.get(address), b.get(address)) for address in {**a, **b} if a.get(address) != b.get(address)}


async def play_all(events: list[Step], seen: Counter[str], folder: str) -> None:
    async with running(Path(folder)) as rig:
        pair = Pair(rig, seen)
        for event in events:
            await pair.play(event)
        assert rig.chain.state == pair.page.kept[rig.chain.head.hash].state
        rig.store.close()


def run_steps(events: list[Step], seen: Counter[str]) -> None:
    """Play events in the page's order of rules: `MAX_WAY` puts `state/root` last for blocks that lie far away."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain_module, "MAX_WAY", len(make_forest()))
        trio.run(play_all, events, seen, folder)


@settings(max_examples=15, deadline=None)
@given(st.lists(steps, max_size=30))
def test_any_events_give_the_pages_store(events: list[Step]) -> None:
    run_steps(events, Counter())


def draw_steps(draw: random.Random) -> list[Step]:
    """Return every block twice, mostly behind its parent, and other events in between."""
    blocks = range(len(make_forest()))
    order = [number for _ in range(2) for number in sorted(blocks, key=lambda n: n + draw.uniform(0, 3))]
    return [
        (kind, number, draw.choice(PEERS))
        for number in order
        for kind in ("block", *([draw.choice(KINDS)] if draw.random() < 0.2 else []))
    ]


def test_long_runs_meet_every_case() -> None:
    """Longer, in an order that lets branches grow; and the guard of both: each case does occur."""
    seen = Counter[str]()
    for seed in range(4):
        run_steps(draw_steps(random.Random(seed)), seen)
    codes = {"work/trace", "work/loss", "work/trace-digest", "work/trace-length", "state/root"}
    codes |= {"fork-choice/" + name for name in ("lighter", "known-invalid", "invalid-ancestor", "unknown-parent")}
    cases = {"counted", "again", "restarted", "pruned", "depth 0", "depth 1", "depth 2"}
    assert not [name for name in codes | cases if not seen[name]], seen


# --- Single cases ---


async def import_all(rig: Rig, blocks: Iterable[Made]) -> list[str | None]:
    return [await get_code(rig, made.data) for made in blocks]


def test_pruning_drops_bodies_and_keeps_headers(tmp_path: Path) -> None:
    line = grow_line(make_root(), 9)
    side = grow(line[0], miner=MINERS[1])

    async def main() -> None:
        async with running(tmp_path) as rig:
            await import_all(rig, [line[0], line[1], side, *line[2:]])
            assert rig.chain.get_bodies_from() == 1
            assert rig.chain.prune(9) == 0  # no block is so deep
            assert rig.chain.prune(4) == 4 + (1 if rig.chain.tree.entries[side.hash].replayed else 0)
            assert rig.chain.prune(4) == 0
            assert rig.chain.get_bodies_from() == 5
            assert [rig.chain.has_body(rig.chain.tree.get_main(height)) for height in range(10)] == (
                [True] + 4 * [False] + 5 * [True]
            )
            assert [row.header for row in rig.store.read_chain()] == [made.data[:216] for made in line]
        async with running(tmp_path) as rig:
            assert (rig.chain.head.hash, rig.chain.get_bodies_from()) == (line[-1].hash, 5)
            assert rig.chain.get_block_data(rig.chain.tree.get_main(4)) is None
            assert rig.chain.get_block_data(rig.chain.tree.get_main(5)) == line[4].data

    trio.run(main)


def test_much_is_pruned_in_parts_the_lowest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = grow_line(make_root(), 9)

    async def main() -> None:
        async with running(tmp_path) as rig:
            await import_all(rig, line)
            monkeypatch.setattr(store_module, "MAX_PRUNED", 3)
            found = [(rig.chain.prune(1), rig.chain.get_bodies_from()) for _ in range(4)]
            assert found == [(3, 4), (3, 7), (1, 8), (0, 8)]

    trio.run(main)


def test_a_reorganisation_below_the_prune_horizon(tmp_path: Path) -> None:
    """The accounts are found from the headers, and the bodies of the new chain are there from the fork on."""
    line = grow_line(make_root(), 6)
    rival = grow_line(line[0], 7, miner=MINERS[1])

    async def main() -> None:
        async with running(tmp_path) as rig:
            await import_all(rig, line)
            assert rig.chain.prune(1) == 4
            rig.receive_headers(rival)
            assert await import_all(rig, rival) == [None] * 7
            assert rig.chain.head.hash == rival[-1].hash
            assert rig.store.read_state() == rig.chain.state == rival[-1].state
            assert rig.chain.get_bodies_from() == 2
            check_store(rig)

    trio.run(main)


def test_a_light_block_far_from_the_head_costs_no_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the head a false state root is found first, as the page says; farther away the block is only put off."""
    monkeypatch.setattr(chain_module, "MAX_WAY", 3)
    line = grow_line(make_root(), 6)
    near, far = (grow(line[height - 1], state={MINERS[0]: Account(balance=1)}) for height in (3, 2))

    async def main() -> None:
        async with running(tmp_path) as rig:
            await import_all(rig, line)
            reads = list[Hash32]()
            monkeypatch.setattr(rig.chain.accounts, "_get_changes", reads.append)
            assert await get_code(rig, far.data) == "fork-choice/lighter"
            assert (reads, far.hash in rig.chain.tree.entries) == ([], True)
            monkeypatch.undo()
            monkeypatch.setattr(chain_module, "MAX_WAY", 3)
            assert await get_code(rig, near.data) == "state/root"
            assert near.hash in rig.chain.tree.invalid
            monkeypatch.setattr(chain_module, "MAX_WAY", 4)
            assert await get_code(rig, far.data) == "state/root"

    trio.run(main)


def test_forged_work_moves_the_accounts_a_few_blocks_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Light or heavy: far from the head they are looked for behind a true replay, and then a false state is found."""
    line = grow_line(make_root(), 12)
    light = [grow(line[height - 1], alteration=BACKWARDS, miner=MINERS[1]) for height in (3, 9)]
    forged = grow(line[1], alteration=BACKWARDS)
    false_state = grow(line[1], state={MINERS[0]: Account(balance=1)})

    async def main() -> None:
        async with running(tmp_path) as rig:
            await import_all(rig, line)
            steps, move_to = list[int](), rig.chain.accounts.move_to

            def count(target: Entry) -> object:
                at = rig.chain.accounts.at
                steps.append(at.height + target.height - 2 * find_fork(at, target).height)
                return move_to(target)

            monkeypatch.setattr(rig.chain.accounts, "move_to", count)
            for _ in range(3):
                assert [await get_code(rig, made.data) for made in light] == ["fork-choice/lighter"] * 2
            assert sum(steps) <= chain_module.MAX_WAY
            rig.receive_headers([forged, *grow_line(forged, 12)])
            assert await get_code(rig, forged.data) == "work/trace"
            assert sum(steps) <= chain_module.MAX_WAY
            rig.receive_headers([false_state, *grow_line(false_state, 12)])
            assert await get_code(rig, false_state.data) == "state/root"
            assert false_state.hash in rig.chain.tree.invalid
            quiz = get_quiz(
                false_state.block.header.core,
                false_state.chain[:-1],
                rig.chain.tree.get_rules(0),
                rig.judge.models[0].questions,
            )
            assert rig.asked[-1] == tuple(quiz.tokens)
            assert rig.chain.state == line[-1].state

    trio.run(main)


def test_what_was_assumed_is_remembered_over_a_restart(tmp_path: Path) -> None:
    line = grow_line(make_root(), 3)

    async def main() -> None:
        async with running(tmp_path) as rig:
            for made in line[:2]:
                checked = rig.chain.check_block(made.block, made.data, b"peer")
                assert checked is not None
                rig.importer.accept(checked, None)
            assert await get_code(rig, line[2].data) is None
            assert len(rig.asked) == 1
        async with running(tmp_path) as rig:
            assert rig.chain.assumed == {made.hash: made.block.header.core.height for made in line[:2]}
            assert rig.chain.head.hash == line[2].hash

    trio.run(main)


def test_a_block_assumed_during_its_replay_stays(tmp_path: Path) -> None:
    """`--assume-valid` named a false block, and a peer has sent it meanwhile: its user wanted it."""
    made = grow(make_root(), alteration=BACKWARDS)

    async def main() -> None:
        async with running(tmp_path) as rig:
            checked = rig.chain.check_block(made.block, made.data, b"peer")
            again = rig.chain.check_block(made.block, made.data, b"peer")
            assert checked is not None
            assert again is not None
            rig.importer.accept(again, None)
            rig.chain.refuse(checked, Invalid("work/trace"))
            assert rig.chain.head.hash == made.hash
            assert rig.chain.accept(checked) is None
            check_store(rig)

    trio.run(main)


def test_a_damaged_undo_record_ends_the_node_and_blames_nobody(tmp_path: Path) -> None:
    line = grow_line(make_root(), 3)
    rival = grow(line[1], miner=MINERS[1])

    async def main() -> None:
        async with running(tmp_path) as rig:
            await import_all(rig, line)
        changes = encode_changes(((MINERS[0], Account(balance=7), line[2].state[MINERS[0]]),))
        run_sql(tmp_path, "UPDATE bodies SET changes = ? WHERE height = 3", changes)
        async with running(tmp_path) as rig:
            with pytest.raises(NodeError, match="undo record on the way to block 2 is damaged: restore a copy"):
                await get_code(rig, rival.data)
            assert not rig.chain.tree.invalid

    trio.run(main)
