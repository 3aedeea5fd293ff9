"""Blocks for the chain: a tree of true and false ones, cheap to make, and what takes them in."""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import trio

from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import encode
from poai_spec.basics.notation import Address, Hash32, Milliseconds, keccak256, uint64_le
from poai_spec.basics.parameters import Config, check_config, get_preset
from poai_spec.chain.block import Judge, make_genesis, make_judge
from poai_spec.execution.state import Account, State, process_header
from poai_spec.model.engine import Evaluation
from poai_tools.vectors.chains import TRUE, Alteration, make_core, seal_block
from poai_tools.vectors.engines import get_lexicon
from poai_tools.vectors.network import LEXICON
from poaid.chain.admission import Importer
from poaid.chain.chain_state import ChainState
from poaid.chain.worker import Verifier
from poaid.layout import HEADER_BYTES
from poaid.metrics import Metrics
from poaid.network_file import Network
from poaid.store.database import Database

MINERS: tuple[Address, ...] = tuple(bytes([n]) * 20 for n in (0x41, 0x42, 0x43))
BACKWARDS = Alteration(trace=lambda trace: trace[::-1])
"""The header commits to a false trace: Invalid, found by the model."""
DEARER = Alteration(extra_loss=1)
"""Every entry is true, the loss is not."""
SWAPPED = Alteration(sent_trace=lambda trace: trace[::-1])
"""A good header that came with another list: Malformed, the sender's fault alone."""
SHORT = Alteration(trace=lambda trace: trace[1:])
"""The header commits to too few entries: Invalid, found without the model."""


class StubEngine:
    """Stands for a model: what it gives is a pure function of the tokens, so nothing else is special about its blocks.

    Attributes:
        asked: the quizzes that were run step by step, in order.
    """

    def __init__(self, config: Config) -> None:
        self.profile, self.layer_count = config.profile, config.model.layer_count
        self.integer_model_root = config.model.integer_model_root
        self.asked: list[tuple[int, ...]] = []

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        return [self._evaluate(ids, positions) for ids, positions in zip(tokens, scored, strict=True)]

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        self.asked.append(tuple(tokens))
        evaluation = self._evaluate(tokens, scored)
        yield from evaluation.trace
        yield evaluation

    def _evaluate(self, tokens: Sequence[int], scored: Sequence[int]) -> Evaluation:
        seed = keccak256(b"".join(map(uint64_le, tokens)))
        trace = tuple(keccak256(seed + bytes([layer])) for layer in range(self.layer_count + 1))
        return Evaluation(tuple(seed[: len(scored)]), trace)


@cache
def make_easy_network() -> Network:
    """Return a network where every quiz wins at first; an epoch has three blocks, a difficulty period two."""
    config = replace(
        get_preset("minimal"), epoch_blocks=3, retarget_blocks=2, max_future=200, initial_target=2**256 - 1
    )
    check_config(config)
    return Network("easy", config, get_lexicon(LEXICON), LEXICON)


def make_easy_judge() -> Judge:
    """Return its judge, with a stub that nobody has asked yet."""
    network = make_easy_network()
    return make_judge(network.config, network.questions, StubEngine(network.config))


@dataclass(frozen=True)
class Made:
    """A block on top of others.

    Attributes:
        block: the block.
        chain: the headers up to it, genesis first.
        state: the accounts after it.
    """

    block: Block
    chain: tuple[Header, ...]
    state: State = field(repr=False)

    @property
    def hash(self) -> Hash32:
        return compute_block_hash(self.block.header)

    @property
    def data(self) -> bytes:
        return encode(self.block)


def make_root() -> Made:
    """Return genesis."""
    genesis = make_genesis(make_easy_network().config)
    return Made(genesis, (genesis.header,), {})


def grow(
    parent: Made,
    *,
    pace: Milliseconds = 1_000,
    miner: Address = MINERS[0],
    alteration: Alteration = TRUE,
    state: State | None = None,
) -> Made:
    """Make a block on top of another one.

    Args:
        parent: the other one.
        pace: milliseconds between the two.
        miner: gets the subsidy.
        alteration: what is false in it.
        state: what it takes for the accounts after the parent; a false one gives a false state root.
    """
    judge, chain = make_easy_judge(), parent.chain
    stamp = chain[-1].core.timestamp + pace
    core = make_core(chain, parent.state if state is None else state, judge.config, stamp, miner)
    block = seal_block(core, chain, judge, alteration)
    return Made(block, (*chain, block.header), process_header(parent.state, core))


def grow_line(parent: Made, count: int, *, miner: Address = MINERS[0], pace: Milliseconds = 1_000) -> list[Made]:
    """Make blocks one on top of another."""
    line = [parent]
    for _ in range(count):
        line.append(grow(line[-1], miner=miner, pace=pace))
    return line[1:]


@cache
def make_forest() -> tuple[Made, ...]:
    """Return 60 blocks, parents first: three true branches that overtake each other and tie, and false blocks on them.

    On false blocks stand some as well, true but for their ancestors.
    """
    draw, made = random.Random(41), list[Made]()
    trunk = grow_line(make_root(), 2)
    tips = [trunk[0], trunk[1], trunk[1]]
    while len(made) < 56:
        branch = draw.randrange(3)
        tips[branch] = grow(tips[branch], pace=draw.choice((1_000, 1_000, 600, 2_000)), miner=draw.choice(MINERS))
        made.append(tips[branch])
        if draw.random() < 0.3:
            fault = draw.choice((BACKWARDS, DEARER, SWAPPED, SHORT))
            made.append(grow(draw.choice(made[-3:]), alteration=fault))
        if draw.random() < 0.15:
            made.append(grow(draw.choice(made[-2:]), state={MINERS[0]: Account(balance=1)}))
    return (*trunk, *made)


@dataclass
class Rig:
    """All that takes blocks in.

    Attributes:
        store: the data directory.
        importer: with the chain, and a verifier that `running` runs.
        judge: the network's.
        now: the local clock, ms since 1970.
    """

    store: Database
    importer: Importer
    judge: Judge
    now: Milliseconds

    @property
    def chain(self) -> ChainState:
        return self.importer.chain

    def receive_headers(self, blocks: Iterable[Made], peer: bytes = b"peer") -> None:
        """Keep headers, so that it is known what their branch claims before its blocks come."""
        for made in blocks:
            self.chain.tree.receive_header(made.data[:HEADER_BYTES], peer)

    @property
    def asked(self) -> list[tuple[int, ...]]:
        """The quizzes that the model was asked."""
        assert isinstance(self.judge.models[0].engine, StubEngine)
        return self.judge.models[0].engine.asked


def make_rig(store: Database, judge: Judge, now: Milliseconds) -> Rig:
    """Open a chain in a store; nothing runs yet."""

    def get_time() -> Milliseconds:
        return rig.now

    rig = Rig(store, Importer(ChainState(store, judge.config, now), judge, Verifier(), Metrics(), get_time), judge, now)
    return rig


@asynccontextmanager
async def running(
    folder: Path, network: Network | None = None, judge: Judge | None = None, now: Milliseconds | None = None
) -> AsyncIterator[Rig]:
    """Run a rig on a folder, of the easy network if no other is given, long after its genesis."""
    network, judge = network or make_easy_network(), judge or make_easy_judge()
    with Database.create_or_open(folder, network, "mini") as store:
        rig = make_rig(store, judge, network.config.genesis_timestamp + 10**9 if now is None else now)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.importer.verifier.run)
            yield rig
            nursery.cancel_scope.cancel()
