// What the modules of this folder share: the JSON form of values in the vectors.
//
// Integers above 2^53 are decimal strings, bytes hexadecimal after `0x`.

import { readEngine, readModel } from "../models.js";

/** What a case asks for is not part of this client, such as a model whose file is not here. */
export class NotImplemented extends Error {}

/** Decimal strings, as the vectors write integers that can pass 2^53. */
export const texts = (values) => values.map(String);

export const bigs = (values) => values.map(BigInt);

function demand(found) {
  if (found === undefined) throw new NotImplemented("the model's file is not at hand");
  return found;
}

export const demandModel = (name) => demand(readModel(name));
export const demandEngine = (name) => demand(readEngine(name));
