"""Where pages and vectors lie: in a checkout of the repository, or inside the installed packages.

A wheel carries the pages as `poai_spec/pages/` and the vectors as `poai_tools/test_vectors/`. An editable install
has neither: its packages lie in their checkout. Imports nothing of `poai_spec`, as `spec_cli` asks for.
"""

from pathlib import Path

VECTORS = "test_vectors"
NO_CHECKOUT = "no specs/basics/notation.md here or above: run this inside a checkout of the repository"
"""What a command says that needs the repository and finds none."""


def find_checkout(start: Path) -> Path | None:
    """Return the nearest directory from `start` upward that holds the specification's sources."""
    return next((p for p in (start, *start.parents) if (p / "specs" / "basics" / "notation.md").is_file()), None)


def find_pages(package: Path) -> Path:
    """Return the folder of the pages that the package `poai_spec` at this place was made from."""
    installed = package / "pages"
    return installed if installed.is_dir() else package.parent / "specs"


def find_vectors() -> Path:
    """Return the folder of the vectors: of the checkout around the current folder, else those of this package."""
    root, package = find_checkout(Path.cwd()), Path(__file__).parents[1]
    if root is None:
        root = package if (package / VECTORS).is_dir() else package.parents[1]
    return root / VECTORS
