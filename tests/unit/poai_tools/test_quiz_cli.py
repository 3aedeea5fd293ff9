"""`poai quiz`: the quiz of a seed, run for real, as a person reads it."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from poai_engine.engines.exact import ExactEngine
from poai_engine.models.gguf_file import read_gguf, read_vocabulary
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.loss import compute_l_hat, compute_trace_digest
from poai_spec.proof.quiz import generate_quiz, get_quiz_text
from poai_tools import cli, quiz_cli
from poaid.errors import NodeError
from poaid.network_file import get_network
from tests.harness.corpus import write_corpus

Run = Callable[..., tuple[int, str, str]]
SEED = (1).to_bytes(32, "big")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mini_path: Path) -> Run:
    """Run `poai` with poai-mini in the model folder: exit status, standard output, standard error."""
    monkeypatch.setenv("POAI_MODEL_DIR", str(mini_path.parent))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poai", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


def test_what_it_prints_is_the_quiz_of_the_seed(run: Run, mini_path: Path) -> None:
    status, out, err = run("quiz", "--network", "minimal", "--model", "mini", "--seed", "1")
    assert (status, "error" in err) == (0, False)  # a first start says what takes long
    network = get_network("minimal")
    quiz = generate_quiz(SEED, get_rules(network.config, (), 0), network.questions)
    evaluation = ExactEngine(read_gguf(mini_path), 1).evaluate([quiz.tokens], [quiz.scored])[0]
    digest = compute_trace_digest(evaluation.trace)
    l_hat = compute_l_hat(SEED, evaluation.loss, digest)
    texts = read_vocabulary(mini_path).tokens
    lines = out.splitlines()
    assert lines[0] == f"quiz {'-'.join(f'{token:04x}' for token in quiz.salt)}   seed 0x{SEED.hex()}"
    shown = [line.removeprefix("  ") for line in lines[1 : 1 + len(quiz.questions)]]
    assert "\n".join(shown) + "\n" == get_quiz_text(quiz)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[:4] for row in rows] == [
        [str(at), str(quiz.tokens[at]), repr(texts[quiz.tokens[at]].decode()), f"{nll / 65536:.3f}"]
        for at, nll in zip(quiz.scored, evaluation.nlls, strict=True)
    ]
    facts = dict(re.split(r"\s+", line, maxsplit=1) for line in lines if re.match(r"tokens|loss|l_hat", line))
    assert facts["tokens"] == " ".join(map(str, quiz.tokens))
    assert facts["loss"].startswith(f"{evaluation.loss} (")
    assert facts["l_hat"] == f"0x{l_hat:064x}"
    assert f"trace digest   0x{digest.hex()}" in lines
    verdict = "wins" if l_hat < network.config.initial_target else "does not win"
    assert lines[-1] == f"initial target 0x{network.config.initial_target:064x}: {verdict}"


@pytest.mark.llama
def test_the_lines_of_a_corpus(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POAI_MODEL_DIR", str(tmp_path / "models"))  # corpora are kept there
    folder = write_corpus(tmp_path / "text")
    texts = "".join(file.read_text("utf-8") for file in folder.iterdir())
    asked = {line.replace("\t", " ") for line in texts.splitlines()}
    status, out, _ = run("quiz", "--network", "minimal", "--seed", "1", "--test-corpus", folder)
    lines = out.splitlines()
    shown = [line.removeprefix("  ") for line in lines[1 : lines.index("")]]
    assert (status, set(shown) - asked) == (0, set())
    assert len(shown) > 1


def test_without_torch_or_a_gpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, err = run("quiz", "--network", "minimal", "--gpu-layers", 1)
    assert (status, "leave --gpu-layers out" in err) == (1, True)


def test_it_prints_the_same_twice(run: Run) -> None:
    once = run("quiz", "--network", "minimal", "--seed", "0xabc")
    assert once[0] == 0
    assert run("quiz", "--network", "minimal", "--seed", "ABC", "--threads", "1")[:2] == once[:2]
    assert run("quiz", "--network", "minimal", "--seed", "abd")[1] != once[1]


def test_without_a_seed_each_quiz_is_another(run: Run) -> None:
    quizzes = [run("quiz", "--network", "minimal")[1] for _ in range(3)]
    assert len(set(quizzes)) == 3


@pytest.mark.parametrize("seed", ["", "x", "-1", "1" * 65, "0x"])
def test_a_seed_that_is_none(run: Run, seed: str) -> None:
    status, out, err = run("quiz", "--network", "minimal", "--seed", seed)
    assert (status, out) == (2, "")
    assert err == f"error: --seed {seed!r}: give up to 64 hexadecimal digits\n"
    with pytest.raises(NodeError):
        quiz_cli.parse_seed(seed)


def test_a_token_that_looks_like_mark_up(mini_path: Path) -> None:
    network = get_network("minimal", str(mini_path))
    quiz = generate_quiz(SEED, get_rules(network.config, (), 0), network.questions)
    evaluation = ExactEngine(read_gguf(mini_path), 1).evaluate([quiz.tokens], [quiz.scored])[0]
    console = Console(width=100)
    for text in ("[/INST]", "[bold]", "[", "\\", "\n"):
        table = quiz_cli.describe_tokens(quiz, evaluation, [text] * network.config.model.vocabulary_size)
        with console.capture() as output:
            console.print(table)
        assert output.get().count(repr(text)) == len(quiz.scored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "none.toml"], "error: no network 'none.toml' (No such file or directory): give a file or one"),
        (["--model", "none.gguf"], "error: no model 'none.gguf': give the path of a GGUF file"),
        (["--network", "mainnet"], "error: parameters/model-unpinned: "),
        (["--network", "testnet"], "error: "),
    ],
)
def test_errors_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    status, out, err = run("quiz", "--seed", "1", *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(message)


@pytest.mark.parametrize("arguments", [["--odd"], ["--threads", "0"], ["more"]])
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    status, out, _ = run("quiz", *arguments)
    assert (status, out) == (2, "")
