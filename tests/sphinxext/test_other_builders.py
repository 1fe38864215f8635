"""The same project with KaTeX, as text, as a manual page, and as LaTeX to PDF."""

import re
import shutil
import subprocess
from html import unescape

import pytest

from deltabias.explain import explain
from deltabias.notation.printing import display
from deltabias.rules import get_rule

STRICT = ("-W", "--keep-going", "-n", "-q")


@pytest.fixture(scope="module")
def project(make_project):
    return make_project("sphinx.ext.mathjax")


def test_html_with_katex_has_every_formula(make_project):
    pytest.importorskip("sphinxcontrib.katex", reason="no sphinxcontrib-katex")
    page = "AdamW\n=====\n\n.. deltabias:derivation:: adamw\n"
    project = make_project("sphinxcontrib.katex", pages={"index.rst": page})
    done = project.build("html", *STRICT)
    assert done.code == 0, done.said
    page = " ".join(unescape(done.page("index.html")).split())
    assert "katex" in page
    assert "mathjax" not in page.lower()
    explanation = explain(get_rule("adamw"))
    for passage in explanation.passages:
        if passage.expression is not None:
            assert " ".join(display(passage.expression, explanation.names).split()) in page


def test_text_draws_the_formulas_and_unfolds_the_steps(project):
    done = project.build("text", *STRICT)
    assert done.code == 0, done.said
    text = done.page("adamw.txt")
    assert "**The update**" in text
    assert "╲╱ exp_avg_sq" in text
    assert r"\frac" not in text
    assert "def corrected_update(" in done.page("code.txt")
    # a formula within a sentence, too
    assert "noise of variance var(exp_avg_sq) moves" in " ".join(text.split())


def test_a_manual_page_is_written(project):
    done = project.build("man", *STRICT)
    assert done.code == 0, done.said
    (page,) = done.out.glob("*.1")
    text = page.read_text(encoding="utf-8")
    assert r"\frac" not in text
    assert "The corrected update" in text


@pytest.fixture(scope="module")
def latex(project):
    done = project.build("latex", *STRICT)
    assert done.code == 0, done.said
    return done


def test_latex_has_the_formulas_and_no_markup(latex):
    text = latex.page("mine.tex")
    flat = " ".join(text.split())
    explanation = explain(get_rule("adamw"))
    for passage in explanation.of_kind("term", "bias", "corrected"):
        assert " ".join(display(passage.expression, explanation.names).split()) in flat
    assert "<details" not in text
    assert re.search(r"\\sphinxstylestrong\{The corrected update\}", text)


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="no latexmk")
def test_the_pdf_is_made_and_no_line_runs_off_the_page(latex):
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "mine.tex"]
    done = subprocess.run(command, cwd=latex.out, capture_output=True, text=True, timeout=120,
                          errors="replace", check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert (latex.out / "mine.pdf").stat().st_size > 50_000
    log = (latex.out / "mine.log").read_text(errors="replace")
    assert not re.findall(r"Overfull \\hbox \((?:[2-9]\d|\d{3,})\.", log)
    assert "Missing character" not in log
