// The suite networking.

import { fromHex, toHex, utf8 } from "../bytes.js";
import * as networking from "../networking.js";
import { decode } from "../ssz.js";
import { readRules } from "./chain.js";
import { texts } from "./json.js";

const MESSAGES = {
  status: networking.Status,
  headers_request: networking.HeadersRequest,
  headers: networking.Headers,
  blocks_request: networking.BlocksRequest,
  blocks: networking.Blocks,
  goodbye: networking.Goodbye,
};

/** Protocol ids and numbers; not the types and functions beside them. */
const CONSTANTS = Object.fromEntries(
  Object.entries(networking).filter(([, value]) => ["string", "number"].includes(typeof value)),
);

export const NETWORKING = {
  constants: () => ({ ...CONSTANTS, reasons: networking.Reason }),
  get_blocks_topic(input) {
    const rules = readRules(input, BigInt(input.height));
    return { topic: networking.getBlocksTopic(rules), block_bytes: networking.getBlockBytes(rules) };
  },
  check_topic(input) {
    networking.checkTopic(input.topic, readRules(input, BigInt(input.height)));
    return {};
  },
  compute_message_id: ({ topic, data }) => ({ id: toHex(networking.computeMessageId(topic, fromHex(data))) }),
  check_gossip_size({ data, layer_count }) {
    const rules = { profile: utf8("w8a8"), model: { layer_count: BigInt(layer_count) } };
    networking.checkGossipSize(fromHex(data), rules);
    return {};
  },
  encode_frame: ({ payload }) => ({ frame: toHex(networking.encodeFrame(fromHex(payload))) }),
  check_frame_length({ length, limit }) {
    networking.checkFrameLength(length, limit);
    return {};
  },
  encode_response({ result, message }) {
    const [[kind, value]] = message === null ? [[]] : Object.entries(message);
    const type = MESSAGES[kind];
    return { payload: toHex(networking.encodeResponse(result, type, type?.fromJson(value))) };
  },
  decode_response({ kind, payload }) {
    const type = MESSAGES[kind];
    return { message: { [kind]: type.toJson(networking.decodeResponse(type, fromHex(payload))) } };
  },
  compute_locator_heights: ({ height }) => ({ heights: texts(networking.computeLocatorHeights(BigInt(height))) }),
  check_headers_request({ request }) {
    networking.checkHeadersRequest(networking.HeadersRequest.fromJson(request));
    return {};
  },
  check_headers({ request, headers }) {
    networking.checkHeaders(networking.HeadersRequest.fromJson(request), networking.Headers.fromJson(headers));
    return {};
  },
  check_blocks_request({ request }) {
    networking.checkBlocksRequest(networking.BlocksRequest.fromJson(request));
    return {};
  },
  check_blocks({ request, blocks }) {
    networking.checkBlocks(networking.BlocksRequest.fromJson(request), networking.Blocks.fromJson(blocks));
    return {};
  },
  get_verdict({ error }) {
    const found = error === null ? null : { kind: error.class, code: error.code };
    return { verdict: networking.getVerdict(found), penalty: networking.getPenalty(found) };
  },
};
for (const [name, type] of Object.entries(MESSAGES)) {
  NETWORKING[`encode_${name}`] = ({ value }) => ({ data: toHex(type.encode(type.fromJson(value))) });
  NETWORKING[`decode_${name}`] = ({ data }) => ({ value: type.toJson(decode(type, fromHex(data))) });
}
