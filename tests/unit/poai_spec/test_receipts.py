"""The page `receipts`: the bloom filter and the encoding."""

import rlp
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.basics.notation import keccak256
from poai_spec.execution.receipts import Receipt, compute_bloom, encode_receipt
from poai_spec.execution.world import Log

words = st.binary(min_size=32, max_size=32)
logs = st.lists(
    st.builds(Log, st.binary(min_size=20, max_size=20), st.lists(words, max_size=4).map(tuple), st.binary(max_size=40)),
    max_size=5,
)


def has(bloom: bytes, entry: bytes) -> bool:
    """Say whether a filter has an entry, its bits counted from the last byte."""
    digest = keccak256(entry)
    pairs = [(digest[at] << 8 | digest[at + 1]) % 2048 for at in (0, 2, 4)]
    return all(bloom[255 - bit // 8] >> bit % 8 & 1 for bit in pairs)


@given(logs)
def test_a_bloom_has_every_address_and_topic(events: list[Log]) -> None:
    bloom = compute_bloom(events)
    parts = [part for log in events for part in (log.address, *log.topics)]
    assert len(bloom) == 256 and all(has(bloom, part) for part in parts)
    assert sum(byte.bit_count() for byte in bloom) <= 3 * len(set(parts))


def test_known_bloom() -> None:
    """Of a transfer of mainnet's first tokens' form: an address and a topic give six bits at most."""
    topic = keccak256(b"Transfer(address,address,uint256)")
    assert topic.hex() == "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    bits = int.from_bytes(compute_bloom([Log(bytes(20), (topic,), b"data counts for nothing")]), "big")
    assert bits == int.from_bytes(compute_bloom([Log(bytes(20), (topic,), b"")]), "big")
    assert bits & int.from_bytes(compute_bloom([Log(bytes(20), (), b"")]), "big") != 0
    assert compute_bloom([]) == bytes(256)


@given(st.integers(0, 2), st.booleans(), st.integers(0, 2**64 - 1), logs)
def test_encoding(kind: int, success: bool, gas: int, events: list[Log]) -> None:
    encoded = encode_receipt(Receipt(kind, success, gas, tuple(events)))
    assert (encoded[0] >= 0xC0) if kind == 0 else encoded[0] == kind
    status, used, bloom, listed = rlp.decode(encoded[1:] if kind else encoded)
    assert status == (b"\x01" if success else b"")
    assert int.from_bytes(used, "big") == gas and bloom == compute_bloom(events)
    assert [(a, tuple(topics), data) for a, topics, data in listed] == [tuple(log) for log in events]
