"""The llama.cpp engine: equal to its page on the logits that llama.cpp gives, and unable to run under other terms."""

import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poai_engine.engines import llama as llama_engine
from poai_engine.engines.exact import ExactEngine
from poai_engine.engines.llama import LlamaEngine, LlamaSettings, get_fingerprint, round_logits, score_rows
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import read_gguf
from poai_spec.basics.notation import Invalid, keccak256
from poai_spec.basics.parameters import get_model_manifest, make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.engine import Evaluation
from poai_spec.model.llama_profile import LLAMA_TRACE_ENTRIES, LLAMA_VERSION, round_logit, score_logits
from poai_spec.proof.lexicon import read_lexicon
from poai_spec.proof.quiz import Quiz, generate_quiz
from poai_spec.proof.work import check_engine, get_trace_length

MANIFEST = get_model_manifest("mini")
CONFIG = replace(make_config("minimal", MANIFEST), profile=b"llama.cpp")
LEXICON = read_lexicon("mini")

EDGES = [
    0,
    1,
    0x7F800000,
    0x7F7FFFFF,
    0x46FFFFFF,
    0x47000000,
    0x37000000,
    0x36FFFFFF,
    0x37000001,
    0x37C00000,
    0x3F000000,
]
any_float = st.one_of(
    st.sampled_from([bits | sign for bits in EDGES for sign in (0, 0x80000000)]),
    st.integers(0, 2**32 - 1).filter(lambda bits: bits & 0x7FFFFFFF <= 0x7F800000),
    st.integers(-(2**24), 2**24).map(lambda n: int(np.float32(n / 2**17).view(np.uint32))),  # halves are frequent
)


def make_quiz(number: int) -> Quiz:
    return generate_quiz(keccak256(bytes([number])), get_rules(CONFIG, (), 0), LEXICON)


@settings(deadline=None)  # the first call compiles
@given(st.lists(any_float, min_size=1, max_size=50))
def test_rounding_is_the_pages(bits: list[int]) -> None:
    logits = np.asarray(bits, np.uint32).view(np.float32)
    assert round_logits(logits).tolist() == [round_logit(word) for word in bits]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(any_float, min_size=9, max_size=9), min_size=1, max_size=4), st.integers(0, 8))
def test_scoring_is_the_pages(rows: list[list[int]], target: int) -> None:
    data = [struct.pack("<9I", *row) for row in rows]
    logits = np.asarray(rows, np.uint32).view(np.float32)
    assert score_rows(logits, [target] * len(rows)) == score_logits(data, [target] * len(rows))


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0xFF800001, 0xFFFFFFFF])
def test_what_is_no_number_is_refused(bits: int) -> None:
    logits = np.asarray([0, bits], np.uint32).view(np.float32)
    with pytest.raises(Invalid) as caught:
        round_logits(logits)
    assert caught.value.code == "llama-profile/nan"


@pytest.fixture(scope="module")
def engine(mini_path: Path) -> LlamaEngine:
    return LlamaEngine(mini_path, MANIFEST)


@pytest.mark.llama
def test_it_is_the_networks(engine: LlamaEngine) -> None:
    check_engine(engine, get_rules(CONFIG, (), 0))
    assert engine.vocabulary_size == MANIFEST.vocabulary_size
    with pytest.raises(Invalid, match="work/engine"):
        check_engine(engine, get_rules(replace(CONFIG, profile=b"w8a8"), (), 0))


@pytest.mark.llama
def test_an_evaluation_is_the_pages_reading_of_the_logits(engine: LlamaEngine) -> None:
    quiz = make_quiz(1)
    (logits,) = engine.compute_logits([quiz.tokens], [[t - 1 for t in quiz.scored]])
    wanted = score_logits([row.tobytes() for row in logits], [quiz.tokens[t] for t in quiz.scored])
    assert engine.evaluate([quiz.tokens], [quiz.scored]) == [wanted]
    assert len(wanted.trace) == LLAMA_TRACE_ENTRIES == get_trace_length(get_rules(CONFIG, (), 0))
    assert list(engine.steps(quiz.tokens, quiz.scored)) == [*wanted.trace, wanted]


