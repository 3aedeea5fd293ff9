# # Execution  [generated from specs/execution/execution.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# What a transaction does to the world: it is checked, pays for its gas, runs, gets left-over gas back, and the miner is paid.

# ```text
# sender  -- gas * price, value -->  [ frames run ]  -- left-over gas -->  sender
#                                                    -- used gas * tip -->  miner
#                                                    -- used gas * base fee --> burned



from dataclasses import dataclass

from poai_spec.execution.calls import compute_contract_address
from poai_spec.execution.evm import NO_INPUT, Environment, Frame, Input
from poai_spec.execution.gas import MAX_INIT_BYTES, REFUND_SHARE, compute_intrinsic_gas
from poai_spec.execution.interpreter import run_call
from poai_spec.basics.notation import Address, Invalid, Wei
from poai_spec.execution.precompiles import PRECOMPILES
from poai_spec.execution.state import EMPTY_CODE_HASH
from poai_spec.execution.transaction import MAX_U64, Transaction
from poai_spec.execution.world import Log, World


# ## Types

# ### `Outcome`


@dataclass(frozen=True)
class Outcome:
    """What a transaction came to.

    Attributes:
        gas_used: paid for.
        success: whether what it did stays.
        output: of its frame.
        logs: events; none where it failed.
        contract: the new contract's address; empty where it makes none.
        halted: why its frame halted, for people; empty if it did not.
    """

    gas_used: int
    success: bool
    output: bytes
    logs: tuple[Log, ...]
    contract: Address
    halted: str


# ## Checks

# They are made in this order, and each against the world as the transactions before have left it.

# ### `get_intrinsic_gas`


def get_intrinsic_gas(tx: Transaction) -> int:
    """Return what a transaction costs before any code runs."""
    slots = sum(len(slots) for _, slots in tx.access_list)
    return compute_intrinsic_gas(tx.data, creates=not tx.to, addresses=len(tx.access_list), slots=slots)


# ### `check_transaction`


def check_transaction(tx: Transaction, base_fee: Wei, gas_left: int) -> None:
    """Refuse a transaction that no account could send in this block.

    Args:
        tx: the transaction.
        base_fee: of the block.
        gas_left: of the block, after the transactions before.

    Raises:
        Invalid: `execution/gas-limit`, `execution/fees`, `execution/base-fee`, `execution/init-code` or
            `execution/intrinsic-gas`.
    """
    if tx.gas > gas_left:
        raise Invalid("execution/gas-limit", f"{tx.gas} gas, the block has {gas_left} left")
    if tx.max_priority_fee > tx.max_fee:
        raise Invalid("execution/fees", f"a tip of {tx.max_priority_fee} above the highest fee {tx.max_fee}")
    if tx.max_fee < base_fee:
        raise Invalid("execution/base-fee", f"at most {tx.max_fee} wei a gas, the block's base fee is {base_fee}")
    if not tx.to and len(tx.data) > MAX_INIT_BYTES:
        raise Invalid("execution/init-code", f"{len(tx.data)} bytes of init code, {MAX_INIT_BYTES} at most")
    if tx.gas < get_intrinsic_gas(tx):
        raise Invalid("execution/intrinsic-gas", f"{tx.gas} gas, it costs {get_intrinsic_gas(tx)} before it runs")


# ### `check_sender`


def check_sender(world: World, tx: Transaction, sender: Address) -> None:
    """Refuse a transaction that this account cannot send now.

    Raises:
        Invalid: `execution/nonce`, `execution/nonce-end`, `execution/sender-code` or `execution/balance`.
    """
    account = world.get_account(sender)
    if tx.nonce != account.nonce:
        raise Invalid("execution/nonce", f"nonce {tx.nonce}, the account's is {account.nonce}")
    if account.nonce == MAX_U64:
        raise Invalid("execution/nonce-end", "the account's nonce cannot be counted up")
    if account.code_hash != EMPTY_CODE_HASH:
        raise Invalid("execution/sender-code", f"{sender.hex()} is a contract and signs nothing")
    if account.balance < tx.gas * tx.max_fee + tx.value:
        raise Invalid("execution/balance", f"{account.balance} wei, up to {tx.gas * tx.max_fee + tx.value} are needed")


