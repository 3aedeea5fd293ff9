"""The same bits whatever multiplies: threads, OpenBLAS kernels, batches. On SmolLM2, every logit of a quiz.

Each kernel runs in a process of its own, as OpenBLAS chooses it once, at start, from OPENBLAS_CORETYPE. One that it
lacks is replaced in silence, so the process reports which one it got. NumPy's wheels for x86 hold five sets of kernels;
the oldest, Prescott, goes by its other name Katmai, and Haswell's serve for Zen.
"""

import json
import os
import platform
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from poai_engine.exact import ExactEngine
from poai_engine.gguf_file import read_gguf
from poai_spec.lexicon import read_lexicon
from poai_spec.notation import keccak256
from poai_spec.parameters import get_preset
from poai_spec.quiz import Quiz, generate_quiz

KERNELS = {  # asked for: names under which it is reported, and the extensions it needs (one of them is listed)
    "Prescott": ({"Prescott", "Katmai"}, set[str]()),
    "Nehalem": ({"Nehalem"}, {"SSE42", "X86_V2"}),
    "Sandybridge": ({"Sandybridge"}, {"AVX", "X86_V3"}),
    "Haswell": ({"Haswell"}, {"AVX2", "X86_V3"}),
    "Zen": ({"Zen", "Haswell"}, {"AVX2", "X86_V3"}),
    "SkylakeX": ({"SkylakeX"}, {"AVX512_SKX", "X86_V4"}),
}
TOKENS = "13f3e177a11766233c38010ddcedf3914450d2818c3df52f596edb3d6bd15351"
DIGEST = "af3e39da57be9a81b68cd6f0477541f155bb5f6d5eb9f9e83e9ed0aef8ca003f"
TRACE = "d967779d3ab6c375a9adcad3d0b7ce104a42d70c7a19c7b7b00a92bd5048b6cc"
BATCH = 16

pytestmark = [pytest.mark.model, pytest.mark.slow]


def make_quiz(number: int) -> Quiz:
    return generate_quiz(keccak256(b"kernels" + bytes([number])), get_preset("testnet"), read_lexicon("smollm2-135m"))


def test_the_quiz_is_the_pinned_one() -> None:
    """Where this fails the pages of the quiz have changed: pin all three digests anew."""
    assert sha256(repr(make_quiz(0).tokens).encode()).hexdigest() == TOKENS


def digest_logits(engine: ExactEngine) -> str:
    """Hash the logits after every position of quiz 0, int64, little-endian."""
    tokens = make_quiz(0).tokens
    return sha256(engine.logits(tokens, range(len(tokens))).astype("<i8").tobytes()).hexdigest()


def get_kernels() -> set[str]:
    """Return the kernels in use by the OpenBLAS libraries that are loaded."""
    return {module["architecture"] for module in threadpool_info() if module["internal_api"] == "openblas"}


def get_extensions() -> set[str]:
    """Return the instruction sets that NumPy was built for or has found on this processor."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    return {*extensions["baseline"], *extensions["found"]}


def digest_trace(engine: ExactEngine, batch: int) -> str:
    """Hash what the engine says about quiz 0 as the last of a batch of quizzes."""
    quizzes = [make_quiz(number) for number in reversed(range(batch))]
    last = engine.evaluate([quiz.tokens for quiz in quizzes], [quiz.scored for quiz in quizzes])[-1]
    return sha256(b"".join(last.trace) + repr(last.nlls).encode()).hexdigest()


def main() -> None:
    """What the processes run: one line of JSON."""
    engine = ExactEngine(read_gguf(Path(sys.argv[1])), threads=1)
    print(json.dumps({"kernels": sorted(get_kernels()), "logits": digest_logits(engine)}))


@pytest.fixture(scope="module")
def engine(smollm2_path: Path) -> ExactEngine:
    return ExactEngine(read_gguf(smollm2_path), threads=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(engine: ExactEngine, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "threads", threads)
    assert digest_logits(engine) == DIGEST


def test_alone_and_in_a_batch(engine: ExactEngine) -> None:
    assert digest_trace(engine, 1) == TRACE
    assert digest_trace(engine, BATCH) == TRACE


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are x86 kernels")
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(kernel: str, smollm2_path: Path) -> None:
    names, needed = KERNELS[kernel]
    if needed and not needed & get_extensions():
        pytest.skip(f"this processor has none of {', '.join(sorted(needed))}")
    environment = os.environ | {"OPENBLAS_CORETYPE": kernel}
    command = [sys.executable, "-m", "tests.engine.test_kernels", str(smollm2_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["kernels"]) == 1
    assert set(result["kernels"]) <= names
    assert result["logits"] == DIGEST


if __name__ == "__main__":
    main()
