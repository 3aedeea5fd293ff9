"""Errors that end a command with one line."""

from poai_engine.errors import ModelError
from poai_spec.basics.notation import SpecError


class NodeError(Exception):
    """Something outside the protocol is wrong (a file, a flag, a folder); the message says what to do."""


class UsageError(NodeError):
    """A flag has a value that it cannot have; the command ends with 2, as for an unknown flag."""


EXPECTED = (SpecError, ModelError, NodeError, OSError)
"""What may end a command with one line; anything else is a bug, and shown as one."""


def find_expected(error: BaseException) -> Exception | None:
    """Return the expected error that ended a command; None if there is another one among those raised together."""
    if isinstance(error, EXPECTED):
        return error
    if not isinstance(error, ExceptionGroup):
        return None
    found = [find_expected(part) for part in error.exceptions]
    return None if None in found else found[0]


def get_exit_status(error: Exception) -> int:
    """Return what a command ends with after an error: 2 for wrong usage, 1 otherwise."""
    return 2 if isinstance(error, UsageError) else 1
