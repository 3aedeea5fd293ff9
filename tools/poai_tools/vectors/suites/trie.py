"""Vectors of the page `trie`: roots of maps and lists, and proofs, good and hostile."""

from collections.abc import Mapping
from typing import Any

import rlp

from poai_spec.basics.notation import keccak256
from poai_spec.execution.trie import (
    EMPTY_TRIE_ROOT,
    check_proof,
    compute_list_root,
    compute_trie_root,
    make_proof,
    pack_path,
)
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.kinds import HASH32, Array, Hex, Optional, RecordKind, require
from poai_tools.vectors.registry import Function, register

STRING = Hex(1024, exact=False)
ENTRIES = Array(RecordKind({"key": STRING, "value": STRING}))


def _read(entries: Any) -> dict[bytes, bytes]:
    found = {entry["key"]: entry["value"] for entry in entries}
    require(len(found) == len(entries), "entries: a key occurs twice")
    return found


COMPUTE_TRIE_ROOT = register(
    Function(
        suite="trie",
        name="compute_trie_root",
        page="trie",
        summary="the root of a map, whatever the order of its entries; an empty value stands for no entry",
        input=RecordKind({"entries": ENTRIES}),
        output=RecordKind({"root": HASH32}),
        run=lambda i: {"root": compute_trie_root(_read(i["entries"]))},
    )
)
COMPUTE_LIST_ROOT = register(
    Function(
        suite="trie",
        name="compute_list_root",
        page="trie",
        summary="the root of a list, keyed by the RLP of the indexes",
        input=RecordKind({"values": Array(STRING)}),
        output=RecordKind({"root": HASH32}),
        run=lambda i: {"root": compute_list_root(i["values"])},
    )
)
MAKE_PROOF = register(
    Function(
        suite="trie",
        name="make_proof",
        page="trie",
        summary="the nodes that show a key's value, or that it has none, from the root on",
        input=RecordKind({"entries": ENTRIES, "key": STRING}),
        output=RecordKind({"proof": Array(Hex(2048, exact=False))}),
        run=lambda i: {"proof": make_proof(_read(i["entries"]), i["key"])},
    )
)
CHECK_PROOF = register(
    Function(
        suite="trie",
        name="check_proof",
        page="trie",
        summary="what a proof shows: a value, empty for none, null if it shows nothing",
        input=RecordKind({"root": HASH32, "key": STRING, "proof": Array(Hex(2048, exact=False))}),
        output=RecordKind({"value": Optional(STRING)}),
        run=lambda i: {"value": check_proof(i["root"], i["key"], i["proof"])},
    )
)
PETS = {b"do": b"verb", b"dog": b"puppy", b"doge": b"coin", b"horse": b"stallion"}
SHORT = ("nodes shorter than 32 bytes", "a client that hashes every node has another root")


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_roots(), _lists(), _proofs(), _checks()]


def _list(entries: Mapping[bytes, bytes]) -> list[dict[str, bytes]]:
    return [{"key": key, "value": value} for key, value in entries.items()]


def _draw(count: int) -> dict[bytes, bytes]:
    drbg = derive("trie", "drawn")
    keys = [bytes(drbg.below(256) for _ in range(32)) for _ in range(count)]
    return {key: bytes(drbg.below(256) for _ in range(1 + drbg.below(60))) for key in keys}


def _roots() -> CaseFile:
    drawn = _draw(40)
    maps: dict[str, tuple[Mapping[bytes, bytes], str, tuple[str, ...]]] = {
        "empty": ({}, "no entry", ()),
        "pets": (PETS, "keys that are prefixes of others", ("short",)),
        "pets-reversed": (dict(reversed(PETS.items())), "the order does not matter", ("short",)),
        "empty-value": ({**PETS, b"cat": b""}, "an empty value is no entry", ("short",)),
        "empty-key": ({b"": b"x"}, "a leaf without nibbles", ()),
        "empty-key-and-another": ({b"": b"x", b"\x10": b"y"}, "a value in the root's branch", ("short",)),
        "even-and-odd": (
            {b"\x12\x34": b"a", b"\x12\x35": b"b", b"\x12\x44": b"c"},
            "paths of both lengths",
            ("short",),
        ),
        "node-of-31": ({b"\x00": b"a" * 26, b"\x10": b"b" * 27}, "leaves of 29 and 30 bytes", ("short",)),
        "node-of-32": ({b"\x00": b"a" * 28, b"\x10": b"b" * 29}, "leaves of 31 and 32 bytes", ("short",)),
        "one-byte": ({b"\x00": b"\x00", b"\x01": b"\x7f", b"\x02": b"\x80"}, "bytes that RLP writes in two ways", ()),
        "drawn-40": (drawn, "keys of 32 bytes", ()),
    }
    cases = [Case(name, comment, {"entries": _list(map_)}, flags) for name, (map_, comment, flags) in maps.items()]
    how = "By hand; drawn ones: keys of 32 integers below 256, then values of 1 + n bytes, of the DRBG of `trie/drawn`."
    return CaseFile(COMPUTE_TRIE_ROOT, how, tuple(cases), {"short": SHORT})


