"""A PoAI client for the conformance vectors: JSON requests on standard input, answers on standard output.

Add a function: write it, and enter it in FUNCTIONS under the names of its suite and file. Everything that is not there
is answered with `client/not-implemented`, which counts as a gap and not as a failure.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]


class Rejection(Exception):  # noqa: N818
    """An input that the specification rejects; the argument is the code, such as `difficulty/target`."""


def round_shift(fields: Fields) -> Fields:
    """Return each x / 2^n, rounded to nearest, halves up; for n <= 0 the exact left shift."""
    n = fields["n"]
    half = 1 << (n - 1) if n > 0 else 0
    return {"y": [str((int(x) + half) >> n if n > 0 else int(x) << -n) for x in fields["x"]]}


FUNCTIONS: dict[tuple[str, str], Callable[[Fields], Fields]] = {
    ("fixed_point", "round_shift"): round_shift,
}


def answer(suite: str, function: str, fields: Fields) -> Fields:
    """Return `output` or `code` of a function on an input."""
    run = FUNCTIONS.get((suite, function))
    if run is None:
        return {"code": "client/not-implemented"}
    try:
        return {"output": run(fields)}
    except Rejection as rejection:
        return {"code": str(rejection)}


def main() -> None:
    """Answer requests, one JSON object a line, until the input ends."""
    for line in sys.stdin:
        try:
            request = json.loads(line)
            case_id, suite, function, fields = (request[key] for key in ("id", "suite", "function", "input"))
        except (ValueError, KeyError, TypeError, RecursionError):
            case_id = None
        if not isinstance(case_id, str):
            print(json.dumps({"id": None, "code": "client/bad-request"}), flush=True)
            continue
        print(json.dumps({"id": case_id} | answer(suite, function, fields)), flush=True)


if __name__ == "__main__":
    main()
