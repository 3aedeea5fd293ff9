// The suites trie, transaction and receipts. The suite evm is not implemented: this client follows a chain whose blocks
// hold no transactions.

import { fromHex, toHex } from "../bytes.js";
import { computeBloom, encodeReceipt } from "../receipts.js";
import { keccak256 } from "../keccak.js";
import { computeSigningHash, decodeTransaction, getSender } from "../transaction.js";
import { checkProof, computeListRoot, computeTrieRoot, makeProof } from "../trie.js";

const readEntries = (entries) => entries.map(({ key, value }) => [fromHex(key), fromHex(value)]);

export const TRIE = {
  compute_trie_root: ({ entries }) => ({ root: toHex(computeTrieRoot(readEntries(entries))) }),
  compute_list_root: ({ values }) => ({ root: toHex(computeListRoot(values.map(fromHex))) }),
  make_proof: ({ entries, key }) => ({ proof: makeProof(readEntries(entries), fromHex(key)).map(toHex) }),
  check_proof({ root, key, proof }) {
    const value = checkProof(fromHex(root), fromHex(key), proof.map(fromHex));
    return { value: value === null ? null : toHex(value) };
  },
};

function showTransaction(tx) {
  return {
    kind: tx.kind,
    chain_id: String(tx.chainId),
    nonce: String(tx.nonce),
    max_priority_fee: String(tx.tip),
    max_fee: String(tx.maxFee),
    gas: String(tx.gas),
    to: toHex(tx.to),
    value: String(tx.value),
    data: toHex(tx.data),
    access_list: tx.accessList.map(({ address, slots }) => ({ address: toHex(address), slots: slots.map(String) })),
    y_parity: Number(tx.parity),
    r: String(tx.r),
    s: String(tx.s),
  };
}

export const TRANSACTION = {
  decode_transaction({ encoded }) {
    const tx = decodeTransaction(fromHex(encoded));
    return {
      transaction: showTransaction(tx),
      hash: toHex(keccak256(fromHex(encoded))),
      signing_hash: toHex(computeSigningHash(tx)),
    };
  },
  get_sender: ({ encoded, chain_id }) => ({
    sender: toHex(getSender(decodeTransaction(fromHex(encoded)), BigInt(chain_id))),
  }),
};

function readLogs(logs) {
  return logs.map(({ address, topics, data }) => ({
    address: fromHex(address),
    topics: topics.map(fromHex),
    data: fromHex(data),
  }));
}

export const RECEIPTS = {
  compute_bloom: ({ logs }) => ({ bloom: toHex(computeBloom(readLogs(logs))) }),
  encode_receipt: ({ kind, success, cumulative_gas, logs }) => ({
    encoded: toHex(encodeReceipt({ kind, success, cumulativeGas: BigInt(cumulative_gas), logs: readLogs(logs) })),
  }),
};
