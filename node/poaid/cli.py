"""The command `poaid`. Wrong usage exits with 2; a failed check, or anything that cannot go on, with 1 and one line."""

from __future__ import annotations

import sys
import time
from decimal import Decimal
from secrets import SystemRandom
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from poaid.amounts import format_count, format_poai
from poaid.ask_cli import balance, peers, status
from poaid.chain_file_cli import export_file, import_file
from poaid.commands import Commands, run_app
from poaid.doctor_cli import doctor
from poaid.entry import get_stop_status
from poaid.keys_cli import generate_key
from poaid.logs import configure_logs
from poaid.options import MAX_SAMPLE, Corpus, DataDir, GpuLayers, Model, NetworkName, TargetText, Threads
from poaid.run_cli import run
from poaid.testnet_cli import start_testnet

# The commands import the rest when they run, so that --help answers at once; tests/test_start.py holds them to it.
if TYPE_CHECKING:
    from poai_spec.block import Judge
    from poai_spec.engine import Engine
    from poai_spec.notation import Address
    from poai_spec.parameters import Config
    from poaid.chain import Chain
    from poaid.miner import Attempt

app = typer.Typer(
    cls=Commands,
    help="A node of Proof of AI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
log = structlog.get_logger()

DEFAULT_MINER = "0x" + "00" * 19 + "01"
"""Gets the subsidy of a solo chain unless `--miner-address` is given: an address that nobody has a key of."""


@app.command()
def mine(
    blocks: Annotated[int, typer.Option(min=1, help="How many blocks to add.")],
    data_dir: DataDir,
    network: NetworkName = "local",
    model: Model = None,
    target: TargetText = None,
    miner_address: Annotated[str, typer.Option(help="Account that gets the subsidy.")] = DEFAULT_MINER,
    threads: Threads = None,
    gpu_layers: GpuLayers = 0,
    test_corpus: Corpus = None,
) -> None:
    """Mine blocks alone, without peers, and store them."""
    from poai_spec.block import Judge
    from poai_spec.parameters import compute_network_id
    from poaid.chain import Chain
    from poaid.keys import parse_address
    from poaid.miner import get_time
    from poaid.models import locate_model
    from poaid.networks import get_network, parse_target
    from poaid.store import Store

    miner = parse_address(miner_address)
    net = get_network(network, model, parse_target(target) if target is not None else None, test_corpus)
    source = locate_model(model, net.config)
    with Store.create_or_open(data_dir, net, source) as store:
        chain = Chain(store, net.config, get_time())
        network_id = compute_network_id(net.config).hex()[:8]
        log.info("Chain opened", network=net.name, network_id=network_id, height=chain.head.height)
        judge = Judge(net.config, net.questions, _load(source, net.config, threads, gpu_layers))
        try:
            for _ in range(blocks):
                winner = _mine_one(chain, judge, miner)
                chain.append(winner.make_block(), judge, get_time())
                _log_block(winner, chain, miner)
        except KeyboardInterrupt as stop:
            print("stopped; every block that was logged is stored", file=sys.stderr)
            raise typer.Exit(get_stop_status(stop)) from None
    print(f"mined {blocks} blocks up to height {chain.head.height}; check: poaid verify --data-dir {data_dir}")


def _load(source: str, config: Config, threads: int | None, gpu_layers: int) -> Engine:
    from poaid.models import load_engine

    with Console(stderr=True).status(f"loading the model {escape(source)}"):
        return load_engine(source, config, threads, gpu_layers, log.info)


def _mine_one(chain: Chain, judge: Judge, miner: Address) -> Attempt:
    """Mine one block, with a line of progress, and return the attempt that won."""
    from poai_spec.quiz import get_quiz_name
    from poaid.miner import mine_block

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
                log.info(
                    f"Generated quiz: {get_quiz_name(last.quiz.salt)}", height=height, tried=tried, rate=f"{rate:.2f}/s"
                )
                return last
    raise AssertionError("mine_block ends with a winner")


def _log_block(winner: Attempt, chain: Chain, miner: Address) -> None:
    from poai_spec.containers import compute_block_hash
    from poai_spec.difficulty import compute_work

    header = winner.header
    log.info(
        "Block mined!",
        height=header.core.height,
        hash=compute_block_hash(header).hex()[:16],
        loss=f"{header.loss / 65536:.3f} bits",
        work=compute_work(header.core.target),
        nonce=header.core.nonce,
        balance=format_poai(chain.state[miner].balance) if miner in chain.state else format_poai(0),
    )


@app.command()
def verify(
    data_dir: DataDir,
    model: Annotated[
        str | None, typer.Option(help="Where the model is now, if its file was moved.  \\[default: as mined]")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_SAMPLE, help="Replay so many blocks, drawn by work.  \\[default: all, once]"),
    ] = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = 0,
) -> None:
    """Replay a data directory from genesis; exit 1 with the block and the rule on the first fault."""
    from poai_spec.block import Judge
    from poai_spec.parameters import compute_network_id
    from poaid.miner import get_time
    from poaid.store import Store
    from poaid.verify import draw_sample, verify_store

    with Store.open(data_dir) as store:
        net, height = store.read_network(), store.read_height()
        engine = _load(model or store.read_text("model"), net.config, threads, gpu_layers)
        judge = Judge(net.config, net.questions, engine)
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


app.command("run")(run)
app.command("status")(status)
app.command("peers")(peers)
app.command("balance")(balance)
app.command("doctor")(doctor)
app.command("export")(export_file)
app.command("import")(import_file)
app.command("generate-key")(generate_key)
app.command("testnet")(start_testnet)


def main() -> None:
    """Run `poaid`; without a command, but with flags, it is `poaid run`."""
    configure_logs()
    arguments = sys.argv[1:]
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        arguments = ["run", *arguments]
    run_app(app, arguments, "poaid")
