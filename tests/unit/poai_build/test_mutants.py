"""Mutants of the specification: which there are, what they change, and that the vectors are run on them."""

import ast
from pathlib import Path

import pytest

from poai_build import mutants
from poai_build.mutants import CAUGHT, LATE, Mutant, draw, find_all, find_mutants, make_source, run_mutant

PACKAGE = Path(__file__).parents[3] / "poai_spec"
SOURCE = '''
def f(a, b):
    """Text with 1 number."""
    assert a < 1
    x = a // b
    x <<= 2
    if a > b:
        raise ValueError(f"{a >> 1}")
    if a == 7:
        raise ValueError("seven")
    check_it(x)
    return True
'''


def changes(operator: str) -> list[tuple[int, str, str]]:
    return [(m.line, m.before, m.after) for m in find_mutants("page", SOURCE) if m.operator == operator]


def test_every_operator_finds_its_places() -> None:
    assert changes("rounding") == [(5, "a // b", "0 - -a // b")]
    assert changes("shift") == [(6, "x <<= 2", "x >>= 2"), (6, "x <<= 2", "x <<= 2 + 1")]
    assert changes("comparison") == [(7, "a > b", "a >= b"), (9, "a == 7", "a != 7")]
    assert changes("constant") == [(6, "2", "3"), (9, "7", "8")]
    assert changes("order") == [
        (7, "if a > b:; if a == 7:", "if a == 7:; if a > b:"),
        (9, "if a == 7:; check_it(x)", "check_it(x); if a == 7:"),
    ]


def test_rounding_up_is_the_ceiling() -> None:
    (mutant,) = [m for m in find_mutants("page", "q = (a - 1) // (b + 1)") if m.operator == "rounding"]
    for a in range(-20, 20):
        for b in range(6):
            names: dict[str, int] = {"a": a, "b": b}
            exec(make_source(mutant, "q = (a - 1) // (b + 1)"), names)  # noqa: S102
            assert names["q"] == -(-(a - 1) // (b + 1))


def test_a_mutant_differs_in_one_place() -> None:
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in find_mutants("page", SOURCE):
        lines = make_source(mutant, SOURCE).splitlines()
        different = sum(a != b for a, b in zip(plain, lines, strict=True))
        assert different == 1 or mutant.operator == "order"
        assert sorted(plain) != sorted(lines) or mutant.operator == "order"
        assert plain != lines


def test_the_specification_has_mutants_of_all_operators() -> None:
    everything = find_all(PACKAGE)
    assert {mutant.operator for mutant in everything} == {"rounding", "shift", "comparison", "constant", "order"}
    assert not {mutant.module for mutant in everything} & set(mutants.WITHOUT_RULES)
    sample = draw(everything, 200)
    assert sample == draw(everything, 200)
    assert len(set(sample)) == 200


def find(page: str, before: str, after: str) -> Mutant:
    source = (PACKAGE / f"{page}.py").read_text("utf-8")
    return next(m for m in find_mutants(page, source) if (m.before, m.after) == (before, after))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants") / "models"
    mutants.prepare_models(folder)
    return folder


def test_a_mutant_is_caught_by_a_case_of_its_page(models: Path) -> None:
    shifted = find("model/fixed_point", "x + (1 << n - 1) >> n", "x + (1 << n - 1) >> n + 1")
    verdict = run_mutant(shifted, PACKAGE, models, limit=60)
    assert verdict.outcome == CAUGHT
    assert verdict.detail.startswith("fixed_point/")
    assert shifted.place.startswith("specs/model/fixed-point.md:")


def test_a_mutant_that_does_not_end_is_ended(models: Path) -> None:
    shifted = find("model/fixed_point", "x + (1 << n - 1) >> n", "x + (1 << n - 1) >> n + 1")
    assert run_mutant(shifted, PACKAGE, models, limit=0.01).outcome == LATE
