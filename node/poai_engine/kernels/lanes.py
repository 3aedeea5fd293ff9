"""Steps of the pass as LLVM vector instructions, none of them particular to a processor.

LLVM leaves loops of 16 or 48 elements scalar, and Numba widens what it adds to 64 bits; so the steps that touch every
element of a layer are written out here, 16 lanes of int32 at a time (LLVM splits them where registers are narrower).
Each is a function that compiled code calls; `kernels` says what they are for.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from poai_spec.model.fixed_point import TRANSFORM_SIZE

LANES = 16
"""int32 values that these steps take at a time; a divisor of `TRANSFORM_SIZE`."""

INT8, INT16, INT32, INT64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOAT64 = ir.DoubleType()
INT32S = ir.VectorType(INT32, LANES)


def constant(value: int) -> ir.Constant:
    """Return an index."""
    return ir.Constant(INT64, value)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector that holds a value in every lane."""
    none = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def fill(kind: Any, value: float) -> ir.Constant:
    """Return a vector constant."""
    return ir.Constant(kind, [value] * kind.count)


def load(builder: Any, pointer: Any, kind: Any, align: int) -> Any:
    """Return what a pointer leads to, as another type."""
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = align
    return value


def store(builder: Any, value: Any, pointer: Any, align: int) -> None:
    """Write a vector to where a pointer leads."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = align


def call(builder: Any, name: str, kind: Any, *values: Any) -> Any:
    """Call an intrinsic function of LLVM."""
    form = ir.FunctionType(kind, [value.type for value in values])
    function = builder.module.globals.get(name) or ir.Function(builder.module, form, name)
    return builder.call(function, values)


def point(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Return the pointer to an element of an array of one dimension."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def emit_loop(
    builder: Any, count: Any, starts: Sequence[Any], step: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """Emit a loop that replaces values by `step(n, values)`, n = 0 .. count - 1; count >= 1; return the last ones."""
    before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    n = builder.phi(INT64)
    n.add_incoming(constant(0), before)
    values = [builder.phi(start.type) for start in starts]
    following = step(n, values)
    advanced = builder.add(n, constant(1))
    n.add_incoming(advanced, loop)
    for start, old, new in zip(starts, values, following, strict=True):
        old.add_incoming(start, before)
        old.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", advanced, count), loop, after)
    builder.position_at_end(after)
    return following


def _choose(builder: Any, relation: str, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(relation, a, b), a, b)


def _mix(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return the Walsh-Hadamard transform of the lanes of some vectors, whose number is a power of two."""
    none = ir.Constant(INT32S, ir.Undefined)
    distance = 1
    while distance < LANES:
        order = ir.Constant(INT32S, [lane ^ distance for lane in range(LANES)])
        is_upper = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [bool(lane & distance) for lane in range(LANES)])
        mixed = []
        for v in vectors:
            other = builder.shuffle_vector(v, none, order)
            mixed.append(builder.select(is_upper, builder.sub(other, v), builder.add(v, other)))
        vectors, distance = mixed, 2 * distance
    distance = 1
    while distance < len(vectors):
        mixed = list(vectors)
        for i in range(len(vectors)):
            if not i & distance:
                mixed[i] = builder.add(vectors[i], vectors[i + distance])
                mixed[i + distance] = builder.sub(vectors[i], vectors[i + distance])
        vectors, distance = mixed, 2 * distance
    return vectors


