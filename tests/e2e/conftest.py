"""The model of the end-to-end tests: poai-mini, alone in its folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.chain.upgrades import get_rules
from poaid.models import load_engine
from tests.harness.processes import Maker, make_vector_network


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark all tests of this folder: pytest gives the tests of the others as well."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.sockets)


@pytest.fixture(scope="package", autouse=True)
def _only_mini(mini_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))
        yield


@pytest.fixture
def maker(tmp_path: Path, mini_path: Path) -> Maker:
    """Nodes of the vectors' network."""
    network = make_vector_network()
    return Maker(tmp_path, network, load_engine(str(mini_path), get_rules(network.config, (), 0), 1))
