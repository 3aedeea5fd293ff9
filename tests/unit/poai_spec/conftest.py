"""What the tests of the pages share."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import pytest

from poai_spec.proof.lexicon import PIECES, Lexicon, compute_lexicon_digest
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange, make_config


def critical_value(freedom: int) -> float:
    """Return the value that chi-square with so many degrees of freedom passes with probability 10^-4.

    Wilson and Hilferty's approximation (1931); 3.719 is the normal distribution's 1 - 10^-4 quantile.
    """
    share = 2 / (9 * freedom)
    return float(freedom * (1 - share + 3.719 * share**0.5) ** 3)


@pytest.fixture(scope="session")
def check_uniform() -> Callable[..., None]:
    """Chi-square against given weights (equal ones by default); the draws are seeded, so the result never varies."""

    def check(
        counts: Counter[Hashable], cells: Sequence[Hashable], weights: Mapping[Hashable, float] | None = None
    ) -> None:
        assert set(counts) <= set(cells), sorted(map(str, set(counts) - set(cells)))[:5]
        assert len(cells) > 1
        total, weight = counts.total(), sum(weights[c] for c in cells) if weights else len(cells)
        expected = {cell: total * (weights[cell] if weights else 1) / weight for cell in cells}
        assert min(expected.values()) >= 5, "too few draws for chi-square"
        statistic = sum((counts[cell] - expected[cell]) ** 2 / expected[cell] for cell in cells)
        assert statistic < critical_value(len(cells) - 1), (statistic, critical_value(len(cells) - 1))

    return check


@pytest.fixture(scope="session")
def plain_lexicon() -> Lexicon:
    """A lexicon in which every piece is one token, as poai-mini's is."""
    return Lexicon({piece: (300 + i,) for i, piece in enumerate(PIECES)})


@pytest.fixture(scope="session")
def make_network() -> Callable[..., Config]:
    """Make a preset's config around any lexicon."""

    def make(
        preset: str, lexicon: Lexicon, *, add_bos: bool = False, salt: tuple[tuple[int, int], ...] = ((17, 49151),)
    ) -> Config:
        digest, ranges = compute_lexicon_digest(lexicon), tuple(TokenRange(*span) for span in salt)
        model = ModelManifest(bytes(32), bytes(32), digest, False, 30, 49152, add_bos, int(add_bos), 1, 1, 1, ranges)
        return make_config(preset, model)

    return make
