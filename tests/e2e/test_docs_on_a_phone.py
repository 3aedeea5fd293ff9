"""The site of the documents on a phone: a rejection table shows its meaning, a picture can be read."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from poai_build.pictures import FLAGS, find_browser
from poai_engine.errors import ModelError

ROOT = Path(__file__).parents[2]
WIDTH = 390
README = """\
# Home

## Pages

- [Codes](../specs/one.md)

![A terminal](img/testnet.svg)

![A page](img/page-light.png)
"""
CODES = """\
# One

## Rejection codes

| code | class | meaning |
| --- | --- | --- |
| `a-long-name-of-a-page/and-a-long-name-of-a-rule` | Invalid | no room for questions, or a quiz that is much too long |
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small site, made as `make docs` makes the large one."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("conf.py", "_static", "_templates", "img"):
        source, target = ROOT / "docs" / name, folder / "docs" / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "specs").mkdir()
    (folder / "specs" / "one.md").write_text(CODES)
    (folder / "docs" / "README.md").write_text(README)
    command = (sys.executable, "-m", "sphinx", "-c", "docs", "--quiet", ".", "out")
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "out"


@pytest.fixture
def page() -> Iterator[Page]:
    try:
        executable = find_browser()
    except ModelError:
        pytest.skip("no Chromium on PATH: install the package chromium (or google-chrome) to test the site")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser.new_page(viewport={"width": WIDTH, "height": 844})
        browser.close()


def test_a_rejection_table_shows_its_meaning(site: Path, page: Page) -> None:
    page.goto((site / "specs" / "one.html").as_uri())
    for cell in page.locator("#rejection-codes tbody td").all():
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= WIDTH
    meaning = page.locator("#rejection-codes tbody td").last.bounding_box()
    assert meaning is not None
    assert meaning["width"] > WIDTH * 0.8


def test_pictures_keep_a_size_that_can_be_read(site: Path, page: Page) -> None:
    page.goto((site / "docs" / "README.html").as_uri())
    widths = [image.evaluate("image => image.clientWidth") for image in page.locator("article img").all()]
    assert len(widths) == 2
    assert all(width >= 700 for width in widths)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
