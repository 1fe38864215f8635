"""A truth is never computed by the code it judges."""

import ast
from pathlib import Path

import deltabias.truth as truth

ALLOWED = {"abc", "collections", "dataclasses", "flint", "fractions", "itertools", "math",
           "mpmath", "numbers", "numpy", "operator", "types", "typing", "__future__"}  # fmt: skip
SOURCES = sorted(Path(truth.__file__).parent.glob("*.py"))


def imported_roots(source):
    """The top-level packages that a file imports absolutely, and how far its relative ones go."""
    roots, levels = set(), {0}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            levels.add(node.level)
            if node.level == 0:
                roots.add(node.module.split(".")[0])
    return roots, max(levels)


def test_truth_imports_nothing_of_what_it_judges():
    assert len(SOURCES) > 10
    for path in SOURCES:
        roots, level = imported_roots(path.read_text(encoding="utf-8"))
        assert roots <= ALLOWED, path.name
        assert level <= 1, path.name


def test_the_check_sees_an_import_of_the_judged():
    assert "deltabias" in imported_roots("from deltabias.rule import UpdateRule")[0]
    assert imported_roots("from ..rule import UpdateRule")[1] == 2


def test_every_public_name_is_exported_once_and_documented():
    assert len(set(truth.__all__)) == len(truth.__all__)
    for name in set(truth.__all__) - {"LAWS"}:  # a mapping, which cannot carry a docstring
        assert getattr(truth, name).__doc__, name
