"""``torch._foreach``: the same operations on lists of tensors, one launch per operation.

Bit for bit equal to the plain version, because it is the same sequence of the same operations.
"""

from deltabias.codegen.eager import docstring, scalar_expression
from deltabias.codegen.ssa import Assign, Mutate, Number, Operand, Program, Statement

_PER_TENSOR = {"clone": "x.clone()", "atan": "x.atan()"}


def render(program: Program) -> str:
    """The source of one function whose tensor arguments are lists of equal length."""
    printer = _Foreach(program)
    lines = [printer.signature()]
    if program.doc:
        lines += docstring(program.doc)
    body, results = printer.body(), ", ".join(map(printer.name, program.results))
    if results and body and body[-1].startswith(f"{results} = "):
        body[-1] = "return " + body[-1].removeprefix(f"{results} = ")
    elif results:
        body.append(f"return {results}")
    lines += [f"    {line}" for line in body]
    return "\n".join(lines) + "\n"


class _Foreach:
    def __init__(self, program: Program):
        self.program = program
        self.uses = program.uses()
        self.scalars = set(program.scalars)
        self.scalars |= {s.target for s in program.statements if isinstance(s, Assign) and s.scalar}

    def signature(self) -> str:
        tensors = [f"{t}: list[Tensor]" for t in self.program.tensors]
        scalars = [f"{s}: float" for s in self.program.scalars]
        arguments = ", ".join(tensors + (["*", *scalars] if scalars else []))
        returns = "list[Tensor]" if self.program.results else "None"
        return f"def {self.program.name}_foreach({arguments}) -> {returns}:"

    def name(self, operand: Operand) -> str:
        if isinstance(operand, Number):
            return str(operand)
        return f"_x{operand[1:]}" if operand.startswith("_") else operand

    def body(self) -> list[str]:
        lines = []
        for statement in self.program.statements:
            if isinstance(statement, Assign) and not self.uses.get(statement.target):
                continue
            if isinstance(statement, Assign) and statement.note:
                lines.append(f"# {statement.note}")
            lines.append(self._line(statement))
        return lines

    def _line(self, s: Statement) -> str:
        if isinstance(s, Mutate):
            arguments = [self.name(o) for o in s.operands]
            if s.keyword:
                arguments.append(f"{s.keyword}={self.name(s.value)}")
            return f"torch._foreach_{s.operation}_({', '.join([s.target, *arguments])})"
        if s.scalar:
            return f"{self.name(s.target)} = {scalar_expression(s, self.name)}"
        return f"{self.name(s.target)} = {self._tensor_expression(s)}"

    def _tensor_expression(self, s: Assign) -> str:
        names = [self.name(o) for o in s.operands]
        if s.operation == "copy":
            return names[0]
        if s.operation == "to_dtype_of":
            return f"[x.to(y.dtype) for x, y in zip({names[0]}, {names[1]}, strict=True)]"
        if s.operation == "root":
            return f"[_root(x, {names[1]}) for x in {names[0]}]"
        if s.operation in _PER_TENSOR:
            return f"[{_PER_TENSOR[s.operation]} for x in {names[0]}]"
        return f"torch._foreach_{s.operation}({', '.join(names)})"
