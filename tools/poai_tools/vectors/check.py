"""Run committed cases: against our specification in this process, or against a client."""

import difflib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poai_tools.vectors.cases import SLOW
from poai_tools.vectors.client import NOT_IMPLEMENTED, Answer
from poai_tools.vectors.compare import find_difference, look_up, shorten
from poai_tools.vectors.disk import FindMissing, read_json
from poai_tools.vectors.errors import VectorsError
from poai_tools.vectors.kinds import KindError
from poai_tools.vectors.registry import call
from poai_tools.vectors.suites import SUITES, find_function

PASSED, FAILED, NOT_IMPLEMENTED_STATUS, SKIPPED = "passed", "failed", "not implemented", "skipped"
STATUSES = (PASSED, FAILED, NOT_IMPLEMENTED_STATUS, SKIPPED)
SHOWN_FAILURES = 40
"""Failures that are printed; `--json` has all."""


@dataclass(frozen=True)
class CommittedCase:
    """A case as it stands in its file.

    Attributes:
        suite: folder.
        function: the file's stem.
        id: unique in its file.
        flags: names from the file's table.
        input: JSON form.
        result: `valid`, `invalid`, `not-yet` or `pending`.
        output: JSON form; None unless valid.
        code: None unless invalid or not-yet.
    """

    suite: str
    function: str
    id: str
    flags: tuple[str, ...]
    input: Any
    result: str
    output: Any
    code: str | None

    @property
    def path(self) -> str:
        return f"{self.suite}/{self.function}/{self.id}"

    @property
    def names(self) -> tuple[str, ...]:
        """What `--case` may call it."""
        function = f"{self.suite}/{self.function}"
        return self.path, function, self.function, f"{self.function}/{self.id}", self.id


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        case: the case.
        status: one of `STATUSES`.
        detail: why it failed or was skipped, in one line.
        seconds: time that it took.
        pointer: for a wrong output, where it differs first.
    """

    case: CommittedCase
    status: str
    detail: str = ""
    seconds: float = 0.0
    pointer: str | None = None


class Answerer(Protocol):
    """Whoever computes outputs: our specification or a client."""

    def ask(self, suite: str, function: str, case_id: str, data: Any) -> Answer:
        """Return what a function gives on an input."""
        ...

    def take_stray(self) -> str | None:
        """Return what was wrong after the answer before the last one or, once closed, after the last; else None."""
        ...

    def close(self) -> None:
        """End whoever answers."""
        ...


class SpecAnswerer:
    """Our specification, in this process."""

    def ask(self, suite: str, function: str, case_id: str, data: Any) -> Answer:
        """Return what our specification gives; `case_id` does not matter."""
        del case_id
        known = find_function(suite, function)
        if known is None:
            return Answer(code=NOT_IMPLEMENTED)
        try:
            outcome = call(known, data)
        except KindError as error:
            return Answer(fault=f"the input is not of the function's form ({error}): run `poai vectors generate`")
        return Answer(output=outcome.output) if outcome.code is None else Answer(code=outcome.code)

    def take_stray(self) -> str | None:
        """Return None: what is computed here answers once."""
        return None

    def close(self) -> None:
        """Do nothing."""


def read_file(path: Path) -> list[CommittedCase]:
    """Return the cases of a case file.

    Raises:
        VectorsError: the file is none.
    """
    document = read_json(path)
    try:
        cases = [
            CommittedCase(
                document["suite"], document["function"], case["id"], tuple(case["flags"]), case["input"],
                case["result"], case.get("output"), case.get("code"),
            )
            for case in document["cases"]
        ]  # fmt: skip
        for case in cases:
            _check_texts(case)
    except (KeyError, TypeError, AttributeError) as error:
        raise VectorsError(f"{path} is no case file ({error!r}): restore it, or run `poai vectors generate`") from error
    return cases


def _check_texts(case: CommittedCase) -> None:
    """Refuse names, flags, results and codes that are no text; TypeError."""
    texts = (case.suite, case.function, case.id, case.result, case.code or "", *case.flags)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name, flag, result or code is no text")


def read_cases(root: Path, suites: Sequence[str]) -> list[CommittedCase]:
    """Return the committed cases of suites, in build order.

    Raises:
        VectorsError: a file is missing or damaged, or no suite is called so.
    """
    require_suites(suites)
    paths = [path for name in SUITES if name in suites for path in find_case_files(root / name)]
    if not paths:
        raise VectorsError(f"no case files in {root}: run `poai vectors generate`", status=2)
    return [case for path in paths for case in read_file(path)]


def find_case_files(folder: Path) -> list[Path]:
    """Return the case files of a suite's folder."""
    return sorted(path for path in folder.glob("*.json") if not path.name.endswith(".schema.json"))


def require_suites(names: Iterable[str]) -> None:
    """Refuse names of suites that there are not."""
    for name in names:
        if name not in SUITES:
            raise VectorsError(f"no suite is called {name!r}: the suites are {', '.join(SUITES)}", status=2)


def select(cases: Sequence[CommittedCase], wanted: Sequence[str]) -> list[CommittedCase]:
    """Return the cases with one of these names; all if none is given.

    Raises:
        VectorsError: no case is called so.
    """
    chosen = list(cases) if not wanted else []
    for name in wanted:
        found = [c for c in cases if name in c.names]
        if not found:
            names = {text for c in cases for text in c.names}
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
            raise VectorsError(f"no case is called {name!r}; the nearest: {', '.join(near) or 'none'}", status=2)
        chosen += [case for case in found if case not in chosen]
    return chosen


