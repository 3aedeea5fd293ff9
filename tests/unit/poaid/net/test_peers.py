"""What is remembered of peers: rates, penalties, bans, budgets of address prefixes, and where to dial."""

from pathlib import Path

import pytest

from poai_spec.basics.notation import Invalid, Malformed, NotYet, SpecError
from poai_spec.chain.networking import (
    BAN_MS,
    GOSSIP_BURST,
    GOSSIP_REFILL_MS,
    PENALTY_HALF_LIFE_MS,
    REPLAY_BUDGET_MS,
    REPLAY_BUDGET_PERIOD_MS,
    REQUEST_BURST,
    REQUEST_REFILL_MS,
    Status,
)
from poaid.net.addresses import get_prefix, is_public
from poaid.net.peers import (
    DIAL_BACK_OFF_S,
    LOCAL_SHARE,
    MAX_DIAL_BACK_OFF_S,
    MAX_KNOWN,
    MAX_LACKING,
    PUBLIC_SHARE,
    Bucket,
    Peer,
    Peers,
)
from poaid.network_file import Network
from poaid.store.database import Database, StoredPeer

NOW_MS = 1_770_000_000_000
HALF_LIFE = PENALTY_HALF_LIFE_MS / 1000
INVALID, MALFORMED, FALSE = Invalid("state/root"), Malformed("body/root"), Invalid("work/trace")


def make_peer(address: str = "/ip4/192.0.2.7/tcp/4001", peer_id: str = "Q1") -> Peer:
    return Peer(peer_id, address, outbound=False, connected_at=0.0)


# --- Requests ---


def test_who_fails_is_left_alone_ever_longer() -> None:
    peer, pauses = make_peer(), []
    for _ in range(9):
        peer.fail(100.0)
        pauses.append(peer.not_before - 100.0)
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 320, 320]
    assert peer.failures == 9


# --- Rates ---


