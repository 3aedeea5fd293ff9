"""What a stranger may make libp2p hold or compute before and while it speaks: negotiation, Noise, Yamux.

py-libp2p announces bounds here that it does not keep, or has none
([decision 0010](../../docs/adr/0010-what-libp2p-announces-is-kept.md) lists them, with the tests that show it). Each
length and count is compared before what it announces is read.
"""

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import trio
from libp2p.abc import IMultiselectCommunicator, IMuxedConn, ISecureConn
from libp2p.crypto.keys import KeyPair, KeyType
from libp2p.crypto.pb import crypto_pb2
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.io.utils import read_exactly
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect import DEFAULT_NEGOTIATE_TIMEOUT, Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.exceptions import NoiseFailure
from libp2p.security.noise.patterns import PatternXX
from libp2p.security.noise.pb import noise_pb2
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    GO_AWAY_NORMAL,
    HEADER_SIZE,
    TYPE_DATA,
    TYPE_GO_AWAY,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from noise.connection import Keypair, NoiseConnection  # type: ignore[import-untyped]

from poai_spec.basics.notation import Malformed
from poaid.net.libp2p.streams import BROKEN, shielded

MAX_NEGOTIATION_BYTES = 1_024
"""One message of multistream-select, as in go-multistream: names of protocols have some thirty."""
MAX_NEGOTIATION_MESSAGES = 32
"""Messages in one negotiation: a peer that has five protocols for one purpose sends six."""
IDENTITY_KEYS = {KeyType.Ed25519.value: 32, KeyType.Secp256k1.value: 33}
"""Kinds of identity keys, and their bytes. An RSA key may have 64 KiB, which takes seconds to read and refuse."""
MAX_HANDSHAKE_BYTES = 4_096
"""The payload of a Noise handshake: a key, a signature, and extensions of which none is used here."""
WINDOW_BYTES = DEFAULT_WINDOW_SIZE
"""Yamux's: what a peer may send on a stream before it is read. It does not grow here."""
MAX_UNREAD_BYTES = 4 * WINDOW_BYTES
"""Of all streams of a session together: gossip and three answers, all of them unread. 64 peers fill 64 MiB."""
MAX_SESSION_STREAMS = 256
"""That a session keeps, with those that are about to be reset: eight times what a peer may have open."""
GO_AWAY_S = 1.0
"""What saying that a session ends may take; less than `CLOSE_TIMEOUT_S`, after which closing is given up."""

Report = Callable[[ID, Malformed], None]


# Negotiation.


class Communicator(MultiselectCommunicator):
    """Reads messages of bounded length and number; the library's reads 2^64 bytes, and puts them into its errors."""

    _left = MAX_NEGOTIATION_MESSAGES

    async def read(self) -> str:
        """Read a message.

        Raises:
            MultiselectCommunicatorError: it is too long, one too many, or none.
        """
        if not self._left:
            raise MultiselectCommunicatorError(f"more than {MAX_NEGOTIATION_MESSAGES} messages")
        self._left -= 1
        try:
            data = await read_varint_prefixed_bytes_limited(self.read_writer, MAX_NEGOTIATION_BYTES)
            text = data.decode()
        except (*BROKEN, UnicodeDecodeError) as error:
            raise MultiselectCommunicatorError("no message of multistream-select") from error
        if not text.endswith("\n"):
            raise MultiselectCommunicatorError("a message without its end")
        return text[:-1]


def _bound(communicator: IMultiselectCommunicator) -> Communicator:
    return Communicator(cast("MultiselectCommunicator", communicator).read_writer)


class Listener(Multiselect):
    """Says what is spoken here, within bounds."""

    async def negotiate(
        self, communicator: IMultiselectCommunicator, negotiate_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT
    ) -> tuple[TProtocol | None, StreamHandlerFn | None]:
        return await super().negotiate(_bound(communicator), negotiate_timeout)


class Chooser(MultiselectClient):
    """Asks for what the other side speaks, within bounds."""

    async def select_one_of(
        self,
        protocols: Sequence[TProtocol],
        communicator: IMultiselectCommunicator,
        negotiate_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT,
    ) -> TProtocol:
        return await super().select_one_of(protocols, _bound(communicator), negotiate_timeout)


# Noise.


class _Handshake(NoiseConnection):  # type: ignore[misc]  # the library has no types
    """Refuses a payload before the library reads the key in it."""

    def read_message(self, data: bytes) -> bytes:
        payload = bytes(super().read_message(data))
        if payload:  # a listener's first message has none
            check_handshake(payload)
        return payload


