"""The picture of the rooms: drawn from the imports, and never out of date."""

from pathlib import Path

import pytest

from poai_build import rooms
from poai_engine.errors import ModelError

ROOT = Path(__file__).parents[3]


def make_repository(root: Path, files: dict[str, str]) -> Path:
    for folder in (*rooms.PACKAGES.values(), *(f"node/poaid/{room}" for room in rooms.ROOMS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "__init__.py").write_text("")
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def test_the_picture_is_that_of_the_imports(tmp_path: Path) -> None:
    rooms.draw(ROOT, tmp_path / "rooms.svg")
    drawn, kept = (folder / "rooms.svg" for folder in (tmp_path, ROOT / "docs" / "img"))
    assert drawn.read_bytes() == kept.read_bytes(), "run `python -m poai_build.rooms docs/img/rooms.svg`"


def test_what_is_known_to_go_against_the_order_still_does() -> None:
    assert rooms.find_against(rooms.find_room_arrows(ROOT), rooms.ROOMS) == rooms.KNOWN
    assert rooms.find_against(rooms.find_package_arrows(ROOT), rooms.PACKAGES) == set()


def test_arrows_are_found_wherever_an_import_stands(tmp_path: Path) -> None:
    text = "import poaid.net.peers\ndef f() -> None:\n    from poaid.store.database import Database\n"
    root = make_repository(tmp_path, {"node/poaid/api/a.py": text, "node/poaid/net/b.py": "from poaid.net import c\n"})
    assert rooms.find_room_arrows(root) == {("api", "net"), ("api", "store")}
    assert rooms.find_package_arrows(root) == set()


def test_an_import_against_the_order_is_named(tmp_path: Path) -> None:
    root = make_repository(tmp_path, {"node/poaid/store/a.py": "from poaid.cli import run\n"})
    with pytest.raises(ModelError, match=r"^against the order: store imports cli$"):
        rooms.draw(root, tmp_path / "rooms.svg")


def test_a_folder_without_a_place_is_named(tmp_path: Path) -> None:
    root = make_repository(tmp_path, {})
    (root / "node/poaid/cellar").mkdir()
    (root / "node/poaid/cellar/__init__.py").write_text("")
    with pytest.raises(ModelError, match=r"^no place in the picture: cellar; "):
        rooms.draw(root, tmp_path / "rooms.svg")
