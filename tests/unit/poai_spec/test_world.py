"""The page `world`: a state machine beside plain copies, and the end of transactions."""

import copy
import time
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poai_spec.basics.notation import keccak256
from poai_spec.execution.state import EMPTY_CODE_HASH, Account
from poai_spec.execution.world import Log, Mark, World, find_jumps, is_empty
from tests.harness.evm import Accounts

PLACES = [bytes([n]) * 20 for n in range(3)]
CODES = [b"", b"\x00", b"\x5b\x60\x5b"]
places, slots, words = st.sampled_from(PLACES), st.integers(0, 2), st.integers(0, 3)


@dataclass
class Plain:
    """What a world holds, without a journal: copied as a whole at each mark."""

    nonces: dict[bytes, int] = field(default_factory=dict)
    balances: dict[bytes, int] = field(default_factory=dict)
    codes: dict[bytes, bytes] = field(default_factory=dict)
    slots: dict[tuple[bytes, int], int] = field(default_factory=dict)
    transient: dict[tuple[bytes, int], int] = field(default_factory=dict)
    warm: set[Any] = field(default_factory=set)
    logs: list[Log] = field(default_factory=list)
    refund: int = 0


class Worlds(RuleBasedStateMachine):
    """A `World` does what whole copies do."""

    @initialize()
    def begin(self) -> None:
        start = Plain(nonces={PLACES[0]: 5}, balances={PLACES[0]: 100}, slots={(PLACES[0], 0): 2})
        self.world = World(Accounts({PLACES[0]: Account(5, 100)}, {(PLACES[0], 0): 2}))
        self.plain, self.before = start, copy.deepcopy(start)
        self.marks: list[tuple[Mark, Plain]] = []

    @rule()
    def mark(self) -> None:
        self.marks.append((self.world.mark(), copy.deepcopy(self.plain)))

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.marks) - 1))
        mark, self.plain = self.marks[at]
        self.world.revert(mark)
        del self.marks[at:]

    @rule(address=places, amount=words)
    def add_balance(self, address: bytes, amount: int) -> None:
        self.world.add_balance(address, amount)
        self.plain.balances[address] = self.plain.balances.get(address, 0) + amount

    @rule(sender=places, recipient=places)
    def move_all(self, sender: bytes, recipient: bytes) -> None:
        amount = self.plain.balances.get(sender, 0)
        self.world.move(sender, recipient, amount)
        self.plain.balances[sender] = 0
        self.plain.balances[recipient] = self.plain.balances.get(recipient, 0) + amount

    @rule(address=places)
    def count(self, address: bytes) -> None:
        self.world.increment_nonce(address)
        self.plain.nonces[address] = self.plain.nonces.get(address, 0) + 1

    @rule(address=places, code=st.sampled_from(CODES))
    def set_code(self, address: bytes, code: bytes) -> None:
        self.world.set_code(address, code)
        self.plain.codes[address] = code

    @rule(address=places, slot=slots, word=words)
    def store(self, address: bytes, slot: int, word: int) -> None:
        self.world.set_slot(address, slot, word)
        self.plain.slots[address, slot] = word

    @rule(address=places, slot=slots, word=words)
    def store_transient(self, address: bytes, slot: int, word: int) -> None:
        self.world.write(self.world.transient, (address, slot), word)
        self.plain.transient[address, slot] = word

    @rule(address=places, slot=st.none() | slots)
    def touch(self, address: bytes, slot: int | None) -> None:
        key = address if slot is None else (address, slot)
        assert self.world.touch(key) == (key in self.plain.warm)
        self.plain.warm.add(key)

    @rule(address=places, refund=words)
    def announce(self, address: bytes, refund: int) -> None:
        self.world.logs.append(Log(address, (), b""))
        self.plain.logs.append(Log(address, (), b""))
        self.world.refund += refund
        self.plain.refund += refund

    @rule()
    def end(self) -> None:
        self.world.end_transaction()
        self.plain.transient, self.plain.warm, self.plain.logs, self.plain.refund = {}, set(), [], 0
        self.before, self.marks = copy.deepcopy(self.plain), []

    @invariant()
    def same(self) -> None:
        plain, world = self.plain, self.world
        for address in PLACES:
            account = world.get_account(address)
            assert (account.nonce, account.balance) == (plain.nonces.get(address, 0), plain.balances.get(address, 0))
            code = plain.codes.get(address, b"")
            assert world.get_code(address) == code
            assert account.code_hash == (keccak256(code) if code else EMPTY_CODE_HASH)
            assert world.get_jumps(address) == find_jumps(code)
            assert is_empty(account) == (account.nonce == account.balance == 0 and not code)
            for slot in range(3):
                assert world.get_slot(address, slot) == plain.slots.get((address, slot), 0)
                assert world.get_original(address, slot) == self.before.slots.get((address, slot), 0)
        assert {key: word for key, word in world.transient.items() if word} == {
            key: word for key, word in plain.transient.items() if word
        }
        assert (set(world.warm), world.logs, world.refund) == (plain.warm, plain.logs, plain.refund)


Worlds.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWorlds = Worlds.TestCase


def test_what_destroyed_itself_goes_with_its_storage() -> None:
    gone, stays = PLACES[1], PLACES[2]
    world = World(Accounts())
    for address in (gone, stays):
        world.set_code(address, b"\x00")
        world.set_slot(address, 1, 7)
        world.add_balance(address, 3)
    world.write(world.destroyed, gone, True)
    world.end_transaction()
    changes = world.get_changes()
    assert changes.accounts == {gone: Account(), stays: Account(0, 3, code_hash=keccak256(b"\x00"))}
    assert changes.storage == {gone: {1: 0}, stays: {1: 7}}
    assert changes.codes == {keccak256(b"\x00"): b"\x00"}
    assert (world.get_slot(gone, 1), world.get_slot(stays, 1)) == (0, 7)


def test_the_end_of_a_transaction_takes_one_pass() -> None:
    """Contracts destroyed times slots stored would be 10^8 steps, 10 s at least."""
    world = World(Accounts())
    for n in range(10_000):
        address = n.to_bytes(20, "big")
        world.set_slot(address, 1, 1)
        world.write(world.destroyed, address, True)
    started = time.process_time()
    world.end_transaction()
    assert time.process_time() - started < 2
    assert set(world.settled.values()) == {0}


def test_no_code_is_no_new_code() -> None:
    world = World(Accounts())
    world.set_code(PLACES[0], b"")
    assert world.get_changes().codes == {}


def test_jumps_are_looked_for_once_a_code() -> None:
    asked: list[bytes] = []

    class Counting(Accounts):
        def get_code(self, code_hash: bytes) -> bytes:
            asked.append(code_hash)
            return super().get_code(code_hash)

    code_hash = keccak256(b"\x5b")
    world = World(Counting({a: Account(1, code_hash=code_hash) for a in PLACES}, {}, {code_hash: b"\x5b"}))
    assert [world.get_jumps(address) for address in PLACES] == [b"\x01"] * 3
    assert len(asked) == 1
    world.end_transaction()
    assert world.get_jumps(PLACES[0]) == b"\x01" and len(asked) == 1
