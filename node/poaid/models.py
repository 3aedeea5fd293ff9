"""Models as a node sees them: the file, its manifest, its lexicon or a corpus, and the engine that runs it.

The pinned models need only their file. For any other GGUF file the manifest and the lexicon are computed at the first
start (the lexicon by the model's own tokenizer, with llama.cpp) and kept in the user's model folder, under the file's
SHA-256. So are test corpora, under a hash of the file and of the lines that they were made from.
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from poai_engine.engines.array import open_torch_engine
from poai_engine.engines.exact import open_engine
from poai_engine.engines.llama import LlamaEngine, LlamaSettings
from poai_engine.errors import ModelError
from poai_engine.models.corpus_maker import Line, make_corpus, read_lines
from poai_engine.models.gguf_file import check_digest, get_salt_ranges, read_gguf, read_vocabulary, sha256_file
from poai_engine.models.lexicon_maker import format_lexicon, make_lexicon, open_tokenizer
from poai_engine.models.model_names import MANIFESTS
from poai_engine.models.model_store import get_model_dir, resolve_model
from poai_engine.models.packed import Say
from poai_engine.models.weight_cache import open_packed_model
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Hash32, SpecError, keccak256
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange, get_model_manifest, read_manifest
from poai_spec.chain.upgrades import Rules
from poai_spec.model.engine import Engine
from poai_spec.model.integer_model import read_architecture
from poai_spec.model.llama_profile import LLAMA_PROFILE
from poai_spec.proof.corpus import Corpus, check_corpus, compute_corpus_digest, compute_longest_item
from poai_spec.proof.difficulty import check_cost, compute_cost
from poai_spec.proof.lexicon import Lexicon, compute_lexicon_digest, parse_lexicon, read_lexicon
from poai_spec.proof.work import check_engine
from poaid.errors import NodeError

MANIFEST_VERSION = "w8a8-2"
"""Profile and version of the arithmetic that a kept manifest's root was computed with; another one is made anew."""


@dataclass(frozen=True)
class KnownModel:
    """A model whose manifest and lexicon are known.

    Attributes:
        manifest: what a network's config holds of it.
        lexicon: its pieces' token ids.
        lexicon_name: the pinned lexicon's name, or the file's SHA-256 in hexadecimal.
    """

    manifest: ModelManifest
    lexicon: Lexicon
    lexicon_name: str


def get_known_model(name_or_path: str) -> KnownModel:
    """Return manifest and lexicon of a pinned model by name, or of any accepted GGUF file by path.

    Raises:
        ModelError: no such file, or one that is damaged.
        Invalid: the arithmetic does not cover the model, or its manifest is not pinned yet.
    """
    if name_or_path in MANIFESTS:
        return get_pinned_model(MANIFESTS[name_or_path])
    path = resolve_model(name_or_path)
    digest = sha256_file(path)
    for manifest in MANIFESTS.values():
        data = read_manifest(manifest)
        if data["gguf_sha256"] == digest.hex() and data["integer_model_root"] is not None:
            return get_pinned_model(manifest)
    return _get_computed(path, digest)


def get_pinned_model(manifest: str) -> KnownModel:
    """Return manifest and lexicon of a pinned model by its manifest's name, such as `smollm2-135m`.

    Raises:
        Invalid: `parameters/model-unpinned`.
    """
    return KnownModel(get_model_manifest(manifest), read_lexicon(manifest), manifest)


def _get_computed(path: Path, digest: Hash32) -> KnownModel:
    """Return what an earlier start has computed, or compute and keep it."""
    folder = get_model_dir() / "manifests"
    manifest_file, lexicon_file = (
        folder / f"{digest.hex()}.{MANIFEST_VERSION}.ssz",
        folder / f"{digest.hex()}.lexicon.json",
    )
    try:
        kept, pieces = decode(ModelManifest, manifest_file.read_bytes()), parse_lexicon(lexicon_file.read_bytes())
        if (kept.gguf_sha256, kept.questions_digest) == (digest, compute_lexicon_digest(pieces)):
            return KnownModel(kept, pieces, digest.hex())
    except (OSError, SpecError):
        pass  # not there, or damaged: made anew
    vocabulary, model, lexicon = read_vocabulary(path), open_packed_model(path, digest), make_lexicon(path)
    manifest = ModelManifest(
        gguf_sha256=digest,
        integer_model_root=model.root,
        questions_digest=compute_lexicon_digest(lexicon),
        corpus=False,
        layer_count=model.architecture.layer_count,
        vocabulary_size=model.architecture.vocabulary_size,
        add_bos=vocabulary.add_bos,
        bos_id=vocabulary.bos_id if vocabulary.add_bos else 0,
        **asdict(compute_cost(model.architecture)),
        salt_ranges=tuple(TokenRange(first, last) for first, last in get_salt_ranges(vocabulary)),
    )
    _keep(manifest_file, encode(manifest))
    _keep(lexicon_file, format_lexicon(path.stem, lexicon).encode())
    return KnownModel(manifest, lexicon, digest.hex())


