# # Instructions  [generated from specs/execution/instructions.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# The instructions that read the frame, its block and the world, move words between stack, memory and storage, jump, log and
# stop. Calls and the making of contracts are on the page [calls](calls.md).


from collections.abc import Callable

from poai_spec.execution.evm import (
    BAD_INSTRUCTION, BAD_JUMP, OUT_OF_GAS, OUTSIDE_RETURN_DATA, Frame, Halt, Input, check_writable,
    copy_to_memory, read_memory, to_address, use_gas, use_memory,
)  # fmt: skip
from poai_spec.execution.gas import (
    GAS_COLD_ACCOUNT, GAS_COLD_SLOT, GAS_COPY_WORD, GAS_LOG_BYTE, GAS_LOG_TOPIC, GAS_STIPEND, GAS_WARM,
    compute_slot_gas, compute_slot_refund, count_words,
)  # fmt: skip
from poai_spec.basics.notation import Address
from poai_spec.execution.world import Log, is_empty


# ## Constants and types


BLOCK_HASHES = 256  # blocks back that BLOCKHASH knows

ENDED = "ended"  # what an instruction returns that ends its frame; a call returns a frame, all others nothing
Operation = Callable[[Frame], object]


# ## Accounts

# ### `use_account`


def use_account(frame: Frame, address: Address) -> None:
    """Pay for touching an account: much the first time in a transaction, little later.

    Raises:
        Halt: the gas does not suffice.
    """
    use_gas(frame, GAS_WARM if frame.world.touch(address) else GAS_COLD_ACCOUNT)


# ### `op_balance`


def op_balance(frame: Frame) -> None:
    """Replace an address by its account's balance.

    Raises:
        Halt: the gas does not suffice.
    """
    address = to_address(frame.stack.pop())
    use_account(frame, address)
    frame.stack.append(frame.world.get_account(address).balance)


# ### `op_selfbalance`


def op_selfbalance(frame: Frame) -> None:
    """Push the balance of this contract."""
    frame.stack.append(frame.world.get_account(frame.address).balance)


# ### `op_extcodesize`


def op_extcodesize(frame: Frame) -> None:
    """Replace an address by the size of its code.

    Raises:
        Halt: the gas does not suffice.
    """
    address = to_address(frame.stack.pop())
    use_account(frame, address)
    frame.stack.append(len(frame.world.get_code(address)))


# ### `op_extcodecopy`


def op_extcodecopy(frame: Frame) -> None:
    """Copy code of an account to memory: address, target, start, size.

    Raises:
        Halt: the gas does not suffice.
    """
    address = to_address(frame.stack.pop())
    target, start, size = frame.stack.pop(), frame.stack.pop(), frame.stack.pop()
    use_account(frame, address)
    code = frame.world.get_code(address)
    copy_to_memory(frame, Input(code, 0, len(code)), target, start, size)


# ### `op_extcodehash`


def op_extcodehash(frame: Frame) -> None:
    """Replace an address by the hash of its code; 0 where no account is.

    Raises:
        Halt: the gas does not suffice.
    """
    address = to_address(frame.stack.pop())
    use_account(frame, address)
    account = frame.world.get_account(address)
    frame.stack.append(0 if is_empty(account) else to_word(account.code_hash))


# ## The frame and its block

# ### `to_word`


def to_word(data: bytes) -> int:
    """Return an address or a hash as a word."""
    return int.from_bytes(data, "big")


# ### `make_push`

# These push one number that the frame knows; each is made from the function that reads it.


def make_push(read: Callable[[Frame], int]) -> Operation:
    """Return the instruction that pushes what `read` gives."""

    def push(frame: Frame) -> None:
        frame.stack.append(read(frame))

    return push


# ### `op_calldataload`


def op_calldataload(frame: Frame) -> None:
    """Replace an offset by 32 bytes of the input from there on, zeros beyond its end."""
    offset = frame.stack.pop()
    frame.stack.append(int.from_bytes(frame.data.read(offset, 32).ljust(32, b"\0"), "big"))


# ### `op_calldatacopy`


def op_calldatacopy(frame: Frame) -> None:
    """Copy input to memory: target, start, size.

    Raises:
        Halt: the gas does not suffice.
    """
    copy_to_memory(frame, frame.data, frame.stack.pop(), frame.stack.pop(), frame.stack.pop())


