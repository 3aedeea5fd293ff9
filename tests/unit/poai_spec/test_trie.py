"""The page `trie` against the library `trie`, and proofs that lie."""

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from poai_spec.basics.notation import keccak256
from poai_spec.execution.trie import (
    EMPTY_TRIE_ROOT,
    RlpError,
    check_proof,
    compute_list_root,
    compute_trie_root,
    decode_rlp,
    make_proof,
    pack_path,
)

short = st.binary(max_size=3)
entries = st.dictionaries(short | st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=40), max_size=20)
items = st.recursive(st.binary(max_size=70), lambda inner: st.lists(inner, max_size=5), max_leaves=20)


def make_library_trie(content: dict[bytes, bytes]) -> HexaryTrie:
    trie = HexaryTrie({})
    for key, value in content.items():
        trie[key] = value
    return trie


@settings(deadline=None)
@given(entries)
def test_roots_are_the_librarys(content: dict[bytes, bytes]) -> None:
    assert compute_trie_root(content) == make_library_trie(content).root_hash


@settings(deadline=None)
@given(entries, short)
def test_every_proof_shows_its_key(content: dict[bytes, bytes], absent: bytes) -> None:
    root = compute_trie_root(content)
    for key in {*content, absent}:
        proof = make_proof(content, key)
        assert check_proof(root, key, proof) == content.get(key, b"")
        if content:
            nodes = make_library_trie(content).get_proof(key)  # type: ignore[no-untyped-call]
            assert [rlp.encode(node) for node in nodes][: len(proof)] == proof


@settings(deadline=None)
@given(entries.filter(len), st.data())
def test_a_proof_without_one_of_its_nodes_shows_nothing(content: dict[bytes, bytes], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(content)))
    proof = make_proof(content, key)
    missing = data.draw(st.integers(0, len(proof) - 1))
    assert check_proof(compute_trie_root(content), key, proof[:missing] + proof[missing + 1 :]) is None


@settings(deadline=None)
@given(entries.filter(len), st.data())
def test_a_changed_byte_never_shows_another_value(content: dict[bytes, bytes], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(content)))
    proof = make_proof(content, key)
    at = data.draw(st.integers(0, len(proof) - 1))
    place = data.draw(st.integers(0, len(proof[at]) - 1))
    proof[at] = proof[at][:place] + bytes([proof[at][place] ^ data.draw(st.integers(1, 255))]) + proof[at][place + 1 :]
    assert check_proof(compute_trie_root(content), key, proof) is None


def show(node: object, key: bytes) -> bytes | None:
    """Return what a proof of one node, which its root commits to, shows."""
    encoded = bytes(rlp.encode(node))
    return check_proof(keccak256(encoded), key, [encoded])


@pytest.mark.parametrize(
    "node",
    [
        b"text",
        [],
        [b"\x20"],
        [b"\x20", b"v", b"w"],
        [b"", b"v"],  # no path at all
        [[b"\x20"], b"v"],  # a list for a path
        [b"\x40", b"v"],  # a flag above 3
        [b"\x20", [b"v"]],  # a list for a value
        [b""] * 16,
        [b""] * 18,
        [b""] * 16 + [[b"v"]],
        [b"\x00", b"31 bytes, neither hash nor node"],
    ],
)
def test_nodes_that_are_not_well_formed_show_nothing(node: object) -> None:
    assert show(node, b"") is None


def test_well_formed_nodes_show_what_they_hold() -> None:
    leaf = [pack_path(b"\x01\x02", leaf=True), b"v"]
    assert show(leaf, b"\x12") == b"v"
    assert show(leaf, b"\x13") == show(leaf, b"\x12\x34") == show(leaf, b"") == b""
    branch = [b""] * 1 + [[pack_path(b"\x02", leaf=True), b"w"]] + [b""] * 14 + [b"here"]
    assert (show(branch, b""), show(branch, b"\x12"), show(branch, b"\x22")) == (b"here", b"w", b"")
    assert show([pack_path(b"\x01", leaf=False), branch], b"\x21") == b""


def test_an_unknown_root_and_the_empty_one() -> None:
    assert check_proof(keccak256(b"unknown"), b"k", []) is None
    assert check_proof(EMPTY_TRIE_ROOT, b"k", []) == b""
    assert check_proof(keccak256(b"\xff"), b"k", [b"\xff"]) is None  # no RLP


def test_extensions_without_nibbles_end() -> None:
    """Each step uses up a node, so a chain of them is as long as the proof and no longer."""
    node: object = [b"\x20", b"v"]
    for _ in range(7):
        node = [b"\x00", node]
    assert show(node, b"") == b"v"
    assert show([b"\x00", node], b"") is None  # deeper than RLP_DEPTH


def test_list_roots_are_tries_of_indexes() -> None:
    values = [n.to_bytes(2, "big") * n for n in range(1, 300)]
    assert compute_list_root(values) == make_library_trie({rlp.encode(n): v for n, v in enumerate(values)}).root_hash


@given(items)
def test_rlp_round_trip(item: object) -> None:
    assert decode_rlp(bytes(rlp.encode(item)), depth=32) == item


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_or_are_the_one_encoding(encoded: bytes) -> None:
    try:
        item = decode_rlp(encoded)
    except RlpError:
        return
    assert rlp.encode(item) == encoded


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ("", "missing"),
        ("81", "missing"),
        ("8100", "longer form"),
        ("817f", "longer form"),
        ("b800", "longer form"),
        ("b837" + "00" * 55, "longer form"),
        ("b90038" + "00" * 56, "longer form"),
        ("bfffffffffffffffff", "missing"),
        ("ffffffffffffffffff", "missing"),
        ("c101ff", "left over"),
        ("c18180", "beyond its list"),
        ("c2c1", "missing"),
    ],
)
def test_refused_encodings(encoded: str, message: str) -> None:
    with pytest.raises(RlpError, match=message):
        decode_rlp(bytes.fromhex(encoded))


def test_the_depth_is_counted_in_lists() -> None:
    nested = b"\xc0"
    for _ in range(7):
        nested = bytes([0xC0 + len(nested)]) + nested
    decode_rlp(nested)
    with pytest.raises(RlpError, match="too deep"):
        decode_rlp(bytes([0xC0 + len(nested)]) + nested)
