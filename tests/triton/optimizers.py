"""Optimizers whose steps go through Triton's interpreter, beside the plain ones.

For interpreted.py, in whose process TRITON_INTERPRET is set.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from tests.triton.twins import CorrectlyRounded

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, averaged, capturable, fused

SENT, COUNTED = [], []
OPTIMIZERS = {
    "delta": {},
    "closed_form": {"correction": "closed_form"},
    "mean_of_squares": {"second_moment": "mean_of_squares"},
    "delta_int8": {"storage": "int8", "every": 2},
    "closed_form_bf16": {"correction": "closed_form", "storage": "bfloat16", "every": 2},
    "rmsprop": {"kind": RMSprop},
    "rmsprop_int8": {"kind": RMSprop, "storage": "int8", "every": 2},
    **{f"captured_{name}": {"capturable": True, "nonfinite": "skip", **options}
       for name, options in (("delta", {}), ("closed_form", {"correction": "closed_form"}),
                             ("means", {"second_moment": "mean_of_squares"}),
                             ("rmsprop", {"kind": RMSprop}))},
    **{f"exact_{name}": {"exact": True, **options}
       for name, options in (("delta", {}), ("none", {"correction": "none"}),
                             ("means", {"second_moment": "mean_of_squares"}),
                             ("rmsprop", {"kind": RMSprop}),
                             ("captured", {"capturable": True, "nonfinite": "skip"}))},
}  # fmt: skip


def trained(fused, **options):
    """Two parameters after five steps of four microbatches of a noisy quadratic."""
    optimizer, stats = prepared(fused=fused, **options)
    take_steps(optimizer, stats, 5)
    return optimizer.param_groups[0]["params"]


def prepared(kind=AdamW, every=1, dtype=torch.float32, groups=1, size=270, **options):
    """An optimizer with its statistics; two parameters in each group."""
    made = [[torch.nn.Parameter(torch.ones(n, dtype=dtype)) for n in (33, size)]
            for _ in range(groups)]  # fmt: skip
    defaults = {"lr": 0.01, "maximize": True, "weight_decay": 0.1}
    optimizer = kind([{"params": params} for params in made], **{**defaults, **options})
    stats = MicrobatchStats([p for params in made for p in params], moments=4, every=every)
    optimizer.attach(stats)
    return optimizer, stats


def take_steps(optimizer, stats, steps, first=0):
    """Gradients depend on the number of the step alone, and are those of every group."""
    groups = [group["params"] for group in optimizer.param_groups]
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(70 + step)
        optimizer.zero_grad()
        for _ in range(4):
            noise = [torch.randn(p.shape, generator=generator) for p in groups[0]]
            with stats.microbatch():
                for params in groups:
                    sum((z * p).sum() for z, p in zip(noise, params, strict=True)).backward()
        optimizer.step()


@contextmanager
def on_cuda():
    """The CPU is taken for a CUDA device, where statistics are not compiled."""
    with (
        mock.patch.object(MicrobatchStats, "fuse"),
        mock.patch.object(averaged, "run_fused", as_on_cuda),
        mock.patch.object(fused, "KERNELS", ("cpu",)),
        mock.patch.object(capturable, "_get_capturable_supported_devices", return_value=["cpu"]),
    ):
        yield


def through_the_optimizer():
    """The largest difference of a parameter, with and without Triton, by option."""
    differences = {}
    for name, options in OPTIMIZERS.items():
        with on_cuda():
            ours = trained(True, **options)
        plain = {n: v for n, v in options.items() if n not in ("capturable", "exact")}
        with CorrectlyRounded():
            theirs = trained(False, **plain)
        differences[name] = max(
            float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True)
        )
    return differences


def as_on_cuda(module, step, tensors, scalars, *, weight_decay, say_once, **options):
    """What `run_fused` does with tensors on a CUDA device."""
    SENT.append(step)
    COUNTED.append(options.get("steps") is not None)
    fused._on_cuda(module, step, tensors, scalars, weight_decay, **options)


def rounded_at_random():
    """bf16 parameters whose steps are lost in rounding to nearest; what seeds and states say."""
    options = {"dtype": torch.bfloat16, "lr": 1e-3, "correction": "closed_form", "fused": True,
               "weight_decay": 0.0}  # fmt: skip
    options["size"] = 1100
    random = {"stochastic_rounding": True, "groups": 2}

    def run(steps, saved=None, first=0, **more):
        with on_cuda():
            optimizer, stats = prepared(**options, **more)
            if saved is not None:
                groups, resumed = (o.param_groups for o in (optimizer, saved))
                for ours, theirs in zip(groups, resumed, strict=True):
                    torch._foreach_copy_(
                        [p.data for p in ours["params"]], [p.data for p in theirs["params"]]
                    )
                optimizer.load_state_dict(saved.state_dict())
            take_steps(optimizer, stats, steps, first)
        return optimizer

    def params(optimizer):
        return torch.cat([p.detach() for g in optimizer.param_groups for p in g["params"]])

    whole = run(4, **random, seed=3)
    half = run(2, **random, seed=3)
    with CorrectlyRounded():
        exact = torch.cat([p.detach() for p in trained(False, size=1100, lr=1e-3, weight_decay=0.0,
                                                       correction="closed_form")])  # fmt: skip
    drift = (params(run(5, **random, seed=3)).double() - 1).view(2, -1)
    return {
        "repeats": torch.equal(params(whole), params(run(4, **random, seed=3))),
        "other_seed": torch.equal(params(whole), params(run(4, **random, seed=4))),
        "resumes": torch.equal(params(whole), params(run(2, half, 2, **random, seed=9))),
        "groups_alike": torch.equal(*params(whole).view(2, -1)),
        "drift": float((drift - (exact.double() - 1)).mean()),
        "deviation": float((drift - (exact.double() - 1)).std() / drift.numel() ** 0.5),
        "nearest": float((params(run(5)).double() - exact.double()).abs().mean()),
        "move": float((exact.double() - 1).abs().mean()),
    }
