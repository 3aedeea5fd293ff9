"""The determinism matrix: one digest over processors, threads, batch sizes, engines and kept weights.

The exact engine is compiled for each level of the processor's instructions that LLVM knows (NUMBA_CPU_NAME and
NUMBA_CPU_FEATURES), the array engine runs over each kernel of OpenBLAS (OPENBLAS_CORETYPE), each in a process of its
own. A row shows what took effect: the processor that Numba handed to LLVM with the shape of its tiles, and the kernel
that threadpoolctl reports, so a name that this build or this processor does not have makes no row.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import llvmlite.binding
from rich import box
from rich.console import Console
from rich.table import Table

import poai_bench
import poai_engine
import poai_spec
from poai_bench.determinism_worker import compute_digest, run_batches
from poai_engine.engines.reference import ReferenceEngine
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import tagged_hash
from poai_spec.model.weights import GgufFile

_V3 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe"
_V4 = f"{_V3},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
TARGETS = {
    "x86_64": {  # the levels of the x86-64 psABI, and the two extensions that multiply bytes
        "x86-64": "+sse2",
        "x86-64-v2": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt",
        "x86-64-v3": _V3,
        "x86-64-v3+avxvnni": f"{_V3},+avxvnni",
        "x86-64-v4": _V4,
        "x86-64-v4+avx512vnni": f"{_V4},+avx512vnni",
    },
    "aarch64": {"generic": "+neon", "generic+dotprod": "+neon,+dotprod", "generic+i8mm": "+neon,+dotprod,+i8mm"},
}
"""LLVM's names of processors, up to a plus sign, and their features, oldest first; Numba takes the two together."""

KERNELS = {
    "x86_64": ("Prescott", "Core2", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake",
               "Sapphirerapids", "Barcelona", "Bulldozer", "Piledriver", "Steamroller", "Excavator"),
    "aarch64": ("ARMV8", "CORTEXA57", "NEOVERSEN1", "NEOVERSEV1", "NEOVERSEN2", "ARMV8SVE", "A64FX", "ARMV9SME"),
}  # fmt: skip
"""What OPENBLAS_CORETYPE may name, oldest first; builds have some of them."""

BATCHES = (1, 4, 16)
SEQUENCES = 16
LENGTH, QUICK_LENGTH = 24, 6
REFERENCE_LIMIT = 2_000_000
"""Weights of the largest model that the reference engine is asked to run: a token takes it a second for so many."""
EMULATOR = "qemu-aarch64-static"
CHOICES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "OPENBLAS_CORETYPE")
"""Variables by which a process is told what to run on."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One way to run the model.

    Attributes:
        engine: `exact`, `array` or `reference`.
        machine: the processor's architecture.
        kernel: what multiplied: LLVM's processor, the tile's instruction, lanes, rows and vectors; or the BLAS kernel.
        weights: `fresh` from the file, `made` and kept, or `mapped` from where they are kept.
        threads: threads that compute.
        batch: sequences at a time.
        digest: of the integer model, all losses and all traces.
        seconds: loading and running; compiling too, where this target was never run before.
    """

    engine: str
    machine: str
    kernel: str
    weights: str
    threads: int
    batch: int
    digest: str
    seconds: float


def make_request(path: Path, gguf: GgufFile, length: int) -> dict[str, Any]:
    """Return the work of all rows: sequences drawn by the DRBG, every third position scored."""
    drbg = Drbg(tagged_hash("PoAI/determinism-tokens/1", str(length).encode()))
    vocabulary = gguf.tensors["token_embd.weight"].shape[0]
    return {
        "model": str(path.absolute()),
        "tokens": [[drbg.below(vocabulary) for _ in range(length)] for _ in range(SEQUENCES)],
        "scored": [list(range(1 + n % 2, length, 3)) for n in range(SEQUENCES)],
    }


