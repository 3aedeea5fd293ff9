# # World  [generated from specs/world.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# What transactions read and change: accounts, storage, code. A `World` lies over the state that a block begins with, keeps
# what changes, and can go back to any earlier moment: a call that fails leaves no trace. The page [state](state.md) has the
# accounts and their root.


from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeAlias

from poai_spec.notation import Address, Hash32, Wei, keccak256
from poai_spec.state import EMPTY_CODE_HASH, Account
from poai_spec.trie import EMPTY_TRIE_ROOT


# ## Types


Slot: TypeAlias = int  # place in an account's storage, 0 .. 2^256 - 1
Word: TypeAlias = int  # what a slot or a place of the stack holds, 0 .. 2^256 - 1


# ### `StateReader`


class StateReader(Protocol):
    """The state before a block. Whatever keeps it, a dict or a database, answers these three."""

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


# ## The world

# ### `is_empty`


def is_empty(account: Account) -> bool:
    """Say whether an account is the same as none: no nonce, no balance, no code (EIP-161)."""
    return account.nonce == 0 and account.balance == 0 and account.code_hash == EMPTY_CODE_HASH


# Every change writes one place of one of the dicts and notes what was there; going back replays the notes. The fields
# below `codes` belong to one transaction.

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

    def set_code(self, address: Address, code: bytes) -> None:
        """Give an account code."""
        code_hash = keccak256(code)
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

    def is_warm(self, key: Address | tuple[Address, Slot]) -> bool:
        """Say whether an address or a slot was touched in this transaction; it is, from now on."""
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
        for address in self.destroyed:
            self.accounts[address] = Account()
            self.slots |= dict.fromkeys([key for key in self.slots if key[0] == address], 0)
        self.settled |= self.slots
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

# - **No empty accounts.** An account with nonce 0, balance 0 and no code is the same as none (EIP-161): networks begin
#   without one, zero amounts touch nothing, and `Account()` means that an account is gone.
# - **Only contracts of the same transaction can be removed** (EIP-6780), and a contract is only created where no storage is
#   (EIP-7610). So the storage that goes with an account lies in `slots` as a whole.
