"""Exact integer matrix products by float32 ones, with NumPy or torch.

A float32 product of integers is exact while every partial sum stays below 2^24 in magnitude, whatever the order of the
additions, fused or not. For an activation row a and a weight row q two bounds hold over every subset of the sum:
`127 * sum |a|`, and by Cauchy and Schwarz `sqrt(sum a^2 * sum q^2)`. Rows of activations that meet either bound go
through one product; for the others the inner dimension is cut in halves until they do (64 columns always do).

Not every "float32" product is one (TF32, BF16, Strassen), so `products_are_exact` tries a device at the bound before it
is trusted; if it fails the products are done in float64, where they stay below 2^33.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

import numpy as np

from poai_engine.engines.devices import NUMPY, Array, Device, fetch, get_device
from poai_engine.errors import ModelError
from poai_engine.models.decode import Ints
from poai_spec.model.inference import ACTIVATION_BITS

SAFE_COLUMNS = (1 << 24) // (127 << ACTIVATION_BITS)  # 64: no activation and no weight can exceed 2^24 in so few terms
ENERGY_ROWS = 1 << 12
"""Weight rows whose energy is computed at once: with 2^15 columns they take 1 GiB as float64."""

Product: TypeAlias = Callable[[Array, Array], Array]


@dataclass(eq=False)
class FloatMatrix:
    """A matrix widened to float32.

    Attributes:
        weights: shape (O, K), the int8 values as float32.
        energies: largest sum of squares of a weight row, by column range; filled as ranges are needed.
    """

    weights: Array
    energies: dict[tuple[int, int], float] = field(default_factory=dict)

    def energy(self, start: int, stop: int) -> float:
        if (start, stop) not in self.energies:
            rows = range(0, self.weights.shape[0], ENERGY_ROWS)
            parts = (self.weights[at : at + ENERGY_ROWS, start:stop] for at in rows)
            self.energies[start, stop] = max(float(_sum_squares(part).max()) for part in parts)
        return self.energies[start, stop]


def multiply(a: Array, matrix: FloatMatrix) -> Array:
    """Return the exact products of integer rows with a matrix.

    Args:
        a: float32, shape (R, K), integers of magnitude up to 2048.
        matrix: shape (O, K).

    Returns:
        int64, shape (R, O).
    """
    xp = get_device(a).xp
    if not products_are_exact(get_device(a)):
        wide = xp.astype(a, xp.float64) @ xp.astype(matrix.weights, xp.float64).T
        return xp.astype(wide, xp.int64)
    return _multiply_range(xp, a, matrix, 0, a.shape[1])


def _multiply_range(xp: Array, a: Array, matrix: FloatMatrix, start: int, stop: int) -> Array:
    part, weights = a[:, start:stop], matrix.weights[:, start:stop].T
    if stop - start <= SAFE_COLUMNS:
        return xp.astype(part @ weights, xp.int64)
    fits = _fits(part, matrix.energy(start, stop))
    if bool(xp.all(fits)):
        return xp.astype(part @ weights, xp.int64)
    middle, rest = (start + stop) // 2, a[~fits]
    out = xp.astype(part @ weights, xp.int64)  # also of rows that do not fit: they are replaced
    out[~fits] = _multiply_range(xp, rest, matrix, start, middle) + _multiply_range(xp, rest, matrix, middle, stop)
    return out


def _sum_squares(rows: Array) -> Array:
    """Return the sum of squares of each row, float64: up to 2^15 terms of 2^22, exact."""
    xp = get_device(rows).xp
    wide = xp.astype(rows, xp.float64)
    return xp.vecdot(wide, wide)


def _fits(a: Array, energy: float) -> Array:
    xp = get_device(a).xp
    sums = xp.sum(xp.abs(xp.astype(a, xp.float64)), axis=1)
    return (_sum_squares(a) * energy <= 2.0**48) | (127 * sums <= 2.0**24)


def make_worst_case(columns: int) -> tuple[Ints, Ints]:
    """Return 80 rows of activations that meet the bound of a sum, and 96 of weights that nearly reach it.

    Half of the rows are even, the others have 64 large values and are zero elsewhere. The sums with weights of full
    size and a row's own signs lie in 2^23 .. 2^24 and are odd as often as even, so a lost bit shows.
    """
    rng = np.random.default_rng(columns)
    a, q = np.zeros((80, columns), np.int64), rng.integers(-127, 128, (96, columns))
    level = (1 << 24) // (127 * columns)
    a[:40] = level - rng.integers(0, 2, (40, columns))
    for row in a[40:]:
        row[rng.choice(columns, SAFE_COLUMNS, replace=False)] = rng.integers(1100, 2048, SAFE_COLUMNS)
    a *= rng.choice([-1, 1], a.shape)
    q[::2] = 127 * np.sign(a[:48])
    q[40::2] = -127 * np.sign(a[40:68])
    return a, q


def product_is_exact(device: Device, product: Product) -> bool:
    """Compare a float32 product with NumPy's int64 one, for worst cases of one row, of some, and of many."""
    for columns, many in ((SAFE_COLUMNS, 1), (576, 12), (1536, 1), (5632, 1)):
        a, q = make_worst_case(columns)
        expected, weights = np.tile(a @ q.T, (many, many)), device.put(np.tile(q, (many, 1)).astype(np.float32))
        for rows in {1, len(a), many * len(a)}:
            inputs = device.put(np.tile(a, (many, 1))[:rows].astype(np.float32))
            if not np.array_equal(fetch(product(inputs, weights.T)), expected[:rows]):
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


@cache
def products_are_exact(device: Device = NUMPY) -> bool:
    """Say whether a device's float32 products are exact: tried once a process, at the first product or engine."""
    with device.computing(None):
        return product_is_exact(device, _matmul)


@cache
def check_doubles(device: Device) -> None:
    """Try a device's float64 products, on which attention rests.

    Raises:
        ModelError: they are not exact, which no miner and no verifier must go on with.
    """
    with device.computing(None):
        if not doubles_are_exact(device, _matmul):
            raise ModelError(f"float64 products are wrong with {device}: leave --gpu-layers out")