def run_worker(
    command: Sequence[str], request: dict[str, Any], choice: dict[str, str] | None = None, path: Path | None = None
) -> list[Row]:
    """Run rows in a process of their own; an empty list if it ended by a signal for unknown instructions.

    Args:
        command: a Python and its options.
        request: with `engine`, `rows` and `cache`, the folder for kept weights.
        choice: of `CHOICES`, what the process shall run on; None leaves it to the libraries.
        path: for PYTHONPATH; None leaves it.

    Raises:
        ModelError: it failed otherwise.
    """
    environment = {key: value for key, value in os.environ.items() if key not in CHOICES}
    environment |= {CACHE_DIR_VARIABLE: request["cache"]} | (choice or {})
    environment |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [*command, "-m", "poai_bench.determinism_worker"],
        input=json.dumps(request), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    if done.returncode in (-signal.SIGILL, 128 + signal.SIGILL):
        return []
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelError(f"{request['engine']}, {' '.join((choice or {}).values()) or 'default'}: {last}")
    return [Row(**json.loads(line)) for line in done.stdout.splitlines()]


def can_run(machine: str, features: str) -> bool:
    """Tell whether this processor has the features; only x86 can lack some of `TARGETS`.

    Running and waiting for a signal would not do: an old processor takes `lzcnt` for another instruction.
    """
    host = llvmlite.binding.get_host_cpu_features()
    return machine != "x86_64" or all(host.get(feature.removeprefix("+")) for feature in features.split(","))


def run_targets(command: Sequence[str], request: dict[str, Any], targets: dict[str, str], say: Say,
                path: Path | None = None) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of the exact engine: on fresh weights and as Numba compiles it by itself, then for each target."""
    request, ways = request | {"engine": "exact"}, request["rows"]
    say("exact engine, compiled for this processor")
    yield from run_worker(command, request | {"rows": [[*ways[0][:2], True], *ways]}, path=path)
    for name, features in targets.items():
        say(f"exact engine, compiled for {name}")
        processor = name.partition("+")[0]
        rows = run_worker(command, request, {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}, path)
        if not rows:
            say(f"{name}: this processor cannot run it")
        yield from rows


def run_kernels(command: Sequence[str], request: dict[str, Any], kernels: Sequence[str], say: Say,
                path: Path | None = None) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of the array engine: on the default kernel, then on every other that is there and runs."""
    say("array engine, default kernel")
    request = request | {"engine": "array"}
    rows = run_worker(command, request, path=path)
    yield from rows
    seen = {row.kernel for row in rows}
    probe = request | {"tokens": request["tokens"][:1], "scored": request["scored"][:1], "rows": request["rows"][:1]}
    for kernel in kernels if rows and rows[0].kernel not in ("none", "mkl", "blis") else ():
        found = run_worker(command, probe, {"OPENBLAS_CORETYPE": kernel}, path)
        if not found:
            say(f"{kernel}: this processor cannot run it")
        elif found[0].kernel not in seen:
            seen.add(found[0].kernel)
            say(f"array engine, kernel {found[0].kernel}")
            yield from run_worker(command, request, {"OPENBLAS_CORETYPE": kernel}, path)


def run_reference(gguf: GgufFile, request: dict[str, Any]) -> Row:
    """Run the sequences by the specification."""
    start = perf_counter()
    engine = ReferenceEngine(gguf)
    digest = compute_digest(engine.integer_model_root, run_batches(engine, request, 1)).hex()
    return Row("reference", "any", "Python integers", "fresh", 1, 1, digest, perf_counter() - start)


def find_aarch64_python(root: Path) -> list[str]:
    """Return the command that runs an aarch64 Python under emulation; `tools/aarch64_root.sh` makes its folder.

    Raises:
        ModelError: no emulator, or no Python in the folder.
    """
    pythons = sorted((root / "usr" / "bin").glob("python3*[0-9]"))
    if shutil.which(EMULATOR) is None:
        raise ModelError(f"{EMULATOR} is missing: install Debian's package qemu-user-static")
    if not pythons:
        raise ModelError(f"{root} has no usr/bin/python3: make it with tools/aarch64_root.sh {root}")
    return [EMULATOR, "-L", str(root.absolute()), str(pythons[0].absolute())]


