"""Peers that lie, stall, flood and forge, on real sockets: the node lives, bans them, and follows the honest chain.

What each wants is bounded by a rule of the page `networking` or `fork-choice`; the table in `docs/reliability.md` says
what was found with these tests.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
import trio
from libp2p.peer.id import ID
from structlog.testing import capture_logs

from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Address, Milliseconds
from poai_spec.chain import fork_choice
from poai_spec.chain.block import get_judge_rules, make_judge
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.networking import (
    BLOCKS_PROTOCOL,
    GOODBYE_PROTOCOL,
    HEADERS_PROTOCOL,
    MAX_BLOCK_BYTES,
    MAX_FRUITLESS,
    REQUEST_BURST,
    REQUEST_REFILL_MS,
    SAMPLE_BLOCKS,
    STATUS_PROTOCOL,
    Blocks,
    BlocksRequest,
    Goodbye,
    HeadersRequest,
    Result,
    encode_frame,
    encode_response,
)
from poai_spec.model.loss import compute_trace_digest
from poai_spec.proof.work import get_quiz
from poai_tools.vectors.chains import TRUE, Alteration, make_core, seal_block, wins
from poaid import node
from poaid.chain.admission import Importer, Sender
from poaid.net import peers, sync
from poaid.net import transport as network
from poaid.net.libp2p.gossip import MESHSUB
from poaid.net.libp2p.host import MAX_CONNECTIONS, MAX_STREAMS_PER_PEER
from poaid.net.peers import MAX_KNOWN
from poaid.node import MAX_QUEUED
from tests.harness.engines import CountingEngine
from tests.harness.liars import Forger, Liar, lying, reset
from tests.harness.processes import Made, Maker, read_chain, running, until
from tests.unit.poaid.net.test_transport import ends

MINER: Address = b"\x31" * 20
OTHER: Address = b"\x32" * 20
FLOOD_PEERS = 8

pytestmark = pytest.mark.trio


@pytest.fixture
def engine(maker: Maker) -> CountingEngine:
    """The engine of all nodes of a test, which counts."""
    counting = CountingEngine(maker.judge.models[0].engine)
    maker.judge = make_judge(maker.judge.config, maker.judge.models[0].questions, counting)
    return counting


@asynccontextmanager
async def liars(victim: Made, count: int) -> AsyncIterator[list[Liar]]:
    """Run some liars, connected to the victim."""
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(lying(victim)) for _ in range(count)]
        for liar in crowd:
            await liar.connect()
        ids = {liar.peer_id for liar in crowd}
        await until(lambda: ids <= victim.node.peers.connected.keys(), "the liars are connected")
        yield crowd


async def check_health(victim: Made, honest: Sequence[Made] = ()) -> None:
    """Wait until nothing is in flight, and compare what is kept with its limits."""
    node, tree = victim.node, victim.node.chain.tree
    await until(lambda: not node.importer.busy and not node.verifier.count_waiting(), "nothing is in flight")
    await until(lambda: not any(peer.conduct.queued for peer in node.peers.connected.values()), "nothing is queued")
    assert tree.count_waiting() <= fork_choice.MAX_WAITING
    assert len(tree.orphans) <= fork_choice.MAX_ORPHANS
    assert len(tree.invalid) <= fork_choice.MAX_INVALID
    assert len(node.peers.connected) <= MAX_CONNECTIONS
    assert max(node.peers.count_kept().values()) <= MAX_KNOWN
    for made in honest:
        peer_id = made.node.network.peer_id
        assert node.peers.get_points(peer_id, trio.current_time()) == 0
        assert not node.peers.is_banned(peer_id, 0)


def get_rules(logs: Sequence[object], liar: Liar) -> list[str]:
    """Return the rules that a liar was logged to have broken, in order."""
    lines = [line for line in logs if isinstance(line, dict) and line.get("peer") == liar.peer_id]
    return [line["rule"] for line in lines if line["event"] == "A peer broke a rule"]


def seal_on(
    maker: Maker, blocks: Sequence[Block], *, alteration: Alteration = TRUE, miner: Address = OTHER,
    pace: Milliseconds = 1_000, stamp: Milliseconds | None = None,
) -> Block:  # fmt: skip
    """Return a block on top of true ones, with something false in it.

    Args:
        maker: for the rules and the model.
        blocks: from height 1 on.
        alteration: what is false.
        miner: gets the subsidy.
        pace: milliseconds after the last of `blocks`.
        stamp: the time stamp instead, ms since 1970.
    """
    forger = Forger(maker.make()).follow(blocks)
    at = forger.chain[-1].core.timestamp + pace if stamp is None else stamp
    core = make_core(forger.chain, forger.state, maker.judge.config, at, miner)
    return seal_block(core, forger.chain, maker.judge, alteration)


def flip(index: int) -> Alteration:
    """Return what makes the trace false from an entry on."""
    return Alteration(trace=lambda trace: (*trace[:index], *(bytes([h[0] ^ 1]) + h[1:] for h in trace[index:])))


# Bytes.


async def test_garbage_and_wrong_lengths_ban(maker: Maker) -> None:
    """The fourth malformed message bans, on whatever protocol; a peer beside goes on."""
    old = maker.make(blocks=read_chain()[:30])
    new = maker.make(peers=[old])
    attacks = [
        (MESHSUB[0], b"\x28" + b"\xff" * 40),
        (MESHSUB[0], b"\xff" * 16),
        (STATUS_PROTOCOL, b"\xff\xff\xff\xff"),
        (HEADERS_PROTOCOL, encode_frame(bytes(3_000))),
        (BLOCKS_PROTOCOL, encode_frame(b"\x01\x02\x03")),
        (STATUS_PROTOCOL, encode_frame(bytes(5))),
        (GOODBYE_PROTOCOL, encode_frame(bytes(3))),
    ]
    async with running(old, new):
        for protocol, data in attacks:
            with capture_logs() as logs:
                async with liars(new, 1) as [liar]:
                    for count in range(1, 5):
                        await ends(await liar.send(protocol, data))
                        await until(lambda: len(get_rules(logs, liar)) >= count, f"{protocol} {count}")  # noqa: B023
                    await until(liar.is_banned, f"{protocol}: banned")
                    length = data in {attacks[2][1], attacks[3][1]}
                    rule = "networking/frame-length" if length else "encoding/undecodable"
                    assert get_rules(logs, liar) == [rule] * 4
        await until(lambda: new.head == old.head, "the chain is there")
        await check_health(new, [old])


async def test_slow_and_many_streams_do_not_stop_a_sync(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred streams, each of which begins a frame and never ends it: 32 are served, and cut off in time."""
    monkeypatch.setattr(network, "RESPONSE_TIMEOUT_MS", 5_000)
    old = maker.make(blocks=read_chain()[:60])
    new = maker.make()
    async with running(old, new), liars(new, 1) as [liar]:
        streams = [await liar.peer.open_raw(new.node.network) for _ in range(300)]
        opened = new.node.network.host.open_streams
        await until(lambda: opened[liar.peer.host.get_id()] <= MAX_STREAMS_PER_PEER, "the others are reset")
        for stream in streams[MAX_STREAMS_PER_PEER:]:
            await ends(stream)
        for stream in streams[:MAX_STREAMS_PER_PEER]:
            await stream.reset()
        await until(lambda: opened[liar.peer.host.get_id()] <= 2, "the first are over")
        slow = [await liar.send(HEADERS_PROTOCOL, b"\x28\x00\x00\x00\x01") for _ in range(20)]
        new.node.learn(old.address, wanted=True)
        await until(lambda: new.head == old.head, "the chain is there")
        for stream in slow:
            await ends(stream)
        assert not liar.is_banned()  # a frame that ends early is nobody's fault
        await check_health(new, [old])


