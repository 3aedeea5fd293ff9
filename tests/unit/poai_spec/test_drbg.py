"""The random bits: known answers, the rejection boundary, and uniformity."""

from collections import Counter
from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import keccak256, uint64_le

CheckUniform = Callable[..., None]
SEED = bytes(range(32))


class Fixed(Drbg):
    """A generator whose stream is given."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(bytes(32))
        self.words = list(reversed(numbers))


def test_stream_is_keccak_in_counter_mode_read_little_endian() -> None:
    stream = b"".join(keccak256(keccak256(b"PoAI/drbg/1") + SEED + uint64_le(i)) for i in range(3))
    drbg = Drbg(SEED)
    got = [drbg.next_uint64() for _ in range(12)]
    assert got == [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(12)]


def test_known_answers() -> None:
    drbg = Drbg(bytes(32))
    assert [drbg.next_uint64() for _ in range(5)] == [
        685491906791479349,
        2303048122372909953,
        8983307970821384364,
        4229359894447257904,
        12216825338853422946,
    ]


@pytest.mark.parametrize("n", [3, 5, 6, 10, 1000, 2**63 + 1, 2**64 - 1])
def test_numbers_at_or_above_the_last_multiple_are_thrown_away(n: int) -> None:
    limit = 2**64 - 2**64 % n
    assert limit % n == 0
    assert limit <= 2**64
    assert Fixed(limit - 1, 7).below(n) == (limit - 1) % n == n - 1
    drbg = Fixed(limit, 2**64 - 1, 1, 99)
    assert drbg.below(n) == 1 % n
    assert drbg.words == [99]


@pytest.mark.parametrize("n", [1, 2, 2**32, 2**64])
def test_powers_of_two_reject_nothing_and_one_still_draws(n: int) -> None:
    drbg = Fixed(2**64 - 1, 42)
    assert drbg.below(n) == n - 1
    assert drbg.words == [42]


@pytest.mark.parametrize("n", [0, -1, 2**64 + 1])
def test_a_size_outside_the_range_is_a_defect_of_the_caller(n: int) -> None:
    with pytest.raises(AssertionError):
        Drbg(SEED).below(n)


def test_shuffle_exchanges_upwards_and_a_sample_is_its_beginning() -> None:
    # places drawn: 0 + 2, 1 + 0, 2 + 1, 3 + 0
    assert Fixed(2, 0, 1, 0).shuffled("abcd") == ["c", "b", "d", "a"]
    for k in range(5):
        assert Drbg(SEED).sample("abcd", k) == Drbg(SEED).shuffled("abcd")[:k]


@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(), max_size=20), st.data())
def test_sample_takes_distinct_places_and_leaves_the_items_alone(
    seed: bytes, items: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, len(items)))
    before = list(items)
    sample = Drbg(seed).sample(items, k)
    assert len(sample) == k
    assert not Counter(sample) - Counter(items)
    assert items == before


@given(st.binary(min_size=32, max_size=32), st.integers(-(2**40), 2**40), st.integers(0, 2**40))
def test_between_stays_between(seed: bytes, low: int, width: int) -> None:
    assert low <= Drbg(seed).between(low, low + width) <= low + width


def test_permutations_and_choices_are_uniform(check_uniform: CheckUniform) -> None:
    drbg = Drbg(SEED)
    check_uniform(Counter(tuple(drbg.shuffled("abcd")) for _ in range(24_000)), list(permutations("abcd")))
    check_uniform(Counter(tuple(drbg.sample("abcde", 2)) for _ in range(20_000)), list(permutations("abcde", 2)))
    check_uniform(Counter(drbg.choice("abcdefg") for _ in range(7_000)), list("abcdefg"))
    check_uniform(Counter(drbg.between(-3, 9) for _ in range(13_000)), list(range(-3, 10)))
