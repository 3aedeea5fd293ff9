"""Vectors of the page `networking`: names and limits, messages to bytes and back, what answers and what does not."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poai_spec.basics.containers import Block, Body, Header, compute_block_hash
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Hash32, Invalid, Malformed, NotYet, uint32_le
from poai_spec.basics.parameters import MAX_TRACE, compute_network_id
from poai_spec.chain import networking as page
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.networking import Blocks, BlocksRequest, Goodbye, Headers, HeadersRequest, Reason, Result, Status
from poai_spec.chain.upgrades import get_fork_hash, get_rules
from poai_tools.vectors.cases import Case, CaseFile, derive, derive_seed
from poai_tools.vectors.chains import make_header_chain
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import (
    HASH32,
    TEXT,
    UINT32,
    UINT64,
    Array,
    Integer,
    Kind,
    OneOf,
    Optional,
    RecordKind,
    Text,
    require,
)
from poai_tools.vectors.network import make_network, make_upgrades, read_rules
from poai_tools.vectors.records import CONFIG, UPGRADES, Container, make_container
from poai_tools.vectors.registry import Function, register
from poai_tools.vectors.suites.ssz import (
    DATA,
    Bad,
    cut,
    draw_header,
    extend,
    make_decode_file,
    make_encode_file,
    register_decode,
    register_encode,
)

PROTOCOLS = ("STATUS_PROTOCOL", "HEADERS_PROTOCOL", "BLOCKS_PROTOCOL", "GOODBYE_PROTOCOL")
LIMITS = (
    "MAX_LOCATOR", "LOCATOR_DENSE", "MAX_HEADERS", "MAX_BLOCKS", "HEADER_BYTES", "BLOCK_OVERHEAD_BYTES",
    "MAX_BLOCK_BYTES", "MAX_GOSSIP_BYTES",
    "MAX_STATUS_BYTES", "MAX_HEADERS_REQUEST_BYTES", "MAX_HEADERS_BYTES", "MAX_BLOCKS_REQUEST_BYTES",
    "MAX_BLOCKS_BYTES", "MAX_GOODBYE_BYTES", "RESULT_BYTES", "RESPONSE_TIMEOUT_MS", "VALIDATION_TIMEOUT_MS",
    "STATUS_INTERVAL_MS", "HEARTBEAT_MS", "SEEN_MS", "MESH_DEGREE", "MESH_DEGREE_LOW", "MESH_DEGREE_HIGH",
    "REQUEST_BURST", "REQUEST_REFILL_MS", "GOSSIP_BURST", "GOSSIP_REFILL_MS", "REPLAYS_PER_PEER", "SAMPLE_BLOCKS",
    "MAX_FRUITLESS", "REPLAY_BUDGET_MS", "REPLAY_BUDGET_PERIOD_MS", "IPV4_PREFIX_BITS", "IPV6_PREFIX_BITS", "BAN_SCORE",
    "INVALID_PENALTY", "MALFORMED_PENALTY", "PENALTY_HALF_LIFE_MS", "BAN_MS",
)  # fmt: skip
CONSTANTS: dict[str, Kind] = dict.fromkeys(PROTOCOLS, TEXT) | dict.fromkeys(LIMITS, UINT32)
REASONS = RecordKind({reason.name: UINT32 for reason in Reason})
STATUS = make_container(Status)
HEADERS_REQUEST = make_container(HeadersRequest)
HEADERS = make_container(Headers)
BLOCKS_REQUEST = make_container(BlocksRequest)
BLOCKS = make_container(Blocks)
MESSAGES: dict[str, Container] = {
    "status": STATUS,
    "headers_request": HEADERS_REQUEST,
    "headers": HEADERS,
    "blocks_request": BLOCKS_REQUEST,
    "blocks": BLOCKS,
    "goodbye": make_container(Goodbye),
}
RESPONSES: dict[str, Container] = {"status": STATUS, "headers": HEADERS, "blocks": BLOCKS}
RESPONSE = OneOf(RESPONSES)
CLASSES = {"Invalid": Invalid, "Malformed": Malformed, "NotYet": NotYet}
ENCODE = {name: register_encode(name, kind, "networking", "networking") for name, kind in MESSAGES.items()}
DECODE = {name: register_decode(name, kind, "networking", "networking") for name, kind in MESSAGES.items()}


def _register(name: str, summary: str, takes: Mapping[str, Kind], gives: Mapping[str, Kind], run: Any) -> Function:
    return register(Function("networking", name, "networking", summary, RecordKind(takes), RecordKind(gives), run))


def _get_constants(_: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(page, name) for name in CONSTANTS} | {"reasons": {r.name: r.value for r in Reason}}


def _encode_response(i: Mapping[str, Any]) -> dict[str, Any]:
    require((i["result"] == Result.OK) == (i["message"] is not None), "a message goes with result 0 alone")
    message = None if i["message"] is None else i["message"][1]
    return {"payload": page.encode_response(Result(i["result"]), message)}


def _decode_response(i: Mapping[str, Any]) -> dict[str, Any]:
    return {"message": (i["kind"], page.decode_response(RESPONSES[i["kind"]].kind, i["payload"]))}


def _get_verdict(i: Mapping[str, Any]) -> dict[str, Any]:
    error = None if i["error"] is None else CLASSES[i["error"]["class"]](i["error"]["code"])
    return {"verdict": page.get_verdict(error), "penalty": page.get_penalty(error)}


def _check(check: Any, *names: str) -> Any:
    """Return the run of a check that gives nothing."""

    def run(i: Mapping[str, Any]) -> dict[str, Any]:
        check(*(i[name] for name in names))
        return {}

    return run


def _get_blocks_topic(i: Mapping[str, Any]) -> dict[str, Any]:
    rules = read_rules(i)
    return {"topic": page.get_blocks_topic(rules), "block_bytes": page.get_block_bytes(rules)}


def _check_topic(i: Mapping[str, Any]) -> dict[str, Any]:
    page.check_topic(i["topic"], read_rules(i))
    return {}


def _check_gossip_size(i: Mapping[str, Any]) -> dict[str, Any]:
    config = make_network()
    model = replace(config.model, layer_count=i["layer_count"])
    page.check_gossip_size(i["data"], get_rules(replace(config, model=model), (), 0))
    return {}


GET_CONSTANTS = _register(
    "constants", "protocol ids, limits, rates and reasons", {}, {**CONSTANTS, "reasons": REASONS}, _get_constants
)
GET_BLOCKS_TOPIC = _register(
    "get_blocks_topic",
    "the gossip topic of the blocks that follow some rules: those of a height",
    {"config": CONFIG, "upgrades": UPGRADES, "height": UINT64},
    {"topic": TEXT, "block_bytes": UINT32},
    _get_blocks_topic,
)
CHECK_TOPIC = _register(
    "check_topic",
    "refuse a block of a height on the topic of other rules",
    {"config": CONFIG, "upgrades": UPGRADES, "height": UINT64, "topic": TEXT},
    {},
    _check_topic,
)
COMPUTE_MESSAGE_ID = _register(
    "compute_message_id",
    "the id of a gossip message",
    {"topic": TEXT, "data": DATA},
    {"id": HASH32},
    lambda i: {"id": page.compute_message_id(i["topic"], i["data"])},
)
CHECK_GOSSIP_SIZE = _register(
    "check_gossip_size",
    "refuse data that is larger than any block of the rules, whose model has so many layers",
    {"data": DATA, "layer_count": Integer(1, MAX_TRACE - 1)},
    {},
    _check_gossip_size,
)
ENCODE_FRAME = _register(
    "encode_frame",
    "a payload behind its length",
    {"payload": DATA},
    {"frame": DATA},
    lambda i: {"frame": page.encode_frame(i["payload"])},
)
CHECK_FRAME_LENGTH = _register(
    "check_frame_length",
    "refuse a frame whose length is above the limit of its message",
    {"length": UINT32, "limit": UINT32},
    {},
    _check(page.check_frame_length, "length", "limit"),
)
ENCODE_RESPONSE = _register(
    "encode_response",
    "a response's payload: the result, and with result 0 the message",
    {"result": Integer(0, max(Result)), "message": Optional(RESPONSE)},
    {"payload": DATA},
    _encode_response,
)
DECODE_RESPONSE = _register(
    "decode_response",
    "the message of a response's payload; refuse refusals and what is no response",
    {"kind": Text(tuple(RESPONSES)), "payload": DATA},
    {"message": RESPONSE},
    _decode_response,
)
COMPUTE_LOCATOR_HEIGHTS = _register(
    "compute_locator_heights",
    "the heights of a locator's blocks, from the highest down",
    {"height": UINT64},
    {"heights": Array(UINT64)},
    lambda i: {"heights": page.compute_locator_heights(i["height"])},
)
CHECK_HEADERS_REQUEST = _register(
    "check_headers_request",
    "refuse a request for headers that cannot be answered",
    {"request": HEADERS_REQUEST},
    {},
    _check(page.check_headers_request, "request"),
)
CHECK_HEADERS = _register(
    "check_headers",
    "refuse headers that do not answer a request",
    {"request": HEADERS_REQUEST, "headers": HEADERS},
    {},
    _check(page.check_headers, "request", "headers"),
)
CHECK_BLOCKS_REQUEST = _register(
    "check_blocks_request",
    "refuse a request for no block, or for one twice",
    {"request": BLOCKS_REQUEST},
    {},
    _check(page.check_blocks_request, "request"),
)
CHECK_BLOCKS = _register(
    "check_blocks",
    "refuse blocks that do not answer a request",
    {"request": BLOCKS_REQUEST, "blocks": BLOCKS},
    {},
    _check(page.check_blocks, "request", "blocks"),
)
GET_VERDICT = _register(
    "get_verdict",
    "what becomes of a message, and what it costs its sender",
    {"error": Optional(RecordKind({"code": TEXT, "class": Text(tuple(CLASSES))}))},
    {"verdict": Text(tuple(page.Verdict)), "penalty": Integer(0, page.BAN_SCORE)},
    _get_verdict,
)
BOUNDARY = {"boundary": ("a value at a limit, or one past it", "a client with < for <=, or the reverse, differs")}
BY_HAND = "Chosen by hand."
CHAIN_HOW = "Headers of the chain `networking` on the network of the vectors, as in the suite header."
GOSSIP_CODES = {
    "Malformed": ("networking/block-size", "encoding/undecodable", "body/root", "work/trace-digest"),
    "Invalid": (
        "header/version", "body/transactions-not-active", "fork-choice/known-invalid", "fork-choice/invalid-ancestor",
        "header/parent", "header/height", "difficulty/target", "header/median-time", "difficulty/period-not-forward",
        "work/l-hat", "work/trace-length", "state/root", "work/trace", "work/loss",
    ),
    "NotYet": (
        "fork-choice/unknown-parent", "header/future", "fork-choice/too-many-headers",
        "fork-choice/parent-not-replayed", "fork-choice/lighter",
        "block/model-missing",
    ),
}  # fmt: skip
OTHER_CODES = {
    "Malformed": ("networking/frame-length", "networking/response", "networking/headers-response"),
    "NotYet": ("networking/refused",),
}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    values, bad = _make_values(), _make_bad()
    files = [CaseFile(GET_CONSTANTS, "The page's.", (Case("all", "every constant of the page", {}),))]
    files += [_blocks_topic(), _check_topic_file()]
    files += [_message_id(), _gossip_size(), _frame(), _frame_length()]
    files += [make_encode_file(ENCODE[name], values[name]) for name in MESSAGES]
    files += [make_decode_file(DECODE[name], values[name], bad[name]) for name in MESSAGES]
    files += [_encode_responses(values), _decode_responses(values), _locator_heights()]
    return [*files, _headers_request(), _headers(), _blocks_request(), _blocks(), _verdict()]


def _blocks_topic() -> CaseFile:
    config, upgrades = make_network(), make_upgrades()
    rows = [("network", (), 0), ("before", upgrades, 3), ("first", upgrades, 4), ("second", upgrades, 10)]
    cases = [
        Case(name, "8 digits of the digest", {"config": config, "upgrades": listed, "height": height})
        for name, listed, height in rows
    ]
    return CaseFile(GET_BLOCKS_TOPIC, BY_HAND, tuple(cases))


def _check_topic_file() -> CaseFile:
    config, upgrades = make_network(), make_upgrades()
    topics = [page.get_blocks_topic(get_rules(config, upgrades, height)) for height in (3, 4)]
    values = {"config": config, "upgrades": upgrades, "height": 4, "topic": topics[1]}
    base = Case("first-of-new", "the first block of the new rules on their topic", values)
    cases = [base, Case("last-of-old", "and the last of the old", values | {"height": 3, "topic": topics[0]})]
    for name, height, topic in (("old-topic", 4, topics[0]), ("new-topic", 3, topics[1])):
        changes = {"height": height} if height != 4 else {"topic": topic}
        cases.append(make_negative(CHECK_TOPIC, base, name, "of the other rules", changes))
    return CaseFile(CHECK_TOPIC, BY_HAND, tuple(cases))


def _message_id() -> CaseFile:
    topic = page.get_blocks_topic(get_rules(make_network(), (), 0))
    header = draw_header(derive("networking", "header"))
    rows = {
        "block": (topic, encode(Block(header, EMPTY_BODY, ()))),
        "other-topic": (topic[:-1] + "2", encode(Block(header, EMPTY_BODY, ()))),
        "no-data": (topic, b""),
        "no-topic": ("", b"\0"),
        "zero-in-data": ("ab", b"\0c"),
        "not-ascii": ("\u00fc\u4e16", b"c"),
    }
    cases = tuple(
        Case(name, f"{len(data)} bytes", {"topic": topic, "data": data}) for name, (topic, data) in rows.items()
    )
    return CaseFile(COMPUTE_MESSAGE_ID, "By hand; the header is drawn as in the suite ssz.", cases)


def _gossip_size() -> CaseFile:
    most = page.MAX_BLOCK_BYTES
    largest = encode(_make_largest_block())
    base = Case("largest-block", "the largest block", {"data": largest, "layer_count": 256}, ("boundary",))
    rows = [("empty", b""), ("any-bytes", bytes(most)), ("block", encode(Block(_make_chain()[1], EMPTY_BODY, ())))]
    cases = [base, *(Case(name, f"{len(data)} bytes", {"data": data, "layer_count": 256}) for name, data in rows)]
    cases.append(
        make_negative(CHECK_GOSSIP_SIZE, base, "one-more", "a byte more", {"data": largest + b"\0"}, ("boundary",))
    )
    return CaseFile(CHECK_GOSSIP_SIZE, BY_HAND, tuple(cases), BOUNDARY)


def _frame() -> CaseFile:
    payloads = {
        "empty": b"",
        "one": b"\1",
        "length-255": bytes(255),
        "length-256": bytes(256),
        "length-258": b"x" * 258,
    }
    cases = tuple(Case(name, f"{len(payload)} bytes", {"payload": payload}) for name, payload in payloads.items())
    return CaseFile(ENCODE_FRAME, BY_HAND, cases)


def _frame_length() -> CaseFile:
    cases = []
    limits = {"status": page.MAX_STATUS_BYTES, "blocks": page.MAX_BLOCKS_BYTES + 1, "nothing": 0}
    for name, limit in limits.items():
        base = Case(name, "the limit itself", {"length": limit, "limit": limit}, ("boundary",))
        more = {"length": limit + 1}
        cases += [
            base,
            make_negative(CHECK_FRAME_LENGTH, base, f"{name}-more", "one byte more", more, ("boundary",)),
            make_negative(CHECK_FRAME_LENGTH, base, f"{name}-most", "the longest frame", {"length": 2**32 - 1}),
        ]
    cases.append(Case("empty", "no payload: what is wrong with it is seen later", {"length": 0, "limit": 4}))
    return CaseFile(CHECK_FRAME_LENGTH, BY_HAND, tuple(cases), BOUNDARY)


def _make_chain() -> tuple[Header, ...]:
    return tuple(make_header_chain(make_network(), [1000, 2000, 3000, 4000, 5000], "networking"))


def _make_hashes() -> list[Hash32]:
    return [compute_block_hash(header) for header in _make_chain()]


def _make_blocks() -> list[Block]:
    return [Block(header, EMPTY_BODY, ()) for header in _make_chain()]


def _make_largest_block() -> Block:
    return Block(_make_chain()[1], EMPTY_BODY, (b"\xff" * 32,) * 257)


def _make_values() -> dict[str, dict[str, Any]]:
    """Return for each message values by case id."""
    chain, hashes, blocks = _make_chain(), _make_hashes(), _make_blocks()
    drawn = draw_header(derive("networking", "header"))
    traced = replace(blocks[1], trace=(hashes[0], hashes[1]))
    odd = Block(drawn, Body((b"ab", b"")), (bytes(32),))
    head = Status(
        1,
        compute_network_id(make_network()),
        get_fork_hash(get_rules(make_network(), (), 0)),
        0,
        hashes[3],
        3,
        12,
        1,
        0,
    )
    return {
        "status": {
            "head": head,
            "zeros": Status(0, bytes(32), bytes(4), 0, bytes(32), 0, 0, 0, 0),
            "ones": Status(
                2**32 - 1,
                b"\xff" * 32,
                b"\xff" * 4,
                2**64 - 1,
                b"\xff" * 32,
                2**64 - 1,
                2**256 - 1,
                2**64 - 1,
                2**64 - 1,
            ),
            "counting": Status(1, b"\2" * 32, b"\x08" * 4, 9, b"\3" * 32, 4, 5, 6, 7),
        },
        "headers_request": {
            "two": HeadersRequest((hashes[2], hashes[0]), hashes[4], 512),
            "no-locator": HeadersRequest((), bytes(32), 0),
            "longest-locator": HeadersRequest((bytes(32),) * 64, b"\1" * 32, 2**32 - 1),
        },
        "headers": {"two": Headers(chain[1:3]), "none": Headers(()), "drawn": Headers((drawn,))},
        "blocks_request": {
            "two": BlocksRequest((hashes[1], hashes[2])),
            "none": BlocksRequest(()),
            "most": BlocksRequest((bytes(32),) * 32),
        },
        "blocks": {
            "two": Blocks((traced, blocks[2]), (hashes[3],)),
            "none": Blocks((), ()),
            "lacking": Blocks((), (hashes[1], hashes[2])),
            "one": Blocks((blocks[1],), ()),
            "odd-bodies": Blocks((odd, traced, odd), ()),
            "most": Blocks((blocks[1],) * 32, (bytes(32),) * 32),
        },
        "goodbye": {
            **{reason.name.lower().replace("_", "-"): Goodbye(reason) for reason in Reason},
            "zero": Goodbye(0),
            "unknown": Goodbye(2**32 - 1),
        },
    }


def _make_bad() -> dict[str, list[Bad]]:
    """Return for each message bytes that encode none."""
    values = _make_values()
    two = {name: next(iter(values[name].values())) for name in MESSAGES}
    most = {name: encode(values[name]["most"]) for name in ("blocks_request", "blocks")}
    locator = encode(values["headers_request"]["longest-locator"])
    return {
        "status": [*cut("head", two["status"], 1, 8), *extend("head", two["status"], b"\0")],
        "headers_request": [
            *cut("two", two["headers_request"], 1, 32 * 2 + 4),
            *extend("two", two["headers_request"], b"\0"),
            ("longest-locator", "locator-65", "65 hashes", "limit", locator + bytes(32)),
            *_shift_offsets("two", two["headers_request"], 0),
        ],
        "headers": [
            *cut("two", two["headers"], 1, 100),
            *extend("two", two["headers"], b"\0"),
            ("none", "headers-513", "513 headers", "limit", uint32_le(4) + bytes(513 * 216)),
            *_shift_offsets("two", two["headers"], 0),
        ],
        "blocks_request": [
            *cut("two", two["blocks_request"], 1),
            *extend("two", two["blocks_request"], bytes(31)),
            ("most", "hashes-33", "33 hashes", "limit", most["blocks_request"] + bytes(32)),
            *_shift_offsets("two", two["blocks_request"], 0),
        ],
        "blocks": _bad_blocks(two["blocks"], most["blocks"]),
        "goodbye": [*cut("shutting-down", Goodbye(1), 1), *extend("shutting-down", Goodbye(1), b"\0")],
    }


def _shift_offsets(base: str, value: Any, at: int) -> list[Bad]:
    """Return an encoding whose offset at some place is one too small, one too large, and behind the end."""
    data = encode(value)
    right = int.from_bytes(data[at : at + 4], "little")
    wrong = {"less": right - 1, "more": right + 1, "outside": len(data) + 1}
    return [
        (base, f"offset-{at}-{name}", f"an offset of {n}", "offset", data[:at] + uint32_le(n) + data[at + 4 :])
        for name, n in wrong.items()
    ]


def _bad_blocks(two: Blocks, most: bytes) -> list[Bad]:
    first = int.from_bytes(most[4:8], "little")
    one = Blocks(two.blocks[:1] * 33, ())
    return [
        *cut("two", two, 1, 32 + 1),
        *extend("two", two, b"\0"),
        *_shift_offsets("two", two, 0),
        *_shift_offsets("two", two, 4),
        *_shift_offsets("two", two, 8),
        *_shift_offsets("two", two, 8 + 2 * 4 + 216),
        ("none", "blocks-33", "33 blocks", "limit", _encode_over_limit(one)),
        ("most", "lacking-33", "33 lacking hashes", "limit", most[:first] + bytes(33 * 32)),
    ]


def _encode_over_limit(blocks: Blocks) -> bytes:
    """Return the bytes that blocks would have if their number had no limit, with nothing lacking."""
    items = [encode(block) for block in blocks.blocks]
    offsets = [4 * len(items) + sum(map(len, items[:n])) for n in range(len(items))]
    body = b"".join([*map(uint32_le, offsets), *items])
    return uint32_le(8) + uint32_le(8 + len(body)) + body


def _encode_responses(values: dict[str, dict[str, Any]]) -> CaseFile:
    cases = [
        Case(f"{name}-{case_id}", "a message", {"result": 0, "message": (name, value)})
        for name in RESPONSES
        for case_id, value in values[name].items()
        if case_id != "most"
    ]
    refused = [r for r in Result if r != Result.OK]
    cases += [Case(f"result-{r.value}", "a result alone", {"result": r.value, "message": None}) for r in refused]
    return CaseFile(
        ENCODE_RESPONSE, "The values of the files encode_status, encode_headers, encode_blocks.", tuple(cases)
    )


def _decode_responses(values: dict[str, dict[str, Any]]) -> CaseFile:
    bases = {
        name: Case(name, "a message", {"kind": name, "payload": b"\0" + encode(next(iter(values[name].values())))})
        for name in RESPONSES
    }
    status = bases["status"].input["payload"]
    cases = [*bases.values(), Case("no-headers", "none", {"kind": "headers", "payload": b"\0\4\0\0\0"})]
    rows: list[tuple[str, str, str, bytes, tuple[str, ...]]] = [
        ("status", "empty", "no result", b"", ()),
        ("status", "unknown-5", "a result that is not defined", b"\5", ("boundary",)),
        ("status", "unknown-255", "a result that is not defined", b"\xff", ()),
        ("status", "unknown-with-message", "a result that is not defined", b"\5" + status[1:], ()),
        ("status", "refused-with-byte", "a byte behind a refusal", b"\1\0", ("boundary",)),
        ("status", "refused-with-message", "a message behind a refusal", b"\4" + status[1:], ()),
        *(("status", f"refused-{n}", "a refusal", bytes([n]), ("boundary",) if n == 4 else ()) for n in range(1, 5)),
        ("headers", "headers-refused", "a refusal", b"\4", ()),
        ("status", "no-message", "nothing behind result 0", b"\0", ()),
        ("status", "cut", "a byte is missing", status[:-1], ()),
        ("status", "trailing", "a byte too many", status + b"\0", ()),
        ("status", "no-result", "the message without a result", status[1:], ()),
    ]
    cases += [
        make_negative(DECODE_RESPONSE, bases[base], name, comment, {"payload": payload}, flags)
        for base, name, comment, payload, flags in rows
    ]
    cases.append(make_negative(DECODE_RESPONSE, bases["status"], "other-kind", "no headers", {"kind": "headers"}))
    return CaseFile(DECODE_RESPONSE, BY_HAND, tuple(cases), BOUNDARY)


def _locator_heights() -> CaseFile:
    heights = (0, 1, 2, 9, 10, 11, 12, 13, 100, 1000, 52_560, 2**32, 2**53 + 1, 2**63, 2**64 - 1)
    cases = tuple(Case(f"height-{height}", "from the head to genesis", {"height": height}) for height in heights)
    return CaseFile(COMPUTE_LOCATOR_HEIGHTS, BY_HAND, cases)


def _headers_request() -> CaseFile:
    hashes = _make_hashes()
    request = HeadersRequest((hashes[2], hashes[0]), bytes(32), 512)
    base = Case("most", "as many as fit", {"request": request}, ("boundary",))
    cases = [
        base,
        Case("one", "one header", {"request": replace(request, count=1)}, ("boundary",)),
        Case("stop", "up to a block", {"request": replace(request, stop=hashes[4])}),
        Case("longest-locator", "64 hashes", {"request": replace(request, locator=(hashes[0],) * 64)}),
    ]
    rows: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        ("count-0", {"count": 0}, ("boundary",)),
        ("count-513", {"count": 513}, ("boundary",)),
        ("count-most", {"count": 2**32 - 1}, ()),
        ("no-locator", {"locator": ()}, ()),
    )
    for name, changes, flags in rows:
        values = {"request": replace(request, **changes)}
        cases.append(make_negative(CHECK_HEADERS_REQUEST, base, name, "one field differs", values, flags))
    return CaseFile(CHECK_HEADERS_REQUEST, CHAIN_HOW, tuple(cases), BOUNDARY)


def _headers() -> CaseFile:
    chain, hashes = _make_chain(), _make_hashes()
    request = HeadersRequest((hashes[5], hashes[1], hashes[0]), bytes(32), 3)
    three = Headers(chain[2:5])
    base = Case("three", "as many as asked, after the second of the locator", {"request": request, "headers": three})
    to_stop = replace(request, stop=hashes[4])
    stopped = Case("stop", "the last one is the stop", {"request": to_stop, "headers": three}, ("boundary",))
    cases = [
        base,
        stopped,
        Case("none", "nothing is newer", {"request": request, "headers": Headers(())}),
        Case("one", "fewer than asked", {"request": request, "headers": Headers(chain[1:2])}),
        Case(
            "past-unknown-stop",
            "a stop that is not met",
            {"request": replace(request, stop=hashes[1]), "headers": three},
        ),
    ]

    def bad(base: Case, name: str, comment: str, flags: tuple[str, ...] = (), **changes: Any) -> None:
        cases.append(make_negative(CHECK_HEADERS, base, name, comment, changes, flags))

    fewer = replace(request, count=2)
    swapped, gap = (chain[2], chain[4], chain[3]), (chain[2], chain[4])
    bad(base, "one-too-many", "more than asked", ("boundary",), request=fewer)
    bad(base, "not-joined", "the first one's parent is not in the locator", headers=Headers(chain[3:5]))
    bad(base, "other-locator", "a locator of other blocks", request=replace(request, locator=(hashes[5], hashes[0])))
    bad(base, "gap", "one is missing between two", headers=Headers(gap))
    bad(base, "swapped", "the last two", headers=Headers(swapped))
    bad(base, "twice", "the same header twice", headers=Headers((chain[2], chain[2])))
    bad(stopped, "past-stop", "one header behind the stop", ("boundary",), request=replace(request, stop=hashes[3]))
    bad(stopped, "past-first", "two headers behind the stop", request=replace(request, stop=hashes[2]))
    return CaseFile(CHECK_HEADERS, CHAIN_HOW, tuple(cases), BOUNDARY)


def _blocks_request() -> CaseFile:
    hashes = _make_hashes()
    base = Case("three", "three blocks", {"request": BlocksRequest((hashes[1], hashes[2], hashes[3]))})
    most = tuple(derive_seed("networking", f"hash-{n}") for n in range(32))
    cases = [
        base,
        Case("one", "one block", {"request": BlocksRequest((hashes[0],))}, ("boundary",)),
        Case("most", "32 blocks", {"request": BlocksRequest(most)}),
    ]
    rows: tuple[tuple[str, str, tuple[Hash32, ...], tuple[str, ...]], ...] = (
        ("none", "no block", (), ("boundary",)),
        ("twice", "one twice, in a row", (hashes[1], hashes[2], hashes[2]), ()),
        ("twice-apart", "the first one again at the end", (hashes[1], hashes[2], hashes[1]), ()),
    )
    for name, comment, asked, flags in rows:
        values = {"request": BlocksRequest(asked)}
        cases.append(make_negative(CHECK_BLOCKS_REQUEST, base, name, comment, values, flags))
    return CaseFile(CHECK_BLOCKS_REQUEST, CHAIN_HOW, tuple(cases), BOUNDARY)


def _blocks() -> CaseFile:
    hashes, blocks = _make_hashes(), _make_blocks()
    request = BlocksRequest((hashes[1], hashes[2], hashes[3]))

    def answer(given: tuple[int, ...], lacking: tuple[int, ...]) -> dict[str, Any]:
        return {"blocks": Blocks(tuple(blocks[n] for n in given), tuple(hashes[n] for n in lacking))}

    def good(name: str, comment: str, given: tuple[int, ...], lacking: tuple[int, ...]) -> Case:
        return Case(name, comment, {"request": request} | answer(given, lacking))

    base = good("two-and-one", "two blocks, one lacking between them", (1, 3), (2,))
    cases = [
        base,
        good("all", "all blocks", (1, 2, 3), ()),
        good("first", "a part: the rest may be asked for again", (1,), ()),
        good("last", "a part", (3,), ()),
        good("all-lacking", "none is held", (), (1, 2, 3)),
        good("one-lacking", "a part of what is lacking", (), (2,)),
    ]
    rows: tuple[tuple[str, str, tuple[int, ...], tuple[int, ...]], ...] = (
        ("nothing", "neither a block nor a lacking hash", (), ()),
        ("not-asked", "a block that was not asked for", (1, 3, 4), (2,)),
        ("swapped", "not in the order of the request", (3, 1), (2,)),
        ("twice", "a block twice", (1, 1), (2,)),
        ("both", "given and lacking", (1, 3), (3,)),
        ("lacking-not-asked", "a lacking hash that was not asked for", (1, 3), (4,)),
        ("lacking-twice", "a lacking hash twice", (1, 3), (2, 2)),
        ("lacking-swapped", "lacking hashes in another order", (), (2, 1)),
    )
    for name, comment, given, lacking in rows:
        cases.append(make_negative(CHECK_BLOCKS, base, name, comment, answer(given, lacking)))
    cases.append(
        make_negative(
            CHECK_BLOCKS, base, "other-request", "other blocks were asked for",
            {"request": BlocksRequest((hashes[1], hashes[2], hashes[4]))},
        )
    )  # fmt: skip
    return CaseFile(CHECK_BLOCKS, CHAIN_HOW + " Bodies and traces are empty.", tuple(cases))


def _verdict() -> CaseFile:
    cases = [Case("no-error", "every rule is kept", {"error": None})]
    for name in CLASSES:
        for code in (*GOSSIP_CODES[name], *OTHER_CODES.get(name, ())):
            error = {"code": code, "class": name}
            flags = ("false-work",) if code in page.FALSE_WORK else ()
            cases.append(Case(code.replace("/", "-"), f"{name}", {"error": error}, flags))
    flag = ("a replay found it", "a client that lets such a peer stay pays a replay for each of its forgeries")
    return CaseFile(
        GET_VERDICT, "Every code that gossip meets, and some of requests.", tuple(cases), {"false-work": flag}
    )
