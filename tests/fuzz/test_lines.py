"""JSON lines between the vectors' tools and foreign programs, in both directions."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest

from poai_tools.vectors.check import read_cases
from poai_tools.vectors.client import MAX_ANSWER, NOT_IMPLEMENTED, START, Client
from poai_tools.vectors.serve import serve
from tests.harness.driving import ACCEPTED, drive
from tests.harness.mutation import break_json, broken, dump, odd_json

VECTORS = Path(__file__).parents[2] / "test_vectors"
QUICK_SUITES = ("ssz", "corpus", "difficulty", "lexicon", "networking", "epoch", "loss", "drbg", "economics", "state")
"""Suites that run no model: a request takes milliseconds whatever its numbers are."""
MAX_CASE = 4_000
"""Bytes of a committed request that is a seed."""
PATIENCE_S = 20.0

pytestmark = pytest.mark.sockets


def break_requests(requests: list[Any]) -> Callable[[Random], list[bytes]]:
    """Return what draws up to eight lines, one behind the other."""

    def make_one(rng: Random) -> bytes:
        request, change = rng.choice(requests), rng.randrange(4)
        if change == 1:
            request = {**request, "input": odd_json(rng, request["input"])}
        elif change == 2:
            request = odd_json(rng, request)
        line = dump(request)
        return broken(rng, line, 2).replace(b"\n", b" ") if change == 3 else line

    return lambda rng: [make_one(rng) for _ in range(rng.randint(1, 8))]


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

    assert "client/bad-request" in drive("request line", break_requests(make_requests()), 80, run)


START_ANSWER = json.dumps({"id": START["id"], "code": NOT_IMPLEMENTED})


def test_a_foreign_answer_is_an_answer_or_a_fault(tmp_path: Path) -> None:
    """The program writes what was drawn; `ask` returns, in time, and quotes a bounded part."""
    file = tmp_path / "answer"
    client_command = ["sh", "-c", 'read -r line; echo "$1"; read -r line; exec cat "$0"', str(file), START_ANSWER]
    whole: list[Any] = [
        {"id": "x", "output": {"a": [1, "0x00"]}}, {"id": "x", "code": "page/rule"}, {"id": "x", "output": None},
        {"id": "y", "output": 1}, {"id": "x", "code": 1}, {"id": "x", "output": 1, "code": "a"}, [], None,
    ]  # fmt: skip
    lines = break_json(whole)

    def run(line: bytes) -> str:
        file.write_bytes(line + b"\n")
        with Client(client_command, PATIENCE_S) as client:
            answer = client.ask("s", "f", "x", {})
        if answer.fault is None:
            return ACCEPTED
        assert "\n" not in answer.fault
        assert len(answer.fault) < 300
        return answer.fault.partition(":")[0]

    drive("answer line", lines, 150, run, long=50)
