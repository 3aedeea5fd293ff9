"""`poai network`: files that two people can share, and the ids of networks."""

import errno
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from poai_spec.basics.parameters import compute_network_id
from poai_spec.proof.corpus import Corpus
from poai_tools import cli
from poaid.network_file import format_network, get_network, read_network
from tests.harness.corpus import write_corpus

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mini_path: Path, tmp_path: Path) -> Run:
    """Run `poai network` in an empty folder: exit status, standard output, standard error."""
    monkeypatch.setenv("POAI_MODEL_DIR", str(mini_path.parent))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poai", "network", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


@pytest.mark.parametrize("name", ["testnet", "minimal", "local"])
def test_show(run: Run, name: str) -> None:
    status, out, err = run("show", name)
    network = get_network(name)
    assert (status, err) == (0, "")
    assert out == format_network(network) + f"# network id {compute_network_id(network.config).hex()}\n"
    assert tomllib.loads(out)["epoch_blocks"] == network.config.epoch_blocks


def test_what_is_shown_is_a_network_file(run: Run) -> None:
    Path("copy.toml").write_text(run("show", "minimal")[1], "utf-8")
    assert read_network(Path("copy.toml")) == replace(get_network("minimal"), name="copy")
    assert run("show", "copy.toml")[1] == run("show", "minimal")[1]


def test_new_is_the_base(run: Run) -> None:
    status, out, err = run("new", "--from", "minimal")
    wanted = compute_network_id(get_network("minimal").config).hex()
    assert (status, out, err) == (0, f"network.toml: network {wanted}\n", "")
    assert read_network(Path("network.toml")).config == get_network("minimal").config


def test_new_with_changes(run: Run) -> None:
    flags = {
        "--epoch-blocks": 2, "--retarget-blocks": 3, "--spacing": 5_000, "--max-future": 1_234, "--quiz-tokens": 40,
        "--salt-tokens": 7, "--scored-tokens": 3, "--genesis-timestamp": 2**64 - 1, "--target": 500,
    }  # fmt: skip
    status, _, err = run(
        "new", "--from", "testnet", "--model", "mini", *[x for f in flags.items() for x in f], "a.toml"
    )
    assert (status, err) == (0, "")
    expected = replace(
        get_network("testnet", "mini").config, epoch_blocks=2, retarget_blocks=3, spacing=5_000, max_future=1_234,
        quiz_tokens=40, salt_tokens=7, scored_tokens=3, genesis_timestamp=2**64 - 1, initial_target=2**255,
    )  # fmt: skip
    assert read_network(Path("a.toml")).config == expected
    run("new", "--from", "a.toml", "--spacing", "6000", "b.toml")
    assert read_network(Path("b.toml")).config == replace(expected, spacing=6_000)


def test_the_other_profile(run: Run) -> None:
    status, out, err = run("new", "--from", "minimal", "--profile", "llama.cpp", "a.toml")
    config = replace(get_network("minimal").config, profile=b"llama.cpp")
    assert (status, out, err) == (0, f"a.toml: network {compute_network_id(config).hex()}\n", "")
    assert read_network(Path("a.toml")).config == config
    assert run("new", "--from", "a.toml", "--profile", "w8a8", "b.toml")[0] == 0
    assert read_network(Path("b.toml")).config == get_network("minimal").config
    assert run("new", "--profile", "w8a12", "c.toml")[0] == 2


