"""`poaid testnet` without its nodes: what is concluded from what they say, and how it is shown."""

import io
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from rich.console import Console, RenderableType

from poaid.errors import NodeError
from poaid.network_file import read_network
from poaid.testnet.local import (
    NETWORK_FILE,
    SETTLE_S,
    START_S,
    Child,
    LocalTestnetPlan,
    choose_ports,
    choose_target,
    get_base_network,
    make_network,
    observe,
    prepare,
    read_chain,
    stop,
    wait_until_agreed,
)
from poaid.testnet.screen import (
    Frame,
    Screen,
    format_seconds,
    get_activity,
    make_frame,
    make_quiz,
    make_summary_view,
    save_picture,
)
from poaid.testnet.summary import Observed, compute_percentile, find_difference, make_summary
from poaid.view import BlockView, QuizView, StatusView
from tests.harness.node import Run

BLOCKS = 3
NETWORK_ID = "0x5ca1ab1e" + "00" * 28
QUIZ = "6b98-0b91-822e-08fb-2259-5491-0c79-4286"
START = 1_770_000_000_000

pytestmark = pytest.mark.sockets


def make_hash(text: str) -> str:
    return "0x" + text * 32


def make_miner(n: int) -> str:
    return f"0x{n:040x}"


def make_status(n: int, **changes: Any) -> StatusView:
    """Return what node `n` says once it has the last block."""
    status = {
        "activity": "idle", "reason": "height 3 is reached (--stop-height)", "height": BLOCKS, "head": make_hash("03"),
        "target": f"{2**256 // 40 - 1:#x}", "miner": make_miner(n), "balance": str(5 * 10**18),
        "quizzes_per_second": 3.14, "peer_count": 2,
        "mined": 1, "reorgs": 0,
    }  # fmt: skip
    return cast(StatusView, status | changes)


def make_block(height: int, miner: int, received: int | None, block_hash: str | None = None) -> BlockView:
    return cast(
        BlockView,
        {
            "height": height, "hash": block_hash or make_hash(f"{height:02}"), "miner": make_miner(miner),
            "time": START + height, "loss": 21 * 65536 + 32768, "quiz": QUIZ if height else None, "received": received,
        },
    )  # fmt: skip


def make_quiz_view() -> QuizView:
    scored = [(4, " Peter", 65536, True), (9, "1", 32768, True), (10, "2", 32768, True), (12, "\n", 16384, False)]
    return QuizView(
        height=BLOCKS,
        hash=make_hash("03"),
        name=QUIZ,
        text="Who is richest? Peter\n3 * 4 = 12\nOf cat",
        answers=["Peter", "12", "cat"],
        scored=[
            {"position": position, "text": text, "token": 7, "loss": loss, "answer": answer}
            for position, text, loss, answer in scored
        ],
        loss=21 * 65536 + 32768,
    )


def make_nodes(**changes: Any) -> list[Observed]:
    """Return three nodes that agree, each the miner of one block; node 2 is otherwise as `changes` say."""
    nodes = []
    for n in range(3):
        chain = [make_block(height, height - 1, START + 1_000 * height + 100 * n) for height in range(1, BLOCKS + 1)]
        status = make_status(n, **(changes if n == 2 else {}))
        nodes.append(Observed(f"node {n}", f"http://127.0.0.1:{43210 + n}", status, chain[-1], make_quiz_view(), chain))
    return nodes


def render(view: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view)
    return cast(io.StringIO, console.file).getvalue().splitlines()


def make_picture(nodes: Sequence[Observed], **changes: Any) -> Frame:
    return Frame(nodes, "smollm2", NETWORK_ID, **({"blocks": BLOCKS, "seconds": 75.9} | changes))


# What the nodes agree on.


def test_agreement() -> None:
    assert find_difference(make_nodes(), BLOCKS) is None


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"height": 2, "head": make_hash("02")}, "node 2 is at height 2 of 3"),
        (
            {"head": make_hash("ff")},
            "node 0 and node 2 have different blocks at height 3: 0x0303030303030303 and 0xffffffffffffffff",
        ),
    ],
)
def test_differences(changes: dict[str, Any], difference: str) -> None:
    nodes = make_nodes(**changes)
    assert find_difference(nodes, BLOCKS) == difference
    summary = make_summary(nodes, BLOCKS, "mini", NETWORK_ID, 1.0)
    assert (summary["agree"], summary["difference"]) == (False, difference)


