// Follows specs/chain/networking.md: names, limits, messages, and what follows when a peer breaks a rule.

import { sha256 } from "@noble/hashes/sha2";

import { concat, malformed, notYet, toHex, uint32Le, utf8 } from "./bytes.js";
import { Block, Header, MAX_TRACE, computeBlockHash } from "./containers.js";
import { getForkHash } from "./upgrades.js";
import { getTraceLength } from "./work.js";
import { byteVector, bytes32, container, decode, list, uint32, uint64, uint256 } from "./ssz.js";

export const STATUS_PROTOCOL = "/poai/status/1";
export const HEADERS_PROTOCOL = "/poai/headers/1";
export const BLOCKS_PROTOCOL = "/poai/blocks/1";
export const GOODBYE_PROTOCOL = "/poai/goodbye/1";

export const getBlocksTopic = (rules) => `/poai/${toHex(getForkHash(rules)).slice(2)}/blocks/1`;

/** Refuse a block on the topic of other rules than those of its own height. */
export function checkTopic(topic, rules) {
  if (topic !== getBlocksTopic(rules)) throw malformed("networking/topic", topic);
}

// Sizes, in bytes unless they count items.
export const MAX_LOCATOR = 64;
export const LOCATOR_DENSE = 10;
export const MAX_HEADERS = 512;
export const MAX_BLOCKS = 32;
export const HEADER_BYTES = Header.size;
export const BLOCK_OVERHEAD_BYTES = 2 * 4 + 4;
export const MAX_BLOCK_BYTES = HEADER_BYTES + BLOCK_OVERHEAD_BYTES + MAX_TRACE * 32;
export const MAX_GOSSIP_BYTES = 2 ** 20;
export const RESULT_BYTES = 1;

// Times, in milliseconds, and gossipsub's mesh.
export const RESPONSE_TIMEOUT_MS = 10_000;
export const VALIDATION_TIMEOUT_MS = 30_000;
export const STATUS_INTERVAL_MS = 60_000;
export const HEARTBEAT_MS = 1_000;
export const SEEN_MS = 120_000;
export const MESH_DEGREE = 6;
export const MESH_DEGREE_LOW = 4;
export const MESH_DEGREE_HIGH = 12;

export const REQUEST_BURST = 20;
export const REQUEST_REFILL_MS = 500;
export const GOSSIP_BURST = 32;
export const GOSSIP_REFILL_MS = 250;
export const REPLAYS_PER_PEER = 1;
export const SAMPLE_BLOCKS = 8;
export const MAX_FRUITLESS = 3;
export const REPLAY_BUDGET_MS = 20_000;
export const REPLAY_BUDGET_PERIOD_MS = 3_600_000;
export const IPV4_PREFIX_BITS = 24;
export const IPV6_PREFIX_BITS = 48;

export const BAN_SCORE = 100;
export const INVALID_PENALTY = 50;
export const MALFORMED_PENALTY = 25;
export const PENALTY_HALF_LIFE_MS = 600_000;
export const BAN_MS = 3_600_000;
const FALSE_WORK = ["work/trace", "work/loss"];

export const Status = container({
  version: uint32,
  network_id: bytes32,
  fork_hash: byteVector(4),
  fork_next: uint64,
  head: bytes32,
  height: uint64,
  work: uint256,
  bodies_from: uint64,
  assumed: uint64,
});

export const HeadersRequest = container({ locator: list(bytes32, MAX_LOCATOR), stop: bytes32, count: uint32 });

export const Headers = container({ headers: list(Header, MAX_HEADERS) });

export const BlocksRequest = container({ hashes: list(bytes32, MAX_BLOCKS) });

export const Blocks = container({ blocks: list(Block, MAX_BLOCKS), lacking: list(bytes32, MAX_BLOCKS) });

export const Goodbye = container({ reason: uint32 });

export const MAX_STATUS_BYTES = Status.size;
export const MAX_HEADERS_REQUEST_BYTES = 4 + 32 + 4 + MAX_LOCATOR * 32;
export const MAX_HEADERS_BYTES = 4 + MAX_HEADERS * HEADER_BYTES;
export const MAX_BLOCKS_REQUEST_BYTES = 4 + MAX_BLOCKS * 32;
export const MAX_BLOCKS_BYTES = 2 * 4 + MAX_BLOCKS * (4 + MAX_BLOCK_BYTES);
export const MAX_GOODBYE_BYTES = Goodbye.size;

