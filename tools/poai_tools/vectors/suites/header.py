"""Vectors of the page `header`: genesis, the quiz seed of a header on its chain, and every rule for headers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from poai_spec.basics.containers import Header, compute_block_hash
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.header import check_header_alone, check_header_in_chain, make_genesis_header
from poai_spec.chain.upgrades import Rules, get_rules
from poai_spec.model.loss import compute_l_hat, is_below_target
from poai_spec.proof.difficulty import compute_median_time, compute_target
from poai_spec.proof.quiz import compute_quiz_seed
from poai_spec.proof.work import get_epoch_key, get_quiz_seed
from poai_tools.vectors.cases import Case, CaseFile, derive_seed
from poai_tools.vectors.chains import make_core, make_header_chain, seal_header
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import HASH32, UINT64, Array, RecordKind
from poai_tools.vectors.network import make_network, require_config
from poai_tools.vectors.records import CONFIG, HEADER, HEADER_CORE
from poai_tools.vectors.registry import Function, register

CHAIN = Array(HEADER, least=1)


def _make_genesis_header(i: Mapping[str, Any]) -> dict[str, Any]:
    header = make_genesis_header(i["config"])
    return {"header": header, "hash": compute_block_hash(header)}


def _get_rules(i: Mapping[str, Any]) -> Rules:
    return get_rules(i["config"], (), len(i["chain"]))


def _get_quiz_seed(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(i["config"])
    return {
        "epoch_key": get_epoch_key(i["chain"], _get_rules(i)),
        "quiz_seed": get_quiz_seed(i["core"], i["chain"], _get_rules(i)),
    }


def _check_header_alone(i: Mapping[str, Any]) -> dict[str, Any]:
    check_header_alone(i["header"])
    return {"hash": compute_block_hash(i["header"])}


def _check_header_in_chain(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(i["config"])
    check_header_in_chain(i["header"], i["chain"], _get_rules(i), i["now"])
    return {"hash": compute_block_hash(i["header"])}


MAKE_GENESIS_HEADER = register(
    Function(
        suite="header",
        name="make_genesis_header",
        page="header",
        summary="the header of block 0, and its hash",
        input=RecordKind({"config": CONFIG}),
        output=RecordKind({"header": HEADER, "hash": HASH32}),
        run=_make_genesis_header,
    )
)
GET_QUIZ_SEED = register(
    Function(
        suite="header",
        name="get_quiz_seed",
        page="work",
        summary="the epoch key and the quiz seed of a core on top of a chain, genesis first",
        input=RecordKind({"config": CONFIG, "chain": CHAIN, "core": HEADER_CORE}),
        output=RecordKind({"epoch_key": HASH32, "quiz_seed": HASH32}),
        run=_get_quiz_seed,
    )
)
CHECK_HEADER_ALONE = register(
    Function(
        suite="header",
        name="check_header_alone",
        page="header",
        summary="the rules that look at the header alone; gives its hash",
        input=RecordKind({"header": HEADER}),
        output=RecordKind({"hash": HASH32}),
        run=_check_header_alone,
    )
)
CHECK_HEADER_IN_CHAIN = register(
    Function(
        suite="header",
        name="check_header_in_chain",
        page="header",
        summary="the rules that compare a header with its ancestors (genesis first) and the clock; gives its hash",
        input=RecordKind({"config": CONFIG, "chain": CHAIN, "header": HEADER, "now": UINT64}),
        output=RecordKind({"hash": HASH32}),
        run=_check_header_in_chain,
    )
)
STAMPS = [1000, 1100, 1200, 1300, 5000, 1400, 1500, 1600]
"""Block 5 ends the first period and begins the second, with a stamp far ahead of its neighbours'."""
QUICK = [1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500, 6000, 6500]
"""Blocks twice as fast as intended."""
FLAGS = {
    "two-rules": ("two rules are broken", "a client that checks in another order gives another code"),
    "boundary": ("equal values, or their neighbours", "a client with < for <=, or the reverse, differs"),
    "epoch": (
        "the quiz seed depends on the epoch key of this branch",
        "a client that takes the key of another epoch, or counts from the parent, hashes another seed",
    ),
    "wrap": ("an intermediate value passes 64 bits", "a client that computes it in 64 bits, signed or not, differs"),
    "window": ("the median is of the last 11 ancestors, or of fewer", "a client with another window differs"),
}
MADE = (
    "Stamps by hand; loss and digest of headers are drawn, no model has run; nonces are the first from 0 on with which "
    "the header is (or for work/l-hat is not) below its target."
)


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_genesis(), _quiz_seed(), _alone(), _in_chain()]


