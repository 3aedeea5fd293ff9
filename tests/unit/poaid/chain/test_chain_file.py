"""Chain files: what is written comes back, and whatever is wrong with one is a line and costs no block."""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import accumulate
from pathlib import Path

import pytest

from poai_engine.models.lexicon_maker import format_lexicon
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Hash32, Invalid, Milliseconds, keccak256
from poai_spec.basics.parameters import make_config
from poai_spec.chain import fork_choice
from poai_spec.chain.block import make_judge
from poai_spec.chain.networking import MAX_BLOCK_BYTES
from poai_spec.chain.upgrades import UpgradeList
from poai_spec.model.engine import Evaluation
from poai_spec.proof.lexicon import Lexicon
from poaid.chain import file_import as chain_import
from poaid.chain import judges
from poaid.chain.chain_file import MAGIC, ChainReader, export_chain
from poaid.chain.chain_state import ChainState
from poaid.chain.file_import import ChainImport
from poaid.chain.verify import BlockError, verify_store
from poaid.errors import NodeError
from poaid.network_file import Network
from poaid.store.database import FILE_NAME, Database
from tests.harness.node import BLOCKS, MINIMAL_ID, START, FakeClock, Run, change, ignore, mine, read_data
from tests.unit.poaid.chain.test_verify import MIDDLE, false_traces, forge
from tests.unit.poaid.conftest import MinedChain

NAME = Path("chain")


