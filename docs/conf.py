"""Sphinx configuration."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import assets  # noqa: E402

import deltabias  # noqa: E402

project = "deltabias"
author = "The deltabias developers"
copyright = "The deltabias developers"
version = release = deltabias.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "api_pages",
    "study_pages",
    "benchmark_pages",
    "proof_pages",
    "diagnoses",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
# "value: number" in a docstring names a type; that two classes have a `value` is no mistake
suppress_warnings = ["ref.python"]
exclude_patterns = ["_build", "_ext", "_generated/.gitignore", "verify/examples"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# -n: names of this package must resolve. Others would need their inventories from the network,
# and what numpydoc writes as a type ("positive integer") is a word.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!deltabias\.).*")]

html_theme = "furo"
html_title = "deltabias"
html_static_path = ["_static", str(assets.mathjax(HERE.parent / "build" / "docs-assets"))]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
mathjax_path = assets.MATHJAX
mathjax3_config = {
    "tex": {
        "macros": {"E": r"\mathbb{E}", "Var": r"\operatorname{Var}", "Cov": r"\operatorname{Cov}"}
    },
    "options": {"enableMenu": False, "ignoreHtmlClass": "tex2jax_ignore|mathjax_ignore|document"},
    "svg": {"fontCache": "local"},
}
copybutton_exclude = ".linenos, .gp, .go"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
