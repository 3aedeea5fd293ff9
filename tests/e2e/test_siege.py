"""SmolLM2 among forgers: the short form; `tests/soak` has the long one."""

import sys
from pathlib import Path

import pytest

from poaid.net import peers
from tests.e2e.test_liars import check_health
from tests.harness.processes import Maker, until
from tests.harness.siege import PREFIXES, besieged, check_record, get_peak_memory, make_maker, mine
from tests.unit.poaid.net.test_transport import dial_from_source

BLOCKS = 3
BUDGET_PASSES = 2
"""Of failed replays, a prefix: the page's 20 s would last for longer than this test."""
MEMORY_MIB = 300
"""What the siege may add: three short-lived hosts at a time in this process, and the engine's scratch space."""

pytestmark = [
    pytest.mark.trio,
    pytest.mark.slow,
    pytest.mark.model,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only 127.0.0.1 is this machine here"),
]


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return make_maker(tmp_path)


async def test_forgers_from_three_prefixes_hold_up_nobody(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    dial_from_source(monkeypatch)
    before = get_peak_memory()
    async with besieged(maker, monkeypatch) as (victim, miner, record):
        await until(lambda: record.pass_s > 0, "a pass was measured")
        monkeypatch.setattr(peers, "BUDGET_S", BUDGET_PASSES * record.pass_s)
        await mine(miner, victim, record, BLOCKS)
        await until(lambda: {prefix for prefix, _ in record.charges} == PREFIXES, "all have forged")
        await until(lambda: victim.head == miner.head, "the last honest block has come")
        assert victim.height == 1 + BLOCKS
        check_record(victim, record)
        assert record.forgers > len(record.charges), "of some nothing was replayed"
        await check_health(victim, [miner])
    assert get_peak_memory() - before < MEMORY_MIB
