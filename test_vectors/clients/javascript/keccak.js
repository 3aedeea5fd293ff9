// Follows specs/basics/notation.md, "Hashing": Keccak-256 with Ethereum's padding, and tagged hashes.

import { keccak_256 } from "@noble/hashes/sha3";

import { concat, utf8 } from "./bytes.js";

export function keccak256(data) {
  return keccak_256(data);
}

const tagHashes = new Map();

/** Return `Keccak(Keccak(tag) || parts[0] || parts[1] || ...)`. */
export function taggedHash(tag, ...parts) {
  if (!tagHashes.has(tag)) tagHashes.set(tag, keccak256(utf8(tag)));
  return keccak256(concat(tagHashes.get(tag), ...parts));
}
