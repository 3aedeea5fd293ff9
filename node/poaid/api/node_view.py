"""A running node as its HTTP server sees it: implements `poaid.view.NodeView`."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version

import trio

from poai_engine.errors import ModelError
from poai_engine.models.corpus_maker import get_text
from poai_engine.models.gguf_file import Vocabulary, read_vocabulary
from poai_engine.models.model_store import resolve_model
from poai_spec.basics.notation import Address, Hash32, Height
from poai_spec.chain.upgrades import Rules, get_fork_hash
from poai_spec.execution.state import Account
from poai_spec.model.loss import compute_l_hat
from poai_spec.proof.corpus import Corpus, Questions
from poai_spec.proof.difficulty import compute_target, compute_work
from poai_spec.proof.economics import compute_subsidy
from poai_spec.proof.epoch import get_epoch
from poai_spec.proof.lexicon import get_tokens
from poai_spec.proof.quiz import Quiz, get_quiz_name
from poai_spec.proof.work import get_quiz
from poaid.chain.chain_state import HeadChange
from poaid.chain.evaluation import Task, evaluate
from poaid.chain.judges import list_upgrades
from poaid.chain.tree import Branch, Entry, find_fork, walk
from poaid.chain.worker import Turn
from poaid.node import Node
from poaid.view import AccountView, Activity, BlockView, Event, PeerView, QuizView, ScoredTokenView, StatusView

MAX_EVENTS = 64
"""Events that wait for one reader: half a minute of status; who is slower loses the oldest."""
MAX_NAMES = 1_024
"""Blocks whose quiz is remembered by name, 0.4 MB: the page shows twenty, one request at most a hundred."""
STATUS_EVENT_S = 1.0
"""How often the status is sent to those who listen."""


def to_hex(data: bytes) -> str:
    """Return bytes as 0x and lowercase digits."""
    return "0x" + data.hex()


def find_answers(quiz: Quiz, source: Questions, first: int) -> Iterator[int]:
    """Yield the positions of answer tokens, whether they are scored or not, and also behind the quiz's end.

    Args:
        quiz: of this source.
        source: the network's lexicon or corpus.
        first: where the first question begins.
    """
    if isinstance(source, Corpus):
        lengths = [(len(item.prompt), len(item.answer)) for item in quiz.items]
        line_end = len(source.line_end)
    else:
        lengths = [(len(get_tokens(source, q.prompt)), len(get_tokens(source, q.answer))) for q in quiz.questions]
        line_end = len(source.ids["\n"])
    for prompt, answer in lengths:
        yield from range(first + prompt, first + prompt + answer)
        first += prompt + answer + line_end


class View:
    """What is shown of a node.

    Args:
        node: running or about to.
        vocabulary: texts of the model's tokens.
        model: how people name the model.
    """

    def __init__(self, node: Node, vocabulary: Vocabulary, model: str) -> None:
        self._node, self._model = node, model
        self._vocabularies = {node.rules.config.model.gguf_sha256: vocabulary}
        self._readers: list[tuple[trio.MemorySendChannel[Event], trio.MemoryReceiveChannel[Event]]] = []
        self._blocks = Counter[Address]()
        self._names: dict[Hash32, tuple[str, str]] = {}
        self._counted = node.chain.tree.genesis
        self._follow_head()  # every block, once, before anybody waits
        node.importer.on_head.append(self._on_head)

    async def run(self) -> None:
        """Send the status to those who listen, for ever."""
        while True:
            await trio.sleep(STATUS_EVENT_S)
            if self._readers:
                self._send(Event("status", self.get_status()))

    # The node.

    def get_status(self) -> StatusView:
        """See `NodeView`."""
        node, chain, mining = self._node, self._node.chain, self._node.mining
        head, miner = chain.head, node.options.miner
        rules = chain.tree.get_rules(head.height + 1)
        header = head.header
        return StatusView(
            version=version("poai"),
            network=node.rules.name,
            network_id=to_hex(node.network_id),
            profile=rules.profile.decode("ascii"),
            model=self._get_model_name(rules),
            activity=self._get_activity(),
            reason=mining.reason,
            height=head.height,
            head=to_hex(head.hash),
            head_time=header.core.timestamp,
            genesis=to_hex(chain.tree.genesis.hash),
            work=str(head.work),
            target=f"{compute_target(Branch(head), rules):#x}",
            epoch=get_epoch(head.height + 1, rules),
            spacing=rules.spacing,
            miner=to_hex(miner or bytes(20)),
            balance=str(chain.state.get(miner or bytes(20), Account()).balance),
            quizzes_per_second=round(mining.get_rate(), 3),
            peer_count=len(node.peers.connected),
            peer_id=node.network.peer_id,
            addresses=node.network.addresses,
            mined=mining.mined,
            reorgs=node.reorgs,
            side_blocks=chain.tree.get_side_count(),
            orphans=len(chain.tree.orphans),
            waiting=chain.tree.count_waiting(),
            bodies_from=chain.get_bodies_from(),
            assumed=len(chain.assumed),
            sync=node.sync.get_view(),
            fork=to_hex(get_fork_hash(chain.tree.get_rules(head.height))),
            upgrades=list_upgrades(node.rules, head.height, node.models.list_needs()),
            uptime=round(time.monotonic() - node.started, 1),
        )

    def _get_activity(self) -> Activity:
        if self._node.sync.stalled:
            return "stalled"
        if self._node.is_syncing():
            return "syncing"
        return "mining" if self._node.mining.reason is None else "idle"

    def get_peers(self) -> list[PeerView]:
        """See `NodeView`."""
        now = trio.current_time()
        return [
            PeerView(
                peer_id=peer.peer_id,
                address=peer.address,
                outbound=peer.outbound,
                height=peer.status.height if peer.status else None,
                work=str(peer.status.work) if peer.status else None,
                score=-round(self._node.peers.get_points(peer.peer_id, now), 1),
                proven=peer.proven,
                connected=round(now - peer.connected_at, 1),
            )
            for peer in self._node.peers.connected.values()
        ]

    # The chain.

    def get_block(self, reference: str) -> BlockView | None:
        """See `NodeView`."""
        entry = self._find(reference)
        return None if entry is None else self._describe(entry)

    def list_blocks(self, top: Height | None, count: int) -> list[BlockView]:
        """See `NodeView`."""
        head = self._node.chain.head
        start = head.height if top is None else min(top, head.height)
        return [self._describe(head.get_ancestor(height)) for height in range(start, max(-1, start - count), -1)]

    def _find(self, reference: str) -> Entry | None:
        tree = self._node.chain.tree
        if reference == "head":
            return tree.head
        if reference.startswith("0x"):
            try:
                return tree.entries.get(bytes.fromhex(reference[2:]))
            except ValueError:
                return None
        if not (reference.isascii() and reference.isdigit() and len(reference) < 20):
            return None
        height = int(reference)
        return tree.head.get_ancestor(height) if height <= tree.head.height else None

    def _describe(self, entry: Entry) -> BlockView:
        chain, header = self._node.chain, entry.header
        name, l_hat = (None, None) if entry.parent is None else self._get_name_and_l_hat(entry)
        return BlockView(
            height=entry.height,
            hash=to_hex(entry.hash),
            parent=to_hex(header.core.parent_hash),
            time=header.core.timestamp,
            target=f"{header.core.target:#x}",
            work=str(compute_work(header.core.target, chain.tree.get_rules(entry.height)) if entry.parent else 0),
            miner=to_hex(header.core.miner),
            subsidy=str(compute_subsidy(entry.height) if entry.parent else 0),
            nonce=str(header.core.nonce),
            loss=header.loss,
            l_hat=l_hat,
            trace_digest=to_hex(header.trace_digest),
            state_root=to_hex(header.core.state_root),
            quiz=name,
            replayed=entry.replayed and entry.hash not in chain.assumed,
            on_chain=entry.height <= chain.head.height and chain.head.get_ancestor(entry.height) is entry,
            has_body=chain.has_body(entry),
            received=self._node.importer.received.get(entry.hash),
        )

    def _make_quiz(self, entry: Entry) -> Quiz:
        """Return the quiz of a block that is not genesis; its model need not be at hand."""
        assert entry.parent is not None, "genesis has no quiz"
        rules = self._node.chain.tree.get_rules(entry.height)
        return get_quiz(entry.header.core, Branch(entry.parent), rules, self._node.rules.get_questions(rules))

    def _get_name_and_l_hat(self, entry: Entry) -> tuple[str, str]:
        """Return the quiz's name and the number that has to be below the target: made once, not for each request."""
        found = self._names.pop(entry.hash, None)
        if found is None:
            quiz, header = self._make_quiz(entry), entry.header
            l_hat = compute_l_hat(quiz.seed, header.loss, header.trace_digest)
            found = get_quiz_name(quiz.salt), f"{l_hat:#066x}"
        self._names[entry.hash] = found  # the one shown last comes last
        while len(self._names) > MAX_NAMES:
            del self._names[next(iter(self._names))]
        return found

    async def get_quiz(self, height: Height) -> QuizView | None:
        """See `NodeView`."""
        head = self._node.chain.head
        if not 1 <= height <= head.height:
            return None
        entry = head.get_ancestor(height)
        quiz, importer = self._make_quiz(entry), self._node.importer
        if entry.hash not in importer.nlls and not importer.has_model(entry):
            return None
        if entry.hash not in importer.nlls:
            work = partial(evaluate, self._node.judge, [Task(height, quiz)])
            importer.remember(entry.hash, (await self._node.verifier.do(Turn.MINING, work))[0])
        vocabulary = await self._get_vocabulary(self._node.chain.tree.get_rules(height))
        return None if vocabulary is None else self._describe_quiz(entry, quiz, importer.nlls[entry.hash], vocabulary)

    async def _get_vocabulary(self, rules: Rules) -> Vocabulary | None:
        """Return the texts of the tokens of a model, read once; None if its file is not at hand."""
        found = self._vocabularies.get(rules.model.gguf_sha256)
        if found is None:
            try:
                path = resolve_model(self._node.models.get_source(rules))
                found = await trio.to_thread.run_sync(read_vocabulary, path)
            except ModelError:
                return None
            self._vocabularies[rules.model.gguf_sha256] = found
        return found

    def _get_model_name(self, rules: Rules) -> str:
        """Return the name or path of the model that the next block asks for."""
        if rules.model == self._node.rules.config.model:
            return self._model
        try:
            return self._node.models.get_source(rules)
        except ModelError:
            return f"SHA-256 {rules.model.gguf_sha256.hex()}"

    def _describe_quiz(self, entry: Entry, quiz: Quiz, nlls: Sequence[int], vocabulary: Vocabulary) -> QuizView:
        rules = self._node.chain.tree.get_rules(entry.height)
        first = rules.salt_tokens + int(rules.model.add_bos)
        answers = [get_text(vocabulary, item.answer) for item in quiz.items]
        answers += ["".join(question.answer) for question in quiz.questions]
        marked = set(find_answers(quiz, self._node.rules.get_questions(rules), first))
        scored = [
            ScoredTokenView(
                position=position, text=get_text(vocabulary, [quiz.tokens[position]]),
                token=quiz.tokens[position], loss=nll, answer=position in marked,
            )
            for position, nll in zip(quiz.scored, nlls, strict=True)
        ]  # fmt: skip
        return QuizView(
            height=entry.height,
            hash=to_hex(entry.hash),
            name=get_quiz_name(quiz.salt),
            text=get_text(vocabulary, quiz.tokens[first:]),
            answers=answers,
            scored=scored,
            loss=entry.header.loss,
            pieces=[get_text(vocabulary, [token]) for token in quiz.tokens],
        )

    def get_account(self, address: Address) -> AccountView:
        """See `NodeView`."""
        account = self._node.chain.state.get(address, Account())
        return AccountView(
            address=to_hex(address),
            balance=str(account.balance),
            nonce=account.nonce,
            blocks=self._blocks[address],
        )

    def _follow_head(self) -> None:
        """Count the blocks that each account mined: down to the fork, and up again, so that no request counts any."""
        head = self._node.chain.head
        fork = find_fork(self._counted, head)
        self._blocks.subtract(entry.header.core.miner for entry in walk(self._counted, fork))
        self._blocks.update(entry.header.core.miner for entry in walk(head, fork))
        self._counted = head

    # Events.

    def subscribe(self) -> trio.MemoryReceiveChannel[Event]:
        """See `NodeView`."""
        send, receive = trio.open_memory_channel[Event](MAX_EVENTS)
        self._readers.append((send, receive.clone()))
        return receive

    def _on_head(self, change: HeadChange) -> None:
        self._follow_head()
        if self._readers:
            self._send(Event("head", self._describe(change.new)))
            self._send(Event("status", self.get_status()))

    def _send(self, event: Event) -> None:
        """Give an event to every reader; a full channel loses its oldest one."""
        for reader in list(self._readers):
            send, own = reader
            if send.statistics().open_receive_channels == 1:  # only the clone here is left
                self._readers.remove(reader)
                send.close()
                own.close()
                continue
            if send.statistics().current_buffer_used == MAX_EVENTS:
                own.receive_nowait()
            send.send_nowait(event)
