"""The functions that every generated Triton module begins with, as text."""

HELPERS = '''
@triton.jit
def _divide(top, bottom, EXACT: tl.constexpr):
    """One rounding, or two units in the last place and no subnormal numbers."""
    if EXACT:
        return tl.div_rn(top, bottom)
    else:
        return top / bottom


@triton.jit
def _sqrt(x, EXACT: tl.constexpr):
    if EXACT:
        return tl.sqrt_rn(x)
    else:
        return tl.sqrt(x)


@triton.jit
def _larger(x, bound):
    """NaN stays NaN, as torch's clamp."""
    return tl.maximum(x, bound, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _smaller(x, bound):
    return tl.minimum(x, bound, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _lerp(start, end, weight):
    """torch's: from the end that is nearer, product and sum with one rounding."""
    near = weight < 0.5
    base = tl.where(near, start, end)
    return tl.fma(tl.where(near, weight, weight - 1), end - start, base)


@triton.jit
def _power(base, exponent):
    """base**exponent in doubles, for base >= 0; 0**0 is 1, as in Python."""
    safe = tl.where(base > 0, base, 1.0)
    value = tl.where(base > 0, tl.exp(exponent * tl.log(safe)), 0.0)
    return tl.where(exponent == 0, 1.0, value)


@triton.jit
def _pointer(at, KIND: tl.constexpr, RAGGED: tl.constexpr):
    """A tensor's address out of the table; sixteen bytes at a time where it is aligned."""
    pointer = tl.load(at).to(tl.pointer_type(KIND))
    return pointer if RAGGED else tl.multiple_of(pointer, 16)


@triton.jit
def _read(pointer, offsets, within, RAGGED: tl.constexpr):
    """A block in fp32; elements beyond the end are 0."""
    if RAGGED:
        return tl.load(pointer + offsets, mask=within, other=0.0).to(tl.float32)
    else:
        return tl.load(pointer + offsets).to(tl.float32)


@triton.jit
def _write(pointer, offsets, within, value, KIND: tl.constexpr, RAGGED: tl.constexpr):
    if RAGGED:
        tl.store(pointer + offsets, value.to(KIND), mask=within)
    else:
        tl.store(pointer + offsets, value.to(KIND))


@triton.jit
def _read_share(
    pointer, offsets, within, kind: tl.constexpr, full: tl.constexpr, RAGGED: tl.constexpr
):
    """A share in fp32: a number, or its 8-bit code in steps of full/127 (full/255 unsigned)."""
    value = _read(pointer, offsets, within, RAGGED)
    if kind == tl.int8:
        return value * (full / 127)
    elif kind == tl.uint8:
        return value * (full / 255)
    else:
        return value


@triton.jit
def _coded(value, kind: tl.constexpr, full: tl.constexpr):
    """What is stored of a share: the nearest code, ties to even, cut at the range."""
    if kind == tl.int8:
        return _nearest(_smaller(_larger(value * (127 / full), -127.0), 127.0))
    elif kind == tl.uint8:
        return _nearest(_smaller(_larger(value * (255 / full), 0.0), 255.0))
    else:
        return value


@triton.jit
def _nearest(x):
    """The nearest whole number: beyond 1.5 · 2^23 fp32 has no fractions left."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _dithered(x, seed, draw, tensor, offsets):
    """x or its neighbor in bf16, up with the probability that makes the mean right.

    Philox, keyed by the seed and counted by element, tensor and step: a step can be repeated.
    """
    low = offsets.to(tl.uint32)
    zero = low * 0
    high = (offsets >> 32).to(tl.uint32)
    bits, _, _, _ = tl.philox(seed, low, high, zero + tensor.to(tl.uint32), zero + draw, 7)
    number = x.to(tl.int32, bitcast=True)
    finite = (number & 0x7F800000) != 0x7F800000
    moved = (number + (bits & 0xFFFF).to(tl.int32)) & -65536
    return tl.where(finite, moved, number).to(tl.float32, bitcast=True)
'''
