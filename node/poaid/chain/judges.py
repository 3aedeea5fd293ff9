"""The models that a network's heights ask for, loaded into what blocks are judged with.

A node needs the model of each set of rules that blocks are still judged by: that of the next block, those of upgrades
to come, which are loaded ahead, and old ones as long as their blocks can be reorganised. One that is not at hand stops
nothing before its height; from there on the node neither mines nor imports until the file is there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, Self

import structlog
import trio

from poai_engine.errors import ModelError
from poai_engine.models.packed import Say
from poai_spec.basics.notation import Height, SpecError
from poai_spec.basics.parameters import ModelManifest
from poai_spec.chain.block import Judge, Model
from poai_spec.chain.upgrades import Rules
from poai_spec.model.engine import Engine
from poaid.models import find_wrong, load_engine, locate_model
from poaid.network_file import Network
from poaid.view import UpgradeView

LOOK_S = 5.0
"""How often a file that is missing is looked for."""
KEPT_BLOCKS = 288
"""How far below the head blocks may still be reorganised without their bodies being fetched again: what a pruned node
keeps at least. A model whose last block is deeper is dropped."""

State = Literal["present", "missing", "hash wrong"]
log = structlog.get_logger()


@dataclass(frozen=True)
class Need:
    """A model that some rules ask for.

    Attributes:
        rules: they.
        state: whether it is loaded; if not, what is wrong.
        hint: what to do about it; empty if it is present.
    """

    rules: Rules
    state: State
    hint: str = ""


class Models:
    """Loads the models of a network, and goes on looking for those that are missing.

    Args:
        network: with its upgrades.
        sources: names or paths of models that the user named; the others must be pinned ones.
        threads: see `load_engine`.
        gpu_layers: see `load_engine`.
        say: takes lines about what takes long.

    Attributes:
        judge: what blocks are judged with; its models change as they are loaded and dropped.
    """

    def __init__(
        self, network: Network, sources: Mapping[ModelManifest, str], threads: int | None, gpu_layers: int, say: Say
    ) -> None:
        self._network, self._sources = network, sources
        self._load_engine = partial(load_engine, threads=threads, gpu_layers=gpu_layers, say=say)
        self._models: dict[Height, Model] = {}
        self._faults: dict[Height, Need] = {}
        self._dropped = set[Height]()
        self.judge = Judge(network.config, network.upgrades, self._models)

    @classmethod
    def hold(cls, network: Network, judge: Judge) -> Self:
        """Return the models that a judge already has; what it lacks is looked for."""
        models = cls(network, {}, None, 0, lambda _: None)
        models._models.update(judge.models)
        return models

    def list_needs(self) -> list[Need]:
        """Return the state of every model that a height asks for, in order of height; dropped ones are left out."""
        return [
            Need(rules, "present") if rules.since in self._models else self._faults[rules.since]
            for rules in self._network.list_rules()
            if rules.since in self._models or rules.since in self._faults
        ]

    def get_source(self, rules: Rules) -> str:
        """Return the name or path of the model of some rules.

        Raises:
            ModelError: it is not known where that is.
        """
        return locate_model(self._sources.get(rules.model), rules.model)

    def explain_missing(self, height: Height) -> str | None:
        """Return why the block at a height cannot be judged, in one line; None if it can."""
        since = self._network.get_rules(height).since
        if since in self._models:
            return None
        need = self._faults.get(since)
        what = "is not loaded yet" if need is None else f"is {need.state}: {need.hint}"
        return f"the model from height {since} on {what}"

    def load(self, *, own: bool = True) -> None:
        """Load what is not loaded, each file once.

        Args:
            own: whether the config's own model must be there.

        Raises:
            ModelError: it is not.
            Invalid: a model is outside the arithmetic, or not the one that the rules pin.
        """
        for rules in self._network.list_rules():
            if rules.since not in self._models and rules.since not in self._dropped:
                self._load(rules, must=own and not rules.since)

    def _load(self, rules: Rules, *, must: bool) -> None:
        try:
            engine = self._find_engine(rules)
            if engine is None:
                engine = self._load_engine(self.get_source(rules), rules)
        except (ModelError, SpecError) as error:
            if must:
                raise
            state: State = "hash wrong" if find_wrong(self._sources.get(rules.model), rules.model) else "missing"
            self._faults[rules.since] = Need(rules, state, str(error))
            return
        self._faults.pop(rules.since, None)
        self._models[rules.since] = Model(self._network.get_questions(rules), engine)

    def _find_engine(self, rules: Rules) -> Engine | None:
        """Return the engine of other rules with the same model and arithmetic."""
        for other in self._network.list_rules():
            if other.since in self._models and (other.profile, other.model) == (rules.profile, rules.model):
                return self._models[other.since].engine
        return None

    def drop_old(self, lowest: Height) -> None:
        """Forget models of which no block above `lowest` has need."""
        every = self._network.list_rules()
        for rules, following in pairwise(every):
            if following.since <= lowest and self._models.pop(rules.since, None) is not None:
                self._dropped.add(rules.since)

    def need_again(self, lowest: Height) -> None:
        """Load dropped models again, for a branch that forks below."""
        every = self._network.list_rules()
        for rules, following in pairwise(every):
            if following.since > lowest:
                self._dropped.discard(rules.since)

    async def follow(self, get_lowest: Callable[[], Height], on_loaded: Callable[[], None]) -> None:
        """Look for missing models and drop old ones, for ever.

        Args:
            get_lowest: the lowest height whose blocks may still be judged.
            on_loaded: called when one has come.
        """
        for need in self.list_needs():
            if need.state != "present":
                log.warning("A coming model is not at hand", height=need.rules.since, state=need.state, why=need.hint)
        while True:
            await trio.sleep(LOOK_S)
            self.need_again(get_lowest())
            self.drop_old(get_lowest())
            wanted = [rules.since for rules in self._network.list_rules() if rules.since not in self._dropped]
            if all(since in self._models for since in wanted):
                continue
            before = set(self._models)
            await trio.to_thread.run_sync(partial(self.load, own=False))
            for since in sorted(set(self._models) - before):
                log.info("The model is loaded", height=since)
                on_loaded()


def load_judge(
    network: Network, sources: Mapping[ModelManifest, str], threads: int | None, gpu_layers: int, say: Say
) -> Judge:
    """Load every model that the network's rules ask for, each once; one that is missing is said.

    Raises:
        ModelError: the config's own model is not at hand.
        Invalid: a model is outside the arithmetic, or not the one that the rules pin.
    """
    models = Models(network, sources, threads, gpu_layers, say)
    models.load()
    for need in models.list_needs():
        if need.state != "present":
            say(f"from height {need.rules.since} on blocks cannot be judged, the model is {need.state}: {need.hint}")
    return models.judge


def list_upgrades(network: Network, head: Height, needs: Sequence[Need] = ()) -> list[UpgradeView]:
    """Return a network's upgrades as the status shows them."""
    states = {need.rules.since: need for need in needs}
    return [
        UpgradeView(
            height=upgrade.height,
            change=network.describe_upgrade(upgrade.height),
            passed=upgrade.height <= head,
            model=states[upgrade.height].state if upgrade.height in states else "",
            hint=states[upgrade.height].hint if upgrade.height in states else "",
        )
        for upgrade in network.upgrades
    ]
