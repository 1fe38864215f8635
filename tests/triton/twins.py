"""The eager step as what a kernel must equal, on drawn tensors of every size."""

import importlib
from functools import cache

import torch
from torch.overrides import TorchFunctionMode

from deltabias.codegen import eager
from deltabias.codegen.compiled import CODE_HELPERS, CODED
from deltabias.codegen.kernels import rule_programs
from deltabias.codegen.triton import triton_programs
from deltabias.optim.stepping import parameters_of
from deltabias.optim.triton_step import triton_module
from deltabias.rules import get_rule

SIZES = (0, 1, 1023, 1025, 4099)
HYPERS = {"eps": 1e-8, "beta1": 0.9, "beta2": 0.95, "alpha": 0.95, "rho": 0.04, "lr": 1e-2}
POSITIVE = ("exp_avg_sq", "square_avg", "hessian", "noise", "variance", "c2", "c4")
GIVEN = {"microbatches": 8.0, "every": 4.0, "observed": 3.0}


CODES = {"torch": torch, "Tensor": torch.Tensor}
exec(CODE_HELPERS, CODES)  # the compiled step's own coding of shares


class CorrectlyRounded(TorchFunctionMode):
    """torch's own square root is a unit off in a fifth of cases (MKL); IEEE's is not."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.sqrt and args[0].dtype == torch.float32:
            return args[0].double().sqrt().float()  # twice rounded is once rounded for roots
        return function(*args, **(kwargs or {}))


def draw(names, size, seed, dtype=torch.float32):
    """Tensors of one parameter: states positive where they must be, gradients of every size."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in names:
        x = torch.randn(size, generator=generator)
        if name == "grad":
            x = x * 10 ** torch.empty(size).uniform_(-12, 4, generator=generator)
        x = x.square() if name in POSITIVE else x
        tensors[name] = torch.tensor(0.7) if name == "unit_of_c" else x
        if name in ("param", "grad"):
            tensors[name] = tensors[name].to(dtype)
    return tensors


@cache
def plain_steps(rule):
    """Eager steps: those of the generated module, and those that it has in one pass only."""
    found = dict(vars(importlib.import_module(f"deltabias.generated.{rule}")))
    if any(step not in found for step in triton_module(rule).STEPS):
        for step, _ in triton_programs(rule_programs(get_rule(rule))):
            if step.name not in found:
                exec(eager.render(step), found)
    return found


def plain_step(rule, step):
    return plain_steps(rule)[step]


def scalars_of(rule, step, t):
    """The step's scalars as the optimizer passes them."""
    module = importlib.import_module(f"deltabias.generated.{rule}")
    strategy = step.removeprefix("step_").removeprefix("observe_").removeprefix("apply_")
    function = getattr(module, f"scalars_{strategy}")
    known = {**HYPERS, **GIVEN, "t": t}
    known |= function(*(known[n] for n in parameters_of(function)))
    wanted = parameters_of(plain_step(rule, step))
    return {n: known[n] for n, p in wanted.items() if p.kind is p.KEYWORD_ONLY}


def reference(rule, step, tensors, scalars, **wrong):
    """The eager step in fp32, each root rounded correctly; low precision is rounded at the end."""
    wide = {n: widened(n, t) for n, t in tensors.items()}
    with CorrectlyRounded():
        plain_step(rule, step)(*wide.values(), **{**scalars, **wrong})
    for name in triton_module(rule).STEPS[step]["written"]:
        value = wide[name]
        if name in CODED:
            value = CODES["_encoded"](value, CODED[name], tensors[name])
        tensors[name].copy_(value)


def widened(name, tensor):
    """In fp32, codes decoded."""
    if name in CODED:
        return CODES["_decoded"](tensor, CODED[name], torch.float32)
    return tensor.float()


def differing(left, right):
    """Elements that differ in any bit; every NaN is the same."""
    total = 0
    for name in left:
        a, b = left[name], right[name]
        total += int(((a != b) & ~(a.isnan() & b.isnan())).sum())
    return total


def as_codes(row):
    """Shares in eight bits: signed where they have a sign."""
    for name in row:
        if name in CODED:
            unsigned = name in ("noise_share_kept", "noise_kept", "inversion_kept")
            kind = torch.uint8 if unsigned else torch.int8
            row[name] = CODES["_encoded"](row[name], CODED[name], torch.empty(0, dtype=kind)).to(
                kind
            )


def copies(rows):
    return [{n: t.clone() for n, t in row.items()} for row in rows]


def listed(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}
