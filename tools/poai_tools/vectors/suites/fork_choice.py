"""Vectors of the page `fork-choice`: the head after each event, what is refused, and what is kept."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import permutations
from typing import Any

from poai_spec.basics.containers import Block, Body, Header, compute_block_hash
from poai_spec.basics.notation import SpecError
from poai_spec.chain.block import Judge
from poai_spec.chain.body import EMPTY_BODY, EMPTY_BODY_ROOT
from poai_spec.chain.fork_choice import (
    Kept,
    Store,
    get_head,
    is_full,
    make_room,
    make_store,
    on_invalid,
    on_tick,
    receive_block,
    receive_header,
)
from poai_spec.chain.header import make_genesis_header
from poai_tools.vectors.cases import Case, CaseFile, derive_seed
from poai_tools.vectors.chains import Alteration, GrownBranch, seal_block
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.engines import LEXICONS, STORED, get_judge
from poai_tools.vectors.kinds import (
    BOOLEAN,
    HASH32,
    TEXT,
    UINT32,
    UINT64,
    UINT256,
    Array,
    Integer,
    Kind,
    OneOf,
    Optional,
    RecordKind,
    Text,
    require,
)
from poai_tools.vectors.network import LEXICON, MODEL, make_network, require_config
from poai_tools.vectors.records import BLOCK, CONFIG
from poai_tools.vectors.registry import Function, register

DELIVERY = RecordKind({"block": UINT32, "peer": TEXT})
EVENT = OneOf({"tick": UINT64, "header": DELIVERY, "block": DELIVERY})
NODE: dict[str, Kind] = {
    "config": CONFIG,
    "lexicon": Text(LEXICONS),
    "model": Text(tuple(STORED)),
    "now": UINT64,
    "blocks": Array(BLOCK),
}
MOST_WAITING = 2**17


def _start(i: Mapping[str, Any]) -> tuple[Judge, Store]:
    require_config(i["config"])
    judge = get_judge(i["config"], i["lexicon"], i["model"])
    return judge, make_store(judge, i["now"])


def _play(
    store: Store, event: tuple[str, Any], blocks: Sequence[Block], judge: Judge
) -> tuple[Store, SpecError | None]:
    kind, value = event
    if kind == "tick":
        return on_tick(store, value), None
    require(value["block"] < len(blocks), f"block {value['block']} of {len(blocks)}")
    block, peer = blocks[value["block"]], value["peer"].encode("utf-8")
    if kind == "header":
        return receive_header(store, block.header, peer, judge)
    return receive_block(store, block, peer, judge)


def _run_events(i: Mapping[str, Any]) -> dict[str, Any]:
    judge, store = _start(i)
    steps = []
    for event in i["events"]:
        store, error = _play(store, event, i["blocks"], judge)
        steps.append({"head": get_head(store), "code": error.code if error else None})
    return {"steps": steps}


def _on_event(i: Mapping[str, Any]) -> dict[str, Any]:
    judge, store = _start(i)
    for event in i["setup"]:
        store, _ = _play(store, event, i["blocks"], judge)
    store, error = _play(store, i["event"], i["blocks"], judge)
    if error is not None:
        raise error
    return {"head": get_head(store)}


def _count_kept(i: Mapping[str, Any]) -> dict[str, Any]:
    judge, store = _start(i)
    steps = []
    for event in i["events"]:
        store, _ = _play(store, event, i["blocks"], judge)
        replayed = sum(kept.state is not None for kept in store.kept.values())
        counts = {"replayed": replayed, "waiting": len(store.kept) - replayed}
        steps.append(counts | {"orphans": len(store.orphans), "invalid": len(store.invalid)})
    return {"steps": steps}


def _get_head(i: Mapping[str, Any]) -> dict[str, Any]:
    tips = {tip["hash"]: tip for tip in i["tips"]}
    require(len(tips) == len(i["tips"]), "tips: a hash occurs twice")
    require(any(tip["replayed"] for tip in i["tips"]), "tips: none is replayed")
    header = make_genesis_header(make_network())
    kept = {h: Kept(header, tip["work"], b"", {} if tip["replayed"] else None) for h, tip in tips.items()}
    return {"head": get_head(Store(0, kept))}


def _make_waiting(i: Mapping[str, Any]) -> tuple[Store, Header, list[bytes]]:
    """Return the store that the input describes, one more header, and the peer of each waiting header.

    The waiting headers differ by their peers only.
    """
    require(sum(g["peers"] * g["headers"] for g in i["others"]) + i["own"] <= MOST_WAITING, "too many headers")
    genesis = make_genesis_header(make_network())
    root = compute_block_hash(genesis)
    header = replace(genesis, core=replace(genesis.core, height=1, parent_hash=root))
    peers = [b"own"] * i["own"]
    for number, group in enumerate(i["others"]):
        peers += [b"%d/%d" % (number, n) for n in range(group["peers"]) for _ in range(group["headers"])]
    waiting = {n.to_bytes(32, "big"): Kept(header, 1, peer, None) for n, peer in enumerate(peers)}
    return Store(0, {root: Kept(genesis, 0, b"", {}), **waiting}), header, peers


def _make_room(i: Mapping[str, Any]) -> dict[str, Any]:
    before, header, peers = _make_waiting(i)
    after = make_room(before, header, b"own")
    use = Counter(peers)
    lost = [use[kept.peer] for h, kept in before.kept.items() if h not in after.kept]
    return {"taken_from": sum(lost)}


def _is_full(i: Mapping[str, Any]) -> dict[str, Any]:
    store, _, _ = _make_waiting(i)
    return {"full": is_full(store, b"own")}


def _on_invalid(i: Mapping[str, Any]) -> dict[str, Any]:
    genesis = make_genesis_header(make_network())
    remembered = dict.fromkeys(n.to_bytes(32, "big") for n in range(i["remembered"]))
    root = compute_block_hash(genesis)
    require(i["hash"] != root, "hash: that of genesis")
    after = on_invalid(Store(0, {root: Kept(genesis, 0, b"", {})}, invalid=remembered), i["hash"])
    hashes = list(after.invalid)
    return {"count": len(hashes), "oldest": hashes[0], "newest": hashes[-1]}


RUN_EVENTS = register(
    Function(
        suite="fork_choice",
        name="run_events",
        page="fork-choice",
        summary="a node that knows genesis and sees events: its head and the rejection code, if any, after each",
        input=RecordKind({**NODE, "events": Array(EVENT)}),
        output=RecordKind({"steps": Array(RecordKind({"head": HASH32, "code": Optional(TEXT)}))}),
        run=_run_events,
    )
)
ON_EVENT = register(
    Function(
        suite="fork_choice",
        name="on_event",
        page="fork-choice",
        summary="the verdict on the last event after some others, whose verdicts do not matter; gives the head",
        input=RecordKind({**NODE, "setup": Array(EVENT), "event": EVENT}),
        output=RecordKind({"head": HASH32}),
        run=_on_event,
    )
)
COUNT_KEPT = register(
    Function(
        suite="fork_choice",
        name="count_kept",
        page="fork-choice",
        summary="after each event: how many blocks are replayed, headers wait, orphans and invalid hashes are kept",
        input=RecordKind({**NODE, "events": Array(EVENT)}),
        output=RecordKind(
            {
                "steps": Array(
                    RecordKind({"replayed": UINT32, "waiting": UINT32, "orphans": UINT32, "invalid": UINT32}),
                )
            }
        ),
        run=_count_kept,
    )
)
GET_HEAD = register(
    Function(
        suite="fork_choice",
        name="get_head",
        page="fork-choice",
        summary="the head among blocks of given work",
        input=RecordKind({"tips": Array(RecordKind({"hash": HASH32, "work": UINT256, "replayed": BOOLEAN}), least=1)}),
        output=RecordKind({"head": HASH32}),
        run=_get_head,
    )
)
WAITING = RecordKind(
    {
        "others": Array(RecordKind({"peers": Integer(1, MOST_WAITING), "headers": Integer(1, MOST_WAITING)})),
        "own": Integer(0, MOST_WAITING),
    }
)
MAKE_ROOM = register(
    Function(
        suite="fork_choice",
        name="make_room",
        page="fork-choice",
        summary="the number of waiting headers of the peer who loses one to a new header, 0 if none does",
        input=WAITING,
        output=RecordKind({"taken_from": UINT32}),
        run=_make_room,
    )
)
IS_FULL = register(
    Function(
        suite="fork_choice",
        name="is_full",
        page="fork-choice",
        summary="whether the newcomer's peer can keep no other header without dropping one",
        input=WAITING,
        output=RecordKind({"full": BOOLEAN}),
        run=_is_full,
    )
)
ON_INVALID = register(
    Function(
        suite="fork_choice",
        name="on_invalid",
        page="fork-choice",
        summary="what is remembered after one more hash: how many, the oldest and the newest",
        input=RecordKind({"remembered": Integer(0, MOST_WAITING), "hash": HASH32}),
        output=RecordKind({"count": UINT32, "oldest": HASH32, "newest": HASH32}),
        run=_on_invalid,
    )
)
FLAGS = {
    "tie": ("several tips have the most work", "a client that keeps the first seen, or the smallest hash, splits"),
    "work": ("the heaviest chain is not the longest", "a client that counts blocks follows another chain"),
    "orphan": ("a block or header before its parent", "a client that drops or blames cannot follow the network"),
    "claimed": (
        "claimed work decides what is replayed, replayed work decides the head",
        "a client that counts headers as work follows a forger",
    ),
    "malformed": (
        "a good header with a wrong body or trace list",
        "a client that marks the header's hash can be made to refuse honest blocks",
    ),
    "clock": ("a stamp ahead of the clock", "a client that marks the hash splits off for good"),
    "two-rules": ("two rules are broken", "a client that checks in another order gives another code"),
    "limit": ("a bound on what strangers can make a node keep", "a client without it can be filled up"),
}
MADE = (
    "Blocks are mined with poai-mini: stamps by hand, nonces from 0 on, every forward pass real; a false block commits "
    "to a false trace entry. `now` is 100 s after genesis unless said."
)
LATER = 100_000
FALSE = Alteration(trace=lambda trace: (bytes(32), *trace[1:]))


@dataclass
class Scenario:
    """Events about blocks, which are numbered as they first occur."""

    blocks: list[Block] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    now: int = LATER

    def _number(self, block: Block) -> int:
        if block not in self.blocks:
            self.blocks.append(block)
        return self.blocks.index(block)

    def __post_init__(self) -> None:
        self.blocks, self.events = list(self.blocks), list(self.events)

    def block(self, *blocks: Block, peer: str = "peer") -> "Scenario":
        self.events += [("block", {"block": self._number(block), "peer": peer}) for block in blocks]
        return self

    def header(self, *blocks: Block, peer: str = "peer") -> "Scenario":
        self.events += [("header", {"block": self._number(block), "peer": peer}) for block in blocks]
        return self

    def tick(self, now: int) -> "Scenario":
        self.events.append(("tick", make_network().genesis_timestamp + now))
        return self

    def _node(self) -> dict[str, Any]:
        config = make_network()
        now = config.genesis_timestamp + self.now
        return {"config": config, "lexicon": LEXICON, "model": MODEL, "now": now, "blocks": tuple(self.blocks)}

    def as_events(self) -> dict[str, Any]:
        return self._node() | {"events": tuple(self.events)}

    def as_verdict(self) -> dict[str, Any]:
        """The last event is the one that is judged."""
        return self._node() | {"setup": tuple(self.events[:-1]), "event": self.events[-1]}


@cache
def _main() -> list[Block]:
    """Eight blocks, one a second, genesis first."""
    branch = GrownBranch.start(make_network())
    for height in range(1, 9):
        branch.grow(1000 * height)
    return branch.blocks


def _grow_on(
    blocks: Sequence[Block], stamps: Sequence[int], miner: int, alteration: Alteration | None = None
) -> list[Block]:
    """Return blocks on top of others; only the first is altered."""
    branch = GrownBranch.start(make_network())
    for block in blocks[1:]:
        branch.append(block)
    for n, stamp in enumerate(stamps):
        branch.grow(stamp, bytes([miner]) * 20, alteration if alteration and n == 0 else Alteration())
    return branch.blocks[len(blocks) :]


@cache
def _rival() -> list[Block]:
    """Six blocks on top of block 2."""
    return _grow_on(_main()[:3], [3100, 4100, 5100, 6100, 7100, 8100], 2)


@cache
def _quick() -> list[Block]:
    """Seven blocks from genesis on at four times the speed: the last two have a quarter of the target."""
    return _grow_on(_main()[:1], [250 * n for n in range(1, 8)], 3)


@cache
def _siblings() -> list[Block]:
    """Three blocks beside block 4."""
    return [_grow_on(_main()[:4], [4000], 16 + n)[0] for n in range(3)]


@cache
def _false() -> list[Block]:
    """A false block 3 and two true ones on top of it."""
    return _grow_on(_main()[:3], [3000, 4000, 5000], 4, FALSE)


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_run_events_file(), _on_event_file(), _count_kept_file(), _get_head_file(), *_make_limit_files()]


def _pick(cases: Sequence[Case]) -> dict[str, tuple[str, str]]:
    used = {flag for case in cases for flag in case.flags}
    return {name: FLAGS[name] for name in FLAGS if name in used}


def _run_events_file() -> CaseFile:
    main, rival, quick, false = _main(), _rival(), _quick(), _false()
    wrong_body, wrong_trace = replace(main[2], body=Body((b"x",))), replace(main[2], trace=main[1].trace)
    rows: list[tuple[str, str, Scenario, tuple[str, ...]]] = [
        ("one-chain", "each block becomes the head", Scenario().block(*main[1:]), ()),
        (
            "repeated",
            "known blocks again, genesis too",
            Scenario().block(main[1], main[1], main[0], main[2], main[1]),
            (),
        ),
        ("headers-only", "headers move no head", Scenario().header(*main[1:]), ("claimed",)),
        (
            "headers-first",
            "then blocks, one too early",
            Scenario().header(*main[1:4]).block(main[2], main[1], main[2]),
            ("claimed",),
        ),
        (
            "backwards",
            "children before parents",
            Scenario().block(main[3], main[2], main[1], main[2], main[3]),
            ("orphan",),
        ),
        (
            "orphan-headers",
            "adopted when the parent comes",
            Scenario().header(main[3], main[2], main[1]).block(*main[1:4]),
            ("orphan",),
        ),
        (
            "lighter",
            "a branch that is behind, and overtakes",
            Scenario().block(*main[1:6]).block(*rival[:4]).block(*rival[:4]),
            ("claimed",),
        ),
        (
            "claimed",
            "headers make a lighter branch worth its replay",
            Scenario().block(*main[1:5]).header(*rival[:3]).block(*rival[:3]),
            ("claimed",),
        ),
        (
            "reorg-and-back",
            "each branch in turn is ahead",
            Scenario().block(*main[1:4]).header(*rival[:2]).block(*rival[:2]).block(main[4], main[5]).block(main[5]),
            ("claimed",),
        ),
        (
            "heavier-not-longer",
            "eight blocks against seven, of which two are four times as heavy",
            Scenario().block(*main[1:]).header(*quick).block(*quick),
            ("work",),
        ),
        ("heavier-first", "the other order", Scenario().block(*quick).header(*main[1:]).block(*main[1:]), ("work",)),
        (
            "false-block",
            "its descendants fall with it",
            Scenario()
            .block(*main[1:3])
            .header(*false)
            .block(false[0])
            .block(false[1], false[0])
            .header(false[2])
            .block(main[3]),
            (),
        ),
        (
            "child-of-false",
            "a header after its parent's verdict",
            Scenario().block(*main[1:3], false[0]).header(false[1]).block(false[2]),
            (),
        ),
        (
            "claims-most",
            "a false branch that claims the most work",
            Scenario().block(*main[1:4]).header(*false).block(*false).block(main[4]),
            ("claimed",),
        ),
        ("wrong-body", "then the right one", Scenario().block(main[1], wrong_body, main[2]), ("malformed",)),
        ("wrong-trace", "then the right one", Scenario().block(main[1], wrong_trace, main[2]), ("malformed",)),
        (
            "early",
            "heard again when the clock has come near",
            Scenario(now=600)
            .block(main[1])
            .tick(1600)
            .block(main[2], main[1], main[2], main[3])
            .tick(2600)
            .block(main[3]),
            ("clock",),
        ),
        (
            "clock-back",
            "a clock that goes back changes no head",
            Scenario().block(*main[1:3]).tick(0).block(main[3], main[1]),
            ("clock",),
        ),
    ]
    for n, order in enumerate(permutations(_siblings())):
        rows.append(
            ("siblings-" + str(n), "three tips, in every order", Scenario().block(*main[1:4], *order), ("tie",))
        )
    two = Scenario().block(*main[1:4]).block(_siblings()[0], main[4]).block(_siblings()[1])
    rows.append(("tie-of-two-then-three", "the winner may change with a third", two, ("tie",)))
    ends = Scenario().block(*main[1:4], *_siblings()).block(main[4], main[5])
    rows.append(("tie-ends", "a block on one of the tips", ends, ("tie",)))
    other = Block(replace(main[2].header, core=replace(main[2].header.core, version=2)), EMPTY_BODY, main[2].trace)
    twice = Scenario().block(main[1]).header(other, other).block(other)
    rows.append(("version-twice", "what a header breaks alone comes before what is remembered of it", twice, ()))
    rows.append(("orphan-of-false", "adopted, then refused with its parent", _adopt_false(), ("orphan",)))
    cases = [Case(name, comment, scenario.as_events(), flags) for name, comment, scenario, flags in rows]
    return CaseFile(RUN_EVENTS, MADE, tuple(cases), _pick(cases))


def _adopt_false() -> Scenario:
    """Return an orphan that turns out to break a rule for headers: its stamp is not above the median."""
    main, (late, _) = _main(), _make_late()
    return Scenario().header(late).block(*main[1:5]).header(late).block(late)


def _on_event_file() -> CaseFile:
    cases: list[Case] = []

    def good(name: str, comment: str, scenario: Scenario) -> Case:
        cases.append(Case(name, comment, scenario.as_verdict()))
        return cases[-1]

    def bad(base: Case, name: str, comment: str, scenario: Scenario, *flags: str) -> None:
        cases.append(make_negative(ON_EVENT, base, name, comment, scenario.as_verdict(), flags))

    main, rival, false = _main(), _rival(), _false()
    again = good("again", "a known block", Scenario().block(*main[1:4], main[3]))
    bad(again, "known-invalid", "it was found invalid", Scenario().block(*main[1:3], false[0], false[0]))
    child = good("child", "a block on its replayed parent", Scenario().block(*main[1:4], main[4]))
    bad(child, "invalid-ancestor", "its parent was found invalid", Scenario().block(*main[1:3], false[0], false[1]))
    bad(child, "unknown-parent", "its parent never came", _without(child, 2), "orphan")
    bad(
        child,
        "parent-not-replayed",
        "of its parent the header came alone",
        Scenario().block(*main[1:3]).header(main[3]).block(main[4]),
    )
    bad(child, "future", "the clock is 1 ms too early", Scenario(now=3599).block(*main[1:5]), "clock")
    equal = good("equal", "a branch as heavy as the head", Scenario(main[1:5]).block(*main[1:4], rival[0]))
    bad(equal, "lighter", "the head is one block heavier", _insert(equal, main[4]), "claimed")
    header = good("header", "a header on its parent", Scenario().block(*main[1:3]).header(main[3]))
    broken = replace(main[3].header, core=replace(main[3].header.core, version=2))
    bad(
        header,
        "header-version",
        "a header of version 2",
        Scenario().block(*main[1:3]).header(Block(broken, EMPTY_BODY, main[3].trace)),
    )
    orphan = good("orphan", "a header without its parent", Scenario().block(main[1]).header(main[3]))
    bad(
        orphan,
        "orphan-version",
        "an orphan of version 2",
        Scenario().block(main[1]).header(Block(broken, EMPTY_BODY, main[3].trace)),
        "orphan",
    )
    dropped = good(
        "dropped",
        "headers first, then their blocks",
        Scenario().block(*main[1:3]).header(*main[3:5]).block(main[3], main[4]),
    )
    bad(
        dropped,
        "known-and-ancestor",
        "block and parent are known to be invalid",
        Scenario().block(*main[1:3]).header(*false[:2]).block(false[0], false[1]),
        "two-rules",
    )
    body = replace(main[4], body=Body((b"x",)))
    bad(child, "parent-and-body", "unknown parent, another body", _replace_last(_without(child, 2), body), "two-rules")
    waiting = Scenario().block(*main[1:3]).header(main[3]).block(body)
    bad(child, "body-and-parent-state", "another body, and a parent that is not replayed", waiting, "two-rules")
    poor = _grow_poor(main[:4], 4000)
    waiting = Scenario().block(*main[1:3]).header(main[3]).block(poor)
    bad(child, "parent-state-and-state", "a parent that is not replayed, a false state", waiting, "two-rules")
    bad(child, "state", "a false state", Scenario().block(*main[1:4], poor))
    cheap = _grow_poor(main[:3], 3100)
    bad(
        equal,
        "state-and-lighter",
        "a false state on a lighter branch",
        _replace_last(_insert(equal, main[4]), cheap),
        "two-rules",
    )
    lie = _replace_last(_insert(equal, main[4]), false[0])
    bad(equal, "lighter-and-trace", "a false trace on a lighter branch", lie, "two-rules")
    return CaseFile(ON_EVENT, MADE, tuple(cases), _pick(cases))


def _read_back(case: Case) -> Scenario:
    blocks, events = list(case.input["blocks"]), [*case.input["setup"], case.input["event"]]
    return Scenario(blocks, events)


def _without(case: Case, index: int) -> Scenario:
    """Return the case's events without one of the setup; the blocks stay."""
    scenario = _read_back(case)
    del scenario.events[index]
    return scenario


