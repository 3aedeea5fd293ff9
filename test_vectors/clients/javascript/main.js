// The client protocol of the vectors: one JSON object a line on standard input, one on standard output.
//
//   {"id", "suite", "function", "input"}  ->  {"id", "output"} or {"id", "code"}
//
// Codes that begin with `client/` say that nothing was computed: `client/not-implemented`, `client/bad-request` for a
// line that is no request, `client/error` for an input that the function could not take.

import { createInterface } from "node:readline";

import { SpecError } from "./bytes.js";
import { FUNCTIONS } from "./functions/index.js";
import { NotImplemented } from "./functions/json.js";

/** The request in a line, or undefined. */
function parseRequest(line) {
  try {
    const request = JSON.parse(line);
    const isRequest =
      request !== null && typeof request === "object" &&
      "id" in request && typeof request.suite === "string" && typeof request.function === "string";
    return isRequest ? request : undefined;
  } catch {
    return undefined;
  }
}

function answer(line) {
  const request = parseRequest(line);
  if (request === undefined) return { id: null, code: "client/bad-request" };
  const { id, suite, input } = request;
  const name = `${suite}/${request.function}`;
  if (!FUNCTIONS.has(name)) return { id, code: "client/not-implemented" };
  try {
    return { id, output: FUNCTIONS.get(name)(input) };
  } catch (error) {
    if (error instanceof SpecError) return { id, code: error.code };
    if (error instanceof NotImplemented) return { id, code: "client/not-implemented" };
    console.error(`${name} ${id}:`, error);
    return { id, code: "client/error" };
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (line.trim() !== "") process.stdout.write(JSON.stringify(answer(line)) + "\n");
}
