"""Where the array engine computes: NumPy, or torch on a CPU or a GPU. torch is imported only when it is asked for.

CUDA: unmeasured. The code has run with torch on a CPU only; on a GPU it relies on the checks of `products`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import array_api_compat
import array_api_compat.numpy
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from poai_engine.errors import ModelError

Array: TypeAlias = Any
"""An array of either library; the code keeps to the array API standard, https://data-apis.org/array-api."""


@dataclass(frozen=True)
class Device:
    """A place for arrays.

    Attributes:
        xp: the array namespace.
        where: the device in that namespace's own terms.
    """

    xp: Any
    where: Any

    def __str__(self) -> str:
        return f"{self.xp.__name__.rpartition('.')[2]} on {self.where}"

    def put(self, x: NDArray[Any]) -> Array:
        """Return a copy of a NumPy array on this device."""
        return self.xp.asarray(np.array(x), device=self.where)

    @contextmanager
    def computing(self, threads: int | None) -> Iterator[None]:
        """Compute with some CPU threads (None: the library's default) and true float32 products, then as before.

        Raises:
            ModelError: a GPU's memory is full.
        """
        if self.xp is array_api_compat.numpy:
            with threadpool_limits(threads, "blas"):
                yield
            return
        import torch  # noqa: PLC0415

        before = torch.get_num_threads(), torch.get_float32_matmul_precision()
        try:
            torch.set_num_threads(threads or before[0])
            torch.set_float32_matmul_precision("highest")  # neither TF32 nor BF16
            yield
        except torch.OutOfMemoryError as error:
            raise ModelError(f"the memory of {self} is too small for this model: leave --gpu-layers out") from error
        finally:
            torch.set_num_threads(before[0])
            torch.set_float32_matmul_precision(before[1])


NUMPY = Device(array_api_compat.numpy, "cpu")


def get_device(x: Array) -> Device:
    """Return where an array is."""
    return Device(array_api_compat.array_namespace(x), array_api_compat.device(x))


def fetch(x: Array) -> NDArray[Any]:
    """Return an array as NumPy's, without a copy where it is in memory already."""
    return np.asarray(array_api_compat.to_device(x, "cpu"))


def open_torch(kind: str) -> Device:
    """Return torch's device `cpu` or `cuda`.

    Raises:
        ModelError: torch is not installed, or finds no GPU.
    """
    try:
        import torch  # noqa: PLC0415
        from array_api_compat import torch as xp  # noqa: PLC0415
    except ImportError as error:
        message = "a GPU needs torch, which is not installed: pip install 'poai[gpu]', or leave --gpu-layers out"
        raise ModelError(message) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            f"torch {torch.__version__} finds no GPU: install its build for your GPU, or leave --gpu-layers out"
        )
    return Device(xp, torch.device(kind, 0) if kind == "cuda" else torch.device(kind))
