"""Text, LaTeX, HTML and JSON of an explanation: complete, within their width, harmless."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from sympy.printing.pretty.pretty_symbology import line_width

from deltabias.errors import DeltabiasError
from deltabias.explain import FORMATS, explain, render
from deltabias.explain.html import OPEN
from deltabias.explain.latex import escape
from deltabias.rule import MEAN_GRADIENT, MEAN_OF_SQUARES, Ema, Fresh, UpdateRule
from deltabias.rules import get_rule

NAMES = ["adamw", "sophia_g", "adagrad", "shampoo", "soap", "muon", "muon_polar"]
HOSTILE = 'A <b>& "title"</b> of 50% #{x}_1^2 ~ \\end{document} $y$ <script>1</script>'


def hostile():
    states = (Fresh("gradient", MEAN_GRADIENT), Ema("square_avg", MEAN_OF_SQUARES))
    return UpdateRule("hostile", "gradient/sqrt(square_avg)", states, (), HOSTILE, (HOSTILE,))


@pytest.mark.parametrize("width", [20, 33, 80, 120])
@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_text_is_wider_than_the_terminal(name, width):
    lines = render(explain(get_rule(name)), "text", width=width).splitlines()
    assert max(map(line_width, lines)) <= width


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_every_style_says_every_passage(name, style):
    explanation = explain(get_rule(name))
    text = render(explanation, style)
    flat = " ".join(text.split())
    for passage in explanation.passages:
        title = escape(passage.title) if style == "latex" else passage.title
        assert title in flat, passage.id
    assert text.endswith("\n")


def test_text_has_colors_only_when_they_are_asked_for():
    explanation = explain(get_rule("adamw"))
    plain, colored = (render(explanation, color=c) for c in (False, True))
    assert "\x1b" not in plain
    assert "\x1b" in colored
    assert re.sub(r"\x1b\[\d*m", "", colored) == plain


def test_json_is_strict_and_has_every_step():
    explanation = explain(get_rule("adamw"))

    def refuse(constant):
        raise AssertionError(constant)

    record = json.loads(render(explanation, "json"), parse_constant=refuse)
    assert [s["id"] for s in record["steps"]] == [p.id for p in explanation.passages]
    assert record["strategy"] == "delta"
    corrected = next(s for s in record["steps"] if s["id"] == "corrected")
    assert corrected["latex"] == r"\mathrm{corrected\_update} = \frac{n}{d \, \left(q + 1\right)}"


class Reader(HTMLParser):
    """Checks that tags are balanced and notes what there is."""

    EMPTY = ("meta",)

    def __init__(self):
        super().__init__()
        self.stack, self.tags, self.ids, self.opened = [], [], [], 0

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.opened += tag == "details" and "open" in given
        assert not any(key.startswith("on") or key in ("src", "href") for key in given)
        if tag not in self.EMPTY:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


@pytest.mark.parametrize("subject", [*map(get_rule, NAMES), hostile()], ids=lambda r: r.name)
def test_the_page_is_html_without_script_or_request_and_folds(subject):
    explanation = explain(subject)
    page = render(explanation, "html")
    reader = Reader()
    reader.feed(page)
    assert not reader.stack
    assert not {"script", "link", "img", "iframe", "b"} & set(reader.tags)
    assert reader.tags.count("details") == reader.tags.count("summary") == len(explanation.passages)
    assert reader.opened == len(explanation.of_kind(*OPEN))
    assert len(set(reader.ids)) == len(reader.ids) == len(explanation.passages)
    assert "http" not in page.replace("http://www.w3.org/1998/Math/MathML", "")


def test_a_title_is_data_in_latex():
    text = render(explain(hostile()), "latex")
    assert text.count(r"\end{document}") == 1
    assert escape(HOSTILE) in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_the_latex_documents_compile(tmp_path):
    subjects = [get_rule("adamw"), get_rule("sophia_g"), get_rule("shampoo"), hostile()]
    for subject in subjects:
        source = tmp_path / f"{subject.name}.tex"
        source.write_text(render(explain(subject), "latex"), encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True,
                              errors="replace", timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:]
        assert source.with_suffix(".pdf").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("style", "width", "said"),
    [("pdf", 80, "use one of text, latex, html, json"), ("text", 10, "use 20 or more")],
)
def test_a_style_or_a_width_that_is_none_is_refused(style, width, said):
    with pytest.raises(DeltabiasError, match=said):
        render(explain(get_rule("adamw")), style, width=width)
