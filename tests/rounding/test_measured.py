"""Measured errors of the generated functions stay under the certified bounds, and not far under.

The truth is the kernel's formula at 60 digits on the exact inputs, evaluated here from SymPy's
expressions; the size is the same formula with every sum of unlike signs replaced by the sum of
magnitudes.
"""

import importlib
import math

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from mpmath import mpf

from deltabias.parser import clip
from deltabias.rules import CATALOGUE
from deltabias.safe_form import Definition

SAMPLES, SEED, DIGITS = 400, 20260101, 60
LOOSEST = 20
# rules of one formula share a measurement: adam, rmsprop and adagrad print adamw's function
RULES = ("inverse", "inverse_sqrt", "adamw", "sophia", "sophia_g")


def value_and_size(expression, known):
    """(value, size): the size is what rounding errors of the formula are measured by."""
    if expression.is_Rational:
        value = mpf(int(expression.p)) / int(expression.q)
        return value, abs(value)
    if expression.is_Symbol:
        return known[expression.name]
    parts = [value_and_size(a, known) for a in expression.args]
    if expression.is_Add:
        return sum(v for v, _ in parts), sum(s for _, s in parts)
    if expression.is_Mul:
        return math.prod(v for v, _ in parts), math.prod(s for _, s in parts)
    if expression.is_Pow:
        power = parts[1][0]
        return parts[0][0] ** power, parts[0][1] ** power
    if isinstance(expression, clip):
        (value, size), (low, _), (high, _) = parts
        return max(low, min(high, value)), size
    if isinstance(expression, sp.Max):
        value = max(v for v, _ in parts)
        return value, value
    raise AssertionError(f"{expression} is not in the test's table")


def exact(definitions, arguments):
    known = {name: (mpf(x), abs(mpf(x))) for name, x in arguments.items()}
    for definition in definitions:
        known[definition.name] = value_and_size(definition.expression, known)
    return known["update"]


def inputs(bound, dtype):
    """Log-uniform over the domain, and as many within a factor of 8 of 1, where terms meet."""
    rng = np.random.default_rng(SEED)
    columns = {}
    for name, allowed in bound.domain:
        low, high = math.log2(allowed.low), math.log2(allowed.high)
        wide = rng.uniform(low, high, SAMPLES)
        near = rng.uniform(-3, min(3, high), SAMPLES)
        signs = rng.choice([-1, 1], 2 * SAMPLES) if allowed.signed else 1
        columns[name] = torch.tensor(2 ** np.concatenate([wide, near]) * signs).to(dtype)
    return columns


def evaluate(rule, program, bound):
    """Inputs, scalars, and the results of eager and foreach."""
    dtype = getattr(torch, bound.dtype)
    module = importlib.import_module(f"deltabias.generated.{rule.name}")
    columns = inputs(bound, dtype)
    scalars = {h.name: h.default for h in rule.hypers if h.name in program.scalars}
    tensors = [columns[name] for name in program.tensors]
    plain = getattr(module, program.name)(*tensors, **scalars)
    (foreach,) = getattr(module, program.name + "_foreach")(*([t] for t in tensors), **scalars)
    return columns, scalars, (plain, foreach)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RULES)
def test_the_measured_error_is_below_the_bound_and_not_far_below(name, dtype, programs, bounds):
    found = programs[name]
    plug_in, corrected = found.updates
    formulas = {
        plug_in.name: [Definition("update", found.rule.update)],
        corrected.name: found.kernel.definitions,
    }
    for program in found.updates:
        bound = bounds[name, program.name, dtype]
        columns, scalars, results = evaluate(found.rule, program, bound)
        worst = 0
        with mpmath.workdps(DIGITS):
            for i in range(2 * SAMPLES):
                arguments = {k: columns[k][i].item() for k in program.tensors} | scalars
                value, size = exact(formulas[program.name], arguments)
                unit = abs(value) if bound.kind == "relative" else size
                worst = max(worst, *(abs(mpf(r[i].item()) - value) / unit for r in results))
        share = float(worst / float(bound.bound))  # a dyadic number of few bits: exact
        print(f"{name} {program.name} {dtype}: measured {share:.2f} of {float(bound.units)} u")
        assert share <= 1, f"{program.name}: {share:.3f} times the bound"
        assert share >= 1 / LOOSEST, f"{program.name}: only {share:.3f} times the bound"


def test_rules_that_are_not_measured_print_a_function_that_is(programs):
    measured = {_shape(programs[name]) for name in RULES}
    assert {_shape(p) for p in programs.values()} == measured
    assert set(programs) == set(CATALOGUE)


def _shape(found):
    """The operations of both functions, names aside."""
    return tuple(tuple(s.operation for s in p.statements) for p in found.updates)
