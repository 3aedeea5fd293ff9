// The suites drbg, epoch, lexicon, quiz, fixed_point, loss, llama_profile, difficulty, economics and corpus.

import { concat, fromHex, toHex, utf8 } from "../bytes.js";
import { HeaderCore, ModelManifest, TokenRange } from "../containers.js";
import * as corpora from "../corpus.js";
import { Drbg } from "../drbg.js";
import * as difficulty from "../difficulty.js";
import { isRetargetHeight } from "../upgrades.js";
import * as economics from "../economics.js";
import * as epoch from "../epoch.js";
import * as fixedPoint from "../fixed_point.js";
import * as lexicon from "../lexicon.js";
import * as llamaProfile from "../llama_profile.js";
import * as loss from "../loss.js";
import { readLexicon } from "../models.js";
import * as questions from "../questions.js";
import * as quiz from "../quiz.js";
import { solve } from "../solvers.js";
import { Float32 } from "../weights.js";
import { bigs, texts } from "./json.js";

function repeat(count, draw) {
  return Array.from({ length: count }, draw);
}

/** The two numbers of a config that the page difficulty and the page epoch need. */
function readNumbers(input) {
  const config = { anchor: 1n, before: null };
  for (const [name, value] of Object.entries(input)) {
    if (["epoch_blocks", "retarget_blocks", "spacing", "max_target"].includes(name)) config[name] = BigInt(value);
  }
  return config;
}

export const DRBG = {
  next_uint64({ seed, count }) {
    const drbg = new Drbg(fromHex(seed));
    return { values: texts(repeat(count, () => drbg.nextUint64())) };
  },
  below({ seed, n, count }) {
    const drbg = new Drbg(fromHex(seed));
    return { values: texts(repeat(count, () => drbg.belowBig(BigInt(n)))) };
  },
};

export const EPOCH = {
  get_epoch: (input) => ({ epoch: String(epoch.getEpoch(BigInt(input.height), readNumbers(input))) }),
  get_seed_height: (input) => ({ height: String(epoch.getSeedHeight(BigInt(input.epoch), readNumbers(input))) }),
  compute_epoch_key: (input) => ({
    key: toHex(epoch.computeEpochKey(fromHex(input.seed), BigInt(input.epoch))),
  }),
};

function baseRatio(bits) {
  return new Float32(bits).asRatio();
}

export const FIXED_POINT = {
  walsh_hadamard: ({ x }) => ({ y: texts(fixedPoint.walshHadamard(x).map(BigInt)) }),
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

export const LOSS = {
  compute_layer_entry: ({ layer, row }) => ({ entry: toHex(loss.computeLayerEntry(layer, row)) }),
  compute_output_entry({ positions, nlls }) {
    const scales = positions.map(({ e1, e2, f }) => [e1, e2, f]);
    const rows = positions.map((position) => position.row);
    return { entry: toHex(loss.computeOutputEntry(scales, rows, bigs(nlls))) };
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

export const DIFFICULTY = {
  compute_quizzes: ({ target }) => ({ quizzes: String(difficulty.computeQuizzes(BigInt(target))) }),
  check_cost(input) {
    const numbers = Object.fromEntries(Object.entries(input).map(([name, value]) => [name, BigInt(value)]));
    difficulty.checkCost(numbers, numbers);
    return {};
  },
  is_retarget_height: (input) => ({
    changes: isRetargetHeight(BigInt(input.height), readNumbers(input)),
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

export const ECONOMICS = {
  compute_subsidy: ({ height }) => ({ amount: String(economics.computeSubsidy(BigInt(height))) }),
  compute_supply: ({ height }) => ({ amount: String(economics.computeSupply(BigInt(height))) }),
};

export const LEXICON = {
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

export const QUIZ = {
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

export const CORPUS = {
  compute_corpus_digest: ({ corpus }) => ({
    digest: toHex(corpora.computeCorpusDigest(corpora.decodeCorpus(fromHex(corpus)))),
  }),
  check_questions({ source, model_manifest }) {
    const isCorpus = "corpus" in source;
    const questionsOf = isCorpus ? corpora.decodeCorpus(fromHex(source.corpus)) : readLexicon(source.lexicon);
    corpora.checkQuestions(questionsOf, ModelManifest.fromJson(model_manifest));
    return {};
  },
  generate_quiz(input) {
    const config = { ...input, model: ModelManifest.fromJson(input.model_manifest) };
    const corpus = corpora.decodeCorpus(fromHex(input.corpus));
    const made = quiz.generateQuiz(fromHex(input.quiz_seed), config, corpus);
    return { tokens: made.tokens, scored: made.scored, salt: made.salt, items: made.questions };
  },
  check_longest_question(input) {
    const corpus = corpora.decodeCorpus(fromHex(input.corpus));
    quiz.checkLongestQuestion({ ...input, model: { add_bos: input.add_bos } }, corpus);
    return { longest: corpora.computeLongestItem(corpus) };
  },
};

export const LLAMA_PROFILE = {
  round_logit: ({ bits }) => ({ logits: bits.map(llamaProfile.roundLogit) }),
  compute_logits_entry: ({ rows }) => ({ entry: toHex(llamaProfile.computeLogitsEntry(rows.map(fromHex))) }),
  score_logits({ rows, targets }) {
    const scored = llamaProfile.scoreLogits(rows.map(fromHex), targets);
    return { nlls: texts(scored.nlls), loss: String(scored.loss), trace: scored.trace.map(toHex) };
  },
};
