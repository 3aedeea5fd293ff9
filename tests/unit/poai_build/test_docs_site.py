"""The site of the documents: what the extension adds, and that a broken link ends the build."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poai_bench.plots.supply import ERAS, POAI, compute_points
from poai_build.code_table import make_code_table
from poai_build.docs_site import find_foreign, find_listed_pages, find_targets
from poai_spec.basics.parameters import HALVING_BLOCKS
from poai_spec.proof.economics import compute_subsidy, compute_supply

ROOT = Path(__file__).parents[3]
PAGE = """\
# One

## `compute_one`

```python
def compute_one() -> int:
    raise Invalid("one/rule", "")
```

## `compute_two`

Calls `compute_one`.

```python
def compute_two() -> int:
    return compute_one() + text.compute_one
```
"""
PNG = (ROOT / "docs" / "img" / "page-phone-dark.png").read_bytes()
LINKS = (
    "- [One](../specs/one.md)\n- [2](../specs/one.md#compute_two), [a file](../specs/data.json), [a folder](../specs)\n"
)

pytestmark = pytest.mark.sockets


def build(folder: Path, home: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run Sphinx as `make docs` does on a small repository, whose first page ends with `home`."""
    for name in ("conf.py", "_static", "_templates"):
        source, target = ROOT / "docs" / name, folder / "docs" / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "specs").mkdir()
    (folder / "specs" / "one.md").write_text(PAGE)
    (folder / "specs" / "data.json").write_text("{}")
    (folder / "docs" / "README.md").write_text(f"# Home\n\n## Pages\n\n{home}")
    command = ("-m", "sphinx", "-c", "docs", "--nitpicky", "--fail-on-warning", "--keep-going", "--quiet", ".", "out")
    result = subprocess.run([sys.executable, *command], cwd=folder, check=False, capture_output=True, text=True)
    return result, folder / "out"


def test_names_lead_to_definitions(tmp_path: Path) -> None:
    result, site = build(tmp_path, LINKS)
    assert (result.returncode, result.stderr) == (0, "")
    page, home = ((site / name).read_text("utf-8") for name in ("specs/one.html", "docs/README.html"))
    link = '<a class="definition" href="#compute_one"><span class="n">compute_one</span></a>'
    assert page.count(link) == 1, "the call, and neither the definition nor the attribute"
    assert re.search(r'<a class="definition[^"]*" href="#compute_one"><code', page), "the name in text"
    assert 'href="../docs/rejection-codes.html#one"><span class="s2">' in page, "the code"
    assert '<section id="compute_two">' in page
    assert 'href="../specs/one.html#compute_two"' in home, "not Sphinx's own compute-two"
    assert "https://github.com/Deep-Commit/poai/blob/main/specs/data.json" in home
    assert "https://github.com/Deep-Commit/poai/tree/main/specs" in home
    assert "docs/README.html" in (site / "index.html").read_text("utf-8")


def test_broken_links_end_the_build(tmp_path: Path) -> None:
    result, _ = build(tmp_path, LINKS + "- [no page](no.md)\n- [no anchor](../specs/one.md#no-such-heading)\n")
    assert result.returncode != 0
    assert "README.md:7: WARNING: 'myst' cross-reference target not found: 'no.md'" in result.stderr
    assert "local id not found in doc 'specs/one': 'no-such-heading'" in result.stderr


def test_a_page_that_no_list_names_ends_the_build(tmp_path: Path) -> None:
    result, _ = build(tmp_path, "[One](../specs/one.md)\n")
    assert result.returncode != 0
    assert "specs/one.md: WARNING: document isn't included in any toctree" in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.html", '<script src="https://x.org/a.js"></script>', ["https://x.org/a.js"]),
        ("a.html", '<link rel="stylesheet" href="//x.org/a.css">', ["//x.org/a.css"]),
        ("a.html", '<style>@import "http://x.org/a.css";</style>', ["http://x.org/a.css"]),
        ("a.html", '<a href="https://x.org/">read</a><img src="b.png"><script src="../a.js"></script>', []),
        ("a.css", "@font-face { src: url('https://x.org/a.woff2'), url(data:font/woff2,0) }", ["https://x.org/a.woff2"]),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"><image xlink:href="https://x.org/b"/></svg>', ["https://x.org/b"]),
    ],
)  # fmt: skip
def test_other_hosts(tmp_path: Path, name: str, text: str, found: list[str]) -> None:
    (tmp_path / name).write_text(text)
    assert find_foreign(tmp_path / name) == found


def test_lists_make_the_contents() -> None:
    text = "# T\n\n- [x](https://x.org/x.md)\n\n"
    text += "## A\n\n- [a](a.md), [b](b.md)\n\n## B\n\n| 1 | [c](../c.md) | [d](d.md) |\n[e](e.md).\n"
    assert list(find_listed_pages(text)) == [("A", ["a"]), ("B", ["../c"])]


def test_every_code_and_name_of_the_specification_has_a_target() -> None:
    targets = find_targets(ROOT / "specs")
    assert targets["compute_l_hat"] == ("specs/model/loss", "compute_l_hat")
    assert targets["work/l-hat"] == ("specs/proof/work", "check_l_hat")
    assert targets["poai_spec.chain.fork_choice"] == ("specs/chain/fork-choice", "")
    assert targets["HALVING_BLOCKS"] == ("specs/basics/parameters", "constants-of-version-1")


def test_the_table_of_codes_is_that_of_the_pages() -> None:
    assert make_code_table(ROOT / "specs") == (ROOT / "docs" / "rejection-codes.md").read_text("utf-8"), (
        "run `make spec`"
    )


def test_the_supply_plot() -> None:
    points = compute_points(600_000)
    heights = [round(years * 31_557_600 / 600) for years, _, _ in points]
    assert heights[-1] > ERAS * HALVING_BLOCKS
    assert [supply for _, supply, _ in points] == [compute_supply(height) / POAI for height in heights]
    assert [subsidy for _, _, subsidy in points] == [compute_subsidy(height) / POAI for height in heights]


def test_a_picture_is_shown_on_the_site_too(tmp_path: Path) -> None:
    (tmp_path / "wide.png").write_bytes(PNG)
    text = (
        '<picture><source media="(max-width: 600px)" srcset="small.png"><img alt="A page" src="../wide.png"></picture>'
    )
    result, site = build(tmp_path, f"{LINKS}\n{text}\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert 'alt="A page" src="../_images/wide.png"' in (site / "docs" / "README.html").read_text("utf-8")
