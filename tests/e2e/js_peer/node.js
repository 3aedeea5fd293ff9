// A peer of the network: follows the heaviest chain, passes on what it has replayed, answers, and says why it parts.

import { multiaddr } from "@multiformats/multiaddr";

import { SpecError, bytesEqual, fromHex, toHex } from "../../../test_vectors/clients/javascript/bytes.js";
import { Block } from "../../../test_vectors/clients/javascript/containers.js";
import * as networking from "../../../test_vectors/clients/javascript/networking.js";
import { decode } from "../../../test_vectors/clients/javascript/ssz.js";
import { hashOf } from "./chain.js";
import { makeFalseBlock, spoilNetworkId } from "./faults.js";
import { Unreachable, ask, serve, startHost } from "./host.js";

const { BLOCKS_PROTOCOL, GOODBYE_PROTOCOL, HEADERS_PROTOCOL, RESULT_BYTES, STATUS_PROTOCOL } = networking;
const { Reason, Result } = networking;

const REDIAL_MS = 2_000;
const TRY_AGAIN_MS = 1_000;
const GOODBYE_MS = 1_000;
const LOOK_MS = 50;

/** What a block is postponed for whose ancestors can be asked for. */
const LACKING = ["fork-choice/unknown-parent", "fork-choice/parent-not-replayed"];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** End the process with a bug's stack: libp2p would take it for the end of a stream. */
const crash = (error) => queueMicrotask(() => { throw error; });

/** Lets timers and sockets have their turn between two forward passes. */
const breathe = () => new Promise((resolve) => setImmediate(resolve));

export class Node {
  /**
   * @param chain a `Chain`.
   * @param options {port, peers, mesh, fault}: `peers` are multiaddrs to stay connected to, `fault` one of `FAULTS`.
   * @param report called with an object for everything that can be seen from outside.
   */
  constructor(chain, options, report) {
    Object.assign(this, { chain, options, report });
    this.topic = networking.getBlocksTopic(chain.rules);
    this.peers = new Map(); // connected ones: id as text -> {id, status, following}
    this.points = new Map(); // of penalties; a peer that has enough of them is banned for good
  }

  async start() {
    const { port, mesh } = this.options;
    this.host = await startHost({ port, mesh, topic: this.topic });
    const serving = [
      [STATUS_PROTOCOL, networking.MAX_STATUS_BYTES, this.answerStatus],
      [HEADERS_PROTOCOL, networking.MAX_HEADERS_REQUEST_BYTES, this.answerHeaders],
      [BLOCKS_PROTOCOL, networking.MAX_BLOCKS_REQUEST_BYTES, this.answerBlocks],
      [GOODBYE_PROTOCOL, networking.MAX_GOODBYE_BYTES, this.takeLeave],
    ];
    for (const [protocol, limit, answer] of serving) await this.serve(protocol, limit, answer.bind(this));
    this.host.addEventListener("peer:connect", ({ detail }) => this.onConnected(detail));
    this.host.addEventListener("peer:disconnect", ({ detail }) => this.onDisconnected(detail));
    const { pubsub } = this.host.services;
    pubsub.topicValidators.set(this.topic, (peerId, { data }) => this.onGossip(peerId, data));
    pubsub.addEventListener("subscription-change", ({ detail }) => this.misbehave(detail.peerId));
    pubsub.subscribe(this.topic);
    for (const address of this.host.getMultiaddrs()) this.report({ event: "listening", address: String(address) });
    this.timers = [setInterval(() => this.exchangeStatuses(), networking.STATUS_INTERVAL_MS)];
    this.timers.push(setInterval(() => this.dial(), REDIAL_MS));
    this.dial();
  }

  async stop() {
    this.timers.forEach(clearInterval);
    await Promise.all([...this.peers.values()].map(({ id }) => this.part(id, Reason.SHUTTING_DOWN)));
    await this.host.stop();
  }

  // Connections

  dial() {
    for (const address of this.options.peers.map(multiaddr)) {
      const id = String(address).split("/p2p/").at(-1);
      if (!this.peers.has(id) && !this.isBanned(id)) this.host.dial(address).catch(() => {}); // it is tried again
    }
  }

  onConnected(id) {
    if (this.isBanned(String(id))) return void this.part(id, Reason.FAULT);
    this.peers.set(String(id), { id, status: undefined, following: false });
    this.report({ event: "connected", peer: String(id) });
    if (this.host.getConnections(id).some(({ direction }) => direction === "outbound")) this.refreshStatus(id);
  }

