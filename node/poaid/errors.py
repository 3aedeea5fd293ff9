"""Errors that end a command with one line."""


class NodeError(Exception):
    """Something outside the protocol is wrong (a file, a flag, a folder); the message says what to do."""
