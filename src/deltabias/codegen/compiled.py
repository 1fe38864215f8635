"""For ``torch.compile``: the whole step in one pass over flat tensors, scalars in one tensor.

A step is printed as two functions. ``pack_NAME`` does the host's arithmetic and answers a tuple of
numbers; ``one_pass_NAME`` takes them as one small tensor, so that a new learning rate or step
count is new data and not a new graph. It computes in the dtype of that tensor, reads every tensor
once, keeps new values in local names and stores them at the end, which a compiler turns into one
loop. Decoupled weight decay and the clean-up of estimates happen in that loop too.

A quotient by a scalar is printed as a product with its inverse, worked out on the host, and so is
one by a tensor that divides more than once, itself or its root: one rounding or two more than the
plain step has there, for a division less. See `deltabias.codegen.lean` for what else is saved.
"""

from collections.abc import Iterator

from deltabias.codegen.eager import docstring, scalar_expression
from deltabias.codegen.lean import lean
from deltabias.codegen.ssa import Assign, Mutate, Number, Operand, Program
from deltabias.errors import GenerateError

OUTSIDE = ("keep", "skew")
"""Scalars of the optimizer's that a rule does not know, in the order of `pack`'s keywords:
1 - lr·decay on the parameter, and what the third central moment is multiplied by where
microbatches have unequal weights."""

CODED = {
    "noise_share_kept": 4.0,
    "third_share_kept": 2.0,
    "third_mean_share_kept": 8.0,
    "coupling_kept": 4.0,
    "inversion_kept": 2.5,
    "factor_kept": 2.0,
}
"""States that may be stored as 8-bit integers, and the largest value they can hold then."""

_METHODS = frozenset("sqrt reciprocal exp log log1p tanh abs sign atan erf neg".split())  # noqa: SIM905
_METHODS |= {"clamp_min", "clamp_max", "maximum", "minimum", "relu"}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}

CODE_HELPERS = (
    f'''
def largest_kept(name: str) -> float:
    """The largest value that a state of this name can hold in 8 bits."""
    return {CODED!r}[name]
'''
    + '''

def _decoded(x: Tensor, full: float, dtype: torch.dtype) -> Tensor:
    """A stored share: a number, or its code in steps of full/127 (full/255 without a sign)."""
    if x.is_floating_point():
        return x.to(dtype)
    return x.to(dtype) * (full / torch.iinfo(x.dtype).max)


def _encoded(value: Tensor, full: float, like: Tensor) -> Tensor:
    """What is stored of a share: rounded to the nearest code, cut at the range."""
    if like.is_floating_point():
        return value
    most = torch.iinfo(like.dtype).max
    # relu is one instruction, and so is the maximum of integers
    code = most - torch.relu(most - (value * (most / full)).round())
    if like.dtype == torch.uint8:
        return torch.relu(code)
    return code.to(torch.int32).clamp_min(-most)
'''
)


def render(program: Program) -> str:
    """The source of both functions of a step."""
    printer = _OnePass(program)
    return f"{printer.packing()}\n\n{printer.kernel()}"


def base_name(program: Program) -> str:
    """``delta`` of ``step_delta``, ``observe_delta`` of ``step_observe_delta``."""
    return program.name.removeprefix("step_")


def _identifier(operand: str) -> str:
    return f"_x{operand[1:]}" if operand.startswith("_") else operand