@pytest.mark.llama
def test_a_test_corpus(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines have to fit the quizzes of the new network, not those of the one that it begins with."""
    monkeypatch.setenv("POAI_MODEL_DIR", str(tmp_path / "models"))  # corpora are kept there
    folder = write_corpus(tmp_path / "text")
    (folder / "long.txt").write_text("one two three four five six seven eight nine ten " * 2 + "?\televen\n", "utf-8")
    new = ("new", "--from", "minimal", "--test-corpus", folder)
    status, _, err = run(*new, "a.toml")
    assert (status, err.splitlines()[-1].startswith("error: 1 bad line, mend or remove it: long.txt:1: ")) == (1, True)
    assert not Path("a.toml").exists()
    status, out, _ = run(*new, "--quiz-tokens", 64, "a.toml")
    network = get_network("a.toml")
    assert (status, out) == (0, f"a.toml: network {compute_network_id(network.config).hex()}\n")
    assert isinstance(network.questions, Corpus)
    assert len(network.questions.items) == 1001
    assert run("new", "--from", "a.toml", "--spacing", 2_000, "b.toml")[0] == 0
    assert get_network("b.toml").questions == network.questions


def test_the_clock_limit_shrinks_with_the_period(run: Run) -> None:
    assert run("new", "--retarget-blocks", 2, "--spacing", 5_000, "short.toml")[0] == 0
    assert read_network(Path("short.toml")).config.max_future == 1_000
    assert run("new", "--retarget-blocks", 200, "long.toml")[0] == 0
    assert read_network(Path("long.toml")).config.max_future == 15_000
    status, _, err = run("new", "--retarget-blocks", 2, "--max-future", 15_000, "warp.toml")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("error: parameters/max-future: ")


@pytest.mark.parametrize("name", ["a.toml", "a.lexicon.json", "a.corpus.ssz"])
def test_a_file_that_is_there_is_kept(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", "utf-8")
    status, out, err = run("new", "a.toml")
    assert (status, out) == (1, "")
    assert err == f"error: {name} exists: give another name, or --force to overwrite it\n"
    assert (tmp_path / name).read_text("utf-8") == "mine"
    assert run("new", "a.toml", "--force")[0] == 0
    assert read_network(tmp_path / "a.toml").config == get_network("testnet").config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "none"], "error: no network 'none' (No such file or directory): give a file or one of mainnet"),
        (["show", "mainnet"], "error: parameters/model-unpinned: "),
        (["show", "x" * 300], "error: no network 'xxx"),
        (["new", "--from", "none"], "error: no network 'none'"),
        (["new", "--model", "none"], "error: no model 'none'"),
        (["new", "--target", "0"], "error: --target '0': parameters/target-flag: "),
        (["new", "--target", "0x0"], "error: parameters/target: "),
        (["new", "--target", "0x1" + "0" * 64], "error: --target '0x1000"),
        (["new", "--spacing", "1", "--retarget-blocks", "1"], "error: parameters/period: "),
        (["new", "--scored-tokens", "64"], "error: parameters/quiz-length: "),
        (["new", "--quiz-tokens", "20"], "error: quiz/question-too-long: "),
        (["new", "none/network.toml"], "error: none/network.toml cannot be written: No such file or directory"),
        (["new", "x" * 300], f"error: [Errno {errno.ENAMETOOLONG}] File name too long: 'xxx"),
    ],
)
def test_errors_are_one_line(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2 if message.startswith("error: --") else 1, "", 1)
    assert err.startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["show", "minimal", "more"],
        ["new", "--epoch-blocks", "0"],
        ["new", "--epoch-blocks", str(2**64)],
        ["new", "--spacing", str(2**64)],
        ["new", "--max-future", "-1"],
        ["new", "--quiz-tokens", "2049"],
        ["new", "--genesis-timestamp", "x"],
        ["new", "--odd"],
        ["odd"],
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [[], ["show"], ["new"]])
def test_help(run: Run, command: list[str]) -> None:
    status, out, err = run(*command, "--help")
    assert (status, err) == (0, "")
    assert "Usage: poai network" in out


def test_an_upgrade_is_added_and_the_id_stays(run: Run) -> None:
    run("new", "net.toml", "--from", "minimal")
    before = compute_network_id(read_network(Path("net.toml")).config)
    status, out, err = run("upgrade", "net.toml", "--at", 6, "--model", "micro", "--quiz-tokens", 40)
    assert (status, err) == (0, "")
    assert f"network {before.hex()}, upgrade 1 at height 6\n" in out
    assert "1,145,920 multiplications from there on, 0.1843 times as many" in out
    assert run("upgrade", "net.toml", "--at", 10, "--spacing", 800, "--max-future", 300)[0] == 0
    network = read_network(Path("net.toml"))
    assert compute_network_id(network.config) == before
    assert [(rules.since, rules.quiz_tokens, rules.spacing) for rules in network.list_rules()] == [
        (0, 32, 1_000),
        (6, 40, 1_000),
        (10, 40, 800),
    ]
    assert read_network(Path("net.toml")) == replace(network, name="net")
    assert format_network(network) == Path("net.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--at", 5, "--quiz-tokens", 33), "upgrades/order"),
        (("--at", 11, "--spacing", 500), "upgrades/period-border"),
        (("--at", 10, "--spacing", 1_000), "upgrades/no-change"),
        (("--at", 10), "upgrades/no-change"),
        (("--at", 10, "--quiz-tokens", 9), "parameters/quiz-length"),
    ],
)
def test_an_upgrade_that_is_none_leaves_the_file(run: Run, flags: tuple[object, ...], code: str) -> None:
    run("new", "net.toml", "--from", "minimal")
    run("upgrade", "net.toml", "--at", 6, "--quiz-tokens", 40)
    before = Path("net.toml").read_bytes()
    status, _, err = run("upgrade", "net.toml", *flags)
    assert status == 1
    assert code in err
    assert Path("net.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[upgrades]]\nquiz_tokens = 40\n", "upgrade 1: missing key 'height'"),
        ("[[upgrades]]\nheight = 6\nepoch_blocks = 40\n", "'epoch_blocks' is nothing that an upgrade can change"),
        ("[[upgrades]]\nheight = -1\n", "height = -1 is no valid value"),
        ("[[upgrades]]\nheight = 6\nlexicon = 'mini'\n", "a table [model]"),
        ("[[upgrades]]\nheight = 6\nspacing = true\n", "spacing = True is no valid value"),
    ],
)
def test_an_odd_upgrade_in_a_file_is_one_line(run: Run, text: str, message: str) -> None:
    run("new", "net.toml", "--from", "minimal")
    Path("net.toml").write_text(Path("net.toml").read_text("utf-8") + "\n" + text, "utf-8")
    status, _, err = run("show", "net.toml")
    assert (status, len(err.splitlines())) == (1, 1)
    assert message in err
