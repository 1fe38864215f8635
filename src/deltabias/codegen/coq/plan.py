"""What a scalar certificate states, collected from the objects that print the code.

Coefficients come from the derivation, the corrected form from the kernel, the programs from the
code generator: nothing is written a second time, so a changed coefficient changes the certificate,
and the proof fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import sympy as sp

from deltabias.codegen.coq.atoms import Field, Part, parts, rising
from deltabias.codegen.coq.box import Box, box, exact_ends
from deltabias.codegen.coq.printing import Printer, coq_name
from deltabias.codegen.kernels import update_program
from deltabias.codegen.ssa import Program
from deltabias.correction import correct
from deltabias.derivation import Derivation, derive
from deltabias.errors import CertifyError
from deltabias.parser import clip
from deltabias.rule import UpdateRule
from deltabias.safe_form import Definition, Kernel, floors_of, numerator_of

ORDERS = (2, 4)


@dataclass(frozen=True)
class Plan:
    """Everything that is stated about one rule.

    ``tower`` are f and its derivatives in atoms; ``bounds`` the parts of those derivatives that a
    remainder needs, by their order; ``reach`` says where they hold: ``half_line`` (above any lower
    end), ``interval`` (between any two ends) or ``box`` (between the numbers of ``box``).
    """

    rule: UpdateRule
    order: int
    derivation: Derivation
    kernel: Kernel
    numerator: sp.Symbol | None
    statistic: sp.Symbol
    field: Field
    tower: tuple[sp.Expr, ...]
    bounds: Mapping[int, tuple[Part, ...]]
    reach: str
    box: Box | None
    plug_in: Program
    corrected: Program

    @property
    def smooth(self) -> sp.Expr:
        return self.derivation.smooth

    @property
    def kinked(self) -> bool:
        """Whether the rule has a clip or a floor, so that it is smooth in a part only."""
        return self.rule.update != self.smooth

    @property
    def inside(self) -> tuple[sp.Basic, ...]:
        """The conditions of the smooth part, besides v > 0."""
        sign = sp.Gt(self.statistic, 0, evaluate=False)
        return tuple(c for c in self.derivation.domain if c != sign)

    @property
    def v(self) -> str:
        return coq_name(self.statistic.name)

    @property
    def g(self) -> str | None:
        return None if self.numerator is None else coq_name(self.numerator.name)

    @property
    def bounded(self) -> tuple[int, int]:
        """Orders of the derivatives that are bounded."""
        return bounded_orders(self.order, self.numerator is not None)

    @property
    def arguments(self) -> str:
        """The arguments of the update as Coq binds them: ``(g v : R)``."""
        return f"({self.call} : R)"

    @property
    def call(self) -> str:
        return self.v if self.g is None else f"{self.g} {self.v}"

    @property
    def ends(self) -> tuple[str, str]:
        """The ends of the statistic's domain as Coq terms: variables, or the box's numbers."""
        if self.box is None:
            return "lo", "hi"
        low, high = self.box.ends[self.statistic]
        show = Printer()
        return show.argument(low), show.argument(high)

    def where(self, point: str) -> str:
        """The hypothesis under which formulas hold at a point."""
        if self.box is None:
            return f"0 < {point}"
        low, high = self.ends
        return f"{low} <= {point} <= {high}"

    @property
    def may_vanish(self) -> bool:
        """Whether the statistic may be zero, so that relative moments are not always defined."""
        if self.box is None:
            return False
        low, high = self.box.ends[self.statistic]
        return bool(low <= 0 <= high)

    def coefficient(self, derivative: tuple[int, ...]) -> sp.Expr:
        """What the derivation multiplies the moments of that derivative with; 0 if left out."""
        found = [t.coefficient for t in self.derivation.terms if t.derivative == derivative]
        return found[0] if found else sp.Integer(0)

    def index(self, in_numerator: int, in_statistic: int) -> tuple[int, ...]:
        """A multi-index in the order of the rule's states."""
        orders = {self.numerator: in_numerator, self.statistic: in_statistic}
        return tuple(orders.get(s, 0) for s in self.rule.symbols)

    @property
    def independent(self) -> bool:
        """Whether the derivation drops the coupling because the states observe different things."""
        terms = self.derivation.terms
        dropped = not any(t.derivative == self.index(1, 1) for t in terms)
        return self.numerator is not None and dropped and self.tower[1] != 0


