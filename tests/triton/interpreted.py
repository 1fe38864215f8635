"""Runs generated kernels in Triton's interpreter and prints what it measured, as JSON.

A process of its own, started with TRITON_INTERPRET=1: triton reads it when it is imported. The
thresholds are in test_values.py.
"""

import json
import sys
from functools import partial

import numpy as np
import torch
import triton.language as tl
from tests.triton.optimizers import COUNTED, SENT, rounded_at_random, through_the_optimizer
from tests.triton.twins import (
    GIVEN,
    HYPERS,
    SIZES,
    as_codes,
    copies,
    differing,
    draw,
    listed,
    reference,
    scalars_of,
)
from triton.runtime import interpreter

from deltabias.optim.triton_step import DEFAULTS, run_triton, triton_module


def round_bf16_to_nearest():
    """The interpreter cuts fp32 to bf16; a GPU rounds to nearest, ties to even."""
    original = interpreter.InterpreterBuilder.cast_impl

    def cast_impl(self, source, target):
        if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
            bits = np.ascontiguousarray(source.data).view(np.uint32).astype(np.uint64)
            even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            data = np.where(np.isnan(source.data), 0x7FC0, even).astype(np.uint16)
            return interpreter.TensorHandle(data, target.scalar)
        return original(self, source, target)

    interpreter.InterpreterBuilder.cast_impl = cast_impl
    for name in ("create_fp_trunc", "create_fp_ext"):
        setattr(
            interpreter.InterpreterBuilder,
            name,
            lambda self, source, target: cast_impl(self, source, target),
        )


def compare(rule, step, *, dtype=torch.float32, edit=None, counts=(1, 7), wrong=None):
    """Differing bits over a few steps, every size in one launch."""
    names = triton_module(rule).STEPS[step]["tensors"]
    rows = [draw(names, size, seed, dtype) for seed, size in enumerate(SIZES)]
    for row in rows:
        if edit is not None:
            edit(row)
    ours = copies(rows)
    for t in counts:
        scalars = scalars_of(rule, step, t)
        for row in rows:
            reference(rule, step, row, scalars, **(wrong or {}))
        run_triton(rule, step, listed(ours), scalars, exact=True)
    return sum(differing(a, b) for a, b in zip(rows, ours, strict=True))


def set_to(value, where=slice(None)):
    def edit(row):
        for name in ("grad", "c2", "c3", "c4"):
            if name in row:
                row[name][where] = value

    return edit


def decayed_and_maximized():
    """Both decays and the sign in the same pass: as torch does them, one after the other."""
    scalars, rows = scalars_of("adamw", "step_delta", 3), []
    for seed, size in enumerate(SIZES):
        rows.append(draw(triton_module("adamw").STEPS["step_delta"]["tensors"], size, seed))
    ours = copies(rows)
    for row in rows:
        seen = dict(row, grad=(-row["grad"]).add(row["param"], alpha=0.02))
        row["param"].mul_(1 - scalars["lr"] * 0.1)
        reference("adamw", "step_delta", seen, scalars)
    given = {**scalars, "weight_decay": 0.1, "coupled_decay": 0.02}
    run_triton("adamw", "step_delta", listed(ours), given, exact=True, maximize=True)
    return sum(differing(a, b) for a, b in zip(rows, ours, strict=True))


def backward_after_a_step():
    """What autograd says to a graph whose parameter a step has changed."""
    row = draw(triton_module("adamw").STEPS["step_plug_in"]["tensors"], 3, 0)
    param = row["param"].requires_grad_()
    loss = (param * param).sum()
    with torch.no_grad():
        run_triton("adamw", "step_plug_in", listed([row]), scalars_of("adamw", "step_plug_in", 1))
    try:
        loss.backward()
    except RuntimeError as error:
        return str(error)
    return ""


def mixed_types():
    """Parameters of several types in one list: a launch for each, none forgotten."""
    kinds = (torch.float32, torch.bfloat16, torch.float16)
    names = triton_module("adamw").STEPS["step_closed_form"]["tensors"]
    rows = [draw(names, size, i, kinds[i % 3]) for i, size in enumerate(SIZES)]
    ours, scalars = copies(rows), scalars_of("adamw", "step_closed_form", 2)
    for row in rows:
        reference("adamw", "step_closed_form", row, scalars)
    run_triton("adamw", "step_closed_form", listed(ours), scalars, exact=True)
    return sum(differing(a, b) for a, b in zip(rows, ours, strict=True))


