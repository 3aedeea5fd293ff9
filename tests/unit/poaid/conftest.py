"""A chain of eight blocks with an epoch change and retargets every two, mined once for all tests of the node."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.basics.containers import Block, Header
from poai_spec.basics.encoding import decode
from poai_spec.basics.notation import Milliseconds
from poai_spec.chain.block import Judge, make_judge
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import State
from poaid.cli import main as cli
from poaid.models import load_engine
from poaid.network_file import Network
from poaid.store.database import Database
from tests.harness.engines import Remembering
from tests.harness.node import BLOCKS, PACES, FakeClock, Run, make_quick_network, mine, read_data


@dataclass(frozen=True)
class MinedChain:
    """A chain on disk, in a folder that no test changes.

    Attributes:
        folder: its data directory.
        network: the quick network.
        judge: the network's; its engine asks the model once for each quiz.
        headers: genesis first.
        blocks: from height 1 on.
        data: their encodings.
        state: the accounts after the last.
        now: the fake clock after the last.
    """

    folder: Path
    network: Network
    judge: Judge
    headers: list[Header]
    blocks: list[Block]
    data: list[bytes]
    state: State
    now: Milliseconds


@pytest.fixture(scope="package")
def model_dir(mini_path: Path) -> Path:
    """A model folder that holds poai-mini and nothing else."""
    return mini_path.parent


@pytest.fixture(scope="package", autouse=True)
def _only_mini(model_dir: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODEL_DIR_VARIABLE, str(model_dir))
        yield


@pytest.fixture(scope="package")
def network() -> Network:
    return make_quick_network()


@pytest.fixture(scope="package")
def judge(network: Network) -> Judge:
    return make_judge(
        network.config, network.questions, Remembering(load_engine("mini", get_rules(network.config, (), 0), 1))
    )


@pytest.fixture(scope="package")
def mined(network: Network, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> MinedChain:
    folder, clock = tmp_path_factory.mktemp("mined"), FakeClock()
    with Database.create_or_open(folder, network, "mini") as store:
        chain = mine(store, judge, clock, PACES)
        data = read_data(store)
    assert len(data) == BLOCKS
    blocks = [decode(Block, block) for block in data]
    return MinedChain(folder, network, judge, list(chain.headers), blocks, data, chain.state, clock.now)


@pytest.fixture
def copy_of(mined: MinedChain, tmp_path: Path) -> Callable[[], Path]:
    """Make copies of the mined chain's folder for a test to damage."""
    count = iter(range(1_000))

    def copy() -> Path:
        return Path(shutil.copytree(mined.folder, tmp_path / f"copy-{next(count)}"))

    return copy


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `poaid` in this process: exit status, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poaid", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call
