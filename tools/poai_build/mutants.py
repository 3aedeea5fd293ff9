"""How much the vectors notice: break the specification in small ways, one at a time, and run the vectors on each.

Every place on every page where an operator applies gives mutants:

    rounding    a // b rounds up instead of down
    shift       the other direction; one bit more
    comparison  < and <=, > and >=, == and !=, `in` and `not in` exchanged
    constant    an integer one larger
    order       two checks that follow each other exchanged

`python -m poai_build.mutants` draws a sample by a pinned seed and runs the committed cases against each in a process of
its own whose first package folder holds the mutant; those of the mutated page come first, and the first failure ends
the run. Left alone are assertions and texts of error messages, which no client has to share, pages without rules, and
`MemoEngine`, which changes what a replay costs but no result.

A mutant is caught by a case that fails, by an exception that is no rejection, or by taking much longer than the
specification itself.
"""

import ast
import copy
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import poai_spec
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import tagged_hash
from poai_tools.spec.cli import fail
from poai_tools.spec.places import NO_CHECKOUT, find_checkout

SAMPLE = 200
SEED = tagged_hash("PoAI/mutants/1")
WANTED = 0.95
"""Share of the sample that has to be caught."""
PATIENCE = 4.0
"""A run that takes so many times as long as the specification's is ended."""
WITHOUT_RULES = ("__init__", "walkthrough", "engine")
WITHOUT_EFFECT = ("MemoEngine",)
"""Classes that only save work."""
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
CAUGHT, CRASHED, LATE, SURVIVED = "failed case", "exception", "time", "survived"

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        module: of `poai_spec`, such as `proof/quiz`.
        line: in the page, and in the module.
        operator: one of those above.
        before: the code that changes.
        after: what it becomes.
        number: of the node in the module's syntax tree, as `_walk` yields it.
        variant: which change of the node.
    """

    module: str
    line: int
    operator: str
    before: str
    after: str
    number: int
    variant: int | str

    @property
    def page(self) -> str:
        return self.module.rpartition("/")[2].replace("_", "-")

    @property
    def place(self) -> str:
        return f"specs/{self.module.replace('_', '-')}.md:{self.line}"


@dataclass(frozen=True)
class MutantResult:
    """What became of a mutant.

    Attributes:
        mutant: the mutant.
        outcome: `failed case`, `exception`, `time` or `survived`.
        detail: the last line of the run.
    """

    mutant: Mutant
    outcome: str
    detail: str


def find_mutants(module: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its syntax tree."""
    for number, node in enumerate(_walk(ast.parse(source))):
        for operator, variant in _list_variants(node):
            changed = copy.deepcopy(node)
            _apply(changed, operator, variant)
            before, after = _show(node, operator, variant), _show(changed, operator, variant)
            yield Mutant(module, _get_line(node, operator, variant), operator, before, after, number, variant)


def make_source(mutant: Mutant, source: str) -> str:
    """Return a module with the mutant's change."""
    tree = ast.parse(source)
    node = next(node for number, node in enumerate(_walk(tree)) if number == mutant.number)
    _apply(node, mutant.operator, mutant.variant)
    return ast.unparse(tree)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes whose change would change a rule."""
    yield node
    for child in ast.iter_child_nodes(node):
        skipped = isinstance(child, ast.ClassDef) and child.name in WITHOUT_EFFECT
        if not skipped and not isinstance(child, ast.Assert | ast.JoinedStr):
            yield from _walk(child)


def _list_variants(node: ast.AST) -> Iterator[tuple[str, int | str]]:
    """Yield (operator, variant) of every mutant of one node."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        if isinstance(node.op, ast.FloorDiv) and isinstance(node, ast.BinOp):
            yield "rounding", "up"
        if isinstance(node.op, ast.LShift | ast.RShift):
            yield "shift", "direction"
            yield "shift", "amount"
    if isinstance(node, ast.Compare):
        yield from (("comparison", n) for n, op in enumerate(node.ops) if type(op) in OPPOSITE)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "constant", "larger"
    body = getattr(node, "body", None)
    if isinstance(body, list):
        yield from (("order", n) for n in range(len(body) - 1) if _is_check(body[n]) and _is_check(body[n + 1]))


def _is_check(statement: ast.stmt) -> bool:
    """Tell whether a statement only lets pass or raises."""
    if isinstance(statement, ast.If):
        return not statement.orelse and isinstance(statement.body[-1], ast.Raise)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        return name.startswith("check_")
    return False