def _insert(case: Case, block: Block) -> Scenario:
    """Return the case's events with another block before the last."""
    scenario = _read_back(case)
    last = scenario.events.pop()
    return replace(scenario.block(block), events=[*scenario.events, last])


def _replace_last(scenario: Scenario, block: Block) -> Scenario:
    """Return the scenario with another block in the place of the one that is judged."""
    index = scenario.events[-1][1]["block"]
    blocks = [block if n == index else other for n, other in enumerate(scenario.blocks)]
    return replace(scenario, blocks=blocks)


def _grow_poor(blocks: Sequence[Block], stamp: int) -> Block:
    """Return a block whose header commits to a false state."""
    branch = GrownBranch.start(make_network())
    for block in blocks[1:]:
        branch.append(block)
    return seal_block(branch.make_core(stamp, b"\x02" * 20, state_root=bytes(32)), branch.chain, branch.judge)


def _make_stranger(number: int) -> Block:
    """Return a block whose header passes the rules that need no parent; its parent is nobody's block."""
    genesis = make_genesis_header(make_network())
    core = replace(
        genesis.core,
        height=1 + number,
        parent_hash=derive_seed("fork_choice", f"stranger/{number}"),
        body_root=EMPTY_BODY_ROOT,
    )
    return Block(Header(core, number, bytes(32)), EMPTY_BODY, ())