def test_a_silent_node_does_not_agree() -> None:
    nodes = make_nodes()
    nodes[1].status = None
    assert find_difference(nodes, BLOCKS) == "node 1 has not answered yet"
    assert [node["name"] for node in make_summary(nodes, BLOCKS, "mini", NETWORK_ID, 1.0)["nodes"]] == [
        "node 0",
        "node 2",
    ]


@pytest.mark.parametrize(("percent", "value"), [(1, 10), (50, 20), (51, 30), (75, 30), (95, 40), (100, 40)])
def test_percentile(percent: int, value: int) -> None:
    assert compute_percentile([40, 10, 30, 20], percent) == value


# The summary.


def test_summary() -> None:
    nodes = make_nodes(mined=3, reorgs=2)
    summary = make_summary(nodes, BLOCKS, "mini", NETWORK_ID, 75.94)
    assert (summary["agree"], summary["difference"], summary["seconds"]) == (True, None, 75.9)
    assert [(node["mined"], node["on_chain"]) for node in summary["nodes"]] == [(1, 1), (1, 1), (3, 1)]
    assert (summary["side_blocks"], summary["reorgs"]) == (2, 2)
    assert [block["miner"] for block in summary["blocks"]] == ["node 0", "node 1", "node 2"]
    assert summary["blocks"][0]["received"] == {
        "node 0": START + 1_000, "node 1": START + 1_100, "node 2": START + 1_200
    }  # fmt: skip
    # From node 0: 100 and 200 ms; from node 1: -100 and 100; from node 2: -200 and -100.
    assert summary["propagation"] == {"count": 6, "median_ms": -100, "p95_ms": 200}


def test_propagation_leaves_out_what_a_node_did_not_time() -> None:
    nodes = make_nodes()
    for block in nodes[0].chain:
        block["received"] = None
    nodes[2].chain[1] = make_block(2, 1, START, make_hash("ff"))  # another block at the height
    summary = make_summary(nodes, BLOCKS, "mini", NETWORK_ID, 1.0)
    assert [sorted(block["received"]) for block in summary["blocks"]] == [
        ["node 1", "node 2"], ["node 1"], ["node 1", "node 2"]
    ]  # fmt: skip
    assert summary["propagation"] == {"count": 1, "median_ms": -100, "p95_ms": -100}


def test_summary_before_the_first_block() -> None:
    nodes = [Observed("node 0", "http://127.0.0.1:1")]
    summary = make_summary(nodes, BLOCKS, "mini", NETWORK_ID, 0.5, stopped=True)
    assert (summary["blocks"], summary["nodes"], summary["propagation"]) == ([], [], None)
    text = render(make_summary_view(summary), 80)
    assert text[0] == "Stopped after 0:00: node 0 has not answered yet"
    assert text[-1] == "  no block went from one node to another"


def test_a_miner_of_nowhere_keeps_its_address() -> None:
    nodes = make_nodes()
    nodes[0].chain[0] = nodes[1].chain[0] = nodes[2].chain[0] = make_block(1, 9, START)
    summary = make_summary(nodes, BLOCKS, "mini", NETWORK_ID, 1.0)
    assert summary["blocks"][0]["miner"] == make_miner(9)


# The picture.


def test_table_of_80_columns() -> None:
    lines = render(make_frame(make_picture(make_nodes()), 80), 80)
    assert lines[:8] == [
        "PoAI testnet 5ca1ab1e: 3 nodes, model smollm2, block 3 of 3, 1:15",
        "a block takes 40 quizzes on average; 9.4/s in all; all agree at height 3",
        "page of node 0: http://127.0.0.1:43210",
        "node    height  head      activity  quiz/s  peers  mined  reorgs   loss  POAI",
        "node 0       3  03030303  done         3.1      2      1       0  21.50     5",
        "node 1       3  03030303  done         3.1      2      1       0  21.50     5",
        "node 2       3  03030303  done         3.1      2      1       0  21.50     5",
        "",
    ]
    assert lines[8:] == [
        f"block 3 03030303 by node 2, quiz {QUIZ}",
        "  Who is richest? Peter",
        "  3 * 4 = 12",
        "  Of cat",
        "  loss 21.50 bits: Peter 1.00, 12 1.00, '\\n' 0.25",
    ]


