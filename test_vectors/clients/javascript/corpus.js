// Follows specs/proof/corpus.md: questions from a text. A corpus is {line_end, items: [{prompt, answer}]}, token ids as Numbers.

import { bytesEqual, invalid, toHex } from "./bytes.js";
import { taggedHash } from "./keccak.js";
import { checkLexicon } from "./lexicon.js";
import { container, decode, list, uint32 } from "./ssz.js";

const MIN_CORPUS_ITEMS = 1_000;
const MAX_CORPUS_ITEMS = 16_384;
const MAX_QUIZ_TOKENS = 2_048;

const tokenIds = list(uint32, MAX_QUIZ_TOKENS);
const CorpusItem = container({ prompt: tokenIds, answer: tokenIds });
const Corpus = container({ line_end: tokenIds, items: list(CorpusItem, MAX_CORPUS_ITEMS) });

/** The corpus in a file's bytes; its bytes are kept for the digest. */
export function decodeCorpus(bytes) {
  const corpus = decode(Corpus, bytes);
  const items = corpus.items.map(({ prompt, answer }) => ({ prompt: prompt.map(Number), answer: answer.map(Number) }));
  return { line_end: corpus.line_end.map(Number), items, bytes };
}

export function computeCorpusDigest(corpus) {
  return taggedHash("PoAI/corpus/1", corpus.bytes); // one encoding a value, so the file's bytes are the encoding
}

/** Tokens of the longest line: prompt, answer and line end. */
export function computeLongestItem(corpus) {
  const longest = corpus.items.reduce((most, { prompt, answer }) => Math.max(most, prompt.length + answer.length), 0);
  return longest + corpus.line_end.length;
}

/** Negative, 0 or positive as list `a` of numbers is before, equal to or behind `b`. */
function compareIds(a, b) {
  const at = a.findIndex((id, i) => i >= b.length || id !== b[i]);
  if (at === -1) return a.length - b.length;
  return at >= b.length ? 1 : a[at] - b[at];
}

function checkCorpus(corpus, model) {
  const { line_end: lineEnd, items } = corpus;
  if (items.length < MIN_CORPUS_ITEMS) throw invalid("corpus/too-few", `${items.length} items`);
  const parts = [lineEnd, ...items.flatMap(({ prompt, answer }) => [prompt, answer])];
  if (parts.some((part) => part.length === 0)) throw invalid("corpus/empty", "a part without tokens");
  const highest = parts.flat().reduce((a, b) => Math.max(a, b));
  if (highest >= model.vocabulary_size) throw invalid("corpus/id-range", `token ${highest}`);
  for (let n = 1; n < items.length; n++) {
    if (compareIds(items[n - 1].prompt, items[n].prompt) >= 0) throw invalid("corpus/order", `item ${n}`);
  }
  const digest = computeCorpusDigest(corpus);
  if (!bytesEqual(digest, model.questions_digest)) throw invalid("corpus/digest", toHex(digest));
}

/** Refuse a lexicon (a Map) or corpus that is not the manifest's. */
export function checkQuestions(source, model) {
  const isCorpus = !(source instanceof Map);
  if (isCorpus !== model.corpus) throw invalid("corpus/kind", `the manifest says corpus: ${model.corpus}`);
  if (isCorpus) checkCorpus(source, model);
  else checkLexicon(source, model);
}
