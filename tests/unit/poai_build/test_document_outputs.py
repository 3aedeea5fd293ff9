"""The documents that newcomers follow: what their commands print, and every line of the tutorial, run."""

from pathlib import Path

import pytest

from poai_build.document_outputs import DOCUMENTS, refresh
from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from tests.harness.examples import run_examples

ROOT = Path(__file__).parents[3]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def _in_a_checkout(monkeypatch: pytest.MonkeyPatch, mini_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_the_commands_print(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert "\n$ poai " in text
    assert text == refresh(text), "run `python -m poai_build.document_outputs`"


def test_a_stale_output_is_replaced() -> None:
    stale = "Text.\n```console\n$ poai spec where work/loss\nold\nlines\n$ make\nkept\n```\n$ poai quiz\nkept\n"
    fresh = refresh(stale)
    assert "check_evaluation (Invalid)\n$ make\nkept\n```\n$ poai quiz\nkept\n" in fresh
    assert "old" not in fresh


def test_the_tutorial() -> None:
    assert run_examples(TUTORIAL, "docs/tutorial.md") > 50
