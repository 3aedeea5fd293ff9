// Follows specs/model/weights.md: GGUF tensors as integers W = 2^24 * w.
//
// Doubles hold every value here exactly: F16 scales are below 2^40 and every element of a block below 2^52; an F32 is
// 24 significant bits times a power of two.

import { invalid } from "./bytes.js";

/** An IEEE 754 binary32 number, held by its 32 bits and read exactly. */
export class Float32 {
  constructor(bits) {
    this.bits = bits;
  }

  /** [numerator, denominator] as BigInt; the denominator is a power of two, the fraction is not reduced. */
  asRatio() {
    const [significand, exponent] = splitFloat(this.bits, 8, 23);
    return [
      BigInt(significand) << BigInt(Math.max(exponent, 0)),
      1n << BigInt(Math.max(-exponent, 0)),
    ];
  }
}

/** [significand, exponent] of an IEEE 754 number given by its bits; value = significand * 2^exponent. */
export function splitFloat(bits, exponentBits, mantissaBits) {
  let mantissa = bits % 2 ** mantissaBits;
  const exponent = Math.floor(bits / 2 ** mantissaBits) % 2 ** exponentBits;
  const sign = bits >= 2 ** (mantissaBits + exponentBits) ? -1 : 1;
  if (exponent === 2 ** exponentBits - 1) {
    throw invalid("weights/not-finite", `bits 0x${bits.toString(16)}`);
  }
  if (exponent > 0) mantissa += 2 ** mantissaBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  return [sign * mantissa, Math.max(exponent, 1) - bias - mantissaBits];
}

/** `round_shift` on a double; exact while |x| + 2^(n-1) stays below 2^53, and for n <= 0 always. */
export function roundShiftDouble(x, n) {
  return n > 0 ? Math.floor((x + 2 ** (n - 1)) / 2 ** n) : x * 2 ** -n;
}

/** An F16 times 2^24, exact. */
export function readF16(data) {
  const [significand, exponent] = splitFloat(data[0] + 256 * data[1], 5, 10);
  return significand * 2 ** (exponent + 24);
}

/** An F32 times 2^24, rounded to nearest, halves up. */
export function readF32(data) {
  const bits = data[0] + 2 ** 8 * data[1] + 2 ** 16 * data[2] + 2 ** 24 * data[3];
  const [significand, exponent] = splitFloat(bits, 8, 23);
  const shift = -(exponent + 24);
  if (shift > 26) return 0; // the significand has 24 bits, so this is less than a half
  return roundShiftDouble(significand, shift);
}

/** A BF16 times 2^24, rounded to nearest, halves up. */
export function readBf16(data) {
  return readF32([0, 0, data[0], data[1]]);
}

const signed = (byte) => (byte > 127 ? byte - 256 : byte);

/** The low four bits of every byte, then the high four bits of every byte. */
function nibbles(data) {
  return [...Array.from(data, (byte) => byte & 15), ...Array.from(data, (byte) => byte >> 4)];
}

/** The 32 bits of 4 bytes, lowest first, each as 0 or 16. */
function fifthBits(data) {
  return Array.from({ length: 32 }, (_, j) => ((data[j >> 3] >> (j & 7)) & 1) << 4);
}

export function decodeQ4_0(block) {
  const d = readF16(block.subarray(0, 2));
  return nibbles(block.subarray(2, 18)).map((q) => d * (q - 8));
}

export function decodeQ4_1(block) {
  const d = readF16(block.subarray(0, 2));
  const m = readF16(block.subarray(2, 4));
  return nibbles(block.subarray(4, 20)).map((q) => d * q + m);
}

export function decodeQ5_0(block) {
  const d = readF16(block.subarray(0, 2));
  const high = fifthBits(block.subarray(2, 6));
  return nibbles(block.subarray(6, 22)).map((q, j) => d * (q + high[j] - 16));
}

export function decodeQ5_1(block) {
  const d = readF16(block.subarray(0, 2));
  const m = readF16(block.subarray(2, 4));
  const high = fifthBits(block.subarray(4, 8));
  return nibbles(block.subarray(8, 24)).map((q, j) => d * (q + high[j]) + m);
}

export function decodeQ8_0(block) {
  const d = readF16(block.subarray(0, 2));
  return Array.from(block.subarray(2, 34), (q) => d * signed(q));
}