# ### `op_codecopy`


def op_codecopy(frame: Frame) -> None:
    """Copy this code to memory: target, start, size.

    Raises:
        Halt: the gas does not suffice.
    """
    code = Input(frame.code, 0, frame.size)
    copy_to_memory(frame, code, frame.stack.pop(), frame.stack.pop(), frame.stack.pop())


# ### `op_returndatacopy`


def op_returndatacopy(frame: Frame) -> None:
    """Copy the output of the last call to memory: target, start, size; nothing lies beyond its end.

    Raises:
        Halt: it is read beyond its end, or the gas does not suffice.
    """
    target, start, size = frame.stack.pop(), frame.stack.pop(), frame.stack.pop()
    if start + size > len(frame.returned):
        raise Halt(OUTSIDE_RETURN_DATA)
    copy_to_memory(frame, Input(frame.returned, 0, len(frame.returned)), target, start, size)


# ### `op_blockhash`


def op_blockhash(frame: Frame) -> None:
    """Replace a height by the hash of that block; 0 for this block, later ones, and those more than 256 back."""
    height = frame.stack.pop()
    known = 0 < frame.environment.height - height <= BLOCK_HASHES
    frame.stack.append(to_word(frame.environment.get_block_hash(height)) if known else 0)


# ## Stack and memory

# ### `op_pop`


def op_pop(frame: Frame) -> None:
    """Drop the top word."""
    frame.stack.pop()


# ### `op_push0`


def op_push0(frame: Frame) -> None:
    """Push 0 (EIP-3855)."""
    frame.stack.append(0)


# ### `make_push_bytes`


def make_push_bytes(count: int) -> Operation:
    """Return `PUSH1` .. `PUSH32`: push the next `count` bytes of the code, and go on behind them."""

    def push_bytes(frame: Frame) -> None:
        end = frame.pc + count
        frame.stack.append(int.from_bytes(frame.code[frame.pc : end], "big"))
        frame.pc = end

    return push_bytes


# ### `make_dup`


def make_dup(depth: int) -> Operation:
    """Return `DUP1` .. `DUP16`: push what lies at this depth, 1 for the top."""

    def dup(frame: Frame) -> None:
        frame.stack.append(frame.stack[-depth])

    return dup


# ### `make_swap`


def make_swap(depth: int) -> Operation:
    """Return `SWAP1` .. `SWAP16`: exchange the top with what lies this far below it."""
    below = depth + 1

    def swap(frame: Frame) -> None:
        stack = frame.stack
        stack[-1], stack[-below] = stack[-below], stack[-1]

    return swap


# ### `op_mload`


def op_mload(frame: Frame) -> None:
    """Replace an offset by the word in memory there.

    Raises:
        Halt: the gas does not suffice.
    """
    offset = frame.stack.pop()
    use_memory(frame, offset, 32)
    frame.stack.append(int.from_bytes(frame.memory[offset : offset + 32], "big"))


# ### `op_mstore`


def op_mstore(frame: Frame) -> None:
    """Write a word to memory: offset, word.

    Raises:
        Halt: the gas does not suffice.
    """
    offset, word = frame.stack.pop(), frame.stack.pop()
    use_memory(frame, offset, 32)
    frame.memory[offset : offset + 32] = word.to_bytes(32, "big")


# ### `op_mstore8`


def op_mstore8(frame: Frame) -> None:
    """Write the lowest byte of a word to memory: offset, word.

    Raises:
        Halt: the gas does not suffice.
    """
    offset, word = frame.stack.pop(), frame.stack.pop()
    use_memory(frame, offset, 1)
    frame.memory[offset] = word & 0xFF


# ### `op_mcopy`


def op_mcopy(frame: Frame) -> None:
    """Copy memory to memory as if through a buffer: target, start, size (EIP-5656).

    Raises:
        Halt: the gas does not suffice.
    """
    target, start, size = frame.stack.pop(), frame.stack.pop(), frame.stack.pop()
    use_gas(frame, GAS_COPY_WORD * count_words(size))
    use_memory(frame, max(target, start), size)
    if size:
        frame.memory[target : target + size] = frame.memory[start : start + size]


# ## Storage

# ### `op_sload`


