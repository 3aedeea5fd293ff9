"""`poaid run`: a node, with its HTTP server, until it is interrupted."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from poaid.cli.config_file import ConfigFile
from poaid.cli.options import (
    Corpus,
    DataDir,
    GpuLayers,
    MinerAddress,
    Model,
    NetworkName,
    TargetText,
    Threads,
)
from poaid.errors import UsageError
from poaid.ports import HTTP_PORT_OFFSET, P2P_PORT, RUNNING_FILE
from poaid.process.entry import get_end_signals
from poaid.process.logs import LogFormat, LogLevel, configure_logs

if TYPE_CHECKING:
    import trio

    from poai_spec.basics.notation import Hash32
    from poaid.api.node_view import View
    from poaid.node import Node

MIN_PRUNE_DEPTH = 288
"""Blocks whose bodies every node keeps: two days of mainnet, deeper than any ordinary reorganisation."""

SYNC_LOOK_S, SYNC_LINE_S = 0.5, 5.0
"""How often the progress of a sync is looked at, and said where there is no terminal."""
SYNC_SHOWN_FROM = 8
"""Missing blocks from which on it is worth a bar: fewer are there in a moment."""

STOPPING = "Stopping; every block that was logged is stored"

log = structlog.get_logger()


def run(
    data_dir: DataDir,
    _config: ConfigFile = None,
    network: NetworkName = None,
    model: Model = None,
    target: TargetText = None,
    test_corpus: Corpus = None,
    p2p_port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port for peers.")] = P2P_PORT,
    p2p_host: Annotated[str, typer.Option(help="IP address to listen on for peers.")] = "0.0.0.0",  # noqa: S104
    peer_multiaddr: Annotated[
        list[str] | None, typer.Option(help="Peer to stay connected to, /ip4/.../tcp/.../p2p/...; repeat for more.")
    ] = None,
    mdns: Annotated[bool, typer.Option(help="Look for peers on the local network.")] = True,
    miner_address: MinerAddress = None,
    no_mine: Annotated[bool, typer.Option("--no-mine", help="Verify and relay only.")] = False,
    prune_depth: Annotated[
        int | None, typer.Option(min=MIN_PRUNE_DEPTH, help="Drop bodies this deep below the head.  [default: never]")
    ] = None,
    assume_valid: Annotated[
        str | None, typer.Option(help="Hash of a block up to which nothing is replayed; say whom you trust for it.")
    ] = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = 0,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of page and API; 0: none.  [default: p2p-port + 4000]")
    ] = None,
    http_host: Annotated[str, typer.Option(help="Address of page and API; whoever reaches it can read.")] = "127.0.0.1",
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Another port that serves /metrics alone.  [default: none]")
    ] = None,
    http_allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which page and API may be asked, as behind a proxy; repeat for more."),
    ] = None,
    stop_height: Annotated[int | None, typer.Option(min=1, help="Mine no block above this height.")] = None,
    until_input_ends: Annotated[
        bool, typer.Option("--until-input-ends", hidden=True, help="Stop when the standard input, a pipe, ends.")
    ] = False,
    log_format: Annotated[LogFormat, typer.Option(help="auto: for people on a terminal, else JSON.")] = LogFormat.AUTO,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is worth a line.")] = LogLevel.INFO,
    log_file: Annotated[
        Path | None, typer.Option(help="Write the log to the end of this file, too, as JSON.  [default: none]")
    ] = None,
) -> None:
    """Run a node: find peers, verify, mine, and show itself at http://127.0.0.1:8001."""
    import trio

    from poai_engine.models.gguf_file import read_vocabulary
    from poai_engine.models.model_store import resolve_model
    from poaid.api.node_view import View
    from poaid.chain.judges import Models
    from poaid.cli.choosing import NetworkFlags, announce, choose_network
    from poaid.keys import choose_miner, load_identity, parse_address
    from poaid.network_file import NETWORK_FILE, check_multiaddr, write_network
    from poaid.node import Node, Options
    from poaid.store.database import Database

    configure_logs(log_format, log_level, log_file, fatal=True)
    host = parse_host(p2p_host)
    peers = tuple(check_multiaddr(text, "--peer-multiaddr") for text in peer_multiaddr or ())
    assumed = None if assume_valid is None else parse_hash(assume_valid)
    named = None if miner_address is None else parse_address(miner_address)
    port = p2p_port + HTTP_PORT_OFFSET if http_port is None else http_port
    if port > 65535:
        raise UsageError(f"--p2p-port {p2p_port} leaves no port for HTTP: give --http-port, or 0 for none")
    net, source = choose_network(data_dir, NetworkFlags(network, model, target, test_corpus))
    with _ending_in_peace(), Database.create_or_open(data_dir, net, source) as store:
        write_network(net, data_dir / NETWORK_FILE)
        miner = None if no_mine else choose_miner(named, data_dir)
        options = Options(miner, host, p2p_port, peers, mdns, prune_depth, assumed, stop_height)
        seed = load_identity(data_dir)
        refuse_own_address(peers, seed)
        log.info("Loading the model", model=source)
        models = Models(net, {net.config.model: source}, threads, gpu_layers, log.info)
        models.load()
        node = Node(store, net, models, options, seed)
        announce(net, node.chain.head.height, miner)
        view = View(node, read_vocabulary(resolve_model(source)), source)
        http = HttpPorts(http_host, port, metrics_port, (http_host, *(http_allow_host or ())))
        signal.pthread_sigmask(signal.SIG_BLOCK, get_end_signals())  # trio's own code is none to be left by a signal
        trio.run(run_node, node, view, http, data_dir, until_input_ends)


