"""`poai vectors`: make the conformance vectors, and check specifications and foreign clients with them."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from poai_tools.spec.cli import fail
from poai_tools.spec.places import NO_CHECKOUT, VECTORS, find_checkout, find_vectors
from poai_tools.vectors.client import START_TIME
from poai_tools.vectors.errors import VectorsError
from poai_tools.vectors.languages import LANGUAGES

if TYPE_CHECKING:
    from poai_tools.vectors import check as checks
    from poai_tools.vectors import files, fuzz
    from poai_tools.vectors.client import Client
    from poai_tools.vectors.registry import Function

OUR_CLIENT = [sys.executable, "-m", "poai_tools.vectors.cli", "serve"]
FUNCTION_LIST = "functions.json"
STOPPED = 130
"""Exit status after a signal to stop, as shells have it for SIGINT."""
REFERENCE_TIME = 10.0
"""Seconds that our specification has at least for an answer: `--timeout` is about the client."""
FUZZ_RESTARTS = 1000
"""How often fuzz starts a client again; drawn inputs end in time-outs more often than committed ones."""


class EngineName(StrEnum):
    """Who runs models."""

    exact = "exact"
    reference = "reference"


app = typer.Typer(help="Conformance vectors: make them, check a client with them.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option("--vectors", help="The folder test_vectors; by default that of the checkout, else the installed one."),
]
Slow = Annotated[bool, typer.Option("--slow", help="Run the slow cases too (minutes, large models).")]
Suites = Annotated[list[str] | None, typer.Option("--suite", help="Only this suite; may be repeated.")]
StartTimeout = Annotated[
    float, typer.Option(help="Seconds for the start, in which `cargo run` or `go run` compile.", min=0.01)
]
Timeout = Annotated[float, typer.Option(help="Seconds for one answer.", min=0.01)]


@contextmanager
def one_line() -> Iterator[None]:
    """Turn an error of the vector tools into its line and exit status."""
    try:
        yield
    except VectorsError as error:
        fail(str(error), error.status)


@contextmanager
def open_clients(commands: list[list[str]], timeout: float, start_timeout: float) -> Iterator[list[Client]]:
    """Open several clients; our own has `REFERENCE_TIME` at least."""
    from poai_tools.vectors.client import Client

    with ExitStack() as stack:
        limits = [max(timeout, REFERENCE_TIME) if command is OUR_CLIENT else timeout for command in commands]
        clients = [
            Client(command, limit, FUZZ_RESTARTS, start_timeout)
            for command, limit in zip(commands, limits, strict=True)
        ]
        yield [stack.enter_context(client) for client in clients]


def find_folder(folder: Path | None) -> Path:
    """Return the folder `test_vectors`."""
    if folder is not None:
        if not folder.is_dir():
            raise VectorsError(f"{folder} is no folder", status=2)
        return folder
    return find_vectors()


def require_checkout() -> Path:
    """Return the checkout around the current folder, whose files a command reads or writes."""
    root = find_checkout(Path.cwd())
    if root is None:
        raise VectorsError(NO_CHECKOUT, 2)
    return root


@app.command()
def generate(
    suites: Annotated[list[str] | None, typer.Argument(help="Suites; by default all.", metavar="[SUITE]...")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a file is missing, stale or extra.")
    ] = False,
    slow: Slow = False,
    model: Annotated[
        Path | None, typer.Option(help="A pinned model's file that is not in the model folder, such as TinyLlama's.")
    ] = None,
) -> None:
    """Write the vectors from the specification.

    Results that are not computed here (slow cases, models that are not at hand) stay as they are committed.
    """
    from poai_tools.vectors import check as checks
    from poai_tools.vectors import files, models
    from poai_tools.vectors.disk import write
    from poai_tools.vectors.suites import SUITES

    with one_line():
        checks.require_suites(suites or ())
        root = require_checkout() / VECTORS
        if model:
            models.use_file(model)
        chosen = [name for name in SUITES if not suites or name in suites]
        made: dict[str, str] = {}
        with Console(stderr=True).status("") as status:
            for name in chosen:
                status.update(f"computing {name}")
                made |= files.make_suite(root, name, slow=slow, find_missing=find_missing)
        if not suites:
            made |= files.make_tables(root.parent / "specs")
        files.check_sizes(root, made)
        found = files.compare(root, made, chosen)
        if not check:
            for name in (*found.missing, *found.stale):
                write(root / name, made[name])
        show_comparison(found, check=check)


def show_comparison(found: files.Comparison, *, check: bool) -> None:
    """Print each file that differed; exit 1 if that is a failed check."""
    for word, names in (("missing", found.missing), ("stale", found.stale)):
        for name in names:
            print(f"{word if check else 'written'}: {VECTORS}/{name}")
    for name in found.extra:
        print(f"extra: {VECTORS}/{name}: no suite makes it; remove it")
    print(f"{found.same} files are up to date")
    if check and (found.missing or found.stale or found.extra):
        fail("the committed vectors are not those of the specification: run `poai vectors generate` and commit", 1)


@app.command()
def check(
    suites: Suites = None,
    cases: Annotated[
        list[str] | None, typer.Option("--case", help="Only ID, FUNCTION or SUITE/FUNCTION/ID; may be repeated.")
    ] = None,
    client: Annotated[
        str | None, typer.Option(help="Check this program instead of our specification.", metavar="CMD")
    ] = None,
    timeout: Timeout = 60.0,
    start_timeout: StartTimeout = START_TIME,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Name the first layer and step in which a failed forward pass differs.")
    ] = False,
    slow: Slow = False,
    engine: Annotated[
        EngineName | None,
        typer.Option(help="Run all models by this engine; by default nano and mini of inference by the reference."),
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write a report to this file.")] = None,
    file: Annotated[Path | None, typer.Option(help="Check this case file, such as one that fuzz wrote.")] = None,
    folder: Folder = None,
) -> None:
    """Run the committed vectors; exit 1 on any failure."""
    from poai_tools.vectors import check as checks
    from poai_tools.vectors.bisect import locate
    from poai_tools.vectors.disk import format_json, write
    from poai_tools.vectors.suites import SUITES

    if engine:
        from poai_tools.vectors import engines, models

        engines.choose_engine(engine.value)
        models.choose_engine(engine.value)
    with one_line():
        if bisect and client is None:
            raise VectorsError("--bisect compares a client's forward pass with ours: give --client", status=2)
        committed = checks.read_file(file) if file else checks.read_cases(find_folder(folder), suites or list(SUITES))
        chosen = checks.select(committed, cases or ())
        results = []
        with (
            stoppable() as stop,
            open_answerer(client, timeout, start_timeout) as answerer,
            Console(stderr=True).status("") as status,
        ):
            missing = find_nothing_missing if client else find_missing
            for found in checks.run_cases(chosen, answerer, slow=slow, find_missing=missing):
                result = locate(found, answerer, committed) if bisect else found
                results.append(result)
                status.update(result.case.path)
                if fail_fast and result.status == checks.FAILED:
                    break
        checks.report(Console(), results)
        if json_file:
            complete = len(results) == len(chosen)
            write(json_file, format_json(checks.make_report(results, complete=complete)))
        if client and not file and (function := checks.find_next(results, find_folder(folder))):
            print(f"next to build: {function}")
    if stop.is_set():
        fail(f"stopped: {len(results)} of {len(chosen)} cases were run", STOPPED)
    if any(result.status == checks.FAILED for result in results):
        raise typer.Exit(1)


@contextmanager
def stoppable() -> Iterator[Event]:
    """Let SIGINT and SIGTERM end the block, so that what was found by then is reported; the event is set by them."""
    stop = Event()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield stop
    except KeyboardInterrupt:
        stop.set()
    finally:
        signal.signal(signal.SIGTERM, old)


def find_missing(data: Mapping[str, Any]) -> str | None:
    """Return why our specification cannot run a case on this input here, or None."""
    if "model" not in data and "fingerprint" not in data:  # the models bring the engines with them
        return None
    from poai_tools.vectors import engines, models

    if data.get("model") in models.LARGE and engines.get_chosen_engine() == "reference":
        return f"the reference engine would take hours on {data['model']}: leave --engine out"
    return models.find_missing(data)


def find_nothing_missing(_data: Mapping[str, Any]) -> str | None:
    """A client says itself what it lacks."""
    return None


@contextmanager
def open_answerer(client: str | None, timeout: float, start_timeout: float) -> Iterator[checks.Answerer]:
    """Open our specification, or a client's command line."""
    from poai_tools.vectors import check as checks
    from poai_tools.vectors.client import Client

    if client is None:
        yield checks.SpecAnswerer()
        return
    with Client(split_command(client), timeout, start_time=start_timeout) as program:
        yield program


