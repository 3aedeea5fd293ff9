"""Where `poai explain` finds a block: a data directory, a chain file, a conformance vector, a file, or a network.

Exports: `Found`, `KnownChain`, `VectorCase`, `open_data_dir`, `open_chain_file`, `open_networks`, `read_case`,
`read_file`, `decode_found`, `is_reference`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from poai_engine.models.model_names import MANIFESTS
from poai_spec.basics.containers import Block, Header, compute_block_hash
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Hash32, Malformed, Milliseconds
from poai_spec.basics.parameters import PRESET_CHANGES, Config, make_config, read_manifest
from poai_spec.chain.block import make_genesis
from poai_spec.chain.networking import MAX_BLOCK_BYTES
from poai_spec.execution.state import State, process_header
from poai_spec.proof.lexicon import read_lexicon
from poai_tools.explain.checks import Place
from poai_tools.spec.places import find_vectors
from poai_tools.vectors.check import read_file as read_case_file
from poai_tools.vectors.records import read_state
from poai_tools.vectors.suites import get_function
from poaid.api.stored_view import open_stored_view
from poaid.chain.chain_file import MAGIC, ChainReader
from poaid.errors import NodeError, UsageError
from poaid.layout import HEADER_BYTES, decode_header
from poaid.network_file import Network, get_network
from poaid.store.database import Database

MAX_INPUT_BYTES = 4 * MAX_BLOCK_BYTES
"""Of a file: the largest block in hexadecimal, and as much again for spaces and line ends."""
HEIGHT = re.compile(r"[0-9]{1,20}")
HASH = re.compile(r"0x[0-9a-fA-F]{1,64}|[0-9a-fA-F]{8,64}")
"""A hash or its beginning, without 0x at least 8 digits of it; what could be a height is one."""
HEADER_CASES, BLOCK_CASES, CHAIN_CASES = "header/check_header_in_chain", "block/check_block", "chain/verify_chain"


class Found(NamedTuple):
    """A block's bytes, or a header's, and how people call them."""

    data: bytes
    origin: str


@dataclass(frozen=True)
class KnownChain:
    """Blocks at hand, and the network that they belong to.

    Attributes:
        name: of the folder, file or network.
        network: the network.
        headers: by block hash; all branches, genesis among them.
        main: the hashes of the chain by height.
        read: gives a block's encoding; None if only its header is at hand.
        model: where the network's model was found; None if nobody said.
    """

    name: str
    network: Network
    headers: Mapping[Hash32, Header]
    main: Sequence[Hash32]
    read: Callable[[Hash32], bytes | None]
    model: str | None = None

    def find(self, reference: str) -> Found:
        """Return the block of a height, of a hash or its beginning, or `genesis`.

        Raises:
            NodeError: it is not at hand, or several hashes begin so.
        """
        block_hash = self._find_hash(reference)
        header = self.headers[block_hash]
        data, height = self.read(block_hash), f"{header.core.height:,}"
        if data is None:
            return Found(encode(header), f"the header of block {height} of {self.name}, which has no more of it")
        return Found(data, f"block {height} of {self.name}")

    def _find_hash(self, reference: str) -> Hash32:
        if reference == "genesis" or HEIGHT.fullmatch(reference):
            height = 0 if reference == "genesis" else int(reference)
            if height < len(self.main):
                return self.main[height]
            hint = f"{self.name} ends at height {len(self.main) - 1:,}"
            if len(self.main) == 1:
                hint = f"of {self.name} only genesis is at hand here; give --data-dir or --chain-file"
            raise NodeError(f"no block {height:,}: {hint}")
        digits = reference.lower().removeprefix("0x")
        found = [block_hash for block_hash in self.headers if block_hash.hex().startswith(digits)]
        if len(found) == 1:
            return found[0]
        fault = f"{len(found)} blocks have hashes that begin" if found else "no block has a hash that begins"
        raise NodeError(f"{self.name}: {fault} with {reference}")

    def find_place(self, header: Header, block: Block | None) -> Place | None:
        """Return where a header, or a whole block, stands among these; None if its parent is not one of them."""
        genesis = make_genesis(self.network.config)
        if header == genesis.header:
            return Place(self.network, (), {}) if block in (None, genesis) else None
        if header.core.parent_hash not in self.headers:
            return None
        branch = [self.headers[header.core.parent_hash]]
        while branch[-1].core.parent_hash in self.headers:
            branch.append(self.headers[branch[-1].core.parent_hash])
        return Place(self.network, branch[::-1], compute_state(branch[::-1]))


def compute_state(chain: Iterable[Header]) -> State:
    """Return the accounts after a chain's blocks."""
    start: State = {}
    return reduce(lambda state, header: process_header(state, header.core), chain, start)


