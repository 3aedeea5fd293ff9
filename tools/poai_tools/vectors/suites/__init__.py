"""The suites, imported one by one when they are needed: some bring the engines with them.

A suite is a module here of its name, with `make_files()`; importing it registers its functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from poai_tools.vectors.cases import CaseFile
from poai_tools.vectors.registry import FUNCTIONS, Function


@dataclass(frozen=True)
class SuiteEntry:
    """A suite: its name and the function that builds its case files."""

    name: str
    make_files: Callable[[], list[CaseFile]]


NAMES = (
    "drbg",
    "epoch",
    "ssz",
    "lexicon",
    "quiz",
    "fixed_point",
    "weights",
    "loss",
    "inference",
    "llama_profile",
    "difficulty",
    "economics",
    "trie",
    "state",
    "transaction",
    "receipts",
    "evm",
    "parameters",
    "upgrades",
    "corpus",
    "header",
    "block",
    "fork_choice",
    "chain",
    "production",
    "upgrade_chains",
    "networking",
)
"""In the order in which a client is best built: each needs those before it at most."""


def _make_files(name: str) -> list[CaseFile]:
    files: list[CaseFile] = import_module(f"{__name__}.{name}").make_files()
    return files


SUITES: dict[str, SuiteEntry] = {name: SuiteEntry(name, partial(_make_files, name)) for name in NAMES}


def find_function(suite: str, name: str) -> Function | None:
    """Return a function, its suite being imported at the first question; None if there is no such function."""
    if suite in NAMES:
        import_module(f"{__name__}.{suite}")
    return FUNCTIONS.get((suite, name))


def get_function(suite: str, name: str) -> Function:
    """Return a function.

    Raises:
        KeyError: there is none of this name.
    """
    found = find_function(suite, name)
    if found is None:
        raise KeyError(f"{suite}/{name}")
    return found


def load_all() -> None:
    """Import every suite, so that `FUNCTIONS` has all functions."""
    for name in NAMES:
        import_module(f"{__name__}.{name}")
