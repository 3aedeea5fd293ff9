"""The tree of headers: the page `fork-choice` for a node that runs for years, with the same verdicts and the same head.

The page copies its store at every event and looks at all of it. Here the store is changed in place, and what the page
counts anew is kept at hand: each peer's waiting headers, the heaviest of all, the replayed tips of most work. A header
costs little more than its checks, with 65,536 that wait as with none. Headers only: bodies, accounts and the replay are
others'.

Exports: `Entry`, `Branch`, `Hashes`, `HeldOrphan`, `BlockTree`, `find_fork`, `walk`.
"""

from abc import abstractmethod
from bisect import bisect_left, insort
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from types import MappingProxyType
from typing import Any, Generic, TypeVar, overload

from poai_spec.basics.containers import Header
from poai_spec.basics.notation import Hash32, Height, Invalid, Malformed, Milliseconds, NotYet, Work, tagged_hash
from poai_spec.basics.parameters import Config
from poai_spec.chain import fork_choice
from poai_spec.chain.header import check_header_alone, make_genesis_header
from poai_spec.chain.networking import compute_locator_heights
from poai_spec.chain.upgrades import Rules, Upgrade, make_rules
from poai_spec.proof.difficulty import compute_work
from poaid.chain.header_check import check_encoded_header
from poaid.errors import NodeError
from poaid.layout import decode_header, encode_header

T = TypeVar("T")

MAX_DECODED = 1_024
"""Decoded headers in memory, 1 MiB: a check reads the last 11 and the ends of a period, of each branch that grows."""
MAX_SINGLE_REMOVALS = 64
"""Removing more entries than this at once, the whole list is filtered: one pass is cheaper than so many moves in it."""

_decode_header = lru_cache(maxsize=MAX_DECODED)(decode_header)


class Entry:
    """A kept header, in its place.

    Attributes:
        hash: the block hash.
        data: the header's encoding.
        parent: the block before; None for genesis.
        height: distance from genesis.
        work: claimed work of the chain that ends here; genesis has 0.
        peer: who sent it; empty for the node itself.
        replayed: whether its work counts; if not, it *waits*.
        assumed: height of the last block up to this one that `--assume-valid` spared the replay; 0 for none.
    """

    __slots__ = ("_children", "_skip", "assumed", "data", "hash", "height", "parent", "peer", "replayed", "work")

    def __init__(self, block_hash: Hash32, data: bytes, parent: "Entry | None", work: Work, peer: bytes) -> None:
        self.hash, self.data, self.parent, self.work, self.peer = block_hash, data, parent, work, peer
        self._children: Entry | set[Entry] | None = None
        self.replayed, self.assumed = False, 0
        self.height: Height = 0 if parent is None else parent.height + 1
        self._skip = self if parent is None else _choose_skip(parent)

    @property
    def header(self) -> Header:
        """The header itself."""
        return _decode_header(self.data)

    @property
    def children(self) -> "Collection[Entry]":
        """The kept blocks on top of it."""
        if isinstance(self._children, Entry):
            return (self._children,)
        return self._children or ()

    def add_child(self, child: "Entry") -> None:
        """Note a block on top; most have one, and a set of one would be a quarter of what a header takes."""
        if self._children is None:
            self._children = child
        elif isinstance(self._children, Entry):
            self._children = {self._children, child}
        else:
            self._children.add(child)

    def remove_child(self, child: "Entry") -> None:
        """Forget a block on top, which was noted."""
        if isinstance(self._children, set):
            self._children.remove(child)
        else:
            assert self._children is child, "only what is there is removed"
            self._children = None

    def get_replayed_ancestor(self) -> "Entry":
        """Return the last block of the chain that ends here whose work counts, in about 3 log2(height) steps."""
        walk = self
        while not walk.replayed:  # as what is below a replayed block is, too
            assert walk.parent is not None, "genesis is replayed"
            walk = walk.parent if walk._skip.replayed else walk._skip
        return walk

    def get_ancestor(self, height: Height) -> "Entry":
        """Return the block at a height of the chain that ends here; takes at most about 3 log2(height) steps.

        Raises:
            IndexError: there is none; heights from 0 to this block's are allowed.
        """
        if not 0 <= height <= self.height:
            raise IndexError(f"the chain of block {self.height} has no block {height}")
        walk = self
        while walk.height > height:
            assert walk.parent is not None, "only genesis has no parent"
            walk = walk._skip if walk._skip.height >= height else walk.parent
        return walk

    def leads_to(self, tip: "Entry") -> bool:
        """Tell whether `tip` is this block or stands on it."""
        return self.height <= tip.height and tip.get_ancestor(self.height) is self


