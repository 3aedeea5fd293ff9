# # Interpreter  [generated from specs/execution/interpreter.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# The table of all instructions, and the loop that runs frames: take the next byte of the code, check the stack, pay, do it.


from collections.abc import Mapping
from typing import NamedTuple

from poai_spec.execution import arithmetic, calls, instructions
from poai_spec.execution.evm import (
    CODE_BEGINS_WITH_EF, CODE_TOO_LONG, CONTRACT_EXISTS, OUT_OF_GAS, STACK_OVERFLOW, STACK_UNDERFLOW, Frame,
    Halt, use_gas,
)  # fmt: skip
from poai_spec.execution.gas import GAS_CODE_BYTE, MAX_CODE_BYTES, STACK_LIMIT
from poai_spec.execution.instructions import (
    ENDED, Operation, make_dup, make_log, make_push, make_push_bytes, make_swap, to_word,
)  # fmt: skip
from poai_spec.execution.precompiles import PRECOMPILES
from poai_spec.execution.world import find_jumps


# ## Instructions

# ### `Instruction`


class Instruction(NamedTuple):
    """One row of the table.

    Attributes:
        name: of the instruction.
        gas: what it costs at least; what depends on operands, memory or the world is added where it runs.
        takes: words that it takes off the stack.
        leaves: words that it puts there.
        run: what it does.
    """

    name: str
    gas: int
    takes: int
    leaves: int
    run: Operation


# Every byte that is not here, such as `0xfe`, halts.


