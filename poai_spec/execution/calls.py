# # Calls  [generated from specs/execution/calls.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# The instructions that open another frame, and `SELFDESTRUCT`. Four ways to call:

# | instruction | code of | storage and balance of | caller | value | may change |
# | --- | --- | --- | --- | --- | --- |
# | `CALL` | the callee | the callee | this contract | moves | as this frame |
# | `CALLCODE` | the callee | this contract | this contract | stays | as this frame |
# | `DELEGATECALL` | the callee | this contract | this frame's | this frame's | as this frame |
# | `STATICCALL` | the callee | the callee | this contract | 0 | nothing |


from dataclasses import replace

import rlp

from poai_spec.execution.evm import (
    INIT_CODE_TOO_LONG, NO_INPUT, WRITE_PROTECTED, Frame, Halt, Input, check_writable, read_memory, to_address,
    use_gas, use_memory,
)  # fmt: skip
from poai_spec.execution.gas import (
    CALL_DEPTH, GAS_CALL_VALUE, GAS_COLD_ACCOUNT, GAS_CREATION, GAS_HASH_WORD, GAS_INIT_WORD, GAS_NEW_ACCOUNT,
    GAS_STIPEND, GAS_WARM, MAX_INIT_BYTES, compute_call_gas, count_words,
)  # fmt: skip
from poai_spec.execution.instructions import ENDED, Operation
from poai_spec.basics.notation import Address, Hash32, Wei, keccak256
from poai_spec.execution.world import is_empty


# ## Addresses of contracts

# ### `compute_contract_address`


def compute_contract_address(creator: Address, nonce: int) -> Address:
    """Return where a contract comes to lie that an account makes by a transaction or by `CREATE`.

    Args:
        creator: the account.
        nonce: its nonce before.
    """
    return keccak256(bytes(rlp.encode([creator, nonce])))[12:]


# ### `compute_salted_address`


def compute_salted_address(creator: Address, salt: Hash32, init_code: bytes) -> Address:
    """Return where a contract comes to lie that `CREATE2` makes (EIP-1014)."""
    return keccak256(b"\xff" + creator + salt + keccak256(init_code))[12:]


# ## Calls

# ### `open_call`


