"""The inner loops of every product of matrices: blocks of sums that stay in vector registers.

They are written as LLVM vector instructions, none of them particular to a processor. `multiply_tile` sums products of
int16 activations and int8 weights in int32; LLVM recognises the sum of two int16 products and emits what the machine
has for it (`vpdpwssd`, `vpmaddwd`, `smlal`). On x86 that is twice the arithmetic of float32 per instruction, and no
bound has to be watched but that of int32. `multiply_wide_tile` sums products of integers in float64, for attention.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

TILE_ROWS = 8
"""Rows of a tile; row counts are padded to a multiple."""

PANEL = 48
"""Outputs of an integer tile: a multiple of what each of `_SHAPES` does at once, and a divisor of common widths."""

WIDE_PANEL = 16
"""Outputs of a float64 tile, likewise; a divisor of common head widths."""

SEGMENT = 8_190
"""Longest inner dimension summed in int32: 8190 * 127 * 2048 < 2^31. Even, as the integer tile takes pairs."""

_SHAPES = (  # a feature of the processor; int32 lanes of a register, rows and vectors that fit its registers
    ("avx512bw", (16, 8, 3)),
    ("avx2", (8, 4, 3)),
    ("neon", (4, 8, 3)),
    ("", (4, 4, 2)),
)
_INT8, _INT16, _INT32, _INT64, _FLOAT64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.DoubleType()


def get_shape() -> tuple[int, int, int]:
    """Return int32 lanes, rows and vectors for the processor that Numba compiles for; `NUMBA_CPU_FEATURES` names it."""
    named = config.CPU_FEATURES
    if named is None:
        features = {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}
    else:
        features = {name[1:] for name in named.split(",") if name.startswith("+")}
    return next(shape for feature, shape in _SHAPES if not feature or feature in features)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_INT64, value)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector that holds a value in every lane."""
    none = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def _load(builder: Any, pointer: Any, kind: Any, align: int) -> Any:
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = align
    return value


