"""`poai bench`: measurements that the design rests on, and of speed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from poai_bench.flags import (
    BENCH_PERIOD,
    FIDELITY_QUIZZES,
    LLAMA_BITS_QUIZZES,
    MAX_BENCH_BLOCKS,
    MAX_LLAMA_BATCH,
    PRESCREEN_QUIZZES,
    UBATCH,
)
from poai_engine.errors import ModelError
from poaid.cli.options import MAX_NODES

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="Measure what the design rests on.", no_args_is_help=True)
Model = Annotated[str, typer.Option(help="mini, smollm2, tinyllama, or the path of a GGUF file.")]


def check_place(file: Path | None) -> Path | None:
    """Refuse a place for `--json` that cannot be written, before minutes are spent."""
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        raise typer.BadParameter(f"{file}: give a file in a folder that exists")
    return file


Json = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the result to this file.", metavar="FILE", callback=check_place),
]


PlotFolder = Annotated[
    Path | None, typer.Option("--plots", help="Draw SVG files into this folder.", metavar="DIR", file_okay=False)
]


def say(message: str) -> None:
    """Print a line of progress."""
    print(message, file=sys.stderr)


def keep(result: dict[str, Any], file: Path | None) -> None:
    """Write a result where `--json` says."""
    from poai_bench.results import write_result

    if file is not None:
        write_result(result, file)


def check_plots(folder: Path | None) -> None:
    """Say that plots cannot be drawn before minutes are spent."""
    from poai_bench.plots.style import check_matplotlib

    if folder is not None:
        check_matplotlib()


def draw(result: dict[str, Any], folder: Path | None) -> None:
    """Draw a result's pictures where `--plots` says."""
    if folder is None:
        return
    from poai_bench.plots import registry

    for plot in registry.draw(result, folder):
        say(f"drawn: {plot}")


@app.command("fidelity")
def fidelity_command(
    model: Model = "smollm2",
    quizzes: Annotated[int, typer.Option(min=1, help="Quizzes to measure on, besides a text.")] = FIDELITY_QUIZZES,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the exact engine.  [default: all]")] = None,
    folder: PlotFolder = None,
    file: Json = None,
) -> None:
    """Compare the losses of the exact engine and of llama.cpp with a float64 pass of the same file."""
    from poai_bench import fidelity
    from poai_engine.models.model_store import resolve_model

    check_plots(folder)
    result = fidelity.run(model, resolve_model(model), threads, quizzes, say)
    fidelity.print_report(result)
    keep(result, file)
    draw(result, folder)


@app.command("determinism")
def determinism_command(
    model: Model = "mini",
    threads: Annotated[int | None, typer.Option(min=1, help="1 to this number of threads.  [default: all]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few rows and short sequences.")] = False,
    aarch64_root: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Also run an aarch64 Python from here, under qemu-user-static."
        ),
    ] = None,
    folder: PlotFolder = None,
    file: Json = None,
) -> None:
    """Run a model over instruction sets, threads, batch sizes and engines; exit 1 unless all bits are equal."""
    from poai_bench import determinism
    from poai_engine.models.model_store import resolve_model

    check_plots(folder)
    count = threads or os.cpu_count() or 1
    result = determinism.run(resolve_model(model), count, quick=quick, aarch64_root=aarch64_root, say=say)
    determinism.print_report(result)
    keep(result, file)
    draw(result, folder)
    if len(result["digests"]) > 1:
        say(f"error: {len(result['digests'])} different digests: this machine must not run a node; report the table")
        raise typer.Exit(1)


@app.command("equality")
def equality_command(
    cases: Annotated[int, typer.Option(min=1, help="Layer inputs to compare, at least.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first case; the next ones follow.")] = 0,
) -> None:
    """Compare the exact engine with the page `inference` on random layer inputs; exit 1 at the first difference."""
    from poai_bench import equality

    start = perf_counter()
    done = equality.run(cases, seed, say)
    if not done:
        raise typer.Exit(1)
    print(f"{done} layer inputs: all bits equal, {perf_counter() - start:.0f} s")


@app.command("prescreen")
def prescreen_command(
    model: Model = "smollm2",
    quizzes: Annotated[int, typer.Option(min=1, help="Quizzes to measure on.")] = PRESCREEN_QUIZZES,
    file: Json = None,
) -> None:
    """Count how many entries of the trace's last rows cheaper passes predict."""
    from poai_bench import prescreen
    from poai_engine.models.model_store import resolve_model

    result = prescreen.run(model, resolve_model(model), quizzes, say)
    prescreen.print_report(result)
    keep(result, file)