export const Reason = Object.freeze({
  SHUTTING_DOWN: 1,
  OTHER_NETWORK: 2,
  FAULT: 3,
  TOO_MANY_PEERS: 4,
  USELESS: 5,
  OTHER_RULES: 6,
});

export const Result = Object.freeze({
  OK: 0,
  NOT_UNDERSTOOD: 1,
  TOO_MANY_REQUESTS: 2,
  OTHER_NETWORK: 3,
  NOT_AT_HAND: 4,
  OTHER_RULES: 5,
});

export function encodeFrame(payload) {
  return concat(uint32Le(payload.length), payload);
}

export function checkFrameLength(length, limit) {
  if (length > limit) throw malformed("networking/frame-length", `${length} bytes, ${limit} are allowed`);
}

/** A response's payload; `type` and `message` go with `Result.OK` alone. */
export function encodeResponse(result, type, message) {
  return result === Result.OK ? concat(Uint8Array.of(result), type.encode(message)) : Uint8Array.of(result);
}

export function decodeResponse(type, payload) {
  const [result] = payload;
  const known = Object.values(Result).includes(result);
  if (!known || (result !== Result.OK && payload.length > RESULT_BYTES)) {
    throw malformed("networking/response", `${payload.length} bytes, result ${result}`);
  }
  if (result !== Result.OK) throw notYet("networking/refused", `result ${result}`);
  return decode(type, payload.subarray(RESULT_BYTES));
}

export function computeMessageId(topic, data) {
  return sha256(concat(utf8(topic), Uint8Array.of(0), data));
}

/** The length of the encoding of every block that follows some rules. */
export function getBlockBytes(rules) {
  return HEADER_BYTES + BLOCK_OVERHEAD_BYTES + 32 * Number(getTraceLength(rules));
}

export function checkGossipSize(data, rules) {
  if (data.length > getBlockBytes(rules)) throw malformed("networking/block-size", `${data.length} bytes`);
}

/** "accept", "reject" or "ignore"; `error` is null, or has `kind` and `code`. */
export function getVerdict(error) {
  if (error === null) return "accept";
  return error.kind === "NotYet" ? "ignore" : "reject";
}

export function getPenalty(error) {
  if (error === null || error.kind === "NotYet") return 0;
  if (error.kind === "Malformed") return MALFORMED_PENALTY;
  return FALSE_WORK.includes(error.code) ? BAN_SCORE : INVALID_PENALTY;
}

export function computeLocatorHeights(height) {
  const heights = [];
  let step = 1n;
  while (height > 0n && heights.length < MAX_LOCATOR - 1) {
    heights.push(height);
    if (heights.length >= LOCATOR_DENSE) step *= 2n;
    height -= step;
  }
  return [...heights, 0n];
}

export function checkHeadersRequest({ locator, count }) {
  if (locator.length === 0 || count < 1n || count > BigInt(MAX_HEADERS)) {
    throw malformed("networking/headers-request", `${count} headers, a locator of ${locator.length}`);
  }
}

export function checkHeaders(request, { headers }) {
  const hashes = headers.map((header) => toHex(computeBlockHash(header)));
  const parents = headers.map((header) => toHex(header.core.parent_hash));
  const joined = parents.length === 0 || request.locator.map(toHex).includes(parents[0]);
  const linked = parents.slice(1).every((parent, i) => parent === hashes[i]);
  const pastStop = hashes.slice(0, -1).includes(toHex(request.stop));
  if (BigInt(hashes.length) > request.count || !joined || !linked || pastStop) {
    throw malformed("networking/headers-response", `${hashes.length} headers`);
  }
}

export function checkBlocksRequest({ hashes }) {
  if (hashes.length === 0 || new Set(hashes.map(toHex)).size < hashes.length) {
    throw malformed("networking/blocks-request", `${hashes.length} hashes`);
  }
}

/** Whether `part` is `whole` with some items left out. */
function isSubsequence(part, whole) {
  let at = -1;
  return part.every((item) => (at = whole.indexOf(item, at + 1)) !== -1);
}

export function checkBlocks(request, { blocks, lacking }) {
  const asked = request.hashes.map(toHex);
  const given = blocks.map((block) => toHex(computeBlockHash(block.header)));
  const missing = lacking.map(toHex);
  const ordered = isSubsequence(given, asked) && isSubsequence(missing, asked);
  if (!ordered || given.some((hash) => missing.includes(hash)) || given.length + missing.length === 0) {
    throw malformed("networking/blocks-response", `${given.length} blocks, ${missing.length} lacking`);
  }
}
