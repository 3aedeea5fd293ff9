// Follows specs/proof/difficulty.md: work, targets and the time stamps that they are made of. All integers are BigInt.
//
// A chain is an array of headers, genesis first: chain[h] is the ancestor at height h.

import { invalid } from "./bytes.js";
import { floorDiv, max, min } from "./fixed_point.js";
import { MEDIAN_TIME_BLOCKS, RETARGET_CLAMP } from "./parameters.js";
import { getMultiplications, getParentRules, isRetargetHeight } from "./upgrades.js";

/** The expected number of quizzes behind a block. */
export function computeQuizzes(target) {
  return 2n ** 256n / (target + 1n);
}

/** Refuse a manifest that claims another cost than its model's shape has; all numbers are BigInt. */
export function checkCost(a, claimed) {
  const queries = a.head_count * a.head_dim;
  const keys = a.kv_head_count * a.head_dim;
  const block = 2n * a.width * queries + 2n * a.width * keys + 3n * a.width * a.ffn_width;
  const fits =
    claimed.position_cost === a.layer_count * block &&
    claimed.pair_cost === a.layer_count * 2n * queries &&
    claimed.scored_cost === a.vocabulary_size * a.width;
  if (!fits) throw invalid("difficulty/cost", "not what the model's shape takes");
}

/** The expected number of multiplications behind a block. */
export function computeWork(target, rules) {
  return computeQuizzes(target) * getMultiplications(rules);
}

/** The target that follows a period of which the stamps claim `actual` ms. */
export function computeNextTarget(target, actual, rules) {
  const expected = rules.retarget_blocks * rules.spacing;
  const bounded = min(max(actual, expected / RETARGET_CLAMP), expected * RETARGET_CLAMP);
  return min(max(floorDiv(target * bounded, expected), 1n), rules.max_target);
}

/** The target for the first block of new rules. */
function rescaleTarget(target, before, after) {
  return min(max((target * getMultiplications(after)) / getMultiplications(before), 1n), after.max_target);
}

/** The target that a block on top of `chain` must have, by the rules of its own height. */
export function computeTarget(chain, rules) {
  const parent = chain.at(-1).core;
  const height = BigInt(chain.length);
  const before = getParentRules(rules, height);
  let { target } = parent;
  if (isRetargetHeight(height, before)) {
    const first = chain[Number(height - 1n - before.retarget_blocks)].core;
    target = computeNextTarget(target, parent.timestamp - first.timestamp, before);
  }
  return before === rules ? target : rescaleTarget(target, before, rules);
}

export function checkTarget(core, chain, rules) {
  const target = computeTarget(chain, rules);
  if (core.target !== target) throw invalid("difficulty/target", `its ancestors give ${target}`);
}

/** The median stamp of the last 11 headers, or of all if there are fewer; the upper one of two in the middle. */
export function computeMedianTime(chain) {
  const stamps = chain.slice(-MEDIAN_TIME_BLOCKS).map((header) => header.core.timestamp);
  stamps.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return stamps[Math.floor(stamps.length / 2)];
}

/** Refuse a block that ends a period but is not later than the block that began it. */
export function checkPeriodForward(core, chain, rules) {
  const height = BigInt(chain.length);
  if (height <= rules.anchor || (height - rules.anchor) % rules.retarget_blocks !== 0n) return;
  const first = chain[Number(height - rules.retarget_blocks)].core.timestamp;
  if (core.timestamp <= first) throw invalid("difficulty/period-not-forward", `not above ${first}`);
}
