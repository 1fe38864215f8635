"""For ``torch.compile``: the whole step in one pass over flat tensors, scalars in one tensor.

A step is printed as two functions. ``pack_NAME`` does the host's arithmetic and answers a tuple of
numbers; ``one_pass_NAME`` takes them as one small tensor, so that a new learning rate or step
count is new data and not a new graph. It computes in the dtype of that tensor, reads every tensor
once, keeps new values in local names and stores them at the end, which a compiler turns into one
loop. Decoupled weight decay and the clean-up of estimates happen in that loop too.

A quotient by a scalar is printed as a product with its inverse, worked out on the host, and so is
one by a tensor that divides more than once: one rounding more than the plain step has there, for a
division less. See `deltabias.codegen.lean` for what else is saved.
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
    "noise_kept": 1.0,
    "skewness_kept": 0.5,
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
    """What is stored of a share: the nearest code, cut at the range; ties go up."""
    if like.is_floating_point():
        return value
    most = torch.iinfo(like.dtype).max
    # most - relu(most - code) is a cut above in two instructions; a float is cut towards zero,
    # and 256 more is the same eight bits: nothing negative is rounded
    below = torch.relu(most - value * (most / full))
    signed = like.dtype == torch.int8
    code = (most + (256.5 if signed else 0.5) - below).to(torch.int32)
    return code.clamp_min(256 - most if signed else 0)
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
        self.inverted = {
            d for d in divisors if divisors.count(d) > 1 and d not in self.scalars
        } - set(program.tensors)
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
        listed = ", ".join(["*", *arguments] if arguments else [])
        lines = [f"def {name}({listed}) -> tuple[float, ...]:"]
        lines += docstring(f"The numbers of `one_pass_{base_name(self.program)}`, in its order.")
        for s in self.host:
            lines.append(f"    {_identifier(s.target)} = {scalar_expression(s, self._show)}")
        values = [
            f"1 / {_identifier(operand)}" if inverse else _identifier(operand)
            for operand, inverse in self.packed
        ]
        answer = f"({', '.join(values)},)" if values else "()"
        return "\n".join([*lines, f"    return {answer}", ""])

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
        lines = [*into, *([f"({names},) = scalars.unbind()"] if names else [])]
        unread = self.program.unread()
        for t in self.program.tensors:
            if t in unread:
                continue
            if t in CODED:
                lines.append(f"{t} = _decoded({t}, {CODED[t]}, dtype)")
            else:
                lines.append(f"{t} = {t}.to(dtype)")
        if "keep" in self.outside:
            lines.append("param = param * keep")
        if "unit_of_c" in self.program.tensors:
            lines += self._clean_estimates()
        return lines

    def _clean_estimates(self) -> list[str]:
        """Nothing of statistics that do not belong to the gradient: NaN times zero is NaN.

        Their unit is zero then. The mask is that of an element, which asks no branch of a loop
        where the unit is one number; an element that is finite in c2 is so in the others.
        """
        lines = ["known = c2 < 1e38"]
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
            return f"{target} + {operands[0]} / {operands[1]} * {value}"
        raise GenerateError(f"{s.operation}_ has no place in a one-pass step yet.")