def _choose_skip(parent: Entry) -> Entry:
    """Return the ancestor that a block on top of `parent` keeps a pointer to, besides its parent.

    After two skips of equal length comes one over both, as in a skew-binary number: where a skip leads depends on the
    height alone. Bitcoin Core's `CBlockIndex::BuildSkip` does the same with other lengths and needs twice the steps.
    Reference: E. W. Myers, An applicative random-access stack, Information Processing Letters 17 (1983).
    """
    near = parent._skip
    far = near._skip
    return far if parent.height - near.height == near.height - far.height else parent


def find_fork(a: Entry, b: Entry) -> Entry:
    """Return the last block that the chains ending at `a` and `b` have in common.

    At equal heights skips lead to equal heights, so that both sides can take them where they differ.
    """
    height = min(a.height, b.height)
    a, b = a.get_ancestor(height), b.get_ancestor(height)
    while a is not b:
        if a._skip is not b._skip:
            a, b = a._skip, b._skip
        else:
            assert a.parent is not None, "chains meet at genesis, if not before"
            assert b.parent is not None, "chains meet at genesis, if not before"
            a, b = a.parent, b.parent
    return a


def walk(entry: Entry, end: Entry) -> Iterator[Entry]:
    """Yield a block and its ancestors, without `end`, which is one of them."""
    while entry is not end:
        yield entry
        assert entry.parent is not None, "`end` is an ancestor"
        entry = entry.parent


class _Ancestors(Sequence[T], Generic[T]):
    """Something of each block of a chain, genesis first, looked up on demand."""

    __slots__ = ("tip",)

    def __init__(self, tip: Entry) -> None:
        self.tip = tip

    @staticmethod
    @abstractmethod
    def _read(entry: Entry) -> T: ...

    def __len__(self) -> int:
        return self.tip.height + 1

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[height] for height in range(*index.indices(len(self)))]
        return self._read(self.tip.get_ancestor(index + len(self) if index < 0 else index))

    def __iter__(self) -> Iterator[T]:
        chain, entry = [], self.tip
        while entry.parent is not None:
            chain.append(entry)
            entry = entry.parent
        yield self._read(entry)
        yield from map(self._read, reversed(chain))


class Branch(_Ancestors[Header]):
    """The headers from genesis to `tip`: what the pages call a chain, for the block on top of `tip`."""

    _read = staticmethod(lambda entry: entry.header)


class Hashes(_Ancestors[Hash32]):
    """Their block hashes."""

    _read = staticmethod(lambda entry: entry.hash)


@dataclass(frozen=True)
class HeldOrphan:
    """A header whose parent is not known.

    Attributes:
        data: its encoding.
        parent_hash: whose block it waits for.
        peer: who sent it.
    """

    data: bytes
    parent_hash: Hash32
    peer: bytes


class _Sorted:
    """Entries in the order of a key, in a list: of 65,536 a search looks at 16, and a change moves 512 KiB at most."""

    def __init__(self, key: Callable[[Entry], Any]) -> None:
        self._key = key
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last(self) -> Entry:
        """The entry of the greatest key; there must be one."""
        return self._entries[-1]

    def iterate_down(self) -> Iterator[Entry]:
        """Yield all from the greatest key on; they must not change meanwhile."""
        return reversed(self._entries)

    def add(self, entry: Entry) -> None:
        insort(self._entries, entry, key=self._key)

    def remove(self, gone: Collection[Entry]) -> None:
        if len(gone) > MAX_SINGLE_REMOVALS:
            kept = set(gone)
            self._entries = [entry for entry in self._entries if entry not in kept]
            return
        for entry in gone:
            index = bisect_left(self._entries, self._key(entry), key=self._key)
            assert self._entries[index] is entry, "only what is there is removed"
            del self._entries[index]


