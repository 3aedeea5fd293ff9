"""The llama.cpp engine: the page `llama-profile`, with every setting that llama.cpp lets one choose pinned.

Floating point: its bits are equal only on equal machines with an equal build. The library is asked through its C
interface (`llama_cpp.llama_cpp`), because the class `Llama` chooses threads, batch sizes and more by itself. llama.cpp
ends the process on some malformed files: hand it only files that `poai_engine.models.gguf_file` has read.
"""

import ctypes
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from poai_engine.engines.exact import compute_nlls
from poai_engine.engines.llama_log import silence
from poai_engine.errors import ModelError
from poai_engine.models.decode import Ints
from poai_engine.models.gguf_file import check_digest, read_gguf, read_vocabulary
from poai_spec.basics.notation import Hash32
from poai_spec.basics.parameters import ModelManifest
from poai_spec.model.engine import Evaluation
from poai_spec.model.llama_profile import LLAMA_PROFILE, LLAMA_VERSION, compute_logits_entry, round_logit

_COMPILER = re.compile(rb"GCC: \([^)\n]*\) [\d.]+|clang version [\d.]+")


@dataclass(frozen=True)
class LlamaSettings:
    """What can change llama.cpp's bits. The defaults are the profile; `poai bench llama-bits` varies the rest.

    Attributes:
        threads: CPU threads.
        gpu_layers: blocks that run on a GPU; equal on all nodes of a network.
        graph_tokens: positions a graph; None for the whole sequence in one.
        flash_attention: the fused attention kernel.
        repack: weights laid out anew for this CPU.
        memory_map: weights read through a mapping of the file.
        cache_type: type of the key and value cache, `F16` or `F32`.
        all_logits: logits of all positions instead of the scored ones.
    """

    threads: int = 1
    gpu_layers: int = 0
    graph_tokens: int | None = None
    flash_attention: bool = False
    repack: bool = False
    memory_map: bool = False
    cache_type: str = "F16"
    all_logits: bool = False


def load_library() -> Any:
    """Return llama-cpp-python's C interface, in the profile's version.

    Raises:
        ModelError: it is not installed, or another version.
    """
    try:
        from llama_cpp import llama_cpp as library  # noqa: PLC0415  the extra is optional
    except ImportError as error:
        message = "the profile llama.cpp needs llama-cpp-python, which is not installed: pip install 'poai[llama]'"
        raise ModelError(message) from error
    found = version("llama-cpp-python")
    if found != LLAMA_VERSION:
        raise ModelError(
            f"the profile llama.cpp is llama-cpp-python {LLAMA_VERSION}, this is {found}, which may give other bits: "
            f"pip install llama-cpp-python=={LLAMA_VERSION}"
        )
    silence()
    return library


def get_fingerprint(settings: LlamaSettings) -> dict[str, str]:
    """Return what the bits are known to depend on; vectors of the profile hold where it is equal."""
    library = load_library()
    features = library.llama_print_system_info().decode().split("|")
    folder = Path(library._lib._name).parent  # of the loaded shared libraries
    compilers = {
        match.group().decode()
        for path in sorted(folder.glob("*ggml-cpu*"))
        for match in _COMPILER.finditer(path.read_bytes())
    }
    return {
        "library": f"llama-cpp-python {version('llama-cpp-python')}",
        "machine": platform.machine(),
        "features": " | ".join(part.strip() for part in features if part.strip()),
        "compiler": ", ".join(sorted(compilers)) or "unknown",
        "libc": " ".join(part for part in platform.libc_ver() if part) or platform.system(),
        "settings": ", ".join(f"{key} {value}" for key, value in asdict(settings).items()),
    }


def round_logits(logits: NDArray[np.float32]) -> Ints:
    """`poai_spec.model.llama_profile.round_logit` on arrays: Q16, int64.

    float64 holds `x * 2^16` exactly, and its sum with one half where that decides the floor: a float32 has 24 bits.

    Raises:
        Invalid: `llama-profile/nan`.
    """
    for bits in logits[np.isnan(logits)].view(np.uint32)[:1]:
        round_logit(int(bits))  # raises
    scaled = np.clip(logits.astype(np.float64) * 65536.0, -(2.0**31), 2.0**31 - 1)
    return np.floor(scaled + 0.5).astype(np.int64)


def score_rows(logits: NDArray[np.float32], targets: Sequence[int]) -> Evaluation:
    """`poai_spec.model.llama_profile.score_logits` on an array of shape (number of scored tokens, V).

    Raises:
        Invalid: `llama-profile/nan`.
    """
    nlls = compute_nlls(round_logits(logits), np.asarray(targets, np.int64))
    return Evaluation(tuple(nlls), (compute_logits_entry([row.astype("<f4", copy=False).tobytes() for row in logits]),))


