// What the peer does wrong when it is told to: a node has to notice, and to answer as the page networking says.

import { utf8 } from "../../../test_vectors/clients/javascript/bytes.js";
import { computeMedianTime, computeTarget } from "../../../test_vectors/clients/javascript/difficulty.js";
import { EMPTY_BODY, EMPTY_BODY_ROOT } from "../../../test_vectors/clients/javascript/header.js";
import { taggedHash } from "../../../test_vectors/clients/javascript/keccak.js";
import { computeLHat, computeTraceDigest, isBelowTarget } from "../../../test_vectors/clients/javascript/loss.js";
import { PROTOCOL_VERSION } from "../../../test_vectors/clients/javascript/parameters.js";
import { computeStateRoot, processHeader } from "../../../test_vectors/clients/javascript/state.js";
import { getQuizSeed, getTraceLength } from "../../../test_vectors/clients/javascript/work.js";

export const FAULTS = ["false-trace", "other-network"];

const FORGER = new Uint8Array(20).fill(0x66);
const LOSS = 65_536n;

/** A header core on top of the chain that breaks no rule; its nonce is 0. */
function makeCore(chain) {
  const { headers, judge } = chain;
  const earliest = computeMedianTime(headers) + 1n;
  const clock = BigInt(Date.now());
  const core = {
    version: PROTOCOL_VERSION,
    height: BigInt(headers.length),
    parent_hash: chain.makeStatus().head,
    timestamp: clock > earliest ? clock : earliest,
    target: computeTarget(headers, judge.config),
    miner: FORGER,
    body_root: EMPTY_BODY_ROOT,
    state_root: new Uint8Array(32),
    nonce: 0n,
  };
  return { ...core, state_root: computeStateRoot(processHeader(chain.state, core)) };
}

/** A block on top of the chain of which only loss and trace are false: no model has run, and only a replay shows it. */
export function makeFalseBlock(chain) {
  const { headers, judge } = chain;
  const length = Number(getTraceLength(judge.config));
  const trace = Array.from({ length }, (_, n) => taggedHash("PoAI/false/1", utf8(String(n))));
  const digest = computeTraceDigest(trace);
  const core = makeCore(chain);
  while (!isBelowTarget(computeLHat(getQuizSeed(core, headers, judge.config), LOSS, digest), core.target)) core.nonce++;
  return { header: { core, loss: LOSS, trace_digest: digest }, body: EMPTY_BODY, trace };
}

/** A network id that differs from the given one. */
export const spoilNetworkId = (networkId) => networkId.map((byte) => byte ^ 0xff);
