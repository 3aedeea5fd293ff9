"""`poaid verify`: a good chain passes; any changed byte, and any forgery, is named by block and rule."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import rlp

from poai_engine.engines.reference import ReferenceEngine
from poai_engine.models.gguf_file import read_gguf
from poai_spec.basics.containers import Block, Body, Header, HeaderCore, compute_block_hash
from poai_spec.basics.encoding import decode, encode, get_sedes
from poai_spec.basics.notation import Hash32, NotYet, SpecError, uint64_le
from poai_spec.basics.parameters import Config
from poai_spec.chain.block import check_block, make_judge
from poai_spec.chain.production import make_template
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import Account, encode_account
from poai_spec.model.loss import compute_l_hat, compute_trace_digest, is_below_target
from poai_spec.proof.lexicon import PIECES
from poai_spec.proof.work import check_engine, get_quiz_seed
from poaid.chain import verify
from poaid.chain.verify import BlockError, verify_store
from poaid.errors import NodeError
from poaid.models import load_engine
from poaid.produce.attempts import run_attempts
from poaid.store.database import Database
from tests.harness.node import BLOCKS, MINER, AlteredStore, Row, change, ignore, run_sql
from tests.unit.poaid.conftest import MinedChain

MIDDLE = 4
"""Height of the block whose every byte is changed: first of epoch 2, and the first with another target."""


@pytest.fixture
def altered(mined: MinedChain) -> Iterator[AlteredStore]:
    with AlteredStore.open(mined.folder) as store:
        yield store


def check(store: Database, mined: MinedChain) -> None:
    verify_store(store, mined.judge, mined.now, ignore)


def find_fault(store: AlteredStore, mined: MinedChain, rows: dict[int, Row]) -> BlockError:
    """Return how the chain fails with some rows replaced."""
    store.rows = rows
    with pytest.raises(BlockError) as caught:
        check(store, mined)
    return caught.value


def make_row(block: Block) -> tuple[Hash32, bytes]:
    return compute_block_hash(block.header), encode(block)


# A good chain


def test_the_chain_has_what_these_tests_need(mined: MinedChain) -> None:
    targets = [header.core.target for header in mined.headers]
    assert targets[1] == targets[2] == targets[3] < targets[4] == targets[5] > targets[6] == targets[7] < targets[8]
    assert len(mined.headers) - 1 == BLOCKS >= 3 * mined.network.config.epoch_blocks
    assert sum(header.core.nonce for header in mined.headers) > 100


def test_a_mined_chain_passes(mined: MinedChain) -> None:
    passed: list[int] = []
    judge = make_judge(
        mined.judge.config,
        mined.judge.models[0].questions,
        load_engine("mini", get_rules(mined.network.config, (), 0), 1),
    )
    with Database.open(mined.folder) as store:
        state = verify_store(store, judge, mined.now, passed.append)
    assert passed == list(range(1, BLOCKS + 1))
    assert state == mined.state == {MINER: Account(balance=BLOCKS * 5 * 10**18)}


@pytest.mark.parametrize("size", [1, 3, BLOCKS, 1_000])
def test_the_size_of_batches_changes_nothing(mined: MinedChain, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BATCH_BLOCKS", size)
    passed: list[int] = []
    with Database.open(mined.folder) as store:
        verify_store(store, mined.judge, mined.now, passed.append)
    assert passed == list(range(1, BLOCKS + 1))


def test_the_reference_engine_agrees(mined: MinedChain, mini_path: Path) -> None:
    judge = make_judge(mined.judge.config, mined.judge.models[0].questions, ReferenceEngine(read_gguf(mini_path)))
    check_engine(judge.models[0].engine, get_rules(mined.network.config, (), 0))
    for height in (1, MIDDLE):
        state = {MINER: Account(balance=(height - 1) * 5 * 10**18)} if height > 1 else {}
        after = check_block(mined.blocks[height - 1], mined.headers[:height], state, judge, mined.now)
        assert after == {MINER: Account(balance=height * 5 * 10**18)}


def test_a_stamp_ahead_of_the_clock_is_named(mined: MinedChain) -> None:
    last = mined.headers[-1].core.timestamp
    with Database.open(mined.folder) as store:
        verify_store(store, mined.judge, last - mined.network.config.max_future, ignore)
        with pytest.raises(BlockError) as caught:
            verify_store(store, mined.judge, last - mined.network.config.max_future - 1, ignore)
    assert (caught.value.height, caught.value.code) == (BLOCKS, "header/future")
    assert isinstance(caught.value.__cause__, NotYet)


# Every byte


@dataclass(frozen=True)
class Span:
    """Where a field lies in the encoding of a block."""

    name: str
    start: int
    size: int


def walk_block(block: Block) -> list[Span]:
    """Return the fields of a block's encoding in order: SSZ puts offsets in place of what has no fixed size."""
    spans, at = [], 0

    def add(name: str, size: int) -> None:
        nonlocal at
        spans.append(Span(name, at, size))
        at += size

    for f in fields(HeaderCore):
        add(f"core.{f.name}", get_sedes(f.metadata["sedes"]).get_fixed_size())
    for f in fields(Header)[1:]:
        add(f"header.{f.name}", get_sedes(f.metadata["sedes"]).get_fixed_size())
    add("offset of body", 4)
    add("offset of trace", 4)
    add("body", len(encode(block.body)))
    for index in range(len(block.trace)):
        add(f"trace[{index}]", 32)
    return spans