@intrinsic  # type: ignore[untyped-decorator]
def measure_row(_: Any, x: Any, x_at: Any, count: Any) -> tuple[Any, Any]:
    """Return the largest magnitude of `count` int32 values, a multiple of LANES and at least one, as int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = point(context, builder, signature.args[0], arguments[0], arguments[1])

        def step(n: Any, largest: list[Any]) -> list[Any]:
            v = load(builder, builder.gep(first, [builder.mul(n, constant(LANES))]), INT32S, 4)
            magnitude = builder.select(builder.icmp_signed("<", v, fill(INT32S, 0)), builder.neg(v), v)
            return [builder.select(builder.icmp_unsigned(">", magnitude, largest[0]), magnitude, largest[0])]

        (lanes,) = emit_loop(builder, builder.sdiv(arguments[2], constant(LANES)), [fill(INT32S, 0)], step)
        return builder.zext(call(builder, f"llvm.vector.reduce.umax.v{LANES}i32", INT32, lanes), INT64)

    return types.int64(x, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def transform_row(_: Any, x: Any, x_at: Any, count: Any, e: Any, z: Any) -> tuple[Any, Any]:
    """Set z to the transform of `round_shift(x, e)` and return its largest magnitude.

    Args:
        _: Numba's typing context.
        x: int32 array.
        x_at: index of the first of the row's values.
        count: values of the row, a multiple of `TRANSFORM_SIZE`, at least one.
        e: right shift, 0 .. 18, after which 15 bits and a sign are left: z fits int32.
        z: int32 array, receives the row from its begin.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_at, count, e, z = arguments
        first_x = point(context, builder, signature.args[0], x, x_at)
        first_z = point(context, builder, signature.args[4], z, constant(0))
        # round_shift(x, e) = ((x >> (e - 1)) + 1) >> 1 for e > 0: no sum leaves int32.
        e = builder.trunc(e, INT32)
        one = builder.zext(builder.icmp_signed(">", e, ir.Constant(INT32, 0)), INT32)
        right, one = splat(builder, builder.sub(e, one), LANES), splat(builder, one, LANES)

        def step(n: Any, largest: list[Any]) -> list[Any]:
            at, lines = builder.mul(n, constant(TRANSFORM_SIZE)), range(0, TRANSFORM_SIZE, LANES)
            vectors = []
            for line in lines:
                v = load(builder, builder.gep(first_x, [builder.add(at, constant(line))]), INT32S, 4)
                vectors.append(builder.ashr(builder.add(builder.ashr(v, right), one), one))
            (most,) = largest
            for line, v in zip(lines, _mix(builder, vectors), strict=True):
                store(builder, v, builder.gep(first_z, [builder.add(at, constant(line))]), 4)
                most = _choose(builder, ">", most, _choose(builder, ">", v, builder.neg(v)))
            return [most]

        (lanes,) = emit_loop(builder, builder.sdiv(count, constant(TRANSFORM_SIZE)), [fill(INT32S, 0)], step)
        return builder.zext(call(builder, f"llvm.vector.reduce.smax.v{LANES}i32", INT32, lanes), INT64)

    return types.int64(x, types.int64, types.int64, types.int64, z), generate


