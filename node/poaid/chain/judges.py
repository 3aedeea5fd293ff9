"""The models that a network's heights ask for, loaded into what blocks are judged with."""

from collections.abc import Mapping

from poai_engine.errors import ModelError
from poai_engine.models.packed import Say
from poai_spec.basics.notation import Height
from poai_spec.basics.parameters import ModelManifest
from poai_spec.chain.block import Judge, Model
from poai_spec.model.engine import Engine
from poaid.models import load_engine, locate_model
from poaid.network_file import Network


def load_judge(
    network: Network, sources: Mapping[ModelManifest, str], threads: int | None, gpu_layers: int, say: Say
) -> Judge:
    """Load every model that the network's rules ask for, each once.

    Args:
        network: with its upgrades.
        sources: names or paths of models that the user named; the others must be pinned ones.
        threads: see `load_engine`.
        gpu_layers: see `load_engine`.
        say: takes lines about what takes long.

    Raises:
        ModelError: the config's own model is not at hand. Another one is only said to be missing: blocks of its
            heights cannot be judged.
        Invalid: a model is outside the arithmetic, or not the one that the rules pin.
    """
    engines: dict[tuple[bytes, ModelManifest], Engine] = {}
    models: dict[Height, Model] = {}
    for rules in network.list_rules():
        key = rules.profile, rules.model
        try:
            if key not in engines:
                source = locate_model(sources.get(rules.model), rules.model)
                engines[key] = load_engine(source, rules, threads, gpu_layers, say)
        except ModelError as error:
            if not rules.since:
                raise
            say(f"from height {rules.since} on blocks cannot be judged: {error}")
            continue
        models[rules.since] = Model(network.get_questions(rules), engines[key])
    return Judge(network.config, network.upgrades, models)
