"""As many peers as a node has places for, each asking for 512 headers as often as it may: what they cost the node."""

import multiprocessing
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import trio

from poai_spec.basics.encoding import encode
from poai_spec.chain.networking import (
    HEADERS_PROTOCOL,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    REQUEST_REFILL_MS,
    RESULT_BYTES,
    HeadersRequest,
)
from poaid.chain.judges import Models
from poaid.net.handlers import PeerError
from poaid.net.libp2p import host as libp2p_host
from poaid.net.libp2p.host import MAX_CONNECTIONS
from poaid.node import Node, Options
from poaid.store.database import Database
from tests.harness.driving import SOAK
from tests.harness.importing import grow_line, make_easy_judge, make_easy_network, make_root
from tests.unit.poaid.net.test_transport import Owner, make_network, until

SECONDS = 10.0
"""That are measured for each unit of `POAI_SOAK`, once all are connected and have used up their first tokens."""
MOST_MS = 20.0
"""Of CPU time for a request, with the encryption and sending of its 110 kB."""

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.trio,
    pytest.mark.slow,
    pytest.mark.timeout(0),
    pytest.mark.skipif(not SOAK, reason="a measurement, in docs/performance.md"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the node's process is a fork"),
]


def serve(folder: Path, seconds: float, pipe: Connection) -> None:
    """Run a node of 512 blocks; send its address, then requests, CPU seconds and seconds."""
    libp2p_host.MAX_INBOUND = MAX_CONNECTIONS  # all of them dial
    network, judge = make_easy_network(), make_easy_judge()
    with Database.create_or_open(folder, network, "mini") as store:
        node = Node(store, network, Models.hold(network, judge), Options(None, "127.0.0.1", 0, mdns=False), bytes(32))
        for made in grow_line(make_root(), MAX_HEADERS):
            node.chain.append(made.block, made.block.header.core.timestamp)
        answered, answer = Counter[str](), node.on_request

        async def count(peer: str, protocol: str, payload: bytes) -> bytes | None:
            answered[protocol] += 1
            return await answer(peer, protocol, payload)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                pipe.send(node.network.addresses[0])
                await until(lambda: len(node.peers.connected) == MAX_CONNECTIONS)
                await trio.sleep(SECONDS)
                before, cpu, start = answered[HEADERS_PROTOCOL], time.process_time(), time.monotonic()
                await trio.sleep(seconds)
                took = time.monotonic() - start
                pipe.send((answered[HEADERS_PROTOCOL] - before, time.process_time() - cpu, took))
                nursery.cancel_scope.cancel()

        node.on_request = count  # type: ignore[method-assign]
        trio.run(main)


async def ask(address: str) -> None:
    """Connect, and ask for all headers twice a second."""
    unknown = tuple(bytes([number]) * 32 for number in range(63))
    payload = encode(HeadersRequest((*unknown, make_root().hash), bytes(32), MAX_HEADERS))
    net = make_network(Owner())
    async with net.run():
        peer = await net.connect(address)
        while True:
            due = trio.current_time() + REQUEST_REFILL_MS / 1000
            try:
                await net.request(peer, HEADERS_PROTOCOL, payload, MAX_HEADERS_BYTES + RESULT_BYTES)
            except PeerError:  # the node has ended, or this machine is too slow for all of them
                await trio.sleep(0)
            await trio.sleep_until(due)


async def test_all_peers_ask_for_headers(tmp_path: Path) -> None:
    """Prints the figures, with `-s`."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(tmp_path / "node", SECONDS * SOAK, other))
    process.start()
    try:
        address = await trio.to_thread.run_sync(pipe.recv)
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_CONNECTIONS):
                nursery.start_soon(ask, address)
            requests, cpu, seconds = await trio.to_thread.run_sync(pipe.recv)
            nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        process.join()
    cost, most = 1000 * cpu / requests, MAX_CONNECTIONS * 1000 / REQUEST_REFILL_MS
    print(
        f"{requests / seconds:.0f} requests a second took {100 * cpu / seconds:.0f} % of a core, {cost:.1f} ms each; "
        f"{most:.0f} would take {100 * most * cost / 1000:.0f} %"
    )
    assert cost < MOST_MS
