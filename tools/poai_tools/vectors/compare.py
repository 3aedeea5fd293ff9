"""Where two JSON values differ first, and values short enough for a line."""

import json
from collections.abc import Iterator
from typing import Any

WIDTH = 60
"""Characters of a value in a message."""


def find_difference(expected: Any, found: Any, pointer: str = "") -> str | None:
    """Return the JSON pointer of the first difference, in the order of `expected`; None if the two are equal.

    Types count: 1, 1.0 and true are three values. The order of an object's fields does not.
    """
    return next(_walk(expected, found, pointer), None)


def _walk(expected: Any, found: Any, pointer: str) -> Iterator[str]:
    """Yield the pointers of the values that differ or that one side lacks."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *sorted(key for key in found if key not in expected)]:
            if key in expected and key in found:
                yield from _walk(expected[key], found[key], f"{pointer}/{escape(key)}")
            else:
                yield f"{pointer}/{escape(key)}"
    elif isinstance(expected, list) and isinstance(found, list):
        for n, (a, b) in enumerate(zip(expected, found, strict=False)):
            yield from _walk(a, b, f"{pointer}/{n}")
        if len(expected) != len(found):
            yield f"{pointer}/{min(len(expected), len(found))}"
    elif type(expected) is not type(found) or expected != found:
        yield pointer


def escape(key: str) -> str:
    """Return a field's name as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def resolve(value: Any, pointer: str) -> Any:
    """Return what a JSON pointer leads to.

    Raises:
        LookupError: nothing is there.
    """
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value[name]
        elif isinstance(value, list) and name.isdigit():
            value = value[int(name)]
        else:
            raise LookupError(pointer)
    return value


def shorten(value: Any) -> str:
    """Return a JSON value in at most `WIDTH` characters of ASCII."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a value that is nested too deep to print"
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def look_up(value: Any, pointer: str) -> str:
    """Return what stands at a pointer, short, or `nothing`."""
    try:
        return shorten(resolve(value, pointer))
    except LookupError:
        return "nothing"