def check_handshake(payload: bytes) -> None:
    """Refuse a handshake whose identity key would be costly to read.

    Raises:
        NoiseFailure: the payload is too long, or the key of another kind or length.
        DecodeError: one of the two is no protobuf.
    """
    if len(payload) > MAX_HANDSHAKE_BYTES:
        raise NoiseFailure(f"a handshake of {len(payload)} bytes, {MAX_HANDSHAKE_BYTES} are allowed")
    handshake = noise_pb2.NoiseHandshakePayload.FromString(payload)
    key = crypto_pb2.PublicKey.FromString(handshake.identity_key)
    if len(key.data) != IDENTITY_KEYS.get(key.key_type):
        raise NoiseFailure(f"an identity key of kind {key.key_type} with {len(key.data)} bytes is not taken here")


class _Pattern(PatternXX):
    def create_noise_state(self, prologue: bytes | None = None) -> NoiseConnection:  # noqa: ARG002  # there is none
        state = _Handshake.from_name(self.protocol_name)
        state.set_keypair_from_private_bytes(Keypair.STATIC, self.noise_static_key.to_bytes())
        return state


class Noise(NoiseTransport):
    """Noise that takes identity keys of two kinds."""

    def get_pattern(self) -> _Pattern:
        return _Pattern(self.local_peer, self.libp2p_privkey, self.noise_privkey, self.early_data)


# Yamux.


class Stream(YamuxStream):
    """A stream whose window stays as large as it is announced; the library's grows to 16 MiB."""

    _read = 0

    async def reset(self) -> None:
        """Drop the stream and what is unread of it, which the library keeps a minute when both sides have closed."""
        await super().reset()
        self.reset_received = True
        await self.conn._finalize_stream(self, fully_closed=True)

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        """Let the peer send as much again as was read, half a window at a time."""
        self._read += bytes_read
        if self._read >= WINDOW_BYTES // 2:
            self.recv_window, increment, self._read = self.recv_window + self._read, self._read, 0
            await self.send_window_update(increment)