def split_command(text: str) -> list[str]:
    """Return a command line's words."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise VectorsError(f"the client's command line is malformed ({error}): {text}", status=2) from error
    if not words:
        raise VectorsError("the client's command line is empty", status=2)
    return words


@app.command("fuzz")
def fuzz_command(
    clients: Annotated[
        list[str],
        typer.Option("--client", metavar="CMD", help="The program to examine; a second one takes our spec's place."),
    ],
    suites: Suites = None,
    functions: Annotated[
        list[str] | None, typer.Option("--function", help="Only this function; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="What the inputs are drawn from.", min=0, max=2**64 - 1)] = 0,
    count: Annotated[int, typer.Option(help="Inputs a function.", min=1)] = 100,
    out: Annotated[Path | None, typer.Option(help="Write each difference as a case file into this folder.")] = None,
    timeout: Timeout = 10.0,
    start_timeout: StartTimeout = START_TIME,
    folder: Folder = None,
) -> None:
    """Compare a client with our specification on inputs drawn from a seed; exit 1 if they differ."""
    from poai_tools.vectors import check as checks
    from poai_tools.vectors import fuzz
    from poai_tools.vectors.disk import format_json, read_json, write

    with one_line():
        root = find_folder(folder)
        checks.require_suites(suites or ())
        chosen = choose_functions(root, suites, functions)
        commands = [*map(split_command, clients), OUR_CLIENT][:2]
        if len(clients) > 2:
            raise VectorsError("fuzz compares two clients: give --client once or twice", status=2)
        results = {row["code"]: row["result"] for row in read_json(root / "codes.json")["codes"]}
        different, tallies = 0, {}
        with stoppable() as stop, open_clients(commands, timeout, start_timeout) as (first, second):
            for function in chosen:
                path = root / function.suite / f"{function.name}.json"
                cases = checks.read_file(path) if path.is_file() else []
                tally = fuzz.fuzz_function(fuzz.Pair(first, second), function, cases, seed, count)
                tallies[f"{function.suite}/{function.name}"] = tally
                show_tally(function, tally)
                if tally.difference:
                    different += 1
                    show_difference(tally.difference)
                    if out:
                        fragment = fuzz.make_fragment(tally.difference, cases, seed, results)
                        name = f"{function.suite}-{function.name}-{fragment['cases'][0]['id']}.json"
                        write(out / name, format_json(fragment))
                        print(f"  written: {out / name}")
    if stop.is_set():
        fail(f"stopped: {len(tallies)} of {len(chosen)} functions were compared", STOPPED)
    require_compared(tallies)
    if different:
        fail(f"the clients differ in {different} of {len(chosen)} functions", 1)


def require_compared(tallies: Mapping[str, fuzz.Tally]) -> None:
    """Fail if nothing was compared, or nothing of a function that both clients have: that shows nothing."""
    silent = [name for name, tally in tallies.items() if tally.unanswered and not tally.compared]
    if silent:
        fail(f"no input of {', '.join(silent)} had two answers: give more time by --timeout", 1)
    if not any(tally.compared for tally in tallies.values()):
        fail("nothing was compared: no function here is implemented by both, or no input lay in a domain", 1)


def choose_functions(root: Path, suites: list[str] | None, names: list[str] | None) -> list[Function]:
    """Return the registered functions of some suites and names, in build order."""
    from poai_tools.vectors.registry import FUNCTIONS
    from poai_tools.vectors.suites import SUITES, load_all

    load_all()

    for name in names or ():
        if name not in {function.name for function in FUNCTIONS.values()}:
            raise VectorsError(f"no function is called {name!r}: {root / FUNCTION_LIST} lists them", status=2)
    chosen = [
        function
        for suite in SUITES
        for function in FUNCTIONS.values()
        if function.suite == suite and (not suites or suite in suites) and (not names or function.name in names)
    ]
    if not chosen:
        raise VectorsError(f"no such function in these suites: {root / FUNCTION_LIST} lists them", status=2)
    return chosen


def show_tally(function: Function, tally: fuzz.Tally) -> None:
    """Print a line about a function's inputs."""
    parts = [f"{tally.equal} equal"]
    if tally.missing:
        parts = [f"not implemented by {tally.missing}"]
    if tally.outside:
        parts.append(f"{tally.outside} outside the domain")
    if tally.unanswered:
        parts.append(f"{tally.unanswered} without an answer to compare")
    print(f"{function.suite}/{function.name}: {', '.join(parts)}", flush=True)


