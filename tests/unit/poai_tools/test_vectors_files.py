"""The committed vectors: what the specification gives, in their schemas, small, and every negative case explained."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from poai_engine.models.gguf_file import sha256_file
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import read_manifest
from poai_tools.spec.pages import find_code_rows, list_pages
from poai_tools.vectors import disk, files
from poai_tools.vectors.cases import SLOW, Case, CaseFile
from poai_tools.vectors.check import find_case_files
from poai_tools.vectors.defects import repair
from poai_tools.vectors.errors import VectorsError
from poai_tools.vectors.kinds import UINT32, UINT64, Array, Integer, RecordKind
from poai_tools.vectors.models import find_missing
from poai_tools.vectors.registry import DEFINITIONS, FUNCTIONS, Function, get_definitions
from poai_tools.vectors.schemas import make_file_schema
from poai_tools.vectors.suites import SUITES, SuiteEntry, load_all

load_all()

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "test_vectors"
SPECS = ROOT / "specs"
PAGES = list_pages(SPECS)
CASE_FILES = sorted(path for name in SUITES for path in find_case_files(VECTORS / name))
every_suite = pytest.mark.parametrize("suite", SUITES)
every_file = pytest.mark.parametrize("path", CASE_FILES, ids=[f"{p.parent.name}/{p.stem}" for p in CASE_FILES])


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "suite",
    [pytest.param(suite, marks=pytest.mark.slow if suite in ("inference", "weights") else ()) for suite in SUITES],
)
def test_committed_files_are_the_generated_ones(suite: str) -> None:
    made = dict(files.make_suite(VECTORS, suite, slow=False, find_missing=find_missing))
    found = files.compare(VECTORS, made, [suite])
    assert (found.missing, found.stale, found.extra) == ((), (), ()), "run `poai vectors generate` and commit"


def test_committed_tables_are_the_generated_ones() -> None:
    found = files.compare(VECTORS, dict(files.make_tables(SPECS)), [])
    assert (found.missing, found.stale) == ((), ()), "run `poai vectors generate` and commit"


def test_the_committed_mini_is_the_pinned_one() -> None:
    assert sha256_file(VECTORS / "models" / "poai-mini.gguf").hex() == read_manifest("mini")["gguf_sha256"]


def test_every_function_has_a_file_and_every_file_a_function() -> None:
    assert {(path.parent.name, path.stem) for path in CASE_FILES} == FUNCTIONS.keys()
    assert {function.suite for function in FUNCTIONS.values()} == SUITES.keys()


def test_definitions_are_headings_of_their_page() -> None:
    assert set(DEFINITIONS) <= FUNCTIONS.keys()
    for function in FUNCTIONS.values():
        page = PAGES[function.page].read_text("utf-8")
        headings = [line.lstrip("# ").strip("`") for line in page.splitlines() if line.startswith("#")]
        assert set(get_definitions(function)) <= set(headings), function.key


@every_suite
def test_every_suite_is_explained(suite: str) -> None:
    text = (VECTORS / suite / "README.md").read_text("utf-8")
    for page in {function.page for function in FUNCTIONS.values() if function.suite == suite}:
        assert PAGES[page].relative_to(ROOT).as_posix() in text
    flags = {flag for path in find_case_files(VECTORS / suite) for flag in read(path)["flags"]}
    assert sorted(flag for flag in flags if f"`{flag}`" not in text) == []
    assert "```text\n" in text, "a recipe"
    assert "nown gaps" in text


@pytest.mark.parametrize(
    "name", ["codes", "functions", "models/nano", *(f"{p.parent.name}/{p.stem}" for p in CASE_FILES)]
)
def test_a_file_follows_its_schema(name: str) -> None:
    schema = read(VECTORS / f"{name}.schema.json")
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    error = next(iter(validator.iter_errors(read(VECTORS / f"{name}.json"))), None)
    assert error is None, f"{error.json_path}: {error.message:.200}"
    for part in walk(schema):
        if part.get("type") == "object":
            assert "additionalProperties" in part


def walk(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside a JSON value."""
    if isinstance(schema, dict):
        yield schema
    for item in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from walk(item)


@every_file
def test_ids_are_unique_and_flags_explained(path: Path) -> None:
    document = read(path)
    counts = Counter(case["id"] for case in document["cases"])
    assert counts
    assert [slug for slug, count in counts.items() if count > 1] == []
    used = {flag for case in document["cases"] for flag in case["flags"]}
    assert used == document["flags"].keys()


@every_file
def test_inputs_differ(path: Path) -> None:
    inputs = Counter(json.dumps(case["input"], sort_keys=True) for case in read(path)["cases"])
    assert [text[:200] for text, count in inputs.items() if count > 1] == []


