"""`poaid` as a command: what it prints, how it exits, and that no error is more than a line."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import poai_tools.cli
import poaid.cli.main
from poaid.amounts import format_poai
from poaid.keys import MINER_KEY_NAME, compute_address, read_plain_key
from poaid.store.database import FILE_NAME, Database
from tests.harness.node import MINIMAL_ID, Run, change, read_data, run_sql
from tests.unit.poaid.conftest import MinedChain

COMMAND = str(Path(sys.executable).with_name("poaid"))
MINIMAL = ("--network", "minimal", "--model", "mini", "--target", "1000")

pytestmark = pytest.mark.sockets


def execute(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_mine_verify_and_a_flipped_byte(tmp_path: Path) -> None:
    """The whole way, in processes of its own."""
    folder = tmp_path / "chain"
    done = execute("mine", "--network", "minimal", "--model", "mini", "--blocks", 3, "--data-dir", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"mined 3 blocks up to height 3; check: poaid verify --data-dir {folder}\n"
    events = [json.loads(line) for line in done.stderr.splitlines()]
    blocks = [event for event in events if event["event"] == "Block mined!"]
    assert [(block["height"], block["balance"]) for block in blocks] == [
        (height, str(5 * height * 10**18)) for height in (1, 2, 3)
    ]
    assert all(re.fullmatch("0x[0-9a-f]{64}", block["hash"]) for block in blocks)
    assert {type(block["loss_bits"]) for block in blocks} == {float}
    quizzes = [event["event"] for event in events if event["event"].startswith("Generated quiz: ")]
    assert len(quizzes) == 3
    assert all(len(quiz.split(": ")[1].split("-")) == 6 for quiz in quizzes)

    done = execute("verify", "--data-dir", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"3 blocks of network {MINIMAL_ID} are valid, every one replayed; 1 account\n"

    with Database.open(folder) as store:
        data = read_data(store)[1]
    run_sql(
        folder,
        "UPDATE bodies SET data = ? WHERE hash = (SELECT hash FROM chain WHERE height = 2)",
        change(data, len(data) - 1, 1)[216:],
    )
    done = execute("verify", "--data-dir", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: block 2 breaks the rule work/trace-digest: the trace hashes to ")
    assert done.stderr.count("\n") == 1


def test_a_flipped_byte_in_the_file_itself(mined: MinedChain, copy_of: Callable[[], Path], run: Run) -> None:
    folder = copy_of()
    file = folder / FILE_NAME
    whole = file.read_bytes()
    for height in (1, 4, 8):
        entry = mined.blocks[height - 1].trace[0]
        assert whole.count(entry) == 1
        file.write_bytes(change(whole, whole.index(entry) + 31, 128))
        status, out, err = run("verify", "--data-dir", folder)
        assert (status, out) == (1, "")
        assert err.startswith(f"error: block {height} breaks the rule work/trace-digest: ")
        assert err.count("\n") == 1


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"poaid {version('poai')}\n", "")


def list_help(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from list_help(below, (*words, name))


@pytest.mark.parametrize("program", ["poai", "poaid"])
def test_help_fits_80_columns_and_shows_no_mark_up(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    app = poaid.cli.main.app if program == "poaid" else poai_tools.cli.app
    for words in list_help(typer.main.get_command(app), ()):
        for flag in ("-h", "--help"):
            result = CliRunner().invoke(app, [*words, flag], prog_name=program)
            assert result.exit_code == 0, words
            lines = result.output.splitlines()
            assert [line for line in lines if len(line) > 80 or "\\" in line or "│" in line] == [], words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", ["poai", "poaid"])
def test_completion_can_be_installed(program: str, shell: str, tmp_path: Path) -> None:
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else the shell that runs these tests is taken
    settings = {**os.environ, **named, "HOME": str(tmp_path), "SHELL": shell}
    tool = Path(sys.executable).with_name(program)
    done = subprocess.run(
        [tool, "--install-completion", shell], env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert any(program in path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file())


def test_a_command_is_completed() -> None:
    words = {"_POAID_COMPLETE": "complete_bash", "COMP_WORDS": "poaid gener", "COMP_CWORD": "1"}
    done = subprocess.run([COMMAND], env={**os.environ, **words}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["generate-key"]


@pytest.mark.parametrize("arguments", [(), ("mine",), ("verify",)])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(run: Run, arguments: tuple[str, ...], flag: str) -> None:
    status, out, err = run(*arguments, flag)
    assert (status, err) == (0, "")
    assert "Usage: poaid" in out
    if arguments:
        assert "--data-dir" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("mine",),
        ("mine", "--data-dir", "d"),
        ("mine", "--blocks", "1"),
        ("mine", "--blocks", "0", "--data-dir", "d"),
        ("mine", "--blocks", "x", "--data-dir", "d"),
        ("mine", "--blocks", "1", "--data-dir", "d", "--threads", "0"),
        ("mine", "--blocks", "1", "--data-dir", "d", "--odd"),
        ("verify",),
        ("verify", "--data-dir", "d", "more"),
        ("odd",),
        ("--odd",),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


ERRORS = {
    ("mine", "--blocks", 1, "--data-dir", "d", "--network", "odd"): "error: no network 'odd' (No such file",
    ("mine", "--blocks", 1, "--data-dir", "d", "--network", "."): "error: no network '.' (Is a directory)",
    ("mine", "--blocks", 1, "--data-dir", "d", "--network", "mainnet"): "error: parameters/model-unpinned: ",
    ("mine", "--blocks", 1, "--data-dir", "d", "--model", "odd"): "error: no model 'odd': give the path of a GGUF",
    (
        "mine",
        "--blocks",
        1,
        "--data-dir",
        "d",
        "--model",
        "x" * 300,
    ): f"error: [Errno {errno.ENAMETOOLONG}] File name",
    ("mine", "--blocks", 1, "--data-dir", "d", "--model", "junk"): "error: ",
    ("mine", "--blocks", 1, "--data-dir", "d", "--model", "tinyllama"): "error: parameters/model-unpinned: ",
    ("mine", "--blocks", 1, "--data-dir", "d", "--target", "0"): "error: --target '0': parameters/target-flag: ",
    ("mine", "--blocks", 1, "--data-dir", "d", "--target", "easy"): "error: --target 'easy' is no number: give 1..1000",
    ("mine", "--blocks", 1, "--data-dir", "d", "--target", "0x1" + "0" * 64): "error: --target '0x1000",
    ("mine", "--blocks", 1, "--data-dir", "d", "--miner-address", "0x12"): "error: --miner-address '0x12' is no",
    ("mine", *MINIMAL, "--blocks", 1, "--data-dir", "junk"): "error: junk/chain.sqlite3: File exists; give a",
    ("mine", *MINIMAL, "--blocks", 1, "--data-dir", "junk/x"): "error: junk/x/chain.sqlite3: Not a directory; give a",
    ("mine", *MINIMAL, "--blocks", 1, "--data-dir", "y" * 300): "error: ",
    ("verify", "--data-dir", "none"): "error: none holds no chain (chain.sqlite3): make one with `poaid mine",
    ("verify", "--data-dir", "junk"): "error: junk holds no chain (chain.sqlite3): make one with `poaid mine",
    ("verify", "--data-dir", "z" * 300): "error: ",
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.items(), ids=lambda value: " ".join(map(str, value))[-60:])
def test_errors_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk").write_bytes(b"no model, no folder")
    status, out, err = run(*arguments)
    usage = message.startswith("error: --")
    assert (status, out) == (2 if usage else 1, ""), err
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["junk"]


def test_another_network_in_the_folder(mined: MinedChain, run: Run) -> None:
    status, _, err = run("mine", *MINIMAL, "--blocks", 1, "--data-dir", mined.folder)
    assert (status, err.count("\n")) == (1, 1)
    assert f"error: {mined.folder} belongs to network " in err
    assert re.search(r"\(epoch_blocks \d+ there, \d+ here; .*initial_target 0x[0-9a-f]+\.\.\. there, ", err)


def test_a_folder_says_its_network_model_and_target(mined: MinedChain, copy_of: Callable[[], Path], run: Run) -> None:
    """No flag but --data-dir is needed again; and who gets the subsidy has a key there."""
    folder = copy_of()
    status, out, err = run("mine", "--blocks", 1, "--data-dir", folder)
    assert (status, out.partition(";")[0]) == (0, f"mined 1 blocks up to height {len(mined.headers)}"), err
    with Database.open(folder) as store:
        assert store.read_network() == mined.network
        miner = compute_address(read_plain_key(folder / MINER_KEY_NAME))
        assert store.read_state()[miner].balance == 5 * 10**18
    flag = f"{mined.network.config.initial_target:#x}"
    assert run("mine", "--blocks", 1, "--data-dir", folder, "--model", "mini", "--target", flag)[0] == 0
    status, _, err = run("mine", "--blocks", 1, "--data-dir", folder, "--target", "3")
    assert (status, err.count("\n")) == (1, 1)
    assert "(initial_target 0x" in err


def test_mining_goes_on_and_pays_the_address(tmp_path: Path, run: Run) -> None:
    address = "0x" + "AB" * 20
    for height in (1, 2):
        status, out, _ = run("mine", *MINIMAL, "--blocks", 1, "--data-dir", tmp_path, "--miner-address", address)
        assert (status, out.startswith(f"mined 1 blocks up to height {height};")) == (0, True)
    with Database.open(tmp_path) as store:
        assert {a.hex(): account.balance for a, account in store.read_state().items()} == {"ab" * 20: 10 * 10**18}
    status, out, _ = run("verify", "--data-dir", tmp_path, "--threads", 1)
    assert (status, out.partition(" of ")[0]) == (0, "2 blocks")


def test_a_model_that_was_moved(tmp_path: Path, mini_path: Path, run: Run) -> None:
    model, folder = tmp_path / "a.gguf", tmp_path / "chain"
    shutil.copy(mini_path, model)
    network = ("--network", "minimal", "--target", "1000")
    assert run("mine", *network, "--model", model, "--blocks", 1, "--data-dir", folder)[0] == 0
    assert run("verify", "--data-dir", folder)[0] == 0
    model.rename(tmp_path / "b.gguf")
    status, _, err = run("verify", "--data-dir", folder)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: no model '{model}'")
    assert run("verify", "--data-dir", folder, "--model", tmp_path / "b.gguf")[0] == 0
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    status, _, err = run("verify", "--data-dir", folder, "--model", tmp_path / "b.gguf")
    assert (status, err.count("\n")) == (1, 1)
    assert "b.gguf is not this network's model" in err


def test_an_empty_chain_is_valid(tmp_path: Path, network: object, mined: MinedChain, run: Run) -> None:
    Database.create_or_open(tmp_path, mined.network, "mini").close()
    status, out, _ = run("verify", "--data-dir", tmp_path)
    assert status == 0
    assert out.startswith("0 blocks of network ")
    assert out.endswith("; 0 accounts\n")


def test_the_logs_are_json_where_nobody_looks(tmp_path: Path, run: Run) -> None:
    _, _, err = run("mine", *MINIMAL, "--blocks", 1, "--data-dir", tmp_path)
    names = ["Chain opened", "Subsidies go to", "Generated quiz", "Block mined!"]
    said = [json.loads(line) for line in err.splitlines()]
    events = [event for event in said if event["event"].partition(":")[0] in names]  # a first start says more
    assert [event["event"].partition(":")[0] for event in events] == names
    assert (events[0]["height"], events[0]["version"]) == (0, version("poai"))
    assert events[2]["event"] == f"Generated quiz: {events[2]['quiz']}"
    assert type(events[2]["quizzes_per_second"]) is float
    assert all(event["level"] == "info" for event in events)


def heed_interrupts() -> None:
    """Undo what a shell does to the jobs that it starts in the background: they would ignore Ctrl-C for good."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_keeps_what_was_logged(tmp_path: Path) -> None:
    command = [COMMAND, "mine", *MINIMAL, "--blocks", "100000", "--data-dir", str(tmp_path)]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=heed_interrupts, **pipes) as process:  # noqa: PLW1509  no threads here
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if '"height": 2' in line and "Block mined!" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert lines[-1] == "stopped; every block that was logged is stored\n"
    mined_blocks = sum("Block mined!" in line for line in lines)
    with Database.open(tmp_path) as store:
        assert mined_blocks <= store.read_height() <= mined_blocks + 1


@pytest.mark.parametrize(
    ("wei", "text"),
    [(0, "0 POAI"), (5 * 10**18, "5 POAI"), (1, "0.000000000000000001 POAI"), (15 * 10**17, "1.5 POAI")],
)
def test_amounts(wei: int, text: str) -> None:
    assert format_poai(wei) == text


def test_help_shows_defaults_that_are_words(run: Run) -> None:
    status, text, _ = run("run", "--help")
    assert status == 0
    out = " ".join(text.split())
    for default in ("of a key in the data directory", "p2p-port + 4000", "never", "all; profile llama.cpp: 1"):
        assert f"[default: {default}]" in out
