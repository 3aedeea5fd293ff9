"""The network of the vectors: poai-mini with periods and epochs of a few blocks, so that every rule acts early."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from poai_spec.basics.notation import Invalid
from poai_spec.basics.parameters import (
    Config,
    ModelManifest,
    TokenRange,
    check_config,
    get_model_manifest,
    make_config,
    read_manifest,
)
from poai_spec.chain.upgrades import Rules, Upgrade, check_upgrades, get_rules, make_change
from poai_tools.vectors.cases import derive_seed
from poai_tools.vectors.kinds import KindError

MODEL = "mini"
OTHER_MODEL = "micro"
LEXICON = "mini"


@cache
def make_network() -> Config:
    """Return the config: every second quiz wins at first, an epoch has 3 blocks and a difficulty period 4."""
    config = make_config("minimal", get_model_manifest(MODEL))
    return replace(config, epoch_blocks=3, initial_target=2**255, genesis_seed=derive_seed("network", "genesis-seed"))


@cache
def make_upgrades() -> tuple[Upgrade, ...]:
    """Return two upgrades of it: another model with longer quizzes in a period's middle, then back, at a border.

    Periods end at the heights 5 and 9, so 10 is the first height after one; from then on one has 3 blocks.
    """
    micro = make_change(model=get_model_manifest(OTHER_MODEL), quiz_tokens=40, scored_tokens=3)
    back = {"model": get_model_manifest(MODEL), "quiz_tokens": 36, "salt_tokens": 4}
    return (
        Upgrade(4, micro),
        Upgrade(10, make_change(retarget_blocks=3, spacing=1_500, max_future=300, **back)),
    )


def read_rules(values: Mapping[str, Any]) -> Rules:
    """Return the rules of the height of an input that has a config and upgrades.

    Raises:
        KindError: they are not allowed.
    """
    require_config(values["config"], values["upgrades"])
    return get_rules(values["config"], values["upgrades"], values["height"])


def require_config(config: Config, upgrades: tuple[Upgrade, ...] = ()) -> None:
    """Refuse a config that no network has: functions that take one are defined for those that pass `check_config`.

    Raises:
        KindError: it breaks a bound.
    """
    try:
        check_config(config)
        check_upgrades(config, upgrades)
    except Invalid as error:
        raise KindError(f"config: {error}") from error


def get_manifest(name: str) -> ModelManifest:
    """Return a pinned model's manifest, with a root of zeros where it has not been computed yet."""
    data: dict[str, Any] = read_manifest(name)
    root = data["integer_model_root"] or "0x" + "00" * 32
    return ModelManifest(
        gguf_sha256=bytes.fromhex(data["gguf_sha256"].removeprefix("0x")),
        integer_model_root=bytes.fromhex(root.removeprefix("0x")),
        questions_digest=bytes.fromhex(data["lexicon_digest"].removeprefix("0x")),
        corpus=False,
        layer_count=data["layer_count"],
        vocabulary_size=data["vocabulary_size"],
        add_bos=data["add_bos"],
        bos_id=data["bos_id"],
        position_cost=data["position_cost"],
        pair_cost=data["pair_cost"],
        scored_cost=data["scored_cost"],
        salt_ranges=tuple(TokenRange(first, last) for first, last in data["salt_ranges"]),
    )
