# # Arithmetic  [generated from specs/execution/arithmetic.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# The instructions that compute with words of the stack: sums, comparisons, bits, and Keccak. Each takes its operands from
# the top, the first one on top, and leaves one result. Words are unsigned unless an instruction reads them as two's complement.


from poai_spec.execution.evm import SIGN_BIT, WORD_MASK, Frame, read_memory, to_signed, use_gas, use_memory
from poai_spec.execution.gas import GAS_EXP_BYTE, GAS_HASH_WORD, count_words
from poai_spec.basics.notation import keccak256


# ## Sums and products

# ### `op_add`


def op_add(frame: Frame) -> None:
    """Replace a, b by a + b modulo 2^256."""
    a = frame.stack.pop()
    frame.stack[-1] = a + frame.stack[-1] & WORD_MASK


# ### `op_mul`


def op_mul(frame: Frame) -> None:
    """Replace a, b by a * b modulo 2^256."""
    a = frame.stack.pop()
    frame.stack[-1] = a * frame.stack[-1] & WORD_MASK


# ### `op_sub`


def op_sub(frame: Frame) -> None:
    """Replace a, b by a - b modulo 2^256."""
    a = frame.stack.pop()
    frame.stack[-1] = a - frame.stack[-1] & WORD_MASK


# ### `op_div`


def op_div(frame: Frame) -> None:
    """Replace a, b by a // b; 0 where b is 0."""
    a, b = frame.stack.pop(), frame.stack[-1]
    frame.stack[-1] = a // b if b else 0


# ### `op_sdiv`


def op_sdiv(frame: Frame) -> None:
    """Replace a, b by a / b, signed, rounded toward zero; 0 where b is 0. -2^255 / -1 is -2^255."""
    a, b = to_signed(frame.stack.pop()), to_signed(frame.stack[-1])
    quotient = abs(a) // abs(b) if b else 0
    frame.stack[-1] = (quotient if (a < 0) == (b < 0) else -quotient) & WORD_MASK


# ### `op_mod`


def op_mod(frame: Frame) -> None:
    """Replace a, b by a modulo b; 0 where b is 0."""
    a, b = frame.stack.pop(), frame.stack[-1]
    frame.stack[-1] = a % b if b else 0


# ### `op_smod`


def op_smod(frame: Frame) -> None:
    """Replace a, b by the signed remainder, which has the sign of a; 0 where b is 0."""
    a, b = to_signed(frame.stack.pop()), to_signed(frame.stack[-1])
    rest = abs(a) % abs(b) if b else 0
    frame.stack[-1] = (-rest if a < 0 else rest) & WORD_MASK


# ### `op_addmod`


def op_addmod(frame: Frame) -> None:
    """Replace a, b, n by (a + b) modulo n, the sum not cut; 0 where n is 0."""
    a, b, n = frame.stack.pop(), frame.stack.pop(), frame.stack[-1]
    frame.stack[-1] = (a + b) % n if n else 0


# ### `op_mulmod`


def op_mulmod(frame: Frame) -> None:
    """Replace a, b, n by (a * b) modulo n, the product not cut; 0 where n is 0."""
    a, b, n = frame.stack.pop(), frame.stack.pop(), frame.stack[-1]
    frame.stack[-1] = a * b % n if n else 0


# ### `op_exp`


