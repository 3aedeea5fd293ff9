"""Where Ethereum's test files are: other people's data, never part of this repository.

They are looked for in the folder that POAI_ETHEREUM_TESTS names, then packed beside the checkout, then in
`build/ethereum-tests`, where `make ethereum-tests-fetch` puts the public repository at the pinned commit.
"""

import io
import json
import lzma
import os
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMIT = "4c87ebb"  # of github ethereum/tests
PACKED_STATE, PACKED_OTHER = "state-cancun.tar.xz", "tx-trie-rlp.tar.xz"
PLACES = (ROOT.parent / "shared" / "third-party" / "ethereum", ROOT / "build" / "ethereum-tests")
MISSING = (
    "Ethereum's tests are not here: `make ethereum-tests-fetch` gets them (it needs GitHub), or name their folder in "
    "POAI_ETHEREUM_TESTS"
)


def find_folder() -> Path | None:
    """Return the folder that has the tests, packed or as a checkout of ethereum/tests; None where there is none."""
    named = os.environ.get("POAI_ETHEREUM_TESTS")
    places = (Path(named),) if named else PLACES
    return next((p for p in places if (p / PACKED_STATE).is_file() or (p / "GeneralStateTests").is_dir()), None)


@cache
def read_packed(archive: Path) -> dict[str, bytes]:
    """Return the files of a packed archive by name."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(archive.read_bytes()))) as packed:
        members = [member for member in packed.getmembers() if member.isfile()]
        return {member.name: packed.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def read_state_tests(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every state test that has a result for Cancun: `file`, `name`, `env`, `pre`, `transaction`, `post`."""
    if (folder / PACKED_STATE).is_file():
        for _, content in sorted(read_packed(folder / PACKED_STATE).items()):
            yield from map(json.loads, content.decode("utf-8").splitlines())
        return
    root = folder / "GeneralStateTests"
    for path in sorted(root.rglob("*.json")):
        for name, test in json.loads(path.read_text("utf-8")).items():
            if "Cancun" in test.get("post", {}):
                yield {"file": path.relative_to(root).as_posix(), "name": name, **test}


def read_files(folder: Path, kind: str) -> dict[str, Any]:
    """Return the other tests of a kind, such as `TrieTests`, by file."""
    if (folder / PACKED_OTHER).is_file():
        found = {name.removeprefix("./"): content for name, content in read_packed(folder / PACKED_OTHER).items()}
    else:
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / kind).rglob("*.json"))}
    return {name: json.loads(text) for name, text in found.items() if name.startswith(f"{kind}/")}
