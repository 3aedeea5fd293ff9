// Follows specs/execution/trie.md: RLP, and Ethereum's Merkle-Patricia trie with its proofs.
//
// The trie is not stored: a root or a proof of a set of entries is computed from all of them at once.

import { bytesEqual, concat, fromHex, toHex } from "./bytes.js";
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

/** Bytes that are no RLP, or another encoding of a value than the one. */
export class RlpError extends Error {}

const RLP_DEPTH = 8;

/** The item that all the bytes encode. */
export function decodeRlp(encoded) {
  const [item, end] = decodeItem(encoded, 0, RLP_DEPTH);
  if (end !== encoded.length) throw new RlpError("bytes are left over");
  return item;
}

function decodeItem(encoded, start, depth) {
  const [begin, end, isList] = readPrefix(encoded, start);
  if (!isList) return [encoded.slice(begin, end), end];
  if (depth === 0) throw new RlpError("lists lie too deep in each other");
  const items = [];
  let at = begin;
  while (at < end) {
    const [item, next] = decodeItem(encoded, at, depth - 1);
    items.push(item);
    at = next;
  }
  if (at !== end) throw new RlpError("an item goes on beyond its list");
  return [items, end];
}

/** Where an item's content begins and ends, and whether it is a list. */
function readPrefix(encoded, start) {
  if (start >= encoded.length) throw new RlpError("bytes are missing");
  const first = encoded[start];
  if (first < 0x80) return [start, start + 1, false];
  const isList = first >= 0xc0;
  let begin = start + 1;
  let size = first - (isList ? 0xc0 : 0x80);
  if (size > 55) {
    const digits = encoded.slice(begin, begin + size - 55);
    begin += size - 55;
    const length = toInteger(digits);
    if (length <= 55n || digits[0] === 0) throw new RlpError("a length in a longer form than it needs");
    if (length > BigInt(encoded.length)) throw new RlpError("bytes are missing");
    size = Number(length);
  }
  if (begin + size > encoded.length) throw new RlpError("bytes are missing");
  if (size === 1 && !isList && encoded[begin] < 0x80) throw new RlpError("a byte in a longer form than it needs");
  return [begin, begin + size, isList];
}

/** An integer as `size` bytes, big-endian. */
export function intToBytes(value, size) {
  return fromHex(value.toString(16).padStart(2 * size, "0"));
}

/** Bytes as an integer, big-endian. */
export function toInteger(bytes) {
  return bytes.length === 0 ? 0n : BigInt(toHex(bytes));
}

const EMPTY = new Uint8Array();
export const EMPTY_TRIE_ROOT = keccak256(encodeRlp(EMPTY));

// The trie

/** The root of the trie that maps each key to its value; entries are [key, value] with distinct keys. */
export function computeTrieRoot(entries) {
  const paths = readPaths(entries);
  if (paths.length === 0) return EMPTY_TRIE_ROOT;
  return keccak256(encodeRlp(makeNode(paths, 0)));
}

/** Nibbles and values of the entries that count; an empty value stands for none. */
function readPaths(entries) {
  return entries.filter(([, value]) => value.length > 0).map(([key, value]) => [toNibbles(key), value]);
}

/** The root of a list: each value under the RLP of its index. */
export function computeListRoot(values) {
  return computeTrieRoot(values.map((value, index) => [encodeRlp(encodeInteger(BigInt(index))), value]));
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
  const branch = Array(17).fill(EMPTY);
  const ending = paths.find(([path]) => path.length === depth);
  if (ending) branch[16] = ending[1];
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

// Proofs

/** The nodes from the root to where the search for a key ends, without those inside their parent. */
export function makeProof(entries, key) {
  let paths = readPaths(entries);
  const wanted = toNibbles(key);
  const proof = [];
  for (let depth = 0; ; ) {
    const encoded = encodeRlp(paths.length === 0 ? EMPTY : makeNode(paths, depth));
    if (depth === 0 || encoded.length >= 32) proof.push(encoded);
    if (paths.length < 2) return proof;
    const shared = countShared(paths, depth);
    const next = shared > depth ? shared : depth + 1;
    if (wanted.length < next) return proof;
    paths = paths.filter(([path]) => path.length >= next && wanted.slice(0, next).every((nibble, i) => nibble === path[i]));
    if (paths.length === 0) return proof;
    depth = next;
  }
}

/** What a proof shows: the value of a key, empty for none, null if it shows nothing. */
export function checkProof(root, key, proof) {
  const nodes = new Map(proof.map((encoded) => [toHex(keccak256(encoded)), encoded]));
  const first = nodes.get(toHex(root));
  if (first === undefined) return bytesEqual(root, EMPTY_TRIE_ROOT) ? EMPTY : null;
  return findValue(decodeNode(first), toNibbles(key), nodes);
}

const isBytes = (item) => item instanceof Uint8Array;

function findValue(start, nibbles, nodes) {
  let node = start;
  let path = nibbles;
  while (Array.isArray(node)) {
    if (node.length === 17) {
      if (path.length === 0) return isBytes(node[16]) ? node[16] : null;
      node = node[path[0]];
      path = path.slice(1);
    } else {
      if (node.length !== 2 || !isBytes(node[0]) || node[0].length === 0) return null;
      const [flag, ...rest] = toNibbles(node[0]);
      if (flag > 3) return null;
      const own = flag & 1 ? rest : rest.slice(1);
      const fits = own.length <= path.length && own.every((nibble, i) => nibble === path[i]);
      if (flag & 2) {
        if (!fits || own.length !== path.length) return EMPTY;
        return isBytes(node[1]) ? node[1] : null;
      }
      if (!fits) return EMPTY;
      node = node[1];
      path = path.slice(own.length);
    }
    if (isBytes(node) && node.length === 32) {
      const encoded = nodes.get(toHex(node));
      if (encoded === undefined) return null;
      node = decodeNode(encoded);
    }
  }
  return node.length === 0 ? EMPTY : null;
}

/** A node, or an empty list, which is none, for bytes that are no RLP. */
function decodeNode(encoded) {
  try {
    return decodeRlp(encoded);
  } catch (error) {
    if (error instanceof RlpError) return [];
    throw error;
  }
}
