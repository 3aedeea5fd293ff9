// The functions that the vectors call, by `suite/function`: each takes the input of a case and returns its output.
//
// Here only the JSON form changes: integers above 2^53 are decimal strings, bytes hexadecimal after `0x`.

import * as blocks from "./block.js";
import { concat, fromHex, intToLittleEndian, toHex, utf8 } from "./bytes.js";
import * as containers from "./containers.js";
import { Block, Config, Header, HeaderCore, ModelManifest, TokenRange } from "./containers.js";
import { Drbg } from "./drbg.js";
import * as difficulty from "./difficulty.js";
import * as economics from "./economics.js";
import * as epoch from "./epoch.js";
import * as fixedPoint from "./fixed_point.js";
import { readGgufJson } from "./gguf.js";
import * as headers from "./header.js";
import * as inference from "./inference.js";
import * as integerModel from "./integer_model.js";
import { taggedHash } from "./keccak.js";
import * as lexicon from "./lexicon.js";
import * as loss from "./loss.js";
import { getPreset, readEngine, readLexicon, readModel } from "./models.js";
import * as parameters from "./parameters.js";
import * as questions from "./questions.js";
import * as quiz from "./quiz.js";
import { solve } from "./solvers.js";
import { bytes32, container, decode, uint64, uint256 } from "./ssz.js";
import * as state from "./state.js";
import { Float32, TENSOR_TYPES, decodeTensor } from "./weights.js";
import * as work from "./work.js";

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

const LEXICON = {
  parse_lexicon({ text, tail }) {
    const parsed = lexicon.parseLexicon(concat(utf8(text), fromHex(tail)));
    return { digest: toHex(lexicon.computeLexiconDigest(parsed)) };
  },
  check_lexicon(input) {
    lexicon.checkLexicon(readLexicon(input.lexicon), ModelManifest.fromJson(input.model_manifest));
    return {};
  },
  split_pieces: ({ text }) => ({ pieces: lexicon.splitPieces(text) }),
  get_tokens: (input) => ({ tokens: lexicon.getTokens(readLexicon(input.lexicon), input.pieces) }),
};

const QUIZ = {
  generate_question({ seed }) {
    const question = questions.generateQuestion(new Drbg(fromHex(seed)));
    return {
      family: question.family,
      prompt: question.prompt.join(""),
      answer: question.answer.join(""),
      pieces: [...question.prompt, ...question.answer, "\n"],
    };
  },
  solve: ({ prompt }) => ({ answer: solve(prompt) }),
  compute_quiz_seed({ network_id, epoch_key, core }) {
    const seed = quiz.computeQuizSeed(fromHex(network_id), fromHex(epoch_key), HeaderCore.fromJson(core));
    return { quiz_seed: toHex(seed) };
  },
  draw_salt({ seed, count, salt_ranges }) {
    const model = { salt_ranges: salt_ranges.map(TokenRange.fromJson) };
    return { salt: quiz.drawSalt(new Drbg(fromHex(seed)), count, model) };
  },
  select_scored: (input) => ({ scored: quiz.selectScored(input.answers, input) }),
  generate_quiz(input) {
    const config = { ...input, model: ModelManifest.fromJson(input.model_manifest) };
    const made = quiz.generateQuiz(fromHex(input.quiz_seed), config, readLexicon(input.lexicon));
    const { tokens, scored, salt } = made;
    return { tokens, scored, salt, name: quiz.getQuizName(salt), text: quiz.getQuizText(made) };
  },
  check_longest_question(input) {
    const config = { ...input, model: { add_bos: input.add_bos } };
    quiz.checkLongestQuestion(config, readLexicon(input.lexicon));
    return { longest: questions.computeLongestQuestion(readLexicon(input.lexicon)) };
  },
};

// Models

/** What models.js read, if the file was there. */
function demand(found) {
  if (found === undefined) throw new NotImplemented("the model's file is not at hand");
  return found;
}

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