def test_a_bucket_begins_full_and_fills_evenly() -> None:
    bucket = Bucket(3, 2.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(11.9)
    assert bucket.take(12.0)
    assert not bucket.take(13.9)
    assert [bucket.take(1_000.0) for _ in range(4)] == [True, True, True, False]


def test_a_charge_may_be_larger_than_what_is_there() -> None:
    bucket = Bucket(3, 2.0)
    bucket.charge(0.0, 5)
    assert bucket.count(0.0) == -2
    assert bucket.count(4.0) == 0
    assert bucket.count(6.0) == 1


def test_a_peers_rates_are_the_pages() -> None:
    peer = make_peer()
    for bucket, burst, refill_ms in (
        (peer.conduct.requests, REQUEST_BURST, REQUEST_REFILL_MS),
        (peer.conduct.gossip, GOSSIP_BURST, GOSSIP_REFILL_MS),
    ):
        assert sum(bucket.take(0.0) for _ in range(2 * burst)) == burst
        assert not bucket.take(refill_ms / 1000 * 0.99)
        assert bucket.take(refill_ms / 1000)


def drain(peers: Peers, peer: Peer, now: float) -> tuple[int, int]:
    """Take what a peer may ask for; return how many requests and messages that were."""
    takers = (peers.take_request, peers.take_gossip)
    requests, gossip = (sum(take(peer, now) for _ in range(100)) for take in takers)
    return requests, gossip


def test_another_connection_of_a_peer_goes_on_with_its_rates() -> None:
    peers = Peers()
    peer = peers.connect("Q1", "/ip4/8.8.8.8/tcp/1", outbound=False, now=0.0)
    assert drain(peers, peer, 0.0) == (REQUEST_BURST, GOSSIP_BURST)
    peer.conduct.queued, peer.proven = 1, True
    assert peers.disconnect("Q1", 0.0)
    again = peers.connect("Q1", "/ip4/8.8.4.4/tcp/2", outbound=False, now=1.0)
    assert drain(peers, again, 1.0) == (1000 // REQUEST_REFILL_MS, 1000 // GOSSIP_REFILL_MS)
    assert (again.conduct.queued, again.conduct.replaying, again.proven) == (1, peer.conduct.replaying, False)
    assert peers.disconnect("Q1", 1.0)
    assert not peers.disconnect("Q1", 1.0)


def test_new_names_bring_a_prefix_no_more_than_its_connections() -> None:
    """Whoever dials with one peer id after the other; neighbours on a machine or a private network are many."""
    peers = Peers()

    def count(host: str) -> tuple[int, int]:
        drained = []
        for n in range(2 * LOCAL_SHARE):
            peer = peers.connect(f"{host} {n}", f"/ip4/{host}/tcp/{n + 1}", outbound=False, now=0.0)
            drained.append(drain(peers, peer, 0.0))
            peers.disconnect(peer.peer_id, 0.0)
        return sum(requests for requests, _ in drained), sum(gossip for _, gossip in drained)

    assert count("8.8.8.8") == (PUBLIC_SHARE * REQUEST_BURST, PUBLIC_SHARE * GOSSIP_BURST)
    assert count("8.8.8.9") == (0, 0)
    assert count("8.8.4.4") == (PUBLIC_SHARE * REQUEST_BURST, PUBLIC_SHARE * GOSSIP_BURST)
    assert count("127.0.0.1") == (LOCAL_SHARE * REQUEST_BURST, LOCAL_SHARE * GOSSIP_BURST)


def test_of_those_who_left_a_bounded_number_is_remembered() -> None:
    """The ones that have most to wait for; strangers without number push nobody's spent rates out."""
    peers = Peers()
    spent = peers.connect("Q1", "/ip4/8.8.8.8/tcp/1", outbound=False, now=0.0)
    assert drain(peers, spent, 0.0)
    peers.disconnect("Q1", 0.0)
    for n in range(2 * MAX_KNOWN):
        other = peers.connect(f"R{n}", f"/ip4/9.{n // 256}.{n % 256}.1/tcp/1", outbound=False, now=0.0)
        assert peers.take_request(other, 0.0)
        peers.disconnect(other.peer_id, 0.0)
    assert peers.count_kept()["conducts"] == peers.count_kept()["requests"] == MAX_KNOWN
    assert drain(peers, peers.connect("Q1", "/ip4/8.8.8.8/tcp/1", outbound=False, now=0.0), 0.0) == (0, 0)


# --- Penalties ---


@pytest.mark.parametrize(("error", "count"), [(INVALID, 2), (MALFORMED, 4), (FALSE, 1)])
def test_so_many_faults_ban(error: SpecError, count: int) -> None:
    """Also with a second between them: points do not trickle away."""
    peers = Peers()
    bans = [peers.penalise("Q1", error, float(n), NOW_MS) for n in range(count)]
    assert bans == [False] * (count - 1) + [True]
    assert peers.is_banned("Q1", NOW_MS)
    assert peers.is_banned("Q1", NOW_MS + BAN_MS - 1)
    assert not peers.is_banned("Q1", NOW_MS + BAN_MS)
    assert not peers.is_banned("Q2", NOW_MS)
    assert peers.get_points("Q1", 10.0) == 0  # after the ban it begins anew


def test_what_is_only_early_costs_nothing() -> None:
    peers = Peers()
    assert not any(peers.penalise("Q1", NotYet("header/future"), 0.0, NOW_MS) for _ in range(1_000))
    assert peers.get_points("Q1", 0.0) == 0


def test_points_halve_rounding_down() -> None:
    peers = Peers()
    peers.penalise("Q1", MALFORMED, 7.0, NOW_MS)
    ages = (0.0, 0.99, 1.0, 1.99, 2.0, 3.0, 4.0, 5.0, 1e6)
    assert [peers.get_points("Q1", 7.0 + age * HALF_LIFE) for age in ages] == [25, 25, 12, 12, 6, 3, 1, 0, 0]
    assert peers.get_points("Q2", 7.0) == 0


def test_one_malformed_message_every_half_life_never_bans() -> None:
    peers = Peers()
    assert not any(peers.penalise("Q1", MALFORMED, n * HALF_LIFE, NOW_MS) for n in range(1_000))


def test_half_lives_are_counted_from_the_first_fault_on() -> None:
    peers = Peers()
    peers.penalise("Q1", INVALID, 0.0, NOW_MS)
    peers.penalise("Q1", MALFORMED, 0.9 * HALF_LIFE, NOW_MS)
    assert peers.get_points("Q1", 0.9 * HALF_LIFE) == 75
    assert peers.get_points("Q1", 1.1 * HALF_LIFE) == 37


def test_records_are_bounded_and_the_newest_stay() -> None:
    peers = Peers()
    for n in range(MAX_KNOWN + 10):
        peers.penalise(f"Q{n}", INVALID, 0.0, NOW_MS)
    assert [peers.get_points(f"Q{n}", 0.0) for n in (0, 9, 10, MAX_KNOWN + 9)] == [0, 0, 50, 50]


# --- Prefixes and budgets ---


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("/ip4/192.0.2.7/tcp/4001", "192.0.2.0/24"),
        ("/ip4/192.0.2.255/tcp/9/p2p/Q1", "192.0.2.0/24"),
        ("/ip4/192.0.3.7/tcp/4001", "192.0.3.0/24"),
        ("/ip6/2001:db8:0:12ff::1/tcp/4001", "2001:db8::/48"),
        ("/ip6/2001:db8:0:ffff::9/tcp/4001", "2001:db8::/48"),
        ("/ip6/2001:db8:1:1300::9/tcp/4001", "2001:db8:1::/48"),
        ("/ip6/fe80::9%eth0/tcp/4001", "fe80::/48"),
        ("/ip6/::ffff:192.0.2.9/tcp/4001", "192.0.2.0/24"),
        ("/dns4/example.org/tcp/50001", "/dns4/example.org"),
        ("/ip4/999.0.2.7/tcp/4001", "/ip4/999.0.2.7"),
        ("/ip4", "/ip4"),
        ("", ""),
    ],
)
def test_a_prefix_is_of_the_host_alone(address: str, prefix: str) -> None:
    assert get_prefix(address) == prefix


