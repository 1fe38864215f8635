"""What docs/extension.md shows builds without a warning, and its table has every option."""

import re
from pathlib import Path

from deltabias.sphinxext.options import CODE, DERIVATION, RULE

PAGE = (Path(__file__).parents[2] / "docs" / "extension.md").read_text(encoding="utf-8")
PLAIN = [b for b in re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S) if ":deltabias:" in b
         or b.startswith(".. deltabias")]  # fmt: skip
(MYST,) = re.findall(r"^````text\n(.*?)^````$", PAGE, re.M | re.S)


def test_every_example_builds(make_project):
    assert len(PLAIN) == 4
    pages = {
        "index.rst": "Page\n====\n\n" + "\n".join(PLAIN) + "\n.. toctree::\n\n   other\n",
        "other.md": f"# Other\n\n{MYST}",
    }
    done = make_project("sphinx.ext.mathjax", pages=pages).build("html", "-W", "-n", "-q")
    assert done.code == 0, done.said
    page = done.page("index.html")
    assert page.count("<details") >= 4
    assert "def" in page
    assert "Every parameter moves against" in done.page("other.html")


def test_every_option_is_in_the_table():
    listed = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`.*?) \| .*$", PAGE, re.M))))
    assert listed == {*RULE, *DERIVATION, *CODE}


def test_the_extension_is_found_by_the_name_on_the_page():
    code = re.search(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)[1]
    scope = {}
    exec(code, scope)
    assert scope["extensions"][-1] == "deltabias.sphinxext"
    assert callable(__import__(scope["extensions"][-1], fromlist=["setup"]).setup)
