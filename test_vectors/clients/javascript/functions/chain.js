// The suites ssz, state, parameters, header, block, fork_choice, chain, production and upgrades.

import * as blocks from "../block.js";
import { SpecError, fromHex, toHex, utf8 } from "../bytes.js";
import * as containers from "../containers.js";
import { Block, Config, Header, HeaderCore, ModelManifest, TokenRange } from "../containers.js";
import * as forkChoice from "../fork_choice.js";
import * as headers from "../header.js";
import { getPreset, readLexicon } from "../models.js";
import * as difficulty from "../difficulty.js";
import * as production from "../production.js";
import * as upgradePage from "../upgrades.js";
import * as parameters from "../parameters.js";
import { bytes32, container, decode, uint64, uint256 } from "../ssz.js";
import * as state from "../state.js";
import { getRules } from "../upgrades.js";
import * as work from "../work.js";
import { demandEngine } from "./json.js";

const CONTAINERS = {
  token_range: TokenRange,
  model_manifest: ModelManifest,
  config: Config,
  change: containers.Change,
  upgrade: containers.Upgrade,
  upgrade_list: containers.UpgradeList,
  header_core: HeaderCore,
  header: Header,
  body: containers.Body,
  block: Block,
};

export const SSZ = {
  compute_core_hash: ({ value }) => ({ hash: toHex(containers.computeCoreHash(HeaderCore.fromJson(value))) }),
  compute_block_hash: ({ value }) => ({ hash: toHex(containers.computeBlockHash(Header.fromJson(value))) }),
  compute_body_root: ({ value }) => ({ hash: toHex(containers.computeBodyRoot(containers.Body.fromJson(value))) }),
};
for (const [name, type] of Object.entries(CONTAINERS)) {
  SSZ[`encode_${name}`] = ({ value }) => ({ data: toHex(type.encode(type.fromJson(value))) });
  SSZ[`decode_${name}`] = ({ data }) => ({ value: type.toJson(decode(type, fromHex(data))) });
}

export const PARAMETERS = {
  compute_network_id: ({ config }) => ({ network_id: toHex(parameters.computeNetworkId(Config.fromJson(config))) }),
  check_config({ config }) {
    parameters.checkConfig(Config.fromJson(config));
    return {};
  },
  get_target_of_flag: ({ thousandths }) => ({
    target: String(parameters.getTargetOfFlag(BigInt(thousandths))),
  }),
  make_config({ name, model_manifest }) {
    const config = parameters.makeConfig(name, ModelManifest.fromJson(model_manifest));
    return { config: Config.toJson(config), network_id: toHex(parameters.computeNetworkId(config)) };
  },
  get_preset({ name }) {
    const config = getPreset(name);
    return { config: Config.toJson(config), network_id: toHex(parameters.computeNetworkId(config)) };
  },
};

/** Only for its JSON form: accounts are encoded in RLP. */
const Account = container({ nonce: uint64, balance: uint256, storage_root: bytes32, code_hash: bytes32 });

function readState(accounts) {
  return new Map(accounts.map((account) => [account.address, Account.fromJson(account)]));
}

/** The accounts by ascending address, and the root. */
function showState(after) {
  const accounts = [...after].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    accounts: accounts.map(([address, account]) => ({ address, ...Account.toJson(account) })),
    root: toHex(state.computeStateRoot(after)),
  };
}

export const STATE = {
  encode_account: ({ account }) => ({ rlp: toHex(state.encodeAccount(Account.fromJson(account))) }),
  compute_state_root: ({ accounts }) => ({ root: toHex(state.computeStateRoot(readState(accounts))) }),
  process_credit: ({ accounts, address, amount }) =>
    showState(state.processCredit(readState(accounts), fromHex(address), BigInt(amount))),
  process_header: ({ accounts, core }) =>
    showState(state.processHeader(readState(accounts), HeaderCore.fromJson(core))),
  check_state_root({ accounts, core }) {
    state.checkStateRoot(readState(accounts), HeaderCore.fromJson(core));
    return {};
  },
};