def test_a_row_with_long_numbers_fits_80_columns() -> None:
    nodes = make_nodes(height=1_234_567, quizzes_per_second=4321.5, mined=99_999, balance=str(995 * 10**18))
    lines = render(make_frame(make_picture(nodes), 80), 80)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_a_wide_table_names_the_pages() -> None:
    lines = render(make_frame(make_picture(make_nodes()), 200), 200)
    assert [line.split()[-1] for line in lines[3:6]] == [f"http://127.0.0.1:{43210 + n}" for n in range(3)]
    ended = render(make_frame(make_picture(make_nodes(), ended=True), 200), 200)
    assert not any("http" in line for line in ended)


def test_heads_that_differ() -> None:
    nodes = make_nodes(height=2, head=make_hash("02"))
    nodes[2].head = make_block(2, 1, None)
    lines = render(make_frame(make_picture(nodes), 80), 80)
    assert lines[1].endswith("a block is on its way")
    assert [line for line in lines if line.startswith("block ")] == [
        f"block 3 03030303 by node 2, quiz {QUIZ}", f"block 2 02020202 by node 1, quiz {QUIZ}"
    ]  # fmt: skip
    fork = render(make_frame(make_picture(make_nodes(head=make_hash("ff"))), 80), 80)
    assert fork[1].endswith("a fork")


def test_before_the_first_answer() -> None:
    nodes = [Observed("node 0", "http://127.0.0.1:1"), Observed("node 1", "http://127.0.0.1:2")]
    lines = render(make_frame(make_picture(nodes), 80), 80)
    assert lines[1] == "nodes are starting"
    assert [line.split() for line in lines[4:]] == [["node", "0", "starting"], ["node", "1", "starting"]]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"activity": "idle"}, "done"),
        ({"activity": "mining"}, "done"),
        ({"activity": "syncing"}, "syncing"),
        ({"activity": "idle", "height": 0}, "waiting"),
        ({"activity": "mining", "height": 2}, "mining"),
    ],
)
def test_activity(changes: dict[str, Any], word: str) -> None:
    assert get_activity(make_nodes(**changes)[2], BLOCKS) == word


def test_answers_are_marked() -> None:
    marked = [[str(line)[span.start : span.end] for span in line.spans] for line in make_quiz(make_quiz_view())]
    assert marked == [["Peter"], ["12"], ["cat"], []]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3_600, "60:00")])
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_summary_of_80_columns() -> None:
    lines = render(make_summary_view(make_summary(make_nodes(), BLOCKS, "mini", NETWORK_ID, 75.0)), 80)
    assert lines == [
        "All 3 nodes agree at height 3 after 1:15: 0x03030303030303030303030303030303...",
        "  node 0: 1 block of the chain, 5 POAI, tip 3 03030303",
        "  node 1: 1 block of the chain, 5 POAI, tip 3 03030303",
        "  node 2: 1 block of the chain, 5 POAI, tip 3 03030303",
        "  3 blocks of the chain, 0 side blocks, 0 reorganisations",
        "  from miner to others, replay included: median -100 ms, 95 % within 200 ms",
    ]


def test_without_a_terminal_each_block_is_a_line() -> None:
    console = Console(file=io.StringIO(), width=20)
    with Screen(console) as screen:
        for _ in range(2):
            screen.show(make_picture(make_nodes()))
        screen.show(make_picture([Observed("node 0", "http://127.0.0.1:1")]))
    assert cast(io.StringIO, console.file).getvalue() == f"1:15 block 3 03030303 by node 2, quiz {QUIZ}\n"


def test_on_a_terminal_the_last_frame_stays() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Screen(console) as screen:
        screen.show(make_picture([Observed("node 0", "http://127.0.0.1:1")]))
        screen.show(make_picture(make_nodes()))
    assert "all agree at height 3" in cast(io.StringIO, console.file).getvalue()


