"""Coq text about the map f of u = g f(v): its atoms, its derivatives, their bounds."""

import sympy as sp

from deltabias.codegen.coq.atoms import Atom, Part
from deltabias.codegen.coq.certificate import Theorem
from deltabias.codegen.coq.plan import Plan
from deltabias.codegen.coq.printing import Printer

show = Printer()
ORDINALS = {3: "third", 4: "fourth", 5: "fifth", 6: "sixth"}


def hypers(plan: Plan) -> tuple[sp.Symbol, ...]:
    """The hyperparameters that the printed programs read, those of the smooth part first."""
    names = {s.name for s in plan.field.hypers}
    programs = {name for p in (plan.plug_in, plan.corrected) for name in p.scalars}
    others = [h.symbol for h in plan.rule.hypers if h.name in programs - names]
    return (*plan.field.hypers, *others)


def in_atoms(plan: Plan, at: str | None = None) -> Printer:
    """Prints an expression in atoms, at the statistic or at another point."""
    atoms = {a.symbol: a.name for a in plan.field.atoms}
    point = at or plan.v

    def rename(symbol: sp.Symbol) -> str:
        if symbol in atoms:
            return f"{atoms[symbol]} {point}"
        return point if symbol == plan.statistic else show(symbol)

    return Printer(rename)