def op_sload(frame: Frame) -> None:
    """Replace a slot by what it holds.

    Raises:
        Halt: the gas does not suffice.
    """
    slot = frame.stack.pop()
    use_gas(frame, GAS_WARM if frame.world.touch((frame.address, slot)) else GAS_COLD_SLOT)
    frame.stack.append(frame.world.get_slot(frame.address, slot))


# ### `op_sstore`

# A call that has only the stipend left cannot store (EIP-2200).


def op_sstore(frame: Frame) -> None:
    """Store a word: slot, word.

    Raises:
        Halt: the frame is static, or the gas does not suffice.
    """
    check_writable(frame)
    if frame.gas <= GAS_STIPEND:
        raise Halt(OUT_OF_GAS)
    world, slot, new = frame.world, frame.stack.pop(), frame.stack.pop()
    cold = 0 if world.touch((frame.address, slot)) else GAS_COLD_SLOT
    original, current = world.get_original(frame.address, slot), world.get_slot(frame.address, slot)
    use_gas(frame, cold + compute_slot_gas(original, current, new))
    world.refund += compute_slot_refund(original, current, new)
    world.set_slot(frame.address, slot, new)


# ### `op_tload`


def op_tload(frame: Frame) -> None:
    """Replace a slot by what it holds in transient storage (EIP-1153)."""
    frame.stack.append(frame.world.transient.get((frame.address, frame.stack.pop()), 0))


# ### `op_tstore`


def op_tstore(frame: Frame) -> None:
    """Store a word until the transaction ends: slot, word.

    Raises:
        Halt: the frame is static.
    """
    check_writable(frame)
    slot, word = frame.stack.pop(), frame.stack.pop()
    frame.world.write(frame.world.transient, (frame.address, slot), word)


# ## Jumps

# ### `op_jump`


def op_jump(frame: Frame) -> None:
    """Go on at a place.

    Raises:
        Halt: no `JUMPDEST` is there.
    """
    frame.pc = place = frame.stack.pop()
    if place >= frame.size or not frame.jumps[place]:
        raise Halt(BAD_JUMP)


# ### `op_jumpi`


def op_jumpi(frame: Frame) -> None:
    """Go on at a place if a word is not 0: place, word.

    Raises:
        Halt: it is not 0, and no `JUMPDEST` is there.
    """
    place, condition = frame.stack.pop(), frame.stack.pop()
    if condition:
        frame.pc = place
        if place >= frame.size or not frame.jumps[place]:
            raise Halt(BAD_JUMP)


# ### `op_jumpdest`


def op_jumpdest(frame: Frame) -> None:
    """Do nothing: a place to jump to."""


# ## Logs

# ### `make_log`


def make_log(count: int) -> Operation:
    """Return `LOG0` .. `LOG4`: announce memory under `count` topics: offset, size, topics.

    Raises:
        Halt: as the instruction; the frame is static, or the gas does not suffice.
    """

    def log(frame: Frame) -> None:
        check_writable(frame)
        offset, size = frame.stack.pop(), frame.stack.pop()
        topics = tuple(frame.stack.pop().to_bytes(32, "big") for _ in range(count))
        use_gas(frame, GAS_LOG_TOPIC * count + GAS_LOG_BYTE * size)
        use_memory(frame, offset, size)
        frame.world.logs.append(Log(frame.address, topics, read_memory(frame, offset, size)))

    return log


# ## Ends

# ### `op_stop`


def op_stop(frame: Frame) -> str:
    """End without output."""
    return ENDED


# ### `op_return`


def op_return(frame: Frame) -> str:
    """End with output from memory: offset, size.

    Raises:
        Halt: the gas does not suffice.
    """
    offset, size = frame.stack.pop(), frame.stack.pop()
    use_memory(frame, offset, size)
    frame.output = read_memory(frame, offset, size)
    return ENDED


# ### `op_revert`


def op_revert(frame: Frame) -> str:
    """End as `op_return` does, and undo what the frame did.

    Raises:
        Halt: the gas does not suffice.
    """
    frame.reverted = True
    return op_return(frame)


# ### `op_invalid`


def op_invalid(frame: Frame) -> None:
    """Halt: this byte is no instruction.

    Raises:
        Halt: always.
    """
    raise Halt(BAD_INSTRUCTION)


# ## Rationale

# - **Storage costs by what the transaction found, not by what the slot holds**: clearing and setting again is no way to earn.
# - **No instruction reads beyond what was paid for**: sizes are words of 256 bits, and each is charged before memory grows.
