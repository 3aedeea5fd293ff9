// Follows specs/model/integer-model.md: from a GGUF file to the integers of the forward pass.
//
// Records have the pages' field names. Metadata integers are BigInt; what is at most 2^53 afterwards is a Number.

import { concat, int32Le, invalid, join, uint32Le, utf8 } from "./bytes.js";
import { LOG2E_128, bitLength, divRound, isqrt, walshHadamard } from "./fixed_point.js";
import { taggedHash } from "./keccak.js";
import { Float32, decodeTensor, roundShiftDouble } from "./weights.js";

const MAX_INNER = 2 ** 15;
const MAX_WIDTH = 2 ** 14;
const MAX_HEAD_DIM = 2 ** 12;
const MAX_LAYERS = 256;
const MAX_VOCABULARY = 2 ** 24;
const ROW_MAXIMUM_BITS = 38;
const GAIN_LIMIT = 128;
const MULTIPLIER_BITS = 26;

const METADATA_KEYS = [
  "block_count",
  "context_length",
  "embedding_length",
  "feed_forward_length",
  "vocab_size",
  "attention.head_count",
  "attention.head_count_kv",
  "attention.key_length",
  "attention.value_length",
  "attention.layer_norm_rms_epsilon",
  "rope.dimension_count",
  "rope.freq_base",
];
const NEUTRAL_METADATA = new Map([
  ["expert_count", 0n],
  ["expert_used_count", 0n],
  ["rope.scaling.type", "none"],
]);
const DEFAULT_ROPE_BASE = new Float32(0x461c4000); // 10000.0

// Reading the architecture. A GGUF file is {metadata: Map, tensors: Map}.

/** The positive integer `llama.KEY`, or the default where the key is absent. */
function getCount(gguf, key, fallback) {
  const value = gguf.metadata.has(`llama.${key}`) ? gguf.metadata.get(`llama.${key}`) : fallback;
  if (typeof value !== "bigint" || value < 1n) {
    throw invalid("integer-model/metadata", `llama.${key} is ${value}, expected a positive integer`);
  }
  return value;
}

/** The positive F32 `llama.KEY`, or the default where the key is absent. */
function getFloat(gguf, key, fallback) {
  const value = gguf.metadata.has(`llama.${key}`) ? gguf.metadata.get(`llama.${key}`) : fallback;
  if (!(value instanceof Float32) || value.asRatio()[0] <= 0n) {
    throw invalid("integer-model/metadata-float", `llama.${key}: expected a positive F32`);
  }
  return value;
}

function checkMetadata(gguf) {
  if (gguf.metadata.get("general.architecture") !== "llama") {
    throw invalid("integer-model/architecture", "only 'llama' is specified");
  }
  for (const [key, value] of gguf.metadata) {
    if (!key.startsWith("llama.")) continue;
    const short = key.slice("llama.".length);
    if (METADATA_KEYS.includes(short)) continue;
    if (!NEUTRAL_METADATA.has(short) || NEUTRAL_METADATA.get(short) !== value) {
      throw invalid("integer-model/unknown-key", `${key} may change the arithmetic`);
    }
  }
}

export function readArchitecture(gguf) {
  checkMetadata(gguf);
  const width = getCount(gguf, "embedding_length");
  const heads = getCount(gguf, "attention.head_count");
  const headDim = getCount(gguf, "attention.key_length", width / heads);
  const architecture = {
    layer_count: Number(getCount(gguf, "block_count")),
    width: Number(width),
    head_count: Number(heads),
    kv_head_count: Number(getCount(gguf, "attention.head_count_kv", heads)),
    head_dim: Number(headDim),
    ffn_width: Number(getCount(gguf, "feed_forward_length")),
    vocabulary_size: getTensor(gguf, "token_embd.weight").shape[0] ?? 0,
    rope_base: getFloat(gguf, "rope.freq_base", DEFAULT_ROPE_BASE),
    epsilon: getFloat(gguf, "attention.layer_norm_rms_epsilon"),
  };
  for (const [key, expected] of [
    ["attention.value_length", headDim],
    ["rope.dimension_count", headDim],
    ["vocab_size", BigInt(architecture.vocabulary_size)],
  ]) {
    const found = getCount(gguf, key, expected);
    if (found !== expected) throw invalid("integer-model/mismatch", `llama.${key} is ${found}, expected ${expected}`);
  }
  checkArchitecture(architecture);
  return architecture;
}