@contextmanager
def linked_packages() -> Iterator[Path]:
    """Make a folder with our packages and without those of this machine beside them."""
    with tempfile.TemporaryDirectory() as folder:
        for package in (poai_spec, poai_engine, poai_bench):
            source = Path(str(package.__file__)).parent
            (Path(folder) / source.name).symlink_to(source)
        yield Path(folder)


def run_elsewhere(command: Sequence[str], request: dict[str, Any], say: Say, *, quick: bool) -> Iterator[Row]:
    """Yield the rows of an aarch64 Python that has what the engines import, but not our packages."""
    kernels = KERNELS["aarch64"][:1] if quick else KERNELS["aarch64"]
    with linked_packages() as path:
        yield from run_targets(command, request, TARGETS["aarch64"], say, path)
        yield from run_kernels(command, request, kernels, say, path)


def run_here(request: dict[str, Any], say: Say, not_covered: list[str], *, quick: bool) -> Iterator[Row]:
    """Yield the rows of both engines on this machine, and note the targets that it cannot run."""
    machine, command = os.uname().machine, [sys.executable]
    named, kernels = TARGETS.get(machine, {}), KERNELS.get(machine, ())
    targets = {name: features for name, features in named.items() if can_run(machine, features)}
    not_covered += [f"{name}: this processor lacks some of {named[name]}" for name in named.keys() - targets.keys()]
    yield from run_targets(command, request, dict(list(targets.items())[:1]) if quick else targets, say)
    yield from run_kernels(command, request, kernels[:1] if quick else kernels, say)


def run(
    path: Path, threads: int, *, quick: bool = False, aarch64_root: Path | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Run the matrix.

    Args:
        path: a GGUF file.
        threads: 1 to this number of threads.
        quick: short sequences, the ends of the threads and the batch sizes, one target and kernel besides the default.
        aarch64_root: a folder with an aarch64 Python.
        say: takes one line of progress.

    Returns:
        `rows`, `digests` (all different ones; one if all is well) and `not_covered`, a list of reasons.

    Raises:
        ModelError: a damaged file, or a process that failed.
    """
    gguf, emulated = read_gguf(path), find_aarch64_python(aarch64_root) if aarch64_root else None
    request, not_covered = make_request(path, gguf, QUICK_LENGTH if quick else LENGTH), list[str]()
    counts, batches = ((1, threads), (1, 16)) if quick else (range(1, threads + 1), BATCHES)
    request["rows"] = [[count, batch, False] for count in dict.fromkeys(counts) for batch in batches]
    with tempfile.TemporaryDirectory() as cache:
        request["cache"] = cache
        rows = list(run_here(request, say, not_covered, quick=quick))
        if emulated:
            say("aarch64")
            rows += run_elsewhere(emulated, request, say, quick=quick)
        elif os.uname().machine != "aarch64":
            not_covered.append("aarch64: give --aarch64-root a folder that tools/aarch64_root.sh has made")
    if sum(tensor.shape[0] * tensor.shape[-1] for tensor in gguf.tensors.values()) <= REFERENCE_LIMIT:
        say("reference")
        rows.append(run_reference(gguf, request))
    else:
        not_covered.append("the reference engine: it would take hours on this model")
    digests = list(dict.fromkeys(row.digest for row in rows))
    found = {"rows": [asdict(row) for row in rows], "digests": digests, "not_covered": not_covered}
    return {"bench": "determinism", "model": path.name} | found


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print what `run` returned."""
    console = console or Console()
    table = Table("engine", "processor", "kernel", "weights", "threads", "batch", "seconds", "digest")
    table.title, table.box = f"{result['model']}: {len(result['rows'])} ways to run it", box.SIMPLE
    table.pad_edge, table.padding = False, (0, 0)
    for row in result["rows"]:
        how = str(row["threads"]), str(row["batch"]), f"{row['seconds']:.1f}"
        table.add_row(row["engine"], row["machine"], row["kernel"], row["weights"], *how, row["digest"][:8])
    console.print(table)
    for reason in result["not_covered"]:
        console.print(f"not covered: {reason}", soft_wrap=True)
    if len(result["digests"]) == 1:
        console.print(f"one digest: {result['digests'][0]}", soft_wrap=True)
