// Follows specs/difficulty.md: work, targets and the time stamps that they are made of. All integers are BigInt.
//
// A chain is an array of headers, genesis first: chain[h] is the ancestor at height h.

import { invalid } from "./bytes.js";
import { floorDiv, max, min } from "./fixed_point.js";
import { MEDIAN_TIME_BLOCKS, RETARGET_CLAMP } from "./parameters.js";

/** The expected number of quizzes behind a block. */
export function computeWork(target) {
  return 2n ** 256n / (target + 1n);
}

export function isRetargetHeight(height, config) {
  return height >= 2n + config.retarget_blocks && (height - 2n) % config.retarget_blocks === 0n;
}

/** The target that follows a period of which the stamps claim `actual` ms. */
export function computeNextTarget(target, actual, config) {
  const expected = config.retarget_blocks * config.spacing;
  const bounded = min(max(actual, expected / RETARGET_CLAMP), expected * RETARGET_CLAMP);
  return min(max(floorDiv(target * bounded, expected), 1n), config.max_target);
}

/** The target that a block on top of `chain` must have. */
export function computeTarget(chain, config) {
  const parent = chain.at(-1).core;
  const height = BigInt(chain.length);
  if (!isRetargetHeight(height, config)) return parent.target;
  const first = chain[Number(height - 1n - config.retarget_blocks)].core;
  return computeNextTarget(parent.target, parent.timestamp - first.timestamp, config);
}

export function checkTarget(core, chain, config) {
  const target = computeTarget(chain, config);
  if (core.target !== target) throw invalid("difficulty/target", `its ancestors give ${target}`);
}

/** The median stamp of the last 11 headers, or of all if there are fewer; the upper one of two in the middle. */
export function computeMedianTime(chain) {
  const stamps = chain.slice(-MEDIAN_TIME_BLOCKS).map((header) => header.core.timestamp);
  stamps.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return stamps[Math.floor(stamps.length / 2)];
}

/** Refuse a block that ends a period but is not later than the block that began it. */
export function checkPeriodForward(core, chain, config) {
  const height = BigInt(chain.length);
  if (height === 1n || (height - 1n) % config.retarget_blocks !== 0n) return;
  const first = chain[Number(height - config.retarget_blocks)].core.timestamp;
  if (core.timestamp <= first) throw invalid("difficulty/period-not-forward", `not above ${first}`);
}