export function checkArchitecture(a) {
  const [baseNumerator, baseDenominator] = a.rope_base.asRatio();
  const [epsilonNumerator, epsilonDenominator] = a.epsilon.asRatio();
  const holds =
    a.layer_count <= MAX_LAYERS &&
    a.width <= MAX_WIDTH &&
    a.head_dim % 2 === 0 &&
    a.head_dim <= MAX_HEAD_DIM &&
    a.head_count % a.kv_head_count === 0 &&
    a.head_count * a.head_dim <= MAX_INNER &&
    a.ffn_width <= MAX_INNER &&
    a.vocabulary_size <= MAX_VOCABULARY &&
    baseNumerator >= baseDenominator &&
    epsilonNumerator < epsilonDenominator;
  if (!holds) throw invalid("integer-model/bounds", "a shape outside the proved bounds");
}

// Reading the tensors.

/** [name, shape] of every tensor that the file must hold. */
function getTensorShapes(a, tied) {
  const attention = a.head_count * a.head_dim;
  const kv = a.kv_head_count * a.head_dim;
  const shapes = [
    ["token_embd.weight", [a.vocabulary_size, a.width]],
  ];
  for (let n = 0; n < a.layer_count; n++) {
    shapes.push(
      [`blk.${n}.attn_norm.weight`, [a.width]],
      [`blk.${n}.attn_q.weight`, [attention, a.width]],
      [`blk.${n}.attn_k.weight`, [kv, a.width]],
      [`blk.${n}.attn_v.weight`, [kv, a.width]],
      [`blk.${n}.attn_output.weight`, [a.width, attention]],
      [`blk.${n}.ffn_norm.weight`, [a.width]],
      [`blk.${n}.ffn_gate.weight`, [a.ffn_width, a.width]],
      [`blk.${n}.ffn_up.weight`, [a.ffn_width, a.width]],
      [`blk.${n}.ffn_down.weight`, [a.width, a.ffn_width]],
    );
  }
  shapes.push(["output_norm.weight", [a.width]]);
  if (!tied) shapes.push(["output.weight", [a.vocabulary_size, a.width]]);
  return shapes;
}

function getTensor(gguf, name) {
  if (!gguf.tensors.has(name)) throw invalid("integer-model/tensor-missing", name);
  return gguf.tensors.get(name);
}

export function checkTensors(gguf, a) {
  const shapes = getTensorShapes(a, !gguf.tensors.has("output.weight"));
  for (const [name, shape] of shapes) {
    const found = getTensor(gguf, name).shape;
    if (found.length !== shape.length || found.some((n, i) => n !== shape[i])) {
      throw invalid("integer-model/tensor-shape", `${name} has shape [${found}], expected [${shape}]`);
    }
  }
  const known = new Set(shapes.map(([name]) => name));
  for (const name of gguf.tensors.keys()) {
    if (!known.has(name)) throw invalid("integer-model/tensor-unknown", name);
  }
}

/**
 * Transform the rows W and quantise them to int8 with one multiplier a row: {name, k, multipliers, rows}.
 *
 * Weights beyond 2^38 are cut to it, so that doubles hold every sum. No transformed row is smaller than its largest
 * weight, so `checkMaximum` refuses the matrix either way.
 */
export function quantiseMatrix(name, weights) {
  const limit = 2 ** ROW_MAXIMUM_BITS;
  const transformed = weights.map((row) => walshHadamard(row.map((w) => Math.max(-limit, Math.min(limit, w)))));
  const maxima = transformed.map((row) => row.reduce((largest, w) => Math.max(largest, Math.abs(w)), 0));
  const largest = maxima.reduce((a, b) => Math.max(a, b), 0);
  checkMaximum(name, largest);
  const k = MULTIPLIER_BITS - Number(bitLength(BigInt(largest)));
  const up = BigInt(Math.max(k, 0));
  const down = BigInt(Math.max(-k, 0));
  return {
    name,
    k,
    multipliers: maxima.map((m) => Number(divRound(BigInt(m) << up, 127n << down))),
    rows: transformed.map((row, o) => quantiseValues(row, maxima[o])),
  };
}

/**
 * round(127 w / m) for every transformed w of a row. Doubles are exact enough: the maximum m is below 2^38, so dividend and divisor
 * are below 2^53, and a quotient that is no integer is further than 2^-39 from one, far more than the division rounds.
 */
function quantiseValues(row, m) {
  return Int8Array.from(row, (w) => (m === 0 ? 0 : Math.floor((2 * 127 * w + m) / (2 * m))));
}

