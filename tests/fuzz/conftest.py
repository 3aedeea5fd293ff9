"""The sums of the fuzzers at the end of a long run: what `docs/reliability.md` quotes."""

import pytest

from tests.fuzz.driving import ACCEPTED, SOAK, met


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not SOAK:
        return
    terminalreporter.section("inputs by decoder")
    for decoder, seen in sorted(met.items()):
        kinds = len(set(seen) - {ACCEPTED})
        terminalreporter.write_line(
            f"{decoder:<28}{seen.total():>12,} inputs{seen[ACCEPTED]:>12,} accepted{kinds:>6} kinds of refusal"
        )
    terminalreporter.write_line(f"{'all':<28}{sum(seen.total() for seen in met.values()):>12,} inputs")
