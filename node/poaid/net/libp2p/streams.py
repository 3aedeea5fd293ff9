"""Streams of libp2p: frames, ends, and what a stranger's bytes can make the library raise."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio
from cryptography.exceptions import InvalidTag
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.exceptions import RateLimitError
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.transport.exceptions import SecurityUpgradeFailure
from multiaddr.exceptions import Error as MultiaddrError
from noise.exceptions import NoiseHandshakeError, NoiseInvalidMessage  # type: ignore[import-untyped]

from poai_spec.basics.notation import SpecError
from poai_spec.chain.networking import check_frame_length
from poaid.net.handlers import BUGS, PeerError, iterate_leaves

CLOSE_TIMEOUT_S = 3.0
"""What closing anything may take: a peer that does not answer is left."""
LINGER_BYTES = 4_096
"""Read at a time of what a peer still sends on a stream that is done with, and thrown away."""

BROKEN = (
    BaseLibp2pError,
    RateLimitError,
    NoiseHandshakeError,
    NoiseInvalidMessage,
    InvalidTag,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    trio.TooSlowError,
    OSError,
)
"""What libp2p raises when a connection ends, at any moment, or says what it must not."""

FAULTS = (*BROKEN, DecodeError, MultiaddrError, *BUGS)
"""What libp2p and the libraries under it raise, besides, on a stranger's bytes: they do not tell these from bugs.

It surrounds calls of the library only. What our own code raises in them is a bug, and told apart by `is_ours`.
"""


@contextmanager
def shielded() -> Iterator[None]:
    """Do something that must be done, but for no longer than `CLOSE_TIMEOUT_S`."""
    with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
        scope.shield = True
        yield


@asynccontextmanager
async def closing(stream: INetStream) -> AsyncIterator[None]:
    """Close a stream whatever happens: 256 that are left open block the next one. A failure resets it."""
    done = False
    try:
        yield
        done = True
    finally:
        with suppress(*FAULTS), shielded():
            await (stream.close() if done else stream.reset())


async def linger(stream: INetStream) -> None:
    """Wait for the other end of a stream that was closed here, then drop it: libp2p keeps what is half open."""
    with contained(), trio.move_on_after(CLOSE_TIMEOUT_S):
        while await stream.read(LINGER_BYTES):
            pass
    with contained(), shielded():
        await stream.reset()


async def read_frame(stream: INetStream, limit: int) -> bytes:
    """Read a frame's payload.

    Raises:
        Malformed: `networking/frame-length`.
        PeerError: the stream ended before the frame did.
    """
    length = int.from_bytes(await _read_exactly(stream, 4), "little")
    check_frame_length(length, limit)
    return await _read_exactly(stream, length)


async def _read_exactly(stream: INetStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = await stream.read(size - len(data))
        if not part:
            raise PeerError(f"the stream ended after {len(data)} of {size} bytes")
        data += part
    return bytes(data)


@contextmanager
def contained(report: Callable[[Exception], None] = lambda _: None) -> Iterator[None]:
    """Keep what a peer causes from ending more than the peer's own task; nothing of the owner's may run in it."""
    try:
        yield
    except* (*FAULTS, PeerError, SpecError) as group:
        for error in iterate_leaves(group):
            report(error)


def explain_dial(error: BaseException) -> str:
    """Return why a dial failed, in a few words: the library wraps the reason in up to six errors."""
    causes = list(_iterate_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"its name is not known here ({cause.strerror})"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        if isinstance(cause, PeerIDMismatchesPubkey):
            return "another peer is there"
        if isinstance(cause, trio.TooSlowError):
            return "no answer in time"
    if any(isinstance(cause, SecurityUpgradeFailure) for cause in causes):
        return "it hung up before it had proven who it is"
    return describe(error)


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all those that led to it."""
    found = [error]
    for one in found:  # grows while it is read
        yield one
        inner = [*getattr(one, "exceptions", ()), *getattr(one, "errors", ()), one.__cause__, one.__context__]
        found += [cause for cause in inner if isinstance(cause, BaseException) and cause not in found]


def describe(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
