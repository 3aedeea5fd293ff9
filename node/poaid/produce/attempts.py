"""The mining loop: header cores with rising nonces, their quizzes in batches, until one wins."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from poai_spec.basics.containers import Block, Header, HeaderCore
from poai_spec.basics.notation import Address, Invalid, Milliseconds
from poai_spec.chain.block import Judge, get_judge_rules, get_model
from poai_spec.chain.production import choose_timestamp, make_block, make_template
from poai_spec.chain.upgrades import Rules
from poai_spec.execution.state import State
from poai_spec.model.engine import Engine, Evaluation
from poai_spec.model.loss import compute_l_hat, is_below_target
from poai_spec.proof.difficulty import Chain, compute_quizzes
from poai_spec.proof.quiz import Quiz, compute_quiz_seed, generate_quiz
from poai_spec.proof.work import get_epoch_key
from poaid.amounts import format_duration
from poaid.errors import NodeError

BATCH_SECONDS = 0.75
"""How long a batch may take: a new head, a block to verify, or Ctrl-C, waits for one batch. Half of what is bearable,
because the machine may be half as fast for the next batch."""
MAX_TIMESTAMP = 2**64 - 1
"""Stamps are uint64."""
MAX_BATCH = 32
"""Quizzes in a batch at most; more are no faster."""
BATCHES_A_BLOCK = 4
"""A batch is at most this part of the quizzes that a block is expected to take: half a batch is lost to each block."""


@dataclass(frozen=True)
class Attempt:
    """One quiz that was run.

    Attributes:
        quiz: what the model read.
        block: the block that it makes, if `l_hat < header.core.target`.
        evaluation: what the model gave.
        l_hat: the number compared with the target.
    """

    quiz: Quiz
    block: Block
    evaluation: Evaluation
    l_hat: int

    @property
    def header(self) -> Header:
        """The block's header."""
        return self.block.header

    @property
    def wins(self) -> bool:
        """Whether the attempt makes a block."""
        return is_below_target(self.l_hat, self.header.core.target)


def get_time() -> Milliseconds:
    """Return the local clock, ms since 1970."""
    return time.time_ns() // 1_000_000


def check_clock(timestamp: Milliseconds, rules: Rules, now: Milliseconds) -> None:
    """Refuse to mine a block that no node with this clock would take.

    Raises:
        NodeError: its stamp is too far ahead of the clock, or no number at all.
    """
    if timestamp > MAX_TIMESTAMP:
        raise NodeError("no time stamp is left after the chain's last block: no block can follow it")
    if timestamp > now + rules.max_future:
        behind = format_duration((timestamp - now) / 1000)
        raise NodeError(f"the clock is {behind} behind the chain's last blocks: set it, then go on")


def start_template(chain: Chain, state: State, rules: Rules, miner: Address, now: Milliseconds) -> HeaderCore:
    """Return the core of a block on top of `chain`, with nonce 0 and the clock's time.

    Raises:
        NodeError: the clock is so far behind the chain that no node with its time would take the block.
    """
    timestamp = choose_timestamp(chain, rules, now)
    check_clock(timestamp, rules, now)
    return make_template(chain, state, rules, miner, timestamp)


def run_attempts(template: HeaderCore, chain: Chain, judge: Judge, count: int) -> list[Attempt]:
    """Run the quizzes of `count` nonces, from the template's on, in one batch; leave out those that have no loss."""
    rules = get_judge_rules(judge, len(chain))
    model, epoch_key = get_model(judge, rules), get_epoch_key(chain, rules)
    cores = [replace(template, nonce=template.nonce + n) for n in range(count)]
    seeds = [compute_quiz_seed(rules.digest, epoch_key, core) for core in cores]
    quizzes = [generate_quiz(seed, rules, model.questions) for seed in seeds]
    attempts = []
    for core, quiz, evaluation in zip(cores, quizzes, _evaluate(model.engine, quizzes), strict=True):
        if evaluation is None:
            continue
        block = make_block(core, evaluation)
        l_hat = compute_l_hat(quiz.seed, evaluation.loss, block.header.trace_digest)
        attempts.append(Attempt(quiz, block, evaluation, l_hat))
    return attempts


def _evaluate(engine: Engine, quizzes: Sequence[Quiz]) -> list[Evaluation | None]:
    """Run quizzes; None for one whose logits are not numbers, which only the profile llama.cpp can give."""
    try:
        return list(engine.evaluate([quiz.tokens for quiz in quizzes], [quiz.scored for quiz in quizzes]))
    except Invalid as error:
        if error.code != "llama-profile/nan":
            raise
        return [None] if len(quizzes) == 1 else [_evaluate(engine, [quiz])[0] for quiz in quizzes]


def choose_batch_size(size: int, seconds: float, expected: int) -> int:
    """Return how many quizzes the next batch takes.

    Args:
        size: of the batch before.
        seconds: that it took.
        expected: quizzes that a block is expected to take; what a batch computes behind its winner is lost.
    """
    return max(1, min(MAX_BATCH, 2 * size, int(size * BATCH_SECONDS / max(seconds, 1e-6)), expected // BATCHES_A_BLOCK))


def mine_block(chain: Chain, state: State, judge: Judge, miner: Address) -> Iterator[list[Attempt]]:
    """Yield batches of attempts on top of `chain`; the batch that holds a winner, as its last attempt, is the last.

    The time stamp is renewed with every batch, so a block that took long says so.
    """
    nonce, size, rules = 0, 1, get_judge_rules(judge, len(chain))
    while True:
        template = replace(start_template(chain, state, rules, miner, get_time()), nonce=nonce)
        start = time.perf_counter()
        attempts = run_attempts(template, chain, judge, size)
        seconds = time.perf_counter() - start
        winner = next((n for n, attempt in enumerate(attempts) if attempt.wins), None)
        if winner is not None:
            yield attempts[: winner + 1]
            return
        if attempts:
            yield attempts
        nonce += size
        size = choose_batch_size(size, seconds, compute_quizzes(template.target))
