"""The pictures of `docs/img`: which function draws each, from which result. `poai bench plots` draws all of them again.

Results of benches, as `--json` writes them, are kept beside the pictures in `data/`; the others are computed from
the pages alone. All are in the style of `poai_bench.plots.style`.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poai_bench.plots.bits import draw_determinism, draw_llama_bits
from poai_bench.plots.engine import draw_batches, draw_rates
from poai_bench.plots.fidelity import draw_fidelity
from poai_bench.plots.quiz import draw_quiz_to_block
from poai_bench.plots.retarget import draw_convergence, draw_time_warp
from poai_bench.plots.style import use_style, write_svg
from poai_bench.plots.supply import TITLE as SUPPLY_TITLE
from poai_bench.plots.supply import draw_supply
from poai_bench.plots.tree import draw_tree
from poai_bench.results import DAMAGED, read_result
from poai_engine.errors import ModelError

DATA = "data"
"""The folder beside the pictures with the results that they are drawn from."""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        file: its name.
        title: what it shows, for those who cannot see it.
        draw: makes the figure, of a result where it is drawn from one.
    """

    file: str
    title: str
    draw: Callable[..., Any]


COMPUTED = (
    Picture("quiz-to-block.svg", "From a header core to a block: seed, quiz, forward pass, hash", draw_quiz_to_block),
    Picture("convergence.svg", "How difficulty follows the hash rate, by our rule and Bitcoin's", draw_convergence),
    Picture("supply.svg", SUPPLY_TITLE, draw_supply),
)
MEASURED = {
    "engine": (
        Picture("engine-bars.svg", "Tokens a second of the exact engine and of llama.cpp", draw_rates),
        Picture("engine-batch.svg", "Tokens a second over the batch", draw_batches),
    ),
    "retarget": (Picture("time-warp.svg", "What false time stamps gain, by rule and hash share", draw_time_warp),),
    "fidelity": (Picture("fidelity.svg", "Each token's loss against a float64 pass's", draw_fidelity),),
    "determinism": (Picture("determinism.svg", "The digest of each way to run the model", draw_determinism),),
    "llama-bits": (Picture("llama-bits.svg", "Quizzes whose bits change with llama.cpp's settings", draw_llama_bits),),
    "tree": (Picture("block-tree.svg", "All blocks of a testnet, the chain's and those beside it", draw_tree),),
}
"""By the bench whose result they are drawn from."""


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the pictures of a result whose bench has some.

    Args:
        result: of a bench in `MEASURED`.
        folder: where the files go; made if it is not there.

    Returns:
        The files.

    Raises:
        ModelError: matplotlib is not installed, or the result is not of this version.
        OSError: the folder cannot be written.
    """
    return _write(MEASURED[result["bench"]], folder, result)


def draw_all(folder: Path) -> list[Path]:
    """Draw all pictures of a folder: those that are computed, and those of each result in its `data`.

    Raises:
        ModelError: matplotlib is not installed, or a file of `data` is no result with pictures.
        OSError: a file cannot be read or written.
    """
    return _write(COMPUTED, folder) + [
        file
        for result in sorted((folder / DATA).glob("*.json"))
        for file in draw(read_result(result, MEASURED), folder)
    ]


def find_stale(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder that are not what would be drawn now.

    Raises:
        ModelError, OSError: as `draw_all`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / DATA).symlink_to((folder / DATA).absolute())
        drawn = draw_all(Path(scratch))
        return [
            file.name
            for file in drawn
            if not (folder / file.name).is_file() or (folder / file.name).read_bytes() != file.read_bytes()
        ]


def _write(pictures: tuple[Picture, ...], folder: Path, *result: dict[str, Any]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with use_style():
        for picture in pictures:
            write_svg(_draw(picture, *result), folder / picture.file, picture.title)
    return [folder / picture.file for picture in pictures]


def _draw(picture: Picture, *result: dict[str, Any]) -> Any:
    try:
        return picture.draw(*result)
    except DAMAGED as error:
        if not result:  # nothing that a file says
            raise
        text = f"{picture.file}: the result is damaged or of another version ({error!r}): measure again"
        raise ModelError(text) from error
