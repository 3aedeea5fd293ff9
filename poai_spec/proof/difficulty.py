# # Difficulty  [generated from specs/proof/difficulty.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The target of every block follows from its ancestors. It changes once a period of `retarget_blocks` blocks, by the ratio
# of the time that the last period claims to the time it should have taken. This page says which stamps that ratio is made
# of, how stamps are bounded, and why a miner cannot gain by lying in them.


from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from poai_spec.basics.containers import Header, HeaderCore
from poai_spec.model.integer_model import Architecture
from poai_spec.basics.notation import Invalid, Milliseconds, Target, Work
from poai_spec.basics.parameters import MEDIAN_TIME_BLOCKS, RETARGET_CLAMP, ModelManifest
from poai_spec.chain.upgrades import Rules, get_multiplications, get_parent_rules, is_retarget_height


# ## Chains

# In these pages the ancestors of a block are a sequence of headers, genesis first and the parent last: `chain[h]` is the
# ancestor at height h, and `len(chain)` is the height of the block itself. Only `len` and an index from 0 are used, so a
# client may pass an object that looks headers up on demand.


Chain: TypeAlias = Sequence[Header]


# ## Work

# Work is counted in multiplications: the quizzes that a block is expected to take, times what one quiz costs under the
# rules of its height. Quizzes alone would not do. One of SmolLM2 costs as much as a thousand of poai-mini, so a block
# of the large model that takes as much effort as one of the small takes a thousandth of its quizzes. Were quizzes counted,
# a branch that forks before a change to the large model and puts a little more of the small one's work there would outweigh
# a thousand blocks behind the change.

# ### `compute_quizzes`


def compute_quizzes(target: Target) -> int:
    """Return the expected number of quizzes behind a block, `2^256 // (target + 1)`.

    `2^256 / target` quizzes are expected; the `+ 1` is Bitcoin's, rounds down and keeps the divisor positive.
    """
    return 2**256 // (target + 1)


# ### `compute_work`


def compute_work(target: Target, rules: Rules) -> Work:
    """Return the expected number of multiplications behind a block of this target under these rules."""
    return compute_quizzes(target) * get_multiplications(rules)


# ```pycon
# >>> from poai_spec.proof.difficulty import compute_quizzes, compute_work
# >>> from poai_spec.basics.parameters import get_preset
# >>> from poai_spec.chain.upgrades import get_rules
# >>> compute_quizzes(2**256 - 1), compute_quizzes(2**255 - 1), compute_quizzes(2**256 // 1000)
# (1, 2, 999)
# >>> [compute_work(2**256 // 1000, get_rules(get_preset(name), (), 0)) for name in ("minimal", "testnet")]
# [6210615168, 7086056546304]


# ### `Cost`


@dataclass(frozen=True)
class Cost:
    """What a manifest pins of a model's cost, under the same names (`compute_multiplications`, page parameters)."""

    position_cost: int
    pair_cost: int
    scored_cost: int


# ### `compute_cost`

# With width D, inner width F, H query and K key heads of dimension d, L blocks and V tokens. At one position a block
# multiplies by the matrices q (D x Hd), k and v (D x Kd), output (Hd x D), gate and up (D x F) and down (F x D). A query and
# a key take d multiplications a head, and so does weighing a value. The head is V x D.


def compute_cost(a: Architecture) -> Cost:
    """Return the multiplications of a model of this shape; the tool that makes a manifest pins them."""
    queries, keys = a.head_count * a.head_dim, a.kv_head_count * a.head_dim
    block = 2 * a.width * queries + 2 * a.width * keys + 3 * a.width * a.ffn_width
    return Cost(a.layer_count * block, a.layer_count * 2 * queries, a.vocabulary_size * a.width)


# ### `check_cost`

# Whoever loads a model compares once.


def check_cost(a: Architecture, model: ModelManifest) -> None:
    """Refuse a manifest that claims another cost than its model's shape has.

    Raises:
        Invalid: `difficulty/cost` (local; never said of a block).
    """
    cost, claimed = compute_cost(a), Cost(model.position_cost, model.pair_cost, model.scored_cost)
    if claimed != cost:
        raise Invalid("difficulty/cost", f"the manifest claims {claimed}, the model's shape takes {cost}")


# ## Retargeting