@dataclass(frozen=True)
class HttpPorts:
    """Where the node shows itself, 0 and None for nowhere, and under which names."""

    host: str
    port: int
    metrics_port: int | None
    names: tuple[str, ...]


def parse_hash(text: str) -> Hash32:
    """Return the 32 bytes of `--assume-valid`.

    Raises:
        UsageError: no hash.
    """
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise UsageError(f"--assume-valid {text!r} is no block hash: give 64 hexadecimal digits")
    return value


def refuse_own_address(peers: Sequence[str], seed: bytes) -> None:
    """Refuse to be told to connect to itself.

    Raises:
        UsageError: one of the peers has this node's identity.
    """
    from poaid.keys import IDENTITY_FILE
    from poaid.net.libp2p.host import get_peer_id

    own = get_peer_id(seed)
    for address in peers:
        if address.endswith(f"/p2p/{own}"):
            hint = (
                f"if it is another one, its data directory is a copy of this one: remove {IDENTITY_FILE} in one of them"
            )
            raise UsageError(f"--peer-multiaddr {address} is this node itself: leave it out; {hint}")


def parse_host(text: str) -> str:
    """Return the address of `--p2p-host`.

    Raises:
        UsageError: it is no IP address.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(f"--p2p-host {text!r} is no IP address: give one of this machine, such as 127.0.0.1") from None


async def run_node(node: Node, view: View, http: HttpPorts, data_dir: Path, until_input_ends: bool) -> None:
    """Run everything until a signal comes, or until the process that holds the other end of the input has ended."""
    import trio

    with trio.open_signal_receiver(*get_end_signals()) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, get_end_signals())
        await _run_parts(node, view, http, data_dir, until_input_ends, signals)


async def _run_parts(
    node: Node, view: View, http: HttpPorts, data_dir: Path, until_input_ends: bool, signals: AsyncIterator[int]
) -> None:
    import trio

    from poaid.api.rest import make_app, make_metrics_app
    from poaid.api.server import serve_http

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, signals, nursery.cancel_scope)
        if until_input_ends:
            nursery.start_soon(_stop_at_end_of_input, nursery.cancel_scope)
        await nursery.start(node.run)
        nursery.start_soon(view.run)
        if http.port:
            app = make_app(view, node.metrics, http.names)
            urls = await nursery.start(serve_http, app, http.host, http.port)
            log.info("Page and API", url=urls[0])
        nursery.start_soon(show_sync, node)
        if http.metrics_port is not None:
            app = make_metrics_app(view, node.metrics, http.names)
            await nursery.start(serve_http, app, http.host, http.metrics_port)
        with _running_file(data_dir, http):
            await trio.sleep_forever()


async def show_sync(node: Node) -> None:
    """While blocks are missing, show a progress bar on a terminal, and a line from time to time elsewhere."""
    import trio

    columns = (TextColumn("syncing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said = 0.0
    while True:
        await trio.sleep(SYNC_LOOK_S)
        if (view := node.sync.get_view()) is None or view["blocks_left"] < SYNC_SHOWN_FROM:
            continue
        if not sys.stderr.isatty():
            if trio.current_time() - said > SYNC_LINE_S:
                said = trio.current_time()
                log.info("Syncing", **view)
            continue
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=view["goal"])
            while (view := node.sync.get_view()) is not None:
                progress.update(task, completed=view["height"], total=view["goal"])
                await trio.sleep(SYNC_LOOK_S)


@contextmanager
def _ending_in_peace() -> Iterator[None]:
    """End well at a signal before the node runs, as it does afterwards."""
    try:
        yield
    except KeyboardInterrupt:
        log.info(STOPPING)


async def _stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        log.info(STOPPING)
        scope.cancel()
        return


async def _stop_at_end_of_input(scope: trio.CancelScope) -> None:
    import trio

    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some():
            pass
    log.info("Stopping, since the process that started this node has ended")
    scope.cancel()


@contextmanager
def _running_file(data_dir: Path, http: HttpPorts) -> Iterator[None]:
    """Keep a file that says where the node answers, as long as it does."""
    path = data_dir / RUNNING_FILE
    path.write_text(json.dumps({"pid": os.getpid(), "host": http.host, "http_port": http.port}) + "\n", "utf-8")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
