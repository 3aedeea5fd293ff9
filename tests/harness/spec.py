"""A real network small enough for consensus tests: a model of two layers and width 4, and a miner for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from Crypto.Hash import SHAKE128

from poai_engine.engines.reference import ReferenceEngine
from poai_spec.basics.containers import Block, Header, HeaderCore
from poai_spec.basics.notation import Address, Milliseconds
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange, check_config, make_config
from poai_spec.chain.block import Judge, check_block, make_genesis, make_judge
from poai_spec.chain.body import EMPTY_BODY
from poai_spec.chain.production import make_template
from poai_spec.chain.upgrades import get_rules
from poai_spec.execution.state import State, process_header
from poai_spec.model.loss import compute_l_hat, compute_trace_digest, is_below_target
from poai_spec.model.weights import Float32, GgufFile, GgufTensor
from poai_spec.proof.difficulty import Chain
from poai_spec.proof.lexicon import PIECES, Lexicon, compute_lexicon_digest
from poai_spec.proof.work import get_quiz, get_quiz_seed

LEXICON = Lexicon({piece: (1 + i,) for i, piece in enumerate(PIECES)})
VOCABULARY, LAYERS, WIDTH, INNER = 1 + len(PIECES), 2, 4, 6
MINER: Address = bytes.fromhex("11" * 20)


def make_values(stream: SHAKE128.SHAKE128_XOF, count: int, exponents: Sequence[int]) -> bytes:
    """Return F32 values with random signs and mantissas, and exponents drawn from a list."""
    words = []
    for _ in range(count):
        word = int.from_bytes(stream.read(4), "little")
        exponent = exponents[(word >> 24) % len(exponents)] + 127
        words.append((word & 0x807FFFFF) | exponent << 23)
    return b"".join(word.to_bytes(4, "little") for word in words)


def make_gguf() -> GgufFile:
    """Return a model whose weights come from a seed."""
    stream = SHAKE128.new(b"PoAI consensus test model")
    shapes = {"token_embd": (VOCABULARY, WIDTH), "output": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        inner = {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
        square = {f"attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        norms = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in (inner | square | norms).items()}
    tensors = {}
    for name, shape in shapes.items():
        count = shape[0] * shape[-1] if len(shape) == 2 else shape[0]
        tensors[f"{name}.weight"] = GgufTensor(f"{name}.weight", "F32", shape, make_values(stream, count, (-1, 0)))
    metadata: dict[str, int | bool | str | Float32] = {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": Float32(0x3727C5AC),
    }
    return GgufFile(metadata, tensors)


@cache
def get_engine() -> ReferenceEngine:
    """Return the specification's own forward pass over that model."""
    return ReferenceEngine(make_gguf())


@cache
def get_config() -> Config:
    """Return a network with short periods and epochs whose quizzes win every second time at first."""
    model = ModelManifest(
        gguf_sha256=bytes(32),
        integer_model_root=get_engine().integer_model_root,
        questions_digest=compute_lexicon_digest(LEXICON),
        corpus=False,
        layer_count=LAYERS,
        vocabulary_size=VOCABULARY,
        add_bos=False,
        bos_id=0,
        position_cost=1_000,
        pair_cost=10,
        scored_cost=100,
        salt_ranges=(TokenRange(1, VOCABULARY - 1),),
    )
    config = replace(
        make_config("minimal", model), epoch_blocks=3, quiz_tokens=24, salt_tokens=2, initial_target=2**255
    )
    check_config(config)
    return config


def get_judge() -> Judge:
    """Return what the tests' node judges with."""
    return make_judge(get_config(), LEXICON, get_engine())


def make_core(
    chain: Chain, state: State, timestamp: Milliseconds, *, nonce: int = 0, miner: Address = MINER
) -> HeaderCore:
    """Return a core that follows every rule on top of a chain; `state` is the one after its last header."""
    rules = get_rules(get_config(), (), len(chain))
    return replace(make_template(chain, state, rules, miner, timestamp), nonce=nonce)


def complete(core: HeaderCore, chain: Chain) -> Block:
    """Return the block of a core: its quiz is run, and the header says truly what that gave, won or not."""
    quiz = get_quiz(core, chain, get_rules(get_config(), (), 0), LEXICON)
    (evaluation,) = get_engine().evaluate([quiz.tokens], [quiz.scored])
    header = Header(core, evaluation.loss, compute_trace_digest(evaluation.trace))
    return Block(header, EMPTY_BODY, evaluation.trace)


def wins(header: Header, chain: Chain) -> bool:
    """Tell whether a header is below its target."""
    seed = get_quiz_seed(header.core, chain, get_rules(get_config(), (), 0))
    return is_below_target(compute_l_hat(seed, header.loss, header.trace_digest), header.core.target)


def mine(core: HeaderCore, chain: Chain, *, win: bool = True) -> Block:
    """Try nonces from the core's own on until a block wins (or, with `win=False`, loses)."""
    while True:
        block = complete(core, chain)
        if wins(block.header, chain) == win:
            return block
        core = replace(core, nonce=core.nonce + 1)


def forge(block: Block, chain: Chain, *, win: bool = True) -> Block:
    """Change the loss until the header wins (or loses), whatever else is wrong with the block: needs no model."""
    while wins(block.header, chain) != win:
        block = replace(block, header=replace(block.header, loss=block.header.loss + 1))
    return block


@dataclass
class Branch:
    """A chain under construction: its headers, the state after the last, and its blocks, genesis first."""

    chain: list[Header]
    state: State
    blocks: list[Block]

    @classmethod
    def start(cls) -> "Branch":
        genesis = make_genesis(get_config())
        return cls([genesis.header], {}, [genesis])

    def grow(self, timestamp: Milliseconds, *, nonce: int = 0, miner: Address = MINER) -> Block:
        """Mine one block, check it by every rule, and append it."""
        block = mine(make_core(self.chain, self.state, timestamp, nonce=nonce, miner=miner), self.chain)
        self.state = check_block(block, self.chain, self.state, get_judge(), timestamp)
        self.chain.append(block.header)
        self.blocks.append(block)
        return block

    def fork(self, height: int) -> "Branch":
        """Return a branch that shares the blocks up to a height."""
        branch = Branch.start()
        for block in self.blocks[1 : height + 1]:
            branch.state = process_header(branch.state, block.header.core)
            branch.chain.append(block.header)
            branch.blocks.append(block)
        return branch
