"""Exact integer matrix products by float32 BLAS.

A float32 product of integers is exact while every partial sum stays below 2^24 in magnitude, whatever the order of the
additions, fused or not. For an activation row a and a weight row q two bounds hold over every subset of the sum:
`127 * sum |a|`, and by Cauchy and Schwarz `sqrt(sum a^2 * sum q^2)`. Rows of activations that meet either bound go
through one sgemm; for the others the inner dimension is cut in halves until they do (64 columns always do).

Not every "float32" product is one (reduced-precision modes, Strassen), so `products_are_exact` tries the BLAS at the
bound before it is trusted; if it fails the products are done in int64.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from poai_engine.exact_model import ExactMatrix
from poai_spec.inference import ACTIVATION_BITS

Floats = NDArray[np.float32]
SAFE_COLUMNS = (1 << 24) // (127 << ACTIVATION_BITS)  # 64: no activation and no weight can exceed 2^24 in so few terms


@dataclass(eq=False)
class FloatMatrix:
    """A matrix widened to float32 for BLAS.

    Attributes:
        weights: shape (O, K), the int8 values as float32.
        energies: largest sum of squares of a weight row, by column range; filled as ranges are needed.
    """

    weights: Floats
    energies: dict[tuple[int, int], int] = field(default_factory=dict)

    @classmethod
    def of(cls, matrix: ExactMatrix) -> "FloatMatrix":
        return cls(matrix.q.astype(np.float32))

    def energy(self, start: int, stop: int) -> int:
        if (start, stop) not in self.energies:
            part = self.weights[:, start:stop].astype(np.float64)
            self.energies[start, stop] = int(np.einsum("ok,ok->o", part, part).max(initial=0.0))
        return self.energies[start, stop]


def multiply(a: Floats, matrix: FloatMatrix) -> NDArray[np.float64]:
    """Return the exact products of integer rows with a matrix.

    Args:
        a: shape (R, K), integers of magnitude up to 2048.
        matrix: shape (O, K).

    Returns:
        Shape (R, O), float64 holding exact integers.
    """
    if not products_are_exact():
        return np.asarray(a.astype(np.int64) @ matrix.weights.astype(np.int64).T, np.float64)
    return _multiply_range(a, matrix, 0, a.shape[1])


def _multiply_range(a: Floats, matrix: FloatMatrix, start: int, stop: int) -> NDArray[np.float64]:
    part = a[:, start:stop]
    fits = _fits(part, matrix.energy(start, stop)) if stop - start > SAFE_COLUMNS else np.ones(len(a), bool)
    if fits.all():
        return np.asarray(part @ matrix.weights[:, start:stop].T, np.float64)
    middle = (start + stop) // 2
    out = np.empty((len(a), len(matrix.weights)))
    if fits.any():
        out[fits] = part[fits] @ matrix.weights[:, start:stop].T
    rest = a[~fits]
    out[~fits] = _multiply_range(rest, matrix, start, middle) + _multiply_range(rest, matrix, middle, stop)
    return out


def _fits(a: Floats, energy: int) -> NDArray[np.bool_]:
    wide = a.astype(np.float64)  # sums of up to 2^15 terms of 2^22: exact
    squares = np.einsum("rk,rk->r", wide, wide)
    return np.asarray((squares * float(energy) <= 2.0**48) | (127 * np.abs(wide).sum(axis=1) <= 2.0**24))


@cache
def products_are_exact() -> bool:
    """Multiply worst-case blocks at the bound with BLAS and compare with int64: run once, at the first product."""
    rng = np.random.default_rng(0)
    for columns in (SAFE_COLUMNS, 576, 1536):
        q = rng.integers(-127, 128, (96, columns))
        a = rng.integers(-2048, 2049, (80, columns))
        q[: columns // 8], a[: columns // 8] = 127, (1 << 24) // (127 * columns)  # sums just below 2^24, odd ones
        a[1, ::2] += 1
        a[~_fits(a.astype(np.float32), int((q * q).sum(axis=1).max()))] %= 64
        fits = _fits(a.astype(np.float32), int((q * q).sum(axis=1).max()))
        if not np.array_equal((a.astype(np.float32) @ q.astype(np.float32).T)[fits], (a @ q.T)[fits]):
            return False
    return True