/** The rules of a height for an input with a config and perhaps upgrades. */
export function readRules({ config, upgrades = [] }, height) {
  return getRules(Config.fromJson(config), upgrades.map(containers.Upgrade.fromJson), height);
}

const readChain = (chain) => chain.map(Header.fromJson);
const blockHash = (header) => toHex(containers.computeBlockHash(header));

export const HEADER = {
  make_genesis_header({ config }) {
    const header = headers.makeGenesisHeader(Config.fromJson(config));
    return { header: Header.toJson(header), hash: blockHash(header) };
  },
  get_quiz_seed(input) {
    const chain = readChain(input.chain);
    const rules = readRules(input, BigInt(chain.length));
    return {
      epoch_key: toHex(work.getEpochKey(chain, rules)),
      quiz_seed: toHex(work.getQuizSeed(HeaderCore.fromJson(input.core), chain, rules)),
    };
  },
  check_header_alone(input) {
    const header = Header.fromJson(input.header);
    headers.checkHeaderAlone(header);
    return { hash: blockHash(header) };
  },
  check_header_in_chain(input) {
    const header = Header.fromJson(input.header);
    const chain = readChain(input.chain);
    headers.checkHeaderInChain(header, chain, readRules(input, BigInt(chain.length)), BigInt(input.now));
    return { hash: blockHash(header) };
  },
};

/** Accounts of version 1, of which only the balances differ. */
function readBalances(accounts) {
  const makeAccount = (balance) => ({ ...state.NEW_ACCOUNT, balance: BigInt(balance) });
  return new Map(accounts.map(({ address, balance }) => [address, makeAccount(balance)]));
}

function showBalances(after) {
  return showState(after).accounts.map(({ address, balance }) => ({ address, balance }));
}

/** A judge of an input that names one model, or a list of them with the heights that they are for. */
function readJudge({ config, upgrades = [], lexicon, model, models = [{ since: "0", lexicon, model }] }) {
  return {
    config: Config.fromJson(config),
    upgrades: upgrades.map(containers.Upgrade.fromJson),
    models: new Map(
      models.map((row) => [BigInt(row.since), { lexicon: readLexicon(row.lexicon), engine: demandEngine(row.model) }]),
    ),
  };
}

export const BLOCK = {
  make_genesis({ config }) {
    const block = blocks.makeGenesis(Config.fromJson(config));
    return { block: Block.toJson(block), hash: blockHash(block.header) };
  },
  check_contents({ block, layer_count }) {
    const config = { profile: utf8("w8a8"), model: { layer_count: BigInt(layer_count) } };
    blocks.checkContents(Block.fromJson(block), config);
    return {};
  },
  get_trace_length({ profile, layer_count }) {
    const config = { profile: utf8(profile), model: { layer_count: BigInt(layer_count) } };
    return { entries: Number(work.getTraceLength(config)) };
  },
  check_engine({ config, model }) {
    work.checkEngine(demandEngine(model), readRules({ config }, 0n));
    return {};
  },
  check_block(input) {
    const judge = readJudge(input);
    const block = Block.fromJson(input.block);
    const before = readBalances(input.accounts);
    const after = blocks.checkBlock(block, readChain(input.chain), before, judge, BigInt(input.now));
    return { hash: blockHash(block.header), accounts: showBalances(after) };
  },
};

/** The verdict on one event, [store, error]: `tick`, `header` or `block`. */
function playEvent(store, event, blockList, judge) {
  if ("tick" in event) return [forkChoice.onTick(store, BigInt(event.tick)), null];
  const { block: index, peer } = event.header ?? event.block;
  const block = blockList[index];
  if ("header" in event) return forkChoice.receiveHeader(store, block.header, peer, judge);
  return forkChoice.receiveBlock(store, block, peer, judge);
}

