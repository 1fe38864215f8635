"""Coq text about the bias: the derived coefficients, and what is left, for states and batches."""

import sympy as sp

from deltabias.codegen.coq.certificate import Theorem
from deltabias.codegen.coq.map_text import ends, show, smooth_name
from deltabias.codegen.coq.plan import Plan
from deltabias.errors import CertifyError


def coefficients(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """Each derived coefficient is the Taylor coefficient it stands for."""
    texts, found = [], []
    for name, expression, taylor, says in _stated(plan):
        texts.append(
            f"Definition {name} {plan.arguments} : R := {show(expression)}.\n"
            f"Theorem {name}_is_derived {plan.call} : {plan.where(plan.v)} ->\n"
            f"  {name} {plan.call} = {taylor}.\n"
            f"Proof. intros Hv; unfold {name}, {_unfolded(taylor)}; settle {plan.v} Hv. Qed.\n"
        )
        found.append(Theorem(f"{name}_is_derived", says, "coefficient"))
    return "\n".join(texts), tuple(found)


def _unfolded(taylor: str) -> str:
    return next(word for word in taylor.split() if word.startswith("f_"))


def _stated(plan: Plan) -> list[tuple[str, sp.Expr, str, str]]:
    """Name, derived expression, Taylor coefficient, sentence."""
    v, g = plan.v, plan.g
    if g is not None:
        rows = [
            ("coupling", (1, 1), f"f_1 {v}", "f'(v)"),
            ("inversion", (0, 2), f"/ 2 * {g} * f_2 {v}", "g f''(v)/2"),
        ]
        if plan.order == 4:
            rows += [
                ("mixed", (1, 2), f"/ 2 * f_2 {v}", "f''(v)/2"),
                ("skewness", (0, 3), f"/ 6 * {g} * f_3 {v}", "g f'''(v)/6"),
                ("mixed_square", (1, 3), f"/ 2 * f_3 {v}", "f'''(v)/2"),
                ("square", (0, 4), f"/ 8 * {g} * f_4 {v}", "g f''''(v)/8"),
            ]
        return [
            _row(n, plan.coefficient(plan.index(*d)), t, says)
            for n, d, t, says in rows
            if not (n in ("coupling", "mixed", "mixed_square") and plan.independent)
        ]
    rows = [("inversion", 2, "/ 2", "f''(v)/2")]
    if plan.order == 4:
        rows += [
            ("skewness", 3, "/ 6", "f'''(v)/6"),
            ("square", 4, "/ 8", "f''''(v)/8"),
        ]
    return [
        _row(n, plan.coefficient(plan.index(0, k)), f"{weight} * f_{k} {v}", says)
        for n, k, weight, says in rows
    ]


MOMENTS = {
    "coupling": "the covariance",
    "inversion": "the variance",
    "skewness": "the third cumulant",
    "square": "the squared variance",
    "mixed": "the third cumulant of numerator, statistic, statistic",
    "mixed_square": "covariance times variance",
}


def _row(name: str, derived: sp.Expr, taylor: str, says: str) -> tuple[str, sp.Expr, str, str]:
    says = f"The derived coefficient of {MOMENTS[name]}, {derived}, is {says}."
    return f"{name}_coefficient", derived, taylor, says


# -- the states' bias -----------------------------------------------------------------------------


def _domain(plan: Plan) -> tuple[str, str, str]:
    """Premise about V, the set D of the theory, and the proof that it is convex."""
    if plan.reach == "half_line":
        return "lo <= V a", "(fun x => lo <= x)", "convex_half_line lo"
    low, high = plan.ends
    set_ = f"(fun x => {low} <= x <= {high})"
    return f"{low} <= V a <= {high}", set_, f"convex_interval {low} {high}"


def _opening(plan: Plan) -> str:
    """The premise about the lower end; numbers need none."""
    return "0 < lo -> " if plan.box is None else ""


def _named(plan: Plan) -> str:
    return "Hlo " if plan.box is None else ""


def _bound_proof(plan: Plan, order: int) -> str:
    words = {3: "third", 4: "fourth", 5: "fifth", 6: "sixth"}
    return f"intros; apply bound_of_{words[order]}_derivative; within"


def _tower_proof(plan: Plan) -> str:
    return "intros k t Hk Ht; apply derivatives; [lia | cbv beta in Ht; within]"


def states(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The delta theorem for the states, whatever law they have on the domain."""
    several = _two_at_fourth_order if plan.order == 4 else _two_statistics
    body = _one_statistic(plan) if plan.g is None else several(plan)
    inside = " inside the smooth part" if plan.kinked else ""
    terms = {
        (True, 2): "half the second derivative times the variance",
        (True, 4): "terms in the variance and in the third and fourth central moments",
        (False, 2): "coupling, inversion and the mixed third moment",
        (
            False,
            4,
        ): "coupling, inversion and all terms in moments up to the fourth of the statistic",
    }[plan.g is None, plan.order]
    if plan.independent:
        terms = "inversion and the mixed third moment, for uncorrelated states"
    power = "cubed" if plan.order == 2 else "to the fifth"
    says = (
        f"For any finite law of the states{inside} the mean update is the population's plus {terms}"
        f", and what is left is at most bound_{plan.order + 1} over {6 if plan.order == 2 else 120}"
        f" times the mean of |{plan.statistic} - mean| {power}"
        + (" weighted with |numerator|." if plan.g is not None else ".")
    )
    return body, (Theorem("bias_of_the_states", says, "remainder"),)


def _inside_premise(plan: Plan) -> str:
    if not plan.kinked:
        return ""
    values = "(V a)" if plan.g is None else "(G a) (V a)"
    return f"surely L (fun a => inside {values}) -> "


def _replaced(plan: Plan, law: str, binder: str, g: str, v: str) -> str:
    """Proof lines: under the expectation the update is the map."""
    call = v if plan.g is None else f"{g} {v}"
    value = f"f_0 {v}" if plan.g is None else f"{g} * f_0 {v}"
    lines = (
        f"rewrite (E_surely_ext {law} (fun {binder} => update {call}) (fun {binder} => {value})).\n"
    )
    both = "surely_and _ _ _ Hs Hin" if plan.kinked else "Hs"
    inside = "rewrite update_inside by (assumption || tauto); " if plan.kinked else ""
    pattern = "[Ha Hi]" if plan.kinked else "Ha"
    return (
        f"{lines}2: {{ generalize ({both}); apply surely_imp; intros {binder} {pattern}; "
        f"cbv beta in Ha; assert (Hp : {plan.where(v)}) by within; {inside}"
        "now apply update_is_the_map. }\n"
    )


def _two_statistics(plan: Plan) -> str:
    premise, place, convex = _domain(plan)
    g, v = plan.g, plan.v
    coupling = "" if plan.independent else f" + coupling_coefficient {g} {v} * Cov L G V"
    uncorrelated = "Cov L G V = 0 -> " if plan.independent else ""
    b = f"bound_3 {ends(plan)}"
    stated = ["inversion_coefficient"] + ([] if plan.independent else ["coupling_coefficient"])
    rewrites = ", ".join(f"{n}_is_derived" for n in stated)
    zero = "rewrite Hzero in Main; " if plan.independent else ""
    return (
        f"Theorem bias_of_the_states {{A}} {ends(plan)} (L : law A) (G V : A -> R) :\n"
        f"  probability L -> {_opening(plan)}surely L (fun a => {premise}) ->\n"
        f"  {_inside_premise(plan)}{uncorrelated}let {g} := mean L G in let {v} := mean L V in\n"
        f"  Rabs (E L (fun a => update (G a) (V a))\n"
        f"        - ({smooth_name(plan)} {g} {v}{coupling}\n"
        f"           + inversion_coefficient {g} {v} * Var L V\n"
        f"           + / 2 * f_2 {v} * E L (fun a => (G a - {g}) * (V a - {v}) ^ 2)))\n"
        f"    <= {b} / 6 * E L (fun a => Rabs (G a) * Rabs (V a - {v}) ^ 3).\n"
        f"Proof.\nintros HL {_named(plan)}Hs {'Hin ' if plan.kinked else ''}"
        f"{'Hzero ' if plan.independent else ''}{g} {v}.\n"
        f"assert (Main := coupling_and_inversion f {place} ({b}) L G V HL ({convex})\n"
        f"  ltac:({_tower_proof(plan)}) ltac:({_bound_proof(plan, 3)}) Hs).\n"
        f"{_mean_positive(plan, place, convex)}"
        + _replaced(plan, "L", "a", "(G a)", "(V a)")
        + f"rewrite update_is_the_map, {rewrites} by exact Hmu.\n"
        f"{zero}eapply Rle_trans; [|exact Main]; right; f_equal; cbn [f]; fold {g} {v}; ring.\n"
        "Qed.\n"
    )


def _two_at_fourth_order(plan: Plan) -> str:
    """E (G - g)^j (V - v)^k is `moment L j k G V` in the theory."""
    premise, place, convex = _domain(plan)
    g, v, b = plan.g, plan.v, f"bound_5 {ends(plan)}"
    if plan.independent:
        raise CertifyError(
            f"rule {plan.rule.name!r}: at fourth order states that are independent by construction "
            "are not certified; use --order 2."
        )
    names = ("coupling", "inversion", "mixed", "skewness", "mixed_square", "square")
    rewrites = ", ".join(f"{n}_coefficient_is_derived" for n in names)
    at = f"{g} {v}"
    return (
        f"Theorem bias_of_the_states {{A}} {ends(plan)} (L : law A) (G V : A -> R) :\n"
        f"  probability L -> {_opening(plan)}surely L (fun a => {premise}) ->\n"
        f"  {_inside_premise(plan)}let {g} := mean L G in let {v} := mean L V in\n"
        f"  Rabs (E L (fun a => update (G a) (V a))\n"
        f"        - ({smooth_name(plan)} {at} + coupling_coefficient {at} * Cov L G V\n"
        f"           + inversion_coefficient {at} * Var L V\n"
        f"           + mixed_coefficient {at} * moment L 1 2 G V\n"
        f"           + skewness_coefficient {at} * central L 3 V\n"
        f"           + / 3 * mixed_square_coefficient {at} * moment L 1 3 G V\n"
        f"           + / 3 * square_coefficient {at} * central L 4 V\n"
        f"           + / 24 * f_4 {v} * moment L 1 4 G V))\n"
        f"    <= {b} / 120 * E L (fun a => Rabs (G a) * Rabs (V a - {v}) ^ 5).\n"
        f"Proof.\nintros HL {_named(plan)}Hs {'Hin ' if plan.kinked else ''}{g} {v}.\n"
        f"assert (Main := delta_theorem_ratio f 4 {place} ({b}) L G V HL ({convex})\n"
        f"  ltac:({_tower_proof(plan)}) ltac:({_bound_proof(plan, 5)}) Hs).\n"
        "cbn [sum_f_R0] in Main; rewrite !E_factor, central_0, central_1, moment_10, moment_11\n"
        "  in Main by exact HL.\n"
        "change (central L 2 V) with (Var L V) in Main.\n"
        "replace (INR (fact 5)) with 120 in Main by (simpl; ring).\n"
        f"{_mean_positive(plan, place, convex)}"
        + _replaced(plan, "L", "a", "(G a)", "(V a)")
        + f"rewrite update_is_the_map, {rewrites} by exact Hmu.\n"
        f"eapply Rle_trans; [|exact Main]; right; f_equal; cbn [f]; fold {g} {v}; simpl fact; "
        "simpl INR; field.\nQed.\n"
    )


def _mean_positive(plan: Plan, place: str, convex: str) -> str:
    return (
        f"assert (Hmu : {plan.where('mean L V')})\n"
        f"  by (assert (Hy := mean_in_convex {place} L V HL ({convex}) Hs);\n"
        "    cbv beta in Hy; within).\n"
    )


def _one_statistic(plan: Plan) -> str:
    premise, place, convex = _domain(plan)
    v, order = plan.v, plan.order
    b = f"bound_{order + 1} {ends(plan)}"
    theorem = "delta_second_order" if order == 2 else "delta_fourth_order"
    more = (
        f"\n           + skewness_coefficient {v} * central L 3 V + / 24 * f_4 {v} * central L 4 V"
        if order == 4
        else ""
    )
    names = "inversion_coefficient_is_derived" + (
        ", skewness_coefficient_is_derived" if order == 4 else ""
    )
    return (
        f"Theorem bias_of_the_states {{A}} {ends(plan)} (L : law A) (V : A -> R) :\n"
        f"  probability L -> {_opening(plan)}surely L (fun a => {premise}) ->\n"
        f"  {_inside_premise(plan)}let {v} := mean L V in\n"
        f"  Rabs (E L (fun a => update (V a))\n"
        f"        - ({smooth_name(plan)} {v} + inversion_coefficient {v} * Var L V{more}))\n"
        f"    <= {b} / {6 if order == 2 else 120}"
        f" * E L (fun a => Rabs (V a - {v}) ^ {order + 1}).\n"
        f"Proof.\nintros HL {_named(plan)}Hs {'Hin ' if plan.kinked else ''}{v}.\n"
        f"assert (Main := {theorem} f {place} ({b}) L V HL ({convex})\n"
        f"  ltac:({_tower_proof(plan)}) ltac:({_bound_proof(plan, order + 1)}) Hs).\n"
        f"{_mean_positive(plan, place, convex)}"
        + _replaced(plan, "L", "a", "", "(V a)")
        + f"rewrite update_is_the_map, {names} by exact Hmu.\n"
        f"eapply Rle_trans; [|exact Main]; right; f_equal; cbn [f]; fold {v}; ring.\nQed.\n"
    )


# -- a batch's bias -------------------------------------------------------------------------------


def batch(plan: Plan) -> tuple[str, tuple[Theorem, ...]]:
    """The expansion in 1/m for means over m independent microbatches."""
    inside = ", if those means stay in the smooth part" if plan.kinked else ""
    if plan.order == 4 and plan.g is None:
        says = (
            "For means of m independent microbatches the mean update is the population's plus "
            "inversion/m plus the terms in 1/m^2 of skewness and squared variance, and what is "
            f"left is at most an explicit constant over m^3{inside}."
        )
    else:
        first = "inversion" if plan.g is None or plan.independent else "coupling and inversion"
        says = (
            f"For means of m independent microbatches the mean update is the population's plus "
            f"{first} over m, and what is left is at most an explicit constant over m^2{inside}."
        )
    body = _batch_fourth(plan) if plan.order == 4 and plan.g is None else _batch_second(plan)
    return body, (Theorem("bias_of_a_batch", says, "remainder"),)


def _batch_premises(plan: Plan) -> str:
    premise, _, _ = _domain(plan)
    values = "(average m V l)" if plan.g is None else "(average m G l) (average m V l)"
    text = f"  probability L -> {_opening(plan)}surely L (fun a => {premise}) -> (0 < m)%nat ->\n"
    if plan.kinked:
        text += f"  surely (sample m L) (fun l => inside {values}) ->\n"
    return text


def _averages_stay(plan: Plan) -> str:
    _, place, convex = _domain(plan)
    return (
        f"assert (Hs : surely (sample m L) (fun l => {place} (average m V l))).\n"
        "{ generalize (surely_and _ _ _ (length_sample m L) (surely_sample m L _ HV)).\n"
        "  apply surely_imp; intros l [Hl Hall]; apply average_in_convex; auto; "
        f"apply ({convex}). }}\n"
    )


def _batch_second(plan: Plan) -> str:
    _, place, convex = _domain(plan)
    g, v, b = plan.g or "1", plan.v, f"bound_4 {ends(plan)}"
    two = plan.g is not None
    coupling = f"coupling_coefficient {plan.call} * Cov L G V + "
    coupling = "" if plan.independent or not two else coupling
    numerator = "G" if two else "(fun _ => 1)"
    limit = "limit" if two else "1"
    stated = ["inversion_coefficient"] + (["coupling_coefficient"] if coupling else [])
    rewrites = ", ".join(f"{n}_is_derived" for n in stated)
    bounded = "  surely L (fun a => - limit <= G a <= limit) ->\n" if two else ""
    extra = "  Cov L G V = 0 ->\n" if plan.independent else ""
    one = "" if two else _average_of_one()
    lets = f"let {g} := mean L G in let {v} := mean L V in" if two else f"let {v} := mean L V in"
    fold = f"fold {g} {v}" if two else f"fold {v}"
    names = f"{g} {v}" if two else v
    more = ("Hb " if two else "") + ("Hzero " if plan.independent else "")
    zero = "rewrite Hzero in Main; " if plan.independent else ""
    flat = "" if two else "rewrite (Cov_one L V HL), (mean_one L HL) in Main; "
    return (
        f"Theorem bias_of_a_batch {{A}} {ends(plan)} {'limit ' if two else ''}(L : law A) "
        f"({'G ' if two else ''}V : A -> R) (m : nat) :\n"
        + _batch_premises(plan)
        + bounded
        + extra
        + f"  {lets}\n"
        "  Rabs (E (sample m L) (fun l => update "
        f"{'(average m G l) ' if two else ''}(average m V l))\n"
        f"        - ({smooth_name(plan)} {plan.call}\n"
        f"           + ({coupling}inversion_coefficient {plan.call} * Var L V) / INR m))\n"
        f"    <= second_constant f ({b}) {limit} L {numerator} V / INR m ^ 2.\n"
        f"Proof.\nintros HL {_named(plan)}HV Hm {'Hin ' if plan.kinked else ''}{more}{names}.\n"
        f"assert (Main := both_biases_of_a_batch f {place} ({b}) {limit} L {numerator} V HL\n"
        f"  ({convex})\n"
        f"  ltac:({_tower_proof(plan)}) ltac:({_bound_proof(plan, 4)}) HV "
        f"{'Hb' if two else '(unit_bounded L)'} m Hm).\n"
        + f"{_averages_stay(plan)}{_mean_positive(plan, place, convex).replace('Hs)', 'HV)')}"
        + one
        + _replaced(plan, "(sample m L)", "l", "(average m G l)", "(average m V l)")
        + f"rewrite update_is_the_map, {rewrites} by exact Hmu;\n"
        f"unfold coupling, inversion in Main; {flat}{zero}\n"
        f"eapply Rle_trans; [|exact Main]; right; f_equal; cbn [f]; {fold}; unfold Rdiv; ring.\n"
        "Qed.\n"
    )


def _average_of_one() -> str:
    """Proof line: without a numerator the batch theorem is used with the numerator one."""
    return "rewrite (E_average_one m L (fun l => f 0%nat (average m V l)) Hm) in Main.\n"


def _batch_fourth(plan: Plan) -> str:
    _, place, convex = _domain(plan)
    v, b = plan.v, f"bound_6 {ends(plan)}"
    return (
        f"Theorem bias_of_a_batch {{A}} {ends(plan)} (L : law A) (V : A -> R) (m : nat) :\n"
        + _batch_premises(plan)
        + f"  let {v} := mean L V in\n"
        "  Rabs (E (sample m L) (fun l => update (average m V l))\n"
        f"        - ({smooth_name(plan)} {v} + inversion_coefficient {v} * Var L V / INR m\n"
        f"           + (skewness_coefficient {v} * central L 3 V\n"
        f"              + square_coefficient {v} * Var L V ^ 2) / INR m ^ 2))\n"
        f"    <= third_constant f ({b}) L V / INR m ^ 3.\n"
        f"Proof.\nintros HL {_named(plan)}HV Hm {'Hin ' if plan.kinked else ''}{v}.\n"
        f"assert (Main := delta_of_mean f {place} ({b}) L V HL ({convex})\n"
        f"  ltac:({_tower_proof(plan)}) ltac:({_bound_proof(plan, 6)}) HV m Hm).\n"
        + f"{_averages_stay(plan)}{_mean_positive(plan, place, convex).replace('Hs)', 'HV)')}"
        + _replaced(plan, "(sample m L)", "l", "", "(average m V l)")
        + "rewrite update_is_the_map, inversion_coefficient_is_derived,\n"
        "  skewness_coefficient_is_derived, square_coefficient_is_derived by exact Hmu.\n"
        "unfold first_coefficient, second_coefficient in Main.\n"
        f"eapply Rle_trans; [|exact Main]; right; f_equal; cbn [f]; fold {v}; unfold Rdiv.\n"
        "assert (INR m <> 0) by (apply not_0_INR; lia); field; assumption.\nQed.\n"
    )
