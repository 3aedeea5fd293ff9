"""The EVM's pages: memory, calls, creations, reverts, gas, precompiles, and that hostile input is paid for first."""

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poai_spec.basics.notation import Address, keccak256
from poai_spec.execution.arithmetic import op_exp, op_signextend, op_slt
from poai_spec.execution.calls import compute_contract_address, compute_salted_address
from poai_spec.execution.evm import (
    BAD_INSTRUCTION, BAD_JUMP, CODE_BEGINS_WITH_EF, CODE_TOO_LONG, CONTRACT_EXISTS, INIT_CODE_TOO_LONG, OUT_OF_GAS,
    OUTSIDE_RETURN_DATA, PRECOMPILE_ABSENT, STACK_OVERFLOW, STACK_UNDERFLOW, WORD_MASK, WRITE_PROTECTED, Frame, Input,
    to_signed,
)  # fmt: skip
from poai_spec.execution.gas import compute_call_gas, compute_memory_gas, compute_slot_gas, compute_slot_refund
from poai_spec.execution.interpreter import INSTRUCTIONS, run_call
from poai_spec.execution.state import Account
from poai_spec.execution.world import Log, World, find_jumps
from tests.harness.evm import CONTRACT, OTHER, SENDER, Accounts, get_owner, make_key, make_world, push, return_top, run_code

words = st.integers(0, WORD_MASK) | st.integers(0, 300) | st.integers(WORD_MASK - 300, WORD_MASK)


def compute(name: str, *operands: int) -> int:
    """Return what an instruction leaves of some operands, the first on top."""
    code = next(code for code, row in INSTRUCTIONS.items() if row.name == name)
    frame = run_code(push(*reversed(operands)) + bytes([code]) + return_top())
    assert not frame.halted, frame.halted
    return int.from_bytes(frame.output, "big")


def truncate(a: int, b: int) -> int:
    """Divide toward zero."""
    return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) if b else 0


OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "ADD": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "MUL": lambda a, b: a * b,
    "DIV": lambda a, b: a // b if b else 0,
    "MOD": lambda a, b: a % b if b else 0,
    "SDIV": lambda a, b: truncate(to_signed(a), to_signed(b)),
    "SMOD": lambda a, b: to_signed(a) - to_signed(b) * truncate(to_signed(a), to_signed(b)) if b else 0,
    "EXP": lambda a, b: pow(a, b, 2**256),
    "LT": lambda a, b: int(a < b),
    "GT": lambda a, b: int(a > b),
    "SLT": lambda a, b: int(to_signed(a) < to_signed(b)),
    "SGT": lambda a, b: int(to_signed(a) > to_signed(b)),
    "EQ": lambda a, b: int(a == b),
    "AND": lambda a, b: a & b,
    "OR": lambda a, b: a | b,
    "XOR": lambda a, b: a ^ b,
    "BYTE": lambda n, a: a.to_bytes(32, "big")[n] if n < 32 else 0,
    "SHL": lambda n, a: a * 2**n if n < 256 else 0,
    "SHR": lambda n, a: a // 2**n if n < 256 else 0,
    "SAR": lambda n, a: to_signed(a) // 2 ** min(n, 256),
    "SIGNEXTEND": lambda n, a: (
        int.from_bytes(a.to_bytes(32, "big")[31 - n :], "big", signed=True) if n < 32 else a
    ),
}


@settings(deadline=None, max_examples=40)
@given(words, words)
def test_arithmetic(a: int, b: int) -> None:
    for name, operation in OPERATIONS.items():
        assert compute(name, a, b) == operation(a, b) & WORD_MASK, name


@settings(deadline=None, max_examples=40)
@given(words, words, words)
def test_arithmetic_of_three_and_one(a: int, b: int, n: int) -> None:
    assert compute("ADDMOD", a, b, n) == ((a + b) % n if n else 0)
    assert compute("MULMOD", a, b, n) == ((a * b) % n if n else 0)
    assert (compute("NOT", a), compute("ISZERO", a)) == (WORD_MASK - a, int(a == 0))


@pytest.mark.parametrize("code", [code for code in range(256) if code not in INSTRUCTIONS])
def test_every_other_byte_halts(code: int) -> None:
    frame = run_code(push(*[0] * 20) + bytes([code]))
    assert (frame.halted, frame.gas) == (BAD_INSTRUCTION, 0)


