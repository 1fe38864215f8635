"""A project of its own for the extension, and Sphinx run on it as its author would."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="no sphinx")
pytest.importorskip("myst_parser", reason="no myst_parser")

MINE = """
name = "mine"
update = "exp_avg/(sqrt(exp_avg_sq) + eps)"
title = "Mine"
sources = ["my <paper>, 50% & $more$"]
[hypers]
beta1 = 0.9
beta2 = 0.95
eps = 1e-8
[states.exp_avg]
kind = "ema"
sample = "x"
beta = "beta1"
[states.exp_avg_sq]
kind = "ema"
sample = "x**2"
beta = "beta2"
"""
CONF = 'project = "mine"\nauthor = "me"\nextensions = [{}]\nmyst_enable_extensions = []\n'
PAGES = {
    "index.rst": """
        Mine
        ====

        A link to :deltabias:rule:`adamw` and to :deltabias:rule:`mine <mine>`; the term
        :deltabias:term:`adamw:coupling` and :any:`shampoo`.

        .. toctree::

           adamw
           mine
           matrix
           typed
           terms
           code
        """,
    "adamw.rst": """
        AdamW
        =====

        .. deltabias:rule:: adamw

        .. deltabias:derivation:: adamw
        """,
    "mine.md": """
        # In MyST

        ```{deltabias:rule} rules/mine.toml
        ```

        ```{deltabias:derivation} rules/mine.toml
        :correction: jackknife
        :open: all
        ```

        {deltabias:term}`rules/mine.toml:inversion` of {deltabias:rule}`mine`
        """,
    "matrix.rst": """
        Matrices
        ========

        .. deltabias:rule:: shampoo

        .. deltabias:derivation:: shampoo
           :correction: diagonal
        """,
    "typed.rst": """
        Typed
        =====

        .. deltabias:derivation:: g/(sqrt(v) + k)
           :hyper: k=0.5
           :named: typed
           :steps: term, corrected, 1
           :open: none
           :order: 2

        .. deltabias:rule:: adamw
           :no-index:
        """,
    "terms.rst": """
        Terms
        =====

        :deltabias:term:`shampoo:coupling`, :deltabias:term:`adamw:bias`,
        :deltabias:term:`g/(sqrt(v)+eps):inversion`, :deltabias:term:`soap:update`.
        """,
    "code.rst": """
        Code
        ====

        .. deltabias:code:: adamw
           :function: corrected_update, plug_in_update
           :caption: What is generated
           :linenos:

        .. deltabias:code:: /rules/mine.toml
        """,
}


def dedented(text):
    lines = text.strip("\n").splitlines()
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:] for line in lines).rstrip() + "\n"


@dataclass
class Built:
    """What Sphinx said and left."""

    code: int
    said: str
    out: Path

    def page(self, name):
        return (self.out / name).read_text(encoding="utf-8")

    @property
    def read(self):
        """Pages that were read, not taken from the last build."""
        found = re.findall(r"reading sources\.\.\. \[ *\d+%\] (.+)", self.said)
        return sorted({name for line in found for name in re.split(r" \.\. |, ", line.strip())})


@dataclass
class Project:
    root: Path

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedented(text), encoding="utf-8")

    def build(self, builder="html", *options):
        made = self.root / "_build"
        # what was read is shared, so that a second builder only writes
        command = [sys.executable, "-m", "sphinx", "--no-color", "-b", builder,
                   "-d", str(made / "read"), *options,
                   str(self.root), str(made / builder)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        return Built(done.returncode, done.stdout + done.stderr, made / builder)


@pytest.fixture(scope="module")
def make_project(tmp_path_factory):
    """A project with these extensions besides ours, and these pages."""

    def make(*extensions, pages=PAGES):
        project = Project(tmp_path_factory.mktemp("project"))
        names = ("myst_parser", *extensions, "deltabias.sphinxext")
        conf = CONF.format(", ".join(map(repr, names)))
        project.write("conf.py", conf + 'exclude_patterns = ["_build"]\n')
        project.write("rules/mine.toml", MINE)
        for name, text in pages.items():
            project.write(name, text)
        return project

    return make