def test_picture(tmp_path: Path) -> None:
    file = tmp_path / "testnet.svg"
    nodes = make_nodes()
    save_picture(make_picture(nodes, ended=True), make_summary(nodes, BLOCKS, "mini", NETWORK_ID, 75.0), str(file))
    text = file.read_text("utf-8").replace("&#160;", " ")
    assert text.startswith("<svg")
    assert "poaid testnet" in text
    assert "All 3 nodes agree at height 3" in text
    assert "http://127" not in text
    assert "@font-face" not in text, "rich's names another host"


# What is prepared.


@pytest.mark.parametrize(("rate", "quizzes"), [(0.5, 20), (5, 20), (18, 72), (1_000, 4_000)])
def test_the_first_target_suits_the_machine_and_is_never_easier_than_the_testnet_s(rate: float, quizzes: int) -> None:
    config = get_base_network("mini").config
    config = replace(config, spacing=15_000, initial_target=2**256 // 20)
    assert choose_target(rate, config) == 2**256 // quizzes


def test_a_block_does_not_take_longer_than_the_spacing() -> None:
    config = get_base_network("mini").config
    assert config.spacing == 1_000
    assert choose_target(100, config) == 2**256 // 100


def test_no_two_runs_are_on_the_same_network() -> None:
    base = get_base_network("mini")
    one, other = (make_network(base, 2**250).config for _ in range(2))
    assert one.genesis_seed != other.genesis_seed
    assert (one.initial_target, one.spacing, one.model) == (2**250, base.config.spacing, base.config.model)


def test_ports_differ() -> None:
    assert len(set(choose_ports(20))) == 20


def make_plan(folder: Path, nodes: int) -> LocalTestnetPlan:
    return LocalTestnetPlan(folder, make_network(get_base_network("mini"), 2**250), "mini", nodes, BLOCKS, 2)


def get_flags(command: Sequence[str], flag: str) -> list[str]:
    return [value for name, value in pairwise(command) if name == flag]


def test_prepare(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, 3)
    children = prepare(plan)
    assert read_network(tmp_path / NETWORK_FILE).config == plan.network.config
    assert [child.observed.name for child in children] == ["node 0", "node 1", "node 2"]
    peers = [get_flags(child.command, "--peer-multiaddr") for child in children]
    assert [len(known) for known in peers] == [1, 1, 2]
    # Node 0 waits for node 1, node 1 and node 2 for those before them.
    addresses = [peers[1][0], peers[0][0]]
    assert peers[2] == addresses
    ports = [get_flags(child.command, "--p2p-port")[0] for child in children[:2]]
    assert [address.split("/")[4] for address in addresses] == ports
    for n, child in enumerate(children):
        assert get_flags(child.command, "--data-dir") == [str(tmp_path / f"node-{n}")]
        assert (tmp_path / f"node-{n}" / "p2p.key").stat().st_mode & 0o777 == 0o600
        assert get_flags(child.command, "--stop-height") == [str(BLOCKS)]
        assert get_flags(child.command, "--threads") == ["2"]
        assert child.observed.url.endswith(":" + get_flags(child.command, "--http-port")[0])


def test_one_node_waits_for_nobody(tmp_path: Path) -> None:
    (child,) = prepare(make_plan(tmp_path, 1))
    assert get_flags(child.command, "--peer-multiaddr") == []


# Processes.


@pytest.mark.parametrize(
    ("program", "end"),
    [
        ("print('a\\nb\\nc\\n\\nerror: port 1 is in use'); raise SystemExit(3)",
         "ended with exit status 3; its log {log} ends with: b / c / error: port 1 is in use"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9; its log {log} ends with: nothing"),
    ],
)  # fmt: skip
def test_a_node_that_dies_is_explained_in_a_line(tmp_path: Path, program: str, end: str) -> None:
    child = Child(Observed("node 1", "http://127.0.0.1:1"), [sys.executable, "-c", program], tmp_path / "log")

    async def main() -> None:
        await child.start()
        await child.wait()

    trio.run(main)
    assert not child.is_running()
    assert child.describe_end() == "node 1 " + end.format(log=tmp_path / "log")


def test_a_node_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poaid.testnet.local.STOP_S", 0.0)
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    children = [Child(Observed(f"node {n}", ""), program, tmp_path / "log") for n in range(3)]

    async def main() -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a child inherits
        try:
            for child in children[:2]:
                await child.start()
        finally:
            signal.signal(signal.SIGINT, before)
        await stop(children)  # the third was never started

    trio.run(main)
    codes = [child.process.returncode if child.process else None for child in children]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, None]


# How long is waited.


@pytest.mark.trio
async def test_nodes_that_do_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    nodes = make_nodes()
    nodes[0].status = nodes[2].status = None
    fault = await wait_until_agreed(nodes, BLOCKS)
    assert fault == "node 0, node 2 did not answer within 120 s: see the log, and try fewer --nodes"
    assert trio.current_time() >= START_S


@pytest.mark.trio
async def test_nodes_that_stay_apart(autojump_clock: trio.testing.MockClock) -> None:
    fault = await wait_until_agreed(make_nodes(height=2, head=make_hash("02")), BLOCKS)
    assert fault == "no agreement within 60 s: node 2 is at height 2 of 3"


@pytest.mark.trio
async def test_nodes_that_agree_in_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """Blocks may take for ever; only the last one's way is limited."""
    nodes, statuses = make_nodes(), [node.status for node in make_nodes()]
    for node in nodes:
        node.status = make_status(0, height=1, head=make_hash("01"))

    async def mine() -> None:
        for node, status in zip(nodes, statuses, strict=True):
            await trio.sleep(START_S + SETTLE_S if node is nodes[0] else SETTLE_S / 3)
            node.status = status

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mine)
        assert await wait_until_agreed(nodes, BLOCKS) is None
    assert trio.current_time() >= START_S + SETTLE_S + SETTLE_S / 3


