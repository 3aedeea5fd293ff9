"""Real processes in what surrounds them: signals to process 1, logs that nobody takes, closed streams."""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.processes import PATIENCE_S, get_free_port

pytestmark = pytest.mark.slow

POAID = (sys.executable, "-m", "poaid")
MINI = ("--network", "minimal", "--model", "mini", "--target", "1000", "--threads", "1")
AS_PROCESS_1 = ("unshare", "--user", "--map-root-user", "--pid", "--fork")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and /proc are Linux's")


def start(*arguments: object) -> subprocess.Popen[str]:
    # A shell's background job has the one ignored, `nohup` the other, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    return subprocess.Popen([*map(str, arguments)], text=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """Read standard error up to the line with a text; the test's time-out bounds it."""
    assert process.stderr is not None
    lines = list[str]()
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return line
    raise AssertionError(f"no {text!r} in {lines}")


def run_flags(folder: Path) -> list[object]:
    return [
        "run", *MINI, "--data-dir", folder, "--p2p-host", "127.0.0.1", "--p2p-port", get_free_port(), "--http-port", 0,
        "--no-mdns",
    ]  # fmt: skip


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, list[str]]:
    """Send a signal; return the exit status and the lines that were written after it."""
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err.splitlines()


# Signals.


WAITS = "import sys, time\ndef main() -> None: ...\nprint('importing', file=sys.stderr)\ntime.sleep(60)\n"


@LINUX
def test_process_1_hears_sigterm_before_anything_is_imported(tmp_path: Path) -> None:
    """As in a container: the kernel drops a signal to process 1 that nobody handles."""
    if shutil.which("unshare") is None or subprocess.run([*AS_PROCESS_1, "true"], check=False).returncode:
        pytest.skip("process namespaces cannot be made here")
    (tmp_path / "slow_program.py").write_text(WAITS)
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    code = f"{begin}; from poaid.process.entry import enter; enter('slow_program')"
    outer = start(*AS_PROCESS_1, sys.executable, "-c", code)
    wait_for_line(outer, "importing")
    (inner,) = (Path(f"/proc/{outer.pid}/task/{outer.pid}/children")).read_text().split()
    os.kill(int(inner), signal.SIGTERM)
    _, err = outer.communicate(timeout=PATIENCE_S)
    assert (outer.returncode, err) == (128 + signal.SIGTERM, "stopped\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_node_that_loads_ends_as_one_that_runs(tmp_path: Path, number: signal.Signals) -> None:
    process = start(*POAID, *run_flags(tmp_path / "chain"))
    wait_for_line(process, "Loading the model")
    status, lines = end(process, number)
    assert status == 0
    assert "Stopping; every block that was logged is stored" in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_mine_says_what_is_stored(tmp_path: Path) -> None:
    process = start(*POAID, "mine", *MINI, "--blocks", 100_000, "--data-dir", tmp_path / "chain")
    wait_for_line(process, "Block mined!")
    status, lines = end(process)
    assert (status, lines[-1]) == (128 + signal.SIGTERM, "stopped; every block that was logged is stored")


def handles(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@LINUX
@pytest.mark.parametrize("command", ["run", "mine", "verify", "import", "export", "status", "doctor", "generate-key"])
def test_every_command_ends_at_sigterm_from_its_first_moment(tmp_path: Path, command: str) -> None:
    process = start(*POAID, command)
    deadline = time.monotonic() + PATIENCE_S
    while not handles(process, signal.SIGTERM):
        assert process.poll() is None, "it ended before it had a handler"
        assert time.monotonic() < deadline
    assert end(process) == (128 + signal.SIGTERM, ["stopped"])


# The environment.


def execute(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, arguments)], capture_output=True, text=True, errors="replace", check=False, timeout=120,
        env=os.environ | environment,
    )  # fmt: skip


