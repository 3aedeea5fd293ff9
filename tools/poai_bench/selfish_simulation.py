"""How much a miner gains by withholding blocks, under our rule for ties and under "first seen": `poai bench selfish`.

The model is that of Eyal and Sirer (2014): one attacker with some share of the hash rate, honest miners who are all of
one mind and hear each other at once, one block at a time. A branch of the attacker's and one of the honest miners grow
from a common block; what is not on the branch that wins is lost to its miner. The difficulty follows, so what counts
is the share of the chain's blocks.

Two rules decide between branches of equal work:

- *first seen*: a miner stays with the tip that came first. When the attacker answers an honest block with a withheld
  one, the *advantage*, a part of the honest hash rate, hears the attacker first. Who comes later gets nobody.
- *ours*: the page fork-choice's own `get_head` on the hashes of both tips. All honest miners agree, whoever they heard
  first, so there is no advantage. The attacker knows who wins as soon as he knows both tips, and may come late.

The simulation plays named strategies with random hashes. What no strategy at all can pass is computed by
`selfish_optimum`. A third tip is not modelled: to tie once more costs the attacker a block, and the same block on his
own tip would have won without a tie.

References: Eyal, Sirer: Majority is not enough: Bitcoin mining is vulnerable (FC 2014). Nayak, Kumar, Miller, Shi:
Stubborn mining (EuroS&P 2016). Sapirshtein, Sompolinsky, Zohar: Optimal selfish mining strategies in Bitcoin (FC 2016).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import NamedTuple

from poai_spec.basics.notation import Hash32
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.fork_choice import Kept, Store, get_head
from poai_spec.chain.header import make_genesis_header

BLOCKS = 100_000
"""Blocks of a simulation, lost ones included: it finds shares to some three thousandths."""
SEED = b"PoAI selfish mining"


class Rule(Enum):
    """What decides between two tips of equal work."""

    OURS = "ours"
    FIRST_SEEN = "first seen"


class Tie(Enum):
    """What a tie between the attacker's block and the honest tip of equal height would give, or gives.

    Under the rule "ours" the hashes decide: LOST or WON, at any time. Under "first seen" the attacker may only answer
    an honest block at once: the tie is OPEN then, and LOST after anything else. SHOWN: the attacker has published.
    """

    LOST = auto()
    OPEN = auto()
    WON = auto()
    SHOWN = auto()


class State(NamedTuple):
    """Where the race stands.

    Attributes:
        ours: blocks of the attacker's branch, published or not.
        theirs: blocks of the honest branch.
        tie: what a tie of the honest tip with the attacker's block at its height gives; LOST while there is none.
    """

    ours: int
    theirs: int
    tie: Tie

    @property
    def tied(self) -> bool:
        """Whether the attacker has a block at the height of the honest tip."""
        return self.ours >= self.theirs >= 1


class Action(Enum):
    """What the attacker does before anybody mines on."""

    WAIT = auto()
    ADOPT = auto()
    OVERRIDE = auto()
    MATCH = auto()


START = State(0, 0, Tie.LOST)
Policy = Callable[[State], Action]


@dataclass(frozen=True)
class Strategy:
    """Selfish mining (SM1) with the variations of Nayak et al.; a policy.

    Attributes:
        lead: after an honest block that leaves a lead of one, tie again instead of winning at once.
        fork: having won a block in a tie, withhold it instead of winning at once.
        trail: blocks that the attacker may be behind before he gives up.
    """

    lead: bool = False
    fork: bool = False
    trail: int = 0

    def __str__(self) -> str:
        marks = "L" * self.lead + "F" * self.fork + (f"T{self.trail}" if self.trail else "")
        return f"stubborn {marks}" if marks else "SM1"

    def __call__(self, state: State) -> Action:
        """Return what to do."""
        ours, theirs, tie = state
        if theirs > ours + self.trail:
            return Action.ADOPT
        if ours == theirs + 1 and theirs and not (self.fork if tie is Tie.SHOWN else self.lead):
            return Action.OVERRIDE
        if state.tied and tie in (Tie.OPEN, Tie.WON):
            return Action.MATCH
        return Action.WAIT


SM1 = Strategy()
STRATEGIES = (SM1, *(Strategy(lead, fork, trail) for lead, fork, trail in (
    (True, False, 0), (False, True, 0), (True, True, 0), (False, False, 1), (True, False, 1), (False, True, 1)
)))  # fmt: skip
"""Not all three at once: such branches grow without end before anything is settled."""


def honest(state: State) -> Action:
    """Publish every block at once, and follow every other one: a policy."""
    if state.ours > state.theirs:
        return Action.OVERRIDE
    return Action.ADOPT if state.theirs else Action.WAIT


def compute_selfish_revenue(share: float, advantage: float) -> float:
    """Return the share of blocks that SM1 gets: Eyal and Sirer's equation 8."""
    a, g = share, advantage
    gained = a * (1 - a) ** 2 * (4 * a + g * (1 - 2 * a)) - a**3
    return gained / (1 - a * (1 + (2 - a) * a))