def _apply(node: ast.AST, operator: str, variant: int | str) -> None:
    """Change a node in place."""
    if isinstance(node, ast.BinOp) and operator == "rounding":
        node.left = ast.UnaryOp(ast.USub(), node.left)
        inner = ast.BinOp(node.left, node.op, node.right)
        # -(-a // b), as 0 - (-a // b): a BinOp stays one.
        node.left, node.op, node.right = ast.Constant(0), ast.Sub(), inner
    elif isinstance(node, ast.BinOp | ast.AugAssign) and variant == "direction":
        node.op = ast.RShift() if isinstance(node.op, ast.LShift) else ast.LShift()
    elif isinstance(node, ast.BinOp):
        node.right = ast.BinOp(node.right, ast.Add(), ast.Constant(1))
    elif isinstance(node, ast.AugAssign):
        node.value = ast.BinOp(node.value, ast.Add(), ast.Constant(1))
    elif isinstance(node, ast.Compare):
        assert isinstance(variant, int)
        node.ops[variant] = OPPOSITE[type(node.ops[variant])]()
    elif isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        node.value += 1
    else:
        assert isinstance(variant, int)
        body = getattr(node, "body")  # noqa: B009 - every node with the operator `order` has one
        body[variant : variant + 2] = body[variant + 1 : variant - 1 if variant else None : -1]


def _show(node: ast.AST, operator: str, at: int | str) -> str:
    if operator == "order":
        assert isinstance(at, int)
        body: list[ast.stmt] = getattr(node, "body")  # noqa: B009
        return "; ".join(ast.unparse(statement).partition("\n")[0] for statement in body[at : at + 2])
    return ast.unparse(node).partition("\n")[0]


def _get_line(node: ast.AST, operator: str, at: int | str) -> int:
    if operator == "order":
        assert isinstance(at, int)
        body: list[ast.stmt] = getattr(node, "body")  # noqa: B009
        return body[at].lineno
    return int(getattr(node, "lineno", 0))


def find_all(package: Path) -> list[Mutant]:
    """Return every mutant of every page with rules."""
    paths = [path for path in sorted(package.glob("*/*.py")) if path.stem not in WITHOUT_RULES]
    return [mutant for path in paths
            for mutant in find_mutants(f"{path.parent.name}/{path.stem}", path.read_text("utf-8"))]  # fmt: skip


def draw(mutants: Sequence[Mutant], count: int) -> list[Mutant]:
    """Return `count` mutants drawn by the pinned seed, in the order of the pages."""
    chosen = Drbg(SEED).sample(range(len(mutants)), min(count, len(mutants)))
    return [mutants[number] for number in sorted(chosen)]


def run_vectors(page: str) -> int:
    """Run the committed cases against the `poai_spec` that is found first; return 1 at the first failure.

    Runs in the child process, so the imports of the package stand inside.
    """
    from poai_tools.vectors import check, models  # noqa: PLC0415
    from poai_tools.vectors.suites import SUITES, get_function  # noqa: PLC0415

    first = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
    assert Path(poai_spec.__file__).is_relative_to(first), "another poai_spec than the mutant is imported"
    root = find_checkout(Path.cwd())
    assert root is not None
    cases = check.read_cases(root / "test_vectors", list(SUITES))
    cases.sort(key=lambda case: get_function(case.suite, case.function).page != page)
    answerer = check.SpecAnswerer()
    for result in check.run_cases(cases, answerer, slow=False, find_missing=models.find_missing):
        if result.status == check.FAILED:
            print(f"{result.case.path}: {result.detail}")
            return 1
    return 0