@app.command("prefix")
def prefix_command(
    model: Model = "smollm2",
    count: Annotated[int, typer.Option(min=2, help="Quizzes to sort.")] = 100_000,
    file: Json = None,
) -> None:
    """Measure the share of work that a miner saves who sorts testnet quizzes by their beginnings."""
    from rich.table import Table

    from poai_bench import prefix_saving
    from poai_spec.basics.parameters import make_config
    from poaid.models import get_known_model

    known = get_known_model(model)
    config, table = make_config("testnet", known.manifest), Table("salt tokens", "share of the work saved")
    result: dict[str, Any] = {"model": known.lexicon_name, "quizzes": count, "saving": {}}
    for salt in (config.salt_tokens, 0):
        say(f"{count} quizzes with {salt} salt tokens")
        quizzes = prefix_saving.generate_token_sequences(replace(config, salt_tokens=salt), known.lexicon, count)
        saving = prefix_saving.measure_prefix_saving(quizzes)
        result["saving"][str(salt)] = saving
        table.add_row(str(salt), f"{saving:.2%}")
    Console().print(table)
    keep(result, file)


@app.command("retarget")
def retarget_command(
    periods: Annotated[int, typer.Option(min=2, help="Length of a play, in retarget periods.")] = 60,
    climbs: Annotated[int, typer.Option(min=0, help="Steps of the search beyond the short strategies.")] = 300,
    folder: PlotFolder = None,
    file: Json = None,
) -> None:
    """Search for false time stamps that gain blocks, under our rule and two others."""
    from poai_bench import retarget_simulation

    check_plots(folder)
    with Console(stderr=True).status("searching; this takes minutes"):
        result = retarget_simulation.run(periods=periods, climbs=climbs)
    Console().print(retarget_simulation.make_table(result))
    keep(result, file)
    draw(result, folder)


@app.command("llama-bits")
def llama_bits_command(
    model: Model = "smollm2",
    quizzes: Annotated[int, typer.Option(min=1, help="Quizzes to run.")] = LLAMA_BITS_QUIZZES,
    compare: Annotated[
        Path | None, typer.Option(help="Also compare with a result of --json of another machine or build.")
    ] = None,
    folder: PlotFolder = None,
    file: Json = None,
) -> None:
    """Count the quizzes whose bits change when llama.cpp runs with other settings than the profile's."""
    from poai_bench import llama_bits
    from poai_bench.results import read_result
    from poai_engine.models.model_store import resolve_model

    check_plots(folder)
    other = read_result(compare, ["llama-bits"]) if compare is not None else None
    result = llama_bits.run(model, resolve_model(model), quizzes, say)
    if compare is not None:
        result = llama_bits.compare_with(result, other, compare.name)
    llama_bits.print_report(result)
    keep(result, file)
    draw(result, folder)


# Speed. Every command prints tables; `poai bench show` prints those of a kept result again.

Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="Name or path; repeat for more.  [default: SmolLM2 or mini, and what else is there]"),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Quick = Annotated[bool, typer.Option("--quick", help="Less of everything: a look, not a figure to quote.")]
NoLlama = Annotated[bool, typer.Option("--no-llama", help="Leave llama.cpp out.")]
SPEED_BENCHES = {
    "execution": "execution_bench",
    "engine": "engine_bench",
    "start": "start_bench",
    "headers": "header_bench",
    "replay": "replay_bench",
    "spec": "spec_bench",
    "network": "network_bench",
    "forgery": "forgery_bench",
    "selfish": "selfish_bench",
    "tree": "block_tree",
}
"""The module of each bench that prints tables."""


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return the tables of a bench's result."""
    module = import_module(f"poai_bench.{SPEED_BENCHES[result['bench']]}")
    tables: list[Table] = module.make_tables(result)
    return tables


def publish(result: dict[str, Any], file: Path | None, folder: Path | None = None) -> None:
    """Print the tables of a bench of speed, keep its result, and draw it where plots are wanted."""
    keep(result, file)
    for table in make_tables(result):
        Console().print(table)
    draw(result, folder)