def op_exp(frame: Frame) -> None:
    """Replace a, e by a to the power of e modulo 2^256; each byte of e costs gas.

    Raises:
        Halt: the gas does not suffice.
    """
    a, exponent = frame.stack.pop(), frame.stack.pop()
    use_gas(frame, GAS_EXP_BYTE * ((exponent.bit_length() + 7) // 8))
    frame.stack.append(pow(a, exponent, 1 << 256))


# ### `op_signextend`


def op_signextend(frame: Frame) -> None:
    """Replace n, a by a with its byte n, counted from the lowest, read as the sign of all higher ones."""
    n, a = frame.stack.pop(), frame.stack[-1]
    if n < 31:
        sign = 1 << 8 * n + 7
        frame.stack[-1] = ((a & 2 * sign - 1) ^ sign) - sign & WORD_MASK


# ## Comparisons

# ### `op_lt`


def op_lt(frame: Frame) -> None:
    """Replace a, b by 1 if a < b, else 0."""
    a = frame.stack.pop()
    frame.stack[-1] = int(a < frame.stack[-1])


# ### `op_gt`


def op_gt(frame: Frame) -> None:
    """Replace a, b by 1 if a > b, else 0."""
    a = frame.stack.pop()
    frame.stack[-1] = int(a > frame.stack[-1])


# ### `op_slt`

# Two signed words compare as the words do after their sign bits are turned over.


def op_slt(frame: Frame) -> None:
    """Replace a, b by 1 if a < b as signed words, else 0."""
    a = frame.stack.pop()
    frame.stack[-1] = int(a ^ SIGN_BIT < frame.stack[-1] ^ SIGN_BIT)


# ### `op_sgt`


def op_sgt(frame: Frame) -> None:
    """Replace a, b by 1 if a > b as signed words, else 0."""
    a = frame.stack.pop()
    frame.stack[-1] = int(a ^ SIGN_BIT > frame.stack[-1] ^ SIGN_BIT)


# ### `op_eq`


def op_eq(frame: Frame) -> None:
    """Replace a, b by 1 if they are equal, else 0."""
    a = frame.stack.pop()
    frame.stack[-1] = int(a == frame.stack[-1])


# ### `op_iszero`


def op_iszero(frame: Frame) -> None:
    """Replace a by 1 if it is 0, else by 0."""
    frame.stack[-1] = int(frame.stack[-1] == 0)


# ## Bits

# ### `op_and`


def op_and(frame: Frame) -> None:
    """Replace a, b by the bits that both have."""
    a = frame.stack.pop()
    frame.stack[-1] = a & frame.stack[-1]


# ### `op_or`


def op_or(frame: Frame) -> None:
    """Replace a, b by the bits that either has."""
    a = frame.stack.pop()
    frame.stack[-1] = a | frame.stack[-1]


# ### `op_xor`


def op_xor(frame: Frame) -> None:
    """Replace a, b by the bits that one of them has."""
    a = frame.stack.pop()
    frame.stack[-1] = a ^ frame.stack[-1]


# ### `op_not`


def op_not(frame: Frame) -> None:
    """Turn every bit over."""
    frame.stack[-1] ^= WORD_MASK


# ### `op_byte`


def op_byte(frame: Frame) -> None:
    """Replace n, a by byte n of a, counted from the highest; 0 from 32 on."""
    n, a = frame.stack.pop(), frame.stack[-1]
    frame.stack[-1] = a >> 8 * (31 - n) & 0xFF if n < 32 else 0


# ### `op_shl`

# Shifts by 256 and more leave nothing, and are never carried out: n may be 2^256 - 1.


def op_shl(frame: Frame) -> None:
    """Replace n, a by a * 2^n modulo 2^256."""
    n, a = frame.stack.pop(), frame.stack[-1]
    frame.stack[-1] = a << n & WORD_MASK if n < 256 else 0


# ### `op_shr`


def op_shr(frame: Frame) -> None:
    """Replace n, a by a // 2^n."""
    n, a = frame.stack.pop(), frame.stack[-1]
    frame.stack[-1] = a >> n if n < 256 else 0


# ### `op_sar`


def op_sar(frame: Frame) -> None:
    """Replace n, a by a // 2^n of the signed word, rounded toward minus infinity."""
    n, a = frame.stack.pop(), to_signed(frame.stack[-1])
    frame.stack[-1] = a >> min(n, 256) & WORD_MASK


# ## Keccak

# ### `op_keccak256`


def op_keccak256(frame: Frame) -> None:
    """Replace offset, size by the Keccak-256 of that memory.

    Raises:
        Halt: the gas does not suffice.
    """
    offset, size = frame.stack.pop(), frame.stack.pop()
    use_gas(frame, GAS_HASH_WORD * count_words(size))
    use_memory(frame, offset, size)
    frame.stack.append(int.from_bytes(keccak256(read_memory(frame, offset, size)), "big"))


# ```pycon
# >>> from poai_spec.execution.arithmetic import op_sar, op_sdiv
# >>> from poai_spec.execution.evm import Frame, to_signed
# >>> def compute(operation, *words):
# ...     frame = Frame(None, None, bytes(20), bytes(20), 0, None, b"", 100, stack=[w % 2**256 for w in reversed(words)])
# ...     operation(frame)
# ...     return to_signed(frame.stack[0])
# >>> compute(op_sdiv, -7, 2), compute(op_sar, 1, -7)  # toward zero, toward minus infinity
# (-3, -4)
# >>> compute(op_sdiv, -(2**255), -1) == -(2**255)
# True


# ## Rationale

# - **The stack is checked before an instruction runs**, from the numbers in the table of the page
#   [interpreter](interpreter.md), so that no instruction here needs to look.
