"""`poaid export` and `poaid import`: a chain as one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from poaid.amounts import format_count
from poaid.cli.options import DataDir, GpuLayers, Model, StoredDir, Threads
from poaid.errors import NodeError, UsageError
from poaid.process.entry import get_stop_status

if TYPE_CHECKING:
    from poai_spec.basics.notation import Height
    from poai_spec.chain.block import Judge
    from poaid.chain.chain_file import ChainReader
    from poaid.chain.chain_state import ChainState
    from poaid.network_file import Network

log = structlog.get_logger()

ChainFile = Annotated[Path, typer.Argument(metavar="FILE", help="The chain file. A chain cannot be piped.")]


def export_file(data_dir: StoredDir, file: ChainFile) -> None:
    """Write the chain of a data directory, which no node uses, to a new file."""
    from poai_spec.basics.parameters import compute_network_id
    from poaid.chain.chain_file import export_chain
    from poaid.store.database import Database

    _check_name(file)
    with Database.open(data_dir) as store:
        count = export_chain(store, file)
        network_id = compute_network_id(store.read_network().config).hex()[:8]
    print(f"exported {format_count(count, 'block')} of network {network_id} to {file}; read it with `poaid import`")


def import_file(
    data_dir: DataDir,
    file: ChainFile,
    network: Annotated[
        str | None, typer.Option(help="Refuse a chain of another network than this one.  [default: the file's]")
    ] = None,
    model: Model = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = 0,
) -> None:
    """Check and replay every block of a file, and add those that pass to a new or an old data directory."""
    from poaid.chain.chain_file import ChainReader
    from poaid.chain.chain_state import ChainState
    from poaid.chain.judges import load_judge
    from poaid.produce.attempts import get_time
    from poaid.store.database import Database

    _check_name(file)
    with _open(file) as opened:
        reader = ChainReader(opened, file)
        net = _choose_network(reader.read_network(), network, model, file)
        source = _locate_model(data_dir, model, net)
        with Database.create_or_open(data_dir, net, source) as store:
            judge = load_judge(net, {net.config.model: source}, threads, gpu_layers, log.info)
            chain = ChainState(store, net.config, get_time(), net.upgrades)
            _import_blocks(reader, chain, judge, file)


def _open(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise NodeError(f"{file} cannot be read: {error.strerror}") from error


def _check_name(file: Path) -> None:
    if str(file) == "-":
        raise UsageError("a chain cannot be piped: give the name of a file")


def _choose_network(found: Network, named: str | None, model: str | None, file: Path) -> Network:
    """Return the network that the user names, which must be the file's; else the file's."""
    from poai_spec.basics.parameters import compute_network_id
    from poaid.network_file import get_network

    if named is None:
        return found
    wanted = get_network(named, model)
    ids = [compute_network_id(net.config).hex()[:8] for net in (found, wanted)]
    if ids[0] != ids[1]:
        raise NodeError(
            f"{file} holds a chain of network {ids[0]}, and --network {named} is {ids[1]}: give another file"
        )
    return wanted


def _locate_model(data_dir: Path, model: str | None, net: Network) -> str:
    """Return where the model is: as the user says, else as the data directory was made with, else a pinned one."""
    from poaid.models import locate_model
    from poaid.store.database import Database

    if model is None and Database.is_made(data_dir):
        with Database.open(data_dir) as store:
            return store.read_text("model")
    return locate_model(model, net.config.model)


def _import_blocks(reader: ChainReader, chain: ChainState, judge: Judge, file: Path) -> None:
    from poai_spec.basics.parameters import compute_network_id
    from poaid.chain.file_import import ChainImport
    from poaid.produce.attempts import get_time

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("reading", total=file.stat().st_size)

        def report(height: Height, position: int) -> None:
            progress.update(task, description=f"block {height:,}", completed=position)

        run = ChainImport(chain, judge, get_time, report)
        try:
            run.run(reader.read_blocks())
        except NodeError as error:
            raise NodeError(f"{error}; {format_count(run.new, 'new block')} before that {_stay(run.new)}") from error
        except KeyboardInterrupt as stop:
            print(f"stopped; {format_count(run.new, 'new block')} {_stay(run.new)}", file=sys.stderr)
            raise typer.Exit(get_stop_status(stop)) from None
    network_id, head = compute_network_id(judge.config).hex()[:8], chain.head
    print(
        f"replayed and stored {format_count(run.new, 'block')} of network {network_id}; {run.known:,} were "
        f"there before; the chain ends at height {head.height:,}"
    )


def _stay(count: int) -> str:
    return "is stored" if count == 1 else "are stored"
