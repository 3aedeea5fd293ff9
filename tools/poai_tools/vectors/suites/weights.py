"""Vectors of the pages `weights` and `integer-model`: blocks, quantised rows, whole models, digests, refusals."""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from poai_engine.engines.reference import ReferenceEngine
from poai_engine.models.exact_model import compute_exact_root, compute_tensor_digests
from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import Hash32
from poai_spec.model.integer_model import (
    IntegerModel,
    Matrix,
    check_architecture,
    compute_attention_scale,
    compute_integer_model_root,
    compute_matrix_digest,
    compute_root_of_digests,
    compute_vectors_digest,
    make_integer_model,
    quantise_matrix,
    read_gains,
)
from poai_spec.model.weights import TENSOR_TYPES, GgufFile, GgufTensor, decode_tensor
from poai_tools.vectors import model_kinds, models, spot_check
from poai_tools.vectors.cases import SLOW, Case, CaseFile, derive
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import (
    HASH32,
    INT8,
    INT32,
    INT64,
    TEXT,
    UINT32,
    Array,
    Hex,
    Integer,
    KindError,
    RecordKind,
    Text,
)
from poai_tools.vectors.registry import Function, register

SUITE = "weights"
DERIVATION = (
    "Chosen boundaries; random bytes and numbers are draws of the DRBG whose seed derives from 'weights/' || id."
)
TYPE = Text(tuple(TENSOR_TYPES))
BYTES = Hex(2**16, exact=False)
GRID = Integer(-(2**40), 2**40)
"""Weights W = 2^24 * w of a matrix; from 2^38 on they are refused."""
FLAGS = {
    "extreme": (
        "scales or values at the ends of their format: zero, subnormal, largest finite, every bit set",
        "a client that goes through float32, or takes a signed number for an unsigned one, differs here",
    ),
    "layout": (
        "every quant of the block has another value where the type has room for that",
        "a client that takes nibbles, high bits or sub-blocks in another order differs here",
    ),
    "halves": (
        "a quotient lies halfway between two integers",
        "a client that rounds halves otherwise than up differs here",
    ),
    "zero-row": (
        "a row or a matrix of zeros",
        "a client that divides by the row's maximum fails here",
    ),
    "two-faults": (
        "two tensors, or a tensor twice, break a rule",
        "a client that reads tensors in another order gives another code",
    ),
    SLOW: (
        "the model has 1.1 billion weights and is made on demand: 700 MB on disk, minutes",
        "left out unless `--slow` is given",
    ),
}


def _register(
    name: str, page: str, summary: str, fields: dict[str, Any], output: dict[str, Any], run: Callable[[Any], Any]
) -> Function:
    return register(Function(SUITE, name, page, summary, RecordKind(fields), RecordKind(output), run))


DECODE_BLOCK = _register(
    "decode_block", "weights", "the integers W = 2^24 * w of a vector of one or more whole blocks of a tensor type",
    {"type": TYPE, "data": BYTES}, {"values": Array(INT64)},
    lambda i: {"values": _decode_blocks(i["type"], i["data"])},
)  # fmt: skip
DECODE_TENSOR = _register(
    "decode_tensor", "weights", "the rows of a tensor as integers W = 2^24 * w; a vector is one row",
    {"type": TEXT, "shape": Array(UINT32), "data": BYTES}, {"rows": Array(Array(INT64))},
    lambda i: {"rows": decode_tensor(GgufTensor("tensor", i["type"], i["shape"], i["data"]))},
)  # fmt: skip
QUANTISE_MATRIX = _register(
    "quantise_matrix", "integer-model", "exponent, multipliers and int8 rows of a matrix of integers W = 2^24 * w",
    {"weights": Array(Array(GRID, 1), 1)}, {"k": INT32, "multipliers": Array(INT32), "rows": Array(Array(INT8))},
    lambda i: vars(quantise_matrix("matrix", _even(i["weights"]))),
)  # fmt: skip
READ_GAINS = _register(
    "read_gains", "integer-model", "the gains of a norm in Q16",
    {"type": TYPE, "data": BYTES}, {"gains": Array(INT32)},
    lambda i: {"gains": _read_gains(i["type"], i["data"])},
)  # fmt: skip
ATTENTION_SCALE = _register(
    "attention_scale", "integer-model", "log2(e) / sqrt(head_dim) in Q24",
    {"head_dim": Integer(2, 2**12)}, {"scale": UINT32},
    lambda i: {"scale": compute_attention_scale(i["head_dim"])},
)  # fmt: skip
CHECK_ARCHITECTURE = _register(
    "check_architecture", "integer-model", "refuse a shape outside the bounds that the arithmetic is proved for",
    {"architecture": model_kinds.ARCHITECTURE}, {},
    lambda i: _check_architecture(i["architecture"]),
)  # fmt: skip
MAKE_INTEGER_MODEL = _register(
    "make_integer_model", "integer-model", "all integers of a model, and its root, or why the file is refused",
    {"gguf": model_kinds.GGUF}, {"model": model_kinds.INTEGER_MODEL},
    lambda i: {"model": model_kinds.show_model(make_integer_model(model_kinds.make_gguf(i["gguf"])))},
)  # fmt: skip
MATRIX_DIGEST = _register(
    "matrix_digest", "integer-model", "digest of a quantised matrix",
    {"matrix": model_kinds.MATRIX}, {"digest": HASH32},
    lambda i: {"digest": _matrix_digest_of(**i["matrix"])},
)  # fmt: skip
VECTORS_DIGEST = _register(
    "vectors_digest", "integer-model", "digest of norm gains (one vector) or of an embedding",
    {"name": TEXT, "vectors": model_kinds.VECTORS}, {"digest": HASH32},
    lambda i: {"digest": compute_vectors_digest(_ascii(i["name"]), _even(i["vectors"]))},
)  # fmt: skip
ROOT_OF_DIGESTS = _register(
    "root_of_digests", "integer-model", "integer-model root from the architecture and the tensors' digests in order",
    {"architecture": model_kinds.ARCHITECTURE, "digests": Array(HASH32)}, {"root": HASH32},
    lambda i: {
        "root": compute_root_of_digests(model_kinds.make_architecture(i["architecture"]), list(i["digests"]))
    },
)  # fmt: skip
TENSOR_DIGESTS = _register(
    "tensor_digests", "integer-model", "digest of every tensor of a model, in the root's order, and the root",
    {"model": models.MODEL}, {"tensors": Array(RecordKind({"name": TEXT, "digest": HASH32})), "root": HASH32},
    lambda i: _tensor_digests(i["model"]),
)  # fmt: skip


