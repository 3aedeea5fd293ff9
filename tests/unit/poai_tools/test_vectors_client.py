"""Clients that do everything wrong: each gets a fault in one line, in time, and leaves no process behind."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from poai_tools.vectors import client as client_module
from poai_tools.vectors.client import MAX_ANSWER, Answer, Client, find_message
from poai_tools.vectors.errors import VectorsError

GENEROUS = 20.0
"""Seconds for an answer that comes at once; never waited for."""
SHORT = 0.4
PRELUDE = """
import json, os, sys, time
def answer(request, **fields):
    print(json.dumps({"id": request["id"], **fields}), flush=True)
def requests():
    for line in sys.stdin:
        request = json.loads(line)
        if request["id"] == "start":
            answer(request, code="client/not-implemented")
        else:
            yield request
"""
GOOD = "for r in requests(): answer(r, output=r['input'])"

pytestmark = pytest.mark.sockets


def make_command(body: str) -> list[str]:
    return [sys.executable, "-S", "-c", PRELUDE + body]


def ask(body: str, timeout: float = GENEROUS, data: Any = 1) -> Answer:
    with Client(make_command(body), timeout) as client:
        return client.ask("drbg", "below", "one", data)


def test_an_answer_comes_back() -> None:
    with Client(make_command(GOOD), GENEROUS) as client:
        for n in range(3):
            assert client.ask("s", "f", f"case-{n}", {"n": n}) == Answer(output={"n": n})
    assert ask("for r in requests(): answer(r, code='page/rule')") == Answer(code="page/rule")


def test_a_null_output_is_an_output() -> None:
    assert ask("for r in requests(): answer(r, output=None)") == Answer(output=None)


def test_a_large_request_and_a_large_answer_pass() -> None:
    data = "0x" + "5a" * 2**20
    assert ask(GOOD, data=data).output == data


def test_long_integers_keep_their_digits() -> None:
    assert ask('for r in requests(): print(\'{"id":"one","output":%d}\' % 2**200, flush=True)').output == 2**200


FAULTS = {
    "dead": ("next(requests()); sys.exit(3)", "the client ended (exit status 3) without an answer"),
    "killed": ("next(requests()); os.kill(os.getpid(), 9)", "the client ended (signal 9) without an answer"),
    "dies with words": ("next(requests()); sys.exit('no such\\nmodel')", "; standard error says \"model\""),
    "crash on a request": ("next(requests()); 1/0", "ZeroDivisionError"),
    "garbage": ("next(requests()); print('hello', flush=True); time.sleep(60)", 'is no JSON: "hello"'),
    "bytes": ("next(requests()); os.write(1, b'\\xff\\x00\\n'); time.sleep(60)", "is not UTF-8"),
    "no object": ("next(requests()); print('[1]', flush=True); time.sleep(60)", "is no JSON object"),
    "not a number": ("next(requests()); print('{\"id\":\"one\",\"output\":NaN}', flush=True)", "has NaN"),
    "too deep": ("next(requests()); print('[' * 100000, flush=True); time.sleep(60)", "nested too deeply"),
    "too many digits": (
        "next(requests()); print('9' * 5000, flush=True); time.sleep(60)",
        "an integer of 5,000 digits, more than 400",
    ),
    "empty line": ("next(requests()); print(flush=True); time.sleep(60)", "is no JSON"),
    "wrong id": ("next(requests()); answer({'id': 'two'}, output=1); time.sleep(60)", "another id"),
    "id of another type": ("next(requests()); answer({'id': 1}, output=1); time.sleep(60)", "another id"),
    "no id": ("next(requests()); print('{}', flush=True); time.sleep(60)", "another id"),
    "neither": ("[answer(r) for r in requests()]", 'either "output" or "code"'),
    "both": ("[answer(r, output=1, code='a/b') for r in requests()]", 'either "output" or "code"'),
    "code is no text": ("[answer(r, code=7) for r in requests()]", 'either "output" or "code"'),
    "a field twice": (
        'next(requests()); print(\'{"id":"one","output":{"a":1,"a":1}}\', flush=True)',
        'the field "a" twice',
    ),
    "two answers": (
        "[print(json.dumps({'id': r['id'], 'output': 1}) * 1 + '\\n{}', flush=True) for r in requests()]",
        "more than one line",
    ),
    "endless line": (
        "next(requests())\nwhile True: sys.stdout.write('x' * 65536)",
        f"a line of more than {MAX_ANSWER:,} bytes",
    ),
    "closes its output": ("next(requests()); os.close(1); time.sleep(60)", "the client closed its output"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.timeout(30)
def test_a_broken_client_gets_a_fault(name: str) -> None:
    body, words = FAULTS[name]
    found = ask(body)
    assert found.fault is not None
    assert words in found.fault
    assert found.fault.isascii()
    assert "\n" not in found.fault
    assert len(found.fault) < 300


TIME_OUTS = {
    "silent": "[r for r in requests()]",
    "slow": "next(requests()); time.sleep(60)",
    "half a line": "next(requests()); sys.stdout.write('{'); sys.stdout.flush(); time.sleep(60)",
    "drips": "next(requests())\nwhile True: sys.stdout.write('x'); sys.stdout.flush(); time.sleep(0.01)",
    "babbles on standard error": "next(requests())\nwhile True: sys.stderr.write('x' * 65536)",
    "stopped": "next(requests()); import signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "ignores signals": "next(requests()); import signal; signal.signal(15, signal.SIG_IGN); time.sleep(60)",
}


@pytest.mark.parametrize("name", TIME_OUTS)
@pytest.mark.timeout(30)
def test_a_client_without_an_answer_times_out(name: str) -> None:
    start = time.monotonic()
    with Client(make_command(TIME_OUTS[name]), SHORT) as client:
        fault = client.ask("drbg", "below", "one", 1).fault
        assert client.timed_out
    assert fault is not None
    assert fault.startswith("no answer within 0.4 s")
    assert time.monotonic() - start < SHORT + 5


@pytest.mark.timeout(30)
def test_a_client_that_never_reads_times_out() -> None:
    fault = ask("answer(json.loads(sys.stdin.readline()), output=1); time.sleep(60)", SHORT, "x" * 2**20).fault
    assert fault is not None
    assert "did not read the whole request" in fault


@pytest.mark.timeout(30)
def test_a_client_that_closes_its_input_but_stays_times_out() -> None:
    assert str(
        ask("answer(json.loads(sys.stdin.readline()), output=1); os.close(0); time.sleep(60)", SHORT, "x" * 2**20).fault
    ).startswith("no answer within")


@pytest.mark.timeout(30)
def test_standard_error_is_drained() -> None:
    body = "for r in requests(): sys.stderr.write('x' * 2**20); sys.stderr.flush(); answer(r, output=1)"
    with Client(make_command(body), GENEROUS) as client:
        assert [client.ask("s", "f", "one", 1).output for _ in range(3)] == [1, 1, 1]


@pytest.mark.timeout(30)
def test_a_closed_standard_error_does_not_matter() -> None:
    body = "os.close(2)\nfor r in requests(): time.sleep(0.01); answer(r, output=1)"
    with Client(make_command(body), GENEROUS) as client:
        assert [client.ask("s", "f", "one", 1).output for _ in range(3)] == [1, 1, 1]


@pytest.mark.timeout(30)
def test_a_late_second_answer_is_blamed_on_its_own_request(tmp_path: Path) -> None:
    go, flag = tmp_path / "go", tmp_path / "second"
    body = f"""
