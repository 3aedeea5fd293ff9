# # Fork choice  [generated from specs/chain/fork-choice.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Which chain is the chain: the one with the most work that was replayed, and among equals one that nobody can choose
# beforehand. The `Store` is all that the choice depends on. Handlers take a store and return a new one; a handler that
# raises has changed nothing, because stores are never changed in place.


from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from poai_spec.chain.block import Judge, check_contents, get_judge_rules, make_genesis, process_block, replay_block
from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.proof.difficulty import compute_work
from poai_spec.chain.header import check_header_alone, check_header_in_chain
from poai_spec.basics.notation import Hash32, Invalid, Malformed, Milliseconds, NotYet, SpecError, Work, tagged_hash
from poai_spec.execution.state import State


# ## Limits

# Each bounds what strangers can make a node hold. None of them changes the head of a node that is served what it lost
# again: a branch longer than the limits is replayed before it is known to be the heavier one (`check_heavy_enough`), and
# each replay makes room for the next header.

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `MAX_WAITING` | 65,536 | headers | not replayed yet, in all: 14 MiB without what finds them, more than a year of mainnet |
# | `MAX_WAITING_PER_PEER` | 8,192 | headers | eight peers are needed to fill the store; 16 requests of 512 ahead of the replay |
# | `MAX_ORPHANS` | 256 | headers | an orphan has no work that could be checked: 54 KiB, and cheap to walk |
# | `MAX_ORPHANS_PER_PEER` | 4 | headers | gossip brings one or two while the ancestors are fetched; more is no accident |
# | `MAX_INVALID` | 65,536 | hashes | 2 MiB; a forgotten one is only checked once more |


MAX_WAITING = 65_536
MAX_WAITING_PER_PEER = 8_192
MAX_ORPHANS = 256
MAX_ORPHANS_PER_PEER = 4
MAX_INVALID = 65_536


# ## Types

# ### `Kept`


@dataclass(frozen=True)
class Kept:
    """A header that passed all its checks, and its block's state once the block was replayed.

    Attributes:
        header: the header.
        work: claimed work of the chain that ends here; genesis has 0.
        peer: who sent it, as an opaque identity; empty for the node itself.
        state: the accounts after this block, or None: the header is *waiting*.
    """

    header: Header
    work: Work
    peer: bytes
    state: State | None


# ### `Orphan`


@dataclass(frozen=True)
class Orphan:
    """A header whose parent is not known. Neither its work nor anything else of it could be checked yet."""

    header: Header
    peer: bytes


# ### `Store`


@dataclass(frozen=True)
class Store:
    """Everything the fork choice depends on; its mappings are never changed in place.

    Mappings keep the order of insertion: a new key comes last, and one that is there keeps its place. The *oldest* is
    the first. Of `kept` the order is not used.

    Attributes:
        now: the local clock, ms since 1970.
        kept: checked headers by block hash; with every header also its parent, back to genesis.
        orphans: by block hash, oldest first.
        invalid: hashes that can never be valid, oldest first (the values mean nothing).
    """

    now: Milliseconds
    kept: Mapping[Hash32, Kept]
    orphans: Mapping[Hash32, Orphan] = field(default_factory=dict)
    invalid: Mapping[Hash32, None] = field(default_factory=dict)


# ### `make_store`


def make_store(judge: Judge, now: Milliseconds) -> Store:
    """Return the store of a node that knows genesis alone."""
    genesis = make_genesis(judge.config).header
    return Store(now, {compute_block_hash(genesis): Kept(genesis, 0, b"", {})})


# ## The head

# ### `get_chain`


def get_chain(store: Store, block_hash: Hash32) -> tuple[Header, ...]:
    """Return the headers from genesis to a kept one."""
    chain = []
    while block_hash in store.kept:
        chain.append(store.kept[block_hash].header)
        block_hash = chain[-1].core.parent_hash
    return tuple(reversed(chain))


# ### `get_best_tips`

# A block adds at least 1 to the work of its chain, so the blocks of most work have no replayed children.


def get_best_tips(store: Store) -> list[Hash32]:
    """Return the sorted hashes of all replayed blocks whose chain has the most work."""
    replayed = {block_hash: kept.work for block_hash, kept in store.kept.items() if kept.state is not None}
    most = max(replayed.values())
    return sorted(block_hash for block_hash, work in replayed.items() if work == most)


# ### `get_head`

# Hashes are ordered as strings of bytes, the first byte counting most, and enter the tie's hash in ascending order. Two of
# those hashes are never equal.