def the_map(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The update, the atoms and f, and that the update is made of f."""
    v, smooth = plan.v, show(plan.smooth)
    lines = ["(** The update, as the rule states it. *)"]
    lines.append(f"Definition update {plan.arguments} : R := {show(plan.rule.update)}.")
    if plan.kinked:
        lines.append("(** Away from clips and floors. *)")
        lines.append(f"Definition smooth {plan.arguments} : R := {smooth}.")
        lines.append(f"Definition inside {plan.arguments} : Prop :=\n  {_conditions(plan)}.")
    lines += ["", *(_atom(plan, i) for i in range(len(plan.field.atoms)))]
    lines.append(_tactics(plan))
    what = "f" if plan.numerator is None else "u / g"
    lines.append(f"(** {what} and its derivatives in {v}. *)")
    for k, derivative in enumerate(plan.tower):
        lines.append(f"Definition f_{k} ({v} : R) : R := {in_atoms(plan)(derivative)}.")
    cases = " ".join(f"| {k}%nat => f_{k}" for k in range(len(plan.tower)))
    lines.append(
        f"Definition f (k : nat) : R -> R := match k with {cases} | _ => fun _ => 0 end.\n"
    )
    return "\n".join([*lines, _update_is_map(plan), _inside(plan)]), _map_theorems(plan)


def _map_theorems(plan: Plan) -> tuple[Theorem, ...]:
    name = "f(v)" if plan.numerator is None else "g f(v)"
    found = [
        Theorem("update_is_the_map", f"Where it is smooth, the update is {name}.", "closed_form")
    ]
    if plan.kinked:
        says = "Inside the clip and above the floor the rule is its smooth part."
        found.append(Theorem("update_inside", says, "closed_form"))
    return tuple(found)


def _conditions(plan: Plan) -> str:
    return " /\\ ".join(_condition(c) for c in plan.inside)


def _condition(condition: sp.Basic) -> str:
    signs = {sp.Gt: ">", sp.Lt: "<", sp.Ge: ">=", sp.Le: "<=", sp.Ne: "<>"}
    return f"{show(condition.lhs)} {signs[condition.func]} {show(condition.rhs)}"


def smooth_name(plan: Plan) -> str:
    return "smooth" if plan.kinked else "update"


def _update_is_map(plan: Plan) -> str:
    name, v = smooth_name(plan), plan.v
    right = f"f_0 {v}" if plan.numerator is None else f"{plan.g} * f_0 {v}"
    return (
        f"Theorem update_is_the_map {plan.call} : {plan.where(v)} ->\n"
        f"  {name} {plan.call} = {right}.\n"
        f"Proof. intros Hv; unfold {name}, f_0; settle {v} Hv. Qed.\n"
    )


def _inside(plan: Plan) -> str:
    if not plan.kinked:
        return ""
    return (
        f"Theorem update_inside {plan.call} : {plan.where(plan.v)} -> inside {plan.call} ->\n"
        f"  update {plan.call} = smooth {plan.call}.\n"
        "Proof. intros Hv Hi; unfold inside, update, smooth in *; unkink. Qed.\n"
    )


# -- atoms ----------------------------------------------------------------------------------------


def _atom(plan: Plan, place: int) -> str:
    """Definition of an atom, its sign, its derivative, and that it rises."""
    atom, v = plan.field.atoms[place], plan.v
    at = in_atoms(plan)
    inner, facts = at.argument(atom.inner), _facts(plan, place)
    value = _applied(atom, inner)
    sign = "0 < " if atom.rises else ""
    lines = [f"Definition {atom.name} ({v} : R) : R := {value}."]
    if atom.rises:
        lines += [
            f"Lemma {atom.name}_positive {v} : 0 < {v} -> {sign}{atom.name} {v}.",
            f"Proof. intros Hv; {facts}unfold {atom.name}; positive. Qed.",
            f"Lemma {atom.name}_rises lo {v} : 0 < lo -> lo <= {v} -> "
            f"0 < {atom.name} lo <= {atom.name} {v}.",
            f"Proof. intros H0 H1; {_rise_facts(plan, place)}unfold {atom.name}; between. Qed.",
        ]
    if plan.box is not None:
        lines += _range(plan, atom)
    slope, derivative, where = at(atom.inner_derivative), at(atom.derivative), plan.where(v)
    lines += [
        f"Lemma {atom.name}_derivative {v} : {where} ->",
        f"  is_derive {atom.name} {v} ({derivative}).",
        f"Proof.\nintros Hv; {facts}",
        f"assert (Hslope : is_derive (fun {v} => {at(atom.inner)}) {v} ({slope})).",
        f"{{ {forget(plan, place)}differentiate. }}",
        f"assert ({atom.name}_{_fact(plan, atom)[:3]} := {atom.name}_{_fact(plan, atom)} {v} Hv)."
        if _fact(plan, atom)
        else "",
        f"evar_last; [{_chain_rule(atom)}|].",
        f"cbv beta; change ({value}) with ({atom.name} {v}); in_reals; try field; side.\nQed.",
    ]
    return "\n".join([*(line for line in lines if line), _forms(plan, place)])


def _range(plan: Plan, atom: Atom) -> list[str]:
    """On a box: the atom's range, by interval arithmetic."""
    low, high = (show.argument(end) for end in plan.box.ranges[atom.symbol])
    v = plan.v
    return [
        f"Lemma {atom.name}_range {v} : {plan.where(v)} -> {low} <= {atom.name} {v} <= {high}.",
        f"Proof. intros Hv; {unfold_all(plan)}; split; {bisect(plan)}. Qed.",
    ]


def unfold_all(plan: Plan) -> str:
    """Everything down to what interval arithmetic knows."""
    names = [a.name for a in reversed(plan.field.atoms)]
    return "; ".join(f"unfold {name}" for name in [*names, "tanh_", "root", "Rpower"])


def bisect(plan: Plan) -> str:
    """The interval tactic, splitting the box; a precision keeps it to Coq's own integers."""
    names = [plan.v, *(show(h) for h in plan.field.hypers)]
    return f"interval with (i_prec 40, {', '.join(f'i_bisect {n}' for n in names)}, i_depth 20)"


def _fact(plan: Plan, atom: Atom) -> str:
    """What is known of an atom's sign: a lemma's name, or nothing."""
    return "range" if plan.box is not None else "positive" if atom.rises else ""


def _applied(atom: Atom, inner: str) -> str:
    return f"root {atom.degree} {inner}" if atom.head == "root" else f"{atom.head} {inner}"


def _chain_rule(atom: Atom) -> str:
    if atom.head == "sqrt":
        return "apply (derive_sqrt _ _ _ Hslope); side"
    if atom.head == "root":
        return (
            f"apply (derive_root _ _ _ Hslope {atom.degree - 1} {atom.degree}); [simpl; lra | side]"
        )
    if atom.head == "ln":
        return "apply (derive_ln _ _ _ Hslope); side"
    return f"exact (derive_{atom.head.rstrip('_')} _ _ _ Hslope)"


def _forms(plan: Plan, place: int) -> str:
    """An atom's value in the rule's own words, and a root's power."""
    atom, v = plan.field.atoms[place], plan.v
    facts, where = _facts(plan, place), plan.where(v)
    lines = []
    if place or plan.field.degree == 1:
        lines += [
            f"Lemma {atom.name}_form {v} : {where} -> {show(atom.original)} = {atom.name} {v}.",
            f"Proof. intros Hv; unfold {atom.name}; {_fold_before(plan, place)}reflexivity. Qed.",
        ]
    if atom.head in ("sqrt", "root"):
        inner = in_atoms(plan)(atom.inner)
        lemma = (
            "sqrt_power" if atom.head == "sqrt" else f"(root_power {atom.degree - 1} {atom.degree})"
        )
        lines += [
            f"Lemma {atom.name}_power {v} : {where} ->",
            f"  {atom.name} {v} ^ {atom.degree} = {inner}.",
            f"Proof. intros Hv; {facts}unfold {atom.name}; apply {lemma}; "
            f"{'[simpl; lra | side]' if atom.head == 'root' else 'side'}. Qed.",
        ]
    return "\n".join([*lines, ""])


def _fold_before(plan: Plan, place: int) -> str:
    if plan.field.degree > 1:
        return f"rewrite ?({plan.field.atoms[0].name}_power {plan.v} Hv); "
    return ""


def _facts(plan: Plan, count: int) -> str:
    """Asserts signs and derivatives of the first atoms at v."""
    text = ""
    for atom in plan.field.atoms[:count]:
        if fact := _fact(plan, atom):
            text += f"assert ({atom.name}_{fact[:3]} := {atom.name}_{fact} {plan.v} Hv); "
        text += f"assert ({atom.name}_der := {atom.name}_derivative {plan.v} Hv); "
    return text


def _rise_facts(plan: Plan, count: int) -> str:
    return "".join(
        f"assert ({a.name}_up := {a.name}_rises lo {plan.v} H0 H1); "
        for a in plan.field.atoms[:count]
        if a.rises
    )


def forget(plan: Plan, count: int) -> str:
    """From here on the atoms are unknown functions of which only the facts are known."""
    atoms = plan.field.atoms[:count]
    if not atoms:
        return ""
    facts = []
    for atom in atoms:
        fact = _fact(plan, atom)
        facts += ([f"{atom.name}_{fact[:3]}"] if fact else []) + [f"{atom.name}_der"]
    names = " ".join(a.name for a in atoms)
    general = ", ".join(a.name for a in atoms)
    known = " ".join(facts)
    return f"revert {known}; generalize {general}; intros {names} {known}; "


def _tactics(plan: Plan) -> str:
    """``settle``: an equality of formulas in v is one of rational functions of the atoms."""
    atoms, facts, folds = plan.field.atoms, [], []
    lines = ["Ltac expose x Hx := cbv zeta;"]
    if any(a.head == "exp" for a in atoms):
        lines.append("  rewrite ?exp_Ropp; exponentials;")
    for place, atom in enumerate(atoms):
        if place or plan.field.degree == 1:
            head = f"(root {atom.degree})" if atom.head == "root" else atom.head
            argument = Printer(lambda s: "x" if s == plan.statistic else show(s))
            canonical = argument(atom.original.args[0])
            lines.append(f"  argument_of {head} ({canonical});")
            folds.insert(0, f"  rewrite ?({atom.name}_form x Hx);")
    lines += folds  # the outermost first: its argument is still written out
    for atom in atoms:
        for fact in _known(plan, atom):
            lines.append(f"  assert ({atom.name}_{fact[:3]} := {atom.name}_{fact} x Hx);")
            facts.append(f"{atom.name}_{fact[:3]}")
    if atoms:
        values = ", ".join(f"({a.name} x)" for a in atoms)
        names = " ".join(a.name for a in atoms)
        back = f"revert {' '.join(facts)}; " if facts else ""
        lines.append(f"  {back}generalize {values}; intros {' '.join([names, *facts])};")
    if plan.field.degree > 1:
        lines.append("  subst x; roots;")
    lines += ["  idtac.", "Ltac settle x hx := expose x hx; decide_field; side.", ""]
    return "\n".join(lines)


def _known(plan: Plan, atom: Atom) -> list[str]:
    fact = _fact(plan, atom)
    return [*([fact] if fact else []), *(["power"] if atom.head in ("sqrt", "root") else [])]


# -- derivatives and bounds -----------------------------------------------------------------------


def derivatives(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The tower: each is the derivative of the one before, for every v > 0."""
    n, v = len(plan.tower) - 1, plan.v
    pattern = "[|" * n + "k" + "]" * n
    names = ", ".join(f"f_{k}" for k in range(n + 1))
    count = len(plan.field.atoms)
    goals = "| " * n + "| lia"
    text = (
        f"Theorem derivatives : tower f {n} (fun {v} => {plan.where(v)}).\n"
        f"Proof.\nintros k {v} Hk Hv; {_facts(plan, count)}\n"
        f"destruct k as {pattern}; [{goals[1:]}]; cbn [f]; unfold {names}; "
        f"{forget(plan, count)}differentiate.\nQed.\n"
    )
    says = f"f_1 to f_{n} are the derivatives of f {_everywhere(plan)}."
    return text, (Theorem("derivatives", says, "derivative"),)


def _everywhere(plan: Plan) -> str:
    if plan.box is None:
        return f"for every {plan.statistic} > 0"
    low, high = plan.box.ends[plan.statistic]
    return f"on [{low}, {high}]"


def bounds(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The last derivatives are bounded by their parts at the ends of the domain."""
    texts, found = [], []
    for order in plan.bounded:
        texts.append(_bound(plan, order))
        where = {"half_line": "for v >= lo", "interval": "on [lo, hi]", "box": _everywhere(plan)}
        says = (
            f"The {ORDINALS[order]} derivative of f is at most bound_{order}, in absolute value, "
            f"{where[plan.reach]}."
        )
        found.append(Theorem(f"bound_of_{ORDINALS[order]}_derivative", says, "bound"))
    return "\n".join(texts), tuple(found)


def ends(plan: Plan) -> str:
    return {"half_line": "lo", "interval": "lo hi", "box": ""}[plan.reach]


def _bound(plan: Plan, order: int) -> str:
    return _bound_on_box(plan, order) if plan.box is not None else _bound_by_form(plan, order)


def _bound_on_box(plan: Plan, order: int) -> str:
    v = plan.v
    return (
        f"Definition bound_{order} : R := {show(plan.box.bounds[order])}.\n"
        f"Theorem bound_of_{ORDINALS[order]}_derivative {v} : {plan.where(v)} ->\n"
        f"  Rabs (f_{order} {v}) <= bound_{order}.\n"
        f"Proof.\nintros Hv; unfold bound_{order}, f_{order}; {unfold_all(plan)}.\n"
        f"{bisect(plan)}.\nQed.\n"
    )


def _bound_by_form(plan: Plan, order: int) -> str:
    parts = plan.bounds[order]
    v, upper = plan.v, plan.reach == "interval"
    limits = " + ".join(_limit(plan, p) for p in parts) or "0"
    values = " + ".join(_value(plan, p) for p in parts) or "0"
    facts = ""
    for atom in (a for a in plan.field.atoms if a.rises):
        facts += f"assert ({atom.name}_up := {atom.name}_rises lo {v} Hlo Hv); "
        if upper:
            facts += f"assert ({atom.name}_top := {atom.name}_rises {v} hi Hx Hhi); "
    where = f"lo <= {v}" + (f" -> {v} <= hi" if upper else "")
    return (
        f"Definition bound_{order} ({ends(plan)} : R) : R :=\n  {limits}.\n"
        f"Theorem bound_of_{ORDINALS[order]}_derivative {ends(plan)} {v} : 0 < lo -> {where} ->\n"
        f"  Rabs (f_{order} {v}) <= bound_{order} {ends(plan)}.\n"
        f"Proof.\nintros Hlo Hv{' Hhi' if upper else ''}; assert (Hx : 0 < {v}) by lra; {facts}\n"
        f"replace (f_{order} {v}) with ({values}) by (unfold f_{order}; field; positive).\n"
        f"unfold bound_{order}; bounded.\nQed.\n"
    )


def _value(plan: Plan, part: Part) -> str:
    at = in_atoms(plan)
    return f"{_signed(part.coefficient)} * {_fraction(at, at, part)}"


def _limit(plan: Plan, part: Part) -> str:
    top, bottom = in_atoms(plan, "hi"), in_atoms(plan, "lo")
    return f"{_signed(abs(part.coefficient))} * {_fraction(top, bottom, part)}"


def _signed(value: sp.Rational) -> str:
    return show.argument(value)


def _fraction(top: Printer, bottom: Printer, part: Part) -> str:
    """``(top * / bottom)``: one form for the value and for the bound, so that they compare."""
    above = f"{top.argument(part.top)}"
    if part.bottom == 1:
        return above
    below = f"/ ({bottom(part.bottom)})"
    return f"({below})" if part.top == 1 else f"({above} * {below})"
