"""What a miner saves by sorting quizzes: the measure itself, and the figure that the salt must keep small."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_bench.prefix_saving import generate_token_sequences, measure_prefix_saving
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange, make_config
from poai_spec.proof.lexicon import compute_lexicon_digest, read_lexicon


def make_network(preset: str, name: str, *, add_bos: bool, salt: tuple[int, int]) -> Config:
    digest = compute_lexicon_digest(read_lexicon(name))
    model = ModelManifest(
        bytes(32), bytes(32), digest, False, 30, salt[1] + 1, add_bos, 1, 1, 1, 1, (TokenRange(*salt),)
    )
    return make_config(preset, model)


def test_saved_tokens_are_counted_once() -> None:
    assert measure_prefix_saving([]) == 0
    assert measure_prefix_saving([(1, 2, 3, 4)]) == 0
    assert measure_prefix_saving([(1, 2, 3, 4), (1, 2, 5, 6)]) == 2 / 8
    assert measure_prefix_saving([(1, 2), (3, 4), (1, 5), (1, 2)]) == (2 + 1) / 8


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=40))
def test_it_is_the_best_possible_saving(quizzes: list[list[int]]) -> None:
    """A tree of all beginnings has one node for each that must be computed."""
    nodes = {tuple(quiz[: i + 1]) for quiz in quizzes for i in range(len(quiz))}
    total = sum(map(len, quizzes))
    assert measure_prefix_saving(quizzes) == pytest.approx((total - len(nodes)) / total)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        make_network("testnet", "smollm2-135m", add_bos=False, salt=(17, 49151)),
        make_network("mainnet", "tinyllama-1.1b", add_bos=True, salt=(259, 31999)),
    ],
    ids=["testnet", "mainnet"],
)
def test_sorting_a_hundred_thousand_nonces_saves_at_most_two_percent(config: Config) -> None:
    lexicon = read_lexicon("tinyllama-1.1b" if config.model.add_bos else "smollm2-135m")
    assert 0.001 < measure_prefix_saving(generate_token_sequences(config, lexicon, 100_000)) <= 0.02


@pytest.mark.slow
def test_without_salt_the_saving_is_large() -> None:
    """Shows that the measure sees what the salt prevents."""
    config = make_network("testnet", "smollm2-135m", add_bos=False, salt=(17, 49151))
    lexicon = read_lexicon("smollm2-135m")
    bare = measure_prefix_saving(generate_token_sequences(replace(config, salt_tokens=0), lexicon, 5_000))
    salted = measure_prefix_saving(generate_token_sequences(config, lexicon, 5_000))
    assert bare > 0.05
    assert salted < 0.002