def _emit_sums(builder: Any, count: Any, kinds: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit a loop that starts from zeros and replaces the sums by `step(n, sums)`, n = 0 .. count - 1; count >= 1."""
    before, loop, after = builder.block, builder.append_basic_block("sum"), builder.append_basic_block("store")
    builder.branch(loop)
    builder.position_at_end(loop)
    n = builder.phi(_INT64)
    n.add_incoming(_constant(0), before)
    sums = [builder.phi(kind) for kind in kinds]
    following = step(n, sums)
    advanced = builder.add(n, _constant(1))
    n.add_incoming(advanced, loop)
    for kind, old, new in zip(kinds, sums, following, strict=True):
        old.add_incoming(ir.Constant(kind, [0] * kind.count), before)
        old.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", advanced, count), loop, after)
    builder.position_at_end(after)
    return following


def _emit_pairs(builder: Any, a: Any, stride: Any, w: Any, pairs: Any, shape: tuple[int, int, int]) -> list[Any]:
    """Emit the integer sums of one block of rows and vectors; a: int16 pointer, w: int8 pointer."""
    lanes, rows, vectors = shape
    sums, halves, products = (
        ir.VectorType(kind, n) for kind, n in ((_INT32, lanes), (_INT16, 2 * lanes), (_INT32, 2 * lanes))
    )
    masks = [ir.Constant(sums, [2 * lane + part for lane in range(lanes)]) for part in (0, 1)]
    starts = [
        builder.bitcast(builder.gep(a, [builder.mul(stride, _constant(r))]), _INT32.as_pointer()) for r in range(rows)
    ]

    def step(n: Any, totals: list[Any]) -> list[Any]:
        line = builder.gep(w, [builder.mul(n, _constant(2 * PANEL))])
        weights = []
        for v in range(vectors):
            narrow = _load(builder, builder.gep(line, [_constant(2 * lanes * v)]), ir.VectorType(_INT8, 2 * lanes), 1)
            weights.append(builder.sext(narrow, products))
        following = []
        for r in range(rows):
            pair = _load(builder, builder.gep(starts[r], [n]), _INT32, 2)
            both = builder.sext(builder.bitcast(_splat(builder, pair, lanes), halves), products)
            for v in range(vectors):
                product, none = builder.mul(weights[v], both), ir.Constant(products, ir.Undefined)
                first, second = (builder.shuffle_vector(product, none, mask) for mask in masks)
                following.append(builder.add(totals[r * vectors + v], builder.add(first, second)))
        return following

    return _emit_sums(builder, pairs, [sums] * (rows * vectors), step)


def _emit_wide(
    builder: Any, a: Any, stride: Any, b: Any, line: Any, count: Any, shape: tuple[int, int, int]
) -> list[Any]:
    """Emit the float64 sums of one block of rows and vectors; a and b: float64 pointers."""
    lanes, rows, vectors = shape
    sums = ir.VectorType(_FLOAT64, lanes)
    starts = [builder.gep(a, [builder.mul(stride, _constant(r))]) for r in range(rows)]

    def step(n: Any, totals: list[Any]) -> list[Any]:
        first = builder.gep(b, [builder.mul(n, line)])
        loaded = [_load(builder, builder.gep(first, [_constant(lanes * v)]), sums, 8) for v in range(vectors)]
        following = []
        for r in range(rows):
            factor = _splat(builder, builder.load(builder.gep(starts[r], [n])), lanes)
            for v in range(vectors):
                product = builder.fmul(loaded[v], factor, flags=("contract",))
                following.append(builder.fadd(totals[r * vectors + v], product, flags=("contract",)))
        return following

    return _emit_sums(builder, count, [sums] * (rows * vectors), step)


def _emit_tile(
    builder: Any, out: Any, panel: int, shape: tuple[int, int, int], emit: Callable[[int, int], list[Any]]
) -> None:
    """Emit every block of a tile and store its sums; `emit(row, column)` gives those of one."""
    lanes, rows, vectors = shape
    for row in range(0, TILE_ROWS, rows):
        for column in range(0, panel, vectors * lanes):
            for n, total in enumerate(emit(row, column)):
                place = builder.gep(out, [_constant((row + n // vectors) * panel + column + n % vectors * lanes)])
                builder.store(total, builder.bitcast(place, total.type.as_pointer())).align = 4


def _point(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


@intrinsic  # type: ignore[untyped-decorator]
def multiply_tile(_: Any, a: Any, a_at: Any, stride: Any, w: Any, w_at: Any, pairs: Any, out: Any) -> tuple[Any, Any]:
    """Set `out[r, o] = sum_i a[r, i] * w[o, i]` for TILE_ROWS rows and PANEL outputs, exactly, in int32.

    Args:
        _: Numba's typing context.
        a: int16 array; the values of a row are contiguous.
        a_at: index of the first value.
        stride: values from one row to the next.
        w: int8 array of column pairs: PANEL pairs of values, one an output, and so on.
        w_at: index of the first value.
        pairs: number of column pairs, 1 .. SEGMENT / 2.
        out: int32 array, TILE_ROWS x PANEL, contiguous.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, a_at, stride, w, w_at, pairs, out = arguments
        first_a = _point(context, builder, signature.args[0], a, a_at)
        first_w = _point(context, builder, signature.args[3], w, w_at)

        def emit(row: int, column: int) -> list[Any]:
            rows, outputs = (
                builder.gep(first_a, [builder.mul(stride, _constant(row))]),
                builder.gep(first_w, [_constant(2 * column)]),
            )
            return _emit_pairs(builder, rows, stride, outputs, pairs, get_shape())

        _emit_tile(builder, _point(context, builder, signature.args[6], out, _constant(0)), PANEL, get_shape(), emit)
        return context.get_dummy_value()

    return types.void(a, types.int64, types.int64, w, types.int64, types.int64, out), generate


@intrinsic  # type: ignore[untyped-decorator]
def multiply_wide_tile(
    _: Any, a: Any, a_at: Any, stride: Any, b: Any, b_at: Any, line: Any, count: Any, out: Any
) -> tuple[Any, Any]:
    """Set `out[r, o] = sum_n a[r, n] * b[n, o]` for TILE_ROWS rows and WIDE_PANEL outputs, in float64.

    Exact while the sums of magnitudes stay below 2^53, fused or not, in any order.

    Args:
        _: Numba's typing context.
        a: float64 array of integers; the values of a row are contiguous.
        a_at: index of the first value.
        stride: values from one row to the next.
        b: float64 array of integers; the outputs of a line are contiguous.
        b_at: index of the first value.
        line: values from one line to the next.
        count: lines, at least 1.
        out: float64 array, TILE_ROWS x WIDE_PANEL, contiguous.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, a_at, stride, b, b_at, line, count, out = arguments
        first_a = _point(context, builder, signature.args[0], a, a_at)
        first_b = _point(context, builder, signature.args[3], b, b_at)
        lanes, rows, _ = get_shape()
        shape = lanes // 2, rows, 2

        def emit(row: int, column: int) -> list[Any]:
            left = builder.gep(first_a, [builder.mul(stride, _constant(row))])
            return _emit_wide(builder, left, stride, builder.gep(first_b, [_constant(column)]), line, count, shape)

        _emit_tile(builder, _point(context, builder, signature.args[7], out, _constant(0)), WIDE_PANEL, shape, emit)
        return context.get_dummy_value()

    return types.void(a, types.int64, types.int64, b, types.int64, types.int64, types.int64, out), generate
