"""Nodes in this process, on real sockets: libp2p, the store and poai-mini are real, only the chains are prepared."""

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, islice
from pathlib import Path
from socket import create_server
from typing import Any

import trio

from poai_spec.basics.containers import Block
from poai_spec.basics.encoding import decode
from poai_spec.basics.notation import Address, keccak256
from poai_spec.chain.block import Judge, make_judge
from poai_spec.model.engine import Engine
from poai_spec.proof.lexicon import read_lexicon
from poai_tools.vectors.network import LEXICON, make_network
from poaid.chain.chain_state import ChainState
from poaid.chain.judges import Models
from poaid.network_file import Network
from poaid.node import Node, Options
from poaid.store.database import Database

VECTORS = Path(__file__).parents[2] / "test_vectors"

PATIENCE_S = 120.0
"""The longest that a test waits for something; on a quiet machine all of it takes a second or two."""
LOOK_S = 0.02


FIRST_PORT, PORTS = 10_000, 20_000
"""Below those that a system gives to outgoing connections (32,768 on Linux): none of them takes a port meanwhile."""
_ports = (FIRST_PORT + (os.getpid() * 131 + n) % PORTS for n in count())


def get_free_port() -> int:
    """Return a TCP port that nobody listens on, never the same twice; other processes begin elsewhere."""
    for port in islice(_ports, PORTS):
        with suppress(OSError), create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def make_vector_network() -> Network:
    """Return the network of the vectors' chains: poai-mini, every second quiz wins at first."""
    return Network("vectors", make_network(), read_lexicon(LEXICON), LEXICON)


@cache
def read_chain() -> tuple[Block, ...]:
    """Return the 200 blocks of the vector `two-hundred`."""
    cases = json.loads((VECTORS / "chain" / "verify_chain.json").read_text("utf-8"))["cases"]
    case = next(case for case in cases if case["id"] == "two-hundred")
    return tuple(decode(Block, bytes.fromhex(data[2:])) for data in case["input"]["blocks"])


def fill(store: Database, judge: Judge, blocks: Sequence[Block]) -> None:
    """Store blocks that are known to be true, as if this node had mined them."""
    chain = ChainState(store, judge.config, blocks[-1].header.core.timestamp, judge.upgrades)
    for block in blocks:
        chain.append(block, block.header.core.timestamp)


async def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE_S) -> None:
    """Wait for something that another task or thread does, so many seconds at most."""
    with trio.move_on_after(patience):
        while not condition():
            await trio.sleep(LOOK_S)
        return
    raise AssertionError(f"not within {patience:.0f} s: {what}")


@dataclass
class Made:
    """A node and its data directory."""

    node: Node
    store: Database

    @property
    def address(self) -> str:
        """What others dial."""
        port, peer_id = self.node.options.p2p_port, self.node.network.peer_id
        return f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id}"

    @property
    def head(self) -> bytes:
        return self.node.chain.head.hash

    @property
    def height(self) -> int:
        return self.node.chain.head.height


class Maker:
    """Makes nodes of one network below a folder.

    Args:
        folder: for the data directories.
        network: the rules.
        engine: poai-mini.
    """

    def __init__(self, folder: Path, network: Network, engine: Engine) -> None:
        self.folder, self.network = folder, network
        self.judge = make_judge(network.config, network.questions, engine)
        self._count = 0

    def make(
        self,
        *,
        peers: Sequence[Made] = (),
        blocks: Sequence[Block] = (),
        miner: Address | None = None,
        data_dir: Path | None = None,
        **options: Any,
    ) -> Made:
        """Return a node that does not run yet; it holds `blocks` and will dial `peers`."""
        self._count += 1
        folder = data_dir or self.folder / f"node-{self._count}"
        store = Database.create_or_open(folder, self.network, "mini")
        if blocks:
            fill(store, self.judge, blocks)
        addresses = tuple(peer.address for peer in peers)
        plain = Options(miner, "127.0.0.1", get_free_port(), addresses, mdns=False)
        seed = keccak256(str(folder).encode())
        return Made(
            Node(store, self.network, Models.hold(self.network, self.judge), replace(plain, **options), seed), store
        )


@asynccontextmanager
async def running(*nodes: Made) -> AsyncIterator[None]:
    """Run nodes; stop them, and let go of their data directories, at the end."""
    async with trio.open_nursery() as nursery:
        for made in nodes:
            await nursery.start(made.node.run)
        yield
        nursery.cancel_scope.cancel()
    for made in nodes:
        made.store.close()
