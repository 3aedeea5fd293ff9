"""`poai vectors`: exit statuses, what is printed, and clients good and bad from end to end."""

import hashlib
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import poai_spec
from poai_spec.basics.drbg import Drbg
from poai_tools import cli
from poai_tools.vectors import check, disk, pack
from poai_tools.vectors.client import BAD_REQUEST, NOT_IMPLEMENTED, Answer
from poai_tools.vectors.errors import VectorsError
from poai_tools.vectors.languages import LANGUAGES
from poai_tools.vectors.registry import FUNCTIONS
from poai_tools.vectors.serve import MAX_REQUEST, answer_line, serve
from poai_tools.vectors.suites import SUITES, load_all

load_all()

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "test_vectors"
SERVE = f"{shlex.quote(sys.executable)} -m poai_tools.vectors.cli serve"
Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.sockets


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `poai vectors` with arguments in the checkout: exit status, standard output, standard error."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poai", "vectors", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Write a client whose `change(request, answer)` alters what our specification answers for drbg."""

    def make(change: str) -> str:
        path = tmp_path / "client.py"
        path.write_text(
            "import json, sys\n"
            "from poai_tools.vectors.registry import FUNCTIONS\n"
            "from poai_tools.vectors.serve import answer\n"
            "from poai_tools.vectors.suites import load_all; load_all()\n"
            f"def change(request, answer):\n    {change}\n    return answer\n"
            "for line in sys.stdin:\n"
            "    r = json.loads(line)\n"
            "    a = {'id': r['id']} | answer(r['suite'], r['function'], r['input'])\n"
            "    print(json.dumps(a if r['id'] == 'start' else change(r, a)), flush=True)\n"
        )
        return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"

    return make


def read_table(out: str) -> dict[str, list[int]]:
    """Return the numbers of each row: passed, failed, not implemented, skipped."""
    rows = re.findall(r"^│ (\w+) +│([^\n]*)│[^│\n]*│$", out, re.MULTILINE)
    return {name: [int(cell.strip() or 0) for cell in cells.split("│")] for name, cells in rows}


def test_our_specification_passes_the_drbg_suite(run: Run) -> None:
    status, out, _ = run("check", "--suite", "drbg")
    assert status == 0
    count = len(check.read_cases(VECTORS, ["drbg"]))
    assert read_table(out) == {"drbg": [count, 0, 0, 0], "all": [count, 0, 0, 0]}


def test_our_specification_passes_as_a_client(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    status, out, _ = run("check", "--suite", "drbg", "--client", SERVE, "--json", report)
    assert status == 0
    document = json.loads(report.read_text())
    assert document["counts"]["passed"] == len(document["cases"]) == read_table(out)["drbg"][0]


def test_a_wrong_value_is_shown_with_its_place(run: Run, program: Callable[[str], str], tmp_path: Path) -> None:
    client = program("if r['id'] == 'drbg/below/n-ten': answer['output']['values'][2] = '77'")
    report = tmp_path / "report.json"
    status, out, _ = run("check", "--suite", "drbg", "--client", client, "--json", report)
    assert status == 1
    expected = json.loads((VECTORS / "drbg" / "below.json").read_text())["cases"]
    value = next(case for case in expected if case["id"] == "n-ten")["output"]["values"][2]
    assert f'FAILED drbg/below/n-ten: at /values/2: expected "{value}", found "77"' in out
    (failed,) = [case for case in json.loads(report.read_text())["cases"] if case["status"] == "failed"]
    assert (failed["id"], failed["pointer"]) == ("n-ten", "/values/2")


def test_a_client_may_lack_functions(run: Run, program: Callable[[str], str]) -> None:
    client = program(f"if r['function'] == 'below': return {{'id': r['id'], 'code': '{NOT_IMPLEMENTED}'}}")
    status, out, _ = run("check", "--suite", "drbg", "--client", client)
    assert status == 0
    assert read_table(out)["drbg"][2] == len(check.read_file(VECTORS / "drbg" / "below.json"))


def test_a_client_that_does_not_start_is_said_once_with_its_own_words(run: Run, tmp_path: Path) -> None:
    client = f"{shlex.quote(sys.executable)} -c 'import no_such_module_of_poai'"
    status, out, err = run("check", "--client", client, "--json", tmp_path / "report.json")
    assert (status, out) == (2, "")
    assert err.startswith(
        "error: the client does not start: the client ended (exit status 1) without an answer; its st"
    )
    assert err.endswith("  ModuleNotFoundError: No module named 'no_such_module_of_poai'\n")
    assert not (tmp_path / "report.json").exists()


def test_a_client_that_says_nothing_at_its_start(run: Run) -> None:
    status, _, err = run("check", "--case", "below/n-ten", "--client", "sleep 60", "--start-timeout", 0.2)
    assert (status, err) == (2, "error: the client does not start: no answer within 0.2 s\n")


def test_a_silent_client_runs_into_the_time_out(run: Run, program: Callable[[str], str]) -> None:
    client = program("import time; time.sleep(60)")
    status, out, _ = run("check", "--case", "below/n-ten", "--client", client, "--timeout", 0.2)
    assert status == 1
    assert "FAILED drbg/below/n-ten: no answer within 0.2 s" in out


TWICE = "if r['id'] == 'drbg/below/n-ten': import time; print(json.dumps(answer), flush=True); time.sleep(0.2)"


@pytest.mark.parametrize("cases", [["below/n-ten"], ["below/n-ten", "below/n-prime"]])
def test_a_second_answer_fails_its_own_case(run: Run, program: Callable[[str], str], cases: list[str]) -> None:
    """The second line comes late, so that the case had passed by then."""
    arguments = [word for case in cases for word in ("--case", case)]
    status, out, _ = run("check", *arguments, "--client", program(TWICE))
    assert status == 1
    assert "FAILED drbg/below/n-ten: the client wrote another line after its answer" in out
    assert read_table(out)["all"] == [len(cases) - 1, 1, 0, 0]


def test_what_to_build_next_is_said(run: Run, program: Callable[[str], str]) -> None:
    client = program(f"if r['function'] != 'next_uint64': return {{'id': r['id'], 'code': '{NOT_IMPLEMENTED}'}}")
    status, out, _ = run("check", "--suite", "drbg", "--suite", "epoch", "--client", client)
    assert status == 0
    assert out.endswith("next to build: drbg/below (page drbg: Drbg)\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_table_and_the_report(
    run: Run, program: Callable[[str], str], tmp_path: Path, number: signal.Signals
) -> None:
    client = program(
        f"if r['id'] == 'drbg/below/n-ten': import os, time; os.kill(os.getppid(), {int(number)}); time.sleep(60)"
    )
    status, out, err = run("check", "--suite", "drbg", "--client", client, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (status, report["complete"]) == (130, False)
    assert len(report["cases"]) == read_table(out)["all"][0] > 0
    assert re.fullmatch(r"error: stopped: \d+ of \d+ cases were run\n", err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "none"], "no suite is called 'none'"),
        (["--suite", "drbg", "--case", "n-tem"], "no case is called 'n-tem'; the nearest: n-ten"),
        (["--client", "no-such-program-of-poai"], "cannot be started: No such file or directory"),
        (["--client", ""], "command line is empty"),
        (["--client", "'"], "command line is malformed"),
        (["--vectors", "no-such-folder"], "is no folder"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run("check", *arguments)
    assert status == 2
    assert words in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize("content", ["", "[]", '{"suite":"drbg","function":"below","cases":[{}]}', "[" * 5000])
def test_a_damaged_case_file_is_one_line(run: Run, tmp_path: Path, content: str) -> None:
    shutil.copytree(VECTORS / "drbg", tmp_path / "drbg")
    (tmp_path / "drbg" / "below.json").write_text(content)
    status, _, err = run("check", "--suite", "drbg", "--vectors", tmp_path)
    assert status == 1
    assert "below.json" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["drbg/below/n-ten", "below/n-ten", "n-ten"])
def test_one_case_by_its_name(run: Run, name: str) -> None:
    status, out, _ = run("check", "--suite", "drbg", "--case", name)
    assert status == 0
    assert read_table(out)["all"] == [1, 0, 0, 0]


def test_fail_fast_stops_at_the_first_failure(run: Run, program: Callable[[str], str]) -> None:
    status, out, _ = run("check", "--suite", "drbg", "--client", program("sys.exit()"), "--fail-fast")
    assert status == 1
    assert read_table(out)["all"] == [0, 1, 0, 0]


def test_slow_and_pending_cases_and_missing_models_are_skipped_aloud() -> None:
    def make(flags: tuple[str, ...], result: str) -> check.CommittedCase:
        return check.CommittedCase("s", "f", "a", flags, {"model": "large"}, result, {}, None)

    cases = [make(("slow",), "valid"), make((), "pending"), make((), "valid")]
    results = list(check.run_cases(cases, check.SpecAnswerer(), slow=False, find_missing=lambda _: "not at hand"))
    assert [result.status for result in results] == ["skipped"] * 3
    assert [result.detail[:7] for result in results] == ["slow: r", "pending", "not at "]


EXPECTED_OUTPUT = check.CommittedCase("s", "f", "a", (), {}, "valid", {"n": 1, "list": ["a"]}, None)
EXPECTED_CODE = check.CommittedCase("s", "f", "a", (), {}, "invalid", None, "page/rule")


@pytest.mark.parametrize(
    ("output", "pointer"),
    [
        ({"n": 1.0, "list": ["a"]}, "/n"), ({"n": True, "list": ["a"]}, "/n"), ({"n": "1", "list": ["a"]}, "/n"),
        ({"n": 1, "list": ["a", "b"]}, "/list/1"), ({"n": 1, "list": []}, "/list/0"), ({"n": 1}, "/list"),
        ({"n": 1, "list": ["a"], "x/y": 1}, "/x~1y"), ([], ""), (None, ""), ({"n": 1, "list": "a"}, "/list"),
    ],
)  # fmt: skip
def test_outputs_are_compared_exactly(output: Any, pointer: str) -> None:
    result = check.judge(EXPECTED_OUTPUT, Answer(output=output))
    assert (result.status, result.pointer) == ("failed", pointer)


def test_the_order_of_fields_does_not_matter() -> None:
    assert check.judge(EXPECTED_OUTPUT, Answer(output={"list": ["a"], "n": 1})).status == "passed"


def test_codes_are_compared() -> None:
    assert check.judge(EXPECTED_CODE, Answer(code="page/rule")).status == "passed"
    assert check.judge(EXPECTED_CODE, Answer(code="page/other")).detail == 'expected page/rule, found "page/other"'
    assert check.judge(EXPECTED_CODE, Answer(output={})).detail == "expected page/rule, found output {}"
    assert check.judge(EXPECTED_OUTPUT, Answer(code=BAD_REQUEST)).status == "failed"


# generate


def test_generate_check_names_what_differs(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    monkeypatch.chdir(tmp_path)
    status, out, err = run("generate", "drbg", "--check")
    assert status == 1
    assert "missing: test_vectors/drbg/below.json" in out
    assert err.startswith("error: the committed vectors are not those of the specification")
    assert not (tmp_path / "test_vectors").exists()

    status, out, _ = run("generate", "drbg")
    assert status == 0
    assert "written: test_vectors/drbg/below.json" in out
    assert (tmp_path / "test_vectors/drbg/below.json").read_bytes() == (VECTORS / "drbg/below.json").read_bytes()
    assert run("generate", "drbg", "--check")[:2] == (0, "4 files are up to date\n")

    (tmp_path / "test_vectors/drbg/below.json").write_text("{}")
    (tmp_path / "test_vectors/drbg/old.json").write_text("{}")
    status, out, _ = run("generate", "drbg", "--check")
    assert status == 1
    assert "stale: test_vectors/drbg/below.json\nextra: test_vectors/drbg/old.json" in out
    status, out, _ = run("generate", "drbg")
    assert (status, (tmp_path / "test_vectors/drbg/old.json").exists()) == (0, True)


def test_generate_refuses_an_unknown_suite(run: Run) -> None:
    status, _, err = run("generate", "none")
    assert (status, err) == (2, f"error: no suite is called 'none': the suites are {', '.join(SUITES)}\n")


def test_outside_a_checkout(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["generate"], ["pack", "a.zip"]):
        status, _, err = run(*command)
        assert (status, err.count("\n")) == (2, 1)
        assert "run this inside a checkout of the repository" in err
    assert run("check", "--suite", "drbg")[0] == 0


# serve


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{", b"[]", b"null", b"\xff", b"7", b'{"id":"a"}',
     b'{"id":1,"suite":"drbg","function":"below","input":{}}',
     b"[" * 100_000, b"9" * 5000, b'{"id":"a","suite":"drbg","function":"below","input":{},"more":1}'],
)  # fmt: skip
def test_a_malformed_request(line: bytes) -> None:
    assert answer_line(line) == {"id": None, "code": BAD_REQUEST}


@pytest.mark.parametrize(
    ("suite", "data", "code"),
    [("drbg", {}, BAD_REQUEST), ("drbg", None, BAD_REQUEST), ("no", {}, NOT_IMPLEMENTED), (["drbg"], {}, BAD_REQUEST)],
)
def test_a_request_that_cannot_be_computed(suite: Any, data: Any, code: str) -> None:
    line = json.dumps({"id": "a", "suite": suite, "function": "below", "input": data}).encode()
    assert answer_line(line) == {"id": "a", "code": code}


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    line = rb'{"id":"a","suite":"lexicon","function":"parse_lexicon","input":{"text":"\ud800","tail":"0x"}}'
    assert answer_line(line) == {"id": "a", "code": BAD_REQUEST}
    assert answer_line(line.replace(rb"\ud800", rb"\ud83d\ude00"))["code"] == "lexicon/not-json"


def test_serve_goes_on_after_bad_lines(capsys: pytest.CaptureFixture[str]) -> None:
    seed = "0x" + "00" * 32
    good = json.dumps({"id": "a", "suite": "drbg", "function": "next_uint64", "input": {"seed": seed, "count": 1}})
    lines = [b"{", b"x" * (MAX_REQUEST + 10), good.encode(), b"", good.encode()]
    target = io.BytesIO()
    serve(io.BytesIO(b"\n".join(lines)), target)
    found = [json.loads(line) for line in target.getvalue().splitlines()]
    bad = {"id": None, "code": BAD_REQUEST}
    right = {"id": "a", "output": {"values": [str(Drbg(bytes(32)).next_uint64())]}}
    assert found == [bad, bad, right, bad, right]
    assert capsys.readouterr().err.splitlines() == [
        "client/bad-request: the line is no JSON",
        f"client/bad-request: the line has more than {MAX_REQUEST:,} bytes",
        "client/bad-request: the line is no JSON",
    ]


def test_serve_ends_when_nobody_reads() -> None:
    request = json.dumps({"id": "a", "suite": "no", "function": "f", "input": {}})
    done = subprocess.run(
        ["sh", "-c", f"yes {shlex.quote(request)} | {SERVE} | head -n 3"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.count(b"\n") == 3
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


# fuzz


def test_fuzz_finds_shrinks_and_writes_a_difference(run: Run, program: Callable[[str], str], tmp_path: Path) -> None:
    change = "if r['function'] == 'below' and int(r['input']['n']) > 1000: answer['output']['values'].append('7')"
    client, out_folder = program(change), tmp_path / "found"
    arguments = ("fuzz", "--client", client, "--suite", "drbg", "--count", 30, "--seed", 1, "--out", out_folder)
    status, out, err = run(*arguments)
    assert status == 1
    assert "drbg/next_uint64: 30 equal" in out
    assert "DIFFERENT drbg/below" in out
    assert err == "error: the clients differ in 1 of 2 functions\n"
    (path,) = out_folder.iterdir()
    (case,) = json.loads(path.read_text())["cases"]
    assert case["input"] == {"seed": "0x" + "00" * 32, "n": "1001", "count": 0}
    assert (case["result"], case["output"]) == ("valid", {"values": []})

    status, out, _ = run("check", "--file", path)
    assert (status, read_table(out)["all"]) == (0, [1, 0, 0, 0])
    status, out, _ = run("check", "--file", path, "--client", client)
    assert (status, read_table(out)["all"]) == (1, [0, 1, 0, 0])

    content = path.read_bytes()
    run(*arguments)
    assert [p.read_bytes() for p in out_folder.iterdir()] == [content]


def test_fuzz_of_equal_clients_finds_nothing(run: Run) -> None:
    status, out, _ = run("fuzz", "--client", SERVE, "--client", SERVE, "--function", "below", "--count", 20)
    assert (status, out) == (0, "drbg/below: 20 equal\n")


def test_fuzz_asks_once_for_what_a_client_lacks_and_fails_without_any_comparison(
    run: Run, program: Callable[[str], str], tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    client = program(f"open({str(asked)!r}, 'a').write('x'); return {{'id': r['id'], 'code': '{NOT_IMPLEMENTED}'}}")
    status, out, err = run("fuzz", "--client", client, "--suite", "quiz", "--count", 50)
    assert status == 1
    assert set(re.findall(r": (.*)\n", out)) == {"not implemented by the client"}
    assert err.startswith("error: nothing was compared: ")
    assert len(asked.read_text()) == len(out.splitlines())


SLOW_ONE = (
    "import time, sys; sys.argv = ['poai', 'serve']; time.sleep(0.6); from poai_tools.vectors.cli import app; app()"
)


def test_the_start_of_a_reference_does_not_count_against_it(run: Run) -> None:
    client = f"{shlex.quote(sys.executable)} -c {shlex.quote(SLOW_ONE)}"
    status, out, _ = run(
        "fuzz", "--client", client, "--client", client, "--function", "below", "--count", 5, "--timeout", 0.5
    )
    assert (status, out) == (0, "drbg/below: 5 equal\n")


def test_fuzz_fails_where_the_reference_is_too_slow(run: Run, program: Callable[[str], str]) -> None:
    slow = program("import time; time.sleep(60)")
    status, out, err = run("fuzz", "--client", SERVE, "--client", slow, "--function", "below", "--timeout", 0.1)
    assert (status, out) == (1, "drbg/below: 0 equal, 5 without an answer to compare\n")
    assert err == "error: no input of drbg/below had two answers: give more time by --timeout\n"


def test_an_interrupted_fuzz_says_so(run: Run, program: Callable[[str], str]) -> None:
    client = program("import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)")
    status, _, err = run("fuzz", "--client", client, "--suite", "drbg")
    assert (status, err) == (130, "error: stopped: 0 of 2 functions were compared\n")


@pytest.mark.slow
def test_fuzz_reports_a_client_that_dies(run: Run, program: Callable[[str], str]) -> None:
    client = program("if int(r['input']['n']) == 2**64: sys.exit('too large')")
    status, out, _ = run("fuzz", "--client", client, "--function", "below", "--count", 60)
    assert status == 1
    assert 'client:   the client ended (exit status 1) without an answer; standard error says "too large"' in out


def test_fuzz_refuses_wrong_usage(run: Run) -> None:
    assert run("fuzz")[0] == 2
    assert run("fuzz", "--client", "x", "--function", "none")[0] == 2
    assert run("fuzz", "--client", "x", "--suite", "drbg", "--function", "round_shift")[0] == 2
    assert run("fuzz", "--client", "x", "--client", "y", "--client", "z")[0] == 2


# init-client


TOOLS = {"python": "python3", "javascript": "node", "go": "go", "rust": "cargo"}
BAD_LINES = [b"{", b"null", b"7", b'{"id":1,"suite":"a","function":"b","input":{}}', b'{"id":', b"[" * 100_000]
ODD_TEXT = 'a"b\\c/\b\f\n\r\t\x1f\x7f é \u2028 \U0001f600'


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_skeleton_runs(run: Run, tmp_path: Path, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(TOOLS[language]) is None:
        pytest.skip(f"{TOOLS[language]} is not installed")
    monkeypatch.setenv("GOCACHE", str(tmp_path / "go-cache"))
    folder = tmp_path / "my client"
    status, out, _ = run("init-client", folder, "--language", language)
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert (status, written) == (0, sorted(["README.md", *LANGUAGES[language].files]))
    lines = [line[2:] for line in (folder / "README.md").read_text().splitlines() if line.startswith("$ ")]
    *build, check_all = lines[: lines.index(next(line for line in lines if line.startswith("poai vectors check"))) + 1]
    for command in build:
        subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    client = shlex.split(check_all)[-1]
    status, out, _ = run("check", "--suite", "fixed_point", "--client", client)
    passed, failed, lacking, _ = read_table(out)["fixed_point"]
    assert (status, passed, failed) == (0, len(check.read_file(VECTORS / "fixed_point" / "round_shift.json")), 0)
    assert lacking > 0
    done = subprocess.run(shlex.split(client), input=b"\n".join([*BAD_LINES, b""]), capture_output=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"id": None, "code": BAD_REQUEST}] * len(
        BAD_LINES
    )
    odd = json.dumps(
        {"id": ODD_TEXT, "suite": ODD_TEXT, "function": "\ud83d\ude00", "input": {"a": [None, True, 1.5e3, []]}}
    )
    done = subprocess.run(shlex.split(client), input=odd.encode() + b"\n", capture_output=True, check=True)
    assert json.loads(done.stdout) == {"id": ODD_TEXT, "code": NOT_IMPLEMENTED}


def test_a_skeleton_lists_every_function(run: Run, tmp_path: Path) -> None:
    run("init-client", tmp_path / "client")
    text = (tmp_path / "client" / "README.md").read_text()
    assert "@" not in text
    for function in FUNCTIONS.values():
        assert f"- `{function.name}` (page {function.page}" in text
    assert "- `matrix_digest` (page integer-model: compute_matrix_digest): " in text


def test_a_skeleton_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    status, _, err = run("init-client", tmp_path)
    assert (status, err) == (2, f"error: {tmp_path} is not an empty folder: name a new one\n")
    assert run("init-client", tmp_path / "mine")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert run("init-client", tmp_path / "new", "--language", "cobol")[0] == 2


# pack


def test_packing_twice_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    outs = [run("pack", tmp_path / f"{name}.zip") for name in ("a", "b")]
    first, second = (tmp_path / "a.zip").read_bytes(), (tmp_path / "b.zip").read_bytes()
    assert first == second
    digest = hashlib.sha256(first).hexdigest()
    assert [(status, out.split()[0]) for status, out, _ in outs] == [(0, digest)] * 2


LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`+[^`]+`+", re.DOTALL | re.MULTILINE)


def test_every_link_of_the_unpacked_archive_leads_somewhere(run: Run, tmp_path: Path) -> None:
    assert run("pack", tmp_path / "a.zip")[0] == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "a")
    (root,) = (tmp_path / "a").iterdir()
    pages = sorted(root.rglob("*.md"))
    links = [(page, link) for page in pages for link in LINK.findall(CODE.sub("", page.read_text("utf-8")))]
    inside = [(page, link) for page, link in links if not link.startswith(("#", "https://", "http://"))]
    assert len(inside) > 100
    assert [(page.name, link) for page, link in inside if not (page.parent / link.partition("#")[0]).exists()] == []
    outside = [link for _, link in links if f"/blob/v{poai_spec.__version__}/" in link]
    assert outside
    assert all((ROOT / link.partition(f"v{poai_spec.__version__}/")[2].partition("#")[0]).exists() for link in outside)


def test_links_out_of_the_archive_lead_to_the_repository() -> None:
    text = "[a](../b.md#c) [d](e.md) [f](https://g/) `[h](i.md)` [j](#k) ![l](../img/m.svg)\n```text\n[n](o.md)\n```\n"
    found = pack.link_outside("docs/a.md", text, {"docs/e.md"}, "R")
    version = f"R/blob/v{poai_spec.__version__}"
    assert found == text.replace("../b.md", f"{version}/b.md").replace("../img", f"{version}/img")


def make_tree(root: Path) -> None:
    disk.write(root / "specs" / "a.md", "page")
    manifest = {"name": "m", "gguf_sha256": "00", "integer_model_root": "11", "lexicon_digest": "22", "more": 1}
    disk.write(root / "specs" / "manifests" / "m.json", json.dumps(manifest))
    disk.write(root / "specs" / "manifests" / "m.lexicon.json", "{}")
    disk.write(root / "pyproject.toml", '[project.urls]\nRepository = "https://example.org/r"\n')
    for name in pack.SINGLE:
        disk.write(root / name, name)
    disk.write(root / "test_vectors" / "codes.json", "{}")
    disk.write(root / "test_vectors" / "node_modules" / "x.js", "")


def test_the_archive_does_not_depend_on_modes_times_or_order(tmp_path: Path) -> None:
    make_tree(tmp_path)
    data = pack.make_archive(tmp_path)
    page = tmp_path / "specs" / "a.md"
    page.unlink()
    disk.write(page, "page")
    page.chmod(0o600)
    assert pack.make_archive(tmp_path) == data
    disk.write(page, "other")
    assert pack.make_archive(tmp_path) != data


def test_the_archive_holds_what_its_manifest_says(tmp_path: Path) -> None:
    make_tree(tmp_path)
    with zipfile.ZipFile(io.BytesIO(pack.make_archive(tmp_path))) as archive:
        assert archive.testzip() is None
        folder = archive.namelist()[0].partition("/")[0]
        content = {name.removeprefix(f"{folder}/"): archive.read(name) for name in archive.namelist()}
        assert {(info.date_time, info.external_attr, info.extra) for info in archive.infolist()} == {
            (pack.TIME, 0o100644 << 16, b"")
        }
    manifest = json.loads(content.pop("manifest.json"))
    assert manifest["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    assert manifest["models"] == {"m": {"gguf_sha256": "00", "integer_model_root": "11", "lexicon_digest": "22"}}
    assert list(content) == sorted(content)
    assert "test_vectors/node_modules/x.js" not in content
    assert "specs/manifests/m.lexicon.json" in content


def test_an_archive_without_vectors_is_refused(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "test_vectors" / "codes.json").unlink()
    with pytest.raises(VectorsError, match="poai vectors generate"):
        pack.make_archive(tmp_path)
    (tmp_path / "LICENSE").unlink()
    with pytest.raises(VectorsError, match="LICENSE"):
        pack.make_archive(tmp_path)


def test_pack_writes_zip_files_only(run: Run, tmp_path: Path) -> None:
    status, _, err = run("pack", tmp_path / "a.tar")
    assert (status, err) == (2, f"error: the archive is a zip file: name it {tmp_path / 'a.zip'}\n")
