"""The node's mining loop: one template on the head, batches of quizzes in the model's spare time, blocks to the world.

A change of the head is seen after the batch that runs, about a second at most. The template is then thrown away; a
winner of that last batch is still published, since it may tie.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import structlog
import trio

from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Address, Height, Milliseconds, SpecError
from poai_spec.chain.block import get_judge_rules
from poai_spec.chain.production import choose_timestamp
from poai_spec.proof.difficulty import compute_quizzes
from poai_spec.proof.quiz import get_quiz_name
from poaid.chain.admission import Importer, Sender
from poaid.chain.chain_state import HeadChange
from poaid.chain.tree import Branch, Entry
from poaid.chain.worker import Turn, run_timed
from poaid.errors import NodeError
from poaid.produce.attempts import Attempt, check_clock, choose_batch_size, run_attempts, start_template

LOOK_AGAIN_S = 1.0
"""How often a loop that does not mine asks whether it may."""
RATE_WINDOW_S = 30.0
"""The time over which the quizzes a second are counted."""

log = structlog.get_logger()


class Mining:
    """One worker that mines on the head.

    Args:
        importer: takes the blocks; its verifier runs the quizzes.
        miner: gets the subsidies; None mines nothing.
        why_not: gives the reason for which mining would be of no use now, or None.
        publish: sends a block's encoding to the peers.
        get_time: the local clock, ms since 1970.
        stop_height: no block above it is mined; None for no end.

    Attributes:
        stop_height, publish, get_time: as given; they may be changed while it runs.
        reason: why it is not mining; None while it is.
        mined: own blocks since the start.
    """

    def __init__(
        self,
        importer: Importer,
        miner: Address | None,
        why_not: Callable[[], str | None],
        publish: Callable[[bytes], Awaitable[None]],
        get_time: Callable[[], Milliseconds],
        stop_height: Height | None = None,
    ) -> None:
        self._importer, self._miner, self.publish, self.get_time = importer, miner, publish, get_time
        self._why_not, self.stop_height = why_not, stop_height
        self._wake, self._size = trio.Event(), 1
        self._ran: deque[tuple[float, int]] = deque()
        self.reason: str | None = "starting"
        self._blamed_at: Entry | None = None
        self.mined = 0
        importer.on_head.append(self._on_head)

    def get_rate(self) -> float:
        """Return quizzes a second over the last while."""
        now = time.monotonic()
        while self._ran and now - self._ran[0][0] > RATE_WINDOW_S:
            self._ran.popleft()
        count = sum(count for _, count in self._ran)
        return count / max(now - self._ran[0][0], 1e-3) if len(self._ran) > 1 else 0.0

    async def run(self) -> None:
        """Mine, for ever; look from time to time while there is a reason not to."""
        while True:
            self._wake = trio.Event()
            self.reason = self._find_reason()
            if self.reason is None:
                await self._mine_on(self._importer.chain.head)
                if self.reason is None:
                    continue
            self._ran.clear()
            with trio.move_on_after(LOOK_AGAIN_S):
                await self._wake.wait()

    def _find_reason(self) -> str | None:
        if self._miner is None:
            return "mining is off (--no-mine)"
        if self.stop_height is not None and self._importer.chain.head.height >= self.stop_height:
            return f"height {self.stop_height} is reached (--stop-height)"
        return self._why_not()

    def wake(self) -> None:
        """Look again whether there is a reason not to mine."""
        self._wake.set()

    def _on_head(self, _: HeadChange) -> None:
        self._wake.set()

    async def _mine_on(self, head: Entry) -> None:
        """Run batches until the head changes, or there is a reason to stop; set `reason` if the clock is one."""
        chain, judge = self._importer.chain, self._importer.judge
        assert self._miner is not None, "`_find_reason` has looked"
        headers, nonce = Branch(head), 0
        rules = get_judge_rules(judge, len(headers))
        try:
            template = start_template(headers, chain.state, rules, self._miner, self.get_time())
        except NodeError as error:  # the clock; that of a database that cannot be written ends the node
            self._blame_clock(error)
            return
        expected = compute_quizzes(template.target)
        while chain.head is head and self._find_reason() is None:
            now = self.get_time()
            stamp = choose_timestamp(headers, rules, now)
            try:
                check_clock(stamp, rules, now)
            except NodeError as error:  # it was set back
                self._blame_clock(error)
                return
            core = replace(template, timestamp=stamp, nonce=nonce)
            batch = partial(run_timed, partial(run_attempts, core, headers, judge, self._size))
            attempts, seconds = await self._importer.verifier.do(Turn.MINING, batch)
            self._note(attempts, seconds, first=nonce == 0)
            nonce += self._size
            self._size = choose_batch_size(self._size, seconds, expected)
            for attempt in attempts:
                if attempt.wins:
                    await self._submit(attempt)
                    break

    def _blame_clock(self, error: NodeError) -> None:
        """Say why nothing is mined; in the log once for each head, since its text has the time."""
        self.reason, head = str(error), self._importer.chain.head
        if self._blamed_at is not head:
            log.warning("Not mining", why=self.reason)
        self._blamed_at = head

    def _note(self, attempts: list[Attempt], seconds: float, *, first: bool) -> None:
        self._importer.metrics.quizzes.inc(len(attempts))
        self._importer.metrics.mining_batch_seconds.observe(seconds)
        self._ran.append((time.monotonic(), len(attempts)))
        if first and attempts:
            name = get_quiz_name(attempts[0].quiz.salt)
            log.info(f"Generated quiz: {name}", quiz=name, height=attempts[0].header.core.height)

    async def _submit(self, attempt: Attempt) -> None:
        """Import an own block, then publish it."""
        data = encode(attempt.block)
        try:
            new = await self._importer.import_block(data, Sender(), "mined", attempt.evaluation)
        except SpecError as error:  # a heavier branch has come meanwhile, or the clock was set back
            log.warning("The mined block does not count", height=attempt.header.core.height, why=str(error))
            return
        if new:
            self.mined += 1
            self._importer.metrics.blocks_mined.inc()
            await self.publish(data)
