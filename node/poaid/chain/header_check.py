"""The checks of a header that need no model, on its bytes: rules 1 to 3 and 7 to 13 of the page `block`, and its hash.

A node that fetches headers first does this for every one that a stranger offers, so it must be cheap. The pages decode
and encode through the SSZ library and make the hash of a tag anew each time; here the bytes that are hashed are those
that came, and the tags are hashed once. The rules without a hash are the pages' own functions.

Exports: `check_encoded_header`.
"""

from collections.abc import Sequence
from functools import lru_cache

from poai_spec.basics.containers import Header
from poai_spec.basics.notation import Hash32, Invalid, Milliseconds, keccak256, uint64_le, uint256_be
from poai_spec.chain.header import check_future, check_header_alone, check_height, check_median_time, check_parent
from poai_spec.chain.upgrades import Rules
from poai_spec.model.loss import is_below_target
from poai_spec.proof.difficulty import Chain, check_period_forward, check_target
from poai_spec.proof.epoch import compute_epoch_key, get_epoch, get_seed_height
from poaid.layout import decode_header, get_core_data

_CORE_TAG, _HEADER_TAG, _QUIZ_TAG, _L_HAT_TAG = (
    keccak256(tag) for tag in (b"PoAI/header-core/1", b"PoAI/header/1", b"PoAI/quiz/1", b"PoAI/l-hat/1")
)
_compute_epoch_key = lru_cache(maxsize=64)(compute_epoch_key)


def check_encoded_header(
    data: bytes, chain: Chain, hashes: Sequence[Hash32], rules: Rules, now: Milliseconds
) -> tuple[Header, Hash32]:
    """Decode a header and apply every rule that needs neither its body nor a model, in the order of the page `block`.

    Args:
        data: the header's encoding.
        chain: all its ancestors, genesis first; each passed these rules itself.
        hashes: their block hashes, in the same order.
        rules: those of its height.
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
    check_target(core, chain, rules)
    check_median_time(core, chain)
    check_period_forward(core, chain, rules)
    l_hat = _compute_l_hat(data, header, hashes, rules)
    if not is_below_target(l_hat, core.target):  # `check_l_hat`, without hashing again: it is what a flood consists of
        raise Invalid("work/l-hat", f"l_hat {l_hat:#x} is not below the target {core.target:#x}")
    check_future(core, rules, now)
    return header, keccak256(_HEADER_TAG + data)


def _compute_l_hat(data: bytes, header: Header, hashes: Sequence[Hash32], rules: Rules) -> int:
    """Return l_hat from the header's bytes: three hashes, and one an epoch."""
    epoch = get_epoch(header.core.height, rules)
    key = _compute_epoch_key(hashes[get_seed_height(epoch, rules)] if epoch else rules.genesis_seed, epoch)
    core_hash = keccak256(_CORE_TAG + get_core_data(data))
    seed = keccak256(_QUIZ_TAG + rules.digest + key + core_hash)
    return uint256_be(keccak256(_L_HAT_TAG + seed + uint64_le(header.loss) + header.trace_digest))
