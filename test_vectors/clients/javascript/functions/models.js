// The suites weights and inference.

import { fromHex, int64Le, toHex } from "../bytes.js";
import { readGgufJson } from "../gguf.js";
import * as inference from "../inference.js";
import * as integerModel from "../integer_model.js";
import { taggedHash } from "../keccak.js";
import * as loss from "../loss.js";
import { Float32, TENSOR_TYPES, decodeTensor } from "../weights.js";
import { bigs, demandModel, texts } from "./json.js";

const showMatrix = (matrix) => ({ ...matrix, rows: matrix.rows.map((row) => Array.from(row)) });

function showModel(model) {
  const showLayer = (layer) =>
    Object.fromEntries(
      Object.entries(layer).map(([part, value]) => [part, Array.isArray(value) ? value : showMatrix(value)]),
    );
  const { rope_base, epsilon } = model.architecture;
  return {
    architecture: { ...model.architecture, rope_base: rope_base.bits, epsilon: epsilon.bits },
    embedding: model.embedding,
    layers: model.layers.map(showLayer),
    output_norm: model.output_norm,
    head: showMatrix(model.head),
    attention_scale: Number(model.attention_scale),
    root: toHex(integerModel.computeIntegerModelRoot(model)),
  };
}

/** A tensor that is one row of blocks. */
function makeVector(type, data) {
  const [elements, size] = TENSOR_TYPES[type];
  const bytes = fromHex(data);
  return { name: "vector", type, shape: [Math.floor(bytes.length / size) * elements], data: bytes };
}

/** An architecture from its JSON form, where the two floats are given by their bits. */
function readArchitecture(json) {
  return { ...json, rope_base: new Float32(json.rope_base), epsilon: new Float32(json.epsilon) };
}

export const WEIGHTS = {
  decode_block: ({ type, data }) => ({ values: texts(decodeTensor(makeVector(type, data))[0].map(BigInt)) }),
  decode_tensor({ type, shape, data }) {
    const rows = decodeTensor({ name: "tensor", type, shape, data: fromHex(data) });
    return { rows: rows.map((row) => texts(row.map(BigInt))) };
  },
  quantise_matrix({ weights }) {
    const { k, multipliers, rows } = showMatrix(integerModel.quantiseMatrix("matrix", weights));
    return { k, multipliers, rows };
  },
  read_gains({ type, data }) {
    const tensor = makeVector(type, data);
    return { gains: integerModel.readGains({ tensors: new Map([[tensor.name, tensor]]) }, tensor.name) };
  },
  attention_scale: ({ head_dim }) => ({ scale: Number(integerModel.computeAttentionScale(head_dim)) }),
  make_integer_model: ({ gguf }) => ({ model: showModel(integerModel.makeIntegerModel(readGgufJson(gguf))) }),
  check_architecture({ architecture }) {
    integerModel.checkArchitecture(readArchitecture(architecture));
    return {};
  },
  matrix_digest: ({ matrix }) => ({ digest: toHex(integerModel.computeMatrixDigest(matrix)) }),
  vectors_digest: ({ name, vectors }) => ({ digest: toHex(integerModel.computeVectorsDigest(name, vectors)) }),
  root_of_digests({ architecture, digests }) {
    const root = integerModel.computeRootOfDigests(readArchitecture(architecture), digests.map(fromHex));
    return { root: toHex(root) };
  },
  tensor_digests({ model }) {
    const integers = demandModel(model);
    const named = integerModel.computeTensorDigests(integers);
    const tensors = named.map(([name, digest]) => ({ name, digest: toHex(digest) }));
    return { tensors, root: toHex(integerModel.computeIntegerModelRoot(integers)) };
  },
};

/** Every step of a pass: [{layer, step, rows}]. */
function computeSteps({ model, tokens, scored }) {
  const steps = [];
  inference.runModel(demandModel(model), tokens, scored, (layer, step, rows) => steps.push({ layer, step, rows }));
  return steps;
}

function showEvaluation({ nlls, trace, loss: total }) {
  const digest = toHex(loss.computeTraceDigest(trace));
  return { nlls: texts(nlls), loss: String(total), trace: trace.map(toHex), trace_digest: digest };
}

const showValues = (row) => row.map(Number);

export const INFERENCE = {
  quantise_row({ x }) {
    const [[e1, e2, f], a] = inference.quantiseRow(x);
    return { e1, e2, f, a };
  },
  linear: ({ k, multipliers, rows, x, q_out }) => ({ y: inference.linear({ k, multipliers, rows }, x, q_out) }),
  rms_norm: ({ x, gains, epsilon }) => ({ y: inference.rmsNorm(x, gains, new Float32(epsilon)) }),
  rotate: ({ x, position, head_dim, base }) => ({
    y: inference.rotate(x, position, { head_dim, rope_base: new Float32(base) }),
  }),
  compute_scores: ({ q, keys, scale }) => ({ scores: showValues(inference.computeScores(q, keys, BigInt(scale))) }),
  mix_values: ({ scores, values }) => ({ y: inference.mixValues(bigs(scores), values) }),
  swiglu: ({ g, u }) => ({ y: g.map((v, i) => inference.swiglu(v, u[i])) }),
  compute_nll: ({ logits, target }) => ({ nll: String(inference.computeNll(logits, target)) }),
  run: ({ model, tokens, scored }) => showEvaluation(inference.runModel(demandModel(model), tokens, scored)),
  run_inline({ gguf, tokens, scored }) {
    const model = integerModel.makeIntegerModel(readGgufJson(gguf));
    return showEvaluation(inference.runModel(model, tokens, scored));
  },
  /** Each step's digest: all its values, 8 bytes each. */
  steps(input) {
    const steps = computeSteps(input).map(({ layer, step, rows }) => ({
      layer,
      step,
      digest: toHex(taggedHash("PoAI/vector-step/1", ...rows.map(int64Le))),
      first: showValues((rows.at(0) ?? []).slice(0, 8)),
      last: showValues((rows.at(-1) ?? []).slice(0, 8)),
    }));
    return { steps };
  },
  step_values(input) {
    return { steps: computeSteps(input).map(({ layer, step, rows }) => ({ layer, step, rows: rows.map(showValues) })) };
  },
};
