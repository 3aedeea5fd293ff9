"""The chain: the tree of headers, the accounts, and the store, kept in step.

A block passes in two halves, because the forward pass between them runs in another thread: `check_block` applies every
rule but the replay, in the order of the page `block`, and `accept` makes what passed count. Both run on one thread. The
consequences of a verdict are those of `receive_block` on the page `fork-choice`.
"""

from dataclasses import dataclass

from poai_spec.basics.containers import Block
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Hash32, Height, Invalid, Milliseconds, NotYet, SpecError
from poai_spec.basics.parameters import Config
from poai_spec.chain.block import check_contents
from poai_spec.chain.upgrades import Upgrade
from poai_spec.execution.state import State
from poaid.chain.tree import BlockTree, Branch, Entry, find_fork
from poaid.errors import NodeError
from poaid.layout import split_block
from poaid.state.accounts import Accounts
from poaid.store.database import Changes, Database, StoredBlock

NOBODY = b""
"""The peer identity of the node itself."""
MAX_WAY = 4
"""Blocks from the head back to the fork and up to a parent: up to here rule 19, `state/root`, comes before 20 to 22.

Farther away it comes last. Finding the parent's accounts takes as long as the way is, 40 microseconds a block, seconds
for a year of them, and whoever forges may choose it: two light blocks in turn would have the accounts walk to and fro
all day, and one false header on an old block, under a heavy forged branch, would send them there once. Honest forks are
one or two blocks deep. The ways of two blocks together cost what one message costs anyway, 0.3 ms.
"""


@dataclass(frozen=True)
class Checked:
    """A block that passed every rule but the replay.

    Attributes:
        entry: its place in the tree.
        block: the block.
        data: its encoding.
        changes: what it does to the accounts; None where its parent is far away: `accept` finds them.
    """

    entry: Entry
    block: Block
    data: bytes
    changes: Changes | None


@dataclass(frozen=True)
class HeadChange:
    """The chain has another last block.

    Attributes:
        old: the last block before.
        new: the last block now.
        fork: the last block that both chains have.
    """

    old: Entry
    new: Entry
    fork: Entry

    @property
    def depth(self) -> int:
        """How many blocks left the chain: 0 when it only grew."""
        return self.old.height - self.fork.height


