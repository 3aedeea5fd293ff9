"""Search for ways to gain blocks by false time stamps, and measure how the difficulty follows the hash rate.

Three rules are compared: ours (the specification's own functions), ours without `difficulty/period-not-forward`, and
Bitcoin's, whose periods do not share their ends. A miner with some share of the hash rate chooses the stamps of its
blocks; the strategy is a pattern of claimed period lengths, repeated, and what the blocks between say. Blocks take
their expected time, so that a gain is the strategy's and not luck. Every stamp is legal: above the median, not too far
ahead of the clock, and later than the period's beginning where the rule says so.

The gain of a strategy is its block rate over that of true stamps under the same rule, at the same hash rate. Block 1 is
honest: its stamp begins the first period, and how far it lies behind the clock is not the rule's to judge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from random import Random
from typing import Any

from rich.table import Table

from poai_spec.basics.containers import Header, HeaderCore
from poai_spec.basics.parameters import Config, ModelManifest, make_config
from poai_spec.chain.upgrades import get_rules, is_retarget_height
from poai_spec.proof.difficulty import (
    compute_median_time,
    compute_next_target,
    compute_quizzes,
    compute_target,
)

OURS, NO_FORWARD, BITCOIN = "ours", "ours without period-not-forward", "Bitcoin's"
RULES = (OURS, NO_FORWARD, BITCOIN)
BLOCKS, SPACING = 12, 1_000_000  # a period longer than the median's window, and stamps fine enough not to matter
PERIOD = BLOCKS * SPACING
LOW, HIGH, TRUE = "low", "high", "true"  # the earliest legal stamp, the latest, and the clock's
STEPS: tuple[float | str, ...] = (LOW, HIGH, TRUE, 0.25, 1.0, 4.0, -12.0)
MORE_STEPS: tuple[float | str, ...] = (*STEPS, 0.0, 0.5, 0.9, 1.1, 2.0, 3.0, 8.0, 16.0, -1.0, -3.0, -4.0, -8.0)


@dataclass(frozen=True)
class StampStrategy:
    """How a miner stamps its blocks.

    Attributes:
        pattern: stamps of the blocks that end periods, repeated: a step from the last such block in periods, or a word.
        begin: stamp of the first block of a period, where the rule tells it from the last one of the period before.
        filler: stamp of all other blocks.
        delay: true stamps at the ends of the first so many periods (the others are already as above).
    """

    pattern: tuple[float | str, ...]
    begin: str
    filler: str
    delay: int

    def __str__(self) -> str:
        steps = " ".join(step if isinstance(step, str) else f"{step:+g}" for step in self.pattern)
        return f"({steps}) begin {self.begin}, others {self.filler}, after {self.delay} periods"


HONEST = StampStrategy((TRUE,), TRUE, TRUE, 0)
KNOWN_ATTACKS = (
    StampStrategy((HIGH,), LOW, LOW, 0),  # the time warp: the last stamp of a period late, all others early
    StampStrategy(
        (4.0, 4.0, 4.0, -12.0), LOW, LOW, 12
    ),  # claims no time, but the clamp at 1/4 forgives three of four parts
)


@dataclass(frozen=True)
class SimulatedNetwork:
    """What a strategy is played on: a rule of `RULES`, and the clock limit as a share of a period."""

    rule: str
    max_future: float

    @property
    def config(self) -> Config:
        """The network's parameters; `check_config` would refuse a `max_future` above a tenth."""
        return make_network_config(self.max_future)

    def next_target(self, chain: Sequence[Header]) -> int:
        """Return the target that the rule demands on top of `chain`."""
        height, parent = len(chain), chain[-1].core
        if self.rule != BITCOIN:
            return compute_target(chain, get_rules(self.config, (), 0))
        if height % BLOCKS:
            return parent.target
        return compute_next_target(
            parent.target, parent.timestamp - chain[height - BLOCKS].core.timestamp, get_rules(self.config, (), 0)
        )

    def ends_period(self, height: int) -> bool:
        """Tell whether a block's stamp is the later one of a retarget."""
        return (
            (height + 1) % BLOCKS == 0
            if self.rule == BITCOIN
            else is_retarget_height(height + 1, get_rules(self.config, (), 0))
        )

    def earliest(self, chain: Sequence[Header]) -> int:
        """Return the lowest legal stamp on top of `chain`."""
        lowest = compute_median_time(chain) + 1
        if self.rule == OURS and self.ends_period(len(chain)):
            lowest = max(lowest, chain[len(chain) - BLOCKS].core.timestamp + 1)
        return lowest


@cache
def make_network_config(max_future: float) -> Config:
    """Return a network with short periods; nothing of the model matters here."""
    model = ModelManifest(bytes(32), bytes(32), bytes(32), False, 1, 2, False, 0, 1, 1, 1, ())
    config = make_config("testnet", model)
    return replace(
        config,
        retarget_blocks=BLOCKS,
        spacing=SPACING,
        max_future=int(max_future * PERIOD),
        initial_target=2**256 >> 40,
        genesis_timestamp=0,
    )