@app.command("engine")
def engine_command(
    models: Models = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="CPU threads; repeat for more.  [default: 1 and 2, if there are 2]"),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MAX_LLAMA_BATCH, help="Quizzes a batch; repeat for more.  [default: 1 4 16 64]"),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Measurements of each.  [default: 5]")] = None,
    ubatch: Annotated[int, typer.Option(min=1, help="Tokens that llama.cpp computes at once, its n_ubatch.")] = UBATCH,
    no_llama: NoLlama = False,
    quick: Quick = False,
    folder: PlotFolder = None,
    file: Json = None,
) -> None:
    """Run quizzes with the exact engine and llama.cpp's types in turn: tokens a second, memory, share of int8 peak."""
    from poai_bench import engine_bench
    from poai_bench.measure import warn_if_busy

    check_plots(folder)
    plan = engine_bench.BenchPlan(
        threads=tuple(threads or range(1, min(2, os.cpu_count() or 1) + 1)),
        batches=tuple(batch or (engine_bench.QUICK_BATCHES if quick else engine_bench.BATCHES)),
        rounds=rounds or (engine_bench.QUICK_ROUNDS if quick else engine_bench.ROUNDS),
        seconds=engine_bench.QUICK_SECONDS if quick else None,
        llama=not no_llama,
        ubatch=ubatch,
    )
    chosen = models or (engine_bench.choose_models()[:1] if quick else [])
    warn_if_busy(say)
    publish(engine_bench.run(chosen, plan, say), file, folder)


@app.command("start")
def start_command(
    models: Models = None,
    threads: Threads = 1,
    rounds: Annotated[int | None, typer.Option(min=1, help="Starts of each kind.  [default: 5]")] = None,
    no_llama: NoLlama = False,
    quick: Quick = False,
    file: Json = None,
) -> None:
    """Start the exact engine without and with its caches, and llama.cpp, each in processes of its own."""
    from poai_bench import engine_bench, start_bench
    from poai_bench.measure import warn_if_busy

    rounds = rounds or (start_bench.QUICK_ROUNDS if quick else start_bench.ROUNDS)
    chosen = models or (engine_bench.choose_models()[:1] if quick else [])
    warn_if_busy(say)
    publish(start_bench.run(chosen, threads, rounds, llama=not no_llama, say=say), file)


@app.command("headers")
def headers_command(quick: Quick = False, file: Json = None) -> None:
    """Check headers as a node does before any model runs: how many a second on one core."""
    from poai_bench import header_bench
    from poai_bench.measure import warn_if_busy

    warn_if_busy(say)
    result = header_bench.run(header_bench.QUICK_HEADERS, header_bench.QUICK_ROUNDS) if quick else header_bench.run()
    publish(result, file)


@app.command("replay")
def replay_command(
    models: Models = None,
    threads: Threads = 1,
    blocks: Annotated[int | None, typer.Option(min=1, max=BENCH_PERIOD, help="[default: 32]")] = None,
    quick: Quick = False,
    file: Json = None,
) -> None:
    """Mine a chain and verify it, block by block and in batches: blocks a second."""
    from poai_bench import replay_bench
    from poai_bench.measure import warn_if_busy

    blocks = blocks or (replay_bench.QUICK_BLOCKS if quick else replay_bench.BLOCKS)
    rounds = replay_bench.QUICK_ROUNDS if quick else replay_bench.ROUNDS
    warn_if_busy(say)
    publish(replay_bench.run(models or [], threads, blocks, rounds, say), file)


@app.command("spec")
def spec_command(quick: Quick = False, file: Json = None) -> None:
    """Call the specification's own functions: how often a second on one core."""
    from poai_bench import spec_bench
    from poai_bench.measure import warn_if_busy

    seconds, rounds = spec_bench.SECONDS, spec_bench.ROUNDS
    if quick:
        seconds, rounds = spec_bench.QUICK_SECONDS, spec_bench.QUICK_ROUNDS
    warn_if_busy(say)
    publish(spec_bench.run(seconds, rounds, say), file)


@app.command("execution")
def execution_command(quick: Quick = False, file: Json = None) -> None:
    """Run the EVM's pages: loops, transfers, tries, and what each instruction costs for its gas, on one core."""
    from poai_bench import execution_bench as bench
    from poai_bench.measure import warn_if_busy

    sizes = (bench.GAS, bench.TRANSFERS, bench.KEYS, bench.ROUNDS)
    if quick:
        sizes = (bench.QUICK_GAS, bench.QUICK_TRANSFERS, bench.QUICK_KEYS, bench.QUICK_ROUNDS)
    warn_if_busy(say)
    publish(bench.run(*sizes), file)