def get_head(store: Store) -> Hash32:
    """Return the tip of the chain: most replayed work, ties by a hash over all tied tips."""
    tips = get_best_tips(store)
    return min(tips, key=lambda tip: tagged_hash("PoAI/tie/1", *tips, tip))


# ### `compute_claimed_work`

# A block is replayed when some branch through it claims enough work, be it with headers whose blocks are still missing.


def compute_claimed_work(store: Store, block_hash: Hash32) -> Work:
    """Return the most work that a chain of kept headers through `block_hash` claims."""
    return max(store.kept[tip].work for tip in get_branch(store, block_hash))


# ### `get_branch`


def get_branch(store: Store, root: Hash32) -> set[Hash32]:
    """Return a kept block and all its kept descendants."""
    branch = {root}
    for block_hash in sorted(store.kept, key=lambda h: store.kept[h].header.core.height):
        if store.kept[block_hash].header.core.parent_hash in branch:
            branch.add(block_hash)
    return branch


# ## Handlers

# ### `on_tick`


def on_tick(store: Store, now: Milliseconds) -> Store:
    """Set the clock. Blocks put off as `header/future` were not kept; whoever sends them again is heard again."""
    return replace(store, now=now)


# ### `on_header`

# A header alone is checked by rules 2 to 14 of the page block, with one difference: that its parent is unknown (rule 6) is
# no error. It becomes an orphan and the handler says nothing; rules 7 to 14 follow when the parent is kept, and what they
# find then is not reported either. A header that is kept already is not checked again.


def on_header(store: Store, header: Header, peer: bytes, judge: Judge) -> Store:
    """Keep a header: checked if its parent is kept, else as an orphan. Then check the orphans that waited for it.

    Raises:
        Invalid: `header/...`, `difficulty/...`, `work/l-hat`, `body/transactions-not-active`,
            `fork-choice/known-invalid`, `fork-choice/invalid-ancestor`.
        NotYet: `header/future`, `fork-choice/too-many-headers`.
    """
    check_header_alone(header)
    check_not_invalid(store, header)
    block_hash = compute_block_hash(header)
    if block_hash in store.kept:
        return store
    if header.core.parent_hash not in store.kept:
        return keep_orphan(store, Orphan(header, peer))
    return adopt_orphans(keep_header(store, header, peer, judge), judge)


# ### `on_block`

# Of every block in the store the header is kept first, so that a failure says as much as the same header alone would.


def on_block(store: Store, block: Block, peer: bytes, judge: Judge) -> Store:
    """Check a block by every rule, in the order of the page block, replay it, and count its work.

    Raises:
        Invalid, Malformed, NotYet: the first rule of the table on the page block that it breaks.
    """
    store, block_hash = on_header(store, block.header, peer, judge), compute_block_hash(block.header)
    if block_hash not in store.kept:
        raise NotYet("fork-choice/unknown-parent", f"{block.header.core.parent_hash.hex()} is not known here")
    check_contents(block, get_judge_rules(judge, block.header.core.height))
    if store.kept[block_hash].state is not None:
        return store
    after = process_block(get_parent_state(store, block.header), block)
    check_heavy_enough(store, block_hash)
    replay_block(block, get_chain(store, block.header.core.parent_hash), judge)
    kept = replace(store.kept[block_hash], state=after)
    return replace(store, kept={**store.kept, block_hash: kept})


# ### `on_invalid`


def on_invalid(store: Store, block_hash: Hash32) -> Store:
    """Remember that a hash can never be valid; drop and remember what was built on it, in ascending order of bytes."""
    branch = get_branch(store, block_hash)
    invalid = {**store.invalid, **dict.fromkeys(sorted(branch))}
    oldest = set(list(invalid)[: max(0, len(invalid) - MAX_INVALID)])
    return replace(
        store,
        kept={h: kept for h, kept in store.kept.items() if h not in branch},
        invalid={h: None for h in invalid if h not in oldest},
    )


# ## Receiving

# What a node does with a verdict: the consequence of each error class, in one place.

# ### `receive_header`


def receive_header(store: Store, header: Header, peer: bytes, judge: Judge) -> tuple[Store, SpecError | None]:
    """Handle a header from a peer; return the new store and what was wrong, if anything."""
    try:
        return on_header(store, header, peer, judge), None
    except Invalid as error:
        return on_invalid(store, compute_block_hash(header)), error
    except NotYet as error:
        return store, error


# ### `receive_block`


