"""What a node knows of its peers: who they are, what they claim, how they behave, and where to dial.

Pure bookkeeping: no sockets, and the time is an argument (seconds of a monotonic clock, unless it says ms). Peer ids
are free, so the time that replays of unproven peers may waste is shared by all of one address prefix.
"""

import ipaddress
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from poai_spec.networking import (
    BAN_MS,
    BAN_SCORE,
    GOSSIP_BURST,
    GOSSIP_REFILL_MS,
    IPV4_PREFIX_BITS,
    IPV6_PREFIX_BITS,
    PENALTY_HALF_LIFE_MS,
    REPLAY_BUDGET_MS,
    REPLAY_BUDGET_PERIOD_MS,
    REQUEST_BURST,
    REQUEST_REFILL_MS,
    Status,
    get_penalty,
)
from poai_spec.notation import Hash32, Milliseconds, SpecError
from poaid.store import StoredPeer

MAX_KNOWN = 256
"""Entries of the address book, and of each list of peers that are not connected: more than a mesh ever needs."""
MAX_LACKING = 4_096
"""Hashes that a peer said it lacks: twice what a pruned peer can be asked for between two replays."""
DIAL_BACK_OFF_S, MAX_DIAL_BACK_OFF_S = 2.0, 300.0
"""Pause after the first failed dial, doubled with each further one, up to the second."""

MAX_FAILURES = 16
"""Failed dials that are counted: the pause has reached its longest by then."""


@dataclass
class Bucket:
    """A token bucket.

    Attributes:
        capacity: tokens at most, and at first.
        refill_s: seconds until a token comes back.
    """

    capacity: float
    refill_s: float
    _tokens: float = field(init=False)
    _at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._tokens = self.capacity

    def has(self, now: float) -> bool:
        """Whether there is any token."""
        if self._at is not None:
            self._tokens = min(self.capacity, self._tokens + (now - self._at) / self.refill_s)
        self._at = now
        return self._tokens > 0

    def take(self, now: float, tokens: float = 1) -> bool:
        """Take tokens if there are as many; tell whether there were."""
        enough = self.has(now) and self._tokens >= tokens
        if enough:
            self._tokens -= tokens
        return enough

    def charge(self, now: float, tokens: float) -> None:
        """Take tokens that were used, whether there are as many or not."""
        self.has(now)
        self._tokens -= tokens


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
        not_before: it asked for a pause until then.
        lacking: blocks that it said it does not hold.
        queued: gossip messages that wait for their turn, the one whose replay runs included.
        replaying: held while one of its blocks is imported.
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
    not_before: float = 0.0
    lacking: dict[Hash32, None] = field(default_factory=dict)
    queued: int = 0
    replaying: trio.Lock = field(default_factory=trio.Lock)
    requests: Bucket = field(default_factory=lambda: Bucket(REQUEST_BURST, REQUEST_REFILL_MS / 1000))
    gossip: Bucket = field(default_factory=lambda: Bucket(GOSSIP_BURST, GOSSIP_REFILL_MS / 1000))

    @property
    def key(self) -> bytes:
        """The identity that the fork choice's limits count by."""
        return self.peer_id.encode("ascii")

    def add_lacking(self, hashes: Iterable[Hash32]) -> None:
        """Remember blocks that it does not hold."""
        self.lacking |= dict.fromkeys(hashes)
        while len(self.lacking) > MAX_LACKING:
            del self.lacking[next(iter(self.lacking))]


def get_prefix(address: str) -> str:
    """Return the address prefix (/24, or /56 of IPv6) of a multiaddr, the text itself where it has no IP address."""
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return address
    bits = IPV4_PREFIX_BITS if parts[1] == "ip4" else IPV6_PREFIX_BITS
    try:
        return str(ipaddress.ip_network(f"{parts[2]}/{bits}", strict=False))
    except ValueError:
        return address


