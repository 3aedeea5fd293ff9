"""The array engine equals the specification bit for bit: with NumPy, with torch on the CPU, and on a GPU.

What needs torch is skipped where torch, or a GPU, is missing. Few models are drawn here, as it is the reference that
takes the time; `test_exact` runs NumPy's engine beside the compiled one on more.
"""

import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poai_engine.engines.array import (
    ArrayEngine,
    bit_length,
    compute_nlls,
    div_round,
    exp2_neg,
    isqrt,
    open_torch_engine,
    quantise_rows,
    round_shift,
)
from poai_engine.engines.devices import NUMPY, Array, Device, fetch, get_device, open_torch
from poai_engine.engines.products import (
    Product,
    check_doubles,
    doubles_are_exact,
    make_worst_cases,
    multiply,
    multiply_floats,
    product_is_exact,
    products_are_exact,
    put_weights,
)
from poai_engine.engines.reference import ReferenceEngine
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.packed import pack_model
from poai_engine.models.weight_cache import open_packed_model
from poai_spec.basics.notation import Invalid
from poai_spec.model import fixed_point, inference
from poai_spec.model.engine import Evaluation
from poai_spec.model.weights import GgufFile
from tests.harness.tiny_models import batches, tiny_models
from tests.unit.poai_engine.test_kernels import BATCH, DIGEST, TRACE, make_quiz

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
quick = settings(deadline=None)  # torch's first calls are slow
int64s = st.integers(-(2**62), 2**62)
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")

pytestmark = pytest.mark.sockets


def open_device(name: str) -> Device:
    """Return a device by its name in the tests; skip where torch has no GPU."""
    if name == "numpy":
        return NUMPY
    import torch

    kind = name.removeprefix("torch-")
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return open_torch(kind)


@pytest.fixture(
    scope="module",
    params=["numpy", pytest.param("torch-cpu", marks=needs_torch), pytest.param("torch-cuda", marks=needs_torch)],
)
def device(request: pytest.FixtureRequest) -> Device:
    return open_device(request.param)


def put(device: Device, values: object) -> Array:
    return device.put(np.asarray(values, np.int64))


# The arithmetic.


@given(int64s, st.integers(-20, 40), st.integers(1, 2**40))
@quick
def test_rounding(device: Device, x: int, n: int, b: int) -> None:
    if abs(x) < 2**61:
        assert div_round(put(device, [x]), put(device, [b])).tolist() == [fixed_point.div_round(x, b)]
        x >>= max(-n, 0)  # what a left shift keeps in int64
        expected = [fixed_point.round_shift(x, n)]
        assert round_shift(put(device, [x]), n).tolist() == expected
        assert round_shift(put(device, [x]), put(device, [n])).tolist() == expected


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**62 - 1), st.integers(0, 2**54))
@quick
def test_functions(device: Device, x: int, y: int, d: int) -> None:
    assert bit_length(put(device, [x])).tolist() == [x.bit_length()]
    assert exp2_neg(put(device, [d])).tolist() == [fixed_point.exp2_neg(d)]
    root = int(isqrt(put(device, [y]))[0])
    assert root * root <= y < (root + 1) ** 2


def test_bit_lengths_around_powers_of_two(device: Device) -> None:
    around = [0, *(2**n + d for n in range(1, 63) for d in (-1, 0, 1))]
    assert bit_length(put(device, around)).tolist() == [x.bit_length() for x in around]


@pytest.mark.parametrize("root", [1, 2**15, 2**26 - 1, 2**30, 2**31 - 1])
def test_square_roots_around_squares(device: Device, root: int) -> None:
    around = put(device, [root * root - 1, root * root, root * root + 1])
    assert isqrt(around).tolist() == [root - 1, root, root]


@given(
    st.sampled_from([3, 4, 64, 192]).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-(2**31), 2**31 - 1), min_size=width, max_size=width), min_size=1, max_size=4
        )
    )
)
@relaxed
def test_quantised_rows(device: Device, rows: list[list[int]]) -> None:
    scales, quantised = quantise_rows(put(device, rows))
    assert scales.tolist() == [list(inference.quantise_row(tuple(row))[0]) for row in rows]
    assert quantised.tolist() == [list(inference.quantise_row(tuple(row))[1]) for row in rows]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=20), st.integers(0, 1))
@quick
def test_nll(device: Device, logits: list[int], target: int) -> None:
    found = compute_nlls(put(device, [logits]), put(device, [target]))
    assert found == [inference.compute_nll(tuple(logits), target)]


def test_a_device_is_found_again(device: Device) -> None:
    x = device.put(np.frombuffer(b"\1\2", np.int8))  # read-only, as mapped weights are
    assert get_device(x) == device
    assert fetch(x).tolist() == [1, 2]