class _Share(_Sorted):
    """The waiting headers of one peer, by height and hash."""

    def __init__(self) -> None:
        super().__init__(lambda entry: (entry.height, entry.hash))
        self._spare: Entry | None = None
        self._is_spare_known = False

    def add(self, entry: Entry) -> None:
        super().add(entry)
        self._is_spare_known = False

    def remove(self, gone: Collection[Entry]) -> None:
        super().remove(gone)
        self._is_spare_known = False

    def rank(self, entry: Entry) -> tuple[int, Height, Hash32]:
        """Return what decides which header gives room: the greatest does."""
        return len(self), entry.height, entry.hash

    def find_outside(self, tip: Entry) -> Entry | None:
        """Return the last of these that is neither `tip` nor an ancestor of it."""
        return self._get_spare() if self.last.leads_to(tip) else self.last

    def _get_spare(self) -> Entry | None:
        """Return the last of these on which the last one does not stand.

        It answers for every tip that stands on the last one. It is searched once between two changes, since a peer may
        offer header after header on a branch of thousands, and be refused each.
        """
        if not self._is_spare_known:
            pairs = zip(reversed(self._entries[:-1]), reversed(self._entries), strict=False)
            self._spare = next((lower for lower, upper in pairs if not lower.leads_to(upper)), None)
            self._is_spare_known = True
        return self._spare