def open_call(
    frame: Frame, gas: int, *, address: Address, code_address: Address, value: Wei, **rest: object
) -> Frame | None:
    """Return the frame of a call; None where it fails before it begins, and `gas` comes back.

    Args:
        frame: the caller's; the call's words were taken off its stack.
        gas: for the callee, which the caller has paid.
        address: whose storage and balance the callee works on.
        code_address: whose code runs.
        value: wei that the callee sees.
        rest: other fields of the new frame.
    """
    frame.returned = b""
    moves = rest.get("moves", True)
    poor = moves and frame.world.get_account(frame.address).balance < value
    if poor or frame.depth >= CALL_DEPTH:
        frame.gas += gas
        frame.stack.append(0)
        return None
    fields = {"caller": frame.address, "static": frame.static, **rest}
    return Frame(
        frame.world, frame.environment, address=address, code_address=code_address, value=value, gas=gas,
        code=frame.world.get_code(code_address), depth=frame.depth + 1, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


# ### `prepare_call`

# The words on the stack: gas, address, then value where there is one, offset and size of the input, and of the output.
# All costs but the gas for the callee are taken first, so that a 64th of what is left then stays here.


def prepare_call(frame: Frame, *, with_value: bool) -> tuple[int, Address, Wei, dict[str, object]]:
    """Take a call's words off the stack, and pay for memory and for touching the callee.

    Returns:
        the gas that was asked for, the callee, the value, and the fields of the new frame that follow from memory.

    Raises:
        Halt: the gas does not suffice.
    """
    stack = frame.stack
    wanted, address = stack.pop(), to_address(stack.pop())
    value = stack.pop() if with_value else 0
    offset, size, result_offset, result_size = stack.pop(), stack.pop(), stack.pop(), stack.pop()
    use_memory(frame, offset, size)
    use_memory(frame, result_offset, result_size)
    use_gas(frame, GAS_WARM if frame.world.touch(address) else GAS_COLD_ACCOUNT)
    fields: dict[str, object] = {
        "data": Input(frame.memory, offset, size), "result_offset": result_offset, "result_size": result_size,
    }  # fmt: skip
    return wanted, address, value, fields


# ### `pay_call`


def pay_call(frame: Frame, wanted: int, extra: int = 0) -> int:
    """Take a call's extra cost and the gas for the callee; return the latter.

    Raises:
        Halt: the gas does not suffice for the extra cost.
    """
    use_gas(frame, extra)
    gas = compute_call_gas(frame.gas, wanted)
    use_gas(frame, gas)
    return gas


# ### `op_call`


def op_call(frame: Frame) -> Frame | None:
    """Call an account.

    Raises:
        Halt: the gas does not suffice, or value would move inside a static call.
    """
    wanted, address, value, fields = prepare_call(frame, with_value=True)
    if value and frame.static:
        raise Halt(WRITE_PROTECTED)
    fresh = value and is_empty(frame.world.get_account(address))
    gas = pay_call(frame, wanted, GAS_CALL_VALUE * bool(value) + GAS_NEW_ACCOUNT * bool(fresh))
    gas += GAS_STIPEND * bool(value)
    return open_call(frame, gas, address=address, code_address=address, value=value, **fields)


# ### `op_callcode`


def op_callcode(frame: Frame) -> Frame | None:
    """Run an account's code on this contract's storage, as if called by this contract.

    Raises:
        Halt: the gas does not suffice.
    """
    wanted, code_address, value, fields = prepare_call(frame, with_value=True)
    gas = pay_call(frame, wanted, GAS_CALL_VALUE * bool(value)) + GAS_STIPEND * bool(value)
    return open_call(frame, gas, address=frame.address, code_address=code_address, value=value, **fields)


# ### `op_delegatecall`


def op_delegatecall(frame: Frame) -> Frame | None:
    """Run an account's code as if it were this contract's.

    Raises:
        Halt: the gas does not suffice.
    """
    wanted, code_address, _, fields = prepare_call(frame, with_value=False)
    gas = pay_call(frame, wanted)
    fields |= {"caller": frame.caller, "moves": False}
    return open_call(frame, gas, address=frame.address, code_address=code_address, value=frame.value, **fields)


# ### `op_staticcall`


def op_staticcall(frame: Frame) -> Frame | None:
    """Call an account that may change nothing.

    Raises:
        Halt: the gas does not suffice.
    """
    wanted, address, _, fields = prepare_call(frame, with_value=False)
    gas = pay_call(frame, wanted)
    return open_call(frame, gas, address=address, code_address=address, value=0, **fields | {"static": True})


# ## New contracts

# ### `open_creation`

# The init code runs in the new frame; what it returns becomes the contract's code.


def open_creation(frame: Frame, value: Wei, init_code: bytes, salt: Hash32 | None) -> Frame | None:
    """Return the frame that makes a contract; None where it fails before it begins, and its gas comes back.

    Args:
        frame: the creator's.
        value: wei for the new contract.
        init_code: that runs.
        salt: of `CREATE2`; None for `CREATE`.

    Raises:
        Halt: the gas does not suffice.
    """
    world, creator = frame.world, frame.address
    frame.returned = b""
    account = world.get_account(creator)
    if account.balance < value or account.nonce == 2**64 - 1 or frame.depth >= CALL_DEPTH:
        frame.stack.append(0)
        return None
    gas = compute_call_gas(frame.gas, frame.gas)
    use_gas(frame, gas)
    made = compute_contract_address(creator, account.nonce)
    address = made if salt is None else compute_salted_address(creator, salt, init_code)
    world.increment_nonce(creator)
    world.touch(address)
    return Frame(
        world, frame.environment, address=address, caller=creator, value=value, data=NO_INPUT, code=init_code, gas=gas,
        depth=frame.depth + 1, creates=True,
    )  # fmt: skip


# ### `take_init_code`


def take_init_code(frame: Frame, *, hashed: bool) -> tuple[Wei, bytes]:
    """Take value, offset and size off the stack, and pay for the init code in memory there.

    Raises:
        Halt: the frame is static, the code too long, or the gas does not suffice.
    """
    check_writable(frame)
    value, offset, size = frame.stack.pop(), frame.stack.pop(), frame.stack.pop()
    if size > MAX_INIT_BYTES:
        raise Halt(INIT_CODE_TOO_LONG)
    use_gas(frame, GAS_CREATION + (GAS_INIT_WORD + GAS_HASH_WORD * hashed) * count_words(size))
    use_memory(frame, offset, size)
    return value, read_memory(frame, offset, size)


# ### `op_create`


def op_create(frame: Frame) -> Frame | None:
    """Make a contract at an address that follows from this one's nonce: value, offset, size.

    Raises:
        Halt: the frame is static, the code too long, or the gas does not suffice.
    """
    value, init_code = take_init_code(frame, hashed=False)
    return open_creation(frame, value, init_code, None)


# ### `op_create2`


def op_create2(frame: Frame) -> Frame | None:
    """Make a contract at an address that follows from a salt and its code: value, offset, size, salt.

    Raises:
        Halt: the frame is static, the code too long, or the gas does not suffice.
    """
    value, init_code = take_init_code(frame, hashed=True)
    salt = frame.stack.pop().to_bytes(32, "big")
    return open_creation(frame, value, init_code, salt)


# ## The end of a contract

# ### `op_selfdestruct`

# A contract goes only in the transaction that made it; any other keeps its code and storage, and its balance moves (EIP-6780).


def op_selfdestruct(frame: Frame) -> str:
    """Move the whole balance to an account; a contract of this transaction is removed at its end.

    Raises:
        Halt: the frame is static, or the gas does not suffice.
    """
    check_writable(frame)
    world, heir = frame.world, to_address(frame.stack.pop())
    use_gas(frame, 0 if world.touch(heir) else GAS_COLD_ACCOUNT)
    account = world.get_account(frame.address)
    use_gas(frame, GAS_NEW_ACCOUNT if account.balance and is_empty(world.get_account(heir)) else 0)
    world.move(frame.address, heir, account.balance)
    if frame.address in world.created:
        world.set_account(frame.address, replace(world.get_account(frame.address), balance=0))
        world.write(world.destroyed, frame.address, True)
    return ENDED


# ## Rationale

# - **A contract that destroys itself in favour of itself** keeps its balance, unless it is removed: then the money is gone.
# - **A call that cannot begin** (too little balance, 1024 deep) gives its gas back and leaves no returned data.
