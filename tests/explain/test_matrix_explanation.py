"""What is explained of a matrix rule, computed as it is written, is what the code computes."""

from importlib import import_module

import pytest
import sympy as sp
import torch

from deltabias.explain import FORMS, explain
from deltabias.explain.matrix import diagonal, eigenvalue_only, mean
from deltabias.matrix_derivation import first, second, transpose
from deltabias.rules import MATRIX_CATALOGUE

DAMPING = 0.3
ROWS, COLUMNS, DIRECTIONS = 3, 4, 5


def semidefinite(size, generator):
    root = torch.randn(size, size, dtype=torch.float64, generator=generator)
    return root @ root.mT


def inputs(names):
    """Matrices and, for each, deviations in a few directions."""
    generator = torch.Generator().manual_seed(7)
    shapes = {"L": (ROWS, ROWS), "R": (COLUMNS, COLUMNS), "M": (ROWS, COLUMNS)}
    values = {}
    for name in names:
        square = shapes[name][0] == shapes[name][1]
        values[name] = (
            semidefinite(shapes[name][0], generator)
            if square
            else torch.randn(shapes[name], dtype=torch.float64, generator=generator)
        )
        noise = torch.randn(DIRECTIONS, *shapes[name], dtype=torch.float64, generator=generator)
        values[f"d{name}"] = 0.1 * (noise + noise.mT if square else noise)
    return values


class Reader:
    """Evaluates the passages: matrices by their names, functions by their divided differences."""

    def __init__(self, explanation, values):
        self.explanation, self.values = explanation, values
        self.corrected = {p.expression.lhs: p.expression.rhs for p in explanation.of_kind("safe")}
        self.kernels = {p.id: p.expression.rhs for p in explanation.of_kind("function")}

    def basis(self, function):
        letter = function.name.removeprefix("P_")
        matrix = self.values[letter]
        shift = DAMPING * torch.eye(len(matrix), dtype=matrix.dtype)
        eigenvalues, basis = torch.linalg.eigh(matrix + shift)
        return self.roots(function, eigenvalues), basis

    def roots(self, function, eigenvalues):
        (passage,) = [p for p in self.explanation.passages if p.id == f"function-{function.name}-i"]
        degree = int(passage.sentence.rpartition("s^")[2].rstrip("."))
        return eigenvalues ** (1 / degree)

    def entries(self, function, points, *roots):
        """A divided difference at points, as its passage writes it."""
        passage = self.explanation.find(f"function-{function.name}-{points}").expression
        point = dict(zip(passage.lhs.args, roots, strict=True))  # where two meet: one of them
        return sp.lambdify(list(point), passage.rhs)(*point.values())

    def value(self, expression, r=None):
        if isinstance(expression, mean):  # deviations are scaled so that the sum is the mean
            return sum(self.value(expression.args[0], r) for r in range(DIRECTIONS))
        if isinstance(expression, diagonal | eigenvalue_only):
            return self.taken(expression)
        if isinstance(expression, first | second):
            return self.along(expression, r)
        if isinstance(expression, transpose):
            return self.value(expression.args[0], r).mT
        if expression in self.corrected:
            return self.value(self.corrected[expression], r)
        if expression.is_Add:
            return sum(self.value(a, r) for a in expression.args)
        if expression.is_Mul:
            return self.product(expression, r)
        if expression.is_Pow:
            inverse = torch.linalg.inv(self.value(expression.base, r))
            assert expression.exp == -1
            return inverse
        if expression.name.startswith("P_"):
            roots, basis = self.basis(expression)
            return basis @ torch.diag(self.entries(expression, "i", roots)) @ basis.mT
        value = self.values[expression.name]
        return value[r] if expression.name.startswith("d") else value

    def product(self, expression, r):
        numbers, factors = expression.args_cnc()
        total = self.value(factors[0], r)
        for factor in factors[1:]:
            total = total @ self.value(factor, r)
        return float(sp.Mul(*numbers)) * total

    def taken(self, expression):
        """What a cheap form keeps of a second order."""
        (own,) = expression.atoms(second)
        s, basis = self.basis(own.args[0])
        if isinstance(expression, diagonal):
            inside = basis.mT @ self.value(expression.args[0]) @ basis
            return basis @ torch.diag(torch.diagonal(inside)) @ basis.mT
        moved = [basis.mT @ self.value(own.args[1], r) @ basis for r in range(DIRECTIONS)]
        variance = sum(torch.diagonal(e) ** 2 for e in moved)
        # the confluent difference is that of its own passage
        curvature = self.entries(own.args[0], "i-i-i", s, s, s)
        return basis @ torch.diag(curvature * variance) @ basis.mT

    def along(self, expression, r):
        function, along = expression.args
        s, basis = self.basis(function)
        e = basis.mT @ self.value(along, r) @ basis
        if isinstance(expression, first):
            return basis @ (self.entries(function, "i-j", s[:, None], s[None, :]) * e) @ basis.mT
        kernel = self.entries(
            function, "i-k-j", s[:, None, None], s[None, :, None], s[None, None, :]
        )
        return basis @ torch.einsum("ik,kj,ikj->ij", e, e, kernel) @ basis.mT


@pytest.mark.parametrize("name", ["shampoo", "shampoo_one_sided"])
@pytest.mark.parametrize("form", FORMS)
def test_the_corrected_update_as_it_is_written_is_the_generated_one(name, form):
    rule = MATRIX_CATALOGUE[name]
    explanation = explain(rule, strategy=form)
    values = inputs([s.name for s in rule.states])
    module = import_module(f"deltabias.generated.{name}")
    code = getattr(module, "corrected_update" + ("" if form == "full" else f"_{form}"))
    corrected = explanation.find("corrected").expression.rhs
    written = Reader(explanation, values).value(corrected)
    torch.testing.assert_close(written, code(**values, damping=DAMPING), rtol=1e-10, atol=1e-12)
    wrong = Reader(explanation, {**values, "dL": 1.001 * values["dL"]}).value(corrected)
    assert not torch.allclose(wrong, written, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", ["shampoo", "shampoo_one_sided"])
def test_the_terms_as_they_are_written_are_the_generated_second_order(name):
    rule = MATRIX_CATALOGUE[name]
    explanation = explain(rule)
    values = inputs([s.name for s in rule.states])
    reader = Reader(explanation, values)
    code = import_module(f"deltabias.generated.{name}").second_order(**values, damping=DAMPING)
    for kind, expected in code.items():
        terms = [p for p in explanation.of_kind("term") if p.id.startswith(f"term-{kind}-")]
        total = sum(reader.value(mean(p.expression)) for p in terms)
        torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-12)
    assert {p.id.split("-")[1] for p in explanation.of_kind("term")} == set(code)
