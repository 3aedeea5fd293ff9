// Follows specs/execution/state.md: accounts in Ethereum's Merkle-Patricia trie, and the subsidy.
//
// RLP and the trie follow the Ethereum yellow paper, appendices B and D. Only the root is needed, so the trie is not
// stored: the root of a set of entries is computed from all of them at once.

import { bytesEqual, concat, fromHex, invalid, toHex } from "./bytes.js";
import { computeSubsidy } from "./economics.js";
import { keccak256 } from "./keccak.js";

// RLP: an item is a Uint8Array, or an array of items.

/** A non-negative integer, big-endian without leading zeros; 0 is the empty string. */
export function encodeInteger(value) {
  if (value === 0n) return new Uint8Array();
  const digits = value.toString(16);
  return fromHex(digits.length % 2 ? "0" + digits : digits);
}

export function encodeRlp(item) {
  if (item instanceof Uint8Array) {
    if (item.length === 1 && item[0] < 0x80) return item;
    return concat(encodeLength(item.length, 0x80), item);
  }
  const payload = concat(...item.map(encodeRlp));
  return concat(encodeLength(payload.length, 0xc0), payload);
}

function encodeLength(length, base) {
  if (length <= 55) return Uint8Array.of(base + length);
  const bytes = encodeInteger(BigInt(length));
  return concat(Uint8Array.of(base + 55 + bytes.length), bytes);
}

const EMPTY = new Uint8Array();
export const EMPTY_TRIE_ROOT = keccak256(encodeRlp(EMPTY));
export const EMPTY_CODE_HASH = keccak256(EMPTY);

// The trie

/** The root of the trie that maps each key to its value; entries are [key, value] with distinct keys of one length. */
export function computeTrieRoot(entries) {
  if (entries.length === 0) return EMPTY_TRIE_ROOT;
  const paths = entries.map(([key, value]) => [toNibbles(key), value]);
  return keccak256(encodeRlp(makeNode(paths, 0)));
}

function toNibbles(key) {
  return Array.from(key).flatMap((byte) => [byte >> 4, byte & 15]);
}

/** The RLP item of the node that holds `paths`, which agree in their first `depth` nibbles. */
function makeNode(paths, depth) {
  if (paths.length === 1) {
    const [[path, value]] = paths;
    return [encodePath(path.slice(depth), true), value]; // leaf
  }
  const shared = countShared(paths, depth);
  if (shared > depth) {
    const [[path]] = paths;
    return [encodePath(path.slice(depth, shared), false), makeReference(makeNode(paths, shared))]; // extension
  }
  const branch = Array(17).fill(EMPTY); // keys have one length, so none ends here and the 17th item stays empty
  for (let nibble = 0; nibble < 16; nibble++) {
    const below = paths.filter(([path]) => path[depth] === nibble);
    if (below.length > 0) branch[nibble] = makeReference(makeNode(below, depth + 1));
  }
  return branch;
}

/** A node of less than 32 bytes stands in its parent as it is, any other one by its hash. */
function makeReference(node) {
  const encoded = encodeRlp(node);
  return encoded.length < 32 ? node : keccak256(encoded);
}

/** How many leading nibbles all paths share, at least `depth`. */
function countShared(paths, depth) {
  const [[first]] = paths;
  let shared = depth;
  while (shared < first.length && paths.every(([path]) => path[shared] === first[shared])) shared++;
  return shared;
}

/** The hex-prefix encoding of nibbles: a flag for leaves, and one for an odd number of nibbles. */
function encodePath(nibbles, isLeaf) {
  const odd = nibbles.length % 2;
  const flag = (isLeaf ? 2 : 0) + odd;
  const padded = odd ? [flag, ...nibbles] : [flag, 0, ...nibbles];
  const bytes = new Uint8Array(padded.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = 16 * padded[2 * i] + padded[2 * i + 1];
  return bytes;
}

// Accounts. A state is a Map from addresses in hexadecimal to accounts.

/** An account that nothing has touched yet. */
export const NEW_ACCOUNT = {
  nonce: 0n,
  balance: 0n,
  storage_root: EMPTY_TRIE_ROOT,
  code_hash: EMPTY_CODE_HASH,
};

export function encodeAccount(account) {
  return encodeRlp([
    encodeInteger(account.nonce),
    encodeInteger(account.balance),
    account.storage_root,
    account.code_hash,
  ]);
}

export function computeStateRoot(state) {
  const entries = [...state].map(([address, account]) => [keccak256(fromHex(address)), encodeAccount(account)]);
  return computeTrieRoot(entries);
}

/** The state after `amount` was added to an account; a zero amount touches none. */
export function processCredit(state, address, amount) {
  if (amount === 0n) return state;
  const account = state.get(toHex(address)) ?? NEW_ACCOUNT;
  return new Map(state).set(toHex(address), { ...account, balance: account.balance + amount });
}

/** The state after a block: its miner has been credited with the subsidy. */
export function processHeader(state, core) {
  return processCredit(state, core.miner, computeSubsidy(core.height));
}

/** Refuse a header that commits to another state than the one after it. */
export function checkStateRoot(state, core) {
  const root = computeStateRoot(state);
  if (!bytesEqual(core.state_root, root)) throw invalid("state/root", `its chain gives ${toHex(root)}`);
}
