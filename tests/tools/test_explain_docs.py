"""The documents that newcomers follow: what their commands print, and every line of the tutorial, run."""

import doctest
from pathlib import Path

import pytest

from poai_engine.model_store import MODEL_DIR_VARIABLE
from poai_tools.explain_docs import DOCUMENTS, refresh
from poai_tools.pages import find_fences

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def _in_a_checkout(monkeypatch: pytest.MonkeyPatch, mini_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_the_commands_print(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert "\n$ poai " in text
    assert text == refresh(text), "run `python -m poai_tools.explain_docs`"


def test_a_stale_output_is_replaced() -> None:
    stale = "Text.\n```console\n$ poai spec where work/loss\nold\nlines\n$ make\nkept\n```\n$ poai quiz\nkept\n"
    fresh = refresh(stale)
    assert "check_evaluation (Invalid)\n$ make\nkept\n```\n$ poai quiz\nkept\n" in fresh
    assert "old" not in fresh


def test_the_tutorial() -> None:
    lines = [""] * len(TUTORIAL.splitlines())
    for fence in find_fences(TUTORIAL):
        if fence.language == "pycon":
            lines[fence.line : fence.line + len(fence.lines)] = fence.lines
    examples = doctest.DocTestParser().get_doctest("\n".join(lines) + "\n", {}, "tutorial", "docs/tutorial.md", 0)
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(examples, out=report.append)
    assert result.attempted > 50
    assert result.failed == 0, "".join(report)