class _OnePass:
    def __init__(self, program: Program):
        self.program = program = lean(program)
        self.host = [s for s in program.statements if isinstance(s, Assign) and s.scalar]
        self.work = [s for s in program.statements if s not in self.host]
        self.scalars = {*program.scalars, *(s.target for s in self.host)}
        self.outside = [name for name in OUTSIDE if self._concerns(name)]
        self.packed = self._find_packed()
        divisors = [
            s.operands[1] for s in self.work if isinstance(s, Assign) and s.operation == "div"
        ]
        roots = {
            s.operands[0]: s.target
            for s in self.work
            if isinstance(s, Assign) and s.operation == "sqrt"
        }
        # what is divided by a number and by its root needs one division, by the root
        self.rooted = {d: roots[d] for d in divisors if roots.get(d) in divisors}
        self.inverted = {
            d for d in divisors if divisors.count(d) > 1 and d not in self.scalars
        } - set(program.tensors)
        self.inverted = (self.inverted - set(self.rooted)) | set(self.rooted.values())
        units = [s for s in self.work if isinstance(s, Assign) and "unit_of_c" in s.operands]
        self.relative = [s.target for s in units] == ["relative_unit"]
        self.mutated = [
            t
            for t in program.tensors
            if any(isinstance(s, Mutate) and s.target == t for s in program.statements)
        ]

    def _concerns(self, name: str) -> bool:
        tensors = self.program.tensors
        return {"keep": "param", "skew": "c3"}[name] in tensors

    # -- scalars ------------------------------------------------------------------------------

    def _reads(self) -> Iterator[tuple[str, bool]]:
        """Each scalar that a tensor operation reads, and whether it divides by it."""
        for s in self.work:
            for i, operand in enumerate(s.operands):
                inverse = isinstance(s, Assign) and s.operation == "div" and i == 1
                if operand in self.scalars:
                    yield operand, inverse
            if isinstance(s, Mutate) and s.value in self.scalars:
                yield s.value, False

    def _find_packed(self) -> dict[tuple[str, bool], str]:
        """(scalar, inverse) -> its name inside the kernel, in the order of first use."""
        names: dict[tuple[str, bool], str] = {(name, False): name for name in self.outside}
        for operand, inverse in self._reads():
            plain = _identifier(operand)
            names.setdefault(
                (operand, inverse), f"inverse_{plain.lstrip('_')}" if inverse else plain
            )
        return names

    def packing(self) -> str:
        arguments = [f"{s}: float" for s in self.program.scalars]
        arguments += [f"{name}: float = 1.0" for name in self.outside]
        name = f"pack_{base_name(self.program)}"
        lines = [f"def {name}(*, {', '.join(arguments)}) -> tuple[float, ...]:"]
        lines += docstring(f"The numbers of `one_pass_{base_name(self.program)}`, in its order.")
        for s in self.host:
            lines.append(f"    {_identifier(s.target)} = {scalar_expression(s, self._show)}")
        values = [
            f"1 / {_identifier(operand)}" if inverse else _identifier(operand)
            for operand, inverse in self.packed
        ]
        return "\n".join([*lines, f"    return ({', '.join(values)},)", ""])

    @staticmethod
    def _show(operand: Operand) -> str:
        return str(operand) if isinstance(operand, Number) else _identifier(operand)

    # -- the kernel ---------------------------------------------------------------------------

    def kernel(self) -> str:
        arguments = ", ".join(f"{t}: Tensor" for t in self.program.tensors)
        name = f"one_pass_{base_name(self.program)}"
        lines = [f"def {name}({arguments}, scalars: Tensor) -> None:"]
        lines += docstring("The step in one pass; flat tensors of one size. Made to be compiled.")
        body = ["dtype = scalars.dtype", *self._loads(), *map(self._line, self.work)]
        body += [f"into_{t}.copy_({self._stored(t)})" for t in self.mutated]
        return "\n".join([*lines, *(f"    {line}" for line in body), ""])

    def _loads(self) -> list[str]:
        into = [f"into_{t} = {t}" for t in self.mutated]
        names = ", ".join(self.packed.values())
        lines = [*into, f"({names},) = scalars.unbind()"]
        for t in self.program.tensors:
            if t in CODED:
                lines.append(f"{t} = _decoded({t}, {CODED[t]}, dtype)")
            else:
                lines.append(f"{t} = {t}.to(dtype)")
        if "keep" in self.outside:
            lines.append("param = param * keep")
        if "unit_of_c" in self.program.tensors:
            lines += self._skewed() if self.relative else self._clean_estimates()
        return lines

    def _skewed(self) -> list[str]:
        return ["c3 = c3 * skew"] if "c3" in self.program.tensors else []

    def _clean_estimates(self) -> list[str]:
        """Nothing of statistics that do not belong to the gradient: NaN times zero is NaN."""
        lines = ["known = unit_of_c != 0"]
        for t in self.program.tensors:
            if t in ("c2", "c3", "c4"):
                value = "c3 * skew" if t == "c3" else t
                lines.append(f"{t} = torch.where(known, {value}, 0.0)")
        return lines

    def _stored(self, tensor: str) -> str:
        if tensor in CODED:
            return f"_encoded({tensor}, {CODED[tensor]}, into_{tensor})"
        return tensor

    def _line(self, s: Assign | Mutate) -> str:
        if isinstance(s, Mutate):
            return f"{s.target} = {self._updated(s)}"
        note = f"# {s.note}\n    " if s.note else ""
        name = _identifier(s.target)
        after = f"\n    over_{name} = 1.0 / {name}" if s.target in self.inverted else ""
        if self.relative and name == "relative_unit":
            after += "\n    known = relative_unit != 0"
        elif self.relative and name in ("relative_c2", "relative_c3", "relative_c4"):
            after += f"\n    {name} = torch.where(known, {name}, 0.0)"
        return f"{note}{name} = {self._value(s)}{after}"

    def _name(self, operand: Operand, inverse: bool = False) -> str:
        if isinstance(operand, Number):
            text = str(operand)
            return f"({text})" if " " in text or text.startswith("-") else text
        return self.packed.get((operand, inverse), _identifier(operand))

    def _value(self, s: Assign) -> str:
        first, *rest = s.operands
        if s.operation in ("copy", "clone", "to_dtype_of"):
            return self._name(first)
        if s.operation == "div" and rest[0] in self.scalars:
            return f"{self._name(first)} * {self._name(rest[0], inverse=True)}"
        if s.operation == "div" and rest[0] in self.rooted:
            over = f"over_{_identifier(self.rooted[rest[0]])}"
            return f"{self._name(first)} * {over} * {over}"
        if s.operation == "div" and rest[0] in self.inverted:
            return f"{self._name(first)} * over_{_identifier(rest[0])}"
        if s.operation in _INFIX:
            return f"{self._name(first)} {_INFIX[s.operation]} {self._name(rest[0])}"
        if s.operation == "root":
            return f"_root({self._name(first)}, {rest[0]})"
        if s.operation in ("clamp_min", "clamp_max") and rest[0] in self.scalars:
            s = Assign(s.target, "maximum" if s.operation == "clamp_min" else "minimum", s.operands)
        if s.operation not in _METHODS:
            raise GenerateError(f"{s.operation} has no place in a one-pass step yet.")
        return f"torch.{s.operation}({', '.join(map(self._name, s.operands))})"

    def _updated(self, s: Mutate) -> str:
        """The new value of what the plain step updates in place, with its order of operations."""
        operands = [self._name(o) for o in s.operands]
        target, value = s.target, None if s.value is None else self._name(s.value)
        if s.operation == "lerp":
            return f"{target} + ({operands[0]} - {target}) * {operands[1]}"
        if s.operation == "mul":
            return f"{target} * {operands[0]}"
        if s.operation == "copy":
            return operands[0]
        if s.operation == "add":
            return f"{target} + {operands[0]}" + (f" * {value}" if value else "")
        if s.operation == "addcmul":
            return f"{target} + {value} * {operands[0]} * {operands[1]}"
        if s.operation == "addcdiv":
            return f"{target} + {value} * {operands[0]} / {operands[1]}"
        raise GenerateError(f"{s.operation}_ has no place in a one-pass step yet.")