TIME_RULES = {"header/median-time", "difficulty/period-not-forward", "header/future", "work/l-hat", "work/trace"}
ENCODING = {"encoding/undecodable", "encoding/not-canonical"}
EXPECTED = {
    "core.version": {"header/version"},
    "core.height": {"header/height"},
    "core.parent_hash": {"header/parent"},
    "core.timestamp": TIME_RULES,
    "core.target": {"difficulty/target"},
    "core.miner": {"work/l-hat", "state/root"},
    "core.body_root": {"body/transactions-not-active"},
    "core.state_root": {"work/l-hat", "state/root"},
    "core.nonce": {"work/l-hat", "work/trace"},
    "header.loss": {"work/l-hat", "work/loss"},
    "header.trace_digest": {"work/l-hat", "work/trace-digest"},
    "offset of body": ENCODING,
    "offset of trace": ENCODING,
    "body": ENCODING,
    "trace[0]": {"work/trace-digest"},
    "trace[1]": {"work/trace-digest"},
    "trace[2]": {"work/trace-digest"},
    "trace[3]": {"work/trace-digest"},
}
"""Codes by the field that is changed; where there are two, the first fails to but one changed value in 29."""


def test_the_fields_are_where_they_are_said_to_be(mined: MinedChain) -> None:
    block, data = mined.blocks[MIDDLE - 1], mined.data[MIDDLE - 1]
    spans = walk_block(block)
    assert [span.name for span in spans] == list(EXPECTED)
    assert spans[-1].start + spans[-1].size == len(data)
    found = {span.name: data[span.start : span.start + span.size] for span in spans}
    assert found["core.miner"] == MINER
    assert found["core.nonce"] == uint64_le(block.header.core.nonce)
    assert found["header.loss"] == uint64_le(block.header.loss)
    assert [found[f"trace[{index}]"] for index in range(4)] == list(block.trace)


@pytest.mark.parametrize("mask", [1, 255])
def test_every_changed_byte_of_a_block_is_named(mined: MinedChain, altered: AlteredStore, mask: int) -> None:
    block, data = mined.blocks[MIDDLE - 1], mined.data[MIDDLE - 1]
    by_luck = Counter[bool]()
    for span in walk_block(block):
        for position in range(span.start, span.start + span.size):
            row = (compute_block_hash(block.header), change(data, position, mask))
            fault = find_fault(altered, mined, {MIDDLE: row})
            assert fault.height == MIDDLE, position
            assert fault.code in EXPECTED[span.name], (position, span, fault)
            assert str(fault).startswith(f"block {MIDDLE} breaks the rule {fault.code}: ")
            if "work/l-hat" in EXPECTED[span.name] and span.name != "core.timestamp":
                by_luck[fault.code != "work/l-hat"] += 1
    assert by_luck.total() == 100
    assert by_luck[True] <= 12  # the target lets one in 29 pass the hash


