"""Kept weights: made once, mapped afterwards, made anew after any damage, and never in the way of running a model."""

import os
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from poai_engine.engines.exact import ExactEngine
from poai_engine.errors import ModelError
from poai_engine.kernels.tile import PANEL
from poai_engine.models import weight_cache
from poai_engine.models.gguf_file import read_gguf, sha256_file
from poai_engine.models.packed import pack_model
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE, check_kept_model, get_cache_dir, open_packed_model
from poai_spec.basics.notation import Invalid
from poai_spec.model.engine import Evaluation

TOKENS, SCORED = [[5, 900, 17, 3, 260]], [[2, 4]]
CONVERTING = re.compile("converting weights to integers: 0 of [0-9]+ tensors")
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.sockets


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="module")
def expected(mini_path: Path) -> Evaluation:
    return ExactEngine(read_gguf(mini_path), 1).evaluate(TOKENS, SCORED)[0]


def open_and_run(path: Path) -> tuple[list[str], Evaluation]:
    """Return what opening the model said, and what it then computes."""
    said: list[str] = []
    return said, ExactEngine(open_packed_model(path, say=said.append), 1).evaluate(TOKENS, SCORED)[0]


def find_kept(cache: Path) -> Path:
    """Return the one model that the cache holds; beside it lies the note that it was checked."""
    kept, note = sorted(cache.iterdir(), key=lambda file: file.suffix, reverse=True)
    assert (kept.suffix, note) == (".npz", kept.with_suffix(".checked"))
    return kept


def stamp(file: Path) -> tuple[int, int]:
    return file.stat().st_ino, file.stat().st_mtime_ns


@pytest.fixture
def kept(mini_path: Path, cache: Path) -> Path:
    """The kept weights of poai-mini."""
    open_packed_model(mini_path)
    return find_kept(cache)


def test_made_first_and_mapped_afterwards(mini_path: Path, cache: Path, expected: Evaluation) -> None:
    said, found = open_and_run(mini_path)
    assert [bool(CONVERTING.fullmatch(line)) for line in said] == [True]
    assert found == expected
    kept = find_kept(cache)
    assert kept.name.startswith(sha256_file(mini_path).hex())
    before = stamp(kept)
    assert open_and_run(mini_path) == ([], expected)
    assert stamp(kept) == before


def test_mapped_weights_are_those_of_the_file(mini_path: Path, kept: Path) -> None:
    """numpy.load reads the archive too; large arrays are mapped, not copied, and nobody can write to them."""
    made, mapped = ExactEngine(read_gguf(mini_path), 1), open_packed_model(mini_path)
    assert mapped.root == made.integer_model_root
    assert mapped.architecture == made.architecture
    with np.load(kept) as archive:
        for name, matrix in made.model.matrices.items():
            assert np.array_equal(matrix.q, mapped.matrices[name].q)
            assert np.array_equal(matrix.q, archive[name])
            assert not mapped.matrices[name].q.flags.writeable


def test_another_model_than_the_network_has_is_refused(mini_path: Path, cache: Path) -> None:
    open_packed_model(mini_path, sha256_file(mini_path))
    with pytest.raises(ModelError, match="is not this network's model"):
        open_packed_model(mini_path, bytes(32))
    assert find_kept(cache).name.startswith(sha256_file(mini_path).hex())


# Damage.


