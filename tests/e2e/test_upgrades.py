"""Five nodes change from poai-mini to poai-micro and back while they mine: one has an old list, one lacks the file."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from poai_engine.models.model_store import resolve_model
from poai_spec.basics.notation import Address, keccak256
from poai_spec.basics.parameters import ModelManifest, get_model_manifest
from poai_spec.chain.upgrades import Upgrade, make_change
from poaid.chain import judges
from poaid.chain.judges import Models
from poaid.chain.verify import verify_store
from poaid.models import get_pinned_model
from poaid.network_file import Network, Planned, check_network
from poaid.node import Node, Options
from poaid.produce.attempts import get_time
from poaid.store.database import Database
from tests.harness.processes import Made, get_free_port, make_vector_network, running, until

MINERS: tuple[Address, ...] = (b"\x41" * 20, b"\x42" * 20)
LATE: Address = b"\x43" * 20
THERE, BACK, END = 6, 12, 15
"""Heights of the two upgrades, the second after a period's end, and of the last block."""

pytestmark = [pytest.mark.trio, pytest.mark.slow]


def make_upgraded_network() -> Network:
    base, micro = make_vector_network(), get_pinned_model("micro")
    there = make_change(model=micro.manifest, quiz_tokens=40)
    back = make_change(model=base.config.model, quiz_tokens=base.config.quiz_tokens)
    planned = (
        Planned(Upgrade(THERE, there), micro.lexicon, micro.lexicon_name),
        Planned(Upgrade(BACK, back), base.questions, base.questions_name),
    )
    return check_network(Network("upgraded", base.config, base.questions, base.questions_name, planned=planned))


def make_node(
    folder: Path, network: Network, sources: Mapping[ModelManifest, str], peers: tuple[Made, ...], **options: Any
) -> Made:
    store = Database.create_or_open(folder, network, "mini")
    models = Models(network, sources, 1, 0, lambda _: None)
    models.load()
    addresses = tuple(peer.address for peer in peers)
    plain = Options(options.pop("miner", None), "127.0.0.1", get_free_port(), addresses, mdns=False, **options)
    return Made(Node(store, network, models, plain, keccak256(str(folder).encode())), store)


def set_end(nodes: tuple[Made, ...], height: int) -> None:
    for made in nodes:
        made.node.mining.stop_height = height
        made.node.mining.wake()


async def test_a_network_changes_its_model_and_back_while_it_mines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "LOOK_S", 0.1)
    network, old = make_upgraded_network(), make_vector_network()
    file, micro = tmp_path / "micro.gguf", get_model_manifest("micro")
    first = make_node(tmp_path / "first", network, {}, (), miner=MINERS[0], stop_height=THERE - 1)
    second = make_node(tmp_path / "second", network, {}, (first,), miner=MINERS[1], stop_height=1)
    third = make_node(tmp_path / "third", network, {}, (first, second))
    late = make_node(tmp_path / "late", old, {}, (first, second), miner=LATE, stop_height=1)
    without = make_node(tmp_path / "without", network, {micro: str(file)}, (first, second))
    everyone, miners = (first, second, third, late, without), (first, second)
    with capture_logs() as logs:
        async with running(*everyone):
            await until(lambda: {made.height for made in everyone} == {THERE - 1}, "all reach the last old block")
            await until(lambda: len({made.head for made in everyone}) == 1, "the list to come divides nobody")
            assert [need.state for need in without.node.models.list_needs()] == ["present", "missing", "present"]

            set_end(miners, BACK - 2)
            followers = (first, second, third)
            await until(lambda: {made.height for made in followers} == {BACK - 2}, "blocks of the new model", 60)
            await until(lambda: len({made.head for made in followers}) == 1, "one tip")
            await until(lambda: not late.node.peers.connected, "whoever does not know the upgrade is refused")
            assert (late.height, without.height) == (THERE - 1, THERE - 1)
            assert "missing" in (without.node.models.explain_missing(THERE) or "")
            assert without.node.chain.tree.invalid == {}

            set_end((late,), THERE + 1)
            await until(lambda: late.height == THERE + 1, "the late node mines by the old rules, alone", 60)

            shutil.copy(resolve_model("micro"), file)
            four = (*followers, without)
            await until(lambda: without.head == first.head, "goes on when the file is there", 60)
            set_end(miners, END)
            await until(lambda: {made.height for made in four} == {END}, "and back to the first model", 60)
            await until(lambda: len({made.head for made in four}) == 1, "one tip")
            assert {first.node.chain.tree.get_rules(h).since for h in (THERE - 1, THERE, END)} == {0, THERE, BACK}
            work, tip = first.node.chain.head.work, first.head
            old_head = late.head
    events = [str(entry["event"]) for entry in logs]
    assert any(f"does not know the upgrade at height {THERE} (model micro" in event for event in events)
    assert any(f"does not know the upgrade at height {THERE};" in event for event in events if "refused" in event)
    assert any(entry["event"] == "Neither mining nor importing until the file is there" for entry in logs)
    assert not any(entry["log_level"] == "error" for entry in logs)

    with Database.open(tmp_path / "third") as store:
        verify_store(store, first.node.judge, get_time(), lambda _: None)
    again = make_node(tmp_path / "first", network, {}, ())
    mended = make_node(tmp_path / "late", network, {}, (again,))
    assert mended.height == THERE - 1, "back to the last block before the first difference"
    assert old_head not in mended.node.chain.tree.entries
    async with running(again, mended):
        await until(lambda: mended.head == tip, "a node whose list is mended is on the chain", 60)
        assert mended.node.chain.head.work == work
