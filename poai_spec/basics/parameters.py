# # Parameters  [generated from specs/basics/parameters.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The numbers in which networks differ when they begin, and those of version 1 that every page needs. (A number that one
# page alone needs stands there, with its reason: sizes and rates on [networking](../chain/networking.md), limits of the store on
# [fork-choice](../chain/fork-choice.md), bounds of models on [integer-model](../model/integer-model.md).) A network is a `Config`: a frozen
# container passed explicitly to whatever needs it. Its hash, the *network id*, covers every parameter and the model, and
# is the parent of the genesis header, so two networks share no block hash. A config never changes; what holds at a later
# height is on the page [upgrades](../chain/upgrades.md).


import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from ssz.sedes import ByteList, List, boolean, bytes32, uint32, uint64, uint256

from poai_spec.basics.encoding import encode, get_sedes, ssz_field
from poai_spec.basics.notation import Hash32, Invalid, Milliseconds, Target, Wei, tagged_hash


# ## Constants of version 1

# Equal in every network; the field `version` of the config stands for them.

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `PROTOCOL_VERSION` | 1 | | the only header version there is |
# | `MEDIAN_TIME_BLOCKS` | 11 | blocks | Bitcoin's window: one false stamp cannot move the median |
# | `RETARGET_CLAMP` | 4 | | Bitcoin's bound on one step, up and down |
# | `MAX_FUTURE_SHARE` | 10 | | `max_future` is at most a period over this: [false stamps](../proof/difficulty.md#rationale) gain at most 1.111x the blocks over one period, 1.002x over fifty |
# | `INITIAL_SUBSIDY` | 5 * 10^18 | wei | 5 POAI |
# | `HALVING_BLOCKS` | 210,000 | blocks | 4 years at 600 s |
# | `MAX_QUIZ_TOKENS` | 2,048 | tokens | the shortest context among models worth running |
# | `MAX_TRACE` | 257 | digests | 256 layers and the output: above every known model |
# | `MAX_SALT_RANGES` | 65,536 | ranges | real vocabularies need 1 to 60 |
# | `MAX_MULTIPLICATIONS` | 2^64 - 1 | | of one quiz; TinyLlama takes 7 * 10^10 |
# | `MAX_TRANSACTIONS` | 4,096 | | reserved: version 1 holds none |
# | `MAX_TRANSACTION_BYTES` | 131,072 | bytes | reserved; what Ethereum's pools accept |


PROTOCOL_VERSION = 1
MEDIAN_TIME_BLOCKS = 11
RETARGET_CLAMP = 4
MAX_FUTURE_SHARE = 10
INITIAL_SUBSIDY: Wei = 5 * 10**18
HALVING_BLOCKS = 210_000
MAX_QUIZ_TOKENS = 2_048
MAX_TRACE = 257
MAX_SALT_RANGES = 65_536
MAX_MULTIPLICATIONS = 2**64 - 1
MAX_TRANSACTIONS = 4_096
MAX_TRANSACTION_BYTES = 131_072
UINT256_MAX = 2**256 - 1


# ## Networks

# | | mainnet | testnet | minimal |
# | --- | --- | --- | --- |
# | model | TinyLlama-1.1B-Chat-v1.0 Q4_K_M | SmolLM2-135M-Instruct Q4_1 | poai-mini |
# | `epoch_blocks` | 2016 | 20 | 4 |
# | `retarget_blocks` | 2016 | 10 | 4 |
# | `spacing`, ms | 600,000 | 15,000 | 1,000 |
# | `max_future`, ms | 7,200,000 | 15,000 | 400 |
# | `quiz_tokens` | 64 | 64 | 32 |
# | `salt_tokens` | 8 | 8 | 6 |
# | `scored_tokens` | 8 | 8 | 2 |
# | `max_target` | 2^256 - 1 | 2^256 - 1 | 2^256 - 1 |
# | `initial_target` | 2^256 / 1000 | 2^256 / 20 | 2^256 / 4 |

# `local` is testnet's numbers with whatever model the user names. The manifests of the models are the JSON files of
# `specs/manifests/`.

# ## Types

# ### `TokenRange`


@dataclass(frozen=True)
class TokenRange:
    """The token ids `first .. last`, both included."""

    first: int = ssz_field(uint32)
    last: int = ssz_field(uint32)


# ### `ModelManifest`


