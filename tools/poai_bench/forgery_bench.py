"""What a forged block costs its forger, and what it costs a verifier: `poai bench forgery`.

A header passes `work/l-hat` if one hash lies below its target, and for that nobody has to run the model: a forger
varies the claimed loss, one Keccak a try. What he takes from a verifier depends on what he sends:

- a *block*, whose invented trace list falls at the first entry: a quiz and one layer;
- a *header* that is drawn for a sample, which has no list to compare with: a whole pass.

A core costs a verifier two passes at most (page work), so a forger takes another core each time; that is two Keccaks
more, and counted. Both sides are measured on one core of the same machine. The forger hashes with the library that the
node checks with; compiled code is faster, and a GPU far more so: divide by what yours gains.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import count
from time import perf_counter
from typing import Any

from rich.table import Table

from poai_bench.engine_bench import find_model
from poai_bench.measure import Say, Spread, describe_machine
from poai_engine.models.model_store import get_model_path
from poai_spec.basics.containers import Header
from poai_spec.basics.notation import Hash32, keccak256, uint64_le, uint256_be
from poai_spec.basics.parameters import Config, make_config
from poai_spec.chain.header import make_genesis_header
from poai_spec.chain.networking import REPLAY_BUDGET_MS, REPLAY_BUDGET_PERIOD_MS
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.engine import Engine
from poai_spec.model.loss import is_below_target
from poai_spec.proof.quiz import generate_quiz
from poai_spec.proof.work import get_quiz_seed
from poaid.models import get_known_model, load_engine

TRIES, QUICK_TRIES = 100_000, 2_000
QUIZZES, QUICK_QUIZZES = 15, 3
CORE_KECCAKS = 2
"""Of a new core: its hash, and the quiz seed."""
PRESETS = (("minimal", ("mini",)), ("testnet", ("smollm2",)), ("mainnet", ("tinyllama", "tinyllama-shape")))
"""Presets and the models that they are measured with, the first whose file is there; mini is made."""
_L_HAT_TAG = keccak256(b"PoAI/l-hat/1")


def choose_presets() -> list[tuple[str, str]]:
    """Return presets and models whose file is there. TinyLlama's shape stands for TinyLlama: the work is the same."""
    chosen = ((preset, next(filter(_is_there, models), None)) for preset, models in PRESETS)
    return [(preset, model) for preset, model in chosen if model is not None]


def _is_there(model: str) -> bool:
    return model == "mini" or get_model_path(model).is_file()


def forge_loss(header: Header, seed: Hash32, tries: int | None = None) -> Header | None:
    """Return a header with a claimed loss that passes `work/l-hat`.

    Args:
        header: gives target and trace digest.
        seed: of its core's quiz.
        tries: losses that are tried, from 0 on; None for as many as it takes.

    Returns:
        The header; None if no try has won.
    """
    before = _L_HAT_TAG + seed
    for loss in count() if tries is None else range(tries):
        l_hat = uint256_be(keccak256(before + uint64_le(loss) + header.trace_digest))
        if is_below_target(l_hat, header.core.target):
            return replace(header, loss=loss)
    return None


def measure_hashes(config: Config, tries: int, rounds: int) -> Spread:
    """Return the tries a second of a forger on one core; none of them may win, so the target is the hardest."""
    genesis = make_genesis_header(config)
    header = replace(genesis, core=replace(genesis.core, height=1, target=1))
    seed, rates = get_quiz_seed(header.core, [genesis], get_rules(config, (), 0)), list[float]()
    for _ in range(rounds):
        start = perf_counter()
        forge_loss(header, seed, tries)
        rates.append(tries / (perf_counter() - start))
    return Spread.of(rates)


def measure_replays(engine: Engine, config: Config, model: str, quizzes: int) -> tuple[Spread, Spread]:
    """Return the seconds of a replay that stops at its first entry, and of a whole one; the quiz is made in both."""
    lexicon, first, whole = get_known_model(model).lexicon, list[float](), list[float]()
    for number in range(quizzes):
        start = perf_counter()
        quiz = generate_quiz(keccak256(b"poai bench forgery" + uint64_le(number)), get_rules(config, (), 0), lexicon)
        steps = engine.steps(quiz.tokens, quiz.scored)
        next(steps)
        first.append(perf_counter() - start)
        for _ in steps:
            pass
        whole.append(perf_counter() - start)
    return Spread.of(first), Spread.of(whole)


