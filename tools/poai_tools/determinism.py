"""The determinism matrix: one digest over threads, BLAS kernels, batch sizes, engines and processors.

Every row is computed from a freshly loaded model. A kernel is chosen by OpenBLAS's variable OPENBLAS_CORETYPE in a
process of its own; what took effect is what threadpoolctl reports, so a name that this build or this processor does not
have makes no row. Kernels that the processor cannot run end their process by a signal and are listed as such.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

import poai_engine
import poai_spec
import poai_tools
from poai_engine.errors import ModelError
from poai_engine.gguf_file import read_gguf
from poai_engine.reference import ReferenceEngine
from poai_spec.drbg import Drbg
from poai_spec.notation import tagged_hash
from poai_spec.weights import GgufFile
from poai_tools.determinism_worker import compute_digest, run_batches

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
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One way to run the model.

    Attributes:
        engine: `exact` or `reference`.
        machine: the processor's architecture.
        kernel: the BLAS kernel that did the work, `none` without BLAS.
        products: how matrices were multiplied, `float32` or `int64`.
        threads: BLAS threads.
        batch: sequences at a time.
        digest: of the integer model, all losses and all traces.
        seconds: loading and running.
    """

    engine: str
    machine: str
    kernel: str
    products: str
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
    command: Sequence[str], request: dict[str, Any], kernel: str | None, path: Path | None = None
) -> list[Row]:
    """Run rows in a process of their own; an empty list if it ended by a signal for unknown instructions.

    Args:
        command: a Python and its options.
        request: with `rows`.
        kernel: for OPENBLAS_CORETYPE; None leaves the library's choice.
        path: for PYTHONPATH; None leaves it.

    Raises:
        ModelError: it failed otherwise.
    """
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    environment |= {"OPENBLAS_CORETYPE": kernel} if kernel else {}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [*command, "-m", "poai_tools.determinism_worker"],
        input=json.dumps(request), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    if done.returncode in (-signal.SIGILL, 128 + signal.SIGILL):
        return []
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelError(f"kernel {kernel or 'default'}: {last}")
    return [Row(engine="exact", **json.loads(line)) for line in done.stdout.splitlines()]


def run_kernels(command: Sequence[str], request: dict[str, Any], kernels: Sequence[str], say: Say,
                path: Path | None = None) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of the default kernel, then of every other one that this build has and this processor runs."""
    rows = run_worker(command, request, None, path)
    yield from rows
    seen = {row.kernel for row in rows}
    probe = request | {"tokens": request["tokens"][:1], "scored": request["scored"][:1], "rows": request["rows"][:1]}
    for kernel in kernels if rows and rows[0].kernel not in ("none", "mkl", "blis") else ():
        found = run_worker(command, probe, kernel, path)
        if not found:
            say(f"{kernel}: this processor cannot run it")
        elif found[0].kernel not in seen:
            seen.add(found[0].kernel)
            say(f"kernel {found[0].kernel}")
            yield from run_worker(command, request, kernel, path)


def run_reference(gguf: GgufFile, request: dict[str, Any]) -> Row:
    """Run the sequences by the specification."""
    start = perf_counter()
    engine = ReferenceEngine(gguf)
    digest = compute_digest(engine.integer_model_root, run_batches(engine, request, 1)).hex()
    return Row("reference", "any", "none", "integers", 1, 1, digest, perf_counter() - start)


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


def run_elsewhere(command: Sequence[str], request: dict[str, Any], kernels: Sequence[str], say: Say) -> Iterator[Row]:
    """Yield the rows of a Python that has what the engine imports, but not our packages."""
    with tempfile.TemporaryDirectory() as folder:  # our packages without those of this machine beside them
        for package in (poai_spec, poai_engine, poai_tools):
            source = Path(str(package.__file__)).parent
            (Path(folder) / source.name).symlink_to(source)
        yield from run_kernels(command, request, kernels, say, Path(folder))


def run(
    path: Path, threads: int, *, quick: bool = False, aarch64_root: Path | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Run the matrix.

    Args:
        path: a GGUF file.
        threads: 1 to this number of BLAS threads.
        quick: short sequences, the ends of the threads and the batch sizes, one kernel besides the default.
        aarch64_root: a folder with an aarch64 Python.
        say: takes one line of progress.

    Returns:
        `rows`, `digests` (all different ones; one if all is well) and `not_covered`, a list of reasons.

    Raises:
        ModelError: a damaged file, or a process that failed.
    """
    gguf, emulated = read_gguf(path), find_aarch64_python(aarch64_root) if aarch64_root else None
    request = make_request(path, gguf, QUICK_LENGTH if quick else LENGTH)
    counts, batches = ((1, threads), (1, 16)) if quick else (range(1, threads + 1), BATCHES)
    request["rows"] = [[count, batch] for count in dict.fromkeys(counts) for batch in batches]
    machine, not_covered = os.uname().machine, []
    kernels = KERNELS.get(machine, ())
    say("the default kernel")
    rows = list(run_kernels([sys.executable], request, kernels[:1] if quick else kernels, say))
    if sum(tensor.shape[0] * tensor.shape[-1] for tensor in gguf.tensors.values()) <= REFERENCE_LIMIT:
        say("reference")
        rows.append(run_reference(gguf, request))
    else:
        not_covered.append("the reference engine: it would take hours on this model")
    if emulated:
        say("aarch64")
        kernels = KERNELS["aarch64"]
        rows += run_elsewhere(emulated, request, kernels[:1] if quick else kernels, say)
    elif machine != "aarch64":
        not_covered.append("aarch64: give --aarch64-root a folder that tools/aarch64_root.sh has made")
    digests = list(dict.fromkeys(row.digest for row in rows))
    return {"model": path.name, "rows": [asdict(row) for row in rows], "digests": digests, "not_covered": not_covered}


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print what `run` returned."""
    console = console or Console()
    table = Table("engine", "processor", "kernel", "threads", "batch", "seconds", "digest")
    table.title = f"{result['model']}: {len(result['rows'])} ways to run it"
    for row in result["rows"]:
        kernel = row["kernel"] if row["products"] == "float32" else f"{row['kernel']} ({row['products']})"
        how = str(row["threads"]), str(row["batch"]), f"{row['seconds']:.1f}"
        table.add_row(row["engine"], row["machine"], kernel, *how, row["digest"][:8])
    console.print(table)
    for reason in result["not_covered"]:
        console.print(f"not covered: {reason}", soft_wrap=True)
    if len(result["digests"]) == 1:
        console.print(f"one digest: {result['digests'][0]}", soft_wrap=True)
