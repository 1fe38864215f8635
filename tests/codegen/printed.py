"""Printed source made callable. Running generated text is what the product's users do with it."""

import math

import torch
from torch import Tensor

from deltabias.codegen import eager, foreach
from deltabias.codegen.emit import ROOT_HELPER


def load(source, name):
    """The function of that name in a source text."""
    namespace = {"torch": torch, "Tensor": Tensor, "math": math}
    exec(ROOT_HELPER + source, namespace)
    return namespace[name]


def eager_of(program):
    return load(eager.render(program), program.name)


def foreach_of(program):
    return load(foreach.render(program), f"{program.name}_foreach")


def call_both(program, tensors, scalars=None):
    """The plain result, and the result on lists, of a program with one result."""
    scalars = scalars or {}
    copies = [[t.clone()] for t in tensors]
    plain = eager_of(program)(*(t.clone() for t in tensors), **scalars)
    (listed,) = foreach_of(program)(*copies, **scalars)
    return plain, listed


def same_bits(a, b):
    """Equal in shape, dtype and every bit, two NaN being equal."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    differ = a.contiguous().view(kind) != b.contiguous().view(kind)
    return not bool((differ & ~(a.isnan() & b.isnan())).any())
