"""Integers known only to lie between two bounds, for checking the page's bounds with the page's own functions.

An `Interval` goes through the arithmetic of `poai_spec` like an int; every result is recorded in the running `Recorder`
under the expressions of the pages that led to it. Where an operation would need to know more than the bounds (a
comparison that they do not decide), it raises, so a bound that comes out is a bound.

Long rows need no long loops: `times` says for how many independent values of a row an interval stands, and `sum` counts
it as often. A `Row` reports the number of values as its length.

What builtins and monotone page functions do on intervals is in `PATCHES`, to be put into the page's module for the time
of a test. The page's `exp2_neg`, `log2_fixed`, `isqrt` and `div_round` are evaluated at the ends of the intervals;
`test_proofs` proves that they are monotone.
"""

import linecache
import operator
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from math import isqrt
from types import CodeType, FrameType, SimpleNamespace
from typing import Any, TypeAlias

from poai_spec.model import fixed_point

Number: TypeAlias = "int | Interval"


class Recorder:
    """The largest magnitude of every intermediate result, by page function and source text of the expression.

    A result counts for each expression of the pages that was being evaluated: `v * inv` and `round_shift(v * inv, 31)`
    are two keys of `rms_norm`, and the second one covers what `round_shift` does inside.
    """

    def __init__(self) -> None:
        self.largest: defaultdict[tuple[str, str], int] = defaultdict(int)

    def record(self, low: int, high: int) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if str(frame.f_globals.get("__name__")).startswith("poai_spec."):
                key = frame.f_code.co_qualname.partition(".<locals>")[0], get_expression(frame.f_code, frame.f_lasti)
                self.largest[key] = max(self.largest[key], -low, high)
            frame = frame.f_back