@dataclass(frozen=True)
class ModelManifest:
    """What pins a model: two nodes with equal manifests compute equal losses.

    Attributes:
        gguf_sha256: SHA-256 of the GGUF file.
        integer_model_root: Keccak root of the integer weights (page integer-model).
        questions_digest: digest of the lexicon's token ids (page lexicon), or of the corpus (page corpus).
        corpus: False for generated questions, True for a test corpus.
        layer_count: number of transformer blocks L; in the profile `w8a8` a trace has L + 1 entries.
        vocabulary_size: number of token ids V.
        add_bos: whether a sequence begins with `bos_id` (GGUF `tokenizer.ggml.add_bos_token`).
        bos_id: the begin-of-sequence token; 0 where `add_bos` is False.
        position_cost: multiplications by the blocks' matrices at one position (page integer-model, `compute_cost`).
        pair_cost: multiplications of attention for one position and one that it sees, itself among them.
        scored_cost: multiplications by the head for one scored position.
        salt_ranges: ids that a salt is drawn from: every token of normal type, ascending, in maximal ranges.
    """

    gguf_sha256: Hash32 = ssz_field(bytes32)
    integer_model_root: Hash32 = ssz_field(bytes32)
    questions_digest: Hash32 = ssz_field(bytes32)
    corpus: bool = ssz_field(boolean)
    layer_count: int = ssz_field(uint32)
    vocabulary_size: int = ssz_field(uint32)
    add_bos: bool = ssz_field(boolean)
    bos_id: int = ssz_field(uint32)
    position_cost: int = ssz_field(uint64)
    pair_cost: int = ssz_field(uint64)
    scored_cost: int = ssz_field(uint64)
    salt_ranges: tuple[TokenRange, ...] = ssz_field(List(get_sedes(TokenRange), MAX_SALT_RANGES), item=TokenRange)


# ### `Config`


@dataclass(frozen=True)
class Config:
    """What a network began with; its id covers it, and it never changes.

    Attributes:
        version: `PROTOCOL_VERSION`.
        profile: how logits are computed: `w8a8` (page inference) or `llama.cpp` (page llama-profile), ASCII.
        model: the model manifest.
        epoch_blocks: blocks in an epoch.
        retarget_blocks: blocks in a difficulty period, R.
        spacing: intended time between blocks, ms.
        max_future: how far a time stamp may lie ahead of the local clock, ms.
        quiz_tokens: length of a quiz in tokens.
        salt_tokens: random tokens at its start.
        scored_tokens: positions whose loss counts.
        max_target: the easiest target.
        initial_target: the target of genesis and of the first period.
        genesis_timestamp: time stamp of genesis, ms.
        genesis_seed: seed of epoch 0; also what tells apart networks of otherwise equal numbers.
    """

    version: int = ssz_field(uint32)
    profile: bytes = ssz_field(ByteList(32))
    model: ModelManifest = ssz_field(ModelManifest)
    epoch_blocks: int = ssz_field(uint64)
    retarget_blocks: int = ssz_field(uint64)
    spacing: Milliseconds = ssz_field(uint64)
    max_future: Milliseconds = ssz_field(uint64)
    quiz_tokens: int = ssz_field(uint32)
    salt_tokens: int = ssz_field(uint32)
    scored_tokens: int = ssz_field(uint32)
    max_target: Target = ssz_field(uint256)
    initial_target: Target = ssz_field(uint256)
    genesis_timestamp: Milliseconds = ssz_field(uint64)
    genesis_seed: Hash32 = ssz_field(bytes32)


# ## Functions

# ### `compute_network_id`


@cache
def compute_network_id(config: Config) -> Hash32:
    """Return `Keccak(tag || ssz(config))`, which names the network and is the parent hash of genesis."""
    return tagged_hash("PoAI/network/1", encode(config))


# ### `check_config`

# The bounds that other pages rely on. `R * spacing >= 4` keeps the retarget's divisor positive; `max_future` bounds the
# time warp (page [difficulty](../proof/difficulty.md)). Whether the longest question fits depends on the lexicon or
# corpus and is checked where that is (page [quiz](../proof/quiz.md)).


