// Follows specs/chain/upgrades.md: what holds at a height, which lists are allowed, and fork ids. Integers are BigInt.
//
// A network is {config, upgrades}. Rules have the fields of a config, and since, digest, anchor and before.

import { bytesEqual, invalid, toHex } from "./bytes.js";
import { UpgradeList } from "./containers.js";
import { taggedHash } from "./keccak.js";
import { checkConfig, computeMultiplications, computeNetworkId } from "./parameters.js";

const MAX_UPGRADES = 64;
const FORK_HASH_BYTES = 4;

/** A change of the named fields. */
export function makeChange(values) {
  const names = ["profile", "model", "retarget_blocks", "spacing", "max_future"];
  names.push("quiz_tokens", "salt_tokens", "scored_tokens");
  return Object.fromEntries(names.map((name) => [name, name in values ? [values[name]] : []]));
}

function applyChange(config, change) {
  const values = Object.entries(change).filter(([, value]) => value.length > 0);
  return { ...config, ...Object.fromEntries(values.map(([name, [value]]) => [name, value])) };
}

function computeRulesDigest(networkId, passed) {
  return taggedHash("PoAI/rules/1", networkId, UpgradeList.encode({ upgrades: passed }));
}

/** All rules that a network has had and will have, in order. */
export function makeRules(config, upgrades) {
  const networkId = computeNetworkId(config);
  const made = [{ ...config, since: 0n, digest: computeRulesDigest(networkId, []), anchor: 1n, before: null }];
  let current = config;
  for (const [index, { height, change }] of upgrades.entries()) {
    const before = made.at(-1);
    current = applyChange(current, change);
    const anchor = movesPeriod(change) ? height - 1n : before.anchor;
    const digest = computeRulesDigest(networkId, upgrades.slice(0, index + 1));
    made.push({ ...current, since: height, digest, anchor, before });
  }
  return made;
}

/** The rules for the block at a height. */
export function getRules(config, upgrades, height) {
  return makeRules(config, upgrades).findLast((rules) => rules.since <= height);
}

/** The rules for the parent of the block at `height`, whose own are `rules`. */
export function getParentRules(rules, height) {
  return rules.before !== null && height === rules.since ? rules.before : rules;
}

export function getMultiplications(rules) {
  return computeMultiplications(rules.model, rules.quiz_tokens, rules.scored_tokens);
}

function movesPeriod(change) {
  return change.retarget_blocks.length > 0 || change.spacing.length > 0;
}

/** Whether a period has ended with the parent. */
export function isRetargetHeight(height, rules) {
  const distance = height - 1n - rules.anchor;
  return distance >= rules.retarget_blocks && distance % rules.retarget_blocks === 0n;
}

function isSameConfig(a, b) {
  return bytesEqual(computeNetworkId(a), computeNetworkId(b));
}

/** Refuse a list that has no meaning, opens the time warp, or breaks a bound; the first fault counts. */
export function checkUpgrades(config, upgrades) {
  if (upgrades.length > MAX_UPGRADES) throw invalid("upgrades/too-many", upgrades.length);
  let current = config;
  for (const [index, { height, change }] of upgrades.entries()) {
    const before = makeRules(config, upgrades.slice(0, index)).at(-1);
    if (height <= before.since) throw invalid("upgrades/order", height);
    const after = applyChange(current, change);
    if (isSameConfig(after, current)) throw invalid("upgrades/no-change", height);
    if (movesPeriod(change) && !isRetargetHeight(height, before)) throw invalid("upgrades/period-border", height);
    checkConfig(after);
    current = after;
  }
}

export function getForkHash(rules) {
  return rules.digest.slice(0, FORK_HASH_BYTES);
}

/** The fork id {hash, next} of a node whose head is at a height. */
export function getForkId(config, upgrades, head) {
  const coming = upgrades.find(({ height }) => height > head);
  return { hash: getForkHash(getRules(config, upgrades, head)), next: coming?.height ?? 0n };
}

/** Refuse a peer that cannot be on the same chain. */
export function checkForkId(config, upgrades, head, peer) {
  const every = makeRules(config, upgrades);
  const known = every.findIndex((rules) => bytesEqual(getForkHash(rules), peer.hash));
  if (known < 0) throw invalid("upgrades/peer-differs", toHex(peer.hash));
  const following = every[known + 1]?.since ?? 0n;
  const hasPassed = following > 0n && following <= head;
  if (every[known].since <= head && !hasPassed && peer.next > 0n && peer.next <= head) {
    throw invalid("upgrades/peer-changes", peer.next);
  }
  if (hasPassed && peer.next !== following) throw invalid("upgrades/peer-unaware", following);
}

/** A coming height at which a compatible peer will be lost, or 0. */
export function getUnknownUpgrade(config, upgrades, head, peer) {
  const own = getForkId(config, upgrades, head);
  if (!bytesEqual(peer.hash, own.hash) || peer.next === own.next) return 0n;
  if (own.next === 0n || peer.next === 0n) return own.next + peer.next;
  return own.next < peer.next ? own.next : peer.next;
}