for r in requests():
    answer(r, output=r["id"])
    if r["id"] == "two":
        while not os.path.exists({str(go)!r}): time.sleep(0.005)
        answer(r, output=2)
        open({str(flag)!r}, "w").close()
"""
    with Client(make_command(body), GENEROUS) as client:
        assert client.ask("s", "f", "one", 1) == Answer(output="one")
        assert client.ask("s", "f", "two", 1) == Answer(output="two")
        assert client.take_stray() is None
        go.touch()
        while not flag.exists():
            time.sleep(0.005)
        assert client.ask("s", "f", "three", 1) == Answer(output="three")
        stray = client.take_stray()
        assert stray is not None
        assert stray.startswith("the client wrote another line after its answer: ")
        assert client.take_stray() is None


@pytest.mark.timeout(30)
def test_a_second_answer_that_comes_after_the_next_request_is_blamed_on_its_own() -> None:
    body = "last = None\nfor r in requests():\n  if last: answer(last, output=2)\n  answer(r, output=1)\n  last = r"
    with Client(make_command(body), GENEROUS) as client:
        assert client.ask("s", "f", "one", 1) == Answer(output=1)
        assert client.ask("s", "f", "two", 1) == Answer(output=1)
        assert "another line" in str(client.take_stray())


@pytest.mark.timeout(30)
def test_a_second_answer_to_the_last_request_is_seen_when_the_client_is_closed(tmp_path: Path) -> None:
    with Client(
        make_command("for r in requests(): answer(r, output=1); last = r\nanswer(last, output=2)"), GENEROUS
    ) as client:
        assert client.ask("s", "f", "one", 1) == Answer(output=1)
        client.close()
        assert "another line" in str(client.take_stray())


START_FAULTS = {
    "dead at once": ("sys.exit(3)", "the client ended (exit status 3) without an answer"),
    "says why": (
        "sys.stderr.write('\\x1b[31mError: no such\\nmodel\\n'); sys.exit(3)",
        "  ?[31mError: no such\n  model",
    ),
    "long-winded": ("sys.exit('word\\n' * 100)", "\n  ... and 80 lines more"),
    "a banner": (
        "print('ready', flush=True); [answer(r, output=1) for r in requests()]",
        'the answer is no JSON: "ready"',
    ),
    "neither output nor code": ("answer(json.loads(sys.stdin.readline()))", 'either "output" or "code"'),
    "silent": ("time.sleep(60)", "no answer within 0.4 s"),
    "endless line": ("\nwhile True: sys.stdout.write('x' * 65536)", f"a line of more than {MAX_ANSWER:,} bytes"),
    "babbles on standard error": ("\nwhile True: sys.stderr.write('x' * 65536)", "no answer within 0.4 s"),
}  # fmt: skip


@pytest.mark.parametrize("name", START_FAULTS)
@pytest.mark.timeout(30)
def test_a_client_that_does_not_start_ends_the_run_with_its_own_words(name: str) -> None:
    body, words = START_FAULTS[name]
    start_time = SHORT if "within" in words else GENEROUS
    with Client(make_command(body), GENEROUS, start_time=start_time) as client:
        with pytest.raises(VectorsError, match="the client does not start: ") as caught:
            client.ask("drbg", "below", "one", 1)
        assert words in str(caught.value)
        assert str(caught.value).replace("\n", "").isprintable()
        assert caught.value.status == 2


@pytest.mark.timeout(30)
def test_the_start_does_not_count_against_an_answer() -> None:
    with Client(make_command(f"time.sleep({2 * SHORT})\n" + GOOD), SHORT) as client:
        assert client.ask("drbg", "below", "one", 1) == Answer(output=1)


MESSAGES = {
    "python": (
        b"Traceback:\n  File x\nModuleNotFoundError: No module named 'x'\n",
        b"ModuleNotFoundError: No module named 'x'",
    ),
    "node": (
        b"node:internal\n  throw err;\n\nError: Cannot find module './x'\nRequire stack:\n\nNode.js v20.20.2\n",
        b"Error: Cannot find module './x'",
    ),
    "go": (
        b"panic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain.main()\nexit status 2\n",
        b"panic: runtime error: index out of range",
    ),
    "rust": (
        b"thread 'main' panicked at src/main.rs:3:5:\nno model\nnote: run with RUST_BACKTRACE\n",
        b"thread 'main' panicked at src/main.rs:3:5: no model",
    ),
    "shell": (b"sh: 1: x: not found\n", b"sh: 1: x: not found"),
    "nothing": (b" \n", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_the_line_of_standard_error_that_says_what_is_wrong_is_shown(name: str) -> None:
    errors, line = MESSAGES[name]
    assert find_message(errors) == line


@pytest.mark.timeout(30)
def test_a_client_that_dies_now_and_then_is_started_again() -> None:
    body = "for n, r in enumerate(requests()):\n  if n == 2: os._exit(1)\n  answer(r, output=n)"
    with Client(make_command(body), GENEROUS) as client:
        found = [client.ask("s", "f", "one", 1) for _ in range(6)]
    assert [answer.output for answer in found] == [0, 1, None, 0, 1, None]
    assert [answer.fault is not None for answer in found] == [False, False, True] * 2


@pytest.mark.timeout(30)
def test_restarts_are_bounded() -> None:
    with Client(make_command("next(requests()); os._exit(1)"), GENEROUS, max_restarts=2) as client:
        faults = [str(client.ask("s", "f", "one", 1).fault) for _ in range(5)]
    assert ["ended" in fault for fault in faults] == [True, True, True, False, False]
    assert faults[4] == "not asked: the client failed too often"


@pytest.mark.parametrize("command", [["/"], ["no-such-program-of-poai"], ["a\0b"]])
def test_a_program_that_cannot_start_is_wrong_usage(command: list[str]) -> None:
    with pytest.raises(VectorsError, match="cannot be started") as caught:
        Client(command, 1).ask("s", "f", "one", 1)
    assert caught.value.status == 2


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.fixture
def quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CLOSING_TIME", 0.05)


ESCAPES = {
    "a child": "",
    "a child in a session of its own": ", start_new_session=True",
}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
@pytest.mark.usefixtures("quick_end")
@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.timeout(30)
def test_nothing_survives_the_end(escape: str) -> None:
    body = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]{ESCAPES[escape]})
for r in requests(): answer(r, output=[os.getpid(), child.pid])
time.sleep(60)
"""
    with Client(make_command(body), GENEROUS) as client:
        pids = client.ask("s", "f", "one", 1).output
        assert all(map(is_alive, pids))
    deadline = time.monotonic() + 5
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, pids))


def test_no_file_descriptor_is_left_open() -> None:
    count = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    for _ in range(3):
        ask("os.close(2); next(requests()); os._exit(1)")
        ask(GOOD)
    if count:
        assert len(os.listdir("/proc/self/fd")) == count  # noqa: PTH208


def test_requests_are_one_line_of_ascii(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    body = (
        "answer(json.loads(sys.stdin.readline()), output=1); line = sys.stdin.buffer.readline();"
        f"open({str(seen)!r}, 'wb').write(line); answer(json.loads(line), output=1)"
    )
    ask(body, data={"text": "line\nbreak \u2028 é"})
    line = seen.read_bytes()
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "id": "one",
        "suite": "drbg",
        "function": "below",
        "input": {"text": "line\nbreak \u2028 é"},
    }