def check_config(config: Config) -> None:
    """Refuse a network whose numbers break a bound that the protocol's arguments need.

    Raises:
        Invalid: `parameters/...`, one code a bound.
    """
    period = config.retarget_blocks * config.spacing
    if config.version != PROTOCOL_VERSION:
        raise Invalid("parameters/version", f"version {config.version}, this is {PROTOCOL_VERSION}")
    if config.profile not in (b"w8a8", b"llama.cpp"):
        raise Invalid("parameters/profile", f"profile {config.profile!r} is neither w8a8 nor llama.cpp")
    if config.epoch_blocks < 1 or config.retarget_blocks < 1 or period < RETARGET_CLAMP:
        raise Invalid("parameters/period", "epoch_blocks and retarget_blocks are at least 1, a period at least 4 ms")
    if config.max_future * MAX_FUTURE_SHARE > period:
        raise Invalid("parameters/max-future", f"max_future {config.max_future} is above a tenth of {period} ms")
    if not 1 <= config.initial_target <= config.max_target:
        raise Invalid("parameters/target", "1 <= initial_target <= max_target does not hold")
    first_question = config.salt_tokens + int(config.model.add_bos)
    if config.quiz_tokens > MAX_QUIZ_TOKENS or not 1 <= config.scored_tokens < config.quiz_tokens - first_question:
        raise Invalid("parameters/quiz-length", "1 <= scored < quiz - salt - BOS and quiz <= 2048 do not both hold")
    if config.model.layer_count < 1 or config.model.layer_count + 1 > MAX_TRACE:
        raise Invalid("parameters/layer-count", f"{config.model.layer_count} layers; 1 to {MAX_TRACE - 1} are allowed")
    if not 1 <= compute_multiplications(config.model, config.quiz_tokens, config.scored_tokens) <= MAX_MULTIPLICATIONS:
        raise Invalid("parameters/cost", f"a quiz takes 1 to {MAX_MULTIPLICATIONS} multiplications")
    check_salt_ranges(config.model)


# ### `compute_multiplications`

# What a quiz costs, as one number that every node agrees on: the multiplications of weights and activations, and of
# activations with each other in attention, that no implementation can leave out. A quiz of T tokens has T positions, each
# of which sees itself and all before it, so T (T + 1) / 2 pairs, and the head is needed for the S scored positions only.
# What is done once a row (norms, rotation, softmax, rescaling) is not counted: it grows with the width, not its square.


def compute_multiplications(model: ModelManifest, quiz_tokens: int, scored_tokens: int) -> int:
    """Return the multiplications of one quiz: the unit in which work is counted."""
    pairs = quiz_tokens * (quiz_tokens + 1) // 2
    return quiz_tokens * model.position_cost + pairs * model.pair_cost + scored_tokens * model.scored_cost


# ### `check_salt_ranges`


def check_salt_ranges(model: ModelManifest) -> None:
    """Refuse salt ranges that are empty, too many, out of order, adjacent, or outside the vocabulary.

    Raises:
        Invalid: `parameters/salt-ranges`, `parameters/salt-empty`.
    """
    previous = -2
    for number, span in enumerate(model.salt_ranges):
        ordered = previous + 1 < span.first <= span.last < model.vocabulary_size
        if number >= MAX_SALT_RANGES or not ordered:
            raise Invalid("parameters/salt-ranges", f"range {span.first}..{span.last} is out of order or vocabulary")
        previous = span.last
    if previous < 0 or model.bos_id >= (model.vocabulary_size if model.add_bos else 1):
        raise Invalid("parameters/salt-empty", "no salt ids, or a BOS id that is no token, or not used")


# ### `get_target_of_flag`

# The README's `--target N` counts thousandths: 500 means that every second quiz wins, and 1000 that every quiz does.


