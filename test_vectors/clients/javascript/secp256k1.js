// The recovery of a public key from a signature over secp256k1 (SEC 1, 4.1.6), plainly: nothing here is secret, so
// nothing has to take the same time for all inputs.

import { intToBytes } from "./trie.js";

const P = 2n ** 256n - 2n ** 32n - 977n;
export const CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const BASE = {
  x: 0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
  y: 0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
};

const mod = (a, n) => ((a % n) + n) % n;

function power(base, exponent, n) {
  let result = 1n;
  for (let b = mod(base, n), e = exponent; e > 0n; e >>= 1n, b = (b * b) % n) if (e & 1n) result = (result * b) % n;
  return result;
}

const invert = (a, n) => power(a, n - 2n, n); // n is prime

/** The sum of two points; null is the point at infinity. */
function add(a, b) {
  if (a === null || b === null) return a ?? b;
  if (a.x === b.x && mod(a.y + b.y, P) === 0n) return null;
  const slope = a.x === b.x ? 3n * a.x * a.x * invert(2n * a.y, P) : (b.y - a.y) * invert(b.x - a.x, P);
  const x = mod(slope * slope - a.x - b.x, P);
  return { x, y: mod(slope * (a.x - x) - a.y, P) };
}

function multiply(point, factor) {
  let result = null;
  for (let p = point, k = factor; k > 0n; k >>= 1n, p = add(p, p)) if (k & 1n) result = add(result, p);
  return result;
}

/** The 64 bytes of the public key that signed a hash, given as an integer; null where no key could have. */
export function recoverKey(hash, parity, r, s) {
  if (r <= 0n || r >= CURVE_ORDER || s <= 0n || s >= CURVE_ORDER) return null;
  const square = mod(r * r * r + 7n, P);
  const root = power(square, (P + 1n) / 4n, P);
  if (mod(root * root, P) !== square) return null;
  const point = { x: r, y: (root & 1n) === parity ? root : P - root };
  const inverse = invert(r, CURVE_ORDER);
  const key = add(multiply(point, mod(s * inverse, CURVE_ORDER)), multiply(BASE, mod(-hash * inverse, CURVE_ORDER)));
  if (key === null) return null;
  return new Uint8Array([...intToBytes(key.x, 32), ...intToBytes(key.y, 32)]);
}
