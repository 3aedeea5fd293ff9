"""A node's view over a real chain in memory, of which more and more is shown: what the HTTP server is tested with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from poai_engine.models.corpus_maker import get_text
from poai_engine.models.gguf_file import Vocabulary
from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.notation import Address, Height
from poai_spec.basics.parameters import compute_network_id
from poai_spec.chain.block import Judge, get_judge_rules, process_block
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import Account, State
from poai_spec.model.loss import compute_l_hat
from poai_spec.proof.difficulty import compute_target, compute_work
from poai_spec.proof.economics import compute_subsidy
from poai_spec.proof.epoch import get_epoch
from poai_spec.proof.quiz import Quiz, get_quiz_name
from poai_spec.proof.work import get_quiz
from poaid.view import (
    AccountView,
    BlockView,
    Event,
    PeerView,
    QuizView,
    ScoredTokenView,
    StatusView,
)

QUEUE = 8
"""Events that wait for a slow reader."""

PEERS: list[PeerView] = [
    PeerView(
        peer_id="12D3KooWB6pZqVpSUhD4zz9x8LQb1JXwcFQXc3R8q1oQbNwYtKpR",
        address="/ip4/198.51.100.7/tcp/4001",
        outbound=True,
        height=6,
        work="192",
        score=12.5,
        proven=True,
        connected=5_025.0,
    ),
    PeerView(
        peer_id="12D3KooWMfEfXwcUGWg2XKkbSxeKUYcZ2QpqB7hF5yxPpPzWk2vT",
        address="/ip6/2001:db8::42/tcp/4001",
        outbound=False,
        height=None,
        work=None,
        score=-3.0,
        proven=False,
        connected=14.0,
    ),
]


@dataclass
class MemoryView:
    """A `NodeView`.

    Attributes:
        judge: the network's.
        headers: genesis first; those above `height` are not shown yet.
        blocks: from height 1 on.
        vocabulary: the model's, for the text of tokens.
        miner: the node's own address.
        height: of the head.
        peers: what `/peers` shows.
        changes: replaces fields of the status.
        readers: both ends of each subscriber's queue; the second end drops the oldest.
        quiz_gate: a quiz waits until it is set.
    """

    judge: Judge
    headers: Sequence[Header]
    blocks: Sequence[Block]
    vocabulary: Vocabulary
    miner: Address
    height: Height
    peers: list[PeerView] = field(default_factory=lambda: list(PEERS))
    changes: dict[str, object] = field(default_factory=dict)
    quiz_gate: trio.Event | None = None
    readers: list[tuple[trio.MemorySendChannel[Event], trio.MemoryReceiveChannel[Event]]] = field(default_factory=list)

    @property
    def chain(self) -> Sequence[Header]:
        return self.headers[: self.height + 1]

    @property
    def state(self) -> State:
        state: State = {}
        for block in self.blocks[: self.height]:
            state = process_block(state, block)
        return state

    def get_status(self) -> StatusView:
        config, head = self.judge.config, self.chain[-1]
        status = StatusView(
            version="0.0.0",
            network="quick",
            network_id="0x" + compute_network_id(config).hex(),
            profile=config.profile.decode(),
            model="mini",
            activity="mining",
            reason=None,
            height=self.height,
            head=_hex(compute_block_hash(head)),
            head_time=head.core.timestamp,
            genesis=_hex(compute_block_hash(self.headers[0])),
            work=str(
                sum(
                    compute_work(header.core.target, get_judge_rules(self.judge, header.core.height))
                    for header in self.chain[1:]
                )
            ),
            target=f"0x{compute_target(self.chain, get_rules(config, (), 0)):064x}",
            epoch=get_epoch(self.height + 1, get_rules(config, (), 0)),
            spacing=config.spacing,
            miner=_hex(self.miner),
            balance=self.get_account(self.miner)["balance"],
            quizzes_per_second=15.44,
            peer_count=len(self.peers),
            peer_id="12D3KooWSelf",
            addresses=["/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWSelf"],
            mined=self.height,
            reorgs=0,
            side_blocks=0,
            orphans=0,
            waiting=0,
            bodies_from=1,
            assumed=0,
            sync=None,
            fork="0x" + get_judge_rules(self.judge, head.core.height).digest[:4].hex(),
            upgrades=[],
            uptime=3_725.0,
        )
        return StatusView(**{**status, **self.changes})  # type: ignore[typeddict-item]

    def get_block(self, reference: str) -> BlockView | None:
        if reference == "head":
            return self._show(self.height)
        if reference.isdecimal():
            return self._show(int(reference)) if int(reference) <= self.height else None
        hashes = [_hex(compute_block_hash(header)) for header in self.chain]
        return self._show(hashes.index(reference)) if reference in hashes else None

    def list_blocks(self, top: Height | None, count: int) -> list[BlockView]:
        first = self.height if top is None else min(top, self.height)
        return [self._show(height) for height in range(first, max(first - count, -1), -1)]

    async def get_quiz(self, height: Height) -> QuizView | None:
        await trio.lowlevel.checkpoint()
        if self.quiz_gate is not None:
            await self.quiz_gate.wait()
        return self.make_quiz(height) if 0 < height <= self.height else None

    def make_quiz(self, height: Height) -> QuizView:
        """Return the quiz of a block, its losses from the engine."""
        header, quiz = self.headers[height], self._quiz(height)
        evaluation = self.judge.models[0].engine.evaluate([quiz.tokens], [quiz.scored])[0]
        answers = ["".join(question.answer) for question in quiz.questions]
        first = self.judge.config.salt_tokens + int(self.judge.config.model.add_bos)
        pieces = [get_text(self.vocabulary, [token]) for token in quiz.tokens]
        scored = [
            ScoredTokenView(
                position=position,
                text=pieces[position],
                token=quiz.tokens[position],
                loss=loss,
                answer=position != len(quiz.tokens) - 1,
            )
            for position, loss in zip(quiz.scored, evaluation.nlls, strict=True)
        ]
        return QuizView(
            height=height,
            hash=_hex(compute_block_hash(header)),
            name=get_quiz_name(quiz.salt),
            text="".join(pieces[first:]),
            answers=answers,
            scored=scored,
            loss=header.loss,
            pieces=pieces,
        )

    def get_account(self, address: Address) -> AccountView:
        account = self.state.get(address, Account())
        return AccountView(
            address=_hex(address),
            balance=str(account.balance),
            nonce=account.nonce,
            blocks=sum(header.core.miner == address for header in self.chain[1:]),
        )

    def get_peers(self) -> list[PeerView]:
        return self.peers

    def subscribe(self) -> trio.MemoryReceiveChannel[Event]:
        send, receive = trio.open_memory_channel[Event](QUEUE)
        self.readers.append((send, receive.clone()))
        return receive

    def set_height(self, height: Height) -> None:
        """Show the chain up to a height, and tell it to who listens."""
        self.height = height
        self.emit(Event("head", self._show(height)))
        self.emit(Event("status", self.get_status()))
        if height > 0:
            self.emit(Event("quiz", self.make_quiz(height)))

    def emit(self, event: Event) -> None:
        """Put an event into each reader's queue; a full one loses its oldest."""
        for send, own in self.readers:
            if send.statistics().open_receive_channels == 1:  # only the clone is left
                continue
            try:
                send.send_nowait(event)
            except trio.WouldBlock:
                own.receive_nowait()
                send.send_nowait(event)

    def close(self) -> None:
        """End every channel, as a node that stops."""
        for send, own in self.readers:
            send.close()
            own.close()

    def _quiz(self, height: Height) -> Quiz:
        core = self.headers[height].core
        return get_quiz(
            core, self.headers[:height], get_rules(self.judge.config, (), 0), self.judge.models[0].questions
        )

    def _show(self, height: Height) -> BlockView:
        header, quiz = self.headers[height], self._quiz(height) if height else None
        core = header.core
        return BlockView(
            height=height,
            hash=_hex(compute_block_hash(header)),
            parent=_hex(core.parent_hash),
            time=core.timestamp,
            target=f"0x{core.target:064x}",
            work=str(compute_work(core.target, get_judge_rules(self.judge, core.height))),
            miner=_hex(core.miner),
            subsidy=str(compute_subsidy(height)),
            nonce=str(core.nonce),
            loss=header.loss,
            l_hat=f"0x{compute_l_hat(quiz.seed, header.loss, header.trace_digest):064x}" if quiz else None,
            trace_digest=_hex(header.trace_digest),
            state_root=_hex(core.state_root),
            quiz=get_quiz_name(quiz.salt) if quiz else None,
            replayed=True,
            on_chain=True,
            has_body=True,
            received=None,
        )


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
