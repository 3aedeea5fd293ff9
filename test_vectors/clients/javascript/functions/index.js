// The functions that the vectors call, by `suite/function`: each takes the input of a case and returns its output. The
// modules of this folder only change the JSON form of values; the rules are one folder up.

import {
  CORPUS,
  DIFFICULTY,
  DRBG,
  ECONOMICS,
  EPOCH,
  FIXED_POINT,
  LEXICON,
  LLAMA_PROFILE,
  LOSS,
  QUIZ,
} from "./basics.js";
import { BLOCK, CHAIN, FORK_CHOICE, HEADER, PARAMETERS, PRODUCTION, SSZ, STATE, UPGRADES, UPGRADE_CHAINS } from "./chain.js";
import { RECEIPTS, TRANSACTION, TRIE } from "./execution.js";
import { INFERENCE, WEIGHTS } from "./models.js";
import { NETWORKING } from "./network.js";

const SUITES = {
  drbg: DRBG,
  epoch: EPOCH,
  lexicon: LEXICON,
  quiz: QUIZ,
  fixed_point: FIXED_POINT,
  weights: WEIGHTS,
  inference: INFERENCE,
  loss: LOSS,
  llama_profile: LLAMA_PROFILE,
  difficulty: DIFFICULTY,
  economics: ECONOMICS,
  ssz: SSZ,
  trie: TRIE,
  state: STATE,
  transaction: TRANSACTION,
  receipts: RECEIPTS,
  parameters: PARAMETERS,
  corpus: CORPUS,
  header: HEADER,
  block: BLOCK,
  fork_choice: FORK_CHOICE,
  chain: CHAIN,
  production: PRODUCTION,
  upgrades: UPGRADES,
  upgrade_chains: UPGRADE_CHAINS,
  networking: NETWORKING,
};

export const FUNCTIONS = new Map(
  Object.entries(SUITES).flatMap(([suite, functions]) =>
    Object.entries(functions).map(([name, run]) => [`${suite}/${name}`, run]),
  ),
);
