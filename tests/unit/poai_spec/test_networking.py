"""Messages between nodes: exact sizes, answers that are no answers, verdicts, and the tables of the page."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.chain import networking
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.basics.containers import Block, Header, HeaderCore, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.chain.networking import (
    BAN_SCORE,
    LOCATOR_DENSE,
    MAX_BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_BLOCKS_BYTES,
    MAX_BLOCKS_REQUEST_BYTES,
    MAX_GOODBYE_BYTES,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_HEADERS_REQUEST_BYTES,
    MAX_LOCATOR,
    MAX_STATUS_BYTES,
    PENALTY_HALF_LIFE_MS,
    RESULT_BYTES,
    Blocks,
    BlocksRequest,
    Goodbye,
    Headers,
    HeadersRequest,
    Reason,
    Result,
    Status,
    Verdict,
    check_blocks,
    check_blocks_request,
    check_frame_length,
    check_gossip_size,
    check_headers,
    check_headers_request,
    check_topic,
    compute_locator_heights,
    compute_message_id,
    decode_response,
    encode_frame,
    encode_response,
    get_block_bytes,
    get_blocks_topic,
    get_penalty,
    get_verdict,
)
from poai_spec.basics.notation import Invalid, Malformed, NotYet, SpecError
from poai_spec.basics.parameters import MAX_TRACE, get_preset
from poai_spec.chain.upgrades import get_rules

PAGE = (Path(__file__).parents[3] / "specs" / "chain" / "networking.md").read_text("utf-8")
CLASSES: dict[str, type[SpecError]] = {"Invalid": Invalid, "Malformed": Malformed, "NotYet": NotYet}
STATUS = Status(1, b"\1" * 32, b"\5" * 4, 6, b"\2" * 32, 3, 4, 0, 0)
NOWHERE = bytes(32)


def make_chain(length: int) -> list[Header]:
    """Linked headers; nothing else about them is true."""
    chain: list[Header] = []
    parent = b"\7" * 32
    for height in range(length):
        core = HeaderCore(1, height, parent, 0, 1, bytes(20), bytes(32), bytes(32), 0)
        chain.append(Header(core, 0, bytes(32)))
        parent = compute_block_hash(chain[-1])
    return chain


CHAIN = make_chain(6)
HASHES = [compute_block_hash(header) for header in CHAIN]
LARGEST = Block(CHAIN[0], EMPTY_BODY, (bytes(32),) * MAX_TRACE)


@contextmanager
def fails(code: str, kind: type[SpecError] = Malformed) -> "Iterator[pytest.ExceptionInfo[SpecError]]":
    """Expect a rejection with its class and code."""
    with pytest.raises(kind) as error:
        yield error
    assert error.value.code == code


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (MAX_STATUS_BYTES, STATUS),
        (MAX_HEADERS_REQUEST_BYTES, HeadersRequest((NOWHERE,) * MAX_LOCATOR, NOWHERE, MAX_HEADERS)),
        (MAX_HEADERS_BYTES, Headers((CHAIN[0],) * MAX_HEADERS)),
        (MAX_BLOCKS_REQUEST_BYTES, BlocksRequest((NOWHERE,) * MAX_BLOCKS)),
        (MAX_BLOCKS_BYTES, Blocks((LARGEST,) * MAX_BLOCKS, ())),
        (MAX_GOODBYE_BYTES, Goodbye(Reason.USELESS)),
        (MAX_BLOCK_BYTES, LARGEST),
    ],
)
def test_a_limit_is_the_size_of_the_largest_message(limit: int, message: object) -> None:
    data = encode(message)
    assert len(data) == limit
    assert decode(type(message), data) == message


@pytest.mark.parametrize("given_blocks", range(MAX_BLOCKS + 1))
def test_lacking_blocks_take_less_than_blocks(given_blocks: int) -> None:
    message = Blocks((LARGEST,) * given_blocks, (NOWHERE,) * (MAX_BLOCKS - given_blocks))
    assert len(encode(message)) <= MAX_BLOCKS_BYTES


def test_the_tables_give_the_values_of_the_constants() -> None:
    rows = re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \| ([0-9,]+) \|", PAGE, re.MULTILINE)
    stated = {name: int(value.replace(",", "")) for name, value in rows}
    numbers = {
        name: value
        for name, value in vars(networking).items()
        if name.isupper() and isinstance(value, int) and name not in ("MAX_TRACE", "FORK_HASH_BYTES")
    }
    assert stated == numbers


def test_the_results_stand_in_their_table() -> None:
    rows = re.findall(r"^\| (\d) \| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert {name: int(value) for value, name in rows} == {result.name: result.value for result in Result}


def read_verdicts() -> list[tuple[str, str, str, int]]:
    """Return code, class, verdict and points of the page's table of verdicts."""
    rows = re.findall(r"^\| (`[^|]+`) \| (\w+) \| (\w+) \| (\d+) \|$", PAGE, re.MULTILINE)
    return [
        (code, kind, verdict, int(points)) for cell, kind, verdict, points in rows for code in cell[1:-1].split("` `")
    ]


