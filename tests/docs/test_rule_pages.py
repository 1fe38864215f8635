"""A rule's page and its code come from the same objects; the figures show slopes 1 and 2."""

import importlib.util
import re
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from tests.docs.conftest import DOCS

from deltabias.calculus.spectral import EIGENVALUE, SpectralMap
from deltabias.codegen import eager
from deltabias.codegen.kernels import rule_programs, update_program
from deltabias.codegen.matrix_pages import map_page
from deltabias.codegen.pages import Links, own_links, plain_text, rule_page
from deltabias.explain.record import KINDS
from deltabias.rule import BETA1, BETA2, EPS, MEAN_GRADIENT, MEAN_OF_SQUARES, Ema, UpdateRule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE, SPECTRAL_MAPS, get_rule

PAGES = sorted((DOCS / "rules").glob("*.md"))
MATHEMATICS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)


def with_inversion_times(programs, factor):
    """The programs of a rule whose kernel has one coefficient changed."""
    kernel = programs.kernel
    definitions = tuple(
        replace(d, expression=d.expression * factor) if d.name == "inversion" else d
        for d in kernel.definitions
    )
    changed = replace(kernel, definitions=definitions)
    updates = (programs.updates[0], update_program(programs.rule, changed))
    return replace(programs, kernel=changed, updates=updates)


def test_a_changed_coefficient_changes_the_page_and_the_code_together():
    programs = rule_programs(get_rule("inverse_sqrt"))
    changed = with_inversion_times(programs, sp.Rational(2, 3))
    assert r"$$ q = \frac{3 \, r_{v}}{8} $$" in rule_page(programs, "mark")
    assert r"$$ q = \frac{r_{v}}{4} $$" in rule_page(changed, "mark")
    assert "relative_var_v * 0.375" in eager.render(programs.updates[1])
    assert "relative_var_v * 0.25" in eager.render(changed.updates[1])


@pytest.mark.parametrize("page", PAGES, ids=[p.stem for p in PAGES])
def test_no_name_of_the_code_is_typeset_as_an_index(page):
    for found in MATHEMATICS.finditer(page.read_text(encoding="utf-8")):
        assert not re.search(r"exp_\{avg|_\{avg|relative_", found[0]), found[0]


def test_the_page_of_a_users_rule_links_to_its_own_files_alone():
    rule = UpdateRule.parse("g/(v**(1/3)+eps)", name="mine")
    text = rule_page(rule_programs(rule), "mark", own_links("mine"))
    assert "literalinclude} mine.py" in text
    assert "figures/" not in text
    assert "the rule as typed" in text
    for part in ("## Its bias", "## Step by step", "## The safe form", "**Valid where**"):
        assert part in text


def test_the_steps_of_a_page_are_those_of_the_explanation():
    text = (DOCS / "rules" / "adamw.md").read_text(encoding="utf-8")
    steps = re.findall(r"^::::\{dropdown\} (\d+)\. (.+)$", text, re.MULTILINE)
    assert [int(n) for n, _ in steps] == list(range(1, len(steps) + 1))
    assert "Coupling" in dict(steps).values()
    assert steps[0][1] == "The update"
    assert "term" in KINDS


def test_a_strategy_that_does_not_apply_is_said_with_its_reason():
    text = (DOCS / "rules" / "adamw.md").read_text(encoding="utf-8")
    assert "`jackknife` does not apply" in text
    assert "| `delta` | 2 | trajectory | 1 |" in text


def test_words_with_the_signs_of_markdown_stay_words():
    assert plain_text("a_b * c | $d$") == r"a\_b \* c \| \$d\$"


def test_the_page_of_a_map_shows_its_value_at_equal_eigenvalues():
    text = map_page(SpectralMap("fifth", EIGENVALUE ** sp.Rational(-1, 5)), "mark", Links())
    assert r"\frac{3}{25 \, s_{i}^{11}}" in text  # (p + 1)/(2 p^2) at p = 5


@pytest.mark.parametrize("power", ["1/3", "1/4", "2/3"])
def test_an_average_under_any_root_has_its_programs_and_its_page(power):
    """The meter reads the root of v whatever power of v the update takes."""
    states = (
        Ema("exp_avg", MEAN_GRADIENT, beta=BETA1),
        Ema("exp_avg_sq", MEAN_OF_SQUARES, beta=BETA2),
    )
    rule = UpdateRule("rooted", f"exp_avg/(exp_avg_sq**({power}) + eps)", states, (EPS,))
    programs = rule_programs(rule)
    assert {p.name for p in programs.meters} == {"meter_delta", "meter_inversion"}
    assert "## Step by step" in rule_page(programs, "mark", own_links("rooted"))


@pytest.fixture(scope="module")
def figures():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("site_figures", DOCS / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slope(values) -> float:
    """Per halving of 1/m, over the last two sizes."""
    return float(np.log2(values[-2] / values[-1]))


SUBJECTS = [*SPECTRAL_MAPS.values(), *MATRIX_CATALOGUE.values()]


@pytest.mark.parametrize("subject", SUBJECTS, ids=[s.name for s in SUBJECTS])
def test_the_figure_of_a_matrix_subject_shows_order_one_and_order_two(figures, subject):
    lines = figures.matrix_lines(subject)
    assert abs(slope(lines["the bias itself"]) - 1) < 0.05
    assert abs(slope(lines["left by the derived terms"]) - 2) < 0.1


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_figure_of_a_scalar_rule_has_both_laws_and_falls_faster_when_corrected(figures, name):
    lines = figures.scalar_lines(name)
    assert set(lines) == {"two-point", "skewed"}
    for by_label in lines.values():
        plain, left = (by_label[figures.LABELS[k]][1] for k in list(figures.LABELS)[:2])
        assert abs(slope(plain) - 1) < 0.1
        assert abs(slope(left) - 2) < 0.1


def test_a_figure_is_the_same_text_when_it_is_drawn_again(figures, tmp_path):
    lines = figures.scalar_lines("inverse")
    for part in ("a", "b"):
        figures.both_shades(figures.draw_scalar(lines), tmp_path / part)
    for shade in ("light", "dark"):
        first, second = (tmp_path / f"{part}-{shade}.svg" for part in ("a", "b"))
        assert first.read_text() == second.read_text()
    assert first.read_text() != (tmp_path / "a-light.svg").read_text()


@pytest.mark.parametrize("name", [*CATALOGUE, *SPECTRAL_MAPS, *MATRIX_CATALOGUE])
def test_the_page_of_a_subject_shows_its_certificate_which_is_there(name):
    page = DOCS / "rules" / f"{name}.md"
    shown = re.findall(r"^```\{certificate\} (\S+)$", page.read_text(encoding="utf-8"), re.M)
    assert [(page.parent / path).resolve().name for path in shown] == [f"{name}.v"]
    assert (page.parent / shown[0]).is_file()