const WEIGHTS = {
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
  matrix_digest: ({ matrix }) => ({ digest: toHex(integerModel.computeMatrixDigest(matrix)) }),
  vectors_digest: ({ name, vectors }) => ({ digest: toHex(integerModel.computeVectorsDigest(name, vectors)) }),
  root_of_digests({ architecture, digests }) {
    const floats = { rope_base: new Float32(architecture.rope_base), epsilon: new Float32(architecture.epsilon) };
    const root = integerModel.computeRootOfDigests({ ...architecture, ...floats }, digests.map(fromHex));
    return { root: toHex(root) };
  },
  tensor_digests({ model }) {
    const integers = demand(readModel(model));
    const named = integerModel.computeTensorDigests(integers);
    const tensors = named.map(([name, digest]) => ({ name, digest: toHex(digest) }));
    return { tensors, root: toHex(integerModel.computeIntegerModelRoot(integers)) };
  },
};

/** Every step of a pass: [{layer, step, rows}]. */
function computeSteps({ model, tokens, scored }) {
  const steps = [];
  inference.runModel(demand(readModel(model)), tokens, scored, (layer, step, rows) => steps.push({ layer, step, rows }));
  return steps;
}

const showValues = (row) => row.map(Number);

const INFERENCE = {
  quantise_row({ x }) {
    const [e, a] = inference.quantiseRow(x);
    return { e, a };
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
  run({ model, tokens, scored }) {
    const { nlls, trace, loss: total } = inference.runModel(demand(readModel(model)), tokens, scored);
    const digest = toHex(loss.computeTraceDigest(trace));
    return { nlls: texts(nlls), loss: String(total), trace: trace.map(toHex), trace_digest: digest };
  },
  /** Each step's digest: all its values, 8 bytes each. */
  steps(input) {
    const steps = computeSteps(input).map(({ layer, step, rows }) => ({
      layer,
      step,
      digest: toHex(taggedHash("PoAI/vector-step/1", ...rows.flat().map((value) => intToLittleEndian(value, 8)))),
      first: showValues((rows.at(0) ?? []).slice(0, 8)),
      last: showValues((rows.at(-1) ?? []).slice(0, 8)),
    }));
    return { steps };
  },
  step_values(input) {
    return { steps: computeSteps(input).map(({ layer, step, rows }) => ({ layer, step, rows: rows.map(showValues) })) };
  },
};

// Containers

const CONTAINERS = {
  token_range: TokenRange,
  model_manifest: ModelManifest,
  config: Config,
  header_core: HeaderCore,
  header: Header,
  body: containers.Body,
  block: Block,
};

const SSZ = {
  compute_core_hash: ({ value }) => ({ hash: toHex(containers.computeCoreHash(HeaderCore.fromJson(value))) }),
  compute_block_hash: ({ value }) => ({ hash: toHex(containers.computeBlockHash(Header.fromJson(value))) }),
  compute_body_root: ({ value }) => ({ hash: toHex(containers.computeBodyRoot(containers.Body.fromJson(value))) }),
};
for (const [name, type] of Object.entries(CONTAINERS)) {
  SSZ[`encode_${name}`] = ({ value }) => ({ data: toHex(type.encode(type.fromJson(value))) });
  SSZ[`decode_${name}`] = ({ data }) => ({ value: type.toJson(decode(type, fromHex(data))) });
}

const PARAMETERS = {
  compute_network_id: ({ config }) => ({ network_id: toHex(parameters.computeNetworkId(Config.fromJson(config))) }),
  check_config({ config }) {
    parameters.checkConfig(Config.fromJson(config));
    return {};
  },
  get_target_of_flag: ({ thousandths }) => ({
    target: String(parameters.getTargetOfFlag(BigInt(thousandths))),
  }),
  get_preset({ name }) {
    const config = getPreset(name);
    return { config: Config.toJson(config), network_id: toHex(parameters.computeNetworkId(config)) };
  },
};

/** Only for its JSON form: accounts are encoded in RLP. */
const Account = container({ nonce: uint64, balance: uint256, storage_root: bytes32, code_hash: bytes32 });

function readState(accounts) {
  return new Map(accounts.map((account) => [account.address, Account.fromJson(account)]));
}

/** The accounts by ascending address, and the root. */
function showState(after) {
  const accounts = [...after].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    accounts: accounts.map(([address, account]) => ({ address, ...Account.toJson(account) })),
    root: toHex(state.computeStateRoot(after)),
  };
}