function checkMaximum(name, maximum) {
  if (maximum >= 2 ** ROW_MAXIMUM_BITS) {
    throw invalid("integer-model/row-maximum", `${name} holds a transformed weight of magnitude 2^14 or more`);
  }
}

function readMatrix(gguf, name) {
  return quantiseMatrix(name, decodeTensor(getTensor(gguf, name)));
}

/** The gains of a norm in Q16. */
export function readGains(gguf, name) {
  const gains = decodeTensor(getTensor(gguf, name))[0].map((w) => roundShiftDouble(w, 8));
  if (gains.some((gain) => Math.abs(gain) >= GAIN_LIMIT * 2 ** 16)) {
    throw invalid("integer-model/gain", `${name} has a gain of magnitude ${GAIN_LIMIT} or more`);
  }
  return gains;
}

/** log2(e) / sqrt(head_dim) in Q24, as a BigInt. */
export function computeAttentionScale(headDim) {
  return (isqrt((4n * LOG2E_128 ** 2n) / BigInt(headDim)) + (1n << 104n)) >> 105n;
}

function clampInt32(x) {
  return Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, x));
}

/** The integers of a model. */
export function makeIntegerModel(gguf) {
  const architecture = readArchitecture(gguf);
  checkTensors(gguf, architecture);
  const embedding = decodeTensor(getTensor(gguf, "token_embd.weight")).map((row) =>
    row.map((w) => clampInt32(roundShiftDouble(w, 10))),
  );
  const layers = [];
  for (let n = 0; n < architecture.layer_count; n++) {
    const blk = `blk.${n}.`;
    layers.push({
      attn_norm: readGains(gguf, blk + "attn_norm.weight"),
      attn_q: readMatrix(gguf, blk + "attn_q.weight"),
      attn_k: readMatrix(gguf, blk + "attn_k.weight"),
      attn_v: readMatrix(gguf, blk + "attn_v.weight"),
      attn_output: readMatrix(gguf, blk + "attn_output.weight"),
      ffn_norm: readGains(gguf, blk + "ffn_norm.weight"),
      ffn_gate: readMatrix(gguf, blk + "ffn_gate.weight"),
      ffn_up: readMatrix(gguf, blk + "ffn_up.weight"),
      ffn_down: readMatrix(gguf, blk + "ffn_down.weight"),
    });
  }
  const outputNorm = readGains(gguf, "output_norm.weight");
  const head = readMatrix(gguf, gguf.tensors.has("output.weight") ? "output.weight" : "token_embd.weight");
  const attentionScale = computeAttentionScale(architecture.head_dim);
  return { architecture, embedding, layers, output_norm: outputNorm, head, attention_scale: attentionScale };
}

// The root.

export function computeMatrixDigest(matrix) {
  return taggedHash(
    "PoAI/integer-matrix/1",
    uint32Le(matrix.name.length),
    utf8(matrix.name),
    uint32Le(matrix.rows.length),
    uint32Le(matrix.rows[0].length),
    int32Le([matrix.k]),
    int32Le(matrix.multipliers),
    join(matrix.rows.map((row) => Uint8Array.from(row))),
  );
}

export function computeVectorsDigest(name, vectors) {
  return taggedHash("PoAI/integer-vectors/1", uint32Le(name.length), utf8(name), join(vectors.map(int32Le)));
}

/** Names and digests of all tensors, ordered by name; a tied head comes right after the embedding. */
export function computeTensorDigests(model) {
  const named = [
    ["token_embd.weight", computeVectorsDigest("token_embd.weight", model.embedding)],
    [model.head.name, computeMatrixDigest(model.head)],
    ["output_norm.weight", computeVectorsDigest("output_norm.weight", [model.output_norm])],
  ];
  model.layers.forEach((layer, n) => {
    for (const [part, value] of Object.entries(layer)) {
      const name = `blk.${n}.${part}.weight`;
      named.push([name, Array.isArray(value) ? computeVectorsDigest(name, [value]) : computeMatrixDigest(value)]);
    }
  });
  // Names are ASCII, so comparing strings compares bytes; the sort is stable.
  return named.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}

export function computeIntegerModelRoot(model) {
  return computeRootOfDigests(
    model.architecture,
    computeTensorDigests(model).map(([, digest]) => digest),
  );
}

export function computeRootOfDigests(a, digests) {
  const numbers = [a.layer_count, a.width, a.head_count, a.kv_head_count, a.head_dim, a.ffn_width, a.vocabulary_size];
  const header = concat(...[...numbers, a.rope_base.bits, a.epsilon.bits].map(uint32Le));
  return taggedHash("PoAI/integer-model/1", header, ...digests);
}