@pytest.mark.parametrize(
    "host",
    [
        *("ip4/127.0.0.1", "ip4/10.1.2.3", "ip4/192.168.0.9", "ip4/172.16.0.1", "ip4/169.254.1.1", "ip4/100.64.0.1"),
        *("ip6/::1", "ip6/fe80::1", "ip6/fe80::1%eth0", "ip6/fd00::1", "ip6/::ffff:10.1.2.3"),
    ],
)
def test_what_the_internet_does_not_carry_is_not_public(host: str) -> None:
    assert not is_public(f"/{host}/tcp/4001")


@pytest.mark.parametrize("host", ["ip4/8.8.8.8", "ip6/2606:4700::1111", "ip6/::ffff:8.8.8.8", "dns4/example.org"])
def test_what_the_internet_carries_is_public(host: str) -> None:
    assert is_public(f"/{host}/tcp/4001")


def test_a_prefix_shares_one_budget_of_failed_replays() -> None:
    peers, budget, period = Peers(), REPLAY_BUDGET_MS / 1000, REPLAY_BUDGET_PERIOD_MS / 1000
    forger, neighbour = make_peer("/ip4/192.0.2.7/tcp/1"), make_peer("/ip4/192.0.2.99/tcp/2", "Q2")
    neighbour.proven = True  # the page makes no exception: a proven id is as free as the block that proves it
    stranger = make_peer("/ip4/192.0.3.7/tcp/1", "Q3")
    peers.charge_replay(forger, 100.0, budget - 1)
    assert peers.may_replay(neighbour, 100.0)
    peers.charge_replay(neighbour, 100.0, 3)  # what has begun is finished
    assert not peers.may_replay(forger, 100.0)
    assert not peers.may_replay(neighbour, 100.0)
    assert peers.may_replay(stranger, 100.0)
    back = 2 * period / budget
    assert not peers.may_replay(forger, 100.0 + back)
    assert peers.may_replay(forger, 100.0 + back + 1)
    peers.charge_replay(forger, 100.0 + 2 * period, budget)  # full again after a period, and no fuller
    assert not peers.may_replay(forger, 100.0 + 2 * period)


def test_asking_makes_no_budget_and_the_emptiest_are_kept() -> None:
    """Else a stranger with many prefixes would have his spent budgets forgotten."""
    peers, budget = Peers(), REPLAY_BUDGET_MS / 1000
    spent = make_peer("/ip4/192.0.2.7/tcp/1")
    peers.charge_replay(spent, 0.0, budget)
    for n in range(2 * MAX_KNOWN):
        other = make_peer(f"/ip4/198.{n // 256}.{n % 256}.1/tcp/1")
        assert peers.may_replay(other, 0.0)
        if n % 2:
            peers.charge_replay(other, 0.0, 0.1)
    for n in range(MAX_KNOWN):
        peers.charge_replay(make_peer(f"/ip4/203.0.{n}.1/tcp/1"), 0.0, 0.2)
    assert peers.count_kept()["budgets"] == MAX_KNOWN
    assert not peers.may_replay(spent, 0.0)


