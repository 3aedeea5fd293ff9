"""Rules by height: what a list changes and what it must not, fork ids, and work that counts once."""

from dataclasses import fields, replace
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.basics.containers import Header
from poai_spec.proof.difficulty import compute_target, compute_work, rescale_target
from poai_spec.chain.header import make_genesis_header
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import Config, compute_network_id, get_model_manifest, get_preset
from poai_spec.chain.production import choose_timestamp, compute_earliest_timestamp
from poai_spec.proof.quiz import compute_quiz_seed
from poai_spec.chain.upgrades import (
    Change,
    ForkId,
    Upgrade,
    apply_change,
    check_fork_id,
    check_upgrades,
    get_fork_hash,
    get_fork_id,
    get_multiplications,
    get_rules,
    get_unknown_upgrade,
    is_retarget_height,
    make_change,
    make_rules,
)

CONFIG = get_preset("minimal")
MICRO = make_change(model=get_model_manifest("micro"), quiz_tokens=40)
BACK = make_change(model=CONFIG.model, spacing=800, max_future=300)
TWO = (Upgrade(4, MICRO), Upgrade(10, BACK))
OTHER = Upgrade(5, make_change(quiz_tokens=33))


def make_chain(stamps: list[int], target: int) -> list[Header]:
    genesis = make_genesis_header(CONFIG)
    cores = [replace(genesis.core, height=h, timestamp=stamp, target=target) for h, stamp in enumerate(stamps)]
    return [replace(genesis, core=core) for core in cores]


def test_without_upgrades_the_rules_are_the_config_at_every_height() -> None:
    for height in (0, 1, 10**9):
        rules = get_rules(CONFIG, (), height)
        assert (rules.since, rules.anchor, rules.before) == (0, 1, None)
        for f in fields(Config):
            assert getattr(rules, f.name, getattr(CONFIG, f.name)) == getattr(CONFIG, f.name)


def test_each_field_changes_in_the_first_block_of_the_new_rules_and_not_before() -> None:
    values = {
        "profile": b"llama.cpp", "model": get_model_manifest("micro"), "retarget_blocks": 5, "spacing": 1_001,
        "max_future": 399, "quiz_tokens": 33, "salt_tokens": 5, "scored_tokens": 1,
    }  # fmt: skip
    assert values.keys() == {f.name for f in fields(Change)}
    for name, value in values.items():
        upgrades = (Upgrade(6, make_change(**{name: value})),)
        check_upgrades(CONFIG, upgrades)
        last, first = get_rules(CONFIG, upgrades, 5), get_rules(CONFIG, upgrades, 6)
        assert (getattr(last, name), getattr(first, name)) == (getattr(CONFIG, name), value)
        others = [f.name for f in fields(Change) if f.name != name]
        assert all(getattr(first, other) == getattr(CONFIG, other) for other in others)
        assert last.digest == get_rules(CONFIG, (), 5).digest != first.digest


def test_the_network_id_does_not_know_of_upgrades_and_the_digest_knows_all_that_passed() -> None:
    digests = [rules.digest for rules in make_rules(CONFIG, TWO)]
    assert len(set(digests)) == 3
    assert get_rules(CONFIG, TWO[:1], 20).digest == digests[1]
    moved = replace(TWO[0], height=5)
    assert get_rules(CONFIG, (moved,), 20).digest not in digests
    assert compute_network_id(apply_change(CONFIG, MICRO)) != compute_network_id(CONFIG)


def test_a_quiz_of_one_list_is_none_of_another() -> None:
    core = make_genesis_header(CONFIG).core
    seeds = {compute_quiz_seed(get_rules(CONFIG, listed, 4).digest, bytes(32), core) for listed in ((), TWO, (OTHER,))}
    assert len(seeds) == 2, "the list (OTHER,) has not changed anything at height 4"


def test_periods_are_counted_from_the_block_before_their_change() -> None:
    shorter = Upgrade(6, make_change(retarget_blocks=3, max_future=300))
    heights = [h for h in range(30) if is_retarget_height(h, get_rules(CONFIG, (shorter,), h))]
    assert heights == [9, 12, 15, 18, 21, 24, 27], "and 6 itself ends a period of the old rules"
    assert is_retarget_height(6, get_rules(CONFIG, (shorter,), 5))


@pytest.mark.parametrize("height", [7, 8, 10, 11, 12])
def test_a_spacing_changes_between_two_periods_only(height: int) -> None:
    shorter = Upgrade(6, make_change(retarget_blocks=3, max_future=300))
    slower = Upgrade(height, make_change(spacing=2_000))
    if height == 12:
        check_upgrades(CONFIG, (shorter, slower))
    else:
        with pytest.raises(Invalid, match="upgrades/period-border"):
            check_upgrades(CONFIG, (shorter, slower))