  onDisconnected(id) {
    if (this.peers.delete(String(id))) this.report({ event: "disconnected", peer: String(id) });
  }

  /** Say goodbye and hang up; what hangs up at once may close the connection before the goodbye is read. */
  async part(id, reason) {
    const message = networking.Goodbye.encode({ reason: BigInt(reason) });
    await ask(this.host, id, GOODBYE_PROTOCOL, message, undefined, GOODBYE_MS).catch(() => {}); // it may have gone
    await this.host.hangUp(id).catch(() => {});
  }

  takeLeave(id, payload) {
    const reason = Number(decode(networking.Goodbye, payload).reason);
    this.report({ event: "goodbye", peer: String(id), reason });
  }

  // Faults of others

  isBanned(id) {
    return (this.points.get(id) ?? 0) >= networking.BAN_SCORE;
  }

  /** Count a broken rule. What is NotYet, or a connection that ended, is nobody's fault. */
  blame(id, error) {
    if (error instanceof Unreachable || error.kind === "NotYet") return;
    if (!(error instanceof SpecError)) return crash(error);
    const points = networking.getPenalty(error);
    this.report({ event: "fault", peer: String(id), code: error.code, points });
    this.points.set(String(id), (this.points.get(String(id)) ?? 0) + points);
    if (this.isBanned(String(id))) this.part(id, Reason.FAULT);
  }

  // Requests

  serve(protocol, limit, answer) {
    const respond = (id, payload) => {
      try {
        return answer(id, payload);
      } catch (error) {
        this.blame(id, error);
        return networking.encodeResponse(Result.NOT_UNDERSTOOD);
      }
    };
    return serve(this.host, protocol, limit, respond, (id, error) => this.blame(id, error));
  }

  answerStatus(id, payload) {
    const status = decode(networking.Status, payload);
    if (!this.noteStatus(id, status)) return networking.encodeResponse(Result.OTHER_NETWORK);
    return networking.encodeResponse(Result.OK, networking.Status, this.makeStatus());
  }

  answerHeaders(id, payload) {
    const request = decode(networking.HeadersRequest, payload);
    networking.checkHeadersRequest(request);
    const headers = this.chain.answerHeaders(request);
    if (headers === undefined) return networking.encodeResponse(Result.NOT_AT_HAND);
    return networking.encodeResponse(Result.OK, networking.Headers, headers);
  }

  answerBlocks(id, payload) {
    const request = decode(networking.BlocksRequest, payload);
    networking.checkBlocksRequest(request);
    return networking.encodeResponse(Result.OK, networking.Blocks, this.chain.answerBlocks(request));
  }

  // Status

  makeStatus() {
    const status = this.chain.makeStatus();
    if (this.options.fault !== "other-network") return status;
    return { ...status, network_id: spoilNetworkId(status.network_id) };
  }

  /** Remember what a peer says of itself; part from one of another network, and follow one with more work. */
  noteStatus(id, status) {
    const fits = bytesEqual(status.network_id, this.chain.networkId);
    const peer = this.peers.get(String(id));
    if (!fits) {
      this.report({ event: "other network", peer: String(id) });
      this.part(id, Reason.OTHER_NETWORK);
    } else if (peer !== undefined) {
      peer.status = status;
      this.follow(peer);
    }
    return fits;
  }

  async refreshStatus(id) {
    const limit = networking.MAX_STATUS_BYTES + RESULT_BYTES;
    try {
      const payload = await ask(this.host, id, STATUS_PROTOCOL, networking.Status.encode(this.makeStatus()), limit);
      if (payload[0] === Result.OTHER_NETWORK) this.report({ event: "refused", peer: String(id), result: payload[0] });
      this.noteStatus(id, networking.decodeResponse(networking.Status, payload));
    } catch (error) {
      this.blame(id, error);
    }
  }

  /** Gossip may have been lost, and what a sync has brought was not gossiped. */
  exchangeStatuses() {
    for (const { id } of this.peers.values()) this.refreshStatus(id);
  }

  // Gossip

  /** Judge a gossiped block: gossipsub forwards what is accepted, and nothing else. */
  async onGossip(id, data) {
    const error = this.receiveGossip(String(id), data);
    if (error !== null) this.blame(id, error);
    if (error?.kind === "NotYet") this.report({ event: "postponed", peer: String(id), code: error.code });
    if (LACKING.includes(error?.code) && this.peers.get(String(id))?.following === false) this.refreshStatus(id);
    return networking.getVerdict(error);
  }