# --- What a peer lacks ---


def make_status(head: bytes) -> Status:
    return Status(
        version=1,
        network_id=bytes(32),
        fork_hash=bytes(4),
        fork_next=0,
        head=head,
        height=1,
        work=1,
        bodies_from=1,
        assumed=0,
    )


def test_what_a_peer_lacks_is_bounded_and_forgotten_with_a_new_head() -> None:
    peer = make_peer()
    hashes = [n.to_bytes(32, "big") for n in range(MAX_LACKING + 5)]
    peer.note_status(make_status(b"\1" * 32), 1.0)
    peer.add_lacking(hashes)
    assert list(peer.lacking) == hashes[5:]
    peer.note_status(make_status(b"\1" * 32), 2.0)
    assert len(peer.lacking) == MAX_LACKING
    peer.note_status(make_status(b"\2" * 32), 3.0)
    assert peer.lacking == {}
    assert (peer.status, peer.status_at) == (make_status(b"\2" * 32), 3.0)


# --- Addresses ---


def choose(peers: Peers, now: float = 0.0, *, wanted: bool = False) -> str | None:
    chosen = peers.choose_dial(now, NOW_MS, wanted=wanted)
    return None if chosen is None else chosen[0]


def test_whom_to_dial() -> None:
    peers = Peers()
    assert choose(peers) is None
    peers.learn("Q1", "/one", NOW_MS)
    peers.learn("Q2", "/two", NOW_MS, wanted=True)
    assert peers.choose_dial(0.0, NOW_MS, wanted=True) == ("Q2", "/two")
    assert peers.choose_dial(0.0, NOW_MS, wanted=False) == ("Q1", "/one")
    peers.connected["Q2"] = make_peer(peer_id="Q2")
    assert choose(peers) == "Q1"
    assert choose(peers, wanted=True) is None
    peers.penalise("Q1", FALSE, 0.0, NOW_MS)
    assert choose(peers) is None


def measure_pause(peers: Peers, now: float) -> float:
    """Return for how long nobody is dialled from `now` on, within a hundredth of a second."""
    return next(n / 100 for n in range(100_000) if choose(peers, now + n / 100) is not None)


def test_the_pause_after_failed_dials_doubles_up_to_a_limit() -> None:
    peers, now = Peers(), 0.0
    peers.learn("Q1", "/one", NOW_MS)
    for failures in range(20):
        peers.note_dial("Q1", now, NOW_MS, success=False)
        pause = measure_pause(peers, now)
        middle = min(MAX_DIAL_BACK_OFF_S, DIAL_BACK_OFF_S * 2**failures)
        assert 0.75 * middle <= pause <= 1.25 * middle + 0.01
        now += pause
    peers.note_dial("Q1", now, NOW_MS + 5, success=True)
    assert 0.75 * DIAL_BACK_OFF_S <= measure_pause(peers, now) <= 1.25 * DIAL_BACK_OFF_S + 0.01
    assert peers.export(NOW_MS)[0].seen == NOW_MS + 5


@pytest.mark.parametrize(("interval_s", "longest_s"), [(600, 300.0), (3_600, 300.0), (15, 7.5), (1, 2.0)])
def test_no_pause_is_longer_than_half_a_block_interval(interval_s: int, longest_s: float) -> None:
    peers = Peers(interval=interval_s * 1_000)
    peers.learn("Q1", "/one", NOW_MS)
    for _ in range(20):
        peers.note_dial("Q1", 0.0, NOW_MS, success=False)
    assert 0.75 * longest_s <= measure_pause(peers, 0.0) <= 1.25 * longest_s + 0.01


def test_not_all_nodes_wait_equally_long() -> None:
    pauses = set[float]()
    for _ in range(5):
        peers = Peers()
        peers.learn("Q1", "/one", NOW_MS)
        peers.note_dial("Q1", 0.0, NOW_MS, success=False)
        pauses.add(measure_pause(peers, 0.0))
    assert len(pauses) > 1


