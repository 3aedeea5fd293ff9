// Follows specs/model/llama-profile.md, the part after llama.cpp: logits as bits of float32, losses and the trace entry.

import { invalid } from "./bytes.js";
import { computeNll } from "./inference.js";
import { taggedHash } from "./keccak.js";

/** A logit in Q16, int32, from its bits. A float32 times 2^16 and plus a half of that grid is exact in a double. */
export function roundLogit(bits) {
  if (bits % 2 ** 31 > 0x7f800000) throw invalid("llama-profile/nan", `bits 0x${bits.toString(16)}`);
  const value = new Float32Array(Uint32Array.of(bits).buffer)[0] * 2 ** 16;
  const limited = Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, value)); // also the infinities
  return Math.floor(limited) + (limited - Math.floor(limited) >= 0.5 ? 1 : 0);
}

/** The only trace entry, from the rows as bytes. */
export function computeLogitsEntry(rows) {
  return taggedHash("PoAI/trace-logits/1", ...rows);
}

/** {nlls, trace, loss} of rows of logits as bytes, and the scored token of each. */
export function scoreLogits(rows, targets) {
  const nlls = rows.map((row, i) => {
    const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
    const logits = Array.from({ length: row.length / 4 }, (_, at) => roundLogit(view.getUint32(4 * at, true)));
    return computeNll(logits, targets[i]);
  });
  return { nlls, trace: [computeLogitsEntry(rows)], loss: nlls.reduce((sum, nll) => sum + nll, 0n) };
}
