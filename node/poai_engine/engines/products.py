"""Exact products of int8 matrices, with NumPy or torch.

torch has one that sums in int32 (`_int_mm`: tensor cores, VNNI): exact for every width that is accepted. NumPy has
none; there int8 values are multiplied as float32, 1,024 columns at a time: a sum of integers is exact while it stays
below 2^24 in magnitude, whatever the order of the additions, fused or not.

Not every "float32" product is one (TF32, BF16, Strassen), and `_int_mm` is no public function, so `choose_product`
tries them at their bounds before they are trusted; where they fail the products are done in float64, which is slower.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import array_api_compat.numpy
import numpy as np

from poai_engine.engines.devices import NUMPY, Array, Device, fetch, get_device
from poai_engine.errors import ModelError
from poai_engine.models.decode import Ints
from poai_spec.model.inference import ACTIVATION_LIMIT

SAFE_COLUMNS = 1 << 10
"""No sum of so few products can reach 2^24: 1024 * 127 * 127 is 16.5 million."""

MULTIPLE = 8
"""`_int_mm` on CUDA takes widths that are multiples of this."""

LEAST_ROWS = 17
"""And so many rows at least."""

Product: TypeAlias = Callable[[Array, Array], Array]
"""Takes int8 rows, shape (R, K), and weights, shape (O, K), as `widen` gives them; returns int64, shape (R, O)."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A matrix on a device: its values, shape (O, K) padded with zeros, and O."""

    values: Array
    outputs: int


def put_weights(q: Array) -> Weights:
    """Return int8 weights as the device multiplies them: NumPy's widened to float32, torch's int8."""
    device = get_device(q)
    if device.xp is array_api_compat.numpy:
        return Weights(q.astype(np.float32), q.shape[0])
    return Weights(_pad(q, _round_up(q.shape[0]), _round_up(q.shape[1])), q.shape[0])


def multiply(a: Array, weights: Weights) -> Array:
    """Return the exact products of rows with a matrix.

    Args:
        a: int8, shape (R, K), of magnitude up to 127.
        weights: of a matrix of shape (O, K).

    Returns:
        int64, shape (R, O).
    """
    rows = a.shape[0]
    return choose_product(get_device(a))(a, weights.values)[:rows, : weights.outputs]


def multiply_floats(a: Array, weights: Array) -> Array:
    """Multiply in float32, as many columns at a time as are safe."""
    xp, total = get_device(a).xp, None
    for at in range(0, a.shape[1], SAFE_COLUMNS):
        part = xp.astype(a[:, at : at + SAFE_COLUMNS], xp.float32) @ weights[:, at : at + SAFE_COLUMNS].T
        total = xp.astype(part, xp.int64) if total is None else total + xp.astype(part, xp.int64)
    return total


def multiply_bytes(a: Array, weights: Array) -> Array:
    """Multiply by torch's int8 product, which sums in int32: 2^15 * 127 * 127 < 2^31."""
    import torch  # noqa: PLC0415

    padded = _pad(a, max(LEAST_ROWS, a.shape[0]), weights.shape[1])
    return torch._int_mm(padded, weights.T).to(torch.int64)


def multiply_doubles(a: Array, weights: Array) -> Array:
    """Multiply in float64."""
    xp = get_device(a).xp
    padded = _pad(a, a.shape[0], weights.shape[1])
    return xp.astype(xp.astype(padded, xp.float64) @ xp.astype(weights, xp.float64).T, xp.int64)


def _round_up(n: int) -> int:
    return -(-n // MULTIPLE) * MULTIPLE


def _pad(x: Array, rows: int, columns: int) -> Array:
    """Return a matrix with rows and columns of zeros behind its own."""
    if tuple(x.shape) == (rows, columns):
        return x
    device = get_device(x)
    padded = device.xp.zeros((rows, columns), dtype=x.dtype, device=device.where)
    padded[: x.shape[0], : x.shape[1]] = x
    return padded


def make_worst_cases() -> Iterator[tuple[Ints, Ints]]:
    """Yield rows and weights whose sums come as near to the bounds as they can, for few and for many rows and columns.

    The values are of full size or one less, the weights' signs those of a row, so the sums are odd as often as even and
    a lost bit shows.
    """
    for rows, columns, outputs in ((1, 8, 1), (3, SAFE_COLUMNS, 96), (80, 576, 1152), (40, 5632, 96), (17, 1 << 15, 9)):
        rng, limit = np.random.default_rng(columns), ACTIVATION_LIMIT
        a = rng.choice([-1, 1], (rows, columns)) * (limit - rng.integers(0, 2, (rows, columns)))
        q = rng.choice([-1, 1], (outputs, 1)) * (limit - (rng.integers(0, 64, (outputs, columns)) == 0))
        yield a, q * np.sign(a[np.arange(outputs) % rows])


def product_is_exact(device: Device, product: Product) -> bool:
    """Compare a product with NumPy's int64 one at the bounds; one that the device lacks is none."""
    for a, q in make_worst_cases():
        weights = put_weights(device.put(q.astype(np.int8)))
        try:
            found = fetch(product(device.put(a.astype(np.int8)), weights.values))
        except (RuntimeError, AttributeError, NotImplementedError):  # torch's ways to say so
            return False
        if not np.array_equal(found[: len(a), : len(q)], a @ q.T):
            return False
    return True


def doubles_are_exact(device: Device, product: Product) -> bool:
    """Compare float64 products with NumPy's int64 ones, at attention's bound of 2^52: one long sum, and many heads."""
    rng, limit = np.random.default_rng(0), 1 << 20
    for left, right in (((3, 1, 5, 4096), (3, 1, 4096, 7)), ((2, 3, 64, 64), (2, 1, 64, 64))):
        a = rng.choice([-1, 1], left) * rng.integers(limit - 64, limit + 1, left)
        b = rng.choice([-1, 1], right) * rng.integers(limit - 64, limit + 1, right)
        b[..., 0] = np.sign(a[:, :1, 0]) * np.abs(b[..., 0])
        found = product(device.put(a.astype(np.float64)), device.put(b.astype(np.float64)))
        if not np.array_equal(fetch(found), a @ b):
            return False
    return True


def _matmul(a: Array, b: Array) -> Array:
    return a @ b


def get_fast_product(device: Device) -> Product:
    """Return the product that a device should use."""
    return multiply_floats if device.xp is array_api_compat.numpy else multiply_bytes


@cache
def products_are_exact(device: Device = NUMPY) -> bool:
    """Say whether a device's fast product is exact: tried once a process, at the first product or engine."""
    with device.computing(None):
        return product_is_exact(device, get_fast_product(device))


def choose_product(device: Device) -> Product:
    """Return a device's fast product where it is exact, and float64's where it is not."""
    return get_fast_product(device) if products_are_exact(device) else multiply_doubles


@cache
def check_doubles(device: Device) -> None:
    """Try a device's float64 products, on which attention rests.

    Raises:
        ModelError: they are not exact, which no miner and no verifier must go on with.
    """
    with device.computing(None):
        if not doubles_are_exact(device, _matmul):
            raise ModelError(f"float64 products are wrong with {device}: leave --gpu-layers out")