/** Play events from genesis on; returns what `show(store, error)` gives after each. */
function playEvents(input, events, show) {
  const judge = readJudge(input);
  const blockList = input.blocks.map(Block.fromJson);
  let store = forkChoice.makeStore(judge, BigInt(input.now));
  return events.map((event) => {
    const [after, error] = playEvent(store, event, blockList, judge);
    store = after;
    return show(after, error);
  });
}

function countKept(store) {
  const replayed = [...store.kept.values()].filter((kept) => kept.state !== null).length;
  const waiting = store.kept.size - replayed;
  return { replayed, waiting, orphans: store.orphans.size, invalid: store.invalid.size };
}

const ROOT = "0x" + "00".repeat(32);
const NOWHERE = "0x" + "ff".repeat(32);

/** A header of which only place and parent matter. */
function makeStandIn(height, parent) {
  return { core: { height, parent_hash: fromHex(parent) } };
}

const toHash = (n) => "0x" + n.toString(16).padStart(64, "0");

/** {kept, peers}: a store's headers with waiting ones, and the peer of each of these. */
function makeWaiting({ others, own }) {
  const peers = Array(own).fill("own");
  others.forEach((group, number) => {
    for (let n = 0; n < group.peers; n++) peers.push(...Array(group.headers).fill(`${number}/${n}`));
  });
  const kept = new Map([[ROOT, { header: makeStandIn(0n, NOWHERE), peer: "", state: new Map() }]]);
  peers.forEach((peer, n) => kept.set(toHash(n + 1), { header: makeStandIn(1n, ROOT), peer, state: null }));
  return { kept, peers };
}

export const FORK_CHOICE = {
  run_events(input) {
    const show = (store, error) => ({ head: forkChoice.getHead(store), code: error?.code ?? null });
    return { steps: playEvents(input, input.events, show) };
  },
  on_event(input) {
    const results = playEvents(input, [...input.setup, input.event], (store, error) => ({ store, error }));
    const { store, error } = results.at(-1);
    if (error !== null) throw error;
    return { head: forkChoice.getHead(store) };
  },
  count_kept: (input) => ({ steps: playEvents(input, input.events, countKept) }),
  get_head({ tips }) {
    const kept = tips.map(({ hash, work: claimed, replayed }) => [
      hash,
      { work: BigInt(claimed), state: replayed ? new Map() : null },
    ]);
    return { head: forkChoice.getHead({ kept: new Map(kept) }) };
  },
  make_room(input) {
    const { kept, peers } = makeWaiting(input);
    const after = forkChoice.makeRoom({ kept }, makeStandIn(1n, ROOT), "own");
    const lost = [...kept].filter(([hash]) => !after.kept.has(hash)).map(([, { peer }]) => peer);
    return { taken_from: lost.length === 0 ? 0 : peers.filter((peer) => peer === lost[0]).length };
  },
  is_full: (input) => ({ full: forkChoice.isFull(makeWaiting(input), "own") }),
  on_invalid({ remembered, hash }) {
    const invalid = new Set(Array.from({ length: remembered }, (_, n) => toHash(n)));
    const known = [...forkChoice.onInvalid({ kept: new Map(), invalid }, hash).invalid];
    return { count: known.length, oldest: known[0], newest: known.at(-1) };
  },
};

function describeTip(header, after) {
  return {
    head: blockHash(header),
    height: Number(header.core.height),
    state_root: toHex(state.computeStateRoot(after)),
    accounts: showBalances(after),
  };
}

