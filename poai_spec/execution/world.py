# # World  [generated from specs/execution/world.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# What transactions read and change: accounts, storage, code. A `World` lies over the state that a block begins with, keeps
# what changes, and can go back to any earlier moment: a call that fails leaves no trace. The page [state](state.md) has the
# accounts and their root.


from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeAlias

from poai_spec.basics.notation import Address, Hash32, Wei, keccak256
from poai_spec.execution.state import EMPTY_CODE_HASH, Account
from poai_spec.execution.trie import EMPTY_TRIE_ROOT


# ## Types


Slot: TypeAlias = int  # place in an account's storage, 0 .. 2^256 - 1
Word: TypeAlias = int  # what a slot or a place of the stack holds, 0 .. 2^256 - 1


# ### `StateReader`


class StateReader(Protocol):
    """The state before a block. Whatever keeps it, a dict or a database, answers these three.

    A world asks again and again for the same place, for as little as 100 gas. Whoever reads from a disk keeps what was
    read until the block ends.
    """

    def get_account(self, address: Address) -> Account:
        """Return an account; the default one where nothing is."""
        ...

    def get_slot(self, address: Address, slot: Slot) -> Word:
        """Return what a slot holds; 0 where nothing was stored."""
        ...

    def get_code(self, code_hash: Hash32) -> bytes:
        """Return the code with this hash, which an account of the state has."""
        ...


# ### `Log`


class Log(NamedTuple):
    """An event that a contract announces.

    Attributes:
        address: of the contract.
        topics: at most four, 32 bytes each.
        data: any bytes.
    """

    address: Address
    topics: tuple[Hash32, ...]
    data: bytes


# ### `Mark`


class Mark(NamedTuple):
    """A moment to go back to: lengths of the journal and of the logs, and the refund then."""

    journal: int
    logs: int
    refund: int


# ### `Changes`


@dataclass(frozen=True)
class Changes:
    """What a block changes, as the new values.

    Attributes:
        accounts: without their storage roots, which follow from `storage`; an account equal to `Account()` is gone.
        storage: by address; 0 for a slot that is gone.
        codes: new code by hash.
    """

    accounts: Mapping[Address, Account]
    storage: Mapping[Address, Mapping[Slot, Word]]
    codes: Mapping[Hash32, bytes]


# ## Functions

# ### `find_jumps`

# Code is a string of instructions of one byte. `PUSH1` .. `PUSH32` (0x60 .. 0x7f) are followed by a constant of 1 .. 32
# bytes, which is no instruction: a `JUMPDEST` (0x5b) there cannot be jumped to. In `60 5b 5b`, only the last byte can.


def find_jumps(code: bytes) -> bytes:
    """Return a byte for each of a code: 1 where a `JUMPDEST` is, else 0. At most 49,152 bytes are looked through."""
    jumps, place = bytearray(len(code)), 0
    while place < len(code):
        instruction = code[place]
        if instruction == 0x5B:
            jumps[place] = 1
        elif 0x60 <= instruction <= 0x7F:
            place += instruction - 0x5F
        place += 1
    return bytes(jumps)


# ### `is_empty`


def is_empty(account: Account) -> bool:
    """Say whether an account is the same as none: no nonce, no balance, no code (EIP-161)."""
    return account.nonce == 0 and account.balance == 0 and account.code_hash == EMPTY_CODE_HASH


# ## The world

# Every change writes one place of one of the dicts and notes what was there; going back replays the notes. The fields
# below `jumps` belong to one transaction.

# ### `World`