INSTRUCTIONS: Mapping[int, Instruction] = {
    0x00: Instruction("STOP", 0, 0, 0, instructions.op_stop),
    0x01: Instruction("ADD", 3, 2, 1, arithmetic.op_add),
    0x02: Instruction("MUL", 5, 2, 1, arithmetic.op_mul),
    0x03: Instruction("SUB", 3, 2, 1, arithmetic.op_sub),
    0x04: Instruction("DIV", 5, 2, 1, arithmetic.op_div),
    0x05: Instruction("SDIV", 5, 2, 1, arithmetic.op_sdiv),
    0x06: Instruction("MOD", 5, 2, 1, arithmetic.op_mod),
    0x07: Instruction("SMOD", 5, 2, 1, arithmetic.op_smod),
    0x08: Instruction("ADDMOD", 8, 3, 1, arithmetic.op_addmod),
    0x09: Instruction("MULMOD", 8, 3, 1, arithmetic.op_mulmod),
    0x0A: Instruction("EXP", 10, 2, 1, arithmetic.op_exp),
    0x0B: Instruction("SIGNEXTEND", 5, 2, 1, arithmetic.op_signextend),
    0x10: Instruction("LT", 3, 2, 1, arithmetic.op_lt),
    0x11: Instruction("GT", 3, 2, 1, arithmetic.op_gt),
    0x12: Instruction("SLT", 3, 2, 1, arithmetic.op_slt),
    0x13: Instruction("SGT", 3, 2, 1, arithmetic.op_sgt),
    0x14: Instruction("EQ", 3, 2, 1, arithmetic.op_eq),
    0x15: Instruction("ISZERO", 3, 1, 1, arithmetic.op_iszero),
    0x16: Instruction("AND", 3, 2, 1, arithmetic.op_and),
    0x17: Instruction("OR", 3, 2, 1, arithmetic.op_or),
    0x18: Instruction("XOR", 3, 2, 1, arithmetic.op_xor),
    0x19: Instruction("NOT", 3, 1, 1, arithmetic.op_not),
    0x1A: Instruction("BYTE", 3, 2, 1, arithmetic.op_byte),
    0x1B: Instruction("SHL", 3, 2, 1, arithmetic.op_shl),
    0x1C: Instruction("SHR", 3, 2, 1, arithmetic.op_shr),
    0x1D: Instruction("SAR", 3, 2, 1, arithmetic.op_sar),
    0x20: Instruction("KECCAK256", 30, 2, 1, arithmetic.op_keccak256),
    0x30: Instruction("ADDRESS", 2, 0, 1, make_push(lambda frame: to_word(frame.address))),
    0x31: Instruction("BALANCE", 0, 1, 1, instructions.op_balance),
    0x32: Instruction("ORIGIN", 2, 0, 1, make_push(lambda frame: to_word(frame.environment.origin))),
    0x33: Instruction("CALLER", 2, 0, 1, make_push(lambda frame: to_word(frame.caller))),
    0x34: Instruction("CALLVALUE", 2, 0, 1, make_push(lambda frame: frame.value)),
    0x35: Instruction("CALLDATALOAD", 3, 1, 1, instructions.op_calldataload),
    0x36: Instruction("CALLDATASIZE", 2, 0, 1, make_push(lambda frame: frame.data.size)),
    0x37: Instruction("CALLDATACOPY", 3, 3, 0, instructions.op_calldatacopy),
    0x38: Instruction("CODESIZE", 2, 0, 1, make_push(lambda frame: frame.size)),
    0x39: Instruction("CODECOPY", 3, 3, 0, instructions.op_codecopy),
    0x3A: Instruction("GASPRICE", 2, 0, 1, make_push(lambda frame: frame.environment.gas_price)),
    0x3B: Instruction("EXTCODESIZE", 0, 1, 1, instructions.op_extcodesize),
    0x3C: Instruction("EXTCODECOPY", 0, 4, 0, instructions.op_extcodecopy),
    0x3D: Instruction("RETURNDATASIZE", 2, 0, 1, make_push(lambda frame: len(frame.returned))),
    0x3E: Instruction("RETURNDATACOPY", 3, 3, 0, instructions.op_returndatacopy),
    0x3F: Instruction("EXTCODEHASH", 0, 1, 1, instructions.op_extcodehash),
    0x40: Instruction("BLOCKHASH", 20, 1, 1, instructions.op_blockhash),
    0x41: Instruction("COINBASE", 2, 0, 1, make_push(lambda frame: to_word(frame.environment.miner))),
    0x42: Instruction("TIMESTAMP", 2, 0, 1, make_push(lambda frame: frame.environment.timestamp)),
    0x43: Instruction("NUMBER", 2, 0, 1, make_push(lambda frame: frame.environment.height)),
    0x44: Instruction("PREVRANDAO", 2, 0, 1, make_push(lambda frame: to_word(frame.environment.randomness))),
    0x45: Instruction("GASLIMIT", 2, 0, 1, make_push(lambda frame: frame.environment.gas_limit)),
    0x46: Instruction("CHAINID", 2, 0, 1, make_push(lambda frame: frame.environment.chain_id)),
    0x47: Instruction("SELFBALANCE", 5, 0, 1, instructions.op_selfbalance),
    0x48: Instruction("BASEFEE", 2, 0, 1, make_push(lambda frame: frame.environment.base_fee)),
    0x50: Instruction("POP", 2, 1, 0, instructions.op_pop),
    0x51: Instruction("MLOAD", 3, 1, 1, instructions.op_mload),
    0x52: Instruction("MSTORE", 3, 2, 0, instructions.op_mstore),
    0x53: Instruction("MSTORE8", 3, 2, 0, instructions.op_mstore8),
    0x54: Instruction("SLOAD", 0, 1, 1, instructions.op_sload),
    0x55: Instruction("SSTORE", 0, 2, 0, instructions.op_sstore),
    0x56: Instruction("JUMP", 8, 1, 0, instructions.op_jump),
    0x57: Instruction("JUMPI", 10, 2, 0, instructions.op_jumpi),
    0x58: Instruction("PC", 2, 0, 1, make_push(lambda frame: frame.pc - 1)),
    0x59: Instruction("MSIZE", 2, 0, 1, make_push(lambda frame: len(frame.memory))),
    0x5A: Instruction("GAS", 2, 0, 1, make_push(lambda frame: frame.gas)),
    0x5B: Instruction("JUMPDEST", 1, 0, 0, instructions.op_jumpdest),
    0x5C: Instruction("TLOAD", 100, 1, 1, instructions.op_tload),
    0x5D: Instruction("TSTORE", 100, 2, 0, instructions.op_tstore),
    0x5E: Instruction("MCOPY", 3, 3, 0, instructions.op_mcopy),
    0x5F: Instruction("PUSH0", 2, 0, 1, instructions.op_push0),
    **{0x5F + n: Instruction(f"PUSH{n}", 3, 0, 1, make_push_bytes(n)) for n in range(1, 33)},
    **{0x7F + n: Instruction(f"DUP{n}", 3, n, n + 1, make_dup(n)) for n in range(1, 17)},
    **{0x8F + n: Instruction(f"SWAP{n}", 3, n + 1, n + 1, make_swap(n)) for n in range(1, 17)},
    **{0xA0 + n: Instruction(f"LOG{n}", 375, n + 2, 0, make_log(n)) for n in range(5)},
    0xF0: Instruction("CREATE", 0, 3, 1, calls.op_create),
    0xF1: Instruction("CALL", 0, 7, 1, calls.op_call),
    0xF2: Instruction("CALLCODE", 0, 7, 1, calls.op_callcode),
    0xF3: Instruction("RETURN", 0, 2, 0, instructions.op_return),
    0xF4: Instruction("DELEGATECALL", 0, 6, 1, calls.op_delegatecall),
    0xF5: Instruction("CREATE2", 0, 4, 1, calls.op_create2),
    0xFA: Instruction("STATICCALL", 0, 6, 1, calls.op_staticcall),
    0xFD: Instruction("REVERT", 0, 2, 0, instructions.op_revert),
    0xFF: Instruction("SELFDESTRUCT", 5000, 1, 0, calls.op_selfdestruct),
}


# The loop reads a flat form of the table: for each byte the heights of the stack between which it may run, its gas, and what
# it does.