export const CHAIN = {
  verify_chain(input) {
    const judge = readJudge(input);
    const chain = [blocks.makeGenesis(judge.config).header];
    let after = new Map();
    for (const data of input.blocks) {
      const block = decode(Block, fromHex(data));
      after = blocks.checkBlock(block, chain, after, judge, BigInt(input.now));
      chain.push(block.header);
    }
    return describeTip(chain.at(-1), after);
  },
  import_blocks(input) {
    const judge = readJudge(input);
    let store = forkChoice.makeStore(judge, BigInt(input.now));
    const codes = input.blocks.map((data) => {
      const [after, error] = deliverBytes(store, fromHex(data), judge);
      store = after;
      return error?.code ?? null;
    });
    const head = store.kept.get(forkChoice.getHead(store));
    return { ...describeTip(head.header, head.state), work: String(head.work), codes };
  },
};

/** Bytes that are no block change nothing. */
function deliverBytes(store, data, judge) {
  try {
    return forkChoice.receiveBlock(store, decode(Block, data), "peer", judge);
  } catch (error) {
    if (error instanceof SpecError) return [store, error];
    throw error;
  }
}

/** An input's config and upgrades. */
function readNetwork({ config, upgrades }) {
  return [Config.fromJson(config), upgrades.map(containers.Upgrade.fromJson)];
}

const RULES = ["since", "digest", "anchor", "profile", "model", "retarget_blocks", "spacing", "max_future"];
RULES.push("quiz_tokens", "salt_tokens", "scored_tokens");
const Rules = container({
  ...containers.CONFIG_FIELDS,
  since: uint64,
  digest: bytes32,
  anchor: uint64,
});

export const UPGRADES = {
  get_rules(input) {
    const rules = readRules(input, BigInt(input.height));
    const shown = Rules.toJson(rules);
    shown.profile = new TextDecoder().decode(rules.profile);
    const output = Object.fromEntries(RULES.map((name) => [name, shown[name]]));
    return { ...output, multiplications: String(upgradePage.getMultiplications(rules)) };
  },
  check_upgrades(input) {
    upgradePage.checkUpgrades(...readNetwork(input));
    return {};
  },
  get_fork_id(input) {
    const { hash, next } = upgradePage.getForkId(...readNetwork(input), BigInt(input.head));
    return { hash: toHex(hash), next: String(next) };
  },
  check_fork_id(input) {
    const peer = { hash: fromHex(input.peer.hash), next: BigInt(input.peer.next) };
    const place = [...readNetwork(input), BigInt(input.head), peer];
    upgradePage.checkForkId(...place);
    return { unknown: String(upgradePage.getUnknownUpgrade(...place)) };
  },
};

export const UPGRADE_CHAINS = {
  compute_target(input) {
    const chain = input.chain.map(({ timestamp, target }) => ({
      core: { timestamp: BigInt(timestamp), target: BigInt(target) },
    }));
    const rules = readRules(input, BigInt(chain.length));
    const target = difficulty.computeTarget(chain, rules);
    return { target: String(target), work: String(difficulty.computeWork(target, rules)) };
  },
  check_header_in_chain: HEADER.check_header_in_chain,
  verify_chain: CHAIN.verify_chain,
  import_blocks: CHAIN.import_blocks,
};

export const PRODUCTION = {
  choose_timestamp(input) {
    const chain = readChain(input.chain);
    const rules = readRules(input, BigInt(chain.length));
    return {
      earliest: String(production.computeEarliestTimestamp(chain, rules)),
      timestamp: String(production.chooseTimestamp(chain, rules, BigInt(input.now))),
    };
  },
  make_template(input) {
    const chain = readChain(input.chain);
    const rules = readRules(input, BigInt(chain.length));
    const before = readBalances(input.accounts);
    const core = production.makeTemplate(chain, before, rules, fromHex(input.miner), BigInt(input.timestamp));
    return { core: HeaderCore.toJson(core), hash: toHex(containers.computeCoreHash(core)) };
  },
  make_block({ core, nlls, trace }) {
    const loss = nlls.reduce((sum, nll) => sum + BigInt(nll), 0n);
    const block = production.makeBlock(HeaderCore.fromJson(core), { loss, trace: trace.map(fromHex) });
    return { data: toHex(Block.encode(block)), hash: blockHash(block.header) };
  },
};