@dataclass(eq=False)
class World:
    """The state as the transactions of one block see it and change it.

    Attributes:
        reader: the state before the block.
        accounts: changed accounts.
        settled: storage that earlier transactions of the block changed, by address and slot.
        slots: storage that this transaction changed.
        codes: new code by hash.
        jumps: what `find_jumps` gave for codes that ran, by hash, so that each is looked through once a block.
        transient: transient storage (EIP-1153).
        warm: addresses, and pairs of address and slot, that were touched (EIP-2929).
        created: addresses of this transaction's new contracts.
        destroyed: addresses that `SELFDESTRUCT` removes at the end.
        logs: announced events.
        refund: gas to give back at the end, before its cap.
        journal: (dict, key, value before), the newest last.
    """

    reader: StateReader
    accounts: dict[Address, Account] = field(default_factory=dict)
    settled: dict[tuple[Address, Slot], Word] = field(default_factory=dict)
    slots: dict[tuple[Address, Slot], Word] = field(default_factory=dict)
    codes: dict[Hash32, bytes] = field(default_factory=dict)
    jumps: dict[Hash32, bytes] = field(default_factory=dict)
    transient: dict[tuple[Address, Slot], Word] = field(default_factory=dict)
    warm: dict[Address | tuple[Address, Slot], bool] = field(default_factory=dict)
    created: dict[Address, bool] = field(default_factory=dict)
    destroyed: dict[Address, bool] = field(default_factory=dict)
    logs: list[Log] = field(default_factory=list)
    refund: int = 0
    journal: list[tuple[dict[Any, Any], Any, Any]] = field(default_factory=list)

    def write(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Change one place of one of the dicts above, and note what was there; None stands for nothing."""
        self.journal.append((table, key, table.get(key)))
        table[key] = value

    def mark(self) -> Mark:
        """Return this moment."""
        return Mark(len(self.journal), len(self.logs), self.refund)

    def revert(self, mark: Mark) -> None:
        """Go back to a moment: everything since then is undone."""
        while len(self.journal) > mark.journal:
            table, key, before = self.journal.pop()
            if before is None:
                del table[key]
            else:
                table[key] = before
        del self.logs[mark.logs :]
        self.refund = mark.refund

    def get_account(self, address: Address) -> Account:
        """Return an account as it is now; its storage root is that before the block."""
        found = self.accounts.get(address)
        return self.reader.get_account(address) if found is None else found

    def set_account(self, address: Address, account: Account) -> None:
        """Change an account."""
        self.write(self.accounts, address, account)

    def add_balance(self, address: Address, amount: Wei) -> None:
        """Add to a balance; a zero amount touches no account.

        The total of all balances stays far below 2^256, so no balance can overflow.
        """
        if amount:
            account = self.get_account(address)
            self.set_account(address, replace(account, balance=account.balance + amount))

    def move(self, sender: Address, recipient: Address, amount: Wei) -> None:
        """Move an amount that the sender has."""
        self.add_balance(sender, -amount)
        self.add_balance(recipient, amount)

    def increment_nonce(self, address: Address) -> None:
        """Count one more transaction or contract of an account."""
        account = self.get_account(address)
        self.set_account(address, replace(account, nonce=account.nonce + 1))

    def get_code(self, address: Address) -> bytes:
        """Return the code of an account."""
        code_hash = self.get_account(address).code_hash
        if code_hash == EMPTY_CODE_HASH:
            return b""
        return self.codes[code_hash] if code_hash in self.codes else self.reader.get_code(code_hash)

    def get_jumps(self, address: Address) -> bytes:
        """Return where the code of an account can be jumped to, see `find_jumps`."""
        code_hash = self.get_account(address).code_hash
        if code_hash not in self.jumps:
            self.jumps[code_hash] = find_jumps(self.get_code(address))
        return self.jumps[code_hash]

    def set_code(self, address: Address, code: bytes) -> None:
        """Give an account code."""
        code_hash = keccak256(code)
        if code:
            self.write(self.codes, code_hash, code)
        self.set_account(address, replace(self.get_account(address), code_hash=code_hash))

    def get_original(self, address: Address, slot: Slot) -> Word:
        """Return what a slot held before this transaction."""
        found = self.settled.get((address, slot))
        return self.reader.get_slot(address, slot) if found is None else found

    def get_slot(self, address: Address, slot: Slot) -> Word:
        """Return what a slot holds now."""
        found = self.slots.get((address, slot))
        return self.get_original(address, slot) if found is None else found

    def set_slot(self, address: Address, slot: Slot, value: Word) -> None:
        """Store a word."""
        self.write(self.slots, (address, slot), value)

    def touch(self, key: Address | tuple[Address, Slot]) -> bool:
        """Touch an address or a slot; say whether this transaction had touched it before (EIP-2929)."""
        if key in self.warm:
            return True
        self.write(self.warm, key, True)
        return False

    def has_history(self, address: Address) -> bool:
        """Say whether something stands in the way of a new contract (EIP-684, EIP-7610)."""
        account = self.get_account(address)
        used = account.nonce != 0 or account.code_hash != EMPTY_CODE_HASH
        return used or account.storage_root != EMPTY_TRIE_ROOT

    def end_transaction(self) -> None:
        """Remove what destroyed itself, keep what was stored, and forget what belongs to one transaction."""
        self.accounts |= dict.fromkeys(self.destroyed, Account())
        self.settled |= {key: 0 if key[0] in self.destroyed else word for key, word in self.slots.items()}
        for table in (self.slots, self.transient, self.warm, self.created, self.destroyed):
            table.clear()
        self.logs, self.refund = [], 0
        self.journal.clear()

    def get_changes(self) -> Changes:
        """Return what the transactions that have ended changed."""
        storage: dict[Address, dict[Slot, Word]] = {}
        for (address, slot), value in self.settled.items():
            storage.setdefault(address, {})[slot] = value
        return Changes(dict(self.accounts), storage, dict(self.codes))


# ## Rationale

# - **Jumps are found once a block and code**, by the hash of the code. Looking through 24,576 bytes takes a millisecond or two,
#   and a warm call costs 100 gas: without a memory of it, a block could ask for minutes. The memory holds at most a code
#   for each 2,600 gas of a block.

# - **No empty accounts.** An account with nonce 0, balance 0 and no code is the same as none (EIP-161): networks begin
#   without one, zero amounts touch nothing, and `Account()` means that an account is gone.
# - **Only contracts of the same transaction can be removed** (EIP-6780), and a contract is only created where no storage is
#   (EIP-7610). So the storage that goes with an account lies in `slots` as a whole.
