"""Synthetic models: the same bytes every time, made by the recipe, and sane as models."""

import errno
import hashlib
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from poai_engine.errors import ModelError
from poai_engine.models import synthesize as module
from poai_engine.models.decode import decode_rows
from poai_engine.models.exact_model import load_exact_model
from poai_engine.models.gguf_file import read_gguf, read_vocabulary, sha256_file
from poai_engine.models.synthesize import make_tokens, synthesize
from poai_spec.basics.parameters import read_manifest
from poai_spec.proof.lexicon import PIECES, read_lexicon

# The recipe of the module's docstring, written again on Python integers: block bytes, and of each F16 scale its offset,
# exponent relative to L, and sign.
BLOCKS = {
    "Q4_0": (18, [(0, -3, "any")]), "Q4_1": (20, [(0, -3, "+"), (2, 0, "-")]),
    "Q5_0": (22, [(0, -4, "any")]), "Q5_1": (24, [(0, -4, "+"), (2, 0, "-")]),
    "Q8_0": (34, [(0, -7, "any")]), "Q6_K": (210, [(208, -11, "any")]),
    "Q4_K": (144, [(0, -9, "+"), (2, -6, "+")]), "Q5_K": (176, [(0, -10, "+"), (2, -6, "+")]),
}  # fmt: skip
LEVELS = {
    "mini": {"token_embd": -4, "output": -2, "attn_q": -2, "attn_k": -3, "attn_v": -3, "attn_output": -4,
             "ffn_gate": -3, "ffn_up": -3, "ffn_down": -5},
    "tinyllama-shape": {"token_embd": -6, "output": -5, "attn_q": -5, "attn_k": -5, "attn_v": -5, "attn_output": -6,
                        "ffn_gate": -5, "ffn_up": -5, "ffn_down": -6},
}  # fmt: skip


def level_of(model: str, tensor: str) -> int:
    return LEVELS[model][tensor.split(".")[-2]]


def follow_recipe(kind: str, level: int, raw: bytes, *, gains: bool) -> bytes:
    """Return what the stream's bytes `raw` become."""
    if gains:
        words = struct.unpack(f"<{len(raw) // 4}I", raw)
        return struct.pack(f"<{len(words)}f", *(0.75 + (u % 2**16) / 2**17 for u in words))
    if kind in BLOCKS:
        size, scales = BLOCKS[kind]
        data = bytearray(raw)
        for block in range(0, len(data), size):
            for offset, relative, sign in scales:
                at = block + offset
                data[at : at + 2] = scale(int.from_bytes(data[at : at + 2], "little"), level + relative, sign)
        return bytes(data)
    width, mantissa, bias = {"F32": (4, 23, 127), "F16": (2, 10, 15), "BF16": (2, 7, 127)}[kind]
    numbers = [int.from_bytes(raw[at : at + width], "little") for at in range(0, len(raw), width)]
    top = 1 << (8 * width - 1)
    exponents = [bias + level - 1 + (u >> mantissa & 1) for u in numbers]
    made = [u & top | e << mantissa | u % (1 << mantissa) for u, e in zip(numbers, exponents, strict=True)]
    return b"".join(u.to_bytes(width, "little") for u in made)


def scale(r: int, exponent: int, sign: str) -> bytes:
    """Return an F16 in [2^exponent, 2^(exponent + 1)) whose mantissa is the low bits of r."""
    if exponent >= -14:
        bits = (exponent + 15) << 10 | r % 1024
    else:
        step = 1 << (exponent + 24)
        bits = step + r % step
    return (bits | {"any": r & 0x8000, "+": 0, "-": 0x8000}[sign]).to_bytes(2, "little")


def check_recipe(model: str, path: Path, most_bytes: int) -> None:
    tensors = read_gguf(path).tensors.values()
    stream = hashlib.shake_128(f"PoAI/synthetic-model/1/{model}".encode()).digest(most_bytes)
    at = 0
    for tensor in tensors:
        raw = stream[at : at + len(tensor.data)]
        at += len(tensor.data)
        whole = len(raw) if len(raw) == len(tensor.data) else len(raw) // 720 * 720
        expected = follow_recipe(
            tensor.type, 0 if "norm" in tensor.name else level_of(model, tensor.name), raw[:whole],
            gains="norm" in tensor.name,
        )  # fmt: skip
        assert bytes(tensor.data[:whole]) == expected, tensor.name
        if at >= most_bytes:
            return


