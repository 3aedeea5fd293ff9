"""The benches of speed: what they measure and what they write; never how fast it is."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poai_bench import engine_bench, execution_bench, header_bench, replay_bench, spec_bench
from poai_bench.measure import Spread, Worker
from poai_bench.plots.registry import MEASURED
from poai_engine.errors import ModelError
from poai_engine.kernels.tile import get_tile
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_engine.models.weight_cache import CACHE_DIR_VARIABLE
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import get_preset
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.evm import NO_INPUT, OUT_OF_GAS, Frame
from poai_spec.execution.interpreter import run_call
from poai_spec.execution.world import World
from poai_spec.model.integer_model import read_architecture
from poai_tools import cli
from poaid.chain.header_check import check_encoded_header

TINY = ("engine", "--model", "mini", "--threads", "1", "--batch", "1", "--batch", "3", "--rounds", "2")
MACHINE = {"system", "machine", "cpus", "load_average", "python", "numpy"}

pytestmark = pytest.mark.sockets


@pytest.fixture(scope="module", autouse=True)
def _folders(mini_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Only mini is there; the weights are kept in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))
        patch.setenv(CACHE_DIR_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["bench", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def run_to_json(file: Path, *arguments: object) -> dict[str, Any]:
    assert run(*arguments, "--json", file)[0] == 0
    found: dict[str, Any] = json.loads(file.read_text())
    assert found["machine"].keys() >= MACHINE
    return found


def check_spread(spread: dict[str, float], count: int) -> None:
    assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert spread["count"] == count


def test_a_spread_is_median_and_ends() -> None:
    assert Spread.of([4, 1, 2]) == Spread(2, 1, 4, 3)
    assert Spread.of(iter([1.0, 2.0])).median == 1.5


def test_the_operations_of_a_quiz_are_those_of_its_products(mini_path: Path) -> None:
    a = read_architecture(read_gguf(mini_path))
    assert (a.layer_count, a.width, a.head_count, a.kv_head_count, a.head_dim, a.ffn_width) == (3, 64, 4, 2, 16, 256)
    layer = 64 * 64 + 32 * 64 + 32 * 64 + 64 * 64 + 3 * 64 * 256
    pairs = 1 + 2 + 3 + 4 + 5
    products = 3 * (5 * layer + 2 * pairs * 4 * 16) + 2 * 64 * a.vocabulary_size
    assert engine_bench.count_operations(a, length=5, scored=2) == 2 * products


def test_engine_without_llama(tmp_path: Path) -> None:
    result = run_to_json(tmp_path / "r", *TINY, "--no-llama", "--plots", tmp_path / "plots")
    assert [(row["model"], row["threads"], row["batch"]) for row in result["results"]] == [
        ("mini", 1, 1), ("mini", 1, 3)]  # fmt: skip
    for row in result["results"]:
        assert row["llama_cpp"] is row["best"] is row["ratio"] is None
        assert row.keys() >= {"quizzes_a_second", "peak_share", "peak", "load_seconds", "operations_a_second"}
        assert row["exact"] == row["spread"]["exact"]["median"]
        check_spread(row["spread"]["exact"], 2)
        assert row["quizzes_a_second"] == {"exact": row["exact"] / 64}
        if row["peak"] is None:
            assert get_tile().product == "pairs"
            assert row["peak_share"] is None
        else:
            assert 1 > row["peak_share"] == row["operations_a_second"] / row["peak"] > 0
        assert 20e6 < row["peak_memory"]["exact"] < 2e9
    assert [(row["threads"], row["batch"]) for row in result["decoding"]] == [(1, 1)]
    check_spread(result["decoding"][0]["spread"]["exact"], 2)
    for picture in MEASURED["engine"]:
        assert (tmp_path / "plots" / picture.file).read_text("utf-8").startswith("<?xml")


@pytest.mark.slow
@pytest.mark.llama
def test_engine_beside_llama_does_the_same_work(tmp_path: Path) -> None:
    file = tmp_path / "r"
    result = run_to_json(file, *TINY)
    for row in (*result["results"], *result["decoding"]):
        types, best = row["llama_cpp"], row["best"]
        assert types.keys() >= {"Q4_0", "Q4_1", "Q8_0"}
        assert best["tokens_per_second"] == max(types.values()) == types[best["type"]]
        assert row["ratio"] == row["exact"] / best["tokens_per_second"]
        for kind, rate in types.items():
            assert rate == row["spread"][kind]["median"]
            check_spread(row["spread"][kind], 2)
    for row in result["results"]:
        losses = row["mean_loss"]
        assert abs(losses["exact"] - losses["Q8_0"]) < 0.1, "other tokens, positions or scored ones"
        assert losses["exact"] > 1
    status, output = run("show", file, "--markdown", "--plots", tmp_path)
    assert status == 0
    assert "| threads | batch |" in output
    assert f"{result['results'][1]['ratio']:.2f}" in output
    assert (tmp_path / MEASURED["engine"][0].file).is_file()


@pytest.mark.llama
@pytest.mark.slow
def test_start(tmp_path: Path) -> None:
    (row,) = run_to_json(tmp_path / "r", "start", "--model", "mini", "--rounds", "1")["results"]
    assert row.keys() >= {"model", "threads", "cold", "cached", "llama_cpp", "ratio"}
    assert row["ratio"] == row["cached"] / row["llama_cpp"]
    assert row["phases"].keys() == {"cold", "cached", "llama_cpp"}
    for phases in row["phases"].values():
        for name in ("import", "load", "quiz"):
            check_spread(phases[name], 1)


@pytest.mark.parametrize("command", ["engine", "start"])
def test_a_missing_llama_is_said_with_both_ways_on(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(ModelError, match=r"pip install 'poai\[llama\]'.*--no-llama"):
        run(command, "--model", "mini")


def test_missing_matplotlib_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModelError, match=r"pip install 'poai\[bench\]'"):
        run(*TINY, "--plots", tmp_path)


def test_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_bench, "QUICK_HEADERS", 12)
    result = run_to_json(tmp_path / "r", "headers", "--quick")
    assert len(result["results"]) == 6
    for row in result["results"]:
        assert row["per_second"] == row["spread"]["median"]
        check_spread(row["spread"], header_bench.QUICK_ROUNDS)


def test_execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop ends by its gas, every transfer succeeds, and each instruction is listed once, the worst first."""
    for name, value in {"QUICK_GAS": 20_000, "QUICK_TRANSFERS": 12, "QUICK_KEYS": 20}.items():
        monkeypatch.setattr(execution_bench, name, value)
    result = run_to_json(tmp_path / "r", "execution", "--quick")
    assert len(result["results"]) == len(execution_bench.LOOPS) + 3
    assert {row["instruction"] for row in result["instructions"]} == execution_bench.INSTRUCTIONS.keys()
    costs = [row["ns_per_gas"] for row in result["instructions"]]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("name", execution_bench.INSTRUCTIONS)