def open_network(network: Network) -> KnownChain:
    """Return what follows from a network alone: genesis."""
    genesis = make_genesis(network.config)
    block_hash, data = compute_block_hash(genesis.header), encode(genesis)
    name = f"network {network.name}"
    return KnownChain(name, network, {block_hash: genesis.header}, [block_hash], {block_hash: data}.get)


def open_networks(name: str | None, model: str | None) -> list[KnownChain]:
    """Return the networks that a block may belong to: the one that the user names, else those that have a name."""
    if name is not None or model is not None:
        return [open_network(get_network(name or "local", model))]
    named = (("local", None), ("testnet", None), ("minimal", None), ("local", "mini"))
    return [open_network(get_network(*pair)) for pair in named]


def open_data_dir(folder: Path) -> KnownChain:
    """Return the blocks of a data directory that no node uses.

    Raises:
        NodeError: there is none, or it is in use or damaged.
    """
    with open_stored_view(folder) as view:
        genesis, tree = make_genesis(view.network.config), view.chain.tree
        headers = {block_hash: entry.header for block_hash, entry in tree.entries.items()}
        main = [tree.get_main(height).hash for height in range(tree.head.height + 1)]
        model = view.store.read_text("model")

    def read(block_hash: Hash32) -> bytes | None:
        if block_hash == main[0]:
            return encode(genesis)
        with Database.open(folder) as store:
            return store.read_block(block_hash)

    return KnownChain(str(folder), view.network, headers, main, read, model)


def open_chain_file(path: Path) -> KnownChain:
    """Return the blocks of a chain file, as they are: `poaid import` checks them.

    Raises:
        NodeError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            reader = ChainReader(file, path)
            known = open_network(reader.read_network())
            blocks = [record.data for record in reader.read_blocks()]
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    try:
        headers = [decode_header(data[:HEADER_BYTES]) for data in blocks]
    except Malformed as error:
        raise NodeError(f"{path} holds a block that has no whole header: {error}") from error
    hashes = [compute_block_hash(header) for header in headers]
    by_hash = {**known.headers, **dict(zip(hashes, headers, strict=True))}
    data = {known.main[0]: known.read(known.main[0]), **dict(zip(hashes, blocks, strict=True))}
    return KnownChain(path.name, known.network, by_hash, [known.main[0], *hashes], data.get)


def read_file(path: Path) -> Found:
    """Return the bytes of a file, which may be written in hexadecimal.

    Raises:
        NodeError: it cannot be read, is empty or too large, or holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INPUT_BYTES + 1)
    except IsADirectoryError:
        raise NodeError(f"{path} is a folder: give a height or hash, and --data-dir {path}") from None
    except OSError as error:
        hint = "give a height, a hash, genesis, or the file of a block or header"
        raise NodeError(f"no block {str(path)!r:.200} ({error.strerror}): {hint}") from error
    if data.startswith(MAGIC):
        raise NodeError(f"{path} is a chain file: give a height or hash, and --chain-file {path}")
    if not data:
        raise NodeError(f"{path} is empty: a header has {HEADER_BYTES} bytes, a block more")
    if len(data) > MAX_INPUT_BYTES:
        raise NodeError(f"{path} has over {MAX_INPUT_BYTES:,} bytes: no block is so large")
    return Found(read_hex(data) or data, path.name)


def read_hex(data: bytes) -> bytes | None:
    """Return what hexadecimal digits say, with spaces and line ends anywhere and 0x before them or not; None if not."""
    digits = b"".join(data.split()).removeprefix(b"0x")
    if not re.fullmatch(rb"([0-9a-fA-F]{2})+", digits):
        return None
    return bytes.fromhex(digits.decode())