def _lists() -> CaseFile:
    rows: dict[str, list[bytes]] = {
        "none": [],
        "one": [b"a"],
        "padded": [b"a", b""],
        "two": [b"a", b"b"],
        "sixteen": [bytes([n]) * 40 for n in range(16)],
        "beyond-128": [bytes([n]) * 5 for n in range(131)],
    }
    cases = [Case(name, f"{len(values)} values", {"values": values}) for name, values in rows.items()]
    return CaseFile(COMPUTE_LIST_ROOT, "Chosen by hand.", tuple(cases))


def _proofs() -> CaseFile:
    drawn = _draw(20)
    rows: dict[str, tuple[Mapping[bytes, bytes], bytes]] = {
        "empty": ({}, b"key"),
        "in-a-branch": (PETS, b"do"),
        "leaf": (PETS, b"doge"),
        "absent-beside": (PETS, b"cat"),
        "absent-below": (PETS, b"horses"),
        "absent-above": (PETS, b"d"),
        "absent-in-an-extension": (PETS, b"e"),
        "drawn": (drawn, sorted(drawn)[3]),
        "drawn-absent": (drawn, bytes(32)),
    }
    cases = [Case(name, repr(key), {"entries": _list(map_), "key": key}) for name, (map_, key) in rows.items()]
    how = "By hand; drawn entries as in compute_trie_root."
    return CaseFile(MAKE_PROOF, how, tuple(cases))


def _checks() -> CaseFile:
    drawn = _draw(20)
    key, root = sorted(drawn)[3], compute_trie_root(_draw(20))
    proof = make_proof(drawn, key)
    cases = [
        Case("value", "a good proof", {"root": root, "key": key, "proof": proof}),
        Case("reversed", "in any order", {"root": root, "key": key, "proof": proof[::-1]}),
        Case("more-nodes", "others are not looked at", {"root": root, "key": key, "proof": [*proof, b"\xff", b""]}),
        Case("absent", "no such key", {"root": root, "key": bytes(32), "proof": make_proof(drawn, bytes(32))}),
        Case("other-key", "a proof of another key", {"root": root, "key": bytes(32), "proof": proof[:1]}),
        Case("no-nodes", "nothing", {"root": root, "key": key, "proof": []}),
        Case("no-nodes-empty-root", "the empty trie", {"root": EMPTY_TRIE_ROOT, "key": key, "proof": []}),
        Case("without-the-root", "first node missing", {"root": root, "key": key, "proof": proof[1:]}),
        Case("without-the-end", "last node missing", {"root": root, "key": key, "proof": proof[:-1]}),
        Case("bit", "a bit of the last node", {"root": root, "key": key, "proof": [*proof[:-1], _flip(proof[-1])]}),
    ]
    hostile: dict[str, Any] = {
        "a-string": b"text",
        "no-items": [],
        "three-items": [b"\x20", b"v", b"w"],
        "sixteen-items": [b""] * 16,
        "path-is-a-list": [[b"\x20"], b"v"],
        "no-path": [b"", b"v"],
        "flag-4": [b"\x40", b"v"],
        "value-is-a-list": [b"\x20", [b"v"]],
        "branch-value-is-a-list": [b""] * 16 + [[b"v"]],
        "child-is-no-node": [b"\x00", b"v" * 31],
        "path-pad-is-not-zero": [b"\x2f", b"v"],
        "extension-without-nibbles": [b"\x00", [b"\x20", b"v"]],
        "deep": [b"\x00", [b"\x00", [b"\x00", [b"\x00", [b"\x00", [b"\x00", [b"\x00", [b"\x00", [b"\x20", b"v"]]]]]]]]],
    }
    for name, node in hostile.items():
        encoded = bytes(rlp.encode(node))
        case = {"root": keccak256(encoded), "key": b"", "proof": [encoded]}
        cases.append(Case(name, "a root made for a node that is not well formed", case, ("hostile",)))
    leaf = bytes(rlp.encode([pack_path(b"\x01\x02", leaf=True), b"v"]))
    for name, wanted in {
        "leaf": b"\x12",
        "leaf-longer": b"\x12\x34",
        "leaf-shorter": b"",
        "leaf-other": b"\x13",
    }.items():
        cases.append(Case(name, "one leaf", {"root": keccak256(leaf), "key": wanted, "proof": [leaf]}))
    broken = b"\xf8\x01\x00"
    cases.append(Case("no-rlp", "not the one encoding", {"root": keccak256(broken), "key": b"", "proof": [broken]}))
    flags = {"hostile": ("nodes that no honest trie has", "a client that trusts a node's form reads beyond it")}
    return CaseFile(CHECK_PROOF, "By hand; drawn entries as in compute_trie_root.", tuple(cases), flags)


def _flip(node: bytes) -> bytes:
    return node[:-1] + bytes([node[-1] ^ 1])