def find_reason_to_skip(case: CommittedCase, *, slow: bool, find_missing: FindMissing) -> str | None:
    """Return why a case is not run, or None."""
    if case.result == "pending":
        return "pending: the result was never computed; `poai vectors generate --slow` pins it where the model is"
    if SLOW in case.flags and not slow:
        return "slow: run them with --slow"
    return find_missing(case.input) if isinstance(case.input, dict) else None


def judge(case: CommittedCase, answer: Answer) -> CaseResult:
    """Compare an answer with what a case expects."""
    if answer.fault is not None:
        return CaseResult(case, FAILED, answer.fault)
    if answer.code == NOT_IMPLEMENTED:
        return CaseResult(case, NOT_IMPLEMENTED_STATUS)
    if case.code is not None or answer.code is not None:
        if answer.code == case.code:
            return CaseResult(case, PASSED)
        expected = case.code or f"output {shorten(case.output)}"
        found = shorten(answer.code) if answer.code is not None else f"output {shorten(answer.output)}"
        return CaseResult(case, FAILED, f"expected {expected}, found {found}")
    pointer = find_difference(case.output, answer.output)
    if pointer is None:
        return CaseResult(case, PASSED)
    expected, found = look_up(case.output, pointer), look_up(answer.output, pointer)
    return CaseResult(case, FAILED, f"at {pointer or '/'}: expected {expected}, found {found}", pointer=pointer)


def run_cases(
    cases: Iterable[CommittedCase], answerer: Answerer, *, slow: bool, find_missing: FindMissing
) -> Iterator[CaseResult]:
    """Run cases one after another, close the answerer, and yield what became of each.

    A result is held back until the next answer, since a client may write a second line that spoils it.
    """
    held: list[CaseResult] = []
    for case in cases:
        reason = find_reason_to_skip(case, slow=slow, find_missing=find_missing)
        if reason is not None:
            held.append(CaseResult(case, SKIPPED, reason))
            continue
        start = time.monotonic()
        answer = answerer.ask(case.suite, case.function, case.path, case.input)
        result = replace(judge(case, answer), seconds=round(time.monotonic() - start, 3))
        yield from _spoil(held, answerer.take_stray())
        held = [result]
        if result.status == FAILED:
            yield held.pop()
    answerer.close()
    yield from _spoil(held, answerer.take_stray())


def _spoil(held: list[CaseResult], stray: str | None) -> list[CaseResult]:
    """Return results, the first of them failed if its answer went on; those after it were skipped."""
    if stray is None or not held or held[0].status == SKIPPED:
        return held
    return [replace(held[0], status=FAILED, detail=stray), *held[1:]]


def make_table(results: Sequence[CaseResult]) -> Table:
    """Return the table of what became of the cases of each suite."""
    table = Table(title=None, show_footer=True)
    total = Counter(result.status for result in results)
    table.add_column("suite", "all")
    for status in STATUSES:
        table.add_column(status, str(total[status]), justify="right")
    table.add_column("seconds", f"{sum(r.seconds for r in results):.1f}", justify="right")
    for name in dict.fromkeys(result.case.suite for result in results):
        ours = [result for result in results if result.case.suite == name]
        count = Counter(result.status for result in ours)
        table.add_row(name, *(str(count[s] or "") for s in STATUSES), f"{sum(r.seconds for r in ours):.1f}")
    return table


def find_next(results: Sequence[CaseResult], root: Path) -> str | None:
    """Return which function to build next: the first that is not implemented; None if all are.

    Raises:
        VectorsError: the table of functions is missing or damaged.
    """
    missing = next((r.case for r in results if r.status == NOT_IMPLEMENTED_STATUS), None)
    if missing is None:
        return None
    for row in read_json(root / "functions.json")["functions"]:
        if (row["suite"], row["function"]) == (missing.suite, missing.function):
            return f"{missing.suite}/{missing.function} (page {row['page']}: {', '.join(row['definitions'])})"
    return f"{missing.suite}/{missing.function}"


def report(console: Console, results: Sequence[CaseResult]) -> None:
    """Print failures, the table, and why cases were skipped."""
    failures = [result for result in results if result.status == FAILED]
    for result in failures[:SHOWN_FAILURES]:
        console.print(Text(f"FAILED {result.case.path}: {result.detail}"), soft_wrap=True)
    if len(failures) > SHOWN_FAILURES:
        console.print(f"... and {len(failures) - SHOWN_FAILURES} more failures; --json FILE writes all")
    console.print(make_table(results))
    reasons = Counter(result.detail for result in results if result.status == SKIPPED)
    for reason, count in reasons.items():
        console.print(Text(f"skipped {count}: {reason}"), soft_wrap=True)


def make_report(results: Sequence[CaseResult], *, complete: bool) -> dict[str, Any]:
    """Return the JSON report: whether every case is in it, counts, and each case that ran or was skipped."""
    count = Counter(result.status for result in results)
    return {
        "complete": complete,
        "counts": {status: count[status] for status in STATUSES},
        "cases": [
            {
                "suite": r.case.suite, "function": r.case.function, "id": r.case.id,
                "status": r.status, "detail": r.detail, "pointer": r.pointer, "seconds": r.seconds,
            }
            for r in results
        ],
    }  # fmt: skip
