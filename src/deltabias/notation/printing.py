"""Expressions as LaTeX, two-dimensional Unicode or MathML, with the names of `names`."""

from collections.abc import Mapping, Sequence
from html import unescape
from xml.dom.minidom import Document

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.mathml import MathMLPresentationPrinter
from sympy.printing.pretty.pretty import PrettyPrinter
from sympy.printing.pretty.pretty_symbology import line_width, pretty_use_unicode
from sympy.printing.pretty.stringpict import prettyForm
from sympy.printing.str import StrPrinter

from deltabias.notation.names import Name, name_of

WIDEST = 76
"""Columns of a displayed equation, as drawn in Unicode, before it is broken."""

Names = Mapping[str, Name]


class _Latex(LatexPrinter):
    def __init__(self, names: Names) -> None:
        # a thin space: two words side by side would read as one
        super().__init__({"fold_frac_powers": True, "mul_symbol": r" \, "})
        self.names = names

    def _print_Symbol(self, expr, style="plain"):
        return self.names.get(expr.name, name_of(expr.name)).latex

    def parenthesize_super(self, s):
        return (
            rf"\left({s}\right)" if s.startswith(r"\mathrm{d}") else super().parenthesize_super(s)
        )

    def _print_Tuple(self, expr):
        return r",\quad ".join(map(self._print, expr))

    def _print_mixed(self, expr, exp=None):
        function, *directions = map(self._print, expr.args)
        return rf"{function}[{', '.join(directions)}]"

    def _print_Function(self, expr, exp=None):
        name, arguments = expr.func.__name__, ", ".join(map(self._print, expr.args))
        if len(name) == 1 or "_" in name:  # a map of our own: T(v), P_L(s_i)
            shown = name_of(name).latex
        else:
            return super()._print_Function(expr, exp)
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"{shown}{power}\left({arguments}\right)"


def latex(expression: sp.Basic, names: Names | None = None) -> str:
    r"""LaTeX for amsmath, MathJax and KaTeX alike, without delimiters.

    >>> from deltabias.notation.names import state_names
    >>> v = sp.Symbol("exp_avg_sq", positive=True)
    >>> print(latex(1 / (sp.sqrt(v) + sp.Symbol("eps")), state_names([("exp_avg_sq", True)])))
    \frac{1}{\varepsilon + \sqrt{\hat{v}}}
    """
    return _Latex(names or {}).doprint(expression)


def display(expression: sp.Basic, names: Names | None = None, widest: int = WIDEST) -> str:
    """LaTeX of a displayed equation; what is too wide is broken at the terms of its sums."""
    if columns(expression, names) <= widest:
        return latex(expression, names)
    left, right = _sides(expression)
    if isinstance(right, sp.Tuple):  # conditions are broken at their commas
        return _rows([latex(item, names) for item in right], "l")
    rows = [
        _sign(term, i, names) + _narrow(_absolute(term), names, widest)
        for i, term in enumerate(_terms(right))
    ]
    if len(rows) == 1:
        return rows[0] if left is None else f"{latex(left, names)} = {rows[0]}"
    lead = "" if left is None else f"{latex(left, names)} ={{}}"
    body = r" \\ ".join(f"& {row}" for row in rows)
    return rf"\begin{{aligned}} {lead}{body} \end{{aligned}}"


def _sides(expression: sp.Basic) -> tuple[sp.Basic | None, sp.Basic]:
    return expression.args if isinstance(expression, sp.Equality) else (None, expression)


def _terms(expression: sp.Basic) -> Sequence[sp.Basic]:
    return expression.as_ordered_terms() if isinstance(expression, sp.Add) else (expression,)


def _absolute(term: sp.Basic) -> sp.Basic:
    return -term if _is_negative(term) else term


def _is_negative(term: sp.Basic) -> bool:
    return isinstance(term, sp.Expr) and term.as_coeff_Mul()[0].is_negative is True


def _sign(term: sp.Basic, position: int, names: Names | None) -> str:
    return "- " if _is_negative(term) else "+ " if position else ""


def _narrow(term: sp.Basic, names: Names | None, widest: int) -> str:
    """A term; the numerator of a fraction that is too wide is put in several rows."""
    if columns(term, names) <= widest or not isinstance(term, sp.Expr):
        return latex(term, names)
    top, bottom = sp.fraction(term)
    if not isinstance(top, sp.Add) or bottom == 1:
        return latex(term, names)
    rows, row, used = [], "", 0
    for i, part in enumerate(top.as_ordered_terms()):
        wide = columns(part, names) + 3
        if row and used + wide > widest:
            rows, row, used = [*rows, row], "", 0
        row += f" {_sign(part, i, names)}{latex(_absolute(part), names)}"
        used += wide
    return rf"\frac{{{_rows([*rows, row], 'l')}}}{{{latex(bottom, names)}}}"


def _rows(rows: Sequence[str], align: str) -> str:
    body = r" \\ ".join(rows)
    return rf"\begin{{array}}{{{align}}} {body} \end{{array}}"


# -- Unicode --------------------------------------------------------------------------------------