def show_difference(found: fuzz.Difference) -> None:
    """Print a difference."""
    from poai_tools.vectors import fuzz
    from poai_tools.vectors.compare import shorten

    print(f"DIFFERENT {found.function.suite}/{found.function.name} on {shorten(found.input)}")
    print(f"  client:   {fuzz.describe(found.a)}")
    print(f"  expected: {fuzz.describe(found.b)}")


@app.command("init-client")
def init_client(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    language: Annotated[str, typer.Option(help=f"Of the example: {', '.join(LANGUAGES)}.")] = "python",
) -> None:
    """Write a skeleton for a client: the protocol, the signatures of all functions, and an example that runs."""
    from poai_tools.vectors.skeleton import write_skeleton

    with one_line():
        for path in write_skeleton(folder, language):
            print(f"written: {path}")


@app.command()
def pack(
    out: Annotated[Path, typer.Argument(help="The zip file to write.", metavar="OUT")],
) -> None:
    """Pack pages, vectors and schemas into an archive: the same bytes from the same files, and its SHA-256."""
    from poai_tools.vectors.pack import write_archive

    with one_line():
        if out.suffix != ".zip":
            raise VectorsError(f"the archive is a zip file: name it {out.with_suffix('.zip')}", status=2)
        print(f"{write_archive(require_checkout(), out)}  {out}")


@app.command("serve")
def serve_command() -> None:
    """Answer requests on standard input with our specification: a client like any other."""
    from poai_tools.vectors.serve import serve

    if sys.stdin.isatty():
        print("reading requests, one JSON object a line; end with Ctrl-D", file=sys.stderr)
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        # Nobody may be reading any more; Python would complain about it at its end.
        if sys.stdout.closed is False:
            quiet_end()


def quiet_end() -> None:
    """Flush standard output; if its reader is gone, send the rest nowhere."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    app()
