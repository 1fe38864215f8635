"""What is wrong in a directive or a role is told with file, line and what is allowed."""

import re

import pytest

from deltabias.sphinxext.options import (
    CODE,
    DERIVATION,
    RULE,
    AnyOption,
    OptionError,
    read_options,
)

CASES = [
    (".. deltabias:rule:: adamww", "Did you mean 'adamw'"),
    (".. deltabias:rule:: adamw\n   :colour: red", "no option 'colour'; allowed are hyper, named"),
    (".. deltabias:derivation:: adamw\n   :order: 7", "option 'order': '7' is no order; use 1, 2"),
    (".. deltabias:derivation:: adamw\n   :correction: magic", "use one of plug_in"),
    (".. deltabias:derivation:: adamw\n   :correction: jackknife", "Use strategy='delta'"),
    (".. deltabias:derivation:: adamw\n   :steps: nowhere", "there are update, state-exp_avg"),
    (".. deltabias:derivation:: adamw\n   :open: sometimes", "use all, none, or some of update"),
    (".. deltabias:derivation:: nope.toml", "cannot be read"),
    (".. deltabias:derivation:: bad.toml", "has no 'update'"),
    (".. deltabias:code:: adamw\n   :function: magic", "has no function magic; it has "),
    (".. deltabias:code:: g/(v+k)\n   :hyper: k=x", "'x' is no number"),
    (".. deltabias:rule:: adamw\n   :named: mine", "names a rule that is typed"),
    (":deltabias:term:`adamw`", "write RULE:NAME, such as adamw:coupling"),
    (":deltabias:term:`adamw:cross`", "it has coupling, inversion, bias, update"),
    (":deltabias:rule:`nowhere`", "write '.. deltabias:rule:: nowhere'"),
]
MYST = """
# MyST

```{deltabias:derivation} adamw
:oder: 2
```

{deltabias:term}`nothing:bias`
"""
SAID_OF_MYST = {4: "no option 'oder'; allowed are", 8: "no rule 'nothing'"}


def page():
    """One page with all that is wrong, and the line of each."""
    lines, at = ["Wrong", "=====", ""], []
    for text, _ in CASES:
        at.append(len(lines) + 1)
        lines += [*text.splitlines(), ""]
    return "\n".join(lines), at


@pytest.fixture(scope="module")
def project(make_project):
    text, _ = page()
    pages = {
        "index.rst": text + "\n.. toctree::\n\n   myst\n   twice\n",
        "myst.md": MYST,
        "twice.rst": "Twice\n=====\n\n.. deltabias:rule:: adam\n\n.. deltabias:rule:: adam\n",
    }
    project = make_project("sphinx.ext.mathjax", pages=pages)
    project.write("bad.toml", 'name = "bad"\n[states.g]\nkind = "fresh"')
    return project


@pytest.fixture(scope="module")
def built(project):
    return project.build("html", "-q")


def test_the_build_goes_on(built):
    assert built.code == 0, built.said
    assert "<h1>Wrong" in built.page("index.html")
    assert "Traceback" not in built.said


@pytest.mark.parametrize("index", range(len(CASES)), ids=[c[0].split("\n")[-1] for c in CASES])
def test_a_warning_has_file_and_line_and_what_is_allowed(built, index):
    _, at = page()
    warnings = re.findall(rf"index\.rst:{at[index]}: WARNING: (.*)", built.said)
    assert any(CASES[index][1] in w for w in warnings), (warnings, built.said)


@pytest.mark.parametrize("line", SAID_OF_MYST)
def test_so_has_one_in_myst(built, line):
    warnings = re.findall(rf"myst\.md:{line - 1}: WARNING: (.*)", built.said)
    assert any(SAID_OF_MYST[line] in w for w in warnings), built.said


def test_a_rule_that_is_described_twice_is_told(built):
    assert re.search(
        r"twice\.rst:6: WARNING: rule 'adam' is described twice.*:no-index:", built.said
    )


def test_there_is_one_warning_for_each_mistake_and_no_other(built):
    assert built.said.count("WARNING") == len(CASES) + len(SAID_OF_MYST) + 1
    assert "ERROR" not in built.said


def test_a_file_that_is_mended_brings_its_page_back_and_warnings_fail_under_w(built, project):
    project.write("bad.toml", 'name = "bad"\nupdate = "1/g"\n[states.g]\nkind = "fresh"')
    again = project.build("html", "-W", "--keep-going")
    assert again.code == 1
    assert "index" in again.read
    assert "has no 'update'" not in again.said


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "allowed", "said"),
    [
        ({"hyper": ""}, RULE, "option 'hyper': is empty"),
        ({"no-index": "yes"}, RULE, "takes no value"),
        ({"open": "all, term"}, DERIVATION, "all: use all, none"),
        ({"steps": None}, DERIVATION, "is empty"),
        ({"caption": " "}, CODE, "is empty"),
        ({"Order": "1"}, DERIVATION, "no option 'Order'; allowed are hyper, named, order"),
    ],
)
def test_options_say_what_is_allowed(given, allowed, said):
    with pytest.raises(OptionError, match=said):
        read_options(given, allowed)


def test_options_are_read():
    given = {"hyper": "k=0.5, j", "steps": "term 1,bias", "open": "all", "order": "3"}
    found = read_options(given, DERIVATION)
    assert found["hyper"] == {"k": 0.5, "j": 1e-8}
    assert found["steps"] == ("term", "1", "bias")
    assert found["order"] == 3
    assert read_options({"no-index": None, "named": "x"}, RULE) == {"no_index": True, "named": "x"}


def test_every_option_reaches_our_own_check():
    anything = AnyOption()
    assert anything
    assert "whatever" in anything
    assert anything["whatever"]("kept") == "kept"