@pytest.mark.llama
def test_nothing_of_an_earlier_sequence_remains(engine: LlamaEngine, mini_path: Path) -> None:
    """Shorter, longer and other sequences between change nothing; nor does a new engine."""
    quizzes = [make_quiz(n) for n in range(4)]
    apart: list[Evaluation] = []
    for quiz in quizzes:
        fresh = LlamaEngine(mini_path, MANIFEST)
        apart += fresh.evaluate([quiz.tokens], [quiz.scored])
        fresh.close()
    assert len({evaluation.trace for evaluation in apart}) == len(quizzes)
    assert engine.evaluate([quiz.tokens for quiz in quizzes], [quiz.scored for quiz in quizzes]) == apart
    engine.evaluate([[1, 2, 3]], [[2]])
    assert engine.evaluate([quizzes[0].tokens], [quizzes[0].scored]) == apart[:1]


@pytest.mark.llama
def test_every_token_before_a_scored_one_matters(engine: LlamaEngine) -> None:
    quiz = make_quiz(1)
    (wanted,) = engine.evaluate([quiz.tokens], [quiz.scored])
    for at in range(quiz.scored[-1] + 1):
        tokens = [*quiz.tokens]
        tokens[at] = 700 if tokens[at] != 700 else 701
        (found,) = engine.evaluate([tokens], [quiz.scored])
        assert found.loss != wanted.loss or found.trace != wanted.trace, at


@pytest.mark.slow
@pytest.mark.llama
@pytest.mark.model
def test_it_reads_the_same_model_as_the_integers(smollm2_path: Path) -> None:
    """Losses of a quiz of SmolLM2, in bits a token: about those of the exact engine, and far from a uniform guess."""
    manifest = get_model_manifest("smollm2-135m")
    quiz = generate_quiz(
        keccak256(b"same"), get_rules(make_config("testnet", manifest), (), 0), read_lexicon("smollm2-135m")
    )
    floats = LlamaEngine(smollm2_path, manifest).evaluate([quiz.tokens], [quiz.scored])[0]
    integers = ExactEngine(read_gguf(smollm2_path), 1).evaluate([quiz.tokens], [quiz.scored])[0]
    differences = [abs(a - b) / 65536 for a, b in zip(floats.nlls, integers.nlls, strict=True)]
    assert sum(differences) / len(differences) < 0.5
    assert floats.loss / 65536 / len(quiz.scored) < 10  # log2 of the vocabulary is 15.6


@pytest.mark.llama
def test_a_gpu_is_not_invented(mini_path: Path) -> None:
    if llama_engine.load_library().llama_supports_gpu_offload():
        pytest.skip("this build of llama.cpp has a GPU")
    with pytest.raises(ModelError, match=r"this build of llama\.cpp has no GPU: leave --gpu-layers out"):
        LlamaEngine(mini_path, MANIFEST, LlamaSettings(gpu_layers=1))


@pytest.mark.llama
def test_another_file_is_refused_before_llama_cpp_sees_it(tmp_path: Path, mini_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(mini_path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"other\.gguf is not this network's model"):
        LlamaEngine(other, MANIFEST)


@pytest.mark.llama
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_engine, "version", lambda name: "0.3.35")
    with pytest.raises(ModelError, match=f"this is 0.3.35, .* pip install llama-cpp-python=={LLAMA_VERSION}"):
        llama_engine.load_library()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, mini_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(ModelError, match=r"not installed: pip install 'poai\[llama\]'"):
        LlamaEngine(mini_path, MANIFEST)


@pytest.mark.llama
def test_the_fingerprint_names_what_the_bits_depend_on() -> None:
    plain, flash = get_fingerprint(LlamaSettings()), get_fingerprint(LlamaSettings(flash_attention=True))
    assert plain["library"] == f"llama-cpp-python {LLAMA_VERSION}"
    assert all(plain.values())
    assert {key for key in plain if plain[key] != flash[key]} == {"settings"}
