"""MathJax from a package that carries it, so that the site's pages make no request to anybody."""

import shutil
from importlib.util import find_spec
from pathlib import Path

MATHJAX = "mathjax/tex-svg.js"
"""Where it stands in the site: one file, for svg output needs no fonts."""


def mathjax(folder: Path) -> Path:
    """The folder for ``html_static_path``, with MathJax in it.

    Raises
    ------
    RuntimeError
        if the package is not installed.
    """
    spec = find_spec("mathjax")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "MathJax is not installed: pip install 'deltabias[docs]' brings it, in the package "
            "django-static-mathjax."
        )
    carried = Path(next(iter(spec.submodule_search_locations))) / "static/mathjax"
    target = folder / MATHJAX
    target.parent.mkdir(parents=True, exist_ok=True)
    for source, name in (("es5/tex-svg.js", target.name), ("LICENSE", "LICENSE")):
        if not (target.parent / name).is_file():
            shutil.copyfile(carried / source, target.parent / name)
    return folder