@every_file
def test_repairing_its_defect_makes_a_negative_case_valid(path: Path) -> None:
    cases = {case["id"]: case for case in read(path)["cases"]}
    for case in cases.values():
        if case["result"] in ("invalid", "not-yet"):
            base = cases[case["base"]]
            assert base["result"] == "valid", case["id"]
            assert repair(base["input"], case["input"], case["defect"]) == base["input"], case["id"]
            for pointer in case["defect"]:
                rest = [other for other in case["defect"] if other != pointer]
                assert repair(base["input"], case["input"], rest) != base["input"], f"{case['id']}: {pointer}"


def test_results_have_the_class_of_their_code() -> None:
    results = {row["code"]: row["result"] for row in read(VECTORS / "codes.json")["codes"]}
    for path in CASE_FILES:
        for case in read(path)["cases"]:
            if "code" in case:
                assert results[case["code"]] == case["result"], f"{path.name}: {case['id']}"


def test_every_rejection_code_has_a_case() -> None:
    codes = {code for page in PAGES.values() for code, _, _ in find_code_rows(page.read_text("utf-8"))}
    hit = {case["code"] for path in CASE_FILES for case in read(path)["cases"] if "code" in case}
    assert codes
    assert sorted(codes - hit) == []
    assert sorted(hit - codes) == []


def test_only_slow_cases_and_absent_models_are_pending() -> None:
    for path in CASE_FILES:
        for case in read(path)["cases"]:
            if case["result"] == "pending":
                assert SLOW in case["flags"] or case["input"]["model"] == "tinyllama-1.1b", f"{path.name}: {case['id']}"


def test_files_are_small() -> None:
    sizes = {path: path.stat().st_size for path in disk.list_files(VECTORS)}
    assert {str(path): size for path, size in sizes.items() if size > files.FILE_LIMIT} == {}
    assert sum(sizes.values()) <= files.TOTAL_LIMIT


# What follows looks at the machinery on a small suite of its own.