@pytest.mark.parametrize("code", [code for code, row in INSTRUCTIONS.items() if row.takes])
def test_a_stack_that_is_too_low(code: int) -> None:
    row = INSTRUCTIONS[code]
    assert run_code(push(*[0] * (row.takes - 1)) + bytes([code])).halted == STACK_UNDERFLOW
    assert run_code(push(*[0] * row.takes) + bytes([code])).halted != STACK_UNDERFLOW


def test_a_stack_that_is_full() -> None:
    assert run_code(b"\x5f" * 1024).halted == ""
    assert run_code(b"\x5f" * 1025).halted == STACK_OVERFLOW
    assert run_code(b"\x5f" * 1024 + b"\x80").halted == STACK_OVERFLOW
    assert run_code(b"\x5f" * 1024 + b"\x90").halted == ""


# Code and jumps


@given(st.binary(max_size=100) | st.lists(st.sampled_from([0x5B, 0x60, 0x61, 0x7F, 0x80]), max_size=100).map(bytes))
def test_jumps_are_the_jumpdests_that_a_walk_meets(code: bytes) -> None:
    walk, place = set(), 0
    while place < len(code):
        walk.add(place)
        place += code[place] - 0x5E if 0x60 <= code[place] <= 0x7F else 1
    assert [n for n, flag in enumerate(find_jumps(code)) if flag] == sorted(n for n in walk if code[n] == 0x5B)


@pytest.mark.parametrize("place", [0, 2, 35, 2**255])
def test_bad_jumps(place: int) -> None:
    assert run_code(push(place) + b"\x56\x60\x5b").halted == BAD_JUMP
    assert run_code(push(1, place) + b"\x57\x60\x5b").halted == BAD_JUMP
    assert run_code(push(0, place) + b"\x57").halted == ""


def test_code_ends_in_stops_even_inside_a_constant() -> None:
    for count in range(1, 33):
        frame = run_code(bytes([0x5F + count]) + b"\x01")
        assert (frame.halted, frame.stack) == ("", [1 << 8 * (count - 1)])


# Memory


@given(st.integers(0, 4000), st.integers(0, 4000))
def test_memory_costs_what_its_words_cost(offset: int, value: int) -> None:
    frame = run_code(push(value, offset) + b"\x52")
    size = (offset + 32 + 31) // 32
    assert 1_000_000 - frame.gas == 6 + 3 + compute_memory_gas(size)
    assert len(frame.memory) == 32 * size
    assert int.from_bytes(frame.memory[offset : offset + 32], "big") == value


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(0, 250), st.integers(0, 250), st.integers(0, 250))
def test_copies(data: bytes, target: int, start: int, size: int) -> None:
    """Input, code and memory are copied as through a buffer, zeros beyond their end."""
    expected = (data[start:] + bytes(600))[:size]
    copied = run_code(push(size, start, target) + b"\x37", data)
    assert copied.memory[target : target + size] == expected
    code = push(size, start, target) + b"\x39"
    assert run_code(code + data).memory[target : target + size] == ((code + data)[start:] + bytes(600))[:size]
    moved = run_code(push(len(data), 0, 0) + b"\x37" + push(size, start, target) + b"\x5e", data)
    assert moved.memory[target : target + size] == expected
    loaded = run_code(push(start) + b"\x35" + return_top(), data)
    assert loaded.output == (data[start:] + bytes(32))[:32]


HUGE = [2**255, 2**64, 2**32]


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize(
    "code",
    ["20", "37", "39", "3c", "51", "52", "53", "5e", "a0", "a4", "f0", "f1", "f2", "f3", "f4", "f5", "fa", "fd"],
)
def test_huge_sizes_and_offsets_cost_gas_and_no_time(code: str, huge: int) -> None:
    """Each word of the stack in turn, and all of them, is huge: nothing is allocated before it is paid for."""
    operation = bytes.fromhex(code)
    takes = INSTRUCTIONS[operation[0]].takes
    for at in [*range(takes), None]:
        given_words = [huge if at is None or n == at else 64 for n in range(takes)]
        started = time.process_time()
        frame = run_code(push(*given_words) + operation, gas=10**6)
        assert time.process_time() - started < 0.5
        assert len(frame.memory) <= 2**20