def get_target_of_flag(thousandths: int) -> Target:
    """Return the target of `--target N`, N in 1 .. 1000.

    Raises:
        Invalid: `parameters/target-flag`.
    """
    if not 1 <= thousandths <= 1000:
        raise Invalid("parameters/target-flag", f"--target {thousandths}: give 1..1000 (thousandths), or 0x... itself")
    return min(thousandths * 2**256 // 1000, UINT256_MAX)


# ## Manifests and presets

# ### `read_manifest`


def read_manifest(name: str) -> dict[str, Any]:
    """Return `specs/manifests/NAME.json`: `mini`, `micro`, `smollm2-135m`, `tinyllama-shape` or `tinyllama-1.1b`."""
    text = (files("poai_spec") / "manifests" / f"{name}.json").read_text("utf-8")
    manifest: dict[str, Any] = json.loads(text)
    return manifest


# ### `get_model_manifest`


def get_model_manifest(name: str) -> ModelManifest:
    """Return the pinned model of that name.

    Raises:
        Invalid: `parameters/model-unpinned`, while the manifest's integer-model root is null.
    """
    data = read_manifest(name)
    if data["integer_model_root"] is None:
        raise Invalid("parameters/model-unpinned", f"the integer-model root of {name} has not been computed yet")
    return ModelManifest(
        gguf_sha256=bytes.fromhex(data["gguf_sha256"].removeprefix("0x")),
        integer_model_root=bytes.fromhex(data["integer_model_root"].removeprefix("0x")),
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


# ### `make_config`


def make_config(name: str, model: ModelManifest) -> Config:
    """Return the config of preset `name` (`mainnet`, `testnet`, `minimal`) with the given model, unchecked."""
    testnet = Config(
        version=PROTOCOL_VERSION,
        profile=b"w8a8",
        model=model,
        epoch_blocks=20,
        retarget_blocks=10,
        spacing=15_000,
        max_future=15_000,
        quiz_tokens=64,
        salt_tokens=8,
        scored_tokens=8,
        max_target=UINT256_MAX,
        initial_target=2**256 // 20,
        genesis_timestamp=GENESIS_TIMESTAMP,
        genesis_seed=tagged_hash("PoAI/genesis-seed/1", name.encode("ascii")),
    )
    return replace(testnet, **PRESET_CHANGES[name])


# `GENESIS_TIMESTAMP` is 2026-01-01T00:00:00Z. Retargeting is anchored at block 1, so the age of genesis spoils nothing.


GENESIS_TIMESTAMP: Milliseconds = 1_767_225_600_000
PRESET_MODELS = {"mainnet": "tinyllama-1.1b", "testnet": "smollm2-135m", "minimal": "mini"}
PRESET_CHANGES: dict[str, dict[str, Any]] = {
    "mainnet": {
        "epoch_blocks": 2016,
        "retarget_blocks": 2016,
        "spacing": 600_000,
        "max_future": 7_200_000,
        "initial_target": 2**256 // 1000,
    },
    "testnet": {},
    "local": {},
    "minimal": {
        "epoch_blocks": 4,
        "retarget_blocks": 4,
        "spacing": 1_000,
        "max_future": 400,
        "quiz_tokens": 32,
        "salt_tokens": 6,
        "scored_tokens": 2,
        "initial_target": 2**256 // 4,
    },
}


# ### `get_preset`


def get_preset(name: str) -> Config:
    """Return the checked config of `mainnet`, `testnet` or `minimal` with its pinned model.

    Raises:
        Invalid: `parameters/model-unpinned` for mainnet, until TinyLlama's integer weights have been computed.
    """
    config = make_config(name, get_model_manifest(PRESET_MODELS[name]))
    check_config(config)
    return config


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `parameters/version` | Invalid | not version 1 |
# | `parameters/profile` | Invalid | unknown profile |
# | `parameters/period` | Invalid | an epoch, period or spacing of zero |
# | `parameters/max-future` | Invalid | a clock limit that would allow time warps |
# | `parameters/target` | Invalid | initial target zero or above the maximum |
# | `parameters/quiz-length` | Invalid | no room for questions, or a quiz that is too long |
# | `parameters/layer-count` | Invalid | a model without layers, or with more than a trace can list |
# | `parameters/cost` | Invalid | a quiz without multiplications, or of more than 2^64 - 1 |
# | `parameters/salt-ranges` | Invalid | salt ids unordered, overlapping, outside the vocabulary, or in over 65,536 ranges |
# | `parameters/salt-empty` | Invalid | nothing to draw a salt from, a BOS that is no token, or one given though it is not used |
# | `parameters/target-flag` | Invalid | `--target` outside 1 .. 1000 |
# | `parameters/model-unpinned` | Invalid | the preset's model has no integer-model root yet |

# ## Rationale

# - **The network id hashes the parameters, never a genesis hash.** The genesis header is computed from the config; a hash
#   of genesis inside the config would be circular, and a hash of the config inside genesis makes two networks with one
#   different number disagree from block 0.
# - **`--target` changes the network.** A lower difficulty is another rule; nodes that disagree about it must not meet.
