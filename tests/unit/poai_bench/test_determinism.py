"""The determinism matrix: its rows on poai-mini, and what it does when a process or an answer is not as usual."""

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llvmlite import binding
from typer.testing import CliRunner

from poai_bench import determinism
from poai_bench.determinism import TARGETS
from poai_engine.errors import ModelError
from poai_tools.cli import app

REQUEST: dict[str, Any] = {"engine": "exact", "tokens": [[1]], "scored": [[]], "rows": [[1, 1, False]], "cache": "kept"}
WAYS = {(1, 1), (1, 16), (2, 1), (2, 16)}


@pytest.mark.slow
def test_the_matrix_of_mini_has_one_digest(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    found = CliRunner().invoke(app, ["bench", "determinism", "--quick", "--threads", "2", "--json", str(out)])
    assert found.exit_code == 0, found.output
    result = json.loads(out.read_text("utf-8"))
    rows = result["rows"]
    for engine in ("exact", "array"):
        kernels = {row["kernel"] for row in rows if row["engine"] == engine}
        assert kernels
        for kernel in kernels:
            assert {(row["threads"], row["batch"]) for row in rows if row["kernel"] == kernel} == WAYS
    weights = [row["weights"] for row in rows if row["engine"] == "exact"]
    assert weights[:2] == ["fresh", "made"]
    assert set(weights[2:]) == {"mapped"}
    assert [row["engine"] for row in rows].count("reference") == 1
    assert len(result["digests"]) == 1
    assert result["digests"][0] in found.stdout
    assert "not covered: aarch64" in found.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this is an x86 target")
def test_what_a_row_shows_took_effect(mini_path: Path, tmp_path: Path) -> None:
    """LLVM's target and the tile's shape, which is that of its registers."""
    request = REQUEST | {"model": str(mini_path), "tokens": [[1, 2]], "scored": [[1]], "cache": str(tmp_path)}
    name = "x86-64"
    choice = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": TARGETS["x86_64"][name]}
    (row,) = determinism.run_worker([sys.executable], request, choice)
    assert (row.engine, row.kernel, row.weights) == ("exact", "x86-64 pairs 4x4x2", "made")
    (native,) = determinism.run_worker([sys.executable], request)
    assert native.kernel.split()[0] == binding.get_host_cpu_name()
    assert (native.weights, native.digest) == ("mapped", row.digest)


def make_row(digest: str) -> determinism.Row:
    return determinism.Row("exact", "x86_64", "haswell pairs 8x4x3", "mapped", 1, 1, digest, 0.0)


def test_a_difference_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinism, "run_here", lambda *_, **__: [make_row("aa"), make_row("bb")])
    monkeypatch.setattr(determinism, "run_reference", lambda *_: make_row("aa"))
    found = CliRunner().invoke(app, ["bench", "determinism", "--quick"])
    assert found.exit_code == 1
    assert "error: 2 different digests" in found.stderr
    assert "one digest" not in found.stdout


def as_worker(code: str) -> Sequence[str]:
    """Return a command whose Python runs `code` instead of the worker."""
    return [sys.executable, "-c", code]


def test_a_target_that_the_processor_cannot_run_makes_no_row() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    said: list[str] = []
    assert list(determinism.run_targets(as_worker(code), REQUEST, {"new": "+new"}, said.append)) == []
    assert said[-1] == "new: this processor cannot run it"


def test_a_processor_without_the_features_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"sse2": True, "avx2": False})
    assert determinism.can_run("x86_64", "+sse2")
    assert not determinism.can_run("x86_64", "+sse2,+avx2")
    assert not determinism.can_run("x86_64", "+avx512f")
    assert determinism.can_run("aarch64", "+neon")
    monkeypatch.setattr("os.uname", lambda: type("Machine", (), {"machine": "x86_64"}))
    monkeypatch.setattr(determinism, "run_targets", lambda *parts: list(parts[2]))
    monkeypatch.setattr(determinism, "run_kernels", lambda *_: [])
    reasons: list[str] = []
    assert list(determinism.run_here(REQUEST, print, reasons, quick=False)) == ["x86-64"]  # type: ignore[comparison-overlap]
    assert {reason.partition(":")[0] for reason in reasons} == TARGETS["x86_64"].keys() - {"x86-64"}


def test_a_worker_that_fails_is_one_line() -> None:
    broken = as_worker("raise ValueError('broken')")
    with pytest.raises(ModelError, match=r"^exact, default: ValueError: broken$"):
        determinism.run_worker(broken, REQUEST)
    with pytest.raises(ModelError, match=r"^array, Zen: ValueError: broken$"):
        determinism.run_worker(broken, REQUEST | {"engine": "array"}, {"OPENBLAS_CORETYPE": "Zen"})


def test_choices_of_the_caller_reach_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the default are those of the default, whatever this process was started with."""
    for name in determinism.CHOICES:
        monkeypatch.setenv(name, "chosen")
    code = f"import os, sys; sys.exit(any(name in os.environ for name in {determinism.CHOICES!r}))"
    assert determinism.run_worker(as_worker(code), REQUEST) == []


def test_each_kernel_that_took_effect_has_its_rows_once() -> None:
    """A name that falls back to another kernel, or that the processor cannot run, gives none."""
    code = (
        "import json, os, signal\n"
        "name = os.environ.get('OPENBLAS_CORETYPE', 'Default')\n"
        "if name == 'Broken': os.kill(os.getpid(), signal.SIGILL)\n"
        "kernel = {'Other': 'Other'}.get(name, 'Default')\n"
        "print(json.dumps({'engine': 'array', 'machine': 'm', 'kernel': kernel, 'weights': 'fresh', 'threads': 1,"
        " 'batch': 1, 'digest': name, 'seconds': 0}))"
    )
    said: list[str] = []
    kernels = ("Unknown", "Broken", "Other", "Other")
    rows = list(determinism.run_kernels(as_worker(code), REQUEST, kernels, said.append))
    assert [(row.kernel, row.digest) for row in rows] == [("Default", "Default"), ("Other", "Other")]
    assert said[1:] == ["Broken: this processor cannot run it", "array engine, kernel Other"]


def test_a_folder_without_an_aarch64_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ModelError, match="install Debian's package qemu-user-static"):
        determinism.find_aarch64_python(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(ModelError, match=r"make it with tools/aarch64_root\.sh"):
        determinism.find_aarch64_python(tmp_path)
    python = tmp_path / "usr" / "bin" / "python3.11"
    python.parent.mkdir(parents=True)
    python.touch()
    assert determinism.find_aarch64_python(tmp_path)[-1] == str(python)