def _list_orphans() -> list[tuple[str, str, Scenario, tuple[str, ...]]]:
    """Return the cases of `count_kept` about what becomes of an orphan: owner and place, limits, verdicts."""
    main, limit = _main(), ("limit",)
    lone = Scenario().header(main[2], peer="lone")
    for number in range(1, 257):
        lone.header(_make_stranger(number), peer=str(number // 4))
    lone.header(main[1], peer="late")
    shared = Scenario().header(main[2], peer="a").header(main[2], *map(_make_stranger, range(1, 5)), peer="b")
    shared.header(main[1], peer="b")
    again = Scenario().header(main[2], *map(_make_stranger, range(1, 4))).header(main[2], _make_stranger(4))
    again.header(main[1])
    late, child = _make_late()
    early = Scenario(now=1000).header(main[3], main[2]).header(main[1])
    return [
        ("lone-orphan", "the 257th takes the place of a heavier user's, not of the oldest", lone, limit),
        ("orphan-of-two-peers", "the first sender stays the owner: the second has four more places", shared, limit),
        ("orphan-again", "sent again it keeps its place, so the fifth drops it", again, limit),
        ("child-of-invalid-header", "an orphan whose parent turns out to be invalid keeps its place",
         Scenario().block(*main[1:5]).header(child, late), ()),
        ("child-of-invalid-orphan", "and so it does when the parent was an orphan",
         Scenario().header(child, late).header(*main[1:5]), ()),
        ("child-of-invalid-again", "sent again it is invalid, and its place stays taken",
         Scenario().block(*main[1:5]).header(child, late, child), ()),
        ("orphan-of-false-block", "adopted when its header came, it falls with the false block",
         Scenario().block(*main[1:3]).header(_false()[1]).block(_false()[0]), ()),
        ("future-orphan", "an orphan that is too early when its parent comes is gone; what stood on it stays an orphan",
         early, ("clock",)),
        ("future-header", "a header that is too early is not kept, and makes no orphan",
         Scenario(now=500).header(main[1]), ("clock",)),
        ("orphan-then-block", "a block without a parent is kept as its header is",
         Scenario().block(main[2]).block(main[1], main[2]), ()),
    ]  # fmt: skip


def _make_late() -> tuple[Block, Block]:
    """Return a block 5 whose stamp is not above the median, and one on top of it."""
    branch = GrownBranch.start(make_network())
    for block in _main()[1:5]:
        branch.append(block)
    late = seal_block(branch.make_core(1000), branch.chain, branch.judge)
    branch.append(late)
    return late, seal_block(branch.make_core(6000), branch.chain, branch.judge)


def _count_kept_file() -> CaseFile:
    main, rival, false = _main(), _rival(), _false()
    six = Scenario().header(*main[2:7]).header(main[1]).header(main[2])
    shared = Scenario().header(*main[2:6], peer="a").header(*main[6:9], peer="b").header(main[1], peer="c")
    crowd = Scenario().header(main[2], peer="0")
    for number in range(1, 264):
        crowd.header(_make_stranger(number), peer=str(number // 4))
    crowd.header(main[1], peer="0").header(main[2], peer="0")
    rows: list[tuple[str, str, Scenario, tuple[str, ...]]] = [
        ("one-chain", "headers wait until they are replayed", Scenario().header(*main[1:4]).block(*main[1:4]), ()),
        ("branches", "a lighter branch waits", Scenario().block(*main[1:5], *rival[:2]), ()),
        (
            "false-branch",
            "a false block takes its descendants along",
            Scenario().block(*main[1:3]).header(*false).block(false[0]),
            (),
        ),
        ("child-of-false", "is itself remembered", Scenario().block(*main[1:3], false[0]).header(false[1]), ()),
        ("late-orphan", "an orphan that fails when it is adopted", _adopt_false(), ("orphan",)),
        ("orphans-of-one-peer", "the oldest of five is dropped", six, ("orphan", "limit")),
        ("orphans-of-two-peers", "each has four places", shared, ("orphan", "limit")),
        (
            "orphans-of-many-peers",
            "256 places; past them the heaviest users' oldest is dropped",
            crowd,
            ("orphan", "limit"),
        ),
    ]
    rows += [(name, comment, scenario, ("orphan", *flags)) for name, comment, scenario, flags in _list_orphans()]
    cases = [Case(name, comment, scenario.as_events(), flags) for name, comment, scenario, flags in rows]
    how = f"{MADE} Parents of strangers are Keccak(Keccak('PoAI/vectors/1') || 'fork_choice/stranger/' || N)."
    return CaseFile(COUNT_KEPT, how, tuple(cases), _pick(cases))


def _get_head_file() -> CaseFile:
    def tip(name: str, work: int, *, replayed: bool = True) -> dict[str, Any]:
        return {"hash": derive_seed("fork_choice", f"tip/{name}"), "work": work, "replayed": replayed}

    lists: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
        "one": ([tip("a", 0)], ()),
        "more-work": ([tip("a", 5), tip("b", 6), tip("c", 4)], ()),
        "not-replayed": ([tip("a", 5), tip("b", 6, replayed=False)], ()),
        "large-work": ([tip("a", 2**200), tip("b", 2**200 - 1)], ()),
        "two-and-less": ([tip("a", 7), tip("b", 7), tip("c", 6)], ("tie",)),
        "tie-with-waiting": ([tip("a", 7), tip("b", 7), tip("c", 7, replayed=False)], ("tie",)),
    }
    for count in range(2, 8):
        tips = [tip(f"tie-{count}/{n}", 9) for n in range(count)]
        lists[f"tie-{count}"] = (tips, ("tie",))
        lists[f"tie-{count}-reversed"] = (tips[::-1], ("tie",))
    cases = [Case(name, f"{len(tips)} blocks", {"tips": tips}, flags) for name, (tips, flags) in lists.items()]
    how = "Hashes are Keccak(Keccak('PoAI/vectors/1') || 'fork_choice/tip/' || name), the name being a, b, c or id/N."
    return CaseFile(GET_HEAD, how, tuple(cases), _pick(cases))


def _make_limit_files() -> list[CaseFile]:
    def room(own: int, *groups: tuple[int, int]) -> dict[str, Any]:
        return {"others": [{"peers": peers, "headers": headers} for peers, headers in groups], "own": own}

    last = Case("last-place", "8,191 headers of the newcomer's peer wait", room(8191), ("limit",))
    ones = Case("last-of-ones", "one place left, every peer has one", room(1, (65534, 1)), ("limit",))
    cases = [
        Case("empty", "nobody waits", room(0)),
        last,
        make_negative(MAKE_ROOM, last, "peer-full", "one more", room(8192), ("limit",)),
        ones,
        make_negative(MAKE_ROOM, ones, "all-equal", "no place left, nobody has more", room(1, (65535, 1)), ("limit",)),
        Case("last-place-of-all", "65,535 wait", room(0, (7, 8192), (1, 8191)), ("limit",)),
        Case("all-full", "65,536 wait: the heaviest user loses one", room(0, (8, 8192)), ("limit",)),
        Case("heaviest", "one peer has more than the others", room(3, (1, 8192), (7, 8191), (1, 4)), ("limit",)),
        Case("newcomer-among-ones", "65,536 peers have one each", room(0, (65536, 1)), ("limit",)),
        Case("one-has-two", "all have one, but a single peer two", room(1, (65533, 1), (1, 2)), ("limit",)),
    ]
    full = [
        Case("nobody", "nobody waits", room(0)),
        Case("place-of-peer", "8,191 headers of the peer wait", room(8191), ("limit",)),
        Case("peer-full", "one more", room(8192), ("limit",)),
        Case("place-of-all", "65,535 wait", room(1, (65534, 1)), ("limit",)),
        Case("all-full", "65,536 wait", room(1, (65535, 1)), ("limit",)),
        Case("others-full", "all places are other peers'", room(0, (8, 8192)), ("limit",)),
    ]
    rows = {
        "first": ("nothing was remembered", 0, b"\xff" * 32, ()),
        "again": ("a hash that is remembered keeps its place", 3, (1).to_bytes(32, "big"), ()),
        "last-place": ("the 65,536th", 65535, b"\xff" * 32, ("limit",)),
        "oldest-goes": ("the 65,537th takes the oldest's place", 65536, b"\xff" * 32, ("limit",)),
        "full-again": ("a hash that is remembered takes no place", 65536, bytes(32), ("limit",)),
    }
    bad = [
        Case(name, comment, {"remembered": count, "hash": block_hash}, flags)
        for name, (comment, count, block_hash, flags) in rows.items()
    ]
    how = "Chosen by hand; the hashes that are remembered are 0, 1, 2, ... as 32 bytes, big-endian."
    return [
        CaseFile(MAKE_ROOM, "Chosen by hand.", tuple(cases), _pick(cases)),
        CaseFile(IS_FULL, "Chosen by hand.", tuple(full), _pick(full)),
        CaseFile(ON_INVALID, how, tuple(bad), _pick(bad)),
    ]
