# # EVM  [generated from specs/execution/evm.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# The machine that runs contracts, Ethereum's: words of 256 bits, a stack, a memory, and code of one-byte instructions. A
# transaction opens a *frame*; a call opens another one above it. A frame ends in one of three ways: it stops, and what it
# did stays; it reverts, and what it did is undone while its left-over gas and its output go to the caller; or it *halts* by
# breaking a rule, and its gas is gone as well. This page has frames, their memory and the ways to halt; the instructions
# follow on the next ones.


from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from poai_spec.execution.gas import GAS_COPY_WORD, compute_memory_gas, count_words
from poai_spec.basics.notation import Address, Hash32, Height, Wei
from poai_spec.execution.world import Mark, World


# ## Constants


WORD_MASK = (1 << 256) - 1  # all bits of a word
SIGN_BIT = 1 << 255  # the highest bit of a word, its sign where an instruction reads it as signed

OUT_OF_GAS = "out of gas"
STACK_UNDERFLOW = "stack underflow"
STACK_OVERFLOW = "stack overflow"
BAD_JUMP = "jump to no JUMPDEST"
BAD_INSTRUCTION = "no such instruction"
WRITE_PROTECTED = "change inside a static call"
OUTSIDE_RETURN_DATA = "read beyond the returned data"
INIT_CODE_TOO_LONG = "init code too long"
CODE_TOO_LONG = "code too long"
CODE_BEGINS_WITH_EF = "code begins with 0xEF"
CONTRACT_EXISTS = "the new contract's address is taken"
NONCE_EXHAUSTED = "the creator's nonce is 2^64 - 1"
PRECOMPILE_ABSENT = "precompile that this chain does not have"


# ## Types

# ### `Halt`


class Halt(Exception):  # noqa: N818
    """A frame broke a rule of the machine: what it did is undone and its gas is gone. No other exception ends a frame.

    Attributes:
        reason: one of the constants above.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# ### `Environment`


@dataclass(frozen=True)
class Environment:
    """What code can ask of its block and its transaction.

    Attributes:
        chain_id: of the network.
        height: of the block.
        timestamp: seconds.
        miner: who gets fees and subsidy.
        gas_limit: of a block.
        base_fee: wei a gas, burned.
        randomness: a word for `PREVRANDAO`.
        get_block_hash: hashes of the 256 blocks before this one, by height.
        origin: who signed the transaction.
        gas_price: wei a gas that it pays.
    """

    chain_id: int
    height: Height
    timestamp: int
    miner: Address
    gas_limit: int
    base_fee: Wei
    randomness: Hash32
    get_block_hash: Callable[[Height], Hash32]
    origin: Address
    gas_price: Wei


# ### `Input`

# The input of a call lies in the caller's memory, which rests while the callee runs. It is read from there: Ethereum asks
# no gas for handing it over, so handing over a megabyte must not be work.


class Input(NamedTuple):
    """What a frame was called with.

    Attributes:
        memory: that holds it.
        start: its first byte there.
        size: bytes.
    """

    memory: bytes | bytearray
    start: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, as many as there are; the caller has paid for them."""
        begin = min(offset, self.size)
        return bytes(self.memory[self.start + begin : self.start + min(begin + size, self.size)])



NO_INPUT = Input(b"", 0, 0)


# ### `Frame`


@dataclass(eq=False, slots=True)
class Frame:
    """One call, or one making of a contract, while it runs.

    Attributes:
        world: the state, which the frame changes.
        environment: of block and transaction.
        address: whose storage and balance the code works on.
        caller: who called.
        value: wei that came along.
        data: input; none for the code that makes a contract.
        code: that runs, followed by 33 zero bytes: `STOP` after the end, and room for `PUSH32` to read.
        gas: left.
        depth: 0 for the transaction's own frame.
        static: whether changes are forbidden.
        creates: whether the output becomes the code of `address`.
        moves: whether `value` moves from `caller` to `address` when the frame begins; not for `DELEGATECALL`.
        code_address: where the code lies; a precompile's for one. Empty where `creates`.
        size: of the code, bytes.
        pc: place of the next instruction.
        stack: words, the top last.
        memory: bytes, a multiple of 32.
        returned: output of the last call that this frame made.
        output: what this frame returns.
        reverted: whether it undoes what it did.
        halted: why it halted; empty if it did not.
        mark: the world when it began.
        jumps: where `code` can be jumped to, see `find_jumps`.
        result_offset: in the caller's memory, for the output.
        result_size: there.
    """

    world: World
    environment: Environment
    address: Address
    caller: Address
    value: Wei
    data: Input
    code: bytes
    gas: int
    depth: int = 0
    static: bool = False
    creates: bool = False
    moves: bool = True
    code_address: Address = b""
    size: int = 0
    pc: int = 0
    stack: list[int] = field(default_factory=list)
    memory: bytearray = field(default_factory=bytearray)
    returned: bytes = b""
    output: bytes = b""
    reverted: bool = False
    halted: str = ""
    mark: Mark = Mark(0, 0, 0)
    jumps: bytes = b""
    result_offset: int = 0
    result_size: int = 0


# ## Functions

# ### `use_gas`


def use_gas(frame: Frame, amount: int) -> None:
    """Take gas from a frame.

    Raises:
        Halt: it has less.
    """
    frame.gas -= amount
    if frame.gas < 0:
        raise Halt(OUT_OF_GAS)


# ### `use_memory`

# Memory is paid for by its highest touched word, before it grows: an offset of 2^255 costs more gas than there is.


def use_memory(frame: Frame, offset: int, size: int) -> None:
    """Pay for and provide `size` bytes of memory from `offset` on; none where `size` is 0.

    Raises:
        Halt: the gas does not suffice.
    """
    if size and offset + size > len(frame.memory):
        words = count_words(offset + size)
        use_gas(frame, compute_memory_gas(words) - compute_memory_gas(len(frame.memory) // 32))
        frame.memory.extend(bytes(32 * words - len(frame.memory)))


# ### `read_memory`


def read_memory(frame: Frame, offset: int, size: int) -> bytes:
    """Return bytes of the memory, which are paid for."""
    return bytes(frame.memory[offset : offset + size]) if size else b""


# ### `copy_to_memory`


def copy_to_memory(frame: Frame, source: Input, target: int, start: int, size: int) -> None:
    """Copy bytes of `source` from `start` on into memory; beyond its end there are zeros.

    Raises:
        Halt: the gas does not suffice.
    """
    use_gas(frame, GAS_COPY_WORD * count_words(size))
    use_memory(frame, target, size)
    if size:
        frame.memory[target : target + size] = source.read(start, size).ljust(size, b"\0")


# ### `check_writable`


def check_writable(frame: Frame) -> None:
    """Refuse a change inside a static call (EIP-214).

    Raises:
        Halt: the frame is static.
    """
    if frame.static:
        raise Halt(WRITE_PROTECTED)


# ### `to_address`


def to_address(word: int) -> Address:
    """Return the address in a word: its low 20 bytes."""
    return (word & (1 << 160) - 1).to_bytes(20, "big")


# ### `to_signed`


def to_signed(word: int) -> int:
    """Return a word read as two's complement."""
    return word - (1 << 256) if word & SIGN_BIT else word


# ## Rationale

# - **Frames are a list, not nested calls of functions** (page [interpreter](interpreter.md)): a thousand calls deep must not
#   depend on how deep a language can recurse.
# - **`Halt` is declared.** Whatever else is raised while code runs is a fault of the implementation, which may blame no
#   block for it.
