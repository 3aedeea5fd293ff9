"""Write constraints.txt from what pip resolved (`make constraints`): names and exact versions, nothing else."""

import json
import sys
from pathlib import Path

HEADER = """\
# Exact versions of everything that `pip install -e '.[dev,docs,llama]'` pulls in, for reproducible installs.
# Written by `make constraints`; use as `pip install --constraint constraints.txt ...`.
"""


def format_constraints(report: str, own_name: str = "poai") -> str:
    """Return the constraints file for pip's JSON installation report, sorted by name."""
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    lines = {f"{p['name'].lower().replace('_', '-')}=={p['version']}" for p in packages if p["name"] != own_name}
    return HEADER + "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    report_path, target = map(Path, sys.argv[1:])
    target.write_text(format_constraints(report_path.read_text("utf-8")), "utf-8")
