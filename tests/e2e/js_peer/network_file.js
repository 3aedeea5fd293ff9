// Reads a network file as `poai network new` writes it: lines `key = value`, of which every value is JSON, too. Files
// that use more of TOML are refused. The lexicon has to be a pinned one.

import { readFileSync } from "node:fs";

import { fromHex, utf8 } from "../../../test_vectors/clients/javascript/bytes.js";
import { readLexicon } from "../../../test_vectors/clients/javascript/models.js";
import { checkConfig } from "../../../test_vectors/clients/javascript/parameters.js";

const BYTES = ["genesis_seed", "gguf_sha256", "integer_model_root", "questions_digest"];

function readLines(text) {
  const tables = { "": {} };
  let table = "";
  for (const line of text.split("\n").filter((each) => each.trim() !== "" && !each.startsWith("#"))) {
    const [, name] = line.match(/^\[(\w+)\]$/) ?? [];
    const [, key, value] = line.match(/^(\w+) = (.*)$/) ?? [];
    if (name !== undefined) tables[(table = name)] = {};
    else if (key !== undefined) tables[table][key] = JSON.parse(value);
    else throw new Error(`not a line that \`poai network new\` writes: ${line}`);
  }
  return tables;
}

/** A value as the containers have it; integers above 2^53 are written in hexadecimal. */
function readValue([key, value]) {
  if (key === "profile") return [key, utf8(value)];
  if (key === "salt_ranges") return [key, value.map(([first, last]) => ({ first: BigInt(first), last: BigInt(last) }))];
  if (BYTES.includes(key)) return [key, fromHex(value)];
  return [key, typeof value === "boolean" ? value : BigInt(value)];
}

const readTable = (table) => Object.fromEntries(Object.entries(table).map(readValue));

/** {config, lexicon} of a network file. */
export function readNetwork(path) {
  const { "": { lexicon, bootstrap, ...numbers }, model } = readLines(readFileSync(path, "utf8"));
  const config = { ...readTable(numbers), model: readTable(model) };
  checkConfig(config);
  return { config, lexicon: readLexicon(lexicon) };
}
