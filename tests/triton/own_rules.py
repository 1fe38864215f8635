"""Runs Triton kernels of rules that no catalogue has, in the interpreter; prints JSON.

A process of its own, as interpreted.py. The thresholds are in test_own_rules.py.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import torch
from tests.triton.twins import CorrectlyRounded, draw

from deltabias.codegen.backends import emit_backend
from deltabias.codegen.emit import emit
from deltabias.codegen.sync import write_rule
from deltabias.optim.triton_step import run_triton
from deltabias.rule import BETA1, BETA2, EPS, MEAN_GRADIENT, SQUARE_OF_MEAN, Ema, UpdateRule

RULES = {
    "third_root": "g/(v**(1/3)+eps)",
    "logarithm": "g/(log(1+v)+eps)",
    "bounded": "g*tanh(v)",
    "error_function": "g*erf(v)",
}
FUNCTIONS = {
    "root": ("cbrt(v)", lambda v: torch.where(v < 0, torch.nan, v.abs() ** (1 / 3))),
    "exp": ("exp(v)", torch.exp),
    "log": ("log(v)", torch.log),
    "log1p": ("log(1+v)", torch.log1p),
    "tanh": ("tanh(v)", torch.tanh),
    "erf": ("erf(v)", torch.erf),
    "sign": ("sign(v)", torch.sign),
}
ODD = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e-38, -1e-30, 1e-3, 88.0)
OWN = UpdateRule(
    "cube_root_adam",
    "exp_avg/(exp_avg_sq**(1/3)+eps)",
    (Ema("exp_avg", MEAN_GRADIENT, BETA1), Ema("exp_avg_sq", SQUARE_OF_MEAN, BETA2)),
    (EPS,),
)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def emitted_tests(folder):
    """The worst error of each case of each rule's emitted test, and of a value that is wrong."""
    results = {}
    for name, text in RULES.items():
        write_rule(UpdateRule.parse(text, name=name), folder, ["triton"])
        test = load(folder / f"test_{name}_triton.py")
        for function, reference, ranges, scalars in test.CASES:
            tensors = test.grid(ranges, torch.float32, samples=100)
            ours, _ = test.worst_ulps(test.filled(function), reference, tensors, scalars)
            results[f"{name}.{function}"] = ours
            test.test_a_wrong_value_is_seen(function, reference, ranges, scalars)
    return results


def values(folder, name, text):
    """The kernel's values of a function next to those in doubles, rounded once."""
    path = folder / f"just_{name}.py"
    path.write_text(emit_backend(UpdateRule.parse(f"{text}/g", name=f"just_{name}"), "triton"))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, generator=generator)
    x *= 10 ** torch.empty(20_000).uniform_(-8, 2, generator=generator)
    x = torch.cat([x, torch.tensor(ODD)])
    g, update = torch.ones_like(x), torch.empty_like(x)
    run_triton(load(path), "plug_in_update", {"update": [update], "g": [g], "v": [x]}, {})
    return update, FUNCTIONS[name][1](x.double()).float()


def function_errors(folder):
    """How many values differ from those rounded once from doubles, and how many by more."""
    results = {}
    for name, (text, _) in FUNCTIONS.items():
        ours, exact = values(folder, name, text)
        same = (ours == exact) | (ours.isnan() & exact.isnan())
        near = (ours - exact).abs() <= 2**-23 * exact.abs()
        odd = same[-len(ODD) :] | near[-len(ODD) :]
        results[name] = [int((~same).sum()), int((~(same | near)).sum()), bool(odd.all())]
    return results


def step_of_one_s_own(folder, scale=1.0):
    """A corrected step next to the eager one: the largest difference over the largest value."""
    path = folder / "own_triton.py"
    path.write_text(emit_backend(OWN, "triton"))
    module, plain = load(path), {}
    exec(emit(OWN).module, plain)
    scalars = {"eps": 1e-3, "beta1": 0.9, "beta2": 0.95, "lr": 0.01, "microbatches": 8.0}
    scalars |= plain["scalars_delta"](3, 0.9, 0.95)
    row = draw(module.STEPS["step_delta"]["tensors"], 1025, 0)
    row["grad"] = torch.randn(1025, generator=torch.Generator().manual_seed(1))
    ours = {n: t.clone() for n, t in row.items()}
    known = {n: scalars[n] for n in module.STEPS["step_delta"]["scalars"] if n in scalars}
    run_triton(module, "step_delta", {n: [t] for n, t in ours.items()}, scalars, exact=True)
    with CorrectlyRounded():
        plain["step_delta"](*row.values(), **{**known, "lr": known["lr"] * scale})
    return max(
        float((ours[n] - row[n]).abs().max() / row[n].abs().max())
        for n in module.STEPS["step_delta"]["written"]
    )


def measure():
    folder = Path(tempfile.mkdtemp())
    return {
        "emitted": emitted_tests(folder),
        "functions": function_errors(folder),
        "step": step_of_one_s_own(folder),
        "wrong_step": step_of_one_s_own(folder, 1 + 2**-10),
    }


if __name__ == "__main__":
    json.dump(measure(), sys.stdout)
