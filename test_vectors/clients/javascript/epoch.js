// Follows specs/proof/epoch.md: epochs and their keys. Heights and epochs are BigInt.

import { concat, uint64Le } from "./bytes.js";
import { keccak256 } from "./keccak.js";

export function getEpoch(height, rules) {
  return height / rules.epoch_blocks; // both are positive, so truncation is floor
}

/** The height of the block whose hash is the seed of `epoch`, for epoch >= 1. */
export function getSeedHeight(epoch, rules) {
  return epoch * rules.epoch_blocks - 1n;
}

/** The only hash without a tag. */
export function computeEpochKey(seed, epoch) {
  return keccak256(concat(seed, uint64Le(epoch)));
}
