"""Fork choice: the head is a function of the set of blocks; handlers that fail change nothing; limits hold."""

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import poai_spec.chain.fork_choice
from poai_spec.chain.block import process_block, replay_block
from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.chain.fork_choice import (
    Store,
    compute_claimed_work,
    get_best_tips,
    get_chain,
    get_head,
    make_store,
    on_block,
    on_header,
    on_invalid,
    on_tick,
    receive_block,
    receive_header,
)
from poai_spec.model.loss import compute_trace_digest
from poai_spec.basics.notation import Hash32, Invalid, NotYet, SpecError, keccak256
from tests.harness.spec import Branch, complete, forge, get_config, get_judge, make_core

START = get_config().genesis_timestamp
NOW = START + 100_000


def hash_of(block: Block) -> Hash32:
    return compute_block_hash(block.header)


@cache
def get_tree() -> tuple[Block, ...]:
    """Return true blocks of many branches: fast and slow ones (so targets differ), ties, forks of forks."""
    blocks: dict[Hash32, Block] = {}
    main = Branch.start()
    for n in range(8):
        main.grow(START + 1000 * (n + 1))
    branches = [main]
    shapes = [(0, 1, 300, 8), (0, 4, 2500, 5), (0, 3, 700, 5), (1, 6, 200, 3), (0, 7, 1000, 1), (2, 5, 100, 4)]
    for parent, height, spacing, length in shapes:
        branch = branches[parent].fork(height)
        for n in range(length):
            stamp = branch.chain[-1].core.timestamp + spacing
            branch.grow(stamp, miner=bytes([len(branches), n]).rjust(20))
        branches.append(branch)
    for miner in (b"a", b"b", b"c"):
        sibling = main.fork(7)
        sibling.grow(START + 8000, miner=miner.rjust(20))
        branches.append(sibling)
    for branch in branches:
        blocks |= {hash_of(block): block for block in branch.blocks[1:]}
    return tuple(blocks.values())


@cache
def get_false_blocks() -> tuple[Block, ...]:
    """Return a branch that claims the most work: its first block is forged, the rest stands on it."""
    branch, blocks = Branch.start().fork(0), []
    for n in range(14):
        core = make_core(branch.chain, branch.state, START + 200 * (n + 1), miner=b"forger".rjust(20))
        block = complete(core, branch.chain)
        trace = (bytes(32), *block.trace[1:])
        block = Block(replace(block.header, trace_digest=compute_trace_digest(trace)), block.body, trace)
        block = forge(block, branch.chain)
        branch.chain.append(block.header)
        blocks.append(block)
        branch.state = process_block(branch.state, block)
    return tuple(blocks)


def model_head(blocks: Iterable[Block]) -> Hash32:
    """Find the head by brute force: no store, no handlers, nothing of the page but the encodings."""
    parents = {hash_of(block): block.header.core.parent_hash for block in blocks}
    targets = {hash_of(block): block.header.core.target for block in blocks}
    genesis = next(iter(make_store(get_judge(), NOW).kept))

    def work(tip: Hash32) -> int:
        total = 0
        while tip in parents:
            total += 2**256 // (targets[tip] + 1)
            tip = parents[tip]
        return total if tip == genesis else -1

    works = {tip: work(tip) for tip in [genesis, *parents]}
    tips = sorted(tip for tip in works if works[tip] == max(works.values()))
    tag = keccak256(b"PoAI/tie/1")
    return sorted((keccak256(tag + b"".join(tips) + tip), tip) for tip in tips)[0][1]


def deliver(store: Store, blocks: Iterable[Block]) -> Store:
    for block in blocks:
        store, _ = receive_block(store, block, b"peer", get_judge())
    return store


def settle(store: Store, blocks: Iterable[Block]) -> Store:
    """Deliver blocks until nothing changes, as a node does that asks again for what was not yet acceptable."""
    while (after := deliver(store, blocks)) != store:
        store = after
    return store


@cache
def replay(block: Block, chain: tuple[Header, ...]) -> SpecError | None:
    """Replay once for all tests; `on_block` still asks for every replay."""
    try:
        replay_block(block, chain, get_judge())
    except SpecError as error:
        return error
    return None


