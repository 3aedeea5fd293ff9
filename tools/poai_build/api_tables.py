"""The tables in docs/http-api.md and docs/metrics.md: fields from the types of `poaid.view`, metrics from a registry.

Run by `make spec`: `python -m poai_build.api_tables docs`. A table stands between `<!-- table NAME -->`, the name of a
type or `metrics`, and `<!-- end of table -->`.
"""

import ast
import inspect
import re
import sys
from pathlib import Path

from poaid import view
from poaid.metrics import Metrics

DOCUMENTS = ("http-api.md", "metrics.md")
TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def make_field_rows(name: str) -> list[tuple[str, ...]]:
    """Return a type's fields as rows: name, JSON type, and the comment behind it.

    Args:
        name: of a class in `poaid.view`.
    """
    source = inspect.getsource(view)
    lines = source.splitlines()
    kind = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
    return [
        (f"`{node.target.id}`", _name_type(ast.unparse(node.annotation)), lines[node.lineno - 1].partition("  # ")[2])
        for node in kind.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]


def _name_type(annotation: str) -> str:
    """Return how JSON calls a type."""
    if annotation.startswith("NotRequired["):
        return f"{_name_type(annotation.removeprefix('NotRequired[')[:-1])}, may be missing"
    if annotation.startswith("list["):
        return f"array of {_name_type(annotation[5:-1])}"
    names = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "None": "null"}
    parts = [names.get(part, f"[{part}](#{part.lower()})") for part in annotation.split(" | ")]
    return " or ".join("string" if part.startswith("[Activity]") else part for part in parts)


def make_metric_rows() -> list[tuple[str, ...]]:
    """Return the metrics of a node: name, kind, labels and help."""
    return [
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), text)
        for name, kind, labels, text in Metrics().describe()
    ]


def make_table(name: str) -> str:
    """Return a table as markdown."""
    head = ("metric", "kind", "labels", "what") if name == "metrics" else ("field", "type", "what")
    rows = make_metric_rows() if name == "metrics" else make_field_rows(name)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def refresh(document: str) -> str:
    """Return a document with the tables that the code gives now."""
    return TABLE.sub(lambda found: found[1] + make_table(found[2]) + found[3], document)


if __name__ == "__main__":
    for path in (Path(sys.argv[1]) / name for name in DOCUMENTS):
        path.write_text(refresh(path.read_text("utf-8")), "utf-8")
