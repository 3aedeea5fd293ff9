"""How fast the EVM's pages run on one core: loops, transfers, tries, and which instructions are worst for their gas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

import coincurve
from rich.table import Table

from poai_bench.measure import Spread, describe_machine, make_rate_table
from poai_spec.basics.notation import Address, Hash32, keccak256
from poai_spec.execution.evm import NO_INPUT, Environment, Frame
from poai_spec.execution.execution import process_transaction
from poai_spec.execution.gas import MAX_CODE_BYTES
from poai_spec.execution.interpreter import run_call
from poai_spec.execution.state import Account
from poai_spec.execution.transaction import (
    Transaction,
    compute_signing_hash,
    decode_transaction,
    encode_transaction,
    get_sender,
)  # fmt: skip
from poai_spec.execution.trie import compute_trie_root
from poai_spec.execution.world import Slot, Word, World

GAS, QUICK_GAS = 1_000_000, 200_000
TRANSFERS, QUICK_TRANSFERS = 1_000, 50
KEYS, QUICK_KEYS = 10_000, 200
ROUNDS, QUICK_ROUNDS = 3, 1
UNROLLED = 16
"""Copies of an instruction in its loop, so that the jump back counts for little."""
BASE_FEE, CHAIN_ID = 7, 1337
CONTRACT, OTHER, MINER, RICH = (bytes([n]) * 20 for n in (0xC3, 0xD4, 0xB2, 0xE5))
LARGE = b"\x00" + b"\x5b" * (MAX_CODE_BYTES - 1)
"""The longest code, which stops at once: all that it costs is looking through it."""


class BenchState:
    """A few contracts, and at every address from 2^32 on another one with the longest code; everyone else is rich."""

    def __init__(self, codes: Mapping[Address, bytes]) -> None:
        self._accounts = {address: Account(1, 10**30, code_hash=keccak256(code)) for address, code in codes.items()}
        self._codes = {keccak256(code): code for code in codes.values()}

    def get_account(self, address: Address) -> Account:
        if address in self._accounts:
            return self._accounts[address]
        if 2**32 <= int.from_bytes(address, "big") < 2**64:
            return Account(1, code_hash=address.rjust(32, b"\1"))
        return Account(0, 10**30)

    def get_slot(self, address: Address, slot: Slot) -> Word:  # noqa: ARG002
        return 0 if slot < 2**32 else 10**20

    def get_code(self, code_hash: Hash32) -> bytes:
        return self._codes.get(code_hash, LARGE)


def make_environment(origin: Address) -> Environment:
    return Environment(
        chain_id=CHAIN_ID, height=300, timestamp=1_770_000_000, miner=MINER, gas_limit=30_000_000, base_fee=BASE_FEE,
        randomness=bytes(32), get_block_hash=lambda _: bytes(32), origin=origin, gas_price=BASE_FEE + 1,
    )  # fmt: skip


def push(*values: int) -> bytes:
    """Return code that pushes words, the last one on top, each by the shortest constant."""
    code = b""
    for value in values:
        digits = value.to_bytes(32, "big").lstrip(b"\0")
        code += bytes([0x5F + len(digits)]) + digits
    return code


def run_loop(body: bytes, gas: int, setup: bytes = b"") -> float:
    """Run a body again and again until the gas is gone; return nanoseconds a gas."""
    code = setup + b"\x5b" + body + push(len(setup)) + b"\x56"
    world = World(BenchState({CONTRACT: code, OTHER: b"\x00"}))
    frame = Frame(world, make_environment(RICH), CONTRACT, RICH, 0, NO_INPUT, code, gas, code_address=CONTRACT)
    start = perf_counter()
    run_call(frame)
    return (perf_counter() - start) / gas * 1e9


ALL, HIGH = 2**256 - 1, 2**255 + 12345
CALL = push(0, 0, 0, 0, 0, int.from_bytes(OTHER, "big"), 1000)
LOOPS: dict[str, bytes] = {
    "jumps": b"",
    "ADD and MUL": (push(3, 5) + b"\x01" + push(7) + b"\x02\x50") * UNROLLED,
    "SLOAD and SSTORE": (push(1) + b"\x54" + push(1) + b"\x01" + push(1) + b"\x55") * UNROLLED,
    "KECCAK256 of 64 bytes": (push(64, 0) + b"\x20\x50") * UNROLLED,
    "calls of another contract": (CALL + b"\xf1\x50") * UNROLLED,
}


def of(code: int, *operands: int, leaves: int = 1) -> bytes:
    """Return an instruction with its operands, the first on top, and the end of what it leaves."""
    return push(*reversed(operands)) + bytes([code]) + b"\x50" * leaves


def call_of(number: int, size: int, gas: int = 400_000) -> bytes:
    """Return the call of a precompile with the first bytes of memory."""
    return push(0, 0, size, 0, 0, number, gas) + b"\xf1\x50"


def store(*words: int) -> bytes:
    """Return code that writes words to memory from its beginning on."""
    return b"".join(push(word, 32 * n) + b"\x52" for n, word in enumerate(words))


NEXT = push(1) + b"\x01"  # counts the word below up
INSTRUCTIONS: dict[str, tuple[bytes, bytes]] = {
    **{name: (of(code, ALL, HIGH), b"") for name, code in {
        "ADD": 0x01, "MUL": 0x02, "SUB": 0x03, "DIV": 0x04, "SDIV": 0x05, "MOD": 0x06, "SMOD": 0x07, "EXP": 0x0A,
        "LT": 0x10, "SLT": 0x12, "AND": 0x16, "BYTE": 0x1A}.items()},
    "ADDMOD": (of(0x08, ALL, HIGH, HIGH - 1), b""), "MULMOD": (of(0x09, ALL, HIGH, HIGH - 1), b""),
    "EXP of a byte": (of(0x0A, ALL, 255), b""), "SIGNEXTEND": (of(0x0B, 5, ALL), b""),
    "SHL": (of(0x1B, 255, ALL), b""), "SAR": (of(0x1D, 3, HIGH), b""),
    "ISZERO": (of(0x15, 0), b""), "NOT": (of(0x19, 0), b""),
    "KECCAK256 of nothing": (of(0x20, 0, 0), b""), "KECCAK256 of 4 KiB": (of(0x20, 0, 4096), b""),
    "CALLER": (b"\x33\x50", b""), "GAS": (b"\x5a\x50", b""), "PUSH32": (push(ALL) + b"\x50", b""),
    "DUP16": (b"\x8f\x50", b"\x5f" * 16), "SWAP16": (b"\x9f", b"\x5f" * 17), "POP": (b"\x5f\x50", b""),
    "CALLDATALOAD": (of(0x35, 0), b""), "CALLDATACOPY": (of(0x37, 0, 0, 32, leaves=0), b""),
    "CODECOPY of 4 KiB": (of(0x39, 0, 0, 4096, leaves=0), b""),
    "MCOPY of 32 KiB": (of(0x5E, 0, 1, 32768, leaves=0), b""),
    "EXTCODECOPY, warm": (of(0x3C, int.from_bytes(OTHER, "big"), 0, 0, 0, leaves=0), b""),
    "BLOCKHASH": (of(0x40, 299), b""), "SELFBALANCE": (b"\x47\x50", b""),
    "MLOAD": (of(0x51, 0), b""), "MSTORE": (of(0x52, 0, ALL, leaves=0), b""),
    "MSTORE8": (of(0x53, 0, 1, leaves=0), b""),
    "SLOAD, warm": (of(0x54, 0), b""), "SLOAD, cold": (b"\x80\x54\x50" + NEXT, push(0)),
    "SSTORE, cold": (b"\x5a\x81\x55" + NEXT, push(0)), "SSTORE, warm": (b"\x5a" + push(0) + b"\x55", b""),
    "BALANCE, warm": (of(0x31, int.from_bytes(OTHER, "big")), b""),
    "BALANCE, cold": (b"\x80\x31\x50" + NEXT, push(2**20)),
    "TLOAD": (of(0x5C, 0), b""), "TSTORE": (of(0x5D, 0, 1, leaves=0), b""),
    "TSTORE of new slots": (b"\x80\x80\x5d" + NEXT, push(1)),
    "LOG0": (of(0xA0, 0, 0, leaves=0), b""), "LOG4": (of(0xA4, 0, 32, 1, 2, 3, 4, leaves=0), b""),
    "CREATE of nothing": (of(0xF0, 0, 0, 0), b""), "CREATE of 48 KiB": (of(0xF0, 0, 0, 49_152), b""),
    "CALL, warm": (CALL + b"\xf1\x50", b""), "CALL with 256 KiB": (push(0, 0, 2**18, 0, 0, 1, 0) + b"\xf1\x50", b""),
    "CALL of the longest code, cold": (push(0, 0, 0, 0, 0) + b"\x85" + push(99) + b"\xf1\x50" + NEXT, push(2**40)),
    "DELEGATECALL, warm": (push(0, 0, 0, 0, int.from_bytes(OTHER, "big"), 1000) + b"\xf4\x50", b""),
    "ecrecover": (call_of(1, 128), store(HIGH, 27, HIGH // 3, HIGH // 5)),
    "SHA-256 of nothing": (call_of(2, 0), b""), "SHA-256 of 4 KiB": (call_of(2, 4096), b""),
    "RIPEMD-160 of nothing": (call_of(3, 0), b""), "RIPEMD-160 of 4 KiB": (call_of(3, 4096), b""),
    "identity of 4 KiB": (call_of(4, 4096), b""),
    "modexp, 8 bytes": (call_of(5, 136), store(8, 32, 8, (2**64 - 1) << 192 | 2**192 - 1, ALL)),
    "modexp, 32 bytes": (call_of(5, 192), store(32, 32, 32, ALL, ALL, ALL - 188)),
    "modexp, 256 bytes": (call_of(5, 96 + 544), store(256, 32, 256, *[ALL] * 17)),
    "modexp, exponent of 1 KiB": (call_of(5, 96 + 1026), store(1, 1024, 1, *[ALL] * 33)),
}  # fmt: skip
TOKEN = bytes.fromhex(
    "602035335f5260405f20805482811060605782900390555f355f5260405f208054820190555f525f35337f"
    "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef60205fa3005bfe"
)
"""A token's transfer: balances in a map, the sender's lowered, the recipient's raised, an event."""
TOKEN = TOKEN.replace(b"\x60\x60\x57", bytes([0x60, len(TOKEN) - 2, 0x57]))


