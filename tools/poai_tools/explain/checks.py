"""The rules of the page `block`, each applied for itself to one block or header.

A node stops at the first rule that is broken. Here the later ones are applied too, as far as they can be: a program
under test often breaks several for one reason.

Exports: `Place`, `ExplainedBlock`, `Check`, `apply_rules`, `get_page`.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import poai_spec
from poai_spec.basics.containers import Block, Header, HeaderCore
from poai_spec.basics.notation import Hash32, Milliseconds, NotYet, SpecError
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.body import check_body, check_body_is_empty
from poai_spec.chain.header import (
    check_future,
    check_height,
    check_median_time,
    check_parent,
    check_version,
    make_genesis_header,
)
from poai_spec.chain.upgrades import Rules, get_rules
from poai_spec.execution.state import State, check_state_root, process_header
from poai_spec.model.engine import Evaluation
from poai_spec.model.loss import compute_trace_digest
from poai_spec.proof.corpus import Questions
from poai_spec.proof.difficulty import Chain, check_period_forward, check_target
from poai_spec.proof.work import check_l_hat, check_trace, get_trace_length
from poai_tools.spec.pages import find_code_rows, find_raises
from poaid.chain.verify import check_replay
from poaid.network_file import Network

Outcome = Literal["holds", "broken", "not applied"]
LAST_OF_A_HEADER = "fork-choice/too-many-headers"
"""The last rule that a header is checked by when it travels alone."""


class Place(NamedTuple):
    """Where a block or header stands.

    Attributes:
        network: the network.
        chain: its ancestors, genesis first; empty for genesis.
        state: the accounts after the last of them.
    """

    network: Network
    chain: Chain
    state: State

    @property
    def rules(self) -> Rules:
        """The rules in force for it."""
        return self.network.get_rules(len(self.chain))

    @property
    def questions(self) -> Questions:
        """The lexicon or corpus of its model."""
        return self.network.get_questions(self.rules)


@dataclass(frozen=True)
class ExplainedBlock:
    """A block or a header, and what is known of where it stands.

    Attributes:
        header: the header.
        block: the whole block; None for a header that comes alone.
        place: None if its parent is not known.
        now: the clock, ms since 1970.
        evaluation: what the model gave for its quiz; None if it was not run.
        no_replay: why it was not run.
    """

    header: Header
    block: Block | None
    place: Place | None
    now: Milliseconds
    evaluation: Evaluation | None = None
    no_replay: str = ""

    @property
    def core(self) -> HeaderCore:
        """The part of the header that decides the quiz."""
        return self.header.core

    @property
    def is_genesis(self) -> bool:
        """Whether it is its network's block 0, which no rule is applied to."""
        return self.place is not None and self.header == make_genesis_header(self.place.network.config)

    @property
    def claimed_trace(self) -> tuple[Hash32, ...] | None:
        """The trace list that the header commits to; None if it is not at hand, or has a wrong length."""
        if (
            self.block is None
            or self.place is None
            or compute_trace_digest(self.block.trace) != self.header.trace_digest
        ):
            return None
        return self.block.trace if len(self.block.trace) == get_trace_length(self.place.rules) else None


@dataclass(frozen=True)
class Check:
    """A rule, and what came of it.

    Attributes:
        number: its place in the order of checks, from 1.
        code: the rejection code.
        kind: the error class.
        page: where the function that raises it stands.
        meaning: what it refuses, as the page's table says.
        outcome: whether the rule holds.
        detail: the values that broke it, or why it was not applied.
    """

    number: int
    code: str
    kind: str
    page: str
    meaning: str
    outcome: Outcome
    detail: str = ""


class _MissingError(Exception):
    """A rule needs what is not there; the message says what."""


def _place(s: ExplainedBlock) -> Place:
    if s.place is None:
        raise _MissingError("needs the ancestors")
    return s.place


def _block(s: ExplainedBlock) -> Block:
    assert s.block is not None, "these rules are not applied to a header alone"
    return s.block


def _find_parent(s: ExplainedBlock) -> None:
    if s.place is None:
        raise NotYet("fork-choice/unknown-parent", f"{s.core.parent_hash.hex()} is not known here")


def _ask_a_node(_: ExplainedBlock) -> None:
    raise _MissingError("only a running node can tell: it depends on what came before")


def _check_trace_digest(s: ExplainedBlock) -> None:
    """Apply the first half of `check_trace`, in which no network counts."""
    check_trace(_block(s), s.place.rules if s.place else get_rules(get_preset("minimal"), (), 0))


