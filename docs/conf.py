"""How Sphinx makes the site of the documents and the specification: `make docs`; decision 0009."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "PoAI"
author = "The PoAI authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

# The pages lie where GitHub shows them, so the source folder is the repository: sphinx-build -c docs . build/docs
root_doc = "docs/README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/**.md",
    "newsfragments/README.md",
    "specs/**.md",
    "test_vectors/**.md",
    "tests/e2e/js_peer/README.md",
]
exclude_patterns = [".*", "build", "**/node_modules", "docs/adr/0000-template.md"]

extensions = ["myst_parser", "poai_build.docs_site"]
nitpicky = True
myst_heading_anchors = 6  # every heading has the anchor that GitHub gives it
highlight_language = "text"

html_theme = "furo"
html_title = f"PoAI {release}"
html_static_path = ["_static"]
html_css_files = ["poai.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "index.html"}  # leads to docs/README.html
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False
html_theme_options = {
    "source_repository": "https://github.com/Deep-Commit/poai/",
    "source_branch": "main",
    "source_directory": "",
}
