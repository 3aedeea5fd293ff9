// Follows specs/basics/containers.md, and the containers of specs/basics/parameters.md: what is encoded and hashed.

import { taggedHash } from "./keccak.js";
import { boolean, byteList, bytes20, bytes32, container, list, uint32, uint64, uint256 } from "./ssz.js";

export const MAX_TRACE = 257;
const MAX_TRANSACTIONS = 4_096;
const MAX_TRANSACTION_BYTES = 131_072;

export const TokenRange = container({ first: uint32, last: uint32 });

export const ModelManifest = container({
  gguf_sha256: bytes32,
  integer_model_root: bytes32,
  questions_digest: bytes32,
  corpus: boolean,
  layer_count: uint32,
  vocabulary_size: uint32,
  add_bos: boolean,
  bos_id: uint32,
  position_cost: uint64,
  pair_cost: uint64,
  scored_cost: uint64,
  salt_ranges: list(TokenRange, 2 ** 16),
});

export const CONFIG_FIELDS = {
  version: uint32,
  profile: byteList(32),
  model: ModelManifest,
  epoch_blocks: uint64,
  retarget_blocks: uint64,
  spacing: uint64,
  max_future: uint64,
  quiz_tokens: uint32,
  salt_tokens: uint32,
  scored_tokens: uint32,
  max_target: uint256,
  initial_target: uint256,
  genesis_timestamp: uint64,
  genesis_seed: bytes32,
};

export const Config = container(CONFIG_FIELDS);

const MAX_UPGRADES = 64;

/** A list of at most one item stands for a value that may be absent. */
export const Change = container({
  profile: list(byteList(32), 1),
  model: list(ModelManifest, 1),
  retarget_blocks: list(uint64, 1),
  spacing: list(uint64, 1),
  max_future: list(uint64, 1),
  quiz_tokens: list(uint32, 1),
  salt_tokens: list(uint32, 1),
  scored_tokens: list(uint32, 1),
});

export const Upgrade = container({ height: uint64, change: Change });

export const UpgradeList = container({ upgrades: list(Upgrade, MAX_UPGRADES) });

export const HeaderCore = container({
  version: uint32,
  height: uint64,
  parent_hash: bytes32,
  timestamp: uint64,
  target: uint256,
  miner: bytes20,
  body_root: bytes32,
  state_root: bytes32,
  nonce: uint64,
});

export const Header = container({ core: HeaderCore, loss: uint64, trace_digest: bytes32 });

export const Body = container({ transactions: list(byteList(MAX_TRANSACTION_BYTES), MAX_TRANSACTIONS) });

export const Block = container({ header: Header, body: Body, trace: list(bytes32, MAX_TRACE) });

export function computeCoreHash(core) {
  return taggedHash("PoAI/header-core/1", HeaderCore.encode(core));
}

export function computeBlockHash(header) {
  return taggedHash("PoAI/header/1", Header.encode(header));
}

export function computeBodyRoot(body) {
  return taggedHash("PoAI/body/1", Body.encode(body));
}
