"""A running node: chain, verifier, miner, sync and network in one trio nursery."""

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from poai_spec.basics.containers import Block
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Address, Hash32, Height, Invalid, Malformed, NotYet, SpecError
from poai_spec.basics.parameters import PROTOCOL_VERSION, compute_network_id
from poai_spec.chain.networking import (
    BLOCKS_PROTOCOL,
    GOODBYE_PROTOCOL,
    HEADERS_PROTOCOL,
    MAX_BLOCKS_REQUEST_BYTES,
    MAX_FRUITLESS,
    MAX_GOODBYE_BYTES,
    MAX_HEADERS_REQUEST_BYTES,
    MAX_STATUS_BYTES,
    RESULT_BYTES,
    STATUS_INTERVAL_MS,
    STATUS_PROTOCOL,
    VALIDATION_TIMEOUT_MS,
    BlocksRequest,
    Goodbye,
    HeadersRequest,
    Reason,
    Result,
    Status,
    Verdict,
    check_blocks_request,
    check_headers_request,
    check_topic,
    decode_response,
    encode_response,
    get_blocks_topic,
    get_verdict,
)
from poai_spec.chain.upgrades import ForkId, check_fork_id, get_fork_id, get_unknown_upgrade
from poaid.chain.admission import BusyError, Importer, Sender
from poaid.chain.chain_state import ChainState, HeadChange
from poaid.chain.judges import KEPT_BLOCKS, Models
from poaid.chain.worker import Turn, Verifier
from poaid.layout import read_height, read_timestamp
from poaid.metrics import Metrics, Protocol
from poaid.net.handlers import PeerError, Refusal
from poaid.net.peers import Peer, Peers
from poaid.net.serving import answer_blocks, answer_headers
from poaid.net.sync import Ask, Sync
from poaid.net.transport import Transport
from poaid.network_file import Network as NetworkRules
from poaid.process.seldom import Seldom
from poaid.produce.attempts import get_time
from poaid.produce.loop import Mining
from poaid.store.database import Database

MAX_QUEUED = 8
"""Gossip messages of one peer that wait for its one replay; honest peers send two or three in a row after a fork."""
FEW_PEERS = 8
"""While fewer are connected, known addresses are dialled too, not only those that the user named."""
DIAL_INTERVAL_S = 1.0
"""Between two dials, or two looks for somebody to dial."""
FIRST_PEER_S = 10.0
"""How long a node that was given peers waits for the first one before it mines on what it has."""
DROPPED_S = 5.0
"""How soon a peer is asked for its status again when a message was dropped for want of time: it may have been a block
that nobody sends twice, and two tips of equal work are settled only when all have both."""
ANNOUNCE_S = 0.5
"""How long a sync may pause before its end is told to the peers."""
GOODBYE_S = 1.0
"""What the last message may take."""
HOUSEKEEPING_S = 30.0
"""How often the address book is written and old bodies are dropped."""
MAX_BUG_TEXT = 200
"""Characters of an unexpected error: it may have a peer's bytes in it."""
PROTOCOL_NAMES: dict[str, Protocol] = {
    STATUS_PROTOCOL: "status", HEADERS_PROTOCOL: "headers", BLOCKS_PROTOCOL: "blocks", GOODBYE_PROTOCOL: "goodbye",
}  # fmt: skip

log = structlog.get_logger()


@dataclass(frozen=True)
class Options:
    """What a user decides about a node.

    Attributes:
        miner: gets the subsidies; None does not mine.
        p2p_host: IP address to listen on.
        p2p_port: TCP port.
        peer_multiaddrs: peers to stay connected to, each ending with a peer id.
        mdns: whether to look for peers on the local network.
        prune_depth: bodies deeper below the head are dropped; None keeps all.
        assume_valid: hash of a block whose ancestors need no replay.
        stop_height: no block above it is mined.
    """

    miner: Address | None
    p2p_host: str
    p2p_port: int
    peer_multiaddrs: tuple[str, ...] = ()
    mdns: bool = True
    prune_depth: int | None = None
    assume_valid: Hash32 | None = None
    stop_height: Height | None = None


COPIED_IDENTITY = (
    "has this node's own identity, so the two can never connect: their data directories are copies of each other; "
    "remove p2p.key in one of them"
)


