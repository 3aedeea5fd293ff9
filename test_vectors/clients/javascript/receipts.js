// Follows specs/execution/receipts.md: bloom filters and receipts.

import { concat } from "./bytes.js";
import { keccak256 } from "./keccak.js";
import { encodeInteger, encodeRlp } from "./trie.js";

/** 256 bytes with three bits for each address and topic. */
export function computeBloom(logs) {
  const bloom = new Uint8Array(256);
  for (const entry of logs.flatMap(({ address, topics }) => [address, ...topics])) {
    const digest = keccak256(entry);
    for (const at of [0, 2, 4]) {
      const bit = ((digest[at] << 8) | digest[at + 1]) & 2047;
      bloom[255 - (bit >> 3)] |= 1 << (bit & 7);
    }
  }
  return bloom;
}

export function encodeReceipt({ kind, success, cumulativeGas, logs }) {
  const listed = logs.map(({ address, topics, data }) => [address, topics, data]);
  const status = encodeInteger(success ? 1n : 0n);
  const fields = encodeRlp([status, encodeInteger(cumulativeGas), computeBloom(logs), listed]);
  return kind === 0 ? fields : concat(Uint8Array.of(kind), fields);
}
