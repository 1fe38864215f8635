"""From a job's plain data (`deltabias.verify.process`) to a check that is ready to run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING

from deltabias.errors import DeltabiasError
from deltabias.verify.record import Check

if TYPE_CHECKING:
    from deltabias.verify.bias import BiasVerdict

Run = Callable[[], tuple[Check, ...]]


SHARE = 0.9
"""Of the time that is left when the check begins; what is not begun by then is inconclusive."""


NEEDED = {
    "optimizer": ("torch", "sympy", "mpmath", "numpy", "hypothesis"),
    "bias": ("torch", "sympy", "mpmath", "numpy", "scipy"),
}


def require(kind: str) -> None:
    """Say what has to be installed for a check, before an import fails somewhere inside it.

    Raises
    ------
    DeltabiasError
        naming the packages that are missing.
    """
    missing = [name for name in NEEDED[kind] if find_spec(name) is None]
    if missing:
        raise DeltabiasError(
            f"this check needs {', '.join(missing)}; pip install 'deltabias[verify]'."
        )


def prepare_optimizer(target: Callable, job: Mapping) -> Run:
    """`check_optimizer` on a class or a factory.

    Raises
    ------
    DeltabiasError
        for a rule that is none.
    """
    require("optimizer")
    from deltabias.verify.conformance import check_optimizer
    from deltabias.verify.step_rule_file import matrix_rule_of, resolve_step_rule

    rule = matrix_rule_of(job["rule"]) or resolve_step_rule(job["rule"])
    left = max(SHARE * (job["until"] - time.time()), 0.0)
    settings = {"seed": job["seed"], "time_limit": left, **job["options"]}
    return lambda: check_optimizer(target, rule, **settings).checks


def prepare_bias(target: Callable, job: Mapping) -> Run:
    """`check_bias` on a function; the law by name, with the mean and sd of one microbatch.

    Raises
    ------
    DeltabiasError
        for a law or a rule that cannot be used.
    """
    require("bias")
    from deltabias.verify.bias import check_bias

    settings = {"seed": job["seed"], **job["options"]}
    law = law_of_gradient(*(settings.pop(key, None) for key in ("law", "mean", "sd")))
    population = population_update(job["rule"])
    for key in ("hypers", "statistics"):
        if not settings.get(key):  # they say something about a rule; a number has none
            settings.pop(key, None)
    return lambda: (bias_check(check_bias(target, population, law=law, **settings)),)


def law_of_gradient(name: str, mean: str | None, sd: str | None) -> object:
    """The named law; with neither mean nor sd the name itself, which `check_bias` reads.

    Raises
    ------
    DeltabiasError
        for an unknown name, or numbers that the law cannot have.
    """
    from deltabias.truth.law_catalogue import law

    if mean is None and sd is None:
        return name
    try:
        return law(name, mean="1" if mean is None else mean, sd="1/2" if sd is None else sd)
    except ValueError as error:
        raise DeltabiasError(str(error)) from error


def population_update(text: str) -> object:
    """What ``--rule`` means to a bias check: a number, such as ``0.5`` or ``1/3``, or a rule."""
    from deltabias.rule_file import resolve_rule

    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError):
        return resolve_rule(text)


def bias_check(verdict: "BiasVerdict") -> Check:
    """A verdict as a check whose detail is the whole table."""
    return replace(verdict.check(), detail=str(verdict))


PREPARE = {"optimizer": prepare_optimizer, "bias": prepare_bias}