const STATE = {
  encode_account: ({ account }) => ({ rlp: toHex(state.encodeAccount(Account.fromJson(account))) }),
  compute_state_root: ({ accounts }) => ({ root: toHex(state.computeStateRoot(readState(accounts))) }),
  process_credit: ({ accounts, address, amount }) =>
    showState(state.processCredit(readState(accounts), fromHex(address), BigInt(amount))),
  process_header: ({ accounts, core }) => showState(state.processHeader(readState(accounts), HeaderCore.fromJson(core))),
  check_state_root({ accounts, core }) {
    state.checkStateRoot(readState(accounts), HeaderCore.fromJson(core));
    return {};
  },
};

const readChain = (chain) => chain.map(Header.fromJson);
const blockHash = (header) => toHex(containers.computeBlockHash(header));

const HEADER = {
  make_genesis_header({ config }) {
    const header = headers.makeGenesisHeader(Config.fromJson(config));
    return { header: Header.toJson(header), hash: blockHash(header) };
  },
  get_quiz_seed(input) {
    const config = Config.fromJson(input.config);
    const chain = readChain(input.chain);
    return {
      epoch_key: toHex(work.getEpochKey(chain, config)),
      quiz_seed: toHex(work.getQuizSeed(HeaderCore.fromJson(input.core), chain, config)),
    };
  },
  check_header_alone(input) {
    const header = Header.fromJson(input.header);
    headers.checkHeaderAlone(header);
    return { hash: blockHash(header) };
  },
  check_header_in_chain(input) {
    const header = Header.fromJson(input.header);
    const config = Config.fromJson(input.config);
    headers.checkHeaderInChain(header, readChain(input.chain), config, BigInt(input.now));
    return { hash: blockHash(header) };
  },
};

/** Accounts of version 1, of which only the balances differ. */
function readBalances(accounts) {
  const makeAccount = (balance) => ({ ...state.NEW_ACCOUNT, balance: BigInt(balance) });
  return new Map(accounts.map(({ address, balance }) => [address, makeAccount(balance)]));
}

function showBalances(after) {
  return showState(after).accounts.map(({ address, balance }) => ({ address, balance }));
}

const BLOCK = {
  make_genesis({ config }) {
    const block = blocks.makeGenesis(Config.fromJson(config));
    return { block: Block.toJson(block), hash: blockHash(block.header) };
  },
  check_contents({ block, layer_count }) {
    blocks.checkContents(Block.fromJson(block), { model: { layer_count: BigInt(layer_count) } });
    return {};
  },
  check_engine({ config, model }) {
    work.checkEngine(demand(readEngine(model)), Config.fromJson(config));
    return {};
  },
  check_block(input) {
    const engine = demand(readEngine(input.model));
    const judge = { config: Config.fromJson(input.config), lexicon: readLexicon(input.lexicon), engine };
    const block = Block.fromJson(input.block);
    const before = readBalances(input.accounts);
    const after = blocks.checkBlock(block, readChain(input.chain), before, judge, BigInt(input.now));
    return { hash: blockHash(block.header), accounts: showBalances(after) };
  },
};

const SUITES = {
  drbg: DRBG,
  epoch: EPOCH,
  lexicon: LEXICON,
  quiz: QUIZ,
  fixed_point: FIXED_POINT,
  weights: WEIGHTS,
  inference: INFERENCE,
  loss: LOSS,
  difficulty: DIFFICULTY,
  economics: ECONOMICS,
  ssz: SSZ,
  state: STATE,
  parameters: PARAMETERS,
  header: HEADER,
  block: BLOCK,
};

export const FUNCTIONS = new Map(
  Object.entries(SUITES).flatMap(([suite, functions]) =>
    Object.entries(functions).map(([name, run]) => [`${suite}/${name}`, run]),
  ),
);
