// Follows specs/chain/header.md and specs/chain/body.md: the genesis header, and the rules for a header.

import { bytesEqual, invalid, malformed, notYet } from "./bytes.js";
import { computeBlockHash, computeBodyRoot } from "./containers.js";
import { checkPeriodForward, checkTarget, computeMedianTime } from "./difficulty.js";
import { PROTOCOL_VERSION, computeNetworkId } from "./parameters.js";
import { EMPTY_TRIE_ROOT } from "./trie.js";
import { checkLHat } from "./work.js";

export const EMPTY_BODY = { transactions: [] };
export const EMPTY_BODY_ROOT = computeBodyRoot(EMPTY_BODY);

/** The header of block 0: computed from the config, never received. */
export function makeGenesisHeader(config) {
  const core = {
    version: PROTOCOL_VERSION,
    height: 0n,
    parent_hash: computeNetworkId(config),
    timestamp: config.genesis_timestamp,
    target: config.initial_target,
    miner: new Uint8Array(20),
    body_root: EMPTY_BODY_ROOT,
    state_root: EMPTY_TRIE_ROOT,
    nonce: 0n,
  };
  return { core, loss: 0n, trace_digest: new Uint8Array(32) };
}

/** What needs no ancestors. */
export function checkHeaderAlone(header) {
  checkVersion(header.core);
  checkBodyIsEmpty(header.core);
}

/** The rules that compare a header with its ancestors and the clock, in the order of the page block. */
export function checkHeaderInChain(header, chain, rules, now) {
  checkParent(header.core, chain);
  checkHeight(header.core, chain);
  checkTarget(header.core, chain, rules);
  checkMedianTime(header.core, chain);
  checkPeriodForward(header.core, chain, rules);
  checkLHat(header, chain, rules);
  checkFuture(header.core, rules, now);
}

function checkVersion(core) {
  if (core.version !== PROTOCOL_VERSION) throw invalid("header/version", core.version);
}

function checkBodyIsEmpty(core) {
  if (!bytesEqual(core.body_root, EMPTY_BODY_ROOT)) throw invalid("body/transactions-not-active");
}

/** Refuse a body that is not the one that the header commits to. */
export function checkBody(block) {
  if (!bytesEqual(block.header.core.body_root, computeBodyRoot(block.body))) throw malformed("body/root");
}

function checkParent(core, chain) {
  if (!bytesEqual(core.parent_hash, computeBlockHash(chain.at(-1)))) throw invalid("header/parent");
}

function checkHeight(core, chain) {
  if (core.height !== BigInt(chain.length)) throw invalid("header/height", core.height);
}

function checkMedianTime(core, chain) {
  const median = computeMedianTime(chain);
  if (core.timestamp <= median) throw invalid("header/median-time", `not above the median ${median}`);
}

function checkFuture(core, rules, now) {
  if (core.timestamp > now + rules.max_future) throw notYet("header/future", core.timestamp);
}
