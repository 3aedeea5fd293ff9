// Follows specs/execution/transaction.md: the three types of transactions, their hashes and senders.

import { concat, invalid } from "./bytes.js";
import { keccak256 } from "./keccak.js";
import { CURVE_ORDER, recoverKey } from "./secp256k1.js";
import { RlpError, decodeRlp, encodeInteger, encodeRlp, intToBytes, toInteger } from "./trie.js";

const U64 = 2n ** 64n - 1n;
const U256 = 2n ** 256n - 1n;
const FIELDS_OF_TYPE = [9, 11, 12];
const isBytes = (item) => item instanceof Uint8Array;

function readInteger(item, limit) {
  if (!isBytes(item) || item[0] === 0 || toInteger(item) > limit) {
    throw invalid("transaction/integer", "a list, a zero byte first, or too large");
  }
  return toInteger(item);
}

function readBytes(item) {
  if (!isBytes(item)) throw invalid("transaction/data", "a list");
  return item;
}

function readRecipient(item) {
  if (!isBytes(item) || (item.length !== 0 && item.length !== 20)) throw invalid("transaction/recipient");
  return item;
}

function isEntry(entry) {
  if (!Array.isArray(entry) || entry.length !== 2) return false;
  const [address, slots] = entry;
  if (!isBytes(address) || address.length !== 20 || !Array.isArray(slots)) return false;
  return slots.every((slot) => isBytes(slot) && slot.length === 32);
}

function readAccessList(item) {
  if (!Array.isArray(item) || !item.every(isEntry)) throw invalid("transaction/access-list");
  return item.map(([address, slots]) => ({ address, slots: slots.map(toInteger) }));
}

function decodeList(encoded) {
  const first = encoded.length === 0 ? -1 : encoded[0];
  const kind = first >= 0xc0 ? 0 : first;
  if (kind !== 1 && kind !== 2 && first < 0xc0) throw invalid("transaction/type", String(first));
  let items = null;
  try {
    items = decodeRlp(kind === 0 ? encoded : encoded.slice(1));
  } catch (error) {
    if (!(error instanceof RlpError)) throw error;
  }
  if (!Array.isArray(items) || items.length !== FIELDS_OF_TYPE[kind]) throw invalid("transaction/encoding");
  return [kind, items];
}

/** The fields of a transaction, in the order of the encoding: the first fault counts. */
export function decodeTransaction(encoded) {
  const [kind, items] = decodeList(encoded);
  const rest = [...items];
  const next = () => rest.shift();
  let chainId = kind === 0 ? 0n : readInteger(next(), U64);
  const nonce = readInteger(next(), U64);
  const tip = readInteger(next(), U256);
  const maxFee = kind === 2 ? readInteger(next(), U256) : tip;
  const gas = readInteger(next(), U64);
  const to = readRecipient(next());
  const value = readInteger(next(), U256);
  const data = readBytes(next());
  const accessList = kind === 0 ? [] : readAccessList(next());
  let [v, r, s] = rest.map((item) => readInteger(item, U256));
  if (kind === 0) {
    if (v < 35n || (v - 35n) / 2n > U64) throw invalid("transaction/unprotected");
    [chainId, v] = [(v - 35n) / 2n, (v - 35n) % 2n];
  }
  if (v > 1n) throw invalid("transaction/parity", String(v));
  return { kind, chainId, nonce, tip, maxFee, gas, to, value, data, accessList, parity: v, r, s };
}

/** What the sender signed. */
export function computeSigningHash(tx) {
  const fees = tx.kind === 2 ? [tx.tip, tx.maxFee] : [tx.maxFee];
  const head = [
    encodeInteger(tx.nonce), ...fees.map(encodeInteger), encodeInteger(tx.gas), tx.to, encodeInteger(tx.value), tx.data,
  ];
  const chain = encodeInteger(tx.chainId);
  if (tx.kind === 0) return keccak256(encodeRlp([...head, chain, new Uint8Array(), new Uint8Array()]));
  const listed = tx.accessList.map(({ address, slots }) => [address, slots.map((slot) => intToBytes(slot, 32))]);
  return keccak256(concat(Uint8Array.of(tx.kind), encodeRlp([chain, ...head, listed])));
}

/** The address that signed a transaction for a chain. */
export function getSender(tx, chainId) {
  if (tx.chainId !== chainId) throw invalid("transaction/chain-id");
  const low = 2n * tx.s <= CURVE_ORDER;
  const key = low ? recoverKey(toInteger(computeSigningHash(tx)), tx.parity, tx.r, tx.s) : null;
  if (key === null) throw invalid("transaction/signature");
  return keccak256(key).slice(12);
}
