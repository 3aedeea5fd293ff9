"""Header rules at their boundaries, on real chains."""

from dataclasses import replace

import pytest

from poai_spec.basics.containers import Body, Header, compute_body_root
from poai_spec.chain.header import check_header_alone, check_header_in_chain
from poai_spec.basics.notation import Invalid, NotYet
from poai_spec.execution.trie import EMPTY_TRIE_ROOT
from poai_spec.chain.upgrades import get_rules
from tests.harness.spec import Branch, get_config, make_core, mine

START = get_config().genesis_timestamp


def grow(stamps: list[int]) -> Branch:
    branch = Branch.start()
    for stamp in stamps:
        branch.grow(START + stamp)
    return branch


def check(branch: Branch, stamp: int, now: int = 10**15) -> None:
    """Check a header with work at a stamp (relative to genesis) by the rules of headers."""
    header = mine(make_core(branch.chain, branch.state, START + stamp), branch.chain).header
    check_header_alone(header)
    check_header_in_chain(header, branch.chain, get_rules(get_config(), (), 0), START + now)


@pytest.mark.parametrize(
    ("stamps", "median"),
    [
        ([], 0),
        ([50], 50),  # of 0 and 50 the later one
        ([50, 60], 50),
        ([1000, 2000, 3000], 2000),
        ([100 * n for n in range(1, 11)], 500),  # 11 ancestors with genesis
        ([100 * n for n in range(1, 14)], 800),  # genesis and block 1 have left the window
    ],
)
def test_a_stamp_lies_strictly_above_the_median(stamps: list[int], median: int) -> None:
    branch = grow(stamps)
    assert len(branch.chain) % 4 != 1 or len(branch.chain) == 1, "the end of a period has a rule of its own"
    check(branch, median + 1)
    with pytest.raises(Invalid) as error:
        check(branch, median)
    assert error.value.code == "header/median-time"


@pytest.mark.parametrize("height", [1, 2])
def test_the_clock_bounds_a_stamp_inclusively(height: int) -> None:
    branch, limit = grow([1000] * (height - 1)), get_config().max_future
    check(branch, 5000, now=5000 - limit)
    with pytest.raises(NotYet) as error:
        check(branch, 5000, now=5000 - limit - 1)
    assert error.value.code == "header/future"


@pytest.mark.parametrize("height", [0, 2, 2**64 - 1])
def test_other_heights_are_refused(height: int) -> None:
    branch = grow([])
    core = replace(make_core(branch.chain, branch.state, START + 1000), height=height)
    with pytest.raises(Invalid) as error:
        check_header_in_chain(Header(core, 0, bytes(32)), branch.chain, get_rules(get_config(), (), 0), START)
    assert error.value.code == "header/height"


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_other_versions_are_refused(version: int) -> None:
    header = grow([]).chain[0]
    with pytest.raises(Invalid) as error:
        check_header_alone(replace(header, core=replace(header.core, version=version)))
    assert error.value.code == "header/version"


@pytest.mark.parametrize("root", [bytes(32), EMPTY_TRIE_ROOT, compute_body_root(Body((b"",)))])
def test_a_header_that_commits_to_another_body_is_refused_without_the_body(root: bytes) -> None:
    header = grow([]).chain[0]
    check_header_alone(header)
    with pytest.raises(Invalid) as error:
        check_header_alone(replace(header, core=replace(header.core, body_root=root)))
    assert error.value.code == "body/transactions-not-active"


def test_a_chain_over_three_periods_and_epochs_follows_the_schedule() -> None:
    branch = grow([500 * n for n in range(1, 15)])
    targets = [header.core.target for header in branch.chain]
    first = get_config().initial_target
    assert targets == [first] * 6 + [first // 2] * 4 + [first // 4] * 4 + [first // 8]