class BlockTree:
    """The store of the page `fork-choice`, changed in place. Not safe for threads: one owns it.

    Attributes:
        genesis: block 0.
        head: the tip of the chain, as `get_head` on the page.
        now: the local clock, ms since 1970.
        entries: the kept headers by block hash; with every header also its parent.
        orphans: by block hash, oldest first.
        invalid: hashes that can never be valid, oldest first (the values mean nothing).
    """

    def __init__(self, config: Config, now: Milliseconds, upgrades: tuple[Upgrade, ...] = ()) -> None:
        self._rules, self.now = make_rules(config, upgrades), now
        data = encode_header(make_genesis_header(config))
        self.genesis = self.head = Entry(_compute_hash(data), data, None, 0, b"")
        self.genesis.replayed = True
        self._entries: dict[Hash32, Entry] = {self.genesis.hash: self.genesis}
        self._orphans: dict[Hash32, HeldOrphan] = {}
        self._invalid: OrderedDict[Hash32, None] = OrderedDict()
        self.entries: Mapping[Hash32, Entry] = MappingProxyType(self._entries)
        self.orphans: Mapping[Hash32, HeldOrphan] = MappingProxyType(self._orphans)
        self.invalid: Mapping[Hash32, None] = MappingProxyType(self._invalid)
        self._waiting_count = 0
        self._waiting_ends = _Sorted(lambda entry: (entry.work, entry.hash))
        self._shares: dict[bytes, _Share] = {}
        self._ranks: list[
            tuple[int, Height, Hash32, bytes]
        ] = []  # of each share's last header, with the peer, ascending
        self._best_tips = [self.genesis]
        self._replayed_count = 1

    def get_rules(self, height: Height) -> Rules:
        """Return the rules of a height, as `get_rules` on the page `upgrades`, without a look-up by value."""
        return next(rules for rules in reversed(self._rules) if rules.since <= height)

    # The handlers of the page.

    def tick(self, now: Milliseconds) -> None:
        """Set the clock."""
        self.now = now

    def receive_header(self, data: bytes, peer: bytes) -> Entry | None:
        """Check a header and keep it, or as an orphan; an invalid one is remembered, and what was built on it goes.

        Args:
            data: the encoding.
            peer: who sent it; empty for the node itself.

        Returns:
            Its place in the tree; None for an orphan.

        Raises:
            Malformed: `encoding/undecodable`; nothing is remembered.
            Invalid, NotYet: as `on_header` on the page.
        """
        header, block_hash = decode_header(data), _compute_hash(data)
        try:
            return self._on_header(header, block_hash, data, peer)
        except Invalid:
            self.mark_invalid(block_hash)
            raise

    def check_heavy_enough(self, entry: Entry) -> None:
        """Put off the replay of a waiting block that no branch makes worth it.

        Raises:
            NotYet: `fork-choice/lighter`.
        """
        assert not entry.replayed, "a block is replayed once"
        if not self.is_full(entry.peer) and not self._is_heavy_enough(entry):
            raise NotYet("fork-choice/lighter", f"no branch through it claims the {self.head.work} work of the head")

    def mark_replayed(self, entry: Entry, *, assumed: bool = False) -> None:
        """Count the work of a kept block whose parent is replayed; the head follows. One that counts already stays.

        Args:
            entry: the block.
            assumed: whether `--assume-valid` spared it the replay.
        """
        if entry.replayed:
            return
        assert self._entries.get(entry.hash) is entry, "a block that was dropped has no work"
        assert entry.parent is not None, "genesis is replayed"
        assert entry.parent.replayed, "ancestors are replayed first"
        self._remove_waiting([entry])
        self._count_replayed(entry, assumed)

    def mark_invalid(self, block_hash: Hash32) -> None:
        """Remember that a hash can never be valid; drop and remember what was built on it."""
        entry = self._entries.get(block_hash)
        branch = [block_hash] if entry is None else [gone.hash for gone in self._remove_branch(entry)]
        for gone in sorted(branch):
            self._invalid.setdefault(gone)
        while len(self._invalid) > fork_choice.MAX_INVALID:
            self._invalid.popitem(last=False)

    # What the page leaves to the node.

    def drop(self, entry: Entry) -> None:
        """Forget a waiting header and all that was built on it, without blame; nothing happens if it is gone."""
        if self._entries.get(entry.hash) is entry:
            assert not entry.replayed, "replayed blocks are kept"
            self._remove_branch(entry)

    def add_stored(self, data: bytes, *, assumed: bool = False) -> Entry:
        """Count a block that this node replayed before; it is not checked again.

        Args:
            data: the encoding of its header.
            assumed: whether `--assume-valid` spared it the replay.

        Raises:
            NodeError: it is no header, or its parent was not added before.
        """
        try:
            header = decode_header(data)
        except Malformed as error:
            raise NodeError(f"a stored header has {len(data)} bytes: run `poaid verify`") from error
        block_hash, parent = _compute_hash(data), self._entries.get(header.core.parent_hash)
        if parent is None or not parent.replayed:
            raise NodeError(f"the stored block {block_hash.hex()} has no parent in the store: run `poaid verify`")
        if block_hash in self._entries:
            return self._entries[block_hash]
        entry = self._attach(block_hash, data, parent, header, b"")
        self._count_replayed(entry, assumed)
        return entry

    def is_full(self, peer: bytes) -> bool:
        """Tell whether no header of a peer can be kept in waiting without dropping another one."""
        return (
            self.waiting_of(peer) >= fork_choice.MAX_WAITING_PER_PEER or self.count_waiting() >= fork_choice.MAX_WAITING
        )

    def count_waiting(self) -> int:
        """Return how many headers wait."""
        return self._waiting_count

    def waiting_of(self, peer: bytes) -> int:
        """Return how many of them a peer sent."""
        share = self._shares.get(peer)
        return 0 if share is None else len(share)

    def get_heaviest_waiting(self) -> Entry | None:
        """Return the waiting header that claims most work, of several the one of the greatest hash.

        It is the end of its branch, since a block adds at least 1 to the work of its chain.

        Returns:
            None when no waiting header claims at least the head's work: there is nothing to follow.
        """
        return next(self.iterate_heaviest_waiting(), None)

    def iterate_heaviest_waiting(self) -> Iterator[Entry]:
        """Yield the ends of waiting branches that claim at least the head's work, the heaviest first."""
        return takewhile(lambda entry: entry.work >= self.head.work, self._waiting_ends.iterate_down())

    def get_best_tips(self) -> tuple[Entry, ...]:
        """Return the replayed blocks of most work: the head, and those that are tied with it."""
        return tuple(self._best_tips)

    def get_side_count(self) -> int:
        """Return the number of replayed blocks that are not ancestors of the head."""
        return self._replayed_count - len(Branch(self.head))

    def get_main(self, height: Height) -> Entry:
        """Return the block of the chain at a height.

        Raises:
            IndexError: the chain is not so long.
        """
        return self.head.get_ancestor(height)

    @staticmethod
    def make_locator(entry: Entry) -> list[Hash32]:
        """Return the hashes by which another node finds where a chain leaves its own (page `networking`)."""
        return [entry.get_ancestor(height).hash for height in compute_locator_heights(entry.height)]

    def find_locator(self, hashes: Iterable[Hash32]) -> Entry | None:
        """Return the first of some blocks that is part of the chain; None if none is."""
        entries = (self._entries.get(block_hash) for block_hash in hashes)
        return next((entry for entry in entries if entry is not None and entry.leads_to(self.head)), None)

    # Headers, in the order of the page.

    def _on_header(self, header: Header, block_hash: Hash32, data: bytes, peer: bytes) -> Entry | None:
        check_header_alone(header)
        parent_hash = header.core.parent_hash
        if block_hash in self._invalid or parent_hash in self._invalid:
            fork_choice.check_not_invalid(fork_choice.Store(self.now, {}, invalid=self._invalid), header)
        if block_hash in self._entries:
            return self._entries[block_hash]
        parent = self._entries.get(parent_hash)
        if parent is None:
            self._keep_orphan(block_hash, HeldOrphan(data, parent_hash, peer))
            return None
        entry = self._keep_header(data, parent, peer)
        self._adopt_orphans()
        return entry

    def _keep_header(self, data: bytes, parent: Entry, peer: bytes) -> Entry:
        chain, hashes = Branch(parent), Hashes(parent)
        header, block_hash = check_encoded_header(data, chain, hashes, self.get_rules(len(chain)), self.now)
        self._make_room(parent, peer)
        entry = self._attach(block_hash, data, parent, header, peer)
        self._add_waiting(entry)
        return entry

    def _make_room(self, parent: Entry, peer: bytes) -> None:
        """Drop the branch of another peer's header, if there is no place for one more of `peer` on top of `parent`."""
        own, count = self.waiting_of(peer), self.count_waiting()
        if own < fork_choice.MAX_WAITING_PER_PEER:
            if count < fork_choice.MAX_WAITING:
                return
            if victim := self._find_victim(parent, own):
                self._remove_branch(victim)
                return
        raise NotYet("fork-choice/too-many-headers", f"{own} headers of this peer wait, {count} in all")

    def _find_victim(self, parent: Entry, own: int) -> Entry | None:
        """Return the waiting header that gives room: of a peer who has most, the highest, the largest hash.

        Peers are asked in the order of their last headers, so mostly a single one is, however many there are.
        """
        most: tuple[int, Height, Hash32] = (0, 0, b"")
        victim = None
        for count, height, block_hash, peer in reversed(self._ranks):
            if count <= own or (count, height, block_hash) < most:
                break
            share = self._shares[peer]
            entry = share.find_outside(parent)
            if entry is not None and share.rank(entry) > most:
                most, victim = share.rank(entry), entry
        return victim

    def _keep_orphan(self, block_hash: Hash32, orphan: HeldOrphan) -> None:
        if block_hash in self._orphans:
            return
        self._orphans[block_hash] = orphan
        use = Counter(kept.peer for kept in self._orphans.values())
        if use[orphan.peer] > fork_choice.MAX_ORPHANS_PER_PEER:
            del self._orphans[next(h for h, kept in self._orphans.items() if kept.peer == orphan.peer)]
        elif len(self._orphans) > fork_choice.MAX_ORPHANS:
            most = max(use.values())
            del self._orphans[next(h for h, kept in self._orphans.items() if use[kept.peer] == most)]

    def _adopt_orphans(self) -> None:
        def find_ready() -> Hash32 | None:
            return next((h for h, orphan in self._orphans.items() if orphan.parent_hash in self._entries), None)

        while (block_hash := find_ready()) is not None:
            orphan = self._orphans.pop(block_hash)
            try:
                self._keep_header(orphan.data, self._entries[orphan.parent_hash], orphan.peer)
            except Invalid:
                self.mark_invalid(block_hash)
            except NotYet:
                continue

    # Work.

    def _is_heavy_enough(self, entry: Entry) -> bool:
        """Tell whether some branch through a waiting block claims at least the head's work."""
        heaviest = self.get_heaviest_waiting()
        if heaviest is None or entry.leads_to(heaviest):
            return heaviest is not None
        branch = [entry]
        for kept in branch:  # which grows while it is read; rare: two waiting branches are as heavy as the head
            if kept.work >= self.head.work:
                return True
            branch += kept.children
        return False

    def _count_replayed(self, entry: Entry, assumed: bool) -> None:
        assert entry.parent is not None, "genesis is replayed"
        entry.replayed, entry.assumed = True, entry.height if assumed else entry.parent.assumed
        self._replayed_count += 1
        most = self._best_tips[0].work
        if entry.work >= most:
            self._set_best_tips([entry] if entry.work > most else [*self._best_tips, entry])

    def _set_best_tips(self, tips: list[Entry]) -> None:
        """Set the replayed blocks of most work, and by the page's rule the head."""
        self._best_tips = tips
        kept = {tip.hash: fork_choice.Kept(tip.header, tip.work, tip.peer, {}) for tip in tips}
        self.head = self._entries[fork_choice.get_head(fork_choice.Store(self.now, kept))]

    # The containers, kept in step.

    def _attach(self, block_hash: Hash32, data: bytes, parent: Entry, header: Header, peer: bytes) -> Entry:
        work = compute_work(header.core.target, self.get_rules(parent.height + 1))
        entry = Entry(block_hash, data, parent, parent.work + work, peer)
        self._entries[block_hash] = entry
        parent.add_child(entry)
        return entry

    def _add_waiting(self, entry: Entry) -> None:
        self._waiting_count += 1
        parent = entry.parent
        if parent is not None and not parent.replayed and len(parent.children) == 1:
            self._waiting_ends.remove([parent])
        self._waiting_ends.add(entry)
        self._change_share(entry.peer, added=[entry])

    def _remove_waiting(self, gone: Collection[Entry]) -> None:
        self._waiting_count -= len(gone)
        self._waiting_ends.remove([entry for entry in gone if not entry.children])
        by_peer: defaultdict[bytes, list[Entry]] = defaultdict(list)
        for entry in gone:
            by_peer[entry.peer].append(entry)
        for peer, entries in by_peer.items():
            self._change_share(peer, gone=entries)

    def _change_share(self, peer: bytes, added: Collection[Entry] = (), gone: Collection[Entry] = ()) -> None:
        """Change a peer's waiting headers, and its place among those who have some."""
        share = self._shares.setdefault(peer, _Share())
        if share:
            del self._ranks[bisect_left(self._ranks, (*share.rank(share.last), peer))]
        for entry in added:
            share.add(entry)
        share.remove(gone)
        if share:
            insort(self._ranks, (*share.rank(share.last), peer))
        else:
            del self._shares[peer]

    def _remove_branch(self, root: Entry) -> list[Entry]:
        """Remove a block and its descendants; return them."""
        assert root.parent is not None, "genesis stays"
        root.parent.remove_child(root)
        branch = [root]
        for entry in branch:  # grows while it is read
            branch += entry.children
            del self._entries[entry.hash]
        self._remove_waiting([entry for entry in branch if not entry.replayed])
        if not root.parent.replayed and not root.parent.children:
            self._waiting_ends.add(root.parent)
        if root.replayed:  # by the page's handlers this does not happen, so it may look at every block
            self._replayed_count -= sum(entry.replayed for entry in branch)
            most = max(entry.work for entry in self._entries.values() if entry.replayed)
            self._set_best_tips([e for e in self._entries.values() if e.replayed and e.work == most])
        return branch


def _compute_hash(data: bytes) -> Hash32:
    """Return the block hash of an encoded header: `compute_block_hash`, without encoding it again."""
    return tagged_hash("PoAI/header/1", data)
