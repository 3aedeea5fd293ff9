"""The same bits whatever multiplies: threads, batches, LLVM's targets, OpenBLAS kernels. On SmolLM2's logits of a quiz.

Each target and each BLAS kernel runs in a process of its own, as both are chosen once, at start. A target's process has
an empty cache of compiled code: what it runs it has compiled itself, and its instructions can be read. An OpenBLAS
kernel that is lacking is replaced in silence, so the process reports which one it got; the oldest, Prescott, goes by
its other name Katmai. `poai bench determinism` goes through more of both.
"""

import json
import os
import platform
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poai_bench.determinism import TARGETS, can_run
from poai_bench.determinism_worker import get_blas, get_target
from poai_engine.engines.array import ArrayEngine
from poai_engine.engines.exact import ExactEngine
from poai_engine.kernels import steps as kernels
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.weight_cache import open_packed_model
from poai_spec.basics.notation import keccak256
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.lexicon import read_lexicon
from poai_spec.proof.quiz import Quiz, generate_quiz

BLAS = {  # asked for: names under which it is reported, and the extensions it needs (one of them is listed)
    "Prescott": ({"Prescott", "Katmai"}, set[str]()),
    "SkylakeX": ({"SkylakeX"}, {"AVX512_SKX", "X86_V4"}),
}
REGISTERS = {
    "x86-64": {"xmm"},
    "x86-64-v3": {"xmm", "ymm"},
    "x86-64-v3+avxvnni": {"xmm", "ymm"},
    "x86-64-v4": {"xmm", "ymm", "zmm"},
    "x86-64-v4+avx512vnni": {"xmm", "ymm", "zmm"},
}
TOKENS = "13f3e177a11766233c38010ddcedf3914450d2818c3df52f596edb3d6bd15351"
DIGEST = "6fdf3be66cdf341351c172e11f29847ca4db848fa63907063113b51f03629582"
PREFIX_DIGEST = "e6c677fd936ff1b301be90b5a47cf2739b94ec461f371384a56aea709df90a95"
TRACE = "c46e6d1d4fe58a942d153f9bf63aa69777f2ba2385ad73b4561ee6bed1124b96"
BATCH, PREFIX = 16, 8

pytestmark = [pytest.mark.sockets, pytest.mark.model]


def make_quiz(number: int) -> Quiz:
    return generate_quiz(
        keccak256(b"kernels" + bytes([number])), get_rules(get_preset("testnet"), (), 0), read_lexicon("smollm2-135m")
    )


def test_the_quiz_is_the_pinned_one() -> None:
    """Where this fails the pages of the quiz have changed: pin all digests anew."""
    assert sha256(repr(make_quiz(0).tokens).encode()).hexdigest() == TOKENS


def digest_logits(engine: ExactEngine | ArrayEngine, count: int | None = None) -> str:
    """Hash the logits after the first positions of quiz 0, int64, little-endian."""
    tokens = make_quiz(0).tokens[:count]
    return sha256(engine.logits(tokens, range(len(tokens))).astype("<i8").tobytes()).hexdigest()


def get_extensions() -> set[str]:
    """Return the instruction sets that NumPy was built for or has found on this processor."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    return {*extensions["baseline"], *extensions["found"]}


def digest_trace(engine: ExactEngine, batch: int) -> str:
    """Hash what the engine says about quiz 0 as the last of a batch of quizzes."""
    quizzes = [make_quiz(number) for number in reversed(range(batch))]
    last = engine.evaluate([quiz.tokens for quiz in quizzes], [quiz.scored for quiz in quizzes])[-1]
    return sha256(b"".join(last.trace) + repr(last.nlls).encode()).hexdigest()


def find_instructions() -> dict[str, list[str]]:
    """Return the vector registers and the VEX-coded instructions in everything that this process has compiled."""
    functions = [function for function in vars(kernels).values() if hasattr(function, "inspect_asm")]
    code = "\n".join(text for function in functions for text in function.inspect_asm().values())
    registers, vex = (
        re.findall(r"%([xyz]mm)\d", code),
        re.findall(r"^\s+(?:\{vex\}\s+)?(v\w+)\s.*%", code, re.MULTILINE),
    )
    return {"registers": sorted(set(registers)), "vex": sorted(set(vex))}


def main() -> None:
    """What the processes run: one line of JSON."""
    kind, path = sys.argv[1], Path(sys.argv[2])
    if kind == "array":
        array = ArrayEngine(read_gguf(path), 1)
        print(json.dumps({"kernel": get_blas(), "logits": digest_logits(array, PREFIX)}))
        return
    engine = ExactEngine(open_packed_model(path), 1)
    digests = {"logits": digest_logits(engine), "trace": digest_trace(engine, BATCH)}
    print(json.dumps(digests | {"target": get_target()} | find_instructions()))


def run_process(kind: str, path: Path, **environment: str) -> dict[str, Any]:
    """Run `main` elsewhere."""
    command = [sys.executable, "-m", "tests.unit.poai_engine.test_kernels", kind, str(path)]
    root = Path(__file__).parents[3]
    variables = os.environ | environment
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def engines(smollm2_path: Path) -> dict[int, ExactEngine]:
    """Engines by threads; their weights are kept for the other processes."""
    model = open_packed_model(smollm2_path)
    return {threads: ExactEngine(model, threads) for threads in (1, 2, 3)}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_alone_and_in_a_batch(engines: dict[int, ExactEngine], threads: int) -> None:
    engine = engines[threads]
    assert digest_logits(engine) == DIGEST
    assert digest_logits(engine, PREFIX) == PREFIX_DIGEST
    assert digest_trace(engine, 1) == TRACE
    assert digest_trace(engine, BATCH) == TRACE


@pytest.mark.slow
def test_fresh_weights(smollm2_path: Path) -> None:
    """Neither kept nor mapped."""
    assert digest_logits(ExactEngine(read_gguf(smollm2_path), 1)) == DIGEST


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are x86 targets")
@pytest.mark.parametrize("target", REGISTERS)
@pytest.mark.usefixtures("engines")
def test_targets(target: str, smollm2_path: Path, tmp_path: Path) -> None:
    """And generic code really is: no wider register, no instruction of a later processor."""
    features = TARGETS["x86_64"][target]
    if not can_run("x86_64", features):
        pytest.skip(f"this processor lacks some of {features}")
    processor = target.partition("+")[0]
    choice = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    result = run_process("exact", smollm2_path, **choice)
    assert result["target"].split()[:2] == [processor, "vpdpbusd" if "vnni" in target else "pairs"]
    assert set(result["registers"]) == REGISTERS[target]
    assert bool(result["vex"]) == (target != "x86-64")
    assert ("vpdpbusd" in result["vex"]) == ("vnni" in target)
    assert ("vpmaddwd" in result["vex"]) == ("vnni" not in target and target != "x86-64")
    assert not {name for name in result["vex"] if "pmaddubsw" in name}, "it saturates"
    assert (result["logits"], result["trace"]) == (DIGEST, TRACE)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are x86 kernels")
@pytest.mark.parametrize("kernel", BLAS)
def test_array_engine(kernel: str, smollm2_path: Path) -> None:
    names, needed = BLAS[kernel]
    if needed and not needed & get_extensions():
        pytest.skip(f"this processor has none of {', '.join(sorted(needed))}")
    result = run_process("array", smollm2_path, OPENBLAS_CORETYPE=kernel)
    assert result["kernel"] in names
    assert result["logits"] == PREFIX_DIGEST


if __name__ == "__main__":
    main()
