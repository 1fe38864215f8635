"""Plain torch: the readable reference. Single-use values are printed inside the expression."""

from collections.abc import Callable

from deltabias.codegen.ssa import Assign, Mutate, Number, Operand, Program
from deltabias.errors import GenerateError

_INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2)}
_LEVELS = {"neg": 0, "pow": 3}
_METHODS = {
    "sqrt": "sqrt",
    "reciprocal": "reciprocal",
    "exp": "exp",
    "log": "log",
    "log1p": "log1p",
    "tanh": "tanh",
    "abs": "abs",
    "sign": "sign",
    "atan": "atan",
    "erf": "erf",
    "clone": "clone",
    "clamp_min": "clamp_min",
    "clamp_max": "clamp_max",
    "maximum": "maximum",
    "minimum": "minimum",
}


def render(program: Program, result_annotation: str = "Tensor") -> str:
    """The source of one function."""
    printer = _Eager(program)
    lines = [printer.signature(result_annotation)]
    if program.doc:
        lines += docstring(program.doc)
    lines += [f"    {line}" for line in _with_return(printer.body(), printer, program)]
    return "\n".join(lines) + "\n"


def _with_return(body: list[str], printer: "_Eager", program: Program) -> list[str]:
    if not program.results:
        return body
    results = ", ".join(map(printer.inline, program.results))
    if body and body[-1].startswith(f"{results} = "):
        return [*body[:-1], "return " + body[-1].removeprefix(f"{results} = ")]
    return [*body, f"return {results}"]


def docstring(text: str) -> list[str]:
    first, *rest = text.splitlines()
    if not rest:
        return [f'    """{first}"""']
    return [f'    """{first}', *(f"    {line}".rstrip() for line in rest), '    """']


_SCALAR_CALLS = {
    "sqrt": "math.sqrt",
    "clamp_min": "max",
    "clamp_max": "min",
    "abs": "abs",
    "exp": "math.exp",
    "log": "math.log",
    "log1p": "math.log1p",
    "atan": "math.atan",
    "erf": "math.erf",
    "tanh": "math.tanh",
}


def scalar_call(s: Assign, show: Callable[[Operand], str]) -> str:
    """A call on host scalars."""
    if s.operation not in _SCALAR_CALLS:
        raise GenerateError(f"{s.operation} of scalars has no Python function in the table.")
    return f"{_SCALAR_CALLS[s.operation]}({', '.join(map(show, s.operands))})"


def scalar_expression(s: Assign, show: Callable[[Operand], str]) -> str:
    """One operation on host scalars, as Python arithmetic."""
    shown = [
        f"({show(o)})" if isinstance(o, Number) and " " in str(o) else show(o) for o in s.operands
    ]
    if s.operation == "copy":
        return shown[0]
    if s.operation in _INFIX or s.operation == "pow":
        sign = "**" if s.operation == "pow" else _INFIX[s.operation][0]
        return f" {sign} ".join(shown)
    return f"-{shown[0]}" if s.operation == "neg" else scalar_call(s, show)


class _Eager:
    def __init__(self, program: Program):
        self.program = program
        self.uses = program.uses()
        self.definitions = {s.target: s for s in program.statements if isinstance(s, Assign)}
        self._inlined_names = self._find_inlined()

    def _find_inlined(self) -> set[str]:
        """Temporaries read once, with no update in place between their birth and that use."""
        born: dict[str, int] = {}
        single: set[str] = set()
        mutations = 0
        for statement in self.program.statements:
            reads = [o for o in statement.operands if isinstance(o, str)]
            if isinstance(statement, Mutate):
                mutations += 1
                reads += [o for o in (statement.value,) if isinstance(o, str)]
                # operands are read before the update happens
                late = mutations - 1
            else:
                late = mutations
                if statement.target.startswith("_"):
                    born[statement.target] = min(
                        [mutations, *(born[r] for r in reads if r in single)]
                    )
            single |= {r for r in reads if self.uses.get(r) == 1 and born.get(r) == late}
        single |= {
            r for r in self.program.results if self.uses[r] == 1 and born.get(r) == mutations
        }
        return single

    def signature(self, result: str) -> str:
        tensors = "".join(f"{t}: Tensor, " for t in self.program.tensors)
        scalars = "".join(f"{s}: float, " for s in self.program.scalars)
        star = "*, " if scalars else ""
        returns = result if self.program.results else "None"
        return f"def {self.program.name}({(tensors + star + scalars).rstrip(', ')}) -> {returns}:"

    def _inlined(self, name: str) -> bool:
        return name in self._inlined_names

    def body(self) -> list[str]:
        lines = []
        for statement in self.program.statements:
            if isinstance(statement, Mutate):
                lines.append(self._mutation(statement))
            elif not self._inlined(statement.target) and self.uses.get(statement.target):
                if statement.note:
                    lines.append(f"# {statement.note}")
                lines.append(f"{self.name(statement.target)} = {self.expression(statement)}")
        return lines

    def name(self, name: str) -> str:
        return f"_x{name[1:]}" if name.startswith("_") else name

    def inline(self, operand: Operand, level: int = 0) -> str:
        if isinstance(operand, Number):
            text = str(operand)
            return f"({text})" if level and not text.replace(".", "").isalnum() else text
        if operand in self.definitions and self._inlined(operand):
            statement = self.definitions[operand]
            text = self.expression(statement)
            own = _INFIX.get(statement.operation, ("", _LEVELS.get(statement.operation, 9)))[1]
            return f"({text})" if own < level else text
        return self.name(operand)

    def expression(self, s: Assign) -> str:
        if s.operation == "copy":
            return self.inline(s.operands[0])
        if s.operation == "add" and (negated := self._negated(s.operands[0])):
            return f"{self.inline(s.operands[1], 1)} - {self.inline(negated, 2)}"
        if s.operation in _INFIX:
            sign, level = _INFIX[s.operation]
            # the right side binds tighter: a - (b - c), a / (b * c); products keep their order
            right = level + 1
            return f"{self.inline(s.operands[0], level)} {sign} {self.inline(s.operands[1], right)}"
        if s.operation == "neg":
            return f"-{self.inline(s.operands[0], 3)}"
        if s.operation == "pow":
            base, exponent = (self.inline(o, 4) for o in s.operands)
            return f"{base} ** {exponent}"
        if s.operation == "to_dtype_of":
            return f"{self.inline(s.operands[0], 9)}.to({s.operands[1]}.dtype)"
        if s.operation == "root":
            return f"_root({self.inline(s.operands[0])}, {s.operands[1]})"
        if s.scalar:
            return scalar_call(s, self.inline)
        arguments = ", ".join(self.inline(o) for o in s.operands[1:])
        return f"{self.inline(s.operands[0], 9)}.{_METHODS[s.operation]}({arguments})"

    def _negated(self, operand: Operand) -> Operand | None:
        """What `operand` is the negative of, so that (-a) + b is printed b - a: the same value."""
        if isinstance(operand, str) and self._inlined(operand):
            inner = self.definitions[operand]
            return inner.operands[0] if inner.operation == "neg" else None
        return None

    def _mutation(self, s: Mutate) -> str:
        arguments = [self.inline(o) for o in s.operands]
        if s.keyword:
            arguments.append(f"{s.keyword}={self.inline(s.value)}")
        return f"{s.target}.{s.operation}_({', '.join(arguments)})"
