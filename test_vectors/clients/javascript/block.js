// Follows specs/chain/block.md: every rule that needs no store, in the one total order.

import { notYet } from "./bytes.js";
import { EMPTY_BODY, checkBody, checkHeaderAlone, checkHeaderInChain, makeGenesisHeader } from "./header.js";
import { checkStateRoot, processHeader } from "./state.js";
import { getRules } from "./upgrades.js";
import { checkTrace, getQuiz, verifyWork } from "./work.js";

export function makeGenesis(config) {
  return { header: makeGenesisHeader(config), body: EMPTY_BODY, trace: [] };
}

/** Rules 15 to 17: body and trace list are those that the header commits to. */
export function checkContents(block, rules) {
  checkBody(block);
  checkTrace(block, rules);
}

/** The state after a block: rule 19. */
export function processBlock(state, block) {
  const after = processHeader(state, block.header.core);
  checkStateRoot(after, block.header.core);
  return after;
}

/** The rules of a height; a judge is {config, upgrades, models}, `models` a Map from `since` to {lexicon, engine}. */
export function getJudgeRules(judge, height) {
  return getRules(judge.config, judge.upgrades, height);
}

/** Run the block's quiz and compare: rules 21 to 23. */
export function replayBlock(block, chain, judge) {
  const rules = getJudgeRules(judge, BigInt(chain.length));
  const model = judge.models.get(rules.since);
  if (model === undefined) throw notYet("block/model-missing", `the model of height ${rules.since}`);
  const quiz = getQuiz(block.header.core, chain, rules, model.lexicon);
  return verifyWork(model.engine, quiz, block.header, block.trace);
}

/** Apply every rule that needs no store, in order; return the state after. */
export function checkBlock(block, chain, state, judge, now) {
  const rules = getJudgeRules(judge, BigInt(chain.length));
  checkHeaderAlone(block.header);
  checkHeaderInChain(block.header, chain, rules, now);
  checkContents(block, rules);
  const after = processBlock(state, block);
  replayBlock(block, chain, judge);
  return after;
}
