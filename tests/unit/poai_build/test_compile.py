"""The compiler keeps every line where it was and notices every difference."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from poai_tools.spec.cli import app, find_rules
from poai_tools.spec.compile import compile_specs, mask, module_name, page_name
from poai_tools.spec.places import NO_CHECKOUT

ROOT = Path(__file__).parents[3]

line = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30)
plain_line = line.filter(lambda text: not text.startswith("```"))
fence = st.tuples(st.sampled_from(["python", "pycon", "text", ""]), st.lists(plain_line, max_size=5))
page_part = st.one_of(plain_line, fence)


@given(st.lists(page_part, min_size=1, max_size=12))
def test_each_line_stays_where_it_is(parts: list[str | tuple[str, list[str]]]) -> None:
    markdown, code = ["# Title"], {}
    for part in parts:
        if isinstance(part, str):
            markdown.append(part)
            continue
        language, inside = part
        markdown.append(f"```{language}")
        for text in inside:
            if language == "python":
                code[len(markdown)] = text.rstrip()
            markdown.append(text)
        markdown.append("```")
    compiled = mask("\n".join(markdown) + "\n", "specs/x.md").removesuffix("\n").split("\n")
    assert len(compiled) == len(markdown)
    for number, text in enumerate(compiled):
        if number in code:
            assert text == code[number]
        else:
            assert text == "" or text.startswith("#")
            assert markdown[number].strip() in text or markdown[number].startswith("```")


def test_a_traceback_names_the_line_of_the_page() -> None:
    page = "# A page\n\nText.\n\n```python\nx = 1\n\n\ndef broken() -> int:\n    return x // 0\n```\n"
    namespace: dict[str, object] = {}
    exec(compile(mask(page, "specs/a.md"), "specs/a.md", "exec"), namespace)  # noqa: S102
    with pytest.raises(ZeroDivisionError) as caught:
        namespace["broken"]()  # type: ignore[operator]
    assert page.splitlines()[caught.traceback[-1].lineno] == "    return x // 0"


def test_a_fence_that_is_never_closed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"specs/a\.md: the last ```python fence is never closed"):
        mask("# A\n\n```python\nx = 1\n", "specs/a.md")


@pytest.mark.parametrize("outer", ["python", "text", ""])
def test_a_fence_inside_another_is_refused(outer: str) -> None:
    with pytest.raises(ValueError, match=r"specs/a\.md:5: a fence is opened inside another one"):
        mask(f"# A\n\n```{outer}\nx = 1\n```python\n```\n", "specs/a.md")


def test_module_names() -> None:
    for page, module in [("chain/fork-choice.md", "chain/fork_choice.py"), ("chain/README.md", "chain/__init__.py"),
                         ("README.md", "__init__.py")]:  # fmt: skip
        assert module_name(Path(page)) == module
        assert page_name(Path(module)) == page


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout whose poai_spec is up to date."""
    for room in ("manifests", "basics", "chain"):
        (tmp_path / "specs" / room).mkdir(parents=True)
    (tmp_path / "specs" / "README.md").write_text("# Spec\n")
    (tmp_path / "specs" / "basics" / "notation.md").write_text("# Notation\n\n```python\nx = 1\n```\n")
    (tmp_path / "specs" / "manifests" / "mini.json").write_text("{}\n")
    written = ["__init__.py", "basics/notation.py", "manifests/mini.json", "py.typed"]
    assert compile_specs(tmp_path, check=False) == written
    assert compile_specs(tmp_path, check=True) == []
    return tmp_path


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def edit_a_page(root: Path) -> str:
    (root / "specs" / "basics" / "notation.md").write_text("# Notation\n\n```python\nx = 2\n```\n")
    return "basics/notation.py"


def edit_a_module(root: Path) -> str:
    (root / "poai_spec" / "basics" / "notation.py").write_text("x = 3\n")
    return "basics/notation.py"


def add_a_page(root: Path) -> str:
    (root / "specs" / "chain" / "fork-choice.md").write_text("# Fork choice\n")
    return "chain/fork_choice.py"


def delete_a_page(root: Path) -> str:
    shutil.copy(root / "poai_spec" / "basics" / "notation.py", root / "poai_spec" / "old.py")
    return "old.py"


def delete_a_module(root: Path) -> str:
    (root / "poai_spec" / "py.typed").unlink()
    return "py.typed"


def edit_a_manifest(root: Path) -> str:
    (root / "specs" / "manifests" / "mini.json").write_text('{"layers": 1}\n')
    return "manifests/mini.json"


CHANGES = [edit_a_page, edit_a_module, add_a_page, delete_a_page, delete_a_module, edit_a_manifest]


@pytest.mark.parametrize("change", CHANGES)
def test_check_names_the_difference_and_writes_nothing(
    change: "type[str]", checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = change(checkout)
    before = snapshot(checkout)
    monkeypatch.chdir(checkout)
    result = CliRunner().invoke(app, ["compile", "--check"])
    assert result.exit_code == 1
    assert result.stderr == f"error: out of date: poai_spec/{name}; run `make spec` and commit\n"
    assert snapshot(checkout) == before
    assert CliRunner().invoke(app, ["compile"]).exit_code == 0
    assert CliRunner().invoke(app, ["compile", "--check"]).exit_code == 0


def test_a_page_that_does_not_parse_is_named_and_nothing_is_written(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "specs" / "chain" / "fork-choice.md").write_text("# Fork choice\n\n```python\nx = = 1\n```\n")
    before = snapshot(checkout)
    monkeypatch.chdir(checkout / "specs")
    result = CliRunner().invoke(app, ["compile"])
    assert result.exit_code == 1
    assert result.stderr == "error: specs/chain/fork-choice.md:4: invalid syntax\n"
    assert snapshot(checkout) == before


def test_outside_a_checkout_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["compile"])
    assert result.exit_code == 2
    assert result.stderr == f"error: {NO_CHECKOUT}\n"


def test_the_committed_package_is_the_compiled_one() -> None:
    assert compile_specs(ROOT, check=True) == []


def test_where_leads_to_the_raise() -> None:
    rules = find_rules(ROOT / "poai_spec")
    for code in ("difficulty/target", "work/l-hat", "transaction/type"):
        result = CliRunner().invoke(app, ["where", code])
        assert (result.exit_code, result.stdout) == (0, f"{rules[code]}\n")
    for code, found in rules.items():
        page, _, number = found.split()[0].rpartition(":")
        lines = (ROOT / page).read_text("utf-8").splitlines()
        assert f'"{code}"' in "".join(lines[int(number) - 1 : int(number) + 2])


def test_where_suggests_the_nearest_codes() -> None:
    result = CliRunner().invoke(app, ["where", "parameters/perod"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no rule is called 'parameters/perod'; the nearest: parameters/period")