class Node:
    """A node of one network; implements `poaid.net.handlers.Handlers`.

    Args:
        store: the data directory.
        rules: the network.
        models: what its blocks are judged with.
        options: the user's.
        seed: secret of the peer identity, 32 bytes.
    """

    def __init__(self, store: Database, rules: NetworkRules, models: Models, options: Options, seed: bytes) -> None:
        self.store, self.rules, self.models, self.options = store, rules, models, options
        self.judge = judge = models.judge
        self.started = time.monotonic()
        self.network_id = compute_network_id(rules.config)
        self.metrics = Metrics()
        self.chain = ChainState(store, rules.config, get_time(), rules.upgrades)
        self.verifier = Verifier(self.metrics.verify_wait_seconds.observe)
        self.importer = Importer(self.chain, judge, self.verifier, self.metrics, get_time)
        self.peers = Peers(store.read_peers(), rules.config.spacing)
        ask = Ask(self._request, self._blame, self._make_sender, self._start_parting)
        self.sync = Sync(self.importer, self.peers, ask, options.assume_valid)
        self._topics = {get_blocks_topic(each): each for each in rules.list_rules()}
        self._turned = trio.Event()
        self.network = Transport(
            seed=seed,
            host=options.p2p_host,
            port=options.p2p_port,
            topics=set(self._topics),
            joined=self._choose_topics(),
            limits={
                STATUS_PROTOCOL: MAX_STATUS_BYTES,
                HEADERS_PROTOCOL: MAX_HEADERS_REQUEST_BYTES,
                BLOCKS_PROTOCOL: MAX_BLOCKS_REQUEST_BYTES,
                GOODBYE_PROTOCOL: MAX_GOODBYE_BYTES,
            },
            handlers=self,
            local_name=self.network_id.hex()[:8] if options.mdns else None,
        )
        self.mining = Mining(
            self.importer, options.miner, self.why_not_mine, self._publish, get_time, options.stop_height
        )
        self.reorgs = 0
        self._seldom = Seldom()
        self.synced, self._dropped = trio.Event(), False
        self.sync.on_progress = self._on_progress
        self.importer.on_head.append(self._on_head)
        for address in (*options.peer_multiaddrs, *rules.bootstrap):
            self.learn(address, wanted=True)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Take part in the network until cancelled.

        Raises:
            NodeError: the port is taken, or the database cannot be written.
        """
        async with self.network.run(), trio.open_nursery() as nursery:
            self._nursery = nursery
            for address in self.network.addresses:
                log.info("Listening", address=address)
            nursery.start_soon(self.verifier.run)
            for task in (self.sync.run, self.mining.run, self._exchange_status, self._keep_house, self._follow_rules):
                nursery.start_soon(task)
            nursery.start_soon(self.models.follow, self._get_lowest, self._on_model)
            for wanted in (True, False):
                nursery.start_soon(self._dial, wanted)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._write_peers()
                with trio.move_on_after(GOODBYE_S) as scope:
                    scope.shield = True
                    await self._say_goodbye()

    def is_syncing(self) -> bool:
        """Whether a heavier branch is being fetched; not while its blocks are only asked for again, in vain so far."""
        return self.sync.goal is not None and not self.sync.goal.replayed and not self.sync.stalled

    def why_not_mine(self) -> str | None:
        missing = self.models.explain_missing(self.chain.head.height + 1)
        if missing is not None:
            return missing
        if self.is_syncing():  # not while it is stalled: one who holds back a block would stop everybody's mining
            return "syncing"
        wanted = bool(self.options.peer_multiaddrs or self.rules.bootstrap)
        if wanted and not self.peers.connected and time.monotonic() - self.started < FIRST_PEER_S:
            return "waiting for the first peer"
        return None

    def _on_head(self, change: HeadChange) -> None:
        header = change.new.header
        self._turned.set()
        if change.depth:
            self.reorgs += 1
            log.info("Reorganised", depth=change.depth, fork=change.fork.height, height=change.new.height)
        own = header.core.miner == self.options.miner and self.chain.head is change.new
        log.info(
            "Block mined!" if own and not change.depth else "New head",
            height=header.core.height,
            hash="0x" + change.new.hash.hex(),
            miner="0x" + header.core.miner.hex(),
            loss_bits=header.loss / 65536,
        )

    def _on_progress(self) -> None:
        self.synced.set()

    # Handlers of the network.

    async def on_connected(self, peer: str, address: str, *, outbound: bool) -> None:
        """Register a peer; whoever dialled asks for the status."""
        if self.peers.is_banned(peer, get_time()):
            await self._part(peer, Reason.FAULT)
            return
        self.peers.connect(peer, address, outbound=outbound, now=trio.current_time())
        log.info("Peer connected", peer=peer, address=address, outbound=outbound)
        if outbound:
            await self.refresh_status(peer)

    def on_disconnected(self, peer: str) -> None:
        """Forget the connection; what is known of the peer stays."""
        if self.peers.disconnect(peer, trio.current_time()):
            log.info("Peer disconnected", peer=peer)
        self.sync.wake()

    def on_discovered(self, address: str) -> None:
        """Remember a peer that mDNS has found."""
        own = address.endswith(f"/p2p/{self.network.peer_id}")
        if own and address not in self.network.addresses and self._seldom.count("own identity") is not None:
            log.warning(f"The node at {address.partition('/p2p/')[0]} {COPIED_IDENTITY}")
        self.learn(address)

    def on_refused(self, reason: Refusal) -> None:
        """Count a connection that was closed."""
        self.metrics.connection_refused(reason)
        if reason == "own identity" and self._seldom.count(reason) is not None:
            log.warning(f"A peer {COPIED_IDENTITY}")

    def on_bug(self, error: Exception) -> None:
        """Count a bug of ours, and write down where it is."""
        self.metrics.bugs.inc()
        trace = traceback.extract_tb(error.__traceback__)
        place = f"{Path(trace[-1].filename).name}:{trace[-1].lineno}" if trace else "nowhere"
        if (times := self._seldom.count(place)) is not None:
            log.error(
                "A bug in this program: please report it", error=repr(error)[:MAX_BUG_TEXT], place=place, times=times,
                traceback="".join(traceback.format_tb(error.__traceback__)),
            )  # fmt: skip

    def on_fault(self, peer: str, error: SpecError) -> None:
        """Count a fault of the wire."""
        self._blame(peer, error)

    async def on_gossip(self, peer: str, topic: str, data: bytes) -> Verdict:
        """Judge a gossiped block."""
        verdict = await self._judge(peer, topic, data)
        self.metrics.gossip(verdict.value)
        return verdict

    def _find_heard(self, peer: str) -> Peer | None:
        """Return a connected peer, unless it is banned and on its way out."""
        return None if self.peers.is_banned(peer, get_time()) else self.peers.connected.get(peer)

    async def _judge(self, peer: str, topic: str, data: bytes) -> Verdict:
        sender = self._find_heard(peer)
        if sender is None:
            return Verdict.IGNORE
        if sender.conduct.queued >= MAX_QUEUED or not self.peers.take_gossip(sender, trio.current_time()):
            self._dropped = True
            return Verdict.IGNORE
        sender.conduct.queued += 1
        try:
            with trio.move_on_after(VALIDATION_TIMEOUT_MS / 1000):
                return await self._import_gossip(sender, topic, data)
        finally:
            sender.conduct.queued -= 1
        self._dropped = True
        return Verdict.IGNORE

    async def _import_gossip(self, sender: Peer, topic: str, data: bytes) -> Verdict:
        arrived = get_time()
        try:
            self.importer.check_size(data, self._topics[topic])  # before it waits: it may be as large as an RPC
            self._check_topic(topic, data)
            async with sender.conduct.replaying:
                if self._find_heard(sender.peer_id) is None:  # banned for what it sent before this
                    return Verdict.IGNORE
                new = await self.importer.import_block(data, self._make_sender(sender), "gossip")
        except BusyError:
            self._dropped = True
            return Verdict.IGNORE
        except SpecError as error:
            self._blame(sender.peer_id, error)
            if isinstance(error, NotYet):
                self._follow_up(sender, error)
            return get_verdict(error)
        if new:
            sender.proven = True
            self.metrics.propagation_seconds.observe((arrived - read_timestamp(data)) / 1000)
        return Verdict.ACCEPT if new else Verdict.IGNORE

    def _check_topic(self, topic: str, data: bytes) -> None:
        """Refuse a block on the topic of other rules than those of its height; what is no block is that first of all.

        Raises:
            Malformed: `encoding/undecodable`, `networking/topic`.
        """
        try:
            check_topic(topic, self.chain.tree.get_rules(read_height(data)))
        except Malformed:
            decode(Block, data)
            raise

    def _follow_up(self, sender: Peer, error: NotYet) -> None:
        """Ask for what a postponed block lacks: its ancestors' headers, or their blocks."""
        if error.code == "fork-choice/unknown-parent" and self._nursery is not None:
            self._nursery.start_soon(self.refresh_status, sender.peer_id)
        self.sync.wake()

    async def on_request(self, peer: str, protocol: str, payload: bytes) -> bytes | None:
        """Answer a request within the peer's rate."""
        asker = self._find_heard(peer)
        if asker is None or not self.peers.take_request(asker, trio.current_time()):
            return None if protocol == GOODBYE_PROTOCOL else encode_response(Result.TOO_MANY_REQUESTS)
        if protocol == GOODBYE_PROTOCOL:
            await self._take_leave(peer, decode(Goodbye, payload))
            return None
        try:
            if protocol == STATUS_PROTOCOL:
                return await self._answer_status(asker, decode(Status, payload))
            answer = self._answer(protocol, payload)
            return encode_response(Result.NOT_AT_HAND) if answer is None else bytes([Result.OK]) + answer
        except Malformed as error:
            self._blame(peer, error)
            return encode_response(Result.NOT_UNDERSTOOD)

    def _answer(self, protocol: str, payload: bytes) -> bytes | None:
        if protocol == HEADERS_PROTOCOL:
            headers = decode(HeadersRequest, payload)
            check_headers_request(headers)
            return answer_headers(self.chain, headers)
        blocks = decode(BlocksRequest, payload)
        check_blocks_request(blocks)
        return answer_blocks(self.chain, blocks)

    # Status.

    def make_status(self) -> Status:
        """Return what this node says about itself."""
        head = self.chain.head
        fork = get_fork_id(self.rules.config, self.rules.upgrades, head.height)
        return Status(
            version=PROTOCOL_VERSION, network_id=self.network_id, fork_hash=fork.hash, fork_next=fork.next,
            head=head.hash, height=head.height, work=head.work,
            bodies_from=self.chain.get_bodies_from(), assumed=head.assumed,
        )  # fmt: skip

    async def _answer_status(self, asker: Peer, status: Status) -> bytes:
        unfit = self._note_status(asker, status)
        if unfit is not None:
            self._start_parting(asker.peer_id, unfit)
            return encode_response(Result[unfit.name])
        return encode_response(Result.OK, self.make_status())

    def _note_status(self, peer: Peer, status: Status) -> Reason | None:
        """Remember what a peer says; return why it cannot be on the same chain, or None."""
        if status.network_id != self.network_id:
            theirs, ours = status.network_id.hex()[:8], self.network_id.hex()[:8]
            if self._seldom.count(f"{peer.peer_id} network") is not None:
                log.warning(
                    f"Peer refused: it is on network {theirs}, this is {ours}; both need the same --network, --model, "
                    "--target and --test-corpus", peer=peer.peer_id, peer_network_id="0x" + status.network_id.hex()
                )  # fmt: skip
            return Reason.OTHER_NETWORK
        if not self._fits_rules(peer, status):
            return Reason.OTHER_RULES
        peer.note_status(status, trio.current_time())
        self.sync.wake()
        return None

    def _fits_rules(self, peer: Peer, status: Status) -> bool:
        """Tell whether a peer's fork id is compatible; say why not, and warn of an upgrade that one side lacks."""
        network, head = self.rules, self.chain.head.height
        theirs = ForkId(status.fork_hash, status.fork_next)
        try:
            check_fork_id(network.config, network.upgrades, head, theirs)
        except Invalid as error:
            if self._seldom.count(f"{peer.peer_id} {error.code}") is not None:
                known = network.describe_upgrades(head)
                log.warning(
                    f"Peer refused: {error.detail}; this node has changed {known}; compare the [[upgrades]] of both "
                    "network files", peer=peer.peer_id, rule=error.code
                )  # fmt: skip
            return False
        height = get_unknown_upgrade(network.config, network.upgrades, head, theirs)
        if height and self._seldom.count(f"{peer.peer_id} {height}") is not None:
            known = network.describe_upgrade(height)
            who = f"A peer does not know the upgrade at height {height} ({known})" if known else (
                f"A peer changes its rules at height {height}, this node does not"
            )  # fmt: skip
            log.warning(
                f"{who}: it is refused from there on unless both network files get the same [[upgrades]]",
                peer=peer.peer_id,
            )
        return True

    async def refresh_status(self, peer_id: str) -> None:
        """Exchange statuses with a peer; part from one of another network."""
        peer = self.peers.connected.get(peer_id)
        if peer is None:
            return
        try:
            limit = MAX_STATUS_BYTES + RESULT_BYTES
            payload = await self._request(peer, STATUS_PROTOCOL, encode(self.make_status()), limit)
            if payload[:RESULT_BYTES] == bytes([Result.OTHER_RULES]):
                log.warning(
                    "Refused by a peer whose rules have changed otherwise; compare the [[upgrades]] of both network "
                    "files", peer=peer_id
                )  # fmt: skip
                self.peers.forget(peer_id, trio.current_time())
            if payload[:RESULT_BYTES] == bytes([Result.OTHER_NETWORK]):
                log.warning(
                    "Refused by a peer of another network; both need the same --network, --model, --target and "
                    "--test-corpus", peer=peer_id
                )  # fmt: skip
                self.peers.forget(peer_id, trio.current_time())
            unfit = self._note_status(peer, decode_response(Status, payload))
        except PeerError as error:
            log.debug("No status", peer=peer_id, why=str(error))
            peer.fail(trio.current_time())
            if peer.status is None and peer.failures >= MAX_FRUITLESS:
                await self._part(peer_id, Reason.USELESS)  # it keeps a place that another could fill
            return
        except NotYet:
            self._dropped = True  # too many requests, then
            return
        except SpecError as error:
            self._blame(peer_id, error)
            return
        if unfit is not None:
            self.peers.forget(peer_id, trio.current_time())
            await self._part(peer_id, unfit)

    # Rules that change.

    def _get_lowest(self) -> Height:
        """Return the lowest height whose blocks may still be judged: near the head, or of a branch that is fetched."""
        lowest, goal = max(self.chain.head.height - KEPT_BLOCKS, 0), self.sync.goal
        return lowest if goal is None else min(lowest, goal.get_replayed_ancestor().height)

    def _on_model(self) -> None:
        self.sync.wake()
        self.mining.wake()

    def _choose_topics(self) -> set[str]:
        """Return the topics of the next block's rules, of an upgrade within an epoch, and of one not an epoch ago."""
        height, epoch = self.chain.head.height + 1, self.rules.config.epoch_blocks
        chosen = {self.chain.tree.get_rules(h) for h in (max(height - epoch, 0), height, height + epoch)}
        return {topic for topic, rules in self._topics.items() if rules in chosen}

    async def _publish(self, data: bytes) -> None:
        await self.network.publish(get_blocks_topic(self.chain.tree.get_rules(read_height(data))), data)

    async def _follow_rules(self) -> None:
        """When the head moves: join and leave topics, and look again at the peers once it has passed an upgrade."""
        since = self.chain.tree.get_rules(self.chain.head.height).since
        while True:
            await self._turned.wait()
            self._turned = trio.Event()
            await self.network.join(self._choose_topics())
            missing = self.models.explain_missing(self.chain.head.height + 1)
            if missing is not None and self._seldom.count(missing) is not None:
                log.warning("Neither mining nor importing until the file is there", why=missing)
            now = self.chain.tree.get_rules(self.chain.head.height).since
            if now == since:
                continue
            log.info("Rules changed", height=self.chain.head.height, change=self.rules.describe_upgrade(now))
            since = now
            for peer in list(self.peers.connected.values()):
                if peer.status is not None and not self._fits_rules(peer, peer.status):
                    self.peers.forget(peer.peer_id, trio.current_time())
                    self._start_parting(peer.peer_id, Reason.OTHER_RULES)

    async def _exchange_status(self) -> None:
        """Exchange statuses with every peer: from time to time, soon where gossip was dropped, and after a sync.

        What a sync has brought was not gossiped: peers on other branches learn of it in this way.
        """
        while True:
            with trio.move_on_after(DROPPED_S) as waiting:
                await self.synced.wait()
            age = 0.0 if self._dropped else STATUS_INTERVAL_MS / 1000
            if not waiting.cancelled_caught:
                await trio.sleep(ANNOUNCE_S)
                if self.is_syncing():
                    continue
                self.synced, age = trio.Event(), 0.0
                await self._tell_ties()
            self._dropped = False
            due = trio.current_time() - age
            async with trio.open_nursery() as nursery:  # at once: who does not answer costs the others nothing
                for peer in list(self.peers.connected.values()):
                    if peer.status_at <= due:
                        nursery.start_soon(self.refresh_status, peer.peer_id)

    async def _tell_ties(self) -> None:
        """Gossip the tips of equal work where there are more than two.

        Which is the head depends on all of them, and statuses tell of those alone that are somebody's head: without the
        others, parts of a network that was cut in three would disagree until the next block.
        """
        tips = self.chain.tree.get_best_tips()
        for tip in tips if len(tips) > 2 else ():
            if (data := self.chain.get_block_data(tip)) is not None:
                await self._publish(data)

    # Peers.

    async def _request(self, peer: Peer, protocol: str, payload: bytes, limit: int) -> bytes:
        name = PROTOCOL_NAMES[protocol]
        try:
            answer = await self.network.request(peer.peer_id, protocol, payload, limit)
        except PeerError:
            self.metrics.request(name, "failed")
            raise
        self.metrics.request(name, "ok" if answer[:RESULT_BYTES] == bytes([Result.OK]) else "refused")
        return answer

    def _make_sender(self, peer: Peer) -> Sender:
        return Sender(
            key=peer.key,
            turn=Turn.PROVEN if peer.proven else Turn.UNPROVEN,
            may_replay=lambda: self.peers.may_replay(peer, trio.current_time()),
            charge=lambda seconds: self.peers.charge_replay(peer, trio.current_time(), seconds),
        )

    def _blame(self, peer_id: str, error: SpecError) -> None:
        """Count a broken rule; ban and disconnect whoever has broken too many."""
        if isinstance(error, NotYet):
            return
        log.info("A peer broke a rule", peer=peer_id, rule=error.code, detail=error.detail)
        if self.peers.penalise(peer_id, error, trio.current_time(), get_time()):
            log.warning("Peer banned", peer=peer_id, rule=error.code)
            self.metrics.bans.inc()
            self._start_parting(peer_id, Reason.FAULT)

    def _start_parting(self, peer_id: str, reason: Reason) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._part, peer_id, reason)

    async def _part(self, peer_id: str, reason: Reason) -> None:
        """Say goodbye and disconnect."""
        with suppress(PeerError, SpecError), trio.move_on_after(GOODBYE_S):
            await self.network.request(peer_id, GOODBYE_PROTOCOL, encode(Goodbye(reason)), None)
        await self.network.disconnect(peer_id)

    async def _take_leave(self, peer_id: str, goodbye: Goodbye) -> None:
        known = goodbye.reason in set(Reason)
        why = Reason(goodbye.reason).name.lower().replace("_", " ") if known else str(goodbye.reason)
        log.info("Peer says goodbye", peer=peer_id, reason=why)

    async def _say_goodbye(self) -> None:
        async with trio.open_nursery() as nursery:
            for peer_id in list(self.peers.connected):
                nursery.start_soon(self._part, peer_id, Reason.SHUTTING_DOWN)

    def learn(self, address: str, *, wanted: bool = False) -> None:
        peer_id = address.rpartition("/p2p/")[2]
        if peer_id != self.network.peer_id:
            self.peers.learn(peer_id, address, get_time(), wanted=wanted)

    async def _dial(self, wanted: bool) -> None:
        """Keep connected to the peers that the user named, or to some others: neither waits for the other's dials."""
        while True:
            enough = not wanted and len(self.peers.connected) >= FEW_PEERS
            chosen = None if enough else self.peers.choose_dial(trio.current_time(), get_time(), wanted=wanted)
            if chosen is None:
                await trio.sleep(DIAL_INTERVAL_S)
                continue
            peer_id, address = chosen
            try:
                await self.network.connect(address)
            except PeerError as error:
                log.info("Dialling failed", peer=peer_id, why=str(error))
                self.peers.note_dial(peer_id, trio.current_time(), get_time(), success=False)
            else:
                self.peers.note_dial(peer_id, trio.current_time(), get_time(), success=True)
                await trio.sleep(DIAL_INTERVAL_S)

    async def _keep_house(self) -> None:
        """Write the address book and drop old bodies, from time to time."""
        while True:
            await trio.sleep(HOUSEKEEPING_S)
            self._write_peers()
            if self.options.prune_depth is not None:
                dropped = self.chain.prune(self.options.prune_depth)
                if dropped:
                    log.info("Pruned", blocks=dropped, bodies_from=self.chain.get_bodies_from())

    def _write_peers(self) -> None:
        self.store.write_peers(self.peers.export(get_time()))
