"""`make ethereum-tests`: Ethereum's state tests that apply, or a spread of them: `make ethereum-tests SAMPLE=600`.

`--reasons` makes the list of those that do not apply: it runs every case and notes which use what this chain lacks.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from poai_spec.execution import interpreter
from poai_spec.execution.evm import Frame
from poai_spec.execution.precompiles import PRECOMPILES as PRECOMPILED
from poai_spec.execution.precompiles import refuse
from tests.ethereum.archive import MISSING, find_folder, read_state_tests
from tests.ethereum.state_tests import run_case

LISTED = Path(__file__).with_name("not_applicable.json")
BLOBS, OPCODES, PRECOMPILES, LOOPS = (
    "a transaction of type 3 (blobs)", "BLOBHASH or BLOBBASEFEE", "a precompile from 6 to 10", "minutes of loops",
)  # fmt: skip
BLOB_OPCODES = (0x49, 0x4A)
LONG = ("VMTests/vmPerformance/loop",)
Case = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""A name, the test, and the entry of its results."""


def read_cases(folder: Path) -> Iterator[Case]:
    """Yield every case, its name `file:test:number`."""
    for test in read_state_tests(folder):
        for number, post in enumerate(test["post"]["Cancun"]):
            yield f"{test['file']}:{test['name']}:{number}", test, post


def read_listed() -> dict[str, str]:
    """Return the reason of each case that does not apply."""
    return {name: reason for reason, names in json.loads(LISTED.read_text("utf-8")).items() for name in names}


def note(used: set[str], reason: str, run: Callable[[Frame], Any]) -> Callable[[Frame], Any]:
    """Return an operation that notes its use."""

    def noting(frame: Frame) -> Any:
        used.add(reason)
        return run(frame)

    return noting


def find_reason(name: str, test: Mapping[str, Any], post: Mapping[str, Any]) -> str:
    """Run a case; where it ends otherwise, return what it uses that this chain does not have, else an empty string."""
    if name.startswith(LONG):
        return LOOPS
    if "blobVersionedHashes" in test["transaction"] or "maxFeePerBlobGas" in test["transaction"]:
        return BLOBS
    used: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        steps = [(*step[:3], note(used, OPCODES, step[3])) if byte in BLOB_OPCODES else step
                 for byte, step in enumerate(interpreter.STEPS)]  # fmt: skip
        absent = {address: note(used, PRECOMPILES, refuse) for address, run in PRECOMPILED.items() if run is refuse}
        patch.setattr(interpreter, "STEPS", steps)
        patch.setattr(interpreter, "PRECOMPILES", {**PRECOMPILED, **absent})
        fault = run_case(test, post)
    return min(used, default="") if fault else ""


def write_reasons(folder: Path) -> None:
    """Write the list of cases that do not apply."""
    found = defaultdict(list)
    for name, test, post in read_cases(folder):
        reason = find_reason(name, test, post)
        if reason:
            found[reason].append(name)
    LISTED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")
    print({reason: len(names) for reason, names in found.items()})


def choose(folder: Path, sample: int | None) -> list[Case]:
    """Return the cases that apply, or every n-th of them, so that `sample` remain."""
    listed = read_listed()
    cases = [case for case in read_cases(folder) if case[0] not in listed]
    step = max(1, len(cases) // sample) if sample else 1
    return cases[::step]


def judge(case: Case) -> tuple[str, str]:
    """Return a case's name and what is wrong with it."""
    return case[0], run_case(case[1], case[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="how many cases, spread over all")
    parser.add_argument("--reasons", action="store_true", help="make the list of cases that do not apply")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    folder = find_folder()
    if folder is None:
        print(MISSING, file=sys.stderr)
        return 2
    if options.reasons:
        write_reasons(folder)
        return 0
    failed = passed = 0
    with get_context("spawn").Pool(options.jobs) as pool:
        for name, fault in pool.imap_unordered(judge, choose(folder, options.sample), chunksize=16):
            passed, failed = passed + (not fault), failed + bool(fault)
            if fault:
                print(f"{name}: {fault}", file=sys.stderr)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
