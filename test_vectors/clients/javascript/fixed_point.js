// Follows specs/model/fixed-point.md: rounding, powers of two, logarithm, cosine and sine, all on BigInt, and the
// transform of a row, on Numbers.
//
// BigInt's `>>` rounds toward minus infinity, as the page wants, but its `/` truncates: hence `floorDiv`.

import { int32Le } from "./bytes.js";
import { taggedHash } from "./keccak.js";

export const LOG2E = 1_512_775n;
export const LOG2E_128 = 490_923_683_258_796_565_746_369_346_286_093_237_521n;
export const EXP2_ONE = 1n << 30n;
const GUARD_BITS = 192n;

export const abs = (x) => (x < 0n ? -x : x);
export const max = (a, b) => (a > b ? a : b);
export const min = (a, b) => (a < b ? a : b);

/** a / b rounded toward minus infinity, b > 0. */
export function floorDiv(a, b) {
  const quotient = a / b;
  return a % b < 0n ? quotient - 1n : quotient;
}

/** x / 2^n rounded to nearest, halves up; for n <= 0 the exact left shift. */
export function roundShift(x, n) {
  return n > 0n ? (x + (1n << (n - 1n))) >> n : x << -n;
}

/** a / b rounded to nearest, halves up, for b > 0. */
export function divRound(a, b) {
  return floorDiv(2n * a + b, 2n * b);
}

/** x limited to -2^n .. 2^n - 1. */
export function clamp(x, n) {
  return max(-(1n << n), min((1n << n) - 1n, x));
}

const TRANSFORM_SIZE = 64;

/** How many values of a row of `width` are transformed together: the largest power of two up to 64 that divides it. */
export function getTransformSize(width) {
  let size = 1;
  while (size < TRANSFORM_SIZE && width % (2 * size) === 0) size *= 2;
  return size;
}

/** Each run of values times Sylvester's matrix; Numbers, exact while 64 times the largest is below 2^53. */
export function walshHadamard(row) {
  const out = Array.from(row);
  const size = getTransformSize(out.length);
  for (let distance = 1; distance < size; distance *= 2) {
    for (let i = 0; i < out.length; i++) {
      if (i & distance) continue;
      const [left, right] = [out[i], out[i + distance]];
      out[i] = left + right;
      out[i + distance] = left - right;
    }
  }
  return out;
}

/** The number of bits of x >= 0; 0 has none. */
export function bitLength(x) {
  return x === 0n ? 0n : BigInt(x.toString(2).length);
}

/** The floor of the n-th root of x >= 0. */
export function integerRoot(x, n) {
  let root = 0n;
  for (let bit = bitLength(x) / n; bit >= 0n; bit--) {
    const candidate = root + (1n << bit);
    if (candidate ** n <= x) root = candidate;
  }
  return root;
}

/** The floor of the square root, by Newton's method from above. */
export function isqrt(x) {
  if (x === 0n) return 0n;
  let root = 1n << ((bitLength(x) + 1n) / 2n);
  for (;;) {
    const next = (root + x / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

let exp2Table;

/** T[j] = 2^(30 - j/256) rounded to nearest, for j = 0 .. 256. */
export function makeExp2Table() {
  if (!exp2Table) {
    exp2Table = [];
    for (let j = 0n; j <= 256n; j++) {
      exp2Table.push((integerRoot(1n << (31n * 256n - j), 256n) + 1n) >> 1n);
    }
  }
  return exp2Table;
}

/** About 2^-d for d >= 0 in Q16; the result is in Q30, 0 for d >= 31. */
export function exp2Neg(d) {
  const k = d >> 16n;
  if (k >= 31n) return 0n;
  const table = makeExp2Table();
  const fraction = d & 0xffffn;
  const j = Number(fraction >> 8n);
  const step = ((table[j] - table[j + 1]) * (fraction & 255n) + 128n) >> 8n;
  return (table[j] - step) >> k;
}

/** About log2(x) for x > 0, in Q16. */
export function log2Fixed(x) {
  const n = bitLength(x) - 1n;
  let mantissa = (x << 30n) >> n;
  let result = n;
  for (let i = 0; i < 16; i++) {
    mantissa = (mantissa * mantissa) >> 30n;
    const bit = mantissa >> 31n;
    mantissa >>= bit;
    result = 2n * result + bit;
  }
  return result;
}

let pi;

/** Pi with GUARD_BITS fractional bits: 16 arctan(1/5) - 4 arctan(1/239). */
export function computePi() {
  if (pi === undefined) {
    const extra = 16n;
    const one = 1n << (GUARD_BITS + extra);
    let total = 0n;
    for (const [factor, n] of [[16n, 5n], [-4n, 239n]]) {
      let sign = 1n;
      for (let term = one / n, k = 0n; term !== 0n; term /= n * n, k++) {
        total += factor * sign * (term / (2n * k + 1n));
        sign = -sign;
      }
    }
    pi = total >> extra;
  }
  return pi;
}

const frequencies = new Map();

/** floor(base^(-2i/d) * 2^GUARD_BITS), base = numerator / denominator. All BigInt. */
export function computeFrequency(i, d, numerator, denominator) {
  const key = `${i}/${d}/${numerator}/${denominator}`;
  if (!frequencies.has(key)) {
    const scaled = (denominator ** (2n * i) << (GUARD_BITS * d)) / numerator ** (2n * i);
    frequencies.set(key, integerRoot(scaled, d));
  }
  return frequencies.get(key);
}

/** The nearest Q15 integers of cos and sin of `position * base^(-2i/d)`. All BigInt. */
export function cosSin(position, i, d, numerator, denominator) {
  const angle = (position * computeFrequency(i, d, numerator, denominator)) % (2n * computePi());
  const sums = [0n, 0n];
  let term = 1n << GUARD_BITS;
  for (let k = 0n; term !== 0n; ) {
    sums[Number(k % 2n)] += k % 4n < 2n ? term : -term;
    k++;
    term = ((term * angle) >> GUARD_BITS) / k;
  }
  return sums.map((sum) => roundShift(sum, GUARD_BITS - 15n));
}

/** The digest by which a table is pinned. */
export function computeTableDigest(values) {
  return taggedHash("PoAI/table/1", int32Le(values));
}
