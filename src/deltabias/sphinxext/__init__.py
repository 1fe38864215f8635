"""A Sphinx extension: rules, their derivations and their code in anybody's documentation.

    extensions = ["sphinx.ext.mathjax", "deltabias.sphinxext"]      # or sphinxcontrib.katex

    .. deltabias:rule:: adamw                      the update, its states, its sources; a target
    .. deltabias:derivation:: rules/mine.toml      its bias step by step, foldable in HTML
    .. deltabias:code:: g/(sqrt(v)+eps)            the generated code
       :function: corrected_update
    :deltabias:rule:`adamw`                        a reference to the first of these
    :deltabias:term:`adamw:coupling`               one term, as an inline formula

What is wrong is a warning of type ``deltabias`` with file and line that says what is allowed; the
build goes on without that directive, and fails under ``-W``.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from deltabias import __version__
from deltabias.sphinxext.domain import DeltabiasDomain
from deltabias.sphinxext.folding import Unfolded, html_visitors

ENV_VERSION = 1
"""Of what the domain keeps in the environment; raise it when that changes."""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the domain, the nodes and the style sheet."""
    app.add_domain(DeltabiasDomain)
    for node, visitors in html_visitors().items():
        app.add_node(node, html=visitors)
    app.add_post_transform(Unfolded)
    # other formulas with another release: every page is read again
    app.add_config_value("deltabias_release", __version__, "env", (str,))
    app.connect("builder-inited", _add_static_files)
    app.add_css_file("deltabias.css")
    return {
        "version": __version__,
        "env_version": ENV_VERSION,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }


def _add_static_files(app: Sphinx) -> None:
    if app.builder.format == "html":
        app.config.html_static_path.append(str(Path(__file__).with_name("static")))


__all__ = ["ENV_VERSION", "setup"]