@dataclass
class _Record:
    """What is remembered of a peer whether it is connected or not."""

    points: float = 0.0
    at: float = 0.0
    banned_until: Milliseconds = 0


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
    """All peers: connected, remembered, and known by address."""

    def __init__(self, stored: Iterable[StoredPeer] = ()) -> None:
        self.connected: dict[str, Peer] = {}
        self._records: dict[str, _Record] = {}
        self._known: dict[str, _Known] = {}
        self._budgets: dict[str, Bucket] = {}
        for row in stored:
            if row.address:
                self._known[row.peer_id] = _Known(row.peer_id, row.address, row.seen)
            if row.banned_until:
                self._records[row.peer_id] = _Record(banned_until=row.banned_until)

    # Conduct.

    def penalise(self, peer_id: str, error: SpecError, now: float, now_ms: Milliseconds) -> bool:
        """Count a broken rule against its sender; return whether that bans it."""
        record = self._get_record(peer_id)
        record.points = self.get_points(peer_id, now) + get_penalty(error)
        record.at = now
        if record.points < BAN_SCORE:
            return False
        record.banned_until, record.points = now_ms + BAN_MS, 0.0
        return True

    def get_points(self, peer_id: str, now: float) -> float:
        """Return a peer's penalty points, which halve in `PENALTY_HALF_LIFE_MS`."""
        record = self._records.get(peer_id)
        return 0.0 if record is None else record.points * 0.5 ** ((now - record.at) * 1000 / PENALTY_HALF_LIFE_MS)

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
        """Whether the model may run for a peer's block: always for proven ones, else within its prefix's budget."""
        return peer.proven or self._get_budget(peer).has(now)

    def charge_replay(self, peer: Peer, now: float, seconds: float) -> None:
        """Count the time that the model ran in vain for an unproven peer."""
        if not peer.proven:
            self._get_budget(peer).charge(now, seconds)

    def _get_budget(self, peer: Peer) -> Bucket:
        prefix, capacity = get_prefix(peer.address), REPLAY_BUDGET_MS / 1000
        while len(self._budgets) >= MAX_KNOWN and prefix not in self._budgets:
            del self._budgets[next(iter(self._budgets))]
        return self._budgets.setdefault(prefix, Bucket(capacity, REPLAY_BUDGET_PERIOD_MS / 1000 / capacity))

    # Addresses.

    def learn(self, peer_id: str, address: str, now_ms: Milliseconds, *, wanted: bool = False) -> None:
        """Remember where a peer can be dialled; past the limit the one seen longest ago is forgotten."""
        known = self._known.setdefault(peer_id, _Known(peer_id, address, now_ms))
        known.address, known.seen, known.wanted = address, now_ms, known.wanted or wanted
        known.not_before = 0.0
        while len(self._known) > MAX_KNOWN:
            oldest = min((k for k in self._known.values() if not k.wanted), key=lambda k: k.seen, default=known)
            del self._known[oldest.peer_id]

    def forget(self, peer_id: str) -> None:
        """Forget an address that led to another network; one that the user named is tried again, rarely."""
        known = self._known.get(peer_id)
        if known is not None and not known.wanted:
            del self._known[peer_id]
        elif known is not None:
            known.failures = MAX_FAILURES

    def choose_dial(self, now: float, now_ms: Milliseconds, *, only_wanted: bool) -> tuple[str, str] | None:
        """Return peer id and address of somebody to dial now: one that the user named first, else any; or None."""
        ready = [
            known
            for known in self._known.values()
            if known.peer_id not in self.connected
            and known.not_before <= now
            and not self.is_banned(known.peer_id, now_ms)
            and (known.wanted or not only_wanted)
        ]
        ready.sort(key=lambda known: (not known.wanted, known.failures))
        return (ready[0].peer_id, ready[0].address) if ready else None

    def note_dial(self, peer_id: str, now: float, now_ms: Milliseconds, *, success: bool) -> None:
        """Remember how a dial went: after failures wait ever longer, and not all nodes equally long."""
        known = self._known.get(peer_id)
        if known is None:
            return
        known.failures = 0 if success else known.failures + 1
        if success:
            known.seen = now_ms
        pause = min(MAX_DIAL_BACK_OFF_S, DIAL_BACK_OFF_S * 2 ** min(known.failures, MAX_FAILURES))
        known.not_before = now + (0 if success else pause * random.uniform(0.75, 1.25))  # noqa: S311

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
