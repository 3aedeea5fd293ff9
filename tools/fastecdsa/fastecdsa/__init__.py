"""Stand-in for fastecdsa: see the README beside this package."""

from typing import NoReturn


def refuse(*_: object) -> NoReturn:
    """Stop whoever calls what is not here.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("this is PoAI's stand-in for fastecdsa: for P-256 keys install fastecdsa itself")
