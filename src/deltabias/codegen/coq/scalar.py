"""The certificate of a scalar rule: sections of Coq text about one `Plan`, put together."""

import re
from collections.abc import Callable, Mapping

import sympy as sp

from deltabias.codegen.coq import bias_text, bridge_text, map_text
from deltabias.codegen.coq.certificate import Certificate, Theorem, with_words
from deltabias.codegen.coq.plan import Plan, plan
from deltabias.rule import UpdateRule

Piece = tuple[str, tuple[Theorem, ...]]
WIDTH = 100
IMPORTS = (
    "From Coq Require Import Reals Lra Lia List.\n"
    "From Coquelicot Require Import Coquelicot.\n"
    "From deltabias Require Import taylor finite_law delta mean_law mean_delta coupled_mean\n"
    "  exchange safe_ratio elementary unit_numerator.\n"
    "Open Scope R_scope.\n"
)
SECTIONS: tuple[Callable[[Plan], Piece], ...] = (
    map_text.the_map,
    map_text.derivatives,
    map_text.bounds,
    bias_text.coefficients,
    bias_text.states,
    bias_text.batch,
    bridge_text.plug_in,
    bridge_text.corrected,
    bridge_text.agreement,
    bridge_text.sign,
)
BY_INTERVAL = (
    "From deltabias Require Import plain_interval.\n"
    "(** What has no sign by its form has one by interval arithmetic. *)\n"
    "Ltac last_resort ::= lazymatch goal with\n"
    "  | |- _ <> 0 => first [apply Rgt_not_eq; interval with (i_prec 40)\n"
    "                       | apply Rlt_not_eq; interval with (i_prec 40)]\n"
    "  | |- _ => interval with (i_prec 40)\n"
    "  end.\n"
)
ALWAYS_LEFT = (
    "estimated moments put in place of the true ones, and their dependence on the update",
    "laws that are no finite sums, and statistics that come arbitrarily close to zero",
    "rounding: the programs are read over the real numbers",
)


def scalar_certificate(
    rule: UpdateRule,
    order: int = 2,
    boxes: Mapping[str, tuple[str, str]] | None = None,
    *,
    mark: str = "",
) -> Certificate:
    """What can be proved of a rule, as a Coq file that compiles beside the theory.

    `mark` is a line for the head of the file. Nothing is checked here.

    Raises
    ------
    CertifyError
        for a rule that the theory does not cover, naming what is missing.

    Examples
    --------
    >>> certificate = scalar_certificate(UpdateRule.parse("g/(sqrt(v)+eps)"))
    >>> certificate.domain
    ('v >= lo > 0', 'eps >= 0')
    """
    return certificate_from(plan(rule, order, boxes or {}), mark=mark)


def certificate_from(content: Plan, *, mark: str = "") -> Certificate:
    """The certificate of what was collected."""
    rule, order = content.rule, content.order
    pieces = [section(content) for section in SECTIONS]
    theorems = tuple(t for _, listed in pieces for t in listed)
    text = "\n".join(
        [
            _head(content.rule, mark),
            IMPORTS,
            _section_opening(content),
            *(body for body, _ in pieces),
            "End Rule.\n",
        ]
    )
    return Certificate(
        rule.name,
        fold(with_words(text, theorems)),
        theorems,
        order,
        domain(content),
        not_certified(content),
    )


def refusal(rule: object, reason: str, mark: str) -> str:
    """A file that proves nothing and says why."""
    plain = re.sub(r"[^ -~]|[(][*]|[*][)]|\"", " ", reason)
    return fold(f"{_head(rule, mark)}\n(** Not certified. {plain} *)\n")


def domain(content: Plan) -> tuple[str, ...]:
    """The hypotheses in words."""
    name, strict = content.statistic.name, content.field.promoted
    if content.box is not None:
        ends = [f"{low} <= {s} <= {high}" for s, (low, high) in content.box.ends.items()]
        return (*ends, *map(str, content.inside))
    upper = f" and {name} <= hi" if content.reach == "interval" else ""
    signs = (f"{h.name} {'>' if h in strict else '>='} 0" for h in content.field.hypers)
    tops = (f"{h.name} < {h.high:g}" for h in content.rule.hypers if h.high != float("inf"))
    return (f"{name} >= lo > 0{upper}", *signs, *tops, *map(str, content.inside))


def not_certified(content: Plan) -> tuple[str, ...]:
    """What the certificate does not cover, in words."""
    left = list(ALWAYS_LEFT)
    if content.kinked:
        left.append("coordinates on a clip or a floor, where the update has no Taylor expansion")
    if content.numerator is not None:
        left.append("the coefficient of 1/m^2 of a batch: it is inside the remainder's constant")
    if not bridge_text.sign(content)[1]:
        why = "" if content.kernel.safe else ": it is a subtraction and may overshoot"
        left.append(f"the sign of the corrected update{why}")
    if content.box is None and not content.statistic.is_positive:
        left.append(f"negative values of {content.statistic.name}")
    if content.box is not None:
        left.append("anything outside the box")
    return tuple(left)


def _head(rule: object, mark: str) -> str:
    words = re.sub(r"[^ -~]|[(]\*|\*[)]|\"", " ", f"{rule.name}: u = {rule}")
    return f"(** {words}.\n\n    {mark or 'Written by deltabias certify.'} *)\n"


def _section_opening(content: Plan) -> str:
    lines = ["Section Rule."]
    if content.box is not None:
        lines.insert(0, BY_INTERVAL)
    for h in map_text.hypers(content):
        name = map_text.show(h)
        lines.append(f"Variable {name} : R.")
        lines.append(f"Hypothesis {name}_range : {_hyper_range(content, h, name)}.")
    return "\n".join([*lines, ""])


def _hyper_range(content: Plan, hyper: sp.Symbol, name: str) -> str:
    if content.box is not None and hyper in content.box.ends:
        low, high = (map_text.show(end) for end in content.box.ends[hyper])
        return f"{low} <= {name} <= {high}"
    record = next(h for h in content.rule.hypers if h.name == hyper.name)
    low = sp.Rational(str(record.low))
    strict = low == 0 and hyper in content.field.promoted
    below = "" if record.high == float("inf") else f" < {map_text.show(sp.Rational(record.high))}"
    return f"{map_text.show(low)} {'<' if strict else '<='} {name}{below}"


def fold(text: str) -> str:
    """Lines of at most `WIDTH` columns, broken between words; continued ones are indented."""
    folded = []
    for line in map(str.rstrip, text.splitlines()):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        while len(line) > WIDTH:
            cut = _cut(line, len(indent))
            if cut <= len(indent):
                break
            folded.append(line[:cut].rstrip())
            line = indent + line[cut:].lstrip()
        folded.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(folded)) + "\n"


def _cut(line: str, indent: int) -> int:
    """Where to break: after an arrow or a semicolon, before an operator, at least at a word."""
    for mark, after in ((" -> ", 4), ("; ", 2), (" := ", 4), (" + ", 1), (" - ", 1), (" = ", 1)):
        place = line.rfind(mark, indent, WIDTH)
        if place > WIDTH // 2:
            return place + after
    return line.rfind(" ", indent, WIDTH)
