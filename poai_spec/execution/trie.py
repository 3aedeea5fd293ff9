# # Trie  [generated from specs/execution/trie.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Ethereum's Merkle-Patricia trie: one hash, the *root*, commits to a map from keys to values, and a short proof shows one
# entry under it. A header commits through such roots to the accounts, to each account's storage, to a block's
# transactions and to its receipts. The trie of the three keys `do`, `dog` and `doge`:

# ```text
# extension 646f  (the nibbles that all keys share)
# └─ branch       (value of "do" here)
#    └─ 6: extension 7
#       └─ branch (value of "dog" here)
#          └─ 6: leaf 5, value of "doge"



from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

import rlp

from poai_spec.basics.notation import Hash32, keccak256


# ## RLP

# Nodes, accounts, transactions and receipts are encoded with RLP (yellow paper, appendix B). RLP encodes a *string* of bytes
# or a *list* of strings and lists. A string of one byte below 0x80 is that byte. Another string of n <= 55 bytes is the
# byte 0x80 + n and the string; a longer one is the byte 0xb7 + l, then n in l bytes, big-endian without leading zeros,
# then the string. A list is the encodings of its items, one after another, behind the same prefix for their total length,
# with 0xc0 for 0x80 and 0xf7 for 0xb7. An integer is the string of its bytes, big-endian without leading zeros; 0 is the
# empty string. A decoder refuses every other encoding of a value: a one-byte string below 0x80 with a prefix, a length that
# fits the shorter form, leading zeros of a length, missing or left-over bytes.

# ## Constants and types

# `RLP_DEPTH` bounds how deep lists lie in lists: four in a transaction, two in a node. A decoder that calls itself for
# each level could be made to run out of stack by a megabyte of 0xc1's.


RLP_DEPTH = 8
Item: TypeAlias = bytes | list["Item"]  # what RLP encodes
Node: TypeAlias = bytes | list["Node"]  # a node as RLP takes it: the empty string, or a list of 2 or 17

EMPTY_TRIE_ROOT: Hash32 = keccak256(rlp.encode(b""))  # 56e81f17...63b421: the root of a trie without entries


# ## Decoding

# ### `RlpError`


class RlpError(Exception):
    """Bytes are no RLP, or another encoding of a value than the one."""


# ### `decode_rlp`


def decode_rlp(encoded: bytes, depth: int = RLP_DEPTH) -> Item:
    """Return the string or list that some bytes encode, all of them.

    Args:
        encoded: the bytes.
        depth: how deep lists may lie in each other.

    Raises:
        RlpError: they are no RLP, or not the one encoding of a value.
    """
    item, end = decode_item(encoded, 0, depth)
    if end != len(encoded):
        raise RlpError("bytes are left over")
    return item


# ### `decode_item`


def decode_item(encoded: bytes, start: int, depth: int) -> tuple[Item, int]:
    """Return the item that begins at a place, and where it ends.

    Raises:
        RlpError: see `decode_rlp`.
    """
    begin, end, is_list = read_prefix(encoded, start)
    if not is_list:
        return encoded[begin:end], end
    if depth == 0:
        raise RlpError("lists lie too deep in each other")
    items = []
    while begin < end:
        item, begin = decode_item(encoded, begin, depth - 1)
        items.append(item)
    if begin != end:
        raise RlpError("an item goes on beyond its list")
    return items, end


# ### `read_prefix`


def read_prefix(encoded: bytes, start: int) -> tuple[int, int, bool]:
    """Return where the content of an item begins and ends, and whether it is a list.

    Raises:
        RlpError: see `decode_rlp`.
    """
    if start >= len(encoded):
        raise RlpError("bytes are missing")
    first = encoded[start]
    if first < 0x80:
        return start, start + 1, False
    is_list, begin = first >= 0xC0, start + 1
    size = first - (0xC0 if is_list else 0x80)
    if size > 55:
        width = size - 55
        digits, begin = encoded[begin : begin + width], begin + width
        size = int.from_bytes(digits, "big")
        if size <= 55 or digits[0] == 0:
            raise RlpError("a length in a longer form than it needs")
    if begin + size > len(encoded):
        raise RlpError("bytes are missing")
    if size == 1 and not is_list and encoded[begin] < 0x80:
        raise RlpError("a byte in a longer form than it needs")
    return begin, begin + size, is_list