@app.command("network")
def network_command(
    models: Models = None,
    nodes: Annotated[
        int | None, typer.Option(min=2, max=MAX_NODES, help="Of each testnet.  [default: 8 with mini, else 3]")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(min=1, max=MAX_BENCH_BLOCKS, help="Height at which they stop.  [default: 30]")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Testnets of each model.  [default: 3]")] = None,
    growth_blocks: Annotated[
        int | None,
        typer.Option(min=0, help="Blocks of mini over which memory is watched; 0: none.  [default: 1000]"),
    ] = None,
    quick: Quick = False,
    file: Json = None,
) -> None:
    """Run testnets on this machine: how fast blocks spread, what imports cost, how long they wait, what memory."""
    from poai_bench import network_bench
    from poai_bench.measure import warn_if_busy

    if quick:
        models, nodes, growth_blocks = models or ["mini"], nodes or network_bench.OTHER_NODES, growth_blocks or 0
    blocks = blocks or (network_bench.QUICK_BLOCKS if quick else network_bench.BLOCKS)
    rounds = rounds or (network_bench.QUICK_ROUNDS if quick else network_bench.ROUNDS)
    growth = network_bench.GROWTH_BLOCKS if growth_blocks is None else growth_blocks
    warn_if_busy(say)
    publish(network_bench.run(models or [], nodes, blocks, rounds, growth, say), file)


@app.command("forgery")
def forgery_command(quick: Quick = False, file: Json = None) -> None:
    """Forge headers and replay: what a false block costs its forger, and the verifier, for each preset at hand."""
    from poai_bench import forgery_bench
    from poai_bench.measure import warn_if_busy

    tries, quizzes = forgery_bench.TRIES, forgery_bench.QUIZZES
    if quick:
        tries, quizzes = forgery_bench.QUICK_TRIES, forgery_bench.QUICK_QUIZZES
    warn_if_busy(say)
    publish(forgery_bench.run([], tries, quizzes, say), file)


@app.command("selfish")
def selfish_command(quick: Quick = False, file: Json = None) -> None:
    """Withhold blocks: what it gains by hash share, under our rule for ties and under "first seen"; takes minutes."""
    from poai_bench import selfish_bench, selfish_simulation

    shares, blocks = selfish_bench.SHARES, selfish_simulation.BLOCKS
    if quick:
        shares, blocks = selfish_bench.QUICK_SHARES, selfish_bench.QUICK_BLOCKS
    publish(selfish_bench.run(shares, blocks, say), file)


@app.command("tree")
def tree_command(
    data_dirs: Annotated[
        list[Path], typer.Argument(help="Data directories of stopped nodes, the one whose chain counts first.")
    ],
    folder: PlotFolder = None,
    file: Json = None,
) -> None:
    """Read the blocks of all branches from the stores of a testnet's nodes: who mined them, and where it forked."""
    from poai_bench import block_tree

    check_plots(folder)
    publish(block_tree.run(data_dirs), file, folder)


@app.command("plots")
def plots_command(
    folder: Annotated[Path, typer.Argument(help="Folder of the pictures; their results are in its folder data.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a picture would change.")] = False,
) -> None:
    """Draw the pictures of the documents again, from the pages and from kept results."""
    from poai_bench.plots import registry

    if not check:
        for plot in registry.draw_all(folder):
            say(f"drawn: {plot}")
    elif stale := registry.find_stale(folder):
        raise ModelError(f"{', '.join(stale)}: not what would be drawn now: run `poai bench plots {folder}`")


@app.command("show")
def show_command(
    result: Annotated[Path, typer.Argument(help="What --json of a bench of speed has written.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables as in docs/performance.md.")] = False,
    folder: PlotFolder = None,
) -> None:
    """Print the tables of a kept result again, and draw its plots."""
    from rich import box

    from poai_bench.plots.registry import MEASURED
    from poai_bench.results import DAMAGED, read_result

    kept = read_result(result, SPEED_BENCHES)
    if folder is not None and kept["bench"] not in MEASURED:
        raise typer.BadParameter(f"a result of `poai bench {kept['bench']}` has no plots: leave --plots out")
    try:
        tables = make_tables(kept)
    except DAMAGED as error:
        raise ModelError(f"{result} is damaged or of another version ({error!r}): measure again") from error
    console = Console(width=240) if markdown else Console()
    for table in tables:
        if markdown:
            console.print(f"{table.title}:\n" if table.title else "", highlight=False)
            table.box, table.title = box.MARKDOWN, None
        console.print(table)
    draw(kept, folder)
