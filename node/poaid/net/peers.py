"""What a node knows of its peers: who they are, what they claim, how they behave, and where to dial.

Pure bookkeeping: no sockets, and the time is an argument (seconds of a monotonic clock, unless it says ms). Peer ids
are free, so the time that false blocks may waste is shared by all peers of one address prefix.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

import trio

from poai_spec.basics.notation import Hash32, Milliseconds, SpecError
from poai_spec.chain.networking import (
    BAN_MS,
    BAN_SCORE,
    GOSSIP_BURST,
    GOSSIP_REFILL_MS,
    PENALTY_HALF_LIFE_MS,
    REPLAY_BUDGET_MS,
    REPLAY_BUDGET_PERIOD_MS,
    REQUEST_BURST,
    REQUEST_REFILL_MS,
    Status,
    get_penalty,
)
from poaid.net.addresses import get_prefix, is_public
from poaid.store.database import StoredPeer

MAX_KNOWN = 256
"""Entries of the address book, and of each list of peers that are not connected: more than a mesh ever needs."""
MAX_LACKING = 4_096
"""Hashes that a peer said it lacks: twice what a pruned peer can be asked for between two replays."""
DIAL_BACK_OFF_S, MAX_DIAL_BACK_OFF_S = 2.0, 300.0
"""Pause after a dial or the first failure, doubled with each further one, up to the second; a quarter more or less."""
DIALS_A_BLOCK = 2
"""The longest pause is at most this part of a block interval: when a network that was cut is whole again, its parts are
connected within a block, and agree within two. Half of mainnet's interval is the longest pause itself."""
PAUSE_S, MAX_PAUSES_DOUBLED = 5.0, 6
"""Pause after a request that failed, doubled with each further one in a row: up to 320 s, so that who claims much and
answers nothing costs one timeout in five minutes."""
MAX_FAILURES = 16
"""Failed dials that are counted: the pause has reached its longest by then."""
BUDGET_S, BUDGET_REFILL_S = REPLAY_BUDGET_MS / 1000, REPLAY_BUDGET_PERIOD_MS / REPLAY_BUDGET_MS
"""Seconds of failed replays of an address prefix, and how long it takes until one comes back."""
PUBLIC_SHARE, LOCAL_SHARE = 4, 64
"""How many peers' rates an address prefix has together: as many as may be connected from a public one, or at all."""


@dataclass
class Bucket:
    """A token bucket.

    Attributes:
        capacity: tokens at most, and at first.
        refill_s: seconds until a token comes back.
        tokens: how many there were when it was last asked.
    """

    capacity: float
    refill_s: float
    tokens: float = field(init=False)
    _at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.tokens = self.capacity

    def count(self, now: float) -> float:
        """Return how many tokens there are; below 0 after a charge that was larger."""
        if self._at is not None:
            self.tokens = min(self.capacity, self.tokens + (now - self._at) / self.refill_s)
        self._at = now
        return self.tokens

    def take(self, now: float) -> bool:
        """Take a token if there is one; tell whether there was."""
        enough = self.count(now) >= 1
        if enough:
            self.tokens -= 1
        return enough

    def charge(self, now: float, tokens: float) -> None:
        """Take tokens that were used, whether there are as many or not."""
        self.tokens = self.count(now) - tokens

    def compute_wait(self, now: float) -> float:
        """Return the seconds until it is full: forgetting it makes a gift of them."""
        return (self.capacity - self.count(now)) * self.refill_s


class Buckets:
    """Buckets of address prefixes, a bounded number: they count what has peer ids without number."""

    def __init__(self) -> None:
        self._kept: dict[str, Bucket] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, prefix: str) -> Bucket | None:
        """Return a prefix's bucket, if anything was taken from it."""
        return self._kept.get(prefix)

    def get(self, prefix: str, now: float, capacity: float, refill_s: float) -> Bucket:
        """Return a prefix's bucket, made if it is not there; past the limit the one full soonest is forgotten."""
        if prefix not in self._kept:
            if len(self._kept) == MAX_KNOWN:
                del self._kept[min(self._kept, key=lambda other: self._kept[other].compute_wait(now))]
            self._kept[prefix] = Bucket(capacity, refill_s)
        return self._kept[prefix]


