"""Triton source of a straight-line program: elementwise blocks, and its scalars in doubles.

Every operation of arithmetic is one IEEE operation, rounded once, in the order of the program:
products and sums are fused exactly where torch's own ``lerp_``, ``addcmul_`` and
``add_(alpha=)`` fuse them. So the exact mode has one right answer, that of the eager program.
Functions (roots of other degrees, exp, log, tanh, erf) are taken in doubles and rounded once, in
either mode: half a unit in the last place, where torch's own are up to two units off.
"""

import sympy as sp

from deltabias.codegen.eager import scalar_expression
from deltabias.codegen.ssa import Assign, Mutate, Number, Operand, Program
from deltabias.errors import GenerateError

_ALIASES = ("copy", "clone", "to_dtype_of")  # blocks are values, all of them fp32
_INFIX = {"add": "+", "sub": "-", "mul": "*"}
_CALLS = {
    "div": "_divide({0}, {1}, EXACT)",
    "reciprocal": "_divide(1.0, {0}, EXACT)",
    "sqrt": "_sqrt({0}, EXACT)",
    "clamp_min": "_larger({0}, {1})",
    "clamp_max": "_smaller({0}, {1})",
    "maximum": "_larger({0}, {1})",
    "minimum": "_smaller({0}, {1})",
    "neg": "-{0}",
    "abs": "tl.abs({0})",
    "sign": "_sign({0})",
    "root": "_root({0}, {1})",
    "exp": "_exp({0})",
    "log": "_log({0})",
    "log1p": "_log1p({0})",
    "tanh": "_tanh({0})",
    "erf": "_erf({0})",
}
# target, operands, value -> the new target
_UPDATES = {
    ("lerp", ""): "_lerp({0}, {1}, {2})",
    ("mul", ""): "{0} * {1}",
    ("copy", ""): "{1}",
    ("add", ""): "{0} + {1}",
    ("add", "alpha"): "tl.fma({value}, {1}, {0})",
    ("addcmul", "value"): "tl.fma({value} * {1}, {2}, {0})",
    ("addcdiv", "value"): "{0} + _divide({value} * {1}, {2}, EXACT)",
}
_DOUBLE_CALLS = {"clamp_min": "tl.maximum", "clamp_max": "tl.minimum", "sqrt": "tl.sqrt"}
_DOUBLE_CALLS |= {"abs": "tl.abs", "exp": "tl.exp", "log": "tl.log", "erf": "tl.erf"}


def display(operand: Operand) -> str:
    """A name or a number as it is printed; temporaries as in the eager module."""
    if isinstance(operand, Number):
        # a kernel knows no global names: π and e are spelled out
        text = str(operand) if operand.value.is_Rational else repr(float(operand.value))
        return f"({text})" if " " in text else text
    return f"_x{operand[1:]}" if operand.startswith("_") else operand


def computed_scalars(program: Program) -> list[Assign]:
    """The statements on scalars alone: worked out once a step, not once an element."""
    return [s for s in program.statements if isinstance(s, Assign) and s.scalar]


def read_scalars(program: Program) -> tuple[str, ...]:
    """Scalars that statements on tensors read, in the order of their first use."""
    scalars = {*program.scalars, *(s.target for s in computed_scalars(program))}
    reads: dict[str, None] = {}
    for s in program.statements:
        if isinstance(s, Assign) and s.scalar:
            continue
        operands = [*s.operands, s.value] if isinstance(s, Mutate) else s.operands
        reads |= {o: None for o in operands if isinstance(o, str) and o in scalars}
    return tuple(reads)


def written_tensors(program: Program) -> tuple[str, ...]:
    """Arguments that the program updates in place, in the order of its arguments."""
    targets = {s.target for s in program.statements if isinstance(s, Mutate)}
    return tuple(t for t in program.tensors if t in targets)


def block_lines(program: Program) -> list[str]:
    """The statements on tensors as assignments of fp32 blocks."""
    lines = []
    for s in program.statements:
        if isinstance(s, Mutate):
            lines.append(f"{s.target} = {_update(s)}")
        elif not s.scalar:
            if s.note:
                lines.append(f"# {s.note}")
            lines.append(f"{display(s.target)} = {_block(s)}")
    return lines


def _block(s: Assign) -> str:
    shown = [display(o) for o in s.operands]
    if s.operation in _ALIASES:
        return shown[0]
    if s.operation in _INFIX:
        return f" {_INFIX[s.operation]} ".join(shown)
    if s.operation not in _CALLS:
        raise GenerateError(
            f"{s.operation} has no Triton operation in the table; known are "
            f"{', '.join(sorted({*_INFIX, *_CALLS}))}."
        )
    return _CALLS[s.operation].format(*shown)


def _update(s: Mutate) -> str:
    kind = (s.operation, s.keyword)
    if kind not in _UPDATES:
        known = ", ".join(sorted({f"{o}_" for o, _ in _UPDATES}))
        raise GenerateError(f"{s.operation}_ has no Triton update in the table; known are {known}.")
    shown = [s.target, *map(display, s.operands)]
    return _UPDATES[kind].format(*shown, value="" if s.value is None else display(s.value))


def python_lines(statements: list[Assign]) -> list[str]:
    """Scalar statements as Python arithmetic."""
    return [f"{display(s.target)} = {scalar_expression(s, display)}" for s in statements]


def double_lines(statements: list[Assign]) -> list[str]:
    """Scalar statements as Triton arithmetic on fp64 scalars."""
    return [f"{display(s.target)} = {_double(s)}" for s in statements]


def _double(s: Assign) -> str:
    shown = [display(o) for o in s.operands]
    if all(isinstance(o, Number) for o in s.operands) and s.operation in ("pow", *_DOUBLE_CALLS):
        return _worked_out(s)  # Triton wants a value to call a function of
    if s.operation == "pow":
        return _double_power(shown[0], s.operands[1])
    if s.operation in _DOUBLE_CALLS:
        first, *rest = shown
        # a literal first argument has no type of its own
        if rest and isinstance(s.operands[0], Number):
            first, rest = rest[0], [first]
        return f"{_DOUBLE_CALLS[s.operation]}({', '.join([first, *rest])})"
    if s.operation in (*_INFIX, "div", "neg", "copy"):
        return scalar_expression(s, display)
    raise GenerateError(f"{s.operation} of scalars has no Triton operation in the table.")


def _worked_out(s: Assign) -> str:
    """An operation on literals alone, as a literal."""
    values = [o.value for o in s.operands if isinstance(o, Number)]
    call = {"pow": sp.Pow, "sqrt": sp.sqrt, "abs": sp.Abs, "clamp_min": sp.Max, "clamp_max": sp.Min}
    return repr(float(call.get(s.operation, getattr(sp, s.operation, None))(*values)))


def _double_power(base: str, exponent: Operand) -> str:
    if isinstance(exponent, Number) and exponent.value.is_Integer and 0 < exponent.value < 9:
        return " * ".join([base] * int(exponent.value))
    return f"_power({base}, {display(exponent)})"
