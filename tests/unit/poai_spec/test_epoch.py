"""Epochs: where one begins, which block seeds it, and its key."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.proof.epoch import compute_epoch_key, get_epoch, get_seed_height
from poai_spec.proof.lexicon import Lexicon
from poai_spec.basics.notation import keccak256
from poai_spec.basics.parameters import PRESET_CHANGES, Config
from poai_spec.chain.upgrades import get_rules


@pytest.mark.parametrize(
    ("preset", "height", "epoch"),
    [
        ("minimal", 0, 0),
        ("minimal", 3, 0),
        ("minimal", 4, 1),
        ("minimal", 8, 2),
        ("mainnet", 2015, 0),
        ("mainnet", 2016, 1),
    ],
)
def test_epoch_of_a_height(
    preset: str, height: int, epoch: int, make_network: Callable[..., Config], plain_lexicon: Lexicon
) -> None:
    assert preset in PRESET_CHANGES
    assert get_epoch(height, get_rules(make_network(preset, plain_lexicon), (), 0)) == epoch


@given(epoch=st.integers(1, 2**40))
def test_the_seed_is_the_last_block_before_the_epoch(
    make_network: Callable[..., Config], plain_lexicon: Lexicon, epoch: int
) -> None:
    config = make_network("testnet", plain_lexicon)
    height = get_seed_height(epoch, get_rules(config, (), 0))
    assert (get_epoch(height, get_rules(config, (), 0)), get_epoch(height + 1, get_rules(config, (), 0))) == (
        epoch - 1,
        epoch,
    )


def test_epoch_zero_has_no_seed_block(make_network: Callable[..., Config], plain_lexicon: Lexicon) -> None:
    with pytest.raises(AssertionError, match="genesis_seed"):
        get_seed_height(0, get_rules(make_network("testnet", plain_lexicon), (), 0))


def test_key_hashes_seed_and_epoch_without_a_tag() -> None:
    seed = bytes(range(32))
    assert compute_epoch_key(seed, 0x0102) == keccak256(seed + bytes([2, 1, 0, 0, 0, 0, 0, 0]))
    assert len({compute_epoch_key(seed, epoch) for epoch in range(1000)}) == 1000