def _pick(cases: Sequence[Case]) -> dict[str, tuple[str, str]]:
    used = {flag for case in cases for flag in case.flags}
    return {name: FLAGS[name] for name in FLAGS if name in used}


def _genesis() -> CaseFile:
    configs = {
        "network": make_network(),
        "testnet": get_preset("testnet"),
        "minimal": get_preset("minimal"),
        "other-seed": replace(make_network(), genesis_seed=bytes(32)),
        "other-target": replace(make_network(), initial_target=1),
        "other-stamp": replace(make_network(), genesis_timestamp=2**64 - 1),
    }
    cases = tuple(Case(name, "computed from the config", {"config": config}) for name, config in configs.items())
    return CaseFile(MAKE_GENESIS_HEADER, "The network of the vectors and presets, changed in one field.", cases)


def _quiz_seed() -> CaseFile:
    config, chain = make_network(), make_header_chain(make_network(), QUICK[:7], "quick")
    cases = []
    for height in range(1, 9):
        core = make_core(chain[:height], {}, config, config.genesis_timestamp + 500 * height + 700, b"\x11" * 20)
        values = {"config": config, "chain": chain[:height], "core": core}
        flags = ("epoch",) if height % 3 == 0 else ()
        cases.append(Case(f"height-{height}", f"epoch {height // 3}, epochs of 3 blocks", values, flags))
    branch = make_header_chain(config, [1000, 1600, 2000, 2500], "rival")
    core = make_core(branch, {}, config, config.genesis_timestamp + 3200, b"\x11" * 20)
    rival = {"config": config, "chain": branch, "core": core}
    cases.append(Case("rival-height-5", "another block 2, hence another key of epoch 1", rival, ("epoch",)))
    one = replace(config, epoch_blocks=1)
    short = make_header_chain(one, [1000, 1500], "short")
    core = make_core(short, {}, one, one.genesis_timestamp + 2000, b"\x11" * 20)
    cases.append(
        Case("epoch-of-one", "the parent is the seed", {"config": one, "chain": short, "core": core}, ("epoch",))
    )
    return CaseFile(GET_QUIZ_SEED, MADE, tuple(cases), _pick(cases))


def _alone() -> CaseFile:
    chain = make_header_chain(make_network(), QUICK[:3], "quick")
    base = Case("block-3", "a header", {"header": chain[3]})
    cases = [base, Case("genesis", "no rule of these forbids genesis", {"header": chain[0]})]
    rows: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        ("version-0", {"version": 0}, ()),
        ("version-2", {"version": 2}, ()),
        ("version-most", {"version": 2**32 - 1}, ()),
        ("body-zeros", {"body_root": bytes(32)}, ()),
        ("body-drawn", {"body_root": derive_seed("header", "body-drawn")}, ()),
        ("version-and-body", {"version": 2, "body_root": bytes(32)}, ("two-rules",)),
    )
    for name, changes, flags in rows:
        header = replace(chain[3], core=replace(chain[3].core, **changes))
        cases.append(make_negative(CHECK_HEADER_ALONE, base, name, "only the core differs", {"header": header}, flags))
    return CaseFile(CHECK_HEADER_ALONE, MADE, tuple(cases), _pick(cases))


