"""The best that any withholding of blocks can gain: a Markov decision process over the game of `selfish_simulation`.

Sapirshtein, Sompolinsky and Zohar (2016): the attacker's share of the chain is the largest r for which some policy
earns (1 - r) for each of his blocks and loses r for each honest one without loss in the long run. For a given r the
best policy and its mean reward are found by value iteration; r is found by Dinkelbach's method: the share that the best
policy for r earns is the next r, until it stops growing.

Branches are cut at `MAX_BRANCH` blocks, where the attacker has to give up or publish. A cut policy can be played, so
what is found is a lower bound; the tests compare it with the paper's own figures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from poai_bench.selfish_simulation import Action, Policy, Rule, State, Tie

MAX_BRANCH = 40
"""Blocks of a branch."""
MAX_OUTCOMES = 3
"""Of one block: it has one of two miners, and only one of both can make a tie, which goes one of two ways."""
PRECISION = 1e-7
"""Of a mean reward a block."""
NOTICED = 1e-6
"""A mean reward above this is a gain and no error of the iteration."""
THRESHOLD_STEP = 1e-3
MAX_STEPS = 100_000
"""Of value iteration: a share below 1/2 needs a few thousand."""

Outcome = tuple[float, State, int, int]
"""Probability, next state, and blocks of the attacker and of the honest miners that are settled by then."""
Array = NDArray[np.float64]


def iterate_states() -> Iterator[State]:
    """Yield all states, the first one first."""
    for ours, theirs, tie in product(range(MAX_BRANCH + 1), range(MAX_BRANCH + 1), Tie):
        state = State(ours, theirs, tie)
        if state.tied or tie is Tie.LOST:
            yield state


def list_actions(state: State) -> list[Action]:
    """Return what the attacker may do; at the cut not wait."""
    actions = [Action.ADOPT] if state.theirs else []
    if state.ours > state.theirs:
        actions.append(Action.OVERRIDE)
    if max(state.ours, state.theirs) < MAX_BRANCH:
        actions.append(Action.WAIT)
        if state.tie in (Tie.OPEN, Tie.WON):
            actions.append(Action.MATCH)
    return actions


def draw_tie(rule: Rule, state: State, *, late: bool) -> list[tuple[float, State]]:
    """Return what becomes of two blocks that have just become rivals; `late`: the attacker's is the newer one."""
    if not state.tied:
        return [(1.0, state)]
    if rule is Rule.FIRST_SEEN:
        return [(1.0, state._replace(tie=Tie.LOST if late else Tie.OPEN))]
    return [(0.5, state._replace(tie=Tie.WON)), (0.5, state._replace(tie=Tie.LOST))]


def list_outcomes(rule: Rule, share: float, advantage: float, state: State, action: Action) -> list[Outcome]:
    """Return what an action and the next block lead to."""
    ours, theirs, tie = state
    settled, lost = 0, 0
    if action is Action.ADOPT:
        ours, theirs, tie, lost = 0, 0, Tie.LOST, theirs
    elif action is Action.OVERRIDE:
        ours, theirs, tie, settled = ours - theirs - 1, 0, Tie.LOST, theirs + 1
    elif action is Action.MATCH:
        tie = Tie.SHOWN
    mine = State(ours + 1, theirs, Tie.LOST if tie is Tie.OPEN else tie)
    found = [(share, mine)] if ours >= theirs else _scale(share, draw_tie(rule, mine, late=True))
    outcomes = [(p, state, settled, lost) for p, state in found]
    follow = 0.0 if tie is not Tie.SHOWN else 1.0 if rule is Rule.OURS else advantage
    for part, after, gained in ((follow, State(ours - theirs, 1, Tie.LOST), theirs),
                                (1 - follow, State(ours, theirs + 1, Tie.LOST), 0)):  # fmt: skip
        if part:
            drawn = _scale(part * (1 - share), draw_tie(rule, after, late=False))
            outcomes += [(p, state, settled + gained, lost) for p, state in drawn]
    return outcomes


def _scale(part: float, drawn: list[tuple[float, State]]) -> list[tuple[float, State]]:
    return [(part * p, state) for p, state in drawn]


@dataclass(frozen=True)
class Process:
    """The decisions of an attacker as arrays, a row for each action of each state.

    Attributes:
        share: his part of the hash rate.
        states: all of them.
        actions: of each row.
        first: the first row of each state.
        chances: rows of `MAX_OUTCOMES` probabilities.
        following: the index of the state of each.
        ours: expected blocks of the attacker that a row settles.
        theirs: expected honest ones.
    """

    share: float
    states: list[State]
    actions: list[Action]
    first: NDArray[np.intp]
    chances: Array
    following: NDArray[np.intp]
    ours: Array
    theirs: Array