INVALID = Instruction("INVALID", 0, 0, 0, instructions.op_invalid)
STEPS = tuple(
    (row.takes, STACK_LIMIT + row.takes - row.leaves, row.gas, row.run)
    for row in (INSTRUCTIONS.get(byte, INVALID) for byte in range(256))
)


# ## Frames

# ### `begin_frame`


def begin_frame(frame: Frame) -> bool:
    """Begin a frame: note the moment, move its value, and make ready to run.

    Returns:
        whether there is code to run; a precompile has run, and an account without code has nothing to do.

    Raises:
        Halt: the address of a new contract is taken, or the precompile halts.
    """
    world = frame.world
    frame.mark = world.mark()
    if frame.creates:
        if world.has_history(frame.address):
            raise Halt(CONTRACT_EXISTS)
        world.write(world.created, frame.address, True)
        world.increment_nonce(frame.address)
    if frame.moves and frame.address != frame.caller:
        world.move(frame.caller, frame.address, frame.value)
    if frame.code_address in PRECOMPILES:
        frame.output = PRECOMPILES[frame.code_address](frame)
        return False
    frame.size = len(frame.code)
    frame.jumps = find_jumps(frame.code) if frame.creates else world.get_jumps(frame.code_address)
    frame.code += bytes(33)
    return frame.size > 0


# ### `run_frame`


def run_frame(frame: Frame) -> Frame | None:
    """Run a frame until it ends or opens another one.

    Returns:
        the opened frame, or None at the end.

    Raises:
        Halt: the frame broke a rule of the machine.
    """
    code, stack = frame.code, frame.stack
    while True:
        low, high, gas, run = STEPS[code[frame.pc]]
        frame.pc += 1
        if not low <= len(stack) <= high:
            raise Halt(STACK_UNDERFLOW if len(stack) < low else STACK_OVERFLOW)
        frame.gas -= gas
        if frame.gas < 0:
            raise Halt(OUT_OF_GAS)
        result = run(frame)
        if result is not None:
            return None if result is ENDED else result  # type: ignore[return-value]


# ### `keep_code`

# Code that begins with 0xEF is reserved (EIP-3541).


def keep_code(frame: Frame) -> None:
    """Make the output of init code the contract's code.

    Raises:
        Halt: it is too long, begins with 0xEF, or the gas does not suffice.
    """
    if len(frame.output) > MAX_CODE_BYTES:
        raise Halt(CODE_TOO_LONG)
    if frame.output.startswith(b"\xef"):
        raise Halt(CODE_BEGINS_WITH_EF)
    use_gas(frame, GAS_CODE_BYTE * len(frame.output))
    frame.world.set_code(frame.address, frame.output)


# ### `advance`


def advance(frame: Frame) -> Frame | None:
    """Run a frame as `run_frame` does, and settle its end: a halt takes its gas, and what fails is undone."""
    try:
        opened = run_frame(frame)
        if opened is None and frame.creates and not frame.reverted:
            keep_code(frame)
    except Halt as halt:
        stop_frame(frame, halt)
        return None
    if opened is None and frame.reverted:
        frame.world.revert(frame.mark)
    return opened


# ### `stop_frame`


def stop_frame(frame: Frame, halt: Halt) -> None:
    """Settle a halt: no gas, no output, nothing done."""
    frame.halted, frame.reverted, frame.gas, frame.output = halt.reason, True, 0, b""
    frame.world.revert(frame.mark)


# ### `start`


def start(frame: Frame) -> bool:
    """Begin a frame as `begin_frame` does, and settle a halt; return whether there is code to run."""
    try:
        ready = begin_frame(frame)
        if not ready and frame.creates:
            keep_code(frame)
    except Halt as halt:
        stop_frame(frame, halt)
        return False
    return ready


# ### `resume`


def resume(caller: Frame, ended: Frame) -> None:
    """Give a call's gas, output and success to its caller."""
    caller.gas += ended.gas
    success = int(not ended.reverted)
    if ended.creates:
        caller.returned = ended.output if ended.reverted else b""
        caller.stack.append(to_word(ended.address) if success else 0)
        return
    caller.returned = ended.output
    size = min(ended.result_size, len(ended.output))
    if size:
        caller.memory[ended.result_offset : ended.result_offset + size] = ended.output[:size]
    caller.stack.append(success)


# ### `run_call`


def run_call(frame: Frame) -> None:
    """Run a frame and all that it opens to their end. What became of it is in its fields."""
    if not start(frame):
        return
    frames = [frame]
    while frames:
        opened = advance(frames[-1])
        if opened is None:
            ended = frames.pop()
        elif start(opened):
            frames.append(opened)
            continue
        else:
            ended = opened
        if frames:
            resume(frames[-1], ended)


# ## Rationale

# - **Stack heights are checked from the table** before an instruction runs, so none can read below the bottom.
# - **No recursion**: the frames that wait for a call lie in a list, so a thousand of them need no stack of the host language.