def _make_case(
    case_id: str, comment: str, chain: Sequence[Header], stamp: int, ahead: int = 0, flags: tuple[str, ...] = ()
) -> Case:
    """Return a valid case on top of a chain, `ahead` milliseconds ahead of the clock."""
    config = make_network()
    core = make_core(chain, {}, config, config.genesis_timestamp + stamp, b"\x11" * 20)
    drawn = Header(core, 100_000 + len(chain), derive_seed("header", case_id))
    header = seal_header(drawn, chain, config)
    now = config.genesis_timestamp + stamp - ahead
    values = {"config": config, "chain": chain, "header": header, "now": now}
    return Case(case_id, comment, values, flags)


def _change(base: Case, *, win: bool = True, now: int | None = None, **changes: Any) -> dict[str, Any]:
    """Return the input fields of a case whose header differs; the nonce is searched again unless only `now` does."""
    header: Header = base.input["header"]
    top = {key: changes.pop(key) for key in ("loss", "trace_digest") if key in changes}
    if changes or top or not win:
        header = replace(header, core=replace(header.core, **changes), **top)
        header = seal_header(header, base.input["chain"], base.input["config"], win=win)
    return {"header": header} | ({} if now is None else {"now": now})


def _in_chain() -> CaseFile:
    config = make_network()
    start = config.genesis_timestamp
    slow, quick = make_header_chain(config, STAMPS, "slow"), make_header_chain(config, QUICK, "quick")
    bumpy = make_header_chain(config, [*STAMPS, 5100, 5200, 5300, 5400, 5500], "bumpy")
    ninth = _make_case("ninth", "block 9, which ends a period", slow, 5001, flags=("boundary",))
    second = _make_case("second", "block 2: genesis and block 1 are the window", quick[:2], 1001, flags=("window",))
    sixth = _make_case("sixth", "block 6, the first with a new target", quick[:6], 3600)
    third = _make_case("third", "block 3, the first of epoch 1", quick[:3], 2000, flags=("epoch",))
    edge = _make_case("edge", "as far ahead of the clock as allowed", quick[:4], 2500, 400, ("boundary",))
    eighth = _make_case("eighth", "one above the median of 8 stamps", slow[:8], 1301, flags=("boundary", "window"))
    median = compute_median_time(bumpy) - start
    fourteenth = _make_case(
        "fourteenth", "one above the median of the last 11 of 14", bumpy, median + 1, flags=("boundary", "window")
    )
    past = _make_case("past", "the clock long after the stamp", quick[:5], 3000, -(10**10))
    first = _make_case("first", "block 1, one above genesis", quick[:1], 1, flags=("boundary", "window"))
    cases = [first, second, third, edge, past, sixth, eighth, ninth, fourteenth, *_make_widest(quick[:5])]

    def bad(base: Case, name: str, comment: str, flags: tuple[str, ...] = (), **changes: Any) -> None:
        cases.append(make_negative(CHECK_HEADER_IN_CHAIN, base, name, comment, _change(base, **changes), flags))

    grandparent = compute_block_hash(slow[7])
    bad(ninth, "parent-grandparent", "the parent's parent", parent_hash=grandparent)
    bad(ninth, "parent-zeros", "no block", parent_hash=bytes(32))
    bad(ninth, "height-8", "the parent's height", height=8)
    bad(ninth, "height-10", "one too many", height=10)
    bad(ninth, "height-0", "genesis has no parent", height=0)
    bad(sixth, "target-easier", "one above", target=compute_target(quick[:6], get_rules(config, (), 6)) + 1)
    bad(sixth, "target-harder", "one below", target=compute_target(quick[:6], get_rules(config, (), 6)) - 1)
    bad(sixth, "target-of-parent", "not retargeted", target=quick[5].core.target)
    bad(third, "target-changed", "retargeted where nothing changes", target=2**254)
    bad(first, "stamp-of-genesis", "not above genesis", ("boundary",), timestamp=start)
    bad(second, "lower-median", "equal to the upper of two stamps", ("boundary", "window"), timestamp=start + 1000)
    bad(second, "between", "above genesis, below block 1", ("window",), timestamp=start + 500)
    bad(eighth, "median-of-eight", "equal to the median", ("boundary", "window"), timestamp=start + 1300)
    bad(fourteenth, "median-of-eleven", "equal to the median", ("boundary", "window"), timestamp=start + median)
    bad(fourteenth, "long-past", "before genesis", ("window",), timestamp=1)
    bad(ninth, "period-equal", "not above block 5", ("boundary",), timestamp=start + 5000)
    bad(ninth, "period-before", "above the median only", timestamp=start + 1400)
    bad(ninth, "not-won", "the first nonce that does not win", win=False)
    bad(sixth, "not-won-harder", "the same with a target that was retargeted", win=False)
    bad(third, "other-loss", "another loss, and a nonce that does not win", win=False, loss=1)
    bad(third, "other-digest", "another digest, and a nonce that does not win", win=False, trace_digest=bytes(32))
    cases.append(_wrong_epoch(third))
    bad(edge, "one-ahead", "1 ms too far ahead", ("boundary",), now=start + 2099)
    bad(edge, "far-ahead", "a clock at zero", now=0)
    two = ("two-rules",)
    bad(ninth, "parent-and-height", "the parent counts", two, parent_hash=bytes(32), height=0)
    bad(ninth, "height-and-target", "the height counts", two, height=10, target=1 << 254)
    bad(ninth, "target-and-median", "the target counts", two, target=1 << 254, timestamp=start + 1300)
    bad(ninth, "median-and-period", "the median counts", two, timestamp=start + 1300)
    bad(ninth, "period-and-work", "the period counts", two, timestamp=start + 5000, win=False)
    bad(ninth, "work-and-future", "the work counts", two, win=False, now=0)
    bad(ninth, "parent-and-future", "the parent counts", two, parent_hash=bytes(32), now=0)
    return CaseFile(CHECK_HEADER_IN_CHAIN, MADE, tuple(cases), _pick(cases))