def _ascii(name: str) -> str:
    """Refuse a name that no tensor has."""
    if not name.isascii():
        raise KindError("input: a tensor's name is ASCII")
    return name


def _even(rows: Any) -> Any:
    """Refuse rows of unequal lengths, which are no matrix."""
    if len({len(row) for row in rows}) > 1:
        raise KindError("input: the rows have unequal lengths")
    return rows


def _matrix_digest_of(name: str, **fields: Any) -> Hash32:
    if len(fields["multipliers"]) != len(_even(fields["rows"])):
        raise KindError("input: as many multipliers as rows")
    return compute_matrix_digest(Matrix(_ascii(name), **fields))


def _decode_blocks(kind: str, data: bytes) -> list[int]:
    elements, size, _ = TENSOR_TYPES[kind]
    return decode_tensor(GgufTensor("block", kind, (len(data) // size * elements,), data))[0]


def _read_gains(kind: str, data: bytes) -> tuple[int, ...]:
    elements, size, _ = TENSOR_TYPES[kind]
    tensor = GgufTensor("norm.weight", kind, (len(data) // size * elements,), data)
    return read_gains(GgufFile({}, {tensor.name: tensor}), tensor.name)


def _check_architecture(value: dict[str, int]) -> dict[str, Any]:
    if 0 in value.values() or max(value["rope_base"], value["epsilon"]) >= 0x7F800000:
        raise KindError("input: counts are positive, floats are positive and finite")
    check_architecture(model_kinds.make_architecture(value))
    return {}


def _tensor_digests(name: str) -> dict[str, Any]:
    engine = models.get_engine(name)
    if isinstance(engine, ReferenceEngine):
        named, root = _spec_digests(engine.model), compute_integer_model_root(engine.model)
    else:
        if models.is_large(name):
            spot_check.check_weights(name, models.get_gguf(name), engine.model)
        named, root = compute_tensor_digests(engine.model), compute_exact_root(engine.model)
    return {"tensors": [{"name": tensor, "digest": digest} for tensor, digest in named], "root": root}


def _spec_digests(model: IntegerModel) -> list[tuple[str, Hash32]]:
    """Return name and digest of every tensor in the root's order."""
    named = [("token_embd.weight", compute_vectors_digest("token_embd.weight", model.embedding))]
    named += [(model.head.name, compute_matrix_digest(model.head))]
    named += [("output_norm.weight", compute_vectors_digest("output_norm.weight", [model.output_norm]))]
    for n, layer in enumerate(model.layers):
        for part, value in vars(layer).items():
            name = f"blk.{n}.{part}.weight"
            is_matrix = isinstance(value, Matrix)
            named += [(name, compute_matrix_digest(value) if is_matrix else compute_vectors_digest(name, [value]))]
    return sorted(named, key=lambda pair: pair[0])


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    decoding = [_decode_block(), _decode_tensor()]
    parts = [_quantise_matrix(), _gains(), _attention_scale(), _matrix_digest(), _vectors_digest(), _root_of_digests()]
    return [*decoding, *parts, _architectures(), _integer_models(), _tensor_digests_file()]


def _file(function: Function, cases: Iterable[Case]) -> CaseFile:
    listed = tuple(cases)
    used = {flag for case in listed for flag in case.flags}
    return CaseFile(function, DERIVATION, listed, {name: text for name, text in FLAGS.items() if name in used})


# Blocks.

F16_FIELDS = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2),
    "Q6_K": (208,),
}  # fmt: skip
"""Byte offsets of the F16 scales in a block."""
SCALES = {
    "zero": (0x0000, "scales of zero: every weight is 0"),
    "minus-zero": (0x8000, "scales of minus zero: every weight is 0"),
    "subnormal": (0x0001, "scales of 2^-24, the smallest F16"),
    "largest-subnormal": (0x83FF, "scales of minus the largest subnormal F16"),
    "largest": (0x7BFF, "scales of 65504, the largest F16"),
    "lowest": (0xFBFF, "scales of -65504"),
}
FLOATS: dict[str, tuple[int, dict[str, list[int]]]] = {
    "F16": (2, {
        "zeros": [0x0000, 0x8000],
        "subnormal": [0x0001, 0x8001, 0x03FF, 0x83FF],
        "normal": [0x0400, 0x8400, 0x3C00, 0xBC00, 0x3555],
        "largest": [0x7BFF, 0xFBFF],
    }),
    "BF16": (2, {
        "zeros": [0x0000, 0x8000],
        "subnormal": [0x0001, 0x8001, 0x007F],
        "around-the-grid": [0x3300, 0xB300, 0x32FF, 0xB2FF, 0x3340, 0xB340, 0x3380, 0x33C0, 0xB3C0],
        "normal": [0x3F80, 0xBF80, 0x3EAA, 0x467F, 0xC67F],
        "huge": [0x51FF, 0xD1FF],
    }),
    "F32": (4, {
        "zeros": [0x00000000, 0x80000000],
        "subnormal": [0x00000001, 0x80000001, 0x007FFFFF],
        "around-the-grid": [0x33000000, 0xB3000000, 0x32FFFFFF, 0x33000001, 0xB3000001, 0x33C00000, 0xB3C00000,
                            0x34200000, 0xB4200000],
        "normal": [0x3F800000, 0xBF800000, 0x3EAAAAAB, 0x467FFFFF, 0xC67FFFFF],
        "huge": [0x51FFFFFF, 0xD1FFFFFF],
    }),
}  # fmt: skip
"""Bit patterns by case; `huge` is just below 2^37: W still fits int64. `around-the-grid`: halves of 2^-24."""
NOT_FINITE = {"F16": (0x7C00, 0x7E01), "BF16": (0xFF80, 0x7FC0), "F32": (0x7F800000, 0xFFFFFFFF)}


def _decode_block() -> CaseFile:
    cases = [case for kind in FLOATS for case in _float_cases(kind)]
    cases += [case for kind in F16_FIELDS for case in _block_cases(kind)]
    by_id = {case.id: case for case in cases}
    for base in ("f32-normal", "q4_k-zero" if "q4_k-zero" in by_id else "q4-k-zero"):
        data = by_id[base].input["data"]
        for name, comment, cut in (("empty", "no block", b""), ("cut", "the last byte is missing", data[:-1]),
                                   ("longer", "a byte too many", data + b"\0")):  # fmt: skip
            cases.append(make_negative(DECODE_BLOCK, by_id[base], f"{base}-{name}", comment, {"data": cut}))
    return _file(DECODE_BLOCK, cases)


def _pack(bits: Sequence[int], size: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in bits)


def _float_cases(kind: str) -> Iterable[Case]:
    size, groups = FLOATS[kind]
    slug = kind.lower()
    for name, bits in groups.items():
        flags = ("extreme",) if name != "normal" else ()
        yield Case(f"{slug}-{name}", name.replace("-", " "), {"type": kind, "data": _pack(bits, size)}, flags)
    for name, broken in zip(("infinite", "nan"), NOT_FINITE[kind], strict=True):
        data = _pack([groups["normal"][0], broken, *groups["normal"][2:]], size)
        yield Case(f"{slug}-{name}", f"one value is {name}", {"type": kind, "data": data},
                   ("extreme",), f"{slug}-normal", ("/data",))  # fmt: skip


def _block_cases(kind: str) -> Iterable[Case]:
    slug = kind.lower().replace("_", "-")
    counting = _set_scales(kind, _counting(kind), 0x3C00)
    yield Case(f"{slug}-layout", "scales of 1, quants that count", {"type": kind, "data": counting}, ("layout",))
    ones = _set_scales(kind, b"\xff" * TENSOR_TYPES[kind][1], 0x3C00)
    yield Case(
        f"{slug}-all-bits", "every bit set but the scales', which are 1", {"type": kind, "data": ones}, ("extreme",)
    )
    for name, (bits, comment) in SCALES.items():
        data = _set_scales(kind, _draw_bytes(f"{slug}-{name}", TENSOR_TYPES[kind][1]), bits)
        yield Case(f"{slug}-{name}", comment, {"type": kind, "data": data}, ("extreme",))
    for n in range(2):
        yield Case(
            f"{slug}-random-{n}",
            "two random blocks",
            {"type": kind, "data": _random_blocks(kind, f"{slug}-random-{n}")},
        )
    for n, offset in enumerate(F16_FIELDS[kind]):
        for name, bits in zip(("infinite", "nan"), NOT_FINITE["F16"], strict=True):
            data = counting[:offset] + _pack([bits], 2) + counting[offset + 2 :]
            yield Case(f"{slug}-{name}-{n}", f"F16 number {n} of the block is {name}", {"type": kind, "data": data},
                       ("extreme",), f"{slug}-layout", ("/data",))  # fmt: skip


def _counting(kind: str) -> bytes:
    """Return bytes whose nibbles, high bits and packed scales all differ from their neighbours."""
    return bytes((n * 37 + 11 * (n // 16)) & 255 for n in range(TENSOR_TYPES[kind][1]))


def _draw_bytes(case_id: str, count: int) -> bytes:
    drbg = derive(SUITE, case_id)
    return _bytes(drbg, count)


def _bytes(drbg: Drbg, count: int) -> bytes:
    return b"".join(drbg.next_uint64().to_bytes(8, "little") for _ in range(-(-count // 8)))[:count]


def _set_scales(kind: str, block: bytes, bits: int) -> bytes:
    for offset in F16_FIELDS[kind]:
        block = block[:offset] + _pack([bits], 2) + block[offset + 2 :]
    return block


def _random_blocks(kind: str, case_id: str) -> bytes:
    """Return two blocks of random bytes; a scale that is not finite loses its lowest exponent bit."""
    drbg, blocks = derive(SUITE, case_id), b""
    for _ in range(2):
        block = _bytes(drbg, TENSOR_TYPES[kind][1])
        for offset in F16_FIELDS[kind]:
            bits = int.from_bytes(block[offset : offset + 2], "little")
            bits = bits & ~0x0400 if bits & 0x7C00 == 0x7C00 else bits
            block = block[:offset] + _pack([bits], 2) + block[offset + 2 :]
        blocks += block
    return blocks


def _decode_tensor() -> CaseFile:
    data = _pack([0x3C00, 0x3C01, 0x3C02, 0x3C03, 0x3C04, 0x3C05], 2)
    f16: dict[str, Any] = {"type": "F16", "shape": (2, 3), "data": data}
    q8 = {"type": "Q8_0", "shape": (2, 64), "data": b"".join(_set_scales("Q8_0", _draw_bytes(f"q8-{n}", 34), 0x3C00 + n)
                                                             for n in range(4))}  # fmt: skip
    vector = {"type": "F32", "shape": (3,), "data": _pack([0x3F800000, 0x40000000, 0x40400000], 4)}
    return _file(DECODE_TENSOR, [
        Case("f16-matrix", "two rows of three", f16),
        Case("q8-0-matrix", "two rows of two blocks", q8, ("layout",)),
        Case("f32-vector", "a vector is one row", vector),
        Case("unknown-type", "a type that the page does not define", f16 | {"type": "Q2_K"}, (), "f16-matrix",
             ("/type",)),
        Case("type-lowercase", "names are GGML's, in capitals", f16 | {"type": "f16"}, (), "f16-matrix", ("/type",)),
        Case("too-short", "one byte is missing", f16 | {"data": data[:-1]}, (), "f16-matrix", ("/data",)),
        Case("too-long", "one byte too many", f16 | {"data": data + b"\0"}, (), "f16-matrix", ("/data",)),
        Case("empty", "no element", f16 | {"shape": (0, 3)}, (), "f16-matrix", ("/shape/0",)),
        Case("part-of-a-block", "as many elements, but a row is no whole number of blocks", q8 | {"shape": (8, 16)}, (),
             "q8-0-matrix", ("/shape/0", "/shape/1")),
        Case("no-dimensions", "a single number is no tensor", f16 | {"shape": ()}, (), "f16-matrix", ("/shape",)),
        Case("no-dimensions-no-data", "nor is nothing", {"type": "F16", "shape": (), "data": b""}, (), "f16-matrix",
             ("/shape", "/data")),
        Case("no-columns", "no element", f16 | {"shape": (2, 0), "data": b""}, (), "f16-matrix",
             ("/shape/1", "/data")),
        Case("three-dimensions", "neither a vector nor a matrix", f16 | {"shape": (1, 2, 3)}, (), "f16-matrix",
             ("/shape",)),
        Case("not-finite", "the last value is infinite", f16 | {"data": data[:-2] + _pack([0x7C00], 2)}, (),
             "f16-matrix", ("/data",)),
    ])  # fmt: skip


# Matrices, gains, digests.


def _quantise_matrix() -> CaseFile:
    half = 2**37
    one = 1 << 24
    cases = [
        Case("unit", "1, a half, a quarter", {"weights": [[one, -one // 2, one // 4]]}),
        Case("halves", "127 W / m_o is a half", {"weights": [[254, 1, -1, 3, -3]]}, ("halves",)),
        Case("zero-row", "a row of zeros among others", {"weights": [[0, 0], [5, -7]]}, ("zero-row",)),
        Case("zero-matrix", "k = 26", {"weights": [[0, 0], [0, 0]]}, ("zero-row",)),
        Case("one", "the smallest weight", {"weights": [[1], [-1], [0]]}, ("zero-row",)),
        Case("largest", "sums at the bound, k = -12", {"weights": [[half, half - 1], [-half, half - 1], [1, 0]]},
             ("extreme",)),
        Case("k-0", "the largest maximum has 26 bits: the shift is 0", {"weights": [[2**26 - 1], [2**25], [128]]},
             ("extreme",)),
        Case("k-minus-1", "27 bits: the divisor is shifted", {"weights": [[2**26], [127], [381]]},
             ("extreme", "halves")),
        Case("too-large", "a sum of 2^14 is refused", {"weights": [[half, half], [-half, half - 1], [1, 0]]}, (),
             "largest", ("/weights/0/1",)),
        Case("too-low", "and so is -2^14", {"weights": [[half, half - 1], [-half, half], [1, 0]]}, (), "largest",
             ("/weights/1/1",)),
    ]  # fmt: skip
    for bits in (8, 20, 26, 34):
        case_id = f"random-{bits}-bits"
        drbg = derive(SUITE, case_id)
        rows = [[drbg.between(-(2**bits), 2**bits) >> drbg.below(4) for _ in range(16)] for _ in range(3)]
        cases.append(Case(case_id, "random rows", {"weights": rows}))
    return _file(QUANTISE_MATRIX, cases)


def _f32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def _gains() -> CaseFile:
    rest = _f32(-0.5, 3.25, 0.0)
    plain: dict[str, Any] = {"type": "F32", "data": _f32(1.0) + rest}
    ends = _f32(127.99, -127.99, 2**-17, -(2**-17), 3 * 2**-17, -3 * 2**-17)
    return _file(READ_GAINS, [
        Case("plain", "four gains", plain),
        Case("f16", "gains in F16", {"type": "F16", "data": _pack([0x3C00, 0xB800, 0x0001, 0x57FF], 2)}),
        Case("ends", "nearly 128, and halves of 2^-16", {"type": "F32", "data": ends}, ("extreme", "halves")),
        Case("largest", "the largest F32 below 128 rounds to 128 in Q16 and is refused",
             plain | {"data": _pack([0x42FFFFFF], 4) + rest}, ("extreme",), "plain", ("/data",)),
        Case("too-large", "128", plain | {"data": _f32(128.0) + rest}, (), "plain", ("/data",)),
        Case("too-low", "-128", plain | {"data": _f32(-128.0) + rest}, (), "plain", ("/data",)),
        Case("not-finite", "NaN", plain | {"data": _pack([0x7FC00000], 4) + rest}, (), "plain", ("/data",)),
    ])  # fmt: skip


def _attention_scale() -> CaseFile:
    dims = (2, 4, 16, 48, 64, 80, 100, 128, 256, 4096)
    return _file(ATTENTION_SCALE, [Case(f"head-dim-{n}", f"heads of {n}", {"head_dim": n}) for n in dims])


SMALL_MATRIX = {"name": "blk.0.attn_q.weight", "k": -12, "multipliers": (528416, 0), "rows": ((127, -127), (0, 0))}


def _matrix_digest() -> CaseFile:
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "small": ("two rows of two", {}),
        "name": ("another name", {"name": "output.weight"}),
        "k": ("another exponent", {"k": 26}),
        "transposed-shape": ("the same bytes as one row", {"multipliers": (528416,), "rows": ((127, -127, 0, 0),)}),
    }
    cases = [Case(name, comment, {"matrix": SMALL_MATRIX | change}) for name, (comment, change) in changes.items()]
    return _file(MATRIX_DIGEST, cases)


def _vectors_digest() -> CaseFile:
    ends = (-(2**31), -1, 0, 2**31 - 1)
    return _file(VECTORS_DIGEST, [
        Case("gains", "one vector", {"name": "output_norm.weight", "vectors": (ends,)}),
        Case("embedding", "two vectors", {"name": "token_embd.weight", "vectors": (ends, ends[::-1])}),
    ])  # fmt: skip


def _root_of_digests() -> CaseFile:
    a = {"layer_count": 1, "width": 2, "head_count": 3, "kv_head_count": 4, "head_dim": 5, "ffn_width": 6,
         "vocabulary_size": 7, "rope_base": 0x461C4000, "epsilon": 0x3727C5AC}  # fmt: skip
    digests = [bytes([n]) * 32 for n in range(3)]
    return _file(ROOT_OF_DIGESTS, [
        Case("three", "numbers that all differ", {"architecture": a, "digests": digests}),
        Case("order", "the digests in another order", {"architecture": a, "digests": digests[::-1]}),
    ])  # fmt: skip


# Whole models.

Gguf = dict[str, dict[str, Any]]
F16_ONE = 0x3C00


def _matrix(rows: int, columns: int, first: int = 0) -> dict[str, Any]:
    """Return an F16 tensor of values that all differ, both signs, between 1/2 and 2."""
    bits = [((first + n) * 0x0121) & 0x07FF | 0x3800 | (0x8000 if n % 3 == 1 else 0) for n in range(rows * columns)]
    return {"type": "F16", "shape": (rows, columns), "data": _pack(bits, 2)}


def _base(heads: int = 1, kv_heads: int = 1, head_dim: int = 2, layers: int = 1, width: int = 2) -> Gguf:
    """Return a model of vocabulary 3 and inner width 3, with no optional key and a tied head."""
    metadata: dict[str, Any] = {
        "general.architecture": ("text", "llama"),
        "general.file_type": ("integer", 1),
        "llama.block_count": ("integer", layers),
        "llama.embedding_length": ("integer", width),
        "llama.feed_forward_length": ("integer", 3),
        "llama.attention.head_count": ("integer", heads),
        "llama.attention.layer_norm_rms_epsilon": ("float32", 0x3727C5AC),
    }
    gains = {"type": "F32", "shape": (width,), "data": _f32(1.0, -0.75, *[0.5] * (width - 2))}
    tensors: dict[str, Any] = {"token_embd.weight": _matrix(3, width), "output_norm.weight": gains}
    for n in range(layers):
        tensors |= {
            f"blk.{n}.attn_norm.weight": gains,
            f"blk.{n}.attn_q.weight": _matrix(heads * head_dim, width, 1 + n),
            f"blk.{n}.attn_k.weight": _matrix(kv_heads * head_dim, width, 2 + n),
            f"blk.{n}.attn_v.weight": _matrix(kv_heads * head_dim, width, 3 + n),
            f"blk.{n}.attn_output.weight": _matrix(width, heads * head_dim, 4 + n),
            f"blk.{n}.ffn_norm.weight": gains,
            f"blk.{n}.ffn_gate.weight": _matrix(3, width, 5 + n),
            f"blk.{n}.ffn_up.weight": _matrix(3, width, 6 + n),
            f"blk.{n}.ffn_down.weight": _matrix(width, 3, 7 + n),
        }
    return {"metadata": metadata, "tensors": tensors}


def _with(gguf: Gguf, metadata: Mapping[str, Any] | None = None, tensors: Mapping[str, Any] | None = None) -> Gguf:
    """Return a file with some keys and tensors changed; None takes one away."""
    changed = {"metadata": gguf["metadata"] | dict(metadata or {}), "tensors": gguf["tensors"] | dict(tensors or {})}
    return {part: {key: value for key, value in items.items() if value is not None} for part, items in changed.items()}


ALL_KEYS = {
    "llama.context_length": ("integer", 64),
    "llama.vocab_size": ("integer", 3),
    "llama.attention.head_count_kv": ("integer", 1),
    "llama.attention.key_length": ("integer", 2),
    "llama.attention.value_length": ("integer", 2),
    "llama.rope.dimension_count": ("integer", 2),
    "llama.rope.freq_base": ("float32", 0x461C4000),
    "llama.expert_count": ("integer", 0),
    "llama.expert_used_count": ("integer", 0),
    "llama.rope.scaling.type": ("text", "none"),
    "tokenizer.ggml.add_bos_token": ("boolean", True),
}


def _integer_models() -> CaseFile:
    return _file(MAKE_INTEGER_MODEL, [*_accepted(), *_refused()])


def _accepted() -> list[Case]:
    base = _base()
    wide = _with(_base(heads=2, kv_heads=1, head_dim=4), {
        "llama.attention.key_length": ("integer", 4), "llama.attention.head_count_kv": ("integer", 1),
        "llama.attention.value_length": ("integer", 4),
    })  # fmt: skip
    huge = {
        "type": "F32",
        "shape": (3, 2),
        "data": _pack([0x7F7FFFFF, 0xFF7FFFFF, 0x48000000, 0xC8000000, 1, 0x80000001], 4),
    }
    blocks = {
        "type": "Q8_0",
        "shape": (3, 32),
        "data": b"".join(_set_scales("Q8_0", _draw_bytes(f"q8-row-{n}", 34), 0x2000 + n) for n in range(3)),
    }
    zeros = {"type": "F16", "shape": (2, 2), "data": bytes(8)}
    listed = {
        "smallest": ("one block, one head, a tied head, no optional key", base),
        "all-keys": ("every key that is known, neutral ones with their neutral value", _with(base, ALL_KEYS)),
        "untied": ("a head of its own", _with(base, tensors={"output.weight": _matrix(3, 2, 9)})),
        "two-layers": ("two blocks", _base(layers=2)),
        "wide-heads": ("two query heads share one KV head; heads together are wider than the residual", wide),
        "uneven-heads": ("width 5 and two heads: heads of 2, the quotient's floor", _base(2, 2, 2, width=5)),
        "smallest-epsilon": (
            "an epsilon of 2^-149",
            _with(base, {"llama.attention.layer_norm_rms_epsilon": ("float32", 1)}),
        ),
        "zero-matrix": ("a matrix of zeros", _with(base, tensors={"blk.0.attn_k.weight": zeros})),
        "embedding-saturates": (
            "an embedding of the largest finite F32, of 2^17 and of subnormal numbers, untied",
            _with(base, tensors={"token_embd.weight": huge, "output.weight": _matrix(3, 2, 9)}),
        ),
        "quantised-blocks": (
            "an embedding of Q8_0 blocks, width 32",
            _widen(blocks),
        ),
    }
    cases = [Case(name, comment, {"gguf": gguf}) for name, (comment, gguf) in listed.items()]
    cases.append(
        Case("nano", "poai-nano, as in models/nano.json", {"gguf": model_kinds.show_gguf(models.get_gguf("nano"))})
    )
    return cases


def _widen(embedding: dict[str, Any]) -> Gguf:
    """Return the base model with width 32 and this embedding."""
    gains = {"type": "F32", "shape": (32,), "data": _f32(*(n / 16 for n in range(32)))}
    shapes = {"attn_q": (2, 32), "attn_k": (2, 32), "attn_v": (2, 32), "attn_output": (32, 2),
              "ffn_gate": (3, 32), "ffn_up": (3, 32), "ffn_down": (32, 3)}  # fmt: skip
    tensors = {f"blk.0.{name}.weight": _matrix(*shape) for name, shape in shapes.items()}
    norms = dict.fromkeys(("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"), gains)
    keys = {"llama.embedding_length": ("integer", 32), "llama.attention.key_length": ("integer", 2)}
    return _with(_base(), keys, {"token_embd.weight": embedding} | tensors | norms)


def _refused() -> Iterable[Case]:
    base, full = _base(), _with(_base(), ALL_KEYS)
    for case_id, (comment, key, value) in REFUSED_KEYS.items():
        name = f"llama.{key}" if not key.startswith("general.") else key
        origin, gguf = ("all-keys", full) if name in ALL_KEYS or case_id in FROM_ALL_KEYS else ("smallest", base)
        yield _refuse(case_id, comment, origin, gguf, "metadata", name, value)
    for case_id, (comment, name, tensor) in _refused_tensors(base).items():
        yield _refuse(case_id, comment, "smallest", base, "tensors", name, tensor)
    smallest = Case("smallest", "", {"gguf": base})
    for case_id, (comment, tensors) in _refused_pairs(base["tensors"]).items():
        changed = {"gguf": _with(base, tensors=tensors)}
        yield make_negative(MAKE_INTEGER_MODEL, smallest, case_id, comment, changed, ("two-faults",))


def _refuse(case_id: str, comment: str, origin: str, gguf: Gguf, part: str, name: str, value: Any) -> Case:
    """Return a negative case: one key or tensor changed, added or (None) taken away."""
    replaced = name in gguf[part] and value is not None
    pointer = f"/gguf/{part}/{name}" if replaced else f"/gguf/{part}"
    return Case(case_id, comment, {"gguf": _with(gguf, **{part: {name: value}})}, (), origin, (pointer,))


FROM_ALL_KEYS = ("width-bound", "heads-bound")
"""Cases that need the width of a head to be given."""
REFUSED_KEYS: dict[str, tuple[str, str, Any]] = {
    "architecture": ("another architecture", "general.architecture", ("text", "qwen2")),
    "architecture-missing": ("no architecture", "general.architecture", None),
    "architecture-kind": ("an architecture that is no string", "general.architecture", ("integer", 0)),
    "unknown-key": ("a key that the page does not know", "attention.sliding_window", ("integer", 4096)),
    "rope-scaling": ("a neutral key with another value", "rope.scaling.type", ("text", "linear")),
    "experts": ("a mixture of experts", "expert_count", ("integer", 8)),
    "experts-false": ("false is not the 0 of the table", "expert_count", ("boolean", False)),
    "experts-float": ("and neither is 0.0", "expert_count", ("float32", 0)),
    "experts-used": ("experts used", "expert_used_count", ("integer", 2)),
    "width-missing": ("no width", "embedding_length", None),
    "width-zero": ("a width of 0", "embedding_length", ("integer", 0)),
    "heads-negative": ("a negative count", "attention.head_count", ("integer", -1)),
    "layers-boolean": ("true is no count", "block_count", ("boolean", True)),
    "layers-text": ("a count as text", "block_count", ("text", "1")),
    "layers-float": ("a count as a float", "block_count", ("float32", 0x3F800000)),
    "ffn-missing": ("no inner width", "feed_forward_length", None),
    "kv-heads-zero": ("no KV heads", "attention.head_count_kv", ("integer", 0)),
    "value-length-zero": ("values of length 0", "attention.value_length", ("integer", 0)),
    "epsilon-missing": ("no epsilon", "attention.layer_norm_rms_epsilon", None),
    "epsilon-integer": ("epsilon as an integer", "attention.layer_norm_rms_epsilon", ("integer", 1)),
    "epsilon-zero": ("an epsilon of 0", "attention.layer_norm_rms_epsilon", ("float32", 0)),
    "epsilon-negative": ("a negative epsilon", "attention.layer_norm_rms_epsilon", ("float32", 0xB727C5AC)),
    "epsilon-infinite": ("epsilon is infinite", "attention.layer_norm_rms_epsilon", ("float32", 0x7F800000)),
    "epsilon-minus-infinite": ("epsilon is -infinity", "attention.layer_norm_rms_epsilon", ("float32", 0xFF800000)),
    "rope-base-nan": ("the base is no number", "rope.freq_base", ("float32", 0x7F800001)),
    "epsilon-nan": ("epsilon is no number", "attention.layer_norm_rms_epsilon", ("float32", 0x7FC00000)),
    "rope-base-negative": ("a negative base", "rope.freq_base", ("float32", 0xC61C4000)),
    "rope-base-infinite": ("an infinite base", "rope.freq_base", ("float32", 0x7F800000)),
    "value-length": ("values of another length than keys", "attention.value_length", ("integer", 4)),
    "rope-dimensions": ("only a part of a head is rotated", "rope.dimension_count", ("integer", 1)),
    "vocabulary-size": ("another number of tokens than the embedding has", "vocab_size", ("integer", 4)),
    "width-bound": ("a width above 2^14", "embedding_length", ("integer", 2**14 + 2)),
    "head-dim-odd": ("heads of odd width", "embedding_length", ("integer", 3)),
    "head-dim-bound": ("heads wider than 2^12", "embedding_length", ("integer", 2**12 + 2)),
    "layers-bound": ("more than 256 blocks", "block_count", ("integer", 257)),
    "layers-forged": ("a number of blocks that no list can hold", "block_count", ("integer", 2**62)),
    "kv-heads-uneven": ("two KV heads for one query head", "attention.head_count_kv", ("integer", 2)),
    "heads-bound": ("heads together wider than 2^15", "attention.head_count", ("integer", 2**14 + 1)),
    "ffn-bound": ("an inner width above 2^15", "feed_forward_length", ("integer", 2**15 + 1)),
    "rope-base-bound": ("the largest base below 1", "rope.freq_base", ("float32", 0x3F7FFFFF)),
    "epsilon-bound": ("an epsilon of 1", "attention.layer_norm_rms_epsilon", ("float32", 0x3F800000)),
}  # fmt: skip


def _refused_tensors(base: Gguf) -> dict[str, tuple[str, str, dict[str, Any] | None]]:
    q, embedding = base["tensors"]["blk.0.attn_q.weight"], base["tensors"]["token_embd.weight"]
    gains = base["tensors"]["output_norm.weight"]
    return {
        "vocabulary-bound": ("more than 2^24 tokens", "token_embd.weight", embedding | {"shape": (2**24 + 1, 2)}),
        "embedding-empty": ("an embedding without rows", "token_embd.weight", embedding | {"shape": (0, 2)}),
        "embedding-number": ("an embedding without dimensions", "token_embd.weight", embedding | {"shape": ()}),
        "tensor-number": ("a matrix without dimensions", "blk.0.attn_v.weight", q | {"shape": ()}),
        "embedding-missing": ("no embedding", "token_embd.weight", None),
        "tensor-missing": ("no matrix of values", "blk.0.attn_v.weight", None),
        "norm-missing": ("no last norm", "output_norm.weight", None),
        "tensor-shape": ("two columns too many", "blk.0.attn_q.weight", _matrix(2, 4)),
        "tensor-transposed": ("columns before rows", "blk.0.ffn_down.weight", _matrix(3, 2)),
        "norm-as-matrix": ("a norm with two dimensions", "output_norm.weight", gains | {"shape": (1, 2)}),
        "head-shape": ("a head with another number of tokens", "output.weight", _matrix(4, 2)),
        "tensor-unknown": ("a bias", "blk.0.attn_q.bias", gains),
        "layer-unknown": ("a tensor of a second block", "blk.1.attn_norm.weight", gains),
        "row-maximum": ("a weight of 2^14", "blk.0.ffn_up.weight", _matrix(3, 2) | {"data": _pack([0x7400] * 6, 2)}),
        "row-maximum-head": ("the tied head has a weight of -2^14", "token_embd.weight",
                             embedding | {"data": embedding["data"][:-2] + _pack([0xF400], 2)}),
        "gain": ("a gain of 128", "blk.0.ffn_norm.weight", gains | {"data": _f32(1.0, 128.0)}),
        "type": ("a tensor type that the page does not define", "blk.0.attn_q.weight", q | {"type": "IQ4_NL"}),
        "data-short": ("fewer bytes than the shape needs", "blk.0.attn_q.weight", q | {"data": q["data"][:-2]}),
        "not-finite": ("a weight is infinite", "blk.0.attn_q.weight",
                       q | {"data": q["data"][:-2] + _pack([0x7C00], 2)}),
    }  # fmt: skip


def _refused_pairs(tensors: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return what changes in files with two faults; the comment says first which of them counts."""
    q, v, norm = "blk.0.attn_q.weight", "blk.0.attn_v.weight", "output_norm.weight"
    large = tensors[q] | {"data": _pack([0x7400, *[F16_ONE] * 3], 2)}
    infinite = tensors[q] | {"data": _pack([0x7400, *[F16_ONE] * 2, 0x7C00], 2)}
    unknown = tensors[v] | {"type": "IQ4_NL"}
    gain = tensors[norm] | {"data": _f32(128.0, 1.0)}
    return {
        "large-then-type": ("a large weight in q, a tensor type that is not known in v", {q: large, v: unknown}),
        "type-then-large": ("a tensor type that is not known in q, a large weight in v", {q: unknown, v: large}),
        "not-finite-and-large": ("the last weight is infinite, the first one large", {q: infinite}),
        "large-then-gain": ("a large weight in q, a large gain of the last norm", {q: large, norm: gain}),
        "gain-then-head": ("a large gain of the last norm, a large weight in the tied head", {
            norm: gain,
            "token_embd.weight": tensors["token_embd.weight"] | {"data": _pack([0x7400, *[F16_ONE] * 5], 2)},
        }),
        "shape-then-unknown": ("v has another shape, and there is a bias", {
            v: tensors[v] | {"shape": ()}, "blk.0.attn_q.bias": tensors[norm],
        }),
        "unknown-then-type": ("a bias, and q of a type that is not known", {
            "blk.0.attn_q.bias": tensors[norm], q: tensors[q] | {"type": "IQ4_NL"},
        }),
        "shape-then-norm-type": ("v has no dimensions, the last norm a type that is not known", {
            v: tensors[v] | {"shape": ()}, norm: tensors[norm] | {"type": "IQ4_NL"},
        }),
    }  # fmt: skip


LIMITS = {
    "layer_count": 256, "width": 2**14, "head_count": 8, "kv_head_count": 8, "head_dim": 2**12, "ffn_width": 2**15,
    "vocabulary_size": 2**24, "rope_base": 0x3F800000, "epsilon": 0x3F7FFFFF,
}  # fmt: skip


def _architectures() -> CaseFile:
    base = Case("limits", "everything at its bound", {"architecture": LIMITS}, ("extreme",))
    smallest = dict.fromkeys(LIMITS, 1) | {"head_dim": 2, "rope_base": 0x7F7FFFFF}
    other = Case("smallest", "the other ends: ones, the largest base, the smallest epsilon", {"architecture": smallest})
    beyond = {
        "layers": ("257 blocks", {"layer_count": 257}),
        "width": ("wider than 2^14", {"width": 2**14 + 1}),
        "head-dim": ("heads wider than 2^12, one less of them", {"head_dim": 2**12 + 2, "head_count": 7,
                                                                 "kv_head_count": 7}),
        "head-dim-odd": ("heads of odd width", {"head_dim": 2**12 - 1}),
        "kv-heads": ("8 heads share 3 KV heads", {"kv_head_count": 3}),
        "heads": ("heads together wider than 2^15", {"head_count": 16}),
        "ffn": ("an inner width above 2^15", {"ffn_width": 2**15 + 1}),
        "vocabulary": ("more than 2^24 tokens", {"vocabulary_size": 2**24 + 1}),
        "rope-base": ("the largest base below 1", {"rope_base": 0x3F7FFFFF}),
        "epsilon": ("an epsilon of 1", {"epsilon": 0x3F800000}),
    }  # fmt: skip
    negative = [
        make_negative(CHECK_ARCHITECTURE, base, name, comment, {"architecture": LIMITS | change})
        for name, (comment, change) in beyond.items()
    ]
    return _file(CHECK_ARCHITECTURE, [base, other, *negative])


def _tensor_digests_file() -> CaseFile:
    cases = [
        Case(name.replace(".", "-"),
             f"{name}: {'computed by the exact engine' if models.is_large(name) else 'every tensor'}",
             {"model": name}, (SLOW,) if name == "tinyllama-shape" else ())
        for name in models.MODEL.choices
    ]  # fmt: skip
    return _file(TENSOR_DIGESTS, cases)
