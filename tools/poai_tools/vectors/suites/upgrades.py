"""Vectors of the page `upgrades`: rules by height, refused lists, fork ids, a chain across two upgrades."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import SpecError
from poai_spec.basics.parameters import get_model_manifest
from poai_spec.chain.block import Judge, check_block, make_genesis
from poai_spec.chain.fork_choice import Store, get_head, make_store, receive_block
from poai_spec.chain.header import check_header_in_chain, make_genesis_header
from poai_spec.chain.upgrades import (
    MAX_UPGRADES,
    ForkId,
    Rules,
    Upgrade,
    check_fork_id,
    check_upgrades,
    get_fork_id,
    get_multiplications,
    get_rules,
    get_unknown_upgrade,
    make_change,
)
from poai_spec.execution.state import State, compute_state_root
from poai_spec.model.loss import compute_l_hat, compute_trace_digest, is_below_target
from poai_spec.proof.difficulty import compute_target, compute_work
from poai_spec.proof.work import get_quiz_seed
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.chains import GrownBranch, seal_header
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.engines import LEXICONS, STORED, get_upgraded_judge
from poai_tools.vectors.kinds import (
    HASH32,
    TEXT,
    UINT32,
    UINT64,
    Array,
    Hex,
    Integer,
    Kind,
    Optional,
    RecordKind,
    Text,
    require,
)
from poai_tools.vectors.network import (
    LEXICON,
    MODEL,
    OTHER_MODEL,
    make_network,
    make_upgrades,
    read_rules,
    require_config,
)
from poai_tools.vectors.records import BALANCES, CONFIG, HEADER, MODEL_MANIFEST, UPGRADES, list_accounts
from poai_tools.vectors.registry import Function, register

SUITE = "upgrades"
TARGET = Integer(1, 2**256 - 1)
LIST: dict[str, Kind] = {"config": CONFIG, "upgrades": UPGRADES}
FORK_ID: dict[str, Kind] = {"hash": Hex(4), "next": UINT64}
NUMBERS: dict[str, Kind] = {
    "since": UINT64, "digest": HASH32, "anchor": UINT64, "profile": Text(("w8a8", "llama.cpp")),
    "model": MODEL_MANIFEST, "retarget_blocks": UINT64, "spacing": UINT64, "max_future": UINT64, "quiz_tokens": UINT32,
    "salt_tokens": UINT32, "scored_tokens": UINT32,
}  # fmt: skip
MODELS = Array(RecordKind({"since": UINT64, "lexicon": Text(LEXICONS), "model": Text(tuple(STORED))}))
CHAIN_INPUT = RecordKind({**LIST, "models": MODELS, "now": UINT64, "blocks": Array(Hex(2**16, exact=False))})
TIP: dict[str, Kind] = {"head": HASH32, "height": UINT32, "state_root": HASH32, "accounts": BALANCES}


def _register(
    name: str, page: str, summary: str, takes: Mapping[str, Kind], gives: Mapping[str, Kind], run: Any
) -> Any:
    return register(Function(SUITE, name, page, summary, RecordKind(takes), RecordKind(gives), run))


def _get_rules(i: Mapping[str, Any]) -> dict[str, Any]:
    rules = read_rules(i)
    found = {name: getattr(rules, name) for name in NUMBERS} | {"profile": rules.profile.decode("ascii")}
    return found | {"multiplications": get_multiplications(rules)}


def _check_upgrades(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(i["config"])
    check_upgrades(i["config"], i["upgrades"])
    return {}


def _get_fork_id(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(i["config"], i["upgrades"])
    return vars(get_fork_id(i["config"], i["upgrades"], i["head"]))


def _check_fork_id(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(i["config"], i["upgrades"])
    peer = ForkId(**i["peer"])
    check_fork_id(i["config"], i["upgrades"], i["head"], peer)
    return {"unknown": get_unknown_upgrade(i["config"], i["upgrades"], i["head"], peer)}


def _read_chain(rows: Sequence[Mapping[str, Any]]) -> list[Header]:
    genesis = make_genesis_header(make_network())
    return [replace(genesis, core=replace(genesis.core, height=h, **row)) for h, row in enumerate(rows)]


def _compute_target(i: Mapping[str, Any]) -> dict[str, Any]:
    rules = read_rules({**i, "height": len(i["chain"])})
    target = compute_target(_read_chain(i["chain"]), rules)
    return {"target": target, "work": compute_work(target, rules)}


def _check_header_in_chain(i: Mapping[str, Any]) -> dict[str, Any]:
    rules = read_rules({**i, "height": len(i["chain"])})
    check_header_in_chain(i["header"], i["chain"], rules, i["now"])
    return {"hash": compute_block_hash(i["header"])}


def _read_judge(i: Mapping[str, Any]) -> Judge:
    require_config(i["config"], i["upgrades"])
    models = {row["since"]: (row["lexicon"], row["model"]) for row in i["models"]}
    require(len(models) == len(i["models"]), "models: one a height")
    return get_upgraded_judge(i["config"], i["upgrades"], models)


def _describe(header: Header, state: State) -> dict[str, Any]:
    return {
        "head": compute_block_hash(header),
        "height": header.core.height,
        "state_root": compute_state_root(state),
        "accounts": list_accounts(state),
    }


def _verify_chain(i: Mapping[str, Any]) -> dict[str, Any]:
    judge = _read_judge(i)
    chain, state = [make_genesis(judge.config).header], dict[bytes, Any]()
    for data in i["blocks"]:
        block = decode(Block, data)
        state = dict(check_block(block, chain, state, judge, i["now"]))
        chain.append(block.header)
    return _describe(chain[-1], state)


def _deliver(store: Store, data: bytes, judge: Judge) -> tuple[Store, SpecError | None]:
    try:
        block = decode(Block, data)
    except SpecError as error:
        return store, error
    return receive_block(store, block, b"peer", judge)


def _import_blocks(i: Mapping[str, Any]) -> dict[str, Any]:
    judge = _read_judge(i)
    store, codes = make_store(judge, i["now"]), []
    for data in i["blocks"]:
        store, error = _deliver(store, data, judge)
        codes.append(error.code if error else None)
    head = store.kept[get_head(store)]
    return _describe(head.header, head.state or {}) | {"work": head.work, "codes": codes}


GET_RULES = _register(
    "get_rules", "upgrades", "the rules of a height", {**LIST, "height": UINT64},
    {**NUMBERS, "multiplications": UINT64}, _get_rules,
)  # fmt: skip
CHECK_UPGRADES = _register("check_upgrades", "upgrades", "refuse a list of upgrades", LIST, {}, _check_upgrades)
GET_FORK_ID = _register(
    "get_fork_id", "upgrades", "the fork id of a node whose head is at a height", {**LIST, "head": UINT64}, FORK_ID,
    _get_fork_id,
)  # fmt: skip
CHECK_FORK_ID = _register(
    "check_fork_id", "upgrades",
    "refuse a peer whose rules part from the node's; of one that stays, the height at which they will, or 0",
    {**LIST, "head": UINT64, "peer": RecordKind(FORK_ID)}, {"unknown": UINT64}, _check_fork_id,
)  # fmt: skip
COMPUTE_TARGET = _register(
    "compute_target", "difficulty", "target and work of the block on top of a chain, genesis first",
    {**LIST, "chain": Array(RecordKind({"timestamp": UINT64, "target": TARGET}), least=1)},
    {"target": TARGET, "work": Integer(0, 2**320)}, _compute_target,
)  # fmt: skip
CHECK_HEADER_IN_CHAIN = _register(
    "check_header_in_chain", "header", "the rules for a header on its chain, where they have changed",
    {**LIST, "chain": Array(HEADER, least=1), "header": HEADER, "now": UINT64}, {"hash": HASH32},
    _check_header_in_chain,
)  # fmt: skip
VERIFY_CHAIN = register(
    Function(
        SUITE, "verify_chain", "block", "check a chain across upgrades; `models` says what is loaded for which heights",
        CHAIN_INPUT, RecordKind(TIP), _verify_chain,
    )
)  # fmt: skip
IMPORT_BLOCKS = register(
    Function(
        SUITE, "import_blocks", "fork-choice",
        "give blocks across upgrades to a node that knows genesis, all from one peer; its head at last, each code",
        CHAIN_INPUT, RecordKind({**TIP, "work": Integer(0, 2**320), "codes": Array(Optional(TEXT))}), _import_blocks,
    )
)  # fmt: skip

FLAGS = {
    "boundary": ("the last block of the old rules, or the first of the new", "a client that changes a block too early "
                 "or too late splits from the network"),
    "rescale": ("the target follows the cost of a quiz", "a client that keeps the target makes blocks a hundred times "
                "too easy or too hard"),
    "work": ("work is quizzes times multiplications", "a client that counts quizzes follows a branch of less work"),
    "digest": ("the quiz seed covers the upgrades that have passed", "a client without it accepts blocks of another "
               "list"),
    "missing": ("a model is not at hand", "a client that calls such a block invalid never takes it again"),
}  # fmt: skip
MADE = (
    "The network of the vectors with two upgrades: poai-micro and longer quizzes from height 4 on, poai-mini and other "
    "periods from height 10 on. Stamps by hand, nonces the first from 0 on that win."
)
LATER = 10**7
STAMPS = (900, 1500, 2600, 3300, 4400, 5200, 6600, 7000, 8100, 9000, 11_000, 12_400, 14_000, 15_100)


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [
        _rules_file(), _lists_file(), _fork_ids_file(), _peers_file(), _targets_file(), _headers_file(), _chain_file(),
        _import_file(),
    ]  # fmt: skip


def _list(upgrades: Sequence[Upgrade] = (), **more: Any) -> dict[str, Any]:
    return {"config": make_network(), "upgrades": tuple(upgrades), **more}


def _pick(*names: str) -> dict[str, tuple[str, str]]:
    return {name: FLAGS[name] for name in names}


def _rules_file() -> CaseFile:
    upgrades = make_upgrades()
    rows = [(0, "genesis"), (3, "the last block of the config's rules"), (4, "the first of the first upgrade")]
    rows += [(9, "its last"), (10, "the first of the second"), (2**64 - 1, "it holds for ever")]
    cases = [Case("none", "no upgrade", _list(height=1000))]
    cases += [Case(f"height-{h}", text, _list(upgrades, height=h), ("boundary",)) for h, text in rows]
    cases.append(Case("one-alone", "only the first is on the list", _list(upgrades[:1], height=10)))
    for name, values in _single_changes().items():
        changed = (Upgrade(6, make_change(**values)),)
        for height in (5, 6):
            cases.append(Case(f"{name}-{height}", "one field changes", _list(changed, height=height), ("boundary",)))
    return CaseFile(GET_RULES, MADE, tuple(cases), _pick("boundary"))


def _single_changes() -> dict[str, dict[str, Any]]:
    return {
        "profile": {"profile": b"llama.cpp"},
        "model": {"model": get_model_manifest(OTHER_MODEL)},
        "retarget-blocks": {"retarget_blocks": 5},
        "spacing": {"spacing": 1_001},
        "max-future": {"max_future": 399},
        "quiz-tokens": {"quiz_tokens": 33},
        "salt-tokens": {"salt_tokens": 5},
        "scored-tokens": {"scored_tokens": 1},
    }


def _lists_file() -> CaseFile:
    first, second = make_upgrades()
    longer = make_change(quiz_tokens=33)
    base = Case("two", "the two of these vectors", _list((first, second)))
    many = tuple(Upgrade(n + 1, make_change(quiz_tokens=33 + n % 2)) for n in range(MAX_UPGRADES))
    cases = [
        base,
        Case("none", "an empty list", _list()),
        Case("height-1", "the first block", _list((Upgrade(1, longer),))),
        Case(
            "next-to-each-other", "one block apart", _list((Upgrade(7, longer), Upgrade(8, make_change(salt_tokens=5))))
        ),
        Case("as-many-as-allowed", "64", _list(many)),
        Case("last-height", "2^64 - 1", _list((Upgrade(2**64 - 1, longer),))),
        Case(
            "border",
            "another spacing in the first block after a period",
            _list((Upgrade(6, make_change(spacing=2_000)),)),
        ),
        Case("after-the-anchor", "periods of 3 are counted from block 5", _list(_periods(9))),
    ]
    rows: list[tuple[str, str, tuple[Upgrade, ...]]] = [
        ("height-0", "genesis is the config's", (Upgrade(0, first.change), second)),
        ("equal", "twice the same height", (first, replace(second, height=4))),
        ("descending", "exchanged", (second, first)),
        ("no-field", "no field", (first, Upgrade(10, make_change()))),
        ("no-change", "the value that it has", (Upgrade(4, make_change(spacing=1_000)), second)),
        ("no-change-any-more", "the value of the first upgrade", (first, Upgrade(10, make_change(quiz_tokens=40)))),
        ("spacing-early", "a block before the border", (first, Upgrade(9, second.change))),
        ("spacing-late", "a block after it", (first, Upgrade(11, second.change))),
        ("first-period", "the first period has no border before its end", (Upgrade(2, make_change(spacing=2_000)),)),
        ("old-period", "the border that periods of 4 would have", _periods(10)),
        ("max-future", "above a tenth of a period", (first, Upgrade(10, make_change(max_future=401)))),
        ("shorter-period", "max_future stays, and is above a tenth", (Upgrade(6, make_change(spacing=999)), second)),
        ("quiz-length", "no room for the scored tokens", (first, Upgrade(10, make_change(quiz_tokens=9)))),
        ("profile", "unknown", (first, Upgrade(10, make_change(profile=b"w8a16")))),
        ("cost", "a model without multiplications", (Upgrade(4, make_change(model=_free_model())), second)),
        ("too-many", "65", (*many, Upgrade(100, make_change(spacing=2_000)))),
        ("order-before-border", "two faults: the height counts", (first, Upgrade(3, second.change))),
        ("border-before-bounds", "two faults: the border counts", (first, Upgrade(9, make_change(spacing=1)))),
    ]
    cases += [make_negative(CHECK_UPGRADES, base, name, text, {"upgrades": listed}) for name, text, listed in rows]
    return CaseFile(CHECK_UPGRADES, "By hand; two faults show the order of the rules.", tuple(cases))


def _periods(height: int) -> tuple[Upgrade, ...]:
    """Return periods of 3 blocks from height 6 on, and another spacing at a height."""
    shorter = make_change(retarget_blocks=3, max_future=300)
    return Upgrade(6, shorter), Upgrade(height, make_change(spacing=1_100))


def _free_model() -> Any:
    return replace(get_model_manifest(OTHER_MODEL), position_cost=0, pair_cost=0, scored_cost=0)


def _fork_ids_file() -> CaseFile:
    upgrades = make_upgrades()
    cases = [Case("none", "no upgrade", _list(head=1000))]
    cases += [
        Case(f"head-{head}", "the head's own height counts", _list(upgrades, head=head), ("boundary",))
        for head in (0, 3, 4, 9, 10, 2**64 - 1)
    ]
    return CaseFile(GET_FORK_ID, MADE, tuple(cases), _pick("boundary"))


def _peers_file() -> CaseFile:
    first, _ = upgrades = make_upgrades()
    config, other = make_network(), Upgrade(5, make_change(quiz_tokens=33))

    def ask(head: int, theirs: Sequence[Upgrade], their_head: int) -> dict[str, Any]:
        peer = get_fork_id(config, tuple(theirs), their_head)
        return _list(upgrades, head=head, peer=vars(peer))

    valid: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("equal-before", "the same list, both before the first", ask(2, upgrades, 3)),
        ("equal-after", "both after the second", ask(20, upgrades, 30)),
        ("peer-behind", "it knows the next one", ask(6, upgrades, 3)),
        ("peer-two-behind", "it knows the next one, and this node passed two", ask(12, upgrades, 1)),
        ("node-behind", "the peer has passed the first", ask(3, upgrades, 4)),
        ("node-two-behind", "the peer has passed both", ask(1, upgrades, 12)),
        ("unaware-of-coming", "it does not know the first, which is to come", ask(3, (), 3)),
        ("unaware-of-second", "it does not know the second, which is to come", ask(9, (first,), 9)),
        (
            "plans-more",
            "it has one that this node does not know, to come",
            ask(10, (*upgrades, Upgrade(14, other.change)), 11),
        ),
        ("plans-earlier", "it has one before this node's next", ask(3, (other,), 3)),
    )
    cases = [Case(name, text, values) for name, text, values in valid]
    base = cases[1]
    rows: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("unaware", "it does not know the first, which has passed", ask(4, (), 4)),
        ("unaware-of-both", "it knows neither", ask(12, (), 12)),
        ("unaware-of-last", "it knows the first alone", ask(10, (first,), 10)),
        ("other-next", "it is behind, and will change elsewhere", ask(6, (other,), 3)),
        ("changed", "it will change where this node has passed", ask(20, (*upgrades, Upgrade(14, other.change)), 12)),
        ("changed-at-head", "at the height of this node's head", ask(14, (*upgrades, Upgrade(14, other.change)), 12)),
        ("differs", "it changed elsewhere", ask(6, (other,), 6)),
        ("same-height", "it changed something else at the same height", ask(6, (Upgrade(4, other.change),), 6)),
        ("noise", "no list has this hash", _list(upgrades, head=3, peer={"hash": b"\xff" * 4, "next": 4})),
    )  # fmt: skip
    for name, text, values in rows:
        changes = {key: values[key] for key in ("head", "peer") if values[key] != base.input[key]}
        cases.append(make_negative(CHECK_FORK_ID, base, name, text, changes))
    return CaseFile(CHECK_FORK_ID, MADE, tuple(cases))


def _targets_file() -> CaseFile:
    upgrades, start = make_upgrades(), 10**6
    cases = []
    for height in (3, 4, 5, 6, 9, 10, 11, 13, 16):
        rows = [{"timestamp": start + 700 * h, "target": 2**250} for h in range(height)]
        cases.append(
            Case(f"height-{height}", "blocks 700 ms apart", _list(upgrades, chain=rows), ("boundary", "rescale"))
        )
    for name, target in (("largest", 2**256 - 1), ("smallest", 1)):
        for height in (4, 10):
            rows = [{"timestamp": start + 700 * h, "target": target} for h in range(height)]
            cases.append(Case(f"{name}-{height}", "at the bound", _list(upgrades, chain=rows), ("rescale",)))
    heavier = (Upgrade(4, make_change(quiz_tokens=60)),)
    rows = [{"timestamp": start + 1000 * h, "target": 2**256 - 1} for h in range(4)]
    cases.append(Case("clamped", "a heavier quiz, the target is the easiest", _list(heavier, chain=rows), ("rescale",)))
    return CaseFile(COMPUTE_TARGET, "Chains of equal stamps and targets.", tuple(cases), _pick("boundary", "rescale"))


@cache
def _branch(upgrades: tuple[Upgrade, ...]) -> GrownBranch:
    """Fourteen blocks of the network under a list of upgrades, whose models are poai-mini and poai-micro."""
    branch = GrownBranch.begin(get_upgraded_judge(make_network(), upgrades, _name_models(upgrades)))
    for stamp in STAMPS:
        branch.grow(stamp)
    return branch


def _name_models(upgrades: Sequence[Upgrade]) -> dict[int, tuple[str, str]]:
    names, micro = {0: (LEXICON, MODEL)}, get_model_manifest(OTHER_MODEL)
    for upgrade in upgrades:
        rules = get_rules(make_network(), tuple(upgrades), upgrade.height)
        name = OTHER_MODEL if rules.model == micro else MODEL
        names[upgrade.height] = (name, name)
    return names


def _list_models(upgrades: Sequence[Upgrade]) -> tuple[dict[str, Any], ...]:
    named = _name_models(upgrades).items()
    return tuple({"since": since, "lexicon": lexicon, "model": model} for since, (lexicon, model) in named)


def _headers_file() -> CaseFile:
    """Every field at its boundary: the last block of the old rules, and the first of the new."""
    upgrades, config = make_upgrades(), make_network()
    cases = []
    for height, text in ((3, "the last before"), (4, "the first"), (9, "the last of the first"), (10, "the second")):
        values = _header_input(upgrades, height)
        cases.append(Case(f"height-{height}", text, values, ("boundary",)))
    bases = {int(case.id.rpartition("-")[2]): case for case in cases}
    for height, wrong in ((3, 4), (4, 3), (9, 10), (10, 9)):
        other = get_rules(config, upgrades, wrong)
        cases += _negatives(bases[height], other, wrong)
    without = _header_input(upgrades[:1], 10)
    changes = {key: without[key] for key in ("header",)}
    text = "a block of a list without the second upgrade"
    cases.append(make_negative(CHECK_HEADER_IN_CHAIN, bases[10], "other-list", text, changes, ("digest",)))
    return CaseFile(CHECK_HEADER_IN_CHAIN, MADE, tuple(cases), _pick("boundary", "digest"))


def _header_input(upgrades: tuple[Upgrade, ...], height: int) -> dict[str, Any]:
    branch = _branch(upgrades)
    header = branch.chain[height]
    return _list(upgrades, chain=tuple(branch.chain[:height]), header=header, now=header.core.timestamp)


def _negatives(base: Case, other: Rules, wrong: int) -> list[Case]:
    """Return headers that follow the rules of the neighbouring height in one respect each."""
    config, upgrades, chain, header = (base.input[key] for key in ("config", "upgrades", "chain", "header"))
    found, height = [], len(chain)

    def add(name: str, text: str, changed: Header, **more: Any) -> None:
        values = {"header": changed, **more}
        flags = ("boundary",) + (("digest",) if name == "digest" else ())
        found.append(make_negative(CHECK_HEADER_IN_CHAIN, base, f"{name}-{height}", text, values, flags))

    target = compute_target(chain, other)
    if target != header.core.target:
        easier = replace(header, core=replace(header.core, target=target))
        add("target", f"the target that the rules of height {wrong} give", seal_header(easier, chain, config, upgrades))
    if (sealed := _seal_under(header, chain, other, get_rules(config, upgrades, height))) is not None:
        add("digest", f"it wins under the rules of height {wrong} alone", sealed)
    early = header.core.timestamp - get_rules(config, upgrades, height).max_future - 1
    add("future", "a millisecond more ahead of the clock than allowed", header, now=early)
    return found


def _seal_under(header: Header, chain: Sequence[Header], rules: Rules, true: Rules) -> Header | None:
    """Return the header with a nonce that wins under some rules and not under the true ones."""
    for nonce in range(10_000):
        changed = replace(header, core=replace(header.core, nonce=nonce))
        seeds = [get_quiz_seed(changed.core, chain, each) for each in (rules, true)]
        wins = [
            is_below_target(compute_l_hat(seed, changed.loss, changed.trace_digest), changed.core.target)
            for seed in seeds
        ]
        if wins == [True, False]:
            return changed
    return None


def _chain_input(upgrades: tuple[Upgrade, ...], blocks: Sequence[Block | bytes]) -> dict[str, Any]:
    data = tuple(block if isinstance(block, bytes) else encode(block) for block in blocks)
    now = make_network().genesis_timestamp + LATER
    return _list(upgrades, models=_list_models(upgrades), now=now, blocks=data)


def _chain_file() -> CaseFile:
    upgrades = make_upgrades()
    blocks = _branch(upgrades).blocks[1:]
    base = Case("two-upgrades", "14 blocks, three sets of rules", _chain_input(upgrades, blocks), ("boundary",))
    heights = [
        Case(f"up-to-{height}", "the same", _chain_input(upgrades, blocks[:height]), ("boundary",))
        for height in (3, 4, 9, 10)
    ]
    unneeded = _chain_input(upgrades, blocks[:3]) | {"models": _list_models(upgrades)[:1]}
    cases = [base, *heights, Case("model-not-needed", "blocks of the loaded model alone", unneeded, ("missing",))]
    cases.append(
        make_negative(
            VERIFY_CHAIN, base, "model-missing", "the model of height 4 is not loaded",
            {"models": _list_models(upgrades)[:1]}, ("missing",),
        )
    )  # fmt: skip
    plain = _branch(()).blocks[1:]
    rows: tuple[tuple[str, str, Sequence[Block]], ...] = (
        ("never-changed", "block 4 of the network without upgrades", plain),
        ("first-alone", "block 10 of the network with the first alone", _branch(upgrades[:1]).blocks[1:]),
        ("trace-of-old", "block 4 with a trace of the old model's length", [*blocks[:3], _old_trace(blocks)]),
    )
    for name, text, changed in rows:
        values = {"blocks": _chain_input(upgrades, changed)["blocks"]}
        cases.append(make_negative(VERIFY_CHAIN, base, name, text, values, ("boundary", "digest")))
    return CaseFile(VERIFY_CHAIN, MADE, tuple(cases), _pick("boundary", "missing", "digest"))


def _old_trace(blocks: Sequence[Block]) -> Block:
    branch = _branch(make_upgrades())
    block = blocks[3]
    trace = (*block.trace, block.trace[-1])
    header = replace(block.header, trace_digest=compute_trace_digest(trace))
    return Block(seal_header(header, branch.chain[:4], make_network(), make_upgrades()), block.body, trace)


def _import_file() -> CaseFile:
    upgrades = make_upgrades()
    blocks, network = _branch(upgrades).blocks[1:], make_network()
    rows: tuple[tuple[str, str, Sequence[Block], tuple[str, ...]], ...] = (
        ("in-order", "one chain", blocks, ()),
        ("backwards", "children first, then all again", [*reversed(blocks), *blocks], ()),
        ("old-branch", "a branch of another list, under the old rules", [*blocks[:6], *_branch(()).blocks[4:]],
         ("digest",)),
    )  # fmt: skip
    cases = [Case(name, text, _chain_input(upgrades, listed), flags) for name, text, listed, flags in rows]
    cheap = _chain_input(_to_micro(), _cheap_branch())
    cases.append(Case("more-quizzes-less-work", "the shorter branch has more work", cheap, ("work",)))
    missing = _chain_input(upgrades, blocks[:8]) | {"models": _list_models(upgrades)[:1]}
    cases.append(Case("model-missing", "the head stays at block 3", missing, ("missing",)))
    assert network.epoch_blocks == 3, "blocks 3 and 9 end epochs: keys go on across both upgrades"
    return CaseFile(IMPORT_BLOCKS, MADE, tuple(cases), _pick("digest", "work", "missing"))


def _cheap_branch() -> list[Block]:
    """Return nine blocks, two of them behind a change to poai-micro, and seven with more work before the change.

    A quiz of poai-micro is cheap, so a block takes seven times as many: nine blocks are more quizzes, and less work.
    """
    upgrades = _to_micro()
    judge = get_upgraded_judge(make_network(), upgrades, _name_models(upgrades))
    slow, quick = GrownBranch.begin(judge), GrownBranch.begin(judge)
    for height in range(1, 10):
        slow.grow(1_000 * height)
    for height in range(1, 8):
        quick.grow(250 * height, b"\x33" * 20)
    return [*slow.blocks[1:], *quick.blocks[1:]]


def _to_micro() -> tuple[Upgrade, ...]:
    return (Upgrade(8, make_change(model=get_model_manifest(OTHER_MODEL))),)
