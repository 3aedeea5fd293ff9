// Follows specs/basics/notation.md: integers as bytes, and the three classes of errors.
//
// Integers of the protocol are BigInt here, except where a comment says that a double is exact.

/** A rule was broken. `code` is the rule as `page/rule`; `kind` is what follows from it. */
export class SpecError extends Error {
  constructor(kind, code, detail = "") {
    super(detail ? `${code}: ${detail}` : code);
    this.kind = kind; // "Invalid", "Malformed" or "NotYet"
    this.code = code;
  }
}

export const invalid = (code, detail) => new SpecError("Invalid", code, detail);
export const malformed = (code, detail) => new SpecError("Malformed", code, detail);
export const notYet = (code, detail) => new SpecError("NotYet", code, detail);

/** Join byte arrays. */
export function concat(...parts) {
  return join(parts);
}

/** The same for a list of any length; a call takes no more than some 100,000 arguments. */
export function join(parts) {
  const result = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

export function bytesEqual(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

export function utf8(text) {
  return new TextEncoder().encode(text);
}

/** `0x` and lowercase hexadecimal, as the vectors write bytes. */
export function toHex(bytes) {
  return "0x" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function fromHex(text) {
  const digits = text.startsWith("0x") ? text.slice(2) : text;
  if (!/^([0-9a-fA-F]{2})*$/.test(digits)) throw new TypeError("not hexadecimal");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Write an integer as `size` bytes, little-endian; negative ones in two's complement. */
export function intToLittleEndian(value, size) {
  const result = new Uint8Array(size);
  let rest = BigInt.asUintN(8 * size, BigInt(value));
  for (let i = 0; i < size; i++) {
    result[i] = Number(rest & 255n);
    rest >>= 8n;
  }
  return result;
}

/** Read an unsigned integer, little-endian, as a BigInt. */
export function intFromLittleEndian(bytes) {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]);
  return value;
}

export const uint32Le = (value) => intToLittleEndian(value, 4);
export const uint64Le = (value) => intToLittleEndian(value, 8);

/** Signed 32-bit integers, 4 bytes each. */
export function int32Le(values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setInt32(4 * i, Number(value), true));
  return new Uint8Array(view.buffer);
}

/** Signed 64-bit integers, 8 bytes each. */
export function int64Le(values) {
  const view = new DataView(new ArrayBuffer(8 * values.length));
  values.forEach((value, i) => view.setBigInt64(8 * i, BigInt(value), true));
  return new Uint8Array(view.buffer);
}

/** Signed 8-bit integers, a byte each. */
export function int8Bytes(values) {
  return new Uint8Array(Int8Array.from(values).buffer);
}

/** Read a digest as an integer, big-endian: how it is compared with a target. */
export function uint256Be(bytes) {
  return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
