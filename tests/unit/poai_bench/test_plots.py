"""The pictures of the documents: they are what their data says, and what they say is what the pages say."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poai_bench import block_tree
from poai_bench.plots import quiz as plot_quiz
from poai_bench.plots import registry as plots
from poai_bench.plots import retarget as plot_retarget
from poai_bench.plots.bits import draw_determinism, draw_llama_bits
from poai_bench.plots.fidelity import draw_fidelity
from poai_bench.plots.style import OTHER, OURS, use_style
from poai_bench.plots.tree import assign_lanes, draw_tree
from poai_bench.retarget_simulation import BITCOIN, BLOCKS
from poai_engine.errors import ModelError
from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import encode
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.header import make_genesis_header
from poai_spec.proof.lexicon import read_lexicon
from poai_tools import cli
from poaid.errors import NodeError
from poaid.network_file import Network, get_network
from poaid.store.database import Database, StoredBlock

PICTURES = Path(__file__).parents[3] / "docs" / "img"
DRAWN = (*plots.COMPUTED, *(picture for pictures in plots.MEASURED.values() for picture in pictures))
MAX_BYTES = 200_000


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with use_style():
        yield


def read_data(bench: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PICTURES / plots.DATA / f"{bench}.json").read_text("utf-8"))
    return found


def get_texts(figure: Any) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["bench", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


# The files.


def test_every_picture_is_what_its_data_and_the_pages_give() -> None:
    assert plots.find_stale(PICTURES) == []


@pytest.mark.parametrize("picture", DRAWN, ids=lambda picture: picture.file)
def test_every_picture_is_small_and_says_what_it_shows(picture: plots.Picture) -> None:
    svg = (PICTURES / picture.file).read_text("utf-8")
    assert len(svg.encode()) < MAX_BYTES
    assert f"<title>{picture.title.replace('&', '&amp;')}</title>" in svg
    assert 'width="525pt"' in svg, "700 pixels"
    assert "<text" not in svg, "letters are paths"
    assert not re.search("<dc:date|Matplotlib", svg), "the same bytes tomorrow"


def test_every_result_that_is_kept_has_pictures() -> None:
    assert {file.stem for file in (PICTURES / plots.DATA).iterdir()} == plots.MEASURED.keys()


def test_a_picture_that_changed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "COMPUTED", ())
    (tmp_path / plots.DATA).mkdir()
    (tmp_path / plots.DATA / "tree.json").write_text(json.dumps(read_data("tree")))
    with pytest.raises(ModelError, match=r"^block-tree\.svg: .*`poai bench plots "):
        run("plots", tmp_path, "--check")
    assert run("plots", tmp_path)[0] == 0
    assert run("plots", tmp_path, "--check")[0] == 0
    svg = tmp_path / "block-tree.svg"
    assert svg.read_bytes() == (PICTURES / "block-tree.svg").read_bytes()
    svg.write_text(svg.read_text("utf-8").replace("#", "#0", 1))
    assert plots.find_stale(tmp_path) == ["block-tree.svg"]


@pytest.mark.parametrize(("text", "problem"), [
    ("{", "no result of --json"),
    ("[]", "no result of one of: engine"),
    ('{"bench": "spec"}', "no result of one of: engine"),
    ('{"bench": ["tree"]}', "no result of one of: engine"),
    ("[" * 100_000, "no result of --json"),
    ('{"bench": "tree"}', r"block-tree\.svg: the result is damaged or of another version"),
    ('{"bench": "tree", "blocks": []}', r"block-tree\.svg: the result is damaged"),
    ('{"bench": "llama-bits", "variants": [], "evaluations": []}', r"llama-bits\.svg: the result is damaged"),
])  # fmt: skip
def test_what_is_no_result_is_said_in_one_line(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "COMPUTED", ())
    (tmp_path / plots.DATA).mkdir()
    (tmp_path / plots.DATA / "bad.json").write_text(text)
    with pytest.raises(ModelError, match=problem):
        plots.draw_all(tmp_path)


# From quiz to block.


def test_the_sizes_of_the_diagram_are_those_of_the_pages() -> None:
    config, core = get_preset(plot_quiz.PRESET), make_genesis_header(get_preset(plot_quiz.PRESET)).core
    header = Header(core, 0, bytes(32))
    texts = " ".join(get_texts(plot_quiz.draw_quiz_to_block()))
    assert f"{len(encode(core))} bytes, all that a miner can vary" in texts
    assert f"a header of {len(encode(header))} bytes" in texts
    assert f"{config.quiz_tokens} tokens, of which {config.scored_tokens} are scored" in texts
    assert f"{config.model.layer_count} layers" in texts
    assert f"{config.model.layer_count + 1} in all" in texts


def test_the_diagram_follows_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(get_preset(plot_quiz.PRESET), salt_tokens=5, scored_tokens=3, quiz_tokens=48)
    size = len(encode(make_genesis_header(config).core))
    real = plot_quiz.get_size
    monkeypatch.setattr(plot_quiz, "get_preset", lambda _: config)
    monkeypatch.setattr(plot_quiz, "get_size", lambda *what: 2 * real(*what))
    texts = get_texts(plot_quiz.draw_quiz_to_block())
    assert "salt, 5 random tokens" in texts
    assert "48 tokens, of which 3 are scored" in texts
    assert f"{2 * size} bytes, all that a miner can vary" in texts


def test_the_quiz_of_the_diagram_is_split_as_it_is_scored() -> None:
    config, lexicon = get_preset(plot_quiz.PRESET), read_lexicon("smollm2-135m")
    quiz = plot_quiz.make_quiz(config, lexicon)
    lines = list(plot_quiz.split_questions(quiz, lexicon, config))
    assert ["".join(piece.text for piece in line) for line in lines] == [question.text for question in quiz.questions]
    for line, question in zip(lines[:-1], quiz.questions, strict=False):
        assert "".join(piece.text for piece in line if piece.scored) == "".join(question.answer)
        assert not any(piece.cut for piece in line)
    assert [piece.cut for piece in lines[-1]] == sorted(piece.cut for piece in lines[-1])
    assert lines[-1][-1].cut
    assert not lines[-1][0].cut


# Difficulty.


def test_convergence_shows_the_bias_of_bitcoins_rule() -> None:
    (bias,) = (text for text in get_texts(plot_retarget.draw_convergence(plays=20)) if "Bitcoin" in text)
    assert f"{BLOCKS - 1} of {BLOCKS} intervals and settles at {BLOCKS / (BLOCKS - 1):.2f}" in bias


def test_the_time_warp_shows_the_gains_that_were_found() -> None:
    data = read_data("retarget")
    texts = get_texts(plot_retarget.draw_time_warp(data))
    gains = {
        row["rule"]: row["gain"] for row in data["searches"] if row["max_future"] == 0.1 and row["hash_share"] == 1
    }
    assert f"x {gains['ours']:.4f}" in texts
    assert f"x {gains[BITCOIN]:.1f}" in texts
    assert gains["ours"] < 1.002
    assert gains[BITCOIN] > 20


# Losses and bits.


def test_fidelity_has_a_dot_for_each_token_in_each_panel(tmp_path: Path) -> None:
    data = read_data("fidelity")
    (file,) = plots.draw(data, tmp_path)
    assert file.read_text("utf-8").count("h0") == 4 * data["tokens"] == 4 * len(data["nlls"]["exact"])
    data["exact"]["agreement"] = 0.1234
    assert any("12.3%" in text for text in get_texts(draw_fidelity(data)))


def get_colours(figure: Any) -> list[str]:
    (axes,) = figure.axes
    return ["#" + bytes(round(255 * part) for part in patch.get_facecolor()[:3]).hex() for patch in axes.patches]


def test_a_digest_that_differs_is_seen() -> None:
    data = read_data("determinism")
    assert set(get_colours(draw_determinism(data))) == {OURS}
    assert f"{len(data['rows'])} ways to run {data['model']}, one digest" in get_texts(draw_determinism(data))
    data["rows"][-1]["digest"] = "ff" * 32
    data["digests"].append("ff" * 32)
    colours = get_colours(draw_determinism(data))
    assert (colours.count(OTHER), OURS in colours) == (1, True)
    assert any(text.endswith("2 digests") for text in get_texts(draw_determinism(data)))


def test_a_square_is_a_quiz_whose_bits_changed() -> None:
    data = read_data("llama-bits")
    changed = sum(row["other_bits"] for row in data["variants"])
    colours = get_colours(draw_llama_bits(data))
    assert colours.count(OTHER) == changed > 0
    assert len(colours) == len(data["variants"]) * len(data["evaluations"])


# The tree.


def make_branch(network: Network, length: int, miner: int, parent: Header | None = None) -> list[Header]:
    """Return headers without work, one on top of the other, the first on genesis or on `parent`."""
    headers = [parent or make_genesis_header(network.config)]
    for _ in range(length):
        last = headers[-1]
        core = replace(
            last.core, height=last.core.height + 1, parent_hash=compute_block_hash(last), miner=bytes([miner] * 20)
        )
        headers.append(Header(core, 0, bytes(32)))
    return headers[1:]


def store_branches(folder: Path, network: Network, *branches: list[Header]) -> Path:
    """Store branches in a data directory, each from height 1 on; the last one becomes the chain."""
    with Database.create_or_open(folder, network, "mini") as store:
        for branch in branches:
            hashes = [compute_block_hash(header) for header in branch]
            blocks = [
                StoredBlock(block_hash, header.core.height, encode(Block(header, EMPTY_BODY, ())), ())
                for block_hash, header in zip(hashes, branch, strict=True)
            ]
            store.commit(blocks, 0, hashes, {})
    return folder


@pytest.fixture
def nodes(tmp_path: Path) -> list[Path]:
    """Two nodes on one chain of four blocks; the second began with a branch of its own, of two blocks."""
    network = get_network("minimal")
    chain, lost = make_branch(network, 4, miner=1), make_branch(network, 2, miner=2)
    return [store_branches(tmp_path / "a", network, chain), store_branches(tmp_path / "b", network, lost, chain)]


def test_the_tree_has_the_blocks_of_all_stores(nodes: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    status, output = run("tree", *nodes, "--json", file, "--plots", tmp_path)
    assert status == 0
    found = json.loads(file.read_text("utf-8"))
    assert [(b["height"], b["miner"][:2], b["on_chain"]) for b in found["blocks"]] == [
        (1, "01", True), (1, "02", False), (2, "01", True), (2, "02", False), (3, "01", True), (4, "01", True),
    ]  # fmt: skip
    assert "0x01010101" in output
    assert (tmp_path / "block-tree.svg").is_file()
    assert "4 blocks of the chain, 2 beside it" in get_texts(draw_tree(found))
    assert [len(branch) for branch in block_tree.find_branches(found)] == [2]
    assert len(block_tree.run(nodes[:1])["blocks"]) == 4


def test_the_first_node_says_what_the_chain_is(nodes: list[Path], tmp_path: Path) -> None:
    behind = store_branches(tmp_path / "c", get_network("minimal"), make_branch(get_network("minimal"), 1, miner=2))
    found = block_tree.run([behind, *nodes])
    assert [b["miner"][:2] for b in found["blocks"] if b["on_chain"]] == ["02"]


def test_nodes_of_two_networks_make_no_tree(nodes: list[Path], tmp_path: Path) -> None:
    network = get_network("minimal", target=2**255)
    other = store_branches(tmp_path / "other", network, make_branch(network, 1, miner=1))
    with pytest.raises(NodeError, match="different networks"):
        block_tree.run([*nodes, other])


def test_nodes_without_blocks_make_no_tree(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="no blocks beside genesis"):
        block_tree.run([store_branches(tmp_path, get_network("minimal"))])


def test_many_miners_have_names_and_branches_cross_rows() -> None:
    network = get_network("minimal")
    chain = [make_branch(network, 1, miner=1)[0]]
    for miner in range(2, 60):
        chain += make_branch(network, 1, miner % 12, chain[-1])
    blocks = [{"hash": compute_block_hash(header).hex(), "parent": header.core.parent_hash.hex(), "on_chain": True,
               "height": header.core.height, "miner": header.core.miner.hex()} for header in chain]  # fmt: skip
    texts = get_texts(draw_tree({"blocks": blocks}))
    assert sum(text.startswith("0x") for text in texts) == 12
    assert "56" in texts


def test_branches_beside_each_other_have_lanes_of_their_own() -> None:
    network = get_network("minimal")
    chain = make_branch(network, 6, miner=1)
    branches = [make_branch(network, 2, 2), make_branch(network, 3, 3), make_branch(network, 1, 4, chain[3])]
    blocks = [(header, True) for header in chain] + [(header, False) for branch in branches for header in branch]
    result = {"blocks": [
        {"hash": compute_block_hash(header).hex(), "parent": header.core.parent_hash.hex(), "on_chain": on_chain,
         "height": header.core.height, "miner": header.core.miner.hex()}
        for header, on_chain in blocks
    ]}  # fmt: skip
    lanes = assign_lanes(result)
    found = [{lanes[compute_block_hash(header).hex()] for header in branch} for branch in (chain, *branches)]
    assert found == [{0}, {1}, {-1}, {1}]
