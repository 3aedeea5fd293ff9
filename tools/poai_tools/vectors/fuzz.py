"""Compare two clients on inputs drawn from a seed, and make the smallest difference found a case.

Every input depends on the seed, the function and its number alone. Three of four are mutations of committed cases,
which get past the first checks; the rest are drawn from the function's kinds. Inputs that the reference refuses with
`client/bad-request` are outside the function's domain and are not compared.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import keccak256, tagged_hash
from poai_tools.vectors.cases import SLOW
from poai_tools.vectors.check import CommittedCase
from poai_tools.vectors.client import BAD_REQUEST, NOT_IMPLEMENTED, Answer, Client
from poai_tools.vectors.compare import find_difference, shorten
from poai_tools.vectors.defects import find_pointers, repair
from poai_tools.vectors.draw import draw, mutate, simplify
from poai_tools.vectors.kinds import KindError
from poai_tools.vectors.registry import Function

SHRINK_BUDGET = 400
"""Inputs that are tried to shrink a difference."""
SLOW_BUDGET = 10
"""Of these, how many may run into the time-out."""
PATIENCE = 5
"""A function that a client does not implement, or does not answer in time, so often in a row is left."""
MOST_MUTATIONS = 3


@dataclass
class Tally:
    """What happened to the inputs of one function.

    Attributes:
        equal: both clients gave the same.
        outside: outside the domain.
        unanswered: not implemented, or client B gave nothing in time.
        missing: the client that does not have the function, `the client` or `the reference`; nothing was asked then.
        difference: the difference, shrunk, if there is one.
    """

    equal: int = 0
    outside: int = 0
    unanswered: int = 0
    missing: str | None = None
    difference: "Difference | None" = None

    @property
    def compared(self) -> bool:
        """Whether any input had two answers."""
        return self.equal > 0 or self.difference is not None


@dataclass(frozen=True)
class Difference:
    """An input on which the clients differ.

    Attributes:
        function: of the registry.
        input: JSON form.
        a: client A's answer.
        b: client B's answer, which is taken for the expected one.
    """

    function: Function
    input: Any
    a: Answer
    b: Answer


@dataclass
class Pair:
    """The two clients: A is examined, B is the reference.

    Attributes:
        a: the client that is examined.
        b: the reference.
        late: time-outs so far.
        row: inputs in a row without an answer, those outside the domain left out.
        outside: inputs outside the domain so far.
        number: of requests so far.
    """

    a: Client
    b: Client
    late: int = field(default=0, init=False)
    row: int = field(default=0, init=False)
    outside: int = field(default=0, init=False)
    number: int = field(default=0, init=False)

    def find_missing(self, function: Function, data: Any) -> str | None:
        """Return who does not have a function, from an input that lies in its domain; None if both have it."""
        for name, client in (("the client", self.a), ("the reference", self.b)):
            if self._ask(client, function, data).code == NOT_IMPLEMENTED:
                return name
        return None

    def _ask(self, client: Client, function: Function, data: Any) -> Answer:
        self.number += 1
        return client.ask(function.suite, function.name, f"fuzz-{self.number}", data)

    def ask(self, function: Function, data: Any) -> tuple[Answer, Answer] | None:
        """Return both answers, or None where there is nothing to compare."""
        b = self._ask(self.b, function, data)
        if b.code == BAD_REQUEST:
            self.outside += 1
            return None
        self.late += self.b.timed_out
        self.row += 1
        if self.b.timed_out or b.code == NOT_IMPLEMENTED:
            return None
        a = self._ask(self.a, function, data)
        self.late += self.a.timed_out
        if a.code == NOT_IMPLEMENTED:
            return None
        if stray := self.a.take_stray():
            a = Answer(fault=f"to the input before this one {stray}")
        self.row = 0
        return a, b

    def find(self, function: Function, data: Any) -> Difference | None:
        """Return the difference on an input, if there is one."""
        answers = self.ask(function, data)
        return Difference(function, data, *answers) if answers and differ(*answers) else None


def differ(a: Answer, b: Answer) -> bool:
    """Tell whether two answers are different; a fault differs from everything."""
    if a.fault is not None or b.fault is not None:
        return True
    return a.code != b.code or find_difference(b.output, a.output) is not None


def is_valid(function: Function, data: Any) -> bool:
    """Tell whether an input has the function's form."""
    try:
        function.input.from_json(data, "input")
    except KindError:
        return False
    return True