@pytest.mark.parametrize("height", [height for height in range(1, BLOCKS + 1) if height != MIDDLE])
def test_a_changed_byte_of_every_field_of_every_block_is_named(
    mined: MinedChain, altered: AlteredStore, height: int
) -> None:
    block, data = mined.blocks[height - 1], mined.data[height - 1]
    for span in walk_block(block):
        changed = change(data, span.start + height % span.size, 1 << height % 8)
        fault = find_fault(altered, mined, {height: (compute_block_hash(block.header), changed)})
        assert fault.height == height
        assert fault.code in EXPECTED[span.name], (span, fault)


@pytest.mark.parametrize("changed", [b"\0", b"\0" * 31, b"\xff" * 32], ids=["a byte", "31 bytes", "another entry"])
def test_bytes_after_the_end_are_named(mined: MinedChain, altered: AlteredStore, changed: bytes) -> None:
    data, block_hash = mined.data[MIDDLE - 1], compute_block_hash(mined.headers[MIDDLE])
    fault = find_fault(altered, mined, {MIDDLE: (block_hash, data + changed)})
    # Thirty-two more bytes are one more entry of the list: they decode, but the header does not commit to them.
    expected = {"work/trace-digest"} if len(changed) == 32 else ENCODING
    assert (fault.height, fault.code in expected) == (MIDDLE, True), fault


def test_a_block_cut_short_anywhere_is_named(mined: MinedChain, altered: AlteredStore) -> None:
    data, block_hash = mined.data[MIDDLE - 1], compute_block_hash(mined.headers[MIDDLE])
    for length in range(len(data)):
        fault = find_fault(altered, mined, {MIDDLE: (block_hash, data[:length])})
        whole_entries = length >= 228 and (length - 228) % 32 == 0
        expected = {"work/trace-digest"} if whole_entries else ENCODING
        assert (fault.height, fault.code in expected) == (MIDDLE, True), (length, fault)


def test_a_block_in_place_of_another_is_named(mined: MinedChain, altered: AlteredStore) -> None:
    assert find_fault(altered, mined, {3: make_row(mined.blocks[MIDDLE - 1])}).code == "header/parent"
    transactions = Block(mined.blocks[2].header, Body((b"\x01",)), mined.blocks[2].trace)
    assert find_fault(altered, mined, {3: make_row(transactions)}).code == "body/root"


# Forgeries whose hash wins


def forge(mined: MinedChain, height: int, forgeries: Iterator[Block]) -> Block:
    """Return the first of some forgeries of a block whose hash is below its target."""
    config, ancestors = mined.network.config, mined.headers[:height]
    for block in forgeries:
        header = block.header
        l_hat = compute_l_hat(
            get_quiz_seed(header.core, ancestors, get_rules(config, (), 0)), header.loss, header.trace_digest
        )
        if is_below_target(l_hat, header.core.target):
            return block
    raise AssertionError("forgeries never end")


def false_traces(block: Block, index: int) -> Iterator[Block]:
    """Yield the block with one invented trace entry and a digest that commits to it."""
    for number in range(1 << 20):
        trace = (*block.trace[:index], uint64_le(number) * 4, *block.trace[index + 1 :])
        yield Block(replace(block.header, trace_digest=compute_trace_digest(trace)), block.body, trace)


