# # Upgrades  [generated from specs/chain/upgrades.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Rules that change with the height. A network begins with its `Config`, whose id never changes; beside it stands a list of
# upgrades, each a height and the fields that have other values from that height on. `get_rules` gives what holds at a
# height, and every page that reads a number which may change takes `Rules`, not `Config`. Nodes with different lists are
# one network until the first height at which they differ, and two from there on: the *rules digest* covers every upgrade
# that has passed, the quiz seed covers the digest, and so no block counts on both sides. The *fork id* tells a peer of it
# before a block does.


from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from ssz.sedes import ByteList, List, uint32, uint64

from poai_spec.basics.encoding import encode, get_sedes, ssz_field
from poai_spec.basics.notation import Hash32, Height, Invalid, Milliseconds, Target, tagged_hash
from poai_spec.basics.parameters import Config, ModelManifest, check_config, compute_multiplications, compute_network_id


# ## Constants

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `MAX_UPGRADES` | 64 | upgrades | a network that plans one a month reaches it after five years; small enough to compare at every meeting |
# | `FORK_HASH_BYTES` | 4 | bytes | EIP-2124's length: a label, not a commitment; `rules digest` is the commitment |


MAX_UPGRADES = 64
FORK_HASH_BYTES = 4


# ## Types

# ### `Change`

# Each field holds at most one value: SSZ has no optional ones, and a list of at most one item is the same thing. Version,
# epoch length, easiest target, and what belongs to genesis never change.


@dataclass(frozen=True)
class Change:
    """Fields of a config that get another value; an empty one stays as it was.

    Attributes:
        profile: how logits are computed.
        model: the model manifest, with its questions.
        retarget_blocks: blocks in a difficulty period, R.
        spacing: intended time between blocks, ms.
        max_future: how far a time stamp may lie ahead of the local clock, ms.
        quiz_tokens: length of a quiz in tokens.
        salt_tokens: random tokens at its start.
        scored_tokens: positions whose loss counts.
    """

    profile: tuple[bytes, ...] = ssz_field(List(ByteList(32), 1))
    model: tuple[ModelManifest, ...] = ssz_field(List(get_sedes(ModelManifest), 1), item=ModelManifest)
    retarget_blocks: tuple[int, ...] = ssz_field(List(uint64, 1))
    spacing: tuple[Milliseconds, ...] = ssz_field(List(uint64, 1))
    max_future: tuple[Milliseconds, ...] = ssz_field(List(uint64, 1))
    quiz_tokens: tuple[int, ...] = ssz_field(List(uint32, 1))
    salt_tokens: tuple[int, ...] = ssz_field(List(uint32, 1))
    scored_tokens: tuple[int, ...] = ssz_field(List(uint32, 1))


# ### `Upgrade`


@dataclass(frozen=True)
class Upgrade:
    """What changes, and the height of the first block that it holds for."""

    height: Height = ssz_field(uint64)
    change: Change = ssz_field(Change)


# ### `UpgradeList`


@dataclass(frozen=True)
class UpgradeList:
    """Upgrades in ascending order of height; what the rules digest hashes."""

    upgrades: tuple[Upgrade, ...] = ssz_field(List(get_sedes(Upgrade), MAX_UPGRADES), item=Upgrade)


# ### `Rules`


@dataclass(frozen=True)
class Rules:
    """What holds for the blocks from one height on, until the next upgrade.

    Attributes:
        since: height of the first block that it holds for; 0 for what the network began with.
        digest: hash of the network and of every upgrade up to this one.
        anchor: height of the block that ended the last period of another length; 1, which begins the first one. Periods
            are counted from it.
        before: the rules before `since`; None for what the network began with.
        profile: and the fields below: as in `Config` and `Change`.
    """

    since: Height
    digest: Hash32
    anchor: Height
    before: "Rules | None"
    profile: bytes
    model: ModelManifest
    epoch_blocks: int
    retarget_blocks: int
    spacing: Milliseconds
    max_future: Milliseconds
    quiz_tokens: int
    salt_tokens: int
    scored_tokens: int
    max_target: Target
    genesis_seed: Hash32


# ### `ForkId`


@dataclass(frozen=True)
class ForkId:
    """What a node says of its rules at its head (EIP-2124).

    Attributes:
        hash: the first bytes of the digest of the rules at the head.
        next: height of the next upgrade that it knows of, above the head; 0 for none.
    """

    hash: bytes
    next: Height


# ## The rules of a height

# ### `make_change`


def make_change(**values: Any) -> Change:
    """Return a change of the named fields."""
    assert values.keys() <= {f.name for f in fields(Change)}, "only the fields of Change can change"
    return Change(*[(values[f.name],) if f.name in values else () for f in fields(Change)])


# ### `apply_change`


def apply_change(config: Config, change: Change) -> Config:
    """Return the config with the changed fields; a network that had begun with it would have these rules."""
    values = {f.name: getattr(change, f.name) for f in fields(change)}
    return replace(config, **{name: value[0] for name, value in values.items() if value})


# ### `compute_rules_digest`


