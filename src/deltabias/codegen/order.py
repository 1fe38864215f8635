"""Products of several factors, multiplied in the order in which the factors are ready.

A loop is as fast as its longest chain of operations that wait for each other. In ``a b c`` with an
``a`` that comes out of a root, ``b c`` can be done meanwhile. Changes roundings only.
"""

from dataclasses import replace

from deltabias.codegen.ssa import Assign, Mutate, Number, Operand, Program, Statement

_LATENCY = {"copy": 0, "div": 12, "reciprocal": 12, "sqrt": 20}
"""Cycles until a result can be used, roughly; 4 for anything else."""


def in_order(program: Program) -> Program:
    """The same program, with the factors of its products in another order."""
    return _Order(program).rewritten()


class _Order:
    """Products of several factors take first what is ready first."""

    def __init__(self, program: Program):
        self.program = program
        self.scalars = {*program.scalars} | {
            s.target for s in program.statements if isinstance(s, Assign) and s.scalar
        }
        self.uses = program.uses()
        self.ready: dict[str, int] = {}
        self.inner = self._inside()
        self.factors: dict[str, list[Operand]] = {}
        self.statements: list[Statement] = []

    def _inside(self) -> set[str]:
        """Products that nothing but another product reads; no unit is ever squared."""
        statements = self.program.statements
        # a product of what is updated in place afterwards stays where it is
        last = {s.target: i for i, s in enumerate(statements) if isinstance(s, Mutate)}
        read, movable = set(), set()
        for i, s in enumerate(statements):
            if not self._is_product(s):
                continue
            read |= {o for o in s.operands if isinstance(o, str) and self.uses[o] == 1}
            if not s.note and all(last.get(o, -1) < i for o in s.operands):
                movable.add(s.target)
        return (read & movable) - {"relative_unit"}

    @staticmethod
    def _is_product(s: Statement) -> bool:
        return isinstance(s, Assign) and s.operation == "mul" and not s.scalar

    def rewritten(self) -> Program:
        for s in self.program.statements:
            if self._is_product(s):
                self._product(s)
                continue
            self.statements.append(s)
            scalar = isinstance(s, Assign) and s.scalar
            self.ready[s.target] = 0 if scalar else self._when(s.operands, s.operation)
        return replace(self.program, statements=self.statements)

    def _when(self, operands: tuple[Operand, ...], operation: str) -> int:
        latest = max(self.ready.get(o, 0) if isinstance(o, str) else 0 for o in operands)
        return latest + _LATENCY.get(operation, 4)

    def _product(self, s: Assign) -> None:
        factors = [f for o in s.operands for f in self.factors.pop(o, [o])]
        if s.target in self.inner:
            self.factors[s.target] = factors
            return
        made = 0
        while len(factors) > 1:
            factors.sort(key=lambda o: self.ready.get(o, 0) if isinstance(o, str) else 0)
            first, second, *factors = factors
            target = f"{s.target}_p{made}" if factors else s.target
            made += 1
            plain = isinstance(first, Number) or first in self.scalars
            both = (second, first) if plain else (first, second)
            self.statements.append(Assign(target, "mul", both, note="" if factors else s.note))
            self.ready[target] = self._when(both, "mul")
            factors.append(target)
