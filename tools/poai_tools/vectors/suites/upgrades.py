"""Vectors of the page `upgrades`: rules by height, lists that are refused, and fork ids."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from poai_spec.basics.parameters import get_model_manifest
from poai_spec.chain.upgrades import (
    MAX_UPGRADES,
    ForkId,
    Upgrade,
    check_fork_id,
    check_upgrades,
    get_fork_id,
    get_multiplications,
    get_unknown_upgrade,
    make_change,
)
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import (
    HASH32,
    UINT32,
    UINT64,
    Hex,
    Kind,
    RecordKind,
    Text,
)
from poai_tools.vectors.network import (
    OTHER_MODEL,
    make_network,
    make_upgrades,
    read_rules,
    require_config,
)
from poai_tools.vectors.records import CONFIG, MODEL_MANIFEST, UPGRADES
from poai_tools.vectors.registry import Function, register

SUITE = "upgrades"
LIST: dict[str, Kind] = {"config": CONFIG, "upgrades": UPGRADES}
FORK_ID: dict[str, Kind] = {"hash": Hex(4), "next": UINT64}
NUMBERS: dict[str, Kind] = {
    "since": UINT64, "digest": HASH32, "anchor": UINT64, "profile": Text(("w8a8", "llama.cpp")),
    "model": MODEL_MANIFEST, "retarget_blocks": UINT64, "spacing": UINT64, "max_future": UINT64, "quiz_tokens": UINT32,
    "salt_tokens": UINT32, "scored_tokens": UINT32,
}  # fmt: skip


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


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_rules_file(), _lists_file(), _fork_ids_file(), _peers_file()]


def list_values(upgrades: Sequence[Upgrade] = (), **more: Any) -> dict[str, Any]:
    return {"config": make_network(), "upgrades": tuple(upgrades), **more}


def pick_flags(*names: str) -> dict[str, tuple[str, str]]:
    return {name: FLAGS[name] for name in names}


def _rules_file() -> CaseFile:
    upgrades = make_upgrades()
    rows = [(0, "genesis"), (3, "the last block of the config's rules"), (4, "the first of the first upgrade")]
    rows += [(9, "its last"), (10, "the first of the second"), (2**64 - 1, "it holds for ever")]
    cases = [Case("none", "no upgrade", list_values(height=1000))]
    cases += [Case(f"height-{h}", text, list_values(upgrades, height=h), ("boundary",)) for h, text in rows]
    cases.append(Case("one-alone", "only the first is on the list", list_values(upgrades[:1], height=10)))
    for name, values in _single_changes().items():
        changed = (Upgrade(6, make_change(**values)),)
        for height in (5, 6):
            cases.append(
                Case(f"{name}-{height}", "one field changes", list_values(changed, height=height), ("boundary",))
            )
    return CaseFile(GET_RULES, MADE, tuple(cases), pick_flags("boundary"))


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
    base = Case("two", "the two of these vectors", list_values((first, second)))
    many = tuple(Upgrade(n + 1, make_change(quiz_tokens=33 + n % 2)) for n in range(MAX_UPGRADES))
    cases = [
        base,
        Case("none", "an empty list", list_values()),
        Case("height-1", "the first block", list_values((Upgrade(1, longer),))),
        Case(
            "next-to-each-other",
            "one block apart",
            list_values((Upgrade(7, longer), Upgrade(8, make_change(salt_tokens=5)))),
        ),
        Case("as-many-as-allowed", "64", list_values(many)),
        Case("last-height", "2^64 - 1", list_values((Upgrade(2**64 - 1, longer),))),
        Case(
            "border",
            "another spacing in the first block after a period",
            list_values((Upgrade(6, make_change(spacing=2_000)),)),
        ),
        Case("after-the-anchor", "periods of 3 are counted from block 5", list_values(_periods(9))),
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
    cases = [Case("none", "no upgrade", list_values(head=1000))]
    cases += [
        Case(f"head-{head}", "the head's own height counts", list_values(upgrades, head=head), ("boundary",))
        for head in (0, 3, 4, 9, 10, 2**64 - 1)
    ]
    return CaseFile(GET_FORK_ID, MADE, tuple(cases), pick_flags("boundary"))


def _peers_file() -> CaseFile:
    first, _ = upgrades = make_upgrades()
    config, other = make_network(), Upgrade(5, make_change(quiz_tokens=33))

    def ask(head: int, theirs: Sequence[Upgrade], their_head: int) -> dict[str, Any]:
        peer = get_fork_id(config, tuple(theirs), their_head)
        return list_values(upgrades, head=head, peer=vars(peer))

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
        ("noise", "no list has this hash", list_values(upgrades, head=3, peer={"hash": b"\xff" * 4, "next": 4})),
    )  # fmt: skip
    for name, text, values in rows:
        changes = {key: values[key] for key in ("head", "peer") if values[key] != base.input[key]}
        cases.append(make_negative(CHECK_FORK_ID, base, name, text, changes))
    return CaseFile(CHECK_FORK_ID, MADE, tuple(cases))