# What is asked.


class Answers:
    """Stands for a node's HTTP server: answers by path, and the paths that were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> None:
        self.answers, self.asked = answers, list[str]()
        monkeypatch.setattr("poaid.testnet.local.ask", self.ask)

    def ask(self, url: str, path: str) -> Any:
        self.asked.append(path)
        if path not in self.answers:
            raise NodeError("404")
        return self.answers[path]


def test_the_head_and_its_quiz_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_block(3, 2, None)
    paths = {"/status": make_status(0), f"/blocks/{head['hash']}": head, "/quiz/3": make_quiz_view()}
    answers = Answers(monkeypatch, paths)
    node = Observed("node 0", "http://127.0.0.1:1")
    for _ in range(2):
        trio.run(observe, node)
    assert answers.asked == ["/status", f"/blocks/{head['hash']}", "/quiz/3", "/status"]
    assert (node.head, node.quiz) == (head, make_quiz_view())


def test_the_quiz_of_another_head_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_block(3, 2, None, make_hash("ff"))
    status = make_status(0, head=head["hash"])
    Answers(monkeypatch, {"/status": status, f"/blocks/{head['hash']}": head, "/quiz/3": make_quiz_view()})
    node = Observed("node 0", "http://127.0.0.1:1")
    trio.run(observe, node)
    assert (node.head, node.quiz) == (head, None)


def test_a_long_chain_is_read_by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [make_block(height, 0, None) for height in range(251)]
    status = make_status(0, height=250, head=blocks[250]["hash"])
    pages = {f"/blocks?top={top}&count={count}": blocks[top : top - count : -1]
             for top, count in ((250, 100), (150, 100), (50, 50))}  # fmt: skip
    Answers(monkeypatch, {"/status": status, f"/blocks/{blocks[250]['hash']}": blocks[250], **pages})
    node = Observed("node 0", "http://127.0.0.1:1")
    trio.run(read_chain, node)
    assert [block["height"] for block in node.chain] == list(range(1, 251))


# Wrong usage.


def test_a_folder_that_is_not_empty(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, out, err = run("testnet", "--model", "mini", "--data-dir", tmp_path)
    assert (status, out) == (2, "")
    assert err == f"error: {tmp_path} is not empty: give --data-dir a new folder, a testnet begins at genesis\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("flag", ["--json", "--record"])
def test_a_file_in_no_folder(run: Run, tmp_path: Path, flag: str) -> None:
    status, out, err = run("testnet", flag, tmp_path / "no" / "file")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'no' / 'file'}: there is no folder ")


def test_a_model_that_was_not_fetched(run: Run) -> None:
    status, out, err = run("testnet")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "run `poai model fetch smollm2`" in err
