"""Loss and trace: the bytes that are hashed, and that nothing in them can be swapped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poai_spec.model.loss import (
    compute_l_hat,
    compute_layer_entry,
    compute_output_entry,
    compute_trace_digest,
    is_below_target,
)
from poai_spec.basics.notation import keccak256

INT32 = st.integers(-(2**31), 2**31 - 1)
QUANTISED = st.integers(-127, 127)


def tagged(tag: bytes, data: bytes) -> bytes:
    return keccak256(keccak256(tag) + data)


def test_a_layer_entry_by_hand() -> None:
    row = bytes.fromhex("00400000 ffffffff 00000080 ffffff7f")
    expected = tagged(b"PoAI/trace/1", bytes.fromhex("0a000000") + row)
    assert compute_layer_entry(10, [16384, -1, -(2**31), 2**31 - 1]) == expected


def test_an_output_entry_by_hand() -> None:
    data = bytes.fromhex("030904 7f f9  000007 00 81  0000010000000000")
    assert compute_output_entry([(3, 9, 4), (0, 0, 7)], [[127, -7], [0, -127]], [65536]) == tagged(
        b"PoAI/trace-output/1", data
    )


def test_a_digest_and_l_hat_by_hand() -> None:
    trace = [b"a" * 32, b"b" * 32]
    digest = tagged(b"PoAI/trace-digest/1", b"a" * 32 + b"b" * 32)
    assert compute_trace_digest(trace) == digest
    l_hat = tagged(b"PoAI/l-hat/1", b"s" * 32 + bytes.fromhex("0201000000000000") + digest)
    assert compute_l_hat(b"s" * 32, 258, digest) == int.from_bytes(l_hat, "big")


@given(st.integers(1, 256), st.lists(INT32, min_size=1, max_size=8), st.data())
def test_every_value_of_a_row_and_the_layer_count(layer: int, row: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(row) - 1))
    other = data.draw(INT32.filter(lambda value: value != row[place]))
    entry = compute_layer_entry(layer, row)
    assert compute_layer_entry(layer, [*row[:place], other, *row[place + 1 :]]) != entry
    assert compute_layer_entry(layer + 1, row) != entry


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.data())
def test_every_value_of_the_head_input_and_every_nll_counts(
    positions: int, width: int, scored: int, data: st.DataObject
) -> None:
    scale = st.tuples(st.integers(0, 18), st.integers(0, 13), st.integers(4, 7))
    scales = data.draw(st.lists(scale, min_size=positions, max_size=positions))
    row = st.lists(QUANTISED, min_size=width, max_size=width)
    rows = data.draw(st.lists(row, min_size=positions, max_size=positions))
    nlls = data.draw(st.lists(st.integers(0, 2**64 - 2), min_size=scored, max_size=scored))
    entry = compute_output_entry(scales, rows, nlls)
    t, i, n = (data.draw(st.integers(0, size - 1)) for size in (positions, width, scored))
    changed = [list(values) for values in rows]
    changed[t][i] = -changed[t][i] or 1
    part = data.draw(st.integers(0, 2))
    others = [tuple(v + (index == t and n == part) for n, v in enumerate(scale)) for index, scale in enumerate(scales)]
    other_nlls = [nll + (index == n) for index, nll in enumerate(nlls)]
    assert compute_output_entry(scales, changed, nlls) != entry
    assert compute_output_entry(others, rows, nlls) != entry
    assert compute_output_entry(scales, rows, other_nlls) != entry


def test_rows_and_scales_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        compute_output_entry([(0, 0, 4)], [[1], [2]], [0])


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=6, unique=True))
def test_the_order_and_number_of_entries_count(trace: list[bytes]) -> None:
    digest = compute_trace_digest(trace)
    assert compute_trace_digest(trace[::-1]) != digest
    assert compute_trace_digest(trace[:-1]) != digest


def test_below_means_strictly_below() -> None:
    assert is_below_target(4, 5)
    assert not is_below_target(5, 5)
    assert is_below_target(0, 1)
    assert not is_below_target(2**256 - 1, 2**256 - 1)