# Products.


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20), st.integers(1, 2100))
@relaxed
def test_products(device: Device, seed: int, rows: int, outputs: int, columns: int) -> None:
    """Of any shape; every other row meets weights of full size and its own signs."""
    rng = np.random.default_rng(seed)
    a, q = rng.integers(-127, 128, (rows, columns)), rng.integers(-127, 128, (outputs, columns))
    a[::2] = 127 * rng.choice([-1, 1], a[::2].shape)
    q[0] = 127 * np.sign(a[0])
    found = multiply(device.put(a.astype(np.int8)), put_weights(device.put(q.astype(np.int8))))
    assert np.array_equal(fetch(found), a @ q.T)


def test_products_are_exact_within_the_bound(device: Device) -> None:
    assert products_are_exact(device)
    check_doubles(device)


def test_the_worst_cases_are_near_the_bounds() -> None:
    largest = {a.shape[1]: np.abs(a @ q.T) for a, q in make_worst_cases()}
    assert 0.98 * 2**24 < largest[1024].max() < 2**24
    assert largest[1 << 15].max() > 0.98 * 2**15 * 127**2
    for sums in largest.values():
        assert {0, 1} >= set((sums % 2).ravel().tolist())
    assert all((sums % 2 == 1).any() for columns, sums in largest.items() if columns > 8)


def round_to_bits(x: Array, bits: int) -> Array:
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2.0**bits), exponent)


def lack(a: Array, w: Array) -> Array:
    raise RuntimeError("no such product here")


@pytest.mark.parametrize(
    "product",
    [
        lambda a, w: multiply_floats(a, round_to_bits(w, 6)),
        lambda a, w: round_to_bits(multiply_floats(a, w), 23),
        lambda a, w: (a.astype(np.float32) @ w.T).astype(np.int64),  # not cut into safe columns
        lambda a, w: multiply_floats(a, w) + (len(a) == 1),  # wrong for one row only
        lambda a, w: multiply_floats(a, w) + (len(a) > 64),  # wrong for many only
        lack,
    ],
)
def test_products_that_are_not_exact(product: Product) -> None:
    assert not product_is_exact(NUMPY, product)


@pytest.mark.parametrize(
    "product",
    [lambda a, b: round_to_bits(a @ b, 52), lambda a, b: (a.astype(np.float32) @ b.astype(np.float32)).astype(float)],
)
def test_doubles_that_are_not_exact(product: Callable[[Array, Array], Array]) -> None:
    assert not doubles_are_exact(NUMPY, product)