def receive_block(store: Store, block: Block, peer: bytes, judge: Judge) -> tuple[Store, SpecError | None]:
    """Handle a block from a peer: the header of a good or postponed one is kept, the hash of a bad one remembered."""
    store, error = receive_header(store, block.header, peer, judge)
    if error is not None:
        return store, error
    try:
        return on_block(store, block, peer, judge), None
    except Invalid as fault:
        return on_invalid(store, compute_block_hash(block.header)), fault
    except (Malformed, NotYet) as fault:
        return store, fault


# ## Rules

# ### `check_not_invalid`


def check_not_invalid(store: Store, header: Header) -> None:
    """Refuse what is known to be invalid or is built on it.

    Raises:
        Invalid: `fork-choice/known-invalid`, `fork-choice/invalid-ancestor`.
    """
    if compute_block_hash(header) in store.invalid:
        raise Invalid("fork-choice/known-invalid", "this block was found invalid before")
    if header.core.parent_hash in store.invalid:
        raise Invalid("fork-choice/invalid-ancestor", f"parent {header.core.parent_hash.hex()} is invalid")


# ### `get_parent_state`


def get_parent_state(store: Store, header: Header) -> State:
    """Return the accounts before a kept block.

    Raises:
        NotYet: `fork-choice/parent-not-replayed`; deliver its ancestors' blocks first.
    """
    state = store.kept[header.core.parent_hash].state
    if state is None:
        raise NotYet("fork-choice/parent-not-replayed", f"parent {header.core.parent_hash.hex()} is a header only")
    return state


# ### `check_heavy_enough`

# Where the limits leave no room for another header of the block's sender, its branch cannot show how heavy it is. Then it
# is replayed as far as it is known: an honest branch goes on, a forged one falls at its first false entry and gives its
# room back. Two nodes on forks deeper than the limits would otherwise never agree.


def check_heavy_enough(store: Store, block_hash: Hash32) -> None:
    """Put off the replay of a block that no branch makes worth it; its header stays kept.

    Raises:
        NotYet: `fork-choice/lighter`.
    """
    claimed, head = compute_claimed_work(store, block_hash), store.kept[get_head(store)].work
    if claimed < head and not is_full(store, store.kept[block_hash].peer):
        raise NotYet("fork-choice/lighter", f"its branch claims {claimed} work, the head has {head}")


# ### `is_full`


def is_full(store: Store, peer: bytes) -> bool:
    """Whether no header of a peer can be kept in waiting without dropping another one."""
    waiting = [kept.peer for kept in store.kept.values() if kept.state is None]
    return waiting.count(peer) >= MAX_WAITING_PER_PEER or len(waiting) >= MAX_WAITING


# ## Bounded keeping

# ### `keep_header`


def keep_header(store: Store, header: Header, peer: bytes, judge: Judge) -> Store:
    """Check a header against its ancestors and keep it.

    Raises:
        Invalid, NotYet: as `check_header_in_chain`; NotYet `fork-choice/too-many-headers`.
    """
    parent, block_hash = header.core.parent_hash, compute_block_hash(header)
    chain = get_chain(store, parent)
    rules = get_judge_rules(judge, len(chain))
    check_header_in_chain(header, chain, rules, store.now)
    store = make_room(store, header, peer)
    work = store.kept[parent].work + compute_work(header.core.target, rules)
    return replace(store, kept={**store.kept, block_hash: Kept(header, work, peer, None)})


# ### `make_room`

# Room is taken from the peer who uses most of it, and from his branches' ends first: of the waiting headers of all peers
# who have more than the newcomer's, the one whose peer has most; among those the greatest height, then the largest hash.
# What others have built on a dropped header goes with it. A newcomer's own ancestors stay.


def make_room(store: Store, header: Header, peer: bytes) -> Store:
    """Return the store with room for one more waiting header of `peer`.

    Raises:
        NotYet: `fork-choice/too-many-headers`, for a peer at its limit, or in a full store none of whose other peers
            has more; send it again when replays have made room.
    """
    waiting = {h: kept for h, kept in store.kept.items() if kept.state is None}
    use = Counter(kept.peer for kept in waiting.values())
    parents = {ancestor.core.parent_hash for ancestor in (*get_chain(store, header.core.parent_hash), header)}
    victims = [h for h, kept in waiting.items() if use[kept.peer] > use[peer] and h not in parents]
    full = len(waiting) >= MAX_WAITING
    if use[peer] >= MAX_WAITING_PER_PEER or (full and not victims):
        raise NotYet("fork-choice/too-many-headers", f"{use[peer]} headers of this peer wait, {len(waiting)} in all")
    if not full:
        return store
    victim = max(victims, key=lambda h: (use[waiting[h].peer], waiting[h].header.core.height, h))
    branch = get_branch(store, victim)
    return replace(store, kept={h: kept for h, kept in store.kept.items() if h not in branch})