async def test_who_dials_again_finds_its_rates_as_they_were(maker: Maker) -> None:
    victim = maker.make(blocks=read_chain()[:30])
    request = encode(HeadersRequest((victim.node.chain.tree.genesis.hash,), bytes(32), 10))
    results = Counter[int]()
    async with running(victim), lying(victim) as liar:
        start = trio.current_time()
        for _ in range(3):
            await liar.connect()
            await until(lambda: liar.peer_id in victim.node.peers.connected, "connected")
            for _ in range(REQUEST_BURST):
                results[(await liar.ask(HEADERS_PROTOCOL, request))[0]] += 1
            await liar.peer.host.disconnect(ID.from_string(victim.node.network.peer_id))
            await until(lambda: liar.peer_id not in victim.node.peers.connected, "gone")
        allowed = REQUEST_BURST + (trio.current_time() - start) * 1000 / REQUEST_REFILL_MS
    assert REQUEST_BURST <= results[Result.OK] <= allowed
    assert set(results) == {Result.OK, Result.TOO_MANY_REQUESTS}


async def test_goodbyes_take_tokens(maker: Maker) -> None:
    """A flood of goodbyes is a line in the log for each token, not for each message."""
    victim = maker.make()
    with capture_logs() as logs:
        async with running(victim), liars(victim, 1) as [liar]:
            for _ in range(60):
                await (await liar.send(GOODBYE_PROTOCOL, encode_frame(encode(Goodbye(1))))).close()
            await until(
                lambda: victim.node.peers.connected[liar.peer_id].conduct.requests.tokens < 1, "no token is left"
            )
            lines = [line for line in logs if line["event"] == "Peer says goodbye"]
            assert len(lines) < 60