# With R = `retarget_blocks`, blocks 1 .. 1 + R delimit the first period, 1 + R .. 1 + 2R the second, and so on: the last
# block of a period is the first of the next, so no interval between blocks is left out or counted twice. The target
# changes at the heights 2 + R, 2 + 2R, ...: in the block after the one that ends a period (`is_retarget_height`, page
# [upgrades](../chain/upgrades.md)). An upgrade that changes R or the spacing takes effect at such a height: the block before it ends
# the last period of the old length and begins the first of the new, and periods are counted from it, the *anchor*.

# ### `compute_next_target`

# The claimed time is limited first, to `E // 4 .. 4 E`; then the target is multiplied by it, and divided by E, rounding
# down; the quotient is limited last. The product passes 256 bits.


def compute_next_target(target: Target, actual: Milliseconds, rules: Rules) -> Target:
    """Return the target that follows a period.

    Args:
        target: the target of the period.
        actual: the time it claims, last stamp less first, ms; any sign.
        rules: those of the period; give R, the spacing and the easiest target.

    Returns:
        `target * actual / E` for E = R * spacing, changed at most fourfold, and in 1 .. max_target.
    """
    expected = rules.retarget_blocks * rules.spacing
    bounded = min(max(actual, expected // RETARGET_CLAMP), expected * RETARGET_CLAMP)
    return min(max(target * bounded // expected, 1), rules.max_target)


# ### `rescale_target`

# The machines stay the same when the model changes; a quiz that takes ten times the multiplications is answered a tenth as
# often. So the target grows in proportion to a quiz's cost, and blocks come as often as before. Where the measured ratio of
# times is another one, the next periods find it.


def rescale_target(target: Target, before: Rules, after: Rules) -> Target:
    """Return the target for the first block of new rules: times the ratio of multiplications, in 1 .. max_target."""
    return min(max(target * get_multiplications(after) // get_multiplications(before), 1), after.max_target)


# ### `compute_target`

# At the first block of new rules a period that has just ended is judged by the old ones; then the result is rescaled.


def compute_target(chain: Chain, rules: Rules) -> Target:
    """Return the target that a block on top of `chain` must have.

    Args:
        chain: its ancestors.
        rules: those of the block itself.
    """
    parent, height = chain[len(chain) - 1].core, len(chain)
    target, before = parent.target, get_parent_rules(rules, height)
    if is_retarget_height(height, before):
        first = chain[height - 1 - before.retarget_blocks].core
        target = compute_next_target(target, parent.timestamp - first.timestamp, before)
    return target if before is rules else rescale_target(target, before, rules)


# ### `check_target`


def check_target(core: HeaderCore, chain: Chain, rules: Rules) -> None:
    """Refuse a target that the ancestors do not give.

    Raises:
        Invalid: `difficulty/target`.
    """
    target = compute_target(chain, rules)
    if core.target != target:
        raise Invalid("difficulty/target", f"block {len(chain)} has {core.target:#x}, its ancestors give {target:#x}")


# ## Time stamps

# Three rules bound a stamp. It lies above the median of the last ancestors (page [header](../chain/header.md)), at most
# `max_future` ahead of the local clock (there too), and if it ends a period, above the stamp that began it.

# ### `compute_median_time`


def compute_median_time(chain: Chain) -> Milliseconds:
    """Return the median stamp of the last 11 headers of `chain`, or of all of them if there are fewer.

    For an even number it is the upper one of the two in the middle: index `n // 2` of the n sorted stamps.
    """
    height = len(chain)
    stamps = sorted(chain[h].core.timestamp for h in range(max(0, height - MEDIAN_TIME_BLOCKS), height))
    return stamps[len(stamps) // 2]


# ### `check_period_forward`


def check_period_forward(core: HeaderCore, chain: Chain, rules: Rules) -> None:
    """Refuse a block that ends a period (height anchor + k R, k >= 1) but is not later than the one that began it.

    Raises:
        Invalid: `difficulty/period-not-forward`.
    """
    height, blocks = len(chain), rules.retarget_blocks
    if height <= rules.anchor or (height - rules.anchor) % blocks != 0:
        return
    first = chain[height - blocks].core.timestamp
    if core.timestamp <= first:
        raise Invalid("difficulty/period-not-forward", f"stamp {core.timestamp} is not above {first}, R blocks earlier")


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `difficulty/target` | Invalid | not the target that the ancestors give |
# | `difficulty/period-not-forward` | Invalid | a block that ends a period is not later than the one that began it |
# | `difficulty/cost` | Invalid | a manifest claims another cost than its model's shape has (local; never said of a block) |

# All values that a block is judged by are in the header or its ancestors, so a failure is permanent.

# ## Rationale

# **What false stamps gain: a lead of `max_future`, once.** Take mainnet, where 2,016 blocks take two weeks and a stamp
# may lie two hours ahead. Whatever stamps its miners write, after any number of periods the chain is at most two hours
# ahead of its schedule: 12 blocks, which is 0.6 % of one period's blocks, 0.3 % of two periods' and 0.02 % of a year's.

# Let b_0 < b_1 < ... < b_n be the stamps of the blocks that delimit n periods, and r_i = (b_i - b_(i-1)) / E > 0 the
# ratio of period i, before the clamp. The target is multiplied by at most max(r_i, 1/4) (the upper clamp and `max_target`
# only lower it). Now ln max(r, 1/4) <= r - 1 for every r >= 0: for r >= 1/4 this is ln r <= r - 1, and below that ln 1/4
# = -1.39 < -1 <= r - 1. Summed over the periods,

#     ln(T_n / T_0) <= (b_n - b_0) / E - n <= (elapsed + max_future) / E - n,

# because b_n is at most `max_future` ahead of the clock, with elapsed counted from the stamp b_0. So n periods that leave
# the difficulty where it was take at least n E - `max_future` of time since b_0, whatever the stamps say and whoever
# chose them.

# The same holds of the blocks themselves, for miners whose hash rate gives one block a spacing at T_0. Write e_n for the
# time that n periods take in the mean. The next one takes E T_0 / T_n, that is at least E exp(n - (e_n + `max_future`) /
# E), and exp(x) >= 1 + x makes that at least E + n E - e_n - `max_future`. So e_(n+1) >= (n + 1) E - `max_future`: the
# chain never leads its schedule by more than `max_future`, and over n periods it has at most

#     n E / (n E - max_future)

# times the blocks that it should have. `check_config` allows `max_future <= E / 10`, so the factor is at most n / (n -
# 1/10); it is a bound over a horizon, and no rate at which coins could be made for ever:

# | periods n | 1 | 2 | 3 | 10 | 50 | 500 |
# | --- | --- | --- | --- | --- | --- | --- |
# | `max_future` = E / 10: testnet, minimal | 1.1111 | 1.0526 | 1.0345 | 1.0101 | 1.0020 | 1.0002 |
# | `max_future` = E / 168: mainnet | 1.0060 | 1.0030 | 1.0020 | 1.0006 | 1.0001 | 1.0000 |

# Equality needs r_i = 1 throughout: every other pattern only makes the target smaller. Stamps behind the clock are no
# loan that was not paid for: the time that they leave unclaimed was charged as difficulty before.

# **Why the rule `period-not-forward` is needed.** Without it some r_i can be negative, and below ln(1/4) + 1 = -0.39 the
# clamp at 1/4 gives more than r - 1. The stamps +4E, +4E, +4E, -12E claim no time in all and multiply the target by
# 4 * 4 * 4 / 4 = 16 a cycle. The median rule does not prevent it, since only one block in R needs a false stamp.
# `poai bench retarget` searches for such patterns under all three rules.

# **Why a period shares its ends with its neighbours.** Bitcoin measures R - 1 intervals of R: the one between two periods
# is never counted, so a miner may set the last stamp of each period late and the first of the next early (the time-warp
# attack), and difficulty falls without bound.

# **Why block 1 is the anchor.** Genesis carries a fixed stamp; a network started months later would claim a first period
# of months. Block 1 has a real one, and its own interval counts for nothing. It is also the one stamp that nothing is
# charged for: who mines it may set it as early as genesis, and a miner who then holds most of the hash rate can claim the
# time between bit by bit. So a network's genesis stamp belongs shortly before its launch, and block 1 is worth a look.

# **Why upgrades open no way around it.** Spacing and R change at the border of two periods only, so each ratio r_i is
# measured and divided by one E, and the sketch holds period by period. A change of model multiplies target and a quiz's
# cost alike: the multiplications that a block takes stay what they were, up to rounding and the two bounds.

# **Why multiplications, and pinned.** A measured time differs from machine to machine, and work must be one number. The
# count ignores how fast a machine does them; what matters is that it is about right, within the factor by which models
# differ in multiplications a second, and that nobody can choose it: it follows from the shape.

# **Why the target and not the work is scaled.** `target * actual // E` rounds down, at most one part in the target.

# An absolute schedule (ASERT) was weighed and not taken: decision 0003 in `docs/adr`.
