"""Model files that many tests need, and a place for their kept weights."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from poai_engine.models.model_store import get_model_path
from poai_engine.models.synthesize import synthesize
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE

# How long an example takes says how busy the machine is.
settings.register_profile("poai", deadline=None)
settings.load_profile("poai")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("llama") and find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: `make test-all` builds it")


@pytest.fixture(scope="session", autouse=True)
def _cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep weights in a folder of this run, which commands that tests start inherit: never in the user's cache.

    Workers share it, as processes of a user do.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_DIR_VARIABLE, str(folder / "weights"))
        yield


@pytest.fixture(scope="session")
def mini_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file of poai-mini."""
    path = tmp_path_factory.mktemp("models") / "poai-mini.gguf"
    synthesize("mini", path)
    return path


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, from the model folder; tests that use it are marked `model`."""
    path = get_model_path("smollm2")
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `poai model fetch smollm2` (or leave these tests out: -m 'not model')")
    return path
