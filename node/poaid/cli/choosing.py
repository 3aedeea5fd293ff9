"""Which network and model a command works with: what the data directory holds, or what the flags say."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import structlog

from poai_spec.basics.notation import Address, Height
from poai_spec.basics.parameters import compute_network_id
from poaid.keys import format_address
from poaid.models import locate_model
from poaid.network_file import Network, change_network, get_network, parse_target
from poaid.store.database import Database

log = structlog.get_logger()

DEFAULT_NETWORK = "local"
"""Of a new data directory whose maker names none."""


@dataclass(frozen=True)
class NetworkFlags:
    """What the user said; None where nothing.

    Attributes:
        network: a preset's name or a network file.
        model: a pinned model's name or a path.
        target: as `parse_target` takes it.
        corpus: a folder of questions.
    """

    network: str | None
    model: str | None
    target: str | None
    corpus: Path | None


def choose_network(data_dir: Path, flags: NetworkFlags) -> tuple[Network, str]:
    """Return the network and where its model is.

    A data directory that was made says both, so that a node starts again with `--data-dir` alone. Flags change what it
    says; `Database.create_or_open` refuses the result if that is another network.

    Raises:
        UsageError: a target that is none.
        NodeError: no such network, or a data directory that cannot be read.
        ModelError: the model is not at hand.
        Invalid: see `get_network`.
    """
    target = None if flags.target is None else parse_target(flags.target)
    if flags.network is not None or not Database.is_made(data_dir):
        network = get_network(flags.network or DEFAULT_NETWORK, flags.model, target, flags.corpus)
        return network, locate_model(flags.model, network.config.model)
    with Database.open(data_dir) as store:
        stored, source = store.read_network(), store.read_text("model")
    network = change_network(stored, flags.model, target, flags.corpus)
    return network, source if flags.model is None else locate_model(flags.model, network.config.model)


def announce(network: Network, height: Height, miner: Address | None) -> None:
    """Say what is started."""
    network_id = "0x" + compute_network_id(network.config).hex()
    log.info("Chain opened", version=version("poai"), network=network.name, network_id=network_id, height=height)
    if miner is None:
        log.info("Mining is off")
    else:
        log.info("Subsidies go to", address=format_address(miner))
