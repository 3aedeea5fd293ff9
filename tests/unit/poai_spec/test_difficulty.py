"""Difficulty: work, the retarget schedule, its clamps, the median, and the rule that a period goes forward."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.chain.block import make_genesis
from poai_spec.basics.containers import Header
from poai_spec.proof.difficulty import (
    check_period_forward,
    check_target,
    compute_median_time,
    compute_next_target,
    compute_quizzes,
    compute_target,
)
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import PRESET_CHANGES, UINT256_MAX, Config, make_config
from poai_spec.chain.upgrades import get_rules, is_retarget_height
from tests.harness.spec import get_config

ROOT = Path(__file__).parents[3]
DOCUMENTS = [*ROOT.glob("specs/*.md"), *ROOT.glob("docs/*.md")]
E = 4_000  # the tests' network: 4 blocks of 1 s
CONFIG = get_config()


def make_headers(stamps: list[int], target: int = CONFIG.initial_target) -> list[Header]:
    """Return headers of which only height, stamp and target count."""
    genesis = make_genesis(CONFIG).header
    cores = [replace(genesis.core, height=h, timestamp=stamp, target=target) for h, stamp in enumerate(stamps)]
    return [Header(core, 0, bytes(32)) for core in cores]


@given(st.integers(1, UINT256_MAX))
def test_work_is_the_rounded_inverse(target: int) -> None:
    work = compute_quizzes(target)
    assert work * (target + 1) <= 2**256 < (work + 1) * (target + 1)
    assert 1 <= work <= 2**255


@given(st.integers(1, UINT256_MAX - 1), st.integers(1, 2**200))
def test_a_lower_target_never_has_less_work(target: int, more: int) -> None:
    assert compute_quizzes(target) >= compute_quizzes(min(target + more, UINT256_MAX))


@pytest.mark.parametrize("retarget_blocks", [1, 2, 4, 10, 2016])
def test_the_schedule_counts_every_interval_between_1_and_the_tip_once(retarget_blocks: int) -> None:
    config = replace(CONFIG, retarget_blocks=retarget_blocks)
    heights = [h for h in range(6 * retarget_blocks) if is_retarget_height(h, get_rules(config, (), 0))]
    assert heights[0] == 2 + retarget_blocks
    covered = [interval for h in heights for interval in range(h - retarget_blocks, h)]  # interval i: block i-1 to i
    assert covered == list(range(2, heights[-1]))


def test_presets_keep_mainnets_first_period_off_genesis() -> None:
    assert PRESET_CHANGES["mainnet"]["retarget_blocks"] == 2016
    mainnet = make_config("mainnet", CONFIG.model)
    assert not any(is_retarget_height(h, get_rules(mainnet, (), 0)) for h in range(2018))
    assert is_retarget_height(2018, get_rules(mainnet, (), 0))
    assert is_retarget_height(4034, get_rules(mainnet, (), 0))


@pytest.mark.parametrize(
    ("actual", "numerator"),
    [
        (E, E),
        (E + 1, E + 1),
        (E // 4, E // 4),
        (E // 4 - 1, E // 4),
        (0, E // 4),
        (-(10**15), E // 4),
        (4 * E, 4 * E),
        (4 * E + 1, 4 * E),
        (10**15, 4 * E),
    ],
)
def test_the_step_is_clamped_to_a_factor_of_four(actual: int, numerator: int) -> None:
    target = 10**60 + 7
    assert compute_next_target(target, actual, get_rules(CONFIG, (), 0)) == target * numerator // E


def test_the_target_stays_between_one_and_the_easiest() -> None:
    assert compute_next_target(1, 1, get_rules(CONFIG, (), 0)) == 1
    assert compute_next_target(3, 1, get_rules(CONFIG, (), 0)) == 1
    assert compute_next_target(CONFIG.max_target, 4 * E, get_rules(CONFIG, (), 0)) == CONFIG.max_target
    limited = replace(CONFIG, max_target=1000)
    assert compute_next_target(999, 2 * E, get_rules(limited, (), 0)) == 1000
    assert compute_next_target(1000, E, get_rules(limited, (), 0)) == 1000


def test_a_period_not_divisible_by_four() -> None:
    config = replace(CONFIG, retarget_blocks=1, spacing=7)
    assert compute_next_target(7_000, 0, get_rules(config, (), 0)) == 1_000
    assert compute_next_target(7_000, 1, get_rules(config, (), 0)) == 1_000
    assert compute_next_target(7_000, 2, get_rules(config, (), 0)) == 2_000
    assert compute_next_target(7_000, 28, get_rules(config, (), 0)) == 28_000


@given(st.integers(1, UINT256_MAX), st.integers(-(2**70), 2**70))
def test_a_step_stays_within_its_bounds(target: int, actual: int) -> None:
    after = compute_next_target(target, actual, get_rules(CONFIG, (), 0))
    assert max(target // 4, 1) <= after <= min(4 * target, CONFIG.max_target)


@given(st.integers(2**20, 2**250), st.integers(-(2**70), 2**70), st.integers(0, 2**40))
def test_a_longer_period_never_gives_a_lower_target(target: int, actual: int, more: int) -> None:
    assert compute_next_target(target, actual, get_rules(CONFIG, (), 0)) <= compute_next_target(
        target, actual + more, get_rules(CONFIG, (), 0)
    )


def test_only_the_ends_of_a_period_count() -> None:
    stamps = [0, 10_000, 11_000, 99_000, 13_000, 12_000]
    target = CONFIG.initial_target
    assert compute_target(make_headers(stamps), get_rules(CONFIG, (), 0)) == target * 2_000 // E
    for height in (1, 2, 3, 4, 5):
        assert compute_target(make_headers(stamps[:height]), get_rules(CONFIG, (), 0)) == target


def test_genesis_is_in_no_period() -> None:
    recent = [0] + [10**12 + 1000 * n for n in range(5)]
    assert compute_target(make_headers(recent), get_rules(CONFIG, (), 0)) == CONFIG.initial_target


def test_between_periods_the_parents_target_holds() -> None:
    headers = make_headers([1000 * n for n in range(8)], target=12345)
    assert compute_target(headers, get_rules(CONFIG, (), 0)) == 12345


@pytest.mark.parametrize("delta", [-1, 1])
def test_another_target_is_refused(delta: int) -> None:
    headers = make_headers([0, 1000, 2000, 3000, 4000, 6000])
    target = CONFIG.initial_target * 5_000 // E
    core = replace(headers[-1].core, height=6, target=target)
    check_target(core, headers, get_rules(CONFIG, (), 0))
    with pytest.raises(Invalid) as error:
        check_target(replace(core, target=target + delta), headers, get_rules(CONFIG, (), 0))
    assert error.value.code == "difficulty/target"


@pytest.mark.parametrize(
    ("stamps", "median"),
    [
        ([5], 5),
        ([5, 9], 9),
        ([9, 5], 9),
        ([1, 2, 3], 2),
        ([4, 1, 3, 2], 3),
        ([*range(10)], 5),
        ([*range(11)], 5),
        ([*range(12)], 6),
        ([100, *range(11)], 5),
        ([7] * 20, 7),
    ],
)
def test_the_median_of_at_most_eleven_stamps(stamps: list[int], median: int) -> None:
    assert compute_median_time(make_headers(stamps)) == median


@given(st.lists(st.integers(0, 2**64 - 1), min_size=11, max_size=30), st.data())
def test_five_false_stamps_do_not_move_the_median_out_of_the_true_ones(stamps: list[int], data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(1, 11), max_size=5))
    false = [data.draw(st.integers(0, 2**64 - 1)) if len(stamps) - n in places else s for n, s in enumerate(stamps)]
    kept = [s for n, s in enumerate(stamps) if n >= len(stamps) - 11 and len(stamps) - n not in places]
    assert min(kept) <= compute_median_time(make_headers(false)) <= max(kept)


def forward(height: int, stamp: int, config: Config = CONFIG) -> None:
    """Check a stamp at a height whose ancestors have the stamps 1000, 2000, ..."""
    headers = make_headers([1000 * (n + 1) for n in range(height)])
    check_period_forward(replace(headers[0].core, height=height, timestamp=stamp), headers, get_rules(config, (), 0))


@pytest.mark.parametrize(("height", "first"), [(5, 2000), (9, 6000), (13, 10_000)])
def test_a_block_that_ends_a_period_is_later_than_the_one_that_began_it(height: int, first: int) -> None:
    forward(height, first + 1)
    with pytest.raises(Invalid) as error:
        forward(height, first)
    assert error.value.code == "difficulty/period-not-forward"


@pytest.mark.parametrize("height", [1, 2, 3, 4, 6, 7, 8, 10])
def test_other_blocks_are_not_concerned(height: int) -> None:
    forward(height, 0)


def test_with_periods_of_one_block_every_block_but_the_first_is_concerned() -> None:
    config = replace(CONFIG, retarget_blocks=1, spacing=4_000)
    forward(1, 0, config)
    forward(2, 2001, config)
    with pytest.raises(Invalid):
        forward(2, 2000, config)


@dataclass(frozen=True)
class History:
    """A chain's stamps on a network of its own; `stamps[0]` is genesis'."""

    config: Config
    stamps: list[int]

    def compute_targets(self) -> list[int]:
        """Return the target of each block from 1 on, as the page gives it."""
        headers = make_headers(self.stamps[:1], self.config.initial_target)
        for height, stamp in enumerate(self.stamps[1:], 1):
            core = replace(
                headers[0].core,
                height=height,
                timestamp=stamp,
                target=compute_target(headers, get_rules(self.config, (), 0)),
            )
            headers.append(Header(core, 0, bytes(32)))
        return [header.core.target for header in headers[1:]]

    def list_ratios(self) -> list[Fraction]:
        """Return, for each whole period, the time that it claims over the time that it should have, from 1/4 to 4."""
        blocks, expected = self.config.retarget_blocks, self.config.retarget_blocks * self.config.spacing
        ends = self.stamps[1::blocks]
        least = Fraction(expected // 4, expected)  # 1/4 where four divides the period's milliseconds
        return [min(max(Fraction(last - first, expected), least), Fraction(4)) for first, last in pairwise(ends)]


@st.composite
def histories(draw: st.DrawFn, *, targets: st.SearchStrategy[int], most: int) -> History:
    """Networks with periods of 1 to 7 blocks, and stamps that go forward and back by up to ten times the spacing."""
    blocks, spacing = draw(st.integers(1, 7)), draw(st.integers(4, 600_000))
    config = replace(CONFIG, retarget_blocks=blocks, spacing=spacing, initial_target=draw(targets), max_target=most)
    steps = draw(st.lists(st.integers(-2 * spacing, 10 * spacing), min_size=2, max_size=60))
    return History(config, list(accumulate(steps, initial=CONFIG.genesis_timestamp)))


def compute_exact_targets(history: History) -> list[int]:
    """Return the target of each block from 1 on, by rational arithmetic, rounded down once a period."""
    target, most, blocks = history.config.initial_target, history.config.max_target, history.config.retarget_blocks
    by_period = [target]
    for ratio in history.list_ratios():
        target = min(max(int(target * ratio), 1), most)
        by_period.append(target)
    return [by_period[max(height - 2, 0) // blocks] for height in range(1, len(history.stamps))]


@given(histories(targets=st.integers(1, 2**10) | st.integers(2**150, 2**200), most=2**200))
def test_targets_are_those_of_exact_rationals(history: History) -> None:
    assert history.compute_targets() == compute_exact_targets(history)


@given(histories(targets=st.integers(2**120, 2**130), most=UINT256_MAX))
def test_rounding_never_adds_up(history: History) -> None:
    """Over a whole history the target is the product of the ratios, less than one for each period, times its growth."""
    exact, lost = Fraction(history.config.initial_target), Fraction(0)
    for ratio in history.list_ratios()[: (len(history.stamps) - 3) // history.config.retarget_blocks]:
        exact, lost = exact * ratio, lost * ratio + 1
    assert exact - lost <= history.compute_targets()[-1] <= exact


@given(st.lists(st.integers(1, 20 * E), min_size=1, max_size=40))
def test_the_target_cannot_grow_faster_than_claimed_time(spans: list[int]) -> None:
    """The bound that the page proves: ln(T_n / T_0) <= claimed / E - n, here as T_n <= T_0 * e^(claimed / E - n)."""
    target = first = 2**200
    for span in spans:
        target = compute_next_target(target, span, get_rules(replace(CONFIG, max_target=UINT256_MAX), (), 0))
    exponent = sum(spans) / E - len(spans)
    assert exponent > 38 or target <= first * 2.718281828459046**exponent * (1 + 1e-9)


@given(st.lists(st.integers(1, 20 * E), min_size=1, max_size=40), st.integers(0, E // 10))
def test_a_chain_never_leads_its_schedule_by_more_than_max_future(claims: list[int], max_future: int) -> None:
    """The bound that the page proves, of a constant hash rate: n periods take n E - `max_future` at least."""
    config = replace(CONFIG, max_target=UINT256_MAX)
    first = target = 2**200
    elapsed, stamp = Fraction(0), 0
    for n, claim in enumerate(claims, 1):
        elapsed += Fraction(E * first, target)
        assert elapsed >= n * E - max_future
        latest = max(stamp + 1, int(elapsed) + max_future)
        stamp, before = min(stamp + claim, latest), stamp
        target = compute_next_target(target, stamp - before, get_rules(config, (), 0))


def test_the_table_of_gains_follows_from_the_presets() -> None:
    """The page's factors n E / (n E - max_future), and what the other documents quote of them."""
    text = (ROOT / "specs" / "proof" / "difficulty.md").read_text("utf-8")
    periods = [int(n) for n in re.findall(r"\| periods n \|(.*)\|", text)[0].split("|")]
    rows = dict(re.findall(r"^\| `max_future` = E / (\d+): .*?(\|.*)\|$", text, re.MULTILINE))
    shares = {}
    for name in ("mainnet", "testnet", "minimal"):
        config = make_config(name, CONFIG.model)
        shares[config.retarget_blocks * config.spacing // config.max_future] = name
    assert {int(share) for share in rows} == shares.keys()
    for share, row in rows.items():
        gains = [n / (n - 1 / int(share)) for n in periods]
        assert [f"{gain:.4f}" for gain in gains] == row.strip("| ").split(" | ")
    for document in ("specs/basics/parameters.md", "docs/threat-model.md"):
        assert "1.111x the blocks over one period, 1.002x over fifty" in (ROOT / document).read_text("utf-8")


@pytest.mark.parametrize("path", sorted(str(p.relative_to(ROOT)) for p in DOCUMENTS))
def test_no_document_gives_the_gain_without_its_horizon(path: str) -> None:
    lines = (ROOT / path).read_text("utf-8").splitlines()
    bare = [line for line in lines if "1.002x" in line and "fifty" not in line]
    assert not bare, f"{path}: 1.002x holds over fifty periods; say so: {bare[0]:.100}"
