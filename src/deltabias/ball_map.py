"""A SymPy expression of one statistic as a map on balls, for rigorous enclosures.

The expression becomes a function on complex balls (holomorphic where it says so), one on power
series (for derivatives), and a bound |f(v)| <= C(v^-p + v^r) that is *proved* from its parts. The
truth itself imports no symbolic mathematics; what judges a formula is handed the map through here.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import sympy as sp

from deltabias.derivation import derive
from deltabias.errors import DeltabiasError
from deltabias.parser import clip, parse_expression
from deltabias.rule import UpdateRule
from deltabias.safe_form import numerator_of
from deltabias.truth import Growth, HolomorphicMap


class BallMapError(DeltabiasError):
    """An expression is no map on balls, or has no bound that could be proved."""


def ball_map(expression: sp.Expr | str, values: Mapping[str, Any] | None = None) -> HolomorphicMap:
    """The map of an expression in one positive statistic, with its bound.

    Parameters
    ----------
    expression : SymPy expression, or a string that the parser accepts
    values : numbers for all other names; decimal strings are read exactly

    Raises
    ------
    BallMapError
        for more than one free name, a function without holomorphic extension or series, or a
        map that is not bounded by powers (an exponential that grows, a pole away from zero).

    Examples
    --------
    >>> from deltabias.truth import Gamma, enclose
    >>> f = ball_map("1/(sqrt(v) + eps)", {"eps": "0"})
    >>> print(enclose(f, Gamma(4, "1/4")).str(15, radius=False))
    1.10778365681595
    """
    if isinstance(expression, str):
        expression = parse_expression(expression, lambda name: sp.Symbol(name, positive=True))
    numbers = {name: sp.Rational(str(value)) for name, value in (values or {}).items()}
    fixed = {s: numbers[s.name] for s in expression.free_symbols if s.name in numbers}
    expression = expression.subs(fixed)
    names = sorted(s.name for s in expression.free_symbols)
    if len(names) != 1:
        raise BallMapError(
            f"{expression} has the names {', '.join(names) or 'none'}; leave the statistic alone "
            "free and give values for the others."
        )
    growth = _growth(expression)
    pole, power, constant = growth.bound
    return HolomorphicMap(
        lambda v, analytic: _on_balls(expression, v, analytic),
        pole_order=pole,
        growth=power,
        constant=constant,
        series=lambda s: _on_series(expression, s),
    )


def preconditioner_map(rule: UpdateRule, values: Mapping[str, Any] | None = None) -> HolomorphicMap:
    """The map of a rule's preconditioner, its update over the numerator; clips are left out.

    >>> from deltabias.rules import CATALOGUE
    >>> preconditioner_map(CATALOGUE["adamw"], {"eps": "1e-8"}).constant
    Fraction(100000000, 1)
    """
    update = rule.update.args[0] if isinstance(rule.update, clip) else rule.update
    numerator = numerator_of(derive(rule))
    factor = update if numerator is None else update.subs(numerator, 1)
    given = {h.name: h.default for h in rule.hypers} | dict(values or {})
    return ball_map(factor, given)


# -- on complex balls ---------------------------------------------------------------------------


def _ball(number: sp.Rational):
    import flint  # an extra: only those who enclose need it

    return flint.arb(flint.fmpq(int(number.p), int(number.q)))


def _on_balls(node: sp.Expr, v, analytic: bool):
    """The value on a complex ball; not finite where `analytic` is asked for and not true."""
    if node.is_Rational:
        import flint

        return flint.acb(_ball(node))
    if node.is_Symbol:
        return v
    parts = [_on_balls(a, v, analytic) for a in node.args]
    if node.is_Pow:
        exponent = node.exp
        if exponent.is_Integer:
            return parts[0] ** int(exponent)
        if exponent == sp.Rational(1, 2):
            return parts[0].sqrt(analytic=analytic)
        return parts[0].pow(_ball(exponent), analytic=analytic)
    if isinstance(node, sp.log):
        return parts[0].log(analytic=analytic)
    if isinstance(node, sp.Max):
        return _folded(parts, lambda a, b: a.real_max(b, analytic=analytic))
    return _arithmetic(node, parts) if node.is_Add or node.is_Mul else _entire(node, parts[0])


def _entire(node: sp.Expr, z):
    """exp and tanh are holomorphic near the real line; at a pole of tanh the ball is not finite."""
    if isinstance(node, sp.exp):
        return z.exp()
    if isinstance(node, sp.tanh):
        return z.tanh()
    raise _unknown(node)


def _arithmetic(node: sp.Expr, parts: list):
    fold = (lambda a, b: a + b) if node.is_Add else (lambda a, b: a * b)
    return _folded(parts, fold)


def _folded(parts: list, operation: Callable):
    total = parts[0]
    for part in parts[1:]:
        total = operation(total, part)
    return total


# -- on power series ----------------------------------------------------------------------------


def _on_series(node: sp.Expr, s):
    """The composition with a power series in balls: its coefficients enclose derivatives."""
    import flint

    if node.is_Rational:
        return flint.arb_series([_ball(node)], prec=s.prec)
    if node.is_Symbol:
        return s
    parts = [_on_series(a, s) for a in node.args]
    if node.is_Pow:
        exponent = node.exp
        if exponent.is_Integer:
            whole = _folded([parts[0]] * abs(int(exponent)), lambda a, b: a * b)
            return whole if exponent > 0 else 1 / whole
        return parts[0] ** flint.fmpq(int(exponent.p), int(exponent.q))
    if isinstance(node, sp.exp):
        return parts[0].exp()
    if isinstance(node, sp.log):
        return parts[0].log()
    if isinstance(node, sp.tanh):
        twice = (parts[0] + parts[0]).exp()
        return (twice - 1) / (twice + 1)
    if isinstance(node, sp.Max):
        return _folded(parts, _larger_series)
    if node.is_Add or node.is_Mul:
        return _arithmetic(node, parts)
    raise _unknown(node)


def _larger_series(a, b):
    """The larger of two where that is certain; nothing is known at a kink."""
    import flint

    if a[0] > b[0]:
        return a
    return b if b[0] > a[0] else flint.arb_series([flint.arb("nan")] * a.prec, prec=a.prec)


# -- the bound ----------------------------------------------------------------------------------


def _growth(node: sp.Expr) -> Growth:
    """Power bounds on the positive half line; see `deltabias.truth.Growth`."""
    if node.is_Rational:
        return Growth.constant(Fraction(int(node.p), int(node.q)))
    if node.is_Symbol:
        return Growth.variable()
    if node.is_Pow and not node.exp.is_Rational:
        raise _unknown(node)
    parts = [_growth(a) for a in node.args]
    if node.is_Add:
        return Growth.sum(parts)
    if node.is_Mul:
        return _folded(parts, lambda a, b: a * b)
    found = None
    if node.is_Pow:
        found = parts[0].power(Fraction(int(node.exp.p), int(node.exp.q)))
    elif isinstance(node, sp.exp):
        found = parts[0].decaying()
    elif isinstance(node, sp.log) and node.args[0].is_Add and 1 in node.args[0].args:
        found = _growth(node.args[0] - 1).below_itself()
    elif isinstance(node, sp.tanh):
        found = parts[0].below_itself()
    elif isinstance(node, sp.Max):
        found = _folded(parts, lambda a, b: a and a.larger(b))
    else:
        raise _unknown(node)
    if found is None:
        raise BallMapError(
            f"{node} may vanish, change sign or grow faster than a power on the positive half "
            "line: no bound of its tails is proved. Rewrite it with positive parts, or pass a "
            "HolomorphicMap with a bound of your own."
        )
    return found


def _unknown(node: sp.Expr) -> BallMapError:
    return BallMapError(
        f"{node} ({type(node).__name__}) has no map on balls; known are sums, products, rational "
        "powers, exp, log(1 + …), tanh and max."
    )
