"""The inner loops of every product of matrices: blocks of sums that stay in vector registers.

`multiply_tile` sums products of int8 activations and int8 weights in int32. Processors have instructions for that, four
products to a lane: `vpdpbusd` (AVX-512 VNNI, AVX-VNNI) and `usdot` (ARM's i8mm) multiply unsigned bytes by signed ones,
`sdot` (ARM's dotprod) signed by signed. Weights are stored as q + 128, so the sums of all but the last start from
-128 times the sum of the activations (`get_bias`). Elsewhere bytes are widened to int16 and LLVM recognises the sum of
two products (`pmaddwd`, `smlal`); `pmaddubsw`, which takes bytes, saturates and is of no use. No sum can leave int32:
2^15 * 255 * 127 < 2^31.

`multiply_wide_tile` sums products of integers in float64, for attention.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from poai_engine.kernels.lanes import (
    FLOAT64,
    INT8,
    INT16,
    INT32,
    call,
    constant,
    emit_loop,
    fill,
    load,
    point,
    splat,
    store,
)

TILE_ROWS = 8
"""Rows of a tile; row counts are padded to a multiple."""

PANEL = 48
"""Outputs of an integer tile: a multiple of what each of `_TILES` does at once, and a divisor of common widths."""

FOUR = 4
"""Inputs that are multiplied together: a lane's worth of bytes. Widths are padded to a multiple."""

WIDE_PANEL = 16
"""Outputs of a float64 tile, likewise; a divisor of common head widths."""


@dataclass(frozen=True)
class Tile:
    """How a tile is computed.

    Attributes:
        product: the instruction that multiplies bytes, or `pairs` for int16 ones.
        lanes: int32 lanes of a register.
        rows: and
        vectors: that fit the registers together.
    """

    product: str
    lanes: int
    rows: int
    vectors: int

    def __str__(self) -> str:
        return f"{self.product} {self.lanes}x{self.rows}x{self.vectors}"


_TILES = (  # a feature of the processor, as LLVM names it, and the best tile for it
    ("avx512vnni", Tile("vpdpbusd", 16, 8, 3)),
    ("avxvnni", Tile("vpdpbusd", 8, 4, 3)),
    ("avx512bw", Tile("pairs", 16, 8, 3)),
    ("avx2", Tile("pairs", 8, 4, 3)),
    ("i8mm", Tile("usdot", 4, 8, 3)),
    ("dotprod", Tile("sdot", 4, 8, 3)),
    ("neon", Tile("pairs", 4, 8, 3)),
    ("", Tile("pairs", 4, 4, 2)),
)


def get_tile() -> Tile:
    """Return the tile for the processor that Numba compiles for; `NUMBA_CPU_FEATURES` names its features."""
    named = config.CPU_FEATURES
    if named is None:
        features = {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}
    else:
        features = {name[1:] for name in named.split(",") if name.startswith("+")}
    return next(tile for feature, tile in _TILES if not feature or feature in features)


def get_bias() -> int:
    """Return what a row's sums start from, for each unit of the sum of its activations."""
    return 0 if get_tile().product == "sdot" else -128