def record(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def end(data: bytes, count: int) -> bytes:
    """Return a file with its end and trailer, from all that stands before them."""
    whole = data + struct.pack("<IQ", 0, count)
    return whole + keccak256(whole)


def make_head(network: Network) -> bytes:
    """Return the beginning of a file as its description says, not as the program writes it."""
    lexicon = network.questions
    assert isinstance(lexicon, Lexicon)
    name = network.questions_name
    records: tuple[bytes, ...] = (
        encode(network.config),
        b"lexicon",
        name.encode(),
        format_lexicon(name, lexicon).encode(),
    )
    records += (encode(UpgradeList(network.upgrades)),)
    return MAGIC + b"".join(map(record, records))


def make_file(network: Network, blocks: Sequence[bytes]) -> bytes:
    return end(make_head(network) + b"".join(map(record, blocks)), len(blocks))


@dataclass(frozen=True)
class Outcome:
    """What became of an import: the error's line, blocks that are stored, blocks that were new."""

    line: str | None
    stored: list[bytes]
    new: int


def take(data: bytes, mined: MinedChain, folder: Path, now: Milliseconds | None = None) -> Outcome:
    """Do what `poaid import` does, with an engine that remembers."""
    line, new = None, 0
    try:
        reader = ChainReader(BytesIO(data), NAME)
        network = reader.read_network()
        with Database.create_or_open(folder, network, "mini") as store:
            judge = make_judge(network.config, network.questions, mined.judge.models[0].engine)
            run = ChainImport(ChainState(store, network.config, mined.now), judge, lambda: now or mined.now)
            try:
                run.run(reader.read_blocks())
            finally:
                new = run.new
    except NodeError as error:
        line = str(error)
        assert "\n" not in line
    return Outcome(line, read_stored(folder), new)


def read_stored(folder: Path) -> list[bytes]:
    if not folder.exists():
        return []
    with Database.open(folder) as store:
        return read_data(store)


@pytest.fixture
def exported(mined: MinedChain, tmp_path: Path) -> bytes:
    with Database.open(mined.folder) as store:
        assert export_chain(store, tmp_path / "exported") == BLOCKS
    return (tmp_path / "exported").read_bytes()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """Names of folders that are not there yet."""
    return (tmp_path / f"fresh-{number}" for number in range(10_000))


# Round trip


def test_the_file_is_as_described(mined: MinedChain, exported: bytes) -> None:
    assert exported == make_file(mined.network, mined.data)


def test_round_trip(mined: MinedChain, exported: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert take(exported, mined, folder) == Outcome(None, mined.data, BLOCKS)
    with Database.open(folder) as store:
        assert verify_store(store, mined.judge, mined.now, ignore) == mined.state == store.read_state()
        export_chain(store, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == exported
    assert take(exported, mined, folder) == Outcome(None, mined.data, 0), "all blocks are there"


def test_the_commands(mined: MinedChain, run: Run, tmp_path: Path) -> None:
    file, folder = tmp_path / "a.chain", tmp_path / "new"
    status, out, err = run("export", "--data-dir", mined.folder, file)
    assert (status, err) == (0, "")
    assert out.startswith(f"exported 8 blocks of network {out.split()[5]} to {file}; ")
    status, out, _ = run("import", "--data-dir", folder, file, "--threads", 1)
    assert (status, out.split("; ")[1:]) == (0, ["0 were there before", "the chain ends at height 8\n"])
    assert read_stored(folder) == mined.data
    status, out, _ = run("import", "--data-dir", folder, file, "--threads", 1)
    assert (status, out.startswith("replayed and stored 0 blocks of network "), "; 8 were there" in out) == (
        0,
        True,
        True,
    )
    with Database.open(folder) as store:
        assert store.read_network().name == "a", "no preset has this config, so the network is named as the file"
        assert store.read_text("model") == "mini"


def test_an_import_goes_on_after_a_kill_before_the_first_commit(
    mined: MinedChain, exported: bytes, run: Run, tmp_path: Path
) -> None:
    """Such a kill leaves a database without a table, which names no model yet."""
    file, folder = tmp_path / "a.chain", tmp_path / "new"
    folder.mkdir()
    (folder / FILE_NAME).touch()
    file.write_bytes(exported)
    status, out, err = run("import", "--data-dir", folder, file, "--threads", 1)
    assert (status, err.count("error")) == (0, 0)
    assert out.endswith("the chain ends at height 8\n")


def test_a_preset_keeps_its_name(mined: MinedChain) -> None:
    preset = replace(mined.network, config=make_config("minimal", mined.network.config.model))
    assert ChainReader(BytesIO(make_file(preset, [])), NAME).read_network().name == "minimal"


def test_a_chain_without_blocks(mined: MinedChain, tmp_path: Path) -> None:
    with Database.create_or_open(tmp_path / "empty", mined.network, "mini") as store:
        assert export_chain(store, tmp_path / "file") == 0
    assert (tmp_path / "file").read_bytes() == make_file(mined.network, [])
    assert take(make_file(mined.network, []), mined, tmp_path / "new") == Outcome(None, [], 0)


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("window", [1, 2, 5, 8_192])
def test_batches_and_what_is_read_ahead_change_nothing(
    mined: MinedChain, exported: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, window: int
) -> None:
    monkeypatch.setattr(chain_import, "BATCH_BLOCKS", batch)
    monkeypatch.setattr(fork_choice, "MAX_WAITING_PER_PEER", window)
    assert take(exported, mined, tmp_path / "new") == Outcome(None, mined.data, BLOCKS)


@pytest.mark.parametrize("new", [0, BLOCKS])
def test_progress_goes_through_the_file(
    mined: MinedChain, exported: bytes, copy_of: Callable[[], Path], new: int
) -> None:
    told: list[tuple[int, int]] = []
    folder = copy_of() / "new" if new else copy_of()
    with Database.create_or_open(folder, mined.network, "mini") as store:
        chain, reader = ChainState(store, mined.network.config, mined.now), ChainReader(BytesIO(exported), NAME)
        reader.read_network()
        run = ChainImport(chain, mined.judge, lambda: mined.now, lambda *place: told.append(place))
        run.run(reader.read_blocks())
    assert (told, run.new, run.known) == (list(enumerate(list_ends(mined), 1)), new, BLOCKS - new)


def list_ends(mined: MinedChain) -> list[int]:
    """Return where each block's record ends in the file."""
    return list(accumulate((4 + len(data) for data in mined.data), initial=len(make_head(mined.network))))[1:]


# Damage


def test_a_file_cut_anywhere_keeps_all_whole_blocks(mined: MinedChain, exported: bytes, fresh: Iterator[Path]) -> None:
    head, ends = len(make_head(mined.network)), list_ends(mined)
    edges = {edge + step for edge in (len(MAGIC), head, *ends, len(exported)) for step in (-1, 0, 3, 4)}
    for size in sorted({size for size in edges | set(range(0, len(exported), 307)) if size < len(exported)}):
        outcome = take(exported[:size], mined, next(fresh))
        whole = sum(size >= place for place in ends)
        assert outcome.line is not None, size
        assert ": it was cut short, get a whole copy" in outcome.line, (size, outcome.line)
        assert outcome.stored == mined.data[:whole], size
        if head <= size < ends[-1]:
            assert outcome.line.startswith(f"chain ends within block {whole + 1}:"), (size, outcome.line)


def test_an_import_goes_on_where_another_has_ended(mined: MinedChain, exported: bytes, tmp_path: Path) -> None:
    assert take(exported[: list_ends(mined)[6] - 1], mined, tmp_path / "new").new == 6
    assert take(exported, mined, tmp_path / "new") == Outcome(None, mined.data, 2)


def test_a_changed_byte_anywhere_is_found(mined: MinedChain, exported: bytes, fresh: Iterator[Path]) -> None:
    head = len(make_head(mined.network))
    start = head - 700  # most of a lexicon is like the rest of it
    for position in (*range(0, 400, 23), *range(start, len(exported), 43)):
        outcome = take(change(exported, position, 1 << position % 8), mined, next(fresh))
        assert outcome.line is not None, position
        assert outcome.stored == mined.data[: len(outcome.stored)], "what is stored is true"
        whole = sum(4 + len(data) for data in mined.data[: len(outcome.stored)])
        assert position < head or len(outcome.stored) == BLOCKS or head + whole <= position, (position, outcome.line)


def test_a_changed_byte_of_the_trailer(mined: MinedChain, exported: bytes, fresh: Iterator[Path]) -> None:
    for position in range(len(exported) - 40, len(exported), 3):
        outcome = take(change(exported, position, 1 << position % 8), mined, next(fresh))
        fault = "it has 8 blocks, and says" if position < len(exported) - 32 else "its checksum is another one"
        assert (outcome.line or "").startswith(f"chain is damaged: {fault}"), position
        assert outcome.stored == mined.data


def make_odd_files(mined: MinedChain) -> dict[str, tuple[bytes, str]]:
    network, blocks = mined.network, mined.data
    whole, config = make_file(network, blocks), encode(network.config)
    start = MAGIC + record(config)
    tail = record(b"n") + record(b"{}")
    return {
        "another kind of file": (b"SQLite format 3\0" * 9, "chain is no chain file: make one with `poaid export`"),
        "another version": (whole.replace(b"chain 2", b"chain 1", 1), "chain is no chain file"),
        "bytes behind the end": (whole + b"\0", "chain is damaged: it goes on behind its end"),
        "two files in one": (whole + whole, "chain is damaged: it goes on behind its end"),
        "a large config": (MAGIC + struct.pack("<I", 1 << 21), "has 2,097,152 bytes, more than the 1,048,576 that"),
        "a large name": (start + record(b"lexicon") + struct.pack("<I", 256), "the questions' name has 256 bytes"),
        "a large lexicon": (start + record(b"lexicon") + record(b"n") + b"\xff" * 4, "the lexicon has 4,294,967,295"),
        "a large block": (
            make_head(network) + struct.pack("<I", MAX_BLOCK_BYTES + 1), "block 1 has 8,453 bytes, more than the 8,452",
        ),
        "an odd kind": (start + record(b"quizzes") + tail, "neither a lexicon nor a corpus, but 'quizzes'"),
        "a corpus for a lexicon": (start + record(b"corpus") + tail, "its config wants the other kind of questions"),
        "no lexicon": (start + record(b"lexicon") + tail, "the network in it breaks the rule lexicon/"),
        "no config": (MAGIC + record(b"") + record(b"lexicon") + tail, "breaks the rule encoding/undecodable"),
        "another lexicon": (
            make_head(network).replace(b'"model": "mini"', b'"model": [1]   ', 1), "breaks the rule lexicon/",
        ),
        "a name that is none": (
            make_head(network).replace(record(b"mini"), record(b"mi\xff\xff"), 1), "the questions' name is no UTF-8",
        ),
        "a name for the terminal": (
            make_head(network).replace(record(b"mini"), record(b"\x1b[1m"), 1), "characters that cannot be shown",
        ),
        "a name of another folder": (
            make_head(network).replace(record(b"mini"), record(b"../m"), 1), "the questions' name has a path in it",
        ),
        "a wrong count": (end(whole[:-44], BLOCKS + 1), "it has 8 blocks, and says that it has 9"),
    }  # fmt: skip


ODD = [
    "another kind of file", "another version", "bytes behind the end", "two files in one", "a large config",
    "a large name", "a large lexicon", "a large block", "an odd kind", "a corpus for a lexicon", "no lexicon",
    "no config", "another lexicon", "a name that is none", "a name for the terminal",
    "a name of another folder", "a wrong count",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_one_line(mined: MinedChain, tmp_path: Path, name: str) -> None:
    files = make_odd_files(mined)
    assert list(files) == ODD
    data, message = files[name]
    outcome = take(data, mined, tmp_path / "new")
    assert message in (outcome.line or ""), outcome.line


# Blocks that are not valid


def test_a_forged_block_ends_the_import(mined: MinedChain, tmp_path: Path) -> None:
    forged = encode(forge(mined, MIDDLE, false_traces(mined.blocks[MIDDLE - 1], 1)))
    data = [*mined.data[: MIDDLE - 1], forged, mined.data[MIDDLE]]
    outcome = take(make_file(mined.network, data), mined, tmp_path / "new")
    assert (outcome.line or "").startswith(f"block {MIDDLE} breaks the rule work/trace: entry 2 of 4 is ")
    assert outcome.stored == mined.data[: MIDDLE - 1]
    assert take(make_file(mined.network, mined.data), mined, tmp_path / "new").stored == mined.data


def test_a_false_trace_under_a_true_header(mined: MinedChain, tmp_path: Path) -> None:
    last = mined.data[-1]
    data = make_file(mined.network, [*mined.data[:-1], change(last, len(last) - 1, 1)])
    outcome = take(data, mined, tmp_path / "new")
    assert (outcome.line or "").startswith(f"block {BLOCKS} breaks the rule work/trace-digest: ")
    assert outcome.stored == mined.data[:-1]


def test_an_earlier_replay_fault_comes_before_a_later_header_fault(mined: MinedChain, tmp_path: Path) -> None:
    forged = encode(forge(mined, 3, false_traces(mined.blocks[2], 0)))
    for later in (b"", b"\0" * 300, mined.data[3], change(mined.data[3], 0, 1)):
        file = make_head(mined.network) + b"".join(map(record, [*mined.data[:2], forged, later]))
        outcome = take(file, mined, tmp_path / f"new-{len(later)}-{later[:1].hex()}")
        assert (outcome.line or "").startswith("block 3 breaks the rule work/trace: ")
        assert outcome.new == 2


@pytest.mark.parametrize(
    ("order", "height"), [((0, 0), 2), ((1, 0), 1), ((0, 2), 2), ((0, 1, 0), 3), ((0, 1, 3, 2), 3)]
)
def test_blocks_in_another_order(mined: MinedChain, tmp_path: Path, order: Sequence[int], height: int) -> None:
    outcome = take(make_file(mined.network, [mined.data[n] for n in order]), mined, tmp_path / "new")
    expected = f"block {height} in the file does not stand on the block before it"
    assert (outcome.line or "").startswith(expected)
    assert outcome.stored == mined.data[: height - 1]


def test_blocks_of_another_network(mined: MinedChain, tmp_path: Path) -> None:
    other = replace(mined.network, config=replace(mined.network.config, spacing=1_001))
    outcome = take(make_file(other, mined.data), mined, tmp_path / "new")
    assert (outcome.line or "").startswith("block 1 in the file does not stand on the block before it")


def test_a_block_ahead_of_the_clock(mined: MinedChain, exported: bytes, tmp_path: Path) -> None:
    last = mined.headers[-1].core.timestamp
    now = last - mined.network.config.max_future - 1
    outcome = take(exported, mined, tmp_path / "new", now)
    assert (outcome.line or "").startswith(f"block {BLOCKS} cannot be judged yet (check the clock): header/future: ")
    assert outcome.stored == mined.data[:-1]


class Moody:
    """An engine that fails as `llama.cpp` may: for whole batches, or for one quiz."""

    def __init__(self, mined: MinedChain, bad: int | None) -> None:
        self._engine, self._bad, self._asked = mined.judge.models[0].engine, bad, 0
        self.profile, self.integer_model_root = self._engine.profile, self._engine.integer_model_root
        self.layer_count = self._engine.layer_count

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        if len(tokens) > 1 or self._asked == self._bad:
            raise Invalid("llama-profile/nan", "no number")
        self._asked += 1
        return self._engine.evaluate(tokens, scored)

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        yield from self._engine.steps(tokens, scored)


@pytest.mark.parametrize("bad", [None, 0, 5])
def test_a_quiz_without_a_loss(mined: MinedChain, exported: bytes, tmp_path: Path, bad: int | None) -> None:
    reader = ChainReader(BytesIO(exported), NAME)
    with Database.create_or_open(tmp_path, reader.read_network(), "mini") as store:
        judge = make_judge(mined.judge.config, mined.judge.models[0].questions, Moody(mined, bad))
        run = ChainImport(ChainState(store, judge.config, mined.now), judge, lambda: mined.now)
        if bad is None:
            run.run(reader.read_blocks())
        else:
            with pytest.raises(BlockError) as caught:
                run.run(reader.read_blocks())
            assert (caught.value.height, caught.value.code) == (bad + 1, "llama-profile/nan")
        assert read_data(store) == mined.data[:bad]


# Other chains


@pytest.fixture
def short(mined: MinedChain, tmp_path: Path) -> Path:
    """A chain of three blocks beside the mined one."""
    folder = tmp_path / "short"
    with Database.create_or_open(folder, mined.network, "mini") as store:
        mine(store, mined.judge, FakeClock(START + 17), (200, 200, 200))
    return folder


def test_a_heavier_chain_takes_over(mined: MinedChain, exported: bytes, short: Path) -> None:
    assert take(exported, mined, short) == Outcome(None, mined.data, BLOCKS)
    with Database.open(short) as store:
        chain = ChainState(store, mined.network.config, mined.now)
        assert (chain.tree.get_side_count(), chain.state) == (3, mined.state)


def test_a_lighter_chain_is_not_needed(mined: MinedChain, short: Path, copy_of: Callable[[], Path]) -> None:
    file = make_file(mined.network, read_stored(short))
    outcome = take(file, mined, copy_of())
    assert outcome.line == (
        "the chain in the file has less work than this one, which it leaves before block 1: nothing of it is needed"
    )
    assert outcome.stored == mined.data


def test_a_data_directory_of_another_network(mined: MinedChain, exported: bytes, tmp_path: Path) -> None:
    other = replace(mined.network, config=replace(mined.network.config, spacing=1_001))
    with Database.create_or_open(tmp_path / "other", other, "mini"):
        pass
    outcome = take(exported, mined, tmp_path / "other")
    assert "belongs to network" in (outcome.line or "")
    assert outcome.stored == []


# The commands' errors


@pytest.mark.parametrize("command", ["export", "import"])
def test_no_pipe(run: Run, mined: MinedChain, command: str) -> None:
    status, out, err = run(command, "--data-dir", mined.folder, "-")
    assert (status, out, err) == (2, "", "error: a chain cannot be piped: give the name of a file\n")


def test_an_export_overwrites_nothing(mined: MinedChain, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_text("mine")
    status, _, err = run("export", "--data-dir", mined.folder, file)
    assert (status, err) == (1, f"error: {file} exists, and is not overwritten: give another name\n")
    assert file.read_text() == "mine"


def test_an_export_without_a_folder(mined: MinedChain, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "no" / "file"
    status, _, err = run("export", "--data-dir", mined.folder, file)
    assert (status, err) == (1, f"error: {file} cannot be written: No such file or directory\n")


def test_a_pruned_chain_cannot_be_exported(copy_of: Callable[[], Path], run: Run, tmp_path: Path) -> None:
    folder = copy_of()
    with Database.open(folder) as store:
        store.prune(4)
    status, out, err = run("export", "--data-dir", folder, tmp_path / "file")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "holds whole blocks from height 4 on only" in err
    assert list(tmp_path.glob("file*")) == []


def test_nothing_is_left_of_an_export_that_failed(mined: MinedChain, tmp_path: Path) -> None:
    with Database.open(mined.folder) as store, pytest.MonkeyPatch.context() as patch:
        rows = [row for row in store.read_chain() if row.height != 5]
        patch.setattr(store, "read_chain", lambda: iter(rows))
        with pytest.raises(NodeError, match=r"^block 5 is missing from "):
            export_chain(store, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_import_of_a_cut_file(mined: MinedChain, exported: bytes, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "cut"
    file.write_bytes(exported[: list_ends(mined)[6] - 1])
    status, out, err = run("import", "--data-dir", tmp_path / "new", file, "--threads", 1)
    assert (status, out) == (1, "")
    line = f"error: {file} ends within block 7: it was cut short, get a whole copy"
    assert err.splitlines()[-1] == f"{line}; 6 new blocks before that are stored"


def test_import_of_another_network_than_the_one_named(exported: bytes, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(exported)
    named = ("--network", "minimal", "--model", "mini")
    status, out, err = run("import", "--data-dir", tmp_path / "new", tmp_path / "file", *named)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f", and --network minimal is {MINIMAL_ID}: give another file" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("name", "fault"), [(".", "Is a directory"), ("none", "No such file or directory")])
def test_import_of_no_file(run: Run, tmp_path: Path, name: str, fault: str) -> None:
    file = tmp_path / name
    status, out, err = run("import", "--data-dir", tmp_path / "new", file)
    assert (status, out, err) == (1, "", f"error: {file} cannot be read: {fault}\n")
    assert not (tmp_path / "new").exists()


def test_an_interrupt_keeps_what_was_accepted(
    mined: MinedChain, exported: bytes, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Moody):
        def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
            if self._asked == 5:
                raise KeyboardInterrupt
            return super().evaluate(tokens, scored)

    (tmp_path / "file").write_bytes(exported)
    monkeypatch.setattr(judges, "load_engine", lambda *_, **__: Interrupted(mined, None))
    status, out, err = run("import", "--data-dir", tmp_path / "new", tmp_path / "file")
    assert (status, out, err) == (130, "", "stopped; 5 new blocks are stored\n")
    assert read_stored(tmp_path / "new") == mined.data[:5]