def run_mutant(mutant: Mutant, package: Path, models: Path, limit: float) -> MutantResult:
    """Run the vectors against a mutant in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="poai-mutant-") as scratch:
        folder = Path(scratch) / package.name
        shutil.copytree(package, folder, ignore=shutil.ignore_patterns("__pycache__"))
        path = folder / f"{mutant.module}.py"
        path.write_text(make_source(mutant, path.read_text("utf-8")), "utf-8")
        status, lines = _run(mutant.page, scratch, models, limit)
        if status == -signal.SIGTERM:  # somebody else's doing: nothing here sends it
            status, lines = _run(mutant.page, scratch, models, limit)
    detail = lines[-1] if lines else ""
    if status is None:
        return MutantResult(mutant, LATE, f"no end within {limit:.0f} s")
    if status == 0:
        return MutantResult(mutant, SURVIVED, detail)
    return MutantResult(mutant, CRASHED if any("Traceback" in line for line in lines) else CAUGHT, detail)


def _run(page: str, first: str, models: Path, limit: float) -> tuple[int | None, list[str]]:
    """Return exit status and output of the run with a package folder in front; no status if it was ended."""
    path = os.pathsep.join(filter(None, (first, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {
        "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "POAI_MODEL_DIR": str(models),
        "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "poai_build.mutants", "--run", page],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return None, []
    finally:
        if process.returncode is None:  # not reaped, so the number is still this process's
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, output.decode("utf-8", "replace").splitlines()


def report(console: Console, verdicts: Sequence[MutantResult], total: int) -> float:
    """Print the table and the survivors; return the share that was caught."""
    operators = list(dict.fromkeys(verdict.mutant.operator for verdict in verdicts))
    table = Table(show_footer=True)
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    table.add_column("operator", f"all, of {total}")
    for outcome in (CAUGHT, CRASHED, LATE, SURVIVED):
        table.add_column(outcome, str(outcomes[outcome]), justify="right")
    for operator in sorted(operators):
        count = Counter(verdict.outcome for verdict in verdicts if verdict.mutant.operator == operator)
        table.add_row(operator, *(str(count[outcome]) for outcome in (CAUGHT, CRASHED, LATE, SURVIVED)))
    console.print(table)
    for verdict in verdicts:
        if verdict.outcome == SURVIVED:
            mutant = verdict.mutant
            print(f"survived: {mutant.place} {mutant.operator}: {mutant.before}  ->  {mutant.after}")
    return 1 - outcomes[SURVIVED] / len(verdicts)


def prepare_models(folder: Path) -> None:
    """Put poai-mini into a folder of its own: with no other model at hand the large ones are skipped."""
    from poai_engine.models.synthesize import synthesize  # noqa: PLC0415 - the child process does without

    folder.mkdir()
    synthesize("mini", folder / "poai-mini.gguf")


@app.command()
def main(
    count: Annotated[int, typer.Option(help="Mutants in the sample.", min=1)] = SAMPLE,
    jobs: Annotated[int, typer.Option(help="Runs at once.", min=1)] = os.cpu_count() or 1,
    page: Annotated[str | None, typer.Option(help="All mutants of one page, instead of a sample of all.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Only print the mutants.")] = False,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the vectors against mutants of the specification; exit 1 if fewer than 95 % are caught."""
    if run is not None:
        raise typer.Exit(run_vectors(run))
    root = find_checkout(Path.cwd())
    if root is None:
        fail(NO_CHECKOUT, 2)
    package = root / "poai_spec"
    everything = find_all(package)
    chosen = [m for m in everything if m.page == page] if page else draw(everything, count)
    if not chosen:
        fail(f"no page with rules is called {page!r}", 2)
    if show:
        for mutant in chosen:
            print(f"{mutant.place} {mutant.operator}: {mutant.before}  ->  {mutant.after}")
        return
    with tempfile.TemporaryDirectory(prefix="poai-mutants-") as scratch:
        caught = run_all(chosen, package, Path(scratch) / "models", jobs, len(everything))
    if caught < WANTED:
        fail(f"{caught:.1%} of the mutants were caught, fewer than {WANTED:.0%}: add cases that notice them", 1)


def run_all(chosen: Sequence[Mutant], package: Path, models: Path, jobs: int, total: int) -> float:
    """Run all mutants, after the specification itself, which has to pass; return the share that was caught."""
    prepare_models(models)
    start = time.monotonic()
    status, lines = _run("", str(package.parent), models, limit=3600)
    if status != 0:
        fail(f"the vectors fail on the specification itself ({lines[-1] if lines else 'no output'})", 1)
    limit = 10 + PATIENCE * (time.monotonic() - start)
    console = Console()
    verdicts = []
    with ThreadPoolExecutor(jobs) as pool, Console(stderr=True).status("") as progress:
        for verdict in pool.map(lambda mutant: run_mutant(mutant, package, models, limit), chosen):
            verdicts.append(verdict)
            progress.update(f"{len(verdicts)} of {len(chosen)}")
    caught = report(console, verdicts, total)
    print(f"{caught:.1%} caught in {time.monotonic() - start:.0f} s")
    return caught


if __name__ == "__main__":
    app()