def plan(
    rule: UpdateRule, order: int = 2, boxes: Mapping[str, tuple[str, str]] | None = None
) -> Plan:
    """Collect what is stated about a rule.

    Raises
    ------
    CertifyError
        for a rule that the theory does not cover, naming what is missing.
    StrategyError, NotDifferentiableError
        for a rule without a derivation or a corrected form.
    """
    if order not in ORDERS:
        raise CertifyError(f"{order=} is not certified; use 2 or 4.")
    derivation = derive(rule, order // 2)
    form = correct(rule).kernel
    numerator, statistic, factor = _parts_of(derivation)
    hypers = tuple(h.symbol for h in rule.hypers if h.symbol in derivation.smooth.free_symbols)
    place = Field(statistic, hypers)
    start = place.convert(factor)
    orders = bounded_orders(order, numerator is not None)
    tower = tuple(place.tower(start, orders[-1]))
    bounds, reach, numbers = _limits(rule, place, tower, orders, boxes or {})
    return Plan(
        rule,
        order,
        derivation,
        form,
        numerator,
        statistic,
        place,
        tower,
        bounds,
        reach,
        numbers,
        update_program(rule, form, corrected=False),
        update_program(rule, form),
    )


def bounded_orders(order: int, with_numerator: bool) -> tuple[int, int]:
    """Orders of the derivatives that the remainders of the states and of a batch are bounded by.

    With a numerator the theory expands a batch to 1/m, whatever the order for the states is.
    """
    return (4, 5) if order == 4 and with_numerator else (order + 1, order + 2)


def _parts_of(derivation: Derivation) -> tuple[sp.Symbol | None, sp.Symbol, sp.Expr]:
    """Numerator, preconditioner's statistic and map; a rule of another form is refused."""
    rule, numerator = derivation.rule, numerator_of(derivation)
    others = [s for s in rule.symbols if s != numerator and s in derivation.smooth.free_symbols]
    if numerator is not None and not others:
        numerator, others = None, [numerator]
    if len(others) != 1 or len(rule.symbols) != len(others) + (numerator is not None):
        raise CertifyError(
            f"rule {rule.name!r}, {rule}: the theory covers a map of one statistic, and an update "
            "proportional to one statistic times a map of another; this one has "
            f"{', '.join(s.name for s in rule.symbols)}"
            + ("" if numerator is not None else " and is proportional to none of them")
            + "."
        )
    smooth = derivation.smooth
    return numerator, others[0], smooth if numerator is None else sp.diff(smooth, numerator)


def _limits(rule: UpdateRule, place: Field, tower, orders, boxes):
    """Bounds by form where there are any, else numbers on the box that was given."""
    ends = exact_ends(boxes)
    below = ends.get(place.statistic.name, (sp.Integer(1),))[0]
    bounds = {k: parts(place, tower[k]) for k in orders}
    if below > 0 and None not in bounds.values():
        _check_names(rule, place, ends)
        reach = "interval" if any(rising(place, p) for p in bounds.values()) else "half_line"
        return bounds, reach, None
    if not boxes:
        raise CertifyError(
            f"rule {rule.name!r}, {rule}: no bound of its derivatives follows from their form for "
            f"every {place.statistic} > 0; give a box, such as --box {place.statistic}=0.1:10 (and "
            "one for each hyperparameter)."
        )
    place.numeric = True
    place.atoms = [replace(a, rises=False) for a in place.atoms]
    return {}, "box", box(place, tower, orders, ends, f"rule {rule.name!r}, {rule}")


def _check_names(rule: UpdateRule, place: Field, ends) -> None:
    known = {place.statistic.name, *(h.name for h in rule.hypers)}
    if unknown := sorted(set(ends) - known):
        raise CertifyError(
            f"rule {rule.name!r}, {rule}: --box {unknown[0]} is neither its preconditioner's "
            f"statistic nor a hyperparameter ({', '.join(sorted(known))})."
        )


def unkinked(derivation: Derivation, definitions: tuple[Definition, ...]) -> list[Definition]:
    """The corrected form where no floor and no clip is active."""
    update, floors = derivation.rule.update, {node: b for b, node in derivation.floors}
    found = []
    for d in definitions:
        expression = d.expression.subs(floors)
        if isinstance(expression, clip) and isinstance(update, clip):
            expression = expression.args[0]
        elif expression.func == update.func and isinstance(update, sp.Max | sp.Min):
            branch = floors_of(update, dict(derivation.floors))
            others = {a for a in update.args if a != branch}
            expression = update.func(*(a for a in expression.args if a not in others))
        found.append(Definition(d.name, expression, d.note))
    return found
