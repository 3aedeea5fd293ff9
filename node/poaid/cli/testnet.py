"""`poaid testnet`: a network of several nodes on this machine."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from poaid.cli.options import MAX_NODES, TargetText
from poaid.errors import NodeError, UsageError

if TYPE_CHECKING:
    from poaid.network_file import Network
    from poaid.testnet.local import LocalTestnet
    from poaid.testnet.screen import Frame
    from poaid.testnet.summary import Summary

MAX_HEIGHT_DIGITS = 18
"""Of a height on the command line: below 2^63."""


def start_testnet(
    nodes: Annotated[int, typer.Option(min=1, max=MAX_NODES, help="How many nodes to start.")] = 3,
    blocks: Annotated[int, typer.Option(min=1, help="Height at which they stop.")] = 10,
    model: Annotated[str, typer.Option(help="mini, smollm2, tinyllama, or the path of a GGUF file.")] = "smollm2",
    target: TargetText = None,
    upgrade: Annotated[
        list[str] | None,
        typer.Option(help="HEIGHT:MODEL: change the model at a height, while it mines; repeat for more."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each node.  [default: processors / nodes]")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="New folder for chains and logs, which stays.  [default: a temporary one]"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the temporary folder, too.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary to this file.")] = None,
    record: Annotated[Path | None, typer.Option(help="Write the last picture to this file, as SVG.")] = None,
) -> None:
    """Run several nodes that mine, verify and agree; exit 1 if they do not.

    Without --target the first blocks take some four seconds on this machine, whatever its speed.
    """
    import trio

    from poai_engine.engines.exact import count_processors
    from poaid.testnet.local import LocalTestnet, LocalTestnetPlan
    from poaid.testnet.screen import Screen, make_summary_view

    for file in (json_file, record):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{file}: there is no folder {file.absolute().parent}: make it, or give another")
    console = Console(stderr=True)
    named = None if data_dir is None else _make_folder(data_dir)
    source, network = _make_network(model, target, console)
    for text in upgrade or ():
        network = _plan(network, text)
    folder = named or Path(tempfile.mkdtemp(prefix="poaid-testnet-"))
    net = LocalTestnet(
        LocalTestnetPlan(folder, network, source, nodes, blocks, threads or max(1, count_processors() // nodes))
    )
    with Screen(console) as screen:
        net.show = lambda: screen.show(_make_frame(net))
        trio.run(net.run)
        net.show()
    summary = net.get_summary()
    Console().print(make_summary_view(summary), soft_wrap=True, highlight=False)
    if keep or named or net.fault is not None:
        print(f"  chains and logs: {folder}; check one: poaid verify --data-dir {folder / 'node-0'}")
    else:
        shutil.rmtree(folder)
    _write(net, summary, json_file, record)
    if net.fault is not None:
        raise NodeError(net.fault)
    if net.signal is not None:
        print("stopped before the end", file=sys.stderr)
        raise typer.Exit(128 + net.signal)


def _make_network(model: str, target: str | None, console: Console) -> tuple[str, Network]:
    """Return how the nodes find the model, and their network; what is made at a first start is made once, here."""
    from poaid.models import load_engine, locate_model
    from poaid.network_file import parse_target
    from poaid.testnet.local import choose_target, get_base_network, make_network, measure_rate

    base = get_base_network(model, parse_target(target) if target is not None else None)
    source = locate_model(model, base.config.model)
    with console.status(f"loading the model {escape(source)}"):
        engine = load_engine(source, base.get_rules(), None)
        rate = measure_rate(engine, base.get_rules(), base.questions)
    return source, make_network(base, base.config.initial_target if target else choose_target(rate, base.config))


def _plan(network: Network, text: str) -> Network:
    """Return the network with the upgrade of `--upgrade HEIGHT:MODEL`."""
    from poaid.network_file import plan_upgrade

    height, _, model = text.partition(":")
    if not height.isdecimal() or len(height) > MAX_HEIGHT_DIGITS or not model:
        raise UsageError(f"--upgrade {text!r:.80} is none: give HEIGHT:MODEL, such as 5:smollm2")
    return plan_upgrade(network, int(height), model)


def _make_folder(data_dir: Path) -> Path:
    """Return an absolute path of an empty folder, made if it is not there.

    Raises:
        UsageError: it is there and not empty.
        NodeError: it cannot be made.
    """
    folder = data_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{data_dir} is not empty: give --data-dir a new folder, a testnet begins at genesis")
    except OSError as error:
        raise NodeError(f"{data_dir}: {error.strerror}; give a --data-dir that can be written") from error
    return folder


def _make_frame(net: LocalTestnet) -> Frame:
    from poaid.testnet.screen import Frame

    plan = net.plan
    return Frame(net.nodes, Path(plan.model).name, plan.network_id, plan.blocks, net.seconds, ended=net.has_ended)


def _write(net: LocalTestnet, summary: Summary, json_file: Path | None, record: Path | None) -> None:
    """Write the summary and the picture where they were asked for."""
    from poaid.testnet.screen import save_picture

    try:
        if json_file is not None:
            json_file.write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
        if record is not None:
            save_picture(_make_frame(net), summary, str(record))
    except OSError as error:
        raise NodeError(f"{error.filename} cannot be written: {error.strerror}") from error
