"""Models by height: present, missing, or another file; loaded when the file comes, dropped when nobody needs them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from poai_engine.errors import ModelError
from poai_engine.models.model_store import resolve_model
from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import get_model_manifest
from poaid.chain import judges
from poaid.chain.judges import Models, list_upgrades, load_judge
from poaid.network_file import Network, plan_upgrade

MICRO = get_model_manifest("micro")
THERE, BACK = 6, 12
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def changing(network: Network) -> Network:
    """The network with another model from height 6 to 11."""
    return plan_upgrade(plan_upgrade(network, THERE, "micro"), BACK, "mini")


def make_models(changing: Network, file: Path) -> Models:
    models = Models(changing, {MICRO: str(file)}, 1, 0, lambda _: None)
    models.load()
    return models


def test_a_missing_model_stops_nothing_before_its_height(changing: Network, tmp_path: Path) -> None:
    models = make_models(changing, tmp_path / "none.gguf")
    assert [(need.rules.since, need.state) for need in models.list_needs()] == [
        (0, "present"),
        (THERE, "missing"),
        (BACK, "present"),
    ]
    assert [models.explain_missing(height) is None for height in (1, THERE - 1, THERE, BACK - 1, BACK)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert (models.explain_missing(THERE) or "").startswith(f"the model from height {THERE} on is missing: no model")
    assert models.judge.models[0].engine is models.judge.models[BACK].engine, "one file is loaded once"
    shown = list_upgrades(changing, THERE, models.list_needs())
    assert [(view["height"], view["passed"], view["model"]) for view in shown] == [
        (THERE, True, "missing"),
        (BACK, False, "present"),
    ]
    assert "no model" in shown[0]["hint"]


def test_another_file_is_said_to_be_another(changing: Network, mini_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "micro.gguf"
    shutil.copy(mini_path, file)
    models = make_models(changing, file)
    assert [need.state for need in models.list_needs()] == ["present", "hash wrong", "present"]
    assert "SHA-256" in (models.explain_missing(THERE) or "")


def test_the_configs_own_model_must_be_there(network: Network, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load_judge(network, {network.config.model: str(tmp_path / "none.gguf")}, 1, 0, lambda _: None)


@pytest.mark.trio
async def test_it_goes_on_when_the_file_is_there(
    changing: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "LOOK_S", 0.01)
    file, loaded = tmp_path / "micro.gguf", trio.Event()
    models = make_models(changing, file)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(models.follow, lambda: 0, loaded.set)
        shutil.copy(resolve_model("micro"), file)
        with trio.fail_after(PATIENCE_S):
            await loaded.wait()
        nursery.cancel_scope.cancel()
    assert models.explain_missing(THERE) is None
    assert models.judge.models[THERE].engine.integer_model_root == MICRO.integer_model_root


def test_a_model_is_dropped_when_no_block_of_it_can_be_reorganised(changing: Network) -> None:
    models = Models(changing, {}, 1, 0, lambda _: None)
    models.load()
    models.drop_old(BACK - 1)
    assert set(models.judge.models) == {THERE, BACK}
    models.drop_old(BACK)
    assert set(models.judge.models) == {BACK}
    models.load()
    assert set(models.judge.models) == {BACK}, "nobody needs it"
    models.need_again(THERE)
    models.load(own=False)
    assert set(models.judge.models) == {THERE, BACK}, "a branch that forks at its blocks does"


def test_a_false_cost_is_refused(network: Network) -> None:
    cheap = replace(network.config.model, position_cost=network.config.model.position_cost - 1)
    lying = replace(network, config=replace(network.config, model=cheap))
    with pytest.raises(Invalid, match="difficulty/cost"):
        load_judge(lying, {cheap: "mini"}, 1, 0, lambda _: None)