def test_products_fall_back_to_doubles(device: Device, mini_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the fast product fails its check, the engine says so and gives the same bits."""
    expected = ArrayEngine(read_gguf(mini_path), device=device).evaluate([[1, 2, 3]], [[1, 2]])
    for module in ("products", "array"):
        monkeypatch.setattr(f"poai_engine.engines.{module}.products_are_exact", lambda _: False)
    for fast in ("multiply_floats", "multiply_bytes"):
        monkeypatch.setattr(f"poai_engine.engines.products.{fast}", lack)
    lines: list[str] = []
    engine = ArrayEngine(read_gguf(mini_path), device=device, say=lines.append)
    assert lines == [f"fast products are not exact with {device}: float64 is used, which is slower"]
    assert engine.evaluate([[1, 2, 3]], [[1, 2]]) == expected
    a, q = np.full((1, 2100), 127, np.int8), np.full((1, 2100), -127, np.int8)
    assert multiply(device.put(a), put_weights(device.put(q))).tolist() == [[-127 * 127 * 2100]]


def test_wrong_doubles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poai_engine.engines.products.doubles_are_exact", lambda *_: False)
    with pytest.raises(ModelError, match="leave --gpu-layers out"):
        check_doubles.__wrapped__(NUMPY)


# The pass.


@given(tiny_models(), st.booleans(), st.data())
@settings(relaxed, max_examples=12)
def test_every_layer_of_random_models(device: Device, gguf: GgufFile, packed: bool, data: st.DataObject) -> None:
    vocabulary = gguf.tensors["token_embd.weight"].shape[0]
    tokens = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=12))
    spec, ours = ReferenceEngine(gguf), ArrayEngine(pack_model(gguf) if packed else gguf, 1, device=device)
    assert ours.integer_model_root == spec.integer_model_root
    rows = [spec.model.embedding[token] for token in tokens]
    for number, (layer, found) in enumerate(zip(spec.model.layers, ours.residuals([tokens]), strict=True)):
        rows = inference.run_block(spec.model, layer, rows)
        assert found[0].tolist() == [list(row) for row in rows], f"block {number} differs"
    for row, logits in zip(rows, ours.logits(tokens, range(len(tokens))), strict=True):
        normed = inference.rms_norm(row, spec.model.output_norm, spec.model.architecture.epsilon)
        assert inference.linear(spec.model.head, normed) == tuple(logits.tolist())


@given(tiny_models(), st.data())
@settings(relaxed, max_examples=10)
def test_evaluations_alone_in_batches_and_stepwise(device: Device, gguf: GgufFile, data: st.DataObject) -> None:
    tokens, scored = data.draw(batches(gguf))
    spec, ours = ReferenceEngine(gguf), ArrayEngine(gguf, 1, device=device)
    expected = spec.evaluate(tokens, scored)
    assert ours.evaluate(tokens, scored) == expected
    assert [ours.evaluate([t], [s])[0] for t, s in zip(tokens, scored, strict=True)] == expected
    steps = list(ours.steps(tokens[0], scored[0]))
    assert steps == list(spec.steps(tokens[0], scored[0]))
    assert isinstance(steps[-1], Evaluation)


def test_long_batches_are_cut(device: Device, mini_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, tokens, sizes = ArrayEngine(read_gguf(mini_path), device=device), [[n, n + 1] for n in range(5)], set()
    whole = engine.evaluate(tokens, [[1]] * 5)
    block = engine._block

    def run_block(n: int, x: Array) -> Array:
        sizes.add(len(x))
        return block(n, x)

    monkeypatch.setattr(engine, "_block", run_block)
    monkeypatch.setattr("poai_engine.engines.array.MAX_BATCH_ROWS", 5)
    assert engine.evaluate(tokens, [[1]] * 5) == whole
    assert sizes == {1, 2}
    assert engine.evaluate([], []) == []


@pytest.mark.model
@pytest.mark.slow
def test_smollm2(device: Device, smollm2_path: Path) -> None:
    """The digests that are pinned for the compiled engine: every logit of a quiz, and a batch's trace."""
    engine = ArrayEngine(open_packed_model(smollm2_path), 2, device=device)
    tokens = make_quiz(0).tokens
    assert sha256(engine.logits(tokens, range(len(tokens))).astype("<i8").tobytes()).hexdigest() == DIGEST
    quizzes = [make_quiz(number) for number in reversed(range(BATCH))]
    last = engine.evaluate([quiz.tokens for quiz in quizzes], [quiz.scored for quiz in quizzes])[-1]
    assert sha256(b"".join(last.trace) + repr(last.nlls).encode()).hexdigest() == TRACE


# Devices.


@needs_torch
def test_the_settings_of_torch_are_restored() -> None:
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with open_torch("cpu").computing(threads + 1):
            assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads + 1, "highest")
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, "medium")
    finally:
        torch.set_float32_matmul_precision(precision)


@needs_torch
def test_a_full_memory_is_one_line() -> None:
    import torch

    message = r"^the memory of torch on cpu is too small for this model: leave --gpu-layers out$"
    with pytest.raises(ModelError, match=message), open_torch("cpu").computing(None):
        raise torch.OutOfMemoryError


@needs_torch
def test_an_engine_from_kept_weights(mini_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POAI_CACHE_DIR", str(tmp_path))
    lines: list[str] = []
    for _ in range(2):
        engine = open_torch_engine(mini_path, "cpu", say=lines.append)
        expected = ArrayEngine(read_gguf(mini_path))
        assert engine.integer_model_root == expected.integer_model_root
        assert engine.evaluate([[5, 6, 7]], [[2]]) == expected.evaluate([[5, 6, 7]], [[2]])
    assert len(lines) == 1
    assert "converting weights" in lines[0]
    with pytest.raises(ModelError, match="is not this network's model"):
        open_torch_engine(mini_path, "cpu", digest=bytes(32))


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ModelError, match=r"^a GPU needs torch, .* pip install 'poai\[gpu\]', or leave --gpu-layers out$"
    ):
        open_torch("cuda")


@needs_torch
def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match=r"^torch .* finds no GPU: .*, or leave --gpu-layers out$"):
        open_torch("cuda")


@needs_torch
def test_torch_is_imported_only_when_asked_for(mini_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from poai_engine.engines.array import ArrayEngine;"
        "from poai_engine.models.gguf_file import read_gguf; import poaid.cli.main;"
        f"ArrayEngine(read_gguf(Path({str(mini_path)!r}))).evaluate([[1, 2]], [[1]]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_refusals_are_those_of_the_page() -> None:
    with pytest.raises(Invalid, match="integer-model/architecture"):
        ArrayEngine(GgufFile({}, {}))