def make_header(height: int, stamp: int, target: int) -> Header:
    """Return a header of which only height, stamp and target count."""
    core = HeaderCore(1, height, bytes(32), stamp, target, bytes(20), bytes(32), bytes(32), 0)
    return Header(core, 0, bytes(32))


def choose_stamp(network: SimulatedNetwork, strategy: StampStrategy, chain: Sequence[Header], now: float) -> int:
    """Return the stamp that a strategy gives the block on top of `chain`, moved into the legal range."""
    height, config = len(chain), network.config
    lowest, highest = network.earliest(chain), int(now) + config.max_future
    step: float | str = strategy.filler
    if height == 1:
        step = TRUE
    elif network.ends_period(height):
        count = height // BLOCKS - (network.rule != BITCOIN)
        step = TRUE if count < strategy.delay else strategy.pattern[(count - strategy.delay) % len(strategy.pattern)]
    elif network.rule == BITCOIN and height % BLOCKS == 0:
        step = strategy.begin
    words = {LOW: lowest, HIGH: highest, TRUE: int(now)}
    last = chain[max(0, height - BLOCKS)].core.timestamp
    stamp = words[step] if isinstance(step, str) else last + int(step * PERIOD)
    return max(lowest, min(stamp, highest))


def play(
    network: SimulatedNetwork, strategy: StampStrategy, periods: int, hash_share: float = 1.0, seed: int = 0
) -> tuple[list[Header], float]:
    """Mine so many periods and return the chain and the time that it took, ms.

    Args:
        network: the rule.
        strategy: the stamps of the miner.
        periods: how long to play.
        hash_share: which part of the blocks is the miner's; the others have true stamps.
        seed: decides which ones.
    """
    config, random, now = network.config, Random(seed), 0.0  # noqa: S311
    hash_rate = compute_quizzes(config.initial_target) / SPACING
    chain = [make_header(0, 0, config.initial_target)]
    for height in range(1, periods * BLOCKS + 2):
        target = network.next_target(chain)
        now += compute_quizzes(target) / hash_rate
        own = hash_share >= 1 or random.random() < hash_share
        stamp = choose_stamp(network, strategy if own else HONEST, chain, now)
        chain.append(make_header(height, stamp, target))
    return chain, now


@cache
def measure_honest(network: SimulatedNetwork, periods: int) -> float:
    """Return the time that so many periods take with true stamps, ms."""
    return play(network, HONEST, periods)[1]


def compute_gain(
    network: SimulatedNetwork, strategy: StampStrategy, periods: int, hash_share: float, seeds: int = 2
) -> float:
    """Return the block rate over the honest one; with a share below 1 the mean over some draws of who mines what."""
    honest = measure_honest(network, periods)
    seeds = 1 if hash_share >= 1 else seeds
    return sum(honest / play(network, strategy, periods, hash_share, seed)[1] for seed in range(seeds)) / seeds


def compute_work_gain(network: SimulatedNetwork, strategy: StampStrategy, periods: int, hash_share: float) -> float:
    """Return the chain's work over what the same time at the same hash rate does with true stamps."""
    chain, elapsed = play(network, strategy, periods, hash_share)
    work = sum(compute_quizzes(header.core.target) for header in chain[1:])
    return work / (elapsed / SPACING * compute_quizzes(network.config.initial_target))


def iterate_strategies(length: int) -> Iterator[StampStrategy]:
    """Yield the known attacks, then every pattern of up to `length` coarse steps, low or true stamps between them."""
    yield from KNOWN_ATTACKS
    for n in range(1, length + 1):
        for pattern in product(STEPS, repeat=n):
            for filler, delay in ((LOW, 0), (LOW, 12), (TRUE, 0)):
                yield StampStrategy(pattern, LOW, filler, delay)


def mutate(strategy: StampStrategy, random: Random) -> StampStrategy:
    """Change one thing about a strategy: a step, the length, what lies between, or the delay."""
    pattern, place = list(strategy.pattern), random.randrange(len(strategy.pattern))
    match random.randrange(6):
        case 0 | 1:
            pattern[place] = random.choice(MORE_STEPS)
        case 2 if len(pattern) < 12:
            pattern.insert(place, random.choice(MORE_STEPS))
        case 3 if len(pattern) > 1:
            del pattern[place]
        case 4:
            return replace(strategy, filler=random.choice((LOW, HIGH, TRUE)), begin=random.choice((LOW, HIGH, TRUE)))
        case 5:
            return replace(strategy, delay=random.randrange(25))
    return replace(strategy, pattern=tuple(pattern))


