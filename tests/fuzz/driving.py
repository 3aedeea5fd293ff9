"""What every fuzzer shares: how many inputs it draws, what it may meet, and the count of what it met.

The short form draws the same inputs in every run. `make soak` sets `POAI_SOAK`, which multiplies their number and draws
new ones each time; a failure then prints the input that it was shrunk to.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from poai_engine.errors import ModelError
from poai_spec.notation import SpecError
from poaid.errors import NodeError

T = TypeVar("T")

SOAK = int(os.environ.get("POAI_SOAK", "0"))
"""How many times as many inputs as in the short form; 0 is the short form itself."""
ACCEPTED = "accepted"
MAX_LINE = 1_000
"""Characters of an error's line: a path, a quoted value, and what to do. A terminal shows it in a few rows."""

met: dict[str, Counter[str]] = {}
"""By decoder: how many inputs were accepted, and how many refused with each code; `conftest` prints the sums."""


def drive(decoder: str, inputs: SearchStrategy[T], examples: int, take: Callable[[T], str | list[str]]) -> Counter[str]:
    """Give a decoder many inputs and return what became of them; at least one was accepted and one refused.

    Args:
        decoder: its name, for the count.
        inputs: what is drawn.
        examples: how many, in the short form.
        take: does what the program does with an input; returns the outcome, or one for each input in a batch.
    """
    seen = met.setdefault(decoder, Counter())

    @settings(
        max_examples=examples * max(SOAK, 1),
        deadline=None,
        derandomize=not SOAK,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def run(data: T) -> None:
        outcome = take(data)
        seen.update([outcome] if isinstance(outcome, str) else outcome)

    run()
    assert seen[ACCEPTED], f"{decoder}: nothing was accepted, so no deeper check was reached: {seen}"
    assert set(seen) - {ACCEPTED}, f"{decoder}: nothing was refused"
    return seen


def check_line(error: Exception) -> None:
    """Refuse an error that is not one line of a bounded length."""
    line = str(error)
    assert 0 < len(line) <= MAX_LINE, f"a line of {len(line)} characters: {line[:200]}"
    assert "\n" not in line, line


def judge(read: Callable[[], object]) -> str:
    """Read something hostile; return `ACCEPTED`, or the code or kind of the documented error that it ended with.

    Any other exception is a bug and goes on.
    """
    try:
        read()
    except (SpecError, NodeError, ModelError) as error:
        check_line(error)
        return error.code if isinstance(error, SpecError) else type(error).__name__
    return ACCEPTED