@dataclass
class Conduct:
    """What a peer's limits are counted by. It belongs to the identity: another connection goes on with it.

    Attributes:
        queued: gossip messages that wait for their turn, the one whose replay runs included.
        replaying: held while one of its blocks is imported.
        requests: of all protocols.
        gossip: messages.
    """

    queued: int = 0
    replaying: trio.Lock = field(default_factory=trio.Lock)
    requests: Bucket = field(default_factory=lambda: Bucket(REQUEST_BURST, REQUEST_REFILL_MS / 1000))
    gossip: Bucket = field(default_factory=lambda: Bucket(GOSSIP_BURST, GOSSIP_REFILL_MS / 1000))

    def compute_wait(self, now: float) -> float:
        """Return the seconds until there is nothing to remember; infinity while a block is in flight."""
        in_flight = self.queued or self.replaying.locked()
        return inf if in_flight else max(bucket.compute_wait(now) for bucket in (self.requests, self.gossip))


@dataclass
class Peer:
    """A connected peer.

    Attributes:
        peer_id: base-58.
        address: the multiaddr of the connection, without the peer id.
        outbound: whether this node dialled.
        connected_at: when.
        status: what it last said of itself; None before it did.
        status_at: when it last said so.
        proven: whether it has delivered a block that was replayed and true.
        last_header: the last header that it delivered, where the next request goes on.
        fruitless: the head it claimed when its headers brought nothing new: it is asked again when that changes.
        fruitless_in_a_row: how many heads it has claimed so since its headers last brought anything.
        not_before: it is left alone until then.
        failures: requests in a row that it left unanswered, or answered in part.
        outrun: whether another one, asked later, had an answer before it.
        lacking: blocks that it said it does not hold.
        conduct: what its limits are counted by.
        key: the identity that the fork choice's limits count by.
    """

    peer_id: str
    address: str
    outbound: bool
    connected_at: float
    status: Status | None = None
    status_at: float = 0.0
    proven: bool = False
    last_header: Hash32 | None = None
    fruitless: Hash32 | None = None
    fruitless_in_a_row: int = 0
    not_before: float = 0.0
    failures: int = 0
    outrun: bool = False
    lacking: dict[Hash32, None] = field(default_factory=dict)
    conduct: Conduct = field(default_factory=Conduct)
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.peer_id.encode("ascii")  # one object, which thousands of waiting headers refer to

    def note_status(self, status: Status, now: float) -> None:
        """Remember what it says of itself; with another head it may hold what it lacked before."""
        if self.status is None or status.head != self.status.head:
            self.lacking.clear()
        self.status, self.status_at = status, now

    def fail(self, now: float) -> None:
        """Leave it alone, ever longer, after a request that failed."""
        self.not_before = now + PAUSE_S * 2 ** min(self.failures, MAX_PAUSES_DOUBLED)
        self.failures += 1

    def add_lacking(self, hashes: Iterable[Hash32]) -> None:
        """Remember blocks that it does not hold."""
        self.lacking |= dict.fromkeys(hashes)
        while len(self.lacking) > MAX_LACKING:
            del self.lacking[next(iter(self.lacking))]


@dataclass
class _Record:
    """What is remembered of a peer whether it is connected or not; `at` is when `points` were halved last, or began."""

    points: int = 0
    at: float = 0.0
    banned_until: Milliseconds = 0

    def halve(self, now: float) -> int:
        """Halve the points for each half-life that has passed; return what is left."""
        half_life = PENALTY_HALF_LIFE_MS / 1000
        times = int((now - self.at) / half_life) if self.points else 0
        self.points >>= times
        self.at = self.at + times * half_life if self.points else now
        return self.points