def counted_on_the_device(corrected):
    """Each parameter has its own step count, lr is a tensor; the host knows neither."""
    names = triton_module("adamw").STEPS["step_delta"]["tensors"]
    rows = [draw(names, size, seed) for seed, size in enumerate(SIZES)]
    ours = copies(rows)
    for t, row in enumerate(rows, start=1):
        scalars = scalars_of("adamw", "step_delta", t)
        reference("adamw", "step_delta", row, scalars if corrected else {**scalars, "warm": 0.0})
    hypers = {**HYPERS, **GIVEN, "lr": torch.tensor(HYPERS["lr"], dtype=torch.float64)}
    steps = [torch.tensor(float(t)) for t in range(1, len(SIZES) + 1)]
    if corrected is None:  # said by a scalar, as where the host works them out
        hypers["warm"] = 0.0
    given = {"steps": steps, "corrected": corrected is not False}
    run_triton("adamw", "step_delta", listed(ours), hypers, **given, exact=True)
    return sum(differing(a, b) for a, b in zip(rows, ours, strict=True))


def statistics_of_another_gradient():
    """Their unit is 0; what they say, NaN here, must not reach the state."""
    row = draw(triton_module("adamw").STEPS["step_delta"]["tensors"], 1025, 0)
    row["unit_of_c"].zero_()
    (ours,) = copies([row])
    for name, value in (("c2", float("nan")), ("c3", float("inf"))):
        row[name].zero_()
        ours[name].fill_(value)
    scalars = scalars_of("adamw", "step_delta", 2)
    reference("adamw", "step_delta", row, scalars)
    run_triton("adamw", "step_delta", listed([ours]), scalars, exact=True)
    return sum(differing({n: row[n]}, {n: ours[n]}) for n in row if n not in ("c2", "c3"))


def skewness_of_unequal_weights():
    """The factor of third moments, in the kernel and beforehand."""
    row = draw(triton_module("adamw").STEPS["step_delta"]["tensors"], 1025, 0)
    (ours,) = copies([row])
    scalars = scalars_of("adamw", "step_delta", 2)
    row["c3"].mul_(0.37)
    reference("adamw", "step_delta", row, scalars)
    run_triton("adamw", "step_delta", listed([ours]), {**scalars, "skew": 0.37}, exact=True)
    return sum(differing({n: row[n]}, {n: ours[n]}) for n in row if n != "c3")


def tensor_rate_on_the_host_count():
    row = draw(triton_module("adamw").STEPS["step_plug_in"]["tensors"], 100, 0)
    (ours,) = copies([row])
    reference("adamw", "step_plug_in", row, scalars_of("adamw", "step_plug_in", 4))
    hypers = {**HYPERS, "lr": torch.tensor(HYPERS["lr"], dtype=torch.float64), "t": 4.0}
    run_triton("adamw", "step_plug_in", listed([ours]), hypers, exact=True)
    return differing(row, ours)


def device_rows(rule):
    """Rows of scalars: device against host, over steps and betas, in bits of fp32."""
    from deltabias.optim.triton_step import _prepared

    differ = 0
    for step, entry in triton_module(rule).STEPS.items():
        for t in (1, 2, 1000, 10**6):
            for beta1, beta2 in ((0.9, 0.999), (0.0, 0.95), (0.9, 0.0), (0.9, 0.9)):
                HYPERS.update(beta1=beta1, beta2=beta2, alpha=beta2)
                given = {**DEFAULTS, "weight_decay": 0.1}
                host = {**scalars_of(rule, step, t), **given}
                host = {name: host[name] for name in entry["scalars"]}
                row = torch.tensor(entry["constants"](**host, t=t), dtype=torch.float32)
                known = {**HYPERS, **GIVEN, **given}
                counts = [torch.tensor(float(t))]
                rows, _ = _prepared(entry, known, counts, True, torch.device("cpu"))
                differ += int((rows[0] != row).sum())
    HYPERS.update(beta1=0.9, beta2=0.95, alpha=0.95)
    return differ


def layout(kind):
    """Elements that differ where a tensor's memory is not the plain one."""
    row = draw(triton_module("adamw").STEPS["step_closed_form"]["tensors"], (6, 5, 4, 4), 3)
    (ours,) = copies([row])
    if kind == "channels_last":
        ours = {n: t.contiguous(memory_format=torch.channels_last) if t.dim() else t
                for n, t in ours.items()}  # fmt: skip
    elif kind == "gradient_transposed":
        ours["grad"] = ours["grad"].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    elif kind == "misaligned":
        for name, t in ours.items():
            if t.dim():
                ours[name] = torch.cat([torch.zeros(1), t.flatten()])[1:].view(t.shape)
    scalars = scalars_of("adamw", "step_closed_form", 2)
    reference("adamw", "step_closed_form", row, scalars)
    run_triton("adamw", "step_closed_form", listed([ours]), scalars, exact=True)
    return differing(row, ours)


