// Follows specs/proof/lexicon.md: the pieces of questions and their token ids.

import { invalid, toHex, uint32Le, utf8 } from "./bytes.js";
import { taggedHash } from "./keccak.js";
import { JsonNumber, parseStrictJson } from "./strict_json.js";

const split = (text) => text.split(" ");

export const NAMES = split("Tom Ben Sam Max Tim Dan John Paul Peter David Mark Mary Anna Alice");

// more, most, less, least
export const SCALES = [
  split("older oldest younger youngest"),
  split("taller tallest shorter shortest"),
  split("faster fastest slower slowest"),
  split("richer richest poorer poorest"),
];

export const CLASSES = split("dogs birds horses trees cars books houses boats stones plants roads stars");

export const CATEGORIES = [
  split("cat dog horse cow bird bear"),
  split("red blue green black white yellow"),
  split("apple bread rice milk corn meat"),
  split("hand foot head eye nose ear"),
  split("table chair bed door window floor"),
  split("car bus train ship boat plane"),
  split("mother father brother sister son daughter"),
  split("rain snow wind cloud sun storm"),
];
export const WORDS = CATEGORIES.flat();

export const DAYS = split("Monday Tuesday Wednesday Thursday Friday Saturday Sunday");
export const MONTHS = split(
  "January February March April May June July August September October November December",
);
const SEASONS = split("spring summer autumn winter");
export const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];
const NUMBERS = split("zero one two three four five six seven eight nine ten");
const ORDINALS = split("first second third fourth fifth sixth seventh eighth ninth tenth");
const PLANETS = split("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune");

export const CYCLES = [DAYS, MONTHS, SEASONS];
export const SERIES = [NUMBERS, ORDINALS, PLANETS];

const OPERATORS = [" +", " -", " *", " //", " %", " ="];
const LINE_STARTS = ["All", "Some", "No", "Of", "Next", "One", "Two", "Three", ...NAMES];
const FRAME_WORDS = [
  ...split("All Some No Are Who all any are not yes no is than and the odd"),
  ...split("in alphabet day days month months letter letters after before"),
];
export const LIST_WORDS = [...CYCLES, ...SERIES].flat();
const INNER_WORDS = [
  ...FRAME_WORDS,
  ...NAMES,
  ...SCALES.flat(),
  ...CLASSES,
  ...WORDS,
  ...LIST_WORDS,
  ...LETTERS,
];

/** All pieces, each once, in the order that the digest uses; a Set keeps the order of first insertion. */
export const PIECES = [
  ...new Set([
    ..."\n ",
    ..."0123456789",
    ...",.:?",
    ...OPERATORS,
    ...LINE_STARTS,
    ...INNER_WORDS.map((word) => " " + word),
  ]),
];

const PIECE_PATTERN = / ?[A-Za-z]+| [-+*/%=]+|[0-9]| |[,.:?\n]/g;

/** The pieces of a text that is made of pieces. */
export function splitPieces(text) {
  return text.match(PIECE_PATTERN) ?? [];
}

// A lexicon is a Map from each piece to its token ids.

/** The token ids of the pieces, one after another. */
export function getTokens(lexicon, pieces) {
  return pieces.flatMap((piece) => lexicon.get(piece));
}

export function computeLexiconDigest(lexicon) {
  const parts = PIECES.flatMap((piece) => {
    const text = utf8(piece);
    const ids = lexicon.get(piece);
    return [uint32Le(text.length), text, uint32Le(ids.length), ...ids.map(uint32Le)];
  });
  return taggedHash("PoAI/lexicon/1", ...parts);
}

const LEXICON_FORMAT = "1";

/** The lexicon in a JSON file, given as bytes. */
export function parseLexicon(data) {
  let parsed;
  try {
    parsed = parseStrictJson(data);
  } catch (error) {
    throw invalid("lexicon/not-json", error.message);
  }
  const { value, hasDuplicates } = parsed;
  if (hasDuplicates) throw invalid("lexicon/duplicate-key", "a key is repeated");
  if (!(value instanceof Map) || [...value.keys()].sort().join() !== "format,model,pieces") {
    throw invalid("lexicon/keys", 'expected "format", "model" and "pieces"');
  }
  const [format, model, pieces] = ["format", "model", "pieces"].map((key) => value.get(key));
  const strict = format instanceof JsonNumber && typeof model === "string" && pieces instanceof Map;
  if (!strict || format.text !== LEXICON_FORMAT) {
    throw invalid("lexicon/format", '"format" is 1, "model" a string and "pieces" an object');
  }
  checkPieces(pieces);
  return new Map(PIECES.map((piece) => [piece, pieces.get(piece).map((id) => id.toNumber())]));
}

/** An integer in 0 .. 2^32 - 1, written as an integer. */
function isTokenId(id) {
  return id instanceof JsonNumber && id.isPlain && id.toNumber() < 2 ** 32;
}

/** Refuse a Map that does not give each piece, and nothing else, token ids of its own. */
function checkPieces(pieces) {
  const known = new Set(PIECES);
  for (const piece of pieces.keys()) {
    if (!known.has(piece)) throw invalid("lexicon/unknown-piece", JSON.stringify(piece));
  }
  for (const piece of PIECES) {
    if (!pieces.has(piece)) throw invalid("lexicon/missing-piece", JSON.stringify(piece));
  }
  for (const [piece, ids] of pieces) {
    if (!Array.isArray(ids) || ids.length === 0 || !ids.every(isTokenId)) {
      throw invalid("lexicon/ids", `${JSON.stringify(piece)}: expected one or more token ids`);
    }
  }
  const owners = new Set();
  for (const [piece, ids] of pieces) {
    const key = ids.map((id) => id.toNumber()).join();
    if (owners.has(key)) throw invalid("lexicon/same-ids", JSON.stringify(piece));
    owners.add(key);
  }
}

/** Refuse a lexicon that is not the model's. */
export function checkLexicon(lexicon, model) {
  const highest = [...lexicon.values()].flat().reduce((a, b) => Math.max(a, b));
  if (highest >= model.vocabulary_size) throw invalid("lexicon/id-range", `token ${highest}`);
  const digest = computeLexiconDigest(lexicon);
  if (toHex(digest) !== toHex(model.questions_digest)) throw invalid("lexicon/digest", toHex(digest));
}
