"""The functions that generated Triton modules begin with, as text."""

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
    """What is stored of a share: the nearest code, ties up, cut at the range.

    The sums are those of the compiled step, and so are the codes.
    """
    if kind == tl.int8:
        below = _larger(127 - value * (127 / full), 0.0)
        return tl.floor(_larger(383.5 - below, 129.0)) - 256
    elif kind == tl.uint8:
        below = _larger(255 - value * (255 / full), 0.0)
        return tl.floor(_larger(255.5 - below, 0.0))
    else:
        return value


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

FUNCTIONS = {
    "_sign": """
@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, 0.0) - tl.where(x < 0, 1.0, 0.0)

""",
    "_root": '''
@triton.jit
def _root(x, degree: tl.constexpr):
    """x**(1/degree) in doubles, rounded once; 0 of 0, NaN of what is negative."""
    return tl.exp(tl.log(x.to(tl.float64)) / degree).to(tl.float32)

''',
    "_exp": '''
@triton.jit
def _exp(x):
    """In doubles, rounded once."""
    return tl.exp(x.to(tl.float64)).to(tl.float32)

''',
    "_log": '''
@triton.jit
def _log(x):
    """In doubles, rounded once: the fast one is 2^-22 off next to 1, where the logarithm is 0."""
    return tl.log(x.to(tl.float64)).to(tl.float32)

''',
    "_log1p": '''
@triton.jit
def _log1p(x):
    """In doubles, rounded once. Below 1 the rounding of 1 + x is taken back (Kahan)."""
    wide = x.to(tl.float64)
    shifted = 1 + wide
    back = shifted - 1
    value = tl.log(shifted)
    mended = tl.where(back == 0, wide, value * (wide / tl.where(back == 0, 1.0, back)))
    return tl.where(wide < 1, mended, value).to(tl.float32)

''',
    "_tanh": '''
@triton.jit
def _tanh(x):
    """In doubles, rounded once; a series, good to 1e-19, where the quotient cancels."""
    size = tl.abs(x.to(tl.float64))
    decay = tl.exp(-2 * size)
    square = size * size
    small = size * (1 - square * (1 / 3 - square * (2 / 15)))
    value = tl.where(size < 1e-3, small, (1 - decay) / (1 + decay))
    return tl.where(x < 0, -value, value).to(tl.float32)

''',
    "_erf": '''
@triton.jit
def _erf(x):
    """In doubles, rounded once."""
    return tl.erf(x.to(tl.float64)).to(tl.float32)

''',
}
"""Functions beyond arithmetic, by name; a module has those that it calls."""