def compute_selfish_threshold(advantage: float) -> float:
    """Return the hash share from which on SM1 gains: Eyal and Sirer's observation 1."""
    return (1 - advantage) / (3 - 2 * advantage)


_HEADER = make_genesis_header(get_preset("minimal"))
"""Of both tips: only their work and hashes count."""


def wins_tie(ours: Hash32, theirs: Hash32) -> bool:
    """Tell whether the page's fork choice prefers the first of two tips of equal work."""
    return get_head(Store(0, {tip: Kept(_HEADER, 1, b"", {}) for tip in (ours, theirs)})) == ours


class Game:
    """One attacker against the honest miners.

    Args:
        rule: decides ties.
        share: the attacker's part of the hash rate.
        advantage: the part of the honest hash rate that hears the attacker's answer first; counts under "first seen".
        random: draws miners and hashes.
    """

    def __init__(self, rule: Rule, share: float, advantage: float, random: Random) -> None:
        self.rule, self.share, self.advantage, self.random = rule, share, advantage, random
        self.state, self.ours, self.theirs = START, 0, 0

    def act(self, action: Action) -> None:
        """Apply what the attacker does."""
        ours, theirs, tie = self.state
        if action is Action.ADOPT:
            self.theirs += theirs
            self.state = START
        elif action is Action.OVERRIDE:
            assert ours > theirs, "only a longer branch wins"
            self.ours += theirs + 1
            self.state = State(ours - theirs - 1, 0, Tie.LOST)
        elif action is Action.MATCH:
            assert self.state.tied, "there is nothing to tie with"
            assert tie in (Tie.OPEN, Tie.WON), "nobody would follow"
            self.state = State(ours, theirs, Tie.SHOWN)

    def mine(self) -> None:
        """Let one block be found."""
        ours, theirs, tie = self.state
        if self.random.random() < self.share:
            met = ours + 1 == theirs
            self.state = State(ours + 1, theirs, self._draw(late=True) if met else self._age(tie))
            return
        if tie is Tie.SHOWN and (self.rule is Rule.OURS or self.random.random() < self.advantage):
            self.ours += theirs  # the honest block stands on the attacker's
            ours, theirs = ours - theirs, 0
        tied = ours >= theirs + 1
        self.state = State(ours, theirs + 1, self._draw(late=False) if tied else Tie.LOST)

    def _draw(self, *, late: bool) -> Tie:
        """Return what a tie of two blocks gives that have just become rivals; `late`: the attacker's is the newer."""
        if self.rule is Rule.FIRST_SEEN:
            return Tie.LOST if late else Tie.OPEN
        return Tie.WON if wins_tie(self.random.randbytes(32), self.random.randbytes(32)) else Tie.LOST

    def _age(self, tie: Tie) -> Tie:
        """Return what becomes of a tie while the attacker finds another block: too late to answer, if not yet done."""
        return Tie.LOST if tie is Tie.OPEN else tie


def simulate(rule: Rule, policy: Policy, share: float, advantage: float = 0.0, blocks: int = BLOCKS) -> float:
    """Return the attacker's share of the chain's blocks; equal arguments give equal results."""
    game = Game(rule, share, advantage, Random(SEED))  # noqa: S311
    for _ in range(blocks):
        game.mine()
        game.act(policy(game.state))
    return game.ours / (game.ours + game.theirs)
