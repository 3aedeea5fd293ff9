"""Networks by name or file: presets of the specification, and TOML files that hold a whole config.

A network file is self-contained: every parameter and the whole model manifest, so that two people who use the same file
are on the same network. `lexicon` in it names a pinned lexicon, or a JSON file beside it; a network whose questions
come from a test corpus has `corpus` instead, the name of a file beside it.
"""

import json
import tomllib
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from multiaddr import Multiaddr

from poai_engine.models.lexicon_maker import format_lexicon
from poai_engine.models.model_names import MANIFESTS
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Height, Invalid, Malformed, Target
from poai_spec.basics.parameters import (
    PRESET_CHANGES,
    PRESET_MODELS,
    UINT256_MAX,
    Config,
    ModelManifest,
    TokenRange,
    check_config,
    get_target_of_flag,
    make_config,
)
from poai_spec.chain.upgrades import (
    MAX_UPGRADES,
    Change,
    Rules,
    Upgrade,
    check_upgrades,
    get_rules,
    make_change,
    make_rules,
)
from poai_spec.proof.corpus import Corpus, Questions, check_questions
from poai_spec.proof.lexicon import Lexicon, parse_lexicon, read_lexicon
from poai_spec.proof.quiz import check_longest_question
from poaid.errors import NodeError, UsageError
from poaid.models import KnownModel, get_known_model, get_pinned_model, load_corpus, locate_model

MAX_FILE_BYTES = 1 << 20
"""A network file has 2 KB and a lexicon 40 KB; an odd vocabulary makes them larger, but nothing this large."""
MAX_CORPUS_BYTES = 16 << 20
"""Of a corpus file: 1 KiB an item."""
MAX_NAME_BYTES = 255
"""Of a file's or folder's name, as file systems have them."""

MAX_PROFILE_BYTES = 32
"""Of the name of a profile: what the config's encoding has room for."""
NETWORK_FILE = "network.toml"
"""What a node writes into its data directory for people, for other nodes, and for `poaid doctor` while it runs."""
MAX_SHOWN = 24
"""Characters of a value in a message: enough to tell two targets or hashes apart."""

PINNED_LEXICONS = frozenset(MANIFESTS.values())
LOCAL_MODEL = "smollm2-135m"
"""Manifest of the model that the network `local` runs where none is named."""
_TOML_TYPES = {str: "a text", list: "a list", int: "an integer", bool: "true or false"}
HEX_INTEGERS = ("max_target", "initial_target")
LONG_INTEGERS = (
    "epoch_blocks", "retarget_blocks", "spacing", "max_future", "genesis_timestamp", "position_cost", "pair_cost",
    "scored_cost", "height",
)  # fmt: skip


SIDE_FILES = LEXICON_SUFFIX, CORPUS_SUFFIX = (".lexicon.json", ".corpus.ssz")
"""What `write_network` may put beside NAME.toml: files whose names go on so after NAME."""


@dataclass(frozen=True)
class Planned:
    """An upgrade of a network, with what the change of a model needs besides its manifest.

    Attributes:
        upgrade: height and change.
        questions: of the new model; None where the model stays.
        questions_name: the pinned lexicon or file that they came from; empty where the model stays.
    """

    upgrade: Upgrade
    questions: Questions | None = None
    questions_name: str = ""