def _multiply_fours(builder: Any, tile: Tile, total: Any, weights: Any, inputs: Any) -> Any:
    """Add four products to every lane; weights as stored, inputs the same four in every lane, both int32 vectors."""
    lanes = tile.lanes
    if tile.product == "vpdpbusd":
        return call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", total.type, total, weights, inputs)
    if tile.product in ("usdot", "sdot"):
        kind = ir.VectorType(INT8, FOUR * lanes)
        left, right = builder.bitcast(weights, kind), builder.bitcast(inputs, kind)
        if tile.product == "sdot":
            left = builder.xor(left, fill(kind, 128))
        return call(builder, f"llvm.aarch64.neon.{tile.product}.v{lanes}i32.v{4 * lanes}i8", total.type, total, left,
                    right)  # fmt: skip
    halves, products = ir.VectorType(INT16, 2 * lanes), ir.VectorType(INT32, 2 * lanes)
    none, eight = ir.Constant(products, ir.Undefined), fill(halves, 8)
    masks = [ir.Constant(ir.VectorType(INT32, lanes), [2 * lane + part for lane in range(lanes)]) for part in (0, 1)]
    w, a = builder.bitcast(weights, halves), builder.bitcast(inputs, halves)
    even = builder.and_(w, fill(halves, 255)), builder.ashr(builder.shl(a, eight), eight)
    odd = builder.lshr(w, eight), builder.ashr(a, eight)
    for left, right in (even, odd):
        product = builder.mul(builder.sext(left, products), builder.sext(right, products))
        first, second = (builder.shuffle_vector(product, none, mask) for mask in masks)
        total = builder.add(total, builder.add(first, second))
    return total


def _emit_fours(builder: Any, a: Any, stride: Any, starts: Any, w: Any, fours: Any, tile: Tile) -> list[Any]:
    """Emit the integer sums of one block of rows and vectors; a: int8 pointer, w: uint8, starts: int32."""
    lanes, rows, vectors = tile.lanes, tile.rows, tile.vectors
    sums = ir.VectorType(INT32, lanes)
    lines = [
        builder.bitcast(builder.gep(a, [builder.mul(stride, constant(r))]), INT32.as_pointer()) for r in range(rows)
    ]
    initial = [splat(builder, builder.load(builder.gep(starts, [constant(r)])), lanes) for r in range(rows)]

    def step(n: Any, totals: list[Any]) -> list[Any]:
        line = builder.gep(w, [builder.mul(n, constant(FOUR * PANEL))])
        weights = [load(builder, builder.gep(line, [constant(FOUR * lanes * v)]), sums, 1) for v in range(vectors)]
        inputs = [splat(builder, load(builder, builder.gep(at, [n]), INT32, 1), lanes) for at in lines]
        return [
            _multiply_fours(builder, tile, totals[r * vectors + v], weights[v], inputs[r])
            for r in range(rows)
            for v in range(vectors)
        ]

    return emit_loop(builder, fours, [first for first in initial for _ in range(vectors)], step)


def _emit_wide(
    builder: Any, a: Any, stride: Any, b: Any, line: Any, count: Any, shape: tuple[int, int, int]
) -> list[Any]:
    """Emit the float64 sums of one block of rows and vectors; a and b: float64 pointers."""
    lanes, rows, vectors = shape
    sums = ir.VectorType(FLOAT64, lanes)
    starts = [builder.gep(a, [builder.mul(stride, constant(r))]) for r in range(rows)]

    def step(n: Any, totals: list[Any]) -> list[Any]:
        first = builder.gep(b, [builder.mul(n, line)])
        loaded = [load(builder, builder.gep(first, [constant(lanes * v)]), sums, 8) for v in range(vectors)]
        following = []
        for r in range(rows):
            factor = splat(builder, builder.load(builder.gep(starts[r], [n])), lanes)
            for v in range(vectors):
                product = builder.fmul(loaded[v], factor, flags=("contract",))
                following.append(builder.fadd(totals[r * vectors + v], product, flags=("contract",)))
        return following

    return emit_loop(builder, count, [fill(sums, 0.0)] * (rows * vectors), step)