def test_the_table_of_verdicts_has_every_rule_for_a_block() -> None:
    text = (Path(__file__).parents[3] / "specs" / "chain" / "block.md").read_text("utf-8")
    order = dict(re.findall(r"^\| \d+ \| `([^`]+)` \| (\w+) \|", text, re.MULTILINE))
    listed = [(code, kind) for code, kind, _, _ in read_verdicts()]
    assert sorted(listed) == sorted(
        {**order, "networking/block-size": "Malformed", "networking/topic": "Malformed"}.items()
    )


@pytest.mark.parametrize(("code", "kind", "verdict", "points"), read_verdicts())
def test_a_verdict_is_that_of_the_table(code: str, kind: str, verdict: str, points: int) -> None:
    error = CLASSES[kind](code)
    assert (get_verdict(error), get_penalty(error)) == (Verdict(verdict), points)


def test_a_good_message_is_accepted_and_free() -> None:
    assert (get_verdict(None), get_penalty(None)) == (Verdict.ACCEPT, 0)


def test_a_code_of_false_work_bans_in_its_class_only() -> None:
    assert get_penalty(Malformed("work/trace")) < BAN_SCORE
    assert get_penalty(NotYet("work/trace")) == 0


@pytest.mark.parametrize(
    ("error", "count"), [(Invalid("work/loss"), 1), (Invalid("header/height"), 2), (Malformed("body/root"), 4)]
)
def test_how_many_faults_in_a_row_ban(error: SpecError, count: int) -> None:
    assert (count - 1) * get_penalty(error) < BAN_SCORE <= count * get_penalty(error)


def test_one_malformed_message_a_half_life_never_bans() -> None:
    assert PENALTY_HALF_LIFE_MS == 10 * 60 * 1000
    score = 0
    for _ in range(100):
        score = score // 2 + get_penalty(Malformed("body/root"))
    assert score < BAN_SCORE


def test_topics_tell_networks_apart_and_protocols_do_not() -> None:
    here, there = (get_rules(get_preset(name), (), 0) for name in ("minimal", "testnet"))
    assert get_blocks_topic(here) == f"/poai/{here.digest[:4].hex()}/blocks/1"
    assert get_blocks_topic(here) != get_blocks_topic(there)
    check_topic(get_blocks_topic(here), here)
    with fails("networking/topic"):
        check_topic(get_blocks_topic(here), there)


def test_a_message_id_is_sha_256() -> None:
    # printf 'a\0c' | sha256sum
    known = "b179f49283f586ae1922b625af4017aecdf77e7ee175c0af675abea14252a666"
    assert compute_message_id("a", b"c").hex() == known
    assert compute_message_id("a", b"c") != compute_message_id("ac", b"")
    assert compute_message_id("/x/1", b"c") != compute_message_id("/x/2", b"c")


@given(st.binary(max_size=300))
def test_a_frame_is_its_length_and_its_payload(payload: bytes) -> None:
    frame = encode_frame(payload)
    length = int.from_bytes(frame[:4], "little")
    assert frame[4:] == payload
    check_frame_length(length, len(payload))
    with fails("networking/frame-length"):
        check_frame_length(length + 1, len(payload))


def test_the_largest_block_travels_and_a_byte_more_does_not() -> None:
    config = get_preset("minimal")
    rules = get_rules(replace(config, model=replace(config.model, layer_count=MAX_TRACE - 1)), (), 0)
    check_gossip_size(encode(LARGEST), rules)
    with fails("networking/block-size"):
        check_gossip_size(encode(LARGEST) + b"\0", rules)


def test_every_set_of_rules_has_its_own_block_size() -> None:
    rules = get_rules(get_preset("minimal"), (), 0)
    assert get_block_bytes(rules) == 216 + 12 + 4 * 32
    with fails("networking/block-size"):
        check_gossip_size(bytes(get_block_bytes(rules) + 1), rules)


@pytest.mark.parametrize("message", [STATUS, Headers(tuple(CHAIN)), Blocks((LARGEST,), (HASHES[1],))])
def test_a_response_is_read_back(message: Status | Headers | Blocks) -> None:
    payload = encode_response(Result.OK, message)
    assert len(payload) == RESULT_BYTES + len(encode(message))
    assert decode_response(type(message), payload) == message