class LlamaEngine:
    """A loaded model; satisfies `poai_spec.model.engine.Engine`.

    Args:
        path: the GGUF file.
        manifest: the network's; the file's SHA-256, layers and vocabulary have to be its own.
        settings: the profile's but for threads and GPU layers.

    Raises:
        ModelError: the library is missing or has no GPU, or the file is another one, damaged, or refused by it.
    """

    profile = LLAMA_PROFILE

    def __init__(self, path: Path, manifest: ModelManifest, settings: LlamaSettings | None = None) -> None:
        self.settings = settings or LlamaSettings()
        self._library = load_library()
        if self.settings.gpu_layers > 0 and not self._library.llama_supports_gpu_offload():
            raise ModelError(
                "this build of llama.cpp has no GPU: leave --gpu-layers out, or build llama-cpp-python for your GPU"
            )
        check_digest(path, manifest.gguf_sha256)
        read_gguf(path), read_vocabulary(path)  # llama.cpp ends the process on what these refuse
        self.integer_model_root: Hash32 = manifest.integer_model_root
        self._context: Any = None
        self._shape = (0, 0)
        self._model = self._load(path)
        vocabulary = self._library.llama_model_get_vocab(self._model)
        self.layer_count = int(self._library.llama_model_n_layer(self._model))
        self.vocabulary_size = int(self._library.llama_vocab_n_tokens(vocabulary))

    def _load(self, path: Path) -> Any:
        library, settings = self._library, self.settings
        library.llama_backend_init()
        params = library.llama_model_default_params()
        params.n_gpu_layers = settings.gpu_layers
        params.use_extra_bufts = settings.repack
        params.load_mode = library.LLAMA_LOAD_MODE_MMAP if settings.memory_map else library.LLAMA_LOAD_MODE_NONE
        params.check_tensors = False
        model = library.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise ModelError(f"llama.cpp cannot load {path.name}: use a file that it supports")
        self._free_model = finalize(self, library.llama_model_free, model)  # also at the program's end
        return model

    def _open_context(self, length: int, count: int) -> Any:
        """Return a context for `count` sequences of this length, kept until another shape comes; its cache is empty."""
        if self._shape != (length, count):
            self._close_context()
            library, settings = self._library, self.settings
            params = library.llama_context_default_params()
            params.n_ctx = params.n_batch = length * count
            params.n_ubatch = settings.graph_tokens or length * count
            params.n_seq_max = count
            params.n_threads = params.n_threads_batch = settings.threads
            flash = (library.LLAMA_FLASH_ATTN_TYPE_DISABLED, library.LLAMA_FLASH_ATTN_TYPE_ENABLED)
            params.flash_attn_type = flash[settings.flash_attention]
            params.type_k = params.type_v = getattr(library, f"GGML_TYPE_{settings.cache_type}")
            params.op_offload = params.kv_unified = params.embeddings = False
            params.offload_kqv = settings.gpu_layers > 0
            context = library.llama_init_from_model(self._model, params)
            if not context:
                raise ModelError(f"llama.cpp cannot run sequences of {length} tokens: give it more memory")
            self._context, self._shape = context, (length, count)
            self._free_context = finalize(self, library.llama_free, context)  # before the model: newest first
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        return self._context

    def compute_logits(
        self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """Return the logits after some positions of sequences of equal length, all run at once.

        The profile runs one sequence at a time: how many run together may change the bits.

        Returns:
            For each sequence an array of shape (number of its positions, V), as llama.cpp gives them.

        Raises:
            ModelError: llama.cpp could not run the sequences.
        """
        library, length = self._library, len(sequences[0])
        context = self._open_context(length, len(sequences))
        batch = library.llama_batch_init(length * len(sequences), 0, 1)
        try:
            batch.n_tokens = length * len(sequences)
            for at in range(batch.n_tokens):
                sequence, position = divmod(at, length)
                batch.token[at], batch.pos[at] = sequences[sequence][position], position
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
                batch.logits[at] = self.settings.all_logits or position in positions[sequence]
            status = library.llama_decode(context, batch)
        finally:
            library.llama_batch_free(batch)
        if status != 0:
            raise ModelError(f"llama.cpp failed on {length} tokens (status {status}): give it more memory")
        none = np.empty((0, self.vocabulary_size), np.float32)
        found = [[self._read_row(length * n + t) for t in wanted] for n, wanted in enumerate(positions)]
        return [np.stack(rows) if rows else none for rows in found]

    def _read_row(self, index: int) -> NDArray[np.float32]:
        row = self._library.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (self.vocabulary_size,)).copy()

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run sequences one after another, as the profile says; see `poai_spec.model.engine.Engine`."""
        return [self._run(ids, positions) for ids, positions in zip(tokens, scored, strict=True)]

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        """Run one sequence; its only trace entry is known at the end; see `poai_spec.model.engine.Engine`."""
        evaluation = self._run(tokens, scored)
        yield from evaluation.trace
        yield evaluation

    def _run(self, tokens: Sequence[int], scored: Sequence[int]) -> Evaluation:
        (logits,) = self.compute_logits([tokens], [[t - 1 for t in scored]])
        return score_rows(logits, [tokens[t] for t in scored])

    def _close_context(self) -> None:
        if self._context is not None:
            self._free_context()
            self._context, self._shape = None, (0, 0)

    def close(self) -> None:
        """Let go of llama.cpp's memory; the engine cannot run afterwards."""
        self._close_context()
        self._free_model()