@dataclass(frozen=True)
class Network:
    """A network that a node can join.

    Attributes:
        name: for people: a preset's name or a file's stem.
        config: checked.
        questions: the pieces' token ids, or the corpus that stands in their place; its digest is in the config.
        questions_name: the pinned lexicon, file or folder that it came from.
        bootstrap: multiaddrs of peers to begin with; no part of the network's identity.
        planned: its upgrades, past and coming; no part of its id, which never changes.
    """

    name: str
    config: Config
    questions: Questions
    questions_name: str
    bootstrap: tuple[str, ...] = ()
    planned: tuple[Planned, ...] = ()

    @property
    def upgrades(self) -> tuple[Upgrade, ...]:
        """The list as the pages take it."""
        return tuple(planned.upgrade for planned in self.planned)

    def get_rules(self, height: Height = 0) -> Rules:
        """Return the rules of a height."""
        return get_rules(self.config, self.upgrades, height)

    def list_rules(self) -> tuple[Rules, ...]:
        """Return all rules that the network has had and will have, in order."""
        return make_rules(self.config, self.upgrades)

    def describe_upgrade(self, height: Height) -> str:
        """Return in words what changes at a height; empty if nothing does."""
        planned = next((p for p in self.planned if p.upgrade.height == height), None)
        if planned is None:
            return ""
        values = {f.name: getattr(planned.upgrade.change, f.name) for f in fields(planned.upgrade.change)}
        named = {name: value[0] for name, value in values.items() if value}
        if "model" in named:
            named["model"] = f"{planned.questions_name[:16]} {named['model'].gguf_sha256.hex()[:8]}"
        if "profile" in named:
            named["profile"] = named["profile"].decode("ascii")
        return ", ".join(f"{name} {value}" for name, value in named.items())

    def describe_upgrades(self, head: Height) -> str:
        """Return in words what has changed up to a height."""
        passed = [p.upgrade.height for p in self.planned if p.upgrade.height <= head]
        return "; ".join(f"at height {height} {self.describe_upgrade(height)}" for height in passed) or "nothing yet"

    def get_questions(self, rules: Rules) -> Questions:
        """Return the lexicon or corpus of the model of some of its rules."""
        return self._find_questions(rules)[0]

    def get_questions_name(self, rules: Rules) -> str:
        """Return the pinned lexicon, file or folder that they came from."""
        return self._find_questions(rules)[1]

    def _find_questions(self, rules: Rules) -> tuple[Questions, str]:
        found = self.questions, self.questions_name
        for planned in self.planned:
            if planned.questions is not None and planned.upgrade.height <= rules.since:
                found = planned.questions, planned.questions_name
        return found


def parse_target(text: str) -> Target:
    """Return the target of `--target`: 1..1000 thousandths, or `0x...` itself.

    Raises:
        UsageError: neither, or 2^256 and above.
    """
    try:
        target = int(text, 16) if text.startswith("0x") else get_target_of_flag(int(text))
    except ValueError:
        raise UsageError(f"--target {text!r} is no number: give 1..1000 (thousandths) or 0x... itself") from None
    except Invalid as error:
        raise UsageError(f"--target {text!r}: {error}") from error
    if target > UINT256_MAX:
        raise UsageError(f"--target {text!r} has more than 256 bits: give 1..1000 (thousandths) or 0x... itself")
    return target


def get_network(
    name_or_file: str, model: str | None = None, target: Target | None = None, corpus: Path | None = None
) -> Network:
    """Return a network by preset name or TOML file, with another model, target or corpus where one is given.

    Args:
        name_or_file: `mainnet`, `testnet`, `minimal`, `local`, or the path of a network file.
        model: a model's name or path; None takes the network's own.
        target: replaces the initial target and raises the maximum to it, which makes it another network.
        corpus: a folder of questions that replace the network's own, which makes it another network, too.

    Raises:
        NodeError: no such network, or a file that is none.
        ModelError: the model is not at hand, or the corpus has bad lines.
        Invalid: the numbers break a bound, or the model or its lexicon do not fit them.
    """
    if name_or_file in PRESET_CHANGES:
        known = get_known_model(model) if model else get_pinned_model(PRESET_MODELS.get(name_or_file, LOCAL_MODEL))
        base = Network(name_or_file, make_config(name_or_file, known.manifest), *_lexicon(known))
        return _finish(base, model, target, corpus)
    return change_network(read_network(Path(name_or_file)), model, target, corpus)


def change_network(network: Network, model: str | None, target: Target | None, corpus: Path | None) -> Network:
    """Return a network with another model, target or corpus where one is given; see `get_network`."""
    if model is not None:
        network = _with_model(network, get_known_model(model), keep_corpus=corpus is None)
    return _finish(network, model, target, corpus)


def _finish(network: Network, model: str | None, target: Target | None, corpus: Path | None) -> Network:
    if corpus is not None:
        network = with_corpus(network, corpus, model)
    if target is not None:
        highest = max(target, network.config.max_target)
        network = replace(network, config=replace(network.config, initial_target=target, max_target=highest))
    return check_network(network)


def describe_difference(stored: Config, wanted: Config) -> str:
    """Return in which parameters two configs differ, each with both values; empty if they are one network."""
    parts = []
    for old, new in ((stored, wanted), (stored.model, wanted.model)):
        for f in fields(old):
            values = getattr(old, f.name), getattr(new, f.name)
            if f.name != "model" and values[0] != values[1]:
                texts = (_format_value(f.name, asdict(part)[f.name]) for part in (old, new))
                parts.append(f"{f.name} {' there, '.join(map(_shorten, texts))} here")
    return "; ".join(parts)