def test_an_instruction_at_the_last_gas() -> None:
    code = push(1, 2) + b"\x01"
    assert run_code(code, gas=9).halted == ""
    assert (run_code(code, gas=8).halted, run_code(code, gas=8).gas) == (OUT_OF_GAS, 0)


# Calls


def call(kind: str, address: Address, *, gas: int = 100_000, value: int | None = None, size: int = 0) -> bytes:
    """Return code that calls: no input, output to the memory's beginning."""
    code = {"call": 0xF1, "callcode": 0xF2, "delegatecall": 0xF4, "staticcall": 0xFA}[kind]
    values = [value or 0] if kind in ("call", "callcode") else []
    return push(size, 0, 0, 0, *values, int.from_bytes(address, "big"), gas) + bytes([code])


WHO = bytes.fromhex("335f52306020523460405260605ff3")


@pytest.mark.parametrize(
    ("kind", "caller", "address", "value"),
    [
        ("call", CONTRACT, OTHER, 5), ("callcode", CONTRACT, CONTRACT, 5), ("delegatecall", SENDER, CONTRACT, 9),
        ("staticcall", CONTRACT, OTHER, 0),
    ],
)  # fmt: skip
def test_who_calls_whom(kind: str, caller: Address, address: Address, value: int) -> None:
    code = call(kind, OTHER, value=5, size=96) + bytes.fromhex("5060605ff3")
    world = make_world({CONTRACT: code, OTHER: WHO})
    frame = run_code(code, world=world, value=9)
    seen = [frame.output[at : at + 32] for at in (0, 32, 64)]
    assert seen == [caller.rjust(32, b"\0"), address.rjust(32, b"\0"), value.to_bytes(32, "big")]
    balances = [world.get_account(a).balance for a in (SENDER, CONTRACT, OTHER)]
    assert balances == [10**20 - 9, 4, 5] if kind == "call" else [10**20 - 9, 9, 0]