@dataclass
class _Known:
    """An address to dial."""

    peer_id: str
    address: str
    seen: Milliseconds
    failures: int = 0
    not_before: float = 0.0
    wanted: bool = False  # named by the user: never forgotten


class Peers:
    """All peers: connected, remembered, and known by address.

    Args:
        stored: what is known from before a restart.
        interval: between blocks, ms.
    """

    def __init__(self, stored: Iterable[StoredPeer] = (), interval: Milliseconds = 600_000) -> None:
        self._longest_pause = min(MAX_DIAL_BACK_OFF_S, max(DIAL_BACK_OFF_S, interval / 1000 / DIALS_A_BLOCK))
        self.connected: dict[str, Peer] = {}
        self._records: dict[str, _Record] = {}
        self._known: dict[str, _Known] = {}
        self._left: dict[str, Conduct] = {}
        self._budgets, self._requests, self._gossip = Buckets(), Buckets(), Buckets()
        for row in stored:
            if row.address:
                self.learn(row.peer_id, row.address, row.seen)
            if row.banned_until:
                self._get_record(row.peer_id).banned_until = row.banned_until

    def count_kept(self) -> dict[str, int]:
        """Return how many entries each table of remembered peers has; none has more than `MAX_KNOWN`."""
        return {
            "records": len(self._records), "addresses": len(self._known), "conducts": len(self._left),
            "budgets": len(self._budgets), "requests": len(self._requests), "gossip": len(self._gossip),
        }  # fmt: skip

    # Connections.

    def connect(self, peer_id: str, address: str, *, outbound: bool, now: float) -> Peer:
        """Register a peer's connection; its conduct goes on where it was when the last one ended."""
        conduct = self._left.pop(peer_id, None) or Conduct()
        self.connected[peer_id] = Peer(peer_id, address, outbound, now, conduct=conduct)
        return self.connected[peer_id]

    def disconnect(self, peer_id: str, now: float) -> bool:
        """Forget a connection, if there was one; of the conducts past the limit, the one least worth remembering."""
        peer = self.connected.pop(peer_id, None)
        if peer is None:
            return False
        self._left[peer_id] = peer.conduct
        if len(self._left) > MAX_KNOWN:
            del self._left[min(self._left, key=lambda other: self._left[other].compute_wait(now))]
        return True

    # Conduct.

    def take_request(self, peer: Peer, now: float) -> bool:
        """Take a token for a request, of the peer and of its address prefix; tell whether both had one."""
        return _take(peer, peer.conduct.requests, self._requests, now)

    def take_gossip(self, peer: Peer, now: float) -> bool:
        """The same for a message."""
        return _take(peer, peer.conduct.gossip, self._gossip, now)

    def penalise(self, peer_id: str, error: SpecError, now: float, now_ms: Milliseconds) -> bool:
        """Count a broken rule against its sender; return whether that bans it."""
        record = self._get_record(peer_id)
        record.points = record.halve(now) + get_penalty(error)
        if record.points < BAN_SCORE:
            return False
        record.banned_until, record.points = now_ms + BAN_MS, 0
        return True

    def get_points(self, peer_id: str, now: float) -> int:
        """Return a peer's penalty points, which are halved, rounding down, every `PENALTY_HALF_LIFE_MS`."""
        record = self._records.get(peer_id)
        return 0 if record is None else record.halve(now)

    def is_banned(self, peer_id: str, now_ms: Milliseconds) -> bool:
        """Whether a peer is banned."""
        record = self._records.get(peer_id)
        return record is not None and now_ms < record.banned_until

    def _get_record(self, peer_id: str) -> _Record:
        record = self._records.pop(peer_id, None) or _Record()
        self._records[peer_id] = record  # the newest comes last
        while len(self._records) > MAX_KNOWN:
            del self._records[next(iter(self._records))]
        return record

    def may_replay(self, peer: Peer, now: float) -> bool:
        """Whether the model may run for a peer's block: while its prefix has some budget left."""
        budget = self._budgets.find(get_prefix(peer.address))
        return budget is None or budget.count(now) > 0

    def charge_replay(self, peer: Peer, now: float, seconds: float) -> None:
        """Count the time that the model ran in vain for a peer."""
        self._budgets.get(get_prefix(peer.address), now, BUDGET_S, BUDGET_REFILL_S).charge(now, seconds)

    # Addresses.

    def learn(self, peer_id: str, address: str, now_ms: Milliseconds, *, wanted: bool = False) -> None:
        """Remember where a peer can be dialled; past the limit the one seen longest ago is forgotten.

        What the user has named is neither forgotten nor replaced by what others say. What others say leaves the pause
        between dials as it is: who announces itself again and again would be dialled each time.
        """
        known = self._known.setdefault(peer_id, _Known(peer_id, address, now_ms))
        if wanted or not known.wanted:
            known.address = address
        known.seen = now_ms
        if wanted:
            known.wanted, known.not_before = True, 0.0
        others = [known for known in self._known.values() if not known.wanted]
        if len(others) > MAX_KNOWN:
            del self._known[min(others, key=lambda known: known.seen).peer_id]

    def forget(self, peer_id: str, now: float) -> None:
        """Forget an address that led to another network; one that the user named is tried again, rarely."""
        known = self._known.get(peer_id)
        if known is not None and not known.wanted:
            del self._known[peer_id]
        elif known is not None:
            known.not_before = now + MAX_DIAL_BACK_OFF_S

    def choose_dial(self, now: float, now_ms: Milliseconds, *, wanted: bool) -> tuple[str, str] | None:
        """Return peer id and address of somebody to dial now, whom the user has named or has not; None for nobody."""
        ready = [
            known
            for known in self._known.values()
            if known.peer_id not in self.connected
            and known.not_before <= now
            and not self.is_banned(known.peer_id, now_ms)
            and known.wanted == wanted
        ]
        chosen = min(ready, key=lambda known: known.failures, default=None)
        return None if chosen is None else (chosen.peer_id, chosen.address)

    def note_dial(self, peer_id: str, now: float, now_ms: Milliseconds, *, success: bool) -> None:
        """Remember how a dial went: after failures wait ever longer, and not all nodes equally long.

        After a success, too, or a peer that hangs up at once would be dialled again at once.
        """
        known = self._known.get(peer_id)
        if known is None:
            return
        known.failures = 0 if success else min(known.failures + 1, MAX_FAILURES)
        if success:
            known.seen = now_ms
        pause = min(self._longest_pause, DIAL_BACK_OFF_S * 2 ** max(known.failures - 1, 0))
        known.not_before = max(known.not_before, now + pause * random.uniform(0.75, 1.25))  # noqa: S311

    def export(self, now_ms: Milliseconds) -> list[StoredPeer]:
        """Return what is worth keeping over a restart."""
        banned = {peer_id: r.banned_until for peer_id, r in self._records.items() if r.banned_until > now_ms}
        addresses = {known.peer_id: known for known in self._known.values()}
        return [
            StoredPeer(
                peer_id,
                addresses[peer_id].address if peer_id in addresses else "",
                addresses[peer_id].seen if peer_id in addresses else 0,
                banned.get(peer_id, 0),
            )
            for peer_id in addresses | banned
        ]


def _take(peer: Peer, own: Bucket, prefixes: Buckets, now: float) -> bool:
    """Take a token of a peer, and one of its prefix, which has as many peers' rates as may be connected from it."""
    share = PUBLIC_SHARE if is_public(peer.address) else LOCAL_SHARE
    shared = prefixes.get(get_prefix(peer.address), now, share * own.capacity, own.refill_s / share)
    return shared.count(now) >= 1 and own.take(now) and shared.take(now)
