"""The printed kernels as Coq terms: what stands in the generated module, read back line by line.

The source of a function of scalars or tensors is parsed again, so that a certificate is about the
text that ships and not about the objects that it was printed from.
"""

import ast
from collections.abc import Mapping
from fractions import Fraction

from deltabias.codegen.coq.printing import coq_name
from deltabias.errors import CertifyError

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_METHODS = {
    "sqrt": "sqrt {}",
    "reciprocal": "/ {}",
    "exp": "exp {}",
    "log": "ln {}",
    "log1p": "ln (1 + {})",
    "atan": "atan {}",
    "abs": "Rabs {}",
}
_MATH = {"sqrt": "sqrt {}", "exp": "exp {}", "log": "ln {}", "log1p": "ln (1 + {})"}


def functions_of(source: str) -> Mapping[str, ast.FunctionDef]:
    """The functions of a module by name."""
    return {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}


def transcribed(function: ast.FunctionDef, name: str) -> tuple[str, ...]:
    """Coq definitions of what a straight-line function returns: one a result, ``name``, or
    ``name_0``, ``name_1`` … for a tuple. Arguments and lines keep their names.

    >>> source = "def f(v, *, eps):\\n    _y = v + eps\\n    return (_y * _y).reciprocal()\\n"
    >>> print(*transcribed(functions_of(source)["f"], "program"))
    Definition program (v eps : R) : R :=
      let t_y := (v + eps) in
      (/ (t_y * t_y)).

    Raises
    ------
    CertifyError
        for a statement, an operation or a call without a meaning over the reals.
    """
    arguments = [*function.args.args, *function.args.kwonlyargs]
    *lines, last = [s for s in function.body if not _is_docstring(s)]
    chain = []
    for line in lines:
        if not (isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)):
            raise CertifyError(f"{function.name}: {ast.unparse(line)!r} is no plain assignment.")
        chain.append(f"  let {_local(line.targets[0].id)} := {_term(line.value)} in")
    if not isinstance(last, ast.Return) or last.value is None:
        raise CertifyError(f"{function.name} does not end with a result.")
    results = last.value.elts if isinstance(last.value, ast.Tuple) else [last.value]
    names = [name] if results == [last.value] else [f"{name}_{i}" for i in range(len(results))]
    bound = " ".join(_local(a.arg) for a in arguments)
    return tuple(
        "\n".join([f"Definition {n} ({bound} : R) : R :=", *chain, f"  {_term(r)}."])
        for n, r in zip(names, results, strict=True)
    )


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _local(name: str) -> str:
    return f"t{name}" if name.startswith("_") else coq_name(name)


def _term(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return _local(name)
        case ast.Constant(value=int() | float() as value):
            return _number(Fraction(value))  # a float in the text is dyadic, so exact
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(- {_term(operand)})"
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int() as n)) if n >= 0:
            return f"({_term(base)} ^ {n})"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return f"({_term(left)} {_OPERATORS[type(operator)]} {_term(right)})"
        case ast.Call(func=ast.Name(id="_root"), args=[body, ast.Constant(value=int() as n)]):
            return f"(root {n} {_term(body)})"
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="torch"), attr="full_like"), args=[_, x]
        ):
            return _term(x)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr=f), args=[x]) if (
            f in _MATH
        ):
            return f"({_MATH[f].format(_term(x))})"
        case ast.Call(func=ast.Attribute(value=body, attr=f), args=[]) if f in _METHODS:
            return f"({_METHODS[f].format(_term(body))})"
    raise CertifyError(
        f"{ast.unparse(node)!r} in a printed program has no meaning over the reals in the "
        f"certificates' table; known are + - * / **, _root and {', '.join(_METHODS)}."
    )


def _number(value: Fraction) -> str:
    text = str(abs(value.numerator))
    if value.denominator != 1:
        text = f"({text} / {value.denominator})"
    return f"(- {text})" if value < 0 else text
