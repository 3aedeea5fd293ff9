"""Where both programs begin: signals and standard streams, before anything is imported that takes long or may fail.

A process that a container starts is its process 1, and the kernel takes a signal without a handler from it as no signal
at all. So SIGTERM has a handler from the first line on, in every command.
"""

import os
import pwd
import signal
import sys
from importlib import import_module
from types import FrameType

from poaid.process.streams import flush_output, prepare_streams

AGAIN_S = 5
"""After a signal that did not end the process: it is raised again. Python swallows what is raised in a destructor, or
in a function that a C library calls."""

NO_HOME = "/nonexistent"
"""Debian's name for it."""


class Stopped(KeyboardInterrupt):
    """A signal to end has come; to be handled as Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def get_stop_status(stop: KeyboardInterrupt) -> int:
    """Return what a process ends with after a signal, as a shell has it."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def say_stopped(stop: KeyboardInterrupt) -> int:
    """Say that a command was stopped; return its exit status."""
    print("stopped", file=sys.stderr)
    return get_stop_status(stop)


def get_end_signals() -> list[signal.Signals]:
    """Return the signals that end a process; `nohup` has one of them ignored."""
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def handle_signals() -> None:
    """Have the signals that end a process raise `Stopped`; Ctrl-C has Python's own handler, which trio knows."""
    first = list[int]()

    def stop(number: int, _frame: FrameType | None) -> None:
        first.append(number)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        raise Stopped(first[0])

    signal.signal(signal.SIGALRM, stop)
    for number in get_end_signals():
        if number is not signal.SIGINT:
            signal.signal(number, stop)


def find_home() -> None:
    """Name a home folder where the system knows none, as for a user that exists only in a container's command line.

    Libraries would fail, each in its own way, or make a folder `~`. One that is not there fails as one that may not be
    written to does, and the messages for that say which variable to set.
    """
    if "HOME" not in os.environ:
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["HOME"] = NO_HOME


def enter(module: str) -> None:
    """Run the `main` of a module, which is imported now."""
    try:
        handle_signals()
        prepare_streams()
        find_home()
        import_module(module).main()
    except KeyboardInterrupt as stop:
        sys.exit(say_stopped(stop))
    finally:
        fault = flush_output()
    if fault is not None:
        sys.exit(1)