def run(presets: Sequence[tuple[str, str]], tries: int, quizzes: int, say: Say) -> dict[str, Any]:
    """Measure presets one after another.

    Args:
        presets: names with their models; none for all whose model is there.
        tries: hashes of a round.
        quizzes: replays, and rounds of hashes.
        say: takes one line of progress.

    Returns:
        `results`: by preset, what a forgery costs both sides; seconds are medians.

    Raises:
        ModelError: a model's file is missing or damaged.
    """
    machine, results = describe_machine(), []
    for preset, model in presets or choose_presets():
        find_model(model, say)
        say(f"{preset}, with {model}")
        config = make_config(preset, get_known_model(model).manifest)
        engine = load_engine(model, get_rules(config, (), 0), 1, say=say)
        hashes = measure_hashes(config, tries, quizzes)
        results.append(describe(preset, model, config, hashes, *measure_replays(engine, config, model, quizzes)))
    return {"bench": "forgery", "machine": machine, "results": results}


def describe(preset: str, model: str, config: Config, hashes: Spread, layer: Spread, replay: Spread) -> dict[str, Any]:
    """Return what follows from the measurements.

    Returns:
        `keccaks`: expected, of a forgery with a new core; `forger_s`: their time; `layer_ratio`, `replay_ratio`:
        seconds of the forger for one of the verifier; `blocks_a_budget`, `headers_a_budget`: forgeries that use up
        what an address prefix has an hour.
    """
    keccaks = 2**256 / config.initial_target + CORE_KECCAKS
    forger = keccaks / hashes.median
    budget = REPLAY_BUDGET_MS / 1000
    return {
        "preset": preset, "model": model, "layers": config.model.layer_count,
        "hashes_a_second": asdict(hashes), "layer_s": asdict(layer), "replay_s": asdict(replay),
        "keccaks": keccaks, "forger_s": forger,
        "layer_ratio": forger / layer.median, "replay_ratio": forger / replay.median,
        "blocks_a_budget": budget / layer.median, "headers_a_budget": budget / replay.median,
    }  # fmt: skip


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as tables."""
    return [_make_costs(result["results"]), _make_limits(result["results"])]


def _make_costs(results: Sequence[dict[str, Any]]) -> Table:
    columns = ("preset", "model", "Keccaks", "Keccaks/s", "forger, ms", "layer, ms", "to layer", "pass, ms", "to pass")
    table = Table(*columns, title="A forgery at the initial target; forger's to verifier's time, one core each")
    for row in results:
        costs = (row["layer_s"]["median"], row["layer_ratio"]), (row["replay_s"]["median"], row["replay_ratio"])
        numbers = f"{row['keccaks']:,.0f}", f"{row['hashes_a_second']['median']:,.0f}"
        shown = (text for seconds, ratio in costs for text in (f"{1000 * seconds:,.3g}", f"{ratio:.2g}"))
        table.add_row(row["preset"], row["model"], *numbers, f"{1000 * row['forger_s']:,.3g}", *shown)
    return table


def _make_limits(results: Sequence[dict[str, Any]]) -> Table:
    hours = REPLAY_BUDGET_PERIOD_MS / 3_600_000
    title = f"{REPLAY_BUDGET_MS / 1000:g} s of failed replays, what an address prefix has in {hours:g} h"
    columns = "preset", "model", "false blocks", "false headers", "forger of the blocks, s"
    table = Table(*columns, title=title)
    for row in results:
        numbers = (f"{row[key]:,.0f}" for key in ("blocks_a_budget", "headers_a_budget"))
        table.add_row(row["preset"], row["model"], *numbers, f"{row['blocks_a_budget'] * row['forger_s']:,.3g}")
    return table
