"""Our specification as a client: one JSON object a line in, one out. The oracle for other implementations."""

import json
import sys
from collections.abc import Callable
from typing import IO, Any

from poai_engine.errors import ModelError
from poai_tools.vectors.client import BAD_REQUEST, NOT_IMPLEMENTED, LineError, parse_line
from poai_tools.vectors.kinds import KindError
from poai_tools.vectors.registry import call
from poai_tools.vectors.suites import find_function

MAX_REQUEST = 8 * 2**20
"""Bytes of the longest request line."""
FIELDS = dict.fromkeys(("id", "suite", "function", "input"))


def _ignore(reason: str) -> None:
    """Say nothing about a bad request."""


def _tell(reason: str) -> None:
    """Say why a request is bad, where people look and no program does."""
    print(f"{BAD_REQUEST}: {reason}", file=sys.stderr, flush=True)


def answer_line(line: bytes, tell: Callable[[str], None] = _ignore) -> dict[str, Any]:
    """Return the answer to a request line; a malformed one gets `client/bad-request`, and `tell` the reason."""
    try:
        request = parse_line(line)
    except LineError as error:
        tell(f"the line {error}")
        return {"id": None, "code": BAD_REQUEST}
    if not isinstance(request, dict) or request.keys() != FIELDS.keys() or not isinstance(request["id"], str):
        tell(f"a request is an object with the fields {', '.join(FIELDS)}, the id a text")
        return {"id": None, "code": BAD_REQUEST}
    return {"id": request["id"]} | answer(request["suite"], request["function"], request["input"], tell)


def answer(suite: Any, name: Any, data: Any, tell: Callable[[str], None] = _ignore) -> dict[str, Any]:
    """Return `output` or `code` of a function on an input in JSON form; `tell` gets why a request is bad."""
    if not isinstance(suite, str) or not isinstance(name, str):
        tell("suite and function are texts")
        return {"code": BAD_REQUEST}
    function = find_function(suite, name)
    if function is None:
        return {"code": NOT_IMPLEMENTED}
    try:
        outcome = call(function, data)
    except KindError as error:
        tell(str(error))
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
            _tell(f"the line has more than {MAX_REQUEST:,} bytes")
            found: dict[str, Any] = {"id": None, "code": BAD_REQUEST}
        else:
            found = answer_line(line, _tell)
        try:
            target.write(json.dumps(found).encode() + b"\n")
            target.flush()
        except BrokenPipeError:
            return