@cache
def get_expression(code: CodeType, instruction: int) -> str:
    """Return the source text that an instruction belongs to, on one line."""
    line, last, start, stop = list(code.co_positions())[instruction // 2]
    assert line is not None
    assert last is not None
    lines = [linecache.getline(code.co_filename, n).encode() for n in range(line, last + 1)]
    lines[-1] = lines[-1][:stop]
    lines[0] = lines[0][start:]
    return " ".join(b" ".join(lines).decode().split())


_running: list[Recorder] = []


@contextmanager
def recording(recorder: Recorder | None = None) -> Iterator[Recorder]:
    """Collect what is computed meanwhile, in addition to what a given recorder holds."""
    recorder = recorder or Recorder()
    _running.append(recorder)
    try:
        yield recorder
    finally:
        _running.remove(recorder)


def as_interval(x: Number) -> "Interval":
    return x if isinstance(x, Interval) else Interval(x, x)


class Interval:
    """Any integer `low .. high`; in a row, `times` independent ones."""

    def __init__(self, low: int, high: int, times: int = 1) -> None:
        assert low <= high
        self.low, self.high, self.times = low, high, times

    def __repr__(self) -> str:
        return f"[{self.low}, {self.high}]" + (f" x{self.times}" if self.times > 1 else "")

    def _make(self, values: Iterable[int], *others: "Interval") -> "Interval":
        values = list(values)
        low, high = min(values), max(values)
        for recorder in _running:
            recorder.record(low, high)
        return Interval(low, high, max(self.times, *(other.times for other in others), 1))

    def _corners(self, other: Number, apply: Callable[[int, int], int]) -> "Interval":
        """For operations that are monotone in each operand while the other is fixed."""
        other = as_interval(other)
        return self._make((apply(*ends) for ends in product(self.ends, other.ends)), other)

    @property
    def ends(self) -> tuple[int, int]:
        return self.low, self.high

    def __add__(self, other: Number) -> "Interval":
        return self._corners(other, operator.add)

    def __sub__(self, other: Number) -> "Interval":
        return self._corners(other, operator.sub)

    def __rsub__(self, other: int) -> "Interval":
        return as_interval(other) - self

    def __mul__(self, other: Number) -> "Interval":
        if other is self:  # a square: the two factors are one number
            squares = [end * end for end in self.ends]
            return self._make(squares if self.low > 0 or self.high < 0 else [0, *squares])
        return self._corners(other, operator.mul)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Interval":
        return self._make((-self.low, -self.high))

    def __abs__(self) -> "Interval":
        magnitudes = [abs(end) for end in self.ends]
        return self._make(magnitudes if self.low > 0 or self.high < 0 else [0, *magnitudes])

    def __lshift__(self, n: int) -> "Interval":
        return self._make(end << n for end in self.ends)

    def __rshift__(self, n: int) -> "Interval":
        return self._make(end >> n for end in self.ends)

    def __floordiv__(self, other: Number) -> "Interval":
        assert as_interval(other).low > 0
        return self._corners(other, operator.floordiv)

    def __rfloordiv__(self, other: int) -> "Interval":
        return as_interval(other) // self

    def __and__(self, mask: int) -> "Interval":
        assert mask & (mask + 1) == 0, "a mask of low bits"
        same = self.low >> mask.bit_length() == self.high >> mask.bit_length()
        return self._make((self.low & mask, self.high & mask) if same else (0, mask))

    def __or__(self, other: "Interval") -> "Interval":
        assert min(self.low, other.low) >= 0
        return self._make((max(self.low, other.low), (1 << max(self.high, other.high).bit_length()) - 1), other)

    def _decide(self, other: int, compare: Callable[[int, int], bool]) -> bool:
        answers = {compare(end, other) for end in self.ends}
        assert len(answers) == 1, f"{self} against {other} is undecided"
        return answers.pop()

    def __gt__(self, other: int) -> bool:
        return self._decide(other, operator.gt)

    def __ge__(self, other: int) -> bool:
        return self._decide(other, operator.ge)

    def __le__(self, other: int) -> bool:
        return self._decide(other, operator.le)

    def __bool__(self) -> bool:
        assert self.ends == (0, 0) or self.low > 0 or self.high < 0, f"{self} may be 0"
        return self.high != 0 or self.low != 0

    def bit_length(self) -> int:
        assert self.low >= 0
        assert self.low.bit_length() == self.high.bit_length(), f"{self} has no definite bit length"
        return self.low.bit_length()


class Largest(Interval):
    """The largest of some values: its differences to them are not negative, and by symmetry let the first one be 0."""

    def __init__(self, items: list[Interval]) -> None:
        super().__init__(max(item.low for item in items), max(item.high for item in items))
        self.items = items

    def __sub__(self, other: Number) -> Interval:
        if other is self.items[0]:
            return Interval(0, 0)
        if any(other is item for item in self.items):
            difference = super().__sub__(other)
            return Interval(max(difference.low, 0), difference.high, difference.times)
        return super().__sub__(other)


class Row(tuple[Any, ...]):
    """A row as a few intervals; its length counts each as often as it stands for a value."""

    def __len__(self) -> int:
        return sum(as_interval(item).times for item in self)


def row(first: Number, rest: Interval, count: int) -> Row:
    """Return `count` values: a first one, and all others within `rest`."""
    return Row((first, Interval(rest.low, rest.high, count - 1)) if count > 1 else (first,))


def interval_max(*values: Any) -> Any:
    items = list(values[0]) if len(values) == 1 else list(values)
    if not any(isinstance(item, Interval) for item in items):
        return max(items)
    return Largest([as_interval(item) for item in items])


def interval_sum(values: Iterable[Number]) -> Number:
    items = [as_interval(value) for value in values]
    low, high = (sum(getattr(item, end) * item.times for item in items) for end in ("low", "high"))
    return Interval(low, high)._make((low, high))


def _monotone(function: Callable[..., int]) -> Callable[..., Number]:
    """Lift a function that is monotone in each argument: its values lie between those at the ends."""

    def lifted(*arguments: Number) -> Number:
        if not any(isinstance(argument, Interval) for argument in arguments):
            return function(*arguments)
        first, *others = map(as_interval, arguments)
        ends = product(first.ends, *(other.ends for other in others))
        return first._make((function(*corner) for corner in ends), *others)

    return lifted


def _div_round(a: Number, b: Number) -> Number:
    """Also record the dividend `2 a + b` that the page's `div_round` makes."""
    assert as_interval(b).low > 0
    if isinstance(a, Interval) or isinstance(b, Interval):
        (low_a, high_a), (low_b, high_b) = as_interval(a).ends, as_interval(b).ends
        as_interval(a)._make((2 * low_a + low_b, 2 * high_a + high_b, 2 * low_a + high_b))
    return _monotone(fixed_point.div_round)(a, b)


def _clamp(x: Number, n: int) -> Number:
    return _monotone(lambda value: fixed_point.clamp(value, n))(x)


PATCHES: dict[str, Any] = {
    "int": SimpleNamespace(__mul__=operator.mul, from_bytes=lambda data, order: Interval(0, 256 ** len(data) - 1)),
    "max": interval_max,
    "sum": interval_sum,
    "bit_length": lambda x: x.bit_length(),
    "isqrt": _monotone(isqrt),
    "clamp": _clamp,
    "div_round": _div_round,
    "exp2_neg": _monotone(fixed_point.exp2_neg),
    "log2_fixed": _monotone(fixed_point.log2_fixed),
}
