// Follows specs/chain/production.md: the next block, seen by its maker.

import { computeBlockHash } from "./containers.js";
import { computeMedianTime, computeTarget } from "./difficulty.js";
import { EMPTY_BODY, EMPTY_BODY_ROOT } from "./header.js";
import { computeTraceDigest } from "./loss.js";
import { PROTOCOL_VERSION } from "./parameters.js";
import { computeStateRoot, processHeader } from "./state.js";

/** The least stamp of a block on top of `chain`. */
export function computeEarliestTimestamp(chain, rules) {
  const earliest = computeMedianTime(chain) + 1n;
  const distance = BigInt(chain.length) - rules.anchor;
  if (distance <= 0n || distance % rules.retarget_blocks !== 0n) return earliest;
  const first = chain[chain.length - Number(rules.retarget_blocks)].core.timestamp + 1n;
  return first > earliest ? first : earliest;
}

/** The clock's time, or the earliest stamp if the clock is behind it. */
export function chooseTimestamp(chain, rules, now) {
  const earliest = computeEarliestTimestamp(chain, rules);
  return now > earliest ? now : earliest;
}

/** The core of a block on top of `chain`, with nonce 0. */
export function makeTemplate(chain, state, rules, miner, timestamp) {
  const core = {
    version: PROTOCOL_VERSION,
    height: BigInt(chain.length),
    parent_hash: computeBlockHash(chain.at(-1)),
    timestamp,
    target: computeTarget(chain, rules),
    miner,
    body_root: EMPTY_BODY_ROOT,
    state_root: new Uint8Array(32),
    nonce: 0n,
  };
  return { ...core, state_root: computeStateRoot(processHeader(state, core)) };
}

/** The block that a core's quiz gave; an evaluation is {loss, trace}. */
export function makeBlock(core, evaluation) {
  const header = { core, loss: evaluation.loss, trace_digest: computeTraceDigest(evaluation.trace) };
  return { header, body: EMPTY_BODY, trace: evaluation.trace };
}