@pytest.mark.parametrize("index", range(4))
def test_a_false_trace_that_wins_is_found_by_the_replay(mined: MinedChain, altered: AlteredStore, index: int) -> None:
    forged = forge(mined, MIDDLE, false_traces(mined.blocks[MIDDLE - 1], index))
    fault = find_fault(altered, mined, {MIDDLE: make_row(forged)})
    assert (fault.height, fault.code) == (MIDDLE, "work/trace")
    assert str(fault).startswith(f"block {MIDDLE} breaks the rule work/trace: entry {index + 1} of 4 is ")


def test_the_first_of_two_false_entries_is_named(mined: MinedChain, altered: AlteredStore) -> None:
    block = mined.blocks[MIDDLE - 1]
    forged = forge(mined, MIDDLE, false_traces(Block(block.header, block.body, (*block.trace[:3], bytes(32))), 1))
    assert ": entry 2 of 4 is " in str(find_fault(altered, mined, {MIDDLE: make_row(forged)}))


def test_a_false_loss_that_wins_is_found_by_the_replay(mined: MinedChain, altered: AlteredStore) -> None:
    block = mined.blocks[MIDDLE - 1]
    losses = (loss for loss in range(1 << 20) if loss != block.header.loss)
    forged = forge(mined, MIDDLE, (replace(block, header=replace(block.header, loss=loss)) for loss in losses))
    fault = find_fault(altered, mined, {MIDDLE: make_row(forged)})
    assert (fault.height, fault.code) == (MIDDLE, "work/loss")
    assert str(fault).endswith(f"loss {block.header.loss}, claimed {forged.header.loss}")


@pytest.mark.parametrize("entries", [0, 3, 5])
def test_a_winning_header_over_a_trace_of_another_length(
    mined: MinedChain, altered: AlteredStore, entries: int
) -> None:
    block = mined.blocks[MIDDLE - 1]
    trace = (*block.trace, bytes(32))[:entries]
    cores = (replace(block.header.core, nonce=nonce) for nonce in range(1 << 20))
    headers = (replace(block.header, core=core, trace_digest=compute_trace_digest(trace)) for core in cores)
    forged = forge(mined, MIDDLE, (Block(header, block.body, trace) for header in headers))
    fault = find_fault(altered, mined, {MIDDLE: make_row(forged)})
    assert (fault.height, fault.code) == (MIDDLE, "work/trace-length")


def test_honest_work_over_a_false_state_is_refused(mined: MinedChain, altered: AlteredStore) -> None:
    height, ancestors = 2, mined.headers[:2]
    state = {MINER: Account(balance=5 * 10**18 + 1)}
    template = make_template(
        ancestors, state, get_rules(mined.network.config, (), 0), MINER, mined.headers[2].core.timestamp
    )
    attempts = (a for start in range(0, 1 << 20, 16) for a in run_attempts(
        replace(template, nonce=start), ancestors, mined.judge, 16))  # fmt: skip
    forged = next(attempt for attempt in attempts if attempt.wins).block
    fault = find_fault(altered, mined, {height: make_row(forged)})
    assert (fault.height, fault.code) == (height, "state/root")


def test_the_work_of_another_epoch_is_refused(mined: MinedChain, altered: AlteredStore) -> None:
    """A block of epoch 2 whose quiz was made with the key of epoch 1: true work, on the wrong quiz."""
    quizzes = replace(mined.network.config, epoch_blocks=1 << 32)  # epoch 0 for ever
    judge = replace(mined.judge, config=quizzes)
    template = make_template(
        mined.headers[:MIDDLE], {MINER: Account(balance=15 * 10**18)}, get_rules(mined.network.config, (), 0), MINER,
        mined.headers[MIDDLE].core.timestamp,
    )  # fmt: skip
    attempts = run_attempts(template, mined.headers[:MIDDLE], judge, 32)
    codes = Counter(find_fault(altered, mined, {MIDDLE: make_row(a.block)}).code for a in attempts)
    assert codes["work/l-hat"] >= 28
    assert codes.keys() <= {"work/l-hat", "work/trace"}