def search(
    network: SimulatedNetwork, *, hash_share: float, periods: int, length: int, climbs: int, seed: int = 0
) -> tuple[StampStrategy, float, int]:
    """Return the best strategy found, its gain, and how many were tried: all short ones, then hill climbing.

    Args:
        network: the rule and its clock limit.
        hash_share: the miner's part of the hash rate.
        periods: length of a play.
        length: patterns up to this length are tried exhaustively.
        climbs: number of mutations tried on the best ones after that.
        seed: decides the mutations.
    """
    tried = {s: compute_gain(network, s, periods, hash_share) for s in iterate_strategies(length)}
    random = Random(seed)  # noqa: S311
    for _ in range(climbs):
        best = sorted(tried, key=lambda s: tried[s], reverse=True)[:4]
        strategy = mutate(random.choice(best), random)
        if strategy not in tried:
            tried[strategy] = compute_gain(network, strategy, periods, hash_share)
    winner = max(tried, key=lambda s: tried[s])
    return winner, tried[winner], len(tried)


def measure_difficulty(
    network: SimulatedNetwork, strategy: StampStrategy, periods: int, hash_share: float
) -> list[float]:
    """Return the work of a block at the end of each period, over the first block's."""
    chain = play(network, strategy, periods, hash_share)[0]
    first = compute_quizzes(chain[0].core.target)
    return [float(f"{compute_quizzes(header.core.target) / first:.4g}") for header in chain[1::BLOCKS]]


def follow_hash_rate(network: SimulatedNetwork, factor: float, settled: int, blocks: int, random: Random | None = None
                     ) -> list[float]:  # fmt: skip
    """Change the hash rate once and follow the honest chain.

    Args:
        network: the rule.
        factor: hash rate that is there over the one that the target was made for.
        settled: periods before the change; with 0 the network starts with a wrong target.
        blocks: after the change.
        random: draws the time of each block, exponential; None gives each its expected time.

    Returns:
        The time that each block is expected to take, in units of the spacing.
    """
    chain, now = play(network, HONEST, settled)
    hash_rate, expected = factor * compute_quizzes(network.config.initial_target) / SPACING, []
    for _ in range(blocks):
        target = network.next_target(chain)
        expected.append(compute_quizzes(target) / hash_rate / SPACING)
        now += expected[-1] * SPACING * (random.expovariate(1) if random else 1)
        chain.append(make_header(len(chain), choose_stamp(network, HONEST, chain, now), target))
    return expected


def measure_convergence(factor: float) -> tuple[int, float]:
    """Change the hash rate once by `factor` and follow the honest chain under our rule.

    Returns:
        The number of retargets, and the time in periods of the schedule, until blocks are within 5 % of the spacing.
    """
    expected = follow_hash_rate(SimulatedNetwork(OURS, 0.0), factor, settled=3, blocks=10 * BLOCKS)
    reached = next(place for place, interval in enumerate(expected) if abs(interval - 1) < 0.05)
    return len(set(expected[: reached + 1])) - 1, sum(expected[:reached]) / BLOCKS


def run(
    *,
    periods: int = 60,
    length: int = 2,
    climbs: int = 300,
    hash_shares: Sequence[float] = (1.0, 0.6, 0.3),
    max_futures: Sequence[float] = (0.0, 0.1, 0.5),
    rules: Sequence[str] = RULES,
) -> dict[str, Any]:
    """Search every combination of rule, hash share and clock limit; return the figures that `make_table` prints."""
    searches = []
    for rule, max_future, hash_share in product(rules, max_futures, hash_shares):
        network = SimulatedNetwork(rule, max_future)
        strategy, gain, tried = search(network, hash_share=hash_share, periods=periods, length=length, climbs=climbs)
        searches.append(
            {
                "rule": rule,
                "max_future": max_future,
                "hash_share": hash_share,
                "tried": tried,
                "gain": gain,
                "work_gain": compute_work_gain(network, strategy, periods, hash_share),
                "strategy": str(strategy),
                "difficulty": measure_difficulty(network, strategy, periods, hash_share),
            }
        )
    convergence = {}
    for name, factor in (("10x up", 10.0), ("10x down", 0.1)):
        retargets, elapsed = measure_convergence(factor)
        convergence[name] = {"retargets": retargets, "periods_of_schedule": elapsed}
    return {"bench": "retarget", "periods": periods, "searches": searches, "convergence": convergence}


def make_table(figures: dict[str, Any]) -> Table:
    """Return the figures of `run` as a table for a terminal."""
    steps = ", ".join(
        f"hash rate {name}: {c['retargets']} retargets, {c['periods_of_schedule']:.2f} periods of time"
        for name, c in figures["convergence"].items()
    )
    table = Table(
        "rule", "clock limit", "hash share", "tried", "best gain", "work", "best strategy",
        title=f"Blocks gained by false stamps, {figures['periods']} periods",
        caption=f"Convergence to 5 %: {steps}",
    )  # fmt: skip
    for row in figures["searches"]:
        gain = f"{row['gain']:.4f}" if row["gain"] < 100 else f"{row['gain']:.3g}"
        limit, share = f"{row['max_future']:g} periods", f"{row['hash_share']:.0%}"
        table.add_row(row["rule"], limit, share, str(row["tried"]), gain, f"{row['work_gain']:.4f}", row["strategy"])
    return table
