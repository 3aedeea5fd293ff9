"""How many headers a second one core checks before any model runs: `poai bench headers`.

The headers are a chain of the testnet, each with work below its target: the loss is tried until the hash wins, which
no check before the replay can tell from an honest one.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

from rich.table import Table

from poai_bench.measure import Spread, describe_machine, make_rate_table
from poai_spec.basics.containers import Header, compute_block_hash
from poai_spec.basics.encoding import decode
from poai_spec.basics.notation import Invalid, keccak256
from poai_spec.basics.parameters import Config, get_preset
from poai_spec.chain.header import check_header_alone, check_header_in_chain, make_genesis_header
from poai_spec.chain.production import make_template
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.loss import compute_l_hat, is_below_target
from poai_spec.proof.difficulty import compute_target
from poai_spec.proof.work import get_quiz_seed
from poaid.chain.header_check import check_encoded_header
from poaid.layout import decode_header, encode_header

HEADERS, QUICK_HEADERS = 2_000, 300
ROUNDS, QUICK_ROUNDS = 7, 3


def make_chain(config: Config, count: int) -> list[Header]:
    """Return genesis and `count` headers that pass every check but the replay."""
    chain, rules = [make_genesis_header(config)], get_rules(config, (), 0)
    first = make_template(chain, {}, rules, bytes(20), config.genesis_timestamp + config.spacing)
    for height in range(1, count + 1):
        stamp = config.genesis_timestamp + height * config.spacing
        core = replace(first, height=height, parent_hash=compute_block_hash(chain[-1]), timestamp=stamp)
        core = replace(core, target=compute_target(chain, rules))
        chain.append(find_loss(Header(core, 0, bytes(32)), chain, config, win=True))
    return chain


def find_loss(header: Header, chain: list[Header], config: Config, *, win: bool) -> Header:
    """Return a header on top of `chain` with the next loss that wins, or loses."""
    seed = get_quiz_seed(header.core, chain, get_rules(config, (), 0))
    while is_below_target(compute_l_hat(seed, header.loss, header.trace_digest), header.core.target) != win:
        header = replace(header, loss=header.loss + 1)
    return header


def run(headers: int = HEADERS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure on one core.

    Args:
        headers: length of the chain.
        rounds: measurements of each kind; they take turns.

    Returns:
        `results`: what was done, and how often a second.
    """
    machine, config = describe_machine(), get_preset("testnet")
    chain = make_chain(config, headers)
    data = [encode_header(header) for header in chain]
    now = chain[-1].core.timestamp
    ancestors = chain[:-1]
    hashes = [compute_block_hash(header) for header in ancestors]
    worthless = encode_header(find_loss(chain[-1], ancestors, config, win=False))

    def check_chain() -> None:
        ours, known = chain[:1], hashes[:1]
        for item in data[1:]:
            header, block_hash = check_encoded_header(item, ours, known, get_rules(config, (), 0), now)
            ours.append(header)
            known.append(block_hash)

    def check_chain_by_pages() -> None:
        ours = chain[:1]
        for item in data[1:]:
            header = decode(Header, item)
            check_header_alone(header)
            check_header_in_chain(header, ours, get_rules(config, (), 0), now)
            compute_block_hash(header)
            ours.append(header)

    def refuse() -> None:
        for _ in range(headers):
            with suppress(Invalid):
                check_encoded_header(worthless, ancestors, hashes, get_rules(config, (), 0), now)

    def each(work: Callable[[bytes], object]) -> Callable[[], None]:
        def run_all() -> None:
            for item in data[1:]:
                work(item)

        return run_all

    kinds = {
        "checks of a header that passes": check_chain,
        "checks of a header without work": refuse,
        "the same by the pages, for one that passes": check_chain_by_pages,
        "decode with struct": each(decode_header),
        "decode with ssz": each(lambda item: decode(Header, item)),
        "Keccak-256 of 248 bytes": each(lambda item: keccak256(bytes(32) + item)),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, work in kinds.items():
            start = perf_counter()
            work()
            times[kind].append(headers / (perf_counter() - start))
    spreads = {kind: Spread.of(found) for kind, found in times.items()}
    results = [{"what": kind, "per_second": rate.median, "spread": asdict(rate)} for kind, rate in spreads.items()]
    return {"bench": "headers", "machine": machine, "headers": headers, "results": results}


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as a table."""
    return [make_rate_table("what", result["results"])]
