"""Flags that several commands of `poaid` share, and the numbers that their defaults and limits are.

Imports nothing that takes time: `--help` needs it.
"""

from pathlib import Path
from typing import Annotated

import typer

MAX_SAMPLE = 100_000
"""Draws of `verify --sample`: the odds of a forger are 10^-4500 by then, and replaying all blocks once is cheaper."""
MAX_NODES = 32
"""Of a local testnet: processes of some 200 MB each; more than a few on a processor only wait for each other."""

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of the chain; made if it is not there.")]
StoredDir = Annotated[Path, typer.Option("--data-dir", help="Folder of a chain that no node uses now.")]
NetworkName = Annotated[
    str | None,
    typer.Option(
        "--network",
        help="mainnet, testnet, minimal, local, or a file of `poai network new`.  [default: the folder's, else local]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "--model-path",
        help="mini, smollm2, tinyllama, or the path of a GGUF file.  [default: the folder's, else the network's]",
    ),
]
TargetText = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="At first: 1..1000 thousandths (lower is harder), or 0x...  [default: the folder's, else the network's]",
    ),
]
MinerAddress = Annotated[
    str | None,
    typer.Option("--miner-address", help="Account that gets the subsidies.  [default: of a key in the data directory]"),
]
Corpus = Annotated[
    Path | None,
    typer.Option("--test-corpus", help="Folder of *.txt files, a line question<TAB>answer each: the quizzes' source."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads for the model.  [default: all; profile llama.cpp: 1]"),
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
    str | None,
    typer.Option("--model", "--model-path", help="Where the model is now, if its file was moved.  [default: as mined]"),
]