class _Pretty(PrettyPrinter):
    """Names as they are in the code, but for Greek letters: no letter becomes a subscript.

    With `names` those are drawn instead, as short as they are in LaTeX.
    """

    def __init__(self, names: Names | None = None) -> None:
        super().__init__({"use_unicode": True, "wrap_line": False})
        self.names = names

    def doprint(self, expr):
        before = pretty_use_unicode(True)  # SymPy's tables go by stdout's encoding otherwise
        try:
            return super().doprint(expr)
        finally:
            pretty_use_unicode(before)

    def _print_Symbol(self, e, bold_name=False):
        if self.names is None:
            return prettyForm(_plain(e.name))
        return prettyForm(self.names.get(e.name, name_of(e.name)).unicode)

    def _print_Indexed(self, e):
        return prettyForm(plain(e))

    def _print_Max(self, e):
        return self._print_Function(e, sort=True, func_name="max")

    def _print_Min(self, e):
        return self._print_Function(e, sort=True, func_name="min")

    def _print_Function(self, e, sort=False, func_name=None, left="(", right=")"):
        shown = func_name or e.func.__name__
        return self._helper_print_function(
            e.func, e.args, sort=sort, func_name=shown, left=left, right=right
        )


def _plain(name: str) -> str:
    known = name_of(name)
    return known.unicode if known.base in "αβγδεηκλμνρστ" and name not in _SPELLED else name


_SPELLED = ("damping", "lr", "weight_decay", "eigenvalue")


def pretty(expression: sp.Basic) -> str:
    """The expression drawn in two dimensions, in lines of whatever width it needs."""
    return "\n".join(line.rstrip() for line in _Pretty().doprint(expression).splitlines())


def columns(expression: sp.Basic, names: Names | None = None) -> int:
    """How wide it is drawn in Unicode, with these names in the place of the code's."""
    drawn = _Pretty(names or {}).doprint(expression)
    return max(map(line_width, drawn.splitlines()))


class _Plain(StrPrinter):
    def _print_Symbol(self, expr):
        return _plain(expr.name)


def plain(expression: sp.Basic) -> str:
    """The expression in one line of text.

    >>> plain(sp.Symbol("beta2") * sp.Symbol("exp_avg"))
    'β₂*exp_avg'
    """
    if isinstance(expression, sp.Equality):
        return f"{plain(expression.lhs)} = {plain(expression.rhs)}"
    return _Plain().doprint(expression)


# -- MathML ---------------------------------------------------------------------------------------


class _MathML(MathMLPresentationPrinter):
    def __init__(self, names: Names) -> None:
        super().__init__({"fold_frac_powers": True})
        self.names = names
        # SymPy's own nodes are not escaped: `<` would open a tag, and entities are none of XML
        self.dom.createTextNode = lambda text: Document.createTextNode(self.dom, unescape(text))

    def _node(self, tag: str, *children, **attributes):
        node = self.dom.createElement(tag)
        for child in children:
            node.appendChild(self.dom.createTextNode(child) if isinstance(child, str) else child)
        for key, value in attributes.items():
            node.setAttribute(key, value)
        return node

    def _name(self, name: Name):
        shown = self._node("mi", name.base)
        if name.hat:
            shown = self._node("mover", shown, self._node("mo", "^"), accent="true")
        if name.index:
            below = [self._node("mi", i) if isinstance(i, str) else self._name(i)
                     for i in name.index]  # fmt: skip
            shown = self._node("msub", shown, self._node("mrow", *below))
        marks = [self._node("mi", "d", mathvariant="normal") for _ in range(name.order)]
        return self._node("mrow", *marks, shown) if marks else shown

    def _print_Symbol(self, sym, style="plain"):
        return self._name(self.names.get(sym.name, name_of(sym.name)))

    def _applied(self, head, arguments, fences="()"):
        row = self._node("mrow", head, self._node("mo", fences[0]))
        for i, argument in enumerate(arguments):
            if i:
                row.appendChild(self._node("mo", ","))
            row.appendChild(self._print(argument))
        row.appendChild(self._node("mo", fences[1]))
        return row

    def _print_Function(self, e):
        return self._applied(self._name(name_of(e.func.__name__)), e.args)

    def _print_Tuple(self, e):
        row = self._node("mrow")
        for i, item in enumerate(e):
            if i:
                row.appendChild(self._node("mo", ","))
            row.appendChild(self._print(item))
        return row

    def _print_Derivative(self, e):
        def power(node, n):
            return node if n == 1 else self._node("msup", node, self._node("mn", str(n)))

        bottom = self._node("mrow")
        for variable, n in reversed(e.variable_count):
            bottom.appendChild(self._node("mo", "∂"))
            bottom.appendChild(power(self._print(variable), n))
        top = power(self._node("mo", "∂"), e.derivative_count)
        return self._node("mrow", self._node("mfrac", top, bottom), self._print(e.expr))

    def _print_first(self, e):
        head = self._node("mrow", self._node("mi", "D", mathvariant="normal"),
                          self._print(e.args[0]))  # fmt: skip
        return self._applied(head, e.args[1:], "[]")

    def _print_second(self, e):
        head = self._node("msup", self._print(e.args[0]), self._node("mtext", "(2)"))
        return self._applied(head, e.args[1:], "[]")

    _print_mixed = _print_second

    def _print_transpose(self, e):
        return self._node("msup", self._print(e.args[0]), self._node("mi", "T"))


def mathml(expression: sp.Basic, names: Names | None = None, *, block: bool = True) -> str:
    """A ``<math>`` element: typeset by the browser itself, without a script or a request."""
    printer = _MathML(names or {})
    body = printer._print(expression).toxml()
    body = body.replace("<mo>-</mo>", "<mo>\u2212</mo>")  # a minus, not a hyphen
    kind = "block" if block else "inline"
    return (
        f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="{kind}">'
        f"<mrow>{body}</mrow></math>"
    )