def run_half(fields: dict[str, Any]) -> dict[str, Any]:
    if fields["n"] % 2:
        raise Invalid("half/odd", "odd")
    return {"half": fields["n"] // 2}


HALF = Function("half", "half", "half", "n / 2", RecordKind({"n": UINT32}), RecordKind({"half": UINT64}), run_half)
EVEN = Case("even", "an even number", {"n": 4}, ("plain",))
ODD = Case("odd", "an odd one", {"n": 5}, (), "even", ("/n",))
FLAGS = {"plain": ("it is plain", "nothing works")}


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of vectors whose only suite is `half`."""
    monkeypatch.setitem(FUNCTIONS, HALF.key, HALF)
    entry = SuiteEntry("half", lambda: [CaseFile(HALF, "chosen", (EVEN, ODD), FLAGS)])
    monkeypatch.setitem(SUITES, "half", entry)
    return tmp_path


def make(root: Path, *, slow: bool = False, missing: str | None = None) -> dict[str, str]:
    return dict(files.make_suite(root, "half", slow=slow, find_missing=lambda _: missing))


def write_all(root: Path, made: dict[str, str]) -> None:
    for name, text in made.items():
        disk.write(root / name, text)


def test_a_suite_makes_cases_and_a_schema(half: Path) -> None:
    made = make(half)
    assert made.keys() == {"half/half.json", "half/half.schema.json"}
    even, odd = json.loads(made["half/half.json"])["cases"]
    assert even == {
        "id": "even", "comment": "an even number", "flags": ["plain"], "input": {"n": 4},
        "result": "valid", "output": {"half": "2"},
    }  # fmt: skip
    assert (odd["result"], odd["code"], odd["base"], odd["defect"]) == ("invalid", "half/odd", "even", ["/n"])


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/format", 2), ("/cases/0/id", "Even"), ("/cases/0/more", 1), ("/cases/0/flags/0", "other"),
        ("/cases/0/input/n", -1), ("/cases/0/input/m", 1), ("/cases/0/output/half", 2), ("/cases/0/output/half", "02"),
        ("/cases/0/result", "invalid"), ("/cases/1/code", "odd"), ("/cases/1/defect", []), ("/cases/1/output", {}),
        ("/cases/1/base", None), ("/flags/plain/why", ""), ("/flags/other", {"why": "a", "effect": "b"}),
    ],
)  # fmt: skip
def test_the_schema_refuses(half: Path, pointer: str, value: Any) -> None:
    made = {name: json.loads(text) for name, text in make(half).items()}
    validator = Draft202012Validator(made["half/half.schema.json"])
    document = made["half/half.json"]
    assert validator.is_valid(document)
    *path, last = pointer.split("/")[1:]
    place = document
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value
    assert not validator.is_valid(document)


def test_a_comparison_names_missing_stale_and_extra_files(half: Path) -> None:
    made = make(half)
    assert files.compare(half, made, ["half"]).missing == tuple(made)
    write_all(half, made)
    assert files.compare(half, made, ["half"]) == files.Comparison((), (), (), 2)
    (half / "half" / "half.json").write_text("{}")
    (half / "half" / "gone.json").write_text("{}")
    found = files.compare(half, made, ["half"])
    assert (found.missing, found.stale, found.extra) == ((), ("half/half.json",), ("half/gone.json",))


def test_results_of_models_that_are_missing_are_kept(half: Path) -> None:
    write_all(half, make(half))
    assert make(half, missing="no model") == make(half)


def test_a_result_that_nobody_has_is_pending(half: Path) -> None:
    made = make(half, missing="no model")
    document = json.loads(made["half/half.json"])
    assert [case["result"] for case in document["cases"]] == ["pending", "pending"]
    assert Draft202012Validator(json.loads(made["half/half.schema.json"])).is_valid(document)


def test_a_kept_result_belongs_to_its_input(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(half, make(half))
    other = Case("even", "another even number", {"n": 6})
    monkeypatch.setitem(SUITES, "half", SuiteEntry("half", lambda: [CaseFile(HALF, "chosen", (other, ODD))]))
    document = json.loads(make(half, missing="no model")["half/half.json"])
    assert [case["result"] for case in document["cases"]] == ["pending", "invalid"]


def test_slow_cases_are_computed_on_demand_only(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Case("even", "slow", {"n": 6}, (SLOW,))
    flags = {SLOW: ("minutes", "none")}
    monkeypatch.setitem(SUITES, "half", SuiteEntry("half", lambda: [CaseFile(HALF, "chosen", (slow,), flags)]))
    results = [json.loads(make(half, slow=s)["half/half.json"])["cases"][0]["result"] for s in (False, True)]
    assert results == ["pending", "valid"]


def test_what_fuzz_found_becomes_a_case(half: Path) -> None:
    case = {"id": "fuzz-1", "comment": "found", "flags": [], "input": {"n": 9}, "base": "even", "defect": ["/n"]}
    document = {"format": 1, "suite": "half", "function": "half", "cases": [case]}
    disk.write(half / "found" / "a.json", disk.format_json(document))
    cases = json.loads(make(half)["half/half.json"])["cases"]
    assert cases[-1] == case | {"result": "invalid", "code": "half/odd"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"suite":"half","function":"none","cases":[{}]}', '{"suite":"half","function":"half","cases":7}',
     '{"suite":"half","function":"half","cases":[{"id":"a","comment":"b","input":{"n":-1}}]}'],
)  # fmt: skip
def test_a_damaged_found_file_is_one_line(half: Path, content: str) -> None:
    disk.write(half / "found" / "a.json", content)
    with pytest.raises(VectorsError, match=re.escape("a.json")) as caught:
        make(half)
    assert "\n" not in str(caught.value)


def test_large_files_are_refused(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(half)
    size = max(map(len, made.values()))
    monkeypatch.setattr(files, "FILE_LIMIT", size)
    files.check_sizes(half, made)
    monkeypatch.setattr(files, "FILE_LIMIT", size - 1)
    with pytest.raises(VectorsError, match="give digests"):
        files.check_sizes(half, made)


def test_many_files_are_refused_with_those_that_stay(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(half)
    write_all(half, made)
    disk.write(half / "models" / "big.bin", "x" * 100)
    total = 100 + sum(map(len, made.values()))
    monkeypatch.setattr(files, "TOTAL_LIMIT", total)
    files.check_sizes(half, made)
    monkeypatch.setattr(files, "TOTAL_LIMIT", total - 1)
    with pytest.raises(VectorsError, match="smaller"):
        files.check_sizes(half, made)


def test_hidden_files_and_packages_do_not_count(tmp_path: Path) -> None:
    for name in ("a/b.json", ".git/x", "node_modules/y", "a/__pycache__/z", "a/.part-1"):
        disk.write(tmp_path / name, "")
    assert disk.list_files(tmp_path) == [tmp_path / "a" / "b.json"]


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    disk.write(path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(VectorsError, match="No space left"):
        disk.write(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_the_schema_of_a_list_of_large_integers() -> None:
    function = Function("s", "f", "p", "x", RecordKind({"n": Array(Integer(0, 2**64))}), RecordKind({}), lambda i: i)
    schema = make_file_schema(function, [])["$defs"]["input"]
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"n": ["0", "18446744073709551616"]})
    assert not any(validator.is_valid({"n": [item]}) for item in (0, "", "00", "-0", "+1", "1.0", "0x1"))
