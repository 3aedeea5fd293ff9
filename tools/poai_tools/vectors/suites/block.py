"""Vectors of the pages `block`, `body` and `work`: every rule for a block, with poai-mini's real forward passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from poai_spec.basics.containers import Block, Body, compute_block_hash, compute_body_root
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.block import check_block, check_contents, make_genesis
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.trie import EMPTY_TRIE_ROOT
from poai_spec.model.loss import compute_trace_digest
from poai_spec.proof.work import check_engine, get_trace_length
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.chains import Alteration, GrownBranch, Trace, seal_block
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.engines import LEXICONS, STORED, get_engine, get_judge
from poai_tools.vectors.kinds import HASH32, UINT32, UINT64, Array, Integer, RecordKind, Text
from poai_tools.vectors.network import LEXICON, MODEL, make_network, require_config
from poai_tools.vectors.records import BALANCES, BLOCK, CONFIG, HEADER, list_accounts, read_state
from poai_tools.vectors.registry import Function, register

MODEL_NAME = Text(tuple(STORED))
LEXICON_NAME = Text(LEXICONS)


def _make_genesis(i: Mapping[str, Any]) -> dict[str, Any]:
    block = make_genesis(i["config"])
    return {"block": block, "hash": compute_block_hash(block.header)}


def _check_contents(i: Mapping[str, Any]) -> dict[str, Any]:
    config = make_network()
    check_contents(
        i["block"], get_rules(replace(config, model=replace(config.model, layer_count=i["layer_count"])), (), 0)
    )
    return {}


def _get_trace_length(i: Mapping[str, Any]) -> dict[str, Any]:
    config = replace(make_network(), profile=i["profile"].encode("ascii"))
    return {
        "entries": get_trace_length(
            get_rules(replace(config, model=replace(config.model, layer_count=i["layer_count"])), (), 0)
        )
    }


def _check_engine(i: Mapping[str, Any]) -> dict[str, Any]:
    check_engine(get_engine(i["model"]), get_rules(i["config"], (), 0))
    return {}


def _check_block(i: Mapping[str, Any]) -> dict[str, Any]:
    config = i["config"]
    require_config(config)
    judge = get_judge(config, i["lexicon"], i["model"])
    state = check_block(i["block"], i["chain"], read_state(i["accounts"]), judge, i["now"])
    return {"hash": compute_block_hash(i["block"].header), "accounts": list_accounts(state)}


MAKE_GENESIS = register(
    Function(
        suite="block",
        name="make_genesis",
        page="block",
        summary="block 0 and its hash",
        input=RecordKind({"config": CONFIG}),
        output=RecordKind({"block": BLOCK, "hash": HASH32}),
        run=_make_genesis,
    )
)
CHECK_CONTENTS = register(
    Function(
        suite="block",
        name="check_contents",
        page="block",
        summary="compare body and trace list with what the header commits to",
        input=RecordKind({"block": BLOCK, "layer_count": Integer(1, 256)}),
        output=RecordKind({}),
        run=_check_contents,
    )
)
GET_TRACE_LENGTH = register(
    Function(
        suite="block",
        name="get_trace_length",
        page="work",
        summary="the number of trace entries of a network's blocks",
        input=RecordKind({"profile": Text(("w8a8", "llama.cpp")), "layer_count": Integer(1, 256)}),
        output=RecordKind({"entries": UINT32}),
        run=_get_trace_length,
    )
)
CHECK_ENGINE = register(
    Function(
        suite="block",
        name="check_engine",
        page="work",
        summary="refuse a config whose profile, integer-model root or layer count is not the model's",
        input=RecordKind({"config": CONFIG, "model": MODEL_NAME}),
        output=RecordKind({}),
        run=_check_engine,
    )
)
CHECK_BLOCK = register(
    Function(
        suite="block",
        name="check_block",
        page="block",
        summary="every rule of a block on a known chain; gives its hash and the accounts after it, by address",
        input=RecordKind(
            {
                "config": CONFIG,
                "lexicon": LEXICON_NAME,
                "model": MODEL_NAME,
                "chain": Array(HEADER, least=1),
                "accounts": BALANCES,
                "block": BLOCK,
                "now": UINT64,
            }
        ),
        output=RecordKind({"hash": HASH32, "accounts": BALANCES}),
        run=_check_block,
    )
)
TWO = {"two-rules": ("two rules are broken", "a client that checks in another order gives another code")}
STAMPS = [1000, 1100, 1200, 1300, 5000, 1400, 1500, 1600]
"""Block 5 ends the first period far ahead of its neighbours: a stamp can be above the median and not above block 5."""
NOW = 6000
MINED = (
    "Blocks are mined with poai-mini: stamps by hand, nonces from 0 on, every forward pass real. Where the header "
    "commits to a defect, it is made before mining."
)


@dataclass
class Draft:
    """A block on top of a chain; defects change it.

    Attributes:
        core: changes to the core.
        now: the clock, ms after genesis.
        body: what is sent as the body.
        trace: changes to the true trace list, before the header commits to it.
        sent_trace: changes afterwards.
        extra_loss: added to the true loss.
        win: whether the header shall be below its target.
    """

    core: dict[str, Any] = field(default_factory=dict)
    now: int = NOW
    body: Body = EMPTY_BODY
    trace: list[Callable[[Trace], Trace]] = field(default_factory=list)
    sent_trace: list[Callable[[Trace], Trace]] = field(default_factory=list)
    extra_loss: int = 0
    win: bool = True


PAYING = Body((b"pay",))
START = make_network().genesis_timestamp
DEFECTS: dict[str, tuple[str, Callable[[Draft], Any]]] = {
    "version": ("version 2", lambda d: d.core.update(version=2)),
    "transactions": ("the header commits to a transaction, which is sent", lambda d: _send(d, PAYING)),
    "parent": ("a parent of zeros", lambda d: d.core.update(parent_hash=bytes(32))),
    "height": ("height 10 for 9", lambda d: d.core.update(height=10)),
    "target": ("a target of its own", lambda d: d.core.update(target=2**255 + 1)),
    "median-time": ("equal to the median stamp", lambda d: d.core.update(timestamp=START + 1300)),
    "period-not-forward": ("not above block 5", lambda d: d.core.setdefault("timestamp", START + 5000)),
    "l-hat": ("a nonce that does not win", lambda d: setattr(d, "win", False)),
    "future": ("the clock is 1 ms too early", lambda d: setattr(d, "now", 5001 - 401)),
    "body-root": ("another body than the header's", lambda d: setattr(d, "body", Body((b"another",)))),
    "trace-digest": ("a trace entry changed on the way", lambda d: d.sent_trace.append(lambda t: (bytes(32), *t[1:]))),
    "trace-length": ("one entry too many", lambda d: d.trace.append(lambda t: (*t, bytes(32)))),
    "state-root": ("the empty state", lambda d: d.core.update(state_root=EMPTY_TRIE_ROOT)),
    "trace": ("a false second entry", lambda d: d.trace.append(lambda t: (t[0], bytes(32), *t[2:]))),
    "loss": ("one more than the true loss", lambda d: setattr(d, "extra_loss", 1)),
}
"""Comment and effect of each defect, in the order of the rules."""
MORE: dict[str, tuple[str, Callable[[Draft], Any]]] = {
    "state-without-subsidy": ("the state before the block", lambda d: d.core.update(state_root=_get_old_root())),
    "trace-first": ("a false first entry", lambda d: d.trace.append(lambda t: (bytes(32), *t[1:]))),
    "trace-output": ("a false output entry", lambda d: d.trace.append(lambda t: (*t[:-1], bytes(32)))),
    "trace-swapped": ("two entries exchanged", lambda d: d.trace.append(lambda t: (t[1], t[0], *t[2:]))),
    "trace-short": ("the output entry is missing", lambda d: d.trace.append(lambda t: t[:-1])),
    "trace-none": ("no entry", lambda d: d.trace.append(lambda t: t[:0])),
    "sent-none": ("the list lost on the way", lambda d: d.sent_trace.append(lambda t: t[:0])),
    "sent-longer": ("an entry added on the way", lambda d: d.sent_trace.append(lambda t: (*t, bytes(32)))),
    "empty-transaction": ("a body of one empty transaction", lambda d: setattr(d, "body", Body((b"",)))),
    "loss-less": ("one less than the true loss", lambda d: setattr(d, "extra_loss", -1)),
    "loss-of-nothing": ("2^40 more than the true loss", lambda d: setattr(d, "extra_loss", 2**40)),
}
PAIRS = (
    *(("version", "transactions"), ("version", "l-hat"), ("transactions", "parent"), ("transactions", "body-root")),
    *(("parent", "height"), ("height", "target"), ("target", "median-time"), ("median-time", "period-not-forward")),
    *(("period-not-forward", "l-hat"), ("l-hat", "future"), ("l-hat", "trace"), ("future", "body-root")),
    *(("future", "state-root"), ("body-root", "trace-digest"), ("body-root", "loss"), ("trace-digest", "trace-length")),
    *(("trace-digest", "trace"), ("trace-length", "state-root"), ("trace-length", "trace"), ("state-root", "trace")),
    *(("state-root", "loss"), ("trace", "loss"), ("version", "loss"), ("height", "future")),
)


def _lie(draft: Draft) -> None:
    MORE["trace-output"][1](draft)
    DEFECTS["loss"][1](draft)


def _send(draft: Draft, body: Body) -> None:
    draft.core.update(body_root=compute_body_root(body))
    if draft.body is EMPTY_BODY:
        draft.body = body


@cache
def _get_branch() -> GrownBranch:
    branch = GrownBranch.start(make_network())
    for height, stamp in enumerate(STAMPS, 1):
        branch.grow(stamp, bytes([height % 3 + 1]) * 20)
    return branch


def _get_old_root() -> bytes:
    return _get_branch().chain[-1].core.state_root


def _apply(changes: list[Callable[[Trace], Trace]]) -> Callable[[Trace], Trace]:
    def change(trace: Trace) -> Trace:
        for one in changes:
            trace = one(trace)
        return trace

    return change


def _build(draft: Draft, parent: int = 8, stamp: int = 5001) -> dict[str, Any]:
    """Return the input fields of a drafted block on top of a block of the branch."""
    branch = _get_branch().fork(parent)
    core = branch.make_core(stamp, b"\x09" * 20, **draft.core)
    trace, sent = _apply(draft.trace), _apply(draft.sent_trace)
    alteration = Alteration(trace, sent, draft.extra_loss, draft.body, draft.win)
    return {"block": seal_block(core, branch.chain, branch.judge, alteration), "now": START + draft.now}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_genesis(), _contents(), _trace_length(), _engine(), _block()]


def _genesis() -> CaseFile:
    configs = {"network": make_network(), "testnet": get_preset("testnet"), "minimal": get_preset("minimal")}
    cases = tuple(Case(name, "computed from the config", {"config": config}) for name, config in configs.items())
    return CaseFile(MAKE_GENESIS, "The network of the vectors, and presets.", cases)


def _contents() -> CaseFile:
    block: Block = _build(Draft())["block"]
    header, four, more = block.header, block.trace, (*block.trace, bytes(32))
    base = Case("true", "4 entries of a model of 3 layers", {"block": block, "layer_count": 3})

    def committed(trace: Trace, body: Body = EMPTY_BODY) -> Block:
        return Block(replace(header, trace_digest=compute_trace_digest(trace)), body, trace)

    paying = replace(header, core=replace(header.core, body_root=compute_body_root(PAYING)))
    longest = tuple(bytes([n % 256]) * 32 for n in range(257))
    cases = [
        base,
        Case("transaction", "contents and roots agree; other rules refuse it", {
            "block": Block(paying, PAYING, four), "layer_count": 3
        }),
        Case("two-entries", "a model of one layer", {"block": committed(four[:2]), "layer_count": 1}),
        Case("longest", "a model of 256 layers", {"block": committed(longest), "layer_count": 256}),
    ]  # fmt: skip
    rows: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("body", "another body", {"block": replace(block, body=PAYING)}),
        ("empty-transaction", "one empty transaction", {"block": replace(block, body=Body((b"",)))}),
        ("digest", "an entry changed", {"block": replace(block, trace=(bytes(32), *four[1:]))}),
        ("digest-short", "an entry missing", {"block": replace(block, trace=four[:-1])}),
        ("digest-order", "two entries exchanged", {"block": replace(block, trace=(four[1], four[0], *four[2:]))}),
        ("length-5", "the header commits to one too many", {"block": committed(more)}),
        ("length-3", "the header commits to one too few", {"block": committed(four[:-1])}),
        ("length-0", "the header commits to none", {"block": committed(())}),
        ("layers", "another model", {"layer_count": 4}),
    )
    cases += [make_negative(CHECK_CONTENTS, base, *row) for row in rows]
    pairs: tuple[tuple[str, dict[str, Any]], ...] = (
        ("body-and-digest", {"block": replace(block, body=PAYING, trace=more)}),
        ("body-and-length", {"block": committed(more, PAYING)}),
        ("digest-and-length", {"block": replace(block, trace=more)}),
    )
    for name, values in pairs:
        cases.append(make_negative(CHECK_CONTENTS, base, name, "the first counts", values, ("two-rules",)))
    return CaseFile(CHECK_CONTENTS, "A block of check_block, changed.", tuple(cases), TWO)


def _trace_length() -> CaseFile:
    cases = [
        Case(f"{slug}-{n}", f"{n} layers", {"profile": profile, "layer_count": n})
        for slug, profile in (("w8a8", "w8a8"), ("llama", "llama.cpp"))
        for n in (1, 3, 256)
    ]
    return CaseFile(GET_TRACE_LENGTH, "Chosen by hand.", tuple(cases))


def _engine() -> CaseFile:
    config = make_network()
    base = Case("mini", "poai-mini on its network", {"config": config, "model": MODEL})
    rows: dict[str, dict[str, Any]] = {
        "profile": {"profile": b"llama.cpp"},
        "root": {"model": replace(config.model, integer_model_root=bytes(32))},
        "layers": {"model": replace(config.model, layer_count=4)},
    }
    cases = [base]
    for name, changes in rows.items():
        other = replace(config, **changes)
        cases.append(make_negative(CHECK_ENGINE, base, name, "not what the model has", {"config": other}))
    return CaseFile(CHECK_ENGINE, "The network of the vectors, changed in one field.", tuple(cases))


def _make_base() -> Case:
    branch = _get_branch()
    values = {
        "config": branch.judge.config,
        "lexicon": LEXICON,
        "model": MODEL,
        "chain": branch.chain,
        "accounts": list_accounts(branch.state),
    }
    return Case("ninth", "block 9 ends a period and begins epoch 3", values | _build(Draft()))


def _make_early(height: int) -> Case:
    """Return a block of the branch itself, on top of its ancestors."""
    branch = _get_branch()
    short = branch.fork(height - 1)
    values = {
        "config": branch.judge.config,
        "lexicon": LEXICON,
        "model": MODEL,
        "chain": short.chain,
        "accounts": list_accounts(short.state),
        "block": branch.blocks[height],
        "now": START + NOW,
    }
    return Case(f"block-{height}", f"block {height}, epoch {height // 3}", values)


def _block() -> CaseFile:
    base = _make_base()
    cases = [base, *(_make_early(height) for height in (1, 2, 3, 5, 6))]
    eighth = replace(_make_early(8), id="eighth", comment="block 8 ends no period")
    eighth = replace(eighth, input={**eighth.input, **_build(Draft(), 7, 1600)})
    cases.append(eighth)
    for name, (comment, defect) in (DEFECTS | MORE).items():
        draft = Draft()
        defect(draft)
        if name == "median-time":  # in block 9 such a stamp breaks `period-not-forward` too
            cases.append(make_negative(CHECK_BLOCK, eighth, name, comment, _build(draft, 7)))
        else:
            cases.append(make_negative(CHECK_BLOCK, base, name, comment, _build(draft)))
    for first, second in PAIRS:
        draft = Draft()
        DEFECTS[first][1](draft)
        DEFECTS[second][1](draft)
        comment = f"{DEFECTS[first][0]}; and {DEFECTS[second][0]}"
        case_id = f"{first}-and-{second}"
        cases.append(make_negative(CHECK_BLOCK, base, case_id, comment, _build(draft), ("two-rules",)))
    draft = Draft()
    _lie(draft)
    comment = "a false output entry, and one more than the true loss"
    cases.append(make_negative(CHECK_BLOCK, base, "trace-output-and-loss", comment, _build(draft), ("two-rules",)))
    swapped = {"accounts": list_accounts(_get_branch().fork(7).state)}
    cases.append(make_negative(CHECK_BLOCK, base, "accounts", "another state before the block", swapped))
    return CaseFile(CHECK_BLOCK, MINED, tuple(cases), TWO)