def _check_trace_length(s: ExplainedBlock) -> None:
    check_trace(_block(s), _place(s).rules)


def _check_state_root(s: ExplainedBlock) -> None:
    check_state_root(process_header(_place(s).state, s.core), s.core)


def _check_model(s: ExplainedBlock) -> None:
    _place(s)
    if s.evaluation is None:
        raise _MissingError(s.no_replay)


def _check_replay(s: ExplainedBlock) -> None:
    _place(s)
    if s.evaluation is None:
        raise _MissingError(s.no_replay)
    check_replay(s.header, s.claimed_trace, s.evaluation)


RULES: dict[str, Callable[[ExplainedBlock], None]] = {
    "encoding/undecodable": lambda _: None,  # there would be no subject
    "header/version": lambda s: check_version(s.core),
    "body/transactions-not-active": lambda s: check_body_is_empty(s.core),
    "fork-choice/known-invalid": _ask_a_node,
    "fork-choice/invalid-ancestor": _ask_a_node,
    "fork-choice/unknown-parent": _find_parent,
    "header/parent": lambda s: check_parent(s.core, _place(s).chain),
    "header/height": lambda s: check_height(s.core, _place(s).chain),
    "difficulty/target": lambda s: check_target(s.core, _place(s).chain, _place(s).rules),
    "header/median-time": lambda s: check_median_time(s.core, _place(s).chain),
    "difficulty/period-not-forward": lambda s: check_period_forward(s.core, _place(s).chain, _place(s).rules),
    "work/l-hat": lambda s: check_l_hat(s.header, _place(s).chain, _place(s).rules),
    "header/future": lambda s: check_future(s.core, _place(s).rules, s.now),
    "fork-choice/too-many-headers": _ask_a_node,
    "body/root": lambda s: check_body(_block(s)),
    "work/trace-digest": _check_trace_digest,
    "work/trace-length": _check_trace_length,
    "fork-choice/parent-not-replayed": _ask_a_node,
    "state/root": _check_state_root,
    "fork-choice/lighter": _ask_a_node,
    "block/model-missing": _check_model,
    "work/trace": _check_replay,
    "work/loss": _check_replay,
}
"""Every rule in the order of checks, and the page's function that applies it; a test compares the order."""


def apply_rules(subject: ExplainedBlock) -> list[Check]:
    """Return every rule with its outcome, in the order of checks; none for genesis, which is made and not received."""
    return [] if subject.is_genesis else [_apply(code, subject) for code in RULES]


def _apply(code: str, subject: ExplainedBlock) -> Check:
    kind, page, meaning = _find_codes()[code]
    outcome, detail = _judge(code, subject)
    return Check(list(RULES).index(code) + 1, code, kind, page, meaning, outcome, detail)


def _judge(code: str, subject: ExplainedBlock) -> tuple[Outcome, str]:
    order = list(RULES)
    if subject.block is None and order.index(code) > order.index(LAST_OF_A_HEADER):
        return "not applied", f"a header alone is checked up to {LAST_OF_A_HEADER}"
    try:
        RULES[code](subject)
    except _MissingError as missing:
        return "not applied", str(missing)
    except SpecError as error:
        if error.code == code:
            return "broken", error.detail
        if order.index(error.code) < order.index(code):  # one function applies both, and stopped at the first
            return "not applied", f"{error.code} is broken"
    return "holds", ""


@cache
def _find_codes() -> dict[str, tuple[str, str, str]]:
    """Return class, page and meaning of each code, from the modules that the pages were compiled to."""
    found = {}
    for info in pkgutil.walk_packages(poai_spec.__path__, "poai_spec."):
        module = importlib.import_module(info.name)
        source = inspect.getsource(module)
        markdown = re.sub("^# ?", "", source, flags=re.MULTILINE)
        meanings = {code: meaning for code, _, meaning in find_code_rows(markdown)}
        for site in find_raises(source):
            if site.code in meanings:
                found[site.code] = site.kind, get_page(getattr(module, site.owner)), meanings[site.code]
    return found


def get_page(function: Any) -> str:
    """Return where a function of the specification stands, as `specs/ROOM/PAGE.md#NAME`."""
    page = function.__module__.removeprefix("poai_spec.").replace(".", "/").replace("_", "-")
    return f"specs/{page}.md#{function.__name__}"
