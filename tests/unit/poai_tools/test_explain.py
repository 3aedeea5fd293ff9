"""`poai explain`: the same verdict as the pages on every vector and every changed byte, and what people see."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.basics.containers import Block, Header, HeaderCore, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import SpecError
from poai_spec.chain.block import Judge, check_block, make_genesis, make_judge
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.loss import compute_l_hat
from poai_spec.proof.work import get_epoch_key, get_quiz
from poai_tools import cli
from poai_tools.explain import report
from poai_tools.explain.checks import RULES, ExplainedBlock, Place, apply_rules
from poai_tools.explain.explanation import describe_target, explain, find_quiz, format_time
from poai_tools.explain.fields import lay_out
from poai_tools.explain.source import compute_state, decode_found, read_case
from poai_tools.vectors.check import CommittedCase, read_file
from poai_tools.vectors.engines import get_engine
from poaid.chain.chain_file import export_chain
from poaid.errors import NodeError
from poaid.models import load_engine
from poaid.store.database import Database
from tests.harness.engines import Remembering
from tests.harness.node import FakeClock, change, make_quick_network, mine, read_data

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]
PACES = (200, 200, 200)


@pytest.fixture(scope="module", autouse=True)
def _models(mini_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))
        patch.chdir(ROOT)
        yield


@dataclass(frozen=True)
class Mined:
    """A data directory of three blocks; epoch and difficulty period are two blocks long."""

    folder: Path
    judge: Judge
    chain: list[Header]
    data: list[bytes]
    now: int

    def place(self, height: int) -> Place:
        ancestors = self.chain[:height]
        return Place(make_quick_network(), ancestors, compute_state(ancestors))


@pytest.fixture(scope="module")
def mined(_models: None, tmp_path_factory: pytest.TempPathFactory) -> Mined:
    network, folder, clock = make_quick_network(), tmp_path_factory.mktemp("mined"), FakeClock()
    judge = make_judge(
        network.config, network.questions, Remembering(load_engine("mini", get_rules(network.config, (), 0), 1))
    )
    with Database.create_or_open(folder, network, "mini") as store:
        chain = mine(store, judge, clock, PACES)
        return Mined(folder, judge, list(chain.headers), read_data(store), clock.now)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poai", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


# The rules.


def test_the_rules_stand_in_the_order_of_the_page() -> None:
    page = (ROOT / "specs" / "chain" / "block.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| `([a-z/-]+)` \| (\w+) \|", page, re.MULTILINE)
    assert [code for _, code, _ in rows] == list(RULES)
    case = read_case("block/check_block/ninth", None)
    checks = apply_rules(ExplainedBlock(*decode_found(case.found), case.place, case.now))
    assert [(str(check.number), check.code, check.kind) for check in checks] == rows


def replay(subject: ExplainedBlock, engine: Any) -> ExplainedBlock:
    quiz = find_quiz(subject)
    return replace(subject, evaluation=engine.evaluate([quiz.tokens], [quiz.scored])[0]) if quiz else subject


def find_verdict(subject: ExplainedBlock) -> str | None:
    return next((check.code for check in apply_rules(subject) if check.outcome == "broken"), None)


def read_cases(name: str) -> list[CommittedCase]:
    return read_file(ROOT / "test_vectors" / f"{name}.json")


def test_the_verdict_on_every_block_vector() -> None:
    found = {}
    for committed in read_cases("block/check_block"):
        case = read_case(committed.path, None)
        subject = ExplainedBlock(*decode_found(case.found), case.place, case.now)
        found[committed.path] = find_verdict(replay(subject, get_engine("mini")))
    assert found == {committed.path: committed.code for committed in read_cases("block/check_block")}
    assert len(set(found.values())) == 16  # valid, and every rule but those that need a store


def test_the_verdict_on_every_header_vector() -> None:
    for committed in read_cases("header/check_header_in_chain"):
        case = read_case(committed.path, None)
        subject = ExplainedBlock(*decode_found(case.found), case.place, case.now)
        assert find_verdict(subject) == committed.code, committed.path


def verify_chain(path: str, count: int) -> str | None:
    """Return the code of the first block that is refused."""
    for height in range(1, count + 1):
        case = read_case(path, str(height))
        try:
            subject = ExplainedBlock(*decode_found(case.found), case.place, case.now)
        except NodeError as error:
            return "encoding/undecodable" if "encoding/undecodable" in str(error) else str(error)
        if verdict := find_verdict(replay(subject, get_engine("mini"))):
            return verdict
    return None


def test_the_verdict_on_every_short_chain_vector() -> None:
    for committed in read_cases("chain/verify_chain"):
        if (count := len(committed.input["blocks"])) <= 5:
            assert verify_chain(committed.path, count) == committed.code, committed.path


def test_the_verdict_on_every_changed_byte_is_the_pages(mined: Mined) -> None:
    place, codes = mined.place(3), set()
    for position in range(len(mined.data[2])):
        data = change(mined.data[2], position, 1)
        try:
            block = decode(Block, data)
        except SpecError:
            continue
        try:
            check_block(block, place.chain, place.state, mined.judge, mined.now)
            wanted = None
        except SpecError as error:
            wanted = error.code
        if wanted in ("work/trace", "work/loss"):  # a nonce that wins with the old trace: only a pass tells
            continue
        subject = ExplainedBlock(block.header, block, place, mined.now)
        assert find_verdict(subject) == wanted, position
        codes.add(wanted)
    assert {"header/version", "header/parent", "difficulty/target", "work/l-hat", "work/trace-digest"} <= codes


def test_a_rule_behind_one_that_the_same_function_applies() -> None:
    outcomes = {}
    for name in ("trace-digest", "trace-length", "trace", "loss"):
        case = read_case(f"block/check_block/{name}", None)
        subject = replay(ExplainedBlock(*decode_found(case.found), case.place, case.now), get_engine("mini"))
        outcomes[name] = {check.code: (check.outcome, check.detail) for check in apply_rules(subject)}
    assert outcomes["trace-digest"]["work/trace-length"] == ("not applied", "work/trace-digest is broken")
    assert outcomes["trace-length"]["work/trace-digest"] == ("holds", "")
    assert outcomes["trace"]["work/loss"] == ("not applied", "work/trace is broken")
    assert outcomes["loss"]["work/trace"] == ("holds", "")


# The bytes.


@pytest.mark.parametrize("case", read_cases("ssz/decode_block"), ids=lambda case: case.id)
def test_the_fields_are_all_bytes_once(case: CommittedCase) -> None:
    data = bytes.fromhex(case.input["data"][2:])
    if case.result != "valid":
        return
    layout, block = list(lay_out(Block, data)), decode(Block, data)
    assert b"".join(field.data for field in layout) == data
    assert [field.offset for field in layout[1:]] == [field.offset + len(field.data) for field in layout[:-1]]
    for field in layout:
        if field.type != "offset":
            value = eval(f"block.{field.path}", {"block": block})  # noqa: S307 - our own path
            assert value in (field.data, field.number)


def test_the_meaning_of_a_field_is_the_pages() -> None:
    meanings = {field.path: field.meaning for field in lay_out(HeaderCore, bytes(176))}
    assert meanings["nonce"] == "free; each value is another quiz"
    assert all(meanings.values())


def test_numbers_that_no_chain_has(mined: Mined) -> None:
    """Whatever decodes is explained; the largest numbers are outside calendars and floats."""
    header = decode(Header, mined.data[2][:216])
    most = 2**64 - 1
    odd_cores = (
        replace(header.core, timestamp=most, nonce=most),
        replace(header.core, height=most),
        replace(header.core, target=0),
        replace(header.core, target=1, version=0),
    )
    for core in odd_cores:
        odd = replace(header, core=core, loss=most)
        for place in (None, mined.place(3)):
            assert explain(ExplainedBlock(odd, None, place, mined.now), encode(odd), "odd", None).verdict is not None


def test_targets_and_times_for_people() -> None:
    assert describe_target(2**254) == "one quiz in 4 wins"
    assert describe_target(2**256 * 2 // 3) == "one quiz in 1.5 wins"
    assert describe_target(1) == "one quiz in 1.16e+77 wins"
    assert describe_target(0) == "no quiz wins"
    assert format_time(1767225600900) == "1767225600900: 2026-01-01 00:00:00.900 UTC"
    assert format_time(2**64 - 1) == "18446744073709551615: after the year 9999"


# The command.


def test_a_block_of_a_data_directory(run: Run, mined: Mined) -> None:
    status, out, _ = run("--data-dir", mined.folder)
    config, chain, block = mined.judge.config, mined.chain[:3], decode(Block, mined.data[2])
    quiz = get_quiz(block.header.core, chain, get_rules(config, (), 0), mined.judge.models[0].questions)
    evaluation = mined.judge.models[0].engine.evaluate([quiz.tokens], [quiz.scored])[0]
    l_hat = compute_l_hat(quiz.seed, evaluation.loss, block.header.trace_digest)
    for text in (
        f"hash 0x{compute_block_hash(block.header).hex()}",
        f"epoch key     0x{get_epoch_key(chain, get_rules(config, (), 0)).hex()}",
        f"quiz seed     0x{quiz.seed.hex()}",
        f"l_hat         0x{l_hat:064x}",
        f"loss          {evaluation.loss}\n              as claimed",
        "balance       15 POAI",
        *(question.text for question in quiz.questions),
        *(f"{nll / 65536:.3f}" for nll in evaluation.nlls),
        "No rule is broken: 18 hold, 5 were not applied.",
    ):
        assert text in out
    assert status == 0


def test_every_way_to_name_a_block(run: Run, mined: Mined, tmp_path: Path) -> None:
    digits, files = compute_block_hash(mined.chain[2]).hex(), tmp_path / "files"
    files.mkdir()
    (files / "binary").write_bytes(mined.data[1])
    (files / "hex").write_text("0x" + mined.data[1].hex("\n", 16) + "\n")
    with Database.open(mined.folder) as store:
        export_chain(store, tmp_path / "chain.poai")
    for reference in ("2", digits, "0x" + digits.upper(), digits[:16], files / "binary", files / "hex"):
        for flag, source in (("--data-dir", mined.folder), ("--chain-file", tmp_path / "chain.poai")):
            status, out, _ = run(reference, flag, source, "--json", "--no-replay")
            assert (status, json.loads(out)["hash"]) == (0, f"0x{digits}"), (reference, flag)


def test_json_says_the_same_as_the_pages(run: Run, mined: Mined) -> None:
    status, out, _ = run("2", "--data-dir", mined.folder, "--json")
    found, block = json.loads(out), decode(Block, mined.data[1])
    assert (status, found["verdict"], found["kind"]) == (0, None, "block")
    assert "".join(field["hex"] for field in found["fields"]) == mined.data[1].hex()
    quiz = get_quiz(
        block.header.core, mined.chain[:2], get_rules(mined.judge.config, (), 0), mined.judge.models[0].questions
    )
    assert found["quiz"]["tokens"] == list(quiz.tokens)
    assert [row["prompt"] + row["answer"] for row in found["quiz"]["questions"]] == [q.text for q in quiz.questions]
    assert sum(row["nll"] for row in found["quiz"]["scored"]) == block.header.loss
    rows = found["replay"]["rows"]
    assert [row["computed"] for row in rows] == [
        str(block.header.loss),
        f"0x{block.header.trace_digest.hex()}",
        *(f"0x{entry.hex()}" for entry in block.trace),
    ]
    assert all(row["claimed"] == row["computed"] for row in rows)


def test_a_header_alone(run: Run, mined: Mined, tmp_path: Path) -> None:
    """It is checked as far as a node checks one; what the model gives is shown beside its claims."""
    (tmp_path / "header").write_bytes(mined.data[1][:216])
    status, out, _ = run(tmp_path / "header", "--data-dir", mined.folder)
    assert (status, "header of 216 bytes" in out, "15 not applied body/root" in out) == (0, True, True)
    assert "No rule is broken: 11 hold, 12 were not applied." in out
    assert (out.count("as claimed"), "is claimed" in out) == (2, False)
    false = change(mined.data[1][:216], 176, 1)
    (tmp_path / "header").write_bytes(false)
    assert f"{decode(Header, false).loss} is claimed" in run(tmp_path / "header", "--data-dir", mined.folder)[1]


def test_a_block_whose_parent_is_not_known(run: Run, mined: Mined, tmp_path: Path) -> None:
    (tmp_path / "block").write_bytes(mined.data[1])
    status, out, _ = run(tmp_path / "block")
    assert status == 1
    assert "Put off by rule 6, fork-choice/unknown-parent" in out
    assert "Say with --data-dir, --chain-file or --network where it stands" in out
    assert "holds       work/trace-digest" in out  # what needs no chain is checked all the same


@pytest.mark.parametrize("network", ["minimal", "testnet", "local"])
def test_genesis(run: Run, network: str, tmp_path: Path) -> None:
    status, out, _ = run("genesis", "--network", network, "--json")
    found = json.loads(out)
    assert (status, found["kind"], found["checks"], found["verdict"]) == (0, "genesis block", [], None)
    (tmp_path / "genesis").write_bytes(bytes.fromhex("".join(field["hex"] for field in found["fields"])))
    again = json.loads(run(tmp_path / "genesis", "--json")[1])  # its network is found by its hash
    assert again["network"] == found["network"]
    assert "every node makes it, none sends it" in run("genesis", "--network", network)[1]


def test_a_header_of_genesis_with_another_trace(run: Run, mined: Mined, tmp_path: Path) -> None:
    genesis = make_genesis(mined.judge.config)
    (tmp_path / "block").write_bytes(encode(replace(genesis, trace=(bytes(32),))))
    status, out, _ = run(tmp_path / "block", "--data-dir", mined.folder)
    assert (status, "Put off by rule 6, fork-choice/unknown-parent" in out) == (1, True)


def test_a_false_trace_entry_is_shown_beside_the_true_one(run: Run) -> None:
    status, out, _ = run("--vector", "block/check_block/trace")
    assert (status, "0x" + "00" * 32 + " is claimed" in out) == (1, True)
    assert "Refused for ever by rule 22, work/trace: a trace entry is not what the model gives." in out


def test_a_question_that_is_cut_off(run: Run) -> None:
    for height, cut in ((1, [False, False, True]), (11, [False, False])):
        found = json.loads(run(height, "--vector", "chain/verify_chain/minimal", "--no-replay", "--json")[1])
        assert [row["cut"] for row in found["quiz"]["questions"]] == cut


def test_a_model_that_is_not_at_hand(run: Run, mined: Mined, tmp_path: Path) -> None:
    with Database.create_or_open(tmp_path / "gone", make_quick_network(), str(tmp_path / "gone.gguf")):
        pass
    (tmp_path / "block").write_bytes(mined.data[0])
    arguments = (tmp_path / "block", "--data-dir", tmp_path / "gone")
    status, out, _ = run(*arguments)
    assert (status, "not run: the model is not at hand: no model" in out) == (0, True)
    assert "holds       work/l-hat" in out
    assert "No rule is broken: 15 hold, 8 were not applied." in out
    assert "17 hold" in run(*arguments, "--model", "mini")[1]
    status, out, err = run(*arguments, "--model", "none.gguf")
    assert (status, out, err.count("\n")) == (1, "", 1)


def test_a_terminal_does_not_obey_what_a_file_says(mined: Mined, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and questions of a chain file are its maker's."""
    case = read_case("block/check_block/ninth", None)
    subject = ExplainedBlock(*decode_found(case.found), case.place, case.now)
    explanation = explain(subject, case.found.data, "\x1b]0;origin\x07", None)
    assert explanation.network is not None
    report.print_explanation(replace(explanation, network=explanation.network | {"name": "\x1b[2Jnet"}))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\\x1b[2Jnet" in out


def test_the_dump_is_all_bytes(run: Run, mined: Mined) -> None:
    status, out, _ = run("2", "--data-dir", mined.folder, "--hex")
    lines = out.splitlines()
    assert (status, bytes.fromhex("".join(line[6:53] for line in lines))) == (0, mined.data[1])
    starts = [int(line[:4], 16) for line in lines]
    sizes = [len(bytes.fromhex(line[6:53])) for line in lines]
    assert starts[1:] == [at + size for at, size in zip(starts[:-1], sizes[:-1], strict=True)]
    assert "target               one quiz in 32 wins" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: a header has 216 bytes"),
        (b"no block at all\n", "encoding/undecodable: 16 bytes are no Block"),
        (bytes(range(256)), "encoding/undecodable: 256 bytes are no Block"),
        (b"00" * 217, "encoding/undecodable: 217 bytes are no Block"),
        (bytes(40_000), "has over 33,808 bytes: no block is so large"),
        (b"PoAI chain 2\n" + bytes(300), "is a chain file: give a height or hash, and --chain-file "),
    ],
)
def test_files_that_hold_no_block(run: Run, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    status, out, err = run(tmp_path / "file")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert message in err


@pytest.mark.parametrize(
    ("status", "arguments", "message"),
    [
        (1, ["nowhere.ssz"], "no block 'nowhere.ssz' (No such file or directory): give a height, a hash, genesis, or"),
        (1, ["5"], "no block 5: of network local only genesis is at hand here; give --data-dir or --chain-file"),
        (1, ["0xabcdef"], "network local: no block has a hash that begins with 0xabcdef"),
        (1, ["--data-dir", "nowhere"], "nowhere holds no chain"),
        (1, ["--chain-file", "nowhere"], "nowhere cannot be read: No such file or directory"),
        (1, ["genesis", "--network", "mainnet"], "parameters/model-unpinned"),
        (2, ["--data-dir", "a", "--network", "minimal"], "--data-dir and --network both say where the block stands"),
        (2, ["--hex", "--json"], "give --hex or --json, not both"),
        (2, ["--vector", "drbg/below/n-ten"], "give block/check_block/ID, header/check_header_in_chain/ID or"),
        (2, ["--vector", "block/check_block/none"], "there is no such case; those of this function are ninth, "),
        (2, ["--vector", "chain/verify_chain/short", "5"], "has the blocks 0 to 4: there is no '5'"),
        (2, ["--vector", "chain/verify_chain/no-bytes"], "block 3: encoding/undecodable: 0 bytes are no Header"),
        (2, ["--vector", "block/check_block/ninth", "9"], "is one block: leave '9' out"),
    ],
)
def test_errors_are_one_line(run: Run, status: int, arguments: list[str], message: str) -> None:
    found, out, err = run(*arguments)
    assert (found, out, err.count("\n")) == (status, "", 1)
    assert message in err


def test_a_folder_and_heights_that_are_not_there(run: Run, mined: Mined) -> None:
    assert f"is a folder: give a height or hash, and --data-dir {mined.folder}" in run(mined.folder)[2]
    assert "no block 4: " in run("4", "--data-dir", mined.folder)[2]
    assert "ends at height 3" in run("9" * 20, "--data-dir", mined.folder)[2]
