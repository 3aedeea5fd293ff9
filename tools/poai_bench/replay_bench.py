"""How many blocks a second a node verifies: `poai bench replay`.

A chain is mined into a data directory with a target that every quiz meets, so mining it costs what replaying it does.
It is verified block by block, as blocks come from peers: each trace entry is compared as soon as it is known; and in
batches, as `poaid verify` does.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.table import Table

from poai_bench.engine_bench import find_model
from poai_bench.flags import BENCH_PERIOD
from poai_bench.measure import Say, Spread, describe_machine
from poai_engine.models.model_store import get_model_path
from poai_spec.basics.containers import Block, Header
from poai_spec.basics.encoding import decode
from poai_spec.basics.parameters import UINT256_MAX
from poai_spec.chain.block import Judge, check_block, make_genesis, make_judge
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import State
from poaid.chain.chain_state import ChainState
from poaid.chain.verify import verify_store
from poaid.models import load_engine
from poaid.network_file import Network, check_network, get_network
from poaid.produce.attempts import get_time, mine_block
from poaid.store.database import Database

BLOCKS, QUICK_BLOCKS = 32, 8
ROUNDS, QUICK_ROUNDS = 5, 2


def choose_models() -> list[str]:
    """Return mini, and SmolLM2 if its file is there."""
    return ["mini", *(["smollm2"] if get_model_path("smollm2").is_file() else [])]


def make_network(model: str) -> Network:
    """Return the testnet with a model and a target that every quiz meets."""
    network = get_network("testnet", model, UINT256_MAX)
    return check_network(replace(network, config=replace(network.config, retarget_blocks=BENCH_PERIOD)))


def run(models: Sequence[str], threads: int, blocks: int, rounds: int, say: Say) -> dict[str, Any]:
    """Measure models one after another.

    Returns:
        `results`: blocks a second, by model and by how they are verified.

    Raises:
        ModelError: a model's file is missing or damaged.
    """
    machine, results = describe_machine(), list[dict[str, Any]]()
    for model in models or choose_models():
        find_model(model, say)
        network = make_network(model)
        judge = make_judge(
            network.config, network.questions, load_engine(model, get_rules(network.config, (), 0), threads)
        )
        with (
            tempfile.TemporaryDirectory(prefix="poai-bench-") as folder,
            Database.create_or_open(Path(folder), network, model) as store,
        ):
            say(f"{model}: mining {blocks} blocks")
            mine(store, judge, blocks)
            say(f"{model}: verifying them")
            results += _measure(model, threads, store, judge, rounds)
    return {"bench": "replay", "machine": machine, "blocks": blocks, "results": results}


def mine(store: Database, judge: Judge, blocks: int) -> None:
    """Mine blocks into an empty store."""
    chain = ChainState(store, judge.config, get_time())
    for _ in range(blocks):
        *_, last = mine_block(chain.headers, chain.state, judge, bytes(20))
        chain.append(last[-1].block, get_time())


def _measure(model: str, threads: int, store: Database, judge: Judge, rounds: int) -> list[dict[str, Any]]:
    ways: dict[str, Callable[[], int]] = {
        "one by one": lambda: verify_singly(store, judge),
        "in batches": lambda: verify_in_batches(store, judge),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, verify in ways.items():
            start = perf_counter()
            count = verify()
            times[way].append(count / (perf_counter() - start))
    return [
        {"model": model, "threads": threads, "way": way,
         "blocks_a_second": Spread.of(found).median, "spread": asdict(Spread.of(found))}
        for way, found in times.items()
    ]  # fmt: skip


def verify_singly(store: Database, judge: Judge) -> int:
    """Check a store's blocks in order by every rule, each replayed by itself; return how many there were."""
    chain: list[Header] = [make_genesis(judge.config).header]
    state: State = {}
    now = get_time()
    for row in store.read_chain():
        block = decode(Block, row.header + (row.body or b""))
        state = check_block(block, chain, state, judge, now)
        chain.append(block.header)
    return len(chain) - 1


def verify_in_batches(store: Database, judge: Judge) -> int:
    """Verify a store as `poaid verify` does; return the number of blocks."""
    passed: list[int] = []
    verify_store(store, judge, get_time(), passed.append)
    return len(passed)


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as a table."""
    table = Table("model", "threads", "replayed", "blocks/s", "lowest", "highest")
    for row in result["results"]:
        rates = row["blocks_a_second"], row["spread"]["low"], row["spread"]["high"]
        table.add_row(row["model"], str(row["threads"]), row["way"], *(f"{rate:,.2f}" for rate in rates))
    return [table]
