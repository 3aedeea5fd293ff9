"""Economics: the subsidy's halvings and the supply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.proof.economics import compute_subsidy, compute_supply
from poai_spec.basics.parameters import HALVING_BLOCKS

POAI = 10**18


@pytest.mark.parametrize(
    ("height", "subsidy"),
    [
        (0, 0),
        (1, 5 * POAI),
        (210_000, 5 * POAI),
        (210_001, 5 * POAI // 2),
        (420_000, 5 * POAI // 2),
        (420_001, 5 * POAI // 4),
        (18 * 210_000 + 1, 5**19),
        (19 * 210_000 + 1, 5**19 // 2),
        (62 * 210_000 + 1, 1),
        (63 * 210_000, 1),
        (63 * 210_000 + 1, 0),
        (2**64 - 1, 0),
    ],
)
def test_the_subsidy_halves(height: int, subsidy: int) -> None:
    assert compute_subsidy(height) == subsidy


@pytest.mark.parametrize("start", [0, 209_990, 420_000 - 7, 13_230_000 - 5])
def test_the_supply_grows_by_the_subsidy(start: int) -> None:
    for height in range(start + 1, start + 20):
        assert compute_supply(height) - compute_supply(height - 1) == compute_subsidy(height)


def test_the_supply_begins_at_zero_and_ends_below_2_100_000() -> None:
    assert compute_supply(0) == 0
    assert compute_supply(1) == 5 * POAI
    total = sum(HALVING_BLOCKS * (5 * POAI >> era) for era in range(64))
    assert compute_supply(13_230_000) == compute_supply(2**64 - 1) == total
    assert 2_099_999 * POAI < total < 2_100_000 * POAI


@given(st.integers(0, 20_000_000), st.integers(0, 1_000_000))
def test_the_supply_never_shrinks(height: int, more: int) -> None:
    assert compute_supply(height) <= compute_supply(height + more)
