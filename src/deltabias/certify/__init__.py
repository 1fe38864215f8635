"""Certificates, checked: finds the theory, runs Coq on them, and says what was proved.

`coq` is the one place where Coq is run; it needs the standard library of Python alone, so that
``proofs/check.py`` works without the rest of the package's dependencies.
"""
