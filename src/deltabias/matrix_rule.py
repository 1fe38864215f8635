"""The vocabulary of matrix rules: what a two-sided or spectral preconditioner is made of.

    MatrixStatistic("left", "G*G.T")                  the mean over microbatches of G_r G_rᵀ
    MatrixStatistic("left", "G*G.T", of_mean=True)    the same of their mean, as Shampoo's
    MatrixState("L", statistic, BETA2)                its exponential moving average
    MatrixRule("shampoo", "inv_root(L + damping*I, 4) * M * inv_root(R + damping*I, 4)", …)

As with scalar rules the two statistics have two targets, and variances up to a factor m apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from deltabias.calculus.matrix import (
    Identity,
    MatrixExpr,
    MatrixSymbol,
    Scaled,
    Spectral,
    Sum,
    Transpose,
)
from deltabias.errors import RuleError
from deltabias.matrix_parser import MATRIX_NAME, SCALAR_NAME, parse_matrix
from deltabias.notation import markup
from deltabias.notation.names import Name, name_of
from deltabias.reserved import RESERVED
from deltabias.rule import Hyper

GRADIENT_MATRIX = "G"
"""One microbatch's gradient, or their mean, in `MatrixStatistic.sample`."""

DAMPING = Hyper("damping", 1e-6)


@dataclass(frozen=True)
class MatrixStatistic:
    """What one step contributes: the mean over microbatches of ``sample``, or ``sample`` of the
    mean gradient (``of_mean``).

    ``sample`` is an expression in G, or None: an opaque random matrix.
    """

    name: str
    sample: MatrixExpr | str | None = None
    of_mean: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.sample, str):
            object.__setattr__(self, "sample", parse_matrix(self.sample))
        if self.sample is not None and set(self.sample.symbols) != {GRADIENT_MATRIX}:
            raise RuleError(
                f"statistic {self.name!r}: {', '.join(self.sample.symbols) or 'nothing'} in its "
                f"sample; it must be in {GRADIENT_MATRIX}, the gradient, alone."
            )


@dataclass(frozen=True)
class MatrixState:
    """A statistic's average over the steps: by ``beta``, a running ``total``, or the newest."""

    name: str
    statistic: MatrixStatistic
    beta: Hyper | None = None
    total: bool = False

    def __post_init__(self) -> None:
        if not MATRIX_NAME.match(self.name) or self.name == "I":
            raise RuleError(
                f"state name {self.name!r} is not allowed; use an upper-case letter first, and "
                "not I, the identity."
            )
        if self.total and self.beta is not None:
            raise RuleError(f"state {self.name!r} is a total or an average, not both.")


@dataclass(frozen=True)
class MatrixRule:
    """An optimizer's update direction as a map of matrices.

    Parameters
    ----------
    name : str
        links everything: generated function, test, certificate, documentation page.
    update : MatrixExpr, or a string (see `deltabias.matrix_parser`)
    states : tuple of MatrixState
    hypers : tuple of Hyper
    title, sources : for people

    Examples
    --------
    >>> rule = MatrixRule.parse("inv_root(L + damping*I, 4) * M")
    >>> [s.name for s in rule.states], rule.symmetric, [h.name for h in rule.hypers]
    (['L', 'M'], ('L',), ['damping'])
    """

    name: str
    update: MatrixExpr
    states: tuple[MatrixState, ...]
    hypers: tuple[Hyper, ...] = ()
    title: str = ""
    sources: tuple[str, ...] = ()
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not SCALAR_NAME.match(self.name):
            raise RuleError(
                f"rule name {self.name!r} is not allowed; use lower-case letters, digits and '_'."
            )
        if isinstance(self.update, str):
            object.__setattr__(self, "text", self.update)
            object.__setattr__(self, "update", parse_matrix(self.update))
        for found, declared, kind in (
            (self.update.symbols, [s.name for s in self.states], "matrix"),
            (self.update.hypers, [h.name for h in self.hypers], "hyperparameter"),
        ):
            if unknown := sorted(set(found) - set(declared)):
                raise RuleError(
                    f"rule {self.name!r} uses the {kind} {', '.join(unknown)}; declared are "
                    f"{', '.join(declared) or 'none'}."
                )
            if twice := sorted({n for n in declared if declared.count(n) > 1}):
                raise RuleError(f"rule {self.name!r} declares {', '.join(twice)} more than once.")
        if not self.update.symbols:
            raise RuleError(f"rule {self.name!r} depends on no matrix: nothing in it is random.")
        if taken := sorted(set(self.update.hypers) & RESERVED):
            raise RuleError(f"hyperparameter {', '.join(taken)} is used by generated code; rename.")

    @classmethod
    def parse(
        cls, text: str, *, hypers: Mapping[str, float] | None = None, name: str = "custom"
    ) -> "MatrixRule":
        """A rule from one line of mathematics; every upper-case name but I is a random matrix.

        Raises
        ------
        ParseError, RuleError
            with what was passed, what is allowed and what to do.
        """
        update, declared = parse_matrix(text), dict(hypers or {})
        if unused := sorted(set(declared) - set(update.hypers)):
            raise RuleError(f"hyperparameter {', '.join(unused)} does not occur in {text!r}.")
        return cls(
            name,
            text,
            tuple(MatrixState(s, MatrixStatistic(s)) for s in update.symbols),
            tuple(Hyper(h, declared.get(h, DAMPING.default)) for h in update.hypers),
        )

    @cached_property
    def spectral(self) -> tuple[Spectral, ...]:
        """The functions of matrices in the update, inner ones first."""
        return tuple(n for n in self.update.walk() if isinstance(n, Spectral))

    @cached_property
    def symmetric(self) -> tuple[str, ...]:
        """States that are terms of what stands under a function of a matrix, without their
        transposes: L in inv_root(L + damping*I, 4), not M in inv(M + M.T)."""
        found: dict[str, None] = {}
        for node in self.spectral:
            terms = node.body.terms if isinstance(node.body, Sum) else (node.body,)
            bare = [t.body if isinstance(t, Scaled) else t for t in terms]
            found |= {
                t.name: None
                for t in bare
                if isinstance(t, MatrixSymbol) and Transpose(t) not in bare
            }
        return tuple(found)

    @property
    def all_hypers(self) -> tuple[Hyper, ...]:
        """The hyperparameters of the update and of the states, each once."""
        every = [*self.hypers, *(s.beta for s in self.states if s.beta)]
        return tuple(dict.fromkeys(every))

    @cached_property
    def notation(self) -> dict[str, Name]:
        """What its symbols are called in formulas: matrices by their letters."""
        return {s.name: name_of(s.name) for s in (*self.states, *self.all_hypers)}

    def __str__(self) -> str:
        return self.text or repr(self.update)

    def _repr_latex_(self) -> str:
        return f"${markup.text_in_math(f'{self.name}: {self}')}$"

    def _repr_html_(self) -> str:
        lines = [f"U = {self}", *(f"{s.name}: {s.statistic.name}" for s in self.states)]
        return markup.card(self.title or self.name, [], [*lines, *self.sources])


def bare_symbol(body: MatrixExpr) -> str | None:
    """The name of X in X or X + c I, else None."""
    terms = body.terms if isinstance(body, Sum) else (body,)
    names = [t.name for t in terms if isinstance(t, MatrixSymbol)]
    rest = [t for t in terms if not isinstance(t, MatrixSymbol)]
    damping = all(
        isinstance(t, Identity) or (isinstance(t, Scaled) and isinstance(t.body, Identity))
        for t in rest
    )
    return names[0] if len(names) == 1 and damping else None