# ## Nodes

# A key is read as nibbles, the high half of each byte first.

# ### `split_nibbles`


def split_nibbles(key: bytes) -> bytes:
    """Return the nibbles of a key, one a byte."""
    return bytes(nibble for byte in key for nibble in (byte >> 4, byte & 15))


# ### `pack_path`


def pack_path(nibbles: bytes, *, leaf: bool) -> bytes:
    """Return nibbles two a byte, behind a nibble that says whether they end in a leaf (2) and are odd in number (1).

    Reference: Ethereum yellow paper, appendix C ("hex-prefix").
    """
    odd = len(nibbles) % 2
    whole = bytes([2 * leaf + odd]) + bytes(1 - odd) + nibbles
    return bytes(16 * high + low for high, low in zip(whole[::2], whole[1::2], strict=True))


# ### `count_common`


def count_common(first: bytes, last: bytes, start: int) -> int:
    """Return how many nibbles from `start` on two keys share."""
    end = min(len(first), len(last))
    return next((n for n in range(start, end) if first[n] != last[n]), end) - start


# The node of the entries that agree in their first `used` nibbles is a *leaf* for one entry, an *extension* where all
# go on with the same nibbles, else a *branch* of sixteen references and the value of the key that ends there.

# ### `make_node`


def make_node(entries: Sequence[tuple[bytes, bytes]], used: int = 0) -> Node:
    """Return the node of some entries.

    Args:
        entries: (nibbles of the key, value), in ascending order of the keys; no value is empty.
        used: nibbles that the path from the root to this node has used up.
    """
    if not entries:
        return b""
    first, last = entries[0][0], entries[-1][0]
    if len(entries) == 1:
        return [pack_path(first[used:], leaf=True), entries[0][1]]
    shared = count_common(first, last, used)
    if shared:
        child = make_reference(make_node(entries, used + shared))
        return [pack_path(first[used : used + shared], leaf=False), child]
    ends = len(first) == used
    below = {nibble: list(group) for nibble, group in groupby(entries[ends:], key=lambda entry: entry[0][used])}
    children = [make_reference(make_node(below.get(nibble, []), used + 1)) for nibble in range(16)]
    return [*children, entries[0][1] if ends else b""]


# ### `make_reference`


def make_reference(node: Node) -> Node:
    """Return what a parent holds of a node: itself where its RLP has less than 32 bytes, else its Keccak."""
    encoded = bytes(rlp.encode(node))
    return node if len(encoded) < 32 else keccak256(encoded)


# ## Roots

# ### `compute_trie_root`


def compute_trie_root(entries: Mapping[bytes, bytes]) -> Hash32:
    """Return the root of a map; an empty value stands for no entry.

    Keys are any strings. Where each is a prefix of the next, the nodes lie as deep as the longest has nibbles; every
    key of this specification is a hash or an index.

    Reference: Ethereum yellow paper, appendix D.
    """
    ordered = sorted((split_nibbles(key), value) for key, value in entries.items() if value)
    return keccak256(bytes(rlp.encode(make_node(ordered))))


# ### `compute_list_root`


def compute_list_root(values: Sequence[bytes]) -> Hash32:
    """Return the root of a list: the trie that maps `rlp(index)` to each value, as Ethereum has it for transactions."""
    return compute_trie_root({bytes(rlp.encode(index)): value for index, value in enumerate(values)})


# ```pycon
# >>> from poai_spec.execution.trie import EMPTY_TRIE_ROOT, compute_list_root, compute_trie_root
# >>> compute_trie_root({}) == compute_list_root([]) == EMPTY_TRIE_ROOT
# True
# >>> compute_trie_root({b"do": b"verb", b"dog": b"puppy", b"doge": b"coin", b"horse": b"stallion"}).hex()
# '5991bb8c6514148a29db676a14ac506cd2cd5775ace63c30a4fe457715e9ac84'
# >>> compute_list_root([b"a", b""]) == compute_list_root([b"a"])  # an empty value leaves no trace
# True


