"""Chain, importer and store together: the conformance vectors, and random trees in any order against the page."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import poai_spec.fork_choice as page
import poai_tools.vectors.suites  # noqa: F401  (fills the table of functions)
from poai_spec.block import Judge
from poai_spec.containers import Block
from poai_spec.encoding import decode, encode
from poai_spec.notation import Hash32, Invalid, NotYet, SpecError
from poai_spec.state import State, compute_state_root
from poai_tools.vectors.engines import get_judge
from poai_tools.vectors.network import LEXICON
from poai_tools.vectors.records import list_accounts
from poai_tools.vectors.registry import FUNCTIONS, Outcome, call
from poaid import chain as chain_module
from poaid.chain import HeadChange
from poaid.errors import NodeError
from poaid.importer import Sender
from poaid.networks import Network
from poaid.store import Store
from poaid.tree import Hashes
from tests.node.importing import (
    MINERS,
    Made,
    Rig,
    grow,
    grow_line,
    make_easy_judge,
    make_easy_network,
    make_forest,
    make_rig,
    make_root,
    running,
)

VECTORS = Path(__file__).parents[2] / "test_vectors"
START = make_easy_network().config.genesis_timestamp
LATER = START + 10**9


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
            network = Network("vectors", i["config"], judge.questions, LEXICON)
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
        self.rig.store = Store.create_or_open(folder, make_easy_network(), "mini")
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
    return {address: (a.get(address), b.get(address)) for address in a | b if a.get(address) != b.get(address)}


async def play_all(events: list[Step], seen: Counter[str], folder: str) -> None:
    async with running(Path(folder)) as rig:
        pair = Pair(rig, seen)
        for event in events:
            await pair.play(event)
        assert rig.chain.state == pair.page.kept[rig.chain.head.hash].state
        rig.store.close()


def run_steps(events: list[Step], seen: Counter[str]) -> None:
    with TemporaryDirectory() as folder:
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
    for seed in range(5):
        run_steps(draw_steps(random.Random(seed)), seen)
    codes = {"work/trace", "work/loss", "work/trace-digest", "work/trace-length", "state/root"}
    codes |= {"fork-choice/" + name for name in ("lighter", "known-invalid", "invalid-ancestor", "unknown-parent")}
    cases = {"counted", "again", "restarted", "pruned", "depth 0", "depth 1", "depth 2"}
    assert not [name for name in codes | cases if seen[name] < 3], seen
