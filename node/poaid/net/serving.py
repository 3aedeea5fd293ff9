"""Answers to requests for headers and blocks, put together from stored encodings: nothing is decoded to be sent.

The requests have passed the checks of the page `networking`, which bound what an answer costs.
"""

from collections.abc import Sequence

from poai_spec.basics.notation import Hash32
from poai_spec.chain.networking import BlocksRequest, HeadersRequest
from poaid.chain.chain_state import ChainState

OFFSET_BYTES = 4
"""Of an SSZ offset."""


def answer_headers(chain: ChainState, request: HeadersRequest) -> bytes | None:
    """Return the encoded `Headers`: of the chain, after the first hash of the locator that is on it.

    Returns:
        None if none is: the answer is `Result.NOT_AT_HAND`.
    """
    common = chain.tree.find_locator(request.locator)
    if common is None:
        return None
    found = list[bytes]()
    for height in range(common.height + 1, min(chain.head.height, common.height + request.count) + 1):
        entry = chain.tree.get_main(height)
        found.append(entry.data)
        if entry.hash == request.stop:
            break
    return OFFSET_BYTES.to_bytes(OFFSET_BYTES, "little") + b"".join(found)


def answer_blocks(chain: ChainState, request: BlocksRequest) -> bytes:
    """Return the encoded `Blocks`: those that were replayed here and are stored whole, and which are not."""
    blocks, lacking = list[bytes](), list[Hash32]()
    for block_hash in request.hashes:
        entry = chain.tree.entries.get(block_hash)
        data = None if entry is None or block_hash in chain.assumed else chain.get_block_data(entry)
        if data is None:
            lacking.append(block_hash)
        else:
            blocks.append(data)
    listed = _encode_list(blocks)
    first = 2 * OFFSET_BYTES
    offsets = (first, first + len(listed))
    return b"".join(offset.to_bytes(OFFSET_BYTES, "little") for offset in offsets) + listed + b"".join(lacking)


def _encode_list(items: Sequence[bytes]) -> bytes:
    """Return the SSZ encoding of a list whose items have a variable size."""
    position, offsets = OFFSET_BYTES * len(items), list[bytes]()
    for item in items:
        offsets.append(position.to_bytes(OFFSET_BYTES, "little"))
        position += len(item)
    return b"".join((*offsets, *items))
