"""The suites. Importing this package registers every function; `SUITES` gives each suite's case files.

A suite module defines `SUITE = Suite(...)`; add it to the tuple below.
"""

from collections.abc import Callable
from dataclasses import dataclass

from poai_tools.vectors.cases import CaseFile
from poai_tools.vectors.suites import (
    block,
    chain,
    corpus,
    difficulty,
    drbg,
    economics,
    epoch,
    fixed_point,
    fork_choice,
    header,
    inference,
    lexicon,
    llama_profile,
    loss,
    networking,
    parameters,
    production,
    quiz,
    ssz,
    state,
    upgrades,
    weights,
)


@dataclass(frozen=True)
class SuiteEntry:
    """A suite: its name and the function that builds its case files."""

    name: str
    make_files: Callable[[], list[CaseFile]]


SUITES: dict[str, SuiteEntry] = {
    entry.name: entry
    for entry in (
        SuiteEntry("drbg", drbg.make_files),
        SuiteEntry("epoch", epoch.make_files),
        SuiteEntry("lexicon", lexicon.make_files),
        SuiteEntry("quiz", quiz.make_files),
        SuiteEntry("fixed_point", fixed_point.make_files),
        SuiteEntry("weights", weights.make_files),
        SuiteEntry("inference", inference.make_files),
        SuiteEntry("loss", loss.make_files),
        SuiteEntry("llama_profile", llama_profile.make_files),
        SuiteEntry("difficulty", difficulty.make_files),
        SuiteEntry("economics", economics.make_files),
        SuiteEntry("ssz", ssz.make_files),
        SuiteEntry("state", state.make_files),
        SuiteEntry("parameters", parameters.make_files),
        SuiteEntry("corpus", corpus.make_files),
        SuiteEntry("header", header.make_files),
        SuiteEntry("block", block.make_files),
        SuiteEntry("fork_choice", fork_choice.make_files),
        SuiteEntry("chain", chain.make_files),
        SuiteEntry("production", production.make_files),
        SuiteEntry("upgrades", upgrades.make_files),
        SuiteEntry("networking", networking.make_files),
    )
}
"""In the order in which a client is best built."""
