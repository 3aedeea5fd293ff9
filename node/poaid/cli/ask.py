"""`poaid status`, `poaid peers` and `poaid balance`: ask the node that runs, or read its database while none does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poai_engine.errors import make_line
from poai_spec.basics.notation import Milliseconds
from poaid.amounts import format_count, format_duration, format_poai, format_rate
from poaid.api.asking import (
    DEFAULT_HTTP_PORT,
    LOCAL_HOST,
    UnreachableError,
    ask,
    ask_status,
    check_answer,
    make_stranger_line,
    make_url,
    read_running,
)
from poaid.errors import NodeError, UsageError
from poaid.ports import RUNNING_FILE

if TYPE_CHECKING:
    from poaid.store.database import StoredPeer
    from poaid.view import AccountView, PeerView, StatusView, SyncView

T = TypeVar("T")

WIDTH = 200
"""Characters of a line where no terminal says how many: lines that a program reads are not broken."""
NOBODY = "0x" + bytes(20).hex()
"""The miner of a node that does not mine."""

Folder = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the chain.  [default: ask whoever answers at the port]")
]
Port = Annotated[
    int | None,
    typer.Option("--http-port", min=1, max=65535, help=f"The node's.  [default: as it runs; {DEFAULT_HTTP_PORT}]"),
]
Host = Annotated[str | None, typer.Option("--http-host", help="The node's.  [default: this machine]")]
Json = Annotated[bool, typer.Option("--json", help="Print what the node's API says, as JSON.")]


def status(data_dir: Folder = None, http_port: Port = None, http_host: Host = None, as_json: Json = False) -> None:
    """Show what the node does, how far it is, and why it is not mining."""
    from poaid.api.stored_view import open_stored_view
    from poaid.produce.attempts import get_time

    def read_stored(folder: Path) -> StatusView:
        with open_stored_view(folder) as stored:
            return stored.get_status()

    view = _read(data_dir, http_host, http_port, ask_status, read_stored)
    if as_json:
        _print_json(view)
    else:
        _print_rows(describe_status(view, get_time()))


def balance(
    address: Annotated[str | None, typer.Argument(help="0x...  [default: the account that it mines for]")] = None,
    data_dir: Folder = None,
    http_port: Port = None,
    http_host: Host = None,
    as_json: Json = False,
) -> None:
    """Show what an account has after the last block."""
    from poaid.api.node_view import to_hex
    from poaid.api.stored_view import open_stored_view
    from poaid.keys import parse_address
    from poaid.view import AccountView

    wanted = None if address is None else parse_address(address, "the ADDRESS")

    def ask_account(url: str) -> AccountView:
        text = ask_status(url)["miner"] if wanted is None else to_hex(wanted)
        _check_mines(text)
        return check_answer(AccountView, url, ask(url, f"/address/{text}"))

    def read_stored(folder: Path) -> AccountView:
        with open_stored_view(folder) as stored:
            account = wanted or stored.get_miner() or bytes(20)
            if wanted is None:
                _check_mines(to_hex(account))
            return stored.get_account(account)

    view = _read(data_dir, http_host, http_port, ask_account, read_stored)
    if as_json:
        _print_json(view)
        return
    rows = [("address", _show_address(view["address"])), ("balance", format_poai(int(view["balance"])))]
    _print_rows([*rows, ("mined", format_count(view["blocks"], "block")), ("nonce", str(view["nonce"]))])


def _check_mines(miner: str) -> None:
    if miner == NOBODY:
        raise UsageError("there is no account that blocks are mined for: name one, `poaid balance ADDRESS`")


@dataclass(frozen=True)
class Listing:
    """A list of peers: as JSON, and as a table."""

    plain: Sequence[object]
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def peers(data_dir: Folder = None, http_port: Port = None, http_host: Host = None, as_json: Json = False) -> None:
    """Show whom the node is connected to; while none runs, the peers that it remembers."""
    from poaid.api.stored_view import open_stored_view
    from poaid.produce.attempts import get_time
    from poaid.view import PeerView

    def ask_peers(url: str) -> Listing:
        answer = ask(url, "/peers")
        if not isinstance(answer, list):
            raise UnreachableError(make_stranger_line(url))
        return describe_peers([check_answer(PeerView, url, peer) for peer in answer])

    def read_stored(folder: Path) -> Listing:
        with open_stored_view(folder) as stored:
            return describe_address_book(stored.store.read_peers(), get_time())

    listing = _read(data_dir, http_host, http_port, ask_peers, read_stored)
    if as_json:
        _print_json(listing.plain)
    elif listing.rows:
        _print_table(listing.head, listing.rows)
    else:
        print("no peers")


# Where from.


def _read(
    data_dir: Path | None,
    host: str | None,
    port: int | None,
    from_node: Callable[[str], T],
    from_database: Callable[[Path], T],
) -> T:
    """Return what the node says; what its database says, with a line that tells so, while none runs in the folder.

    Raises:
        NodeError: neither can be asked.
    """
    running = None if data_dir is None else read_running(data_dir)
    if data_dir is None or host is not None or port is not None:
        known = (running.host, running.http_port) if running is not None else (LOCAL_HOST, DEFAULT_HTTP_PORT)
        try:
            return from_node(make_url(host or known[0], port or known[1] or DEFAULT_HTTP_PORT))
        except UnreachableError as error:
            hint = "start one with `poaid run`, or give the --http-port of one that runs"
            raise NodeError(f"{error}: {hint}") from error
    if running is None:
        note = f"no node runs in {data_dir}"
    elif not running.is_alive():
        note = f"{data_dir / RUNNING_FILE} is stale: process {running.pid} is gone, no node runs"
    elif running.http_port == 0:
        note = f"the node of process {running.pid} has no HTTP server (--http-port 0)"
    else:
        try:
            return from_node(running.url)
        except UnreachableError as error:
            note = f"process {running.pid}: {error}"
    try:
        found = from_database(data_dir)
    except UsageError:
        raise
    except NodeError as error:
        raise NodeError(f"{note}; {error}") from error
    print(f"note: {make_line(note)}; this is what the database holds", file=sys.stderr)
    return found


# How it looks.


def describe_status(view: StatusView, now: Milliseconds) -> list[tuple[str, str]]:
    """Return the rows of `poaid status`.

    Args:
        view: the node's.
        now: the local clock, ms since 1970.
    """
    from poai_spec.proof.difficulty import compute_quizzes

    quizzes = compute_quizzes(int(view["target"], 16))
    rows = [
        ("version", view["version"]),
        ("network", f"{view['network']}, id {view['network_id'][2:10]}"),
        ("model", f"{view['model']}, profile {view['profile']}"),
        ("activity", _describe_activity(view)),
        ("height", f"{view['height']:,}, {_describe_age(view['head_time'], now)}"),
        ("head", view["head"]),
        ("work", format_count(int(view["work"]), "multiplication")),
        ("target", f"{format_count(quizzes, 'quiz', 'quizzes')} a block on average"),
        ("speed", format_rate(view["quizzes_per_second"], quizzes)),
        ("peers", f"{view['peer_count']}"),
    ]
    if view["miner"] != NOBODY:
        rows += [("miner", _show_address(view["miner"])), ("balance", format_poai(int(view["balance"])))]
    for upgrade in view["upgrades"]:
        when = "changed" if upgrade["passed"] else "changes"
        model = f"; model {upgrade['model']}" if upgrade["model"] else ""
        hint = f": {upgrade['hint']}" if upgrade["hint"] else ""
        rows.append(("upgrade", f"{when} at height {upgrade['height']:,}: {upgrade['change']}{model}{hint}"))
    if view["sync"] is not None:
        rows.append(("sync", _describe_sync(view["sync"])))
    if view["bodies_from"] > 1:
        rows.append(("pruned", f"blocks before {view['bodies_from']:,} are kept as headers only"))
    if view["assumed"]:
        rows.append(("assumed", f"{format_count(view['assumed'], 'block')} not replayed (--assume-valid)"))
    return [*rows, *(("listening", address) for address in view["addresses"])]


def _describe_activity(view: StatusView) -> str:
    activity, reason = view["activity"], view["reason"]
    if reason is None or reason == activity:
        return activity
    return reason if reason.startswith(activity) else f"{activity}: {reason}"


def _describe_age(stamp: Milliseconds, now: Milliseconds) -> str:
    if stamp > now:
        return f"its time stamp is {format_duration((stamp - now) / 1000)} ahead of this clock"
    return f"{format_duration((now - stamp) / 1000)} old"


def _describe_sync(sync: SyncView) -> str:
    left, seconds = format_count(sync["blocks_left"], "block"), sync["seconds_left"]
    time = "not yet measured" if seconds is None else f"{format_duration(seconds)} of replay left"
    return f"at {sync['height']:,} of {sync['goal']:,}: {left} to replay, {time}"


def describe_peers(peers: Sequence[PeerView]) -> Listing:
    """Return whom a node is connected to."""
    rows = [
        (
            "?" if peer["height"] is None else f"{peer['height']:,}",
            "?" if peer["work"] is None else f"{int(peer['work']):,}",
            f"{peer['score']:g}",
            format_duration(peer["connected"]),
            "this node" if peer["outbound"] else "the peer",
            f"{peer['address']}/p2p/{peer['peer_id']}",
        )
        for peer in peers
    ]
    return Listing(peers, ("HEIGHT", "WORK", "SCORE", "SINCE", "DIALLED BY", "PEER"), rows)


def describe_address_book(peers: Sequence[StoredPeer], now: Milliseconds) -> Listing:
    """Return whom a node remembers: when each was seen, how long it is banned yet, where it is."""
    rows = [
        (
            f"{format_duration(max(0, now - peer.seen) / 1000)} ago" if peer.seen else "never",
            format_duration((peer.banned_until - now) / 1000) if peer.banned_until > now else "no",
            peer.address or f"/p2p/{peer.peer_id}",
        )
        for peer in peers
    ]
    return Listing([peer._asdict() for peer in peers], ("SEEN", "BANNED FOR", "PEER"), rows)


def _show_address(text: str) -> str:
    from poaid.keys import format_address

    return format_address(bytes.fromhex(text[2:]))


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    _print_table((), rows)


def _print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns; what comes from peers and files is neither markup nor control characters."""
    table = Table(*head, box=None, show_header=bool(head), pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for row in rows:
        table.add_row(*(Text(make_line(cell), overflow="fold") for cell in row))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
