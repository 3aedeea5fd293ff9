"""The files under `test_vectors/`: made from the suites, compared, and written.

    SUITE/FUNCTION.json, SUITE/FUNCTION.schema.json    the cases of a function and their schema
    codes.json, functions.json                         every rejection code; the signature of every function
    models/nano.json                                   the smallest model, inline; each of these with its schema
    found/*.json                                       differences that `poai vectors fuzz` found, kept as cases

Everything but `found/`, the READMEs, models/poai-mini.gguf and the clients is generated.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poai_tools.spec.pages import find_code_rows
from poai_tools.spec.places import VECTORS
from poai_tools.vectors import schemas
from poai_tools.vectors.cases import SLOW, Case, CaseFile, Keep, make_document
from poai_tools.vectors.disk import FindMissing, format_json, list_files, read_json
from poai_tools.vectors.errors import VectorsError
from poai_tools.vectors.kinds import KindError
from poai_tools.vectors.nano import make_nano_document
from poai_tools.vectors.registry import FUNCTIONS, get_definitions
from poai_tools.vectors.suites import SUITES, get_function, load_all

FILE_LIMIT = 2**20
"""Bytes of one generated file."""
TOTAL_LIMIT = 20 * 2**20
"""Bytes of everything under `test_vectors/`."""
RESULT_FIELDS = ("result", "output", "code", "base", "defect")
RESULT_OF_CLASS = {"Invalid": "invalid", "Malformed": "invalid", "NotYet": "not-yet"}


@dataclass(frozen=True)
class Comparison:
    """How generated files relate to those on disk, by path below `test_vectors/`.

    Attributes:
        missing: not on disk.
        stale: on disk with other content.
        extra: on disk, and no suite makes them.
        same: how many are equal.
    """

    missing: tuple[str, ...]
    stale: tuple[str, ...]
    extra: tuple[str, ...]
    same: int


def make_codes(specs: Path) -> dict[str, Any]:
    """Return the document `codes.json`, from the tables of all pages."""
    rows = [
        {"code": code, "class": kind, "result": RESULT_OF_CLASS[kind], "page": page.stem, "meaning": meaning}
        for page in sorted(specs.rglob("*.md"), key=lambda page: page.stem)
        for code, kind, meaning in find_code_rows(page.read_text("utf-8"))
    ]
    return {"format": 1, "codes": rows}


def make_signatures() -> dict[str, Any]:
    """Return the document `functions.json`, suites in build order."""
    load_all()
    order = list(SUITES)
    functions = sorted(FUNCTIONS.values(), key=lambda f: order.index(f.suite) if f.suite in order else len(order))
    rows = [
        {
            "suite": function.suite,
            "function": function.name,
            "page": function.page,
            "definitions": list(get_definitions(function)),
            "summary": function.summary,
            "input": {key: kind.name for key, kind in function.input.fields.items()},
            "output": {key: kind.name for key, kind in function.output.fields.items()},
        }
        for function in functions
    ]
    return {"format": 1, "functions": rows}


def make_keep(committed: Mapping[str, Any] | None, *, slow: bool, find_missing: FindMissing) -> Keep:
    """Return what gives the committed result of the cases that are not computed: slow ones, models not at hand.

    A case that is neither computed nor committed with the same input is `pending`.
    """
    known = {case["id"]: case for case in committed["cases"]} if committed else {}

    def keep(case: Case, data: dict[str, Any]) -> dict[str, Any] | None:
        if (slow or SLOW not in case.flags) and find_missing(data) is None:
            return None
        old = known.get(case.id)
        if old is None or old["input"] != data:
            return {"result": "pending"}
        return {key: old[key] for key in RESULT_FIELDS if key in old}

    return keep


def read_found(root: Path) -> dict[tuple[str, str], list[Case]]:
    """Return the cases of `found/*.json` by function."""
    found = defaultdict(list)
    for path in sorted((root / "found").glob("*.json")):
        document = read_json(path)
        try:
            key = document["suite"], document["function"]
            for case in document["cases"]:
                values = get_function(*key).input.from_json(case["input"], "input")
                base, defect = case.get("base"), tuple(case.get("defect", ()))
                found[key].append(Case(case["id"], case["comment"], values, (), base, defect))
        except (KeyError, TypeError, AttributeError, KindError) as error:
            reason = error if isinstance(error, KindError) else f"no case file ({error!r})"
            raise VectorsError(f"{path}: {reason}: mend it, or take it away") from error
    return dict(found)


def make_suite(root: Path, name: str, *, slow: bool, find_missing: FindMissing) -> Iterator[tuple[str, str]]:
    """Yield (path below `test_vectors/`, text) of every generated file of a suite."""
    found = read_found(root)
    for file in SUITES[name].make_files():
        function = file.function
        stem = f"{function.suite}/{function.name}"
        whole: CaseFile = replace(file, cases=(*file.cases, *found.get(function.key, ())))
        path = root / f"{stem}.json"
        committed = read_json(path) if path.is_file() else None
        document = make_document(whole, make_keep(committed, slow=slow, find_missing=find_missing))
        yield f"{stem}.json", format_json(document)
        yield f"{stem}.schema.json", format_json(schemas.make_file_schema(function, file.flags))


def make_tables(specs: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the generated files that belong to no suite."""
    yield "codes.json", format_json(make_codes(specs))
    yield "codes.schema.json", format_json(schemas.make_codes_schema())
    yield "functions.json", format_json(make_signatures())
    yield "functions.schema.json", format_json(schemas.make_functions_schema())
    yield "models/nano.json", format_json(make_nano_document())
    yield "models/nano.schema.json", format_json(schemas.make_nano_schema())


def find_generated(root: Path, suites: Sequence[str]) -> set[str]:
    """Return the paths of all JSON files in the folders of suites, below `test_vectors/`."""
    return {path.relative_to(root).as_posix() for name in suites for path in (root / name).glob("*.json")}


def compare(root: Path, files: Mapping[str, str], suites: Sequence[str]) -> Comparison:
    """Compare generated files with those on disk; only the folders of `suites` are looked at for extra ones."""
    missing, stale = [], []
    for name, text in files.items():
        path = root / name
        if not path.is_file():
            missing.append(name)
        elif path.read_bytes() != text.encode():
            stale.append(name)
    extra = sorted(find_generated(root, suites) - files.keys())
    return Comparison(tuple(missing), tuple(stale), tuple(extra), len(files) - len(missing) - len(stale))


def check_sizes(root: Path, files: Mapping[str, str]) -> None:
    """Refuse files that are too large, alone or with everything else under `test_vectors/`.

    Raises:
        VectorsError: names the file and the limit.
    """
    for name, text in files.items():
        if len(text) > FILE_LIMIT:
            raise VectorsError(f"{name} has {len(text):,} bytes, above {FILE_LIMIT:,}: give digests of long outputs")
    rest = sum(path.stat().st_size for path in list_files(root) if path.relative_to(root).as_posix() not in files)
    total = rest + sum(map(len, files.values()))
    if total > TOTAL_LIMIT:
        raise VectorsError(f"{VECTORS}/ would have {total:,} bytes, above {TOTAL_LIMIT:,}: make the suites smaller")