# ## Running

# ### `compute_gas_price`


def compute_gas_price(tx: Transaction, base_fee: Wei) -> Wei:
    """Return what a transaction pays a gas: the base fee and its tip, at most its highest fee (EIP-1559)."""
    return min(tx.max_fee, base_fee + tx.max_priority_fee)


# ### `make_frame`

# The sender, the callee, the miner, the precompiles and the access list are warm from the start (EIP-2929, EIP-3651).


def make_frame(world: World, environment: Environment, tx: Transaction) -> Frame:
    """Return the first frame of a transaction whose sender has paid and been counted."""
    sender = environment.origin
    address = tx.to or compute_contract_address(sender, tx.nonce)
    for warm in (sender, address, environment.miner, *PRECOMPILES):
        world.touch(warm)
    for listed, slots in tx.access_list:
        world.touch(listed)
        for slot in slots:
            world.touch((listed, slot))
    return Frame(
        world, environment, address=address, caller=sender, value=tx.value, gas=tx.gas - get_intrinsic_gas(tx),
        data=Input(tx.data, 0, len(tx.data)) if tx.to else NO_INPUT, code=world.get_code(address) if tx.to else tx.data,
        creates=not tx.to, code_address=tx.to,
    )  # fmt: skip


# ### `process_transaction`


def process_transaction(world: World, environment: Environment, tx: Transaction, gas_left: int) -> Outcome:
    """Check a transaction, run it, and settle its costs.

    Args:
        world: changed in place; only if the transaction is refused it stays as it was.
        environment: of the block, with the sender as `origin` and the transaction's gas price.
        tx: the transaction.
        gas_left: of the block, after the transactions before.

    Raises:
        Invalid: `execution/...`.
    """
    check_transaction(tx, environment.base_fee, gas_left)
    check_sender(world, tx, environment.origin)
    world.add_balance(environment.origin, -tx.gas * environment.gas_price)
    world.increment_nonce(environment.origin)
    frame = make_frame(world, environment, tx)
    run_call(frame)
    used = tx.gas - frame.gas
    used -= 0 if frame.reverted else min(world.refund, used // REFUND_SHARE)
    world.add_balance(environment.origin, (tx.gas - used) * environment.gas_price)
    world.add_balance(environment.miner, used * (environment.gas_price - environment.base_fee))
    contract = frame.address if frame.creates else b""
    outcome = Outcome(used, not frame.reverted, frame.output, tuple(world.logs), contract, frame.halted)
    world.end_transaction()
    return outcome


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `execution/gas-limit` | Invalid | more gas than the block has left |
# | `execution/fees` | Invalid | a tip above the highest fee |
# | `execution/base-fee` | Invalid | the highest fee is below the block's base fee |
# | `execution/init-code` | Invalid | init code longer than 49,152 bytes |
# | `execution/intrinsic-gas` | Invalid | less gas than it costs before it runs |
# | `execution/nonce` | Invalid | not the sender's next nonce |
# | `execution/nonce-end` | Invalid | the sender's nonce is 2^64 - 1 |
# | `execution/sender-code` | Invalid | the sender is a contract (EIP-3607) |
# | `execution/balance` | Invalid | the sender cannot pay gas and value |

# ## Deviations from Ethereum

# The rules are those of Ethereum's Cancun, but for these:

# | what | here | why |
# | --- | --- | --- |
# | transactions of type 3, `BLOBHASH`, `BLOBBASEFEE` | refused; no instructions | there is no blob market |
# | withdrawals, the beacon root's contract | none | there is no beacon chain |
# | precompiles 6 to 10 | fail and take their gas | pairings would take minutes (page [precompiles](precompiles.md)) |
# | transactions of type 0 without a chain | refused | they could be replayed on any network |

# ## Rationale

# - **The base fee is burned**, so that a miner gains nothing by filling his own blocks.
# - **A failed transaction pays.** Its nonce counts and its gas is gone, else it could be sent for ever.
