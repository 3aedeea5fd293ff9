"""Vectors of whole chains, as bytes: checked block by block, and imported through the fork choice in any order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import SpecError
from poai_spec.basics.parameters import Config, get_preset
from poai_spec.chain.block import check_block, make_genesis
from poai_spec.chain.fork_choice import Store, get_head, make_store, receive_block
from poai_spec.execution.state import State, compute_state_root
from poai_tools.vectors.cases import Case, CaseFile, derive
from poai_tools.vectors.chains import TRUE, Alteration, GrownBranch, seal_block
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.engines import LEXICONS, STORED, get_judge
from poai_tools.vectors.kinds import HASH32, TEXT, UINT32, UINT64, UINT256, Array, Hex, Kind, Optional, RecordKind, Text
from poai_tools.vectors.network import LEXICON, MODEL, make_network, require_config
from poai_tools.vectors.records import BALANCES, CONFIG, list_accounts
from poai_tools.vectors.registry import Function, register

INPUT = RecordKind(
    {
        "config": CONFIG,
        "lexicon": Text(LEXICONS),
        "model": Text(tuple(STORED)),
        "now": UINT64,
        "blocks": Array(Hex(2**16, exact=False)),
    }
)
TIP: dict[str, Kind] = {"head": HASH32, "height": UINT32, "state_root": HASH32, "accounts": BALANCES}


def _describe(header: Header, state: State) -> dict[str, Any]:
    return {
        "head": compute_block_hash(header),
        "height": header.core.height,
        "state_root": compute_state_root(state),
        "accounts": list_accounts(state),
    }


def _verify_chain(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(i["config"])
    judge = get_judge(i["config"], i["lexicon"], i["model"])
    chain = [make_genesis(judge.config).header]
    state: State = {}
    for data in i["blocks"]:
        block = decode(Block, data)
        state = check_block(block, chain, state, judge, i["now"])
        chain.append(block.header)
    return _describe(chain[-1], state)


def _deliver(store: Store, data: bytes, i: Mapping[str, Any]) -> tuple[Store, SpecError | None]:
    try:
        block = decode(Block, data)
    except SpecError as error:
        return store, error
    return receive_block(store, block, b"peer", get_judge(i["config"], i["lexicon"], i["model"]))


def _import_blocks(i: Mapping[str, Any]) -> dict[str, Any]:
    require_config(i["config"])
    store, codes = make_store(get_judge(i["config"], i["lexicon"], i["model"]), i["now"]), []
    for data in i["blocks"]:
        store, error = _deliver(store, data, i)
        codes.append(error.code if error else None)
    head = store.kept[get_head(store)]
    return _describe(head.header, head.state or {}) | {"work": head.work, "codes": codes}


VERIFY_CHAIN = register(
    Function(
        suite="chain",
        name="verify_chain",
        page="block",
        summary="check a chain, the blocks 1, 2, ... as SSZ, by every rule; the first that is broken gives the code",
        input=INPUT,
        output=RecordKind(TIP),
        run=_verify_chain,
    )
)
IMPORT_BLOCKS = register(
    Function(
        suite="chain",
        name="import_blocks",
        page="fork-choice",
        summary="one peer gives SSZ blocks to a node that knows genesis; its head in the end, and each block's code",
        input=INPUT,
        output=RecordKind({**TIP, "work": UINT256, "codes": Array(Optional(TEXT))}),
        run=_import_blocks,
    )
)
FLAGS = {
    "fork": ("blocks of several branches", "a client that follows the first branch ends at another head"),
    "order": ("children come before their parents", "a client that cannot wait for parents does not get to the head"),
    "decoding": ("bytes that are no block", "a client that reads on accepts what others refuse"),
}
MADE = "Mined with poai-mini: stamps by hand or drawn, three miners in turn, nonces from 0 on, every forward pass real."
LATER = 10**7
MINERS = tuple(bytes([n]) * 20 for n in (0x21, 0x22, 0x23))


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_verify_chain_file(), _import_blocks_file()]


@cache
def _long() -> GrownBranch:
    """Eighteen blocks: six epochs, retargets at the heights 6, 10, 14 and 18, fast at first and then slow."""
    branch, stamp, drbg = GrownBranch.start(make_network()), 0, derive("chain", "long")
    for height in range(1, 19):
        fastest, slowest = (300, 700) if height < 10 else (1500, 2500)
        stamp += drbg.between(fastest, slowest)
        branch.grow(stamp, MINERS[height % 3])
    return branch


@cache
def _two_hundred() -> GrownBranch:
    """Two hundred blocks, for clients that synchronise: 67 epochs, 49 retargets, a pace that wanders."""
    branch, stamp, drbg = GrownBranch.start(make_network()), 0, derive("chain", "two-hundred")
    for height in range(1, 201):
        stamp += drbg.between(500, 1500)
        branch.grow(stamp, MINERS[height % 3])
    return branch


@cache
def _minimal() -> GrownBranch:
    """Twelve blocks of the preset `minimal`."""
    branch = GrownBranch.start(get_preset("minimal"))
    for height in range(1, 13):
        branch.grow(900 * height, MINERS[height % 3])
    return branch


@cache
def _other_lengths() -> GrownBranch:
    """Five blocks of a network with longer quizzes, an epoch a block and a retarget every two."""
    changes: dict[str, Any] = {
        "epoch_blocks": 1,
        "retarget_blocks": 2,
        "quiz_tokens": 48,
        "salt_tokens": 3,
        "scored_tokens": 5,
    }
    branch = GrownBranch.start(replace(make_network(), max_future=200, **changes))
    for height in range(1, 6):
        branch.grow(800 * height, MINERS[0])
    return branch


@cache
def _rival() -> GrownBranch:
    """The first seven blocks of the long chain and seven others, some stamps out of order."""
    branch = _long().fork(7)
    start = branch.chain[-1].core.timestamp - make_network().genesis_timestamp
    for n, delay in enumerate((900, 1500, 1100, 2600, 2200, 3000, 3400)):
        branch.grow(start + delay, MINERS[n % 2])
    return branch


def _make_input(config: Config, blocks: Sequence[Block | bytes], now: int = LATER) -> dict[str, Any]:
    data = tuple(block if isinstance(block, bytes) else encode(block) for block in blocks)
    now += config.genesis_timestamp
    return {"config": config, "lexicon": LEXICON, "model": MODEL, "now": now, "blocks": data}


def _from(branch: GrownBranch, now: int = LATER) -> dict[str, Any]:
    return _make_input(branch.judge.config, branch.blocks[1:], now)


def _verify_chain_file() -> CaseFile:
    long = Case("long", "18 blocks, 6 epochs, 4 retargets", _from(_long()))
    short = Case("short", "its first 4 blocks", _from(_long().fork(4)))
    cases = [
        long,
        short,
        Case("rival", "14 blocks, of which 7 are the same", _from(_rival())),
        Case("minimal", "12 blocks of the preset", _from(_minimal())),
        Case("other-lengths", "5 blocks, other lengths of quiz, epoch and period", _from(_other_lengths())),
        Case("two-hundred", "200 blocks, 67 epochs, 49 retargets", _from(_two_hundred(), 10**9)),
        Case("genesis", "no block but genesis", _make_input(make_network(), ())),
    ]
    blocks: list[Block | bytes] = list(_long().blocks[1:5])
    third = encode(_long().blocks[3])
    fourth = _long().fork(3)
    rows: tuple[tuple[str, str, list[Block | bytes], tuple[str, ...]], ...] = (
        ("truncated", "a byte is missing", [*blocks[:2], third[:-1], blocks[3]], ("decoding",)),
        ("trailing", "a byte too many", [*blocks[:2], third + b"\0", blocks[3]], ("decoding",)),
        ("no-bytes", "a block of no bytes", [*blocks[:2], b"", blocks[3]], ("decoding",)),
        ("left-out", "block 3 is missing", [*blocks[:2], blocks[3]], ()),
        ("swapped", "blocks 3 and 4 exchanged", [*blocks[:2], blocks[3], blocks[2]], ()),
        ("repeated", "block 3 twice", [*blocks[:3], blocks[2]], ()),
        (
            "trace-bit",
            "a bit of the last trace entry",
            [*blocks[:2], third[:-1] + bytes([third[-1] ^ 1]), blocks[3]],
            (),
        ),
        ("miner", "another miner, all else as it was", [*blocks[:2], _swap_miner(), blocks[3]], ()),
        ("false-loss", "a false loss, mined", [*blocks[:3], _seal(fourth, Alteration(extra_loss=1))], ()),
        ("false-trace", "a false trace, mined", [*blocks[:3], _seal(fourth, Alteration(lambda t: (t[1], *t[1:])))], ()),
        ("false-state", "another state, mined", [*blocks[:3], _seal(fourth, state_root=bytes(32))], ()),
    )
    for name, comment, changed, flags in rows:
        values = {"blocks": _make_input(make_network(), changed)["blocks"]}
        cases.append(make_negative(VERIFY_CHAIN, short, name, comment, values, flags))
    early = _from(_long().fork(4), 0)
    cases.append(make_negative(VERIFY_CHAIN, short, "early", "the clock stands at genesis", {"now": early["now"]}))
    return CaseFile(VERIFY_CHAIN, MADE, tuple(cases), {name: FLAGS[name] for name in ("decoding",)})


def _flip_last_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _swap_miner() -> Block:
    block: Block = _long().blocks[3]
    core = replace(block.header.core, miner=b"\x66" * 20)
    return replace(block, header=replace(block.header, core=core))


def _seal(branch: GrownBranch, alteration: Alteration = TRUE, **changes: Any) -> Block:
    stamp = branch.chain[-1].core.timestamp - branch.judge.config.genesis_timestamp + 500
    return seal_block(branch.make_core(stamp, **changes), branch.chain, branch.judge, alteration)


def _import_blocks_file() -> CaseFile:
    config, long, rival = make_network(), _long().blocks[1:], _rival().blocks[8:]
    rows: tuple[tuple[str, str, Sequence[Block | bytes], tuple[str, ...]], ...] = (
        ("long", "one chain in order", long, ()),
        ("long-first", "then a branch that is lighter", [*long, *rival], ("fork",)),
        (
            "rival-first",
            "then a branch that is heavier, asked for twice",
            [*long[:7], *rival, *long[7:], *long[7:]],
            ("fork",),
        ),
        ("turns", "both branches in turn, twice", [*long[:7], *_interleave(long[7:], rival) * 2], ("fork",)),
        ("pairs-swapped", "each pair in the wrong order, then again", [*_swap_pairs(long), *long], ("order",)),
        (
            "with-rubbish",
            "bytes that are no block between",
            [long[0], b"", long[1], b"\xff" * 300, long[2]],
            ("decoding",),
        ),
        ("false-branch", "a false block, and one on top of it", _make_false(), ("fork",)),
    )
    cases = [Case(name, comment, _make_input(config, blocks), flags) for name, comment, blocks, flags in rows]
    return CaseFile(IMPORT_BLOCKS, MADE, tuple(cases), FLAGS)


def _interleave(a: Sequence[Block], b: Sequence[Block]) -> list[Block]:
    longest = max(len(a), len(b))
    return [block for n in range(longest) for side in (a, b) for block in side[n : n + 1]]


def _swap_pairs(blocks: Sequence[Block]) -> list[Block]:
    return [block for n in range(0, len(blocks), 2) for block in reversed(blocks[n : n + 2])]


def _make_false() -> list[Block]:
    """Return four blocks, a false fifth one with a child, and the true fifth."""
    blocks, branch = _long().blocks[1:6], _long().fork(4)
    branch.append(_seal(branch, Alteration(extra_loss=1)))
    return [*blocks[:4], branch.blocks[-1], _seal(branch), blocks[4]]
