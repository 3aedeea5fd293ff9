// Follows specs/proof/economics.md: what a block creates, in wei. All integers are BigInt.

import { bitLength, min } from "./fixed_point.js";
import { HALVING_BLOCKS, INITIAL_SUBSIDY } from "./parameters.js";

export function computeSubsidy(height) {
  if (height === 0n) return 0n;
  return INITIAL_SUBSIDY >> ((height - 1n) / HALVING_BLOCKS);
}

/** All that the blocks 0 .. `height` created. */
export function computeSupply(height) {
  const eras = height / HALVING_BLOCKS;
  const rest = height % HALVING_BLOCKS;
  let supply = rest * (INITIAL_SUBSIDY >> eras);
  for (let era = 0n; era < min(eras, bitLength(INITIAL_SUBSIDY)); era++) {
    supply += HALVING_BLOCKS * (INITIAL_SUBSIDY >> era);
  }
  return supply;
}
