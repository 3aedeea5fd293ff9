// Follows specs/model/inference.md: the forward pass in exact integers.
//
// Rows are arrays of Numbers that hold int32 values. Where the page's table of bounds says "float64 exact", the step is
// computed in doubles, and `roundShiftDouble` is the page's `round_shift`; every other step uses BigInt. So no step
// rounds where the page does not.

import {
  EXP2_ONE,
  LOG2E,
  abs,
  bitLength,
  clamp,
  cosSin,
  divRound,
  exp2Neg,
  floorDiv,
  getTransformSize,
  isqrt,
  log2Fixed,
  roundShift,
  walshHadamard,
} from "./fixed_point.js";
import { computeLayerEntry, computeOutputEntry } from "./loss.js";
import { roundShiftDouble } from "./weights.js";

const RESIDUAL_Q = 14;
const ACTIVATION_Q = 16;
const TRANSFORM_BITS = 14;
const ACTIVATION_LIMIT = 127;
const SCALE_STEPS = [4, 5, 6, 7];
const ROTATED_LIMIT = 20;
const VALUE_LIMIT = 24;

/** `clamp` on a double. */
function clampDouble(x, n) {
  return Math.max(-(2 ** n), Math.min(2 ** n - 1, x));
}

function largestMagnitude(row) {
  return row.reduce((largest, v) => Math.max(largest, Math.abs(v)), 0);
}

/** `bit_length` of a Number in 0 .. 2^32 - 1. */
function bitLengthDouble(x) {
  return 32 - Math.clz32(x);
}

// Linear maps

/** [e2, f]: the smallest scale f / 4 * 2^e2 that keeps a row with this largest magnitude within 127. */
function chooseScale(largest) {
  for (let e2 = 0; ; e2++) {
    const f = SCALE_STEPS.find((step) => 4 * largest <= ACTIVATION_LIMIT * step * 2 ** e2);
    if (f !== undefined) return [e2, f];
  }
}

/** [[e1, e2, f], a]: the transform of x is about a * f * 2^(e1 + e2 - 2), every a in -127 .. 127. */
export function quantiseRow(x) {
  const e1 = Math.max(0, bitLengthDouble(largestMagnitude(x)) - TRANSFORM_BITS);
  const z = walshHadamard(x.map((v) => roundShiftDouble(v, e1)));
  const [e2, f] = chooseScale(largestMagnitude(z));
  const scale = f * 2 ** e2;
  return [[e1, e2, f], z.map((v) => Math.floor((8 * v + scale) / (2 * scale)))];
}

/** The exact sums of products of a quantised row with every row of a matrix: below 2^29. */
export function computeSums(matrix, a) {
  return matrix.rows.map((row) => {
    let sum = 0;
    for (let i = 0; i < row.length; i++) sum += a[i] * row[i];
    return sum;
  });
}

/**
 * Multiply a Q16 row by a matrix. The product, below 2^52, is scaled by a power of two, which a double does exactly;
 * the sum with 1/2 is exact for shifts up to 53, and for longer ones, rounded or not, between 0 and 1.
 */
export function linear(matrix, x, qOut = ACTIVATION_Q) {
  const [[e1, e2, f], a] = quantiseRow(x);
  const shift = matrix.k + 24 - e1 - e2 + ACTIVATION_Q - qOut + 2 + Math.log2(getTransformSize(x.length));
  const factor = f * 2 ** -shift;
  return computeSums(matrix, a).map((sum, o) =>
    clampDouble(Math.floor(sum * matrix.multipliers[o] * factor + 0.5), 31),
  );
}

// RMSNorm

