// Follows specs/chain/fork-choice.md: which chain is the chain.
//
// A store is {now, kept, orphans, invalid}: two Maps and a Set whose keys are block hashes in hexadecimal. In `kept` are
// {header, work, peer, state}, in `orphans` {header, peer}. Handlers return a new store and never change one in place.
// JavaScript's Map keeps the order of insertion, which "oldest first" relies on.

import { SpecError, concat, fromHex, invalid, notYet, toHex } from "./bytes.js";
import { checkContents, getJudgeRules, makeGenesis, processBlock, replayBlock } from "./block.js";
import { computeBlockHash } from "./containers.js";
import { computeWork } from "./difficulty.js";
import { checkHeaderAlone, checkHeaderInChain } from "./header.js";
import { taggedHash } from "./keccak.js";

const MAX_WAITING = 65_536;
const MAX_WAITING_PER_PEER = 8_192;
const MAX_ORPHANS = 256;
const MAX_ORPHANS_PER_PEER = 4;
const MAX_INVALID = 65_536;

const hashOf = (header) => toHex(computeBlockHash(header));
const parentOf = (header) => toHex(header.core.parent_hash);

/** The store of a node that knows genesis alone. */
export function makeStore(judge, now) {
  const { header } = makeGenesis(judge.config);
  const genesis = { header, work: 0n, peer: "", state: new Map() };
  return { now, kept: new Map([[hashOf(header), genesis]]), orphans: new Map(), invalid: new Set() };
}

function without(map, removed) {
  return new Map([...map].filter(([hash]) => !removed.has(hash)));
}

// The head

/** The headers from genesis to a kept one. */
export function getChain(store, blockHash) {
  const chain = [];
  for (let hash = blockHash; store.kept.has(hash); hash = parentOf(chain.at(-1))) {
    chain.push(store.kept.get(hash).header);
  }
  return chain.reverse();
}

/** The sorted hashes of all replayed blocks whose chain has the most work. */
export function getBestTips(store) {
  const replayed = [...store.kept].filter(([, kept]) => kept.state !== null);
  const most = replayed.reduce((best, [, kept]) => (kept.work > best ? kept.work : best), 0n);
  return replayed.filter(([, kept]) => kept.work === most).map(([hash]) => hash).sort();
}

/** The tip of the chain: most replayed work, ties by a hash over all tied tips. */
export function getHead(store) {
  const tips = getBestTips(store);
  const all = concat(...tips.map(fromHex));
  const ranked = tips.map((tip) => [toHex(taggedHash("PoAI/tie/1", all, fromHex(tip))), tip]).sort();
  return ranked[0][1];
}

/** A kept block and all its kept descendants. */
export function getBranch(store, root) {
  const branch = new Set([root]);
  const byHeight = [...store.kept].sort(([, a], [, b]) => Number(a.header.core.height - b.header.core.height));
  for (const [hash, kept] of byHeight) {
    if (branch.has(parentOf(kept.header))) branch.add(hash);
  }
  return branch;
}

/** The most work that a chain of kept headers through a block claims. */
export function computeClaimedWork(store, blockHash) {
  const works = [...getBranch(store, blockHash)].map((hash) => store.kept.get(hash).work);
  return works.reduce((most, work) => (work > most ? work : most));
}

// Handlers

export function onTick(store, now) {
  return { ...store, now };
}

/** Keep a header, as an orphan if its parent is not kept; then check the orphans that waited for it. */
export function onHeader(store, header, peer, judge) {
  checkHeaderAlone(header);
  checkNotInvalid(store, header);
  if (store.kept.has(hashOf(header))) return store;
  if (!store.kept.has(parentOf(header))) return keepOrphan(store, { header, peer });
  return adoptOrphans(keepHeader(store, header, peer, judge), judge);
}

/** Check a block by every rule, replay it, and count its work. */
export function onBlock(store, block, peer, judge) {
  const after = onHeader(store, block.header, peer, judge);
  const blockHash = hashOf(block.header);
  if (!after.kept.has(blockHash)) throw notYet("fork-choice/unknown-parent");
  checkContents(block, getJudgeRules(judge, block.header.core.height));
  if (after.kept.get(blockHash).state !== null) return after;
  const state = processBlock(getParentState(after, block.header), block);
  checkHeavyEnough(after, blockHash);
  replayBlock(block, getChain(after, parentOf(block.header)), judge);
  const kept = new Map(after.kept).set(blockHash, { ...after.kept.get(blockHash), state });
  return { ...after, kept };
}

/** Remember that a hash can never be valid; drop and remember what was built on it. */
export function onInvalid(store, blockHash) {
  const branch = getBranch(store, blockHash);
  const known = [...new Set([...store.invalid, ...[...branch].sort()])];
  return {
    ...store,
    kept: without(store.kept, branch),
    invalid: new Set(known.slice(Math.max(0, known.length - MAX_INVALID))),
  };
}

// Receiving: [store, error], the error being null if nothing was wrong

export function receiveHeader(store, header, peer, judge) {
  try {
    return [onHeader(store, header, peer, judge), null];
  } catch (error) {
    if (!(error instanceof SpecError)) throw error;
    return [error.kind === "Invalid" ? onInvalid(store, hashOf(header)) : store, error];
  }
}

