// Follows specs/proof/quiz.md: from a header core to a token sequence. Rules have the field names of specs/chain/upgrades.md.

import { invalid } from "./bytes.js";
import { computeCoreHash } from "./containers.js";
import { computeLongestItem } from "./corpus.js";
import { Drbg } from "./drbg.js";
import { taggedHash } from "./keccak.js";
import { getTokens } from "./lexicon.js";
import { computeLongestQuestion, generateQuestion, getQuestionText } from "./questions.js";

export function computeQuizSeed(rulesDigest, epochKey, core) {
  return taggedHash("PoAI/quiz/1", rulesDigest, epochKey, computeCoreHash(core));
}

/** `count` ids, each uniform over the manifest's salt ranges laid end to end. */
export function drawSalt(drbg, count, model) {
  const spans = model.salt_ranges.map((span) => [Number(span.first), Number(span.last)]);
  const size = spans.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const salt = [];
  for (let i = 0; i < count; i++) {
    let index = drbg.below(size);
    for (const [first, last] of spans) {
      if (index <= last - first) {
        salt.push(first + index);
        break;
      }
      index -= last - first + 1;
    }
  }
  return salt;
}

/** [question, tokens of its prompt, of its answer, of the line's end], from a lexicon (a Map) or a corpus. */
function drawQuestion(drbg, source) {
  if (source instanceof Map) {
    const question = generateQuestion(drbg);
    return [question, getTokens(source, question.prompt), getTokens(source, question.answer), source.get("\n")];
  }
  const item = drbg.choice(source.items);
  return [item, item.prompt, item.answer, source.line_end];
}

/** The quiz of a seed: {seed, tokens, scored, salt, questions}; the questions are items if the source is a corpus. */
export function generateQuiz(quizSeed, rules, source) {
  const drbg = new Drbg(quizSeed);
  const quizTokens = Number(rules.quiz_tokens);
  const salt = drawSalt(drbg, Number(rules.salt_tokens), rules.model);
  const tokens = rules.model.add_bos ? [Number(rules.model.bos_id), ...salt] : [...salt];
  const questions = [];
  const answers = [];
  while (tokens.length < quizTokens) {
    const [question, prompt, answer, lineEnd] = drawQuestion(drbg, source);
    questions.push(question);
    tokens.push(...prompt);
    answer.forEach((_, i) => answers.push(tokens.length + i));
    tokens.push(...answer, ...lineEnd);
  }
  const scored = selectScored(answers, rules);
  return { seed: quizSeed, tokens: tokens.slice(0, quizTokens), scored, salt, questions };
}

/** Exactly `scored_tokens` positions, ascending: answers first, completed from the end of the quiz. */
export function selectScored(answers, rules) {
  const quizTokens = Number(rules.quiz_tokens);
  const count = Number(rules.scored_tokens);
  const scored = new Set(answers.slice(0, count).filter((position) => position < quizTokens));
  for (let position = quizTokens - 1; position >= 0 && scored.size < count; position--) scored.add(position);
  return [...scored].sort((a, b) => a - b);
}

/** Refuse a network whose longest question is longer than what BOS and salt leave of a quiz. */
export function checkLongestQuestion(rules, source) {
  const room = Number(rules.quiz_tokens) - Number(rules.salt_tokens) - (rules.model.add_bos ? 1 : 0);
  const longest = source instanceof Map ? computeLongestQuestion(source) : computeLongestItem(source);
  if (longest > room) throw invalid("quiz/question-too-long", `${longest} tokens, room for ${room}`);
}

/** The salt in hexadecimal: `1a2b-00ff-...`. */
export function getQuizName(salt) {
  return salt.map((token) => token.toString(16).padStart(4, "0")).join("-");
}

/** The questions with their answers, one a line. */
export function getQuizText(quiz) {
  return quiz.questions.map((question) => getQuestionText(question) + "\n").join("");
}