@pytest.fixture(autouse=True)
def _remember_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    def remembered(block: Block, chain: tuple[Header, ...], *judge: object) -> None:
        if error := replay(block, chain):
            raise error

    monkeypatch.setattr(poai_spec.chain.fork_choice, "replay_block", remembered)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_head_is_that_of_the_model_whatever_the_order(data: st.DataObject) -> None:
    tree = get_tree()
    missing = data.draw(st.sets(st.sampled_from(range(len(tree))), max_size=len(tree) // 2))
    subset = [block for n, block in enumerate(tree) if n not in missing or block.header.core.height <= len(missing) % 4]
    false = data.draw(st.lists(st.sampled_from(get_false_blocks()), unique_by=hash_of))
    heads = set()
    for _ in range(2):
        order = data.draw(st.permutations(subset + subset[:3] + false))
        store = settle(make_store(get_judge(), NOW), order)
        heads.add(get_head(store))
        assert not {hash_of(block) for block in false} & {h for h, kept in store.kept.items() if kept.state is not None}
    assert heads == {model_head(subset)}


def test_a_failed_handler_leaves_the_store_as_it_was() -> None:
    store, failures = make_store(get_judge(), NOW), Counter[str]()
    for block in [*reversed(get_tree()), *get_false_blocks(), *get_tree(), *get_false_blocks()]:
        before = deepcopy(store)
        try:
            on_block(store, block, b"peer", get_judge())
        except SpecError as error:
            failures[error.code] += 1
        assert store == before
        store, _ = receive_block(store, block, b"peer", get_judge())
    assert len(failures) >= 5, failures


def test_the_whole_tree_has_ties_and_different_targets() -> None:
    """Guard of the test above: the pool has what it claims to have."""
    store = settle(make_store(get_judge(), NOW), get_tree())
    assert len({block.header.core.target for block in get_tree()}) > 3
    assert max(Counter(kept.header.core.height for kept in store.kept.values()).values()) >= 4
    assert len({h for h, kept in store.kept.items() if kept.state is not None}) > 15
    assert get_head(store) == model_head(get_tree())


def make_siblings(count: int) -> list[Block]:
    branches = [Branch.start() for _ in range(count)]
    return [branch.grow(START + 1000, miner=bytes([n]).rjust(20, b"s")) for n, branch in enumerate(branches)]


def test_a_tie_depends_on_the_set_alone() -> None:
    siblings = make_siblings(4)
    winners = set()
    for turn in range(4):
        store = deliver(make_store(get_judge(), NOW), siblings[turn:] + siblings[:turn])
        assert get_best_tips(store) == sorted(map(hash_of, siblings))
        winners.add(get_head(store))
    assert winners == {model_head(siblings)}


def test_another_tied_tip_can_change_the_winner_among_the_old_ones() -> None:
    """Nobody can know that a withheld block will win: that depends on the others."""
    siblings = make_siblings(12)
    pairs = {(a, b): model_head([siblings[a], siblings[b]]) for a in range(12) for b in range(a)}
    for (a, b), winner in pairs.items():
        store = deliver(make_store(get_judge(), NOW), [siblings[a], siblings[b]])
        assert get_head(store) == winner
    smallest = {min(hash_of(siblings[a]), hash_of(siblings[b])) == winner for (a, b), winner in pairs.items()}
    assert smallest == {True, False}, "the smaller hash alone does not decide"


def test_a_lighter_branch_is_kept_as_headers_until_it_is_not_lighter() -> None:
    main, rival = Branch.start(), Branch.start()
    main.grow(START + 1000)
    main.grow(START + 2000)
    for n in range(3):
        rival.grow(START + 900 * (n + 1), miner=b"rival".rjust(20))
    store = deliver(make_store(get_judge(), NOW), main.blocks[1:])
    first, second, third = rival.blocks[1:]
    with pytest.raises(NotYet) as error:
        on_block(store, first, b"peer", get_judge())
    assert error.value.code == "fork-choice/lighter"
    store, _ = receive_block(store, first, b"peer", get_judge())
    assert store.kept[hash_of(first)].state is None
    with pytest.raises(NotYet) as error:
        on_block(store, second, b"peer", get_judge())
    assert error.value.code == "fork-choice/parent-not-replayed"
    store = on_header(store, second.header, b"peer", get_judge())
    assert compute_claimed_work(store, hash_of(first)) == store.kept[get_head(store)].work
    store = on_block(store, first, b"peer", get_judge())
    store = on_block(store, second, b"peer", get_judge())
    assert get_best_tips(store) == sorted([hash_of(second), hash_of(main.blocks[2])])
    store = on_block(store, third, b"peer", get_judge())
    assert get_head(store) == hash_of(third)
    assert store.kept[hash_of(third)].state == rival.state


def test_claimed_work_alone_never_moves_the_head() -> None:
    store, false = make_store(get_judge(), NOW), get_false_blocks()
    genesis = get_head(store)
    for block in false:
        store = on_header(store, block.header, b"forger", get_judge())
    assert compute_claimed_work(store, hash_of(false[0])) > 30
    assert get_head(store) == genesis
    store, error = receive_block(store, false[0], b"forger", get_judge())
    assert isinstance(error, Invalid)
    assert error.code == "work/trace"
    assert set(store.kept) == {genesis}, "what stands on an invalid block goes with it"
    assert set(store.invalid) == {hash_of(block) for block in false}


def test_a_block_on_an_invalid_one_is_refused_even_when_it_was_never_seen() -> None:
    false = get_false_blocks()
    store, _ = receive_block(make_store(get_judge(), NOW), false[0], b"forger", get_judge())
    with pytest.raises(Invalid) as error:
        on_block(store, false[1], b"peer", get_judge())
    assert error.value.code == "fork-choice/invalid-ancestor"
    store, _ = receive_block(store, false[1], b"peer", get_judge())
    with pytest.raises(Invalid) as error:
        on_header(store, false[2].header, b"peer", get_judge())
    assert error.value.code == "fork-choice/invalid-ancestor"
    with pytest.raises(Invalid) as error:
        on_header(store, false[1].header, b"peer", get_judge())
    assert error.value.code == "fork-choice/known-invalid"


def test_orphans_are_checked_when_their_parent_comes() -> None:
    blocks = get_tree()[:5]
    store = make_store(get_judge(), NOW)
    for n, block in enumerate(reversed(blocks[1:])):
        with pytest.raises(NotYet) as error:
            on_block(store, block, bytes([n]), get_judge())
        assert error.value.code == "fork-choice/unknown-parent"
        store, _ = receive_block(store, block, bytes([n]), get_judge())
    assert set(store.orphans) == {hash_of(block) for block in blocks[1:]}
    assert len(store.kept) == 1
    store = on_header(store, blocks[0].header, b"peer", get_judge())
    assert store.orphans == {}
    assert len(store.kept) == 6
    assert [header.core.height for header in get_chain(store, hash_of(blocks[4]))] == [0, 1, 2, 3, 4, 5]


def test_an_orphan_that_turns_out_invalid_is_remembered_and_one_from_the_future_dropped() -> None:
    good, child = get_tree()[:2]
    bad = replace(child.header, core=replace(child.header.core, height=7))
    store = make_store(get_judge(), NOW)
    chain = (*get_chain(store, good.header.core.parent_hash), good.header)
    early_core = make_core(chain, {}, NOW + 401)
    early = forge(Block(Header(early_core, 0, bytes(32)), child.body, ()), chain).header
    for peer, header in ((b"1", bad), (b"2", early), (b"3", child.header)):
        store = on_header(store, header, peer, get_judge())
    assert len(store.orphans) == 3
    store = on_header(store, good.header, b"4", get_judge())
    assert store.orphans == {}
    assert set(store.invalid) == {compute_block_hash(bad)}
    assert hash_of(child) in store.kept
    assert compute_block_hash(early) not in store.kept
    with pytest.raises(NotYet) as error:
        on_header(store, early, b"2", get_judge())
    assert error.value.code == "header/future"
    store = on_header(on_tick(store, NOW + 1), early, b"2", get_judge())
    assert compute_block_hash(early) in store.kept


def make_stray(n: int) -> Header:
    header = get_tree()[0].header
    return replace(header, core=replace(header.core, parent_hash=bytes(31) + b"\x01", nonce=n))


def test_a_peer_has_four_orphans_and_loses_its_oldest() -> None:
    store = make_store(get_judge(), NOW)
    for n in range(6):
        store = on_header(store, make_stray(n), b"greedy", get_judge())
    assert [orphan.header.core.nonce for orphan in store.orphans.values()] == [2, 3, 4, 5]
    assert on_header(store, make_stray(3), b"greedy", get_judge()) == store
    assert on_header(store, make_stray(3), b"other", get_judge()) == store, "a known orphan counts once"


def test_orphans_are_bounded_and_the_heaviest_user_loses_first() -> None:
    store = make_store(get_judge(), NOW)
    for n in range(poai_spec.chain.fork_choice.MAX_ORPHANS - 3):
        store = on_header(store, make_stray(n), n.to_bytes(2, "big"), get_judge())
    for n in range(300, 303):
        store = on_header(store, make_stray(n), b"greedy", get_judge())
    full = store
    assert len(full.orphans) == poai_spec.chain.fork_choice.MAX_ORPHANS
    store = on_header(full, make_stray(400), b"modest", get_judge())
    assert len(store.orphans) == poai_spec.chain.fork_choice.MAX_ORPHANS
    lost = set(full.orphans) - set(store.orphans)
    assert [full.orphans[h].header.core.nonce for h in lost] == [300]


def test_a_peer_may_not_fill_the_store_with_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poai_spec.chain.fork_choice, "MAX_WAITING_PER_PEER", 3)
    store, tree = make_store(get_judge(), NOW), get_tree()
    for block in tree[:3]:
        store = on_header(store, block.header, b"peer", get_judge())
    with pytest.raises(NotYet) as error:
        on_header(store, tree[3].header, b"peer", get_judge())
    assert error.value.code == "fork-choice/too-many-headers"
    store = on_header(store, tree[3].header, b"another", get_judge())
    store = settle(store, tree[:1])
    assert on_header(store, tree[4].header, b"peer", get_judge()) != store, "a replay makes room"


def test_a_full_store_takes_room_from_the_heaviest_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poai_spec.chain.fork_choice, "MAX_WAITING", 6)
    store, false, tree = make_store(get_judge(), NOW), get_false_blocks(), get_tree()
    for block in false[:5]:
        store = on_header(store, block.header, b"greedy", get_judge())
    store = on_header(store, tree[0].header, b"modest", get_judge())
    store = on_header(store, tree[1].header, b"modest", get_judge())
    assert hash_of(false[4]) not in store.kept, "the end of the heaviest user's branch goes first"
    assert len(store.kept) == 7
    store = on_header(store, tree[2].header, b"modest", get_judge())
    with pytest.raises(NotYet) as error:
        on_header(store, tree[3].header, b"modest", get_judge())
    assert error.value.code == "fork-choice/too-many-headers"
    with pytest.raises(NotYet):
        on_header(store, false[3].header, b"greedy", get_judge())
    assert {hash_of(block) for block in tree[:3]} < set(store.kept)


