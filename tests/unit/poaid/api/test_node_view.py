"""What a node is shown as: answers cost what they show, not what the chain holds."""

from pathlib import Path
from typing import cast

import pytest

from poai_engine.models.gguf_file import Vocabulary
from poai_spec.basics.notation import Address
from poai_spec.model.engine import Evaluation
from poaid.api import node_view
from poaid.api.node_view import View
from poaid.layout import split_block
from tests.harness.importing import MINERS, grow_line, make_easy_judge, make_easy_network, make_root
from tests.harness.importing import Made as MadeBlock
from tests.harness.processes import Made, Maker
from tests.unit.poaid.chain.test_tree import count_lines

pytestmark = pytest.mark.sockets


def make_node(folder: Path, blocks: list[MadeBlock]) -> tuple[Made, View]:
    """Return a node that does not run, with a chain, and its view."""
    maker = Maker(folder, make_easy_network(), make_easy_judge().models[0].engine)
    made = maker.make(blocks=[block.block for block in blocks])
    return made, View(made.node, cast(Vocabulary, None), "mini")


def accept(made: Made, blocks: list[MadeBlock], *, assumed: bool = False) -> None:
    """Count blocks without the model: assumed valid, or as if they had been replayed."""
    for entry in blocks:
        made.node.chain.tree.receive_header(split_block(entry.data)[0], b"peer")
    for block in blocks:
        checked = made.node.chain.check_block(block.block, block.data, b"peer")
        assert checked is not None
        made.node.importer.accept(checked, None if assumed else Evaluation((), ()))


def count_by_hand(made: Made, address: Address) -> int:
    return sum(header.core.miner == address for header in list(made.node.chain.headers)[1:])


def test_an_accounts_blocks_are_counted_when_the_head_moves_and_not_when_somebody_asks(tmp_path: Path) -> None:
    trunk = grow_line(make_root(), 5, miner=MINERS[0])
    old, new = grow_line(trunk[-1], 4, miner=MINERS[1]), grow_line(trunk[-1], 6, miner=MINERS[2])
    made, view = make_node(tmp_path, [*trunk, *old])
    asked = [count_lines(view.get_account, MINERS[0])]
    accept(made, new)
    asked.append(count_lines(view.get_account, MINERS[0]))
    assert made.node.chain.head.hash == new[-1].hash
    assert [view.get_account(miner)["blocks"] for miner in MINERS] == [5, 0, 6]
    assert [count_by_hand(made, miner) for miner in MINERS] == [5, 0, 6]
    assert asked[0] == asked[1], "also after a reorganisation"
    made.store.close()


def test_the_status_names_the_last_assumed_block_of_the_heads_chain(tmp_path: Path) -> None:
    """The number of assumed blocks costs a request nothing; those of another branch do not count."""
    trunk = grow_line(make_root(), 3)
    left, right = grow_line(trunk[-1], 2, miner=MINERS[1]), grow_line(trunk[-1], 3, miner=MINERS[2])
    made, _ = make_node(tmp_path, trunk)
    before = count_lines(made.node.make_status)
    accept(made, left, assumed=True)
    assert made.node.make_status().assumed == 5
    assert count_lines(made.node.make_status) == before
    accept(made, right)
    assert made.node.chain.head.hash == right[-1].hash
    assert made.node.make_status().assumed == 0
    accept(made, grow_line(left[-1], 3), assumed=True)
    made.store.close()
    again = Maker(tmp_path, make_easy_network(), make_easy_judge().models[0].engine).make(data_dir=tmp_path / "node-1")
    assert again.node.make_status().assumed == again.height == 8
    again.store.close()


def test_a_quiz_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of blocks makes each one's quiz at its first request only; so many are remembered."""
    monkeypatch.setattr(node_view, "MAX_NAMES", 4)
    made, view = make_node(tmp_path, grow_line(make_root(), 6))
    listed = view.list_blocks(None, 4)
    first, again = len(view._names), count_lines(view.list_blocks, None, 4)
    assert view.list_blocks(None, 4) == listed
    assert first == len(view._names) == 4
    view.list_blocks(None, 7)
    assert len(view._names) == 4
    assert count_lines(view.list_blocks, 6, 4) > again, "of these some were forgotten"
    made.store.close()