def check_text(path: str, what: str) -> None:
    """Refuse a path that is no text: it is kept, logged and sent as one.

    Raises:
        ModelError: its bytes are not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"the path of {what}, {path!a}, is not UTF-8: rename the file or its folder") from error


def locate_model(name_or_path: str | None, manifest: ModelManifest) -> str:
    """Return how to find a network's model again: a pinned name, or an absolute path.

    Args:
        name_or_path: what the user gave; None where the network names a pinned model.
        manifest: the network's model.

    Raises:
        ModelError: no file was given and the network's model is not a pinned one.
    """
    if name_or_path is not None:
        check_text(name_or_path, "the model")
        return name_or_path if name_or_path in MANIFESTS else str(resolve_model(name_or_path).absolute())
    wanted = manifest.gguf_sha256.hex()
    for name, pinned in MANIFESTS.items():
        if read_manifest(pinned)["gguf_sha256"] == wanted:
            return name
    raise ModelError(f"this network's model is no pinned one: give --model PATH, the file with SHA-256 {wanted}")


def find_wrong(name_or_path: str | None, manifest: ModelManifest) -> bool:
    """Tell whether a file is where the model should be, with another content."""
    try:
        return sha256_file(resolve_model(locate_model(name_or_path, manifest))) != manifest.gguf_sha256
    except ModelError:
        return False


def load_corpus(folder: Path, name_or_path: str, config: Config) -> tuple[ModelManifest, Corpus]:
    """Return a folder's test corpus for a network's model, and the manifest that names it.

    It is tokenised by llama.cpp the first time only, and kept.

    Args:
        folder: holds `*.txt` files, a line `question<TAB>answer` each.
        name_or_path: where the model is: a pinned name or a path.
        config: the network: its model, and the length of its quizzes.

    Raises:
        ModelError: bad lines, each named by file and number, or llama.cpp's tokenizer is needed and not installed.
    """
    lines = read_lines(folder)
    room = config.quiz_tokens - config.salt_tokens - int(config.model.add_bos)
    file = get_model_dir() / "corpora" / f"{_hash_lines(lines, config.model.gguf_sha256).hex()}.corpus"
    corpus = _read_corpus(file, config.model)
    if corpus is None or compute_longest_item(corpus) > room:  # made anew, to name the lines that are too long
        path = resolve_model(name_or_path)
        check_digest(path, config.model.gguf_sha256)
        read_vocabulary(path)  # llama.cpp ends the process on what this refuses
        corpus = make_corpus(lines, open_tokenizer(path), room)
        _keep(file, compute_corpus_digest(corpus) + encode(corpus))
    return _name_corpus(corpus, config.model), corpus


def _hash_lines(lines: list[Line], gguf_sha256: Hash32) -> Hash32:
    """Return the name under which a corpus is kept: its model, the version of the making, and its lines."""
    texts = sorted(f"{line.question}\t{line.answer}\n" for line in lines)
    return keccak256(b"PoAI kept corpus 1" + gguf_sha256 + "".join(texts).encode())


def _name_corpus(corpus: Corpus, model: ModelManifest) -> ModelManifest:
    return replace(model, corpus=True, questions_digest=compute_corpus_digest(corpus))


def _read_corpus(file: Path, model: ModelManifest) -> Corpus | None:
    """Return a kept corpus, which stands behind its digest; None if it is not there, or damaged."""
    try:
        data = file.read_bytes()
        corpus = decode(Corpus, data[32:])
        check_corpus(corpus, replace(model, questions_digest=data[:32]))
    except (OSError, SpecError):
        return None
    return corpus


def _keep(file: Path, data: bytes) -> None:
    """Write a file of the model folder, whole or not at all."""
    part = file.with_name(f"{file.name}.part-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        message = f"{file.parent}: {error.strerror}; set POAI_MODEL_DIR to a folder that can be written"
        raise NodeError(message) from error


def load_engine(
    name_or_path: str, rules: Rules, threads: int | None, gpu_layers: int = 0, say: Say = lambda _: None
) -> Engine:
    """Load a model's file into the engine of the rules' profile, and make sure that it is the one they ask for.

    Args:
        name_or_path: a pinned model's name or a path.
        rules: a network's.
        threads: CPU threads; None for one a processor, or 1 in the profile llama.cpp.
        gpu_layers: transformer blocks that llama.cpp runs on a GPU; in the profile w8a8 all run there unless it is 0.
        say: takes lines about what takes long at the first start.

    Raises:
        ModelError: the file is missing, damaged or another one, or what the profile needs is not installed.
        Invalid: the model is outside the arithmetic; `work/engine`: it is another one; `difficulty/cost`: the manifest
            is false.
    """
    path = resolve_model(name_or_path)
    load = _load_llama if rules.profile == LLAMA_PROFILE else _load_exact
    engine, size = load(path, rules.model, threads, gpu_layers, say)
    check_engine(engine, rules)
    if size != rules.model.vocabulary_size:
        raise ModelError(f"{path} has {size} tokens, the network file says {rules.model.vocabulary_size}: correct it")
    check_cost(read_architecture(read_gguf(path)), rules.model)
    return engine


def _load_exact(path: Path, model: ModelManifest, threads: int | None, gpu_layers: int, say: Say) -> tuple[Engine, int]:
    digest, root = model.gguf_sha256, model.integer_model_root
    if gpu_layers > 0:
        on_gpu = open_torch_engine(path, "cuda", digest, say, root)
        return on_gpu, on_gpu.architecture.vocabulary_size
    engine = open_engine(path, threads, digest, say, root)
    engine.warm_up(say)
    return engine, engine.architecture.vocabulary_size


def _load_llama(path: Path, model: ModelManifest, threads: int | None, gpu_layers: int, _: Say) -> tuple[Engine, int]:
    engine = LlamaEngine(path, model, LlamaSettings(threads=threads or 1, gpu_layers=gpu_layers))
    return engine, engine.vocabulary_size