def test_a_header_never_pushes_out_its_own_ancestors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poai_spec.chain.fork_choice, "MAX_WAITING", 3)
    store, tree = make_store(get_judge(), NOW), get_tree()
    for block in tree[:3]:
        store = on_header(store, block.header, b"greedy", get_judge())
    with pytest.raises(NotYet) as error:
        on_header(store, tree[3].header, b"modest", get_judge())
    assert error.value.code == "fork-choice/too-many-headers"


def test_invalid_hashes_are_bounded_and_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poai_spec.chain.fork_choice, "MAX_INVALID", 3)
    store = make_store(get_judge(), NOW)
    for n in range(5):
        store = on_invalid(store, bytes([n]) * 32)
    assert list(store.invalid) == [bytes([n]) * 32 for n in (2, 3, 4)]


def test_what_is_known_changes_nothing_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = settle(make_store(get_judge(), NOW), get_tree()[:4])
    monkeypatch.delattr(poai_spec.chain.fork_choice, "replay_block")
    for block in get_tree()[:4]:
        assert on_block(store, block, b"another", get_judge()) == store
        assert receive_header(store, block.header, b"another", get_judge()) == (store, None)


def test_the_tick_sets_the_clock_and_nothing_else() -> None:
    store = make_store(get_judge(), NOW)
    assert on_tick(store, NOW + 5) == replace(store, now=NOW + 5)


def test_no_replay_is_asked_for_before_every_other_check_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("replayed too early")

    monkeypatch.setattr(poai_spec.chain.fork_choice, "replay_block", refuse)
    store, block = make_store(get_judge(), NOW), get_tree()[0]
    wrong_root = replace(block.header, core=replace(block.header.core, state_root=bytes(32)))
    wrong = forge(replace(block, header=wrong_root), get_chain(store, get_head(store)))
    with pytest.raises(Invalid) as error:
        on_block(store, wrong, b"peer", get_judge())
    assert error.value.code == "state/root"
    with pytest.raises(AssertionError, match="too early"):
        on_block(store, block, b"peer", get_judge())
