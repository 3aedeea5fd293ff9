// The functions that the vectors call, by `suite/function`: each takes the input of a case and returns its output.
//
// Here only the JSON form changes: integers above 2^53 are decimal strings, bytes hexadecimal after `0x`.

import { fromHex, toHex } from "./bytes.js";
import { Drbg } from "./drbg.js";
import * as difficulty from "./difficulty.js";
import * as economics from "./economics.js";
import * as epoch from "./epoch.js";
import * as fixedPoint from "./fixed_point.js";
import * as loss from "./loss.js";
import { Float32 } from "./weights.js";

/** What a case asks for is not part of this client, such as a model whose file is not here. */
export class NotImplemented extends Error {}

/** Decimal strings, as the vectors write integers that can pass 2^53. */
const texts = (values) => values.map(String);

const bigs = (values) => values.map(BigInt);

function repeat(count, draw) {
  return Array.from({ length: count }, draw);
}

/** The two numbers of a config that the page difficulty and the page epoch need. */
function readNumbers(input) {
  const config = {};
  for (const [name, value] of Object.entries(input)) {
    if (["epoch_blocks", "retarget_blocks", "spacing", "max_target"].includes(name)) config[name] = BigInt(value);
  }
  return config;
}

const DRBG = {
  next_uint64({ seed, count }) {
    const drbg = new Drbg(fromHex(seed));
    return { values: texts(repeat(count, () => drbg.nextUint64())) };
  },
  below({ seed, n, count }) {
    const drbg = new Drbg(fromHex(seed));
    return { values: texts(repeat(count, () => drbg.belowBig(BigInt(n)))) };
  },
};

const EPOCH = {
  get_epoch: (input) => ({ epoch: String(epoch.getEpoch(BigInt(input.height), readNumbers(input))) }),
  get_seed_height: (input) => ({ height: String(epoch.getSeedHeight(BigInt(input.epoch), readNumbers(input))) }),
  compute_epoch_key: (input) => ({
    key: toHex(epoch.computeEpochKey(fromHex(input.seed), BigInt(input.epoch))),
  }),
};

function baseRatio(bits) {
  return new Float32(bits).asRatio();
}

const FIXED_POINT = {
  round_shift: ({ x, n }) => ({ y: texts(bigs(x).map((v) => fixedPoint.roundShift(v, BigInt(n)))) }),
  div_round: ({ a, b }) => ({ y: texts(bigs(a).map((v) => fixedPoint.divRound(v, BigInt(b)))) }),
  clamp: ({ x, n }) => ({ y: texts(bigs(x).map((v) => fixedPoint.clamp(v, BigInt(n)))) }),
  bit_length: ({ x }) => ({ y: bigs(x).map((v) => Number(fixedPoint.bitLength(v))) }),
  isqrt: ({ x }) => ({ y: bigs(x).map((v) => Number(fixedPoint.isqrt(v))) }),
  exp2_neg: ({ d }) => ({ y: bigs(d).map((v) => Number(fixedPoint.exp2Neg(v))) }),
  log2_fixed: ({ x }) => ({ y: bigs(x).map((v) => Number(fixedPoint.log2Fixed(v))) }),
  cos_sin({ position, pair, head_dim, base }) {
    const [cos, sin] = fixedPoint.cosSin(BigInt(position), BigInt(pair), BigInt(head_dim), ...baseRatio(base));
    return { cos: Number(cos), sin: Number(sin) };
  },
  integer_root: ({ x, n }) => ({ root: String(fixedPoint.integerRoot(BigInt(x), BigInt(n))) }),
  pi: () => ({ value: String(fixedPoint.computePi()) }),
  frequency: ({ pair, head_dim, base }) => ({
    value: String(fixedPoint.computeFrequency(BigInt(pair), BigInt(head_dim), ...baseRatio(base))),
  }),
  exp2_table() {
    const table = fixedPoint.makeExp2Table();
    return { digest: toHex(fixedPoint.computeTableDigest(table)), values: table.map(Number) };
  },
  rotary_table({ positions, head_dim, base }) {
    const values = [];
    for (let position = 0; position < positions; position++) {
      for (let pair = 0; pair < head_dim / 2; pair++) {
        values.push(...fixedPoint.cosSin(BigInt(position), BigInt(pair), BigInt(head_dim), ...baseRatio(base)));
      }
    }
    return { digest: toHex(fixedPoint.computeTableDigest(values)), last: values.slice(-8).map(Number) };
  },
  table_digest: ({ values }) => ({ digest: toHex(fixedPoint.computeTableDigest(values)) }),
};

const LOSS = {
  compute_layer_entry: ({ layer, row }) => ({ entry: toHex(loss.computeLayerEntry(layer, row)) }),
  compute_output_entry({ positions, nlls }) {
    const exponents = positions.map((position) => position.exponent);
    const rows = positions.map((position) => position.row);
    return { entry: toHex(loss.computeOutputEntry(exponents, rows, bigs(nlls))) };
  },
  compute_trace_digest: ({ trace }) => ({ digest: toHex(loss.computeTraceDigest(trace.map(fromHex))) }),
  compute_l_hat: (input) => ({
    l_hat: String(loss.computeLHat(fromHex(input.quiz_seed), BigInt(input.loss), fromHex(input.trace_digest))),
  }),
  is_below_target: ({ l_hat, target }) => ({ wins: loss.isBelowTarget(BigInt(l_hat), BigInt(target)) }),
};

/** Headers of which only what the page difficulty reads is given. */
function makeChain(rows) {
  return rows.map(({ target, timestamp }) => ({ core: { target: BigInt(target), timestamp: BigInt(timestamp) } }));
}

function makeChainOfStamps(timestamps) {
  return makeChain(timestamps.map((timestamp) => ({ target: 1, timestamp })));
}

const DIFFICULTY = {
  compute_work: ({ target }) => ({ work: String(difficulty.computeWork(BigInt(target))) }),
  is_retarget_height: (input) => ({
    changes: difficulty.isRetargetHeight(BigInt(input.height), readNumbers(input)),
  }),
  compute_next_target: (input) => ({
    target: String(difficulty.computeNextTarget(BigInt(input.target), BigInt(input.actual), readNumbers(input))),
  }),
  compute_target: (input) => ({
    target: String(difficulty.computeTarget(makeChain(input.chain), readNumbers(input))),
  }),
  check_target(input) {
    difficulty.checkTarget({ target: BigInt(input.target) }, makeChain(input.chain), readNumbers(input));
    return {};
  },
  compute_median_time: ({ timestamps }) => ({
    median: String(difficulty.computeMedianTime(makeChainOfStamps(timestamps))),
  }),
  check_period_forward(input) {
    const core = { timestamp: BigInt(input.timestamp) };
    difficulty.checkPeriodForward(core, makeChainOfStamps(input.timestamps), readNumbers(input));
    return {};
  },
};

const ECONOMICS = {
  compute_subsidy: ({ height }) => ({ amount: String(economics.computeSubsidy(BigInt(height))) }),
  compute_supply: ({ height }) => ({ amount: String(economics.computeSupply(BigInt(height))) }),
};

const SUITES = {
  drbg: DRBG,
  epoch: EPOCH,
  fixed_point: FIXED_POINT,
  loss: LOSS,
  difficulty: DIFFICULTY,
  economics: ECONOMICS,
};

export const FUNCTIONS = new Map(
  Object.entries(SUITES).flatMap(([suite, functions]) =>
    Object.entries(functions).map(([name, run]) => [`${suite}/${name}`, run]),
  ),
);
