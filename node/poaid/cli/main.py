"""The command `poaid`. Wrong usage exits with 2; a failed check, or anything that cannot go on, with 1 and one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from decimal import Decimal
from secrets import SystemRandom
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from poaid.amounts import format_count
from poaid.cli.ask import balance, peers, status
from poaid.cli.chain_file import export_file, import_file
from poaid.cli.config_file import insert_config
from poaid.cli.doctor import doctor
from poaid.cli.keys import generate_key
from poaid.cli.options import (
    MAX_SAMPLE,
    Corpus,
    DataDir,
    GpuLayers,
    MinerAddress,
    Model,
    MovedModel,
    NetworkName,
    StoredDir,
    TargetText,
    Threads,
)
from poaid.cli.run import run
from poaid.cli.testnet import start_testnet
from poaid.process.commands import make_program, run_app
from poaid.process.entry import get_stop_status
from poaid.process.logs import configure_logs

# The commands import the rest when they run, so that --help answers at once; tests/test_start.py holds them to it.
if TYPE_CHECKING:
    from poai_spec.basics.notation import Address
    from poai_spec.chain.block import Judge
    from poaid.chain.chain_state import ChainState
    from poaid.network_file import Network
    from poaid.produce.attempts import Attempt

app = make_program("poaid", "A node of Proof of AI.")
log = structlog.get_logger()

LONG_FLAGS_OF_ALL = ("--help", "--version", "--install-completion", "--show-completion")
"""Flags of `poaid` itself; others without a command are of `poaid run`."""


@app.command(short_help="Mine blocks alone, without peers, and store them.")
def mine(
    blocks: Annotated[int, typer.Option(min=1, help="How many blocks to add.")],
    data_dir: DataDir,
    network: NetworkName = None,
    model: Model = None,
    target: TargetText = None,
    miner_address: MinerAddress = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = 0,
    test_corpus: Corpus = None,
) -> None:
    """Mine blocks alone, without peers, and store them."""
    from poaid.chain.chain_state import ChainState
    from poaid.cli.choosing import NetworkFlags, announce, choose_network
    from poaid.keys import choose_miner, parse_address
    from poaid.produce.attempts import get_time
    from poaid.store.database import Database

    named = None if miner_address is None else parse_address(miner_address)
    net, source = choose_network(data_dir, NetworkFlags(network, model, target, test_corpus))
    with Database.create_or_open(data_dir, net, source) as store:
        miner = choose_miner(named, data_dir)
        chain = ChainState(store, net.config, get_time(), net.upgrades)
        announce(net, chain.head.height, miner)
        judge = _load(source, net, threads, gpu_layers)
        try:
            for _ in range(blocks):
                winner = _mine_one(chain, judge, miner)
                chain.append(winner.block, get_time())
                _log_block(winner, chain, miner)
        except KeyboardInterrupt as stop:
            print("stopped; every block that was logged is stored", file=sys.stderr)
            raise typer.Exit(get_stop_status(stop)) from None
    print(f"mined {blocks} blocks up to height {chain.head.height}; check: poaid verify --data-dir {data_dir}")


def _load(source: str, net: Network, threads: int | None, gpu_layers: int) -> Judge:
    from poaid.chain.judges import load_judge

    with Console(stderr=True).status(f"loading the model {escape(source)}"):
        return load_judge(net, {net.config.model: source}, threads, gpu_layers, log.info)


def _mine_one(chain: ChainState, judge: Judge, miner: Address) -> Attempt:
    """Mine one block, with a line of progress, and return the attempt that won."""
    from poai_spec.proof.quiz import get_quiz_name
    from poaid.produce.attempts import mine_block

    height, start, tried, best = len(chain.headers), time.monotonic(), 0, 1 << 256
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"block {height}: loading the first quizzes", total=None)
        for attempts in mine_block(chain.headers, chain.state, judge, miner):
            tried, last = tried + len(attempts), attempts[-1]
            log.debug("Generated quiz", height=height, quiz=get_quiz_name(last.quiz.salt))
            best = min(best, *(attempt.l_hat for attempt in attempts))
            rate = tried / max(time.monotonic() - start, 1e-6)
            progress.update(
                task,
                description=f"block {height}: {tried} quizzes, {rate:.2f}/s, best l_hat {best:064x}"[:-56]
                + f", target {last.header.core.target:064x}"[:-56],
            )
            if last.wins:
                name = get_quiz_name(last.quiz.salt)
                log.info(f"Generated quiz: {name}", quiz=name, height=height, tried=tried, quizzes_per_second=rate)
                return last
    raise AssertionError("mine_block ends with a winner")


def _log_block(winner: Attempt, chain: ChainState, miner: Address) -> None:
    from poai_spec.basics.containers import compute_block_hash
    from poai_spec.proof.difficulty import compute_quizzes

    header = winner.header
    log.info(
        "Block mined!",
        height=header.core.height,
        hash="0x" + compute_block_hash(header).hex(),
        loss_bits=header.loss / 65536,
        quizzes=compute_quizzes(header.core.target),
        nonce=str(header.core.nonce),
        balance=str(chain.state[miner].balance if miner in chain.state else 0),
    )


@app.command(short_help="Replay a data directory from genesis.")
def verify(
    data_dir: StoredDir,
    model: MovedModel = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_SAMPLE, help="Replay so many blocks, drawn by work.  [default: all, once]"),
    ] = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = 0,
) -> None:
    """Replay a data directory from genesis; exit 1 with the block and the rule on the first fault."""
    from poai_spec.basics.parameters import compute_network_id
    from poaid.chain.verify import draw_sample, verify_store
    from poaid.produce.attempts import get_time
    from poaid.store.database import Database

    with Database.open(data_dir) as store:
        net, height = store.read_network(), store.read_height()
        judge = _load(model or store.read_text("model"), net, threads, gpu_layers)
        drawn = None if sample is None else set(draw_sample(store, sample, SystemRandom()))
        columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        ) as progress:
            task = progress.add_task("", total=height)
            state = verify_store(store, judge, get_time(), lambda _: progress.advance(task), drawn)
    accounts, network_id = format_count(len(state), "account"), compute_network_id(net.config).hex()[:8]
    if drawn is None or sample is None:
        print(f"{height} blocks of network {network_id} are valid, every one replayed; {accounts}")
        return
    print(f"{height} blocks of network {network_id} keep every rule that needs no replay; {accounts}")
    _print_odds(sample, len(drawn))


def _print_odds(draws: int, blocks: int) -> None:
    """Say what a sample of replays proves."""
    if not blocks:
        print("there is no block to replay")
        return
    print(f"{format_count(draws, 'random replay')} of {format_count(blocks, 'block')} found no fault")
    odds = f"0.90^{draws} = {Decimal('0.9') ** draws * 100:.2g} %"
    print(f"a chain that is forged in a tenth of its work passes with probability {odds}")


SHORT_HELP: dict[Callable[..., None], str] = {
    run: "Run a node; what `poaid` does with flags alone.",
    status: "Show what the node does, and why it is not mining.",
    peers: "Show whom the node is connected to.",
    balance: "Show what an account has after the last block.",
    doctor: "Examine machine, folder, network and model.",
    export_file: "Write the chain of a data directory to a file.",
    import_file: "Replay the blocks of a file, and store them.",
    generate_key: "Make a key for --miner-address.",
    start_testnet: "Run several nodes that mine, verify and agree.",
}
NAMES = {export_file: "export", import_file: "import", generate_key: "generate-key", start_testnet: "testnet"}
for command, text in SHORT_HELP.items():
    app.command(NAMES.get(command, command.__name__), short_help=text)(command)


def main() -> None:
    """Run `poaid`; without a command, but with flags, it is `poaid run`."""
    configure_logs()
    run_app(app, sys.argv[1:], "poaid", complete_arguments)


def complete_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments with the command that flags alone mean, and with what its config file says."""
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", *LONG_FLAGS_OF_ALL):
        arguments = ["run", *arguments]
    if arguments and arguments[0] == "run":
        command: Any = typer.main.get_command(app)
        arguments = ["run", *insert_config(arguments[1:], command.commands["run"])]
    return arguments