  receiveGossip(peer, data) {
    try {
      networking.checkGossipSize(data, this.chain.rules);
      return this.receiveBlock(decode(Block, data), peer, "gossip");
    } catch (error) {
      return error;
    }
  }

  receiveBlock(block, peer, source) {
    const before = this.chain.head;
    const error = this.chain.receiveBlock(block, peer);
    const { head, height } = this.chain;
    if (head !== before) this.report({ event: "head", height, hash: head, peer, source });
    return error;
  }

  // Synchronising: headers first, then blocks, from the one peer that has claimed more work

  async follow(peer) {
    if (peer.following) return;
    peer.following = true;
    try {
      let changed = false;
      while (this.isAhead(peer) && (await this.fetch(peer))) changed = true;
      if (changed) this.exchangeStatuses();
    } catch (error) {
      this.blame(peer.id, error);
    } finally {
      peer.following = false;
    }
  }

  isAhead({ id, status }) {
    const head = toHex(status.head);
    return this.peers.has(String(id)) && status.work > this.chain.work && !this.chain.isReplayed(head);
  }

  /** Fetch what leads to a peer's head; return whether that brought the chain forward. */
  async fetch(peer) {
    const { head } = peer.status;
    const before = this.chain.head;
    try {
      if (!(await this.fetchHeaders(peer, toHex(head)))) return false;
      for (let missing = this.chain.listMissing(toHex(head)); missing.length > 0; ) {
        await this.fetchBlocks(peer, missing.slice(0, networking.MAX_BLOCKS));
        const left = this.chain.listMissing(toHex(head));
        if (left.length === missing.length) return false;
        missing = left;
      }
    } catch (error) {
      if (error.code !== "networking/refused") throw error;
      await pause(TRY_AGAIN_MS); // without a token, or on a branch that the peer has left
      return true;
    }
    return this.chain.head !== before;
  }

  async request(peer, protocol, [type, message], [answerType, limit]) {
    const payload = await ask(this.host, peer.id, protocol, type.encode(message), limit + RESULT_BYTES);
    return networking.decodeResponse(answerType, payload);
  }

  /** Fetch headers up to `head`; return whether it is known now. */
  async fetchHeaders(peer, head) {
    let last = this.chain.head;
    while (!this.chain.isKept(head)) {
      const count = BigInt(networking.MAX_HEADERS);
      const request = { locator: this.chain.makeLocator(last), stop: new Uint8Array(32), count };
      const headers = await this.request(
        peer, HEADERS_PROTOCOL,
        [networking.HeadersRequest, request], [networking.Headers, networking.MAX_HEADERS_BYTES],
      );
      networking.checkHeaders(request, headers);
      if (headers.headers.length === 0) return false;
      for (const header of headers.headers) {
        const error = this.chain.receiveHeader(header, String(peer.id));
        if (error !== null) throw error;
      }
      last = hashOf(headers.headers.at(-1));
    }
    return true;
  }

  async fetchBlocks(peer, wanted) {
    const request = { hashes: wanted.map(fromHex) };
    const answer = await this.request(
      peer, BLOCKS_PROTOCOL,
      [networking.BlocksRequest, request], [networking.Blocks, networking.MAX_BLOCKS_BYTES],
    );
    networking.checkBlocks(request, answer);
    for (const block of answer.blocks) {
      const error = this.receiveBlock(block, String(peer.id), "sync");
      if (error !== null) throw error;
      await breathe();
    }
  }

  // Own faults

  /** Send a false block to a peer that has just subscribed. */
  async misbehave(id) {
    if (this.options.fault !== "false-trace") return;
    const ready = (peer) => peer === undefined || (peer.status !== undefined && !this.isAhead(peer));
    while (!ready(this.peers.get(String(id)))) await pause(LOOK_MS);
    let recipients = []; // none while the stream to the peer is being opened
    while (recipients.length === 0 && this.peers.has(String(id))) {
      const block = makeFalseBlock(this.chain);
      ({ recipients } = await this.host.services.pubsub.publish(this.topic, Block.encode(block)));
      if (recipients.length > 0) this.report({ event: "false block", hash: hashOf(block.header) });
      await pause(LOOK_MS);
    }
  }
}