def test_mini_has_the_pinned_bytes(mini_path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.gguf"
    synthesize("mini", again)
    assert again.read_bytes() == mini_path.read_bytes()
    manifest = read_manifest("mini")
    assert sha256_file(again).hex() == manifest["gguf_sha256"]
    assert again.stat().st_size == manifest["gguf_bytes"] < 300_000


def test_every_tensor_of_mini_follows_the_recipe(mini_path: Path) -> None:
    check_recipe("mini", mini_path, 300_000)


def test_mini_has_the_shape_that_was_agreed(mini_path: Path) -> None:
    metadata = read_gguf(mini_path).metadata
    numbers = {key.removeprefix("llama."): value for key, value in metadata.items() if isinstance(value, int)}
    assert numbers["block_count"] == 3
    assert numbers["embedding_length"] == 64
    assert (numbers["attention.head_count"], numbers["attention.head_count_kv"]) == (4, 2)
    assert (numbers["feed_forward_length"], numbers["context_length"]) == (256, 256)
    assert "tokenizer.chat_template" not in metadata


def test_weights_of_mini_have_the_stated_spread_and_nothing_saturates(mini_path: Path) -> None:
    gguf = read_gguf(mini_path)
    for tensor in gguf.tensors.values():
        if "norm" in tensor.name:
            continue
        spread = float(np.std(decode_rows(tensor, 0, tensor.shape[0]))) / 2**24
        assert 0.7 < spread / 2.0 ** level_of("mini", tensor.name) < 1.3, tensor.name
    model = load_exact_model(gguf)
    assert int(np.abs(model.embedding).max()) < 2**14
    assert all(2**15 < int(gains.min()) <= int(gains.max()) < 2**17 for gains in model.gains.values())


def test_every_piece_is_one_token_of_mini(mini_path: Path) -> None:
    vocabulary, lexicon = read_vocabulary(mini_path), read_lexicon("mini")
    for piece in PIECES:
        (token,) = lexicon.ids[piece]
        expected = "<0x0A>" if piece == "\n" else piece.replace(" ", "\u2581")
        assert vocabulary.tokens[token].decode() == expected


@pytest.mark.llama
def test_llama_cpp_runs_mini_and_its_logits_are_lively(mini_path: Path) -> None:
    from llama_cpp import Llama

    llama = Llama(str(mini_path), n_ctx=256, logits_all=True, verbose=False)
    tokens = [1, *range(300, 331)]
    llama.eval(tokens)
    spread = np.std(np.array(llama.scores[: len(tokens)]), axis=1)
    assert spread.min() > 1.0  # nats: no near-uniform distribution
    assert spread.max() < 5.0


def test_fillers_and_specials_of_the_large_vocabulary() -> None:
    tokens = make_tokens(32_000)
    assert len(tokens) == len({text for text, _ in tokens}) == 32_000
    assert Counter(kind for _, kind in tokens) == {1: 31_741, 2: 1, 3: 2, 6: 256}
    assert make_tokens(0) == tokens[: len(make_tokens(0))]


@pytest.fixture
def tinyllama_shape(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The 668 MB file and the peak of the memory allocated to make it; removed at once: pytest keeps its folders."""
    path = tmp_path / "tinyllama-shape.gguf"
    tracemalloc.start()
    synthesize("tinyllama-shape", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    yield path, peak
    path.unlink()


@pytest.mark.slow
def test_tinyllama_shape(tinyllama_shape: tuple[Path, int]) -> None:
    path, peak = tinyllama_shape
    assert peak < 200e6  # two copies of the largest tensor, 54 MB, and the vocabulary
    manifest = read_manifest("tinyllama-shape")
    assert sha256_file(path).hex() == manifest["gguf_sha256"]
    tensors = read_gguf(path).tensors
    assert Counter(tensor.type for tensor in tensors.values()) == {"Q4_K": 135, "Q6_K": 21, "F32": 45}
    assert tensors["blk.0.ffn_down.weight"].shape == (2048, 5632)
    assert tensors["blk.21.attn_k.weight"].shape == (256, 2048)
    more_bits = [n for n in range(22) if tensors[f"blk.{n}.attn_v.weight"].type == "Q6_K"]
    assert more_bits == [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]
    assert more_bits == [n for n in range(22) if tensors[f"blk.{n}.ffn_down.weight"].type == "Q6_K"]
    check_recipe("tinyllama-shape", path, 40_000_000 // 144 * 144)
    assert len(GGUFReader(path).tensors) == 201  # the library's own reader takes it too


def test_unknown_name_and_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no synthetic model 'huge': the names are mini, micro, tinyllama-shape"):
        synthesize("huge", tmp_path / "x.gguf")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        synthesize("mini", tmp_path / "file" / "x.gguf")


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mini.gguf"
    path.write_bytes(b"old")
    original, made = module._data, []

    def fill(tensor: Any, stream: Any) -> Any:
        made.append(tensor)
        if len(made) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(tensor, stream)

    monkeypatch.setattr(module, "_data", fill)
    with pytest.raises(ModelError, match="No space left on device"):
        synthesize("mini", path)
    assert [p.name for p in tmp_path.iterdir()] == ["mini.gguf"]
    assert path.read_bytes() == b"old"