def test_bad_values_are_one_line_each(tmp_path: Path, mini_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/m\xff.gguf"
    shutil.copy(os.fsencode(mini_path), odd)
    late = tmp_path / "late.toml"
    made = execute(
        sys.executable,
        "-m",
        "poai_tools",
        "network",
        "new",
        "--from",
        "minimal",
        "--genesis-timestamp",
        2**64 - 1,
        late,
    )
    assert made.returncode == 0, made.stderr
    chain = ("--data-dir", tmp_path / "chain")
    for arguments, status, text in (
        (("run", *MINI, *chain, "--p2p-host", "localhost"), 2, "--p2p-host 'localhost' is no IP address"),
        (("mine", "--blocks", 1, "--model", os.fsdecode(odd), *chain), 1, "is not UTF-8: rename the file"),
        (("mine", "--blocks", 1, "--model", "mini", "--network", late, *chain), 1, "no time stamp is left after"),
    ):
        done = execute(*POAID, *arguments)
        assert (done.returncode, text in done.stderr.splitlines()[-1]) == (status, True), done.stderr
        assert "Traceback" not in done.stderr
    done = execute(*POAID, "doctor", "--model", "mini", "--network", late)
    assert (done.returncode, "no block can follow it" in done.stdout) == (1, True), done
    assert done.stderr == ""


def test_a_terminal_that_knows_ascii_only_gets_escapes() -> None:
    explain = (sys.executable, "-m", "poai_tools", "explain", "--vector", "block/check_block/ninth", "--no-replay")
    done = execute(*explain, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


@LINUX
def test_a_user_that_the_system_does_not_know_has_a_home_that_cannot_be_written() -> None:
    """As `docker run --user 54321`: no entry in passwd, no HOME."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    code = (
        "import os, platformdirs; from poaid.process.entry import find_home; os.setuid(54321); del os.environ['HOME'];"
        "find_home(); print(platformdirs.user_cache_path('poai'))"
    )
    done = execute(sys.executable, "-c", code, HOME="/")
    assert (done.returncode, done.stdout, done.stderr) == (0, "/nonexistent/.cache/poai\n", "")


# Peers.


def test_names_of_this_machine_and_the_own_identity(tmp_path: Path) -> None:
    """`/dns4/localhost` is dialled; a copy of a data directory's identity is refused, and one that others read."""
    first = start(*POAID, *run_flags(tmp_path / "first"), "--no-mine")
    try:
        address = json.loads(wait_for_line(first, '"Listening"'))["address"]
        named = address.replace("/ip4/127.0.0.1/", "/dns4/localhost/")
        second = start(*POAID, *run_flags(tmp_path / "second"), "--no-mine", "--peer-multiaddr", named)
        try:
            assert json.loads(wait_for_line(second, '"Peer connected"'))["outbound"] is True
        finally:
            assert end(second)[0] == 0
        (tmp_path / "copy").mkdir()
        key = shutil.copy2(tmp_path / "first" / "p2p.key", tmp_path / "copy")
        copied = (*POAID, *run_flags(tmp_path / "copy"), "--peer-multiaddr", named)
        done = execute(*copied)
        assert (done.returncode, "is this node itself: leave it out" in done.stderr) == (2, True), done.stderr
        Path(key).chmod(0o640)
        done = execute(*copied)
        assert (done.returncode, "p2p.key is open to other users (mode 0640)" in done.stderr) == (1, True), done.stderr
    finally:
        assert end(first)[0] == 0


# The log.


def open_unread(kind: str) -> int:
    """Return a descriptor for standard error that takes little or nothing."""
    if kind == "full disk":
        return os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    if kind == "reader left":
        os.close(reading)
    elif sys.platform == "linux":  # elsewhere pipes hold a few thousand bytes anyway
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    return writing


def wait_for_height(process: subprocess.Popen[str], port: int, height: int) -> None:
    deadline, status = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended"
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=PATIENCE_S) as answer:
            status = json.load(answer)
            if status["height"] >= height:
                return
        time.sleep(0.05)
    raise AssertionError(f"no height {height}: {status}")


@LINUX
@pytest.mark.parametrize("kind", ["reader stalls", "reader left", "full disk"])
def test_a_node_goes_on_when_nobody_takes_its_log(tmp_path: Path, kind: str) -> None:
    """Its first blocks alone are more lines than the pipe holds; and it still ends at a signal."""
    port, unread = get_free_port(), open_unread(kind)
    flags = run_flags(tmp_path / "chain")
    flags[flags.index("--http-port") + 1] = port
    with subprocess.Popen([*map(str, (*POAID, *flags))], stdin=subprocess.DEVNULL, stderr=unread, text=True) as process:
        try:
            wait_for_height(process, port, 15)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            os.close(unread)


@pytest.mark.parametrize("closed", ["2>&-", "0<&-", "1>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_keep_no_command_from_its_work(tmp_path: Path, closed: str) -> None:
    """The numbers of closed descriptors do not go to the chain's files, which a library's message would damage."""
    folder = tmp_path / "chain"
    mine = shlex.join([*POAID, "mine", *MINI, "--blocks", "2", "--data-dir", str(folder)])
    done = subprocess.run(["sh", "-c", f"{mine} {closed}"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [*POAID, "verify", "--data-dir", str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 blocks of network ")
