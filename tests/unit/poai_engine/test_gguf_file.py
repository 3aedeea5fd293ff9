"""Hostile model files: each gives one line, none hangs, none raises anything else."""

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import (
    ACCEPTED_TYPES,
    MAX_ARRAY_ITEMS,
    get_salt_ranges,
    read_gguf,
    read_vocabulary,
    sha256_file,
)
from poai_spec.basics.notation import Invalid
from poai_spec.model.integer_model import make_integer_model
from poai_spec.model.weights import Float32
from tests.harness.forge import (
    ARRAY,
    BOOL,
    BYTES,
    FLOAT64,
    I32,
    INT8,
    INT32,
    Q2_K,
    Q8_0,
    STRING,
    UINT32,
    Forgery,
    array,
    floats,
    ints,
    text,
    tokens,
)  # fmt: skip

Change = Callable[[Forgery], object]


def read_both(path: Path) -> None:
    read_gguf(path)
    read_vocabulary(path)


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_both(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(path))
    return message


def test_the_forgery_without_a_change_is_accepted(tmp_path: Path) -> None:
    path = write(tmp_path, Forgery().build())
    assert list(read_gguf(path).tensors) == ["token_embd.weight"]
    assert read_vocabulary(path).add_bos is True


def put(field: str, value: object) -> Change:
    return lambda forgery: setattr(forgery, field, value)


def key(name: str, kind: int, raw: bytes) -> Change:
    return lambda forgery: forgery.set(name.encode(), kind, raw)


