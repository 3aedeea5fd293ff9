"""Our specification as a client: one JSON object a line in, one out. The oracle for other implementations."""

import json
from typing import IO, Any

from poai_engine.errors import ModelError
from poai_tools.vectors.client import BAD_REQUEST, NOT_IMPLEMENTED, parse_line
from poai_tools.vectors.kinds import KindError
from poai_tools.vectors.registry import call
from poai_tools.vectors.suites import find_function

MAX_REQUEST = 8 * 2**20
"""Bytes of the longest request line."""
FIELDS = {"id", "suite", "function", "input"}


def answer_line(line: bytes) -> dict[str, Any]:
    """Return the answer to a request line; a malformed one gets `client/bad-request`."""
    try:
        request = parse_line(line)
    except ValueError:
        return {"id": None, "code": BAD_REQUEST}
    if not isinstance(request, dict) or request.keys() != FIELDS or not isinstance(request["id"], str):
        return {"id": None, "code": BAD_REQUEST}
    return {"id": request["id"]} | answer(request["suite"], request["function"], request["input"])


def answer(suite: Any, name: Any, data: Any) -> dict[str, Any]:
    """Return `output` or `code` of a function's result on an input in JSON form."""
    if not isinstance(suite, str) or not isinstance(name, str):
        return {"code": BAD_REQUEST}
    function = find_function(suite, name)
    if function is None:
        return {"code": NOT_IMPLEMENTED}
    try:
        outcome = call(function, data)
    except KindError:
        return {"code": BAD_REQUEST}
    except ModelError:  # the model is not on this machine
        return {"code": NOT_IMPLEMENTED}
    return {"output": outcome.output} if outcome.code is None else {"code": outcome.code}


def serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Answer lines until the input ends or nobody reads the answers."""
    while line := source.readline(MAX_REQUEST + 1):
        if len(line) > MAX_REQUEST:
            while line and not line.endswith(b"\n"):
                line = source.readline(MAX_REQUEST)
            found: dict[str, Any] = {"id": None, "code": BAD_REQUEST}
        else:
            found = answer_line(line)
        try:
            target.write(json.dumps(found).encode() + b"\n")
            target.flush()
        except BrokenPipeError:
            return
