"""Write GGUF files byte by byte, with any of their numbers forged."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

UINT8, INT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, FLOAT64 = 0, 1, 4, 5, 6, 7, 8, 9, 12
F32, Q8_0, Q2_K, I32 = 0, 8, 10, 26


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def array(kind: int, items: Sequence[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def tokens(*words: bytes) -> bytes:
    return array(STRING, [text(word) for word in words])


def floats(count: int) -> bytes:
    return array(FLOAT32, [struct.pack("<f", -i) for i in range(count)])


def ints(*values: int) -> bytes:
    return array(INT32, [struct.pack("<i", value) for value in values])


BYTES = [b"<0x%02X>" % value for value in range(256)]


@dataclass
class Forgery:
    """A GGUF file of one F32 tensor and a small SentencePiece vocabulary; tests change one thing."""

    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    key_count: int | None = None
    keys: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    tensors: list[tuple[bytes, tuple[int, ...], int, int]] = field(default_factory=list)
    data: bytes = bytes(259 * 4 * 4)

    def __post_init__(self) -> None:
        self.keys = [
            (b"general.architecture", STRING, text(b"llama")),
            (b"llama.block_count", UINT32, struct.pack("<I", 1)),
            (b"tokenizer.ggml.model", STRING, text(b"llama")),
            (b"tokenizer.ggml.tokens", ARRAY, tokens(b"<unk>", b"<s>", b"</s>", *BYTES)),
            (b"tokenizer.ggml.scores", ARRAY, floats(259)),
            (b"tokenizer.ggml.token_type", ARRAY, ints(2, 3, 3, *[6] * 256)),
            (b"tokenizer.ggml.bos_token_id", UINT32, struct.pack("<I", 1)),
        ]
        self.tensors = [(b"token_embd.weight", (4, 259), F32, 0)]

    def set(self, name: bytes, kind: int, raw: bytes) -> "Forgery":
        """Replace the value of a key, or append a key."""
        self.keys = [key for key in self.keys if key[0] != name] + [(name, kind, raw)]
        return self

    def build(self) -> bytes:
        """Return the file."""
        keys = b"".join(text(name) + struct.pack("<I", kind) + raw for name, kind, raw in self.keys)
        table = b"".join(
            text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
            for name, shape, kind, offset in self.tensors
        )
        counts = [len(self.tensors) if self.tensor_count is None else self.tensor_count]
        counts += [len(self.keys) if self.key_count is None else self.key_count]
        head = self.magic + struct.pack("<IQQ", self.version, *counts) + keys + table
        return head + bytes(-len(head) % 32) + self.data
