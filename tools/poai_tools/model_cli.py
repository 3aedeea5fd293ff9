"""`poai model`: look at model files, make and fetch them, and write their manifests."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from poai_engine.errors import ModelError, make_line
from poai_engine.models.model_names import MANIFESTS, SYNTHETIC_MODELS
from poai_spec.basics.notation import SpecError

if TYPE_CHECKING:
    from poai_engine.models.exact_model import ExactModel
    from poai_engine.models.gguf_file import Vocabulary
    from poai_spec.model.weights import GgufFile
    from poai_spec.proof.lexicon import Lexicon

SHARE_QUIZZES = 500
"""Enough to tell a share of 99 % from 100 %, in two seconds."""

app = typer.Typer(help="Look at models, make them, fetch them, pin them.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help=f"Path of a GGUF file, or one of {', '.join(MANIFESTS)}.", metavar="MODEL")]


def say(message: str) -> None:
    """Print a line of progress."""
    print(message, file=sys.stderr)


def describe_file(path: Path, gguf: GgufFile) -> dict[str, Any]:
    """Return what the file itself says: digest, pin, tensors by type."""
    from poai_engine.models.gguf_file import sha256_file
    from poai_spec.basics.parameters import read_manifest

    digest = sha256_file(path).hex()
    names = [name for name, manifest in MANIFESTS.items() if read_manifest(manifest)["gguf_sha256"] == digest]
    counts = Counter(tensor.type for tensor in gguf.tensors.values())
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "pinned_as": names[0] if names else None,
        "name": gguf.metadata.get("general.name"),
        "tensors": dict(sorted(counts.items())),
        "tensor_bytes": sum(len(tensor.data) for tensor in gguf.tensors.values()),
    }


def describe_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the tokenizer's facts."""
    from poai_engine.models.gguf_file import TOKEN_TYPE_NAMES, get_salt_ranges

    counts = Counter(TOKEN_TYPE_NAMES[kind] for kind in vocabulary.types)
    return {
        "tokenizer": vocabulary.model,
        "tokens": dict(sorted(counts.items())),
        "add_bos": vocabulary.add_bos,
        "bos_id": vocabulary.bos_id,
        "salt_ranges": get_salt_ranges(vocabulary),
    }


def describe_integers(model: ExactModel) -> dict[str, Any]:
    """Return the integer model's root, its shape, and how far its numbers are from their limits.

    A row maximum m_o in 2^-24 has `row_maximum_bits` bits (refused above 38); a gain is refused from 128; an
    embedding entry saturates at 2^17 (Q14 in an int32).
    """
    import numpy as np

    from poai_engine.models.exact_model import compute_exact_root

    a = model.architecture
    exponents = [matrix.k for matrix in model.matrices.values()]
    limits = np.iinfo(np.int32)
    return {
        "integer_model_root": compute_exact_root(model).hex(),
        "architecture": {
            "layers": a.layer_count, "width": a.width, "heads": a.head_count, "kv_heads": a.kv_head_count,
            "head_dim": a.head_dim, "ffn_width": a.ffn_width, "vocabulary": a.vocabulary_size,
            "rope_base": list(a.rope_base.as_ratio()), "epsilon": list(a.epsilon.as_ratio()),
        },
        "row_maximum_bits": [26 - max(exponents), 26 - min(exponents)],
        "largest_gain": max(int(np.abs(gains).max()) for gains in model.gains.values()) / 2**16,
        "largest_embedding": int(np.abs(model.embedding.astype(np.int64)).max()) / 2**14,
        "saturated_embedding_entries": int(np.isin(model.embedding, (limits.min, limits.max)).sum()),
    }  # fmt: skip


