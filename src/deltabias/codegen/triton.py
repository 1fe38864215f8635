"""The Triton module of a rule: one fused kernel a step, for a whole list of tensors.

A kernel reads each tensor once and writes each state once. It finds its tensors in a table of
pointers in device memory, so that one launch serves a list of any length, and its scalars in a
vector in device memory, so that a captured graph replays with new ones.
"""

from deltabias.codegen.compiled import CODED
from deltabias.codegen.eager import docstring
from deltabias.codegen.emit import MARK, digest, format_source, words
from deltabias.codegen.kernels import RulePrograms, filling, rule_programs
from deltabias.codegen.ssa import Assign, Operand, Program
from deltabias.codegen.triton_helpers import FUNCTIONS, HELPERS
from deltabias.codegen.triton_print import (
    block_lines,
    computed_scalars,
    display,
    double_lines,
    python_lines,
    read_scalars,
    written_tensors,
)
from deltabias.rule import UpdateRule

PER_TENSOR = ("unit_of_c",)
"""Arguments with one value a tensor, read once a chunk and not once an element."""

ESTIMATES = ("c2", "c3", "c4")
"""Central moments; where their unit is 0 they do not belong to the gradient and count as 0."""


def emit_triton(rule: UpdateRule, *, updates: bool = False) -> str:
    """The rule's Triton module, formatted: its steps, and on request its two pure updates."""
    return format_source(_module(rule_programs(rule), updates))


def _module(programs: RulePrograms, updates: bool) -> str:
    rule = programs.rule
    # a pure update has no count to work scalars out from
    pure = [(filling(p), Program("", (), ())) for p in programs.updates] if updates else []
    steps = pure + triton_programs(programs)
    functions = "\n\n".join(_functions(step, scalars) for step, scalars in steps)
    entries = "".join(f'    "{p.name}": {_entry(p, s)},\n' for p, s in steps)
    helpers = HELPERS + "".join(text for name, text in FUNCTIONS.items() if f"{name}(" in functions)
    what = "its updates and steps" if pure else "its steps"
    return f'''"""{words(rule.title or rule.name)}: {what} as fused Triton kernels.

{MARK} Rule {rule.name}, digest {digest(rule)}.
"""

{"import math" if "math." in functions else ""}

import triton
import triton.language as tl

{helpers}

{functions}

STEPS = {{
{entries}}}
'''


def triton_programs(programs: RulePrograms) -> list[tuple[Program, Program]]:
    """Each step that gets a kernel, with the program of its scalars: spaced steps come last."""
    scalars = (*programs.scalars, *programs.spaced_scalars)
    # observing and applying a strategy share its scalars
    owner = {s.name.removeprefix("scalars_"): s for s in scalars}
    return [
        (p, next(s for name, s in owner.items() if p.name.endswith(f"_{name}")))
        for p in (*programs.steps, *programs.spaced)
    ]


def _entry(step: Program, scalars: Program) -> str:
    listed = {
        "tensors": step.tensors,
        "written": written_tensors(step),
        "per_tensor": tuple(t for t in step.tensors if t in PER_TENSOR),
        "coded": tuple(t for t in step.tensors if t in CODED),
        "scalars": _given(step),
        "hypers": _hypers(step, scalars),
    }
    pairs = [f'"{k}": {v!r}' for k, v in listed.items()]
    pairs.append(f'"width": {len(_row(step)) + 1}')
    for kind in ("kernel", "constants", "prepare"):
        pairs.append(f'"{kind}": {step.name}_{kind}')
    return "{" + ", ".join(pairs) + "}"


def _given(step: Program) -> tuple[str, ...]:
    """Scalars of the step, and those of the optimizer: both weight decays, and the factor of
    third moments whose microbatches have unequal weights."""
    decays = ("weight_decay", "coupled_decay") if _moves(step) else ()
    return (*step.scalars, *decays, *_skew(step))


def _skew(step: Program) -> tuple[str, ...]:
    return ("skew",) if "c3" in step.tensors else ()


def _moves(step: Program) -> bool:
    return "param" in step.tensors


def _derived(step: Program, scalars: Program) -> tuple[str, ...]:
    return tuple(n for n in scalars.results if n in step.scalars)


def _hypers(step: Program, scalars: Program) -> tuple[str, ...]:
    """What the device needs to work out a step's scalars from its count."""
    derived = _derived(step, scalars)
    own = [s for s in _given(step) if s not in derived]
    if not derived:
        return tuple(own)
    return tuple(dict.fromkeys([*own, *(s for s in scalars.scalars if s != "t")]))


def _functions(step: Program, scalars: Program) -> str:
    return "\n\n".join([_constants(step), _prepare(step, scalars), _kernel(step)])


# -- scalars ------------------------------------------------------------------------------------


def _row(step: Program) -> tuple[str, ...]:
    """What a row of the scalars' vector holds, after the step count."""
    decays = ("keep", "coupled_decay") if _moves(step) else ()
    return (*decays, *_skew(step), *read_scalars(step))


_KEEP = "keep = 1 - lr * weight_decay"


def _constants(step: Program) -> str:
    """The host's way: doubles in, doubles out; the vector rounds each once."""
    lines = python_lines(computed_scalars(step)) + [_KEEP] * _moves(step)
    arguments = "".join(f"{s}: float, " for s in _given(step))
    row = ", ".join(map(display, _row(step)))
    return "\n".join(
        [
            f"def {step.name}_constants(*, {arguments}t: float = 0) -> list[float]:",
            '    """A row of the scalars that the kernel reads, the step count first."""',
            *(f"    {line}" for line in lines),
            f"    return [t, {row}]",
            "",
        ]
    )