def _shorten(text: str) -> str:
    text = text.strip('"')
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def check_network(network: Network) -> Network:
    """Apply the specification's checks of a config, its upgrades and their lexicons or corpora; return the network.

    Raises:
        Invalid: `parameters/...`, `upgrades/...`, `lexicon/...`, `corpus/...`, `quiz/question-too-long`.
    """
    check_config(network.config)
    check_upgrades(network.config, network.upgrades)
    for rules in network.list_rules():
        questions = network.get_questions(rules)
        check_questions(questions, rules.model)
        check_longest_question(rules, questions)
    return network


def plan_upgrade(network: Network, height: Height, model: str | None = None, **values: Any) -> Network:
    """Return a network with an upgrade more at the end of its list.

    Args:
        network: checked.
        height: of the first block that the change holds for.
        model: name or path of another model.
        values: other fields of the change.

    Raises:
        ModelError: the model is not at hand.
        Invalid: see `check_network`.
    """
    known = None if model is None else get_known_model(model)
    if known is not None:
        values["model"] = known.manifest
    questions, name = (None, "") if known is None else _lexicon(known)
    planned = Planned(Upgrade(height, make_change(**values)), questions, name)
    return check_network(replace(network, planned=(*network.planned, planned)))


def _lexicon(known: KnownModel) -> tuple[Lexicon, str]:
    return known.lexicon, known.lexicon_name


def _with_model(network: Network, known: KnownModel, *, keep_corpus: bool = False) -> Network:
    if keep_corpus and network.config.model.corpus:
        if known.manifest.gguf_sha256 == network.config.model.gguf_sha256:
            return network
        raise NodeError(
            f"the corpus of {network.name} is tokenised for its own model: leave --model out, or give --test-corpus too"
        )
    config = replace(network.config, model=known.manifest)
    return replace(network, config=config, questions=known.lexicon, questions_name=known.lexicon_name)


def with_corpus(network: Network, folder: Path, model: str | None) -> Network:
    """Return a network that takes its questions from a folder, unchecked.

    Args:
        network: its model and the length of its quizzes decide what the corpus may hold.
        folder: of `*.txt` files.
        model: where the network's model is, unless it is a pinned one.

    Raises:
        ModelError: the model is not at hand, or the corpus has bad lines.
    """
    manifest, corpus = load_corpus(folder, locate_model(model, network.config.model), network.config)
    config = replace(network.config, model=manifest)
    return replace(network, config=config, questions=corpus, questions_name=folder.absolute().name)


def format_network(network: Network) -> str:
    """Return the TOML text of a network."""
    lines = ["# A PoAI network: nodes that use this file, whatever its name, are on the same network."]
    for key, value in asdict(network.config).items():
        if key != "model":
            lines.append(f"{key} = {_format_value(key, value)}")
    source = "corpus" if network.config.model.corpus else "lexicon"
    lines.append(f"{source} = {json.dumps(network.questions_name, ensure_ascii=False)}")
    if network.bootstrap:
        lines.append(f"bootstrap = {json.dumps(network.bootstrap)}")
    lines += ["", "[model]"]
    for key, value in asdict(network.config.model).items():
        lines.append(f"{key} = {_format_value(key, value)}")
    for planned in network.planned:
        lines += _format_planned(planned)
    return "\n".join(lines) + "\n"


def _format_planned(planned: Planned) -> list[str]:
    change = planned.upgrade.change
    lines = ["", "[[upgrades]]", f"height = {planned.upgrade.height}"]
    for f in fields(change):
        value = getattr(change, f.name)
        if value and f.name != "model":
            lines.append(f"{f.name} = {_format_value(f.name, value[0])}")
    for manifest in change.model:
        source = "corpus" if manifest.corpus else "lexicon"
        lines.append(f"{source} = {json.dumps(planned.questions_name, ensure_ascii=False)}")
        lines += ["", "[upgrades.model]"]
        lines += [f"{key} = {_format_value(key, value)}" for key, value in asdict(manifest).items()]
    return lines


def write_network(network: Network, path: Path) -> None:
    """Write a network file, and beside it the corpus, or the lexicon of a model that is not pinned.

    Raises:
        NodeError: the folder cannot be written.
    """
    try:
        name = _write_questions(path, path.stem, network.questions, network.questions_name)
        planned = [
            replace(
                p,
                questions_name=_write_questions(path, f"{path.stem}.{p.upgrade.height}", p.questions, p.questions_name),
            )
            for p in network.planned
        ]
        text = format_network(replace(network, questions_name=name, planned=tuple(planned)))
        path.write_text(text, "utf-8")
    except OSError as error:
        raise NodeError(f"{path} cannot be written: {error.strerror}") from error


