// Follows specs/proof/questions.md: the fifteen families of questions. The order of the draws is part of the rule.

import {
  CATEGORIES,
  CLASSES,
  CYCLES,
  DAYS,
  LETTERS,
  LIST_WORDS,
  MONTHS,
  NAMES,
  SCALES,
  SERIES,
  WORDS,
  splitPieces,
} from "./lexicon.js";

const MAX_TERM = 999;
const MAX_FACTOR = 99;
const MAX_RATIO = 9;

// Each generator returns the text of the prompt and of the answer.

function generateAddition(drbg) {
  const a = drbg.between(0, MAX_TERM);
  const b = drbg.between(0, MAX_TERM);
  return [`${a} + ${b} = `, `${a + b}`];
}

function generateSubtraction(drbg) {
  const a = drbg.between(0, MAX_TERM);
  const b = drbg.between(0, MAX_TERM);
  return [`${Math.max(a, b)} - ${Math.min(a, b)} = `, `${Math.abs(a - b)}`];
}

function generateMultiplication(drbg) {
  const a = drbg.between(0, MAX_FACTOR);
  const b = drbg.between(0, MAX_FACTOR);
  return [`${a} * ${b} = `, `${a * b}`];
}

function generateDivision(drbg) {
  const a = drbg.between(0, MAX_TERM);
  const b = drbg.between(1, MAX_FACTOR);
  return [`${a} // ${b} = `, `${Math.floor(a / b)}`];
}

function generateModulo(drbg) {
  const a = drbg.between(0, MAX_TERM);
  const b = drbg.between(1, MAX_FACTOR);
  return [`${a} % ${b} = `, `${a % b}`];
}

function generateArithmeticSequence(drbg) {
  const first = drbg.between(0, MAX_FACTOR);
  const step = drbg.between(1, MAX_FACTOR);
  return [`${first}, ${first + step}, ${first + 2 * step}, `, `${first + 3 * step}`];
}

function generateGeometricSequence(drbg) {
  const first = drbg.between(1, MAX_RATIO);
  const ratio = drbg.between(2, MAX_RATIO);
  return [`${first}, ${first * ratio}, ${first * ratio ** 2}, `, `${first * ratio ** 3}`];
}

function generateOrdering(drbg) {
  const people = drbg.sample(NAMES, 3);
  const [more, most, less, least] = drbg.choice(SCALES);
  const pairs = drbg.shuffled([
    [people[0], people[1]],
    [people[1], people[2]],
  ]);
  const told = pairs.map(([high, low]) =>
    drbg.choice([`${high} is ${more} than ${low}`, `${low} is ${less} than ${high}`]),
  );
  const [asked, answer] = drbg.choice([
    [most, people[0]],
    [least, people[2]],
  ]);
  return [`${told[0]}. ${told[1]}. Who is ${asked}?`, ` ${answer}`];
}

const SYLLOGISMS = {
  yes: [
    "All {a} are {b}. All {b} are {c}. Are all {a} {c}?",
    "All {a} are {b}. All {b} are {c}. Are any {a} {c}?",
    "Some {a} are {b}. All {b} are {c}. Are any {a} {c}?",
    "All {b} are {a}. All {b} are {c}. Are any {a} {c}?",
    "Some {b} are {a}. All {b} are {c}. Are any {a} {c}?",
    "All {a} are {b}. No {b} are {c}. Are any {a} not {c}?",
    "Some {a} are {b}. No {b} are {c}. Are any {a} not {c}?",
    "Some {a} are {b}. No {c} are {b}. Are any {a} not {c}?",
  ],
  no: [
    "All {a} are {b}. All {b} are {c}. Are any {a} not {c}?",
    "All {a} are {b}. No {b} are {c}. Are any {a} {c}?",
    "All {a} are {b}. No {b} are {c}. Are all {a} {c}?",
    "All {a} are {b}. No {c} are {b}. Are any {a} {c}?",
    "No {a} are {b}. All {c} are {b}. Are any {a} {c}?",
    "Some {a} are {b}. No {b} are {c}. Are all {a} {c}?",
    "Some {a} are {b}. No {c} are {b}. Are all {a} {c}?",
    "No {b} are {c}. Some {b} are {a}. Are all {a} {c}?",
  ],
};

function generateSyllogism(drbg) {
  const answer = drbg.choice(["yes", "no"]);
  const form = drbg.choice(SYLLOGISMS[answer]);
  const [a, b, c] = drbg.sample(CLASSES, 3);
  const prompt = form.replaceAll("{a}", a).replaceAll("{b}", b).replaceAll("{c}", c);
  return [prompt, ` ${answer}`];
}

function generateOddOneOut(drbg) {
  const [category, other] = drbg.sample(CATEGORIES, 2);
  const odd = drbg.choice(other);
  const w = drbg.shuffled([...drbg.sample(category, 3), odd]);
  return [`Of ${w[0]}, ${w[1]}, ${w[2]} and ${w[3]} the odd one is`, ` ${odd}`];
}