def _emit_tile(
    builder: Any, out: Any, height: int, panel: int, block: tuple[int, int, int], emit: Callable[[int, int], list[Any]]
) -> None:
    """Emit every block of a tile and store its sums; `emit(row, column)` gives those of one."""
    lanes, rows, vectors = block
    for row in range(0, height, rows):
        for column in range(0, panel, vectors * lanes):
            for n, total in enumerate(emit(row, column)):
                at = (row + n // vectors) * panel + column + n % vectors * lanes
                store(builder, total, builder.gep(out, [constant(at)]), 4)


def _make_product(height: int) -> Any:
    """Return what `multiply_tile` and `multiply_line` do."""

    def declare(
        _: Any, a: Any, a_at: Any, stride: Any, starts: Any, row: Any, w: Any, w_at: Any, fours: Any, out: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, a_at, stride, starts, row, w, w_at, fours, out = arguments
            first_a = point(context, builder, signature.args[0], a, a_at)
            first_start = point(context, builder, signature.args[3], starts, row)
            first_w = point(context, builder, signature.args[5], w, w_at)
            tile = get_tile()
            tile = replace(tile, rows=min(height, tile.rows))

            def emit(row: int, column: int) -> list[Any]:
                rows = builder.gep(first_a, [builder.mul(stride, constant(row))])
                first, outputs = (
                    builder.gep(first_start, [constant(row)]),
                    builder.gep(first_w, [constant(FOUR * column)]),
                )
                return _emit_fours(builder, rows, stride, first, outputs, fours, tile)

            block = tile.lanes, tile.rows, tile.vectors
            target = point(context, builder, signature.args[8], out, constant(0))
            _emit_tile(builder, target, height, PANEL, block, emit)
            return context.get_dummy_value()

        return types.void(a, types.int64, types.int64, starts, types.int64, w, types.int64, types.int64, out), generate

    return intrinsic(declare)


multiply_tile = _make_product(TILE_ROWS)
"""Set `out[r, o] = starts[row + r] + sum_i a[r, i] * w[o, i]` for TILE_ROWS rows and PANEL outputs, in int32.

Args: a (int8 array, the values of a row contiguous), the index of the first value, and the values from one row to the
next; starts (int32 array: `get_bias` times the sum of each row of a) and the index of the first; w (uint8 array,
q + 128: FOUR values of each of PANEL outputs, and so on), the index of the first value, and the row's length in FOURs,
at least 1; out (int32 array of one dimension, row after row).
"""

multiply_line = _make_product(1)
"""The same for a single row, for decoding: a tile would read rows that are not there."""


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
        first_a = point(context, builder, signature.args[0], a, a_at)
        first_b = point(context, builder, signature.args[3], b, b_at)
        shape = get_tile()
        block = shape.lanes // 2, shape.rows, 2

        def emit(row: int, column: int) -> list[Any]:
            left = builder.gep(first_a, [builder.mul(stride, constant(row))])
            return _emit_wide(builder, left, stride, builder.gep(first_b, [constant(column)]), line, count, block)

        _emit_tile(
            builder, point(context, builder, signature.args[7], out, constant(0)), TILE_ROWS, WIDE_PANEL, block, emit
        )
        return context.get_dummy_value()

    return types.void(a, types.int64, types.int64, b, types.int64, types.int64, types.int64, out), generate


@intrinsic  # type: ignore[untyped-decorator]
def repeat_products(_: Any, values: Any, count: Any) -> tuple[Any, Any]:
    """Multiply and add a block of registers `count` times, without a load or a store in between; return a sum.

    The processor's peak, where it has an instruction for it; of any other product LLVM would hoist a part.

    Args:
        _: Numba's typing context.
        values: int32 array of a register's lanes at least.
        count: at least 1; `get_tile` says how many products each time is.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile = get_tile()
        kind = ir.VectorType(INT32, tile.lanes)
        loaded = load(builder, point(context, builder, signature.args[0], arguments[0], constant(0)), kind, 4)

        def step(_: Any, totals: list[Any]) -> list[Any]:
            return [_multiply_fours(builder, tile, total, loaded, loaded) for total in totals]

        totals = emit_loop(builder, arguments[1], [fill(kind, 0)] * (tile.rows * tile.vectors), step)
        total = totals[0]
        for other in totals[1:]:
            total = builder.add(total, other)
        return call(builder, f"llvm.vector.reduce.add.v{tile.lanes}i32", INT32, total)

    return types.int32(values, types.int64), generate
