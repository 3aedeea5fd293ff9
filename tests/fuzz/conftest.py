"""The sums of the fuzzers at the end of a long run: what `docs/reliability.md` quotes."""

import pytest

from tests.harness.driving import ACCEPTED, SEED, SOAK, met


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not SOAK:
        return
    terminalreporter.section(f"inputs by decoder, seed {SEED}")
    for decoder, seen in sorted(met.items()):
        total, kinds = seen.outcomes.total(), len(set(seen.outcomes) - {ACCEPTED})
        terminalreporter.write_line(
            f"{decoder:<28}{total:>12,} inputs{seen.outcomes[ACCEPTED]:>12,} accepted{kinds:>6} kinds of refusal"
            f"{total / max(seen.seconds, 1e-9):>12,.0f} a CPU second, the slowest {seen.slowest * 1000:,.0f} ms"
        )
    terminalreporter.write_line(f"{'all':<28}{sum(seen.outcomes.total() for seen in met.values()):>12,} inputs")