# Order


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_a_replay_fault_comes_before_a_cheap_fault_of_a_later_block(
    mined: MinedChain, altered: AlteredStore, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "BATCH_BLOCKS", size)
    forged = forge(mined, 3, false_traces(mined.blocks[2], 2))  # block 4 then has another parent than stored
    for later in (mined.data[3], b"", change(mined.data[3], 0, 1)):
        fault = find_fault(altered, mined, {3: make_row(forged), 4: (bytes(32), later)})
        assert (fault.height, fault.code) == (3, "work/trace")
    altered.rows = {3: make_row(forged), 4: None}
    with pytest.raises(BlockError, match="block 3 breaks the rule work/trace"):
        check(altered, mined)


def test_a_cheap_fault_comes_before_a_replay_fault_of_a_later_block(mined: MinedChain, altered: AlteredStore) -> None:
    forged = forge(mined, 3, false_traces(mined.blocks[2], 2))
    rows: dict[int, Row] = {2: (bytes(32), change(mined.data[1], 0, 1)), 3: make_row(forged)}
    fault = find_fault(altered, mined, rows)
    assert (fault.height, fault.code) == (2, "header/version")


def test_blocks_before_the_fault_are_reported_as_passed(mined: MinedChain, altered: AlteredStore) -> None:
    passed: list[int] = []
    altered.rows = {6: (bytes(32), change(mined.data[5], 0, 1))}
    with pytest.raises(BlockError):
        verify_store(altered, mined.judge, mined.now, passed.append)
    assert passed == [1, 2, 3, 4, 5]


# The rest of the database


@pytest.mark.parametrize("height", range(1, BLOCKS))
def test_a_missing_block_is_named(mined: MinedChain, altered: AlteredStore, height: int) -> None:
    altered.rows = {height: None}
    with pytest.raises(NodeError, match=f"^block {height} is missing from the store, which goes on with block"):
        check(altered, mined)


def test_a_missing_last_block_shows_in_the_accounts(mined: MinedChain, altered: AlteredStore) -> None:
    altered.rows = {BLOCKS: None}
    with pytest.raises(NodeError, match=r"^the blocks are valid, but the stored account 0x2222"):
        check(altered, mined)


def test_a_wrong_hash_in_the_index_is_named(mined: MinedChain, altered: AlteredStore) -> None:
    altered.rows = {5: (bytes(32), mined.data[4])}
    with pytest.raises(NodeError, match=r"^block 5 is valid, but the index has another hash for it: 0000"):
        check(altered, mined)
    altered.rows |= {6: (bytes(32), b"")}  # a later fault comes later
    with pytest.raises(NodeError, match=r"^block 5 is valid, but the index"):
        check(altered, mined)


GOOD = encode_account(Account(balance=BLOCKS * 5 * 10**18))
PADDED = rlp.encode([b"\0", (BLOCKS * 5 * 10**18).to_bytes(9, "big"), *rlp.decode(GOOD)[2:]])


