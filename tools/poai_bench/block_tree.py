"""All blocks of a testnet, the chain's and those beside it, from the stores of its nodes: `poai bench tree`.

A node stores the blocks that it has replayed: those of the chain, those that were its head for a while, and its own.
All stores together hold every block that any node has built on, or tried to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from poai_spec.basics.containers import Header
from poai_spec.basics.encoding import decode
from poai_spec.basics.parameters import compute_network_id
from poaid.errors import NodeError
from poaid.store.database import Database


def run(data_dirs: Sequence[Path]) -> dict[str, Any]:
    """Read the blocks of all branches from the data directories of stopped nodes.

    Returns:
        `network_id`, and `blocks` in order of height: each one's hash, parent, height, miner, time stamp, and whether
        it is on the chain of the first node.

    Raises:
        NodeError: a folder has no chain, is in use, or is of another network than the first; or no block is there.
    """
    headers: dict[bytes, Header] = {}
    chain, networks = set[bytes](), list[bytes]()
    for data_dir in data_dirs:
        with Database.open(data_dir) as store:
            networks.append(compute_network_id(store.read_network().config))
            chain = chain or {row.block_hash for row in store.read_chain()}
            headers |= {stored.block_hash: decode(Header, stored.data) for stored in store.read_headers()}
    if len(set(networks)) > 1:
        raise NodeError("the folders are of different networks: give the nodes of one testnet")
    if not headers:
        raise NodeError("these nodes have no blocks beside genesis yet: let them mine first")
    ordered = sorted(headers.items(), key=lambda item: (item[1].core.height, item[1].core.timestamp, item[0]))
    blocks = [
        {
            "hash": block_hash.hex(),
            "parent": header.core.parent_hash.hex(),
            "height": header.core.height,
            "miner": header.core.miner.hex(),
            "timestamp": header.core.timestamp,
            "on_chain": block_hash in chain,
        }
        for block_hash, header in ordered
    ]
    return {"bench": "tree", "network_id": networks[0].hex(), "blocks": blocks}


def find_branches(result: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the branches beside the chain: each from the block after a fork to its end; the first child goes on."""
    branches: list[list[dict[str, Any]]] = []
    for block in result["blocks"]:
        if block["on_chain"]:
            continue
        longer = next((branch for branch in branches if branch[-1]["hash"] == block["parent"]), None)
        if longer is None:
            branches.append([block])
        else:
            longer.append(block)
    return branches


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return who mined how much, and how long the branches beside the chain are."""
    table = Table("miner", "on the chain", "beside it", title="Blocks in the stores of all nodes")
    for miner in list_miners(result):
        counts = (sum(b["miner"] == miner and b["on_chain"] is on for b in result["blocks"]) for on in (True, False))
        table.add_row(f"0x{miner[:8]}", *map(str, counts))
    lengths = Table("blocks", "branches", title="Branches beside the chain, by length")
    found = [len(branch) for branch in find_branches(result)]
    for length in sorted(set(found)):
        lengths.add_row(str(length), str(found.count(length)))
    return [table, lengths]


def list_miners(result: dict[str, Any]) -> list[str]:
    """Return the miners by the number of their blocks, most first."""
    miners = [block["miner"] for block in result["blocks"]]
    return sorted(set(miners), key=lambda miner: (-miners.count(miner), miner))