def find_regions(kept: Path) -> dict[str, list[int]]:
    """Return places in the parts of the archive; of the members, in the first matrix."""
    with zipfile.ZipFile(kept) as archive:
        info = next(info for info in archive.infolist() if info.filename.startswith("blk.0.attn_q"))
        directory, size = archive.start_dir, kept.stat().st_size
    start = info.header_offset
    data = start + 30 + sum(struct.unpack("<HH", kept.read_bytes()[start + 26 : start + 30]))
    return {
        "local header": [*range(start, start + 30)],
        "name and extra field": [*range(start + 30, data)],
        "npy header": [*range(data, data + 128, 3)],
        "weights": [*range(data + 128, data + info.file_size, info.file_size // 40)],
        "directory": [*range(directory, directory + 80), *range(directory + 80, size, 13), *range(size - 22, size)],
    }


@pytest.mark.parametrize("region", ["local header", "name and extra field", "npy header", "weights", "directory"])
def test_a_flipped_bit_changes_no_result(mini_path: Path, kept: Path, expected: Evaluation, region: str) -> None:
    """It is found, or lies where nobody reads, such as a member's date; then every array is as it was."""
    whole, model = kept.read_bytes(), pack_model(read_gguf(mini_path))
    places = find_regions(kept)[region]
    rebuilt = 0
    for n, at in enumerate(places):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << n % 8
        kept.unlink()  # the one that is mapped stays as it is
        kept.write_bytes(damaged)
        said: list[str] = []
        found = open_packed_model(mini_path, say=said.append)
        assert found.root == model.root
        assert found.architecture == model.architecture
        assert found.gains.keys() == model.gains.keys()
        assert all(np.array_equal(found.gains[name], gains) for name, gains in model.gains.items())
        assert all(np.array_equal(found.matrices[name].q, m.q) for name, m in model.matrices.items())
        if said:
            rebuilt += 1
            assert re.match(f"{re.escape(str(kept))} is damaged \\(.+\\): it is made anew$", said[0]), said
            assert len([line for line in said if "damaged" in line]) == 1
            assert kept.read_bytes() != damaged
    if region == "weights":
        assert rebuilt == len(places)
    assert rebuilt > 0 or region == "name and extra field"
    assert open_and_run(mini_path) == ([], expected)


def rewrite(kept: Path, change: Callable[[dict[str, NDArray[Any]]], None]) -> None:
    """Write the archive anew with other arrays, all checksums right."""
    with np.load(kept) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    np.savez(kept, **arrays)


def drop(name: str) -> Callable[[dict[str, NDArray[Any]]], None]:
    return lambda arrays: arrays.__delitem__(name)


def replace(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[dict[str, NDArray[Any]]], None]:
    return lambda arrays: arrays.__setitem__(name, change(arrays[name]))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda kept: kept.write_bytes(b""),
    "garbage": lambda kept: kept.write_bytes(os.urandom(5000)),
    "cut in the middle": lambda kept: os.truncate(kept, kept.stat().st_size // 2),
    "one byte short": lambda kept: os.truncate(kept, kept.stat().st_size - 1),
    "zeros behind": lambda kept: os.truncate(kept, kept.stat().st_size + (1 << 17)),
    "another archive": lambda kept: np.savez(kept, x=np.zeros(3)),
    "an empty archive": np.savez,
    "compressed": lambda kept: np.savez_compressed(kept, **dict(np.load(kept))),
    "without a matrix": lambda kept: rewrite(kept, drop("blk.1.ffn_up.weight")),
    "without gains": lambda kept: rewrite(kept, drop("gains")),
    "without the root": lambda kept: rewrite(kept, drop("root")),
    "without a shape": lambda kept: rewrite(kept, drop("architecture")),
    "short shape": lambda kept: rewrite(kept, replace("architecture", lambda x: x[:-1])),
    "wider shape": lambda kept: rewrite(kept, replace("architecture", lambda x: x + np.eye(9, dtype=np.int64)[1] * 8)),
    "fewer weights": lambda kept: rewrite(kept, replace("blk.0.attn_q.weight", lambda x: x[:, :-1])),
    "weights of 16 bits": lambda kept: rewrite(kept, replace("blk.0.attn_q.weight", lambda x: x.astype(np.int16))),
    "weights in another order": lambda kept: rewrite(kept, replace("blk.0.attn_q.weight", np.asfortranarray)),
    "fewer multipliers": lambda kept: rewrite(kept, replace("multipliers", lambda x: x[:-1])),
    "fewer exponents": lambda kept: rewrite(kept, replace("k", lambda x: x[:-1])),
    "shorter gains": lambda kept: rewrite(kept, replace("gains", lambda x: x[:, :-1])),
    "gains of 64 bits": lambda kept: rewrite(kept, replace("gains", lambda x: x.astype(np.float64))),
    "shorter embedding": lambda kept: rewrite(kept, replace("embedding", lambda x: x[:3])),
    "narrower embedding": lambda kept: rewrite(kept, replace("embedding", lambda x: x[:, :-1])),
    "fewer angles": lambda kept: rewrite(kept, replace("angles", lambda x: x[:, :, :-1])),
    "angles of one kind": lambda kept: rewrite(kept, replace("angles", lambda x: x[:1])),
    "a short root": lambda kept: rewrite(kept, replace("root", lambda x: x[:-1])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_mended_with_a_line(mini_path: Path, kept: Path, expected: Evaluation, damage: str) -> None:
    whole = kept.read_bytes()
    DAMAGES[damage](kept)
    said, found = open_and_run(mini_path)
    assert found == expected
    assert [bool(CONVERTING.fullmatch(line)) for line in said] == [False, True]
    assert re.match(f"{re.escape(str(kept))} is damaged \\(.+\\): it is made anew$", said[0])
    with zipfile.ZipFile(kept) as archive:
        assert archive.testzip() is None
    assert len(kept.read_bytes()) == len(whole)
    assert open_and_run(mini_path) == ([], expected)


# Weights that are whole and wrong.


def change_one(name: str) -> Callable[[dict[str, NDArray[Any]]], None]:
    """Return a change of one integer in the middle of an array."""

    def change(arrays: dict[str, NDArray[Any]]) -> None:
        array = arrays[name].copy()
        array.flat[array.size // 2 - 1] ^= 1
        arrays[name] = array

    return change


def forge_note(kept: Path) -> None:
    """Note an archive as checked, as somebody may who can write to the folder."""
    note = kept.with_suffix(".checked")
    version = note.read_text().split()[0]
    note.write_text(f"{version} {sha256_file(kept).hex()}\n")


PARTS = ["blk.0.attn_q.weight", "multipliers", "gains", "embedding", "angles", "root", "k", "architecture"]


@pytest.mark.parametrize("part", PARTS)
def test_one_changed_integer_is_found_though_all_checksums_are_right(
    mini_path: Path, kept: Path, expected: Evaluation, part: str
) -> None:
    rewrite(kept, change_one(part))
    with pytest.raises(ModelError, match=r"is damaged .*: remove it, and .*checked beside it"):
        check_kept_model(mini_path, sha256_file(mini_path), pack_model(read_gguf(mini_path)).root)
    said, found = open_and_run(mini_path)
    assert re.match(f"{re.escape(str(kept))} is damaged \\(.+\\): it is made anew$", said[0]), said
    assert found == expected
    assert open_and_run(mini_path) == ([], expected)


def test_padding_is_examined_too(mini_path: Path, kept: Path) -> None:
    """The root does not cover it, and compiled code reads it."""
    packed = pack_model(read_gguf(mini_path))
    name, matrix = next((n, m) for n, m in packed.matrices.items() if m.outputs % PANEL)
    rewrite(kept, replace(name, lambda q: q | (np.arange(q.size) == q.size - 1).reshape(q.shape).astype(np.int8)))
    said: list[str] = []
    assert np.array_equal(open_packed_model(mini_path, say=said.append).matrices[name].q, matrix.q)
    assert "padding" in said[0]


def test_a_checked_archive_is_not_checked_at_length_again(
    mini_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(weight_cache, "check_arrays", lambda *_: calls.append(1))
    open_packed_model(mini_path)
    assert calls == []
    kept.with_suffix(".checked").write_text("0.0.1 " + sha256_file(kept).hex() + "\n")  # by another version
    open_packed_model(mini_path)
    open_packed_model(mini_path)
    assert calls == [1]


@pytest.mark.parametrize("which", ["archive", "note"])
def test_what_others_could_have_written_is_checked_each_time(
    mini_path: Path, kept: Path, expected: Evaluation, which: str
) -> None:
    rewrite(kept, change_one("blk.0.attn_q.weight"))
    forge_note(kept)
    (kept if which == "archive" else kept.with_suffix(".checked")).chmod(0o666)
    said, found = open_and_run(mini_path)
    assert "its weights are not those of its root" in said[0]
    assert found == expected


def test_rows_are_compared_with_the_model_file_at_each_start(mini_path: Path, kept: Path, expected: Evaluation) -> None:
    """Whatever was noted: a packing that differs in every row is found at the first draw."""
    rewrite(kept, replace("blk.0.attn_q.weight", lambda q: q[::-1] + np.uint8(1)))
    forge_note(kept)
    said, found = open_and_run(mini_path)
    assert re.search("row [0-9]+ of blk.0.attn_q.weight is not the model file's", said[0])
    assert found == expected


def test_another_root_than_the_networks_is_made_anew(mini_path: Path, kept: Path) -> None:
    said: list[str] = []
    root = open_packed_model(mini_path, say=said.append, root=b"\1" * 32).root
    assert root == pack_model(read_gguf(mini_path)).root
    assert "its root is not the network's" in said[0]


def test_a_note_that_cannot_be_written_costs_a_line(mini_path: Path, kept: Path, expected: Evaluation) -> None:
    note = kept.with_suffix(".checked")
    note.unlink()
    note.mkdir()
    for _ in range(2):
        said, found = open_and_run(mini_path)
        assert [f"{note} cannot be written" in line for line in said] == [True]
        assert found == expected


def test_the_examination_that_the_user_asks_for(mini_path: Path, kept: Path) -> None:
    digest, root = sha256_file(mini_path), pack_model(read_gguf(mini_path)).root
    assert check_kept_model(mini_path, digest, root) == kept
    kept.unlink()
    with pytest.raises(ModelError, match="is not there"):
        check_kept_model(mini_path, digest, root)


# Folders that keep nothing.


def test_a_folder_that_cannot_be_made(mini_path: Path, cache: Path, expected: Evaluation) -> None:
    """A file lies in its place, so that the superuser cannot make it either."""
    cache.write_text("no folder")
    said, found = open_and_run(mini_path)
    assert found == expected
    (line,) = [line for line in said if not CONVERTING.fullmatch(line)]
    assert re.match(f"{re.escape(str(cache))} cannot keep the weights \\(.+\\): set POAI_CACHE_DIR to another", line)


def test_a_full_disk(mini_path: Path, cache: Path, expected: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.lib.format.write_array", fail)
    said, found = open_and_run(mini_path)
    assert found == expected
    assert [line for line in said if "cannot keep" in line] == [
        f"{cache} cannot keep the weights (No space left on device): set POAI_CACHE_DIR to another folder"
    ]
    assert list(cache.iterdir()) == []


def test_models_that_are_refused_leave_nothing(mini_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError):
        open_packed_model(ROOT / "README.md")

    def fail(*_: Any) -> Iterator[Any]:
        yield "embedding", np.zeros((3, 3), np.int16)
        raise Invalid("integer-model/row-maximum", "blk.0.ffn_up.weight")

    monkeypatch.setattr(weight_cache, "pack_tensors", fail)
    with pytest.raises(Invalid, match="row-maximum"):
        open_packed_model(mini_path)
    assert list(cache.iterdir()) == []


def test_an_interrupted_conversion_leaves_nothing(
    mini_path: Path, cache: Path, expected: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C at the line of progress, in the middle of the writing."""

    def interrupt(line: str) -> None:
        assert [file.suffix for file in cache.iterdir()] == [".part"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_packed_model(mini_path, say=interrupt)
    assert list(cache.iterdir()) == []
    assert open_and_run(mini_path)[1] == expected


def test_what_a_killed_process_left_is_removed(mini_path: Path, cache: Path) -> None:
    cache.mkdir()
    for name, age in (("poai-old.part", 90_000), ("poai-new.part", 0), ("download.part", 90_000)):
        (cache / name).write_bytes(b"half")
        os.utime(cache / name, (time.time() - age,) * 2)
    open_packed_model(mini_path)
    assert {file.name for file in cache.glob("*.part")} == {"poai-new.part", "download.part"}


def test_other_versions_of_a_model_are_removed(mini_path: Path, cache: Path) -> None:
    cache.mkdir()
    digest = sha256_file(mini_path).hex()
    stale = [cache / f"{digest}.w8a8-0.16.npz", cache / f"{digest}.w8a8-1.32.npz"]
    others = {cache / f"{'00' * 32}.w8a8-0.16.npz", cache / "notes.txt"}
    for file in (*stale, *others):
        file.write_bytes(b"old")
    open_packed_model(mini_path)
    kept, note = sorted(set(cache.iterdir()) - others, reverse=True)
    assert kept.name.startswith(digest)
    assert note == kept.with_suffix(".checked")
    assert kept not in stale


# Several processes.


def start_process(path: Path) -> subprocess.Popen[str]:
    """Start a process that waits for a line and then opens the model and runs it."""
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.poai_engine.test_weight_cache import open_and_run\n"
        "print('ready', flush=True); input()\n"
        "said, found = open_and_run(Path(sys.argv[1]))\n"
        "print(*said, sep='|'); print(found.loss, found.trace[-1].hex())"
    )
    command = [sys.executable, "-c", code, str(path)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def test_two_processes_at_once(mini_path: Path, cache: Path, expected: Evaluation) -> None:
    """Both make the file where neither has it, or one maps the other's; nobody sees half of one."""
    with start_process(mini_path) as first, start_process(mini_path) as second:
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        answers = [process.communicate("go\n", timeout=60) for process in (first, second)]
    for out, err in answers:
        said, found = out.splitlines()
        assert found == f"{expected.loss} {expected.trace[-1].hex()}", err
        assert all(CONVERTING.fullmatch(line) for line in said.split("|") if line)
    assert open_and_run(mini_path) == ([], expected)
    assert find_kept(cache).suffix == ".npz"


def test_a_mapped_model_outlives_its_file(mini_path: Path, kept: Path, expected: Evaluation) -> None:
    engine = ExactEngine(open_packed_model(mini_path), 1)
    kept.unlink()
    assert engine.evaluate(TOKENS, SCORED)[0] == expected


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert get_cache_dir() == cache
    monkeypatch.delenv(CACHE_DIR_VARIABLE)
    assert get_cache_dir().parts[-2:] == ("poai", "weights")
