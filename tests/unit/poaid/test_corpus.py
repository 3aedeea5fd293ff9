"""Networks whose questions come from a text: from the folder to blocks, and again without llama.cpp."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from poai_engine.errors import ModelError
from poai_engine.models.lexicon_maker import LexiconError
from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import compute_network_id
from poai_spec.proof.corpus import Corpus
from poaid import models
from poaid.errors import NodeError
from poaid.network_file import Network, get_network, write_network
from poaid.store.database import Database
from tests.harness.corpus import write_corpus
from tests.harness.node import Run, run_sql

pytestmark = pytest.mark.llama


@pytest.fixture(autouse=True)
def _own_model_dir(mini_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let corpora be kept where no other test sees them."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(mini_path, folder)
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "text")


@pytest.fixture
def network(folder: Path) -> Network:
    return get_network("minimal", corpus=folder)


@pytest.fixture
def without_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setitem(sys.modules, "llama_cpp", None)


def test_it_is_another_network(network: Network, folder: Path) -> None:
    plain = get_network("minimal")
    assert compute_network_id(network.config) != compute_network_id(plain.config)
    assert network.config.model.corpus
    assert network.config.model.gguf_sha256 == plain.config.model.gguf_sha256
    assert isinstance(network.questions, Corpus)
    assert len(network.questions.items) == 1000
    text = (folder / "one.txt").read_text("utf-8")
    (folder / "one.txt").write_text(text.replace("\t1\n", "\t7\n", 1), "utf-8")
    assert compute_network_id(get_network("minimal", corpus=folder).config) != compute_network_id(network.config)


def test_the_tokenizer_is_needed_once(
    network: Network, folder: Path, tmp_path: Path, without_tokenizer: Callable[[], None]
) -> None:
    without_tokenizer()
    assert get_network("minimal", corpus=folder) == network
    (folder / "one.txt").rename(folder / "three.txt")  # the same lines
    assert get_network("minimal", corpus=folder) == network
    (kept,) = (tmp_path / "models" / "corpora").iterdir()
    kept.write_bytes(kept.read_bytes()[:-4])
    with pytest.raises(LexiconError, match=r"pip install 'poai\[llama\]'"):
        get_network("minimal", corpus=folder)


def test_a_damaged_kept_corpus_is_made_anew(network: Network, folder: Path, tmp_path: Path) -> None:
    (kept,) = (tmp_path / "models" / "corpora").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(good[::-1])
    assert get_network("minimal", corpus=folder) == network
    assert kept.read_bytes() == good


def test_a_line_that_is_too_long_for_the_quiz_is_named(network: Network, folder: Path, tmp_path: Path) -> None:
    """Also by a start that finds the corpus kept, made for longer quizzes."""
    long = get_network("testnet", model="mini", corpus=folder)
    assert isinstance(long.questions, Corpus)
    (folder / "z.txt").write_text(
        "one two three four five six seven eight nine ten " * 2 + "?\televen twelve\n", "utf-8"
    )
    for _ in range(2):
        get_network("testnet", model="mini", corpus=folder)
        with pytest.raises(ModelError, match=r"z\.txt:1: \d+ tokens, a quiz has room for 25"):
            get_network("minimal", corpus=folder)


def test_another_file_is_not_tokenised_with(network: Network, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes((tmp_path / "models" / "poai-mini.gguf").read_bytes() + b"\0")
    shutil.rmtree(tmp_path / "models" / "corpora")
    with pytest.raises(ModelError, match=r"other\.gguf is not this network's model"):
        models.load_corpus(folder, str(other), network.config)


def test_a_network_file_carries_its_corpus(
    network: Network, tmp_path: Path, without_tokenizer: Callable[[], None]
) -> None:
    file = tmp_path / "net.toml"
    write_network(network, file)
    without_tokenizer()
    found = get_network(str(file))
    assert (found.config, found.questions) == (network.config, network.questions)
    assert found.questions_name == "net.corpus.ssz"
    assert get_network(str(file), model="mini").config == network.config
    with pytest.raises(NodeError, match="tokenised for its own model: leave --model out, or give --test-corpus too"):
        _with_other_model(file)


def _with_other_model(file: Path) -> Network:
    with pytest.MonkeyPatch.context() as patch:
        other = models.get_pinned_model("smollm2-135m")
        patch.setattr("poaid.network_file.get_known_model", lambda name: other)
        return get_network(str(file), model="smollm2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('corpus = "net.corpus.ssz"\n', "", "needs lexicon ="),
        ('corpus = "net.corpus.ssz"', 'corpus = "net.corpus.ssz"\nlexicon = "mini"', "needs lexicon ="),
        ('"net.corpus.ssz"', "7", "needs lexicon ="),
        ('"net.corpus.ssz"', '"../net.corpus.ssz"', "is not the name of a file beside it"),
        ('"net.corpus.ssz"', '"absent.ssz"', "cannot be read: No such file"),
        ('"net.corpus.ssz"', '"net.toml"', r"net\.toml is no corpus: make it anew"),
    ],
)
def test_a_broken_network_file(network: Network, tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "net.toml"
    write_network(network, file)
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    with pytest.raises(NodeError, match=message):
        get_network(str(file))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('corpus = "net.corpus.ssz"', 'lexicon = "mini"', "corpus/kind"),
        ("corpus = true", "corpus = false", "corpus/kind"),
        ('questions_digest = "0x', 'questions_digest = "0x00', "corpus/digest"),
        ("quiz_tokens = 32", "quiz_tokens = 12", "quiz/question-too-long"),
    ],
)
def test_a_network_file_that_does_not_fit_its_corpus(
    network: Network, tmp_path: Path, old: str, new: str, code: str
) -> None:
    file = tmp_path / "net.toml"
    write_network(network, file)
    text = file.read_text()
    assert text.count(old) == 1
    start = text.index(old)
    rest = text[start + len(old) :]
    file.write_text(text[:start] + new + (rest[2:] if "digest" in old else rest))
    with pytest.raises(Invalid) as caught:
        get_network(str(file))
    assert caught.value.code == code


def test_mine_and_verify(folder: Path, tmp_path: Path, run: Run, without_tokenizer: Callable[[], None]) -> None:
    """Verifying needs neither the folder nor llama.cpp; a changed corpus in the store is seen."""
    data = tmp_path / "data"
    options = ("--network", "minimal", "--target", "1000", "--threads", 1, "--data-dir", data)
    assert run("mine", *options, "--test-corpus", folder, "--blocks", 2)[0] == 0
    status, _, err = run("mine", *options, "--blocks", 1)
    assert status == 1
    assert "--test-corpus" in err
    shutil.rmtree(folder)
    without_tokenizer()
    status, out, _ = run("verify", "--data-dir", data, "--threads", 1)
    assert (status, out.startswith("2 blocks of network")) == (0, True)
    with Database.open(data) as store:
        corpus = store.read_network().questions
    assert isinstance(corpus, Corpus)
    changed = encode(Corpus(corpus.line_end, corpus.items[1:] + corpus.items[:1]))
    run_sql(data, "UPDATE meta SET value = ? WHERE key = 'corpus'", changed)
    status, _, err = run("verify", "--data-dir", data)
    assert status == 1
    assert "the stored network is damaged: corpus/order" in err


def test_bad_lines_leave_nothing_behind(folder: Path, tmp_path: Path, run: Run) -> None:
    (folder / "bad.txt").write_bytes(b"no tab\n\xff\tx\n")
    options = ("--network", "minimal", "--data-dir", tmp_path / "data", "--blocks", 1, "--test-corpus", folder)
    status, _, err = run("mine", *options)
    lines = "bad.txt:1: no tab between question and answer; bad.txt:2: not UTF-8"
    assert (status, err) == (1, f"error: 2 bad lines, mend or remove them: {lines}\n")
    assert not (tmp_path / "data").exists()