def compute_rules_digest(network_id: Hash32, passed: tuple[Upgrade, ...]) -> Hash32:
    """Return the digest of the rules after these upgrades, all that have passed, in order."""
    return tagged_hash("PoAI/rules/1", network_id, encode(UpgradeList(passed)))


# ### `fill_rules`


def fill_rules(config: Config, since: Height, digest: Hash32, anchor: Height, before: Rules | None) -> Rules:
    """Return the rules with a config's numbers; the other arguments are their fields."""
    names = {f.name for f in fields(Config)} & {f.name for f in fields(Rules)}
    numbers = {name: getattr(config, name) for name in names}
    return Rules(since=since, digest=digest, anchor=anchor, before=before, **numbers)


# ### `make_rules`


@cache
def make_rules(config: Config, upgrades: tuple[Upgrade, ...]) -> tuple[Rules, ...]:
    """Return the rules that a network has had and will have, in order: one more than it has upgrades."""
    network_id, current = compute_network_id(config), config
    made = [fill_rules(config, 0, compute_rules_digest(network_id, ()), 1, None)]
    for count, upgrade in enumerate(upgrades, 1):
        current, before = apply_change(current, upgrade.change), made[-1]
        anchor = upgrade.height - 1 if moves_period(upgrade.change) else before.anchor
        digest = compute_rules_digest(network_id, upgrades[:count])
        made.append(fill_rules(current, upgrade.height, digest, anchor, before))
    return tuple(made)


# ### `get_rules`


def get_rules(config: Config, upgrades: tuple[Upgrade, ...], height: Height) -> Rules:
    """Return the rules for the block at a height; `upgrades` passed `check_upgrades`."""
    return next(rules for rules in reversed(make_rules(config, upgrades)) if rules.since <= height)


# ### `get_parent_rules`


def get_parent_rules(rules: Rules, height: Height) -> Rules:
    """Return the rules for the parent of the block at `height`, whose own are `rules`."""
    return rules.before if rules.before is not None and height == rules.since else rules


# ### `get_multiplications`


def get_multiplications(rules: Rules) -> int:
    """Return the multiplications of one quiz under these rules."""
    return compute_multiplications(rules.model, rules.quiz_tokens, rules.scored_tokens)


# ## Which lists are allowed

# ### `moves_period`


def moves_period(change: Change) -> bool:
    """Whether a difficulty period has another length from here on, in blocks or in time."""
    return bool(change.retarget_blocks or change.spacing)


# ### `is_retarget_height`

# With R = `retarget_blocks` and a = `anchor`, the blocks a .. a + R delimit a period, a + R .. a + 2R the next. The target
# may change in the block after the one that ends a period.


def is_retarget_height(height: Height, rules: Rules) -> bool:
    """Tell whether a period has ended with the parent: height a + 1 + k R for some k >= 1."""
    distance = height - 1 - rules.anchor
    return distance >= rules.retarget_blocks and distance % rules.retarget_blocks == 0


# ### `check_upgrades`

# Called once, when a network is loaded. The bounds of `check_config` hold for every set of rules, so no argument of these
# pages needs a second look after a change.


def check_upgrades(config: Config, upgrades: tuple[Upgrade, ...]) -> None:
    """Refuse a list that has no meaning, opens the time warp, or breaks a bound; the first fault counts.

    Args:
        config: passed `check_config`.
        upgrades: of each in order: its height, whether it changes anything, the period, then `check_config`.

    Raises:
        Invalid: `upgrades/too-many`, `upgrades/order`, `upgrades/no-change`, `upgrades/period-border`,
            `parameters/...`.
    """
    if len(upgrades) > MAX_UPGRADES:
        raise Invalid("upgrades/too-many", f"{len(upgrades)} upgrades, {MAX_UPGRADES} are allowed")
    current = config
    for count, upgrade in enumerate(upgrades):
        before = make_rules(config, upgrades[:count])[-1]
        if upgrade.height <= before.since:
            raise Invalid("upgrades/order", f"height {upgrade.height} does not come after {before.since}")
        after = apply_change(current, upgrade.change)
        if after == current:
            raise Invalid("upgrades/no-change", f"at height {upgrade.height} every value is what it was")
        if moves_period(upgrade.change) and not is_retarget_height(upgrade.height, before):
            raise Invalid("upgrades/period-border", f"height {upgrade.height} is not the first after a period")
        check_config(after)
        current = after


# ## Fork ids

# EIP-2124 whole, with heights for block numbers, and Keccak over the list for CRC-32 over heights: two lists with one
# height and different changes differ.

# ### `get_fork_hash`


def get_fork_hash(rules: Rules) -> bytes:
    """Return the label of a set of rules."""
    return rules.digest[:FORK_HASH_BYTES]


# ### `get_fork_id`


def get_fork_id(config: Config, upgrades: tuple[Upgrade, ...], head: Height) -> ForkId:
    """Return the fork id of a node whose head is at a height."""
    coming = [upgrade.height for upgrade in upgrades if upgrade.height > head]
    return ForkId(get_fork_hash(get_rules(config, upgrades, head)), min(coming, default=0))


