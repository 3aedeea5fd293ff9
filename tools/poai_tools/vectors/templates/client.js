"use strict";
// A PoAI client for the conformance vectors: JSON requests on standard input, answers on standard output.
//
// Add a function: write it, and enter it in FUNCTIONS as "suite/function". Everything that is not there is answered
// with client/not-implemented, which counts as a gap and not as a failure.

const readline = require("node:readline");

/** An input that the specification rejects; the message is the code, such as difficulty/target. */
class Rejection extends Error {}

/** Each x / 2^n, rounded to nearest, halves up; for n <= 0 the exact left shift. */
function roundShift({ x, n }) {
  const shift = BigInt(n);
  const half = n > 0 ? 1n << (shift - 1n) : 0n;
  const round = (text) => (n > 0 ? (BigInt(text) + half) >> shift : BigInt(text) << -shift);
  return { y: x.map((text) => round(text).toString()) };
}

const FUNCTIONS = new Map([["fixed_point/round_shift", roundShift]]);

/** `output` or `code` of a function on an input. */
function answer(suite, name, fields) {
  const run = FUNCTIONS.get(`${suite}/${name}`);
  if (run === undefined) return { code: "client/not-implemented" };
  try {
    return { output: run(fields) };
  } catch (error) {
    if (error instanceof Rejection) return { code: error.message };
    throw error;
  }
}

function answerLine(line) {
  let request;
  try {
    request = JSON.parse(line);
  } catch {
    return { id: null, code: "client/bad-request" };
  }
  if (request === null || typeof request !== "object" || typeof request.id !== "string") {
    return { id: null, code: "client/bad-request" };
  }
  return { id: request.id, ...answer(request.suite, request.function, request.input) };
}

readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  process.stdout.write(JSON.stringify(answerLine(line)) + "\n");
});