/** x / sqrt(mean(x^2) + epsilon) * gain; x is Q14, the gains and the result are Q16. */
export function rmsNorm(x, gains, epsilon) {
  const s = Math.max(-8, bitLengthDouble(largestMagnitude(x)) - 24);
  const xs = x.map((v) => BigInt(roundShiftDouble(v, s)));
  const [numerator, denominator] = epsilon.asRatio();
  const sumOfSquares = xs.reduce((sum, v) => sum + v * v, 0n);
  const epsilonTerm = divRound(numerator << BigInt(28 - 2 * s), denominator);
  const mean = floorDiv(sumOfSquares, BigInt(x.length)) + epsilonTerm;
  const r = isqrt(mean << 12n);
  const inv = r > 0n ? (1n << 53n) / r : 0n;
  return xs.map((v, i) => Number(roundShift(roundShift(v * inv, 31n) * BigInt(gains[i]), 16n)));
}

// Attention

const rotations = new Map();

/** [cos, sin] in Q15 of a position and a pair, as Numbers. */
function getRotation(position, pair, headDim, ropeBase) {
  const key = `${position}/${pair}/${headDim}/${ropeBase.bits}`;
  if (!rotations.has(key)) {
    const values = cosSin(BigInt(position), BigInt(pair), BigInt(headDim), ...ropeBase.asRatio());
    rotations.set(key, values.map(Number));
  }
  return rotations.get(key);
}

/** Rotate the heads of q or k, Q16, to a position; the result is Q12. */
export function rotate(x, position, a) {
  const out = [];
  for (let at = 0; at < x.length; at += 2) {
    const [c, s] = getRotation(position, (at % a.head_dim) / 2, a.head_dim, a.rope_base);
    out.push(clampDouble(roundShiftDouble(x[at] * c - x[at + 1] * s, 19), ROTATED_LIMIT));
    out.push(clampDouble(roundShiftDouble(x[at] * s + x[at + 1] * c, 19), ROTATED_LIMIT));
  }
  return out;
}

function dot(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

/** The base-2 scores of one query head, Q16, as BigInt; q and keys are Q12, `scale` is a BigInt in Q24. */
export function computeScores(q, keys, scale) {
  return keys.map((k) => roundShift(BigInt(roundShiftDouble(dot(q, k), 8)) * scale, 24n));
}

/** The softmax-weighted mean of the values of one head; the values are Numbers in Q16. */
export function mixValues(scores, values) {
  const largest = scores.reduce((a, b) => (a > b ? a : b));
  const p = scores.map((score) => Number(roundShift(exp2Neg(largest - score), 14n)));
  const total = p.reduce((sum, weight) => sum + weight, 0);
  return values[0].map((_, i) => {
    const column = values.map((value) => value[i]);
    return Number(divRound(BigInt(dot(p, column)), BigInt(total)));
  });
}

/**
 * The attention output of every position, heads side by side, Q16, and all scores, by position, then by head.
 * Position t sees the positions 0 .. t.
 */
export function attend(queries, keys, values, model) {
  const a = model.architecture;
  const group = a.head_count / a.kv_head_count;
  const scores = [];
  const outputs = queries.map((query, t) => {
    const row = [];
    for (let h = 0; h < a.head_count; h++) {
      const kv = Math.floor(h / group);
      const ours = query.slice(h * a.head_dim, (h + 1) * a.head_dim);
      const ofHead = (other) => other.slice(kv * a.head_dim, (kv + 1) * a.head_dim);
      const ofThis = computeScores(ours, keys.slice(0, t + 1).map(ofHead), model.attention_scale);
      row.push(...mixValues(ofThis, values.slice(0, t + 1).map(ofHead)));
      scores.push(ofThis);
    }
    return row;
  });
  return { scores, outputs };
}

// Feed-forward

/** silu(g) * u; all in Q16, saturated to int32. */
export function swiglu(gate, up) {
  const g = BigInt(gate);
  const u = BigInt(up);
  const t = exp2Neg(roundShift(abs(g) * LOG2E, 20n)); // Q30
  const sigma = divRound((g >= 0n ? EXP2_ONE : t) << 16n, EXP2_ONE + t); // Q16
  return Number(clamp(roundShift(roundShift(g * sigma, 16n) * u, 16n), 31n));
}

// The model

/** The residual plus a block's contribution, Q14. */
export function addRows(x, y) {
  return x.map((v, i) => clampDouble(v + y[i], 31));
}

// Every step of the pass is reported as `observe(step, rows)`, which lets a caller compare them one by one.

/** The residual after the attention half of a block. */
function runAttention(model, layer, rows, observe) {
  const a = model.architecture;
  const normed = rows.map((x) => rmsNorm(x, layer.attn_norm, a.epsilon));
  const queries = normed.map((h, t) => rotate(linear(layer.attn_q, h), t, a));
  const keys = normed.map((h, t) => rotate(linear(layer.attn_k, h), t, a));
  const values = normed.map((h) => linear(layer.attn_v, h).map((v) => clampDouble(v, VALUE_LIMIT)));
  const { scores, outputs } = attend(queries, keys, values, model);
  const residual = rows.map((x, t) => addRows(x, linear(layer.attn_output, outputs[t], RESIDUAL_Q)));
  observe("attn_norm", normed);
  observe("q", queries);
  observe("k", keys);
  observe("v", values);
  observe("scores", scores);
  observe("attn", outputs);
  observe("attn_residual", residual);
  return residual;
}

/** The residual after the feed-forward half of a block. */
function runFfn(model, layer, rows, observe) {
  const normed = rows.map((x) => rmsNorm(x, layer.ffn_norm, model.architecture.epsilon));
  const gates = normed.map((h) => linear(layer.ffn_gate, h));
  const ups = normed.map((h) => linear(layer.ffn_up, h));
  const acts = gates.map((gate, t) => gate.map((g, i) => swiglu(g, ups[t][i])));
  const residual = rows.map((x, t) => addRows(x, linear(layer.ffn_down, acts[t], RESIDUAL_Q)));
  observe("ffn_norm", normed);
  observe("gate", gates);
  observe("up", ups);
  observe("act", acts);
  observe("residual", residual);
  return residual;
}

/** The residual after one transformer block, Q14. */
export function runBlock(model, layer, rows, observe) {
  return runFfn(model, layer, runAttention(model, layer, rows, observe), observe);
}

// Scoring

/** The negative log-likelihood of token `target`, in bits, Q16, as a BigInt; the logits are Numbers in Q16. */
export function computeNll(logits, target) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const distances = logits.map((logit) => roundShift(BigInt(largest - logit) * LOG2E, 20n));
  const sum = distances.reduce((total, d) => total + exp2Neg(d), 0n);
  return log2Fixed(sum) - (30n << 16n) + distances[target];
}

