# # Gas  [generated from specs/execution/gas.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# Every step of a contract costs gas, which bounds what a block can make a node do. The numbers are those of Ethereum's
# Cancun; the costs that do not change while an instruction runs stand in the table of the page [interpreter](interpreter.md).
# ## Constants

# | name | gas | for |
# | --- | --- | --- |
# | `GAS_COLD_ACCOUNT`, `GAS_COLD_SLOT`, `GAS_WARM` | 2600, 2100, 100 | the first touch of an account or slot in a transaction, and each later one (EIP-2929) |
# | `GAS_TRANSACTION`, `GAS_CREATION` | 21000, 32000 | a transaction; one more for a new contract |
# | `GAS_ZERO_BYTE`, `GAS_BYTE` | 4, 16 | a byte of a transaction's data (EIP-2028) |
# | `GAS_LISTED_ADDRESS`, `GAS_LISTED_SLOT` | 2400, 1900 | an entry of its access list (EIP-2930) |
# | `GAS_INIT_WORD` | 2 | 32 bytes of a new contract's init code (EIP-3860) |
# | `GAS_CODE_BYTE` | 200 | a byte of the code that it leaves |
# | `GAS_SLOT_SET`, `GAS_SLOT_CHANGE` | 20000, 2900 | storage that was 0, or not, before the transaction (EIP-2200, EIP-2929) |
# | `GAS_STIPEND`, `GAS_CALL_VALUE`, `GAS_NEW_ACCOUNT` | 2300, 9000, 25000 | a call with value: given to the callee, paid by the caller, paid where no account is |
# | `GAS_COPY_WORD`, `GAS_HASH_WORD`, `GAS_EXP_BYTE` | 3, 6, 50 | 32 bytes copied, 32 bytes hashed, a byte of an exponent |
# | `GAS_LOG_TOPIC`, `GAS_LOG_BYTE` | 375, 8 | of a log |
# | `REFUND_SLOT` | 4800 | given back for storage that becomes 0 (EIP-3529) |
# | `REFUND_SHARE` | 5 | at most a fifth of the gas used is given back (EIP-3529) |
# | `STACK_LIMIT`, `CALL_DEPTH` | 1024, 1024 | words on a stack, calls inside calls |
# | `MAX_CODE_BYTES`, `MAX_INIT_BYTES` | 24576, 49152 | of a contract, and of the code that makes one (EIP-170, EIP-3860) |


GAS_COLD_ACCOUNT, GAS_COLD_SLOT, GAS_WARM = 2600, 2100, 100
GAS_TRANSACTION, GAS_CREATION = 21_000, 32_000
GAS_ZERO_BYTE, GAS_BYTE = 4, 16
GAS_LISTED_ADDRESS, GAS_LISTED_SLOT = 2400, 1900
GAS_INIT_WORD, GAS_CODE_BYTE = 2, 200
GAS_SLOT_SET, GAS_SLOT_CHANGE = 20_000, 2900
GAS_STIPEND, GAS_CALL_VALUE, GAS_NEW_ACCOUNT = 2300, 9000, 25_000
GAS_COPY_WORD, GAS_HASH_WORD, GAS_EXP_BYTE = 3, 6, 50
GAS_LOG_TOPIC, GAS_LOG_BYTE = 375, 8
REFUND_SLOT, REFUND_SHARE = 4800, 5
STACK_LIMIT, CALL_DEPTH = 1024, 1024
MAX_CODE_BYTES, MAX_INIT_BYTES = 24_576, 49_152


# ## Functions

# ### `count_words`


def count_words(size: int) -> int:
    """Return how many words of 32 bytes hold `size` bytes."""
    return (size + 31) // 32


# ### `compute_memory_gas`


def compute_memory_gas(words: int) -> int:
    """Return what a memory of so many words costs in all; growing it costs the difference."""
    return 3 * words + words * words // 512


# ### `compute_data_gas`


def compute_data_gas(data: bytes) -> int:
    """Return what the data of a transaction costs."""
    zeros = data.count(0)
    return GAS_ZERO_BYTE * zeros + GAS_BYTE * (len(data) - zeros)


# ### `compute_intrinsic_gas`


def compute_intrinsic_gas(data: bytes, *, creates: bool, addresses: int, slots: int) -> int:
    """Return what a transaction costs before any code runs.

    Args:
        data: of the transaction.
        creates: whether it makes a contract.
        addresses: entries of its access list.
        slots: all slots of these entries.
    """
    creation = GAS_CREATION + GAS_INIT_WORD * count_words(len(data)) if creates else 0
    listed = GAS_LISTED_ADDRESS * addresses + GAS_LISTED_SLOT * slots
    return GAS_TRANSACTION + compute_data_gas(data) + creation + listed


# A frame keeps a 64th of its gas from every call, so a deep chain of calls starves before it is 1024 deep (EIP-150).

# ### `compute_call_gas`


def compute_call_gas(available: int, wanted: int) -> int:
    """Return what a call gets of the gas that is left: what was asked for, at most all but a 64th."""
    return min(wanted, available - available // 64)


# ### `compute_slot_gas`


def compute_slot_gas(original: int, current: int, new: int) -> int:
    """Return what storing a word costs, without the first touch of the slot.

    Args:
        original: what the slot held before the transaction.
        current: what it holds now.
        new: what it shall hold.

    Reference: EIP-2200 as changed by EIP-2929.
    """
    if current == new or current != original:
        return GAS_WARM
    return GAS_SLOT_SET if original == 0 else GAS_SLOT_CHANGE


# ### `compute_slot_refund`


def compute_slot_refund(original: int, current: int, new: int) -> int:
    """Return by how much storing a word changes the refund; it may be negative.

    Reference: EIP-3529. What a slot that returns to `original` did cost comes back, but for a warm touch.
    """
    if current == new:
        return 0
    refund = 0
    if original != 0:
        refund += REFUND_SLOT * ((new == 0) - (current == 0))
    if new == original and current != original:
        refund += (GAS_SLOT_SET if original == 0 else GAS_SLOT_CHANGE) - GAS_WARM
    return refund


# ```pycon
# >>> from poai_spec.execution.gas import compute_intrinsic_gas, compute_memory_gas, compute_slot_gas, compute_slot_refund
# >>> compute_intrinsic_gas(b"", creates=False, addresses=0, slots=0), compute_memory_gas(1024)
# (21000, 5120)
# >>> compute_slot_gas(0, 0, 7), compute_slot_refund(0, 7, 0)  # set a slot, and clear it again
# (20000, 19900)
# >>> compute_slot_gas(5, 5, 0), compute_slot_refund(5, 5, 0)
# (2900, 4800)


# ## Rationale

# - **Ethereum's numbers**, although the costs of this chain's nodes differ: compilers, tools and deployed habits are made
#   for them. What a block may cost a node is bounded by the network's `gas_limit` instead.