def _write_questions(network_file: Path, stem: str, questions: Questions | None, name: str) -> str:
    """Write a corpus, or a lexicon that is not pinned, beside a network file; return its name for the file."""
    if isinstance(questions, Corpus):
        name = stem + CORPUS_SUFFIX
        network_file.with_name(name).write_bytes(encode(questions))
    elif questions is not None and name not in PINNED_LEXICONS:
        name = stem + LEXICON_SUFFIX
        network_file.with_name(name).write_text(format_lexicon(stem, questions), "utf-8")
    return name


def _format_value(key: str, value: Any) -> str:
    if key == "profile":
        return f'"{value.decode("ascii")}"'
    if key == "salt_ranges":
        return "[" + ", ".join(f"[{span['first']}, {span['last']}]" for span in value) + "]"
    if isinstance(value, bytes):
        return f'"0x{value.hex()}"'
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value:#x}"' if key in HEX_INTEGERS else str(value)


def read_network(path: Path) -> Network:
    """Return the network of a TOML file, unchecked.

    Raises:
        NodeError: missing, unreadable, not TOML, unknown or missing keys, or values of the wrong kind.
    """
    try:
        data = tomllib.loads(_read_small(path).decode("utf-8"))
    except OSError as error:
        presets = ", ".join(PRESET_CHANGES)
        raise NodeError(f"no network {str(path)!r} ({error.strerror}): give a file or one of {presets}") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of 5,000 digits, or nested too deep
        raise NodeError(f"{path} is not TOML: {error!s:.200}") from error
    bootstrap, planned = _read_bootstrap(data.pop("bootstrap", []), path), data.pop("upgrades", [])
    manifest, questions, name = _pop_model(data, path, f"{path}")
    config = _parse(Config, data | {"model": manifest}, str(path))
    return Network(path.stem, config, questions, name, bootstrap, _read_planned(planned, path))


def _pop_model(data: dict[str, Any], path: Path, where: str) -> tuple[ModelManifest, Questions, str]:
    """Take a model's manifest and questions out of a table of a network file."""
    model, sources = data.pop("model", None), {key: data.pop(key) for key in ("lexicon", "corpus") if key in data}
    source, name = next(iter(sources.items()), ("lexicon", None))
    if len(sources) != 1 or not isinstance(name, str) or not isinstance(model, dict):
        needs = 'lexicon = "NAME or FILE" (or corpus = "FILE") and a table [model]'
        raise NodeError(f"{where}: needs {needs}; make one with `poai network new`")
    manifest = _parse(ModelManifest, model, f"{where}: [model]")
    return manifest, _read_corpus(name, path) if source == "corpus" else _read_lexicon(name, path), name


def _read_planned(tables: Any, path: Path) -> tuple[Planned, ...]:
    """Return the upgrades of a network file, unchecked."""
    if type(tables) is not list or len(tables) > MAX_UPGRADES or not all(isinstance(table, dict) for table in tables):
        raise NodeError(f"{path}: upgrades are tables [[upgrades]], {MAX_UPGRADES} at most")
    return tuple(_parse_planned(table, path, f"{path}: upgrade {count}") for count, table in enumerate(tables, 1))


def _parse_planned(table: dict[str, Any], path: Path, where: str) -> Planned:
    questions, name, values = None, "", dict[str, Any]()
    if table.keys() & {"model", "lexicon", "corpus"}:
        values["model"], questions, name = _pop_model(table, path, where)
    known = {f.name: f for f in fields(Config)}
    for key, value in table.items():
        if key != "height" and key not in {f.name for f in fields(Change)}:
            raise NodeError(f"{where}: {key!r:.80} is nothing that an upgrade can change")
        values[key] = _parse_field(key, known.get(key), value, where)
    if "height" not in values:
        raise NodeError(f"{where}: missing key 'height'")
    return Planned(Upgrade(values.pop("height"), make_change(**values)), questions, name)


def _read_bootstrap(value: Any, path: Path) -> tuple[str, ...]:
    if type(value) is not list or not all(isinstance(item, str) for item in value):
        raise NodeError(f"{path}: bootstrap is no list of texts")
    try:
        return tuple(check_multiaddr(item, "bootstrap") for item in value)
    except UsageError as error:
        raise NodeError(f"{path}: {error}") from error


