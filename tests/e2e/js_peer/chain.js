// The blocks that the peer has checked: the store of the page fork-choice, and answers from it (page networking).

import { fromHex, toHex } from "../../../test_vectors/clients/javascript/bytes.js";
import { computeBlockHash } from "../../../test_vectors/clients/javascript/containers.js";
import * as forkChoice from "../../../test_vectors/clients/javascript/fork_choice.js";
import { computeLocatorHeights } from "../../../test_vectors/clients/javascript/networking.js";
import { PROTOCOL_VERSION, computeNetworkId } from "../../../test_vectors/clients/javascript/parameters.js";
import { getForkHash, getRules } from "../../../test_vectors/clients/javascript/upgrades.js";
import { checkEngine } from "../../../test_vectors/clients/javascript/work.js";

const now = () => BigInt(Date.now());

export const hashOf = (header) => toHex(computeBlockHash(header));

export class Chain {
  /** A network without upgrades; the engine has to be its model. */
  constructor({ config, lexicon, engine }) {
    this.rules = getRules(config, [], 0n);
    checkEngine(engine, this.rules);
    const judge = { config, upgrades: [], models: new Map([[0n, { lexicon, engine }]]) };
    this.judge = judge;
    this.networkId = computeNetworkId(config);
    this.store = forkChoice.makeStore(judge, now());
    this.blocks = new Map(); // replayed ones but genesis, by hash
    this.followHead();
  }

  followHead() {
    this.head = forkChoice.getHead(this.store);
    this.headers = forkChoice.getChain(this.store, this.head);
    this.hashes = this.headers.map(hashOf); // of the chain, by height
  }

  get height() {
    return this.headers.length - 1;
  }

  get work() {
    return this.store.kept.get(this.head).work;
  }

  get state() {
    return this.store.kept.get(this.head).state;
  }

  isKept(hash) {
    return this.store.kept.has(hash);
  }

  isReplayed(hash) {
    return (this.store.kept.get(hash)?.state ?? null) !== null;
  }

  /** Check a header by rules 1 to 13; return the broken rule or null. */
  receiveHeader(header, peer) {
    const [store, error] = forkChoice.receiveHeader(forkChoice.onTick(this.store, now()), header, peer, this.judge);
    this.store = store;
    return error;
  }

  /** Check a block by every rule, its forward pass included; return the broken rule or null. */
  receiveBlock(block, peer) {
    const [store, error] = forkChoice.receiveBlock(forkChoice.onTick(this.store, now()), block, peer, this.judge);
    this.store = store;
    if (error === null) this.blocks.set(hashOf(block.header), block);
    if (forkChoice.getHead(store) !== this.head) this.followHead();
    return error;
  }

  /** The kept blocks without a replay from the chain up to `hash`, ascending. */
  listMissing(hash) {
    return forkChoice.getChain(this.store, hash).map(hashOf).filter((each) => !this.isReplayed(each));
  }

  // What the peer says of itself, and its answers

  makeStatus() {
    return {
      version: PROTOCOL_VERSION,
      network_id: this.networkId,
      fork_hash: getForkHash(this.rules),
      fork_next: 0n,
      head: fromHex(this.head),
      height: BigInt(this.height),
      work: this.work,
      bodies_from: 1n,
      assumed: 0n,
    };
  }

  /** The hashes by which a request for headers says what is known, from a kept header down. */
  makeLocator(hash) {
    const hashes = forkChoice.getChain(this.store, hash).map(hashOf);
    return computeLocatorHeights(BigInt(hashes.length - 1)).map((height) => fromHex(hashes[Number(height)]));
  }

  /** The `Headers` after the common block; undefined if there is none. */
  answerHeaders({ locator, stop, count }) {
    const common = locator.map(toHex).find((hash) => this.hashes.includes(hash));
    if (common === undefined) return undefined;
    const first = this.hashes.indexOf(common) + 1;
    const last = this.hashes.indexOf(toHex(stop), first);
    const end = Math.min(first + Number(count), last === -1 ? Infinity : last + 1);
    return { headers: this.headers.slice(first, end) };
  }

  answerBlocks({ hashes }) {
    const held = (hash) => this.blocks.get(toHex(hash));
    return { blocks: hashes.map(held).filter(Boolean), lacking: hashes.filter((hash) => !held(hash)) };
  }
}
