"""The accounts after one block of the tree, with their trie, and how they move to another block.

The page `state` rebuilds the trie for every block; here it is kept, and only the paths of changed accounts are hashed
again. Along a branch each step applies a block's changes; to another branch the way leads back to the fork, block by
block, with the undo records, and up again.
"""

from collections.abc import Callable, Iterable, Mapping

from trie import HexaryTrie

from poai_spec.containers import Header
from poai_spec.notation import Address, Hash32, keccak256
from poai_spec.state import Account, State, check_state_root, encode_account, process_header
from poaid.store import Changes
from poaid.tree import Branch, Entry, find_fork

MAX_RECENT = 1_024
"""Undo records in memory: more than any ordinary reorganisation takes back; older ones are read from the store."""


class Accounts:
    """The accounts after the block `at`.

    Args:
        state: the accounts after `at`.
        at: a replayed block.
        read_changes: gives a block's undo record; None if it is pruned.
    """

    def __init__(self, state: State, at: Entry, read_changes: Callable[[Hash32], Changes | None]) -> None:
        self._read_changes = read_changes
        self._recent: dict[Hash32, Changes] = {}
        self.at = at
        self._reset(state)

    @property
    def state(self) -> State:
        """The accounts after `at`, by address; valid until the next move."""
        return self._state

    @property
    def root(self) -> Hash32:
        """The state root after `at`."""
        return bytes(self._trie.root_hash)

    def compute_changes(self, header: Header) -> Changes:
        """Return what a block on top of `at` does to the accounts.

        Raises:
            Invalid: `state/root`, the header commits to something else.
        """
        touched = {header.core.miner: self._state[header.core.miner]} if header.core.miner in self._state else {}
        after = process_header(touched, header.core)  # version 1 looks at no account but the miner's
        changes = tuple((a, self._state.get(a), account) for a, account in after.items() if touched.get(a) != account)
        self._set((address, account) for address, _, account in changes)
        root = self.root
        self._set((address, before) for address, before, _ in changes)
        if root != header.core.state_root:
            check_state_root({**self._state, **after}, header.core)
            raise AssertionError("the page accepts the root: the kept trie is wrong")
        return changes

    def remember(self, block_hash: Hash32, changes: Changes) -> None:
        """Keep the changes of a block that was accepted."""
        self._recent[block_hash] = changes
        while len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]

    def move_to(self, target: Entry) -> Mapping[Address, Account | None]:
        """Move to another replayed block; return the accounts that this touched, as they are there."""
        fork = find_fork(self.at, target)
        down, up = list(_walk(self.at, fork)), list(reversed(list(_walk(target, fork))))
        records = {entry.hash: self._get_changes(entry.hash) for entry in (*down, *up)}
        if None in records.values():
            return self._rebuild(target)
        touched: dict[Address, Account | None] = {}
        for entry in down:
            touched |= {address: before for address, before, _ in records[entry.hash] or ()}
        for entry in up:
            touched |= {address: after for address, _, after in records[entry.hash] or ()}
        self._set(touched.items())
        self.at = target
        return touched

    def _get_changes(self, block_hash: Hash32) -> Changes | None:
        return self._recent.get(block_hash) or self._read_changes(block_hash)

    def _rebuild(self, target: Entry) -> Mapping[Address, Account | None]:
        """Move below the prune horizon: in version 1 the headers alone give the state."""
        before, after = self.state, dict[Address, Account]()
        for header in list(Branch(target))[1:]:
            after = dict(process_header(after, header.core))
        self._reset(after)
        self.at = target
        return {a: after.get(a) for a in before.keys() | after.keys() if before.get(a) != after.get(a)}

    def _reset(self, state: State) -> None:
        self._state: dict[Address, Account] = {}
        self._trie = HexaryTrie({}, prune=True)
        self._set(state.items())

    def _set(self, accounts: Iterable[tuple[Address, Account | None]]) -> None:
        for address, account in accounts:
            if account is None:
                self._state.pop(address, None)
                self._trie.delete(keccak256(address))  # type: ignore[no-untyped-call]
            else:
                self._state[address] = account
                self._trie[keccak256(address)] = encode_account(account)


def _walk(entry: Entry, end: Entry) -> Iterable[Entry]:
    """Yield a block and its ancestors, without `end`."""
    while entry is not end:
        yield entry
        assert entry.parent is not None, "`end` is an ancestor"
        entry = entry.parent
