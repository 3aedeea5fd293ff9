// Follows specs/basics/drbg.md: a stream of uniform integers, decided by a 32-byte seed.

import { intFromLittleEndian, uint64Le } from "./bytes.js";
import { taggedHash } from "./keccak.js";

const WORD_BYTES = 8;

export class Drbg {
  constructor(seed) {
    this.seed = seed;
    this.blockIndex = 0n;
    this.words = []; // what is left of the last block, the next word first
  }

  /** The next number of the stream, uniform in 0 .. 2^64 - 1, as a BigInt. */
  nextUint64() {
    if (this.words.length === 0) {
      const block = taggedHash("PoAI/drbg/1", this.seed, uint64Le(this.blockIndex));
      this.blockIndex += 1n;
      for (let at = 0; at < block.length; at += WORD_BYTES) {
        this.words.push(intFromLittleEndian(block.subarray(at, at + WORD_BYTES)));
      }
    }
    return this.words.shift();
  }

  /** A uniform number in 0 .. n - 1 for n in 1 .. 2^64; n and the result are BigInt. One draw for n = 1, too. */
  belowBig(n) {
    const limit = 2n ** 64n - (2n ** 64n % n);
    let x = this.nextUint64();
    while (x >= limit) x = this.nextUint64();
    return x % n;
  }

  /** The same for a small n, as a Number. */
  below(n) {
    return Number(this.belowBig(BigInt(n)));
  }

  /** A uniform number in low .. high, both included. */
  between(low, high) {
    return low + this.below(high - low + 1);
  }

  /** One item; every place is equally likely. */
  choice(items) {
    return items[this.below(items.length)];
  }

  /** The items of k distinct places in random order: Fisher and Yates, upwards, k draws. */
  sample(items, k) {
    const pool = [...items];
    for (let i = 0; i < k; i++) {
      const j = this.between(i, pool.length - 1);
      [pool[i], pool[j]] = [pool[j], pool[i]];
    }
    return pool.slice(0, k);
  }

  /** All items in random order; the last draw, `below(1)`, is made as well. */
  shuffled(items) {
    return this.sample(items, items.length);
  }
}