CHANGES = {
    "SSTORE": push(1, 1) + b"\x55", "TSTORE": push(1, 1) + b"\x5d", "LOG0": push(0, 0) + b"\xa0",
    "CREATE": push(0, 0, 0) + b"\xf0", "CREATE2": push(0, 0, 0, 0) + b"\xf5", "SELFDESTRUCT": push(7) + b"\xff",
    "CALL with value": call("call", OTHER, value=1),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_change_inside_a_static_call(change: bytes) -> None:
    world = make_world({CONTRACT: (outer := call("staticcall", OTHER)) + return_top(), OTHER: change})
    assert run_code(outer + return_top(), world=world).output == bytes(32)
    assert run_code(change, world=make_world({CONTRACT: change}), value=5).halted == ""
    static = Frame(world, None, OTHER, SENDER, 0, Input(b"", 0, 0), change, 10**6, static=True, code_address=OTHER)  # type: ignore[arg-type]
    run_call(static)
    assert static.halted == WRITE_PROTECTED


def test_a_revert_undoes_and_gives_gas_back_and_a_halt_takes_it() -> None:
    store = push(1, 1) + b"\x55" + push(0, 0) + b"\xa0"
    for end, gas_back, returned in ((bytes.fromhex("60205ffd"), True, 32), (b"\xfe", False, 0), (b"\x00", True, 0)):
        code = call("call", OTHER, gas=50_000) + b"\x3d" + return_top()
        world = make_world({CONTRACT: code, OTHER: store + end})
        frame = run_code(code, world=world)
        assert int.from_bytes(frame.output, "big") == returned
        kept = end == b"\x00"
        assert (world.get_slot(OTHER, 1), len(world.logs)) == ((1, 1) if kept else (0, 0))
        assert (1_000_000 - frame.gas >= 50_000) is not gas_back


def test_the_callers_memory_is_the_input_and_stays_as_it_was() -> None:
    """The callee reads it where it lies, writes its own memory, and leaves output where the caller asked."""
    callee = bytes.fromhex("5f355f52600160205260405ff3")  # returns word 0 of its input, then 1
    outer = push(7, 0) + b"\x52" + push(64, 0, 32, 0, 0, int.from_bytes(OTHER, "big"), 50_000) + b"\xf1" + bytes.fromhex("60605ff3")
    frame = run_code(outer, world=make_world({CONTRACT: outer, OTHER: callee}))
    assert [int.from_bytes(frame.output[at : at + 32], "big") for at in (0, 32, 64)] == [7, 1, 0]


def test_a_megabyte_of_input_is_handed_over_for_nothing() -> None:
    """Ethereum asks 100 gas for a warm call whatever its input: 30,000 calls with a megabyte must not copy 30 GB."""
    size = 2**20
    code = b"\x5f" + push(size - 32) + b"\x52" + b"\x5b" + bytes.fromhex("5f5f621000005f5f60ff5af150") + b"\x60\x23\x56"
    assert code[0x23] == 0x5B
    started = time.process_time()
    frame = run_code(code, gas=6_300_000)
    assert frame.halted == OUT_OF_GAS
    assert time.process_time() - started < 4


def test_depth_and_balance_stop_a_call_and_its_gas_comes_back() -> None:
    code = call("call", OTHER, value=10) + return_top()
    frame = run_code(code, world=make_world({CONTRACT: code}))
    assert frame.output == bytes(32)
    assert frame.gas > 1_000_000 - 2_600 - 9_000 - 25_000 - 200 + 2_300
    again = bytes.fromhex("5f5f5f5f5f305af1") + return_top()  # calls itself with all gas
    frame = run_code(again, gas=2**60)
    assert frame.halted == "" and frame.output == (1).to_bytes(32, "big")
    counting = bytes.fromhex("60015f54015f55") + again  # adds 1 to slot 0 first
    frame = run_code(counting, gas=2**60, world=(world := make_world({CONTRACT: counting})))
    assert world.get_slot(CONTRACT, 0) == 1025


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_64th_stays(available: int, wanted: int) -> None:
    got = compute_call_gas(available, wanted)
    assert got == min(wanted, available - available // 64) <= available


def test_returned_data_ends_at_its_end() -> None:
    callee = bytes.fromhex("60405ff3")
    for start, size, halted in ((0, 64, ""), (64, 0, ""), (0, 65, OUTSIDE_RETURN_DATA), (65, 0, OUTSIDE_RETURN_DATA)):
        code = call("call", OTHER) + push(size, start, 0) + b"\x3e"
        assert run_code(code, world=make_world({CONTRACT: code, OTHER: callee})).halted == halted


# Creations


def create(init: bytes, salt: int | None = None) -> bytes:
    """Return code that makes a contract of up to 32 bytes of init code and returns its address."""
    stored = push(int.from_bytes(init.ljust(32, b"\0"), "big"), 0) + b"\x52"
    words_ = [] if salt is None else [salt]
    return stored + push(*words_, len(init), 0, 0) + (b"\xf0" if salt is None else b"\xf5") + return_top()


def test_creations_and_their_addresses() -> None:
    init = bytes.fromhex("60015ff3")
    code = create(init)
    world = make_world({CONTRACT: code})
    made = run_code(code, world=world).output[12:]
    assert made == compute_contract_address(CONTRACT, 1)
    assert world.get_account(made) == Account(1, 0, code_hash=keccak256(b"\0"))
    assert world.get_account(CONTRACT).nonce == 2
    salted = create(init, 5)
    world = make_world({CONTRACT: salted})
    made = run_code(salted, world=world).output[12:]
    assert made == compute_salted_address(CONTRACT, (5).to_bytes(32, "big"), init)
    example = compute_salted_address(bytes(20), bytes(32), b"\0")  # of EIP-1014
    assert example.hex() == "4d1a2e2bb4f88f0250f26ffff098b0b30b26bf38"


@pytest.mark.parametrize(
    ("init", "halted"),
    [
        ("60ef5f5360015ff3", CODE_BEGINS_WITH_EF), ("6160015ff3", CODE_TOO_LONG), ("fe", BAD_INSTRUCTION),
        ("5ffd", STACK_UNDERFLOW), ("6160005ff3", OUT_OF_GAS),
    ],
)  # fmt: skip
def test_creations_that_fail_take_their_gas(init: str, halted: str) -> None:
    code = create(bytes.fromhex(init))
    world = make_world({CONTRACT: code})
    frame = run_code(code, world=world, gas=4_000_000)
    assert frame.output == bytes(32) and frame.gas < 4_000_000 // 63
    assert not world.get_account(compute_contract_address(CONTRACT, 1)).nonce
    assert world.get_account(CONTRACT).nonce == 2  # counted all the same
    alone = Frame(make_world(), None, OTHER, SENDER, 0, Input(b"", 0, 0), bytes.fromhex(init), 4_000_000, creates=True)  # type: ignore[arg-type]
    run_call(alone)
    assert alone.halted == halted


@pytest.mark.parametrize("account", [Account(nonce=1), Account(code_hash=keccak256(b"\0")), Account(storage_root=bytes(32))])
def test_an_address_that_is_taken(account: Account) -> None:
    world = World(Accounts({OTHER: account, SENDER: Account(0, 9)}, {}, {keccak256(b"\0"): b"\0"}))
    frame = Frame(world, None, OTHER, SENDER, 0, Input(b"", 0, 0), b"", 1_000, creates=True)  # type: ignore[arg-type]
    run_call(frame)
    assert (frame.halted, frame.gas) == (CONTRACT_EXISTS, 0)


def test_init_code_has_a_limit() -> None:
    assert run_code(push(49_153, 0, 0) + b"\xf0").halted == INIT_CODE_TOO_LONG
    assert run_code(push(49_152, 0, 0) + b"\xf0").halted == ""


def test_who_destroys_itself() -> None:
    """A contract of this transaction goes; one from before keeps code and storage, and its money moves (EIP-6780)."""
    end = push(int.from_bytes(OTHER, "big")) + b"\xff"
    old = make_world({CONTRACT: end})
    run_code(end, world=old, value=5)
    old.end_transaction()
    assert (old.get_code(CONTRACT), old.get_account(OTHER).balance) == (end, 5)
    init = b"\x30\xff"  # to itself
    code = create(init)
    world = make_world({CONTRACT: code})
    run_code(code, world=world)
    made = compute_contract_address(CONTRACT, 1)
    assert world.destroyed == {made: True}
    world.add_balance(made, 3)
    world.end_transaction()
    assert world.get_account(made) == Account()


# Storage


def test_storage_gas_and_refunds_are_those_of_eip_2200_and_3529() -> None:
    for original, current, new in itertools.product((0, 1, 2), repeat=3):
        gas, refund = compute_slot_gas(original, current, new), compute_slot_refund(original, current, new)
        if current == new:
            expected = (100, 0)
        elif current == original:
            expected = (20_000 if original == 0 else 2_900, 4_800 if original and new == 0 else 0)
        else:
            back = 0
            if original:
                back += -4_800 if current == 0 else 4_800 if new == 0 else 0
            if new == original:
                back += 19_900 if original == 0 else 2_800
            expected = (100, back)
        assert (gas, refund) == expected, (original, current, new)


def test_a_stipend_cannot_store() -> None:
    code = push(1, 1) + b"\x55"
    assert run_code(code, gas=6 + 2_300).halted == OUT_OF_GAS
    world = make_world({CONTRACT: code})
    world.touch((CONTRACT, 1))
    world.set_slot(CONTRACT, 1, 1)
    assert run_code(code, gas=6 + 2_301, world=world).halted == ""


def test_transient_storage_ends_with_the_transaction() -> None:
    code = push(9, 1) + b"\x5d" + push(1) + b"\x5c" + return_top()
    world = make_world({CONTRACT: code})
    assert int.from_bytes(run_code(code, world=world).output, "big") == 9
    world.end_transaction()
    assert int.from_bytes(run_code(push(1) + b"\x5c" + return_top(), world=world).output, "big") == 0


def test_logs() -> None:
    frame = run_code(push(5, 0) + b"\x52" + push(4, 3, 2, 1, 32, 0) + b"\xa4")
    topics = tuple(n.to_bytes(32, "big") for n in (1, 2, 3, 4))
    assert frame.world.logs == [Log(CONTRACT, topics, (5).to_bytes(32, "big"))]
    assert 1_000_000 - frame.gas == 9 + 3 + 6 * 3 + 375 * 5 + 8 * 32 - 3 + compute_memory_gas(1)


def test_block_hashes_reach_256_back() -> None:
    for height, known in ((299, True), (44, True), (43, False), (300, False), (301, False), (2**255, False)):
        output = run_code(push(height) + b"\x40" + return_top()).output
        assert output == (keccak256(bytes([height % 256])) if known else bytes(32))


# Precompiles


def run_precompile(number: int, data: bytes, gas: int = 10**6) -> Frame:
    frame = Frame(
        make_world(), None, number.to_bytes(20, "big"), SENDER, 0, Input(data, 0, len(data)), b"", gas,  # type: ignore[arg-type]
        code_address=number.to_bytes(20, "big"),
    )  # fmt: skip
    run_call(frame)
    return frame


def test_hashes_and_identity() -> None:
    """Empty strings: the digests that everybody knows."""
    assert run_precompile(2, b"").output.hex().startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert run_precompile(3, b"").output.hex() == "00" * 12 + "9c1185a5c5e9fc54612808977ee8f548b2258d31"
    assert run_precompile(4, b"abc").output == b"abc"
    for number, base, word in ((2, 60, 12), (3, 600, 120), (4, 15, 3)):
        assert 10**6 - run_precompile(number, bytes(33)).gas == base + 2 * word
        assert run_precompile(number, bytes(33), base + 2 * word - 1).halted == OUT_OF_GAS


def test_ecrecover() -> None:
    key, digest = make_key(3), keccak256(b"message")
    signature = key.sign_recoverable(digest, hasher=None)
    good = digest + (27 + signature[64]).to_bytes(32, "big") + signature[:64]
    assert run_precompile(1, good).output == get_owner(key).rjust(32, b"\0")
    assert run_precompile(1, good + b"more").output == get_owner(key).rjust(32, b"\0")
    for bad in (digest + bytes(32) + signature[:64], good[:96], good[:64] + b"\xff" * 64, b""):
        frame = run_precompile(1, bad)
        assert (frame.output, frame.halted, frame.gas) == (b"", "", 10**6 - 3_000)


@pytest.mark.parametrize("number", range(6, 11))
def test_precompiles_that_are_not_here_fail(number: int) -> None:
    frame = run_precompile(number, bytes(192))
    assert (frame.halted, frame.gas) == (PRECOMPILE_ABSENT, 0)
    code = call("call", number.to_bytes(20, "big"), gas=10_000) + return_top()
    assert run_code(code).output == bytes(32)


def modexp(base: bytes, exponent: bytes, modulus: bytes, *sizes: int) -> Frame:
    sizes = sizes or (len(base), len(exponent), len(modulus))
    return run_precompile(5, b"".join(n.to_bytes(32, "big") for n in sizes) + base + exponent + modulus)


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_modexp(base: bytes, exponent: bytes, modulus: bytes) -> None:
    b, e, m = (int.from_bytes(part, "big") for part in (base, exponent, modulus))
    frame = modexp(base, exponent, modulus)
    assert frame.output == (pow(b, e, m) if m else 0).to_bytes(len(modulus), "big")
    words_ = -(-max(len(base), len(modulus)) // 8)
    head = int.from_bytes(exponent[:32], "big")
    rounds = max(head.bit_length() - 1, 0) + 8 * max(len(exponent) - 32, 0)
    assert 10**6 - frame.gas == max(200, words_**2 * max(rounds, 1) // 3)


def test_modexp_at_the_edges() -> None:
    assert modexp(b"", b"", b"").output == b""
    assert modexp(b"", b"", b"\x01").output == b"\x00"  # 0^0 mod 1
    assert modexp(b"", b"", b"\x02").output == b"\x01"  # 0^0 = 1
    assert modexp(b"\x03", b"\x05", b"\x00").output == b"\x00"
    assert modexp(b"\x03", b"\x02", b"").output == b""
    assert run_precompile(5, b"").output == b""
    assert modexp(b"", b"", b"", 0, 2**256 - 1, 0).output == b""  # nothing is read for an empty modulus
    for sizes in ((2**256 - 1, 0, 0), (0, 0, 2**256 - 1), (1, 2**256 - 1, 1), (2**255, 2**255, 2**255), (0, 2**40, 1)):
        started = time.process_time()
        assert modexp(b"", b"", b"", *sizes).halted == OUT_OF_GAS
        assert time.process_time() - started < 0.2


def test_operations_alone() -> None:
    """The three whose forms are least obvious, on bare frames."""
    for operation, operands, result in ((op_exp, (2, 255), 2**255), (op_signextend, (0, 0x80), 2**256 - 128),
                                        (op_slt, (2**256 - 1, 0), 1)):  # fmt: skip
        frame = Frame(make_world(), None, OTHER, SENDER, 0, Input(b"", 0, 0), b"", 100, stack=[*reversed(operands)])  # type: ignore[arg-type]
        operation(frame)
        assert frame.stack == [result]
