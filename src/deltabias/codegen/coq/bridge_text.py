"""Coq text about programs: what codegen prints, operation by operation, is what is certified."""

import sympy as sp

from deltabias.codegen.coq.certificate import Theorem
from deltabias.codegen.coq.map_text import show, smooth_name
from deltabias.codegen.coq.plan import Plan, unkinked
from deltabias.codegen.coq.printing import chain, coq_name, definition_chain
from deltabias.codegen.ssa import Program
from deltabias.parser import clip
from deltabias.safe_form import Definition

NOTHING: tuple[str, tuple[Theorem, ...]] = ("", ())


def _program(name: str, program: Program) -> str:
    arguments = " ".join(map(coq_name, program.tensors))
    return f"Definition {name} ({arguments} : R) : R :=\n{chain(program)}.\n"


def _close(plan: Plan) -> str:
    """The end of a bridge's proof: the same formula, argument by argument under kinks."""
    settle = f"settle {plan.v} Hv"
    return f"rekink; peel ltac:({settle})" if plan.kinked else f"first [reflexivity | {settle}]"


def plug_in(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The printed plug-in update is the rule."""
    call = " ".join(map(coq_name, plan.plug_in.tensors))
    text = (
        "(** The operations that the generated plug_in_update prints. *)\n"
        + _program("plug_in_program", plan.plug_in)
        + f"Theorem plug_in_program_is_the_rule {call} : {plan.where(plan.v)} ->\n"
        f"  plug_in_program {call} = update {plan.call}.\n"
        f"Proof. intros Hv; unfold plug_in_program, update; cbv zeta; "
        f"{_close(plan)}. Qed.\n"
    )
    says = "The operations that plug_in_update prints compute the rule, over the reals."
    return text, (Theorem("plug_in_program_is_the_rule", says, "bridge"),)


def moments(plan: Plan) -> list[str]:
    return [coq_name(m.name) for m in plan.kernel.moments]


def variance(plan: Plan) -> str | None:
    """The name of the relative variance among the moments."""
    return next((coq_name(m.name) for m in plan.kernel.moments if _is_variance(m)), None)


def _is_variance(moment) -> bool:
    return moment.moment.func.__name__ == "var"


def corrected(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The printed corrected update is the form that the derivation arrives at."""
    call = " ".join(map(coq_name, plan.corrected.tensors))
    sign = f"0 <= {variance(plan)} -> " if plan.kernel.safe and variance(plan) else ""
    text = (
        "(** The corrected form, by its definitions; moments are relative. *)\n"
        f"Definition corrected ({call} : R) : R :=\n"
        f"{definition_chain(plan.kernel.definitions)}.\n"
        "(** The operations that the generated corrected_update prints. *)\n"
        + _program("corrected_program", plan.corrected)
        + f"Theorem corrected_program_is_the_form {call} : {plan.where(plan.v)} -> {sign}\n"
        f"  corrected_program {call} = corrected {call}.\n"
        f"Proof. intros Hv {'Hr' if sign else ''}; unfold corrected_program, corrected; cbv zeta; "
        f"{_close(plan)}. Qed.\n"
    )
    says = "The operations that corrected_update prints compute the corrected form, over the reals."
    return text, (Theorem("corrected_program_is_the_form", says, "bridge"),)


def _written_out(definitions: list[Definition], name: str) -> sp.Expr:
    """One definition without intermediate names."""
    values: dict[sp.Symbol, sp.Expr] = {}
    for d in definitions:
        values[d.symbol] = d.expression.subs(values)
        if d.name == name:
            return values[d.symbol]
    raise KeyError(name)


def _named(definitions: list[Definition], name: str) -> bool:
    return any(d.name == name for d in definitions)


def agreement(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The corrected form is the update less the derived bias, up to second order, explicitly."""
    smooth = unkinked(plan.derivation, plan.kernel.definitions)
    arguments = " ".join([*map(coq_name, (s.name for s in plan.rule.symbols)), *moments(plan)])
    opening, unfolded = _smooth_form(plan, smooth, arguments)
    relative = " ".join(
        f"({'var' if _is_variance(m) else 'cov'} / {show.argument(m.divisor)})"
        for m in plan.kernel.moments
    )
    states = " ".join(coq_name(s.name) for s in plan.rule.symbols)
    bias = "".join(
        f" - {n}_coefficient {plan.call} * {m}"
        for n, m in (("coupling", "cov"), ("inversion", "var"))
        if _has(plan, m)
    )
    names = [
        f"{n}_coefficient" for n, m in (("coupling", "cov"), ("inversion", "var")) if _has(plan, m)
    ]
    used = " ".join(m for m in ("cov", "var") if _has(plan, m))
    rest, helpers = _rest(plan, smooth, arguments, relative)
    sign = "0 <= var -> " if plan.kernel.safe else ""
    nonzero = f"{plan.v} <> 0 -> " if plan.may_vanish else ""
    text = (
        opening + helpers + f"Theorem corrected_is_the_subtraction {states} {used} :\n"
        f"  {plan.where(plan.v)} -> {nonzero}{sign}\n"
        f"  {unfolded} {states} {relative}\n"
        f"  = {smooth_name(plan)} {plan.call}{bias}{rest}.\n"
        f"Proof.\nintros Hv {'Hn ' if nonzero else ''}{'Hr' if sign else ''};\n"
        f"unfold {unfolded}, {smooth_name(plan)}, "
        f"{', '.join([*names, *_helper_names(plan, smooth)])}.\nsettle {plan.v} Hv.\nQed.\n"
    )
    how = "up to an explicit term of second order" if plan.kernel.safe else "exactly"
    says = f"The corrected form is the update less the derived bias, {how}."
    return text, (
        *_unkinked_theorem(plan),
        Theorem("corrected_is_the_subtraction", says, "remainder"),
    )


def _has(plan: Plan, moment: str) -> bool:
    return any(("var" if _is_variance(m) else "cov") == moment for m in plan.kernel.moments)


def _smooth_form(plan: Plan, smooth: list[Definition], arguments: str) -> tuple[str, str]:
    """With kinks the smooth corrected form is stated apart, and where the two are one."""
    if not plan.kinked:
        return "", "corrected"
    floors = " -> ".join(
        " <= ".join(map(show, (other, branch) if isinstance(node, sp.Max) else (branch, other)))
        for branch, node in plan.derivation.floors
        for other in node.args
        if other != branch and node != plan.rule.update
    )
    limits = _limits(plan, arguments)
    premise = " -> ".join(p for p in (floors, limits) if p)
    return (
        "(** The corrected form away from clips and floors. *)\n"
        f"Definition smooth_corrected ({arguments} : R) : R :=\n{definition_chain(smooth)}.\n"
        f"Theorem corrected_inside {arguments} : {premise} ->\n"
        f"  corrected {arguments} = smooth_corrected {arguments}.\n"
        "Proof. intros; unfold corrected, smooth_corrected in *; cbv zeta in *; unkink. Qed.\n",
        "smooth_corrected",
    )


def _limits(plan: Plan, arguments: str) -> str:
    update, value = plan.rule.update, f"smooth_corrected {arguments}"
    if isinstance(update, clip):
        low, high = (show(a) for a in update.args[1:])
        return f"{low} <= {value} <= {high}"
    branches = [branch for branch, node in plan.derivation.floors if node == update]
    others = [show.argument(a) for a in update.args if branches and a != branches[0]]
    less = "{} <= {}" if isinstance(update, sp.Max) else "{1} <= {0}"
    return " -> ".join(less.format(o, value) for o in others)


def _unkinked_theorem(plan: Plan) -> tuple[Theorem, ...]:
    if not plan.kinked:
        return ()
    says = "Where neither clip nor floor is active the corrected form is its smooth part."
    return (Theorem("corrected_inside", says, "closed_form"),)


def _helper_names(plan: Plan, smooth: list[Definition]) -> list[str]:
    return ["joined", "relative_inversion", "f_0"] if plan.kernel.safe else []


def _rest(plan: Plan, smooth: list[Definition], arguments: str, relative: str) -> tuple[str, str]:
    """f ((g + k) q^2/(1 + q) - k q): what division leaves beside subtraction."""
    if not plan.kernel.safe:
        return "", ""
    g = plan.g or "1"
    numerator = show(_written_out(smooth, "numerator")) if _named(smooth, "numerator") else g
    q = show(_written_out(smooth, "inversion"))
    call = " ".join([*map(coq_name, (s.name for s in plan.rule.symbols)), relative])
    helpers = (
        "(** The numerator with its coupling, and the relative inversion that divides. *)\n"
        f"Definition joined ({arguments} : R) : R := {numerator}.\n"
        f"Definition relative_inversion ({arguments} : R) : R := {q}.\n"
    )
    rest = (
        f"\n    + (let n := joined {call} in let q := relative_inversion {call} in\n"
        f"       f_0 {plan.v} * (n * q ^ 2 / (1 + q) - (n - {g}) * q))"
    )
    return rest, helpers


def sign(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """A ratio keeps the numerator's sign and never exceeds what it corrects."""
    if not plan.kernel.safe or not plan.field.positive(plan.field.tidy(1 / plan.tower[0])):
        return NOTHING
    arguments = " ".join([*map(coq_name, (s.name for s in plan.rule.symbols)), *moments(plan)])
    form = "smooth_corrected" if plan.kinked else "corrected"
    text = (
        f"Theorem corrected_keeps_the_sign {arguments} :\n"
        f"  {plan.where(plan.v)} -> 0 <= {variance(plan)} ->\n"
        f"  let c := f_0 {plan.v} / (1 + relative_inversion {arguments}) in\n"
        f"  {form} {arguments} = joined {arguments} * c /\\ 0 < c <= f_0 {plan.v}.\n"
        "Proof.\nintros Hv Hr c; split.\n"
        f"- unfold c, {form}, joined, relative_inversion, f_0; settle {plan.v} Hv.\n"
        "- unfold c; apply ratio_positive; unfold f_0, relative_inversion; "
        f"expose {plan.v} Hv; positive.\n"
        "Qed.\n"
    )
    says = (
        "The corrected form is its numerator times a factor that is positive and at most f(v), "
        "however large the variance is."
    )
    return text, (Theorem("corrected_keeps_the_sign", says, "bound"),)
