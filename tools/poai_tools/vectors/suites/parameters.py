"""Vectors of the page `parameters`: the network id, the bounds of a config, `--target`, and the presets."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poai_spec.basics.parameters import (
    Config,
    TokenRange,
    check_config,
    compute_network_id,
    get_preset,
    get_target_of_flag,
    make_config,
)
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import HASH32, UINT32, UINT256, RecordKind, Text
from poai_tools.vectors.network import get_manifest, make_network
from poai_tools.vectors.records import CONFIG, MODEL_MANIFEST
from poai_tools.vectors.registry import Function, register

PRESET = Text(("mainnet", "testnet", "minimal"))


def _check_config(i: Mapping[str, Any]) -> dict[str, Any]:
    check_config(i["config"])
    return {}


def _make_config(i: Mapping[str, Any]) -> dict[str, Any]:
    config = make_config(i["name"], i["model_manifest"])
    return {"config": config, "network_id": compute_network_id(config)}


def _get_preset(i: Mapping[str, Any]) -> dict[str, Any]:
    config = get_preset(i["name"])
    return {"config": config, "network_id": compute_network_id(config)}


COMPUTE_NETWORK_ID = register(
    Function(
        suite="parameters",
        name="compute_network_id",
        page="parameters",
        summary="the hash that names a network",
        input=RecordKind({"config": CONFIG}),
        output=RecordKind({"network_id": HASH32}),
        run=lambda i: {"network_id": compute_network_id(i["config"])},
    )
)
CHECK_CONFIG = register(
    Function(
        suite="parameters",
        name="check_config",
        page="parameters",
        summary="refuse a config that breaks a bound",
        input=RecordKind({"config": CONFIG}),
        output=RecordKind({}),
        run=_check_config,
    )
)
GET_TARGET_OF_FLAG = register(
    Function(
        suite="parameters",
        name="get_target_of_flag",
        page="parameters",
        summary="the target of `--target N`",
        input=RecordKind({"thousandths": UINT32}),
        output=RecordKind({"target": UINT256}),
        run=lambda i: {"target": get_target_of_flag(i["thousandths"])},
    )
)
MAKE_CONFIG = register(
    Function(
        suite="parameters",
        name="make_config",
        page="parameters",
        summary="the numbers of a preset with another model, unchecked",
        input=RecordKind({"name": PRESET, "model_manifest": MODEL_MANIFEST}),
        output=RecordKind({"config": CONFIG, "network_id": HASH32}),
        run=_make_config,
    )
)
GET_PRESET = register(
    Function(
        suite="parameters",
        name="get_preset",
        page="parameters",
        summary="the config of a preset with its pinned model",
        input=RecordKind({"name": PRESET}),
        output=RecordKind({"config": CONFIG, "network_id": HASH32}),
        run=_get_preset,
    )
)


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_network_id(), _check_config_file(), _target_of_flag(), _configs(), _presets()]


def _change(config: Config, **changes: Any) -> Config:
    """Return a config with other fields; those of the model are named `model_...`."""
    model = {key.removeprefix("model_"): value for key, value in changes.items() if key.startswith("model_")}
    rest = {key: value for key, value in changes.items() if not key.startswith("model_")}
    return replace(config, model=replace(config.model, **model), **rest)


def _network_id() -> CaseFile:
    base = make_network()
    changes: dict[str, dict[str, Any]] = {
        "network": {},
        "version": {"version": 2},
        "profile": {"profile": b"llama.cpp"},
        "gguf-sha256": {"model_gguf_sha256": bytes(32)},
        "integer-model-root": {"model_integer_model_root": bytes(32)},
        "questions-digest": {"model_questions_digest": bytes(32)},
        "corpus": {"model_corpus": True},
        "layer-count": {"model_layer_count": 4},
        "vocabulary-size": {"model_vocabulary_size": 906},
        "add-bos": {"model_add_bos": False},
        "bos-id": {"model_bos_id": 2},
        "salt-ranges": {"model_salt_ranges": (TokenRange(259, 300), TokenRange(302, 904))},
        "epoch-blocks": {"epoch_blocks": 4},
        "retarget-blocks": {"retarget_blocks": 5},
        "spacing": {"spacing": 1001},
        "max-future": {"max_future": 399},
        "quiz-tokens": {"quiz_tokens": 33},
        "salt-tokens": {"salt_tokens": 5},
        "scored-tokens": {"scored_tokens": 3},
        "max-target": {"max_target": 2**256 - 2},
        "initial-target": {"initial_target": 2**255 - 1},
        "genesis-timestamp": {"genesis_timestamp": base.genesis_timestamp + 1},
        "genesis-seed": {"genesis_seed": bytes(32)},
    }
    cases = [Case(name, "every field counts", {"config": _change(base, **c)}) for name, c in changes.items()]
    cases += [Case(f"preset-{name}", "a preset", {"config": get_preset(name)}) for name in ("testnet", "minimal")]
    return CaseFile(COMPUTE_NETWORK_ID, "The network of the vectors, changed in one field.", tuple(cases))


FREE = {"model_position_cost": 0, "model_pair_cost": 0, "model_scored_cost": 0}
GOOD: dict[str, dict[str, Any]] = {
    "cheapest": {**FREE, "model_scored_cost": 1},
    "network": {},
    "llama-cpp": {"profile": b"llama.cpp"},
    "shortest-period": {"retarget_blocks": 1, "spacing": 4, "max_future": 0},
    "shortest-epoch": {"epoch_blocks": 1},
    "period-of-65-bits": {"retarget_blocks": 2**32, "spacing": 2**32},
    "longest-period": {"retarget_blocks": 2**64 - 1, "spacing": 2**64 - 1, "max_future": 2**64 - 1},
    "longest-epoch": {"epoch_blocks": 2**64 - 1, "genesis_timestamp": 2**64 - 1},
    "no-future": {"max_future": 0},
    "targets-equal": {"initial_target": 2**240, "max_target": 2**240},
    "target-one": {"initial_target": 1},
    "quiz-2048": {"quiz_tokens": 2048},
    "corpus": {"model_corpus": True},
    "one-scored": {"scored_tokens": 1},
    "most-scored": {"scored_tokens": 24},
    "no-bos-most-scored": {"model_add_bos": False, "model_bos_id": 0, "scored_tokens": 25},
    "no-salt": {"salt_tokens": 0},
    "one-layer": {"model_layer_count": 1},
    "layers-256": {"model_layer_count": 256},
    "whole-vocabulary": {"model_salt_ranges": (TokenRange(0, 904),)},
    "one-id": {"model_salt_ranges": (TokenRange(0, 0),)},
    "ranges-with-a-gap": {"model_salt_ranges": (TokenRange(3, 3), TokenRange(5, 904))},
    "last-bos": {"model_bos_id": 904},
}
BAD: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("network", "version-0", "below", {"version": 0}),
    ("network", "version-2", "above", {"version": 2}),
    ("network", "profile-empty", "no profile", {"profile": b""}),
    ("network", "profile-capitals", "another profile", {"profile": b"W8A8"}),
    ("network", "profile-longer", "one character more", {"profile": b"w8a8 "}),
    ("network", "no-epoch", "an epoch of no block", {"epoch_blocks": 0}),
    ("shortest-period", "no-period", "a period of no block", {"retarget_blocks": 0}),
    ("shortest-period", "period-3", "a period of 3 ms", {"spacing": 3}),
    ("shortest-period", "no-spacing", "no time between blocks", {"spacing": 0}),
    ("network", "future-above-a-tenth", "1 ms above a tenth of a period", {"max_future": 401}),
    ("network", "future-times-10-above-64-bits", "ten times it is 2^64 + 4", {"max_future": 1844674407370955162}),
    ("network", "future-most", "2^64 - 1 ms", {"max_future": 2**64 - 1}),
    ("network", "all-salt-most", "salt and BOS together pass 32 bits", {"salt_tokens": 2**32 - 1}),
    ("network", "most-scored-32-bits", "2^32 - 1 scored tokens", {"scored_tokens": 2**32 - 1}),
    ("shortest-period", "future-of-short-period", "1 ms of 4", {"max_future": 1}),
    ("target-one", "target-zero", "the initial target is 0", {"initial_target": 0}),
    ("targets-equal", "target-above", "the initial target is above the maximum", {"initial_target": 2**240 + 1}),
    ("targets-equal", "no-maximum", "the maximum is 0", {"max_target": 0}),
    ("quiz-2048", "quiz-2049", "one token more", {"quiz_tokens": 2049}),
    ("most-scored", "one-more-scored", "a position of the salt could be needed", {"scored_tokens": 25}),
    ("no-bos-most-scored", "no-bos-one-more-scored", "the same without BOS", {"scored_tokens": 26}),
    ("network", "none-scored", "nothing is scored", {"scored_tokens": 0}),
    ("network", "all-salt", "no room for questions", {"salt_tokens": 40}),
    ("one-layer", "no-cost", "a quiz without multiplications", FREE),
    ("one-layer", "cost-too-large", "2^64 multiplications", {**FREE, "model_pair_cost": 2**64 - 1}),
    ("one-layer", "no-layer", "a model without layers", {"model_layer_count": 0}),
    ("layers-256", "layers-257", "more than a trace holds", {"model_layer_count": 257}),
    ("layers-256", "layers-most", "2^32 - 1 layers", {"model_layer_count": 2**32 - 1}),
    ("network", "range-reversed", "first above last", {"model_salt_ranges": (TokenRange(904, 259),)}),
    ("whole-vocabulary", "range-outside", "one id too many", {"model_salt_ranges": (TokenRange(0, 905),)}),
    (
        "ranges-with-a-gap",
        "ranges-adjacent",
        "not maximal",
        {"model_salt_ranges": (TokenRange(3, 4), TokenRange(5, 904))},
    ),
    (
        "ranges-with-a-gap",
        "ranges-overlap",
        "an id twice",
        {"model_salt_ranges": (TokenRange(3, 5), TokenRange(5, 904))},
    ),
    (
        "ranges-with-a-gap",
        "ranges-falling",
        "out of order",
        {"model_salt_ranges": (TokenRange(5, 904), TokenRange(3, 3))},
    ),
    ("network", "no-ranges", "no salt ids", {"model_salt_ranges": ()}),
    ("last-bos", "bos-outside", "BOS is no token", {"model_bos_id": 905}),
    ("no-bos-most-scored", "bos-unused", "a BOS that is not used", {"model_bos_id": 1}),
)
TWO: tuple[tuple[str, dict[str, Any]], ...] = (
    ("version-and-profile", {"version": 2, "profile": b""}),
    ("profile-and-period", {"profile": b"", "epoch_blocks": 0}),
    ("period-and-future", {"retarget_blocks": 0}),
    ("future-and-target", {"max_future": 401, "initial_target": 0}),
    ("target-and-quiz", {"initial_target": 0, "scored_tokens": 0}),
    ("quiz-and-layers", {"scored_tokens": 0, "model_layer_count": 0}),
    ("layers-and-ranges", {"model_layer_count": 0, "model_salt_ranges": (TokenRange(5, 4),)}),
    ("ranges-and-bos", {"model_salt_ranges": (TokenRange(5, 4),), "model_bos_id": 905}),
)


def _check_config_file() -> CaseFile:
    network = make_network()
    good = {name: Case(name, "at a bound", {"config": _change(network, **c)}) for name, c in GOOD.items()}
    cases = list(good.values())
    for base, name, comment, changes in BAD:
        config = _change(good[base].input["config"], **changes)
        cases.append(make_negative(CHECK_CONFIG, good[base], name, comment, {"config": config}))
    for name, changes in TWO:
        config = _change(network, **changes)
        comment, flags = "two bounds are broken; the first counts", ("two-rules",)
        cases.append(make_negative(CHECK_CONFIG, good["network"], name, comment, {"config": config}, flags))
    two = ("two rules are broken", "a client that checks in another order gives another code")
    how = "The network of the vectors, changed in one or two fields."
    return CaseFile(CHECK_CONFIG, how, tuple(cases), {"two-rules": two})


def _target_of_flag() -> CaseFile:
    numbers = (1, 2, 3, 7, 500, 999, 1000)
    good = {n: Case(f"n-{n}", f"{n} in a thousand", {"thousandths": n}) for n in numbers}
    cases = [
        *good.values(),
        make_negative(GET_TARGET_OF_FLAG, good[1], "zero", "below the range", {"thousandths": 0}),
        make_negative(GET_TARGET_OF_FLAG, good[1000], "above", "above the range", {"thousandths": 1001}),
    ]
    return CaseFile(GET_TARGET_OF_FLAG, "Chosen by hand.", tuple(cases))


def _configs() -> CaseFile:
    model = get_manifest("mini")
    cases = [
        Case(name, "with poai-mini", {"name": name, "model_manifest": model})
        for name in ("mainnet", "testnet", "minimal")
    ]
    return CaseFile(MAKE_CONFIG, "The names of the presets.", tuple(cases))


def _presets() -> CaseFile:
    good = {name: Case(name, "the preset", {"name": name}) for name in ("testnet", "minimal")}
    mainnet = make_negative(
        GET_PRESET, good["testnet"], "mainnet", "TinyLlama's integer weights are not computed yet", {"name": "mainnet"}
    )
    return CaseFile(GET_PRESET, "The names of the presets.", (*good.values(), mainnet))