def sign_transfers(count: int, **changes: Any) -> list[bytes]:
    """Return the encodings of transfers of one sender."""
    key = coincurve.PrivateKey((1).to_bytes(32, "big"))
    found = []
    for nonce in range(count):
        tx = replace(
            Transaction(2, CHAIN_ID, nonce, 1, 100, 100_000, (2**20 + nonce).to_bytes(20, "big"), 1, b""), **changes
        )
        signature = key.sign_recoverable(compute_signing_hash(tx), hasher=None)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        found.append(encode_transaction(replace(tx, y_parity=signature[64], r=r, s=s)))
    return found


def run_transfers(encoded: list[bytes]) -> None:
    """Decode transactions, recover their senders, and run them on one world."""
    world = World(BenchState({CONTRACT: TOKEN}))
    for data in encoded:
        tx = decode_transaction(data)
        outcome = process_transaction(world, make_environment(get_sender(tx, CHAIN_ID)), tx, 30_000_000)
        assert outcome.success, outcome.halted
    world.get_changes()


def run(gas: int = GAS, transfers: int = TRANSFERS, keys: int = KEYS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure on one core.

    Args:
        gas: of each loop.
        transfers: of each kind.
        keys: entries of the trie.
        rounds: measurements of each kind; they take turns.

    Returns:
        `results`: what was done, and how often a second; `instructions`: nanoseconds a gas, the worst first.
    """
    machine = describe_machine()
    plain = sign_transfers(transfers)
    data = (5).to_bytes(32, "big") + (3).to_bytes(32, "big")
    tokens = sign_transfers(transfers, to=CONTRACT, value=0, data=data)
    entries = {keccak256(n.to_bytes(4, "big")): bytes(100) for n in range(keys)}
    kinds: dict[str, tuple[Callable[[], object], float]] = {
        "plain transfers, with recovery": (lambda: run_transfers(plain), transfers),
        "transfers of a token, with recovery": (lambda: run_transfers(tokens), transfers),
        f"keys of a trie of {keys:,}, built anew": (lambda: compute_trie_root(entries), keys),
    }
    rates: dict[str, list[float]] = {name: [] for name in [*(f"Mgas of {loop}" for loop in LOOPS), *kinds]}
    costs: dict[str, list[float]] = {name: [] for name in INSTRUCTIONS}
    for _ in range(rounds):
        for name, body in LOOPS.items():
            rates[f"Mgas of {name}"].append(1e3 / run_loop(body, gas))
        for name, (work, count) in kinds.items():
            start = perf_counter()
            work()
            rates[name].append(count / (perf_counter() - start))
        for name, (body, setup) in INSTRUCTIONS.items():
            costs[name].append(run_loop(body * UNROLLED, gas, setup))
    spreads = {name: Spread.of(found) for name, found in rates.items()}
    results = [{"what": name, "per_second": rate.median, "spread": asdict(rate)} for name, rate in spreads.items()]
    worst = sorted(((Spread.of(found), name) for name, found in costs.items()), key=lambda row: -row[0].median)
    rows = [{"instruction": name, "ns_per_gas": cost.median, "spread": asdict(cost)} for cost, name in worst]
    return {"bench": "execution", "machine": machine, "gas": gas, "results": results, "instructions": rows}


def make_tables(result: dict[str, Any]) -> list[Table]:
    """Return what `run` found as tables: rates, and the instructions from the worst on."""
    table = Table("loop of", "ns a gas", "lowest", "highest", "s for 10 Mgas")
    for row in result["instructions"]:
        cost, spread = row["ns_per_gas"], row["spread"]
        shown = [f"{ns:,.1f}" for ns in (cost, spread["low"], spread["high"])]
        table.add_row(row["instruction"], *shown, f"{cost / 100:.2f}")
    return [make_rate_table("what", result["results"]), table]