def _make_widest(chain: Sequence[Header]) -> list[Case]:
    """Return blocks for which now + max_future, or 2 + R and R * spacing, pass 64 bits."""
    latest = _make_case("now-largest", "now plus max_future passes 64 bits", chain, 3000, flags=("wrap",))
    cases = [replace(latest, input={**latest.input, "now": 2**64 - 1})]
    longest = replace(make_network(), retarget_blocks=2**64 - 1)
    for name, config in (("longest-period", longest), ("longest-epoch", replace(longest, epoch_blocks=2**64 - 1))):
        chain = make_header_chain(config, [1000], name)
        core = make_core(chain, {}, config, config.genesis_timestamp + 2000, b"\x11" * 20)
        header = seal_header(Header(core, 2, bytes(32)), chain, config)
        values = {"config": config, "chain": chain, "header": header, "now": core.timestamp}
        cases.append(Case(name, f"block 2 where {name.replace('-', ' ')}: 2^64 - 1 blocks", values, ("wrap",)))
    return cases


def _wrong_epoch(base: Case) -> Case:
    """Return block 3 with a nonce that wins with the key of epoch 0, and does not with its own."""
    rules, chain, header = _get_rules(base.input), base.input["chain"], base.input["header"]
    key = get_epoch_key(chain[:2], rules)
    for nonce in range(1000):
        header = replace(header, core=replace(header.core, nonce=nonce))
        seeds = (compute_quiz_seed(rules.digest, key, header.core), get_quiz_seed(header.core, chain, rules))
        target = header.core.target
        old, new = (is_below_target(compute_l_hat(s, header.loss, header.trace_digest), target) for s in seeds)
        if old and not new:
            break
    comment = "wins with the key of the epoch before"
    return make_negative(CHECK_HEADER_IN_CHAIN, base, "key-of-epoch-0", comment, {"header": header}, ("epoch",))