def test_the_target_keeps_the_multiplications_of_a_block() -> None:
    stamps = [CONFIG.genesis_timestamp + 1_000 * h for h in range(4)]
    chain = make_chain(stamps, 2**250)
    before, after = get_rules(CONFIG, TWO, 3), get_rules(CONFIG, TWO, 4)
    works = [compute_work(2**250, before), compute_work(compute_target(chain, after), after)]
    assert get_multiplications(before) > 5 * get_multiplications(after)
    assert abs(works[0] - works[1]) < works[0] // 50
    assert compute_target(chain, replace(after, since=3)) == 2**250, "only in the first block"


@given(st.integers(1, 2**256 - 1))
def test_rescaling_there_and_back_loses_little_and_stays_in_bounds(target: int) -> None:
    large, small = get_rules(CONFIG, TWO, 3), get_rules(CONFIG, TWO, 4)
    there = rescale_target(target, large, small)
    back = rescale_target(there, small, large)
    assert 1 <= there <= target
    assert 1 <= back <= 2**256 - 1
    ratio = get_multiplications(large) // get_multiplications(small) + 1
    assert target - back <= ratio or there == 1


def test_a_retarget_at_the_border_is_by_the_old_rules() -> None:
    stamps = [CONFIG.genesis_timestamp + 500 * h for h in range(10)]
    chain = make_chain(stamps, 2**250)
    rules = get_rules(CONFIG, TWO, 10)
    assert rules.before is not None
    halved = 2**250 * (4 * 500) // (rules.before.retarget_blocks * rules.before.spacing)
    assert compute_target(chain, rules) == rescale_target(halved, rules.before, rules)


def test_a_stamp_at_a_periods_end_follows_the_rules_of_its_height() -> None:
    stamps = [CONFIG.genesis_timestamp + 1_000 * h for h in range(13)]
    stamps[9] += 10_000
    chain = make_chain(stamps, 2**250)
    upgrades = (Upgrade(10, make_change(retarget_blocks=3, max_future=300)),)
    rules = get_rules(CONFIG, upgrades, 12)
    assert compute_earliest_timestamp(chain[:12], rules) == stamps[9] + 1
    assert compute_earliest_timestamp(chain[:12], get_rules(CONFIG, (), 12)) < stamps[9]
    assert choose_timestamp(chain[:12], rules, stamps[9] + 5) == stamps[9] + 5


LISTS = ((), TWO[:1], TWO, (OTHER,), (*TWO, Upgrade(14, OTHER.change)))


@pytest.mark.parametrize(("ours", "theirs"), list(product(LISTS, LISTS)))
def test_peers_part_exactly_when_their_pasts_do(ours: tuple[Upgrade, ...], theirs: tuple[Upgrade, ...]) -> None:
    """By EIP-2124: refused if and only if no chain can satisfy both, as far as the two labels show."""
    for our_head, their_head in product(range(1, 17), range(1, 17)):
        peer = get_fork_id(CONFIG, theirs, their_head)
        refused = False
        try:
            check_fork_id(CONFIG, ours, our_head, peer)
        except Invalid:
            refused = True
        common = min(our_head, their_head)
        same_past = get_rules(CONFIG, ours, common).digest == get_rules(CONFIG, theirs, common).digest
        if not same_past:
            assert refused, (our_head, their_head)
        if ours == theirs:
            assert not refused, (our_head, their_head)
            assert get_unknown_upgrade(CONFIG, ours, our_head, peer) == 0


def test_an_upgrade_that_is_to_come_is_no_reason_to_part_until_it_has_come() -> None:
    verdicts = []
    for head in range(1, 7):
        unaware = get_fork_id(CONFIG, (), head)
        if head < 4:
            check_fork_id(CONFIG, TWO, head, unaware)
            verdicts.append(get_unknown_upgrade(CONFIG, TWO, head, unaware))
        else:
            with pytest.raises(Invalid, match=r"upgrades/peer-unaware: .* height 4"):
                check_fork_id(CONFIG, TWO, head, unaware)
    assert verdicts == [4, 4, 4]


def test_labels_are_the_beginnings_of_digests() -> None:
    every = make_rules(CONFIG, TWO)
    assert [get_fork_hash(rules) for rules in every] == [rules.digest[:4] for rules in every]
    assert [rules.before for rules in every] == [None, *every[:-1]]
    assert all(a.since < b.since for a, b in pairwise(every))
    with pytest.raises(Invalid, match="upgrades/peer-differs"):
        check_fork_id(CONFIG, TWO, 3, ForkId(b"\0" * 4, 4))