# False blocks.


@pytest.mark.parametrize("entry", range(5))
async def test_a_forged_trace_bans_wherever_it_begins_to_be_false(
    maker: Maker, engine: CountingEngine, entry: int
) -> None:
    """Entries 0 to 3 of a model with three layers; 4 stands for a true trace with a false loss."""
    chain = read_chain()[:4]
    alteration = flip(entry) if entry < 4 else Alteration(extra_loss=1)
    false = seal_on(maker, chain[:3], alteration=alteration)
    victim = maker.make(blocks=chain[:3])
    honest = maker.make(blocks=chain, peers=[victim])
    with capture_logs() as logs:
        async with running(victim), liars(victim, 1) as [liar]:
            engine.passes = 0
            await liar.gossip(encode(false))
            await until(liar.is_banned, "the forger is banned")
            assert engine.passes == 1
            assert get_rules(logs, liar) == ["work/loss" if entry == 4 else "work/trace"]
            assert compute_block_hash(false.header) in victim.node.chain.tree.invalid
            async with running(honest):
                await until(lambda: victim.head == honest.head, "the honest block is accepted")
                await check_health(victim, [honest])


async def test_of_a_burst_of_false_blocks_one_is_replayed(maker: Maker, engine: CountingEngine) -> None:
    """The first bans; what its sender has queued behind it is not heard any more."""
    chain = read_chain()[:3]
    burst = [seal_on(maker, chain, alteration=flip(1), miner=bytes([n]) * 20) for n in range(1, MAX_QUEUED + 1)]
    victim = maker.make(blocks=chain)
    async with running(victim), liars(victim, 1) as [liar]:
        engine.passes = 0
        await liar.gossip(*map(encode, burst))
        await until(liar.is_banned, "the forger is banned")
        await check_health(victim)
        assert engine.passes == 1


def forge_core(maker: Maker, blocks: Sequence[Block], count: int) -> list[Block]:
    """Return blocks of one core, with other false traces and losses; every second one that is tried wins."""
    forger = Forger(maker.make()).follow(blocks)
    core = make_core(forger.chain, forger.state, maker.judge.config, forger.chain[-1].core.timestamp + 1_000, OTHER)
    quiz = get_quiz(
        core, forger.chain, get_judge_rules(maker.judge, len(forger.chain)), maker.judge.models[0].questions
    )
    (evaluation,) = maker.judge.models[0].engine.evaluate([quiz.tokens], [quiz.scored])
    forged: list[Block] = []
    for loss in range(evaluation.loss, evaluation.loss + 100):
        trace = flip(loss % len(evaluation.trace)).trace(evaluation.trace)
        header = Header(core, loss, compute_trace_digest(trace))
        if wins(header, forger.chain, maker.judge.config):
            forged.append(Block(header, EMPTY_BODY, trace))
    return forged[:count]


async def test_headers_of_one_core_cost_two_passes(maker: Maker, engine: CountingEngine) -> None:
    """Eight peers send one core under eight false traces, some true for longer than others."""
    chain = read_chain()[:3]
    forged = forge_core(maker, chain, FLOOD_PEERS)
    victim = maker.make(blocks=chain)
    async with running(victim), liars(victim, FLOOD_PEERS) as crowd:
        engine.passes = 0
        for liar, block in zip(crowd, forged, strict=True):
            await liar.gossip(encode(block))
        await until(lambda: all(liar.is_banned() for liar in crowd), "all are banned")
        assert 1 <= engine.passes <= 2
        await check_health(victim)


