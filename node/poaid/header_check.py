"""The checks of a header that need no model, on its bytes: rules 1 to 3 and 7 to 13 of the page `block`, and its hash.

A node that fetches headers first does this for every one that a stranger offers, so it must be cheap. The pages decode
and encode through the SSZ library and make the hash of a tag anew each time; here the fixed layout of a header is read
with `struct`, the bytes that are hashed are those that came, and the tags are hashed once. The rules without a hash are
the pages' own functions.

Exports: `HEADER_BYTES`, `decode_header`, `encode_header`, `check_encoded_header`.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

from poai_spec.containers import Header, HeaderCore
from poai_spec.difficulty import Chain, check_period_forward, check_target
from poai_spec.epoch import compute_epoch_key, get_epoch, get_seed_height
from poai_spec.header import check_future, check_header_alone, check_height, check_median_time, check_parent
from poai_spec.loss import is_below_target
from poai_spec.notation import Hash32, Invalid, Malformed, Milliseconds, keccak256, uint64_le, uint256_be
from poai_spec.parameters import Config, compute_network_id

_LAYOUT = struct.Struct("<IQ32sQ32s20s32s32sQQ32s")
_CORE_BYTES = 176
HEADER_BYTES = _LAYOUT.size
"""216: a header has no field of variable size, so every string of this length is one."""

_CORE_TAG, _HEADER_TAG, _QUIZ_TAG, _L_HAT_TAG = (
    keccak256(tag) for tag in (b"PoAI/header-core/1", b"PoAI/header/1", b"PoAI/quiz/1", b"PoAI/l-hat/1")
)
_compute_epoch_key = lru_cache(maxsize=64)(compute_epoch_key)


def decode_header(data: bytes) -> Header:
    """Return what `poai_spec.encoding.decode(Header, data)` returns, about ten times faster.

    Raises:
        Malformed: `encoding/undecodable`, unless there are exactly 216 bytes.
    """
    try:
        version, height, parent, timestamp, target, miner, body, state, nonce, loss, trace = _LAYOUT.unpack(data)
    except struct.error as error:
        raise Malformed("encoding/undecodable", f"{len(data)} bytes are no Header: {error}") from error
    number = int.from_bytes(target, "little")
    return Header(HeaderCore(version, height, parent, timestamp, number, miner, body, state, nonce), loss, trace)


def encode_header(header: Header) -> bytes:
    """Return what `poai_spec.encoding.encode(header)` returns; the caller guarantees that every field is in range."""
    c = header.core
    target = c.target.to_bytes(32, "little")
    core = c.version, c.height, c.parent_hash, c.timestamp, target, c.miner, c.body_root, c.state_root, c.nonce
    return _LAYOUT.pack(*core, header.loss, header.trace_digest)


def check_encoded_header(
    data: bytes, chain: Chain, hashes: Sequence[Hash32], config: Config, now: Milliseconds
) -> tuple[Header, Hash32]:
    """Decode a header and apply every rule that needs neither its body nor a model, in the order of the page `block`.

    Args:
        data: the header's encoding.
        chain: all its ancestors, genesis first; each passed these rules itself.
        hashes: their block hashes, in the same order.
        config: the network.
        now: the local clock, ms since 1970.

    Returns:
        The header and its block hash.

    Raises:
        Malformed: `encoding/undecodable`.
        Invalid: `header/version`, `body/transactions-not-active`, `header/parent`, `header/height`,
            `difficulty/target`, `header/median-time`, `difficulty/period-not-forward`, `work/l-hat`.
        NotYet: `header/future`.
    """
    header = decode_header(data)
    core = header.core
    check_header_alone(header)
    if core.parent_hash != hashes[len(chain) - 1]:
        check_parent(core, chain)
        raise AssertionError("the page accepts the parent: the hashes given are not the chain's")
    check_height(core, chain)
    check_target(core, chain, config)
    check_median_time(core, chain)
    check_period_forward(core, chain, config)
    l_hat = _compute_l_hat(data, header, hashes, config)
    if not is_below_target(l_hat, core.target):  # `check_l_hat`, without hashing again: it is what a flood consists of
        raise Invalid("work/l-hat", f"l_hat {l_hat:#x} is not below the target {core.target:#x}")
    check_future(core, config, now)
    return header, keccak256(_HEADER_TAG + data)


def _compute_l_hat(data: bytes, header: Header, hashes: Sequence[Hash32], config: Config) -> int:
    """Return l_hat from the header's bytes: three hashes, and one an epoch."""
    epoch = get_epoch(header.core.height, config)
    key = _compute_epoch_key(hashes[get_seed_height(epoch, config)] if epoch else config.genesis_seed, epoch)
    core_hash = keccak256(_CORE_TAG + data[:_CORE_BYTES])
    seed = keccak256(_QUIZ_TAG + compute_network_id(config) + key + core_hash)
    return uint256_be(keccak256(_L_HAT_TAG + seed + uint64_le(header.loss) + header.trace_digest))
