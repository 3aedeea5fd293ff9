"""Vectors of the EVM: one frame, or one transaction, on a small state; outcome, gas, changes and logs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import rlp

from poai_spec.basics.notation import Address, Hash32, keccak256
from poai_spec.execution.evm import Environment, Frame, Input
from poai_spec.execution.execution import compute_gas_price, process_transaction
from poai_spec.execution.interpreter import run_call
from poai_spec.execution.state import Account
from poai_spec.execution.transaction import Transaction, decode_transaction, encode_transaction, get_sender
from poai_spec.execution.trie import compute_trie_root
from poai_spec.execution.world import Slot, Word, World
from poai_tools.vectors.cases import Case, CaseFile
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import ADDRESS, BOOLEAN, HASH32, UINT64, UINT256, Array, Hex, RecordKind, require
from poai_tools.vectors.records import LOGS
from poai_tools.vectors.registry import Function, register
from poai_tools.vectors.suites.transaction import ENCODED, sign

SLOTS = Array(RecordKind({"slot": UINT256, "word": UINT256}))
ACCOUNTS = Array(RecordKind({
    "address": ADDRESS, "nonce": UINT64, "balance": UINT256, "code": Hex(24_576, exact=False), "storage": SLOTS,
}))  # fmt: skip
BLOCK = RecordKind({
    "chain_id": UINT64, "height": UINT64, "timestamp": UINT64, "miner": ADDRESS, "gas_limit": UINT64,
    "base_fee": UINT256, "randomness": HASH32,
})  # fmt: skip
CHANGES = RecordKind({
    "accounts": Array(RecordKind({"address": ADDRESS, "nonce": UINT64, "balance": UINT256, "code_hash": HASH32})),
    "storage": Array(RecordKind({"address": ADDRESS, "slots": SLOTS})),
    "codes": Array(ENCODED),
})  # fmt: skip
SENDER = get_sender(sign(Transaction(2, 1, 0, 0, 0, 0, b"", 0, b"")), 1)
CONTRACT, OTHER, MINER = (bytes([n]) * 20 for n in (0xC3, 0xD4, 0xB2))


@dataclass(frozen=True)
class CaseState:
    """The accounts of a case: a `StateReader`."""

    accounts: Mapping[Address, Account]
    slots: Mapping[tuple[Address, Slot], Word]
    codes: Mapping[Hash32, bytes]

    def get_account(self, address: Address) -> Account:
        return self.accounts.get(address, Account())

    def get_slot(self, address: Address, slot: Slot) -> Word:
        return self.slots.get((address, slot), 0)

    def get_code(self, code_hash: Hash32) -> bytes:
        return self.codes[code_hash]


def _read(given: Any) -> CaseState:
    accounts: dict[Address, Account] = {}
    slots: dict[tuple[Address, Slot], Word] = {}
    codes: dict[Hash32, bytes] = {}
    for row in given:
        stored = {entry["slot"]: entry["word"] for entry in row["storage"]}
        require(len(stored) == len(row["storage"]) and all(stored.values()), "storage: a slot twice, or a word of 0")
        hashed = {keccak256(slot.to_bytes(32, "big")): bytes(rlp.encode(word)) for slot, word in stored.items()}
        code_hash = keccak256(row["code"])
        accounts[row["address"]] = Account(row["nonce"], row["balance"], compute_trie_root(hashed), code_hash)
        slots |= {(row["address"], slot): word for slot, word in stored.items()}
        codes[code_hash] = row["code"]
    require(len(accounts) == len(given), "accounts: an address occurs twice")
    return CaseState(accounts, slots, codes)


def get_case_hash(height: int) -> Hash32:
    """Return what stands for the hash of a block in these cases: Keccak of its height, 8 bytes, big-endian."""
    return keccak256(height.to_bytes(8, "big"))


def _list_changes(world: World) -> dict[str, Any]:
    changes = world.get_changes()
    storage = [
        {"address": address, "slots": [{"slot": slot, "word": slots[slot]} for slot in sorted(slots)]}
        for address, slots in sorted(changes.storage.items())
    ]
    accounts = [{"address": address, **vars(account)} for address, account in sorted(changes.accounts.items())]
    return {"accounts": accounts, "storage": storage, "codes": [code for _, code in sorted(changes.codes.items())]}


def _run_call(i: Mapping[str, Any]) -> dict[str, Any]:
    world = World(_read(i["accounts"]))
    environment = Environment(**i["block"], get_block_hash=get_case_hash, origin=i["origin"], gas_price=i["gas_price"])
    address, data = i["address"], i["data"]
    require(world.get_account(i["caller"]).balance >= i["value"], "value: the caller does not have it")
    frame = Frame(
        world, environment, address, i["caller"], i["value"], Input(data, 0, len(data)), world.get_code(address),
        i["gas"], static=i["static"], code_address=address,
    )  # fmt: skip
    run_call(frame)
    logs, refund = [log._asdict() for log in world.logs], world.refund
    world.end_transaction()
    return {
        "success": not frame.reverted, "gas_left": frame.gas, "output": frame.output, "refund": refund, "logs": logs,
        "changes": _list_changes(world),
    }  # fmt: skip


def _process(i: Mapping[str, Any]) -> dict[str, Any]:
    world, tx = World(_read(i["accounts"])), decode_transaction(i["transaction"])
    price = compute_gas_price(tx, i["block"]["base_fee"])
    sender = get_sender(tx, i["block"]["chain_id"])
    environment = Environment(**i["block"], get_block_hash=get_case_hash, origin=sender, gas_price=max(price, 0))
    outcome = process_transaction(world, environment, tx, i["gas_left"])
    logs = [log._asdict() for log in outcome.logs]
    return {**vars(outcome), "logs": logs, "changes": _list_changes(world)}


RUN_CALL = register(
    Function(
        suite="evm",
        name="run_call",
        page="interpreter",
        summary="a call of an account's code, nothing warm before; then what it changed",
        input=RecordKind({
            "accounts": ACCOUNTS, "block": BLOCK, "origin": ADDRESS, "gas_price": UINT256, "caller": ADDRESS,
            "address": ADDRESS, "value": UINT256, "data": ENCODED, "gas": UINT64, "static": BOOLEAN,
        }),
        output=RecordKind({
            "success": BOOLEAN, "gas_left": UINT64, "output": ENCODED, "refund": UINT256, "logs": LOGS,
            "changes": CHANGES,
        }),
        run=_run_call,
    )
)  # fmt: skip
PROCESS_TRANSACTION = register(
    Function(
        suite="evm",
        name="process_transaction",
        page="execution",
        summary="a signed transaction on a state: outcome, logs and changes, or why it is refused",
        input=RecordKind({"accounts": ACCOUNTS, "block": BLOCK, "transaction": ENCODED, "gas_left": UINT64}),
        output=RecordKind({
            "gas_used": UINT64, "success": BOOLEAN, "output": ENCODED, "contract": Hex(20, exact=False), "logs": LOGS,
            "changes": CHANGES,
        }),
        run=_process,
    )
)  # fmt: skip


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_calls(), _transactions()]


BLOCK_VALUES = {
    "chain_id": 1337, "height": 300, "timestamp": 1_770_000_000, "miner": MINER, "gas_limit": 10_000_000, "base_fee": 7,
    "randomness": keccak256(b"randomness"),
}  # fmt: skip


def _account(address: bytes, code: bytes = b"", balance: int = 0, nonce: int = 1, **storage: int) -> dict[str, Any]:
    slots = [{"slot": int(slot[1:]), "word": word} for slot, word in storage.items()]
    return {"address": address, "nonce": nonce, "balance": balance, "code": code, "storage": slots}


def _push(*values: int) -> bytes:
    """Return code that pushes words, the last one on top, each by the shortest constant."""
    code = b""
    for value in values:
        digits = (value % 2**256).to_bytes(32, "big").lstrip(b"\0")
        code += bytes([0x5F + len(digits)]) + digits
    return code


RETURN = bytes.fromhex("5f5260205ff3")  # the top word
BINARY = {
    "add": 0x01, "mul": 0x02, "sub": 0x03, "div": 0x04, "sdiv": 0x05, "mod": 0x06, "smod": 0x07, "exp": 0x0A,
    "signextend": 0x0B, "lt": 0x10, "gt": 0x11, "slt": 0x12, "sgt": 0x13, "eq": 0x14, "and": 0x16, "or": 0x17,
    "xor": 0x18, "byte": 0x1A, "shl": 0x1B, "shr": 0x1C, "sar": 0x1D,
}  # fmt: skip
WORDS = [0, 1, 2, 31, 32, 255, 256, 2**255, 2**255 - 1, 2**256 - 7, 2**256 - 1]


def _table(operation: int) -> bytes:
    """Return code that hashes the results of an instruction for every pair of `WORDS`."""
    pairs = [(a, b) for a in WORDS for b in WORDS]
    stored = b"".join(_push(b, a) + bytes([operation]) + _push(32 * n) + b"\x52" for n, (a, b) in enumerate(pairs))
    return stored + _push(32 * len(pairs), 0) + b"\x20" + RETURN


TERNARY = {"addmod": 0x08, "mulmod": 0x09}


def _call_of(code: int, address: bytes, gas: int = 50_000, value: int | None = None, size: int = 32) -> bytes:
    words = [size, 0, 0, 0] + ([] if value is None else [value])
    return _push(*words, int.from_bytes(address, "big"), gas) + bytes([code])


REVERTS, STORES = _push(7, 0) + b"\x52" + bytes.fromhex("60205ffd"), _push(9, 1) + b"\x55" + _push(0, 0) + b"\xa0"
CODES: dict[str, tuple[str, bytes]] = {
    **{f"{name}-table": ("Keccak of all results", _table(code)) for name, code in BINARY.items()},
    **{f"{name}-{n}": ("three operands", _push(modulus, 2**256 - 1, 2**256 - 2) + bytes([code]) + RETURN)
       for name, code in TERNARY.items() for n, modulus in enumerate((0, 1, 12, 2**256 - 1))},
    **{f"frame-{code:02x}": ("what the frame and its block say", bytes([code]) + RETURN)
       for code in (0x30, 0x32, 0x33, 0x34, 0x36, 0x38, 0x3A, 0x3D, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
                    0x58, 0x59, 0x5A)},
    "not-iszero": ("one operand", _push(5) + b"\x19\x15" + RETURN),
    "keccak-empty": ("of nothing", _push(0, 0) + b"\x20" + RETURN),
    "keccak-100": ("of 100 bytes of new memory", _push(100, 7) + b"\x20" + RETURN),
    "calldata": ("input, and zeros beyond", _push(3) + b"\x35" + RETURN),
    "calldatacopy": ("input beyond its end", _push(40, 2, 5) + b"\x37" + bytes.fromhex("60605ff3")),
    "codecopy": ("code beyond its end", _push(60, 2, 0) + b"\x39" + bytes.fromhex("60405ff3")),
    "extcode": ("size, hash and copy", _push(0) + _push(9, 0, 0) + b"\x73" + OTHER + b"\x3c\x73" + OTHER + b"\x3b\x73"
                + OTHER + b"\x3f\x01\x01" + RETURN),
    "balance": ("cold, then warm", b"\x73" + OTHER + b"\x31\x73" + OTHER + b"\x31\x01" + RETURN),
    "blockhash-44": ("256 back", _push(44) + b"\x40" + RETURN),
    "blockhash-43": ("257 back", _push(43) + b"\x40" + RETURN),
    "blockhash-300": ("this block", _push(300) + b"\x40" + RETURN),
    "memory": ("words and a byte", _push(5, 3) + b"\x52" + _push(511, 40) + b"\x53" + _push(4) + b"\x51" + RETURN),
    "memory-huge": ("an offset of 2^64", _push(1, 2**64) + b"\x52"),
    "mcopy": ("overlapping", _push(2**255 + 5, 0) + b"\x52" + _push(32, 0, 7) + b"\x5e" + bytes.fromhex("60405ff3")),
    "storage": ("set, cleared, read", _push(1, 5) + b"\x55" + _push(0, 5) + b"\x55" + _push(5) + b"\x54" + RETURN),
    "storage-clear": ("a refund", _push(0, 1) + b"\x55"),
    "storage-back": ("changed and back", _push(8, 1) + b"\x55" + _push(77, 1) + b"\x55"),
    "transient": ("stored and read", _push(4, 1) + b"\x5d" + _push(1) + b"\x5c" + RETURN),
    "jump": ("over a constant", _push(5) + b"\x56\x60\x5b\x5b" + _push(1) + RETURN),
    "jump-into-constant": ("0x5b inside PUSH1", _push(4) + b"\x56\x60\x5b\x5b"),
    "jump-beyond": ("past the end", _push(2**64) + b"\x56"),
    "jumpi-not": ("nothing to jump for", _push(0, 2**64) + b"\x57" + _push(1) + RETURN),
    "push-past-the-end": ("a constant cut off", b"\x61\x01"),
    "stack-full": ("1024 words", b"\x5f" * 1024),
    "stack-over": ("1025 words", b"\x5f" * 1025),
    "stack-under": ("one word for ADD", b"\x5f\x01"),
    "dup-and-swap": ("the deepest", _push(*range(1, 18)) + b"\x8f\x9f" + RETURN),
    "invalid": ("0xfe", b"\xfe"),
    "blobhash": ("no instruction here", b"\x5f\x49"),
    "blobbasefee": ("no instruction here", b"\x4a"),
    "revert": ("undone, output kept", STORES + REVERTS),
    "halt": ("undone, gas gone", STORES + b"\xfe"),
    "logs": ("0 to 4 topics", b"".join(_push(*range(n), 5, 3) + bytes([0xA0 + n]) for n in range(5))),
    "call": ("with value", _call_of(0xF1, OTHER, value=3) + b"\x3d\x01" + RETURN),
    "call-to-nobody": ("a new account", _call_of(0xF1, bytes(19) + b"\x99", value=3) + RETURN),
    "call-too-poor": ("more than it has", _call_of(0xF1, OTHER, value=2**100) + RETURN),
    "call-all-gas": ("a 64th stays", _call_of(0xF1, OTHER, gas=2**255, value=0) + b"\x5a" + RETURN),
    "callcode": ("another's code", _call_of(0xF2, OTHER, value=3) + RETURN),
    "delegatecall": ("another's code, this caller", _call_of(0xF4, OTHER) + RETURN),
    "staticcall": ("the callee stores, which fails", _call_of(0xFA, OTHER) + RETURN),
    "returndatacopy-beyond": ("past the end", _call_of(0xF4, OTHER) + _push(33, 0, 0) + b"\x3e"),
    "create": ("one byte of code", _push(0x60015FF3 << 224, 0) + b"\x52" + _push(4, 0, 2) + b"\xf0" + RETURN),
    "create2": ("salted", _push(0x60015FF3 << 224, 0) + b"\x52" + _push(6, 4, 0, 2) + b"\xf5" + RETURN),
    "create-ef": ("reserved code", _push(0x60EF5F5360015FF3 << 192, 0) + b"\x52" + _push(8, 0, 0) + b"\xf0" + RETURN),
    "create-too-long": ("49,153 bytes", _push(49_153, 0, 0) + b"\xf0"),
    "selfdestruct": ("its money moves", b"\x73" + OTHER + b"\xff"),
    "selfdestruct-of-a-new-one": ("goes", _push(0x30FF << 240, 0) + b"\x52" + _push(2, 0, 2) + b"\xf0" + RETURN),
    "ecrecover-of-nothing": ("no output", _call_of(0xF1, bytes(19) + b"\x01", value=0) + b"\x3d" + RETURN),
    "sha256": ("of nothing", _call_of(0xF1, bytes(19) + b"\x02", value=0) + bytes.fromhex("60205ff3")),
    "ripemd160": ("of nothing", _call_of(0xF1, bytes(19) + b"\x03", value=0) + bytes.fromhex("60205ff3")),
    "identity": ("of four bytes", _push(0xDEADBEEF, 0) + b"\x52" + _push(32, 32, 32, 0, 0, 4, 9000) + b"\xf1"
                 + bytes.fromhex("60405ff3")),
    "modexp": ("3^5 modulo 100", b"".join(_push(word, at) + b"\x52" for at, word in
               ((0, 1), (32, 1), (64, 1), (96, 0x030564 << 232))) + _push(1, 200, 99, 0, 0, 5, 9000) + b"\xf1"
               + _push(200) + b"\x51" + RETURN),
    **{f"precompile-{n}": ("fails and takes its gas",
                           _call_of(0xF1, n.to_bytes(20, "big"), value=0) + b"\x5a\x01" + RETURN)
       for n in range(6, 11)},
}  # fmt: skip


def _calls() -> CaseFile:
    cases = []
    for name, (comment, code) in CODES.items():
        accounts = [
            _account(SENDER, balance=10**18), _account(CONTRACT, code, balance=1000, s1=77),
            _account(OTHER, STORES, s1=5),
        ]  # fmt: skip
        given = {
            "accounts": accounts, "block": BLOCK_VALUES, "origin": SENDER, "gas_price": 9, "caller": SENDER,
            "address": CONTRACT, "value": 5, "data": bytes(range(1, 21)), "gas": 400_000, "static": False,
        }  # fmt: skip
        cases.append(Case(name, comment, given))
        if name in ("storage", "transient", "logs", "create", "selfdestruct", "call", "memory"):
            static = {**given, "static": True, "value": 0}
            cases.append(Case(f"{name}-static", f"{comment}, inside a static call", static, ("static",)))
    flags = {"static": ("nothing may change", "a client that lets it change has another state")}
    return CaseFile(RUN_CALL, "By hand: code on three accounts.", tuple(cases), flags)


PLAIN = Transaction(2, 1337, 3, 5, 20, 60_000, OTHER, 1000, b"")


def _transactions() -> CaseFile:
    accounts = [_account(SENDER, balance=10**18, nonce=3), _account(CONTRACT, STORES + _push(0, 2) + b"\x55", s2=6)]

    def make(tx: Transaction, **changes: Any) -> dict[str, Any]:
        encoded = encode_transaction(sign(tx))
        return {"accounts": accounts, "block": BLOCK_VALUES, "transaction": encoded, "gas_left": 9_000_000} | changes

    def alter(**changes: Any) -> Transaction:
        return Transaction(**{**vars(PLAIN), **changes})

    good = {
        "transfer": alter(), "transfer-of-nothing": alter(value=0), "all-gas-exactly": alter(gas=21_000),
        "legacy": alter(kind=0, max_priority_fee=20), "highest-fee-is-base-fee": alter(max_fee=7, max_priority_fee=0),
        "call": alter(to=CONTRACT, value=0), "call-out-of-gas": alter(to=CONTRACT, value=0, gas=22_000),
        "data": alter(data=b"\x00\x01\x00"), "to-itself": alter(to=SENDER),
        "access-list": alter(to=CONTRACT, value=0, access_list=((CONTRACT, (1, 2)),)),
        "creation": alter(to=b"", data=bytes.fromhex("60015ff3"), gas=100_000),
        "creation-fails": alter(to=b"", data=b"\xfe", gas=100_000), "to-a-precompile": alter(to=bytes(19) + b"\x02"),
        "to-an-absent-precompile": alter(to=bytes(19) + b"\x08", value=0),
    }  # fmt: skip
    cases = [Case(name, "processed", make(tx)) for name, tx in good.items()]
    base = cases[0]
    for name, tx in {
        "fees": alter(max_priority_fee=21), "base-fee": alter(max_fee=6), "intrinsic-gas": alter(gas=20_999),
        "nonce-low": alter(nonce=2), "nonce-high": alter(nonce=4), "balance": alter(value=10**18),
        "init-code": alter(to=b"", data=bytes(49_153), gas=5_000_000), "other-chain": alter(chain_id=1338),
    }.items():  # fmt: skip
        encoded = {"transaction": encode_transaction(sign(tx))}
        cases.append(make_negative(PROCESS_TRANSACTION, base, name, "refused", encoded))
    contract = [{**accounts[0], "code": b"\x00"}, accounts[1]]
    cases.append(make_negative(PROCESS_TRANSACTION, base, "sender-code", "a contract", {"accounts": contract}))
    cases.append(make_negative(PROCESS_TRANSACTION, base, "gas-limit", "no room", {"gas_left": 59_999}))
    last = [{**accounts[0], "nonce": 2**64 - 1}, accounts[1]]
    changed: dict[str, Any] = {"accounts": last, "transaction": encode_transaction(sign(alter(nonce=2**64 - 1)))}
    cases.append(make_negative(PROCESS_TRANSACTION, base, "nonce-end", "the last nonce", changed))
    return CaseFile(PROCESS_TRANSACTION, "By hand; signed as in transaction/decode_transaction.", tuple(cases))
