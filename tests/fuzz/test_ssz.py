"""Every container that travels or lies in a file, through the one function that decodes them."""

from typing import Any

import pytest

from poai_spec.basics.containers import Block, Body, Header, HeaderCore
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.parameters import Config, ModelManifest
from poai_spec.chain.networking import (
    Blocks,
    BlocksRequest,
    Goodbye,
    Headers,
    HeadersRequest,
    Result,
    Status,
    decode_response,
    encode_response,
)
from poai_spec.proof.corpus import Corpus, CorpusItem
from poaid.layout import decode_header, encode_header
from tests.harness.driving import WIRE, drive, judge
from tests.harness.mutation import break_one, make_pool

KINDS = [
    HeaderCore, Header, Body, Block, Status, HeadersRequest, Headers, BlocksRequest, Blocks, Goodbye, Config,
    ModelManifest, Corpus, CorpusItem,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_decodes_has_this_encoding(kind: type) -> None:
    def read(data: bytes) -> str:
        def check() -> None:
            assert encode(decode(kind, data)) == data

        return judge(check)

    seen = drive(f"SSZ {kind.__name__}", break_one(make_pool(kind)), 200, read, long=WIRE)
    assert set(seen) == {"accepted", "encoding/undecodable"}


@pytest.mark.parametrize("kind", [Status, Headers, Blocks])
def test_responses(kind: type[Any]) -> None:
    def read(payload: bytes) -> str:
        def check() -> None:
            assert encode_response(Result.OK, decode_response(kind, payload)) == payload

        return judge(check)

    refusals = [bytes([result]) for result in Result]
    payloads = [encode_response(Result.OK, decode(kind, data)) for data in make_pool(kind)] + refusals * 4
    seen = drive(f"response {kind.__name__}", break_one(payloads), 150, read, long=WIRE)
    assert {"networking/response", "networking/refused", "encoding/undecodable"} < set(seen)


def test_headers_as_a_node_reads_them() -> None:
    """The fast reader and the page refuse the same bytes, and read the same header from the others."""

    def read(data: bytes) -> str:
        def check() -> None:
            header = decode_header(data)
            assert header == decode(Header, data)
            assert encode_header(header) == data

        outcome = judge(check)
        assert outcome == judge(lambda: decode(Header, data))
        return outcome

    drive("header, fast reader", break_one(make_pool(Header)), 300, read, long=WIRE)