def decode_found(found: Found) -> tuple[Header, Block | None]:
    """Return the header, and the block unless it is a header alone.

    Raises:
        NodeError: `encoding/undecodable`, in one line.
    """
    try:
        if len(found.data) == HEADER_BYTES:
            return decode(Header, found.data), None
        block = decode(Block, found.data)
    except Malformed as error:
        shape = (
            f"a header has {HEADER_BYTES} bytes, a block without transactions {HEADER_BYTES + 12} and 32 a trace entry"
        )
        raise NodeError(f"{found.origin}: {error}; {shape}") from error
    return block.header, block


def is_reference(text: str) -> bool:
    """Tell whether a text names a block of a chain; everything else is a file."""
    if text == "genesis" or HEIGHT.fullmatch(text):
        return True
    return HASH.fullmatch(text) is not None and not Path(text).exists()


class VectorCase(NamedTuple):
    """A block of a conformance vector, where it stands there, and the vector's clock."""

    found: Found
    place: Place
    now: Milliseconds


def read_case(path: str, reference: str | None) -> VectorCase:
    """Return the block or header of a committed case.

    Args:
        path: `SUITE/FUNCTION/ID` as `poai vectors check` writes it.
        reference: for a case that is a chain, the height; the chain's last block without it.

    Raises:
        UsageError: there is no such case, it has no such block, or its function does not judge blocks.
        VectorsError: the file is missing or damaged.
    """
    suite, _, rest = path.partition("/")
    name, _, case_id = rest.partition("/")
    if f"{suite}/{name}" not in (HEADER_CASES, BLOCK_CASES, CHAIN_CASES):
        known = f"{BLOCK_CASES}/ID, {HEADER_CASES}/ID or {CHAIN_CASES}/ID"
        raise UsageError(f"--vector {path!r}: give {known}, as `poai vectors check` names its cases")
    cases = {case.id: case for case in read_case_file(find_vectors() / suite / f"{name}.json")}
    if case_id not in cases:
        raise UsageError(f"--vector {path!r}: there is no such case; those of this function are {', '.join(cases)}")
    values = get_function(suite, name).input.from_json(cases[case_id].input, path)
    if "blocks" in values:
        return _read_chain_case(path, values, reference)
    if reference is not None:
        raise UsageError(f"--vector {path} is one block: leave {reference!r} out")
    state = read_state(values["accounts"]) if "accounts" in values else compute_state(values["chain"])
    value = values["block"] if "block" in values else values["header"]
    place = Place(_make_network(values["config"]), values["chain"], state)
    return VectorCase(Found(encode(value), path), place, values["now"])


def _read_chain_case(path: str, values: Mapping[str, Any], reference: str | None) -> VectorCase:
    genesis, blocks = make_genesis(values["config"]), values["blocks"]
    reference = "0" if reference == "genesis" else reference or str(len(blocks))
    if not HEIGHT.fullmatch(reference) or int(reference) > len(blocks):
        raise UsageError(f"--vector {path} has the blocks 0 to {len(blocks)}: there is no {reference!r:.80}")
    height, network = int(reference), _make_network(values["config"])
    if height == 0:
        return VectorCase(Found(encode(genesis), f"genesis of {path}"), Place(network, (), {}), values["now"])
    chain = [genesis.header, *_decode_ancestors(path, blocks[: height - 1])]
    place = Place(network, chain, compute_state(chain))
    return VectorCase(Found(blocks[height - 1], f"block {height:,} of {path}"), place, values["now"])


def _decode_ancestors(path: str, blocks: Sequence[bytes]) -> Iterator[Header]:
    for height, data in enumerate(blocks, 1):
        try:
            yield decode_header(data[:HEADER_BYTES])
        except Malformed as error:
            raise UsageError(f"--vector {path}: block {height:,}: {error}; give a height up to that") from error


def _make_network(config: Config) -> Network:
    """Return the network of a case, which has one of the pinned lexicons."""
    presets = (preset for preset in PRESET_CHANGES if make_config(preset, config.model) == config)
    digest = config.model.questions_digest.hex()
    lexicon = next(m for m in MANIFESTS.values() if read_manifest(m)["lexicon_digest"].removeprefix("0x") == digest)
    return Network(next(presets, "of the vectors"), config, read_lexicon(lexicon), lexicon)
