"""The consensus suites: every code of their pages, defects that stand alone, pairs in the order of the page `block`."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import poai_spec.chain.block
import poai_spec.chain.header
import poai_spec.chain.networking
import poai_spec.proof.work
from poai_spec.basics.containers import Header
from poai_spec.basics.encoding import encode
from poai_spec.basics.parameters import MAX_SALT_RANGES, MAX_TRACE, Config
from poai_tools.spec.pages import find_code_rows, list_pages
from poai_tools.vectors import engines
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.defects import find_pointers, make_negative, repair
from poai_tools.vectors.kinds import KindError
from poai_tools.vectors.network import get_manifest, make_network, require_config
from poai_tools.vectors.records import CONTAINERS, get_kind
from poai_tools.vectors.registry import FUNCTIONS, call
from poai_tools.vectors.suites import SUITES, load_all

load_all()

ROOT = Path(__file__).parents[3]
PAGES = {  # suite -> the pages whose codes its cases show
    "lexicon": ("lexicon",),
    "quiz": ("quiz", "solvers"),
    "difficulty": ("difficulty",),
    "ssz": ("encoding",),
    "state": ("state",),
    "parameters": ("parameters",),
    "header": ("header", "difficulty"),
    "block": ("header", "difficulty", "body", "work", "state"),
    "fork_choice": ("fork-choice",),
    "networking": ("networking", "encoding"),
}
WITHOUT_CODES = ("epoch", "loss", "economics")
CONSENSUS = (*PAGES, *WITHOUT_CODES, "chain")
FILES: dict[str, list[CaseFile]] = {}
# The checks that can be switched off one by one, by code: what is left of a single defect is a valid object.
CHECKS = {
    "header/version": (poai_spec.chain.header, "check_version"),
    "body/transactions-not-active": (poai_spec.chain.header, "check_body_is_empty"),
    "header/parent": (poai_spec.chain.header, "check_parent"),
    "header/height": (poai_spec.chain.header, "check_height"),
    "difficulty/target": (poai_spec.chain.header, "check_target"),
    "header/median-time": (poai_spec.chain.header, "check_median_time"),
    "difficulty/period-not-forward": (poai_spec.chain.header, "check_period_forward"),
    "work/l-hat": (poai_spec.chain.header, "check_l_hat"),
    "header/future": (poai_spec.chain.header, "check_future"),
    "body/root": (poai_spec.chain.block, "check_body"),
    "work/trace-digest": (poai_spec.chain.block, "check_trace"),
    "work/trace-length": (poai_spec.chain.block, "check_trace"),
    "state/root": (poai_spec.chain.block, "check_state_root"),
    "work/trace": (poai_spec.proof.work, "check_entry"),
    "work/loss": (poai_spec.proof.work, "check_evaluation"),
}
SUFFICIENT = set(CHECKS) - {"work/trace-digest", "work/trace-length"}
"""Codes whose check is all that refuses a single defect; a false trace list is refused by the replay as well."""


def get_files(suite: str) -> list[CaseFile]:
    if suite not in FILES:
        FILES[suite] = SUITES[suite].make_files()
    return FILES[suite]


def read(suite: str, function: str) -> list[dict[str, Any]]:
    document = json.loads((ROOT / "test_vectors" / suite / f"{function}.json").read_text("utf-8"))
    return list(document["cases"])


def list_codes(page: str) -> list[str]:
    return [code for code, _, _ in find_code_rows(list_pages(ROOT / "specs")[page].read_text("utf-8"))]


def read_order() -> list[str]:
    text = (ROOT / "specs" / "chain" / "block.md").read_text("utf-8")
    rows = re.findall(r"^\| \d+ \| (`.*`) \| \w+ \|", text, re.MULTILINE)
    return [code for row in rows for code in re.findall(r"`([^`]+)`", row)]


def switch_off(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    module, name = CHECKS[code]
    monkeypatch.setattr(module, name, lambda *_: None)


@pytest.mark.parametrize("suite", PAGES)
def test_a_suite_shows_every_code_of_its_pages(suite: str) -> None:
    hit = {case.get("code") for file in get_files(suite) for case in read(suite, file.function.name)}
    missing = {code for page in PAGES[suite] for code in list_codes(page)} - hit
    if suite in ("header", "block"):
        missing -= {"difficulty/cost"}  # local: never said of a block
    assert missing == set()


@pytest.mark.parametrize("suite", CONSENSUS)
def test_a_case_is_negative_where_it_says_so(suite: str) -> None:
    for file in get_files(suite):
        results = {case["id"]: case["result"] for case in read(suite, file.function.name)}
        for case in file.cases:
            assert (results[case.id] == "valid") == (case.base is None), f"{file.function.name}: {case.id}"


@pytest.mark.parametrize("suite", CONSENSUS)
def test_bases_with_their_defect_undone_are_valid_inputs(suite: str) -> None:
    """The base's values at the defect's pointers give the base's input, and the base is valid when it is run."""
    for file in get_files(suite):
        by_id = {case.id: case for case in file.cases}
        for name in sorted({case.base for case in file.cases if case.base is not None}):
            assert call(file.function, file.function.input.to_json(by_id[name].input)).result == "valid", name
        for case in file.cases:
            if case.base is not None:
                good = file.function.input.to_json(by_id[case.base].input)
                assert repair(good, file.function.input.to_json(case.input), case.defect) == good


