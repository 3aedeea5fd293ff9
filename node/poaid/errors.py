"""Errors that end a command with one line."""


class NodeError(Exception):
    """Something outside the protocol is wrong (a file, a flag, a folder); the message says what to do."""


class UsageError(NodeError):
    """A flag has a value that it cannot have; the command ends with 2, as for an unknown flag."""


def get_exit_status(error: Exception) -> int:
    """Return what a command ends with after an error: 2 for wrong usage, 1 otherwise."""
    return 2 if isinstance(error, UsageError) else 1