@intrinsic  # type: ignore[untyped-decorator]
def round_row(_: Any, z: Any, count: Any, e: Any, f: Any, a: Any, a_at: Any) -> tuple[Any, Any]:
    """Set a to `div_round(4 * z, f << e)` and return its sum.

    The quotient is `floor(u / f)` with `u = (8 z + (f << e)) >> (e + 1)`; as `u + 128 f` is in 0 .. 256 f, it is
    `((u + 128 f) * (65536 // f + 1) >> 16) - 128`.

    Args:
        _: Numba's typing context.
        z: int32 array, magnitudes up to `127 * f * 2^e / 4`.
        count: values of the row, a multiple of LANES, at least one.
        e: 0 .. 13.
        f: 4 .. 7.
        a: int8 array.
        a_at: index of the first value that is written.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        z, count, e, f, a, a_at = arguments
        first_z = point(context, builder, signature.args[0], z, constant(0))
        first_a = point(context, builder, signature.args[4], a, a_at)
        e, f = builder.trunc(e, INT32), builder.trunc(f, INT32)
        number = ir.Constant(INT32, 65536)
        reciprocal = builder.add(builder.sdiv(number, f), ir.Constant(INT32, 1))
        half, right = builder.shl(f, e), builder.add(e, ir.Constant(INT32, 1))
        half, right, offset, reciprocal = (
            splat(builder, v, LANES) for v in (half, right, builder.mul(f, ir.Constant(INT32, 128)), reciprocal)
        )

        def step(n: Any, sums: list[Any]) -> list[Any]:
            at = builder.mul(n, constant(LANES))
            v = load(builder, builder.gep(first_z, [at]), INT32S, 4)
            u = builder.ashr(builder.add(builder.shl(v, fill(INT32S, 3)), half), right)
            quotient = builder.lshr(builder.mul(builder.add(u, offset), reciprocal), fill(INT32S, 16))
            rounded = builder.sub(quotient, fill(INT32S, 128))
            store(builder, builder.trunc(rounded, ir.VectorType(INT8, LANES)), builder.gep(first_a, [at]), 1)
            return [builder.add(sums[0], rounded)]

        (lanes,) = emit_loop(builder, builder.sdiv(count, constant(LANES)), [fill(INT32S, 0)], step)
        return builder.sext(call(builder, f"llvm.vector.reduce.add.v{LANES}i32", INT32, lanes), INT64)

    return types.int64(z, types.int64, types.int64, types.int64, a, types.int64), generate


def _make_scaling(lanes_at_once: int, *, add: bool) -> Any:
    """Return what `scale_lanes` and `add_lanes` do."""

    def declare(_: Any, sums: Any, at: Any, factors: Any, factors_at: Any, factor: Any, limit: Any, count: Any,
                out: Any, out_at: Any) -> tuple[Any, Any]:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            sums, at, factors, factors_at, factor, limit, count, out, out_at = arguments
            first_sum = point(context, builder, signature.args[0], sums, at)
            first_factor = point(context, builder, signature.args[2], factors, factors_at)
            first_out = point(context, builder, signature.args[7], out, out_at)
            narrow, wide = ir.VectorType(INT32, lanes_at_once), ir.VectorType(FLOAT64, lanes_at_once)
            common = splat(builder, factor, lanes_at_once)
            high = splat(builder, builder.fsub(limit, ir.Constant(FLOAT64, 1.0)), lanes_at_once)
            low = splat(builder, builder.fsub(ir.Constant(FLOAT64, 0.0), limit), lanes_at_once)

            def clamp(y: Any, low: Any, high: Any) -> Any:
                y = builder.select(builder.fcmp_ordered(">", y, low), y, low)
                return builder.select(builder.fcmp_ordered("<", y, high), y, high)

            def step(n: Any, _: list[Any]) -> list[Any]:
                place = builder.mul(n, constant(lanes_at_once))
                y = builder.sitofp(load(builder, builder.gep(first_sum, [place]), narrow, 4), wide)
                y = builder.fmul(y, load(builder, builder.gep(first_factor, [place]), wide, 8))
                y = builder.fadd(builder.fmul(y, common), fill(wide, 0.5))
                y = clamp(call(builder, f"llvm.floor.v{lanes_at_once}f64", wide, y), low, high)
                target = builder.gep(first_out, [place])
                if add:
                    y = builder.fadd(y, builder.sitofp(load(builder, target, narrow, 4), wide))
                    y = clamp(y, fill(wide, -(2.0**31)), fill(wide, 2.0**31 - 1))
                store(builder, builder.fptosi(y, narrow), target, 4)
                return []

            emit_loop(builder, builder.sdiv(count, constant(lanes_at_once)), [], step)
            return context.get_dummy_value()

        form = types.void(sums, types.int64, factors, types.int64, types.float64, types.float64, types.int64, out,
                          types.int64)  # fmt: skip
        return form, generate

    return intrinsic(declare)


scale_lanes = _make_scaling(8, add=False)
"""Set out to `clamp(round_shift(sums * factors * factor))`, in float64 (`kernels.scale_row` says why that is exact).

Args: sums (int32 array) and the index of the first; factors (float64 array) and the index of the first; factor, a
float64 common to all; limit, the power of two that the result stays below; count, a multiple of 8, at least one; out
(int32 array) and the index of the first.
"""

add_lanes = _make_scaling(8, add=True)
"""The same, added to what is in out and saturated to int32."""