@pytest.mark.parametrize("result", [result for result in Result if result != Result.OK])
def test_a_refusal_names_its_reason(result: Result) -> None:
    payload = encode_response(result)
    with fails("networking/refused", NotYet) as error:
        decode_response(Status, payload)
    assert result.name in error.value.detail
    with fails("networking/response"):
        decode_response(Status, payload + b"\0")


def test_a_message_goes_with_ok_alone() -> None:
    for result, message in ((Result.OK, None), (Result.NOT_AT_HAND, STATUS)):
        with pytest.raises(AssertionError):
            encode_response(result, message)


@given(st.binary(max_size=200), st.sampled_from([Status, Headers, Blocks]))
def test_any_bytes_are_a_response_or_refused_by_a_code(payload: bytes, kind: type[Status | Headers | Blocks]) -> None:
    try:
        message = decode_response(kind, payload)
    except (Malformed, NotYet) as error:
        assert error.code in {"networking/response", "networking/refused", "encoding/undecodable"}  # noqa: PT017
    else:
        assert encode_response(Result.OK, message) == payload


@given(st.integers(0, 2**64 - 1))
def test_a_locator_goes_down_to_genesis(height: int) -> None:
    heights = compute_locator_heights(height)
    assert len(heights) <= MAX_LOCATOR
    assert heights[0] == height
    assert heights[-1] == 0
    assert heights == sorted(set(heights), reverse=True)
    assert heights[:LOCATOR_DENSE] == [height - n for n in range(min(LOCATOR_DENSE, height + 1))]


@given(st.integers(0, 2**50), st.data())
def test_a_locator_overshoots_a_fork_by_its_depth_at_most(height: int, data: st.DataObject) -> None:
    """With a fork so many blocks back, no more than as many headers, and one, are sent that are known already."""
    fork = data.draw(st.integers(0, height))
    common = next(found for found in compute_locator_heights(height) if found <= fork)
    assert fork - common <= height - fork + 1


@pytest.mark.parametrize(("count", "good"), [(0, False), (1, True), (512, True), (513, False)])
def test_the_count_of_headers_is_bounded(count: int, good: bool) -> None:
    request = HeadersRequest((HASHES[0],), NOWHERE, count)
    if good:
        check_headers_request(request)
        return
    with fails("networking/headers-request"):
        check_headers_request(request)


def test_a_request_for_headers_needs_a_locator() -> None:
    with fails("networking/headers-request"):
        check_headers_request(HeadersRequest((), NOWHERE, 1))


@pytest.mark.parametrize("size", range(4))
def test_headers_answer_if_they_follow_each_other_from_the_locator_on(size: int) -> None:
    """Of all orders of all headers, those that are a stretch of the chain, begun after a block of the locator."""
    request = HeadersRequest((HASHES[3], HASHES[0]), NOWHERE, 512)
    for chosen in permutations(range(6), size):
        headers = Headers(tuple(CHAIN[n] for n in chosen))
        linked = all(later == earlier + 1 for earlier, later in pairwise(chosen))
        if linked and (not chosen or chosen[0] in (1, 4)):
            check_headers(request, headers)
            continue
        with fails("networking/headers-response"):
            check_headers(request, headers)


def test_no_more_headers_than_asked_and_none_behind_the_stop() -> None:
    request, headers = HeadersRequest((HASHES[0],), HASHES[3], 3), Headers(tuple(CHAIN[1:4]))
    check_headers(request, headers)
    for changed in (replace(request, count=2), replace(request, stop=HASHES[2]), replace(request, stop=HASHES[1])):
        with fails("networking/headers-response"):
            check_headers(changed, headers)
    check_headers(replace(request, stop=HASHES[0]), headers)


def test_a_request_for_blocks_names_each_once() -> None:
    check_blocks_request(BlocksRequest((HASHES[0], HASHES[1])))
    for hashes in ((), (HASHES[0], HASHES[1], HASHES[0])):
        with fails("networking/blocks-request"):
            check_blocks_request(BlocksRequest(hashes))


def test_blocks_answer_if_each_asked_one_is_given_or_lacking_at_most_once_in_order() -> None:
    """All ways to give and to lack up to two of four, where three were asked for."""
    asked = (0, 1, 2)
    some = [chosen for size in range(3) for chosen in permutations(range(4), size)] + [(1, 1)]
    good = [chosen for size in range(3) for chosen in combinations(asked, size)]
    request = BlocksRequest(tuple(HASHES[n] for n in asked))
    for given_blocks in some:
        for lacking in some:
            blocks = Blocks(
                tuple(Block(CHAIN[n], EMPTY_BODY, ()) for n in given_blocks), tuple(HASHES[n] for n in lacking)
            )
            apart = not set(given_blocks) & set(lacking)
            if given_blocks in good and lacking in good and apart and given_blocks + lacking:
                check_blocks(request, blocks)
                continue
            with fails("networking/blocks-response"):
                check_blocks(request, blocks)
