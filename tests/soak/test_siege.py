"""SmolLM2 among forgers for hours: as in `tests/e2e/test_siege.py`, with the page's budgets, and memory over time."""

import sys
from pathlib import Path

import pytest

from poaid.net.libp2p import host as libp2p_host
from tests.e2e.test_liars import check_health
from tests.harness.driving import SOAK
from tests.harness.processes import until
from tests.harness.siege import PREFIXES, besieged, check_record, get_peak_memory, make_maker, mine
from tests.unit.poaid.net.test_transport import dial_from_source

BLOCKS_A_ROUND = 10
MEMORY_MIB = 100
"""What may be added after the first round, when all caches are full."""

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.trio,
    pytest.mark.slow,
    pytest.mark.model,
    pytest.mark.timeout(0),
    pytest.mark.skipif(not SOAK, reason="the short form is in tests/e2e"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only 127.0.0.1 is this machine here"),
]


async def test_a_siege_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten blocks for each unit of `POAI_SOAK`, half a minute and more each round."""
    maker = make_maker(tmp_path)
    dial_from_source(monkeypatch)
    monkeypatch.setattr(libp2p_host, "is_public", lambda _: True)
    async with besieged(maker, monkeypatch) as (victim, miner, record):
        peak = 0
        for _ in range(SOAK):
            record.jobs.clear()
            await mine(miner, victim, record, BLOCKS_A_ROUND)
            await until(lambda: victim.head == miner.head, "the last honest block has come")
            check_record(victim, record)
            await check_health(victim, [miner])
            peak = peak or get_peak_memory()
            assert get_peak_memory() - peak < MEMORY_MIB
        assert {prefix for prefix, _ in record.charges} == PREFIXES