class Session(Yamux):
    """Yamux that ends at the first byte beyond a window.

    Args:
        conn: the secured connection.
        peer_id: whose it is.
        report: told what ended a session that should not have.
    """

    def __init__(self, conn: ISecureConn, peer_id: ID, report: Report) -> None:
        super().__init__(conn, peer_id, is_initiator=conn.is_initiator)
        self._report = report

    async def open_stream(self) -> YamuxStream:
        """Open a stream; waits while 256 are open.

        Raises:
            MuxedStreamError: the session has ended.
        """
        await self.stream_backlog_semaphore.acquire()
        stream = Stream(self.next_stream_id, self, is_initiator=True)
        self.next_stream_id += 2
        stream._owns_backlog_slot = True
        self._keep(stream)
        try:
            if self.event_shutting_down.is_set():
                raise MuxedStreamError("the session has ended")
            await self._send(TYPE_WINDOW_UPDATE, FLAG_SYN, stream.stream_id, 0)
        except BROKEN as error:
            stream.reset_received = True
            self._finalize_stream_locked(stream, fully_closed=True)
            raise MuxedStreamError("the session has ended") from error
        return stream

    async def handle_incoming(self) -> None:
        """Do what frames say until the session ends."""
        try:
            while not self.event_shutting_down.is_set():
                header = await read_exactly(self.secured_conn, HEADER_SIZE)
                await self._take_frame(*struct.unpack(YAMUX_HEADER_FORMAT, header))
                await trio.lowlevel.checkpoint()  # one message of Noise's may have 5,459 frames
        except Malformed as error:
            self._report(self.peer_id, error)
        except BROKEN:
            pass
        await self._cleanup_on_error()

    async def close(self, error_code: int = GO_AWAY_NORMAL) -> None:
        """End the session, also of a peer that reads nothing: the library waits for it, and until then all stays open.

        Whoever closes stops waiting before, and believes it closed: such a peer would outlive its ban, in no count.
        """
        try:
            with suppress(*BROKEN), trio.move_on_after(GO_AWAY_S):
                if not self.event_shutting_down.is_set():
                    await self._send(TYPE_GO_AWAY, 0, 0, error_code)
        finally:
            with shielded():
                await self._cleanup_on_error()

    async def _take_frame(self, version: int, kind: int, flags: int, stream_id: int, length: int) -> None:
        """Do what one frame says.

        Raises:
            Malformed: `encoding/undecodable`; nothing beyond the header was read.
        """
        if version or kind not in (TYPE_DATA, TYPE_WINDOW_UPDATE, TYPE_PING, TYPE_GO_AWAY):
            raise Malformed("encoding/undecodable", f"Yamux: version {version}, type {kind}")
        if kind == TYPE_GO_AWAY:
            self.event_shutting_down.set()
        elif kind == TYPE_PING:
            await self._take_ping(flags, length)
        else:
            new = await self._accept(stream_id) if flags & FLAG_SYN else None
            stream = self.streams.get(stream_id)
            if kind == TYPE_DATA:
                self._check_length(stream, length)
                await self._take_data(stream, await self._read_data_body(length) if length else b"")
            elif stream is not None:
                stream.send_window += length
            self._take_end(stream, flags)
            if new is not None:
                await self.new_stream_send_channel.send(new)

    def _check_length(self, stream: YamuxStream | None, length: int) -> None:
        """Refuse data before it is read, also for a stream that is no more: it may have been under way."""
        window = WINDOW_BYTES if stream is None else stream.recv_window
        if length > window:
            raise Malformed("encoding/undecodable", f"Yamux: {length} bytes where {window} are allowed")
        unread = sum(map(len, self.stream_buffers.values()))
        if unread + length > MAX_UNREAD_BYTES:
            raise Malformed("encoding/undecodable", f"Yamux: {unread + length} bytes unread, of all streams")

    async def _accept(self, stream_id: int) -> YamuxStream:
        """Keep a stream that the peer opens, and confirm it."""
        if stream_id % 2 == self.next_stream_id % 2 or stream_id in self.streams:
            raise Malformed("encoding/undecodable", f"Yamux: stream {stream_id} is not the peer's to open")
        if len(self.streams) >= MAX_SESSION_STREAMS:
            raise Malformed("encoding/undecodable", f"Yamux: more than {MAX_SESSION_STREAMS} streams")
        stream = Stream(stream_id, self, is_initiator=False)
        self._keep(stream)
        await self._send(TYPE_WINDOW_UPDATE, FLAG_ACK, stream_id, 0)
        return stream

    def _keep(self, stream: YamuxStream) -> None:
        self.streams[stream.stream_id] = stream
        self.stream_buffers[stream.stream_id] = bytearray()
        self.stream_events[stream.stream_id] = trio.Event()

    async def _take_data(self, stream: YamuxStream | None, data: bytes) -> None:
        if stream is None or self.streams.get(stream.stream_id) is not stream:  # reset meanwhile
            return
        stream.recv_window -= len(data)
        self.stream_buffers[stream.stream_id] += data
        self.stream_events[stream.stream_id].set()

    def _take_end(self, stream: YamuxStream | None, flags: int) -> None:
        """End a stream, or the peer's half of it."""
        if stream is None or not flags & (FLAG_FIN | FLAG_RST) or stream.stream_id not in self.streams:
            return
        stream.recv_closed = True
        stream.reset_received = stream.reset_received or bool(flags & FLAG_RST)
        stream.closed = stream.reset_received or stream.send_closed
        self.stream_events[stream.stream_id].set()
        if stream.closed:
            self._finalize_stream_locked(stream, fully_closed=True)

    async def _take_ping(self, flags: int, number: int) -> None:
        if flags & FLAG_SYN:
            await self._send(TYPE_PING, FLAG_ACK, 0, number)
        else:
            self._ping_event.set()

    async def _send(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        await self._write_frame(struct.pack(YAMUX_HEADER_FORMAT, 0, kind, flags, stream_id, length))

    def _finalize_stream_locked(self, stream: YamuxStream, *, fully_closed: bool) -> None:
        """Forget a stream that is closed; of one that was reset, also what is unread, which the library keeps 60 s."""
        if fully_closed and stream.reset_received and stream.stream_id in self.stream_buffers:
            self.stream_buffers[stream.stream_id].clear()
        super()._finalize_stream_locked(stream, fully_closed=fully_closed)


class Upgrader(TransportUpgrader):
    """Makes a session of a connection: Noise and Yamux, and nothing else."""

    def __init__(self, keys: KeyPair, report: Report) -> None:
        noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
        super().__init__({NOISE: noise}, {TProtocol(YAMUX): Yamux})
        for selector in (self.security_multistream._selector, self.muxer_multistream._selector):
            selector.multiselect, selector.multiselect_client = Listener(selector.multiselect.handlers), Chooser()
        self._report = report

    async def upgrade_connection(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """Agree on Yamux, and return our session in place of the library's, which has not begun."""
        muxed: Any = await super().upgrade_connection(conn, peer_id)
        session = Session(conn, peer_id, self._report)
        for name in ("negotiated_muxer_protocol", "negotiated_security_protocol"):
            setattr(session, name, getattr(muxed, name))
        return session
