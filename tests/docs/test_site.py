"""The site builds without a warning, is whole, and its links lead somewhere."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from tests.docs.conftest import DOCS, ROOT

from deltabias.rules import SUBJECTS

CHAPTERS = ("why", "start/index", "theory/index", "rules/index", "optimizers/index", "verify/index",
            "validation/index", "benchmarks", "api/index", "design/index", "bibliography",
            "changelog")  # fmt: skip


class Page(HTMLParser):
    """The links and the targets of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[k] for k in ("id", "name") if found.get(k)}
        self.links += [found[k] for k in ("href", "src") if found.get(k)]


@pytest.fixture(scope="module")
def pages(site):
    return {p: Page(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}


def test_the_site_builds_without_a_warning(build):
    said = json.loads((build / "build.json").read_text())
    assert said["code"] == 0, said["said"][-6000:]


def test_the_build_takes_less_than_five_minutes(build):
    assert json.loads((build / "build.json").read_text())["seconds"] < 300


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_is_there_and_reached_from_the_home_page(chapter, site, pages):
    assert (site / f"{chapter}.html").exists()
    assert f"{chapter}.html" in pages[site / "index.html"].links


@pytest.mark.parametrize("subject", SUBJECTS, ids=[s.name for s in SUBJECTS])
def test_every_subject_of_the_catalogue_has_a_page_with_figures(subject, site):
    text = (site / "rules" / f"{subject.name}.html").read_text(encoding="utf-8")
    for shade in ("light", "dark"):
        assert f"{subject.name}-{shade}.svg" in text
        assert (DOCS / "rules" / "figures" / f"{subject.name}-{shade}.svg").exists()
    listed = (DOCS / "rules" / "index.md").read_text(encoding="utf-8")
    assert re.search(rf"^{subject.name}$", listed, re.MULTILINE)


def test_every_study_and_every_file_of_the_theory_has_a_page(site):
    for path in (ROOT / "validation" / "results").glob("*.json"):
        assert (site / "_generated" / "validation" / f"{path.stem}.html").exists()
    for path in (ROOT / "proofs" / "theory").glob("*.v"):
        assert (site / "_generated" / "proofs" / f"{path.stem}.html").exists()


def test_every_benchmark_has_a_page_and_every_figure_stands_in_both_shades_with_words(site):
    import benchmark_pages

    measured = benchmark_pages.records()
    for name in measured:
        assert (site / "_generated" / "benchmarks" / f"{name}.html").exists()
    text = (site / "benchmarks.html").read_text(encoding="utf-8")
    images = re.findall(r'<img alt="([^"]+)"[^>]*src="[^"]*?([\w-]+)\.svg"', text)
    shown = {name for words, name in images if any(c.isdigit() for c in words)}
    for name in benchmark_pages.FIGURES:
        if benchmark_pages.shown(name, measured):
            assert {f"{name}-light", f"{name}-dark"} <= shown


def test_no_link_inside_the_site_is_dead(pages):
    dead = [
        f"{p.name}: {link}" for p in pages for link in pages[p].links if not alive(p, link, pages)
    ]
    assert dead == []


def alive(page, link, pages) -> bool:
    """Whether a link leads to a file, and to a place in it; links to elsewhere are not judged."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return False
    return target not in pages or not parts.fragment or unquote(parts.fragment) in pages[target].ids


def test_a_dead_link_would_be_seen(tmp_path):
    page = tmp_path / "a.html"
    page.write_text('<a href="b.html"></a><a href="#x"></a><a href="a.html#y"></a><p id="x"></p>')
    found = Page(page.read_text())
    assert [alive(page, link, {page: found}) for link in found.links] == [False, True, False]


def test_the_mathematics_comes_from_the_site_itself(site):
    text = (site / "rules" / "adamw.html").read_text(encoding="utf-8")
    assert (site / "_static" / "mathjax" / "tex-svg.js").is_file()
    sources = re.findall(r'<script[^>]+src="([^"]+)"', text)
    assert any("mathjax/tex-svg.js" in s for s in sources)
    assert not any(urlsplit(s).netloc for s in sources)
