"""A private network of the profile llama.cpp: mined, verified, and refused by another arithmetic."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from poai_engine.engines.llama import LlamaEngine
from poai_engine.errors import ModelError
from poai_spec.basics.containers import Block
from poai_spec.basics.notation import Invalid
from poai_spec.chain.block import check_block, make_judge
from poai_spec.chain.header import make_genesis_header
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.loss import compute_trace_digest
from poai_spec.proof.work import check_trace
from poaid.chain.chain_state import ChainState
from poaid.chain.verify import verify_store
from poaid.models import load_engine
from poaid.network_file import Network, check_network, get_network, write_network
from poaid.produce.attempts import get_time, mine_block
from poaid.store.database import Database
from tests.harness.node import Run

MINER = bytes.fromhex("33" * 20)


@pytest.fixture(scope="module")
def llama_network() -> Network:
    network = get_network("minimal", target=2**255)
    return check_network(replace(network, config=replace(network.config, profile=b"llama.cpp")))


@pytest.mark.llama
def test_blocks_have_one_trace_entry_and_are_valid(llama_network: Network, tmp_path: Path) -> None:
    engine = load_engine("mini", get_rules(llama_network.config, (), 0), None)
    assert isinstance(engine, LlamaEngine)
    judge = make_judge(llama_network.config, llama_network.questions, engine)
    with Database.create_or_open(tmp_path, llama_network, "mini") as store:
        chain = ChainState(store, llama_network.config, get_time())
        for _ in range(3):
            *_, attempts = mine_block(chain.headers, chain.state, judge, MINER)
            block, before = attempts[-1].block, list(chain.headers)
            assert len(block.trace) == 1
            assert check_block(block, before, chain.state, judge, get_time()) != chain.state
            chain.append(block, get_time())
        assert verify_store(store, judge, get_time(), lambda height: None) == chain.state


@pytest.mark.llama
def test_a_trace_of_the_other_profile_has_the_wrong_length(llama_network: Network) -> None:
    engine = load_engine("mini", get_rules(llama_network.config, (), 0), None)
    judge = make_judge(llama_network.config, llama_network.questions, engine)
    chain = [make_genesis_header(llama_network.config)]
    *_, attempts = mine_block(chain, {}, judge, MINER)
    block = attempts[-1].block
    trace = block.trace * (llama_network.config.model.layer_count + 1)
    header = replace(block.header, trace_digest=compute_trace_digest(trace))
    with pytest.raises(Invalid) as caught:
        check_trace(Block(header, block.body, trace), get_rules(llama_network.config, (), 0))
    assert caught.value.code == "work/trace-length"


@pytest.mark.llama
def test_the_command(llama_network: Network, tmp_path: Path, run: Run) -> None:
    file, data = tmp_path / "private.toml", tmp_path / "data"
    write_network(llama_network, file)
    status, out, err = run("mine", "--network", file, "--blocks", 2, "--data-dir", data, "--gpu-layers", 1)
    assert (status, err.splitlines()[-1]) == (
        1, "error: this build of llama.cpp has no GPU: leave --gpu-layers out, or build llama-cpp-python for your GPU"
    )  # fmt: skip
    assert run("mine", "--network", file, "--blocks", 2, "--data-dir", data)[0] == 0
    status, out, err = run("verify", "--data-dir", data)
    assert (status, out.startswith("2 blocks of network")) == (0, True)
    status, out, err = run("mine", "--network", "minimal", "--blocks", 1, "--data-dir", data)
    assert status == 1
    assert "belongs to network" in err


def test_without_llama_cpp_one_line_says_what_to_install(
    llama_network: Network, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    write_network(llama_network, tmp_path / "private.toml")
    status, _, err = run("mine", "--network", tmp_path / "private.toml", "--blocks", 1, "--data-dir", tmp_path / "d")
    needs = "the profile llama.cpp needs llama-cpp-python, which is not installed: pip install 'poai[llama]'"
    assert (status, err.splitlines()[-1]) == (1, f"error: {needs}")


@pytest.mark.llama
def test_another_file_is_not_the_networks_model(llama_network: Network, mini_path: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copy(mini_path, tmp_path / "changed.gguf"))
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"changed\.gguf is not this network's model \(SHA-256 465be937"):
        load_engine(str(changed), get_rules(llama_network.config, (), 0), None)
