// Follows specs/block.md: every rule that needs no store, in the one total order.

import { EMPTY_BODY, checkBody, checkHeaderAlone, checkHeaderInChain, makeGenesisHeader } from "./header.js";
import { checkStateRoot, processHeader } from "./state.js";
import { checkTrace, getQuiz, verifyWork } from "./work.js";

export function makeGenesis(config) {
  return { header: makeGenesisHeader(config), body: EMPTY_BODY, trace: [] };
}

/** Rules 15 to 17: body and trace list are those that the header commits to. */
export function checkContents(block, config) {
  checkBody(block);
  checkTrace(block, config);
}

/** The state after a block: rule 19. */
export function processBlock(state, block) {
  const after = processHeader(state, block.header.core);
  checkStateRoot(after, block.header.core);
  return after;
}

/** Run the block's quiz and compare: rules 21 and 22. */
export function replayBlock(block, chain, config, lexicon, engine) {
  const quiz = getQuiz(block.header.core, chain, config, lexicon);
  return verifyWork(engine, quiz, block.header, block.trace);
}

/** Apply every rule that needs no store, in order; return the state after. `judge` is {config, lexicon, engine}. */
export function checkBlock(block, chain, state, judge, now) {
  checkHeaderAlone(block.header);
  checkHeaderInChain(block.header, chain, judge.config, now);
  checkContents(block, judge.config);
  const after = processBlock(state, block);
  replayBlock(block, chain, judge.config, judge.lexicon, judge.engine);
  return after;
}