/** The 8 pairs [scale, minimum], 6 bits each, that Q4_K and Q5_K pack into 12 bytes. */
export function unpackKScales(packed) {
  const pairs = [];
  for (let j = 0; j < 4; j++) pairs.push([packed[j] & 63, packed[j + 4] & 63]);
  for (let j = 0; j < 4; j++) {
    pairs.push([
      (packed[j + 8] & 15) | ((packed[j] >> 6) << 4),
      (packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4),
    ]);
  }
  return pairs;
}

export function decodeQ4_K(block) {
  const d = readF16(block.subarray(0, 2));
  const m = readF16(block.subarray(2, 4));
  const values = [];
  unpackKScales(block.subarray(4, 16)).forEach(([scale, minimum], s) => {
    const at = 16 + 32 * Math.floor(s / 2);
    for (const byte of block.subarray(at, at + 32)) {
      values.push(d * scale * ((byte >> (4 * (s % 2))) & 15) - m * minimum);
    }
  });
  return values;
}

export function decodeQ5_K(block) {
  const d = readF16(block.subarray(0, 2));
  const m = readF16(block.subarray(2, 4));
  const values = [];
  unpackKScales(block.subarray(4, 16)).forEach(([scale, minimum], s) => {
    const at = 48 + 32 * Math.floor(s / 2);
    for (let i = 0; i < 32; i++) {
      const q = ((block[at + i] >> (4 * (s % 2))) & 15) + ((block[16 + i] >> s) & 1) * 16;
      values.push(d * scale * q - m * minimum);
    }
  });
  return values;
}

export function decodeQ6_K(block) {
  const d = readF16(block.subarray(208, 210));
  const values = [];
  for (let half = 0; half < 2; half++) {
    const low = block.subarray(64 * half, 64 * half + 64);
    const high = block.subarray(128 + 32 * half, 160 + 32 * half);
    for (let t = 0; t < 4; t++) {
      for (let i = 0; i < 32; i++) {
        const scale = signed(block[192 + 8 * half + 2 * t + Math.floor(i / 16)]);
        const lowBits = (low[32 * (t % 2) + i] >> (4 * Math.floor(t / 2))) & 15;
        const q = lowBits | (((high[i] >> (2 * t)) & 3) << 4);
        values.push(d * scale * (q - 32));
      }
    }
  }
  return values;
}

/** By type: elements in a block, bytes in a block, and the decoder of a block. */
export const TENSOR_TYPES = {
  F32: [1, 4, (block) => [readF32(block)]],
  F16: [1, 2, (block) => [readF16(block)]],
  BF16: [1, 2, (block) => [readBf16(block)]],
  Q4_0: [32, 18, decodeQ4_0],
  Q4_1: [32, 20, decodeQ4_1],
  Q5_0: [32, 22, decodeQ5_0],
  Q5_1: [32, 24, decodeQ5_1],
  Q8_0: [32, 34, decodeQ8_0],
  Q4_K: [256, 144, decodeQ4_K],
  Q5_K: [256, 176, decodeQ5_K],
  Q6_K: [256, 210, decodeQ6_K],
};

/** Refuse a tensor {name, type, shape, data} whose type is unknown or whose bytes do not fit its shape. */
export function checkLayout(tensor) {
  if (!Object.hasOwn(TENSOR_TYPES, tensor.type)) {
    throw invalid("weights/type", `${tensor.name} is ${tensor.type}`);
  }
  const [elements, size] = TENSOR_TYPES[tensor.type];
  const dimensions = tensor.shape.length;
  const [rows, columns] = dimensions === 1 || dimensions === 2 ? [1, ...tensor.shape].slice(-2) : [0, 0];
  const expected = rows * Math.floor(columns / elements) * size;
  const fits =
    columns % elements === 0 &&
    expected > 0 &&
    tensor.data.length === expected;
  if (!fits) throw invalid("weights/shape", `${tensor.name}: [${tensor.shape}] in ${tensor.data.length} bytes`);
}

/** The rows of a tensor as arrays of integers W; a vector has one row. */
export function decodeTensor(tensor) {
  checkLayout(tensor);
  const [elements, size, decodeBlock] = TENSOR_TYPES[tensor.type];
  const columns = tensor.shape.at(-1);
  const bytesInRow = (columns / elements) * size;
  const rows = [];
  for (let start = 0; start < tensor.data.length; start += bytesInRow) {
    const row = [];
    for (let at = start; at < start + bytesInRow; at += size) {
      row.push(...decodeBlock(tensor.data.subarray(at, at + size)));
    }
    rows.push(row);
  }
  return rows;
}
