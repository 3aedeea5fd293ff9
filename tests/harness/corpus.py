"""A test corpus: a thousand lines, as text and as the manifest of a network that uses it."""

from dataclasses import replace
from pathlib import Path

from poai_spec.basics.parameters import ModelManifest, get_model_manifest
from poai_spec.proof.corpus import Corpus, compute_corpus_digest


def write_corpus(folder: Path, count: int = 1000) -> Path:
    """Write two files with `count` lines into a folder, some beyond ASCII; return the folder."""
    folder.mkdir(exist_ok=True)
    lines = [f"{word} {n}?\t{n + 1}\n" for n in range(count // 2) for word in ("What is after", "Größer als")]
    for name, part in (("one", lines[: count // 3]), ("two", lines[count // 3 :])):
        (folder / f"{name}.txt").write_text("".join(part), "utf-8")
    return folder


def make_corpus_manifest(name: str, corpus: Corpus) -> ModelManifest:
    """Return a pinned model's manifest with a corpus in its lexicon's place."""
    return replace(get_model_manifest(name), corpus=True, questions_digest=compute_corpus_digest(corpus))