def show(facts: dict[str, Any]) -> None:
    """Print facts as aligned lines; nested ones are joined."""
    for key, value in facts.items():
        text = value
        if isinstance(value, dict):
            text = ", ".join(f"{k} {v[0] / v[1]:g}" if isinstance(v, list) else f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            text = " ".join("..".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value)
        print(f"{key.replace('_', ' '):28} {make_line(str(text))}")


@app.command()
def info(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a model file holds and whether the integer profile accepts it; exit 1 if not."""
    from poai_engine.models.exact_model import load_exact_model
    from poai_engine.models.gguf_file import read_gguf, read_vocabulary
    from poai_engine.models.model_store import resolve_model

    facts: dict[str, Any] = {}
    try:
        path = resolve_model(model)
        facts["file"] = str(path)
        gguf = read_gguf(path)
        facts |= describe_file(path, gguf)
        facts |= describe_vocabulary(read_vocabulary(path))
        with Console(stderr=True).status("computing the integer model"):
            facts |= describe_integers(load_exact_model(gguf))
        facts |= {"accepted": True, "reason": None}
    except (ModelError, SpecError) as error:
        facts |= {"accepted": False, "reason": make_line(str(error))}
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        show({key: value for key, value in facts.items() if value is not None and key != "reason"})
    if not facts["accepted"]:
        say(f"error: {facts['reason']}")
        raise typer.Exit(1)


@app.command("synthesize")
def synthesize_command(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(SYNTHETIC_MODELS)}.")],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.", metavar="OUT")],
) -> None:
    """Write a model whose weights come from a seed; the same bytes on every machine."""
    from poai_engine.models.gguf_file import sha256_file
    from poai_engine.models.synthesize import synthesize

    if name not in SYNTHETIC_MODELS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(SYNTHETIC_MODELS)}", param_hint="NAME")
    synthesize(name, out)
    print(f"{sha256_file(out).hex()}  {out}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(MANIFESTS)}.")],
) -> None:
    """Bring a pinned model into the model folder and check its SHA-256."""
    from poai_engine.models.model_store import fetch_model

    if name not in MANIFESTS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(MANIFESTS)}", param_hint="NAME")
    print(fetch_model(name, say))


def measure_share(path: Path, pieces: Lexicon) -> float:
    """Return the share of quizzes, of testnet's length, whose whole text tokenises to the lexicon's ids."""
    from poai_engine.models.gguf_file import get_salt_ranges, read_vocabulary
    from poai_engine.models.lexicon_maker import measure_natural_share, open_tokenizer
    from poai_spec.basics.parameters import ModelManifest, TokenRange, make_config

    vocabulary = read_vocabulary(path)
    salt = tuple(TokenRange(first, last) for first, last in get_salt_ranges(vocabulary))
    size, blank = len(vocabulary.tokens), bytes(32)
    manifest = ModelManifest(blank, blank, blank, False, 1, size, vocabulary.add_bos, vocabulary.bos_id, 1, 1, 1, salt)
    return measure_natural_share(open_tokenizer(path), make_config("testnet", manifest), pieces, SHARE_QUIZZES)


@app.command()
def lexicon(
    model: Model,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of the terminal.")] = None,
    name: Annotated[str | None, typer.Option(help="Name in the lexicon; by default the file's stem.")] = None,
) -> None:
    """Make a model's lexicon, the token ids of every piece, with llama.cpp's tokenizer."""
    from poai_engine.models.lexicon_maker import format_lexicon, make_lexicon
    from poai_engine.models.model_store import resolve_model

    path = resolve_model(model)
    check_file(path)
    pieces = make_lexicon(path)
    say(f"share of {SHARE_QUIZZES} quizzes that the tokenizer itself cuts alike: {measure_share(path, pieces):.1%}")
    text = format_lexicon(name or MANIFESTS.get(model, path.stem), pieces)
    if out is None:
        print(text, end="")
    else:
        write(out, text)


@app.command()
def manifest(
    name: Annotated[str, typer.Argument(help="Name of the manifest, such as smollm2-135m.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for NAME.json and NAME.lexicon.json.")] = Path(),
    vocabulary_only: Annotated[
        bool, typer.Option(help="MODEL has the tokenizer alone: keep the weights' digests of the manifest there is.")
    ] = False,
) -> None:
    """Write the manifest and the lexicon that pin a model, from its file."""
    from poai_engine.models.lexicon_maker import format_lexicon, make_lexicon
    from poai_engine.models.model_store import resolve_model
    from poai_tools.manifest import format_manifest, make_manifest, pin_vocabulary

    path = resolve_model(model)
    check_file(path)
    pieces = make_lexicon(path)
    make = pin_vocabulary if vocabulary_only else make_manifest
    text = format_manifest(make(path, name, pieces))
    write(out / f"{name}.lexicon.json", format_lexicon(name, pieces))
    write(out / f"{name}.json", text)


def check_file(path: Path) -> None:
    """Refuse a file that llama.cpp must not see: it ends the process on some malformed ones."""
    from poai_engine.models.gguf_file import read_gguf, read_vocabulary

    read_gguf(path)
    read_vocabulary(path)


def write(path: Path, text: str) -> None:
    """Write a text file and say so."""
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror}): choose another place with --out") from error
    say(f"written: {path}")
