// Follows specs/basics/encoding.md: SSZ (Simple Serialize of Ethereum's consensus specifications), without hash_tree_root.
//
// A type is an object with
//   size          its length in bytes, or undefined if values differ in length
//   encode(value) and decode(bytes), which throws a RangeError for bytes that encode no value
//   toJson(value) and fromJson(json), the form of the value in the vectors
// Unsigned integers are BigInt, bytes Uint8Array, lists arrays, containers objects with the pages' field names.

import {
  bytesEqual,
  concat,
  fromHex,
  intFromLittleEndian,
  intToLittleEndian,
  malformed,
  toHex,
  uint32Le,
} from "./bytes.js";

const OFFSET_BYTES = 4;

function refuse(message) {
  throw new RangeError(message);
}

function uint(bits) {
  const size = bits / 8;
  return {
    size,
    encode: (value) => intToLittleEndian(value, size),
    decode: (bytes) => (bytes.length === size ? intFromLittleEndian(bytes) : refuse(`${bytes.length} bytes`)),
    toJson: (value) => (bits > 53 ? String(value) : Number(value)),
    fromJson: (json) => BigInt(json),
  };
}

export const uint32 = uint(32);
export const uint64 = uint(64);
export const uint256 = uint(256);

export const boolean = {
  size: 1,
  encode: (value) => Uint8Array.of(value ? 1 : 0),
  decode: (bytes) => (bytes.length === 1 && bytes[0] < 2 ? bytes[0] === 1 : refuse("neither 0 nor 1")),
  toJson: (value) => value,
  fromJson: (json) => json,
};

export function byteVector(size) {
  return {
    size,
    encode: (value) => value,
    decode: (bytes) => (bytes.length === size ? bytes : refuse(`${bytes.length} bytes`)),
    toJson: toHex,
    fromJson: fromHex,
  };
}

export const bytes20 = byteVector(20);
export const bytes32 = byteVector(32);

export function byteList(limit) {
  return {
    size: undefined,
    encode: (value) => value,
    decode: (bytes) => (bytes.length <= limit ? bytes : refuse(`over ${limit} bytes`)),
    toJson: toHex,
    fromJson: fromHex,
  };
}

/** At most `limit` items of one type. */
export function list(type, limit) {
  return {
    size: undefined,
    encode: (items) => encodeParts(items.map((item) => [type, item])),
    decode(bytes) {
      const count = countItems(type, bytes);
      if (count > limit) refuse(`over ${limit} items`);
      return decodeParts(Array(count).fill(type), bytes);
    },
    toJson: (items) => items.map(type.toJson),
    fromJson: (json) => json.map(type.fromJson),
  };
}

/** Named fields in order: {name: type, ...}. */
export function container(fields) {
  const names = Object.keys(fields);
  const types = Object.values(fields);
  const fixed = types.every((type) => type.size !== undefined);
  const build = (values) => Object.fromEntries(names.map((name, i) => [name, values[i]]));
  return {
    size: fixed ? types.reduce((sum, type) => sum + type.size, 0) : undefined,
    encode: (value) => encodeParts(names.map((name, i) => [types[i], value[name]])),
    decode: (bytes) => build(decodeParts(types, bytes)),
    toJson: (value) => build(names.map((name, i) => types[i].toJson(value[name]))),
    fromJson: (json) => build(names.map((name, i) => types[i].fromJson(json[name]))),
  };
}

/** Items of fixed size in place; for every other one an offset in place, and its bytes after all of these. */
function encodeParts(parts) {
  const encoded = parts.map(([type, value]) => type.encode(value));
  let offset = parts.reduce((sum, [type]) => sum + (type.size ?? OFFSET_BYTES), 0);
  const heads = parts.map(([type], i) => {
    if (type.size !== undefined) return encoded[i];
    const head = uint32Le(offset);
    offset += encoded[i].length;
    return head;
  });
  const tails = encoded.filter((_, i) => parts[i][0].size === undefined);
  return concat(...heads, ...tails);
}

function readOffset(bytes, at) {
  return Number(intFromLittleEndian(bytes.subarray(at, at + OFFSET_BYTES)));
}

function countItems(type, bytes) {
  if (type.size !== undefined) {
    return bytes.length % type.size === 0 ? bytes.length / type.size : refuse("no whole number of items");
  }
  if (bytes.length === 0) return 0;
  if (bytes.length < OFFSET_BYTES) refuse("no whole offset");
  const first = readOffset(bytes, 0); // where the offsets end
  if (first === 0 || first % OFFSET_BYTES !== 0 || first > bytes.length) refuse("a wrong first offset");
  return first / OFFSET_BYTES;
}

function decodeParts(types, bytes) {
  const headSize = types.reduce((sum, type) => sum + (type.size ?? OFFSET_BYTES), 0);
  if (bytes.length < headSize) refuse(`${bytes.length} bytes, at least ${headSize} are needed`);
  const starts = [];
  let at = 0;
  for (const type of types) {
    starts.push(type.size === undefined ? readOffset(bytes, at) : at);
    at += type.size ?? OFFSET_BYTES;
  }
  let tail = headSize; // each part of variable size must begin where the one before it ends
  const values = types.map((type, i) => {
    if (type.size !== undefined) return type.decode(bytes.subarray(starts[i], starts[i] + type.size));
    const next = types.findIndex((other, j) => j > i && other.size === undefined);
    const end = next === -1 ? bytes.length : starts[next];
    if (starts[i] !== tail || end < tail || end > bytes.length) refuse("a wrong offset");
    tail = end;
    return type.decode(bytes.subarray(starts[i], end));
  });
  const fixed = types.every((type) => type.size !== undefined);
  if (fixed && bytes.length !== headSize) refuse("bytes left over");
  return values;
}

/** The value of a type that `bytes` encode; anything but the one encoding of a value is refused. */
export function decode(type, bytes) {
  let value;
  try {
    value = type.decode(bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw malformed("encoding/undecodable", error.message);
  }
  if (!bytesEqual(type.encode(value), bytes)) throw malformed("encoding/undecodable", "not the value's encoding");
  return value;
}
