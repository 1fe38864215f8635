"""Explanations: a rule's bias derived step by step, for people, from what prints its code.

    explanation = explain(get_rule("adamw"))
    print(render(explanation, "text"))

Every expression in it is one of the derivation's or the correction's own, so the explanation, the
pages and the generated code cannot say different things.
"""

from deltabias.correction import Correction, correct
from deltabias.derivation import Derivation, derive
from deltabias.errors import DeltabiasError, StrategyError
from deltabias.explain import data, html, latex, text
from deltabias.explain.matrix import FORMS, explain_matrix
from deltabias.explain.record import KINDS, Explanation, Passage
from deltabias.explain.scalar import explain_scalar
from deltabias.matrix_derivation import MatrixDerivation, derive_matrix
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import UpdateRule
from deltabias.safe_form import Kernel, kernel

Subject = UpdateRule | MatrixRule | Derivation | MatrixDerivation | Correction
"""What can be explained."""

FORMATS = ("text", "latex", "html", "json")


def explain(subject: Subject, *, order: int = 1, strategy: str | None = None) -> Explanation:
    """The explanation of a rule, or of what was derived or corrected already.

    Parameters
    ----------
    subject : a rule, a derivation or a correction, scalar or of matrices
    order : 1 to 3, the power of the small parameter through which a scalar rule is expanded
    strategy : of `deltabias.correction.STRATEGIES`, or of `FORMS` for a matrix rule; by default
        the one that the generated code uses

    Raises
    ------
    StrategyError
        for a strategy that does not apply, saying why.
    DeltabiasError
        for an order that is not supported, or where the subject already says it.

    Examples
    --------
    >>> from deltabias.rule import UpdateRule
    >>> explanation = explain(UpdateRule.parse("g/h"))
    >>> [p.id for p in explanation.of_kind("term")]
    ['term-coupling-cov-g-h', 'term-inversion-var-h']
    >>> explanation.find("corrected").expression.rhs
    numerator/(denominator*(inversion + 1))
    """
    if isinstance(subject, Correction):
        if strategy is not None or order != 1:
            raise DeltabiasError("a correction has its strategy and order; explain the rule.")
        return explain_scalar(subject.derivation, subject.kernel, subject)
    if isinstance(subject, Derivation):
        if order != 1:
            raise DeltabiasError(f"{order=}: the derivation has an order; explain the rule.")
        return _of_derivation(subject, strategy)
    if isinstance(subject, MatrixRule | MatrixDerivation):
        if order != 1:
            raise DeltabiasError(f"{order=}: a matrix rule is derived to order 1.")
        derivation = derive_matrix(subject) if isinstance(subject, MatrixRule) else subject
        return explain_matrix(derivation, strategy or "full")
    return _of_derivation(derive(subject, order), strategy)


def _of_derivation(derivation: Derivation, strategy: str | None) -> Explanation:
    if strategy is not None:
        correction = correct(derivation.rule, strategy)
        return explain_scalar(derivation, correction.kernel, correction)
    try:
        correction = correct(derivation.rule)
    except StrategyError as error:  # the derivation holds all the same
        return explain_scalar(derivation, _form(derivation), None, str(error))
    return explain_scalar(derivation, correction.kernel, correction)


def _form(derivation: Derivation) -> Kernel | None:
    """The corrected form in moments that somebody else estimates, if it can be written."""
    if not derivation.terms:
        return None
    try:
        return kernel(derivation)
    except StrategyError:
        return None


def render(
    explanation: Explanation, style: str = "text", *, width: int = 80, color: bool = False
) -> str:
    """The explanation as text, a LaTeX document, an HTML page or JSON.

    Parameters
    ----------
    style : one of `FORMATS`
    width : of text, in columns; at least 20
    color : whether text has ANSI colors

    Raises
    ------
    DeltabiasError
        for a style that is not one of `FORMATS`, or a width below 20.
    """
    if style == "text":
        return text.render(explanation, width=width, color=color)
    renderers = {"latex": latex.document, "html": html.page, "json": data.render}
    if style not in renderers:
        raise DeltabiasError(f"{style=} is not known; use one of {', '.join(FORMATS)}.")
    return renderers[style](explanation)


__all__ = ["FORMATS", "FORMS", "KINDS", "Explanation", "Passage", "explain", "render"]