# ### `keep_orphan`

# The new orphan counts as its sender's already. Past the limit of all, the first orphan goes whose sender has as many as
# any. Say a sends X, then b sends X and four more: five orphans are kept, since X stays a's, in its place, whoever sends
# it again. An orphan leaves in three ways only: its place is taken, its parent is kept, or, in that moment, it is
# refused. If its parent turns out to be invalid, it stays, and goes when newer orphans take its place: to look for it
# would cost a walk over all orphans at each invalid header.


def keep_orphan(store: Store, orphan: Orphan) -> Store:
    """Keep a header without a parent; past a limit drop the sender's oldest, or the oldest of the heaviest users."""
    block_hash = compute_block_hash(orphan.header)
    if block_hash in store.orphans:
        return store
    orphans = {**store.orphans, block_hash: orphan}
    use = Counter(kept.peer for kept in orphans.values())
    if use[orphan.peer] > MAX_ORPHANS_PER_PEER:
        del orphans[next(h for h, kept in orphans.items() if kept.peer == orphan.peer)]
    elif len(orphans) > MAX_ORPHANS:
        del orphans[next(h for h, kept in orphans.items() if use[kept.peer] == max(use.values()))]
    return replace(store, orphans=orphans)


# ### `adopt_orphans`

# The oldest one that can be checked comes first, then the search begins anew.


def adopt_orphans(store: Store, judge: Judge) -> Store:
    """Check every orphan whose parent is kept by now, and so on; drop those that fail."""
    while ready := [h for h, orphan in store.orphans.items() if orphan.header.core.parent_hash in store.kept]:
        orphan = store.orphans[ready[0]]
        store = replace(store, orphans={h: other for h, other in store.orphans.items() if h != ready[0]})
        try:
            store = keep_header(store, orphan.header, orphan.peer, judge)
        except Invalid:
            store = on_invalid(store, ready[0])
        except NotYet:
            continue
    return store


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `fork-choice/known-invalid` | Invalid | found invalid before |
# | `fork-choice/invalid-ancestor` | Invalid | the parent was found invalid |
# | `fork-choice/unknown-parent` | NotYet | the parent is not known; its header is kept as an orphan, ask for the ancestors |
# | `fork-choice/too-many-headers` | NotYet | no room for this peer's header until replays make some |
# | `fork-choice/parent-not-replayed` | NotYet | the parent's block is missing; ask for it |
# | `fork-choice/lighter` | NotYet | its branch claims less work than the head has; the header is kept |

# ## Rationale

# - **Most work, not most blocks**, is Nakamoto's rule ([Bitcoin, 2008](https://bitcoin.org/bitcoin.pdf)) as all its
#   descendants apply it: a branch of many easy blocks weighs less than one of few hard ones.
# - **Work counts only after the replay.** `l_hat < target` can be forged with hashes alone; a head that follows claimed
#   work would follow the forger.
# - **A lighter branch is not replayed**, or every old block could be used to waste passes. When its claimed work reaches
#   the head's, its blocks are asked for again, oldest first.
# - **Why the tie rule hashes the whole set.** With "first seen", nodes disagree about the head until the next block. With
#   "smallest hash", a miner who finds a small one withholds it, knowing that he wins the tie to come. Here nobody
#   knows who wins before he knows all rivals, and the answer depends on the set of tips, not on their order. The price is
#   known: the best withholding strategy gains from a hash share of 23.2 % on, whoever hears it first; under "first seen" that
#   is 33 % for an attacker without any advantage in the network, and next to nothing for one whom all hear first
#   (`poai bench selfish`). Withholding is Eyal and Sirer's attack
#   ([Majority is not Enough, 2014](https://arxiv.org/abs/1311.0243)), who also propose a choice at random among equal tips;
#   the best strategy and the 23.2 % of such ties are Sapirshtein, Sompolinsky and Zohar's
#   ([Optimal Selfish Mining Strategies, 2016](https://arxiv.org/abs/1507.06183)). New is only that nobody draws: all nodes
#   compute the same winner.
# - **Why failures remember in a handler of its own.** `on_block` returns nothing when it raises, so it cannot half-change
#   a store; `receive_block` is the one place where a verdict has consequences.
# - **An invalid orphan costs its sender nothing** beyond its place: by the time it can be checked, its sender may have
#   relayed it in good faith, as any node relays a header that it cannot check.
# - **Forgetting is safe.** An evicted header, orphan or invalid hash is treated like a new one when it comes again.