def tensor(name: bytes = b"x", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> Change:
    return lambda forgery: forgery.tensors.append((name, shape, kind, offset))


def token_list(*words: bytes) -> Change:
    return key("tokenizer.ggml.tokens", ARRAY, tokens(*words))


BAD_FILES: dict[str, tuple[Change, str]] = {
    "magic": (put("magic", b"GGML"), "not a little-endian GGUF file"),
    "version 1": (put("version", 1), "version 2 or 3"),
    "big-endian": (put("version", 3 << 24), "little-endian"),
    "forged key count": (put("key_count", 1 << 60), "announces 1152921504606846976 metadata keys"),
    "key count one too high": (put("key_count", 8), "a string at byte"),
    "forged tensor count": (put("tensor_count", 1 << 60), "announces 1152921504606846976 tensors"),
    "tensor count one too high": (put("tensor_count", 2), "its 0 dimensions"),
    "string length": (key("a", STRING, struct.pack("<Q", 1 << 60)), "a string at byte"),
    "string past the end": (key("a", STRING, struct.pack("<Q", 100_000)), "is needed"),
    "array of numbers": (key("tokenizer.a", ARRAY, struct.pack("<IQ", INT32, 1 << 60)), "array of 11529215046"),
    "array of strings": (key("tokenizer.a", ARRAY, struct.pack("<IQ", STRING, 1 << 60)), "array of 11529215046"),
    "array past the end": (key("tokenizer.a", ARRAY, struct.pack("<IQ", STRING, MAX_ARRAY_ITEMS - 999)), "ends inside"),
    "array within limits, past the end": (key("tokenizer.a", ARRAY, struct.pack("<IQ", INT32, 1 << 20)), "is needed"),
    "length of a string in an array": (
        key("tokenizer.a", ARRAY, struct.pack("<IQQ", STRING, 1, 1 << 62)), "is needed",
    ),
    "negative length of a string in an array": (
        key("tokenizer.a", ARRAY, struct.pack("<IQQ", STRING, 2, (1 << 64) - 8)), "ends inside",
    ),
    "array of arrays": (key("tokenizer.a", ARRAY, array(ARRAY, [ints(1)])), "array of arrays"),
    "array of an unknown type": (key("tokenizer.a", ARRAY, struct.pack("<IQ", 99, 1)), "99"),
    "value of an unknown type": (key("a", 99, bytes(8)), "99"),
    "key not UTF-8": (lambda f: f.set(b"\xff\xfe", UINT32, bytes(4)), "utf-8"),
    "string not UTF-8": (key("general.name", STRING, text(b"\xff")), "not UTF-8"),
    "key twice": (lambda f: f.keys.append(f.keys[0]), "Duplicate general.architecture"),
    "truth value": (key("a", BOOL, b"\x02"), "truth value of 2"),
    "64-bit float": (key("llama.rope.freq_base", FLOAT64, bytes(8)), "64-bit float"),
    "per-layer list": (key("llama.feed_forward_length", ARRAY, ints(1, 2)), "layers differ"),
    "alignment zero": (key("general.alignment", UINT32, bytes(4)), "lignment"),
    "alignment no power of two": (key("general.alignment", UINT32, struct.pack("<I", 24)), "lignment"),
    "alignment huge": (key("general.alignment", UINT32, struct.pack("<I", 1 << 31)), "the limit is 65536"),
    "alignment of another type": (key("general.alignment", INT8, b"\x20"), "lignment"),
    "unknown tensor type": (tensor(kind=999), "tensor 'x' has type number 999"),
    "unsupported tensor type": (tensor(shape=(256,), kind=Q2_K), "tensor 'x' has type Q2_K: use a file"),
    "integer tensor": (tensor(kind=I32), "has type I32"),
    "no dimensions": (tensor(shape=()), "0 dimensions"),
    "five dimensions": (tensor(shape=(1, 1, 1, 1, 1)), "5 dimensions"),
    "dimension zero": (tensor(shape=(4, 0)), "out of range"),
    "elements overflow": (tensor(shape=(1 << 32, 1 << 32)), "out of range"),
    "offset forged": (tensor(offset=1 << 62), "out of range"),
    "offset past the end": (tensor(offset=259 * 16), "is needed"),
    "offset not aligned": (tensor(offset=8), "not aligned or overlaps"),
    "overlap": (tensor(offset=32), "overlaps 'token_embd.weight'"),
    "row no whole number of blocks": (tensor(shape=(33, 1), kind=Q8_0), "no whole number of Q8_0 blocks"),
    "tensor twice": (lambda f: f.tensors.append(f.tensors[0]), "duplicated tensor"),
    "tensor name empty": (tensor(name=b""), "out of range"),
    "tensor name long": (tensor(name=b"x" * 65), "out of range"),
    "control characters": (tensor(name=b"\x1b[2J\n", kind=999), "type number 999"),
    "control characters in a key": (lambda f: f.keys.extend([(b"\x1b[2J", UINT32, bytes(4))] * 2), "Duplicate .*2J"),
    "tensor name not UTF-8": (tensor(name=b"\xff"), "utf-8"),
    "data cut": (put("data", bytes(259 * 16 - 1)), "is needed"),
}  # fmt: skip

BAD_VOCABULARIES: dict[str, tuple[Change, str]] = {
    "no tokenizer": (lambda f: f.keys.pop(2), "tokenizer.ggml.model is None"),
    "other tokenizer": (key("tokenizer.ggml.model", STRING, text(b"t5")), "tokenizer.ggml.model is 't5'"),
    "no tokens": (lambda f: f.keys.pop(3), "tokenizer.ggml.tokens is missing"),
    "tokens of numbers": (key("tokenizer.ggml.tokens", ARRAY, ints(1)), "no list of STRING"),
    "repeated token": (token_list(b"<unk>", b"<s>", b"<s>", *BYTES), "token 2 b'<s>' is empty, repeated"),
    "empty token": (token_list(b"<unk>", b"", b"</s>", *BYTES), "token 1 b'' is empty"),
    "token with a NUL": (token_list(b"<unk>", b"<s>\0", b"</s>", *BYTES), "token 1 .* or has a NUL byte"),
    "one token missing": (token_list(b"<unk>", b"<s>", *BYTES), "259 items for 258 tokens"),
    "too few rows": (lambda f: f.tensors.__setitem__(0, (b"token_embd.weight", (4, 258), 0, 0)), "has 258 rows"),
    "types missing": (lambda f: f.keys.pop(5), "token_type is missing"),
    "types short": (key("tokenizer.ggml.token_type", ARRAY, ints(1)), "1 items for 259"),
    "types unknown": (key("tokenizer.ggml.token_type", ARRAY, ints(0, 3, 3, *[6] * 256)), r"types \[0\]"),
    "types of another type": (key("tokenizer.ggml.token_type", ARRAY, floats(259)), "no list of INT32"),
    "scores missing": (lambda f: f.keys.pop(4), "scores is missing"),
    "scores short": (key("tokenizer.ggml.scores", ARRAY, floats(2)), "2 items for 259"),
    "byte token lost": (key("tokenizer.ggml.token_type", ARRAY, ints(2, 3, 3, *[6] * 255, 1)), "255 byte tokens"),
    "byte token that is none": (token_list(b"<unk>", b"<s>", b"</s>", *BYTES[:-1], b"x"), "256 byte tokens"),
    "BOS outside": (key("tokenizer.ggml.bos_token_id", UINT32, struct.pack("<I", 259)), "bos_token_id 259"),
    "BOS a string": (key("tokenizer.ggml.bos_token_id", STRING, text(b"1")), "bos_token_id '1'"),
    "add_bos a number": (key("tokenizer.ggml.add_bos_token", UINT32, bytes(4)), "add_bos_token 0"),
    "gpt2 without merges": (key("tokenizer.ggml.model", STRING, text(b"gpt2")), "merges is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(name: str, tmp_path: Path) -> None:
    change, expected = BAD_FILES[name]
    forgery = Forgery()
    change(forgery)
    path = write(tmp_path, forgery.build())
    with pytest.raises(ModelError, match=expected):
        read_both(path)
    refusal(path)


@pytest.mark.parametrize("name", BAD_VOCABULARIES)
def test_bad_vocabulary(name: str, tmp_path: Path) -> None:
    change, expected = BAD_VOCABULARIES[name]
    forgery = Forgery()
    change(forgery)
    path = write(tmp_path, forgery.build())
    read_gguf(path)
    with pytest.raises(ModelError, match=expected):
        read_vocabulary(path)
    refusal(path)


def test_missing_empty_and_special_files(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nothing.gguf")
    assert "no such file" in refusal(tmp_path)
    assert "not a little-endian GGUF file" in refusal(write(tmp_path, b""))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "no such file" in refusal(pipe)
    with pytest.raises(ModelError, match="cannot be read"):
        sha256_file(tmp_path / "nothing.gguf")


def test_every_truncation_of_the_header_is_refused(tmp_path: Path) -> None:
    data = Forgery(data=b"").build()
    whole = Forgery().build()
    for length in [*range(0, len(data), 7), *range(len(data), len(whole), 97)]:
        refusal(write(tmp_path, whole[:length]))


def test_mini_is_read_exactly(mini_path: Path) -> None:
    gguf = read_gguf(mini_path)
    assert {tensor.type for tensor in gguf.tensors.values()} == set(ACCEPTED_TYPES)
    assert gguf.metadata["llama.rope.freq_base"] == Float32(0x461C4000)  # 10000
    assert gguf.metadata["llama.attention.layer_norm_rms_epsilon"] == Float32(0x3727C5AC)  # the F32 nearest to 1e-5
    assert gguf.tensors["blk.0.ffn_down.weight"].shape == (64, 256)
    raw = mini_path.read_bytes()
    for tensor in gguf.tensors.values():
        assert isinstance(tensor.data, memoryview)
        assert tensor.data.readonly
        assert bytes(tensor.data) in raw
    assert raw.endswith(bytes(gguf.tensors["output.weight"].data).rstrip(b"\0") + raw[len(raw.rstrip(b"\0")) :])
    assert sha256_file(mini_path) == hashlib.sha256(raw).digest()
    vocabulary = read_vocabulary(mini_path)
    assert (vocabulary.add_bos, vocabulary.bos_id, vocabulary.model) == (True, 1, "llama")
    assert get_salt_ranges(vocabulary) == [(259, len(vocabulary.tokens) - 1)]


def test_foreign_architecture_and_non_finite_scale_are_refused_by_the_integer_model(
    mini_path: Path, tmp_path: Path
) -> None:
    data = mini_path.read_bytes()
    prefix = b"general.architecture" + struct.pack("<I", STRING)
    foreign = data.replace(prefix + text(b"llama"), prefix + text(b"qwen2"))
    assert foreign != data
    with pytest.raises(Invalid, match=r"general\.architecture is 'qwen2'"):
        make_integer_model(read_gguf(write(tmp_path, foreign)))
    at = data.index(bytes(read_gguf(mini_path).tensors["blk.1.attn_q.weight"].data))
    broken = write(tmp_path, data[:at] + b"\x00\x7e" + data[at + 2 :])  # a NaN as the first scale
    with pytest.raises(Invalid, match="weights/not-finite"):
        make_integer_model(read_gguf(broken))


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_the_header_is_read_or_refused(data: st.DataObject, mini_path: Path, tmp_path: Path) -> None:
    raw = bytearray(mini_path.read_bytes())
    header = len(raw) - sum(len(t.data) for t in read_gguf(mini_path).tensors.values())
    kind = st.sampled_from(["flip", "flip", "number", "cut"])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, header - 9))
        match data.draw(kind):
            case "flip":
                raw[at] ^= data.draw(st.integers(1, 255))
            case "number":
                raw[at : at + 8] = struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1)))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 64))]
    path = write(tmp_path, bytes(raw))
    for read in (read_gguf, read_vocabulary):
        try:
            read(path)
        except ModelError as error:
            assert str(error).isprintable()  # noqa: PT017 - both outcomes are right


@pytest.mark.model
def test_smollm2_is_read(smollm2_path: Path) -> None:
    gguf, vocabulary = read_gguf(smollm2_path), read_vocabulary(smollm2_path)
    assert (len(gguf.tensors), len(vocabulary.tokens)) == (272, 49_152)
    assert sum(len(tensor.data) for tensor in gguf.tensors.values()) == 96_576_768
    assert (vocabulary.model, vocabulary.add_bos, vocabulary.bos_id) == ("gpt2", False, 1)
    assert get_salt_ranges(vocabulary) == [(17, 49_151)]