def make_process(rule: Rule, share: float, advantage: float) -> Process:
    """Return the decisions of an attacker: his part of the hash rate, and his advantage, as in `Game`."""
    states = list(iterate_states())
    number = {state: index for index, state in enumerate(states)}
    rows = [(state, action) for state in states for action in list_actions(state)]
    outcomes = [list_outcomes(rule, share, advantage, *row) for row in rows]
    chances, following = np.zeros((len(rows), MAX_OUTCOMES)), np.zeros((len(rows), MAX_OUTCOMES), np.intp)
    for row, found in enumerate(outcomes):
        chances[row, : len(found)] = [p for p, *_ in found]
        following[row, : len(found)] = [number[state] for _, state, *_ in found]
    first = [index for index, (state, _) in enumerate(rows) if index == 0 or rows[index - 1][0] != state]
    return Process(
        share, states, [action for _, action in rows], np.array(first), chances, following,
        np.array([sum(p * settled for p, _, settled, _ in found) for found in outcomes]),
        np.array([sum(p * lost for p, _, _, lost in found) for found in outcomes]),
    )  # fmt: skip


def compute_gain(process: Process, share: float, values: Array) -> float:
    """Return the best mean reward a block when an own block counts 1 - share and an honest one -share.

    Args:
        process: the decisions.
        share: r of the module's text.
        values: of the states, to begin with; changed to those of the best policy.
    """
    reward = (1 - share) * process.ours - share * process.theirs
    for _ in range(MAX_STEPS):
        best = np.maximum.reduceat(reward + (process.chances * values[process.following]).sum(axis=1), process.first)
        change = best - values
        values[:] = best - best[0]
        if change.max() - change.min() < PRECISION:
            return float(change.max() + change.min()) / 2
    raise AssertionError("value iteration converges, for every state leads back to the first")


def choose_rows(process: Process, share: float, values: Array) -> NDArray[np.intp]:
    """Return the best row of each state, given the states' values."""
    reward = (1 - share) * process.ours - share * process.theirs
    worth = reward + (process.chances * values[process.following]).sum(axis=1)
    ends = [*process.first[1:], len(worth)]
    return np.array([first + int(worth[first:end].argmax()) for first, end in zip(process.first, ends, strict=True)])


def compute_revenue(process: Process, rows: NDArray[np.intp]) -> float:
    """Return the attacker's share of the chain's blocks if he takes these rows, one for each state."""
    visits = np.zeros(len(process.states))
    visits[0] = 1.0
    for _ in range(MAX_STEPS):
        moved = process.chances[rows] * visits[:, None]
        after = np.bincount(process.following[rows].ravel(), moved.ravel(), len(visits))
        change = np.abs(after - visits).sum()
        visits[:] = after
        if change < PRECISION / 100:
            break
    ours, theirs = visits @ process.ours[rows], visits @ process.theirs[rows]
    return float(ours / (ours + theirs))


def find_optimum(process: Process) -> tuple[float, Policy]:
    """Return the largest share of the chain that the attacker can get, and how."""
    values, revenue, found = np.zeros(len(process.states)), 0.0, process.share
    while found > revenue + 10 * PRECISION:
        revenue = found
        compute_gain(process, revenue, values)
        rows = choose_rows(process, revenue, values)
        found = max(revenue, compute_revenue(process, rows))
    chosen = {state: process.actions[row] for state, row in zip(process.states, rows, strict=True)}
    return found, chosen.__getitem__


def evaluate(process: Process, policy: Policy) -> float:
    """Return the share of the chain that a policy gets, without playing it; at the cut it publishes or gives up."""
    ends, rows = [*process.first[1:], len(process.actions)], []
    for state, first, end in zip(process.states, process.first, ends, strict=True):
        actions, wanted = process.actions[first:end], policy(state)
        rows.append(first + (actions.index(wanted) if wanted in actions else len(actions) - 1))
    return compute_revenue(process, np.array(rows))


def find_threshold(rule: Rule, advantage: float = 0.0) -> float:
    """Return the part of the hash rate from which on some policy gets more than it, to `THRESHOLD_STEP`."""
    low, high = 0.0, 0.5
    while high - low > THRESHOLD_STEP:
        middle = (low + high) / 2
        process = make_process(rule, middle, advantage)
        gains = compute_gain(process, middle, np.zeros(len(process.states))) > NOTICED
        low, high = (low, middle) if gains else (middle, high)
    return high
