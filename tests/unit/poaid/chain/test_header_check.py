"""The header checks on bytes: equal to the specification's, value for value and code for code."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poai_spec.basics.containers import Header, HeaderCore, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Hash32, Malformed, Milliseconds, SpecError
from poai_spec.chain.header import check_header_alone, check_header_in_chain
from poai_spec.chain.upgrades import get_rules
from poaid.chain.header_check import check_encoded_header
from poaid.layout import HEADER_BYTES, decode_header, encode_header
from tests.harness.spec import Branch, get_config, make_core, wins

START = get_config().genesis_timestamp
STAMPS = (1000, 1200, 1500, 1700, 2500, 2600, 4000, 6000, 8500, 8600)
"""Stamps of ten blocks after genesis: four epochs, a harder target from block 6 on, an easier one from block 10 on."""
NOW: Milliseconds = START + 20_000

hashes = st.binary(min_size=32, max_size=32)
uint64 = st.integers(0, 2**64 - 1)
headers = st.builds(
    Header,
    st.builds(
        HeaderCore,
        st.integers(0, 2**32 - 1), uint64, hashes, uint64, st.integers(0, 2**256 - 1),
        st.binary(min_size=20, max_size=20), hashes, hashes, uint64,
    ),
    uint64,
    hashes,
)  # fmt: skip


@cache
def get_branch() -> Branch:
    branch = Branch.start()
    for stamp in STAMPS:
        branch.grow(START + stamp)
    return branch


def judge(data: bytes, chain: list[Header], now: Milliseconds) -> tuple[Header, Hash32] | tuple[type[SpecError], str]:
    """Return what the checks here say."""
    try:
        return check_encoded_header(
            data, chain, [compute_block_hash(header) for header in chain], get_rules(get_config(), (), 0), now
        )
    except SpecError as error:
        return type(error), error.code


def judge_by_pages(
    data: bytes, chain: list[Header], now: Milliseconds
) -> tuple[Header, Hash32] | tuple[type[SpecError], str]:
    """Return what the pages say."""
    try:
        header = decode(Header, data)
        check_header_alone(header)
        check_header_in_chain(header, chain, get_rules(get_config(), (), 0), now)
    except SpecError as error:
        return type(error), error.code
    return header, compute_block_hash(header)


def win(header: Header, chain: list[Header]) -> Header:
    """Change the loss until the header is below its own target, or for a while."""
    for _ in range(64):
        if wins(header, chain):
            break
        header = replace(header, loss=(header.loss + 1) % 2**64)
    return header


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
@settings(max_examples=300, deadline=None)
def test_every_216_bytes_are_the_header_that_ssz_reads(data: bytes) -> None:
    header = decode_header(data)
    assert header == decode(Header, data)
    assert encode_header(header) == encode(header) == data


@given(headers)
@settings(max_examples=300, deadline=None)
def test_every_header_has_the_bytes_that_ssz_writes(header: Header) -> None:
    assert encode_header(header) == encode(header)
    assert decode_header(encode(header)) == header


@given(st.binary(max_size=3 * HEADER_BYTES))
@settings(max_examples=300, deadline=None)
@example(b"")
@example(bytes(HEADER_BYTES - 1))
@example(bytes(HEADER_BYTES + 1))
@example(bytes(2 * HEADER_BYTES))
def test_other_lengths_are_refused_as_ssz_refuses_them(data: bytes) -> None:
    for read in (decode_header, lambda given: decode(Header, given)):
        if len(data) == HEADER_BYTES:
            read(data)
            continue
        with pytest.raises(Malformed) as error:
            read(data)
        assert error.value.code == "encoding/undecodable"


def test_a_true_chain_passes_header_by_header() -> None:
    chain = get_branch().chain
    for height in range(1, len(chain)):
        found = judge(encode(chain[height]), chain[:height], NOW)
        assert found == (chain[height], compute_block_hash(chain[height]))


FAULTS: dict[str, dict[str, Any]] = {
    "header/version": {"version": 2},
    "body/transactions-not-active": {"body_root": bytes(32)},
    "header/parent": {"parent_hash": bytes(32)},
    "header/height": {"height": 6},
    "difficulty/target": {"target": 1},
    "header/median-time": {"timestamp": 0},
    "header/future": {"timestamp": NOW + get_config().max_future + 1},
}


@pytest.mark.parametrize("height", [1, 2, 5, 8, len(STAMPS)])
@pytest.mark.parametrize("code", [*FAULTS, "work/l-hat"])
def test_each_rule_is_refused_by_its_code(code: str, height: int) -> None:
    chain = get_branch().chain
    header, ancestors = chain[height], chain[:height]
    core = replace(header.core, **FAULTS.get(code, {}))
    if code == "header/height":
        core = replace(core, height=height + 1)
    header = win(replace(header, core=core), ancestors)
    while code == "work/l-hat" and wins(header, ancestors):
        header = replace(header, loss=header.loss + 1)
    found = judge(encode(header), ancestors, NOW)
    assert found == judge_by_pages(encode(header), ancestors, NOW)
    assert found[1] == code


def test_a_period_that_does_not_move_forward_is_refused() -> None:
    config, branch = get_config(), Branch.start()
    for stamp in (1, 2, 3, 4, 5000, 5, 6, 7):
        branch.grow(START + stamp)
    assert len(branch.chain) == 2 * config.retarget_blocks + 1
    header = win(Header(make_core(branch.chain, branch.state, START + 8), 0, bytes(32)), branch.chain)
    found = judge(encode(header), branch.chain, NOW)
    assert found == judge_by_pages(encode(header), branch.chain, NOW)
    assert found[1] == "difficulty/period-not-forward"


changes = st.fixed_dictionaries(
    {},
    optional={
        "version": st.integers(0, 3),
        "height": st.integers(0, 12),
        "timestamp": st.integers(START - 10, NOW + 2 * get_config().max_future),
        "target": st.integers(0, 2**256 - 1),
        "nonce": uint64,
        "parent_hash": hashes,
        "body_root": hashes,
        "state_root": hashes,
    },
)


@given(
    st.integers(1, len(STAMPS)), st.integers(1, len(STAMPS)), changes, uint64, st.booleans(), st.integers(0, 40_000)
)  # fmt: skip
@settings(max_examples=1000, deadline=None)
def test_every_verdict_is_the_pages(
    height: int, parent: int, change: dict[str, Any], loss: int, winning: bool, clock: int
) -> None:
    chain = get_branch().chain
    header = Header(replace(chain[height].core, **change), loss, chain[height].trace_digest)
    for ancestors in (chain[:height], chain[:parent]):
        offered = win(header, ancestors) if winning else header
        data = encode(offered)
        assert judge(data, ancestors, START + clock) == judge_by_pages(data, ancestors, START + clock)
