"""The accounts of any block of a tree: equal to the page's, with undo records or without."""

from collections.abc import Iterable, Mapping
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poai_spec.basics.notation import Hash32, Invalid
from poai_spec.execution.state import Account, State, check_state_root, compute_state_root
from poaid.chain.tree import BlockTree, Entry
from poaid.errors import NodeError
from poaid.state import accounts as accounts_module
from poaid.state.accounts import Accounts
from poaid.store.database import Changes
from tests.harness.importing import MINERS, Made, grow, grow_line, make_easy_network, make_forest, make_root


@cache
def make_true_blocks() -> tuple[Made, ...]:
    """Return genesis and the blocks of the forest that tell the right state root, as their ancestors do."""
    sound = [make_root()]
    for made in make_forest():
        core = made.block.header.core
        if core.parent_hash in {other.hash for other in sound} and core.state_root == compute_state_root(made.state):
            sound.append(made)
    return tuple(sound)


def make_tree(blocks: Iterable[Made]) -> tuple[BlockTree, list[Entry]]:
    tree = BlockTree(make_easy_network().config, 0)
    return tree, [tree.genesis, *(tree.add_stored(made.data[:216]) for made in blocks if made.block.header.core.height)]


@cache
def make_records() -> Mapping[Hash32, Changes]:
    """Return what each block changes, found by walking the tree from block to block."""
    _, entries = make_tree(make_true_blocks())
    records: dict[Hash32, Changes] = {}
    accounts = Accounts({}, entries[0], records.get)
    for entry in entries[1:]:
        assert entry.parent is not None
        accounts.move_to(entry.parent)
        records[entry.hash] = accounts.compute_changes(entry.header)
    return records


def list_differences(a: State, b: State) -> dict[bytes, Account | None]:
    return {address: b.get(address) for address in {**a, **b} if a.get(address) != b.get(address)}


places = st.integers(0, len(make_true_blocks()) - 1)


@settings(max_examples=80, deadline=None)
@given(st.lists(places, max_size=12), st.sets(places))
def test_a_move_between_any_two_blocks_gives_the_pages_state(moves: list[int], pruned: set[int]) -> None:
    blocks = make_true_blocks()
    _, entries = make_tree(blocks)
    left = {blocks[n].hash: make_records().get(blocks[n].hash) for n in range(len(blocks)) if n not in pruned}
    accounts, at = Accounts({}, entries[0], left.get), 0
    for number in moves:
        touched = accounts.move_to(entries[number])
        assert accounts.at is entries[number]
        assert accounts.state == blocks[number].state
        assert accounts.root == compute_state_root(blocks[number].state)
        assert touched.items() >= list_differences(blocks[at].state, blocks[number].state).items()
        assert all(account == accounts.state.get(address) for address, account in touched.items())
        at = number


def test_the_forest_has_what_the_test_above_needs() -> None:
    assert len(make_true_blocks()) > 40
    assert len({made.block.header.core.parent_hash for made in make_true_blocks()}) < len(make_true_blocks()) - 5
    new = [changes for changes in make_records().values() if changes[0][1] is None]
    assert len(new) >= len(MINERS)  # accounts that a way back has to remove


def test_changes_are_those_of_the_page_and_nothing_moves() -> None:
    blocks = make_true_blocks()
    states = {made.hash: made.state for made in blocks}
    for made in blocks[1:]:
        before = states[made.block.header.core.parent_hash]
        found = {address: (old, new) for address, old, new in make_records()[made.hash]}
        differences = list_differences(before, made.state)
        assert found == {address: (before.get(address), new) for address, new in differences.items()}
    _, entries = make_tree(blocks)
    accounts = Accounts({}, entries[0], make_records().get)
    accounts.compute_changes(blocks[1].block.header)
    assert (accounts.state, accounts.root) == ({}, compute_state_root({}))


def test_a_false_root_is_refused_in_the_pages_words() -> None:
    line = grow_line(make_root(), 2)
    false = grow(line[1], state={MINERS[1]: Account(balance=1)})
    _, entries = make_tree(line)
    accounts = Accounts(line[1].state, entries[2], lambda _: None)
    with pytest.raises(Invalid) as expected:
        check_state_root(false.state, false.block.header.core)
    with pytest.raises(Invalid) as found:
        accounts.compute_changes(false.block.header)
    assert (found.value.code, found.value.detail) == (expected.value.code, expected.value.detail)
    assert (accounts.state, accounts.root) == (line[1].state, compute_state_root(line[1].state))


def test_recent_records_are_in_memory_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "MAX_RECENT", 3)
    line = grow_line(make_root(), 6)
    _, entries = make_tree(line)
    asked = list[Hash32]()

    def read(block_hash: Hash32) -> Changes | None:
        asked.append(block_hash)
        return make_line_records[block_hash]

    make_line_records: dict[Hash32, Changes] = {}
    accounts = Accounts({}, entries[0], read)
    for entry in entries[1:]:
        make_line_records[entry.hash] = accounts.compute_changes(entry.header)
        accounts.remember(entry.hash, make_line_records[entry.hash])
        accounts.move_to(entry)
    assert asked == []
    accounts.move_to(entries[3])
    assert asked == []
    accounts.move_to(entries[1])
    assert asked == [entries[3].hash, entries[2].hash]


def test_a_remembered_block_without_changes_is_not_looked_for() -> None:
    """Blocks without a subsidy, some day, change nothing."""
    tree, entries = make_tree([])
    bare = tree._attach(b"\1" * 32, tree.genesis.data, tree.genesis, tree.genesis.header, b"")
    accounts = Accounts({}, entries[0], lambda _: pytest.fail("it is in memory"))
    accounts.remember(bare.hash, ())
    assert accounts.move_to(bare) == {}
    assert accounts.at is bare


def test_a_damaged_record_is_noticed() -> None:
    blocks = make_true_blocks()
    _, entries = make_tree(blocks)
    last = len(blocks) - 1
    damaged = {h: tuple((a, old, Account(balance=1)) for a, old, _ in rows) for h, rows in make_records().items()}
    accounts = Accounts({}, entries[0], damaged.get)
    with pytest.raises(NodeError, match=f"on the way to block {entries[last].height} is damaged: restore a copy"):
        accounts.move_to(entries[last])
