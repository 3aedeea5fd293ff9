"""Make the manifest of a model, `specs/manifests/NAME.json`, from its file.

Exports: `make_manifest`, `pin_vocabulary`, `format_manifest`. What people decide (name, title, file name, sources) is
kept from the manifest that is there; everything else is computed again.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from poai_engine.errors import ModelError
from poai_engine.models.exact_model import compute_exact_root, load_exact_model
from poai_engine.models.gguf_file import get_salt_ranges, read_gguf, read_vocabulary, sha256_file
from poai_spec.basics.parameters import read_manifest
from poai_spec.proof.difficulty import compute_cost
from poai_spec.proof.lexicon import Lexicon, compute_lexicon_digest


def get_known_manifest(name: str) -> dict[str, Any]:
    """Return the manifest of that name, or an empty dictionary."""
    try:
        return read_manifest(name)
    except FileNotFoundError:
        return {}


def describe_vocabulary(path: Path, lexicon: Lexicon) -> dict[str, Any]:
    """Return the manifest's entries that the tokenizer decides."""
    vocabulary = read_vocabulary(path)
    return {
        "lexicon_digest": compute_lexicon_digest(lexicon).hex(),
        "vocabulary_size": len(vocabulary.tokens),
        "add_bos": vocabulary.add_bos,
        "bos_id": vocabulary.bos_id if vocabulary.add_bos else 0,
        "salt_ranges": [list(span) for span in get_salt_ranges(vocabulary)],
    }


def make_manifest(path: Path, name: str, lexicon: Lexicon) -> dict[str, Any]:
    """Return the manifest of a model file.

    Args:
        path: the GGUF file.
        name: of the manifest, such as `smollm2-135m`.
        lexicon: the token ids of every piece, from `poai_engine.models.lexicon_maker.make_lexicon`.

    Raises:
        ModelError: a damaged file, or one without a usable vocabulary.
        Invalid: `integer-model/...`, `weights/...`: not a model that the profile covers.
    """
    gguf, known = read_gguf(path), get_known_manifest(name)
    model = load_exact_model(gguf)
    return {
        "name": name,
        "title": known.get("title", gguf.metadata.get("general.name", name)),
        "file": known.get("file", path.name),
        "sources": known.get("sources", []),
        "gguf_bytes": path.stat().st_size,
        "gguf_sha256": sha256_file(path).hex(),
        "integer_model_root": compute_exact_root(model).hex(),
        "layer_count": model.architecture.layer_count,
        **asdict(compute_cost(model.architecture)),
        **describe_vocabulary(path, lexicon),
    }


def pin_vocabulary(path: Path, name: str, lexicon: Lexicon) -> dict[str, Any]:
    """Return manifest `name` with the vocabulary's entries from a file that holds its tokenizer, weights or not.

    Raises:
        ModelError: no manifest of that name whose other entries could be kept.
    """
    known = get_known_manifest(name)
    if not known:
        raise ModelError(f"there is no manifest {name} to keep the weights' digests from: give the whole model file")
    return known | describe_vocabulary(path, lexicon)


def format_manifest(manifest: dict[str, Any]) -> str:
    """Return the JSON text of a manifest: one entry a line, ranges and sources one a line too."""
    rows = []
    for key, value in manifest.items():
        nested = isinstance(value, list) and value
        inner = ",\n".join(f"    {json.dumps(item)}" for item in value) if nested else ""
        rows.append(f"  {json.dumps(key)}: " + (f"[\n{inner}\n  ]" if nested else json.dumps(value)))
    return "{\n" + ",\n".join(rows) + "\n}\n"
