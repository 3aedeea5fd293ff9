// Follows specs/basics/parameters.md: the constants, the network id, and the bounds on a network's numbers.

import { fromHex, invalid, utf8 } from "./bytes.js";
import { Config, MAX_TRACE } from "./containers.js";
import { taggedHash } from "./keccak.js";

export const PROTOCOL_VERSION = 1n;
export const MEDIAN_TIME_BLOCKS = 11;
export const RETARGET_CLAMP = 4n;
const MAX_FUTURE_SHARE = 10n;
export const INITIAL_SUBSIDY = 5n * 10n ** 18n;
export const HALVING_BLOCKS = 210_000n;
const MAX_MULTIPLICATIONS = 2n ** 64n - 1n;
const MAX_QUIZ_TOKENS = 2_048n;
const UINT256_MAX = 2n ** 256n - 1n;
const GENESIS_TIMESTAMP = 1_767_225_600_000n;

export function computeNetworkId(config) {
  return taggedHash("PoAI/network/1", Config.encode(config));
}

/** Refuse a network whose numbers break a bound that the protocol's arguments need. */
export function checkConfig(config) {
  const period = config.retarget_blocks * config.spacing;
  const profile = new TextDecoder("latin1").decode(config.profile);
  if (config.version !== PROTOCOL_VERSION) throw invalid("parameters/version", config.version);
  if (profile !== "w8a8" && profile !== "llama.cpp") throw invalid("parameters/profile", profile);
  if (config.epoch_blocks < 1n || config.retarget_blocks < 1n || period < RETARGET_CLAMP) {
    throw invalid("parameters/period");
  }
  if (config.max_future * MAX_FUTURE_SHARE > period) throw invalid("parameters/max-future", config.max_future);
  if (config.initial_target < 1n || config.initial_target > config.max_target) throw invalid("parameters/target");
  const room = config.quiz_tokens - config.salt_tokens - (config.model.add_bos ? 1n : 0n);
  if (config.quiz_tokens > MAX_QUIZ_TOKENS || config.scored_tokens < 1n || config.scored_tokens >= room) {
    throw invalid("parameters/quiz-length");
  }
  if (config.model.layer_count < 1n || config.model.layer_count + 1n > MAX_TRACE) {
    throw invalid("parameters/layer-count", config.model.layer_count);
  }
  const cost = computeMultiplications(config.model, config.quiz_tokens, config.scored_tokens);
  if (cost < 1n || cost > MAX_MULTIPLICATIONS) throw invalid("parameters/cost", cost);
  checkSaltRanges(config.model);
}

/** The multiplications of one quiz: the unit in which work is counted. */
export function computeMultiplications(model, quizTokens, scoredTokens) {
  const pairs = (quizTokens * (quizTokens + 1n)) / 2n;
  return quizTokens * model.position_cost + pairs * model.pair_cost + scoredTokens * model.scored_cost;
}

const MAX_SALT_RANGES = 65_536;

/** Refuse salt ranges that are empty, too many, out of order, adjacent, or outside the vocabulary. */
export function checkSaltRanges(model) {
  let previous = -2n;
  for (const [number, { first, last }] of model.salt_ranges.entries()) {
    const ordered = previous + 1n < first && first <= last && last < model.vocabulary_size;
    if (number >= MAX_SALT_RANGES || !ordered) {
      throw invalid("parameters/salt-ranges", `${first}..${last}`);
    }
    previous = last;
  }
  if (previous < 0n || model.bos_id >= (model.add_bos ? model.vocabulary_size : 1n)) {
    throw invalid("parameters/salt-empty");
  }
}

/** The target of `--target N`, N in 1 .. 1000. */
export function getTargetOfFlag(thousandths) {
  if (thousandths < 1n || thousandths > 1000n) throw invalid("parameters/target-flag", thousandths);
  const target = (thousandths * 2n ** 256n) / 1000n;
  return target < UINT256_MAX ? target : UINT256_MAX;
}

/** A model manifest from the JSON object of `specs/manifests/NAME.json`. */
export function getModelManifest(data) {
  if (data.integer_model_root === null) throw invalid("parameters/model-unpinned", data.name);
  return {
    gguf_sha256: fromHex(data.gguf_sha256),
    integer_model_root: fromHex(data.integer_model_root),
    questions_digest: fromHex(data.lexicon_digest),
    corpus: false,
    layer_count: BigInt(data.layer_count),
    vocabulary_size: BigInt(data.vocabulary_size),
    add_bos: data.add_bos,
    bos_id: BigInt(data.bos_id),
    position_cost: BigInt(data.position_cost),
    pair_cost: BigInt(data.pair_cost),
    scored_cost: BigInt(data.scored_cost),
    salt_ranges: data.salt_ranges.map(([first, last]) => ({ first: BigInt(first), last: BigInt(last) })),
  };
}

export const PRESET_MODELS = { mainnet: "tinyllama-1.1b", testnet: "smollm2-135m", minimal: "mini" };
const PRESET_CHANGES = {
  mainnet: {
    epoch_blocks: 2016n,
    retarget_blocks: 2016n,
    spacing: 600_000n,
    max_future: 7_200_000n,
    initial_target: 2n ** 256n / 1000n,
  },
  testnet: {},
  local: {},
  minimal: {
    epoch_blocks: 4n,
    retarget_blocks: 4n,
    spacing: 1_000n,
    max_future: 400n,
    quiz_tokens: 32n,
    salt_tokens: 6n,
    scored_tokens: 2n,
    initial_target: 2n ** 256n / 4n,
  },
};

/** The config of a preset with the given model manifest, unchecked. */
export function makeConfig(name, model) {
  const testnet = {
    version: PROTOCOL_VERSION,
    profile: utf8("w8a8"),
    model,
    epoch_blocks: 20n,
    retarget_blocks: 10n,
    spacing: 15_000n,
    max_future: 15_000n,
    quiz_tokens: 64n,
    salt_tokens: 8n,
    scored_tokens: 8n,
    max_target: UINT256_MAX,
    initial_target: 2n ** 256n / 20n,
    genesis_timestamp: GENESIS_TIMESTAMP,
    genesis_seed: taggedHash("PoAI/genesis-seed/1", utf8(name)),
  };
  return { ...testnet, ...PRESET_CHANGES[name] };
}