def make_input(function: Function, cases: Sequence[CommittedCase], seed: int, number: int) -> Any:
    """Return an input; None if this draw has not the function's form."""
    name = f"{function.suite}/{function.name}/{number}".encode("ascii")
    drbg = Drbg(tagged_hash("PoAI/fuzz/1", seed.to_bytes(8, "little"), name))
    if cases and drbg.below(4):
        data = drbg.choice(cases).input
        for _ in range(drbg.between(1, MOST_MUTATIONS)):
            data = mutate(function.input, data, drbg)
    else:
        try:
            data = draw(function.input, drbg)
        except TypeError:
            return None
    return data if is_valid(function, data) else None


def fuzz_function(pair: Pair, function: Function, cases: Sequence[CommittedCase], seed: int, count: int) -> Tally:
    """Compare the clients on `count` inputs, up to the first difference."""
    tally, pair.row, pair.outside = Tally(), 0, 0
    known = [case.input for case in cases if SLOW not in case.flags]
    if known:
        tally.missing = pair.find_missing(function, min(known, key=lambda data: len(json.dumps(data))))
    for number in range(0 if tally.missing else count):
        data = make_input(function, cases, seed, number)
        if data is None:
            continue
        answers = pair.ask(function, data)
        if answers is None:
            tally.unanswered += 1
            if pair.row >= PATIENCE:
                break
        elif differ(*answers):
            outside = pair.outside
            tally.difference = shrink(pair, Difference(function, data, *answers), cases)
            pair.outside = outside
            break
        else:
            tally.equal += 1
    tally.outside = pair.outside
    tally.unanswered -= tally.outside
    return tally


def shrink(pair: Pair, difference: Difference, cases: Sequence[CommittedCase]) -> Difference:
    """Return a difference on a simpler input: first nearer to a valid committed case, then simpler in itself."""
    budget = _Budget(pair)
    base = find_base(difference.input, cases)
    if base is not None:
        for pointer in find_pointers(base.input, difference.input):
            difference = budget.try_one(difference, repair(base.input, difference.input, [pointer])) or difference
    kind = difference.function.input
    while True:
        tries = (budget.try_one(difference, data) for data in simplify(kind, difference.input) if not budget.is_spent)
        simpler = next((found for found in tries if found), None)
        if simpler is None:
            return difference
        difference = simpler


class _Budget:
    """How much shrinking may cost."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.tries = SHRINK_BUDGET
        self.latest = pair.late + SLOW_BUDGET

    @property
    def is_spent(self) -> bool:
        return self.tries <= 0 or self.pair.late >= self.latest

    def try_one(self, difference: Difference, data: Any) -> Difference | None:
        if self.is_spent or not is_valid(difference.function, data):
            return None
        self.tries -= 1
        return self.pair.find(difference.function, data)


def find_base(data: Any, cases: Sequence[CommittedCase]) -> CommittedCase | None:
    """Return the valid case that differs from an input in the fewest places."""
    valid = [case for case in cases if case.result == "valid"]
    return min(valid, key=lambda case: len(find_pointers(case.input, data)), default=None)


def describe(answer: Answer) -> str:
    """Return an answer in a few words."""
    if answer.fault is not None:
        return answer.fault
    return answer.code if answer.code is not None else shorten(answer.output)


def make_fragment(
    difference: Difference, cases: Sequence[CommittedCase], seed: int, results: Mapping[str, str]
) -> dict[str, Any]:
    """Return a difference as a case file with one case; it may be put into `test_vectors/found/`.

    Args:
        difference: what was found.
        cases: the committed cases of its function.
        seed: it was found by.
        results: from a rejection code to `invalid` or `not-yet`.
    """
    function, b = difference.function, difference.b
    digest = keccak256(json.dumps(difference.input, sort_keys=True).encode()).hex()[:12]
    entry: dict[str, Any] = {
        "id": f"fuzz-{digest}",
        "comment": f"found by fuzz with seed {seed}: a client answered {describe(difference.a)}",
        "flags": [],
        "input": difference.input,
    }
    if b.fault is not None:
        entry |= {"result": "pending"}
    elif b.code is None:
        entry |= {"result": "valid", "output": b.output}
    else:
        base = find_base(difference.input, cases)
        defect = find_pointers(base.input, difference.input) if base else []
        entry |= {
            "result": results.get(b.code, "invalid"),
            "code": b.code,
            "base": base.id if base else None,
            "defect": defect,
        }
    return {"format": 1, "suite": function.suite, "function": function.name, "cases": [entry]}
