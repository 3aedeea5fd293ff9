// Follows specs/proof/work.md: checking a block's work, cheapest part first.
//
// An engine is {profile, integer_model_root, layer_count, steps(tokens, scored)}; `steps` yields trace entries and the
// evaluation {nlls, trace, loss} last.

import { bytesEqual, invalid, malformed, toHex, utf8 } from "./bytes.js";
import { computeBlockHash } from "./containers.js";
import { computeEpochKey, getEpoch, getSeedHeight } from "./epoch.js";
import { computeLHat, computeTraceDigest, isBelowTarget } from "./loss.js";
import { computeQuizSeed, generateQuiz } from "./quiz.js";

const MAX_REMEMBERED = 1_024;

/** The epoch key of the block on top of `chain`. */
export function getEpochKey(chain, rules) {
  const epoch = getEpoch(BigInt(chain.length), rules);
  if (epoch === 0n) return computeEpochKey(rules.genesis_seed, 0n);
  return computeEpochKey(computeBlockHash(chain[Number(getSeedHeight(epoch, rules))]), epoch);
}

export function getQuizSeed(core, chain, rules) {
  return computeQuizSeed(rules.digest, getEpochKey(chain, rules), core);
}

export function getQuiz(core, chain, rules, lexicon) {
  return generateQuiz(getQuizSeed(core, chain, rules), rules, lexicon);
}

export function checkLHat(header, chain, rules) {
  const lHat = computeLHat(getQuizSeed(header.core, chain, rules), header.loss, header.trace_digest);
  if (!isBelowTarget(lHat, header.core.target)) throw invalid("work/l-hat", `0x${lHat.toString(16)}`);
}

const LLAMA_PROFILE = utf8("llama.cpp");
const LLAMA_TRACE_ENTRIES = 1n;

/** The number of trace entries of a block, as a BigInt. */
export function getTraceLength({ profile, model }) {
  return bytesEqual(profile, LLAMA_PROFILE) ? LLAMA_TRACE_ENTRIES : model.layer_count + 1n;
}

/** Refuse a trace list that the header does not commit to, or of another length than the network's. */
export function checkTrace(block, rules) {
  if (!bytesEqual(computeTraceDigest(block.trace), block.header.trace_digest)) {
    throw malformed("work/trace-digest", "the trace hashes to another digest");
  }
  if (BigInt(block.trace.length) !== getTraceLength(rules)) {
    throw invalid("work/trace-length", `${block.trace.length} entries`);
  }
}

/** Refuse to judge a network's blocks with another model or arithmetic than its own. */
export function checkEngine(engine, rules) {
  const same =
    bytesEqual(engine.profile, rules.profile) &&
    bytesEqual(engine.integer_model_root, rules.model.integer_model_root) &&
    BigInt(engine.layer_count) === rules.model.layer_count;
  if (!same) throw invalid("work/engine", "the engine computes another model than the network's");
}

/** Run the quiz of a header and stop at the first false trace entry; a false loss is seen last. */
export function verifyWork(engine, quiz, header, trace) {
  let index = 0;
  for (const step of engine.steps(quiz.tokens, quiz.scored)) {
    if (step instanceof Uint8Array) {
      checkEntry(index, step, trace);
      index++;
      continue;
    }
    step.trace.forEach((entry, i) => checkEntry(i, entry, trace));
    if (header.loss !== step.loss) throw invalid("work/loss", `loss ${step.loss}, claimed ${header.loss}`);
    return step;
  }
  throw new Error("an engine's last step is the evaluation");
}

function checkEntry(index, entry, trace) {
  if (!bytesEqual(entry, trace[index])) {
    throw invalid("work/trace", `entry ${index + 1} of ${trace.length} is ${toHex(entry)}`);
  }
}

/** An engine that remembers the steps of the last `MAX_REMEMBERED` quizzes it was asked to replay. */
export class MemoEngine {
  constructor(engine) {
    this.engine = engine;
    this.profile = engine.profile;
    this.integer_model_root = engine.integer_model_root;
    this.layer_count = engine.layer_count;
    this.known = new Map(); // in order of use, which JavaScript's Map keeps
  }

  /** Yield the remembered steps first; if the reader wants more, run the model: the second time to its end. */
  *steps(tokens, scored) {
    const quiz = `${tokens}/${scored}`;
    const seen = this.known.has(quiz);
    const steps = this.known.get(quiz) ?? [];
    this.known.delete(quiz);
    while (this.known.size >= MAX_REMEMBERED) this.known.delete(this.known.keys().next().value);
    this.known.set(quiz, steps);
    const remembered = [...steps];
    yield* remembered;
    const isWhole = () => steps.length > 0 && !(steps.at(-1) instanceof Uint8Array);
    if (seen && !isWhole()) steps.splice(0, steps.length, ...this.engine.steps(tokens, scored));
    let index = 0;
    for (const step of isWhole() ? [...steps] : this.engine.steps(tokens, scored)) {
      if (index >= steps.length) steps.push(step);
      if (index >= remembered.length) yield step;
      index++;
    }
  }
}
