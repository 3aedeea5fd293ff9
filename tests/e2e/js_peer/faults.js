// What the peer does wrong when it is told to: a node has to notice, and to answer as the page networking says.

import { utf8 } from "../../../test_vectors/clients/javascript/bytes.js";
import { EMPTY_BODY } from "../../../test_vectors/clients/javascript/header.js";
import { taggedHash } from "../../../test_vectors/clients/javascript/keccak.js";
import { computeLHat, computeTraceDigest, isBelowTarget } from "../../../test_vectors/clients/javascript/loss.js";
import { chooseTimestamp, makeTemplate } from "../../../test_vectors/clients/javascript/production.js";
import { getQuizSeed, getTraceLength } from "../../../test_vectors/clients/javascript/work.js";

export const FAULTS = ["false-trace", "other-network"];

const FORGER = new Uint8Array(20).fill(0x66);
const LOSS = 65_536n;

/** A block on top of the chain of which only loss and trace are false: no model has run, and only a replay shows it. */
export function makeFalseBlock(chain) {
  const { headers, rules } = chain;
  const length = Number(getTraceLength(rules));
  const trace = Array.from({ length }, (_, n) => taggedHash("PoAI/false/1", utf8(String(n))));
  const digest = computeTraceDigest(trace);
  const stamp = chooseTimestamp(headers, rules, BigInt(Date.now()));
  const core = makeTemplate(headers, chain.state, rules, FORGER, stamp);
  while (!isBelowTarget(computeLHat(getQuizSeed(core, headers, rules), LOSS, digest), core.target)) core.nonce++;
  return { header: { core, loss: LOSS, trace_digest: digest }, body: EMPTY_BODY, trace };
}

/** A network id that differs from the given one. */
export const spoilNetworkId = (networkId) => networkId.map((byte) => byte ^ 0xff);
