"""The models that vectors name, and the engine that runs them.

`choose_engine` decides for the whole process whether our side computes with the exact engine or with the reference.
"""

from collections.abc import Callable, Mapping
from functools import cache

from poai_engine.engines.exact import ExactEngine
from poai_engine.engines.reference import ReferenceEngine
from poai_engine.models.gguf_file import read_gguf
from poai_engine.models.model_store import resolve_model
from poai_spec.basics.notation import Height, Invalid
from poai_spec.basics.parameters import Config, read_manifest
from poai_spec.chain.block import Judge, Model
from poai_spec.chain.upgrades import Upgrade, make_rules
from poai_spec.model.engine import Engine
from poai_spec.model.weights import GgufFile
from poai_spec.proof.corpus import check_questions
from poai_spec.proof.lexicon import Lexicon, read_lexicon
from poai_spec.proof.work import MemoEngine, check_engine
from poai_tools.vectors.kinds import KindError

STORED = {  # name in vectors -> name in the model store
    "mini": "mini",
    "micro": "micro",
    "smollm2-135m": "smollm2",
    "tinyllama-shape": "tinyllama-shape",
    "tinyllama-1.1b": "tinyllama",
}
LEXICONS = ("mini", "micro", "smollm2-135m", "tinyllama-shape", "tinyllama-1.1b")
"""The lexicons of `specs/manifests`; vectors name them in the field `lexicon`."""
SMALL_WIDTH = 256
"""Below this embedding length products are so small that a second thread costs more than it saves."""


def _make_exact(gguf: GgufFile) -> Engine:
    width = gguf.metadata["llama.embedding_length"]
    return ExactEngine(gguf, threads=1 if isinstance(width, int) and width < SMALL_WIDTH else None)


ENGINES: dict[str, Callable[[GgufFile], Engine]] = {"exact": _make_exact, "reference": ReferenceEngine}

_choice = "exact"


def choose_engine(name: str) -> None:
    """Let `get_engine` give engines of this name (`exact` or `reference`) from now on."""
    global _choice  # noqa: PLW0603
    assert name in ENGINES, name
    _choice = name


def get_chosen_engine() -> str:
    """Return the name that `choose_engine` was given last."""
    return _choice


@cache
def get_gguf(model: str) -> GgufFile:
    """Return a stored model's file.

    Raises:
        ModelError: it is not at hand, or damaged.
    """
    return read_gguf(resolve_model(STORED[model]))


@cache
def _make_engine(model: str, choice: str) -> Engine:
    return MemoEngine(ENGINES[choice](get_gguf(model)))


def get_engine(model: str) -> Engine:
    """Return the chosen engine with a stored model, made once; it remembers the quizzes that it replayed.

    Raises:
        ModelError: as `get_gguf`.
    """
    return _make_engine(model, _choice)


@cache
def get_lexicon(name: str) -> Lexicon:
    """Return a lexicon of `specs/manifests`, read once."""
    return read_lexicon(name)


def get_judge(config: Config, lexicon: str, model: str) -> Judge:
    """Return what blocks of a network without upgrades are judged with.

    Raises:
        KindError: the network has another lexicon or model; the page `block` assumes that this was checked.
    """
    return get_upgraded_judge(config, (), {0: (lexicon, model)})


def get_upgraded_judge(
    config: Config, upgrades: tuple[Upgrade, ...], models: Mapping[Height, tuple[str, str]]
) -> Judge:
    """Return what blocks are judged with; `models` are the names of lexicon and model from each height on.

    Raises:
        KindError: the rules of a height ask for another lexicon or model.
    """
    loaded = {}
    for rules in make_rules(config, upgrades):
        if rules.since not in models:
            continue
        lexicon, name = models[rules.since]
        loaded[rules.since] = model = Model(get_lexicon(lexicon), get_engine(name))
        try:
            check_questions(model.questions, rules.model)
            check_engine(model.engine, rules)
        except Invalid as error:
            raise KindError(f"config: {error}") from error
        if rules.model.vocabulary_size != read_manifest(name)["vocabulary_size"]:
            raise KindError(f"config: {name} has another vocabulary")
    return Judge(config, upgrades, loaded)
