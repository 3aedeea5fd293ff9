"""Ethereum's state tests (github ethereum/tests, GeneralStateTests) run on the pages.

A case is one transaction on a given state. Compared are the root of the state afterwards, the hash of the logs, and
whether the transaction is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import coincurve
import rlp

from poai_spec.basics.notation import Address, Hash32, Invalid, keccak256
from poai_spec.execution.evm import Environment
from poai_spec.execution.execution import Outcome, compute_gas_price, process_transaction
from poai_spec.execution.state import Account, encode_account
from poai_spec.execution.transaction import MAX_U64, MAX_U256, AccessList, Transaction
from poai_spec.execution.trie import EMPTY_TRIE_ROOT, compute_trie_root
from poai_spec.execution.world import Slot, Word, World, is_empty

CHAIN_ID = 1


def to_int(text: str) -> int:
    """Return an integer of these files: hex, sometimes marked as big, sometimes empty."""
    text = text.removeprefix("0x:bigint ")
    return int(text, 16) if text not in ("", "0x") else 0


def to_bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def to_address(text: str) -> Address:
    return to_bytes(text).rjust(20, b"\0")


@dataclass(frozen=True)
class TestState:
    """A state in dicts: a `StateReader`."""

    __test__ = False
    accounts: Mapping[Address, Account]
    storage: Mapping[Address, Mapping[Slot, Word]]
    codes: Mapping[Hash32, bytes]

    def get_account(self, address: Address) -> Account:
        return self.accounts.get(address, Account())

    def get_slot(self, address: Address, slot: Slot) -> Word:
        return self.storage.get(address, {}).get(slot, 0)

    def get_code(self, code_hash: Hash32) -> bytes:
        return self.codes[code_hash]


def compute_storage_root(slots: Mapping[Slot, Word]) -> Hash32:
    """Return the root of an account's storage: `keccak256(slot)` to the RLP of the word."""
    return compute_trie_root({
        keccak256(slot.to_bytes(32, "big")): bytes(rlp.encode(word)) for slot, word in slots.items() if word
    })  # fmt: skip


def read_state(pre: Mapping[str, Any]) -> TestState:
    accounts, storage, codes = {}, {}, {}
    for name, given in pre.items():
        address, code = to_address(name), to_bytes(given["code"])
        slots = {to_int(slot): to_int(word) for slot, word in given["storage"].items()}
        storage[address], codes[keccak256(code)] = slots, code
        root = compute_storage_root(slots) if slots else EMPTY_TRIE_ROOT
        accounts[address] = Account(to_int(given["nonce"]), to_int(given["balance"]), root, keccak256(code))
    return TestState(accounts, storage, codes)


def compute_root(state: TestState, world: World) -> Hash32:
    """Return the root of the state after the transactions of a world."""
    changes = world.get_changes()
    accounts = {**state.accounts, **changes.accounts}
    for address in changes.accounts.keys() | changes.storage.keys():
        slots = {**state.storage.get(address, {}), **changes.storage.get(address, {})}
        accounts[address] = replace(world.get_account(address), storage_root=compute_storage_root(slots))
    kept = {address: account for address, account in accounts.items() if not is_empty(account)}
    return compute_trie_root({keccak256(address): encode_account(account) for address, account in kept.items()})


def hash_logs(outcome: Outcome) -> Hash32:
    return keccak256(bytes(rlp.encode([[log.address, list(log.topics), log.data] for log in outcome.logs])))


@cache
def find_owner(secret: str) -> Address:
    return keccak256(coincurve.PrivateKey(to_bytes(secret)).public_key.format(compressed=False)[1:])[12:]


def read_access_list(given: Any) -> AccessList:
    return tuple((to_address(e["address"]), tuple(map(to_int, e["storageKeys"]))) for e in given or ())


def read_transaction(given: Mapping[str, Any], indexes: Mapping[str, int]) -> Transaction:
    """Return one of a test's transactions.

    Raises:
        Invalid: a number does not fit its width, which a decoder refuses.
    """
    lists = given.get("accessLists")
    access = read_access_list(lists[indexes["data"]] if lists else None)
    kind = 2 if "maxFeePerGas" in given else 1 if lists is not None else 0
    max_fee = to_int(given.get("maxFeePerGas") or given["gasPrice"])
    tip = to_int(given["maxPriorityFeePerGas"]) if kind == 2 else max_fee
    gas, value = to_int(given["gasLimit"][indexes["gas"]]), to_int(given["value"][indexes["value"]])
    nonce, data = to_int(given["nonce"]), to_bytes(given["data"][indexes["data"]])
    if max(gas, nonce) > MAX_U64 or max(value, max_fee, tip) > MAX_U256:
        raise Invalid("transaction/integer", "too large")
    to = to_bytes(given["to"])
    return Transaction(kind, CHAIN_ID, nonce, tip, max_fee, gas, to, value, data, access)


def get_block_hash(height: int) -> Hash32:
    """Return what the tests take for a block's hash."""
    return keccak256(str(height).encode())


def make_environment(env: Mapping[str, str], tx: Transaction, sender: Address) -> Environment:
    base_fee = to_int(env["currentBaseFee"])
    return Environment(
        chain_id=CHAIN_ID, height=to_int(env["currentNumber"]), timestamp=to_int(env["currentTimestamp"]),
        miner=to_address(env["currentCoinbase"]), gas_limit=to_int(env["currentGasLimit"]), base_fee=base_fee,
        randomness=to_int(env["currentRandom"]).to_bytes(32, "big"), get_block_hash=get_block_hash, origin=sender,
        gas_price=compute_gas_price(tx, base_fee),
    )  # fmt: skip


def run_case(test: Mapping[str, Any], post: Mapping[str, Any]) -> str:
    """Run one case; return what is wrong, or an empty string."""
    state = read_state(test["pre"])
    world, outcome, refused = World(state), None, ""
    given = test["transaction"]
    sender = to_address(given["sender"]) if "sender" in given else find_owner(given["secretKey"])
    try:
        tx = read_transaction(given, post["indexes"])
        environment = make_environment(test["env"], tx, sender)
        outcome = process_transaction(world, environment, tx, environment.gas_limit)
    except Invalid as error:
        refused = error.code
    if bool(refused) != ("expectException" in post):
        return f"refused by {refused or 'nothing'}, expected {post.get('expectException', 'nothing')}"
    root = compute_root(state, world)
    if root != to_bytes(post["hash"]):
        return f"root {root.hex()}, expected {post['hash'][2:]}"
    if outcome and hash_logs(outcome) != to_bytes(post["logs"]):
        return "other logs"
    return ""