export function receiveBlock(store, block, peer, judge) {
  const [after, fault] = receiveHeader(store, block.header, peer, judge);
  if (fault !== null) return [after, fault];
  try {
    return [onBlock(after, block, peer, judge), null];
  } catch (error) {
    if (!(error instanceof SpecError)) throw error;
    return [error.kind === "Invalid" ? onInvalid(after, hashOf(block.header)) : after, error];
  }
}

// Rules

function checkNotInvalid(store, header) {
  if (store.invalid.has(hashOf(header))) throw invalid("fork-choice/known-invalid");
  if (store.invalid.has(parentOf(header))) throw invalid("fork-choice/invalid-ancestor");
}

function getParentState(store, header) {
  const { state } = store.kept.get(parentOf(header));
  if (state === null) throw notYet("fork-choice/parent-not-replayed");
  return state;
}

function checkHeavyEnough(store, blockHash) {
  const claimed = computeClaimedWork(store, blockHash);
  if (claimed < store.kept.get(getHead(store)).work && !isFull(store, store.kept.get(blockHash).peer)) {
    throw notYet("fork-choice/lighter");
  }
}

/** Whether no header of a peer can be kept in waiting without dropping another one. */
export function isFull(store, peer) {
  const waiting = [...store.kept.values()].filter((kept) => kept.state === null);
  return waiting.filter((kept) => kept.peer === peer).length >= MAX_WAITING_PER_PEER || waiting.length >= MAX_WAITING;
}

// Bounded keeping

function countByPeer(entries) {
  const use = new Map();
  for (const { peer } of entries) use.set(peer, (use.get(peer) ?? 0) + 1);
  return (peer) => use.get(peer) ?? 0;
}

/** Check a header against its ancestors and keep it. */
function keepHeader(store, header, peer, judge) {
  const parent = parentOf(header);
  const blockHash = hashOf(header);
  const chain = getChain(store, parent);
  const rules = getJudgeRules(judge, BigInt(chain.length));
  checkHeaderInChain(header, chain, rules, store.now);
  const roomy = makeRoom(store, header, peer);
  const work = roomy.kept.get(parent).work + computeWork(header.core.target, rules);
  return {
    ...roomy,
    kept: new Map(roomy.kept).set(blockHash, { header, work, peer, state: null }),
  };
}

/** The store with room for one more waiting header of `peer`. */
export function makeRoom(store, header, peer) {
  const waiting = [...store.kept].filter(([, kept]) => kept.state === null);
  const use = countByPeer(waiting.map(([, kept]) => kept));
  const parents = new Set([...getChain(store, parentOf(header)), header].map(parentOf));
  const victims = waiting.filter(([hash, kept]) => use(kept.peer) > use(peer) && !parents.has(hash));
  const full = waiting.length >= MAX_WAITING;
  if (use(peer) >= MAX_WAITING_PER_PEER || (full && victims.length === 0)) {
    throw notYet("fork-choice/too-many-headers");
  }
  if (!full) return store;
  // The peer with the most headers, then the greatest height, then the greatest hash.
  const [victim] = victims.reduce((a, b) => (compareVictims(a, b, use) >= 0 ? a : b));
  return { ...store, kept: without(store.kept, getBranch(store, victim)) };
}

function compareVictims([hashA, a], [hashB, b], use) {
  if (use(a.peer) !== use(b.peer)) return use(a.peer) - use(b.peer);
  if (a.header.core.height !== b.header.core.height) return Number(a.header.core.height - b.header.core.height);
  return hashA < hashB ? -1 : 1;
}

/** Keep a header without a parent; past a limit drop the sender's oldest, or the oldest of the heaviest users. */
function keepOrphan(store, orphan) {
  const blockHash = hashOf(orphan.header);
  if (store.orphans.has(blockHash)) return store;
  const orphans = new Map(store.orphans).set(blockHash, orphan);
  const use = countByPeer(orphans.values());
  const most = Math.max(...[...orphans.values()].map(({ peer }) => use(peer)));
  if (use(orphan.peer) > MAX_ORPHANS_PER_PEER) {
    orphans.delete([...orphans].find(([, { peer }]) => peer === orphan.peer)[0]);
  } else if (orphans.size > MAX_ORPHANS) {
    orphans.delete([...orphans].find(([, { peer }]) => use(peer) === most)[0]);
  }
  return { ...store, orphans };
}

/** Check every orphan whose parent is kept by now, and so on; drop those that fail. */
function adoptOrphans(store, judge) {
  let after = store;
  for (;;) {
    const current = after;
    const ready = [...current.orphans].find(([, { header }]) => current.kept.has(parentOf(header)));
    if (ready === undefined) return current;
    const [hash, { header, peer }] = ready;
    after = { ...current, orphans: without(current.orphans, new Set([hash])) };
    try {
      after = keepHeader(after, header, peer, judge);
    } catch (error) {
      if (!(error instanceof SpecError)) throw error;
      if (error.kind === "Invalid") after = onInvalid(after, hash);
    }
  }
}
