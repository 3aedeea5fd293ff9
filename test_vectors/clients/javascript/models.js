// The models and lexicons that cases name: files beside the vectors or the specification, each read once.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { utf8 } from "./bytes.js";
import { readGguf, readGgufJson } from "./gguf.js";
import { runSteps } from "./inference.js";
import { computeIntegerModelRoot, makeIntegerModel } from "./integer_model.js";
import { parseLexicon } from "./lexicon.js";
import { PRESET_MODELS, checkConfig, getModelManifest, makeConfig } from "./parameters.js";
import { MemoEngine } from "./work.js";

/** Models beside the vectors; larger ones in the folder that POAI_CLIENT_MODELS names. */
const MODELS = new URL("../../models/", import.meta.url);
const MANIFESTS = new URL("../../../specs/manifests/", import.meta.url);

/** Return a function that computes its result once for each name. */
function once(make) {
  const known = new Map();
  return (name) => {
    if (!known.has(name)) known.set(name, make(name));
    return known.get(name);
  };
}

export const readManifest = once((name) => JSON.parse(readFileSync(new URL(`${name}.json`, MANIFESTS), "utf8")));

export const readLexicon = once((name) => {
  return parseLexicon(new Uint8Array(readFileSync(new URL(`${name}.lexicon.json`, MANIFESTS))));
});

/** A model as its GGUF reader gives it, or undefined where its file is not at hand. poai-nano is given in JSON. */
export const readModelFile = once((name) => {
  if (name === "nano") return readGgufJson(JSON.parse(readFileSync(new URL("nano.json", MODELS), "utf8")).gguf);
  const folders = [fileURLToPath(MODELS), process.env.POAI_CLIENT_MODELS ?? fileURLToPath(MODELS)];
  const path = folders.map((folder) => join(folder, readManifest(name).file)).find(existsSync);
  return path && readGguf(new Uint8Array(readFileSync(path)));
});

/** The integers of a model, or undefined. */
export const readModel = once((name) => {
  const gguf = readModelFile(name);
  return gguf && makeIntegerModel(gguf);
});

/** A model as an engine in the sense of work.js, or undefined. */
export const readEngine = once((name) => {
  const model = readModel(name);
  if (model === undefined) return undefined;
  return new MemoEngine({
    profile: utf8("w8a8"),
    integer_model_root: computeIntegerModelRoot(model),
    layer_count: model.architecture.layer_count,
    steps: (tokens, scored) => runSteps(model, tokens, scored),
  });
});

/** The checked config of a preset with its pinned model. */
export const getPreset = once((name) => {
  const config = makeConfig(name, getModelManifest(readManifest(PRESET_MODELS[name])));
  checkConfig(config);
  return config;
});
