"""Vectors of chains across two upgrades: targets, headers at the boundaries, whole chains, and the fork choice."""

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
    Rules,
    Upgrade,
    get_rules,
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
from poai_tools.vectors.records import BALANCES, HEADER, list_accounts
from poai_tools.vectors.registry import Function, register
from poai_tools.vectors.suites.upgrades import LIST, MADE, list_values, pick_flags

SUITE = "upgrade_chains"
TARGET = Integer(1, 2**256 - 1)
MODELS = Array(RecordKind({"since": UINT64, "lexicon": Text(LEXICONS), "model": Text(tuple(STORED))}))
CHAIN_INPUT = RecordKind({**LIST, "models": MODELS, "now": UINT64, "blocks": Array(Hex(2**16, exact=False))})
TIP: dict[str, Kind] = {"head": HASH32, "height": UINT32, "state_root": HASH32, "accounts": BALANCES}


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


def _register(
    name: str, page: str, summary: str, takes: Mapping[str, Kind], gives: Mapping[str, Kind], run: Any
) -> Any:
    return register(Function(SUITE, name, page, summary, RecordKind(takes), RecordKind(gives), run))


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

LATER = 10**7
STAMPS = (900, 1500, 2600, 3300, 4400, 5200, 6600, 7000, 8100, 9000, 11_000, 12_400, 14_000, 15_100)


def _targets_file() -> CaseFile:
    upgrades, start = make_upgrades(), 10**6
    cases = []
    for height in (3, 4, 5, 6, 9, 10, 11, 13, 16):
        rows = [{"timestamp": start + 700 * h, "target": 2**250} for h in range(height)]
        cases.append(
            Case(f"height-{height}", "blocks 700 ms apart", list_values(upgrades, chain=rows), ("boundary", "rescale"))
        )
    for name, target in (("largest", 2**256 - 1), ("smallest", 1)):
        for height in (4, 10):
            rows = [{"timestamp": start + 700 * h, "target": target} for h in range(height)]
            cases.append(Case(f"{name}-{height}", "at the bound", list_values(upgrades, chain=rows), ("rescale",)))
    heavier = (Upgrade(4, make_change(quiz_tokens=60)),)
    rows = [{"timestamp": start + 1000 * h, "target": 2**256 - 1} for h in range(4)]
    cases.append(
        Case("clamped", "a heavier quiz, the target is the easiest", list_values(heavier, chain=rows), ("rescale",))
    )
    return CaseFile(
        COMPUTE_TARGET, "Chains of equal stamps and targets.", tuple(cases), pick_flags("boundary", "rescale")
    )


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
    return CaseFile(CHECK_HEADER_IN_CHAIN, MADE, tuple(cases), pick_flags("boundary", "digest"))


def _header_input(upgrades: tuple[Upgrade, ...], height: int) -> dict[str, Any]:
    branch = _branch(upgrades)
    header = branch.chain[height]
    return list_values(upgrades, chain=tuple(branch.chain[:height]), header=header, now=header.core.timestamp)


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
    return list_values(upgrades, models=_list_models(upgrades), now=now, blocks=data)


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
    return CaseFile(VERIFY_CHAIN, MADE, tuple(cases), pick_flags("boundary", "missing", "digest"))


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
    return CaseFile(IMPORT_BLOCKS, MADE, tuple(cases), pick_flags("digest", "work", "missing"))


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


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_targets_file(), _headers_file(), _chain_file(), _import_file()]