def check_multiaddr(text: str, what: str) -> str:
    """Return a multiaddr that can be dialled.

    Args:
        text: `/ip4/ADDRESS/tcp/PORT/p2p/PEER_ID`, or with ip6 or a DNS name.
        what: where it was given, for the message.

    Raises:
        UsageError: it does not look like one, or has no peer id.
    """
    parts = text.split("/")
    begins_well = len(parts) == 7 and not parts[0] and parts[1] in ("ip4", "ip6", "dns", "dns4", "dns6")
    if not begins_well or parts[3::2] != ["tcp", "p2p"] or not parts[4].isdigit() or not parts[6].isalnum():
        form = "/ip4/ADDRESS/tcp/PORT/p2p/PEER_ID, as the peer's log shows it"
        raise UsageError(f"{what} {text!r:.200} cannot be dialled: give {form}")
    try:
        Multiaddr(text)
    except ValueError as error:
        reason = str(error).partition("': ")[2].partition(" (string: ")[0] or str(error)
        raise UsageError(f"{what} {text!r:.200} cannot be dialled: {reason:.200}") from error
    if int(parts[4]) == 0:
        raise UsageError(f"{what} {text!r:.200} cannot be dialled: nobody listens at port 0")
    return text


def _parse(kind: type, data: dict[str, Any], where: str) -> Any:
    names = {f.name for f in fields(kind)}
    if odd := sorted(data.keys() ^ names):
        known = "unknown" if odd[0] in data else "missing"
        raise NodeError(f"{where}: {known} key {odd[0]!r:.80}")
    values = {}
    for f in fields(kind):
        values[f.name] = _parse_field(f.name, f, data[f.name], where)
    return kind(**values)


def _parse_field(key: str, field: Field[Any] | None, value: Any, where: str) -> Any:
    """Convert one value of a network file; a field of None is an upgrade's height."""
    try:
        return _parse_value(key, int if field is None else field.type, value)
    except (TypeError, ValueError) as error:
        raise NodeError(f"{where}: {key} = {_quote(value)} is no valid value ({error!s:.120})") from error


def _quote(value: Any) -> str:
    """Return the beginning of a foreign value as Python writes it."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # a hexadecimal number may have more digits than Python writes in decimal
        return "a number of thousands of digits"


def _parse_value(key: str, kind: Any, value: Any) -> Any:
    """Convert a TOML value to the field's Python value; raises ValueError or TypeError when it is none."""
    if key in HEX_INTEGERS:
        return _uint(int(_of_type(str, value), 16), 256)
    if key == "salt_ranges":
        return tuple(TokenRange(_uint(first, 32), _uint(last, 32)) for first, last in _of_type(list, value))
    if key == "profile":
        return _profile(_of_type(str, value))
    if kind is bytes:
        return _hash(_of_type(str, value))
    if kind is int:
        return _uint(value, 64 if key in LONG_INTEGERS else 32)
    return _of_type(kind, value)


def _of_type(kind: type, value: Any) -> Any:
    if type(value) is not kind:  # True is an int to isinstance
        raise TypeError(f"expected {_TOML_TYPES[kind]}")
    return value


def _uint(value: Any, bits: int) -> int:
    if not 0 <= _of_type(int, value) < 1 << bits:
        raise ValueError(f"expected an integer of {bits} bits")
    return int(value)


def _profile(text: str) -> bytes:
    value = text.encode("ascii")
    if len(value) > MAX_PROFILE_BYTES:
        raise ValueError(f"expected at most {MAX_PROFILE_BYTES} characters")
    return value


def _hash(text: str) -> bytes:
    value = bytes.fromhex(text.removeprefix("0x"))
    if len(value) != 32:
        raise ValueError("expected 32 bytes")
    return value


def _read_lexicon(name: str, network_file: Path) -> Lexicon:
    if name in PINNED_LEXICONS:
        return read_lexicon(name)
    if not is_file_name(name):
        found = f"lexicon = {name!r:.80}"
        raise NodeError(f"{network_file}: {found} is neither a pinned one nor the name of a file beside it")
    path = network_file.parent / name
    try:
        return parse_lexicon(_read_small(path))
    except OSError as error:
        raise NodeError(f"{network_file}: its lexicon {path} cannot be read: {error.strerror}") from error


def _read_corpus(name: str, network_file: Path) -> Corpus:
    if not is_file_name(name):
        raise NodeError(f"{network_file}: corpus = {name!r:.80} is not the name of a file beside it")
    path = network_file.parent / name
    try:
        return decode(Corpus, _read_small(path, MAX_CORPUS_BYTES))
    except OSError as error:
        raise NodeError(f"{network_file}: its corpus {path} cannot be read: {error.strerror}") from error
    except Malformed as error:
        raise NodeError(f"{path} is no corpus: make it anew with `poai network new --test-corpus`") from error


def is_file_name(name: str) -> bool:
    """Tell whether a text may name a file beside a network file, and be shown on a terminal as it is."""
    return Path(name).name == name and name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES


def _read_small(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NodeError(f"{path} is larger than {limit} bytes: that is no network, lexicon or corpus")
    return data
