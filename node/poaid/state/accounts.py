"""The accounts after one block of the tree, with their trie, and how they move to another block.

The page `state` rebuilds the trie for every block; here it is kept, and only the paths of changed accounts are hashed
again. Along a branch each step applies a block's changes; to another branch the way leads back to the fork, block by
block, with the undo records, and up again.
"""

from collections.abc import Callable, Iterable, Mapping

from trie import HexaryTrie

from poai_spec.basics.containers import Header
from poai_spec.basics.notation import Address, Hash32, Invalid, keccak256
from poai_spec.execution.state import Account, State, encode_account, process_header
from poaid.chain.tree import Branch, Entry, find_fork, walk
from poaid.errors import NodeError
from poaid.store.database import Changes

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
        self._state: dict[Address, Account] = {}
        self._trie = HexaryTrie({}, prune=True)
        self._set(state.items())

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
        touched = _get_touched(self._state, header)
        after = process_header(touched, header.core)
        changes = tuple((a, touched.get(a), account) for a, account in after.items() if touched.get(a) != account)
        self._set((address, account) for address, _, account in changes)
        root = self.root
        self._set((address, before) for address, before, _ in changes)
        if root != header.core.state_root:  # `check_state_root`, without building the trie anew for every forged block
            claimed = header.core.state_root.hex()
            raise Invalid("state/root", f"block {header.core.height} has {claimed}, its chain gives {root.hex()}")
        return changes

    def remember(self, block_hash: Hash32, changes: Changes) -> None:
        """Keep the changes of a block that was accepted."""
        self._recent[block_hash] = changes
        while len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]

    def move_to(self, target: Entry) -> Mapping[Address, Account | None]:
        """Move to another replayed block; return the accounts that this touched, as they are there.

        Raises:
            NodeError: an undo record is damaged: it leads to other accounts than the block's header commits to.
        """
        fork = find_fork(self.at, target)
        down, up = list(walk(self.at, fork)), list(reversed(list(walk(target, fork))))
        records = {entry.hash: self._get_changes(entry.hash) for entry in (*down, *up)}
        touched: dict[Address, Account | None] = {}
        if None in records.values():
            touched = self._find_differences(target)
        else:
            for entry in down:
                touched |= {address: before for address, before, _ in records[entry.hash] or ()}
            for entry in up:
                touched |= {address: after for address, _, after in records[entry.hash] or ()}
        self._set(touched.items())
        self.at = target
        if self.root != target.header.core.state_root:
            raise NodeError(f"a stored undo record on the way to block {target.height} is damaged: restore a copy")
        return touched

    def _get_changes(self, block_hash: Hash32) -> Changes | None:
        recent = self._recent.get(block_hash)
        return self._read_changes(block_hash) if recent is None else recent

    def _find_differences(self, target: Entry) -> dict[Address, Account | None]:
        """Return how the accounts after `target` differ, where records are pruned: headers alone give the state."""
        before, after = self._state, dict[Address, Account]()
        for header in list(Branch(target))[1:]:
            after |= process_header(_get_touched(after, header), header.core)
        return {a: after.get(a) for a in before.keys() | after.keys() if before.get(a) != after.get(a)}

    def _set(self, accounts: Iterable[tuple[Address, Account | None]]) -> None:
        for address, account in accounts:
            if account is None:
                self._state.pop(address, None)
                self._trie.delete(keccak256(address))  # type: ignore[no-untyped-call]
            else:
                self._state[address] = account
                self._trie[keccak256(address)] = encode_account(account)


def _get_touched(state: State, header: Header) -> State:
    """Return what a block looks at: in version 1 its miner's account, if it is there."""
    miner = header.core.miner
    return {miner: state[miner]} if miner in state else {}