def test_an_instructions_loop_ends_by_its_gas_and_by_nothing_else(name: str) -> None:
    body, setup = execution_bench.INSTRUCTIONS[name]
    code = setup + b"\x5b" + body * 2 + execution_bench.push(len(setup)) + b"\x56"
    world = World(execution_bench.BenchState({execution_bench.CONTRACT: code, execution_bench.OTHER: b"\x00"}))
    environment = execution_bench.make_environment(execution_bench.RICH)
    frame = Frame(
        world, environment, execution_bench.CONTRACT, execution_bench.RICH, 0, NO_INPUT, code, 300_000,
        code_address=execution_bench.CONTRACT,
    )  # fmt: skip
    run_call(frame)
    assert frame.halted == OUT_OF_GAS


def test_the_chain_of_the_header_bench_passes_but_for_the_header_without_work() -> None:
    config = get_preset("testnet")
    chain = header_bench.make_chain(config, 25)
    hashes: list[bytes] = []
    for height, header in enumerate(chain):
        if height:
            found, block_hash = check_encoded_header(
                encode(header), chain[:height], hashes, get_rules(config, (), 0), 10**15
            )
            assert found == header
            hashes.append(block_hash)
        else:
            hashes.append(chain[1].core.parent_hash)
    loser = header_bench.find_loss(chain[-1], chain[:-1], config, win=False)
    with pytest.raises(Invalid) as error:
        check_encoded_header(encode(loser), chain[:-1], hashes, get_rules(config, (), 0), 10**15)
    assert error.value.code == "work/l-hat"


