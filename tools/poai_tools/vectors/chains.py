"""Headers and blocks for vectors, made deterministically: stamps are given, nonces are tried from 0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from poai_spec.basics.containers import Block, Body, Header, HeaderCore
from poai_spec.basics.notation import Address, Hash32, Milliseconds
from poai_spec.basics.parameters import Config
from poai_spec.chain.block import Judge, get_judge_rules, get_model, make_genesis
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.production import make_template
from poai_spec.chain.upgrades import Upgrade, get_rules
from poai_spec.execution.state import State, process_header
from poai_spec.model.loss import compute_l_hat, compute_trace_digest, is_below_target
from poai_spec.proof.difficulty import Chain
from poai_spec.proof.work import get_quiz, get_quiz_seed
from poai_tools.vectors.cases import derive, derive_seed
from poai_tools.vectors.engines import get_judge
from poai_tools.vectors.network import LEXICON, MODEL

MINER: Address = b"\x11" * 20
Trace = tuple[Hash32, ...]


def make_core(
    chain: Chain,
    state: State,
    config: Config,
    timestamp: Milliseconds,
    miner: Address,
    upgrades: tuple[Upgrade, ...] = (),
) -> HeaderCore:
    """Return a core that follows every rule on top of a chain; `state` is the one after its last header."""
    return make_template(chain, state, get_rules(config, upgrades, len(chain)), miner, timestamp)


def wins(header: Header, chain: Chain, config: Config, upgrades: tuple[Upgrade, ...] = ()) -> bool:
    """Tell whether a header is below its own target."""
    seed = get_quiz_seed(header.core, chain, get_rules(config, upgrades, len(chain)))
    return is_below_target(compute_l_hat(seed, header.loss, header.trace_digest), header.core.target)


def seal_header(
    header: Header, chain: Chain, config: Config, upgrades: tuple[Upgrade, ...] = (), *, win: bool = True
) -> Header:
    """Return the header with the first nonce from 0 on that wins (or loses), loss and digest being made up."""
    for nonce in count():
        header = replace(header, core=replace(header.core, nonce=nonce))
        if wins(header, chain, config, upgrades) == win:
            break
    return header


def make_header_chain(
    config: Config, stamps: Sequence[int], name: str, upgrades: tuple[Upgrade, ...] = ()
) -> list[Header]:
    """Return headers that pass every rule for headers; no model has run, so their traces are not true.

    Args:
        config: the network.
        stamps: milliseconds after genesis of the blocks 1, 2, ...
        name: loss and digest of block h are the first integer and the seed of the DRBG of `headers/NAME-h`.
        upgrades: the network's.
    """
    chain = [make_genesis(config).header]
    state: State = {}
    for height, stamp in enumerate(stamps, 1):
        core = make_core(chain, state, config, config.genesis_timestamp + stamp, MINER, upgrades)
        slug = f"{name}-{height}"
        drawn = Header(core, derive("headers", slug).below(2**21), derive_seed("headers", slug))
        chain.append(seal_header(drawn, chain, config, upgrades))
        state = process_header(state, core)
    return chain


@dataclass(frozen=True)
class Alteration:
    """What is false in a block that is sealed.

    Attributes:
        trace: applied to the true trace list before the header commits to it.
        sent_trace: applied to it afterwards.
        extra_loss: added to the true loss.
        body: what is sent as the body.
        win: whether the header shall be below its target.
    """

    trace: Callable[[Trace], Trace] = tuple
    sent_trace: Callable[[Trace], Trace] = tuple
    extra_loss: int = 0
    body: Body = EMPTY_BODY
    win: bool = True


TRUE = Alteration()


def seal_block(core: HeaderCore, chain: Chain, judge: Judge, alteration: Alteration = TRUE) -> Block:
    """Return the block with the first nonce from 0 on that wins (or loses); each nonce takes a forward pass."""
    rules = get_judge_rules(judge, len(chain))
    model = get_model(judge, rules)
    for nonce in count():
        core = replace(core, nonce=nonce)
        quiz = get_quiz(core, chain, rules, model.questions)
        (evaluation,) = model.engine.evaluate([quiz.tokens], [quiz.scored])
        trace = alteration.trace(evaluation.trace)
        header = Header(core, evaluation.loss + alteration.extra_loss, compute_trace_digest(trace))
        if wins(header, chain, judge.config, judge.upgrades) == alteration.win:
            break
    return Block(header, alteration.body, alteration.sent_trace(trace))


@dataclass
class GrownBranch:
    """A chain under construction.

    Attributes:
        judge: network, lexicon and model.
        chain: its headers, genesis first.
        state: the accounts after the last one.
        blocks: its blocks, genesis first.
    """

    judge: Judge
    chain: list[Header]
    state: State
    blocks: list[Block]

    @classmethod
    def start(cls, config: Config) -> "GrownBranch":
        """Return the branch of genesis alone, of a network without upgrades."""
        return cls.begin(get_judge(config, LEXICON, MODEL))

    @classmethod
    def begin(cls, judge: Judge) -> "GrownBranch":
        """Return the branch of genesis alone."""
        genesis = make_genesis(judge.config)
        return cls(judge, [genesis.header], {}, [genesis])

    def make_core(self, stamp: int, miner: Address = MINER, **changes: Any) -> HeaderCore:
        """Return a core on top; `stamp` is counted from genesis, `changes` come last."""
        rules = get_judge_rules(self.judge, len(self.chain))
        core = make_template(self.chain, self.state, rules, miner, self.judge.config.genesis_timestamp + stamp)
        return replace(core, **changes)

    def grow(self, stamp: int, miner: Address = MINER, alteration: Alteration = TRUE) -> Block:
        """Seal a block and append it."""
        block = seal_block(self.make_core(stamp, miner), self.chain, self.judge, alteration)
        self.append(block)
        return block

    def append(self, block: Block) -> None:
        """Append a block as it is."""
        self.state = process_header(self.state, block.header.core)
        self.chain.append(block.header)
        self.blocks.append(block)

    def fork(self, height: int) -> "GrownBranch":
        """Return a branch that shares the blocks up to a height."""
        branch = GrownBranch.begin(self.judge)
        for block in self.blocks[1 : height + 1]:
            branch.append(block)
        return branch