function generateAlphabeticalOrder(drbg) {
  const w = drbg.sample(WORDS, 3);
  const [first] = [...w].sort(); // lowercase ASCII: by code unit
  return [`Of ${w[0]}, ${w[1]} and ${w[2]} the first in the alphabet is`, ` ${first}`];
}

/** One to three steps after or before an item; in a cycle the first item follows the last. */
function generateStep(drbg, unit, items, cycle) {
  const count = drbg.between(1, 3);
  const start = drbg.below(cycle ? items.length : items.length - count);
  const earlier = items[start];
  const later = items[(start + count) % items.length];
  const number = ["One", "Two", "Three"][count - 1];
  const [word, given, answer] = drbg.choice([
    ["after", earlier, later],
    ["before", later, earlier],
  ]);
  return [`${number} ${count === 1 ? unit : unit + "s"} ${word} ${given} is`, ` ${answer}`];
}

function generateWordList(drbg) {
  const items = drbg.choice([...CYCLES, ...SERIES]);
  const start = drbg.below(CYCLES.includes(items) ? items.length : items.length - 3);
  const [a, b, c, d] = [0, 1, 2, 3].map((i) => items[(start + i) % items.length]);
  return [`Next: ${a}, ${b}, ${c},`, ` ${d}`];
}

const GENERATORS = {
  addition: generateAddition,
  subtraction: generateSubtraction,
  multiplication: generateMultiplication,
  division: generateDivision,
  modulo: generateModulo,
  arithmetic_sequence: generateArithmeticSequence,
  geometric_sequence: generateGeometricSequence,
  ordering: generateOrdering,
  syllogism: generateSyllogism,
  odd_one_out: generateOddOneOut,
  alphabetical_order: generateAlphabeticalOrder,
  days: (drbg) => generateStep(drbg, "day", DAYS, true),
  months: (drbg) => generateStep(drbg, "month", MONTHS, true),
  letters: (drbg) => generateStep(drbg, "letter", LETTERS, false),
  word_list: generateWordList,
};
export const FAMILIES = Object.keys(GENERATORS);

/** A question of the named family: {family, prompt, answer}, prompt and answer as lists of pieces. */
export function generateOfFamily(drbg, family) {
  const [prompt, answer] = GENERATORS[family](drbg);
  return { family, prompt: splitPieces(prompt), answer: splitPieces(answer) };
}

/** The next question of a stream: its family is drawn first. */
export function generateQuestion(drbg) {
  return generateOfFamily(drbg, drbg.choice(FAMILIES));
}

/** The line as people read it, without its newline. */
export function getQuestionText(question) {
  return [...question.prompt, ...question.answer].join("");
}

const SHAPES = [
  "999 + 999 = 9999",
  "999 - 999 = 999",
  "99 * 99 = 9999",
  "999 // 99 = 999",
  "999 % 99 = 99",
  "99, 999, 999, 999",
  "9, 99, 999, 9999",
  "Tom is older than Ben. Ben is older than Ben. Who is oldest? Ben",
  "All dogs are dogs. All dogs are dogs. Are any dogs not dogs? yes",
  "Of cat, cat, cat and cat the odd one is cat",
  "Of cat, cat and cat the first in the alphabet is cat",
  "Three days after Monday is Monday",
  "Three months after May is May",
  "Three letters after x is x",
  "Next: zero, zero, zero, zero",
];

const withSpaces = (words) => words.map((word) => ` ${word}`);

const SLOTS = new Map([
  ["9", [..."0123456789"]],
  ["Tom", NAMES],
  [" Ben", withSpaces(NAMES)],
  [" older", withSpaces(SCALES.flatMap((scale) => [scale[0], scale[2]]))],
  [" oldest", withSpaces(SCALES.flatMap((scale) => [scale[1], scale[3]]))],
  ["All", ["All", "Some", "No"]],
  [" All", [" All", " Some", " No"]],
  [" dogs", withSpaces(CLASSES)],
  [" any", [" all", " any"]],
  [" yes", [" yes", " no"]],
  [" cat", withSpaces(WORDS)],
  ["Three", ["One", "Two", "Three"]],
  [" days", [" day", " days"]],
  [" months", [" month", " months"]],
  [" letters", [" letter", " letters"]],
  [" after", [" after", " before"]],
  [" Monday", withSpaces(DAYS)],
  [" May", withSpaces(MONTHS)],
  [" x", withSpaces(LETTERS)],
  [" zero", withSpaces(LIST_WORDS)],
]);

/** An upper bound, in tokens, on the length of a question with its newline. */
export function computeLongestQuestion(lexicon) {
  const lengths = SHAPES.map((shape) =>
    [...splitPieces(shape), "\n"].reduce((sum, piece) => {
      const choices = SLOTS.get(piece) ?? [piece];
      return sum + Math.max(...choices.map((choice) => lexicon.get(choice).length));
    }, 0),
  );
  return Math.max(...lengths);
}
