"""Small states and frames for tests of the EVM's pages."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import coincurve

from poai_spec.basics.notation import Address, Hash32, keccak256
from poai_spec.execution.evm import NO_INPUT, Environment, Frame, Input
from poai_spec.execution.interpreter import run_call
from poai_spec.execution.state import Account
from poai_spec.execution.world import Slot, Word, World

SENDER, MINER, CONTRACT, OTHER = (bytes([n]) * 20 for n in (0xA1, 0xB2, 0xC3, 0xD4))


@dataclass
class Accounts:
    """A state in dicts: a `StateReader`."""

    accounts: dict[Address, Account] = field(default_factory=dict)
    slots: dict[tuple[Address, Slot], Word] = field(default_factory=dict)
    codes: dict[Hash32, bytes] = field(default_factory=dict)

    def get_account(self, address: Address) -> Account:
        return self.accounts.get(address, Account())

    def get_slot(self, address: Address, slot: Slot) -> Word:
        return self.slots.get((address, slot), 0)

    def get_code(self, code_hash: Hash32) -> bytes:
        return self.codes[code_hash]


def make_world(codes: Mapping[Address, bytes] | None = None, balance: int = 10**20) -> World:
    """Return a world with a rich sender, and contracts of nonce 1 without money."""
    contracts = {address: Account(1, 0, code_hash=keccak256(code)) for address, code in (codes or {}).items()}
    by_hash = {keccak256(code): code for code in (codes or {}).values()}
    return World(Accounts({SENDER: Account(0, balance), **contracts}, {}, by_hash))


def make_environment(origin: Address = SENDER, gas_price: int = 10, base_fee: int = 7) -> Environment:
    return Environment(
        chain_id=1337, height=300, timestamp=1_000, miner=MINER, gas_limit=30_000_000, base_fee=base_fee,
        randomness=bytes(31) + b"\x05", get_block_hash=lambda height: keccak256(bytes([height % 256])), origin=origin,
        gas_price=gas_price,
    )  # fmt: skip


def run_code(
    code: bytes, data: bytes = b"", *, gas: int = 1_000_000, world: World | None = None, value: int = 0
) -> Frame:
    """Run a code as `CONTRACT`, called by `SENDER`; return the frame that ended."""
    world = world or make_world({CONTRACT: code})
    given = Input(data, 0, len(data)) if data else NO_INPUT
    frame = Frame(world, make_environment(), CONTRACT, SENDER, value, given, code, gas, code_address=CONTRACT)
    run_call(frame)
    return frame


def push(*values: int) -> bytes:
    """Return code that pushes words, the last one on top: `PUSH32` each."""
    return b"".join(b"\x7f" + (value % 2**256).to_bytes(32, "big") for value in values)


def return_top() -> bytes:
    """Return code that returns the top word."""
    return bytes.fromhex("5f5260205ff3")


def make_key(number: int) -> coincurve.PrivateKey:
    return coincurve.PrivateKey(number.to_bytes(32, "big"))


def get_owner(key: coincurve.PrivateKey) -> Address:
    return keccak256(key.public_key.format(compressed=False)[1:])[12:]
