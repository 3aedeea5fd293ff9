// Follows specs/execution/state.md: accounts in Ethereum's Merkle-Patricia trie, and the subsidy.

import { bytesEqual, fromHex, invalid, toHex } from "./bytes.js";
import { computeSubsidy } from "./economics.js";
import { keccak256 } from "./keccak.js";
import { EMPTY_TRIE_ROOT, computeTrieRoot, encodeInteger, encodeRlp } from "./trie.js";

export const EMPTY_CODE_HASH = keccak256(new Uint8Array());

// Accounts. A state is a Map from addresses in hexadecimal to accounts.

/** An account that nothing has touched yet. */
export const NEW_ACCOUNT = {
  nonce: 0n,
  balance: 0n,
  storage_root: EMPTY_TRIE_ROOT,
  code_hash: EMPTY_CODE_HASH,
};

export function encodeAccount(account) {
  return encodeRlp([
    encodeInteger(account.nonce),
    encodeInteger(account.balance),
    account.storage_root,
    account.code_hash,
  ]);
}

export function computeStateRoot(state) {
  const entries = [...state].map(([address, account]) => [keccak256(fromHex(address)), encodeAccount(account)]);
  return computeTrieRoot(entries);
}

/** The state after `amount` was added to an account; a zero amount touches none. */
export function processCredit(state, address, amount) {
  if (amount === 0n) return state;
  const account = state.get(toHex(address)) ?? NEW_ACCOUNT;
  return new Map(state).set(toHex(address), { ...account, balance: account.balance + amount });
}

/** The state after a block: its miner has been credited with the subsidy. */
export function processHeader(state, core) {
  return processCredit(state, core.miner, computeSubsidy(core.height));
}

/** Refuse a header that commits to another state than the one after it. */
export function checkStateRoot(state, core) {
  const root = computeStateRoot(state);
  if (!bytesEqual(core.state_root, root)) throw invalid("state/root", `its chain gives ${toHex(root)}`);
}
