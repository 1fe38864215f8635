"""What cannot be certified is refused by name, with the operation and the reason."""

from fractions import Fraction

import pytest

from deltabias.codegen.gappa import (
    FLOAT32,
    FLOAT64,
    Range,
    RoundingError,
    certify_rounding,
    default_domain,
    rounding_bounds,
    rounding_line,
    rounding_scripts,
)
from deltabias.rule import UpdateRule


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g/(v-h)", "a division by t_0, a sum that may cancel to zero"),
        ("g/sqrt(v-h)", "the square root of t_0, which may be zero or negative"),
        ("g*exp(-v)", "exp of t_0 overflows on the domain"),
        ("g/log(v)", "log of v passes through zero on the domain"),
        ("max(g,0)/sqrt(v)", "a constant 0 has no relative error"),
        ("g*erf(sqrt(v))", "the library's error is stated for an exact argument"),
        ("(g-v)*(h+g)", "a product of two sums that may cancel"),
    ],
)
def test_an_operation_without_a_bound_is_refused_by_name(text, reason):
    rule = UpdateRule.parse(text, name="refused")
    bound = rounding_bounds(rule)[0]
    assert (bound.kind, bound.units, bound.bound) == ("refused", None, None)
    assert reason in bound.reason
    assert "refused.plug_in_update.float64.g" not in rounding_scripts(rule)


def test_a_narrower_domain_certifies_what_overflows_on_the_default():
    rule = UpdateRule.parse("g*exp(-v)", name="of_exp")
    bound = rounding_bounds(rule, {"v": Range(Fraction(1, 100), Fraction(10))})[0]
    assert bound.kind == "relative"
    assert bound.units < 6


@pytest.mark.parametrize(
    "allowed", [Range(Fraction(0), Fraction(1)), Range(Fraction(-1), Fraction(1))]
)
def test_a_domain_that_reaches_zero_is_refused(allowed, programs):
    found = programs["adamw"]
    domain = default_domain(found.rule, found.kernel, FLOAT64) | {"exp_avg_sq": allowed}
    with pytest.raises(RoundingError, match="stay away from zero"):
        certify_rounding(found.updates[0], FLOAT64, domain)


def test_a_domain_in_which_something_underflows_is_refused(programs):
    found = programs["adamw"]
    domain = default_domain(found.rule, found.kernel, FLOAT32)
    domain["relative_cov_exp_avg_exp_avg_sq"] = Range(Fraction(2) ** -120, Fraction(1), True)
    with pytest.raises(RoundingError, match="may under- or overflow float32"):
        certify_rounding(found.updates[1], FLOAT32, domain)


def test_an_argument_without_a_range_is_named(programs):
    found = programs["adamw"]
    with pytest.raises(RoundingError, match="no range for 'exp_avg'"):
        certify_rounding(found.updates[0], FLOAT64, {})


def test_the_line_in_a_docstring_is_the_worst_of_the_formats(bounds):
    of_adamw = tuple(b for k, b in bounds.items() if k[:2] == ("sophia", "plug_in_update"))
    assert [float(b.units) for b in of_adamw] == [2.015625, 3.015625]
    assert rounding_line(of_adamw) == (
        "Rounding: at most 3.02 u of the result in float64 and float32 (Gappa)."
    )
    refused = rounding_bounds(UpdateRule.parse("g/(v-h)"))
    assert rounding_line(refused) == ""


def test_without_gappa_the_checker_says_so(checker, monkeypatch, capsys):
    monkeypatch.setattr(checker.shutil, "which", lambda name: None)
    assert checker.main([]) == 2
    assert "gappa is not installed" in capsys.readouterr().err


def test_a_path_without_a_script_is_named(checker, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(checker.shutil, "which", lambda name: "/usr/bin/gappa")
    assert checker.main([str(tmp_path)]) == 2
    assert "no .g file" in capsys.readouterr().err
    assert checker.main([str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_time_limit_is_not_a_verdict(checker, tmp_path, monkeypatch):
    def too_slow(*arguments, **keywords):
        raise checker.subprocess.TimeoutExpired("gappa", 1)

    monkeypatch.setattr(checker.subprocess, "run", too_slow)
    path = tmp_path / "a.g"
    path.write_text("{ x in [0,1] -> x in [0,1] }")
    assert checker.check_script(path, 1).status == "time limit"