# ### `check_fork_id`

# The peer's label is looked for among the node's own, past and future.

# | the peer's label is | and its next height | then |
# | --- | --- | --- |
# | that of the rules at the node's head | is 0 or above the head | compatible |
# | | has been passed by the node's head | `upgrades/peer-changes`: the peer applied, or will, what this node did not |
# | one of the node's past | is that of the node's next upgrade after it | compatible: the peer is behind |
# | | is another, or 0 | `upgrades/peer-unaware`: it does not know an upgrade that has passed |
# | one of the node's future | is any | compatible: the node is behind |
# | none of these | is any | `upgrades/peer-differs`: their pasts differ |


def check_fork_id(config: Config, upgrades: tuple[Upgrade, ...], head: Height, peer: ForkId) -> None:
    """Refuse a peer that cannot be on the same chain; both sides find it out by themselves.

    Args:
        config: the network, which is the peer's, too.
        upgrades: the node's own list.
        head: height of the node's own head.
        peer: what the peer says.

    Raises:
        Invalid: `upgrades/peer-changes`, `upgrades/peer-unaware`, `upgrades/peer-differs`; nobody's fault, no penalty.
    """
    every = make_rules(config, upgrades)
    known = next((place for place, rules in enumerate(every) if get_fork_hash(rules) == peer.hash), None)
    if known is None:
        raise Invalid("upgrades/peer-differs", f"its rules {peer.hash.hex()} are none of this node's {len(every)}")
    following = every[known + 1].since if known + 1 < len(every) else 0
    if every[known].since <= head and not 0 < following <= head and 0 < peer.next <= head:
        raise Invalid("upgrades/peer-changes", f"it changes its rules at height {peer.next}, this node does not")
    if 0 < following <= head and peer.next != following:
        raise Invalid("upgrades/peer-unaware", f"it does not know the upgrade at height {following}")


# ### `get_unknown_upgrade`


def get_unknown_upgrade(config: Config, upgrades: tuple[Upgrade, ...], head: Height, peer: ForkId) -> Height:
    """Return a coming height at which a compatible peer will be lost, or 0: either side is told while there is time.

    The node's own next upgrade, if the peer, at the same rules, announces none or a later one; the peer's, if the node
    has none there.
    """
    own = get_fork_id(config, upgrades, head)
    if peer.hash != own.hash or peer.next == own.next:
        return 0
    return min(height for height in (own.next, peer.next) if height > 0)


# ```pycon
# >>> from poai_spec.basics.parameters import get_preset
# >>> from poai_spec.chain.upgrades import Upgrade, get_fork_id, get_rules, make_change
# >>> config = get_preset("minimal")
# >>> longer = Upgrade(10, make_change(quiz_tokens=40))
# >>> [get_rules(config, (longer,), height).quiz_tokens for height in (0, 9, 10, 11)]
# [32, 32, 40, 40]
# >>> [get_fork_id(config, (longer,), head).next for head in (9, 10)]
# [10, 0]


# ## Rejection codes

# None of these is said of a block: they refuse a list when it is loaded, or a peer when it is met.

# | code | class | meaning |
# | --- | --- | --- |
# | `upgrades/too-many` | Invalid | more than `MAX_UPGRADES` |
# | `upgrades/order` | Invalid | heights that do not ascend strictly, or a height of 0 |
# | `upgrades/no-change` | Invalid | an upgrade that changes no value |
# | `upgrades/period-border` | Invalid | another spacing or period length in the middle of a difficulty period |
# | `upgrades/peer-changes` | Invalid | the peer has an upgrade at a height that this node passed without one |
# | `upgrades/peer-unaware` | Invalid | the peer lacks an upgrade that this node has passed |
# | `upgrades/peer-differs` | Invalid | the peer's past upgrades are not this node's |

# ## Rationale

# - **Why the network id stays.** Accounts, genesis and history go on. With a new id for every change, a change would be
#   another network, and its users would begin again.
# - **Why the digest is in the quiz seed.** Otherwise a block mined under one list would be valid under another that
#   differs in a number the block does not show, and the same work would count on both sides of a split.
# - **Why heights, and no vote of miners.** Whoever runs a node chooses its rules; miners' votes under Bitcoin's BIP 9
#   decided nothing but delay. Decision 0011 in `docs/adr`.
# - **Why a change of period or spacing waits for a border.** A period that is measured by one length and divided by another
#   is the time warp of the page [difficulty](../proof/difficulty.md) again. A change of model or quiz may come anywhere: the target
#   is rescaled with it.
# - **Why the target is rescaled, and how work is counted.** On the page [difficulty](../proof/difficulty.md).
# - **Why a peer that merely does not know of a coming upgrade stays.** Until the height both follow the same rules, and
#   blocks from either are good. It is told, in the log, that it will be left behind.
# - **A page is copied only where an algorithm changes.** New numbers need a `Change` alone. A new arithmetic gets its own
#   page and a new value of `profile`.