def _prepare(step: Program, scalars: Program) -> str:
    """The device's way: the same rows from step counts in device memory, nothing synchronized."""
    derived = _derived(step, scalars)
    counted = Program("", (), scalars.scalars, list(scalars.statements), derived).prune()
    own = [
        Assign(_apart(s.target), s.operation, tuple(map(_apart, s.operands)), True)
        for s in computed_scalars(step)
    ]
    lines = [f"{h} = tl.load(given + {i})" for i, h in enumerate(_hypers(step, scalars))]
    for line in double_lines(computed_scalars(counted)):
        lines.append(line)
        if line.startswith("warm = "):  # no statistics, no correction
            lines.append(f"warm = warm * tl.load(given + {len(_hypers(step, scalars))})")
    lines += double_lines(own) + [_KEEP] * _moves(step)
    names = [display(_apart(n)) for n in _row(step)]
    lines += [f"tl.store(row + {i}, {n})" for i, n in enumerate(names, start=1)]
    doc = (
        "Rows of scalars from step counts on the device, in doubles, rounded once.\n\n"
        "``counts`` points at the step count of each tensor; ``given`` holds the\n"
        "hyperparameters, then 1 if the step has statistics and 0 if it has none."
    )
    return "\n".join(
        [
            "@triton.jit",
            f"def {step.name}_prepare(counts, given, rows, WIDTH: tl.constexpr):",
            *docstring(doc),
            "    index = tl.program_id(0)",
            "    count = tl.load(tl.load(counts + index).to(tl.pointer_type(tl.float32)))",
            "    t = count.to(tl.float64)",
            "    row = rows + index * WIDTH",
            "    tl.store(row, t)",
            *(f"    {line}" for line in lines),
            "",
        ]
    )


def _apart(operand: Operand) -> Operand:
    """A temporary of the step under a name that the count's temporaries do not have."""
    own = isinstance(operand, str) and operand.startswith("_")
    return f"_s{operand[1:]}" if own else operand


# -- the kernel ---------------------------------------------------------------------------------


def _kernel(step: Program) -> str:
    kinds = "".join(f"{t.upper()}: tl.constexpr, " for t in step.tensors)
    doc = (
        "One pass over chunks of a list of tensors.\n\n"
        "``table`` has a row a tensor: its size, then the address of each argument; ``chunks`` a\n"
        "row a program: which tensor, from which element. ``rows`` are the scalars, ``stride``\n"
        "apart for each tensor. Types in capitals are those in memory; arithmetic is fp32."
    )
    each = [t for t in step.tensors if t not in PER_TENSOR and t not in step.unread()]
    lines = [
        "chunk = chunks + 2 * tl.program_id(0)",
        "tensor = tl.load(chunk)",
        "first = tl.multiple_of(tl.load(chunk + 1), 16)",
        f"entry = table + tensor * {len(step.tensors) + 1}",
        "size = tl.load(entry)",
        "row = rows + tensor * stride",
    ]
    for i, t in enumerate(step.tensors, start=1):
        ragged = "True" if t in PER_TENSOR else "RAGGED"
        lines.append(f"{t}_at = _pointer(entry + {i}, {t.upper()}, {ragged})")
    lines += [f"{t} = tl.load({t}_at).to(tl.float32)" for t in step.tensors if t in PER_TENSOR]
    lines += [f"{display(n)} = tl.load(row + {i})" for i, n in enumerate(_row(step), start=1)]
    body = [
        "offsets = first + turn * BLOCK + tl.arange(0, BLOCK)",
        "within = offsets < size",
        *(f"{t} = {_read(t)}" for t in each),
        *(["if NEGATE:", "    grad = -grad"] if "grad" in each else []),
    ]
    for t in each:  # NaN times a unit of zero is NaN
        if t in ESTIMATES:
            value = "c3 * skew" if t == "c3" else t
            body.append(f"{t} = tl.where(unit_of_c != 0, {value}, 0.0)")
    if _moves(step):
        lines.append("draw = tl.load(row).to(tl.uint32)")
        body += ["if COUPLED:", "    grad = tl.fma(coupled_decay, param, grad)"]
        body.append("param = param * keep")
    body += block_lines(step)
    if _moves(step):
        body += ["if DITHER:", "    param = _dithered(param, seed, draw, tensor, offsets)"]
    body += map(_write, written_tensors(step))
    flags = "".join(
        f"{f}: tl.constexpr, " for f in ("RAGGED", "EXACT", "NEGATE", "COUPLED", "DITHER")
    )
    return "\n".join(
        [
            '@triton.jit(do_not_specialize=["stride", "seed"])',
            f"def {step.name}_kernel(table, chunks, rows, stride, seed, {kinds}{flags}"
            "BLOCK: tl.constexpr, TURNS: tl.constexpr):",
            *docstring(doc),
            *(f"    {line}" for line in lines),
            "    for turn in range(TURNS):",
            *(f"        {line}" for line in body),
            "",
        ]
    )


def _read(tensor: str) -> str:
    where = f"{tensor}_at, offsets, within"
    if tensor in CODED:
        return f"_read_share({where}, {tensor.upper()}, {CODED[tensor]}, RAGGED)"
    return f"_read({where}, RAGGED)"


def _write(tensor: str) -> str:
    value, kind = tensor, tensor.upper()
    if tensor in CODED:
        value = f"_coded({tensor}, {kind}, {CODED[tensor]})"
    return f"_write({tensor}_at, offsets, within, {value}, {kind}, RAGGED)"