@pytest.mark.parametrize(
    ("suite", "function"),
    [("header", "check_header_alone"), ("header", "check_header_in_chain"), ("block", "check_block")],
)
def test_a_single_defect_is_the_only_one(suite: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check that refuses it, a block with one defect passes all others."""
    seen = set()
    for case in read(suite, function):
        code = case.get("code")
        if code not in SUFFICIENT or "two-rules" in case["flags"]:
            continue
        with monkeypatch.context() as patch:
            switch_off(patch, code)
            outcome = call(FUNCTIONS[suite, function], case["input"])
        assert outcome.result == "valid", f"{case['id']}: {outcome.code}"
        seen.add(code)
    expected = {case["code"] for case in read(suite, function) if "code" in case} & SUFFICIENT
    assert seen == expected
    assert seen


@pytest.mark.parametrize(("suite", "function"), [("header", "check_header_in_chain"), ("block", "check_block")])
def test_of_two_defects_the_second_is_really_there(suite: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check that refuses a pair, a later rule of the order refuses it."""
    order, pairs = read_order(), 0
    for case in read(suite, function):
        if "two-rules" not in case["flags"]:
            continue
        pairs += 1
        with monkeypatch.context() as patch:
            switch_off(patch, case["code"])
            second = call(FUNCTIONS[suite, function], case["input"]).code
        if CHECKS[case["code"]][1] == "check_trace" and second is None:
            continue  # the check that was switched off has both rules
        assert second is not None, case["id"]
        assert order.index(case["code"]) < order.index(second), case["id"]
    assert pairs > 5


def test_every_rule_for_a_block_has_a_neighbour_in_a_pair() -> None:
    codes = {case["code"] for case in read("block", "check_block") if "two-rules" in case["flags"]}
    order = [code for code in read_order() if not code.startswith(("encoding/", "fork-choice/", "block/"))]
    assert codes == set(order[:-1]), "the last rule, work/loss, is only ever the second"


def test_the_specification_itself_replays_a_mined_block() -> None:
    """The blocks are mined with the exact engine; the reference, on Python integers, gives the same."""
    case = next(case for case in read("block", "check_block") if case["id"] == "ninth")
    engines.choose_engine("reference")
    try:
        outcome = call(FUNCTIONS["block", "check_block"], case["input"])
    finally:
        engines.choose_engine("exact")
    assert outcome.output == case["output"]


def test_every_event_code_of_the_page_occurs_in_a_run() -> None:
    codes = {step["code"] for case in read("fork_choice", "run_events") for step in case["output"]["steps"]}
    assert set(list_codes("fork-choice")) - codes == {"fork-choice/too-many-headers"}, "its limit takes 8,193 headers"


def test_the_head_does_not_depend_on_the_order_of_siblings() -> None:
    runs = [case for case in read("fork_choice", "run_events") if case["id"].startswith("siblings-")]
    assert len(runs) == 6
    assert len({case["output"]["steps"][-1]["head"] for case in runs}) == 1
    assert len({tuple(step["head"] for step in case["output"]["steps"]) for case in runs}) > 1


def test_the_heaviest_chain_of_the_vectors_is_not_the_longest() -> None:
    run = next(case for case in read("fork_choice", "run_events") if case["id"] == "heavier-not-longer")
    blocks = {block["header"]["core"]["parent_hash"]: block for block in run["input"]["blocks"]}
    heads = [step["head"] for step in run["output"]["steps"]]
    assert heads[7] != heads[-1]
    heights = [int(block["header"]["core"]["height"]) for block in blocks.values()]
    assert max(heights) == 8
    assert int(run["input"]["blocks"][-1]["header"]["core"]["height"]) == 7


def test_chains_cross_epochs_and_retargets() -> None:
    long = next(case for case in read("chain", "import_blocks") if case["id"] == "long")
    assert long["output"]["height"] == 18
    assert set(long["output"]["codes"]) == {None}
    assert int(long["output"]["work"]) > 18, "the target fell below the first one"
    by_order = {case["output"]["head"] for case in read("chain", "import_blocks") if case["id"] in ORDERS}
    assert by_order == {long["output"]["head"]}


ORDERS = ("long", "long-first", "rival-first", "turns", "pairs-swapped")


def test_questions_of_every_family_and_answer() -> None:
    cases = read("quiz", "generate_question")
    counts = [case["output"]["family"] for case in cases]
    assert min(counts.count(family) for family in counts) >= 4
    prompts = {case["output"]["prompt"]: case["output"]["answer"] for case in cases}
    solved = {case["input"]["prompt"]: case["output"]["answer"] for case in read("quiz", "solve") if "output" in case}
    assert prompts.items() <= solved.items(), "the solver agrees with the generator"


def test_scored_positions_lie_behind_the_salt() -> None:
    for case in read("quiz", "generate_quiz"):
        values, output = case["input"], case["output"]
        first = values["salt_tokens"] + values["model_manifest"]["add_bos"]
        assert len(output["tokens"]) == values["quiz_tokens"]
        assert len(set(output["scored"])) == values["scored_tokens"]
        assert first < min(output["scored"]) <= max(output["scored"]) < values["quiz_tokens"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_survive_their_json_form(name: str) -> None:
    for case in read("ssz", f"encode_{name}"):
        value = CONTAINERS[name].from_json(case["input"]["value"], "value")
        assert CONTAINERS[name].to_json(value) == case["input"]["value"]
        assert "0x" + encode(value).hex() == case["output"]["data"]


def test_a_container_is_a_kind_with_the_names_of_its_fields() -> None:
    assert get_kind(Header).name == "Header"
    assert list(CONTAINERS["config"].fields) == list(Config.__dataclass_fields__)
    with pytest.raises(KindError, match="input: missing field 'last'"):
        CONTAINERS["token_range"].from_json({"first": 1}, "input")


def test_pointers_name_the_smallest_values_that_differ() -> None:
    base = {"a": [1, 2, 3], "b": {"c": [{"d": 1}, {"d": 2}]}, "e": "x", "f": [1, 2]}
    data = {"a": [1, 5, 3], "b": {"c": [{"d": 1}, {"d": 9}]}, "e": "x", "f": [1]}
    pointers = find_pointers(base, data)
    assert pointers == ["/a/1", "/b/c/1/d", "/f"]
    assert repair(base, data, pointers) == base
    assert data["a"] == [1, 5, 3], "the argument stays"
    assert find_pointers([1, 2], [3, 4], "/whole") == ["/whole"]


def test_a_case_without_a_defect_is_a_mistake() -> None:
    function = FUNCTIONS["epoch", "get_epoch"]
    base = Case("base", "a base", {"height": 1, "epoch_blocks": 1})
    with pytest.raises(AssertionError, match="again equals its base"):
        make_negative(function, base, "again", "the same", {"height": 1})


@pytest.mark.parametrize(
    ("suite", "function", "changes"),
    [
        ("quiz", "draw_salt", {"salt_ranges": [{"first": 2, "last": 1}]}),
        ("quiz", "select_scored", {"answers": [5, 4]}),
        ("quiz", "select_scored", {"scored_tokens": 2048}),
        ("quiz", "generate_quiz", {"scored_tokens": 2000}),
        ("lexicon", "split_pieces", {"text": "a_b"}),
        ("fork_choice", "get_head", {"tips": [{"hash": "0x" + "00" * 32, "work": "1", "replayed": False}]}),
        ("fork_choice", "run_events", {"blocks": []}),
        ("fork_choice", "make_room", {"own": 2**17, "others": [{"peers": 1, "headers": 1}]}),
        ("state", "compute_state_root", {"accounts": "twice"}),
    ],
)
def test_inputs_outside_the_domain_are_refused(suite: str, function: str, changes: dict[str, Any]) -> None:
    case = next(case for case in read(suite, function) if case["result"] == "valid")
    if changes.get("accounts") == "twice":
        accounts = next(case["input"]["accounts"] for case in read(suite, function) if case["input"]["accounts"])
        changes = {"accounts": accounts + accounts}
    with pytest.raises(KindError):
        call(FUNCTIONS[suite, function], case["input"] | changes)


def test_configs_that_no_network_has_are_outside_the_domain() -> None:
    require_config(make_network())
    assert get_manifest("mini") == make_network().model
    case = next(case for case in read("parameters", "check_config") if case["result"] == "invalid")
    header = read("header", "check_header_in_chain")[0]["input"]
    with pytest.raises(KindError, match="config: parameters/"):
        call(FUNCTIONS["header", "check_header_in_chain"], header | {"config": case["input"]["config"]})


def test_every_rule_for_a_block_has_a_verdict() -> None:
    errors = [case["input"]["error"] for case in read("networking", "get_verdict")]
    assert {"networking/block-size", *read_order()} <= {error["code"] for error in errors if error}


def test_the_vectors_name_every_constant_of_networking() -> None:
    own = ast.parse(Path(poai_spec.chain.networking.__file__).read_text("utf-8")).body
    targets = [
        t for node in own for t in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)])
    ]
    names = {target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()}
    (case,) = read("networking", "constants")
    assert names - {"T", "FALSE_WORK"} == case["output"].keys() - {"reasons"}


@pytest.mark.parametrize(
    ("name", "field", "limit"), [("block", "trace", MAX_TRACE), ("model_manifest", "salt_ranges", MAX_SALT_RANGES)]
)
def test_lists_have_the_limits_of_their_encoding(name: str, field: str, limit: int) -> None:
    kind = CONTAINERS[name].fields[field]
    assert kind.schema()["maxItems"] == limit
    item: Any = "0x" + "00" * 32 if field == "trace" else dict.fromkeys(CONTAINERS["token_range"].fields, 0)
    assert len(kind.from_json([item] * limit, "")) == limit
    with pytest.raises(KindError, match=f"at most {limit} items, found {limit + 1}"):
        kind.from_json([item] * (limit + 1), "")
