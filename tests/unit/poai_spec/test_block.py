"""Block validity: every rule alone, every pair of broken rules, and the order that decides between them."""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import poai_spec.chain.fork_choice
from poai_spec.chain.block import Judge, check_block, make_genesis
from poai_spec.chain.body import EMPTY_BODY, EMPTY_BODY_ROOT
from poai_spec.basics.containers import Block, Body, Header, HeaderCore, compute_block_hash, compute_body_root
from poai_spec.basics.encoding import decode, encode
from poai_spec.chain.fork_choice import Kept, Store, make_store, on_block, receive_block
from poai_spec.model.loss import compute_trace_digest
from poai_spec.basics.notation import Hash32, Invalid, Malformed, NotYet, SpecError
from poai_spec.basics.parameters import compute_network_id
from poai_spec.execution.trie import EMPTY_TRIE_ROOT
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.work import get_quiz
from tests.harness.spec import LEXICON, Branch, get_config, get_engine, get_judge, make_core, wins

PAGE = Path(__file__).parents[3] / "specs" / "chain" / "block.md"
ROWS = re.findall(r"^\| (\d+) \| (`.*`) \| (\w+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
ORDER = [code for _, codes, _ in ROWS for code in re.findall(r"`([^`]+)`", codes)]
CLASSES = {code: kind for _, codes, kind in ROWS for code in re.findall(r"`([^`]+)`", codes)}
START = get_config().genesis_timestamp
# Block 5 ends the first period and is far ahead of its neighbours: a stamp can be above the median of block 9's
# ancestors (+1300) and yet not above block 5's (+5000), where its period began.
STAMPS = [1000, 1100, 1200, 1300, 5000, 1400, 1500, 1600]
NOW = START + 6000


@dataclass
class Draft:
    """A block on top of the common chain, with the store and the clock that meet it; defects change it.

    Attributes:
        core: changes to the header core.
        now: the clock.
        body: the body that is sent.
        change_trace: applied to the true trace list before the header commits to it.
        sent_trace: applied to it afterwards.
        extra_loss: added to the true loss.
        win: whether the header shall be below its target.
        change_store: applied to the store, given the block.
        limit: the number of waiting headers that a peer may have.
        has_model: whether the model of its rules is loaded.
    """

    core: dict[str, Any] = field(default_factory=dict)
    now: int = NOW
    body: Body = EMPTY_BODY
    change_trace: list[Callable[[tuple[Hash32, ...]], tuple[Hash32, ...]]] = field(default_factory=list)
    sent_trace: Callable[[tuple[Hash32, ...]], tuple[Hash32, ...]] = lambda trace: trace
    extra_loss: int = 0
    win: bool = True
    change_store: list[Callable[[dict[Hash32, Kept], Block], None]] = field(default_factory=list)
    known_invalid: list[Callable[[Block], Hash32]] = field(default_factory=list)
    limit: int = 8_192
    has_model: bool = True

    @property
    def judge(self) -> Judge:
        """What the block is judged with."""
        return get_judge() if self.has_model else replace(get_judge(), models={})

    def carry(self, body: Body) -> "Draft":
        """Send a body, unless another defect has already replaced it."""
        self.body = body if self.body is EMPTY_BODY else self.body
        return self


@cache
def get_branch() -> Branch:
    branch = Branch.start()
    for stamp in STAMPS:
        branch.grow(START + stamp)
    return branch


@cache
def get_store() -> Store:
    store = make_store(get_judge(), NOW)
    for block in get_branch().blocks[1:]:
        store = on_block(store, block, b"peer", get_judge())
    return store


def build(draft: Draft) -> Block:
    """Return the drafted block: nonces are tried until it wins, or loses, as drafted."""
    branch = get_branch()
    core = replace(make_core(branch.chain, branch.state, NOW), **draft.core)
    while True:
        quiz = get_quiz(core, branch.chain, get_rules(get_config(), (), 0), LEXICON)
        (evaluation,) = get_engine().evaluate([quiz.tokens], [quiz.scored])
        trace = evaluation.trace
        for change in draft.change_trace:
            trace = change(trace)
        header = Header(core, evaluation.loss + draft.extra_loss, compute_trace_digest(trace))
        if wins(header, branch.chain) == draft.win:
            return Block(header, draft.body, draft.sent_trace(trace))
        core = replace(core, nonce=core.nonce + 1)


def drop_parent(kept: dict[Hash32, Kept], block: Block) -> None:
    kept.pop(block.header.core.parent_hash, None)


def forget_parent_state(kept: dict[Hash32, Kept], block: Block) -> None:
    if parent := kept.get(block.header.core.parent_hash):
        kept[block.header.core.parent_hash] = replace(parent, state=None)


def add_heavy_rival(kept: dict[Hash32, Kept], block: Block) -> None:
    kept[b"rival".ljust(32)] = Kept(get_branch().chain[3], 10**9, b"rival", {})


WITH_TRANSACTION = Body((b"pay",))
DEFECTS: dict[str, Callable[[Draft], object]] = {
    "header/version": lambda d: d.core.update(version=2),
    "body/transactions-not-active": lambda d: (
        d.core.update(body_root=compute_body_root(WITH_TRANSACTION)),
        d.carry(WITH_TRANSACTION),
    ),
    "fork-choice/known-invalid": lambda d: d.known_invalid.append(lambda block: compute_block_hash(block.header)),
    "fork-choice/invalid-ancestor": lambda d: d.known_invalid.append(lambda block: block.header.core.parent_hash),
    "fork-choice/unknown-parent": lambda d: d.change_store.append(drop_parent),
    "header/height": lambda d: d.core.update(height=10),
    "difficulty/target": lambda d: d.core.update(target=2**255 + 1),
    "header/median-time": lambda d: d.core.update(timestamp=START + 1300),
    "difficulty/period-not-forward": lambda d: d.core.setdefault("timestamp", START + 5000),
    "work/l-hat": lambda d: setattr(d, "win", False),
    "header/future": lambda d: setattr(d, "now", START - 500),
    "fork-choice/too-many-headers": lambda d: setattr(d, "limit", 0),
    "body/root": lambda d: setattr(d, "body", Body((b"another",))),
    "work/trace-digest": lambda d: setattr(d, "sent_trace", lambda trace: (bytes(32), *trace[1:])),
    "work/trace-length": lambda d: d.change_trace.append(lambda trace: (*trace, bytes(32))),
    "fork-choice/parent-not-replayed": lambda d: d.change_store.append(forget_parent_state),
    "state/root": lambda d: d.core.update(state_root=EMPTY_TRIE_ROOT),
    "fork-choice/lighter": lambda d: d.change_store.append(add_heavy_rival),
    "block/model-missing": lambda d: setattr(d, "has_model", False),
    "work/trace": lambda d: d.change_trace.append(lambda trace: (trace[0], bytes(32), *trace[2:])),
    "work/loss": lambda d: setattr(d, "extra_loss", 1),
}
IN_STORE = [code for code in ORDER if not code.startswith("encoding/") and code != "header/parent"]


def receive(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Hand the drafted block to `on_block`; whatever it raises, the store must be as before."""
    block = build(draft)
    kept = dict(get_store().kept)
    for change in draft.change_store:
        change(kept, block)
    store = replace(get_store(), now=draft.now, kept=kept, invalid={f(block): None for f in draft.known_invalid})
    before = deepcopy(store)
    monkeypatch.setattr(poai_spec.chain.fork_choice, "MAX_WAITING_PER_PEER", draft.limit)
    try:
        return on_block(store, block, b"peer", draft.judge)
    finally:
        assert store == before


def test_the_table_has_every_defect_in_one_place() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(set(ORDER)) == len(ORDER)
    assert list(DEFECTS) == IN_STORE


def test_the_block_without_defects_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    store = receive(Draft(), monkeypatch)
    assert len(store.kept) == len(STAMPS) + 2
    assert all(kept.state is not None for kept in store.kept.values())


@pytest.mark.parametrize("code", DEFECTS)
def test_one_defect_gives_its_own_code_and_class(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft()
    DEFECTS[code](draft)
    with pytest.raises(SpecError) as error:
        receive(draft, monkeypatch)
    assert error.value.code == code
    assert type(error.value).__name__ == CLASSES[code]


@pytest.mark.parametrize(("first", "second"), list(combinations(DEFECTS, 2)))
def test_of_two_defects_the_first_in_the_order_counts(first: str, second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft()
    DEFECTS[first](draft)
    DEFECTS[second](draft)
    with pytest.raises(SpecError) as error:
        receive(draft, monkeypatch)
    assert error.value.code == first


def test_of_all_defects_the_first_left_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for start, code in enumerate(IN_STORE):
        draft = Draft()
        for defect in IN_STORE[start:]:
            DEFECTS[defect](draft)
        with pytest.raises(SpecError) as error:
            receive(draft, monkeypatch)
        assert error.value.code == code


@pytest.mark.parametrize("code", [None, *(code for code in IN_STORE if not code.startswith("fork-choice/"))])
def test_on_a_given_chain_the_parent_is_checked_before_the_height(code: str | None) -> None:
    draft = Draft(core={"parent_hash": bytes(32)})
    if code is not None:
        DEFECTS[code](draft)
    branch = get_branch()
    with pytest.raises(Invalid) as error:
        check_block(build(draft), branch.chain, branch.state, draft.judge, draft.now)
    alone = code in ("header/version", "body/transactions-not-active")
    assert error.value.code == (code if alone else "header/parent")


@pytest.mark.parametrize("code", [code for code in IN_STORE if not code.startswith("fork-choice/")])
def test_the_same_code_without_a_store(code: str) -> None:
    draft, branch = Draft(), get_branch()
    DEFECTS[code](draft)
    block = build(draft)
    with pytest.raises(SpecError) as error:
        check_block(block, branch.chain, branch.state, draft.judge, draft.now)
    assert error.value.code == code


def test_consequences_follow_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in ("work/trace", "work/loss", "state/root", "header/height", "work/trace-length"):
        draft = Draft()
        DEFECTS[code](draft)
        block = build(draft)
        store, error = receive_block(get_store(), block, b"peer", get_judge())
        assert isinstance(error, Invalid)
        assert compute_block_hash(block.header) in store.invalid
        again = receive_block(store, block, b"peer", get_judge())
        assert again[0] == store
        assert again[1] is not None
        assert again[1].code == "fork-choice/known-invalid"
    for code in ("body/root", "work/trace-digest"):
        draft = Draft()
        DEFECTS[code](draft)
        wrong = build(draft)
        store, error = receive_block(get_store(), wrong, b"forger", get_judge())
        assert isinstance(error, Malformed)
        assert store.invalid == {}
        right = build(Draft(core=vars(wrong.header.core)))
        assert right.header == wrong.header
        store, error = receive_block(store, right, b"honest", get_judge())
        assert error is None, "a wrong body or trace must not taint the header"
        assert store.kept[compute_block_hash(right.header)].state is not None
    draft = Draft(now=START - 500)
    early = build(draft)
    store, error = receive_block(replace(get_store(), now=START - 500), early, b"peer", get_judge())
    assert isinstance(error, NotYet)
    assert receive_block(replace(store, now=NOW), early, b"peer", get_judge())[1] is None


def test_every_bit_of_every_field_matters() -> None:
    """No bit of a finished block can be flipped (a bit of the core is another quiz, of the rest another hash)."""
    branch, block = get_branch(), build(Draft())
    data = encode(block)
    accepted = []
    for bit in range(0, 8 * len(data), 7):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            check_block(decode(Block, bytes(changed)), branch.chain, branch.state, get_judge(), NOW)
            accepted.append(bit)
        except SpecError:
            continue
    assert accepted == []


def test_genesis() -> None:
    config, genesis = get_config(), make_genesis(get_config())
    assert genesis.header == Header(
        HeaderCore(
            version=1,
            height=0,
            parent_hash=compute_network_id(config),
            timestamp=config.genesis_timestamp,
            target=config.initial_target,
            miner=bytes(20),
            body_root=EMPTY_BODY_ROOT,
            state_root=EMPTY_TRIE_ROOT,
            nonce=0,
        ),
        loss=0,
        trace_digest=bytes(32),
    )
    assert (genesis.body, genesis.trace) == (EMPTY_BODY, ())
    other = make_genesis(replace(config, genesis_seed=bytes(32)))
    assert compute_block_hash(other.header) != compute_block_hash(genesis.header)
