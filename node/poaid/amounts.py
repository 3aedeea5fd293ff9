"""Quantities as people read them."""

WEI_PER_POAI = 10**18

_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"))
_TWO_OF_A_UNIT = 2
"""A duration is said in the largest unit of which it has at least so many: 90 min, not 1.5 h."""


def format_poai(wei: int) -> str:
    """Return an amount as POAI with up to 18 decimals, exactly."""
    whole, rest = divmod(wei, WEI_PER_POAI)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".") + " POAI"


def format_duration(seconds: float) -> str:
    """Return a duration, which is not negative, in the unit that suits it: `0.4 s`, `45 s`, `90 min`, `15 h`."""
    for size, name in _UNITS:
        if seconds >= _TWO_OF_A_UNIT * size:
            return f"{_format_short(seconds / size)} {name}"
    return f"{_format_short(seconds)} s"


def _format_short(number: float) -> str:
    if number < 0.995:
        return f"{number:.2g}"
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"


def format_count(number: int, one: str, many: str | None = None) -> str:
    """Return a number and what is counted: `1 block`, `52,560 blocks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def format_rate(quizzes_per_second: float, quizzes: int) -> str:
    """Return a speed, and how long a block takes at it on average.

    Args:
        quizzes_per_second: 0 for not known.
        quizzes: that a block takes on average.
    """
    if quizzes_per_second <= 0:
        return "not measured"
    return f"{quizzes_per_second:.2f} quizzes/s, alone a block every {format_duration(quizzes / quizzes_per_second)}"
