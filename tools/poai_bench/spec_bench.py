"""How fast the specification itself runs, on plain Python integers: `poai bench spec`."""

from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter
from typing import Any

from rich.table import Table

from poai_bench.header_bench import make_chain
from poai_bench.measure import Say, Spread, describe_machine, make_rate_table
from poai_engine.engines.reference import ReferenceEngine
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.model_store import resolve_model
from poai_spec.basics.containers import Header, compute_block_hash
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import keccak256, uint64_le
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.header import check_header_alone, check_header_in_chain
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import Account, State, compute_state_root
from poai_spec.model.fixed_point import log2_fixed
from poai_spec.proof.difficulty import compute_target
from poai_spec.proof.lexicon import read_lexicon
from poai_spec.proof.quiz import generate_quiz

SECONDS, QUICK_SECONDS = 0.5, 0.05
"""How long a function is called for one measurement; at least once."""
ROUNDS, QUICK_ROUNDS = 5, 3
CHAIN, ACCOUNTS = 32, 16
PASS_TOKENS = 8


def make_works() -> dict[str, Callable[[], object]]:
    """Return what is measured: a name and a call."""
    config, lexicon = get_preset("testnet"), read_lexicon("smollm2-135m")
    chain = make_chain(config, CHAIN)
    header, ancestors, now = chain[-1], chain[:-1], chain[-1].core.timestamp
    data, drbg, number = encode(header), Drbg(bytes(32)), iter(range(1 << 60))
    state: State = {keccak256(uint64_le(n))[:20]: Account(balance=n + 1) for n in range(ACCOUNTS)}
    reference, tokens = ReferenceEngine(read_gguf(resolve_model("mini"))), tuple(range(3, 3 + PASS_TOKENS))

    def check() -> None:
        check_header_alone(header)
        check_header_in_chain(header, ancestors, get_rules(config, (), 0), now)

    return {
        "notation: Keccak-256 of 216 bytes": lambda: keccak256(data),
        "encoding: encode a header": lambda: encode(header),
        "encoding: decode a header": lambda: decode(Header, data),
        "containers: block hash": lambda: compute_block_hash(header),
        "drbg: draw below 49,152": lambda: drbg.below(49_152),
        "fixed-point: log2 of a 40-bit number": lambda: log2_fixed((1 << 40) - 12_345),
        "quiz: generate one of 64 tokens": lambda: generate_quiz(
            keccak256(uint64_le(next(number))), get_rules(config, (), 0), lexicon
        ),
        "difficulty: the target": lambda: compute_target(ancestors, get_rules(config, (), 0)),
        "header: every rule of a header": check,
        f"state: root of {ACCOUNTS} accounts": lambda: compute_state_root(state),
        f"inference: a pass of mini, {PASS_TOKENS} tokens": lambda: reference.evaluate([tokens], [(PASS_TOKENS - 1,)]),
    }


def run(seconds: float, rounds: int, say: Say) -> dict[str, Any]:
    """Measure on one core.

    Args:
        seconds: of one measurement.
        rounds: measurements of each function.
        say: takes one line of progress.

    Returns:
        `results`: the function, and how often a second.
    """
    machine, results = describe_machine(), []
    for name, work in make_works().items():
        say(name)
        rate = Spread.of(_measure(work, seconds) for _ in range(rounds))
        results.append({"what": name, "per_second": rate.median, "spread": asdict(rate)})
    return {"bench": "spec", "machine": machine, "results": results}


def _measure(work: Callable[[], object], seconds: float) -> float:
    """Return calls a second."""
    calls, start = 0, perf_counter()
    while (taken := perf_counter() - start) < seconds or not calls:
        work()
        calls += 1
    return calls / taken if taken else float(calls)


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as a table."""
    return [make_rate_table("page and function", result["results"])]
