// Follows specs/model/loss.md: trace entries, the trace digest and l_hat. Losses are BigInt, rows are Numbers.

import { concat, int32Le, int8Bytes, uint256Be, uint32Le, uint64Le } from "./bytes.js";
import { taggedHash } from "./keccak.js";

/** The trace entry of transformer block `layer`, counted from 1: the residual row of the last position, Q14. */
export function computeLayerEntry(layer, row) {
  return taggedHash("PoAI/trace/1", uint32Le(layer), int32Le(row));
}

/** The last trace entry: each position's scale [e1, e2, f] and quantised row at the head's input, then the scored losses. */
export function computeOutputEntry(scales, rows, nlls) {
  const positions = rows.map((row, t) => concat(Uint8Array.from(scales[t]), int8Bytes(row)));
  return taggedHash("PoAI/trace-output/1", ...positions, ...nlls.map(uint64Le));
}

export function computeTraceDigest(trace) {
  return taggedHash("PoAI/trace-digest/1", ...trace);
}

/** The number that must stay below the target, as a BigInt. */
export function computeLHat(quizSeed, loss, traceDigest) {
  return uint256Be(taggedHash("PoAI/l-hat/1", quizSeed, uint64Le(loss), traceDigest));
}

export function isBelowTarget(lHat, target) {
  return lHat < target;
}