# ## Proofs

# A proof is the RLP of every node from the root to the one that ends the search, without those that lie inside their
# parent.

# ### `make_proof`


def make_proof(entries: Mapping[bytes, bytes], key: bytes) -> list[bytes]:
    """Return the proof of a key: of its value, or that it has none."""
    found = sorted((split_nibbles(other), value) for other, value in entries.items() if value)
    path, used, proof = split_nibbles(key), 0, []
    while True:
        node = make_node(found, used)
        encoded = bytes(rlp.encode(node))
        if used == 0 or len(encoded) >= 32:
            proof.append(encoded)
        if len(found) < 2:
            return proof
        used += count_common(found[0][0], found[-1][0], used) or 1
        found = [entry for entry in found if entry[0][:used] == path[:used]]
        if not found or len(path) < used:
            return proof


# ### `find_value`


def find_value(node: Node, path: bytes, proof: Mapping[Hash32, bytes]) -> bytes | None:
    """Follow a path through the nodes of a proof; return the value at its end, empty where there is none.

    Returns:
        The value, or None where the proof lacks a node or holds one that is not well formed.
    """
    while isinstance(node, list):
        if len(node) == 17:
            if not path:
                return node[16] if isinstance(node[16], bytes) else None
            node, path = node[path[0]], path[1:]
        elif len(node) == 2 and isinstance(node[0], bytes) and node[0]:
            nibbles = split_nibbles(node[0])
            flag, rest = nibbles[0], nibbles[1 if nibbles[0] & 1 else 2 :]
            if flag > 3:
                return None
            if flag & 2:
                return (node[1] if isinstance(node[1], bytes) else None) if rest == path else b""
            if path[: len(rest)] != rest:
                return b""
            node, path = node[1], path[len(rest) :]
        else:
            return None
        if isinstance(node, bytes) and len(node) == 32:
            encoded = proof.get(node)
            if encoded is None:
                return None
            node = decode_node(encoded)
    return b"" if node == b"" else None


# ### `decode_node`


def decode_node(encoded: bytes) -> Node:
    """Return a node from its RLP; an empty list, which is no node, where it does not decode."""
    try:
        return decode_rlp(encoded)
    except RlpError:
        return []


# ### `check_proof`


def check_proof(root: Hash32, key: bytes, proof: Sequence[bytes]) -> bytes | None:
    """Return what a proof shows: the value of a key under a root, the empty string for none, None if it shows nothing.

    Nodes that the search does not need are not looked at. The work grows with the bytes of the proof alone: every step
    uses up a node that a hash or its parent holds.
    """
    nodes = {keccak256(encoded): encoded for encoded in proof}
    if root not in nodes:
        return b"" if root == EMPTY_TRIE_ROOT else None
    return find_value(decode_node(nodes[root]), split_nibbles(key), nodes)


# ```pycon
# >>> from poai_spec.execution.trie import check_proof, make_proof
# >>> pets = {b"do": b"verb", b"dog": b"puppy", b"horse": b"stallion"}
# >>> root = compute_trie_root(pets)
# >>> check_proof(root, b"dog", make_proof(pets, b"dog"))
# b'puppy'
# >>> check_proof(root, b"cat", make_proof(pets, b"cat"))
# b''
# >>> check_proof(root, b"dog", make_proof(pets, b"horse")[:1]) is None
# True


# ## Rationale

# - **Rebuilt from all entries**, because that is the shortest definition. A client keeps the nodes and hashes those that
#   changed; the root depends on the content alone, not on the order of changes.
# - **A list's root does not fix its length**: `[a]` and `[a, empty]` have one root. Only the hash of the SSZ bytes says
#   whether a body is the one committed to (page [body](../chain/body.md)).
