"""Gappa proves every bound of the catalogue, and rejects what is a little less than true."""

import re
import shutil

import pytest

from deltabias.codegen.emit import MARK, digest
from deltabias.codegen.gappa import rounding_bounds, rounding_scripts
from deltabias.rule import UpdateRule
from deltabias.rules import CATALOGUE

from .conftest import ROOT

needs_gappa = pytest.mark.skipif(
    shutil.which("gappa") is None, reason="no gappa: sh proofs/install-coq.sh"
)
UNSEEN = ("g/(v**(1/3)+eps)", "g/log(1+v)", "g/(sqrt(v+eps))", "g/max(sqrt(v),1)", "-g/v")


@needs_gappa
def test_gappa_proves_the_bound_of_every_function_of_the_catalogue(checker):
    outcomes = checker.check_rounding(jobs=1)
    assert [o for o in outcomes if o.status != "proved"] == []
    assert len(outcomes) == 4 * len(CATALOGUE)


def test_the_scripts_on_disk_are_those_of_the_rules(programs):
    for rule in CATALOGUE.values():
        header = f"{MARK} Rule {rule.name}, digest {digest(rule)}."
        for name, text in rounding_scripts(programs[rule.name], header=header).items():
            assert (ROOT / "proofs" / "rounding" / name).read_text() == text


def test_no_function_of_the_catalogue_is_refused_or_stands_on_an_assumption(bounds):
    assert all(b.kind != "refused" and not b.assumptions for b in bounds.values())


@needs_gappa
@pytest.mark.parametrize("text", UNSEEN)
def test_a_rule_nobody_has_seen_is_certified(text, verdict):
    rule = UpdateRule.parse(text, name="unseen")
    scripts = rounding_scripts(rule)
    assert {"unseen.plug_in_update.float64.g", "unseen.corrected_update.float64.g"} <= set(scripts)
    for script in scripts.values():
        assert verdict(script).status == "proved"


@needs_gappa
@pytest.mark.parametrize("rule", ["inverse", "adamw", "sophia_g"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_half_of_a_bound_is_rejected(rule, dtype, scripts, verdict):
    for function in ("plug_in_update", "corrected_update"):
        assert verdict(_halved(scripts[f"{rule}.{function}.{dtype}.g"])).status == "rejected"


def _halved(text: str) -> str:
    """The claim, which is the last goal, with half its bound."""
    goals, close, hints = text.partition(" }\n")
    start = max(goals.rfind("\n  /\\ "), goals.rfind("  ->\n"))
    claim = re.sub(r"(\d+)b-(\d+)", lambda m: f"{m[1]}b-{int(m[2]) + 1}", goals[start:])
    assert claim != goals[start:]
    return goals[:start] + claim + close + hints


def test_a_bound_says_what_it_is_relative_to(bounds):
    assert bounds["adamw", "plug_in_update", "float64"].kind == "relative"
    assert bounds["adamw", "corrected_update", "float64"].kind == "size"
    # sophia_g has no coupling, so nothing of unlike sign is added
    assert bounds["sophia_g", "corrected_update", "float64"].kind == "relative"


def test_the_library_s_error_is_named_where_it_is_assumed():
    rule = UpdateRule.parse("g/log(1+v)", name="of_log")
    bound = rounding_bounds(rule)[0]
    assert bound.assumptions == ("torch's log1p within 2 units in the last place",)
    assert "# Assumed: torch's log1p" in rounding_scripts(rule)["of_log.plug_in_update.float64.g"]
