// Follows specs/proof/solvers.md (informative): every right answer of a prompt, found from its text alone.
//
// Each solver returns an array of answers without repetition; `solve` demands exactly one.

import { invalid } from "./bytes.js";
import { CATEGORIES, CYCLES, DAYS, LETTERS, MONTHS, SCALES, SERIES } from "./lexicon.js";

const unique = (items) => [...new Set(items)];

function solveArithmetic(left, operator, right) {
  const a = Number(left);
  const b = Number(right);
  if (operator === "//" || operator === "%") {
    const answers = [];
    for (let q = 0; q <= a; q++) {
      const r = a - q * b;
      if (r >= 0 && r < b) answers.push(String(operator === "//" ? q : r));
    }
    return answers;
  }
  const result = { "+": a + b, "-": a - b, "*": a * b }[operator];
  return result >= 0 ? [String(result)] : [];
}

function solveNumberSequence(...terms) {
  const [a, b, c] = terms.map(Number);
  const answers = [];
  if (b - a === c - b) answers.push(String(c + (c - b)));
  if (a > 0 && b % a === 0 && b * b === a * c) answers.push(String(c * (b / a)));
  return unique(answers);
}

/** All orders of some items. */
function permutations(items) {
  if (items.length === 0) return [[]];
  return items.flatMap((item, i) => permutations(items.toSpliced(i, 1)).map((rest) => [item, ...rest]));
}

function solveOrdering(prompt) {
  const told = [...prompt.matchAll(/(\w+) is (\w+) than (\w+)\./g)].map(([, a, word, b]) => [a, word, b]);
  const asked = prompt.slice(prompt.lastIndexOf(" ") + 1, -1);
  const people = unique(told.flatMap(([a, , b]) => [a, b]));
  const answers = [];
  for (const [more, most, less, least] of SCALES) {
    if (asked !== most && asked !== least) continue;
    if (told.some(([, word]) => word !== more && word !== less)) continue;
    for (const order of permutations(people)) {
      const agrees = told.every(([a, word, b]) => order.indexOf(a) < order.indexOf(b) === (word === more));
      if (agrees) answers.push(asked === most ? order[0] : order.at(-1));
    }
  }
  return unique(answers);
}

/** Whether `quantifier a are b` holds where exactly these regions have members. */
function isTrue([quantifier, a, b], inhabited) {
  const members = inhabited.filter((region) => region.has(a)).map((region) => region.has(b));
  if (quantifier === "All") return members.every(Boolean);
  return members.some(Boolean) === (quantifier === "Some");
}

/** Whether `Are all|any a [not] b?` is answered by yes where exactly these regions have members. */
function isConcluded([quantifier, a, negation, b], inhabited) {
  const members = inhabited.filter((region) => region.has(a)).map((region) => region.has(b) !== Boolean(negation));
  return quantifier === "all" ? members.every(Boolean) : members.some(Boolean);
}

function solveSyllogism(prompt) {
  const premises = [...prompt.matchAll(/(All|Some|No) (\w+) are (\w+)\./g)].map(([, ...parts]) => parts);
  const [, ...question] = prompt.match(/Are (all|any) (\w+) (not )?(\w+)\?/);
  const classes = unique([...premises.flatMap(([, a, b]) => [a, b]), question[1], question[3]]).sort();
  const regions = [];
  for (let region = 1; region < 8; region++) {
    regions.push(new Set(classes.filter((_, i) => (region >> i) & 1)));
  }
  const answers = [];
  for (let model = 1; model < 2 ** 7; model++) {
    const inhabited = regions.filter((_, i) => (model >> i) & 1);
    const everyClassHasMembers = classes.every((word) => inhabited.some((region) => region.has(word)));
    if (everyClassHasMembers && premises.every((premise) => isTrue(premise, inhabited))) {
      answers.push(isConcluded(question, inhabited) ? "yes" : "no");
    }
  }
  return unique(answers);
}

function solveOddOneOut(...words) {
  const isOdd = (word, category) =>
    !category.includes(word) && words.every((other) => other === word || category.includes(other));
  return unique(CATEGORIES.flatMap((category) => words.filter((word) => isOdd(word, category))));
}

function solveAlphabeticalOrder(...words) {
  return unique(words.filter((word) => words.every((other) => word <= other)));
}

function solveStep(number, unit, direction, start) {
  const items = { day: DAYS, month: MONTHS, letter: LETTERS }[unit.replace(/s$/, "")];
  const step = direction === "before" ? -1 : 1;
  let at = items.indexOf(start);
  for (let count = { One: 1, Two: 2, Three: 3 }[number]; count > 0 && at !== -1; count--) {
    at += step;
    if (items === LETTERS) at = at < items.length ? at : -1; // below 0 it is -1 already
    else at = (at + items.length) % items.length;
  }
  return at === -1 ? [] : [items[at]];
}

function solveWordList(...given) {
  const rows = [...SERIES, ...CYCLES.map((cycle) => [...cycle, ...cycle.slice(0, 3)])];
  const answers = [];
  for (const row of rows) {
    for (let i = 0; i + 3 < row.length; i++) {
      if (given.every((word, j) => row[i + j] === word)) answers.push(row[i + 3]);
    }
  }
  return unique(answers);
}

const N = "(0|[1-9][0-9]{0,3})";
const W = "([A-Za-z]+)";
const TOLD = "[A-Z][a-z]+ is [a-z]+ than [A-Z][a-z]+\\. ";
const PREMISE = "(?:All|Some|No) [a-z]+ are [a-z]+\\. ";
const SOLVERS = [
  [`${N} (\\+|-|\\*|//|%) ${N} = `, solveArithmetic],
  [`${N}, ${N}, ${N}, `, solveNumberSequence],
  [`(${TOLD}${TOLD}Who is [a-z]+\\?)`, solveOrdering],
  [`(${PREMISE}${PREMISE}Are (?:all|any) [a-z]+ (?:not )?[a-z]+\\?)`, solveSyllogism],
  [`Of ${W}, ${W}, ${W} and ${W} the odd one is`, solveOddOneOut],
  [`Of ${W}, ${W} and ${W} the first in the alphabet is`, solveAlphabeticalOrder],
  [`(One) (day|month|letter) (after|before) ${W} is`, solveStep],
  [`(Two|Three) (days|months|letters) (after|before) ${W} is`, solveStep],
  [`Next: ${W}, ${W}, ${W},`, solveWordList],
].map(([pattern, solver]) => [new RegExp(`^(?:${pattern})$`), solver]);

/** The one answer of a prompt, with the space before a word. */
export function solve(prompt) {
  for (const [pattern, solver] of SOLVERS) {
    const match = pattern.exec(prompt);
    if (match === null) continue;
    const answers = solver(...match.slice(1));
    if (answers.length !== 1) throw invalid("solvers/not-one-answer", answers.join());
    return /^[0-9]+$/.test(answers[0]) ? answers[0] : ` ${answers[0]}`;
  }
  throw invalid("solvers/unreadable", prompt);
}
