"""JSON lines between the vectors' tools and foreign programs, in both directions."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from poai_tools.vectors.check import read_cases
from poai_tools.vectors.client import MAX_ANSWER, Client
from poai_tools.vectors.serve import serve
from tests.fuzz.driving import ACCEPTED, drive
from tests.fuzz.mutation import broken, odd_json
from tests.fuzz.test_files import dump

VECTORS = Path(__file__).parents[2] / "test_vectors"
QUICK_SUITES = ("ssz", "corpus", "difficulty", "lexicon", "networking", "epoch", "loss", "drbg", "economics", "state")
"""Suites that run no model: a request takes milliseconds whatever its numbers are."""
MAX_CASE = 4_000
"""Bytes of a committed request that is a seed."""
PATIENCE_S = 20.0


@st.composite
def request_lines(draw: DrawFn, requests: list[Any]) -> bytes:
    request = draw(st.sampled_from(requests))
    change = draw(st.integers(0, 3))
    if change == 1:
        request = {**request, "input": draw(odd_json(request["input"]))}
    elif change == 2:
        request = draw(odd_json(request))
    line = dump(request)
    return draw(broken(st.just(line), 2)).replace(b"\n", b" ") if change == 3 else line


def make_requests() -> list[Any]:
    cases = read_cases(VECTORS, QUICK_SUITES)
    found = [{"id": c.id, "suite": c.suite, "function": c.function, "input": c.input} for c in cases]
    return [request for request in found if len(dump(request)) < MAX_CASE][::7]


def test_our_side_answers_every_line() -> None:
    """One line in, one out, whose id is the request's or null."""

    def run(lines: list[bytes]) -> list[str]:
        target = BytesIO()
        serve(BytesIO(b"".join(line + b"\n" for line in lines)), target)
        answers = [json.loads(line) for line in target.getvalue().splitlines()]
        assert len(answers) == len(lines)
        for answer in answers:
            assert answer.keys() in ({"id", "output"}, {"id", "code"})
        assert len(target.getvalue()) <= MAX_ANSWER * len(lines)
        return [answer.get("code", ACCEPTED) for answer in answers]

    batches = st.lists(request_lines(make_requests()), min_size=1, max_size=8)
    assert "client/bad-request" in drive("request line", batches, 80, run)


def test_a_foreign_answer_is_an_answer_or_a_fault(tmp_path: Path) -> None:
    """The program writes what was drawn; `ask` returns, in time, and quotes a bounded part."""
    file = tmp_path / "answer"
    client_command = ["sh", "-c", 'read -r line; exec cat "$0"', str(file)]
    whole: list[Any] = [
        {"id": "x", "output": {"a": [1, "0x00"]}}, {"id": "x", "code": "page/rule"}, {"id": "x", "output": None},
        {"id": "y", "output": 1}, {"id": "x", "code": 1}, {"id": "x", "output": 1, "code": "a"}, [], None,
    ]  # fmt: skip
    values: SearchStrategy[Any] = st.sampled_from(whole)
    changed = values.flatmap(odd_json)
    lines = st.one_of(values.map(dump), changed.map(dump), broken(values.map(dump), 2)).map(lambda line: line + b"\n")

    def run(line: bytes) -> str:
        file.write_bytes(line)
        with Client(client_command, PATIENCE_S) as client:
            answer = client.ask("s", "f", "x", {})
        if answer.fault is None:
            return ACCEPTED
        assert "\n" not in answer.fault
        assert len(answer.fault) < 300
        return answer.fault.partition(":")[0]

    drive("answer line", lines, 150, run)