@pytest.mark.parametrize(
    ("statement", "values", "message"),
    [
        ("DELETE FROM accounts", [], "stored account 0x2222"),
        ("UPDATE accounts SET data = ?", [encode_account(Account(balance=1))], "stored account 0x2222"),
        ("UPDATE accounts SET address = ?", [b"3" * 20], "stored account 0x2222"),
        ("INSERT INTO accounts VALUES (?, ?)", [bytes(20), GOOD], "stored account 0x0000"),
        ("INSERT INTO accounts VALUES (?, ?)", [b"", GOOD], "stored account 0x is not"),
        ("UPDATE accounts SET data = ?", [GOOD[:-1]], "does not decode"),
        ("UPDATE accounts SET data = ?", [GOOD + b"\0"], "does not decode"),
        ("UPDATE accounts SET data = ?", [PADDED], "does not decode"),
        ("UPDATE accounts SET data = ?", [b""], "does not decode"),
        ("UPDATE accounts SET data = ?", [rlp.encode(b"four")], "does not decode"),
        ("UPDATE accounts SET data = ?", [rlp.encode([[], [], [], []])], "does not decode"),
        ("UPDATE accounts SET data = ?", [rlp.encode([b"", b"", [], []])], "stored account 0x2222"),
        ("DROP TABLE accounts", [], "no such table: accounts; the file is damaged"),
        ("DROP TABLE chain", [], "no such table: chain; the file is damaged"),
        ("DROP TABLE headers", [], "no such table: headers; the file is damaged"),
        ("DROP TABLE bodies", [], "no such table: bodies; the file is damaged"),
    ],
)
def test_damaged_accounts_and_tables(
    mined: MinedChain, copy_of: Callable[[], Path], statement: str, values: list[bytes], message: str
) -> None:
    folder = copy_of()
    run_sql(folder, statement, *values)
    with Database.open(folder) as store, pytest.raises(NodeError, match=message) as caught:
        check(store, mined)
    assert "\n" not in str(caught.value)


def judge_with_stored_network(store: Database, mined: MinedChain) -> None:
    """Do what `poaid verify` does, without loading the model again."""
    network = store.read_network()
    check_engine(mined.judge.models[0].engine, get_rules(network.config, (), 0))
    verify_store(store, make_judge(network.config, network.questions, mined.judge.models[0].engine), mined.now, ignore)


def test_every_changed_byte_of_the_config_is_found(mined: MinedChain, altered: AlteredStore) -> None:
    judge_with_stored_network(altered, mined)
    data, found = encode(mined.network.config), Counter[str]()
    for position in range(len(data)):
        altered.meta["config"] = change(data, position, 1 << position % 8)
        with pytest.raises((NodeError, SpecError)) as caught:
            judge_with_stored_network(altered, mined)
        assert "\n" not in str(caught.value)
        found[getattr(caught.value, "code", "damaged")] += 1
    assert found["header/parent"] >= 100  # most of them make another network, which has no such block
    assert found.keys() <= {"header/parent", "work/engine", "damaged"}, found


def test_a_changed_config_is_another_network(mined: MinedChain, altered: AlteredStore) -> None:
    altered.meta["config"] = encode(replace(mined.network.config, spacing=1_001))
    with pytest.raises(BlockError) as caught:
        judge_with_stored_network(altered, mined)
    assert (caught.value.height, caught.value.code) == (1, "header/parent")


@pytest.mark.parametrize(
    ("key", "change_value", "message"),
    [
        ("config", lambda data: data[:-1], "the stored network is damaged: encoding/undecodable"),
        ("config", lambda data: b"", "the stored network is damaged: encoding/undecodable"),
        (
            "config",
            lambda data: encode(replace(decode(Config, data), initial_target=0)),
            "the stored network is damaged: parameters/target",
        ),
        ("lexicon", lambda data: data[:-10], "the stored network is damaged: lexicon/"),
        ("lexicon", lambda data: b"\xff" + data, "the stored network is damaged: lexicon/"),
        ("lexicon", lambda data: b"[" * 100_000, "the stored network is damaged: lexicon/"),
        (
            "lexicon",
            lambda data: data.replace(b'"' + PIECES[5].encode() + b'": [', b'"' + PIECES[5].encode() + b'": [7, '),
            "the stored network is damaged: lexicon/digest",
        ),
        ("questions_name", lambda data: b"\xff", "'questions_name' is damaged"),
        ("network_name", lambda data: b"\xff", "'network_name' is damaged"),
    ],
)
def test_a_damaged_network_is_one_line(
    mined: MinedChain, altered: AlteredStore, key: str, change_value: Callable[[bytes], bytes], message: str
) -> None:
    altered.meta[key] = change_value(altered.read_meta(key))
    with pytest.raises(NodeError, match=message) as caught:
        judge_with_stored_network(altered, mined)
    assert "\n" not in str(caught.value)
