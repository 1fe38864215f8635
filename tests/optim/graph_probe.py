"""Takes capturable steps on a device that holds no numbers, and prints what it saw, as JSON.

A process of its own: it registers a device. Its tensors know shapes and devices only, so a step
that wants to read one raises DataDependentOutputException; copies between devices are counted.
"""

import json
import warnings

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG
from deltabias.optim.averaged import AveragedOptimizer

CASES = {
    "delta": (AdamW, {}),
    "closed_form": (AdamW, {"correction": "closed_form"}),
    "inversion": (AdamW, {"correction": "inversion"}),
    "means": (AdamW, {"second_moment": "mean_of_squares"}),
    "none": (AdamW, {"correction": "none"}),
    "loop": (AdamW, {"correction": "none", "foreach": False}),
    "rmsprop": (RMSprop, {"weight_decay": 0.1}),
    "rmsprop_none": (RMSprop, {"correction": "none"}),
    "sophia": (SophiaG, {}),
}


class Copies(TorchDispatchMode):
    """Counts what moves a tensor from one device to another."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if function is torch.ops.aten.copy_.default else args[0]
            self.count += made.device != source.device
        return made


def take_steps(kind, options, steps=2, **more):
    """An optimizer after some steps with two microbatches each, and the copies in the last."""
    params = [torch.nn.Parameter(torch.randn(n, 3, device="graphs")) for n in (5, 0)]
    rate = more.pop("rate", None)
    optimizer = kind(params, capturable=True, **{"nonfinite": "skip", **options, **more})
    if rate is not None:  # a constructor reads it, to check its range
        optimizer.param_groups[0]["lr"] = rate
    stats = MicrobatchStats(params)
    optimizer.attach(stats)
    for _ in range(steps):
        for _ in range(2):
            stats.add([torch.randn_like(p) for p in params])
        for p in params:
            p.grad = torch.randn_like(p)
        with Copies() as copies:
            if kind is SophiaG:
                optimizer.update_hessian()
            optimizer.step()
    return optimizer, copies.count


def outcome(function, *arguments):
    """The name of the error that a call ends with, or what it returns."""
    try:
        return function(*arguments)
    except Exception as error:
        return type(error).__name__


def copies_of(kind, options, more):
    return take_steps(kind, options, **more)[1]


def devices_of_counts():
    """Where step counts stand before and after a checkpoint went each way."""
    found = []
    # loading, which is no step, asks whether a state is zero
    AveragedOptimizer._remembers = lambda self, state, group: True
    AdamW._remembers = AveragedOptimizer._remembers
    for kind, name in ((AdamW, "step"), (SophiaG, "hessian_step")):
        captured, _ = take_steps(kind, {})
        params = captured.param_groups[0]["params"]
        plain = kind([torch.nn.Parameter(p.detach().clone()) for p in params])
        plain.load_state_dict(captured.state_dict())
        again = kind(params, capturable=True, nonfinite="skip")
        again.load_state_dict(plain.state_dict())
        for optimizer in (captured, plain, again):
            states = optimizer.state.values()
            found.append(sorted({state[name].device.type for state in states}))
            found[-1].append(optimizer.param_groups[0]["capturable"])
    return found


def reads_a_number():
    optimizer, _ = take_steps(AdamW, {}, steps=1)
    return float(next(iter(optimizer.state.values()))["step"])


def copies_a_tensor():
    with Copies() as copies:
        torch.ones(3).to("graphs")
    return copies.count


def measure():
    rate = torch.full((), 0.1, device="graphs")
    return {
        "copies": {
            name: {
                nonfinite: outcome(copies_of, kind, options, {"nonfinite": nonfinite})
                for nonfinite in ("skip", "ignore")
            }
            for name, (kind, options) in CASES.items()
        },
        "rate": outcome(copies_of, AdamW, {}, {"rate": rate}),
        "counts": devices_of_counts(),
        "copying": copies_a_tensor(),
        "reading": outcome(reads_a_number),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _setup_privateuseone_for_python_backend("graphs")
    with FakeTensorMode():
        measured = measure()
    print(json.dumps(measured))