def dithered():
    """One step of 40 000 equal parameters, rounded at random: what it does to their mean."""
    size, results = 40_000, {}
    param = torch.full((size,), 1.0, dtype=torch.bfloat16)
    grad = torch.full((size,), 1.0, dtype=torch.bfloat16)

    def step(seed, t=1.0, first=param):
        row = {"param": first.clone(), "grad": grad, "exp_avg": torch.zeros(size),
               "exp_avg_sq": torch.zeros(size)}  # fmt: skip
        scalars = {**scalars_of("adamw", "step_plug_in", 1), "lr": 0.001, "t": t}
        run_triton(
            "adamw", "step_plug_in", listed([row]), scalars, stochastic_rounding=True, seed=seed
        )
        return row["param"].float()

    moved = step(5)
    low, gap = 0.99609375, 0.00390625  # the neighbor of 1 below, and the distance to it
    share = float((moved == 1).double().mean())
    results["only_neighbors"] = bool(((moved == 1) | (moved == low)).all())
    results["share_up"], results["expected_up"] = share, (0.999 - low) / gap
    results["repeats"] = bool(torch.equal(moved, step(5)))
    results["other_seed_agrees"] = float((moved == step(6)).double().mean())
    results["other_step_agrees"] = float((moved == step(5, 2.0)).double().mean())
    odd = param.clone()
    odd[0], odd[1] = float("inf"), float("nan")
    kept = step(5, first=odd)
    results["nonfinite_kept"] = bool(kept[0].isinf() and kept[1].isnan())
    return results


def refused(change):
    """The text of the error for a step with something wrong, and whether anything moved."""
    row = draw(triton_module("adamw").STEPS["step_plug_in"]["tensors"], (4, 4), 0)
    scalars = scalars_of("adamw", "step_plug_in", 1)
    keywords = {}
    change(row, scalars, keywords)
    before = row["exp_avg_sq"].clone()
    try:
        run_triton("adamw", "step_plug_in", listed([row]), scalars, **keywords)
    except (TypeError, ValueError, RuntimeError) as error:
        return [type(error).__name__, str(error), torch.equal(before, row["exp_avg_sq"])]
    return ["nothing", "", False]


REFUSALS = {
    "double": lambda row, s, k: row.update(param=row["param"].double()),
    "strided": lambda row, s, k: row.update(param=torch.zeros(4, 8)[:, ::2]),
    "shape": lambda row, s, k: row.update(grad=row["grad"].flatten()),
    "device": lambda row, s, k: row.update(grad=row["grad"].to("meta")),
    "missing": lambda row, s, k: s.pop("eps"),
    "dither": lambda row, s, k: k.update(stochastic_rounding=True),
    "counts": lambda row, s, k: k.update(steps=[]),
    "count": lambda row, s, k: k.update(steps=[torch.tensor(1)]),
}


def measure():
    probe = torch.full((64,), 1 + 2**-12)
    fused = probe.add(probe, alpha=2**-12 + 2**-24)
    exact = (probe.double() * (1 + 2**-12 + 2**-24)).float()
    results = {"torch_fuses": torch.equal(fused, exact), "steps": {}, "device_rows": {}}
    rules = sys.argv[1:]
    for rule in rules:
        results["device_rows"][rule] = device_rows(rule)
        for step in triton_module(rule).STEPS:
            results["steps"][f"{rule}.{step}"] = compare(rule, step)
    delta = partial(compare, "adamw", "step_delta")
    round_bf16_to_nearest()
    results |= {
        "bf16": delta(dtype=torch.bfloat16),
        "fp16": delta(dtype=torch.float16),
        "codes": sum(
            compare(rule, f"step_{strategy}_{kind}", edit=as_codes)
            for rule in ("adamw", "rmsprop")
            for strategy in ("delta", "closed_form")
            for kind in ("spaced", "held")
        ),
        "zero_gradients": delta(edit=set_to(0.0)),
        "nan_everywhere": delta(edit=set_to(float("nan"))),
        "nan_in_one": delta(edit=set_to(float("nan"), slice(0, 1))),
        "infinite_in_one": delta(edit=set_to(float("inf"), slice(0, 1))),
        "wrong_rate": delta(wrong={"lr": HYPERS["lr"] * (1 + 2**-20)}, counts=(1,)),
        "wrong_decay": delta(wrong={"beta2": 0.951}, counts=(1,)),
        "mixed": mixed_types(),
        "decayed_and_maximized": decayed_and_maximized(),
        "counted_on_the_device": counted_on_the_device(True),
        "uncorrected_on_the_device": counted_on_the_device(False),
        "not_warm_on_the_device": counted_on_the_device(None),
        "another_gradient": statistics_of_another_gradient(),
        "unequal_weights": skewness_of_unequal_weights(),
        "tensor_rate": tensor_rate_on_the_host_count(),
        "layouts": {k: layout(k) for k in ("channels_last", "gradient_transposed", "misaligned")},
        "dithered": dithered(),
        "backward": backward_after_a_step(),
        "optimizer": through_the_optimizer(),
        "sent": sorted(set(SENT)),
        "counted": sum(COUNTED),
        "rounded_at_random": rounded_at_random(),
        "refusals": {name: refused(change) for name, change in REFUSALS.items()},
    }
    return results


if __name__ == "__main__":
    print(json.dumps(measure()))