def test_only_the_users_news_of_an_address_end_its_pause() -> None:
    peers = Peers()
    peers.learn("Q1", "/one", NOW_MS)
    peers.note_dial("Q1", 0.0, NOW_MS, success=False)
    for _ in range(3):  # as mDNS would
        peers.learn("Q1", "/new", NOW_MS)
        assert peers.choose_dial(0.0, NOW_MS, wanted=False) is None
    assert peers.choose_dial(10 * DIAL_BACK_OFF_S, NOW_MS, wanted=False) == ("Q1", "/new")
    peers.learn("Q1", "/named", NOW_MS, wanted=True)
    assert peers.choose_dial(0.0, NOW_MS, wanted=True) == ("Q1", "/named")
    peers.note_dial("Q9", 0.0, NOW_MS, success=True)  # nobody knows it


def test_an_address_that_the_user_named_is_not_replaced() -> None:
    peers = Peers()
    peers.learn("Q1", "/named", NOW_MS, wanted=True)
    peers.learn("Q1", "/spoofed", NOW_MS)
    assert peers.choose_dial(0.0, NOW_MS, wanted=True) == ("Q1", "/named")
    peers.learn("Q1", "/named/anew", NOW_MS, wanted=True)
    assert peers.choose_dial(0.0, NOW_MS, wanted=True) == ("Q1", "/named/anew")


def test_the_address_book_is_bounded_and_what_the_user_named_stays() -> None:
    peers = Peers()
    peers.learn("named", "/named", 0, wanted=True)
    for n in range(MAX_KNOWN + 3):
        peers.learn(f"Q{n}", f"/{n}", NOW_MS + n)
    kept = {row.peer_id for row in peers.export(NOW_MS)}
    assert kept == {"named", *(f"Q{n}" for n in range(3, MAX_KNOWN + 3))}


def test_a_node_of_another_network_is_forgotten_or_dialled_rarely() -> None:
    peers = Peers()
    peers.learn("Q1", "/one", NOW_MS)
    peers.learn("Q2", "/two", NOW_MS, wanted=True)
    peers.forget("Q1", 5.0)
    peers.forget("Q2", 5.0)
    peers.forget("Q3", 5.0)
    peers.note_dial("Q2", 5.0, NOW_MS, success=True)  # the dial itself went well, and may end after the refusal
    assert [row.peer_id for row in peers.export(NOW_MS)] == ["Q2"]
    assert choose(peers, 5.0 + MAX_DIAL_BACK_OFF_S - 1, wanted=True) is None
    assert choose(peers, 5.0 + MAX_DIAL_BACK_OFF_S, wanted=True) == "Q2"


def test_addresses_and_bans_last_over_a_restart(network: Network, tmp_path: Path) -> None:
    peers = Peers()
    peers.learn("Q1", "/one", NOW_MS)
    peers.learn("Q2", "/two", NOW_MS + 1)
    peers.penalise("Q2", FALSE, 0.0, NOW_MS)
    peers.penalise("Q3", FALSE, 0.0, NOW_MS)
    peers.penalise("Q4", FALSE, 0.0, NOW_MS - BAN_MS)  # over by now
    peers.penalise("Q5", INVALID, 0.0, NOW_MS)
    rows = {
        StoredPeer("Q1", "/one", NOW_MS, 0),
        StoredPeer("Q2", "/two", NOW_MS + 1, NOW_MS + BAN_MS),
        StoredPeer("Q3", "", 0, NOW_MS + BAN_MS),
    }
    assert set(peers.export(NOW_MS)) == rows
    with Database.create_or_open(tmp_path, network, "mini") as store:
        store.write_peers(peers.export(NOW_MS))
    with Database.open(tmp_path) as store:
        again = Peers(store.read_peers())
    assert set(again.export(NOW_MS)) == rows
    assert [again.is_banned(f"Q{n}", NOW_MS) for n in range(1, 6)] == [False, True, True, False, False]
    assert choose(again) == "Q1"


def test_what_is_read_from_the_store_is_bounded() -> None:
    rows = [StoredPeer(f"Q{n}", f"/{n}", NOW_MS - n, NOW_MS + 1) for n in range(3 * MAX_KNOWN)]
    peers = Peers(rows)
    assert peers.count_kept()["addresses"] == peers.count_kept()["records"] == MAX_KNOWN
    assert "Q0" in peers._known
