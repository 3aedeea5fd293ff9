"""What a data directory says while no node runs in it, in the same form as a node's answers (`poaid.view`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from poai_spec.basics.notation import Address
from poai_spec.basics.parameters import compute_network_id
from poai_spec.chain.upgrades import get_fork_hash
from poai_spec.execution.state import Account
from poai_spec.proof.difficulty import compute_target
from poai_spec.proof.epoch import get_epoch
from poaid.api.node_view import to_hex
from poaid.chain.chain_state import ChainState
from poaid.chain.judges import list_upgrades
from poaid.keys import MINER_KEY_NAME, compute_address, read_plain_key
from poaid.network_file import Network
from poaid.produce.attempts import get_time
from poaid.store.database import Database
from poaid.view import AccountView, StatusView


@dataclass(frozen=True)
class StoredView:
    """An open data directory.

    Attributes:
        folder: the data directory.
        store: its database.
        network: its network.
        chain: its chain.
    """

    folder: Path
    store: Database
    network: Network
    chain: ChainState

    def get_miner(self) -> Address | None:
        """Return the account of the directory's own key; None if it has none.

        Raises:
            NodeError: the key file is damaged, or open to other users.
        """
        path = self.folder / MINER_KEY_NAME
        return compute_address(read_plain_key(path)) if path.exists() else None

    def get_status(self) -> StatusView:
        """Return the status of the node that would start here; what only a running one knows is nothing or None."""
        head, config, miner = self.chain.head, self.network.config, self.get_miner() or bytes(20)
        rules = self.chain.tree.get_rules(head.height + 1)
        return StatusView(
            version=version("poai"),
            network=self.network.name,
            network_id=to_hex(compute_network_id(config)),
            profile=rules.profile.decode("ascii"),
            model=self.store.read_text("model"),
            activity="idle",
            reason=f"no node runs in {self.folder}",
            height=head.height,
            head=to_hex(head.hash),
            head_time=head.header.core.timestamp,
            genesis=to_hex(self.chain.tree.genesis.hash),
            work=str(head.work),
            target=f"{compute_target(self.chain.headers, rules):#x}",
            epoch=get_epoch(head.height + 1, rules),
            spacing=rules.spacing,
            miner=to_hex(miner),
            balance=self.get_account(miner)["balance"],
            quizzes_per_second=0.0,
            peer_count=0,
            peer_id=None,
            addresses=[],
            mined=0,
            reorgs=0,
            side_blocks=self.chain.tree.get_side_count(),
            orphans=0,
            waiting=0,
            bodies_from=self.chain.get_bodies_from(),
            assumed=len(self.chain.assumed),
            sync=None,
            fork=to_hex(get_fork_hash(self.chain.tree.get_rules(head.height))),
            upgrades=list_upgrades(self.network, head.height),
            uptime=0.0,
        )

    def get_account(self, address: Address) -> AccountView:
        """Return an account; one that is not in the state has nothing."""
        account = self.chain.state.get(address, Account())
        mined = sum(header.core.miner == address for header in self.chain.headers if header.core.height)
        return AccountView(address=to_hex(address), balance=str(account.balance), nonce=account.nonce, blocks=mined)


@contextmanager
def open_stored_view(data_dir: Path) -> Iterator[StoredView]:
    """Open a data directory that nobody uses.

    Raises:
        NodeError: there is none, or it is in use or damaged.
    """
    with Database.open(data_dir) as store:
        network = store.read_network()
        yield StoredView(data_dir, store, network, ChainState(store, network.config, get_time(), network.upgrades))
