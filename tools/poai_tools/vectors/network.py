"""The network of the vectors: poai-mini with periods and epochs of a few blocks, so that every rule acts early."""

from dataclasses import replace
from functools import cache
from typing import Any

from poai_spec.notation import Invalid
from poai_spec.parameters import (
    Config,
    ModelManifest,
    TokenRange,
    check_config,
    get_model_manifest,
    make_config,
    read_manifest,
)
from poai_tools.vectors.cases import derive_seed
from poai_tools.vectors.kinds import KindError

MODEL = "mini"
LEXICON = "mini"


@cache
def make_network() -> Config:
    """Return the config: every second quiz wins at first, an epoch has 3 blocks and a difficulty period 4."""
    config = make_config("minimal", get_model_manifest(MODEL))
    return replace(config, epoch_blocks=3, initial_target=2**255, genesis_seed=derive_seed("network", "genesis-seed"))


def require_config(config: Config) -> None:
    """Refuse a config that no network has: functions that take one are defined for those that pass `check_config`.

    Raises:
        KindError: it breaks a bound.
    """
    try:
        check_config(config)
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
        salt_ranges=tuple(TokenRange(first, last) for first, last in data["salt_ranges"]),
    )
