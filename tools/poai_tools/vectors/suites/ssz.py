"""Vectors of the page `encoding`: each container to bytes and back, and bytes that are none; their hashes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from poai_spec.basics.containers import (
    Block,
    Body,
    Header,
    HeaderCore,
    compute_block_hash,
    compute_body_root,
    compute_core_hash,
)
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import uint32_le
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange
from poai_spec.chain.upgrades import MAX_UPGRADES, Upgrade, UpgradeList, make_change
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import HASH32, Hex, RecordKind
from poai_tools.vectors.network import get_manifest, make_network, make_upgrades
from poai_tools.vectors.records import BODY, CONTAINERS, HEADER, HEADER_CORE, Container
from poai_tools.vectors.registry import Function, register

DATA = Hex(2**20, exact=False)


def register_encode(name: str, container: Container, suite: str = "ssz", page: str = "encoding") -> Function:
    """Register the function that encodes a container."""
    return register(
        Function(
            suite=suite,
            name=f"encode_{name}",
            page=page,
            summary=f"the SSZ serialisation of a {container.name}",
            input=RecordKind({"value": container}),
            output=RecordKind({"data": DATA}),
            run=lambda i: {"data": encode(i["value"])},
        )
    )


def register_decode(name: str, container: Container, suite: str = "ssz", page: str = "encoding") -> Function:
    """Register the function that decodes a container."""
    return register(
        Function(
            suite=suite,
            name=f"decode_{name}",
            page=page,
            summary=f"the {container.name} that bytes encode; refuse bytes that encode none",
            input=RecordKind({"data": DATA}),
            output=RecordKind({"value": container}),
            run=lambda i: {"value": decode(container.kind, i["data"])},
        )
    )


def _register_hash(name: str, container: Container, run: Callable[[Any], bytes], summary: str) -> Function:
    return register(
        Function(
            suite="ssz",
            name=name,
            page="containers",
            summary=summary,
            input=RecordKind({"value": container}),
            output=RecordKind({"hash": HASH32}),
            run=lambda i: {"hash": run(i["value"])},
        )
    )


ENCODE = {name: register_encode(name, container) for name, container in CONTAINERS.items()}
DECODE = {name: register_decode(name, container) for name, container in CONTAINERS.items()}
COMPUTE_CORE_HASH = _register_hash("compute_core_hash", HEADER_CORE, compute_core_hash, "the hash of a header core")
COMPUTE_BLOCK_HASH = _register_hash("compute_block_hash", HEADER, compute_block_hash, "the block hash of a header")
COMPUTE_BODY_ROOT = _register_hash("compute_body_root", BODY, compute_body_root, "the root of a body")
FLAGS = {
    "truncated": ("bytes are missing at the end", "a client that fills up with zeros accepts two encodings of a value"),
    "trailing": ("bytes are left over", "a client that ignores them accepts many encodings of a value"),
    "offset": (
        "an offset is not where the part before it ends",
        "a client that follows any offset accepts many encodings of a value",
    ),
    "limit": ("a list is longer than its type allows", "a client that does not count takes what others refuse"),
    "value": (
        "a byte that its type does not allow",
        "a client that takes any other byte for true accepts two encodings",
    ),
}
Bad = tuple[str, str, str, str, bytes]
"""id of the base, id, comment, flag, bytes."""


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    values, bad = _make_values(), _make_bad()
    files = [make_encode_file(ENCODE[name], values[name]) for name in CONTAINERS]
    files += [make_decode_file(DECODE[name], values[name], bad[name]) for name in CONTAINERS]
    hashed = (("header_core", COMPUTE_CORE_HASH), ("header", COMPUTE_BLOCK_HASH), ("body", COMPUTE_BODY_ROOT))
    return files + [_hash_file(function, values[name]) for name, function in hashed]


HOW = "By hand; drawn values are the integers and bytes of the id's DRBG, field by field."


LARGE = "longest-transaction"
"""The id of a value that is decoded only, to keep the files small."""


def _make_plain_cases(values: dict[str, Any]) -> tuple[Case, ...]:
    return tuple(Case(c, _describe(c), {"value": value}) for c, value in values.items() if c != LARGE)


def make_encode_file(function: Function, values: dict[str, Any]) -> CaseFile:
    """Return the cases of values, by case id, to encode."""
    return CaseFile(function, HOW, _make_plain_cases(values))


def make_decode_file(function: Function, values: dict[str, Any], bad: list[Bad]) -> CaseFile:
    """Return the cases of encoded values, and of bytes that encode none."""
    bases = {case_id: Case(case_id, _describe(case_id), {"data": encode(v)}) for case_id, v in values.items()}
    cases = list(bases.values())
    for base, case_id, comment, flag, data in bad:
        cases.append(make_negative(function, bases[base], case_id, comment, {"data": data}, (flag,)))
    used = {flag for case in cases for flag in case.flags}
    return CaseFile(function, HOW, tuple(cases), {key: FLAGS[key] for key in FLAGS if key in used})


def _hash_file(function: Function, values: dict[str, Any]) -> CaseFile:
    return CaseFile(function, HOW, _make_plain_cases(values))


def _describe(case_id: str) -> str:
    return case_id.replace("-", " ")


def _draw_bytes(drbg: Drbg, count: int) -> bytes:
    return bytes(drbg.below(256) for _ in range(count))


def _draw_core(drbg: Drbg) -> HeaderCore:
    return HeaderCore(
        version=drbg.below(2**32),
        height=drbg.next_uint64(),
        parent_hash=_draw_bytes(drbg, 32),
        timestamp=drbg.next_uint64(),
        target=int.from_bytes(_draw_bytes(drbg, 32), "little"),
        miner=_draw_bytes(drbg, 20),
        body_root=_draw_bytes(drbg, 32),
        state_root=_draw_bytes(drbg, 32),
        nonce=drbg.next_uint64(),
    )


def draw_header(drbg: Drbg) -> Header:
    """Return a header whose fields are drawn one after the other."""
    return Header(_draw_core(drbg), drbg.next_uint64(), _draw_bytes(drbg, 32))


ZERO_CORE = HeaderCore(0, 0, bytes(32), 0, 0, bytes(20), bytes(32), bytes(32), 0)
ONES_CORE = HeaderCore(
    2**32 - 1, 2**64 - 1, b"\xff" * 32, 2**64 - 1, 2**256 - 1, b"\xff" * 20, b"\xff" * 32, b"\xff" * 32, 2**64 - 1
)
COUNTING_CORE = HeaderCore(1, 2, b"\x03" * 32, 4, 5, b"\x06" * 20, b"\x07" * 32, b"\x08" * 32, 9)


ALL_CHANGES = make_change(
    profile=b"w8a8",
    model=get_manifest("micro"),
    retarget_blocks=2,
    spacing=3,
    max_future=4,
    quiz_tokens=5,
    salt_tokens=6,
    scored_tokens=7,
)


def _make_values() -> dict[str, dict[str, Any]]:
    """Return for each container values by case id."""
    drawn_core, drawn_header = _draw_core(derive("ssz", "core")), draw_header(derive("ssz", "header"))
    counting = Header(COUNTING_CORE, 10, b"\x0b" * 32)
    mini, smol = get_manifest("mini"), get_manifest("smollm2-135m")
    many = replace(mini, salt_ranges=tuple(TokenRange(3 * n, 3 * n + 1) for n in range(50)))
    entries = tuple(_draw_bytes(derive("ssz", "trace"), 32) for _ in range(4))
    return {
        "token_range": {
            "zero": TokenRange(0, 0),
            "counting": TokenRange(1, 2),
            "largest": TokenRange(2**32 - 1, 2**32 - 1),
        },
        "model_manifest": {
            "mini": mini,
            "smollm2": smol,
            "no-ranges": replace(mini, salt_ranges=()),
            "fifty-ranges": many,
            "corpus": replace(mini, corpus=True, add_bos=False, bos_id=0),
        },
        "config": {
            "network": make_network(),
            "no-profile": replace(make_network(), profile=b""),
            "longest-profile": replace(make_network(), profile=b"x" * 32),
            "two-ranges": replace(make_network(), model=replace(many, salt_ranges=many.salt_ranges[:2])),
        },
        "change": {
            "none": make_change(),
            "spacing": make_change(spacing=1_500),
            "all": ALL_CHANGES,
            "last-two": make_change(salt_tokens=1, scored_tokens=2),
        },
        "upgrade": {"none": Upgrade(0, make_change()), "all": Upgrade(2**64 - 1, ALL_CHANGES)},
        "upgrade_list": {
            "empty": UpgradeList(()),
            "two": UpgradeList(make_upgrades()),
            "most": UpgradeList((Upgrade(1, make_change()),) * MAX_UPGRADES),
        },
        "header_core": {"zeros": ZERO_CORE, "counting": COUNTING_CORE, "ones": ONES_CORE, "drawn": drawn_core},
        "header": {
            "zeros": Header(ZERO_CORE, 0, bytes(32)),
            "counting": counting,
            "ones": Header(ONES_CORE, 2**64 - 1, b"\xff" * 32),
            "drawn": drawn_header,
        },
        "body": {
            "empty": Body(()),
            "one-empty": Body((b"",)),
            "two": Body((b"ab", b"c")),
            "two-empty": Body((b"", b"")),
            "most-transactions": Body((b"",) * 4096),
            LARGE: Body((bytes(131_072),)),
        },
        "block": {
            "no-trace": Block(counting, Body(()), ()),
            "four-entries": Block(drawn_header, Body(()), entries),
            "transactions": Block(counting, Body((b"ab", b"", b"c")), entries[:2]),
            "longest-trace": Block(counting, Body(()), (bytes(32),) * 257),
        },
    }


def cut(base: str, value: Any, *counts: int) -> list[Bad]:
    """Return encodings without their last bytes, and with some more."""
    data = encode(value)
    bad: list[Bad] = [(base, "no-bytes", "no bytes", "truncated", b"")]
    return bad + [
        (base, f"{base}-less-{count}", f"the last {count} bytes are missing", "truncated", data[:-count])
        for count in counts
    ]


def extend(base: str, value: Any, *tails: bytes) -> list[Bad]:
    """Return encodings with some bytes more."""
    data = encode(value)
    return [
        (base, f"{base}-more-{len(tail)}", f"{len(tail)} bytes too many", "trailing", data + tail) for tail in tails
    ]


def _make_bad() -> dict[str, list[Bad]]:
    """Return for each container bytes that encode none."""
    values = _make_values()
    core, header = values["header_core"]["drawn"], values["header"]["drawn"]
    return {
        "token_range": [
            *cut("counting", TokenRange(1, 2), 1, 4),
            *extend("counting", TokenRange(1, 2), b"\0", bytes(8)),
        ],
        "model_manifest": _bad_manifests(values["model_manifest"]["mini"]),
        "config": _bad_configs(values["config"]["network"]),
        "change": _bad_changes(),
        "upgrade": [
            *cut("all", values["upgrade"]["all"], 1, 8),
            *extend("none", values["upgrade"]["none"], b"\0"),
            (
                "none",
                "offset-more",
                "a byte between height and change",
                "offset",
                bytes(8) + uint32_le(13) + b"\0" + encode(make_change()),
            ),
        ],
        "upgrade_list": [
            *cut("two", values["upgrade_list"]["two"], 1, 8),
            *extend("empty", values["upgrade_list"]["empty"], b"\0"),
            ("most", "one-more-upgrade", "65 items", "limit", encode_many(Upgrade(1, make_change()), MAX_UPGRADES + 1)),
        ],
        "header_core": [*cut("drawn", core, 1, 8, 100), *extend("drawn", core, b"\0")],
        "header": [*cut("drawn", header, 1, 40), *extend("drawn", header, b"\0", bytes(4))],
        "body": _bad_bodies(),
        "block": _bad_blocks(values["block"]["four-entries"]),
    }


def _bad_manifests(mini: ModelManifest) -> list[Bad]:
    data = encode(mini)
    assert data[96] == 0
    assert data[105] == 1
    fixed = len(data) - 8
    offset = data.index(uint32_le(fixed), 100)
    return [
        *cut("mini", mini, 1, 4, 9, 60),
        *extend("mini", mini, b"\0", bytes(7)),
        ("mini", "corpus-2", "a boolean of 2", "value", data[:96] + b"\2" + data[97:]),
        ("mini", "add-bos-255", "a boolean of 255", "value", data[:105] + b"\xff" + data[106:]),
        ("mini", "offset-zero", "the offset of the ranges", "offset", data[:offset] + bytes(4) + data[offset + 4 :]),
        ("mini", "offset-less", "one too small", "offset", _set_offset(data, offset, fixed - 1)),
        ("mini", "offset-more", "one range too far", "offset", _set_offset(data, offset, fixed + 8)),
        ("mini", "offset-outside", "behind the end", "offset", _set_offset(data, offset, 2**32 - 1)),
        ("mini", "gap", "eight bytes between the fixed part and the ranges", "offset",
         _set_offset(data, offset, fixed + 8)[:fixed] + bytes(8) + data[fixed:]),
    ]  # fmt: skip


def _set_offset(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + uint32_le(value) + data[at + 4 :]


def _bad_changes() -> list[Bad]:
    none, spacing = encode(make_change()), encode(make_change(spacing=1_500))
    fixed = len(none)
    moved = b"".join(uint32_le(fixed + (8 if n > 3 else 0)) for n in range(8))
    assert spacing == moved + (1_500).to_bytes(8, "little")
    twice = b"".join(uint32_le(fixed + (16 if n > 3 else 0)) for n in range(8))
    return [
        *cut("all", ALL_CHANGES, 1, 2, 40),
        *extend("none", make_change(), b"\0"),
        ("spacing", "two-values", "a list of two items", "limit", twice + spacing[fixed:] * 2),
        ("none", "offsets-falling", "the second field before the first", "offset", _set_offset(none, 4, fixed - 1)),
        ("none", "first-offset-less", "points into the fixed part", "offset", _set_offset(none, 0, fixed - 4)),
    ]


def encode_many(upgrade: Upgrade, count: int) -> bytes:
    """Return the encoding that a list of equal upgrades would have without a limit."""
    item = encode(upgrade)
    return uint32_le(4) + b"".join(uint32_le(4 * count + n * len(item)) for n in range(count)) + item * count


def _bad_configs(config: Config) -> list[Bad]:
    data, model = encode(config), encode(config.model)
    first, second = int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:12], "little")
    assert data[first : first + len(config.profile)] == config.profile
    assert data[second:] == model
    end, more = first + len(config.profile), 33 - len(config.profile)
    longer = data[:end] + b"x" * more + data[end:]
    return [
        *cut("network", config, 1, 4, len(data) - 12),
        *extend("network", config, b"\0"),
        ("network", "profile-33", "a profile of 33 bytes", "limit", _set_offset(longer, 8, second + more)),
        ("network", "first-offset-zero", "points at the start", "offset", _set_offset(data, 4, 0)),
        ("network", "first-offset-less", "points into the fixed part", "offset", _set_offset(data, 4, first - 1)),
        ("network", "first-offset-more", "leaves out a byte", "offset", _set_offset(data, 4, first + 1)),
        ("network", "offsets-falling", "the second before the first", "offset", _set_offset(data, 8, first - 1)),
        ("network", "second-outside", "behind the end", "offset", _set_offset(data, 8, len(data) + 1)),
        ("network", "gap", "a byte between fixed part and profile", "offset",
         _set_offset(_set_offset(data, 4, first + 1), 8, second + 1)[:first] + b"\0" + data[first:]),
    ]  # fmt: skip


def _offsets(*numbers: int) -> bytes:
    return b"".join(map(uint32_le, numbers))


def _bad_bodies() -> list[Bad]:
    two = Body((b"ab", b"c"))
    return [
        *cut("two", two, 5, 14),
        ("two", "offset-zero", "the list's offset is 0", "offset", _offsets(0, 8, 10) + b"abc"),
        ("two", "offset-less", "the list's offset is 3", "offset", _offsets(3, 8, 10) + b"abc"),
        ("two", "offset-more", "the list's offset is 5", "offset", _offsets(5, 8, 10) + b"abc"),
        ("two", "offset-outside", "the list's offset is behind the end", "offset", _offsets(100, 8, 10) + b"abc"),
        ("two", "first-zero", "the first item's offset is 0", "offset", _offsets(4, 0, 10) + b"abc"),
        ("two", "first-odd", "the first item's offset is no multiple of 4", "offset", _offsets(4, 6, 10) + b"abc"),
        ("two", "first-more", "the first item's offset claims three items", "offset", _offsets(4, 12, 10) + b"abc"),
        ("two", "falling", "the second item begins before the first", "offset", _offsets(4, 8, 7) + b"abc"),
        ("two", "outside", "the second item begins behind the end", "offset", _offsets(4, 8, 100) + b"abc"),
        ("empty", "one-byte-list", "a list of one byte", "trailing", _offsets(4) + b"\1"),
        ("empty", "zero-offset-list", "a list that is one offset of 0", "offset", _offsets(4, 0)),
        ("most-transactions", "one-more-transaction", "4,097 items", "limit", _offsets(4, *[4 * 4097] * 4097)),
        (LARGE, "one-byte-longer", "131,073 bytes", "limit", _offsets(4, 4) + bytes(131_073)),
    ]


def _bad_blocks(block: Block) -> list[Bad]:
    data, fixed = encode(block), 224
    assert data[216:228] == _offsets(fixed, fixed + 4, 4)
    header, trace = data[:216], data[228:]
    longest = encode(_make_values()["block"]["longest-trace"])
    return [
        *cut("four-entries", block, 1, 31, 128 + 4, 128 + 12),
        *extend("four-entries", block, b"\0", bytes(31)),
        ("longest-trace", "trace-258", "258 trace entries", "limit", longest + bytes(32)),
        ("four-entries", "body-offset-less", "points into the header's offsets", "offset",
         header + _offsets(fixed - 4, fixed + 4, 4) + trace),
        ("four-entries", "body-offset-more", "leaves out the body", "offset",
         header + _offsets(fixed + 4, fixed + 4, 4) + trace),
        ("four-entries", "offsets-falling", "the trace before the body", "offset",
         header + _offsets(fixed, fixed - 1, 4) + trace),
        ("four-entries", "trace-offset-outside", "behind the end", "offset",
         header + _offsets(fixed, 999, 4) + trace),
        ("four-entries", "gap-before-body", "a byte between header and body", "offset",
         header + _offsets(fixed + 1, fixed + 5) + b"\0" + _offsets(4) + trace),
        ("four-entries", "gap-in-body", "four bytes between the body's offset and its list", "offset",
         header + _offsets(fixed, fixed + 8, 8, 0) + trace),
        ("four-entries", "body-offset-8", "the body's own offset is 8", "offset",
         header + _offsets(fixed, fixed + 4, 8) + trace),
    ]  # fmt: skip
