"""A chain without forks, as one miner builds it: the headers in memory, blocks and accounts in the store."""

from collections.abc import Mapping

from poai_spec.block import Judge, check_contents, make_genesis, process_block
from poai_spec.containers import Block, Header, compute_block_hash
from poai_spec.encoding import decode
from poai_spec.header import check_header_alone, check_header_in_chain
from poai_spec.notation import Address, Milliseconds, SpecError
from poai_spec.parameters import Config
from poai_spec.state import Account, State, compute_state_root
from poaid.errors import NodeError
from poaid.store import Store


class SoloChain:
    """The stored chain, ready to grow.

    Attributes:
        headers: genesis first.
        state: the accounts after the last block.
    """

    def __init__(self, store: Store, config: Config) -> None:
        """Load the headers and accounts; nothing is replayed (that is `poaid verify`).

        Raises:
            NodeError: a stored block is damaged or out of place, or the accounts are not the last block's.
        """
        self._store = store
        self.headers: list[Header] = [make_genesis(config).header]
        for height, _, data in store.read_blocks():
            try:
                header = decode(Block, data).header
            except SpecError as error:
                raise NodeError(f"block {height} in {store.path} is damaged ({error}): run `poaid verify`") from error
            if height != len(self.headers) or header.core.parent_hash != compute_block_hash(self.headers[-1]):
                raise NodeError(f"block {height} in {store.path} is out of place: run `poaid verify`")
            self.headers.append(header)
        self.state: State = store.read_state()
        if compute_state_root(self.state) != self.headers[-1].core.state_root:
            raise NodeError(f"the accounts in {store.path} are not the last block's: run `poaid verify`")

    def append(self, block: Block, judge: Judge, now: Milliseconds) -> None:
        """Check a block that this process mined by every rule but the replay, and store it.

        Raises:
            SpecError: the miner is wrong.
        """
        check_header_alone(block.header)
        check_header_in_chain(block.header, self.headers, judge.config, now)
        check_contents(block, judge.config)
        after = process_block(self.state, block)
        self._store.append(block, get_changes(self.state, after))
        self.headers.append(block.header)
        self.state = after


def get_changes(before: State, after: State) -> Mapping[Address, Account]:
    """Return the accounts of `after` that `before` does not have, or has with another content."""
    return {address: account for address, account in after.items() if before.get(address) != account}