/**
 * Run one sequence: yield each block's trace entry, and {nlls, trace, loss} last.
 *
 * `observe(layer, step, rows)` is told every step: layer 0 is the embedding, L + 1 what follows the blocks.
 */
export function* runSteps(model, tokens, scored, observe = () => {}) {
  let rows = tokens.map((token) => model.embedding[token]);
  observe(0, "embedding", rows);
  const trace = [];
  for (const [index, layer] of model.layers.entries()) {
    const number = index + 1;
    rows = runBlock(model, layer, rows, (step, values) => observe(number, step, values));
    trace.push(computeLayerEntry(number, rows.at(-1)));
    yield trace.at(-1);
  }
  const normed = rows.map((x) => rmsNorm(x, model.output_norm, model.architecture.epsilon));
  const logits = scored.map((t) => linear(model.head, normed[t - 1]));
  const nlls = scored.map((t, i) => computeNll(logits[i], tokens[t]));
  const pairs = normed.map(quantiseRow);
  const scales = pairs.map(([scale]) => scale);
  const quantised = pairs.map(([, a]) => a);
  trace.push(computeOutputEntry(scales, quantised, nlls));
  const last = model.layers.length + 1;
  observe(last, "output_norm", normed);
  observe(last, "scales", scales);
  observe(last, "quantised", quantised);
  observe(last, "logits", logits);
  observe(last, "nlls", [nlls]);
  yield { nlls, trace, loss: nlls.reduce((sum, nll) => sum + nll, 0n) };
}

/** Run one sequence to its end. */
export function runModel(model, tokens, scored, observe) {
  return [...runSteps(model, tokens, scored, observe)].at(-1);
}
