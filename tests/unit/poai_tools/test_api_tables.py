"""docs/http-api.md and docs/metrics.md say what the code has."""

import re
from pathlib import Path

from poai_build.api_tables import DOCUMENTS, TABLE, make_field_rows, make_metric_rows, refresh
from poaid import view
from poaid.api import rest as http
from poaid.metrics import Metrics
from tests.harness.memory_view import MemoryView

DOCS = Path(__file__).parents[3] / "docs"
API = (DOCS / "http-api.md").read_text("utf-8")


def test_the_tables_are_those_of_the_code() -> None:
    for name in DOCUMENTS:
        text = (DOCS / name).read_text("utf-8")
        assert refresh(text) == text, "run `make spec`"


def test_every_type_has_its_table_and_every_field_its_meaning() -> None:
    kinds = {name for name, kind in vars(view).items() if name.endswith("View") and hasattr(kind, "__total__")}
    assert {name for _, name, _ in TABLE.findall(API)} == kinds
    for name in kinds:
        rows = make_field_rows(name)
        assert [row[0].strip("`") for row in rows] == list(getattr(view, name).__annotations__)
        assert [row for row in rows if not row[2]] == []


def test_every_path_is_in_the_document() -> None:
    rows = set(re.findall(r"^\| `(/[^`]*)` \|", API, re.MULTILINE))
    app = http.make_app(MemoryView.__new__(MemoryView), Metrics())
    paths = {str(getattr(route, "path", "")) for route in app.routes}
    assert rows == {path for path in paths if not path.startswith("/static/")}


def test_every_metric_has_help() -> None:
    assert [row for row in make_metric_rows() if not row[3]] == []
