// Follows the appendix of specs/model/weights.md: GGUF, llama.cpp's model file, version 2 or 3.

import { fromHex } from "./bytes.js";
import { Float32, TENSOR_TYPES } from "./weights.js";

const TENSOR_TYPE_NAMES = {
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  8: "Q8_0",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  30: "BF16",
};
const DEFAULT_ALIGNMENT = 32;
const LISTS = ["general.", "tokenizer.", "quantize."];

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  /** Read one number with a method of DataView. */
  number(method, size) {
    const value = this.view[method](this.at, true);
    this.at += size;
    return value;
  }

  uint32() {
    return this.number("getUint32", 4);
  }

  uint64() {
    return this.number("getBigUint64", 8);
  }

  truth() {
    const byte = this.number("getUint8", 1);
    if (byte > 1) throw new Error(`GGUF: a truth value of ${byte}`);
    return byte === 1;
  }

  text() {
    const length = Number(this.uint64());
    const data = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return new TextDecoder("utf-8", { fatal: true }).decode(data);
  }

  /** One metadata value of a GGUF type: integers as BigInt, F32 as Float32; arrays as arrays. */
  value(type) {
    switch (type) {
      case 0:
        return BigInt(this.number("getUint8", 1));
      case 1:
        return BigInt(this.number("getInt8", 1));
      case 2:
        return BigInt(this.number("getUint16", 2));
      case 3:
        return BigInt(this.number("getInt16", 2));
      case 4:
        return BigInt(this.uint32());
      case 5:
        return BigInt(this.number("getInt32", 4));
      case 6:
        return new Float32(this.uint32());
      case 7:
        return this.truth();
      case 8:
        return this.text();
      case 9: {
        const itemType = this.uint32();
        if (itemType === 9) throw new Error("GGUF: a list of lists");
        const items = [];
        for (let count = this.uint64(); count > 0n; count--) items.push(this.value(itemType));
        return items;
      }
      case 10:
        return this.uint64();
      case 11:
        return this.number("getBigInt64", 8);
      case 12:
        throw new Error("GGUF: a 64-bit float, which no page specifies");
      default:
        throw new Error(`GGUF: unknown metadata type ${type}`);
    }
  }
}

/** Return {metadata: Map, tensors: Map} of a GGUF file's bytes; lists are left out of the metadata. */
export function readGguf(bytes) {
  const reader = new Reader(bytes);
  if (reader.uint32() !== 0x46554747) throw new Error("GGUF: wrong magic");
  const version = reader.uint32();
  if (version !== 2 && version !== 3) throw new Error(`GGUF: version ${version}`);
  const tensorCount = Number(reader.uint64());
  const keyCount = Number(reader.uint64());

  const metadata = new Map();
  for (let i = 0; i < keyCount; i++) {
    const key = reader.text();
    const value = reader.value(reader.uint32());
    if (metadata.has(key)) throw new Error(`GGUF: ${key} occurs twice`);
    const isKnownList = LISTS.some((beginning) => key.startsWith(beginning));
    if (Array.isArray(value) && !isKnownList) throw new Error(`GGUF: ${key} is a list, which no page specifies`);
    if (!Array.isArray(value)) metadata.set(key, value);
  }

  const infos = [];
  for (let i = 0; i < tensorCount; i++) {
    const name = reader.text();
    const dimensions = Array.from({ length: reader.uint32() }, () => Number(reader.uint64()));
    const type = reader.uint32();
    infos.push({ name, shape: dimensions.reverse(), type, offset: Number(reader.uint64()) });
  }

  const alignment = Number(metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT);
  const dataStart = Math.ceil(reader.at / alignment) * alignment;
  const tensors = new Map();
  for (const { name, shape, type, offset } of infos) {
    const typeName = TENSOR_TYPE_NAMES[type] ?? `type ${type}`;
    if (tensors.has(name)) throw new Error(`GGUF: ${name} occurs twice`);
    const start = dataStart + offset;
    const data = bytes.subarray(start, start + getDataLength(typeName, shape));
    tensors.set(name, { name, type: typeName, shape, data });
  }
  return { metadata, tensors };
}

/** The bytes that a tensor takes, without the padding after it; 0 for a type that is not known here. */
function getDataLength(typeName, shape) {
  if (!Object.hasOwn(TENSOR_TYPES, typeName)) return 0;
  const [elements, size] = TENSOR_TYPES[typeName];
  return (shape.reduce((product, n) => product * n, 1) / elements) * size;
}

/** The same from the JSON form that the vectors use for small models. */
export function readGgufJson({ metadata, tensors }) {
  const readScalar = (value) => {
    if ("integer" in value) return BigInt(value.integer);
    if ("float32" in value) return new Float32(value.float32);
    return "text" in value ? value.text : value.boolean;
  };
  const readTensor = (name, { type, shape, data }) => ({ name, type, shape, data: fromHex(data) });
  return {
    metadata: new Map(Object.entries(metadata).map(([key, value]) => [key, readScalar(value)])),
    tensors: new Map(Object.entries(tensors).map(([name, tensor]) => [name, readTensor(name, tensor)])),
  };
}