def test_replay(tmp_path: Path) -> None:
    result = run_to_json(tmp_path / "r", "replay", "--quick", "--model", "mini", "--blocks", "3")
    assert [(row["model"], row["way"]) for row in result["results"]] == [("mini", "one by one"), ("mini", "in batches")]
    assert result["blocks"] == 3
    for row in result["results"]:
        check_spread(row["spread"], replay_bench.QUICK_ROUNDS)


def test_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_bench, "QUICK_SECONDS", 0.0)
    result = run_to_json(tmp_path / "r", "spec", "--quick")
    pages = {row["what"].partition(":")[0] for row in result["results"]}
    assert pages >= {"drbg", "quiz", "header", "inference", "notation"}
    for row in result["results"]:
        check_spread(row["spread"], spec_bench.QUICK_ROUNDS)


def test_a_worker_says_what_is_wrong() -> None:
    with Worker("poai_bench.engine_worker") as worker:
        with pytest.raises(ModelError, match="absent"):
            worker.ask("load", kind="exact", threads=1, model="absent.gguf")
        assert worker.ask("load", kind="peak", threads=1)["seconds"] > 0, "it goes on"


def test_a_worker_that_ends_is_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    with Worker("poai_tools.absent") as worker, pytest.raises(ModelError, match="ended with status 1"):
        worker.ask("load")
    assert "No module" in capfd.readouterr().err


GROWTH = """
from poai_bench.measure import get_peak_memory
before = get_peak_memory()
block = bytearray(b"x" * 80_000_000)
during = get_peak_memory()
del block
print(during - before, get_peak_memory() - during)
"""


def test_peak_memory_grows_with_what_is_used_and_stays() -> None:
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    growth, later = map(int, done.stdout.split())
    assert 70e6 < growth < 400e6
    assert later == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("engine", "--batch", "0"),
        ("engine", "--batch", "257"),
        ("engine", "--threads", "0"),
        ("engine", "--plots", __file__),
        ("replay", "--blocks", "0"),
        ("start", "--rounds", "0"),
        ("show",),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


@pytest.mark.parametrize("command", ["engine", "start", "headers", "replay", "spec", "execution"])
def test_a_bad_place_for_the_result_is_refused_at_once(command: str, tmp_path: Path) -> None:
    assert run(command, "--json", tmp_path / "absent" / "file")[0] == 2


NO_RESULTS = ("", "[]", '{"bench": "other"}', '{"bench": "engine"}', '{"bench": "spec", "results": 1}')


@pytest.mark.parametrize("text", NO_RESULTS)
def test_what_is_no_result_is_not_shown(text: str, tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_text(text)
    with pytest.raises(ModelError, match=str(file)):
        run("show", file)


def test_a_bench_without_plots(tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_text('{"bench": "spec", "results": []}')
    assert run("show", file)[0] == 0
    assert run("show", file, "--plots", tmp_path)[0] == 2


def test_default_models_are_those_that_are_there(
    mini_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_bench.choose_models() == ["mini"]
    assert replay_bench.choose_models() == ["mini"]
    monkeypatch.setenv(MODEL_DIR_VARIABLE, str(tmp_path))
    for name in ("SmolLM2-135M-Instruct.Q4_1.gguf", "tinyllama-shape.gguf"):
        (tmp_path / name).touch()
    assert engine_bench.choose_models() == ["smollm2", "tinyllama-shape"]