class ChainState:
    """All that a node knows of its network's blocks; ready to grow.

    Attributes:
        tree: the headers and the fork choice.
        assumed: blocks that were not replayed, by `--assume-valid`.
    """

    def __init__(self, store: Database, config: Config, now: Milliseconds, upgrades: tuple[Upgrade, ...] = ()) -> None:
        """Load the headers and accounts; nothing is replayed (that is `poaid verify`).

        Raises:
            NodeError: a stored block is damaged or out of place, or the accounts are not the last block's.
        """
        self._store = store
        self.tree = BlockTree(config, now, upgrades)
        self.assumed: dict[Hash32, Height] = {}
        for stored in store.read_headers():
            entry = self.tree.add_stored(stored.data, assumed=stored.assumed)
            if entry.hash != stored.block_hash:
                raise NodeError(f"block {entry.height} in {store.path} is damaged: run `poaid verify`")
            if stored.assumed:
                self.assumed[entry.hash] = entry.height
        if (store.read_head() or self.tree.genesis.hash) != self.head.hash:
            raise NodeError(f"{store.path}: the stored chain does not end at its heaviest block: run `poaid verify`")
        self.accounts = Accounts(store.read_state(), self.head, store.read_changes)
        if self.accounts.root != self.head.header.core.state_root:
            raise NodeError(f"the accounts in {store.path} are not the last block's: run `poaid verify`")

    @property
    def head(self) -> Entry:
        """The last block of the chain."""
        return self.tree.head

    @property
    def headers(self) -> Branch:
        """The chain's headers, genesis first."""
        return Branch(self.head)

    @property
    def state(self) -> State:
        """The accounts after the head."""
        self.accounts.move_to(self.head)
        return self.accounts.state

    def get_block_data(self, entry: Entry) -> bytes | None:
        """Return a replayed block's encoding; None for genesis, and for what is pruned or waits."""
        return self._store.read_block(entry.hash)

    def has_body(self, entry: Entry) -> bool:
        """Tell whether a block is stored whole; genesis needs no storing."""
        return entry is self.tree.genesis or self._store.has_body(entry.hash)

    def get_bodies_from(self) -> Height:
        """Return the lowest height from which every block of the chain is stored whole; 1 unless pruned."""
        return self._store.read_bodies_from()

    def check_block(self, block: Block, data: bytes, peer: bytes) -> Checked | None:
        """Apply every rule but the replay, and but the accounts' where the parent is far from the head (`MAX_WAY`).

        Args:
            block: decoded from `data`.
            data: its encoding.
            peer: who sent it.

        Returns:
            None for a block that was replayed before.

        Raises:
            SpecError: the first rule that it breaks; what follows for the tree has been done.
        """
        entry = self.tree.receive_header(split_block(data)[0], peer)
        if entry is None:
            raise NotYet("fork-choice/unknown-parent", f"{block.header.core.parent_hash.hex()} is not known here")
        try:
            check_contents(block, self.tree.get_rules(entry.height))
        except Invalid:
            self.tree.mark_invalid(entry.hash)
            raise
        if entry.replayed:
            return None
        changes = self._compute_changes(entry) if self._is_near(entry) else None
        self.tree.check_heavy_enough(entry)
        return Checked(entry, block, data, changes)

    def accept(self, checked: Checked, *, assumed: bool = False) -> HeadChange | None:
        """Count a block whose replay was true, and store it with all that it changes.

        Returns:
            How the head changed; None if it stayed, or the block was counted or dropped from the tree in the meantime.

        Raises:
            Invalid: `state/root`, of a block far from the head; it has been marked.
            NodeError: the database cannot be written; nothing of the block is in it, and this chain is of no more use.
        """
        entry, old = checked.entry, self.head
        if entry.replayed or self.tree.entries.get(entry.hash) is not entry:
            return None
        changes = self._compute_changes(entry) if checked.changes is None else checked.changes
        self.accounts.remember(entry.hash, changes)
        self.tree.mark_replayed(entry, assumed=assumed)
        if assumed:
            self.assumed[entry.hash] = entry.height
        stored = StoredBlock(entry.hash, entry.height, checked.data, changes, assumed)
        if self.head is old:
            self._store.commit([stored], old.height, (), {})
            return None
        self.accounts.move_to(old)
        accounts = self.accounts.move_to(self.head)
        change = HeadChange(old, self.head, find_fork(old, self.head))
        path = [self.head.get_ancestor(height).hash for height in range(change.fork.height + 1, self.head.height + 1)]
        self._store.commit([stored], change.fork.height, path, accounts)
        return change

    def refuse(self, checked: Checked, error: SpecError) -> None:
        """Draw the consequence of a replay that failed; a block that was assumed valid in the meantime stays."""
        if isinstance(error, Invalid) and not checked.entry.replayed:
            self.tree.mark_invalid(checked.entry.hash)

    def append(self, block: Block, now: Milliseconds) -> HeadChange | None:
        """Check a block that this process mined by every rule but the replay, and store it.

        Raises:
            SpecError: the miner is wrong, or another block has become so heavy that this one does not count.
        """
        self.tree.tick(now)
        checked = self.check_block(block, encode(block), NOBODY)
        return None if checked is None else self.accept(checked)

    def prune(self, depth: Height) -> int:
        """Drop bodies and undo records more than `depth` blocks below the head, some at a time; return how many."""
        return self._store.prune(self.head.height - depth) if self.head.height > depth else 0

    def _is_near(self, entry: Entry) -> bool:
        """Tell whether the accounts are soon at a block's parent.

        Raises:
            NotYet: `fork-choice/parent-not-replayed`.
        """
        parent = entry.parent
        assert parent is not None, "genesis is replayed"
        if not parent.replayed:
            raise NotYet("fork-choice/parent-not-replayed", f"parent {parent.hash.hex()} is a header only")
        return self.head.height + parent.height - 2 * find_fork(self.head, parent).height <= MAX_WAY

    def _compute_changes(self, entry: Entry) -> Changes:
        """Return what a block does to the accounts; one that claims anything else is marked."""
        assert entry.parent is not None, "genesis is replayed"
        self.accounts.move_to(entry.parent)
        try:
            return self.accounts.compute_changes(entry.header)
        except Invalid:
            self.tree.mark_invalid(entry.hash)
            raise