async def test_a_prefix_has_one_budget(maker: Maker, engine: CountingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is spent nothing is replayed for neighbours; their true block counts when another prefix sends it."""
    monkeypatch.setattr(peers, "BUDGET_S", 1e-9)
    monkeypatch.setattr(peers, "BUDGET_REFILL_S", 1e9)  # nothing comes back, however slow the machine is
    chain = read_chain()[:4]
    forged = [seal_on(maker, chain[:3], alteration=flip(1), miner=bytes([n]) * 20) for n in (1, 2)]
    victim = maker.make(blocks=chain[:3])
    async with running(victim), liars(victim, 3) as [first, second, third]:
        engine.passes = 0
        await first.gossip(encode(forged[0]))
        await until(first.is_banned, "the forger is banned")
        await second.gossip(encode(forged[1]))
        await third.gossip(encode(chain[3]))
        hashes = {compute_block_hash(block.header) for block in (forged[1], chain[3])}
        await until(lambda: hashes <= victim.node.chain.tree.entries.keys(), "the headers are kept")
        await check_health(victim)
        assert (engine.passes, victim.height) == (1, 3)
        assert [liar.is_banned() for liar in (second, third)] == [False, False]
        monkeypatch.setattr(peers, "get_prefix", lambda _: "another")
        await third.gossip(encode(chain[3]))
        await until(lambda: victim.height == 4, "the true block counts")


async def test_who_has_left_gets_no_replay(maker: Maker, engine: CountingEngine) -> None:
    """What nobody can be charged for is not sampled: else forgers would send headers and hang up."""
    victim = maker.make()
    for header in Forger(victim).invent(20).chain[1:]:
        victim.node.chain.tree.receive_header(encode(header), b"gone")
    goal = victim.node.chain.tree.get_heaviest_waiting()
    assert goal is not None
    async with running(victim):
        await until(lambda: victim.node.chain.tree.count_waiting() == 0, "the headers are forgotten")
    assert engine.passes == 0


async def test_another_body_or_trace_does_not_poison_a_block(maker: Maker, engine: CountingEngine) -> None:
    """The header is true: copies with other contents are their senders' fault, four of them a ban; the block counts."""
    chain = read_chain()[:4]
    victim = maker.make(blocks=chain[:3])
    true = chain[3]
    copies = [replace(true, trace=(bytes([n]) * 32, *true.trace[1:])) for n in range(3)]
    with capture_logs() as logs:
        async with running(victim), liars(victim, 2) as [liar, honest]:
            engine.passes = 0
            await liar.gossip(*map(encode, copies))
            await until(lambda: len(get_rules(logs, liar)) == 3, "each is a fault")
            await liar.gossip(encode(replace(true, trace=())))
            await until(liar.is_banned, "four are a ban")
            assert get_rules(logs, liar) == ["work/trace-digest"] * 4
            assert engine.passes == 0
            assert compute_block_hash(true.header) not in victim.node.chain.tree.invalid
            await honest.gossip(encode(true))
            await until(lambda: victim.height == 4, "the true block counts")
            assert not honest.is_banned()
            await check_health(victim)


async def test_false_contents_in_answers_do_not_stop_a_sync(maker: Maker) -> None:
    """A liar passes on true headers, then serves their blocks with other traces."""
    blocks = read_chain()[:40]
    old, new = maker.make(blocks=blocks), maker.make()
    by_hash = {compute_block_hash(block.header): block for block in blocks}

    async def serve(payload: bytes) -> bytes:
        asked = [by_hash[h] for h in decode(BlocksRequest, payload).hashes]
        return encode_response(Result.OK, Blocks(tuple(replace(b, trace=b.trace[::-1]) for b in asked), ()))

    async with running(old, new), liars(new, 1) as [liar]:
        forger = Forger(new).follow(blocks)
        liar.answers |= {HEADERS_PROTOCOL: forger.answer_headers, BLOCKS_PROTOCOL: serve}
        liar.claim(forger.head, 40)
        await liar.tell_status()
        await until(liar.is_banned, "the liar is banned")
        new.node.learn(old.address, wanted=True)
        await until(lambda: new.head == old.head, "the chain is there")
        await check_health(new, [old])


async def test_sync_and_gossip_of_one_peer_take_turns(maker: Maker, engine: CountingEngine) -> None:
    """While a block that a peer has gossiped is replayed, those that it serves wait."""
    blocks = read_chain()[:5]
    victim = maker.make()
    by_hash = {compute_block_hash(block.header): block for block in blocks}

    async def serve(payload: bytes) -> bytes:
        asked = decode(BlocksRequest, payload).hashes
        return encode_response(Result.OK, Blocks(tuple(by_hash[h] for h in asked), ()))

    async with running(victim), liars(victim, 1) as [peer]:
        forger = Forger(victim).follow(blocks)
        peer.answers |= {HEADERS_PROTOCOL: forger.answer_headers, BLOCKS_PROTOCOL: serve}
        peer.claim(forger.head, 5)
        engine.passes = 0
        lock = victim.node.peers.connected[peer.peer_id].conduct.replaying
        async with lock:
            await peer.tell_status()
            await until(lambda: lock.statistics().tasks_waiting == 1 or engine.passes > 0, "the blocks have come")
            assert engine.passes == 0
        await until(lambda: victim.height == 5, "the chain is there")


async def test_what_is_too_large_does_not_wait(maker: Maker) -> None:
    """It is refused while a replay of the same peer's runs, rather than kept until that has ended."""
    victim = maker.make(blocks=read_chain()[:3])
    with capture_logs() as logs:
        async with running(victim), liars(victim, 1) as [liar]:
            async with victim.node.peers.connected[liar.peer_id].conduct.replaying:
                await liar.gossip(*(bytes([n]) * (MAX_BLOCK_BYTES + 1) for n in range(4)))
                await until(liar.is_banned, "four are a ban")
            assert get_rules(logs, liar) == ["networking/block-size"] * 4
    registry, label = victim.node.metrics.registry, {"code": "networking/block-size"}
    assert registry.get_sample_value("poai_blocks_rejected_total", label) == 4


# Repetitions and forks.


async def test_old_blocks_cost_nothing_and_are_no_fault(maker: Maker, engine: CountingEngine) -> None:
    chain = read_chain()[:30]
    victim = maker.make(blocks=chain)
    async with running(victim), liars(victim, 1) as [liar]:
        engine.passes = 0
        await liar.gossip(*map(encode, chain), *map(encode, chain))
        await until(lambda: victim.node.peers.connected[liar.peer_id].conduct.gossip.tokens < 5, "all have come")
        await check_health(victim)
        assert (engine.passes, victim.node.peers.get_points(liar.peer_id, trio.current_time())) == (0, 0)


async def test_light_old_branches_are_not_replayed(maker: Maker, engine: CountingEngine) -> None:
    """True blocks on old ones, below the head's work: NotYet, whatever they cost their maker."""
    chain = read_chain()[:30]
    light = [seal_on(maker, chain[:height], miner=bytes([height]) * 20) for height in (2, 10, 20)]
    victim = maker.make(blocks=chain)
    async with running(victim), liars(victim, 1) as [liar]:
        engine.passes = 0
        await liar.gossip(*map(encode, light))
        hashes = {compute_block_hash(block.header) for block in light}
        await until(lambda: hashes <= victim.node.chain.tree.entries.keys(), "the headers are kept")
        await check_health(victim)
        assert (engine.passes, victim.height, liar.is_banned()) == (0, 30, False)


async def test_equal_forks_end_at_one_head(maker: Maker) -> None:
    """Four blocks of equal work in different orders: the hash over all ties decides, the same everywhere."""
    chain = read_chain()[:5]
    forks = [seal_on(maker, chain, miner=bytes([n]) * 20) for n in range(1, 5)]
    nodes = [maker.make(blocks=chain) for _ in range(2)]
    async with running(*nodes), liars(nodes[0], 1) as [one], liars(nodes[1], 1) as [other]:
        await one.gossip(*map(encode, forks))
        await other.gossip(*map(encode, reversed(forks)))
        await until(lambda: all(made.node.chain.tree.get_side_count() == 3 for made in nodes), "all count")
        assert nodes[0].head == nodes[1].head
        for made in nodes:
            await check_health(made)


# Headers.


async def test_a_forged_heavy_tail_is_caught_by_the_sample(maker: Maker, engine: CountingEngine) -> None:
    """A true beginning of 40 blocks, then 200 invented headers: caught before the beginning has been fetched."""
    blocks = read_chain()
    old, new = maker.make(blocks=blocks), maker.make()
    forger = Forger(new).follow(blocks[:40]).invent(200)
    async with running(old, new), liars(new, 1) as [liar]:
        liar.answers[HEADERS_PROTOCOL] = forger.answer_headers
        liar.claim(forger.head, 240)
        engine.passes = 0
        await liar.tell_status()
        await until(liar.is_banned, "the forger is banned")
        assert engine.passes <= SAMPLE_BLOCKS
        assert liar.asked.get(BLOCKS_PROTOCOL, 0) == 0
        new.node.learn(old.address, wanted=True)
        await until(lambda: new.head == old.head, "the chain is there")
        await check_health(new, [old])


async def test_a_light_chain_of_headers_fills_no_more_than_its_share(
    maker: Maker, engine: CountingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers on genesis, a minute apart, at the lowest difficulty: never heavy enough to be fetched or replayed."""
    monkeypatch.setattr(fork_choice, "MAX_WAITING_PER_PEER", 100)
    blocks = read_chain()
    old, new = maker.make(blocks=blocks), maker.make(blocks=blocks[:150])
    forger = Forger(new).invent(140, pace=60_000)
    async with running(old, new), liars(new, 1) as [liar]:
        liar.answers[HEADERS_PROTOCOL] = forger.answer_headers
        liar.claim(forger.head, 140)
        engine.passes = 0
        await liar.tell_status()
        await until(lambda: new.node.chain.tree.waiting_of(liar.peer_id.encode()) == 100, "its share is full")
        assert engine.passes == 0
        new.node.learn(old.address, wanted=True)
        await until(lambda: new.head == old.head, "the chain is there")
        await check_health(new, [old])


async def test_orphans_without_end_are_bounded(maker: Maker) -> None:
    chain = read_chain()[:3]
    victim = maker.make(blocks=chain)
    forger = Forger(victim).follow(chain)
    headers = forger.invent(30).chain[4:]
    async with running(victim), liars(victim, 3) as crowd:
        for index, liar in enumerate(crowd):
            parents = [bytes([index, n]) * 16 for n in range(len(headers))]
            cores = [replace(h.core, parent_hash=parent) for h, parent in zip(headers, parents, strict=True)]
            orphans = [Block(replace(h, core=core), EMPTY_BODY, ()) for h, core in zip(headers, cores, strict=True)]
            await liar.gossip(*map(encode, orphans))
        await until(lambda: all(liar.asked.get(STATUS_PROTOCOL) for liar in crowd), "each was asked for its status")
        await until(lambda: len(victim.node.chain.tree.orphans) == 3 * fork_choice.MAX_ORPHANS_PER_PEER, "the share")
        await check_health(victim)
        assert not any(liar.is_banned() for liar in crowd)


@pytest.mark.parametrize("how", ["reset", "silent", "drip"])
async def test_who_claims_most_and_gives_nothing_does_not_stop_a_sync(
    maker: Maker, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of six peers claim most work and do not answer for headers, or give one true header at a time."""
    monkeypatch.setattr(network, "RESPONSE_TIMEOUT_MS", 5_000)
    blocks = read_chain()[:120]
    old = [maker.make(blocks=blocks) for _ in range(4)]
    new = maker.make()
    forger = Forger(new).follow(blocks)

    async def drip(payload: bytes) -> bytes:
        await trio.sleep(1)
        request = decode(HeadersRequest, payload)
        return await forger.answer_headers(encode(replace(request, count=1)))

    async def hang(_: bytes) -> None:
        await trio.sleep_forever()

    async with running(new, *old), liars(new, 2) as crowd:
        for liar in crowd:
            liar.answers[HEADERS_PROTOCOL] = {"reset": reset, "silent": hang, "drip": drip}[how]
            liar.claim(bytes(32), 10_000)
            await liar.tell_status()
        await until(lambda: all(liar.asked.get(HEADERS_PROTOCOL) for liar in crowd), "both were asked")
        for made in old:  # strangers, as the liars are
            made.node.learn(new.address, wanted=True)
        await until(lambda: new.head == old[0].head, "the chain is there")
        await check_health(new, old)


async def test_silent_strangers_in_numbers_do_not_stop_a_sync(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven claim most work and say nothing, for the whole 10 s of each request; one honest stranger is among them.

    Each of them that is met costs a head start. The honest peer's blocks do not wait for the silent.
    """
    monkeypatch.setattr(sync, "HEAD_START_S", 0.1)
    blocks = read_chain()[:120]
    old, new = maker.make(blocks=blocks), maker.make()

    async def hang(_: bytes) -> None:
        await trio.sleep_forever()

    async with running(new, old), liars(new, 7) as crowd:
        for liar in crowd:
            liar.answers |= {HEADERS_PROTOCOL: hang, BLOCKS_PROTOCOL: hang}
            liar.claim(bytes(32), 10_000)
            await liar.tell_status()
        await until(lambda: any(liar.asked.get(HEADERS_PROTOCOL) for liar in crowd), "the silent are being asked")
        old.node.learn(new.address, wanted=True)
        await until(lambda: new.head == old.head, "the chain is there")
        await check_health(new, [old])


async def test_a_true_branch_without_blocks_does_not_stop_mining(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A liar keeps the blocks of a heavier branch back and does not even answer."""
    monkeypatch.setattr(network, "RESPONSE_TIMEOUT_MS", 5_000)
    blocks = read_chain()[:60]
    victim = maker.make(blocks=blocks[:50], miner=MINER)
    victim.node.mining.stop_height = 50
    asked: list[bytes] = []

    async def hang(payload: bytes) -> None:
        asked.append(payload)
        await trio.sleep_forever()

    async with running(victim), liars(victim, 1) as [liar]:
        forger = Forger(victim).follow(blocks)
        liar.answers |= {HEADERS_PROTOCOL: forger.answer_headers, BLOCKS_PROTOCOL: hang}
        liar.claim(forger.head, 60)
        await liar.tell_status()
        await until(lambda: victim.node.sync.stalled, "nobody serves the branch")
        victim.node.peers.connected[liar.peer_id].not_before = 0.0
        victim.node.sync.wake()
        await until(lambda: len(asked) == 2, "it is asked again")
        assert victim.node.sync.goal is not None
        assert victim.node.why_not_mine() is None
        victim.node.mining.stop_height = None
        await until(lambda: victim.height > 53, "mining goes on")
        await check_health(victim)


async def test_who_does_not_tell_its_status_delays_nobody(maker: Maker) -> None:
    """All are asked at once; one after the other it would take 80 s."""
    victim = maker.make()

    async def hang(_: bytes) -> None:
        await trio.sleep_forever()

    async with running(victim), liars(victim, FLOOD_PEERS) as crowd:
        for liar in crowd:
            liar.answers[STATUS_PROTOCOL] = hang
        victim.node.synced.set()
        await until(lambda: all(liar.asked.get(STATUS_PROTOCOL) for liar in crowd), "all are asked")


async def test_who_never_tells_its_status_loses_its_place(maker: Maker) -> None:
    victim = maker.make()
    async with running(victim), liars(victim, 1) as [liar]:
        liar.answers[STATUS_PROTOCOL] = reset
        for _ in range(MAX_FRUITLESS):
            assert liar.peer_id in victim.node.peers.connected
            await victim.node.refresh_status(liar.peer_id)
        await until(lambda: not victim.node.peers.connected, "the connection is closed")
        assert not liar.is_banned()


# Other networks, and the clock.


async def test_statuses_of_another_network_end_the_connection(maker: Maker) -> None:
    victim = maker.make()
    with capture_logs() as logs:
        async with running(victim):
            for _ in range(3):
                async with liars(victim, 1) as [liar]:
                    answer = await liar.tell_status(network_id=bytes(32))
                    assert answer == bytes([Result.OTHER_NETWORK])
                    await until(lambda: not victim.node.peers.connected, "the connection is closed")
                    assert not liar.is_banned()
            await check_health(victim)
    assert sum(line["event"].startswith("Peer refused: it is on network") for line in logs) == 3


class Clock:
    """The clock of all nodes of a test."""

    def __init__(self, now: Milliseconds) -> None:
        self.now = now

    def __call__(self) -> Milliseconds:
        return self.now


@pytest.fixture
def clock(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still a second after block 10 of the vectors' chain."""
    clock = Clock(read_chain()[9].header.core.timestamp + 1_000)
    monkeypatch.setattr(node, "get_time", clock)
    return clock


async def test_stamps_at_the_limit(maker: Maker, clock: Clock) -> None:
    """`max_future` ahead is accepted; a millisecond more is put off without blame, and heard when it is time."""
    chain = read_chain()[:10]
    limit = clock.now + maker.network.config.max_future
    early, late = (seal_on(maker, chain, stamp=stamp, miner=bytes([stamp % 200]) * 20) for stamp in (limit, limit + 1))
    victim, later = maker.make(blocks=chain), maker.make(blocks=chain)
    async with running(victim, later), liars(victim, 1) as [liar], liars(later, 1) as [other]:
        await liar.gossip(encode(early))
        await until(lambda: victim.height == 11, "the block at the limit counts")
        await other.gossip(encode(late))
        await until(lambda: later.node.peers.connected[other.peer_id].conduct.gossip.tokens < 32, "it has come")
        await check_health(later)
        assert (later.height, compute_block_hash(late.header) in later.node.chain.tree.entries) == (10, False)
        assert later.node.peers.get_points(other.peer_id, trio.current_time()) == 0
        clock.now += 1
        await other.gossip(encode(late))
        await until(lambda: later.height == 11, "it counts a millisecond later")


async def test_a_node_that_was_idle_follows_headers_of_today(maker: Maker, clock: Clock) -> None:
    """Nothing but headers has come since the start: the clock that they are compared with is the present one."""
    chain = read_chain()[:80]
    new = maker.make(blocks=chain[:10])
    async with running(new):
        clock.now = chain[-1].header.core.timestamp
        old = maker.make(blocks=chain)
        async with running(old):
            new.node.learn(old.address, wanted=True)
            await until(lambda: new.head == old.head, "the chain is there")
            await check_health(new, [old])


# All at once.


async def test_floods_of_eight_peers_keep_one_replay_a_peer(
    maker: Maker, engine: CountingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rubbish, forgeries, orphans and old blocks, 64 messages of each peer; an honest peer's blocks come through."""
    running_for: dict[bytes, int] = {}
    most: dict[bytes, int] = {}
    replay = Importer.replay

    async def watched(self: Importer, checked: object, sender: Sender) -> object:
        running_for[sender.key] = running_for.get(sender.key, 0) + 1
        most[sender.key] = max(most.get(sender.key, 0), running_for[sender.key])
        try:
            return await replay(self, checked, sender)  # type: ignore[arg-type]
        finally:
            running_for[sender.key] -= 1

    monkeypatch.setattr(Importer, "replay", watched)
    chain = read_chain()[:40]
    forged = [seal_on(maker, chain[:20], alteration=flip(n % 4), miner=bytes([n]) * 20) for n in range(1, 9)]
    victim, honest = maker.make(blocks=chain[:20]), maker.make(blocks=chain)
    queued = 0
    async with running(victim), liars(victim, FLOOD_PEERS) as crowd:
        async with trio.open_nursery() as nursery:
            for index, liar in enumerate(crowd):
                rubbish = [bytes([index, n]) * 100 for n in range(3)]
                old = [*map(encode, chain[:20])]
                data = [*rubbish, *old[index:], encode(forged[index]), *map(encode, forged), *old[:index]]
                nursery.start_soon(liar.gossip, *data, *data)
            nursery.start_soon(run_beside, honest, victim)
            while victim.head != honest.head:
                queued = max([queued, *(peer.conduct.queued for peer in victim.node.peers.connected.values())])
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        assert queued <= MAX_QUEUED
        assert set(most.values()) <= {1}
        await check_health(victim, [honest])


async def run_beside(made: Made, victim: Made) -> None:
    """Run a node that dials the victim."""
    made.node.learn(victim.address, wanted=True)
    async with running(made):
        await trio.sleep_forever()


async def test_a_sync_with_a_third_liars_ends_at_the_honest_head(maker: Maker) -> None:
    """Four honest nodes and two liars: one forges headers, one serves true headers and no blocks."""
    blocks = read_chain()
    old = [maker.make(blocks=blocks) for _ in range(4)]
    new = maker.make(peers=old)
    async with running(*old), lying(new) as forger, lying(new) as hoarder:
        chains = (Forger(new).follow(blocks[:100]).invent(300), Forger(new).follow(blocks))
        async with running(new):
            for liar, chain in zip((forger, hoarder), chains, strict=True):
                liar.answers[HEADERS_PROTOCOL] = chain.answer_headers
                liar.claim(chain.head, len(chain.chain) - 1)
                await liar.connect()
                await liar.tell_status()
            await until(lambda: new.head == old[0].head, "the chain is there")
            await until(forger.is_banned, "the forger is banned")
            assert not hoarder.is_banned()
            await check_health(new, old)
