"""Sphinx configuration."""

project = "deltabias"
author = "The deltabias developers"
copyright = "The deltabias developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
html_theme = "furo"
exclude_patterns = ["_build"]
