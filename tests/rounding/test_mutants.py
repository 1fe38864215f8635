"""Mistakes planted in certificates: Gappa, or the check of the premises, rejects each of them.

A mutant changes one thing in a script that is proved as it stands.
"""

import re

import pytest

ADAMW = "adamw.corrected_update.float64.g"
ADAMW32 = "adamw.corrected_update.float32.g"
PLAIN = "adamw.plug_in_update.float64.g"
SOPHIA = "sophia_g.plug_in_update.float32.g"
INVERSE = "inverse.corrected_update.float64.g"

# name: (script, what stands there, what is put there)
MUTANTS = {
    "a product where the code divides": (
        ADAMW, "share = round(t_0 / denominator)", "share = round(t_0 * denominator)"),
    "eps inside the root": (
        PLAIN, "t_1 = round(t_0 + eps)", "t_1 = round(sqrt(exp_avg_sq + eps))"),
    "a square root forgotten": (PLAIN, "t_0 = round(sqrt(exp_avg_sq))", "t_0 = round(exp_avg_sq)"),
    "the coupling subtracted": (
        ADAMW, "numerator = round(exp_avg + t_4)", "numerator = round(exp_avg - t_4)"),
    "half the coefficient of coupling": (
        ADAMW, "t_4 = round(t_3 * 1b-1)", "t_4 = round(t_3 * 1b-2)"),
    "a coefficient off in its last bit": (
        ADAMW, "inversion = round(t_9 * 1b-3)",
        "inversion = round(t_9 * 4503599627370497b-55)"),
    "one more rounding": (
        PLAIN, "update = round(exp_avg / t_1)",
        "update = round(round(exp_avg / t_1) * 3b-2) / 3b-2"),
    "rounding towards zero": (ADAMW, "float<ieee_64,ne>", "float<ieee_64,zr>"),
    "half precision": (ADAMW32, "float<ieee_32,ne>", "float<11,-24,ne>"),
    "a domain that reaches zero": (PLAIN, "exp_avg_sq in [1b-100,", "exp_avg_sq in [0,"),
    "a domain in which products underflow": (
        ADAMW, "|relative_cov_exp_avg_exp_avg_sq| in [1b-100,",
        "|relative_cov_exp_avg_exp_avg_sq| in [1b-1060,"),
    "a variance above one": (
        ADAMW, "relative_var_exp_avg_sq in [1b-100,1]", "relative_var_exp_avg_sq in [1b-100,1b9]"),
    "a size that is less than its terms": (
        ADAMW, "|exact_t_4 / size_numerator| <= 1", "|exact_t_4 / size_numerator| <= 4"),
    "a clamp assumed exact": (
        SOPHIA, r"t_1 -/ exact_t_1 in \[[^]]*\]", "t_1 -/ exact_t_1 in [-0,0]"),
    "a crossing that is not proved": (
        SOPHIA, r"  qa_of_t_1 / ta_of_t_1 - 1 in \[[^]]*\]\n  /\\", " "),
    "an error forgotten after a sum": (
        ADAMW, r"(\|\(any_numerator - exact_any_numerator\) / size_any_numerator\| <= )\S+",
        r"\g<1>1b-60"),
    "a grid that is not proved": (ADAMW, r"\n  /\\ @FIX\(\S+\)", ""),
    "a grid that is too coarse": (ADAMW, r"@FIX\(numerator,(\S+)\)", "@FIX(numerator,-90)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_rejected(name, scripts, verdict):
    script, old, new = MUTANTS[name]
    text = scripts[script]
    pattern = old if "\\" in old else re.escape(old)
    mutant, count = re.subn(pattern, new, text, count=1)
    assert count == 1, f"{old} is not in {script}"
    assert verdict(mutant).status == "rejected"


def test_what_is_mutated_is_proved_as_it_stands(scripts, verdict):
    for script in {m[0] for m in MUTANTS.values()}:
        assert verdict(scripts[script]).status == "proved"


def test_the_premises_are_not_contradictory(scripts, verdict):
    for script in (ADAMW, SOPHIA, INVERSE):
        text = scripts[script]
        goals, close, hints = text.partition(" }\n")
        absurd = goals.partition("  ->\n")[0] + "  ->\n  absurd in [2,3]"
        assert verdict(absurd + close + hints).status == "rejected"


def test_every_premise_has_its_goal(checker, scripts):
    for text in scripts.values():
        assert checker.premises_without_a_goal(text) == []
