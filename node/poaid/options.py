"""Flags that several commands of `poaid` share."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of the chain; made if it is not there.")]
NetworkName = Annotated[
    str, typer.Option("--network", help="mainnet, testnet, minimal, local, or a file of `poai network new`.")
]
Model = Annotated[
    str | None, typer.Option("--model", "--model-path", help="mini, smollm2, tinyllama, or the path of a GGUF file.")
]
TargetText = Annotated[str | None, typer.Option("--target", help="1..1000 thousandths (lower is harder), or 0x...")]
Corpus = Annotated[
    Path | None,
    typer.Option("--test-corpus", help="Folder of *.txt files, a line question<TAB>answer each: the quizzes' source."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads for the model.  \\[default: all; profile llama.cpp: 1]"),
]
GpuLayers = Annotated[
    int,
    typer.Option(
        "--gpu-layers",
        min=0,
        help="Run on a GPU. Profile w8a8: any number but 0, the whole pass; needs the extra gpu. "
        "Profile llama.cpp: so many blocks, equal on all nodes.",
    ),
]
MovedModel = Annotated[
    str | None, typer.Option("--model", help="Where the model is now, if its file was moved.  \\[default: as mined]")
]
